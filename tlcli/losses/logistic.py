"""The logistic loss ln(1 + exp(-y f)) of labels -1 and +1."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from tlcli.arrays import Array
from tlcli.losses.base import Loss, xlogx


@dataclass(frozen=True)
class Logistic(Loss):
    """The cross-entropy of two classes of which f is the difference of logits, in nats.

    With label smoothing e the other class has the probability e/2. Labels may lie between -1 and +1: (1 + y)/2 is then
    the probability of the class +1.
    """

    smoothing: float = 0.0

    name = "logistic"
    form = "logistic"
    labels = "binary"
    smooths = True
    steep = True
    smoothness = 0.25

    @property
    def bounded(self) -> bool:
        """Only with label smoothing."""
        return self.smoothing > 0

    def soften(self, y: Array) -> Array:
        """Return (1 - e) y."""
        return (1 - self.smoothing) * y

    def value(self, f: Array, y: Array) -> Array:
        """Return softplus(-f) (1 + y)/2 + softplus(f) (1 - y)/2."""
        return np.logaddexp(0, -f) * (1 + y) / 2 + np.logaddexp(0, f) * (1 - y) / 2

    def force(self, f: Array, y: Array) -> Array:
        """Return expit(-f) (1 + y)/2 - expit(f) (1 - y)/2: of a sure label y expit(-y f), however small it is."""
        up, down = expit(-f) * ((1 + y) / 2), expit(f) * ((1 - y) / 2)
        return (up - down).astype(f.dtype, copy=False)

    def bend(self, f: Array, y: Array, d: Array) -> Array:
        """Return expit(f) expit(-f) d."""
        return expit(f) * expit(-f) * d

    def probabilities(self, f: Array) -> Array:
        """Return expit(f) and expit(-f)."""
        return np.stack([expit(f), expit(-f)], axis=-1)

    def conjugate(self, v: Array, y: Array) -> Array:
        """Return u ln u + (1 - u) ln(1 - u) at u = (1 + y)/2 - v, the probability of +1."""
        u = (1 + y) / 2 - v
        return xlogx(u) + xlogx(1 - u)

    def domain(self, y: Array) -> tuple[Array, Array]:
        """Return -(1 - y)/2 and (1 + y)/2."""
        return -(1 - y) / 2, (1 + y) / 2

    def inverse(self, v: Array, y: Array) -> Array:
        """Return ln(u / (1 - u)) at u = (1 + y)/2 - v."""
        return np.log((1 + y) / 2 - v) - np.log((1 - y) / 2 + v)
