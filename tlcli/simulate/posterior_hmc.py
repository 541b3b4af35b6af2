"""Collapsed Hamiltonian Monte Carlo on the hidden weights of a finite network, its readout integrated out exactly.

With the labels' likelihood exp(-½βγ²N Σ(y - f)²) and a ~ N(0, I), y given W is N(0, M/(γ²N)), M = ΦᵀΦ/N + I/β over
features Φ (N, P) (docs/bayes.md, Section 2), so that

    U(W) = ½(1+δ)|W - αW̄|² + ½γ²N yᵀM⁻¹y + ½ log det M.

The Gaussian part is integrated exactly (a rotation), the rest by kicks: a lazy network moves freely.
"""

from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Floats
from tlcli.dmft.activations import Activation
from tlcli.errors import ConvergenceError

LEAPS = 8
GOAL = 0.8  # acceptance towards which the step is adapted during the burn-in
LONGEST = 0.25  # eight rotations by it make two radians, beyond a quarter of a period


@dataclass(frozen=True, eq=False)
class SampledStage:
    """The stage that is sampled.

    Attributes:
        act: activation.
        inputs: training inputs over √D in an orthonormal basis, (P, d).
        labels: (P,).
        gamma: richness.
        inverse_beta: 1/β.
        tightness: 1 + δ, the precision of the prior.
        mean: prior mean αW̄ of the weights, (R, N, d).
    """

    act: Activation
    inputs: Floats
    labels: Floats
    gamma: float
    inverse_beta: float
    tightness: float
    mean: Floats

    def gram(self, φ: Floats) -> Floats:
        """M = φᵀφ/N + I/β of features (R, N, P), (R, P, P)."""
        return np.swapaxes(φ, 1, 2) @ φ / φ.shape[1] + self.inverse_beta * np.eye(len(self.labels))

    def energy_and_force(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return U without its Gaussian part, (R,), and its gradient with respect to the weights (R, N, d)."""
        φ, slope = self.act.both(weights @ self.inputs.T)
        width = weights.shape[1]
        M = self.gram(φ)
        try:
            inverse = np.linalg.inv(M)
        except np.linalg.LinAlgError:
            raise ConvergenceError(
                f"the features of {width} neurons on {len(self.labels)} training points are linearly dependent: use a "
                "finite beta or a larger width."
            ) from None
        v = inverse @ self.labels
        energy = 0.5 * self.gamma**2 * width * (v @ self.labels) + 0.5 * np.linalg.slogdet(M)[1]
        s = φ @ v[:, :, None]
        return energy, ((φ @ inverse / width - self.gamma**2 * s * v[:, None, :]) * slope) @ self.inputs


class LeapChains:
    """What chains of any likelihood share: a step that is adapted in the burn-in, and a flip of the weights."""

    weights: Floats  # (R, N, d)

    def __init__(self, rng: np.random.Generator, step: float):
        self._rng, self._step = rng, step
        self._accepted, self._tried, self._adapted = 0.0, 0, 0

    @property
    def acceptance(self) -> float:
        """Mean acceptance since the burn-in."""
        return self._accepted / max(self._tried, 1)

    def _learn(self, chance: Floats, adapt: bool) -> None:
        """Adapt the step to the chances of a trajectory (R,), or count them where samples are kept."""
        if adapt:
            self._adapted += 1
            gain = 1.0 / self._adapted**0.5
            self._step = min(LONGEST, self._step * np.exp(gain * (chance.mean() - GOAL)))
        else:
            self._accepted += float(chance.mean())
            self._tried += 1

    def _signs(self, tightness: float, mean: Floats) -> Floats:
        """Return the sign of each neuron (R, N, 1) once w -> -w was tried; the prior changes by exp(-2(1+δ) w·αw̄)."""
        change = 2.0 * tightness * np.sum(self.weights * mean, axis=2, keepdims=True)
        return np.where(np.log(self._rng.uniform(size=change.shape)) < -change, -1.0, 1.0)


class HmcChains(LeapChains):
    """One chain per replica, all moved together; states are weights (R, N, d), at first `start` or the prior's."""

    def __init__(self, network: SampledStage, rng: np.random.Generator, start: Floats | None = None):
        super().__init__(rng, 0.1)
        self.network = network
        prior = network.mean + rng.standard_normal(network.mean.shape) / np.sqrt(network.tightness)
        self.weights = prior if start is None else start
        self._energy, self._force = network.energy_and_force(self.weights)

    def move(self, adapt: bool) -> None:
        """Make one trajectory; `adapt` changes the step after it and must be off while samples are kept."""
        net, rng = self.network, self._rng
        root = np.sqrt(net.tightness)
        u = (self.weights - net.mean) * root
        p = rng.standard_normal(u.shape)
        before = self._energy + 0.5 * np.sum(u**2 + p**2, axis=(1, 2))
        ε = self._step * rng.uniform(0.6, 1.4)
        cos, sin = np.cos(ε), np.sin(ε)
        energy, force = self._energy, self._force
        with np.errstate(over="ignore", invalid="ignore"):  # a trajectory that runs away is rejected
            for _ in range(LEAPS):
                p = p - 0.5 * ε * force / root
                u, p = cos * u + sin * p, cos * p - sin * u
                energy, force = net.energy_and_force(net.mean + u / root)
                p = p - 0.5 * ε * force / root
            after = energy + 0.5 * np.sum(u**2 + p**2, axis=(1, 2))
            chance = np.nan_to_num(np.minimum(1.0, np.exp(before - after)), nan=0.0)
        taken = rng.uniform(size=chance.shape) < chance
        self.weights = np.where(taken[:, None, None], net.mean + u / root, self.weights)
        self._energy = np.where(taken, energy, self._energy)
        self._force = np.where(taken[:, None, None], force, self._force)
        self._learn(chance, adapt)
        if net.act.odd:  # φφᵀ does not change with all signs, and the force is odd in w with φ
            sign = self._signs(net.tightness, net.mean)
            self.weights, self._force = self.weights * sign, self._force * sign
