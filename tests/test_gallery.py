"""What the gallery says about a recipe is what the recipe's own table shows: numbers of a verdict, read from both."""

import csv
import math
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.recipe_regression import CI_FLAGS, RECIPES
from tests.test_recipe_physics import run

DOCS = Path(__file__).resolve().parent.parent / "docs"
TABLES = DOCS / "tables"  # of recipes that tests run at a smaller size: written with the figures, by docs/figures.py


@cache
def sections():
    """Text of the gallery by recipe, on one line, minus signs as Python writes them."""
    text = (DOCS / "gallery.md").read_text(encoding="utf-8").replace("−", "-")
    found = {}
    for title, body in re.findall(r"^### (.*)\n((?:(?!^##).*\n?)*)", text, re.MULTILINE):
        for name in re.findall(r"`([\w-]+)\.yaml`", title):
            found[name] = " ".join(body.split())
    return found


@cache
def rows(name):
    """Rows of the recipe's whole table, which its figure in the gallery shows."""
    if name not in CI_FLAGS:
        return run(name).rows
    with (TABLES / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def pick(name, key, **wanted):
    """Column `key` of the rows whose cells are `wanted` (numbers by value, words by their beginning)."""
    kept = [row for row in rows(name) if all(_is(row[k], value) for k, value in wanted.items())]
    assert kept, (name, wanted)
    return np.array([float(row[key] or "nan") for row in kept])


def _is(cell, value):
    return cell.startswith(value) if isinstance(value, str) else math.isclose(float(cell or "nan"), value, abs_tol=1e-9)


def alignment():
    exact, cancelled = (
        pick("fig1b-alignment", "loss", case=f"$\\rho_\\xi = {w}$", gamma0=np.inf) for w in ("0", "-0.5")
    )
    assert np.all(np.diff(exact) < 0)
    rho = pick("fig1b-alignment", "rho", case="$\\rho_\\xi = -0.5$", gamma0=np.inf)
    top = cancelled.argmax()
    assert np.all(np.diff(cancelled[: top + 1]) > 0)
    assert np.all(np.diff(cancelled[top:]) < 0)
    return [
        f"from {cancelled[0]:.3f} to {cancelled[top]:.3f} at $\\rho = {rho[top]:.1f}$, and falls to {cancelled[-1]:.3f}"
    ]


# What each section must say, made of its table.
SAYS = {"fig1b-alignment": alignment}


@pytest.mark.parametrize("name", SAYS)
def test_the_gallery_says_what_the_table_shows(name):
    missing = [words for words in SAYS[name]() if words not in sections()[name]]
    assert not missing, f"the table of {name} shows {missing}; the gallery: {sections()[name]}"


def test_every_recipe_has_its_section():
    assert sections().keys() >= {path.stem for path in RECIPES}
