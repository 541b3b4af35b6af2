"""Problems that the tests of the Bayesian theory share: A and B of docs/references.md, and its input generators."""

import csv
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

REFERENCE = Path(__file__).parents[1] / "reference"


def det_inputs(points, dimension, a, b):
    """x[mu, d] = sqrt(2) cos(a mu d + b mu), mu and d from 1: (points, dimension)."""
    mu, d = np.arange(1, points + 1)[:, None], np.arange(1, dimension + 1)
    return np.sqrt(2) * np.cos(a * mu * d + b * mu)


def ring(points, offset, step):
    """Points of norm sqrt(2) on the circle, at angles offset + step mu, mu from 0: (points, 2)."""
    angle = offset + step * np.arange(points)
    return np.sqrt(2) * np.stack([np.cos(angle), np.sin(angle)], axis=1)


@dataclass(frozen=True, eq=False)
class Points:
    """Inputs x (n, D) ordered [source, target, test], the rows of each, and their labels."""

    x: np.ndarray
    source: np.ndarray
    target: np.ndarray
    test: np.ndarray
    y1: np.ndarray
    y2: np.ndarray
    y_test: np.ndarray


def points(x1, x2, x_test, y1, y2, y_test):
    """Stack three sets of inputs."""
    edges = np.cumsum([0, len(x1), len(x2), len(x_test)])
    rows = [np.arange(a, b) for a, b in pairwise(edges)]
    return Points(np.concatenate([x1, x2, x_test]), *rows, *(np.asarray(y, dtype=float) for y in (y1, y2, y_test)))


def problem_a():
    """Linear reference problem: D = 8, 6 source, 5 target and 3 test points; labels of two linear teachers."""
    d = np.arange(1, 9)
    t1, t2 = np.cos(d), np.cos(d + 0.5)
    x1, x2, x_test = det_inputs(6, 8, 1.3, 0.7), det_inputs(5, 8, 0.9, 0.4), det_inputs(3, 8, 2.1, 0.2)
    return points(x1, x2, x_test, *(x @ t / np.sqrt(8) for x, t in ((x1, t1), (x2, t2), (x_test, t2))))


def problem_b():
    """Nonlinear reference problem in D = 2: 4 source, 4 target and 2 test points; no test labels (NaN)."""
    x1, x2, x_test = ring(4, 0.1, 0.7), ring(4, 0.3, 0.7), ring(2, 1.0, 1.3)
    return points(x1, x2, x_test, (1, 1, -1, -1), (1, -1, -1, -1), (np.nan, np.nan))


# Parameters of the runs on problems A and B.
SETTINGS = {
    "A1": {"gamma1": 1.5, "beta1": 4.0, "gamma2": 1.0, "beta2": 3.0, "delta": 1.5},
    "A2": {"gamma1": 3.0, "beta1": 10.0, "gamma2": 2.0, "beta2": 10.0, "delta": 0.5},
    "B1": {"gamma1": 1.5, "beta1": 5.0, "gamma2": 1.0, "beta2": 3.0, "delta": 1.5},  # tanh
    "B2": {"gamma1": 1.0, "beta1": 4.0, "gamma2": 2.0, "beta2": 4.0, "delta": 0.4},  # erf
    "B3": {"gamma1": 1.5, "beta1": 5.0},  # relu, source only
}


@lru_cache
def rows_of(name):
    """Rows of tests/reference/bayes_<name>.csv as dictionaries of words."""
    with (REFERENCE / f"bayes_{name}.csv").open() as file:
        return list(csv.DictReader(file))


def values_of(name, case, quantity):
    """Values of one quantity of one case, in order, as an array (from a table with columns case, quantity, value)."""
    return np.array([float(r["value"]) for r in rows_of(name) if r["case"] == case and r["quantity"] == quantity])
