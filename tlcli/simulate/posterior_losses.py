"""Hamiltonian Monte Carlo on all weights of a finite network, for the likelihood of any loss.

Only a Gaussian likelihood lets the readout be integrated out. With f_c(x) = (γN)⁻¹ Σᵢ aᵢcφ(wᵢ·x/√D) and
Δ = -∂ℓ/∂f the energy is

    U(W, a) = ½(1+δ)|W - αW̄|² + ½|a|² + βγ²N Σ ωℓ(f),

of which the Gaussian part is integrated exactly (a rotation) and the rest by kicks.
"""

from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Floats
from tlcli.bayes.likelihood import Likelihood
from tlcli.dmft.activations import Activation
from tlcli.simulate.posterior_hmc import LeapChains

LEAPS = 16


@dataclass(frozen=True, eq=False)
class LossStage:
    """The stage that is sampled.

    Attributes:
        act: activation.
        inputs: training inputs over √D in an orthonormal basis, (P, d).
        likelihood: of the training points.
        gamma: richness > 0.
        tightness: 1 + δ, the precision of the prior.
        mean: prior mean αW̄ of the weights, (R, N, d).
        frozen: the weights stay at their mean (δ = ∞), and the readout alone is sampled.
    """

    act: Activation
    inputs: Floats
    likelihood: Likelihood
    gamma: float
    tightness: float
    mean: Floats
    frozen: bool = False

    def outputs(self, φ: Floats, readout: Floats) -> Floats:
        """Return f (R, n, K) in readout coordinates, of features (R, N, n) and readouts (R, N, K)."""
        return np.swapaxes(φ, 1, 2) @ readout / (self.gamma * φ.shape[1])

    def energy_and_force(self, weights: Floats, readout: Floats) -> tuple[Floats, Floats, Floats]:
        """Return βγ²N Σ ωℓ, (R,), and its gradients with respect to weights (R, N, d) and readouts (R, N, K)."""
        φ, slope = self.act.both(weights @ self.inputs.T)
        f = self.outputs(φ, readout)
        losses, v = self._losses(f)
        energy = self.gamma**2 * weights.shape[1] * losses
        pull = np.zeros_like(weights)
        if not self.frozen:
            pull = -self.gamma * ((readout @ np.swapaxes(v, 1, 2)) * slope) @ self.inputs
        return energy, pull, -self.gamma * φ @ v

    def _losses(self, f: Floats) -> tuple[Floats, Floats]:
        """Return β Σ ωℓ, (R,), and v (R, P, K) of outputs f (R, P, K): what `Likelihood` gives, of all replicas."""
        goal = self.likelihood.objective
        out = f[..., 0] if goal.readouts is None else goal.outputs(f)
        labels = np.broadcast_to(goal.y, out.shape)
        each, force = goal.loss.value(out, labels), goal.loss.force(out, labels)
        each = each.reshape(*out.shape[:2], -1).sum(axis=2)
        if goal.weights is not None:
            each, force = each * goal.weights, force * goal.weights.reshape(-1, *(1,) * (out.ndim - 2))
        force = force if goal.basis is None else force @ goal.basis
        return self.likelihood.beta * each.sum(axis=1), self.likelihood.beta * force.reshape(f.shape)


class LossChains(LeapChains):
    """One chain per replica, all moved together; states are weights (R, N, d) and readouts (R, N, K).

    Weights start at `start` or the prior's draws, readouts at the prior's.
    """

    def __init__(self, network: LossStage, rng: np.random.Generator, start: Floats | None = None):
        super().__init__(rng, 0.05)
        self.network = network
        noise = rng.standard_normal(network.mean.shape) / np.sqrt(network.tightness)
        self.weights = network.mean + (0.0 if network.frozen else noise) if start is None else start
        self.readout = rng.standard_normal((*network.mean.shape[:2], network.likelihood.readouts))
        self._energy, *self._force = network.energy_and_force(self.weights, self.readout)

    def observe(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Return f (R, n) or (R, n, C) and Φ (R, n, n) at all points, inputs (n, d)."""
        φ = np.asarray(self.network.act.phi(self.weights @ inputs.T), dtype=float)
        f = self.network.outputs(φ, self.readout)
        objective = self.network.likelihood.objective
        outputs = f[..., 0] if objective.readouts is None else objective.outputs(f)
        return outputs, np.swapaxes(φ, 1, 2) @ φ / φ.shape[1]

    def move(self, adapt: bool) -> None:
        """Make one trajectory; `adapt` changes the step after it and must be off while samples are kept."""
        net, rng = self.network, self._rng
        root = np.sqrt(net.tightness) if not net.frozen else 1.0
        u, a = (self.weights - net.mean) * root, self.readout
        p, b = rng.standard_normal(u.shape) * (0.0 if net.frozen else 1.0), rng.standard_normal(a.shape)
        before = self._energy + 0.5 * sum(np.sum(z**2, axis=(1, 2)) for z in (u, p, a, b))
        ε = self._step * rng.uniform(0.6, 1.4)
        cos, sin = np.cos(ε), np.sin(ε)
        energy, force, pull = self._energy, *self._force
        with np.errstate(over="ignore", invalid="ignore"):  # a trajectory that runs away is rejected
            for _ in range(LEAPS):
                p, b = p - 0.5 * ε * force / root, b - 0.5 * ε * pull
                u, p = cos * u + sin * p, cos * p - sin * u
                a, b = cos * a + sin * b, cos * b - sin * a
                energy, force, pull = net.energy_and_force(net.mean + u / root, a)
                p, b = p - 0.5 * ε * force / root, b - 0.5 * ε * pull
            after = energy + 0.5 * sum(np.sum(z**2, axis=(1, 2)) for z in (u, p, a, b))
            chance = np.nan_to_num(np.minimum(1.0, np.exp(before - after)), nan=0.0)
        taken = (rng.uniform(size=chance.shape) < chance)[:, None, None]
        self.weights = np.where(taken, net.mean + u / root, self.weights)
        self.readout = np.where(taken, a, self.readout)
        self._energy = np.where(taken[:, 0, 0], energy, self._energy)
        self._force = [np.where(taken, new, old) for new, old in zip((force, pull), self._force, strict=True)]
        self._learn(chance, adapt)
        if net.act.odd and not net.frozen:  # f does not change with the signs of (w, a), in which the forces are odd
            sign = self._signs(net.tightness, net.mean)
            self.weights, self.readout = self.weights * sign, self.readout * sign
            self._force = [one * sign for one in self._force]
