"""Fewer nodes for the kernels between all points: the weights of a fine rule moved onto tiles of Chebyshev points.

A measure that is narrow needs a fine rule, its features do not: an analytic g is interpolated from a few points of
each tile, g(z) = Σ_k ℓ_k(z) g(z_k), so that E g = Σ_k g(z_k) E ℓ_k as well as the interpolation holds. The weights
E ℓ_k keep their sum, but some are negative.
"""

import numpy as np

from tlcli.arrays import Floats

# Tiles are _LENGTH/|b| wide, |b| the steepest direction. φ(b·z) of tanh, whose poles at ±iπ/2 are the nearest of all
# activations, is then interpolated to about 3.4**-_POINTS = 2e-11 along each axis.
_LENGTH = 2.0
_POINTS = 20
_NEGLIGIBLE = 1e-18  # of the sum of weights


def condensed(z: Floats, p: Floats, steepest: float) -> tuple[Floats, Floats]:
    """Return nodes (K, r) and weights (K,) that replace `z` (M, r), `p` (M,) for features φ(b·z), |b| <= `steepest`.

    r is 1 or 2; a tile keeps its own nodes where they are fewer than its Chebyshev points.
    """
    kept = p > _NEGLIGIBLE * p.sum()
    z, p, rank = z[kept], p[kept], z.shape[1]
    many = _POINTS**rank
    if rank == 0 or len(p) <= many:
        return z, p
    width = _LENGTH / max(steepest, 1e-3)
    place = np.floor(z / width).astype(np.int64)
    number = place[:, 0] * (2**32) + (place[:, 1] if rank == 2 else 0)
    order = np.argsort(number, kind="stable")
    z, p, place = z[order], p[order], place[order]
    starts = np.flatnonzero(np.append(True, np.diff(number[order]) != 0))
    nodes, weights = [], []
    for first, last in zip(starts, np.append(starts[1:], len(p)), strict=True):
        if last - first <= many:
            nodes.append(z[first:last])
            weights.append(p[first:last])
            continue
        inside = z[first:last] / width - place[first]  # in [0, 1)
        along = [_lagrange(2 * inside[:, k] - 1) for k in range(rank)]
        weights.append(((along[0] * p[first:last]) @ along[1].T).ravel() if rank == 2 else along[0] @ p[first:last])
        grid = np.meshgrid(*[0.5 * (1 + _X)] * rank, indexing="ij")
        nodes.append(width * (place[first] + np.stack([g.ravel() for g in grid], axis=1)))
    return np.concatenate(nodes), np.concatenate(weights)


_ANGLE = (np.arange(_POINTS) + 0.5) * np.pi / _POINTS
_X, _SIGN = np.cos(_ANGLE), (-1.0) ** np.arange(_POINTS) * np.sin(_ANGLE)


def _lagrange(t: Floats) -> Floats:
    """Lagrange functions of the Chebyshev points at t (n,) in [-1, 1], (_POINTS, n), by the barycentric formula."""
    gap = t - _X[:, None]
    exact = gap == 0
    share = _SIGN[:, None] / np.where(exact, 1.0, gap)
    share = np.where(exact.any(axis=0), exact, share)
    return share / share.sum(axis=0)
