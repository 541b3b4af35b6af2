"""A transfer of any loss: the objectives of its stages, the labels of its test points, and what kernels align with."""

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tlcli.arrays import Flags, Floats, Indices
from tlcli.dmft.settings import Setup, in_order
from tlcli.dmft.stage import Stage
from tlcli.errors import UsageError
from tlcli.losses import Objective, loss_of
from tlcli.losses.base import Loss
from tlcli.losses.labels import class_numbers, encode, objective_of


@dataclass(frozen=True, eq=False)
class Side:
    """One task as its loss sees it: `train` and `test` labels as `encode` gives them, and the `objective`.

    `classes` None: labels of regression, of which there is no error.
    """

    loss: Loss
    objective: Objective
    train: Floats
    test: Floats
    classes: int | None

    @property
    def outputs(self) -> tuple[int, ...]:
        """The axes of outputs that a prediction has after that of the points: none or (C,)."""
        return self.train.shape[1:]

    @property
    def known(self) -> Flags:
        """Which test points (n,) have a label of this task."""
        return np.asarray(np.isfinite(self.test) if self.test.ndim == 1 else np.isfinite(self.test).all(axis=1))


def side_of(data: Any, settings: Any, which: int) -> Side:
    """Return stage 1 (source) or 2 (target) of a transfer.

    Raises:
        UsageError: an unknown loss, or labels that do not fit it.
    """
    word = {1: "source", 2: "target"}[which]
    text = settings.loss1 if which == 1 else settings.loss2
    labels, test = getattr(data, f"y_{word}"), getattr(data, f"y_test_{word}")
    classes = getattr(data, f"classes_{word}", None)
    loss = loss_of(text or "mse")
    if loss.smooths:
        loss = loss_of(text, settings.label_smoothing)
    what = f"the {word} task"
    weights = settings.class_weights if classes is not None else None
    return Side(
        loss,
        objective_of(loss, labels, classes, what, weights),
        encode(loss, labels, classes, what),
        encode(loss, test, classes, what),
        classes,
    )


@dataclass(eq=False)
class LossSetup(Setup):
    """The points of a transfer whose stages have losses of their own."""

    @functools.cached_property
    def sides(self) -> tuple[Side, Side]:
        """Source and target.

        Deep networks that hand the readout of softmax to another loss, or the other way round, keep one for every
        class: the common part, which softmax does not see, is there when the other loss does.
        """
        first, second = side_of(self.data, self.settings, 1), side_of(self.data, self.settings, 2)
        s = self.settings
        if not s.deep or s.regresses or s.readout == "reset" or first.loss.invariant == second.loss.invariant:
            return first, second
        return _in_full(first), _in_full(second)

    def check(self) -> None:
        """Refuse readouts that cannot be carried over. Raises UsageError."""
        s, (first, second) = self.settings, self.sides
        if s.regresses or not s.times2 or s.readout == "reset" or s.gamma0 == 0:
            return
        if first.outputs != second.outputs:
            counts = [one.outputs[0] if one.outputs else 1 for one in (first, second)]
            why = f"{counts[0]} outputs of {first.loss.text} and {counts[1]} of {second.loss.text}"
            raise UsageError(
                f"readout = {s.readout}: source and target have {why}, whose readouts differ; use --readout reset, a "
                "new head (the old one goes on reporting the source loss)."
            )

    @property
    def readouts(self) -> tuple[int | None, int | None]:
        """The number of readout coordinates of source and target, None for a single output."""
        first, second = self.sides
        return first.objective.readouts, second.objective.readouts

    @property
    def several(self) -> bool:
        """Whether a stage has several outputs, or the two have different ones."""
        first, second = self.sides
        return bool(first.outputs or second.outputs)

    def stage(self, which: int, readout: str = "carry") -> Stage:
        """Return stage 1 (source) or 2 (target), with its loss."""
        side = self.sides[which - 1]
        return replace(super().stage(which, readout), labels=side.objective.y, objective=side.objective)

    def watch(self, moments: Any, whole: bool) -> Any:
        """Return the observer; a frozen tangent kernel of several outputs is that of a new readout."""
        found = super().watch(moments, whole)
        plain = self.settings.regresses and self.settings.kernel == "ntk" and self.several
        return replace(found, plain=plain)

    @functools.cached_property
    def groups(self) -> dict[str, tuple[Indices, Floats]]:
        """Points and labels whose alignment with the kernel is taken: of more than two classes centred one-hot ones."""
        first, second = self.sides
        test = self.test[second.known]
        found = {
            "source": (self.source, _aligned(self.data.y_source, first.classes)),
            "target": (self.target, _aligned(self.data.y_target, second.classes)),
            "test": (test, _aligned(np.asarray(self.data.y_test_target)[second.known], second.classes)),
        }
        return in_order(found)


def _in_full(side: Side) -> Side:
    return replace(side, objective=side.objective.in_full())


def _aligned(labels: Floats, classes: int | None) -> Floats:
    if classes is None or classes == 2:
        return labels
    return np.eye(classes)[class_numbers(labels, classes)] - 1 / classes
