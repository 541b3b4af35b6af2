"""Tasks from the user's own file: `file:data.npz` or `file:data.csv`, named for both source and target.

NPZ: arrays x_source (P1, D), y_source (P1,), x_target (P2, D), y_target (P2,), x_test (n, D) and, where known,
y_test (n,) (labels of the target task) and y_test_source (n,) (labels of the source task); NaN marks a test
point without label. CSV: a header, then one row per point with the column `set` (source, target or test), `y`
(its label; may be empty for test points), optionally `y_source` (the test points' labels of the source task),
and every other column is an input.

Inputs are centred by the mean of all training points of both stages in the file, however many of them are
used, and each is scaled to |x|^2 / D = 1; raw inputs are left as they are. P1 and P2 smaller than the file take
the first rows in draw 0 and random rows in the draws after it; without them every draw has the same data.
"""

import csv
import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tlcli.errors import UsageError, suggest
from tlcli.tasks.data import Array, Purpose, TransferData, stream, unit_inputs

PREFIX = "file:"
EXAMPLE = "file:data.npz"
REQUIRED = ("x_source", "y_source", "x_target", "y_target", "x_test")
OPTIONAL = ("y_test", "y_test_source")
SETS = ("source", "target", "test")
LABELS = ("y", "y_source")


@dataclass(frozen=True, eq=False)
class FileTask:
    """The arrays of a file as they stand in it (labels of test points NaN where absent) and its SHA-256."""

    name: str
    x_source: Array
    y_source: Array
    x_target: Array
    y_target: Array
    x_test: Array
    y_test: Array
    y_test_source: Array
    sha256: str

    @property
    def dim(self) -> int:
        """Number of input columns D."""
        return self.x_source.shape[1]


def load_file(text: str) -> FileTask:
    """Read `file:PATH`, an NPZ or CSV file as described at the top of this module.

    Raises UsageError, one sentence with the name, the value and its place, for a file that cannot be used.
    """
    path = Path(text.strip().removeprefix(PREFIX)).expanduser()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror or error}.") from error
    return _parse(path, content)


@lru_cache(maxsize=2)
def _parse(path: Path, content: bytes) -> FileTask:
    suffix = path.suffix.lower()
    if suffix not in (".npz", ".csv"):
        raise UsageError(f"{path} ends in {suffix!r}; a task file is .npz or .csv.")
    arrays = _read_npz(path, content) if suffix == ".npz" else _read_csv(path, content)
    return FileTask(path.name, **_checked(path, arrays), sha256=hashlib.sha256(content).hexdigest())


def _read_npz(path: Path, content: bytes) -> dict[str, Array]:
    """The arrays of an NPZ file by name, each of a real number type."""
    names = (*REQUIRED, *OPTIONAL)
    try:
        archive = np.load(io.BytesIO(content), allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UsageError(f"{path} is a single array; expected an NPZ file with {', '.join(REQUIRED)}.")
        with archive:
            unknown = [key for key in archive.files if key not in names]
            missing = [name for name in REQUIRED if name not in archive.files]
            if unknown:
                near = suggest(unknown[0], [name for name in names if name not in archive.files])
                raise UsageError(f"{path}: unknown array {unknown[0]!r}{near}; a task file holds {', '.join(names)}.")
            if missing:
                raise UsageError(f"{path} lacks the array {missing[0]!r}; it must hold {', '.join(REQUIRED)}.")
            arrays = {key: np.asarray(archive[key]) for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        hint = " (pickled objects are not read; save plain numbers)" if "pickle" in str(error) else ""
        raise UsageError(f"Cannot read {path}: {error}{hint}.") from error
    for name, array in arrays.items():
        if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
            raise UsageError(f"{path}: {name} has type {array.dtype}; it must hold real numbers.")
    return {name: array.astype(float) for name, array in arrays.items()}


def _read_csv(path: Path, content: bytes) -> dict[str, Array]:
    """The arrays of a CSV file by the names of the NPZ format."""
    try:
        rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        header = [name.strip() for name in next(rows, [])]
        _check_header(path, header)
        at_set, at_y = header.index("set"), header.index("y")
        at_other = header.index("y_source") if "y_source" in header else None
        inputs = [i for i, name in enumerate(header) if name != "set" and name not in LABELS]
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
                raise UsageError(f"{place}: set is {which!r}{suggest(which, SETS)}; it must be {', '.join(SETS)}.")
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
    arrays: dict[str, Array] = {}
    for name in SETS:
        arrays[f"x_{name}"] = np.array(x[name], dtype=float).reshape(len(x[name]), len(inputs))
        arrays[f"y_{name}"] = np.array(y[name], dtype=float)
    if at_other is not None:
        arrays["y_test_source"] = np.array(other, dtype=float)
    return arrays


def _check_header(path: Path, header: list[str]) -> None:
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise UsageError(f"{path}: the column {twice[0]!r} stands twice in the header.")
    for name in ("set", "y"):
        if name not in header:
            near = suggest(name, [column for column in header if column not in ("set", *LABELS)])
            raise UsageError(
                f"{path} lacks the column {name!r}{near}; its header must be set, y and the inputs, with commas."
            )
    if set(header) <= {"set", *LABELS}:
        raise UsageError(f"{path} has no input column beside {', '.join(header)}.")


def _number(text: str, column: str, place: str, *, empty: bool = False) -> float:
    """A cell as a number; NaN for an empty one where that is allowed."""
    if empty and not text.strip():
        return np.nan
    try:
        return float(text)
    except ValueError:
        shown = repr(text.strip()) if text.strip() else "empty"
        raise UsageError(f"{place}: {column} is {shown}; it must be a number.") from None


def _checked(path: Path, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Check shapes and values; absent labels of test points become NaN."""
    checked = dict(arrays)
    for name in SETS:
        x = arrays[f"x_{name}"]
        if x.ndim != 2:
            raise UsageError(f"{path}: x_{name} has shape {x.shape}; it must be (points, D).")
        if x.size == 0:
            raise UsageError(f"{path}: there is no {name} point; every set needs at least one.")
        if x.shape[1] != arrays["x_source"].shape[1]:
            raise UsageError(
                f"{path}: x_{name} has {x.shape[1]} columns and x_source {arrays['x_source'].shape[1]}; "
                "all inputs must have the same dimension D."
            )
        _check_finite(path, f"x_{name}", x)
        for label in (f"y_{name}", *(["y_test_source"] if name == "test" else [])):
            y = checked.setdefault(label, np.full(len(x), np.nan))
            if y.shape != (len(x),):
                raise UsageError(f"{path}: {label} has shape {y.shape}; x_{name} needs ({len(x)},).")
            _check_finite(path, label, y, nan_allowed=name == "test")
    return checked


def _check_finite(path: Path, name: str, array: Array, *, nan_allowed: bool = False) -> None:
    bad = np.isinf(array) if nan_allowed else ~np.isfinite(array)
    if bad.any():
        where = ", ".join(str(i) for i in np.argwhere(bad)[0])
        kind = ("infinite" if nan_allowed else "NaN or infinite") + (" value" if bad.sum() == 1 else " values")
        raise UsageError(
            f"{path}: {name} holds {int(bad.sum())} {kind}, the first at "
            f"{name}[{where}]; remove or replace such points."
        )


def check_file_sizes(task: FileTask, p1: int | None, p2: int | None, ptest: int | None) -> None:
    """Check that the file has as many points as asked for; raises UsageError naming how many there are."""
    for name, points, x, kind in (
        ("p1", p1, task.x_source, "source"),
        ("p2", p2, task.x_target, "target"),
        ("ptest", ptest, task.x_test, "test"),
    ):
        if points is not None and points > len(x):
            raise UsageError(f"{name} = {points}: {task.name} has {len(x)} {kind} points; use at most {len(x)}.")


def normalised(task: FileTask) -> FileTask:
    """Centre the inputs by the mean of all training points and scale each to |x|^2 / D = 1.

    Raises UsageError for a point that equals the mean, and for D = 1, where only the sign would be left.
    """
    if task.dim == 1:
        raise UsageError(
            f"{task.name} has a single input column: scaling each input to |x|^2/D = 1 would leave only its sign; "
            "use --raw-inputs."
        )
    mean = np.concatenate([task.x_source, task.x_target]).mean(axis=0)
    scaled: dict[str, Array] = {}
    for name in ("x_source", "x_target", "x_test"):
        scaled[name], lost = unit_inputs(getattr(task, name), mean)
        if lost.size:
            raise UsageError(
                f"{task.name}: {name}[{lost[0]}] equals the mean of the training points and cannot be scaled to "
                "|x|^2/D = 1; remove it or use --raw-inputs."
            )
    return FileTask(
        task.name,
        scaled["x_source"],
        task.y_source,
        scaled["x_target"],
        task.y_target,
        scaled["x_test"],
        task.y_test,
        task.y_test_source,
        task.sha256,
    )


def file_data(
    task: FileTask, *, p1: int | None, p2: int | None, ptest: int | None, seed: int, draw: int, raw_inputs: bool
) -> TransferData:
    """Take p1, p2 training points and the first ptest test points (None: all) of a file.

    Labels are those of the file. Raises UsageError for sizes beyond the file and inputs that cannot be scaled.
    """
    check_file_sizes(task, p1, p2, ptest)
    task = task if raw_inputs else normalised(task)

    def chosen(points: int | None, available: int, purpose: Purpose) -> Any:
        if points is None:
            return np.arange(available)
        # Draw 0 is the file's own order, so that a single run uses the rows one expects.
        order = stream(seed, draw, purpose).permutation(available) if draw > 0 else np.arange(available)
        return order[:points]

    first = chosen(p1, len(task.x_source), Purpose.SOURCE_INPUTS)
    second = chosen(p2, len(task.x_target), Purpose.TARGET_INPUTS)
    test = np.arange(len(task.x_test))[:ptest]
    description: dict[str, Any] = {
        "file": task.name,
        "sha256": task.sha256,
        "inputs": "as in the file"
        if raw_inputs
        else "centred by the mean of all training points in the file, then each scaled to |x|^2/D = 1",
        "labels": "as in the file",
        "draw_of_points": "p1 and p2 take the first rows in draw 0, random rows in later draws; without them all rows",
        "test_labels_source": int(np.isfinite(task.y_test_source[test]).sum()),
        "test_labels_target": int(np.isfinite(task.y_test[test]).sum()),
    }
    return TransferData(
        task.x_source[first],
        task.y_source[first],
        task.x_target[second],
        task.y_target[second],
        task.x_test[test],
        task.y_test_source[test],
        task.y_test[test],
        description,
    )
