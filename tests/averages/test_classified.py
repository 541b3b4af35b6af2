"""Direct averages of any loss."""

import itertools

import numpy as np
import pytest

from tlcli.averages.classified import PoolTask, averaged_scores, few_scores
from tlcli.averages.grid import GridAxes
from tlcli.losses import loss_of


def pool(size=6, dim=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((size, dim))
    return x, x @ x.T, np.where(x[:, 0] + 0.3 * rng.standard_normal(size) > 0, 1.0, -1.0)


def rng():
    return np.random.default_rng(3)


def test_the_squared_error_is_ridge_regression_on_every_subset():
    _, kernel, y = pool()
    loss, error = averaged_scores(kernel, PoolTask(loss_of("mse"), y, 2), GridAxes([3], [0.1]), rng())
    squares, wrong = [], []
    for chosen in map(list, itertools.combinations(range(6), 3)):
        rest = [i for i in range(6) if i not in chosen]
        weights = np.linalg.solve(kernel[np.ix_(chosen, chosen)] + 0.3 * np.eye(3), y[chosen])
        f = kernel[np.ix_(rest, chosen)] @ weights
        squares.append(np.mean((f - y[rest]) ** 2))
        wrong.append(np.mean(f * y[rest] < 0))
    assert loss.losses.mean() == pytest.approx(np.mean(squares), rel=1e-9)
    assert error.losses.mean() == pytest.approx(np.mean(wrong), rel=1e-9)
    assert loss.extra.item() == pytest.approx(np.std(squares, ddof=1) / np.sqrt(20), rel=1e-9)


def test_the_logistic_loss_is_scikit_learns():
    from sklearn.linear_model import LogisticRegression

    x, kernel, y = pool(8, seed=1)
    problem = PoolTask(loss_of("logistic"), y, 2)
    few = few_scores(kernel, problem, GridAxes([6], [0.05]), [1])
    (loss, error) = averaged_scores(kernel, problem, GridAxes([6], [0.05]), rng())
    losses, wrong = [], []
    for chosen in map(list, itertools.combinations(range(8), 6)):
        rest = [i for i in range(8) if i not in chosen]
        if len(set(y[chosen])) < 2:
            pytest.fail("the pool is too one-sided for scikit-learn")
        fit = LogisticRegression(C=1 / (0.05 * 6), fit_intercept=False, tol=1e-10).fit(x[chosen], y[chosen])
        u = y[rest] * (x[rest] @ fit.coef_[0])
        losses.append(np.mean(np.logaddexp(0, -u)))
        wrong.append(np.mean(u < 0))
    assert loss.losses.mean() == pytest.approx(np.mean(losses), rel=1e-5)
    assert error.losses.mean() == pytest.approx(np.mean(wrong))
    assert few.shape == (2, 1, 1, 1, 1)


def test_flips_shrink_and_shake_the_labels():
    """Squared loss: f = W y with y flipped has the mean (1 − 2p) W y and the variance 4p(1 − p) Σ W²."""
    _, kernel, y = pool(40, 10)
    share, losses = 0.2, []
    problem = PoolTask(loss_of("mse"), y, 2, flips=True)
    for seed in range(30):
        (found, _) = averaged_scores(kernel, problem, GridAxes([10], [0.5], [share]), np.random.default_rng(seed))
        losses.append(found.losses.mean())
    shrunk, quiet = [], []
    generator = np.random.default_rng(99)
    for _ in range(1500):
        chosen = generator.choice(40, 10, replace=False)
        rest = np.setdiff1d(np.arange(40), chosen)
        inverse = np.linalg.inv(kernel[np.ix_(chosen, chosen)] + 5.0 * np.eye(10))
        w = kernel[np.ix_(rest, chosen)] @ inverse
        noise = 4 * share * (1 - share) * np.sum(w**2, axis=1)
        shrunk.append(np.mean(((1 - 2 * share) * w @ y[chosen] - y[rest]) ** 2 + noise))
        quiet.append(shrunk[-1] - np.mean(noise))
    error = np.hypot(np.std(losses, ddof=1) / np.sqrt(30), np.std(shrunk, ddof=1) / np.sqrt(1500))
    assert abs(np.mean(losses) - np.mean(shrunk)) < 4 * error
    assert abs(np.mean(losses) - np.mean(quiet)) > 4 * error


def test_numbers_have_no_error_and_take_gaussian_noise():
    _, kernel, y = pool(12, 3)
    (loss,) = averaged_scores(
        kernel, PoolTask(loss_of("huber:1"), 2 * y, None), GridAxes([5], [0.1], [0.0, 1.0]), rng()
    )
    assert loss.losses[0, 0, 1].mean() > loss.losses[0, 0, 0].mean()


def test_several_classes_learn_something():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3.0), 10)
    x = np.eye(3)[labels.astype(int)] * 3 + generator.standard_normal((30, 3))
    problem = PoolTask(loss_of("softmax"), labels, 3)
    loss, error = averaged_scores(x @ x.T, problem, GridAxes([6, 20], [0.05]), rng())
    assert error.losses[1].mean() < error.losses[0].mean() < 0.5
    assert loss.losses[1].mean() < np.log(3)
    assert error.direct.all()
