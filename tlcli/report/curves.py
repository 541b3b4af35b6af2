"""Curves against one parameter: theory as lines, baseline dashed, experiments with error bars."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from tlcli.arrays import Floats, Indices
from tlcli.options.axes import has_ends, stepped
from tlcli.options.columns import short_symbol
from tlcli.report.boundary import signs
from tlcli.report.drawing import Drawing
from tlcli.report.facets import shape
from tlcli.report.frame import frame_curves, mark_outside, outside_handle
from tlcli.report.plan import FigureSpec
from tlcli.report.style import (
    MANY,
    facet_grid,
    facet_title,
    finite_axis,
    head,
    hue_bar,
    legend_below,
    log_axis,
    named,
    outer_labels,
    palette,
)
from tlcli.report.tables import Block

Moved = tuple[list[Artist], float]  # artists, and by how many points
_ASIDE, _ASIDES = 3.0, 12.0  # points of paper between the bars of two lines, and of all lines together
_ALONE = {"loss": "after pre-training", "train_loss": "after pre-training"}  # the name of the only curve


@dataclass(frozen=True, eq=False)
class Points:
    """One experiment on one curve: mean and standard error at x, and rows of the table (all of shape (n,)).

    `words` and `marker` tell it, or its width where there are several, from the others.
    """

    experiment: str
    words: str
    marker: str
    x: Floats
    mean: Floats
    error: Floats
    rows: Indices


@dataclass(frozen=True, eq=False)
class Curve:
    """One line: values and baseline of shape (n_x,), experiments, the best richness and its loss.

    `error` (n_x,) is the standard error of sampled values, over draws of the data where there are several; `ranges`
    (2, n_x) are the lower and upper ends of values that have no standard error. `gain_error` is that of the gain, in
    which the noise that loss and baseline share has gone. `fine` are x, values and baseline of a smoother line, `rows`
    (n_x,) where the values stand in the table.
    """

    x: Floats
    values: Floats
    baseline: Floats | None
    hue: Mapping[str, Any]
    points: Sequence[Points] = ()
    best: tuple[float, float] | None = None
    error: Floats | None = None
    ranges: Floats | None = None
    baseline_error: Floats | None = None
    gain_error: Floats | None = None
    fine: tuple[Floats, Floats, Floats | None] | None = None
    rows: Indices | None = None

    @property
    def drawn(self) -> tuple[Floats, Floats, Floats | None]:
        """x, values and baseline of the line: on a finer grid where the theory is known there."""
        return self.fine or (self.x, self.values, self.baseline)


@dataclass(frozen=True, eq=False)
class CurvePanel:
    """One facet: its curves, the x where the gain changes sign, exact or interpolated, and the table it is of."""

    curves: Sequence[Curve]
    label: str | None
    fixed: Mapping[str, Any]
    crossings: Floats = field(default_factory=lambda: np.empty((0, 2)))
    exact: bool = True
    table: Block | None = None


def draw_curves(panels: Sequence[CurvePanel], spec: FigureSpec, drawing: Drawing) -> Figure:
    """Return one figure with a panel per facet; colours follow the line axis."""
    figure, axes = facet_grid(len(panels), 3.9, 3.1, shape(panels))
    log = spec.x in spec.log_axes
    colours = colours_of(panels, spec)
    moves = [_draw_panel(axis, panel, spec, colours, log) for panel, axis in zip(panels, axes, strict=True)]
    curves = [curve for panel in panels for curve in panel.curves]
    if not spec.placed:
        values = [curve.drawn[1] for curve in curves]
        frame_curves(axes, drawing, values, [part for one in curves for part in beside(one)])
    outside = [mark_outside(axis, drawing.limits.get("x")) for axis in axes]
    for axis, moved in zip(axes, moves, strict=True):  # on paper alone: frames and marks are where the data are
        for artists, aside in moved:
            _move(axis, artists, aside)
    if spec.quantity.endswith("gain"):
        for axis in axes:
            axis.axhline(0.0, color="0.5", lw=0.8)
    outer_labels(axes, spec.x, spec.value_label)
    if len(colours) > MANY:
        hue_bar(figure, axes, spec.lines[0], [dict(key)[spec.lines[0]] for key in colours], list(colours.values()))
    _legend(figure, axes, panels, spec, colours, log, outside=any(outside))
    head(figure, spec.title, spec.subtitle)
    return figure


def _draw_panel(axis: Axes, panel: CurvePanel, spec: FigureSpec, colours: Mapping[Any, Any], log: bool) -> list[Moved]:
    shared, asides, moves = shared_baseline(panel), _asides(panel.curves), list[Moved]()
    for index, curve in enumerate(panel.curves):
        # Ranges stand side by side: they often end at the same value.
        steps = 0.0 if curve.ranges is None else index - (len(panel.curves) - 1) / 2
        colour = colours[key_of(curve.hue, spec.lines)]
        artists = _draw_curve(axis, curve, spec, colour, log, steps, own=shared is None)
        moves += zip(artists, asides[index], strict=True)
    if shared is not None:
        _draw_baseline(axis, panel.curves[0], "black", log, {"lw": 1.4})
    points = panel.crossings if panel.exact else on_the_lines(panel, spec, log)
    if len(points):
        axis.plot(*points.T, ls="", marker="D", ms=4.5, mfc="white", mec="black", zorder=5)
    x = panel.curves[0].x
    if log:
        log_axis(axis.xaxis, x[finite_axis(x, log)])
    elif stepped(spec.x):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_title(facet_title(panel.label, panel.fixed))
    return moves


def _asides(curves: Sequence[Curve]) -> list[tuple[float, float]]:
    """Return by how many points each curve and its own baseline are moved: bars do not hide bars."""
    errors = [error for curve in curves for error in (curve.error, curve.baseline_error)]
    count = sum(error is not None for error in errors)
    step = min(_ASIDE, _ASIDES / count) if count > 1 else 0.0
    places = np.cumsum([0.0, *(step * (error is not None) for error in errors)])[:-1] - step * (count - 1) / 2
    moved = [float(place) if error is not None else 0.0 for place, error in zip(places, errors, strict=True)]
    return list(zip(moved[::2], moved[1::2], strict=True))


def _move(axis: Axes, artists: Sequence[Artist], aside: float) -> None:
    """Move artists to the right by some points of paper; the data that they show, and the frame, stay."""
    if aside:
        moved = ScaledTranslation(aside / 72, 0, axis.figure.dpi_scale_trans)
        for artist in artists:
            artist.set_transform(axis.transData + moved)


def _draw_curve(
    axis: Axes, curve: Curve, spec: FigureSpec, colour: Any, log: bool, steps: float, own: bool
) -> tuple[list[Artist], list[Artist]]:
    """Draw one line with its errors, its own baseline, its experiments and its best value.

    Returns line and errors of the curve, and of its baseline.
    """
    x, values, _ = curve.drawn
    line = standing(x, log)
    few = len(line) < 6 and not curve.points
    drawn = parted(_aside(x[line], steps, log), values[line], spec.breaks)
    artists: list[Artist] = [*axis.plot(*drawn, color=colour, marker="." if few or spec.breaks else "")]
    keep = standing(curve.x, log)
    at = _aside(curve.x[keep], steps, log)
    bars: dict[str, Any] = {"color": colour, "elinewidth": 1.0, "capsize": 2, "ls": ""}
    if curve.error is not None:
        error = np.nan_to_num(curve.error[keep])
        artists += axis.errorbar(curve.x[keep], curve.values[keep], yerr=error, **bars).get_children()
    if curve.ranges is not None:
        low, high = np.abs(curve.ranges[:, keep] - curve.values[keep])
        axis.errorbar(at, curve.values[keep], yerr=(low, high), alpha=0.6, **bars)
        axis.plot(at, curve.values[keep], color=colour, ls="", marker="o", ms=4)
    baseline = list[Artist]()
    if own and curve.baseline is not None:
        baseline = _draw_baseline(axis, curve, colour, log, {"lw": 1.0, "alpha": 0.8})
    for measured in curve.points:
        _draw_points(axis, measured, colour, log)
    mark = best_mark(curve, log, spec)
    if mark == "*" and curve.best is not None:
        artists += axis.plot(*curve.best, marker=mark, ms=10, color=colour, mec="white", zorder=6)
    elif mark and curve.best is not None:
        style = {"transform": axis.get_yaxis_transform(), "clip_on": False, "zorder": 6, "mec": "white"}
        axis.plot(0.0 if mark == "<" else 1.0, curve.best[1], marker=mark, ms=8, color=colour, **style)
    return artists, baseline


def _draw_baseline(axis: Axes, curve: Curve, colour: Any, log: bool, style: Mapping[str, Any]) -> list[Artist]:
    x, _, baseline = curve.drawn
    assert baseline is not None
    line = standing(x, log)
    artists: list[Artist] = [*axis.plot(x[line], baseline[line], color=colour, ls="--", **style)]
    if curve.baseline_error is not None and curve.baseline is not None:
        keep = standing(curve.x, log)
        error = np.nan_to_num(curve.baseline_error[keep])
        bars: dict[str, Any] = {"color": colour, "ls": "", "elinewidth": 0.8, "capsize": 1.5}
        artists += axis.errorbar(curve.x[keep], curve.baseline[keep], yerr=error, **bars).get_children()
    return artists


def best_mark(curve: Curve, log: bool, spec: FigureSpec) -> str | None:
    """Return a star where the best value stands on the axis, < or > where it lies to the left or right of it.

    The ends of a grid are no optimum, but 0 and infinity are where they have places. None: nothing is to be marked.
    """
    if curve.best is None or np.isnan(curve.best[0]) or not np.isfinite(curve.best[1]):
        return None
    shown = curve.x[standing(curve.x, log)]
    if not shown.size:
        return None
    if not has_ends(spec.x) and curve.best[0] in (shown[0], shown[-1]) and curve.best[0] not in spec.held:
        return None
    return "<" if curve.best[0] < shown[0] else ">" if curve.best[0] > shown[-1] else "*"


def parted(x: Floats, values: Floats, breaks: Sequence[float]) -> tuple[Floats, Floats]:
    """Return a line (n,) with NaN wherever its values step over a break of their axis: between places is no curve."""
    sides = np.searchsorted(np.sort(breaks), values)
    over = np.flatnonzero(np.diff(sides)) + 1
    return np.insert(x, over, np.nan), np.insert(values, over, np.nan)


def _aside(x: Floats, steps: float, log: bool) -> Floats:
    """Return places on the axis, (n,), moved by `steps` times 1.2 % of its drawn length."""
    line = np.log(x) if log else x
    moved = line + 0.012 * steps * float(np.ptp(line))
    return np.exp(moved) if log else moved


def standing(x: Floats, log: bool) -> Indices:
    """Return the positions that can stand on the axis, in growing order."""
    keep = np.flatnonzero(finite_axis(x, log))
    return keep[np.argsort(x[keep])]


def key_of(hue: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    """Return what the colour of a curve stands for."""
    return tuple((name, hue[name]) for name in names if name in hue)


def colours_of(panels: Sequence[CurvePanel], spec: FigureSpec) -> dict[Any, Any]:
    """Return a colour for every value of the line axis, the same in all panels; in growing order if these differ."""
    of_panels = [[key_of(curve.hue, spec.lines) for curve in panel.curves] for panel in panels]
    hues = list(dict.fromkeys(key for keys in of_panels for key in keys))
    if any(set(keys) != set(hues) for keys in of_panels):
        hues.sort(key=lambda key: (not key, [(isinstance(value, str), value) for _, value in key]))
    return dict(zip(hues, palette(len(hues)), strict=True))


def on_the_lines(panel: CurvePanel, spec: FigureSpec, log: bool) -> Floats:
    """Return where the drawn lines meet the baseline, (n, 2), straight on the drawn axis, as far as it is known.

    Between two points whose gains are not told from zero by two standard errors there is none, nor between the whole
    numbers of an axis that has no others.
    """
    found = []
    for curve in panel.curves if not stepped(spec.x) else ():
        if curve.baseline is None and spec.quantity not in ("gain", "relative_gain"):
            continue
        keep = standing(curve.x, log)
        x, y = curve.x[keep], curve.values[keep]
        off = y if curve.baseline is None else (curve.values - curve.baseline)[keep]
        sign = signs(off, None if curve.gain_error is None else curve.gain_error[keep])
        x = np.log(x) if log else x
        for i in np.flatnonzero(sign[:-1] * sign[1:] < 0):
            part = off[i] / (off[i] - off[i + 1])
            at = x[i] + part * (x[i + 1] - x[i])
            found.append((math.exp(at) if log else at, y[i] + part * (y[i + 1] - y[i])))
    return np.array(found).reshape(-1, 2)


def shared_baseline(panel: CurvePanel) -> Floats | None:
    """Return the baseline if every curve of the panel has the same one."""
    baselines = [curve.baseline for curve in panel.curves]
    first = baselines[0] if baselines else None
    if first is None or any(b is None or not np.array_equal(b, first, equal_nan=True) for b in baselines):
        return None
    return first


def _draw_points(axis: Axes, points: Points, colour: Any, log: bool) -> None:
    keep = finite_axis(points.x, log) & np.isfinite(points.mean)
    style: dict[str, Any] = {"mfc": "white"} if points.experiment != "regression" else {}
    axis.errorbar(
        points.x[keep],
        points.mean[keep],
        yerr=points.error[keep],
        ls="",
        marker=points.marker,
        ms=4,
        color=colour,
        elinewidth=1.0,
        capsize=2,
        **style,
    )


def beside(curve: Curve) -> list[Floats]:
    """Return everything else that a curve draws: baseline, best value, ends of its error bars, experiments."""
    parts = [part for part in curve.drawn[1:] if part is not None]
    if curve.baseline is not None and curve.baseline_error is not None:
        error = np.nan_to_num(curve.baseline_error)
        parts += [curve.baseline + error, curve.baseline - error]
    if curve.best is not None:
        parts.append(np.array(curve.best[1]))
    if curve.ranges is not None:
        parts.append(curve.ranges)
    if curve.error is not None:
        parts += [curve.values + np.nan_to_num(curve.error), curve.values - np.nan_to_num(curve.error)]
    for points in curve.points:
        parts += [points.mean + np.nan_to_num(points.error), points.mean - np.nan_to_num(points.error)]
    return [np.asarray(part, dtype=float).ravel() for part in parts]


def _legend(
    figure: Figure,
    axes: Sequence[Axes],
    panels: Sequence[CurvePanel],
    spec: FigureSpec,
    colours: Mapping[Any, Any],
    log: bool,
    outside: bool,
) -> None:
    axis = axes[0]
    handles: list[Any] = []
    for key, colour in colours.items() if len(colours) <= MANY else ():
        text = ", ".join(named(n, v) for n, v in key) or _ALONE.get(spec.quantity, spec.value_label)
        handles += axis.plot([], [], label=text, color=colour)
    curves = [curve for panel in panels for curve in panel.curves]
    if any(curve.baseline is not None for curve in curves):
        handles += axis.plot([], [], color="black", ls="--", lw=1.4, label="no pre-training")
    exact = all(panel.exact for panel in panels)
    if any(len(panel.crossings if panel.exact else on_the_lines(panel, spec, log)) for panel in panels):
        how = "exact" if exact else "interpolated"
        handles += axis.plot([], [], ls="", marker="D", ms=4.5, mfc="white", mec="black", label=f"gain = 0 ({how})")
    marks: dict[str, list[float]] = {}
    for curve in curves:
        mark = best_mark(curve, log, spec)
        if mark and curve.best is not None:
            marks.setdefault(mark, []).append(curve.best[0])
    for mark in (one for one in "*<>" if one in marks):
        label = _best_label(mark, marks[mark], short_symbol(spec.x))
        handles += axis.plot([], [], ls="", marker=mark, ms=9 if mark == "*" else 8, color="0.3", label=label)
    for words, marker in dict.fromkeys((p.words, p.marker) for curve in curves for p in curve.points):
        handles += axis.plot([], [], ls="", marker=marker, ms=4, color="0.3", label=f"{words} (mean ± SE)")
    if outside:
        handles.append(outside_handle())
    legend_below(figure, handles)


def _best_label(mark: str, values: Sequence[float], symbol: str) -> str:
    """Return what the legend says of a mark of `best_mark` for these best values."""
    if mark == "*":
        return f"best {symbol}"
    edge, text = (0.0, "0") if mark == "<" else (math.inf, r"\infty")
    if set(values) == {edge}:
        return f"best {symbol[:-1]} = {text}$"
    return f"best {symbol} beyond the axis"
