"""The direct average: regression on subsets of the pool, tested on the rest of it."""

import itertools
import math

import numpy as np
from numpy.typing import ArrayLike

from tlcli.arrays import Floats, Indices
from tlcli.averages.homogeneous import check_sizes, checked_pool
from tlcli.dmft.regression import FrozenKernel


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
    for row, chosen in enumerate(subsets):
        cross = kernel[chosen]
        frozen = FrozenKernel(cross[:, chosen])
        targets = [labels[chosen], *([rng.standard_normal(len(chosen))] if rng is not None and noisy else [])]
        weights = np.concatenate([frozen.weights(ridge=ridge, time=times) for ridge in ridges])
        parts = [(weights * (y @ frozen.eigenvectors)) @ (frozen.eigenvectors.T @ cross) for y in targets]
        rest = np.ones(len(labels), dtype=bool)
        rest[chosen] = False
        known, *unknown = (part[:, rest] for part in parts)
        for at, noise in enumerate(noises):
            error = known - labels[rest] + (noise * unknown[0] if unknown else 0.0)
            out[row, :, at] = np.mean(error**2, axis=1).reshape(ridges.size, times.size)
    return out
