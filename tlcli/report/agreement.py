"""Is a table complete, converged, and does the experiment agree with theory? In units of the standard error.

A table holds many comparisons, each with a standard error estimated from few trials. A comparison is judged by
its Student-t probability; the smallest of all, times their number, must not be rarer than one Gaussian number
beyond `sigmas`. So a correct table fails as rarely whatever its size. Few trials make single comparisons weak, so
each column is judged as a whole too: the scatter of all its differences (chi-squared) and their mean.

Theory holds for D → ∞: a systematic difference of `finite_size`/D of the theory's value is allowed, and of the gains of
classifiers as much of the error or loss that they are differences of, for both have a bias of their own. The network
experiment has a bias in 1/N as well; with two widths or more its means are extrapolated to N = ∞ first. Rows whose
alpha D is no whole number are not compared: the experiment has another alpha than the theory there.

Nonlinear networks (tables with a column `nets`) are compared on the very same data, so nothing is allowed for D.
Their theory is sampled and has standard errors of its own, which add to those of the experiment in quadrature; the
errors of both integrations in time are allowed for. The records of one training run belong together, and all points
share the theory's neurons: in the judgement of whole columns the former count as fully correlated, the latter as far
as their error is the theory's.
"""

import json
import math
import os
import re
from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from tlcli.errors import UsageError
from tlcli.options.columns import BEST_LOSS
from tlcli.report.files import content_of
from tlcli.report.sound import BESIDE, Fault, read_content
from tlcli.report.trim import Trim, read_trim

_KEPT = 10  # repeated lines that are named
_UNSOLVED = ("not_converged", "failed")
# What is compared of a diverged row: its coefficients are limits that no finite experiment has.
_LOSSES = ("loss", "baseline", "gain", "train_loss", "source_loss", "test_loss", "error")
_ROUNDING = 1e-9
# Gains of classifiers are small differences of errors or losses, of which each has its own bias in 1/D.
_DIFFERENCES = {
    "gain": "error",
    "noisy_gain": "noisy_error",
    "log_loss_gain": "log_loss",
    "square_loss_gain": "square_loss",
}
_LARGEST = 8.0  # one impossible number shall not hide how the others scatter


def _sigmas_of(tail: float) -> float:
    """Return the distance beyond which a Gaussian number has that probability, on one side."""
    return float(-special.ndtri(tail))


@dataclass(frozen=True)
class Comparison:
    """One number of theory and of experiment; `sigmas` is the Gaussian equivalent of its probability.

    `run` names the training run of a record (None: a row of its own), `shared` is the part of the squared error that is
    the theory's and so the same in all rows.
    """

    row: int
    name: str
    theory: float
    mean: float
    error: float
    probability: float
    run: int | None = None
    shared: float = 0.0

    @property
    def sigmas(self) -> float:
        """The distance that a Gaussian number exceeds with the same probability."""
        return _sigmas_of(max(self.probability, 1e-300) / 2)


@dataclass(frozen=True)
class Pooled:
    """All comparisons of one column: Gaussian equivalents of their scatter and of their mean difference."""

    name: str
    count: int
    scatter: float
    bias: float

    @property
    def sigmas(self) -> float:
        """The larger of the two."""
        return max(self.scatter, self.bias)


@dataclass(frozen=True)
class Agreement:
    """What a table says: rows, rows expected by its provenance (None: unknown), unsolved rows, comparisons."""

    rows: int
    expected: int | None
    unsolved: int
    missing: int
    comparisons: Sequence[Comparison]
    widths_needed: bool
    skipped: int = 0  # rows whose alpha D is no whole number
    blank: int = 0  # measured numbers without a finite theory beside them
    inaccurate: int = 0  # rows of theory whose error is beyond the accuracy asked for
    measured: int = 0  # columns of the experiment
    left_out: Sequence[str] = ()  # columns that the run did not write, as asked
    beside: bool = False  # a table beside the main one, as boundary.csv: nobody counts its rows, which have no status
    unjudged: bool = False  # no column and no provenance says whether its rows are converged
    faults: Sequence[Fault] = ()  # cells and lines that make the table meaningless: the first of them
    faulty: int = 0  # how many there are
    twice: int = 0  # lines that say what an earlier one said
    repeated: Sequence[tuple[int, int]] = ()  # the first of them, and the earlier ones

    def pooled(self) -> list[Pooled]:
        """Judge every column as a whole."""
        out = []
        for name in dict.fromkeys(c.name for c in self.comparisons):
            members = [c for c in self.comparisons if c.name == name]
            z = np.array([math.copysign(min(c.sigmas, _LARGEST), c.mean - c.theory) for c in members])
            total, squares = _correlation(members)
            # The sum of squares of correlated numbers is nearly a scaled chi-squared (Satterthwaite).
            scatter_tail = special.chdtrc(z.size**2 / squares, float(z @ z) * z.size / squares)
            tails = (scatter_tail, 2 * special.ndtr(-abs(z.sum()) / math.sqrt(total)))
            scatter, bias = (_sigmas_of(max(float(tail), 1e-300) / 2) for tail in tails)
            out.append(Pooled(name, z.size, max(scatter, 0.0), bias))
        return out

    def disagreeing_columns(self, sigmas: float) -> list[Pooled]:
        """The columns that disagree as a whole, worst first."""
        found = self.pooled()
        limit = self._limit(sigmas, 2 * len(found))
        return sorted((p for p in found if p.sigmas > limit), key=lambda p: -p.sigmas)

    def worst(self) -> Comparison | None:
        """The least probable comparison."""
        return min(self.comparisons, key=lambda c: c.probability, default=None)

    def threshold(self, sigmas: float) -> float:
        """The distance that a single comparison may have, given how many there are."""
        return self._limit(sigmas, len(self.comparisons))

    @staticmethod
    def _limit(sigmas: float, count: int) -> float:
        family = 2 * special.ndtr(-sigmas)
        return _sigmas_of(family / max(count, 1) / 2)

    def disagreeing(self, sigmas: float) -> list[Comparison]:
        """The comparisons beyond the threshold, worst first."""
        limit = self.threshold(sigmas)
        return sorted((c for c in self.comparisons if c.sigmas > limit), key=lambda c: c.probability)


def _correlation(members: Sequence[Comparison]) -> tuple[float, float]:
    """Return the sum of all entries of the correlation matrix of comparisons, and the sum of their squares.

    Records of one run correlate by 1, others by the root of the product of their shared parts; n and n without any.
    """
    runs: dict[Any, list[float]] = defaultdict(list)
    for index, c in enumerate(members):
        runs[("run", c.run) if c.run is not None else index].append(c.shared)
    within = sum(len(shared) ** 2 for shared in runs.values())
    roots = np.array([np.sqrt(shared).sum() for shared in runs.values()])
    sums = np.array([np.sum(shared) for shared in runs.values()])
    return (
        within + float(roots.sum() ** 2 - roots @ roots),
        within + float(sums.sum() ** 2 - sums @ sums),
    )


def assess(path: Path, finite_size: float = 1.0) -> Agreement:
    """Read a table (or the folder that holds it) and its provenance, and compare.

    A table with faults is not compared: its numbers mean nothing before these are mended.

    Raises:
        UsageError: no such table, or a file that is none.
    """
    table = path / "table.csv" if os.path.isdir(path) else path  # of pathlib it may raise
    provenance = table.with_name("provenance.json")
    trim = read_trim(provenance) if table.name == "table.csv" else None
    tally = _Tally(trim)
    content = read_content(table, tally.see, trimmed=trim is not None)
    header, rows, lines = tally.header, tally.rows, tally.lines
    expected, beside = None, bool(BESIDE.intersection(content.header))
    if provenance.exists() and not beside:
        try:
            expected = json.loads(content_of(provenance)).get("rows")
            if expected is not None and type(expected) is not int:
                raise ValueError
        except (ValueError, OSError, AttributeError, RecursionError):  # no JSON, no text, no mapping
            raise UsageError(f"'{provenance}' is not the JSON file that belongs beside a table.") from None
    if content.faults:
        return Agreement(tally.count, expected, 0, 0, (), False, faults=content.faults, faulty=content.count)
    names = tally.names
    runs = _runs(rows, lines, header) if "nets" in header else {}
    groups = _groups(rows, lines, header, names)
    whole = [(index, group) for index, group in groups if _whole_samples(group[0])]
    with np.errstate(all="ignore"):  # numbers near the ends of their range
        tried = [_compare(index, group, name, finite_size, runs) for index, group in whole for name in names]
    measured = [found for found in tried if found is not None]
    comparisons = [found for found in measured if math.isfinite(found.theory)]
    skipped, blank = len(groups) - len(whole), len(measured) - len(comparisons)
    return Agreement(
        *(tally.count, expected, tally.unsolved, tally.missing, comparisons, len(tally.widths) == 1),
        *(skipped, blank, tally.inaccurate, len(names)),
        left_out=() if trim is None else trim.left_out,
        beside=beside,
        unjudged="status" not in header and not beside,
        **({} if beside else tally.repeated()),
    )


class _Tally:
    """What is counted of a table while it is read; rows are kept of experiments alone, which are to be compared."""

    def __init__(self, trim: Trim | None) -> None:
        self._trim = trim
        self.header: list[str] = []
        self.names: list[str] = []  # what theory and experiment have in common
        self.rows: list[Mapping[str, str]] = []
        self.lines: list[int] = []
        self.widths: set[str] = set()
        self.count = self.unsolved = self.inaccurate = self.missing = 0
        self._seen, self._at = array("q"), array("q")  # a number for the cells of every row, and its line: 16 bytes

    def repeated(self) -> dict[str, Any]:
        """Return how many rows stand in the table before, the lines of the first of them, and where."""
        seen, at = (np.frombuffer(numbers, dtype=np.int64) for numbers in (self._seen, self._at))
        order = np.argsort(seen, kind="stable")
        same = np.flatnonzero(np.diff(seen[order]) == 0)
        pairs = np.stack([at[order[same + 1]], at[order[same]]], axis=1)
        first = pairs[np.argsort(pairs[:, 0])[:_KEPT]]
        return {"twice": len(pairs), "repeated": [(int(line), int(earlier)) for line, earlier in first]}

    def see(self, line: int, row: Mapping[str, str]) -> None:
        """Count a row of the file."""
        self._seen.append(hash(tuple(row.values())))
        self._at.append(line)
        if self._trim is not None:  # constant columns say what an experiment has: its dimension, trials and nets
            (row,) = self._trim.whole([row])
        if not self.count:
            self.header = list(row)
            names = [name for name in row if f"sim_{name}" in row and f"sim_{name}_se" in row]
            self.names = [name for name in names if name != BEST_LOSS]  # a least value: below its mean, not a row's own
        self.count += 1
        self.unsolved += row.get("status") in _UNSOLVED
        self.inaccurate += row.get("status") == "inaccurate"
        self.missing += row.get("sim_status", "ok") not in ("ok", "")
        if row.get("width"):
            self.widths.add(row["width"])
        if self.names:
            self.rows.append(row)
            self.lines.append(line)


def _whole_samples(row: Mapping[str, str]) -> bool:
    """Whether the experiment could draw exactly alpha D samples; it rounds."""
    try:
        size = float(row.get("dim") or "inf")
        named = [(re.fullmatch(r"alpha_?(\d+)", name), cell) for name, cell in row.items() if cell]
        # A table that counts the samples says what theory and experiment have in common.
        alphas = [float(cell) for match, cell in named if match and not row.get(f"p{match[1]}")]
    except ValueError:
        return True
    samples = [alpha * size for alpha in alphas if math.isfinite(alpha * size)]
    return all(abs(count - round(count)) < 1e-6 for count in samples)


def _groups(
    rows: Sequence[Mapping[str, str]], lines: Sequence[int], header: Sequence[str], names: Sequence[str]
) -> list[tuple[int, list[Mapping[str, str]]]]:
    """Put the widths of one network point together; every other row is its own group."""
    measured = {f"sim_{name}{suffix}" for name in names for suffix in ("", "_se")} | {"width"}
    same = [name for name in header if name not in measured and not name.startswith("sim_")]
    groups: dict[Any, list[Any]] = defaultdict(list)
    for index, row in zip(lines, rows, strict=True):
        key = tuple(row[name] for name in same) if row.get("width") else index
        groups[key].append((index, row))
    return [(members[0][0], [row for _, row in members]) for members in groups.values()]


def _runs(rows: Sequence[Mapping[str, str]], lines: Sequence[int], header: Sequence[str]) -> dict[int, int]:
    """Return line -> number of its training run: rows that differ in stage, time and what was found there only."""
    first = next((name for name in ("stage", "time") if name in header), None)
    fixed = header[: header.index(first)] if first else header  # parameters stand first
    numbers: dict[Any, int] = {}
    keys = [tuple(row[name] for name in fixed) for row in rows]
    return {line: numbers.setdefault(key, len(numbers)) for line, key in zip(lines, keys, strict=True)}


def _compare(
    index: int,
    group: Sequence[Mapping[str, str]],
    name: str,
    finite_size: float,
    runs: Mapping[int, int],
) -> Comparison | None:
    diverged = group[0].get("status") == "diverged" and name not in _LOSSES
    theory = math.nan if diverged else _number(group[0][name])
    means = np.array([float(row[f"sim_{name}"] or "nan") for row in group])
    errors = np.array([float(row[f"sim_{name}_se"] or "nan") for row in group])
    freedom = float(group[0].get("trials") or "inf") - 1
    size = float(group[0].get("dim") or "inf")
    ours, slack = 0.0, 0.0
    if group[0].get("nets"):
        freedom = float(group[0].get("draws") or 1) * (float(group[0]["nets"]) - 1)
        size = math.inf
        ours = float(group[0].get(f"{name}_se") or "nan")
        ours = ours if math.isfinite(ours) else 0.0
        slack = _slack(group)
    widths = np.array([float(row.get("width") or "inf") for row in group])
    mean, error = (means[0], errors[0]) if len(group) == 1 else _extrapolate(widths, means, errors)
    if not (math.isfinite(mean) and math.isfinite(error) and freedom > 0):
        return None
    if not math.isfinite(theory):
        return Comparison(index, name, theory, float(mean), float(error), math.nan)
    whole = abs(theory) if name not in _DIFFERENCES else _of_classifiers(group[0], name, abs(theory))
    allowed = finite_size / size * whole + _ROUNDING * (1 + abs(theory)) + slack
    measured = error
    error = math.hypot(measured, ours)
    # The quadrature of an estimated and a known error: the freedom grows as the former's share falls (Welch).
    freedom = freedom * (error / measured) ** 4 if measured > 0 else math.inf
    excess = max(abs(mean - theory) - allowed, 0.0)
    if excess == 0.0:
        probability = 1.0
    elif error == 0.0:
        probability = 0.0
    else:
        away = -excess / error
        probability = float(2 * special.stdtr(freedom, away) if math.isfinite(freedom) else 2 * special.ndtr(away))
    shared = (ours / error) ** 2 if error > 0 else 0.0
    return Comparison(index, name, theory, float(mean), float(error), probability, runs.get(index), shared)


def _of_classifiers(row: Mapping[str, str], name: str, gain: float) -> float:
    """Return what a gain of linear classifiers is a difference of; other gains stand for themselves."""
    measure = _number(row.get(_DIFFERENCES[name]) or "") if "separability" in row else math.nan
    return max(gain, abs(measure)) if math.isfinite(measure) else gain


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:  # empty, or an expression
        return math.nan


def _slack(group: Sequence[Mapping[str, str]]) -> float:
    """Return what the step of gradient descent may change; the theory's own integration is in its standard errors."""
    steps = [float(row.get("sim_step_error") or "nan") for row in group]
    return max((step for step in steps if math.isfinite(step)), default=0.0)


def _extrapolate(widths: Any, means: Any, errors: Any) -> tuple[float, float]:
    """Fit mean = a + b/N by weighted least squares; return a and its standard error."""
    largest = errors.max()
    if not largest > 0:  # exact numbers (or none): nothing to weigh, and no error to propagate
        return float(means[np.argmax(widths)]), float(largest)
    weights = 1 / np.maximum(errors, 1e-6 * largest)
    design = np.column_stack([np.ones_like(widths), 1 / widths])
    # Not by the normal equations: weights of very different errors would leave them no digit.
    row = np.linalg.pinv(weights[:, None] * design)[0]
    return float(row @ (weights * means)), float(np.linalg.norm(row))
