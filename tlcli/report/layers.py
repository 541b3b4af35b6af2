"""What the layers of deep networks did: a table, their movement and alignment in time, their kernels and densities."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tlcli.arrays import Array, Floats
from tlcli.report.files import atomic
from tlcli.report.kernels import Planned, Shown, depth_of, draw_densities, draw_kernels, initial_variance, of_layer
from tlcli.report.predictions import text_of
from tlcli.report.style import facet_title, legend_below, new_figure

_ROWS = 4  # points of the grid in one figure
_QUANTITIES = (
    ("movement", r"kernel movement $1-\cos(\Phi^\ell(t),\Phi^\ell(0))$"),
    ("source_alignment", "alignment with source labels"),
    ("target_alignment", "alignment with target labels"),
)
_MOMENTS = ("start", "stage1", "stage2")


@dataclass(frozen=True, eq=False)
class Layers:
    """The layers of one point of the grid: what tells it from the others, and `layers_of` of it."""

    label: str | None
    fixed: Mapping[str, Any]
    columns: Mapping[str, Floats]


def write_layers(path: Path, found: Sequence[Layers]) -> None:
    """Write one row per point of the grid, record and layer; a cell is empty where there is no number."""
    names = [name for name in found[0].columns if name not in ("stage", "time")]
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*found[0].fixed, "stage", "time", "layer", *names])
        for one in found:
            ahead = [text_of(value) for value in one.fixed.values()]
            for record, (stage, time) in enumerate(zip(one.columns["stage"], one.columns["time"], strict=True)):
                for layer in range(one.columns[names[0]].shape[1]):
                    values = [text_of(float(one.columns[name][record, layer])) for name in names]
                    writer.writerow([*ahead, str(int(stage)), text_of(float(time)), str(layer + 1), *values])


def layer_figures(found: Sequence[Layers], shown: Sequence[Shown], unit: str) -> list[Planned]:
    """Return the figures of the layers in time, and of kernels and densities of the deepest network, not yet drawn."""
    curves = [one for one in found if len(one.columns["time"]) > 2]
    deepest = max(shown, key=depth_of, default=None)
    figures: list[Planned] = []
    if curves:
        step = max(1, -(-len(curves) // _ROWS))
        figures.append(("figure-layers", lambda: draw_layers(curves[::step], unit)))
    if deepest is not None and depth_of(deepest) > 1:
        note = f"one of {len(shown)} points of the grid" if len(shown) > 1 else ""
        apart = [_one_layer(deepest, layer) for layer in range(1, depth_of(deepest) + 1)]
        figures.append(("figure-layer-kernels", lambda: draw_kernels(apart, note)))
        figures.append(("figure-layer-densities", lambda: draw_densities(apart, note)))
    return figures


def draw_layers(found: Sequence[Layers], unit: str) -> Figure:
    """Return movement and alignments against time, a row per point and a line per layer; stages follow each other."""
    quantities = [(n, text) for n, text in _QUANTITIES if any(np.any(np.isfinite(o.columns[n])) for o in found)]
    shape = (len(found), len(quantities))
    figure, grid = new_figure(*shape, (3.7 * shape[1] + 0.4, 2.7 * shape[0] + 0.9), sharey="col")
    depth = max(one.columns["movement"].shape[1] for one in found)
    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.88, depth))
    for row, (one, axes) in enumerate(zip(found, grid, strict=True)):
        for (name, text), axis in zip(quantities, axes, strict=True):
            _draw(axis, one, name, colours)
            if row == 0:
                axis.set_title(text, fontsize="medium")
            if row == len(found) - 1:
                axis.set_xlabel(f"time $t$ over both stages ({unit} units)")
        axes[0].set_ylabel(facet_title(one.label, one.fixed) or "all layers")
    for axis in grid[0]:  # shared by the column; not before all is drawn
        axis.set_ylim(bottom=0)
    handles = [Line2D([], [], color=c, lw=1.8, label=rf"layer $\ell$ = {i}") for i, c in enumerate(colours, 1)]
    handles.append(Line2D([], [], color="0.5", lw=0.8, ls=":", label="switch to the target"))
    legend_below(figure, handles)
    return figure


def _draw(axis: Axes, one: Layers, name: str, colours: Array) -> None:
    stage, time = one.columns["stage"], one.columns["time"]
    switch = float(time[stage == 1].max()) if np.any(stage == 1) else 0.0
    joined = time + np.where(stage == 2, switch, 0.0)
    if switch and np.any(stage == 2):
        axis.axvline(switch, color="0.5", lw=0.8, ls=":")
    values = one.columns[name]
    errors = np.nan_to_num(one.columns.get(f"{name}_draw_se", one.columns[f"{name}_se"]))
    for layer in range(values.shape[1]):
        axis.plot(joined, values[:, layer], color=colours[layer], lw=1.7)
        low, high = values[:, layer] - 2 * errors[:, layer], values[:, layer] + 2 * errors[:, layer]
        axis.fill_between(joined, low, high, color=colours[layer], alpha=0.2, lw=0)


def _one_layer(shown: Shown, layer: int) -> Shown:
    """Return the arrays of one layer under the names of a network's last one."""
    kept = ("n_source", "n_target", "y_source", "y_target", "bin_edges", "classes_target", "class_names_target")
    arrays = {n: shown.arrays[n] for n in kept if n in shown.arrays}
    for name in ("phi", "density", "variance", "excess_kurtosis"):
        for moment in _MOMENTS:
            found = shown.arrays.get(f"{name}_layer{layer}_{moment}")
            if found is not None:
                arrays[f"{name}_{moment}"] = found
    arrays["variance_start"] = np.array(initial_variance(shown, layer))
    return of_layer(replace(shown, arrays=arrays), layer)
