"""Figures of networks in time, their kernels and densities; and what `check` makes of sampled theories."""

import csv

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import Normalize, TwoSlopeNorm, to_hex
from scipy import stats

from tlcli.report.agreement import Agreement, Comparison, _correlation, assess
from tlcli.report.kernels import Shown, draw_densities, draw_kernels, target_kernels
from tlcli.report.network import MeasuredWidth, Style, Trace, early_stops, spaced_logarithmically
from tlcli.report.style import COLOURS

TINY = {"source": "linear", "target": "hermite:2", "dim": 3, "p1": 8, "p2": 6, "ptest": 20, "neurons": 64, "repeats": 2}


@pytest.fixture
def draw(draw):
    """Return a function: options in, file name -> figure out; the table is in the folder."""

    def figures(command="dmft-solve", **options):
        flags = {**TINY, "times": "0,0.5,1", **options}
        return draw(command, **{name: value for name, value in flags.items() if value is not None})

    return figures


def rows_of(folder):
    with (folder / "table.csv").open() as stream:
        return list(csv.DictReader(stream))


def words(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def lines(axis, colour=None):
    found = [line for line in axis.lines if len(line.get_xdata()) > 1]
    return [line for line in found if colour is None or to_hex(line.get_color()) == to_hex(colour)]


def test_stars_stand_where_the_least_loss_comes_early_beyond_its_error():
    loss = np.array([9.0, 0.5, 0.2, 0.3])
    stage, time = np.array([1, 2, 2, 2]), np.array([3.0, 0.0, 2.0, 4.0])
    measured = MeasuredWidth("64", {"loss": (loss + 0.1, np.full(4, 0.02))}, np.arange(4))
    for error, stars in ((0.04, [(2.0, 0.2), (2.0, 0.3)]), (0.06, [(2.0, 0.3)])):
        columns = {
            "loss": loss,
            "loss_se": np.full(4, 0.01),
            "overfitting": loss,
            "overfitting_draw_se": 0 * loss + error,
        }
        trace = Trace({}, stage, time, columns, np.arange(4), [measured])
        assert [(at, pytest.approx(value)) for at, value, _ in early_stops(trace, "loss", 2)] == stars
    assert not early_stops(trace, "loss", 1)
    assert not early_stops(trace, "source_loss", 2)


def test_stages_stand_side_by_side_and_what_they_share_is_drawn_once(draw, tmp_path):
    found = draw(gamma2="0.5,2", times="0,2,8")
    assert sorted(found) == ["figure-densities.png", "figure-kernels.png", "figure.png"]
    first, second = found["figure.png"].axes
    assert [axis.get_title() for axis in (first, second)] == ["stage 1: source", "stage 2: target"]
    assert first.get_xlabel() == "time $t$ (mean-loss units)"
    assert first.get_ylabel() == "mean squared error"
    assert len(lines(first, "black")) == len(lines(first)) == 3, "gamma2 does not matter yet"
    for colour in COLOURS[:2]:
        assert len(lines(second, colour)) == 4
    dashed = [line for line in lines(second) if line.get_linewidth() == 1.3]
    rows = rows_of(tmp_path)
    wanted = [[float(r["baseline"]) for r in rows if (r["stage"], r["gamma2"]) == ("2", g)] for g in ("0.5", "2")]
    np.testing.assert_allclose([line.get_ydata() for line in dashed], wanted)
    legend = words(found["figure.png"])
    assert legend[:2] == [r"$\gamma_2$ = 0.5", r"$\gamma_2$ = 2"]
    assert {"target, test", "source, test", "target, test, no pre-training"} <= set(legend)
    assert len(first.collections) == 3, "bands"


def test_networks_stand_beside_the_theory(draw):
    (first, second) = draw(simulate=True, width="8,16", nets=2)["figure.png"].axes
    assert len(first.containers) == len(second.containers) == 4, "two widths, target and source"
    assert first.containers[0].has_yerr


def test_quantities_times_and_facets(draw):
    found = draw(
        quantity="gain,source_alignment", times="0,0.1,0.2,0.4,0.8,1.6", reduction="sum", gamma0="1,2", rho="0,1"
    )
    curves = {name for name in found if "gain" in name or "alignment" in name}
    assert curves == {"figure-gain.png", "figure-source_alignment.png"}
    axes = found["figure-gain.png"].axes
    assert len(axes) == 2, "a row per facet, and no panel for a stage without any gain"
    assert len(found["figure-source_alignment.png"].axes) == 4
    titles = [axis.get_title() for axis in axes]
    assert titles == [f"$\\gamma_0$ = {value}\nstage 2: target" for value in (1, 2)]
    assert axes[1].get_xscale() == "log"
    assert axes[1].get_xlabel() == "time $t$ (summed-loss units)"


def test_another_x_shows_the_end_of_training(draw, tmp_path):
    (axis,) = draw(gamma2="0.5,1,2", x="gamma2")["figure.png"].axes
    rows = [r for r in rows_of(tmp_path) if (r["stage"], r["time"]) == ("2", "1")]
    curve = next(line for line in axis.lines if len(line.get_xdata()) == 3)
    np.testing.assert_allclose(curve.get_ydata(), [float(r["loss"]) for r in rows])
    found = [c for c in axis.containers if getattr(c, "has_yerr", False)]
    for bars, column in zip(found, ("loss", "baseline"), strict=True):
        heights = [np.ptp(segment[:, 1]) / 2 for segment in bars.lines[2][0].get_segments()]
        both = [np.hypot(float(r[f"{column}_se"]), float(r[f"{column}_test_se"])) for r in rows]
        np.testing.assert_allclose(heights, both)


def test_a_map_of_networks_has_an_interpolated_boundary(draw):
    sizes = {"p1": None, "p2": None, "times": None, "t1": 1, "alpha1": 2, "x": "alpha2=1,2,4", "y": "gamma0=0.5,1,2"}
    found = draw("phase-diagram", solver="network-frozen", **sizes)["figure.png"]
    texts = [t.get_text() for legend in found.legends for t in legend.get_texts()]
    assert "gain = 0 (exact)" not in texts


def arrays(labels, kernels):
    n = len(labels)
    wide = {f"phi_{m}": np.pad(k, ((2, 3), (2, 0))) for m, k in kernels.items()}
    return {"n_source": np.array(2), "n_target": np.array(n), "y_target": np.array(labels), **wide}


def test_kernels_are_those_of_the_target_sorted_by_label():
    kernel = np.arange(9.0).reshape(3, 3)
    found, labels = target_kernels(arrays([1, -1, 0.5], {"start": kernel, "stage1": kernel + 1}))
    assert labels.tolist() == [-1, 0.5, 1]
    np.testing.assert_array_equal(found["start"], kernel[np.ix_([1, 2, 0], [1, 2, 0])])
    assert set(found) == {"start", "stage1"}


@pytest.mark.parametrize(
    ("entries", "extend"), [([1.0, 1.0, 9.0], "max"), ([1.0, 0.99, 0.5], "neither"), ([-9.0, 1.0, 9.0], "both")]
)
def test_clipped_colours_of_kernels_are_marked_on_the_bar(entries, extend):
    kernel = np.full((40, 40), 1.0)
    kernel[0, :3] = entries
    found = arrays(range(40), {"start": np.ones((40, 40)), "stage1": kernel})
    figure = draw_kernels([Shown(None, {}, found)])
    assert figure.axes[-1]._colorbar.extend == extend


@pytest.mark.parametrize(("sign", "kind"), [(1, Normalize), (-1, TwoSlopeNorm)])
def test_kernels_share_one_scale_and_show_the_classes(sign, kind):
    kernel = np.array([[1.0, 0.2 * sign], [0.2 * sign, 1.0]])
    shown = [Shown(None, {"gamma2": g}, arrays([1, -1], {"start": kernel, "stage1": g * kernel})) for g in (1.0, 2.0)]
    figure = draw_kernels(shown)
    assert figure is not None
    panels = [axis for axis in figure.axes if axis.images]
    assert len(panels) == 4
    assert len({id(axis.images[0].norm) for axis in panels}) == 1
    assert type(panels[0].images[0].norm) is kind
    assert {tuple(line.get_xydata()[0]) for line in panels[0].lines} == {(0.5, 0.0), (0.0, 0.5)}
    assert panels[0].get_title().endswith("at initialisation")
    assert (
        draw_kernels([Shown(None, {}, {"n_source": np.array(2), "n_target": np.array(0), "y_target": np.empty(0)})])
        is None
    )
    plt.close("all")


def test_densities_stand_beside_gaussians_of_their_variance():
    edges = np.linspace(-6, 6, 121)
    middle = (edges[1:] + edges[:-1]) / 2
    density = stats.norm.pdf(middle, scale=2.0)
    found = {"bin_edges": edges, "variance_start": np.array(1.0)}
    found |= {"density_stage1": density, "variance_stage1": np.array(4.0), "excess_kurtosis_stage1": np.array(0.256)}
    figure = draw_densities([Shown("a", {}, found)])
    assert figure is not None
    (axis,) = figure.axes
    curves = [line for line in axis.lines if len(line.get_xdata()) > 2]
    np.testing.assert_allclose(curves[1].get_ydata(), curves[2].get_ydata(), rtol=1e-12)
    np.testing.assert_allclose(curves[0].get_ydata(), stats.norm.pdf(middle))
    assert [text.get_text() for text in axis.texts] == ["excess kurtosis 0.26"]
    assert "after stage 1" in words(figure)
    assert "after stage 2" not in words(figure), "what is not drawn"
    assert draw_densities([Shown(None, {}, {"bin_edges": edges})]) is None
    plt.close("all")


def test_the_initial_density_of_a_deep_network_is_that_of_the_layer_shown():
    # The features below the last layer have variance 3 on the target's two points: so has its preactivation.
    edges = np.linspace(-6, 6, 121)
    found = {"bin_edges": edges, "variance_start": np.array(1.0), "n_source": 1, "n_target": 2}
    found |= {"phi_layer1_start": np.diag([9.0, 2.0, 4.0]), "phi_layer2_start": np.eye(3)}
    found |= {"density_stage1": 0 * edges[1:], "variance_stage1": np.array(1.0), "excess_kurtosis_stage1": 0.0}
    figure = draw_densities([Shown(None, {}, found)])
    assert figure is not None
    drawn = figure.axes[0].lines[0]
    np.testing.assert_allclose(drawn.get_ydata(), stats.norm.pdf(drawn.get_xdata(), scale=np.sqrt(3.0)))


def test_which_times_are_drawn_on_a_logarithmic_axis():
    assert spaced_logarithmically(np.array([0, *np.geomspace(0.1, 10, 5)]))
    assert spaced_logarithmically(np.array([*np.geomspace(0.1, 10, 5), 10.5]))
    for times in (np.linspace(0, 10, 11), np.array([1.0, 2, 4]), np.geomspace(1, 2, 8), np.array([0.25, 0.5, 1, 9])):
        assert not spaced_logarithmically(times)


def table(path, rows):
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def row(**changes):
    return {
        "alpha1": 0.3,
        "dim": 7,
        "p1": 2,
        "draws": 1,
        "stage": 1,
        "time": 0,
        "loss": 1.0,
        "loss_se": 0.03,
        "experiment": "network",
        "width": 64,
        "nets": 9,
        "sim_loss": 1.2,
        "sim_loss_se": 0.04,
        "sim_step_error": 0,
        "time_error": "",
        "status": "converged",
        **changes,
    }


def test_the_errors_of_theory_and_experiment_add_in_quadrature(tmp_path):
    table(tmp_path / "table.csv", [row()])
    (found,) = assess(tmp_path).comparisons
    assert found.error == pytest.approx(0.05)
    assert found.shared == pytest.approx(0.36)
    # Welch: 8 degrees of freedom of the part 0.64 of the variance are 8 / 0.64^2. Nothing is allowed for D = 7.
    assert found.probability == pytest.approx(2 * stats.t.sf(4, 8 / 0.64**2), rel=1e-6)


def test_the_step_of_gradient_descent_is_allowed_for_and_the_theory_s_own_integration_is_in_its_error(tmp_path):
    table(tmp_path / "table.csv", [row(sim_step_error=0.05, time_error=0.1)])
    (found,) = assess(tmp_path).comparisons
    assert found.probability == pytest.approx(2 * stats.t.sf(3, 8 / 0.64**2), rel=1e-6)
    table(tmp_path / "table.csv", [row(loss_se="nan")])
    (found,) = assess(tmp_path).comparisons
    assert found.error == pytest.approx(0.04), "a single population has no error"


def test_several_draws_have_more_freedom(tmp_path):
    table(tmp_path / "table.csv", [row(draws=3, loss_se=0)])
    (found,) = assess(tmp_path).comparisons
    assert found.probability == pytest.approx(2 * stats.t.sf(5, 24), rel=1e-6)


def test_records_of_one_run_belong_together(tmp_path):
    rows = [row(stage=s, time=t, p1=p) for p in (2, 3) for s in (1, 2) for t in (0, 1)]
    table(tmp_path / "table.csv", rows)
    assert [c.run for c in assess(tmp_path).comparisons] == [0] * 4 + [1] * 4


def test_the_correlation_of_comparisons_is_the_matrix_it_describes():
    rng = np.random.default_rng(0)
    runs = [0, 0, 0, 1, 1, None, None]
    shared = rng.uniform(0, 1, len(runs))
    members = [Comparison(i, "loss", 1, 1, 1, 1, run, f) for i, (run, f) in enumerate(zip(runs, shared, strict=True))]
    matrix = np.sqrt(np.outer(shared, shared))
    for i, one in enumerate(runs):
        for j, other in enumerate(runs):
            if i == j or (one is not None and one == other):
                matrix[i, j] = 1
    assert _correlation(members) == pytest.approx((matrix.sum(), (matrix**2).sum()))
    plain = [Comparison(i, "loss", 1, 1, 1, 1) for i in range(5)]
    assert _correlation(plain) == (5, 5)


def test_one_run_that_is_two_errors_off_is_no_disagreement_however_often_it_is_recorded():
    def verdict(runs):
        off = [Comparison(i, "loss", 0, 2.5, 1, 2 * stats.norm.sf(2.5), run) for i, run in enumerate(runs)]
        return Agreement(40, 40, 0, 0, off, False).disagreeing_columns(4.0)

    assert verdict([0] * 40) == []
    assert verdict(range(40)), "40 independent ones are"


def test_bands_of_squared_errors_are_named_where_they_are_seen(draw):
    def band(**options):
        return [text for text in words(draw(**options)["figure.png"]) if text.startswith("±2 SE")]

    assert band() == ["±2 SE by neurons and test points"]
    assert band(draws=2) == ["±2 SE over draws of the data"]
    exact = {"activation": "linear", "target": "linear", "neurons": None, "repeats": None}
    assert band(**exact) == ["±2 SE by neurons and test points"], "an exact solution is tested on few points"
    beside = {"simulate": True, "nets": 2, "width": "16"}
    assert band(**beside) == ["±2 SE by the neurons"], "networks see the same test points"
    assert band(**exact, **beside) == [], "and there nothing is wider than a line"


def test_a_star_needs_the_errors_of_neurons_and_test_points_together():
    """The end is 0.5 above the least loss: 0.2 and 0.2 are an error of 0.28, whose double is more."""
    columns = {"loss": np.array([1.0, 0.5, 1.0]), "loss_se": np.full(3, 0.01), "loss_test_se": np.full(3, 9.0)}
    for neurons, points, found in ((0.2, 0.2, 0), (0.2, 0.1, 1), (0.1, 0.2, 1)):
        own = {"overfitting_se": np.full(3, neurons), "overfitting_test_se": np.full(3, points)}
        trace = Trace({}, np.full(3, 2), np.arange(3.0), columns | own, np.arange(3))
        assert len(early_stops(trace, "loss", 2)) == found


CLASSES = {"source": "sign:linear", "target": "sign:linear", "loss": "logistic", "t1": 2, "t2": 2, "ptest": 40}


def test_errors_in_time_are_drawn_like_losses(draw, tmp_path):
    """The source's error in stage 1; the target's, pre-trained and from scratch, in stage 2, each with its networks."""
    found = draw(**CLASSES, quantity="error", times="0,1,2", simulate=True, width="16", nets=2)["figure.png"]
    first, second = found.axes
    assert first.get_ylabel() == "classification error"
    rows = {s: [r for r in rows_of(tmp_path) if r["stage"] == s] for s in "12"}

    def column(name, stage):
        return [float(r[name]) for r in rows[stage]]

    def curves(axis):
        return [line.get_ydata() for line in lines(axis) if line.get_linestyle() != "None"]  # others are caps

    np.testing.assert_allclose(curves(first), [column("source_error", "1")])
    drawn = ("error", "source_error", "baseline_error")
    np.testing.assert_allclose(curves(second), [column(n, "2") for n in drawn])
    marks = [bars.lines[0].get_ydata() for bars in second.containers]
    np.testing.assert_allclose(marks, [column(f"sim_{n}", "2") for n in drawn])
    assert len(first.containers) == 1
    wanted = ["target, test", "source, test", "target, test, no pre-training", "networks, $N$ = 16 (±SE)"]
    assert words(found)[:4] == wanted
    assert column("baseline_error", "2") != column("error", "2") != column("source_error", "2"), "told apart"


def test_an_error_without_one_of_the_source_has_one_panel(draw):
    """A source of numbers has none: nothing of the target stands under its name."""
    (axis,) = draw(**{**CLASSES, "source": "linear", "loss": "mse"}, quantity="error")["figure.png"].axes
    assert axis.get_title() == "stage 2: target"
    assert len(lines(axis)) == 2


def test_a_band_of_what_is_drawn_has_an_entry_and_is_inside_the_frame(draw):
    """The bands are those of the columns drawn, whatever the error of the loss."""
    found = draw(**{**CLASSES, "gamma0": 0, "gamma2": 0}, quantity="error")["figure.png"]
    assert "±2 SE by neurons and test points" in words(found)
    for axis in found.axes:
        tops = [path.vertices[:, 1].max() for part in axis.collections for path in part.get_paths()]
        assert tops
        assert max(tops) <= axis.get_ylim()[1]
    flat = np.ones(3)
    columns = {"loss": flat, "loss_se": 1e-4 * flat, "error": 0.1 * flat, "error_se": 0.01 * flat}
    trace = Trace({}, np.full(3, 2), np.arange(3.0), columns, np.arange(3))
    bands = [trace.band([Style(name, name, (2,), {})]) for name in ("loss", "error")]
    assert bands == ["", "±2 SE by the neurons"]


def test_many_bands_hide_no_curve(draw):
    """Bands of losses on common test points lie on each other: all together they are no darker than a few."""
    covered = []
    for gamma0 in ("1", "0.5,1,2,3"):
        figure = draw(gamma0=gamma0)["figure.png"]
        axis = figure.axes[1]
        seen = [part.get_alpha() for part in axis.collections]
        assert len(set(seen)) == 1
        covered.append(1 - (1 - seen[0]) ** len(seen))
    assert covered[1] < 0.5
    assert covered[1] < 1.3 * covered[0]
    assert 1 - (1 - 0.18) ** 12 > 0.9, "as dark as they all were"
