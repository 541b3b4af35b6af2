"""Axes that hold 0 and infinity beside a logarithmic grid: both stand at places of their own, behind a break."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from tlcli.arrays import Floats
from tlcli.options.axes import best_columns, summarised_axis
from tlcli.report.tables import Block

_UNEVEN = 0.06  # steps of a geometric grid of rounded numbers may differ by this part
_SPAN = 8.0  # couplings that span more than this factor stand on a logarithmic axis


@dataclass(frozen=True)
class Ends:
    """A logarithmic axis of couplings from `first` to `last`; `zero` and `infinity` are where 0 and inf stand on it.

    `bare`: there is no coupling between them, and `first` = `last` = 1 is only a place.
    """

    first: float
    last: float
    zero: float | None
    infinity: float | None
    bare: bool = False

    @property
    def cuts(self) -> tuple[float, ...]:
        """Where the breaks between the places of 0 and infinity and the rest of the axis are."""
        sides = ((self.zero, self.first), (self.infinity, self.last))
        return tuple(float(np.sqrt(at * neighbour)) for at, neighbour in sides if at is not None)

    def place(self, values: Any) -> Floats:
        """Return positions on the axis, of the shape of `values`; NaN for what has none.

        What lies between an end and its neighbour stays on its side of the gap, however near to the end it is.
        """
        array = np.array(values, dtype=float)
        inside = (array > 0) & np.isfinite(array)
        low = 0.0 if self.zero is None else np.sqrt(self.zero * self.first)
        high = np.inf if self.infinity is None else np.sqrt(self.infinity * self.last)
        array[inside] = np.clip(array[inside], low, high)
        for end, at in ((0.0, self.zero), (np.inf, self.infinity)):
            array[array == end] = np.nan if at is None else at
        return array


def ends_of(values: Floats) -> Ends | None:
    """Return how couplings (n,) stand on a logarithmic axis; None where they fit a linear one."""
    inside = values[(values > 0) & np.isfinite(values)]
    if np.isfinite(values).all() and (not inside.size or inside.max() < _SPAN * inside.min()):
        return None
    bare = not inside.size
    first, last = (1.0, 1.0) if bare else (float(inside.min()), float(inside.max()))
    gap = max(2.5, (last / first) ** 0.12)
    zero = first / gap if np.any(values == 0) else None
    return Ends(first, last, zero, last * gap if np.isinf(values).any() else None, bare)


def ends_of_grids(grids: Sequence[Floats]) -> Ends | None:
    """Return how 0 or infinity stands beside geometric grids (n,) of one axis; None where these are no such grids."""
    inside = [np.unique(values[np.isfinite(values) & (values != 0)]) for values in grids]
    if any(len(v) < 3 or v[0] < 0 or np.ptp(np.diff(np.log(v))) > _UNEVEN * np.log(v[1] / v[0]) for v in inside):
        return None
    values = np.concatenate(grids)
    found = ends_of(np.append(values, np.inf))  # as an axis of couplings, whatever it spans
    assert found is not None
    infinity = found.infinity if np.isinf(values).any() else None
    return None if found.zero is None and infinity is None else replace(found, infinity=infinity)


def placed(block: Block, ends: Ends, axis: str) -> Block:
    """Return the block with the values of an axis, and the best of them, at their positions on it."""
    moved = best_columns(axis)
    columns = {name: _keep_ends(ends, c) if name in moved else c for name, c in block.columns.items()}
    axes = {name: ends.place(values) if name == axis else values for name, values in block.axes.items()}
    return Block(axes, columns, {**block.scales, axis: "log"}, block.label)


def _keep_ends(ends: Ends, values: Any) -> Floats:
    """Return positions; a best coupling of 0 or infinity that has no place stays what it is, for a mark at the edge."""
    array = np.asarray(values, dtype=float)
    at = ends.place(array)
    return np.where(np.isnan(at), array, at)


def ends_of_best(blocks: Sequence[Block], name: str) -> Ends | None:
    """Return how the best values of an axis, and their ranges, stand on an axis; None where it is linear."""
    found = [np.ravel(block.columns[c]) for block in blocks for c in best_columns(name) if c in block.columns]
    return ends_of(np.concatenate(found)) if found else None


def summarised(block: Block, quantity: str | None) -> Block:
    """Return the block without the parameter whose best value is drawn: that belongs to all its values at once."""
    name = summarised_axis(quantity)
    if name is None:
        return block
    columns = {column: c for column, c in block.columns.items() if column != name}
    axes = {axis: values for axis, values in block.axes.items() if axis != name}
    if name in block.axes:
        at, full = list(block.axes).index(name), len(block.axes)
        columns = {n: np.take(np.asarray(c), 0, axis=at) if np.ndim(c) == full else c for n, c in columns.items()}
    return Block(axes, columns, block.scales, block.label)


def ticks_of(ends: Ends) -> dict[float, str]:
    """Return where the axis has ticks, and what they say."""
    inside = [] if ends.bare else _decades(ends.first, ends.last)
    near = 0.06 * np.log((ends.infinity or ends.last) / (ends.zero or ends.first))
    inside = [x for x in inside if all(abs(np.log(x / at)) > near for at in (ends.zero, ends.infinity) if at)]
    marks = {at: text for at, text in ((ends.zero, "0"), (ends.infinity, r"$\infty$")) if at is not None}
    return {x: f"{x:g}" for x in inside} | marks


def mark_ends(axis: Axes, ends: Ends, which: str = "x", *, cells: bool = False) -> None:
    """Write 0 and ∞ where they stand, and break the axis and all lines between them and their neighbours.

    With `cells` (a map, whose limits stay) a white line parts their cells from the others.
    """
    line: Axis = axis.xaxis if which == "x" else axis.yaxis
    marks = ticks_of(ends)
    (axis.set_xscale if which == "x" else axis.set_yscale)("log")
    line.set_major_locator(FixedLocator(list(marks)))
    line.set_major_formatter(FuncFormatter(lambda value, _: marks.get(value) or f"{value:g}"))
    line.set_minor_locator(NullLocator())
    line.set_minor_formatter(NullFormatter())
    places = ((ends.zero, ends.first), (ends.infinity, ends.last))
    if cells:
        part = axis.axvline if which == "x" else axis.axhline
        for at, neighbour in places:
            if at is not None:
                part(float(np.sqrt(at * neighbour)), color="white", lw=4.0, zorder=4.5)
        return
    edges = [ends.zero or ends.first, ends.infinity or ends.last]
    room = (edges[1] / edges[0]) ** 0.04
    (axis.set_xlim if which == "x" else axis.set_ylim)(edges[0] / room, edges[1] * room)
    # A gap is at most a twenty-fifth of the axis, however short that is.
    for at, neighbour in places:
        if at is not None:
            gap = min(abs(np.log(neighbour / at)) * 0.12, np.log(edges[1] / edges[0]) * 0.02)
            _break(axis, float(np.sqrt(at * neighbour)), float(np.exp(gap)), which)


def _break(axis: Axes, middle: float, factor: float, which: str) -> None:
    """Cut a gap out of the lines and out of the spine, with a stroke on either side of it."""
    low, high = sorted((middle / factor, middle * factor))
    across = which == "x"
    span = axis.axvspan if across else axis.axhspan
    spine = axis.get_xaxis_transform() if across else axis.get_yaxis_transform()
    span(low, high, color="white", zorder=4.5, lw=0)
    style: dict[str, Any] = {"color": "black", "lw": 0.8, "clip_on": False, "zorder": 7, "transform": spine}
    gap, cover = ([low, high], [0.0, 0.0]), {**style, "color": "white", "lw": 2.0, "zorder": 6}
    axis.plot(*(gap if across else gap[::-1]), **cover)
    slant = (high / low) ** 0.25
    for at in (low, high):
        stroke = ([at / slant, at * slant], [-0.018, 0.018])
        axis.plot(*(stroke if across else stroke[::-1]), **style)


def _decades(first: float, last: float) -> list[float]:
    """Return powers of ten (and 2 and 5 of them where there are few) from `first` to `last`."""
    powers = 10.0 ** np.arange(np.floor(np.log10(first)), np.ceil(np.log10(last)) + 1)
    inside = powers[(powers >= first * 0.999) & (powers <= last * 1.001)]
    if len(inside) >= 3:
        step = -(-len(inside) // 6)
        return inside[::step].tolist()
    more = np.sort(np.outer(powers, [1.0, 2.0, 5.0]).ravel())
    return more[(more >= first * 0.999) & (more <= last * 1.001)].tolist()
