"""Is a table complete, converged, and does the experiment agree with theory? In units of the standard error.

A table holds many comparisons, each with a standard error estimated from few trials. A comparison is judged by
its Student-t probability; the smallest of all, times their number, must not be rarer than one Gaussian number
beyond `sigmas`. So a correct table fails as rarely whatever its size.

Theory holds for D → ∞: a systematic difference of `finite_size`/D of the theory's value is allowed. The network
experiment has a bias in 1/N as well; with two widths or more its means are extrapolated to N = ∞ first.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from tlcli.errors import UsageError
from tlcli.report.tables import read_table

_UNSOLVED = ("not_converged", "failed")
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Comparison:
    """One number of theory and of experiment; `sigmas` is the Gaussian equivalent of its probability."""

    row: int
    name: str
    theory: float
    mean: float
    error: float
    probability: float

    @property
    def sigmas(self) -> float:
        """The distance that a Gaussian number exceeds with the same probability."""
        return float(stats.norm.isf(max(self.probability, 1e-300) / 2))


@dataclass(frozen=True)
class Agreement:
    """What a table says: rows, rows expected by its provenance (None: unknown), unsolved rows, comparisons."""

    rows: int
    expected: int | None
    unsolved: int
    missing: int
    comparisons: Sequence[Comparison]
    widths_needed: bool

    def worst(self) -> Comparison | None:
        """The least probable comparison."""
        return min(self.comparisons, key=lambda c: c.probability, default=None)

    def threshold(self, sigmas: float) -> float:
        """The distance that a single comparison may have, given how many there are."""
        family = 2 * stats.norm.sf(sigmas)
        return float(stats.norm.isf(family / max(len(self.comparisons), 1) / 2))

    def disagreeing(self, sigmas: float) -> list[Comparison]:
        """The comparisons beyond the threshold, worst first."""
        limit = self.threshold(sigmas)
        return sorted((c for c in self.comparisons if c.sigmas > limit), key=lambda c: c.probability)


def assess(path: Path, finite_size: float = 1.0) -> Agreement:
    """Read a table (or the folder that holds it) and its provenance, and compare.

    Raises:
        UsageError: no such table, or cells that are no numbers.
    """
    table = path / "table.csv" if path.is_dir() else path
    header, rows = read_table(table)
    provenance = table.with_name("provenance.json")
    expected = None
    if provenance.exists():
        try:
            expected = json.loads(provenance.read_text(encoding="utf-8")).get("rows")
        except (json.JSONDecodeError, OSError, AttributeError):
            raise UsageError(f"'{provenance}' is not the JSON file that belongs beside a table.") from None
    names = [name for name in header if f"sim_{name}_se" in header]
    unsolved = sum(row.get("status") in _UNSOLVED for row in rows)
    missing = sum(row.get("sim_status", "ok") not in ("ok", "") for row in rows)
    comparisons = [
        found
        for index, group in _groups(rows, header, names)
        for name in names
        if (found := _compare(index, group, name, table, finite_size)) is not None
    ]
    single = any(row.get("width") for row in rows) and len({r["width"] for r in rows if r.get("width")}) < 2
    return Agreement(len(rows), expected, unsolved, missing, comparisons, single)


def _groups(
    rows: Sequence[Mapping[str, str]], header: Sequence[str], names: Sequence[str]
) -> list[tuple[int, list[Mapping[str, str]]]]:
    """Put the widths of one network point together; every other row is its own group."""
    measured = {f"sim_{name}{suffix}" for name in names for suffix in ("", "_se")} | {"width"}
    same = [name for name in header if name not in measured and not name.startswith("sim_")]
    groups: dict[Any, list[Any]] = defaultdict(list)
    for index, row in enumerate(rows, start=2):  # the header is line 1
        key = tuple(row[name] for name in same) if row.get("width") else index
        groups[key].append((index, row))
    return [(members[0][0], [row for _, row in members]) for members in groups.values()]


def _compare(
    index: int, group: Sequence[Mapping[str, str]], name: str, table: Path, finite_size: float
) -> Comparison | None:
    try:
        theory = float(group[0][name] or "nan")
        means = np.array([float(row[f"sim_{name}"] or "nan") for row in group])
        errors = np.array([float(row[f"sim_{name}_se"] or "nan") for row in group])
        freedom = float(group[0].get("trials") or "inf") - 1
        size = float(group[0].get("dim") or "inf")
        widths = np.array([float(row.get("width") or "inf") for row in group])
    except ValueError:
        raise UsageError(f"table '{table}': line {index} has a cell under '{name}' that is no number.") from None
    mean, error = (means[0], errors[0]) if len(group) == 1 else _extrapolate(widths, means, errors)
    if not (math.isfinite(theory) and math.isfinite(mean) and math.isfinite(error)):
        return None
    allowed = (finite_size / size + _ROUNDING) * abs(theory) + _ROUNDING
    excess = max(abs(mean - theory) - allowed, 0.0)
    if excess == 0.0:
        probability = 1.0
    elif error == 0.0:
        probability = 0.0
    else:
        probability = float(
            2 * stats.t.sf(excess / error, freedom) if math.isfinite(freedom) else 2 * stats.norm.sf(excess / error)
        )
    return Comparison(index, name, theory, float(mean), float(error), probability)


def _extrapolate(widths: Any, means: Any, errors: Any) -> tuple[float, float]:
    """Fit mean = a + b/N by weighted least squares; return a and its standard error."""
    largest = errors.max()
    if not largest > 0:  # exact numbers (or none): nothing to weigh, and no error to propagate
        return float(means[np.argmax(widths)]), float(largest)
    weights = 1 / np.maximum(errors, 1e-6 * largest) ** 2
    design = np.column_stack([np.ones_like(widths), 1 / widths])
    normal = design.T @ (weights[:, None] * design)
    covariance = np.linalg.pinv(normal, hermitian=True)
    return float((covariance @ design.T @ (weights * means))[0]), float(np.sqrt(covariance[0, 0]))
