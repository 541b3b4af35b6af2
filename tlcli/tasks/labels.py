"""What the labels of a file are: numbers, vectors of outputs, or classes.

One-hot rows and a few whole numbers are classes unless the user says otherwise; two classes become +1 and -1.
"""

from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Floats
from tlcli.errors import UsageError

MOST = 100  # classes
FEW = 20  # whole numbers with at most so many different values are classes


@dataclass(frozen=True, eq=False)
class Labels:
    """Training labels and test labels of one task: `classes` None for numbers (n,) or outputs (n, C).

    `names` are what the classes are called in the file; `note` is what has been made of them, empty where nothing is.
    """

    train: Floats
    test: Floats
    classes: int | None = None
    names: tuple[str, ...] = ()
    note: str = ""


def read_labels(train: Floats, test: Floats, meaning: str | None, where: str) -> Labels:
    """Return the labels of one task in a file; `meaning` None leaves numbers as they are and reads one-hot rows.

    `where` names the file and the task in messages.

    Raises:
        UsageError: labels that are no classes where classes are asked for, a single class, or too many.
    """
    vectors = train.ndim == 2
    if meaning == "regression":
        return Labels(train, test)
    if not vectors and meaning is None:
        return Labels(train, test, note=_taken_as_numbers(train, where))
    if vectors:
        if not _one_hot(train) or not _one_hot(test[np.isfinite(test).all(axis=1)]):
            if meaning == "classes":
                raise UsageError(f"{where}: rows of the labels are not one-hot; --classes needs a single 1 in each.")
            return Labels(train, test)
        names = tuple(str(c) for c in range(train.shape[1]))
        numbers = [
            np.where(np.isfinite(y).all(axis=1), np.argmax(np.nan_to_num(y), axis=1), np.nan) for y in (train, test)
        ]
        return _coded(numbers[0], numbers[1], names, f"{where}: one-hot labels of {len(names)} classes", len(train))
    known = np.concatenate([train, test[np.isfinite(test)]])
    values = np.unique(known)
    whole = bool(np.all(values == np.rint(values)))
    if meaning == "classes" and not whole:
        bad = values[values != np.rint(values)][0]
        raise UsageError(f"{where}: the label {bad:g} is no whole number; --classes needs the number of a class.")
    if not whole or (meaning == "auto" and len(values) > FEW):
        return Labels(train, test)
    names = tuple(f"{v:g}" for v in values)
    if len(values) == 2:  # the larger one is +1, so that 0 and 1 become -1 and +1
        values, names = values[::-1], names[::-1]
    numbers = [np.where(np.isfinite(y), np.argmax(y[:, None] == values, axis=1), np.nan) for y in (train, test)]
    if len(values) == 2 and set(values) == {-1.0, 1.0}:
        return Labels(train, test, 2, names)
    return _coded(
        numbers[0],
        numbers[1],
        names,
        f"{where}: labels {', '.join(f'{v:g}' for v in np.sort(values))} are classes",
        len(train),
    )


def _taken_as_numbers(y: Floats, where: str) -> str:
    """Return a note on numbers that look like those of classes; +1 and -1 are fitted alike either way."""
    values = np.unique(y)
    if not 2 <= len(values) <= FEW or np.any(values != np.rint(values)) or values.min() < 0 or len(values) == len(y):
        return ""
    return f"{where}: labels {', '.join(f'{v:g}' for v in values)} are taken as numbers; --classes makes them classes."


def _one_hot(y: Floats) -> bool:
    return bool(np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all())


def _coded(train: Floats, test: Floats, names: tuple[str, ...], note: str, points: int) -> Labels:
    """Return class numbers as labels: +1 and -1 of two classes."""
    count = len(names)
    if count < 2:
        raise UsageError(f"{note}: a single class; give labels of two classes at least, or --regression.")
    if count > MOST or count > points:
        raise UsageError(
            f"{note}: {count} classes of {points} training points; there must be at most {min(MOST, points)}; use "
            "--regression for labels that are numbers."
        )
    if count == 2:
        train, test = (np.where(np.isfinite(y), 1.0 - 2.0 * y, np.nan) for y in (train, test))
        note += f", {names[0]} as +1 and {names[1]} as -1"
    return Labels(train, test, count, names, note + ".")
