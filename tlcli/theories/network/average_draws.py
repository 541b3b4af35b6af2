"""Averages over target samples joined over draws of the source: means, errors, and what is read off a whole grid.

All draws share pools and neurons, so that s.e.² = s.e.²(pools) + s.e.²(neurons) + s.e.²(source), and the places of
optima and of zeros of the gain vary with the source alone: their errors are jackknives over the draws. Both are widened
by a t-factor, as draws are few.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

from tlcli.arrays import Floats
from tlcli.averages.grid import error_of_mean
from tlcli.dmft.estimates import jackknife, small_sample
from tlcli.status import Status
from tlcli.theories.base import Case, Columns
from tlcli.theories.network.average_point import NAMES, PARTS, RIDGES
from tlcli.theories.search import BoundaryPoints

FEWEST = 3  # values of an axis among which an optimum is sought: a parabola needs as many


@dataclass(frozen=True, eq=False)
class Joined:
    """Columns of one kernel over its draws, (sizes, ridges, noises, times), and of every draw alone (n_draws, ...)."""

    columns: Columns = field(default_factory=dict)
    alone: Columns = field(default_factory=dict)


def joined(records: Sequence[Mapping[str, Any]], measures: Sequence[str], accuracy: float) -> Joined:
    """Return means over draws and their errors; nothing where a draw failed."""
    done = [record for record in records if record.get("status") != "failed"]
    if len(done) < len(records):
        return Joined()
    out, alone, count = dict[str, Any](), dict[str, Floats](), len(done)
    for name in (name for measure in measures for name in NAMES[measure]):
        alone[name] = np.array([record["columns"][name] for record in done], dtype=float)
        out[name] = alone[name].mean(axis=0)
        for part in PARTS:
            out[f"{name}_{part}_se"] = np.mean([record["columns"][f"{name}_{part}_se"] for record in done], axis=0)
        out[f"{name}_se"] = np.hypot(out[f"{name}_pool_se"], out[f"{name}_neuron_se"])
        if count > 1:
            out[f"{name}_source_se"] = small_sample(count) * error_of_mean(alone[name])
            out[f"{name}_draw_se"] = np.hypot(out[f"{name}_source_se"], out[f"{name}_se"])
    for name in RIDGES:
        if name in done[0]["columns"]:  # the median: it may be 0 or infinite
            every = np.sort([record["columns"][name] for record in done], axis=0)
            out[name] = every[(count - 1) // 2]
    shape = out["loss"].shape
    restless = any(record["status"] == "not_converged" for record in done)
    unsolved = restless | np.any([record["unsolved"] for record in done], axis=0)[..., None, None]
    direct = np.any([record["direct"] for record in done], axis=0)[:, None, None, None]
    out["direct"] = np.broadcast_to(direct, shape).astype(float)
    out["residual"] = _reached(out, float(np.mean([record["power"] for record in done])))
    status = np.where(out["residual"] > 1.25 * accuracy, Status.INACCURATE, Status.CONVERGED)
    out["status"] = np.where(unsolved, Status.NOT_CONVERGED, status).astype(np.int8)
    return Joined(out, alone)


def _reached(columns: Mapping[str, Floats], power: float) -> Floats:
    """Return the larger error of the two losses, in units of the labels' `power` or of a loss above it."""
    parts = [columns[f"{name}_se"] / np.maximum(power, np.abs(columns[name])) for name in ("loss", "baseline")]
    return np.maximum(*parts)


def best_of_grid(case: Case, columns: Columns, alone: Columns, names: tuple[str, str, str]) -> Columns:
    """Return the best richness and the best time to stop at, where these are axes of three values at least.

    Of the judged measure `names` (with, without pre-training, gain). Their axis has length one. Errors come with
    several draws.
    """
    out: Columns = {}
    for at, values, pairs in _searched(case, names):
        for name, where, what in pairs:
            place, least = _optimum(values, np.moveaxis(columns[name], at, 0))
            out[where], out[what] = np.expand_dims(place, at), np.expand_dims(least, at)
            each = np.moveaxis(alone[name], at + 1, 1)
            if len(each) > 1:
                moved = [_optimum(values, mean)[0] for mean in _left_out(each)]
                out[f"{where}_se"] = np.expand_dims(place * _jackknife(np.array(moved)), at)
    return out


def best_names(case: Case, names: tuple[str, str, str]) -> Columns:
    """Return the columns of `best_of_grid` as they are known before the work: names, shapes and no numbers (NaN)."""
    whole = (*case.grid.shape, *(len(values) for values in case.theory.inner.values()))
    several = int(case.words["draws"]) > 1
    out: Columns = {}
    for at, _, pairs in _searched(case, names):
        empty = np.full((*whole[:at], 1, *whole[at + 1 :]), np.nan)
        for _, where, what in pairs:
            out |= dict.fromkeys((where, what, *((f"{where}_se",) if several else ())), empty)
    return out


def _searched(case: Case, names: tuple[str, str, str]) -> list[tuple[int, Floats, tuple[tuple[str, str, str], ...]]]:
    """Return the position and the values of every axis that has a best value, and (measure, its place, the least)."""
    axes = [*case.grid.axes, *case.theory.inner]
    loss, baseline, _ = names
    out = []
    for axis, pairs in (
        ("gamma0", ((loss, "gamma0_opt", f"{loss}_opt"),)),
        ("time", ((loss, "best_time", f"{loss}_stopped"), (baseline, "baseline_best_time", f"{baseline}_stopped"))),
    ):
        values = _values(case, axis)
        if case.words.get(f"optimal_{axis}") is not False and values is not None and len(values) >= FEWEST:
            out.append((axes.index(axis), values, pairs))
    return out


def _values(case: Case, axis: str) -> Floats | None:
    if axis in case.grid.axes:
        return case.grid.values[axis].array
    return np.asarray(case.theory.inner[axis], dtype=float) if axis in case.theory.inner else None


def _left_out(each: Floats) -> Floats:
    """Return the means without every one of the draws (n_draws, ...)."""
    return (each.sum(axis=0) - each) / (len(each) - 1)


def _jackknife(places: Floats) -> Floats:
    """Return the relative error of a positive place from those without every one of the draws.

    NaN at the ends of the axis, which no draw moves.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        error = small_sample(len(places)) * jackknife(np.log(places))
    return np.where(np.isfinite(error) & (error > 0), error, np.nan)


def _optimum(values: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """Return the place of the least of losses (n, ...) at `values` (n,) of an axis, and the least.

    A parabola through the least and its neighbours, in the logarithm of the values; at the ends of the axis, and beside
    0 and infinity, it is the value itself. NaN where nothing is known.
    """
    order = np.argsort(values)
    values, losses = values[order], losses[order]
    known = np.where(np.isnan(losses), np.inf, losses)
    at = np.argmin(known, axis=0)
    line = np.log(np.where((values > 0) & np.isfinite(values), values, 1.0))
    inside = np.clip(at, 1, len(values) - 2)
    good = (at == inside) & (values[inside - 1] > 0) & np.isfinite(values[inside + 1])
    y0, y1, y2 = (np.take_along_axis(known, (inside + k)[None], axis=0)[0] for k in (-1, 0, 1))
    x0, x1, x2 = line[inside - 1], line[inside], line[inside + 1]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        low, high = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
        bend = (high - low) / (x2 - x0)
        place = (x0 + x1) / 2 - low / (2 * bend)
        least = y1 + (place - x1) * (low + bend * (place - x0))
    good &= np.isfinite(place) & (place >= x0) & (place <= x2)
    none = np.isinf(known).all(axis=0)
    place, least = np.where(good, np.exp(np.where(good, place, 0.0)), values[at]), np.where(good, least, y1)
    end = np.take_along_axis(known, at[None], axis=0)[0]
    return np.where(none, np.nan, place), np.where(none, np.nan, np.where(good, least, end))


def drawn_boundaries(case: Case, axis: str, gain: Floats, draws: Columns, name: str) -> BoundaryPoints | None:
    """Return the zeros of the gain along an axis, with their errors AXIS_se; None where there are none.

    Zeros of a monotone interpolant, in the logarithm of a positive axis. The error joins the jackknife over draws of
    the source with what these share, pools and neurons: their error of the gain over its slope.
    """
    values = case.grid.values[axis].array
    order = np.argsort(values)
    order = order[np.isfinite(values[order])]
    line = values[order]
    if len(line) < 2:
        return None
    log = line[0] > 0
    place = np.log(line) if log else line
    position = case.grid.axes.index(axis)
    whole = np.moveaxis(np.broadcast_to(gain, case.grid.shape), position, -1)[..., order]
    each = draws.get(name)
    alone = None if each is None or len(each) < 2 else _left_out(np.moveaxis(each, position + 1, -1)[..., order])
    parts = [np.moveaxis(draws[part], position, -1)[..., order] for part in _parts(name, draws)]
    shared = np.hypot(*parts) if len(parts) == 2 else np.zeros(whole.shape)
    others = [other for other in case.grid.axes if other != axis]
    found: dict[str, list[float]] = {other: [] for other in (*others, axis, f"{axis}_se")}
    for row in np.ndindex(whole.shape[:-1]):
        for x, slope in _zeros(place, whole[row]):
            error = float(np.interp(x, place, shared[row])) / abs(slope) if slope else np.nan
            if alone is not None:
                error = float(np.hypot(error, _moved(place, alone[(slice(None), *row)], x)))
            for other, index in zip(others, row, strict=True):
                found[other].append(float(case.grid.values[other].array[index]))
            found[axis].append(float(np.exp(x)) if log else x)
            found[f"{axis}_se"].append(error * (float(np.exp(x)) if log else 1.0))
    if not found[axis]:
        return None
    return BoundaryPoints(axis, {n: np.array(v) for n, v in found.items()}, np.full(len(found[axis]), "interpolated"))


def _parts(name: str, draws: Columns) -> list[str]:
    return [part for part in (f"{name}_{one}_se" for one in PARTS) if part in draws]


def _zeros(place: Floats, gain: Floats) -> list[tuple[float, float]]:
    """Return zeros of the monotone interpolant of a gain (n,), with its slope there; where the gain is nowhere zero."""
    good = np.isfinite(gain)
    if good.sum() < 2 or not (np.any(gain[good] > 0) and np.any(gain[good] < 0)):
        return []
    curve = PchipInterpolator(place[good], gain[good])
    roots = np.unique(curve.roots(discontinuity=False, extrapolate=False))
    return [(float(x), float(curve(x, 1))) for x in roots if np.isfinite(x)]


def _moved(place: Floats, alone: Floats, x: float) -> float:
    """Return the jackknife error of a zero at x from the nearest zeros without every draw; NaN where one has none."""
    nearest = []
    for gain in alone:
        roots = [root for root, _ in _zeros(place, gain)]
        if not roots:
            return float("nan")
        nearest.append(min(roots, key=lambda root: abs(root - x)))
    return float(small_sample(len(nearest)) * jackknife(np.array(nearest)))
