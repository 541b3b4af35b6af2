"""What a Bayesian transfer of named losses is asked: losses, errors, calibrated losses, margins and overlaps.

The posterior of f is a point, so that every column is a number without an error but that of the finite test points and,
of the sampling route, that of the sampling.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import ndtr

from tlcli.arrays import Floats, Indices
from tlcli.bayes.likelihood import Likelihood
from tlcli.bayes.observables import (
    ALONE,
    MOST_ALIGNED,
    OF_KERNELS,
    SOURCE,
    TARGET,
    BayesProblem,
    overlap_errors,
    prediction_error,
    relative_error,
)
from tlcli.bayes.saddle import Saddle
from tlcli.dmft.loss_setup import Side
from tlcli.dmft.regression import kernel_alignment
from tlcli.losses.scores import calibration, cross_calibrated, margins, point_errors, point_losses

# Columns of the transfer and the stages that must be solved for each; those of CLASSES have labels that are classes.
_TESTED: dict[str, tuple[str, ...]] = {
    "loss": (TARGET,),
    "baseline": (ALONE,),
    "gain": (TARGET, ALONE),
    "error": (TARGET,),
    "baseline_error": (ALONE,),
    "gain_error": (TARGET, ALONE),
    "loss_calibrated": (TARGET,),
    "baseline_calibrated": (ALONE,),
    "gain_calibrated": (TARGET, ALONE),
    "source_loss": (SOURCE,),
    "source_error": (SOURCE,),
}
NEEDS: dict[str, tuple[str, ...]] = {
    **{f"{name}{end}": stages for name, stages in _TESTED.items() for end in ("", "_test_se")},
    "temperature": (TARGET,),
    "train_loss": (TARGET,),
    "train_error": (TARGET,),
    "margin": (TARGET,),
    "source_train_loss": (SOURCE,),
    "source_train_error": (SOURCE,),
    **OF_KERNELS,  # the same as of the squared error
}
_OF_SOURCE_CLASSES = ("source_error", "source_error_test_se", "source_train_error")
_OF_TARGET_CLASSES = tuple(
    name for name in NEEDS if any(w in name for w in ("error", "calibrated", "temperature", "margin"))
)


def needs_of(classes: Sequence[bool]) -> dict[str, tuple[str, ...]]:
    """Return the columns of a transfer and what they need; `classes`: whether source and target have classes."""
    left = set() if classes[0] else set(_OF_SOURCE_CLASSES)
    left |= set() if classes[1] else set(_OF_TARGET_CLASSES) - set(_OF_SOURCE_CLASSES)
    return {name: stages for name, stages in NEEDS.items() if name not in left}


def loss_values(
    problem: BayesProblem, sides: tuple[Side, Side], saddles: Mapping[str, Saddle | None]
) -> dict[str, float]:
    """Return the columns of `needs_of`, NaN where the saddle is missing."""
    first, second = sides
    p, source, target, alone = problem, saddles[SOURCE], saddles[TARGET], saddles[ALONE]
    out = dict.fromkeys(needs_of([side.classes is not None for side in sides]), math.nan)
    ours, theirs = directions(first.train, first), directions(second.train, second)
    found: dict[str, float] = {}
    if source is not None:
        tested = source.outputs[p.test][first.known], first.test[first.known]
        found |= _told("source_loss", point_losses(first.loss, *tested))
        found |= _told("source_error", point_errors(*tested)) if first.classes else {}
        found |= _scores("source_train_", first, source.outputs[p.rows1], first.train)
        block = source.kernel[np.ix_(p.rows1, p.rows1)]
        found |= {"source_alignment": _alignment(block, ours), "source_overlap": overlap(block, ours, ours)}
        found["source_free_energy"] = source.free_energy
    if target is not None:
        found |= _target(p, second, target, ours, theirs)
    found |= _gains(p, second, target, alone)
    return {name: found.get(name, math.nan) for name in out}


def _target(p: BayesProblem, side: Side, target: Saddle, ours: Floats, theirs: Floats) -> dict[str, float]:
    found = _scores("train_", side, target.outputs[p.rows2], side.train)
    found["margin"] = float(margins(target.outputs[p.rows2], side.train).min()) if side.classes else math.nan
    block = target.kernel[np.ix_(p.rows2, p.rows2)]
    found |= {"target_alignment": _alignment(block, theirs), "target_overlap": overlap(block, theirs, theirs)}
    found["retained_overlap"] = overlap(target.kernel[np.ix_(p.rows1, p.rows1)], ours, ours)
    found["cross_overlap"] = overlap(target.kernel[np.ix_(p.rows1, p.rows2)], ours, theirs)
    labelled = np.flatnonzero(side.known)[:MOST_ALIGNED]
    at = p.test[labelled]
    found["test_alignment"] = _alignment(target.kernel[np.ix_(at, at)], directions(side.test[labelled], side))
    found["free_energy"] = target.free_energy
    return found


def _gains(p: BayesProblem, side: Side, target: Saddle | None, alone: Saddle | None) -> dict[str, float]:
    """Return what there is of target and target alone on the test points, and the differences, paired over points."""
    each = {TARGET: _per_point(p, side, target), ALONE: _per_point(p, side, alone)}
    found: dict[str, float] = {}
    for name, without, gain in (
        ("loss", "baseline", "gain"),
        ("error", "baseline_error", "gain_error"),
        ("loss_calibrated", "baseline_calibrated", "gain_calibrated"),
    ):
        for column, stage in ((name, TARGET), (without, ALONE)):
            found |= _told(column, each[stage][name]) if name in each[stage] else {}
        if name in each[TARGET] and name in each[ALONE]:
            found |= _told(gain, each[ALONE][name] - each[TARGET][name])
    if side.classes and target is not None and np.any(side.known):
        tau = float(calibration(side.loss, target.outputs[p.test][side.known], side.test[side.known]))
        found["temperature"] = 1 / tau if tau > 0 else math.inf
    if target is not None and alone is not None:
        found["evidence_gain"] = alone.free_energy - target.free_energy
    return found


def _per_point(p: BayesProblem, side: Side, saddle: Saddle | None) -> dict[str, Floats]:
    """Return loss, error and calibrated loss of every labelled test point."""
    if saddle is None or not np.any(side.known):
        return {}
    f, y = saddle.outputs[p.test][side.known], side.test[side.known]
    found = {"loss": point_losses(side.loss, f, y)}
    if side.classes:
        calibrated = cross_calibrated(side.loss, f, y)
        found |= {"error": point_errors(f, y), "loss_calibrated": point_losses(side.loss, calibrated, y)}
    return found


def loss_errors(
    problem: BayesProblem,
    sides: tuple[Side, Side],
    betas: tuple[float, float],
    saddles: Mapping[str, Saddle | None],
    values: Mapping[str, float],
) -> dict[str, float]:
    """Return bounds of the errors that sampling leaves in losses, errors and overlaps.

    With Δ the force of the loss |Δ mean ℓ| ≤ rms(Δ)·rms(Δf) on test points, and rms(Δ/βωℓ'')·rms(v)·error_v on training
    points, whose f is a function of v alone. Of an error it is the mean probability that a point has the other sign,
    with a normal error of f.
    """
    out: dict[str, float] = {}
    for loss, error, side, stage in (
        ("loss", "error", sides[1], TARGET),
        ("baseline", "baseline_error", sides[1], ALONE),
        ("source_loss", "source_error", sides[0], SOURCE),
    ):
        out[f"{loss}_se"], of_error = _test_errors(problem, side, saddles[stage])
        out |= {f"{error}_se": of_error} if side.classes else {}
    same = saddles[TARGET] is saddles[ALONE]
    out["gain_se"] = 0.0 if same else math.hypot(out["loss_se"], out["baseline_se"])
    if sides[1].classes:
        out["gain_error_se"] = 0.0 if same else math.hypot(out["error_se"], out["baseline_error_se"])
    out["train_loss_se"] = _train_error(sides[1], betas[1], saddles[TARGET], problem.rows2)
    out["source_train_loss_se"] = _train_error(sides[0], betas[0], saddles[SOURCE], problem.rows1)
    return out | overlap_errors(saddles, values)


def _test_errors(p: BayesProblem, side: Side, saddle: Saddle | None) -> tuple[float, float]:
    """Return the errors of loss and error on the labelled test points; NaN for no saddle, or no labels."""
    if saddle is None or not np.any(side.known):
        return math.nan, math.nan
    f, y = saddle.outputs[p.test][side.known], side.test[side.known]
    away = prediction_error(saddle) * _rms(saddle.outputs)
    of_loss = side.loss.factor * _rms(side.loss.force(f, np.broadcast_to(y, f.shape))) * away
    if not side.classes:
        return of_loss, math.nan
    # A margin of two classes is the difference of two outputs that are opposite to each other.
    scale = away * (1.0 if f.ndim == 1 else math.sqrt(2))
    told = np.abs(margins(f, y)) / scale if scale > 0 else np.full(len(f), np.inf)
    return of_loss, _mean(ndtr(-told))


def _train_error(side: Side, beta: float, saddle: Saddle | None, rows: Indices) -> float:
    if saddle is None:
        return math.nan
    likelihood = Likelihood(side.objective, beta)
    f = saddle.outputs[rows]
    g = f.reshape(len(f), -1) if side.objective.basis is None else f @ side.objective.basis
    v, curved = likelihood.dual(g), likelihood.curvature(g)[:, 0, 0][:, None]
    least = np.where(curved > 0, curved, beta * side.loss.smoothness)
    return side.loss.factor * _rms(v / (beta * least)) * _rms(v) * relative_error(saddle, "error_v")


def _rms(table: Floats) -> float:
    """Return the root of the mean over points of the square, summed over outputs."""
    return float(np.sqrt(np.mean(np.square(table).reshape(len(table), -1).sum(axis=1))))


def _scores(name: str, side: Side, f: Floats, y: Floats) -> dict[str, float]:
    found = {f"{name}loss": _mean(point_losses(side.loss, f, y))}
    return found | ({f"{name}error": _mean(point_errors(f, y))} if side.classes else {})


def _told(name: str, each: Floats) -> dict[str, float]:
    """Return the mean over points, and the error that their finite number leaves in it."""
    count = len(each)
    spread = float(each.std(ddof=1)) / math.sqrt(count) if count > 1 else math.nan
    return {name: _mean(each), f"{name}_test_se": spread}


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else math.nan


def directions(labels: Floats, side: Side) -> Floats:
    """Return labels as columns (P, k) of unit Frobenius norm, one-hot rows of classes centred."""
    table = labels.reshape(len(labels), -1)
    if side.classes and labels.ndim == 2:
        table = table - 1 / table.shape[1]
    size = float(np.linalg.norm(table))
    return table / size if size > 0 else table


def _alignment(block: Floats, labels: Floats) -> float:
    return kernel_alignment(block, labels) if labels.size and np.any(labels) and np.any(block) else math.nan


def overlap(block: Floats, one: Floats, other: Floats) -> float:
    """Return tr(Ŷ₁ᵀΦŶ₂), or of labels with unequal numbers of columns the Frobenius norm of Ŷ₁ᵀΦŶ₂."""
    table = one.T @ block @ other
    return float(np.trace(table) if table.shape[0] == table.shape[1] else np.linalg.norm(table))
