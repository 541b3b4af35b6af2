"""What a case will need, told from a small part of its grid, and whether the machine has as much memory."""

import math
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tlcli.errors import UsageError
from tlcli.run.invocation import Invocation
from tlcli.run.job import Job
from tlcli.run.stores import Stores
from tlcli.sweep.grids import Grid, Values
from tlcli.sweep.runner import left_of
from tlcli.theories.amounts import shown_size
from tlcli.theories.base import Case, PointByPoint

_SAMPLE = 4  # values per axis of the grid that is timed
# Measured from 2e5 to 1e7 points: a process with its figure, and what it holds at its peak per byte of the columns
# (the columns, temporaries of theory and search, cells of the figure; text is written in parts).
_PROCESS = 140e6
_PER_COLUMN = 6.0
_LARGE = 1_000_000  # rows of a table, below which it fits anywhere


def theory_cost(case: Case) -> tuple[float, float]:
    """Time a thinned grid and scale up; return seconds, and the bytes of all columns at full size."""
    thin = {}
    for name, values in case.grid.values.items():
        step = max(1, values.size // _SAMPLE)
        thin[name] = Values(values.array[::step], values.scale) if values.size > 1 else values
    sample = Grid(thin)
    start = time.perf_counter()
    columns = case.theory.columns(replace(case, grid=sample))
    seconds = time.perf_counter() - start
    # A column is as large as the axes that it depends on.
    growth = [*(case.grid.values[name].size / sample.values[name].size for name in case.grid.axes)]
    growth += [1.0] * len(case.theory.inner)
    size = 0.0
    for column in map(np.asarray, columns.values()):
        varied = zip(growth[len(growth) - column.ndim :], column.shape, strict=True)
        size += column.nbytes * math.prod(factor for factor, length in varied if length > 1)
    # A thin sample is mostly overhead; a closed form takes about a microsecond per point, table and figure included.
    if case.theory.cheap:
        return seconds + case.grid.size * 1e-6, size
    return seconds * case.grid.size / max(sample.size, 1), size


def peak(columns: Sequence[float]) -> float:
    """Return the bytes that a run holds at its peak; `columns` are those of the columns of its cases."""
    return _PROCESS + sum(columns) + (_PER_COLUMN - 1) * max(columns, default=0.0)


def available_memory() -> float:
    """Return the bytes that a new process could use: what is free or can be freed, within the limit of its group."""
    return min([_free(), *_group_limits()])


def refuse_what_cannot_fit(job: Job, how: Invocation, stores: Stores) -> None:
    """Refuse before the work what needs more memory than there is.

    Raises:
        UsageError: with what is needed, what there is, and the remedy.
    """
    large = [case for case in job.cases if case.theory.searchable and _rows(case) >= _LARGE]
    tables = peak([theory_cost(case)[1] for case in large]) if large else 0.0
    if large and tables > available_memory():
        rows = sum(map(_rows, large))
        raise _too_large(
            f"a table of {rows} rows", tables, "use a smaller grid, or several runs with a part of it each"
        )
    for case in job.cases:
        if not isinstance(case.theory, PointByPoint):
            continue
        tasks = case.theory.tasks(case, job.settings["seed"])
        left = left_of(tasks, stores.of(case), how.share)
        workers = min(how.jobs, len(left)) if how.executor == "local" else 1
        size = case.theory.memory(left) * workers
        if size > available_memory():
            what = "the largest network" if workers == 1 else f"the largest network on each of {workers} workers"
            fewer = " or --jobs" if workers > 1 else ""
            raise _too_large(what, size, f"use fewer samples (--p1, --p2); --neurons, --repeats of deep ones{fewer}")


def _too_large(what: str, needed: float, remedy: str) -> UsageError:
    have = shown_size(available_memory())
    return UsageError(f"{what} needs about {shown_size(needed)} of memory, and {have} are available; {remedy}.")


def _rows(case: Case) -> int:
    return case.grid.size * math.prod(len(values) for values in case.theory.inner.values())


def _free() -> float:
    """Return what the system says is available, all that it has where it does not say, inf where it tells nothing."""
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            return 1024.0 * int(line.split()[1])
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def _group_limits() -> list[float]:
    """Return the limits of the control groups of this process, in both versions of them."""
    found = []
    for line in _lines(Path("/proc/self/cgroup")):
        _, kinds, group = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        root = Path("/sys/fs/cgroup/memory" if kinds else "/sys/fs/cgroup")
        folder = root / group.lstrip("/")
        for one in (folder, *(parent for parent in folder.parents if parent.is_relative_to(root))):
            words = _lines(one / ("memory.limit_in_bytes" if kinds else "memory.max"))
            found += [float(word) for word in words if word.isdigit()]
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
