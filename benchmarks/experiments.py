"""Finite-size experiments, in trials per second on one core."""

from collections.abc import Iterator

import numpy as np

from benchmarks.timing import Line, seconds_of
from tlcli.simulate.network import simulate_network
from tlcli.simulate.predictors import dense_predictor
from tlcli.simulate.regression import draw, least_norm, simulate_regression
from tlcli.simulate.trials import unit_vector
from tlcli.simulate.unreduced import simulate_unreduced

DIM = 1000


def lines() -> Iterator[Line]:
    point = {"alpha1": 0.5, "alpha2": 0.7, "rho": 0.8, "gamma0": 3.0, "sigma1": 0.2, "sigma2": 0.2, "ridge": 0.05}
    ours = seconds_of(lambda: simulate_regression(point, dim=DIM, trials=2, seed=0), 2) / 2
    theirs = 1 / seconds_of(brute_force, 1)
    yield Line(f"regression experiment, D = {DIM}", 1, "trials", ours, "dense eigendecompositions", theirs)
    point = {"alpha1": 2.0, "alpha2": 0.5, "rho": 0.8, "gamma0": 1.0, "t1": 4.0, "t2": 4.0}
    population = seconds_of(lambda: simulate_unreduced(point, dim=100, trials=2, seed=0), 2) / 2
    yield Line("population experiment, D = 100", 1, "trials", population)

    # Two more trials than N: step_error doubles the work of the first trial.
    def trained(trials: int) -> float:
        return seconds_of(lambda: simulate_network(point, dim=40, width=512, trials=trials, seed=0, mode="joint"), 1)

    trained(1)
    yield Line("network experiment, N = 512, D = 40", 1, "trials", (trained(5) - trained(1)) / 4)


def brute_force(ridge: float = 0.05, gamma0: float = 3.0) -> float:
    """The same trial with nothing known about the kernel but its matrix."""
    rng = np.random.default_rng(0)
    teacher1 = unit_vector(rng, DIM)
    teacher2 = 0.8 * teacher1 + 0.6 * unit_vector(rng, DIM, teacher1)
    beta1 = least_norm(draw(rng, teacher1, DIM // 2, 0.2))
    norm = float(np.linalg.norm(beta1))
    spike = float(np.hypot(1.0, gamma0 * norm)) - 1.0
    data = draw(rng, teacher2, 7 * DIM // 10, 0.2)
    kernels = np.eye(DIM) + spike * np.outer(beta1, beta1) / norm**2, np.eye(DIM)
    losses = []
    for kernel in kernels:
        values, vectors = np.linalg.eigh(kernel)
        root = (vectors * np.sqrt(values)) @ vectors.T
        losses.append(float(np.sum((dense_predictor(data, root @ root, ridge=ridge) - teacher2) ** 2)))
    return losses[1] - losses[0]
