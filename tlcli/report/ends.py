"""Axes that hold infinity, or 0 beside a logarithmic grid: these stand at places of their own, behind a break."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from tlcli.arrays import Floats
from tlcli.options.axes import best_columns, summarised_axis
from tlcli.report.frame import uneven
from tlcli.report.tables import Block

_UNEVEN = 0.06  # steps of a geometric grid of rounded numbers may differ by this part
_LEAST, _MOST = 0.12, 0.25  # of a linear axis: between the last value and infinity
_NEAR = 0.06  # of the axis: ticks nearer to the place of 0 or infinity are left out
_LEAST_RATIO = 3.0  # of a geometric grid beside a gap
_SPAN = 8.0  # couplings that span more than this factor stand on a logarithmic axis


@dataclass(frozen=True)
class Ends:
    """An axis of finite values from `first` to `last`; `zero` and `infinity` are where 0 and inf stand on it.

    `bare`: there is no value between them, and `first` = `last` = 1 is only a place. `log`: the axis is logarithmic;
    on one that is not, 0 is a value like any other.
    """

    first: float
    last: float
    zero: float | None
    infinity: float | None
    bare: bool = False
    log: bool = True

    @property
    def breaks(self) -> list[tuple[float, float]]:
        """The places of 0 and infinity, as far as there are, each with its neighbour on the rest of the axis."""
        sides = ((self.zero, self.first), (self.infinity, self.last))
        return [(at, neighbour) for at, neighbour in sides if at is not None]

    @property
    def cuts(self) -> tuple[float, ...]:
        """Where the breaks between the places of 0 and infinity and the rest of the axis are."""
        return tuple(self._between(*pair) for pair in self.breaks)

    def line(self, values: Any) -> Floats:
        """Return how far along the axis values stand."""
        return np.log(values) if self.log else np.asarray(values, dtype=float)

    def unline(self, along: Any) -> Floats:
        """Return the values that stand so far along the axis."""
        return np.exp(along) if self.log else np.asarray(along, dtype=float)

    def _between(self, one: float, other: float) -> float:
        return float(np.sqrt(one * other) if self.log else (one + other) / 2)

    def place(self, values: Any) -> Floats:
        """Return positions on the axis, of the shape of `values`; NaN for what has none.

        What lies between an end and its neighbour stays on its side of the gap, however near to the end it is.
        """
        array = np.array(values, dtype=float)
        inside = np.isfinite(array) & ((array > 0) | (not self.log))
        low = -np.inf if self.zero is None else self._between(self.zero, self.first)
        high = np.inf if self.infinity is None else self._between(self.infinity, self.last)
        array[inside] = np.clip(array[inside], low, high)
        for end, at in ((0.0, self.zero), (np.inf, self.infinity))[0 if self.log else 1 :]:
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


def ends_of_grids(grids: Sequence[Floats], asked: bool | None = None) -> Ends | None:
    """Return how infinity stands beside grids (n,) of one axis, or 0 beside geometric ones; None where neither is.

    `asked`: whether the axis is to be logarithmic, None where nobody said so.
    """
    values = np.concatenate(grids)
    inside = [np.unique(part[np.isfinite(part) & (part != 0)]) for part in grids]
    endless = bool(np.isinf(values).any())
    log = all(_wide(part) or (endless and uneven(part)) for part in inside) if asked is None else asked
    if log and all(part.size and part[0] > 0 for part in inside):
        found = ends_of(np.append(values, np.inf))  # as an axis of couplings, whatever it spans
        assert found is not None
        found = replace(found, infinity=found.infinity if endless else None)
        return None if found.zero is None and found.infinity is None else found
    if not endless:
        return None
    finite = np.unique(values[np.isfinite(values)])
    span = float(np.ptp(finite)) or abs(float(finite[0])) or 1.0
    gap = max(_LEAST * span, min(_MOST * span, float(finite[-1] - finite[-2]) if len(finite) > 1 else 0.0))
    return Ends(float(finite[0]), float(finite[-1]), None, float(finite[-1]) + gap, log=False)


def _wide(values: Floats) -> bool:
    """Whether growing values (n,) are a geometric grid of three or more, wide enough to be seen beside a gap."""
    if len(values) < 3 or values[0] <= 0 or values[-1] < _LEAST_RATIO * values[0]:
        return False
    return float(np.ptp(np.diff(np.log(values)))) <= _UNEVEN * float(np.log(values[1] / values[0]))


def placed(block: Block, ends: Ends, axis: str) -> Block:
    """Return the block with the values of an axis, and the best of them, at their positions on it."""
    moved = best_columns(axis)
    columns = {name: _keep_ends(ends, c) if name in moved else c for name, c in block.columns.items()}
    axes = {name: ends.place(values) if name == axis else values for name, values in block.axes.items()}
    return Block(axes, columns, {**block.scales, axis: "log"} if ends.log else block.scales, block.label)


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
    inside: list[float] = []
    if not ends.bare:
        inside = _decades(ends.first, ends.last) if ends.log else _round(ends.first, ends.last)
    places = [at for at, _ in ends.breaks]
    low, high = ends.line(ends.zero or ends.first), ends.line(ends.infinity or ends.last)
    inside = [x for x in inside if all(abs(ends.line(x) - ends.line(at)) > _NEAR * (high - low) for at in places)]
    marks = {at: text for at, text in ((ends.zero, "0"), (ends.infinity, r"$\infty$")) if at is not None}
    return {x: f"{x:g}".replace("-", "\N{MINUS SIGN}") for x in inside} | marks


def mark_ends(
    axis: Axes, ends: Ends, which: str = "x", *, cells: bool = False, limits: tuple[float, float] | None = None
) -> None:
    """Write 0 and ∞ where they stand, and break the axis and all lines between them and their neighbours.

    With `cells` (a map, whose limits stay) a white line parts their cells from the others. `limits` are those asked
    for, None for all there is.
    """
    line: Axis = axis.xaxis if which == "x" else axis.yaxis
    marks = ticks_of(ends)
    if ends.log:
        (axis.set_xscale if which == "x" else axis.set_yscale)("log")
    line.set_major_locator(FixedLocator(list(marks)))
    line.set_major_formatter(FuncFormatter(lambda value, _: marks.get(value) or f"{value:g}"))
    line.set_minor_locator(NullLocator())
    line.set_minor_formatter(NullFormatter())
    if cells:
        part = axis.axvline if which == "x" else axis.axhline
        for cut in ends.cuts:
            part(cut, color="white", lw=4.0, zorder=4.5)
        return
    low, high = ends.line(ends.zero or ends.first), ends.line(ends.infinity or ends.last)
    room = 0.04 * (high - low)
    first, last = limits or ends.unline([low - room, high + room])
    (axis.set_xlim if which == "x" else axis.set_ylim)(first, last)
    # A gap is at most a twenty-fifth of the axis, however short that is.
    for (at, neighbour), cut in zip(ends.breaks, ends.cuts, strict=True):
        half = min(0.12 * abs(ends.line(neighbour) - ends.line(at)), 0.02 * (high - low))
        steps = half * np.array([-1.5, -1.0, -0.5, 0.5, 1.0, 1.5])
        places = ends.unline(ends.line(cut) + steps)
        if first < places[0] and places[-1] < last:
            _break(axis, places, which)


def _break(axis: Axes, places: Floats, which: str) -> None:
    """Cut a gap out of the lines and out of the spine, with a slanted stroke on either side of it.

    `places` (6,) are where the strokes begin, stand and end.
    """
    first, low, second, third, high, last = places
    across = which == "x"
    span = axis.axvspan if across else axis.axhspan
    spine = axis.get_xaxis_transform() if across else axis.get_yaxis_transform()
    span(low, high, color="white", zorder=4.5, lw=0)
    style: dict[str, Any] = {"color": "black", "lw": 0.8, "clip_on": False, "zorder": 7, "transform": spine}
    gap, cover = ([low, high], [0.0, 0.0]), {**style, "color": "white", "lw": 2.0, "zorder": 6}
    axis.plot(*(gap if across else gap[::-1]), **cover)
    for ends in ((first, second), (third, last)):
        stroke = (list(ends), [-0.018, 0.018])
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


def _round(first: float, last: float) -> list[float]:
    """Return round numbers from `first` to `last`, at equal steps."""
    ticks, slack = np.asarray(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(first, last)), 1e-9 * (last - first)
    return ticks[(ticks >= first - slack) & (ticks <= last + slack)].tolist()
