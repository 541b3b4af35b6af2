"""`--dry-run`: what would be computed, how long it would take, how large it would be."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tlcli.errors import counted
from tlcli.report.markup import plain_text
from tlcli.run.cost import peak, theory_cost
from tlcli.run.invocation import Invocation
from tlcli.run.job import Job
from tlcli.run.solve import planned
from tlcli.run.stores import Stores
from tlcli.sweep.drawn import per_point, together
from tlcli.sweep.runner import Shard, Task, evaluate, left_of, plan
from tlcli.sweep.store import PointStore
from tlcli.theories.amounts import shown_size, shown_time
from tlcli.theories.base import PointByPoint


def report(job: Job, how: Invocation, store: Stores) -> None:
    """Print the plan; estimates come from a small part of the grid and from one trial of the first experiment."""
    for case in job.cases:
        axes = " x ".join(f"{name} ({case.grid.values[name].size})" for name in case.grid.axes) or "one point"
        title = f"{job.name} [{plain_text(case.label)}]" if case.label else job.name
        print(f"{title}: {case.theory.name} on {axes}: {counted(case.grid.size, 'point')}")
        if (tasks := case.theory.tasks(case, job.settings["seed"])) and isinstance(case.theory, PointByPoint):
            _costly(tasks, store.of(case), how)
            for line in case.theory.estimate(case, tasks, left_of(tasks, store.of(case), how.share), how.jobs):
                print(f"  {line}")
            continue
        seconds, size = theory_cost(case)
        print(f"  theory: {shown_time(seconds)}, {shown_size(peak([size]))}")
    parts = [part for case in job.cases for part in planned(case, job.settings)]
    tasks = together([part for *_, part in parts])
    if not tasks:
        return
    count, done = plan(tasks, store.experiments, how.share)
    left = count - done
    print(f"  experiments: {counted(count, 'point')}{_of_shard(how)}, {done} already stored, {left} to compute")
    if left:
        if all("trials" not in task.parameters for task in per_point(tasks)):
            _networks(tasks, store.experiments, how.share, how.jobs)
            return
        seconds = one_trial(tasks[0]) * int(job.settings["trials"]) * left / how.jobs
        sizes = [(one.memory(task.parameters), task.parameters["dim"]) for _, one, part in parts for task in part]
        size, dim = max(sizes, key=lambda pair: pair[0])
        memory = shown_size(size * min(how.jobs, left))
        print(f"  {shown_time(seconds)} on {counted(how.jobs, 'worker')}, {memory} (D = {dim})")


def _of_shard(how: Invocation) -> str:
    return f" of shard {how.shard}" if how.shard else ""


def _costly(tasks: Sequence[Task], store: PointStore | None, how: Invocation) -> None:
    """Say how many points of a costly theory there are and are stored: a single one may take minutes to time."""
    count, done = plan(tasks, store, how.share)
    words = f"{'point and draw' if count == 1 else 'points and draws'} of the data{_of_shard(how)}"
    print(f"  theory: {count} {words}, {done} already stored, {count - done} to compute")


def _networks(tasks: Sequence[Task], store: PointStore | None, shard: Shard | None, jobs: int) -> None:
    """Say what networks of finite width take: a few moves or steps at points of every width are timed."""
    groups: dict[Any, list[Task]] = {}
    left = left_of(tasks, store, shard)
    alike = per_point(left)
    for task in alike:
        groups.setdefault((task.function, task.parameters.get("width")), []).append(task)
    costs = []
    for (function, _), group in groups.items():
        expected_cost = getattr(importlib.import_module(function.partition(":")[0]), "expected_cost", None)
        if expected_cost is None:
            return
        seconds, size = np.mean([expected_cost(task.parameters) for task in spread(group)], axis=0)
        costs.append((seconds * len(group) * len(left) / len(alike), size))
    workers = min(jobs, len(left))
    seconds, size = sum(c[0] for c in costs) / workers, max(c[1] for c in costs) * workers
    print(f"  {shown_time(seconds)} on {counted(workers, 'worker')}, {shown_size(size)}")


def spread(group: Sequence[Task]) -> list[Task]:
    """Return the first and the last of the tasks: rich networks take more steps than lazy ones."""
    return [group[at] for at in sorted({0, len(group) - 1})]


def one_trial(task: Task) -> float:
    """Return the seconds of one trial of a point."""
    parameters: dict[str, Any] = {**task.parameters, "trials": 2}
    evaluate(task.function, parameters, task.seed)  # the first call loads libraries
    return evaluate(task.function, parameters, task.seed)[1] / 2
