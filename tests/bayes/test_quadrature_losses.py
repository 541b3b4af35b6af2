"""Quadrature with other losses than the squared error: reference cases, the linear closed forms, brute force."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.bayes.loss_problems import PARAMETERS, agrees, case_of, objective
from tests.bayes.problems import ring
from tlcli.bayes.linear_losses import linear_loss_source, linear_loss_target
from tlcli.bayes.quadrature.solve import quadrature_source, quadrature_target
from tlcli.dmft.activations import activation
from tlcli.errors import DomainError


def solve(act, p, first, second, gamma1, beta1, gamma2, beta2, delta, accuracy=None):
    act, zeros = activation(act), [np.zeros(len(rows)) for rows in (p.source, p.target)]
    more: dict[str, Any] = {"accuracy": accuracy}
    source = quadrature_source(act, p.x, p.source, zeros[0], gamma1, beta1, objective=first, **more)
    more |= {"source_rows": p.source, "source_gamma": gamma1, "objective": second}
    target = quadrature_target(act, p.x, p.target, zeros[1], gamma2, beta2, delta, source, **more)
    return source, target


@pytest.mark.parametrize("case", ["B4", "B6"])
def test_reference_cases(case):
    p, first, second = case_of(case)
    source, target = solve("tanh", p, first, second, **PARAMETERS[case])
    assert source.converged
    assert target.converged
    agrees(case, 1, source, p, p.source)
    agrees(case, 2, target, p, p.target)


def test_softmax_of_two_classes_is_logistic():
    p, first, second = case_of("B4")
    one = solve("tanh", p, first, second, **PARAMETERS["B4"])
    classes = (objective("softmax", goal.y, 2) for goal in (first, second))
    root = np.sqrt(2)
    gamma1, beta1, gamma2, beta2, delta = (PARAMETERS["B4"][n] for n in ("gamma1", "beta1", "gamma2", "beta2", "delta"))
    two = solve("tanh", p, *classes, root * gamma1, beta1 / 2, root * gamma2, beta2 / 2, delta)
    for logistic, softmax in zip(one, two, strict=True):
        assert softmax.free_energy == pytest.approx(logistic.free_energy, rel=1e-9)
        np.testing.assert_allclose(softmax.outputs[:, 0] - softmax.outputs[:, 1], logistic.outputs, rtol=1e-7)
        np.testing.assert_allclose(softmax.v.sum(axis=1), 0.0, atol=1e-12)


@pytest.mark.parametrize("delta", [0.4, 30.0, np.inf])
def test_a_linear_network_of_three_classes_has_its_closed_form(delta):
    p, first, second = case_of("B6")
    p = replace(p, x=p.x * [1.0, 0.0])  # of rank one: the rules of two dimensions take long at this accuracy
    found = solve("linear", p, first, second, 0.8, 5, 0.6, 3, delta, 1e-7)
    assert second is not None
    source = linear_loss_source(p.x, p.source, first, 0.8, 5)
    target = linear_loss_target(p.x, p.target, second, 0.6, 3, delta, source)
    for one, exact in zip(found, (source, target), strict=True):
        assert one.converged, one.message
        assert one.free_energy == pytest.approx(exact.free_energy, rel=1e-6)
        for name in ("v", "outputs", "kernel"):
            np.testing.assert_allclose(getattr(one, name), getattr(exact, name), rtol=1e-5, atol=1e-6)


def test_nodes_around_the_neurons_of_a_source_are_as_good_as_a_lattice():
    """Three classes at a coupling that both rules hold, and the limit of an infinite one."""
    p, first, second = case_of("B6")
    act, known = activation("tanh"), {"source_rows": p.source, "source_gamma": 1.5}
    source = quadrature_source(act, p.x, p.source, np.zeros(4), 1.5, 5, objective=first, accuracy=1e-5)

    def target(delta):
        more: dict[str, Any] = {"objective": second, "accuracy": 1e-5, **known}
        return quadrature_target(act, p.x, p.target, np.zeros(3), 1, 3, delta, source, **more)

    loose, tight = target(15.0), target(25.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tlcli.bayes.quadrature.rules.NARROW", 1e9)
        lattice = target(25.0)
    np.testing.assert_allclose(tight.outputs, lattice.outputs, atol=1e-6)
    assert not np.allclose(tight.outputs, loose.outputs, atol=1e-3)
    np.testing.assert_allclose(target(1e6).outputs, target(np.inf).outputs, atol=1e-5)


@pytest.mark.parametrize("loss", ["hinge2", "huber:0.5", "logistic"])
@pytest.mark.parametrize("act", ["erf", "relu"])
def test_the_saddle_of_every_loss_is_that_of_brute_force(act, loss):
    """v = βΔ(f) and f = Φ(v)v with Φ from a plain sum over a square grid of weights in two dimensions."""
    x, y = ring(4, 0.1, 0.7), np.array([1.0, 1, -1, -1])
    goal = objective(loss, y, None if "huber" in loss else 2)
    found = quadrature_source(activation(act), x, np.arange(4), y, 0.9, 2.0, objective=goal)
    assert found.converged
    axis = np.arange(-9, 9.001, 0.05)
    w = np.stack([g.ravel() for g in np.meshgrid(axis, axis)], axis=1)
    φ = np.asarray(activation(act).phi(w @ x.T / np.sqrt(2)), dtype=float)
    exponent = -0.5 * np.sum(w**2, axis=1) + 0.5 * 0.9**2 * (φ @ found.v) ** 2
    p = np.exp(exponent)
    kernel = φ.T @ (p[:, None] * φ) / p.sum()
    accuracy = 1e-7 if act == "erf" else 2e-4
    np.testing.assert_allclose(found.kernel, kernel, atol=accuracy)
    np.testing.assert_allclose(found.outputs, kernel @ found.v, atol=4 * accuracy)
    np.testing.assert_allclose(found.v, 2.0 * goal.force(found.outputs), rtol=1e-9)


def test_no_finite_temperature_no_posterior():
    x, y = ring(4, 0.1, 0.7), np.array([1.0, 1, -1, -1])
    with pytest.raises(DomainError, match="beta = inf: logistic has no posterior without noise"):
        quadrature_source(activation("erf"), x, np.arange(4), y, 1.0, np.inf, objective=objective("logistic", y))
