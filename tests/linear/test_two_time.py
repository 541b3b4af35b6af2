"""DMFT on a time grid = spectral integrals, at second order; long times, infinite data, training noise."""

import numpy as np
import pytest

from tlcli.errors import DomainError
from tlcli.linear.dynamics import integrate_stage
from tlcli.linear.two_time import spectral_two_time, two_time, two_time_extrapolated

FIELDS = ("response_v", "response_delta", "corr_v", "corr_delta")


def errors(run, alpha, sigma):
    exact = spectral_two_time(alpha, run.t, sigma=sigma)
    return np.array([np.max(np.abs(getattr(run, f) - getattr(exact, f))) for f in FIELDS])


@pytest.mark.parametrize("sigma", [0.0, 0.5])
@pytest.mark.parametrize("alpha", [0.4, 1.0, 2.5])
def test_volterra_solution_converges_to_the_spectrum_at_second_order(alpha, sigma):
    steps = np.array([50, 100, 200])
    error = np.array([errors(two_time(alpha, 4.0, n, sigma=sigma), alpha, sigma) for n in steps])
    slopes = -np.polyfit(np.log(steps), np.log(error), 1)[0]
    np.testing.assert_allclose(slopes, 2.0, atol=0.06)
    assert error[-1].max() < 5e-4
    extrapolated = two_time_extrapolated(alpha, 4.0, 200, sigma=sigma)
    assert extrapolated.t.size == 101
    assert errors(extrapolated, alpha, sigma).max() < 2e-6


def test_a_noise_free_bath_is_visibly_wrong():
    """The twin: without the noise term the correlations of noisy labels are off by far more than the grid error."""
    run = two_time(2.5, 4.0, 100)
    assert errors(run, 2.5, 0.5)[2:].min() > 0.02


def test_infinite_data_is_pure_exponential():
    run = two_time_extrapolated(np.inf, 3.0, 400, sigma=0.3)
    decay = np.exp(-run.t)
    np.testing.assert_allclose(run.response_v, decay, atol=1e-8)
    np.testing.assert_array_equal(run.response_delta, 0.0)
    np.testing.assert_allclose(run.corr_v, np.outer(decay, decay), atol=1e-8)
    np.testing.assert_allclose(run.corr_delta, np.outer(decay, decay) + 0.09, atol=1e-8)


@pytest.mark.parametrize("alpha", [0.2, 0.5])
def test_long_times_leave_what_the_data_do_not_see(alpha):
    """[37]: test loss 1 − α, train loss 0 for α < 1."""
    run = two_time_extrapolated(alpha, 40.0, 500)
    assert run.corr_v[-1, -1] == pytest.approx(1 - alpha, abs=1e-3)
    assert run.corr_delta[-1, -1] == pytest.approx(0, abs=2e-4)
    exact = spectral_two_time(alpha, np.array([np.inf]))
    assert exact.corr_v[0, 0] == pytest.approx(1 - alpha, abs=1e-12)


def test_diagonal_is_the_lazy_stage_of_the_mode_equations():
    """k = 1/2 makes 2k = 1: dβ/dt = g, the linear regression of this module. Test and train loss agree."""
    times = np.array([0.3, 1.0, 4.0])
    for alpha, sigma in ((0.4, 0.0), (1.0, 0.3), (2.5, 0.6)):
        lazy = integrate_stage(alpha, 0.0, 4.0, bulk=0.5, sigma=sigma, times=times)
        run = spectral_two_time(alpha, times, sigma=sigma)
        np.testing.assert_allclose(np.diagonal(run.corr_v), lazy.loss[:-1], rtol=1e-9)
        np.testing.assert_allclose(np.diagonal(run.corr_delta), lazy.train_loss[:-1], rtol=1e-9)


def test_correlations_are_symmetric_and_start_at_one():
    run = two_time(0.7, 2.0, 60, sigma=0.2)
    np.testing.assert_allclose(run.corr_v, run.corr_v.T, atol=1e-13)
    np.testing.assert_allclose(run.corr_delta, run.corr_delta.T, atol=1e-13)
    assert run.corr_v[0, 0] == 1.0
    assert run.corr_delta[0, 0] == pytest.approx(1.04)


def test_domain():
    with pytest.raises(DomainError, match="alpha"):
        two_time(0.0, 1.0, 10)
    with pytest.raises(DomainError, match="n_steps"):
        two_time(0.5, 1.0, 0)
    with pytest.raises(DomainError, match="even"):
        two_time_extrapolated(0.5, 1.0, 11)
