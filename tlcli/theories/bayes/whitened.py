"""Whitened data in closed form as a solver: overlaps, train loss and evidence over whole grids."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlcli.arrays import Array
from tlcli.bayes.whitened import whitened
from tlcli.bayes.whitened_losses import whitened_losses
from tlcli.errors import DomainError, UsageError
from tlcli.losses import loss_of
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


@dataclass(frozen=True, eq=False)
class WhitenedLosses(Whitened):
    """The same of a named loss: one margin for all points."""

    def evaluate(self, p: Parameters) -> Columns:
        """Return `whitened_loss_columns`."""
        return whitened_loss_columns(p)

    def arrays(self, case: Case, found: Findings) -> Columns:
        """Return the order parameters q and u of the target, of the grid's shape."""
        solution = _loss_solutions(case.parameters())[0]
        solved = np.broadcast_to(solution["status"], case.grid.shape)
        return {name: np.where(solved, np.broadcast_to(solution[name], case.grid.shape), np.nan) for name in ("q", "u")}


def whitened_theory(case: str, get: Callable[[str], Any] = lambda name: None) -> Whitened:
    """Return bayes-whitened for decoupled inputs, the same inputs and labels, or the same inputs and other labels.

    `get` gives the options of losses, None where they are not given.

    Raises:
        UsageError: an unknown loss, or one that whitened data do not have.
    """
    text = _named_loss(case, get)
    parameters = (
        "whitened",
        *(("label_overlap",) if case == "labels" else ()),
        *(("loss1",) if text else ()),
        *(("label_smoothing",) if text and get("label_smoothing") is not None else ()),
        *("label_norm1", "label_norm2", "gamma0", "beta", "gamma2", "beta2", "delta"),
    )
    if text is None:
        return Whitened("bayes-whitened", parameters, defaults={"whitened": case})
    return WhitenedLosses("bayes-whitened", parameters, hidden=("loss",), defaults={"whitened": case, "loss1": text})


def _named_loss(case: str, get: Callable[[str], Any]) -> str | None:
    """Return the loss that is named, None for the squared error of any labels."""
    text = get("loss")
    for option in ("loss1", "loss2", "class_weights", *(("label_smoothing",) if text is None else ())):
        if get(option) is not None:
            raise UsageError(
                f"--{option.replace('_', '-')} is not for whitened data, which have one loss, --loss logistic for "
                "example; leave it out."
            )
    if text is None:
        return None
    loss = loss_of(text)
    if loss.vector:
        raise UsageError(
            f"--loss {text} with whitened data: they have two classes here; use --loss logistic, or "
            "tlcli.bayes.whitened_losses for balanced classes."
        )
    if case == "labels":
        raise UsageError(
            f"--loss {text} with --whitened labels: points whose two labels agree and others have different margins; "
            "use --whitened same or decoupled, or leave out --loss."
        )
    return loss.text


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
    return _columns(found, alone, found["train_loss"] / norm, alone["train_loss"] / norm)


def _columns(found: Columns, alone: Columns, loss: Array, baseline: Array, more: Sequence[str] = ()) -> Columns:
    """Return what both theories have to say of a target tied to its source and of the target alone."""
    solved = found["status"] & alone["status"]
    columns: Columns = {
        "train_loss": loss,
        "baseline": np.asarray(baseline),
        "gain": baseline - loss,
        **{name: found[name] for name in more},
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


def whitened_loss_columns(p: Parameters) -> Columns:
    """Return the columns of `tlcli.bayes.whitened_losses` over the grid; the label norms are numbers of points.

    train_loss is the mean reported loss of the training points; baseline that of the target alone (δ = 0).

    Raises:
        DomainError: as `whitened_losses`; gamma0 or gamma2 infinite.
        UsageError: label smoothing of a loss without it.
    """
    found, alone = _loss_solutions(p)
    return _columns(found, alone, found["train_loss"], alone["train_loss"], ("margin",))


def _loss_solutions(p: Parameters) -> tuple[Columns, Columns]:
    """Return the target and the target alone of the same shape, for every label smoothing of the grid."""
    more = {name: value for name, value in _arguments(p).items() if name not in ("norm1", "norm2")}
    more |= {"points1": p["label_norm1"], "points2": p["label_norm2"]}
    smoothing = np.asarray(0.0 if p.get("label_smoothing") is None else p["label_smoothing"], dtype=float)
    parts = []
    for delta in (more["delta"], np.zeros_like(np.asarray(more["delta"], dtype=float))):
        at = {**more, "delta": delta}
        case = at.pop("case")
        each = {ε: whitened_losses(case, loss_of(p["loss1"], ε), **at) for ε in np.unique(smoothing).tolist()}
        names = next(iter(each.values()))
        parts.append({name: sum(np.where(smoothing == ε, one[name], 0) for ε, one in each.items()) for name in names})
        parts[-1]["status"] = parts[-1]["status"].astype(bool)
    return parts[0], parts[1]
