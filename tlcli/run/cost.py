"""What a case will need, told from a small part of its grid, and whether the machine has as much memory."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from tlcli.run.invocation import Invocation
from tlcli.run.job import Job
from tlcli.run.solve import planned
from tlcli.run.stores import Stores
from tlcli.sweep.drawn import of_points, per_point
from tlcli.sweep.grids import Grid, Values
from tlcli.sweep.runner import Task, left_of
from tlcli.sweep.store import PointStore
from tlcli.theories.base import Case, Columns, Experiment, PointByPoint
from tlcli.theories.memory import available_memory, least_of_spectrum, least_size, shown_sizes, too_large

_SAMPLE = 4  # values per axis of the grid that is timed
_QUICK = 1.0  # seconds of a sample, after which no denser one is timed
# Measured from 2e5 to 1e7 points: a process with its figure, and what it holds at its peak per byte of the columns
# (the columns, temporaries of theory and search, cells of the figure; text is written in parts).
_PROCESS = 140e6
_PER_COLUMN = 6.0
_LARGE = 1_000_000  # rows of a table, below which it fits anywhere


def thinned(grid: Grid, count: int = _SAMPLE) -> Grid:
    """Return a grid with some of the values of every axis, about `count` of them and two at the least."""
    thin = {}
    for name, values in grid.values.items():
        step = max(1, values.size // count)
        thin[name] = Values(values.array[::step], values.scale) if values.size > 1 else values
    return Grid(thin)


@lru_cache(maxsize=8)  # a plan asks for memory, time and what a run would refuse
def sampled(case: Case) -> tuple[Case, Columns, float]:
    """Return the case on a thinned grid, its columns there, and the seconds that they took."""
    thin = replace(case, grid=thinned(case.grid))
    return thin, *_solved(thin)


def theory_cost(case: Case) -> tuple[float, float]:
    """Time a thinned grid and scale up; return seconds, and the bytes of all columns at full size."""
    thin, columns, seconds = sampled(case)
    sample = thin.grid
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
    return _grown(case, sample.size, seconds), size


def _solved(case: Case) -> tuple[Columns, float]:
    """Return the columns, and the seconds of one core that they took, whatever else the machine does."""
    start = time.process_time()
    return case.theory.columns(case), time.process_time() - start


def _grown(case: Case, size: int, seconds: float) -> float:
    """Return the seconds of the whole grid from those of `size` of its points.

    A search at every point of a grid takes its steps for all points at once: much is the same for a few as for many.
    Denser samples, as long as they are quick, tell what grows with their size.
    """
    each, count = seconds / max(size, 1), _SAMPLE
    while seconds < _QUICK and size < case.grid.size:
        count *= 2
        sample = thinned(case.grid, count)
        if sample.size == size:
            continue
        before, (_, seconds) = seconds, _solved(replace(case, grid=sample))
        each = min(max(0.0, seconds - before) / (sample.size - size), seconds / sample.size)
        size = sample.size
    return seconds + each * (case.grid.size - size)


def peak(columns: Sequence[float]) -> float:
    """Return the bytes that a run holds at its peak; `columns` are those of the columns of its cases."""
    return _PROCESS + sum(columns) + (_PER_COLUMN - 1) * max(columns, default=0.0)


def refuse_what_cannot_fit(job: Job, how: Invocation, stores: Stores) -> None:
    """Refuse before the work what needs more memory than there is.

    Raises:
        UsageError: with what is needed, what there is, and the remedy.
    """
    _refuse_sizes(job, how, stores)
    large = [case for case in job.cases if case.theory.searchable and _rows(case) >= _LARGE]
    tables = peak([theory_cost(case)[1] for case in large]) if large else 0.0
    if large and tables > available_memory():
        rows = sum(map(_rows, large))
        remedy = "use a smaller grid, or several runs with a part of it each"
        raise too_large(f"a table of {rows} rows", tables, available_memory(), remedy)
    for case in job.cases:
        if not isinstance(case.theory, PointByPoint):
            continue
        tasks = case.theory.tasks(case, job.settings["seed"])
        left = left_of(tasks, stores.of(case), how.share)
        workers = case.theory.workers(left, min(how.jobs, len(left)))[0] if how.executor == "local" else 1
        size = case.theory.memory(left) * workers
        if size > available_memory():
            what = "the largest network" if workers == 1 else f"the largest network on each of {workers} workers"
            fewer = " or --jobs" if workers > 1 else ""
            remedy = f"use fewer samples (--p1, --p2); --neurons, --repeats of deep ones{fewer}"
            raise too_large(what, size, available_memory(), remedy)


def _refuse_sizes(job: Job, how: Invocation, stores: Stores) -> None:
    """Refuse what its sizes alone say, before anything is drawn or timed. Raises UsageError."""
    have = available_memory()
    for case in job.cases:
        tasks = case.theory.tasks(case, job.settings["seed"])
        groups: list[tuple[Sequence[Task], Callable[[Mapping[str, Any]], float], PointStore | None]]
        groups = [(tasks, least_size, stores.of(case))]
        for _, experiment, others in planned(case, job.settings):
            groups.append((others, partial(_of_experiment, experiment), stores.experiments))
        if not tasks:  # a closed form has none
            groups.append(([Task("", case.words)], least_of_spectrum, None))
        for each, size, store in groups:
            found = [task for task in per_point(each) if size(task.parameters) > have]
            for task in left_of(of_points(each, found), store, how.share)[:1]:
                what = shown_sizes(task.parameters)
                raise too_large(f"a point of {what}", size(task.parameters), have, "use less", " at least")


def _of_experiment(experiment: Experiment, parameters: Mapping[str, Any]) -> float:
    return max(least_size(parameters), experiment.memory(parameters))


def _rows(case: Case) -> int:
    return case.grid.size * math.prod(len(values) for values in case.theory.inner.values())
