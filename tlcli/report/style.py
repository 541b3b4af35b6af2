"""One look for all figures: colour-blind-safe colours, facet grids, texts, axes. Nothing of the user's matplotlibrc."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tlcli.arrays import Array, Flags, Floats
from tlcli.errors import UsageError
from tlcli.options.columns import label_of, short_symbol
from tlcli.report.logs import logged

# Okabe & Ito's palette without its yellow, which vanishes on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = {"regression": "o", "population": "s", "network": "^", "posterior": "^"}
_MORE_MARKERS = ("D", "v", "p", "h")  # further widths of one experiment
MAX_FACETS = 12
MANY = 8  # more lines have a colour bar, not names in a legend

# All settings, so that those of the user's own matplotlibrc have no influence.
RC: dict[Any, Any] = {
    **{name: value for name, value in matplotlib.rcParamsDefault.items() if name not in ("backend", "interactive")},
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 11,
    "legend.fontsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLOURS),
    "lines.linewidth": 1.8,
    "figure.dpi": 100,
    "svg.hashsalt": "tlcli",
    "pdf.fonttype": 42,  # TrueType, whole letters that an editor can change, not outlines
    "ps.fonttype": 42,
    "hatch.linewidth": 0.6,
}
_LETTERS = ("axes.titlesize", "axes.labelsize", "legend.fontsize")
_OUTSIDE = ("backend", "interactive", "savefig.dpi", "savefig.format", "savefig.bbox", "figure.figsize")


@contextmanager
def look(style: Path | None = None) -> Iterator[None]:
    """Give all figures that are built or saved within one look, with the settings of an mplstyle file on top.

    Raises:
        UsageError: a line of the file is no setting of matplotlib.
    """
    chosen = read_style(style) if style else {}
    with matplotlib.rc_context({**RC, **_scaled(chosen), **chosen}), logged() if style else nullcontext():
        yield  # fonts that are not installed have been told once


def _scaled(chosen: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the sizes of letters that a style leaves as they are, in proportion to its own `font.size`."""
    part = float(chosen.get("font.size", RC["font.size"])) / RC["font.size"]
    return {name: part * RC[name] for name in _LETTERS}


def scaled_letters(points: float) -> float:
    """Return a size of letters, in points where the figures' own is 10, for the `font.size` that a style asks for."""
    return points * float(matplotlib.rcParams["font.size"]) / RC["font.size"]


def read_style(path: Path) -> dict[Any, Any]:
    """Return the settings of an mplstyle file; sizes and formats of files have options of their own.

    Raises:
        UsageError: a line is no setting.
    """
    with logged() as said:
        try:
            with matplotlib.rc_context():
                found = dict(matplotlib.rc_params_from_file(path, use_default_template=False))
        except (OSError, UnicodeDecodeError, ValueError) as error:
            said.append(str(error))
            found = {}
    if said:
        raise UsageError(f"style: '{path}' is no style of matplotlib ({' '.join(said[0].split())[:200]}); correct it.")
    return {name: value for name, value in found.items() if name not in _OUTSIDE}


def palette(count: int) -> list[Any]:
    """Return colours of lines: those of the style for up to five, else an ordered map."""
    cycle = matplotlib.rcParams["axes.prop_cycle"].by_key().get("color", COLOURS)
    if count <= min(5, len(cycle)):
        return list(cycle[:count])
    return list(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.88, count)))


def new_figure(rows: int, columns: int, size: tuple[float, float], **more: Any) -> tuple[Figure, Array]:
    """Return a figure that no window knows, and its panels (rows, columns)."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **more)


def facet_title(label: str | None, fixed: Mapping[str, Any]) -> str:
    """Return the heading of one facet: its case and the values of the axes that are fixed in it."""
    values = ", ".join(named(name, value) for name, value in fixed.items())
    between = ", " if label and "\n" in label else "\n"  # what sets a case apart is in its second line
    return f"{label}{between}{values}" if label and values else label or values


def marker_of(experiment: str, turn: int = 0) -> str:
    """Return the marker of an experiment; `turn` counts its widths from 0."""
    return _MARKERS.get(experiment, "x") if turn == 0 else _MORE_MARKERS[(turn - 1) % len(_MORE_MARKERS)]


def named(name: str, value: Any) -> str:
    """Return what tells a curve or panel from the others: a symbol and its value; tasks and stages are counted."""
    if name in ("task", "stage"):
        return f"{name} {number(value)}"
    return f"{short_symbol(name)} = {number(value)}"


def number(value: Any) -> str:
    """Return a number as a reader wants it: four digits, powers of ten, true minus signs."""
    if isinstance(value, str):
        return value
    if math.isinf(value):
        return r"$\infty$" if value > 0 else r"$-\infty$"
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    if not exponent:
        return mantissa.replace("-", "\N{MINUS SIGN}")
    head = {"1": "", "-1": "-"}.get(mantissa, rf"{mantissa}\times")
    return f"${head}10^{{{int(exponent)}}}$"


def facet_grid(n: int, width: float, height: float, shape: tuple[int, int] | None = None) -> tuple[Figure, list[Axes]]:
    """Return a figure with `n` panels of shared axes on a grid of that shape, or a near-square one without holes."""
    columns = n if n <= 3 else math.ceil(math.sqrt(n)) if n != 8 else 4
    rows = math.ceil(n / columns)
    rows, columns = shape or (rows, columns)
    size = (width * columns + 0.7, height * rows + 0.4)
    figure, grid = new_figure(rows, columns, size, sharex=True, sharey=True)
    panels: list[Axes] = list(grid.ravel())
    for unused in panels[n:]:
        unused.remove()
    # A column whose bottom panel is missing shows its tick labels on the panel above.
    for index in range(n):
        if index + columns >= n:
            panels[index].tick_params(labelbottom=True)
    return figure, panels[:n]


def hue_bar(figure: Figure, axes: Sequence[Axes], name: str, values: Sequence[Any], colours: Sequence[Any]) -> None:
    """Say what the colours of many lines stand for: a bar whose colours are those of the values, at equal steps."""
    cmap = ListedColormap(colours)
    mappable = ScalarMappable(Normalize(-0.5, len(values) - 0.5), cmap)
    bar = figure.colorbar(mappable, ax=axes, label=label_of(name), shrink=0.9, aspect=28)
    ticks = np.unique(np.linspace(0, len(values) - 1, min(6, len(values))).round().astype(int))
    bar.set_ticks(ticks.tolist(), labels=[number(values[i]) for i in ticks])
    bar.minorticks_off()


def clipped(values: Sequence[Array], norm: Normalize) -> str:
    """Return at which ends of its scale a colour bar needs an arrow: there are values beyond by a colour or more."""
    flat = np.concatenate([v.ravel() for v in values])
    flat = flat[np.isfinite(flat)]
    assert norm.vmin is not None
    assert norm.vmax is not None
    room = 0.0 if isinstance(norm, (LogNorm, SymLogNorm)) else (norm.vmax - norm.vmin) / 256
    below, above = bool((flat < norm.vmin - room).any()), bool((flat > norm.vmax + room).any())
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[below, above]


def head(figure: Figure, title: str | None, subtitle: str = "") -> None:
    """Write the title and, below it, what is fixed in the whole figure, in lines that break after its commas only."""
    whole = [part.replace(" ", "\N{NO-BREAK SPACE}") for part in subtitle.split(", ")]
    lines = [text for text in (title, ", ".join(whole)) if text]
    if lines:
        figure.suptitle("\n".join(lines), wrap=True, fontsize="large" if title and not subtitle else "medium")


def outer_labels(panels: Sequence[Axes], x: str, y_label: str) -> None:
    """Write the axis labels on the outer panels only."""
    for panel in panels:
        spec = panel.get_subplotspec()
        if spec is None or spec.colspan.start == 0:
            panel.set_ylabel(y_label)
        if spec is None or panel.xaxis.get_tick_params().get("labelbottom", True):
            panel.set_xlabel(label_of(x))


def legend_below(figure: Figure, handles: Sequence[Any]) -> None:
    """Put one legend below all panels: as few rows as fit the width, of equal length."""
    entries = list(handles)
    for rows in range(1, len(entries) + 1):
        columns = -(-len(entries) // rows)
        legend = figure.legend(handles=entries, loc="outside lower center", frameon=False, ncols=columns)
        if columns == 1 or legend.get_window_extent().width < 0.97 * figure.bbox.width:
            return
        legend.remove()


def fit_legends(figure: Figure) -> None:
    """Spread the entries of each legend anew, for another width of the figure."""
    for legend in list(figure.legends):
        handles = [handle for handle in legend.legend_handles if handle is not None]
        for handle, text in zip(handles, legend.get_texts(), strict=True):
            handle.set_label(text.get_text())
        legend.remove()
        legend_below(figure, handles)


def log_axis(axis: Axis, values: Floats) -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2, 5 of each decade where there is room for them."""
    set_scale = axis.axes.set_xscale if axis is axis.axes.xaxis else axis.axes.set_yscale
    with np.errstate(over="ignore"):  # margins beyond the largest number; limits follow
        set_scale("log")
    decades = math.log10(values.max() / values.min())
    axis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2.5 else (1.0, 2.0, 5.0)))
    if decades <= 4:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def finite_axis(values: Floats, log: bool) -> Flags:
    """Return which values can stand on an axis: finite, and positive on a logarithmic one."""
    return np.isfinite(values) & (values > 0 if log else True)
