"""Where the tilt exp(½γ²(v·φ(Bz))²) can be normalised: growth of an activation along rays and the steepest ray.

Along z = ru the exponent is ½γ²s(ru)² - ½(1+δ)r². It is bounded if γ²s∞(u)² < 1 + δ for every unit vector u, with
s∞ = v·φ∞(Bu) and φ∞ the slopes of φ at ±∞; a φ that grows faster than linearly has no normalisable tilt at all.
"""

import numpy as np

from tlcli.arrays import Floats
from tlcli.dmft.activations import Activation

_NEAR, _FAR = 1e4, 1e7


def _at(act: Activation, h: float) -> Floats:
    """φ(h) and φ(-h), infinite where they overflow."""
    with np.errstate(all="ignore"):
        values = np.asarray(act.phi(np.array([h, -h])), dtype=float)
    return np.where(np.isnan(values), np.inf, values)


def outer_slopes(act: Activation) -> tuple[float, float]:
    """Slopes of φ at ∞ and at -∞; zero for bounded activations."""
    slopes = _at(act, _FAR) / _FAR * [1.0, -1.0]
    slopes[np.abs(slopes) < 1e-5] = 0.0
    return float(slopes[0]), float(slopes[1])


def asymptote(act: Activation, h: Floats) -> Floats:
    """φ∞(h) = lim φ(ch)/c, of the shape of h; zero for bounded activations."""
    right, left = outer_slopes(act)
    return np.where(h > 0, right * h, left * h)


def steepest_ray(act: Activation, directions: Floats, v: Floats) -> tuple[Floats, float]:
    """Return the unit vector u (r,) with the largest s∞(u)² and that value (0 for bounded activations or r = 0).

    `directions` is B (P, r) with r <= 2 and `v` (P,), or (P, K), whose s∞² are summed. For activations that grow faster
    than linearly u is the ray with the largest |v·φ(Bru)| at a large r, and the value is infinite.
    """
    rank = directions.shape[1]
    if rank == 0:
        return np.zeros(0), 0.0
    angle = np.linspace(0, 2 * np.pi, 4097)[:-1]
    if rank == 2:  # the largest slope may sit at a kink
        kinks = np.arctan2(directions[:, 1], directions[:, 0])[:, None] + np.array([0.5, -0.5]) * np.pi
        angle = np.append(angle, kinks)
    u = np.array([[1.0], [-1.0]]) if rank == 1 else np.stack([np.cos(angle), np.sin(angle)], axis=1)
    fast = not act.lipschitz
    with np.errstate(all="ignore"):
        s = (act.phi(_NEAR * (u @ directions.T)) if fast else asymptote(act, u @ directions.T)) @ v
    size = s**2 if s.ndim == 1 else np.sum(s**2, axis=1)
    best = int(np.argmax(size))
    return u[best], np.inf if fast else float(size[best])


def direction_words(basis: Floats, u: Floats) -> str:
    """Write the direction of input space that belongs to u (r,): (D, r) basis times u, at most six entries."""
    full = basis @ u
    words = ", ".join(f"{value:.3g}" for value in full[:6] + 0.0)
    return f"({words}{', ...' if len(full) > 6 else ''})"
