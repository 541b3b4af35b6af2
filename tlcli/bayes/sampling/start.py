"""The first ladder: chains walk from the base Gaussian along the field a and give g_k = log E exp(a_k t)."""

from itertools import pairwise

import numpy as np

from tlcli.arrays import Floats, Indices, Singles
from tlcli.bayes.sampling.ladder import Ladder, ladder
from tlcli.bayes.sampling.moves import Chains, hmc, start_chains
from tlcli.bayes.sampling.tilt import Tilt


def walk(
    tilt: Tilt,
    v: Floats,
    gamma: float,
    fields: Floats,
    chains: int,
    rng: np.random.Generator,
    *,
    odd: bool,
    moves: int = 4,
) -> tuple[Ladder, Chains]:
    """Walk from a = 0 along ±fields; return the ladder and chains spread evenly over its nodes.

    Args:
        tilt: measures; G groups.
        v: (P,).
        gamma: richness.
        fields: nodes on one side, (K,), rising from 0; on the sphere there is no other side.
        chains: number of chains M in all, a multiple of G.
        rng: generator.
        odd: φ is odd and the base is centred: the walk to -reach is the mirror image.
        moves: HMC moves per node; before them the chains of a group are resampled by their weights.
    """
    groups, single = tilt.groups, v.astype(np.float32)
    size = chains // groups
    group = None if groups == 1 else np.repeat(np.arange(groups), size)
    start = rng.standard_normal((chains, tilt.b.shape[1]), dtype=np.float32)
    log_z, states = _side(tilt, single, gamma, fields, start, group, rng, moves)
    if tilt.sphere:
        backward, mirrored = log_z[:, :1], states[:1]
    elif odd:
        backward, mirrored = log_z, [-z for z in states]
    else:
        backward, mirrored = _side(tilt, single, gamma, -fields, start, group, rng, moves)
    nodes = np.concatenate([-fields[: 0 if tilt.sphere else None][:0:-1], fields])
    table = np.concatenate([backward[:, :0:-1], log_z], axis=1)
    layers = [*mirrored[:0:-1], *states]
    # Chains of every group are spread over all nodes: chain j of a group starts at a node drawn evenly.
    pick = np.concatenate([rng.permutation(np.arange(size) * len(nodes) // size) for _ in range(groups)])
    z = np.stack([layers[k][j] for j, k in enumerate(pick)])
    found = start_chains(tilt, single, z, group, 0.15, rng)
    return ladder(nodes, table), found


def _side(tilt: Tilt, v: Singles, gamma: float, fields: Floats, z: Singles, group, rng, moves: int):
    """Return log Z at the fields, (G, K), and the states at each of them."""
    groups, size = tilt.groups, len(z) // tilt.groups
    chains = start_chains(tilt, v, z.copy(), group, 0.15, rng)
    log_z, states = [np.zeros(groups)], [chains.z.copy()]
    for before, after in pairwise(fields):
        exponent = (after - before) * tilt.statistic(gamma * chains.s.astype(float))[0].reshape(groups, size)
        top = exponent.max(axis=1, keepdims=True)
        weight = np.exp(exponent - top)
        log_z.append(log_z[-1] + top[:, 0] + np.log(weight.mean(axis=1)))
        chosen = np.concatenate([i * size + _systematic(weight[i], rng) for i in range(groups)])
        chains.z, chains.s, chains.slope = chains.z[chosen], chains.s[chosen], chains.slope[chosen]
        field = np.full(len(z), after)
        for _ in range(moves):
            rate = hmc(tilt, chains, v, gamma, field)
            chains.step *= float(np.exp(0.3 * (rate - 0.8)))
            chains.step = min(chains.step, 0.35)
        states.append(chains.z.copy())
    return np.stack(log_z, axis=1), states


def _systematic(weight: Floats, rng: np.random.Generator) -> Indices:
    edges = np.cumsum(weight) / weight.sum()
    at = (rng.random() + np.arange(len(weight))) / len(weight)
    return np.minimum(np.searchsorted(edges, at), len(weight) - 1)
