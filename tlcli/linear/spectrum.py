"""The Marchenko–Pastur law of Σ̂ = XᵀX/P and its resolvent (docs/theory.md, Section 2).

With c = 1/α, ℓ(θ) = 1 + c + 2√c cos θ and dρ = (2/π) sin²θ/ℓ(θ) dθ on [0, π], plus an atom of mass 1 − α at
ℓ = 0 when α < 1. The rule θ_k = kπ/(K+1) is the trapezoid rule of a periodic analytic function: its error
falls like min(√c, 1/√c)^(2K).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tlcli.arrays import Floats

MIN_NODES, MAX_NODES = 48, 600
_QUADRATURE_ERROR = 1e-14


class Resolvent(NamedTuple):
    """Closed forms of a Marchenko–Pastur law at ridge r; fields have the broadcast shape of (alpha, r)."""

    kappa: Floats  # effective ridge: ∫ ℓ/(ℓ+r) = 1/(1+κ)
    shrinkage: Floats  # r/κ
    one_minus_d: Floats  # 1 − 1/(α(1+κ)²), so that dκ/dr = 1/(1 − d)


def nodes_needed(alpha: ArrayLike, error: float = _QUADRATURE_ERROR) -> Floats:
    """Nodes after which min(√c, 1/√c)^(2K) < `error`, elementwise, as floats (inf at alpha = 1)."""
    ratio = np.abs(np.log(np.asarray(alpha, dtype=float)))  # −2 log min(√c, 1/√c)
    with np.errstate(divide="ignore"):
        return np.ceil(-np.log(error) / ratio)


def marchenko_pastur(alpha: ArrayLike, n_nodes: int | None = None) -> tuple[Floats, Floats]:
    """Nodes and weights that integrate over the eigenvalues of XᵀX/P at P/D = `alpha`.

    alpha: any shape, in (0, inf]; inf puts all mass at ℓ = 1.
    n_nodes: K; by default the K that gives 1e-14 for the worst alpha, clipped to [48, 600].

    Returns (nodes, weights), each of shape ``alpha.shape + (K + 1,)``. The last node is the atom at 0, with
    weight 1 − (all others), which tends to max(0, 1 − alpha) as K grows. The trapezoid error for an entire
    g is g(0) times the missing mass (the only pole is that of 1/ℓ), so this choice removes it: near alpha =
    1, where the mass converges slowly, such integrals are exact all the same. Past the convergence the
    weight is 0 for alpha >= 1.
    """
    alpha = np.asarray(alpha, dtype=float)
    if n_nodes is None:
        worst = float(np.max(nodes_needed(alpha), initial=MIN_NODES))
        n_nodes = int(np.clip(worst, MIN_NODES, MAX_NODES))
    theta = np.arange(1, n_nodes + 1) * (np.pi / (n_nodes + 1))
    root_c = 1.0 / np.sqrt(alpha)[..., None]
    nodes = np.empty((*alpha.shape, n_nodes + 1))
    weights = np.empty_like(nodes)
    # 1 + c + 2√c cos θ without the cancellation at the lower edge.
    with np.errstate(over="ignore"):  # alpha whose inverse is beyond floats
        nodes[..., :-1] = (1.0 - root_c) ** 2 + 4.0 * root_c * np.cos(theta / 2) ** 2
    nodes[..., -1] = 0.0
    weights[..., :-1] = (2.0 / (n_nodes + 1)) * np.sin(theta) ** 2 / nodes[..., :-1]
    missing = np.maximum(1.0 - weights[..., :-1].sum(axis=-1), 0.0)
    weights[..., -1] = np.where((alpha >= 1.0) & (nodes_needed(alpha) <= n_nodes), 0.0, missing)
    return nodes, weights


def excess(alpha: ArrayLike) -> Floats:
    """1/alpha − 1 for alpha in (0, inf], exact in the last digits near alpha = 1."""
    alpha = np.asarray(alpha, dtype=float)
    bounded = np.minimum(alpha, np.finfo(float).max)
    return (1.0 - bounded) / bounded


def resolvent(alpha: ArrayLike, ridge: ArrayLike) -> Resolvent:
    """Effective ridge κ = r + κ/(α(1+κ)) of isotropic data: all ridge-regression integrals in closed form.

    ∫ ℓ/(ℓ+r) dρ = 1/(1+κ),  ∫ ℓ/(ℓ+r)² dρ = 1/((1+κ)²(1−d)),  ∫ 1/(ℓ+r) dρ = κ/(r(1+κ)).
    alpha in (0, inf], ridge in [0, inf), broadcastable. Free of cancellation at every alpha, 1 included.
    """
    ridge = np.asarray(ridge, dtype=float)
    c = 1.0 / np.asarray(alpha, dtype=float)
    kappa, shrinkage = positive_root(ridge + excess(alpha), ridge, np.float64(1.0))
    # 1 − d = r/κ + cκ/(1+κ)²: a sum of positive terms.
    with np.errstate(invalid="ignore"):  # where κ² is beyond floats
        return Resolvent(kappa, shrinkage, shrinkage + c * kappa / (1.0 + kappa) ** 2)


def positive_root(p: Floats, ridge: Floats, bulk: Floats | np.float64) -> tuple[Floats, Floats]:
    """κ = (p + √(p² + 4 r k))/2 and r/κ for broadcastable p, r = `ridge`, k = `bulk`, without cancellation.

    κ is the positive root of κ² − pκ − rk = 0. At r = k = 0 the ratio is its limit r → 0, which is 1.
    """
    root = np.hypot(p, 2.0 * np.sqrt(ridge) * np.sqrt(bulk))  # no overflow
    far = np.abs(p) + root  # twice the larger root in modulus
    with np.errstate(divide="ignore", invalid="ignore"):
        kappa = np.where(p >= 0, far / 2, 2.0 * ridge * bulk / far)
        # For p < 0 (then k > 0): r/κ = (√(p²+4rk) − p)/(2k).
        shrinkage = np.where(p >= 0, 2.0 * ridge / far, far / (2.0 * bulk))
    # p = 0 = r k: κ = 0. With k > 0 this is the interpolation threshold (r/κ → 0), with k = 0 nothing is
    # left.
    empty = far == 0
    kappa = np.where(empty, 0.0, kappa)
    shrinkage = np.where(empty, np.where(np.asarray(bulk) > 0, 0.0, 1.0), shrinkage)
    return np.asarray(kappa), np.asarray(shrinkage)
