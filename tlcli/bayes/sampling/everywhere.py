"""From a pool in the row space of the training inputs to all points: kernels, predictor, and equal-weight neurons."""

import numpy as np

from tlcli.arrays import Floats, Indices, Singles
from tlcli.bayes.sampling.dual import project, weights_of
from tlcli.bayes.sampling.pool import Pool
from tlcli.bayes.sampling.tilt import Tilt

_BLOCK = 4_000_000  # numbers in one table of features


def row_space(x: Floats, at: Indices) -> Floats:
    """Return an orthonormal basis (D, r) of the rows `at` of x (n, D)."""
    _, size, right = np.linalg.svd(x[at], full_matrices=False)
    return right[: int(np.sum(size > 1e-10 * max(size.max(initial=0.0), np.finfo(float).tiny)))].T


def outside(x: Floats, basis: Floats) -> Floats:
    """Return coordinates (n, k) of the parts of x (n, D) outside `basis` (D, r), over √D, in a basis of their own.

    Parts below 1e-10 of the norm of a point are round-off and set to zero.
    """
    scaled = x / np.sqrt(x.shape[1])
    rest = scaled - (scaled @ basis) @ basis.T
    rest[np.linalg.norm(rest, axis=1) <= 1e-10 * np.linalg.norm(scaled, axis=1)] = 0.0
    left, size, _ = np.linalg.svd(rest, full_matrices=False)
    kept = size > 1e-12 * max(float(size.max(initial=0.0)), 1e-300)
    return left[:, kept] * size[kept]


def kernel_everywhere(
    tilt: Tilt,
    z: Singles,
    weights: Floats,
    rest: Floats,
    rng: np.random.Generator,
    centre: Floats | None = None,
    stretch: Floats | None = None,
) -> Floats:
    """Return E φ(h)φ(h)ᵀ between all points, (n, n).

    Args:
        tilt: preactivations of all points: b is (n, r).
        z: states (m, r). weights: (m,), summing to 1.
        rest: coordinates (n, k) of the parts outside the row space: there a weight is a base Gaussian given the
            state, and one is drawn per state.
        rng: generator of these draws.
        centre: preactivations (m, n) to add (a target's αw̄·x/√D), or None.
        stretch: ρ² (m,) of a tilt on the sphere. E|z|²F(|z|) is E|z|² times the mean of F over the size-biased radius,
            χ²_{r+2}ρ²: for a homogeneous φ the part outside over that radius leaves the points inside exact.
    """
    if stretch is not None:
        weights = weights * stretch
    used = np.flatnonzero(weights > 1e-9 * weights.max() / np.sqrt(len(weights)))
    points = len(tilt.b)
    kernel = np.zeros((points, points))
    size = max(256, _BLOCK // points)
    away = rest.astype(np.float32)
    for start in range(0, len(used), size):
        rows = used[start : start + size]
        h = tilt.preactivations(z[rows], None)
        if away.size:
            drawn = rng.standard_normal((len(rows), away.shape[1]), dtype=np.float32)
            if stretch is not None:
                radius = rng.chisquare(tilt.rank + 2, len(rows)) * stretch[rows] / tilt.rank
                drawn /= np.sqrt(radius).astype(np.float32)[:, None]
            h += drawn @ away.T
        if centre is not None:
            h += centre[rows].astype(np.float32)
        φ = np.asarray(tilt.act.phi(h), dtype=np.float32)
        φ *= np.sqrt(weights[rows] * len(weights)).astype(np.float32)[:, None]
        kernel += φ.T @ φ
    return kernel / len(weights)


def neurons_of(
    tilt: Tilt, pool: Pool, v: Floats, gamma: float, basis: Floats, count: int, rng: np.random.Generator
) -> Floats:
    """Return `count` equally weighted draws w (count, D) from a source's measure of v (P,), by its pool."""
    u = gamma * project(tilt, pool, v, 1)
    weights, _, _ = weights_of(tilt, u, pool, 1)
    z = pool.z.reshape(-1, tilt.rank)
    if tilt.sphere:
        z = tilt.with_radius(z, tilt.stretch(u.ravel())[0], rng)
    return draw_neurons(z, weights.ravel(), u.ravel(), basis, count, rng)


def draw_neurons(
    z: Singles, weights: Floats, order: Floats, basis: Floats, count: int, rng: np.random.Generator
) -> Floats:
    """Return `count` equally weighted weights w (count, D) from weighted states z (m, r).

    Systematic draws along `order` (m,), the values of s: the shares of the lobes are then exact to 1/count. The part
    outside the row space is base Gaussian.
    """
    by = np.argsort(order)
    edges = np.cumsum(weights[by])
    at = (rng.random() + np.arange(count)) / count * edges[-1]
    chosen = z[by[np.minimum(np.searchsorted(edges, at), len(by) - 1)]].astype(float)
    full = rng.standard_normal((count, len(basis)))
    return full + (chosen - full @ basis) @ basis.T
