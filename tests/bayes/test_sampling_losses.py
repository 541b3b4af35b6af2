"""Sampled saddle points of other losses than the squared error: quadrature, finite width, and what they are made of."""

import numpy as np
import pytest
from scipy.optimize import minimize

from tests.bayes.loss_problems import case_of, objective
from tests.bayes.problems import ring
from tlcli.bayes.quadrature.solve import quadrature_source, quadrature_target
from tlcli.bayes.saddle import CONVERGED
from tlcli.bayes.sampling.certificate import check
from tlcli.bayes.sampling.dual import moments, newton
from tlcli.bayes.sampling.fits import SampledLoss, SampledSquares
from tlcli.bayes.sampling.pool import Pool
from tlcli.bayes.sampling.source import sampled_source
from tlcli.bayes.sampling.target import sampled_target
from tlcli.bayes.sampling.tilt import Tilt
from tlcli.dmft.activations import activation
from tlcli.errors import DomainError
from tlcli.losses import Objective
from tlcli.simulate.posterior import sample_posterior

X, Y = ring(4, 0.1, 0.7), np.array([1.0, 1, -1, -1])
ROWS = np.arange(4)
LOSSES = ("logistic", "hinge2", "huber:0.5", "softmax")


def of(loss, y, smoothing=0.0, weights=None) -> Objective:
    """The losses of labels -1 and 1."""
    real = loss.startswith("huber")
    return objective(loss, y, None if real else 2, smoothing, weights)


def away(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize(("phi", "loss"), [("tanh", "logistic"), ("erf", "hinge2"), ("tanh", "huber:0.5"),
                                           ("relu", "softmax"), ("relu", "hinge2")])  # fmt: skip
def test_a_sampled_source_is_that_of_quadrature(phi, loss):
    act, goal = activation(phi), of(loss, Y)
    exact = quadrature_source(act, X, ROWS, Y, 0.9, 3.0, objective=goal)
    found = sampled_source(act, X, ROWS, Y, 0.9, 3.0, seed=1, chains=256, moves=100, objective=goal)
    assert found.status == CONVERGED, found.message
    assert away(found.v, exact.v) < 0.02
    assert away(found.kernel, exact.kernel) < 0.03
    assert away(found.outputs, exact.outputs) < 0.02
    assert found.outputs.shape == exact.outputs.shape
    assert found.free_energy == pytest.approx(exact.free_energy, abs=0.02)
    assert found.info["residual"] < 1e-5
    wrong = quadrature_source(act, X, ROWS, Y, 1.1, 3.0, objective=goal)
    assert away(found.kernel, wrong.kernel) > 0.03, "the tolerance would see another richness"


@pytest.mark.parametrize(("phi", "first", "second", "delta"), [("tanh", "logistic", "logistic", 1.5),
                                                               ("tanh", "hinge2", "softmax", np.inf)])  # fmt: skip
def test_a_sampled_target_is_that_of_quadrature(phi, first, second, delta):
    p, _, _ = case_of("B4")
    act, one, other = activation(phi), of(first, p.y1), of(second, p.y2)
    exact = quadrature_source(act, p.x, p.source, p.y1, 1.0, 5.0, objective=one)
    source = sampled_source(act, p.x, p.source, p.y1, 1.0, 5.0, seed=1, chains=256, moves=100, objective=one)

    richer = quadrature_source(act, p.x, p.source, p.y1, 1.5, 5.0, objective=one)

    def wanted(gamma, around=exact, source_gamma=1.0):
        more = {"source_rows": p.source, "source_gamma": source_gamma, "objective": other}
        return quadrature_target(act, p.x, p.target, p.y2, gamma, 3.0, delta, around, **more)

    found = sampled_target(act, p.x, p.target, p.y2, 1.0, 3.0, delta, source, seed=2, moves=30, objective=other)
    right, wrong, tied = wanted(1.0), wanted(1.3), wanted(1.0, richer, 1.5)
    assert found.status == CONVERGED, found.message
    assert away(found.v, right.v) < 0.02
    assert away(found.outputs, right.outputs) < 0.02
    assert found.free_energy == pytest.approx(right.free_energy, rel=0.01)
    assert abs(found.free_energy - wrong.free_energy) > 0.05 * right.free_energy
    error_v, error = found.info["error_v"], found.info["error_kernel"]
    assert away(found.v, right.v) < 2 * error_v
    assert away(found.kernel, right.kernel) < 2 * error < 0.05
    assert away(found.v, tied.v) > 4 * error_v, "a target around a richer source is far away"
    assert away(found.kernel, tied.kernel) > 4 * error


def test_finite_networks_have_the_sampled_saddle_as_their_limit():
    """Logistic, inputs of rank 3: outputs of widths 32 and 64, extrapolated, within four errors of both.

    A force without its curvature, that of the squared error of 2y at β/4 which logistic has at f = 0, is far away.
    """
    rng = np.random.default_rng(5)
    x, y = 1.5 * rng.standard_normal((6, 3)), np.array([1.0, -1, 1, -1, 1, 1])
    rows, act, goal = np.arange(5), activation("tanh"), of("logistic", y[:5])
    theory = sampled_source(act, x, rows, y[:5], 1.5, 6.0, seed=0, chains=256, moves=200, objective=goal)
    flat = sampled_source(act, x, rows, 2 * y[:5], 1.5, 6.0 / 4, seed=0, chains=256, moves=200)
    assert theory.status == CONVERGED, theory.message
    found = [sample_posterior(x, rows, y[:5], activation=act, width=n, gamma1=1.5, beta1=6.0, replicas=12,
                              objectives=(goal, None), samples=150, burn=100, seed=n).source
             for n in (32, 64)]  # fmt: skip
    limit = 2 * found[1].outputs - found[0].outputs
    error = np.hypot(2 * found[1].outputs_error, found[0].outputs_error)
    own = theory.outputs * np.hypot(theory.info["error_v"], theory.info["error_kernel"])
    assert np.abs((limit - theory.outputs) / np.hypot(error, own)).max() < 4
    assert np.abs((limit - flat.outputs) / np.hypot(error, own)).max() > 6


@pytest.mark.parametrize("loss", LOSSES)
def test_value_outputs_and_bend_are_derivatives_of_each_other(loss):
    fit = SampledLoss.of(of(loss, Y, 0.1 if loss in ("logistic", "softmax") else 0.0, "1,2" if loss != "huber:0.5" else
                            None), 3.0)  # fmt: skip
    v = 0.3 * Y
    assert np.all((fit.low < v) & (v < fit.high))
    for k, unit in enumerate(1e-6 * np.eye(4)):
        slope = (fit.value(v + unit) - fit.value(v - unit)) / 2e-6
        assert slope == pytest.approx(fit.outputs(v)[k], rel=1e-7, abs=1e-8)
        bend = -(fit.outputs(v + unit) - fit.outputs(v - unit))[k] / 2e-6
        assert bend == pytest.approx(fit.bend(v)[k], rel=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_a_step_ends_where_the_box_does(seed):
    """The maximum of a model inside the box, against a bounded minimiser; a step that is cut at the edge is another."""
    rng, fit = np.random.default_rng(seed), SampledLoss.of(of("huber:0.5", np.ones(12)), 1.0)
    a, g, v = rng.standard_normal((12, 20)), 2 * rng.standard_normal(12), rng.uniform(-0.5, 0.5, 12)
    h = a @ a.T / 20 + 0.1 * np.eye(12)
    step, _, _ = fit.within(v, g, h, lambda g, h: (np.linalg.solve(h, g), None))
    bounds = list(zip(-0.5 - v, 0.5 - v, strict=True))
    best = minimize(lambda d: 0.5 * d @ h @ d - g @ d, np.zeros(12), jac=lambda d: h @ d - g, bounds=bounds).x
    np.testing.assert_allclose(step, best, atol=1e-4)
    assert np.abs(np.clip(v + np.linalg.solve(h, g), -0.5, 0.5) - v - best).max() > 0.1


def test_the_squared_error_as_a_loss_is_the_squared_error():
    """Newton's method and the certificate, the gap by the conjugate beside ½γ²rᵀA⁻¹r."""
    rng = np.random.default_rng(1)
    tilt = Tilt(activation("tanh"), X.astype(np.float32))
    pool = Pool(rng.standard_normal((4, 512, 2), dtype=np.float32), np.zeros((4, 512)))
    plain, general = SampledSquares(Y, 2.0), SampledLoss.of(objective("mse", Y, None), 2.0)
    one, other = (newton(tilt, pool, np.zeros(4), fit, 0.8) for fit in (plain, general))
    np.testing.assert_allclose(other.v, one.v, rtol=1e-9)
    for v in (one.v, 1.1 * one.v + 0.05):
        ours, theirs = (check(tilt, pool, v, fit, 0.8) for fit in (general, plain))
        assert ours.gap == pytest.approx(theirs.gap, rel=1e-6, abs=1e-12)
        assert ours.noise == pytest.approx(theirs.noise, rel=1e-9)
        assert ours.error_v == pytest.approx(theirs.error_v, rel=1e-9)


@pytest.mark.parametrize("loss", ["logistic", "hinge2", "huber:0.5"])
def test_the_gap_is_that_of_the_conjugate(loss):
    """At any v at most γ²Σ[βℓ(f) + βℓ*(-v/β) + v·f] at f = Φv; the mse formula with 1/β is another number."""
    rng, beta, goal = np.random.default_rng(2), 2.0, of(loss, Y)
    tilt = Tilt(activation("tanh"), X.astype(np.float32))
    pool = Pool(rng.standard_normal((4, 512, 2), dtype=np.float32), np.zeros((4, 512)))
    fit = SampledLoss.of(goal, beta)
    best = newton(tilt, pool, fit.start(), fit, 0.8)
    assert check(tilt, pool, best.v, fit, 0.8).gap < 1e-6
    v = 0.7 * best.v
    f = moments(tilt, pool, v, 0.8).kernel @ v
    cheap = 0.64 * beta * (goal.value(f) + goal.conjugate(v / beta) + float(v @ f) / beta)
    gap = check(tilt, pool, v, fit, 0.8).gap
    assert 0.3 * cheap < gap <= cheap
    assert gap > 1e-4


def test_several_readouts_are_refused_with_the_reason():
    goal = objective("softmax", (0, 1, 2, 0), 3)
    with pytest.raises(DomainError, match=r"softmax of 2 readouts: sampling .* one readout"):
        sampled_source(activation("tanh"), X, ROWS, Y, 1.0, 3.0, seed=0, objective=goal)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_lazy_network_is_regression_with_its_kernel(loss):
    goal = of(loss, Y)
    found = sampled_source(activation("erf"), X, ROWS, Y, 0.0, 3.0, seed=0, objective=goal)
    exact = quadrature_source(activation("erf"), X, ROWS, Y, 0.0, 3.0, objective=goal)
    np.testing.assert_allclose(found.v, exact.v, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.outputs, exact.outputs, rtol=1e-6, atol=1e-9)
