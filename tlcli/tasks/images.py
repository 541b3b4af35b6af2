"""Transfer tasks on labelled images: two groups of classes, labels +1 and -1, or more of them, labels 0, 1, 2 ...

The bundled digits live here, CIFAR-10 in `tlcli.tasks.cifar`. Images of both tasks are centred by their common
mean image and each is scaled to |x|^2 / D = 1. Training images are drawn at random without replacement; a test
image is in neither training set.
"""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcli.arrays import Array, Flags, Floats, Indices
from tlcli.errors import UsageError
from tlcli.tasks.data import Purpose, TransferData, stream, unit_inputs
from tlcli.tasks.digits import DIM, PREFIX, parse_digits_task

# Images of each digit in scikit-learn's bundled scans, so that sizes are checked without importing scikit-learn.
DIGIT_COUNTS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)
MIN_TEST = 20  # test images left of each task where training and test share one pool


@dataclass(frozen=True)
class ImageTask:
    """Groups of classes, each a class of the task; `text` is how the user wrote it, `names` what the groups are called.

    Two groups are labelled +1 (the first) and -1, more of them 0, 1, 2, ...
    """

    text: str
    groups: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]

    @property
    def classes(self) -> tuple[int, ...]:
        """All classes of the data that the task has, sorted."""
        return tuple(sorted(itertools.chain(*self.groups)))

    def labels(self, classes: NDArray[np.int64]) -> Floats:
        """The labels, or NaN (a class of no group), for class numbers of any shape."""
        values = (1.0, -1.0) if len(self.groups) == 2 else tuple(map(float, range(len(self.groups))))
        out = np.full(np.shape(classes), np.nan)
        for value, group in zip(values, self.groups, strict=True):
            out = np.where(np.isin(classes, group), value, out)
        return out


def _identity(pixels: Floats) -> Floats:
    return pixels


@dataclass(frozen=True, eq=False)
class ImagePool:
    """Labelled images.

    `pixels` (n, K) as stored, `classes` (n,), `held_out` (n,) true for images that may only be test images
    (all false: any image may be either). `inputs` maps pixels (m, K) linearly to inputs (m, dim).
    """

    pixels: Array
    classes: NDArray[np.int64]
    held_out: Flags
    dim: int
    inputs: Callable[[Floats], Floats] = _identity
    description: dict[str, Any] = field(default_factory=dict)


def digits_task(text: str) -> ImageTask:
    """Read `digits:3v8`, or a class for every digit, `digits:0-4` or `digits:1,4,7`.

    Raises UsageError, one sentence with the bad value, for anything else.
    """
    body = text.strip().removeprefix(PREFIX)
    if text.strip().startswith(PREFIX) and re.search("[-,]", body) and "v" not in body:
        found = _each_digit(text, body)
        return ImageTask(text, tuple((digit,) for digit in found), tuple(map(str, found)))
    task = parse_digits_task(text)
    names = ("".join(map(str, side)) for side in (task.left, task.right))
    return ImageTask(text, (task.left, task.right), tuple(names))


def _each_digit(text: str, body: str) -> list[int]:
    """Return the digits of `0-4` or `1,4,7`."""
    found: list[int] = []
    for part in body.split(","):
        match = re.fullmatch(r"\s*([0-9])(?:-([0-9]))?\s*", part)
        if match is None:
            raise UsageError(f"{text!r}: {part.strip()!r} is no digit and no range of digits; write e.g. digits:0-4.")
        low, high = int(match[1]), int(match[2] or match[1])
        if low > high:
            raise UsageError(f"{text!r}: the range {part.strip()} is empty; write {high}-{low}.")
        found += range(low, high + 1)
    for digit in found:
        if found.count(digit) > 1:
            raise UsageError(f"{text!r}: digit {digit} is written twice; write it once.")
    if len(found) < 2:
        raise UsageError(f"{text!r} has a single class; a task needs two at least, e.g. digits:0-4.")
    return sorted(found)


@lru_cache(maxsize=1)
def digits_pool() -> ImagePool:
    """Return scikit-learn's 1797 bundled scans of 8 x 8 pixels with values 0 .. 16."""
    from sklearn.datasets import load_digits  # lazy: importing scikit-learn takes longer than most commands

    data, labels = load_digits(return_X_y=True)
    classes = np.asarray(labels, dtype=np.int64)
    description = {"data": "scikit-learn load_digits, 8 x 8 pixels"}
    return ImagePool(np.asarray(data, dtype=float), classes, np.zeros(len(classes), bool), DIM, description=description)


def check_image_sizes(
    source: ImageTask,
    target: ImageTask,
    p1: int,
    p2: int,
    counts: tuple[int, ...],
    held_out: tuple[int, ...] | None = None,
) -> None:
    """Check that p1 and p2 images can be drawn and test images remain, whatever the draw.

    `counts` and `held_out` are the images per class for training and for testing only; without `held_out`
    at least 20 images of each task must be left by both training sets. Raises UsageError.
    """
    shared = sum(counts[c] for c in set(source.classes) & set(target.classes))
    reserve = MIN_TEST if held_out is None else 0
    for name, points, other, task in (("p1", p1, p2, source), ("p2", p2, p1, target)):
        available = sum(counts[c] for c in task.classes)
        kept = f", of which {reserve} are kept for the test" if reserve else " for training"
        if points > available - reserve:
            raise UsageError(
                f"{name} = {points}: {task.text} has {available} images{kept}; use at most {available - reserve}."
            )
        # The worst draw: the other training set takes only images of this task.
        if reserve and points + min(other, shared) > available - reserve:
            raise UsageError(
                f"p1 = {p1}, p2 = {p2}: the two tasks share {shared} images and could leave fewer than {reserve} of "
                f"the {available} images of {task.text} for the test; use smaller training sets."
            )
        if held_out is not None and not sum(held_out[c] for c in task.classes):
            raise UsageError(f"{task.text}: the data hold no test image of these classes.")


def image_data(
    pool: ImagePool, source: ImageTask, target: ImageTask, *, p1: int, p2: int, ptest: int, seed: int, draw: int
) -> TransferData:
    """Draw training and test images of two tasks from a pool; sizes as checked by `check_image_sizes`.

    Each training set is the head of a random order of the images that its task may train on, drawn
    independently of the other one: an image of both tasks can be in both. Test points are the first `ptest`
    images of each task in a random order, without all training images; an image has a label of every task it
    belongs to and NaN for the other one.
    """
    first, second, test = _drawn(pool, source, target, (p1, p2, ptest), seed, draw)
    used = np.isin(pool.classes, source.classes + target.classes) & ~pool.held_out
    mean = pool.inputs(pool.pixels[used].mean(axis=0, dtype=np.float64)[None])[0]

    def inputs(index: Indices) -> Floats:
        x, lost = unit_inputs(pool.inputs(pool.pixels[index].astype(np.float64)), mean)
        if lost.size:
            raise UsageError(f"{source.text}, {target.text}: image {index[lost[0]]} equals the mean image.")
        return x

    y_source, y_target = source.labels(pool.classes[first]), target.labels(pool.classes[second])
    y_test_source, y_test_target = source.labels(pool.classes[test]), target.labels(pool.classes[test])
    description: dict[str, Any] = {
        **pool.description,
        "inputs": f"centred by the mean of the {int(used.sum())} images of either task that may be trained on, "
        "then every image scaled to |x|^2/D = 1",
        "labels": _described(source, target),
        "draw_of_images": "at random without replacement, stages independent; test images are in neither stage",
        **_counts("source", source, y_source),
        **_counts("target", target, y_target),
        "images_in_both_training_sets": int(np.isin(first, second).sum()),
        "test_images_source": int(np.isfinite(y_test_source).sum()),
        "test_images_target": int(np.isfinite(y_test_target).sum()),
    }
    return TransferData(
        inputs(first),
        y_source,
        inputs(second),
        y_target,
        inputs(test),
        y_test_source,
        y_test_target,
        description,
        len(source.groups),
        len(target.groups),
    )


def _drawn(
    pool: ImagePool, source: ImageTask, target: ImageTask, sizes: tuple[int, int, int], seed: int, draw: int
) -> tuple[Indices, Indices, Indices]:
    """Return the numbers of the images of source, target and test."""

    def members(task: ImageTask, mask: Flags) -> Indices:
        return np.flatnonzero(np.isin(pool.classes, task.classes) & mask)

    def training(task: ImageTask, purpose: Purpose, points: int) -> Indices:
        candidates = members(task, ~pool.held_out)
        return candidates[stream(seed, draw, purpose).permutation(len(candidates))[:points]]

    first = training(source, Purpose.SOURCE_INPUTS, sizes[0])
    second = training(target, Purpose.TARGET_INPUTS, sizes[1])
    free = pool.held_out.copy() if pool.held_out.any() else np.ones(len(pool.classes), bool)
    free[first] = free[second] = False
    rank = stream(seed, draw, Purpose.TEST_INPUTS).permutation(len(pool.classes))
    test: Indices = np.array([], dtype=np.intp)
    for task in (target, source):
        candidates = members(task, free)
        chosen = candidates[np.argsort(rank[candidates])][: sizes[2]]
        test = np.concatenate([test, chosen[~np.isin(chosen, test)]])
    return first, second, test


def _described(source: ImageTask, target: ImageTask) -> str:
    if len(source.groups) == len(target.groups) == 2:
        return "+1 for the classes before, -1 for those after the separator; not centred"
    return "numbers of the classes from 0; +1 and -1 of two"


def _counts(stage: str, task: ImageTask, labels: Floats) -> dict[str, Any]:
    if len(task.groups) == 2:
        return {f"{stage}_positive": int((labels > 0).sum())}
    counts = np.bincount(labels.astype(int), minlength=len(task.groups))
    return {f"{stage}_classes": list(task.names), f"{stage}_counts": counts.tolist()}
