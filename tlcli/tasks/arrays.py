"""Tasks from the user's own file: `file:data.npz` or `file:data.csv`, named for both source and target.

NPZ: arrays x_source (P1, D), y_source (P1,), x_target (P2, D), y_target (P2,), x_test (n, D) and, where known,
y_test (n,) (labels of the target task) and y_test_source (n,) (labels of the source task); NaN marks a test
point without label. Labels of several outputs, or one-hot ones, are (points, C). CSV: a header, then one row per
point with the column `set` (source, target or test), `y` (its label; may be empty for test points), optionally
`y_source` (the test points' labels of the source task), and every other column is an input.

Inputs are centred by the mean of all training points of both stages in the file, however many of them are
used, and each is scaled to |x|^2 / D = 1; raw inputs are left as they are. P1 and P2 smaller than the file take
random rows, other ones in each draw, of every class as many as its share (labels that are a few whole numbers are
classes); without them every draw has the same data. Fewer test points than the file has are random ones, the same in
every draw.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tlcli.arrays import Flags, Floats
from tlcli.errors import UsageError
from tlcli.paths import expanded
from tlcli.tasks.data import Purpose, TransferData, single_class, stream, unit_inputs
from tlcli.tasks.files import KEEP, SETS, read_bytes, read_csv, read_npz, refuse_index
from tlcli.tasks.labels import Labels, read_labels

PREFIX = "file:"
EXAMPLE = "file:data.npz"
LARGEST_LABELS = 1e6
LARGEST_VALUE = 1e100  # of an input, whose squares are added up
LARGEST_INPUTS = 1e3  # of |x|^2/D on average
_ALONE = 0.99  # share of |x|^2 of one column, from which the others do not count
ROWS = "random, stratified"  # how rows are chosen: part of what a stored point is of
CLASSES = 20  # labels with at most so many different values, whole numbers all, are classes


@dataclass(frozen=True, eq=False)
class FileTask:
    """The arrays of a file as they stand in it (labels of test points NaN where absent) and its SHA-256.

    `columns` are what the inputs are called: quoted names of the header, or numbers in an NPZ file, where none is left
    out.
    """

    name: str
    x_source: Floats
    y_source: Floats
    x_target: Floats
    y_target: Floats
    x_test: Floats
    y_test: Floats
    y_test_source: Floats
    sha256: str
    columns: tuple[str, ...]

    @property
    def dim(self) -> int:
        """Number of input columns D."""
        return self.x_source.shape[1]


def load_file(text: str, drop_columns: str | None = None) -> FileTask:
    """Read `file:PATH`, an NPZ or CSV file as described at the top of this module.

    `drop_columns` names input columns that are left out, with commas: those of the header of a CSV file, numbers from 0
    in an NPZ file; "none" keeps those of the others that look like an index.

    Raises UsageError, one sentence with the name, the value and its place, for a file that cannot be used.
    """
    path = expanded(text.strip().removeprefix(PREFIX))
    return _parse(path, read_bytes(path), drop_columns)


@lru_cache(maxsize=2)
def _parse(path: Path, content: bytes, drop_columns: str | None) -> FileTask:
    drop = [] if drop_columns is None else [name.strip() for name in drop_columns.split(",")]
    if path.suffix.lower() == ".csv":
        found, names = read_csv(path, content, drop)
        arrays, columns = _checked(path, found), tuple(repr(name) for name in names)
    else:
        arrays, columns = _without(path, _checked(path, read_npz(path, content)), drop)
    return FileTask(path.name, **arrays, sha256=hashlib.sha256(content).hexdigest(), columns=columns)


def _without(path: Path, arrays: dict[str, Floats], drop: list[str]) -> tuple[dict[str, Floats], tuple[str, ...]]:
    """Leave out columns of the inputs by number, and return the numbers of the others; refuse one that counts rows."""
    sets = [f"x_{name}" for name in SETS]
    dim = arrays["x_source"].shape[1]
    for text in drop:
        if text != KEEP and not (text.isascii() and text.isdigit() and int(text) < dim):
            raise UsageError(f"drop_columns: {text!r} is no column of {path}; give numbers from 0 to {dim - 1}.")
    left = [int(text) for text in drop if text != KEEP]
    if len(set(left)) == dim:
        raise UsageError(f"drop_columns: {','.join(drop)} leaves no input column of {path}.")
    if drop:  # else as they are, to the order in memory, which sums see
        arrays = arrays | {name: np.delete(arrays[name], left, axis=1) for name in sets}
    columns = tuple(str(i) for i in range(dim) if i not in left)
    if KEEP not in drop:
        tables = [arrays[name] for name in sets]
        refuse_index(path, columns, [np.concatenate(tables), *tables], drop)
    return arrays, columns


def _checked(path: Path, arrays: Mapping[str, Floats]) -> dict[str, Floats]:
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
        if (largest := float(np.abs(x).max())) > LARGEST_VALUE:
            raise UsageError(
                f"{path}: x_{name} holds a value of {largest:.3g}, whose square is near the end of numbers; divide the "
                f"inputs by it, at most {LARGEST_VALUE:g} is allowed."
            )
        for label in (f"y_{name}", *(["y_test_source"] if name == "test" else [])):
            task = "y_source" if label in ("y_source", "y_test_source") else "y_target"
            outputs = checked[task].shape[1:] if task in checked else ()
            y = checked.setdefault(label, np.full((len(x), *outputs), np.nan))
            if y.ndim not in (1, 2) or len(y) != len(x) or y.shape[1:] == (1,):
                raise UsageError(f"{path}: {label} has shape {y.shape}; x_{name} needs ({len(x)},){_remedy(label, y)}.")
            if y.shape[1:] != checked[task].shape[1:]:
                raise UsageError(
                    f"{path}: {label} has shape {y.shape} and {task} {checked[task].shape}; a task has one number of "
                    "outputs."
                )
            _check_finite(path, label, y, nan_allowed=name == "test")
            _check_size(path, label, y)
    return checked


def _remedy(name: str, y: Floats) -> str:
    """How labels of another shape become a number, or several outputs, per point."""
    if y.ndim == 2 and y.shape[1] == 1:
        return f": save {name}.ravel()"
    return " or, of several outputs, as many rows"


def _check_size(path: Path, name: str, y: Floats) -> None:
    """Refuse labels so large that no training time would be left after the first step."""
    largest = float(np.nanmax(np.abs(y))) if np.isfinite(y).any() else 0.0
    size = largest * float(np.sqrt(np.nanmean((y / largest) ** 2))) if largest > LARGEST_LABELS else 0.0
    if size > LARGEST_LABELS:
        raise UsageError(
            f"{path}: {name} has an rms of {size:.3g}; divide all labels by it (labels c y at gamma are labels y at "
            f"c gamma), at most {LARGEST_LABELS:g} is allowed."
        )


def _check_finite(path: Path, name: str, array: Floats, *, nan_allowed: bool = False) -> None:
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
    scaled: dict[str, Floats] = {}
    for name in ("x_source", "x_target", "x_test"):
        scaled[name], lost = unit_inputs(getattr(task, name), mean)
        if lost.size:
            raise UsageError(
                f"{task.name}: {name}[{lost[0]}] equals the mean of the training points and cannot be scaled to "
                "|x|^2/D = 1; remove it or use --raw-inputs."
            )
    return replace(task, **scaled)


def check_raw_inputs(task: FileTask) -> None:
    """Refuse raw inputs so large that no integrator could follow the network, naming the column that makes them so."""
    square = np.mean(np.concatenate([task.x_source, task.x_target]) ** 2, axis=0)
    if square.mean() <= LARGEST_INPUTS:
        return
    worst, others = int(np.argmax(square)), float(np.sqrt(np.median(square)))
    rms = float(np.sqrt(square[worst]))
    cause = f"input column {task.columns[worst]} has an rms of {rms:.3g}, half of all columns at most {others:.3g}"
    remedy = "divide that column by its rms" if rms > 10 * others else f"divide the inputs by {rms:.3g}"
    raise UsageError(
        f"{task.name}: raw inputs have |x|^2/D = {square.mean():.3g} on average, above {LARGEST_INPUTS:g} ({cause}); "
        f"{remedy}, or leave out --raw-inputs."
    )


def _chosen(points: int | None, labels: Floats, rng: np.random.Generator) -> Any:
    """Return the indices of `points` rows (None: all, in the order of the file), nested in their number.

    Where labels are classes, every prefix of the order holds of each class its share, to one point.
    """
    n = len(labels)
    if points is None:
        return np.arange(n)
    order = rng.permutation(n)
    if labels.ndim == 2:
        return order[:points]
    values, at, counts = np.unique(labels, return_inverse=True, return_counts=True, equal_nan=True)
    if not 1 < len(values) <= min(CLASSES, n // 2) or not (np.isnan(values) | (values == np.rint(values))).all():
        return order[:points]
    place = np.empty(n)
    for which, (count, start) in enumerate(zip(counts, rng.random(len(values)), strict=True)):
        place[order[at[order] == which]] = (np.arange(count) + start) / count
    return np.argsort(place, kind="stable")[:points]


def check_labels(task: FileTask, meaning: str | None) -> tuple[Labels, Labels]:
    """Return the labels of source and target as `meaning` (`tlcli.tasks.labels`) reads them. Raises UsageError."""
    return (
        read_labels(task.y_source, task.y_test_source, meaning, f"{task.name}, source"),
        read_labels(task.y_target, task.y_test, meaning, f"{task.name}, target"),
    )


def file_data(
    task: FileTask,
    *,
    p1: int | None,
    p2: int | None,
    ptest: int | None,
    seed: int,
    draw: int,
    raw_inputs: bool,
    meaning: str | None = None,
) -> TransferData:
    """Take p1, p2 training points and ptest test points (None: all) of a file.

    Labels are those of the file, as `meaning` reads them. Raises UsageError for sizes beyond the file and inputs that
    cannot be scaled, and as `tlcli.tasks.labels.read_labels`.
    """
    check_file_sizes(task, p1, p2, ptest)
    source, target = check_labels(task, meaning)
    task = task if raw_inputs else normalised(task)
    changes = {"y_source": source.train, "y_test_source": source.test, "y_target": target.train, "y_test": target.test}
    task = replace(task, **changes)

    first = _chosen(p1, task.y_source, stream(seed, draw, Purpose.SOURCE_INPUTS))
    second = _chosen(p2, task.y_target, stream(seed, draw, Purpose.TARGET_INPUTS))
    # The same in all draws, whose losses are averaged.
    test = np.sort(_chosen(ptest, task.y_test, stream(seed, 0, Purpose.TEST_INPUTS)))
    description: dict[str, Any] = {
        "file": task.name,
        "sha256": task.sha256,
        "inputs": "as in the file"
        if raw_inputs
        else "centred by the mean of all training points in the file, then each scaled to |x|^2/D = 1",
        "labels": "as in the file",
        "draw_of_points": "p1, p2 and ptest take random rows, of every class its share; without them all rows",
        "test_labels_source": int(_known(task.y_test_source[test]).sum()),
        "test_labels_target": int(_known(task.y_test[test]).sum()),
    }
    for word, labels in (("source", source), ("target", target)):
        if labels.classes is not None:
            description[f"{word}_classes"] = list(labels.names)
    alike = single_class((task.y_source[first], task.y_source), (task.y_target[second], task.y_target))
    description["file_notes"] = [
        *alike,
        *_one_column(task),
        *(labels.note for labels in (source, target) if labels.note),
    ]
    return TransferData(
        task.x_source[first],
        task.y_source[first],
        task.x_target[second],
        task.y_target[second],
        task.x_test[test],
        task.y_test_source[test],
        task.y_test[test],
        description,
        source.classes,
        target.classes,
    )


def _one_column(task: FileTask) -> list[str]:
    """Tell the input column beside which the others are nothing, as one of another unit is."""
    square = np.mean(np.concatenate([task.x_source, task.x_target]) ** 2, axis=0)
    worst, share = int(np.argmax(square)), float(np.max(square) / max(square.sum(), np.finfo(float).tiny))
    if task.dim == 1 or share < _ALONE:
        return []
    return [
        f"{task.name}: input column {task.columns[worst]} makes up {100 * share:.4g} % of |x|^2, so that networks "
        "hardly see the others; divide every column by its rms if they matter."
    ]


def _known(y: Floats) -> Flags:
    return np.asarray(np.isfinite(y) if y.ndim == 1 else np.isfinite(y).all(axis=1))
