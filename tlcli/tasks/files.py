"""Reading the user's task files: NPZ archives and CSV tables become arrays by name, or one sentence says why not."""

import csv
import io
import math
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tlcli.arrays import Flags, Floats
from tlcli.errors import UsageError, suggest

Arrays = dict[str, Floats]

REQUIRED = ("x_source", "y_source", "x_target", "y_target", "x_test")
OPTIONAL = ("y_test", "y_test_source")
SETS = ("source", "target", "test")
LABELS = ("y", "y_source")
KEEP = "none"  # among columns to leave out: none of the others, though one may look like an index
LARGEST = 2 << 30  # bytes of numbers in a file

_INDEX = ("id", "idx", "index", "no", "nr", "number", "row", "row_id", "rownames", "sample_id")
# What other programs call the same arrays and columns. A single task in two sets cannot be told apart from two tasks.
_PARTS = {
    "source": ("source", "src", "pretrain", "pre", "1", "task1", "s"),
    "target": ("target", "tgt", "finetune", "ft", "2", "task2", "t"),
    "test": ("test", "te", "val", "valid", "validation"),
    "": ("train", "tr", "training", "all", ""),
}
_LETTERS = {"x": ("x", "data", "features", "inputs", "images"), "y": ("y", "label", "labels", "targets", "target")}
_MEANT = {
    name: tuple(f"{letter}_{which}" for which in ([part] if part else ["source", "target"]))
    for letter, words in _LETTERS.items()
    for part, others in _PARTS.items()
    for word in words
    for other in others
    for name in (word + other, other + word)
}
_COLUMNS = {"set": ("split", "subset", "part", "fold", "partition"), "y": (*_LETTERS["y"][1:], "class", "output")}


def read_bytes(path: Path, suffixes: tuple[str, ...] = (".npz", ".csv")) -> bytes:
    """Return the content of a file of numbers.

    Raises UsageError for another suffix, for what is no regular file and for one that is too large; none is read.
    """
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{path} ends in {path.suffix!r}; it must be {' or '.join(suffixes)}.")
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is no regular file; give a file that ends in {' or '.join(suffixes)}.")
        _refuse_large(path, path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror or error}.") from error


def _refuse_large(path: Path, size: int) -> None:
    if size > LARGEST:
        raise UsageError(
            f"{path} holds {size / 2**30:.3g} GiB; a task file may hold {LARGEST >> 30} GiB: keep the points that the "
            "networks are trained and tested on."
        )


def read_npz(
    path: Path, content: bytes, required: Sequence[str] = REQUIRED, optional: Sequence[str] = OPTIONAL
) -> Arrays:
    """The arrays of an NPZ file by name, each of a real number type and as float64.

    Raises UsageError for what is no such file, for an array that is missing, unknown or holds no real numbers.
    """
    names = (*required, *optional)
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as listed:  # sizes as declared: no more than that is unpacked
                _refuse_large(path, sum(member.file_size for member in listed.infolist()))
        archive = np.load(io.BytesIO(content), allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UsageError(f"{path} is a single array; expected an NPZ file with {', '.join(required)}.")
        with archive:
            _check_names(path, archive.files, required, names)
            arrays = {key: np.asarray(archive[key]) for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        hint = " (pickled objects are not read; save plain numbers)" if "pickle" in str(error) else ""
        raise UsageError(f"Cannot read {path}: {error}{hint}.") from error
    for name, array in arrays.items():
        if array.dtype == bool:
            to = f"2.0 * {name} - 1.0 for labels -1 and +1" if name.startswith("y") else f"{name}.astype(float)"
            raise UsageError(f"{path}: {name} has type bool; it must hold real numbers: save {to}.")
        if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
            raise UsageError(f"{path}: {name} has type {array.dtype}; it must hold real numbers.")
    return {name: array.astype(float) for name, array in arrays.items()}


def _check_names(path: Path, found: Sequence[str], required: Sequence[str], names: Sequence[str]) -> None:
    unknown = [key for key in found if key not in names]
    missing = [name for name in required if name not in found]
    if unknown:
        near = suggest(unknown[0], [name for name in names if name not in found])
        if "x_source" in names and (renamed := _renamed(unknown, [name for name in names if name not in found])):
            near = f": rename {', '.join(renamed)}; a file holds both tasks"
        raise UsageError(f"{path}: unknown array {unknown[0]!r}{near}; it must hold {', '.join(names)}.")
    if missing:
        raise UsageError(f"{path} lacks the array {missing[0]!r}; it must hold {', '.join(required)}.")


def _renamed(unknown: Sequence[str], free: Sequence[str]) -> list[str]:
    """Say what arrays are to be called whose names other programs use, of the names that are still free."""
    told = []
    for key in unknown:
        to = [name for name in _MEANT.get(re.sub("[^a-z0-9]", "", key.lower()), ()) if name in free]
        told += [f"{key} to {' or '.join(to)}"] if to else []
    return told


def read_csv(path: Path, content: bytes, drop: Sequence[str]) -> tuple[dict[str, Floats], list[str]]:
    """The arrays of a CSV file by the names of the NPZ format, and the names of its input columns.

    Input columns named in `drop` are left out. Raises UsageError; among others for a column that only counts the rows,
    unless `KEEP` is in `drop`.
    """
    try:
        rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        header = [name.strip() for name in next(rows, [])]
        header = [name or f"Unnamed: {i}" for i, name in enumerate(header)]  # as pandas calls them
        _check_header(path, header, drop)
        at_set, at_y = header.index("set"), header.index("y")
        at_other = header.index("y_source") if "y_source" in header else None
        kept = {"set", *LABELS, *drop}
        inputs = [i for i, name in enumerate(header) if name not in kept]
        order: list[tuple[str, int]] = []
        x: dict[str, list[list[float]]] = {name: [] for name in SETS}
        y: dict[str, list[float]] = {name: [] for name in SETS}
        other: list[float] = []
        for row in rows:
            if not row:
                continue
            place = f"{path}, line {rows.line_num}"
            if len(row) != len(header):
                raise UsageError(f"{place}: {len(row)} values, but the header names {len(header)} columns.")
            if (which := row[at_set].strip()) not in SETS:
                near = suggest(which, SETS)
                if which.lower() in _PARTS[""]:
                    near = " (write source for the points of the first task, target for those of the second)"
                raise UsageError(f"{place}: set is {which!r}{near}; it must be {', '.join(SETS)}.")
            order.append((which, len(x[which])))
            x[which].append([_number(row[i], header[i], place) for i in inputs])
            y[which].append(_number(row[at_y], "y", place, empty=which == "test"))
            if at_other is not None:
                value = _number(row[at_other], "y_source", place, empty=True)
                if which == "test":
                    other.append(value)
                elif row[at_other].strip():
                    raise UsageError(f"{place}: y_source is for test points; leave it empty in a {which} row.")
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"Cannot read {path}: {error}.") from error
    arrays: dict[str, Floats] = {}
    for name in SETS:
        arrays[f"x_{name}"] = np.array(x[name], dtype=float).reshape(len(x[name]), len(inputs))
        arrays[f"y_{name}"] = np.array(y[name], dtype=float)
    if at_other is not None:
        arrays["y_test_source"] = np.array(other, dtype=float)
    names = [header[i] for i in inputs]
    if KEEP not in drop:
        in_file = np.array([x[which][i] for which, i in order]).reshape(len(order), len(inputs))
        refuse_index(path, names, [in_file, *(arrays[f"x_{name}"] for name in SETS)], drop)
    return arrays, names


def refuse_index(path: Path, names: Sequence[str], tables: Sequence[Floats], drop: Sequence[str]) -> None:
    """Refuse an input column that counts rows; `drop` are those that are left out already.

    Of five points and more: one that counts from 0 or 1, in the whole file in any order, or in each set. Of whole
    numbers in ten points and more also one in other equal steps, in the file or a set of ten points and more in any
    order, or in every set row by row, and one that grows from row to row (the index of rows that were selected). In a
    file of any length distinct whole numbers that are called an index. `tables` are the whole file and its sets,
    (points, D) each; `names` (D,). Of fewer points a real input may look the same: they are too short to tell.
    """
    whole, *sets = tables
    if len(whole) < 2 or not np.isfinite(whole).all():  # which is refused as such
        return
    named = np.array([name.lower() in _INDEX for name in names], dtype=bool)
    odd = named & (np.diff(np.sort(whole, axis=0), axis=0) > 0).all(axis=0)
    found = np.zeros(len(names), dtype=bool)
    if len(whole) >= 5:
        found = _counts(np.sort(whole, axis=0)) | np.all([_counts(x) for x in sets], axis=0)
    if len(whole) >= 10:
        odd |= (np.diff(whole, axis=0) > 0).all(axis=0)
        for x in (whole, *(x for x in sets if len(x) >= 10)):
            odd |= _spaced(np.sort(x, axis=0)) != 0
        steps = [_spaced(x) for x in sets if len(x) > 1]
        odd |= np.all([(step != 0) & (step == steps[0]) for step in steps], axis=0) if len(steps) > 1 else False
    found |= odd & (whole == np.rint(whole)).all(axis=0)
    if found.any():
        name = names[int(np.flatnonzero(found)[0])]
        left = ",".join([*drop, name])
        kept = ",".join([*drop, KEEP])
        raise UsageError(
            f"{path}: the column {name!r} counts the rows and would be an input; leave it out with --drop-columns "
            f"{_quoted(left)}, or keep every {'other ' if drop else ''}column with --drop-columns {_quoted(kept)}."
        )


def _counts(x: Floats) -> Flags:
    """Which columns of x (n, D) go from 0 or 1 up by one from row to row."""
    first = x.min(axis=0, initial=np.inf)
    return np.asarray(((first == 0) | (first == 1)) & (np.diff(x, axis=0) == 1).all(axis=0))


def _spaced(x: Floats) -> Floats:
    """The step of every column of x (n, D) from row to row, 0 where it is not the same everywhere."""
    steps = np.diff(x, axis=0)
    return np.where((steps == steps[0]).all(axis=0), steps[0], 0.0)


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name


def _check_header(path: Path, header: list[str], drop: Sequence[str]) -> None:
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise UsageError(f"{path}: the column {twice[0]!r} stands twice in the header.")
    for name in ("set", "y"):
        if name not in header:
            others = [column for column in header if column not in ("set", *LABELS)]
            foreign = [column for column in others if column.lower() in _COLUMNS[name]]
            near = f" (rename {foreign[0]!r} to {name!r})" if foreign else suggest(name, others)
            raise UsageError(
                f"{path} lacks the column {name!r}{near}; its header must be set, y and the inputs, with commas."
            )
    for name in drop:
        if name != KEEP and (name not in header or name in ("set", *LABELS)):
            inputs = [column for column in header if column not in ("set", *LABELS)]
            raise UsageError(
                f"drop_columns: {path} has no input column {name!r}{suggest(name, inputs)}; its inputs are "
                f"{', '.join(inputs[:6])}{', ...' if len(inputs) > 6 else ''}."
            )
    unnamed = [name for name in header if name.startswith("Unnamed: ") and name not in drop]
    if unnamed and KEEP not in drop:
        left, kept = (_quoted(",".join([*drop, name])) for name in (unnamed[0], KEEP))
        raise UsageError(
            f"{path}: the column {unnamed[0]!r} has no name (an index?) and would be an input; leave it out with "
            f"--drop-columns {left}, or keep every {'other ' if drop else ''}column with --drop-columns {kept}."
        )
    if set(header) <= {"set", *LABELS, *drop}:
        raise UsageError(f"{path} has no input column beside {', '.join(header)}.")


def _number(text: str, column: str, place: str, *, empty: bool = False) -> float:
    """A cell as a number; NaN for an empty one where that is allowed."""
    if empty and not text.strip():
        return np.nan
    try:
        if not text.isascii() or "_" in text:  # which float() would read as digits
            raise ValueError(text)
        number = float(text)
        if math.isinf(number) and "inf" not in text.lower():
            raise UsageError(f"{place}: {column} is {text.strip()}, beyond the largest number, about 1.8e308.")
        return number
    except ValueError:
        shown = repr(text.strip()) if text.strip() else "empty"
        raise UsageError(f"{place}: {column} is {shown}; it must be a number.") from None
