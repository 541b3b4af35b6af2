"""Problems that the tests of the mean-field engine share: reference cases (docs/references.md) and two larger tasks."""

import csv
from functools import lru_cache
from pathlib import Path

import numpy as np

from tlcli.dmft.activations import activation
from tlcli.dmft.field import Drive, Field
from tlcli.dmft.geometry import reduce_inputs
from tlcli.dmft.integrate import Control, integrate
from tlcli.dmft.population import sample
from tlcli.dmft.two_layer import Problem, Stage, run_population

REFERENCE = Path(__file__).parents[1] / "reference" / "two_layer.csv"
TIMES = (0.0, 0.25, 0.5, 1.0)
# activation, D, gamma of both stages, weight decay, recorded times; all with the summed loss.
CASES = {
    "R1": ("linear", 6, 1.0, 2.0, 0.0, (*TIMES, 4.0)),
    "R2": ("relu", 1, 1.0, 1.0, 0.0, (0.0, 0.1, 0.25, 0.5, 1.0, 3.0)),
    "R3": ("tanh", 2, 1.0, 1.0, 0.0, TIMES),
    "R4": ("erf", 2, 0.5, 2.0, 0.1, TIMES),
    "R5": ("relu", 2, 1.0, 1.0, 0.0, TIMES),
}


@lru_cache
def reference():
    """Rows of the reference table, as dictionaries."""
    with REFERENCE.open() as file:
        return list(csv.DictReader(file))


def reference_f(case):
    """f of both stages (2, n_time, 8) at points 1..8; for R2 the slope c(t), (2, n_time, 1)."""
    name, times = ("slope", CASES[case][5]) if case == "R2" else ("f", CASES[case][5])
    values = [float(row["value"]) for row in reference() if row["case"] == case and row["quantity"] == name]
    return np.array(values).reshape(2, len(times), -1)


def reference_values(case, quantity):
    """(indices, value) of the rows of one quantity, points counted from 0."""
    return [
        (tuple(int(row[k]) - 1 for k in ("point", "other") if row[k]), float(row["value"]))
        for row in reference()
        if row["case"] == case and row["quantity"] == quantity
    ]


def reference_problem(case, *, gamma2=None):
    """The problem of a reference case: three points per task and two more; R2: three, two, then x = 1 and x = -1."""
    name, dim, g1, g2, decay, times = CASES[case]
    if case == "R2":
        x = np.array([0.5, 1.0, 2.0, 1.0, 1.5, 1.0, -1.0])[:, None]
        rows, labels = [np.arange(3), np.arange(3, 5)], [[1.0, 1.5, 1.0], [-0.5, 0.3]]
    else:
        mu, i = np.arange(1, 9)[:, None], np.arange(1, dim + 1)
        x = np.cos(mu * i + i**2)
        rows, labels = [np.arange(3), np.arange(3, 6)], [[1.0, -1.0, 0.5], [-0.5, 1.0, 1.0]]
    stages = [
        Stage(r, np.array(y), gamma, np.array(times), 1.0, decay)
        for r, y, gamma in zip(rows, labels, (g1, g2 if gamma2 is None else gamma2), strict=True)
    ]
    return Problem(activation(name), reduce_inputs(x, rows[1][-1] + 1), stages)


def teacher_problem(
    name,
    dim,
    n_train,
    n_test,
    times,
    *,
    gamma=1.0,
    gamma2=None,
    decay=0.0,
    scale=1.0,
    seed=0,
    readout="carry",
    only=None,
):
    """Tasks 1 (D = 15, P = 50 + 50) and 3 (D = 2, P = 20 + 20) and smaller ones.

    Gaussian inputs; the source is linear in the first coordinate, the target its second Hermite polynomial. `times` of
    both stages; `only` 1 or 2 leaves out the other stage. Returns the problem, and the labels of all points, (2, n).
    """
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2 * n_train + n_test, dim))
    labels = np.stack([x[:, 0], (x[:, 0] ** 2 - 1) / np.sqrt(2)])
    rows = [np.arange(n_train), np.arange(n_train, 2 * n_train)]
    gammas = (gamma, gamma if gamma2 is None else gamma2)
    stages = [
        Stage(rows[k], labels[k, rows[k]], gammas[k], np.asarray(times, dtype=float), scale, decay, readout)
        for k in (0, 1)
    ]
    if only is not None:
        stages = [stages[only - 1]]
    return Problem(activation(name), reduce_inputs(x, 2 * n_train), stages), labels


def gaussians(problem, neurons, seed=0, **options):
    """A plain Gaussian population of a problem."""
    g = problem.geometry
    return sample("mc", neurons, g.rank, g.still.shape[1], np.random.default_rng(seed), **options)


def state_of(population):
    """The state vector of a population."""
    return np.concatenate([population.hidden.ravel(), population.readout])


def field_of(problem, population, stage=0, **options):
    """The field of one stage of a problem."""
    s = problem.stages[stage]
    drive = Drive(problem.geometry.moving[s.rows], s.labels, s.gamma, s.scale, s.decay)
    return Field(problem.act, population.size, drive, population.weights, **options)


def outputs(problem, population, control=None, **options):
    """f of all stages, (stage, n_time, n_point), or a list of them where the stages differ in length."""
    runs = run_population(problem, population, control or Control("dop853", 1e-10), **options)
    return [run.f for run in runs]


def advance(field, z, duration, method="dop853", tolerance=1e-11, **options):
    """The state after `duration`."""
    return integrate(field, z, duration, Control(method, tolerance, **options)).state
