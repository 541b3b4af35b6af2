"""Gaussian moments with label noise, proximal points and their nodes: adaptive quadrature and root finding."""

import itertools

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import expit, ndtr

from tlcli.linear.classify.channels import ClassifierState, nodes_of, proximal, signal_of
from tlcli.linear.classify.moments import density, label_probability, moments_below, moments_between

CASES = [(0.3, 1.2, 0.0), (-2.5, 0.4, 0.1), (1.7, 8.0, 0.0), (0.05, 30.0, 0.2), (-0.4, 0.3, 0.44)]


def integral(low, high, a, flips, power):
    """∫ 2φ(z) Q(z) zⁱ dz by adaptive quadrature, the step at zero named."""

    def integrand(z):
        return 2 * np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * (flips + (1 - 2 * flips) * ndtr(a * z)) * z**power

    edges = [max(low, -12.0), *(z for z in (-5 / (a + 0.1), 0.0, 5 / (a + 0.1)) if low < z < high), high]
    return sum(quad(integrand, *pair, epsabs=1e-14, epsrel=1e-12)[0] for pair in itertools.pairwise(edges))


@pytest.mark.parametrize(("h", "a", "flips"), CASES)
def test_moments_below_a_threshold(h, a, flips):
    found = moments_below(np.array(h), np.array(a), np.array(flips))
    expected = [integral(-np.inf, h, a, flips, power) for power in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13)
    noisier = moments_below(np.array(h), np.array(a), np.array(min(flips + 0.05, 0.5)))
    assert abs(noisier[0] - expected[0]) > 1e-5, "another share of flips is seen"


def test_all_moments_of_a_fresh_point():
    a, flips = np.array([0.0, 0.7, 50.0]), np.array([0.0, 0.1, 0.3])
    whole = moments_below(np.full(3, 60.0), a, flips)
    np.testing.assert_allclose(whole[0], 1.0, rtol=1e-12)  # half of the points have either label
    np.testing.assert_allclose(whole[1], (1 - 2 * flips) * np.sqrt(2 / np.pi) * a / np.sqrt(1 + a * a), atol=1e-12)
    np.testing.assert_allclose(whole[2], 1.0, rtol=1e-12)


@pytest.mark.parametrize(
    ("low", "high", "a", "flips"),
    [(-np.inf, 0.5, 1.0, 0.1), (0.2, 0.2001, 3.0, 0.0), (-6.0, -5.0, 9.0, 0.0), (-0.5, 2.0, 40.0, 0.0), (3, 4, 1, 0.2)],
)
def test_moments_between_two_thresholds_do_not_cancel(low, high, a, flips):
    found = moments_between(*(np.array([float(x)]) for x in (low, high, a, flips)))
    expected = [integral(low, high, a, flips, power) for power in range(3)]
    np.testing.assert_allclose(np.ravel(found), expected, rtol=1e-7, atol=1e-17)


def test_probability_of_a_label():
    z = np.linspace(-4, 4, 9)
    same, other = label_probability(z, 1.3, 0.2), label_probability(-z, 1.3, 0.2)
    np.testing.assert_allclose(same + other, 1.0, rtol=1e-14)
    assert same.min() > 0.2
    assert same.max() < 0.8
    assert quad(lambda z: float(density(np.array(z))), -12, 12)[0] == pytest.approx(1, rel=1e-12)


def test_a_proximal_point_solves_its_equation():
    for u in (-30.0, -1.0, 0.0, 0.3, 8.0):
        for V in (1e-8, 0.5, 4.0, 1e3):
            exact = brentq(lambda p, u=u, V=V: p - V * expit(-p) - u, u - 1e-9, u + V + 1e-9, xtol=1e-14)
            assert proximal(np.array(u), np.array(V)) == pytest.approx(exact, abs=1e-3 * (1 + V) ** 0.5)


def test_nodes_integrate_the_two_gaussians():
    state = ClassifierState(*(np.array([x]) for x in (0.8, 0.6, 0.5, 0.9, 0.05)))
    nodes = nodes_of(state, 400)
    root, s = np.sqrt(state.q)[0], state.s[0]
    label, plain = nodes.labels[0], nodes.noise[0]
    u = nodes.u[0]
    a = state.a[0]
    for power in range(3):
        expected = root**power * integral(-np.inf, 12, a, 0.05, power)
        assert np.sum(label * u**power) == pytest.approx(expected, abs=1e-8)
    assert np.sum(plain) == pytest.approx(1, abs=1e-8)
    assert np.sum(plain * u) == pytest.approx(0, abs=1e-8)
    assert np.sum(plain * u * u) == pytest.approx(s * s, rel=1e-7)


def test_the_signal_of_labels_is_their_covariance_with_the_teacher():
    rng = np.random.default_rng(3)
    count, c, flips = 400_000, 0.8, 0.1
    teacher, noise = rng.standard_normal((2, count))
    labels = np.sign(c * teacher + np.sqrt(1 - c * c) * noise) * np.where(rng.uniform(size=count) < flips, -1, 1)
    products = labels * teacher
    error = products.std() / np.sqrt(count)
    found = float(signal_of(np.array(c), np.array(flips)))
    assert abs(products.mean() - found) < 4 * error
    assert abs(products.mean() - found / (1 - 2 * flips)) > 20 * error, "flips are seen"
