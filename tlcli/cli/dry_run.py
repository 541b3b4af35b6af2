"""`--dry-run`: what would be computed, how long it would take, how large it would be."""

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tlcli.cli.theory import theory_tasks
from tlcli.jobs import Job
from tlcli.solvers.base import Case
from tlcli.sweep.grids import Grid, Values
from tlcli.sweep.runner import Task, evaluate, plan
from tlcli.sweep.store import PointStore

if TYPE_CHECKING:
    from tlcli.cli.execute import Invocation, Stores

_SAMPLE = 4  # values per axis of the grid that is timed


def report(job: Job, how: "Invocation", store: "Stores") -> None:
    """Print the plan; estimates come from a small part of the grid and from one trial of the first experiment."""
    from tlcli.cli.execute import planned

    for case in job.cases:
        axes = " x ".join(f"{name} ({case.grid.values[name].size})" for name in case.grid.axes) or "one point"
        title = f"{job.name} [{case.label}]" if case.label else job.name
        print(f"{title}: {case.solver.name} on {axes}: {case.grid.size} points")
        if case.solver.point is not None:
            tasks = theory_tasks(case, job.settings["seed"])
            _costly(tasks, store.of(case))
            _tables(tasks)
            continue
        seconds, size = _theory_cost(case)
        print(f"  theory: {_duration(seconds)}, {_memory(size)}")
    tasks, done = planned(job, store.experiments)
    if not tasks:
        return
    left = len(tasks) - done
    print(f"  experiments: {len(tasks)} points, {done} already stored, {left} to compute")
    if left:
        if all("trials" not in task.parameters for task in tasks):  # one network takes as long as its theory
            return
        seconds = _one_trial(tasks[0]) * int(job.settings["trials"]) * left / how.jobs
        dim = max(int(task.parameters["dim"]) for task in tasks)
        print(f"  {_duration(seconds)} on {how.jobs} worker(s), {_memory(8 * 12 * dim**2 * how.jobs)} (D = {dim})")


def _costly(tasks: Sequence[Task], store: PointStore | None) -> None:
    """Say how many points of a costly theory there are and are stored: a single one may take minutes to time."""
    count, done = plan(tasks, store)
    print(f"  theory: {count} points and draws of the data, {done} already stored, {count - done} to compute")


def _tables(tasks: Sequence[Task]) -> None:
    """Say what the tables of the largest deep network among the points need."""
    deep = [task.parameters for task in tasks if task.parameters.get("depth", 1) > 1]
    if not deep:
        return
    from tlcli.solvers.network import expected_size_of

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
