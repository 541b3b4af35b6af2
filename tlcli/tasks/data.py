"""What every transfer task shares: the arrays handed to the solvers, random streams, sizes and checksums."""

import hashlib
import math
import sys
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from tlcli.arrays import Floats, Indices
from tlcli.errors import UsageError, digits

MOST = 10**12  # points or dimensions: no memory holds more
DEFAULT_DIM, DEFAULT_P1, DEFAULT_P2, DEFAULT_PTEST = 20, 100, 50, 1000

# First entry of every spawn key: keeps the data's streams apart from those of networks under the same seed.
_FAMILY = 0x7A5C


class Purpose(IntEnum):
    """What a random stream is for; the numbers are part of the seeding and must not change."""

    DIRECTIONS = 0
    SOURCE_INPUTS = 1
    TARGET_INPUTS = 2
    TEST_INPUTS = 3
    SOURCE_NOISE = 4
    TARGET_NOISE = 5


@dataclass(frozen=True, eq=False)
class TransferData:
    """One draw of a source and a target task over the same D inputs.

    `classes_source` and `classes_target` are the numbers of classes of the labels, None where labels are numbers: two
    classes are labelled +1 and -1, more of them 0 .. C - 1. Labels of several outputs are (P, C) instead of (P,).

    `x_source` (P1, D), `y_source` (P1,), `x_target` (P2, D), `y_target` (P2,): training points, label noise
    included. `x_test` (n, D) with noiseless labels `y_test_source`, `y_test_target` (n,), NaN where a test
    point has no label of that task. Inputs have |x|^2 / D = 1 (on average for Gaussian inputs), so that
    h = w.x / sqrt(D) is of order one. `description` is JSON-plain: every choice, sizes and checksums.
    """

    x_source: Floats
    y_source: Floats
    x_target: Floats
    y_target: Floats
    x_test: Floats
    y_test_source: Floats
    y_test_target: Floats
    description: dict[str, Any]
    classes_source: int | None = None
    classes_target: int | None = None


def stream(seed: int, draw: int, purpose: Purpose) -> np.random.Generator:
    """Return the random stream of one purpose in one draw of the data.

    It depends on (seed, draw, purpose) alone, so that no array changes with the size of another and smaller
    training sets are the first rows of larger ones. Raises UsageError for a negative seed or draw.
    """
    for name, value in (("seed", seed), ("draw", draw)):
        if value < 0:
            raise UsageError(f"{name} = {value}: it must be an integer >= 0.")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_FAMILY, draw, int(purpose))))


def size(name: str, value: int | None, default: int) -> int:
    """Return a number of points or dimensions, `default` for None; raises UsageError unless an integer >= 1."""
    if value is None:
        return default
    if isinstance(value, int) and abs(value) > sys.float_info.max:  # NumPy and formats have no such number
        raise UsageError(f"{name} is a whole number beyond 1e308: it must be an integer from 1 to {MOST:g}.")
    if not math.isfinite(value) or value != int(value) or not 1 <= value <= MOST:
        raise UsageError(f"{name} = {digits(value)}: it must be an integer from 1 to {MOST:g}.")
    return int(value)


def unit_inputs(x: Floats, mean: Floats) -> tuple[Floats, Indices]:
    """Subtract `mean` (D,) from x (n, D) and scale every row to |x|^2 / D = 1.

    Returns the inputs and the indices of rows that equal the mean and have no direction (left at zero).
    """
    centred = x - mean
    norm = np.sqrt(np.mean(centred**2, axis=1))
    # Rounding of the subtraction leaves about eps * |x|: anything below is zero, not a direction.
    lost = norm <= 8 * np.finfo(float).eps * np.maximum(np.abs(x).max(axis=1), np.abs(mean).max())
    centred /= np.where(lost, 1.0, norm)[:, None]
    centred[lost] = 0.0
    return centred, np.flatnonzero(lost)


def single_class(source: tuple[Floats, Floats], target: tuple[Floats, Floats]) -> list[str]:
    """Return what to tell of training labels that are all the same, though others of the task are not.

    `source` and `target` are those labels and the others, NaN where unknown.
    """
    told = []
    for word, (train, others) in (("source", source), ("target", target)):
        if train.ndim > 1 or len(train) < 2 or np.any(train != train[0]):
            continue
        if np.any(others[np.isfinite(others)] != train[0]):
            told.append(f"all {len(train)} {word} points have the label {train[0]:g}: the network sees a single class.")
    return told


def checksum(array: Floats) -> str:
    """SHA-256 of an array's little-endian float64 values in row-major order."""
    return hashlib.sha256(np.ascontiguousarray(array, dtype="<f8").tobytes()).hexdigest()
