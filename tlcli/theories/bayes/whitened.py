"""Whitened data in closed form as a solver: overlaps, train loss and evidence over whole grids."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tlcli.bayes.whitened import whitened
from tlcli.errors import DomainError
from tlcli.status import SOLVED, Status, phase_of
from tlcli.theories.base import Case, ClosedForm, Columns, Findings, Parameters


@dataclass(frozen=True, eq=False)
class Whitened(ClosedForm):
    """Bayesian networks on whitened data: a closed form over whole grids."""

    quantity: str = "train_loss"
    archive: str = "order-parameters"

    def evaluate(self, p: Parameters) -> Columns:
        """Return `whitened_columns`."""
        return whitened_columns(p)

    def archives(self, case: Case) -> dict[str, str]:
        """Return the file of q, r and u."""
        return {self.archive: "npz"}

    def arrays(self, case: Case, found: Findings) -> Columns:
        """Return the order parameters q, r and u of the target, of the grid's shape (docs/bayes.md, Section 2)."""
        solution = whitened(**_arguments(case.parameters()))
        solved = np.broadcast_to(solution["status"], case.grid.shape)
        return {name: np.where(solved, solution[name], np.nan) for name in ("q", "r", "u")}


def whitened_theory(case: str) -> Whitened:
    """Return bayes-whitened for decoupled inputs, the same inputs and labels, or the same inputs and other labels."""
    return Whitened(
        "bayes-whitened",
        (
            "whitened",
            *(("label_overlap",) if case == "labels" else ()),
            "label_norm1",
            "label_norm2",
            "gamma0",
            "beta",
            "gamma2",
            "beta2",
            "delta",
        ),
        defaults={"whitened": case},
    )


def whitened_columns(p: Parameters) -> Columns:
    """Return the columns of `tlcli.bayes.whitened.whitened` over the grid of the parameters.

    train_loss is |y2 - f|² over |y2|²; baseline is that of the target alone (δ = 0), gain the baseline minus the train
    loss, evidence_gain the free energy of the target alone minus that of the target, in nats per neuron.

    Raises:
        DomainError: as `whitened`; gamma0 or gamma2 infinite.
    """
    arguments = _arguments(p)
    found, alone = whitened(**arguments), whitened(**{**arguments, "delta": 0.0})
    norm = np.asarray(p["label_norm2"], dtype=float)
    loss, baseline = found["train_loss"] / norm, np.asarray(alone["train_loss"] / norm)
    solved = found["status"] & alone["status"]
    columns: Columns = {
        "train_loss": loss,
        "baseline": baseline,
        "gain": baseline - loss,
        "source_overlap": found["lam_source"],
        "target_overlap": found["k22"],
        "cross_overlap": found["k12"],
        "retained_overlap": found["k11"],
        "perpendicular": found["perp"],
        "free_energy": found["free_energy"],
        "evidence_gain": alone["free_energy"] - found["free_energy"],
    }
    shape = np.broadcast_shapes(*(np.shape(c) for c in columns.values()))
    columns = {name: np.where(solved, column, np.nan) for name, column in columns.items()}
    columns["phase"] = phase_of(columns["gain"], columns["train_loss"], columns["baseline"], relative=SOLVED)
    columns["residual"] = np.maximum(*np.broadcast_arrays(found["residual"], alone["residual"]))
    status = np.where(solved, Status.CONVERGED, Status.NOT_CONVERGED)
    columns["status"] = np.broadcast_to(status, shape).astype(np.int8)
    return columns


def _arguments(p: Parameters) -> dict[str, Any]:
    for name in ("gamma0", "gamma2"):
        if p[name] is not None and np.any(np.isinf(p[name])):
            raise DomainError(f"{name} = inf is no richness of the Bayesian theory; use a large finite {name}.")
    return {
        "case": p["whitened"],
        "gamma1": p["gamma0"],
        "gamma2": p["gamma0"] if p["gamma2"] is None else p["gamma2"],
        "beta1": p["beta"],
        "beta2": p["beta"] if p["beta2"] is None else p["beta2"],
        "delta": p["delta"],
        "norm1": p["label_norm1"],
        "norm2": p["label_norm2"],
        **({"overlap": p["label_overlap"]} if p["whitened"] == "labels" else {}),
    }
