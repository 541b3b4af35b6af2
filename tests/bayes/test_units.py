"""Labels c·y at richness γ/c are labels y at γ: f is c times as large, and nothing else changes (β stays, since it
multiplies γ² times squares). No choice of any solver may see γ without the labels, or the labels without γ."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from tests.bayes.problems import det_inputs, points, problem_a, problem_b
from tlcli.bayes.bayes_transfer import BayesSettings, solve_bayes
from tlcli.bayes.observables import NEEDS
from tlcli.bayes.sampling import sampled_source, sampled_target
from tlcli.bayes.whitened import CASES, whitened
from tlcli.dmft.activations import activation
from tlcli.dmft.settings import Data

LOSSES = {"loss", "baseline", "gain", "train_loss", "source_loss", "source_train_loss"}
# Powers of two, which every number of the computation follows exactly, and others, which round.
FACTORS = (2.0**-20, 2.0**12, 1e-6, 300.0)


def data_of(p, factor=1.0):
    y1, y2, test = (factor * y for y in (p.y1, p.y2, p.y_test))
    return cast(
        Data,
        SimpleNamespace(
            x_source=p.x[p.source],
            y_source=y1,
            x_target=p.x[p.target],
            y_target=y2,
            x_test=p.x[p.test],
            y_test_source=test,
            y_test_target=test,
        ),
    )


def small_problem():
    """Rank 4: ten points of each task and three test points."""
    x = [det_inputs(n, 4, 2.1 + k, 0.3) for k, n in enumerate((10, 10, 3))]
    teacher = np.cos(np.arange(1, 5))
    return points(*x, *(np.sign(each @ teacher) for each in x))


def solved(problem, factor, name, gamma1, gamma2, delta, beta=20.0):
    settings = BayesSettings(name, gamma1 / factor, gamma2 / factor, beta, 2 * beta, delta)
    return solve_bayes(data_of(problem, factor), settings)


def same(found, scaled, factor, tolerance):
    assert scaled.status == found.status
    for name in NEEDS:
        unit = factor**2 if name in LOSSES else 1.0
        size = max(abs(found.values[name]), abs(found.values.get("baseline", 0.0)) if name == "gain" else 0.0)
        assert abs(scaled.values[name] / unit - found.values[name]) <= tolerance * size, name
    assert scaled.info["route"] == found.info["route"]
    assert scaled.gap_floor == pytest.approx(found.gap_floor, rel=0.1, abs=1e-12)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(("gamma1", "gamma2", "delta"), [(1.5, 1.0, 1.5), (1e-4, 2.0, 0.3), (8.0, 0.01, np.inf)])
def test_linear_networks_know_only_the_product(factor, gamma1, gamma2, delta):
    found, scaled = (solved(problem_a(), c, "linear", gamma1, gamma2, delta) for c in (1.0, factor))
    same(found, scaled, factor, 1e-9)


@pytest.mark.parametrize("case", CASES)
def test_whitened_data_know_only_the_product(case):
    rng = np.random.default_rng(0)
    norms, gammas = rng.uniform(0.1, 9, (2, 20)), 10 ** rng.uniform(-4, 2, (2, 20))
    more = {"beta1": 10 ** rng.uniform(-1, 4, 20), "beta2": 5.0, "delta": 10 ** rng.uniform(-3, 3, 20)}
    more |= {"overlap": 0.4} if case == "labels" else {}

    def of(c):
        return whitened(
            case, gamma1=gammas[0] / c, gamma2=gammas[1] / c, norm1=c**2 * norms[0], norm2=c**2 * norms[1], **more
        )

    found = of(1.0)
    for c in FACTORS:
        for name, values in of(c).items():
            unit = c**2 if name in ("u", "train_loss") else 1.0
            if name not in ("residual", "status"):
                np.testing.assert_allclose(values / unit, found[name], rtol=1e-10, err_msg=name)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
    ("name", "gamma1", "gamma2", "delta"),
    [("tanh", 1.5, 1.0, 1.5), ("erf", 1e-4, 0.5, 0.4), ("tanh", 1.0, 0.01, np.inf), ("relu", 0.4, 0.7, 0.0)],
)
def test_quadrature_knows_only_the_product(name, gamma1, gamma2, delta, factor):
    problem = problem_b()
    found, scaled = (solved(problem, c, name, gamma1, gamma2, delta) for c in (1.0, factor))
    assert found.info["route"] == "quadrature"
    found.values["loss"] = scaled.values["loss"] = found.values["gain"] = scaled.values["gain"] = 0.0  # no test labels
    for each in (found, scaled):
        each.values.update({n: 0.0 for n, value in each.values.items() if np.isnan(value)})
    same(found, scaled, factor, 1e-6)


@pytest.mark.parametrize(("name", "gamma"), [("erf", 1e-5), ("relu", 0.3)])
def test_sampling_knows_only_the_product(name, gamma):
    """Factors of two and one seed: every state of the chains is the same, to the last digit."""
    p, act = small_problem(), activation(name)
    few = {"seed": 1, "moves": 20, "doublings": 0}

    def of(c):
        source = sampled_source(act, p.x, p.source, c * p.y1, gamma / c, 20.0, chains=64, **few)
        if act.homogeneous:
            return source, source
        source = replace(source, neurons=source.neurons[::256])
        return source, sampled_target(act, p.x, p.target, c * p.y2, gamma / c, 10.0, 1.0, source, **few)

    found = of(1.0)
    assert found[0].gap_floor > 0
    c = 2.0**-12
    for one, other in zip(found, of(c), strict=True):
        assert (other.status, other.message) == (one.status, one.message)
        np.testing.assert_array_equal(other.v / c, one.v)
        np.testing.assert_array_equal(other.outputs / c, one.outputs)
        np.testing.assert_array_equal(other.kernel, one.kernel)
        assert (other.free_energy, other.gap, other.gap_floor) == (one.free_energy, one.gap, one.gap_floor)
        assert other.info["spread_v"] == one.info["spread_v"]
