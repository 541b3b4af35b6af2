"""From the labels of a task to what a loss trains on, and who is misclassified.

Labels of a task with two classes are +1 (the first class) and -1, those of more classes are their numbers 0 .. C - 1,
labels of regression are numbers (P,) or vectors of outputs (P, C). NaN marks a point without a label.
"""

import numpy as np

from tlcli.arrays import Floats, Indices
from tlcli.errors import UsageError
from tlcli.losses.base import Loss
from tlcli.losses.objective import Objective, centred_basis


def class_numbers(labels: Floats, classes: int) -> Indices:
    """Return the class 0 .. C - 1 of every label (P,), -1 where it is NaN."""
    known = np.isfinite(labels)
    filled = np.where(known, labels, 0.0)
    numbers = np.where(filled > 0, 0, 1) if classes == 2 else np.rint(filled).astype(np.int_)
    return np.where(known, numbers, -1).astype(np.int_)


def outputs_of(loss: Loss, labels: Floats, classes: int | None) -> int | None:
    """Return how many outputs C a network needs, None for a single number."""
    if classes is None or classes == 2:
        if loss.vector and classes == 2:
            return 2
        return None if labels.ndim == 1 else labels.shape[1]
    return classes


def encode(loss: Loss, labels: Floats, classes: int | None, what: str) -> Floats:
    """Return the labels (P,) or (P, C) that `loss` takes, without label smoothing; NaN where a label is NaN.

    `what` names the task in messages.

    Raises:
        UsageError: labels that do not fit the loss, with the remedy.
    """
    if loss.labels == "real":
        if loss.vector and classes is None and labels.ndim == 1:
            raise UsageError(f"loss: {loss.text} joins several outputs, and {what} has a single one; use --loss mse.")
        return _one_hot(labels, classes) if classes and (classes > 2 or loss.vector) else labels
    if classes is None:
        return _as_classes(loss, labels, what)
    if loss.labels == "binary":
        if classes != 2:
            raise UsageError(
                f"loss: {loss.text} is for two classes, and {what} has {classes}; use softmax, or two groups of them."
            )
        return labels
    return _one_hot(labels, classes)


def _as_classes(loss: Loss, labels: Floats, what: str) -> Floats:
    """Accept numbers that are -1 and +1, and rows of probabilities, as the classes that a loss needs."""
    known = labels[np.isfinite(labels)]
    if loss.labels == "binary":
        if labels.ndim == 1 and np.all(np.abs(known) == 1):
            return labels
        shown = f"the label {known[np.abs(known) != 1][0]:g}" if labels.ndim == 1 else f"{labels.shape[1]} outputs"
        remedy = (
            "use labels -1 and +1 (sign:TASK takes the sign of a polynomial)" if labels.ndim == 1 else "use softmax"
        )
        raise UsageError(f"loss: {loss.text} needs labels -1 and +1, and {what} has {shown}; {remedy}, or --loss mse.")
    if labels.ndim == 2:
        rows = labels[np.isfinite(labels).all(axis=1)]
        wrong = rows[np.any(rows < 0, axis=1) | (np.abs(rows.sum(axis=1) - 1) > 1e-6)]
        if not len(wrong):
            return labels
        shown = ", ".join(f"{number:g}" for number in wrong[0][:3]) + ", ..." * (len(wrong[0]) > 3)
        raise UsageError(
            f"loss: {loss.text} needs rows of probabilities of sum 1, and {what} has ({shown}); use --loss mse "
            "for others."
        )
    raise UsageError(
        f"loss: {loss.text} needs classes, and {what} has real labels; use a task with classes such as digits:0-4 or "
        "sign:TASK, or --loss mse."
    )


def _one_hot(labels: Floats, classes: int) -> Floats:
    numbers = class_numbers(labels, classes)
    out = np.eye(classes)[numbers]
    out[numbers < 0] = np.nan
    return out


def read_weights(text: str | None, classes: int, what: str) -> Floats | None:
    """Return the numbers of a text, one per class (C,); None for none and balanced.

    Raises:
        UsageError: another text, or numbers that are not positive or not one per class.
    """
    if text is None or text.strip() in ("none", "balanced"):
        return None
    allowed = f"none, balanced or {classes} positive numbers, one for each class of {what}"
    try:
        each = np.array([float(part) for part in text.split(",")])
    except ValueError:
        raise UsageError(f"class_weights: '{text}' is unknown; use {allowed}.") from None
    if len(each) != classes or not np.all(np.isfinite(each) & (each > 0)):
        raise UsageError(f"class_weights: '{text}' does not fit; use {allowed}.")
    return each


def class_weights(text: str | None, labels: Floats, classes: int | None, what: str) -> Floats | None:
    """Return the weight of every training point (P,), of mean 1; `text` is none, balanced or a number per class.

    `balanced` gives every class the same share, P / (C n_c). Raises UsageError as `read_weights`, and for labels
    without classes.
    """
    if text is None or text.strip() == "none":
        return None
    if classes is None:
        raise UsageError(f"class_weights: {text} needs classes, and {what} has none; leave it out.")
    numbers, each = class_numbers(labels, classes), read_weights(text, classes, what)
    if each is None:
        counts = np.bincount(numbers, minlength=classes)
        each = np.where(counts > 0, 1.0 / np.maximum(counts, 1), 0.0)
    weights = each[numbers]
    return weights / weights.mean()


def objective_of(loss: Loss, labels: Floats, classes: int | None, what: str, weights: str | None = None) -> Objective:
    """Return the loss of a training set of labels as a task gives them; softmax, `invariant`, in C - 1 coordinates.

    Raises:
        UsageError: as `encode` and `class_weights`.
    """
    y = encode(loss, labels, classes, what)
    basis = centred_basis(y.shape[1]) if loss.invariant else None
    return Objective(loss, loss.soften(y), class_weights(weights, labels, classes, what), basis)
