import numpy as np
import pytest
from scipy.integrate import quad

from tlcli.linear.spectrum import marchenko_pastur, nodes_needed, positive_root, resolvent

ALPHAS = np.array([0.05, 0.4, 0.9, 1.0, 1.1, 2.5, 40.0, np.inf])


def test_shapes_and_the_atom():
    alpha = np.array([[0.3, 1.0, 2.0], [0.5, 4.0, np.inf]])
    nodes, weights = marchenko_pastur(alpha, 60)
    assert nodes.shape == weights.shape == (2, 3, 61)
    np.testing.assert_array_equal(nodes[..., -1], 0.0)
    far = alpha != 1
    np.testing.assert_allclose(weights[far, -1], np.maximum(0, 1 - alpha[far]), atol=1e-9)
    assert weights[0, 1, -1] == pytest.approx(1 / 61)  # the end point of the trapezoid rule
    np.testing.assert_array_equal(marchenko_pastur(alpha[1, 1:])[1][:, -1], 0.0)


def test_total_mass_is_one():
    _, weights = marchenko_pastur(ALPHAS)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, rtol=1e-13)
    assert marchenko_pastur(0.3)[1].sum() == 1.0


def test_moments_are_those_of_a_wishart_matrix():
    nodes, weights = marchenko_pastur(ALPHAS)
    c = 1 / ALPHAS
    np.testing.assert_allclose((weights * nodes).sum(-1), 1.0, rtol=1e-12)
    np.testing.assert_allclose((weights * nodes**2).sum(-1), 1 + c, rtol=1e-12)
    np.testing.assert_allclose((weights * nodes**3).sum(-1), 1 + 3 * c + c**2, rtol=1e-12)


def test_infinite_data_has_a_single_eigenvalue():
    nodes, weights = marchenko_pastur(np.inf)
    np.testing.assert_array_equal(nodes[:-1], 1.0)
    assert weights[-1] == 0


@pytest.mark.parametrize("alpha", [0.3, 0.99, 1.0, 1.01, 1.7])
def test_against_the_density(alpha):
    # The density on its support, integrated by an adaptive rule that knows nothing of the nodes.
    c = 1 / alpha
    low, high = (1 - np.sqrt(c)) ** 2, (1 + np.sqrt(c)) ** 2

    def integrand(x: float) -> float:
        return np.sqrt((high - x) * (x - low)) / (2 * np.pi * c * x) * np.exp(-1.3 * x)

    value = quad(integrand, low, high, limit=400, epsabs=1e-12)[0] + max(0.0, 1 - alpha)
    nodes, weights = marchenko_pastur(alpha)
    assert (weights * np.exp(-1.3 * nodes)).sum() == pytest.approx(value, abs=2e-9)


def test_the_error_falls_at_the_announced_rate():
    alpha = 0.5

    def error(k: int) -> float:
        _, weights = marchenko_pastur(alpha, k)
        return abs(weights[:-1].sum() - alpha)

    slope = (np.log(error(20)) - np.log(error(10))) / 10
    assert slope == pytest.approx(np.log(alpha), rel=0.05)  # min(√c, 1/√c)² = alpha
    assert nodes_needed(0.5) == np.ceil(np.log(1e14) / np.log(2))


@pytest.mark.parametrize("ridge", [1e-3, 0.2, 5.0, 1e4])
def test_resolvent_is_the_quadrature(ridge):
    nodes, weights = marchenko_pastur(ALPHAS, 3000)
    res = resolvent(ALPHAS, ridge)
    np.testing.assert_allclose(1 / (1 + res.kappa), (weights * nodes / (nodes + ridge)).sum(-1), rtol=1e-11)
    np.testing.assert_allclose(
        1 / ((1 + res.kappa) ** 2 * res.one_minus_d),
        (weights * nodes / (nodes + ridge) ** 2).sum(-1),
        rtol=1e-11,
    )
    np.testing.assert_allclose(res.kappa / (ridge * (1 + res.kappa)), (weights / (nodes + ridge)).sum(-1), rtol=1e-11)


def test_resolvent_limits():
    res = resolvent(ALPHAS, 0.0)
    c = 1 / ALPHAS
    np.testing.assert_allclose(res.kappa, np.maximum(c - 1, 0), rtol=1e-14)
    np.testing.assert_allclose(res.one_minus_d, np.where(c > 1, 1 - 1 / np.maximum(c, 1), 1 - np.minimum(c, 1)))
    # At alpha = 1 the effective ridge is √r to leading order, with no loss of digits.
    tiny = resolvent(1.0, 1e-20)
    assert float(tiny.kappa) == pytest.approx(1e-10, rel=1e-9)
    assert float(tiny.one_minus_d) == pytest.approx(2e-10, rel=1e-9)


def test_the_positive_root_does_not_cancel():
    exact = [np.longdouble(x) for x in (-3.0, 1e-9, 2.0)]
    p, ridge, bulk = exact
    root = (np.sqrt(p * p + 4 * ridge * bulk) + p) / 2  # in more digits
    kappa, ratio = positive_root(*(np.array(float(x)) for x in exact))
    assert kappa == pytest.approx(float(root), rel=1e-9)
    assert ratio == pytest.approx(float(ridge / root), rel=1e-9)
    for p, r, k in ((0.7, 0.2, 1.0), (-0.7, 0.2, 1.0), (-5.0, 1e-200, 1e-100), (1e200, 1e200, 1.0)):
        kappa, ratio = (float(x) for x in positive_root(np.array(p), np.array(r), np.array(k)))
        assert kappa * (kappa - p) == pytest.approx(r * k, rel=1e-9) or kappa == pytest.approx(p, rel=1e-12)
        assert ratio * kappa == pytest.approx(r, rel=1e-9) or p == -5.0
    limits = [positive_root(np.zeros(()), np.zeros(()), np.array(k)) for k in (0.0, 1.0)]
    assert [(float(kappa), float(ratio)) for kappa, ratio in limits] == [(0.0, 1.0), (0.0, 0.0)]
