"""What classifiers take the classes for, and whether their confidence is right: tables and reliability diagrams."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tlcli.arrays import Floats
from tlcli.report.kernels import Planned, Shown, class_names, spread
from tlcli.report.style import COLOURS, legend_below, new_figure, scaled_letters

_ROWS = 4  # points of the grid in one figure
_BINS = 10
_FEW = 12  # classes, beyond which cells hold no numbers
_HEADS = {
    "source_stage1": "source, after stage 1",
    "source_stage2": "source, after stage 2",
    "baseline": "target, no pre-training",
    "target": "target, pre-trained",
}
_JUDGED = {"baseline": COLOURS[1], "target": COLOURS[0]}


def class_figures(shown: Sequence[Shown]) -> list[Planned]:
    """Return the figures of confusions and of confidence of a few points spread over the grid, not yet drawn."""
    return [
        ("figure-confusion", lambda: draw_confusions(*spread(shown, _ROWS))),
        ("figure-reliability", lambda: draw_reliability(*spread(shown, _ROWS))),
    ]


def draw_confusions(shown: Sequence[Shown], note: str = "") -> Figure | None:
    """Return the tables of confusion of each point, before and after transfer, a note below; None without any."""
    heads = [head for head in _HEADS if any(f"confusion_{head}" in one.arrays for one in shown)]
    shown = [one for one in shown if any(f"confusion_{head}" in one.arrays for head in heads)]
    if not heads:
        return None
    figure, grid = new_figure(len(shown), len(heads), (3.1 * len(heads) + 0.9, 3.2 * len(shown) + 0.3))
    image = None
    for one, axes in zip(shown, grid, strict=True):
        for head, axis in zip(heads, axes, strict=True):
            table = one.arrays.get(f"confusion_{head}")
            if table is None:
                axis.set_axis_off()
                continue
            names = class_names(one.arrays, "source" if head.startswith("source") else "target")
            image = _draw_table(axis, table, names)
            words = f"{_HEADS[head]}: {100 * (1 - np.trace(table) / table.sum()):.3g} % wrong"
            axis.set_title(f"{one.title}\n{words}" if one.title else words)
        axes[0].set_ylabel("class")
    for axis in grid[-1]:
        axis.set_xlabel("taken for")
    assert image is not None
    figure.colorbar(image, ax=grid, label="share of the class's test points", shrink=0.85, aspect=28)
    if note:
        figure.supxlabel(note, fontsize=scaled_letters(9.5))
    return figure


def shares(table: Floats) -> Floats:
    """Return a table of confusion (C, C) over the number of points of each class; NaN for a class without any."""
    points = table.sum(axis=1, keepdims=True)
    return np.where(points > 0, table / np.where(points > 0, points, 1.0), np.nan)


def _draw_table(axis: Axes, table: Floats, names: Sequence[str]) -> Any:
    found, count = shares(table), len(table)
    image = axis.imshow(found, vmin=0.0, vmax=1.0, cmap="Blues", interpolation="nearest")
    step = -(-count // 20)
    for ticks in (axis.set_xticks, axis.set_yticks):
        ticks(range(0, count, step), labels=names[::step])
    axis.tick_params(length=0)
    if max(map(len, names)) > 2:
        axis.tick_params(axis="x", rotation=90)
    if count <= _FEW:
        size = scaled_letters(9 if count <= 6 else 6.5)
        for (row, column), share in np.ndenumerate(found):
            if share >= 0.005:
                colour = "white" if share > 0.6 else "black"
                axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=size, color=colour)
    axis.spines[:].set_visible(True)
    return image


def draw_reliability(shown: Sequence[Shown], note: str = "") -> Figure | None:
    """Return how often the likeliest class is right against the confidence in it; None without such confidences.

    Bins hold equally many test points each. As the outputs are, and multiplied by the factor that calibrates the other
    half of the points.
    """
    heads = [head for head in _JUDGED if any(f"confidence_{head}" in one.arrays for one in shown)]
    shown = [one for one in shown if any(f"confidence_{head}" in one.arrays for head in heads)]
    if not heads:
        return None
    size = (3.5 * len(heads) + 0.5, 3.3 * len(shown) + 0.8)
    figure, grid = new_figure(len(shown), len(heads), size, sharex=True, sharey=True)
    for one, axes in zip(shown, grid, strict=True):
        for head, axis in zip(heads, axes, strict=True):
            axis.plot([0, 1], [0, 1], color="0.6", lw=0.9, ls=":")
            if f"confidence_{head}" in one.arrays:
                errors = _draw_curves(
                    axis, one.arrays[f"confidence_{head}"], one.arrays[f"right_{head}"], _JUDGED[head]
                )
                words = f"calibration error {100 * errors[0]:.2g} %, calibrated {100 * errors[1]:.2g} %"
                axis.text(0.98, 0.03, words, transform=axis.transAxes, ha="right", fontsize=scaled_letters(8))
            axis.set_title(f"{one.title}\n{_HEADS[head]}" if one.title else _HEADS[head])
        axes[0].set_ylabel("share that is right")
    for axis in grid[-1]:
        axis.set_xlabel("confidence in the likeliest class")
    least = min(
        float(one.arrays[f"confidence_{h}"].min()) for one in shown for h in heads if f"confidence_{h}" in one.arrays
    )
    grid[0, 0].set_xlim(0.95 * least, 1.02)
    grid[0, 0].set_ylim(0.0, 1.05)
    handles = [
        Line2D([], [], color="0.3", ls="--", lw=1.0, marker="o", ms=4, mfc="white", label="as it is (±SE)"),
        Line2D([], [], color="0.3", lw=1.6, marker="o", ms=4, label="calibrated on the other half of the points (±SE)"),
        Line2D([], [], color="0.6", lw=0.9, ls=":", label="as often right as sure"),
    ]
    legend_below(figure, [*handles, *([Line2D([], [], ls="", label=note)] if note else [])])
    return figure


def reliability(confidence: Floats, right: Floats, bins: int = _BINS) -> tuple[Floats, Floats, Floats, float]:
    """Return mean confidence, share of right points and its standard error in bins of equally many points, and the gap.

    `confidence` and `right` are (n,). The error is that of the share (k + 2)/(n + 4), which does not vanish where all
    are right; the gap is the mean over points of |share - confidence| of their bins, the calibration error.
    """
    order, count = np.argsort(confidence, kind="stable"), max(1, min(bins, len(right) // 10))
    parts = np.array_split(order, count)
    sizes = np.array([len(part) for part in parts])
    sure = np.array([confidence[part].mean() for part in parts])
    share = np.array([right[part].mean() for part in parts])
    shrunk = (share * sizes + 2) / (sizes + 4)
    error = np.sqrt(shrunk * (1 - shrunk) / (sizes + 4))
    return sure, share, error, float(np.sum(sizes * np.abs(share - sure)) / sizes.sum())


def _draw_curves(axis: Axes, confidence: Floats, right: Floats, colour: str) -> list[float]:
    """Draw both curves of one head; return their calibration errors."""
    styles = ({"ls": "--", "lw": 1.0, "mfc": "white"}, {"ls": "-", "lw": 1.6})
    errors = []
    for values, style in zip(confidence, styles, strict=True):
        sure, share, error, gap = reliability(values, right)
        axis.errorbar(sure, share, yerr=error, color=colour, marker="o", ms=4, elinewidth=0.9, capsize=2, **style)
        errors.append(gap)
    return errors
