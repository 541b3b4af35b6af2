"""A classifying readout on k I + spikes: errors, losses and margin for arrays that broadcast.

Points that are equal are solved once, so what does not vary along an axis of a grid costs nothing there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcli.arrays import Floats
from tlcli.errors import DomainError
from tlcli.linear.classify.channels import Channel, ClassifierState, log_loss
from tlcli.linear.classify.margin import maximum_margin, separability
from tlcli.linear.classify.saddle import (
    TOLERANCE,
    ClassifierProblem,
    ClassifierSaddle,
    map_of,
    solve,
    solve_map,
    square_start,
    sums,
)
from tlcli.linear.domain import FINITE_NON_NEGATIVE, POSITIVE, require
from tlcli.status import Status

Loss = Literal["square", "logistic", "hinge", "margin"]
LOSSES: tuple[Loss, ...] = ("square", "logistic", "hinge", "margin")

_FAINT = 1e-100  # bulks below are units of their kernel, of which a maximum margin knows only ratios
_LONGEST = 1e150  # overlap whose square is a number
_NO_RIDGE = 1e-290  # as good as none, but a direction without features stays unlearned


@dataclass(frozen=True)
class Classified:
    """What the readout does; all fields have the broadcast shape of the arguments.

    NaN where there is no answer: status INSEPARABLE (maximum margin above the threshold) or NOT_CONVERGED. Without
    ridge and below the threshold the logistic readout grows without end along the maximum-margin direction: overlap,
    norm2, V and the losses of fresh points are then infinite.
    """

    overlap: Floats  # m = β·β*₂
    norm2: Floats  # q = |β|²
    V: Floats  # how far one label moves its own prediction
    error: Floats  # share of wrong signs, against the clean teacher
    noisy_error: Floats  # the same against labels with noise and flips
    log_loss: Floats  # mean of log(1 + e^{−yf}) of fresh points
    square_loss: Floats  # mean of (y − f)² of fresh points
    train_loss: Floats  # mean of the loss itself on the training points (square: ½(1 − yf)²)
    train_error: Floats
    margin: Floats  # 1/|θ|, of the maximum margin alone
    threshold: Floats  # α_c
    residual: Floats
    status: NDArray[np.int8]


@np.errstate(over="ignore")  # beyond floats is inf, and its status says so
def classify(
    alpha2: ArrayLike,
    spikes: Sequence[ArrayLike] = (),
    overlaps2: Sequence[ArrayLike] = (),
    *,
    loss: Loss = "logistic",
    ridge: ArrayLike = 0.0,
    bulk: ArrayLike = 1.0,
    tau: ArrayLike = 0.0,
    flips: ArrayLike = 0.0,
) -> Classified:
    """Train a readout on y = sign(β*₂·x + tau ε), flipped with probability `flips`; all arguments broadcast.

    alpha2: P₂/D, positive and finite. spikes: c_j ≥ 0 on orthonormal directions (inf allowed), with the squared
    overlaps2 of the unit teacher. ridge: λ of (1/P) Σ ℓ + (λ/2)|θ|², f = θ·M^{1/2}x; the maximum margin has none.
    bulk: k ≥ 0. Status DIVERGED: the norm is infinite (square loss, α₂ = 1, λ = 0).

    Raises `DomainError` for parameters outside the theory. Source: docs/averages.md, Section 2.
    """
    names = {"alpha2": alpha2, "ridge": ridge, "bulk": bulk, "tau": tau, "flips": flips}
    _check(names, spikes, overlaps2)
    arrays = [np.asarray(x, dtype=float) for x in (*names.values(), *spikes, *overlaps2)]
    shape = np.broadcast_shapes(*(x.shape for x in arrays))
    table = np.stack([np.broadcast_to(x, shape).ravel() for x in arrays], axis=1)
    rows, back = np.unique(table, axis=0, return_inverse=True)
    found = _classify(loss, _problem(rows, len(spikes)), rows[:, 3])
    return Classified(*(getattr(found, f.name)[back.ravel()].reshape(shape) for f in fields(found)))


def _check(names: dict[str, ArrayLike], spikes: Sequence[ArrayLike], overlaps2: Sequence[ArrayLike]) -> None:
    require(POSITIVE, alpha2=names["alpha2"])
    require(FINITE_NON_NEGATIVE, **{name: names[name] for name in ("ridge", "bulk", "tau")})
    if np.any(np.isinf(names["alpha2"])):
        raise DomainError("alpha2 = inf has no classification theory; use a large finite alpha2, such as 1000.")
    f = np.asarray(names["flips"], dtype=float)
    if np.any(bad := ~((f >= 0) & (f < 0.5))):
        raise DomainError(
            f"flips = {f[bad].flat[0]:g} is not allowed; the share of flipped labels must be >= 0 and < 0.5 "
            "(from 0.5 on they say nothing, or the opposite)."
        )
    if len(spikes) != len(overlaps2):
        raise ValueError(f"{len(spikes)} spikes but {len(overlaps2)} overlaps: give one overlap for each spike.")
    k = np.asarray(names["bulk"], dtype=float)
    for spike in spikes:
        if np.any(bad := ~(k + np.asarray(spike, dtype=float) >= 0)):
            raise DomainError(
                f"a spike of {np.broadcast_to(spike, bad.shape)[bad].flat[0]:g} on a bulk of "
                f"{np.broadcast_to(k, bad.shape)[bad].flat[0]:g} is not a kernel: their sum must be zero or positive."
            )


def _problem(rows: Floats, count: int) -> ClassifierProblem:
    alpha, ridge, bulk, tau, flips = rows[:, :5].T
    values = bulk[:, None] + rows[:, 5 : 5 + count]
    overlaps2 = rows[:, 5 + count :]
    if count > 1 and np.any((bulk == 0) & (np.sum((values > 0) & (overlaps2 > 0), axis=1) > 1)):
        raise DomainError(
            "a bulk of 0 with several spikes is a regression in few dimensions, which this theory does not cover; use "
            "a positive bulk or one spike."
        )
    rest = np.maximum(1 - np.sum(overlaps2, axis=1, keepdims=True), 0.0)
    weights = np.concatenate([rest, overlaps2], axis=1)
    return ClassifierProblem(alpha, ridge, bulk, values, weights, 1 / np.sqrt(1 + tau**2), flips)


def _classify(loss: Loss, problem: ClassifierProblem, tau: Floats) -> Classified:
    """Divide the points by what has to be solved: nothing, the loss itself, or the maximum margin."""
    threshold = separability(_seen_noise(problem, tau), problem.flips)
    blank = np.full(problem.size, np.nan)
    columns = {f.name: blank.copy() for f in fields(Classified)} | {"status": np.zeros(problem.size, dtype=np.int8)}
    out = Classified(**columns)  # type: ignore[arg-type]
    out.threshold[:] = threshold
    learned = np.sum(problem.weights * (problem.eigenvalues > 0), axis=1) > 0
    separable = (problem.alpha < threshold) & (problem.bulk > 0)
    hard = learned & separable & (loss != "square") & ((loss == "margin") | (problem.ridge == 0))
    none = learned & ~separable & (loss == "margin")
    soft = learned & ~hard & ~none
    for part, answer in ((~learned, _unlearned), (hard, _separated), (soft, _trained)):
        if part.any():
            for name, values in answer(loss, problem.take(part)).items():
                getattr(out, name)[part] = values
    out.status[none], out.residual[none] = Status.INSEPARABLE, 0.0
    return out


def _seen_noise(problem: ClassifierProblem, tau: Floats) -> Floats:
    """Return the label noise of a readout that does not see some spikes (eigenvalue 0) of a kernel with a bulk.

    The teacher's part along these is noise beside what is left of it, which has length one in the answer.
    """
    hidden = np.sum(problem.weights[:, 1:] * (problem.values == 0), axis=1) * (problem.bulk > 0)
    left = np.maximum(1 - hidden, 1e-30)  # of none, no readout is sought
    return np.where(hidden > 0, np.sqrt((tau**2 + hidden) / left), tau)


def _unlearned(loss: Loss, problem: ClassifierProblem) -> dict[str, Floats]:
    """Return what a readout without features does: it predicts zero."""
    zero, half = np.zeros(problem.size), np.full(problem.size, 0.5)
    start = {"square": 0.5, "logistic": np.log(2), "hinge": 1.0, "margin": np.nan}[loss]
    parts = {"overlap": zero, "norm2": zero, "V": zero, "error": half, "noisy_error": half, "residual": zero}
    parts |= {"log_loss": zero + np.log(2), "square_loss": zero + 1, "train_loss": zero + start, "train_error": half}
    if loss == "margin":
        parts["status"] = np.full(problem.size, Status.INSEPARABLE)
    return parts


def _trained(loss: Loss, problem: ClassifierProblem) -> dict[str, Floats]:
    """Return the answer of a loss with its ridge."""
    channel = Channel(loss)
    bare = (problem.ridge == 0) & np.any((problem.eigenvalues == 0) & (problem.weights > 0), axis=1)
    problem = replace(problem, ridge=np.where(bare, _NO_RIDGE, problem.ridge))
    if loss == "square":
        x, residual = square_start(problem, problem.ridge), np.zeros(problem.size)
        # Infinite V and S are limits, not overflow of the exponential.
        V, m, S = np.exp(x).T
        state = ClassifierState(V / problem.alpha, m, S, problem.c, problem.flips)
    else:
        found = solve(channel, problem)
        if loss == "hinge":
            _at_the_margin(problem, found)
        state, residual = problem.state(found.x), found.residual
    parts = _observed(state, residual)
    # An infinite norm fits all; an infinite V is a limit of the square loss, and beyond floats of others.
    endless = np.isinf(state.S)
    known = (parts["status"] == Status.CONVERGED) & (np.isfinite(state.V) | (loss == "square"))
    rows = np.flatnonzero(known & ~endless)
    parts |= {name: np.where(endless, 0.0, np.nan) for name in ("train_loss", "train_error")}
    parts["train_loss"][rows], parts["train_error"][rows] = channel.training(state[rows])
    if loss == "square":
        exact = (problem.ridge == 0) & (problem.alpha < 1)
        parts["train_loss"] = np.where(exact, 0.0, parts["train_loss"])
        parts["status"] = np.where(endless, Status.DIVERGED, parts["status"])
    return _known(parts)


def _at_the_margin(problem: ClassifierProblem, found: ClassifierSaddle) -> None:
    """Put the maximum margin, of which V is αλV, into unsolved points with next to no ridge."""
    lost = np.flatnonzero((found.residual > TOLERANCE) & (problem.bulk > 0) & (problem.ridge > 0))
    tau = _seen_noise(problem, np.sqrt(1 / problem.c**2 - 1))
    lost = lost[problem.alpha[lost] < separability(tau[lost], problem.flips[lost])]
    if lost.size:
        some = problem.take(lost)
        x = maximum_margin(some).x
        with np.errstate(divide="ignore"):  # a product below floats: no start, and the residual tells
            x[:, 0] -= np.log(some.alpha * some.ridge)
        again = solve_map(map_of(Channel("hinge"), some, 0), x)
        found.x[lost], found.residual[lost] = again.x, again.norm


def _separated(loss: Loss, problem: ClassifierProblem) -> dict[str, Floats]:
    """Return the maximum margin: of itself, of the hinge loss without ridge, or as the logistic loss's direction."""
    unit = np.where(problem.bulk < _FAINT, problem.bulk, 1.0)
    problem = replace(problem, bulk=problem.bulk / unit, values=problem.values / unit[:, None])
    found = maximum_margin(problem)
    state = problem.state(found.x)
    zero = np.zeros(problem.size)
    parts = {**_observed(state, found.residual), "train_loss": zero, "train_error": zero}
    if loss == "margin":
        with np.errstate(divide="ignore", invalid="ignore"):  # where the norm is beyond floats
            answer = Channel("margin").response(state, 0)
            parts["margin"] = np.sqrt(unit) / np.sqrt(readout_norm2(problem, answer.v, answer.q, answer.m))
        parts["V"] = parts["V"] * unit
    if loss == "logistic":
        endless = np.where(np.isnan(parts["error"]), np.nan, np.inf)
        parts |= dict.fromkeys(("overlap", "norm2", "V", "log_loss", "square_loss"), endless)
    if loss == "hinge":
        parts["V"] = np.where(np.isnan(parts["error"]), np.nan, np.inf)
    return _known(parts)


def readout_norm2(problem: ClassifierProblem, v: Floats, q: Floats, m: Floats) -> Floats:
    """Return |θ|² = β·M⁻¹β of the maximum margin at the channel's answer."""
    x = problem.eigenvalues
    pull = 1 / problem.alpha
    with np.errstate(divide="ignore", invalid="ignore"):
        g = 1 / (v[:, None] + pull[:, None] / x)
        pulled = np.where(x > 0, g**2 / x, 0.0)
    bulk = sums(problem, v, pull).bulk
    return m**2 * np.sum(problem.weights * pulled, axis=1) + q * bulk**2 / (problem.alpha * problem.bulk)


def _observed(x: ClassifierState, residual: Floats) -> dict[str, Floats]:
    """Return what fresh points see of a solution; NaN where it is none, or its norm is beyond floats."""
    solved = (residual <= TOLERANCE) & (x.m <= _LONGEST)
    log, rows = np.full_like(x.S, np.inf), np.flatnonzero(solved & np.isfinite(x.S))
    log[rows] = log_loss(x[rows])
    with np.errstate(invalid="ignore"):  # of points that are not solved
        parts = {
            "overlap": x.m,
            "norm2": x.q,
            "V": x.V,
            "error": np.arctan2(np.sqrt(x.S), x.m) / np.pi,
            "noisy_error": x.flips + (1 - 2 * x.flips) * (np.arctan2(x.s, x.c * x.m) / np.pi),
            "log_loss": log,
            "square_loss": 1 - 2 * x.signal * x.m + x.q,
        }
    parts = {name: np.where(solved, value, np.nan) for name, value in parts.items()}
    return {**parts, "residual": residual, "status": np.where(solved, Status.CONVERGED, Status.NOT_CONVERGED)}


def _known(parts: dict[str, Floats]) -> dict[str, Floats]:
    """Return answers of which none is NaN; a point that has one, beyond floats, is not solved at all."""
    lost = np.any([np.isnan(parts[name]) for name in parts if name not in ("status", "residual")], axis=0)
    status = np.where(lost, Status.NOT_CONVERGED, parts["status"])
    cleared = {name: np.where(lost, np.nan, values) for name, values in parts.items()}
    return {**cleared, "residual": parts["residual"], "status": status}
