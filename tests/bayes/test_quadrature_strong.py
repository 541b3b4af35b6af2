"""Quadrature where tilt or coupling is strong: large δ, γ and β, and integrals in place of lattices."""

import warnings

import numpy as np
import pytest
from scipy import integrate

from tests.bayes.problems import SETTINGS, problem_b
from tlcli.bayes.quadrature import rules as quadrature_rules
from tlcli.bayes.quadrature.condense import condensed
from tlcli.bayes.quadrature.local import TargetLocal, curvature
from tlcli.bayes.quadrature.solve import quadrature_source, quadrature_target
from tlcli.dmft.activations import activation

B, ERF = problem_b(), activation("erf")
# Four points of a source, two nearly along one line with other labels, and two of a target.
CLOSE = np.array(
    [[-0.543, -0.579], [0.554, -1.953], [-1.237, -0.644], [-1.176, -0.592], [-1.306, -0.194], [0.413, -1.0]]
)
Y1, Y2 = np.array([-0.741, -0.35, -1.394, -1.317]), np.array([-1.244, 0.597])


def target(delta, gamma=2.0, name="erf", accuracy=None):
    s, act = SETTINGS["B2"], activation(name)
    gamma1 = 0.5 * s["gamma1"]  # softplus is normalisable
    one = quadrature_source(act, B.x, B.source, B.y1, gamma1, s["beta1"], accuracy=accuracy)
    tie = {"source_rows": B.source, "source_gamma": gamma1, "accuracy": accuracy}
    return quadrature_target(act, B.x, B.target, B.y2, gamma, s["beta2"], delta, one, **tie)


@pytest.mark.parametrize("name", ["erf", "tanh", "softplus"])
def test_nodes_around_each_neuron_agree_with_the_lattice(name, monkeypatch):
    local = target(300.0, name=name, gamma=0.5, accuracy=1e-6)
    monkeypatch.setattr(quadrature_rules, "NARROW", np.inf)
    lattice = target(300.0, name=name, gamma=0.5, accuracy=1e-6)
    np.testing.assert_allclose(local.v, lattice.v, atol=1e-7)
    np.testing.assert_allclose(local.kernel, lattice.kernel, atol=1e-8)
    assert local.free_energy == pytest.approx(lattice.free_energy, abs=1e-8)
    assert np.abs(target(330.0, name=name, gamma=0.5, accuracy=1e-6).v - lattice.v).max() > 1e-4


def test_moments_around_one_neuron_are_its_integrals():
    """One source neuron in one dimension; the nodes are placed for another v than the one that is asked for."""
    b, z0, γ, δ, v = np.array([[0.9], [-0.4]]), 1.3, 1.5, 40.0, np.array([0.8, -1.1])
    measure = TargetLocal(ERF, b, γ, δ, (np.array([[z0]]), np.ones(1)), 0.9 * v, 15)
    found = measure.moments(v)

    def mean(f):
        def density(z):
            s = ERF.phi(z * b[:, 0]) @ v
            return np.sqrt((1 + δ) / (2 * np.pi)) * np.exp(
                -0.5 * (1 + δ) * (z - δ / (1 + δ) * z0) ** 2 + 0.5 * (γ * s) ** 2
            )

        return integrate.quad(lambda z: f(ERF.phi(z * b[:, 0])) * density(z), z0 - 2, z0 + 2, epsabs=1e-13)[0]

    total = mean(lambda φ: 1.0)
    assert found.log_z == pytest.approx(np.log(total), abs=1e-10)
    for i in range(2):
        for j in range(2):
            assert found.kernel[i, j] == pytest.approx(mean(lambda φ, i=i, j=j: φ[i] * φ[j]) / total, abs=1e-10)
            second = mean(lambda φ, i=i, j=j: (φ @ v) ** 2 * φ[i] * φ[j]) / total
            first = [mean(lambda φ, k=k: (φ @ v) * φ[k]) / total for k in (i, j)]
            assert found.spread[i, j] == pytest.approx(second - first[0] * first[1], abs=1e-10)


def test_curvature_of_the_log_tilt():
    rng, v, γ, ε = np.random.default_rng(1), np.array([0.7, -1.2, 0.4]), 1.4, 1e-5
    b, z = rng.standard_normal((3, 2)), rng.standard_normal((5, 2))
    gradient, hessian = curvature(ERF, b, γ, z, v)
    for k in range(2):
        step = ε * np.eye(2)[k]
        up, down = (0.5 * (γ * ERF.phi((z + c * step) @ b.T) @ v) ** 2 for c in (1, -1))
        np.testing.assert_allclose(gradient[:, k], (up - down) / (2 * ε), atol=1e-8)
        up, down = (curvature(ERF, b, γ, z + c * step, v)[0] for c in (1, -1))
        np.testing.assert_allclose(hessian[:, :, k], (up - down) / (2 * ε), atol=1e-6)


def test_large_couplings_approach_the_tied_weights():
    """The difference falls as 1/δ; from δ = 1e5 no lattice of width 1/√δ would fit in memory."""
    tied, errors = target(np.inf), []
    for δ in (1e3, 1e4, 1e5, 1e8):
        found = target(δ)
        assert found.converged
        errors.append(np.abs(found.kernel - tied.kernel).max())
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.02)
    assert errors[3] < 1e-6


def test_rich_networks_are_solved_and_lobes_certified():
    """γ = 10: rules of 0.2 see other lobes than finer ones; the answer of a target depends on it."""
    one = quadrature_source(ERF, B.x, B.source, B.y1, 10.0, 50.0, accuracy=1e-5)
    fine = quadrature_source(ERF, B.x, B.source, B.y1, 10.0, 50.0, accuracy=1e-8)
    assert one.converged
    assert one.free_energy == pytest.approx(fine.free_energy, abs=1e-6 * one.free_energy)
    np.testing.assert_allclose(one.kernel, fine.kernel, atol=1e-5)


def test_noiseless_target_does_not_depend_on_the_lattice_of_the_source():
    """β = ∞ and near-contradictory labels: v in the hundreds, found on one lattice, is wrong on another."""
    found = []
    for accuracy in (1e-5, 1e-6):
        one = quadrature_source(ERF, CLOSE, range(4), Y1, 1.0, np.inf, accuracy=accuracy)
        tie = {"source_rows": range(4), "source_gamma": 1.0, "accuracy": accuracy}
        found.append(quadrature_target(ERF, CLOSE, [4, 5], Y2, 1.0, np.inf, 1.0, one, **tie))
        assert one.gap < 1e-8
    assert found[0].converged
    np.testing.assert_allclose(found[0].v, found[1].v, rtol=1e-5)
    np.testing.assert_allclose(found[0].kernel, found[1].kernel, atol=1e-5)


def test_no_warning_and_an_answer_where_the_numbers_do_not_reach():
    """gelu with far lobes: exponents of the Gaussian between two networks overflow unless the largest is taken out."""
    act, x = activation("gelu"), np.array(
        [[-0.54, -0.58], [0.55, -1.95], [-1.24, -0.64], [-1.18, -0.59], [0.39, -0.21], [2.35, 1.35],
         [-1.31, -0.19], [0.41, -1.0], [-0.41, -0.26], [1.44, 1.88]]
    )  # fmt: skip
    y1, y2 = [-0.74, -0.35, -1.39, -1.32, 0.26, 2.70], [-1.24, 0.60, -0.36, 1.05]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = quadrature_source(act, x, range(6), y1, 5.0, 50.0, accuracy=1e-5)
        tie = {"source_rows": range(6), "source_gamma": 5.0, "accuracy": 1e-5}
        two = quadrature_target(act, x, [6, 7, 8, 9], y2, 5.0, 50.0, 1.0, one, **tie)
    assert one.converged
    if not two.converged:  # said after the first rule
        assert two.info["level"] == 0
        assert "more orders of magnitude than double precision holds: lower gamma, beta or delta." in two.message


def test_condensed_nodes_give_the_same_averages():
    rng = np.random.default_rng(0)
    z, p = 3 * rng.standard_normal((60_000, 2)), rng.uniform(size=60_000)
    b = np.array([[1.1, 0.5], [-0.3, 1.0], [0.8, -0.9]])
    steepest = np.linalg.norm(b, axis=1).max()
    for nodes, weights in (condensed(z, p, steepest), condensed(z, p, 3.0 * steepest)):
        assert weights.sum() == pytest.approx(p.sum(), rel=1e-12)
        for name in ("tanh", "erf", "gelu"):
            φ, few = (activation(name).phi(at @ b.T) for at in (z, nodes))
            np.testing.assert_allclose((few.T * weights) @ few, (φ.T * p) @ φ, rtol=0, atol=1e-9 * p.sum())
    assert len(condensed(z, p, steepest)[0]) < len(z) / 2
    assert len(condensed(z, p, 0.2 * steepest)[0]) < len(z) / 20
    φ, few = (activation("tanh").phi(at @ b.T) for at in (z, condensed(z, p, 0.2 * steepest)[0]))
    wrong = condensed(z, p, 0.2 * steepest)[1]
    assert np.abs((few.T * wrong) @ few - (φ.T * p) @ φ).max() > 1e-6 * p.sum()  # tiles five times too wide
    line = rng.standard_normal((4000, 1))
    nodes, weights = condensed(line, np.ones(4000), 1.0)
    assert len(nodes) < 400
    assert np.tanh(nodes[:, 0] + 0.3) @ weights == pytest.approx(np.tanh(line[:, 0] + 0.3).sum(), rel=1e-9)
