"""Theory and experiments of one case: what a sweep has to compute goes through the store."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tlcli.errors import counted
from tlcli.report.markup import plain_text
from tlcli.run.invocation import Invocation
from tlcli.run.job import Job
from tlcli.run.messages import Messages
from tlcli.sweep.runner import Placed, Task, left_of
from tlcli.sweep.store import PointStore
from tlcli.theories.base import Case, Findings

_SHOWN = 3  # messages of points that broke off


class _OtherShards(Exception):
    """Points of the case belong to other shards: nothing can be joined yet."""


def solve(
    job: Job, case: Case, known: Findings, how: Invocation, store: PointStore | None, messages: Messages
) -> Findings | None:
    """Return what the theory has found, `known` before the sweep; None where points belong to other shards.

    Raises:
        UsageError: every point fails for a reason that is the user's.
    """
    label = _label(job, case)

    def sweep() -> Sequence[Placed]:
        tasks = case.theory.tasks(case, job.settings["seed"])
        result = how.sweep(f"{label} theory", tasks, store, messages, _workers(case, tasks, how, store, messages))
        if None in result.records:
            raise _OtherShards
        return result.placed(tasks)

    try:
        found = case.theory.complete(case, known, sweep)
    except _OtherShards:
        return None
    for text in found.messages[:_SHOWN]:
        messages.warn(text)
    if len(found.messages) > _SHOWN:
        messages.warn(f"{counted(len(found.messages) - _SHOWN, 'more message')} of points that broke off.")
    for text in found.notes:
        messages.note(text)
    if math.isfinite(found.reached):
        messages.note(
            f"{label}: no standard error of a loss is above {found.reached:.2g} (in units of losses of order one)"
        )
    return found


def _workers(case: Case, tasks: Sequence[Task], how: Invocation, store: PointStore | None, messages: Messages) -> int:
    """Return on how many processes of this machine the theory works, and tell if these are fewer than asked for."""
    left = left_of(tasks, store, how.share) if how.jobs > 1 and how.executor == "local" else []
    if len(left) < 2:
        return how.jobs
    count, why = case.theory.workers(left, min(how.jobs, len(left)))
    if why:
        messages.note(why)
        return count
    return how.jobs


@dataclass(frozen=True)
class Measured:
    """What the experiments of a case have measured.

    `variants` says what each of them is (experiment, width, number of trials), `records` has the record of every point
    (in C order of the grid) for each: `NAME` and `NAME_se`, None where it belongs to another shard.
    """

    variants: list[dict[str, Any]] = field(default_factory=list)
    records: list[list[Mapping[str, Any] | None]] = field(default_factory=list)
    n_failed: int = 0

    @property
    def whole(self) -> bool:
        """Whether every point is there."""
        return all(record is not None for line in self.records for record in line)


def planned(case: Case, settings: Mapping[str, Any]) -> list[tuple[dict[str, Any], Any, Sequence[Task]]]:
    """Return every variant of the experiments of a case, with its experiment and its tasks."""
    seed = settings["seed"]
    return [
        (variant, experiment, experiment.tasks(case, variant, settings, seed))
        for experiment in case.experiments
        for variant in experiment.variants(case, settings)
    ]


def measure(job: Job, case: Case, how: Invocation, store: PointStore | None, messages: Messages) -> Measured | None:
    """Run the experiments of a case; None where there are none."""
    if not case.experiments:
        return None
    parts = planned(case, job.settings)
    result = how.sweep(_label(job, case), [task for *_, tasks in parts for task in tasks], store, messages)
    if result.n_failed:
        first = next(r for r in result.records if r is not None and r.get("status") == "failed")
        messages.warn(f"{counted(result.n_failed, 'experiment')} failed, the first with {first.get('message')}")
    records, start = [], 0
    for _, experiment, tasks in parts:
        groups: dict[int, list[Placed]] = {}
        for task, record in zip(tasks, result.records[start : start + len(tasks)], strict=True):
            groups.setdefault(task.point, []).append(Placed(task.point, task.draw, record))
        records.append([experiment.merge(case, groups[point]) for point in range(case.grid.size)])
        start += len(tasks)
    restless = sum(r is not None and r.get("status") == "not_converged" for line in records for r in line)
    if restless:
        messages.warn(
            f"chains of {counted(restless, 'experiment')} still drift (sim_drift), so that there are no numbers: "
            "lower beta or gamma."
        )
    return Measured([variant for variant, *_ in parts], records, result.n_failed + restless)


def _label(job: Job, case: Case) -> str:
    return f"{job.name} {plain_text(case.label)}" if case.label else job.name
