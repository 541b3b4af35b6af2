"""Experiments as tasks: one per point, variant and width; every solver's experiment agrees with its theory."""

import math

import numpy as np
import pytest

from tests.theories.records import check_experiments, experiments_of
from tlcli.errors import UsageError
from tlcli.options import OPTIONS
from tlcli.theories.linear.experiment import FiniteNetworks, Regression, run

SETTINGS = {"dim": None, "trials": 3, "width": OPTIONS["width"].parse("20,40")}


def test_one_task_per_point_and_variant(case):
    found = case(simulate=True, experiment="network,regression", gamma0="1,2", rho="0,0.5,1")
    tasks, variants = experiments_of(found, SETTINGS, seed=7)
    assert variants == [
        {"experiment": "network", "width": 20, "dim": FiniteNetworks.dim, "trials": 3},
        {"experiment": "network", "width": 40, "dim": FiniteNetworks.dim, "trials": 3},
        {"experiment": "regression", "dim": Regression.dim, "trials": 3},
    ]
    assert len(tasks) == 18
    assert {task.seed for task in tasks} == {7}
    points = list(found.grid.points())
    for index, task in enumerate(tasks):
        assert task.parameters["solver"] == "linear-exact"
        assert task.parameters["kernel"] == "feature"
        assert points[index % 6].items() <= task.parameters.items()
        assert variants[index // 6].items() <= task.parameters.items()


def test_the_dimension_is_the_given_one_or_that_of_the_inputs(case):
    def dimension(**settings):
        found = case(simulate=True, **settings)
        (variant,) = experiments_of(found, {**SETTINGS, "dim": settings.get("dim")})[1]
        return variant["dim"]

    assert dimension() == 400
    assert dimension(experiment="population") == 100
    assert dimension(dim=33) == 33
    assert dimension(solver="linear-structured") == 400
    assert dimension(solver="linear-structured", dim=33) == 33
    digits = {"spectrum": "digits", "source": "digits:0v1", "target": "digits:1v0", "modes": 8}
    assert dimension(solver="linear-structured", **digits) == 8


def test_a_file_is_known_by_its_content(case, tmp_path):
    arrays = {"eigenvalues": np.arange(1.0, 6), "teacher1": np.ones(5), "teacher2": np.arange(5.0)}
    keys = []
    for name, changed in (("a", {}), ("b", {"teacher2": np.arange(5.0) ** 2}), ("c", {})):
        np.savez(tmp_path / f"{name}.npz", **{**arrays, **changed})
        found = case(solver="linear-structured", spectrum=f"file:{tmp_path / name}.npz", simulate=True)
        (task,) = experiments_of(found, SETTINGS)[0]
        assert task.parameters["dim"] == 5
        keys.append(task.parameters["spectrum_sha256"])
    assert keys[0] == keys[2] != keys[1]


# Small, but every path from a task to an experiment; `rest` is what the theory is told.
POINTS = {
    "exact regression": ({"alpha1": "0.6", "alpha2": "0.4", "ridge": "0.1", "rho_xi": "0.2"}, "regression", 120),
    "exact ntk in time": ({"alpha1": "0.6", "kernel": "ntk", "t1": "2", "t2": "3"}, "regression", 120),
    "exact population": ({"alpha1": "1.5", "alpha2": "0.5", "t1": "3", "t2": "3"}, "population", 60),
    "ansatz": (
        {"solver": "linear-ansatz", "alpha1": "0.5", "c_signal": "alpha1*gamma0", "c_noise": "0.3", "rho_xi": "0.3"},
        "regression",
        120,
    ),
    "joint population": ({"solver": "linear-joint", "alpha1": "1.5", "t1": "2", "t2": "2"}, "population", 60),
    "structured": ({"solver": "linear-structured", "p1": "60", "p2": "50", "ridge": "0.1"}, "regression", 120),
    "structured, sum": (
        {"solver": "linear-structured", "p1": "60", "p2": "50", "ridge": "5", "reduction": "sum"},
        "regression",
        120,
    ),
    "two-time": ({"solver": "linear-two-time", "alpha2": "0.7", "sigma2": "0.3", "times": "2"}, "regression", 120),
}


@pytest.mark.parametrize("name", POINTS)
def test_the_experiment_measures_the_columns_of_its_theory(case, name):
    settings, experiment, dim = POINTS[name]
    richness = {} if settings.get("solver") == "linear-two-time" else {"gamma0": "2"}
    found = case(simulate=True, experiment=experiment, dim=dim, **richness, **settings)
    check_experiments(found, SETTINGS)
    (task,) = experiments_of(found, {**SETTINGS, "dim": dim, "trials": 12})[0]
    measured = run(task.parameters, np.random.SeedSequence(11))
    theory = {k: np.asarray(v) for k, v in found.theory.evaluate(found.parameters()).items()}
    compared = [column for column in theory if f"{column}_se" in measured]
    assert "loss" in compared
    for column in compared:
        value = theory[column].item()
        error = math.hypot(measured[f"{column}_se"] * 5, 5 / dim * abs(value) + 1e-9)
        assert abs(measured[column] - value) < error, column
    again = run(task.parameters, np.random.SeedSequence(11))
    assert again == measured, "a function of its parameters and seed"
    assert run(task.parameters, np.random.SeedSequence(12)) != measured


@pytest.mark.parametrize("experiment", ["regression", "population"])
def test_pretraining_alone_measures_the_kernel(case, experiment):
    found = case("pretrain-kernel", simulate=True, experiment=experiment, alpha1="0.6", gamma0="2", t1="2")
    (task,) = experiments_of(found, {**SETTINGS, "dim": 100, "trials": 16})[0]
    measured = run(task.parameters, np.random.SeedSequence(3))
    theory = found.theory.evaluate(found.parameters())
    assert {"overlap", "norm2", "spike", "source_loss"} <= set(measured)
    for column in ("overlap", "norm2", "spike", "source_loss"):
        value = np.asarray(theory[column]).item()
        assert abs(measured[column] - value) < 5 * measured[f"{column}_se"] + 5 / 100 * abs(value), column
    assert "gain" not in measured or "gain" not in theory


def test_a_network_of_finite_width(case):
    settings = {"alpha1": "1.5", "alpha2": "1.5", "t1": "1", "t2": "1", "gamma0": "1"}
    for solver in ("linear-exact", "linear-joint"):
        found = case(simulate=True, solver=solver, experiment="network", **settings)
        widths = {**SETTINGS, "dim": 12, "trials": 4, "width": OPTIONS["width"].parse("200")}
        (task,) = experiments_of(found, widths)[0]
        measured = run(task.parameters, np.random.SeedSequence(3))
        value = np.asarray(found.theory.evaluate(found.parameters())["loss"]).item()
        assert abs(measured["loss"] - value) < 5 * measured["loss_se"] + 0.4 * value


def test_a_curriculum_measures_all_tasks_after_all_stages(case):
    stages = [{"alpha": 2, "gamma": 1, "duration": 1}, {"alpha": 1, "gamma": 1, "duration": 1}]
    recipe = {"solver": "linear-joint", "stages": stages, "gram": [[1, 0.5], [0.5, 1]]}
    found = case(recipe=recipe, simulate=True)
    (task,) = experiments_of(found, {**SETTINGS, "dim": 80, "trials": 8})[0]
    measured = run(task.parameters, np.random.SeedSequence(3))
    theory = found.theory.evaluate(found.parameters())["loss"]
    assert np.shape(measured["loss"]) == np.shape(measured["loss_se"]) == theory.shape == (2, 2)
    assert np.all(np.abs(measured["loss"] - theory) < 5 * np.array(measured["loss_se"]) + 5 / 80)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"experiment": "population", "kernel": "ntk"}, "the population experiment freezes the feature kernel; use"),
        ({"experiment": "network", "rho_xi": "0,0.1"}, "the network experiment has rho_xi = 0; use --experiment reg"),
        ({"experiment": "network", "gamma0": "0,1"}, "the network experiment has no gamma0 = 0; it needs a positive"),
        ({"experiment": "population", "gamma0": "1,inf"}, "the population experiment has no gamma0 = inf; it needs"),
        ({"experiment": "population", "init_scale": "0"}, "the population experiment has no init_scale = 0"),
        (
            {"solver": "linear-joint", "gamma2": "inf"},
            r"the population experiment has no gamma2 = inf; .* finite one\.",
        ),
        ({"solver": "linear-structured", "init_scale": "0"}, "the regression experiment has no init_scale = 0"),
    ],
)
def test_what_an_experiment_cannot_represent(case, settings, message):
    found = case(simulate=True, **settings)
    with pytest.raises(UsageError, match=message):
        check_experiments(found, SETTINGS)


def test_what_a_regression_can(case):
    check_experiments(case(simulate=True, kernel="ntk", rho_xi="0.3", gamma0="0,inf", init_scale="0"), SETTINGS)
    check_experiments(case(simulate=False, kernel="ntk"), SETTINGS)
