"""Whitened data, C = I: source and target in closed or scalar form, for whole grids (docs/bayes.md, Section 2).

With c = λ̄ − 1 the excess of the source kernel along its labels, m the overlap of the two label vectors, α = δ/(1+δ),
s = α²qc and X = (1+δ)(q − 1), the target is

    (i)   X/q = γ₂²Y₂ [(1 − m²)/r² + m²/(r + s)²]
    (ii)  r = q/(1+δ) + α²q²[1 + γ₂²Y₂cm²/((1+δ)(r + s)²)] + 1/β₂,

with c = 0 for decoupled inputs and m = 1 for the same labels; the source is the case δ = 0: λ̄ = q. Given q, (ii) is a
cubic in r + s with one positive root. A root of (i) is a stationary point of a strictly concave dual, so there is one.
With decoupled inputs the target's tilt does not act along ŷ₁: ŷ₁Φŷ₁ = 1/(1+δ) + α²λ̄, the prior around the source.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize.elementwise import find_root

from tlcli.arrays import Array, Floats
from tlcli.bayes.saddle import check_beta, check_delta, check_gamma, mean_weight
from tlcli.errors import DomainError, check_choice

CASES = ("decoupled", "same", "labels")
_RESIDUAL = 1e-10  # largest accepted, relative


def whitened(
    case: str,
    *,
    gamma1: ArrayLike,
    gamma2: ArrayLike,
    beta1: ArrayLike,
    beta2: ArrayLike,
    delta: ArrayLike,
    overlap: ArrayLike | None = None,
    norm1: ArrayLike = 1.0,
    norm2: ArrayLike = 1.0,
) -> dict[str, Array]:
    """Solve source and target on whitened data over the broadcast grid of all arguments.

    Args:
        case: "decoupled" (C₁₂ = 0), "same" (same inputs and labels up to a factor) or "labels" (same inputs).
        gamma1: richness γ₁ ≥ 0 of the source.
        gamma2: richness γ₂ ≥ 0 of the target.
        beta1: inverse temperature of the source, inf allowed.
        beta2: inverse temperature of the target, inf allowed.
        delta: elastic coupling ≥ 0, inf allowed.
        overlap: m = ŷ₁·ŷ₂ in [−1, 1], for "labels" only.
        norm1: Y₁ = |y₁|² ≥ 0.
        norm2: Y₂ = |y₂|² ≥ 0.

    Returns:
        Arrays of the broadcast shape: lam_source λ̄ (eigenvalue of the source kernel along ŷ₁), q, r, u (= v₂ᵀΦ̄v₂),
        k22 = ŷ₂Φŷ₂, k12 = ŷ₁Φŷ₂, k11 = ŷ₁Φŷ₁ (ŷ₁ on the source's inputs), perp (Φ in all other directions), train_loss
        (|y₂ − f|² = |v₂|²/β₂², summed over the points), free_energy (of the target, nats per neuron), residual (of
        y₂ = (Φ + I/β₂)v₂ and of q, relative) and status (bool, True where residual ≤ 1e-10).

    Raises:
        UsageError: an unknown case.
        DomainError: a value outside its range, or an overlap given to a case that fixes it.
    """
    check_choice("case", case, CASES)
    for name, values in (("gamma1", gamma1), ("gamma2", gamma2), ("norm1", norm1), ("norm2", norm2)):
        check_gamma(values, name)
    for name, values in (("beta1", beta1), ("beta2", beta2)):
        check_beta(values, name)
    check_delta(delta)
    m = _overlap(case, overlap)
    arguments = (gamma1, gamma2, beta1, beta2, delta, m, norm1, norm2)
    grid = np.broadcast_arrays(*(np.asarray(a, dtype=float) for a in arguments))
    γ1, γ2, β1, β2, δ, m, Y1, Y2 = (np.ravel(a) for a in grid)

    one, zero = np.ones_like(γ1), np.zeros_like(γ1)
    # A square that overflows gives a residual that is not a number, and so status False.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        excess = _excess(γ1**2 * Y1, 1 / β1, one, zero, zero, zero)
        c = zero if case == "decoupled" else excess
        ct, α2 = 1 / (1 + δ), mean_weight(δ) ** 2
        X = _excess(γ2**2 * Y2, 1 / β2, ct, α2, c, m)
        result = {"lam_source": 1 + excess, **_observables(X, γ2**2, 1 / β2, ct, α2, c, m, Y2)}
    if case == "decoupled":  # the source's labels are orthogonal to every input of the target
        result["k11"] = ct + α2 * result["lam_source"]
    return {name: values.reshape(grid[0].shape) for name, values in result.items()}


def _overlap(case: str, overlap: ArrayLike | None) -> ArrayLike:
    """m of the case; `DomainError` if it is outside [−1, 1], or given to a case that fixes it."""
    if case != "labels":
        if overlap is not None:
            raise DomainError(f"overlap = {overlap} was given to case '{case}', which fixes it: use case 'labels'.")
        return 0.0 if case == "decoupled" else 1.0
    if overlap is None:
        raise DomainError("case 'labels' needs the overlap of the two label vectors, a number from -1 to 1.")
    m = np.asarray(overlap, dtype=float)
    bad = m[~(np.abs(m) <= 1)]
    if bad.size:
        raise DomainError(f"overlap = {bad.flat[0]:.6g} is outside its range: use a number from -1 to 1.")
    return m


def _roots(q: Floats, G: Floats, b: Floats, ct: Floats, α2: Floats, c: Floats, m: Floats) -> tuple[Floats, Floats]:
    """(r, r + s) at given q by (ii): ρ = r + s is the positive root of ρ³ − pρ² − w = 0; all arrays of one shape."""
    s = α2 * q * c
    start = q * ct + α2 * q**2 + b
    w = α2 * q**2 * ct * G * c * m**2
    p = start + s
    # Cardano in its hyperbolic form: no cancellation, since w >= 0.
    ρ = p / 3 * (1 + 2 * np.cosh(np.arccosh(1 + 13.5 * w / p / p / p) / 3))
    return start + w / ρ**2, ρ


def _excess(G: Floats, b: Floats, ct: Floats, α2: Floats, c: Floats, m: Floats) -> Floats:
    """X = (1+δ)(q − 1) from (i), for arrays (n,); G = γ₂²Y₂, b = 1/β₂.

    Solved in log X, which keeps the digits of small X and makes large ones cheap. Upper end: r >= q(ct + α²), so
    X <= G/(ct + α²)²; lower end: the right-hand side of (i) is at least G/(r + s)², which falls with q.
    """
    X = np.zeros_like(G)
    at = G > 0
    arguments = tuple(a[at] for a in (G, b, ct, α2, c, m))
    if not at.any():
        return X
    G, b, ct, α2, c, m = arguments
    high = 2 * G / (ct + α2) ** 2
    low = 0.5 * G / _roots(1 + ct * high, *arguments)[1] ** 2

    def mismatch(logX: Floats, *parameters: Floats) -> Floats:
        G, b, ct, α2, c, m = parameters
        X = np.exp(logX)
        q = 1 + ct * X
        r, ρ = _roots(q, G, b, ct, α2, c, m)
        return logX - np.log(q * G * ((1 - m**2) / r**2 + m**2 / ρ**2))

    tolerances = {"xatol": 4e-16, "xrtol": 4e-16, "fatol": 0.0, "frtol": 0.0}
    found = find_root(mismatch, (np.log(low), np.log(high)), args=arguments, tolerances=tolerances, maxiter=200)
    X[at] = np.exp(found.x)
    return X


def _observables(
    X: Floats, g: Floats, b: Floats, ct: Floats, α2: Floats, c: Floats, m: Floats, Y: Floats
) -> dict[str, Array]:
    """Everything but λ̄, from the root; g = γ₂². The residual is that of the matrix equation and of (1+δ)γ₂²τ = X/q."""
    q = 1 + ct * X
    r, ρ = _roots(q, g * Y, b, ct, α2, c, m)
    root = np.sqrt(Y)
    x, z = root / r, -root / r * (ρ - r) * m / ρ  # v₂ = x ŷ₂ + z ŷ₁
    p1, p2 = root * m / ρ, root * ((1 - m**2) / r + m**2 / ρ)  # ŷ₁·v₂, ŷ₂·v₂
    length2 = Y * ((1 - m**2) / r**2 + m**2 / ρ**2)
    u = length2 + c * p1**2
    κ = g * q
    a1, a2 = ct * p1, ct * p2  # ŷ·Ct v₂
    f1, f2 = (1 + c) * p1, p2 + c * m * p1  # ŷ·Φ̄v₂

    def kernel(prior: Floats, source: Floats, a: Floats, d: Floats, fa: Floats, fd: Floats) -> Floats:
        return ct * prior + κ * (1 + α2 * κ * u) * a * d + α2 * (source + κ * (a * fd + fa * d))

    one = np.ones_like(q)
    diagonal = q * (1 + α2 * κ * u) * ct + α2 * q + b
    e2, e1 = diagonal * x - root, diagonal * z + α2 * q * c * p1
    residual = np.sqrt(np.maximum(e2**2 + e1**2 + 2 * m * e1 * e2, 0)) / np.where(Y > 0, root, 1)
    residual = np.maximum(residual, np.abs(X / q - g * length2) / np.where(X > 0, X / q, 1))
    fit = g * (root * p2 - 0.5 * b * length2)
    return {
        "q": q,
        "r": r,
        "u": u,
        "k22": kernel(one, 1 + c * m**2, a2, a2, f2, f2),
        "k12": kernel(m, (1 + c) * m, a1, a2, f1, f2),
        "k11": kernel(one, 1 + c, a1, a1, f1, f1),
        "perp": ct + α2,
        "train_loss": b**2 * length2,
        "free_energy": fit - 0.5 * np.log1p(ct * X) - 0.5 * α2 * κ * u,
        "residual": residual,
        "status": np.asarray(residual <= _RESIDUAL),
    }
