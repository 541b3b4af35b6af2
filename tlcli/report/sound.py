"""Is a file a table at all, and is every cell of it a thing that its column may hold?

What is told: rows of another length than the header, cells that cannot be read, numbers outside their column's range,
words that are none of their column's, numbers that a solved row must have and lacks, standard errors that are none, a
last line that is cut off. Each fault names its line (the header is line 1) and its column. Rows without an answer
(`not_converged`, `failed`) may hold anything that can be read; so may numbers that a `diverged` row says are infinite.
"""

import csv
import functools
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from tlcli.errors import DomainError, UsageError, suggest
from tlcli.options import OPTIONS
from tlcli.options.columns import COLUMNS
from tlcli.report.files import stream_of
from tlcli.status import Phase, Status

Row = Mapping[str, str]

_SOLVED = ("converged", "collapsed", "inaccurate")
_STATUSES = tuple(status.name.lower() for status in Status)
_WORDS = {
    "status": _STATUSES,
    "phase": tuple(phase.name.lower() for phase in Phase),
    "sim_status": ("ok", "", "failed", "not_converged"),
}
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?|[-+]?inf(?:inity)?|nan", re.IGNORECASE)
_STRANGE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffd]")
_ERRORS = ("_draw_se", "_test_se", "_pool_se", "_neuron_se", "_source_se", "_se")
_SEARCHED = ("_opt", "best_time")
_STAGED = re.compile(r"(?:alpha|gamma|duration|sigma|weight_decay)_[0-9]+")
# Columns of the tables beside the main one, whose rows have no status, and words.
BESIDE = {"kind", "refined", "layer", "other", "set", "index", "label", "prediction"}
_WRITTEN = {*BESIDE, "case", "value", "error"}


def _parameters() -> set[str]:
    """Return the options that may be columns, those of a theory that was registered among them."""
    return {option.column or n for n, option in OPTIONS.items() if option.panel not in ("Figure", "Run", "Outputs")}


_TEXTS = {"case", "experiment", "kind", "refined", "other", "set"}
_COUNTS = {"stage", "task"}  # besides options, whose domains are their own
# Every solved row has a finite number here (a baseline may be infinite where pre-training tames it).
_FINITE = (
    "loss",
    "train_loss",
    "source_loss",
    "source_train_loss",
    "residual",
    "norm2_end",
    "test_loss",
    "free_energy",
)
_NUMBERS = (*_FINITE, "baseline", "gain", "overlap", "norm2", "bulk", "spike", "kappa1", "kappa2", "forgetting")
# What a stage has not: the source no baseline; with losses that are named heads belong to one task.
_WITHOUT = {"1": ("baseline", "gain"), "2": ()}
_OF_HEADS = {"1": ("loss", "train_loss"), "2": ("source_loss", "source_train_loss")}
_SQUARES = ("loss", "baseline", "train_loss", "source_loss", "source_train_loss", "residual", "norm2", "bulk")
_ROUNDING = 1e-9
_SHOWN_CELL = 40
_SHARED = 10_000
_KEPT = 1000  # faults; a few are shown
_BLOCK = 2**16  # bytes


@dataclass(frozen=True)
class Fault:
    """What is wrong, in one sentence, and where; `column` is None where it is no single cell."""

    line: int
    column: str | None
    words: str

    def __str__(self) -> str:
        """One line for people."""
        where = f"line {self.line}" + (f", column '{self.column}'" if self.column is not None else "")
        return f"{where}: {self.words}"


@dataclass(frozen=True)
class Content:
    """The header of a table and what is wrong with it: the first faults, by line, and how many there are."""

    header: list[str]
    faults: list[Fault] = field(default_factory=list)
    count: int = 0


def read_content(path: Path, visit: Callable[[int, Row], None] | None = None, *, trimmed: bool = False) -> Content:
    """Read a table line by line and judge every cell; `visit` is called with the line and the cells of every row.

    `trimmed`: columns that belong to each other need not all be there. Memory does not grow with the table.

    Raises:
        UsageError: the file is missing, or is no table of tlcli: empty, or without any of its columns.
    """
    try:
        with stream_of(path) as stream:
            return _judged(path, _Lines(stream), visit or (lambda line, row: None), trimmed)
    except OSError as error:
        raise UsageError(f"table '{path}' cannot be read: {error.strerror or error}.") from None


def _judged(path: Path, lines: "_Lines", visit: Callable[[int, Row], None], trimmed: bool) -> Content:
    shape, cells_of_rows = _Faults(), _Faults()  # those of one line stand in this order
    records = _records(lines, shape)
    first, header = next(records, (1, []))
    known = {name for name in header if _known(name)}
    if not known or len(known) < len(header) / 2:
        start = lines.first()
        if not start:
            raise UsageError(f"table '{path}' is empty; a table has a header row.")
        raise UsageError(
            f"table '{path}' is no table of tlcli: line {first} starts '{_short(start)}' and "
            "should hold names of columns, such as alpha1,loss,status; give the table.csv of a run, or its folder."
        )
    shape.add(_of_header(header, trimmed))
    judged, gaps, found = len(set(header)) == len(header), _Gaps(header), False
    shared: dict[str, str] = {}  # most cells of a large table are the same few texts
    for line, cells in records:
        if len(cells) != len(header):
            shape.add([_ragged(line, cells, header)])
            continue
        same = (shared.setdefault(cell, cell) if len(shared) < _SHARED else shared.get(cell, cell) for cell in cells)
        row, found = dict(zip(header, same, strict=True)), True
        visit(line, row)
        if judged:
            cells_of_rows.add(_of_row(line, row))
            gaps.see(line, row)
    lines.drain()
    if not found and not shape.count:
        shape.add([Fault(first, None, "the header stands alone; a table has a row for every point")])
    if lines.last != b"\n":
        shape.add([Fault(lines.count + 1, None, "the last line has no end; the file was cut off, run again")])
    cells_of_rows.add(gaps.faults())
    every = sorted(shape.kept + cells_of_rows.kept, key=lambda fault: fault.line)
    return Content(header, every, shape.count + cells_of_rows.count)


@dataclass
class _Faults:
    """The faults of the first lines, and the number of all."""

    kept: list[Fault] = field(default_factory=list)
    count: int = 0

    def add(self, found: Iterable[Fault]) -> None:
        for fault in found:
            self.count += 1
            self.kept.append(fault)
        if len(self.kept) > 2 * _KEPT:
            self.kept = sorted(self.kept, key=lambda fault: fault.line)[:_KEPT]


class _Lines(io.RawIOBase):
    """The bytes of a table as they are read: how many lines have ended, the last byte, and where it starts."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._start = b""
        self.count, self.last = 0, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self.count += data.count(b"\n")
        self.last = data[-1:] or self.last
        if not self._start.strip():
            self._start = data
        return len(data)

    def drain(self) -> None:
        """Read what is left."""
        buffer = bytearray(_BLOCK)
        while self.readinto(buffer):
            pass

    def first(self) -> str:
        """Return the first line that is not blank, as far as one block goes, empty where there is none."""
        buffer = bytearray(_BLOCK)
        while not self._start.strip() and self.readinto(buffer):
            pass
        return next(iter(self._start.decode("utf-8-sig", errors="replace").strip().splitlines()), "")


def _records(lines: _Lines, faults: _Faults) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the cells of every record; what cannot be split into cells is a fault and ends the reading.

    A blank line is a record without cells, but at the end of the file it is none.
    """
    stream = io.TextIOWrapper(io.BufferedReader(lines, _BLOCK), "utf-8-sig", "replace", newline="")
    reader = csv.reader(stream, strict=True)
    blank: list[int] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield from ((number, []) for number in blank)
            faults.add([Fault(line, None, _unsplit(str(error)))])
            return
        if not cells:
            blank.append(line)
            continue
        yield from ((number, []) for number in blank)
        blank.clear()
        yield line, cells


def _unsplit(message: str) -> str:
    if "field limit" in message or "field larger" in message:
        return f"a cell is longer than {csv.field_size_limit()} characters; what follows is not read"
    if "end of data" in message:
        return "a quotation mark is opened and not closed; what follows is not read"
    return f"the line cannot be split into cells ({message}); what follows is not read"


def _ragged(line: int, cells: Sequence[str], header: Sequence[str]) -> Fault:
    if len(cells) < len(header):
        missing = header[len(cells)]
        return Fault(line, missing, f"the line ends before it, after {len(cells)} of {len(header)} cells")
    more = _short(cells[len(header)])
    return Fault(line, None, f"{len(cells)} cells where the header has {len(header)}; the first too many is '{more}'")


def _known(name: str) -> bool:
    for ending in ("", *_ERRORS):
        bare = name.removesuffix(ending).removeprefix("sim_")
        if bare in COLUMNS or bare in _parameters() or bare in _WRITTEN or name in _WORDS or _STAGED.fullmatch(bare):
            return True
    return name in ("sim_step_error", "sim_drift", "sim_acceptance")


def _bare(name: str) -> str:
    """Return the column whose error `name` is."""
    return name.removesuffix(next((ending for ending in _ERRORS if name.endswith(ending)), ""))


def _of_header(header: Sequence[str], trimmed: bool) -> Iterator[Fault]:
    before, every = set[str](), set(header)
    for name in header:
        if name in before:
            yield Fault(1, name, "the column stands twice")
        elif not _known(name):
            yield Fault(1, _short(name), f"tlcli has no such column{suggest(name, [*COLUMNS, *_parameters()])}")
        elif not trimmed and name.endswith("_se") and _bare(name) not in every:
            yield Fault(1, name, f"the column '{_bare(name)}', whose error it is, is missing")
        elif not trimmed and name.startswith("sim_") and f"{name}_se" in every and name[4:] not in every:
            yield Fault(1, name, f"the column '{name[4:]}' of the theory is missing")
        before.add(name)


def _of_row(line: int, row: Row) -> Iterator[Fault]:
    """Yield what is wrong with the cells of one row."""
    status = row.get("status", "converged")
    for name, cell in row.items():
        words = _cell(name, cell)
        if words is None and _NUMBER.fullmatch(cell) and _is_number(name):
            words = _value(name, float(cell), row, status)
        if words is not None:
            yield Fault(line, name, words)


@functools.lru_cache(20_000)
def _cell(name: str, cell: str) -> str | None:
    """Return what is wrong with the text of a cell."""
    strange = _STRANGE.search(cell)
    if strange and strange[0] == "\ufffd":
        return f"'{_short(cell)}' holds bytes that are no UTF-8 text"
    if strange:
        return f"'{_short(cell)}' holds the control character U+{ord(strange[0]):04X}"
    if name in _WORDS and cell not in _WORDS[name]:
        near = suggest(cell, _WORDS[name])
        return f"'{_short(cell)}' is unknown; use one of {', '.join(filter(None, _WORDS[name]))}{near}"
    words = OPTIONS[name].words if name in OPTIONS else ()  # as ridge: best
    if cell and _is_number(name) and cell not in words and not _NUMBER.fullmatch(cell):
        return f"'{_short(cell)}' is no number"
    return None


@functools.cache
def _is_number(name: str) -> bool:
    if name in _WORDS or name in _TEXTS:
        return False
    if name in OPTIONS and (name not in COLUMNS or OPTIONS[name].kind == "expression"):  # c_signal: alpha1*gamma0
        return OPTIONS[name].kind in ("grid", "number", "integer")
    return name in COLUMNS or name.endswith("_se") or name.startswith("sim_") or bool(_STAGED.fullmatch(name))


def _value(name: str, value: float, row: Row, status: str) -> str | None:
    """Return what is wrong with a number in a row of this status."""
    if name.endswith("_se"):
        return _error(name, value, row, status)
    interpolated = "kind" in row  # a boundary lies between the points of the grid
    if name in _COUNTS and not interpolated and not (value >= 1 and value == value // 1):
        return f"{value:g} is no whole number from 1"
    if name in OPTIONS and name not in COLUMNS:
        return _parameter(name, value, interpolated)
    if name.startswith("sim_"):
        bare = name.removeprefix("sim_")
        lost = row.get("sim_status", "ok") == "ok" and value != value and status == "converged"
        other = row.get(bare, "")
        if lost and _finite(other) and _finite(row.get(f"{name}_se", "")):
            return f"nan beside a standard error and a theory of {other}"
        return f"{value:g} is below 0" if name == "sim_step_error" and value < 0 else None
    if status not in _SOLVED:
        return None
    stage = row.get("stage", "")
    absent = (*_WITHOUT.get(stage, ()), *(_OF_HEADS.get(stage, ()) if "loss_function1" in row else ()))
    if name in _NUMBERS and value != value and name not in absent:
        return f"nan in a row whose status is {status}"
    if name in _FINITE and abs(value) == float("inf"):
        return f"{value:g} in a row whose status is {status}"
    if name in _SQUARES and value < -_ROUNDING and f"{name}_se" not in row:
        return f"{value:g} is below 0, which a square is not"
    return None


def _parameter(name: str, value: float, interpolated: bool) -> str | None:
    domain = OPTIONS[name].domain
    if domain is not None and interpolated:
        domain = replace(domain, whole=False)
    if value != value:
        return "nan is no value of a parameter"
    try:
        if domain is not None:
            domain.check(name, value)
    except DomainError as error:
        return str(error).rstrip(".")
    return None


def _error(name: str, value: float, row: Row, status: str) -> str | None:
    """Return what is wrong with a standard error: below 0 anywhere, none or infinite beside a finite number."""
    if value < 0:
        return f"a standard error of {value:g} is below 0"
    of = row.get(_bare(name), "")
    measured = name.startswith("sim_")
    solved = row.get("sim_status", "ok") == "ok" if measured else status in _SOLVED
    # A single population of neurons has no error of its own: nan in the whole column, see `_gaps`.
    if solved and _finite(of) and not value < float("inf") and (measured or value == value):
        return f"a standard error of {value:g} beside the number {of}"
    return None


def _finite(cell: str) -> bool:
    return bool(_NUMBER.fullmatch(cell)) and abs(float(cell)) < float("inf")


class _Gaps:
    """Empty cells of columns that are filled in like rows: solved, of one case, experiment, stage and task."""

    def __init__(self, header: Sequence[str]) -> None:
        self._everywhere = [name for name in header if _everywhere(name)]
        self._errors = {
            name
            for name in self._everywhere
            if name.endswith("_se") and not name.startswith("sim_") and not _bare(name).endswith(_SEARCHED)
        }
        # Of a kind of rows: how many, and of (column, word) the first line without a number and how many there are.
        self._seen: dict[Any, tuple[list[int], dict[tuple[str, str], list[int]]]] = {}

    def see(self, line: int, row: Row) -> None:
        """Take a row into account."""
        if row.get("status", "converged") not in _SOLVED:
            return
        kind = tuple(row.get(name) for name in ("case", "experiment", "stage", "task"))
        if kind not in self._seen:
            self._seen[kind] = ([0], {})
        members, lost = self._seen[kind]
        members[0] += 1
        for name in self._everywhere:
            cell = row[name]
            if not cell or (name in self._errors and cell.lower() == "nan"):
                lost.setdefault((name, cell and "nan"), [line, 0])[1] += 1

    def faults(self) -> Iterator[Fault]:
        """Yield the first of the empty cells, and of the standard errors of nan, that other rows of a kind have."""
        words = {
            "": "the cell is empty, and other rows of its kind have a number",
            "nan": "a standard error of nan, and other rows of its kind have a number",
        }
        for (members,), lost in self._seen.values():
            for name in self._everywhere:
                for word in words:
                    line, count = lost.get((name, word), (0, 0))
                    if 0 < count < members:
                        yield Fault(line, name, words[word])


def _everywhere(name: str) -> bool:
    grid = name in OPTIONS and OPTIONS[name].kind == "grid"
    return grid or name in _NUMBERS or name.startswith("sim_") or name.endswith("_se")


def _short(text: str) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in text[:_SHOWN_CELL])
    return shown + ("…" if len(text) > _SHOWN_CELL else "")
