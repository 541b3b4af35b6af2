"""One invocation from settings to files: theory, experiments, boundaries, then table, figure, provenance."""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlcli.cli.console import Console
from tlcli.errors import EXIT_NOT_CONVERGED, EXIT_OK, DomainError, UsageError, WriteError
from tlcli.options import INVOCATION, OPTIONS
from tlcli.options.columns import COLUMNS
from tlcli.report.folder import OutputFolder
from tlcli.report.provenance import PROVENANCE
from tlcli.report.tables import Block, write_csv
from tlcli.run.assemble import block_of
from tlcli.run.job import Job, prepare
from tlcli.run.outputs import check_drawing, files_read, may_write, write_results
from tlcli.run.recipe import Recipe, load_recipe
from tlcli.run.solve import Theory, check_theory, first_columns, solve_points, sweep, theory_tasks
from tlcli.run.streams import silence, table_stream
from tlcli.run.unused import check_flags, tell_undrawn
from tlcli.status import Status
from tlcli.sweep.executors import check_executor, make_executor
from tlcli.sweep.runner import SweepResult, Task, parse_shard, plan
from tlcli.sweep.store import PointStore
from tlcli.theories.base import Case, Columns
from tlcli.theories.linear.experiment import VERSION, check_experiments, tasks_of
from tlcli.theories.search import best_gamma0, best_value

_UNSOLVED = (Status.NOT_CONVERGED, Status.FAILED)


@dataclass(frozen=True)
class Invocation:
    """Where results go and how experiments run: settings that do not change any number."""

    output: str | None
    jobs: int
    executor: str
    shard: str | None
    store: str | None
    force: bool
    dry_run: bool
    quiet: bool
    strict: bool
    allow_code: bool

    @property
    def to_stdout(self) -> bool:
        """Whether the table goes to standard output and no file is written."""
        return self.output == "-"

    def folder(self, name: str) -> Path:
        """The folder that receives the results."""
        return Path(self.output) if self.output else Path("results") / name


@dataclass(frozen=True, eq=False)
class Stores:
    """Where finished points are kept: those of costly theories, and experiments."""

    theory: Mapping[str, PointStore]  # by the function of the points
    experiments: PointStore | None

    def of(self, case: Case) -> PointStore | None:
        """The store of a case's theory."""
        return self.theory.get(case.solver.point or "")

    def settle(self, *, whole: bool) -> None:
        """Discard what --force replaces, now that the result stands."""
        for store in (*self.theory.values(), *([self.experiments] if self.experiments else [])):
            store.settle(whole=whole)


def execute(command: str, allowed: tuple[str, ...], recipe_path: Path | None, flags: Mapping[str, Any]) -> int:
    """Run one command with flags on top of an optional recipe file; return the exit code."""
    recipe = load_recipe(recipe_path) if recipe_path is not None else None
    return execute_recipe(command, allowed, recipe, flags)


def execute_recipe(command: str, allowed: tuple[str, ...], recipe: Recipe | None, flags: Mapping[str, Any]) -> int:
    """Run one command with flags on top of an optional recipe; return the exit code."""
    job = prepare(command, allowed, recipe, flags)
    how = Invocation(**{name: _setting(name, flags) for name in INVOCATION})
    console = Console(how.quiet)
    check_flags(job, flags, console)
    if how.shard is not None:
        parse_shard(how.shard)
    make_executor(how.executor, how.jobs)  # not entered: an unknown name is refused before anything is written
    for case in job.cases:
        check_theory(case)
        check_experiments(case, job.settings)
    for text in job.notes:
        console.note(text)
    output = None if how.to_stdout else OutputFolder(how.folder(job.name), files_read(job))
    if output is not None:
        output.refuse_taken({"table.csv", PROVENANCE}.__contains__)
    else:
        table_stream()  # closed, it is an error before the work
    stores = _stores(job, how)
    if how.dry_run:
        from tlcli.run.dry_run import report

        report(job, how, stores)
        return EXIT_OK
    with nullcontext() if output is None else output.opened():
        return _compute_and_write(job, how, stores, output, console)


def _setting(name: str, flags: Mapping[str, Any]) -> Any:
    option = OPTIONS[name]
    return option.parse(flags[name]) if name in flags else option.default


def _compute_and_write(job: Job, how: Invocation, stores: Stores, output: OutputFolder | None, console: Console) -> int:
    start = time.perf_counter()
    theories = _begin(job, output, console)
    if how.executor != "local" and _anything_left(job, stores):
        check_executor(how.executor, how.jobs)
    for case, found in zip(job.cases, theories, strict=True):
        if _wants_best(job, case):
            found.columns |= best_gamma0(case)
        if _wants_delta(job, case):
            found.columns |= best_value(case, "delta", case.solver.quantity)
            if np.isnan(found.columns["delta_opt"]).any():
                console.note(
                    f"where {case.solver.quantity} is the same for every delta none is the best, and delta_opt is nan."
                )
    solved = True
    for case, found in zip(job.cases, theories, strict=True):
        if case.solver.point is not None:
            found.findings = solve_points(job, case, how, stores.of(case), console)
            solved = solved and found.findings is not None
            found.columns = found.findings.columns if found.findings is not None else {}
    sweeps = [_simulate(job, case, how, stores.experiments, console) for case in job.cases]
    if not solved or any(sweep is not None and None in sweep[0].records for sweep in sweeps):
        stores.settle(whole=False)
        console.note(f"shard {how.shard} is done; run the same command without --shard to write the table.")
        return EXIT_OK
    blocks = [
        block_of(case, found.columns, sweep) for case, found, sweep in zip(job.cases, theories, sweeps, strict=True)
    ]
    failure = None
    if output is None:
        _print_table(blocks)
    else:
        with output.replacing() as hidden:
            names, failure = write_results(job, theories, blocks, hidden, lambda: time.perf_counter() - start)
        rows, seconds = sum(block.size for block in blocks), time.perf_counter() - start
        console.note(f"{rows} rows in {seconds:.1f} s: {output.path}/ holds {', '.join(names)} and provenance.json")
    stores.settle(whole=how.shard is None)
    if failure is not None:
        raise failure
    return _exit_code(blocks, sweeps, how.strict, console)


def _begin(job: Job, output: OutputFolder | None, console: Console) -> list[Theory]:
    """Evaluate closed forms and refuse before any longer work what cannot be drawn or written after it."""
    theories = [Theory(first_columns(case)) for case in job.cases]
    pairs = list(zip(job.cases, theories, strict=True))
    for case, found in pairs:
        if case.solver.point is None:
            _refuse_single_divergence(case, found.columns)
    if output is not None:
        blocks = [block_of(case, found.columns | _searched(job, case)) for case, found in pairs]
        if not check_drawing(job, blocks, console):
            tell_undrawn(job, console)
        output.refuse_taken(may_write(job, blocks))
    return theories


def _anything_left(job: Job, stores: Stores) -> bool:
    """Whether an executor is needed: what is stored already can be read without one."""
    groups = [(theory_tasks(case, job.settings["seed"]), stores.of(case)) for case in job.cases]
    groups.append((planned(job, None)[0], stores.experiments))
    counts = [plan(tasks, store) for tasks, store in groups]
    return any(stored < count for count, stored in counts)


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
        raise UsageError(f"--optimal-gamma0: {case.solver.name} has no gamma0 here.")
    if wanted and "delta" in case.solver.parameters:
        raise UsageError(f"--optimal-gamma0 is not for {case.solver.name}; it finds the best delta, --optimal-delta.")
    if wanted and case.solver.point is not None:
        raise UsageError(f"--optimal-gamma0 searches over gamma0, which {case.solver.name} is too costly for.")
    if wanted is None:
        drawn = job.command == "phase-diagram" and "gamma0" in case.grid.axes
        return drawn and case.solver.closed_form and case.solver.own == {} and "delta" not in case.solver.parameters
    return bool(wanted)


def _searched(job: Job, case: Case) -> Columns:
    """Return the columns of a search that is still to come, without numbers."""
    names = []
    if _wants_best(job, case):
        names += ["gamma0_opt", f"{case.solver.quantity}_opt"]
    if _wants_delta(job, case):
        names += ["delta_opt", f"{case.solver.quantity}_opt"]
    return {name: np.full(case.grid.shape, np.nan) for name in names}


def _wants_delta(job: Job, case: Case) -> bool:
    """Whether the best delta of a closed form is searched; costly solvers choose among the grid's themselves."""
    wanted = job.settings["optimal_delta"]
    if wanted and "delta" not in case.solver.parameters:
        raise UsageError(f"--optimal-delta: {case.solver.name} has no delta.")
    if "delta" not in case.solver.parameters or case.solver.point is not None:
        return False
    return "delta" in case.grid.axes if wanted is None else bool(wanted)


def _stores(job: Job, how: Invocation) -> Stores:
    """Return where costly points and experiments are kept; None where there are none or nothing is to be written."""
    costly = any(case.solver.point is not None for case in job.cases)
    experiments = any(case.experiments for case in job.cases)
    if not (costly or experiments) and how.shard is not None:
        raise UsageError("--shard divides experiments; it needs --simulate.")
    if how.store is None and how.to_stdout:
        return Stores({}, None)
    folder = Path(how.store) if how.store else how.folder(job.name)
    force = how.force and not how.dry_run
    theory: dict[str, PointStore] = {}
    for case in job.cases:
        if case.solver.point is not None and case.solver.point not in theory:
            engine = case.solver.engine()
            name = getattr(engine, "STORE", "theory")
            theory[case.solver.point] = PointStore(folder / name, name, engine.VERSION, force=force)
    return Stores(theory, PointStore(folder, "experiments", VERSION, force=force) if experiments else None)


def _simulate(
    job: Job, case: Case, how: Invocation, store: PointStore | None, console: Console
) -> tuple[SweepResult, list[dict[str, Any]]] | None:
    if not case.experiments:
        return None
    tasks, variants = tasks_of(case, job.settings, job.settings["seed"])
    label = f"{job.name} {case.label}" if case.label else job.name
    result = sweep(label, tasks, how, store, console)
    if result.n_failed:
        first = next(r for r in result.records if r is not None and r.get("status") == "failed")
        console.warn(f"{result.n_failed} experiment(s) failed, the first with {first.get('message')}")
    if case.solver.point is not None:
        merged = case.solver.engine("_experiment").merge(case, result.records)
        restless = sum(record is not None and record.get("status") == "not_converged" for record in merged)
        if restless:
            console.warn(
                f"{restless} experiment(s) have chains that still drift (sim_drift) and so no numbers: lower beta or "
                "gamma."
            )
        result = replace(result, records=merged, n_failed=result.n_failed + restless)
    return result, variants


def planned(job: Job, store: PointStore | None) -> tuple[list[Task], int]:
    """Return all tasks of the job's experiments, and how many of them are stored."""
    tasks: list[Task] = []
    for case in job.cases:
        tasks += tasks_of(case, job.settings, job.settings["seed"])[0] if case.experiments else []
    return tasks, plan(tasks, store)[1] if tasks else 0


def _refuse_single_divergence(case: Case, found: Columns) -> None:
    """One point whose answer is infinite is a mistake to be told; in a grid it is a row with its status."""
    if case.grid.size != 1 or not np.any(np.asarray(found["status"]) == Status.DIVERGED):
        return
    if np.all(np.isfinite(found[case.solver.quantity])):
        return  # only a coefficient of the kernel is infinite: the row has an answer
    values = {name: float(v.array[0]) for name, v in case.grid.values.items()}
    for alpha, sigma, remedy in (("alpha1", "sigma1", "weight decay"), ("alpha2", "sigma2", "ridge")):
        if values.get(alpha) == 1.0 and values.get(sigma, 0.0) > 0:
            raise DomainError(
                f"{alpha} = 1 with {sigma} = {values[sigma]:g} is the interpolation threshold, where the "
                f"interpolator's norm diverges; use {alpha} below or above 1, {sigma} = 0 or a {remedy}."
            )
    raise DomainError("the answer at this point is infinite (interpolation threshold with label noise).")


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


def _exit_code(blocks: Sequence[Block], sweeps: Sequence[Any], strict: bool, console: Console) -> int:
    statuses = [np.asarray(block.columns["status"]) for block in blocks]
    counts = {
        status: sum(int(np.sum(np.broadcast_to(s == status, b.shape))) for s, b in zip(statuses, blocks, strict=True))
        for status in Status
    }
    if counts[Status.DIVERGED]:
        console.note(
            f"{counts[Status.DIVERGED]} row(s) have an infinite answer (status diverged){_infinite_columns(blocks)}."
        )
    unsolved = sum(counts[status] for status in _UNSOLVED)
    failed = sum(sweep[0].n_failed for sweep in sweeps if sweep is not None)
    if unsolved:
        console.warn(f"{unsolved} row(s) are not converged; see the columns status and residual.")
    missed = strict and counts[Status.INACCURATE]
    return EXIT_NOT_CONVERGED if unsolved or failed or missed else EXIT_OK
