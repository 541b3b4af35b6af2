"""Execute a notebook and write it as a page: its text, its code, what the code prints, and the figures it ends with.

    python docs/notebooks.py docs/notebooks/transfer.ipynb FOLDER

`conf.py` does so at every build, so a page shows what the code does today; an error in a cell breaks the build.
"""

import ast
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def write_page(notebook: Path, folder: Path) -> Path:
    """Execute `notebook` in an empty folder, write its page and figures into `folder`, and return the page."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    parts, space = [], {"__name__": "__notebook__"}
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        for number, cell in enumerate(cells):
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                parts.append(source)
                continue
            parts.append(f"```python\n{source}\n```")
            printed, value = run(source, space)
            if printed:
                parts.append(f"```text\n{printed.rstrip()}\n```")
            if value is not None:
                parts.append(shown(value, folder, f"{notebook.stem}-{number}"))
    page = folder / f"{notebook.stem}.md"
    text = "\n\n".join(parts) + "\n"
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")
    return page


def run(source: str, space: dict[str, Any]) -> tuple[str, Any]:
    """Run one cell; return what it prints and the value of its last expression (None where a semicolon ends it)."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), space)
        value = None
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), space)
    return printed.getvalue(), None if source.rstrip().endswith(";") else value


def shown(value: Any, folder: Path, name: str) -> str:
    """Return what a page shows of a value: a picture where it has one, else its text."""
    png = value._repr_png_() if hasattr(value, "_repr_png_") else None
    if hasattr(value, "savefig"):
        stream = io.BytesIO()
        value.savefig(stream, format="png", dpi=100)
        png = stream.getvalue()
    text = "" if hasattr(value, "savefig") else f"```text\n{value!r}\n```"
    if png is None:
        return text
    (folder / f"{name}.png").write_bytes(png)
    return f"![Figure of the cell above]({name}.png)" + (f"\n\n{text}" if text else "")


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    print(write_page(Path(sys.argv[1]), Path(sys.argv[2])))
