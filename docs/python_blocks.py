"""Write the Python of every page as a module of its own, so that `make lint` checks its types.

python docs/python_blocks.py    docs/_build/python/PAGE.py, its lines where they stand in the page
"""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md")), *sorted((DOCS / "tutorials").glob("*.md"))]
FOLDER = DOCS / "_build" / "python"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def python_of(text: str) -> str:
    """Return the blocks of a page as one program, on the page's own lines; empty where there are none."""
    program, line = "", 1
    for block in BLOCK.finditer(text):
        begin = text.count("\n", 0, block.start(1)) + 1
        program += "\n" * (begin - line) + block[1]
        line = begin + block[1].count("\n")
    return program


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.py"):
        old.unlink()
    for page in PAGES:
        if program := python_of(page.read_text(encoding="utf-8")):
            (FOLDER / f"{page.stem.replace('-', '_')}.py").write_text(program, encoding="utf-8")


if __name__ == "__main__":
    main()
