"""Bayesian saddle points: closed forms over a grid, linear networks on many points, certified sampling."""

import time
from collections.abc import Iterator

import numpy as np

from benchmarks.timing import Line, seconds_of
from tlcli.bayes.linear import linear_source, linear_target
from tlcli.bayes.sampling.source import sampled_source
from tlcli.bayes.whitened import whitened
from tlcli.dmft.activations import activation


def lines() -> Iterator[Line]:
    yield _whitened()
    yield _linear()
    yield from _sampled()


def _whitened() -> Line:
    rng = np.random.default_rng(0)
    gamma1, gamma2, delta, overlap = (rng.uniform(0.1, top, 100_000) for top in (5.0, 5.0, 20.0, 1.0))
    grid = {"gamma1": gamma1, "gamma2": gamma2, "beta1": 10.0, "beta2": 5.0, "delta": delta, "overlap": overlap}
    return Line("whitened, label overlap", 100_000, "points", seconds_of(lambda: whitened("labels", **grid)))


def _linear() -> Line:
    rng = np.random.default_rng(1)
    x, t = rng.standard_normal((4500, 1000)), rng.standard_normal(1000)
    y = x @ t / np.sqrt(1000)
    first, second = np.arange(2000), np.arange(2000, 4000)

    def solve():
        source = linear_source(x, first, y[first], 2.0, 50.0)
        return linear_target(x, second, y[second], 1.0, 50.0, 1.0, source)

    return Line("linear, source and target of P = 2000, D = 1000", 1, "transfers", seconds_of(solve, 1))


def _sampled() -> Iterator[Line]:
    """Problems of 100 points and beyond, both starts side by side; wall time on two cores."""
    rng = np.random.default_rng(7)
    x, t = rng.standard_normal((100, 40)), rng.standard_normal(40)
    for phi, gamma in (("erf", 0.5), ("erf", 1.5), ("tanh", 1.5), ("relu", 0.5)):
        start = time.perf_counter()
        found = sampled_source(activation(phi), x, np.arange(100), np.sign(x @ t), gamma, 50.0, seed=0, threads=2)
        seconds = time.perf_counter() - start
        info = found.info
        words = f"gap {found.gap:.2g} (floor {found.gap_floor:.2g}), starts differ by {info['spread_v']:.1%} in v"
        name = f"{phi}, P = 100, γ = {gamma}: {found.status}, {words}, {info['spread_kernel']:.1%} in Φ"
        yield Line(name, 1, "saddles", seconds)
