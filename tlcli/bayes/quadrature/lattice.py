"""Tilted measures on a product lattice of the row space, for any smooth activation (docs/bayes.md, Section 2).

A neuron's weights enter the training preactivations only through z (r,), r <= 2 coordinates in the row space of the
training inputs: h = Bz with B (P, r) and z ~ N(0, I) before training. The trapezoid rule on a lattice is spectrally
accurate for analytic activations, and a Gaussian between two lattices is a product of one small matrix per axis.
"""

from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Floats
from tlcli.bayes.quadrature.tilt import steepest_ray
from tlcli.dmft.activations import Activation

# Nodes on a face of the box may carry this share of the largest density: e^-40, beyond double precision.
EDGE = -40.0
REACH = 9.2  # exp(-REACH**2 / 2) is smaller than e^EDGE
WIDEST = 120.0  # reached where 1 - γ²s∞² < (REACH / WIDEST)² = 0.006
SMALLEST = 1e-250  # of a conditional normaliser, relative to the largest tilt
LARGEST = 2.5e7  # numbers in one table of features


class TooLarge(Exception):
    """The lattice would need more nodes than fit (a loss of mass at the faces, or too fine a rule)."""


@dataclass(frozen=True, eq=False)
class QuadratureMoments:
    """Moments of p(z) ∝ N(z) exp(½γ²s²), s = v·φ(Bz), averaged over the source where there is one.

    Attributes:
        log_z: log of the normaliser (its mean over the source neurons for a target).
        kernel: Φ = E φφᵀ, (P, P).
        spread: Cov(sφ) within each source neuron, (P, P); of several readouts that of s_c φ, (PK, PK).
    """

    log_z: float
    kernel: Floats
    spread: Floats


@dataclass(frozen=True)
class Box:
    """A product of intervals [low_k, high_k], one per axis of the row space."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def axes(self, step: float, features: int) -> list[Floats]:
        """Lattice points k·step inside the box, one array per axis.

        Raises:
            TooLarge: a table of that many features on the lattice would not fit.
        """
        counts = [(b - a) / step + 1.0 for a, b in zip(self.low, self.high, strict=True)]
        if np.prod(counts) * max(features, 1) > LARGEST:
            raise TooLarge
        return [
            step * np.arange(np.ceil(a / step), np.floor(b / step) + 1)
            for a, b in zip(self.low, self.high, strict=True)
        ]

    def grown(self, log_density: Floats) -> "Box | None":
        """Return a box that is wider at the faces where the density (one axis per dimension) has not decayed, or None.

        Raises:
            TooLarge: the box would exceed `WIDEST`.
        """
        top, low, high = float(log_density.max()), list(self.low), list(self.high)
        for k in range(len(low)):
            first, last = np.take(log_density, 0, axis=k).max(), np.take(log_density, -1, axis=k).max()
            width = high[k] - low[k]
            low[k] -= (first - top > EDGE) * 0.3 * width
            high[k] += (last - top > EDGE) * 0.3 * width
        if (tuple(low), tuple(high)) == (self.low, self.high):
            return None
        if max(map(abs, low + high)) > WIDEST:
            raise TooLarge
        return Box(tuple(low), tuple(high))


def square(s: Floats) -> Floats:
    """Return s² (M,) of s (M,), or the sum over readouts of s (M, K): what the tilt sees."""
    return s**2 if s.ndim == 1 else np.sum(s**2, axis=1)


def times(φ: Floats, s: Floats) -> Floats:
    """Return sφ, (M, P) of s (M,), or (M, PK) of s (M, K) with the readout running fastest."""
    return φ * s[:, None] if s.ndim == 1 else (φ[:, :, None] * s[:, None, :]).reshape(len(φ), -1)


def second(φ: Floats, p: Floats, s: Floats) -> Floats:
    """Return Σ p (sφ)(sφ)ᵀ over nodes, (P, P) or (PK, PK)."""
    if s.ndim == 1:
        return (φ * (p * s**2)[:, None]).T @ φ
    both = times(φ, s)
    return (both * p[:, None]).T @ both


def mesh(axes: list[Floats]) -> Floats:
    """Return all nodes (M, r) of the product of r axes, the last axis running fastest."""
    grids = np.meshgrid(*axes, indexing="ij") if axes else [np.zeros(1)][:0]
    return np.stack([g.ravel() for g in grids], axis=1) if axes else np.zeros((1, 0))


class SourceLattice:
    """The measure N(z; 0, I) exp(½γ²(v·φ(Bz))²) on the lattice of spacing `step` in `box`.

    `directions` is B (P, r), the inputs of the training points over √D in an orthonormal basis of the row space.
    """

    def __init__(self, act: Activation, directions: Floats, gamma: float, box: Box, step: float):
        self.box, self.gamma = box, gamma
        self.axes = box.axes(step, len(directions))
        self.z = mesh(self.axes)
        self._phi = np.asarray(act.phi(self.z @ directions.T), dtype=float)
        self._base = -0.5 * np.sum(self.z**2, axis=1) + len(self.axes) * np.log(step / np.sqrt(2 * np.pi))

    def _log_density(self, v: Floats) -> tuple[Floats, Floats]:
        s = self._phi @ v
        return self._base + 0.5 * self.gamma**2 * square(s), s

    def moments(self, v: Floats) -> QuadratureMoments | None:
        """Return the moments at v (P,); None where they do not exist."""
        log_p, s = self._log_density(v)
        top = float(log_p.max())
        p = np.exp(log_p - top)
        total = float(p.sum())
        p /= total
        mean = self._phi.T @ (p * s) if s.ndim == 1 else times(self._phi, s).T @ p
        kernel = (self._phi * p[:, None]).T @ self._phi
        spread = second(self._phi, p, s) - np.outer(mean, mean)
        return QuadratureMoments(top + np.log(total), kernel, spread)

    def grown(self, v: Floats) -> Box | None:
        """A wider box if the tilted density has not decayed at the faces, otherwise None (raises TooLarge)."""
        return self.box.grown(self._log_density(v)[0].reshape([len(a) for a in self.axes]))

    def probabilities(self, v: Floats) -> Floats:
        """Probabilities of the nodes `z`, (M,), summing to 1."""
        log_p = self._log_density(v)[0]
        p = np.exp(log_p - log_p.max())
        return p / p.sum()


class TargetLattice:
    """The target's measure: N(z; αz̄, I/(1+δ)) exp(½γ²(v·φ(Bz))²)/Z(z̄), averaged over the source's z̄.

    The Gaussian that joins the source's lattice (axes, probabilities) with the target's is separable, so that Z(z̄) and
    the mean of any feature are one small matrix per axis. For activations that grow, exp(-½λz²) is moved from the tilt
    into the Gaussian, λ being γ² times the largest squared slope of v·φ along a ray (below 0.9(1 + δ)); the largest
    exponent of each row of a matrix, and of the tilt, is taken out of it: nothing overflows.
    """

    def __init__(
        self,
        act: Activation,
        directions: Floats,
        gamma: float,
        delta: float,
        source: tuple[list[Floats], Floats],
        box: Box,
        step: float,
    ):
        self.box, self.gamma, self._delta, self._step = box, gamma, delta, step
        self._act, self._directions = act, directions
        self._source_axes, self._source = source
        self.axes = box.axes(step, len(directions))
        self.z = mesh(self.axes)
        self._phi = np.asarray(act.phi(self.z @ directions.T), dtype=float)
        self._shape = [len(a) for a in self.axes]
        self._square = np.sum(self.z**2, axis=1)

    def _factors(self, v: Floats) -> tuple[Floats, Floats, list[Floats], Floats]:
        """Return the scaled tilt (M,), s (M,), one matrix per axis and the log of the scale of Z for each z̄, (S,).

        The matrices are N(z; αz̄, 1/(1+δ)) exp(½λz²)·step, (points of z̄, points of z), each row over its largest.
        """
        c, α = 1.0 + self._delta, self._delta / (1.0 + self._delta)
        s, steep = self._phi @ v, steepest_ray(self._act, self._directions, v)[1] if self.gamma > 0 else 0.0
        growth = min(self.gamma**2 * steep, 0.9 * c)
        log_t = 0.5 * self.gamma**2 * square(s) - 0.5 * growth * self._square
        top = float(log_t.max())
        matrices, log_scale = [], np.full((1,) * len(self.axes), top)
        for k, (zb, z) in enumerate(zip(self._source_axes, self.axes, strict=True)):
            exponent = -0.5 * c * (z - α * zb[:, None]) ** 2 + 0.5 * growth * z**2
            largest = exponent.max(axis=1)
            matrices.append(self._step * np.sqrt(c / (2 * np.pi)) * np.exp(exponent - largest[:, None]))
            log_scale = log_scale + largest.reshape([-1 if j == k else 1 for j in range(len(self.axes))])
        return np.exp(log_t - top), s, matrices, log_scale.ravel()

    def _along(self, matrices: list[Floats], table: Floats, back: bool = False) -> Floats:
        """Apply one matrix per axis to a table of nodes (M,) or (M, k); `back` applies the transposes."""
        shape = self._source.shape if back else tuple(self._shape)
        out = table.reshape(*shape, -1)
        for k, matrix in enumerate(matrices):
            out = np.moveaxis(np.tensordot(matrix.T if back else matrix, out, axes=(1, k)), 0, k)
        return out.reshape(-1, *table.shape[1:])

    def moments(self, v: Floats) -> QuadratureMoments | None:
        """Return the moments at v (P,); None where a conditional normaliser is too small for a number."""
        tilt, s, coupling, log_scale = self._factors(v)
        z_bar = self._along(coupling, tilt)
        weight = self._source.ravel()
        if np.any(z_bar[weight > 0] <= SMALLEST):
            return None
        keep = weight > 0
        share = np.divide(weight, z_bar, out=np.zeros_like(weight), where=keep)
        p = tilt * self._along(coupling, share, back=True)
        tilted = (tilt * s)[:, None] * self._phi if s.ndim == 1 else tilt[:, None] * times(self._phi, s)
        means = self._along(coupling, tilted)[keep] / z_bar[keep][:, None]
        kernel = (self._phi * p[:, None]).T @ self._phi
        spread = second(self._phi, p, s) - (means * weight[keep][:, None]).T @ means
        return QuadratureMoments(float(weight[keep] @ (np.log(z_bar[keep]) + log_scale[keep])), kernel, spread)

    def probabilities(self, v: Floats) -> Floats:
        """Probabilities of the nodes `z` averaged over the source, (M,), summing to 1."""
        tilt, _, coupling, _ = self._factors(v)
        z_bar, weight = self._along(coupling, tilt), self._source.ravel()
        share = np.divide(weight, z_bar, out=np.zeros_like(weight), where=(weight > 0) & (z_bar > SMALLEST))
        p = tilt * self._along(coupling, share, back=True)
        return p / p.sum()

    def grown(self, v: Floats) -> Box | None:
        """A wider box if the tilted density has not decayed at the faces, otherwise None (raises TooLarge)."""
        p = self.probabilities(v).reshape(self._shape)
        return self.box.grown(np.log(p, out=np.full_like(p, -np.inf), where=p > 0))
