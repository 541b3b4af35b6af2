"""Sampled saddle points against deterministic quadrature, values of another program, and their own certificate."""

import functools

import numpy as np
import pytest

from tests.bayes.problems import SETTINGS, det_inputs, problem_b
from tlcli.bayes.quadrature.solve import quadrature_source, quadrature_target
from tlcli.bayes.saddle import CONVERGED, NOT_CONVERGED
from tlcli.bayes.sampling.certificate import verdict
from tlcli.bayes.sampling.source import sampled_source
from tlcli.bayes.sampling.target import sampled_target
from tlcli.dmft.activations import activation
from tlcli.dmft.lazy import initial_kernels
from tlcli.errors import DomainError

FEW = {"chains": 256, "moves": 100}


@functools.cache
def source_of(name, phi):
    """The source of problem B by quadrature and sampled."""
    points, s, act = problem_b(), SETTINGS[name], activation(phi)
    problem = (act, points.x, points.source, points.y1, s["gamma1"], s["beta1"])
    return quadrature_source(*problem), sampled_source(*problem, seed=1, **FEW)


def near(found, wanted, part):
    return np.linalg.norm(found - wanted) <= part * np.linalg.norm(wanted)


@pytest.mark.parametrize(("name", "phi"), [("B1", "tanh"), ("B2", "erf")])
def test_both_stages_of_two_dimensions_are_those_of_quadrature(name, phi):
    points, s, act = problem_b(), SETTINGS[name], activation(phi)
    exact, found = source_of(name, phi)
    assert found.status == CONVERGED, found.message
    assert near(found.v, exact.v, 0.02)
    assert near(found.kernel, exact.kernel, 0.04)
    assert near(found.outputs, exact.outputs, 0.02)
    assert found.free_energy == pytest.approx(exact.free_energy, abs=0.02)
    wrong = quadrature_source(act, points.x, points.source, points.y1, 1.2 * s["gamma1"], s["beta1"])
    assert not near(found.v, wrong.v, 0.02)  # the tolerance would see another richness
    second = (s["gamma2"], s["beta2"], s["delta"])
    target = quadrature_target(
        act,
        points.x,
        points.target,
        points.y2,
        *second,
        exact,
        source_rows=points.source,
        source_gamma=s["gamma1"],
    )
    sampled = sampled_target(act, points.x, points.target, points.y2, *second, found, seed=2)
    assert near(sampled.v, target.v, 0.04)
    assert near(sampled.outputs, target.outputs, 0.05)


@pytest.mark.parametrize(
    ("case", "phi", "gamma", "beta", "inputs", "v", "error", "square", "free_energy"),
    [
        (
            "N1",
            "tanh",
            1.0,
            20.0,
            (1.3, 0.7),
            [-0.1987, -0.0915, 0.5823, -0.5546, -0.4081, 0.4189],
            0.0016,
            32.522,
            16.748,
        ),
        ("N2", "erf", 1.5, 50.0, (2.4, 0.7), [0.308, -0.072, 0.116, -0.109, 0.768, -0.008], 0.0041, 6.845, 19.154),
    ],
)
def test_thirty_points_reproduce_the_note(case, phi, gamma, beta, inputs, v, error, square, free_energy):
    """Cases N1 and N2 of docs/references.md: 30 points in 20 dimensions, signs of a teacher; three errors of it."""
    x = det_inputs(30, 20, *inputs)
    y = np.sign(x @ np.cos(np.arange(1, 21)))
    found = sampled_source(activation(phi), x, np.arange(30), y, gamma, beta, seed=0, threads=2, moves=100)
    assert found.status == CONVERGED, f"{case}: {found.message}"
    np.testing.assert_allclose(found.v[:6], v, atol=3 * error)
    assert float(found.v @ found.v) == pytest.approx(square, rel=0.01)
    assert found.free_energy == pytest.approx(free_energy, abs=0.03)
    assert found.gap <= 0.02


@pytest.mark.parametrize(("name", "gamma", "beta"), [("erf", 1.5, 50.0), ("relu", 0.5, 50.0)])
def test_the_train_loss_is_that_of_v_within_its_error(name, gamma, beta):
    """Kv alone misses y by a residual beside which v/β is small: the train loss would be 0.2 to 1 % too low."""
    rng = np.random.default_rng(1)
    x, at, act = 1.2 * rng.standard_normal((11, 2)), np.arange(8), activation(name)
    y = np.sign(x[at] @ [1, 0.5])
    exact = quadrature_source(act, x, at, y, gamma, beta)
    found = sampled_source(act, x, at, y, gamma, beta, seed=0, chains=256, moves=200)
    loss, wanted = (float(np.mean((s.outputs[at] - y) ** 2)) for s in (found, exact))
    assert loss == pytest.approx(np.mean((found.v / beta) ** 2), rel=1e-9)
    assert wanted == pytest.approx(np.mean((exact.v / beta) ** 2), rel=1e-9)
    assert abs(loss - wanted) <= 2 * loss * found.info["error_v"]  # two of `train_loss_se`
    assert found.info["residual"] < 1e-4


def test_a_run_that_is_too_short_is_not_called_solved():
    rng = np.random.default_rng(7)
    x = rng.standard_normal((40, 20))
    y = np.sign(x @ rng.standard_normal(20))
    found = sampled_source(activation("erf"), x, np.arange(40), y, 3.0, 50.0, seed=0, chains=64, moves=20, doublings=0)
    assert found.status == NOT_CONVERGED
    assert found.message


def test_a_tilt_without_a_norm_names_its_direction():
    x = det_inputs(6, 4, 1.3, 0.7)
    y = np.sign(x[:, 0])
    with pytest.raises(DomainError, match="not normalisable; the largest gamma that is, is 0"):
        sampled_source(activation("he2"), x, np.arange(6), y, 1.0, 10.0, seed=0, **FEW)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"beta": np.inf}, "finite beta"),
        ({"beta": -1.0}, "beta = -1"),
        ({"chains": 100}, "chains = 100"),
        ({"moves": 5}, "moves = 5"),
    ],
)
def test_bad_values_are_refused(more, text):
    settings = {"gamma": 1.0, "beta": 10.0, "seed": 0, **more}
    with pytest.raises(DomainError, match=text):
        sampled_source(activation("erf"), det_inputs(6, 4, 1.3, 0.7), np.arange(6), np.ones(6), **settings)


def test_a_lazy_network_is_kernel_regression():
    x = det_inputs(6, 4, 1.3, 0.7)
    y = np.sign(x[:, 0])
    rows = np.arange(4)
    for phi in ("erf", "he2"):
        act = activation(phi)
        found = sampled_source(act, x, rows, y[:4], 0.0, 10.0, seed=0)
        kernel = initial_kernels(act, x, x)[0]
        assert found.status == CONVERGED
        np.testing.assert_allclose(found.v, np.linalg.solve(kernel[:4, :4] + np.eye(4) / 10, y[:4]))
        np.testing.assert_allclose(found.outputs, kernel[:, :4] @ found.v)
        φ = act.phi(found.neurons @ x.T / 2)
        products = φ[:, :, None] * φ[:, None, :]
        assert np.all(np.abs(products.mean(axis=0) - kernel) < 5 * products.std(axis=0) / np.sqrt(len(φ)))


def test_a_nearly_lazy_network_is_solved():
    """Its chains never leave the bulk; v is that of regression to the accuracy of Φ, times |Φ⁻¹|."""
    x = det_inputs(6, 4, 1.3, 0.7)
    y = np.sign(x[:, 0])
    found = sampled_source(activation("erf"), x, np.arange(6), y, 0.02, 10.0, seed=0, chains=512, moves=300)
    assert found.status == CONVERGED, found.message
    lazy = sampled_source(activation("erf"), x, np.arange(6), y, 0.0, 10.0, seed=0)
    assert near(found.v, lazy.v, 0.03)
    assert near(found.kernel, lazy.kernel, 0.02)


def test_an_infinite_coupling_keeps_the_measure_of_the_source():
    points, act = problem_b(), activation("erf")
    exact, source = source_of("B2", "erf")
    tied = sampled_target(act, points.x, points.target, points.y2, 2.0, 4.0, np.inf, source, seed=2)
    same = quadrature_target(
        act, points.x, points.target, points.y2, 2.0, 4.0, np.inf, exact, source_rows=points.source, source_gamma=1.0
    )
    assert tied.status == CONVERGED
    assert near(tied.v, same.v, 0.03)
    assert near(tied.outputs, same.outputs, 0.03)
    assert tied.free_energy == pytest.approx(same.free_energy, rel=0.03)


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({}, CONVERGED),
        ({"gap": 0.03}, CONVERGED),  # the starts agree
        ({"gap": 0.03, "spread_v": 0.015}, NOT_CONVERGED),
        ({"gap": 0.03, "spread_kernel": 0.04}, NOT_CONVERGED),
        ({"gap": 0.07}, NOT_CONVERGED),  # above three floors
        ({"gap": 9e-4, "floor": 0.0}, CONVERGED),
        ({"gap": 1e-3, "spread_v": 0.06}, NOT_CONVERGED),
        ({"trips": 0.5}, NOT_CONVERGED),
        ({"tail": -8.0}, NOT_CONVERGED),
        ({"ess": 1900.0}, NOT_CONVERGED),
    ],
)
def test_the_verdict_is_the_documented_rule(more, status):
    fine = {
        "gap": 0.015,
        "floor": 0.02,
        "trips": 2.0,
        "tail": -12.0,
        "ess": 4000.0,
        "points": 100,
        "spread_v": 0.008,
        "spread_kernel": 0.02,
    }
    found, message = verdict(**{**fine, **more})
    assert found == status
    assert bool(message) == (status == NOT_CONVERGED)


def test_a_hundred_points_are_certified():
    """Case N3 of docs/references.md, γ = 1.5: its values to their errors, doubled for the error of this run."""
    rng = np.random.default_rng(7)
    x, t = rng.standard_normal((100, 40)), rng.standard_normal(40)
    # A quarter of the moves that are taken unasked: a small pool is doubled, and the certificate is the same.
    labels = np.sign(x @ t)
    found = sampled_source(activation("erf"), x, np.arange(100), labels, 1.5, 50.0, seed=0, threads=2, moves=400)
    assert found.status == CONVERGED, found.message
    assert found.gap <= 3 * found.gap_floor
    assert found.info["spread_v"] <= 0.01
    assert found.info["spread_kernel"] <= 0.03
    np.testing.assert_allclose(found.v[:6], [0.5607, 0.8510, 0.0892, 0.1758, -0.1002, 0.2124], atol=2 * 0.0012)
    assert float(found.v @ found.v) == pytest.approx(7.179, rel=0.01)
    assert found.info["square_saddle"] == pytest.approx(27.69, rel=0.005)
    assert found.free_energy == pytest.approx(26.744, abs=0.02)
