"""Feature kernels sorted by label, and densities of preactivations, before and after the stages."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tlcli.arrays import Array
from tlcli.losses.labels import class_numbers
from tlcli.report.style import COLOURS, clipped, facet_title, legend_below, new_figure, scaled_letters

Planned = tuple[str, Callable[[], Figure | None]]  # name of the file, and what draws it if there is something

_ROWS = 4  # points of the grid in one figure
_PANELS = 8
_MOMENTS = {"start": "at initialisation", "stage1": "after stage 1", "stage2": "after stage 2"}
_COLOURS = {"stage1": COLOURS[0], "stage2": COLOURS[1]}
_BAYESIAN = {"start": "prior", "stage1": "source network", "stage2": "target network"}


@dataclass(frozen=True, eq=False)
class Shown:
    """The arrays of one point of the grid, what tells it from the others, and what its points are called."""

    label: str | None
    fixed: Mapping[str, Any]
    arrays: Mapping[str, Array]
    points: str = "target points"

    @property
    def title(self) -> str:
        """The heading of its panels."""
        return facet_title(self.label, self.fixed)


def kernel_figures(shown: Sequence[Shown]) -> list[Planned]:
    """Return the figures of kernels and densities of a few points spread over the grid, not yet drawn.

    Of networks of several layers they are those of the last one, and say so.
    """
    shown = [of_layer(one, depth_of(one)) if depth_of(one) > 1 else one for one in shown]
    return [
        ("figure-kernels", lambda: draw_kernels(*spread(shown, _ROWS))),
        ("figure-densities", lambda: draw_densities(*spread(shown, _PANELS))),
    ]


def depth_of(one: Shown) -> int:
    """Return the number of hidden layers that a network keeps by layer; 0 where it has one and does not."""
    layer = 0
    while f"phi_layer{layer + 1}_start" in one.arrays:
        layer += 1
    return layer


def of_layer(one: Shown, layer: int) -> Shown:
    """Return a point of the grid with the name of the layer that its panels show."""
    return replace(one, label=f"{one.label}, layer {layer}" if one.label else f"layer {layer}")


def initial_variance(one: Shown, layer: int) -> float:
    """Return the variance of the preactivations of a layer at initialisation, over the target's points.

    Those of the first layer have that of the inputs, those above the variance of the features below them.
    """
    if layer > 1:
        rows = int(one.arrays["n_source"]) + np.arange(int(one.arrays["n_target"]))
        return float(np.mean(one.arrays[f"phi_layer{layer - 1}_start"][rows, rows]))
    return float(one.arrays.get("variance_start", np.array(1.0)))


def spread(shown: Sequence[Shown], most: int) -> tuple[list[Shown], str]:
    """Return at most `most` of the points at equal steps, so that cases show the same values of their axis; a note."""
    count = min(most, len(shown))
    return [shown[i * len(shown) // count] for i in range(count)], part_of(count, len(shown))


def target_kernels(arrays: Mapping[str, Array]) -> tuple[dict[str, Array], Array]:
    """Return moment -> feature kernel (P2, P2) of the target's training points sorted by label, and the labels.

    Vectors of outputs (P2, C) are sorted by their largest one.
    """
    n1, n2, labels = int(arrays["n_source"]), int(arrays["n_target"]), arrays["y_target"]
    if labels.ndim > 1:
        labels = np.argmax(labels, axis=1)
    order = np.argsort(labels, kind="stable")
    rows = n1 + order
    found = {m: arrays[f"phi_{m}"][np.ix_(rows, rows)] for m in _MOMENTS if f"phi_{m}" in arrays and n2}
    return found, labels[order]


def block_lines(labels: Array, classes: bool) -> Array:
    """Return where sorted labels change their class, or of numbers their sign: between which points, as 2.5."""
    return np.flatnonzero(np.diff(labels if classes else np.sign(labels))) + 0.5


def part_of(drawn: int, whole: int) -> str:
    """Return what says that not all points of a grid are drawn; nothing where all are."""
    return f"{drawn} of {whole} points of the grid" if drawn < whole else ""


def draw_kernels(shown: Sequence[Shown], note: str = "") -> Figure | None:
    """Return the kernels of each point, a column per moment, on one scale, a note below; None if there are none."""
    pairs = [target_kernels(one.arrays) for one in shown]
    moments = [m for m in _MOMENTS if any(m in found for found, _ in pairs)]
    if len(moments) < 2:
        return None
    kernels = [kernel for found, _ in pairs for kernel in found.values()]
    norm, cmap = kernel_scale(kernels)
    size = (2.9 * len(moments) + 1.0, 3.0 * len(shown) + 0.3)
    figure, grid = new_figure(len(shown), len(moments), size)
    image = None
    for one, (found, labels), axes in zip(shown, pairs, grid, strict=True):
        classes = "classes_target" in one.arrays or one.arrays["y_target"].ndim > 1
        borders = block_lines(labels, classes)
        for moment, axis in zip(moments, axes, strict=True):
            axis.set_xticks([])
            axis.set_yticks([])
            if moment not in found:
                axis.set_axis_off()
                continue
            image = axis.imshow(found[moment], norm=norm, cmap=cmap, interpolation="nearest")
            for at in borders:
                axis.axhline(at, color="black", lw=0.8)
                axis.axvline(at, color="black", lw=0.8)
            axis.set_title(f"{one.title}\n{_MOMENTS[moment]}" if one.title else _MOMENTS[moment])
            axis.spines[:].set_visible(True)
        axes[0].set_ylabel(f"{one.points}, sorted by {'class' if classes else 'label'}")
        if "classes_target" in one.arrays:
            _name_blocks(axes[0], labels, borders, one.arrays)
    if image is not None:
        bar: dict[str, Any] = {"label": r"feature kernel $\Phi(x,x')$", "shrink": 0.85, "aspect": 28}
        figure.colorbar(image, ax=grid, extend=clipped(kernels, norm), **bar)
    figure.supxlabel(note, fontsize=scaled_letters(9.5))
    return figure


def class_names(arrays: Mapping[str, Array], word: str) -> list[str]:
    """Return what the classes of the source or the target are called; +1 and -1 where two have no names."""
    if f"class_names_{word}" in arrays:
        return [str(name) for name in arrays[f"class_names_{word}"]]
    count = int(arrays[f"classes_{word}"])
    return ["+1", "\N{MINUS SIGN}1"] if count == 2 else [str(c) for c in range(count)]


def _name_blocks(axis: Axes, labels: Array, borders: Array, arrays: Mapping[str, Array]) -> None:
    """Write the class beside each block of a kernel that is sorted by them."""
    names = class_names(arrays, "target")
    edges = np.array([-0.5, *borders, len(labels) - 0.5])
    first = np.ceil(edges[:-1]).astype(int)
    numbers = class_numbers(labels[first].astype(float), len(names))
    axis.set_yticks((edges[1:] + edges[:-1]) / 2, labels=[names[c] for c in numbers])
    axis.tick_params(axis="y", length=0)


def kernel_scale(kernels: Sequence[Array]) -> tuple[Normalize, Any]:
    """Return norm and map of kernels: from zero, or diverging about it where some entry is negative."""
    flat = np.concatenate([kernel.ravel() for kernel in kernels])
    flat = flat[np.isfinite(flat)] if np.isfinite(flat).any() else np.array([0.0, 1.0])
    top = float(np.quantile(np.abs(flat), 0.995)) or 1.0
    if flat.min() < -0.02 * top:
        return TwoSlopeNorm(0.0, -top, top), matplotlib.colormaps["RdBu_r"].with_extremes(bad="0.8")
    return Normalize(0.0, top), matplotlib.colormaps["viridis"].with_extremes(bad="0.8")


def draw_densities(shown: Sequence[Shown], note: str = "", columns: int | None = None) -> Figure | None:
    """Return the densities of preactivations of each point beside Gaussians of their variances, a note below, or None.

    `columns` is the number of panels in a line, None for as many as look well.
    """
    shown = [one for one in shown if any(f"density_{m}" in one.arrays for m in _MOMENTS)]
    if not shown:
        return None
    count = len(shown)
    columns = min(columns or (count if count <= 3 else 2 if count == 4 else 4 if count > 6 else 3), count)
    rows = math.ceil(count / columns)
    figure, grid = new_figure(rows, columns, (3.7 * columns + 0.4, 3.0 * rows + 0.7), sharey=True)
    panels: list[Axes] = list(grid.ravel())
    for unused in panels[count:]:
        unused.remove()
    for one, axis in zip(shown, panels, strict=False):
        _draw_density(axis, one)
    panels[0].set_ylim(bottom=0)
    for axis in grid[:, 0]:
        axis.set_ylabel(f"density of $h$ on {shown[0].points}")
    words = _BAYESIAN if "kernel_source" in shown[0].arrays else _MOMENTS
    drawn = [stage for stage in _COLOURS if any(f"density_{stage}" in one.arrays for one in shown)]
    handles = [Line2D([], [], color="0.45", lw=1.2, label=words["start"])]
    handles += [Line2D([], [], color=_COLOURS[stage], lw=1.6, label=words[stage]) for stage in drawn]
    handles.append(Line2D([], [], color="0.3", lw=0.9, ls="--", label="Gaussian of the same variance"))
    if note:  # a line below the panels would stand in the legend
        handles.append(Line2D([], [], ls="", label=note))
    legend_below(figure, handles)
    return figure


def _draw_density(axis: Axes, one: Shown) -> None:
    edges = one.arrays["bin_edges"]
    middle = (edges[1:] + edges[:-1]) / 2
    start = initial_variance(one, depth_of(one))
    widest = max(1.0, start)
    if start > 0:
        axis.plot(middle, _gaussian(middle, start), color="0.45", lw=1.2)
    texts = []
    for moment, colour in _COLOURS.items():
        density = one.arrays.get(f"density_{moment}")
        if density is None or not np.all(np.isfinite(density)):
            continue
        variance = float(one.arrays[f"variance_{moment}"])
        texts.append((f"excess kurtosis {float(one.arrays[f'excess_kurtosis_{moment}']):.2f}", colour))
        axis.plot(middle, density, color=colour, lw=1.6)
        axis.plot(middle, _gaussian(middle, variance), color=colour, lw=0.9, ls="--")
        widest = max(widest, variance)
    # Above the panel's frame, where no curve can be.
    for line, (text, colour) in enumerate(reversed(texts)):
        at = {"xytext": (0, scaled_letters(3 + 11 * line)), "textcoords": "offset points"}
        place = {**at, "fontsize": scaled_letters(8), "color": colour}
        axis.annotate(text.replace("-", "\N{MINUS SIGN}"), (0.5, 1.0), xycoords="axes fraction", ha="center", **place)
    reach = min(4.5 * math.sqrt(widest), float(edges[-1]))
    axis.set_xlim(-reach, reach)
    axis.set_xlabel("preactivation $h$")
    axis.set_title(one.title, pad=scaled_letters(8 + 11 * len(texts)))


def _gaussian(x: Array, variance: float) -> Array:
    return np.exp(-(x**2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
