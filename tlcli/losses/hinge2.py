"""The squared hinge, half of max(0, 1 - y f)^2 of labels -1 and +1."""

from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Array
from tlcli.losses.base import Loss


@dataclass(frozen=True)
class Hinge2(Loss):
    """Half the squared distance of the margin y f from 1 where it is below; reported without the half."""

    name = "hinge2"
    form = "hinge2"
    labels = "binary"
    factor = 2.0
    flat = True

    def value(self, f: Array, y: Array) -> Array:
        """Return max(0, 1 - y f)^2 / 2."""
        return 0.5 * np.square(np.maximum(0, 1 - y * f))

    def force(self, f: Array, y: Array) -> Array:
        """Return y max(0, 1 - y f)."""
        return y * np.maximum(0, 1 - y * f)

    def bend(self, f: Array, y: Array, d: Array) -> Array:
        """Return d where y f < 1, else 0."""
        return np.where(y * f < 1, d, np.zeros_like(d))

    def conjugate(self, v: Array, y: Array) -> Array:
        """Return -u + u^2 / 2 at u = y v >= 0."""
        u = y * v
        return np.where(u >= 0, -u + 0.5 * np.square(u), np.inf)

    def domain(self, y: Array) -> tuple[Array, Array]:
        """Return 0 and infinity for y = 1, the negative of it for y = -1."""
        return np.where(y > 0, 0.0, -np.inf), np.where(y > 0, np.inf, 0.0)

    def inverse(self, v: Array, y: Array) -> Array:
        """Return y - v, the margin 1 - y v of y v >= 0."""
        return y - v
