"""Linear networks, any data: source and elastically coupled target (docs/bayes.md, Section 2).

With C(A, B) = ABᵀ/D the source posterior is Φ̄ = C + (γ₁²/q₁) f̄f̄ᵀ: its own predictor f̄ is the spike. The dual of the
target is strictly concave in v,

    D(v)/γ² = v·y − |v|²/2β + log(1 − γ²τ)/2γ² − ½α²qu,   τ = vᵀC₂₂v/(1+δ),  q = 1/(1 − γ²τ),  u = vᵀΦ̄₂₂v,

and the source is its case δ = 0. In the eigenbasis of C₂₂ every step is a diagonal plus two rank-one terms: after one
SVD of the training inputs an iteration costs O(P), and singular Gram matrices, repeated inputs and P > D need no care.
"""

import contextlib
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve

from tlcli.arrays import Floats
from tlcli.bayes.linear_dual import TOLERANCE, Reduced, bracketed, newton
from tlcli.bayes.saddle import (
    LARGEST_GAP,
    LARGEST_RESIDUAL,
    Saddle,
    check_beta,
    check_delta,
    check_gamma,
    check_problem,
    check_same_points,
    mean_weight,
    rank_cutoff,
    refuse_outside,
    stationary,
    verdict_of,
)
from tlcli.errors import DomainError, check_choice

_ADVICE = (
    "the Gram matrix is nearly singular or the tilt nearly infinite, use a smaller beta or gamma, or drop nearly "
    "repeated inputs."
)


def linear_source(x: ArrayLike, rows: ArrayLike, labels: ArrayLike, gamma: float, beta: float) -> Saddle:
    """Solve the source by a bracketed scalar q, which always works.

    Args:
        x: inputs of all points, (n, D), ordered [source train, target train, test].
        rows: training points of the stage, (P,).
        labels: (P,).
        gamma: richness γ ≥ 0; 0 is kernel ridge regression.
        beta: inverse temperature, inf allowed where the Gram matrix can fit the labels.

    Returns:
        The saddle point; `info` has q, u (= vᵀCv), spike (γ²/q: kernel = C + spike·f fᵀ), residual, iterations, method.

    Raises:
        DomainError: gamma < 0, beta ≤ 0, a value that is not finite, or inconsistent labels at beta = inf.
    """
    return _stage(x, rows, labels, gamma, beta, 0.0, None, "bracket")


def linear_target(
    x: ArrayLike,
    rows: ArrayLike,
    labels: ArrayLike,
    gamma: float,
    beta: float,
    delta: float,
    source: Saddle,
    method: str = "auto",
) -> Saddle:
    """Solve the target by Newton on its dual to relative gradient 1e-10, or by nested bracketing where that is slow.

    Args (the others as in `linear_source`; rows may be shared with the source):
        delta: elastic coupling; 0 is the target learned alone, inf the weights of the source with a new readout.
        source: what `linear_source` returned on the same points.
        method: "auto", "newton" or "bracket" (nested bracketing only).

    Returns:
        The saddle point; `info` has q, u (= vᵀΦ̄v), residual, iterations, method.

    Raises:
        DomainError: as `linear_source`, delta < 0, or a source that belongs to other points or another solver.
        UsageError: an unknown method.
    """
    check_delta(delta)
    check_choice("method", method, ("auto", "newton", "bracket"))
    if "spike" not in source.info:
        raise DomainError("source has no entry 'spike': a linear target needs the result of linear_source.")
    return _stage(x, rows, labels, gamma, beta, float(delta), source, method)


def _stage(
    x: ArrayLike,
    rows: ArrayLike,
    labels: ArrayLike,
    gamma: float,
    beta: float,
    delta: float,
    source: Saddle | None,
    method: str,
) -> Saddle:
    """Both stages: reduce to the eigenbasis, solve, map back to all points and certify."""
    check_gamma(gamma)
    check_beta(beta)
    points, train, y = check_problem(x, rows, labels)
    check_same_points(source, points)
    ct, α = 1.0 / (1.0 + delta), float(mean_weight(delta))
    spike = np.zeros(len(points)) if source is None else math.sqrt(source.info["spike"]) * source.outputs

    features = points / math.sqrt(points.shape[1])
    basis, σ, axes = np.linalg.svd(features[train], full_matrices=False)
    keep = σ > max(features[train].shape) * np.finfo(float).eps * σ[0]
    basis, σ, axes = basis[:, keep], σ[keep], axes[keep]
    reduced = Reduced(σ**2, basis.T @ spike[train], basis.T @ y, 1.0 / beta, gamma**2, ct, α**2)
    outside = y - basis @ reduced.y if len(σ) < len(y) else np.zeros_like(y)
    if math.isinf(beta):
        refuse_outside(float(np.linalg.norm(outside)), float(np.linalg.norm(y)))
        outside = np.zeros_like(y)

    v, steps, used = newton(reduced) if method in ("auto", "newton") else bracketed(reduced)
    if method == "auto" and not reduced.error(v) <= TOLERANCE:
        v, steps, used = bracketed(reduced)
    q, u = reduced.scalars(v)
    # The kernels see `inside` only; the rest of v, of order β, would cost C v its digits.
    inside = basis @ v
    lazy = features @ (axes.T @ (σ * v))  # C(*, train)v
    a, p = ct * lazy, lazy + spike * (reduced.c @ v)  # Ct(*, train)v, Φ̄(*, train)v
    free = outside if not np.any(outside) else beta * outside
    κ = gamma**2 * q
    outputs = q * (1 + α**2 * κ * u) * a + α**2 * q * p
    gram = features @ features.T
    kernel = gram * ct
    if source is not None:
        kernel += α**2 * source.kernel
    # κ(1 + α²κu) aaᵀ + α²κ(apᵀ + paᵀ), as one product.
    left = κ * np.stack([(1 + α**2 * κ * u) * a + α**2 * p, α**2 * a], axis=1)
    kernel += left @ np.stack([a, p])
    info: dict[str, Any] = {"q": float(q), "u": float(u), "iterations": steps, "method": used}
    if source is None:
        info["spike"] = float(gamma**2 / q)

    at = np.ix_(train, train)
    source_gram = None if source is None else source.kernel[at]
    free_energy = dual(inside, gram[at], y, gamma, beta, delta, source_gram) + 0.5 * gamma**2 * float(free @ outside)
    gap = abs(primal(inside, gram[at], y, gamma, beta, delta, source_gram) - free_energy)
    v = inside + free
    outputs, info["residual"] = stationary(outputs, train, y, v, float(beta))
    relative = gap / (1 + abs(free_energy))
    fine = info["residual"] <= LARGEST_RESIDUAL and relative <= LARGEST_GAP
    status, message = verdict_of(fine, info["residual"], relative, source, _ADVICE)
    return Saddle(v, outputs, kernel, free_energy, gap, 0.0, status, message, info)


def dual(
    v: Floats,
    gram: Floats,
    labels: Floats,
    gamma: float,
    beta: float,
    delta: float = 0.0,
    source_gram: Floats | None = None,
) -> float:
    """Dual objective at any v, nats per neuron: a lower bound of the free energy; −inf where γ²τ ≥ 1.

    Args:
        v: (P,).
        gram: C between the training points, (P, P).
        labels: (P,).
        gamma: richness.
        beta: inverse temperature.
        delta: elastic coupling; with 0 and no `source_gram` this is the dual of the source.
        source_gram: Φ̄ between the training points, (P, P).
    """
    gτ, q, gu = _scalars(v, gram, gamma, delta, source_gram)
    if gτ >= 1:
        return -math.inf
    fit = gamma**2 * float(v @ labels - v @ v / (2 * beta))
    return fit + 0.5 * math.log1p(-gτ) - 0.5 * float(mean_weight(delta)) ** 2 * q * gu


def primal(
    v: Floats,
    gram: Floats,
    labels: Floats,
    gamma: float,
    beta: float,
    delta: float = 0.0,
    source_gram: Floats | None = None,
) -> float:
    """Primal objective at the measure tilted by v, nats per neuron: an upper bound of the free energy.

    It is KL(p(·|h̄) ‖ prior(·|h̄)) averaged over the source, plus ½γ² yᵀ(Φ + I/β)⁻¹y with Φ built as a matrix: neither
    the eigenbasis nor the residual of the solver enters. Arguments as `dual`; inf where γ²τ ≥ 1.
    """
    gτ, q, gu = _scalars(v, gram, gamma, delta, source_gram)
    if gτ >= 1:
        return math.inf
    α2, κ, ct = float(mean_weight(delta)) ** 2, gamma**2 * q, 1.0 / (1.0 + delta)
    # The tilt changes one direction of the weights: variance 1/(1+δ) -> q/(1+δ), mean αw̄ -> αq w̄.
    divergence = 0.5 * (q * gτ + math.log1p(-gτ) + α2 * (q * gτ) * q * gu)
    a = ct * (gram @ v)
    kernel = ct * gram + κ * (1 + α2 * q * gu) * np.outer(a, a)
    if source_gram is not None:
        p = source_gram @ v
        kernel += α2 * (source_gram + κ * (np.outer(a, p) + np.outer(p, a)))
    return divergence + 0.5 * gamma**2 * _inverse_form(kernel, labels, beta)


def _scalars(
    v: Floats, gram: Floats, gamma: float, delta: float, source_gram: Floats | None
) -> tuple[float, float, float]:
    """(γ²τ, q, γ²u); q is inf outside the domain."""
    gτ = gamma**2 * float(v @ gram @ v) / (1.0 + delta)
    gu = 0.0 if source_gram is None else gamma**2 * float(v @ source_gram @ v)
    return gτ, (1.0 / (1.0 - gτ) if gτ < 1 else math.inf), gu


def _inverse_form(kernel: Floats, y: Floats, beta: float) -> float:
    """yᵀ(kernel + I/β)⁻¹y; at β = ∞ on the range of the kernel."""
    if math.isfinite(beta):
        with contextlib.suppress(np.linalg.LinAlgError):
            return float(y @ cho_solve(cho_factor(kernel + np.eye(len(y)) / beta), y))
    λ, basis = np.linalg.eigh(kernel)
    keep = (λ > rank_cutoff(λ)) | math.isfinite(beta)
    return float(np.sum((basis[:, keep].T @ y) ** 2 / (np.maximum(λ[keep], 0.0) + 1.0 / beta)))


def same_inputs_note(x: ArrayLike, rows1: ArrayLike, rows2: ArrayLike, beta2: float) -> str | None:
    """Say when the test loss of a linear target cannot depend on δ, γ₁, γ₂; None when it can.

    That is so at β₂ = ∞ when every source input lies in the span of the target inputs, as with the same inputs: then
    f* = C(*, 2)C₂₂⁻¹y₂. (Target inputs among those of a larger source are not enough.)

    Args:
        x: inputs of all points, (n, D).
        rows1: training points of the source, (P1,).
        rows2: training points of the target, (P2,).
        beta2: inverse temperature of the target.
    """
    if not math.isinf(beta2):
        return None
    points = np.asarray(x, dtype=float)
    source, target = points[np.asarray(rows1)], points[np.asarray(rows2)]
    _, σ, axes = np.linalg.svd(target, full_matrices=False)
    axes = axes[σ > 1e-10 * np.max(σ, initial=0.0)]
    if np.linalg.norm(source - (source @ axes.T) @ axes) > 1e-8 * np.linalg.norm(source):
        return None
    return (
        "The source inputs lie in the span of the target inputs and beta2 = inf: the test loss of a linear network "
        "cannot depend on delta, gamma1 or gamma2; use different inputs for the two tasks or a finite beta2."
    )
