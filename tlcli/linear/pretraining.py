"""What the source task leaves behind: predictor, bulk and spike of the kernel (docs/theory.md, Section 2).

The population of neurons is moved by a Lorentz boost, so the feature kernel is always M = k I + χ n nᵀ with
the spike along the predictor β₁ = |β₁| n, s = √(k² + γ₀²|β₁|²), χ = s − k. This module finds |β₁|, n and k:

    no weight decay, t → ∞     minimum-norm interpolator or least squares, in closed form; k = κ²
    weight decay, t → ∞        ridge regression with the self-consistent ridge r = λ/(γ₀|β₁|); k = 0
    finite t                   `tlcli.linear.dynamics`

Letters: ν = |β₁|² (`norm2`), q = β₁·β*₁ (`overlap`), n = n₁ β*₁ + n₂ ξ (`n_signal`, `n_noise`), κ =
`init_scale`, c = 1/α₁, ε = λ/γ₀.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcli.arrays import Flags, Floats
from tlcli.errors import DomainError, suggest
from tlcli.linear.domain import FINITE_NON_NEGATIVE, INIT_SCALE, NON_NEGATIVE, POSITIVE, at_threshold, require
from tlcli.linear.spectrum import resolvent
from tlcli.status import Status

Kernel = Literal["feature", "ntk"]
KERNELS = ("feature", "ntk")


@dataclass(frozen=True)
class Pretrained:
    """Predictor and kernel after pre-training; fields broadcast against each other and the parameters.

    A field only has the axes it depends on. Where status is DIVERGED (α₁ = 1 with label noise) norm2 and
    spike are inf and the spike points along the noise; where it is COLLAPSED the kernel is zero.
    """

    overlap: Floats  # q = β₁·β*₁
    norm2: Floats  # ν = |β₁|²
    bulk: Floats  # k (feature kernel), s + k (NTK)
    spike: Floats  # χ = s − k
    n_signal: Floats  # n₁ = q/√ν
    n_noise: Floats  # n₂ = √(1 − n₁²)
    c_signal: Floats  # χ n₁²
    c_cross: Floats  # χ n₁ n₂
    c_noise: Floats  # χ n₂²
    train_loss: Floats  # mean squared residual on the noisy labels: what sets the noise's covariance [12]
    scale_free: Flags  # the kernel diverges and only its shape I + n nᵀ is meaningful
    status: NDArray[np.int8]
    residual: Floats


@dataclass(frozen=True)
class _Predictor:
    """ν, q and ν n₂² (kept apart: 1 − n₁² would lose it) with the bulk k of the feature kernel."""

    overlap: Floats
    norm2: Floats
    noise2: Floats
    bulk: Floats
    train_loss: Floats
    status: NDArray[np.int8]
    residual: Floats


def check_domain(
    alpha1: ArrayLike,
    gamma0: ArrayLike,
    *,
    sigma1: ArrayLike = 0.0,
    init_scale: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
    t1: ArrayLike = np.inf,
    kernel: str = "feature",
) -> None:
    """Raise `tlcli.errors.DomainError` for the first parameter outside the theory (NaN always is)."""
    require(POSITIVE, alpha1=alpha1)
    require(NON_NEGATIVE, gamma0=gamma0, t1=t1)
    require(FINITE_NON_NEGATIVE, sigma1=sigma1, weight_decay=weight_decay)
    require(INIT_SCALE, init_scale=init_scale)
    if kernel not in KERNELS:
        raise DomainError(f"kernel '{kernel}' is unknown{suggest(kernel, KERNELS)}: use feature or ntk.")


@np.errstate(over="ignore")  # beyond floats is inf, and its status says so
def pretrain(
    alpha1: ArrayLike,
    gamma0: ArrayLike,
    *,
    sigma1: ArrayLike = 0.0,
    init_scale: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
    t1: ArrayLike = np.inf,
    kernel: Kernel = "feature",
) -> Pretrained:
    """Kernel and predictor after the source task, for arrays that broadcast.

    alpha1: P₁/D in (0, inf]; gamma0: richness in [0, inf]; sigma1: label noise; init_scale: κ, the scale of
    the initial weights; weight_decay: λ of the mean loss (1/2P)Σ(y − f)²; t1: duration (inf = converged).
    kernel: "feature" for M, "ntk" for M + ⟨a²⟩ I (not normalised).

    The limits are exact cases: gamma0 = inf (spike inf, or `scale_free` for the NTK), init_scale = 0
    (rank-one kernel), alpha1 = inf (infinite data), alpha1 = 1 with noise (status DIVERGED), and weight
    decay above (γ₀/λ)√(1 + (1 + σ₁²)/α₁) = 1 (status COLLAPSED, all values zero).

    Raises `DomainError`. Source: docs/theory.md, Section 2; spike [7], [47]; constants [11], [120].
    """
    check_domain(alpha1, gamma0, sigma1=sigma1, init_scale=init_scale, weight_decay=weight_decay, t1=t1, kernel=kernel)
    γ, σ, κ, λ, t = (np.asarray(x, dtype=float) for x in (gamma0, sigma1, init_scale, weight_decay, t1))
    α = at_threshold(alpha1)
    state = _interpolator(α, σ, κ)
    if np.any(λ > 0):
        state = _select(λ > 0, _ridge_predictor(α, γ, σ, λ), state)
    if np.any(np.isfinite(t)):
        state = _select(np.isfinite(t), _early_stopped(α, γ, σ, κ, λ, t), state)
    return _kernel(state, γ, kernel)


def collapse_ratio(alpha1: ArrayLike, gamma0: ArrayLike, weight_decay: ArrayLike, sigma1: ArrayLike = 0.0) -> Floats:
    """(γ₀/λ)√(1 + (1 + σ₁²)/α₁): features survive weight decay, t → ∞, iff it exceeds 1. Broadcasts."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        strength = np.asarray(gamma0, dtype=float) / np.asarray(weight_decay, dtype=float)
        largest = np.sqrt(1.0 + (1.0 + np.square(sigma1)) / np.asarray(alpha1, dtype=float))
        return np.asarray(strength * largest)


def _interpolator(α: Floats, σ: Floats, κ: Floats) -> _Predictor:
    """λ = 0, t → ∞: minimum norm (α < 1) or least squares (α > 1) for every γ₀."""
    q = np.minimum(1.0, α)
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = np.where(α < 1, σ**2 * α / (1.0 - α), np.where(σ > 0, σ**2 / (α - 1.0), 0.0))
    noise2 = q * (1.0 - q) + noise
    status = np.where(np.isinf(noise2), Status.DIVERGED, Status.CONVERGED).astype(np.int8)
    # (1 − q/α)²(L + σ²) with L = (1 − q)² + ν n₂², free of cancellation.
    with np.errstate(divide="ignore", invalid="ignore"):  # where σ² or 1/α is beyond floats
        train = np.where(α > 1, σ**2 * (1.0 - 1.0 / α), 0.0)
    return _Predictor(q, q * q + noise2, noise2, κ**2, train, status, np.zeros(noise2.shape))


def _ridge_moments(α: Floats, σ: Floats, r: Floats) -> tuple[Floats, Floats]:
    """Overlap q and noise part ν n₂² of ridge regression at ridge r: q = 1/(1+κ), ν n₂² = q² c T."""
    res = resolvent(α, r)
    q = 1.0 / (1.0 + res.kappa)
    with np.errstate(divide="ignore", invalid="ignore"):
        loss = (np.square(res.kappa * q) + σ**2) / res.one_minus_d  # T of Section 6, isotropic
    return q, q * q * loss / α


def _ridge_predictor(α: Floats, γ: Floats, σ: Floats, λ: Floats) -> _Predictor:
    """λ > 0, t → ∞: the root of r² ν(r) = (λ/γ₀)², whose left side grows from 0 to 1 + (1 + σ²)/α.

    Solved for log r (relative accuracy at every scale), on the whole grid at once.
    """
    shape = np.broadcast_shapes(α.shape, γ.shape, σ.shape, λ.shape)
    α, γ, σ, λ = (np.broadcast_to(x, shape).ravel() for x in (α, γ, σ, λ))
    least = _interpolator(α, σ, np.zeros_like(α))  # ridge zero: γ₀ = inf
    overlap, noise2 = np.array(least.overlap), np.array(least.noise2)
    status, residual = np.array(least.status), np.zeros(α.size)
    dead = (collapse_ratio(α, γ, λ, σ) <= 1) & (λ > 0)
    solve = np.flatnonzero((λ > 0) & np.isfinite(γ) & ~dead)
    if solve.size:
        a, s = α[solve], σ[solve]
        with np.errstate(divide="ignore"):  # γ = 0, whose features are dead unless a product was too large for a float
            log_ε = np.log(λ[solve]) - np.log(γ[solve])
        q, n2, residual[solve], ok = _solve_ridge(a, s, log_ε)
        overlap[solve], noise2[solve] = q, n2
        status[solve] = np.where(ok, Status.CONVERGED, Status.NOT_CONVERGED)
    overlap[dead] = noise2[dead] = 0.0
    status[dead] = Status.COLLAPSED
    train = np.array(least.train_loss)
    ridged = (λ > 0) & np.isfinite(γ)
    shrinkage = 1.0 - overlap[ridged] / α[ridged]  # r/κ, κ = 1/q − 1
    train[ridged] = shrinkage**2 * ((1.0 - overlap[ridged]) ** 2 + noise2[ridged] + σ[ridged] ** 2)
    return _Predictor(
        overlap.reshape(shape),
        (overlap**2 + noise2).reshape(shape),
        noise2.reshape(shape),
        np.zeros(shape),
        train.reshape(shape),
        status.reshape(shape),
        residual.reshape(shape),
    )


def _solve_ridge(α: Floats, σ: Floats, log_ε: Floats) -> tuple[Floats, Floats, Floats, Flags]:
    """Overlap, noise part, residual |r√ν/ε − 1| and success above the collapse; all of shape (n,)."""

    def excess(log_r: Floats, α: Floats, σ: Floats, log_ε: Floats) -> Floats:
        q, noise2 = _ridge_moments(α, σ, np.exp(log_r))
        return log_r + 0.5 * np.log(q * q + noise2) - log_ε

    c = 1.0 / α
    # r²ν ≤ r (1 + cσ²)/4 from below; from above 1 + c + cσ² − r²ν ≤ (2/r)(m₃ + cσ² m₂), moments m of the law.
    with np.errstate(invalid="ignore"):  # where c or cσ² is beyond floats
        lower = np.log(4.0) + 2.0 * log_ε - np.log1p(c * σ**2) - 0.1
        top = 1.0 + c * (1.0 + σ**2)
        gap = np.maximum(-np.expm1(2.0 * log_ε - np.log(top)), 1e-17) * top
        upper = np.log(2.0 * (1.0 + 3.0 * c + c * c + c * σ**2 * (1.0 + c))) - np.log(gap) + 0.1
    bracket = (np.maximum(lower, -690.0), np.maximum(upper, lower + 1.0))
    from scipy.optimize import elementwise  # a part of SciPy that costs as much as all else

    found = elementwise.find_root(
        excess, bracket, args=(α, σ, log_ε), tolerances={"xatol": 2e-15, "xrtol": 4e-16, "fatol": 0.0}
    )
    # Within rounding of the collapse the bracket may not change sign: its upper end is then the answer.
    log_r = np.where(found.success, found.x, bracket[1])
    q, noise2 = _ridge_moments(α, σ, np.exp(log_r))
    residual = np.abs(np.expm1(excess(log_r, α, σ, log_ε)))
    return q, noise2, residual, residual < 1e-9


def _early_stopped(α: Floats, γ: Floats, σ: Floats, κ: Floats, λ: Floats, t: Floats) -> _Predictor:
    """Finite t from the mode equations; γ₀ = inf reaches the interpolator at once, if there is a kernel."""
    from tlcli.linear.dynamics import integrate_pretraining
    from tlcli.linear.modes import bulk_after

    # Infinite entries belong to the other branches: any cheap value will do.
    run = integrate_pretraining(
        α,
        np.where(np.isinf(γ), 1.0, γ),
        np.where(np.isfinite(t), t, 0.0),
        sigma1=σ,
        init_scale=κ,
        weight_decay=λ,
    )
    # The square root of a difference that is all rounding would look like a noise direction.
    with np.errstate(invalid="ignore"):  # both may be infinite
        noise2 = run.norm2 - run.overlap**2
    noise2 = np.where(noise2 > 1e-14 * run.norm2, noise2, 0.0)
    state = _Predictor(run.overlap, run.norm2, noise2, run.bulk, run.train_loss, run.status, run.residual)
    if not np.any(np.isinf(γ)):
        return state
    t_finite = np.where(np.isfinite(t), t, 0.0)
    start, least = (t_finite == 0) | (κ == 0), _interpolator(α, σ, κ)
    zero = np.zeros(np.broadcast_shapes(start.shape, α.shape, σ.shape))
    at_once = _Predictor(
        np.where(start, 0.0, least.overlap),
        np.where(start, 0.0, least.norm2),
        np.where(start, 0.0, least.noise2),
        bulk_after(κ**2, λ, t_finite),
        np.where(start, 1.0 + σ**2, least.train_loss),
        np.where(start, np.int8(Status.CONVERGED), least.status),
        zero,
    )
    return _select(np.isinf(γ), at_once, state)


def _select(where: Flags, yes: _Predictor, no: _Predictor) -> _Predictor:
    """Elementwise choice between two predictors."""
    if np.all(where):
        return yes
    names = ("overlap", "norm2", "noise2", "bulk", "train_loss", "status", "residual")
    return _Predictor(*(np.where(where, getattr(yes, n), getattr(no, n)) for n in names))


def _kernel(state: _Predictor, γ: Floats, kernel: Kernel) -> Pretrained:
    """Bulk, spike and the constants c from ν, q and k; inf·0 never becomes NaN."""
    k, ν = state.bulk, state.norm2
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        drive = np.where((γ == 0) | (ν == 0), 0.0, γ * np.sqrt(ν))  # |b| = γ₀|β₁|
        s = np.hypot(k, drive)
        # s − k without cancellation.
        spike = np.where(np.isinf(drive), np.inf, np.where(drive == 0, 0.0, drive * (drive / (s + k))))
        n1 = np.where(ν > 0, state.overlap / np.sqrt(ν), 0.0)
        n2 = np.where(np.isinf(ν), 1.0, np.where(ν > 0, np.sqrt(state.noise2 / ν), 0.0))
    bulk, scale_free = k, np.zeros((), dtype=bool)
    if kernel == "ntk":
        scale_free = np.isinf(spike)
        bulk = np.where(scale_free, 1.0, spike + 2.0 * k)
        spike = np.where(scale_free, 1.0, spike)

    # At the interpolation threshold nu diverges while the overlap stays: chi n1 n2 tends to gamma0 q.
    lost = np.isinf(ν) & np.isfinite(γ)
    unsolved = np.isnan(ν)
    if np.any(unsolved):
        n1, n2 = np.where(unsolved, np.nan, n1), np.where(unsolved, np.nan, n2)

    def along(a: Floats, b: Floats) -> Floats:
        direction = a * b
        with np.errstate(invalid="ignore"):
            return np.where(direction == 0, 0.0, spike * direction)

    return Pretrained(
        overlap=np.asarray(state.overlap),
        norm2=np.asarray(ν),
        bulk=np.asarray(bulk),
        spike=spike,
        n_signal=n1,
        n_noise=n2,
        c_signal=along(n1, n1),
        c_cross=np.where(lost, γ * state.overlap, along(n1, n2)) if np.any(lost) else along(n1, n2),
        c_noise=along(n2, n2),
        train_loss=np.asarray(state.train_loss),
        scale_free=scale_free,
        status=np.where(unsolved & (state.status == Status.CONVERGED), Status.NOT_CONVERGED, state.status).astype(
            np.int8
        ),
        residual=np.asarray(state.residual),
    )
