"""One network trained on one draw of its source, and its readout averaged over target samples."""

import functools
import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlcli.arrays import Floats, Indices
from tlcli.averages.best import at_best, chosen, tried
from tlcli.averages.classified import PoolTask, averaged_scores, few_scores
from tlcli.averages.grid import AveragedLosses, GridAxes, averaged, between, error_of_mean, spread
from tlcli.averages.homogeneous import Homogeneous
from tlcli.dmft.estimates import jackknife, small_sample
from tlcli.dmft.pool import PoolKernels, pool_kernels
from tlcli.losses import loss_of
from tlcli.sweep.forms import check_notes, check_numbers, check_texts
from tlcli.theories.network import points
from tlcli.theories.network.pools import POOLS, PoolData, pools_of

BEST = "best"
PARTS = ("pool", "neuron")
# What every measure of a readout is called with pre-training, without, and in the difference.
NAMES = {"loss": ("loss", "baseline", "gain"), "error": ("error", "baseline_error", "gain_error")}
RIDGES = ("ridge_opt", "baseline_ridge_opt")
_JACKKNIFED_SIZES, _JACKKNIFED_RIDGES = 10, 10  # of longer lists, between which the neurons' part is interpolated
_NEAR = 2  # samples times it are near the number of neurons
_SUBSETS = 0x5B5  # keeps the subsets apart from other streams of a seed


def point(parameters: Mapping[str, Any], seeds: np.random.SeedSequence) -> dict[str, Any]:
    """Train one network on one draw of the source and average its readout over target samples.

    Pools, subsets of them and neurons are those of the seed, the same for every draw. Returns columns as lists (sizes,
    ridges, noises, times), `direct` (sizes) and `unsolved` (sizes, ridges), the info of the engine and the description
    of the data. With the ridges `best` the axis of ridges has length one.
    """
    p = parameters
    data = pools_of(p)
    settings = points.settings_of({**p, "ridge": 0.0, "rule": "frozen"})
    found = pool_kernels(data, settings, points.numerics_of({**p, "draw": 0}), max(p["sizes"]), data.rows)
    if found.message:
        return {"status": "failed", "message": found.message}
    readout = Readout(p, data)
    own = readout.of(found.kernels.mean(axis=0), found.kernels)
    start = readout.baseline(found.start)
    columns, notes = dict[str, Floats](), list(data.notes)
    for m, measure in enumerate(readout.measures):
        columns |= _statistics(measure, [one[m] for one in own.pools], [one[m] for one in start.pools], own.noise[m])
    if own.ridge is not None and start.ridge is not None:
        columns |= dict(zip(RIDGES, (own.ridge, start.ridge), strict=True))
    everything = [one for side in (own, start) for pool in side.pools for one in pool]
    direct = np.any([one.direct for one in everything], axis=0)
    return {
        "columns": {name: values.tolist() for name, values in columns.items()},
        "power": readout.power,
        "direct": direct.astype(int).tolist(),
        "unsolved": np.any([one.unsolved for one in everything], axis=0).astype(int).tolist(),
        "status": "not_converged" if found.restless else "converged",
        "message": " ".join(filter(None, (found.restless, _few_neurons(p, found)))),
        "info": {**found.info, "notes": [], "pools": len(data.rows), "pool": len(data.rows[0])},
        "data": data.description,
        "notes": [*notes, *found.info.get("notes", ())],
    }


def _few_neurons(p: Mapping[str, Any], found: PoolKernels) -> str:
    """Return a sentence where samples without ridge come near the number of neurons, the rank of a feature kernel."""
    count = int(found.info.get("neurons") or 0) * len(found.kernels)
    near = [str(size) for size in p["sizes"] if _NEAR * size > count]
    free = p["ridges"] != BEST and 0 in p["ridges"] and np.isinf(p["times"]).any()
    if found.corrected or p["gamma0"] == 0 or p["kernel"] != "feature" or not (free and near):
        return ""
    return (
        f"p2 = {', '.join(near)} without ridge comes near the {count} neurons of all repeats, which are the rank of a "
        "feature kernel: its loss has a peak where they are equal that no infinite network has; use more --neurons, a "
        "--ridge or --kernel ntk."
    )


def measures_of(p: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what readouts are judged by, see `NAMES`."""
    return tuple(p.get("measures") or ("loss",))


def check_record(parameters: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Raise ValueError or KeyError for a stored record that is not whole, see `tlcli.sweep.forms`."""
    sizes, noises, times = (len(parameters[name]) for name in ("sizes", "noises", "times"))
    best = parameters["ridges"] == BEST
    ridges = 1 if best else len(parameters["ridges"])
    names = [name for measure in measures_of(parameters) for name in NAMES[measure]]
    every = [*names, *(f"{name}_{part}_se" for name in names for part in PARTS), *(RIDGES if best else ())]
    check_numbers(record["columns"], every, (sizes, ridges, noises, times))
    check_numbers(record, ("power",), ())
    check_numbers(record, ("direct",), (sizes,))
    check_numbers(record, ("unsolved",), (sizes, ridges))
    check_texts(record, ("status", "message"))
    check_notes(record["notes"])
    for name in ("info", "data"):
        if not isinstance(record[name], Mapping):
            raise ValueError(f"{name} is no mapping")


@dataclass(frozen=True, eq=False)
class _Side:
    """With or without pre-training: per pool the averages of every measure, and the best ridges where these are sought.

    `noise` per measure is the relative error from the neurons (sizes, ridges, noises, times).
    """

    pools: list[list[AveragedLosses]]
    ridge: Floats | None
    noise: list[Floats]


_known: "OrderedDict[str, _Side]" = OrderedDict()  # baselines of the last tasks: those of all richnesses are the same
_KEPT = 4
_LARGEST_SHIFT = 0.5  # of a loss, which a jackknife may take off
_LARGEST_OF_TWO = 0.2  # whose second order two repeats know


class Readout:
    """What is learnt from the target on any kernel between the points of its pools."""

    def __init__(self, p: Mapping[str, Any], data: PoolData) -> None:
        self.p, self.rows, self.labels = p, data.rows, data.y_target
        self.best = p["ridges"] == BEST
        ridges = (0.0,) if self.best else tuple(p["ridges"])
        rest = (tuple(p["noises"]), tuple(p["times"]))
        self.axes = GridAxes(tuple(p["sizes"]), ridges, *rest, summed=p["reduction"] == "sum")
        self.measures = measures_of(p)
        self.problem: PoolTask | None = None
        if p.get("measures"):
            loss = loss_of(p.get("loss2") or "mse")
            loss = loss_of(loss.text, float(p.get("label_smoothing") or 0.0)) if loss.smooths else loss
            weights = p.get("class_weights") if data.classes_target is not None else None
            self.problem = PoolTask(loss, data.y_target, data.classes_target, weights, p["noise_name"] == "flips2")
        classes = self.problem is not None and self.problem.loss.labels != "real"
        self.power = 1.0 if classes else float(np.mean(np.square(data.y_target))) or 1.0

    def baseline(self, kernel: Floats) -> _Side:
        """Return what is learnt without pre-training; it is computed once for all richnesses of a process."""
        named = [self.p.get(name) for name in ("loss2", "label_smoothing", "class_weights", "noise_name")]
        words = repr((self.axes, self.p["method"], self.p["seed"], self.best, self.measures, len(self.rows), named))
        key = hashlib.sha256(kernel.tobytes() + self.labels.tobytes() + words.encode()).hexdigest()
        if key not in _known:
            _known[key] = self.of(kernel, kernel[None])
        _known.move_to_end(key)
        while len(_known) > _KEPT:
            _known.popitem(last=False)
        return _known[key]

    def of(self, kernel: Floats, samples: Floats) -> _Side:
        """Return what is learnt on a kernel (n, n), the mean of `samples` (R, n, n) of neurons."""
        axes = self._axes_of(kernel)
        pools = [self._averages(kernel, rows, axes) for rows in self.rows]
        factors, noises = self._neurons(samples, axes, pools)
        for m, factor in enumerate(factors):
            pools = [[*one[:m], _times(one[m], factor), *one[m + 1 :]] for one in pools]
        if not self.best:
            return _Side(pools, None, noises)
        judged = len(self.measures) - 1  # the error, where there are classes
        means = np.mean([one[judged].losses.mean(axis=-1) for one in pools], axis=0)
        ridges = np.asarray(axes.ridges)
        weights, ridge = chosen(ridges, means)
        nearest = np.argmax(weights, axis=1)[:, None]
        endless = np.isinf(ridge)[:, None]
        noises = [np.where(endless, 0.0, np.take_along_axis(noise, nearest, axis=1)) for noise in noises]
        unit = np.asarray(axes.sizes, dtype=float)[:, None, None] if self.axes.summed else 1.0
        best = []
        for rows, one in zip(self.rows, pools, strict=True):
            nothing = self.labels[rows] ** 2 if self.problem is None else None  # no other loss has ridges without end
            best.append([at_best(a, weights, ridge, nothing) for a in one])
        return _Side(best, (ridge * unit)[:, None], noises)

    def _axes_of(self, kernel: Floats) -> GridAxes:
        if not self.best:
            return self.axes
        loss = None if self.problem is None else self.problem.loss
        free = loss is None or (loss.bounded and not loss.flat) or bool(np.isfinite(self.axes.times).all())
        return tried(kernel[np.ix_(self.rows[0], self.rows[0])], self.axes, free=free, endless=loss is None)

    def _averages(self, kernel: Floats, rows: Indices, axes: GridAxes) -> list[AveragedLosses]:
        rng = np.random.default_rng([_SUBSETS, int(self.p["seed"]), int(rows[0])])
        block = kernel[np.ix_(rows, rows)]
        if self.problem is not None:
            return averaged_scores(block, self.problem.at(rows), axes, rng)
        return [averaged(block, self.labels[rows], axes, self.p["method"], rng)]

    def _neurons(
        self, samples: Floats, axes: GridAxes, pools: Sequence[Sequence[AveragedLosses]]
    ) -> tuple[list[Floats], list[Floats]]:
        """Return per measure the factor that takes the 1/S bias off it, and its relative error from the neurons.

        Jackknife over the repeats, widened as they are few: of the squared error on the homogeneous losses at rest, for
        relative changes of a kernel's noise are the same to the order that matters; of other losses on few subsets.
        """
        count, blank = len(samples), np.ones(axes.shape)
        if count < 2:
            return [blank for _ in self.measures], [0 * blank for _ in self.measures]
        total = samples.sum(axis=0)
        mean = functools.partial(self._homogeneous if self.problem is None else self._few, axes)
        whole = mean(total / count)
        parts = np.array([mean((total - kernel) / (count - 1)) for kernel in samples])
        with np.errstate(invalid="ignore", divide="ignore"):
            shift = (count - 1) * (whole - parts.mean(axis=0)) / whole
            noise = small_sample(count) * jackknife(parts) / whole
        shift = np.nan_to_num(shift, posinf=0.0, neginf=0.0)  # of a loss of nothing
        # A jackknife leaves the next order of what it takes off, which two repeats do not show if it is large; beyond a
        # half no expansion holds, and the bias stays.
        taken = np.where(np.abs(shift) < _LARGEST_SHIFT, shift, 0.0)
        small = np.abs(shift) < (_LARGEST_OF_TWO if count == 2 else _LARGEST_SHIFT)
        left = np.where(small, shift**2, np.abs(shift))
        shift, noise = taken, np.hypot(np.nan_to_num(noise, posinf=0.0), left)
        if self.problem is not None:
            return list(1 + shift), list(noise)
        shares = _learnt([one[0] for one in pools], axes, self.power)
        return [1 + shares * shift[0][..., None]], [shares * noise[0][..., None]]

    def _homogeneous(self, axes: GridAxes, kernel: Floats) -> Floats:
        """Return the mean homogeneous losses at rest over the pools, (1, sizes, ridges, noises)."""
        sizes, ridges = np.asarray(axes.sizes, dtype=float), np.asarray(axes.ridges, dtype=float)
        rows, columns = spread(sizes, _JACKKNIFED_SIZES), spread(ridges, _JACKKNIFED_RIDGES)
        table = axes.ridge_table[np.ix_(rows, columns)]
        parts = []
        for pool in self.rows:
            one = Homogeneous(kernel[np.ix_(pool, pool)], self.labels[pool])
            delta = one.effective_ridge(sizes[rows, None], table)
            each = [one.loss_at_points(sizes[rows, None], table, s, delta)[0].loss for s in axes.noises]
            parts.append(np.stack(each, axis=-1))
        found = between(sizes, rows, np.mean(parts, axis=0), axis=0)
        return between(ridges, columns, found, axis=1)[None]

    def _few(self, axes: GridAxes, kernel: Floats) -> Floats:
        """Return the means of all measures over few subsets and the pools, (measures, sizes, ridges, noises, times)."""
        assert self.problem is not None
        seed = [_SUBSETS, int(self.p["seed"]), 1]
        parts = [few_scores(kernel[np.ix_(r, r)], self.problem.at(r), axes, seed) for r in self.rows]
        return np.mean(parts, axis=0)


def _times(found: AveragedLosses, factor: Floats) -> AveragedLosses:
    """Return averages times a factor (sizes, ridges, noises, times)."""
    by_subset = {i: each * factor[i] for i, each in found.by_subset.items()}
    return AveragedLosses(
        found.losses * factor[..., None], found.extra * factor, found.direct, found.unsolved, by_subset
    )


def _statistics(
    measure: str, own: Sequence[AveragedLosses], scratch: Sequence[AveragedLosses], noise: Floats
) -> dict[str, Floats]:
    """Return means over pools and their errors, from what every pool has with and without pre-training.

    Of four pools the spread between them, widened as they are few; of fewer, whose spread is an accident, that of
    their points.
    """
    losses, starts = (np.array([one.losses for one in side]) for side in (own, scratch))
    extra = [np.array([one.extra for one in side]) for side in (own, scratch)]
    extra.append(np.array([_paired(*pair) for pair in zip(own, scratch, strict=True)]))
    count = len(own)
    out = {}
    for name, values, more in zip(NAMES[measure], (losses, starts, starts - losses), extra, strict=True):
        means = values.mean(axis=-1)
        if count >= POOLS:
            error = small_sample(count) * error_of_mean(means)
        else:
            error = error_of_mean(np.concatenate(np.moveaxis(values, -1, 1)))
        out[name] = means.mean(axis=0)
        out[f"{name}_pool_se"] = np.hypot(error, np.sqrt(np.sum(more**2, axis=0)) / count)
        neuron = np.zeros_like(error) if name == NAMES[measure][1] else losses.mean(axis=(0, -1)) * noise
        out[f"{name}_neuron_se"] = neuron
    return out


def _learnt(pools: Sequence[AveragedLosses], axes: GridAxes, power: float) -> Floats:
    """Return how much of its effect at rest the neurons' noise has at every time: at first the kernel does nothing."""
    loss = np.mean([one.losses.mean(axis=-1) for one in pools], axis=0)
    share = np.clip(1 - loss / power, 0.0, 1.0)
    return np.where(np.isinf(np.asarray(axes.times, dtype=float)), 1.0, share)


def _paired(own: AveragedLosses, scratch: AveragedLosses) -> Floats:
    """Return the error of the gain from the number of subsets: both kernels see the same ones, or neither any."""
    out = np.hypot(own.extra, scratch.extra)
    for at in own.by_subset.keys() & scratch.by_subset.keys():
        out[at] = error_of_mean(scratch.by_subset[at] - own.by_subset[at])
    return out
