"""Grids and pages of panels, many curves, what a figure says of itself, and smooth curves."""

import csv
import tracemalloc

import numpy as np
import pytest

from tlcli.options.commands import COMMANDS
from tlcli.report.draw import pictures
from tlcli.report.drawing import Drawing
from tlcli.report.tables import Block
from tlcli.run.assemble import fine_block
from tlcli.run.job import prepare


def panels(figure):
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]


def places(figure):
    found = {}
    for axis in panels(figure):
        spec = axis.get_subplotspec()
        found[spec.rowspan.start, spec.colspan.start] = axis.get_title()
    return found


def test_two_parameters_make_a_grid(draw):
    flags = {"alpha1": "0.3,1,3,inf", "rho": "0.3,0.9"}
    (figure,) = draw("phase-diagram", x="alpha2=0.1:0.9:3", y="gamma0=0.5:5:3", **flags).values()
    alphas, rhos = ("0.3", "1", "3", r"$\infty$"), ("0.3", "0.9")
    titles = places(figure)
    assert len(titles) == 8
    for (row, column), title in titles.items():
        assert title == rf"$\alpha_1$ = {alphas[row]}, $\rho$ = {rhos[column]}"


def test_three_parameters_make_pages(draw):
    flags = {"alpha1": "0.3,1", "rho": "0.3,0.9", "sigma1": "0,0.5,1"}
    files = draw("phase-diagram", x="alpha2=0.1:0.9:3", y="gamma0=0.5:5:3", **flags)
    assert list(files) == ["figure-1.png", "figure-2.png"]
    for figure, alpha1 in zip(files.values(), ("0.3", "1"), strict=True):
        assert all(rf"$\alpha_1$ = {alpha1}," in axis.get_title() for axis in panels(figure))
        assert set(places(figure)) == {(i, j) for i in range(2) for j in range(3)}


@pytest.mark.parametrize("count", [9, 300])
def test_many_curves_have_a_colour_bar_and_no_names(draw, count):
    (figure,) = draw("finetune-loss", alpha2="0.1:0.9:5", gamma0=f"log:0.1:10:{count}", x="alpha2").values()
    (bar,) = [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]
    assert bar.get_ylabel() == r"richness $\gamma_0$"
    texts = [text.get_text() for text in bar.get_yticklabels()]
    assert (texts[0], texts[-1]) == ("0.1", "10")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["no pre-training"]
    (axis,) = panels(figure)
    box = axis.get_window_extent()
    assert box.width > 0.6 * figure.bbox.width
    assert figure.legends[0].get_window_extent().y1 <= box.y0, "no legend over the data"


def numbered(**sizes):
    """Return a block whose column `loss` is the row of the table."""
    shape = tuple(sizes.values())
    loss = np.arange(float(np.prod(shape))).reshape(shape)
    return Block({name: np.linspace(1.0, 2.0, size) for name, size in sizes.items()}, {"loss": loss}, {})


@pytest.mark.parametrize("kind", ["curves", "map"])
def test_every_drawn_value_knows_its_row_of_the_table(kind):
    block = numbered(rho=2, alpha2=3, sigma1=2, gamma0=5)
    for roles in ({"x": "gamma0"}, {"x": "alpha2"}, {"x": "rho"}):
        (one,) = pictures([block], Drawing(kind=kind, roles=roles))
        parts = [part for panel in one.panels for part in (panel.curves if kind == "curves" else [panel])]
        assert sum(part.values.size for part in parts) == block.size
        for part in parts:
            np.testing.assert_array_equal(part.rows, part.values)


@pytest.mark.parametrize(("kind", "sizes"), [("curves", (300, 400)), ("map", (100, 30, 40))])
def test_what_many_curves_or_facets_hold_does_not_grow_with_their_number(kind, sizes):
    block = numbered(**dict(zip(("alpha2", "gamma0", "rho")[: len(sizes)], sizes, strict=True)))
    drawing = Drawing(kind=kind, roles={"x": "gamma0"} | ({"y": "rho"} if kind == "map" else {}))
    tracemalloc.start()
    one = pictures([block], drawing)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(one) == 1
    assert used < 4 * block.size * 8, "a number or two of every row, not the whole table for each"


def test_a_figure_says_what_is_fixed_and_names_its_only_curve(draw):
    (figure,) = draw("finetune-loss", alpha1="0.5", alpha2="0.1:0.9:5", sigma2="0.3").values()
    title = figure.get_suptitle().replace("\N{NO-BREAK SPACE}", " ")
    for words in (r"$\alpha_1$ = 0.5", r"$\rho$ = 0.8", r"$\gamma_0$ = 1", r"$\sigma_2$ = 0.3"):
        assert words in title
    assert r"\sigma_1" not in title, "no noise is nothing to say"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["after pre-training", "no pre-training"]


def test_curves_of_closed_forms_are_smooth_and_the_table_is_as_asked(draw, tmp_path):
    (figure,) = draw("finetune-loss", alpha2="0.1:0.9:5", gamma0="3", rho="0.8", alpha1="inf").values()
    with (tmp_path / "table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 5
    line = next(line for line in panels(figure)[0].lines if line.get_linestyle() == "-")
    alpha2, chi = line.get_xdata(), np.sqrt(1 + 3**2) - 1
    assert len(alpha2) > 200
    expected = (1 - alpha2) * (1 - 0.64 * alpha2 * chi * (2 + alpha2 * chi) / (1 + alpha2 * chi) ** 2)
    np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-12)
    assert {float(row["alpha2"]) for row in rows} <= set(alpha2)


@pytest.mark.parametrize(("curves", "points", "finer"), [(2, 5, True), (2, 2000, True), (500, 601, False)])
def test_curves_with_points_enough_get_no_finer_ones(curves, points, finer):
    grid = {"alpha2": f"0.1:0.9:{curves}", "gamma0": f"0:5:{points}"}
    (case,) = prepare("finetune-loss", COMMANDS["finetune-loss"].options, None, grid).cases
    block = fine_block(case, "gamma0")
    assert (block is not None) == finer
    if block is not None:
        assert 300 * curves <= block.size <= (300 + points) * curves


def test_whole_numbers_are_not_divided(draw):
    (figure,) = draw("finetune-loss", solver="linear-structured", dim="40", p2="4,8,16,32", x="p2").values()
    (axis,) = panels(figure)
    finer = [line.get_xdata().tolist() for line in axis.lines if len(line.get_xdata())]
    assert finer == [list(range(4, 33))] * len(finer)


def test_the_best_richness_over_target_data_shows_infinity(draw, tmp_path):
    flags = {"alpha2": "0.1:1.5:8", "kernel": "ntk", "ridge": "3", "sigma2": "1", "rho": "0.6", "alpha1": "2"}
    (figure,) = draw("finetune-loss", **flags, optimal_gamma0=True, quantity="gamma0_opt").values()
    with (tmp_path / "table.csv").open() as stream:
        best = [float(row["gamma0_opt"]) for row in csv.DictReader(stream)]
    assert any(np.isinf(best)), "the setting has an infinite one"
    assert r"\gamma_0" not in figure.get_suptitle(), "what is searched is not fixed"
    (axis,) = panels(figure)
    (line,) = [line for line in axis.lines if len(line.get_xdata()) > 7]
    assert np.isfinite(line.get_ydata()).sum() == 8, "and nothing between places"
    texts = [text.get_text() for text in axis.get_yticklabels()]
    assert r"$\infty$" in texts


def test_no_line_joins_the_places_of_zero_and_infinity(draw, tmp_path):
    flags = {"alpha1": "0.5", "x": "alpha2=0.2:1.4:7", "gamma0": "0.5,2"}
    (figure,) = draw("finetune-loss", **flags, optimal_gamma0=True, quantity="gamma0_opt").values()
    with (tmp_path / "table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    best = [float(row["gamma0_opt"]) for row in rows if row["gamma0"] == "0.5"]
    assert set(best) == {0, np.inf}, "beyond alpha2 = 1 nothing helps"
    (line,) = [line for line in panels(figure)[0].lines if len(line.get_xdata()) > 4]
    values = line.get_ydata()
    (gap,) = np.flatnonzero(np.isnan(values))
    assert gap == best.index(0)
    assert len(values) == len(best) + 1
    assert np.ptp(values[:gap]) == np.ptp(values[gap + 1 :]) == 0


def test_a_curve_of_a_case_without_lines_has_the_colour_and_name_of_its_value(draw):
    grid = {"alpha2": "0.1:0.9:5", "alpha1": 0.5}
    cases = [{"label": "several", "gamma0": [1, 3]}, {"label": "one", "gamma0": 3}]
    (figure,) = draw("finetune-loss", {"x": "alpha2", **grid, "cases": cases}).values()
    several, one = ([line for line in axis.lines if line.get_linestyle() == "-"][:2] for axis in panels(figure))
    assert several[1].get_color() == one[0].get_color()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [r"$\gamma_0$ = 1", r"$\gamma_0$ = 3", "no pre-training"]
    assert [axis.get_title() for axis in panels(figure)] == ["several", "one"], "the legend says it"
    given = {"label": "no such parameter", "solver": "linear-ansatz", "c_signal": "0.5"}
    cases = [{"label": "several", "weight_decay": [0.1, 0.2]}, given]
    (figure,) = draw("finetune-loss", {"x": "alpha2", "quantity": "gain", "cases": cases, **grid}).values()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:3] == [r"$\lambda_1$ = 0.1", r"$\lambda_1$ = 0.2", r"gain $\mathcal{L}_0-\mathcal{L}$"]


def test_panels_do_not_repeat_what_the_subtitle_says_and_a_loss_is_named(draw):
    tiny = {"source": "digits:3v8", "target": "digits:4v9", "p1": "6", "ptest": 20, "neurons": 32, "repeats": 2}
    flags = {
        **tiny,
        "solver": "network-rich",
        "x": "p2=4,6",
        "gamma2": "0.5,1",
        "t1": 1,
        "times": "1",
        "loss2": "logistic",
    }
    (figure,) = draw("finetune-loss", **flags).values()
    (axis,) = panels(figure)
    assert axis.get_title() == ""
    words = figure.get_suptitle().replace("\N{NO-BREAK SPACE}", " ").replace("\n", " ")
    assert "$t$ = 1" in words
    assert words.endswith("mse loss, then logistic")
    (figure,) = draw("finetune-loss", **{**flags, "loss2": "mse"}).values()
    assert "mse" not in figure.get_suptitle()


def test_what_a_whole_curve_has_one_of_is_not_drawn_in_time(draw, tmp_path):
    tiny = {
        "source": "linear",
        "target": "hermite:2",
        "dim": 3,
        "p1": 8,
        "p2": 6,
        "ptest": 20,
        "neurons": 64,
        "repeats": 2,
    }
    flags = {**tiny, "gamma2": "0.5,1,2", "times": "0,0.5,1"}
    figure = draw("dmft-solve", **flags, quantity="best_time")["figure.png"]
    with (tmp_path / "table.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if (row["stage"], row["time"]) == ("2", "1")]
    (axis,) = panels(figure)
    (line,) = [line for line in axis.lines if len(line.get_xdata())]
    np.testing.assert_array_equal(line.get_xydata(), [[float(row["gamma2"]), float(row["best_time"])] for row in rows])
    (axis,) = panels(draw("dmft-solve", **flags, quantity="best_time", x="time")["figure.png"])
    assert axis.get_xlabel().startswith("time")
