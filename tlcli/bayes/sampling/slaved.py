"""Slaved particles: N neurons whose v = (Φ_N + I/β)⁻¹y follows them, a discretised mean-field Langevin flow.

Of other losses v is that of regression with the kernel Φ_N, κ = 1/β. It is the flow of the strictly convex
KL(μ | prior) + ½γ²yᵀ(Φ[μ] + I/β)⁻¹y; it comes near the saddle, but cannot certify
how mass is divided between lobes: it only gives the umbrella its first v.
"""

from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Floats, Singles
from tlcli.bayes.sampling.fits import SampledFit
from tlcli.bayes.sampling.tilt import Tilt
from tlcli.errors import ConvergenceError


@dataclass(frozen=True, eq=False)
class Slaved:
    """Where the flow ended: mean v (P,), the particles z (N, r), the largest |γs| and the balance γ²Es²/saddle."""

    v: Floats
    z: Singles
    largest: float
    balance: float


def slaved(
    tilt: Tilt,
    fit: SampledFit,
    gamma: float,
    rng: np.random.Generator,
    *,
    size: int,
    group=None,
    known: float | Floats = 0.0,
) -> Slaved:
    """Run the flow, γ annealed from 0.15γ over the first half; halve the step until γ²Es² fits its saddle value to 6 %.

    `known` (P, P) is a part of Φ that does not follow.

    Raises:
        ConvergenceError: it does not fit after five halvings.
    """
    step = 0.12 * min(1.0, np.sqrt(100 / fit.points))
    start = rng.standard_normal((size, tilt.rank), dtype=np.float32)
    balance = np.inf
    for _ in range(5):
        found = _flow(tilt, fit, gamma, rng, start, step, group, known)
        balance = found.balance
        if abs(balance - 1) < 0.06:
            return found
        step *= 0.5
    raise ConvergenceError(
        f"the first particles did not settle (gamma^2 E s^2 is {balance:.3g} times its saddle value): "
        "use a smaller gamma or beta, or more neurons."
    )


def _flow(tilt: Tilt, fit: SampledFit, gamma: float, rng, z: Singles, step: float, group, known) -> Slaved:
    steps, trajectories = 8, int(80 * 0.12 / step)
    v = fit.start()
    cos, sin = np.float32(np.cos(step)), np.float32(np.sin(step))
    means: list[Floats] = []
    balances: list[float] = []
    largest = 0.0

    def force(at: Singles, g: float, near: Floats) -> tuple[Singles, Floats, Singles]:
        φ, dφ = tilt.both(tilt.preactivations(at, group))
        now = following(tilt, φ, fit, g, near, known)
        single = now.astype(np.float32)
        s = φ @ single
        dφ *= single
        slope = dφ @ tilt.b
        u = g * s.astype(float)
        if tilt.sphere:
            slope = tilt.tangential(at, s, slope)
        return (g * u * tilt.stretch(u)[0]).astype(np.float32)[:, None] * slope, now, s

    for n in range(trajectories):
        g = gamma * min(1.0, 0.15 + 0.85 * 2 * n / trajectories)
        momentum = rng.standard_normal(z.shape, dtype=np.float32)
        kick, v, s = force(z, g, v)
        momentum += np.float32(step / 2) * kick
        for k in range(steps):
            z, momentum = cos * z + sin * momentum, cos * momentum - sin * z
            kick, v, s = force(z, g, v)
            momentum += np.float32(step if k < steps - 1 else step / 2) * kick
        if n >= 0.6 * trajectories:
            means.append(v)
            square = (gamma * s.astype(float)) ** 2
            balances.append(float(square.mean()))
            largest = max(largest, float(np.sqrt(square.max())))
    mean = np.mean(means, axis=0)
    if tilt.sphere:  # v is inside the domain of its particles whatever the step: nothing runs away
        return Slaved(mean, z, largest, 1.0)
    # v follows the particles, so the average of γ²Es² over the run is compared with the saddle value of the average v.
    φ = tilt.features(z, group)
    square = float(np.mean((φ @ mean.astype(np.float32)).astype(float) ** 2))
    of_known = np.zeros_like(mean) if isinstance(known, float) else known @ mean
    pull = (φ.T @ (φ @ mean)) / len(z) + of_known
    saddle = gamma**2 * (fit.product(mean, pull) - float(mean @ of_known))
    measured = gamma**2 * square
    return Slaved(mean, z, largest, measured / saddle if saddle > 0 else 1.0)


def following(
    tilt: Tilt, φ: Singles, fit: SampledFit, gamma: float, near: Floats, known: float | Floats = 0.0
) -> Floats:
    """Return v (P,) of equally weighted neurons with features φ (N, P): the maximum of their own dual.

    That is (Φ_N + I/β)⁻¹y; on the sphere Φ_N depends on v through the radii, and Newton steps from `near` (P,), kept
    inside the domain by backtracking, maximise γ²·value(v) - mean of the log tilt.
    """
    count = len(φ)
    if not tilt.sphere:
        return fit.regressed((φ.T @ φ).astype(float) / count, near, known)

    exact = φ.astype(float)

    def value(v: Floats) -> float:
        u = gamma * (exact @ v)
        # Most trial steps near the edge end outside: seen before any logarithm is taken.
        return float(fit.value(v) - tilt.exponent(u).mean() / gamma**2) if tilt.holds(u) else -np.inf

    v, now = near, value(near)
    while not np.isfinite(now):
        v = 0.9 * v
        now = value(v)
    for _ in range(20):
        u = gamma * (exact @ v)
        rho = tilt.stretch(u)[0]
        gradient = fit.outputs(v) - (rho * u) @ exact / (gamma * count)
        curved = φ * np.sqrt(rho * (1 + 2 * rho * u**2 / tilt.rank)).astype(np.float32)[:, None]
        curvature = (curved.T @ curved).astype(float) / count + np.diag(fit.bend(v))
        step = fit.within(v, gradient, curvature, _newton_step)[0]
        size, slope = 1.0, float(gradient @ step)
        if slope < 1e-5 * max(abs(now), 1e-300):
            break
        there = fit.moved(v, step)
        while (reached := value(there)) < now + 1e-4 * size * slope and size > 1e-3:
            size *= 0.5
            there = fit.moved(v, size * step)
        v, now = there, reached
    return v


def _newton_step(gradient: Floats, curvature: Floats) -> tuple[Floats, None]:
    return np.asarray(np.linalg.solve(curvature, gradient), dtype=float), None
