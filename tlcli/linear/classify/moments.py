"""Gaussian moments below a threshold, weighted by the probability of a label (docs/averages.md, Section 2).

The margin u = y f of a fresh point has the density p(u) = 2 N(u; 0, q) Q(u/√q), Q(z) = f + (1 − 2f) Φ(a z): f is the
share of flipped labels, a > 0 how far the prediction determines the label.
"""

import numpy as np
from scipy.special import ndtr, owens_t

from tlcli.arrays import Flags, Floats

ROOT_2PI = np.sqrt(2 * np.pi)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)
_FAR = 40.0  # standard deviations
_STEEP, _NEAR, _REACH = 4.0, 3.0, 9.0  # steps so steep are integrated, up to these standard deviations
_NARROW = 0.5  # intervals below it are integrated: a difference of two moments would cancel


def density(z: Floats) -> Floats:
    """Return the standard normal density."""
    return np.exp(-0.5 * z * z) / ROOT_2PI


def label_probability(z: Floats, a: Floats, flips: Floats) -> Floats:
    """Return Q(z), the probability that a point of standardised margin z has the label that it is said to have."""
    return flips + (1 - 2 * flips) * ndtr(a * z)


def moments_below(h: Floats, a: Floats, flips: Floats) -> tuple[Floats, Floats, Floats]:
    """Return F₀, F₁, F₂ with F_i = ∫_{−∞}^h 2φ(z) Q(z) zⁱ dz; all arguments broadcast."""
    h = np.clip(h, -_FAR, _FAR)  # all the same there, and 0·∞ has no value
    phi, cumulative = density(h), ndtr(h)
    e2 = 1 + a * a
    e = np.sqrt(e2)
    steep = 2 * phi * ndtr(a * h)
    h0 = cumulative - 2 * owens_t(h, a)
    h1 = -steep + np.sqrt(2 / np.pi) * a / e * ndtr(h * e)
    h2 = h * -steep + h0 - a / (e2 * np.pi) * np.exp(-0.5 * h * h * e2)
    both = 2 * flips
    one = 1 - both
    return both * cumulative + one * h0, one * h1 - both * phi, both * (cumulative - h * phi) + one * h2


def moments_between(low: Floats, high: Floats, a: Floats, flips: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the same integrals from `low` (−inf allowed) to `high`, without cancellation (all arrays (n,))."""
    first, second = moments_below(high, a, flips), moments_below(np.maximum(low, -_FAR), a, flips)
    out = [x - np.where(low > -_FAR, y, 0.0) for x, y in zip(first, second, strict=True)]
    width = high - low
    narrow = (width < _NARROW) & (width * a < 2 * _NARROW)
    if np.any(narrow):
        _integrate(out, narrow, low, high, a, flips)
    steep = ~narrow & (a > _STEEP) & (high < _NEAR) & (flips == 0)
    if np.any(steep):
        # All of the weight lies beyond a step of width 1/a at zero.
        edge = _REACH / a
        parts = [np.zeros_like(a) for _ in out]
        _integrate(parts, steep, np.maximum(low, -edge), np.minimum(high, edge), a, flips)
        rest = [np.zeros_like(a) for _ in out]
        beyond = steep & (high > edge)
        _integrate(rest, beyond, np.maximum(low, edge), high, a, flips)
        for i, (part, more) in enumerate(zip(parts, rest, strict=True)):
            out[i][steep] = (part + more)[steep]
    return out[0], out[1], out[2]


def _integrate(out: list[Floats], at: Flags, low: Floats, high: Floats, a: Floats, flips: Floats) -> None:
    """Put the three integrals from low to high by Gauss's rule into some rows of `out`."""
    half = 0.5 * np.maximum(high - low, 0.0)[at, None]
    z = low[at, None] + half * (1 + _NODES)
    value = 2 * density(z) * label_probability(z, a[at, None], flips[at, None]) * _WEIGHTS * half
    for power in range(3):
        out[power][at] = np.sum(value, axis=1)
        value = value * z
