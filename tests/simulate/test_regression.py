import numpy as np
import pytest

from tlcli.errors import DomainError, UsageError
from tlcli.linear.linear_transfer import transfer_ansatz, transfer_exact
from tlcli.simulate.predictors import Features, RegressionData, dense_predictor, fit
from tlcli.simulate.regression import draw, simulate_ansatz, simulate_regression, train_source

DIM = 400


def agree(estimate, theory, limit=4.0):
    return abs(estimate.mean - float(theory)) <= limit * max(estimate.se, 1e-9)


@pytest.mark.parametrize("samples", [20, 70])
@pytest.mark.parametrize("ridge", [0.0, 0.2])
@pytest.mark.parametrize("bulk", [1.0, 0.3])
def test_fast_solvers_equal_the_dense_one(samples, ridge, bulk):
    rng = np.random.default_rng(0)
    data = RegressionData(rng.standard_normal((samples, 40)), rng.standard_normal(samples))
    q = np.linalg.qr(rng.standard_normal((40, 2)))[0]
    c = np.array([[2.0, 0.5], [0.5, 0.1]])
    covariance = bulk * np.eye(40) + q @ c @ q.T
    beta, baseline = fit(data, Features(bulk, q, c), bulk, ridge=ridge)
    np.testing.assert_allclose(beta, dense_predictor(data, covariance, ridge=ridge), atol=1e-12)
    np.testing.assert_allclose(beta, dense_predictor(data, covariance, ridge=ridge, time=1e6), atol=1e-10)
    np.testing.assert_allclose(baseline, dense_predictor(data, np.eye(40) * bulk, ridge=ridge), atol=1e-12)
    stationary = covariance @ (data.x.T @ (data.y - data.x @ beta)) / samples - ridge * beta
    np.testing.assert_allclose(stationary, 0, atol=1e-12)


def test_infinite_spike_and_population():
    rng = np.random.default_rng(1)
    n = np.linalg.qr(rng.standard_normal((40, 1)))[0]
    for data in (
        RegressionData(rng.standard_normal((20, 40)), rng.standard_normal(20)),
        RegressionData(None, rng.standard_normal(40)),
    ):
        for ridge in (0.0, 0.4):
            limit = fit(data, Features(1.0, n, np.array([[np.inf]])), 1.0, ridge=ridge)[0]
            large = fit(data, Features(1.0, n, np.array([[1e9]])), 1.0, ridge=ridge)[0]
            np.testing.assert_allclose(limit, large, atol=1e-6)


POINTS = {
    "weight decay": {"alpha1": 0.6, "alpha2": 0.4, "rho": 0.8, "gamma0": 2.0, "weight_decay": 0.3, "ridge": 0.1},
    "collapse": {"alpha1": 1.0, "alpha2": 0.4, "rho": 0.8, "gamma0": 0.5, "weight_decay": 1.0},
    "rho_xi": {"alpha1": 0.5, "alpha2": 0.6, "rho": 0.5, "rho_xi": 0.6, "gamma0": 3.0, "sigma1": 0.3},
    "time": {"alpha1": 0.5, "alpha2": 0.6, "rho": 0.8, "gamma0": 1.5, "time": 1.3, "sigma2": 0.4},
    "time, many samples": {"alpha1": 2.0, "alpha2": 1.6, "rho": 0.8, "gamma0": 1.5, "time": 0.8, "ridge": 0.2},
    "t1": {"alpha1": 0.7, "alpha2": 0.6, "rho": 0.8, "gamma0": 2.0, "t1": 0.8, "sigma1": 0.3},
    "t1, decay": {"alpha1": 1.5, "alpha2": 0.6, "rho": 0.8, "gamma0": 2.0, "t1": 1.5, "weight_decay": 0.2},
    "small init": {"alpha1": 0.7, "alpha2": 0.6, "rho": 0.8, "gamma0": 2.0, "init_scale": 0.5, "ridge": 0.2},
    "ultra-rich": {"alpha1": 0.7, "alpha2": 0.6, "rho": 0.8, "gamma0": 2.0, "init_scale": 0.0},
    "infinite gamma0": {"alpha1": 0.7, "alpha2": 0.6, "rho": 0.8, "gamma0": np.inf, "sigma1": 0.2},
    "ntk": {"alpha1": 0.7, "alpha2": 0.6, "rho": 0.8, "gamma0": 2.0, "kernel": "ntk", "ridge": 0.3},
    "known source": {"alpha1": np.inf, "alpha2": 0.6, "rho": -0.8, "gamma0": 2.0},
    "known target": {"alpha1": 0.7, "alpha2": np.inf, "rho": 0.8, "gamma0": 2.0, "ridge": 0.3},
    "at the threshold": {"alpha1": 1.0, "alpha2": 1.0, "rho": 0.8, "gamma0": 2.0, "ridge": 0.3, "sigma2": 0.3},
}


@pytest.mark.parametrize("name", POINTS)
def test_options_agree_with_theory(name):
    point = POINTS[name]
    simulated = simulate_regression(point, dim=DIM, trials=12, seed=3)
    theory = transfer_exact(**point)
    for field in ("loss", "baseline", "gain"):
        # O(1/D) corrections stand beside the statistical error
        slack = 3.0 / DIM
        assert abs(simulated[field].mean - float(getattr(theory, field))) <= 4 * simulated[field].se + slack, field


def test_ansatz_agrees_with_theory():
    kernel = {"c_signal": 1.5, "c_cross": -0.4, "c_noise": 0.3}
    more = {"alpha2": 0.6, "rho": 0.7, "rho_xi": 0.4, "sigma2": 0.2, "ridge": 0.1}
    simulated = simulate_ansatz({**kernel, **more}, dim=DIM, trials=20, seed=1)
    theory = transfer_ansatz(1.0, gamma0=1.0, **kernel, **more)
    for field in ("loss", "baseline", "gain", "train_loss"):
        assert agree(simulated[field], getattr(theory, field)), field
    wrong = transfer_ansatz(1.0, gamma0=1.0, **(kernel | {"c_cross": 0.4}), **more)
    assert not agree(simulated["gain"], wrong.gain, 6)
    with pytest.raises(DomainError, match="eigenvalue"):
        simulate_ansatz({"alpha2": 1.0, "c_signal": -2.0, "c_cross": 0.0, "c_noise": 0.0}, dim=20, trials=1, seed=0)


def test_teacher_scale():
    point = {"alpha1": 0.5, "alpha2": 0.6, "rho": 0.7, "gamma0": 2.0, "sigma1": 0.3, "sigma2": 0.2, "ridge": 0.1}
    c = 2.5
    plain = simulate_regression(point, dim=100, trials=3, seed=0)
    scaled = simulate_regression(point | {"gamma0": 2.0 / c, "teacher_scale": c}, dim=100, trials=3, seed=0)
    for name in ("loss", "baseline", "gain", "train_loss", "source_loss"):
        assert scaled[name].mean == pytest.approx(c**2 * plain[name].mean, rel=1e-10)
    assert scaled["spike"].mean == pytest.approx(plain["spike"].mean, rel=1e-12)


def test_sample_permutation_and_rotation_leave_the_source_alone():
    rng = np.random.default_rng(2)
    data = draw(rng, np.eye(30)[0], 20, 0.3)
    order, rotation = rng.permutation(20), np.linalg.qr(rng.standard_normal((30, 30)))[0]
    for options in ({}, {"weight_decay": 0.2}, {"t1": 1.0}):
        one = train_source(data, 1.5, **options)
        two = train_source(RegressionData(data.x[order] @ rotation, data.y[order]), 1.5, **options)
        np.testing.assert_allclose(one.beta @ rotation, two.beta, atol=1e-7)
        assert one.spike == pytest.approx(two.spike, rel=1e-7)


def test_long_pretraining_reaches_the_interpolator_and_the_decayed_fixed_point():
    data = draw(np.random.default_rng(4), np.eye(30)[0], 12, 0.3)
    late, limit = train_source(data, 1.0, t1=300.0), train_source(data, 1.0)
    np.testing.assert_allclose(late.beta, limit.beta, atol=1e-6)
    late, limit = train_source(data, 1.0, 0.1, t1=300.0), train_source(data, 1.0, 0.1)
    np.testing.assert_allclose(late.beta, limit.beta, atol=1e-6)
    assert late.spike == pytest.approx(limit.spike, abs=1e-6)


def test_bias_shrinks_as_one_over_dimension():
    point = {"alpha1": 0.7, "alpha2": 0.75, "rho": 0.9, "gamma0": 3.0, "sigma1": 0.3, "sigma2": 0.9}
    theory = float(transfer_exact(**point).gain)
    dims = np.array([40, 80, 160])
    runs = [simulate_regression(point, dim=int(d), trials=2000, seed=int(d))["gain"] for d in dims]
    bias, se = np.array([run.mean for run in runs]) - theory, np.array([run.se for run in runs])
    assert (np.abs(bias) > 4 * se).all()
    x, w = np.log(dims), (bias / se) ** 2  # log|bias| weighted by its own precision
    spread = w * (x - np.average(x, weights=w))
    slope = np.sum(spread * np.log(np.abs(bias))) / np.sum(spread * x)
    error = 1 / np.sqrt(np.sum(spread * x))
    assert abs(slope + 1) < 3 * error
    assert error < 0.25


def test_usage_errors():
    with pytest.raises(UsageError, match="did you mean 'gamma0'"):
        simulate_regression({"alpha1": 1.0, "alpha2": 1.0, "gama0": 1.0}, dim=10, trials=1, seed=0)
    with pytest.raises(UsageError, match="needs a value for 'alpha2'"):
        simulate_regression({"alpha1": 1.0}, dim=10, trials=1, seed=0)
    base = {"alpha1": 1.0, "alpha2": 0.5}
    for change, message in (
        ({"kernel": "relu"}, "kernel = 'relu'"),
        ({"alpha2": 0.001}, "no sample"),
        ({"rho": 0.9, "rho_xi": 0.9}, "may not exceed 1"),
        ({"gamma0": np.inf, "time": 1.0}, "gamma0 = inf"),
        ({"gamma0": np.inf, "t1": 1.0}, "gamma0 = inf"),
    ):
        with pytest.raises(UsageError, match=message):
            simulate_regression(base | change, dim=10, trials=1, seed=0)
