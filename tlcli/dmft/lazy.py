"""Kernels of the infinitely wide network at initialisation and its lazy training, γ → 0.

With w ~ N(0, I), a ~ N(0, 1) and h(x) = w·x/√D, the pair (h(x), h(y)) is Gaussian with covariance x·y/D, and

    Φ₀(x, y) = E φ(h(x)) φ(h(y)),   G₀(x, y) = E φ'(h(x)) φ'(h(y)),   Θ₀ = Φ₀ + (x·y/D) G₀,

as E a² = 1. For γ → 0 the network trains with the frozen kernel Θ₀. The expectations are closed forms for linear,
relu (arc-cosine, Cho & Saul 2009), erf (arcsine, Williams 1997), he2 and he3. For every other activation they are sums
over Hermite coefficients (Mehler's formula), which converge geometrically for smooth functions, at any correlation.
A quadrature in polar coordinates, whose arcs end where h(x) or h(y) changes sign, does what is left: functions with a
kink, and nearly parallel inputs so large that the function looks like a step.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import ArrayLike
from scipy import special
from scipy.integrate import solve_ivp

from tlcli.arrays import Flags, Floats
from tlcli.dmft.activations import ACTIVATIONS, Activation, activation
from tlcli.dmft.regression import FrozenKernel, force_scale, time_grid
from tlcli.errors import DomainError

Pair = tuple[Floats, Floats]

_DEGREES = 1024  # Hermite coefficients tried before the polar quadrature takes over
_TAIL = 1e-13  # part of E φ² that may be neglected, relative to it
_ORDERS = (24, 40, 64)  # nodes per arc and per radius, raised until two rules agree
_RADIUS = 9.0  # e^{−r²/2} is below rounding beyond
_POLAR_TOLERANCE = 1e-11
_BLOCK = 1 << 21  # elements of the largest temporary array


def initial_kernels(act: Activation, x: Floats, y: Floats) -> Pair:
    """Φ₀ = E φ(h)φ(h') and G₀ = E φ'(h)φ'(h') of a network at initialisation, each (n, m).

    x (n, D) and y (m, D) are inputs as the network sees them: h = w·x/√D with w ~ N(0, I), no further normalisation.
    Exact to rounding for linear, relu, erf, he2, he3; to about 1e-12 relative for other smooth activations; for a
    user's function to 1e-10 if its only kink is at 0 (about 0.1 ms per pair), and to about 1e-4 (Φ) and 5e-3 (G) with
    kinks elsewhere.
    Raises DomainError for inputs that are not finite or of different dimension.
    """
    x, y = _inputs(x), _inputs(y)
    if x.shape[1] != y.shape[1]:
        raise DomainError(f"inputs: dimensions {x.shape[1]} and {y.shape[1]} differ; both must be the same.")
    dim = x.shape[1]
    cross = x @ y.T / dim
    var_x, var_y = np.einsum("nd,nd->n", x, x) / dim, np.einsum("md,md->m", y, y) / dim
    return gaussian_kernels(act, var_x, var_y, cross, lambda: _angles(x, y))


def gaussian_kernels(
    act: Activation, var_x: Floats, var_y: Floats, cross: Floats, angles: Callable[[], Floats] | None = None
) -> Pair:
    """E φ(h)φ(h') and E φ'(h)φ'(h') (n, m) of Gaussians of variances var_x (n,), var_y (m,) and covariances `cross`.

    `angles` gives their angles (n, m) where they are known better than the arccosine of the correlation, which is good
    to 1e-8 only for parallel pairs. Accuracy as `initial_kernels`.
    """

    def arccosine() -> Floats:
        scale = np.sqrt(np.outer(var_x, var_y))
        rho = np.divide(cross, scale, out=np.zeros_like(cross), where=scale > 0)
        return np.arccos(np.clip(rho, -1.0, 1.0))

    angles = angles or arccosine
    closed = _closed_form(act.kind, var_x[:, None], var_y[None, :], cross)
    if closed is not None:
        return closed
    if act.kind == "relu":
        return _relu(var_x, var_y, angles())
    phi, slopes, accurate = _hermite_kernels(act, var_x, var_y, cross)
    if not accurate.all():
        i, j = np.nonzero(~accurate)
        phi[i, j], slopes[i, j] = _polar_kernels(act, np.sqrt(var_x[i]), np.sqrt(var_y[j]), angles()[i, j])
    return phi, slopes


def initial_ntk(act: Activation, x: Floats, y: Floats) -> Floats:
    """Neural tangent kernel Θ₀ (n, m) = Φ₀ + (x·y/D) G₀ between x (n, D) and y (m, D), both layers trained.

    Θ₀ does not depend on the richness γ. Accuracy and errors are those of `initial_kernels`.
    """
    phi, slopes = initial_kernels(act, x, y)
    x, y = _inputs(x), _inputs(y)
    return phi + x @ y.T / x.shape[1] * slopes


def lazy_solution(
    act: Activation,
    x: Floats,
    rows: ArrayLike,
    labels: Floats,
    times: ArrayLike,
    *,
    weight_decay: float = 0.0,
    reduction: str = "mean",
    kernel: Floats | None = None,
    depth: int = 1,
) -> Floats:
    """Predictions f (n_times, n) of the lazy network, γ → 0, trained from f = 0 by gradient flow.

    x (n, D) holds every point of interest, `rows` (P,) the indices of the training points among them, `labels` (P,)
    their labels. `times` (any order, infinity allowed) are in units of the mean loss (1/2P) Σ Δ² or, for `reduction`
    "sum", of ½ Σ Δ². Without weight decay

        df/dt = s Θ₀(·, X) (y − f(X)),   s = 1/P (mean) or 1 (sum).

    Weight decay shrinks the initial weights themselves, w, a ∝ e^{−λt}, and with them the kernel: for a homogeneous
    activation Θ(t) = e^{−2λt} Θ₀ and df/dt = s Θ(t)(·, X) Δ − 2λ f, solved here mode by mode; f → 0 for t → ∞. For
    other activations the kernel then depends on two times and is not supported. With L = `depth` hidden layers
    Θ(t) = e^{−2Lλt} Θ₀ and f decays at (L + 1)λ; `kernel` (n, P) is then Θ₀ between all points and the training points.

    Raises DomainError: weight decay with an activation that is not homogeneous, or sizes or values that do not fit.
    """
    if not (np.isfinite(weight_decay) and weight_decay >= 0):
        raise DomainError(f"weight decay = {weight_decay:g} must be finite and at least 0.")
    if weight_decay > 0 and not act.homogeneous:
        allowed = " or ".join(name for name in ACTIVATIONS if activation(name).homogeneous)
        raise DomainError(
            f"weight decay = {weight_decay:g} in the lazy limit needs a homogeneous activation ({allowed}): the "
            f"kernel of '{act.name}' changes its shape as the initial weights decay; use weight decay 0."
        )
    x, rows = _inputs(x), np.asarray(rows, dtype=np.intp)
    if rows.ndim != 1 or rows.size == 0 or rows.min() < 0 or rows.max() >= len(x):
        raise DomainError(f"training rows must be a list of indices between 0 and {len(x) - 1}.")
    points = initial_ntk(act, x, x[rows]) if kernel is None else kernel
    frozen = FrozenKernel(points[rows])
    if weight_decay == 0:
        return frozen.predict(points, labels, time=times, reduction=reduction)
    s, grid = force_scale(reduction, rows.size), time_grid(times)
    residual = frozen.labels(labels)
    rates = s * frozen.eigenvalues
    if depth == 1:
        weights = _decaying_weights(rates, s, weight_decay, grid)
    else:
        weights = _deep_decaying_weights(rates, s, weight_decay, depth, grid)
    return (weights * (residual @ frozen.eigenvectors)) @ (points @ frozen.eigenvectors).T


def _deep_decaying_weights(rate: Floats, s: float, decay: float, depth: int, times: Floats) -> Floats:
    """Weights c (n_times, P) as `_decaying_weights` with dc/dt = e^{−2Lλt}(s − rate c) − (L + 1)λ c, integrated."""
    out = np.zeros((times.size, rate.size))
    finite = np.isfinite(times)  # t = ∞: everything has decayed
    if not np.any(times[finite] > 0):
        return out

    def velocity(t: float, c: Floats) -> Floats:
        return np.exp(-2 * depth * decay * t) * (s - rate * c) - (depth + 1) * decay * c

    end, line = float(times[finite].max()), np.unique(times[finite])
    found = solve_ivp(velocity, (0.0, end), np.zeros(rate.size), method="LSODA", t_eval=line, rtol=1e-9, atol=1e-12)
    out[finite] = found.y.T[np.searchsorted(line, times[finite])]
    return out


def _decaying_weights(rate: Floats, s: float, decay: float, times: Floats) -> Floats:
    """Weights c (n_times, P) with f = Σ_k c_k Θ₀(·, X) v_k (v_k·y) under weight decay; `rate` = s κ (P,).

    g = e^{−2λt} u turns dg/dt = rate e^{−2λt}(y − g) − 2λ g into du/dt = rate (y − e^{−2λt} u); in q = e^{−2λt} and
    b = rate/2λ its solution is u = b y [S(bq) − e^{−b(1−q)} S(b)] with S(z) = e^z E₁(z) = U(1, 1, z) (DLMF 13.6.6).
    """
    q, lost = np.exp(-2 * decay * times)[:, None], -np.expm1(-2 * decay * times)[:, None]
    b = np.broadcast_to(rate / (2 * decay), (times.size, rate.size))
    out = np.zeros(b.shape)
    # t = ∞ is q = 0, where everything has decayed; below b = 1e-12 the force is too weak to act back, u = s t y.
    live = np.broadcast_to((q > 0) & (q < 1), b.shape)
    full, late = special.hyperu(1, 1, np.maximum(b, 1e-300)), special.hyperu(1, 1, np.maximum(b * q, 1e-300))
    learned = (late - np.exp(-b * lost) * full) * s / (2 * decay)
    free = np.broadcast_to(s * np.where(np.isfinite(times), times, 0.0)[:, None], b.shape)
    np.copyto(out, np.where(b > 1e-12, learned, free) * q, where=live)
    return out


def _inputs(x: Floats) -> Floats:
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] == 0:
        raise DomainError(f"inputs of shape {x.shape} must be points x dimensions.")
    if not np.all(np.isfinite(x)):
        raise DomainError("inputs contain values that are not finite; every component must be a number.")
    return x


# --- closed forms ---


def _closed_form(kind: str, a: Floats, b: Floats, c: Floats) -> Pair | None:
    """Φ₀ and G₀ of the activations that have them in terms of a = E h² (n, 1), b = E h'² (1, m), c = E h h' (n, m)."""
    excess = 0.5 * (a - 1) * (b - 1)
    match kind:
        case "linear":
            return c, np.ones_like(c)
        case "erf":
            product = (1 + 2 * a) * (1 + 2 * b)
            return (2 / np.pi) * np.arcsin(2 * c / np.sqrt(product)), (4 / np.pi) / np.sqrt(product - 4 * c * c)
        case "he2":
            return c * c + excess, 2 * c
        case "he3":
            return c**3 + 3 * c * excess, 3 * (c * c + excess)
    return None


def _relu(var_x: Floats, var_y: Floats, angle: Floats) -> Pair:
    """Arc-cosine kernels of degree 1 and 0; relu'(0) = 0, so that a zero input has no slope."""
    scale = np.sqrt(np.outer(var_x, var_y))
    phi = scale * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
    return phi, np.where(scale > 0, (np.pi - angle) / (2 * np.pi), 0.0)


def _angles(x: Floats, y: Floats) -> Floats:
    """Angles (n, m) in [0, π] between the rows of x and y, to rounding also for equal points; π/2 with a zero row."""
    norms = [np.linalg.norm(z, axis=1) for z in (x, y)]
    u, v = (z / np.where(norm > 0, norm, 1.0)[:, None] for z, norm in zip((x, y), norms, strict=True))
    cosine = u @ v.T
    angle = np.arccos(np.clip(cosine, -1, 1))
    # arccos loses half the digits near ±1: there, twice the arctangent of |u − v| / |u + v| (Kahan).
    rows, columns = np.nonzero(np.abs(cosine) > 1 - 1e-3)
    step = max(1, _BLOCK // x.shape[1])
    for start in range(0, rows.size, step):
        i, j = rows[start : start + step], columns[start : start + step]
        apart, together = np.linalg.norm(u[i] - v[j], axis=1), np.linalg.norm(u[i] + v[j], axis=1)
        angle[i, j] = 2 * np.arctan2(apart, together)
    return angle


# --- smooth activations: Mehler's formula ---


@lru_cache(maxsize=1)
def _hermite_table() -> Pair:
    """Trapezoid nodes z (q,) and weights·he_k(z)·e^{−z²/2}/√(2π) (K, q) of the normalised Hermite polynomials.

    The trapezoid rule converges geometrically for functions analytic around the real line, at any degree.
    """
    spacing = 0.02
    z: Floats = spacing * np.arange(-650, 651, dtype=np.float64)
    # he_k e^{−z²/4} stays of order one, so that no degree overflows.
    table = np.empty((_DEGREES, z.size))
    table[0] = np.exp(-z * z / 4)
    table[1] = z * table[0]
    for k in range(1, _DEGREES - 1):
        table[k + 1] = (z * table[k] - np.sqrt(k) * table[k - 1]) / np.sqrt(k + 1)
    table *= spacing / np.sqrt(2 * np.pi) * np.exp(-z * z / 4)
    return z, table


def _hermite_kernels(act: Activation, var_x: Floats, var_y: Floats, cross: Floats) -> tuple[Floats, Floats, Flags]:
    """Φ₀ and G₀ (n, m) as Σ_k c_k(x) c_k(y) ρ^k, c_k(x) = E φ(√a z) he_k(z), and which pairs (n, m) are accurate.

    What K terms leave out of a pair is at most |ρ|^K (tail of x · tail of y)^{1/2}, with tails of E φ² by Parseval.
    """
    variances, inverse = np.unique(np.concatenate([var_x, var_y]), return_inverse=True)
    ix, iy = inverse[: var_x.size], inverse[var_x.size :]
    scale = np.sqrt(np.outer(var_x, var_y))
    rho = np.clip(np.divide(cross, scale, out=np.zeros_like(cross), where=scale > 0), -1, 1)
    kernels, accurate = [], np.ones(rho.shape, dtype=bool)
    for which in (0, 1):
        found = _coefficients(which, act, variances)
        if found is None:
            return np.zeros_like(rho), np.zeros_like(rho), np.zeros_like(accurate)
        c, tail = found
        accurate &= np.abs(rho) ** c.shape[1] * np.sqrt(np.outer(tail[ix], tail[iy])) <= 10 * _TAIL
        kernels.append(_mehler_sum(c[ix], c[iy], rho))
    return kernels[0], kernels[1], accurate


def _mehler_sum(left: Floats, right: Floats, rho: Floats) -> Floats:
    """Σ_k left[i, k] right[j, k] ρ[i, j]^k by Horner's rule, in blocks that stay in cache during all degrees."""
    out = np.empty_like(rho)
    step = max(1, (_BLOCK >> 5) // max(1, len(right)))
    used = np.any(left, axis=0) & np.any(right, axis=0)
    for start in range(0, len(left), step):
        block = slice(start, start + step)
        total = np.zeros_like(rho[block])
        for k in range(left.shape[1] - 1, -1, -1):
            total *= rho[block]
            if used[k]:
                total += np.multiply.outer(left[block, k], right[:, k])
        out[block] = total
    return out


def _coefficients(which: int, act: Activation, variances: Floats) -> tuple[Floats, Floats] | None:
    """Hermite coefficients (v, K) of φ (which = 0) or φ' (1) at h = √variance z, cut where they are negligible.

    With them the neglected fraction (v,) of E φ². None if half the nodes give other values: the function has a kink.
    """
    z, table = _hermite_table()
    values = np.asarray(act.both(np.sqrt(variances)[:, None] * z)[which], dtype=np.float64)
    c = values @ table.T
    power = values**2 @ table[0]  # E φ²
    scale = np.where(power > 0, power, 1.0)
    low = 256  # of higher degrees, the coarse rule would not resolve the polynomials
    coarse = values[:, ::2] @ table[:low, ::2].T
    # The error of the rule is squared when its spacing is halved if φ is analytic, so that 1e-7 here means 1e-14.
    if not np.all(np.abs(c[:, :low] - 2 * coarse) <= 1e-7 * np.sqrt(scale)[:, None]):
        return None
    tails = np.cumsum(c[:, ::-1] ** 2, axis=1)[:, ::-1] / scale[:, None]
    missing = np.maximum(power / scale - tails[:, 0], 0.0)
    needed = np.nonzero(np.any(tails > _TAIL, axis=0))[0]
    c = c[:, : (needed[-1] + 1 if needed.size else 1)].copy()
    c[np.abs(c) < 1e-16 * np.sqrt(scale)[:, None]] = 0.0
    return c, missing + _TAIL


# --- any activation: quadrature in polar coordinates ---


def _polar_kernels(act: Activation, a: Floats, b: Floats, theta: Floats) -> Floats:
    """Φ₀ and G₀ (2, pairs) of pairs with standard deviations a, b (pairs,) and correlation cos θ.

    E F(h, h') = ∫dt ∫r dr e^{−r²/2} F/2π over the two arcs of a half plane between sign changes, for ±(h, h').
    """
    results = np.zeros((2, theta.size))
    pending = np.arange(theta.size)
    for order in _ORDERS:
        new = np.empty((2, pending.size))
        step = max(1, _BLOCK // (2 * order * order))
        for start in range(0, pending.size, step):
            at = pending[start : start + step]
            new[:, start : start + step] = _polar_rule(act, a[at], b[at], theta[at], order)
        change = np.abs(new - results[:, pending]) > _POLAR_TOLERANCE * np.maximum(1.0, np.abs(new))
        results[:, pending] = new
        pending = pending[change.any(axis=0)] if order > _ORDERS[0] else pending
        if not pending.size:
            break
    return results


def _polar_rule(act: Activation, a: Floats, b: Floats, theta: Floats, order: int) -> Floats:
    """The two expectations (2, pairs) with `order` Gauss–Legendre nodes on each arc and on 0 < r < 9."""
    nodes, weights = legendre.leggauss(order)
    nodes, weights = (nodes + 1) / 2, weights / 2
    r = _RADIUS * nodes
    radial = _RADIUS * weights * r * np.exp(-r * r / 2) / (2 * np.pi)
    total = np.zeros((2, theta.size))
    # On the first arc, of width θ, h and h' have opposite signs, on the second, of width π − θ, the same sign.
    for width, sign in ((theta, -1.0), (np.pi - theta, 1.0)):
        tau = width[:, None] * nodes
        h = (a[:, None] * np.sin(tau))[:, :, None] * r
        g = (sign * b[:, None] * np.sin(width[:, None] - tau))[:, :, None] * r
        for s in (1.0, -1.0):
            for k, (left, right) in enumerate(zip(act.both(s * h), act.both(s * g), strict=True)):
                total[k] += width * (((np.asarray(left) * np.asarray(right)) @ radial) @ weights)
    return total
