"""The theory of a job: closed forms at once, costly solvers point by point through the sweep and its store."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlcli.cli.console import Console
from tlcli.run.job import Job
from tlcli.sweep.runner import SweepResult, Task, parse_shard, run_sweep
from tlcli.sweep.store import PointStore
from tlcli.theories.base import Case, Columns

if TYPE_CHECKING:
    from tlcli.run.execute import Invocation
    from tlcli.theories.network.results import Findings

_SHOWN = 3  # messages of points that broke off


@dataclass(eq=False)
class Theory:
    """Columns of one case; `findings` is what a costly solver has to tell besides, None for a closed form."""

    columns: Columns
    findings: "Findings | None" = None


def theory_tasks(case: Case, seed: int) -> list[Task]:
    """Return the tasks of a costly solver; a closed form has none."""
    if case.solver.point is None:
        return []
    return case.solver.engine().tasks_of(case, seed)


def check_theory(case: Case) -> None:
    """Refuse what a costly solver cannot compute before anything is computed.

    Raises:
        UsageError: see `check_points` of `tlcli.theories.network.points` and `tlcli.theories.bayes.points`.
    """
    if case.solver.point is not None:
        case.solver.engine().check_points(case)


def first_columns(case: Case) -> Columns:
    """Return the columns of a closed form, or the names of a costly solver's without their numbers."""
    if case.solver.point is None:
        return case.solver.evaluate(case.parameters())
    return case.solver.engine("_results").placeholder(case)


def solve_points(
    job: Job, case: Case, how: "Invocation", store: PointStore | None, console: Console
) -> "Findings | None":
    """Compute a costly solver's points, or read them from the store; None where points belong to other shards.

    Raises:
        UsageError: every point fails for a reason that is the user's.
    """
    label = f"{job.name} {case.label}" if case.label else job.name
    result = sweep(f"{label} theory", theory_tasks(case, job.settings["seed"]), how, store, console)
    if None in result.records:
        return None
    found = case.solver.engine("_results").combine(case, [record for record in result.records if record is not None])
    for text in found.messages[:_SHOWN]:
        console.warn(text)
    if len(found.messages) > _SHOWN:
        console.warn(f"{len(found.messages) - _SHOWN} more message(s) of points that broke off.")
    for text in found.notes:
        console.note(text)
    if math.isfinite(found.reached):
        console.note(
            f"{label}: no standard error of a loss is above {found.reached:.2g} (in units of losses of order one)"
        )
    return found


def sweep(
    label: str, tasks: Sequence[Task], how: "Invocation", store: PointStore | None, console: Console
) -> SweepResult:
    """Run tasks as the invocation says, with progress; tell warnings of the store."""
    with console.progress(label) as progress:
        result = run_sweep(
            tasks,
            store=store,
            executor_spec=how.executor,
            jobs=how.jobs,
            shard=parse_shard(how.shard) if how.shard else None,
            progress=progress.update,
        )
    for warning in result.warnings:
        console.warn(warning)
    return result
