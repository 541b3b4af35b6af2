"""Losses of a network in time, stage 1 beside stage 2: theory as lines with bands, networks with error bars."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from tlcli.arrays import Array, Floats, Indices, in_quadrature
from tlcli.errors import UsageError
from tlcli.options import OPTIONS
from tlcli.options.columns import BASELINES, BEST_LOSS, DIFFERENCES, OVERFITTING, errors_of, label_of
from tlcli.report.drawing import Drawing
from tlcli.report.facets import fixed_text, heads_of, hue_of
from tlcli.report.frame import frame_curves, mark_outside, outside_handle
from tlcli.report.kernels import Planned
from tlcli.report.records import RECORD, early_stop, plan_records
from tlcli.report.style import facet_title, head, legend_below, log_axis, named, new_figure, palette
from tlcli.report.tables import Block

_ROWS = 4  # facets to a file
_MARKS = 12  # error bars to a curve
_BAND, _BANDS = 0.18, 0.6  # opacity of one band, and of all together: many, as of common test points, hide no curve
_INDISTINCT = 0.005  # of the largest value: less than a line's width
WIDTH_MARKERS = ("o", "^", "s", "D", "v")
_STOP = {"ls": "", "marker": "*", "ms": 12, "mec": "black", "mew": 0.6}  # when to stop early
_STOP_NETWORKS = {"ls": "", "marker": "*", "ms": 12, "mfc": "white", "mew": 1.3}


@dataclass(frozen=True)
class Style:
    """How one column is drawn, in which stages, its word in the legend, and on the `axis` if it was asked for."""

    name: str
    label: str
    stages: tuple[int, ...]
    line: dict[str, Any]
    marked: bool = False
    axis: str = ""


STYLES = (
    Style("loss", "target, test", (1, 2), {"ls": "-", "lw": 1.9}, marked=True),
    Style("source_loss", "source, test", (1, 2), {"ls": (0, (1, 1)), "lw": 1.7}, marked=True),
    Style("source_train_loss", "source, training points", (1,), {"ls": (0, (1, 2)), "lw": 0.9}),
    Style("train_loss", "target, training points", (2,), {"ls": "-", "lw": 0.8}),
    Style("baseline", "target, test, no pre-training", (2,), {"ls": "--", "lw": 1.3}),
)
# What is drawn beside a column that is asked for: the same of the source, and without pre-training.
BESIDE = {
    name: (
        Style(name, "target, test", (2,), {"ls": "-", "lw": 1.9}, marked=True),
        Style(f"source_{name}", "source, test", (1, 2), {"ls": (0, (1, 1)), "lw": 1.7}, marked=True),
        Style(BASELINES[name], "target, test, no pre-training", (2,), {"ls": "--", "lw": 1.3}, marked=True),
    )
    for name in ("error", "loss_calibrated")
}


@dataclass(eq=False)
class MeasuredWidth:
    """One width of the experiment: name -> mean and standard error (n_record,); its rows of the table (n_record,)."""

    width: str
    columns: Mapping[str, tuple[Floats, Floats]]
    rows: Indices


@dataclass(eq=False)
class Trace:
    """One point of the grid: its stages, times, columns and rows of the table, each (n_record,)."""

    hue: Mapping[str, Any]
    stage: Array
    time: Floats
    columns: Mapping[str, Floats]
    rows: Indices
    measured: Sequence[MeasuredWidth] = ()

    def error(self, name: str) -> Floats | None:
        """Return the standard error (n_record,) of a column, None where exact; networks see the same test points."""
        parts = [self.columns[n] for n in errors_of(name, self.columns, same_points=bool(self.measured))]
        return in_quadrature(parts) if parts else None

    def edges(self, style: Style) -> list[Floats]:
        """Return the lower and upper edge (n_record,) of the band of a column, in the stages that show it."""
        error = self.error(style.name)
        if error is None:
            return []
        here = np.isin(self.stage, style.stages)
        return [(self.columns[style.name] + side * np.nan_to_num(error))[here] for side in (-2, 2)]

    def band(self, styles: Sequence[Style]) -> str:
        """Return what the bands around the curves of these columns are; nothing where none is wider than its line."""
        wide = [style.name for style in styles if self._wide(style)]
        if not wide:
            return ""
        parts = [part for name in wide for part in errors_of(name, self.columns, same_points=bool(self.measured))]
        if any(part.endswith("_draw_se") for part in parts):
            return "±2 SE over draws of the data"
        tested = any(part.endswith("_test_se") for part in parts)
        return "±2 SE by neurons and test points" if tested else "±2 SE by the neurons"

    def _wide(self, style: Style) -> bool:
        error, size = self.error(style.name), np.abs(self.columns[style.name])
        if error is None:
            return False
        if style.axis and np.all(self.columns[style.name] >= 0):  # may fall by decades on a logarithmic axis
            size, error = size[size > 0], error[size > 0]
        else:
            size = np.nanmax(size, initial=0.0)
        return bool(np.any(error > _INDISTINCT * size))


@dataclass(eq=False)
class Row:
    """One facet: the traces that share its two panels, and the table that they are of."""

    label: str | None
    fixed: Mapping[str, Any]
    table: Block
    traces: list[Trace] = field(default_factory=list)


def network_figures(blocks: Sequence[Block], drawing: Drawing) -> list[Planned]:
    """Return the figures of losses in time, not yet drawn: all in one, or one figure per quantity asked for."""
    plans: list[Planned] = []
    for stem, rows, styles in time_courses(blocks, drawing):
        pages = [rows[i : i + _ROWS] for i in range(0, len(rows), _ROWS)]
        for index, page in enumerate(pages, start=1):
            name = stem if len(pages) == 1 else f"{stem}-{index}"
            plans.append((name, functools.partial(draw_rows, page, styles, drawing, fixed_text(blocks, drawing.told))))
    return plans


def time_courses(blocks: Sequence[Block], drawing: Drawing) -> list[tuple[str, Sequence[Row], Sequence[Style]]]:
    """Return the figures of losses in time: the name of the file, the facets and the columns that it shows."""
    quantities, line = plan_records(blocks, drawing)
    heads = heads_of(blocks, [line])
    rows = [row for block, head in zip(blocks, heads, strict=True) for row in _rows(block, line, head)]
    found: list[tuple[str, Sequence[Row], Sequence[Style]]] = []
    for quantity in quantities or [None]:
        styles = tuple(style for style in STYLES if all(style.name in block.columns for block in blocks))
        if not styles and quantity in (None, "loss"):
            raise UsageError("the table has no loss to draw; give a --quantity that it has.")
        if quantity not in (None, "loss"):  # the loss asked for is drawn as unasked, beside others
            styles = _asked(quantity, blocks)
        found.append(("figure" if len(quantities) < 2 else f"figure-{quantity}", rows, styles))
    return found


def _asked(quantity: str, blocks: Sequence[Block]) -> tuple[Style, ...]:
    """Return the curves of a column that was asked for, with what belongs beside it where all blocks have that."""
    label = label_of(quantity)
    alone = (Style(quantity, label, (1, 2), {"ls": "-", "lw": 1.9}, marked=True),)
    shared = [s for s in BESIDE.get(quantity, alone) if all(s.name in block.columns for block in blocks)]
    return tuple(replace(style, axis=label) for style in (shared if len(shared) > 1 else alone))


def _rows(block: Block, line: str | None, label: str | None) -> list[Row]:
    """Return the facets of one block, headed by `label`: the axes besides records and `line` are fixed in each."""
    names = [name for name in block.axes if name not in (RECORD, "experiment")]
    rows: dict[tuple[int, ...], Row] = {}
    for index in product(*(range(len(block.axes[name])) for name in names)):
        at = dict(zip(names, index, strict=True))
        key = tuple(i for name, i in at.items() if name != line)
        if key not in rows:
            rows[key] = Row(label, {n: block.axes[n][i] for n, i in at.items() if n != line}, block)
        values = {name: block.axes[name][i] for name, i in at.items()}
        hue = {} if line is None else hue_of(block, [line], values)
        rows[key].traces.append(_trace(block, at, hue))
    return list(rows.values())


def _trace(block: Block, at: Mapping[str, int], hue: Mapping[str, Any]) -> Trace:
    def here(array: Array, variant: int = 0) -> Array:
        return array[
            tuple(
                slice(None) if axis == RECORD else variant if axis == "experiment" else at[axis] for axis in block.axes
            )
        ]

    def read(name: str, variant: int = 0) -> Array:
        return here(block.full(name), variant)

    numbered = np.arange(block.size).reshape(block.shape)

    numeric = [
        name
        for name, column in block.columns.items()
        if not name.startswith("sim_") and np.asarray(column).dtype.kind == "f" and np.ndim(column)
    ]
    measured = []
    names = [name for name in numeric if f"sim_{name}_se" in block.columns]
    if names:
        for variant in range(len(block.axes.get("experiment", [0]))):
            width = str(read("width", variant)[0])
            pairs = {n: (read(f"sim_{n}", variant), read(f"sim_{n}_se", variant)) for n in names if n != BEST_LOSS}
            measured.append(MeasuredWidth(width, pairs, here(numbered, variant)))
    columns = {name: read(name) for name in numeric}
    return Trace(hue, read("stage"), read("time"), columns, here(numbered), measured)


def draw_rows(rows: Sequence[Row], styles: Sequence[Style], drawing: Drawing, subtitle: str = "") -> Figure:
    """Return one figure with a row per facet and a panel per stage."""
    traces = [trace for row in rows for trace in row.traces]
    figure, panels = _panels(rows, drawn_stages(traces, styles))
    hues = list(dict.fromkeys(tuple(trace.hue.items()) for trace in traces))
    colours = dict(zip(hues, palette(len(hues)), strict=True))
    bare = len(styles) == 1
    for row, axes in zip(rows, panels, strict=True):
        for stage, axis in axes.items():
            _draw_stage(axis, row, stage, styles, colours, drawing)
            heading = f"stage {stage}: {'source' if stage == 1 else 'target'}"
            more = facet_title(row.label, row.fixed)
            axis.set_title(f"{more}\n{heading}" if more else heading)
            axis.set_xlabel(f"time $t$ ({drawing.unit} units)")
        first = next(iter(axes.values()))
        if first.get_subplotspec().colspan.start == 0:  # pyright: ignore[reportOptionalMemberAccess]
            first.set_ylabel(styles[0].axis or loss_label(rows))
    outside = False
    judged = [style for style in styles if not style.name.endswith("train_loss")]  # may fall to nothing
    for axes, shared in _scales(rows, panels):
        values = _values(shared, judged or styles)
        if bare and styles[0].name in DIFFERENCES:  # whether the band holds zero is what is looked for
            values += [edge for trace in shared for edge in trace.edges(styles[0])]
        edges = [edge for style in judged or styles for trace in shared for edge in trace.edges(style)]
        beside = [*edges, *_networks(shared, styles)] if styles[0].axis else _values(shared, styles)
        frame_curves(axes, drawing, values, beside, edges)
        outside |= sum(mark_outside(axis, drawing.limits.get("x")) for axis in axes) > 0
    widths = list(dict.fromkeys(m.width for trace in traces for m in trace.measured))
    drawn = [
        style
        for style in styles
        if any(
            stage in style.stages and _has(row, stage, style)
            for row, axes in zip(rows, panels, strict=True)
            for stage in axes
        )
    ]
    bands = [
        Patch(color="0.3", alpha=0.25, lw=0, label=text)
        for text in dict.fromkeys(t.band(styles) for t in traces)
        if text
    ]
    stages = sorted({stage for axes in panels for stage in axes})
    more = [*_stop_handles(rows, styles, stages), *bands, *([outside_handle()] if outside else [])]
    _legend(figure, colours, [] if bare else drawn, widths, more)
    head(figure, drawing.title, subtitle)
    return figure


def loss_label(rows: Sequence[Row]) -> str:
    """Return what losses are called on an axis: those that are named are no squared errors."""
    return "loss" if any("loss_function1" in row.table.columns for row in rows) else "mean squared error"


def drawn_stages(traces: Sequence[Trace], styles: Sequence[Style]) -> list[int]:
    """Return the stages in which there is something to see; a gain has none in the first."""
    every = sorted({int(stage) for trace in traces for stage in trace.stage})
    seen = [
        stage
        for stage in every
        if any(
            stage in style.stages and np.any(np.isfinite(t.columns[style.name][t.stage == stage]))
            for t in traces
            for style in styles
        )
    ]
    return seen or every


def _panels(rows: Sequence[Row], stages: Sequence[int]) -> tuple[Figure, list[dict[int, Axes]]]:
    """Return a figure and per facet its panels by stage; a stage of no duration has none.

    Facets stand below each other; side by side, on one scale, where a missing panel would leave a hole.
    """
    lasting = [[s for s in stages if _lasts(row, s)] or list(stages) for row in rows]
    total = sum(map(len, lasting))
    flat = len(rows) > 1 and total <= 3 and len({len(shown) for shown in lasting}) > 1
    shape = (1, total) if flat else (len(rows), max(map(len, lasting)))
    size = (4.1 * shape[1] + 0.5, 3.1 * shape[0] + 0.9)
    figure, grid = new_figure(*shape, size, sharey="row")
    free = iter(grid.ravel())
    out = []
    for index, shown in enumerate(lasting):
        axes = [next(free) for _ in shown] if flat else list(grid[index])
        for spare in axes[len(shown) :]:
            spare.remove()
        out.append(dict(zip(shown, axes, strict=False)))
    return figure, out


def _lasts(row: Row, stage: int) -> bool:
    """Whether a stage takes any time: one of no duration is nothing to look at."""
    return any(np.any(trace.time[trace.stage == stage] > 0) for trace in row.traces)


def _has(row: Row, stage: int, style: Style) -> bool:
    """Whether a facet has this column in this stage; where no stage came before, the baseline is the loss itself."""
    if style.name in BASELINES.values() and not _lasts(row, 1):
        return False
    return any(np.any(np.isfinite(trace.columns[style.name][trace.stage == stage])) for trace in row.traces)


def _draw_stage(
    axis: Axes,
    row: Row,
    stage: int,
    styles: Sequence[Style],
    colours: Mapping[tuple[Any, ...], Any],
    drawing: Drawing,
) -> None:
    log = False
    shown = [style for style in styles if stage in style.stages and _has(row, stage, style)]
    bands = sum(trace.error(style.name) is not None for style in shown for trace in row.traces)
    alpha = min(_BAND, _BANDS / max(bands, 1))
    for style in styles:
        if stage not in style.stages or not (_has(row, stage, style) or len(styles) == 1):
            continue
        common = len(row.traces) > 1 and _common(row.traces, style.name, stage)
        for trace in row.traces[:1] if common else row.traces:
            here = trace.stage == stage
            log = log or spaced_logarithmically(trace.time[here])
            alone = len(row.traces) == 1 and style.name in BASELINES.values()
            colour = "black" if common or alone else colours[tuple(trace.hue.items())]
            _draw_line(axis, trace, style, here, colour, alpha)
            if style.marked:
                for marker, measured in zip(WIDTH_MARKERS, trace.measured, strict=False):
                    _draw_marks(axis, trace.time, measured, style.name, here, colour, marker)
            for time, loss, mark in early_stops(trace, style.name, stage):
                axis.plot(time, loss, color=colour, zorder=6, **mark)
    if styles[0].name in DIFFERENCES:
        axis.axhline(0.0, color="0.5", lw=0.8)
    if drawing.logs.get("x", log):
        times = np.concatenate([trace.time[trace.stage == stage] for trace in row.traces])
        log_axis(axis.xaxis, times[times > 0])
        axis.set_xlim(times[times > 0].min() / 1.15, 1.15 * times.max())


def _common(traces: Sequence[Trace], name: str, stage: int) -> bool:
    """Whether a column looks the same in all traces: what happens before their parameter matters."""
    first = traces[0]
    if stage == 1 and all(axis in OPTIONS and OPTIONS[axis].late for axis in first.hue):
        return True  # the engine may have chosen another accuracy
    here = first.stage == stage
    values = first.columns[name][here]
    if not np.any(np.isfinite(values)):
        return False
    width = _INDISTINCT * float(np.nanmax(np.abs(values)))
    return all(
        np.array_equal(trace.stage, first.stage)
        and np.array_equal(trace.time[here], first.time[here])
        and np.allclose(trace.columns[name][here], values, rtol=0, atol=width, equal_nan=True)
        for trace in traces
    )


def _draw_line(axis: Axes, trace: Trace, style: Style, here: Array, colour: Any, alpha: float) -> None:
    time, values = trace.time[here], trace.columns[style.name][here]
    axis.plot(time, values, color=colour, marker="." if len(time) == 1 else "", **style.line)
    error = trace.error(style.name)
    if error is not None:
        wide = 2 * np.nan_to_num(error[here])
        axis.fill_between(time, values - wide, values + wide, color=colour, alpha=alpha, lw=0)


def _draw_marks(
    axis: Axes, time: Floats, measured: MeasuredWidth, name: str, here: Array, colour: Any, marker: str
) -> None:
    if name not in measured.columns:
        return
    mean, error = measured.columns[name]
    rows = np.flatnonzero(here & np.isfinite(mean))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(_MARKS, len(rows))).astype(int))] if len(rows) else rows
    style: dict[str, Any] = {"ls": "", "ms": 4, "mfc": "white", "elinewidth": 1.0, "capsize": 2}
    axis.errorbar(time[rows], mean[rows], yerr=error[rows], color=colour, marker=marker, **style)


def early_stops(trace: Trace, name: str, stage: int) -> list[tuple[float, float, Mapping[str, Any]]]:
    """Return time, value and mark of the least target loss of the theory, then of every width of networks.

    Only where it is below the end of the stage by more than two standard errors.
    """
    if name != "loss" or stage != 2:
        return []
    here = trace.stage == stage
    known = errors_of(OVERFITTING, trace.columns) or errors_of("loss", trace.columns, same_points=True)
    error = in_quadrature([np.zeros(len(here)), *(trace.columns[n] for n in known)])
    found = [(trace.columns["loss"], error, _STOP)]
    found += [(*measured.columns["loss"], _STOP_NETWORKS) for measured in trace.measured if "loss" in measured.columns]
    places = [(early_stop(values[here], errors[here]), values[here], mark) for values, errors, mark in found]
    return [(float(trace.time[here][at]), float(values[at]), mark) for at, values, mark in places if at is not None]


def _stop_handles(rows: Sequence[Row], styles: Sequence[Style], stages: Sequence[int]) -> list[Line2D]:
    """Return the entries of the legend for the marks of early stopping that are drawn."""
    names = [style.name for style in styles if style.marked]
    drawn = [id(m) for r in rows for t in r.traces for s in stages for n in names for *_, m in early_stops(t, n, s)]
    labels = ((_STOP, "least target loss: stop early"), (_STOP_NETWORKS, "least target loss of networks"))
    return [Line2D([], [], color="0.25", label=label, **mark) for mark, label in labels if id(mark) in drawn]


def spaced_logarithmically(times: Floats) -> bool:
    """Whether the positive times are a geometric series that spans more than a factor of five."""
    positive = times[times > 0]
    if len(positive) < 5 or positive[-1] < 5 * positive[0]:
        return False
    steps = np.diff(np.log(positive))[:-1]  # the last time may be the end of the stage
    return bool(np.ptp(steps) < 0.05 * steps.mean())


def _scales(rows: Sequence[Row], panels: Sequence[Mapping[int, Axes]]) -> list[tuple[list[Axes], list[Trace]]]:
    """Return the panels of each line of panels, which share their scale, and all that the line shows."""
    lines: dict[int, tuple[list[Axes], list[Trace]]] = {}
    for row, axes in zip(rows, panels, strict=True):
        first = next(iter(axes.values()))
        line = first.get_subplotspec().rowspan.start  # pyright: ignore[reportOptionalMemberAccess]
        known, traces = lines.setdefault(line, ([], []))
        known.extend(axes.values())
        traces.extend(row.traces)
    return list(lines.values())


def _values(traces: Sequence[Trace], styles: Sequence[Style]) -> list[Floats]:
    return [t.columns[s.name][np.isin(t.stage, s.stages)] for t in traces for s in styles]


def _networks(traces: Sequence[Trace], styles: Sequence[Style]) -> list[Floats]:
    """Return the ends (n_record,) of the error bars of networks that these columns show."""
    shown = [
        (np.isin(t.stage, style.stages), m.columns[style.name])
        for style in styles
        if style.marked
        for t in traces
        for m in t.measured
        if style.name in m.columns
    ]
    return [(mean + side * np.nan_to_num(error))[here] for here, (mean, error) in shown for side in (-1, 1)]


def _legend(
    figure: Figure,
    colours: Mapping[tuple[Any, ...], Any],
    styles: Sequence[Style],
    widths: Sequence[str],
    more: Sequence[Artist],
) -> None:
    handles: list[Artist] = [
        Line2D([], [], lw=1.9, color=colour, label=", ".join(named(n, v) for n, v in hue))
        for hue, colour in colours.items()
        if hue
    ]
    handles += [Line2D([], [], color="0.25", label=style.label, **style.line) for style in styles]
    handles += [
        Line2D([], [], ls="", marker=marker, ms=4, color="0.25", mfc="white", label=f"networks, $N$ = {width} (±SE)")
        for marker, width in zip(WIDTH_MARKERS, widths, strict=False)
    ]
    legend_below(figure, [*handles, *more])
