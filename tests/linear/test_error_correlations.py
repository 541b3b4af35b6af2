"""Correlations of the error with signal and noise, and at two times, against regression on a finite sample."""

import numpy as np
import pytest

from tlcli.errors import DomainError
from tlcli.linear.error_correlations import error_overlaps, spectral, two_time_error
from tlcli.linear.finetuning import finetune
from tlcli.linear.two_time import spectral_two_time

TIMES = np.array([0.0, 0.5, 2.0, 8.0])


def regression(alpha2, matrix, v, *, bulk=1.0, sigma2=0.0, ridge=0.0, dim=200, trials=40):
    """Gradient flow of a readout on features with kernel k I + C, by eigenvectors of the whole sample."""
    rng = np.random.default_rng(3)
    values, vectors = np.linalg.eigh(matrix)
    root = np.sqrt(bulk) * np.eye(dim)
    root[:2, :2] = vectors @ np.diag(np.sqrt(bulk + values)) @ vectors.T
    p = round(alpha2 * dim)
    out = []
    for _ in range(trials):
        teacher = np.zeros(dim)
        teacher[:2] = v
        rest = rng.standard_normal(dim - 2)
        teacher[2:] = rest / np.linalg.norm(rest) * np.sqrt(1 - np.sum(np.square(v)))
        x = rng.standard_normal((p, dim))
        y = x @ teacher + sigma2 * rng.standard_normal(p)
        features = x @ root
        rates, modes = np.linalg.eigh(features.T @ features / p + ridge * np.eye(dim))
        force = modes.T @ (features.T @ y / p)
        filters = [np.where(rates > 1e-10, -np.expm1(-rates * t) / np.maximum(rates, 1e-10), t) for t in TIMES]
        error = np.array([teacher - root @ (modes @ (f * force)) for f in filters])
        train = np.array([y - x @ (teacher - e) for e in error])
        out.append((error[:, 0], error[:, 1], error @ error.T, train @ train.T / p))
    return [(np.mean(part, axis=0), np.std(part, axis=0, ddof=1) / np.sqrt(trials)) for part in zip(*out, strict=True)]


CASES = [
    (0.5, (3.0, 1.0, 0.8), (0.8, 0.3), {}),
    (1.6, (2.0, -0.5, 0.5), (0.6, -0.5), {"sigma2": 0.4, "ridge": 0.2}),
    (0.4, (1.5, 0.0, 0.0), (0.9, 0.0), {"bulk": 0.5, "sigma2": 0.3}),
]


def theory(alpha2, c, v, bulk=1.0, sigma2=0.0, ridge=0.0):
    values, vectors = spectral(*c)
    overlaps = vectors.T @ np.array(v)
    found = two_time_error(alpha2, TIMES, values, overlaps, bulk=bulk, sigma2=sigma2, ridge=ridge)
    error = vectors @ (overlaps[:, None] * found.remaining)
    return error[0], error[1], found


@pytest.mark.parametrize(("alpha2", "c", "v", "more"), CASES)
def test_finite_samples_have_these_correlations(alpha2, c, v, more):
    c1, c3, c2 = c
    measured = regression(alpha2, np.array([[c1, c3], [c3, c2]]), v, **more)
    signal, noise, found = theory(alpha2, c, v, **more)
    assert found.change < 1e-8
    for ours, (mean, se) in zip((signal, noise, found.corr_v, found.corr_delta), measured, strict=True):
        assert np.all(np.abs(ours - mean) < 5 * se + 1 / 200), "five standard errors, and the next order in 1/D"
    # The twin: without the crosstalk the error along the noise is another.
    if c3:
        wrong = theory(alpha2, (c1, 0.0, c2), v, **more)[1]
        mean, se = measured[1]
        assert np.any(np.abs(wrong - mean) > 5 * se + 1 / 200)


def test_the_diagonal_is_the_loss_and_a_bulk_alone_is_linear_regression():
    found = two_time_error(0.6, TIMES, (2.0,), (0.7,), sigma2=0.3, ridge=0.05)
    losses = finetune(0.6, (2.0,), (0.49,), sigma2=0.3, ridge=0.05, time=TIMES)
    np.testing.assert_allclose(np.diagonal(found.corr_v), losses.loss, rtol=1e-8)
    np.testing.assert_allclose(np.diagonal(found.corr_delta), losses.train_loss, rtol=1e-8)
    for alpha in (0.5, 3.0):
        plain, exact = two_time_error(alpha, TIMES, sigma2=0.5), spectral_two_time(alpha, TIMES, sigma=0.5)
        np.testing.assert_allclose(plain.corr_v, exact.corr_v, rtol=1e-9)
        np.testing.assert_allclose(plain.corr_delta, exact.corr_delta, rtol=1e-9)
        np.testing.assert_allclose(plain.remaining_bulk, exact.response_v, rtol=1e-9)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_the_end_is_the_closed_form(ridge):
    """κ₂(κ₂ + k + C)⁻¹(ρ, ρ_ξ); ridgeless with one spike and infinite source data ρ(1 − α₂)/(1 + α₂χ) [92]."""
    values, vectors = spectral(3.0, 1.0, 0.8)
    signal, noise = error_overlaps(0.5, values, vectors, rho=0.8, rho_xi=0.3, ridge=ridge)
    overlaps = vectors.T @ np.array([0.8, 0.3])
    late = two_time_error(0.5, [np.inf], values, overlaps, ridge=ridge)
    np.testing.assert_allclose(vectors @ (overlaps * late.remaining[:, 0]), [signal, noise], rtol=1e-7)
    if ridge == 0:
        spikes = np.stack([np.array([0.0, 2.0, np.inf]), np.zeros(3)], axis=-1)
        alone = error_overlaps(0.4, spikes, np.eye(2), rho=0.7)[0]
        np.testing.assert_allclose(alone, [0.7 * 0.6, 0.7 * 0.6 / (1 + 0.4 * 2), 0.0], atol=1e-12)


def test_kernels_without_a_bulk_learn_their_direction_alone():
    found = two_time_error(0.5, TIMES, (2.0,), (0.8,), bulk=0.0)
    np.testing.assert_allclose(found.remaining[0], np.exp(-2 * TIMES), rtol=1e-12)
    np.testing.assert_allclose(np.diagonal(found.corr_v), 0.64 * np.exp(-4 * TIMES) + 0.36, rtol=1e-12)
    assert error_overlaps(0.5, (2.0, 0.0), np.eye(2), rho=0.8, rho_xi=0.2, bulk=0.0) == pytest.approx((0.0, 0.2))


def test_bad_arguments():
    with pytest.raises(DomainError, match="alpha2"):
        two_time_error(0.0, TIMES)
    with pytest.raises(ValueError, match="1 spikes but 2 overlaps"):
        two_time_error(1.0, TIMES, (1.0,), (0.1, 0.2))
