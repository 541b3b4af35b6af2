"""Trained predictors of the experiments against least squares, the flow itself, and geometry."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from tlcli.errors import ConvergenceError, DomainError
from tlcli.simulate.network import descend_readout
from tlcli.simulate.predictors import RegressionData, dense_predictor, flow_filter
from tlcli.simulate.regression import least_norm, mix_teachers, target_of
from tlcli.simulate.trials import complete_point, summarise, unit_vector


def data_of(samples, dim, seed=0):
    rng = np.random.default_rng(seed)
    return RegressionData(rng.standard_normal((samples, dim)), rng.standard_normal(samples))


def covariance_of(dim, seed=1):
    root = np.random.default_rng(seed).standard_normal((dim, dim))
    return root @ root.T / dim


@pytest.mark.parametrize(("ridge", "time"), [(0.0, 2.0), (0.3, 2.0), (0.3, np.inf), (0.0, 1e-14), (0.5, 0.0)])
def test_the_filter_is_the_integral_of_a_decay(ridge, time):
    z = np.array([0.0, 1e-9, 0.1, 3.0])
    rate = z + ridge
    if np.isinf(time):
        expected = 1 / rate
    else:
        t, w = np.polynomial.legendre.leggauss(60)
        expected = (np.exp(-rate[:, None] * time * (1 + t) / 2) * w).sum(axis=1) * time / 2
    np.testing.assert_allclose(flow_filter(z, ridge, time), expected, rtol=1e-12, atol=1e-30)


def test_directions_without_data_are_never_learned():
    np.testing.assert_array_equal(flow_filter(np.array([0.0, 2.0]), 0.0, np.inf), [0.0, 0.5])
    np.testing.assert_array_equal(flow_filter(np.zeros(2), 0.0, np.inf), [0.0, 0.0])


@pytest.mark.parametrize("samples", [6, 15])
def test_trained_readouts_follow_the_flow(samples):
    """dβ/dt = M(Xᵀ(y − Xβ)/P) − λβ from zero, by an independent integration."""
    dim, ridge, time = 9, 0.1, 3.0
    data, M = data_of(samples, dim), covariance_of(dim)
    assert data.x is not None
    x, y = data.x, data.y
    flow = solve_ivp(
        lambda t, b: M @ (x.T @ (y - x @ b)) / samples - ridge * b, (0, time), np.zeros(dim), rtol=1e-11, atol=1e-13
    )
    exact = dense_predictor(data, M, ridge=ridge, time=time)
    np.testing.assert_allclose(exact, flow.y[:, -1], rtol=1e-8, atol=1e-10)
    rough, fine = (descend_readout(M, data, ridge, time, safety) for safety in (0.05, 0.025))
    away = [np.linalg.norm(one - exact) for one in (rough, fine)]
    assert away[0] / away[1] == pytest.approx(2, rel=0.1), "descent is of first order in its step"
    assert away[0] < 0.1 * np.linalg.norm(exact)
    np.testing.assert_allclose(descend_readout(M, data, ridge, np.inf), dense_predictor(data, M, ridge=ridge))


def test_descent_that_would_not_end_is_refused():
    data, M = data_of(5, 4), covariance_of(4)
    with pytest.raises(ConvergenceError, match="shorten the stage"):
        descend_readout(M, data, 0.0, 1e12)


@pytest.mark.parametrize("samples", [4, 7, 20])
def test_the_least_norm_is_that_of_least_squares(samples):
    data = data_of(samples, 7)
    expected = np.linalg.lstsq(data.x, data.y, rcond=None)[0]
    np.testing.assert_allclose(least_norm(data), expected, rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(least_norm(RegressionData(None, data.y)), data.y)


def test_teachers_have_the_overlaps_that_are_asked_for():
    rng = np.random.default_rng(5)
    first = unit_vector(rng, 12)
    xi = unit_vector(rng, 12, first)
    second = mix_teachers(rng, first, xi, 0.6, -0.3)
    np.testing.assert_allclose(
        [second @ first, second @ xi, second @ second, first @ xi], [0.6, -0.3, 1, 0], atol=1e-12
    )
    with pytest.raises(DomainError, match="may not exceed 1"):
        mix_teachers(rng, first, xi, 0.9, 0.9)


def test_a_target_knows_the_noise_of_its_source():
    rng = np.random.default_rng(6)
    teacher = unit_vector(rng, 10)
    beta = 0.7 * teacher + 0.4 * unit_vector(rng, 10, teacher)
    n, (n1, n2), second = target_of(rng, beta, teacher, 0.5, 0.2)
    assert np.linalg.norm(n) == pytest.approx(1)
    assert (n1, n2) == pytest.approx((0.7 / np.hypot(0.7, 0.4), 0.4 / np.hypot(0.7, 0.4)))
    noise = (n - n1 * teacher) / n2
    assert (second @ teacher, second @ noise) == pytest.approx((0.5, 0.2))


def test_a_source_without_noise_or_without_a_predictor_has_some_direction_all_the_same():
    rng = np.random.default_rng(7)
    teacher = unit_vector(rng, 10)
    n, (n1, n2), second = target_of(rng, 2 * teacher, teacher, 0.5, 0.2)
    assert (n1, n2) == pytest.approx((1, 0), abs=1e-7)
    assert second @ teacher == pytest.approx(0.5)
    n, _, second = target_of(rng, np.zeros(10), teacher, 0.5, 0.2)
    assert (np.linalg.norm(n), second @ teacher, second @ second) == pytest.approx((1, 0.5, 1))


def test_means_have_the_error_of_their_spread():
    samples = np.random.default_rng(8).standard_normal((400, 3)) * [1, 2, 3]
    found = summarise(samples)
    np.testing.assert_allclose(found.mean, samples.mean(axis=0))
    np.testing.assert_allclose(found.se, np.sqrt(((samples - found.mean) ** 2).sum(axis=0) / 399 / 400))
    assert np.isnan(summarise(samples[:1, 0]).se)
    assert np.isnan(summarise(np.array([1.0, np.inf])).se)


def test_points_are_completed_and_unknown_names_refused():
    assert complete_point({"a": 2}, {"b": 1.0}, ("a",)) == {"a": 2, "b": 1.0}
    for point in ({"a": 2, "c": 1}, {}):
        with pytest.raises(Exception, match=r"c|a"):
            complete_point(point, {"b": 1.0}, ("a",))
