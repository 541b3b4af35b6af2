"""Two-time mean-field equations of linear regression (Appendix A of the paper; docs/theory.md, Section 5).

v = β* − β with dv/dt = −Σ̂v, and Δ = Xv + σε on the training set. The DMFT closes on responses and correlations:

    R_v(ω) = 1/(iω + R_Δ(ω)),  R_Δ(ω) = 1/(1 + R_v(ω)/α),
    C_v = R_v R_v' [1 + C_Δ/α],  C_Δ = R_Δ R_Δ' [C_v + σ²].

In time R_Δ = δ(t) − r(t). With y = αr (finite at α = ∞) the responses obey y = R_v − (R_v ∗ y)/α, dR_v/dt = −y.
`two_time` solves these Volterra equations by the trapezoid rule; `spectral_two_time` is the answer they must give,
integrals over the Marchenko–Pastur law. Losses are mean squared errors: corr_v(t, t) on test, corr_delta(t, t) on
the (noisy) training labels.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from tlcli.arrays import Floats
from tlcli.errors import DomainError
from tlcli.linear.domain import FINITE_NON_NEGATIVE, POSITIVE, require
from tlcli.linear.spectrum import marchenko_pastur

_SPECTRAL_NODES = 1200


@dataclass(frozen=True)
class TwoTime:
    """Functions of one time (n_times,) and of two times (n_times, n_times) on the grid t (n_times,).

    response_v R_v(t) = ∫e^{−ℓt}; response_delta r(t), the regular part of R_Δ = δ − r; corr_v C_v(t, s);
    corr_delta C_Δ(t, s).
    """

    t: Floats
    response_v: Floats
    response_delta: Floats
    corr_v: Floats
    corr_delta: Floats


def two_time(alpha: float, t_max: float, n_steps: int, *, sigma: float = 0.0) -> TwoTime:
    """Solve the DMFT on n_steps + 1 uniform times in [0, t_max]; error O((t_max/n_steps)²), cost O(n_steps³).

    alpha = P/D in (0, inf], label noise sigma ≥ 0. The correlations solve the discretised linear matrix equation
    exactly, by one causal sweep over rows: no iteration, no damping. Raises `DomainError`.
    """
    _check(alpha, t_max, sigma)
    if n_steps < 1:
        raise DomainError(f"n_steps = {n_steps} is too few: take at least 1.")
    h, c = t_max / n_steps, 1.0 / alpha
    response, y = _responses(c, h, n_steps)
    # Causal convolutions as lower-triangular matrices; D = 1 − r∗ is R_Δ.
    convolve = _trapezoid(response, h)
    d = np.eye(n_steps + 1) - c * _trapezoid(y, h)
    forced = convolve @ d
    # C_v = R Rᵀ + c A (C_v + σ²) Aᵀ with A = R∗D.
    noise = np.full(n_steps + 1, sigma)
    pulled = forced @ noise
    source = np.outer(response, response) + c * np.outer(pulled, pulled)
    corr_v = _causal_sweep(forced, source, c)
    corr_delta = d @ (corr_v + sigma**2) @ d.T
    return TwoTime(
        t=np.linspace(0.0, t_max, n_steps + 1),
        response_v=response,
        response_delta=c * y,
        corr_v=corr_v,
        corr_delta=corr_delta,
    )


def two_time_extrapolated(alpha: float, t_max: float, n_steps: int, *, sigma: float = 0.0) -> TwoTime:
    """Richardson extrapolation of `two_time` from n_steps/2 and n_steps (even), on the coarser grid: fourth order."""
    if n_steps % 2:
        raise DomainError(f"n_steps = {n_steps} cannot be halved: take an even number.")
    coarse = two_time(alpha, t_max, n_steps // 2, sigma=sigma)
    fine = two_time(alpha, t_max, n_steps, sigma=sigma)

    def better(name: str) -> Floats:
        kept = getattr(fine, name)[(slice(None, None, 2),) * getattr(fine, name).ndim]
        return (4.0 * kept - getattr(coarse, name)) / 3.0

    return TwoTime(
        t=coarse.t,
        response_v=better("response_v"),
        response_delta=better("response_delta"),
        corr_v=better("corr_v"),
        corr_delta=better("corr_delta"),
    )


def spectral_two_time(alpha: float, times: Floats, *, sigma: float = 0.0) -> TwoTime:
    """The same functions as Marchenko–Pastur integrals, at any `times` (n_times,) ≥ 0 (inf allowed).

    With noise, C_v gains (σ²/α)∫(1−e^{−ℓt})(1−e^{−ℓs})/ℓ and C_Δ the law of XXᵀ/P: (σ²/α)∫_{ℓ>0} e^{−ℓ(t+s)} plus
    σ²(1 − 1/α) for α > 1. Raises `DomainError`.
    """
    t = np.atleast_1d(np.asarray(times, dtype=float))
    _check(alpha, float(np.max(t, initial=0.0, where=np.isfinite(t))), sigma)
    c = 1.0 / alpha
    nodes, weights = marchenko_pastur(alpha, _SPECTRAL_NODES)
    # Near α = 1 the rule misses the residue of its pole at ℓ = 0, which is f(0) times the missing mass.
    ell, w, null = nodes[:-1], weights[:-1], 1.0 - weights[:-1].sum()
    decay = np.exp(-ell * t[:, None])  # (n_times, K)
    # (1 − e^{−ℓt})/√ℓ, both factors of the noise term; e^{−∞} is 0.
    learned = -np.expm1(-ell * t[:, None]) / np.sqrt(ell)
    remaining = (decay * w) @ decay.T
    return TwoTime(
        t=t,
        response_v=decay @ w + null,
        response_delta=c * (decay @ (w * ell)),
        corr_v=remaining + null + sigma**2 * c * (learned * w) @ learned.T,
        corr_delta=(decay * (w * ell)) @ decay.T
        + sigma**2 * (c * (remaining + null - max(0.0, 1.0 - alpha)) + max(0.0, 1.0 - c)),
    )


def _check(alpha: float, t_max: float, sigma: float) -> None:
    require(POSITIVE, alpha=alpha)
    require(FINITE_NON_NEGATIVE, t_max=t_max, sigma=sigma)


def _responses(c: float, h: float, n_steps: int) -> tuple[Floats, Floats]:
    """R_v and y = αr on the grid, (n_steps + 1,) each: one scalar linear equation per step."""
    response, y = np.ones(n_steps + 1), np.ones(n_steps + 1)
    lost = 1.0 - 0.5 * h * c  # of R_i in y_i, after its own half weight in the convolution
    for i in range(1, n_steps + 1):
        memory = h * c * (response[i - 1 : 0 : -1] @ y[1:i])
        known = response[i - 1] - 0.5 * h * y[i - 1]  # R_i + (h/2) y_i
        y[i] = (lost * known - memory) / (1.0 + 0.5 * h * c + 0.5 * h * lost)
        response[i] = known - 0.5 * h * y[i]
    return response, y


def _trapezoid(kernel: Floats, h: float) -> Floats:
    """Matrix of f ↦ ∫_0^t kernel(t − s) f(s) ds by the trapezoid rule: half weights at s = 0 and s = t."""
    n = kernel.size
    lag = np.subtract.outer(np.arange(n), np.arange(n))
    matrix = np.where(lag >= 0, h * kernel[np.maximum(lag, 0)], 0.0)
    matrix[:, 0] *= 0.5
    matrix[np.arange(n), np.arange(n)] *= 0.5
    matrix[0, 0] = 0.0
    return matrix


def _causal_sweep(a: Floats, source: Floats, c: float) -> Floats:
    """Solve X = source + c A X Aᵀ for lower-triangular A, row by row: rows above are known, the own one is A_ii."""
    x = np.empty_like(source)
    eye = np.eye(a.shape[0])
    for i in range(a.shape[0]):
        known = source[i] + c * (a @ (a[i, :i] @ x[:i]))
        x[i] = solve_triangular(eye - c * a[i, i] * a, known, lower=True, check_finite=False)
    return x
