"""Stated errors of the population against quadrature, on random small problems (coverage of all: docs/bayes.md)."""

import numpy as np
import pytest

from tlcli.bayes.observables import NEEDS, errors_of
from tlcli.bayes.population import population_source
from tlcli.bayes.quadrature.solve import quadrature_source
from tlcli.dmft.activations import activation

TESTED = 6


def random_problem(number):
    """Activation, inputs (P + 6, 2), labels, γ and β of one of the thirty problems."""
    rng, problems = np.random.default_rng(0), []
    for k in range(number + 1):
        name, count = ("erf", "tanh", "relu")[k % 3], int(rng.integers(4, 9))
        gamma, beta = float(10 ** rng.uniform(-0.7, 0.3)), float(10 ** rng.uniform(0.7, 2))
        x = rng.standard_normal((count + TESTED, 2))
        y = np.sign(x[:, 0] + 0.4 * rng.standard_normal(count + TESTED))
        problems.append((activation(name), x, y, min(gamma, 1.0) if name == "relu" else gamma, beta))
    return problems[number]


# Half of the spread of v, which was stated, is 10.6 times too small for the loss of number 10, and leaves v of both
# more than two errors off.
@pytest.mark.parametrize("number", [4, 10])
def test_two_stated_errors_hold_what_half_spreads_did_not(number):
    act, x, y, gamma, beta = random_problem(number)
    at, test = np.arange(len(y) - TESTED), np.arange(len(y) - TESTED, len(y))
    exact = quadrature_source(act, x, at, y[at], gamma, beta, accuracy=1e-5)
    found = population_source(act, x, at, y[at], gamma, beta, seed=number, chains=128, moves=100, doublings=1)
    unit = y[at] / np.linalg.norm(y[at])
    values = [
        {
            "source_loss": float(np.mean((s.outputs[test] - y[test]) ** 2)),
            "source_train_loss": float(np.mean((s.outputs[at] - y[at]) ** 2)),
            "source_overlap": float(unit @ s.kernel[np.ix_(at, at)] @ unit),
        }
        for s in (found, exact)
    ]
    errors = errors_of(
        {"source": found, "target": found, "baseline": found}, {**dict.fromkeys(NEEDS, 1.0), **values[0]}
    )
    for name, value in values[0].items():
        assert abs(value - values[1][name]) <= 2 * errors[f"{name}_se"], name
    for one, other, spread in ((found.v, exact.v, "spread_v"), (found.kernel, exact.kernel, "spread_kernel")):
        assert np.linalg.norm(one - other) <= 2 * found.info[spread] * np.linalg.norm(other), spread
