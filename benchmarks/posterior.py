"""Compare the theory on a hundred points with posteriors of networks of finite width, from two opposite starts.

Not part of the table: it takes some minutes and measures agreement, not speed. `python -m benchmarks.posterior`.
"""

import argparse

import numpy as np

from tlcli.arrays import Floats
from tlcli.bayes.sampling.source import sampled_source
from tlcli.dmft.activations import activation
from tlcli.simulate.posterior import sample_posterior

BETA = 50.0
CASES = (("erf", 0.5), ("erf", 1.5), ("tanh", 1.5))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.posterior", description=__doc__)
    parser.add_argument("--width", type=int, default=400, help="hidden neurons (400)")
    parser.add_argument("--moves", type=int, default=300, help="moves of the burn-in, and again of the samples (300)")
    given = parser.parse_args()
    rng = np.random.default_rng(7)
    x, t = rng.standard_normal((100, 40)), rng.standard_normal(40)
    for name, gamma in CASES:
        compare(name, gamma, x, np.sign(x @ t), given.width, given.moves)


def compare(name: str, gamma: float, x: Floats, y: Floats, width: int, moves: int) -> None:
    """Print the distances of v and Φ from the theory, and their standard errors, for both starts."""
    act, rows = activation(name), np.arange(len(y))
    theory = sampled_source(act, x, rows, y, gamma, BETA, seed=0, threads=2)
    print(f"{name}, γ = {gamma}: {theory.status}, gap {theory.gap:.2g} (floor {theory.gap_floor:.2g})")
    for word in ("prior", "theory"):
        start = "prior" if word == "prior" else theory.neurons
        common = {"gamma1": gamma, "beta1": BETA, "replicas": 8, "samples": moves, "burn": moves, "seed": 5}
        found = sample_posterior(x, rows, y, activation=act, width=width, start=start, **common).source
        v, error = BETA * (y - found.outputs), BETA * found.outputs_error
        size, kernel = np.linalg.norm(theory.v), np.linalg.norm(theory.kernel)
        squares = [gamma**2 * float(one @ y - one @ one / BETA) for one in (v, theory.v)]
        print(
            f"  N = {width} from {word}: v {np.linalg.norm(v - theory.v) / size:.1%} "
            f"({np.linalg.norm(error) / size:.1%}), Φ {np.linalg.norm(found.kernel - theory.kernel) / kernel:.1%} "
            f"({np.linalg.norm(found.kernel_error) / kernel:.1%}), γ²Es² {squares[0]:.2f} (theory "
            f"{squares[1]:.2f}), drift {found.drift:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
