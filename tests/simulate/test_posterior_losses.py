"""Sampled posteriors of networks with other losses: exact posteriors at finite width, the limit, and wrong formulas."""

import math

import numpy as np
import pytest

from tests.bayes.loss_problems import objective
from tlcli.bayes.likelihood import Likelihood
from tlcli.bayes.linear_losses import linear_loss_source, linear_loss_target
from tlcli.dmft.activations import activation
from tlcli.errors import DomainError
from tlcli.simulate.posterior import sample_posterior
from tlcli.simulate.posterior_losses import LossChains, LossStage

X = np.sqrt(2) * np.array([[1.0, 0.2], [-0.4, 0.9], [0.6, -1.1], [0.3, 0.8]])
LABELS = np.array([1.0, -1.0, 1.0])  # of the first three points; the last is a test point
ROWS = np.arange(3)
GAMMA, BETA = 1.5, 4.0
STEP = 0.05


def exact(goal, gamma, beta, width, readouts=1):
    """f at all points of a linear network of width N in D = 2, by quadrature of the posterior of t = Σ aᵢwᵢ/N.

    The prior of t given |a|² = Ns is Gaussian of variance s/N in each direction, and Ns is χ² of N degrees of freedom.
    """
    assert readouts == 1
    axis = np.arange(-8.0, 8.0 + STEP / 2, STEP) * gamma
    t = np.stack([g.ravel() for g in np.meshgrid(axis, axis)], axis=1)
    radius = np.linspace(0, 12 * gamma, 4001)
    log_s = np.linspace(-12, 6, 1441)
    s = np.exp(log_s)
    weight = (0.5 * width - 1 + 1 - 1) * log_s - 0.5 * width * s  # dlog s; s^(-D/2) of the Gaussian, D = 2
    exponent = weight - 0.5 * width * radius[:, None] ** 2 / s
    top = exponent.max(axis=1)
    prior = top + np.log(np.exp(exponent - top[:, None]).sum(axis=1))
    f = t @ X.T / np.sqrt(2) / gamma
    losses = goal.loss.value(f[:, ROWS], goal.y).sum(axis=1)
    log_p = np.interp(np.linalg.norm(t, axis=1), radius, prior) - beta * gamma**2 * width * losses
    p = np.exp(log_p - log_p.max())
    return p @ f / p.sum()


@pytest.fixture(scope="module")
def goal():
    return objective("logistic", LABELS)


def test_finite_networks_approach_the_theory_as_one_over_n(goal):
    theory = linear_loss_source(X, ROWS, goal, GAMMA, BETA).outputs
    away = {n: n * np.abs(exact(goal, GAMMA, BETA, n) - theory).max() for n in (50, 100, 200)}
    assert away[100] == pytest.approx(away[50], rel=0.02)
    assert away[200] == pytest.approx(away[100], rel=0.01)
    assert 0.01 < away[200] < 5
    wrong = linear_loss_source(X, ROWS, goal, GAMMA, 1.1 * BETA).outputs
    assert 200 * np.abs(exact(goal, GAMMA, BETA, 200) - wrong).max() > 5 * away[200], "a wrong β is seen"


def test_chains_sample_the_exact_posterior_of_their_width(goal):
    """Within four standard errors of the width's own posterior; that of another β or of a lazy network is far away."""
    width = 12
    found = sample_posterior(
        X, ROWS, LABELS, activation=activation("linear"), width=width, gamma1=GAMMA, beta1=BETA,
        objectives=(goal, None), replicas=24, samples=400, burn=120, seed=3,
    ).source  # fmt: skip
    expected = exact(goal, GAMMA, BETA, width)
    z = (found.outputs - expected) / found.outputs_error
    assert np.abs(z).max() < 4
    assert np.abs((found.outputs - exact(goal, GAMMA, 1.3 * BETA, width)) / found.outputs_error).max() > 5
    theory = linear_loss_source(X, ROWS, goal, GAMMA, BETA).outputs
    assert np.abs((found.outputs - theory) / found.outputs_error).max() > 4, "at this width 1/N is resolved"
    assert abs(found.drift) < 4
    assert found.acceptance > 0.5


def test_the_force_is_the_slope_of_the_energy():
    rng = np.random.default_rng(0)
    goals = [objective("softmax", (0, 2, 1), 3), objective("hinge2", LABELS), objective("huber:0.3", LABELS, None)]
    goals += [objective("softmax", (0, 2, 1), 3, weights="1,2,3"), objective("logistic", LABELS, 2, 0.1, "3,1")]
    for goal in goals:
        stage = LossStage(activation("tanh"), X[:3] / np.sqrt(2), Likelihood(goal, 3.0), 1.4, 1.0, np.zeros((2, 5, 2)))
        w, a = rng.standard_normal((2, 5, 2)), rng.standard_normal((2, 5, stage.likelihood.readouts))
        energy, *forces = stage.energy_and_force(w, a)
        f = stage.outputs(np.tanh(w @ X[:3].T / np.sqrt(2)), a)
        for replica in range(2):
            likelihood = 1.4**2 * 5 * stage.likelihood.energy(f[replica])
            assert energy[replica] == pytest.approx(likelihood, rel=1e-12)
        for which, (state, force) in enumerate(zip((w, a), forces, strict=True)):
            d = rng.standard_normal(state.shape)
            ends = [(w + h * d, a) if which == 0 else (w, a + h * d) for h in (1e-6, -1e-6)]
            slope = (stage.energy_and_force(*ends[0])[0] - stage.energy_and_force(*ends[1])[0]) / 2e-6
            np.testing.assert_allclose(slope, np.sum(force * d, axis=(1, 2)), rtol=1e-6, atol=1e-7)


def test_targets_around_sources_of_other_classes():
    """Softmax of three classes, then logistic: both extrapolate to the theory from two widths."""
    first, second = objective("softmax", (0, 1, 2), 3), objective("logistic", LABELS)
    source = linear_loss_source(X, ROWS, first, 1.0, 4)
    target = linear_loss_target(X, ROWS, second, 1.2, 3, 1.5, source)
    outputs, errors = {}, {}
    for width in (16, 32):
        found = sample_posterior(
            X, ROWS, np.zeros(3), ROWS, LABELS, activation=activation("linear"), width=width, gamma1=1.0, beta1=4,
            gamma2=1.2, beta2=3, delta=1.5, objectives=(first, second), replicas=16, samples=150, burn=100, sources=2,
            seed=1,
        )  # fmt: skip
        assert found.target is not None
        assert found.source.outputs.shape == (4, 3)
        np.testing.assert_allclose(found.source.outputs.sum(axis=1), 0, atol=1e-12)
        outputs[width] = found.source.outputs.ravel(), found.target.outputs
        errors[width] = found.source.outputs_error.ravel(), found.target.outputs_error
    for stage, theory in enumerate((source.outputs.ravel(), target.outputs)):
        limit = 2 * outputs[32][stage] - outputs[16][stage]
        error = np.hypot(2 * errors[32][stage], errors[16][stage])
        assert np.abs((limit - theory) / error).max() < 4, stage
        assert np.abs((limit - 1.3 * theory) / error).max() > 4, "a theory that is 30 % off is seen"


def test_frozen_weights_leave_the_readout_alone():
    stage = LossStage(
        activation("erf"), X[:3] / np.sqrt(2), Likelihood(objective("logistic", LABELS), 3.0), 1.0, np.inf,
        np.random.default_rng(1).standard_normal((2, 6, 2)), frozen=True,
    )  # fmt: skip
    chains = LossChains(stage, np.random.default_rng(2))
    before, readout = chains.weights.copy(), chains.readout.copy()
    for _ in range(5):
        chains.move(adapt=True)
    np.testing.assert_array_equal(chains.weights, before)
    assert not np.allclose(chains.readout, readout)


def test_refusals(goal):
    more = {"activation": activation("linear"), "width": 8, "objectives": (goal, None)}
    with pytest.raises(DomainError, match="beta = inf: logistic has no posterior without noise"):
        sample_posterior(X, ROWS, LABELS, gamma1=1.0, beta1=math.inf, **more)
    with pytest.raises(DomainError, match="gamma1 = 0: f has 1/gamma in front"):
        sample_posterior(X, ROWS, LABELS, gamma1=0.0, beta1=1.0, **more)
