"""The cross-entropy of C classes, ln sum exp(f) - pi.f."""

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, softmax

from tlcli.arrays import Array
from tlcli.losses.base import Loss, xlogx


@dataclass(frozen=True)
class Softmax(Loss):
    """The cross-entropy of probabilities pi (..., C), of one class as a rule, with softmax(f), in nats.

    With label smoothing e, pi is (1 - e) of the label and e/C of every class.
    """

    smoothing: float = 0.0

    name = "softmax"
    form = "softmax"
    labels = "classes"
    vector = True
    smooths = True
    smoothness = 0.5

    @property
    def bounded(self) -> bool:
        """Only with label smoothing."""
        return self.smoothing > 0

    def soften(self, y: Array) -> Array:
        """Return (1 - e) pi + e/C."""
        return (1 - self.smoothing) * y + self.smoothing / y.shape[-1]

    def value(self, f: Array, y: Array) -> Array:
        """Return ln sum exp(f - pi.f)."""
        return np.asarray(logsumexp(f - np.sum(y * f, axis=-1, keepdims=True), axis=-1))

    def force(self, f: Array, y: Array) -> Array:
        """Return pi - p; the entry of the likeliest label is minus the sum of the others, which never cancels."""
        out = (y - softmax(f, axis=-1)).astype(f.dtype, copy=False)
        label = np.broadcast_to(np.argmax(y, axis=-1)[..., None], (*out.shape[:-1], 1))
        np.put_along_axis(out, label, 0, axis=-1)
        np.put_along_axis(out, label, -out.sum(axis=-1, keepdims=True), axis=-1)
        return out

    def bend(self, f: Array, y: Array, d: Array) -> Array:
        """Return p d - p (p.d)."""
        p = softmax(f, axis=-1)
        return p * (d - np.sum(p * d, axis=-1, keepdims=True))

    def probabilities(self, f: Array) -> Array:
        """Return softmax(f)."""
        return np.asarray(softmax(f, axis=-1))

    def conjugate(self, v: Array, y: Array) -> Array:
        """Return sum p ln p at p = pi - v in the simplex."""
        p = y - v
        off = np.abs(v.sum(axis=-1)) > 1e-9 * (1 + np.abs(v).sum(axis=-1))
        return np.where(off, np.inf, xlogx(p).sum(axis=-1))
