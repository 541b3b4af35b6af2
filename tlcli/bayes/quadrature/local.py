"""The target's measure under a strong coupling: a few Gauss-Hermite nodes around each neuron of the source.

At large δ the target's weights given z̄ have a width 1/√(1+δ), far below the scale of the tilt, and a lattice would
resolve that width everywhere. Around the mode of each tilted density, with the local curvature as its width,
exp(log density) is nearly a Gaussian: a handful of nodes integrates it at any δ.
"""

import numpy as np
from numpy.polynomial.hermite_e import hermegauss

from tlcli.arrays import Floats
from tlcli.bayes.quadrature.lattice import LARGEST, QuadratureMoments, TooLarge, mesh, second, square, times
from tlcli.dmft.activations import Activation

_STEPS = 12  # Newton steps towards the modes; nodes are exact wherever they stand, only fewer suffice near the mode


class TargetLocal:
    """N(z; αz̄, I/(1+δ)) exp(½γ²(v·φ(Bz))²)/Z(z̄), averaged over source nodes z̄ (S, r) with probabilities (S,).

    The nodes stand around the modes that belong to `centre` (P,), a v near the one that is asked for; `order` is their
    number in each direction.

    Raises:
        TooLarge: a table of all features would not fit.
    """

    def __init__(
        self,
        act: Activation,
        directions: Floats,
        gamma: float,
        delta: float,
        source: tuple[Floats, Floats],
        centre: Floats,
        order: int,
    ):
        rank = directions.shape[1]
        if len(source[0]) * order**rank * len(directions) > LARGEST:
            raise TooLarge
        self.gamma, self._p, c = gamma, source[1], 1.0 + delta
        mean = source[0] * (delta / c)
        mode, root = _modes(act, directions, gamma, c, mean, centre)
        x, w = hermegauss(order)
        ξ = mesh([x] * rank)
        log_w = np.log(np.prod(mesh([w / np.sqrt(2 * np.pi)] * rank), axis=1))
        z = mode[:, None, :] + np.einsum("sij,qj->sqi", root, ξ)
        self.z = z.reshape(-1, rank)
        self._phi = np.asarray(act.phi(self.z @ directions.T), dtype=float)
        # Prior over the Gaussian of the nodes; the determinant of `root` is that of their width.
        _, log_det = np.linalg.slogdet(root)
        self._base = (
            log_w
            + 0.5 * np.sum(ξ**2, axis=1)
            - 0.5 * c * np.sum((z - mean[:, None, :]) ** 2, axis=2)
            + (0.5 * rank * np.log(c) + log_det)[:, None]
        )

    def _weights(self, v: Floats) -> tuple[Floats, Floats, Floats]:
        """log Z(z̄) (S,), probabilities of the nodes given z̄ (S, Q), and s (S·Q,) or (S·Q, K)."""
        s = self._phi @ v
        log_p = self._base + 0.5 * self.gamma**2 * square(s).reshape(self._base.shape)
        top = log_p.max(axis=1, keepdims=True)
        p = np.exp(log_p - top)
        total = p.sum(axis=1, keepdims=True)
        return np.log(total[:, 0]) + top[:, 0], p / total, s

    def moments(self, v: Floats) -> QuadratureMoments:
        """Return the moments at v (P,)."""
        log_z, p, s = self._weights(v)
        φ = self._phi.reshape(*p.shape, -1)
        if s.ndim == 1:
            means = np.einsum("sq,sqi->si", p * s.reshape(p.shape), φ)
        else:
            means = np.einsum("sq,sqi->si", p, times(self._phi, s).reshape(*p.shape, -1))
        joint = (self._p[:, None] * p).ravel()
        kernel = (self._phi * joint[:, None]).T @ self._phi
        spread = second(self._phi, joint, s) - (means * self._p[:, None]).T @ means
        return QuadratureMoments(float(self._p @ log_z), kernel, spread)

    def probabilities(self, v: Floats) -> Floats:
        """Probabilities of the nodes `z` averaged over the source, (S·Q,), summing to 1."""
        return (self._p[:, None] * self._weights(v)[1]).ravel()


def curvature(act: Activation, directions: Floats, gamma: float, z: Floats, v: Floats) -> tuple[Floats, Floats]:
    """Gradient (S, r) and Hessian (S, r, r) of the log tilt ½γ²Σ(v·φ(Bz))² at points z (S, r), over the columns of v.

    φ'' is a difference of slopes: only the placement of nodes depends on it.
    """
    if v.ndim > 1:
        parts = [curvature(act, directions, gamma, z, column) for column in v.T]
        return sum((one for one, _ in parts), np.zeros_like(z)), sum((two for _, two in parts), np.zeros(()))
    h, ε = z @ directions.T, 1e-4
    φ, slope = act.both(h)
    second = (act.both(h + ε)[1] - act.both(h - ε)[1]) / (2 * ε)
    s, ds = φ @ v, (slope * v) @ directions
    hessian = np.einsum("si,sj->sij", ds, ds) + s[:, None, None] * np.einsum(
        "sp,pi,pj->sij", second * v, directions, directions
    )
    return gamma**2 * s[:, None] * ds, gamma**2 * hessian


def _modes(
    act: Activation, directions: Floats, gamma: float, c: float, mean: Floats, v: Floats
) -> tuple[Floats, Floats]:
    """Mode of each tilted density, (S, r), and the square root of its covariance, (S, r, r)."""
    z, eye = mean, np.eye(mean.shape[1])
    for _ in range(_STEPS):
        gradient, hessian = curvature(act, directions, gamma, z, v)
        precision = _bounded(c * eye - hessian, c)[0]
        step = np.linalg.solve(precision, (gradient - c * (z - mean))[..., None])[..., 0]
        # No farther than two widths of the prior at once: the Hessian changes.
        size = np.linalg.norm(step, axis=1, keepdims=True)
        z = z + step * np.minimum(1.0, 2.0 / np.sqrt(c) / np.maximum(size, 1e-300))
        if size.max(initial=0.0) < 1e-6 / np.sqrt(c):
            break
    return z, _bounded(c * eye - curvature(act, directions, gamma, z, v)[1], c)[1]


def _bounded(precision: Floats, c: float) -> tuple[Floats, Floats]:
    """Symmetric matrices (S, r, r) with eigenvalues raised to a quarter of c, and their inverse square roots."""
    λ, u = np.linalg.eigh(precision)
    λ = np.maximum(λ, 0.25 * c)
    return (u * λ[:, None, :]) @ np.swapaxes(u, 1, 2), u / np.sqrt(λ)[:, None, :]
