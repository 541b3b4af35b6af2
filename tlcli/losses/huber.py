"""The Huber loss: squared up to a distance k, linear beyond it."""

from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Array
from tlcli.errors import UsageError
from tlcli.losses.base import Loss


@dataclass(frozen=True)
class Huber(Loss):
    """d^2/2 of d = y - f up to |d| = k and k (|d| - k/2) beyond, per output; reported without the half."""

    k: float = 1.0

    name = "huber"
    form = "huber:k"
    labels = "real"
    factor = 2.0
    takes_number = True

    def __post_init__(self) -> None:
        if not (np.isfinite(self.k) and self.k > 0):
            raise UsageError(f"loss: huber:{self.k:g}: k must be a positive finite number; write for example huber:1.")

    @property
    def text(self) -> str:
        """With its number."""
        return f"huber:{self.k:g}"

    def value(self, f: Array, y: Array) -> Array:
        """Return the loss."""
        near = np.minimum(np.abs(y - f), self.k)
        return near * (np.abs(y - f) - 0.5 * near)

    def force(self, f: Array, y: Array) -> Array:
        """Return y - f, at most k away from 0."""
        return np.clip(y - f, -self.k, self.k)

    def bend(self, f: Array, y: Array, d: Array) -> Array:
        """Return d where |y - f| <= k, else 0."""
        return np.where(np.abs(y - f) <= self.k, d, np.zeros_like(d))

    def conjugate(self, v: Array, y: Array) -> Array:
        """Return -v y + v^2 / 2, |v| <= k."""
        return np.where(np.abs(v) <= self.k, -v * y + 0.5 * np.square(v), np.inf)

    def domain(self, y: Array) -> tuple[Array, Array]:
        """Return -k and k."""
        return np.full_like(y, -self.k), np.full_like(y, self.k)

    def inverse(self, v: Array, y: Array) -> Array:
        """Return y - v, |v| <= k."""
        return y - v
