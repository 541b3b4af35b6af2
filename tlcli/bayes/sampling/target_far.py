"""Chains around long source neurons: where they start, and how they change between lobes.

The source of a condensed measure has neurons with long weights beside its atoms. Around a neuron of length L the tilt
has lobes L² times a difference of M apart (see `target_condense`), which no chain crosses: it would stay in the one
nearest to αw̄. Every lobe is found as a maximiser of F, with a Gaussian around it, and the chains start from and jump
among these. The Gaussians decide how often a jump is accepted, and nothing else.
"""

from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Floats, Indices, Singles
from tlcli.bayes.sampling.jumps import jump
from tlcli.bayes.sampling.ladder import Square
from tlcli.bayes.sampling.moves import Chains
from tlcli.bayes.sampling.target_condense import Dragged
from tlcli.bayes.sampling.tilt import Tilt

_FAR = 20  # one neuron in so many, the longest
_LOBES = 4  # of a neuron
_BELOW = 12.0  # nats below the highest lobe of a neuron at which a lobe is left out
_LEAST = 0.05  # share of the proposals that each lobe has
_WIDER = 1.2  # covariances are too small rather than too large otherwise
_FLATTEST = 0.05  # least eigenvalue of a lobe's precision, over that of the base
_APART = 1.0  # distance of two lobes in units of the base's width, at least


@dataclass(frozen=True, eq=False)
class Far:
    """Gaussians in z around the lobes of n neurons `at` (n,): mean (n, J, r), root and whiten (n, J, r, r), log_norm
    -½ log det of the covariances (n, J), and share (n, J); rows sum to 1, absent lobes have none."""

    at: Indices
    mean: Floats
    root: Floats
    whiten: Floats
    log_norm: Floats
    share: Floats

    def draw(self, size: int, rng: np.random.Generator) -> Singles:
        """Return one draw per neuron, (n, r)."""
        which = (rng.random((size, 1)) > np.cumsum(self.share, axis=1)[:, :-1]).sum(axis=1)
        rows = np.arange(size)
        x = rng.standard_normal((size, self.mean.shape[2]))
        return (self.mean[rows, which] + np.einsum("nij,nj->ni", self.root[rows, which], x)).astype(np.float32)

    def log_density(self, z: Singles) -> Floats:
        """Return log q(z), (n,), of one state per neuron, up to a constant."""
        x = np.einsum("njkl,njl->njk", self.whiten, z[:, None] - self.mean)
        with np.errstate(divide="ignore"):
            terms = np.log(self.share) + self.log_norm - 0.5 * np.einsum("njk,njk->nj", x, x)
        top = terms.max(axis=1)
        return top + np.log(np.exp(terms - top[:, None]).sum(axis=1))

    def start(self, chains: Chains) -> None:
        """Move the chains of these neurons to draws; `refresh` must follow."""
        chains.z[self.at] = self.draw(len(self.at), chains.rng)

    def jump(self, tilt: Tilt, chains: Chains, v: Singles, gamma: float, umbrella: Square) -> float:
        """Propose one replacement for each of these neurons; return the mean acceptance probability."""
        at = self.at
        some = Chains(chains.z[at], chains.s[at], chains.slope[at], at, chains.step, chains.rng)
        rate = jump(tilt, some, v, gamma, umbrella, self)
        chains.z[at], chains.s[at], chains.slope[at] = some.z, some.s, some.slope
        return rate


def far_lobes(dragged: Dragged, centre: Floats, v: Floats) -> Far:
    """Return the lobes of the longest of the neurons with αw̄ = `centre` (G, r) at v (P,)."""
    length = np.linalg.norm(centre, axis=1)
    at = np.sort(np.argsort(-length)[: max(1, len(centre) // _FAR)])
    x, own, value = dragged.lobes(centre[at], v)
    pull = centre[at][own]
    precision = dragged.precision
    mean = np.sqrt(precision) * (x - pull)
    inverse = _precisions(dragged, x, v)
    size, axes = np.linalg.eigh(inverse)
    size = np.maximum(size, _FLATTEST) / _WIDER
    log_norm = 0.5 * np.log(size).sum(axis=1)
    log_mass = value - log_norm
    J, rank = _LOBES, centre.shape[1]
    out = Far(
        at,
        np.zeros((len(at), J, rank)),
        np.tile(np.eye(rank), (len(at), J, 1, 1)),
        np.tile(np.eye(rank), (len(at), J, 1, 1)),
        np.zeros((len(at), J)),
        np.zeros((len(at), J)),
    )
    for i in range(len(at)):
        mine = np.flatnonzero(own == i)
        kept: list[int] = []
        for j in mine[np.argsort(-log_mass[mine])]:
            near = any(np.linalg.norm(mean[j] - mean[k]) < _APART for k in kept)
            if len(kept) < J and not near and (not kept or log_mass[j] > log_mass[kept[0]] - _BELOW):
                kept.append(int(j))
        share = np.exp(log_mass[kept] - log_mass[kept[0]])
        share = np.maximum(share / share.sum(), _LEAST)
        n = len(kept)
        out.mean[i, :n], out.log_norm[i, :n], out.share[i, :n] = mean[kept], log_norm[kept], share / share.sum()
        out.root[i, :n] = axes[kept] / np.sqrt(size[kept])[:, None, :]
        out.whiten[i, :n] = np.sqrt(size[kept])[:, :, None] * axes[kept].transpose(0, 2, 1)
    return out


def _precisions(dragged: Dragged, x: Floats, v: Floats) -> Floats:
    """Return the inverse covariances (m, r, r) in z of the Gaussians around lobes at x (m, r).

    On a concave kink the exponent falls as τ|h|, τ the change of its slope: the width there is of order 1/τ.
    """
    g = dragged.gamma**2
    up, down = dragged.sides
    h = x @ dragged.b.T
    slopes = np.where(h > 0, up, down)
    s = (slopes * h) @ v
    slope = (slopes * v) @ dragged.b
    turn = np.maximum(-g * s[:, None] * v * (up - down), 0.0)
    narrow = turn**2 / (8 + (turn * h) ** 2)
    rank = dragged.b.shape[1]
    smooth = np.eye(rank) - (g / dragged.precision) * np.einsum("mi,mj->mij", slope, slope)
    return smooth + np.einsum("mp,pi,pj->mij", narrow, dragged.b, dragged.b) / dragged.precision
