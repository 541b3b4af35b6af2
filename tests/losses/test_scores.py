"""What predictions are worth: calibration against a search, tables of confusion against counting, confidences."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from tlcli.losses import loss_of
from tlcli.losses.scores import calibration, confidences, confusion, cross_calibrated, point_errors, point_losses


def problem(name, n=40, classes=4):
    rng = np.random.default_rng(3)
    if name == "softmax":
        y = np.eye(classes)[rng.integers(0, classes, n)]
        return loss_of(name), 0.3 * y + 0.4 * rng.standard_normal((n, classes)), y
    y = rng.choice([-1.0, 1.0], n)
    return loss_of(name), 0.5 * y + rng.standard_normal(n), y


@pytest.mark.parametrize("name", ["softmax", "logistic", "mse", "hinge2", "huber:0.5"])
def test_calibration_is_the_least_mean_loss_of_a_factor(name):
    loss, f, y = problem(name)

    def mean(tau):
        return float(np.mean(point_losses(loss, tau * f, y)))

    found = calibration(loss, np.stack([f, 3 * f]), y)
    best = minimize_scalar(mean, bounds=(0, 20), method="bounded", options={"xatol": 1e-9})
    assert found[0] == pytest.approx(best.x, rel=1e-4)
    assert mean(found[0]) <= best.fun + 1e-13
    assert found[1] == pytest.approx(found[0] / 3, rel=1e-7), "each on its own, whatever is beside it"


def test_outputs_that_point_the_wrong_way_are_calibrated_to_none_and_sure_ones_without_end():
    loss, f, y = problem("logistic")
    assert calibration(loss, -np.abs(f) * y, y) == 0.0
    assert calibration(loss, np.abs(f) * y, y) > 1e3
    assert calibration(loss, np.zeros_like(f), y) >= 0


@pytest.mark.parametrize("name", ["softmax", "logistic"])
def test_halves_calibrate_each_other(name):
    loss, f, y = problem(name)
    found = cross_calibrated(loss, f, y)
    np.testing.assert_allclose(found[::2], calibration(loss, f[1::2], y[1::2]) * f[::2], rtol=1e-12)
    np.testing.assert_allclose(found[1::2], calibration(loss, f[::2], y[::2]) * f[1::2], rtol=1e-12)


@pytest.mark.parametrize("name", ["logistic", "softmax"])
def test_a_half_without_errors_is_not_made_sure_without_end(name):
    """Eight points, one error among the odd ones: the even half has no best factor, and one error costs little more
    than the logarithm of its size; the factor that it asks for would cost eighty nats and more."""
    loss, right = loss_of(name), np.array([1.0, 1.5, 0.7, -1.0, 1.2, 0.9, 1.1, 1.3])
    y = np.ones(8) if name == "logistic" else np.tile([1.0, 0.0], (8, 1))
    f = right if name == "logistic" else np.stack([right / 2, -right / 2], axis=1)
    calibrated = point_losses(loss, cross_calibrated(loss, f, y), y)
    assert calibrated.mean() < 1.0
    assert calibrated[3] == pytest.approx(np.log1p(9.0), rel=1e-9)  # ln(nC + 1) over a mean margin of 1
    assert point_losses(loss, calibration(loss, f[::2], y[::2]) * f, y)[3] > 80
    # A network that is surer than that, and right, keeps its own outputs rather than losing what it knows.
    sure = 20 * np.abs(f) * (1 if name == "logistic" else [1, -1])
    np.testing.assert_array_equal(cross_calibrated(loss, sure, y), sure)
    # Points that are right but for one, which is hardly wrong, are no better measure of certainty.
    hardly = np.where(np.arange(8) == 0, -1e-9, right)
    f = hardly if name == "logistic" else np.stack([hardly / 2, -hardly / 2], axis=1)
    assert point_losses(loss, cross_calibrated(loss, f, y), y)[3] < 3
    assert point_losses(loss, calibration(loss, f[::2], y[::2]) * f, y)[3] > 15


def test_one_point_is_not_calibrated():
    loss = loss_of("logistic")
    np.testing.assert_array_equal(cross_calibrated(loss, np.array([[0.3], [-2.0]]), np.ones(1)), [[0.3], [-2.0]])


def test_a_confusion_counts_points_and_splits_ties():
    y = np.eye(3)[[0, 0, 1, 2, 2]]
    f = np.array([[2.0, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 0], [0, 0, 5]])
    wanted = [[1, 1, 0], [0, 0.5, 0.5], [1 / 3, 1 / 3, 4 / 3]]
    np.testing.assert_allclose(confusion(f, y), wanted)
    f, y = np.array([1.0, -2.0, -0.1, 0.0]), np.array([1.0, 1.0, -1.0, -1.0])
    np.testing.assert_allclose(confusion(f, y), [[1, 1], [0.5, 1.5]])


@pytest.mark.parametrize("name", ["softmax", "logistic"])
def test_what_a_confusion_leaves_off_its_diagonal_is_the_error(name):
    _, f, y = problem(name)
    f[::5] *= 0.0
    table = confusion(f, y)
    assert 1 - np.trace(table) / len(f) == pytest.approx(point_errors(f, y).mean(), abs=1e-12)
    assert table.sum() == pytest.approx(len(f))


def test_confidence_is_the_probability_of_the_likeliest_class():
    loss, f, _ = problem("softmax")
    p = np.exp(f) / np.exp(f).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(confidences(loss, f), p.max(axis=1), rtol=1e-14)
    two = np.array([800.0, -800.0, 0.0, 1.0])
    np.testing.assert_allclose(confidences(loss_of("logistic"), two), [1, 1, 0.5, 1 / (1 + np.exp(-1))])
    assert confidences(loss_of("mse"), f) is None, "no likelihood of classes"
    assert confidences(loss_of("hinge2"), two) is None
