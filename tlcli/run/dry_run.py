"""`--dry-run`: what would be computed, how long it would take, how large it would be."""

import importlib
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tlcli.run.invocation import Invocation
from tlcli.run.job import Job
from tlcli.run.solve import planned
from tlcli.run.stores import Stores
from tlcli.sweep.grids import Grid, Values
from tlcli.sweep.runner import Task, evaluate, plan
from tlcli.sweep.store import PointStore
from tlcli.theories.amounts import shown_size, shown_time
from tlcli.theories.base import Case, PointByPoint

_SAMPLE = 4  # values per axis of the grid that is timed


def report(job: Job, how: Invocation, store: Stores) -> None:
    """Print the plan; estimates come from a small part of the grid and from one trial of the first experiment."""
    for case in job.cases:
        axes = " x ".join(f"{name} ({case.grid.values[name].size})" for name in case.grid.axes) or "one point"
        title = f"{job.name} [{case.label}]" if case.label else job.name
        print(f"{title}: {case.theory.name} on {axes}: {case.grid.size} points")
        if (tasks := case.theory.tasks(case, job.settings["seed"])) and isinstance(case.theory, PointByPoint):
            _costly(tasks, store.of(case))
            for line in case.theory.estimate(case, tasks, _left(tasks, store.of(case)), how.jobs):
                print(f"  {line}")
            continue
        seconds, size = _theory_cost(case)
        print(f"  theory: {shown_time(seconds)}, {shown_size(size)}")
    tasks = [task for case in job.cases for *_, part in planned(case, job.settings) for task in part]
    done = plan(tasks, store.experiments)[1] if tasks else 0
    if not tasks:
        return
    left = len(tasks) - done
    print(f"  experiments: {len(tasks)} points, {done} already stored, {left} to compute")
    if left:
        if all("trials" not in task.parameters for task in tasks):
            _posteriors(tasks, store.experiments, how.jobs)
            return
        seconds = _one_trial(tasks[0]) * int(job.settings["trials"]) * left / how.jobs
        dim = max(int(task.parameters["dim"]) for task in tasks)
        print(f"  {shown_time(seconds)} on {how.jobs} worker(s), {shown_size(8 * 12 * dim**2 * how.jobs)} (D = {dim})")


def _costly(tasks: Sequence[Task], store: PointStore | None) -> None:
    """Say how many points of a costly theory there are and are stored: a single one may take minutes to time."""
    count, done = plan(tasks, store)
    print(f"  theory: {count} points and draws of the data, {done} already stored, {count - done} to compute")


def _left(tasks: Sequence[Task], store: PointStore | None) -> list[Task]:
    return [task for task in tasks if store is None or not store.has(store.key(task.parameters, task.seed))]


def _posteriors(tasks: Sequence[Task], store: PointStore | None, jobs: int) -> None:
    """Say what sampling takes, a few moves of which are timed at every width.

    Trained networks have no estimate: one takes as long as its theory.
    """
    groups: dict[Any, list[Task]] = {}
    for task in _left(tasks, store):
        groups.setdefault((task.function, task.parameters.get("width")), []).append(task)
    costs = []
    for (function, _), group in groups.items():
        expected_cost = getattr(importlib.import_module(function.partition(":")[0]), "expected_cost", None)
        if expected_cost is None:
            return
        seconds, size = expected_cost(group[0].parameters)
        costs.append((seconds * len(group), size))
    workers = min(jobs, sum(map(len, groups.values())))
    seconds, size = sum(c[0] for c in costs) / workers, max(c[1] for c in costs) * workers
    print(f"  {shown_time(seconds)} on {workers} worker(s), {shown_size(size)}")


def _theory_cost(case: Case) -> tuple[float, float]:
    """Time a thinned grid and scale up; bytes of all columns at full size."""
    thin = {}
    for name, values in case.grid.values.items():
        step = max(1, values.size // _SAMPLE)
        thin[name] = Values(values.array[::step], values.scale) if values.size > 1 else values
    sample = Grid(thin)
    start = time.perf_counter()
    columns = case.theory.columns(replace(case, grid=sample))
    seconds = time.perf_counter() - start
    numbers = sum(math.prod(np.shape(column)) for column in columns.values())
    scale = case.grid.size / max(sample.size, 1)
    # A thin sample is mostly overhead; a closed form takes about a microsecond per point, table and figure included.
    if case.theory.cheap:
        return seconds + case.grid.size * 1e-6, 8.0 * numbers * scale
    return seconds * scale, 8.0 * numbers * scale


def _one_trial(task: Task) -> float:
    parameters: dict[str, Any] = {**task.parameters, "trials": 2}
    evaluate(task.function, parameters, task.seed)  # the first call loads libraries
    return evaluate(task.function, parameters, task.seed)[1] / 2
