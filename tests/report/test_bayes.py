"""Figures of the Bayesian theory: couplings from 0 to infinity on one axis, the best one, kernels sorted by label."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import LogNorm, Normalize

from tlcli.report.bayes import draw_kernel_grid
from tlcli.report.draw import pictures
from tlcli.report.drawing import Drawing
from tlcli.report.ends import ends_of, mark_ends, placed, summarised
from tlcli.report.figures import figures_of
from tlcli.report.kernels import Shown
from tlcli.report.maps import colour_scale
from tlcli.report.tables import Block

INF = np.inf


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def drawing(quantity=None, style="curves", roles=None, boundaries=()):
    return Drawing(style, roles or {}, quantity, boundaries=boundaries)


def block(deltas=(0.0, 0.1, 1.0, 10.0, INF), gammas=(0.5, 2.0), draws=True):
    delta, gamma = np.array(deltas), np.array(gammas)
    x = np.where(np.isinf(delta), 1e3, delta)[:, None]
    loss = 1 + (np.log(x + 0.05) - np.log(gamma)) ** 2 / 20
    best = loss.argmin(axis=0)
    columns = {
        "loss": loss,
        "baseline": np.broadcast_to(loss[:1], loss.shape),
        "gain": loss[:1] - loss,
        "delta_opt": delta[best][None, :],
        "loss_opt": loss.min(axis=0)[None, :],
    }
    if draws:
        columns |= {"loss_draw_se": np.full(loss.shape, 0.02)}
        columns |= {"delta_low": np.array([[0.0, 0.1]]), "delta_high": np.array([[1.0, INF]])}
    return Block({"delta": delta, "gamma2": gamma}, columns, {"delta": "list", "gamma2": "list"})


def test_zero_and_infinity_stand_beyond_the_others_on_a_logarithmic_axis():
    values = np.array([INF, 0.0, 0.1, 10.0])
    ends = ends_of(values)
    at = ends.place(values)
    assert at[1] < 0.1 < 10 < at[0]
    assert at[2:].tolist() == [0.1, 10.0]
    assert np.isnan(ends_of(np.array([0.1, 10.0])).place([0.0])).all()
    # The order of the axis is that of the couplings.
    assert np.array_equal(np.argsort(ends.place(values)), np.argsort(values))


@pytest.mark.parametrize("values", [[0.0, 1.0, 2.0], [1.0, 3.0], [0.0]])
def test_few_couplings_of_one_size_stay_on_a_linear_axis(values):
    assert ends_of(np.array(values)) is None


@pytest.mark.parametrize("values", [[0.0, INF], [1.0, INF], [0.0, 1.0, INF]])
def test_ends_alone_have_places(values):
    ends = ends_of(np.array(values))
    figure, axis = plt.subplots()
    axis.plot(ends.place(values), np.ones(len(values)))
    mark_ends(axis, ends)
    figure.canvas.draw()
    wanted = {0.0: "0", 1.0: "1", INF: r"$\infty$"}
    written = {label.get_text() for label in axis.get_xticklabels()} - {""}
    assert written == {wanted[value] for value in values}
    low, high = np.log(axis.get_xlim())
    gaps = [np.log(p.get_x() + p.get_width()) - np.log(p.get_x()) for p in axis.patches]
    assert sum(gaps) < 0.1 * (high - low), "breaks leave room for the curves"
    plt.close(figure)


def test_ticks_and_breaks():
    figure, axis = plt.subplots()
    ends = ends_of(np.array([0.0, 0.1, 100.0, INF]))
    axis.plot(ends.place([0.0, 0.1, 100.0, INF]), [1, 2, 3, 4])
    mark_ends(axis, ends)
    figure.canvas.draw()
    texts = [label.get_text() for label in axis.get_xticklabels()]
    assert texts[-2:] == ["0", r"$\infty$"]
    assert "0.1" in texts
    assert "100" in texts
    low, high = axis.get_xlim()
    assert low < ends.zero < ends.infinity < high
    assert len(axis.patches) == 2, "a gap on either side"
    mark_ends(axis, ends_of(np.array([0.1, 100.0])))
    assert len(axis.patches) == 2, "no end, no gap"


def test_the_best_coupling_is_marked_on_every_line():
    ((name, figure),) = figures_of([block()], drawing(roles={"x": "delta"}))
    assert name == "figure"
    (axis,) = figure.axes
    stars = [line for line in axis.lines if line.get_marker() == "*" and len(line.get_xdata())]
    assert len(stars) == 2
    table = block()
    assert [star.get_xdata()[0] for star in stars] == table.columns["delta_opt"].ravel().tolist()
    dashed = [line for line in axis.lines if line.get_linestyle() == "--" and len(line.get_xdata()) > 2]
    assert len(dashed) == 2, "a baseline of its own for every gamma2"
    assert len(axis.containers) == 2, "error bars over draws"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "best $\\delta$" in legend
    assert "no pre-training" in legend


def test_a_best_coupling_at_infinity_is_marked_there():
    table = block()
    table.columns["delta_opt"][:] = INF
    ((_, figure),) = figures_of([table], drawing(roles={"x": "delta"}))
    stars = [line for line in figure.axes[0].lines if line.get_marker() == "*" and len(line.get_xdata())]
    place = float(ends_of(table.axes["delta"]).infinity)
    assert [star.get_xdata()[0] for star in stars] == [place, place]


def star_count(table):
    ((_, figure),) = figures_of([table], drawing(roles={"x": "delta"}))
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    found = sum(line.get_marker() == "*" and len(line.get_xdata()) > 0 for line in figure.axes[0].lines)
    assert ("best $\\delta$" in words) == (found > 0)
    return found


def test_no_coupling_is_no_best_coupling():
    table = block()
    table.columns["delta_opt"][0, 0] = 0.0
    table.columns["loss_opt"][0, 0] = table.columns["loss"][0, 0]
    assert star_count(table) == 1


def test_a_best_coupling_is_marked_where_its_own_gain_is_beyond_two_errors():
    table = block()
    best = table.columns["loss"].argmin(axis=0)
    gain = table.columns["gain"]
    error = table.columns["gain_draw_se"] = np.full(gain.shape, 10.0)
    error[best[0], 0] = 0.49 * gain[best[0], 0]
    assert star_count(table) == 1
    error[best[0], 0] = 0.51 * gain[best[0], 0]
    assert star_count(table) == 0


@pytest.mark.parametrize(("part", "seen"), [(0.49, True), (0.51, False)])
def test_a_map_marks_a_best_coupling_where_its_own_cell_is_no_noise(part, seen):
    table = block(deltas=(0.1, 1.0, 10.0), gammas=(0.5, 1.0, 2.0))
    table.columns["baseline"] = np.full((3, 3), 2.0)
    table.columns["gain"] = gain = 2.0 - table.columns["loss"]
    error = table.columns["gain_draw_se"] = np.full((3, 3), 1e-6)  # all other cells are sure
    best = table.columns["loss"].argmin(axis=0)
    error[best, range(3)] = part * gain[best, range(3)]
    ((_, figure),) = figures_of([table], drawing("gain", "map", {"x": "delta", "y": "gamma2"}))
    words = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert any(text.startswith("best $\\delta$") for text in words) == seen


def test_the_best_coupling_itself_has_no_axis_of_couplings():
    table = block()
    assert tuple(summarised(table, "delta_opt").axes) == ("gamma2",)
    assert summarised(table, "loss") is table
    found = Block(table.axes, {**table.columns, "delta": table.axes["delta"][:, None] * np.ones(2)}, table.scales)
    assert "delta" not in summarised(found, "delta_opt").columns, "the first value is not that of the table"
    ((_, figure),) = figures_of([table], drawing("delta_opt"))
    (axis,) = figure.axes
    assert axis.get_ylabel() == "best $\\delta$"
    assert axis.get_yscale() == "log"
    assert axis.get_xlabel() == "target richness $\\gamma_2$"
    (bars,) = axis.containers
    segments = bars[2][0].get_segments()
    ends = ends_of(np.array([*table.columns["delta_opt"].ravel(), 0.0, 0.1, 1.0, INF]))
    assert [s[1, 1] for s in segments] == pytest.approx([1.0, ends.infinity])
    assert segments[0][0, 1] == pytest.approx(ends.zero)


def best_of(axis):
    return [line for line in axis.lines if line.get_linestyle() == "--" or line.get_marker() == "."]


def test_maps_show_the_best_coupling_inside_the_grid_only():
    def lines(opt):
        table = block(deltas=(0.1, 1.0, 10.0), gammas=(0.5, 1.0, 2.0), draws=False)
        table.columns["delta_opt"] = np.array([opt])
        ((_, figure),) = figures_of([table], drawing("gain", "map", {"x": "delta", "y": "gamma2"}))
        axis = figure.axes[0]
        found = best_of(axis)
        return [line.get_xdata().tolist() for line in found], [text.get_text() for text in axis.texts]

    ((line,), texts) = lines([1.0, 0.1, 10.0])
    assert line[0] == 1.0
    assert np.isnan(line[1:]).all()
    assert texts == []
    assert lines([10.0, 10.0, 10.0]) == ([], []), "arrows, as of every other best value beyond its axis"


@pytest.mark.parametrize("error", [0.01, 10.0])
def test_maps_show_no_best_coupling_of_a_line_whose_gains_are_noise(error):
    table = block(deltas=(0.1, 1.0, 10.0), gammas=(0.5, 1.0, 2.0), draws=False)
    table.columns["delta_opt"] = np.array([[1.0, 1.0, 1.0]])
    table.columns["gain"] = np.full((3, 3), 0.1)
    table.columns["gain_draw_se"] = np.tile([0.01, error, 0.01], (3, 1))
    ((_, figure),) = figures_of([table], drawing("gain", "map", {"x": "delta", "y": "gamma2"}))
    (line,) = best_of(figure.axes[0])
    assert np.isfinite(line.get_xdata()).tolist() == [True, error < 1, True]
    dots, dashes = (line.get_marker() == "."), (line.get_linestyle() == "--")
    assert (dots, dashes) == ((True, False) if error > 1 else (False, True)), "a single place is a dot"


def test_positions_are_those_of_the_block():
    table = block()
    ends = ends_of(table.axes["delta"])
    moved = placed(table, ends, "delta")
    assert moved.scales["delta"] == "log"
    assert moved.columns["loss"] is table.columns["loss"]
    assert np.isfinite(moved.axes["delta"]).all()


def shown(gamma, delta, solved=True, sizes=(6, 4)):
    n1, n2 = sizes
    labels = [np.sort(np.where(np.arange(n) % 2, 1.0, -1.0)) for n in sizes]
    y = np.concatenate(labels)
    kernel = np.eye(n1 + n2) + gamma * np.outer(y, y)
    arrays = {
        "kernel_source": kernel,
        "kernel_target": kernel if solved else np.full_like(kernel, np.nan),
        "labels_source": labels[0],
        "labels_target": labels[1],
    }
    return Shown(None, {"gamma0": gamma, "delta": delta}, arrays)


def test_kernels_over_a_grid_sorted_by_label():
    points = [shown(g, d) for g in (0.1, 1.0) for d in (0.0, 1.0, INF)]
    figure = draw_kernel_grid(points)
    panels = [axis for axis in figure.axes if axis.images]
    assert len(panels) == 2 * 4
    assert [axis.get_title() for axis in panels[:4]] == [
        *("source $\\bar\\Phi$", "$\\delta$ = 0", "$\\delta$ = 1", "$\\delta$ = $\\infty$")
    ]
    assert [panels[i].get_ylabel() for i in (0, 4)] == ["$\\gamma_0$ = 0.1", "$\\gamma_0$ = 1"]
    image = np.asarray(panels[4].images[0].get_array())
    assert np.mean(np.diagonal(image)) == pytest.approx(1)
    assert image[0, 1] == pytest.approx(0.5), "kernel over the mean of its diagonal"
    assert image[0, 5] == pytest.approx(-0.5)
    borders = [line for line in panels[0].lines if np.allclose(line.get_ydata(), 2.5)]
    assert len(borders) == 1, "between the two labels"


def test_diagonals_beyond_the_colours_of_bayesian_kernels_are_marked_on_the_bar():
    figure = draw_kernel_grid([shown(0.1, 1.0)])
    assert figure.axes[-1]._colorbar.extend == "max", "1 on the diagonal, 0.1 beside it"


def test_what_is_not_certified_is_not_drawn():
    assert draw_kernel_grid([shown(1.0, 0.0, solved=False)]) is not None, "the source is"
    none = shown(1.0, 0.0, solved=False)
    empty = Shown(None, none.fixed, {**none.arrays, "kernel_source": none.arrays["kernel_target"]})
    assert draw_kernel_grid([empty]) is None
    drawn = figures_of([], Drawing(), [shown(1.0, 1.0), shown(2.0, 1.0)])
    assert [name for name, _ in drawn] == ["figure-kernels"], "no densities without any"


def test_large_grids_are_thinned():
    figure = draw_kernel_grid([shown(g, d) for g in np.arange(1.0, 8.0) for d in np.arange(1.0, 10.0)])
    panels = [axis for axis in figure.axes if axis.images]
    assert len(panels) == 4 * 6
    assert panels[-1].get_title() == "$\\delta$ = 9"
    assert panels[-6].get_ylabel() == "$\\gamma_0$ = 7"


def test_a_best_coupling_that_the_axis_lacks_is_an_arrow_on_its_side():
    found = block(deltas=(0.1, 1.0, 10.0), draws=False)
    found.columns["delta_opt"] = np.array([[0.0, INF]])
    ((_, figure),) = figures_of([found], drawing())
    (axis,) = figure.axes
    arrows = {
        line.get_marker(): line.get_xdata()[0]
        for line in axis.lines
        if line.get_marker() in "<>" and len(line.get_xdata())
    }
    assert arrows == {"<": 0.0, ">": 1.0}
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert r"best $\delta = 0$" in words
    assert r"best $\delta = \infty$" in words
    assert r"best $\delta$" not in words, "there is no star"


def test_maps_have_cells_for_zero_and_infinity():
    ((_, figure),) = figures_of([block()], drawing("gain", "map", {"x": "delta", "y": "gamma2"}))
    axis = figure.axes[0]
    (mesh,) = [c for c in axis.collections if type(c).__name__ == "QuadMesh"]
    assert mesh.get_array().shape == (2, 5)
    figure.canvas.draw()
    assert {"0", r"$\infty$"} <= {label.get_text() for label in axis.get_xticklabels()}
    edges = mesh.get_coordinates()[0, :, 0]
    assert np.allclose(axis.get_xlim(), (edges[0], edges[-1])), "no cell is cut"


def test_curves_in_a_narrow_band_fill_the_figure():
    found = block(draws=False)
    for name in ("loss", "baseline", "loss_opt"):
        found.columns[name] = 10 + 0.1 * found.columns[name]
    ((_, figure),) = figures_of([found], drawing())
    low, high = figure.axes[0].get_ylim()
    assert low > 9
    assert high > max(found.columns["loss"].max(), found.columns["baseline"].max())
    ((_, figure),) = figures_of([block(draws=False)], drawing())
    assert figure.axes[0].get_ylim()[0] == 0


def test_without_test_labels_the_train_loss_is_drawn():
    found = block(draws=False)
    del found.columns["delta_opt"], found.columns["loss_opt"]
    found.columns["train_loss"] = found.columns["loss"].copy()
    found.columns["loss"] = np.full_like(found.columns["loss"], np.nan)
    ((_, figure),) = figures_of([found], drawing())
    assert "train" in figure.axes[0].get_ylabel()
    assert len(figure.axes[0].lines[0].get_xdata())


def test_both_kernels_of_one_point_have_a_title():
    figure = draw_kernel_grid([Shown(None, {}, shown(1.0, 1.0).arrays)])
    assert [axis.get_title() for axis in figure.axes[:2]] == [r"source $\bar\Phi$", r"target $\Phi$"]


def marks(axis, kinds):
    """The marks of these kinds on an axis: marker, x, y."""
    return [
        (line.get_marker(), line.get_xdata()[0], line.get_ydata()[0])
        for line in axis.lines
        if line.get_marker() in kinds and len(line.get_xdata())
    ]


def legend(figure):
    return [text.get_text() for found in figure.legends for text in found.get_texts()]


def mesh(axis):
    (found,) = [c for c in axis.collections if type(c).__name__ == "QuadMesh"]
    return found


def test_where_no_coupling_is_best_nothing_is_marked():
    found = block()
    found.columns["delta_opt"] = np.full((1, 2), np.nan)
    ((_, figure),) = figures_of([found], drawing())
    assert marks(figure.axes[0], "*<>") == []
    assert not any("best" in text for text in legend(figure))


def test_losses_that_are_all_zero_are_drawn_without_a_warning():
    found = block(draws=False)
    for name in ("loss", "baseline", "loss_opt"):
        found.columns[name] = 0 * found.columns[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ((_, figure),) = figures_of([found], drawing())
        figure.canvas.draw()
    low, high = figure.axes[0].get_ylim()
    assert low < 0 < high


def test_the_mark_of_a_best_coupling_beyond_the_grid_stands_inside_the_figure():
    found = block(deltas=(0.1, 0.2, 0.4, 0.8), gammas=(0.5,), draws=False)
    for name in ("loss", "baseline"):
        found.columns[name] = 10 + 0.01 * found.columns[name]
    found.columns["delta_opt"], found.columns["loss_opt"] = np.array([[50.0]]), np.array([[3.0]])
    ((_, figure),) = figures_of([found], drawing())
    ((marker, x, y),) = marks(figure.axes[0], "*<>")
    assert (marker, x, y) == (">", 1.0, 3.0)
    low, high = figure.axes[0].get_ylim()
    assert low < y < high
    assert r"best $\delta$ beyond the axis" in legend(figure)
    assert not any("infty" in text for text in legend(figure)), "50 is not infinite"


@pytest.mark.parametrize("scale", ["list", "log"])
def test_line_points_and_ranges_of_a_best_coupling_stand_above_each_other(scale):
    found = block(gammas=(0.5, 1.0, 2.0, 4.0), draws=False)
    rho, best = np.array([0.25, 0.5, 1.0]), np.array([[0.1, 0.2, 1.0], [0.3, 1.0, 10.0]])
    columns = {"delta_opt": best.T[None], "delta_low": best.T[None] / 2, "delta_high": best.T[None] * 2}
    axes = {"delta": found.axes["delta"], "rho": rho, "p2": np.array([10.0, 20.0])}
    table = Block(axes, columns, {"delta": "list", "rho": scale, "p2": "list"})
    ((_, figure),) = figures_of([table], drawing("delta_opt", roles={"x": "rho"}))
    (axis,) = figure.axes
    assert axis.get_xscale() == ("log" if scale == "log" else "linear")
    solid = [line.get_xdata() for line in axis.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 3]
    dots = [line.get_xdata() for line in axis.lines if line.get_marker() == "o" and len(line.get_xdata()) == 3]
    bars = [[segment[0, 0] for segment in one[2][0].get_segments()] for one in axis.containers]
    assert len(solid) == len(dots) == len(bars) == 2
    for line, dot, bar in zip(solid, dots, bars, strict=True):
        assert np.allclose(line, dot)
        assert np.allclose(line, bar)
    assert np.all(solid[0] < rho), "one curve to the left, the other to the right"
    assert np.all(solid[1] > rho)


def test_maps_place_zero_and_infinity_upwards_too_and_boundaries_at_infinity():
    gammas, deltas = (0.5, 1.0, 2.0), np.array([0.0, 0.5, 2.0, INF])
    found = block(deltas=deltas, gammas=gammas, draws=False)
    edge = {
        "delta": np.array([0.0, 0.5, 2.0, INF]),
        "gamma2": np.array([0.7, 0.8, 0.9, 1.2]),
        "kind": np.full(4, "interpolated"),
    }
    roles = {"x": "gamma2", "y": "delta"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ((_, figure),) = figures_of([found], drawing("gain", "map", roles, boundaries=[[edge]]))
        figure.canvas.draw()
    axis = figure.axes[0]
    ends = ends_of(deltas)
    assert mesh(axis).get_array().shape == (4, 3)
    assert {"0", r"$\infty$"} <= {label.get_text() for label in axis.get_yticklabels()}
    drawn = np.concatenate([line.get_xydata() for line in axis.lines if line.get_color() == "black"])
    assert sorted(map(tuple, drawn)) == sorted(zip(edge["gamma2"], ends.place(edge["delta"]), strict=True))


def test_a_zero_beyond_the_last_coupling_of_a_curve_stands_before_infinity():
    edge = {"delta": np.array([0.5, 1e6]), "gamma2": np.array([0.5, 2.0]), "kind": np.full(2, "root")}
    (picture,) = pictures([block(draws=False)], drawing("gain", boundaries=[[edge]]))
    (panel,) = picture.panels
    np.testing.assert_allclose(panel.crossings[:, 0], [0.5, picture.places["delta"].cuts[1]])


def test_couplings_at_the_edge_of_a_map_are_arrows_in_their_rows():
    found = block(deltas=(0.1, 1.0, 10.0), gammas=(0.5, 1.0, 2.0), draws=False)
    found.columns["delta_opt"] = np.array([[1.0, 0.1, 10.0]])
    ((_, figure),) = figures_of([found], drawing("gain", "map", {"x": "delta", "y": "gamma2"}))
    arrows = [(marker, y) for marker, _, y in marks(figure.axes[0], "<>")]
    assert arrows == [(">", 2.0), ("<", 1.0)]
    assert r"best $\delta$ at or beyond the edge" in legend(figure)


def test_overlaps_of_a_few_decades_have_a_logarithmic_scale():
    gamma = np.geomspace(0.05, 10, 50)
    overlap = 1 + 0.2 * gamma**2
    norm, _ = colour_scale([overlap], signed=False)
    assert isinstance(norm, LogNorm)
    linear = (overlap - overlap.min()) / np.ptp(overlap)
    share = [float(np.quantile(np.asarray(scale), 0.75)) for scale in (linear, norm(overlap))]
    assert share[1] > 2 * share[0], "three quarters of the map take more of the colours"
    norm, _ = colour_scale([overlap, np.zeros(50)], signed=False)
    assert isinstance(norm, LogNorm)
    assert norm.vmin == overlap.min(), "zeros are below the scale"
    for plain in (np.linspace(1, 20, 50), np.linspace(-1, 20, 50), 1 + 0.01 * overlap, np.append(overlap, 1e-15)):
        norm, _ = colour_scale([plain], signed=False)
        assert type(norm) is Normalize


def test_maps_of_the_best_coupling_tell_infinity_from_what_is_unsolved():
    gamma0, gamma2 = np.array([0.5, 1.0]), np.array([0.5, 1.0, 2.0])
    best = np.array([[0.0, 1.0, INF], [np.nan, 2.0, INF]])
    table = Block({"gamma0": gamma0, "gamma2": gamma2}, {"delta_opt": best}, {"gamma0": "list", "gamma2": "list"})
    ((_, figure),) = figures_of([table], drawing("delta_opt", "map", {"x": "gamma0", "y": "gamma2"}))
    shown = mesh(figure.axes[0])
    bad = np.ma.getmaskarray(shown.get_array())
    assert bad.tolist() == [[False, True], [False, False], [False, False]], "NaN only"
    assert np.all(shown.get_array()[2] > shown.norm.vmax)
    (bar,) = [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]
    assert bar.get_ylabel() == r"best $\delta$ (arrow: $\infty$)"


def test_zeros_on_a_logarithmic_scale_are_not_unsolved():
    overlap = np.array([np.zeros(30), 1 + 0.2 * np.geomspace(0.05, 10, 30) ** 2])
    axes = {"gamma0": np.array([0.5, 1.0]), "gamma2": np.geomspace(0.05, 10, 30)}
    table = Block(axes, {"cross_overlap": overlap}, {"gamma0": "list", "gamma2": "log"})
    ((_, figure),) = figures_of([table], drawing("cross_overlap", "map", {"x": "gamma0", "y": "gamma2"}))
    shown = mesh(figure.axes[0])
    assert isinstance(shown.norm, LogNorm)
    assert not np.ma.getmaskarray(shown.get_array()).any()
    assert shown.cmap(shown.norm(shown.get_array()[0, 0])) == shown.cmap(0.0)


def test_figures_of_a_part_of_the_grid_say_so(tmp_path):
    large = [shown(g, d) for g in np.arange(1.0, 8.0) for d in np.arange(1.0, 10.0)]
    assert draw_kernel_grid(large)._supxlabel.get_text().endswith("20 of 63 points of the grid")
    assert "of the grid" not in draw_kernel_grid(large[:2])._supxlabel.get_text()


@pytest.mark.parametrize("delta", ["0,inf", "1,inf", "0,1,inf"])
def test_the_command_draws_couplings_of_one_finite_value(draw, delta):
    (figure,) = draw("bayes-saddle", whitened="same", delta=delta, gamma0="1,2", beta="10").values()
    texts = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert r"$\infty$" in texts
    assert ("0" in texts) == delta.startswith("0")


def test_the_command_draws_the_best_coupling_of_a_closed_form(draw):
    flags = {"solver": "bayes-whitened", "whitened": "labels", "label_overlap": "0.5,1", "gamma0": "1", "beta": "10"}
    flags |= {"gamma2": "log:0.1:3:5", "x": "gamma2", "quantity": "delta_opt", "optimal_delta": True}
    (figure,) = draw("phase-diagram", **flags).values()
    assert mesh(figure.axes[0]).get_array().shape == (2, 5)
