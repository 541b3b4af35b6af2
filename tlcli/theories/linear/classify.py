"""Classification on the adaptive kernel as a solver, with its own coefficients or an ansatz."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from tlcli.arrays import Floats
from tlcli.errors import UsageError
from tlcli.linear.classify.label_transfer import (
    ClassTransfer,
    label_signal,
    transfer_labels,
    transfer_labels_ansatz,
    transfer_labels_spikes,
)
from tlcli.linear.classify.readout import LOSSES
from tlcli.linear.pretraining import collapse_ratio
from tlcli.theories.base import ClosedForm, Columns, Experiment, Parameters
from tlcli.theories.linear.constants import admissible, constants, numbers_of
from tlcli.theories.linear.experiment import Classification

SOLVER = "linear-classify"
_SOURCE = ("source_labels", "sigma1", "flips1", "weight_decay", "init_scale", "kernel", "t1")
_TARGET = ("loss", "ridge", "sigma2", "flips2")
_KERNEL = ("overlap", "norm2", "bulk", "spike", "c_signal", "c_cross", "c_noise")
_GAINS = {"noisy_error": "noisy", "log_loss": "log_loss", "square_loss": "square_loss"}


def columns_of(p: Parameters, found: ClassTransfer) -> Columns:
    """Return the columns of the readout, those of the source's kernel left out."""
    target, baseline = found.target, found.baseline
    columns: Columns = {}
    if isinstance(p.get("ridge"), str):
        columns |= {"ridge_opt": found.ridge, "baseline_ridge_opt": found.baseline_ridge}
    if found.best_time is not None and found.stopped is not None:
        columns |= {"best_time": found.best_time, "error_stopped": found.stopped}
    columns |= {"error": target.error, "baseline": baseline.error, "gain": found.gain}
    for name, short in _GAINS.items():
        value, before = getattr(target, name), getattr(baseline, name)
        with np.errstate(invalid="ignore"):  # two infinite losses have no difference
            columns |= {name: value, f"{short}_baseline": before, f"{short}_gain": before - value}
    columns |= {name: getattr(target, name) for name in ("train_loss", "train_error")}
    if p["loss"] == "margin":
        columns["margin"] = target.margin
    columns |= {"readout_overlap": target.overlap, "readout_norm2": target.norm2, "separability": target.threshold}
    return {**columns, "phase": found.phase, "residual": found.residual, "status": found.status}


def _ridge(p: Parameters) -> Any:
    ridge = p.get("ridge", 0.0)  # the maximum margin has none
    return None if isinstance(ridge, str) else ridge


def _shared(p: Parameters) -> dict[str, Any]:
    return {**_readout(p), **{name: p[name] for name in ("rho", "gamma0", "rho_xi")}}


def _readout(p: Parameters) -> dict[str, Any]:
    time = {"time": p["time"]} if "time" in p else {}
    return {"ridge": _ridge(p), **{name: p[name] for name in ("sigma2", "flips2", "loss")}, **time}


@dataclass(frozen=True, eq=False)
class _Classify(ClosedForm):
    """What both share."""

    name: str = SOLVER
    parameters: tuple[str, ...] = ()
    quantity: str = "error"
    defaults: Mapping[str, Any] = field(default_factory=lambda: {"loss": "logistic"})
    experiments: tuple[Experiment, ...] = (Classification(),)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"loss": LOSSES, "ridge": ("best",)})

    def search(self, p: Parameters) -> Columns:
        """Return what is searched alone."""
        found = self.evaluate(p)
        return {name: found[name] for name in ("error", "gain")}


@dataclass(frozen=True, eq=False)
class Classify(_Classify):
    """A classifier on the kernel that pre-training really leaves."""

    parameters: tuple[str, ...] = ("alpha1", "alpha2", "rho", "rho_xi", "gamma0", *_SOURCE, *_TARGET)
    collapses: ClassVar[bool] = True

    def evaluate(self, p: Parameters) -> Columns:
        """Return `tlcli.linear.classify.label_transfer.transfer_labels`."""
        rest = {name: p[name] for name in _SOURCE if name != "source_labels"}
        found = transfer_labels(p["alpha1"], p["alpha2"], labels=p["source_labels"], **rest, **_shared(p))
        source = found.pretrained
        assert source is not None
        rho, rho_xi = (np.asarray(p[name], dtype=float) for name in ("rho", "rho_xi"))
        columns = {name: getattr(source, name) for name in _KERNEL}
        columns["spike_alignment"] = rho * source.n_signal + rho_xi * source.n_noise
        return {**columns, **columns_of(p, found)}

    def margin(self, p: Parameters) -> Floats:
        """Return the logarithm of the ratio that features survive above (docs/theory.md, Section 2)."""
        γ, σ = np.asarray(p["gamma0"], dtype=float), np.asarray(p["sigma1"], dtype=float)
        if p["source_labels"] == "sign":
            g = label_signal(σ, p["flips1"])
            γ, σ = γ * g, np.sqrt(1 - g * g) / g
        with np.errstate(divide="ignore", invalid="ignore"):
            margin = np.log(collapse_ratio(p["alpha1"], γ, p["weight_decay"], σ))
        endless = np.isinf(np.asarray(p["t1"], dtype=float)) & (np.asarray(p["weight_decay"], dtype=float) > 0)
        return np.where(endless & ~np.isnan(margin), margin, 1.0)


@dataclass(frozen=True, eq=False)
class ClassifyAnsatz(_Classify):
    """A classifier on a kernel with free coefficients."""

    parameters: tuple[str, ...] = (
        *("alpha1", "alpha2", "rho", "rho_xi", "gamma0", "bulk", "c_signal", "c_cross", "c_noise"),
        *_TARGET,
    )
    partial: ClassVar[bool] = True

    def evaluate(self, p: Parameters) -> Columns:
        """Return `tlcli.linear.classify.label_transfer.transfer_labels_ansatz`."""
        c = constants(p)
        found = _free(p, c)
        given = {f"{name}_value": value for name, value in c.items() if isinstance(p[name], str)}
        return {**given, **columns_of(p, found)}

    def search(self, p: Parameters) -> Columns:
        """Return what is searched where the kernel is admissible, NaN elsewhere."""
        good, c = admissible(p)
        found = _free(p, c)
        return {"error": np.where(good, found.target.error, np.nan), "gain": np.where(good, found.gain, np.nan)}


def _free(p: Parameters, c: Mapping[str, Any]) -> ClassTransfer:
    return transfer_labels_ansatz(p["alpha1"], p["alpha2"], bulk=p["bulk"], **c, **_shared(p))


@dataclass(frozen=True, eq=False)
class ClassifySpikes(_Classify):
    """A classifier on a kernel with any number of free spikes."""

    parameters: tuple[str, ...] = ("alpha2", "spikes", "overlaps", "bulk", *_TARGET)

    def evaluate(self, p: Parameters) -> Columns:
        """Return `tlcli.linear.classify.label_transfer.transfer_labels_spikes`."""
        spikes, overlaps = (numbers_of(name, p[name]) for name in ("spikes", "overlaps"))
        return columns_of(p, transfer_labels_spikes(p["alpha2"], spikes, overlaps, bulk=p["bulk"], **_readout(p)))


def classify_theory(get: Callable[[str], Any]) -> _Classify:
    """Return the theory that the options ask for: an ansatz where it has coefficients; no ridge for the margin.

    Raises UsageError for options that exclude each other.
    """
    best, timed = isinstance(get("ridge"), str), get("t2") is not None or get("times") is not None
    kind = Classify
    if get("spikes") is not None or get("overlaps") is not None:
        _check_spikes(get("spikes"), get("overlaps"))
        kind = ClassifySpikes
    elif get("c_signal") is not None:
        kind = ClassifyAnsatz
    # With a search for the ridge or the time at every point, nothing else is searched unasked.
    made = kind(cheap=not (best or timed))
    if timed and get("loss") != "square":
        raise UsageError(
            f"linear-classify has times for the squared loss alone, not for {get('loss') or 'logistic'}, whose "
            "dynamics needs a theory of its own; use --loss square, or leave out --t2 and --times."
        )
    if timed and best:
        raise UsageError("--ridge best is that of training to its end; give numbers, or leave out --t2 and --times.")
    if timed:
        return replace(made, parameters=(*made.parameters, "time"), defaults={**made.defaults, "time": np.inf})
    if get("loss") == "margin":
        if get("ridge") is not None:
            raise UsageError(f"loss margin has no ridge; leave out ridge, or use one of {', '.join(LOSSES[:3])}.")
        return replace(made, parameters=tuple(name for name in made.parameters if name != "ridge"))
    return made


def _check_spikes(spikes: str | None, overlaps: str | None) -> None:
    """Refuse another number of overlaps than of spikes. Raises UsageError."""
    if spikes is None or overlaps is None:
        there, lacking = ("spikes", "overlaps") if overlaps is None else ("overlaps", "spikes")
        raise UsageError(f"--{there} {spikes or overlaps} needs --{lacking} as well, one for each spike.")
    counts = [len(numbers_of(*pair)) for pair in (("spikes", spikes), ("overlaps", overlaps))]
    if counts[0] != counts[1]:
        raise UsageError(
            f"{counts[0]} spikes ({spikes}) but {counts[1]} overlaps ({overlaps}); give one overlap for each spike."
        )
