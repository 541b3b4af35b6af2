"""One look for all figures: colour-blind-safe colours, facet grids, saving without dates."""

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from tlcli.options.columns import label_of, short_symbol
from tlcli.report.files import atomic
from tlcli.report.provenance import png_chunks

# Okabe & Ito's palette without its yellow, which vanishes on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = {"regression": "o", "population": "s", "network": "^", "posterior": "^"}
MAX_FACETS = 12

# All settings, so that those of the user's own matplotlibrc have no influence.
RC: dict[Any, Any] = {
    **{name: value for name, value in matplotlib.rcParamsDefault.items() if name not in ("backend", "interactive")},
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 11,
    "legend.fontsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "svg.hashsalt": "tlcli",
    "hatch.linewidth": 0.6,
}


def facet_title(label: str | None, fixed: Mapping[str, Any]) -> str:
    """Return the heading of one facet: its case and the values of the axes that are fixed in it."""
    values = ", ".join(f"{short_symbol(name)} = {number(value)}" for name, value in fixed.items())
    return f"{label}\n{values}" if label and values else label or values


def number(value: Any) -> str:
    """Return a number as a reader wants it in a legend."""
    if isinstance(value, str):
        return value
    if math.isinf(value):
        return r"$\infty$" if value > 0 else r"$-\infty$"
    return f"{value:.4g}"


def facet_grid(n: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with `n` panels on a near-square grid, shared axes, unused panels removed."""
    columns = n if n <= 3 else math.ceil(math.sqrt(n)) if n != 8 else 4
    rows = math.ceil(n / columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(width * columns + 0.7, height * rows + 0.4),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    panels: list[Axes] = list(grid.ravel())
    for unused in panels[n:]:
        unused.remove()
    # A column whose bottom panel is missing shows its tick labels on the panel above.
    for index in range(n):
        if index + columns >= n:
            panels[index].tick_params(labelbottom=True)
    return figure, panels[:n]


def outer_labels(panels: list[Axes], x: str, y_label: str) -> None:
    """Write the axis labels on the outer panels only."""
    for panel in panels:
        spec = panel.get_subplotspec()
        if spec is None or spec.colspan.start == 0:
            panel.set_ylabel(y_label)
        if spec is None or panel.xaxis.get_tick_params().get("labelbottom", True):
            panel.set_xlabel(label_of(x))


def log_axis(axis: Axis, values: NDArray[np.float64]) -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2, 5 of each decade where there is room for them."""
    set_scale = axis.axes.set_xscale if axis is axis.axes.xaxis else axis.axes.set_yscale
    set_scale("log")
    decades = math.log10(values.max() / values.min())
    axis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2.5 else (1.0, 2.0, 5.0)))
    if decades <= 4:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def finite_axis(values: NDArray[np.float64], log: bool) -> NDArray[np.bool_]:
    """Return which values can stand on an axis: finite, and positive on a logarithmic one."""
    return np.isfinite(values) & (values > 0 if log else True)


def save(figure: Figure, path: Path, content: Mapping[str, Any]) -> None:
    """Write the figure atomically; its metadata hold the provenance and no date."""
    chunks = png_chunks(content)
    if path.suffix == ".svg":
        metadata: dict[str, Any] = {
            "Creator": chunks["Software"],
            "Description": chunks["Description"],
            "Date": None,
        }
    elif path.suffix == ".pdf":
        metadata = {"Creator": chunks["Software"], "Subject": chunks["Description"], "CreationDate": None}
    else:
        metadata = {**chunks, "Recipe": json.dumps(content.get("recipe", {}), sort_keys=True)}
    try:
        with atomic(path) as temporary, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # told before the work, see `plotting.check_text`
            figure.savefig(temporary, metadata=metadata)
    finally:
        plt.close(figure)
