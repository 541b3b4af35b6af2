"""What every experiment shares: one random stream per trial, means with standard errors, checked parameters."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from tlcli.arrays import Floats
from tlcli.errors import DomainError, UsageError, suggest

Value = float | str
Point = Mapping[str, Value]


class Estimate(NamedTuple):
    """Mean over trials and its standard error; floats for scalar observables, arrays otherwise."""

    mean: float | Floats
    se: float | Floats


def trial_rng(seed: int, trial: int) -> np.random.Generator:
    """Return the stream of one trial: it depends on (seed, trial) alone, never on the order of execution."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(trial,)))


def summarise(samples: Floats) -> Estimate:
    """Mean and standard error over axis 0 of `samples` (n_trials, ...).

    The error is NaN for a single trial and for infinite samples.
    """
    samples = np.asarray(samples, dtype=float)
    n_trials = len(samples)
    mean, se = samples.mean(axis=0), np.full(samples.shape[1:], np.nan)
    if n_trials > 1:
        with np.errstate(invalid="ignore"):  # infinite samples have an infinite mean and no error
            se = samples.std(axis=0, ddof=1) / np.sqrt(n_trials)
    return Estimate(float(mean), float(se)) if samples.ndim == 1 else Estimate(mean, se)


def run_trials(
    trial: Callable[[np.random.Generator], Mapping[str, float | Floats]], trials: int, seed: int
) -> dict[str, Estimate]:
    """Run `trial` once per stream and summarise each observable it returns.

    Raises UsageError unless trials >= 1.
    """
    if trials < 1:
        raise UsageError(f"trials = {trials}: an experiment needs at least one trial, e.g. --trials 16.")
    # One BLAS thread: the sums then do not depend on the machine's load or core count.
    with threadpool_limits(1):
        records = [trial(trial_rng(seed, i)) for i in range(trials)]
    return {name: summarise(np.array([record[name] for record in records])) for name in records[0]}


def complete_point(point: Point, defaults: Point, required: tuple[str, ...] = ()) -> dict[str, Value]:
    """Return `defaults` updated by `point`; unknown or missing names raise UsageError."""
    for name in point:
        if name not in defaults and name not in required:
            near = suggest(name, [*defaults, *required])
            raise UsageError(f"Unknown parameter {name!r} of the experiment{near}.")
    for name in required:
        if name not in point:
            raise UsageError(f"The experiment needs a value for {name!r}.")
    return {**defaults, **point}


def samples_of(alpha: float, dim: int) -> int | None:
    """P = round(alpha D), or None for infinite data (alpha = inf).

    Raises DomainError if no sample is left.
    """
    if np.isinf(alpha):
        return None
    n_samples = round(alpha * dim)
    if n_samples < 1:
        raise DomainError(f"alpha = {alpha:g} leaves no sample at D = {dim}: use a larger alpha or --dim.")
    return n_samples


def unit_vector(rng: np.random.Generator, dim: int, *orthogonal_to: Floats) -> Floats:
    """Draw a uniform unit vector (dim,) orthogonal to the given orthonormal vectors (dim,)."""
    v = rng.standard_normal(dim)
    for _ in range(2):  # twice is enough for orthogonality to rounding
        for u in orthogonal_to:
            v -= (u @ v) * u
    return v / np.linalg.norm(v)
