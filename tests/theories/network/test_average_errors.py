"""Two standard errors hold the truth as often as they say, although pools and repeats are few."""

import numpy as np
import pytest

from tlcli.averages.grid import AveragedLosses
from tlcli.averages.homogeneous import Homogeneous
from tlcli.dmft.estimates import small_sample
from tlcli.theories.network.average_point import Readout, _statistics
from tlcli.theories.network.pools import PoolData

TRIALS = 300


def readout(x, y):
    none = np.zeros((0, x.shape[1]))
    data = PoolData(none, none[:, 0], x, y, {}, None, None, [np.arange(len(y))])
    asked = {"sizes": [12], "ridges": [0.1], "noises": [0.0], "times": [np.inf], "reduction": "mean"}
    return Readout({**asked, "method": "homogeneous", "seed": 0, "noise_name": "noise2"}, data)


@pytest.mark.parametrize("repeats", [2, 4])
def test_the_error_of_few_repeats_holds_the_kernel_of_all_neurons(repeats):
    """Random features of a linear kernel, 300 times: 95 % within two errors, and without the t-factor fewer."""
    rng = np.random.default_rng(repeats)
    x = rng.standard_normal((24, 8))
    y = x @ rng.standard_normal(8) + 0.3 * rng.standard_normal(24)
    truth = float(Homogeneous(x @ x.T, y).loss(12, 0.1).loss)
    learn, distances = readout(x, y), []
    for _ in range(TRIALS):
        features = x @ rng.standard_normal((repeats, 8, 600 // repeats))
        samples = features @ features.swapaxes(1, 2) / (600 // repeats)
        side = learn.of(samples.mean(axis=0), samples)
        loss = side.pools[0][0].losses.mean()
        distances.append(abs(loss - truth) / (loss * side.noise[0].item()))
    distances = np.array(distances)
    spread = 4 * np.sqrt(0.954 * 0.046 / TRIALS)
    assert abs(np.mean(distances < 2) - 0.954) < spread
    assert np.mean(distances * small_sample(repeats) < 2) < 0.954 - spread / 2, "nor would it without the factor"


def test_the_error_of_four_pools_holds_the_mean_of_all():
    rng = np.random.default_rng(0)
    inside, narrow = 0, 0
    for _ in range(TRIALS):
        means = 1 + 0.1 * rng.standard_normal((2, 4))
        sides = [[_flat(mean) for mean in side] for side in means]
        found = _statistics("loss", *sides, np.zeros((1, 1, 1, 1)))
        far, error = abs(found["loss"].item() - 1), found["loss_pool_se"].item()
        inside, narrow = inside + (far < 2 * error), narrow + (far < 2 * error / small_sample(4))
    spread = 4 * np.sqrt(0.954 * 0.046 * TRIALS)
    assert abs(inside - 0.954 * TRIALS) < spread
    assert narrow < 0.954 * TRIALS - spread


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_pools_have_the_error_of_their_points(count):
    """The spread of two pools is that of one number: the mean of all their points, which are many, tells more."""
    rng = np.random.default_rng(1)
    sides = [[_of_points(rng.standard_normal(50)) for _ in range(count)] for _ in range(2)]
    found = _statistics("loss", *sides, np.zeros((1, 1, 1, 1)))
    points = np.concatenate([one.losses.ravel() for one in sides[0]])
    assert found["loss"].item() == pytest.approx(points.mean())
    assert found["loss_pool_se"].item() == pytest.approx(points.std(ddof=1) / np.sqrt(50 * count))
    pairs = np.concatenate([one.losses.ravel() for one in sides[1]]) - points
    assert found["gain_pool_se"].item() == pytest.approx(pairs.std(ddof=1) / np.sqrt(50 * count))


def _flat(mean):
    return _of_points(np.full(5, mean))


def _of_points(losses):
    no = np.zeros((1, 1, 1, 1))
    return AveragedLosses(losses * np.ones((1, 1, 1, 1, 1)), no, np.array([False]), np.zeros((1, 1), dtype=bool), {})
