"""One invocation from settings to files: theory, experiments, boundaries, then table, figure, provenance."""

import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlcli.cli.assemble import block_of, edge_block
from tlcli.cli.console import Console
from tlcli.columns import COLUMNS
from tlcli.errors import EXIT_NOT_CONVERGED, EXIT_OK, DomainError, UsageError
from tlcli.jobs import Job, prepare
from tlcli.options import INVOCATION, OPTIONS
from tlcli.recipes import Recipe, load_recipe
from tlcli.report.files import atomic, prepare_folder
from tlcli.report.plan import Drawing, plan_figure
from tlcli.report.provenance import facts, write_provenance
from tlcli.report.tables import Block, write_csv, write_table
from tlcli.solvers.base import Case, Columns
from tlcli.solvers.experiments import VERSION, check_experiments, tasks_of
from tlcli.solvers.search import best_gamma0, boundaries
from tlcli.status import Status
from tlcli.sweep.executors import make_executor
from tlcli.sweep.runner import SweepResult, Task, parse_shard, plan, run_sweep
from tlcli.sweep.store import PointStore

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

    @property
    def to_stdout(self) -> bool:
        """Whether the table goes to standard output and no file is written."""
        return self.output == "-"

    def folder(self, name: str) -> Path:
        """The folder that receives the results."""
        return Path(self.output) if self.output else Path("results") / name


def execute(command: str, allowed: tuple[str, ...], recipe_path: Path | None, flags: Mapping[str, Any]) -> int:
    """Run one command with flags on top of an optional recipe file; return the exit code."""
    recipe = load_recipe(recipe_path) if recipe_path is not None else None
    return execute_recipe(command, allowed, recipe, flags)


def execute_recipe(command: str, allowed: tuple[str, ...], recipe: Recipe | None, flags: Mapping[str, Any]) -> int:
    """Run one command with flags on top of an optional recipe; return the exit code."""
    job = prepare(command, allowed, recipe, flags)
    how = Invocation(**{name: _setting(name, flags) for name in INVOCATION})
    console = Console(how.quiet)
    if how.shard is not None and (how.to_stdout and how.store is None):
        raise UsageError("--shard needs a store that the shards share; give -o DIR or --store DIR.")
    make_executor(how.executor, how.jobs)  # not entered: an unknown name is refused before anything is written
    for case in job.cases:
        check_experiments(case, job.settings)
    store = _store(job, how)
    if how.dry_run:
        from tlcli.cli.dry_run import report

        report(job, how, store)
        return EXIT_OK
    folder = how.folder(job.name)
    if not how.to_stdout:
        prepare_folder(folder)
    return _compute_and_write(job, how, store, folder, console)


def _setting(name: str, flags: Mapping[str, Any]) -> Any:
    option = OPTIONS[name]
    return option.parse(flags[name]) if name in flags else option.default


def _compute_and_write(job: Job, how: Invocation, store: PointStore | None, folder: Path, console: Console) -> int:
    start = time.perf_counter()
    columns = [case.solver.evaluate(case.parameters()) for case in job.cases]
    for case, found in zip(job.cases, columns, strict=True):
        _refuse_single_divergence(case, found)
    # A figure that cannot be drawn is an error before hours of experiments, not after.
    blocks = [block_of(case, found) for case, found in zip(job.cases, columns, strict=True)]
    if not how.to_stdout:
        plan_figure(blocks, _drawing(job, []))
    for case, found in zip(job.cases, columns, strict=True):
        if _wants_best(job, case):
            found |= best_gamma0(case)
    sweeps = [_simulate(job, case, how, store, console) for case in job.cases]
    if any(sweep is not None and None in sweep[0].records for sweep in sweeps):
        console.note(f"shard {how.shard} is done; run the same command without --shard to write the table.")
        return EXIT_OK
    blocks = [block_of(case, found, sweep) for case, found, sweep in zip(job.cases, columns, sweeps, strict=True)]
    if how.to_stdout:
        _print_table(blocks)
    else:
        write_table(blocks, folder / "table.csv")
        _write_rest(job, columns, blocks, folder, console, start)
    return _exit_code(blocks, sweeps, console)


def _print_table(blocks: Sequence[Block]) -> None:
    """Write the table to standard output; a reader that has seen enough (`| head`) is no error."""
    try:
        write_csv(blocks, sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write_rest(
    job: Job,
    columns: Sequence[Columns],
    blocks: Sequence[Block],
    folder: Path,
    console: Console,
    start: float,
) -> None:
    """Write what stands beside the table; the table itself is safe by now."""
    from tlcli.report.draw import write_figures  # loads the plotting library, which a table alone does not need

    about = facts(job.command, job.resolved, job.settings["seed"])
    edges = [_edges(job, case, found, blocks) for case, found in zip(job.cases, columns, strict=True)]
    boundary_file = folder / "boundary.csv"
    if any(edges):
        write_table(
            [edge_block(case, e) for case, some in zip(job.cases, edges, strict=True) for e in some],
            boundary_file,
        )
    else:
        boundary_file.unlink(missing_ok=True)
    archives = [_write_arrays(*pair, folder, i) for i, pair in enumerate(zip(job.cases, columns, strict=True), start=1)]
    figures = write_figures(blocks, _drawing(job, edges), folder, about)
    for old in folder.glob("figure*.*"):  # of an earlier run with other axes: it would not belong to this table
        name = re.fullmatch(r"figure(?:-([a-z]\w*))?(?:-\d+)?\.(?:png|pdf|svg)", old.name)
        if name and old not in figures and (name[1] is None or name[1] in {**COLUMNS, **OPTIONS, "time": None}):
            old.unlink()
    for old in (*folder.glob("kernel*.npz"), *folder.glob("two-time*.npz")):
        if old.name not in archives:
            old.unlink()
    seconds = round(time.perf_counter() - start, 3)
    rows = sum(block.size for block in blocks)
    write_provenance(folder / "provenance.json", {**about, "rows": rows, "wall_time_seconds": seconds})
    names = ["table.csv", *(["boundary.csv"] if any(edges) else []), *(path.name for path in figures)]
    names += [name for name in archives if name is not None]
    console.note(f"{rows} rows in {seconds:.1f} s: {folder}/ holds {', '.join(names)} and provenance.json")


def _drawing(job: Job, edges: Sequence[Any]) -> Drawing:
    s = job.settings
    style = s["style"]
    if style == "auto" and job.command != "phase-diagram" and "y" not in job.roles:
        style = "curves"
    default = job.cases[0].solver.quantity
    return Drawing(style, job.roles, s["quantity"], default, s["title"], s["format"], edges)


def _wants_best(job: Job, case: Case) -> bool:
    wanted = job.settings["optimal_gamma0"]
    if wanted and "gamma0" not in case.grid.values:
        raise UsageError(f"--optimal-gamma0: {case.solver.name} has no gamma0 here.")
    if wanted is None:
        drawn = job.command == "phase-diagram" and "gamma0" in case.grid.axes
        return drawn and case.solver.closed_form and case.solver.own == {}
    return bool(wanted)


def _edges(job: Job, case: Case, found: Columns, blocks: Sequence[Block]) -> list[Any]:
    """Refine the boundary along the axes that the figure shows."""
    if "gain" not in found or case.solver.inner:
        return []
    spec = plan_figure(blocks, _drawing(job, []))
    if spec is None:
        return []
    shown = [spec.x, spec.y] if spec.y else [spec.x]
    edges = [
        boundaries(case, axis, case.grid.values[axis].scale == "log", found["gain"])
        for axis in shown
        if axis is not None and axis in case.grid.axes
    ]
    return [{**edge.values, "kind": edge.kind, "refined": edge.along} for edge in edges if edge is not None]


def _write_arrays(case: Case, found: Columns, folder: Path, index: int) -> str | None:
    """Write the solver's matrices, with the values of the grid's axes; return the file's name."""
    if case.solver.arrays is None:
        return None
    arrays: dict[str, Any] = {name: case.grid.values[name].array for name in case.grid.axes}
    arrays |= case.solver.arrays(case.parameters(), found)
    word = re.sub(r"[^\w.+]+", "-", case.label or "").strip("-.")  # a label may hold what no file name can
    name = f"{case.solver.archive}-{index}-{word}.npz" if case.label else f"{case.solver.archive}.npz"
    with atomic(folder / name) as temporary, temporary.open("wb") as stream:
        np.savez(stream, axis_order=np.array(case.grid.axes, dtype=str), **arrays)
    return name


def _store(job: Job, how: Invocation) -> PointStore | None:
    if not any(case.experiments for case in job.cases):
        if how.shard is not None:
            raise UsageError("--shard divides experiments; it needs --simulate.")
        return None
    if how.store is None and how.to_stdout:
        return None
    folder = Path(how.store) if how.store else how.folder(job.name)
    return PointStore(folder, "experiments", VERSION, force=how.force and not how.dry_run)


def _simulate(
    job: Job, case: Case, how: Invocation, store: PointStore | None, console: Console
) -> tuple[SweepResult, list[dict[str, Any]]] | None:
    if not case.experiments:
        return None
    tasks, variants = tasks_of(case, job.settings, job.settings["seed"])
    label = f"{job.name} {case.label}" if case.label else job.name
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
    if result.n_failed:
        first = next(r for r in result.records if r is not None and r.get("status") == "failed")
        console.warn(f"{result.n_failed} experiment(s) failed, the first with {first.get('message')}")
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
    values = {name: float(v.array[0]) for name, v in case.grid.values.items()}
    for alpha, sigma, remedy in (("alpha1", "sigma1", "weight decay"), ("alpha2", "sigma2", "ridge")):
        if values.get(alpha) == 1.0 and values.get(sigma, 0.0) > 0:
            raise DomainError(
                f"{alpha} = 1 with {sigma} = {values[sigma]:g} is the interpolation threshold, where the "
                f"interpolator's norm diverges; use {alpha} below or above 1, {sigma} = 0 or a {remedy}."
            )
    raise DomainError("the answer at this point is infinite (interpolation threshold with label noise).")


def _exit_code(blocks: Sequence[Block], sweeps: Sequence[Any], console: Console) -> int:
    statuses = [np.asarray(block.columns["status"]) for block in blocks]
    counts = {
        status: sum(int(np.sum(np.broadcast_to(s == status, b.shape))) for s, b in zip(statuses, blocks, strict=True))
        for status in Status
    }
    if counts[Status.DIVERGED]:
        console.note(f"{counts[Status.DIVERGED]} row(s) have an infinite answer (status diverged).")
    unsolved = sum(counts[status] for status in _UNSOLVED)
    failed = sum(sweep[0].n_failed for sweep in sweeps if sweep is not None)
    if unsolved:
        console.warn(f"{unsolved} row(s) are not converged; see the columns status and residual.")
    return EXIT_NOT_CONVERGED if unsolved or failed else EXIT_OK
