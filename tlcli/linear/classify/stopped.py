"""A squared-loss classifier whose gradient flow is stopped, exact for D → ∞ (docs/averages.md, Section 3).

A label acts on a squared loss as g₀ β*₂·x and independent noise of variance 1 − g₀², so that the predictor is g₀ times
that of regression with noise (1 − g₀²)/g₀². With R = u·(u − β) the part of a direction that is not learned and F its
loss (`frozen_dynamics`), m/g₀ = Σ r²(1 − R), and the loss of regression gives |β|². Other losses have no such modes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from tlcli.arrays import Floats
from tlcli.linear.classify.channels import ClassifierState, log_loss, signal_of
from tlcli.linear.classify.readout import Classified, classify
from tlcli.linear.frozen_dynamics import TOLERANCE, direction_loss, direction_part, noise_loss
from tlcli.linear.search import optimal_at_points
from tlcli.status import Status

_EARLIEST, _LATEST, _TRIED = 1e-3, 1e3, 25  # times at which the best is sought, beside 0 and infinity


@np.errstate(over="ignore")  # beyond floats is inf, and its status says so
def classify_stopped(
    alpha2: ArrayLike,
    spikes: Sequence[ArrayLike] = (),
    overlaps2: Sequence[ArrayLike] = (),
    *,
    time: ArrayLike,
    ridge: ArrayLike = 0.0,
    bulk: ArrayLike = 1.0,
    tau: ArrayLike = 0.0,
    flips: ArrayLike = 0.0,
) -> Classified:
    """Return what `readout.classify` does for the squared loss, of gradient flow on the mean loss up to `time`.

    All arguments broadcast; time = inf is that readout itself. At finite times V and the training error are NaN: the
    distribution of the training margins is not known. Raises `DomainError` as `readout.classify`.
    """
    names = {"alpha2": alpha2, "ridge": ridge, "bulk": bulk, "tau": tau, "flips": flips}
    whole = classify(spikes=spikes, overlaps2=overlaps2, loss="square", **names)  # type: ignore[arg-type]
    α, λ, k, τ, f, t = (np.asarray(x, dtype=float) for x in (*names.values(), time))
    finite = np.isfinite(t)
    t = np.where(finite, t, 0.0)  # the end is the readout's
    c, parts = 1 / np.sqrt(1 + τ**2), [(np.asarray(s), np.asarray(r)) for s, r in zip(spikes, overlaps2, strict=True)]
    g = signal_of(c, f)
    rest = 1 - sum((r for _, r in parts), np.zeros(()))
    m, loss, train, change = (np.zeros(()) for _ in range(4))
    for spike, weight in [(np.zeros(()), np.maximum(rest, 0.0)), *parts]:
        with np.errstate(invalid="ignore"):  # of kernels beyond floats: NaN is not solved
            found, left = direction_loss(α, k, spike, λ, t), direction_part(α, k, spike, λ, t)
        m = m + weight * (1 - left)
        loss, train = loss + weight * found.test, train + weight * found.train
        change = np.maximum(change, found.change)
    noise = noise_loss(α, k, λ, t)
    q = np.maximum(g * g * (loss - 1 + 2 * m) + (1 - g * g) * noise.test, 0.0)
    m, train = g * m, g * g * train + (1 - g * g) * noise.train
    state = ClassifierState(np.full((), np.nan), m, np.maximum(q - m * m, 0.0), c, f)
    nothing = (t == 0) | ((m == 0) & (q == 0))
    angle = np.where(nothing, 0.5, np.arctan2(np.sqrt(state.S), m) / np.pi)
    noisy = f + (1 - 2 * f) * np.where(nothing, 0.5, np.arctan2(state.s, c * m) / np.pi)
    blank = np.full((), np.nan)
    fresh = _log_loss(state, nothing)
    solved = (change <= np.sqrt(TOLERANCE)) & ~np.isnan(fresh)
    early = {
        "overlap": m,
        "norm2": q,
        "V": blank,
        "error": angle,
        "noisy_error": noisy,
        "train_loss": train / 2,
        "log_loss": fresh,
        "square_loss": 1 - 2 * g * m + q,
        "train_error": blank,
        "margin": blank,
        "threshold": whole.threshold,
        "residual": change,
        "status": np.where(solved, Status.CONVERGED, Status.NOT_CONVERGED),
    }
    both = {name: np.where(finite, value, getattr(whole, name)) for name, value in early.items()}
    return Classified(**both)  # type: ignore[arg-type]


def _log_loss(state: ClassifierState, nothing: Floats) -> Floats:
    shape = np.broadcast_shapes(*(np.shape(x) for x in state), np.shape(nothing))
    m, S = np.where(nothing, 0.0, state.m), np.where(nothing, 1.0, state.S)
    flat = ClassifierState(*(np.broadcast_to(x, shape).ravel() for x in state._replace(m=m, S=S)))
    with np.errstate(invalid="ignore"):  # where the norm is beyond floats
        return np.where(nothing, np.log(2), log_loss(flat).reshape(shape))


def best_time(
    alpha2: ArrayLike,
    spikes: Sequence[ArrayLike] = (),
    overlaps2: Sequence[ArrayLike] = (),
    *,
    ridge: ArrayLike = 0.0,
    bulk: ArrayLike = 1.0,
    tau: ArrayLike = 0.0,
    flips: ArrayLike = 0.0,
) -> tuple[Floats, Floats]:
    """Return the time in [0, inf] of least error and that error, for arrays that broadcast as in `classify_stopped`.

    At 0 it is best to stop at once: at the first step the predictor has the direction of Hebb's rule.
    """

    def error(time: Floats, α: Floats, λ: Floats, k: Floats, τ: Floats, f: Floats, *rest: Floats) -> Floats:
        c, r2 = rest[: len(spikes)], rest[len(spikes) :]
        return classify_stopped(α, c, r2, time=time, ridge=λ, bulk=k, tau=τ, flips=f).error

    best, least = optimal_at_points(
        error,
        (alpha2, ridge, bulk, tau, flips, *spikes, *overlaps2),
        lowest=_EARLIEST,
        highest=_LATEST,
        n_grid=_TRIED,
        tolerance=1e-9,
    )
    return np.where(best <= _EARLIEST * (1 + 1e-6), 0.0, best), least
