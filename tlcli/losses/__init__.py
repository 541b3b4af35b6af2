"""Losses of a training sample: one object each, in a file of its own, found by their names.

`loss_of("huber:0.5")` makes one. A file of this package that defines a subclass of `tlcli.losses.base.Loss` adds it:
names, help and refusals follow from the classes that are found here.
"""

import functools
import importlib
import inspect
import pkgutil
from typing import Any

from tlcli.errors import UsageError, suggest
from tlcli.losses.base import Loss
from tlcli.losses.objective import Objective

__all__ = ["DEFAULT", "Loss", "Objective", "known", "loss_of"]

DEFAULT = "mse"


@functools.cache
def known() -> dict[str, type[Loss]]:
    """Return every loss by its name, in the order of their files."""
    found: dict[str, type[Loss]] = {}
    for module in pkgutil.iter_modules(__path__):
        content = importlib.import_module(f"{__name__}.{module.name}")
        for _, kind in inspect.getmembers(content, inspect.isclass):
            if issubclass(kind, Loss) and kind.__module__ == content.__name__ and not inspect.isabstract(kind):
                found[kind.name] = kind
    return found


def loss_of(text: str, smoothing: float = 0.0) -> Loss:
    """Return the loss that `text`, a name or a name and its number (huber:0.5), stands for.

    Raises:
        UsageError: an unknown name (with the nearest one), a number that it does not take, or label smoothing of a
            loss that has none, or outside [0, 1).
    """
    name, colon, number = text.strip().partition(":")
    kinds = known()
    if name not in kinds:
        spelled = [kind.form for kind in kinds.values()]
        raise UsageError(f"loss: '{text}' is unknown{suggest(name, list(kinds))}; use one of {', '.join(spelled)}.")
    kind: Any = kinds[name]
    if colon and not kind.takes_number:
        raise UsageError(f"loss: '{text}' has a number, and {name} takes none; write {kind.form}.")
    if not 0 <= smoothing < 1:
        raise UsageError(f"label_smoothing = {smoothing:g} must be at least 0 and below 1.")
    if smoothing and not kind.smooths:
        able = " or ".join(other.name for other in kinds.values() if other.smooths)
        raise UsageError(f"label_smoothing = {smoothing:g} is for the losses {able}, not for {name}; leave it out.")
    if not colon:
        return kind(smoothing=smoothing) if kind.smooths else kind()
    try:
        value = float(number)
    except ValueError:
        raise UsageError(f"loss: '{text}': {number!r} is not a number; write for example {name}:1.") from None
    return kind(value)
