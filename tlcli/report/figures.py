"""All figures of a result, one after the other, as pairs of a file's name (without ending) and a figure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from tlcli.report.bayes import bayes_figures
from tlcli.report.classes import class_figures
from tlcli.report.draw import plan_panels
from tlcli.report.drawing import Drawing
from tlcli.report.facets import fixed_text, heads_of
from tlcli.report.kernels import Planned, Shown, kernel_figures
from tlcli.report.layers import Layers, layer_figures
from tlcli.report.network import network_figures
from tlcli.report.records import drawn_by_time, final
from tlcli.report.style import head, look
from tlcli.report.tables import Block

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Page


def figures_of(
    blocks: Sequence[Block], drawing: Drawing, shown: Sequence[Shown] = (), layers: Sequence[Layers] = ()
) -> Iterator[tuple[str, Figure]]:
    """Yield name and figure: of the table, of the kernels and densities of its points, of their layers.

    `blocks` are the table (none: arrays alone), `shown` the arrays of points, `layers` what their layers did.

    Raises:
        UsageError: axes or a quantity that the table does not have, a style file that is none.
    """
    if not blocks:
        plans = []
    elif drawn_by_time(blocks, drawing):
        plans = network_figures(blocks, drawing)
    else:
        plans = plan_panels([final(block) for block in blocks], drawing)
    heads = dict(zip((block.label for block in blocks), heads_of(blocks), strict=True))
    shown = [replace(one, label=heads.get(one.label, one.label)) for one in shown]
    layers = [replace(one, label=heads.get(one.label, one.label)) for one in layers]
    of_arrays: list[Planned] = []
    if shown:
        of_arrays += (bayes_figures if "kernel_source" in shown[0].arrays else kernel_figures)(shown)
        of_arrays += class_figures(shown)
    if layers:
        of_arrays += layer_figures(layers, shown, drawing.unit)
    subtitle = fixed_text(blocks, drawing.told) if blocks else ""
    for name, build in (*plans, *of_arrays):
        with look(drawing.style):  # not while the figure is with its reader
            figure = build()
            if figure is not None and (name, build) in of_arrays:
                head(figure, None, subtitle)
        if figure is not None:
            yield name, figure


def pages_of(blocks: Sequence[Block], drawing: Drawing) -> "Iterator[tuple[str, Page]]":
    """Yield name and figure of the table for a browser; there are none of kernels, densities and layers."""
    from tlcli.report.interactive import interactive_figures

    for name, build in interactive_figures(blocks, drawing):
        with look(drawing.style):
            figure = build()
        yield name, figure
