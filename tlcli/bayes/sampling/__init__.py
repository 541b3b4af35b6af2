"""Saddle points of nonlinear networks at any input rank: umbrella sampling with the sample-average dual."""

from tlcli.bayes.sampling.source import sampled_source
from tlcli.bayes.sampling.target import sampled_target

__all__ = ["sampled_source", "sampled_target"]
