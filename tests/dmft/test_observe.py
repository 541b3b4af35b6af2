"""What is read off a population: alignments, kernels, densities of preactivations."""

import numpy as np
import pytest
from scipy import stats

from tests.dmft.problems import field_of, gaussians, state_of, teacher_problem
from tlcli.dmft.integrate import Control
from tlcli.dmft.observe import BIN_EDGES, Watch, preactivation_density
from tlcli.dmft.population import quadrature
from tlcli.dmft.two_layer import View, run_population

TIMES = [0.0, 0.5, 2.0]


def view_of(problem, population):
    still = population.still if population.still.shape[1] else None
    return View(field_of(problem, population), state_of(population), problem.geometry, still, 1.0)


def test_density_of_gaussians():
    """At initialisation every preactivation is Gaussian with the variance of its input; 4 standard errors."""
    problem, _ = teacher_problem("tanh", 20, 6, 30, TIMES)
    population = gaussians(problem, 20_000, seed=1)
    view = view_of(problem, population)
    assert view.preactivations([0]).shape == (20_000, 1)
    for point in (0, 7, 40):  # training points of both stages, and one outside their span
        found = preactivation_density(view, np.array([point]))
        variance = float(np.sum(problem.geometry.moving[point] ** 2) + np.sum(problem.geometry.still[point] ** 2))
        assert found["variance"] == pytest.approx(variance, rel=4 * np.sqrt(2 / 20_000))
        assert abs(found["excess_kurtosis"]) < 4 * np.sqrt(24 / 20_000)
        assert np.sum(found["density"] * np.diff(BIN_EDGES)) == pytest.approx(1.0, abs=1e-12)
        expected = np.diff(stats.norm.cdf(BIN_EDGES, scale=np.sqrt(variance)))
        counts = found["density"] * np.diff(BIN_EDGES)
        assert np.max(np.abs(counts - expected) / np.sqrt(expected / 20_000 + 1e-7)) < 5


def test_kurtosis_of_something_else():
    problem, _ = teacher_problem("tanh", 1, 3, 0, TIMES)
    population = gaussians(problem, 20_000)
    population.hidden[:] = np.sign(population.hidden)  # two values: excess kurtosis -2
    assert preactivation_density(view_of(problem, population), np.array([0]))["excess_kurtosis"] == pytest.approx(-2)
    population.hidden[:] = np.random.default_rng(0).laplace(size=population.hidden.shape)  # 3 for Laplace
    found = preactivation_density(view_of(problem, population), np.array([0]))["excess_kurtosis"]
    assert found == pytest.approx(3, abs=0.7)


def test_weights_of_a_quadrature_count():
    problem, _ = teacher_problem("tanh", 1, 3, 0, TIMES)
    view = view_of(problem, quadrature(problem.act, 1, 20_000))
    found = preactivation_density(view, np.array([1]))
    variance = problem.geometry.moving[1, 0] ** 2
    assert found["variance"] == pytest.approx(variance, abs=1e-6)
    assert found["excess_kurtosis"] == pytest.approx(0.0, abs=1e-4)
    assert np.sum(found["density"] * np.diff(BIN_EDGES)) == pytest.approx(1.0, abs=1e-6)


def test_the_density_is_an_average_over_points():
    problem, _ = teacher_problem("tanh", 4, 6, 0, TIMES)
    view = view_of(problem, gaussians(problem, 500))
    both, one, two = (preactivation_density(view, np.array(p)) for p in ([0, 1], [0], [1]))
    np.testing.assert_allclose(both["density"], (one["density"] + two["density"]) / 2, atol=1e-12)
    assert both["variance"] == pytest.approx((one["variance"] + two["variance"]) / 2)


def test_a_watch_by_brute_force():
    # More dimensions than training points: the kernels include what lies outside the span.
    problem, labels = teacher_problem("softplus", 10, 3, 6, TIMES, gamma2=1.4, decay=0.2)
    population = gaussians(problem, 200)
    train, test = np.arange(6), np.arange(6, 12)
    watch = Watch(
        {"target": (np.arange(3, 6), labels[1, 3:6]), "test": (test, labels[1, 6:])},
        np.arange(12),
        train,
        np.arange(3, 6),
        [frozenset({0, 2}), frozenset({1})],
    )
    runs = run_population(problem, population, Control("rkc", 1e-6), observe=watch)
    assert [len(run.observed["test_alignment"]) for run in runs] == [3, 3]
    assert [len(run.observed["phi"]) for run in runs] == [2, 1]

    def features(z, faded):
        h = z[:-200].reshape(200, -1) @ problem.geometry.moving.T
        h = h + faded * population.still @ problem.geometry.still.T
        return (*problem.act.both(h), h, z[-200:])

    end = features(runs[0].outcome.state, np.exp(-0.2 * 2.0))
    for record, (phi, slope, h, a) in ((0, features(state_of(population), 1.0)), (-1, end)):
        kernel = phi.T @ phi / 200
        np.testing.assert_allclose(runs[0].observed["phi"][record], kernel[:, train], rtol=1e-10)
        g = (slope * a[:, None] ** 2).T @ slope / 200
        np.testing.assert_allclose(runs[0].observed["g"][record], g[:, train], rtol=1e-10)
        for name, points in (("target", np.arange(3, 6)), ("test", test)):
            y, k = labels[1, points], kernel[np.ix_(points, points)]
            expected = (y @ k @ y) / (y @ y) / np.linalg.norm(k)
            assert runs[0].observed[f"{name}_alignment"][record] == pytest.approx(expected, rel=1e-10)
        assert runs[0].observed["variance"][record] == pytest.approx(np.mean(h[:, 3:6] ** 2), rel=1e-10)


def test_alignment_of_what_is_no_number():
    problem, labels = teacher_problem("tanh", 4, 6, 0, TIMES)
    population = gaussians(problem, 50)
    population.readout[0] = population.hidden[0, 0] = np.nan
    watch = Watch(
        {"target": (np.arange(6, 12), labels[1, 6:])}, np.arange(12), np.arange(12), np.arange(6), [frozenset()]
    )
    assert np.isnan(watch(0, 0, 0.0, view_of(problem, population))["target_alignment"])
