"""Compare a target around a condensed source with posteriors of networks of finite width.

The source's condensate and some of its neurons are fixed, an atom of mass m as one neuron of G with the length of
√(Gm) directions. The theory of a target tied to these G neurons is exact where each has infinitely many copies; a
network in which each has c copies differs from it by 1/c. Chains start from draws of the theory: they do not cross
between the lobes of long neurons, and keep the theory's shares there.

Not part of the table: it takes some minutes and measures agreement, not speed. `python -m benchmarks.posterior_target`.
"""

import argparse
from dataclasses import replace

import numpy as np

from tlcli.arrays import Floats
from tlcli.bayes.sampling import sampled_source, sampled_target, target
from tlcli.bayes.sampling.source import SampledSaddle
from tlcli.dmft.activations import activation
from tlcli.simulate.posterior_hmc import GOAL, HmcChains, SampledStage

POINTS, DIMENSION, BETA, DELTA = 20, 8, 50.0, 1.0
TUNED = 20  # moves between two changes of the step in the burn-in
SHORT = 6.0  # length of a source neuron beyond which steps are shorter
TINY = 1e-9  # of the masses of atoms: the theory then looks for the lobes of long neurons, and has no other atoms


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.posterior_target", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="data; 1 has a quarter of the source condensed (1)")
    parser.add_argument("--neurons", type=int, default=64, help="neurons of the source beside its atoms (64)")
    parser.add_argument("--copies", default="1,4", help="copies of each, one network per value (1,4)")
    parser.add_argument("--moves", type=int, default=1000, help="moves of the burn-in; twice as many are kept (1000)")
    parser.add_argument("--replicas", type=int, default=16, help="networks with one copy; fewer with more (16)")
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    x = rng.standard_normal((2 * POINTS, DIMENSION))
    y = np.sign(x @ rng.standard_normal(DIMENSION))
    act, rows = activation("relu"), np.arange(POINTS)
    source = sampled_source(act, x, rows, y[:POINTS], 1.0, BETA, seed=0)
    fixed = neurons_of(source, given.neurons)
    print(f"source: {source.status}, {source.info['condensed']:.0%} condensed; lengths", flush=True, end=" ")
    print(*np.round(np.sort(np.linalg.norm(fixed, axis=1))[-5:], 1))
    theory = theory_of(act, x, POINTS + rows, y[POINTS:], source, fixed, given.moves)
    for copies in (int(c) for c in given.copies.split(",")):
        replicas = max(4, given.replicas // copies)
        compare(act, x[POINTS:], y[POINTS:], fixed, theory, copies, replicas, given.moves)


def neurons_of(source: SampledSaddle, count: int) -> Floats:
    """Return a regular subset of one start's neurons (count, D), and its atoms as one neuron each."""
    half = len(source.neurons) // 2
    kept = source.neurons[np.linspace(0, half, count, endpoint=False).astype(int)]
    w, mass = source.condensates[0]
    return np.concatenate([kept, w * np.sqrt((count + len(w)) * mass)[:, None]])


def theory_of(act, x: Floats, rows, y: Floats, source: SampledSaddle, fixed: Floats, moves: int) -> SampledSaddle:
    """Return the target tied to the neurons `fixed` (G, D), sampled as 16 chains for each; print how it ended."""
    w, mass = source.condensates[0]
    many = np.tile(fixed, (16, 1))
    target._FEWEST = len(many)  # all of them
    around = replace(source, neurons=np.concatenate([many, many]), condensates=((w, TINY * mass),) * 2)
    found = sampled_target(act, x, rows, y, 1.0, BETA, DELTA, around, seed=1, moves=moves // 4)
    assert isinstance(found, SampledSaddle)
    print(f"theory: y.v {found.v @ y:.3f}; its starts differ by {found.info['spread_v']:.1%} in v")
    return found


def compare(act, x: Floats, y: Floats, fixed: Floats, theory: SampledSaddle, copies: int, replicas: int, moves: int):
    """Print the distance of v from the theory, and of y·v, with standard errors over the replicas."""
    rng = np.random.default_rng(5)
    means = np.tile(fixed, (copies, 1)) * DELTA / (1 + DELTA)
    net = SampledStage(
        act, x / np.sqrt(x.shape[1]), y, 1.0, 1 / BETA, 1 + DELTA, np.broadcast_to(means, (replicas, *means.shape))
    )
    drawn = theory.neurons.reshape(-1, len(fixed), x.shape[1])
    each = np.arange(len(fixed))
    start = [drawn[rng.integers(len(drawn), size=len(fixed)), each] for _ in range(replicas * copies)]
    chains = HmcChains(net, rng, np.concatenate(start).reshape(replicas, *means.shape))
    kept = sampled_v(chains, np.minimum(1, SHORT / np.linalg.norm(2 * means, axis=1))[None, :, None], moves)
    v, halves = kept.mean(axis=0), [part.mean(axis=(0, 1)) for part in np.array_split(kept, 2)]
    mean, error = v.mean(axis=0), v.std(axis=0, ddof=1) / np.sqrt(replicas)
    size, along, width = np.linalg.norm(theory.v), v @ y, len(means)
    off, spread = along.mean() - theory.v @ y, along.std(ddof=1) / np.sqrt(replicas)
    print(
        f"N = {width}: v {np.linalg.norm(mean - theory.v) / size:.1%} ({np.linalg.norm(error) / size:.1%}), halves "
        f"differ by {np.linalg.norm(halves[0] - halves[1]) / size:.1%}; y.v {along.mean():.3f} ({spread:.3f}), N times "
        f"its distance {width * off:.1f} ({width * spread:.1f}); acceptance {chains.acceptance:.2f}",
        flush=True,
    )


def sampled_v(chains: HmcChains, scale: Floats, moves: int) -> Floats:
    """Return v (T, R, P) of 2 × `moves` states after `moves` of burn-in; steps are those of a neuron times `scale`."""
    net, step, kept = chains.network, 0.1, []
    for n in range(3 * moves):
        if n < moves and n % TUNED == 0:
            step *= np.exp(chains.acceptance - GOAL) if n else 1.0
            chains._step = step * scale  # pyright: ignore[reportAttributeAccessIssue]  (one per neuron)
            chains._accepted, chains._tried = 0.0, 0
        chains.move(adapt=False)
        if n >= moves:
            gram = net.gram(net.act.phi(chains.weights @ net.inputs.T))
            labels = np.broadcast_to(net.labels[:, None], (*gram.shape[:2], 1))
            kept.append(np.linalg.solve(gram, labels)[..., 0])
    return np.array(kept)


if __name__ == "__main__":
    main()
