"""Radii that are integrated out along a direction: against sums over the radius, and the dual near its edge."""

import numpy as np
import pytest
from scipy.optimize import minimize

from tests.bayes.test_target_condense import RELU, exact_dual, log_z
from tlcli.bayes.sampling.dual import directed, moments, newton, value_at
from tlcli.bayes.sampling.fits import SampledSquares
from tlcli.bayes.sampling.pool import Pool
from tlcli.bayes.sampling.radius import radial
from tlcli.bayes.sampling.tilt import Tilt


def summed(power, c, p):
    """log ∫₀^∞ ρ^power exp(pρ - ½cρ²)dρ by the trapezoid rule in log ρ, which converges exponentially."""
    top = (p + np.sqrt(p**2 + 4 * c * (power + 1))) / (2 * c)
    x = np.log(top) + np.linspace(-60, 14, 20001) / np.sqrt(power + 1 + c * top**2)
    exponent = (power + 1) * x + p * np.exp(x) - 0.5 * c * np.exp(2 * x)
    return exponent.max() + np.log(np.exp(exponent - exponent.max()).sum() * (x[1] - x[0]))


@pytest.mark.parametrize("rank", [1, 2, 8, 40, 300])
def test_moments_of_the_radius_are_sums(rank):
    """Both directions of the recurrence, where they meet, and far beyond; those of another rank are seen."""
    p = np.array([-1e4, -300, -30, -5, -3, -2.1, -1, -0.5, -0.3, -0.05, 0, 0.05, 1, 5, 30, 300])
    for c in (1.0, 0.3, 1e-3):
        log, square, fourth = radial(rank, np.full(p.shape, c), p)
        exact = np.array([[summed(rank - 1 + k, c, one) for k in (0, 2, 4)] for one in p])
        base = np.array([summed(rank - 1, 1.0, one) for one in p])
        np.testing.assert_allclose(log, exact[:, 0] - base, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(np.log(square), exact[:, 1] - exact[:, 0], atol=1e-8)
        np.testing.assert_allclose(np.log(fourth), exact[:, 2] - exact[:, 0], atol=1e-8)
        other = radial(rank + 1, np.full(p.shape, c), p)[1]
        assert np.all(other[p <= 0] > (1 + 0.5 / (rank + 1)) * square[p <= 0])
    free, square, fourth = radial(rank, np.array([0.2]), np.zeros(1))  # the formulas of a source
    assert free[0] == pytest.approx(-0.5 * rank * np.log(0.2))
    assert (square[0], fourth[0]) == pytest.approx((rank / 0.2, rank * (rank + 2) / 0.04))


def around_one_neuron(seed=0, states=6000):
    """B (5, 2), a source neuron of length 2 near the steepest direction, v with s² = 1 there, the tilt of a target with
    δ = 1, a pool of its base, and μ."""
    rng = np.random.default_rng(seed)
    b, v, angle = rng.standard_normal((5, 2)), rng.standard_normal(5), np.linspace(0, 2 * np.pi, 5000)
    u = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    s = np.abs(np.maximum(u @ b.T, 0) @ v)
    v, w = v / s.max(), 2 * u[(np.argmax(s) + 200) % 5000]
    scaled = (b / np.sqrt(2)).astype(np.float32)
    tilt = Tilt(RELU, scaled, (0.5 * w @ b.T)[None].astype(np.float32))
    pool = Pool(rng.standard_normal((1, states, 2), dtype=np.float32), np.zeros((1, states)))
    return b, w, v, tilt, pool, np.tile(0.5 * np.sqrt(2) * w, (states, 1))


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_pool_of_directions_knows_the_edge(seed):
    """log Z(v|w) from the base, within 3 %; a pool of weights has less than two thirds of it."""
    b, w, v, tilt, pool, mean = around_one_neuron(seed)
    steep = np.sqrt(1.97) * v  # 1 - γ²s²/(1+δ) is 0.015 at least
    exact = log_z(b, steep, w, 1.0, 1.0)
    nothing = np.zeros(5)
    sphere, directions = directed(tilt, pool, mean, nothing, 1.0)
    found = -value_at(sphere, directions, steep, SampledSquares(nothing, np.inf), 1.0, 1)[0]
    assert found == pytest.approx(exact, rel=0.03)
    raw = moments(tilt, pool, steep, 1.0).log_z
    assert raw < 2 / 3 * exact


def test_derivatives_of_the_dual_of_directions_are_those_of_differences():
    _, _, v, tilt, pool, mean = around_one_neuron()
    sphere, directions = directed(tilt, pool, mean, np.zeros(5), 1.3)
    found = moments(sphere, directions, 0.9 * v, 1.3)
    gradient, hessian = 1.69 * found.kernel @ (0.9 * v), 1.69 * found.kernel + 1.69**2 * found.spread
    step = 0.005 * np.random.default_rng(1).standard_normal(5)
    low, here, high = (moments(sphere, directions, 0.9 * v + c * step, 1.3).log_z for c in (-1, 0, 1))
    assert gradient @ step == pytest.approx((high - low) / 2, rel=0.01)
    assert step @ hessian @ step == pytest.approx(high - 2 * here + low, rel=0.01)
    assert abs(1.69 * step @ found.kernel @ step - (high - 2 * here + low)) > 0.2 * (high - 2 * here + low)


def test_the_maximum_from_a_far_pool_is_that_of_the_exact_dual():
    """A pool of the base leads to 2 % of |v| without a guard. A pool of weights ends elsewhere."""
    rng = np.random.default_rng(4)
    b, y, neurons = rng.standard_normal((3, 2)), 2 * np.array([1.0, -1.0, 1.0]), rng.standard_normal((8, 2))
    tilt = Tilt(RELU, (b / np.sqrt(2)).astype(np.float32), (0.5 * neurons @ b.T).astype(np.float32))
    pool = Pool(rng.standard_normal((1000, 8, 2), dtype=np.float32), np.zeros((1000, 8)))
    sphere, directions = directed(tilt, pool, 0.5 * np.sqrt(2) * neurons, np.zeros(3), 1.0)
    ends = []
    for one in ((sphere, directions), (tilt, pool)):
        v = np.zeros(3)
        for _ in range(12):  # a step that the domain's edge has shortened ends a call
            before, v = v, newton(*one, v, SampledSquares(y, 20.0), 1.0, 8, guard=1e-9).v
            if np.linalg.norm(v - before) < 1e-4:
                break
        ends.append(v)
    exact = exact_dual(b, y, 20.0, 1.0, neurons, np.zeros((0, 2)), np.zeros(0))
    best = minimize(exact, ends[0], method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-6}).x
    off = [np.linalg.norm(v - best) / np.linalg.norm(best) for v in ends]
    assert off[0] < 0.02
    assert off[1] > 0.1
