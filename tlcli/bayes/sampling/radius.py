"""Moments of a radius that is integrated out along a direction, for homogeneous activations around a source neuron.

Along a unit vector û a neuron's weights ρû, in units in which their base is N(μ, I) in r dimensions, have the density
ρ^(r-1) exp(pρ - ½cρ²) with p = μ·û and c = 1 - γ²s(û)². With J_k(m) = ∫₀^∞ t^k exp(mt - ½t²)dt and m = p/√c

    ∫ = c^(-r/2) J_(r-1)(m),  E ρ² = J_(r+1)/(c J_(r-1)),  E ρ⁴ = J_(r+3)/(c² J_(r-1))

and the ratios R_k = J_(k+1)/J_k obey R_k = m + k/R_(k-1). So the dual of a pool of directions grows like p²/2c where v
comes near the edge of its domain, c = 0, as the exact one does; that of a pool of weights does not see the edge.
"""

import numpy as np
from scipy.special import erfcx, log_ndtr

from tlcli.arrays import Floats

# Upwards an error grows by exp(2|m|√k) for m < 0, downwards it falls by as much: where the directions change, and how
# far beyond the order the second one starts.
_UP, _DOWN = 6.0, 7.0


def radial(rank: int, c: Floats, p: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the log of the integral over that at c = 1, E ρ² and E ρ⁴ at c > 0 and p, arrays of one shape."""
    log_j, ratios = _moments(rank - 1, (p / np.sqrt(c)).ravel())
    base, _ = _moments(rank - 1, p.ravel())
    square = (ratios[0] * ratios[1]).reshape(c.shape) / c
    fourth = square * (ratios[2] * ratios[3]).reshape(c.shape) / c
    return (log_j - base).reshape(c.shape) - 0.5 * rank * np.log(c), square, fourth


def _moments(order: int, m: Floats) -> tuple[Floats, Floats]:
    """Return log J_order (n,) and R_order to R_(order+3) (4, n) at m (n,)."""
    log_j, ratios = np.empty_like(m), np.empty((4, len(m)))
    edge = -_UP / np.sqrt(order + 1)
    for at, part in ((m >= edge, _upwards), (m < edge, _downwards)):
        if at.any():
            log_j[at], ratios[:, at] = part(order, m[at])
    return log_j, ratios


def _first(m: Floats) -> Floats:
    """Return log J_0, without overflow above zero and without cancellation below."""
    below = np.log(np.sqrt(0.5 * np.pi) * erfcx(-np.minimum(m, 0.0) / np.sqrt(2)))
    return np.where(m < 0, below, 0.5 * np.log(2 * np.pi) + 0.5 * m**2 + log_ndtr(m))


def _upwards(order: int, m: Floats) -> tuple[Floats, Floats]:
    log_j = _first(m)
    ratio = m + np.exp(-log_j)
    kept = [ratio]
    for k in range(1, order + 4):
        if k <= order:
            log_j = log_j + np.log(ratio)
        ratio = m + k / ratio
        kept = [*kept[-3:], ratio]
    return log_j, np.stack(kept)


def _downwards(order: int, m: Floats) -> tuple[Floats, Floats]:
    size = order + 4
    last = int(np.ceil((np.sqrt(size) * (1 + _DOWN / _UP)) ** 2)) + 10
    ratio = 0.5 * (m + np.sqrt(m**2 + 4 * last + 2))
    log_j, kept = _first(m), []
    for k in range(last, 0, -1):
        ratio = k / (ratio - m)
        if order <= k - 1 < size:
            kept.append(ratio)
        elif k - 1 < order:
            log_j = log_j + np.log(ratio)
    return log_j, np.stack(kept[::-1])
