"""Run a recipe and reduce it to what is pinned: a few hundred rows, boundary points, the structure of its figures."""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from tlcli.cli.commands import COMMANDS
from tlcli.cli.execute import execute_recipe
from tlcli.recipes import load_recipe
from tlcli.report import draw

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
REFERENCE = ROOT / "tests" / "reference"
MOST_ROWS = 300

# Experiments at a cost that CI can pay; the full-size figures come from `make figures`.
CI_FLAGS: dict[str, dict[str, Any]] = {"digits-spectrum": {"trials": "4"}}

# (relative, absolute) tolerance per column: closed forms to rounding, the rest to what its algorithm promises.
TOLERANCE: dict[str, tuple[float, float]] = {
    "gamma0_opt": (1e-5, 1e-9),  # where a minimum is flat, its position is known to the root of the rounding error
    "sim_": (1e-6, 1e-9),  # linear algebra libraries differ
}
INTEGRATED = {"joint-rich": (1e-7, 1e-9), "curriculum": (1e-7, 1e-9)}
CLOSED_FORM = (1e-9, 1e-12)
LARGEST_RESIDUAL = 1e-6


@dataclass(frozen=True)
class Outcome:
    """Pinned rows of the table and of the boundary (header first), and the structure of every figure."""

    table: list[list[str]]
    boundary: list[list[str]]
    figures: list[dict[str, Any]]


def run_recipe(path: Path, folder: Path) -> Outcome:
    """Run the recipe into `folder` and reduce it."""
    recipe = load_recipe(path)
    assert recipe.command is not None
    structures: list[dict[str, Any]] = []
    save = draw.save

    def record(figure: Any, target: Path, about: Any) -> None:
        structures.append({"file": target.name, **structure(figure)})
        save(figure, target, about)

    flags = {"output": str(folder), "quiet": True, **CI_FLAGS.get(path.stem, {})}
    with patch.object(draw, "save", record):
        code = execute_recipe(recipe.command, COMMANDS[recipe.command].options, recipe, flags)
    assert code == 0, f"{path.name} ended with exit code {code}"
    return Outcome(pinned_rows(folder / "table.csv"), pinned_rows(folder / "boundary.csv"), structures)


def structure(figure: Any) -> dict[str, Any]:
    """What a reader sees of a figure, without its numbers."""
    panels = [
        {
            "title": axis.get_title(),
            "x": axis.get_xlabel(),
            "y": axis.get_ylabel(),
            "scales": [axis.get_xscale(), axis.get_yscale()],
            "lines": len(axis.lines),
            "collections": len(axis.collections),
            "error_bars": len(axis.containers),
        }
        for axis in figure.axes
    ]
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return {"title": figure.get_suptitle(), "panels": panels, "legend": legends}


def pinned_rows(path: Path) -> list[list[str]]:
    """Return header and at most `MOST_ROWS` evenly spread rows, each with its number in front."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    kept = np.unique(np.linspace(0, len(rows) - 1, min(MOST_ROWS, len(rows))).round().astype(int))
    return [["row", *header], *([str(i), *rows[i]] for i in kept)]


def differences(name: str, found: list[list[str]], reference: list[list[str]]) -> list[str]:
    """Compare pinned rows; one line per cell that differs, with value, reference, difference and tolerance."""
    if not found or not reference:
        return [] if found == reference else [f"{name}: {len(found)} lines, reference {len(reference)}"]
    if found[0] != reference[0]:
        return [f"{name}: columns {found[0]}, reference {reference[0]}"]
    if len(found) != len(reference):
        return [f"{name}: {len(found)} lines, reference {len(reference)}"]
    lines = []
    for row, expected in zip(found[1:], reference[1:], strict=True):
        for column, value, wanted in zip(found[0], row, expected, strict=True):
            if problem := _difference(name, column, value, wanted):
                lines.append(f"{name} row {row[0]} {column}: {problem}")
    return lines


def _difference(name: str, column: str, value: str, wanted: str) -> str | None:
    try:
        number, reference = float(value), float(wanted)
    except ValueError:
        return None if value == wanted else f"value {value!r}, reference {wanted!r}"
    if column == "residual":
        return None if number <= LARGEST_RESIDUAL else f"value {number:g}, tolerance {LARGEST_RESIDUAL:g}"
    if number == reference or (math.isnan(number) and math.isnan(reference)):
        return None
    relative, absolute = tolerance(name, column)
    allowed = absolute + relative * abs(reference)
    if abs(number - reference) <= allowed:
        return None
    return f"value {value}, reference {wanted}, difference {number - reference:.3g}, tolerance {allowed:.3g}"


def tolerance(name: str, column: str) -> tuple[float, float]:
    """Return the (relative, absolute) tolerance of a column in a recipe's table."""
    if column.startswith("sim_"):
        return TOLERANCE["sim_"]
    return TOLERANCE.get(column, INTEGRATED.get(name.split()[0], CLOSED_FORM))


def read_reference(name: str) -> Outcome:
    """Read what is pinned for the recipe `name`."""

    def rows(path: Path) -> list[list[str]]:
        if not path.exists():
            return []
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.reader(stream))

    figures = json.loads((REFERENCE / "figures" / f"{name}.json").read_text(encoding="utf-8"))
    tables = REFERENCE / "recipes"
    return Outcome(rows(tables / f"{name}.csv"), rows(tables / f"{name}.boundary.csv"), figures)


def write_reference(name: str, outcome: Outcome) -> None:
    """Pin the outcome of the recipe `name`."""
    for part in ("recipes", "figures"):
        (REFERENCE / part).mkdir(parents=True, exist_ok=True)
    for suffix, rows in (("", outcome.table), (".boundary", outcome.boundary)):
        path = REFERENCE / "recipes" / f"{name}{suffix}.csv"
        path.unlink(missing_ok=True)
        if rows:
            with path.open("w", encoding="utf-8", newline="") as stream:
                csv.writer(stream, lineterminator="\n").writerows(rows)
    text = json.dumps(outcome.figures, indent=1, ensure_ascii=False) + "\n"
    (REFERENCE / "figures" / f"{name}.json").write_text(text, encoding="utf-8")
