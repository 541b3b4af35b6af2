"""The files of one invocation: table, boundary, arrays, predictions, figures and, last, provenance."""

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlcli.arrays import Flags
from tlcli.errors import TlcliError, UsageError, suggest
from tlcli.options import DRAWN, OPTIONS
from tlcli.options.axes import summarised_axis, time_unit
from tlcli.options.columns import COLUMNS, DIFFERENCES
from tlcli.paths import expanded
from tlcli.report.drawing import FORMATS, HTML, Drawing, read_drawing
from tlcli.report.files import atomic
from tlcli.report.folder import OutputFolder
from tlcli.report.plan import plan_figure, quantities_of
from tlcli.report.plotting import check_style, check_text, load
from tlcli.report.provenance import PROVENANCE, read_provenance, write_provenance
from tlcli.report.records import drawn_by_time, final, plan_records
from tlcli.report.tables import Block, column_names, write_table
from tlcli.report.trim import KEY as TRIMMED
from tlcli.report.trim import Trim, check_columns, names_of, trimmed
from tlcli.run.assemble import edge_block, fine_block
from tlcli.run.job import Job
from tlcli.run.messages import Messages, Silent
from tlcli.run.occupied import refuse_another
from tlcli.status import Phase
from tlcli.theories.base import Case, Findings
from tlcli.theories.search import BoundaryPoints

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from plotly.graph_objects import Figure as Page

    from tlcli.report.kernels import Shown
    from tlcli.report.layers import Layers
    from tlcli.run.result import CaseResult, Result

_LOSSES = ("loss", "train_loss", "source_loss", "source_train_loss")


def drawing_of(job: Job, edges: Sequence[Any]) -> Drawing:
    """Return how the job's figure is drawn."""
    s = job.settings
    roles = job.roles
    drawn = {part.strip() for part in (s["quantity"] or "").split(",")}
    for name in (name for name, option in OPTIONS.items() if option.ends):  # what has its own axis is drawn along it
        varied = job.command != "phase-diagram" and all(name in case.grid.axes for case in job.cases)
        if varied and name not in roles.values() and name not in map(summarised_axis, drawn):
            roles = {"x": name, **roles}
    unit = max((time_unit(case.words) for case in job.cases), key="summed-loss".__eq__)
    quantity = job.cases[0].theory.quantity
    told = dict.fromkeys(case.theory.told() for case in job.cases)
    more = {"unit": unit, "boundaries": edges, "told": next(iter(told)) if len(told) == 1 else ""}
    drawing = read_drawing(s, roles=roles, default_quantity=quantity, **more)
    if drawing.kind == "auto" and job.command != "phase-diagram" and "y" not in job.roles:
        drawing = replace(drawing, kind="curves")
    return drawing


def check_drawing(job: Job, blocks: Sequence[Block], console: Messages) -> bool:
    """Refuse a figure that cannot be drawn; the blocks need no numbers yet. Return whether one will be drawn.

    Raises:
        UsageError: axes or a quantity that the table does not have, a title or a label that is no text for a figure.
    """
    drawing = drawing_of(job, [])
    drawn = any(case.theory.pictures(case) for case in job.cases)  # networks have kernels to show
    if drawn_by_time(blocks, drawing):
        plan_records(blocks, drawing)
    else:
        drawn |= plan_figure([final(block) for block in blocks], drawing) is not None
        if not drawn and any(block.axes for block in blocks):
            console.note("there is no figure: no axis has two finite values.")
    if not drawing.images and any(case.theory.pictures(case) for case in job.cases):
        console.note("html shows the table; of kernels, densities and layers there are images: --format png,html.")
    if drawing.style is not None and (absent := check_style(drawing.style, drawing.images)):
        console.warn(f"style: no font {', '.join(absent)} is installed; another stands in its place.")
    texts = [("title", drawing.title), *(("label", block.label) for block in blocks)]
    missing = "".join(dict.fromkeys("".join(check_text(kind, text) for kind, text in texts if text)))
    if missing:
        console.warn(f"the font of the figures lacks {missing!r}; boxes stand in their place.")
    return drawn


_UNMEASURED = ("case", "stage", "task", "time", "phase", "residual", "status")


def trim_of(job: Job, blocks: Sequence[Block]) -> Trim | None:
    """Return which columns of a table are written; None: all of them."""
    asked, tidy = job.settings["columns"], bool(job.settings["tidy"])
    return trimmed(blocks, names_of(asked) if asked else [], tidy) if asked or tidy else None


def check_written(job: Job, blocks: Sequence[Block]) -> None:
    """Refuse columns to write that the table will not have; the blocks need no numbers yet.

    Raises:
        UsageError: no such column.
    """
    if job.settings["columns"]:
        known = column_names(blocks)
        known += [] if "status" in known else ["status"]  # of networks there is none before the work
        measured = any(case.experiments for case in job.cases)
        values = [name for name in known if measured and (name in COLUMNS or name not in OPTIONS)]
        values = [name for name in values if not name.endswith("_se") and name not in _UNMEASURED]
        known += [f"sim_{name}{suffix}" for name in values for suffix in ("", "_se")]
        more = ("experiment", "width", "nets", "trials", "dim", "sim_status")
        known += [name for name in more if measured and name not in known]
        check_columns(names_of(job.settings["columns"]), known)


def may_write(job: Job, blocks: Sequence[Block]) -> Callable[[str], bool]:
    """Return which names the run may give to its files; known before its work, the blocks need no numbers yet."""
    names = {"table.csv", PROVENANCE}
    drawing = drawing_of(job, [])
    drawn = quantities_of(blocks, drawing)
    stems = {f"-{name}" for name in drawn} if len(drawn) > 1 else {""}
    if not drawn_by_time(blocks, drawing) and plan_figure([final(block) for block in blocks], drawing) is None:
        stems = set()  # a single point
    for index, (case, block) in enumerate(zip(job.cases, blocks, strict=True), start=1):
        if _axes_of_edges(job, case, block.columns, blocks):
            names.add("boundary.csv")
        names |= {archive_name(case, stem, ending, index) for stem, ending in case.theory.archives(case).items()}
        stems |= {f"-{picture}" for picture in case.theory.pictures(case)}
    figure = re.compile(rf"figure(?:{'|'.join(map(re.escape, stems))})(?:-\d+)?\.(?:{'|'.join(drawing.formats)})")
    return lambda name: name in names or (bool(stems) and figure.fullmatch(name) is not None)


def files_read(job: Job) -> list[Path]:
    """Return the files of the user that the run reads."""
    texts = [name for name, option in OPTIONS.items() if option.files]
    words = [str(case.words.get(name) or "") for case in job.cases for name in texts]
    named = [word.strip().removeprefix("file:") for word in words if word.strip().startswith("file:")]
    return [expanded(name) for name in named]


def output_of(job: Job, folder: Path, *, force: bool) -> OutputFolder:
    """Return the folder that receives a job's files; `force`: whatever result it holds.

    Raises:
        UsageError: it holds the result of another job.
    """
    if not force:
        refuse_another(job, folder)
    return OutputFolder(folder, files_read(job))


def save(result: "Result", folder: Path, *, force: bool, figures: bool = True) -> Path:
    """Write the files of a result into `folder`, as its command does, or all but its figures, and return the folder.

    Raises:
        UsageError: `folder` holds what no earlier run wrote, or, without `force`, the result of another job; or the
            result is one case of a recipe.
        WriteError: it cannot be written.
        TlcliError: a figure cannot be drawn; the table is written.
    """
    if result.part_of is not None:
        raise UsageError("a case is saved with all others of its recipe; save the whole result.")
    output = output_of(result.job, folder, force=force)
    output.refuse_taken(may_write(result.job, result.blocks))
    with output.opened():
        *_, failure = save_into(result, output, figures=figures)
    if failure is not None:
        raise failure
    return folder


def save_into(
    result: "Result", output: OutputFolder, *, figures: bool = True
) -> tuple[list[str], float, TlcliError | None]:
    """Write all files of a result; return their names, the seconds of all work, and why there is no figure."""
    start = time.perf_counter()
    with output.replacing() as hidden:
        if result.folder is not None:
            names, failure = _copy(result.folder, hidden), None
        else:
            names, failure = _write(result, hidden, figures, lambda: result.seconds + time.perf_counter() - start)
    return names, result.seconds + time.perf_counter() - start, failure


def _copy(source: Path, folder: Path) -> list[str]:
    """Copy the files that the provenance in `source` names, and itself; return their names without it."""
    names = [name for name in read_provenance(source / PROVENANCE).files if name != PROVENANCE]
    for name in (*names, PROVENANCE):
        with atomic(folder / name) as temporary:
            temporary.write_bytes((source / name).read_bytes())
    return names


def _write(
    result: "Result", folder: Path, drawn: bool, seconds: Callable[[], float]
) -> tuple[list[str], TlcliError | None]:
    """Write all files into `folder`, the provenance last; return their names, and why there is no figure."""
    outcomes, blocks, edges = result.outcomes, result.blocks, result.boundaries
    trim = trim_of(result.job, blocks)
    write_table(blocks, folder / "table.csv", None if trim is None else trim.written)
    about = dict(result.about)
    engine = [
        {"case": one.case.label, "data": one.found.data, "engine": one.found.info}
        for one in outcomes
        if one.case.theory.store is not None
    ]
    if engine:
        about["networks"] = engine
    if any(edges):
        write_table(
            [edge_block(one.case, e) for one, some in zip(outcomes, edges, strict=True) for e in some],
            folder / "boundary.csv",
        )
    archives = _write_arrays(result, folder) + _write_predictions(outcomes, folder) + _write_layers(outcomes, folder)
    figures, failure = _try_to_draw(result, folder, about) if drawn else ([], None)
    rows = sum(block.size for block in blocks)
    if trim is not None:
        about[TRIMMED] = trim.told()
    about |= {"verdict": result.verdict, "rows": rows, "wall_time_seconds": round(seconds(), 3)}
    names = ["table.csv", *(["boundary.csv"] if any(edges) else []), *(path.name for path in figures)]
    names += [name for name in archives if name is not None]
    write_provenance(folder / PROVENANCE, about, [folder / name for name in names])
    return names, failure


def _try_to_draw(*arguments: Any) -> tuple[list[Path], TlcliError | None]:
    """Draw; a figure that fails costs neither the table, its provenance nor those before it, but is told at the end."""
    whole = "table.csv and provenance.json are written and whole"
    drawn: list[Path] = []
    try:
        drawn.extend(_draw(*arguments))  # what is there when it raises is kept
        return drawn, None
    except TlcliError as error:
        return drawn, type(error)(f"{error} The files {whole}.")
    except Exception as error:
        if os.environ.get("TLCLI_DEBUG"):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return drawn, TlcliError(
            f"the figure cannot be drawn ({reason}); {whole} (set TLCLI_DEBUG=1 for the traceback; please report it)"
        )


def _draw(result: "Result", folder: Path, about: dict[str, Any]) -> Iterator[Path]:
    drawing = drawing_of(result.job, result.boundaries)
    if _is_blank(result.blocks, drawing):
        return
    load()  # the plotting library, which a table alone does not need
    from tlcli.report.writer import write_figures, write_pages

    if drawing.images:
        yield from write_figures(figures_of(result), drawing, folder, about)
    if HTML in drawing.formats:
        yield from write_pages(pages_of(result), drawing, folder, about)


def pages_of(result: "Result") -> "Iterator[tuple[str, Page]]":
    """Yield file name (without ending) and figure for a browser; nothing where no number of a table is known."""
    drawing = drawing_of(result.job, result.boundaries)
    if not _is_blank(result.blocks, drawing):
        from tlcli.report.figures import pages_of as build

        yield from build(result.blocks, _smoothed(result.outcomes, result.blocks, drawing))


def figures_of(result: "Result") -> "Iterator[tuple[str, Figure]]":
    """Yield file name (without ending) and figure, one at a time; nothing where no number is known."""
    drawing = drawing_of(result.job, result.boundaries)
    if not _is_blank(result.blocks, drawing):
        from tlcli.report.figures import figures_of as build

        drawing = _smoothed(result.outcomes, result.blocks, drawing)
        shown = [one for outcome in result.outcomes for one in _shown(outcome)]
        layers = [layer for one in result.outcomes for layer in _layers(one)]
        yield from build(result.blocks, drawing, shown, layers)


def save_figures(result: "Result", folder: Path) -> list[Path]:
    """Write the figures of a result alone into `folder`, with a provenance of their own; return the files.

    Raises:
        UsageError: nothing to draw, or `folder` holds a result or what no earlier run wrote.
        WriteError: it cannot be written.
    """
    figure = re.compile(rf"figure.*\.(?:{'|'.join(FORMATS)})")
    if "table.csv" in read_provenance(folder / PROVENANCE).files:
        raise UsageError(f"'{folder}' holds a result, whose table its figures would replace; give another folder.")
    output = OutputFolder(folder)
    output.refuse_taken(lambda name: name == PROVENANCE or figure.fullmatch(name) is not None)
    with output.opened(), output.replacing() as hidden:
        names = [path.name for path in _draw(result, hidden, dict(result.about))]
        if not names:
            raise UsageError("there is nothing to draw: no parameter has several values, or no number is known.")
        write_provenance(hidden / PROVENANCE, result.about, [hidden / name for name in names])
    return [folder / name for name in names]


def pages_told(names: Sequence[str]) -> str | None:
    """Return what says that panels stand on several pages; None where all fit one."""
    matches = [re.fullmatch(r"(figure.*)-\d+(\.\w+)", name) for name in names]
    most = max(Counter(found.groups() for found in matches if found).values(), default=0)
    if most < 2:
        return None
    return f"its panels stand on pages, -1 to -{most}: two parameters make a grid, what else varies makes pages."


def redraw(job: Job, settings: Mapping[str, Any], blocks: Sequence[Block]) -> Job:
    """Return the job with other settings of its figures; nothing of what it computes may be among them.

    Raises:
        UsageError: a setting of another kind, a bad value, an axis or a column that the table does not have.
    """
    known = ("x", "y", *DRAWN)
    given: dict[str, Any] = {}
    roles = dict(job.roles)
    for name, raw in settings.items():
        if name not in known:
            raise UsageError(f"'{name}' is no setting of a figure{suggest(name, known)}; these are {', '.join(known)}.")
        if name in ("x", "y") and "=" in str(raw):
            raise UsageError(f"--{name} {raw}: what is stored has its grid already; name the parameter alone.")
        given[name] = None if raw is None else OPTIONS[name].parse(raw)
        if name in ("x", "y"):
            roles.pop(name, None)
            if raw is not None:
                roles[name] = given[name] = given[name].strip().replace("-", "_")
    if roles.get("x") is not None and roles.get("x") == roles.get("y"):
        one, other = ("x", "y") if given.get("x") is not None else ("y", "x")
        if given.get(other) is not None or job.roles.get(one) in (None, roles[other]):
            raise UsageError(f"--x and --y are both '{roles['x']}'; name two different parameters.")
        roles[other] = given[other] = job.roles[one]  # the axis that was stored there changes places with it
    resolved = {name: value for name, value in {**job.resolved, **given}.items() if value is not None}
    out = replace(job, settings={**job.settings, **given}, resolved=resolved, roles=roles)
    check_drawing(out, blocks, Silent())
    return out


def _smoothed(outcomes: "Sequence[CaseResult]", blocks: Sequence[Block], drawing: Drawing) -> Drawing:
    """Add closed forms on a fine grid of the horizontal axis, for the picture only."""
    if drawn_by_time(blocks, drawing) or len(outcomes) != len(blocks):
        return drawing
    spec = plan_figure([final(block) for block in blocks], drawing)
    if spec is None or spec.kind == "map":
        return drawing
    smooth = [fine_block(one.case, spec.x) for one in outcomes]
    return replace(drawing, smooth=smooth, smooth_axis=spec.x) if any(smooth) else drawing


def _shown(one: "CaseResult") -> "list[Shown]":
    """Return the arrays of points that are drawn, without what a first stage of no duration leaves."""
    from tlcli.report.kernels import Shown

    found = []
    for (point, arrays), full in zip(one.points(one.found.arrays), one.case.grid.points(), strict=False):
        if arrays is not None:
            given = {**one.case.words, **full}
            untrained = any(option.lasts == 1 and given.get(name) == 0 for name, option in OPTIONS.items())
            kept = {name: a for name, a in arrays.items() if not (untrained and name.endswith("_stage1"))}
            words = "fresh source points" if one.case.words.get("alone") else "target points"
            found.append(Shown(one.case.label, point, kept, words))
    return found


def _is_blank(blocks: Sequence[Block], drawing: Drawing) -> bool:
    """Whether no point of the table could be computed: there is nothing to draw."""
    names = {*_LOSSES, drawing.default_quantity, *quantities_of(blocks, drawing)}
    found = [block.columns[name] for block in blocks for name in names & block.columns.keys()]
    return bool(found) and all(np.isnan(column).all() for column in found)  # of a trimmed table there may be none


def edges_of(job: Job, case: Case, findings: Findings, blocks: Sequence[Block]) -> list[Any]:
    """Refine the boundary along the axes that the figure shows; costly solvers interpolate their grid."""
    found = findings.columns
    axes = _axes_of_edges(job, case, found, blocks)
    if not axes:
        return []
    spec = plan_figure(blocks, drawing_of(job, []))
    gain = found[spec.quantity if spec is not None and spec.quantity in DIFFERENCES else "gain"]
    if case.theory.searchable and "phase" in found:  # within rounding, a gain has no sign that could change
        gain = np.where(found["phase"] == Phase.NEUTRAL, 0.0, gain)
    edges = [
        case.theory.boundaries(case, axis, case.grid.values[axis].scale == "log", gain, findings.draws) for axis in axes
    ]
    return [_edge(edge, keep) for edge in edges if edge is not None and (keep := _told(edge)).any()]


def _axes_of_edges(job: Job, case: Case, found: Mapping[str, Any], blocks: Sequence[Block]) -> list[str]:
    """Return the axes of the figure along which the case has a boundary to seek."""
    if "gain" not in found or case.theory.inner:
        return []
    spec = plan_figure(blocks, drawing_of(job, []))
    shown = [] if spec is None else [spec.x, spec.y]
    return [axis for axis in shown if axis is not None and axis in case.grid.axes]


def _told(edge: BoundaryPoints) -> Flags:
    """Return which boundary points (n,) lie where there is transfer: elsewhere every gain is zero by definition."""
    keep = np.ones(len(edge.kind), dtype=bool)
    for name, values in edge.values.items():
        if name in OPTIONS and OPTIONS[name].neutral is not None:
            keep &= np.asarray(values) != OPTIONS[name].neutral
    return keep


def _edge(edge: BoundaryPoints, keep: Flags) -> dict[str, Any]:
    """Return the boundary points to `keep`."""
    return {**{n: v[keep] for n, v in edge.values.items()}, "kind": edge.kind[keep], "refined": edge.along}


def archive_name(case: Case, stem: str, ending: str, index: int) -> str:
    """Return the name of a file that belongs to one case, the `index`-th from 1."""
    word = re.sub(r"[^\w.+]+", "-", case.label or "")[:50].strip("-.")  # a label may hold what no file name can
    return f"{stem}-{index}-{word}.{ending}" if case.label else f"{stem}.{ending}"


def _write_arrays(result: "Result", folder: Path) -> list[str | None]:
    """Write the theory's matrices, with the values of the grid's axes; return the names of the files."""
    names: list[str | None] = []
    for index, (one, arrays) in enumerate(zip(result.outcomes, result.matrices, strict=True), start=1):
        if arrays is None:
            continue
        names.append(archive_name(one.case, one.case.theory.archive, "npz", index))
        with atomic(folder / str(names[-1])) as temporary, temporary.open("wb") as stream:
            np.savez(stream, axis_order=np.array(one.case.grid.axes, dtype=str), **arrays)  # type: ignore[arg-type]
    return names


def _layers(one: "CaseResult") -> "list[Layers]":
    if not one.found.layers:
        return []
    load()
    from tlcli.report.layers import Layers

    return [Layers(one.case.label, at, layer) for at, layer in one.points(one.found.layers) if layer is not None]


def _write_layers(outcomes: "Sequence[CaseResult]", folder: Path) -> list[str | None]:
    """Write layers.csv per case: how far the kernel of every layer has moved, and its alignments."""
    names: list[str | None] = []
    for index, one in enumerate(outcomes, start=1):
        layers = _layers(one)
        if layers:
            from tlcli.report.layers import write_layers

            names.append(archive_name(one.case, "layers", "csv", index))
            write_layers(folder / str(names[-1]), layers)
    return names


def _write_predictions(outcomes: "Sequence[CaseResult]", folder: Path) -> list[str | None]:
    """Write predictions.csv per case: stage, time, set, index, labels, prediction and its error, of the first draw."""
    from tlcli.report.predictions import write_predictions

    names: list[str | None] = []
    for index, one in enumerate(outcomes, start=1):
        if not any(name.startswith("predictions") for arrays in one.found.arrays for name in arrays or {}):
            continue
        points = [point for point, _ in one.points(one.found.arrays)]
        names.append(archive_name(one.case, "predictions", "csv", index))
        count = len(points)
        timeless = (np.tile([1.0, 2.0], (count, 1)), np.full((count, 2), np.nan))  # source and target network
        stages, times = (
            np.asarray(one.found.columns[n]).reshape(count, -1) if n in one.found.columns else default
            for n, default in zip(("stage", "time"), timeless, strict=True)
        )
        write_predictions(folder / str(names[-1]), points, stages, times, one.found.arrays)
    return names
