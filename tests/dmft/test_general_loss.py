"""Two-layer networks of any loss against exact linear networks, quadrature, and the identities between losses."""

from dataclasses import replace

import numpy as np
import pytest

from tests.dmft import losses as zoo
from tlcli.dmft.activations import activation
from tlcli.dmft.ensemble import Numerics, solve
from tlcli.dmft.field import Drive, Field, free_rate
from tlcli.dmft.geometry import reduce_inputs
from tlcli.dmft.integrate import Control
from tlcli.dmft.population import Population, sample
from tlcli.dmft.two_layer import Problem, Stage, run_population
from tlcli.dmft.vector_field import VectorField
from tlcli.errors import UsageError
from tlcli.losses import Objective, loss_of
from tlcli.losses.labels import objective_of

TIGHT = Numerics(integrator="dop853", tolerance=1e-12)


def outputs(problem, numerics):
    """Outputs of every stage, mean and standard error over repeats, in the space of the losses."""
    found = solve(problem, numerics)
    assert not found.message
    mean, error = [], []
    for stage, f in zip(problem.stages, found.f, strict=True):
        f = stage.objective.outputs(f)
        mean.append(f.mean(axis=0))
        error.append(f.std(axis=0, ddof=1) / np.sqrt(len(f)) if len(f) > 1 else np.zeros(f.shape[1:]))
    return mean, error


@pytest.mark.parametrize("case", ["L1", "L2", "L3", "L4", "L5", "L6"])
def test_linear_networks_are_exact(case):
    """Whitened neurons close: every row of the reference to 1e-8, for any loss, readout, weights and smoothing."""
    problem = zoo.problem(case)
    mean, _ = outputs(problem, TIGHT)
    found = zoo.deviations(case, problem.stages, mean)
    assert len(found) > 20
    assert np.max(np.abs(found[:, 0])) < 1e-8
    if case == "L1":  # the objective, too
        for row in zoo.rows(case, "objective"):
            stage = problem.stages[row["stage"] - 1]
            f = mean[row["stage"] - 1][stage.times.tolist().index(row["time"]), stage.rows]
            assert stage.objective.value(f) / 3 == pytest.approx(row["value"], abs=1e-9)


def test_quadrature_of_a_single_output():
    """Q1, logistic: every row to 1e-6."""
    problem = zoo.problem("Q1")
    mean, _ = outputs(problem, Numerics(population="quadrature", neurons=20000, integrator="dop853", tolerance=1e-9))
    found = zoo.deviations("Q1", problem.stages, mean)
    assert np.max(np.abs(found[:, 0])) < 1e-6


@pytest.mark.parametrize("case", ["Q2", "Q3", "Q4", "M1"])
def test_sampled_populations_of_several_outputs(case):
    """Every row within 4 combined standard errors, their sum of squares as large as it should be; a twin fails."""
    problem = zoo.problem(case)
    numerics = Numerics(population="mc", neurons=4096, repeats=16, tolerance=1e-5)
    if case == "M1":  # gradient descent with this very step
        numerics = replace(numerics, integrator="euler", tolerance=None, dt=0.2)
    mean, error = outputs(problem, numerics)
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
    other, _ = outputs(Problem(problem.act, problem.geometry, wrong), numerics)
    twin = zoo.deviations(case, wrong, other)[:, 0] / np.hypot(np.maximum(errors, 1e-12), found[:, 1])
    assert np.max(np.abs(twin)) > 8


# ------------------------------------------------------------------------------------------- identities


def small(act="tanh", seed=0):
    """Geometry of 8 points and one population of 40 neurons (u, a) with a (40, 3)."""
    rng = np.random.default_rng(seed)
    geometry = reduce_inputs(zoo.inputs(8, 4), 6)
    return activation(act), geometry, rng.standard_normal((40, geometry.rank)), rng.standard_normal((40, 3))


def train(act, geometry, hidden, readout, stages, times=(1.0, 4.0)):
    """Outputs of the last stage (n_time, n_point[, K]) and the final state, of one population."""
    still = np.zeros((len(hidden), geometry.still.shape[1]))
    made = []
    for k, (target, gamma, decay) in enumerate(stages):
        points = np.arange(3) + 3 * k
        made.append(Stage(points, target.y, gamma, np.array(times), 1 / 3, decay, "carry", target))
    runs = run_population(Problem(act, geometry, made), Population(hidden, readout, still), Control("dop853", 1e-12))
    return runs[-1].f, runs[-1].outcome.state


def test_softmax_of_two_classes_is_logistic():
    """Identity 1: f1 - f2 with gamma sqrt(2), t/2 and 2 lambda; and to rounding in the objective itself."""
    act, geometry, u, a = small()
    two = objective_of(loss_of("softmax"), np.array([1.0, -1, 1]), 2, "x")
    one = objective_of(loss_of("logistic"), np.array([1.0, -1, 1]), 2, "x")
    f, _ = train(act, geometry, u, a[:, :1], [(two, np.sqrt(2) * 0.8, 0.04)], (0.5, 2.0))
    g, _ = train(act, geometry, u, a[:, 0], [(one, 0.8, 0.02)], (1.0, 4.0))
    logits = two.outputs(f)
    assert np.allclose(logits[..., 0] - logits[..., 1], g, rtol=0, atol=1e-10)
    assert np.max(np.abs(g)) > 0.3


def test_gauge_of_softmax():
    """Identity 5: C readouts give C - 1 coordinates' outputs; sum f = 0 and the sum of a decays alone."""
    act, geometry, u, b = small()
    reduced = objective_of(loss_of("softmax"), zoo.C1, 3, "x")
    full = Objective(reduced.loss, reduced.y)
    basis = reduced.basis
    assert basis is not None
    rng = np.random.default_rng(1)
    common = rng.standard_normal((40, 1))
    f, _ = train(act, geometry, u, b[:, :2], [(reduced, 1.2, 0.05)])
    g, state = train(act, geometry, u, b[:, :2] @ basis.T + common, [(full, 1.2, 0.05)])
    centred = g - g.mean(axis=-1, keepdims=True)
    assert np.allclose(reduced.outputs(f), centred, rtol=0, atol=1e-10)
    a = state[40 * geometry.rank :].reshape(40, 3)
    assert np.allclose(a.mean(axis=1), np.exp(-0.05 * 4) * common[:, 0], atol=1e-10)


@pytest.mark.parametrize("loss", ["mse", "logistic", "huber:0.7", "hinge2"])
def test_scales_of_outputs_and_losses(loss):
    """Identity 2: c times the loss is the loss with t c and lambda / c (weights are such a factor)."""
    act, geometry, u, a = small()
    plain = zoo.objective(loss, zoo.Y1, 2)
    double = replace(plain, weights=np.full(3, 2.0))
    f, _ = train(act, geometry, u, a[:, 0], [(plain, 1.0, 0.03)], (2.0, 8.0))
    g, _ = train(act, geometry, u, a[:, 0], [(double, 1.0, 0.06)], (1.0, 4.0))
    assert np.allclose(f, g, rtol=0, atol=1e-9)


def test_rotations_of_outputs_and_duplicates():
    """Identity 3: mse with y R^T gives f R^T; labels y q^T give f q^T of the single output."""
    act, geometry, u, a = small()
    rng = np.random.default_rng(2)
    y = rng.standard_normal((3, 3))
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    f, _ = train(act, geometry, u, a, [(zoo.objective("mse", y), 1.0, 0.02)])
    g, _ = train(act, geometry, u, a @ turn.T, [(zoo.objective("mse", y @ turn.T), 1.0, 0.02)])
    assert np.allclose(f @ turn.T, g, rtol=0, atol=1e-10)
    # One output: the engine without an objective, whose numbers are those of always.
    single = Stage(np.arange(3), zoo.Y1, 1.0, np.array([1.0, 4.0]), 1 / 3, 0.02)
    problem = Problem(act, geometry, [single])
    population = Population(u, a[:, 0], np.zeros((40, geometry.still.shape[1])))
    alone = run_population(problem, population, Control("dop853", 1e-12))[0].f
    named, _ = train(act, geometry, u, a[:, 0], [(zoo.objective("mse", zoo.Y1, 2), 1.0, 0.02)])
    assert np.allclose(alone, named, rtol=0, atol=1e-11)


def test_hinge2_and_huber_are_mse_while_they_may():
    """Identity 4: to the bit, until a margin reaches 1 or a residual is beyond k."""
    act, geometry, u, a = small()
    a = a - a  # f(0) = 0
    base, _ = train(act, geometry, u, a[:, 0], [(zoo.objective("mse", zoo.Y1), 1.0, 0.0)], (0.2, 0.5))
    for loss in ("hinge2", "huber:1.5"):
        other, _ = train(act, geometry, u, a[:, 0], [(zoo.objective(loss, zoo.Y1, 2), 1.0, 0.0)], (0.2, 0.5))
        assert np.allclose(base, other, rtol=0, atol=1e-14)
    f, _ = train(act, geometry, u, a[:, 0], [(zoo.objective("logistic", zoo.Y1, 2), 1.0, 0.0)], (0.05, 0.1))
    g, _ = train(act, geometry, u, a[:, 0], [(zoo.objective("mse", 2 * zoo.Y1), 1.0, 0.0)], (0.0125, 0.025))
    assert np.max(np.abs(f - g)) < 1e-6 * max(np.max(np.abs(f)), 1)


def test_norm_of_the_readout():
    """Identity 6: d|a|^2/dt / 2 = gamma^2 s sum Delta.f - lambda |a|^2, from the field itself."""
    act, geometry, u, b = small()
    target = objective_of(loss_of("softmax", 0.1), zoo.C1, 3, "x")
    drive = Drive(geometry.moving[:3], target.y, 1.3, 1 / 3, 0.07, objective=target)
    field = VectorField(act, 40, drive)
    z = np.concatenate([u.ravel(), b[:, :2].ravel()])
    velocity = field.split(field(0.0, z))[1]
    f = field.active(0.0, z)
    a = b[:, :2]
    power = 1.3**2 / 3 * float(np.sum(target.force(f) * f)) - 0.07 * float(np.mean(np.sum(a**2, axis=1)))
    assert float(np.mean(np.sum(a * velocity, axis=1))) == pytest.approx(power, rel=1e-13)


def test_velocity_is_minus_the_gradient_of_the_energy():
    """Identity 7, component by component: finite differences of s sum l + lambda |z|^2 / 2 gamma^2."""
    act, geometry, u, b = small()
    target = objective_of(loss_of("softmax"), zoo.C1, 3, "x", "1,2,0.5")
    gamma, decay = 1.3, 0.07
    drive = Drive(geometry.moving[:3], target.y, gamma, 1 / 3, decay, objective=target)
    field = VectorField(act, 40, drive)
    z = np.concatenate([u.ravel(), b[:, :2].ravel()])

    def energy(z):
        return target.value(field.active(0.0, z)) / 3 + decay / (2 * gamma**2) * float(z @ z) / 40

    velocity = field(0.0, z)
    for i in (0, 5, 77, 40 * geometry.rank + 3, 40 * geometry.rank + 50):
        step = np.zeros_like(z)
        step[i] = 1e-5
        slope = (energy(z + step) - energy(z - step)) / 2e-5
        assert velocity[i] == pytest.approx(-(gamma**2) * 40 * slope, abs=2e-8)


def test_relu_conserves_per_neuron():
    """Identity 8: |a|^2 - |u|^2 of every neuron decays as exp(-2 lambda t)."""
    act, geometry, u, b = small("linear")
    target = objective_of(loss_of("softmax"), zoo.C1, 3, "x")
    _, state = train(act, geometry, u, b[:, :2], [(target, 1.3, 0.07)])
    cut = 40 * geometry.rank
    after = np.sum(state[cut:].reshape(40, 2) ** 2, 1) - np.sum(state[:cut].reshape(40, -1) ** 2, 1)
    before = np.sum(b[:, :2] ** 2, 1) - np.sum(u**2, 1)
    assert np.allclose(after, np.exp(-2 * 0.07 * 4) * before, atol=1e-9)


@pytest.mark.parametrize("loss", ["logistic", "hinge2", "huber:0.5"])
def test_odd_networks_do_not_see_the_sign_of_a_point(loss):
    """Identity 10: (x, y) -> (-x, -y) of a training point changes nothing."""
    act, _, _, _ = small()
    x = zoo.inputs(8, 4)
    turned, labels = x.copy(), zoo.Y1.copy()
    turned[1], labels[1] = -turned[1], -labels[1]
    found = []
    for points, y in ((x, zoo.Y1), (turned, labels)):
        geometry = reduce_inputs(points, 6)
        weights = np.random.default_rng(0).standard_normal((40, 4))
        geometry = replace(geometry, moving=points / 2.0, still=np.zeros((8, 0)))  # the same axes for both
        f, _ = train(act, geometry, weights, np.ones(40), [(zoo.objective(loss, y, 2), 1.0, 0.0)])
        found.append(f[:, [0, 2, 3, 6]])
    assert np.allclose(*found, rtol=0, atol=1e-13)


@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_stiffness_is_not_below_the_jacobian(loss):
    """With |a| the estimate is at or above the fastest rate of the full Jacobian; without it, it can be far below."""
    act, geometry, u, b = small(seed=3)
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
    problem = zoo.problem("Q2")
    with pytest.raises(UsageError, match="quadrature is for a single output"):
        solve(problem, Numerics(population="quadrature"))


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


def test_until_ends_a_loss_without_minimum_at_the_training_loss():
    """Speed never says that separable data are fitted: a stage of logistic ends where the mean loss is reached."""
    act, geometry, u, a = small()
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
