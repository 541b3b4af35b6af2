"""The ridge of least averaged loss."""

import numpy as np
import pytest

from tests.averages.test_grid import spoil
from tests.averages.test_pool import random_pool
from tlcli.averages.best import at_best, chosen, tried
from tlcli.averages.grid import GridAxes, averaged


def sought(kernel, y, axes, method):
    line = tried(kernel, axes)
    found = averaged(kernel, y, line, method, np.random.default_rng(0))
    weights, ridge = chosen(np.asarray(line.ridges), found.losses.mean(axis=-1))
    return at_best(found, weights, ridge, y**2), ridge, line


def test_a_parabola_has_its_minimum_between_the_ridges():
    ridges = np.geomspace(1e-3, 1e3, 13)
    where = np.array([0.2, 7.0])
    losses = 1 + 0.1 * (np.log(ridges)[None] - np.log(where)[:, None]) ** 2
    weights, found = chosen(ridges, losses)
    np.testing.assert_allclose(found, where, rtol=1e-9)
    np.testing.assert_allclose(np.sum(weights * losses, axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)


def test_no_ridge_and_one_without_end_may_be_the_best():
    ridges = np.array([0.0, *np.geomspace(1e-3, 1e3, 7), 1e6])
    rising = np.arange(9.0)
    weights, found = chosen(ridges, np.array([rising, rising[::-1], np.abs(rising - 1)]))
    assert found[:2].tolist() == [0.0, np.inf]
    assert found[2] == pytest.approx(1e-3)
    assert weights[0].tolist() == [1.0] + [0.0] * 8


def test_the_best_ridge_of_gaussian_features_is_that_of_the_posterior():
    """y = x·β + σ ε with β of covariance 1/D: λ = σ² D/P. Half of it and twice are not."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 60))
    y = x @ (b := rng.standard_normal(60)) / np.linalg.norm(b)
    _, ridge, _ = sought(x @ x.T, y, GridAxes([90, 150], [0.0], noises=[0.5]), "homogeneous")
    np.testing.assert_allclose(ridge.ravel(), 0.25 * 60 / np.array([90, 150]), rtol=0.15)


@pytest.mark.parametrize("method", ["pointwise", "subsets"])
def test_no_given_ridge_is_better(method):
    kernel, y = random_pool(100, width=0.2)
    axes = GridAxes([15, 40], [0.0], noises=[0.0, 0.5])
    best, ridge, line = sought(kernel, y, axes, method)
    assert best.losses.shape == (2, 1, 2, 1, 100)
    assert ridge.shape == (2, 2, 1)
    given = averaged(kernel, y, GridAxes([15, 40], line.ridges, axes.noises), method, np.random.default_rng(0))
    least = given.losses.mean(axis=-1).min(axis=1)
    assert np.all(best.losses.mean(axis=-1)[:, 0] <= least * (1 + 1e-9))
    np.testing.assert_allclose(best.losses.mean(axis=-1)[:, 0], least, rtol=0.02)
    assert np.all(ridge[:, 1] >= ridge[:, 0])  # noise asks for more
    assert ridge[1, 1] > ridge[1, 0]


def test_samples_beyond_the_rank_have_a_ridge():
    x = np.random.default_rng(1).standard_normal((60, 5))
    axes = tried(x @ x.T, GridAxes([10], [0.0]))
    assert min(axes.ridges) > 0
    assert min(tried(x @ x.T, GridAxes([4], [0.0])).ridges) == 0


def test_ridges_of_the_mean_loss_stay_so_where_times_are_those_of_the_sum():
    kernel, _ = random_pool(30)
    axes = tried(kernel, GridAxes([10], [0.0], times=[2.0], summed=True))
    ridges, times = axes.of(10)
    assert ridges.tolist() == list(axes.ridges)
    assert times.tolist() == [20.0]


@pytest.mark.parametrize("method", ["auto", "homogeneous"])
def test_where_nothing_can_be_learnt_the_loss_is_that_of_nothing_exactly(method):
    """Labels that are noise to the kernel: the best ridge has no end, and its loss no error; the largest tried has."""
    rng = np.random.default_rng(3)
    x, axes = rng.standard_normal((100, 300)), GridAxes([10, 30], [0.0], noises=[0.5])
    y = rng.standard_normal(100)
    best, ridge, line = sought(x @ x.T, y, axes, method)
    assert np.isinf(ridge).all()
    np.testing.assert_array_equal(best.losses.mean(axis=-1), np.full((2, 1, 1, 1), np.mean(y**2)))
    assert not best.extra.any()
    largest = averaged(x @ x.T, y, GridAxes([10, 30], [line.ridges[-1]], [0.5]), method, np.random.default_rng(0))
    assert np.all(largest.losses.mean(axis=-1) != np.mean(y**2))


def test_the_best_ridge_keeps_the_error_of_what_subsets_correct(monkeypatch):
    """The same at a single given ridge has it; without it an average corrected by subsets would have none."""
    kernel, y = random_pool(200, width=0.05)
    spoil(monkeypatch, lambda p: np.exp(-0.3 * (1 - p / 200)))
    axes = GridAxes([60], [0.0])
    best, ridge, _ = sought(kernel, y, axes, "auto")
    given = averaged(kernel, y, GridAxes([60], [ridge.item()]), "auto", np.random.default_rng(0))
    assert not best.direct.any()
    assert given.extra.item() > 0
    assert best.extra.item() == pytest.approx(given.extra.item(), rel=0.5)
