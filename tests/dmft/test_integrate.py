"""The integrators: their order, stability and cost, and what they say when a run breaks off."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tests.dmft.problems import advance, field_of, gaussians, outputs, state_of, teacher_problem
from tlcli.dmft.field import Field
from tlcli.dmft.integrate import Control, chebyshev, doubled, error_factor, halved, integrate, rkc_step
from tlcli.dmft.two_layer import run_population


def order(steps, errors):
    """Slope of log error against log step."""
    return stats.linregress(np.log(1 / np.asarray(steps)), np.log(errors)).slope


@pytest.fixture(scope="module")
def smooth():
    """A field, a state, and the state at t = 1 to rounding."""
    problem, _ = teacher_problem("tanh", 3, 10, 0, [1.0], only=2)
    population = gaussians(problem, 32)
    field, z = field_of(problem, population), state_of(population)
    return field, z, advance(field, z, 1.0, tolerance=1e-13)


class Linear(Field):
    """dz/dt = -rates z, of which everything is known."""

    def __init__(self, rates):
        self.rates, self.xp, self.evaluations = np.asarray(rates, dtype=float), np, 0

    def __call__(self, t, z):
        self.evaluations += 1
        return -self.rates * z

    def stiffness(self, t, z, start=None, sweeps=20):
        return float(np.max(np.abs(self.rates))), np.ones(len(z))


# ------------------------------------------------------------------------------------------------ order


def fixed_rkc(field, z, count, stages):
    h = 1.0 / count
    for k in range(count):
        z = rkc_step(field, k * h, z, field(k * h, z), h, stages)
    return z


@pytest.mark.parametrize("stages", [2, 3, 7, 20])
def test_rkc_is_of_second_order(smooth, stages):
    field, z, exact = smooth
    steps = [20, 40, 80, 160]
    errors = [np.max(np.abs(fixed_rkc(field, z, n, stages) - exact)) for n in steps]
    assert order(steps, errors) == pytest.approx(2.0, abs=0.05)


def test_a_tolerance_that_asks_for_too_short_steps_is_the_cause_that_is_told(smooth):
    field, z, _ = smooth
    told = integrate(field, z, 50.0, Control("rkc", 1e-10, max_evaluations=field.evaluations + 3000)).message
    assert "with steps as short as a tolerance of 1e-10 asks for" in told
    assert "; raise the tolerance, lower gamma" in told


def test_a_tolerance_below_rounding_is_the_cause_that_is_told():
    problem, _ = teacher_problem("tanh", 3, 10, 0, [1.0], only=2)
    population = gaussians(problem, 32)
    rough = field_of(problem, population, dtype="float32")
    told = integrate(rough, rough.asarray(state_of(population)), 1.0, Control("rkc", 1e-13)).message
    assert "no step is small enough; raise the tolerance" in told


def test_euler_is_of_first_order(smooth):
    field, z, exact = smooth
    steps = [100, 200, 400, 800]
    errors = [np.max(np.abs(advance(field, z, 1.0, "euler", dt=1 / n) - exact)) for n in steps]
    assert order(steps, errors) == pytest.approx(1.0, abs=0.02)


def test_dop853_is_of_eighth_order(smooth):
    """Its error per step count, as the tolerance falls; 8 asymptotically."""
    field, z, exact = smooth
    runs = [integrate(field, z, 1.0, Control("dop853", tol)) for tol in (1e-4, 1e-6, 1e-8, 1e-10)]
    errors = [np.max(np.abs(run.state - exact)) for run in runs]
    assert order([run.steps for run in runs], errors) > 7
    for run, tolerance in zip(runs[1:], (1e-6, 1e-8, 1e-10), strict=True):
        assert np.max(np.abs(run.state - exact)) < 10 * tolerance


def test_adaptive_rkc_follows_its_tolerance(smooth):
    """The error of a second-order method that controls the error per step: proportional to tolerance^(2/3)."""
    field, z, exact = smooth
    tolerances = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6]
    errors = [np.max(np.abs(advance(field, z, 1.0, "rkc", t) - exact)) for t in tolerances]
    assert stats.linregress(np.log(tolerances), np.log(errors)).slope == pytest.approx(2 / 3, abs=0.15)


@pytest.mark.parametrize(("method", "tolerance"), [("rkc", 1e-5), ("dop853", 1e-8), ("euler", 1e-8)])
def test_states_between_the_steps(smooth, method, tolerance):
    field, z, _ = smooth
    found = {}
    records = [0.0, 0.123, 0.5, 0.987, 1.0]

    def on_step(step):
        for t in records:
            if step.t0 <= t <= step.t1:
                found[t] = step.at(t)

    integrate(field, z, 1.0, Control(method, tolerance, 1e-3 if method == "euler" else None), on_step)
    for t in records:
        expected = z if t == 0 else advance(field, z, t)
        np.testing.assert_allclose(
            found[t], expected, rtol=0, atol={"rkc": 1e-3, "dop853": 1e-7, "euler": 5e-3}[method]
        )


# ------------------------------------------------------------------------------------------------ stated errors


@pytest.mark.parametrize(
    ("method", "tolerance", "dt"),
    [("rkc", 1e-2, None), ("rkc", 1e-4, None), ("rkc", 1e-6, None), ("dop853", 1e-6, None), ("euler", 0.0, 0.02)],
)
def test_the_stated_error_of_a_linear_problem_is_the_true_one(method, tolerance, dt):
    """dz/dt = -rates z, rates 0.1 to 30: the exact solution is known at every record."""
    field, z, records = Linear(np.geomspace(0.1, 30.0, 7)), np.ones(7), np.linspace(0.05, 2.0, 24)
    found, finer = {}, {}

    def keeps(where):
        return lambda step: where.update({t: step.at(t) for t in records if step.t0 < t <= step.t1})

    run = integrate(field, z, 2.0, Control(method, tolerance, dt), keeps(found))
    again = halved(field, z, run, method, keeps(finer))
    assert (again.time, again.steps, len(again.taken)) == (run.time, 2 * run.steps, 2 * run.steps)
    true = np.array([np.linalg.norm(found[t] - np.exp(-field.rates * t)) for t in records])
    stated = np.array([error_factor(method) * np.linalg.norm(found[t] - finer[t]) for t in records])
    np.testing.assert_allclose(stated, true, rtol=0.35, atol=1e-3 * tolerance)
    # Without the factor euler would state half of it.
    assert np.median(stated / true) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(("tolerance", "high"), [(3e-2, 30), (1e-3, 8), (1e-5, 8)])
def test_twice_the_steps_show_three_times_the_error(tolerance, high):
    """Of a method of second order; also where the tolerance is so loose that few steps make the stage."""
    rates, z, records = np.geomspace(0.1, 30.0, 7), np.ones(7), np.linspace(0.05, 2.0, 24)
    field, found, rough = Linear(rates), {}, {}

    def keeps(where):
        return lambda step: where.update({t: step.at(t) for t in records if step.t0 < t <= step.t1})

    run = integrate(field, z, 2.0, Control("rkc", tolerance), keeps(found))
    before, field.evaluations = field.evaluations, 0
    again = doubled(field, z, run, "rkc", keeps(rough))
    assert (again.time, again.steps) == (run.time, len(run.taken) // 2)
    assert field.evaluations < 0.85 * before
    true = np.array([np.linalg.norm(found[t] - np.exp(-rates * t)) for t in records])
    change = np.array([np.linalg.norm(found[t] - rough[t]) for t in records])
    assert np.mean(change >= true) > 0.9
    assert 1.5 < np.median(change / true) < high


@pytest.mark.parametrize(("count", "steps"), [(1, 2), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_no_step_is_left_as_it_was(count, steps):
    field, z = Linear([1.0, 2.0]), np.ones(2)
    run = integrate(field, z, 1.0, Control("euler", dt=1.0 / count))
    assert len(run.taken) == count
    again = doubled(field, z, run, "euler")
    assert (len(again.taken), again.time) == (steps, run.time)
    assert count == 1 or {end for end, _ in again.taken} < {end for end, _ in run.taken}
    assert np.all(again.state != run.state)


@pytest.mark.parametrize(
    ("name", "gamma", "tolerance", "low", "high"),
    [
        ("tanh", 1.0, 3e-4, 0.7, 1.5),
        ("erf", 0.3, 1e-3, 0.7, 1.5),
        ("softplus", 1.0, 1e-3, 0.7, 1.5),
        ("relu", 1.0, 3e-3, 0.6, 3.0),
    ],
)
def test_the_stated_error_of_predictions_through_both_stages(name, gamma, tolerance, low, high):
    """The largest error of f over all points, at every record, against the same neurons integrated far more tightly."""
    problem, _ = teacher_problem(name, 3, 8, 20, [0.5, 1.0, 2.0], gamma=gamma)
    population = gaussians(problem, 128)
    control = Control("rkc", tolerance)
    runs = run_population(problem, population, control)
    finer = run_population(problem, population, control, halve=runs)
    smooth = problem.act.smooth
    exact = outputs(problem, population, Control("dop853", 1e-11) if smooth else Control("rkc", 1e-4))
    factor = error_factor("rkc", smooth)
    stated, true = (
        np.array([np.max(np.abs(run.f - other), axis=1) for run, other in zip(runs, others, strict=True)])
        for others in ([run.f for run in finer], exact)
    )
    ratio = factor * stated / true
    assert np.min(ratio) > low
    assert np.max(ratio) < high


def test_a_repetition_ends_where_the_run_did(smooth):
    field, z, _ = smooth
    assert halved(field, z, integrate(field, z, 0.0, Control()), "rkc").state is z
    field.evaluations = 0
    run = integrate(field, z, 100.0, Control("rkc", 1e-6, max_evaluations=100))
    again = halved(field, z, run, "rkc")
    assert again.time == run.time == run.taken[-1][0]
    assert again.message == run.message
    field.evaluations = 0


# ------------------------------------------------------------------------------------------------ Chebyshev


@pytest.mark.parametrize("stages", [2, 3, 4, 10, 50, 250])
def test_coefficients_are_consistent(stages):
    mu, nu, mu_t, gamma_t, c = chebyshev(stages)
    assert all(len(v) == stages + 1 for v in (mu, nu, mu_t, gamma_t, c))
    assert c[0] == 0.0
    assert c[stages] == pytest.approx(1.0, abs=1e-12)
    assert all(b > a for a, b in itertools.pairwise(c))
    # The stages of dz/dt = 1 are at their own times, which fixes c by the recursion.
    y = [0.0, mu_t[1]]
    for j in range(2, stages + 1):
        y.append(mu[j] * y[-1] + nu[j] * y[-2] + mu_t[j] + gamma_t[j])
    np.testing.assert_allclose(y, c, rtol=0, atol=1e-10)


def stability(stages, x):
    """The stability polynomial at z = -x, from one step on dz/dt = -x z."""
    field, z = Linear(x), np.ones(len(x))
    return rkc_step(field, 0.0, z, field(0.0, z), 1.0, stages)


@pytest.mark.parametrize("stages", [2, 5, 15, 60])
def test_stability_interval_grows_with_the_square_of_the_stages(stages):
    limit = 2 / 3 * (stages**2 - 1) * (1 - 2 / 15 * 2 / 13)  # Sommeijer, Shampine and Verwer (1998), damping 2/13
    inside = np.linspace(1e-3, limit, 4001)
    assert np.max(np.abs(stability(stages, inside))) <= 1.0
    assert np.max(np.abs(stability(stages, np.linspace(1.1, 1.3, 50) * limit))) > 1.0
    # Damped: strictly inside the interval nothing is kept for ever.
    assert np.max(np.abs(stability(stages, inside[inside > 0.1 * limit]))) < 0.98
    # Second order: the polynomial is exp(-x) to x^3.
    small = np.array([1e-2])
    assert abs(stability(stages, small) - np.exp(-small))[0] < 1e-6


@pytest.mark.parametrize("rate", [10.0, 1e3, 1e5])
def test_stiff_decay_costs_the_root_of_the_stiffness(rate):
    """One mode of order one, and a fast one that must not blow up."""
    field = Linear([1.0, rate])
    outcome = integrate(field, np.array([1.0, 1.0]), 5.0, Control("rkc", 1e-4))
    assert outcome.message == ""
    assert outcome.state[0] == pytest.approx(np.exp(-5.0), abs=1e-3)
    assert abs(outcome.state[1]) < 1e-3
    assert field.evaluations < 200 + 10 * np.sqrt(5 * rate)


def test_combinations(smooth):
    field, z, _ = smooth
    other = np.cos(z)
    before = z.copy()
    np.testing.assert_allclose(field.combine((2.0, z), (-0.5, other), (0.25, z)), 2.25 * z - 0.5 * other, atol=1e-14)
    np.testing.assert_array_equal(z, before)


# ------------------------------------------------------------------------------------------------ cost on task 1


def evaluations_for(accuracy, draw):
    """Field evaluations of RKC2 and of Euler for one draw of the quadratic stage of task 1."""
    problem, labels = teacher_problem("tanh", 15, 50, 200, np.linspace(0, 20, 41), only=2, seed=draw)
    population = gaussians(problem, 256, seed=draw)
    y = labels[1]

    def losses(control):
        run = run_population(problem, population, control)[0]
        train, test = (np.mean((run.f[:, s] - y[s]) ** 2, axis=1) for s in (slice(50, 100), slice(100, None)))
        return np.array([test / test[0], train / train[0]]), run.evaluations

    exact, _ = losses(Control("dop853", 1e-7))
    rkc = None
    for tolerance in (2e-3, 1.4e-3, 1e-3, 7e-4, 5e-4, 3e-4, 1e-4, 5e-5, 3e-5):
        found, rkc = losses(Control("rkc", tolerance))
        if np.max(np.abs(found - exact)) < accuracy:
            break
    # Euler is of first order (see above), so that one step size tells what the accuracy costs.
    found, euler = losses(Control("euler", dt=20 / 4000))
    return rkc, euler * np.max(np.abs(found - exact)) / accuracy


def test_rkc_needs_thirty_times_fewer_evaluations_than_gradient_descent():
    """tanh, gamma = 1, T = 20, losses to 1e-3 of the initial ones, where the draw makes the feedback stiff.

    How much is saved grows with the steps that descent needs. It is 13 to 40 over all draws; these need 7000 or more.
    """
    ratios = []
    for draw in (0, 1, 2, 4):
        rkc, euler = evaluations_for(1e-3, draw)
        assert euler > 7000
        assert rkc < 800
        ratios.append(euler / rkc)
    assert min(ratios) > 20
    assert np.exp(np.mean(np.log(ratios))) > 30


# ------------------------------------------------------------------------------------------------ the end of a run


@pytest.mark.parametrize("method", ["rkc", "dop853", "euler"])
def test_a_run_settles(method):
    field = Linear([1.0, 3.0])
    control = Control(method, 1e-8, 0.01 if method == "euler" else None, until=1e-3)

    class Decay(Linear):
        def __call__(self, t, z):
            return super().__call__(t, z - 1.0)

    outcome = integrate(Decay(field.rates), np.array([2.0, 0.0]), 100.0, control)
    assert outcome.settled
    assert outcome.message == ""
    assert 5 < outcome.time < 20
    np.testing.assert_allclose(outcome.state, 1.0, atol=3e-3)
    assert not integrate(Decay(field.rates), np.array([2.0, 0.0]), 1.0, control).settled


def test_nothing_to_do(smooth):
    field, z, _ = smooth
    outcome = integrate(field, z, 0.0, Control())
    assert outcome.state is z
    assert (outcome.time, outcome.steps, outcome.settled, outcome.message) == (0.0, 0, True, "")


def test_what_counts_as_rest_follows_the_richness():
    control = Control(until=1e-3, tolerance=1e-4)
    assert control.of_stage(2.0) == control
    assert control.of_stage(0.1) == Control(until=pytest.approx(1e-4), tolerance=1e-4)
    assert replace(control, scaled=True).of_stage(0.1).tolerance == pytest.approx(1e-5)


def test_too_large_a_learning_rate_is_told(smooth):
    field, z, _ = smooth
    outcome = integrate(field, z, 100.0, Control("euler", dt=2.0))
    assert 0 < outcome.time < 100
    assert not outcome.settled
    assert outcome.message.startswith(f"broke off at t = {outcome.time:.4g} of the stage: gradient descent diverges")
    assert re.search(r"with the step 2; use --dt [\d.e-]+ or less$", outcome.message)
    assert np.all(np.isfinite(outcome.state))


def test_the_step_of_gradient_descent_is_stable_by_itself(smooth):
    field, z, exact = smooth
    outcome = integrate(field, z, 1.0, Control("euler"))
    assert outcome.message == ""
    assert np.max(np.abs(outcome.state - exact)) < 0.1


@pytest.mark.parametrize("method", ["rkc", "dop853", "euler"])
def test_evaluations_are_limited(smooth, method):
    field, z, _ = smooth
    field.evaluations = 0
    control = Control(method, 1e-8, 1e-4 if method == "euler" else None, max_evaluations=100)
    outcome = integrate(field, z, 100.0, control)
    assert 0 < outcome.time < 100
    assert "more than 100 field evaluations; shorten the stage" in outcome.message
    field.evaluations = 0


@pytest.mark.parametrize("method", ["rkc", "dop853"])
def test_a_run_away_is_told(method):
    """A cubic activation and a huge label: neurons reach infinity in finite time."""
    problem, _ = teacher_problem("he3", 3, 10, 0, [5.0], gamma=200.0, only=1)
    population = gaussians(problem, 64)
    field, z = field_of(problem, population), 50 * state_of(population)
    outcome = integrate(field, z, 5.0, Control(method, 1e-4, max_evaluations=5000))
    assert outcome.time < 5.0
    assert outcome.message.startswith(f"broke off at t = {outcome.time:.4g} of the stage: ")


def test_controls_are_values():
    assert replace(Control(), tolerance=1e-5) == Control(tolerance=1e-5)
