"""How the panels of a figure stand: two parameters make a grid, more of them pages."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from tlcli.options import OPTIONS
from tlcli.options.columns import COLUMNS
from tlcli.options.idle import idle
from tlcli.report.style import MAX_FACETS, named, number
from tlcli.report.tables import Block

_SIDE = 6  # panels in a row or column


class Panel(Protocol):
    """What a panel is told by."""

    @property
    def label(self) -> str | None:  # noqa: D102
        ...

    @property
    def fixed(self) -> Mapping[str, Any]:  # noqa: D102
        ...


P = TypeVar("P", bound=Panel)


def _keys(panel: Panel) -> dict[str, Any]:
    return {**({} if panel.label is None else {"case": panel.label}), **panel.fixed}


def _varying(panels: Sequence[Panel]) -> dict[str, list[Any]] | None:
    """Return the values of what tells panels apart, slowest first; None unless they are a full grid."""
    keys = [_keys(panel) for panel in panels]
    if any(key.keys() != keys[0].keys() for key in keys):
        return None
    values = {name: list(dict.fromkeys(key[name] for key in keys)) for name in keys[0]}
    several = {name: found for name, found in values.items() if len(found) > 1}
    whole = int(np.prod([len(found) for found in several.values()], dtype=int))
    return several if whole == len(panels) else None


def pages(panels: Sequence[P]) -> list[list[P]]:
    """Return the panels of each page: all values of two parameters, or up to twelve panels."""
    several = _varying(panels) or {}
    if len(several) < 2:
        return [list(panels[i : i + MAX_FACETS]) for i in range(0, len(panels), MAX_FACETS)]
    *outer, rows, columns = several
    groups: dict[Any, list[P]] = {}
    for panel in panels:
        keys = _keys(panel)
        part = [several[name].index(keys[name]) // _SIDE for name in (rows, columns)]
        groups.setdefault((*(keys[name] for name in outer), *part), []).append(panel)
    return list(groups.values())


def shape(panels: Sequence[Panel]) -> tuple[int, int] | None:
    """Return (rows, columns) where two parameters tell the panels apart, the slower one down; None otherwise."""
    several = _varying(panels) or {}
    if len(several) != 2:
        return None
    rows, columns = (len(values) for values in several.values())
    return rows, columns


def fixed_text(blocks: Sequence[Block]) -> str:
    """Return the parameters that have one value in the whole table, as a subtitle says them."""
    words = []
    first = blocks[0].columns
    for name in first:
        if name != "time" and (name not in OPTIONS or name in COLUMNS):
            continue
        values = {only_value(block.columns.get(name)) for block in blocks}
        value = next(iter(values))
        if isinstance(value, str) and name in OPTIONS and OPTIONS[name].numeric:  # experiments are told apart by texts
            value = value if value in OPTIONS[name].words else float(value)
        if len(values) != 1 or value is None or _silent(name, value, first):
            continue
        if not all(idle(name, block.columns) for block in blocks):
            words.append(_said(name, value))
    words += _losses(blocks)
    ends = [only_value(first.get(name)) for name in ("source", "target")]
    if all(isinstance(end, str) for end in ends) and all(
        [only_value(block.columns.get(name)) for name in ("source", "target")] == ends for block in blocks
    ):
        words.insert(0, f"{ends[0]} to {ends[1]}")
    return ", ".join(words)


def _losses(blocks: Sequence[Block]) -> list[str]:
    """Return the loss of both stages, or of either, where the whole table has one that is not the squared error."""
    stages = ("loss_function1", "loss_function2")
    single = {name: {only_value(block.columns.get(name)) for block in blocks} for name in ("loss_function", *stages)}
    one, first, second = (found.pop() if len(found) == 1 else None for found in single.values())
    if one is None and first == second:
        one = first
    if one is not None:
        return [] if one == "mse" else [f"{one} loss"]
    return [] if first is None or second is None else [f"{first} loss, then {second}"]


def only_value(column: Any) -> Any:
    """Return the one value of a column, None where it has several or none."""
    if column is None:
        return None
    array = np.asarray(column)  # of a table that was read every column is full
    value = array.flat[0] if array.size else None
    if value is None or (array.size > 1 and not np.all(array == value)):
        return None
    return str(value) if array.dtype.kind in "UO" else float(value)


def hue_of(block: Block, lines: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the colour of a curve stands for: its values on the axes of lines, or the only one of its case."""
    known = {name: values[name] if name in values else only_value(block.columns.get(name)) for name in lines}
    return {name: value for name, value in known.items() if value is not None}


def _silent(name: str, value: Any, columns: Mapping[str, Any]) -> bool:
    if isinstance(value, str):
        return name in ("source", "target") or value == OPTIONS[name].default or len(value) > 24
    if np.isnan(value) or name not in OPTIONS:  # a time
        return bool(np.isnan(value) or np.isinf(value))
    option = OPTIONS[name]
    if option.follows:
        return option.unsaid and value == only_value(columns.get(option.follows))
    # Values that switch something off are not worth a reader's time, nor is it that there is one of a thing.
    same = str(option.default) == f"{value:g}"
    return (same and (value == 0 or option.unsaid)) or (np.isinf(value) and option.lasts > 0)


def _said(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value if name == "solver" else f"{name.replace('_', ' ')} {value}"
    if name in OPTIONS and OPTIONS[name].counted:
        return f"{number(value)} {name if value != 1 else name.removesuffix('s')}"
    text = named(name, value)
    return text if "$" in text.partition("=")[0] else f"{name.replace('_', ' ')} {number(value)}"
