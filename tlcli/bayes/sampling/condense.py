"""Condensation of homogeneous activations: the saddle point on the edge of its domain.

The dual lives where γ²s(ẑ)² <= r for every direction |ẑ|² = r (see `tilt`). At a kink of s the density
(1 - γ²s²/r)^(-r/2) can stay integrable up to the edge, and then the maximum may lie on it. The constraints are linear
in v, and their multipliers are masses m_k: a vanishing fraction ε of the neurons has weights along ẑ_k of length
√(r m_k/ε), which contributes m_k φ(ẑ_k)φ(ẑ_k)ᵀ to Φ at the cost of ½r m_k nats. Since γ²s_k² = r there, primal minus
dual is ½γ²rᵀA⁻¹r as in the interior, with A = Φ + Σ m_k φ_kφ_kᵀ + I/β.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import nnls

from tlcli.arrays import Floats, Singles
from tlcli.bayes.domain import steep_directions
from tlcli.bayes.sampling.pool import Pool
from tlcli.bayes.sampling.tilt import Tilt
from tlcli.errors import ConvergenceError

# The constraint is kept this far from the edge: on it the log tilt of a state along ẑ_k would be infinite.
MARGIN = 2e-4
_ALIKE = 0.9995  # cosine above which two directions are one
_LOOKED_AT = 32  # states of a pool from which the search for steep directions starts


@dataclass(frozen=True, eq=False)
class Cuts:
    """Directions whose constraint is imposed: ẑ_k (K, r), |ẑ_k|² = r, and their features (K, P)."""

    z: Floats
    features: Floats

    @staticmethod
    def none(tilt: Tilt) -> "Cuts":
        """No direction yet."""
        return Cuts(np.zeros((0, tilt.rank)), np.zeros((0, len(tilt.b))))

    def joined(self, other: "Cuts") -> "Cuts":
        """Both sets."""
        return Cuts(np.concatenate([self.z, other.z]), np.concatenate([self.features, other.features]))

    def inside(self, v: Floats, gamma: float, rank: int) -> Floats:
        """Return v (P,), shortened until it meets every constraint."""
        return shortened(v, gamma * float(np.abs(self.features @ v).max(initial=0.0)), rank)

    def step(self, v: Floats, gradient: Floats, curvature: Floats, gamma: float, rank: int) -> tuple[Floats, Floats]:
        """Return the step d (P,) that maximises gᵀd - ½dᵀHd with v + d inside, and the masses m (K,).

        The multipliers solve a non-negative quadratic programme of K variables.
        """
        factor = factor_of(curvature)
        free = cho_solve(factor, gradient)
        if not len(self.z):
            return free, np.zeros(0)
        sign = np.where(self.features @ (v + free) < 0, -1.0, 1.0)
        E = gamma * sign[:, None] * self.features
        solved = cho_solve(factor, E.T)
        Q, excess = E @ solved, E @ (v + free) - _limit(rank)
        root = np.linalg.cholesky(Q + 1e-10 * np.trace(Q) / len(Q) * np.eye(len(Q)))
        multiplier, _ = nnls(root.T, np.linalg.solve(root, excess))
        return free - solved @ multiplier, multiplier * gamma**2 / _limit(rank)


def factor_of(curvature: Floats) -> Any:
    """Return the Cholesky factor of a matrix that is positive definite up to the noise of its single-precision
    features: that much is added to the diagonal until it is."""
    added = 0.0
    for _ in range(12):
        try:
            return cho_factor(curvature + added * np.eye(len(curvature)))
        except np.linalg.LinAlgError:
            added = max(10 * added, 1e-9 * float(np.abs(np.diagonal(curvature)).max()))
    raise ConvergenceError("the pool has no curvature left to solve for v: use a smaller gamma or beta.")


def _limit(rank: int) -> float:
    return float(np.sqrt(rank * (1 - MARGIN)))


def shortened(v: Floats, largest: float, rank: int) -> Floats:
    """Return v (P,), shortened until its `largest` |u| is at the edge."""
    return v / max(largest / _limit(rank), 1.0)


def more_cuts(tilt: Tilt, v: Floats, gamma: float, cuts: Cuts, near: Floats | None = None) -> Cuts | None:
    """Return `cuts` with the directions in which v (P,) violates its domain, None where there is none.

    `near` (k, r) are further starting points of the search.
    """
    start = cuts.z if near is None else np.concatenate([cuts.z, near])
    u, steepness = steep_directions(tilt.act, tilt.b.astype(float), v, gamma, start)
    u = u[steepness > 1 - 0.5 * MARGIN]
    kept: list[Floats] = []
    for one in u:
        if all(abs(float(one @ other)) < _ALIKE for other in kept):
            kept.append(one)
    if not kept:
        return None
    z = np.sqrt(tilt.rank) * np.stack(kept)
    return cuts.joined(Cuts(z, tilt.features(z.astype(np.float32)).astype(float)))


def outside_domain(tilt: Tilt, pools: Sequence[Pool], v: Floats, gamma: float) -> Floats:
    """Return unit directions (k, r) of at most 32 states of each pool that are beyond the edge at v (P,)."""
    found = [np.zeros((0, tilt.rank))]
    for pool in pools:
        z = pool.z.reshape(-1, tilt.rank)
        u = np.abs(gamma * tilt.project(z, v.astype(np.float32)).astype(float))
        beyond = np.flatnonzero(u > _limit(tilt.rank))
        beyond = beyond[np.argsort(-u[beyond])[:_LOOKED_AT]]
        found.append(tilt.directions(z[beyond]).astype(float) / np.sqrt(tilt.rank))
    return np.concatenate(found)


@dataclass(frozen=True, eq=False)
class Atoms:
    """The condensate: directions ẑ_k (K, r) with |ẑ_k|² = r, their features (K, P) and masses m_k (K,)."""

    z: Floats
    features: Floats
    mass: Floats

    @staticmethod
    def of(cuts: Cuts, mass: Floats) -> "Atoms":
        """The cuts that carry mass."""
        at = mass > 1e-9 * max(float(mass.max(initial=0.0)), 1e-300)
        return Atoms(cuts.z[at], cuts.features[at], mass[at])

    def merged(self) -> "Atoms":
        """Directions that are one to 1e-5 of their cosine, with the sum of their masses on the heaviest."""
        order, kept, mass = np.argsort(-self.mass), [], []
        size = float(np.sum(self.z[0] ** 2))
        for j in order:
            same = [i for i, k in enumerate(kept) if self.z[k] @ self.z[j] > (1 - 1e-5) * size]
            if same:
                mass[same[0]] += float(self.mass[j])
            else:
                kept.append(int(j))
                mass.append(float(self.mass[j]))
        return Atoms(self.z[kept], self.features[kept], np.array(mass))

    @property
    def kernel(self) -> Floats:
        """Σ m φφᵀ between the training points, (P, P)."""
        return (self.features.T * self.mass) @ self.features

    def everywhere(self, features: Callable[[Singles], NDArray]) -> Floats:
        """Return Σ m φφᵀ between other points, whose features at states (K, r) are given; their part outside the row
        space is negligible beside a weight without bound."""
        φ = features(self.z.astype(np.float32)).astype(float)
        return (φ.T * self.mass) @ φ

    def slack(self, v: Floats, gamma: float, rank: int) -> float:
        """Return ½Σ m (r - γ²s²), nats: what the masses cost beyond the gap where v (P,) is not on the edge."""
        return 0.5 * float(self.mass @ (rank - (gamma * (self.features @ v)) ** 2))
