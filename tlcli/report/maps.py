"""Heat maps over two parameters: the gain on a diverging map, its zero line, negative transfer hatched."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize, SymLogNorm, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator
from numpy.typing import NDArray

from tlcli.options.columns import label_of, short_symbol
from tlcli.report.drawing import Drawing
from tlcli.report.plan import FigureSpec
from tlcli.report.style import facet_grid, facet_title, finite_axis, legend_below, log_axis, outer_labels
from tlcli.status import Phase

GAINS = ("gain", "relative_gain", "gain_error", "gain_calibrated")
SIGNED = (*GAINS, "forgetting")


_ARROWS = 8  # arrowheads along one edge


@dataclass(frozen=True, eq=False)
class MapPanel:
    """One facet: values and phase (n_x, n_y), boundary points (n, 2), best value of the axis `searched`.

    `exact`: the boundary is made of roots, not interpolated on the grid.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    values: NDArray[np.float64]
    phase: NDArray[np.int8] | None
    boundary: NDArray[np.float64]
    jumps: NDArray[np.float64]
    optimum: NDArray[np.float64] | None
    label: str | None
    fixed: Mapping[str, Any]
    exact: bool = True
    searched: str = "gamma0"


def draw_maps(panels: Sequence[MapPanel], spec: FigureSpec, drawing: Drawing) -> Figure:
    """Return one figure with a heat map per panel, all on one colour scale."""
    assert spec.y is not None
    figure, axes = facet_grid(len(panels), 3.5, 3.1)
    norm, cmap = colour_scale([panel.values for panel in panels], spec.quantity in SIGNED, spec.quantity not in GAINS)
    mesh = None
    for panel, axis in zip(panels, axes, strict=True):
        keep_x = finite_axis(panel.x, spec.x in spec.log_axes)
        keep_y = finite_axis(panel.y, spec.y in spec.log_axes)
        x, y = panel.x[keep_x], panel.y[keep_y]
        x_order, y_order = np.argsort(x), np.argsort(y)
        x, y = x[x_order], y[y_order]
        cells = np.ix_(np.flatnonzero(keep_x)[x_order], np.flatnonzero(keep_y)[y_order])
        values = panel.values[cells]
        logs = (spec.x in spec.log_axes, spec.y in spec.log_axes)
        edges = _cell_edges(x, logs[0]), _cell_edges(y, logs[1])
        shown = _on_scale(values, norm, spec.quantity)
        mesh = axis.pcolormesh(*edges, shown.T, norm=norm, cmap=cmap, shading="flat", rasterized=True)
        if panel.phase is not None:
            _shade_phases(axis, x, y, panel.phase[cells], logs)
        for line in chains(panel.boundary, logs):
            axis.plot(line[:, 0], line[:, 1], color="black", lw=1.6, marker="." if len(line) == 1 else "")
        for line in chains(panel.jumps, logs):
            axis.plot(line[:, 0], line[:, 1], color="black", lw=1.4, ls=":")
        if panel.optimum is not None:
            _draw_optimum(axis, panel, spec)
        if logs[0]:
            log_axis(axis.xaxis, x)
        if logs[1]:
            log_axis(axis.yaxis, y)
        axis.set_xlim(*drawing.limits.get("x", _edges(x, logs[0])))
        axis.set_ylim(*drawing.limits.get("y", _edges(y, logs[1])))
        axis.set_title(facet_title(panel.label, panel.fixed))
    outer_labels(axes, spec.x, label_of(spec.y))
    if mesh is not None:
        extend = _extension([panel.values for panel in panels], norm)
        label = spec.value_label
        if _infinite([panel.values for panel in panels], spec.quantity):
            label, extend = rf"{label} (arrow: $\infty$)", "both" if extend == "min" else "max"
        ticks: dict[str, Any] = {}
        if isinstance(norm, LogNorm) and norm.vmin and norm.vmax and norm.vmax <= 1000 * norm.vmin:
            plain = FuncFormatter(lambda value, _: f"{value:g}")
            ticks = {"ticks": LogLocator(subs=(1.0, 2.0, 5.0)), "format": plain}
        bar = figure.colorbar(mesh, ax=axes, label=label, extend=extend, shrink=0.9, aspect=28, **ticks)
        if isinstance(norm, SymLogNorm) and norm.vmax is not None:
            # Decades near the linear part would be written over each other.
            decades = 10.0 ** np.arange(
                math.ceil(math.log10(5 * norm.linthresh)), math.floor(math.log10(norm.vmax)) + 1
            )
            bar.set_ticks([*-decades[::-1], 0.0, *decades])
    _legend(figure, panels)
    if spec.title:
        figure.suptitle(spec.title, wrap=True)
    return figure


def colour_scale(values: Sequence[NDArray[np.float64]], signed: bool, reverse: bool = False) -> tuple[Normalize, Any]:
    """Return norm and map: diverging and symmetric about zero for signed quantities, else sequential.

    The scale is linear, and covers all finite values but a peak of less than 0.5 % of them. It is logarithmic (for
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


def _on_scale(values: NDArray[np.float64], norm: Normalize, quantity: str) -> NDArray[np.float64]:
    """Return values as the mesh takes them: what is below or above its scale has a colour, only NaN has none."""
    assert norm.vmin is not None
    assert norm.vmax is not None
    if isinstance(norm, LogNorm):
        values = np.where(values <= 0, norm.vmin / 2, values)
    # An infinite best coupling is an answer; an infinite loss is none.
    return np.where(np.isposinf(values), 2 * norm.vmax, values) if _infinite([values], quantity) else values


def _infinite(values: Sequence[NDArray[np.float64]], quantity: str) -> bool:
    """Whether there are best values that are infinite."""
    return quantity.endswith("_opt") and any(np.isposinf(v).any() for v in values)


def _without_peak(values: NDArray[np.float64]) -> float:
    most, top = float(np.quantile(values, 0.995)), float(values.max())
    return most if top > 3 * most > 0 else top


def chains(points: NDArray[np.float64], logs: tuple[bool, bool]) -> list[NDArray[np.float64]]:
    """Order scattered points of a curve into polylines, each point joined to its nearest unused neighbour.

    A step longer than eight times the median step starts a new line; lines whose ends are nearer are then joined,
    since the walk may have entered a curve in its middle.
    """
    if len(points) == 0:
        return []
    scaled = np.column_stack([np.log(points[:, i]) if logs[i] else points[:, i] for i in (0, 1)])
    span = np.ptp(scaled, axis=0)
    scaled = scaled / np.where(span > 0, span, 1.0)
    unused = np.ones(len(points), dtype=bool)
    order: list[int] = []
    steps: list[float] = []
    here = int(np.argmin(scaled[:, 0]))
    while True:
        unused[here] = False
        order.append(here)
        if not unused.any():
            break
        distance = np.where(unused, np.hypot(*(scaled - scaled[here]).T), np.inf)
        here = int(np.argmin(distance))
        steps.append(float(distance[here]))
    if not steps:
        return [points]
    longest = max(8 * float(np.median(steps)), 0.02)
    pieces = np.split(np.array(order), np.flatnonzero(np.array(steps) > longest) + 1)
    return [points[piece] for piece in _joined(pieces, scaled, longest)]


def _joined(pieces: list[NDArray[np.intp]], at: NDArray[np.float64], longest: float) -> list[NDArray[np.intp]]:
    """Join lines, given as row numbers of `at` (n, 2), while two ends are at most `longest` apart, nearest first."""
    pieces = list(pieces)
    while len(pieces) > 1:
        ends = at[[(piece[0], piece[-1]) for piece in pieces]].reshape(-1, 2)
        distance = np.hypot(*(ends[:, None] - ends[None, :]).transpose(2, 0, 1))
        line = np.arange(len(ends)) // 2
        distance[line[:, None] == line] = np.inf
        one, other = np.unravel_index(int(np.argmin(distance)), distance.shape)
        if distance[one, other] > longest:
            break
        first, second = pieces[one // 2], pieces[other // 2]
        merged = np.concatenate([first if one % 2 else first[::-1], second[::-1] if other % 2 else second])
        pieces = [piece for index, piece in enumerate(pieces) if index not in (one // 2, other // 2)] + [merged]
    return pieces


def _shade_phases(
    axis: Axes, x: NDArray[np.float64], y: NDArray[np.float64], phase: NDArray[np.int8], logs: tuple[bool, bool]
) -> None:
    # Repeat the outermost cells at the panel's edges, so that the hatching reaches them.
    phase = np.pad(phase, 1, mode="edge")
    (left, right), (bottom, top) = _edges(x, logs[0]), _edges(y, logs[1])
    x, y = np.concatenate(([left], x, [right])), np.concatenate(([bottom], y, [top]))
    for code, hatch in ((Phase.NEGATIVE, "//"), (Phase.COLLAPSED, "...."), (Phase.UNKNOWN, "xx")):
        mask = phase == code
        if mask.any() and min(mask.shape) > 1:
            filled = axis.contourf(x, y, mask.T.astype(float), levels=[0.5, 1.5], colors="none", hatches=[hatch])
            filled.set_edgecolor("0.25")
            filled.set_linewidth(0)


def _draw_optimum(axis: Axes, panel: MapPanel, spec: FigureSpec) -> None:
    assert panel.optimum is not None
    along_y = spec.y == panel.searched
    other = panel.x if along_y else panel.y
    best = np.asarray(panel.optimum, dtype=float)
    best = np.where(np.isfinite(best) & (best > 0), best, np.nan)
    if np.all(np.isinf(panel.optimum)):
        style = {"boxstyle": "round", "fc": "white", "ec": "#E69F00"}
        sign = r"=\infty" if panel.searched == "gamma0" else rf"\geq{_largest(panel, along_y):g}"
        text = f"best {short_symbol(panel.searched)[:-1]}{sign}$"
        axis.text(0.97, 0.96, text, transform=axis.transAxes, ha="right", va="top", bbox=style)
        return
    order = np.argsort(other)
    pair = (other[order], best[order]) if along_y else (best[order], other[order])
    axis.plot(*pair, color="#E69F00", lw=1.8, ls="--", marker="." if np.isfinite(best).sum() < 3 else "")
    # Where the best value lies beyond an end of the axis, an arrowhead on that side says so.
    for beyond, at, marker in (
        (np.isposinf(panel.optimum) & (panel.searched == "delta"), 0.985, "^" if along_y else ">"),
        ((panel.optimum == 0) & (panel.searched == "delta"), 0.015, "v" if along_y else "<"),
    ):
        where = np.sort(other[beyond])
        where = where[:: max(1, len(where) // _ARROWS)]
        if len(where):
            place = axis.get_xaxis_transform() if along_y else axis.get_yaxis_transform()
            pair = (where, np.full(len(where), at)) if along_y else (np.full(len(where), at), where)
            axis.plot(*pair, color="#E69F00", ls="", marker=marker, ms=5, mec="white", mew=0.5, transform=place)


def _beyond(panel: MapPanel) -> bool:
    """Whether some of the best couplings, but not all, lie at an end of their axis or beyond it."""
    if panel.optimum is None or panel.searched != "delta" or np.all(np.isinf(panel.optimum)):
        return False
    return bool(np.any(np.isinf(panel.optimum) | (panel.optimum == 0)))


def _largest(panel: MapPanel, along_y: bool) -> float:
    """Return the largest finite value of the searched axis."""
    values = panel.y if along_y else panel.x
    return float(values[np.isfinite(values)].max())


def _edges(values: NDArray[np.float64], log: bool) -> tuple[float, float]:
    """Return axis limits half a cell beyond the outermost points."""
    cells = _cell_edges(values, log)
    return float(cells[0]), float(cells[-1])


def _cell_edges(values: NDArray[np.float64], log: bool) -> NDArray[np.float64]:
    """Return the edges (n + 1,) of cells around growing points (n,): half-way between them, as the axis shows it."""
    v = np.log(values) if log else np.asarray(values, dtype=float)
    if len(v) == 1:
        return values[0] * np.array([0.9, 1.1]) if values[0] else np.array([-0.5, 0.5])
    middle = 0.5 * (v[1:] + v[:-1])
    edges = np.concatenate([[2 * v[0] - middle[0]], middle, [2 * v[-1] - middle[-1]]])
    return np.exp(edges) if log else edges


def _extension(values: Sequence[NDArray[np.float64]], norm: Normalize) -> str:
    flat = np.concatenate([v.ravel() for v in values])
    flat = flat[np.isfinite(flat)]
    assert norm.vmin is not None
    assert norm.vmax is not None
    below, above = bool((flat < norm.vmin).any()), bool((flat > norm.vmax).any())
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[below, above]


def _legend(figure: Figure, panels: Sequence[MapPanel]) -> None:
    handles: list[Any] = []
    phases = [panel.phase for panel in panels if panel.phase is not None]
    if any((phase == Phase.NEGATIVE).any() for phase in phases):
        handles.append(Patch(facecolor="white", edgecolor="0.25", hatch="//", label="negative transfer"))
    if any((phase == Phase.COLLAPSED).any() for phase in phases):
        handles.append(Patch(facecolor="white", edgecolor="0.25", hatch="....", label="collapsed features"))
    if any((phase == Phase.UNKNOWN).any() for phase in phases):
        handles.append(Patch(facecolor="white", edgecolor="0.25", hatch="xx", label="no gain known"))
    if any(len(panel.boundary) for panel in panels):
        how = "exact" if all(panel.exact for panel in panels) else "interpolated"
        handles.append(Line2D([], [], color="black", lw=1.6, label=f"gain = 0 ({how})"))
    if any(len(panel.jumps) for panel in panels):
        handles.append(Line2D([], [], color="black", lw=1.4, ls=":", label="gain jumps or features collapse"))
    if any(panel.optimum is not None and np.any(np.isfinite(panel.optimum) & (panel.optimum > 0)) for panel in panels):
        handles.append(
            Line2D([], [], color="#E69F00", lw=1.8, ls="--", label=f"best {short_symbol(panels[0].searched)}")
        )
    if any(_beyond(panel) for panel in panels):
        text = f"best {short_symbol(panels[0].searched)} at or beyond the edge"
        handles.append(Line2D([], [], color="#E69F00", ls="", marker=">", ms=5, label=text))
    legend_below(figure, handles)
