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

_DRAWN = 1024  # states among which lobes are looked for
_CONE = 0.8  # cosine of the angle between states of one lobe
_MOST_LOBES, _LEAST_SHARE = 16, 0.01


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
        fields: a of each component, (C,), nan for one of a single lobe.
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

    @staticmethod
    def of(mean: Floats, covariance: Floats, even: bool, fields: Floats) -> "Mixture":
        """Return the mixture with means (C, r) and covariances (C, r, r)."""
        root = np.linalg.cholesky(covariance)
        log_norm = -np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
        return Mixture(mean, root.astype(np.float32), np.linalg.inv(root).astype(np.float32), log_norm, even, fields)

    def joined(self, other: "Mixture") -> "Mixture":
        """Return the components of both."""
        names = ("mean", "root", "whiten", "log_norm", "fields")
        both = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in names}
        return Mixture(**both, even=self.even)

    def without_lobes(self) -> "Mixture":
        """Return the components of whole fields alone."""
        kept = ~np.isnan(self.fields)
        names = ("mean", "root", "whiten", "log_norm", "fields")
        return Mixture(**{name: getattr(self, name)[kept] for name in names}, even=self.even)

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
    mean, covariance = np.zeros((len(chosen), rank)), np.zeros((len(chosen), rank, rank))
    for c, a in enumerate(chosen):
        weight, ess = _weights(a * t - bias)
        used = np.flatnonzero(weight > 1e-6)
        mean[c], covariance[c] = _gaussian(z[used].astype(float), weight[used], ess, centred=a == 0 and even)
    return Mixture.of(mean, covariance, even, chosen.astype(float))


def fit_lobes(tilt: Tilt, pool: Pool, v: Floats, gamma: float, field: float, rng: np.random.Generator) -> Mixture:
    """Fit one Gaussian to each lobe of the states at one field, cones of directions, the fullest ones first (sphere).

    Near the edge of its domain the measure may have many lobes, all of them narrow: a single Gaussian over them has its
    mean between them, and hardly ever proposes one.
    """
    t, _ = tilt.statistic(gamma * project(tilt, pool, v, 1).ravel())
    z = pool.z.reshape(-1, pool.z.shape[-1])
    weight, _ = _weights(field * t - pool.bias.ravel())
    used = np.flatnonzero(weight > 1e-6)
    directions = z[used] / np.linalg.norm(z[used], axis=1, keepdims=True)
    drawn = directions[rng.choice(len(used), size=_DRAWN, p=weight[used] / weight[used].sum())]
    mean, covariance = [], []
    left = np.ones(_DRAWN, dtype=bool)
    while len(mean) < _MOST_LOBES:
        near = (drawn @ drawn.T > _CONE) & left
        size = near.sum(axis=1) * left
        if size.max() < _LEAST_SHARE * _DRAWN:
            break
        axis = int(size.argmax())
        left &= ~near[axis]
        own = used[directions @ drawn[axis] > _CONE]
        found = _gaussian(z[own].astype(float), weight[own], weight[own].sum() ** 2 / (weight[own] ** 2).sum())
        mean.append(found[0])
        covariance.append(found[1])
    if not mean:
        return Mixture.none()
    return Mixture.of(np.array(mean), np.array(covariance), False, np.full(len(mean), np.nan))


def _weights(exponent: Floats) -> tuple[Floats, float]:
    """Return the weights (m,) of log weights, the largest 1, and how many states count."""
    weight = np.exp(exponent - exponent.max())
    return weight, float(weight.sum() ** 2 / (weight**2).sum())


def _gaussian(z: Floats, weight: Floats, ess: float, *, centred: bool = False) -> tuple[Floats, Floats]:
    """Return the mean (r,), zero if `centred`, and the widened covariance (r, r) of states (m, r)."""
    rank, w = z.shape[1], weight / weight.sum()
    mean = np.zeros(rank) if centred else w @ z
    apart = (z - mean) * np.sqrt(w)[:, None]
    few = rank / (rank + ess)
    return mean, 1.1 * ((1 - few) * (apart.T @ apart) + few * np.eye(rank)) + 1e-6 * np.eye(rank)


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
