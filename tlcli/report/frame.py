"""What part of the curves an axis shows and on which scale; what lies beyond its frame is marked at the edge."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from tlcli.arrays import Flags, Floats, Indices
from tlcli.report.drawing import Drawing, Limits
from tlcli.report.style import log_axis

_SQUASHED = 0.25  # of the values lie in the lowest tenth of a linear axis: it is to be logarithmic
_PEAK, _CUT = 6.0, 2.5  # in upper quartiles: what is an interpolation peak, and where it is cut
_DEEPEST = 1e-6  # of the largest value: rounding errors below it are no part of a logarithmic axis
_LOG_ROOM = 1.3  # beyond the ends of a logarithmic axis
_FALL = 10.0  # below the least value: a band that reaches further down is cut by a logarithmic axis
_EVEN = 1.5  # ratio of logarithmic steps up to which they are nearly equal
_UNEVEN = 4.0  # ratio of steps from which on they are very unequal
_FAR = 30.0  # ratio of the ends of three values between which a linear axis would hide the lower one
_BAND = 0.2  # of the largest value: a band narrower than this need not stand on zero


def squashed(lines: Sequence[Floats]) -> bool:
    """Whether finite values of lines (n,) span so much that a linear axis would hide the lower ones.

    All are positive, but for few exact zeros and those in which a line begins or ends.
    """
    values = np.concatenate([np.trim_zeros(line) if np.any(line) else line for line in lines])
    positive = values[values > 0]
    if len(positive) < 4 or np.any(values < 0) or len(positive) < 0.8 * len(values):
        return False
    if np.mean(positive < 0.1 * np.quantile(positive, 0.95)) > _SQUASHED:
        return True
    return _outermost(lines) > _PEAK * float(np.quantile(positive, 0.75))


def _outermost(lines: Sequence[Floats]) -> float:
    """Return the largest value at which a line begins or ends: what is higher are peaks."""
    return max((float(max(line[0], line[-1])) for line in lines if line.size), default=0.0)


def uneven(x: Floats) -> bool:
    """Whether positive values (n,), over a decade or more, are spread so that they ask for a logarithm.

    They are where their ratios are nearly equal, or their steps very unequal; of three the ends are far apart, too.
    """
    x = np.unique(x)
    if len(x) < 3 or not np.all(np.isfinite(x)) or x[0] <= 0 or x[-1] < 10 * x[0]:
        return False
    steps, ratios = np.diff(x), np.diff(np.log(x))
    far = len(x) > 3 or x[-1] >= _FAR * x[0]
    return bool(ratios.max() < _EVEN * ratios.min() or (far and steps.max() > _UNEVEN * steps.min()))


def frame_curves(
    axes: Sequence[Axes],
    drawing: Drawing,
    curves: Sequence[Floats],
    beside: Sequence[Floats],
    bands: Sequence[Floats] = (),
) -> None:
    """Set scale and limits of panels that share them.

    `curves` are the values of the lines and decide, `beside` what else is drawn and must not lie above. `bands` are
    edges of bands, which must be inside on a logarithmic axis, too, as far as they are positive.
    """
    log, limits = value_axis(drawing, curves, beside, bands)
    if limits:
        for axis in axes if log else ():  # a shared scale, but each axis has its own ticks
            log_axis(axis.yaxis, np.array([limits[0] * _LOG_ROOM, limits[1] / _LOG_ROOM]))
        axes[0].set_ylim(*limits)
    if "x" in drawing.limits:
        axes[0].set_xlim(*drawing.limits["x"])


def value_axis(
    drawing: Drawing, curves: Sequence[Floats], beside: Sequence[Floats], bands: Sequence[Floats] = ()
) -> tuple[bool, Limits | None]:
    """Return whether the axis of values is logarithmic, and its limits: those asked for, or None for all there is."""
    lines = [np.ravel(part)[np.isfinite(np.ravel(part))] for part in curves]
    values, rest = np.concatenate(lines), np.concatenate([_ends(part) for part in (*curves, *beside)])
    from_zero = drawing.limits.get("y", (1.0,))[0] <= 0
    log = drawing.logs.get("y", squashed(lines) and not from_zero) and bool((values > 0).any())
    if log:
        low, high = float(values[values > 0].min()), float(values.max())
        edges = np.concatenate([np.ravel(part) for part in bands]) if bands else np.empty(0)
        edges = edges[edges > low / _FALL]
        low, top = float(edges.min(initial=low)), float(edges.max(initial=rest.max()))
        limits = max(low, _DEEPEST * high) / _LOG_ROOM, _LOG_ROOM * max(high, top)
    else:
        limits = _linear_limits(lines, rest)
    return log, drawing.limits.get("y", limits)


def _ends(part: Floats) -> Floats:
    """Return the least and the largest finite value, all that limits need of what does not choose the scale."""
    finite = np.ravel(part)[np.isfinite(np.ravel(part))]
    return np.array([finite.min(), finite.max()]) if finite.size else np.empty(0)


def _linear_limits(lines: Sequence[Floats], rest: Floats) -> tuple[float, float] | None:
    """Keep an interpolation peak from flattening everything else: cut far above the upper quartile."""
    values = np.concatenate(lines)
    if not values.size or values.min() < 0:
        return None
    quartile = float(np.quantile(values, 0.75))
    top = max(_CUT * quartile, 1.05 * _outermost(lines))
    if values.max() > max(_PEAK * quartile, top):
        return 0.0, top
    if rest.max() <= 0:  # exact zeros: matplotlib's own limits
        return None
    # Zero is on the axis, unless everything lies in a narrow band far from it.
    if np.ptp(rest) < _BAND * rest.max():
        room = 0.08 * float(np.ptp(rest)) or 0.05 * float(rest.max())
        return float(rest.min()) - room, float(rest.max()) + room
    return 0.0, 1.05 * float(rest.max())


def mark_outside(axis: Axes, asked: Limits | None = None) -> bool:
    """Put a mark at the edge over every stretch of a curve that lies above or below the frame; return whether any.

    On a logarithmic axis a curve ends where zero follows. `asked` are the limits of x by hand: without them all is
    seen, also a place whose values are all infinite and which the axis does not hold yet.
    """
    low, high = axis.get_ylim()
    left, right = asked or (-np.inf, np.inf)
    log = axis.get_yscale() == "log"
    found = False
    style: dict[str, Any] = {"transform": axis.get_xaxis_transform(), "clip_on": False, "ls": "", "ms": 5, "zorder": 6}
    for line in list(axis.lines):
        x, y = (np.asarray(part, dtype=float) for part in (line.get_xdata(), line.get_ydata()))
        if line.get_transform() != axis.transData or line.get_linestyle() not in ("-", "--") or len(x) < 2:
            continue
        seen = (x >= left) & (x <= right) & ~np.isnan(y)
        room = 1e-9 * (high - low)
        for beyond, at, marker in (((y > high + room), 1.0, "^"), ((y <= 0) if log else (y < low - room), 0.0, "v")):
            if log and at == 0.0:
                beyond = beyond | (y < low * (1 - 1e-9))
            for run in _runs(seen & beyond):
                place = _leaving(x, y, run, high if at else low, seen, log)
                axis.plot(place, at, marker=marker, color=line.get_color(), mec="white", mew=0.5, **style)
                found = True
        if log:
            line.set_ydata(np.where(y <= 0, np.nan, y))
    return found


def _leaving(x: Floats, y: Floats, run: Indices, edge: float, seen: Flags, log: bool) -> float:
    """Return where to mark a stretch of a curve (n,) beyond an edge: over its peak, or where it leaves for good.

    A peak comes back to the frame on both sides; a stretch that is all there is of the curve is marked in its middle.
    """
    before, after = run[0] - 1, run[-1] + 1
    sides = [(i, j) for i, j in ((before, run[0]), (after, run[-1])) if 0 <= i < len(x) and seen[i]]
    if len(sides) != 1:
        middle = run[len(run) // 2]
        level = bool((y[run] == y[run[0]]).all())  # of infinite losses too
        return float(x[middle if level or not sides else run[np.argmax(np.abs(y[run] - edge))]])
    inside, outside = sides[0]
    ends = np.array([y[inside], y[outside], edge])
    if log and min(y[inside], y[outside]) <= 0:  # a jump out of a zero, or into it
        return float(x[inside if y[outside] <= 0 else outside])
    if log:
        ends = np.log(ends)
    part = (ends[2] - ends[0]) / (ends[1] - ends[0]) if np.isfinite(ends).all() else 1.0
    return float(x[inside] + np.clip(part, 0.0, 1.0) * (x[outside] - x[inside]))


def outside_handle() -> Line2D:
    """Return the entry of a legend for the marks of `mark_outside`."""
    return Line2D([], [], ls="", marker="^", ms=5, color="0.3", mec="white", mew=0.5, label="beyond the frame")


def _runs(where: Flags) -> list[Indices]:
    """Return the positions of each unbroken stretch of True."""
    at = np.flatnonzero(where)
    return np.split(at, np.flatnonzero(np.diff(at) > 1) + 1) if at.size else []
