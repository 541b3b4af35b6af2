"""Fine-tuning a readout on a frozen kernel: bulk plus spikes (docs/theory.md, Section 3).

The kernel is M = k I + Σ_j c_j n_j n_jᵀ along orthonormal n_j; β*₂ has squared overlap r_j² with n_j and
squared norm |β*₂|² − Σ r_j² in the rest. Each direction decouples. Converged, with effective regularisation
κ₂:

    κ₂ = λ₂ + κ₂ k/(α₂(k+κ₂)),   d₂ = k²/(α₂(k+κ₂)²),
    L = { κ₂² [ rest/(k+κ₂)² + Σ_j r_j²/(k+c_j+κ₂)² ] + σ₂² d₂ } / (1 − d₂),
    train loss, on the noisy labels = (λ₂/κ₂)² (L + σ₂²).

Limits that do not commute: ridgeless and converged, k → 0⁺ gives L → (1 − α₂)(1 − r²) (with c_j > 0),
whereas k = 0 gives L = 1 − r² for every α₂ (Result 4): the rest is never learned. At fixed λ₂ > 0, or at a
fixed finite time, the limit k → 0 is continuous. A direction with k + c_j = 0 is never learned either.

Losses are mean squared errors (no ½), noise excluded on test; time counts in units of the mean loss
(1/2P)Σ(y − f)².
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcli.arrays import Flags, Floats
from tlcli.errors import DomainError
from tlcli.linear import frozen_dynamics
from tlcli.linear.domain import FINITE_NON_NEGATIVE, NON_NEGATIVE, POSITIVE, at_threshold, require
from tlcli.linear.spectrum import excess, positive_root
from tlcli.status import Status, worst

_TINY = 1e-290  # below it a spike without bulk is as good as this one, and its inverse is a number
_HUGE = 1e300  # stands for an infinite spike: κ/(κ + k + c) underflows to its limit, and inf/inf never appears


@dataclass(frozen=True)
class Finetuned:
    """Target losses; fields broadcast against each other, none larger than it needs to be."""

    loss: Floats  # test loss |β*₂ − β|²
    train_loss: Floats  # mean squared residual on the noisy labels
    bulk_loss: Floats  # the test loss of the same kernel without its spikes
    spike_gain: Floats  # bulk_loss − loss, computed without cancellation when converged
    status: NDArray[np.int8]
    residual: Floats


class Regularisation(NamedTuple):
    """κ₂, λ₂/κ₂ and 1 − d₂, of the broadcast shape of (alpha2, bulk, ridge)."""

    kappa: Floats
    shrinkage: Floats
    one_minus_d: Floats


class _Problem(NamedTuple):
    """Validated arguments of `finetune`: α₂, k, σ₂, λ₂, |β*₂|², c_j, r_j²."""

    alpha2: Floats
    bulk: Floats
    sigma2: Floats
    ridge: Floats
    norm2: Floats
    spikes: tuple[Floats, ...]
    overlaps2: tuple[Floats, ...]


def effective_ridge(alpha2: ArrayLike, bulk: ArrayLike = 1.0, ridge: ArrayLike = 0.0) -> Regularisation:
    """Positive root κ₂ of κ² − pκ − λ₂k = 0, p = λ₂ + k/α₂ − k, and 1 − d₂ = λ₂/κ₂ + κ₂k/(α₂(k+κ₂)²).

    At k = λ₂ = 0 the limit λ₂ → 0 is meant: κ₂ = 0, λ₂/κ₂ = 1, d₂ = 0. Nothing is validated here.
    """
    k, λ = np.asarray(bulk, dtype=float), np.asarray(ridge, dtype=float)
    c = 1.0 / np.asarray(alpha2, dtype=float)
    with np.errstate(invalid="ignore"):  # 0·∞ where 1/α is beyond floats
        kappa, shrinkage = positive_root(λ + k * excess(alpha2), λ, k)
    f, taken = _bulk_ratio(kappa, k)
    return Regularisation(kappa, shrinkage, shrinkage + c * f * taken)


@np.errstate(over="ignore")  # beyond floats is inf, and its status says so
def finetune(
    alpha2: ArrayLike,
    spikes: Sequence[ArrayLike] = (),
    overlaps2: Sequence[ArrayLike] = (),
    *,
    target_norm2: ArrayLike = 1.0,
    bulk: ArrayLike = 1.0,
    sigma2: ArrayLike = 0.0,
    ridge: ArrayLike = 0.0,
    time: ArrayLike = np.inf,
) -> Finetuned:
    """Test and train loss of the linear readout on a frozen kernel, for arrays that broadcast.

    alpha2: P₂/D in (0, inf]. spikes: strengths c_j in [−bulk, inf] along orthonormal directions. overlaps2:
    squared overlaps of the target teacher with them, one for each spike. target_norm2: |β*₂|². sigma2:
    label noise. ridge: λ₂ on the readout, of the mean loss. time: duration; inf is converged, and finite
    and infinite values may mix.

    Status DIVERGED: the loss is infinite (α₂ = 1, ridgeless, noise). residual: relative defect of κ₂, or
    for finite time the change of the loss when the number of modes was last doubled (NOT_CONVERGED above
    1e-7).

    Raises `DomainError`. Source: docs/theory.md, Section 3; [8], [97], [99], [13], [15], [156], [203].
    """
    require(POSITIVE, alpha2=alpha2)
    require(NON_NEGATIVE, time=time)
    require(FINITE_NON_NEGATIVE, bulk=bulk, sigma2=sigma2, ridge=ridge, target_norm2=target_norm2)
    k, t = np.asarray(bulk, dtype=float), np.asarray(time, dtype=float)
    if len(spikes) != len(overlaps2):
        raise ValueError(f"{len(spikes)} spikes but {len(overlaps2)} overlaps: give one overlap for each spike.")
    c = tuple(_admissible(spike, k) for spike in spikes)
    r2 = tuple(np.asarray(x, dtype=float) for x in overlaps2)
    α = at_threshold(alpha2)
    σ, λ, norm2 = (np.asarray(x, dtype=float) for x in (sigma2, ridge, target_norm2))
    problem = _Problem(α, k, σ, λ, norm2, c, r2)
    if not np.any(np.isfinite(t)):
        return _converged(problem)
    timed = _at_time(problem, np.where(np.isfinite(t), t, 0.0))
    if not np.any(np.isinf(t)):
        return timed
    final, ended = _converged(problem), np.isinf(t)
    names = ("loss", "train_loss", "bulk_loss", "spike_gain", "status", "residual")
    return Finetuned(*(np.where(ended, getattr(final, n), getattr(timed, n)) for n in names))


def _admissible(spike: ArrayLike, k: Floats) -> Floats:
    """The spike with infinity made finite and k + c ≥ 0 enforced up to rounding."""
    c = np.minimum(np.asarray(spike, dtype=float), _HUGE)
    c = np.where((k == 0) & (c > 0), np.maximum(c, _TINY), c) if np.any(k == 0) else c
    total, scale = k + c, 1e-12 * np.maximum(k, np.abs(c))
    bad = ~(total >= -scale)
    if np.any(bad):
        value = np.broadcast_to(c, bad.shape)[bad].flat[0]
        bulk = np.broadcast_to(k, bad.shape)[bad].flat[0]
        raise DomainError(
            f"spike = {value:g} on a bulk of {bulk:g} is not a kernel: bulk + spike must be zero or positive."
        )
    null = np.abs(total) <= 1e-3 * scale  # a null direction up to rounding: exactly null
    return np.where(null, -k, c) if np.any(null & (c != -k)) else c


def _bulk_ratio(kappa: Floats, k: Floats) -> tuple[Floats, Floats]:
    """κ₂/(k+κ₂), the part of the rest that is not learned (1 where both vanish), and its complement."""
    total = kappa + k
    empty = total == 0
    total = np.where(empty, 1.0, total)
    with np.errstate(invalid="ignore"):  # where the sum is beyond floats
        return np.where(empty, 1.0, kappa / total), k / total


def _converged(problem: _Problem) -> Finetuned:
    """Closed form: factors live on the few axes they depend on, only the last products fill the grid."""
    α, k, σ, λ, norm2, c, r2 = problem
    κ, shrinkage, one_minus_d = effective_ridge(α, k, λ)
    f, taken = _bulk_ratio(κ, k)
    edge = one_minus_d == 0  # α₂ = 1, ridgeless: κ = 0 and bias terms vanish while noise diverges
    with np.errstate(divide="ignore"):
        amplify = 1.0 / one_minus_d
    gain_unit = np.where(edge, 1.0, f * np.where(edge, 1.0, amplify))  # f/(1−d) → 1 from below the edge
    bulk_unit = gain_unit * f
    with np.errstate(invalid="ignore"):  # where σ² or 1/α is beyond floats
        noise = np.where(σ == 0, 0.0, σ**2 * np.where(σ == 0, 0.0, (taken**2 / α) * amplify))

    rest, gain, loss = norm2, np.float64(0.0), noise
    for cj, rj2 in zip(c, r2, strict=True):
        rest = rest - rj2
        learned, left = _spike_units(κ, k + cj, cj, f, amplify, gain_unit, edge)
        gain = gain + rj2 * learned
        loss = loss + rj2 * left
    loss = loss + np.maximum(rest, 0.0) * bulk_unit
    ridgeless = shrinkage == 0
    with np.errstate(invalid="ignore"):
        train = shrinkage**2 * (loss + σ**2)
    train = np.where(ridgeless, 0.0, train) if np.any(ridgeless & edge) else train
    with np.errstate(invalid="ignore"):  # where κ or 1/α is beyond floats
        right_side = λ + κ * taken / α
    scale = np.maximum(κ, right_side)
    bulk_loss = norm2 * bulk_unit + noise
    infinite = np.isinf(loss) if np.any(edge) else np.zeros((), dtype=bool)
    status = np.where(infinite, Status.DIVERGED, Status.CONVERGED).astype(np.int8)
    residual = np.abs(κ - right_side) / np.where(scale > 0, scale, 1.0)
    return Finetuned(loss, train, bulk_loss, np.asarray(gain), status, residual)


def _spike_units(
    κ: Floats, kc: Floats, c: Floats, f: Floats, amplify: Floats, gain_unit: Floats, edge: Flags
) -> tuple[Floats, Floats]:
    """Per unit r²: the gain over the bulk, (f² − g²)/(1−d), and what is left, g²/(1−d); g = κ/(κ+k+c).

    f − g = f c/(κ+k+c) keeps a small gain free of cancellation.
    """
    total = κ + kc
    # A null direction without ridge has g = 0/0 = 1; the inverse of what is below the smallest normal number overflows.
    if (np.any(kc == 0) and np.any(κ == 0)) or np.any(total < np.finfo(float).tiny):
        null = total == 0
        g = np.where(null, 1.0, κ / np.where(null, 1.0, total))
        missing = np.where(null, f - 1.0, f * (c / np.where(null, 1.0, total)))
        with np.errstate(invalid="ignore"):
            factor = np.where(edge & (g == 0), 0.0, amplify)
            left = np.where(g == 0, 0.0, factor * g * g)
            return np.where(missing == 0, 0.0, factor * missing * (f + g)), left
    inverse = 1.0 / total
    with np.errstate(invalid="ignore"):  # where κ, c or 1/(1 − d) is beyond floats
        g = κ * inverse
        left = g * g
        left *= np.where(edge, 0.0, amplify)
        inverse *= c * gain_unit
        g += f
        inverse *= g
    return inverse, left


def _at_time(problem: _Problem, t: Floats) -> Finetuned:
    """Finite times: F_c(t) of each direction from the Marchenko–Pastur modes (Section 3, time-resolved)."""
    α, k, σ, λ, norm2, c, r2 = problem
    bulk = frozen_dynamics.direction_loss(α, k, 0.0, λ, t)
    noise = frozen_dynamics.noise_loss(α, k, λ, t)
    with np.errstate(invalid="ignore"):  # where σ² is beyond floats
        rest, loss, gain = norm2, σ**2 * noise.test, np.float64(0.0)
        train, change = σ**2 * noise.train, norm2 * bulk.change + σ**2 * noise.change
    for cj, rj2 in zip(c, r2, strict=True):
        spike = frozen_dynamics.direction_loss(α, k, cj, λ, t)
        rest = rest - rj2
        loss, train = loss + rj2 * spike.test, train + rj2 * spike.train
        gain = gain + rj2 * (bulk.test - spike.test)
        change = change + rj2 * spike.change
    rest = np.maximum(rest, 0.0)
    loss, train = loss + rest * bulk.test, train + rest * bulk.train
    with np.errstate(invalid="ignore"):
        bulk_loss = norm2 * bulk.test + σ**2 * noise.test
    status = np.where(change <= 1e-7, Status.CONVERGED, Status.NOT_CONVERGED).astype(np.int8)
    return Finetuned(loss, train, bulk_loss, np.asarray(gain), worst(status), change)
