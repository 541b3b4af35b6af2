"""Kernels of the Bayesian theory, sorted by label, for growing couplings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tlcli.arrays import Floats
from tlcli.report.kernels import Planned, Shown, draw_densities, kernel_scale, part_of
from tlcli.report.style import clipped, facet_title, new_figure, number, scaled_letters

_ROWS, _COLUMNS = 4, 6  # kernels in one figure
_CLASSES = 20  # labels with at most so many different whole values are classes
_DENSITIES = 4  # rows and columns of densities


def bayes_figures(shown: Sequence[Shown]) -> list[Planned]:
    """Return the figures of kernels sorted by label and of densities of preactivations, not yet drawn."""
    return [("figure-kernels", lambda: draw_kernel_grid(shown)), ("figure-densities", lambda: _densities(shown))]


def _densities(shown: Sequence[Shown]) -> Figure | None:
    """Return densities on a grid as that of the kernels: a column per coupling, the same in every row."""
    lines = [line for _, line in _picked(shown, _DENSITIES, _DENSITIES + 1)]
    same = len({len(line) for line in lines}) == 1
    drawn = [one for line in lines for one in line]
    return draw_densities(drawn, part_of(len(drawn), len(shown)), len(lines[0]) if same and len(lines) > 1 else None)


def _picked(shown: Sequence[Shown], rows: int, columns: int) -> list[tuple[Any, list[Shown]]]:
    """Return at most `rows` points of the other axes at equal steps, each with as many couplings less one."""
    lines: dict[Any, list[Shown]] = {}
    for one in shown:
        rest = tuple((name, value) for name, value in one.fixed.items() if name != "delta")
        lines.setdefault((one.label, rest), []).append(one)
    picked = [list(lines.items())[i] for i in _steps(len(lines), rows)]
    return [(key, [line[i] for i in _steps(len(line), columns - 1)]) for key, line in picked]


def draw_kernel_grid(shown: Sequence[Shown]) -> Figure | None:
    """Return Φ̄ of each source beside Φ of its targets for growing δ, points sorted by label; None without any.

    A row is a point of the other axes of the grid, at most four at equal steps; a column a coupling, at most five.
    """
    picked = _picked(shown, _ROWS, _COLUMNS)
    tables = [array for _, line in picked for one in line for array in _tables(one) if np.isfinite(array).all()]
    if not tables:
        return None
    norm, cmap = kernel_scale([_cut(table) for table in tables])
    count = 1 + max(len(line) for _, line in picked)
    figure, grid = new_figure(len(picked), count, (2.35 * count + 1.0, 2.55 * len(picked) + 0.35))
    image = None
    for row, ((key, line), axes) in enumerate(zip(picked, grid, strict=True)):
        source, _ = _tables(line[0])
        image = _draw_table(axes[0], source, line[0].arrays["labels_source"], norm, cmap)
        for one, axis in zip(line, axes[1:], strict=False):
            image = _draw_table(axis, _tables(one)[1], one.arrays["labels_target"], norm, cmap)
            if "delta" in one.fixed or row == 0:
                axis.set_title(
                    rf"$\delta$ = {number(one.fixed['delta'])}" if "delta" in one.fixed else r"target $\Phi$"
                )
        for spare in axes[1 + len(line) :]:
            spare.set_axis_off()
        axes[0].set_title(r"source $\bar\Phi$")
        axes[0].set_ylabel(facet_title(key[0], dict(key[1])) or "sorted by label")
    assert image is not None
    # One colour bar for kernels of very different size: each is shown in units of its largest diagonal entry.
    bar: dict[str, Any] = {"label": "kernel / mean of its diagonal", "shrink": 0.85, "aspect": 28}
    figure.colorbar(image, ax=grid, extend=clipped(tables, norm), **bar)
    words = r"points of the source ($\bar\Phi$) and of the target ($\Phi$), sorted by label"
    drawn = sum(len(line) for _, line in picked)
    figure.supxlabel(
        words + (f"; {drawn} of {len(shown)} points of the grid" if drawn < len(shown) else ""),
        fontsize=scaled_letters(9.5),
    )
    return figure


def _steps(count: int, most: int) -> list[int]:
    """Return at most `most` indices at equal steps, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def _tables(one: Shown) -> tuple[Floats, Floats]:
    """Return Φ̄ between source points and Φ between target points, each over the mean of its diagonal."""
    n1 = len(one.arrays["labels_source"])
    pair = one.arrays["kernel_source"][:n1, :n1], one.arrays["kernel_target"][n1:, n1:]
    means = [float(np.mean(np.diagonal(table))) for table in pair]
    first, second = (table / mean if mean > 0 else table for table, mean in zip(pair, means, strict=True))
    return first, second


def _cut(table: Floats) -> Floats:
    """Return the entries off the diagonal: the diagonal of a lazy kernel would hide everything else."""
    return table[~np.eye(len(table), dtype=bool)] if len(table) > 1 else table.ravel()


def _draw_table(axis: Axes, table: Floats, labels: Floats, norm: Any, cmap: Any) -> Any:
    axis.set_xticks([])
    axis.set_yticks([])
    image = axis.imshow(table, norm=norm, cmap=cmap, interpolation="nearest")
    for at in _blocks(labels):
        axis.axhline(at, color="black", lw=0.8)
        axis.axvline(at, color="black", lw=0.8)
    axis.spines[:].set_visible(True)
    return image


def _blocks(labels: Floats) -> Floats:
    """Return where sorted labels (P,) change class, or sign if they are numbers; of vectors (P, C) their largest."""
    kinds = labels.argmax(axis=1) if labels.ndim == 2 else labels
    few = np.unique(kinds)
    whole = len(few) <= _CLASSES and np.array_equal(few, np.rint(few))
    return np.asarray(np.flatnonzero(np.diff(kinds if whole else np.sign(kinds))) + 0.5, dtype=float)
