"""What the points of a grid of networks found, joined into columns: means over draws of the data, with their errors."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcli.arrays import Floats, in_quadrature
from tlcli.dmft.activations import ACTIVATIONS, activation
from tlcli.errors import part_of
from tlcli.options.columns import (
    BEST_LOSS,
    CLASSIFIED,
    OVERFITTING,
    SAMPLED,
    SPREAD,
    SPREAD_CLASSIFIED,
    TESTED,
    errors_of,
)
from tlcli.status import SOLVED, Status, phase_of
from tlcli.sweep.runner import Placed
from tlcli.tasks.gaussian import is_gaussian, parse
from tlcli.theories.base import Case, Columns, Findings
from tlcli.theories.draws import by_point, refuse_if_all_failed
from tlcli.theories.network.layers import layers_of
from tlcli.theories.network.points import stage_times, unpack
from tlcli.theories.network.stopping import BEST, best_of

_OF_CLASSES = ("error", "calibrated", "margin")


def columns_of(case: Case) -> tuple[str, ...]:
    """Return the sampled columns that a case has, in the order of its table."""
    layout = case.words["layout"]
    if case.words.get("losses"):
        return _classified(case)
    if layout == "curve":
        return SAMPLED
    if layout == "end":
        return tuple(name for name in SAMPLED if name != "source_train_loss")
    names = ("source_loss", "source_train_loss", "source_alignment", "test_alignment")
    return names if case.words["alone"] else (*names, "loss", "target_alignment")


def _classified(case: Case) -> tuple[str, ...]:
    """Return the columns of networks with a loss that is named; of what has no classes those of losses alone."""
    kinds = case.words["kinds"]
    names = [name for name in CLASSIFIED if kinds[1] or not any(word in name for word in _OF_CLASSES)]
    if case.words["layout"] != "pretrain":
        return tuple(dict.fromkeys([*names, *(("source_error", "source_train_error") if kinds[0] else ())]))
    own = ("source_loss", "source_error", "source_train_loss", "source_train_error", "source_alignment")
    return (*(name for name in own if kinds[0] or "error" not in name), "test_alignment")


def _decays(case: Case) -> bool:
    """Whether there is weight decay at any point of the grid."""
    values = case.grid.values
    return any(np.any(values[name].array > 0) for name in ("weight_decay", "weight_decay2") if name in values)


def chosen_records(case: Case, point: Mapping[str, float]) -> slice:
    """Return which of the engine's records are rows of the table."""
    first = len(stage_times(case, point)[0])
    return {"curve": slice(None), "pretrain": slice(0, first), "end": slice(first, None)}[case.words["layout"]]


def placeholder(case: Case) -> Columns:
    """Return the columns without any number, so that a figure can be planned before hours of work."""
    shape = (*case.grid.shape, *(len(v) for v in case.theory.inner.values()))
    names = [*columns_of(case), *(f"{name}_se" for name in columns_of(case)), "residual"]
    names += [f"{name}_test_se" for name in columns_of(case) if name in TESTED]
    names += ["stage", "time", *BEST] if case.words["layout"] == "curve" else []
    return {name: np.full(shape, np.nan) for name in [*names, *_beside(case)]}


def _beside(case: Case) -> list[str]:
    """Return what else a table has: of several draws, of calibration, of integration in time, of decay, of a gain."""
    of = columns_of(case)
    names = ["temperature"] if "loss_calibrated" in of else []
    if int(case.words["draws"]) > 1:
        spread = SPREAD_CLASSIFIED if case.words.get("losses") else SPREAD
        names += [f"{name}_draw_se" for name in of if name in spread]
        names += [f"{name}_draw_se" for name in (BEST_LOSS, OVERFITTING)] if case.words["layout"] == "curve" else []
    names += ["predictor_distance"] if _decays(case) else []
    names += ["time_error"] if case.words.get("integrator") != "euler" else []
    return names + (["phase"] if "gain" in of and case.words["layout"] == "end" else [])


def combine(case: Case, found: Sequence[Placed]) -> Findings:
    """Join the records of `tlcli.theories.network.points.tasks_of`, one per point and draw.

    `NAME` is the mean over draws, `NAME_se` the error that the sampled neurons leave in it and `NAME_test_se` that of
    the finite number of test points; with several draws `NAME_draw_se` is the spread of the draws over the root of
    their number, which holds both (that of test points which all draws share is added to it). A row is converged where
    every draw is; `residual` is the largest error of a loss that the engine reports for the point.

    Raises:
        UsageError: no point could be computed, for a reason that is the user's.
    """
    points = list(case.grid.points())
    groups = by_point(found, len(points))
    refuse_if_all_failed(groups)
    records = [record for group in groups for record in group]
    inner = tuple(len(v) for v in case.theory.inner.values())
    rows = [_point_columns(case, point, group, inner) for point, group in zip(points, groups, strict=True)]
    names = dict.fromkeys(name for row in rows for name in row)
    if all(record.get("status") == "failed" for record in records):  # the table has its columns all the same
        names = dict.fromkeys([*(name for name in names if name != "status"), *placeholder(case), "status"])
    shape = (*case.grid.shape, *inner)
    columns = {
        name: np.array([np.broadcast_to(row.get(name, np.nan), inner) for row in rows]).reshape(shape) for name in names
    }
    columns["status"] = columns["status"].astype(np.int8)
    if "gain" in columns and case.words["layout"] == "end":
        columns["phase"] = _phase(columns)
    out = Findings(columns)
    done = [record for record in records if record.get("status") != "failed"]
    if done:
        out.info, out.data = dict(done[0]["info"]), dict(done[0]["data"])
    mixed = case.words.get("mixed")
    out.notes = [*([mixed] if mixed else []), *_parity(case.words), *_lazy_target(case, points), *_notes(done)]
    reached = [(r["info"]["reached"], r["info"]["accuracy"]) for r in done]
    out.reached = max((worst for worst, _ in reached if math.isfinite(worst)), default=math.nan)
    out.asked = max((float(asked) for _, asked in reached), default=math.nan)
    out.messages = _inaccurate(done, len(records))
    if done:
        out.messages += [
            _located(case, points[i], draw, record)
            for i, group in enumerate(groups)
            for draw, record in enumerate(group)
            if record.get("message")
        ]
    else:
        out.messages = [f"{_all(len(records))} failed, the first with {records[0]['message']}"]
    out.layers = [
        layers_of(case, point, group, chosen_records(case, point)) for point, group in zip(points, groups, strict=True)
    ]
    if case.words["layout"] != "end":
        texts = [group[0].get("arrays") for group in groups]
        out.arrays = [None if text is None else unpack(text) for text in texts]
    return out


def _phase(columns: Columns) -> NDArray[np.int8]:
    """Return the sign of the gain, or of the gain in error where there are classes."""
    name = "gain_error" if "gain_error" in columns else "gain"
    parts = ("error", "baseline_error") if name == "gain_error" else ("loss", "baseline")
    error = in_quadrature([columns[part] for part in errors_of(name, columns)])
    return phase_of(columns[name], columns[parts[0]], columns[parts[1]], relative=SOLVED, error=error)


def _inaccurate(records: Sequence[Mapping[str, Any]], count: int) -> list[str]:
    """Return one sentence on the worst of the records whose errors are beyond the accuracy that was asked for."""
    late = [r["info"] for r in records if r["status"] == "inaccurate"]
    if not late:
        return []
    worst = max(late, key=lambda info: info["reached"])
    return [
        f"{part_of(len(late), count, 'solution')} inaccurate: asked {worst['accuracy']:g}, reached "
        f"{worst['reached']:.2g} (errors of losses, in units of the labels' mean square, or of the loss where "
        "that is larger); use more --neurons or --repeats, or accept it with a larger --accuracy."
    ]


def _all(count: int) -> str:
    return "the only point" if count == 1 else f"all {count} points"


def _parity(words: Mapping[str, Any]) -> list[str]:
    """Return what an odd activation cannot do: there are no biases, so all its networks are odd functions."""
    act, tasks = activation(words["activation"]), [words["source"], words["target"]]
    if not act.odd or not all(is_gaussian(task) for task in tasks):
        return []
    even = [task for task in dict.fromkeys(tasks) if parse(task).terms and not parse(task).odd]
    if not even:
        return []
    able = [name for name in ACTIVATIONS if (other := activation(name)).lipschitz and not other.odd]
    return [
        f"{act.name} is odd and networks have no biases here, so f(-x) = -f(x): the even part of {' and '.join(even)} "
        f"can be memorised but not learnt; {', '.join(able[:-1])} or {able[-1]} can learn it."
    ]


def _lazy_target(case: Case, points: Sequence[Mapping[str, float]]) -> list[str]:
    """Return which limit gamma2 = 0 is, where the grid has it."""
    if case.words.get("kernel") != "feature" or not any(point.get("gamma2") == 0 for point in points):
        return []
    return [
        "gamma2 = 0 is regression with the frozen feature kernel, that is of the readout alone; the limit of training "
        "both layers is --kernel ntk."
    ]


def _notes(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the engine tells, once where only numbers differ: then with those of the largest error in time."""
    ordered = sorted(records, key=lambda record: -float(record["info"].get("time_error", 0.0)))
    found: dict[str, str] = {}
    for record in ordered:
        for note in (*record["info"].get("notes", ()), *record["data"].get("notes", ())):
            found.setdefault(re.sub(r"\d[\d.e+-]*", "#", note), note)
    return list(found.values())


def _located(case: Case, point: Mapping[str, float], draw: int, record: Mapping[str, Any]) -> str:
    where = [f"{name} = {point[name]:g}" for name in case.grid.axes]
    if int(case.words["draws"]) > 1:
        where.append(f"draw {draw}")
    return f"{', '.join(where)}: {record['message']}" if where else str(record["message"])


def _point_columns(
    case: Case, point: Mapping[str, float], records: Sequence[Mapping[str, Any]], inner: tuple[int, ...]
) -> dict[str, Any]:
    """Return the columns of one point, each of the shape `inner` of its records."""
    keep = chosen_records(case, point)
    done = [record for record in records if record.get("status") != "failed"]

    def of(record: Mapping[str, Any], name: str) -> Floats:
        return np.asarray(record["columns"][name], dtype=float)[keep].reshape(inner)

    def by_points(name: str) -> Floats:
        errors = np.array([of(record, f"{name}_test_se") for record in records])
        return errors.mean(axis=0) if same_points else np.sqrt(np.sum(errors**2, axis=0)) / len(records)

    columns: dict[str, Any] = {}
    if case.words["layout"] == "curve":
        times = stage_times(case, point)
        columns["stage"] = np.repeat([1, 2], [len(t) for t in times])
        columns["time"] = np.concatenate(times)
    for size in ("p1", "p2"):
        if size not in case.grid.values and (size == "p1" or not case.words["alone"]):
            columns[size] = float(done[0]["data"][size]) if done else np.nan
    if len(done) < len(records):
        return {**columns, "status": np.int8(Status.FAILED)}
    # The test points of a file are the same in all draws: their error does not average out, and draws do not show it.
    same_points = "file" in done[0]["data"]
    for name in columns_of(case):
        values = np.array([of(record, name) for record in records])
        errors = np.array([of(record, f"{name}_se") for record in records])
        columns[name] = values.mean(axis=0)
        columns[f"{name}_se"] = np.sqrt(np.sum(errors**2, axis=0)) / len(records)
        if len(records) > 1 and name in (SPREAD_CLASSIFIED if case.words.get("losses") else SPREAD):
            columns[f"{name}_draw_se"] = values.std(axis=0, ddof=1) / math.sqrt(len(records))
            if same_points:
                columns[f"{name}_draw_se"] = _joined(columns[f"{name}_draw_se"], by_points(name))
        if name in TESTED:
            columns[f"{name}_test_se"] = by_points(name)
        if name == "loss_calibrated":
            columns["temperature"] = np.mean([of(record, "temperature") for record in records], axis=0)
    if case.words["layout"] == "curve":
        losses = np.array([of(record, "loss") for record in records])
        paired = {f"{OVERFITTING}_test_se": by_points(OVERFITTING)}
        columns |= best_of({**columns, **paired}, columns["stage"], columns["time"], losses)
        if same_points and len(records) > 1:
            over = f"{OVERFITTING}_draw_se"
            columns[over] = _joined(columns[over], columns[f"{OVERFITTING}_test_se"])
    if _decays(case):
        columns["predictor_distance"] = np.mean([of(record, "predictor_distance") for record in records], axis=0)
    if any("time_error" in record["info"] for record in records):
        columns["time_error"] = max(float(record["info"].get("time_error", 0.0)) for record in records)
    columns["residual"] = float(np.fmax.reduce([float(record["info"]["reached"]) for record in records]))
    columns["status"] = np.max([_row_status(record, of(record, "source_train_loss")) for record in records], axis=0)
    return columns


def _joined(draws: Floats, points: Floats) -> Floats:
    """Return the error over draws with that of test points which all draws share; a single one has no error."""
    return np.hypot(draws, np.nan_to_num(points))


def _row_status(record: Mapping[str, Any], always: Floats) -> NDArray[np.int8]:
    """Return the status of the rows of one record; `always` is a column that has a number wherever training went."""
    status = Status[str(record["status"]).upper()]
    blank = np.isnan(always)
    if status == Status.NOT_CONVERGED and blank.any():
        return np.where(blank, status, Status.CONVERGED).astype(np.int8)
    return np.full(always.shape, status, dtype=np.int8)
