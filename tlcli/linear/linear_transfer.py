"""Does pre-training help? Source, target and baseline in one call (docs/theory.md, Sections 2, 3).

gain = L₀ − L, where the baseline L₀ fine-tunes the untrained kernel (C = 0, k = κ²; NTK 2κ²) with the same
ridge, noise and time. With exact coefficients C has rank one, so ridgeless transfer on a surviving bulk is
never negative; it is negative when the bulk dies (κ → 0, weight decay) and r² < α₂, or when an ansatz C is
indefinite.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcli.arrays import Flags, Floats
from tlcli.linear.ansatz import check_alignment, check_psd, diagonalise
from tlcli.linear.domain import BULK, require
from tlcli.linear.finetuning import Finetuned, finetune
from tlcli.linear.pretraining import Kernel, Pretrained, pretrain
from tlcli.status import EXACT, Status, phase_of, worst


@dataclass(frozen=True)
class Transfer:
    """Losses and their sign; fields broadcast against each other, each only as large as it needs to be.

    gain is NaN, and phase UNKNOWN, where loss and baseline are both infinite (status DIVERGED).
    """

    loss: Floats
    baseline: Floats
    gain: Floats  # baseline − loss, from the spikes' own contributions: accurate however small
    train_loss: Floats
    phase: NDArray[np.int8]
    status: NDArray[np.int8]
    residual: Floats
    pretrained: Pretrained | None


@np.errstate(over="ignore")  # beyond floats is inf, and its status says so
def transfer_exact(
    alpha1: ArrayLike,
    alpha2: ArrayLike,
    *,
    rho: ArrayLike,
    gamma0: ArrayLike,
    rho_xi: ArrayLike = 0.0,
    sigma1: ArrayLike = 0.0,
    sigma2: ArrayLike = 0.0,
    ridge: ArrayLike = 0.0,
    weight_decay: ArrayLike = 0.0,
    init_scale: ArrayLike = 1.0,
    kernel: Kernel = "feature",
    t1: ArrayLike = np.inf,
    time: ArrayLike = np.inf,
) -> Transfer:
    """Transfer with the kernel that pre-training really leaves; all arguments broadcast.

    The target meets one spike with overlap r = ρ n₁ + ρ_ξ n₂. Baseline: C = 0 and k = init_scale² (NTK:
    twice that); at init_scale = 0, ridgeless and converged, its limit init_scale → 0⁺. A scale-free kernel
    (NTK, gamma0 = inf) is so large that ridge and positive times do not matter.

    Units and remaining parameters as in `pretraining.pretrain` and `finetuning.finetune`. Raises
    `DomainError`. Source: docs/theory.md, Sections 2 and 3.
    """
    check_alignment(rho, rho_xi)
    source = pretrain(
        alpha1, gamma0, sigma1=sigma1, init_scale=init_scale, weight_decay=weight_decay, t1=t1, kernel=kernel
    )
    r2 = np.square(np.asarray(rho, dtype=float) * source.n_signal + np.asarray(rho_xi) * source.n_noise)
    # A kernel that could not be computed leaves a row without numbers, whatever the rest of the grid does.
    lost = np.isnan(source.bulk + r2) | np.isnan(source.spike)
    spike, bulk = source.spike, source.bulk
    if np.any(lost):
        spike, bulk, r2 = (np.where(lost, safe, x) for x, safe in ((spike, 0.0), (bulk, 1.0), (r2, 0.0)))
    λ, t = np.asarray(ridge, dtype=float), np.asarray(time, dtype=float)
    scaled_λ, scaled_t = λ, t
    if np.any(source.scale_free):
        scaled_λ = np.where(source.scale_free, 0.0, λ)
        scaled_t = np.where(source.scale_free & (t > 0), np.inf, t)
    target = finetune(alpha2, (spike,), (r2,), bulk=bulk, sigma2=sigma2, ridge=scaled_λ, time=scaled_t)
    if np.any(lost):
        names = ("loss", "train_loss", "bulk_loss", "spike_gain")
        target = replace(target, **{name: np.where(lost, np.nan, getattr(target, name)) for name in names})
    untrained = np.square(np.asarray(init_scale, dtype=float)) * (2.0 if kernel == "ntk" else 1.0)
    baseline = _baseline(alpha2, untrained, sigma2, λ, t)
    dead = source.status == Status.COLLAPSED
    return _compare(target, baseline, dead, source)


@np.errstate(over="ignore")  # beyond floats is inf, and its status says so
def transfer_ansatz(
    alpha1: ArrayLike,
    alpha2: ArrayLike,
    *,
    rho: ArrayLike,
    gamma0: ArrayLike,
    c_signal: ArrayLike,
    c_cross: ArrayLike,
    c_noise: ArrayLike,
    rho_xi: ArrayLike = 0.0,
    sigma2: ArrayLike = 0.0,
    ridge: ArrayLike = 0.0,
    bulk: ArrayLike = 1.0,
    time: ArrayLike = np.inf,
) -> Transfer:
    """Transfer on the free kernel k I + [[c₁, c₃], [c₃, c₂]]; all arguments broadcast.

    alpha1 and gamma0 only say where a violated condition is: evaluate expressions of them beforehand
    (`ansatz.parse_expression`). Baseline: C = 0 with k = bulk, and k → 0⁺ for bulk = 0.

    Raises `DomainError` where k I + C is not positive semidefinite or rho² + rho_xi² > 1.
    Source: docs/theory.md, Section 3; [13], [156], [162]-[165].
    """
    check_alignment(rho, rho_xi)
    require(BULK, bulk=bulk)
    check_psd(bulk, c_signal, c_cross, c_noise, where={"gamma0": gamma0, "alpha1": alpha1})
    spikes, overlaps2 = diagonalise(c_signal, c_cross, c_noise, rho, rho_xi)
    k = np.asarray(bulk, dtype=float)
    # The determinant tolerates rounding at the edge of positivity; so does the smaller eigenvalue here.
    kept = tuple(np.maximum(c, -k) for c in spikes)
    target = finetune(alpha2, kept, overlaps2, bulk=k, sigma2=sigma2, ridge=ridge, time=time)
    baseline = _baseline(alpha2, k, sigma2, np.asarray(ridge, dtype=float), np.asarray(time, dtype=float))
    return _compare(target, baseline, np.zeros((), dtype=bool), None)


def _baseline(alpha2: ArrayLike, k: Floats, sigma2: ArrayLike, λ: Floats, t: Floats) -> Finetuned:
    """The kernel without spikes; ridgeless and converged, k = 0 is read as k → 0⁺."""
    if np.any(k == 0):
        # Ridgeless and converged, the loss of a bulk does not depend on its size.
        k = np.where((k == 0) & (λ == 0) & np.isinf(t), 1.0, k)
    return finetune(alpha2, bulk=k, sigma2=sigma2, ridge=λ, time=t)


def _compare(target: Finetuned, untrained: Finetuned, dead: Flags, source: Pretrained | None) -> Transfer:
    """Gain = (baseline − loss of the bulk alone) + gain of the spikes; the first is zero on an equal bulk."""
    baseline = untrained.loss
    with np.errstate(invalid="ignore"):
        gain = target.spike_gain + (baseline - target.bulk_loss)
        status = worst(target.status, untrained.status)
        both = target.loss + baseline
    if source is not None:
        status = worst(status, source.status)
    # Numbers beyond floats: infinite losses are said to be so, and what has no number is not solved.
    solved = (status == Status.CONVERGED) | (status == Status.COLLAPSED)
    status = np.where(solved & np.isinf(both), np.int8(Status.DIVERGED), status)
    status = np.where(solved & np.isnan(both), np.int8(Status.NOT_CONVERGED), status)
    return Transfer(
        loss=np.asarray(target.loss),
        baseline=np.asarray(baseline),
        gain=np.asarray(gain),
        train_loss=np.asarray(target.train_loss),
        phase=phase_of(gain, target.loss, baseline, relative=EXACT, collapsed=dead),
        status=status,
        residual=np.maximum(target.residual, untrained.residual),
        pretrained=source,
    )
