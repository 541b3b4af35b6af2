"""What averages over target samples will take and hold, from a small piece of their pools.

A look trains with two repeats and averages the readout of a few hundred target points. Kernels grow with the square of
the number of points, what is learnt from them with the cube.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tlcli.averages.grid import FEW
from tlcli.dmft.field import thread_count
from tlcli.dmft.pool import pool_kernels
from tlcli.errors import counted
from tlcli.sweep.drawn import per_point
from tlcli.sweep.runner import FAILED, Task, evaluate
from tlcli.theories.amounts import shown_size
from tlcli.theories.network import points
from tlcli.theories.network.average_point import Readout
from tlcli.theories.network.pools import PoolData, pools_of

REPEATS = 8  # unless they are given
_LOOK = "tlcli.theories.network.average_cost:look"
_LOOKED_AT, _ENOUGH = 3, 2.0  # points of a sweep, and the seconds after which no other is looked at
_PIECES, _PAIR = (120, 360, 720), 2  # points of a pool in the looks at it, and repeats of each
_QUICK = 1.0  # seconds of a look, after which the largest is worth its time
_AGAIN = 0.6  # of a repeat: the look at the error of the integration
# Measured with 361 to 4000 points: a process, and what it holds at its peak in units of a kernel between all points.
_PROCESS = 2.5e8
_PER_REPEAT, _ALONE, _LEAST, _UNTRAINED = 2, 5, 15, 8
_TOGETHER = 4e9  # bytes of all workers
_PER_LAYER, _DEEP = 5, 20  # of a deep network, whose layers are observed at three looks


def expected_seconds(tasks: Sequence[Task]) -> tuple[float, float]:
    """Return the seconds of all tasks one after the other, and of the baseline, which every worker needs once."""
    count = min(_LOOKED_AT, len(tasks))
    start, found, baselines = time.perf_counter(), list[float](), list[float]()
    for i in range(count):
        task = tasks[(2 * i + 1) * len(tasks) // (2 * count)]
        record, _ = evaluate(_LOOK, task.parameters, task.seed)
        if record.get("status") == FAILED:  # as the task itself will
            continue
        found.append(record["kernels"] + record["readout"])
        baselines.append(record["readout"])
        if time.perf_counter() - start > _ENOUGH:
            break
    return (len(tasks) * float(np.mean(found)), max(baselines)) if found else (0.0, 0.0)


def look(parameters: Mapping[str, Any], seeds: np.random.SeedSequence) -> dict[str, Any]:
    """Return the seconds of the kernels of one task, and of its readout, from those of pieces of its first pool."""
    p, data = parameters, pools_of(parameters)
    wanted, whole, pool = int(p.get("repeats") or REPEATS), len(data.y_target), len(data.rows[0])
    few = min(_PAIR, wanted) if p["gamma0"] > 0 else wanted  # nothing is trained, or repeated, without richness
    settings = points.settings_of({**p, "ridge": 0.0, "rule": "frozen"})
    numerics = points.numerics_of({**p, "draw": 0, "repeats": few})
    top, kernels, readouts = min(_PIECES[1], pool), list[float](), list[float]()
    pieces = sorted({max(top // 3, 2), top})
    for n in pieces:  # which may get longer
        part = _piece(data, n)
        found, seconds = _timed(lambda part=part: pool_kernels(part, settings, numerics, max(p["sizes"]), part.rows))
        if found.message:
            return {"status": FAILED, "message": found.message}
        kernels.append(seconds)
        count = wanted if len(found.kernels) > 1 else 1
        readout = Readout({**p, "sizes": _sizes(p["sizes"], n, pool)}, part)
        mean, samples = found.kernels.mean(axis=0), found.kernels[np.arange(count) % len(found.kernels)]
        readouts.append(_timed(lambda r=readout, m=mean, s=samples: r.of(m, s), time.process_time)[1])
        if n == _PIECES[1] and pool > _PIECES[2] and kernels[-1] + readouts[-1] < _QUICK:
            pieces.append(_PIECES[2])
    return {
        "status": "converged",
        "kernels": grown(pieces, kernels, whole, 2) * _rounds(wanted) / _rounds(few),
        "readout": grown(pieces, readouts, pool, 3) * len(data.rows),
    }


def memory(tasks: Sequence[Task]) -> float:
    """Return the bytes of a process at its peak: two kernels of every repeat, as found and corrected, and the work.

    Of deep networks those of all layers.
    """
    if not tasks:
        return 0.0
    count = len(pools_of(tasks[0].parameters).y_target)
    return _PROCESS + 8.0 * max(_kernels(task.parameters) for task in per_point(tasks)) * count**2


def workers_within(size: float, jobs: int) -> tuple[int, str]:
    """Return how many of `jobs` processes of `size` bytes there may be at once, one at the least, and why if fewer."""
    count = max(1, min(jobs, int(_TOGETHER // size))) if size else jobs
    if count == jobs:
        return jobs, ""
    return count, (
        f"{counted(count, 'worker')} instead of {jobs}: each holds {shown_size(size)}, and averages keep within "
        f"{shown_size(_TOGETHER)} together; every worker trains its repeats in threads."
    )


def _kernels(p: Mapping[str, Any]) -> int:
    """Return how many kernels between all points a task holds at once."""
    if p["gamma0"] == 0:
        return _UNTRAINED
    repeats, depth = int(p.get("repeats") or REPEATS), int(p.get("depth") or 1)
    if depth > 1:
        return _PER_LAYER * (depth + 1) * repeats + _DEEP
    return max(_PER_REPEAT * repeats + _ALONE, _LEAST)


def grown(sizes: Sequence[int], seconds: Sequence[float], size: int, power: int) -> float:
    """Return the seconds at a size from those at smaller ones, the last two, of which a part grows with its power."""
    if len(sizes) == 1:
        return seconds[0]
    share = (size**power - sizes[-1] ** power) / (sizes[-1] ** power - sizes[-2] ** power)
    return seconds[-1] + max(0.0, seconds[-1] - seconds[-2]) * share


def _timed(call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> tuple[Any, float]:
    """Return what a call returns, and its seconds; those of one thread by a clock that others do not disturb."""
    start = clock()
    return call(), clock() - start


def _piece(data: PoolData, count: int) -> PoolData:
    """Return the data with the first points of the first pool alone."""
    rows = data.rows[0][:count]
    return replace(data, x_target=data.x_target[rows], y_target=data.y_target[rows], rows=[np.arange(count)])


def _sizes(sizes: Sequence[int], count: int, pool: int) -> list[int]:
    """Return as many numbers of samples for a piece of a pool, as far as there are, of the same kinds of averages."""
    small, large = [p for p in sizes if p <= min(FEW, count // 2)], [p for p in sizes if p > FEW]
    top = min(count // 2, max(max(sizes) * count // pool, FEW + len(large)))
    line = np.unique(np.linspace(FEW + 1, top, len(large)).astype(int)).tolist() if top > FEW else []
    return [*small, *line] or [max(count // 2, 1)]


def _rounds(repeats: int) -> float:
    """Return how often the threads are filled by repeats, and once more in part."""
    return math.ceil(repeats / thread_count()) + _AGAIN
