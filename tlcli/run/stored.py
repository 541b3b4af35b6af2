"""A result read back from its folder: table, boundaries, arrays and layers; nothing is computed."""

import csv
import os
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tlcli.arrays import Array
from tlcli.errors import RecipeError, UsageError
from tlcli.options import OPTIONS
from tlcli.options.columns import COLUMNS
from tlcli.options.commands import COMMANDS
from tlcli.report.folder import strangers
from tlcli.report.provenance import PROVENANCE
from tlcli.report.tables import Block
from tlcli.report.trim import KEY as TRIMMED
from tlcli.report.trim import Trim, read_trim
from tlcli.run.again import facts_inside, recipe_inside
from tlcli.run.assemble import axes_of, scales_of
from tlcli.run.job import Job, prepare
from tlcli.run.outputs import archive_name
from tlcli.run.result import CaseResult, Result
from tlcli.status import Phase, Status
from tlcli.theories.base import Case, Findings, PointByPoint

Row = Mapping[str, str]

_CODES = {
    name: {code.name.lower(): int(code) for code in kind} for name, kind in (("status", Status), ("phase", Phase))
}
# What tells experiments apart is text in a table in memory, too: 512 stays 512 in a legend.
_TEXTS = {"experiment", "width", "nets", "trials", "sim_status", "kind", "refined"}
_WHOLE = ("stage", "task")
_NOT_FACTS = ("files", "run", "rows", "verdict", "wall_time_seconds", TRIMMED)


def load(folder: Path, *, allow_code: bool = False) -> Result:
    """Return the result that a run has written into `folder`.

    Raises:
        UsageError: no result of a run, a file that was changed since, or a table that is not whole.
        RecipeError: its recipe is not for this version, or would run code of the user's (then give `allow_code`).
    """
    folder = folder.parent if folder.name in ("table.csv", PROVENANCE) else folder
    if not os.path.isfile(folder / PROVENANCE):  # of pathlib it may raise
        raise UsageError(f"'{folder}' holds no result: there is no {PROVENANCE} in it; give the folder of a run.")
    for sentence in strangers(folder / "table.csv"):
        raise UsageError(f"'{folder}' cannot be read: {sentence}.")
    about = facts_inside(folder / PROVENANCE)
    recipe = recipe_inside(folder / PROVENANCE)
    command = str(recipe.command)
    job = prepare(command, COMMANDS[command].options, recipe, {"allow_code": True} if allow_code else {})
    trim = read_trim(folder / PROVENANCE)
    with _whole(folder):
        return _read(folder, job, about, trim)


@contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """Refuse in one sentence files that cannot be read, or hold what no run writes. Raises UsageError."""
    try:
        yield
    except OSError as error:
        name = Path(error.filename).name if error.filename else "a file"
        raise UsageError(f"'{folder}' cannot be read: {name}: {error.strerror or error}.") from None
    except (LookupError, ValueError, TypeError, EOFError, csv.Error, zipfile.BadZipFile) as error:
        raise UsageError(
            f"'{folder}' cannot be read: its files are not as a run writes them ({type(error).__name__}: {error}); "
            "`tlcli check` says more, or run its recipe again."
        ) from None


def _read(folder: Path, job: Job, about: Mapping[str, Any], trim: Trim | None) -> Result:
    """Return the result of a job from its files, whatever is wrong with them raised as it comes."""
    rows = _by_case(folder / "table.csv", [case.label for case in job.cases], trim)
    edges = _by_case(folder / "boundary.csv", [case.label for case in job.cases])
    blocks = [_block(case, part, folder) for case, part in zip(job.cases, rows, strict=True)]
    matrices = [_matrices(folder, case, index) for index, case in enumerate(job.cases, start=1)]
    outcomes = [
        CaseResult(case, Findings({}, arrays=_by_point(case, found), layers=_layers(folder, case, index)))
        for index, (case, found) in enumerate(zip(job.cases, matrices, strict=True), start=1)
    ]
    facts = {name: value for name, value in about.items() if name not in _NOT_FACTS}
    stored = {"about": facts, "boundaries": [_edges(part) for part in edges], "matrices": matrices}
    if trim is not None and trim.left_out:  # what the answer was taken from is not in the table
        stored["verdict"] = about["verdict"]
    return Result(job, outcomes, blocks, folder=folder, stored=stored)


def _by_case(path: Path, labels: Sequence[str | None], trim: Trim | None = None) -> list[list[Row]]:
    """Return the rows of a table by case; none where there is no such file."""
    if not path.exists():
        return [[] for _ in labels]
    with path.open(encoding="utf-8", newline="") as stream:
        rows: list[Row] = list(csv.DictReader(stream))
    if trim is not None:
        rows = list(trim.whole(rows))
    if labels == [None]:
        return [rows]
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.get("case", "")].append(row)
    return [groups[str(label)] for label in labels]


def _block(case: Case, rows: Sequence[Row], folder: Path) -> Block:
    axes = axes_of(case)
    size = int(np.prod([len(values) for values in axes.values()], dtype=int))
    variants, rest = divmod(len(rows), size)
    if not variants or rest:
        raise UsageError(f"'{folder}' has {len(rows)} rows of {size} points; run its recipe again.")
    if variants > 1:
        axes = {"experiment": np.arange(variants), **axes}
    shape = tuple(len(values) for values in axes.values())
    own = {"case"}
    columns = {
        name: _column(name, [row[name] for row in rows]).reshape(shape)
        for name in rows[0]
        if name not in own and any(row[name] for row in rows)
    }
    return Block(axes, columns, scales_of(case), case.label)


def _column(name: str, cells: Sequence[str]) -> Array:
    if name in _CODES:
        return np.array([_CODES[name][cell] for cell in cells], dtype=np.int8)
    if name not in _TEXTS:
        try:
            numbers = np.array([float(cell or "nan") for cell in cells])
            if name in _WHOLE and not np.isfinite(numbers).all():
                raise ValueError(f"{name} is no whole number")
            return numbers
        except ValueError:
            if (name in COLUMNS and name not in OPTIONS) or name in _WHOLE:  # options may be formulas
                raise
    return np.array(cells)


def _edges(rows: Sequence[Row]) -> list[dict[str, Any]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["refined"]].append(row)
    out = []
    for along, part in groups.items():
        names = [n for n in part[0] if n not in ("case", "refined") and any(row[n] for row in part)]
        out.append({n: _column(n, [row[n] for row in part]) for n in names} | {"refined": along})
    return out


def _matrices(folder: Path, case: Case, index: int) -> dict[str, Array] | None:
    path = folder / archive_name(case, case.theory.archive, "npz", index)
    if not path.exists():
        return None
    with path.open("rb") as stream, np.load(stream) as archive:  # a damaged one is closed too
        return {name: archive[name] for name in archive.files if name != "axis_order"}


def _by_point(case: Case, matrices: Mapping[str, Array] | None) -> list[dict[str, Array] | None]:
    """Undo `PointByPoint.arrays`: return the arrays of every point; nothing where a theory has none by point."""
    if matrices is None or not isinstance(case.theory, PointByPoint):
        return []
    out: list[dict[str, Array] | None] = []
    alone = {name.rpartition("_point")[0] for name in matrices if "_point" in name}
    whole = [n for n in matrices if n not in case.grid.axes and n.rpartition("_point")[0] not in alone]
    for index in range(case.grid.size):
        at = np.unravel_index(index, case.grid.shape) if case.grid.shape else ()
        found = {name: matrices[name][at] for name in whole}
        found |= {name: matrices[f"{name}_point{index}"] for name in alone if f"{name}_point{index}" in matrices}
        out.append(found or None)
    return out


def _layers(folder: Path, case: Case, index: int) -> list[Any]:
    path = folder / archive_name(case, "layers", "csv", index)
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    axes = case.grid.axes
    groups: dict[tuple[float, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(float(row[name]) for name in axes)].append(row)
    names = [name for name in rows[0] if name not in (*axes, "stage", "time", "layer")]
    return [_layer(groups.get(tuple(point[name] for name in axes), []), names) for point in case.grid.points()]


def _layer(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Array] | None:
    if not rows:
        return None
    depth = max(int(row["layer"]) for row in rows)
    found = {name: np.array([float(row[name] or "nan") for row in rows]).reshape(-1, depth) for name in names}
    return found | {name: np.array([float(row[name] or "nan") for row in rows[::depth]]) for name in ("stage", "time")}


__all__ = ["RecipeError", "load"]
