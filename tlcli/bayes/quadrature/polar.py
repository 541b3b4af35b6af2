"""Tilted measures in polar coordinates of the row space, for activations homogeneous of degree 1 (relu, linear).

With z = ru and u a unit vector, the tilt exp(½γ²(v·φ(Bz))²) is exp(½γ²r²s²), s = v·φ(Bu): every radial integral is
closed, and only the angle is left, on arcs between the kinks (Gauss-Legendre, which converges geometrically there).
"""

import numpy as np
from scipy import special

from tlcli.arrays import Floats
from tlcli.bayes.quadrature.lattice import QuadratureMoments, second, square, times
from tlcli.dmft.activations import Activation

_CHUNK = 2_000_000  # numbers in one block of (source neurons, angles)
_ASYMPTOTIC = -12.0


def unit_vectors(directions: Floats, order: int) -> tuple[Floats, Floats]:
    """Return unit vectors u (M, r) and their weights (M,), which sum to the measure of the sphere (2 or 2π).

    `directions` (n, r), r = 1 or 2, are the points at whose sign changes the integrand has kinks; `order` is the number
    of Gauss-Legendre nodes on each arc (arcs are at most 0.4 rad long).
    """
    if directions.shape[1] == 1:
        return np.array([[1.0], [-1.0]]), np.ones(2)
    b = directions[np.linalg.norm(directions, axis=1) > 0]
    kinks = np.mod(np.arctan2(b[:, 1], b[:, 0])[:, None] + np.array([0.5, -0.5]) * np.pi, 2 * np.pi)
    edges = np.unique(np.append(kinks, 0.0))
    edges = np.append(edges[np.append(True, np.diff(edges) > 1e-12)], 2 * np.pi)
    pieces = np.maximum(1, np.ceil(np.diff(edges) / 0.4)).astype(int)
    cuts = np.concatenate(
        [np.linspace(a, b, k, endpoint=False) for a, b, k in zip(edges, edges[1:], pieces, strict=False)]
    )
    width = np.diff(np.append(cuts, 2 * np.pi))
    x, w = np.polynomial.legendre.leggauss(order)
    t = 0.5 * (1 + x)
    # Near-critical tilts have a layer at their steepest kink; t²(3 - 2t) sends its pole from a distance ε to √ε.
    angle = (cuts[:, None] + width[:, None] * t**2 * (3 - 2 * t)).ravel()
    return np.stack([np.cos(angle), np.sin(angle)], axis=1), (width[:, None] * 3 * t * (1 - t) * w).ravel()


def ray_integrals(a: Floats, largest: int) -> Floats:
    """Return exp(-½max(a, 0)²) ∫₀^∞ tᵏ exp(-½t² + at) dt for k = 0..largest, (largest + 1, *a.shape).

    By the recursion J_{k+1} = aJ_k + kJ_{k-1}; its cancellation for a << 0 is avoided by the asymptotic series.
    """
    positive = np.maximum(a, 0.0)
    out = np.empty((largest + 1, *a.shape))
    out[0] = np.where(
        a > 0,
        np.sqrt(2 * np.pi) * special.ndtr(a),
        np.sqrt(np.pi / 2) * special.erfcx(-np.minimum(a, 0.0) / np.sqrt(2)),
    )
    if largest > 0:
        out[1] = np.exp(-0.5 * positive**2) + a * out[0]
    for k in range(1, largest):
        out[k + 1] = a * out[k] + k * out[k - 1]
    far = a < _ASYMPTOTIC
    if np.any(far):
        b = -a[far]
        for k in range(largest + 1):
            terms, series = special.factorial(k) / b ** (k + 1), np.zeros_like(b)
            for j in range(6):
                series += terms
                terms = -terms * (k + 2 * j + 1) * (k + 2 * j + 2) / (2 * (j + 1) * b**2)
            out[k][far] = series
    return out


def _layers(rank: int, farthest: float, step: float) -> tuple[Floats, Floats]:
    """Trapezoid rule in t for r = log(1 + eᵗ) up to `farthest`, logarithmic near 0, uniform beyond 1: r, weights."""
    t = step * np.arange(np.floor((-36.0 if rank == 1 else -18.0) / step), np.ceil(farthest / step) + 1)
    return np.logaddexp(0.0, t), step * special.expit(t)


class SourcePolar:
    """The measure N(z; 0, I) exp(½γ²(v·φ(Bz))²) for B (P, r), over the unit vectors u (M, r) with weights (M,)."""

    def __init__(self, act: Activation, directions: Floats, gamma: float, sphere: tuple[Floats, Floats]):
        self.u, self.weight = sphere
        self.gamma, self.rank = gamma, directions.shape[1]
        self._phi = np.asarray(act.phi(self.u @ directions.T), dtype=float)

    def curvature(self, v: Floats) -> Floats:
        """1 - γ²s(u)², (M,): the inverse variance of r along u; the tilt is normalisable where all are positive."""
        return 1.0 - self.gamma**2 * square(self._phi @ v)

    def angular(self, v: Floats) -> Floats:
        """Probability of each direction, (M,)."""
        p = self.weight * self.curvature(v) ** (-0.5 * self.rank)
        return p / p.sum()

    def moments(self, v: Floats) -> QuadratureMoments | None:
        """Return the moments at v (P,); None where the tilt is not normalisable."""
        κ, n = self.curvature(v), self.rank
        if κ.min() <= 0:
            return None
        s, mass = self._phi @ v, self.weight * κ ** (-0.5 * n)
        p = mass / mass.sum()
        mean = self._phi.T @ (p * (n / κ) * s) if s.ndim == 1 else times(self._phi, s).T @ (p * (n / κ))
        kernel = (self._phi * (p * n / κ)[:, None]).T @ self._phi
        fourth = (p * s**2 * n * (n + 2) / κ**2)[:, None] if s.ndim == 1 else None
        spread = second(self._phi, p * n * (n + 2) / κ**2, s) if fourth is None else (self._phi * fourth).T @ self._phi
        spread -= np.outer(mean, mean)
        return QuadratureMoments(float(np.log(mass.sum() / self.weight.sum())), kernel, spread)

    def quadratic_nodes(self, v: Floats) -> tuple[Floats, Floats]:
        """Nodes and weights that integrate functions homogeneous of degree 2 exactly in r: (u (M, r), p E r² (M,))."""
        return self.u, self.angular(v) * self.rank / self.curvature(v)

    def nodes(self, v: Floats, radial: int) -> tuple[Floats, Floats]:
        """Nodes z (M·radial, r) and probabilities for functions smooth in r (Gauss-Legendre in r√κ up to 8.5)."""
        x, w = np.polynomial.legendre.leggauss(radial)
        t = 4.25 * (1 + x)
        z, p = self._spread_out(v, t, w * t ** (self.rank - 1) * np.exp(-0.5 * t**2))
        used = p > 1e-17 * p.max()
        return z[used], p[used] / p[used].sum()

    def layered_nodes(self, v: Floats, step: float) -> tuple[Floats, Floats]:
        """Nodes and probabilities for functions with a layer of any width at r = 0 (`_layers`)."""
        t, w = _layers(self.rank, 9.5, step)
        return self._spread_out(v, t, w * t ** (self.rank - 1) * np.exp(-0.5 * t**2))

    def _spread_out(self, v: Floats, t: Floats, weight: Floats) -> tuple[Floats, Floats]:
        r = t / np.sqrt(self.curvature(v))[:, None]
        p = self.angular(v)[:, None] * (weight / weight.sum())
        return (r[..., None] * self.u[:, None]).reshape(-1, self.rank), p.ravel()


class TargetPolar:
    """The target's measure N(z; αz̄, I/(1+δ)) exp(½γ²(v·φ(Bz))²)/Z(z̄) over source nodes z̄ (S, r), probabilities (S,).

    Along u the radial density is r^{r-1} exp(-½Ar² + δ(z̄·u)r) with A = 1 + δ - γ²s(u)²: `ray_integrals`.
    """

    def __init__(
        self,
        act: Activation,
        directions: Floats,
        gamma: float,
        delta: float,
        source: tuple[Floats, Floats],
        sphere: tuple[Floats, Floats],
    ):
        self.u, self.weight = sphere
        self.gamma, self.delta, self.rank = gamma, delta, directions.shape[1]
        self._phi = np.asarray(act.phi(self.u @ directions.T), dtype=float)
        self._z, self._p = source

    def curvature(self, v: Floats) -> Floats:
        """1 + δ - γ²s(u)², (M,); the tilt is normalisable where all are positive."""
        return 1.0 + self.delta - self.gamma**2 * square(self._phi @ v)

    def _blocks(self, A: Floats):
        """Yield (source block, log Z(z̄), probability of each direction, E r², E r⁴ given it), tables (block, M)."""
        n, size = self.rank, max(1, _CHUNK // len(self.u))
        for start in range(0, len(self._p), size):
            block = slice(start, start + size)
            a = self.delta * (self._z[block] @ self.u.T) / np.sqrt(A)
            rays = ray_integrals(a, n + 3)
            log_scale = 0.5 * np.maximum(a, 0.0) ** 2
            top = log_scale.max(axis=1, keepdims=True)
            mass = self.weight * A ** (-0.5 * n) * np.exp(log_scale - top) * rays[n - 1]
            total = mass.sum(axis=1, keepdims=True)
            square = np.sum(self._z[block] ** 2, axis=1)
            constant = (
                0.5 * n * np.log((1 + self.delta) / (2 * np.pi)) - 0.5 * self.delta**2 / (1 + self.delta) * square
            )
            log_z = np.log(total[:, 0]) + top[:, 0] + constant
            yield block, log_z, mass / total, rays[n + 1] / rays[n - 1] / A, rays[n + 3] / rays[n - 1] / A**2

    def moments(self, v: Floats) -> QuadratureMoments | None:
        """Return the moments at v (P,); None where the tilt is not normalisable."""
        A = self.curvature(v)
        if A.min() <= 0:
            return None
        s, log_z = self._phi @ v, 0.0
        both = times(self._phi, s)
        squares, fourth, between = np.zeros(len(s)), np.zeros(len(s)), np.zeros((v.size, v.size))
        for block, logs, p, r2, r4 in self._blocks(A):
            p_source = self._p[block]
            log_z += float(p_source @ logs)
            squares += p_source @ (p * r2)
            fourth += p_source @ (p * r4)
            means = (p * r2 * s) @ self._phi if s.ndim == 1 else (p * r2) @ both
            between += (means * p_source[:, None]).T @ means
        kernel = (self._phi * squares[:, None]).T @ self._phi
        return QuadratureMoments(log_z, kernel, second(self._phi, fourth, s) - between)

    def quadratic_nodes(self, v: Floats) -> tuple[Floats, Floats]:
        """Nodes and weights that integrate functions homogeneous of degree 2 exactly in r: (u (M, r), p E r² (M,))."""
        A = self.curvature(v)
        return self.u, sum((self._p[block] @ (p * r2) for block, _, p, r2, _ in self._blocks(A)), np.zeros(len(A)))

    def layered_nodes(self, v: Floats, step: float) -> tuple[Floats, Floats]:
        """Nodes and probabilities for functions with a layer of any width at r = 0 (`_layers`)."""
        A, n = self.curvature(v), self.rank
        farthest = float(np.sqrt(np.sum(self._z**2, axis=1).max()))
        unit = 1.0 / np.sqrt(A.max())
        t, w = _layers(n, (self.delta * farthest / np.sqrt(A.min()) + 9.5) / np.sqrt(A.min()) / unit, step)
        r = unit * t
        density = np.zeros((len(A), len(r)))
        for block, _, p, _, _ in self._blocks(A):
            for at, p_source, row in zip(self._z[block], self._p[block], p, strict=True):
                used = np.flatnonzero(p_source * row > 1e-15)
                if not used.size:
                    continue
                log_r = -0.5 * A[used, None] * r**2 + self.delta * (self.u[used] @ at)[:, None] * r
                radial = w * r ** (n - 1) * np.exp(log_r - log_r.max(axis=1, keepdims=True))
                density[used] += p_source * row[used, None] * radial / radial.sum(axis=1, keepdims=True)
        return (r[:, None] * self.u[:, None]).reshape(-1, n), density.ravel() / density.sum()
