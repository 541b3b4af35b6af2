import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcli.errors import DomainError
from tlcli.linear.finetuning import finetune
from tlcli.linear.linear_transfer import transfer_ansatz, transfer_exact
from tlcli.status import Phase, Status

ALPHA2 = np.array([0.1, 0.5, 0.9])


def result_3(a, c1, c3, c2):
    """[13], [156] at rho = 1, rho_xi = 0."""
    return (1 - a) * ((1 + a * c2) ** 2 + (a * c3) ** 2) / ((1 + a * c1) * (1 + a * c2) - (a * c3) ** 2) ** 2


def ansatz(c1, c3, c2, rho=1.0, rho_xi=0.0, **options):
    return transfer_ansatz(
        1.0, ALPHA2, rho=rho, rho_xi=rho_xi, gamma0=1.0, c_signal=c1, c_cross=c3, c_noise=c2, **options
    )


def test_result_2():
    # [8], [97]: infinite source data.
    gamma0 = np.array([0.0, 0.5, 3.0])[:, None]
    out = transfer_exact(np.inf, ALPHA2, rho=-0.7, gamma0=gamma0)
    x = ALPHA2 * (np.sqrt(1 + gamma0**2) - 1)
    expected = (1 - ALPHA2) * (1 - 0.49 * x * (2 + x) / (1 + x) ** 2)
    np.testing.assert_allclose(out.loss, expected, rtol=1e-12)
    np.testing.assert_allclose(out.gain, out.baseline - expected, atol=1e-14)
    np.testing.assert_array_equal(out.phase[0], Phase.NEUTRAL)
    np.testing.assert_array_equal(out.phase[1:], Phase.POSITIVE)


def test_result_3_and_its_special_cases():
    np.testing.assert_allclose(ansatz(1.3, 0.6, 0.8).loss, result_3(ALPHA2, 1.3, 0.6, 0.8), rtol=1e-12)
    # [163]: without crosstalk the noise constant has no effect.
    np.testing.assert_allclose(ansatz(1.3, 0.0, 0.8).loss, (1 - ALPHA2) / (1 + ALPHA2 * 1.3) ** 2, rtol=1e-12)
    # [165]: no noise constant.
    a, c1, c3 = ALPHA2, 0.9, 0.5
    expected = (1 - a) * (1 + a**2 * c3**2) / (1 + a * c1 - a**2 * c3**2) ** 2
    np.testing.assert_allclose(ansatz(c1, c3, 0.0).loss, expected, rtol=1e-12)


def test_crosstalk_alone_only_hurts():
    # [162]: c₁ = 0.
    loss = np.stack([ansatz(0.0, c3, 0.5).loss for c3 in (0.0, 0.3, 0.6, 0.9)])
    assert (np.diff(loss, axis=0) > 0).all()
    hurt = ansatz(0.0, 0.5, 0.0)
    np.testing.assert_array_equal(hurt.phase, Phase.NEGATIVE)
    # A noise constant pulls the loss back to the baseline.
    distances = np.stack([-ansatz(0.0, 0.5, c2).gain for c2 in (0.0, 1.0, 10.0, 1e3, 1e8)])
    assert (np.diff(distances, axis=0) < 0).all()
    assert (distances > 0).all()
    assert distances[-1].max() < 1e-7


def test_exact_coefficients_of_finite_source_data():
    alpha1, rho, rho_xi = np.array([0.3, 0.8, 2.0])[:, None], 0.6, 0.2
    out = transfer_exact(alpha1, ALPHA2, rho=rho, rho_xi=rho_xi, gamma0=1.7, sigma1=0.4)
    source = out.pretrained
    r2 = (rho * source.n_signal + rho_xi * source.n_noise) ** 2
    x = ALPHA2 * source.spike
    expected = (1 - ALPHA2) * (1 - r2 * x * (2 + x) / (1 + x) ** 2)
    np.testing.assert_allclose(out.loss, expected, rtol=1e-12)


def test_exact_is_the_ansatz_with_its_constants():
    alpha1 = np.array([0.3, 0.8, 2.0])[:, None]
    options = {"rho": 0.6, "rho_xi": 0.2, "gamma0": 1.7, "sigma2": 0.3, "ridge": 0.1}
    for time in (np.inf, 1.3):
        exact = transfer_exact(alpha1, ALPHA2, sigma1=0.4, time=time, **options)
        p = exact.pretrained
        free = transfer_ansatz(
            alpha1, ALPHA2, c_signal=p.c_signal, c_cross=p.c_cross, c_noise=p.c_noise, time=time, **options
        )
        for name in ("loss", "train_loss", "gain"):
            np.testing.assert_allclose(getattr(free, name), getattr(exact, name), rtol=1e-9)


def test_much_source_data_is_infinite_source_data():
    far = transfer_exact(1e9, ALPHA2, rho=0.7, gamma0=2.0, sigma1=0.5)
    limit = transfer_exact(np.inf, ALPHA2, rho=0.7, gamma0=2.0, sigma1=0.5)
    np.testing.assert_allclose(far.loss, limit.loss, rtol=1e-8)


@pytest.mark.parametrize("kernel", ["feature", "ntk"])
@pytest.mark.parametrize("time", [np.inf, 2.0])
@pytest.mark.parametrize("ridge", [0.0, 0.2])
def test_nothing_learned_is_the_baseline(kernel, time, ridge):
    options = {"sigma2": 0.3, "kernel": kernel, "time": time, "ridge": ridge}
    for case in ({"rho": 0.7, "gamma0": 0.0}, {"rho": 0.0, "gamma0": 2.0}):
        out = transfer_exact(np.inf, ALPHA2, **case, **options)
        if case["gamma0"] == 0 or kernel == "feature" or (ridge == 0 and np.isinf(time)):
            np.testing.assert_allclose(out.loss, out.baseline, rtol=1e-9)
            np.testing.assert_array_equal(out.phase, Phase.NEUTRAL)


def test_baseline_without_noise_is_one_minus_alpha():
    alpha2 = np.array([0.2, 0.8, 1.0, 1.7, np.inf])
    out = transfer_exact(0.5, alpha2, rho=0.5, gamma0=1.0)
    np.testing.assert_allclose(out.baseline, np.maximum(0, 1 - alpha2), atol=1e-16)
    np.testing.assert_array_equal(out.phase[2:], Phase.NEUTRAL)


@pytest.mark.parametrize("bulk_dies", [{"init_scale": 0.0}, {"weight_decay": 0.3}])
def test_a_dead_bulk_is_negative_below_the_overlap(bulk_dies):
    # Result 4: L = 1 − r² against 1 − α₂.
    rho = np.linspace(-1, 1, 21)[:, None]
    alpha2 = np.linspace(0.05, 0.95, 19)
    out = transfer_exact(np.inf, alpha2, rho=rho, gamma0=2.0, **bulk_dies)
    np.testing.assert_allclose(out.loss, np.broadcast_to(1 - rho**2, out.loss.shape), atol=1e-14)
    np.testing.assert_array_equal(out.phase, np.sign(np.round(rho**2 - alpha2, 12)))


def test_result_4_overlap_of_finite_data():
    alpha1, rho, rho_xi = np.array([0.3, 0.8, 1.0, 2.0])[:, None], 0.6, 0.3
    a = np.minimum(alpha1, 1)
    out = transfer_exact(alpha1, ALPHA2, rho=rho, rho_xi=rho_xi, gamma0=1.0, init_scale=0.0)
    expected = 1 - (np.sqrt(a) * rho + np.sqrt(1 - a) * rho_xi) ** 2
    np.testing.assert_allclose(out.loss, np.broadcast_to(expected, out.loss.shape), rtol=1e-12)


def test_small_initialisation_at_fixed_ridge_is_result_4():
    small, zero = (transfer_exact(0.6, ALPHA2, rho=0.7, gamma0=2.0, init_scale=s, ridge=1e-3) for s in (1e-6, 0.0))
    np.testing.assert_allclose(small.loss, zero.loss, rtol=1e-7)
    np.testing.assert_allclose(small.baseline, zero.baseline, rtol=1e-7)
    np.testing.assert_array_equal(zero.baseline, 1.0)


def test_collapse_is_a_phase():
    out = transfer_exact(0.5, ALPHA2, rho=0.9, gamma0=1.0, weight_decay=np.array([0.1, 50.0])[:, None])
    np.testing.assert_array_equal(out.phase[1], Phase.COLLAPSED)
    np.testing.assert_array_equal(np.broadcast_to(out.status, (2, 3))[1], Status.COLLAPSED)
    np.testing.assert_array_equal(out.loss[1], 1.0)
    dead = transfer_exact(0.5, ALPHA2, rho=0.9, gamma0=0.0, init_scale=0.0)
    # Nothing moved, so nothing collapsed: the sign is that of the gain.
    np.testing.assert_array_equal(np.broadcast_to(dead.phase, 3), np.sign(np.broadcast_to(dead.gain, 3)))
    still = transfer_exact(0.5, ALPHA2, rho=0.9, gamma0=1.0, init_scale=0.0, t1=5.0)
    assert not np.any(still.phase == Phase.COLLAPSED)


def test_the_threshold_with_noise_is_reported():
    out = transfer_exact(0.5, np.array([0.9, 1.0]), rho=0.9, gamma0=1.0, sigma2=0.1)
    np.testing.assert_array_equal(np.broadcast_to(out.status, 2), [0, Status.DIVERGED])
    assert np.isnan(out.gain[1])
    assert out.phase[1] == Phase.UNKNOWN
    source = transfer_exact(1.0, ALPHA2, rho=0.9, gamma0=1.0, sigma1=0.1)
    np.testing.assert_array_equal(np.broadcast_to(source.status, 3), Status.DIVERGED)
    np.testing.assert_allclose(source.loss, source.baseline)


def test_infinitely_rich_ntk_has_a_shape():
    out = transfer_exact(np.inf, ALPHA2, rho=0.7, gamma0=np.inf, kernel="ntk", ridge=0.5, time=1.0)
    large = transfer_exact(np.inf, ALPHA2, rho=0.7, gamma0=1e9, kernel="ntk", ridge=0.5)
    np.testing.assert_allclose(out.loss, large.loss, rtol=1e-7)
    np.testing.assert_allclose(out.loss, finetune(ALPHA2, (1.0,), (0.49,)).loss, rtol=1e-14)
    rich = transfer_exact(np.inf, ALPHA2, rho=0.7, gamma0=np.array([1.0, np.inf])[:, None], kernel="ntk", ridge=0.5)
    np.testing.assert_allclose(rich.loss[1], out.loss, rtol=1e-14)


def test_gain_keeps_its_digits():
    out = transfer_exact(np.inf, 0.5, rho=0.3, gamma0=1e-6)
    assert float(out.gain) == pytest.approx(0.5 * 0.09 * 2 * 0.5 * 0.5e-12, rel=1e-9)


def test_negative_transfer_from_an_indefinite_ansatz():
    out = ansatz(-0.5, 0.0, 0.0, rho=0.8)
    np.testing.assert_array_equal(out.phase, Phase.NEGATIVE)
    np.testing.assert_allclose(out.gain, out.baseline - out.loss, rtol=1e-12)


def test_the_edge_of_positivity_and_infinite_constants_work():
    edge = ansatz(np.array([0.1, 0.3, 1.7])[:, None], np.sqrt(1.7 * np.array([1.1, 1.3, 2.7]))[:, None], 0.7)
    assert np.isfinite(edge.loss).all()
    rich = ansatz(np.inf, 0.0, 0.0, rho=0.6)
    np.testing.assert_allclose(rich.loss, (1 - ALPHA2) * (1 - 0.36), rtol=1e-13)
    zero_bulk = ansatz(1.0, 0.0, 0.0, rho=0.6, bulk=0.0)
    np.testing.assert_allclose(zero_bulk.loss, 0.64, rtol=1e-14)
    np.testing.assert_allclose(zero_bulk.baseline, 1 - ALPHA2, rtol=1e-14)


def test_domain_errors():
    with pytest.raises(DomainError, match=r"\|v\| = 1.5"):
        transfer_exact(0.5, 0.5, rho=1.5, gamma0=1.0)
    with pytest.raises(DomainError, match="at gamma0 = 1, alpha1 = 1"):
        ansatz(0.0, 2.0, 0.0)
    with pytest.raises(DomainError, match="alpha2 = -1"):
        transfer_exact(0.5, -1.0, rho=0.5, gamma0=1.0)


parameters = {
    "alpha1": st.floats(0.05, 20).filter(lambda a: abs(a - 1) > 1e-3),
    "alpha2": st.floats(0.02, 0.99),
    "rho": st.floats(-1, 1),
    "gamma0": st.one_of(st.floats(0, 100), st.just(np.inf)),
    "sigma1": st.floats(0, 2),
}


@settings(max_examples=100, deadline=None)
@given(**parameters)
def test_exact_transfer_on_a_living_bulk_never_hurts(alpha1, alpha2, rho, gamma0, sigma1):
    out = transfer_exact(alpha1, alpha2, rho=rho, gamma0=gamma0, sigma1=sigma1)
    assert float(out.loss) <= float(out.baseline) * (1 + 1e-13)
    assert float(out.gain) >= 0
    mirrored = transfer_exact(alpha1, alpha2, rho=-rho, gamma0=gamma0, sigma1=sigma1)
    assert float(mirrored.loss) == float(out.loss)


def test_grids_are_pointwise_evaluation():
    alpha1, alpha2 = np.array([0.4, 1.5])[:, None, None, None], np.array([0.3, 1.2])[:, None, None]
    rho, gamma0 = np.array([-0.5, 0.9])[:, None], np.array([0.0, 1.5, np.inf])
    options = {"sigma1": 0.2, "sigma2": 0.1, "ridge": 0.05}
    grid = transfer_exact(alpha1, alpha2, rho=rho, gamma0=gamma0, **options)
    assert grid.loss.shape == (2, 2, 2, 3)
    assert grid.baseline.size == 2
    for index in np.ndindex(grid.loss.shape):
        a1, a2, r, g = (float(np.broadcast_to(x, grid.loss.shape)[index]) for x in (alpha1, alpha2, rho, gamma0))
        one = transfer_exact(a1, a2, rho=r, gamma0=g, **options)
        assert float(one.loss) == pytest.approx(float(grid.loss[index]), rel=1e-13)
        assert float(one.gain) == pytest.approx(float(grid.gain[index]), rel=1e-12, abs=1e-15)
        assert int(one.phase) == np.broadcast_to(grid.phase, grid.loss.shape)[index]


@pytest.mark.parametrize("kernel", ["feature", "ntk"])
@pytest.mark.parametrize("ridge", [0.0, 1e-12, 1e3])
@pytest.mark.parametrize("init_scale", [0.0, 1e-5, 1.0])
def test_extreme_parameters_neither_warn_nor_give_nan(kernel, ridge, init_scale):
    alpha1 = np.array([1e-8, 0.3, 1, 1 + 1e-12, 1e12, np.inf])[:, None, None, None, None]
    alpha2 = np.array([1e-8, 1 - 1e-12, 1, 1 + 1e-12, 5, np.inf])[:, None, None, None]
    gamma0 = np.array([0, 1e-200, 1e-8, 1, 1e150, np.inf])[:, None, None]
    rho, decay = np.array([-1, 0, 0.5])[:, None], np.array([0.0, 1e-3, 1e3])
    options = {"sigma1": 0.5, "ridge": ridge, "init_scale": init_scale, "kernel": kernel, "weight_decay": decay}
    for sigma2 in (0.0, 0.3):
        out = transfer_exact(alpha1, alpha2, rho=rho, gamma0=gamma0, sigma2=sigma2, **options)
        for value in (out.loss, out.train_loss, out.baseline):
            assert (value >= 0).all()
        both = np.isinf(out.loss) & np.isinf(out.baseline)
        np.testing.assert_array_equal(np.isnan(np.broadcast_to(out.gain, both.shape)), both)
        assert not (out.status >= Status.NOT_CONVERGED).any()


def test_within_rounding_of_one_sample_per_dimension_is_the_threshold():
    """The loss of noise, sigma^2/|1 - alpha|, would be a number that only rounding has made."""
    near = np.array([np.nextafter(1, 0), 1 - 1e-13, 1.0, 1 + 1e-13, np.nextafter(1, 2)])
    noisy = transfer_exact(0.5, near, rho=0.8, gamma0=1.0, sigma2=0.2)
    assert (noisy.status == Status.DIVERGED).all()
    assert np.isinf(noisy.loss).all()
    source = transfer_exact(near, 0.5, rho=0.8, gamma0=1.0, sigma1=0.2)
    np.testing.assert_array_equal(source.loss, source.loss[2])
    clean = transfer_exact(0.5, near, rho=0.8, gamma0=1.0)
    np.testing.assert_allclose(clean.loss, 0, atol=1e-12)
    beside = transfer_exact(0.5, 1 + np.array([-1e-9, 1e-9]), rho=0.8, gamma0=1.0, sigma2=0.2)
    assert (beside.status == Status.CONVERGED).all()
    np.testing.assert_allclose(beside.loss, 0.04 / 1e-9, rtol=1e-5)


TINY = 10.0 ** -np.arange(3, 324, 8.0)


@pytest.mark.parametrize("time", [np.inf, 3.0])
def test_a_small_init_scale_is_its_limit_or_refused(time):
    """Where its square falls out of the range of numbers a bulk would be lost, and with it the sign of the gain."""
    at = {"rho": 0.8, "gamma0": 1.0, "time": time}
    limit = transfer_exact(0.5, 0.8, init_scale=1e-6, **at)
    for init_scale in TINY:
        if init_scale < 1e-150:
            with pytest.raises(DomainError, match=r"init_scale = .*: it must be zero, or between 1e-150 and 1e150"):
                transfer_exact(0.5, 0.8, init_scale=init_scale, **at)
            continue
        found = transfer_exact(0.5, 0.8, init_scale=init_scale, **at)
        assert found.status == Status.CONVERGED
        np.testing.assert_allclose(found.gain, limit.gain, atol=1e-5)


def test_a_bulk_without_digits_is_refused():
    """A subnormal number has few digits or one: halved it is no bulk at all, and the sign of the gain another."""
    at = {"rho": 0.8, "gamma0": 1.0, "c_signal": 1.0, "c_cross": 0.0, "c_noise": 0.0}
    least, small = (transfer_ansatz(1.0, 0.8, bulk=bulk, **at) for bulk in (1e-300, 1e-12))
    np.testing.assert_allclose(least.gain, small.gain, rtol=1e-9)
    for bulk in (1e-310, 5e-324):
        with pytest.raises(DomainError, match="must be zero, or finite and at least 1e-300"):
            transfer_ansatz(1.0, 0.8, bulk=bulk, **at)


EXTREMES = {
    "alpha1": [1e-12, 0.01, 1, 1 + 1e-11, 2, 1e12, np.inf],
    "alpha2": [1e-12, 0.5, 1, 1 - 1e-10, 2, 1e12, np.inf],
    "rho": [-1, 0, 0.5, 1],
    "gamma0": [0, 1e-300, 1e-8, 1, 1e8, 1e300, np.inf],
    "sigma1": [0, 1e-8, 0.3, 1e8, 1e160],
    "sigma2": [0, 1e-8, 0.3, 1e8, 1e160],
    "ridge": [0, 1e-300, 1e-3, 1, 1e300],
    "weight_decay": [0, 1e-300, 1e-3, 1, 1e300],
    "init_scale": [0, 1e-150, 1e-3, 1, 1e100],
    "time": [np.inf, np.inf, np.inf, 0, 1],
}


@pytest.mark.parametrize("kernel", ["feature", "ntk"])
def test_no_input_however_extreme_warns_or_is_called_converged_without_a_number(kernel):
    rng = np.random.default_rng(5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(200):
            parameters = {name: values[rng.integers(len(values))] for name, values in EXTREMES.items()}
            result = transfer_exact(**parameters, kernel=kernel)
            if result.status == Status.CONVERGED:
                assert np.isfinite(result.loss + result.baseline), parameters
