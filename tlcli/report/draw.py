"""From blocks of a table to panels of a figure: which axis is x, which colours, which are facets."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tlcli.arrays import Array, Floats, Indices, in_quadrature
from tlcli.options.axes import BEST, best_columns, has_ends
from tlcli.options.columns import BASELINES, errors_of, judged
from tlcli.report.curves import Curve, CurvePanel, Points, draw_curves, standing
from tlcli.report.drawing import Drawing
from tlcli.report.ends import Ends, ends_of, ends_of_best, ends_of_grids, mark_ends, placed, summarised
from tlcli.report.facets import fixed_text, heads_of, hue_of, pages
from tlcli.report.frame import uneven
from tlcli.report.kernels import Planned
from tlcli.report.maps import GAINS, MapPanel, draw_maps
from tlcli.report.plan import FigureSpec, plan_figure, quantities_of
from tlcli.report.style import marker_of
from tlcli.report.tables import Block


@dataclass(frozen=True, eq=False)
class Picture:
    """One figure that is not drawn yet: the name of its file, its panels, what they show, axes that hold 0 or inf."""

    stem: str
    panels: Sequence[MapPanel] | Sequence[CurvePanel]
    spec: FigureSpec
    places: Mapping[str, Ends]


def plan_panels(blocks: Sequence[Block], drawing: Drawing) -> list[Planned]:
    """Return the figures of all quantities and facets, at most twelve facets to a file, not yet drawn."""
    plans: list[Planned] = []
    for one in pictures(blocks, drawing):
        parts = pages(one.panels)
        plans += [
            (
                one.stem if len(parts) == 1 else f"{one.stem}-{number}",
                functools.partial(_page, part, one.spec, drawing, one.places),
            )
            for number, part in enumerate(parts, start=1)
        ]
    return plans


def pictures(blocks: Sequence[Block], drawing: Drawing) -> list[Picture]:
    """Return what there is to draw, a picture per quantity; none where no axis has several values."""
    names = quantities_of(blocks, drawing) or [None]
    stems = ["figure"] if len(names) == 1 else [f"figure-{name}" for name in names]
    found = [_of_quantity(blocks, drawing, name, stem) for name, stem in zip(names, stems, strict=True)]
    return [one for one in found if one is not None]


def _of_quantity(blocks: Sequence[Block], drawing: Drawing, quantity: str | None, stem: str) -> Picture | None:
    tables = shown = [summarised(block, quantity) for block in blocks]
    spec = plan_figure(shown, drawing, quantity)
    if spec is None:
        return None
    kinds = {judged(block.columns) for block in blocks if block.columns.keys() & {"loss", "error", "train_loss"}}
    kind = kinds.pop() if len(kinds) == 1 else "loss"
    subtitle = fixed_text(shown, drawing.told)
    spec = replace(_drawable(shown, spec, quantity), subtitle=subtitle, judged=kind)
    places = _places(shown, spec, drawing)
    shown_places = places.keys() - {spec.x, spec.y}
    spec = replace(
        spec,
        log_axes=_log_axes(shown, spec, drawing) | {name for name, ends in places.items() if ends.log},
        placed=bool(shown_places),
        held=_breaks(places.get(spec.x)),
        breaks=() if spec.kind == "map" else tuple(cut for name in shown_places for cut in places[name].cuts),
    )
    smooth = [_smooth(block, spec, drawing) for block in drawing.smooth] if drawing.smooth else [None] * len(shown)
    for name, ends in places.items():
        smooth = [None if block is None else placed(block, ends, name) for block in smooth]
        shown = [placed(block, ends, name) for block in shown]
    panels: list[Any] = []
    heads = heads_of(shown, spec.lines)
    for index, block in enumerate(shown):
        points = [_moved(one, spec, places) for one in drawing.boundaries[index]] if drawing.boundaries else []
        if spec.kind == "map":
            found: list[Any] = _map_panels(block, spec, points, places)
        else:
            found = _curve_panels(block, spec, points, smooth[index])
        panels += [replace(panel, table=tables[index], label=heads[index]) for panel in found]
    return Picture(stem, _told_apart(panels), spec, places)


def _told_apart(panels: Sequence[Any]) -> list[Any]:
    """Return the panels without the values that all of them have: the subtitle says those."""
    alike = {n for n, value in panels[0].fixed.items() if all(p.fixed.get(n) == value for p in panels)}
    return [replace(p, fixed={n: v for n, v in p.fixed.items() if n not in alike}) for p in panels]


def _smooth(fine: Block | None, spec: FigureSpec, drawing: Drawing) -> Block | None:
    """Return the block on a finer grid of x where it can stand for that of the table."""
    if fine is None or spec.kind == "map" or spec.quantity not in fine.columns:
        return None
    return None if fine.axes.get(spec.x) is None or spec.x != drawing.smooth_axis else fine


def _page(panels: Sequence[Any], spec: FigureSpec, drawing: Drawing, places: Mapping[str, Ends]) -> Figure:
    figure = (draw_maps if spec.kind == "map" else draw_curves)(panels, spec, drawing)
    for axis, (name, ends) in product(figure.axes, places.items()):
        if axis.get_label() != "<colorbar>":
            which = "x" if name == spec.x else "y"
            mark_ends(axis, ends, which, cells=spec.kind == "map", limits=drawing.limits.get(which))
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


def _places(blocks: Sequence[Block], spec: FigureSpec, drawing: Drawing) -> dict[str, Ends]:
    """Return how axes of the figure stand that hold infinity, or 0 beside a logarithmic grid."""
    places: dict[str, Ends | None] = {}
    for role, name in (("x", spec.x), ("y", spec.y)):
        if name is None:
            continue
        grids = [np.asarray(block.axes[name], dtype=float) for block in blocks]
        log = True if any(block.scales.get(name) == "log" for block in blocks) else None
        asked = drawing.logs.get(role, log)  # one scale for all cases
        places[name] = ends_of(np.concatenate(grids)) if has_ends(name) else ends_of_grids(grids, asked)
    searched = spec.quantity.removesuffix("_opt")
    if searched in BEST and spec.quantity.endswith("_opt") and spec.kind == "curves" and spec.x != searched:
        places[searched] = ends_of_best(blocks, searched)
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


def _column(block: Block, name: str, index: tuple[Any, ...], order: Sequence[str]) -> Array:
    """Return a facet of a column with its axes in the given order; theory is the same for all experiments."""
    left = [n for n, i in zip(block.axes, index, strict=True) if isinstance(i, slice)]
    array = block.full(name)[index]
    if "experiment" in left:
        array = np.take(array, 0, axis=left.index("experiment"))
        left.remove("experiment")
    return np.transpose(array, [left.index(n) for n in order])


def _rows(block: Block, index: tuple[Any, ...], order: Sequence[str], at: tuple[Any, ...] = ()) -> Indices:
    """Return the row of the table in which each value of a facet, or of its part `at`, stands, from 0 within its case.

    They are counted without numbering the whole table, which every curve would keep in memory.
    """
    steps = dict(zip(block.axes, np.cumprod([1, *block.shape[:0:-1]])[::-1].tolist(), strict=True))
    # Experiments that the index leaves open are no axis of a facet: the first one stands for all.
    whole = zip(block.axes, index, strict=True)
    rows: Any = sum(i * steps[name] for name, i in whole if not isinstance(i, slice))
    for name, part in zip(order, (*at, *(slice(None),) * (len(order) - len(at))), strict=True):
        rows = np.add.outer(rows, np.arange(len(block.axes[name]))[part] * steps[name])
    return rows


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
        signed = spec.quantity in GAINS
        error = _error_of(block, spec.quantity, index, order) if signed else None
        known = [points for points in boundary if error is None or any(name.endswith("_se") for name in points)]
        found = [_placeable(_inside(points, fixed, order), spec) for points in known]
        jumps = [_placeable(_inside(points, fixed, order, roots=False), spec) for points in boundary]
        optimum, searched = _optimum(block, spec, index, places)
        panels.append(
            MapPanel(
                x=np.asarray(block.axes[spec.x]),
                y=np.asarray(block.axes[spec.y]),
                values=np.asarray(_column(block, spec.quantity, index, order), dtype=float),
                rows=_rows(block, index, order),
                phase=_column(block, "phase", index, order) if signed and "phase" in block.columns else None,
                boundary=np.concatenate(found) if found and signed else np.empty((0, 2)),
                jumps=np.concatenate(jumps) if jumps and signed else np.empty((0, 2)),
                optimum=optimum,
                label=block.label,
                fixed=fixed,
                exact=_exact(boundary),
                searched=searched,
                error=error,
                breaks=(_breaks(places.get(spec.x)), _breaks(places.get(spec.y))),
            )
        )
    return panels


def _breaks(ends: Ends | None) -> tuple[float, ...]:
    return () if ends is None else tuple(at for at in (ends.zero, ends.infinity) if at is not None)


def _error_of(block: Block, quantity: str, index: tuple[Any, ...], order: Sequence[str]) -> Floats | None:
    """Return the standard error of a column, see `tlcli.options.columns.errors_of`; None where exact.

    Networks beside the theory see the same test points.
    """
    known = errors_of(quantity, block.columns, same_points=f"sim_{quantity}" in block.columns)
    parts = [np.asarray(_column(block, name, index, order), dtype=float) for name in known]
    return in_quadrature(parts) if parts else None


def _optimum(
    block: Block, spec: FigureSpec, index: tuple[Any, ...], places: Mapping[str, Ends]
) -> tuple[Floats | None, str]:
    """Return the best value of an axis of a map and the axis: 0 or infinity beyond it, NaN where nothing helps."""
    order = (spec.x, str(spec.y))
    searched = next((name for name in order if f"{name}_opt" in block.columns), "")
    if not searched or spec.quantity not in (*GAINS, "loss", "error"):
        return None, searched
    along = order.index(searched)

    def line(name: str, least: bool = False) -> Floats:
        column = np.asarray(_column(block, name, index, order), dtype=float)
        return column.min(axis=along) if least else np.take(column, 0, axis=along)

    best = line(f"{searched}_opt").copy()
    low, high = block.axes[searched].min(), block.axes[searched].max()
    at = places.get(searched)
    with np.errstate(invalid="ignore"):  # an end of a grid is a bound, not a place, unless it is 0 or infinity
        best[(best <= low) & (at is None or at.zero is None) | (best < low)] = 0.0
        best[(best >= high) & (at is None or at.infinity is None) | (best > high)] = np.inf
        least = next((name for name in ("loss_opt", "train_loss_opt") if name in block.columns), None)
        if least is not None and "baseline" in block.columns:
            baseline = line("baseline", least=True)
            best[~(line(least) < baseline - 1e-9 * np.abs(baseline))] = np.nan
    gain = spec.quantity if spec.quantity in GAINS else "gain"
    error = _error_of(block, gain, index, order) if gain in block.columns else None
    if error is not None:  # a best value whose cell is not told from zero is noise
        helps = np.moveaxis(np.asarray(_column(block, gain, index, order), dtype=float) > 2.0 * error, along, -1)
        axis = np.asarray(block.axes[searched], dtype=float)
        for i in np.flatnonzero(~np.isnan(best)):
            if not helps[i, _nearest(axis, best[i])]:
                best[i] = np.nan
    return best, searched


def _moved(points: Mapping[str, Any], spec: FigureSpec, places: Mapping[str, Ends]) -> Mapping[str, Any]:
    """Return boundary points with 0 and infinity at their places on the axes of the figure."""
    here = [name for name in places if name in points and name in (spec.x, spec.y)]
    return {**points, **{name: places[name].place(points[name]) for name in here}}


def _placeable(points: Floats, spec: FigureSpec) -> Floats:
    """Return the boundary points, (n, 2), that stand on the axes of a map."""
    keep = np.isfinite(points).all(axis=1)
    for column, name in enumerate((spec.x, spec.y)):
        if name in spec.log_axes:
            keep &= points[:, column] > 0
    return points[keep]


def _curve_panels(
    block: Block, spec: FigureSpec, boundary: Sequence[Mapping[str, Floats]], fine: Block | None
) -> list[CurvePanel]:
    lines = [name for name in spec.lines if name in block.axes]
    panels = []
    for index, fixed in _facets(block, (spec.x, *lines)):
        curves = []
        for choice in product(*(range(len(block.axes[name])) for name in lines)):
            values = {name: block.axes[name][i] for name, i in zip(lines, choice, strict=True)}
            hue = hue_of(block, spec.lines, values)
            curves.append(_curve(block, spec, index, lines, choice, hue, fine))
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
    fine: Block | None,
) -> Curve:
    order = (spec.x, *lines)
    at = (slice(None), *choice)
    own = _baseline_of(block, spec.quantity)
    baseline = None if own is None else _column(block, own, index, order)[at]
    x = np.asarray(block.axes[spec.x])
    points = []
    if f"sim_{spec.quantity}" in block.columns:
        names = list(block.axes)
        for variant, kind in enumerate(_experiments(block)):
            where = tuple(variant if n == "experiment" else i for n, i in zip(names, index, strict=True))
            mean, error = (_column(block, f"sim_{spec.quantity}{suffix}", where, order)[at] for suffix in ("", "_se"))
            points.append(Points(*kind, x, mean, error, _rows(block, where, order, at)))
    values = _column(block, spec.quantity, index, order)[at]

    def error_of(quantity: str) -> Floats | None:
        found = _error_of(block, quantity, index, order)
        return None if found is None else found[at]

    gain_error = error_of(spec.quantity if spec.quantity in GAINS else (own or "baseline").replace("baseline", "gain"))
    ranges = None
    best_of, *bounds = best_columns(spec.quantity.removesuffix("_opt"))
    if spec.quantity == best_of and bounds[0] in block.columns:
        pair = [_column(block, name, index, order)[at] for name in bounds]
        ranges = np.array(pair, dtype=float)
    return Curve(
        x,
        values,
        baseline,
        hue,
        points,
        _best(block, spec, index, order, at, gain_error),
        error_of(spec.quantity),
        ranges,
        None if own is None else error_of(own),
        gain_error,
        None if fine is None else _fine(fine, spec, _without_experiment(block, index), order, at),
        _rows(block, index, order, at),
    )


def _best(
    block: Block, spec: FigureSpec, index: tuple[Any, ...], order: Sequence[str], at: tuple[Any, ...], error: Any
) -> tuple[float, float] | None:
    """Return the best value of x on a curve of a loss or of its gain, and the curve's height there.

    None where none is sought, or nothing helps; `error` (n_x,) is that of the gain, None where exact.
    """
    of_gain = spec.quantity in ("gain", "relative_gain")
    loss = judged(block.columns) if of_gain else spec.quantity
    if not {f"{spec.x}_opt", f"{loss}_opt"} <= block.columns.keys():
        return None
    value, least = (float(_column(block, f"{name}_opt", index, order)[at][0]) for name in (spec.x, loss))
    own, x = _baseline_of(block, loss), np.asarray(block.axes[spec.x])
    baseline = None if own is None else _column(block, own, index, order)[at]
    if not _helps((value, least), x, baseline, error):
        return None
    if not of_gain:
        return value, least
    if baseline is None:
        return None
    fresh = float(baseline[_nearest(x, value)])
    return value, fresh - least if spec.quantity == "gain" else 1 - least / fresh


def _helps(best: tuple[float, float], x: Floats, baseline: Array | None, error: Floats | None) -> bool:
    """Whether the loss at the best value is below all baselines (n,) of its curve: else nothing there is a best.

    Where the gain is sampled, by more than two of its standard errors (n,) at the nearest of x (n,).
    """
    if baseline is None:
        return True
    value, loss = best
    least = float(np.min(baseline))
    if loss >= least - 1e-9 * abs(least):
        return False
    return error is None or not least - loss <= 2.0 * error[_nearest(x, value)]


def _nearest(x: Floats, value: float) -> int:
    """Return the position in x (n,) of the value next to one; next to 0 and infinity are the ends of the axis."""
    if not np.isfinite(value):
        return int(np.argmax(x))
    with np.errstate(divide="ignore"):
        lines = (np.log(x), np.log(value)) if value > 0 and np.all(x >= 0) else (x, value)
    return int(np.argmin(np.abs(lines[0] - lines[1])))


def _experiments(block: Block) -> list[tuple[str, str, str]]:
    """Return the name, the words and the marker of every experiment; widths of one of them have their own."""
    count = len(block.axes.get("experiment", (0,)))

    def said(name: str) -> list[str]:
        if name not in block.columns:
            return [""] * count
        full = block.full(name)
        return [str(full[i].ravel()[0] if "experiment" in block.axes else full.ravel()[0]) for i in range(count)]

    names, widths = said("experiment"), said("width")
    found = []
    for index, (name, width) in enumerate(zip(names, widths, strict=True)):
        words = f"{name}, $N$ = {width}" if names.count(name) > 1 and width else name
        found.append((name, words, marker_of(name, names[:index].count(name))))
    return found


def _without_experiment(block: Block, index: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(i for name, i in zip(block.axes, index, strict=True) if name != "experiment")


def _fine(
    block: Block, spec: FigureSpec, index: tuple[Any, ...], order: Sequence[str], at: tuple[Any, ...]
) -> tuple[Floats, Floats, Floats | None]:
    """Return x, values and baseline of a curve on a finer grid of x, which alone differs from the table's."""
    names = [name for name in (spec.quantity, _baseline_of(block, spec.quantity)) if name is not None]
    lines = [np.asarray(_column(block, name, index, order)[at], dtype=float) for name in names]
    return np.asarray(block.axes[spec.x]), lines[0], lines[1] if len(lines) > 1 else None


def _baseline_of(block: Block, quantity: str) -> str | None:
    """Return the column of this quantity without pre-training, if any; theories of one loss call it baseline."""
    own = BASELINES.get(quantity, "baseline")
    if own != "baseline" and own in block.columns:
        return own
    return "baseline" if "baseline" in block.columns and quantity == judged(block.columns) else None


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
        along, _, baseline = curve.drawn
        if spec.quantity not in GAINS and baseline is not None:
            keep = standing(along, log=False)
            found.append(np.column_stack([x, np.interp(x, along[keep], baseline[keep])]))
        elif spec.quantity in GAINS:
            found.append(np.column_stack([x, np.zeros_like(x)]))
    return np.concatenate(found)
