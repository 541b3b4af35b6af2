"""What stands above a figure: what is fixed in it, in lines that never cut a value from its name; pages are told."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.report.conftest import TINY
from tlcli.options import OPTIONS
from tlcli.options.columns import COLUMNS, label_of
from tlcli.report.facets import fixed_text, heads_of
from tlcli.report.style import facet_title, head
from tlcli.report.tables import Block
from tlcli.run.outputs import pages_told
from tlcli.theories.linear.curriculum import curriculum

SPACE = "\N{NO-BREAK SPACE}"
NETWORK = {**TINY, "neurons": "32", "activation": "tanh", "depth": "2"}


def test_lines_break_after_commas_only():
    words = ", ".join([r"$t_1$ = 5", r"$\gamma_0$ = $10^{-3}$", "2 draws", "activation relu"] * 6)
    for width in (2.0, 3.0, 4.5):
        figure = Figure(figsize=(width, 3))
        head(figure, "A title of several words that is long enough to be broken", words)
        shown = _wrapped(figure)
        title, subtitle = figure.get_suptitle().split("\n")
        lines = shown.split("\n")
        assert len(lines) > 2
        assert " ".join(lines) == f"{title} {subtitle}"
        for line in lines:
            if SPACE in line:
                assert line.endswith(",") or line == lines[-1]
                assert not line.startswith(("=", "5", "draws"))


def _wrapped(figure):
    """Return the text above a figure as it is drawn."""
    seen = []
    canvas = FigureCanvasAgg(figure)
    text = figure._suptitle
    wrap = text._get_wrapped_text
    text._get_wrapped_text = lambda: seen.append(wrap()) or seen[-1]
    canvas.draw()
    return seen[-1]


def test_one_draw_is_nothing_to_say_and_counts_are_words():
    columns = {"dim": 8.0, "draws": 1.0, "activation": "relu", "p1": np.array([3.0])}
    assert fixed_text([Block({}, columns, {})]) == "$D$ = 8, activation relu, $P_1$ = 3"
    assert fixed_text([Block({}, {**columns, "draws": 4.0, "nets": 1.0}, {})]).endswith(
        "4 draws, activation relu, $P_1$ = 3, 1 net"
    )


def test_infinite_is_said_but_of_durations():
    fixed = {"gamma0": np.inf, "alpha1": np.inf, "t1": np.inf, "t2": 3.0, "time": np.inf, "delta": np.inf}
    assert fixed_text([Block({}, {**fixed, "alpha2": np.array([0.1, 0.2])}, {})]) == (
        r"$\gamma_0$ = $\infty$, $\alpha_1$ = $\infty$, $t_2$ = 3, $\delta$ = $\infty$"
    )


def test_the_richness_of_the_target_is_said_where_it_is_not_that_of_the_source():
    same, other = (fixed_text([Block({}, {"gamma0": 2.0, "gamma2": value}, {})]) for value in (2.0, 3.0))
    assert (same, other) == (r"$\gamma_0$ = 2", r"$\gamma_0$ = 2, $\gamma_2$ = 3")
    assert fixed_text([Block({}, {"beta": 5.0, "beta2": 5.0}, {})]) == r"$\beta_1$ = 5, $\beta_2$ = 5"


def test_a_parameter_that_goes_with_another_is_said_once_for_all_its_values():
    gamma0 = np.array([1.0, 2.0])
    assert fixed_text([Block({}, {"gamma0": gamma0, "gamma2": gamma0}, {})]) == r"$\gamma_2$ = $\gamma_0$"
    assert fixed_text([Block({}, {"gamma0": gamma0, "gamma2": 2 * gamma0}, {})]) == ""
    assert fixed_text([Block({}, {"gamma0": 1.0, "gamma2": gamma0}, {})]) == r"$\gamma_0$ = 1"
    assert fixed_text([Block({}, {"gamma0": gamma0, "gamma2": gamma0}, {}), Block({}, {"gamma0": gamma0}, {})]) == ""
    read = np.ones(3)  # of a table that was read every column is full
    assert fixed_text([Block({}, {"gamma0": read, "gamma2": read}, {})]) == r"$\gamma_0$ = 1"


def test_what_a_case_alone_fixes_heads_its_panels():
    """Unless its label says it; nothing that is switched off, nor words, which labels are for."""
    columns = {"p2": np.array([5.0, 6.0]), "dim": 20.0, "activation": "relu"}
    cases = {
        "rich": {"p1": 400.0, "rho": 0.5, "sigma1": 0.0},
        r"poor, $\rho = 0.8$": {"p1": 20.0, "rho": 0.8, "sigma1": 1.0, "activation": "tanh"},
        r"$\rho_\xi = 0.1$": {"p1": 20.0, "rho": 0.8, "rho_xi": 0.1, "gamma0": 2.0, "t1": 5.0, "p2": 8.0},
    }
    blocks = [Block({}, {**columns, **more}, {}, label) for label, more in cases.items()]
    assert heads_of(blocks) == [
        "rich\n$P_1$ = 400, $\\rho$ = 0.5",
        "poor, $\\rho = 0.8$\n$P_1$ = 20, $\\sigma_1$ = 1",
        "$\\rho_\\xi = 0.1$\n$P_2$ = 8, $P_1$ = 20, $\\rho$ = 0.8\n$\\gamma_0$ = 2, $t_1$ = 5",
    ]
    assert fixed_text(blocks) == "$D$ = 20"
    assert heads_of(blocks[:1]) == ["rich"], "the subtitle says it"
    assert facet_title(heads_of(blocks)[0], {"p2": 5.0}).endswith("= 0.5, $P_2$ = 5"), "in the same line"


def test_cases_say_what_they_fix_over_curves_maps_and_in_time(draw):
    cases = [{"label": "few", "alpha1": 0.5}, {"label": "many", "alpha1": 2}]
    heads = ["few\n$\\alpha_1$ = 0.5", "many\n$\\alpha_1$ = 2"]
    grid = {"x": "alpha2=0.1:0.9:5", "gamma0": "log:0.1:10:5", "cases": cases}
    for more in ({}, {"y": "gamma0"}):
        (figure,) = draw("finetune-loss", {**grid, **more}).values()
        assert [axis.get_title() for axis in figure.axes if axis.get_title()] == heads
    tiny = {**TINY, "neurons": 32, "cases": [{"label": "short", "t1": 1}, {"label": "long", "t1": 2}]}
    del tiny["repeats"]
    for figure in draw("dmft-solve", tiny, repeats="2").values():
        titles = {line for axis in figure.axes for line in axis.get_title().split("\n")}
        assert {"short", "$t_1$ = 1", "long", "$t_1$ = 2"} <= titles


def test_a_curriculum_says_its_stages_and_teachers(draw):
    stages = [
        {"teacher": 1, "alpha": 2, "gamma": 1, "duration": 4},
        {"teacher": 2, "alpha": 0.8, "gamma": [0.5, 2], "duration": 4, "sigma": 0.1},
        {"teacher": 1, "alpha": 0.3, "gamma": 1, "weight_decay": 0},
    ]
    recipe = {"solver": "linear-joint", "stages": stages, "gram": [[1, -0.6], [-0.6, 1]], "x": "stage"}
    (figure,) = draw("finetune-loss", recipe).values()
    assert figure.get_suptitle().replace(SPACE, " ").split(", ") == [
        *(r"$\alpha_{1}$ = 2", r"$\alpha_{2}$ = 0.8", r"$\alpha_{3}$ = 0.3", r"$\gamma_{1}$ = $\gamma_{3}$ = 1"),
        *(r"$t_{1}$ = $t_{2}$ = 4", r"$\sigma_{2}$ = 0.1", "teachers 1 → 2 → 1", r"$\rho_{12}$ = −0.6"),
    ]


def test_many_teachers_are_told_by_the_range_of_their_overlaps():
    stages = [{"teacher": i, "alpha": 1, "gamma": 1, "duration": 1, "sigma": 0, "weight_decay": 0} for i in range(1, 6)]
    gram = np.eye(5)
    gram[np.triu_indices(5, 1)] = 0.01 * np.arange(1, 11)
    theory = curriculum(stages, (gram + gram.T - np.eye(5)).tolist())
    assert theory.told() == "overlaps of teachers 0.01 to 0.1"
    gram[np.triu_indices(5, 1)] = 0.5
    assert curriculum(stages[:2], (gram + gram.T - np.eye(5))[:2, :2].tolist()).told() == r"$\rho_{12}$ = 0.5"


def test_every_figure_of_a_network_says_what_is_fixed(draw):
    found = draw("dmft-solve", title="Mine", gamma2="0.5,1", **NETWORK)
    names = {"figure", "figure-kernels", "figure-densities", "figure-layers", "figure-layer-kernels"}
    assert names | {"figure-layer-densities"} == {name.removesuffix(".png") for name in found}
    for name, figure in found.items():
        *title, subtitle = figure.get_suptitle().replace(SPACE, " ").split("\n")
        assert title == (["Mine"] if name == "figure.png" else [])
        assert subtitle.startswith("linear to linear, $D$ = 4, $P_1$ = 6, $P_2$ = 4")
        assert r"\gamma_2" not in subtitle, "it varies"
        assert "draw" not in subtitle


def test_bayesian_kernels_say_what_is_fixed(draw):
    flags = {"source": "linear", "target": "linear", "dim": "4", "p1": "6", "p2": "4", "delta": "0,1"}
    for figure in draw("bayes-saddle", gamma0="1", activation="linear", **flags).values():
        assert r"$\gamma_0$ = 1" in figure.get_suptitle().replace(SPACE, " ")


def test_a_note_stands_in_the_legend_not_on_it(draw):
    found = draw("dmft-solve", gamma2="0.5,1", **NETWORK)
    figure = found["figure-layer-densities.png"]
    assert "one of 2 points of the grid" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert not figure._supxlabel or not figure._supxlabel.get_text()


def test_pages_are_told():
    assert pages_told(["table.csv", "figure.png", "figure.pdf"]) is None
    told = pages_told(
        ["figure-loss-1.png", "figure-loss-1.pdf", "figure-loss-2.png", "figure-loss-2.pdf", "figure-gain.png"]
    )
    assert told is not None
    assert told.startswith("its panels stand on pages, -1 to -2:")


@pytest.mark.parametrize("name", ["dim", "train_loss", "source_loss", "source_train_loss", "forgetting"])
def test_quantities_have_symbols(name):
    assert name in OPTIONS or name in COLUMNS
    assert label_of(name).count("$") == 2


def test_what_a_given_kernel_does_not_depend_on_is_not_said():
    """A kernel given by its coefficients has no source; formulas and learned ones do."""
    given = {"alpha1": 0.5, "gamma0": 1.0, "rho": 0.3, "c_signal": 2.0, "c_cross": 0.0, "c_noise": 0.0}
    assert fixed_text([Block({}, given, {})]) == r"$\rho$ = 0.3"
    formula = {**given, "c_signal": "gamma0**2"}
    assert fixed_text([Block({}, formula, {})]) == r"$\gamma_0$ = 1, $\rho$ = 0.3"
    assert r"$\alpha_1$ = 0.5" in fixed_text([Block({}, {**given, "norm2": 3.0}, {})])
    assert fixed_text([Block({}, {"gamma0": 1.0, "init_scale": 0.0, "weight_decay": 0.0}, {})]).find("gamma") < 0
    assert "gamma" in fixed_text([Block({}, {"gamma0": 1.0, "init_scale": 0.0, "weight_decay": 0.5}, {})])
