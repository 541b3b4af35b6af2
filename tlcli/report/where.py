"""Where on a grid pre-training helps and where it hurts, in words: sign changes of the gain, and ranges."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tlcli.arrays import Flags, Floats, Indices
from tlcli.report.numbers import number, with_error
from tlcli.report.tables import Block
from tlcli.report.told import phases_of, placed
from tlcli.status import Phase

# Where an effect ends along an axis between a value of the grid that has it and a neighbour that has not: one number
# for each point of the other axes, NaN where nothing ends.
Ends = Callable[[str, float, float], Floats | None]
_SIGNED = (Phase.POSITIVE, Phase.NEGATIVE)
_MOST_LISTED = 3


def where(block: Block, edges: Sequence[Mapping[str, Any]], ends: Ends | None) -> str:
    """Return where the gain changes sign and on which side pre-training helps, else where it helps and where it hurts.

    `edges` are the points of the boundary, as `boundary.csv` has them; those count that lie between two cells which are
    sure of their sign.
    """
    phases = phases_of(block)
    found = [change for edge in edges if (change := _change(edge, block, phases)) is not None]
    text = f"; the gain changes sign at {', and at '.join(text for text, _ in found)}" if found else ""
    if any(one_sided for _, one_sided in found):
        return text
    ranges = [
        f"{verb} {words}"
        for phase, verb in ((Phase.POSITIVE, "helps"), (Phase.NEGATIVE, "hurts"))
        if (words := _range(block.axes, phases == phase, ends))
    ]
    return f"{text}; it {', and '.join(ranges)}" if ranges else text


def _change(edge: Mapping[str, Any], block: Block, phases: Any) -> tuple[str, bool] | None:
    """Return between which values of its axis the gain changes sign, and whether pre-training always helps on one side.

    None where no point of the boundary is between cells that are sure.
    """
    axis = str(edge["refined"])
    if axis not in block.axes or len(block.axes[axis]) < 2:
        return None
    others = {name: values for name, values in block.axes.items() if name != axis}
    growing = np.argsort(block.axes[axis])
    along = np.asarray(block.axes[axis], dtype=float)[growing]
    rows = np.moveaxis(phases, list(block.axes).index(axis), -1)[..., growing]
    places = [np.asarray(edge[name], dtype=float) for name in others]
    at: list[Any] = [
        np.argmax(values[None, :] == place[:, None], axis=1)
        for values, place in zip(others.values(), places, strict=True)
    ]
    x = np.asarray(edge[axis], dtype=float)
    root = np.asarray(edge["kind"]) != "collapse"
    lines: Any = np.ravel_multi_index(at, rows.shape[:-1]) if at else np.zeros(x.shape, dtype=int)
    sides = np.zeros(x.shape, dtype=int)
    order = np.flatnonzero(root)[np.argsort(lines[root], kind="stable")]
    for members in np.split(order, np.flatnonzero(np.diff(lines[order])) + 1):
        if len(members):
            sides[members] = _sides(rows.reshape(-1, len(along))[lines[members[0]]], along, x[members])
    kept = np.flatnonzero(sides)
    if not kept.size:
        return None
    errors = np.asarray(edge.get(f"{axis}_se", np.full(x.shape, np.nan)), dtype=float)

    def told(k: int) -> str:
        return f"{with_error(x[k], errors[k])}{placed(others, [i[k] for i in at])}"

    ends = dict.fromkeys((kept[np.argmin(x[kept])], kept[np.argmax(x[kept])]))
    same = len({number(x[k]) for k in ends}) == 1
    first = next(iter(ends))
    text = f"{axis} = {with_error(x[first], errors[first]) if same and len(kept) > 1 else ' to '.join(map(told, ends))}"
    below = int(np.sum(sides[kept] > 0))
    most = max(below, kept.size - below)
    text += f", {'below' if below == most else 'above'} which pre-training helps"
    return (text, True) if most == kept.size else (f"{text} at {most} of {kept.size} places", False)


def _sides(phases: Any, along: Floats, places: Floats) -> Any:
    """Return for the zeros (n,) of the gain on one line (m,) the sign below each, 0 where nobody is sure of it.

    The next sure cells on either side must have opposite signs, and no other zero may be between them.
    """
    sure = np.flatnonzero(np.isin(phases, _SIGNED))
    found = np.zeros(len(places), dtype=int)
    for k, place in enumerate(places):
        before, after = sure[along[sure] < place], sure[along[sure] > place]
        if len(before) and len(after):
            low, high = before[-1], after[0]
            alone = np.sum((places > along[low]) & (places < along[high])) == 1
            found[k] = phases[low] if alone and phases[low] == -phases[high] else 0
    return found


def _range(axes: Mapping[str, Floats], inside: Flags, ends: Ends | None) -> str:
    """Return at which values of the axes points are `inside`; nothing where that is nowhere, or takes every value."""
    if not inside.any() or inside.all():
        return ""
    inner = [
        np.flatnonzero(inside.any(axis=tuple(j for j in range(inside.ndim) if j != i))) for i in range(inside.ndim)
    ]
    cut = [i for i, at in enumerate(inner) if len(at) < inside.shape[i]]
    names = list(axes)
    if inside.sum() == np.prod([len(at) for at in inner]):
        return "where " + " and ".join(_run(names[i], axes[names[i]], inner[i], _rows(inner, i), ends) for i in cut)
    for i in sorted(range(inside.ndim), key=lambda i: -inside.shape[i]):  # the axis that tells most places apart
        if text := _one_sided(axes, i, inside):
            return text
    return "within " + ", ".join(_run(names[i], axes[names[i]], inner[i], None, None) for i in cut) if cut else ""


def _rows(inner: Sequence[Indices], axis: int) -> tuple[Indices, ...]:
    """Return the places of a product of ranges on all axes but one."""
    return np.ix_(*(at for i, at in enumerate(inner) if i != axis))


def _run(name: str, values: Floats, at: Indices, rows: Any, ends: Ends | None) -> str:
    """Return a range of an axis: by where the effect ends if that is known, else by the values of the grid."""
    order = np.argsort(values)
    line, taken = np.asarray(values, dtype=float)[order], np.isin(order, at)
    places = np.flatnonzero(taken)
    first, last = int(places[0]), int(places[-1])
    if last - first + 1 > len(places):
        if len(places) <= _MOST_LISTED:
            return f"{name} = {', '.join(number(line[i]) for i in places)}"
        without = [number(value) for value in line[first:last][~taken[first:last]]]
        if len(without) <= _MOST_LISTED:
            return f"{name} = {number(line[first])} to {number(line[last])} but {', '.join(without)}"
        return f"{name} has one of {len(places)} values from {number(line[first])} to {number(line[last])}"
    bounds = [
        None if ends is None or rows is None else _bound(ends, name, line[inside], line[outside], rows)
        for inside, outside in ((first, first - 1), (last, last + 1))
        if 0 <= outside < len(line)
    ]
    if bounds and all(bound is not None for bound in bounds):
        if len(bounds) == 2:
            return f"{bounds[0]} < {name} < {bounds[1]}"
        return f"{name} {'>' if first > 0 else '<'} {bounds[0]}"
    return f"{name} = {number(line[first])}" + (f" to {number(line[last])}" if last > first else "")


def _bound(ends: Ends, name: str, inside: float, outside: float, rows: Any) -> str | None:
    """Return where the effect ends between two values, the same to three digits in all `rows`; None where it is not."""
    found = ends(name, inside, outside)
    if found is None:
        return None
    known = {number(x) for x in np.ravel(found[rows] if found.ndim else found)}
    return known.pop() if len(known) == 1 and "nan" not in known else None


def _one_sided(axes: Mapping[str, Floats], axis: int, inside: Flags) -> str:
    """Return up to which values of an axis, or from which on, points are inside; nothing where neither is so."""
    name = list(axes)[axis]
    order = np.argsort(axes[name])
    line = np.asarray(axes[name], dtype=float)[order]
    rows = np.moveaxis(inside, axis, -1)[..., order]
    others = {n: values for n, values in axes.items() if n != name}
    count = rows.sum(axis=-1)
    steps = np.diff(rows.astype(int), axis=-1)
    if not count.all():  # a line without any of the points: no bound of this axis is true of it
        return ""
    for step, words in ((-1, "up to"), (1, "from")):
        if (steps == -step).any():
            continue
        last = count - 1 if step < 0 else len(line) - count
        low, high = (np.unravel_index(i, count.shape) for i in (np.argmin(last), np.argmax(last)))
        told = [f"{number(line[last[at]])}{placed(others, at)}" for at in (low, high)]
        return f"{words} {name} = {' to '.join(told)}{' on' if step > 0 else ''}"
    return ""
