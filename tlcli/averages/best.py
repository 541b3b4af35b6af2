"""The ridge of least averaged loss, of one kernel and every number of samples, label noise and time of its own."""

from dataclasses import replace

import numpy as np

from tlcli.arrays import Floats
from tlcli.averages.grid import AveragedLosses, GridAxes, error_of_mean

_LOWEST, _HIGHEST, _COUNT = 1e-6, 1e2, 25  # of the ridges tried, in units of the kernel's mean diagonal
_ENDLESS = 1e4  # where nothing is learnt any more, in the same


def tried(kernel: Floats, axes: GridAxes, *, free: bool = True, endless: bool = True) -> GridAxes:
    """Return the axes with the ridges of the mean loss among which the best of a kernel is sought.

    They are 0 (`free`), 25 in equal ratios over eight decades, and one so large that nothing is learnt (`endless`).
    Without ridge samples beyond the rank of the kernel have no average: then 0 is left out.
    """
    unit = float(np.mean(np.diagonal(kernel)))
    values = np.linalg.eigvalsh(kernel)
    rank = int(np.sum(values > len(values) * np.finfo(float).eps * values[-1]))
    line = np.geomspace(_LOWEST * unit, _HIGHEST * unit, _COUNT).tolist()
    ends = [0.0] if free and max(axes.sizes) < rank else [], [_ENDLESS * unit] if endless else []
    return replace(axes, ridges=(*ends[0], *line, *ends[1]), own_ridges=True)


def chosen(ridges: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """Return the weights of the ridges (n_p, n_ridges, ...) that give the least loss, and the ridge (n_p, ...).

    `losses` are means (n_p, n_ridges, ...) at the ascending `ridges` of `tried`. A parabola in log λ through the three
    best ridges has its minimum between them, where the loss is theirs with Lagrange's weights; there is none at the
    ends of the line, at 0 and at the ridge without end, which is told as infinite.
    """
    at = np.argmin(losses, axis=1)
    first = int(ridges[0] == 0)
    step = np.log(ridges[first + 1] / ridges[first])
    endless = bool(np.log(ridges[-1] / ridges[-2]) > 1.5 * step)
    inner = (at > first) & (at < len(ridges) - 1 - endless)
    middle = np.where(inner, at, first + 1)
    low, here, high = (np.take_along_axis(losses, (middle + k)[:, None], axis=1)[:, 0] for k in (-1, 0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        x = 0.5 * (low - high) / (low - 2 * here + high)
    x = np.where(inner & np.isfinite(x), x, 0.0)
    weights = np.zeros_like(losses)
    np.put_along_axis(weights, at[:, None], 1.0, axis=1)
    for k, part in ((-1, x * (x - 1) / 2), (0, 1 - x**2), (1, x * (x + 1) / 2)):
        old = np.take_along_axis(weights, (middle + k)[:, None], axis=1)
        np.put_along_axis(weights, (middle + k)[:, None], np.where(inner[:, None], part[:, None], old), axis=1)
    best = np.where(endless & (at == len(ridges) - 1), np.inf, ridges[at])
    return weights, np.where(inner, best * np.exp(x * step), best)


def at_best(found: AveragedLosses, weights: Floats, ridge: Floats, nothing: Floats | None = None) -> AveragedLosses:
    """Return losses on a line of ridges at the chosen ones: one ridge (n_p, 1, n_noises, n_times) is left.

    `weights`, `ridge` are those of `chosen`. Of a ridge without end the losses are `nothing` (N,), those of a readout
    that has learnt nothing, exactly: the largest ridge tried is finite, and subsets add their noise to it.
    """
    losses = np.sum(found.losses * weights[..., None], axis=1, keepdims=True)
    extra = np.sum(found.extra * np.abs(weights), axis=1, keepdims=True)  # ridges share what it comes from
    endless = np.isinf(ridge)
    if nothing is not None:
        losses = np.where(endless[:, None, ..., None], nothing, losses)
    by_subset = {}
    for i, each in found.by_subset.items():
        some = np.sum(each * weights[i], axis=1, keepdims=True)
        by_subset[i] = some if nothing is None else np.where(endless[i], nothing.mean(), some)
        extra[i] = error_of_mean(by_subset[i])
    extra = np.where(endless[:, None], 0.0, extra) if nothing is not None else extra
    used = np.any(weights != 0, axis=(2, 3))
    unsolved = np.any(found.unsolved & used, axis=1, keepdims=True)
    return AveragedLosses(losses, extra, found.direct, unsolved, by_subset)
