"""The zero line of a map: exact points joined within squares of the grid, sampled gains judged by their errors."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tlcli.arrays import Flags, Floats

_SAME = 1e-7  # of the axes: points nearer than this are one
SURE = 2.0  # standard errors that tell a gain from zero


def signs(values: Floats, error: Floats | None) -> NDArray[np.int8]:
    """Return the sign of each gain, 0 where it is within two standard errors of zero or unknown."""
    with np.errstate(invalid="ignore"):
        sure = np.abs(values) > (0.0 if error is None else SURE * np.nan_to_num(error))
    return np.where(sure & np.isfinite(values), np.sign(np.nan_to_num(values)), 0).astype(np.int8)


def sides(sign: NDArray[np.int8], x_edges: Floats, y_edges: Floats) -> list[Floats]:
    """Return the sides of cells, (2, 2) each, between a positive and a negative cell: nothing is known between them."""
    found = []
    for i, j in zip(*np.nonzero(sign[:-1] * sign[1:] < 0), strict=True):
        found.append(np.array([[x_edges[i + 1], y_edges[j]], [x_edges[i + 1], y_edges[j + 1]]]))
    for i, j in zip(*np.nonzero(sign[:, :-1] * sign[:, 1:] < 0), strict=True):
        found.append(np.array([[x_edges[i], y_edges[j + 1]], [x_edges[i + 1], y_edges[j + 1]]]))
    return found


def told(zeros: Floats, values: Floats, sign: NDArray[np.int8], x: Floats, y: Floats) -> Flags:
    """Return which zeros (n, 2) of sampled values (n_x, n_y), each on a line of the grid x, y, their errors tell.

    Between the next cells that are sure of their `sign` (n_x, n_y) on either side, of which one is positive and one
    negative, there is no other zero: then there is one, and it is not noise that put it there.
    """
    found = np.zeros(len(zeros), dtype=bool)
    for fixed, lines, along in ((0, x, y), (1, y, x)):
        table, sure = (values, sign) if fixed == 0 else (values.T, sign.T)
        for i, at in enumerate(lines):
            on = np.flatnonzero(np.abs(zeros[:, fixed] - at) <= _SAME * abs(at))
            for k, stretch in _stretches(table[i], sure[i], along, zeros[on, 1 - fixed]):
                found[on[k]] |= stretch
    return found


def _stretches(values: Floats, sure: NDArray[np.int8], along: Floats, places: Floats) -> list[tuple[int, bool]]:
    """Return for every place (n,) of a zero on a line of values (n_y,) whether it is told."""
    out = []
    for k, place in enumerate(places):
        j = int(np.clip(np.searchsorted(along, place), 1, len(along) - 1))
        before, after = np.flatnonzero(sure[:j]), np.flatnonzero(sure[j:]) + j
        good = bool(len(before) and len(after)) and not values[j - 1] * values[j] > 0
        if good:
            low, high = before[-1], after[0]
            others = (places >= along[low]) & (places <= along[high]) & (np.abs(places - place) > _SAME * abs(place))
            good = bool(sure[low] != sure[high] and not others.any())
        out.append((k, good))
    return out


def between(line: Floats, points: Floats, keep: Flags) -> list[Floats]:
    """Return the parts of a polyline (m, 2) through some of the points (n, 2) between those not to `keep` (n,)."""
    keep = np.array([bool(keep[np.all(points == point, axis=1)].any()) for point in line])
    cut = np.flatnonzero(np.diff(keep.astype(int))) + 1
    return [part for part, kept in zip(np.split(line, cut), np.split(keep, cut), strict=True) if kept.any()]


def traced(points: Floats, x: Floats, y: Floats, logs: tuple[bool, bool], open_: Flags) -> list[Floats]:
    """Join points (n, 2) of a curve, each on a line of the grid x (n_x,), y (n_y,), to polylines.

    Two points are joined where they lie on the sides of one square of the grid, and nowhere else, so that branches stay
    apart; of four the nearest pairs. Squares where `open_` (n_x - 1, n_y - 1) is False join nothing.
    """
    if len(points) == 0:
        return []
    at = np.column_stack([np.log(points[:, i]) if logs[i] else points[:, i] for i in (0, 1)])
    lines = [np.log(v) if log else np.asarray(v, dtype=float) for v, log in zip((x, y), logs, strict=True)]
    at = (at - [v[0] for v in lines]) / [np.ptp(v) or 1.0 for v in lines]
    lines = [(v - v[0]) / (np.ptp(v) or 1.0) for v in lines]
    _, single = np.unique(np.round(at / _SAME), axis=0, return_index=True)  # a collapse often is a jump, too
    points, at = points[single], at[single]
    squares: dict[tuple[int, int], list[int]] = {}
    for k, place in enumerate(at):
        spans = [_touched(v, c) for v, c in zip(lines, place, strict=True)]
        for i in spans[0]:
            for j in spans[1]:
                squares.setdefault((i, j), []).append(k)
    links: set[tuple[int, int]] = set()
    for square, members in squares.items():
        if open_[square]:
            links |= _pairs(members, at)
    return [points[chain] for chain in _chains(len(points), links)]


def _touched(line: Floats, c: float) -> list[int]:
    """Return the intervals of a growing line (n,) that hold c, both where it is a value of the line."""
    tiny = 1e-9
    low = np.searchsorted(line, c - tiny, side="right") - 1
    high = np.searchsorted(line, c + tiny, side="left") - 1
    near = np.flatnonzero(np.abs(line - c) <= tiny)
    found = {int(low), int(high)} if not near.size else {int(near[0]) - 1, int(near[0])}
    return [i for i in sorted(found) if 0 <= i < len(line) - 1]


def _pairs(members: Sequence[int], at: Floats) -> set[tuple[int, int]]:
    """Return pairs of the points of one square, nearest first, each point in one pair."""
    left, found = list(members), set()
    while len(left) > 1:
        table = np.hypot(*(at[left][:, None] - at[left][None, :]).transpose(2, 0, 1))
        np.fill_diagonal(table, np.inf)
        one, other = sorted(np.unravel_index(int(np.argmin(table)), table.shape), reverse=True)
        a, b = left.pop(int(one)), left.pop(int(other))
        found.add((min(a, b), max(a, b)))
    return found


def _chains(count: int, links: set[tuple[int, int]]) -> list[list[int]]:
    """Return the points of each line in order; a point without a link is a line of its own."""
    ahead: dict[int, list[int]] = {k: [] for k in range(count)}
    for a, b in sorted(links):
        ahead[a].append(b)
        ahead[b].append(a)
    out, used = [], set()
    starts = sorted(range(count), key=lambda k: (len(ahead[k]) == 2, k))  # ends first, then what is left: rings
    for start in starts:
        if start in used:
            continue
        chain = [start]
        used.add(start)
        while True:
            free = [k for k in ahead[chain[-1]] if k not in used]
            if not free:
                break
            chain.append(free[0])
            used.add(free[0])
        if len(chain) > 2 and start in ahead[chain[-1]]:
            chain.append(start)
        out.append(chain)
    return out
