"""The method alone: tableau, diagonalisation, dense output, and the order of convergence on a known answer."""

import numpy as np
import pytest

from tlcli.linear.integrate import march, radau
from tlcli.linear.modes import Modes
from tlcli.status import Status


@pytest.mark.parametrize("stages", [1, 3, 5, 7])
def test_tableau_integrates_polynomials_exactly(stages):
    rule = radau(stages)
    assert rule.nodes[-1] == 1.0
    for power in range(stages):
        np.testing.assert_allclose(rule.matrix @ rule.nodes**power, rule.nodes ** (power + 1) / (power + 1), atol=1e-14)
    # The last row is a quadrature of degree 2p − 2.
    for power in range(2 * stages - 1):
        assert rule.matrix[-1] @ rule.nodes**power == pytest.approx(1 / (power + 1), abs=1e-14)


@pytest.mark.parametrize("stages", [1, 3, 5, 7])
def test_diagonalised_resolvent_is_the_inverse(stages):
    rule = radau(stages)
    x = np.random.default_rng(1).normal(size=stages)
    z = np.array([0.0, 1e-4, 1.0, 37.0, 1e8])
    got = rule.combine(rule.resolvent(z) * (rule.left @ x))
    for row, value in zip(got, z, strict=True):
        np.testing.assert_allclose(
            row, np.linalg.solve(np.eye(stages) + value * rule.matrix, x), rtol=1e-11, atol=1e-13
        )


def test_dense_output_and_its_inverse():
    rule = radau(7)
    points = np.append(0.0, rule.nodes)
    values = np.stack([points + points**3, 2 * points + points**6])
    target = np.array([0.3, 2.9])
    theta = rule.invert(values, target)
    np.testing.assert_allclose([theta[0] + theta[0] ** 3, 2 * theta[1] + theta[1] ** 6], target, rtol=1e-14)
    np.testing.assert_allclose(np.sum(values * rule.dense_weights(theta), axis=1), target, rtol=1e-14)


def test_even_stage_numbers_are_refused():
    with pytest.raises(ValueError, match="odd"):
        radau(4)


class Decay:
    """dy/dt = −rate (y − cos t) − sin t, solved exactly by cos t; implicit Euler with step doubling."""

    def __init__(self, rate, end):
        self.rate, self.end = np.asarray(rate, float), np.asarray(end, float)
        self.t, self.y = np.zeros(self.rate.size), np.ones(self.rate.size)

    def _step(self, points, y, t, h):
        return (y + h * (self.rate[points] * np.cos(t + h) - np.sin(t + h))) / (1 + h * self.rate[points])

    def limit(self, points):
        return self.end[points] - self.t[points]

    def attempt(self, points, step):
        once = self._step(points, self.y[points], self.t[points], step)
        half = self._step(points, self.y[points], self.t[points], step / 2)
        half = self._step(points, half, self.t[points] + step / 2, step / 2)
        self.trial = (step, 2 * half - once)
        return np.abs(half - once) / 1e-6

    def commit(self, points, accepted):
        self.t[points[accepted]] += self.trial[0][accepted]
        self.y[points[accepted]] = self.trial[1][accepted]
        return accepted & (self.t[points] >= self.end[points] * (1 - 1e-12))


def test_march_keeps_its_own_step_and_end_per_point():
    system = Decay([1.0, 1e6, 3.0], [2.0, 5.0, 1e-3])
    walk = march(system, np.full(3, 1e-3), active=np.ones(3, bool), order=2, max_steps=20000)
    assert np.all(walk.status == Status.CONVERGED)
    np.testing.assert_allclose(system.y, np.cos(system.end), atol=3e-4)
    assert walk.steps[2] < walk.steps[1] < 20000


def test_an_exhausted_budget_is_reported_for_the_point_only():
    system = Decay([1.0, 1.0], [1e-4, 50.0])
    walk = march(system, np.full(2, 1e-4), active=np.ones(2, bool), order=2, max_steps=30)
    assert list(walk.status) == [Status.CONVERGED, Status.NOT_CONVERGED]


@pytest.mark.parametrize("stages", [1, 3, 5])
def test_order_of_convergence_on_the_mode_equations(stages):
    """Fixed steps in τ: the end of the step converges at order 2p − 1, the dense output not worse than p."""

    def end(n_steps, p):
        point = np.array([[0.7, 1.3, 1e9, 0.3, 0.2, 0.8, 1.0, 0.4]])
        modes = Modes(point, np.empty((1, 0)), 48, p, np.inf)
        modes.young[:] = False
        modes.x -= 1.0
        for _ in range(n_steps):
            modes.attempt(np.array([0]), np.array([1.5 / n_steps]))
            modes.commit(np.array([0]), np.array([True]))
        return np.array([modes.t[0], modes.q[0], modes.phi[0]])

    exact = end(60, 7)
    counts = np.array({1: [20, 40, 80], 3: [16, 32, 64], 5: [8, 12, 18]}[stages])
    errors = [np.max(np.abs(end(n, stages) - exact)) for n in counts]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(2 * stages - 1, abs=0.8), errors
