"""Exact blocked Gibbs sampling of a finite linear network: readout given weights, weights given readout.

With Y = γ√N y the network is Y = Bt + noise of variance 1/β, t = Σ aᵢwᵢ/√N, B the training inputs over √D (P, d):
bilinear in (a, W), so that either block given the other is Gaussian. A draw from the conditional is a draw from the
prior plus a correction by the P residuals.
"""

import numpy as np

from tlcli.arrays import Floats
from tlcli.simulate.posterior_hmc import SampledStage


class GibbsChains:
    """One chain per replica; states are weights (R, N, d), at first `start` or the prior's. All moves are accepted."""

    acceptance = 1.0

    def __init__(self, network: SampledStage, rng: np.random.Generator, start: Floats | None = None):
        self.network, self._rng = network, rng
        prior = network.mean + rng.standard_normal(network.mean.shape) / np.sqrt(network.tightness)
        self.weights = prior if start is None else start

    def move(self, adapt: bool = False) -> None:
        """Redraw the readout and then the weights; `adapt` has no effect."""
        net, rng, B = self.network, self._rng, self.network.inputs
        replicas, width, _ = self.weights.shape
        y = net.gamma * np.sqrt(width) * net.labels
        noise = np.sqrt(net.inverse_beta)

        h = self.weights @ B.T
        a = rng.standard_normal((replicas, width, 1))
        residual = y - (np.swapaxes(h, 1, 2) @ a)[..., 0] / np.sqrt(width)
        residual -= noise * rng.standard_normal(residual.shape)
        a += h @ np.linalg.solve(net.gram(h), residual[..., None]) / np.sqrt(width)

        w = net.mean + rng.standard_normal(net.mean.shape) / np.sqrt(net.tightness)
        residual = y - (np.swapaxes(a, 1, 2) @ w)[:, 0] @ B.T / np.sqrt(width)
        residual -= noise * rng.standard_normal(residual.shape)
        power = np.sum(a**2, axis=1, keepdims=True) / (width * net.tightness)
        covariance = power * (B @ B.T) + net.inverse_beta * np.eye(len(y))
        pull = np.linalg.solve(covariance, residual[..., None])
        self.weights = w + a * (np.swapaxes(pull, 1, 2) @ B) / (np.sqrt(width) * net.tightness)
