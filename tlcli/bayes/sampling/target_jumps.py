"""Jump proposals of a target: one tilt for all source neurons, each with a base Gaussian of its own.

At the field a the tilt exp(aγs(w)) is fitted, on a network that learns the target alone, by exp(k - ½wᵀAw + bᵀw): its
measure there is N(μ, Σ) with A = Σ⁻¹ - I, b = Σ⁻¹μ. Times the base N(m_i, I/λ) of source neuron i this is a Gaussian
again, with a mass of its own; the fields enter with the density of a, N(0, 1).
"""

from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Floats, Singles
from tlcli.bayes.sampling.jumps import Mixture

# The quadratic fit extrapolates to neurons far from where it was made: masses are tempered and bounded below.
_TEMPER, _LEAST = 0.7, 0.02


@dataclass(frozen=True, eq=False)
class GroupMixture:
    """Mixture of C Gaussians in z for each of G chains.

    Attributes:
        mean: (C, G, r). root, whiten: (C, r, r). log_norm: -½ log det of the covariances, (C,). share: (G, C), rows
        sum to 1.
    """

    mean: Singles
    root: Singles
    whiten: Singles
    log_norm: Floats
    share: Floats

    def draw(self, size: int, rng: np.random.Generator) -> Singles:
        """Return one draw per chain, (G, r)."""
        z = rng.standard_normal((size, self.mean.shape[2]), dtype=np.float32)
        ticket = (rng.random((size, 1)) > np.cumsum(self.share, axis=1)[:, :-1]).sum(axis=1)
        for c in range(len(self.mean)):
            at = np.flatnonzero(ticket == c)
            z[at] = z[at] @ self.root[c].T + self.mean[c, at]
        return z

    def log_density(self, z: Singles) -> Floats:
        """Return log q(z), (G,), of one state per chain, up to a constant."""
        terms = np.empty((len(self.mean), len(z)))
        for c, (mean, whiten) in enumerate(zip(self.mean, self.whiten, strict=True)):
            x = (z - mean) @ whiten.T
            terms[c] = self.log_norm[c] - 0.5 * np.einsum("ij,ij->i", x, x)
        terms += np.log(self.share).T
        top = terms.max(axis=0)
        return top + np.log(np.exp(terms - top).sum(axis=0))


def adapt(alone: Mixture, fields: Floats, log_z: Floats, centre: Floats, precision: float) -> GroupMixture:
    """Return the proposals of neurons with base N(centre_i, I/precision).

    Args:
        alone: Gaussians fitted at `fields` (C,) for the base N(0, I); with `even` the mirror images are added.
        fields: a_c.
        log_z: log Z(a_c) for the base N(0, I), (C,).
        centre: αw̄_i in the row space of the target's inputs, (G, r).
        precision: λ = 1 + δ.
    """
    mu, a, g = alone.mean, fields, log_z
    index = np.arange(len(mu))
    if alone.even:
        mirrored = np.flatnonzero(a > 0)
        mu, a, g = (
            np.concatenate([mu, -mu[mirrored]]),
            np.concatenate([a, -a[mirrored]]),
            np.concatenate([g, g[mirrored]]),
        )
        index = np.concatenate([index, mirrored])
    rank = mu.shape[1]
    means, roots, whitens, norms, masses = [], [], [], [], []
    for c, at in enumerate(index):
        whiten = alone.whiten[at].astype(float)
        inverse = whiten.T @ whiten
        A, b = inverse - np.eye(rank), inverse @ mu[c]
        k = g[c] - 0.5 * b @ mu[c] + float(np.log(np.diagonal(whiten)).sum())
        Q = np.eye(rank) + A / precision
        linear = (b - centre @ A) / np.sqrt(precision)
        covariance = np.linalg.inv(Q)
        covariance = 0.5 * (covariance + covariance.T)
        mean = linear @ covariance
        root = np.linalg.cholesky(covariance)
        norm = -float(np.log(np.diagonal(root)).sum())
        means.append(mean)
        roots.append(root)
        whitens.append(np.linalg.inv(root))
        norms.append(norm)
        constant = k + centre @ b - 0.5 * np.einsum("ij,ij->i", centre @ A, centre)
        masses.append(constant + 0.5 * np.einsum("ij,ij->i", linear, mean) - norm - 0.5 * a[c] ** 2)
    log_mass = _TEMPER * np.stack(masses, axis=1)
    share = np.exp(log_mass - log_mass.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    share = (1 - _LEAST * len(index)) * share + _LEAST if _LEAST * len(index) < 0.5 else share
    share /= share.sum(axis=1, keepdims=True)
    return GroupMixture(
        np.stack(means).astype(np.float32),
        np.stack(roots).astype(np.float32),
        np.stack(whitens).astype(np.float32),
        np.array(norms),
        np.maximum(share, 1e-12),
    )
