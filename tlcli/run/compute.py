"""One question from settings to numbers: theory, experiments, searches. Nothing is printed and no result written."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tlcli.errors import UsageError
from tlcli.report.tables import Block
from tlcli.run.assemble import block_of
from tlcli.run.cost import refuse_what_cannot_fit
from tlcli.run.invocation import Invocation
from tlcli.run.job import Job, prepare
from tlcli.run.messages import Messages
from tlcli.run.outputs import check_drawing
from tlcli.run.recipe import Recipe
from tlcli.run.result import Outcome, Result
from tlcli.run.solve import measure, planned, solve
from tlcli.run.stores import Stores
from tlcli.run.unused import check_flags, tell_undrawn
from tlcli.sweep.executors import check_executor, make_executor
from tlcli.sweep.runner import parse_shard, plan
from tlcli.theories.base import Case, Columns, Findings
from tlcli.theories.search import best_gamma0, best_value


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
    outcomes = _begin(job, how, begun, messages)
    if how.executor != "local" and _anything_left(job, stores):
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


def _begin(job: Job, how: Invocation, begun: Callable[[Sequence[Block]], None], messages: Messages) -> list[Outcome]:
    """Evaluate closed forms and refuse before any longer work what cannot be drawn or written after it."""
    outcomes = [Outcome(case, Findings(case.theory.columns(case))) for case in job.cases]
    for one in outcomes:
        one.case.theory.judge(one.case, one.found.columns)
    if not how.to_stdout:
        blocks = [block_of(one.case, one.found.columns | _searched(job, one.case)) for one in outcomes]
        if not check_drawing(job, blocks, messages):
            tell_undrawn(job, messages)
        begun(blocks)
    return outcomes


def _anything_left(job: Job, stores: Stores) -> bool:
    """Whether an executor is needed: what is stored already can be read without one."""
    groups = [(case.theory.tasks(case, job.settings["seed"]), stores.of(case)) for case in job.cases]
    groups += [(tasks, stores.experiments) for case in job.cases for *_, tasks in planned(case, job.settings)]
    counts = [plan(tasks, store) for tasks, store in groups]
    return any(stored < count for count, stored in counts)


def _search(job: Job, one: Outcome, messages: Messages) -> None:
    """Add the best richness or coupling of a theory that is known at any parameters."""
    if _wants_best(job, one.case):
        one.found.columns |= best_gamma0(one.case)
    if _wants_delta(job, one.case):
        quantity = one.case.theory.quantity
        one.found.columns |= best_value(one.case, "delta", quantity)
        if np.isnan(one.found.columns["delta_opt"]).any():
            messages.note(f"where {quantity} is the same for every delta none is the best, and delta_opt is nan.")


def _wants_best(job: Job, case: Case) -> bool:
    wanted = job.settings["optimal_gamma0"]
    if wanted and "gamma0" not in case.grid.values:
        raise UsageError(f"--optimal-gamma0: {case.theory.name} has no gamma0 here.")
    if wanted and "delta" in case.theory.parameters:
        raise UsageError(f"--optimal-gamma0 is not for {case.theory.name}; it finds the best delta, --optimal-delta.")
    if wanted and not case.theory.searchable:
        raise UsageError(f"--optimal-gamma0 searches over gamma0, which {case.theory.name} is too costly for.")
    if wanted is None:
        is_map = job.command == "phase-diagram" or "y" in job.roles or "map" in job.settings["style"].split(",")
        drawn = is_map and "gamma0" in case.grid.axes
        return drawn and case.theory.cheap and case.theory.own == {} and "delta" not in case.theory.parameters
    return bool(wanted)


def _searched(job: Job, case: Case) -> Columns:
    """Return the columns of a search that is still to come, without numbers."""
    names = []
    if _wants_best(job, case):
        names += ["gamma0_opt", f"{case.theory.quantity}_opt"]
    if _wants_delta(job, case):
        names += ["delta_opt", f"{case.theory.quantity}_opt"]
    return {name: np.full(case.grid.shape, np.nan) for name in names}


def _wants_delta(job: Job, case: Case) -> bool:
    """Whether the best delta of a closed form is searched; costly solvers choose among the grid's themselves."""
    wanted = job.settings["optimal_delta"]
    if wanted and "delta" not in case.theory.parameters:
        raise UsageError(f"--optimal-delta: {case.theory.name} has no delta.")
    if "delta" not in case.theory.parameters or not case.theory.searchable:
        return False
    return "delta" in case.grid.axes if wanted is None else bool(wanted)
