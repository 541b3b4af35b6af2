"""Section 6: pinned rows, the kappa equation, limits, symmetries, errors."""

import csv
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from tlcli.errors import DomainError
from tlcli.linear.kappa import solve_kappa
from tlcli.linear.linear_transfer import transfer_exact
from tlcli.linear.structured import structured_transfer
from tlcli.status import EXACT, Status, phase_of
from tlcli.tasks.spectra import power_law

REFERENCE = Path(__file__).parents[1] / "reference" / "structured.csv"
FIELDS = {"norm2": "norm2", "spike": "spike", "loss": "test_loss", "baseline": "test_loss_no_pretraining"}


def rows():
    with REFERENCE.open() as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("row", rows(), ids=lambda r: f"D{r['D']:g}-P{r['P1']:g}-{r['P2']:g}")
def test_reference_rows(row):
    s = power_law(int(row["D"]), row["spectrum_exponent"], row["teacher_exponent"])
    noise = {"sigma1": row["sigma1"], "sigma2": row["sigma2"], "ridge": row["ridge2"]}
    args = (row["P1"], row["P2"], row["gamma0"])
    mixed = structured_transfer(s.eigenvalues, s.teacher1, s.teacher_orthogonal, *args, rho=row["rho"], **noise)
    direct = structured_transfer(s.eigenvalues, s.teacher1, s.target(row["rho"]), *args, **noise)
    for field, column in FIELDS.items():
        assert float(getattr(mixed, field)) == pytest.approx(row[column], rel=1e-8)
        assert float(getattr(direct, field)) == pytest.approx(row[column], rel=1e-8)
    assert mixed.status == Status.CONVERGED


@pytest.fixture(scope="module")
def spectrum():
    return power_law(60, 1.1, 0.7)


def run(s, p1=30.0, p2=25.0, gamma0=2.0, **more):
    return structured_transfer(s.eigenvalues, s.teacher1, s.teacher_orthogonal, p1, p2, gamma0, **({"rho": 0.6} | more))


@pytest.mark.parametrize(("p", "ridge"), [(7, 0.0), (59, 0.0), (59.999, 0.0), (20, 0.3), (60, 1e-6), (400, 2.0)])
def test_kappa_agrees_with_brentq(spectrum, p, ridge):
    lam = spectrum.eigenvalues

    def excess(kappa):
        return (kappa - ridge) * p - kappa * np.sum(lam / (lam + kappa))

    expected = brentq(excess, max(ridge, 1e-9), ridge + lam.sum() / p + 1, xtol=1e-15, rtol=1e-14)
    kappa, residual = solve_kappa(lam, p, ridge)
    assert float(kappa) == pytest.approx(expected, rel=1e-9 if p > 59.9 and ridge < 1e-3 else 1e-12)
    assert residual < 1e-13


def test_kappa_limits(spectrum):
    lam = spectrum.eigenvalues
    kappa, _ = solve_kappa(lam, np.array([60.0, 100.0, np.inf, np.inf]), np.array([0.0, 0.0, 0.0, 0.7]))
    np.testing.assert_array_equal(kappa, [0, 0, 0, 0.7])


@pytest.mark.parametrize("ridge", [0.0, 0.2])
@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_white_spectrum_is_the_isotropic_theory(ridge, sigma):
    dim, rng = 40, np.random.default_rng(1)
    t1, t2 = np.linalg.qr(rng.standard_normal((dim, 2)))[0].T
    a1, a2 = np.array([0.3, 0.8, 1.7, 4.0])[:, None], np.array([0.25, 0.9, 1.3, 5.0])
    for gamma0, scale in ((0.0, 1.0), (1.5, 0.7), (20.0, 1.0)):
        s = structured_transfer(
            np.ones(dim), t1, t2, a1 * dim, a2 * dim, gamma0, rho=0.7, sigma1=sigma, sigma2=sigma, ridge=ridge,
            init_scale=scale,
        )  # fmt: skip
        iso = transfer_exact(a1, a2, rho=0.7, gamma0=gamma0, sigma1=sigma, sigma2=sigma, ridge=ridge, init_scale=scale)
        np.testing.assert_allclose(s.loss, np.broadcast_to(iso.loss, s.loss.shape), rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(s.baseline, np.broadcast_to(iso.baseline, s.loss.shape), rtol=1e-10, atol=1e-14)


def test_no_samples_axis_is_recomputed_but_grid_equals_points(spectrum):
    p1, p2, g = np.array([10.0, 40, 80])[:, None, None], np.array([15.0, 60, 90])[:, None], np.array([0.5, 3])
    grid = run(spectrum, p1, p2, g, sigma1=0.1, ridge=0.05)
    flat = run(spectrum, *(np.ravel(a)[::-1] for a in np.broadcast_arrays(p1, p2, g)), sigma1=0.1, ridge=0.05)
    np.testing.assert_allclose(grid.loss.ravel()[::-1], flat.loss, rtol=1e-13)
    single = run(spectrum, 40.0, 15.0, 3.0, sigma1=0.1, ridge=0.05)
    assert float(single.loss) == pytest.approx(grid.loss[1, 0, 1], rel=1e-13)
    assert single.loss.shape == ()


def test_chunks_do_not_show(spectrum, monkeypatch):
    p1, p2 = np.linspace(5, 90, 13)[:, None], np.linspace(6, 80, 11)
    whole = run(spectrum, p1, p2)
    monkeypatch.setattr("tlcli.linear.structured.BLOCK", 60 * 17)
    np.testing.assert_allclose(run(spectrum, p1, p2).loss, whole.loss, rtol=1e-12)


def test_large_grid_is_fast():
    s = power_law(500, 1.2, 0.8)
    start = time.perf_counter()
    out = run(s, np.linspace(4, 1003, 200)[:, None], np.linspace(5, 900, 200), sigma1=0.1, ridge=0.01)
    assert time.perf_counter() - start < 10
    assert (out.status == Status.CONVERGED).all()


def test_zero_eigenvalues_are_dropped(spectrum):
    pad = [np.concatenate([a, np.full(5, fill)]) for a, fill in
           ((spectrum.eigenvalues, 0.0), (spectrum.teacher1, 3.0), (spectrum.teacher_orthogonal, 1.0))]  # fmt: skip
    padded = structured_transfer(*pad, np.array([20.0, 60, 61, 64]), 62.0, 2.0, rho=0.6, sigma2=0.1)
    plain = run(spectrum, np.array([20.0, 60, 61, 64]), 62.0, 2.0, sigma2=0.1)
    np.testing.assert_array_equal(padded.loss, plain.loss)


@pytest.mark.parametrize(
    ("a", "norm2", "spike", "kappa1", "kappa2", "loss"),
    [  # the equations of Section 6 in arithmetic of 60 digits
        (5.0, 0.02579857047996, 0.01281714562894317, 4.408919689495758e-11, 1.542826373280613e-10, 0.5173010014647743),
        (5.5, 0.02564113887784407, 0.01273942298986469, 2.50429502307166e-12, 9.21939152824955e-12, 0.5492515714954051),
        (6.0, 0.02553288501238627, 0.01268597551876183, 1.40941238620655e-13, 5.46519568262119e-13, 0.5820713549626518),
    ],
)  # fmt: skip
def test_steep_spectra_keep_their_smallest_modes(a, norm2, spike, kappa1, kappa2, loss):
    s = power_law(400, a, 0.5)
    got = run(s, 350.0, 300.0, 1.0, rho=0.8, sigma2=0.3)
    assert (float(got.norm2), float(got.kappa1), float(got.kappa2)) == pytest.approx((norm2, kappa1, kappa2), rel=1e-13)
    assert (float(got.spike), float(got.loss), float(got.baseline)) == pytest.approx((spike, loss, loss), rel=1e-12)
    assert got.status == Status.CONVERGED


def test_spectra_that_numbers_cannot_divide_by_have_no_value():
    """A gain of 5.5 was said at exponents 62 and 63, and losses of 0 beyond, where squares of kappa underflow."""
    exponents = [40.0, 50.0, 62.0, 64.0, 100.0]
    for got in (run(power_law(400, a, 0.5), 350.0, [10.0, 300.0], 1.0, rho=0.8, sigma2=0.3) for a in exponents):
        done = got.status == Status.CONVERGED
        assert np.isfinite(got.loss[done]).all()
        assert np.all(np.abs(got.gain[done]) < 0.1 * got.loss[done])
        assert np.isnan([got.loss[~done], got.baseline[~done], got.gain[~done]]).all()
    assert not done.any()
    assert (run(power_law(400, 50.0, 0.5), 350.0, 300.0, 1.0).status == Status.CONVERGED).all()


@given(
    inputs=st.floats(-300, 300),
    labels=st.floats(-140, 140),
    p1=st.sampled_from([7.0, 30.0, 59.0, 60.0, 90.0, np.inf]),
    p2=st.sampled_from([5.0, 25.0, 60.0, 80.0]),
    gamma0=st.sampled_from([0.0, 0.3, 2.0, np.inf]),
    ridge=st.sampled_from([0.0, 0.03]),
    sigma=st.sampled_from([0.0, 0.2]),
    scale=st.sampled_from([0.0, 1.0]),
)
@settings(max_examples=150, derandomize=True, deadline=None)
def test_units_of_inputs_and_labels_do_not_matter(inputs, labels, p1, p2, gamma0, ridge, sigma, scale):
    s, u, v = power_law(60, 1.1, 0.7), 10.0**inputs, 10.0**labels

    def solve(u, v):
        root = np.sqrt(u)
        return structured_transfer(
            u * s.eigenvalues, s.teacher1 * v / root, s.teacher_orthogonal * v / root, p1, p2, gamma0 * root / v,
            rho=0.6, sigma1=0.5 * sigma * v, sigma2=sigma * v, ridge=ridge * u, init_scale=scale,
        )  # fmt: skip

    one, other = solve(1.0, 1.0), solve(u, v)
    assert one.status == other.status
    phases = [
        phase_of(got.gain, got.loss, got.baseline, relative=EXACT, power=power)
        for got, power in ((one, 1.0), (other, v * v))
    ]
    assert phases[0] == phases[1]
    for field, unit in (("loss", v), ("baseline", v), ("source_loss", v)):
        here = float(getattr(other, field)) / unit / unit
        assert here == pytest.approx(float(getattr(one, field)), rel=1e-10, abs=1e-14)
    assert float(other.gain) / v / v == pytest.approx(float(one.gain), rel=1e-9, abs=1e-13, nan_ok=True)
    assert float(other.kappa2) / u == pytest.approx(float(one.kappa2), rel=1e-10)


def test_interpolation_threshold(spectrum):
    noisy = run(spectrum, np.array([60.0, 30.0]), np.array([30.0, 60.0]), sigma1=0.1, sigma2=0.1)
    np.testing.assert_array_equal(noisy.status, [Status.DIVERGED, Status.DIVERGED])
    assert np.isinf(noisy.norm2[0])
    assert np.isinf(noisy.loss[1])
    # the features point along noise: nothing is transferred, the limit of P1 -> rank
    assert noisy.loss[0] == pytest.approx(run(spectrum, 60 - 1e-7, 30.0, sigma1=0.1, sigma2=0.1).loss, rel=1e-4)
    clean = run(spectrum, 60.0, 60.0)
    assert (float(clean.loss), float(clean.source_loss)) == (0.0, 0.0)
    assert clean.status == Status.CONVERGED


def test_infinite_limits(spectrum):
    rich = run(spectrum, gamma0=np.inf, sigma1=0.2)
    assert np.isinf(rich.spike)
    assert float(rich.loss) == pytest.approx(float(run(spectrum, gamma0=1e9, sigma1=0.2).loss), rel=1e-6)
    known = run(spectrum, p1=np.inf, sigma1=0.2, ridge=0.1)
    assert float(known.loss) == pytest.approx(float(run(spectrum, p1=1e10, sigma1=0.2, ridge=0.1).loss), rel=1e-6)
    assert float(known.norm2) == pytest.approx(np.sum(spectrum.teacher1**2))
    assert float(run(spectrum, p2=np.inf).loss) == 0
    assert float(run(spectrum, p2=np.inf, ridge=0.1).loss) == pytest.approx(
        float(run(spectrum, p2=1e10, ridge=0.1).loss), rel=1e-6
    )


def test_ultra_rich_is_the_small_bulk_limit_with_ridge(spectrum):
    exact = run(spectrum, init_scale=0.0, ridge=0.3)
    near = run(spectrum, init_scale=1e-5, ridge=0.3)
    for field in ("loss", "baseline", "spike"):
        assert float(getattr(exact, field)) == pytest.approx(float(getattr(near, field)), rel=1e-6)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_a_small_bulk_is_its_limit_or_has_no_value(spectrum, ridge):
    limit, seen = run(spectrum, init_scale=1e-6, ridge=ridge), set()
    for init_scale in 10.0 ** -np.arange(6, 324, 8.0):
        if init_scale < 1e-150:
            with pytest.raises(DomainError, match="must be zero, or between 1e-150 and 1e150"):
                run(spectrum, init_scale=init_scale, ridge=ridge)
            continue
        found = run(spectrum, init_scale=init_scale, ridge=ridge)
        seen.add(int(found.status))
        if found.status == Status.CONVERGED:
            np.testing.assert_allclose(found.gain, limit.gain, rtol=1e-6)
        else:
            assert np.isnan(found.loss)
            assert np.isnan(found.gain)
            assert ridge > 0
    assert seen == {Status.CONVERGED, Status.NOT_CONVERGED} if ridge else {Status.CONVERGED}


def test_lazy_transfers_nothing_and_scale_covariance(spectrum):
    assert float(run(spectrum, gamma0=0.0, sigma1=0.3).gain) == 0
    c = 3.0
    scaled = structured_transfer(
        spectrum.eigenvalues, c * spectrum.teacher1, c * spectrum.teacher_orthogonal, 30.0, 25.0, 2.0 / c,
        rho=0.6, sigma1=0.2 * c, sigma2=0.1 * c,
    )  # fmt: skip
    assert float(scaled.loss) == pytest.approx(c**2 * float(run(spectrum, sigma1=0.2, sigma2=0.1).loss), rel=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p1": 0.0}, "p1 = 0"),
        ({"p2": -1.0}, "p2 = -1"),
        ({"rho": 1.5}, "rho = 1.5"),
        ({"sigma1": -0.1}, "sigma1 = -0.1"),
        ({"ridge": np.inf}, "ridge = inf"),
        ({"gamma0": np.nan}, "gamma0 = nan"),
        ({"init_scale": -1.0}, "init_scale = -1"),
    ],
)
def test_errors_name_the_value(spectrum, change, message):
    with pytest.raises(DomainError, match=message):
        run(spectrum, **change)


@pytest.mark.parametrize("lam", [[1.0, -0.5], [0.0, 0.0], [1.0], [np.nan, 1.0]])
def test_bad_spectra(lam):
    with pytest.raises(DomainError):
        structured_transfer(lam, [1.0, 0.0], [0.0, 1.0], 1.0, 1.0, 1.0)
