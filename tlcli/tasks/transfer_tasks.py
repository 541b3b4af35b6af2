"""The tasks of the nonlinear solvers by name: polynomials, digits, CIFAR-10 and the user's own files.

`transfer_data` draws a source and a target task; `check_tasks` finds what is wrong with them before anything
is computed. Both tasks are of one kind, since a network transfers between inputs of one space:

    linear, hermite:K, he1+0.5*he3   Gaussian inputs (`tlcli.tasks.polynomial`)
    sign:linear, argmax:3, he1(1)+he1(1)he1(2)   the same with classes or several directions (`tlcli.tasks.gaussian`)
    digits:3v8, digits:02468v13579, digits:0-4   scikit-learn's bundled scans (`tlcli.tasks.images`)
    cifar10:cat-dog, cifar10:cat+deer-dog+frog, cifar10:cat-dog-ship   (`tlcli.tasks.cifar`)
    file:data.npz, file:data.csv     (`tlcli.tasks.arrays`)
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlcli.arrays import Floats
from tlcli.errors import DomainError, UsageError, suggest
from tlcli.tasks import arrays, cifar, digits, gaussian, images, polynomial
from tlcli.tasks.data import (
    DEFAULT_DIM,
    DEFAULT_P1,
    DEFAULT_P2,
    DEFAULT_PTEST,
    Purpose,
    TransferData,
    checksum,
    single_class,
    size,
    stream,
)

__all__ = ["LabelKind", "TransferData", "check_tasks", "label_kinds", "transfer_data"]

_PREFIXES = {digits.PREFIX: "digits", cifar.PREFIX: "cifar10", arrays.PREFIX: "file"}
# How each kind of task is written, by the word it starts with: the material of "did you mean".
_FORMS = {
    "linear": "linear",
    "hermite": "hermite:K",
    polynomial.EXAMPLE: polynomial.EXAMPLE,
    "sign": "sign:TASK",
    "argmax": "argmax:C",
    "digits": "digits:3v8",
    "cifar10": cifar.EXAMPLE,
    "file": "file:PATH",
}


def check_tasks(
    source: str,
    target: str,
    *,
    dim: int | None,
    p1: int | None,
    p2: int | None,
    ptest: int | None,
    colour: bool = False,
    raw_inputs: bool = False,
    drop_columns: str | None = None,
    meaning: str | None = None,
    flips: tuple[float, float] = (0.0, 0.0),
) -> int:
    """Check two tasks and their sizes without drawing data; returns the input dimension D.

    None takes the default: D = 20, P1 = 100, P2 = 50, 1000 test points (all points of a file). `colour` is for
    CIFAR-10, `raw_inputs` and `meaning` of the labels (`tlcli.tasks.labels`) for files, `flips` for classes.

    Raises UsageError, one sentence with the bad value and what is allowed: an unknown task (with the nearest
    name), tasks of different kinds, sizes that the data do not have, data that are absent or damaged.
    """
    source, target = source.strip(), target.strip()
    kind = _kind(source)
    if _kind(target) != kind:
        raise UsageError(
            f"Source {source!r} and target {target!r} have different kinds of inputs; both must be polynomials, "
            "both digits, both cifar10 or both the same file."
        )
    _check_options(kind, source, colour, raw_inputs, drop_columns, meaning)
    size("ptest", ptest, DEFAULT_PTEST)
    n1, n2 = size("p1", p1, DEFAULT_P1), size("p2", p2, DEFAULT_P2)
    if kind == "polynomial":
        found = size("dim", dim, DEFAULT_DIM)
        first, second = gaussian.parse(source), gaussian.parse(target)
        gaussian.check_directions(first, second, found)
        _check_flips(flips, (first.classes, second.classes), (source, target))
        return found
    if kind == "file":
        if Path(source.removeprefix(arrays.PREFIX)) != Path(target.removeprefix(arrays.PREFIX)):
            raise UsageError(f"Source {source!r} and target {target!r} must name the same file: it holds both tasks.")
        task = arrays.load_file(source, drop_columns)
        arrays.check_file_sizes(task, p1, p2, ptest)
        labels = arrays.check_labels(task, meaning)
        _check_flips(flips, (labels[0].classes, labels[1].classes), (source, target))
        if raw_inputs:
            arrays.check_raw_inputs(task)
        found = (task if raw_inputs else arrays.normalised(task)).dim
    elif kind == "digits":
        first, second = images.digits_task(source), images.digits_task(target)
        images.check_image_sizes(first, second, n1, n2, images.DIGIT_COUNTS)
        found = digits.DIM
    else:
        first, second = cifar.parse_cifar_task(source), cifar.parse_cifar_task(target)
        pool = cifar.cifar_pool(colour)
        images.check_image_sizes(first, second, n1, n2, *cifar.class_counts(pool))
        found = pool.dim
    if dim is not None and dim != found:
        raise UsageError(f"dim = {dim}: the inputs of {source} have D = {found}; leave dim out.")
    return found


def _check_options(
    kind: str, source: str, colour: bool, raw_inputs: bool, drop_columns: str | None, meaning: str | None
) -> None:
    """Refuse what tasks of another kind take. Raises UsageError."""
    if colour and kind != "cifar10":
        raise UsageError(f"colour is for cifar10 tasks, not for {source!r}.")
    if kind == "file":
        return
    if drop_columns is not None:
        raise UsageError(f"drop_columns = {drop_columns} is for file: tasks, not for {source!r}.")
    if raw_inputs:
        raise UsageError(f"raw inputs are for file: tasks, not for {source!r}.")
    if meaning in ("classes", "regression"):
        raise UsageError(f"{meaning} says what the labels of a file: task are, not those of {source!r}; leave it out.")


@dataclass(frozen=True)
class LabelKind:
    """What the labels of a task are: `classes` C or None for numbers, `outputs` of vectors of numbers, else None."""

    classes: int | None = None
    outputs: int | None = None


def label_kinds(
    source: str, target: str, *, drop_columns: str | None = None, meaning: str | None = None
) -> tuple[LabelKind, LabelKind]:
    """Return what the labels of source and target are, without drawing data.

    Raises UsageError as `check_tasks`.
    """
    kind, found = _kind(source.strip()), []
    if kind == "file":
        for labels in arrays.check_labels(arrays.load_file(source.strip(), drop_columns), meaning):
            vectors = labels.classes is None and labels.train.ndim == 2
            found.append(LabelKind(labels.classes, labels.train.shape[1] if vectors else None))
        return found[0], found[1]
    for text in (source.strip(), target.strip()):
        if kind == "polynomial":
            found.append(LabelKind(gaussian.parse(text).classes))
        else:
            task = images.digits_task(text) if kind == "digits" else cifar.parse_cifar_task(text)
            found.append(LabelKind(len(task.groups)))
    return found[0], found[1]


def transfer_data(
    source: str,
    target: str,
    *,
    dim: int | None,
    rho: float,
    noise1: float,
    noise2: float,
    p1: int | None,
    p2: int | None,
    ptest: int | None,
    seed: int,
    draw: int = 0,
    raw_inputs: bool = False,
    colour: bool = False,
    drop_columns: str | None = None,
    meaning: str | None = None,
    flips: tuple[float, float] = (0.0, 0.0),
) -> TransferData:
    """Draw the training and test points of a source and a target task.

    `rho` is the overlap of the two directions of polynomial tasks (no other task uses it); `noise1`, `noise2`
    are the standard deviations of Gaussian noise added to the training labels, in the labels' own units; test
    labels stay noiseless. Every array has its own random stream, which depends on (seed, draw) alone: smaller
    training sets are the first rows of larger ones, and the same numbers return along a sweep of rho, noise or
    sizes.

    Raises UsageError as `check_tasks`, DomainError for rho outside [-1, 1] and negative noise.
    """
    source, target = source.strip(), target.strip()
    kinds: dict[str, Any] = {"colour": colour, "raw_inputs": raw_inputs, "drop_columns": drop_columns}
    kinds |= {"meaning": meaning, "flips": flips}
    found = check_tasks(source, target, dim=dim, p1=p1, p2=p2, ptest=ptest, **kinds)
    for name, value in (("noise1", noise1), ("noise2", noise2)):
        if not (np.isfinite(value) and value >= 0):
            raise DomainError(f"{name} = {value:g}: the standard deviation of label noise must be finite and >= 0.")
    kind, how = _kind(source), {"seed": seed, "draw": draw}
    if kind == "file":
        task = arrays.load_file(source, drop_columns)
        data = arrays.file_data(task, p1=p1, p2=p2, ptest=ptest, raw_inputs=raw_inputs, meaning=meaning, **how)
    else:
        how |= {"p1": size("p1", p1, DEFAULT_P1), "p2": size("p2", p2, DEFAULT_P2)}
        how |= {"ptest": size("ptest", ptest, DEFAULT_PTEST)}
        data = _drawn(kind, source, target, found, rho, colour, how)
    alike = single_class((data.y_source, data.y_test_source), (data.y_target, data.y_test_target))
    notes = list(dict.fromkeys([*alike, *_absent_classes(data), *data.description.pop("file_notes", [])]))
    data = replace(
        data,
        y_source=_noisy(data.y_source, noise1, flips[0], data.classes_source, (seed, draw, Purpose.SOURCE_NOISE)),
        y_target=_noisy(data.y_target, noise2, flips[1], data.classes_target, (seed, draw, Purpose.TARGET_NOISE)),
    )
    asked = {"kind": kind, "source": source, "target": target, "dim": found}
    description: dict[str, Any] = {
        **(data.description | asked | _contents(data, noise1, noise2, seed, draw)),
        **({"notes": notes} if notes else {}),
        **({"drop_columns": drop_columns} if drop_columns is not None else {}),
        **({"flips": list(flips)} if any(flips) else {}),
    }
    return replace(data, description=description)


def _drawn(
    kind: str, source: str, target: str, dim: int, rho: float, colour: bool, how: Mapping[str, int]
) -> TransferData:
    """Draw the points of tasks of one kind, but files, without label noise; `how` are sizes, seed and draw."""
    if kind == "polynomial":
        plain = gaussian.is_plain(source) and gaussian.is_plain(target)
        make = polynomial.gaussian_data if plain else gaussian.gaussian_classes
        return make(source, target, dim=dim, rho=rho, **how)
    if kind == "digits":
        return images.image_data(images.digits_pool(), images.digits_task(source), images.digits_task(target), **how)
    first, second = cifar.parse_cifar_task(source), cifar.parse_cifar_task(target)
    return images.image_data(cifar.cifar_pool(colour), first, second, **how)


def _contents(data: TransferData, noise1: float, noise2: float, seed: int, draw: int) -> dict[str, Any]:
    """Return sizes, noise, draw and checksums, JSON-plain."""
    arrays_of = ("x_source", "y_source", "x_target", "y_target", "x_test")
    return {
        "p1": len(data.x_source),
        "p2": len(data.x_target),
        "ptest": len(data.x_test),
        "noise1": float(noise1),
        "noise2": float(noise2),
        "noise": "N(0, noise^2) added to the training labels; test labels without noise",
        "seed": int(seed),
        "draw": int(draw),
        "array_sha256": {name: checksum(getattr(data, name)) for name in arrays_of},
    }


def _kind(text: str) -> str:
    """The kind of a task by how it is written; raises UsageError with the nearest name for an unknown one."""
    for prefix, kind in _PREFIXES.items():
        if text.startswith(prefix):
            return kind
    if gaussian.is_gaussian(text):
        return "polynomial"
    head = text.split(":")[0].strip().lower()
    near = suggest(head, _FORMS)
    for word, form in _FORMS.items():
        near = near.replace(f"'{word}'", f"'{form}'")
    raise UsageError(f"Unknown task {text!r}{near}; a task is one of {', '.join(_FORMS.values())}.")


def _absent_classes(data: TransferData) -> list[str]:
    """What to tell of classes without a training point."""
    told = []
    for word, labels, classes in (
        ("source", data.y_source, data.classes_source),
        ("target", data.y_target, data.classes_target),
    ):
        if classes is None or not len(labels):
            continue
        numbers = np.where(labels > 0, 0, 1) if classes == 2 else labels.astype(int)
        absent = sorted(set(range(classes)) - set(numbers.tolist()))
        if absent:
            own = ["+1", "-1"] if classes == 2 else [str(c) for c in range(classes)]
            names = data.description.get(f"{word}_classes", own)
            what = "class" if len(absent) == 1 else "classes"
            shown = ", ".join(str(names[c]) for c in absent)
            told.append(f"no {word} point has the {what} {shown}, which training can only make less likely.")
    return told


def _check_flips(flips: tuple[float, float], classes: tuple[int | None, int | None], tasks: tuple[str, str]) -> None:
    """Refuse flips of labels that are no classes. Raises UsageError."""
    for stage, (share, count, task) in enumerate(zip(flips, classes, tasks, strict=True), 1):
        if share and count is None:
            raise UsageError(
                f"flips{stage} = {share:g}: {task} has real labels, which have no other class; use --noise{stage}, or "
                f"a task with classes such as sign:{task if count is None and ':' not in task else 'linear'}."
            )


def _noisy(labels: Floats, noise: float, flip: float, classes: int | None, place: tuple[int, int, Purpose]) -> Floats:
    """Labels (P,) of which a share has become another class, plus noise * N(0, 1), by the stream of `place`."""
    labels = gaussian.flipped(labels, flip, classes, *place)
    return labels + noise * stream(*place).standard_normal(labels.shape) if noise else labels
