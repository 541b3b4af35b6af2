"""Batched adaptive Radau IIA collocation: one step size and one end per point of a batch.

Radau IIA with p stages has order 2p−1, is L-stable and stiffly accurate (Hairer & Wanner, *Solving
Ordinary Differential Equations II*, IV.5), and its collocation polynomial gives dense output of degree p.
This module knows only the method: the tableau, its diagonalisation (so that a linear mode costs one complex
reciprocal per eigenvalue instead of a p×p solve) and the accept/reject loop. The equations live in a
`System`; for Marchenko–Pastur modes see `tlcli.linear.dynamics`.
"""

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray
from scipy.special import roots_jacobi

from tlcli.arrays import Complexes, Flags, Floats, Indices
from tlcli.status import Status

_SAFETY = 0.85
_SHRINK, _GROW = 0.1, 5.0


@dataclass(frozen=True)
class Radau:
    """Radau IIA on [0, 1] with p stages (p odd).

    nodes (p,), the last is 1; `matrix` (p, p) is the Runge–Kutta matrix A. With A = V diag(λ) W, only the
    (p+1)/2 eigenvalues of non-negative imaginary part are kept and for real vectors x

        (1 + zA)^{-1} x = Re Σ_i right[:, i] (left[i] · x) / (1 + z eigenvalues[i]).

    `basis` (p+1, p+1) maps values at (0, nodes) to coefficients in shifted Legendre polynomials.
    """

    nodes: Floats
    matrix: Floats
    eigenvalues: Complexes
    right: Complexes
    left: Complexes
    basis: Floats

    @property
    def stages(self) -> int:
        """Number of stages p."""
        return self.nodes.size

    def resolvent(self, z: Floats) -> Complexes:
        """1/(1 + z λ_i): shape z.shape + ((p+1)/2,), the only z-dependent part of (1 + zA)^{-1}."""
        return 1.0 / (1.0 + z[..., None] * self.eigenvalues)

    def combine(self, terms: Complexes) -> Floats:
        """Re Σ_i right[:, i] terms[..., i]: from eigen-components (..., (p+1)/2) to stage values (..., p)."""
        # Interleaved (re, im) pairs against a real matrix: one real product instead of a complex one.
        pairs = np.empty((2 * self.eigenvalues.size, self.stages))
        pairs[0::2] = self.right.real.T
        pairs[1::2] = -self.right.imag.T
        return np.ascontiguousarray(terms).view(np.float64) @ pairs

    def dense_weights(self, theta: Floats) -> Floats:
        """Weights (..., p+1) of the values at (0, nodes) in the collocation polynomial at theta in [0, 1]."""
        return legendre.legvander(2.0 * theta - 1.0, self.stages) @ self.basis

    def invert(self, values: Floats, target: Floats) -> Floats:
        """Where the increasing collocation polynomial through `values` (n, p+1) equals `target` (n,)."""
        coefficients = values @ self.basis.T
        slopes = legendre.legder(coefficients, axis=1) * 2.0
        theta = (target - values[:, 0]) / (values[:, -1] - values[:, 0])
        low, high = np.zeros_like(theta), np.ones_like(theta)
        for _ in range(60):  # Newton, falling back on bisection where it leaves the bracket
            vander = legendre.legvander(2.0 * theta - 1.0, self.stages)
            gap = np.einsum("nj,nj->n", vander, coefficients) - target
            low, high = np.where(gap <= 0, theta, low), np.where(gap > 0, theta, high)
            with np.errstate(all="ignore"):
                new = theta - gap / np.einsum("nj,nj->n", vander[:, :-1], slopes)
            new = np.where((new >= low) & (new <= high), new, 0.5 * (low + high))
            if np.all(np.abs(new - theta) <= 4e-16):
                break
            theta = new
        return theta


@cache
def radau(stages: int = 7) -> Radau:
    """Radau IIA with an odd number of stages; 7 gives order 13."""
    if stages % 2 == 0:
        raise ValueError(f"radau needs an odd number of stages (one real eigenvalue), got {stages}")
    interior = roots_jacobi(stages - 1, 1.0, 0.0)[0] if stages > 1 else np.empty(0)
    nodes = np.append(0.5 * (1.0 + interior), 1.0)
    # A[j, m] = ∫_0^{c_j} L_m: integrate in the Legendre basis, where the Vandermonde matrix is well conditioned.
    x = 2.0 * nodes - 1.0
    integrals = np.stack([legendre.legval(x, 0.5 * legendre.legint(unit, lbnd=-1)) for unit in np.eye(stages)], axis=1)
    matrix = integrals @ np.linalg.inv(legendre.legvander(x, stages - 1))
    eigenvalues, right = (np.asarray(part, dtype=np.complex128) for part in np.linalg.eig(matrix))
    left = np.linalg.inv(right)
    keep = np.flatnonzero(eigenvalues.imag > -1e-12 * abs(eigenvalues))
    twice = np.where(eigenvalues[keep].imag > 1e-12 * abs(eigenvalues[keep]), 2.0, 1.0)
    points = np.append(-1.0, x)
    return Radau(
        nodes=nodes,
        matrix=matrix,
        eigenvalues=eigenvalues[keep],
        right=right[:, keep] * twice,
        left=np.asarray(left[keep], dtype=np.complex128),
        basis=np.asarray(np.linalg.inv(legendre.legvander(points, stages)), dtype=np.float64),
    )


class System(Protocol):
    """A batch of independent initial value problems that `march` advances."""

    def attempt(self, points: Indices, step: Floats) -> Floats:
        """Try one step for these points; keep the trial and return its error in units of the tolerance."""
        ...

    def commit(self, points: Indices, accepted: Flags) -> Flags:
        """Make the accepted part of the last trial the state; return which of `points` are finished."""
        ...

    def limit(self, points: Indices) -> Floats:
        """Largest sensible next step of these points."""
        ...


@dataclass(frozen=True)
class March:
    """How the batch ended: `status` (n,) CONVERGED or NOT_CONVERGED, and accepted `steps` (n,)."""

    status: NDArray[np.int8]
    steps: NDArray[np.int64]


def march(system: System, step: Floats, *, active: Flags, order: int, max_steps: int) -> March:
    """Advance every point until the system calls it finished or `max_steps` trials are spent.

    step: (n,) first steps; active: (n,) points to move, the others are at their end already. The error is taken
    to scale as step**order. A point that exhausts its budget or whose step underflows ends as NOT_CONVERGED; the
    others are not held up by it.
    """
    n = step.size
    step = step.copy()
    status = np.where(active, Status.NOT_CONVERGED, Status.CONVERGED).astype(np.int8)
    steps = np.zeros(n, dtype=np.int64)
    points = np.flatnonzero(active)
    for _ in range(max_steps):
        if not points.size:
            break
        trial = np.minimum(step[points], system.limit(points))
        error = system.attempt(points, trial)
        accepted = error <= 1.0
        finished = system.commit(points, accepted)
        with np.errstate(divide="ignore"):
            factor = _SAFETY * error ** (-1.0 / order)
        factor = np.clip(np.nan_to_num(factor, nan=_SHRINK, posinf=_GROW), _SHRINK, _GROW)
        with np.errstate(over="ignore"):  # limits what it may be
            step[points] = trial * factor
        steps[points] += accepted
        status[points[finished]] = Status.CONVERGED
        points = points[~finished & (step[points] > 0)]
    return March(status=status, steps=steps)
