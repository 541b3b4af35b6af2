"""From blocks of a table to panels of a figure: which axis is x, which colours, which are facets."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tlcli.options.columns import BASELINES
from tlcli.report.curves import Curve, CurvePanel, Points, draw_curves
from tlcli.report.drawing import Drawing
from tlcli.report.ends import DELTA, Ends, ends_of, ends_of_best, ends_of_grids, mark_ends, placed, summarised
from tlcli.report.frame import uneven
from tlcli.report.kernels import Planned
from tlcli.report.maps import GAINS, MapPanel, draw_maps
from tlcli.report.plan import FigureSpec, plan_figure, quantities_of
from tlcli.report.style import MAX_FACETS
from tlcli.report.tables import Block

Floats = NDArray[np.float64]


def plan_panels(blocks: Sequence[Block], drawing: Drawing) -> list[Planned]:
    """Return the figures of all quantities and facets, at most twelve facets to a file, not yet drawn."""
    names = quantities_of(blocks, drawing) or [None]
    plans: list[Planned] = []
    for quantity in names:
        stem = "figure" if len(names) == 1 else f"figure-{quantity}"
        plans += _of_quantity(blocks, drawing, quantity, stem)
    return plans


def _of_quantity(blocks: Sequence[Block], drawing: Drawing, quantity: str | None, stem: str) -> list[Planned]:
    shown = [summarised(block, quantity) for block in blocks]
    spec = plan_figure(shown, drawing, quantity)
    if spec is None:
        return []
    spec = _drawable(shown, spec, quantity)
    places = _places(shown, spec)
    spec = replace(spec, log_axes=_log_axes(shown, spec, drawing) | places.keys())
    for name, ends in places.items():
        shown = [placed(block, ends, name) for block in shown]
    panels: list[Any] = []
    for index, block in enumerate(shown):
        points = drawing.boundaries[index] if drawing.boundaries else []
        is_map = spec.kind == "map"
        panels += _map_panels(block, spec, points, places) if is_map else _curve_panels(block, spec, points)
    pages = [panels[i : i + MAX_FACETS] for i in range(0, len(panels), MAX_FACETS)]
    return [
        (stem if len(pages) == 1 else f"{stem}-{number}", partial(_page, part, spec, drawing, places))
        for number, part in enumerate(pages, start=1)
    ]


def _page(panels: Sequence[Any], spec: FigureSpec, drawing: Drawing, places: Mapping[str, Ends]) -> Figure:
    figure = (draw_maps if spec.kind == "map" else draw_curves)(panels, spec, drawing)
    for axis, (name, ends) in product(figure.axes, places.items()):
        if axis.get_label() != "<colorbar>":
            mark_ends(axis, ends, "x" if name == spec.x else "y", cells=spec.kind == "map")
    return figure


def _log_axes(blocks: Sequence[Block], spec: FigureSpec, drawing: Drawing) -> frozenset[str]:
    """Return the axes of the figure that are logarithmic: as asked for, else as their grids or values are spaced."""
    found = set(spec.log_axes)
    for role, name in (("x", spec.x), ("y", spec.y)):
        if name is None:
            continue
        asked = drawing.logs.get(role)
        if asked or (asked is None and all(uneven(block.axes[name]) for block in blocks)):
            found.add(name)
        if asked is False:
            found.discard(name)
    return frozenset(found)


def _places(blocks: Sequence[Block], spec: FigureSpec) -> dict[str, Ends]:
    """Return how axes of the figure stand that hold 0 or infinity beside a logarithmic grid."""
    places: dict[str, Ends | None] = {}
    for name in (spec.x, spec.y) if spec.y is not None else (spec.x,):
        grids = [np.asarray(block.axes[name], dtype=float) for block in blocks]
        places[name] = ends_of(np.concatenate(grids)) if name == DELTA else ends_of_grids(grids)
    if spec.x != DELTA and spec.kind == "curves" and spec.quantity == "delta_opt":
        places[DELTA] = ends_of_best(blocks)
    return {name: ends for name, ends in places.items() if ends is not None}


# Drawn instead of a default whose every value is unknown, as losses are without test labels.
_INSTEAD = ("train_loss", "target_overlap")


def _drawable(blocks: Sequence[Block], spec: FigureSpec, asked: str | None) -> FigureSpec:
    """Return the plan with another column where the default one has no finite value."""

    def known(name: str) -> bool:
        return all(name in b.columns for b in blocks) and any(np.isfinite(b.full(name)).any() for b in blocks)

    if asked or known(spec.quantity):
        return spec
    other = next((name for name in _INSTEAD if known(name)), spec.quantity)
    return replace(spec, quantity=other)


def _facets(block: Block, kept: Sequence[str]) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return (index into the block, fixed values) of every facet; experiments are not facets."""
    ranges = []
    for name, values in block.axes.items():
        ranges.append([slice(None)] if name in kept or name == "experiment" else range(len(values)))
    out = []
    for index in product(*ranges):
        fixed = {n: v[i] for (n, v), i in zip(block.axes.items(), index, strict=True) if not isinstance(i, slice)}
        out.append((index, fixed))
    return out


def _column(block: Block, name: str, index: tuple[Any, ...], order: Sequence[str]) -> NDArray[Any]:
    """Return a facet of a column with its axes in the given order; theory is the same for all experiments."""
    left = [n for n, i in zip(block.axes, index, strict=True) if isinstance(i, slice)]
    array = block.full(name)[index]
    if "experiment" in left:
        array = np.take(array, 0, axis=left.index("experiment"))
        left.remove("experiment")
    return np.transpose(array, [left.index(n) for n in order])


def _inside(points: Mapping[str, Any], fixed: Mapping[str, Any], names: Sequence[str], *, roots: bool = True) -> Floats:
    """Return the boundary points of one facet, (n, len(names)): roots of the gain, or its jumps and collapse."""
    keep = np.isin(points["kind"], ("root", "interpolated")) == roots
    for name, value in fixed.items():
        if name in points:
            keep &= points[name] == value
    return np.column_stack([points[name][keep] for name in names])


def _exact(boundary: Sequence[Mapping[str, Any]]) -> bool:
    """Whether boundary points are roots of the theory, not interpolated between points of the grid."""
    return not any(np.any(np.asarray(points["kind"]) == "interpolated") for points in boundary)


def _map_panels(
    block: Block, spec: FigureSpec, boundary: Sequence[Mapping[str, Floats]], places: Mapping[str, Ends]
) -> list[MapPanel]:
    assert spec.y is not None
    panels = []
    for index, fixed in _facets(block, (spec.x, spec.y)):
        order = (spec.x, spec.y)
        found = [_placeable(_inside(points, fixed, order), spec, places) for points in boundary]
        jumps = [_placeable(_inside(points, fixed, order, roots=False), spec, places) for points in boundary]
        optimum = None
        searched = next((name for name in order if f"{name}_opt" in block.columns), "gamma0")
        if f"{searched}_opt" in block.columns and searched in order and spec.quantity in (*GAINS, "loss", "error"):
            best = _column(block, f"{searched}_opt", index, order)
            optimum = np.array(best[:, 0] if spec.y == searched else best[0, :], dtype=float)
            if searched == DELTA:  # at an end of the grid it is a bound, not a place, unless the end is 0 or infinity
                ends, at = (block.axes[DELTA].min(), block.axes[DELTA].max()), places.get(DELTA)
                if at is None or at.zero is None:
                    optimum[optimum <= ends[0]] = 0.0
                if at is None or at.infinity is None:
                    optimum[optimum >= ends[1]] = np.inf
        signed = spec.quantity in GAINS
        panels.append(
            MapPanel(
                x=np.asarray(block.axes[spec.x]),
                y=np.asarray(block.axes[spec.y]),
                values=np.asarray(_column(block, spec.quantity, index, order), dtype=float),
                phase=_column(block, "phase", index, order) if signed and "phase" in block.columns else None,
                boundary=np.concatenate(found) if found and signed else np.empty((0, 2)),
                jumps=np.concatenate(jumps) if jumps and signed else np.empty((0, 2)),
                optimum=optimum,
                label=block.label,
                fixed=fixed,
                exact=_exact(boundary),
                searched=searched,
            )
        )
    return panels


def _placeable(points: Floats, spec: FigureSpec, places: Mapping[str, Ends]) -> Floats:
    """Return the boundary points, (n, 2), that stand on the axes of a map, with 0 and infinity at their places."""
    for name, ends in places.items():
        at = (spec.x, spec.y).index(name)
        points[:, at] = ends.place(points[:, at])
    keep = np.isfinite(points).all(axis=1)
    for column, name in enumerate((spec.x, spec.y)):
        if name in spec.log_axes:
            keep &= points[:, column] > 0
    return points[keep]


def _curve_panels(block: Block, spec: FigureSpec, boundary: Sequence[Mapping[str, Floats]]) -> list[CurvePanel]:
    lines = [name for name in spec.lines if name in block.axes]
    panels = []
    for index, fixed in _facets(block, (spec.x, *lines)):
        curves = []
        for choice in product(*(range(len(block.axes[name])) for name in lines)):
            hue = {name: block.axes[name][i] for name, i in zip(lines, choice, strict=True)}
            curves.append(_curve(block, spec, index, lines, choice, hue))
        crossings = [_crossing(block, spec, points, fixed, curves) for points in boundary]
        merged = np.concatenate(crossings) if crossings else np.empty((0, 2))
        panels.append(CurvePanel(curves, block.label, fixed, merged, _exact(boundary)))
    return panels


def _curve(
    block: Block,
    spec: FigureSpec,
    index: tuple[Any, ...],
    lines: Sequence[str],
    choice: tuple[int, ...],
    hue: Mapping[str, Any],
) -> Curve:
    order = (spec.x, *lines)
    at = (slice(None), *choice)
    baseline = None
    if _has_baseline(block, spec.quantity):
        own = BASELINES.get(spec.quantity, "baseline")
        baseline = _column(block, own if own in block.columns else "baseline", index, order)[at]
    x = np.asarray(block.axes[spec.x])
    best = None
    names = (f"{spec.x}_opt", f"{spec.quantity}_opt")
    if all(name in block.columns for name in names):
        pair = [float(_column(block, name, index, order)[at][0]) for name in names]
        best = (pair[0], pair[1])
    points = []
    if f"sim_{spec.quantity}" in block.columns:
        names = list(block.axes)
        many = "experiment" in names
        for variant in range(len(block.axes["experiment"]) if many else 1):
            where = tuple(variant if n == "experiment" else i for n, i in zip(names, index, strict=True))
            experiment = str(block.full("experiment")[where].ravel()[0])
            mean, error = (_column(block, f"sim_{spec.quantity}{suffix}", where, order)[at] for suffix in ("", "_se"))
            points.append(Points(experiment, x, mean, error))
    error = None
    for suffix in ("_draw_se", "_se"):
        if error is None and f"{spec.quantity}{suffix}" in block.columns:
            error = np.asarray(_column(block, f"{spec.quantity}{suffix}", index, order)[at], dtype=float)
    ranges = None
    if spec.quantity == "delta_opt" and "delta_low" in block.columns:
        pair = [_column(block, name, index, order)[at] for name in ("delta_low", "delta_high")]
        ranges = np.array(pair, dtype=float)
    return Curve(x, _column(block, spec.quantity, index, order)[at], baseline, hue, points, best, error, ranges)


def _has_baseline(block: Block, quantity: str) -> bool:
    """Whether there is a column of this quantity without pre-training; theories of one loss call it baseline."""
    if BASELINES.get(quantity, "baseline") != "baseline" and BASELINES[quantity] in block.columns:
        return True
    return "baseline" in block.columns and quantity == next(
        (name for name in ("loss", "error") if name in block.columns), "train_loss"
    )


def _crossing(
    block: Block,
    spec: FigureSpec,
    points: Mapping[str, Floats],
    fixed: Mapping[str, Any],
    curves: Sequence[Curve],
) -> Floats:
    """Return where the curves cross their baseline: exact x, and the curve's height there."""
    found = [np.empty((0, 2))]
    for curve in curves:
        x = _inside(points, {**fixed, **curve.hue}, (spec.x,))[:, 0]
        if spec.quantity not in GAINS and curve.baseline is not None:
            keep = np.isfinite(curve.x)
            found.append(np.column_stack([x, np.interp(x, curve.x[keep], curve.baseline[keep])]))
        elif spec.quantity in GAINS:
            found.append(np.column_stack([x, np.zeros_like(x)]))
    return np.concatenate(found)
