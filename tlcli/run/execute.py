"""One invocation from settings to files: what a question finds is printed as a table or saved in a folder."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from tlcli.errors import EXIT_NOT_CONVERGED, EXIT_OK, WriteError
from tlcli.options.columns import COLUMNS, DIFFERENCES
from tlcli.report.folder import OutputFolder
from tlcli.report.numbers import rows
from tlcli.report.provenance import PROVENANCE
from tlcli.report.tables import Block, write_csv
from tlcli.run.compute import anything_left, ask, compute, foresee
from tlcli.run.cost import refuse_what_cannot_fit
from tlcli.run.invocation import Invocation
from tlcli.run.job import Job
from tlcli.run.messages import Messages, Silent
from tlcli.run.occupied import holds_this, refuse_another
from tlcli.run.outputs import may_write, output_of, pages_told, save_into, trim_of
from tlcli.run.recipe import Recipe
from tlcli.run.solve import Measured
from tlcli.run.stores import Stores, stores_of
from tlcli.run.streams import silence, table_stream
from tlcli.status import Status

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
    job, how = ask(command, allowed, recipe, flags, console)
    output = None if how.to_stdout else output_of(job, how.folder(job.name), force=how.force or how.dry_run)
    if output is not None:
        output.refuse_taken({"table.csv", PROVENANCE}.__contains__)
    else:
        table_stream()  # closed, it is an error before the work
    stores = stores_of(job, how)
    if how.dry_run:
        from tlcli.run.dry_run import report

        refuse_what_cannot_fit(job, how, stores)
        report(job, how, stores)
        _refuse_as_a_run(job, how, output, console)  # the plan stands even where the run itself would be refused
        return EXIT_OK
    with nullcontext() if output is None else output.opened():
        return _compute_and_write(job, how, stores, output, console)


def _refuse_as_a_run(job: Job, how: Invocation, output: OutputFolder | None, console: Messages) -> None:
    """Refuse after a plan what the run would: its figure, its columns, its folder. Raises UsageError, WriteError."""

    def begun(blocks: Sequence[Block]) -> None:
        if output is not None:
            output.refuse_taken(may_write(job, blocks))

    foresee(job, how, begun, console)
    if output is None:
        return
    with output.opened():  # and closed: what is empty vanishes again
        pass
    if not how.force:
        refuse_another(job, output.path)


def _compute_and_write(
    job: Job, how: Invocation, stores: Stores, output: OutputFolder | None, console: Messages
) -> int:
    def begun(blocks: Sequence[Block]) -> None:
        if output is not None:
            output.refuse_taken(may_write(job, blocks))

    result = compute(job, how, stores, console, begun)
    if result is None:
        stores.settle(whole=False)
        console.note(f"shard {how.shard} is done; {_after_shard(job, stores, output)}")
        return EXIT_OK
    failure = None
    if output is None:
        _print_table(job, result.blocks)
    else:
        names, seconds, failure = save_into(result, output)
        size = sum(block.size for block in result.blocks)
        console.note(f"{rows(size)} in {seconds:.1f} s: {output.path}/ holds {', '.join(names)} and provenance.json")
        if (told := pages_told(names)) is not None:
            console.note(told)
    stores.settle(whole=how.shard is None)
    if failure is not None:
        raise failure
    code = _exit_code(result.blocks, [one.measured for one in result.outcomes], how.strict, console)
    console.note(result.verdict)
    return code


def _after_shard(job: Job, stores: Stores, output: OutputFolder | None) -> str:
    """Return what is to be done after one share of a job: nothing where its table is there, else who writes it."""
    if anything_left(job, stores):
        return "once all shares are, run the same command without --shard to write the table."
    if output is not None and holds_this(job, output.path):
        return f"all others are too, and the table is there: {output.path / 'table.csv'}."
    return "all others are too: run the same command without --shard to write the table."


def _print_table(job: Job, blocks: Sequence[Block]) -> None:
    """Write the table to standard output; a reader that has seen enough (`| head`) is no error."""
    stream = table_stream()
    try:
        trim = trim_of(job, blocks)
        write_csv(blocks, stream, None if trim is None else trim.written)
        stream.flush()
    except BrokenPipeError:
        silence(stream)
    except OSError as error:
        silence(stream)
        raise WriteError(f"standard output cannot be written: {error.strerror}; the table is not whole.") from None


# Infinity is an answer like any other: labels without noise can always be divided, the best place may be an end.
_ANY_SIZE = ("separability", "_opt")


def _infinite_columns(blocks: Sequence[Block]) -> str:
    """Name the computed columns that are infinite, and those that are undefined by it, where rows are `diverged`."""
    infinite: dict[str, None] = {}
    undefined: dict[str, None] = {}
    for block in blocks:
        diverged = block.full("status") == Status.DIVERGED
        for name in COLUMNS.keys() & block.columns.keys() - {"time"}:
            column = block.full(name)
            if column.dtype.kind != "f" or name.endswith(_ANY_SIZE):
                continue
            if np.isinf(column[diverged]).any():
                infinite[name] = None
            elif np.isnan(column[diverged]).any() and (name in DIFFERENCES or np.isfinite(column[~diverged]).any()):
                undefined[name] = None
    found = [name for name in COLUMNS if name in infinite]
    unknown = [name for name in COLUMNS if name in undefined and name not in infinite]
    if not found and not unknown:
        return ""
    parts = [", ".join(found)] if found else []
    parts += [f"undefined in {', '.join(unknown)}"] if unknown else []
    return f" in {', '.join(parts)}; every other column holds"


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
    if counts[Status.INSEPARABLE]:
        console.note(
            f"{rows(counts[Status.INSEPARABLE])} without a hyperplane that divides the labels (status inseparable): "
            "there is no largest margin; another --loss has an answer there."
        )
    unsolved = sum(counts[status] for status in _UNSOLVED)
    failed = sum(one.n_failed for one in measured if one is not None)
    if unsolved:
        console.warn(f"{rows(unsolved)} not converged; see the columns status and residual.")
    missed = strict and counts[Status.INACCURATE]
    return EXIT_NOT_CONVERGED if unsolved or failed or missed else EXIT_OK
