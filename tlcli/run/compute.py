"""One question from settings to numbers: theory, experiments, searches. Nothing is printed and no result written."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tlcli.report.tables import Block
from tlcli.run.assemble import block_of
from tlcli.run.cost import refuse_what_cannot_fit, sampled
from tlcli.run.invocation import Invocation
from tlcli.run.job import Job, prepare
from tlcli.run.messages import Messages
from tlcli.run.outputs import check_drawing, check_written
from tlcli.run.recipe import Recipe
from tlcli.run.result import CaseResult, Result
from tlcli.run.solve import measure, planned, solve
from tlcli.run.stores import Stores
from tlcli.run.unused import check_flags, tell_undrawn
from tlcli.sweep.executors import check_executor, make_executor
from tlcli.sweep.runner import parse_shard, plan
from tlcli.theories.base import Case, Columns, Findings
from tlcli.theories.search import best_value, sought


def ask(
    command: str, allowed: tuple[str, ...], recipe: Recipe | None, flags: Mapping[str, Any], messages: Messages
) -> tuple[Job, Invocation]:
    """Return what is to be computed, and how; refuse before any work what cannot be.

    Raises:
        UsageError: an option that the command or its theory does not take, a bad value, a combination without effect.
    """
    job = prepare(command, allowed, recipe, flags)
    how = Invocation.of(flags)
    check_flags(job, flags, messages)
    if how.shard is not None:
        parse_shard(how.shard)
    make_executor(how.executor, how.jobs)  # not entered: an unknown name is refused before anything is written
    for case in job.cases:
        case.theory.check(case)
        sought(_is_map(job), case, job.settings)  # refused before a dry run looks at the points
        for experiment in case.experiments:
            experiment.check(case, job.settings)
    for text in job.notes:
        messages.note(text)
    return job, how


def compute(
    job: Job,
    how: Invocation,
    stores: Stores,
    messages: Messages,
    begun: Callable[[Sequence[Block]], None] = lambda blocks: None,
) -> Result | None:
    """Return what theory and experiments find; None where points belong to other shards.

    `begun` hears the blocks of the table before the work that takes time, when they have no numbers yet.
    """
    start = time.perf_counter()
    refuse_what_cannot_fit(job, how, stores)
    outcomes = [CaseResult(case, Findings(case.theory.columns(case))) for case in job.cases]
    _begin(job, outcomes, how, begun, messages)
    if how.executor != "local" and anything_left(job, stores):
        check_executor(how.executor, how.jobs)
    for one in outcomes:
        _search(job, one, messages)
    for one in outcomes:
        one.solved = solve(job, one.case, one.found, how, stores.of(one.case), messages)
    for one in outcomes:
        one.measured = measure(job, one.case, how, stores.experiments, messages)
    if any(one.solved is None or (one.measured and not one.measured.whole) for one in outcomes):
        return None
    for one in outcomes:
        one.found = one.solved or one.found
    blocks = [block_of(one.case, one.found.columns, one.measured) for one in outcomes]
    return Result(job, outcomes, blocks, seconds=time.perf_counter() - start)


def foresee(job: Job, how: Invocation, begun: Callable[[Sequence[Block]], None], messages: Messages) -> None:
    """Refuse what `compute` would before its work, by the columns of a small part of the grid."""
    parts = [sampled(case) for case in job.cases]
    outcomes = [CaseResult(thin, Findings(dict(columns))) for thin, columns, _ in parts]
    _begin(replace(job, cases=tuple(one.case for one in outcomes)), outcomes, how, begun, messages)


def _begin(
    job: Job,
    outcomes: Sequence[CaseResult],
    how: Invocation,
    begun: Callable[[Sequence[Block]], None],
    messages: Messages,
) -> None:
    """Refuse what cannot be drawn or written once closed forms are known, before any longer work."""
    for one in outcomes:
        one.case.theory.judge(one.case, one.found.columns)
    blocks = [block_of(one.case, one.found.columns | _searched(job, one.case)) for one in outcomes]
    check_written(job, blocks)
    if not how.to_stdout:
        if not check_drawing(job, blocks, messages):
            tell_undrawn(job, messages)
        begun(blocks)


def anything_left(job: Job, stores: Stores) -> bool:
    """Whether an executor is needed: what is stored already can be read without one."""
    groups = [(case.theory.tasks(case, job.settings["seed"]), stores.of(case)) for case in job.cases]
    groups += [(tasks, stores.experiments) for case in job.cases for *_, tasks in planned(case, job.settings)]
    counts = [plan(tasks, store) for tasks, store in groups]
    return any(stored < count for count, stored in counts)


def _search(job: Job, one: CaseResult, messages: Messages) -> None:
    """Add the best richness or coupling of a theory that is known at any parameters."""
    quantity = one.case.theory.quantity
    for name in sought(_is_map(job), one.case, job.settings):
        one.found.columns |= best_value(one.case, name, quantity)
        if np.isnan(one.found.columns[f"{name}_opt"]).any():
            messages.note(f"where {quantity} is the same for every {name} none is the best, and {name}_opt is nan.")


def _is_map(job: Job) -> bool:
    return job.command == "phase-diagram" or "y" in job.roles or "map" in job.settings["style"].split(",")


def _searched(job: Job, case: Case) -> Columns:
    """Return the columns of a search that is still to come, without numbers."""
    found = sought(_is_map(job), case, job.settings)
    names = [name for best in found for name in (f"{best}_opt", f"{case.theory.quantity}_opt")]
    return {name: np.full(case.grid.shape, np.nan) for name in names}
