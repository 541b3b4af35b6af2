"""What a figure will show: kind, axes, column. Decided before any work, and without loading the plotting library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tlcli.errors import UsageError, suggest
from tlcli.options.axes import has_ends
from tlcli.options.columns import OF_CLASSES, label_of
from tlcli.report.drawing import Drawing
from tlcli.report.tables import Block

# What is called so where the theory has no test loss.
_OF = {
    "train_loss": {
        "gain": r"gain of the train loss $\hat{\mathcal{L}}_0-\hat{\mathcal{L}}$",
        "baseline": r"train loss without pre-training $\hat{\mathcal{L}}_0$",
        "relative_gain": r"relative gain of the train loss $1-\hat{\mathcal{L}}/\hat{\mathcal{L}}_0$",
    },
    "error": {
        "gain": "gain in classification error",
        "baseline": "classification error without pre-training",
    },
}


@dataclass(frozen=True)
class FigureSpec:
    """What to draw: `kind` is map or curves; x and y name axes, `quantity` a column.

    `judged`: the column that gains belong to. `placed`: the values, too, are of an axis that may hold 0 and infinity.
    `held`: where 0 and infinity stand on x. `breaks`: where lines are cut between such places of the values.
    """

    kind: str
    x: str
    quantity: str
    y: str | None = None
    title: str | None = None
    lines: tuple[str, ...] = ()
    log_axes: frozenset[str] = field(default_factory=frozenset)
    axes: tuple[str, ...] = ()
    subtitle: str = ""
    judged: str = "loss"
    placed: bool = False
    held: tuple[float, ...] = ()
    breaks: tuple[float, ...] = ()

    @property
    def value_label(self) -> str:
        """What stands on the value axis or colour bar; in a curriculum the loss is that of the panel's task."""
        if self.quantity == "loss" and "task" in self.axes:
            return r"test loss on the task $\mathcal{L}$"
        return _OF.get(self.judged, {}).get(self.quantity) or label_of(self.quantity)


def quantities_of(blocks: Sequence[Block], drawing: Drawing) -> list[str]:
    """Return the columns to draw, one figure each.

    Raises:
        UsageError: a quantity that is no column of the table.
    """
    if drawing.quantity is None:
        return []
    shared = [name for name in blocks[0].columns if all(name in block.columns for block in blocks)]
    columns = [
        name for name in shared if name not in ("phase", "status") and all(_is_number(b.columns[name]) for b in blocks)
    ]
    names = [part.strip() for part in drawing.quantity.split(",")]
    for name in names:
        if not name:
            raise UsageError(f"quantity: '{drawing.quantity}' names no column beside a comma; use loss or loss,gain.")
        if name not in columns:
            kind = "holds words and no numbers" if name in shared else f"is no column to draw{_instead(name, columns)}"
            raise UsageError(f"quantity: '{name}' {kind}; columns of numbers are {', '.join(columns)}.")
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"quantity: '{drawing.quantity}' names {twice[0]} twice; give every column once.")
    return names


def _instead(name: str, columns: Sequence[str]) -> str:
    """Return what to do about a column that a table does not have, as the end of a sentence."""
    if name in OF_CLASSES and "error" not in columns:
        return " here: networks have it where a task has classes and a loss is named (--loss mse, logistic or softmax)"
    return suggest(name, columns)


def _is_number(column: Any) -> bool:
    return np.asarray(column).dtype.kind in "fiu"


def plan_figure(blocks: Sequence[Block], drawing: Drawing, quantity: str | None = None) -> FigureSpec | None:
    """Choose kind, axes and column; None where there is nothing to draw (no axis has several values).

    Raises:
        UsageError: x, y or quantity names nothing that the table has.
    """
    first = max(blocks, key=lambda block: len(_plain_axes(block)))
    axes = _plain_axes(first)
    asked = [quantity] if quantity else quantities_of(blocks, drawing)
    _check_roles(drawing.roles, axes)
    if not axes:
        return None
    is_map = _is_map(drawing, axes)
    x, y, lines = _roles(drawing.roles, first, axes, is_map)
    default = drawing.default_quantity
    if is_map and "gain" in first.columns:
        default = "gain_error" if default == "error" and "gain_error" in first.columns else "gain"
    quantity = asked[0] if asked else default
    shown = (x, y) if is_map and y is not None else (x,)
    if not (is_map or x in drawing.roles.values() or _has_two(first, x)):
        return None  # a table needs no figure
    _check_blocks(blocks, first, shown, quantity)
    logs = frozenset(name for name in axes if any(block.scales.get(name) == "log" for block in blocks))
    kind = "map" if is_map else "curves"
    return FigureSpec(kind, x, quantity, y if is_map else None, drawing.title, lines, logs, tuple(axes))


def _check_roles(roles: Mapping[str, str], axes: Sequence[str]) -> None:
    for role, name in roles.items():
        if name not in axes:
            several = (
                f"the axes with several are {', '.join(axes)}" if axes else f"give several, as --{role} {name}=GRID"
            )
            raise UsageError(f"--{role}: '{name}' has one value only; {several}.")


def _is_map(drawing: Drawing, axes: Sequence[str]) -> bool:
    """Whether a map is drawn; UsageError where it is asked for and there is one axis."""
    y = drawing.roles.get("y")
    is_map = drawing.kind == "map" or (drawing.kind == "auto" and (y is not None or len(axes) >= 2))
    if is_map and len(axes) < 2:
        if y is not None and drawing.kind == "auto":
            raise UsageError(
                f"--y {y} makes a map, which needs a second axis of several values; use --x {y} for curves."
            )
        raise UsageError("a map needs two axes of several values; use --style curves.")
    return is_map


def _roles(
    roles: Mapping[str, str], first: Block, axes: Sequence[str], is_map: bool
) -> tuple[str, str | None, tuple[str, ...]]:
    """Return the axes x and y, and those that lines stand for: the longest that is left, tasks before all."""
    x, y = roles.get("x"), roles.get("y")
    axes = sorted(axes, key=lambda name: not _has_two(first, name))
    by_size = sorted(axes, key=lambda name: (not _has_two(first, name), -len(first.axes[name])))
    if is_map:
        x = x or next(name for name in (*axes, *by_size) if name != y)
        return x, y or next(name for name in axes if name != x), ()
    x = x or by_size[0]
    rest = [name for name in axes if name not in (x, y)]
    lines = tuple(sorted(rest, key=lambda name: (name == "task", -len(first.axes[name])))[:1])
    return x, y, (y,) if y else lines


def _check_blocks(blocks: Sequence[Block], first: Block, shown: Sequence[str], quantity: str) -> None:
    for block in blocks:
        if missing := [name for name in shown if name not in block.axes]:
            raise UsageError(f"case '{block.label}' does not vary {missing[0]}; all panels share their axes.")
        if quantity not in block.columns and block.label is None:
            raise UsageError(f"the table has no column '{quantity}'; give a --quantity that it has.")
        if quantity not in block.columns:
            raise UsageError(f"case '{block.label}' has no column '{quantity}'; give a --quantity that all cases have.")
    for name in shown:
        if not _has_two(first, name):
            raise UsageError(f"'{name}' has fewer than two finite values; an axis of a figure needs two.")


def _has_two(block: Block, name: str) -> bool:
    """Whether values of an axis can be told apart in a figure; 0 and infinity have places on some."""
    return has_ends(name) or int(np.isfinite(block.axes[name]).sum()) >= 2


def _plain_axes(block: Block) -> list[str]:
    return [name for name in block.axes if name != "experiment"]
