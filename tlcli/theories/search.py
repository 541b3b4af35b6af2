"""Exact phase boundaries and the best richness on a case's grid: root finding, not contours of the table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tlcli.arrays import Flags, Floats, Indices
from tlcli.errors import UsageError
from tlcli.linear.search import boundary_roots, optimal_gamma0
from tlcli.options import OPTIONS
from tlcli.status import EXACT

if TYPE_CHECKING:
    from tlcli.theories.base import Case, Parameters


@dataclass(frozen=True, eq=False)
class BoundaryPoints:
    """Points of phase boundaries: axis name → (n_points,), all axes of the grid; `along` was refined.

    `kind` (n_points,) says root (gain = 0), jump (the gain changes sign without being zero), collapse (beyond it no
    feature survives pre-training) or interpolated (gain = 0 between two points of the grid).
    """

    along: str
    values: Mapping[str, Floats]
    kind: NDArray[np.str_]


class _Rows:
    """The theory as a function of one axis, with all other axes flattened to row numbers."""

    def __init__(self, case: "Case", axis: str) -> None:
        self.case = case
        self.theory: Any = case.theory
        self.axis = axis
        self.words = case.words
        opened = case.grid.open()
        others = [name for name in case.grid.axes if name != axis]
        self.shape = tuple(case.grid.values[name].size for name in others)
        index = case.grid.axes.index(axis) if axis in case.grid.axes else None
        self.flat: dict[str, Floats] = {}
        for name, array in opened.items():
            if name == axis:
                continue
            rest = array if index is None else np.squeeze(array, index)
            self.flat[name] = np.broadcast_to(rest, self.shape).ravel()
        self.scalars = {n: a[0] for n, a in self.flat.items() if case.grid.values[n].size == 1 and a.size}

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=int))

    def points(self, rows: Indices, x: Floats, kind: NDArray[np.str_]) -> BoundaryPoints:
        """Return the boundary points at positions x of the axis in the given rows."""
        others = {name: self.flat[name][rows] for name in self.case.grid.axes if name != self.axis}
        return BoundaryPoints(self.axis, {**others, self.axis: x}, kind)

    def column(self, name: str, x: Floats, rows: Indices) -> Floats:
        """Return the column at positions x of the axis in the given rows."""
        return self.evaluate(lambda p: self.theory.search(p)[name], x, rows)

    def evaluate(self, function: "Callable[[Parameters], Floats]", x: Floats, rows: Indices) -> Floats:
        """Return a function of the parameters at positions x of the axis in the given rows."""
        # Scalars stay scalars, so that factors which do not vary are computed once.
        at_rows = {n: np.asarray(self.scalars.get(n, a[rows])) for n, a in self.flat.items()}
        seen = np.where((x > 0) & (x < _TINY), _TINY, x)
        values = function({**self.words, **at_rows, self.axis: seen})
        return np.broadcast_to(values, np.broadcast_shapes(np.shape(x), np.shape(rows)))

    def sorted_gain(self, log: bool, gain: Floats) -> tuple[Floats, Floats] | None:
        """Return the gain (row, n) along the axis's finite values (n,) in growing order; None if they are too few."""
        values = self.case.grid.values[self.axis].array
        keep = np.isfinite(values) & (values > 0 if log else True)
        if keep.sum() < 2:
            return None
        position = self.case.grid.axes.index(self.axis)
        rows = np.moveaxis(np.broadcast_to(gain, self.case.grid.shape), position, -1).reshape(self.size, -1)
        order = np.argsort(values[keep])
        return rows[:, keep][:, order], values[keep][order]


def boundaries(case: "Case", axis: str, log: bool, gain: Floats) -> BoundaryPoints | None:
    """Refine every sign change of the gain along `axis`, and the collapse transition; None where there is none.

    `gain` is the column already computed, of the grid's shape: it brackets the roots without further work.
    """
    rows = _Rows(case, axis)
    found = rows.sorted_gain(log, gain)
    if found is None:
        return None
    known, line = found
    parts: list[tuple[Indices, Floats, NDArray[np.str_]]] = []
    with np.errstate(invalid="ignore"):
        changes = ((known > 0).any(axis=1) & (known < 0).any(axis=1)).any()
    if changes:
        served = False

        def gain_of_x(x: Floats, at: Indices) -> Floats:
            nonlocal served
            if not served:  # the first call asks for the grid itself
                served = True
                return known
            return rows.column("gain", x, at)

        found = boundary_roots(gain_of_x, line, rows.size, log=log)
        solved = np.isfinite(found.x)
        row, x = found.row[solved], found.x[solved]
        height = np.abs(rows.column("gain", x, row)) if x.size else x
        steep = height > _JUMP * np.nanmax(np.abs(known[np.isfinite(known)]))
        # A jump next to a point of the grid is at that point: it may differ from all others, as no richness does.
        near = line[np.abs(x[:, None] - line).argmin(axis=1)] if x.size else x
        x = np.where(steep & (np.abs(x - near) <= _ROUNDING * np.ptp(line)), near, x)
        parts.append((row, x, np.where(steep, "jump", "root")))
    if rows.theory.collapses:
        lost = boundary_roots(lambda x, at: rows.evaluate(rows.theory.margin, x, at), line, rows.size, log=log)
        parts.append((lost.row, lost.x, np.full(lost.x.size, "collapse")))
    row, x, kind = (np.concatenate(part) for part in zip(*parts, strict=True)) if parts else ((), (), ())
    if len(x) == 0:
        return None
    return rows.points(np.asarray(row, dtype=np.intp), np.asarray(x), np.asarray(kind))


def grid_boundaries(case: "Case", axis: str, log: bool, gain: Floats) -> BoundaryPoints | None:
    """Return where the gain of a costly solver changes sign along `axis`, None where it does not.

    Between two neighbouring finite points the gain is taken as linear in the axis (`log`: in its logarithm); nothing
    is computed again. `gain` is of the grid's shape.
    """
    rows = _Rows(case, axis)
    found = rows.sorted_gain(log, gain)
    if found is None:
        return None
    known, line = found
    at = np.log(line) if log else line
    with np.errstate(invalid="ignore"):
        row, left = np.nonzero((known[:, :-1] < 0) != (known[:, 1:] < 0))
    low, high = known[row, left], known[row, left + 1]
    good = np.isfinite(low) & np.isfinite(high)
    row, left, low, high = row[good], left[good], low[good], high[good]
    if row.size == 0:
        return None
    x = at[left] + (at[left + 1] - at[left]) * low / (low - high)
    return rows.points(row, np.exp(x) if log else x, np.full(x.size, "interpolated"))


def effect_ends(case: "Case", axis: str, inside: float, outside: float) -> Floats | None:
    """Return where the gain becomes zero along an axis between a value where it is not and one where it is.

    One number for each point of the other axes, NaN where both values have a gain or none, or one is not known. None of
    costly theories, and between values of which one is infinite.
    """
    if not (case.theory.searchable and case.theory.cheap) or not np.isfinite([inside, outside]).all():
        return None
    rows = _Rows(case, axis)
    every = np.arange(rows.size)

    def none(x: Floats) -> Flags:
        return np.abs(rows.column("gain", x, every)) <= EXACT

    near, far = (np.full(rows.size, float(x)) for x in (inside, outside))
    known = ~none(near) & none(far)
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        ended = none(middle)
        near, far = np.where(ended, near, middle), np.where(ended, middle, far)
    # A gain that fades is lost to rounding a little before it ends.
    far = np.where(np.abs(far - outside) <= _FADED * abs(outside - inside), outside, far)
    return np.where(known, far, np.nan).reshape(rows.shape)


_HALVINGS = 30
_FADED = 0.02  # of the step of the grid
_TINY = 1e-140  # nearer to 0, squares of a parameter are lost to rounding: its limit is as good
_JUMP = 1e-6  # a gain larger than this share of the largest at a sign change: no root, the gain jumps


def sought(on_map: bool, case: "Case", settings: Mapping[str, Any]) -> list[str]:
    """Return the parameters whose best value is sought; costly theories choose among the grid's themselves.

    One whose ends are values like any other is sought wherever it is an axis, and is then the only one of its theory;
    another on maps, where that costs next to nothing.

    Raises:
        UsageError: a best value is asked for that the theory does not have.
    """
    theory, found = case.theory, []
    curves = "curves" in str(settings.get("style")).split(",")
    quick = theory.cheap or (theory.smooth and not curves)
    first = next((name for name in theory.parameters if name in OPTIONS and OPTIONS[name].ends), None)
    for name in (name for name, option in OPTIONS.items() if option.best and name not in theory.chosen):
        wanted, flag, own = settings[f"optimal_{name}"], f"--optimal-{name}", OPTIONS[name].ends
        if wanted and own and name != first:
            raise UsageError(f"{flag}: {theory.name} has no {name}.")
        if wanted and not own and name not in case.grid.values:
            raise UsageError(f"{flag}: {theory.name} has no {name} here.")
        if wanted and not own and first:
            raise UsageError(f"{flag} is not for {theory.name}; it finds the best {first}, --optimal-{first}.")
        if wanted and not own and not theory.searchable:
            raise UsageError(
                f"{flag} searches over {name}, which {theory.name} is too costly for; leave it out and compare given "
                f"values, as {OPTIONS[name].flag} 0.1,1,10."
            )
        if not theory.searchable or (first or name) != name:
            continue
        unasked = own or (on_map and quick and not theory.own)
        if (unasked and name in case.grid.axes) if wanted is None else wanted:
            found.append(name)
    return found


_FLAT = 1e-9  # a column whose values along the axis differ by less than this share of them has no best one


def best_value(case: "Case", name: str, column: str) -> dict[str, Any]:
    """Return NAME_opt in [0, inf], the parameter of the least `column`, and COLUMN_opt, that; of length 1 along it.

    Where 0 and infinity are values like any other, NAME_opt is NaN where the column does not depend on the parameter
    (to 1e-9 of it): none is the best.
    """
    rows = _Rows(case, name)
    out = _best(rows, column)
    if not OPTIONS[name].ends:
        return out
    line = np.concatenate(([0.0], np.geomspace(1e-3, 1e3, 25), [np.inf]))
    values = rows.column(column, line[None, :], np.arange(rows.size)[:, None])
    least = out[f"{column}_opt"]
    highest = np.max(values, axis=1).reshape(least.shape)
    with np.errstate(invalid="ignore"):
        flat = highest - least <= _FLAT * np.abs(highest)
    return {**out, f"{name}_opt": np.where(flat, np.nan, out[f"{name}_opt"])}


def _best(rows: _Rows, column: str) -> dict[str, Any]:
    """Return AXIS_opt and COLUMN_opt as `best_value`, whatever the column's range."""
    name, axes = rows.axis, rows.case.grid
    low, high = _admissible(rows, column)
    # Outside the admissible values the loss is that of their end, so that an optimum near it has a bracket.

    def value(x: Floats, at: Indices) -> Floats:
        seen = np.clip(x, low[at], high[at])
        found = rows.column(column, seen, at)
        lost = np.isnan(found) & np.isinf(seen)  # constants that are infinite themselves: the limit
        return (
            np.where(lost, rows.column(column, np.where(np.isinf(seen), _HUGE, seen), at), found)
            if lost.any()
            else found
        )

    best, loss = optimal_gamma0(value, rows.size)
    best, loss = _never_worse(rows, column, np.clip(best, low, high), loss)
    shape = tuple(1 if axis == name else axes.values[axis].size for axis in axes.axes)
    return {f"{name}_opt": best.reshape(shape), f"{column}_opt": loss.reshape(shape)}


def _never_worse(rows: _Rows, column: str, best: Floats, loss: Floats) -> tuple[Floats, Floats]:
    """Compare with the parameter's own values in the grid: a search may miss an optimum, but never one that is known.

    The parameter is changed where a known value is better by more than rounding, the column wherever it is.
    """
    if rows.axis not in rows.case.grid.values:
        return best, loss
    line = rows.case.grid.values[rows.axis].array
    with np.errstate(invalid="ignore"):
        known = rows.column(column, line[None, :], np.arange(rows.size)[:, None])
        known = np.broadcast_to(np.where(np.isnan(known), np.inf, known), (rows.size, line.size))
        at = np.argmin(known, axis=1)
        least = known[np.arange(rows.size), at]
        better = least < loss - _ROUNDING * np.abs(loss)
    return np.where(better, line[at], best), np.fmin(loss, least)


_HUGE = 1e12  # stands for infinity where that has no value
_ROUNDING = 1e-12  # relative: two ways to the same optimum


def _admissible(rows: _Rows, column: str) -> tuple[Floats, Floats]:
    """Return the least and the largest parameter at which a relaxed solver has an answer, (n_rows,) each."""
    low, high = np.zeros(rows.size), np.full(rows.size, np.inf)
    if not rows.theory.partial:
        return low, high
    grid = np.concatenate(([0.0], np.geomspace(1e-3, 1e3, 61)))
    every = np.arange(rows.size)
    good = ~np.isnan(rows.column(column, grid[None, :], every[:, None]))
    first, last = good.argmax(axis=1), good.shape[1] - 1 - good[:, ::-1].argmax(axis=1)
    for ends, inner, step in ((low, first, -1), (high, last, 1)):
        cut = np.flatnonzero(good.any(axis=1) & (inner + step >= 0) & (inner + step < grid.size))
        inside, outside = grid[inner[cut]], grid[inner[cut] + step]
        for _ in range(60 if cut.size else 0):
            middle = (inside + outside) / 2
            holds = ~np.isnan(rows.column(column, middle, cut))
            inside, outside = np.where(holds, middle, inside), np.where(holds, outside, middle)
        ends[cut] = inside
    return low, high
