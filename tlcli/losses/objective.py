"""The loss of a training set: weights of the samples, and readout coordinates in which nothing is redundant.

Softmax does not see a number added to all logits: the sum of the forces vanishes. With an orthonormal basis E of the
logits of sum zero, (C, C - 1), f = E g, a network with C - 1 readouts b ~ N(0, 1) and outputs g is the network with C
readouts of which the centred outputs are taken (general losses, section 2).
"""

from dataclasses import dataclass, replace

import numpy as np

from tlcli.arrays import Floats
from tlcli.losses.base import Loss


def centred_basis(classes: int) -> Floats:
    """Return Helmert's orthonormal basis (C, C - 1) of the vectors of sum zero; C = 2: (1, -1)/sqrt(2)."""
    basis = np.zeros((classes, classes - 1))
    for k in range(1, classes):
        basis[:k, k - 1], basis[k, k - 1] = 1.0, -k
        basis[:, k - 1] /= np.sqrt(k * (k + 1))
    return basis


@dataclass(frozen=True, eq=False)
class Objective:
    """s sum_mu omega_mu l(f_mu, y_mu) over P training samples, as a function of readout coordinates.

    `y` (P,) or (P, C) as the loss takes it, already softened by label smoothing; `weights` omega (P,) of mean 1, None
    for 1. Coordinates g are (P,) for one output and (P, K) for several, f = g E^T with E = `basis` (C, K), None for f
    itself; K = C is the projection on centred outputs, see `in_full`.
    """

    loss: Loss
    y: Floats
    weights: Floats | None = None
    basis: Floats | None = None

    @property
    def readouts(self) -> int | None:
        """The number K of readouts, None for the single output of a scalar problem."""
        return None if self.y.ndim == 1 else self.y.shape[1] if self.basis is None else self.basis.shape[1]

    def in_full(self) -> "Objective":
        """Return the same loss with a readout for every class, of which it sees what the centred outputs are."""
        if self.basis is None:
            return self
        count = len(self.basis)
        return replace(self, basis=np.eye(count) - 1 / count)

    def outputs(self, g: Floats) -> Floats:
        """Return f of coordinates g (..., K)."""
        return g if self.basis is None else g @ self.basis.T

    def _weighted(self, values: Floats) -> Floats:
        if self.weights is None:
            return values
        return values * (self.weights if values.ndim == 1 else self.weights[:, None])

    def force(self, g: Floats) -> Floats:
        """Return omega Delta in readout coordinates, of the shape of g."""
        delta = self._weighted(self.loss.force(self.outputs(g), self.y))
        return delta if self.basis is None else delta @ self.basis

    def inverse(self, v: Floats) -> Floats:
        """Return coordinates g whose `force` is v, of the shape of v; not finite outside the loss's domain."""
        delta = v if self.basis is None else v @ self.basis.T
        if self.weights is not None:
            delta = delta / (self.weights if delta.ndim == 1 else self.weights[:, None])
        with np.errstate(divide="ignore", invalid="ignore"):
            f = self.loss.inverse(delta, self.y)
            return f if self.basis is None else f @ self.basis

    def bend(self, g: Floats, d: Floats) -> Floats:
        """Return the Hessian of the omega l times d in readout coordinates."""
        found = self._weighted(self.loss.bend(self.outputs(g), self.y, self.outputs(d)))
        return found if self.basis is None else found @ self.basis

    def bend_trace(self, g: Floats) -> float:
        """Return the mean over samples and readout coordinates of the Hessian's diagonal."""
        if self.y.ndim == 1 or not self.loss.vector:
            return float(np.mean(self.bend(g, np.ones_like(g))))
        total = 0.0
        for k in range(g.shape[1]):
            unit = np.zeros_like(g)
            unit[:, k] = 1.0
            total += float(np.mean(self.bend(g, unit)[:, k]))
        return total / g.shape[1]

    def largest_bend(self, g: Floats) -> Floats:
        """Return the largest eigenvalue (P,) of every sample's Hessian."""
        if self.y.ndim == 1 or not self.loss.vector:
            found = self.bend(g, np.ones_like(g))
            return found if found.ndim == 1 else found.max(axis=1)
        columns = [self.bend(g, np.broadcast_to(unit, g.shape)) for unit in np.eye(g.shape[1])]
        return np.asarray(np.linalg.eigvalsh(np.stack(columns, axis=-1))[:, -1], dtype=float)

    def value(self, g: Floats) -> float:
        """Return sum_mu omega_mu l_mu."""
        each = self.loss.value(self.outputs(g), self.y)
        if each.ndim > 1:
            each = each.sum(axis=1)
        return float(np.sum(self._weighted(each)))

    def conjugate(self, v: Floats) -> float:
        """Return sum_mu omega_mu l*(-v_mu / omega_mu) for v (P,) or (P, C) in the space of outputs."""
        scaled = v if self.weights is None else v / (self.weights if v.ndim == 1 else self.weights[:, None])
        if not self.loss.steep:  # rounding of a force at the edge of the domain is no force beyond it
            ends, edge = np.clip(scaled, *self.loss.domain(self.y)), 1e-12 * (1 + np.abs(scaled))
            scaled = np.where(np.abs(scaled - ends) < edge, ends, scaled)
        each = self.loss.conjugate(scaled, self.y)
        if each.ndim > 1:
            each = each.sum(axis=1)
        return float(np.sum(self._weighted(each)))

    @property
    def size(self) -> float:
        """The size of outputs that the labels ask for: their rms for real labels, 1 for classes."""
        if self.loss.labels != "real":
            return 1.0
        square = np.square(self.y)
        return float(np.sqrt(np.mean(square if square.ndim == 1 else square.sum(axis=1)))) or 1.0
