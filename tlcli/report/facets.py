"""How the panels of a figure stand: two parameters make a grid, more of them pages."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from tlcli.options import OPTIONS
from tlcli.options.columns import COLUMNS, short_symbol, stage_of
from tlcli.options.commands import STAGE_OPTIONS
from tlcli.options.idle import idle
from tlcli.options.option import Option
from tlcli.report.style import MAX_FACETS, named, number
from tlcli.report.tables import Block

_SIDE = 6  # panels in a row or column
_NUMBERS = 3  # in a line over a panel


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


def fixed_text(blocks: Sequence[Block], told: str = "") -> str:
    """Return the parameters that have one value in the whole table, as a subtitle says them.

    `told` is what the theory says besides.
    """
    first = blocks[0].columns
    shared = {name: value for name in first if (value := _of_all(name, blocks)) is not None}
    told_of = {name: v for name, v in shared.items() if not _silent(name, v, first)}
    told_of = {n: v for n, v in told_of.items() if not all(idle(n, block.columns) for block in blocks)}
    said = _plain(told_of) | _following(blocks)
    words = [*_staged(told_of), *(said[name] for name in first if name in said), *_losses(blocks)]
    ends = [only_value(first.get(name)) for name in ("source", "target")]
    if all(isinstance(end, str) for end in ends) and all(
        [only_value(block.columns.get(name)) for name in ("source", "target")] == ends for block in blocks
    ):
        words.insert(0, f"{ends[0]} to {ends[1]}")
    return ", ".join([*words, *([told] if told else [])])


def heads_of(blocks: Sequence[Block], lines: Sequence[str | None] = ()) -> list[str | None]:
    """Return what heads the panels of each case: its label, and below it the numbers that set the case apart.

    A label that names the symbol of one has said it, and the legend what `lines` stand for.
    """
    return [_head(block, blocks, lines) if len(blocks) > 1 else block.label for block in blocks]


def _head(block: Block, blocks: Sequence[Block], lines: Sequence[str | None]) -> str | None:
    label, columns = block.label or "", {name: c for name, c in block.columns.items() if name not in lines}
    own = {name: value for name in columns if isinstance(value := _value(name, block), float)}
    own = {name: value for name, value in own.items() if _of_all(name, blocks) is None and not _names(label, name)}
    own = {n: v for n, v in own.items() if not _silent(n, v, block.columns) and not idle(n, block.columns)}
    words = [*_staged(own), *_plain(own).values()]
    lines = [", ".join(words[i : i + _NUMBERS]) for i in range(0, len(words), _NUMBERS)]
    return "\n".join([*([label] if label else []), *lines]) or None


def _names(label: str, name: str) -> bool:
    """Whether a label holds the symbol of a parameter."""
    symbol = short_symbol(name).strip("$")
    return re.search(rf"{re.escape(symbol)}(?![_A-Za-z])", label) is not None


def _option(name: str) -> Option | None:
    """Return the option that a parameter is, or whose meaning it has in one stage of a curriculum; None of others."""
    staged = stage_of(name)
    return OPTIONS.get(str(STAGE_OPTIONS[staged[0]]) if staged else name)


def _value(name: str, block: Block) -> Any:
    """Return the one value of a parameter in a block, None where it has several or is none."""
    option = _option(name)
    if name != "time" and (option is None or name in COLUMNS):
        return None
    value = only_value(block.columns.get(name))
    if isinstance(value, str) and option is not None and option.numeric:  # experiments are told apart by texts
        return value if value in option.words or not value else float(value)
    return value


def _of_all(name: str, blocks: Sequence[Block]) -> Any:
    """Return the one value of a parameter in all blocks, None where it has several."""
    values = {_value(name, block) for block in blocks}
    return values.pop() if len(values) == 1 else None


def _plain(values: Mapping[str, Any]) -> dict[str, str]:
    """Return how parameters are said that are not of one stage of a curriculum."""
    return {name: _said(name, value) for name, value in values.items() if stage_of(name) is None}


def _staged(values: Mapping[str, Any]) -> list[str]:
    """Return how those of a curriculum are said: field by field, stages that share a value together."""
    found: dict[tuple[int, Any], list[str]] = {}
    for name, value in values.items():
        if (stage := stage_of(name)) is not None:
            found.setdefault((list(STAGE_OPTIONS).index(stage[0]), value), []).append(short_symbol(name))
    ordered = sorted(found.items(), key=lambda item: item[0][0])
    return [" = ".join([*symbols, number(value)]) for (_, value), symbols in ordered]


def _following(blocks: Sequence[Block]) -> dict[str, str]:
    """Return the parameters that go with another one where that has several values, as the richness of both stages."""
    found = {}
    for name in blocks[0].columns:
        other = OPTIONS[name].follows if name in OPTIONS else ""
        if other and all(_alike(name, other, block.columns) for block in blocks):
            found[name] = f"{short_symbol(name)} = {short_symbol(other)}"
    return found


def _alike(name: str, other: str, columns: Mapping[str, Any]) -> bool:
    if not {name, other} <= columns.keys() or only_value(columns[name]) is not None:
        return False
    return np.array_equal(np.asarray(columns[name]), np.asarray(columns[other]))


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
    option = _option(name)
    if isinstance(value, str):
        return name in ("source", "target") or option is None or value == option.default or len(value) > 24
    if np.isnan(value) or option is None:  # a time
        return bool(np.isnan(value) or np.isinf(value))
    if option.follows and name in OPTIONS:
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
