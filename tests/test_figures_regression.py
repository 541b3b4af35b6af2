"""Every recipe against its pinned table and figure structure.

After a deliberate change: `make reference`, and look at the difference before committing it.
"""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from tests.recipe_regression import (
    RECIPES,
    REFERENCE,
    differences,
    figure_tolerance,
    pinned_rows,
    read_reference,
    shared_run,
    structure,
    unlike,
)
from tlcli.options.commands import COMMANDS
from tlcli.run.execute import execute

NAMES = [
    "fig1a",
    "fig1b",
    "fig1c",
    "fig2a",
    "fig2b",
    "fig2c",
    "fig3a",
    "fig3b",
    "fig4a",
    "fig4b",
    "fig4c",
    "fig4-cifar10",
    "fig9",
    "fig6a",
    "fig6b",
    "phase-alpha2-gamma0",
    "phase-alpha1-alpha2",
    "phase-rho-gamma0",
    "collapse",
    "joint-rich",
    "curriculum",
    "structured",
    "digits-spectrum",
    "fig11",
    "fig12",
    "fig13",
    "fig14",
    "bayes-whitened",
    "bayes-classes",
    "classify-map",
    "classify-critical",
    "label-noise",
]


def test_all_recipes_are_there():
    assert {path.stem for path in RECIPES} >= set(NAMES)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_gives_its_pinned_table_and_figures(path, recipe_runs):
    (found, _), reference = shared_run(path.stem, recipe_runs), read_reference(path.stem)
    problems = differences(path.stem, found.table, reference.table)
    problems += differences(f"{path.stem} boundary", found.boundary, reference.boundary)
    assert not problems, "\n".join(problems[:20])
    problems = unlike(found.figures, reference.figures, figure_tolerance(path.stem))
    assert not problems, "\n".join(problems[:20])


def test_the_comparison_sees_a_changed_number():
    reference = read_reference("fig1a")
    column = reference.table[0].index("loss")
    changed = [list(row) for row in reference.table]
    changed[7][column] = repr(float(changed[7][column]) * (1 + 1e-7))
    (line,) = differences("fig1a", changed, reference.table)
    for word in ("loss", "value", "reference", "difference", "tolerance"):
        assert word in line
    changed[7][reference.table[0].index("phase")] = "negative"
    assert len(differences("fig1a", changed, reference.table)) == 2
    assert differences("fig1a", changed[:-1], reference.table)


@pytest.mark.parametrize(
    ("name", "column", "relative", "seen"),
    [
        ("fig1a", "loss", 1e-8, True),
        ("fig1a", "loss", 1e-11, False),
        ("joint-rich", "loss", 1e-8, False),
        ("joint-rich boundary", "gamma0", 1e-8, False),
        ("joint-rich", "loss", 1e-6, True),
        ("digits-spectrum", "sim_loss", 1e-7, False),
        ("digits-spectrum", "sim_loss", 1e-5, True),
        ("digits-spectrum", "loss", 1e-8, True),
        ("fig2a", "gamma0_opt", 1e-6, False),
        ("fig2a", "gamma0_opt", 1e-4, True),
        ("fig3a", "loss", 1e-3, False),
        ("fig3a", "loss", 0.05, True),
        ("fig3a", "time_error", 0.5, False),
        ("fig4a", "sim_loss", 1e-3, False),
        ("fig4a", "sim_loss", 0.05, True),
        ("fig9", "residual", 0.05, True),
    ],
)
def test_every_column_has_its_tolerance(name, column, relative, seen):
    pinned = [["row", column], ["0", "0.5"]]
    changed = [["row", column], ["0", repr(0.5 * (1 + relative))]]
    assert bool(differences(name, changed, pinned)) == seen


def test_the_comparison_sees_words_holes_and_residuals():
    def differs(column, value, wanted):
        return bool(differences("fig1a", [["row", column], ["0", value]], [["row", column], ["0", wanted]]))

    assert differs("phase", "negative", "positive")
    assert differs("loss", "", "0.5")
    assert differs("loss", "nan", "0.5")
    assert differs("loss", "inf", "0.5")
    assert not differs("loss", "nan", "nan")
    assert not differs("loss", "inf", "inf")
    assert not differs("residual", "1e-7", "1e-16")
    assert differs("residual", "1e-5", "1e-16")
    assert differences("fig1a", [["row", "gain"]], [["row", "loss"]])
    assert differences("fig1a", [], [["row", "loss"]])


def test_the_structure_of_a_figure_tells_a_change():
    figure, axis = plt.subplots()
    axis.plot([1, 2], [3, 4])
    seen = [structure(figure)]
    for change in (
        lambda: axis.plot([1, 2], [4, 5]),
        lambda: axis.set_xscale("log"),
        lambda: axis.set_title("words"),
        lambda: axis.set_ylabel("words"),
        lambda: axis.contourf([[0, 1], [1, 2]], hatches=["//"]),
        lambda: axis.errorbar([1], [2], [3]),
        lambda: figure.legend(["a"]),
        lambda: figure.suptitle("words"),
        lambda: figure.add_axes((0, 0, 0.1, 0.1)),
    ):
        change()
        found = structure(figure)
        assert found not in seen
        seen.append(found)
    plt.close(figure)


def test_halving_what_is_drawn_is_seen():
    def drawn(curve=1.0, cells=1.0, kernel=1.0, bar=1.0, top=1.0):
        figure, (first, second, third) = plt.subplots(1, 3)
        x = np.linspace(0, 1, 40)
        first.errorbar(x, curve * np.cos(x), yerr=0.1 * bar)
        second.pcolormesh(cells * np.outer(x, x), vmin=0, vmax=top)
        third.imshow(kernel * np.outer(x, x), vmin=0, vmax=1)
        found = structure(figure)
        plt.close(figure)
        return found

    pinned = json.loads(json.dumps(drawn()))
    assert unlike(drawn(), pinned, 1e-3) == []
    assert unlike(drawn(curve=1 + 1e-5), pinned, 1e-3) == []
    for change in ("curve", "cells", "kernel", "bar", "top"):
        # Of sampled networks an error bar that is a tenth of its curve is within the tolerance of the curve.
        for tolerance in (1e-3,) if change == "bar" else (1e-3, 0.05):
            assert unlike(drawn(**{change: 0.5}), pinned, tolerance), f"{change} halved"


def test_a_map_is_drawn_as_pinned(tmp_path):
    flags = {"x": "alpha2=0.05:1.5:30", "y": "gamma0=log:0.1:10:12", "alpha1": "0.5", "sigma1": "0.3"}
    flags |= {"weight_decay": "0.3", "size": "4x3.4", "dpi": "60", "output": str(tmp_path), "quiet": True}
    assert execute("phase-diagram", COMMANDS["phase-diagram"].options, None, flags) == 0
    pinned = REFERENCE / "figures" / "map.png"
    images = [np.asarray(Image.open(path).convert("RGB"), dtype=float) for path in (tmp_path / "figure.png", pinned)]
    assert images[0].shape == images[1].shape
    # Fonts are rastered a little differently by other versions of FreeType; half the map's colours would be 40.
    assert np.sqrt(np.mean((images[0] - images[1]) ** 2)) < 12


def test_every_reference_has_its_recipe_and_can_be_reviewed():
    names = {path.stem for path in RECIPES}
    assert {path.stem for path in (REFERENCE / "figures").glob("*.json")} == names
    for path in (REFERENCE / "recipes").iterdir():
        assert path.name.removesuffix(".csv").removesuffix(".boundary") in names
        assert path.stat().st_size < 200_000


def test_pinned_rows_reach_both_ends_and_every_value_of_every_axis(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("x\n" + "1\n" * 10_980)
    header, *rows = pinned_rows(path)
    kept = [int(row[0]) for row in rows]
    assert (header, kept[0], kept[-1]) == (["row", "x"], 0, 10_979)
    # No resonance with the axes of a recipe of 3 x 61 x 60 points.
    assert len({row % 60 for row in kept}) == 60
    assert len({row // 60 % 61 for row in kept}) == 61
