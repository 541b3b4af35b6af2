"""Averaged losses of one kernel over samples, ridges, label noise and times, by the method that fits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tlcli.arrays import Flags, Floats, Indices
from tlcli.averages.homogeneous import Homogeneous
from tlcli.averages.pointwise import Pointwise
from tlcli.averages.subsets import chosen_subsets, subset_losses
from tlcli.errors import check_choice

METHODS = ("auto", "pointwise", "homogeneous", "subsets")
FEW = 20  # samples, up to which the resolvent itself varies from draw to draw: direct averages are better and cheap
SUBSETS = 200
_SOLVED_SIZES, _SOLVED_RIDGES = 8, 12  # of longer lists, between which pointwise over homogeneous is interpolated
_SOLVED_TO = 1e-4  # of log D
_ROUNDING = 1e-9  # relative, of a loss that no subset changes
_CHECKED = 300  # subsets of the self-check, of all its sizes together
_FIRST = 8  # of one size, drawn before those of small samples, whose stream the others leave as it is
_WRONG, _WRONG_SHARE = 3.0, 0.05  # standard errors and share of the loss, beyond both of which it fails


@dataclass(frozen=True, eq=False)
class AveragedLosses:
    """Losses at every point of the pool, and how they were found.

    `losses` is (n_p, n_ridges, n_noises, n_times, N): their mean over the last axis is the averaged loss. `extra` of
    the shape before that: the standard error from the number of subsets (0 for the equations). `direct` (n_p,) says
    which sizes are averages over subsets, whose losses `by_subset` holds, (n_subsets, n_ridges, n_noises, n_times) by
    the index of the size; `unsolved` (n_p, n_ridges) where the pool is too small for its heavy points.
    """

    losses: Floats
    extra: Floats
    direct: Flags
    unsolved: Flags
    by_subset: dict[int, Floats]


@dataclass(frozen=True)
class GridAxes:
    """What one kernel is asked for: numbers of samples, ridges of the mean loss, label noise, times (inf: at rest)."""

    sizes: Sequence[int]
    ridges: Sequence[float]
    noises: Sequence[float] = (0.0,)
    times: Sequence[float] = (np.inf,)
    summed: bool = False  # ridges and times belong to the loss summed over samples
    own_ridges: bool = False  # ridges are those of the mean loss all the same

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths."""
        return len(self.sizes), len(self.ridges), len(self.noises), len(self.times)

    def of(self, p: int) -> tuple[Floats, Floats]:
        """Return ridges and times in units of the mean loss over `p` samples."""
        scale = p if self.summed else 1
        ridges = np.asarray(self.ridges, dtype=float) / (1 if self.own_ridges else scale)
        return ridges, np.asarray(self.times, dtype=float) * scale

    @property
    def ridge_table(self) -> Floats:
        """Return the ridges of the mean loss (n_p, n_ridges)."""
        return np.array([self.of(int(p))[0] for p in self.sizes])


def averaged(kernel: Floats, labels: Floats, axes: GridAxes, method: str, rng: np.random.Generator) -> AveragedLosses:
    """Return the losses of a kernel (N, N) on a pool with noise-free labels (N,), averaged over its samples.

    `auto` takes subsets up to 20 samples. Beyond, 300 of them at three sizes correct the pointwise theory where they
    differ firmly, and stand in for it where they still disagree by more than three standard errors and 5 %, or
    where it has no solution.

    Raises:
        UsageError: an unknown method. DomainError: sizes or ridges beyond what the pool can stand for.
    """
    check_choice("average", method, METHODS)
    homogeneous = Homogeneous(kernel, labels)
    sizes = np.asarray(axes.sizes)
    losses, unsolved = np.empty((*axes.shape, len(labels))), np.zeros(axes.shape[:2], dtype=bool)
    extra = np.zeros(axes.shape)
    direct = (sizes <= FEW) if method == "auto" else np.full(len(sizes), method == "subsets")
    rest = np.flatnonzero(~direct)
    if rest.size:
        part = replace(axes, sizes=tuple(sizes[rest].tolist()))
        found = _homogeneous(homogeneous, part)
        if method in ("auto", "pointwise"):
            ratio, unsolved[rest] = _ratios(Pointwise(kernel, labels, homogeneous), part, found)
            found = found * ratio
        losses[rest] = found
        if method == "auto":
            shift, error, direct[rest] = _judged(kernel, labels, part, found.mean(axis=-1), rng)
            losses[rest] = found * np.exp(shift)[..., None]
            extra[rest] = error * losses[rest].mean(axis=-1)
            direct[rest] |= unsolved[rest].any(axis=1)
    by_subset = {}
    for i in np.flatnonzero(direct).tolist():
        by_subset[i] = each = _direct(kernel, labels, axes, int(sizes[i]), SUBSETS, rng)
        share = _shares(homogeneous, axes.of(int(sizes[i]))[0], int(sizes[i]))
        losses[i] = each.mean(axis=0)[..., None] * share[:, None, None]
        extra[i] = error_of_mean(each)
        unsolved[i] = False
    return AveragedLosses(losses, extra, direct, unsolved, by_subset)


def error_of_mean(found: Floats) -> Floats:
    """Return the standard error of the mean over the first axis."""
    return found.std(axis=0, ddof=1) / np.sqrt(len(found))


def _shares(pool: Homogeneous, ridges: Floats, p: int) -> Floats:
    """Return how the loss at every ridge is spread over the pool (n_ridges, N), by its leave-one-out residuals."""
    least = 1e-12 * pool.values[-1]  # without any, more samples than the kernel's rank have no pool ridge
    return pool.loss_at_points(p, np.maximum(ridges, least))[1]


def _homogeneous(pool: Homogeneous, axes: GridAxes) -> Floats:
    """Return the homogeneous losses at every point of the pool: its leave-one-out residuals carry the mean."""
    sizes, ridges = np.asarray(axes.sizes, dtype=float)[:, None], axes.ridge_table
    delta = pool.effective_ridge(sizes, ridges)
    share = pool.loss_at_points(sizes, ridges, delta=delta)[1]
    means = np.empty(axes.shape)
    for n, noise in enumerate(axes.noises):
        static = pool.loss_at_points(sizes, ridges, noise, delta)[0].loss
        for t, time in enumerate(axes.times):
            if np.isinf(time):
                means[:, :, n, t] = static
            elif time == 0:
                means[:, :, n, t] = np.mean(pool.labels**2)
            else:
                for i, p in enumerate(axes.sizes):
                    late = axes.of(int(p))[1][t]
                    means[i, :, n, t] = [pool.stopped(p, late, ridge, noise)[0][0] for ridge in ridges[i]]
    return means[..., None] * share[:, :, None, None]


def _ratios(points: Pointwise, axes: GridAxes, plain: Floats) -> tuple[Floats, Flags]:
    """Return pointwise over homogeneous at every point of the pool, at rest, and where there is none.

    Of many sizes and ridges some are solved, and the logarithm of the ratio of the means is interpolated in theirs. At
    finite times the ratio is that at rest, as it must be at late ones; at early ones there is little to correct.
    """
    sizes, table = np.asarray(axes.sizes, dtype=float), axes.ridge_table
    rows, columns = spread(sizes, _SOLVED_SIZES), spread(np.asarray(axes.ridges, dtype=float), _SOLVED_RIDGES)
    ridges = table[np.ix_(rows, columns)]
    delta = points.homogeneous.effective_ridge(sizes[rows, None], ridges)
    failed, means = np.zeros(ridges.shape, dtype=bool), np.empty((*ridges.shape, len(axes.noises)))
    for k in range(len(columns)):
        bent: float | Floats = 1.0  # individual ridges over the common one: what neighbouring sizes share
        for i, at in enumerate(rows):
            common = len(points.labels) * delta[i, k]
            found = points.solve(
                float(sizes[at]), float(ridges[i, k]), np.full(len(points.labels), common) * bent, _SOLVED_TO
            )
            bent, failed[i, k] = found.ridges / common, not found.solved
            means[i, k] = [found.at(noise).mean() for noise in axes.noises]
    for n, noise in enumerate(axes.noises):
        means[..., n] /= points.homogeneous.loss_at_points(sizes[rows, None], ridges, noise, delta)[0].loss
    logs = between(sizes, rows, np.log(means), axis=0)
    logs = between(np.asarray(axes.ridges, dtype=float), columns, logs, axis=1)
    ratio = np.broadcast_to(np.exp(logs)[..., None], axes.shape)
    early = plain.mean(axis=-1) >= 0.5 * np.mean(points.labels**2)  # most is still to be learnt
    finite = ~np.isinf(np.asarray(axes.times, dtype=float))
    near = np.abs(_place(sizes)[:, None] - _place(sizes)[rows]).argmin(axis=1)
    line = _place(np.asarray(axes.ridges, dtype=float))
    by_ridge = np.abs(line[:, None] - line[columns]).argmin(axis=1)
    unsolved = failed[np.ix_(near, by_ridge)] | np.isnan(ratio).any(axis=(2, 3))
    return np.where(early & finite, 1.0, ratio)[..., None], unsolved


def spread(values: Floats, count: int) -> Indices:
    """Return the ascending indices of up to `count` values, even in their logarithm, the ends (and 0) among them."""
    order = np.argsort(values)
    if len(order) <= count + 2:
        return order
    place = _place(values)
    positive = place[values > 0]
    wanted = np.concatenate([place[values == 0][:1], np.linspace(positive.min(), positive.max(), count)])
    return order[np.unique(np.abs(place[order][:, None] - wanted).argmin(axis=0))]


def between(values: Floats, known: Indices, found: Floats, axis: int) -> Floats:
    """Return `found` at the values of index `known` along an axis, linear in the logarithm of the values in between."""
    place = _place(values)
    line, at = place[known], np.moveaxis(found, axis, 0)
    if len(line) == 1:
        return np.moveaxis(np.repeat(at, len(values), axis=0), 0, axis)
    right = np.clip(np.searchsorted(line, place), 1, len(line) - 1)
    part = np.clip((place - line[right - 1]) / (line[right] - line[right - 1]), 0.0, 1.0)
    part, low, high = part.reshape(-1, *(1,) * (at.ndim - 1)), at[right - 1], at[right]
    inside = (1 - part) * low + part * high  # NaN is no neighbour's
    return np.moveaxis(np.where(part == 0, low, np.where(part == 1, high, inside)), 0, axis)


def _place(values: Floats) -> Floats:
    """Return the logarithm of values, that of 0 a decade below the least positive one."""
    positive = values[values > 0]
    return np.log(np.where(values > 0, values, 0.1 * positive.min(initial=np.inf) if positive.size else 1.0))


def _judged(
    kernel: Floats, labels: Floats, axes: GridAxes, theory: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats, Flags]:
    """Return what subsets add to the logarithm of the theory, its error, and the sizes where they contradict even that.

    Subsets of the smallest, the middle and the largest size tell log(direct/theory), which vanishes at P = N, where the
    theory is exact: c (1 − P/N) with a c for every ridge, noise and time, where it is firm. A size contradicts where
    the nearest of the three does, at any point.
    """
    sizes, more, pool = np.asarray(axes.sizes), rng.spawn(1)[0], len(labels)
    checked = np.unique(np.sort(sizes)[[0, sizes.size // 2, -1]])
    gaps, errors, further = [], [], _CHECKED // len(checked) - _FIRST
    for p in checked.tolist():
        parts = [_direct(kernel, labels, axes, p, *few) for few in ((_FIRST, rng), (further, more))]
        found = np.concatenate(parts)
        mean = found.mean(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):  # of losses that are zero
            gaps.append(np.nan_to_num(np.log(mean / theory[np.flatnonzero(sizes == p)[0]])))
            errors.append(np.maximum(np.nan_to_num(error_of_mean(found) / mean), _ROUNDING))
    part = (1 - checked / pool)[:, None, None, None]
    weights = part / np.square(errors)
    scatter = 1 / np.sum(weights * part, axis=0)
    slope, error = np.sum(weights * gaps, axis=0) * scatter, np.sqrt(scatter)
    firm = np.abs(slope) > _WRONG * error
    slope, error = np.where(firm, slope, 0.0), np.where(firm, error, 0.0)
    gap = np.asarray(np.abs(gaps - slope * part))
    left = np.any(gap > np.maximum(_WRONG * np.array(errors), _WRONG_SHARE), axis=(1, 2, 3))
    near = np.abs(np.log(sizes)[:, None] - np.log(checked)).argmin(axis=1)
    share = (1 - sizes / pool)[:, None, None, None]
    return slope * share, error * share, left[near]


def _direct(kernel: Floats, labels: Floats, axes: GridAxes, p: int, count: int, rng: np.random.Generator) -> Floats:
    """Return the losses of random subsets of one size (n_subsets, n_ridges, n_noises, n_times)."""
    ridges, times = axes.of(p)
    subsets = chosen_subsets(len(labels), p, count, rng)
    return subset_losses(kernel, labels, subsets, ridges=ridges, noises=axes.noises, times=times, rng=rng)
