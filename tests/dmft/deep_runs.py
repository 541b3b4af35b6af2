"""The deep reference cases solved by every route, and the reference table (tests/reference/deep.csv)."""

import csv
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from tests.dmft.deep_problems import reference_case
from tests.oracles.bidiagonal import run_bidiagonal
from tests.oracles.deep_rows import kernel_rows
from tlcli.dmft.activations import activation
from tlcli.dmft.deep.run import Surgery, run_stages
from tlcli.dmft.deep.start import exact, sampled
from tlcli.dmft.geometry import reduce_inputs
from tlcli.dmft.integrate import Control
from tlcli.dmft.stage import Stage

TABLE = Path(__file__).parents[1] / "reference" / "deep.csv"
SETS = ("source", "target", "test")


@lru_cache
def _table():
    with TABLE.open() as file:
        return list(csv.DictReader(file))


def reference(case, quantity):
    """Rows (layer, step, point, other, value, error) of the table; layers count from 0, points are places in a set."""
    return [
        (
            int(row["layer"] or 1) - 1,
            int(row["step"]),
            SETS.index(row["point"]) if row["point"] else None,
            SETS.index(row["other"]) if row["other"] else None,
            float(row["value"]),
            float(row["error"] or 0),
        )
        for row in _table()
        if row["case"] == case and row["quantity"] == quantity
    ]


def varied(name, **changes):
    """A reference case with other parameters."""
    return replace(reference_case(name), **changes)


def stages_of(case, readout="carry", scale=1.0):
    """The stages, with a record at every step."""
    return case.stages(
        lambda rows, labels, gamma, steps, decay: Stage(
            rows, labels, gamma, case.dt * np.arange(steps + 1), scale, decay, readout
        )
    )


def geometry_of(case):
    return reduce_inputs(case.x, case.P1 + case.P2)


def descent(case):
    """Gradient descent with the step of the case."""
    return Control("euler", dt=case.dt)


def joined(runs):
    """f (n_state, n) of all stages; at the switch the new one's."""
    return np.concatenate([*(run.f[:-1] for run in runs[:-1]), runs[-1].f])


def by_rows(case, surgery=None, readout="carry"):
    """The record of the kernel rows."""
    return kernel_rows(case.x @ case.x.T / case.D, stages_of(case, readout), case.L, case.dt, surgery)


def by_bidiagonal(case, control=None, readout="carry", **options):
    return run_bidiagonal(geometry_of(case).moving, stages_of(case, readout), control or descent(case), **options)


def by_axes(case, surgery=None, readout="carry", tol=1e-9, control=None, observe=None, size=1500):
    """The causal sweep in the exact space of a linear network."""
    start = exact(activation("linear"), geometry_of(case), case.L, np.arange(case.P1 + case.P2), tol=tol, size=size)
    return run_stages(start, stages_of(case, readout), control or descent(case), surgery or Surgery(), observe)


def by_samples(
    case, neurons, seed, surgery=None, readout="carry", tol=0.03, dtype="float32", draws="matched", observe=None
):
    """The causal sweep on one sample of neurons."""
    start = sampled(
        case.activation,
        geometry_of(case),
        case.L,
        neurons,
        np.random.default_rng(seed),
        np.arange(case.P1 + case.P2),
        tol=tol,
        dtype=dtype,
        draws=draws,
    )
    return run_stages(start, stages_of(case, readout), descent(case), surgery or Surgery(), observe)


def many_samples(case, neurons, seeds, **options):
    """f (n_seed, n_state, n) of independent samples."""
    return np.array([joined(by_samples(case, neurons, seed, **options)) for seed in seeds])


def rms(x):
    return float(np.sqrt(np.mean(np.square(x))))
