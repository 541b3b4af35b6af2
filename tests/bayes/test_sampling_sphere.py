"""relu at any rank: the radius integrated out, the edge of normalisability, and the condensate on it."""

import numpy as np
import pytest
from scipy.integrate import quad

from tlcli.bayes.domain import normalisable
from tlcli.bayes.quadrature.solve import quadrature_source
from tlcli.bayes.saddle import CONVERGED
from tlcli.bayes.sampling.source import sampled_source
from tlcli.bayes.sampling.target import sampled_target
from tlcli.bayes.sampling.tilt import Tilt
from tlcli.dmft.activations import activation
from tlcli.simulate.posterior import sample_posterior

RELU = activation("relu")


def log_z_of_three(v, directions, gamma, nodes=64):
    """log E exp(½γ²(v·relu(Bz))²) for B (3, 3), octant by octant of h = Bz.

    In an octant h = Σ λᵢgᵢ with λ >= 0, the exponent is a quadratic form and the radius integrates to
    |det g|∫dλ (λᵀMλ)^(-3/2) over the simplex; the square of the distance from a vertex as the variable makes the
    integrand smooth up to the edge of the domain, where M vanishes at a vertex.
    """
    x, w = np.polynomial.legendre.leggauss(nodes)
    ρ, t = np.meshgrid(0.5 * (1 + x), 0.5 * (1 + x), indexing="ij")
    weight = np.outer(w, w) / 4 * 2 * ρ**3
    inverse, centre, corners, total = np.linalg.inv(directions), np.full(3, 1 / 3), np.eye(3), 0.0
    for bits in range(8):
        sign = np.array([1 if bits >> i & 1 else -1 for i in range(3)])
        slope = v * (sign > 0)
        M = (inverse.T @ inverse) * np.outer(sign, sign) - gamma**2 * np.outer(slope, slope)
        for k in range(3):
            for q in {0, 1, 2} - {k}:
                side, middle = 0.5 * (corners[q] - corners[k]), centre - corners[k]
                λ = corners[k] + ρ[..., None] ** 2 * ((1 - t)[..., None] * side + t[..., None] * middle)
                area = np.linalg.norm(np.cross(side, middle)) / np.sqrt(3)
                form = np.einsum("abi,ij,abj->ab", λ, M, λ)
                if np.any(form <= 0):
                    return np.inf
                total += area * np.sum(weight * form**-1.5)
    return np.log(total * abs(np.linalg.det(inverse)) / (4 * np.pi))


@pytest.mark.parametrize(("seed", "gamma", "edge"), [(4, 4.0, 0.8), (2, 4.0, 0.97)])
def test_near_the_edge_the_dual_is_that_of_exact_integration(seed, gamma, edge):
    """v maximises the exact dual: no change of v by 1 % in any of 12 directions is better."""
    rng = np.random.default_rng(seed)
    x, y, beta = rng.standard_normal((3, 3)), np.array([1.0, -1.0, 1.0]), 50.0
    b = x / np.sqrt(3)
    assert log_z_of_three(np.zeros(3), b, 1.0) == pytest.approx(0.0, abs=1e-10)
    found = sampled_source(RELU, x, np.arange(3), y, gamma, beta, seed=1, chains=256, moves=300)
    assert found.status == CONVERGED, found.message
    assert edge < normalisable(RELU, b, found.v, gamma)[2] < 1

    def dual(v):
        return gamma**2 * (v @ y - v @ v / (2 * beta)) - log_z_of_three(v, b, gamma)

    best = dual(found.v)
    assert found.free_energy == pytest.approx(best, abs=0.02)
    length = np.linalg.norm(found.v)
    for direction in rng.standard_normal((12, 3)):
        step = 0.01 * length * direction / np.linalg.norm(direction)
        # D is concave: where v + step is worse and v - step too, the maximum lies between them.
        assert dual(found.v + step) < best
        assert dual(found.v - step) < best


def test_the_radius_is_integrated_out():
    rank, u = 5, 1.3
    tilt = Tilt(RELU, np.zeros((1, rank), dtype=np.float32), sphere=True)
    rest = 1 - u**2 / rank
    zero, two, four = (
        quad(lambda r, p=p, a=a: r ** (rank - 1 + p) * np.exp(-0.5 * a * r**2), 0, np.inf)[0]
        for p, a in ((0, rest), (2, rest), (4, rest))
    )
    free = quad(lambda r: r ** (rank - 1) * np.exp(-0.5 * r**2), 0, np.inf)[0]
    at = np.array([u])
    assert tilt.exponent(at)[0] == pytest.approx(np.log(zero / free))
    assert tilt.stretch(at)[0][0] == pytest.approx(two / zero / rank)
    assert tilt.stretch(at)[1] * tilt.stretch(at)[0][0] ** 2 == pytest.approx(four / zero / rank**2)
    drawn = tilt.with_radius(np.ones((200_000, rank), dtype=np.float32), tilt.stretch(at)[0], np.random.default_rng(0))
    square = np.sum(drawn.astype(float) ** 2, axis=1)
    assert abs(square.mean() - two / zero) < 4 * square.std() / np.sqrt(len(square))


def test_gradients_on_the_sphere_are_those_of_differences():
    rng = np.random.default_rng(0)
    tilt = Tilt(RELU, rng.standard_normal((6, 4)).astype(np.float32), sphere=True)
    z, v = rng.standard_normal((3, 4)).astype(np.float32), rng.standard_normal(6).astype(np.float32)
    s, slope = tilt.slope(z, v)
    np.testing.assert_allclose(tilt.project(2 * z, v), s, rtol=1e-5)
    for k in range(4):
        step = np.zeros(4, dtype=np.float32)
        step[k] = 1e-2
        ahead, behind = tilt.project(z + step, v), tilt.project(z - step, v)
        np.testing.assert_allclose(slope[:, k], (ahead - behind) / 2e-2, atol=0.02 * np.abs(slope).max())


def test_points_outside_the_span_agree_with_quadrature():
    """Two training points in three dimensions: rank two, with test points outside the plane of the weights' tilt."""
    x = np.random.default_rng(5).standard_normal((6, 3))
    rows, y = np.arange(2), np.array([1.0, -1.0])
    exact = quadrature_source(RELU, x, rows, y, 1.5, 10.0)
    found = sampled_source(RELU, x, rows, y, 1.5, 10.0, seed=3, chains=256, moves=200)
    assert np.linalg.norm(found.kernel - exact.kernel) < 0.02 * np.linalg.norm(exact.kernel)
    assert np.linalg.norm(found.outputs - exact.outputs) < 0.02 * np.linalg.norm(exact.outputs)
    lazy = quadrature_source(RELU, x, rows, y, 0.0, 10.0)
    assert np.linalg.norm(found.kernel - lazy.kernel) > 0.2 * np.linalg.norm(exact.kernel)
    # Drawn neurons have the same kernel, within 4 standard errors.
    φ = np.maximum(found.neurons @ x.T / np.sqrt(3), 0)
    products = φ[:, :, None] * φ[:, None, :]
    error = products.std(axis=0) / np.sqrt(len(φ))
    assert np.all(np.abs(products.mean(axis=0) - exact.kernel) < 4 * error + 0.01 * np.abs(exact.kernel))


def test_the_steepest_direction_may_lie_on_a_kink():
    """With as many points as dimensions every ray on which all but one preactivation vanish is a candidate."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        b, v = rng.standard_normal((5, 5)), rng.standard_normal(5)
        _, u, steepness = normalisable(RELU, b, v, 1.0)
        assert np.linalg.norm(u) == pytest.approx(1.0)
        assert (np.maximum(b @ u, 0) @ v) ** 2 == pytest.approx(steepness)
        corners = np.linalg.inv(b) / np.linalg.norm(np.linalg.inv(b), axis=0)
        many = rng.standard_normal((200_000, 5))
        rays = np.concatenate([corners.T, -corners.T, many / np.linalg.norm(many, axis=1, keepdims=True)])
        assert steepness >= np.max((np.maximum(rays @ b.T, 0) @ v) ** 2) * (1 - 1e-3)


@pytest.fixture(scope="module")
def condensed():
    rng = np.random.default_rng(20)
    x, t = rng.standard_normal((20, 20)), rng.standard_normal(20)
    y = np.sign(x @ t)
    return x, y, sampled_source(RELU, x, np.arange(20), y, 1.5, 50.0, seed=0, moves=500, threads=2)


def test_a_condensate_is_certified_and_seen_at_finite_width(condensed):
    """Networks of 200 neurons, within 4 standard errors and 8/N: Φ without the condensate is five times as far."""
    x, y, found = condensed
    assert found.status == CONVERGED, found.message
    assert found.info["condensed"] > 0.1
    assert normalisable(RELU, x / np.sqrt(20), found.v, 1.5)[2] < 1 + 1e-3
    np.testing.assert_allclose(found.outputs, y - found.v / 50.0, atol=2e-3)
    net = sample_posterior(
        x,
        np.arange(20),
        y,
        activation=RELU,
        width=200,
        gamma1=1.5,
        beta1=50.0,
        replicas=6,
        samples=200,
        burn=400,
        seed=3,
    ).source
    size = np.linalg.norm(found.kernel)
    allowed = 4 * np.linalg.norm(net.kernel_error) / size + 8 / 200
    assert np.linalg.norm(net.kernel - found.kernel) / size < allowed
    φ = np.maximum(found.neurons @ x.T / np.sqrt(20), 0)
    bulk = φ.T @ φ / len(φ)  # drawn neurons are those of the bulk
    assert np.linalg.norm(net.kernel - bulk) / size > 2 * allowed


def test_a_target_keeps_the_condensate_at_an_infinite_coupling(condensed):
    x, y, found = condensed
    same = sampled_target(RELU, x, np.arange(20), y, 1.0, 50.0, np.inf, found, seed=1)
    np.testing.assert_allclose(same.v, np.linalg.solve(found.kernel + np.eye(20) / 50, y))
    for directions, masses in found.condensates:
        φ = np.maximum(directions @ x.T / np.sqrt(20), 0)
        share = 1.5**2 * float(found.v @ ((φ.T * masses) @ φ) @ found.v) / found.info["square_saddle"]
        assert share == pytest.approx(found.info["condensed"], abs=0.1)


@pytest.mark.parametrize("seed", [3])
def test_more_noisy_points_than_dimensions_are_solved_on_the_edge(seed):
    """Three times as many labels as dimensions: either start leaves the domain of the other's states, and is cut."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((12, 4))
    y = x @ rng.standard_normal(4) / 2 + rng.standard_normal(12)
    found = sampled_source(RELU, x, np.arange(12), y, 1.0, 50.0, seed=1, chains=512, moves=150, doublings=0, threads=2)
    assert np.isfinite([found.gap, found.gap_floor]).all()
    assert found.info["condensed"] > 0.1
    assert found.info["spread_v"] < 0.02
    assert found.free_energy == pytest.approx(np.mean(found.info["free_energies"]))
    first, second = found.info["free_energies"]
    assert first == pytest.approx(second, abs=1e-2)
    assert normalisable(RELU, x / 2, found.v, 1.0)[2] < 1 + 1e-3
