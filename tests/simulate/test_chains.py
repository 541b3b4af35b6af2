"""Chains of any likelihood: a Gaussian that is known, the adapted step, and flips that leave the posterior alone."""

import numpy as np
import pytest

from tlcli.dmft.activations import activation
from tlcli.simulate.posterior_hmc import GOAL, LONGEST, HmcChains, SampledStage

X = np.array([[0.9, 0.1], [-0.3, 0.8], [0.4, -0.6]])
LABELS = np.array([1.0, -1.0, 0.5])


def stage(name="tanh", *, gamma=1.0, tightness=2.0, scale=0.3, width=6, replicas=40):
    mean = scale * np.random.default_rng(1).standard_normal((replicas, width, 2))
    return SampledStage(activation(name), X, LABELS, gamma, 0.5, tightness, mean)


def moved(network, moves, seed=2):
    chains = HmcChains(network, np.random.default_rng(seed))
    for i in range(moves):
        chains.move(adapt=i < moves // 2)
    return chains


def test_without_data_the_prior_is_sampled():
    """Huge noise on the labels and γ = 0 leave N(αW̄, 1/(1+δ)) for every weight."""
    from dataclasses import replace

    network = replace(stage(replicas=400), gamma=0.0, inverse_beta=1e9)
    z = (moved(network, 30).weights - network.mean) * np.sqrt(network.tightness)
    count = z.size
    assert abs(z.mean()) < 4.5 / np.sqrt(count)
    assert abs((z**2).mean() - 1) < 4.5 * np.sqrt(2 / count)
    assert abs((z**2).mean() * 1.5 - 1) > 4.5 * np.sqrt(2 / count), "another tightness is seen"


def test_the_step_is_adapted_to_the_acceptance_that_is_wanted():
    network = stage("erf", gamma=6.0, width=40)
    chains = moved(network, 160)
    assert abs(chains.acceptance - GOAL) < 0.12 or chains._step == LONGEST
    before = chains._step
    chains.move(adapt=False)
    assert chains._step == before, "while samples are kept the step stays"
    assert HmcChains(network, np.random.default_rng(0)).acceptance == 0.0


@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_flips_keep_energy_and_force(name):
    chains = moved(stage(name, scale=0.05), 12)
    energy, force = chains.network.energy_and_force(chains.weights)
    np.testing.assert_allclose(chains._energy, energy, rtol=1e-12)
    np.testing.assert_allclose(chains._force, force, rtol=1e-9, atol=1e-12)


def test_flips_follow_the_prior():
    """Of single neurons without data the sign has the odds exp(2(1+δ) w·αW̄) of the two states."""
    network = stage(replicas=4000, width=1, scale=0.6)
    chains = HmcChains(network, np.random.default_rng(4), start=np.full((4000, 1, 2), 0.3))
    change = 2 * network.tightness * np.sum(chains.weights * network.mean, axis=2)
    signs = chains._signs(network.tightness, network.mean)
    chance = np.minimum(1.0, np.exp(-change))[..., 0]
    assert signs.shape == (4000, 1, 1)
    flipped = (signs[:, 0, 0] < 0).mean()
    error = np.sqrt(np.mean(chance * (1 - chance)) / 4000)
    assert abs(flipped - chance.mean()) < 4 * error
    assert abs(flipped - np.minimum(1.0, np.exp(-change / 2)).mean()) > 6 * error, "half the exponent is seen"


def test_chains_of_relu_are_never_flipped():
    network = stage("relu")
    chains = HmcChains(network, np.random.default_rng(0))
    chains._signs = lambda *_: pytest.fail("relu is not odd")  # pyright: ignore[reportAttributeAccessIssue]
    chains.move(adapt=True)
