"""Tidy CSV tables: one row per point of a grid, every parameter in its own column."""

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from tlcli.arrays import Array, Floats
from tlcli.report.files import atomic
from tlcli.status import Phase, Status

_WORDS = {"status": Status, "phase": Phase}
_OF_TARGET = re.compile(
    r"(sim_)?((baseline|gain)(_error|_calibrated)?|best_time|best_loss|overfitting)(_draw|_test)?(_se)?"
)  # the source stage has none: their cells are empty
_OF_HEAD = re.compile(
    r"(sim_)?((loss|error)(_calibrated)?|temperature|margin|train_(loss|error))(_draw|_test)?(_se)?"
)  # of the target's readout, which the source stage has where it is carried
_TRAINED = ("train_loss", "source_train_loss")
_ROWS_AT_ONCE = 20_000  # the text of many more takes more memory than their numbers, and no less time


@dataclass(frozen=True, eq=False)
class Block:
    """The results on one full grid.

    `axes` maps the several-valued axes, slowest first, to their values; `columns` maps a name to an array
    that broadcasts to `shape`, or to one value (number or word) for all rows.
    """

    axes: Mapping[str, Floats]
    columns: Mapping[str, Any]
    scales: Mapping[str, str]
    label: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return tuple(len(values) for values in self.axes.values())

    @property
    def size(self) -> int:
        """Number of rows."""
        return math.prod(self.shape)

    def full(self, name: str) -> Array:
        """Return the column `name` at its full shape."""
        return np.broadcast_to(np.asarray(self.columns[name]), self.shape)


def column_names(blocks: Sequence[Block]) -> list[str]:
    """Return the header: `case` first where cases have labels, then every column once."""
    names = dict.fromkeys(name for block in blocks for name in block.columns)
    last = [name for name in ("residual", "status") if name in names]
    ordered = [name for name in names if name not in last] + last
    return (["case"] if any(block.label is not None for block in blocks) else []) + ordered


def write_table(blocks: Sequence[Block], path: Path, names: Sequence[str] | None = None) -> None:
    """Write the blocks, or the columns `names` of them, as one CSV file, atomically."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        write_csv(blocks, stream, names)


def write_csv(blocks: Sequence[Block], stream: TextIO, names: Sequence[str] | None = None) -> None:
    """Write the blocks, or the columns `names` of them, as CSV; a cell is empty where a column does not apply."""
    names = names or column_names(blocks)
    csv.writer(stream, lineterminator="\n").writerow(names)
    for block in blocks:
        for part in _parts(block):
            runs = _joined([cells_of(part, name) for name in names])
            columns = [np.broadcast_to(run, part.shape or (1,)).ravel().tolist() for run in runs]
            stream.write("\n".join(map(",".join, zip(*columns, strict=True))))
            stream.write("\n")


def _joined(columns: Sequence[Array]) -> list[Array]:
    """Join neighbouring columns of text while that formats no cell more often than needed.

    Most columns of a grid are constant or depend on one axis only; joining them first makes writing a million
    rows several times faster than cell by cell.
    """
    runs = [columns[0]]
    for column in columns[1:]:
        last = runs[-1]
        size = math.prod(np.broadcast_shapes(last.shape, column.shape))
        grows_neither = size <= max(last.size, column.size)
        if grows_neither and (size == 1 or min(last.size, column.size) < size):
            runs[-1] = last + "," + column
        else:
            runs.append(column)
    return runs


def _parts(block: Block, axis: int = 0) -> Iterator[Block]:
    """Cut a large block along its slowest axes, so that its text never is in memory as a whole."""
    if block.size <= _ROWS_AT_ONCE or axis == len(block.axes):
        yield block
        return
    name, values = list(block.axes.items())[axis]
    step = max(1, _ROWS_AT_ONCE * len(values) // block.size)
    for start in range(0, len(values), step):
        here = slice(start, start + step)

        def cut(column: Any, here: slice = here, ndim: int = len(block.axes), n: int = len(values)) -> Any:
            array = np.asarray(column)
            whole = array.ndim == ndim and array.shape[axis] == n
            return array[(slice(None),) * axis + (here,)] if whole else column

        columns = {key: cut(column) for key, column in block.columns.items()}
        axes = {**block.axes, name: values[here]}
        yield from _parts(Block(axes, columns, block.scales, block.label), axis + 1)


def cells_of(block: Block, name: str) -> Array:
    """Return the cells of one column as an object array no larger than the column itself."""
    ones = (1,) * max(1, len(block.axes))  # never 0-dimensional: NumPy unpacks such objects
    if name == "case" or name not in block.columns:
        return _objects([_quoted(block.label or "") if name == "case" else ""], ones)
    column = np.asarray(block.columns[name])
    shape = (*ones[column.ndim :], *column.shape)
    words = _WORDS.get(name)
    if words is not None and column.dtype.kind in "iu":
        names = {int(code): code.name.lower() for code in words}
        return _objects([names[code] for code in column.ravel().tolist()], shape)
    if column.dtype.kind == "f":
        # The shortest text that reads back as the same number.
        texts = [text[:-2] if text[-2:] == ".0" else text for text in map(repr, column.ravel().tolist())]
        cells = _objects(texts, shape)
        if "stage" in block.columns:
            if _OF_TARGET.fullmatch(name):
                return np.where(np.asarray(block.columns["stage"]) == 1, "", cells)
            if _OF_HEAD.fullmatch(name):
                return np.where(_headless(block), "", cells)
        return cells
    return _objects([_quoted(str(value)) for value in column.ravel().tolist()], shape)


def _headless(block: Block) -> Array:
    """Return which rows of the source stage have no readout of the target: training went on, and its loss is none."""
    stage, trained, source = (np.asarray(block.columns.get(n, np.nan)) for n in ("stage", *_TRAINED))
    return (stage == 1) & np.isnan(trained) & np.isfinite(source)


def _objects(texts: list[str], shape: tuple[int, ...]) -> Array:
    cells = np.empty(len(texts), dtype=object)
    cells[:] = texts
    return cells.reshape(shape)


def _quoted(text: str) -> str:
    """Quote one cell as the csv module would."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([text, ""])
    return line.getvalue().removesuffix(",\n")
