"""How a figure shall look, as the user says it: roles of axes, column, kind, limits, size, style and formats."""

import importlib.util
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tlcli.arrays import Array
from tlcli.errors import MissingExtraError, UsageError, suggest
from tlcli.paths import expanded
from tlcli.report.tables import Block

FORMATS = ("png", "pdf", "svg", "html")
HTML = "html"
KINDS = ("auto", "map", "curves")
DPI = 160.0
_INCHES = (1.0, 60.0)

Limits = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Drawing:
    """What figures show and how.

    `kind` is auto, map or curves; `roles` maps x and y to names of axes; `quantity` names columns joined by commas,
    None for `default_quantity`. `size` is (width, height) in inches, None for that of the panels; `style` an mplstyle
    file; `limits` and `logs` are of the axes x and y where they are asked for. `unit` says which loss times belong to,
    `told` what the theory says of its case besides parameters, `boundaries` are per block the exact boundary points,
    `smooth` per block the same theory on a finer grid of `smooth_axis` (None: there is none), for lines without
    corners.
    """

    kind: str = "auto"
    roles: Mapping[str, str] = field(default_factory=dict)
    quantity: str | None = None
    default_quantity: str = "loss"
    title: str | None = None
    formats: tuple[str, ...] = ("png",)
    size: tuple[float, float] | None = None
    dpi: float = DPI
    style: Path | None = None
    limits: Mapping[str, Limits] = field(default_factory=dict)
    logs: Mapping[str, bool] = field(default_factory=dict)
    unit: str = "mean-loss"
    told: str = ""
    boundaries: Sequence[Sequence[Mapping[str, Array]]] = field(default_factory=list)
    smooth: Sequence[Block | None] = ()
    smooth_axis: str | None = None

    @property
    def images(self) -> tuple[str, ...]:
        """The formats of figures that do not move."""
        return tuple(one for one in self.formats if one != HTML)


def read_drawing(settings: Mapping[str, Any], **more: Any) -> Drawing:
    """Return how to draw from the options of figures as a user writes them; `more` are fields of `Drawing`.

    Raises:
        UsageError: a text that is no kind, style file, format, size or pair of limits.
        MissingExtraError: figures for a browser without the package that makes them.
    """
    kind, style = _style(settings.get("style") or "auto")
    limits = {role: _limits(f"{role}lim", text) for role in ("x", "y") if (text := settings.get(f"{role}lim"))}
    logs = {role: bool(value) for role in ("x", "y") if (value := settings.get(f"log_{role}")) is not None}
    for role, (low, _) in limits.items():
        if logs.get(role) and low <= 0:
            raise UsageError(f"{role}lim: {settings[f'{role}lim']} is not for a logarithmic axis; begin above 0.")
    values = {
        "kind": kind,
        "style": style,
        "limits": limits,
        "logs": logs,
        "quantity": settings.get("quantity"),
        "title": settings.get("title"),
        "formats": _formats(settings.get("format") or "png"),
        "size": _size(settings["size"]) if settings.get("size") else None,
        "dpi": settings.get("dpi") or DPI,
    }
    return Drawing(**{**values, **more})


def _style(text: str) -> tuple[str, Path | None]:
    """Read a kind, an mplstyle file or both, joined by a comma."""
    kinds, files = [], []
    for part in (part.strip() for part in text.split(",")):
        (files if part.endswith(".mplstyle") else kinds).append(part)
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(
                f"style: '{kind}' is unknown; use {', '.join(KINDS)} or a FILE.mplstyle{suggest(kind, KINDS)}."
            )
    if len(kinds) > 1 or len(files) > 1:
        raise UsageError(f"style: '{text}' names two of a kind; use one of {', '.join(KINDS)} and one FILE.mplstyle.")
    path = expanded(files[0]) if files else None
    if path is not None and not path.is_file():
        raise UsageError(f"style: '{path}' is no file; give the path of an mplstyle file.")
    return (kinds[0] if kinds else "auto"), path


def _formats(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part.strip() for part in str(text).split(",")))
    for one in found:
        if one not in FORMATS:
            near = suggest(one, FORMATS)
            raise UsageError(
                f"format: '{one}' is unknown; use one of {', '.join(FORMATS)}, or several as png,pdf{near}."
            )
    if HTML in found and importlib.util.find_spec("plotly") is None:
        raise MissingExtraError("format: html needs plotly, which is not installed: pip install 'tlcli[html]'.")
    return found


def _size(text: str) -> tuple[float, float]:
    match = re.fullmatch(r"\s*(\d*\.?\d+)\s*[x×]\s*(\d*\.?\d+)\s*", text)
    size = (float(match[1]), float(match[2])) if match else (0.0, 0.0)
    if not all(_INCHES[0] <= side <= _INCHES[1] for side in size):
        allowed = f"each from {_INCHES[0]:g} to {_INCHES[1]:g}"
        raise UsageError(f"size: '{text}' is no size; give WIDTHxHEIGHT in inches, {allowed}, as 3.4x2.6.")
    return size


def _limits(name: str, text: str) -> Limits:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = math.nan
    if not (np.isfinite([low, high]).all() and low < high):
        raise UsageError(f"{name}: '{text}' is no range; give two numbers, the lower first, as 0,1.5.")
    return low, high
