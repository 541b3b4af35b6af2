"""One population through two stages: switches, conservation, symmetries, lazy limit, points outside the span."""

from dataclasses import replace

import array_api_strict
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from tests.dmft.problems import field_of, gaussians, outputs, state_of, teacher_problem
from tlcli.dmft.activations import ACTIVATIONS, activation
from tlcli.dmft.geometry import reduce_inputs
from tlcli.dmft.integrate import Control
from tlcli.dmft.lazy import initial_ntk
from tlcli.dmft.population import Population
from tlcli.dmft.regression import kernel_regression
from tlcli.dmft.two_layer import Correction, Machine, Problem, Stage, run_population
from tlcli.errors import DomainError

TIMES = [0.0, 0.3, 1.0]
LIPSCHITZ = [name for name in ACTIVATIONS if activation(name).lipschitz]


# ------------------------------------------------------------ weights themselves


def split(z, dim):
    """Return the weights (N, D) and readouts (N,) of a flat state."""
    size = len(z) // (dim + 1)
    return z[: size * dim].reshape(size, dim), z[size * dim :]


def weights_themselves(name, x, stages, w, a, gammas, decay=0.0, readout="carry", redrawn=None):
    """f (stage, n_time, n) by the equations for the full weights w (N, D), a (N,): no reduction of the inputs.

    `stages`: (rows, labels, scale) each; records at TIMES.
    """
    act, dim = activation(name), x.shape[1]
    xs, out = x / np.sqrt(dim), []
    for k, ((rows, y, scale), gamma) in enumerate(zip(stages, gammas, strict=True)):
        if k and readout == "reset":  # both signs of the new readouts on copies of the features
            w, a = np.concatenate([w, w]), np.concatenate([redrawn, -redrawn])

        def output(w, a, gamma=gamma):
            return a @ act.phi(w @ xs.T) / (len(a) * gamma)

        centre = output(w, a) if k and readout == "carry-centred" else np.zeros(len(x))

        def velocity(t, z, rows=rows, y=y, scale=scale, gamma=gamma, output=output, centre=centre):
            w, a = split(z, dim)
            phi, slope = act.both(w @ xs[rows].T)
            pull = scale * gamma * (y - (output(w, a) - centre)[rows])
            dw = a[:, None] * (slope * pull) @ xs[rows] - decay * w
            return np.concatenate([dw.ravel(), phi @ pull - decay * a])

        path = solve_ivp(
            velocity, (0, TIMES[-1]), np.concatenate([w.ravel(), a]), "DOP853", TIMES, rtol=1e-9, atol=1e-9
        )
        weights = [split(z, dim) for z in path.y.T]
        out.append([output(w, a) - centre for w, a in weights])
        w, a = weights[-1]
    return np.array(out)


@pytest.mark.parametrize("readout", ["carry", "carry-centred", "reset"])
@pytest.mark.parametrize("name", ["tanh", "softplus", "linear"])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_points_outside_the_span_of_the_training_inputs(name, decay, readout):
    """Fewer training points than dimensions: the rest of the weights only decays, and test points see it."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((7, 9))  # 2 + 2 training points, 3 others
    g = reduce_inputs(x, 4)
    assert (g.rank, g.still.shape[1]) == (4, 3)
    w, a, fresh = rng.standard_normal((10, 9)), rng.standard_normal(10), rng.standard_normal(10)
    rows, labels = [np.arange(2), np.arange(2, 4)], rng.standard_normal((2, 2))
    gammas = (0.8, 1.7)
    stages = [Stage(rows[k], labels[k], gammas[k], np.array(TIMES), 0.5, decay, readout) for k in (0, 1)]
    # The same neurons in reduced coordinates: the projections of w on both sets of directions.
    xs = x / 3
    moving = np.linalg.lstsq(g.moving[:4], xs[:4], rcond=None)[0]
    outside = np.linalg.lstsq(g.still[4:], xs[4:] - g.moving[4:] @ moving, rcond=None)[0]
    population = Population(w @ moving.T, a, w @ outside.T)
    found = outputs(Problem(activation(name), g, stages), population, redrawn=fresh)
    table = [(rows[k], labels[k], 0.5) for k in (0, 1)]
    expected = weights_themselves(name, x, table, w, a, gammas, decay, readout, fresh)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


def test_reduced_coordinates_keep_all_overlaps():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 5))
    x[2] = x[0] - x[1]  # a training set of rank 2
    g = reduce_inputs(x, 3)
    assert (g.rank, g.still.shape) == (2, (8, 3))
    both = np.concatenate([g.moving, g.still], axis=1)
    np.testing.assert_allclose(both @ both.T, x @ x.T / 5, rtol=0, atol=1e-12)
    np.testing.assert_allclose(g.still[:3], 0.0, atol=1e-12)
    assert reduce_inputs(x[:, :2], 3).still.shape == (8, 0)
    with pytest.raises(DomainError, match="all training inputs are zero"):
        reduce_inputs(np.zeros((3, 2)), 2)


# ------------------------------------------------------------ the switch


@pytest.mark.parametrize("name", LIPSCHITZ)
def test_pairs_start_from_zero(name):
    problem, _ = teacher_problem(name, 3, 6, 4, TIMES)
    f = outputs(problem, gaussians(problem, 64, pairs=True), Control("rkc", 1e-3))[0]
    np.testing.assert_allclose(f[0], 0.0, atol=1e-14)
    assert np.max(np.abs(f[-1])) > 0.1
    plain = outputs(problem, gaussians(problem, 64), Control("rkc", 1e-3))[0]
    assert np.max(np.abs(plain[0])) > 1e-3


def test_the_output_jumps_by_the_ratio_of_the_richnesses():
    problem, _ = teacher_problem("tanh", 3, 6, 4, TIMES, gamma=0.6, gamma2=1.5)
    first, second = outputs(problem, gaussians(problem, 64))
    np.testing.assert_allclose(second[0], first[-1] * 0.6 / 1.5, rtol=1e-10)


def test_a_centred_stage_starts_from_zero_everywhere():
    problem, _ = teacher_problem("tanh", 3, 6, 4, TIMES, gamma=0.6, gamma2=1.5, readout="carry-centred")
    carried, _ = teacher_problem("tanh", 3, 6, 4, TIMES, gamma=0.6, gamma2=1.5)
    population = gaussians(problem, 64)
    first, second = outputs(problem, population)
    np.testing.assert_allclose(second[0], 0.0, atol=1e-13)
    assert np.max(np.abs(second[-1])) > 0.1
    other = outputs(carried, population)
    np.testing.assert_array_equal(first, other[0])  # stage 1 is never centred
    assert np.max(np.abs(second[-1] - other[1][-1])) > 0.01


def test_a_reset_takes_the_new_readouts_of_both_signs_and_keeps_the_features():
    problem, _ = teacher_problem("tanh", 3, 6, 4, TIMES, gamma2=1.5, readout="reset")
    population = gaussians(problem, 64)
    fresh = np.random.default_rng(9).standard_normal(64)
    started = []

    def observe(stage, record, t, view):
        if stage == 1 and record == 0:
            started.append(view.field.split(view.state))
        return {}

    runs = run_population(problem, population, Control("dop853", 1e-10), redrawn=fresh, observe=observe)
    hidden = runs[0].outcome.state[: 64 * 3].reshape(64, 3)
    ((u, a),) = started
    np.testing.assert_array_equal(u, np.concatenate([hidden, hidden]))
    np.testing.assert_array_equal(a, np.concatenate([fresh, -fresh]))
    np.testing.assert_allclose(runs[1].f[0], 0.0, atol=1e-14)
    assert np.max(np.abs(runs[1].f[-1])) > 0.05


def test_records_in_any_grid_agree():
    coarse, _ = teacher_problem("tanh", 3, 6, 4, [0.3, 1.0])
    fine, _ = teacher_problem("tanh", 3, 6, 4, [0.0, 0.1, 0.3, 0.7, 1.0])
    population = gaussians(coarse, 64)
    for a, b in zip(outputs(coarse, population), outputs(fine, population), strict=True):
        np.testing.assert_allclose(a, b[[2, 4]], rtol=0, atol=1e-12)


# ------------------------------------------------------------ conservation


@pytest.mark.parametrize("name", ["linear", "relu"])
@pytest.mark.parametrize("decay", [0.0, 0.4])
def test_balance_of_the_layers_of_homogeneous_activations(name, decay):
    """a^2 - |u|^2 of every neuron is conserved, or decays as exp(-2 lambda t), through both stages."""
    problem, _ = teacher_problem(name, 3, 8, 0, TIMES, gamma=1.5, decay=decay)
    population = gaussians(problem, 40)
    # At kinks neurons slide and no method keeps its order.
    accuracy = 1e-8 if name == "linear" else 2e-2
    runs = run_population(problem, population, Control("dop853", 1e-10) if name == "linear" else Control("rkc", 1e-4))

    def balance(state):
        u, a = state[:-40].reshape(40, 3), state[-40:]
        return a**2 - np.sum(u**2, axis=1)

    z = start = state_of(population)
    for k, run in enumerate(runs, 1):
        assert np.max(np.abs(run.outcome.state - z)) > 0.3
        z = run.outcome.state
        np.testing.assert_allclose(
            balance(z), balance(start) * np.exp(-2 * decay * k * TIMES[-1]), rtol=0, atol=accuracy
        )


def test_tanh_conserves_no_balance():
    problem, _ = teacher_problem("tanh", 3, 8, 0, TIMES, gamma=1.5)
    population = gaussians(problem, 40)
    state, z = run_population(problem, population, Control("dop853", 1e-8))[-1].outcome.state, state_of(population)
    change = (state[-40:] ** 2 - np.sum(state[:-40].reshape(40, 3) ** 2, axis=1)) - (
        z[-40:] ** 2 - np.sum(z[:-40].reshape(40, 3) ** 2, axis=1)
    )
    assert np.max(np.abs(change)) > 0.1


# ------------------------------------------------------------ symmetries


@pytest.mark.parametrize("name", ["tanh", "softplus"])
def test_rotation_of_the_inputs(name):
    """Neurons rotate along: f is the same. The basis of the row space is one such rotation."""
    problem, _ = teacher_problem(name, 4, 6, 5, TIMES, gamma2=0.7, decay=0.1)
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))[0]
    turned = replace(problem, geometry=replace(problem.geometry, moving=problem.geometry.moving @ rotation))
    population = gaussians(problem, 48)
    along = replace(population, hidden=population.hidden @ rotation)
    np.testing.assert_allclose(outputs(turned, along), outputs(problem, population), rtol=0, atol=1e-8)


def test_order_of_the_samples():
    problem, _ = teacher_problem("tanh", 4, 6, 5, TIMES, gamma2=0.7)
    rng = np.random.default_rng(3)
    shuffled = []
    for stage in problem.stages:
        order = rng.permutation(len(stage.rows))
        shuffled.append(replace(stage, rows=stage.rows[order], labels=stage.labels[order]))
    population = gaussians(problem, 48)
    again = outputs(replace(problem, stages=shuffled), population)
    np.testing.assert_allclose(again, outputs(problem, population), rtol=0, atol=1e-8)


def test_order_of_the_neurons():
    problem, _ = teacher_problem("tanh", 4, 6, 5, TIMES)
    population = gaussians(problem, 48)
    order = np.random.default_rng(3).permutation(48)
    mixed = replace(population, hidden=population.hidden[order], readout=population.readout[order])
    np.testing.assert_allclose(outputs(problem, mixed), outputs(problem, population), rtol=0, atol=1e-8)


def test_neurons_of_odd_activations_have_no_sign():
    problem, _ = teacher_problem("tanh", 4, 6, 5, TIMES)
    population = gaussians(problem, 48)
    sign = np.where(np.arange(48) % 3, 1.0, -1.0)
    turned = replace(population, hidden=population.hidden * sign[:, None], readout=population.readout * sign)
    np.testing.assert_allclose(outputs(problem, turned), outputs(problem, population), rtol=0, atol=1e-10)


def test_weights_are_multiplicities():
    problem, _ = teacher_problem("tanh", 4, 6, 5, TIMES)
    population = gaussians(problem, 12)
    times = np.array([1, 2, 3] * 4)
    weighted = replace(population, weights=times / times.sum())
    copies = replace(
        population, hidden=np.repeat(population.hidden, times, axis=0), readout=np.repeat(population.readout, times)
    )
    copies = replace(copies, still=np.zeros((len(copies.readout), 0)))
    np.testing.assert_allclose(outputs(problem, weighted), outputs(problem, copies), rtol=0, atol=1e-8)


def test_mean_and_summed_loss():
    """The mean loss is the summed one with times P t and decay lambda / P."""
    count = 6
    summed, _ = teacher_problem("tanh", 4, count, 5, TIMES, gamma2=0.7, decay=0.12)
    stages = [
        replace(stage, scale=1 / count, decay=0.12 / count, times=count * np.array(TIMES)) for stage in summed.stages
    ]
    population = gaussians(summed, 48)
    found = outputs(replace(summed, stages=stages), population)
    np.testing.assert_allclose(found, outputs(summed, population), rtol=0, atol=1e-8)


def test_a_strict_array_library_gives_the_same_run():
    problem, _ = teacher_problem("tanh", 3, 6, 4, TIMES, gamma2=0.7, decay=0.1, readout="carry-centred")
    population = gaussians(problem, 48)
    control = Control("rkc", 1e-4)
    strict = outputs(problem, population, control, machine=Machine(xp=array_api_strict))
    np.testing.assert_allclose(strict, outputs(problem, population, control), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["tanh", "softplus"])
def test_single_precision_of_the_neurons(name):
    problem, _ = teacher_problem(name, 6, 20, 30, TIMES)
    population = gaussians(problem, 512)
    control = Control("rkc", 1e-4)
    single = outputs(problem, population, control, machine=Machine("float32"))
    np.testing.assert_allclose(single, outputs(problem, population, control), rtol=0, atol=1e-4)


# ------------------------------------------------------------ lazy limit


@pytest.mark.parametrize("name", LIPSCHITZ)
def test_small_richness_is_kernel_regression_with_the_kernel_of_the_neurons(name):
    """The distance of paired neurons from their own frozen kernel falls as gamma^2 (few neurons at kinks: slower)."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((14, 3))
    population = None
    gammas, errors = (0.02, 0.04, 0.08), []
    for gamma in gammas:
        stage = Stage(np.arange(10), x[:10, 0], gamma, np.array([0.5, 2.0]), 0.2)
        problem = Problem(activation(name), reduce_inputs(x, 10), [stage])
        population = population or gaussians(problem, 60, pairs=True)
        f = outputs(problem, population, Control("rkc", 1e-8) if name == "relu" else None)[0]
        moving = problem.geometry.moving
        phi, g = field_of(problem, population).kernels(state_of(population), moving, moving[:10])
        theta = phi + (moving @ moving[:10].T) * g
        # reduction "sum" with time s t is the flow with scale s.
        lazy = kernel_regression(theta[:10], theta, stage.labels, time=0.2 * stage.times, reduction="sum")
        errors.append(np.max(np.abs(f - lazy)))
    slope = np.polyfit(np.log(gammas), np.log(errors), 1)[0]
    if name == "relu":
        assert errors[0] < 2e-2
        assert slope > 0.4
    else:
        assert errors[0] < 2e-3
        assert slope == pytest.approx(2.0, abs=0.1)


def test_the_lazy_control_variate_replaces_the_kernel_of_the_neurons():
    """With few neurons and tiny richness the corrected output is that of the exact kernel, in both stages."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((14, 3))
    stages = [
        Stage(np.arange(5), x[:5, 0], 0.01, np.array([0.0, 1.0]), 1.0),
        Stage(np.arange(5, 10), x[5:10, 1], 0.02, np.array([0.0, 1.0]), 1.0),
    ]
    problem = Problem(activation("tanh"), reduce_inputs(x, 10), stages)
    population = gaussians(problem, 60, pairs=True)
    moving, exact, responses = problem.geometry.moving, initial_ntk(problem.act, x, x), []
    for k, stage in enumerate(stages):
        phi, g = field_of(problem, population, k).kernels(state_of(population), moving, moving[stage.rows])
        responses.append(exact[:, stage.rows] - phi - (moving @ moving[stage.rows].T) * g)
    control = Control("dop853", 1e-11)
    runs = run_population(problem, population, control, corrections=[Correction(response=r) for r in responses])
    first = kernel_regression(exact[:5, :5], exact[:, :5], stages[0].labels, time=[0.0, 1.0], reduction="sum")
    jump = first[-1] / 2
    second = jump + kernel_regression(
        exact[5:10, 5:10], exact[:, 5:10], stages[1].labels - jump[5:10], time=[0.0, 1.0], reduction="sum"
    )
    np.testing.assert_allclose(runs[0].f, first, rtol=0, atol=1e-3)
    np.testing.assert_allclose(runs[1].f, second, rtol=0, atol=1e-3)
    alone = run_population(problem, population, control)
    assert np.max(np.abs(alone[1].f - second)) > 0.02


# ------------------------------------------------------------ breaks and rest


def test_what_breaks_off_keeps_the_earlier_records():
    problem, _ = teacher_problem("tanh", 3, 10, 4, [0.0, 1.0, 100.0])
    population = gaussians(problem, 64)
    runs = run_population(problem, population, Control("euler", dt=1.5))
    f = runs[0].f
    assert np.all(np.isfinite(f[0]))
    assert np.all(np.isnan(f[-1]))
    assert "use --dt" in runs[0].outcome.message
    assert np.all(np.isnan(runs[1].f))
    assert runs[1].f.shape == f.shape
    assert runs[1].outcome is runs[0].outcome


def test_a_break_in_the_second_stage_keeps_the_first():
    problem, _ = teacher_problem("tanh", 3, 10, 4, [0.0, 1.0])
    stages = [problem.stages[0], replace(problem.stages[1], gamma=10.0, times=np.array([0.0, 20.0]))]
    runs = run_population(replace(problem, stages=stages), gaussians(problem, 64), Control("euler", dt=0.5))
    assert np.all(np.isfinite(runs[0].f))
    assert np.all(np.isfinite(runs[1].f[0]))
    assert np.all(np.isnan(runs[1].f[1]))
    assert runs[1].outcome.message


def test_at_rest_the_last_state_stands_for_later_records():
    problem, _ = teacher_problem("linear", 2, 3, 4, [0.0, 1.0, 1e3, 1e6], only=1)
    population = gaussians(problem, 32, pairs=True, whiten=True)
    run = run_population(problem, population, Control("rkc", 1e-6, until=1e-7))[0]
    assert run.outcome.settled
    assert run.outcome.time < 1e3
    np.testing.assert_array_equal(run.f[2], run.f[3])
    stage = problem.stages[0]
    np.testing.assert_allclose(run.f[3][stage.rows], stage.labels, atol=1e-5)


def test_observers_see_every_record():
    problem, _ = teacher_problem("tanh", 3, 6, 4, TIMES, gamma2=2.0)
    seen = []

    def observe(stage, record, time, view):
        seen.append((stage, record, time))
        return {"own": view.outputs(), "record": record}

    runs = run_population(problem, gaussians(problem, 32), Control("rkc", 1e-4), observe=observe)
    assert seen == [(s, r, t) for s in (0, 1) for r, t in enumerate(TIMES)]
    for run in runs:
        np.testing.assert_allclose(run.observed["own"], run.f, rtol=1e-12)
        assert run.observed["record"] == [0, 1, 2]


def test_the_path_holds_the_residuals_of_all_steps():
    problem, _ = teacher_problem("tanh", 3, 6, 4, TIMES)
    run = run_population(problem, gaussians(problem, 32), Control("rkc", 1e-4))[0]
    stage = problem.stages[0]
    times = [t for t, _ in run.path]
    assert len(times) == run.steps + 1
    assert (times[0], times[-1]) == (0.0, 1.0)
    np.testing.assert_allclose(run.path[0][1], stage.labels - run.f[0][stage.rows], rtol=1e-12)
    np.testing.assert_allclose(run.path[-1][1], stage.labels - run.f[-1][stage.rows], rtol=1e-12)


def test_the_basis_does_not_depend_on_the_signs_of_the_decomposition(monkeypatch):
    x = np.random.default_rng(0).standard_normal((9, 12))
    plain, decompose = reduce_inputs(x, 5), np.linalg.svd

    def other_library(*args, **kwargs):
        left, values, right = decompose(*args, **kwargs)
        signs = np.where(np.arange(len(right)) % 2, 1.0, -1.0)
        return left * signs[: left.shape[1]], values, right * signs[:, None]

    monkeypatch.setattr(np.linalg, "svd", other_library)
    other = reduce_inputs(x, 5)
    np.testing.assert_array_equal(plain.moving, other.moving)
    np.testing.assert_array_equal(plain.still, other.still)
