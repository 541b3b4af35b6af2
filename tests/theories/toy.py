"""A theory of forty lines, as anyone might bring one: a closed form, and its twin that is computed point by point."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlcli.options.option import NOT_NEGATIVE, Option
from tlcli.status import EXACT, Status, phase_of
from tlcli.sweep.runner import Task
from tlcli.theories.base import Case, ClosedForm, Columns, Findings, Parameters, PointByPoint
from tlcli.theories.draws import joined
from tlcli.theories.registry import TRANSFER, Asked, Entry

SWING = Option("swing", "grid", "1", "Swing of the toy.", symbol="swing $s$", domain=NOT_NEGATIVE)
PARAMETERS = ("alpha2", "swing")


def answer(p: Parameters) -> Columns:
    """Pre-training helps where alpha2 < swing."""
    alpha, swing = np.broadcast_arrays(p["alpha2"], p["swing"])
    loss, baseline = np.exp(-swing), np.exp(-alpha)
    columns = {"loss": loss, "baseline": baseline, "gain": baseline - loss}
    columns["phase"] = phase_of(columns["gain"], loss, baseline, relative=EXACT)
    return {**columns, "residual": 0 * loss, "status": np.full(loss.shape, Status.CONVERGED, dtype=np.int8)}


@dataclass(frozen=True, eq=False)
class Toy(ClosedForm):
    def evaluate(self, p: Parameters) -> Columns:
        return answer(p)


@dataclass(frozen=True, eq=False)
class SlowToy(PointByPoint):
    def columns(self, case: Case) -> Columns:
        return {name: np.full(case.grid.shape, np.nan) for name in ("loss", "baseline", "gain", "phase", "residual")}

    def tasks(self, case: Case, seed: int) -> list[Task]:
        return [Task("tests.theories.toy:point", p, seed, i) for i, p in enumerate(case.grid.points())]

    def combine(self, case: Case, found: Any) -> Findings:
        return joined(case, found)


def point(parameters: Mapping[str, Any], seeds: Any) -> dict[str, Any]:
    """Compute one point of the slow toy."""
    with open("computed.txt", "a") as log:
        log.write("one\n")
    if parameters["swing"] == 13:
        raise ArithmeticError("13 is no swing")
    return {name: np.asarray(column).item() for name, column in answer(parameters).items()}


def build(kind: Any) -> Any:
    """Return what the registry calls to make a toy."""

    def make(asked: Asked) -> Any:
        return kind("toy", PARAMETERS)

    return make


ENTRIES = {kind: Entry("toy", TRANSFER, build(kind)) for kind in (Toy, SlowToy)}
