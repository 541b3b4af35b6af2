"""Figures of a table for a web browser: zoom, every column under the pointer, a slider over what panels differ in."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LogNorm, Normalize, SymLogNorm, to_hex
from matplotlib.ticker import LogLocator, MaxNLocator

from tlcli.arrays import Floats
from tlcli.options.axes import stepped
from tlcli.options.columns import label_of, short_symbol
from tlcli.report import curves as lines
from tlcli.report.draw import Picture, pictures
from tlcli.report.drawing import Drawing
from tlcli.report.ends import ticks_of
from tlcli.report.facets import fixed_text
from tlcli.report.frame import value_axis
from tlcli.report.hover import hover
from tlcli.report.maps import BEST, GAINS, NEUTRAL, NEUTRAL_WORDS, SIGNED, MapPanel, cells_of, colour_scale, on_scale
from tlcli.report.markup import page_text
from tlcli.report.network import WIDTH_MARKERS, Row, Style, Trace, drawn_stages, early_stops, loss_label, time_courses
from tlcli.report.plan import FigureSpec
from tlcli.report.records import drawn_by_time, final
from tlcli.report.style import facet_title, finite_axis, named, number, palette
from tlcli.report.tables import Block
from tlcli.status import Phase

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


_COLOURS = 65  # of a colour scale
_NARROW = 16  # letters in a line over the colour bar
_PIXELS = 96  # of a browser per inch
_DASHES = {"-": "solid", "--": "dash", (0, (1, 1)): "dot", (0, (1, 2)): "dot"}
_SYMBOLS = {"o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "D": "diamond"}
_SYMBOLS |= {"p": "pentagon", "h": "hexagon", "x": "x"}
_QUIET = {"hoverinfo": "skip"}


@dataclass(frozen=True, eq=False)
class SliderStep:
    """What the slider shows at one of its places: what this is called, and its traces."""

    label: str
    traces: list[dict[str, Any]] = field(default_factory=list)


def interactive_figures(blocks: Sequence[Block], drawing: Drawing) -> list[tuple[str, Callable[[], "Figure"]]]:
    """Return the figures of a table, not yet built, by the names of their files without ending."""
    if not blocks:
        return []
    if drawn_by_time(blocks, drawing):
        subtitle = fixed_text(blocks, drawing.told)
        return [
            (stem, lambda rows=rows, styles=styles: _time_course(rows, styles, drawing, subtitle))
            for stem, rows, styles in time_courses(blocks, drawing)
        ]
    found = pictures([final(block) for block in blocks], drawing)
    return [(one.stem, lambda one=one: _picture(one, drawing)) for one in found]


def _picture(one: Picture, drawing: Drawing) -> "Figure":
    if one.spec.kind == "map":
        return _maps(one, drawing)
    return _curves(one, drawing)


def _figure(steps: Sequence[SliderStep], layout: Mapping[str, Any], drawing: Drawing, subtitle: str = "") -> "Figure":
    """Return a figure of which one step is seen; a slider chooses where there are several."""
    import plotly.graph_objects as go

    counts = [len(step.traces) for step in steps]
    traces = [{**t, "visible": i == 0} for i, step in enumerate(steps) for t in _named_once(step.traces)]
    heads = [page_text(drawing.title)] if drawing.title else []
    heads += [f"<span style='font-size:13px'>{page_text(subtitle)}</span>"] if subtitle else []
    more: dict[str, Any] = {"margin": {"t": 60 + 28 * len(heads), "b": 60, "l": 80, "r": 30}}
    if heads:
        place = {"x": 0.5, "xanchor": "center", "y": 0.97, "yref": "container", "yanchor": "top"}
        more["title"] = {"text": "<br>".join(heads), **place}
    if drawing.size is not None:
        more |= {"width": round(drawing.size[0] * _PIXELS), "height": round(drawing.size[1] * _PIXELS)}
    if len(steps) > 1:
        more["sliders"] = [
            {
                "active": 0,
                "pad": {"t": 60},
                "currentvalue": {"prefix": "", "font": {"size": 15}},
                "steps": [
                    {
                        "label": page_text(step.label).replace("<br>", ", "),
                        "method": "restyle",
                        "args": [{"visible": [i == k for k, n in enumerate(counts) for _ in range(n)]}],
                    }
                    for i, step in enumerate(steps)
                ],
            }
        ]
    elif steps and steps[0].label:
        more["annotations"] = [_heading(page_text(steps[0].label)), *layout.get("annotations", ())]
    look = {"template": "none", "font": {"size": 14}, "hovermode": "closest", "hoverlabel": {"align": "left"}}
    return go.Figure({"data": traces, "layout": {**look, **layout, **more}})


def _heading(text: str, x: float = 0.5) -> dict[str, Any]:
    return {
        "text": text,
        "x": x,
        "y": 1.02,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "center",
        "yanchor": "bottom",
        "showarrow": False,
    }


def _named_once(traces: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Name in the legend what is drawn, each name once; a click there hides all of that name."""
    seen: set[str] = set()
    for trace in traces:
        name = trace.get("name", "")
        yield {**trace, "legendgroup": name, "showlegend": bool(name) and name not in seen}
        seen.add(name)


def _axis(name: str, picture: Picture, values: Floats, limits: tuple[float, float] | None = None) -> dict[str, Any]:
    """Return a parameter's axis of a map or of curves."""
    log = name in picture.spec.log_axes
    axis: dict[str, Any] = {"title": {"text": page_text(label_of(name))}, "zeroline": False, "ticks": "outside"}
    axis |= _logarithmic(float(values.min()), float(values.max())) if log else {}
    if stepped(name):
        axis["dtick"] = 1
    if name in picture.places:
        marks = ticks_of(picture.places[name])
        axis |= {"tickvals": list(marks), "ticktext": [page_text(text) for text in marks.values()]}
    if limits is not None:
        axis["range"] = [float(np.log10(v)) for v in limits] if log else list(limits)
    return axis


def _maps(one: Picture, drawing: Drawing) -> "Figure":
    spec = one.spec
    assert spec.y is not None
    panels: Sequence[Any] = one.panels
    values = [panel.values for panel in panels]
    norm, cmap = colour_scale(values, spec.quantity in SIGNED, spec.quantity not in GAINS)
    steps = [SliderStep(facet_title(p.label, p.fixed), _map_traces(p, spec, norm, cmap)) for p in panels]
    edges = [cells_of(panel, spec).edges for panel in panels]
    layout: dict[str, Any] = {"plot_bgcolor": "#cccccc", "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"}}
    for role, which, at in (("xaxis", "x", 0), ("yaxis", "y", 1)):
        every = np.concatenate([pair[at] for pair in edges])
        limits = drawing.limits.get(which, (float(every.min()), float(every.max())))
        layout[role] = _axis(spec.x if at == 0 else spec.y, one, every, limits)
    return _figure(steps, layout, drawing, spec.subtitle)


def _map_traces(panel: MapPanel, spec: FigureSpec, norm: Normalize, cmap: Any) -> list[dict[str, Any]]:
    cells = cells_of(panel, spec)
    assert panel.rows is not None
    assert panel.table is not None
    places = [edge.tolist() for edge in cells.edges]
    colours = [[i / (_COLOURS - 1), to_hex(cmap(i / (_COLOURS - 1)))] for i in range(_COLOURS)]
    shade = np.ma.filled(norm(np.ma.masked_invalid(on_scale(cells.values, norm, spec.quantity))), np.nan)
    shade = np.clip(shade, 0.0, 1.0)  # what is beyond the scale has its last colour
    heat = {"type": "heatmap", "x": places[0], "y": places[1], "zmin": 0, "zmax": 1}
    bar = {"title": {"text": _broken(page_text(spec.value_label)), "side": "top"}, **_bar_ticks(norm)}
    found = [
        {**heat, "z": shade.T, "colorscale": colours, "colorbar": bar, **hover(panel.table, panel.rows[cells.at].T)}
    ]
    lost = None if cells.phase is None else cells.phase == Phase.COLLAPSED
    for where, colour, name in ((cells.neutral, NEUTRAL, NEUTRAL_WORDS), (lost, "white", "collapsed features")):
        if where is not None and where.any():
            cover = {"z": np.where(where, 1.0, np.nan).T, "colorscale": [[0, colour], [1, colour]], "showscale": False}
            found.append({**heat, **cover, "name": name, **_QUIET})
    for line, key, words in cells.lines:
        style = {"color": "black", "width": 2.2, "dash": "dot" if key == "jumps" else "solid"}
        mode = "markers" if len(line) == 1 else "lines"
        found.append(_line(line[:, 0], line[:, 1], words, mode=mode, line=style, marker={"color": "black"}, **_QUIET))
    best = None if panel.optimum is None else np.asarray(panel.optimum, dtype=float)
    if best is not None:
        along_y = spec.y == panel.searched
        other = panel.x if along_y else panel.y
        order = np.argsort(other)
        inside = np.where(np.isfinite(best) & (best > 0), best, np.nan)[order]
        pair = (other[order], inside) if along_y else (inside, other[order])
        name = f"best {page_text(short_symbol(panel.searched))}"
        if np.isfinite(inside).any():
            found.append(_line(*pair, name, line={"color": BEST, "width": 2.5, "dash": "dash"}, **_QUIET))
        sides = (("down", "up") if along_y else ("left", "right"), (best == 0, np.isposinf(best)), (0, -1))
        for symbol, beyond, at in zip(*sides, strict=True):
            if beyond.any():
                edge = np.full(int(beyond.sum()), _near(cells.edges[along_y], at, panel.searched in spec.log_axes))
                pair = (other[beyond], edge) if along_y else (edge, other[beyond])
                style = {"symbol": f"triangle-{symbol}", "color": BEST, "size": 9}
                found.append(_line(*pair, f"{name} at or beyond the edge", mode="markers", marker=style, **_QUIET))
    return found


def _near(edges: Floats, at: int, log: bool) -> float:
    """Return a place just inside the first (0) or last (-1) edge, where a mark is seen whole."""
    places = np.log(edges) if log else edges
    place = places[at] + 0.015 * (places[-1 - at] - places[at])
    return float(np.exp(place) if log else place)


def _broken(text: str) -> str:
    """Return the heading of a colour bar in lines as narrow as its words allow."""
    found: list[str] = []
    for word in text.split():
        if found and len(re.sub("<[^>]*>", "", f"{found[-1]} {word}")) <= _NARROW:
            found[-1] += f" {word}"
        else:
            found.append(word)
    return "<br>".join(found)


def _bar_ticks(norm: Normalize) -> dict[str, Any]:
    """Return where the colour bar, from 0 to 1, has its ticks."""
    assert norm.vmin is not None
    assert norm.vmax is not None
    if isinstance(norm, LogNorm):
        decades = np.log10(norm.vmax / norm.vmin)
        at = LogLocator(subs=(1.0,) if decades > 2.5 else (1.0, 2.0, 5.0)).tick_values(norm.vmin, norm.vmax)
    elif isinstance(norm, SymLogNorm):
        low, high = np.ceil(np.log10(5 * norm.linthresh)), np.floor(np.log10(norm.vmax))
        powers = 10.0 ** np.arange(low, high + 1)
        at = np.concatenate([-powers[::-1], [0.0], powers])
    else:
        at = MaxNLocator(7).tick_values(norm.vmin, norm.vmax)
    at = np.asarray([value for value in at if norm.vmin <= value <= norm.vmax])
    return {"tickvals": np.asarray(norm(at)).tolist(), "ticktext": [page_text(number(float(v))) for v in at]}


def _line(x: Floats, y: Floats, name: str, **style: Any) -> dict[str, Any]:
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, **style}


def _curves(one: Picture, drawing: Drawing) -> "Figure":
    spec = one.spec
    panels: Sequence[Any] = one.panels
    log = spec.x in spec.log_axes
    colours = {key: to_hex(colour) for key, colour in lines.colours_of(panels, spec).items()}
    every = [curve for panel in panels for curve in panel.curves]
    steps = [SliderStep(facet_title(p.label, p.fixed), _panel_traces(p, spec, colours, log)) for p in panels]
    x = np.concatenate([curve.x[finite_axis(curve.x, log)] for curve in every])
    layout: dict[str, Any] = {"xaxis": _axis(spec.x, one, x, drawing.limits.get("x"))}
    values, beside = [c.drawn[1] for c in every], [part for c in every for part in lines.beside(c)]
    layout["yaxis"] = _value_axis(page_text(spec.value_label), drawing, values, beside)
    if spec.placed:
        searched = spec.quantity.removesuffix("_opt")
        marks = ticks_of(one.places[searched])
        ticks = {"type": "log", "tickvals": list(marks), "ticktext": [page_text(text) for text in marks.values()]}
        layout["yaxis"] = {"title": layout["yaxis"]["title"], **ticks}
    return _figure(steps, layout, drawing, spec.subtitle)


def _value_axis(
    title: str, drawing: Drawing, values: Sequence[Floats], beside: Sequence[Floats], bands: Sequence[Floats] = ()
) -> dict[str, Any]:
    log, limits = value_axis(drawing, values, beside, bands)
    axis: dict[str, Any] = {"title": {"text": title}, "ticks": "outside", "zeroline": True, "zerolinecolor": "#888888"}
    axis["exponentformat"] = "power"  # no prefixes of units: losses have none
    axis |= _logarithmic(*limits) if log and limits else {}
    if limits is not None:
        axis["range"] = [float(np.log10(v)) for v in limits] if log else list(limits)
    return axis


def _logarithmic(low: float, high: float) -> dict[str, Any]:
    """Return a logarithmic axis with numbers at 1, 2, 5 of each decade where there is room for them."""
    if np.log10(high / low) > 2.5:
        return {"type": "log", "dtick": 1}
    decades = 10.0 ** np.arange(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    ticks = np.outer(decades, [1, 2, 5]).ravel()
    return {"type": "log", "tickvals": ticks.tolist(), "ticktext": [f"{tick:g}" for tick in ticks]}


def _panel_traces(
    panel: lines.CurvePanel, spec: FigureSpec, colours: Mapping[Any, str], log: bool
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    shared = lines.shared_baseline(panel) is not None
    for index, curve in enumerate(panel.curves):
        key = lines.key_of(curve.hue, spec.lines)
        name = ", ".join(page_text(named(n, v)) for n, v in key) or page_text(spec.value_label)
        found += _curve_traces(curve, panel.table, colours[key], name, spec)
        if curve.baseline is not None and not (shared and index):
            x, _, baseline = curve.drawn
            assert baseline is not None
            at = lines.standing(x, log)
            style = {"color": "black" if shared else colours[key], "dash": "dash", "width": 1.6}
            found.append(_line(x[at], baseline[at], "no pre-training", line=style, **_QUIET))
        mark = lines.best_mark(curve, log, spec)
        if mark == "*" and curve.best is not None:
            star = {"symbol": "star", "size": 13, "color": colours[key]}
            name = f"best {page_text(short_symbol(spec.x))}"
            found.append(
                _line(np.array([curve.best[0]]), np.array([curve.best[1]]), name, mode="markers", marker=star, **_QUIET)
            )
    points = panel.crossings if panel.exact else lines.on_the_lines(panel, spec, log)
    if len(points):
        diamond = {"symbol": "diamond-open", "size": 9, "color": "black", "line": {"width": 2}}
        words = f"gain = 0 ({'exact' if panel.exact else 'interpolated'})"
        found.append(_line(points[:, 0], points[:, 1], words, mode="markers", marker=diamond, **_QUIET))
    return found


def _curve_traces(
    curve: lines.Curve, table: Block | None, colour: str, name: str, spec: FigureSpec
) -> list[dict[str, Any]]:
    """Return the smooth line, the points of the table on it with all that the table says, and the experiments."""
    assert table is not None
    assert curve.rows is not None
    x, values, _ = curve.drawn
    log = spec.x in spec.log_axes
    line, at = lines.standing(x, log), lines.standing(curve.x, log)
    drawn = lines.parted(x[line], values[line], spec.breaks)
    found = [_line(*drawn, name, line={"color": colour, "width": 2.2}, **_QUIET)]
    bars: dict[str, Any] = {}
    if curve.error is not None:
        bars["error_y"] = {"array": np.nan_to_num(curve.error[at]), "width": 3}
    elif curve.ranges is not None:
        low, high = np.nan_to_num(np.abs(curve.ranges[:, at] - curve.values[at]))
        bars["error_y"] = {"array": high, "arrayminus": low, "symmetric": False, "width": 3}
    marker = {"color": colour, "size": 5}
    told = hover(table, curve.rows[at])
    found.append({**_line(curve.x[at], curve.values[at], name, mode="markers", marker=marker), **bars, **told})
    for points in curve.points:
        keep = finite_axis(points.x, log) & np.isfinite(points.mean)
        open_ = "" if points.experiment == "regression" else "-open"
        symbol = f"{_SYMBOLS[points.marker]}{open_}"
        bars = {"error_y": {"array": np.nan_to_num(points.error[keep]), "width": 3}}
        shape = {"color": colour, "size": 8, "symbol": symbol}
        words = f"{page_text(points.words)} (mean ± SE)"
        told = hover(table, points.rows[keep])
        found.append({**_line(points.x[keep], points.mean[keep], words, mode="markers", marker=shape), **bars, **told})
    return found


def _time_course(rows: Sequence[Row], styles: Sequence[Style], drawing: Drawing, subtitle: str) -> "Figure":
    """Return the losses in time: the two stages side by side, a step of the slider per facet."""
    traces = [trace for row in rows for trace in row.traces]
    lasting = sorted({int(stage) for trace in traces for stage in trace.stage[trace.time > 0]})
    stages = [stage for stage in drawn_stages(traces, styles) if stage in lasting] or lasting
    hues = list(dict.fromkeys(tuple(trace.hue.items()) for trace in traces))
    colours = {hue: to_hex(colour) for hue, colour in zip(hues, palette(len(hues)), strict=True)}
    steps = [SliderStep(facet_title(row.label, row.fixed)) for row in rows]
    for row, step in zip(rows, steps, strict=True):
        for column, stage in enumerate(stages, start=1):
            for style in (style for style in styles if stage in style.stages):
                for trace in row.traces:
                    colour = colours[tuple(trace.hue.items())]
                    step.traces.extend(_course(row.table, trace, style, stage, colour, column))
    layout: dict[str, Any] = {"annotations": []}
    values = [t.columns[s.name] for t in traces for s in styles]
    judged = [t.columns[s.name] for t in traces for s in styles if not s.name.endswith("train_loss")]
    edges = [edge for t in traces for s in styles if not s.name.endswith("train_loss") for edge in t.edges(s)]
    y = _value_axis(
        page_text(styles[0].axis) or loss_label(rows),
        drawing,
        judged or values,
        edges if styles[0].axis else values,
        edges,
    )
    width = 1 / max(1, len(stages))
    for column, stage in enumerate(stages, start=1):
        mark = "" if column == 1 else str(column)
        left = (column - 1) * width
        time: dict[str, Any] = {"title": {"text": f"time t ({drawing.unit} units)"}, "ticks": "outside"}
        time |= {"domain": [left + (0.03 if column > 1 else 0), left + width - 0.03], "anchor": f"y{mark}"}
        times = np.concatenate([trace.time[trace.stage == stage] for trace in traces])
        if drawing.logs.get("x", False):
            time["type"] = "log"
        if "x" in drawing.limits:
            low, high = drawing.limits["x"]
            time["range"] = [float(np.log10(v)) for v in (low, high)] if "type" in time else [low, high]
        elif "type" not in time:
            time["range"] = [0.0, float(times.max())]
        layout[f"xaxis{mark}"] = time
        layout[f"yaxis{mark}"] = {**y, "title": y["title"] if column == 1 else {"text": ""}, "anchor": f"x{mark}"}
        heading = f"stage {stage}: {'source' if stage == 1 else 'target'}"
        layout["annotations"].append(_heading(heading, left + width / 2))
    return _figure(steps, layout, drawing, subtitle)


def _course(table: Block, trace: Trace, style: Style, stage: int, colour: str, column: int) -> list[dict[str, Any]]:
    """Return one column of one network in one stage: its line with a band of two standard errors, and the networks."""
    here = (trace.stage == stage) & np.isfinite(trace.columns[style.name])
    if not here.any():
        return []
    place = {} if column == 1 else {"xaxis": f"x{column}", "yaxis": f"y{column}"}
    time, values = trace.time[here], trace.columns[style.name][here]
    who = ", ".join(page_text(named(n, v)) for n, v in trace.hue.items())
    what = page_text(style.label)
    name = f"{who}: {what}" if who else what
    dash = _DASHES.get(style.line["ls"], "solid")
    line = {"color": colour, "width": style.line["lw"] * 1.2, "dash": dash}
    marker = {"color": colour, "size": 4}
    found = [{**_line(time, values, name, mode="lines+markers", line=line, marker=marker), **place}]
    found[0] |= hover(table, trace.rows[here])
    error = trace.error(style.name)
    if error is not None:
        wide = 2 * np.nan_to_num(error[here])
        band = {"fill": "toself", "fillcolor": colour, "opacity": 0.18, "line": {"width": 0}, **_QUIET}
        around = (np.append(time, time[::-1]), np.append(values + wide, (values - wide)[::-1]))
        found.append({**_line(*around, "", **band), **place})
    for marker, measured in zip(WIDTH_MARKERS, trace.measured if style.marked else (), strict=False):
        if style.name not in measured.columns:
            continue
        mean, error = measured.columns[style.name]
        keep = here & np.isfinite(mean)
        bars = {"error_y": {"array": np.nan_to_num(error[keep]), "width": 3}}
        shape = {"color": colour, "size": 7, "symbol": f"{_SYMBOLS[marker]}-open"}
        words = f"networks, N = {measured.width} (±SE)"
        points = _line(trace.time[keep], mean[keep], words, mode="markers", marker=shape)
        found.append({**points, **bars, **place, **hover(table, measured.rows[keep])})
    for at, value, mark in early_stops(trace, style.name, stage):
        star = {"color": colour, "size": 13, "symbol": "star-open" if "mfc" in mark else "star"}
        words = "least loss of networks" if "mfc" in mark else "least loss"
        found.append({**_line(np.array([at]), np.array([value]), words, mode="markers", marker=star), **place})
    return found
