"""Slaved population: N neurons whose v = (Φ_N + I/β)⁻¹y follows them, a discretised mean-field Langevin flow.

It is the flow of the strictly convex KL(μ | prior) + ½γ²yᵀ(Φ[μ] + I/β)⁻¹y; it comes near the saddle, but cannot certify
how mass is divided between lobes: it only gives the umbrella its first v.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcli.bayes.population.tilt import Singles, Tilt
from tlcli.errors import ConvergenceError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Slaved:
    """Where the flow ended: mean v (P,), the population z (N, r), the largest |γs| and the balance γ²Es²/saddle."""

    v: Floats
    z: Singles
    largest: float
    balance: float


def slaved(
    tilt: Tilt, labels: Floats, gamma: float, beta: float, rng: np.random.Generator, *, size: int, group=None
) -> Slaved:
    """Run the flow, γ annealed from 0.15γ over the first half; halve the step until γ²Es² fits its saddle value to 6 %.

    Raises:
        ConvergenceError: it does not fit after five halvings.
    """
    points, rank = tilt.b.shape
    step = 0.12 * min(1.0, np.sqrt(100 / points))
    start = rng.standard_normal((size, rank), dtype=np.float32)
    balance = np.inf
    for _ in range(5):
        found = _flow(tilt, labels, gamma, beta, rng, start, step, group)
        balance = found.balance
        if abs(balance - 1) < 0.06:
            return found
        step *= 0.5
    raise ConvergenceError(
        f"the first population did not settle (gamma^2 E s^2 is {balance:.3g} times its saddle value): "
        "use a smaller gamma or beta, or more neurons."
    )


def _flow(tilt: Tilt, labels: Floats, gamma: float, beta: float, rng, z: Singles, step: float, group) -> Slaved:
    steps, trajectories = 8, int(80 * 0.12 / step)
    points = len(labels)
    identity = np.eye(points) / beta
    cos, sin = np.float32(np.cos(step)), np.float32(np.sin(step))
    means: list[Floats] = []
    balances: list[float] = []
    largest = 0.0

    def force(at: Singles, g: float) -> tuple[Singles, Floats, Singles]:
        h = tilt.preactivations(at, group)
        φ, dφ = tilt.both(h)
        v = np.linalg.solve((φ.T @ φ).astype(float) / len(at) + identity, labels)
        single = v.astype(np.float32)
        s = φ @ single
        dφ *= single
        dφ *= (np.float32(g**2) * s)[:, None]
        return dφ @ tilt.b, np.asarray(v, dtype=np.float64), s

    for n in range(trajectories):
        g = gamma * min(1.0, 0.15 + 0.85 * 2 * n / trajectories)
        momentum = rng.standard_normal(z.shape, dtype=np.float32)
        kick, v, s = force(z, g)
        momentum += np.float32(step / 2) * kick
        for k in range(steps):
            z, momentum = cos * z + sin * momentum, cos * momentum - sin * z
            kick, v, s = force(z, g)
            momentum += np.float32(step if k < steps - 1 else step / 2) * kick
        if n >= 0.6 * trajectories:
            means.append(v)
            square = (gamma * s.astype(float)) ** 2
            balances.append(float(square.mean()))
            largest = max(largest, float(np.sqrt(square.max())))
    mean = np.mean(means, axis=0)
    # v follows the population, so the average of γ²Es² over the run is compared with the saddle value of the average v.
    saddle = gamma**2 * float(mean @ labels - mean @ mean / beta)
    measured = _mean_square(tilt, z, mean, gamma, group)
    return Slaved(mean, z, largest, measured / saddle if saddle > 0 else 1.0)


def _mean_square(tilt: Tilt, z: Singles, v: Floats, gamma: float, group) -> float:
    s = tilt.project(z, v.astype(np.float32), group).astype(float)
    return float(gamma**2 * np.mean(s**2))
