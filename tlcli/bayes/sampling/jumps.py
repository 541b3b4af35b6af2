"""Exact non-local moves: replace a chain's state by a draw from Gaussians fitted along the field ladder.

Where the tilted measure has several lobes the field alone does not connect them: near one field two states with the
same s and different overlap with the mean direction of the outer lobe coexist. A proposal z' ~ q = mixture of
Gaussians, accepted with the Metropolis-Hastings ratio of an independence sampler, crosses in one step; q only decides
how often it is accepted.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tlcli.arrays import Floats, Singles
from tlcli.bayes.sampling.dual import project
from tlcli.bayes.sampling.ladder import Ladder, Square
from tlcli.bayes.sampling.moves import Chains
from tlcli.bayes.sampling.pool import Pool
from tlcli.bayes.sampling.tilt import Tilt


class Proposal(Protocol):
    """What a jump needs: draws for all chains, and log q of their states."""

    def draw(self, size: int, rng: np.random.Generator) -> Singles:
        """Return (size, r) draws."""
        ...

    def log_density(self, z: Singles) -> Floats:
        """Return log q, (m,), up to a constant of the chain."""
        ...


@dataclass(frozen=True, eq=False)
class Mixture:
    """Equal mixture of C Gaussians.

    Attributes:
        mean: (C, r). root: Cholesky factors of the covariances, (C, r, r). whiten: inverse factors, (C, r, r).
        log_norm: -½ log det of each covariance, (C,).
        even: each component is paired with its mirror image at -mean.
        fields: a of each component, (C,).
    """

    mean: Floats
    root: Singles
    whiten: Singles
    log_norm: Floats
    even: bool
    fields: Floats

    @staticmethod
    def none() -> "Mixture":
        """No proposals yet."""
        empty = np.zeros((0, 0, 0), dtype=np.float32)
        return Mixture(np.zeros((0, 0)), empty, empty, np.zeros(0), False, np.zeros(0))

    def draw(self, size: int, rng: np.random.Generator) -> Singles:
        """Return (size, r) independent draws."""
        count, rank = self.mean.shape
        z = rng.standard_normal((size, rank), dtype=np.float32)
        # Components in turn: as good as at random, since every chain draws its own ticket.
        ticket = rng.permutation(np.arange(size) % count)
        for c in range(count):
            at = np.flatnonzero(ticket == c)
            z[at] = z[at] @ self.root[c].T + self.mean[c].astype(np.float32)
        if self.even:
            z *= np.where(rng.random(size) < 0.5, np.float32(-1), np.float32(1))[:, None]
        return z

    def log_density(self, z: Singles) -> Floats:
        """Return log q(z), (m,), up to a constant."""
        if not len(self.mean):
            return np.zeros(len(z))
        terms = []
        for mean, whiten, norm in zip(self.mean, self.whiten, self.log_norm, strict=True):
            x = z @ whiten.T
            centre = whiten @ mean.astype(np.float32)
            square = np.einsum("ij,ij->i", x, x).astype(float)
            cross = (x @ centre).astype(float)
            level = norm - 0.5 * (square + float(centre @ centre))
            # log cosh without overflow is log of the two mirror images.
            terms.append(level + (np.logaddexp(cross, -cross) if self.even else cross))
        stacked = np.stack(terms)
        top = stacked.max(axis=0)
        return top + np.log(np.exp(stacked - top).sum(axis=0))


def fit(tilt: Tilt, pool: Pool, v: Floats, gamma: float, ladder: Ladder, *, even: bool, components: int) -> Mixture:
    """Fit one Gaussian to the states at each of `components` fields of the ladder (source: one group).

    With `even` only fields a >= 0 are fitted. The covariance is inflated by 10 % and drawn towards the identity where
    the pool has few effective states: a proposal with light tails would leave chains stuck in the tails.
    """
    nodes = ladder.nodes[ladder.nodes >= 0] if even else ladder.nodes
    chosen = nodes[np.unique(np.linspace(0, len(nodes) - 1, min(components, len(nodes))).round().astype(int))]
    t, _ = tilt.statistic(gamma * project(tilt, pool, v, 1).ravel())
    bias, z = pool.bias.ravel(), pool.z.reshape(-1, pool.z.shape[-1])
    rank = z.shape[1]
    mean, root = np.zeros((len(chosen), rank)), np.zeros((len(chosen), rank, rank))
    for c, a in enumerate(chosen):
        exponent = a * t - bias
        weight = np.exp(exponent - exponent.max())
        ess = weight.sum() ** 2 / (weight**2).sum()
        used = np.flatnonzero(weight > 1e-6)
        at, w = z[used].astype(float), weight[used] / weight[used].sum()
        mean[c] = 0.0 if a == 0 and even else w @ at
        centred = (at - mean[c]) * np.sqrt(w)[:, None]
        covariance = centred.T @ centred
        few = rank / (rank + ess)
        covariance = 1.1 * ((1 - few) * covariance + few * np.eye(rank))
        root[c] = np.linalg.cholesky(covariance + 1e-6 * np.eye(rank))
    whiten = np.linalg.inv(root)
    log_norm = -np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
    return Mixture(mean, root.astype(np.float32), whiten.astype(np.float32), log_norm, even, chosen)


def jump(tilt: Tilt, chains: Chains, v: Singles, gamma: float, umbrella: Ladder | Square, proposal: Proposal) -> float:
    """Propose one replacement for every chain; return the mean acceptance probability."""
    rng = chains.rng
    drawn = proposal.draw(len(chains.z), rng)
    s = tilt.project(drawn, v, chains.group)

    def log_weight(z: Singles, at: Singles) -> Floats:
        bias = umbrella.bias(tilt.statistic(gamma * at.astype(float))[0], chains.group)[0]
        return bias - 0.5 * np.einsum("ij,ij->i", z, z).astype(float) - proposal.log_density(z)

    log_ratio = np.minimum(log_weight(drawn, s) - log_weight(chains.z, chains.s), 0.0)
    accept = np.flatnonzero(np.log(rng.random(len(s))) < log_ratio)
    if accept.size:
        chains.z[accept] = drawn[accept]
        # The force of a state that has moved must be its own: a stale one would bias every later trajectory.
        group = None if chains.group is None else chains.group[accept]
        chains.s[accept], chains.slope[accept] = tilt.slope(chains.z[accept], v, group)
    return float(np.exp(log_ratio).mean())
