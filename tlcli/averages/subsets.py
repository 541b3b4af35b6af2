"""The direct average: regression on subsets of the pool, tested on the rest of it."""

import itertools
import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import get_lapack_funcs

from tlcli.arrays import Floats, Indices
from tlcli.averages.homogeneous import check_sizes, checked_pool
from tlcli.dmft.regression import FrozenKernel

_potrf, _pocon, _potrs = get_lapack_funcs(("potrf", "pocon", "potrs"))
_FACTORED = 8  # ridges at most that are factored one by one: an eigendecomposition costs as much as more of them
_FIRM = 1e-8  # reciprocal condition number, beyond which no direction is null and both ways agree to rounding


def chosen_subsets(size: int, p: int, count: int, rng: np.random.Generator) -> Indices:
    """Return `count` random subsets (n, P) of a pool, or every one where there are no more."""
    if math.comb(size, p) <= count:
        return np.array(list(itertools.combinations(range(size), p)), dtype=np.intp)
    return np.array([rng.choice(size, p, replace=False) for _ in range(count)], dtype=np.intp)


def subset_losses(
    kernel: Floats,
    labels: Floats,
    subsets: Indices,
    *,
    ridges: ArrayLike = 0.0,
    noises: ArrayLike = 0.0,
    times: ArrayLike = np.inf,
    rng: np.random.Generator | None = None,
) -> Floats:
    """Return the test losses (n_subsets, n_ridges, n_noises, n_times) on the points outside every subset.

    Noise of the standard deviations `noises` σ is added to the training labels, the same up to σ, drawn from `rng`.
    Raises DomainError for what is no kernel or ridge.
    """
    kernel, labels = checked_pool(kernel, labels)
    ridges, noises, times = (np.atleast_1d(np.asarray(x, dtype=float)) for x in (ridges, noises, times))
    check_sizes(np.asarray(float(subsets.shape[1])), ridges, len(labels), len(labels) + 1)
    out = np.empty((len(subsets), ridges.size, noises.size, times.size))
    noisy = rng is not None and bool(noises.any())
    factored = ridges.size <= _FACTORED and bool(np.isposinf(times).all()) and _is_positive(kernel)
    for row, chosen in enumerate(subsets):
        cross = kernel[chosen]
        targets = np.array([labels[chosen], *([rng.standard_normal(len(chosen))] if rng is not None and noisy else [])])
        weights = _at_rest(cross[:, chosen], targets, ridges) if factored else None
        if weights is None:
            weights = _in_time(cross[:, chosen], targets, ridges, times)
        rest = np.ones(len(labels), dtype=bool)
        rest[chosen] = False
        known, *unknown = weights @ cross[:, rest]
        for at, noise in enumerate(noises):
            error = known - labels[rest] + (noise * unknown[0] if unknown else 0.0)
            out[row, :, at] = np.mean(error**2, axis=1).reshape(ridges.size, -1)
    return out


def _is_positive(kernel: Floats) -> bool:
    """Whether the kernel of the pool, and so that of every subset, is positive semidefinite up to rounding."""
    rounding = len(kernel) * np.finfo(float).eps * float(np.max(np.diag(kernel)))
    return _potrf(kernel + rounding * np.eye(len(kernel)))[1] == 0


def _at_rest(kernel: Floats, targets: Floats, ridges: Floats) -> Floats | None:
    """Return the weights (n_targets, n_ridges, P) of regression at rest, or None where rounding might show in them."""
    out = np.empty((len(targets), len(ridges), len(kernel)))
    for at, ridge in enumerate(ridges):
        ridged = kernel.copy()
        ridged.flat[:: len(kernel) + 1] += len(kernel) * ridge
        factor, failed = _potrf(ridged, lower=1, clean=0)
        if failed or not _pocon(factor, np.abs(ridged).sum(axis=0).max(), uplo="L")[0] > _FIRM:
            return None
        out[:, at] = _potrs(factor, targets.T, lower=1)[0].T
    return out


def _in_time(kernel: Floats, targets: Floats, ridges: Floats, times: Floats) -> Floats:
    """Return the weights (n_targets, n_ridges * n_times, P) of gradient flow, by the kernel's eigenvectors."""
    frozen = FrozenKernel(kernel)
    weights = np.concatenate([frozen.weights(ridge=ridge, time=times) for ridge in ridges])
    return (weights * (targets @ frozen.eigenvectors)[:, None]) @ frozen.eigenvectors.T
