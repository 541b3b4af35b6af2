"""What a stored record must hold: a valid checksum says that it is what was written, not that it is whole.

The module of a task's function says it in `check_record(parameters, record)`, which raises one of `WRONG` for a record
that `function(parameters, …)` cannot have returned. `tlcli.sweep.runner` asks for it when it reads a stored point.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

WRONG = (ValueError, KeyError, TypeError, IndexError, AttributeError)

Check = Callable[[Mapping[str, Any], Mapping[str, Any]], None]


def check_of(function: str) -> Check | None:
    """Return the `check_record` beside a task's function "module:name", None where its module has none."""
    return getattr(importlib.import_module(function.partition(":")[0]), "check_record", None)


def with_errors(names: Iterable[str]) -> list[str]:
    """Return every name, and that of its standard error."""
    return [word for name in names for word in (name, f"{name}_se")]


def check_numbers(found: Any, names: Iterable[str], shape: tuple[int, ...] = ()) -> None:
    """Raise ValueError unless the mapping `found` has numbers, in lists of this shape, under every name."""
    wanted: Any = 0
    for length in reversed(shape):
        wanted = (wanted,) * length
    _refuse(not isinstance(found, Mapping), "no mapping")
    for name in names:
        _refuse(name not in found, f"no {name}")
        _refuse(form_of(found[name]) != wanted, f"{name} is of another form")
        _refuse(name.endswith("_se") and _least(found[name]) < 0, f"{name} is below 0")


def check_arrays(found: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless `found` has arrays of numbers of these shapes under these names, and no other objects."""
    for name, shape in shapes.items():
        _refuse(name not in found, f"no {name}")
        _refuse(found[name].shape != shape or found[name].dtype.kind not in "biuf", f"{name} is of another form")


def check_texts(found: Any, names: Iterable[str]) -> None:
    """Raise ValueError unless the mapping `found` has a text under every name."""
    for name in names:
        _refuse(not isinstance(found[name], str), f"{name} is no text")


def check_notes(found: Any) -> None:
    """Raise ValueError unless `found` is a list of texts."""
    _refuse(not isinstance(found, list) or not all(isinstance(text, str) for text in found), "no list of texts")


def form_of(value: Any) -> Any:
    """Return the form of a number (0) or of lists of numbers, None for everything else."""
    if isinstance(value, list):
        inner = [form_of(item) for item in value]
        return None if None in inner else tuple(inner)
    return 0 if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _least(value: Any) -> float:
    return min((_least(item) for item in value), default=0.0) if isinstance(value, list) else value


def _refuse(wrong: bool, why: str) -> None:
    if wrong:
        raise ValueError(why)
