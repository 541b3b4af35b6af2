"""A figure as one file for a browser: it holds its program and its provenance, and asks no network for anything."""

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlcli.report.files import atomic
from tlcli.version import __version__

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DIV = "tlcli-figure"
META = "tlcli-provenance"
# The browser itself refuses what would be loaded from elsewhere; images are those that a reader saves.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_CONFIG = {"responsive": True, "displaylogo": False, "toImageButtonOptions": {"format": "svg"}}
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="generator" content="{program}">
<meta name="{meta}" content="{facts}">
<title>{title}</title>
<style>html, body {{ margin: 0; height: 100%; }} #{div} {{ height: 98vh; }}</style>
</head>
<body>
<div id="{div}"></div>
<script>{library}</script>
<script>Plotly.newPlot("{div}", {data}, {layout}, {config});</script>
</body>
</html>
"""


def save_page(figure: "Figure", path: Path, content: Mapping[str, Any], title: str) -> None:
    """Write a figure; equal figures are equal bytes.

    Raises:
        WriteError: the file cannot be written.
    """
    import plotly
    from plotly.offline import get_plotlyjs

    parts = json.loads(figure.to_json() or "{}")
    text = _PAGE.format(
        policy=_POLICY,
        program=html.escape(f"tlcli {__version__}, plotly {plotly.__version__}"),
        meta=META,
        facts=html.escape(json.dumps(content, sort_keys=True)),
        title=html.escape(title),
        div=DIV,
        library=get_plotlyjs(),
        data=_script(parts["data"]),
        layout=_script(parts["layout"]),
        config=_script(_CONFIG),
    )
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _script(value: Any) -> str:
    """Return JSON that cannot end the script in which it stands."""
    return json.dumps(value, sort_keys=True).replace("<", "\\u003c")
