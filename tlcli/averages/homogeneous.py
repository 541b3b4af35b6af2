"""The homogeneous theory: the deterministic equivalent of kernel regression, read off a pool of points.

P samples at ridge λ act as a regression with the effective ridge κ = λ + κ df₁(κ)/P. The pool of N points is itself
such a regression, with a pool ridge δ, so that its leave-one-out residuals e carry what eigenvalues and coefficients
would have to be estimated for:

    A_k = δ/(Λ_k + δ),  g = ⟨A⟩,  df₁ = N(1 − g),  κ = δ/g,  df₂ = df₁ + κ df₁'/κ'  (derivatives in δ),
    e = (U A Uᵀ y)/(U² A),  B = ⟨e²⟩(1 − df₂/N),  L = (B + σ²)/(1 − df₂/P) − σ²,

with Λ_k, U the eigenvalues and eigenvectors of K/N. One eigendecomposition serves all P, λ, σ and times.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tlcli.arrays import Array, Complexes, Floats
from tlcli.averages.talbot import contour
from tlcli.errors import DomainError

_STEPS = 80  # of a bisection over the logarithm of δ
_NEWTON = 60


@dataclass(frozen=True)
class Averages:
    """Means over target samples, arrays of the shape that P, λ and σ broadcast to.

    `loss` is the mean squared error on noise-free labels, `train_loss` that on the noisy labels of the samples, `kappa`
    the effective ridge, `df1` and `df2` the degrees of freedom at it.
    """

    loss: Floats
    train_loss: Floats
    kappa: Floats
    df1: Floats
    df2: Floats


class Homogeneous:
    """One kernel on a pool of points, decomposed once."""

    def __init__(self, kernel: Floats, labels: Floats) -> None:
        """Decompose the kernel (N, N) of a pool with noise-free labels (N,). Raises DomainError for other shapes."""
        kernel, labels = checked_pool(kernel, labels)
        self.size = len(labels)
        values, self.vectors = np.linalg.eigh(kernel / self.size)
        self.values: Floats = np.maximum(values, 0.0)
        self.rank = int(np.sum(self.values > self.size * np.finfo(float).eps * self.values[-1]))
        self.labels = labels
        self._projected = self.vectors.T @ labels
        self._squares = self.vectors**2

    def effective_ridge(self, p: ArrayLike, ridge: ArrayLike = 0.0) -> Floats:
        """Return the pool ridge δ that stands for P samples at ridge λ: κ(1 − df₁/P) = λ, by bisection in log δ.

        Raises DomainError where there is none: P beyond the pool, or without ridge beyond the rank of the kernel.
        """
        p, ridge = np.broadcast_arrays(np.asarray(p, dtype=float), np.asarray(ridge, dtype=float))
        check_sizes(p, ridge, self.size, self.rank)
        shape, p, ridge = p.shape, p.ravel(), ridge.ravel()
        top = self.values[-1]
        low = np.full(p.shape, np.log(top) - 80.0)
        high = np.log(self.values.sum() * self.size + self.size * ridge)
        for _ in range(_STEPS):
            middle = (low + high) / 2
            delta = np.exp(middle)
            g = np.mean(delta[:, None] / (self.values + delta[:, None]), axis=1)
            df1 = self.size * (1 - g)
            below = delta / g * (1.0 - df1 / p) < ridge
            below |= (ridge == 0) & (df1 > p)
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.exp((low + high) / 2).reshape(shape)

    def loss(self, p: ArrayLike, ridge: ArrayLike = 0.0, noise: ArrayLike = 0.0) -> Averages:
        """Return the averages for P samples at ridge λ (of the mean loss) and label noise σ, which broadcast.

        Raises DomainError as `effective_ridge`.
        """
        return self.loss_at_points(p, ridge, noise)[0]

    def loss_at_points(
        self, p: ArrayLike, ridge: ArrayLike = 0.0, noise: ArrayLike = 0.0, delta: Floats | None = None
    ) -> tuple[Averages, Floats]:
        """Return the averages, and how the loss is spread over the pool (..., N), of mean 1.

        P and λ broadcast, and σ with them; the spread has the shape of P and λ alone. `delta` is their effective ridge,
        where it is known already. Raises DomainError as `effective_ridge`.
        """
        p, ridge, noise = (np.asarray(x, dtype=float) for x in (p, ridge, noise))
        delta = self.effective_ridge(p, ridge) if delta is None else delta
        kappa, df1, df2 = (x.reshape(delta.shape) for x in self._degrees(delta.ravel()))
        squares = np.asarray(self.residuals(delta.ravel()), dtype=float) ** 2
        errors = squares.mean(axis=1).reshape(delta.shape)
        squares = squares.reshape(*delta.shape, self.size)
        share = df2 / p
        loss = (errors * (1 - df2 / self.size) + noise**2 * share) / (1 - share)
        train = (ridge / kappa) ** 2 * (loss + noise**2)
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = squares / squares.mean(axis=-1, keepdims=True)
        return Averages(loss, train, kappa, df1, df2), np.where(np.isfinite(spread), spread, 1.0)

    def residuals(self, delta: Array) -> Array:
        """Return the leave-one-out residuals (n, N) of the pool at the pool ridges δ (n,)."""
        shrunk = delta[:, None] / (self.values + delta[:, None])
        return ((shrunk * self._projected) @ self.vectors.T) / (shrunk @ self._squares.T)

    def _degrees(self, delta: Array) -> tuple[Array, ...]:
        """Return κ, df₁ and df₂ (n,) at the pool ridges δ (n,)."""
        kappa, df1, slope, ddf1 = self._slopes(delta)
        return kappa, df1, df1 + kappa * ddf1 / slope

    def _slopes(self, delta: Array) -> tuple[Array, ...]:
        """Return κ, df₁, dκ/dδ and ddf₁/dδ (n,)."""
        rest = self.values / (self.values + delta[:, None])
        df1 = rest.sum(axis=1)
        g = (delta[:, None] / (self.values + delta[:, None])).mean(axis=1)
        ddf1 = -np.sum(rest / (self.values + delta[:, None]), axis=1)
        return delta / g, df1, 1 / g + delta * ddf1 / (self.size * g**2), ddf1

    def stopped(
        self, p: float, times: ArrayLike, ridge: float = 0.0, noise: float = 0.0, nodes: int = 24
    ) -> tuple[Floats, Floats]:
        """Return test and train loss (n_times,) of gradient flow on the mean loss, stopped at `times` > 0.

        The filter (1 − e^{−t(x+λ)})/(x+λ) is a mixture of ridges on Talbot's contour, and the loss a sum over pairs of
        them. Raises DomainError as `effective_ridge`, or for times that are not positive.
        """
        check_sizes(np.asarray(float(p)), np.asarray(float(ridge)), self.size, self.size)
        found = [self._stopped_once(p, t, ridge, noise, nodes) for t in np.atleast_1d(np.asarray(times, dtype=float))]
        losses, trains = np.array(found).T
        return losses, trains

    def _stopped_once(self, p: float, time: float, ridge: float, noise: float, nodes: int) -> tuple[float, float]:
        weights, shifts = contour(time, nodes)
        ridges = ridge + shifts
        half = self._continued(p, ridges[: nodes // 2])
        delta = np.concatenate([half, half[::-1].conj()])
        kappa, df1, df2 = self._degrees(delta)
        residuals = self.residuals(delta)
        gap = kappa[:, None] - kappa
        with np.errstate(invalid="ignore", divide="ignore"):
            shared = (kappa * df1)[:, None] - kappa * df1
            degrees = np.where(np.eye(nodes, dtype=bool), df2, shared / gap)
        errors = residuals @ residuals.T / self.size
        response = (errors * (1 - degrees / self.size) + noise**2) / (1 - degrees / p)
        pairs = weights[:, None] * weights
        scale = ridges / kappa
        loss = np.sum(pairs * response).real - noise**2
        return float(loss), float(np.sum(pairs * np.outer(scale, scale) * response).real)

    def _continued(self, p: float, ridges: Complexes) -> Complexes:
        """Return δ at complex ridges by Newton's method, each from the last: the first is far from the spectrum."""
        found = []
        delta = complex(ridges[0])
        for ridge in ridges:
            for _ in range(_NEWTON):
                kappa, df1, slope, ddf1 = (x[0] for x in self._slopes(np.array([delta])))
                value = kappa * (1 - df1 / p) - ridge
                step = value / (slope * (1 - df1 / p) - kappa * ddf1 / p)
                delta -= step
                if abs(step) <= 1e-15 * abs(delta):
                    break
            found.append(delta)
        return np.array(found)


def checked_pool(kernel: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """Return the kernel, symmetric, and the labels as float arrays. Raises DomainError for others."""
    kernel, labels = np.asarray(kernel, dtype=float), np.asarray(labels, dtype=float)
    if labels.ndim != 1 or kernel.shape != (labels.size, labels.size) or labels.size < 2:
        raise DomainError(f"a pool kernel of shape {kernel.shape} and labels of shape {labels.shape} do not fit.")
    if not (np.isfinite(kernel).all() and np.isfinite(labels).all()):
        raise DomainError("kernel and labels of a pool must be finite.")
    return (kernel + kernel.T) / 2, labels


def check_sizes(p: Floats, ridge: Floats, size: int, rank: int) -> None:
    """Refuse numbers of samples and ridges that a pool cannot stand for. Raises DomainError."""
    if np.any(~(p >= 1) | (p > size)):
        bad = p[~(p >= 1) | (p > size)].flat[0]
        raise DomainError(f"P2 = {bad:g} samples of a pool of {size}: they must be between 1 and its size.")
    if np.any(~(ridge >= 0) | ~np.isfinite(ridge)):
        raise DomainError(f"ridge = {ridge[~(ridge >= 0) | ~np.isfinite(ridge)].flat[0]:g} must be finite and >= 0.")
    full = (ridge == 0) & (p >= rank) & (p < size)
    if np.any(full):
        raise DomainError(
            f"P2 = {p[full].flat[0]:g} without ridge reaches the rank {rank} of the pool's kernel, where nothing is "
            "known; use fewer samples, more neurons or a ridge."
        )
