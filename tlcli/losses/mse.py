"""The squared error, half of |y - f|^2."""

from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Array
from tlcli.losses.base import Loss


@dataclass(frozen=True)
class Mse(Loss):
    """Half the squared error of every output; reported without the half, summed over outputs."""

    name = "mse"
    form = "mse"
    labels = "real"
    factor = 2.0
    gaussian = True

    def value(self, f: Array, y: Array) -> Array:
        """Return (y - f)^2 / 2."""
        return 0.5 * np.square(y - f)

    def force(self, f: Array, y: Array) -> Array:
        """Return y - f."""
        return y - f

    def bend(self, f: Array, y: Array, d: Array) -> Array:
        """Return d."""
        return np.array(np.broadcast_to(d, f.shape))

    def conjugate(self, v: Array, y: Array) -> Array:
        """Return -v y + v^2 / 2."""
        return -v * y + 0.5 * np.square(v)

    def inverse(self, v: Array, y: Array) -> Array:
        """Return y - v."""
        return y - v
