"""Sphinx configuration; the reference pages are written anew from the program at every build."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

import notebooks  # noqa: E402
import reference  # noqa: E402

import tlcli  # noqa: E402

project = "tlcli"
author = "The tlcli developers"
copyright = "The tlcli developers"
version = release = tlcli.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "mathml"]
html_math_renderer = "mathml"
myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_generated", "benchmark-table.md", "coverage-table.md", "deep-coverage-table.md"]
nitpicky = False
highlight_language = "text"

autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"tlcli {version}"
html_show_sourcelink = False


def setup(app):
    """Write the generated pages before Sphinx reads the sources; make plain docstrings safe for it."""
    reference.write_all(HERE / "_generated")
    for notebook in sorted((HERE / "notebooks").glob("*.ipynb")):
        notebooks.write_page(notebook, HERE / "_generated")
    app.connect("autodoc-process-docstring", reference.process_docstring)
