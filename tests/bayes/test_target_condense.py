"""Targets around a condensed source: atoms of unbounded weight, against faces, integrals and a brute force maximum."""

from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_ndtr

from tlcli.bayes.domain import steep_directions
from tlcli.bayes.saddle import CONVERGED
from tlcli.bayes.sampling.dual import project
from tlcli.bayes.sampling.fits import SampledSquares
from tlcli.bayes.sampling.pool import Pool
from tlcli.bayes.sampling.run import SourceStage
from tlcli.bayes.sampling.source import SampledSaddle
from tlcli.bayes.sampling.target import sampled_target
from tlcli.bayes.sampling.target_condense import Dragged
from tlcli.bayes.sampling.target_newton import dragged_newton
from tlcli.bayes.sampling.target_run import Tied, sample_target, with_lobes
from tlcli.bayes.sampling.tilt import Tilt
from tlcli.dmft.activations import activation

RELU = activation("relu")


def on_every_face(b, v, z, gamma, delta):
    """M and its maximiser by the closed form on every face of the kinks of s, (value, x)."""
    alpha, precision = delta / (1 + delta), 1 + delta
    found = [(-0.5 * precision * alpha**2 * float(z @ z), 0 * z)]
    for signs in product((-1, 0, 1), repeat=len(b)):
        sign = np.array(signs)
        on = sign == 0
        if on.sum() >= b.shape[1]:
            continue
        basis = np.linalg.qr(b[on].T)[0]
        slope = b.T @ (v * (sign > 0))
        slope = slope - basis @ (basis.T @ slope)
        k = 1 - gamma**2 * float(slope @ slope) / precision
        if k <= 0:
            continue
        s = alpha * float(slope @ z) / k
        x = alpha * (z - basis @ (basis.T @ z)) + gamma**2 * s / precision * slope
        if np.all(np.where(on, True, sign * (b @ x) >= -1e-12)):
            height = float(v @ np.maximum(b @ x, 0))
            found.append((0.5 * gamma**2 * height**2 - 0.5 * precision * float(np.sum((x - alpha * z) ** 2)), x))
    return max(found, key=lambda one: one[0])


def log_z(b, v, w, gamma, delta, nodes=4000):
    """log E exp(½γ²(v·relu(Bx))²) over x ~ N(αw, I/(1+δ)) in two dimensions: radius in closed form, angles by sums."""
    alpha, t = delta / (1 + delta), 2 * np.pi * np.arange(nodes) / nodes
    u = np.stack([np.cos(t), np.sin(t)], axis=1)
    c, p = 1 + delta - (gamma * (np.maximum(u @ b.T, 0) @ v)) ** 2, delta * (u @ w)
    m = p / np.sqrt(c)  # ∫ρ exp(pρ - ½cρ²)dρ = (1 + m√(2π)exp(½m²)Φ(m))/c, of which m < 0 cancels to 1/m² at most
    full = np.log(np.maximum(np.abs(m), 1e-300)) + 0.5 * np.log(2 * np.pi) + 0.5 * m**2 + log_ndtr(m)
    value = np.where(m > 0, np.logaddexp(0, full), np.log(np.maximum(-np.expm1(np.minimum(full, -1e-16)), 1e-16)))
    value = value - np.log(c)
    top = value.max()
    area = (1 + delta) / (2 * np.pi) * 2 * np.pi / nodes
    return float(top + np.log(np.exp(value - top).sum() * area) - 0.5 * (1 + delta) * alpha**2 * float(w @ w))


def problem(seed, rank=None, points=None, steepness=0.7):
    """B, v inside the domain, three directions, δ."""
    rng = np.random.default_rng(seed)
    rank, points = rank or int(rng.integers(2, 4)), points or int(rng.integers(3, 7))
    b, v, z = rng.standard_normal((points, rank)), rng.standard_normal(points), rng.standard_normal((3, rank))
    z *= np.sqrt(rank) / np.linalg.norm(z, axis=1)[:, None]
    delta = (0.2, 1.0, 5.0)[seed % 3]
    steep = steep_directions(RELU, b, v, 1.0)[1][0]
    return b, v * np.sqrt(steepness * (1 + delta) / steep), z, delta


@pytest.mark.parametrize("seed", range(8))
def test_maximisers_are_those_of_all_faces_and_their_slopes_of_differences(seed):
    b, v, z, delta = problem(seed)
    dragged = Dragged(RELU, b, z, np.array([1.0, 0.5, 0.2]), 1.0, 1 + delta)
    pieces = dragged.pieces(v)
    direction = np.random.default_rng(seed).standard_normal(len(v))
    direction *= 1e-4 / np.linalg.norm(direction)
    for k in range(3):
        low, here, high = (on_every_face(b, v + c * direction, z[k], 1.0, delta)[0] for c in (-1, 0, 1))
        assert dragged.tops(pieces)[k] == pytest.approx(here, rel=1e-9, abs=1e-9)
        j = max(np.flatnonzero(pieces.owner == k), key=lambda i: pieces.value[i])
        slope = pieces.s[j] * pieces.features[j]
        assert slope @ direction == pytest.approx((high - low) / 2, abs=1e-6 * (1e-4 + np.abs(slope).max()))
        bend = dragged.bend(pieces.x[j], float(pieces.s[j]), pieces.features[j], v)
        assert direction @ bend @ direction == pytest.approx(high - 2 * here + low, rel=2e-3, abs=1e-11)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_long_neuron_has_the_exponent_of_its_atom(seed):
    """log Z(v|Lẑ) = L²M(v) + O(log L); M of another coupling is seen."""
    b, v, z, delta = problem(seed, rank=2)
    dragged = Dragged(RELU, b, z, np.ones(3), 1.0, 1 + delta)
    top = dragged.tops(dragged.pieces(v))
    found = np.array([log_z(b, v, 100 * one, 1.0, delta) for one in z]) / 1e4
    assert np.abs(found - top).max() < 3 * np.log(100) / 1e4
    other = Dragged(RELU, b, z, np.ones(3), 1.0, 1 + 1.5 * delta)
    assert np.abs(other.tops(other.pieces(v)) - top).max() > 6 * np.log(100) / 1e4


def exact_dual(b, y, beta, delta, neurons, z, mass):
    """Less the dual of a target in two dimensions tied to `neurons` and atoms, a function of v; γ = 1."""
    angle = np.linspace(0, 2 * np.pi, 2000)
    around = np.maximum(np.stack([np.cos(angle), np.sin(angle)], axis=1) @ b.T, 0)

    def loss(v):
        if np.max((around @ v) ** 2) > 0.995 * (1 + delta):
            return 1e3 + float(v @ v)
        bulk = np.mean([log_z(b, v, w, 1.0, delta, nodes=200) for w in neurons])
        atoms = sum(m * on_every_face(b, v, one, 1.0, delta)[0] for one, m in zip(z, mass, strict=True))
        return -(v @ y - v @ v / (2 * beta)) + bulk + atoms

    return loss


def split_problem(seed):
    """The solved dual of prior neurons and two atoms, γ = δ = 1: Solved, Split, gradient of the bulk, Dragged, B, ẑ."""
    rng = np.random.default_rng(seed)
    b, z, y = rng.standard_normal((6, 3)), rng.standard_normal((2, 3)), np.sign(rng.standard_normal(6))
    z *= np.sqrt(3) / np.linalg.norm(z, axis=1)[:, None]
    dragged = Dragged(RELU, b, z, np.array([2.0, 1.0]), 1.0, 2.0)
    tilt = Tilt(RELU, (b / np.sqrt(2)).astype(np.float32), np.zeros((1, 6), dtype=np.float32))
    pool = Pool(rng.standard_normal((4, 4000, 3), dtype=np.float32), np.zeros((4, 4000)))
    found, split = dragged_newton(tilt, pool, np.zeros(6), SampledSquares(y, 2.0), 1.0, 1, dragged)
    for _ in range(12):  # each call keeps a part of the states that count at its start
        before = found.v
        found, split = dragged_newton(tilt, pool, before, SampledSquares(y, 2.0), 1.0, 1, dragged)
        if np.linalg.norm(found.v - before) < 1e-6:
            break
    return found, split, y - found.v / 2 - found.moments.kernel @ found.v, dragged, b, z


@pytest.mark.parametrize("seed", [3, 5, 8, 13])
def test_where_maximisers_tie_the_mass_splits_and_the_dual_is_at_its_maximum(seed):
    """Stationary with no cost: the dual is concave, so that no other v is better. Unsplit masses leave a residual."""
    found, split, bulk, dragged, b, z = split_problem(seed)
    np.testing.assert_allclose(np.bincount(split.owner, split.mass), [2.0, 1.0])
    assert len(split.mass) > 2
    assert np.linalg.norm(bulk - split.kernel @ found.v) < 1e-5
    assert split.cost < 1e-8
    pieces = dragged.pieces(found.v)
    for k in range(2):  # no higher maximiser has been missed
        assert dragged.tops(pieces)[k] == pytest.approx(on_every_face(b, found.v, z[k], 1.0, 1.0)[0], rel=1e-7)
    whole = dragged.split(pieces, dragged.first(pieces))
    assert np.linalg.norm(bulk - whole.kernel @ found.v) > 5e-3


def chains_of_long_neurons(seed, jumps):
    """E s² of 60 source neurons of length 10 to 30 among 1200, sampled and exact, (60,) each; δ = 5, γ = 1."""
    b, v, _, delta = problem(seed, rank=2, points=5, steepness=0.9)
    rng = np.random.default_rng(seed)
    w, angle = np.zeros((1200, 2)), rng.uniform(0, 2 * np.pi, 60)
    w[:60] = rng.uniform(10, 30, 60)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    alpha, precision = delta / (1 + delta), 1 + delta
    offset = (alpha * w @ b.T).astype(np.float32)
    fit = SampledSquares(np.ones(5), 10.0)
    stage = SourceStage(Tilt(RELU, (b / np.sqrt(precision)).astype(np.float32), offset), fit, 1.0, odd=False)
    alone = SourceStage(Tilt(RELU, b.astype(np.float32)), fit, 1.0, odd=False)
    dragged = Dragged(RELU, b, w[:1], np.ones(1), 1.0, precision) if jumps else None
    run = with_lobes(Tied(stage, alpha * w, alpha * w, dragged), alone, precision, v, 6.0, rng)
    sample_target(run, 50)
    pool = sample_target(run, 200, frozen=True)
    sampled = np.mean(project(stage.tilt, pool, v, 1200)[:, :60] ** 2, axis=0)
    step = 1e-4  # ∂log Z/∂γ = γE s²
    exact = [(log_z(b, v, one, 1 + step, delta) - log_z(b, v, one, 1 - step, delta)) / (2 * step) for one in w[:60]]
    return sampled, np.array(exact)


@pytest.mark.parametrize("seed", [2, 5, 8])
def test_chains_of_long_neurons_have_their_shares_in_every_lobe(seed):
    """Within four standard errors over neurons, and 5 % of the mean each; chains that cannot jump stay where they
    began."""
    sampled, exact = chains_of_long_neurons(seed, jumps=True)
    off = (sampled - exact) / exact.mean()
    assert abs(off.mean()) < 4 * off.std(ddof=1) / np.sqrt(60)
    assert np.abs(off).max() < 0.05
    sampled, exact = chains_of_long_neurons(seed, jumps=False)
    assert np.abs(sampled - exact).max() > 0.25 * exact.mean()


def test_a_target_around_atoms_is_the_maximum_of_the_exact_dual():
    """Within 5e-4 nats and 2 % of |v|; the maximum without the atoms is a hundred times as far."""
    rng = np.random.default_rng(1)
    x, y, delta, beta = rng.standard_normal((3, 2)), np.array([1.0, -1.0, 1.0]), 2.0, 20.0
    b, neurons, z = x / np.sqrt(2), rng.standard_normal((8, 2)), rng.standard_normal((2, 2))
    z *= np.sqrt(2) / np.linalg.norm(z, axis=1)[:, None]
    mass = np.array([1.0, 0.5])
    source = SampledSaddle(
        *(np.zeros(3), np.zeros(3), np.zeros((3, 3)), 0.0, 0.0, 0.0, CONVERGED),
        neurons=np.tile(neurons, (64, 1)),
        condensates=((z, mass), (z, mass)),
    )
    found = sampled_target(RELU, x, np.arange(3), y, 1.0, beta, delta, source, seed=1, moves=60, doublings=0)
    loss = exact_dual(b, y, beta, delta, neurons, z, mass)
    options = {"xatol": 1e-4, "fatol": 1e-7, "maxiter": 100}
    best = minimize(loss, 0.9 * found.v, method="Nelder-Mead", options=options)
    assert found.status == CONVERGED
    assert loss(found.v) - best.fun < 5e-4
    assert np.linalg.norm(found.v - best.x) < 0.02 * np.linalg.norm(best.x)
    assert found.free_energy == pytest.approx(-best.fun, abs=0.02)
    bare = minimize(exact_dual(b, y, beta, delta, neurons, z, 0 * mass), found.v, method="Nelder-Mead", options=options)
    assert loss(bare.x) - best.fun > 0.05
    assert abs(bare.fun - best.fun) > 0.05
