"""What the figures show: panels, words, scales, lines, hatching, error bars. Not pixels."""

import csv
from itertools import product

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, SymLogNorm, TwoSlopeNorm, to_hex
from matplotlib.contour import QuadContourSet
from matplotlib.path import Path
from matplotlib.text import Text

import tlcli
from tlcli.errors import UsageError
from tlcli.options.columns import errors_of
from tlcli.options.commands import COMMANDS
from tlcli.report.draw import _error_of, _experiments
from tlcli.report.drawing import Drawing
from tlcli.report.ends import ends_of_grids
from tlcli.report.maps import MapPanel, cells_of, colour_scale, draw_maps
from tlcli.report.plan import FigureSpec
from tlcli.report.style import COLOURS, MAX_FACETS, number
from tlcli.report.tables import Block
from tlcli.run.execute import execute
from tlcli.status import Phase

BOUNDARY, OPTIMUM = "black", "#E69F00"
NEGATIVE, COLLAPSED = "//", "...."
RANK_ONE = {"init_scale": "0", "alpha1": "0.5", "gamma0": "1"}


def table(folder, name="table.csv"):
    with (folder / name).open() as stream:
        return list(csv.DictReader(stream))


def panels(figure):
    """The axes that show data: a colour bar has no subplot of its own."""
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]


def bar(figure):
    (axis,) = [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]
    return axis


def mesh(axis):
    return meshes(axis)[0]


def meshes(axis):
    """Return the cells, and after them what covers some of them."""
    return [c for c in axis.collections if type(c).__name__ == "QuadMesh"]


def lines(axis, colour):
    return [line for line in axis.lines if to_hex(line.get_color()) == to_hex(colour)]


def points(found):
    return np.concatenate([line.get_xydata() for line in found])


def hatches(axis):
    return {h for c in axis.collections if isinstance(c, QuadContourSet) for h in c.hatches if h}


def legend(figure):
    return [text.get_text() for found in figure.legends for text in found.get_texts()]


def all_texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


# Maps


def test_a_map_of_the_gain(draw, tmp_path):
    (figure,) = draw(
        "phase-diagram",
        x="alpha2=0.05:1.5:30",
        y="gamma0=log:0.1:10:8",
        alpha1="0.5",
        sigma1="0.3",
        weight_decay="0.3",
        title="Title",
    ).values()
    (axis,) = panels(figure)
    assert (
        figure.get_suptitle().replace("\N{NO-BREAK SPACE}", " ").startswith("Title\n$\\alpha_1$ = 0.5, $\\rho$ = 0.8")
    )
    assert axis.get_title() == ""
    assert axis.get_xlabel() == r"$\alpha_2=P_2/D$"
    assert axis.get_ylabel() == r"richness $\gamma_0$"
    assert (axis.get_xscale(), axis.get_yscale()) == ("linear", "log")
    assert mesh(axis).get_array().shape == (8, 30)
    assert bar(figure).get_ylabel() == r"gain $\mathcal{L}_0-\mathcal{L}$"
    norm = mesh(axis).norm
    assert isinstance(norm, TwoSlopeNorm)
    assert (norm.vcenter, norm.vmin) == (0, -norm.vmax)
    assert mesh(axis).cmap.name == "RdBu"
    assert legend(figure) == [
        "negative transfer",
        "collapsed features",
        "gain = 0 (exact)",
        "gain jumps or features collapse",
        r"best $\gamma_0$",
    ]
    _, cover = meshes(axis)
    lost = [row["phase"] == "collapsed" for row in table(tmp_path)]
    hidden = ~np.ma.getmaskarray(cover.get_array())
    np.testing.assert_array_equal(hidden, np.reshape(lost, (30, 8)).T)
    assert to_hex(cover.to_rgba(1.0)) == "#ffffff"


def test_the_mesh_holds_the_table(draw, tmp_path):
    (figure,) = draw("phase-diagram", x="alpha2=0.1:0.9:4", y="rho=0:1:3", **RANK_ONE).values()
    rows = table(tmp_path)
    drawn = {}
    values = mesh(panels(figure)[0]).get_array()
    for i, rho in enumerate(np.linspace(0, 1, 3)):
        for j, alpha2 in enumerate(np.linspace(0.1, 0.9, 4)):
            drawn[f"{alpha2:.6g}", f"{rho:.6g}"] = values[i, j]
    for row in rows:
        assert drawn[f"{float(row['alpha2']):.6g}", f"{float(row['rho']):.6g}"] == float(row["gain"])


def test_the_boundary_of_the_rank_one_kernel_is_the_root_of_its_formula(draw, tmp_path):
    # A kernel without bulk leaves L = 1 - r^2, r = rho sqrt(alpha1); the baseline is 1 - alpha2.
    (figure,) = draw("phase-diagram", x="alpha2=0.02:0.98:25", y="rho=0:1:21", **RANK_ONE).values()
    (axis,) = panels(figure)
    drawn = points(lines(axis, BOUNDARY))
    assert len(drawn) > 25
    np.testing.assert_allclose(drawn[:, 0], 0.5 * drawn[:, 1] ** 2, rtol=1e-10)
    rows = table(tmp_path, "boundary.csv")
    assert {row["refined"] for row in rows} == {"alpha2", "rho"}
    in_file = np.array([[float(row["alpha2"]), float(row["rho"])] for row in rows])
    # A point of the grid itself is found along both axes, and drawn once.
    rounded = [{tuple(point) for point in points.round(9).tolist()} for points in (in_file, drawn)]
    assert rounded[0] == rounded[1]
    # One curve, not a scatter: neighbours on the line are neighbours in the plane.
    assert len(lines(axis, BOUNDARY)) == 1
    assert np.abs(np.diff(drawn, axis=0)).max() < 0.1


def test_hatching_covers_the_negative_region_and_no_other(draw):
    (figure,) = draw("phase-diagram", x="alpha2=0.02:0.98:25", y="rho=0:1:21", **RANK_ONE).values()
    (axis,) = panels(figure)
    (hatched,) = [c for c in axis.collections if isinstance(c, QuadContourSet)]
    assert hatched.hatches == [NEGATIVE]
    (path,) = hatched.get_paths()
    for alpha2, rho in [(0.9, 0.5), (0.6, 0.9), (0.3, 0.2)]:
        assert path.contains_point((alpha2, rho)), "0.5 rho^2 < alpha2: it hurts"
    for alpha2, rho in [(0.1, 0.9), (0.3, 0.95)]:
        assert not path.contains_point((alpha2, rho)), "0.5 rho^2 > alpha2: it helps"
    (figure,) = draw("phase-diagram", x="alpha2=0.1:0.9:9", y="gamma0=0.5:5:9", alpha1="inf").values()
    assert hatches(panels(figure)[0]) == set(), "it never hurts there"
    assert "negative transfer" not in legend(figure)
    assert "gain = 0 (exact)" not in legend(figure)


def test_whole_cells_are_hatched_and_those_alone_that_are_judged_negative():
    x, y = np.array([5.0, 10, 20, 40]), np.array([0.3, 1.0, 3.0])
    gain = np.array([[0.1, -0.1, -0.1], [-0.1, -0.9, -0.9], [-0.9, 0.1, 0.9], [0.1, -0.9, 0.1]])
    error = np.full(gain.shape, 0.1)
    hurts = gain < -2 * error
    phase = np.where(gain < 0, Phase.NEGATIVE, Phase.POSITIVE).astype(np.int8)  # as that of another, exact gain
    none = np.empty((0, 2))
    panel = MapPanel(x, y, gain, phase, none, none, None, None, {}, exact=False, error=error)
    for logs in (frozenset(), frozenset({"p2", "gamma0"})):
        spec = FigureSpec("map", "p2", "gain", "gamma0", log_axes=logs)
        (axis,) = panels(draw_maps([panel], spec, Drawing()))
        (path,) = next(c for c in axis.collections if isinstance(c, QuadContourSet)).get_paths()
        sides = [
            np.stack([e[:-1] * (1 - t) + e[1:] * t for t in (0.01, 0.5, 0.99)]) for e in cells_of(panel, spec).edges
        ]
        for i, j in np.ndindex(gain.shape):
            places = list(product(sides[0][:, i], sides[1][:, j]))
            inside = sum(Path(part).contains_points(places).astype(int) for part in path.to_polygons())
            assert (inside % 2 == hurts[i, j]).all(), "to its corners, and no further"


def test_collapsed_features_are_dotted(draw):
    (figure,) = draw("phase-diagram", x="weight_decay=0.05:3:12", y="alpha1=log:0.1:10:9", alpha2="0.3").values()
    (axis,) = panels(figure)
    assert hatches(axis) == {NEGATIVE, COLLAPSED}


def test_the_best_richness_is_a_line_along_gamma0(draw, tmp_path):
    # An interior optimum: a frozen NTK under a ridge.
    flags = {"kernel": "ntk", "ridge": "3", "sigma2": "1", "rho": "0.3", "alpha1": "0.5"}
    for x, y in [("alpha2=0.2:1.5:6", "gamma0=log:0.1:100:9"), ("gamma0=log:0.1:100:9", "alpha2=0.2:1.5:6")]:
        (figure,) = draw("phase-diagram", x=x, y=y, **flags).values()
        (line,) = lines(panels(figure)[0], OPTIMUM)
        assert line.get_linestyle() == "--"
        rows = table(tmp_path)
        best = dict(sorted((float(r["alpha2"]), float(r["gamma0_opt"])) for r in rows))
        drawn = line.get_xydata() if x.startswith("alpha2") else line.get_xydata()[:, ::-1]
        np.testing.assert_array_equal(drawn[:, 0], list(best))
        np.testing.assert_array_equal(drawn[:, 1], [value or np.nan for value in best.values()])
        assert np.isfinite(drawn[:, 1]).sum() >= 3
        assert r"best $\gamma_0$" in legend(figure)
    (figure,) = draw("phase-diagram", x=x, y=y, optimal_gamma0=False, **flags).values()
    assert lines(panels(figure)[0], OPTIMUM) == []


def test_facets_share_axes_and_colours(draw):
    (figure,) = draw(
        "phase-diagram", x="alpha2=0.1:0.9:5", y="rho=0:1:4", alpha1="0.3,0.8", weight_decay="0.2,0.4"
    ).values()
    found = panels(figure)
    assert [axis.get_title() for axis in found] == [
        rf"$\alpha_1$ = {a}, $\lambda_1$ = {w}" for a in ("0.3", "0.8") for w in ("0.2", "0.4")
    ]
    assert len({id(mesh(axis).norm) for axis in found}) == 1
    assert [bool(axis.get_ylabel()) for axis in found] == [True, False, True, False]
    assert [bool(axis.get_xlabel()) for axis in found] == [False, False, True, True]
    assert len({axis.get_xlim() for axis in found}) == 1


def test_more_than_twelve_facets_go_to_several_files(draw):
    rhos = ",".join(f"{i / 20:g}" for i in range(14))
    files = draw("phase-diagram", x="alpha2=0.1:0.9:3", y="gamma0=0.5:5:3", rho=rhos)
    assert list(files) == ["figure-1.png", "figure-2.png"]
    assert [len(panels(figure)) for figure in files.values()] == [MAX_FACETS, 2]
    titles = [axis.get_title() for figure in files.values() for axis in panels(figure)]
    assert titles == [rf"$\rho$ = {i / 20:g}" for i in range(14)]


def test_one_figure_for_every_quantity(draw):
    files = draw("phase-diagram", x="weight_decay=0.1:0.5:4", y="rho=0:1:4", quantity="gain, spike,loss", format="svg")
    assert list(files) == ["figure-gain.svg", "figure-spike.svg", "figure-loss.svg"]
    gain, spike, loss = files.values()
    assert bar(spike).get_ylabel() == r"spike $\chi$"
    assert mesh(panels(gain)[0]).cmap.name == "RdBu"
    assert mesh(panels(loss)[0]).cmap.name == mesh(panels(spike)[0]).cmap.name == "viridis"
    assert lines(panels(gain)[0], BOUNDARY)
    assert lines(panels(loss)[0], BOUNDARY) == []


def test_infinity_beside_any_grid_has_a_place_of_its_own(draw, tmp_path):
    (figure,) = draw("phase-diagram", x="alpha1=0.5,1.5,inf", y="gamma0=0,1,5,inf", alpha2="0.4").values()
    (axis,) = panels(figure)
    assert mesh(axis).get_array().shape == (4, 3)
    assert (axis.get_xscale(), axis.get_yscale()) == ("linear", "linear")
    assert [text.get_text() for text in axis.get_xticklabels()][-1] == r"$\infty$"
    assert [text.get_text() for text in axis.get_yticklabels()][-1] == r"$\infty$"
    rows = [row for row in table(tmp_path) if row["alpha1"] == row["gamma0"] == "inf"]
    assert mesh(axis).get_array()[-1, -1] == float(rows[0]["gain"])
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 13


@pytest.mark.parametrize(
    ("grid", "scale", "finite"),
    [
        ("0,1,2,3,inf", "linear", [0, 1, 2, 3]),
        ("1,2,3,inf", "linear", [1, 2, 3]),
        ("0,1,inf", "linear", [0, 1]),
        ("0,0.1,0.2,0.5,1,2,5,inf", "log", [0.1, 0.2, 0.5, 1, 2, 5]),
        ("0.01,1,100,inf", "log", [0.01, 1, 100]),
    ],
)
def test_curves_reach_infinity_beside_any_grid(draw, tmp_path, grid, scale, finite):
    (figure,) = draw("finetune-loss", alpha1="0.5", alpha2="0.4", x=f"gamma0={grid}").values()
    (axis,) = panels(figure)
    curve = max((line for line in axis.lines if line.get_linestyle() == "-"), key=lambda line: len(line.get_xdata()))
    ends = float(table(tmp_path)[-1]["loss"])
    assert axis.get_xscale() == scale
    assert curve.get_ydata()[-1] == ends, "of gamma0 = inf"
    assert curve.get_xdata()[-1] > finite[-1]
    assert all(np.isclose(curve.get_xdata(), value).any() for value in finite), "finite values stand where they are"
    (infinity,) = (at.get_position()[0] for at in axis.get_xticklabels() if at.get_text() == r"$\infty$")
    assert curve.get_xdata()[-1] == pytest.approx(infinity)
    assert any(len(line.get_xdata()) == 2 and line.get_color() == "white" for line in axis.lines), "behind a break"


def test_a_scale_by_hand_is_that_of_an_axis_with_infinity(draw):
    for asked, grid in ((False, "0,0.1,1,10,inf"), (True, "0,1,2,3,inf")):
        (figure,) = draw("finetune-loss", alpha2="0.4", x=f"gamma0={grid}", log_x=asked).values()
        (axis,) = panels(figure)
        assert axis.get_xscale() == ("log" if asked else "linear")
        assert [text.get_text() for text in axis.get_xticklabels()][-1] == r"$\infty$"
        (figure,) = draw("finetune-loss", alpha2="0.4", x=f"gamma0={grid}", log_x=asked, xlim="0.5,2").values()
        assert panels(figure)[0].get_xlim() == (0.5, 2)


def test_colour_scales():
    ramp = np.linspace(-1, 2, 101)
    norm, cmap = colour_scale([ramp], signed=True)
    assert isinstance(norm, TwoSlopeNorm)
    assert (norm.vmin, norm.vcenter, norm.vmax) == (-2, 0, 2)
    assert to_hex(cmap.get_bad()) == to_hex("0.8"), "points that were not solved are grey"
    norm, _ = colour_scale([ramp * 1e-12], signed=True)
    assert norm(0.0) == 0.5
    norm, _ = colour_scale([np.concatenate([ramp, [1e6]])], signed=True)
    assert isinstance(norm, SymLogNorm)
    assert norm(0.0) == pytest.approx(0.5)
    norm, _ = colour_scale([np.concatenate([ramp[ramp > 0], [1e6]])], signed=False)
    assert isinstance(norm, LogNorm)
    norm, _ = colour_scale([np.append(np.linspace(0, 1, 1000), 50.0)], signed=False)
    assert norm.vmax == pytest.approx(1, rel=0.03), "one peak must not flatten the rest"
    for nothing in (np.full(3, np.nan), np.zeros(3), np.ones(2)):
        for signed in (True, False):
            norm, _ = colour_scale([nothing], signed)
            assert norm.vmin < norm.vmax


@pytest.mark.parametrize(("sign", "quantity"), [(1, "forgetting"), (-1, "gain"), (1, "gain"), (0, "gain")])
@pytest.mark.parametrize("decades", [0.5, 4.0])
def test_the_bar_of_values_of_one_sign_is_one_half(sign, quantity, decades):
    x, none = np.arange(1.0, 5.0), np.empty((0, 2))
    values = np.geomspace(10.0**-decades, 1.0, 16).reshape(4, 4) ** 2 * (sign or (-1.0) ** np.arange(4))
    panel = MapPanel(x, x, values, None, none, none, None, None, {})
    axis = bar(draw_maps([panel], FigureSpec("map", "p2", quantity, "gamma0"), Drawing()))
    assert axis.get_ylim() == (0.0 if sign > 0 else -1.0, 0.0 if sign < 0 else 1.0)
    words = {True: "up to the dotted line", False: "between the dotted lines"}
    assert (words[sign != 0] in axis.get_ylabel()) == (decades > 1)
    assert words[sign == 0] not in axis.get_ylabel()


# Curves


def test_curves_with_a_shared_baseline(draw):
    (figure,) = draw("finetune-loss", alpha2="0.05:0.95:19", gamma0="0.5,2,inf", rho="0.4,0.9", alpha1="inf").values()
    found = panels(figure)
    assert [axis.get_title() for axis in found] == [r"$\rho$ = 0.4", r"$\rho$ = 0.9"]
    assert found[0].get_ylabel() == r"target test loss $\mathcal{L}$"
    assert found[0].get_xlabel() == r"$\alpha_2=P_2/D$"
    assert legend(figure) == [r"$\gamma_0$ = 0.5", r"$\gamma_0$ = 2", r"$\gamma_0$ = $\infty$", "no pre-training"]
    for axis in found:
        theory = [line for line in axis.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 200]
        assert [to_hex(line.get_color()) for line in theory] == [to_hex(c) for c in COLOURS[:3]]
        (baseline,) = [line for line in axis.lines if line.get_linestyle() == "--" and len(line.get_xdata()) > 200]
        np.testing.assert_allclose(baseline.get_ydata(), 1 - baseline.get_xdata())
        assert axis.get_ylim()[0] == 0


def test_curves_hold_the_formula(draw):
    (figure,) = draw("finetune-loss", alpha2="0.1:0.9:9", gamma0="3", rho="0.8", alpha1="inf").values()
    (axis,) = panels(figure)
    (theory,) = [line for line in axis.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 200]
    alpha2, chi = theory.get_xdata(), np.sqrt(1 + 3**2) - 1
    expected = (1 - alpha2) * (1 - 0.64 * alpha2 * chi * (2 + alpha2 * chi) / (1 + alpha2 * chi) ** 2)
    np.testing.assert_allclose(theory.get_ydata(), expected, rtol=1e-12)


def test_curves_with_baselines_of_their_own(draw):
    (figure,) = draw("finetune-loss", alpha2="0.1:0.9:9", ridge="0,0.3").values()
    (axis,) = panels(figure)
    dashed = [line for line in axis.lines if line.get_linestyle() == "--" and len(line.get_xdata()) > 200]
    assert [to_hex(line.get_color()) for line in dashed] == [to_hex(c) for c in COLOURS[:2]]


def test_crossings_of_the_baseline_are_marked(draw):
    (figure,) = draw("finetune-loss", rho="0.05:0.95:10", alpha2="0.3", **RANK_ONE).values()
    (axis,) = panels(figure)
    (marks,) = [line for line in axis.lines if line.get_marker() == "D" and len(line.get_xdata())]
    np.testing.assert_allclose(marks.get_xydata(), [[np.sqrt(0.3 / 0.5), 0.7]], rtol=1e-10)
    assert "gain = 0 (exact)" in legend(figure)
    (figure,) = draw("finetune-loss", rho="0.05:0.95:10", alpha2="0.3", quantity="gain", **RANK_ONE).values()
    (axis,) = panels(figure)
    (marks,) = [line for line in axis.lines if line.get_marker() == "D" and len(line.get_xdata())]
    np.testing.assert_allclose(marks.get_xydata(), [[np.sqrt(0.3 / 0.5), 0]], rtol=1e-10, atol=1e-12)
    assert axis.get_ylabel() == r"gain $\mathcal{L}_0-\mathcal{L}$"


def test_crossings_stand_on_the_curves_that_are_drawn(draw):
    flags = {"alpha1": "2", "alpha2": "0.2,2,20", "gamma0": "0,5", "ridge": "0.1"}
    (figure,) = draw("finetune-loss", solver="linear-classify", **flags).values()
    (axis,) = panels(figure)
    (mark,) = [line.get_xydata()[0] for line in axis.lines if line.get_marker() == "D" and len(line.get_xdata())]
    curves = [line for line in axis.lines if len(line.get_xdata()) > 100]
    assert len(curves) == 3
    for curve in curves:
        assert mark[1] == pytest.approx(np.interp(mark[0], *curve.get_data()), rel=1e-3)


def test_the_best_richness_is_a_star(draw, tmp_path):
    flags = {"kernel": "ntk", "ridge": "3", "sigma2": "1", "rho": "0.3", "alpha1": "0.5", "alpha2": "1.5"}
    (figure,) = draw("finetune-loss", gamma0="log:0.01:100:30", optimal_gamma0=True, **flags).values()
    (axis,) = panels(figure)
    (star,) = [line for line in axis.lines if line.get_marker() == "*" and len(line.get_xdata())]
    row = table(tmp_path)[0]
    assert star.get_xydata().tolist() == [[float(row["gamma0_opt"]), float(row["loss_opt"])]]
    assert r"best $\gamma_0$" in legend(figure)
    assert axis.get_xscale() == "log"


def stars(figure):
    (axis,) = panels(figure)
    drawn = [line for line in axis.lines if line.get_marker() in tuple("*<>") and len(line.get_xdata())]
    return [(line.get_marker(), *line.get_xydata()[0]) for line in drawn]


def test_an_infinite_best_richness_has_a_mark_on_curves(draw, tmp_path):
    """The exact kernel without noise: the loss falls with richness for every alpha2 < 1."""
    flags = {"alpha1": "0.5", "alpha2": "0.3,0.6", "optimal_gamma0": True}
    (figure,) = draw("finetune-loss", gamma0="log:0.1:10:8", **flags).values()
    at_infinity = [float(row["loss_opt"]) for row in table(tmp_path)[::8]]
    assert stars(figure) == [(">", 1.0, loss) for loss in at_infinity]
    assert r"best $\gamma_0 = \infty$" in legend(figure)
    (figure,) = draw("finetune-loss", gamma0="0,log:0.1:10:8,inf", **flags).values()
    place = panels(figure)[0].get_xticks().max()
    assert [(kind, x) for kind, x, _ in stars(figure)] == [("*", place)] * 2
    assert r"best $\gamma_0$" in legend(figure)


@pytest.mark.parametrize("quantity", ["gain", "relative_gain"])
def test_the_best_richness_is_marked_on_curves_of_the_gain(draw, tmp_path, quantity):
    flags = {"p1": "100", "p2": "60", "sigma1": "0.3", "ridge": "0.1", "gamma0": "log:0.1:100:15"}
    flags |= {"solver": "linear-structured", "optimal_gamma0": True, "quantity": quantity}
    (figure,) = draw("finetune-loss", **flags).values()
    row = {name: float(table(tmp_path)[0][name]) for name in ("baseline", "loss_opt", "gamma0_opt")}
    gain = (row["baseline"] - row["loss_opt"]) / (1 if quantity == "gain" else row["baseline"])
    assert stars(figure) == [("*", row["gamma0_opt"], pytest.approx(gain))]


def test_an_infinite_best_coupling_is_marked_on_curves_of_the_gain(draw):
    flags = {"whitened": "same", "delta": "0,0.1,1,10,inf", "gamma2": "0.5,2", "optimal_delta": True}
    (figure,) = draw("bayes-saddle", quantity="gain", **flags).values()
    place = panels(figure)[0].get_xticks().max()
    assert [(kind, x) for kind, x, _ in stars(figure)] == [("*", place)], "where delta hurts there is none"


def test_where_pre_training_hurts_there_is_no_best_richness(draw, tmp_path):
    flags = {"alpha1": "0.5", "weight_decay": "0.1", "sigma1": "0.3", "optimal_gamma0": True}
    (figure,) = draw("finetune-loss", gamma0="log:0.1:10:8", alpha2="0.3,0.6", **flags).values()
    assert all(float(row["loss_opt"]) > float(row["baseline"]) for row in table(tmp_path)), "the setting hurts"
    assert stars(figure) == []
    assert not any("best" in text for text in legend(figure))
    (figure,) = draw("finetune-loss", gamma0="log:0.1:10:8", alpha2="0.1,0.6", **flags).values()
    assert [kind for kind, *_ in stars(figure)] == ["*"], "with little target data it helps"


def test_widths_of_one_experiment_have_their_own_markers_and_names():
    columns = {
        "experiment": np.array([["network"], ["network"], ["regression"]]),
        "width": np.array([["8"], ["16"], [""]]),
    }
    block = Block({"experiment": np.arange(3.0), "alpha2": np.array([1.0, 2.0])}, columns, {})
    assert _experiments(block) == [
        ("network", "network, $N$ = 8", "^"),
        ("network", "network, $N$ = 16", "D"),
        ("regression", "regression", "o"),
    ]
    alone = Block({"alpha2": np.array([1.0, 2.0])}, {"experiment": "network", "width": "8"}, {})
    assert _experiments(alone) == [("network", "network", "^")]


def test_errors_of_test_points_count_on_maps_as_in_phases():
    assert errors_of("gain_error", {"gain_error_se": 0, "gain_error_test_se": 0}) == (
        "gain_error_se",
        "gain_error_test_se",
    )
    assert errors_of("gain", {"gain_se": 0, "gain_draw_se": 0}) == ("gain_draw_se",)
    columns = {"gain_error_se": np.array([[3.0, 0.0]]), "gain_error_test_se": np.array([[4.0, 1.0]])}
    block = Block({"p2": np.array([1.0]), "gamma0": np.array([1.0, 2.0])}, columns, {})
    found = _error_of(block, "gain_error", (slice(None), slice(None)), ("p2", "gamma0"))
    np.testing.assert_allclose(found, [[5.0, 1.0]])


def test_experiments_have_error_bars(draw, tmp_path):
    flags = {"simulate": True, "experiment": "regression,population", "dim": 20, "trials": 2, "alpha1": "0.5"}
    (figure,) = draw("finetune-loss", alpha2="0.2,0.5,0.8", gamma0="0.5,2", **flags).values()
    (axis,) = panels(figure)
    assert len(axis.containers) == 4, "two curves, two experiments"
    rows = table(tmp_path)
    bars = axis.containers[0]
    expected = [r for r in rows if r["experiment"] == "regression" and r["gamma0"] == "0.5"]
    np.testing.assert_array_equal(bars.lines[0].get_ydata(), [float(r["sim_loss"]) for r in expected])
    segments = bars.lines[2][0].get_segments()
    half = [float(segment[1, 1] - segment[0, 1]) / 2 for segment in segments]
    np.testing.assert_allclose(half, [float(r["sim_loss_se"]) for r in expected])
    assert min(half) > 0
    assert {text for text in legend(figure) if "SE" in text} == {"regression (mean ± SE)", "population (mean ± SE)"}


def test_cases_are_facets_with_their_labels(draw):
    recipe = {
        "alpha1": 0.5,
        "alpha2": "0.1:0.9:5",
        "cases": [
            {"label": "exact kernel"},
            {"label": "ansatz", "solver": "linear-ansatz", "c_signal": "alpha1*gamma0", "rho": [0.2, 0.6]},
        ],
    }
    (figure,) = draw("finetune-loss", recipe).values()
    assert [axis.get_title() for axis in panels(figure)] == ["exact kernel", "ansatz"]
    assert legend(figure)[:3] == [r"$\rho$ = 0.2", r"$\rho$ = 0.6", r"$\rho$ = 0.8"]


def test_kernels_against_source_data(draw):
    (figure,) = draw("pretrain-kernel", alpha1="0.1:3:30", gamma0="0.5,1,2,5").values()
    (axis,) = panels(figure)
    assert axis.get_ylabel() == r"spike $\chi$"
    assert axis.get_xlabel() == r"$\alpha_1=P_1/D$"
    assert legend(figure) == [rf"$\gamma_0$ = {g}" for g in ("0.5", "1", "2", "5")]
    theory = [line for line in axis.lines if len(line.get_xdata()) > 200]
    for line, gamma0 in zip(theory, (0.5, 1, 2, 5), strict=True):
        norm2 = np.minimum(line.get_xdata(), 1)
        np.testing.assert_allclose(line.get_ydata(), np.sqrt(1 + gamma0**2 * norm2) - 1, rtol=1e-9)


def test_many_lines_take_an_ordered_colour_map(draw):
    (figure,) = draw("finetune-loss", alpha2="0.1:0.9:9", gamma0="1:7:7").values()
    colours = {to_hex(line.get_color()) for line in panels(figure)[0].lines if line.get_linestyle() == "-"}
    assert len(colours) == 7
    assert not colours & {to_hex(c) for c in COLOURS[:5]}


def test_a_curriculum_shows_stages_and_tasks(draw):
    stage = {"alpha": 1, "gamma": 1, "duration": 1}
    recipe = {"solver": "linear-joint", "stages": [stage, stage, stage], "x": "stage"}
    recipe["gram"] = np.eye(3).tolist()
    (figure,) = draw("finetune-loss", recipe).values()
    (axis,) = panels(figure)
    assert axis.get_xlabel() == "stage"
    assert axis.get_ylabel() == r"test loss on the task $\mathcal{L}$"
    assert legend(figure) == ["task 1", "task 2", "task 3"]
    assert all(float(tick).is_integer() for tick in axis.get_xticks())


def test_an_interpolation_peak_does_not_flatten_the_rest(draw):
    (figure,) = draw("finetune-loss", alpha1="0.5", alpha2="0.0501:1.9901:98", sigma2="1").values()
    (axis,) = panels(figure)
    (theory,) = [line for line in axis.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 200]
    assert np.max(theory.get_ydata()) > 50
    assert axis.get_yscale() == "log"


def test_logarithmic_axes(draw):
    (figure,) = draw("finetune-loss", gamma0="log:0.1:100:20").values()
    (axis,) = panels(figure)
    assert axis.get_xscale() == "log"
    assert "10" in [t.get_text() for t in axis.get_xticklabels()]
    (figure,) = draw("finetune-loss", gamma0="0,log:0.1:100:20,inf").values()
    assert panels(figure)[0].get_xscale() == "log", "with 0 and infinity at places of their own"
    (figure,) = draw("finetune-loss", gamma0="0,1,2,5,inf").values()
    assert panels(figure)[0].get_xscale() == "linear", "no logarithmic grid"


def test_one_point_needs_no_figure(draw):
    assert draw("finetune-loss") == {}


def test_titles_take_plain_dollars(draw):
    (figure,) = draw("finetune-loss", rho="0:1:3", title=r"Cost in \$").values()
    assert any(text.startswith(r"Cost in \$") for text in all_texts(figure))


def test_a_long_title_is_broken_into_lines_that_fit(draw):
    (figure,) = draw("finetune-loss", rho="0:1:3", title="many words " * 9).values()
    box = figure._suptitle.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert box.y0 >= figure.axes[0].get_window_extent().y1, "and the panel begins below them"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"quantity": "los"},
            r"quantity: 'los' is no column to draw \(did you mean 'loss'\?\); columns of numbers are alpha1,",
        ),
        ({"quantity": "status"}, "quantity: 'status' holds words and no numbers; columns of numbers are alpha1,"),
        ({"quantity": "phase"}, "quantity: 'phase' holds words"),
        ({"quantity": "kernel"}, "quantity: 'kernel' holds words"),
        ({"quantity": "loss,,gain"}, "quantity: 'loss,,gain' names no column beside a comma; use loss or loss,gain."),
        ({"quantity": ""}, "quantity: '' names no column"),
        ({"quantity": "loss,gain, loss"}, "quantity: 'loss,gain, loss' names loss twice; give every column once."),
        (
            {"title": r"$\alhpa$"},
            r"title: '\$\\alhpa\$' cannot be drawn \(Unknown symbol: \\alhpa, found '\\'\); correct what",
        ),
        ({"title": "\udcff"}, r"title: '\\udcff' cannot be drawn"),
        (
            {"title": "word " * 100},
            "title: 'word .*' has 500 characters and is .* inches wide, where .* room for 15; short",
        ),
        ({"title": "a\n" * 30}, r"has 60 characters and is 6 inches high, where a figure has room for 1.5"),
        ({"x": "rho"}, "--x: 'rho' has one value only; the axes with several are alpha2"),
        ({"y": "rho"}, "--y: 'rho' has one value only"),
        ({"style": "map"}, "a map needs two axes of several values; use --style curves"),
        ({"y": "alpha2", "style": "map"}, "a map needs two axes"),
        (
            {"y": "alpha2"},
            "--y alpha2 makes a map, which needs a second axis of several values; use --x alpha2 for cur",
        ),
    ],
)
def test_figures_that_cannot_be_drawn(draw, tmp_path, flags, message):
    with pytest.raises(UsageError, match=message):
        draw("finetune-loss", alpha2="0.1:0.9:5", **flags)
    assert list(tmp_path.iterdir()) == []


def test_cases_that_share_no_axis(draw, tmp_path):
    recipe = {"cases": [{"label": "a", "alpha2": "0.1:0.9:5", "rho": "0,1"}, {"label": "b", "rho": "0,1"}]}
    with pytest.raises(UsageError, match="case 'b' does not vary alpha2; all panels share"):
        draw("finetune-loss", recipe, x="alpha2")
    with pytest.raises(UsageError, match="case 'b' does not vary alpha2; all panels share"):
        draw("finetune-loss", recipe, x="alpha2", y="rho")
    recipe = {"rho": "0:1:3", "cases": [{"label": "a", "gamma0": 2}, {"label": "b", "solver": "linear-structured"}]}
    with pytest.raises(UsageError, match=r"quantity: 'bulk' is no column to draw; columns of numbers are rho"):
        draw("finetune-loss", recipe, quantity="bulk")
    recipe = {
        "times": "1,2",
        "alpha2": "0.4,0.5",
        "cases": [{"label": "a"}, {"label": "b", "solver": "linear-two-time", "steps": 10}],
    }
    with pytest.raises(UsageError, match="case 'b' has no column 'gain'; give a --quantity that all cases have"):
        draw("phase-diagram", recipe)
    assert list(tmp_path.iterdir()) == [], "refused before the table is written"


@pytest.mark.parametrize("label", [r"$\gama$", "x" * 300, "$x^2^2$"])
def test_labels_that_cannot_be_drawn(draw, tmp_path, label):
    recipe = {"alpha2": "0.1,0.2", "cases": [{"label": label}, {"label": "b", "rho": 0.1}]}
    with pytest.raises(UsageError, match="label: "):
        draw("finetune-loss", recipe)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("role", ["x", "y"])
def test_an_axis_of_one_value_where_nothing_is_drawn(draw, tmp_path, role):
    with pytest.raises(
        UsageError, match=f"--{role}: 'alpha2' has one value only; give several, as --{role} alpha2=GRID"
    ):
        draw("finetune-loss", **{role: "alpha2"})
    with pytest.raises(UsageError, match="quantity: 'los' is no column to draw"):
        draw("finetune-loss", quantity="los")
    assert list(tmp_path.iterdir()) == []


def test_an_axis_without_two_finite_values_is_no_mistake_of_a_table(draw, tmp_path):
    assert draw("finetune-loss", alpha1="0.3,inf") == {}
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 3
    (figure,) = draw("finetune-loss", gamma0="0,inf", alpha2="0.2:0.6:3").values()
    assert panels(figure)[0].get_xlabel() == r"$\alpha_2=P_2/D$", "the axis that can be drawn is"
    with pytest.raises(UsageError, match="'gamma0' has fewer than two finite values"):
        draw("finetune-loss", gamma0="0,inf", alpha2="0.2:0.6:3", x="gamma0")


@pytest.mark.parametrize(("role", "other"), [("x", "y"), ("y", "x")])
def test_zero_and_infinity_beside_a_logarithmic_grid_have_places_of_their_own(draw, role, other):
    flags = {role: "gamma0=0,log:0.1:30:20,inf", other: "alpha2=0.05:2:20"}
    (figure,) = draw("phase-diagram", **flags, sigma2="0.3", ridge="0.1", kernel="ntk", alpha1="0.5").values()
    panel = figure.axes[0]
    line = panel.xaxis if role == "x" else panel.yaxis
    assert line.get_scale() == "log"
    places = {
        label.get_text(): at for at, label in zip(line.get_majorticklocs(), line.get_majorticklabels(), strict=True)
    }
    limits = panel.get_xlim() if role == "x" else panel.get_ylim()
    assert limits[0] < places["0"] < 0.1 < places["1"] == 1 < places["10"] == 10 < 30 < places[r"$\infty$"] < limits[1]
    mesh = next(c for c in panel.collections if isinstance(c, QuadMesh))
    cells = mesh.get_array().reshape((20, 22) if role == "x" else (22, 20))
    cells = cells if role == "y" else cells.T
    assert not np.ma.getmaskarray(cells).all(axis=1).any(), "every value has a row of cells"
    np.testing.assert_allclose(cells[0], 0, atol=1e-12, err_msg="a lazy source is no pre-training, with this kernel")
    assert np.abs(cells[-1]).max() > 0.1
    # Geometric cells: all between the two gaps are equally wide.
    edges = np.log(mesh.get_coordinates()[:, 0, 1] if role == "y" else mesh.get_coordinates()[0, :, 0])
    np.testing.assert_allclose(np.diff(edges)[2:-2], np.log(300) / 19, rtol=1e-9)


def test_zero_beside_other_grids_stays_where_it_is(draw):
    for grid in ("0,1,2,5", "0:10:11", "0,0.1,0.2"):
        (figure,) = draw("phase-diagram", x=f"gamma0={grid}", y="alpha2=0.1:0.9:4").values()
        assert figure.axes[0].get_xscale() == "linear"


def test_curves_on_a_logarithmic_axis_with_zero(draw):
    (figure,) = draw("finetune-loss", gamma0="0,log:0.1:10:9", x="gamma0").values()
    panel = figure.axes[0]
    assert panel.get_xscale() == "log"
    curve = max((line.get_xdata() for line in panel.lines), key=len)
    assert 0 < curve[0] < 0.1
    np.testing.assert_allclose(curve[[1, -1]], [0.1, 10])
    assert np.diff(np.log(curve[1:])).max() < 0.05, "smooth beyond the break"


def test_what_lies_between_zero_and_its_neighbour_stays_beyond_zero():
    places = ends_of_grids([np.array([0, *np.geomspace(0.1, 10, 9), np.inf])])
    at = places.place([0, 1e-9, 0.05, 0.1, 10, 1e9, np.inf])
    assert np.all(np.diff(at) >= 0)
    assert at[0] < at[1]
    assert at[-2] < at[-1]
    assert ends_of_grids([np.geomspace(0.1, 10, 9)]) is None
    assert ends_of_grids([np.array([0, 0.1, 0.2, 0.4, 0.8, 1.5])]) is None
    assert ends_of_grids([np.array([0, 0.1, 0.18, 0.32, 0.56, 1.0])]) is not None, "rounded decimals"
    assert ends_of_grids([np.array([-1, 0, 1.0, 10])]) is None


def test_numbers_in_words():
    assert [number(v) for v in (-0.5, -2.5e-7)] == ["\N{MINUS SIGN}0.5", r"$-2.5\times10^{-7}$"]
    assert [number(v) for v in (0.1, 1e-5, 2.0, np.inf, -np.inf, "word", 1 / 3)] == [
        "0.1",
        "$10^{-5}$",
        "2",
        r"$\infty$",
        r"$-\infty$",
        "word",
        "0.3333",
    ]


@pytest.mark.parametrize(
    ("target", "label"),
    [
        ({}, "spike"),
        ({"rho": "0:1:5"}, "spike alignment"),
        ({"rho": "0:1:5", "alpha2": "0.5"}, r"target test loss $\mathcal{L}$"),
        ({"alpha2": "0.1:0.9:5"}, r"target test loss $\mathcal{L}$"),
    ],
)
def test_the_kernel_of_the_source_is_drawn_for_the_target_that_is_named(draw, target, label):
    (figure,) = draw("pretrain-kernel", alpha1="0.2,0.5", gamma0="2", **target).values()
    assert label in figure.axes[0].get_ylabel()


def test_a_stored_result_with_formulas_is_read_and_drawn_anew(tmp_path):
    flags = {"solver": "linear-ansatz", "alpha1": "0.5", "alpha2": "0.2,0.5,0.8", "c_signal": "alpha1*gamma0"}
    flags |= {"gamma0": "1", "rho": "0.5", "output": str(tmp_path / "r"), "quiet": True}
    assert execute("finetune-loss", COMMANDS["finetune-loss"].options, None, flags) == 0
    stored = tlcli.load(tmp_path / "r")
    assert set(np.unique(stored["c_signal"])) == {"alpha1*gamma0"}
    np.testing.assert_array_equal(stored["alpha2"], [0.2, 0.5, 0.8])


def test_maps_that_begin_at_zero_show_nothing_below_it(draw):
    (figure,) = draw("phase-diagram", x="gamma0=0,0.5,1", y="rho=0,0.5,1", alpha1="0.3").values()
    assert (panels(figure)[0].get_xlim()[0], panels(figure)[0].get_ylim()[0]) == (0.0, 0.0)
    (figure,) = draw("phase-diagram", x="alpha2=0.2,0.6,1", y="rho=-0.5,0,0.5", alpha1="0.3").values()
    assert (panels(figure)[0].get_xlim()[0], panels(figure)[0].get_ylim()[0]) == (0.0, -0.75)


def test_maps_of_cases_with_different_grids_hold_every_cell(draw):
    cases = [{"label": "a", "gamma0": "log:0.01:10:6"}, {"label": "b", "gamma0": "0.5,1,2,4"}]
    recipe = {"x": "gamma0", "y": "alpha2", "alpha2": "0.2:0.8:3", "alpha1": "0.5", "cases": cases}
    figure = draw("phase-diagram", recipe)["figure.png"]
    for axis in panels(figure):
        left, right = axis.get_xlim()
        assert left < 0.01
        assert right > 10
