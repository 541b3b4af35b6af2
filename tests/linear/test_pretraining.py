import csv
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from threadpoolctl import threadpool_limits

from tlcli.errors import DomainError
from tlcli.linear.pretraining import check_domain, collapse_ratio, pretrain
from tlcli.linear.spectrum import marchenko_pastur
from tlcli.status import Status

REFERENCE = Path(__file__).parents[1] / "reference" / "linear.csv"
QUANTITIES = ("overlap", "norm2", "spike", "c_signal", "c_cross", "c_noise")


def reference_rows():
    with REFERENCE.open(encoding="utf-8") as handle:
        return [row for row in csv.DictReader(handle) if row["quantity"] in QUANTITIES]


@pytest.mark.parametrize("row", reference_rows(), ids=lambda r: f"{r['quantity']}-{r['alpha1']}")
def test_reference(row):
    out = pretrain(
        float(row["alpha1"]),
        float(row["gamma1"]),
        sigma1=float(row["sigma1"]),
        weight_decay=float(row["weight_decay1"]),
    )
    assert float(getattr(out, row["quantity"])) == pytest.approx(float(row["value"]), rel=1e-8, abs=1e-12)


def test_spike_of_infinite_data():
    gamma0 = np.array([0.0, 0.5, 2.0])
    np.testing.assert_allclose(pretrain(np.inf, gamma0).spike, np.sqrt(1 + gamma0**2) - 1, rtol=1e-14)


def test_lazy_spike_keeps_its_digits():
    assert float(pretrain(np.inf, 1e-10).spike) == pytest.approx(5e-21, rel=1e-12)


def test_open_grids_stay_small():
    out = pretrain(np.linspace(0.2, 2, 7)[:, None], np.linspace(0, 3, 5)[None, :])
    assert out.norm2.shape == (7, 1)
    assert out.bulk.shape == ()
    assert out.spike.shape == (7, 5)


def test_constants_are_the_rank_one_matrix():
    out = pretrain(np.array([0.3, 0.8, 1.7]), 2.0, sigma1=0.4)
    np.testing.assert_allclose(out.n_signal**2 + out.n_noise**2, 1.0, rtol=1e-14)
    np.testing.assert_allclose(out.c_signal * out.c_noise, out.c_cross**2, rtol=1e-13)
    np.testing.assert_allclose(out.c_signal + out.c_noise, out.spike, rtol=1e-14)


@threadpool_limits.wrap(limits=1)
def test_minimum_norm_interpolator_of_random_matrices():
    rng = np.random.default_rng(0)
    dim, sigma, alphas, trials = 200, 0.5, (0.5, 2.0), 40
    for alpha in alphas:
        values = []
        for _ in range(trials):
            x = rng.standard_normal((int(alpha * dim), dim))
            teacher = np.zeros(dim)
            teacher[0] = 1.0
            y = x @ teacher + sigma * rng.standard_normal(len(x))
            tall = alpha > 1
            beta = np.linalg.solve(x.T @ x, x.T @ y) if tall else x.T @ np.linalg.solve(x @ x.T, y)
            values.append((beta[0], beta @ beta))
        mean, se = np.mean(values, 0), np.std(values, 0, ddof=1) / np.sqrt(trials)
        out = pretrain(alpha, 1.0, sigma1=sigma)
        assert abs(mean[0] - out.overlap) < 4 * se[0] + 2 / dim
        assert abs(mean[1] - out.norm2) < 4 * se[1] + 4 / dim


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_limits_are_never_nan(decay):
    alpha1 = np.array([0.2, 1.0, 3.0, np.inf])[:, None, None, None]
    gamma0 = np.array([0.0, 1e-8, 1.0, np.inf])[:, None, None]
    for kernel in ("feature", "ntk"):
        out = pretrain(
            alpha1,
            gamma0,
            sigma1=np.array([0.0, 0.3])[:, None],
            init_scale=np.array([0.0, 1.0]),
            weight_decay=decay,
            kernel=kernel,
        )
        for name in (*QUANTITIES, "bulk", "n_signal", "n_noise", "residual"):
            assert not np.isnan(getattr(out, name)).any(), name


def test_infinite_richness():
    out = pretrain(np.array([0.5, np.inf]), np.inf)
    np.testing.assert_array_equal(out.spike, np.inf)
    np.testing.assert_array_equal(out.c_noise, [np.inf, 0.0])
    ntk = pretrain(0.5, np.inf, kernel="ntk")
    assert bool(ntk.scale_free)
    assert (float(ntk.bulk), float(ntk.spike)) == (1.0, 1.0)
    assert not out.scale_free.any()
    large = pretrain(0.5, 1e9, kernel="ntk")
    assert float(large.spike / large.bulk) == pytest.approx(1.0, rel=1e-8)


def test_ultra_rich_kernel_is_rank_one():
    out = pretrain(0.49, 3.0, init_scale=0.0)
    assert float(out.bulk) == 0
    assert float(out.spike) == pytest.approx(3.0 * 0.7, rel=1e-14)


def test_interpolation_threshold_with_noise_diverges():
    out = pretrain(np.array([0.9, 1.0, 1.1]), 1.0, sigma1=0.1)
    np.testing.assert_array_equal(out.status, [Status.CONVERGED, Status.DIVERGED, Status.CONVERGED])
    assert np.isinf(out.norm2[1])
    assert np.isinf(out.spike[1])
    assert (float(out.n_signal[1]), float(out.n_noise[1])) == (0.0, 1.0)
    # chi n1 n2 -> gamma0 q, as on both sides of the threshold
    assert (float(out.c_signal[1]), float(out.c_cross[1])) == (0.0, 1.0)
    near = pretrain(np.array([1 - 1e-9, 1 + 1e-9]), 1.0, sigma1=0.1)
    np.testing.assert_allclose(near.c_cross, 1.0, atol=2e-3)
    assert pretrain(1.0, 1.0).status == Status.CONVERGED


def quadrature_norm(alpha1, gamma0, sigma1, decay):
    """The self-consistent equation, by quadrature and scalar bisection on x = |β₁|."""
    nodes, weights = marchenko_pastur(alpha1, 3000)

    def defect(log_x: float) -> float:
        x = np.exp(log_x)
        r = decay / (gamma0 * x)
        ratio = nodes / (nodes + r)
        total = (weights * (ratio**2 + sigma1**2 / alpha1 * ratio / (nodes + r))).sum()
        return np.log(total) - 2 * log_x

    x = np.exp(brentq(defect, -12, 8, xtol=1e-14, rtol=1e-14))
    return x**2, (weights * nodes / (nodes + decay / (gamma0 * x))).sum()


@pytest.mark.parametrize("alpha1", [0.1, 0.8, 1.0, 1.2, 7.0])
@pytest.mark.parametrize("decay", [0.02, 0.3, 1.5])
def test_self_consistent_ridge_is_the_quadrature(alpha1, decay):
    out = pretrain(alpha1, 2.0, sigma1=0.4, weight_decay=decay)
    norm2, overlap = quadrature_norm(alpha1, 2.0, 0.4, decay)
    assert float(out.norm2) == pytest.approx(norm2, rel=1e-11)
    assert float(out.overlap) == pytest.approx(overlap, rel=1e-11)
    assert float(out.bulk) == 0
    assert float(out.residual) < 1e-13


def test_infinite_data_with_decay():
    # c = 0: x = 1 − λ/γ₀.
    out = pretrain(np.inf, 2.0, weight_decay=np.array([0.5, 1.999, 2.0, 3.0]))
    np.testing.assert_allclose(np.sqrt(out.norm2), [0.75, 0.0005, 0, 0], rtol=1e-11)
    np.testing.assert_array_equal(out.status, [0, 0, Status.COLLAPSED, Status.COLLAPSED])


def test_collapse_is_continuous_and_linear():
    alpha1, sigma1, gamma0 = 0.7, 0.3, 1.3
    threshold = float(collapse_ratio(alpha1, gamma0, 1.0, sigma1))
    distance = np.array([1e-3, 1e-4, 1e-5, 1e-6, 0.0, -1e-6])
    out = pretrain(alpha1, gamma0, sigma1=sigma1, weight_decay=threshold * (1 - distance))
    norm = np.sqrt(out.norm2)
    slopes = np.diff(np.log(norm[:4])) / np.diff(np.log(distance[:4]))
    np.testing.assert_allclose(slopes, 1.0, atol=2e-3)
    np.testing.assert_array_equal(norm[4:], 0.0)
    np.testing.assert_array_equal(out.status[4:], Status.COLLAPSED)
    np.testing.assert_array_equal(out.n_signal[4:], 0.0)


def test_decay_next_to_the_collapse_at_rounding_level():
    threshold = float(collapse_ratio(0.7, 1.0, 1.0))
    out = pretrain(0.7, 1.0, weight_decay=np.nextafter(threshold, 0) * np.array([1.0, 1 - 1e-15, 1 - 1e-13]))
    assert (out.norm2 < 1e-24).all()


def test_weak_decay_is_the_interpolator():
    alpha1 = np.array([0.3, 0.9, 1.5, 20.0])
    out = pretrain(alpha1, 1.0, sigma1=0.5, weight_decay=1e-13)
    free = pretrain(alpha1, 1.0, sigma1=0.5)
    np.testing.assert_allclose(out.norm2, free.norm2, rtol=1e-9)
    np.testing.assert_allclose(out.overlap, free.overlap, rtol=1e-9)
    infinite = pretrain(alpha1, np.inf, sigma1=0.5, weight_decay=0.3)
    np.testing.assert_array_equal(infinite.norm2, free.norm2)
    np.testing.assert_array_equal(infinite.bulk, 0.0)


def test_lazy_limit_collapses_under_decay():
    assert pretrain(0.5, 0.0, weight_decay=1e-9).status == Status.COLLAPSED


def test_mixed_decay_matches_each_alone():
    decay = np.array([0.0, 0.4])
    out = pretrain(0.6, 1.5, sigma1=0.2, weight_decay=decay)
    for i, value in enumerate(decay):
        alone = pretrain(0.6, 1.5, sigma1=0.2, weight_decay=value)
        assert out.spike[i] == pytest.approx(float(alone.spike), rel=1e-14)
        assert out.bulk[i] == float(alone.bulk)


@settings(max_examples=60, deadline=None)
@given(
    alpha1=st.floats(0.01, 50),
    gamma0=st.floats(0.01, 50),
    sigma1=st.floats(0, 3),
    decay=st.floats(1e-6, 10),
)
def test_self_consistency_everywhere(alpha1, gamma0, sigma1, decay):
    out = pretrain(alpha1, gamma0, sigma1=sigma1, weight_decay=decay)
    alive = float(collapse_ratio(alpha1, gamma0, decay, sigma1)) > 1
    assert (float(out.norm2) > 0) == alive
    assert int(out.status) == (Status.CONVERGED if alive else Status.COLLAPSED)
    assert float(out.overlap) ** 2 <= float(out.norm2) * (1 + 1e-12)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"alpha1": 0.0}, "alpha1 = 0"),
        ({"gamma0": -1.0}, "gamma0 = -1"),
        ({"gamma0": np.nan}, "gamma0 = nan"),
        ({"sigma1": -0.1}, "sigma1 = -0.1"),
        ({"init_scale": np.inf}, "init_scale = inf"),
        ({"weight_decay": -2.0}, "weight_decay = -2"),
        ({"t1": -1.0}, "t1 = -1"),
        ({"kernel": "ntkk"}, "did you mean 'ntk'"),
    ],
)
def test_domain_errors_show_the_value(bad, says):
    with pytest.raises(DomainError, match=says):
        check_domain(**({"alpha1": 0.5, "gamma0": 1.0} | bad))


def test_finite_time_goes_through_the_mode_equations(monkeypatch):
    """A stand-in for the integrator: what this module adds is the spike, the noise part and the limits."""
    fake = types.ModuleType("tlcli.linear.dynamics")

    def integrate_pretraining(alpha1, gamma0, t1, *, sigma1, init_scale, weight_decay):
        shape = np.broadcast_shapes(*(np.shape(x) for x in (alpha1, gamma0, t1)))
        full = np.ones(shape)
        return types.SimpleNamespace(
            overlap=0.3 * full,
            norm2=0.25 * full,
            bulk=0.5 * full,
            train_loss=0.1 * full,
            status=np.zeros(shape, np.int8),
            residual=0 * full,
        )

    fake.integrate_pretraining = integrate_pretraining  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tlcli.linear.dynamics", fake)
    out = pretrain(0.4, np.array([2.0, np.inf, 2.0, np.inf]), t1=np.array([1.0, 1.0, np.inf, 0.0]))
    np.testing.assert_allclose(out.spike[:2], [np.hypot(0.5, 1.0) - 0.5, np.inf])
    np.testing.assert_allclose(out.overlap, [0.3, 0.4, 0.4, 0.0])
    np.testing.assert_allclose(out.n_signal[0] ** 2 + out.n_noise[0] ** 2, 1.0)
    assert float(out.spike[3]) == 0
    assert float(out.spike[2]) == pytest.approx(float(pretrain(0.4, 2.0).spike))


@pytest.mark.parametrize(
    ("alpha1", "gamma0", "sigma1", "weight_decay"), [(0.5, 1.0, 0.3, 0.2), (2.0, 3.0, 0.5, 0.4), (2.0, 1.0, 0.5, 0.0)]
)
def test_the_train_loss_sets_the_strength_of_the_noise(alpha1, gamma0, sigma1, weight_decay):
    """Ridge regression of finite samples at the self-consistent ridge, whose noise part is as [12] says."""
    found = pretrain(alpha1, gamma0, sigma1=sigma1, weight_decay=weight_decay)
    rng, dim, losses = np.random.default_rng(1), 400, []
    ridge = weight_decay / (gamma0 * np.sqrt(float(found.norm2)))
    for _ in range(8):
        x = rng.standard_normal((round(alpha1 * dim), dim))
        teacher = rng.standard_normal(dim)
        y = x @ (teacher / np.linalg.norm(teacher)) + sigma1 * rng.standard_normal(len(x))
        w = np.linalg.solve(x.T @ x / len(x) + (ridge + 1e-12) * np.eye(dim), x.T @ y / len(x))
        losses.append(np.mean((y - x @ w) ** 2))
    se = np.std(losses, ddof=1) / np.sqrt(8)
    assert abs(np.mean(losses) - found.train_loss) < 5 * se
    assert abs(np.mean(losses) - found.train_loss * (1 + sigma1)) > 5 * se
    left = (1 - found.overlap / alpha1) ** 2
    noise = found.norm2 * found.n_noise**2
    np.testing.assert_allclose(noise * alpha1 * left, found.overlap**2 * found.train_loss, rtol=1e-9)


def test_the_train_loss_at_the_ends_and_in_time():
    assert pretrain(0.7, 1.0, sigma1=0.4).train_loss == 0
    assert pretrain(1.0, 1.0, sigma1=0.4).train_loss == 0
    assert pretrain(np.inf, 1.0, sigma1=0.4).train_loss == pytest.approx(0.16)
    assert pretrain(0.7, 0.5, weight_decay=5.0, sigma1=0.4).train_loss == pytest.approx(1.16)
    late = pretrain(2.0, 1.0, sigma1=0.3, t1=[0.0, 1.0, 300.0]).train_loss
    assert late[0] == pytest.approx(1.09)
    assert late[0] > late[1] > late[2]
    assert late[2] == pytest.approx(pretrain(2.0, 1.0, sigma1=0.3).train_loss, rel=1e-9)
    assert pretrain(2.0, np.inf, sigma1=0.3, t1=[0.0, 1.0]).train_loss == pytest.approx([1.09, 0.045])
