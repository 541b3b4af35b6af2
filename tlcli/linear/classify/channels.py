"""What the training labels do to the readout: the right sides of the saddle point for each loss (Eq. 3).

With the proximal point p(u) = argmin_z (z − u)²/2V + ℓ(z) and ĝ(u) = (p(u) − u)/V a channel gives, per unit of
α = P/D,

    v̂ = −E_p[ĝ'],   q̂ = E_p[ĝ²],   m̂ = g₀ E_ξ[ĝ(s ξ)],

and what training sees of its own points. Losses ℓ of the margin u = y f: square ½(1 − u)², logistic log(1 + e^{−u}),
hinge max(0, 1 − u); `margin` is the hard constraint u ≥ 1. All arrays are (n,), one entry per point of a grid.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from tlcli.arrays import Floats
from tlcli.linear.classify.moments import ROOT_2PI, density, label_probability, moments_below, moments_between

_TINY = 1e-300
_STEEPEST = 1e150  # slope of a label's probability: its square is a number
_REACH = 8.5  # standard deviations: beyond are 1e-17 of all points
_MEAN_TOLERANCE = 1e-9  # of twice as many nodes: the error itself is far smaller
_CACHED = 1 << 15  # numbers of an array
_FLAT = 1e-12  # an interval below it has the density at its place, not a difference of probabilities


class ClassifierState(NamedTuple):
    """The three scalars, and what the labels add: V, m = β·β*₂, S = |β|² − m², c = (1 + τ²)^{−1/2}, flips f."""

    V: Floats
    m: Floats
    S: Floats
    c: Floats
    flips: Floats

    @property
    def q(self) -> Floats:
        """|β|²."""
        return self.S + self.m**2

    @property
    def s(self) -> Floats:
        """Spread of the prediction given the noisy teacher, √(q − c²m²)."""
        return np.sqrt(self.S + (1 - self.c**2) * self.m**2)

    @property
    def a(self) -> Floats:
        """Slope of the label's probability, c m/√(q − c²m²)."""
        return np.minimum(self.c * self.m / np.maximum(self.s, _TINY), _STEEPEST)

    @property
    def signal(self) -> Floats:
        """g₀ = (1 − 2f) c √(2/π), the covariance of a label with the teacher's output."""
        return signal_of(self.c, self.flips)

    def __getitem__(self, at: object) -> "ClassifierState":  # type: ignore[override]
        """Return the state of some points."""
        return ClassifierState(*(x[at] for x in (self.V, self.m, self.S, self.c, self.flips)))  # type: ignore[index]


def signal_of(c: Floats, flips: Floats) -> Floats:
    """Return g₀ = E[y β*·x]."""
    return (1 - 2 * flips) * c * np.sqrt(2 / np.pi)


class Response(NamedTuple):
    """v̂, q̂ and m̂ per unit of α."""

    v: Floats
    q: Floats
    m: Floats


class TrainingScores(NamedTuple):
    """Mean loss and share of errors on the training points."""

    loss: Floats
    error: Floats


def _square(x: ClassifierState) -> Response:
    w = 1 / (1 + x.V)
    g = x.signal
    return Response(w, (1 - 2 * g * x.m + x.q) * w**2, g * w)


def _active(x: ClassifierState, low: Floats, high: Floats) -> tuple[Floats, Floats, Floats]:
    """Return ∫p, ∫(1 − u)²p and E_ξ[1 − sξ] over the margins between √q low and √q high."""
    root, s = np.sqrt(x.q), x.s
    f0, f1, f2 = moments_between(low, high, x.a, x.flips)
    scale = root / np.maximum(s, _TINY)
    t0, t1 = low * scale, high * scale
    return f0, f0 - 2 * root * f1 + x.q * f2, ndtr(t1) - ndtr(t0) + s * (density(t1) - density(t0))


def _hinge(x: ClassifierState) -> Response:
    root, V = np.sqrt(x.q), np.maximum(x.V, _TINY)
    low, high = (1 - V) / root, 1 / root
    f0, squares, linear = _active(x, low, high)
    below = moments_below(low, x.a, x.flips)[0]
    lowest = ndtr(low * root / np.maximum(x.s, _TINY))
    flat = V / root < _FLAT  # the corner of the loss: points pile up at u = 1
    at_one = 2 * density(high) * label_probability(high, x.a, x.flips) / root
    v = np.where(flat, at_one, f0 / V)
    W = np.where(flat, 1.0, V)
    return Response(v, below + np.where(flat, 0.0, squares / W**2), x.signal * (lowest + np.where(flat, 0, linear / W)))


def _margin(x: ClassifierState) -> Response:
    root, s = np.sqrt(x.q), np.maximum(x.s, _TINY)
    f0, f1, f2 = moments_between(np.full_like(root, -np.inf), 1 / root, x.a, x.flips)
    squares = f0 - 2 * root * f1 + x.q * f2
    return Response(f0 / x.V, squares / x.V**2, x.signal / x.V * (ndtr(1 / s) + s * density(1 / s)))


class _Nodes(NamedTuple):
    """Nodes of the logistic integrals: proximal points p (n, nodes), margins u, σ(−p), σ(p)σ(−p), both measures."""

    p: Floats
    u: Floats
    sigma: Floats
    slope: Floats
    labels: Floats  # p(u) du
    noise: Floats  # N(u; 0, s²) du


def proximal(u: Floats, V: Floats) -> Floats:
    """Return the proximal point of the logistic loss near u, good enough to place nodes: p − V σ(−p) = u."""
    V = np.maximum(V, _TINY)
    low, high = u, u + V
    pull = np.maximum(-u, 0.0) + np.log1p(V)  # roughly p − u
    p = np.clip(np.log(V / np.minimum(pull, 0.9 * V) - 1), low, high)
    for _ in range(4):
        e = np.exp(-np.abs(p))
        sigma = np.where(p > 0, e, 1.0) / (1 + e)
        value = p - V * sigma - u
        low, high = np.where(value < 0, p, low), np.where(value < 0, high, p)
        newton = p - value / (1 + V * e / (1 + e) ** 2)
        p = np.where((newton >= low) & (newton <= high), newton, 0.5 * (low + high))
    return p


def nodes_of(x: ClassifierState, count: int) -> _Nodes:
    """Integrate over proximal points, not margins: u = p − Vσ(−p) is explicit (trapezoid in t, p = p₀ + h sinh t).

    The nodes cluster where the label's probability changes, at u = 0 over a width of s.
    """
    root, V, s = np.sqrt(x.q), x.V, np.maximum(x.s, _TINY)
    lowest = np.where(x.flips > 0, root, s)  # without flips errors are as rare as noise beyond the signal
    centre, low, high = proximal(np.stack([0 * root, -_REACH * lowest, _REACH * root]), V)
    e = np.exp(-np.abs(centre))
    h = np.minimum(1.0, s / (1 + V * e / (1 + e) ** 2))
    start, stop = np.arcsinh((low - centre) / h), np.arcsinh((high - centre) / h)
    dt = (stop - start) / (count - 1)
    grow = np.exp(start[:, None] + dt[:, None] * np.arange(count))
    h = 0.5 * h[:, None]
    shrink = 1 / grow
    p = centre[:, None] + h * (grow - shrink)
    e = np.exp(np.clip(p, -300, 300))
    sigma = 1 / (1 + e)
    slope = e * sigma * sigma
    V = V[:, None]
    u = p - V * sigma
    measure = (1 + V * slope) * (grow + shrink) * (h * dt[:, None])
    z, zs = u / root[:, None], u / s[:, None]
    labels = label_probability(z, x.a[:, None], x.flips[:, None])
    labels *= np.exp(-0.5 * z * z)
    labels *= measure * (2 / ROOT_2PI / root)[:, None]
    measure *= np.exp(-0.5 * zs * zs)
    return _Nodes(p, u, sigma, slope, labels, measure / (ROOT_2PI * s)[:, None])


def _logistic(x: ClassifierState, count: int) -> Response:
    parts = []
    for rows in _blocks(len(x.m), count):
        part = x[rows]
        n = nodes_of(part, count)
        weighted = n.labels * n.sigma
        v = np.einsum("ij,ij->i", n.labels, n.slope / (1 + part.V[:, None] * n.slope))
        q, m = np.einsum("ij,ij->i", weighted, n.sigma), np.einsum("ij,ij->i", n.noise, n.sigma)
        parts.append((v, q, part.signal * m))
    return Response(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _blocks(rows: int, count: int) -> list[slice]:
    """Cut rows into blocks whose temporaries stay in the processor's cache."""
    size = max(1, _CACHED // count)
    return [slice(i, i + size) for i in range(0, rows, size)]


def _softplus_mean(x: ClassifierState, fresh: bool) -> Floats:
    """Return E_p[log(1 + e^{−p(u)})], or of the margins u of fresh points, with as many nodes as it takes."""
    out = np.full_like(x.m, np.inf)
    rows = np.arange(len(out))
    for count in (48, 96, 192, 384, 768):
        value = np.empty(len(rows))
        for block in _blocks(len(rows), count):
            n = nodes_of(x[rows[block]], count)
            value[block] = np.einsum("ij,ij->i", n.labels, np.logaddexp(0, -(n.u if fresh else n.p)))
        with np.errstate(invalid="ignore"):
            open_ = ~(np.abs(value - out[rows]) < _MEAN_TOLERANCE)
        out[rows] = value
        rows = rows[open_]
        if rows.size == 0:
            break
    return out


def log_loss(x: ClassifierState) -> Floats:
    """Return E_p[log(1 + e^{−u})] of fresh points."""
    return _softplus_mean(x._replace(V=np.zeros_like(x.V)), fresh=True)


@dataclass(frozen=True)
class Channel:
    """A loss by name: square, logistic, hinge or margin."""

    name: str

    @property
    def ladder(self) -> tuple[int, ...]:
        """Numbers of nodes of its integrals, coarse to fine; a single 0 where they are closed forms."""
        return (32, 64, 128, 256, 512, 1024) if self.name == "logistic" else (0,)

    def response(self, x: ClassifierState, count: int) -> Response:
        """Return v̂, q̂, m̂ per unit of α."""
        if self.name == "logistic":
            return _logistic(x, count)
        return {"square": _square, "hinge": _hinge, "margin": _margin}[self.name](x)

    def training(self, x: ClassifierState) -> TrainingScores:
        """Return what the readout does on its training points."""
        root, V = np.sqrt(x.q), x.V
        zero = np.zeros_like(V)
        if self.name == "square":
            w = 1 / (1 + V)
            loss, edge = 0.5 * w**2 * (1 - 2 * x.signal * x.m + x.q), -V
        elif self.name == "logistic":
            loss, edge = _softplus_mean(x, fresh=False), -0.5 * V
        elif self.name == "hinge":
            low = (1 - V) / root
            f0, f1, _ = moments_below(low, x.a, x.flips)
            loss, edge = (1 - V) * f0 - root * f1, np.minimum(-V, 1 - V)
        else:
            return TrainingScores(zero, zero)
        error = moments_below(edge / root, x.a, x.flips)[0]
        return TrainingScores(np.maximum(loss, 0.0), np.maximum(error, 0.0))
