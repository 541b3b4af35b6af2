"""Recipes wherever they are: files, shipped ones by name, mappings, and what a result holds of the run that made it.

A provenance and a figure hold the resolved recipe with its command and seed: with them a run is done again.
"""

import json
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from tlcli.errors import RecipeError, TlcliError
from tlcli.paths import expanded
from tlcli.recipe_text import MAX_BYTES
from tlcli.report.provenance import PROVENANCE
from tlcli.run.recipe import Recipe, load_recipe, parse_recipe
from tlcli.run.shipped import find_recipe

FIGURES = (".png", ".pdf", ".svg", ".html")
_DEEPEST = 5  # levels of a mapping
_LARGEST = 100 * MAX_BYTES  # of a figure, whose recipe is a small part


def any_recipe(given: Any, name: str = "recipe") -> Recipe:
    """Return a recipe from a mapping, a path, a name of one that comes with tlcli, or a result's file.

    Raises:
        RecipeError: it is none of these, or cannot be used.
    """
    if isinstance(given, Recipe):
        return given
    if isinstance(given, Mapping):
        return parse_recipe({key: _plain(key, value) for key, value in given.items()}, name)
    if not isinstance(given, (str, PathLike)):
        raise RecipeError(f"a recipe is a mapping, a file or a name, not {type(given).__name__} {str(given)[:60]!r}.")
    path = expanded(given)
    if path.suffix.lower() in (".json", *FIGURES):
        return recipe_inside(path)
    return load_recipe(find_recipe(path))


def _plain(key: str, value: Any, depth: int = _DEEPEST) -> Any:
    """Return a value of a mapping as YAML would give it."""
    from tlcli.options import OPTIONS
    from tlcli.run.values import plain

    if key in OPTIONS:
        return plain(OPTIONS[key], value)
    if depth == 0:
        raise RecipeError(f"'{key}' holds lists or mappings within others; a recipe has at most {_DEEPEST} levels.")
    if isinstance(value, Mapping):
        return {name: _plain(str(name), part, depth - 1) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain("", part, depth - 1) for part in value]
    return value.tolist() if hasattr(value, "__array__") and hasattr(value, "tolist") else value


def recipe_inside(path: Path) -> Recipe:
    """Return the recipe that a provenance file or a figure holds, named as its folder is.

    Raises:
        RecipeError: the file cannot be read, or holds no recipe of tlcli.
    """
    facts = facts_inside(path)
    beside = path.name == PROVENANCE or (path.parent / PROVENANCE).exists()
    name = re.sub(r"[^\w.+-]+", "-", path.resolve().parent.name if beside else path.stem).lstrip(".") or "again"
    raw = {**facts["recipe"], "command": facts["command"], "seed": facts["seed"], "name": name}
    try:
        return parse_recipe(raw, name)
    except TlcliError as error:
        raise RecipeError(f"'{path}' holds a recipe that this version cannot run: {error}") from None


def facts_inside(path: Path) -> dict[str, Any]:
    """Return command, recipe and seed, and what else a provenance file or a figure tells of its run.

    Raises:
        RecipeError: the file cannot be read, or tells nothing.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except (OSError, ValueError) as error:  # no path at all
        raise RecipeError(f"'{path}' cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    text = {".png": _of_png, ".svg": _of_svg, ".pdf": _of_pdf, ".html": _of_html}.get(path.suffix.lower(), bytes.decode)
    try:
        facts = json.loads(text(data))
    except (ValueError, RecursionError):  # no text, no JSON
        facts = None
    kinds = {"command": str, "recipe": dict, "seed": int}
    if not isinstance(facts, dict) or not all(isinstance(facts.get(n), kind) for n, kind in kinds.items()):
        raise RecipeError(
            f"'{path}' holds no recipe of tlcli; give a recipe (YAML), the provenance.json of a result, or one of its "
            "figures as it was written."
        )
    return facts


def _of_png(data: bytes) -> str:
    at = 8
    while data[:8] == b"\x89PNG\r\n\x1a\n" and at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        content = data[at + 8 : at + 8 + length]
        if kind == b"tEXt" and content.startswith(b"Description\0"):
            return content.partition(b"\0")[2].decode("latin-1")
        at += 12 + length
    return ""


def _of_svg(data: bytes) -> str:
    from html import unescape

    found = re.search(rb"<dc:description>(.*?)</dc:description>", data, re.DOTALL)
    return unescape(found[1].decode()) if found else ""


def _of_html(data: bytes) -> str:
    from html import unescape

    found = re.search(rb'<meta name="tlcli-provenance" content="([^"]*)">', data)
    return unescape(found[1].decode()) if found else ""


def _of_pdf(data: bytes) -> str:
    found = re.search(rb"/Subject \(((?:[^\\()]|\\.)*)\)", data, re.DOTALL)
    if not found:
        return ""
    escapes = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}
    return re.sub(rb"\\(.)", lambda m: escapes.get(m[1], m[1]), found[1], flags=re.DOTALL).decode("latin-1")
