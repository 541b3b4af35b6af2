"""The files of one invocation: table, boundary, arrays, predictions, figures and, last, provenance."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlcli.cli.console import Console
from tlcli.errors import TlcliError
from tlcli.options.columns import PER_DELTA
from tlcli.report.files import atomic
from tlcli.report.plan import Drawing, plan_figure, quantities_of
from tlcli.report.plotting import check_text, load
from tlcli.report.provenance import PROVENANCE, facts, write_provenance
from tlcli.report.records import drawn_by_time, final, plan_records
from tlcli.report.tables import Block, write_table
from tlcli.run.assemble import edge_block
from tlcli.run.job import Job
from tlcli.run.solve import Theory
from tlcli.status import Phase
from tlcli.theories.base import Case, Columns
from tlcli.theories.search import BoundaryPoints, boundaries, grid_boundaries

if TYPE_CHECKING:
    from tlcli.report.layers import Layers

_LOSSES = ("loss", "train_loss", "source_loss", "source_train_loss")


def drawing_of(job: Job, edges: Sequence[Any]) -> Drawing:
    """Return how the job's figure is drawn."""
    s = job.settings
    style = s["style"]
    if style == "auto" and job.command != "phase-diagram" and "y" not in job.roles:
        style = "curves"
    default = job.cases[0].solver.quantity
    roles = job.roles
    if job.command == "bayes-saddle" and all("delta" in case.grid.axes for case in job.cases):
        drawn = {part.strip() for part in (s["quantity"] or "").split(",")}
        if "delta" not in roles.values() and not drawn & set(PER_DELTA):
            roles = {"x": "delta", **roles}
    return Drawing(style, roles, s["quantity"], default, s["title"], s["format"], edges)


def check_drawing(job: Job, blocks: Sequence[Block], console: Console) -> bool:
    """Refuse a figure that cannot be drawn; the blocks need no numbers yet. Return whether one will be drawn.

    Raises:
        UsageError: axes or a quantity that the table does not have, a title or a label that is no text for a figure.
    """
    drawing = drawing_of(job, [])
    drawn = any(case.solver.point is not None for case in job.cases)  # networks have kernels to show
    if drawn_by_time(blocks, drawing):
        plan_records(blocks, drawing)
    else:
        drawn |= plan_figure([final(block) for block in blocks], drawing) is not None
    texts = [("title", drawing.title), *(("label", block.label) for block in blocks)]
    missing = "".join(dict.fromkeys("".join(check_text(kind, text) for kind, text in texts if text)))
    if missing:
        console.warn(f"the font of the figures lacks {missing!r}; boxes stand in their place.")
    return drawn


def may_write(job: Job, blocks: Sequence[Block]) -> Callable[[str], bool]:
    """Return which names the run may give to its files; known before its work, the blocks need no numbers yet."""
    names = {"table.csv", PROVENANCE}
    drawing = drawing_of(job, [])
    drawn = quantities_of(blocks, drawing)
    stems = {f"-{name}" for name in drawn} if len(drawn) > 1 else {""}
    if not drawn_by_time(blocks, drawing) and plan_figure([final(block) for block in blocks], drawing) is None:
        stems = set()  # a single point
    for index, (case, block) in enumerate(zip(job.cases, blocks, strict=True), start=1):
        costly, given = case.solver.point is not None, {**case.words, **case.grid.values}
        kept = costly and case.words.get("layout") != "end"
        if _axes_of_edges(job, case, block.columns, blocks):
            names.add("boundary.csv")
        if kept or case.solver.arrays is not None:
            names.add(_archive(case, case.solver.archive, "npz", index))
        if kept and given.get("predictions"):
            names.add(_archive(case, "predictions", "csv", index))
        if kept:
            stems |= {"-kernels", "-densities"}
        if costly and any(given.get(name) is not None for name in ("depth", "freeze", "reinit_from")):
            names.add(_archive(case, "layers", "csv", index))
            stems |= {"-layers", "-layer-kernels", "-layer-densities"}
    figure = re.compile(rf"figure(?:{'|'.join(map(re.escape, stems))})(?:-\d+)?\.{drawing.format}")
    return lambda name: name in names or (bool(stems) and figure.fullmatch(name) is not None)


def files_read(job: Job) -> list[Path]:
    """Return the files of the user that the run reads."""
    words = [str(case.words.get(name) or "") for case in job.cases for name in ("source", "target", "spectrum")]
    named = [word.strip().removeprefix("file:") for word in words if word.strip().startswith("file:")]
    return [Path(os.path.expanduser(name)) for name in named]  # of pathlib it may raise


def write_results(
    job: Job, theories: Sequence[Theory], blocks: Sequence[Block], folder: Path, seconds: Callable[[], float]
) -> tuple[list[str], TlcliError | None]:
    """Write all files of a run into `folder`, the provenance last; return their names, and why there is no figure."""
    write_table(blocks, folder / "table.csv")
    about = facts(job.command, job.resolved, job.settings["seed"])
    engine = [
        {"case": case.label, "data": found.findings.data, "engine": found.findings.info}
        for case, found in zip(job.cases, theories, strict=True)
        if found.findings is not None
    ]
    if engine:
        about["networks"] = engine
    edges = [_edges(job, case, found.columns, blocks) for case, found in zip(job.cases, theories, strict=True)]
    if any(edges):
        write_table(
            [edge_block(case, e) for case, some in zip(job.cases, edges, strict=True) for e in some],
            folder / "boundary.csv",
        )
    archives = [_write_arrays(*pair, folder, i) for i, pair in enumerate(zip(job.cases, theories, strict=True), 1)]
    archives += _write_predictions(job, theories, folder)
    archives += _write_layers(job, theories, folder)
    figures, failure = _try_to_draw(job, theories, blocks, folder, about, edges)
    rows = sum(block.size for block in blocks)
    about |= {"rows": rows, "wall_time_seconds": round(seconds(), 3)}
    names = ["table.csv", *(["boundary.csv"] if any(edges) else []), *(path.name for path in figures)]
    names += [name for name in archives if name is not None]
    write_provenance(folder / PROVENANCE, about, [folder / name for name in names])
    return names, failure


def _try_to_draw(*arguments: Any) -> tuple[list[Path], TlcliError | None]:
    """Draw; a figure that fails costs neither the table nor its provenance, but is told at the end."""
    whole = "table.csv and provenance.json are written and whole"
    try:
        return _draw(*arguments), None
    except TlcliError as error:
        return [], type(error)(f"{error} The files {whole}.")
    except Exception as error:
        if os.environ.get("TLCLI_DEBUG"):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return [], TlcliError(
            f"the figure cannot be drawn ({reason}); {whole} (set TLCLI_DEBUG=1 for the traceback; please report it)"
        )


def _draw(
    job: Job,
    theories: Sequence[Theory],
    blocks: Sequence[Block],
    folder: Path,
    about: dict[str, Any],
    edges: Sequence[Any],
) -> list[Path]:
    drawing = drawing_of(job, edges)
    if _is_blank(blocks, drawing):
        return []
    load()  # the plotting library, which a table alone does not need
    from tlcli.report.draw import write_figures
    from tlcli.report.network import write_network_figures

    kept = [[] if t.findings is None else t.findings.arrays for t in theories]
    points = [list(case.grid.points()) for case in job.cases]
    axes = [case.grid.axes for case in job.cases]
    unit = "summed-loss" if any(case.words.get("reduction") == "sum" for case in job.cases) else "mean-loss"
    figures = []
    if drawn_by_time(blocks, drawing):
        figures += write_network_figures(blocks, drawing, folder, about, unit)
    else:
        figures += write_figures([final(block) for block in blocks], drawing, folder, about)
    if any(kept):
        from tlcli.report.bayes import write_bayes_figures
        from tlcli.report.kernels import Shown, write_kernel_figures

        shown = [
            Shown(block.label, {name: values[name] for name in names}, arrays)
            for block, names, lines, found in zip(blocks, axes, points, kept, strict=True)
            for values, arrays in zip(lines, found, strict=True)
            if arrays is not None
        ]
        if shown:  # else no point of this kind could be computed
            write = write_bayes_figures if "kernel_source" in shown[0].arrays else write_kernel_figures
            figures += write(shown, folder, drawing.format, about)
        layers = [one for pair in zip(job.cases, theories, strict=True) for one in _layers(*pair)]
        if layers:
            from tlcli.report.layers import write_layer_figures

            figures += write_layer_figures(layers, shown, folder, drawing.format, about, unit)
    return figures


def _is_blank(blocks: Sequence[Block], drawing: Drawing) -> bool:
    """Whether no point of the table could be computed: there is nothing to draw."""
    names = {*_LOSSES, drawing.default_quantity, *quantities_of(blocks, drawing)}
    return all(np.isnan(block.columns[name]).all() for block in blocks for name in names & block.columns.keys())


def _edges(job: Job, case: Case, found: Columns, blocks: Sequence[Block]) -> list[Any]:
    """Refine the boundary along the axes that the figure shows; costly solvers interpolate their grid."""
    axes = _axes_of_edges(job, case, found, blocks)
    if not axes:
        return []
    find = boundaries if case.solver.point is None else grid_boundaries
    # A gain within its own error has no sign that could change.
    gain = found["gain"] if "phase" not in found else np.where(found["phase"] == Phase.NEUTRAL, 0.0, found["gain"])
    edges = [find(case, axis, case.grid.values[axis].scale == "log", gain) for axis in axes]
    return [_edge(edge) for edge in edges if edge is not None and np.any(edge.values.get("delta", 1.0) > 0)]


def _axes_of_edges(job: Job, case: Case, found: Mapping[str, Any], blocks: Sequence[Block]) -> list[str]:
    """Return the axes of the figure along which the case has a boundary to seek."""
    if "gain" not in found or case.solver.inner:
        return []
    spec = plan_figure(blocks, drawing_of(job, []))
    shown = [] if spec is None else [spec.x, spec.y]
    return [axis for axis in shown if axis is not None and axis in case.grid.axes]


def _edge(edge: BoundaryPoints) -> dict[str, Any]:
    """Return boundary points without those at δ = 0, where every gain is zero by definition."""
    keep = np.asarray(edge.values.get("delta", np.ones(len(edge.kind)))) > 0
    return {**{n: v[keep] for n, v in edge.values.items()}, "kind": edge.kind[keep], "refined": edge.along}


def _archive(case: Case, stem: str, ending: str, index: int) -> str:
    word = re.sub(r"[^\w.+]+", "-", case.label or "")[:50].strip("-.")  # a label may hold what no file name can
    return f"{stem}-{index}-{word}.{ending}" if case.label else f"{stem}.{ending}"


def _write_arrays(case: Case, found: Theory, folder: Path, index: int) -> str | None:
    """Write the solver's matrices, with the values of the grid's axes; return the file's name."""
    arrays: dict[str, Any] = {name: case.grid.values[name].array for name in case.grid.axes}
    if case.solver.arrays is not None:
        arrays |= case.solver.arrays(case.parameters(), found.columns)
    elif found.findings is not None and any(found.findings.arrays):
        arrays |= _joined(case, found.findings.arrays)
    else:
        return None
    name = _archive(case, case.solver.archive, "npz", index)
    with atomic(folder / name) as temporary, temporary.open("wb") as stream:
        np.savez(stream, axis_order=np.array(case.grid.axes, dtype=str), **arrays)
    return name


def _joined(case: Case, parts: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    """Join the arrays of all points: stacked to the grid's shape where all have one shape, else one by one."""
    out: dict[str, Any] = {}
    for name in dict.fromkeys(name for part in parts for name in part or {}):
        found = [(part or {}).get(name) for part in parts]
        shapes = {None if array is None else array.shape for array in found}
        if len(shapes) == 1:
            stacked = np.array(found)
            out[name] = stacked.reshape((*case.grid.shape, *stacked.shape[1:]))
        else:
            out |= {f"{name}_point{i}": array for i, array in enumerate(found) if array is not None}
    return out


def _layers(case: Case, found: Theory) -> "list[Layers]":
    from tlcli.report.layers import Layers

    kept = [] if found.findings is None else getattr(found.findings, "layers", [])
    points = [{name: point[name] for name in case.grid.axes} for point in case.grid.points()]
    return [Layers(case.label, at, one) for at, one in zip(points, kept, strict=bool(kept)) if one is not None]


def _write_layers(job: Job, theories: Sequence[Theory], folder: Path) -> list[str | None]:
    """Write layers.csv per case: how far the kernel of every layer has moved, and its alignments."""
    from tlcli.report.layers import write_layers

    names: list[str | None] = []
    for index, (case, found) in enumerate(zip(job.cases, theories, strict=True), start=1):
        layers = _layers(case, found)
        if layers:
            names.append(_archive(case, "layers", "csv", index))
            write_layers(folder / str(names[-1]), layers)
    return names


def _write_predictions(job: Job, theories: Sequence[Theory], folder: Path) -> list[str | None]:
    """Write predictions.csv per case: stage, time, set, index, labels, prediction and its error, of the first draw."""
    from tlcli.report.predictions import write_predictions

    names: list[str | None] = []
    for index, (case, found) in enumerate(zip(job.cases, theories, strict=True), start=1):
        if found.findings is None or not any("predictions" in (arrays or {}) for arrays in found.findings.arrays):
            continue
        points = [{name: point[name] for name in case.grid.axes} for point in case.grid.points()]
        names.append(_archive(case, "predictions", "csv", index))
        count = len(points)
        timeless = (np.tile([1.0, 2.0], (count, 1)), np.full((count, 2), np.nan))  # source and target network
        stages, times = (
            np.asarray(found.columns[n]).reshape(count, -1) if n in found.columns else default
            for n, default in zip(("stage", "time"), timeless, strict=True)
        )
        write_predictions(folder / str(names[-1]), points, stages, times, found.findings.arrays)
    return names
