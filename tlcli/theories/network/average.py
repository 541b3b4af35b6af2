"""Frozen networks averaged over target samples: one kernel on a pool of target points serves all sizes and ridges."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tlcli.arrays import Floats, Indices
from tlcli.averages.grid import AveragedLosses, GridAxes, averaged, error_of_mean
from tlcli.averages.homogeneous import Homogeneous
from tlcli.dmft.pool import pool_kernels
from tlcli.errors import UsageError
from tlcli.status import SOLVED, Status, phase_of
from tlcli.sweep.forms import check_notes, check_numbers, check_texts
from tlcli.sweep.runner import Placed, Task
from tlcli.tasks.polynomial import is_polynomial
from tlcli.theories.amounts import shown_time
from tlcli.theories.base import Case, Columns, Findings, PointByPoint
from tlcli.theories.draws import by_point, refuse_if_all_failed
from tlcli.theories.network import points
from tlcli.theories.network.cost import expected_seconds_of_averages

FUNCTION = "tlcli.theories.network.average:point"
POOLS = 4  # of tasks that are drawn; several small pools cost less than a large one, and tell their error
LEAST_POOL = 400
_MOST_POOL = 4000  # points of all pools together
_REPEATS = 8
_INNER = ("p2", "alpha2", "ridge", "noise2", "time")
_NAMES = ("loss", "baseline", "gain")
_PARTS = ("pool", "neuron")


@dataclass(frozen=True, eq=False)
class AveragedNetwork(PointByPoint):
    """The readout of a frozen network, averaged over the target's samples (`tlcli.averages`).

    A task is one kernel: everything but P2, ridge, label noise and time of the target. Its record holds the means over
    target samples at all of these.
    """

    version: ClassVar[str] = f"{points.VERSION}.3"

    def check(self, case: Case) -> None:
        """Refuse what no network has, and pools that are too small for the samples taken of them."""
        points.check_points(case)
        for parameters in _kernels(case, 0)[0]:
            _pools({**parameters, "draw": 0})

    def columns(self, case: Case) -> Columns:
        """Return the names of the columns."""
        return {name: np.full(_shape(case), np.nan) for name in _columns(case)}

    def tasks(self, case: Case, seed: int) -> list[Task]:
        """Return a task per kernel and draw of the data; its place is that of the kernel."""
        kernels, _ = _kernels(case, seed)
        draws = range(int(case.words["draws"]))
        return [
            Task(FUNCTION, {**parameters, "draw": draw}, seed, index, draw)
            for index, parameters in enumerate(kernels)
            for draw in draws
        ]

    def combine(self, case: Case, found: Sequence[Placed]) -> Findings:
        """Return means over draws of source and neurons, with their errors."""
        kernels, places = _kernels(case, 0)
        groups = by_point(found, len(kernels))
        refuse_if_all_failed(groups)
        joined = [_joined(case, group) for group in groups]
        wanted = _accuracy(case)
        names = _columns(case)
        columns = {name: np.full(_shape(case), np.nan) for name in names}
        columns["status"] = np.full(_shape(case), Status.FAILED, dtype=np.int8)
        for at, (kernel, inside) in enumerate(places):
            place = np.unravel_index(at, case.grid.shape)
            for name in names:
                if name in joined[kernel]:
                    columns[name][place] = joined[kernel][name][inside]
        # Few draws may agree by accident: their spread is no less than what pools and neurons leave in each.
        error = np.fmax(columns.get("gain_draw_se", 0.0), columns["gain_se"])
        phase = phase_of(columns["gain"], columns["loss"], columns["baseline"], relative=SOLVED, error=error)
        out = Findings({**columns, "phase": phase})
        done = [record for group in groups for record in group if record.get("status") != "failed"]
        if done:
            out.info, out.data = dict(done[0]["info"]), dict(done[0]["data"])
        out.notes = list(dict.fromkeys(note for record in done for note in record["notes"]))
        out.messages = list(dict.fromkeys(r["message"] for group in groups for r in group if r.get("message")))
        late = columns["status"] == Status.INACCURATE
        if late.any():
            out.messages.append(
                f"{late.sum()} of {late.size} average(s) are inaccurate: asked {wanted:g}, reached "
                f"{np.max(columns['residual'][late]):.2g} (errors of losses, in units of the labels' mean square); use "
                "a larger --pool where the pool's error leads (of files and images all points are in it), more "
                "--neurons where theirs does, or accept it with a larger --accuracy."
            )
        return out

    def estimate(self, case: Case, tasks: Sequence[Task], left: Sequence[Task], workers: int) -> list[str]:
        """Return the time of the networks that are left."""
        if not left:
            return []
        workers = min(workers, len(left))
        return [f"{shown_time(expected_seconds_of_averages(left, _REPEATS) / workers)} on {workers} worker(s)"]

    def memory(self, tasks: Sequence[Task]) -> float:
        """Return the bytes of the kernels of one network between the points of its pools, and of the work on them."""
        counts = [len(_pools(task.parameters)[0].y_target) for task in tasks[:1]]
        return max((8.0 * (_REPEATS + 6) * count**2 for count in counts), default=0.0)

    def archives(self, case: Case) -> dict[str, str]:
        """Return none: kernels on pools are large, and the mean over samples has no predictions."""
        return {}

    def pictures(self, case: Case) -> set[str]:
        """Return none."""
        return set()


def _accuracy(case: Case) -> float:
    return float(points.numerics_of({**case.words, "seed": 0, "draw": 0}).accuracy)


def _shape(case: Case) -> tuple[int, ...]:
    return (*case.grid.shape, *(len(v) for v in case.theory.inner.values()))


def _columns(case: Case) -> list[str]:
    drawn = int(case.words["draws"]) > 1
    return [
        *_NAMES,
        *(f"{name}_se" for name in _NAMES),
        *(f"{name}_{part}_se" for name in _NAMES for part in _PARTS),
        *(f"{name}_draw_se" for name in _NAMES if drawn),
        "direct",
        "residual",
        "status",
    ]


def _kernels(case: Case, seed: int) -> tuple[list[dict[str, Any]], list[tuple[int, tuple[Any, ...]]]]:
    """Return the parameters of every different kernel, and for every point its kernel and its place in the record."""
    axes = case.grid.axes
    words = case.words
    more = {name: words[name] for name in points.NUMERICS if words.get(name) is not None}
    identity = points.identity_of(case)
    lines = _lines(case)
    kernels: dict[tuple[Any, ...], int] = {}
    out, places = [], []
    for point in case.grid.points():
        key = tuple(point[name] for name in axes if name not in _INNER)
        if key not in kernels:
            kernels[key] = len(out)
            given = points.parameters_of(case, point)
            drop = ("p2", "ridge", "noise2", "ptest", "times2")
            given = {name: value for name, value in given.items() if name not in drop}
            out.append(
                {
                    **given,
                    **more,
                    **identity,
                    **lines,
                    "times2": [math.inf],
                    "seed": seed,
                    "method": words["average"],
                    "pool": words.get("pool"),
                }
            )
        here = points.parameters_of(case, point)
        inside = (
            lines["sizes"].index(here["p2"]),
            lines["ridges"].index(float(here["ridge"])),
            lines["noises"].index(float(here["noise2"])),
            slice(None) if case.theory.inner else lines["times"].index(float(here["times2"][-1])),
        )
        places.append((kernels[key], inside))
    return out, places


def _lines(case: Case) -> dict[str, list[Any]]:
    """Return the different values of what one kernel serves, in ascending order."""
    every = [points.parameters_of(case, point) for point in case.grid.points()]
    times = {float(t) for p in every for t in (p["times2"] if case.theory.inner else p["times2"][-1:])}
    return {
        "sizes": sorted({int(p["p2"]) for p in every}),
        "ridges": sorted({float(p["ridge"]) for p in every}),
        "noises": sorted({float(p["noise2"]) for p in every}),
        "times": sorted(times),
    }


def _pools(p: Mapping[str, Any]) -> tuple[Any, list[Indices], list[str]]:
    """Return data whose target points are all pools together, the rows of each pool, and what there is to tell.

    Raises:
        UsageError: a pool of less than twice the samples taken of it.
    """
    most = max(p["sizes"])
    drawn = is_polynomial(str(p["source"]).strip())
    size = int(p["pool"]) if p.get("pool") is not None else max(LEAST_POOL, 2 * most) if drawn else None
    asked = {**p, "noise2": 0.0}
    if drawn:
        count = max(1, min(POOLS, _MOST_POOL // int(size or 1)))
        asked |= {"p2": int(size or 1) * count, "ptest": 1}
    elif str(p["source"]).strip().startswith("file:"):
        asked |= {"p2": None, "ptest": None}
    else:
        asked |= {"p2": 1, "ptest": 10**6}
    data = points.data_of(asked)
    x, y, notes = data.x_target, data.y_target, []
    if not drawn:
        labelled = np.isfinite(data.y_test_target)
        x, y = np.concatenate([x, data.x_test[labelled]]), np.concatenate([y, data.y_test_target[labelled]])
        x, y, lost = _distinct(x, y, data.x_source)
        if lost:
            notes.append(f"{lost} target point(s) are copies or source points and are left out of the pool.")
        size = min(len(y), _MOST_POOL) if size is None else size
    if size is None or size > len(y) or size < 2 * most:
        raise UsageError(
            f"a pool of {min(size or 0, len(y))} target points is too small for p2 = {most}: averages need at least "
            f"twice as many points as samples; lower --p2 or --pool (of {len(y)} points), or leave out --average."
        )
    count = max(1, min(POOLS, len(y) // size))
    rows = [np.arange(i * size, (i + 1) * size) for i in range(count)]
    keep = size * count
    return _PoolData(data, x[:keep], y[:keep]), rows, notes


class _PoolData:
    """The source of some data, with a pool in place of target points, and no test points."""

    def __init__(self, data: Any, x: Floats, y: Floats) -> None:
        self.x_source, self.y_source, self.description = data.x_source, data.y_source, data.description
        self.x_target, self.y_target = x, y
        self.x_test, self.y_test_source, self.y_test_target = x[:0], y[:0], y[:0]


def _distinct(x: Floats, y: Floats, source: Floats) -> tuple[Floats, Floats, int]:
    """Return the points without copies, which would leak what they are to know, and how many were left out."""
    _, first = np.unique(np.concatenate([source, x]), axis=0, return_index=True)
    keep = np.sort(first[first >= len(source)]) - len(source)
    return x[keep], y[keep], len(y) - len(keep)


def point(parameters: Mapping[str, Any], seeds: np.random.SeedSequence) -> dict[str, Any]:
    """Train one network on one draw of the source and average its readout over target samples.

    Returns columns as lists (sizes, ridges, noises, times), `direct` (sizes) and `unsolved` (sizes, ridges), the info
    of the engine and the description of the data.
    """
    p = parameters
    data, rows, notes = _pools(p)
    axes = GridAxes(p["sizes"], p["ridges"], p["noises"], p["times"], summed=p["reduction"] == "sum")
    found = pool_kernels(data, points.settings_of({**p, "rule": "frozen"}), points.numerics_of(p), max(p["sizes"]))
    if found.message:
        return {"status": "failed", "message": found.message}
    rng = np.random.default_rng([int(p["seed"]), int(p["draw"])])
    whole = found.kernels.mean(axis=0)
    curves = []
    for pool in rows:
        block, y = np.ix_(pool, pool), data.y_target[pool]
        state = rng.bit_generator.state  # the same subsets and noise with and without pre-training
        own = averaged(whole[block], y, axes, p["method"], rng)
        rng.bit_generator.state = state
        curves.append((own, averaged(found.start[block], y, axes, p["method"], rng)))
    factor, spread = _neurons(found.kernels, data.y_target, rows, axes)
    power = float(np.mean(np.square(data.y_target)))
    shares = _learnt(curves, axes, power)
    columns = _statistics(curves, 1 + shares * (factor - 1), shares * spread)
    direct = np.any([own.direct for own, _ in curves], axis=0)
    if direct.any():
        listed = ", ".join(str(size) for size, flag in zip(axes.sizes, direct, strict=True) if flag)
        notes.append(f"direct averages over subsets of the pool stand at p2 = {listed}.")
    unsolved = np.any([curve.unsolved for pair in curves for curve in pair], axis=0)
    return {
        "columns": {name: values.tolist() for name, values in columns.items()},
        "power": power,
        "direct": direct.astype(int).tolist(),
        "unsolved": unsolved.astype(int).tolist(),
        "status": "not_converged" if found.restless else "converged",
        "message": found.restless,
        "info": {**found.info, "notes": list(found.info.get("notes", ())), "pools": len(rows), "pool": len(rows[0])},
        "data": data.description,
        "notes": [*notes, *found.info.get("notes", ())],
    }


def check_record(parameters: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Raise ValueError or KeyError for a stored record that is not whole, see `tlcli.sweep.forms`."""
    sizes, ridges, noises, times = (len(parameters[name]) for name in ("sizes", "ridges", "noises", "times"))
    names = [*_NAMES, *(f"{name}_{part}_se" for name in _NAMES for part in _PARTS)]
    check_numbers(record["columns"], names, (sizes, ridges, noises, times))
    check_numbers(record, ("power",), ())
    check_numbers(record, ("direct",), (sizes,))
    check_numbers(record, ("unsolved",), (sizes, ridges))
    check_texts(record, ("status", "message"))
    check_notes(record["notes"])
    for name in ("info", "data"):
        if not isinstance(record[name], Mapping):
            raise ValueError(f"{name} is no mapping")


def _statistics(
    curves: Sequence[tuple[AveragedLosses, AveragedLosses]], factor: Floats, spread: Floats
) -> dict[str, Floats]:
    """Return means over pools and their errors, from the curves with and without pre-training on every pool."""
    losses = np.array([own.losses for own, _ in curves]) * factor[..., None]
    starts = np.array([scratch.losses for _, scratch in curves])
    extra = [np.array([curve.extra for curve in side]) for side in zip(*curves, strict=True)]
    extra.append(np.array([_paired(own, scratch) for own, scratch in curves]))
    count, size = len(curves), losses.shape[-1]
    out = {}
    for name, values, more in (
        ("loss", losses, extra[0]),
        ("baseline", starts, extra[1]),
        ("gain", starts - losses, extra[2]),
    ):
        means = values.mean(axis=-1)
        if count > 1:
            error = means.std(axis=0, ddof=1) / math.sqrt(count)
        else:
            error = values[0].std(axis=-1, ddof=1) / math.sqrt(size)
        out[name] = means.mean(axis=0)
        out[f"{name}_pool_se"] = np.hypot(error, np.sqrt(np.sum(more**2, axis=0)) / count)
        neuron = np.zeros_like(error) if name == "baseline" else losses.mean(axis=(0, -1)) * spread
        out[f"{name}_neuron_se"] = neuron
    return out


def _learnt(curves: Sequence[tuple[AveragedLosses, AveragedLosses]], axes: GridAxes, power: float) -> Floats:
    """Return how much of its effect at rest the neurons' noise has at every time: at first the kernel does nothing."""
    loss = np.mean([own.losses.mean(axis=-1) for own, _ in curves], axis=0)
    share = np.clip(1 - loss / power, 0.0, 1.0)
    return np.where(np.isinf(np.asarray(axes.times, dtype=float)), 1.0, share)


def _paired(own: AveragedLosses, scratch: AveragedLosses) -> Floats:
    """Return the error of the gain from the number of subsets: both kernels see the same ones, or neither any."""
    out = np.hypot(own.extra, scratch.extra)
    for at in own.by_subset.keys() & scratch.by_subset.keys():
        out[at] = error_of_mean(scratch.by_subset[at] - own.by_subset[at])
    return out


def _neurons(kernels: Floats, labels: Floats, rows: Sequence[Indices], axes: GridAxes) -> tuple[Floats, Floats]:
    """Return the factor that takes the 1/S bias off a loss, and its relative error from the neurons (sizes, ...).

    Jackknife over the repeats, on the homogeneous losses at rest: relative changes of a kernel's noise are the same to
    the order that matters, and one eigendecomposition serves all sizes and ridges.
    """
    count = len(kernels)
    one = np.ones((*axes.shape[:3], 1))
    if count < 2:
        return one, 0 * one
    total = kernels.sum(axis=0)
    ridges = np.array([axes.of(p)[0] for p in axes.sizes])[..., None]
    sizes = np.asarray(axes.sizes, dtype=float)[:, None, None]

    def mean(kernel: Floats) -> Floats:
        parts = [Homogeneous(kernel[np.ix_(r, r)], labels[r]).loss(sizes, ridges, axes.noises).loss for r in rows]
        return np.mean(parts, axis=0)

    whole = mean(total / count)
    parts = np.array([mean((total - kernel) / (count - 1)) for kernel in kernels])
    shift = (count - 1) * (whole - parts.mean(axis=0)) / whole
    shift = np.where(np.abs(shift) < 0.5, shift, 0.0)  # beyond it no expansion holds
    noise = np.sqrt((count - 1) / count * np.sum((parts - parts.mean(axis=0)) ** 2, axis=0)) / whole
    # A jackknife leaves the next order of what it takes off.
    return (1 + shift)[..., None], np.hypot(noise, shift**2)[..., None]


def _reached(columns: Mapping[str, Floats], power: float) -> Floats:
    """Return the larger error of the two losses, in units of the labels' `power` or of a loss above it."""
    unit = power or 1.0
    parts = [columns[f"{name}_se"] / np.maximum(unit, np.abs(columns[name])) for name in ("loss", "baseline")]
    return np.maximum(*parts)


def _joined(case: Case, records: Sequence[Mapping[str, Any]]) -> dict[str, Floats]:
    """Return the columns of one kernel over its draws, (sizes, ridges, noises, times)."""
    done = [record for record in records if record.get("status") != "failed"]
    if len(done) < len(records):
        return {}
    out: dict[str, Any] = {}
    count = len(done)
    pooled = not is_polynomial(str(case.words["source"]).strip())  # draws share the pool: its error is not in theirs
    for name in _NAMES:
        values = np.array([record["columns"][name] for record in done])
        out[name] = values.mean(axis=0)
        for part in _PARTS:
            errors = np.array([record["columns"][f"{name}_{part}_se"] for record in done])
            shared = part == "pool" and pooled
            out[f"{name}_{part}_se"] = errors.mean(axis=0) if shared else np.sqrt(np.sum(errors**2, axis=0)) / count
        out[f"{name}_se"] = np.hypot(out[f"{name}_pool_se"], out[f"{name}_neuron_se"])
        if count > 1:
            spread = values.std(axis=0, ddof=1) / math.sqrt(count)
            out[f"{name}_draw_se"] = np.hypot(spread, out[f"{name}_pool_se"]) if pooled else spread
    shape = out["loss"].shape
    restless = any(record["status"] == "not_converged" for record in done)
    unsolved = restless | np.any([record["unsolved"] for record in done], axis=0)[..., None, None]
    direct = np.any([record["direct"] for record in done], axis=0)[:, None, None, None]
    out["direct"] = np.broadcast_to(direct, shape).astype(float)
    out["residual"] = _reached(out, float(np.mean([record["power"] for record in done])))
    status = np.where(out["residual"] > 1.25 * _accuracy(case), Status.INACCURATE, Status.CONVERGED)
    out["status"] = np.where(unsolved, Status.NOT_CONVERGED, status).astype(np.int8)
    return out
