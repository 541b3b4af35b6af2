"""One invocation from settings to files: theory, experiments, boundaries, then table, figure, provenance."""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from tlcli.errors import EXIT_NOT_CONVERGED, EXIT_OK, UsageError, WriteError
from tlcli.options.columns import COLUMNS
from tlcli.report.folder import OutputFolder
from tlcli.report.numbers import rows
from tlcli.report.provenance import PROVENANCE
from tlcli.report.tables import Block, write_csv
from tlcli.run.assemble import block_of
from tlcli.run.cost import refuse_what_cannot_fit
from tlcli.run.invocation import Invocation
from tlcli.run.job import Job, prepare
from tlcli.run.messages import Messages, Silent
from tlcli.run.outputs import Outcome, check_drawing, drawing_of, files_read, may_write, write_results
from tlcli.run.recipe import Recipe
from tlcli.run.solve import Measured, measure, planned, solve
from tlcli.run.stores import Stores, stores_of
from tlcli.run.streams import silence, table_stream
from tlcli.run.unused import check_flags, tell_undrawn
from tlcli.status import Status
from tlcli.sweep.executors import check_executor, make_executor
from tlcli.sweep.runner import parse_shard, plan
from tlcli.theories.base import Case, Columns, Findings
from tlcli.theories.search import best_gamma0, best_value

_UNSOLVED = (Status.NOT_CONVERGED, Status.FAILED)


def execute(
    command: str,
    allowed: tuple[str, ...],
    recipe: Recipe | None,
    flags: Mapping[str, Any],
    console: Messages | None = None,
) -> int:
    """Run one command with flags on top of an optional recipe; return the exit code."""
    console = console or Silent()
    job = prepare(command, allowed, recipe, flags)
    how = Invocation.of(flags)
    check_flags(job, flags, console)
    if how.shard is not None:
        parse_shard(how.shard)
    make_executor(how.executor, how.jobs)  # not entered: an unknown name is refused before anything is written
    drawing_of(job, [])  # refused before anything is computed
    for case in job.cases:
        case.theory.check(case)
        for experiment in case.experiments:
            experiment.check(case, job.settings)
    for text in job.notes:
        console.note(text)
    output = None if how.to_stdout else OutputFolder(how.folder(job.name), files_read(job))
    if output is not None:
        output.refuse_taken({"table.csv", PROVENANCE}.__contains__)
    else:
        table_stream()  # closed, it is an error before the work
    stores = stores_of(job, how)
    if how.dry_run:
        from tlcli.run.dry_run import report

        report(job, how, stores)
    refuse_what_cannot_fit(job, how, stores)
    if how.dry_run:
        return EXIT_OK
    with nullcontext() if output is None else output.opened():
        return _compute_and_write(job, how, stores, output, console)


def _compute_and_write(
    job: Job, how: Invocation, stores: Stores, output: OutputFolder | None, console: Messages
) -> int:
    start = time.perf_counter()
    outcomes = _begin(job, output, console)
    if how.executor != "local" and _anything_left(job, stores):
        check_executor(how.executor, how.jobs)
    for one in outcomes:
        _search(job, one, console)
    for one in outcomes:
        one.solved = solve(job, one.case, one.found, how, stores.of(one.case), console)
    for one in outcomes:
        one.measured = measure(job, one.case, how, stores.experiments, console)
    if any(one.solved is None or (one.measured and not one.measured.whole) for one in outcomes):
        stores.settle(whole=False)
        console.note(f"shard {how.shard} is done; run the same command without --shard to write the table.")
        return EXIT_OK
    for one in outcomes:
        one.found = one.solved or one.found
    blocks = [block_of(one.case, one.found.columns, one.measured) for one in outcomes]
    failure, answer = None, ""
    if output is None:
        _print_table(blocks)
    else:
        with output.replacing() as hidden:
            names, answer, failure = write_results(job, outcomes, blocks, hidden, lambda: time.perf_counter() - start)
        size, seconds = sum(block.size for block in blocks), time.perf_counter() - start
        console.note(f"{rows(size)} in {seconds:.1f} s: {output.path}/ holds {', '.join(names)} and provenance.json")
    stores.settle(whole=how.shard is None)
    if failure is not None:
        raise failure
    code = _exit_code(blocks, [one.measured for one in outcomes], how.strict, console)
    if answer:  # a table on standard output is an answer for the next program
        console.note(answer)
    return code


def _begin(job: Job, output: OutputFolder | None, console: Messages) -> list[Outcome]:
    """Evaluate closed forms and refuse before any longer work what cannot be drawn or written after it."""
    outcomes = [Outcome(case, Findings(case.theory.columns(case))) for case in job.cases]
    for one in outcomes:
        one.case.theory.judge(one.case, one.found.columns)
    if output is not None:
        blocks = [block_of(one.case, one.found.columns | _searched(job, one.case)) for one in outcomes]
        if not check_drawing(job, blocks, console):
            tell_undrawn(job, console)
        output.refuse_taken(may_write(job, blocks))
    return outcomes


def _anything_left(job: Job, stores: Stores) -> bool:
    """Whether an executor is needed: what is stored already can be read without one."""
    groups = [(case.theory.tasks(case, job.settings["seed"]), stores.of(case)) for case in job.cases]
    groups += [(tasks, stores.experiments) for case in job.cases for *_, tasks in planned(case, job.settings)]
    counts = [plan(tasks, store) for tasks, store in groups]
    return any(stored < count for count, stored in counts)


def _search(job: Job, one: Outcome, console: Messages) -> None:
    """Add the best richness or coupling of a theory that is known at any parameters."""
    if _wants_best(job, one.case):
        one.found.columns |= best_gamma0(one.case)
    if _wants_delta(job, one.case):
        quantity = one.case.theory.quantity
        one.found.columns |= best_value(one.case, "delta", quantity)
        if np.isnan(one.found.columns["delta_opt"]).any():
            console.note(f"where {quantity} is the same for every delta none is the best, and delta_opt is nan.")


def _print_table(blocks: Sequence[Block]) -> None:
    """Write the table to standard output; a reader that has seen enough (`| head`) is no error."""
    stream = table_stream()
    try:
        write_csv(blocks, stream)
        stream.flush()
    except BrokenPipeError:
        silence(stream)
    except OSError as error:
        silence(stream)
        raise WriteError(f"standard output cannot be written: {error.strerror}; the table is not whole.") from None


def _wants_best(job: Job, case: Case) -> bool:
    wanted = job.settings["optimal_gamma0"]
    if wanted and "gamma0" not in case.grid.values:
        raise UsageError(f"--optimal-gamma0: {case.theory.name} has no gamma0 here.")
    if wanted and "delta" in case.theory.parameters:
        raise UsageError(f"--optimal-gamma0 is not for {case.theory.name}; it finds the best delta, --optimal-delta.")
    if wanted and not case.theory.searchable:
        raise UsageError(f"--optimal-gamma0 searches over gamma0, which {case.theory.name} is too costly for.")
    if wanted is None:
        drawn = job.command == "phase-diagram" and "gamma0" in case.grid.axes
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


def _infinite_columns(blocks: Sequence[Block]) -> str:
    """Name the computed columns that are infinite or undefined where the status is `diverged`."""
    names: dict[str, None] = {}
    for block in blocks:
        diverged = block.full("status") == Status.DIVERGED
        for name in COLUMNS.keys() & block.columns.keys() - {"time"}:
            column = block.full(name)
            if column.dtype.kind == "f" and not np.isfinite(column[diverged]).all():
                names[name] = None
    names = {name: None for name in COLUMNS if name in names}
    return f" in {', '.join(names)}; every other column holds" if names else ""


def _exit_code(blocks: Sequence[Block], measured: Sequence[Measured | None], strict: bool, console: Messages) -> int:
    statuses = [np.asarray(block.columns["status"]) for block in blocks]
    counts = {
        status: sum(int(np.sum(np.broadcast_to(s == status, b.shape))) for s, b in zip(statuses, blocks, strict=True))
        for status in Status
    }
    if counts[Status.DIVERGED]:
        console.note(
            f"{rows(counts[Status.DIVERGED])} with an infinite answer (status diverged){_infinite_columns(blocks)}."
        )
    unsolved = sum(counts[status] for status in _UNSOLVED)
    failed = sum(one.n_failed for one in measured if one is not None)
    if unsolved:
        console.warn(f"{rows(unsolved)} not converged; see the columns status and residual.")
    missed = strict and counts[Status.INACCURATE]
    return EXIT_NOT_CONVERGED if unsolved or failed or missed else EXIT_OK
