"""Does pre-training help a classifier? Target readout and the same without pre-training (docs/averages.md, Section 5).

Gains are baseline minus value, of the error and of every loss of fresh points. The best ridge is each kernel's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcli.arrays import Floats
from tlcli.errors import DomainError
from tlcli.linear.ansatz import check_alignment, check_psd, diagonalise
from tlcli.linear.classify.channels import signal_of
from tlcli.linear.classify.readout import Classified, Loss, classify
from tlcli.linear.classify.source import Labels, check_flips, pretrain_labels
from tlcli.linear.classify.stopped import best_time, classify_stopped
from tlcli.linear.pretraining import Kernel, Pretrained
from tlcli.linear.search import optimal_at_points
from tlcli.status import SOLVED, Status, phase_of, worst

_RIDGES: dict[str, Any] = {"lowest": 1e-5, "highest": 1e5, "n_grid": 16}  # 0 and inf are tried as well
_ENDLESS = 1e9  # stands for an infinite ridge, where only the direction of the predictor is left


@dataclass(frozen=True)
class ClassTransfer:
    """Readout with and without pre-training, the ridges of both, and the sign of the gain in error."""

    target: Classified
    baseline: Classified
    ridge: Floats
    baseline_ridge: Floats
    gain: Floats
    phase: NDArray[np.int8]
    status: NDArray[np.int8]
    residual: Floats
    pretrained: Pretrained | None
    best_time: Floats | None = None  # of least error with pre-training, and that error; None where no time is asked for
    stopped: Floats | None = None


@np.errstate(over="ignore")  # beyond floats is inf, and its status says so
def transfer_labels(
    alpha1: ArrayLike,
    alpha2: ArrayLike,
    *,
    rho: ArrayLike,
    gamma0: ArrayLike,
    loss: Loss = "logistic",
    ridge: ArrayLike | None = 0.0,
    rho_xi: ArrayLike = 0.0,
    labels: Labels = "sign",
    sigma1: ArrayLike = 0.0,
    flips1: ArrayLike = 0.0,
    sigma2: ArrayLike = 0.0,
    flips2: ArrayLike = 0.0,
    weight_decay: ArrayLike = 0.0,
    init_scale: ArrayLike = 1.0,
    kernel: Kernel = "feature",
    t1: ArrayLike = np.inf,
    time: ArrayLike | None = None,
) -> ClassTransfer:
    """Transfer on the kernel that pre-training really leaves; all arguments broadcast.

    loss, ridge: of the readout; None is the ridge of least error, of each kernel its own. sigma2: noise before the
    target's sign, flips2: share of flipped labels. time: of the readout's training, for the squared loss and given
    ridges; None: to its end. The rest as in `source.pretrain_labels` and `transfer_exact`.

    Raises `DomainError`. Source: docs/averages.md, Sections 2, 4 and 5.
    """
    check_alignment(rho, rho_xi)
    check_flips("flips2", flips2)
    source = pretrain_labels(
        *(alpha1, gamma0),
        labels=labels,
        sigma1=sigma1,
        flips1=flips1,
        init_scale=init_scale,
        weight_decay=weight_decay,
        t1=t1,
        kernel=kernel,
    )
    r = np.asarray(rho, dtype=float) * source.n_signal + np.asarray(rho_xi, dtype=float) * source.n_noise
    lost = np.isnan(source.bulk + r + source.spike)
    spike, bulk = np.where(lost, 0.0, source.spike), np.where(lost, 1.0, source.bulk)
    r2 = np.minimum(np.where(lost, 0.0, r) ** 2, 1.0)
    λ = None if ridge is None else np.asarray(ridge, dtype=float)
    # A scale-free kernel is so large that the ridge does not matter.
    own = λ if λ is None or not np.any(source.scale_free) else np.where(source.scale_free, 0.0, λ)
    untrained = np.square(np.asarray(init_scale, dtype=float)) * (2.0 if kernel == "ntk" else 1.0)
    return _compare((alpha2, (spike,), (r2,), bulk, untrained), (loss, own, λ, sigma2, flips2, time), source, lost)


@np.errstate(over="ignore")  # beyond floats is inf, and its status says so
def transfer_labels_ansatz(
    alpha1: ArrayLike,
    alpha2: ArrayLike,
    *,
    rho: ArrayLike,
    gamma0: ArrayLike,
    c_signal: ArrayLike,
    c_cross: ArrayLike,
    c_noise: ArrayLike,
    loss: Loss = "logistic",
    ridge: ArrayLike | None = 0.0,
    rho_xi: ArrayLike = 0.0,
    sigma2: ArrayLike = 0.0,
    flips2: ArrayLike = 0.0,
    bulk: ArrayLike = 1.0,
    time: ArrayLike | None = None,
) -> ClassTransfer:
    """Transfer on the free kernel k I + [[c₁, c₃], [c₃, c₂]]; all arguments broadcast, as in `transfer_ansatz`."""
    check_alignment(rho, rho_xi)
    check_flips("flips2", flips2)
    check_psd(bulk, c_signal, c_cross, c_noise, where={"gamma0": gamma0, "alpha1": alpha1})
    spikes, overlaps2 = diagonalise(c_signal, c_cross, c_noise, rho, rho_xi)
    k = np.asarray(bulk, dtype=float)
    kept = tuple(np.maximum(c, -k) for c in spikes)
    λ = None if ridge is None else np.asarray(ridge, dtype=float)
    return _compare((alpha2, kept, overlaps2, k, k), (loss, λ, λ, sigma2, flips2, time), None)


@np.errstate(over="ignore")  # as above
def transfer_labels_spikes(
    alpha2: ArrayLike,
    spikes: Sequence[ArrayLike],
    overlaps: Sequence[ArrayLike],
    *,
    loss: Loss = "logistic",
    ridge: ArrayLike | None = 0.0,
    sigma2: ArrayLike = 0.0,
    flips2: ArrayLike = 0.0,
    bulk: ArrayLike = 1.0,
    time: ArrayLike | None = None,
) -> ClassTransfer:
    """Transfer on k I + any number of spikes on orthonormal directions; `overlaps` are those with the target's teacher.

    All arguments broadcast, the rest as in `transfer_labels`. Raises `DomainError` also for overlaps whose squares add
    up to more than one, ValueError for another number of them.
    """
    check_flips("flips2", flips2)
    squares = [np.square(np.asarray(r, dtype=float)) for r in overlaps]
    total = np.asarray(sum(squares, np.zeros(())))
    if np.any(total > 1 + 1e-12):
        raise DomainError(
            f"the squares of the overlaps add up to {total.max():g}; a teacher of length 1 has at most 1."
        )
    k = np.asarray(bulk, dtype=float)
    c = tuple(np.asarray(x, dtype=float) for x in spikes)
    λ = None if ridge is None else np.asarray(ridge, dtype=float)
    return _compare((alpha2, c, squares, k, k), (loss, λ, λ, sigma2, flips2, time), None)


def _both(
    alpha2: ArrayLike,
    spikes: Sequence[Floats],
    overlaps2: Sequence[Floats],
    bulk: Floats,
    untrained: Floats,
    loss: Loss,
    ridge: Floats | None,
    baseline_ridge: Floats | None,
    tau: ArrayLike,
    flips: ArrayLike,
    time: ArrayLike | None,
) -> tuple[Classified, Classified, Floats, Floats]:
    """Return readout and baseline with the ridges of both; an untrained bulk of 0 without ridge is read as 0⁺."""
    own = ridge
    if own is None:
        own = best_ridge(loss, alpha2, spikes, overlaps2, bulk=bulk, tau=tau, flips=flips)
    other = baseline_ridge
    if other is None:
        other = best_ridge(loss, alpha2, bulk=untrained, tau=tau, flips=flips)
    λ, λ0 = np.minimum(own, _ENDLESS), np.minimum(other, _ENDLESS)
    k0 = np.where((untrained == 0) & (other == 0), 1.0, untrained)
    if time is None:
        target = classify(alpha2, spikes, overlaps2, loss=loss, ridge=λ, bulk=bulk, tau=tau, flips=flips)
        return target, classify(alpha2, loss=loss, ridge=λ0, bulk=k0, tau=tau, flips=flips), own, other
    target = classify_stopped(alpha2, spikes, overlaps2, time=time, ridge=λ, bulk=bulk, tau=tau, flips=flips)
    return target, classify_stopped(alpha2, time=time, ridge=λ0, bulk=k0, tau=tau, flips=flips), own, other


def best_ridge(
    loss: Loss,
    alpha2: ArrayLike,
    spikes: Sequence[ArrayLike] = (),
    overlaps2: Sequence[ArrayLike] = (),
    *,
    bulk: ArrayLike,
    tau: ArrayLike = 0.0,
    flips: ArrayLike = 0.0,
) -> Floats:
    """Return the ridge in [0, inf] of least error, for arrays that broadcast as in `classify`."""

    def error(ridge: Floats, α: Floats, k: Floats, τ: Floats, f: Floats, *rest: Floats) -> Floats:
        c, r2 = rest[: len(spikes)], rest[len(spikes) :]
        λ = np.minimum(ridge, _ENDLESS)
        return classify(α, c, r2, loss=loss, ridge=λ, bulk=k, tau=τ, flips=f).error

    best, _ = optimal_at_points(error, (alpha2, bulk, tau, flips, *spikes, *overlaps2), **_RIDGES)
    return best


def _compare(
    kernel: tuple[Any, ...], readout: tuple[Any, ...], source: Pretrained | None, lost: Any = False
) -> ClassTransfer:
    """Return both readouts, given as the first and the last arguments of `_both`, and their difference."""
    target, baseline, own, other = _both(*kernel, *readout)
    alpha2, spikes, overlaps2, bulk, _ = kernel
    *_, tau, flips, time = readout
    stop: tuple[Any, Any] = (None, None)
    if time is not None:
        stop = best_time(alpha2, spikes, overlaps2, ridge=np.minimum(own, _ENDLESS), bulk=bulk, tau=tau, flips=flips)
    gain = np.where(lost, np.nan, baseline.error - target.error)
    status = worst(target.status, baseline.status)
    dead = np.zeros((), dtype=bool)
    if source is not None:
        status, dead = worst(status, source.status), source.status == Status.COLLAPSED
    phase = phase_of(gain, target.error, baseline.error, relative=SOLVED, collapsed=dead)
    residual = np.maximum(target.residual, baseline.residual)
    return ClassTransfer(target, baseline, own, other, gain, phase, status, residual, source, *stop)


def label_signal(sigma: ArrayLike, flips: ArrayLike) -> Floats:
    """Return g = (1 − 2f)√(2/π)/√(1 + σ²), the covariance of a label with its teacher's output."""
    return signal_of(1 / np.sqrt(1 + np.square(np.asarray(sigma, dtype=float))), np.asarray(flips, dtype=float))
