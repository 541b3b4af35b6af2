"""Which losses a network is trained with, and what is refused of them before anything is computed.

Without one of the options of losses, and with labels that are single numbers or two classes, it is the squared error
and the table is what it always was. Columns of errors and of calibrated losses come with a loss that is named.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tlcli.errors import UsageError
from tlcli.losses import Loss, loss_of
from tlcli.losses.labels import read_weights
from tlcli.tasks.transfer_tasks import LabelKind, label_kinds
from tlcli.theories.base import Case
from tlcli.training import TransferSettings

OPTIONS = ("loss", "loss1", "loss2", "label_smoothing", "class_weights")
_SQUARE = {"square": "mse"}  # what other theories call it


@dataclass(frozen=True)
class Losses:
    """The losses of a case: `defaults` and `words` of its theory; `limit`: training without end has a limit.

    `errors`: the target has classes, and a share of misclassified points.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, Any] = field(default_factory=dict)
    limit: bool = True
    errors: bool = False

    def answered(self, get: Callable[[str], Any]) -> Callable[[str], Any]:
        """Return `get` with what these losses decide."""
        known = {**self.words, **self.defaults}
        return lambda name: known[name] if name in known else get(name) if name != "meaning" else None


def losses_of(name: str, get: Callable[[str], Any], source: str, target: str) -> Losses:
    """Return the losses of the theory `name` from its options and tasks.

    Raises:
        UsageError: an unknown loss, labels that do not fit, or tasks that cannot be read.
    """
    meaning = _meaning(get)
    asked = any(get(option) is not None for option in OPTIONS)
    if asked and meaning is None and source.strip().startswith("file:"):
        meaning = "auto"
    try:
        kinds = label_kinds(source, target, drop_columns=get("drop_columns"), meaning=meaning)
    except UsageError:
        if asked or meaning is not None:
            raise
        return Losses()  # the tasks are refused where they are checked
    said = {} if meaning is None else {"meaning": meaning}
    if not asked and all((kind.classes in (None, 2)) and kind.outputs is None for kind in kinds):
        return Losses(words={**said, **_mixed(get, kinds, (source, target), ("mse", "mse"))})
    named = [get(option) or get("loss") or _usual(kind) for option, kind in zip(("loss1", "loss2"), kinds, strict=True)]
    named = [_SQUARE.get(text, text) for text in named]
    losses = [loss_of(text) for text in named]
    _refuse_without_effect(get, kinds, source, target)
    for loss, kind, task in zip(losses, kinds, (source, target), strict=True):
        refuse_labels(loss, kind, task, meaning)
        if kind.classes is not None:
            read_weights(get("class_weights"), kind.classes, task)
    _refuse_two_times(get, kinds, (source, target))
    defaults = {"loss1": losses[0].text, "loss2": losses[1].text}
    ridge, smoothing = get("ridge"), get("label_smoothing")
    held = isinstance(ridge, str) or (ridge is not None and bool(np.all(ridge.array > 0)))  # the best is positive
    smooth = losses[1].smooths and smoothing is not None and bool(np.all(smoothing.array > 0))
    limit = held or smooth or (losses[1].bounded and not losses[1].flat)
    words: dict[str, Any] = {"losses": True, "kinds": [kind.classes is not None for kind in kinds]}
    words |= {**said, **_mixed(get, kinds, (source, target), (losses[0].text, losses[1].text))}
    return Losses(defaults, words, limit, kinds[1].classes is not None)


def _mixed(
    get: Callable[[str], Any], kinds: Sequence[LabelKind], tasks: Sequence[str], named: Sequence[str]
) -> dict[str, str]:
    """Return the note `mixed` where two tasks have different losses, or losses of different labels, by default."""
    classes = [kind.classes is not None for kind in kinds]
    if all(get(option) is not None or get("loss") is not None for option in ("loss1", "loss2")):
        return {}
    if named[0] == named[1] and (classes[0] == classes[1] or named[0] != "mse"):
        return {}
    what = f"both are trained with {named[0]}"
    if named[0] != named[1]:
        what = f"the source is trained with {named[0]}, the target with {named[1]}"
    if classes[0] != classes[1]:
        have = [
            f"the {role} {task} has {'real labels' if kind.classes is None else f'{kind.classes} classes'}"
            for role, task, kind in zip(("source", "target"), tasks, kinds, strict=True)
        ]
        what = f"{' and '.join(have)}: {what}"
    return {"mixed": f"{what}; --loss1 and --loss2 set other losses."}


def _refuse_without_effect(get: Callable[[str], Any], kinds: Sequence[LabelKind], source: str, target: str) -> None:
    stages = [get("loss1"), get("loss2")]
    # A result keeps all three: there the stage that had none of its own has that of both.
    if get("loss") is not None and None not in stages and get("loss") not in stages:
        raise UsageError(f"--loss {get('loss')} has no effect beside --loss1 and --loss2; leave it out.")
    weights = get("class_weights")
    if weights is not None and all(kind.classes is None for kind in kinds):
        tasks = source if source == target else f"{source} and {target}"
        raise UsageError(
            f"--class-weights {weights} has no effect: the labels of {tasks} are no classes; leave it out, or use "
            "tasks with classes such as sign:linear."
        )


def _refuse_two_times(get: Callable[[str], Any], kinds: Sequence[LabelKind], tasks: Sequence[str]) -> None:
    """Refuse what is kept between two times beside anything but the squared error of one output; say what it is."""
    for flag in (f"--{name.replace('_', '-')}" for name in ("two_time", "responses") if get(name)):
        only = f"{flag} is for the squared error of a single output"
        for kind, task in zip(kinds, tasks, strict=True):
            count = kind.outputs or kind.classes or 1
            if kind.outputs or count > 2:
                what = "outputs" if kind.outputs else "classes"
                raise UsageError(
                    f"{only}, and {task} has {count} {what}; use a task of numbers or of two classes, or leave it out."
                )
        given = [f"--{name.replace('_', '-')} {get(name)}" for name in OPTIONS if get(name) is not None]
        raise UsageError(f"{only} as it is by default; leave out {' and '.join(given)}, or {flag}.")


def _meaning(get: Callable[[str], Any]) -> str | None:
    """Return what the user says that the labels of a file are."""
    classes, regression = bool(get("classes")), bool(get("regression"))
    if classes and regression:
        raise UsageError("--classes and --regression exclude each other; give one.")
    return "classes" if classes else "regression" if regression else None


def _usual(kind: LabelKind) -> str:
    return "softmax" if kind.classes is not None and kind.classes > 2 else "mse"


def refuse_labels(loss: Loss, kind: LabelKind, task: str, meaning: str | None = None) -> None:
    """Refuse labels of a task that do not fit a loss; `meaning` is what the user says that those of a file are.

    Raises:
        UsageError: with the remedy.
    """
    if loss.labels == "binary" and kind.classes is not None and kind.classes > 2:
        raise UsageError(
            f"loss: {loss.text} is for two classes, and {task} has {kind.classes}; use softmax, or two groups of them "
            "such as digits:01v234."
        )
    if loss.labels == "real" or kind.classes is not None:
        return
    if loss.labels == "classes" and kind.outputs is not None:
        return  # rows of probabilities, which the data must show
    if kind.outputs is not None:
        raise UsageError(
            f"loss: {loss.text} needs classes, and {task} has {kind.outputs} outputs of a sample; use one-hot rows, or "
            "--loss mse."
        )
    if task.startswith("file:") and meaning == "regression":
        raise UsageError(
            f"loss: {loss.text} needs classes, and --regression takes the labels of {task} as numbers; leave out one "
            "of both, or use --loss mse."
        )
    if task.startswith("file:"):
        raise UsageError(
            f"loss: {loss.text} needs classes, and {task} has real labels; use --loss mse, or --classes if they are "
            "whole numbers."
        )
    raise UsageError(
        f"loss: {loss.text} needs classes, and {task} has real labels; use sign:{task} (labels by its sign) or "
        "--loss mse."
    )


def check_losses(case: Case, settings: Sequence[TransferSettings]) -> None:
    """Refuse what the losses of a case do not have, at any point of the grid.

    Raises:
        UsageError: label smoothing of a loss without it, label noise of classes, readouts that cannot be carried over,
            time without end where there is no optimum.
    """
    words = case.words
    if not words.get("losses"):
        return
    meaning = words.get("meaning")
    target = words.get("target") or words["source"]
    kinds = label_kinds(words["source"], target, drop_columns=words.get("drop_columns"), meaning=meaning)
    for one in settings:
        losses = [loss_of(text or "mse") for text in (one.loss1, one.loss2 or one.loss1)]
        used = losses[: 2 if one.times2 else 1]
        if one.label_smoothing and not any(loss.smooths for loss in used):
            loss_of(used[-1].text, one.label_smoothing)  # refuses
        if one.times2:
            _check_switch(one, losses, kinds)
            _check_end(one, losses[1])
    check_noise(case)


def check_noise(case: Case) -> None:
    """Refuse Gaussian noise of labels that are classes. Raises UsageError."""
    target = case.words.get("target") or case.words["source"]
    more = {"drop_columns": case.words.get("drop_columns"), "meaning": case.words.get("meaning")}
    kinds = label_kinds(case.words["source"], target, **more)
    for stage, (loss, kind) in enumerate(zip(losses_in(case), kinds, strict=True), 1):
        noise = case.grid.values.get(f"noise{stage}")
        if noise is not None and np.any(noise.array > 0) and (loss.labels != "real" or (kind.classes or 0) > 2):
            raise UsageError(
                f"noise{stage} = {noise.array.max():g}: labels that are classes take no Gaussian noise; use "
                f"--flips{stage}, the share of them that become another class."
            )


def losses_in(case: Case) -> tuple[Loss, Loss]:
    """Return the losses of both stages of a case."""
    first = case.words.get("loss1") or "mse"
    return loss_of(first), loss_of(case.words.get("loss2") or first)


def _check_switch(one: TransferSettings, losses: Sequence[Loss], kinds: Sequence[LabelKind]) -> None:
    counts = [_outputs(loss, kind) for loss, kind in zip(losses, kinds, strict=True)]
    if one.regresses or one.readout == "reset" or one.gamma0 == 0:
        return
    if counts[0] != counts[1]:
        shown = [
            f"{count or 1} output{'s' * ((count or 1) > 1)} of {loss.text}"
            for count, loss in zip(counts, losses, strict=True)
        ]
        raise UsageError(
            f"readout = {one.readout}: source and target have {shown[0]} and {shown[1]}, whose readouts differ; use "
            "--readout reset, a new head (the old one goes on reporting the source loss)."
        )


def _outputs(loss: Loss, kind: LabelKind) -> int | None:
    if kind.classes is None:
        return kind.outputs
    return kind.classes if kind.classes > 2 or loss.vector else None


def _check_end(one: TransferSettings, loss: Loss) -> None:
    if np.isfinite(one.times2[-1]) or one.second_ridge > 0:
        return
    if not loss.bounded and not one.label_smoothing:
        raise UsageError(
            f"time = inf: {loss.text} without ridge has no finite optimum of data that the features separate; give "
            "--times, --ridge or --label-smoothing."
        )
    if loss.flat:
        raise UsageError(
            f"time = inf: {loss.text} without ridge has a flat minimum, and where training ends depends on its path; "
            "give --times or --ridge."
        )
