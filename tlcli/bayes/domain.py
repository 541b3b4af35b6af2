"""Whether the tilt exp(½γ²(v·φ(Bz))²) of a standard Gaussian z can be normalised, at any input rank.

Along z = ρu the exponent grows like ½ρ²(γ²s∞(u)² - 1) with s∞(u) = v·φ∞(Bu), φ∞(h) = lim φ(ch)/c. It is bounded if
γ²s∞(u)² < 1 for every unit vector u; for φ homogeneous of degree 1 the integral diverges where it is above 1. A φ
that grows faster than linearly has no normalisable tilt at all (γ > 0, v ≠ 0).
"""

import numpy as np

from tlcli.arrays import Floats
from tlcli.bayes.quadrature.tilt import direction_words, outer_slopes
from tlcli.dmft.activations import Activation
from tlcli.errors import DomainError

_STARTS, _STEPS, _FIRST, _KEPT = 256, 120, 40, 32


def normalisable(act: Activation, directions: Floats, v: Floats, gamma: float) -> tuple[bool, Floats, float]:
    """Return (whether the tilt is normalisable, the steepest unit vector u (r,), γ²s∞(u)²).

    Args:
        act: activation.
        directions: B, (P, r): preactivations of z are Bz, z standard Gaussian.
        v: dual variable, (P,).
        gamma: richness.

    The maximum over u is searched by ascent of |s∞| on the sphere, with a step of its own for each of 256 fixed starts
    and the ±rows of B. s∞ is neither convex nor smooth where v has both signs: its maximum may lie on a kink, and a
    step that does not ascend is halved. Infinite for activations that grow faster than linearly.
    """
    rank = directions.shape[1]
    if not act.lipschitz:
        u = directions.T @ v
        return gamma == 0 or not np.any(v), _unit(u), 0.0 if gamma == 0 or not np.any(v) else np.inf
    u, values = steep_directions(act, directions, v, gamma)
    if not len(u):
        return True, np.zeros(rank), 0.0
    return bool(values[0] < 1.0), u[0], float(values[0])


def steep_directions(
    act: Activation, directions: Floats, v: Floats, gamma: float, near: Floats | None = None
) -> tuple[Floats, Floats]:
    """Return local maxima u (k, r) of γ²s∞(u)² on the unit sphere, steepest first, and their values (k,).

    Arguments as in `normalisable`; `near` are further starting points (k, r) of the search, such as states of chains.
    k = 0 for bounded activations. φ must not grow faster than linearly.
    """
    rank = directions.shape[1]
    right, left = outer_slopes(act)
    if rank == 0 or right == left == 0:
        return np.zeros((0, rank)), np.zeros(0)
    start = np.random.default_rng(0).standard_normal((_STARTS, rank))
    more = [] if near is None else [near]
    u = _rows(
        np.concatenate([start, directions, -directions, directions.T[None] @ v, -(directions.T[None] @ v), *more])
    )

    def size_and_slope(at: Floats) -> tuple[Floats, Floats]:
        h = at @ directions.T
        s = np.where(h > 0, right * h, left * h) @ v
        # At a kink, h = 0, the slope counts as zero.
        slopes = np.where(h > 0, right, np.where(h < 0, left, 0.0))
        return np.abs(s), np.sign(s)[:, None] * (slopes * v @ directions)

    value, slope = size_and_slope(u)
    step = np.ones(len(u))
    for n in range(_STEPS):
        tangent = slope - np.einsum("ij,ij->i", slope, u)[:, None] * u
        trial = _rows(u + step[:, None] * tangent / np.maximum(value, 1e-300)[:, None])
        reached, there = size_and_slope(trial)
        better = reached > value
        u, slope = np.where(better[:, None], trial, u), np.where(better[:, None], there, slope)
        value, step = np.maximum(value, reached), np.where(better, np.minimum(1.5 * step, 2.0), 0.4 * step)
        if n == _FIRST:  # the best ones go on
            kept = np.argsort(value)[-_KEPT:]
            u, value, slope, step = u[kept], value[kept], slope[kept], np.full(len(kept), 0.1)
    for near_kink in (0.1, 0.03, 0.01, 0.003, 0.001):
        for j in range(len(u)):
            trial = _along_kinks(directions, u[j], slope[j], near_kink)
            reached, there = size_and_slope(trial[None])
            if reached[0] > value[j]:
                u[j], value[j], slope[j] = trial, reached[0], there[0]
    order = np.argsort(-value)
    return u[order], (gamma * value[order]) ** 2


def _along_kinks(directions: Floats, u: Floats, slope: Floats, near: float) -> Floats:
    """Return where |s∞|, linear along the kinks h_μ = 0 that u nearly lies on, is largest on them, as a unit vector."""
    h = directions @ u
    on = np.abs(h) < near * np.linalg.norm(directions, axis=1)
    if not on.any():
        return _unit(slope)
    rows = directions[on]
    return _unit(slope - np.linalg.lstsq(rows, rows @ slope, rcond=None)[0])


def refuse_growth(act: Activation, directions: Floats, labels: Floats, gamma: float, basis: Floats) -> None:
    """Refuse activations whose tilt has no normalisation at any richness.

    Raises:
        DomainError: φ grows faster than linearly and γ > 0; a direction of input space, (D, r) `basis` times u, is
        named.
    """
    if gamma > 0 and np.any(labels) and not act.lipschitz:
        _, u, _ = normalisable(act, directions, labels, gamma)
        raise DomainError(
            f"gamma = {gamma:.6g}: {act.name} grows faster than linearly, so the posterior of the weights along the "
            f"input direction {direction_words(basis, u)} is not normalisable; the largest gamma that is, is 0."
        )


def refuse_tilt(act: Activation, directions: Floats, v: Floats, gamma: float, basis: Floats) -> None:
    """Refuse a v whose tilt is not normalisable.

    Raises:
        DomainError: it is not; the message names the direction and the largest richness that this v allows.
    """
    fine, u, steepness = normalisable(act, directions, v, gamma)
    if not fine:
        largest = gamma / np.sqrt(steepness) if np.isfinite(steepness) else 0.0
        raise DomainError(
            f"gamma = {gamma:.6g}: the posterior of the weights along the input direction {direction_words(basis, u)} "
            f"is not normalisable (gamma^2 s^2 = {steepness:.4g}, it must be below 1); the largest gamma for this v is "
            f"{largest:.4g}."
        )


def _rows(u: Floats) -> Floats:
    return u / np.maximum(np.linalg.norm(u, axis=1, keepdims=True), 1e-300)


def _unit(u: Floats) -> Floats:
    return u / max(float(np.linalg.norm(u)), 1e-300)
