"""The pointwise theory: every point of the pool with its own leverage.

The homogeneous theory replaces the leverage of a point by its mean. For kernels of trained networks it varies strongly;
a pool whose points have individual ridges D has the mean resolvent of P samples if

    D_i = Pλ + (1 − P/N)/M_ii,   M = (K + diag D)⁻¹,

and the expected loss at every point of the pool follows from its leave-one-out residuals e and the influence T of the
other labels on them:

    e = (M y)/diag M,  T_ij = (M_ij/M_ii)²,  T_ii = 0,   ℓ = [1 − (N/P − 1) T]⁻¹ [e² + (N/P) σ² T 1].

P = N is the leave-one-out loss itself. With constant leverage it is the homogeneous theory.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cholesky, get_lapack_funcs, lu_factor, lu_solve

from tlcli.arrays import Array, Complexes, Floats
from tlcli.averages.homogeneous import Homogeneous, check_sizes
from tlcli.averages.talbot import contour

_TOLERANCE = 1e-12  # of log D: its last iterations are cheap beside those before
_MOST = 200
_DEPTH = 5  # of Anderson's acceleration


@dataclass(frozen=True)
class PointLosses:
    """The mean loss at every point of the pool: `losses` (N,) without label noise, `per_noise` (N,) per σ².

    `ridges` (N,) are the individual ridges D, from which a nearby problem starts. `solved` is False where the iteration
    did not end (losses are NaN where it broke off), or where the pool is too small for its heavy points (the spectral
    radius of (N/P − 1) T reaches 1).
    """

    losses: Floats
    per_noise: Floats
    ridges: Floats
    solved: bool

    def at(self, noise: float) -> Floats:
        """Return the losses (N,) at label noise σ."""
        return self.losses + noise**2 * self.per_noise


class Pointwise:
    """One kernel on a pool, whose homogeneous theory is the start of every solution."""

    def __init__(self, kernel: Floats, labels: Floats, homogeneous: Homogeneous | None = None) -> None:
        """Take a kernel (N, N) and noise-free labels (N,). Raises DomainError as `Homogeneous`."""
        self.homogeneous = homogeneous or Homogeneous(kernel, labels)
        self.kernel, self.labels = (np.asarray(kernel) + np.asarray(kernel).T) / 2, np.asarray(labels, dtype=float)

    def solve(self, p: float, ridge: float = 0.0, start: Floats | None = None, tolerance: float = 1e-5) -> PointLosses:
        """Return the losses at P samples and ridge λ; `start` are individual ridges of a nearby solution.

        Raises DomainError for P or λ as `Homogeneous.effective_ridge`.
        """
        size = len(self.labels)
        check_sizes(np.asarray(float(p)), np.asarray(float(ridge)), size, self.homogeneous.rank)
        if p == size:
            start = np.full(size, size * ridge)
        elif start is None:
            start = np.full(size, size * float(self.homogeneous.effective_ridge(p, ridge)))
        share, floor = 1 - p / size, p * ridge
        if p == size:
            ridges, done = start, True
        else:
            mixed = _Anderson(np.log(start))
            done = False
            try:
                for _ in range(_MOST):
                    inverse = _inverse_diagonal(self.kernel, np.exp(mixed.x))
                    done = mixed.step(np.log(floor + share / inverse)) <= max(tolerance, _TOLERANCE)
                    if done:
                        break
            except LinAlgError:  # ridges below the rounding of a kernel whose rank the samples almost reach
                unknown = np.full(size, np.nan)
                return PointLosses(unknown, unknown, start, False)
            ridges = np.exp(mixed.x)
        whole = _inverse(self.kernel, ridges)
        return self._losses(whole, p, ridges, done)

    def _losses(self, inverse: Floats, p: float, ridges: Floats, done: bool) -> PointLosses:
        size, diagonal = len(self.labels), np.diagonal(inverse)
        errors = (inverse @ self.labels) / diagonal
        influence = (inverse / diagonal[:, None]) ** 2
        np.fill_diagonal(influence, 0.0)
        reach = influence.sum(axis=1)
        right = np.column_stack([errors**2, (size / p) * reach, np.ones(size)])
        system = (1 - size / p) * influence
        np.fill_diagonal(system, 1.0)
        found = lu_solve(lu_factor(system, overwrite_a=True), right)
        # Of a matrix 1 − cT with T >= 0, the last column is positive exactly where the spectral radius is below one.
        return PointLosses(found[:, 0], found[:, 1], ridges, bool(done and np.all(found[:, 2] > 0)))

    def stopped(self, p: float, time: float, ridge: float = 0.0, noise: float = 0.0, nodes: int = 24) -> Floats:
        """Return the losses (N,) of gradient flow on the mean loss, stopped at `time`; N <= 300 is wise.

        It takes one iteration per node of Talbot's contour and one linear system per pair. Raises DomainError.
        """
        size, half = len(self.labels), nodes // 2
        weights, shifts = contour(time, nodes)
        inverses, ridges = [], ridge + shifts
        values = np.full(size, size * ridges[0])
        for shift in ridges[:half]:
            values = self._complex_ridges(values, p, shift)
            inverses.append(np.linalg.inv(self.kernel + np.diag(values)))
        inverses += [inverse.conj() for inverse in inverses[::-1]]
        errors = [inverse @ self.labels / np.diagonal(inverse) for inverse in inverses]
        scaled = [inverse / np.diagonal(inverse)[:, None] for inverse in inverses]
        total = np.zeros(size)
        for i in range(half):  # the conjugate of a pair adds the conjugate
            for j in range(nodes):
                influence = scaled[i] * scaled[j]
                np.fill_diagonal(influence, 0.0)
                right = errors[i] * errors[j] + (size / p) * noise**2 * influence.sum(axis=1)
                system = (1 - size / p) * influence
                np.fill_diagonal(system, 1.0)
                total += 2 * (weights[i] * weights[j] * np.linalg.solve(system, right)).real
        return total

    def _complex_ridges(self, start: Complexes, p: float, ridge: complex) -> Complexes:
        """Return the individual ridges D at a complex ridge, by damped iteration from those of a neighbour."""
        size, values = len(self.labels), start
        mixed = _Anderson(values)
        for _ in range(_MOST):
            inverse = np.diagonal(np.linalg.inv(self.kernel + np.diag(mixed.x)))
            new = p * ridge + (1 - p / size) / inverse
            if mixed.step(new) <= _TOLERANCE * np.max(np.abs(new)):
                break
        return np.asarray(mixed.x, dtype=complex)


class _Anderson:
    """Anderson's acceleration of a fixed-point iteration; `x` is where the map is to be evaluated next."""

    def __init__(self, start: Array) -> None:
        self.x = start
        self._steps: list[Array] = []
        self._images: list[Array] = []

    def step(self, image: Array) -> float:
        """Take the image of `x`, move on, and return the largest change between the two."""
        change = image - self.x
        self._steps = [*self._steps, change][-_DEPTH - 1 :]
        self._images = [*self._images, image][-_DEPTH - 1 :]
        new = image
        if len(self._steps) > 1:
            steps = np.array([change - old for old in self._steps[:-1]]).T
            images = np.array([image - old for old in self._images[:-1]]).T
            new = image - images @ np.linalg.lstsq(steps, change, rcond=1e-10)[0]
        self.x = new
        return float(np.max(np.abs(change)))


def _inverse(kernel: Floats, ridges: Floats) -> Floats:
    """Return (K + diag D)⁻¹ of a positive matrix."""
    factor, _ = cho_factor(kernel + np.diag(ridges), lower=True, overwrite_a=True, check_finite=False)
    (invert,) = get_lapack_funcs(("potri",), (factor,))
    inverse, _ = invert(factor, lower=1, overwrite_c=1)
    lower = np.tril(inverse)
    return lower + np.tril(inverse, -1).T


def _inverse_diagonal(kernel: Floats, ridges: Floats) -> Floats:
    """Return the diagonal of the same: two thirds of the work."""
    whole = np.array(kernel)
    whole.flat[:: len(whole) + 1] += ridges
    factor = cholesky(whole.T, lower=True, overwrite_a=True, check_finite=False)  # in the order of LAPACK
    (invert,) = get_lapack_funcs(("trtri",), (factor,))
    inverse, _ = invert(factor, lower=1, overwrite_c=1)
    return np.einsum("ij,ij->j", inverse, inverse)
