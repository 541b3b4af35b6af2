"""Averaged losses of one kernel over samples, ridges, label noise and times, by the method that fits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Flags, Floats, Indices
from tlcli.averages.homogeneous import Homogeneous
from tlcli.averages.pointwise import Pointwise
from tlcli.averages.subsets import chosen_subsets, subset_losses
from tlcli.errors import check_choice

METHODS = ("auto", "pointwise", "homogeneous", "subsets")
FEW = 20  # samples, up to which the resolvent itself varies from draw to draw: direct averages are better and cheap
SUBSETS = 200
_SOLVED_SIZES = 10  # of a longer list of sizes, between which pointwise over homogeneous is interpolated
_CHECKED = 8  # subsets of the self-check
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

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths."""
        return len(self.sizes), len(self.ridges), len(self.noises), len(self.times)

    def of(self, p: int) -> tuple[Floats, Floats]:
        """Return ridges and times in units of the mean loss over `p` samples."""
        scale = p if self.summed else 1
        return np.asarray(self.ridges, dtype=float) / scale, np.asarray(self.times, dtype=float) * scale


def averaged(kernel: Floats, labels: Floats, axes: GridAxes, method: str, rng: np.random.Generator) -> AveragedLosses:
    """Return the losses of a kernel (N, N) on a pool with noise-free labels (N,), averaged over its samples.

    `auto` takes subsets up to 20 samples, and where eight of them disagree with the pointwise theory by more than three
    standard errors and 5 %.

    Raises:
        UsageError: an unknown method. DomainError: sizes or ridges beyond what the pool can stand for.
    """
    check_choice("average", method, METHODS)
    homogeneous = Homogeneous(kernel, labels)
    sizes = np.asarray(axes.sizes)
    losses, unsolved = np.empty((*axes.shape, len(labels))), np.zeros(axes.shape[:2], dtype=bool)
    extra = np.zeros(axes.shape)
    direct = np.full(len(sizes), method == "subsets")
    if method != "subsets":
        losses = _homogeneous(homogeneous, axes)
    if method in ("auto", "pointwise"):
        ratio, unsolved = _ratios(Pointwise(kernel, labels, homogeneous), axes, losses)
        losses = losses * ratio
    if method == "auto":
        direct = (sizes <= FEW) | _disagrees(kernel, labels, axes, losses, rng)
    by_subset = {}
    for i in np.flatnonzero(direct).tolist():
        by_subset[i] = found = _direct(kernel, labels, axes, i, rng)
        share = _shares(homogeneous, *axes.of(int(sizes[i]))[:1], int(sizes[i]))
        losses[i] = found.mean(axis=0)[..., None] * share[:, None, None]
        extra[i] = error_of_mean(found)
        unsolved[i] = False
    return AveragedLosses(losses, extra, direct, unsolved, by_subset)


def error_of_mean(found: Floats) -> Floats:
    """Return the standard error of the mean over the first axis."""
    return found.std(axis=0, ddof=1) / np.sqrt(len(found))


def _shares(pool: Homogeneous, ridges: Floats, p: int) -> Floats:
    """Return how the loss at every ridge is spread over the pool (n_ridges, N), by its leave-one-out residuals."""
    least = 1e-12 * pool.values[-1]  # without any, more samples than the kernel's rank have no pool ridge
    residuals = np.asarray(pool.residuals(pool.effective_ridge(p, np.maximum(ridges, least))), dtype=float) ** 2
    return residuals / residuals.mean(axis=1, keepdims=True)


def _homogeneous(pool: Homogeneous, axes: GridAxes) -> Floats:
    """Return the homogeneous losses at every point of the pool: its leave-one-out residuals carry the mean."""
    out = np.empty((*axes.shape, pool.size))
    for i, p in enumerate(axes.sizes):
        ridges, times = axes.of(p)
        share = _shares(pool, ridges, p)
        for n, noise in enumerate(axes.noises):
            static = pool.loss(p, ridges, noise).loss
            for t, time in enumerate(times):
                if np.isinf(time):
                    mean = static
                elif time == 0:
                    mean = np.full(len(ridges), np.mean(pool.labels**2))
                else:
                    mean = np.array([pool.stopped(p, time, ridge, noise)[0][0] for ridge in ridges])
                out[i, :, n, t] = mean[:, None] * share
    return out


def _ratios(points: Pointwise, axes: GridAxes, plain: Floats) -> tuple[Floats, Flags]:
    """Return pointwise over homogeneous at every point of the pool, at rest, and where there is none.

    Of many sizes some are solved, and the logarithm of the ratio of the means is interpolated in that of the size. At
    finite times the ratio is that at rest, as it must be at late ones; at early ones there is little to correct.
    """
    sizes = np.asarray(axes.sizes, dtype=float)
    solved = _spread(sizes)
    shape = (len(solved), *axes.shape[1:3])
    means, failed = np.empty(shape), np.zeros(shape[:2], dtype=bool)
    reference = _homogeneous(
        points.homogeneous, GridAxes([int(p) for p in sizes[solved]], axes.ridges, axes.noises, summed=axes.summed)
    ).mean(axis=-1)[..., 0]
    starts: dict[int, Floats] = {}
    for row, at in enumerate(solved):
        ridges, _ = axes.of(int(sizes[at]))
        for k, ridge in enumerate(ridges):
            found = points.solve(float(sizes[at]), float(ridge), start=starts.get(k))
            starts[k], failed[row, k] = found.ridges, not found.solved
            means[row, k] = [found.at(noise).mean() for noise in axes.noises]
    logs = np.log(means / reference)
    place = np.log(sizes[solved])
    out = np.array(
        [
            [[np.interp(np.log(p), place, logs[:, k, n]) for n in range(shape[2])] for k in range(shape[1])]
            for p in sizes
        ]
    )
    near = np.abs(np.log(sizes)[:, None] - place).argmin(axis=1)
    ratio = np.broadcast_to(np.exp(out)[..., None], axes.shape)
    early = plain.mean(axis=-1) >= 0.5 * np.mean(points.labels**2)  # most is still to be learnt
    finite = ~np.isinf(np.asarray(axes.times, dtype=float))
    return np.where(early & finite, 1.0, ratio)[..., None], failed[near]


def _spread(sizes: Floats) -> Indices:
    """Return the indices of up to ten sizes, spread evenly in their logarithm, the ends among them."""
    order = np.argsort(sizes)
    if len(order) <= _SOLVED_SIZES + 2:
        return order
    wanted = np.geomspace(sizes.min(), sizes.max(), _SOLVED_SIZES)
    return order[np.unique(np.abs(sizes[order][:, None] - wanted).argmin(axis=0))]


def _disagrees(kernel: Floats, labels: Floats, axes: GridAxes, losses: Floats, rng: np.random.Generator) -> Flags:
    """Return for every size whether subsets at the nearest checked one contradict the theory."""
    sizes = np.asarray(axes.sizes, dtype=float)
    large = np.sort(sizes[sizes > FEW])
    wrong = np.zeros(len(sizes), dtype=bool)
    if not large.size:
        return wrong
    checked = np.unique(large[[0, large.size // 2, -1]])
    bad = []
    for p in checked:
        i = int(np.flatnonzero(sizes == p)[0])
        ridges, _ = axes.of(int(p))
        subsets = chosen_subsets(len(labels), int(p), _CHECKED, rng)
        found = subset_losses(kernel, labels, subsets, ridges=ridges)[..., 0]
        mean, error = found.mean(axis=0), error_of_mean(found)
        quiet = list(axes.noises).index(0.0) if 0.0 in axes.noises else None
        rest = [t for t, time in enumerate(axes.times) if np.isinf(time)]
        if quiet is None or not rest:  # neither noise nor time is checked: they share the kernel
            bad.append(False)
            continue
        theory = losses[i, :, quiet, rest[0]].mean(axis=-1)
        bad.append(bool(np.any(np.abs(theory - mean) > np.maximum(_WRONG * error, _WRONG_SHARE * mean))))
    near = np.abs(np.log(sizes)[:, None] - np.log(checked)).argmin(axis=1)
    return np.array(bad)[near] & (sizes > FEW)


def _direct(kernel: Floats, labels: Floats, axes: GridAxes, at: int, rng: np.random.Generator) -> Floats:
    """Return the losses of random subsets of one size (n_subsets, n_ridges, n_noises, n_times)."""
    ridges, times = axes.of(int(axes.sizes[at]))
    subsets = chosen_subsets(len(labels), int(axes.sizes[at]), SUBSETS, rng)
    found = [
        subset_losses(kernel, labels, subsets, ridges=ridges, noise=noise, times=times, rng=rng)
        for noise in axes.noises
    ]
    return np.stack(found, axis=2)
