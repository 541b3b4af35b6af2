"""Scales and limits of curves, by rule and by hand, and the marks of what lies beyond them."""

import numpy as np
import pytest

from tlcli.report.drawing import Drawing
from tlcli.report.frame import squashed, uneven, value_axis


def panels(figure):
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]


def marks(axis):
    return [
        (line.get_marker(), float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for line in axis.lines
        if line.get_marker() in ("^", "v") and len(line.get_xdata())
    ]


def test_values_over_more_than_a_decade_ask_for_a_logarithm():
    decades = np.geomspace(0.01, 1, 50)
    assert squashed([decades])
    assert not squashed([np.geomspace(0.2, 1, 50)])
    assert not squashed([np.linspace(0.01, 1, 50)]), "few of them are small"
    assert not squashed([np.append(decades, -0.1)])
    assert squashed([np.append(decades[::-1], np.zeros(90))]), "where it has vanished there is nothing to see"
    assert not squashed([decades, np.zeros(50)]), "a line of zeros is to be seen"
    assert not squashed([np.insert(decades, 25, np.zeros(30))])
    assert squashed([np.append([3.0, 1.0, 0.5], np.linspace(0.15, 0.1, 50))]), "a fall to a plateau"


def test_samples_over_decades_ask_for_a_logarithm():
    assert uneven(np.array([10, 20, 40, 80, 160, 320.0]))
    assert uneven(np.array([8, 12, 16, 24, 32, 48, 64, 96, 128.0]))
    assert not uneven(np.linspace(0.05, 1.5, 30))
    assert not uneven(np.array([0, 1, 10, 100.0]))
    assert not uneven(np.array([0.5, 1, 2, 4.0]))
    for few in ([5, 50, 500], [0.01, 1, 100], [0.3, 1, 3], [1, 3, 10], [1, 2, 50]):
        assert uneven(np.array(few, dtype=float)), f"three of a geometric grid, or far apart: {few}"
    for few in ([5, 50, 100], [1, 2, 3], [1, 2, 4], [1, 2, 10], [0.1, 0.5, 1], [1, 100], [0, 1, 100], [1, 10, np.inf]):
        assert not uneven(np.array(few, dtype=float)), f"{few}"


def test_few_values_over_decades_stand_on_logarithmic_axes(draw):
    flags = {"x": "gamma0=0.01,1,100", "alpha2": "0.3,0.5", "alpha1": "0.5"}
    (figure,) = draw("finetune-loss", **flags).values()
    assert panels(figure)[0].get_xscale() == "log"
    (figure,) = draw("phase-diagram", x="alpha2=0.1:0.9:4", y="gamma0=0.3,1,3").values()
    assert (panels(figure)[0].get_xscale(), panels(figure)[0].get_yscale()) == ("linear", "log")
    (figure,) = draw("finetune-loss", **flags, log_x=False).values()
    assert panels(figure)[0].get_xscale() == "linear"


def test_limits_by_hand_and_what_leaves_them(draw):
    flags = {"alpha2": "0.1:0.9:9", "gamma0": "1,5", "alpha1": "inf", "rho": "0.9"}
    (figure,) = draw("finetune-loss", **flags, xlim="0,1", ylim="0.2,0.5").values()
    (axis,) = panels(figure)
    assert axis.get_xlim() == (0, 1)
    assert axis.get_ylim() == (0.2, 0.5)
    found = marks(axis)
    # All three curves start above and end below.
    assert sorted({(marker, y) for marker, _, y in found}) == [("^", 1.0), ("v", 0.0)]
    # Infinite source data: without pre-training the loss is 1 - alpha2, which leaves where that is a limit.
    for marker, x in (("^", 0.5), ("v", 0.8)):
        assert max(at for kind, at, _ in found if kind == marker) == pytest.approx(x, abs=1e-3)
    assert len({round(x, 2) for marker, x, _ in found if marker == "v"}) == 3, "each where it leaves, not in a corner"
    assert "beyond the frame" in [text.get_text() for text in figure.legends[0].get_texts()]
    (figure,) = draw("finetune-loss", **flags).values()
    assert marks(panels(figure)[0]) == []


@pytest.mark.parametrize(("flag", "scales"), [("log_x", ("log", "linear")), ("log_y", ("linear", "log"))])
def test_logarithmic_axes_by_hand(draw, flag, scales):
    (figure,) = draw("finetune-loss", alpha2="0.1:0.9:9", **{flag: True}).values()
    (axis,) = panels(figure)
    assert (axis.get_xscale(), axis.get_yscale()) == scales
    (figure,) = draw("finetune-loss", alpha2="log:0.1:0.9:9", log_x=False).values()
    assert panels(figure)[0].get_xscale() == "linear"


def test_a_loss_over_decades_is_drawn_on_a_logarithmic_axis(draw):
    (figure,) = draw("finetune-loss", alpha1="inf", rho="1", gamma0="log:1:1000:20", alpha2="0.9").values()
    (axis,) = panels(figure)
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    low, high = axis.get_ylim()
    values = max((line.get_ydata() for line in axis.lines), key=len)
    assert low < values.min() < values.max() < high


def test_an_interpolation_peak_is_cut_and_marked(draw):
    (figure,) = draw("finetune-loss", alpha1="0.5", alpha2="0.0501:1.9901:98", sigma2="1", log_y=False).values()
    (axis,) = panels(figure)
    assert axis.get_ylim()[1] < 30
    assert {marker for marker, _, _ in marks(axis)} == {"^"}
    assert all(0.8 < x < 1.2 for _, x, _ in marks(axis))


def test_what_a_curve_begins_with_is_no_peak():
    fall = np.append(np.geomspace(1, 0.01, 20), np.full(80, 0.01))
    plain = Drawing(logs={"y": False})
    assert value_axis(plain, [fall], []) == (False, (0.0, pytest.approx(1.05)))
    peak = np.insert(fall[20:], 40, [0.1, 1.0, 0.1])
    assert value_axis(plain, [peak], []) == (False, (0.0, pytest.approx(0.025)))


def test_curves_end_where_zero_follows_on_a_logarithmic_axis(draw):
    """Without noise and ridge, structured data are learned exactly from P2 = D on: 400."""
    flags = {"solver": "linear-structured", "p1": "100", "gamma0": "0,10"}
    for grid in ("5:500:7", "5:1000:7", "5,10,20,50,100,200,500"):
        (figure,) = draw("finetune-loss", p2=grid, **flags).values()
        (axis,) = panels(figure)
        assert axis.get_yscale() == "log"
        curves = [line.get_xydata() for line in axis.lines if len(line.get_xdata()) > 100]
        assert len(curves) == 3
        for curve in curves:
            seen = curve[~np.isnan(curve[:, 1])]
            assert 395 <= seen[:, 0].max() < 400, "a smooth line, over whole numbers"
            np.testing.assert_allclose(seen[:, 0], np.round(seen[:, 0]), rtol=1e-12)
            assert axis.get_ylim()[0] < seen[:, 1].min() < seen[:, 1].max() < axis.get_ylim()[1]
            assert ("v", seen[:, 0].max(), 0.0) in marks(axis), "where it leaves"


def test_a_map_on_axes_by_hand(draw):
    flags = {"x": "alpha2=0.1:0.9:9", "y": "rho=0.1:0.9:5", "log_x": True, "ylim": "0.2,0.6"}
    (figure,) = draw("phase-diagram", **flags).values()
    (axis,) = panels(figure)
    assert axis.get_xscale() == "log"
    assert axis.get_ylim() == (0.2, 0.6)


def test_a_logarithmic_axis_holds_bands_that_are_not_much_lower():
    values, edges = np.geomspace(0.2, 1.0, 9), np.array([-0.1, 0.001, 0.08, 2.0])
    drawing = Drawing(logs={"y": True})
    _, alone = value_axis(drawing, [values], [])
    _, banded = value_axis(drawing, [values], [], [edges])
    assert alone == pytest.approx((0.2 / 1.3, 1.3))
    assert banded == pytest.approx((0.08 / 1.3, 2.0 * 1.3)), "an edge below a tenth of the least value is cut"
    assert value_axis(Drawing(), [values], [], [edges]) == value_axis(Drawing(), [values], [])


def test_infinite_values_at_the_place_of_infinity_are_marked(draw):
    flags = {"alpha1": "0.5", "weight_decay": "0", "x": "gamma0"}
    for grid in ("0.1,1,10,inf", "0,1,inf"):
        figure = draw("pretrain-kernel", **flags, gamma0=grid, quantity="spike")["figure.png"]
        (axis,) = panels(figure)
        ((shape, place, height),) = marks(axis)
        assert (shape, height) == ("^", 1.0)
        assert axis.get_xticks()[-1] == pytest.approx(place)
        assert axis.get_xticklabels()[-1].get_text() == r"$\infty$"
        assert axis.get_xlim()[0] < place < axis.get_xlim()[1]


def test_bars_at_one_place_stand_side_by_side(draw):
    """Moved on paper alone: the data that they show stay where they are, and so does the frame."""
    flags = {"source": "linear", "target": "linear", "dim": 6, "p1": 8, "p2": "4,8,16", "gamma0": "1,3", "draws": 3}
    figure = draw("bayes-saddle", **flags, delta="1", x="p2", quantity="loss")["figure.png"]
    (axis,) = panels(figure)
    bars = [bar for bar in axis.collections if len(bar.get_segments()) == 3]
    assert len(bars) >= 3, "two curves, and one or two baselines"
    figure.canvas.draw()
    for point, place in enumerate((4.0, 8.0, 16.0)):
        ends = [bar.get_segments()[point][0] for bar in bars]
        assert {end[0] for end in ends} == {place}
        seen = np.sort([bar.get_transform().transform(end)[0] for bar, end in zip(bars, ends, strict=True)])
        apart = np.diff(seen) * 72 / figure.dpi
        assert np.all((apart > 2) & (apart < 4)), "points of paper"
        assert abs(seen.mean() - axis.transData.transform((place, 1.0))[0]) < 1e-6
    lines = [line for line in axis.lines if len(line.get_xdata()) == 3 and line.get_linestyle() != "None"]
    moved = {round(line.get_transform().transform((8.0, 0.5))[0], 6) for line in lines}
    assert len(moved) == len(lines), "lines go with their bars"
