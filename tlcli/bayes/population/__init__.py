"""Saddle points of nonlinear networks at any input rank: an umbrella population with the sample-average dual."""

from tlcli.bayes.population.source import population_source
from tlcli.bayes.population.target import population_target

__all__ = ["population_source", "population_target"]
