"""Curves against one parameter: theory as lines, baseline dashed, experiments with error bars."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tlcli.columns import short_symbol
from tlcli.report.plan import FigureSpec
from tlcli.report.style import (
    COLOURS,
    MARKERS,
    facet_grid,
    facet_title,
    finite_axis,
    log_axis,
    number,
    outer_labels,
)


@dataclass(frozen=True, eq=False)
class Points:
    """One experiment on one curve: mean and standard error at x (all of shape (n,))."""

    experiment: str
    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    error: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """One line: values and baseline of shape (n_x,), experiments, the best richness and its loss.

    `error` (n_x,) is the standard error of sampled values, over draws of the data where there are several; `ranges`
    (2, n_x) are the lower and upper ends of values that have no standard error.
    """

    x: NDArray[np.float64]
    values: NDArray[np.float64]
    baseline: NDArray[np.float64] | None
    hue: Mapping[str, Any]
    points: Sequence[Points] = ()
    best: tuple[float, float] | None = None
    error: NDArray[np.float64] | None = None
    ranges: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class CurvePanel:
    """One facet: its curves and the x where the gain changes sign, exact or interpolated."""

    curves: Sequence[Curve]
    label: str | None
    fixed: Mapping[str, Any]
    crossings: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    exact: bool = True


def draw_curves(panels: Sequence[CurvePanel], spec: FigureSpec) -> Figure:
    """Return one figure with a panel per facet; colours follow the line axis."""
    figure, axes = facet_grid(len(panels), 3.9, 3.1)
    log = spec.x in spec.log_axes or all(geometric(curve.x) for panel in panels for curve in panel.curves)
    colours = _colours(panels, spec)
    for panel, axis in zip(panels, axes, strict=True):
        shared = _shared_baseline(panel)
        for index, curve in enumerate(panel.curves):
            keep = _drawn(curve.x, log)
            colour = colours[_key(curve.hue, spec.lines)]
            axis.plot(
                curve.x[keep],
                curve.values[keep],
                color=colour,
                lw=1.8,
                marker="." if len(keep) < 6 else "",
            )
            if curve.error is not None:
                error, style = np.nan_to_num(curve.error[keep]), {"color": colour, "elinewidth": 1.0, "capsize": 2}
                axis.errorbar(curve.x[keep], curve.values[keep], yerr=error, ls="", **style)
            if curve.ranges is not None:
                low, high = np.abs(curve.ranges[:, keep] - curve.values[keep])
                style = {"color": colour, "elinewidth": 1.0, "capsize": 2, "alpha": 0.6}
                # Side by side: ranges often end at the same value.
                aside = 0.012 * (index - (len(panel.curves) - 1) / 2) * (0.0 if log else float(np.ptp(curve.x[keep])))
                axis.errorbar(curve.x[keep] + aside, curve.values[keep], yerr=(low, high), ls="", **style)
                axis.plot(curve.x[keep] + aside, curve.values[keep], color=colour, ls="", marker="o", ms=4)
            if curve.baseline is not None and shared is None:
                axis.plot(curve.x[keep], curve.baseline[keep], color=colour, ls="--", lw=1.0, alpha=0.8)
            for measured in curve.points:
                _draw_points(axis, measured, colour, log)
            if curve.best is not None and _shows_best(curve, keep, spec.x):
                axis.plot(*curve.best, marker="*", ms=10, color=colour, mec="white", zorder=6)
            elif curve.best is not None and spec.x == "delta" and np.isfinite(curve.best[1]):
                # The best coupling is 0 or infinite, or beyond the grid: on the edge of the axis on its side.
                low = curve.best[0] < curve.x[keep][0]
                style = {"transform": axis.get_yaxis_transform(), "clip_on": False, "zorder": 6, "mec": "white"}
                axis.plot(0.0 if low else 1.0, curve.best[1], marker="<" if low else ">", ms=8, color=colour, **style)
        if shared is not None:
            keep = _drawn(panel.curves[0].x, log)
            axis.plot(panel.curves[0].x[keep], shared[keep], color="black", ls="--", lw=1.4)
        if len(panel.crossings):
            points = panel.crossings if panel.exact else _on_the_lines(panel, log)
            axis.plot(*points.T, ls="", marker="D", ms=4.5, mfc="white", mec="black", zorder=5)
        if log:
            log_axis(axis.xaxis, panel.curves[0].x[finite_axis(panel.curves[0].x, log)])
        elif spec.x in ("stage", "task", "depth", "freeze", "reinit_from"):
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_title(facet_title(panel.label, panel.fixed))
    _limit_peaks(panels, axes)
    if spec.quantity.endswith("gain"):
        for axis in axes:
            axis.axhline(0.0, color="0.5", lw=0.8)
    outer_labels(axes, spec.x, spec.value_label)
    _legend(figure, axes, panels, spec, colours, log)
    if spec.title:
        figure.suptitle(spec.title)
    return figure


def _shows_best(curve: Curve, keep: NDArray[np.intp], x: str) -> bool:
    """Whether the best value stands on the axis: the ends of the range of gamma0 are no optimum, those of delta are."""
    assert curve.best is not None
    first, last = curve.x[keep][0], curve.x[keep][-1]
    return bool(first <= curve.best[0] <= last if x == "delta" else first < curve.best[0] < last)


def geometric(values: NDArray[np.float64]) -> bool:
    """Whether at least four values, (n,), rise by one and the same factor."""
    if len(values) < 4 or not np.all(np.isfinite(values)) or np.any(values <= 0):
        return False
    steps = np.diff(np.log(values))
    return bool(steps.min() > math.log(1.5) and np.ptp(steps) < 1e-6)


def _drawn(x: NDArray[np.float64], log: bool) -> NDArray[np.intp]:
    """Return the positions that can stand on the axis, in growing order."""
    keep = np.flatnonzero(finite_axis(x, log))
    return keep[np.argsort(x[keep])]


def _key(hue: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    return tuple((name, hue[name]) for name in names if name in hue)


def _colours(panels: Sequence[CurvePanel], spec: FigureSpec) -> dict[Any, Any]:
    """Return a colour for every value of the line axis, the same in all panels."""
    hues = list(dict.fromkeys(_key(curve.hue, spec.lines) for panel in panels for curve in panel.curves))
    if len(hues) <= 5:
        return dict(zip(hues, COLOURS, strict=False))
    # Many ordered values read better on an ordered map.
    return dict(zip(hues, plt.get_cmap("viridis")(np.linspace(0.0, 0.88, len(hues))), strict=True))


def _on_the_lines(panel: CurvePanel, log: bool) -> NDArray[np.float64]:
    """Return interpolated crossings, (n, 2), where the drawn lines meet the baseline: straight on the drawn axis.

    The boundary's own points are interpolated on the scale of the grid, which the axis need not have.
    """
    found = []
    for curve in panel.curves:
        if curve.baseline is None:
            return panel.crossings
        keep = _drawn(curve.x, log)
        x, y, off = curve.x[keep], curve.values[keep], (curve.values - curve.baseline)[keep]
        x = np.log(x) if log else x
        for i in np.flatnonzero(off[:-1] * off[1:] < 0):
            part = off[i] / (off[i] - off[i + 1])
            at = x[i] + part * (x[i + 1] - x[i])
            found.append((math.exp(at) if log else at, y[i] + part * (y[i + 1] - y[i])))
    return np.array(found).reshape(-1, 2)


def _shared_baseline(panel: CurvePanel) -> NDArray[np.float64] | None:
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
        marker=MARKERS.get(points.experiment, "x"),
        ms=4,
        color=colour,
        elinewidth=1.0,
        capsize=2,
        **style,
    )


def _limit_peaks(panels: Sequence[CurvePanel], axes: Sequence[Axes]) -> None:
    """Keep an interpolation peak from flattening everything else: cut far above the upper quartile."""
    curves = [curve for panel in panels for curve in panel.curves]
    values = np.concatenate([curve.values.ravel() for curve in curves])
    values = values[np.isfinite(values)]
    if not values.size or values.min() < 0:
        return
    quartile = float(np.quantile(values, 0.75))
    if values.max() > 6 * quartile > 0:
        axes[0].set_ylim(0, 2.5 * quartile)
        return
    shown = np.concatenate([values, *(part for curve in curves for part in _beside(curve))])
    shown = shown[np.isfinite(shown)]
    # Zero is on the axis, unless everything lies in a narrow band far from it.
    if np.ptp(shown) < _BAND * shown.max():
        room = 0.08 * float(np.ptp(shown)) or 0.05 * float(shown.max()) or 1.0
        axes[0].set_ylim(shown.min() - room, shown.max() + room)
    else:
        axes[0].set_ylim(0, 1.05 * float(shown.max()))


_BAND = 0.2


def _beside(curve: Curve) -> list[NDArray[np.float64]]:
    """Return everything else that a curve draws: baseline, ends of its error bars, experiments with theirs."""
    parts = [] if curve.baseline is None else [curve.baseline]
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
) -> None:
    axis = axes[0]
    handles: list[Any] = []
    for key, colour in colours.items():
        if not key:  # of a case in which the line axis has one value
            continue
        text = ", ".join(f"{short_symbol(n)} = {number(v)}" for n, v in key)
        handles += axis.plot([], [], lw=1.8, label=text, color=colour)
    curves = [curve for panel in panels for curve in panel.curves]
    if any(curve.baseline is not None for curve in curves):
        handles += axis.plot([], [], color="black", ls="--", lw=1.4, label="no pre-training")
    if any(len(panel.crossings) for panel in panels):
        how = "exact" if all(panel.exact for panel in panels) else "interpolated"
        handles += axis.plot([], [], ls="", marker="D", ms=4.5, mfc="white", mec="black", label=f"gain = 0 ({how})")
    name = f"best {short_symbol(spec.x)}"
    at = [(curve, _drawn(curve.x, log)) for curve in curves if curve.best is not None]
    if any(_shows_best(curve, keep, spec.x) for curve, keep in at):
        handles += axis.plot([], [], ls="", marker="*", ms=9, color="0.3", label=name)
    if spec.x == "delta":
        for sign, text, beyond in (("<", "0", 0.0), (">", r"\infty", np.inf)):
            if any(
                curve.best is not None and curve.best[0] == beyond and not _shows_best(curve, k, "delta")
                for curve, k in at
            ):
                label = rf"{name[:-1]} = {text}$"
                handles += axis.plot([], [], ls="", marker=sign, ms=8, color="0.3", label=label)
    for experiment in dict.fromkeys(p.experiment for curve in curves for p in curve.points):
        label = f"{experiment} (mean ± SE)"
        handles += axis.plot([], [], ls="", marker=MARKERS.get(experiment, "x"), ms=4, color="0.3", label=label)
    if len(handles) > 1 or spec.lines:
        columns = min(len(handles), 2 if len(axes) == 1 else 5)
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
