"""Direct averages of any loss: readouts on subsets of the pool, judged on the rest of it by their loss and error.

There are no equations for these losses yet (nonlinear features have no scalar order parameters): what is known is the
mean over subsets, which every method of averaging then is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tlcli.arrays import Flags, Floats, Indices
from tlcli.averages.grid import AveragedLosses, GridAxes, error_of_mean
from tlcli.averages.subsets import chosen_subsets
from tlcli.dmft.loss_regression import loss_regression
from tlcli.losses.base import Loss
from tlcli.losses.labels import encode, objective_of
from tlcli.losses.scores import point_errors, point_losses

SUBSETS = 40
FEW = 8  # of them, for the change of the mean with the neurons
MEASURES = ("loss", "error")
_TASK = "the target task"  # in messages


@dataclass(frozen=True, eq=False)
class PoolTask:
    """Labels of a pool as its task gives them (N,) or (N, C), their number of classes, and the loss to train by.

    `flips`: noise is the share of training labels that become another class, not a standard deviation.
    """

    loss: Loss
    labels: Floats
    classes: int | None
    weights: str | None = None
    flips: bool = False

    @property
    def measures(self) -> tuple[str, ...]:
        """What a readout is judged by: without classes there is no error."""
        return MEASURES if self.classes is not None else MEASURES[:1]

    def at(self, rows: Indices) -> "PoolTask":
        """Return the problem on some points of the pool."""
        return replace(self, labels=self.labels[rows])


def averaged_scores(
    kernel: Floats, problem: PoolTask, axes: GridAxes, rng: np.random.Generator
) -> list[AveragedLosses]:
    """Return the averages of every measure on a pool of kernel (N, N); all sizes are direct.

    Raises DomainError, ConvergenceError as `tlcli.dmft.loss_regression.loss_regression`.
    """
    count, pool = len(problem.measures), len(kernel)
    losses, extra = np.empty((count, *axes.shape, pool)), np.empty((count, *axes.shape))
    by_subset = [dict[int, Floats]() for _ in range(count)]
    for i, size in enumerate(axes.sizes):
        total, seen, each = np.zeros(losses[:, i].shape), np.zeros(pool), []
        for found, rest in _scores(kernel, problem, axes, size, SUBSETS, rng):
            total += found * rest
            seen += rest
            each.append(found[..., rest].mean(axis=-1))
        means = np.array(each).swapaxes(0, 1)
        mean = means.mean(axis=1)
        # A point that was in every subset has no loss of its own: it is given the mean.
        points = np.where(seen > 0, total / np.maximum(seen, 1), mean[..., None])
        losses[:, i] = points + (mean - points.mean(axis=-1))[..., None]
        for m in range(count):
            by_subset[m][i], extra[m, i] = means[m], error_of_mean(means[m])
    direct, unsolved = np.ones(len(axes.sizes), dtype=bool), np.zeros(axes.shape[:2], dtype=bool)
    return [AveragedLosses(losses[m], extra[m], direct, unsolved, by_subset[m]) for m in range(count)]


def few_scores(kernel: Floats, problem: PoolTask, axes: GridAxes, seed: Sequence[int]) -> Floats:
    """Return means of every measure (n_measures, ...) over few subsets, the same for every kernel on the pool."""
    rng, rows = np.random.default_rng(seed), []
    for size in axes.sizes:
        parts = [found[..., rest].mean(axis=-1) for found, rest in _scores(kernel, problem, axes, size, FEW, rng)]
        rows.append(np.mean(parts, axis=0))
    return np.stack(rows, axis=1)


def _scores(
    kernel: Floats, problem: PoolTask, axes: GridAxes, size: int, count: int, rng: np.random.Generator
) -> Iterator[tuple[Floats, Flags]]:
    """Yield for every subset the measures at all points (n_measures, n_ridges, n_noises, n_times, N), and its rest."""
    ridges, times = axes.of(size)
    wanted = encode(problem.loss, problem.labels, problem.classes, _TASK)
    for chosen in chosen_subsets(len(kernel), size, count, rng):
        rest = np.ones(len(kernel), dtype=bool)
        rest[chosen] = False
        # The same random numbers for every share or size of the noise.
        lots, other = rng.random(size), rng.integers(1, max(problem.classes or 2, 2), size)
        dots = rng.standard_normal(problem.labels[chosen].shape)
        out = np.empty((len(problem.measures), *axes.shape[1:], len(kernel)))
        for n, noise in enumerate(axes.noises):
            labels = problem.labels[chosen]
            labels = _flipped(labels, lots < noise, other, problem.classes) if problem.flips else labels + noise * dots
            objective = objective_of(problem.loss, labels, problem.classes, _TASK, problem.weights)
            for k, ridge in enumerate(ridges):
                block, cross = kernel[np.ix_(chosen, chosen)], kernel[:, chosen]
                f = loss_regression(block, cross, objective, ridge=float(ridge), time=times)
                out[0, k, n] = point_losses(problem.loss, f, wanted)
                if len(out) > 1:
                    out[1, k, n] = point_errors(f, wanted)
        yield out, rest


def _flipped(labels: Floats, chosen: Flags, other: Indices, classes: int | None) -> Floats:
    """Return labels (P,) of which the chosen ones are another class."""
    if classes is None or not chosen.any():
        return labels
    return np.where(chosen, -labels if classes == 2 else (labels + other) % classes, labels)
