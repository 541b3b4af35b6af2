"""The recipes that come with the program: one for each figure, found by name wherever it is installed."""

import os
from pathlib import Path

from tlcli.errors import UsageError, suggest


def shipped() -> dict[str, Path]:
    """Return the recipes by name: beside the modules of an installed package, else those of the repository."""
    package = Path(__file__).parent.parent
    for folder in (package / "recipes", package.parent / "recipes"):
        found = {path.stem: path for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem)}
        if found:
            return found
    return {}


def find_recipe(path: Path) -> Path:
    """Return `path` where it exists, else the shipped recipe of that name.

    Raises:
        UsageError: a plain name that no shipped recipe has, with the nearest one.
    """
    if os.path.exists(path) or path.suffix or path.name != str(path):
        return path
    known = shipped()
    if path.name not in known:
        raise UsageError(
            f"'{path}' is no file and no recipe that comes with tlcli{suggest(path.name, known)}; "
            "`tlcli recipes` lists them."
        )
    return known[path.name]


def title_of(path: Path) -> str:
    """Return what a recipe says it is: its first comment, else nothing."""
    first = path.read_text(encoding="utf-8").splitlines()[:1]
    return first[0].lstrip("# ").strip() if first and first[0].startswith("#") else ""
