"""The one place where figures become files: in every format asked for, atomically, and without a date."""

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import combinations
from pathlib import Path
from typing import Any

from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure

from tlcli.errors import UsageError
from tlcli.report.drawing import HTML, Drawing
from tlcli.report.files import atomic
from tlcli.report.provenance import png_chunks
from tlcli.report.style import fit_legends, look

_APART = 0.02  # inches around a tick label that no other one may touch


def write_figures(
    figures: Iterable[tuple[str, Figure]], drawing: Drawing, folder: Path, facts: Mapping[str, Any]
) -> Iterator[Path]:
    """Write figures, given with the names of their files (without ending), and yield every file that is there.

    They are taken one at a time, so that never more than one need be in memory.
    """
    for name, figure in figures:
        if drawing.size is not None:
            with look(drawing.style):
                figure.set_size_inches(drawing.size)
                fit_legends(figure)
        for ending in drawing.images:
            path = folder / f"{name}.{ending}"
            save(figure, path, facts, drawing)
            yield path


def write_pages(
    pages: Iterable[tuple[str, Any]], drawing: Drawing, folder: Path, facts: Mapping[str, Any]
) -> Iterator[Path]:
    """Write figures for a browser and yield their files, as `write_figures` does."""
    from tlcli.report.page import save_page

    for name, figure in pages:
        path = folder / f"{name}.{HTML}"
        save_page(figure, path, facts, drawing.title or f"{facts['command']}: {name}")
        yield path


def save(figure: Figure, path: Path, content: Mapping[str, Any], drawing: Drawing) -> None:
    """Write one file; its metadata hold the provenance.

    Raises:
        UsageError: the size that was asked for has no room for what the figure shows.
    """
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
    with look(drawing.style), atomic(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # told before the work, see `plotting.check_text`
        if drawing.size is not None:
            warnings.filterwarnings("error", "constrained_layout not applied")
        try:
            with _laid_out_once(figure):
                figure.savefig(temporary, metadata=metadata, dpi=drawing.dpi)
        except UserWarning:
            if drawing.size is None:
                raise
            width, height = drawing.size
            raise UsageError(
                f"size: {width:g}x{height:g} inches have no room for the panels, titles and legend of {path.stem}; "
                "give a larger --size, or fewer values."
            ) from None


@contextmanager
def _laid_out_once(figure: Figure) -> Iterator[None]:
    """Let the first of the two drawings of `savefig` find the layout and no more: it draws nothing that is seen."""

    def lay_out(renderer: RendererBase) -> None:
        del figure.draw  # the next one draws
        engine = figure.get_layout_engine()
        if engine is not None and figure.axes:
            with suppress(ValueError):  # as `Figure.draw` does
                engine.execute(figure)
                if _overprinted(figure, renderer):  # wider panels have more ticks than those that were given room
                    engine.execute(figure)

    if figure.get_layout_engine() is not None:
        figure.draw = lay_out  # type: ignore[method-assign]
    try:
        yield
    finally:
        vars(figure).pop("draw", None)


def _overprinted(figure: Figure, renderer: RendererBase) -> bool:
    """Whether the tick labels of one panel touch those of another."""
    for name in ("xaxis", "yaxis"):
        boxes = [getattr(axes, name).get_tightbbox(renderer, for_layout_only=True) for axes in figure.axes]
        padded = [box.padded(_APART * figure.dpi) for box in boxes if box is not None]
        if any(one.overlaps(other) for one, other in combinations(padded, 2)):
            return True
    return False
