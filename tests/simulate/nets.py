"""Networks of finite width from plain words, for tests."""

from dataclasses import dataclass

import numpy as np

from tlcli.simulate.deep import DeepExperiment, simulate_networks
from tlcli.simulate.two_layer import NetworkExperiment
from tlcli.training import TransferSettings


@dataclass
class Data:
    """What networks read of a `TaskData`."""

    x_source: np.ndarray
    y_source: np.ndarray
    x_target: np.ndarray
    y_target: np.ndarray
    x_test: np.ndarray
    y_test_source: np.ndarray
    y_test_target: np.ndarray


class Unchecked(TransferSettings):
    """Settings that no command asks for, as a frozen target after layers were frozen."""

    def __post_init__(self):
        pass


def made(kind, words, settings=TransferSettings):
    """Return an experiment of a kind, of a training and its sizes in one dict."""
    own = {name: words[name] for name in ("width", "dt") if name in words}
    return kind(settings(**{name: value for name, value in words.items() if name not in own}), **own)


def two_layer_experiment(**words):
    return made(NetworkExperiment, words)


def deep_experiment(settings=TransferSettings, **words):
    return made(DeepExperiment, words, settings)


def simulate(data, **words):
    """`simulate_networks`, with the training among its words."""
    own = {name: words.pop(name) for name in ("width", "nets", "seed", "dt") if name in words}
    return simulate_networks(data, TransferSettings(**words), **own)
