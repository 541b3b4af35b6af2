"""Feature kernels sorted by label, and densities of preactivations, before and after the stages."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tlcli.report.style import COLOURS, facet_title, new_figure

Planned = tuple[str, Callable[[], Figure | None]]  # name of the file, and what draws it if there is something

_ROWS = 4  # points of the grid in one figure
_PANELS = 8
_MOMENTS = {"start": "at initialisation", "stage1": "after stage 1", "stage2": "after stage 2"}
_BAYESIAN = {"start": "prior", "stage1": "source network", "stage2": "target network"}


@dataclass(frozen=True, eq=False)
class Shown:
    """The arrays of one point of the grid, and what tells it from the others."""

    label: str | None
    fixed: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]

    @property
    def title(self) -> str:
        """The heading of its panels."""
        return facet_title(self.label, self.fixed)


def kernel_figures(shown: Sequence[Shown]) -> list[Planned]:
    """Return the figures of kernels and densities of a few points spread over the grid, not yet drawn."""
    return [
        ("figure-kernels", lambda: draw_kernels(_spread(shown, _ROWS))),
        ("figure-densities", lambda: draw_densities(_spread(shown, _PANELS))),
    ]


def _spread(shown: Sequence[Shown], most: int) -> list[Shown]:
    """Return at most `most` of the points at equal steps, so that cases show the same values of their axis."""
    count = min(most, len(shown))
    return [shown[i * len(shown) // count] for i in range(count)]


def target_kernels(arrays: Mapping[str, NDArray[Any]]) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Return moment -> feature kernel (P2, P2) of the target's training points sorted by label, and the labels."""
    n1, n2 = int(arrays["n_source"]), int(arrays["n_target"])
    order = np.argsort(arrays["y_target"], kind="stable")
    rows = n1 + order
    found = {m: arrays[f"phi_{m}"][np.ix_(rows, rows)] for m in _MOMENTS if f"phi_{m}" in arrays and n2}
    return found, arrays["y_target"][order]


def draw_kernels(shown: Sequence[Shown]) -> Figure | None:
    """Return the kernels of each point, a column per moment, all on one scale; None if there are none."""
    pairs = [target_kernels(one.arrays) for one in shown]
    moments = [m for m in _MOMENTS if any(m in found for found, _ in pairs)]
    if len(moments) < 2:
        return None
    norm, cmap = kernel_scale([kernel for found, _ in pairs for kernel in found.values()])
    size = (2.9 * len(moments) + 1.0, 3.0 * len(shown) + 0.3)
    figure, grid = new_figure(len(shown), len(moments), size)
    image = None
    for one, (found, labels), axes in zip(shown, pairs, grid, strict=True):
        borders = np.flatnonzero(np.diff(np.sign(labels))) + 0.5
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
        axes[0].set_ylabel("target points, sorted by label")
    if image is not None:
        figure.colorbar(image, ax=grid, label=r"feature kernel $\Phi(x,x')$", shrink=0.85, aspect=28)
    return figure


def kernel_scale(kernels: Sequence[NDArray[Any]]) -> tuple[Normalize, Any]:
    """Return norm and map of kernels: from zero, or diverging about it where some entry is negative."""
    flat = np.concatenate([kernel.ravel() for kernel in kernels])
    flat = flat[np.isfinite(flat)] if np.isfinite(flat).any() else np.array([0.0, 1.0])
    top = float(np.quantile(np.abs(flat), 0.995)) or 1.0
    if flat.min() < -0.02 * top:
        return TwoSlopeNorm(0.0, -top, top), matplotlib.colormaps["RdBu_r"].with_extremes(bad="0.8")
    return Normalize(0.0, top), matplotlib.colormaps["viridis"].with_extremes(bad="0.8")


def draw_densities(shown: Sequence[Shown]) -> Figure | None:
    """Return the densities of preactivations of each point beside Gaussians of their variances; None without any."""
    shown = [one for one in shown if any(f"density_{m}" in one.arrays for m in _MOMENTS)]
    if not shown:
        return None
    columns = len(shown) if len(shown) <= 3 else 2 if len(shown) == 4 else 4 if len(shown) > 6 else 3
    rows = math.ceil(len(shown) / columns)
    figure, grid = new_figure(rows, columns, (4.0 * columns + 0.4, 3.4 * rows), sharey=True)
    panels: list[Axes] = list(grid.ravel())
    for unused in panels[len(shown) :]:
        unused.remove()
    for one, axis in zip(shown, panels, strict=False):
        _draw_density(axis, one)
    panels[0].set_ylim(0, 1.45 * panels[0].get_ylim()[1])  # shared by all; room for the legends
    panels[0].set_ylabel(r"density of $h$ on the target's points")
    return figure


def _draw_density(axis: Axes, one: Shown) -> None:
    edges = one.arrays["bin_edges"]
    middle = (edges[1:] + edges[:-1]) / 2
    widest = 1.0
    words = _BAYESIAN if "kernel_source" in one.arrays else _MOMENTS
    start = float(one.arrays.get("variance_start", np.array(1.0)))
    if start > 0:
        axis.plot(middle, _gaussian(middle, start), color="0.45", lw=1.2, label=words["start"])
        widest = max(widest, start)
    for colour, moment in zip(COLOURS, ("stage1", "stage2"), strict=False):
        density = one.arrays.get(f"density_{moment}")
        if density is None or not np.all(np.isfinite(density)):
            continue
        variance = float(one.arrays[f"variance_{moment}"])
        excess = float(one.arrays[f"excess_kurtosis_{moment}"])
        text = f"{words[moment]}: excess kurtosis {excess:.2f}"
        axis.plot(middle, density, color=colour, lw=1.6, label=text)
        axis.plot(middle, _gaussian(middle, variance), color=colour, lw=0.9, ls="--")
        widest = max(widest, variance)
    axis.plot([], [], color="0.3", lw=0.9, ls="--", label="Gaussian of the same variance")
    reach = min(4.5 * math.sqrt(widest), float(edges[-1]))
    axis.set_xlim(-reach, reach)
    axis.set_xlabel("preactivation $h$")
    axis.set_title(one.title)
    axis.legend(frameon=False, loc="upper left", fontsize=7.5)


def _gaussian(x: NDArray[Any], variance: float) -> NDArray[Any]:
    return np.exp(-(x**2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
