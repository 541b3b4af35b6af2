"""What the points of a Bayesian grid found, joined into columns: means over draws, and the best coupling."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcli.bayes.loss_columns import needs_of
from tlcli.bayes.observables import CERTIFICATE, NEEDS
from tlcli.bayes.saddle import LARGEST_SPREAD_KERNEL, LARGEST_SPREAD_V
from tlcli.errors import part_of
from tlcli.options.columns import SPREAD, SPREAD_CLASSIFIED
from tlcli.status import SIGNIFICANT, SOLVED, Status, phase_of
from tlcli.sweep.runner import Placed
from tlcli.theories.base import Case, Columns, Findings
from tlcli.theories.draws import USERS_ERRORS, by_point, refuse_if_all_failed
from tlcli.theories.network.points import unpack

Record = Mapping[str, Any]

NAMES = tuple(NEEDS)
# Columns of the sampling route that have an error.
ERRORS = (
    *("loss_se", "baseline_se", "gain_se", "source_loss_se", "train_loss_se", "source_train_loss_se"),
    *("source_overlap_se", "target_overlap_se", "cross_overlap_se", "retained_overlap_se"),
)
_CLASSIFIED = ("error_se", "baseline_error_se", "gain_error_se", "source_error_se")  # where labels are classes
_STATUS = {"converged": Status.CONVERGED, "not_converged": Status.NOT_CONVERGED, "failed": Status.FAILED}
FLAT = 1e-9  # of the loss: a line of couplings whose losses differ by less has no best one
_LISTED = 4  # values of an axis in a message


def placeholder(case: Case) -> Columns:
    """Return the columns without any number, so that a figure can be planned before hours of work."""
    certificate = CERTIFICATE if case.theory.name == "bayes-network" else ()
    names = [*names_of(case), "phase", "gap", "gap_floor", *certificate, "residual"]
    several = int(case.words["draws"]) > 1
    spread = SPREAD_CLASSIFIED if case.words.get("losses") else SPREAD
    names += [f"{name}_draw_se" for name in spread if name in names] if several else []
    if case.words.get("optimal_delta") is not False and "delta" in case.grid.axes:
        names += ["delta_opt", "loss_opt", *(["delta_low", "delta_high"] if several else [])]
    return {name: np.full(case.grid.shape, np.nan) for name in names}


def combine(case: Case, found: Sequence[Placed]) -> Findings:
    """Join the records of `tlcli.theories.bayes.points.tasks_of`, one per point and draw.

    A column is the mean over draws. `NAME_draw_se` is the spread of several draws over the root of their number,
    `NAME_se` (nonlinear networks by sampling) the error of the sampling. A number is NaN where a draw has none:
    a mean over the draws that happened to be certified would be another quantity. A row is converged where every draw
    is; gap, its floor, the residual and what else certifies a point are the worst of the draws.

    Raises:
        UsageError: no point could be computed, for a reason that is the user's.
    """
    points = list(case.grid.points())
    groups = by_point(found, len(points))
    refuse_if_all_failed(groups)
    ordered = [record for group in groups for record in group]
    rows = [_row(group, names_of(case)) for group in groups]
    names = dict.fromkeys(name for row in rows for name in row)
    if "loss" not in names:  # every point failed
        names = dict.fromkeys([*names_of(case), "gap", "gap_floor", "residual", *names])
    columns: Columns = {
        name: np.array([row.get(name, np.nan) for row in rows], dtype=float).reshape(case.grid.shape) for name in names
    }
    _counts(case, columns, groups)
    if case.words.get("optimal_delta") is not False and "delta" in case.grid.axes:
        columns |= best_delta(case, groups, columns)
    columns["status"] = columns["status"].astype(np.int8)
    columns["phase"] = _phase(columns)
    out = Findings(columns)
    done = [record for record in ordered if record.get("status") != "failed"]
    if done:
        out.info, out.data = dict(done[0]["info"]), dict(done[0]["data"])
    told = [note for r in done for note in (*r["info"].get("notes", ()), *r["data"].get("notes", ()))]
    mixed = case.words.get("mixed")
    out.notes = [*_routes(done), *([mixed] if mixed else []), *dict.fromkeys(told)]
    out.notes += [*_flat_lines(columns), *_wide_spreads(columns)]
    out.messages = _messages(case, points, groups)
    if case.words["layout"] == "saddle":
        texts = [group[0].get("arrays") for group in groups]
        out.arrays = [None if text is None else unpack(text) for text in texts]
    return out


def best_delta(case: Case, groups: Sequence[Sequence[Record]], columns: Columns) -> Columns:
    """Return which δ of the grid has the least loss, everything else equal; columns of length 1 along delta.

    delta_opt is the δ of the least mean over draws and loss_opt its loss: a value of the grid, 0 and inf included, not
    an interpolated one. With several draws, delta_low and delta_high are the smallest and the largest δ whose loss is
    not more than two standard errors of the difference (of the same draws) above it. NaN where a loss is unknown: the
    best of the others need not be the best; only loss_opt is known where the loss is the same for all δ to 1e-9 of it.

    Args:
        case: grid with delta as an axis.
        groups: the records of every point, one per draw.
        columns: what `combine` found.
    """
    draws = len(groups[0])
    values = [
        float(r["columns"]["loss"]) if r.get("status") != "failed" else math.nan for group in groups for r in group
    ]
    axis = case.grid.axes.index("delta")
    line = case.grid.values["delta"].array
    losses = np.moveaxis(np.reshape(values, (*case.grid.shape, draws)), axis, 0)  # (n_delta, ..., draws)
    # A mean whose draws are not all certified is unknown, as in the table.
    mean = np.moveaxis(np.asarray(columns["loss"], dtype=float), axis, 0)
    known = np.all(np.isfinite(mean), axis=0)
    at = np.argmin(np.where(known, mean, 0.0), axis=0)
    with np.errstate(invalid="ignore"):
        told = known & (np.ptp(mean, axis=0) > FLAT * np.max(np.abs(mean), axis=0))
    out: Columns = {
        "delta_opt": np.where(told, line[at], np.nan),
        "loss_opt": np.where(known, np.take_along_axis(mean, at[None], axis=0)[0], np.nan),
    }
    if draws > 1:
        away = losses - np.take_along_axis(losses, at[None, ..., None], axis=0)
        error = away.std(axis=-1, ddof=1) / math.sqrt(draws)
        with np.errstate(invalid="ignore"):
            level = away.mean(axis=-1) <= SIGNIFICANT * error
        wide = line.reshape(-1, *(1,) * (mean.ndim - 1))
        for name, empty, pick in (("delta_low", math.inf, np.min), ("delta_high", -math.inf, np.max)):
            out[name] = np.where(told, pick(np.where(level, wide, empty), axis=0), np.nan)
    return {name: np.expand_dims(column, axis) for name, column in out.items()}


def names_of(case: Case) -> tuple[str, ...]:
    """Return the computed columns of a case, errors and certificates apart."""
    return tuple(needs_of(case.words["kinds"])) if case.words.get("losses") else NAMES


def _row(records: Sequence[Record], names: Sequence[str]) -> dict[str, float]:
    """Return the columns of one point from its draws."""
    done = [record for record in records if record.get("status") != "failed"]
    status = max(_STATUS[str(record["status"])] for record in records)
    if len(done) < len(records):
        return {"status": float(status)}
    row: dict[str, float] = {}
    root = math.sqrt(len(records))
    for name in names:
        values = np.array([record["columns"][name] for record in records], dtype=float)
        if name.endswith("_test_se"):
            row[name] = float(np.sqrt(np.sum(values**2))) / len(records)
            continue
        row[name] = float(values.mean())
        if len(records) > 1 and name in (SPREAD if names is NAMES else SPREAD_CLASSIFIED):
            row[f"{name}_draw_se"] = float(values.std(ddof=1)) / root
    for name in (*ERRORS, *_CLASSIFIED):
        errors = np.array([record["columns"].get(name, 0.0) for record in records], dtype=float)
        if any(name in record["columns"] for record in records):
            row[name] = float(np.sqrt(np.sum(errors**2))) / len(records)
    for name in ("gap", "gap_floor"):
        row[name] = float(max(record[name] for record in records))
    worst = {name: np.max if name.startswith("spread") else np.min for name in CERTIFICATE}
    for name in records[0].get("certificate", {}):  # NaN only where no draw was sampled
        values = np.array([record["certificate"][name] for record in records], dtype=float)
        row[name] = float(worst[name](values[np.isfinite(values)])) if np.isfinite(values).any() else math.nan
    row["residual"] = float(max(record["residual"] for record in records))
    return {**row, "status": float(status)}


def _counts(case: Case, columns: Columns, groups: Sequence[Sequence[Record]]) -> None:
    """Add P1 and P2 where they are no parameters of the grid (alpha, or all of a file)."""
    for size in ("p2", "p1"):
        if size not in case.grid.values:
            first = [group[0] for group in groups]
            found = [float(r["data"][size]) if r.get("status") != "failed" else math.nan for r in first]
            column = {size: np.array(found).reshape(case.grid.shape)}
            rest = dict(columns)
            columns.clear()
            columns.update({**column, **rest})


def _phase(columns: Columns) -> NDArray[np.int8]:
    gain, with_, without = ("gain", "loss", "baseline")
    if "gain_error" in columns:
        gain, with_, without = ("gain_error", "error", "baseline_error")
    known = [f"{gain}_draw_se"] if f"{gain}_draw_se" in columns else [f"{gain}_test_se"]
    errors = [np.nan_to_num(columns[name]) for name in (*known, f"{gain}_se") if name in columns]
    error = np.max(errors, axis=0) if errors else 0.0
    return phase_of(columns[gain], columns[with_], columns[without], relative=SOLVED, error=error)


def _routes(done: Sequence[Record]) -> list[str]:
    routes = dict.fromkeys(str(record["info"]["route"]) for record in done)
    return [] if list(routes) in ([], ["linear"]) else [f"solved by {' and '.join(routes)}."]


def _flat_lines(columns: Columns) -> list[str]:
    """Say where no coupling is the best because the loss is the same for all."""
    if "delta_opt" not in columns:
        return []
    flat = int(np.sum(np.isfinite(columns["loss_opt"]) & np.isnan(columns["delta_opt"])))
    if not flat:
        return []
    lines = columns["delta_opt"].size
    where = "" if lines == 1 else f" on {flat} of {lines} lines of the grid"
    return [f"the loss is the same for every delta{where}: none is the best, and delta_opt is nan there."]


def _wide_spreads(columns: Columns) -> list[str]:
    """Say where a small gap certifies points whose two starts differ by more than others do."""
    if "spread_v" not in columns:
        return []
    v, kernel = (np.asarray(columns[name], dtype=float) for name in ("spread_v", "spread_kernel"))
    wide = (columns["status"] == Status.CONVERGED) & ((v > LARGEST_SPREAD_V) | (kernel > LARGEST_SPREAD_KERNEL))
    if not wide.any():
        return []
    return [
        f"{part_of(wide.sum(), wide.size, 'point')} certified by a small gap though the two starts differ by up to "
        f"{v[wide].max():.1%} in v and {kernel[wide].max():.1%} in the kernel; the standard errors hold it, and more "
        "--moves lower it."
    ]


def _messages(case: Case, points: Sequence[Mapping[str, float]], groups: Sequence[Sequence[Record]]) -> list[str]:
    """Return every sentence once, with all points and draws that it belongs to."""
    found: dict[str, list[dict[str, float]]] = {}
    for point, group in zip(points, groups, strict=True):
        for draw, record in enumerate(group):
            where = {name: point[name] for name in case.grid.axes} | ({"draw": float(draw)} if len(group) > 1 else {})
            for text in _sentences(record):
                found.setdefault(text, []).append(where)
    return [f"{where}: {text}" if (where := _where(places)) else text for text, places in found.items()]


def _sentences(record: Record) -> Sequence[str]:
    """Return what a record has to say, a mistake of the user without the class of its error."""
    if record.get("status") != "failed":
        return record.get("reasons", ())
    kind, _, text = str(record["message"]).partition(": ")
    return [text if kind in USERS_ERRORS else str(record["message"])]


def _where(places: Sequence[Mapping[str, float]]) -> str:
    """Return the values of the axes at all places; where these are no full grid, the first place and their number."""
    values = {name: list(dict.fromkeys(place[name] for place in places)) for name in places[0]}
    if math.prod(map(len, values.values())) == len(places):
        return "; ".join(f"{name} = {_listed(line)}" for name, line in values.items())
    first = "; ".join(f"{name} = {value:g}" for name, value in places[0].items())
    return f"{first} (and {len(places) - 1} more)"


def _listed(line: Sequence[float]) -> str:
    words = [f"{value:g}" for value in line]
    return ", ".join(words) if len(words) <= _LISTED else f"{words[0]}, {words[1]} ... {words[-1]}"
