"""Heat maps over two parameters: the gain on a diverging map, its zero line, negative transfer hatched."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm, Normalize, SymLogNorm, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from numpy.typing import NDArray

from tlcli.arrays import Flags, Floats, Indices
from tlcli.options.axes import stepped
from tlcli.options.columns import label_of, short_symbol
from tlcli.report.boundary import between, sides, signs, told, traced
from tlcli.report.drawing import Drawing
from tlcli.report.facets import shape
from tlcli.report.plan import FigureSpec
from tlcli.report.style import (
    clipped,
    facet_grid,
    facet_title,
    finite_axis,
    head,
    legend_below,
    log_axis,
    number,
    outer_labels,
)
from tlcli.report.tables import Block
from tlcli.status import Phase

GAINS = ("gain", "relative_gain", "gain_error", "gain_calibrated")
SIGNED = (*GAINS, "forgetting")


_HATCHES = (
    (Phase.NEGATIVE, "//", "negative transfer"),
    (Phase.COLLAPSED, "....", "collapsed features"),
    (Phase.UNKNOWN, "xx", "no gain known"),
)
NEUTRAL = "#d9d9d9"
NEUTRAL_WORDS = "gain within two standard errors of zero"
_SLIGHT = 1e-9  # of the scale: rounding errors have no sign
BEST = "#E69F00"
_ARROWS = 8  # arrowheads along one edge


@dataclass(frozen=True, eq=False)
class MapPanel:
    """One facet: values, phase and standard error (n_x, n_y), boundary points (n, 2), best value of `searched`.

    `exact`: the boundary is made of roots, not interpolated on the grid. `breaks` are the values of x and of y that
    stand behind a break of their axis. `rows` (n_x, n_y) is where the values stand in `table`.
    """

    x: Floats
    y: Floats
    values: Floats
    phase: NDArray[np.int8] | None
    boundary: Floats
    jumps: Floats
    optimum: Floats | None
    label: str | None
    fixed: Mapping[str, Any]
    exact: bool = True
    searched: str = ""
    error: Floats | None = None
    breaks: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    rows: Indices | None = None
    table: Block | None = None


def draw_maps(panels: Sequence[MapPanel], spec: FigureSpec, drawing: Drawing) -> Figure:
    """Return one figure with a heat map per panel, all on one colour scale."""
    assert spec.y is not None
    figure, axes = facet_grid(len(panels), 3.5, 3.1, shape(panels))
    norm, cmap = colour_scale([panel.values for panel in panels], spec.quantity in SIGNED, spec.quantity not in GAINS)
    mesh, handles, frames = None, {}, list[tuple[float, ...]]()
    for panel, axis in zip(panels, axes, strict=True):
        mesh = _draw_panel(axis, panel, spec, norm, cmap, handles)
        frames.append((*axis.get_xlim(), *axis.get_ylim()))
    low, high = np.min(frames, axis=0), np.max(frames, axis=0)  # of cases whose grids differ: all share their axes
    for panel, axis in zip(panels, axes, strict=True):
        axis.set_xlim(*drawing.limits.get("x", (low[0], high[1])))
        axis.set_ylim(*drawing.limits.get("y", (low[2], high[3])))
        axis.set_title(facet_title(panel.label, panel.fixed))
    outer_labels(axes, spec.x, label_of(spec.y))
    if mesh is not None:
        _colour_bar(figure, axes, mesh, [panel.values for panel in panels], spec)
    legend_below(figure, list(handles.values()))
    head(figure, spec.title, spec.subtitle)
    return figure


@dataclass(frozen=True, eq=False)
class Cells:
    """What one panel shows: growing x (n_x,) and y (n_y,), edges of the cells, values, phase and neutral (n_x, n_y).

    `at` picks them from the arrays of the panel. `neutral` are gains within two standard errors of zero (None: these
    are exact), `lines` where the gain is zero, each with its points (n, 2), a key for the legend and its words.
    """

    x: Floats
    y: Floats
    edges: tuple[Floats, Floats]
    values: Floats
    at: Any
    phase: NDArray[np.int8] | None
    neutral: Flags | None = None
    lines: Sequence[tuple[Floats, str, str]] = ()


def cells_of(panel: MapPanel, spec: FigureSpec) -> Cells:
    """Return what stands on the axes, in growing order; of sampled gains only what their errors tell."""
    logs = (spec.x in spec.log_axes, spec.y in spec.log_axes)
    keep_x, keep_y = finite_axis(panel.x, logs[0]), finite_axis(panel.y, logs[1])
    x, y = panel.x[keep_x], panel.y[keep_y]
    x_order, y_order = np.argsort(x), np.argsort(y)
    x, y = x[x_order], y[y_order]
    at = np.ix_(np.flatnonzero(keep_x)[x_order], np.flatnonzero(keep_y)[y_order])
    edges = _cell_edges(x, logs[0]), _cell_edges(y, logs[1])
    cells = Cells(x, y, edges, panel.values[at], at, None if panel.phase is None else panel.phase[at])
    return _judged(cells, panel, spec) if spec.quantity in GAINS else cells


def _judged(cells: Cells, panel: MapPanel, spec: FigureSpec) -> Cells:
    """Add where the gain is not told from zero, and where it changes its sign."""
    phase, neutral = cells.phase, None
    error = None if panel.error is None else panel.error[cells.at]
    sign = signs(cells.values, error)
    if error is not None:
        neutral = (sign == 0) & np.isfinite(cells.values) & (phase != Phase.COLLAPSED)
        if phase is not None:  # that of the table may be of another gain
            signed = np.isin(phase, (Phase.NEGATIVE, Phase.NEUTRAL, Phase.POSITIVE)) & (error > 0)
            phase = np.where(signed, sign, phase)
    lines: list[tuple[Floats, str, str]] = []
    grid = (cells.x, cells.y)
    steps = stepped(spec.x) or stepped(spec.y)
    if steps or (error is not None and not len(panel.boundary)):
        lines = [(side, "zero", "gain changes sign between cells") for side in sides(sign, *cells.edges)]
        return replace(cells, phase=phase, neutral=neutral, lines=lines)
    closed = _closed(panel, grid)
    if phase is not None and not panel.exact:
        lost = phase == Phase.COLLAPSED
        closed |= lost[1:, 1:] | lost[1:, :-1] | lost[:-1, 1:] | lost[:-1, :-1]
    logs = (spec.x in spec.log_axes, spec.y in spec.log_axes)
    for points, key, words in (
        (panel.boundary, "zero", f"gain = 0 ({'exact' if panel.exact else 'interpolated'})"),
        (panel.jumps, "jumps", "gain jumps or features collapse"),
    ):
        found = traced(points, *grid, logs, ~closed)
        if error is not None:  # noise has zeros, too
            sure = told(points, cells.values, sign, *grid)
            found = [part for line in found for part in between(line, points, sure)]
        lines += [(line, key, words) for line in found]
    return replace(cells, phase=phase, neutral=neutral, lines=lines)


def _draw_panel(
    axis: Axes, panel: MapPanel, spec: FigureSpec, norm: Normalize, cmap: Any, handles: dict[str, Any]
) -> Any:
    """Draw cells, phases, boundaries and best values of one panel; add to `handles` what the legend has to explain."""
    logs = (spec.x in spec.log_axes, spec.y in spec.log_axes)
    cells = cells_of(panel, spec)
    x, y, edges = cells.x, cells.y, cells.edges
    shown = on_scale(cells.values, norm, spec.quantity)
    mesh = axis.pcolormesh(*edges, shown.T, norm=norm, cmap=cmap, shading="flat", rasterized=True)
    if spec.quantity in GAINS:
        _draw_zero(axis, cells, handles)
    if panel.optimum is not None:
        _draw_optimum(axis, panel, spec, handles)
    for line, log, numbers in ((axis.xaxis, logs[0], x), (axis.yaxis, logs[1], y)):
        if log:
            log_axis(line, numbers)
        elif set(numbers.tolist()) <= set(range(100)) and stepped(spec.x if line is axis.xaxis else spec.y):
            line.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlim(edges[0][0], edges[0][-1])
    axis.set_ylim(edges[1][0], edges[1][-1])
    return mesh


_LINES = {"zero": {"lw": 1.6}, "jumps": {"lw": 1.4, "ls": ":"}}


def _draw_zero(axis: Axes, cells: Cells, handles: dict[str, Any]) -> None:
    """Draw where the gain is zero, negative or unknown."""
    if cells.neutral is not None:
        _shade(axis, cells.edges, cells.neutral, handles)
    if cells.phase is not None:
        _cover(axis, cells.edges, cells.phase == Phase.COLLAPSED, "white")  # no colour beneath the dots
        _hatch(axis, cells.edges, cells.phase, handles)
    for line, key, words in cells.lines:
        axis.plot(*line.T, color="black", marker="." if len(line) == 1 else "", **_LINES[key])
        handles[key] = Line2D([], [], color="black", label=words, **_LINES[key])


def _closed(panel: MapPanel, grid: tuple[Floats, Floats]) -> Flags:
    """Return which squares between four points of the grid, (n_x - 1, n_y - 1), lie across a break of an axis."""
    parts = [np.isin(line, ends) for line, ends in zip(grid, panel.breaks, strict=True)]
    x, y = (part[1:] | part[:-1] for part in parts)
    return x[:, None] | y[None, :]


def _shade(axis: Axes, edges: Any, where: Flags, handles: dict[str, Any]) -> None:
    """Cover cells whose gain is not told from zero with a neutral grey."""
    if where.any():
        _cover(axis, edges, where, NEUTRAL)
        handles["neutral"] = Patch(facecolor=NEUTRAL, edgecolor="0.6", label=NEUTRAL_WORDS)


def _cover(axis: Axes, edges: Any, where: Flags, colour: str) -> None:
    """Hide the colours of some cells under another."""
    if where.any():
        cover = np.ma.masked_where(~where.T, np.ones(where.T.shape))
        axis.pcolormesh(*edges, cover, cmap=ListedColormap([colour]), shading="flat", rasterized=True)


def _colour_bar(figure: Figure, axes: Sequence[Axes], mesh: Any, values: Sequence[Floats], spec: FigureSpec) -> None:
    norm = mesh.norm
    label, extend = spec.value_label, clipped(values, norm)
    if _infinite(values, spec.quantity):
        label, extend = rf"{label} (arrow: $\infty$)", "both" if extend == "min" else "max"
    ticks: dict[str, Any] = {}
    if isinstance(norm, LogNorm) and norm.vmin and norm.vmax and norm.vmax <= 1000 * norm.vmin:
        ticks = {"ticks": LogLocator(subs=(1.0, 2.0, 5.0)), "format": FuncFormatter(lambda value, _: number(value))}
    bar = figure.colorbar(mesh, ax=axes, label=label, extend=extend, shrink=0.9, aspect=28, **ticks)
    if not isinstance(norm, (SymLogNorm, TwoSlopeNorm)) or norm.vmin is None or norm.vmax is None:
        return
    flat, slight = np.concatenate([v[np.isfinite(v)] for v in values]), _SLIGHT * norm.vmax
    low = 0.0 if flat.size and flat.min() >= -slight and extend in ("neither", "max") else norm.vmin
    high = 0.0 if low and flat.size and flat.max() <= slight and extend in ("neither", "min") else norm.vmax
    if isinstance(norm, SymLogNorm):
        # Decades near the linear part would be written over each other; where it ends, the bar has a line.
        decades = 10.0 ** np.arange(math.ceil(math.log10(5 * norm.linthresh)), math.floor(math.log10(norm.vmax)) + 1)
        bar.set_ticks([*-decades[::-1], 0.0, *decades])
        for at in (-norm.linthresh, norm.linthresh):
            bar.ax.axhline(at, color="black", lw=0.8, ls=":")
        bar.set_label(f"{label}\n(linear {'between the dotted lines' if low and high else 'up to the dotted line'})")
    bar.ax.set_ylim(low, high)  # half of the bar is enough for values of one sign


def colour_scale(values: Sequence[Floats], signed: bool, reverse: bool = False) -> tuple[Normalize, Any]:
    """Return norm and map: diverging and symmetric about zero for signed quantities, else sequential.

    The scale is linear, and covers all finite values but a peak of less than 2 % of them. It is logarithmic (for
    signed values: beyond the median modulus) where the largest value is more than 100 times the median modulus. One of
    positive values over no more than three decades is logarithmic, too, where three quarters of them would share a
    quarter of the colours and the largest is more than five times the least; zeros are then below it.
    """
    flat = np.concatenate([v.ravel() for v in values])
    flat = flat[np.isfinite(flat)] if np.isfinite(flat).any() else np.array([0.0, 1.0])
    size = np.abs(flat[flat != 0]) if (flat != 0).any() else np.array([1.0])
    middle, top = float(np.median(size)), float(size.max())
    wide = top > 100 * middle
    if signed:
        # Red is bad for the reader's purpose: a negative gain, or a positive forgetting.
        cmap = matplotlib.colormaps["RdBu_r" if reverse else "RdBu"].with_extremes(bad="0.8")
        if wide:
            return SymLogNorm(linthresh=middle, vmin=-top, vmax=top), cmap
        top = _without_peak(size)
        return TwoSlopeNorm(0.0, -top, top), cmap
    cmap = matplotlib.colormaps["viridis"].with_extremes(bad="0.8")
    low, least, high = float(flat.min()), float(size.min()), _without_peak(flat)
    quarter = least + 0.25 * (high - least)
    crowded = 5 * least < high < 1000 * least and float(np.quantile(flat[flat > 0], 0.75)) < quarter
    if (wide and low > 0) or (crowded and low >= 0):
        return LogNorm(least, top), cmap
    return Normalize(low, high if high > low else low + 1.0), cmap


def on_scale(values: Floats, norm: Normalize, quantity: str) -> Floats:
    """Return values as the mesh takes them: what is below or above its scale has a colour, only NaN has none."""
    assert norm.vmin is not None
    assert norm.vmax is not None
    if isinstance(norm, LogNorm):
        values = np.where(values <= 0, norm.vmin / 2, values)
    # An infinite best coupling is an answer; an infinite loss is none.
    return np.where(np.isposinf(values), 2 * norm.vmax, values) if _infinite([values], quantity) else values


def _infinite(values: Sequence[Floats], quantity: str) -> bool:
    """Whether there are best values that are infinite."""
    return quantity.endswith("_opt") and any(np.isposinf(v).any() for v in values)


def _without_peak(values: Floats) -> float:
    """Return the largest value, or that of all but one in fifty where it is twice as large: specks are clipped."""
    most, top = float(np.quantile(values, 0.98)), float(values.max())
    return most if top > 2 * most > 0 else top


def _hatch(axis: Axes, edges: Any, phase: NDArray[np.int8], handles: dict[str, Any]) -> None:
    """Hatch whole cells: with every edge given twice, contours have no room but the edges themselves."""
    x, y = (np.repeat(line, 2)[1:-1] for line in edges)
    for code, hatch, words in _HATCHES:
        where = (phase == code).repeat(2, axis=0).repeat(2, axis=1)
        if where.any():
            filled = axis.contourf(x, y, where.T.astype(float), levels=[0.5, 1.5], colors="none", hatches=[hatch])
            filled.set_edgecolor("0.25")
            filled.set_linewidth(0)
            handles[words] = Patch(facecolor="white", edgecolor="0.25", hatch=hatch, label=words)


def _draw_optimum(axis: Axes, panel: MapPanel, spec: FigureSpec, handles: dict[str, Any]) -> None:
    """Draw the best value of an axis as a line; where it is 0, infinite or beyond the axis, an arrow on that side."""
    assert panel.optimum is not None
    along_y = spec.y == panel.searched
    other, best = (panel.x if along_y else panel.y), np.asarray(panel.optimum, dtype=float)
    symbol = short_symbol(panel.searched)
    inside = np.where(np.isfinite(best) & (best > 0), best, np.nan)
    order = np.argsort(other)
    there = np.isfinite(inside[order])
    if there.any():
        pair = (other[order], inside[order]) if along_y else (inside[order], other[order])
        beside = np.concatenate([[False], there, [False]])
        lone = there & ~(beside[:-2] | beside[2:])  # no line joins it to another
        style = {
            "color": BEST,
            "lw": 1.8,
            "ls": "" if lone.sum() == there.sum() else "--",
            "marker": "." if lone.any() else "",
        }
        axis.plot(*pair, **style, markevery=np.flatnonzero(lone).tolist())
        handles["best"] = Line2D([], [], **style, label=f"best {symbol}")
    for beyond, at, marker in (
        (np.isposinf(best), 0.985, "^" if along_y else ">"),
        (best == 0, 0.015, "v" if along_y else "<"),
    ):
        where = np.sort(other[beyond])
        where = where[:: max(1, len(where) // _ARROWS)]
        if len(where):
            place = axis.get_xaxis_transform() if along_y else axis.get_yaxis_transform()
            pair = (where, np.full(len(where), at)) if along_y else (np.full(len(where), at), where)
            axis.plot(*pair, color=BEST, ls="", marker=marker, ms=5, mec="white", mew=0.5, transform=place)
            text = f"best {symbol} at or beyond the edge"
            handles["beyond"] = Line2D([], [], color=BEST, ls="", marker=marker, ms=5, label=text)


def _cell_edges(values: Floats, log: bool) -> Floats:
    """Return the edges (n + 1,) of cells around growing points (n,): half-way between them, as the axis shows it."""
    v = np.log(values) if log else np.asarray(values, dtype=float)
    if len(v) == 1:
        return values[0] * np.array([0.9, 1.1]) if values[0] else np.array([-0.5, 0.5])
    middle = 0.5 * (v[1:] + v[:-1])
    edges = np.concatenate([[2 * v[0] - middle[0]], middle, [2 * v[-1] - middle[-1]]])
    if not log and v[0] >= 0:
        edges[0] = max(edges[0], 0.0)  # nothing is below zero: neither samples nor richness
    return np.exp(edges) if log else edges
