"""The sampled population against deterministic quadrature, the values of the note, and its own certificate."""

import numpy as np
import pytest

from tests.bayes.problems import SETTINGS, det_inputs, problem_b
from tlcli.bayes.population.source import population_source
from tlcli.bayes.population.target import population_target
from tlcli.bayes.quadrature import quadrature_source, quadrature_target
from tlcli.bayes.saddle import CONVERGED, NOT_CONVERGED
from tlcli.dmft.activations import activation
from tlcli.errors import DomainError

FEW = {"chains": 256, "moves": 100}


def near(found, wanted, part):
    return np.linalg.norm(found - wanted) <= part * np.linalg.norm(wanted)


@pytest.mark.parametrize(("name", "phi"), [("B1", "tanh"), ("B2", "erf")])
def test_both_stages_of_two_dimensions_are_those_of_quadrature(name, phi):
    points, s, act = problem_b(), SETTINGS[name], activation(phi)
    exact = quadrature_source(act, points.x, points.source, points.y1, s["gamma1"], s["beta1"])
    found = population_source(act, points.x, points.source, points.y1, s["gamma1"], s["beta1"], seed=1, **FEW)
    assert found.status == CONVERGED, found.message
    assert near(found.v, exact.v, 0.02)
    assert near(found.kernel, exact.kernel, 0.04)
    assert near(found.outputs, exact.outputs, 0.02)
    assert found.free_energy == pytest.approx(exact.free_energy, abs=0.02)
    wrong = quadrature_source(act, points.x, points.source, points.y1, 1.2 * s["gamma1"], s["beta1"])
    assert not near(found.v, wrong.v, 0.02)  # the tolerance would see another richness
    second = (s["gamma2"], s["beta2"], s["delta"])
    target = quadrature_target(
        act,
        points.x,
        points.target,
        points.y2,
        *second,
        exact,
        source_rows=points.source,
        source_gamma=s["gamma1"],
    )
    sampled = population_target(act, points.x, points.target, points.y2, *second, found, seed=2)
    assert near(sampled.v, target.v, 0.04)
    assert near(sampled.outputs, target.outputs, 0.05)


def test_thirty_points_reproduce_the_note():
    """Case N2 of the theory note: erf, 30 points in 20 dimensions, signs of a linear teacher."""
    x = det_inputs(30, 20, 2.4, 0.7)
    y = np.sign(x @ np.cos(np.arange(1, 21)))
    found = population_source(activation("erf"), x, np.arange(30), y, 1.5, 50.0, seed=0, chains=512, moves=150)
    np.testing.assert_allclose(found.v[:6], [0.308, -0.072, 0.116, -0.109, 0.768, -0.008], atol=0.02)
    assert float(found.v @ found.v) == pytest.approx(6.845, rel=0.03)
    assert found.free_energy == pytest.approx(19.154, abs=0.06)
    # The gap decides alone: this budget is at the edge of what is accepted.
    assert found.gap < 0.1
    assert (found.status == CONVERGED) == (found.gap <= 0.02)


def test_a_run_that_is_too_short_is_not_called_solved():
    rng = np.random.default_rng(7)
    x = rng.standard_normal((40, 20))
    y = np.sign(x @ rng.standard_normal(20))
    found = population_source(
        activation("erf"), x, np.arange(40), y, 3.0, 50.0, seed=0, chains=64, moves=20, doublings=0
    )
    assert found.status == NOT_CONVERGED
    assert found.message


def test_a_tilt_without_a_norm_names_its_direction():
    x = det_inputs(6, 4, 1.3, 0.7)
    y = np.sign(x[:, 0])
    with pytest.raises(DomainError, match="not normalisable; the largest gamma that is, is 0"):
        population_source(activation("he2"), x, np.arange(6), y, 1.0, 10.0, seed=0, **FEW)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"beta": np.inf}, "finite beta"),
        ({"beta": -1.0}, "beta = -1"),
        ({"chains": 100}, "chains = 100"),
        ({"moves": 5}, "moves = 5"),
    ],
)
def test_bad_values_are_refused(more, text):
    settings = {"gamma": 1.0, "beta": 10.0, "seed": 0, **more}
    with pytest.raises(DomainError, match=text):
        population_source(activation("erf"), det_inputs(6, 4, 1.3, 0.7), np.arange(6), np.ones(6), **settings)
