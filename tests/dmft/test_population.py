"""Neurons at initialisation: samples with matched moments and deterministic rules."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from tlcli.dmft.activations import ACTIVATIONS, activation
from tlcli.dmft.lazy import initial_kernels
from tlcli.dmft.population import quadrature, sample
from tlcli.errors import UsageError


def joint(population):
    return np.column_stack([population.hidden, population.readout])


@pytest.mark.parametrize("kind", ["mc", "sobol"])
@pytest.mark.parametrize("pairs", [False, True])
def test_shapes(kind, pairs):
    population = sample(kind, 100, 3, 2, np.random.default_rng(0), pairs=pairs)
    size = {("mc", False): 100, ("mc", True): 100, ("sobol", False): 128, ("sobol", True): 128}[kind, pairs]
    assert population.size == size
    assert population.hidden.shape == (size, 3)
    assert population.still.shape == (size, 2)
    assert population.weights is None


@pytest.mark.parametrize("kind", ["mc", "sobol"])
def test_samples_are_standard_gaussians(kind):
    population = sample(kind, 4096, 2, 1, np.random.default_rng(1))
    for values in np.column_stack([joint(population), population.still]).T:
        assert stats.kstest(values, "norm").pvalue > 1e-4
    cross = np.corrcoef(np.column_stack([joint(population), population.still]).T) - np.eye(4)
    assert np.max(np.abs(cross)) < 4 / 64


def test_an_odd_number_of_pairs_is_rounded_up():
    assert sample("mc", 7, 2, 0, np.random.default_rng(0), pairs=True).size == 8


@pytest.mark.parametrize("kind", ["mc", "sobol"])
def test_pairs_share_the_hidden_weights(kind):
    population = sample(kind, 64, 3, 2, np.random.default_rng(0), pairs=True)
    np.testing.assert_array_equal(population.hidden[:32], population.hidden[32:])
    np.testing.assert_array_equal(population.still[:32], population.still[32:])
    np.testing.assert_array_equal(population.readout[:32], -population.readout[32:])


@pytest.mark.parametrize("kind", ["mc", "sobol"])
@pytest.mark.parametrize("pairs", [False, True])
def test_whitening_matches_all_second_moments(kind, pairs):
    population = sample(kind, 64, 5, 0, np.random.default_rng(0), pairs=pairs, whiten=True)
    z = joint(population)
    np.testing.assert_allclose(z.T @ z / len(z), np.eye(6), rtol=0, atol=1e-12)
    means = z.mean(axis=0)
    if pairs:
        means = means[-1:]
    np.testing.assert_allclose(means, 0.0, atol=1e-12)


def test_a_plain_sample_does_not_match_them():
    z = joint(sample("mc", 64, 5, 0, np.random.default_rng(0), pairs=True))
    assert np.max(np.abs(z.T @ z / len(z) - np.eye(6))) > 0.05


@pytest.mark.parametrize(("pairs", "neurons", "allowed"), [(True, 8, 10), (False, 6, 14)])
def test_too_few_neurons_to_whiten(pairs, neurons, allowed):
    with pytest.raises(UsageError, match=f"{neurons} neurons cannot match .* 5 coordinates; use at least {allowed}"):
        sample("mc", neurons, 5, 0, np.random.default_rng(0), pairs=pairs, whiten=True)


# ------------------------------------------------------------------------------------------------- quadrature


def rule_of(act):
    """Which of the rules an activation gets."""
    if act.homogeneous:
        return "sphere" if act.smooth else "sphere, kinks"
    return "trapezoid" if act.lipschitz else "trapezoid, polynomial"


# At the numbers of nodes below, for ranks 1, 2 and 3: what the cut at 6.5 leaves out; kinks; a Sobol sequence.
ACCURACY = {
    "sphere": (1e-12, 1e-12, 3e-4),
    "sphere, kinks": (1e-12, 1e-4, 1e-3),
    "trapezoid": (1e-7, 1e-6, 1e-6),
    "trapezoid, polynomial": (2e-6, 1e-4, 1e-4),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize(("rank", "nodes"), [(1, 4096), (2, 30_000), (3, 60_000)])
def test_rules_reproduce_the_kernels_at_initialisation(name, rank, nodes):
    act = activation(name)
    population = quadrature(act, rank, nodes)
    assert 0.4 * nodes < population.size < 1.6 * nodes
    assert population.weights is not None
    assert population.weights.sum() == pytest.approx(1.0, abs=1e-12)
    x = np.random.default_rng(0).standard_normal((4, rank))
    h = population.hidden @ x.T / math.sqrt(rank)
    phi, slope = act.both(h)
    q, a = population.weights, population.readout
    found = (phi.T * q) @ phi, (slope.T * (q * a**2)) @ slope
    for value, expected in zip(found, initial_kernels(act, x, x), strict=True):
        np.testing.assert_allclose(value, expected, rtol=0, atol=ACCURACY[rule_of(act)][rank - 1])
    if not act.homogeneous:  # on the sphere only quantities of degree two are exact
        np.testing.assert_allclose((phi.T * (q * a**2)) @ phi, initial_kernels(act, x, x)[0], rtol=0, atol=1e-4)


def test_the_rule_in_the_plane_against_adaptive_integration():
    act = activation("softplus")
    population = quadrature(act, 1, 2000)
    expected = integrate.quad(lambda u: float(act.phi(np.float64(u))) ** 3 * stats.norm.pdf(u), -12, 12)[0]
    assert population.weights @ act.phi(population.hidden[:, 0]) ** 3 == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["tanh", "relu", "softplus", "linear"])
def test_rules_start_from_zero_output(name):
    population = quadrature(activation(name), 2, 5000)
    # For odd functions (u, a) and (-u, -a) are one neuron: the rule keeps a > 0 and is symmetric in u.
    assert np.all(population.readout > 0) == (name == "tanh")
    h = population.hidden @ np.array([0.3, -1.1])
    mean = population.weights @ (population.readout * activation(name).phi(h))
    assert abs(mean) < 1e-6


def test_rank_four_has_no_rule():
    with pytest.raises(UsageError, match="rank 3 or less, and these have rank 4; use sobol or mc"):
        quadrature(activation("tanh"), 4, 1000)
