"""Markov moves of independent chains under an umbrella: HMC with the Gaussian part exact."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcli.arrays import Floats, Indices, Singles
from tlcli.bayes.sampling.ladder import Ladder, Square
from tlcli.bayes.sampling.tilt import Tilt

STEPS = 8


@dataclass(eq=False)
class Chains:
    """State of the chains: z (M, r), s (M,), ∂s/∂z (M, r), group (M,) or None, step size and generator."""

    z: Singles
    s: Singles
    slope: Singles
    group: Indices | None
    step: float
    rng: np.random.Generator

    def refresh(self, tilt: Tilt, v: Singles) -> None:
        """Recompute s and its gradient after z or v has changed."""
        self.s, self.slope = tilt.slope(self.z, v, self.group)

    def flip(self) -> None:
        """Change the sign of a random half of the chains (exact for odd φ without offset); the force follows."""
        sign = np.where(self.rng.random(len(self.z)) < 0.5, np.float32(-1), np.float32(1))
        self.z *= sign[:, None]
        self.s *= sign
        # s(-z) = -s(z): its gradient is even, so the force needs no change; B' is recomputed from s at each move.


def start_chains(tilt: Tilt, v: Singles, z: Singles, group, step: float, rng: np.random.Generator) -> Chains:
    """Return chains at z (M, r)."""
    s, slope = tilt.slope(z, v, group)
    return Chains(z, s, slope, group, step, rng)


def hmc(tilt: Tilt, chains: Chains, v: Singles, gamma: float, umbrella: Ladder | Square | NDArray) -> float:
    """Move every chain once under prior × exp(B(γs)); return the mean acceptance probability.

    `umbrella` is a ladder, the tilt itself, or an array (M,) of fields a: B = at, t the statistic of the tilt. The
    trajectory alternates kicks by the force of B and exact rotations of the Gaussian part, with a step jittered per
    chain by 0.6-1.4.
    """
    rng, z, s = chains.rng, chains.z, chains.s

    def bias(at: Singles) -> tuple[Floats, Floats]:
        t, rate = tilt.statistic(gamma * at.astype(float))
        if isinstance(umbrella, np.ndarray):
            return umbrella * t, umbrella * rate
        value, slope = umbrella.bias(t, chains.group)
        return value, slope * rate

    size, rank = z.shape
    momentum = rng.standard_normal((size, rank), dtype=np.float32)
    angle = (chains.step * (0.6 + 0.8 * rng.random((size, 1)))).astype(np.float32)
    cos, sin, half = np.cos(angle), np.sin(angle), 0.5 * gamma * angle
    value, force = bias(s)
    before = value - 0.5 * (_square(z) + _square(momentum))
    x, slope, where = z, chains.slope, s
    momentum += (half * force[:, None].astype(np.float32)) * slope
    for k in range(STEPS):
        x, momentum = cos * x + sin * momentum, cos * momentum - sin * x
        where, slope = tilt.slope(x, v, chains.group)
        value, force = bias(where)
        kick = half if k == STEPS - 1 else 2 * half
        momentum += (kick * force[:, None].astype(np.float32)) * slope
    after = value - 0.5 * (_square(x) + _square(momentum))
    log_ratio = np.minimum(after - before, 0.0)
    accept = np.log(rng.random(size)) < log_ratio
    chains.z = np.where(accept[:, None], x, z)
    chains.slope = np.where(accept[:, None], slope, chains.slope)
    chains.s = np.where(accept, where, s)
    return float(np.exp(log_ratio).mean())


def _square(x: Singles) -> Floats:
    return np.einsum("ij,ij->i", x, x).astype(float)
