"""Parameters, theory and experiments joined into the blocks of a table."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tlcli.errors import TlcliError
from tlcli.options import OPTIONS
from tlcli.options.columns import BEST_TIME
from tlcli.report.tables import Block
from tlcli.run.solve import Measured
from tlcli.sweep.grids import Grid
from tlcli.theories.base import Case, Columns

# What tells whether an experiment can be trusted: the step of gradient descent, and whether chains are at rest.
_HEALTH = ("step_error", "drift", "acceptance")


def block_of(case: Case, found: Columns, measured: Measured | None = None) -> Block:
    """Join parameters, theory and experiments into one block of the table."""
    inner = case.theory.inner
    pad = (1,) * len(inner)
    axes = axes_of(case)
    columns: dict[str, Any] = {}
    opened = case.grid.open()
    for name in case.theory.parameters:
        if name in opened:
            columns[name] = opened[name].reshape(opened[name].shape + pad)
        elif case.words.get(name) is not None:
            columns[OPTIONS[name].column or name if name in OPTIONS else name] = case.words[name]
        elif name in OPTIONS and OPTIONS[name].follows:
            other = opened[OPTIONS[name].follows]
            columns[name] = other.reshape(other.shape + pad)
    for index, (name, values) in enumerate(inner.items()):
        if name in found or name == "record":  # records are told by their stage and time
            continue
        shape = [1] * (len(case.grid.axes) + len(inner))
        shape[len(case.grid.axes) + index] = len(values)
        columns[name] = np.asarray(values).reshape(shape)
    columns |= found
    if measured is not None:
        axes, columns = _with_experiments(case, axes, columns, measured)
    return Block(axes, columns, scales_of(case), case.label)


def axes_of(case: Case) -> dict[str, Any]:
    """Return the several-valued axes of a case with their values: those of the grid, then those of the theory."""
    return {name: case.grid.values[name].array for name in case.grid.axes} | dict(case.theory.inner)


def scales_of(case: Case) -> dict[str, str]:
    """Return how the axes of a case are spaced."""
    scales: dict[str, str] = {name: case.grid.values[name].scale for name in case.grid.axes}
    if "time" in case.theory.inner:
        scales["time"] = str(case.words.get("time_scale", "list"))
    return scales


def _with_experiments(
    case: Case,
    axes: dict[str, Any],
    columns: dict[str, Any],
    found: Measured,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Add a slowest axis of experiments, if there are several, and the measured columns."""
    inner = tuple(len(v) for v in case.theory.inner.values())
    variants = found.variants
    shape = (len(variants), *case.grid.shape)
    records = [record or {} for line in found.records for record in line]
    status = np.array([str(record.get("status", "ok")) for record in records]).reshape(shape + (1,) * len(inner))
    last = {name: columns.pop(name) for name in ("residual", "status") if name in columns}
    ones = (1,) * (len(case.grid.shape) + len(inner))
    for key in dict.fromkeys(key for variant in variants for key in variant):
        values = np.array([str(variant.get(key, "")) for variant in variants])
        columns[key] = values.reshape(len(variants), *ones)
    measured = [name for name in columns if any(f"{name}_se" in record for record in records)]
    measured += [BEST_TIME] if any(BEST_TIME in record for record in records) else []  # a time has no such error
    for name in measured:
        for suffix in ("", "_se")[: 1 if name == BEST_TIME else 2]:
            cells = [np.broadcast_to(record.get(f"{name}{suffix}", np.nan), inner) for record in records]
            columns[f"sim_{name}{suffix}"] = np.array(cells, dtype=float).reshape(shape + inner)
    for name in _HEALTH:  # one number beside every measured number of its point
        if any(name in record for record in records):
            values = [float(record.get(name, np.nan)) for record in records]
            columns[f"sim_{name}"] = np.array(values).reshape(shape + (1,) * len(inner))
    if (status != "ok").any():
        columns["sim_status"] = status
    columns |= last
    if len(variants) > 1:
        return {"experiment": np.arange(len(variants)), **axes}, columns
    # One experiment needs no axis of its own.
    width = len(axes)
    return axes, {name: column[0] if np.ndim(column) == width + 1 else column for name, column in columns.items()}


def edge_block(case: Case, points: Mapping[str, Any]) -> Block:
    """Return boundary points as a table of their own."""
    count = next(len(v) for v in points.values() if not isinstance(v, str))
    return Block({"point": np.arange(float(count))}, dict(points), {}, case.label)


_FINE = 300  # points of a smooth curve
_MOST = 300_000  # numbers in all curves of a figure, of the table and as many in between


def fine_block(case: Case, axis: str) -> Block | None:
    """Return a closed form on a finer grid of one axis, None where it is costly, or not known in between."""
    theory, grid = case.theory, case.grid
    if not theory.searchable or not (theory.cheap or theory.smooth) or theory.inner or theory.own:
        return None
    if axis not in grid.axes:
        return None
    values = grid.values[axis].array
    inside = values[np.isfinite(values)]
    rest = int(np.prod(grid.shape, dtype=int)) // len(values)
    if len(inside) < 3 or rest * max(_FINE, len(values)) > _MOST:
        return None
    positive = inside[inside > 0]
    scale = grid.values[axis].scale
    geometric = scale == "log" or (scale == "list" and positive.max(initial=0.0) > 10 * positive.min(initial=np.inf))
    ends = (positive.min(), positive.max()) if geometric else (inside.min(), inside.max())
    line = np.geomspace(*ends, _FINE) if geometric else np.linspace(*ends, _FINE)
    domain = OPTIONS[axis].domain if axis in OPTIONS else None
    fine = np.union1d(np.round(line) if domain is not None and domain.whole else line, values)
    finer = replace(case, grid=Grid({**grid.values, axis: replace(grid.values[axis], array=fine)}))
    try:
        return block_of(finer, theory.columns(finer))
    except TlcliError:  # between the points asked for the theory may have no answer
        return None
