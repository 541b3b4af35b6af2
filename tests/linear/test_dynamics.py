"""One stage of training: reference numbers, exact limits, ridge with weight decay, and direct integration on data."""

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from tlcli.errors import DomainError
from tlcli.linear.dynamics import integrate_pretraining, integrate_stage
from tlcli.linear.linear_transfer import transfer_exact
from tlcli.linear.spectrum import marchenko_pastur
from tlcli.status import Status

REFERENCE = Path(__file__).parents[1] / "reference" / "linear.csv"


def reference_points():
    points = {}
    with REFERENCE.open() as file:
        for row in csv.DictReader(file):
            if row["quantity"].startswith("joint_"):
                key = tuple(row[k] for k in row if k not in ("quantity", "value"))
                points.setdefault(key, dict(row))[row["quantity"]] = float(row["value"])
    return list(points.values())


@pytest.mark.parametrize("row", reference_points(), ids=lambda row: row["alpha1"])
def test_reference_after_stage_one(row):
    run = integrate_pretraining(
        float(row["alpha1"]), float(row["gamma1"]), float(row["t1"]), sigma1=float(row["sigma1"])
    )
    assert run.status == Status.CONVERGED
    assert run.residual < 1e-9
    for name, value in (("overlap", run.overlap), ("norm2", run.norm2), ("loss1", run.loss)):
        assert value == pytest.approx(row["joint_" + name], rel=1e-9), name


def brute_force(point, t_end, weight_decay=0.0):
    """(*) mode by mode with C, E and N all independent, by an explicit method: nothing of the reduction is used."""
    alpha, gamma, sigma, start, bulk, r = point
    ell, w = marchenko_pastur(alpha, 200)
    n = ell.size

    def rhs(t, y):
        c, e, noise = y.reshape(3, n)
        k = bulk * np.exp(-2 * weight_decay * t)
        gc, ge, gn = ell * (1 - c), -ell * e, sigma * np.sqrt(ell / alpha) - ell * noise
        norm2 = np.sum(w * (c**2 + e**2 + 2 * r * c * e + noise**2))
        pull = np.sum(w * (c * gc + e * ge + r * (c * ge + e * gc) + noise * gn))
        s = np.sqrt(k**2 + gamma**2 * norm2)
        spike = 0.0 if norm2 == 0 else (s - k) * pull / norm2
        x = np.stack([c, e, noise])
        return ((s + k) * np.stack([gc, ge, gn]) + (spike - 2 * weight_decay) * x).ravel()

    y0 = np.concatenate([np.zeros(n), np.full(n, float(start)), np.zeros(n)])
    y = solve_ivp(rhs, (0, t_end), y0, method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
    c, e, noise = y.reshape(3, n)
    residual = ell * ((1 - c) ** 2 + e**2 - 2 * r * (1 - c) * e) + np.where(
        ell > 0, (sigma / np.sqrt(alpha) - np.sqrt(ell) * noise) ** 2, 0
    )
    return {
        "signal": np.sum(w * c),
        "carried": np.sum(w * e),
        "norm2": np.sum(w * (c**2 + e**2 + 2 * r * c * e + noise**2)),
        "loss": np.sum(w * ((1 - c) ** 2 + e**2 - 2 * r * (1 - c) * e + noise**2)),
        "train_loss": np.sum(w * residual) + sigma**2 * max(0.0, 1 - 1 / alpha),
    }


@pytest.mark.parametrize("weight_decay", [0.0, 0.15])
@pytest.mark.parametrize(
    "point",
    [
        # alpha, gamma, sigma, start, bulk, r
        (0.4, 1.3, 0.0, 0.0, 1.0, 0.0),
        (2.2, 6.0, 0.4, 0.0, 0.3, 0.0),
        (0.6, 0.0, 0.5, 0.0, 1.0, 0.0),
        (0.5, 2.0, 0.3, 1.7, 0.8, 0.6),
        (1.7, 0.7, 0.2, 0.9, 1.0, -0.8),
        (0.7, 1.5, 0.0, 0.6, 0.0, 0.3),
        (0.5, 1.0, 0.1, 0.0, 1e-5, 0.0),
    ],
)
def test_reduced_equations_equal_the_full_ones(point, weight_decay):
    alpha, gamma, sigma, start, bulk, r = point
    run = integrate_stage(
        alpha, gamma, 4.0, start=start, bulk=bulk, alignment=r, sigma=sigma, weight_decay=weight_decay, times=[0.5]
    )
    for column, t in enumerate((0.5, 4.0)):
        for name, value in brute_force(point, t, weight_decay).items():
            assert getattr(run, name)[column] == pytest.approx(value, rel=2e-9, abs=1e-10), (name, t)


def test_carried_field_is_the_closed_form_of_tau_and_phi():
    run = integrate_stage(0.5, 2.0, 1.5, start=1.2, alignment=0.4, weight_decay=0.1)
    ell, w = marchenko_pastur(0.5)
    assert run.carried[0] == pytest.approx(np.sum(w * 1.2 * np.exp(run.phi[0] - ell * run.tau[0])), rel=1e-9)


def test_recorded_times_in_any_order_equal_separate_runs():
    times = np.array([1.0, 0.0, 0.25])
    run = integrate_stage(0.7, [[0.5], [20.0]], 3.0, sigma=0.2, times=times)
    for column, t in enumerate([*times, 3.0]):
        alone = integrate_stage(0.7, [[0.5], [20.0]], t, sigma=0.2)
        np.testing.assert_allclose(run.loss[..., column], alone.loss[..., 0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(run.loss[..., 1], 1.0)


def test_lazy_limit_is_gradient_flow_on_a_fixed_kernel():
    """γ = 0: dβ/dt = 2k g with k = κ² e^{−2λt}, so 1 − C = e^{−2κ²ℓt}; a small γ is close."""
    alpha, sigma, t, scale = 0.6, 0.4, 1.3, 1.2
    ell, w = marchenko_pastur(alpha)
    left = np.exp(-2 * scale**2 * ell * t)
    noise = np.divide(sigma**2 * (1 - left) ** 2, alpha * ell, out=np.zeros_like(ell), where=ell > 0)
    run = integrate_pretraining(alpha, [0.0, 1e-4], t, sigma1=sigma, init_scale=scale)
    np.testing.assert_allclose(run.overlap, np.sum(w * (1 - left)), rtol=1e-7)
    np.testing.assert_allclose(run.loss, np.sum(w * (left**2 + noise)), rtol=1e-7)
    assert run.overlap[0] == pytest.approx(np.sum(w * (1 - left)), rel=1e-11)


def test_infinite_data_is_one_mode():
    """α = ∞, ℓ = 1: C obeys dC/dt = S (1 − C) + γ²(1 − C) C²/S, with no fluctuations."""

    def rhs(t, c):
        s = 1 + np.sqrt(1 + 9 * c**2)
        return s * (1 - c) + 9 * c**2 * (1 - c) / s

    c = solve_ivp(rhs, (0, 0.4), [0.0], rtol=1e-12, atol=1e-14).y[0, -1]
    run = integrate_pretraining(np.inf, 3.0, 0.4, sigma1=0.7)
    assert run.overlap == pytest.approx(c, rel=1e-9)
    assert run.norm2 == pytest.approx(c**2, rel=1e-9)
    assert run.train_loss == pytest.approx((1 - c) ** 2 + 0.49, rel=1e-9)


def test_endless_training_ends_in_minimum_norm_or_least_squares():
    alpha, gamma = np.array([0.2, 0.9, 1.2, 3.0, np.inf])[:, None], np.array([0.0, 0.3, 5.0, 300.0])
    run = integrate_pretraining(alpha, gamma, np.inf, sigma1=0.5)
    assert np.all(run.status == Status.CONVERGED)
    noise = np.where(alpha < 1, 0.25 * alpha / (1 - np.minimum(alpha, 0.99)), 0.25 / (np.maximum(alpha, 1.01) - 1))
    ones = np.ones_like(gamma)
    np.testing.assert_allclose(run.overlap, np.minimum(1, alpha) * ones, rtol=1e-8)
    np.testing.assert_allclose(run.norm2, (np.minimum(1, alpha) + noise) * ones, rtol=1e-8)
    np.testing.assert_allclose(run.train_loss, 0.25 * np.maximum(0, 1 - 1 / alpha) * ones, atol=1e-9)


@pytest.mark.parametrize(("alpha", "gamma", "decay", "sigma"), [(0.5, 1.0, 0.1, 0.3), (2.0, 3.0, 1.0, 0.0)])
def test_weight_decay_ends_in_self_consistent_ridge(alpha, gamma, decay, sigma):
    ell, w = marchenko_pastur(alpha)

    def moments(x):
        ridge = decay / (gamma * x)
        return np.sum(w * ell / (ell + ridge)), np.sum(w * (ell**2 + sigma**2 / alpha * ell) / (ell + ridge) ** 2)

    x = brentq(lambda x: moments(x)[1] - x**2, 0.05, 10, xtol=1e-14)
    for t in (np.inf, 400.0):
        run = integrate_pretraining(alpha, gamma, t, sigma1=sigma, weight_decay=decay)
        assert run.norm2 == pytest.approx(x**2, rel=1e-8)
        assert run.overlap == pytest.approx(moments(x)[0], rel=1e-8)
        assert run.bulk < 1e-10


def test_weight_decay_past_the_threshold_collapses():
    edge = np.sqrt(1 + 1 / 0.5)
    run = integrate_pretraining(0.5, 1.0, np.inf, weight_decay=[0.97 * edge, 1.03 * edge, 3 * edge])
    assert list(run.status) == [Status.CONVERGED, Status.COLLAPSED, Status.COLLAPSED]
    assert run.norm2[0] > 1e-5
    np.testing.assert_allclose(run.norm2[1:], 0, atol=1e-19)
    late = integrate_stage(2.0, 1.0, 1000.0, weight_decay=3.0, times=[1.0, 500.0])
    assert late.status == Status.CONVERGED  # a finite time leaves a kernel, however small
    assert late.norm2[0] > 1e-5 > late.norm2[1]


def test_nothing_moves_without_kernel_or_time():
    still = integrate_pretraining(0.5, 1.0, [0.0, 3.0, np.inf], init_scale=[1.0, 0.0, 0.0])
    np.testing.assert_array_equal(still.overlap, 0)
    np.testing.assert_array_equal(still.loss, 1)


def test_points_do_not_see_their_neighbours():
    alpha, gamma = np.array([0.3, 0.95, 1.0, 2.0])[:, None], np.array([0.1, 3.0, 50.0])
    grid = integrate_pretraining(alpha, gamma, 2.0, sigma1=0.1)
    alone = integrate_pretraining(0.95, 3.0, 2.0, sigma1=0.1)
    assert grid.loss.shape == (4, 3)
    assert grid.loss[1, 1] == pytest.approx(alone.loss, rel=1e-13)


def test_exhausted_budget_is_a_status():
    run = integrate_stage(0.5, 1.0, [np.inf, 0.01], max_steps=6)
    assert list(run.status) == [Status.NOT_CONVERGED, Status.CONVERGED]
    assert run.residual[0] > 1e-6


def random_data_run(seed, dim, stages, weight_decay):
    """Stages (alpha, gamma, t, sigma) on teacher e_0, then e_0 again: reduced (*) and un-reduced (M, m, b)."""
    rng = np.random.default_rng(seed)
    reduced, full = np.zeros(dim), np.concatenate([np.eye(dim).ravel(), [1.0], np.zeros(dim)])
    clock = 0.0
    for alpha, gamma, t_end, sigma in stages:
        p = round(alpha * dim)
        x = rng.normal(size=(p, dim))
        xy, cov = x.T @ (x[:, 0] + sigma * rng.normal(size=p)) / p, x.T @ x / p

        def star(t, b, gamma=gamma, xy=xy, cov=cov, clock=clock):
            k = np.exp(-2 * weight_decay * (clock + t))
            g, s = xy - cov @ b / gamma, np.sqrt(k**2 + b @ b)
            along = b * (b @ g) / (s + k)
            return gamma * ((s + k) * g + along) - 2 * weight_decay * b

        def population(t, y, gamma=gamma, xy=xy, cov=cov):
            m_, a2, b = y[: dim * dim].reshape(dim, dim), y[dim * dim], y[dim * dim + 1 :]
            g = xy - cov @ b / gamma
            dm = gamma * (np.outer(b, g) + np.outer(g, b)) - 2 * weight_decay * m_
            da = 2 * gamma * g @ b - 2 * weight_decay * a2
            db = gamma * (m_ @ g + a2 * g) - 2 * weight_decay * b
            return np.concatenate([dm.ravel(), [da], db])

        options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-14}
        reduced = solve_ivp(star, (0, t_end), reduced, **options).y[:, -1]
        full = solve_ivp(population, (0, t_end), full, **options).y[:, -1]
        clock += t_end
    return reduced, full


@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
def test_boost_identity_on_any_data_in_both_stages(weight_decay):
    dim = 6
    b, full = random_data_run(3, dim, [(0.5, 2.0, 1.5, 0.3), (1.5, 0.8, 1.0, 0.1)], weight_decay)
    k = np.exp(-2 * weight_decay * 2.5)
    np.testing.assert_allclose(full[dim * dim + 1 :], b, rtol=1e-10, atol=1e-10)
    s = np.sqrt(k**2 + b @ b)
    boost = k * np.eye(dim) + np.outer(b, b) / (s + k)
    np.testing.assert_allclose(full[: dim * dim].reshape(dim, dim), boost, rtol=1e-9, atol=1e-10)
    assert full[dim * dim] == pytest.approx(s, rel=1e-10)


@pytest.mark.parametrize("name", ["alpha", "gamma", "duration", "sigma", "weight_decay", "bulk", "alignment", "times"])
def test_values_outside_the_theory_are_refused(name):
    arguments = {"alpha": 0.5, "gamma": 1.0, "duration": 1.0, name: -2.0}
    with pytest.raises(DomainError, match=name):
        integrate_stage(**arguments)
    with pytest.raises(DomainError, match="duration of the stage"):
        integrate_stage(0.5, 1.0, [1.0, 3.0], times=[2.0])


def rescaled_run(alpha, gamma, t, sigma, decay):
    """|β|e^{2λt}, n·β* and |β|/k from equation (*) in variables that do not decay, on the modes of the law."""
    ell, w = (x[0] for x in marchenko_pastur(np.array([alpha]), 96))
    live = (ell > 1e-12) & (w > 0)
    ell, w = ell[live], w[live]
    teacher = np.concatenate([np.sqrt(w), np.zeros_like(w)])
    force = np.concatenate([np.sqrt(w) * ell, np.sqrt(w * ell / alpha) * sigma])
    curvature = np.concatenate([ell, ell])

    def rhs(time, b):
        s = np.sqrt(1 + b @ b)
        g = force - curvature * b * np.exp(-2 * decay * time) / gamma
        return gamma * ((s + 1) * g + b * (b @ g) / (s + 1))

    b = solve_ivp(rhs, (0, t), np.zeros(2 * len(ell)), method="DOP853", rtol=1e-11, atol=1e-13).y[:, -1]
    size = np.linalg.norm(b)
    return size, b @ teacher / size


@pytest.mark.parametrize("gamma", [0.02, 0.3])
@pytest.mark.parametrize("t", [18.0, 45.0, 300.0])
def test_features_that_died_keep_their_direction(gamma, t):
    size, along = rescaled_run(0.6, gamma, t, 0.3, 1.0)
    run = integrate_pretraining(0.6, gamma, t, sigma1=0.3, weight_decay=1.0)
    assert run.status == Status.CONVERGED
    assert run.overlap / np.sqrt(run.norm2) == pytest.approx(along, rel=1e-6)
    assert gamma * np.sqrt(run.norm2) / run.bulk == pytest.approx(size, rel=1e-5)


def test_finite_times_are_never_without_a_kernel():
    """Up to where numbers underflow and beyond, ridgeless transfer tends to k → 0⁺ and not to k = 0."""
    t = np.array([20.0, 100, 340, 372, 373, 380, 1000, 1e6])
    for gamma, alpha2 in ((2.0, 0.3), (0.3, 0.5), (0.02, 0.7)):
        run = transfer_exact(0.6, alpha2, rho=0.8, gamma0=gamma, sigma1=0.3, sigma2=0.2, weight_decay=1.0, t1=t)
        r2 = (0.8 * np.asarray(run.pretrained.n_signal)) ** 2
        limit = (1 - alpha2) * (1 - r2) + 0.04 * alpha2 / (1 - alpha2)  # Result 4 from above, docs/theory.md, Section 3
        np.testing.assert_allclose(run.loss[3:], limit[3:], rtol=2e-5)
        assert (run.gain[3:] > 0).all()
        assert (run.phase[3:] == 1).all()
