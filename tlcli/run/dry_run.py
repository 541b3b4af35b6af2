"""`--dry-run`: what would be computed, how long it would take, how large it would be."""

import importlib
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tlcli.run.job import Job
from tlcli.run.solve import theory_tasks
from tlcli.sweep.grids import Grid, Values
from tlcli.sweep.runner import Task, evaluate, plan
from tlcli.sweep.store import PointStore
from tlcli.theories.base import Case

if TYPE_CHECKING:
    from tlcli.run.execute import Invocation, Stores

_SAMPLE = 4  # values per axis of the grid that is timed


def report(job: Job, how: "Invocation", store: "Stores") -> None:
    """Print the plan; estimates come from a small part of the grid and from one trial of the first experiment."""
    from tlcli.run.execute import planned

    for case in job.cases:
        axes = " x ".join(f"{name} ({case.grid.values[name].size})" for name in case.grid.axes) or "one point"
        title = f"{job.name} [{case.label}]" if case.label else job.name
        print(f"{title}: {case.solver.name} on {axes}: {case.grid.size} points")
        if case.solver.point is not None:
            tasks = theory_tasks(case, job.settings["seed"])
            _costly(tasks, store.of(case))
            _tables(tasks)
            _expected(case, tasks, store.of(case), how.jobs)
            continue
        seconds, size = _theory_cost(case)
        print(f"  theory: {_duration(seconds)}, {_memory(size)}")
    tasks, done = planned(job, store.experiments)
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
        print(f"  {_duration(seconds)} on {how.jobs} worker(s), {_memory(8 * 12 * dim**2 * how.jobs)} (D = {dim})")


def _costly(tasks: Sequence[Task], store: PointStore | None) -> None:
    """Say how many points of a costly theory there are and are stored: a single one may take minutes to time."""
    count, done = plan(tasks, store)
    print(f"  theory: {count} points and draws of the data, {done} already stored, {count - done} to compute")


def _left(tasks: Sequence[Task], store: PointStore | None) -> list[Task]:
    return [task for task in tasks if store is None or not store.has(store.key(task.parameters, task.seed))]


def _expected(case: Case, tasks: Sequence[Task], store: PointStore | None, jobs: int) -> None:
    """Say what the points to compute cost, where the theory knows it from their sizes."""
    expected_cost = getattr(case.solver.engine(), "expected_cost", None)
    left = _left(tasks, store)
    if expected_cost is None or not left:
        return
    least, most, size, words = expected_cost(left)
    workers = min(jobs, len(left))
    low, high = _duration(least / workers), _duration(most / workers)
    time_ = low if low == high else f"{low} if all is certified at once, at most {high}"
    print(f"  {time_} on {workers} worker(s), {_memory(size * workers)}: {words}")


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
    print(f"  {_duration(seconds)} on {workers} worker(s), {_memory(size)}")


def _tables(tasks: Sequence[Task]) -> None:
    """Say what the tables of the largest deep network among the points need."""
    deep = [task.parameters for task in tasks if task.parameters.get("depth", 1) > 1]
    if not deep:
        return
    from tlcli.theories.network.points import expected_size_of

    rank, neurons, size = max((expected_size_of(p) for p in deep), key=lambda found: found[2])
    if size:
        print(
            f"  memory: {_memory(size)} for (2 r + n) S words per hidden matrix and repeat, r = {rank} directions, "
            f"S = {neurons} neurons and all n points expected"
        )


def _theory_cost(case: Case) -> tuple[float, float]:
    """Time a thinned grid and scale up; bytes of all columns at full size."""
    thin = {}
    for name, values in case.grid.values.items():
        step = max(1, values.size // _SAMPLE)
        thin[name] = Values(values.array[::step], values.scale) if values.size > 1 else values
    sample = Grid(thin)
    start = time.perf_counter()
    columns = case.solver.evaluate({**sample.open(), **case.words})
    seconds = time.perf_counter() - start
    numbers = sum(math.prod(np.shape(column)) for column in columns.values())
    scale = case.grid.size / max(sample.size, 1)
    # A thin sample is mostly overhead; a closed form takes about a microsecond per point, table and figure included.
    if case.solver.closed_form:
        return seconds + case.grid.size * 1e-6, 8.0 * numbers * scale
    return seconds * scale, 8.0 * numbers * scale


def _one_trial(task: Task) -> float:
    parameters: dict[str, Any] = {**task.parameters, "trials": 2}
    evaluate(task.function, parameters, task.seed)  # the first call loads libraries
    return evaluate(task.function, parameters, task.seed)[1] / 2


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "less than 1 s"
    if seconds < 120:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 7200 else f"about {seconds / 3600:.1f} h"


def _memory(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(size / 1e6, 1):.0f} MB"
