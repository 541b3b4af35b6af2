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
    noise: float = 0.0,
    times: ArrayLike = np.inf,
    rng: np.random.Generator | None = None,
) -> Floats:
    """Return the test losses (n_subsets, n_ridges, n_times) on the points of the pool outside every subset.

    `noise` σ is added to the training labels, drawn from `rng`. Raises DomainError for what is no kernel or ridge.
    """
    kernel, labels = checked_pool(kernel, labels)
    ridges, times = (np.atleast_1d(np.asarray(x, dtype=float)) for x in (ridges, times))
    check_sizes(np.asarray(float(subsets.shape[1])), ridges, len(labels), len(labels) + 1)
    out = np.empty((len(subsets), ridges.size, times.size))
    for row, chosen in enumerate(subsets):
        rest = np.setdiff1d(np.arange(len(labels)), chosen)
        frozen = FrozenKernel(kernel[np.ix_(chosen, chosen)])
        y = labels[chosen]
        if noise and rng is not None:
            y = y + noise * rng.standard_normal(len(chosen))
        cross = kernel[np.ix_(rest, chosen)]
        for at, ridge in enumerate(ridges):
            out[row, at] = np.mean((frozen.predict(cross, y, ridge=ridge, time=times) - labels[rest]) ** 2, axis=1)
    return out
