"""Every recipe against its pinned table and figure structure, and against what its figure is meant to show."""

import csv
import functools
from pathlib import Path

import numpy as np
import pytest

from tests.recipe_regression import RECIPES, Outcome, differences, read_reference, run_recipe

NAMES = [
    "fig1a",
    "fig1b",
    "fig1c",
    "fig2a",
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
]


def test_all_recipes_are_there():
    assert {path.stem for path in RECIPES} >= set(NAMES)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_gives_its_pinned_table_and_figures(path, tmp_path):
    found, reference = run_recipe(path, tmp_path), read_reference(path.stem)
    problems = differences(path.stem, found.table, reference.table)
    problems += differences(f"{path.stem} boundary", found.boundary, reference.boundary)
    assert not problems, "\n".join(problems[:20])
    assert found.figures == reference.figures


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


@functools.cache
def _reference(name: str) -> Outcome:
    return read_reference(name)


def columns(name: str) -> dict[str, np.ndarray]:
    """The pinned numbers of a recipe by column; words as they are."""
    header, *rows = _reference(name).table
    out = {}
    for title, cells in zip(header, zip(*rows, strict=True), strict=True):
        try:
            out[title] = np.array([float(cell or "nan") for cell in cells])
        except ValueError:
            out[title] = np.array(cells)
    return out


def test_fig1a_never_hurts():
    t = columns("fig1a")
    assert (t["loss"] <= 1 - t["alpha2"] + 1e-12).all()
    assert (t["gain"][t["gamma0"] > 0] > 0).all()


def test_fig1b_only_the_ansatz_crosses_the_baseline():
    t = columns("fig1b")
    exact = t["case"] == "exact kernel"
    assert (t["gain"][exact] > 0).all()
    assert (t["gain"][~exact] > 0).any()
    assert (t["gain"][~exact] < 0).any()


def test_fig1c_does_not_depend_on_target_data():
    t = columns("fig1c")
    n1 = np.where(np.isinf(t["alpha1"]), 1.0, np.sqrt(np.minimum(t["alpha1"], 1.0)))
    r = n1 * t["rho"] + np.sqrt(1 - n1**2) * t["rho_xi"]
    np.testing.assert_allclose(t["loss"], 1 - r**2, rtol=1e-12)


def test_fig2a_best_richness_falls_with_target_data(tmp_path):
    t = columns("fig2a")
    best = [t["gamma0_opt"][t["alpha2"] == alpha2][0] for alpha2 in np.unique(t["alpha2"])]
    assert (np.diff(best) <= 0).all()
    assert best[0] > 2 * best[-1] > 0


def test_fig6_crosstalk_hurts_and_noise_pulls_back():
    a, b = columns("fig6a"), columns("fig6b")
    for alpha2 in np.unique(a["alpha2"]):
        at = a["alpha2"] == alpha2
        order = np.argsort(a["c_cross"][at])
        assert (np.diff(a["loss"][at][order]) > 0).all()
    for alpha2 in np.unique(b["alpha2"]):
        at = b["alpha2"] == alpha2
        order = np.argsort(b["c_noise"][at])
        assert (np.diff(np.abs(b["gain"][at][order])) < 0).all()


def test_collapse_is_where_the_formula_says():
    t = columns("collapse")
    survives = np.sqrt(1 + 1 / t["alpha1"] + t["sigma1"] ** 2 / t["alpha1"]) * t["gamma0"] / t["weight_decay"] > 1
    np.testing.assert_array_equal(t["phase"] != "collapsed", survives)
    np.testing.assert_array_equal(t["spike"] > 0, survives)


def test_structured_inputs_hurt_with_exact_coefficients():
    t = columns("structured")
    assert (t["gain"] < 0).any()
    assert (t["gain"] > 0).any()


def test_joint_training_forgets():
    t = columns("joint-rich")
    np.testing.assert_allclose(t["forgetting"], t["source_loss"] - t["source_loss_before"], atol=1e-9, rtol=1e-9)
    assert (t["gain"] < 0).any()
    assert (t["gain"] > 0).any()


def test_curriculum_has_every_task_after_every_stage():
    t = columns("curriculum")
    assert len(t["loss"]) == 3 * 3 * 3
    own = t["task"] == t["stage"]
    first = own & (t["stage"] == 1)
    assert (t["loss"][first] < 0.1).all()


def test_digits_theory_is_near_the_images():
    with (Path(__file__).parent / "reference" / "recipes" / "digits-spectrum.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if float(row["p2"]) >= 32]
    ratio = [float(row["sim_loss"]) / float(row["loss"]) for row in rows]
    assert 0.7 < np.mean(ratio) < 1.3
