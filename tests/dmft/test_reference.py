"""The engine against numbers that it did not make: cases R1 to R5 of docs/references.md, and closed forms."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import solve_ivp

from tests.dmft.problems import (
    CASES,
    gaussians,
    outputs,
    reference_f,
    reference_problem,
    reference_values,
    teacher_problem,
)
from tlcli.dmft import field as field_module
from tlcli.dmft.ensemble import Numerics, solve
from tlcli.dmft.estimates import averaged, estimate
from tlcli.dmft.integrate import Control
from tlcli.dmft.population import quadrature
from tlcli.dmft.two_layer import run_population

# ------------------------------------------------------------------------------------------ deterministic rules


def kernel_at_the_end(stage, record, time, view):
    """An observer: Phi between all points."""
    points = np.arange(len(view.geometry.moving))
    return {"phi": view.kernels(points, points)[0]}


def final_kernel_error(case, runs):
    phi = runs[1].observed["phi"][-1]
    return max(abs(phi[index] - value) for index, value in reference_values(case, "phi"))


def test_linear_network_by_64_whitened_neurons():
    problem = reference_problem("R1")
    population = gaussians(problem, 64, pairs=True, whiten=True)
    runs = run_population(problem, population, Control("dop853", 1e-11), observe=kernel_at_the_end)
    assert population.size == 64
    np.testing.assert_allclose([run.f for run in runs], reference_f("R1"), rtol=0, atol=1e-7)
    assert final_kernel_error("R1", runs) < 1e-7
    readout = runs[1].outcome.state[-64:]
    ((_, readout2),) = reference_values("R1", "a2")
    assert np.mean(readout**2) == pytest.approx(readout2, abs=1e-7)


def boost(beta):
    """M and m of the boost identity for b = <u a>."""
    norm2 = beta @ beta
    matrix = np.eye(len(beta)) + (math.sqrt(1 + norm2) - 1) * np.outer(beta, beta) / norm2
    return matrix, math.sqrt(1 + norm2)


def moments(state, size):
    u, a = state[:-size].reshape(size, -1), state[-size:]
    return u.T @ u / size, u.T @ a / size, np.mean(a**2)


@pytest.mark.parametrize("case", ["R1", "task 1"])
def test_boost_identity_after_both_stages(case):
    if case == "R1":
        problem = reference_problem("R1")
    else:
        problem, _ = teacher_problem("linear", 15, 50, 5, [3.0], gamma2=2.0)
    population = gaussians(problem, 64, seed=3, pairs=True, whiten=True)
    runs = run_population(problem, population, Control("dop853", 1e-11))
    for run in runs:
        found, beta, m = moments(run.outcome.state, population.size)
        matrix, expected = boost(beta)
        assert beta @ beta > 0.5  # the neurons have moved
        np.testing.assert_allclose(found, matrix, rtol=0, atol=1e-7)
        assert m == pytest.approx(expected, abs=1e-7)
    if case == "R1":
        ((_, beta2),) = reference_values("R1", "beta2")
        assert beta @ beta == pytest.approx(beta2, abs=1e-6)


def test_boost_identity_needs_matched_moments():
    problem = reference_problem("R1")
    population = gaussians(problem, 4096, pairs=True)
    run = run_population(problem, population, Control("dop853", 1e-9))[0]
    found, beta, _ = moments(run.outcome.state, population.size)
    assert np.max(np.abs(found - boost(beta)[0])) > 1e-3


def one_sided_relu(integral, top, bottom):
    """(<a relu(w)>, <relu(w)^2>) of neurons w > 0 on hyperbolae, by section F(iv); extrema of I so far, 0 included."""
    tc = -math.pi / 2 if top == 0 else -math.atan(1 / math.tanh(top))
    td = math.pi / 2 if bottom == 0 else math.atan(1 / math.tanh(-bottom))
    sinh, cosh = math.sinh(2 * integral), math.cosh(2 * integral)
    mean = ((td - tc) * sinh + (math.cos(2 * tc) - math.cos(2 * td)) * cosh / 2) / (2 * math.pi)

    def primitive(theta):
        return cosh * theta / 2 + math.sin(2 * theta) / 4 - sinh * math.cos(2 * theta) / 4

    return mean, (primitive(td) - primitive(tc)) / math.pi


@pytest.fixture(scope="module")
def closed_form():
    """Slope c(t) and integral I(t) of R2 in both stages, and the final <relu(w)^2>, from one ODE in I."""
    problem = reference_problem("R2")
    start, top, slopes, integrals = 0.0, 0.0, [], []
    for stage in problem.stages:
        x = problem.geometry.moving[stage.rows, 0] * np.sign(problem.geometry.moving[1, 0])

        def slope(i, top=top):
            return one_sided_relu(i, max(i, top), min(i, 0.0))

        def force(t, i, x=x, y=stage.labels, slope=slope):
            return [x @ (y - x * slope(i[0])[0])]

        end = float(stage.times[-1])
        path = solve_ivp(force, (0, end), [start], "DOP853", stage.times, rtol=1e-12, atol=1e-13).y[0]
        slopes.append([slope(i)[0] for i in path])
        integrals.append(path)
        start, top = float(path[-1]), max(top, float(np.max(path)))
    return np.array(slopes), np.array(integrals), slope(start)[1]


def test_closed_form_is_the_reference(closed_form):
    slopes, integrals, phi = closed_form
    np.testing.assert_allclose(slopes, reference_f("R2")[:, :, 0], rtol=0, atol=1e-9)
    found = [value for _, value in reference_values("R2", "integral")]
    np.testing.assert_allclose(integrals.ravel(), found, rtol=0, atol=1e-9)
    assert phi == pytest.approx(reference_values("R2", "phi")[0][1], abs=1e-9)


def test_relu_of_one_input_dimension(closed_form):
    problem = reference_problem("R2")
    population = quadrature(problem.act, 1, 2048)
    runs = run_population(problem, population, Control("dop853", 1e-7), observe=kernel_at_the_end)
    f = np.array([run.f for run in runs])
    np.testing.assert_allclose(f[:, :, 5], closed_form[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(f[:, :, 6], 0.0, rtol=0, atol=1e-5)  # x = -1: those neurons are never trained
    # Phi(1, 1) is at x = 1, the points 2, 4 and 6 of this problem.
    assert runs[1].observed["phi"][-1][5, 5] == pytest.approx(closed_form[2], abs=1e-5)


@pytest.mark.parametrize("case", ["R3", "R4"])
def test_smooth_activations_by_quadrature(case):
    numerics = Numerics(population="quadrature", neurons=40_000, integrator="dop853", tolerance=1e-8)
    found = solve(reference_problem(case), numerics, kernel_at_the_end)
    f = [part[0] for part in found.f]
    np.testing.assert_allclose(f, reference_f(case), rtol=0, atol=1e-6)
    phi = found.observed[1]["phi"][0, -1]
    assert max(abs(phi[index] - value) for index, value in reference_values(case, "phi")) < 1e-6
    # The stated error, from a rule of a quarter of the nodes, bounds the true one.
    value, error = found.estimate(lambda parts: np.array(parts))
    assert np.max(np.abs(value - reference_f(case))) < np.max(error) < 1e-4
    losses = np.array([value for _, value in reference_values(case, "train_loss")]).reshape(2, -1)
    for k, stage in enumerate(reference_problem(case).stages):
        np.testing.assert_allclose(np.mean((f[k][:, stage.rows] - stage.labels) ** 2, axis=1), losses[k], atol=1e-6)


def test_relu_of_two_input_dimensions():
    found = solve(
        reference_problem("R5"), Numerics(population="quadrature", neurons=8192, tolerance=1e-3), kernel_at_the_end
    )
    np.testing.assert_allclose([part[0] for part in found.f], reference_f("R5"), rtol=0, atol=2e-3)
    phi = found.observed[1]["phi"][0, -1]
    assert max(abs(phi[index] - value) for index, value in reference_values("R5", "phi")) < 2e-3


def test_solve_finds_the_linear_network_by_itself():
    found = solve(reference_problem("R1"), Numerics(accuracy=1e-3))
    assert found.plan.pairs
    assert found.plan.whiten
    assert found.plan.neurons <= 64
    np.testing.assert_allclose([part.mean(axis=0) for part in found.f], reference_f("R1"), rtol=0, atol=1e-4)


# --------------------------------------------------------------------------------------------- sampled populations

REPEATS = 16
# What four standard errors of a known spread are for one that is estimated from 16 repeats (Student's t): 5.6.
BOUND = float(stats.t.isf(stats.norm.sf(4.0), REPEATS - 1))


def compared(case):
    """The points that are compared: of R2 the one at x = 1 that is not trained on."""
    return [5] if case == "R2" else list(range(8))


def deviations(problem, case, kind, neurons):
    """|f - reference| in units of f's standard error, with the reference's own accuracy of R5 taken off."""
    smooth = problem.act.smooth
    numerics = Numerics(population=kind, neurons=neurons, repeats=REPEATS, tolerance=1e-4 if smooth else 1e-3, seed=1)
    value, error = solve(problem, numerics).estimate(lambda parts: np.array(parts)[:, :, compared(case)])
    slack = {"R2": 5e-4, "R5": 1e-3}.get(case, 2e-5)  # time errors, and the accuracy of R5
    away = np.maximum(np.abs(value - reference_f(case)) - slack, 0.0)
    return away[:, 1:] / error[:, 1:]  # at t = 0 pairs give zero, with zero error


@pytest.mark.parametrize("kind", ["mc", "sobol"])
@pytest.mark.parametrize("case", ["R2", "R3", "R4", "R5"])
def test_sampled_populations_within_four_standard_errors(case, kind):
    assert np.max(deviations(reference_problem(case), case, kind, 512)) < BOUND


def test_plain_samples_of_the_linear_network():
    # `solve` matches the moments of linear networks, so plain ones are drawn here.
    problem = reference_problem("R1")
    found = [outputs(problem, gaussians(problem, 1024, seed=s), Control("rkc", 1e-5)) for s in range(REPEATS)]
    samples = [averaged(f) for f in np.swapaxes(found, 0, 1)]
    value, error = estimate(samples, lambda parts: np.array(parts))
    assert np.max(np.abs(value - reference_f("R1")) / error) < BOUND
    assert np.max(error) < 0.05


def without_readout(monkeypatch):
    """The force on hidden weights without its factor a."""
    monkeypatch.setattr(field_module, "scale_rows", lambda xp, matrix, factors: matrix)


@pytest.mark.parametrize("kind", ["mc", "sobol"])
@pytest.mark.parametrize("mistake", ["richness of stage 2 unused", "no richness in the force", "no readout"])
def test_wrong_formulae_are_far_outside(mistake, kind, monkeypatch):
    case = "R4"
    problem = reference_problem(case)
    if mistake == "richness of stage 2 unused":
        problem = reference_problem(case, gamma2=CASES[case][2])
    elif mistake == "no richness in the force":
        stages = [replace(stage, scale=stage.scale / stage.gamma) for stage in problem.stages]
        problem = replace(problem, stages=stages)
    else:
        without_readout(monkeypatch)
    assert np.max(deviations(problem, case, kind, 512)) > 2 * BOUND
