"""Kernels between all points, those outside the row space of the training inputs too.

A point x has h = b·z + σξ: z (r,) are the coordinates that training tilts, ξ a standard Gaussian independent of z, and
points outside share the covariance of their rests. With Hermite coefficients c_k(z) = E φ(b·z + σξ) he_k(ξ), Mehler's
formula gives E φφ' given z = Σ_k ρᵏ c_k c'_k. For φ homogeneous of degree 1 (one kink) the second derivative in ρ is
a Gaussian density instead, and its double integral is a smooth one over the angle arcsin ρ.
"""

import numpy as np
from scipy import special

from tlcli.arrays import Floats
from tlcli.dmft.activations import Activation

_BLOCK = 2_000_000  # numbers in one table of Hermite coefficients


def split_points(x: Floats, basis: Floats) -> tuple[Floats, Floats]:
    """Return (b (n, r), covariance of the rests (n, n)) of points x (n, D) over √D, basis (D, r).

    Rests below 1e-10 of the norm of a point are round-off and set to zero.
    """
    scaled = x / np.sqrt(x.shape[1])
    b = scaled @ basis
    rest = scaled - b @ basis.T
    rest[np.linalg.norm(rest, axis=1) <= 1e-10 * np.linalg.norm(scaled, axis=1)] = 0.0
    return b, rest @ rest.T


def all_points_kernel(
    act: Activation, b: Floats, covariance: Floats, z: Floats, p: Floats, *, order: int, kinked: bool
) -> Floats:
    """Return E φ(h)φ(h)ᵀ, (n, n), over the nodes z (M, r) with weights p (M,), negative ones too.

    `order` is the number of Gauss-Hermite nodes (or of nodes on the angle of ρ if `kinked`: homogeneous of degree 1).
    """
    σ = np.sqrt(np.diagonal(covariance))
    out = np.flatnonzero(σ > 0)
    kernel = np.zeros_like(covariance)
    ρ = covariance[np.ix_(out, out)] / np.outer(σ[out], σ[out]) if out.size else np.zeros((0, 0))
    ρ = np.clip(ρ, -1.0, 1.0)
    np.fill_diagonal(ρ, 1.0)
    used = np.abs(p) > 1e-20 * p.max()
    z, p = z[used], p[used]
    size = max(1, _BLOCK // (len(σ) + len(out) * (len(out) if kinked else order)))
    for start in range(0, len(z), size):
        at, weight = z[start : start + size] @ b.T, p[start : start + size]
        features, extra = (
            _kinked(act, at, σ, out, ρ, weight, order) if kinked else _smooth(act, at, σ, out, ρ, weight, order)
        )
        kernel += (features * weight[:, None]).T @ features
        kernel[np.ix_(out, out)] += extra
    return kernel


def _smooth(act: Activation, at: Floats, σ: Floats, out, ρ: Floats, p: Floats, order: int) -> tuple[Floats, Floats]:
    """Means E φ of all points, (M, n), and the terms k >= 1 of Mehler's formula between the points outside."""
    features = np.asarray(act.phi(at), dtype=float)
    extra = np.zeros((len(out), len(out)))
    if not out.size:
        return features, extra
    ξ, w = special.roots_hermitenorm(order)
    w = w / w.sum()
    φ = np.asarray(act.phi(at[:, out, None] + σ[out, None] * ξ), dtype=float)
    he = np.empty((order, order))  # orthonormal under the rule, so that ρ = 1 gives its E φ² exactly
    he[0], he[1] = 1.0, ξ
    for k in range(1, order - 1):
        he[k + 1] = (ξ * he[k] - np.sqrt(k) * he[k - 1]) / np.sqrt(k + 1)
    c = φ @ (he * w).T
    features[:, out] = c[..., 0]
    power = np.ones_like(ρ)
    for k in range(1, order):
        power = power * ρ
        extra += power * ((c[..., k] * p[:, None]).T @ c[..., k])
    return features, extra


def _kinked(act: Activation, at: Floats, σ: Floats, out, ρ: Floats, p: Floats, order: int) -> tuple[Floats, Floats]:
    """The same for φ(h) = c₊ max(h, 0) - c₋ max(-h, 0).

    With m = b·z/σ, E φφ' = E φ E φ' + ρσσ' E φ̇ E φ̇' + (c₊ - c₋)² σσ' ∫₀^ρ (ρ - t) N₂(m, m'; t) dt.
    """
    plus, minus = (float(v) for v in np.asarray(act.phi(np.array([1.0, -1.0]))) * [1, -1])
    features = np.asarray(act.phi(at), dtype=float)
    if not out.size:
        return features, np.zeros((0, 0))
    s, m = σ[out], at[:, out] / σ[out]
    cdf, pdf = special.ndtr(m), np.exp(-0.5 * m**2) / np.sqrt(2 * np.pi)
    features[:, out] = s * (plus * (m * cdf + pdf) - minus * (pdf - m * (1.0 - cdf)))
    slope = plus * cdf + minus * (1.0 - cdf)
    extra = ρ * np.outer(s, s) * ((slope * p[:, None]).T @ slope)
    if plus != minus:
        t, w = np.polynomial.legendre.leggauss(order)
        limit = np.arcsin(ρ)
        total = np.zeros_like(ρ)
        same, cross = m[:, :, None] ** 2 + m[:, None, :] ** 2, 2 * m[:, :, None] * m[:, None, :]
        for node, share in zip(0.5 * (1 + t), 0.5 * w, strict=True):
            angle = limit * node
            exponent = -(same - cross * np.sin(angle)) / (2 * np.cos(angle) ** 2)
            total += share * limit * (ρ - np.sin(angle)) * np.einsum("m,mij->ij", p, np.exp(exponent)) / (2 * np.pi)
        extra += (plus - minus) ** 2 * np.outer(s, s) * total
    return features, extra
