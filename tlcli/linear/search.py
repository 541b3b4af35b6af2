"""Searches over one parameter for many rows at once: the best richness, and the boundaries between phases.

Both take a callable f(x, rows) that is vectorised: `rows` is an integer array of row numbers, `x`
broadcasts with it, and the value has their broadcast shape. Rows that are done are no longer evaluated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tlcli.arrays import Flags, Floats, Indices

RowFunction = Callable[[Floats, Indices], Floats]


@dataclass(frozen=True)
class Boundaries:
    """All sign changes, ordered by row and then by x; every field has shape (n_roots,)."""

    row: Indices
    x: Floats
    rising: Flags  # the function goes from negative to positive with growing x
    converged: Flags


def optimal_gamma0(
    loss_of_gamma0: RowFunction,
    shape: int | tuple[int, ...],
    *,
    lowest: float = 1e-3,
    highest: float = 1e3,
    n_grid: int = 61,
    tolerance: float = 1e-13,
) -> tuple[Floats, Floats]:
    """Richness in [0, inf] that minimises the loss of each row, and that loss; both of the given shape.

    A log grid from `lowest` to `highest` with 0 and inf as end points brackets the global minimum,
    Chandrupatla's method refines it. An end point is returned exactly when it is as good as any interior
    one (to `tolerance`, relative to the largest loss); a loss that does not depend on gamma0 gives 0. NaN
    losses are never chosen. Flat row numbers (C order) are passed to `loss_of_gamma0`.
    """
    n_rows = int(np.prod(shape, dtype=int))
    rows = np.arange(n_rows)
    inner = np.geomspace(lowest, highest, n_grid)
    grid = np.concatenate(([0.0], inner, [np.inf]))
    values = np.asarray(loss_of_gamma0(grid[None, :], rows[:, None]), dtype=float)
    values = np.array(np.broadcast_to(values, (n_rows, grid.size)))
    values[np.isnan(values)] = np.inf
    finite = np.where(np.isfinite(values), np.abs(values), 0.0)
    slack = tolerance * np.maximum(finite.max(axis=1, initial=0.0), np.finfo(float).tiny)

    best = values.argmin(axis=1)
    optimum, loss = grid[best], values[rows, best]
    refine = np.flatnonzero((best > 0) & (best < grid.size - 1))
    if refine.size:
        # Beyond the first and last interior points the bracket reaches three decades further.
        logs = np.log(np.concatenate(([lowest * 1e-3], inner, [highest * 1e3])))
        bracket = tuple(logs[best[refine] + shift] for shift in (-1, 0, 1))

        def along(log_gamma: Floats, rows: Indices) -> Floats:
            return np.asarray(loss_of_gamma0(np.exp(log_gamma), rows.astype(np.intp)), dtype=float)

        from scipy.optimize import elementwise  # a part of SciPy that costs as much as all else

        found = elementwise.find_minimum(along, bracket, args=(refine,))
        better = found.success & (found.f_x <= loss[refine])
        optimum[refine] = np.where(better, np.exp(found.x), optimum[refine])
        loss[refine] = np.where(better, found.f_x, loss[refine])
    for end in (-1, 0):  # 0 last: it wins a tie
        as_good = values[:, end] <= loss + slack
        optimum, loss = np.where(as_good, grid[end], optimum), np.where(as_good, values[:, end], loss)
    return optimum.reshape(shape), loss.reshape(shape)


def optimal_at_points(
    value: Callable[..., Floats], arguments: Sequence[ArrayLike], **search: Any
) -> tuple[Floats, Floats]:
    """Minimise value(x, *arguments) over x in [0, inf] at every point of arguments that broadcast; equal points once.

    Returns the best x and the least value, of the broadcast shape; `search` as `optimal_gamma0`.
    """
    arrays = np.broadcast_arrays(*(np.asarray(each, dtype=float) for each in arguments))
    table = np.stack([each.ravel() for each in arrays], axis=1)
    points, back = np.unique(table, axis=0, return_inverse=True)
    found = optimal_gamma0(lambda x, rows: value(x, *np.moveaxis(points[rows], -1, 0)), len(points), **search)
    best, least = (each[back.ravel()].reshape(arrays[0].shape) for each in found)
    return best, least


def boundary_roots(
    gain_of_x: RowFunction, x_grid: ArrayLike, n_rows: int, *, log: bool = False, neutral: float = 1e-12
) -> Boundaries:
    """Every sign change of a function of x that the grid can see, each refined to 1e-12 relative.

    x_grid: sorted, finite, shape (n_x,); positive when `log`, which refines log x. Values of modulus up to
    `neutral` and NaN have no sign: a sign change may step over one such point (a root on the grid), while a
    stretch of them is a neutral region without a boundary of its own. A jump of the function counts as a
    sign change.

    Raises ValueError for a grid that is not sorted and finite.
    """
    x = np.asarray(x_grid, dtype=float)
    if x.ndim != 1 or not np.all(np.isfinite(x)) or np.any(np.diff(x) <= 0) or (log and np.any(x <= 0)):
        raise ValueError("x_grid must be one-dimensional, finite and increasing (and positive for log=True).")
    rows = np.arange(n_rows)
    values = np.broadcast_to(np.asarray(gain_of_x(x[None, :], rows[:, None]), dtype=float), (n_rows, x.size))
    sign = np.where(np.abs(values) > neutral, np.sign(values), 0.0)
    sign[np.isnan(values)] = 0.0
    starts, spans = [], []
    for span in (1, 2):
        change = sign[:, :-span] * sign[:, span:] < 0
        if span == 2:
            change &= sign[:, 1:-1] == 0
        found = np.argwhere(change)
        starts.append(found)
        spans.append(np.full(len(found), span))
    start, span = np.concatenate(starts), np.concatenate(spans)
    order = np.lexsort((start[:, 1], start[:, 0]))
    row, left, span = start[order, 0], start[order, 1], span[order]
    rising = sign[row, left] < 0
    if row.size == 0:
        return Boundaries(row, np.empty(0), rising, np.empty(0, dtype=bool))
    to, back = (np.log, np.exp) if log else (np.asarray, np.asarray)

    def gain(y: Floats, rows: Indices) -> Floats:
        return np.asarray(gain_of_x(np.asarray(back(y)), rows.astype(np.intp)), dtype=float)

    tolerances = {"xatol": 1e-13 if log else 0.0, "xrtol": 0.0 if log else 1e-13, "fatol": 0.0, "frtol": 0.0}
    bracket = (np.asarray(to(x[left])), np.asarray(to(x[left + span])))
    from scipy.optimize import elementwise  # a part of SciPy that costs as much as all else

    result = elementwise.find_root(gain, bracket, args=(row,), tolerances=tolerances)
    root = np.clip(np.asarray(back(result.x)), x[left], x[left + span])
    return Boundaries(row, root, rising, np.asarray(result.success))
