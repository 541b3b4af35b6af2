"""Two-layer networks of any loss against exact linear networks, quadrature, and the identities between losses."""

from dataclasses import replace

import numpy as np
import pytest

from tests.dmft import losses as zoo
from tlcli.dmft.activations import activation
from tlcli.dmft.ensemble import Numerics, solve
from tlcli.dmft.field import Drive, Field, free_rate
from tlcli.dmft.integrate import Control
from tlcli.dmft.population import Population, quadrature, sample
from tlcli.dmft.two_layer import Problem, Stage, run_population
from tlcli.dmft.vector_field import VectorField
from tlcli.errors import UsageError
from tlcli.losses import loss_of
from tlcli.losses.labels import objective_of

TIGHT = Numerics(integrator="dop853", tolerance=1e-12)


def solved(problem, numerics):
    """A solution, with what the rows of the reference on neurons and kernels need."""
    found = solve(problem, numerics, zoo.look(problem))
    assert not found.message
    return found


def outputs(problem, found):
    """Outputs of every stage, mean and standard error over repeats, in the space of the losses."""
    mean, error = [], []
    for stage, f in zip(problem.stages, found.f, strict=True):
        f = stage.objective.outputs(f)
        mean.append(f.mean(axis=0))
        error.append(f.std(axis=0, ddof=1) / np.sqrt(len(f)) if len(f) > 1 else np.zeros(f.shape[1:]))
    return mean, error


def full(problem, found):
    """Outputs (repeat, n_time, n_point[, C]) of every stage in the space of the losses."""
    return [stage.objective.outputs(f) for stage, f in zip(problem.stages, found.f, strict=True)]


@pytest.mark.parametrize("case", ["L1", "L2", "L3", "L4", "L5", "L6"])
def test_linear_networks_are_exact(case):
    """Whitened neurons close: every row of the reference to 1e-8, for any loss, readout, weights and smoothing."""
    problem = zoo.problem(case)
    solution = solved(problem, TIGHT)
    mean, _ = outputs(problem, solution)
    found = zoo.deviations(case, problem.stages, mean)
    assert len(found) > 20
    assert np.max(np.abs(found[:, 0])) < 1e-8
    objectives = zoo.objectives(case, problem.stages, mean)
    assert len(objectives) > 6
    assert np.max(np.abs(objectives[:, 0])) < 1e-8
    ends = zoo.moments(case, problem.stages, solution)
    assert len(ends) == 2
    assert np.max(np.abs(ends[:, 0])) < 1e-7, "the stated error of the reference"


def all_of(case, problem, solution, mean):
    """Deviations of outputs, of objectives, and of kernels, readouts and the old head."""
    stages = problem.stages
    found = zoo.deviations(case, stages, mean), zoo.objectives(case, stages, mean), zoo.moments(case, stages, solution)
    assert all(len(rows) > 2 for rows in found)
    return found


def test_quadrature_of_a_single_output():
    """Q1, logistic: every row to 1e-6."""
    problem = zoo.problem("Q1")
    numerics = Numerics(population="quadrature", neurons=20000, integrator="dop853", tolerance=1e-9)
    solution = solved(problem, numerics)
    mean, _ = outputs(problem, solution)
    for found in all_of("Q1", problem, solution, mean):
        assert np.max(np.abs(found[:, 0])) < 1e-6


def test_quadrature_of_several_outputs():
    """Q2, softmax of three classes, in four dimensions: every row to 1e-6, and the stated error holds; a twin fails."""
    problem = zoo.problem("Q2")
    numerics = Numerics(population="quadrature", neurons=60000, integrator="dop853", tolerance=1e-8)
    solution = solved(problem, numerics)
    mean, _ = outputs(problem, solution)
    for found in all_of("Q2", problem, solution, mean):
        assert np.max(np.abs(found[:, 0])) < 1e-6
    coarse, _ = outputs(problem, solved(problem, replace(numerics, neurons=2000)))
    assert np.max(np.abs(zoo.deviations("Q2", problem.stages, coarse)[:, 0])) > 1e-5


def test_a_quadrature_of_too_many_coordinates_is_refused():
    with pytest.raises(UsageError, match="at most 4 coordinates of a neuron, and inputs of rank 2 and 4 readout"):
        quadrature(activation("tanh"), 2, 1000, readouts=4)
    rule = quadrature(activation("relu"), 2, 4096, readouts=2)
    both = np.column_stack([rule.hidden, rule.readout])
    assert np.allclose((both.T * rule.weights) @ both, np.eye(4), atol=0.02)


@pytest.mark.parametrize("case", ["Q2", "Q3", "Q4", "M1"])
def test_sampled_populations_of_several_outputs(case):
    """Every row within 4 combined standard errors, their sum of squares as large as it should be; a twin fails."""
    problem = zoo.problem(case)
    numerics = Numerics(population="mc", neurons=4096, repeats=16, tolerance=1e-5)
    if case == "M1":  # gradient descent with this very step
        numerics = replace(numerics, integrator="euler", tolerance=None, dt=0.2)
    solution = solved(problem, numerics)
    mean, error = outputs(problem, solution)
    found = zoo.deviations(case, problem.stages, mean)
    spread = [
        at for at, _ in zoo.deviations(case, problem.stages, [m * 0 + e for m, e in zip(mean, error, strict=True)])
    ]
    errors = np.array(spread) + np.array([row["value"] for row in zoo.rows(case)])
    z = found[:, 0] / np.hypot(np.maximum(errors, 1e-12), found[:, 1])
    moved = np.abs(found[:, 0]) > 1e-12  # at t = 0 both are zero
    assert np.max(np.abs(z[moved])) < 4
    # Twin: a tenth more richness.
    wrong = [replace(stage, gamma=1.1 * stage.gamma) for stage in problem.stages]
    other = Problem(problem.act, problem.geometry, wrong)
    changed = solved(other, numerics)
    other, _ = outputs(other, changed)
    twin = zoo.deviations(case, wrong, other)[:, 0] / np.hypot(np.maximum(errors, 1e-12), found[:, 1])
    assert np.max(np.abs(twin)) > 8
    # Objectives, of the mean output; a repeat's own scatter is their error.
    each = np.array(
        [zoo.objectives(case, problem.stages, [f[k] for f in full(problem, solution)])[:, 0] for k in range(16)]
    )
    found = zoo.objectives(case, problem.stages, mean)
    error = each.std(axis=0, ddof=1) / 4
    moved = error > 1e-9
    assert np.all(np.abs(found[:, 0])[moved] < 4 * np.hypot(error, found[:, 1])[moved])
    if case == "M1":
        return
    ends, twin = (zoo.moments(case, stages, one) for stages, one in ((problem.stages, solution), (wrong, changed)))
    assert len(ends) >= (33 if case == "Q4" else 14)
    assert np.max(np.abs(ends[:, 0]) / np.hypot(ends[:, 1], ends[:, 2])) < 4
    assert np.max(np.abs(twin[:, 0]) / np.hypot(twin[:, 1], twin[:, 2])) > 8


@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_stiffness_is_not_below_the_jacobian(loss):
    """With |a| the estimate is at or above the fastest rate of the full Jacobian; without it, it can be far below."""
    act, geometry, u, b = zoo.small(seed=3)
    classes = 2 if loss == "logistic" else 3
    target = objective_of(loss_of(loss), zoo.Y1 if classes == 2 else zoo.C1, classes, "x")
    readout = 3 * (b[:, 0] if classes == 2 else b[:, :2])
    drive = Drive(geometry.moving[:3], target.y, 1.5, 1 / 3, 0.0, objective=target)
    field = (Field if classes == 2 else VectorField)(act, 40, drive)
    z = np.concatenate([u.ravel(), readout.ravel()])
    columns = []
    for i in range(z.size):
        step = np.zeros_like(z)
        step[i] = 1e-6
        columns.append((field(0.0, z + step) - field(0.0, z - step)) / 2e-6)
    fastest = float(np.max(np.abs(np.linalg.eigvals(np.array(columns).T))))
    rate, _ = field.stiffness(0.0, z)
    assert fastest < 1.05 * rate < 10 * fastest
    delta = target.force(field.active(0.0, z))
    assert free_rate(drive, delta, 3.0, 0.77) > 0


def test_populations_of_several_outputs_are_paired_and_whitened():
    found = sample("mc", 600, 4, 2, np.random.default_rng(0), pairs=True, whiten=True, readouts=3)
    assert found.readout.shape == (600, 3)
    assert np.allclose(found.readout.T @ found.readout / 600, np.eye(3), atol=1e-12)
    assert np.allclose(found.hidden.T @ found.readout, 0, atol=1e-10)
    with pytest.raises(UsageError, match="reset draws new readouts, which a quadrature has not"):
        solve(zoo.problem("Q3"), Numerics(population="quadrature"))


def test_old_head_reports_the_source():
    """Q3: what the source's readout makes of the features that the target moves, against quadrature."""
    problem = zoo.problem("Q3")
    found = solve(problem, Numerics(population="mc", neurons=4096, repeats=8, tolerance=1e-5))
    old = found.observed[1]["old_outputs"]
    assert old.shape == (8, len(problem.stages[1].times), 8)
    reference = [0.08285706, -0.006426741, -0.04416821, 0.0580592, 0.005795687, -0.08545685, 0.06336798, 0.04447179]
    se = old[:, -1].std(axis=0, ddof=1) / np.sqrt(8)
    assert np.all(np.abs(old[:, -1].mean(axis=0) - reference) < 4.5 * se + 3e-6)
    assert np.max(np.abs(old[:, 0].mean(axis=0) - reference)) > 10 * se.max()  # the features did move


@pytest.mark.parametrize("lazy", [True, False])
def test_the_old_head_begins_where_the_source_ended(lazy):
    """With what the lazy control variate had added, too: the source's loss does not jump at the switch."""
    problem = zoo.problem("Q3")
    stages = [replace(stage, gamma=stage.gamma * (0.3 if lazy else 4.0)) for stage in problem.stages]
    found = solve(replace(problem, stages=stages), Numerics(population="mc", neurons=512, repeats=2))
    assert found.plan.lazy == lazy
    np.testing.assert_allclose(found.observed[1]["old_outputs"][:, 0], found.f[0][:, -1], rtol=0, atol=2e-6)


def test_until_ends_a_loss_without_minimum_at_the_training_loss():
    """Speed never says that separable data are fitted: a stage of logistic ends where the mean loss is reached."""
    act, geometry, u, a = zoo.small()
    population = Population(u, a[:, 0], np.zeros((40, geometry.still.shape[1])))

    def end(target, decay, until=0.01):
        stage = Stage(np.arange(3), target.y, 1.0, np.array([1000.0]), 1 / 3, decay, "carry", target)
        control = Control("rkc", 1e-4, until=until)
        run = run_population(Problem(act, geometry, [stage]), population, control)[0]
        return run.outcome, target.value(run.f[0, :3]) / 3

    outcome, loss = end(zoo.objective("logistic", zoo.Y1, 2), 0.0)
    assert outcome.settled
    assert outcome.time < 1000
    assert 0.3 * 0.01 < loss <= 0.01
    outcome, loss = end(zoo.objective("logistic", zoo.Y1, 2), 0.0, 0.3)
    assert 0.1 < loss <= 0.3, "a training loss is no speed"
    plain, smooth = zoo.objective("logistic", zoo.Y1, 2), zoo.objective("logistic", zoo.Y1, 2, 0.3)
    for target, decay in ((plain, 0.05), (smooth, 0.0)):
        outcome, loss = end(target, decay)
        assert outcome.settled
        assert loss > 0.01, "at rest by speed"
