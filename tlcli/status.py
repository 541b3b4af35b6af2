"""The status of one computed point: small integers inside solvers, words in tables."""

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Status(IntEnum):
    """How a solve ended; everything but `FAILED` and `NOT_CONVERGED` is an answer."""

    CONVERGED = 0
    COLLAPSED = 1  # weight decay removed the features: the kernel is zero
    DIVERGED = 2  # the exact answer is infinite (interpolation threshold with noise)
    INACCURATE = 3  # solved, but the stated error is beyond the accuracy that was asked for
    NOT_CONVERGED = 4
    FAILED = 5
    INSEPARABLE = 6  # no hyperplane divides the labels: a maximum margin does not exist


class Phase(IntEnum):
    """Sign of the gain, baseline − loss, as `phase_of` decides it; `COLLAPSED` where weight decay left no feature."""

    NEGATIVE = -1
    NEUTRAL = 0
    POSITIVE = 1
    COLLAPSED = 2
    UNKNOWN = 3  # there is no gain


SIGNIFICANT = 2.0  # standard errors from which on a gain has a sign
EXACT = 1e-12  # relative accuracy of closed forms
SOLVED = 1e-9  # and of what is integrated or iterated
ROUNDING = 1e-15  # of the labels' power: what is left of losses that are zero


def phase_of(
    gain: ArrayLike,
    loss: ArrayLike,
    baseline: ArrayLike,
    *,
    relative: float,
    error: ArrayLike = 0.0,
    power: ArrayLike = 1.0,
    collapsed: ArrayLike = False,
) -> NDArray[np.int8]:
    """Return the `Phase` of each point, for arrays that broadcast: the sign of a gain that is more than its own error.

    A gain is neutral up to the largest of two standard errors (`error`), `relative` (the solver's accuracy) times the
    larger of loss and baseline, and 1e-15 of the labels' `power`. It is unknown where it is NaN, and collapsed where
    `collapsed` says so. Everything scales with the labels, so the unit in which they are given does not matter.
    """
    gain, loss, baseline, error = (np.asarray(x, dtype=float) for x in (gain, loss, baseline, error))
    largest = np.fmax(*(np.where(np.isfinite(x), np.abs(x), 0.0) for x in np.broadcast_arrays(loss, baseline)))
    own = np.maximum(SIGNIFICANT * np.nan_to_num(error), relative * largest)
    width = np.maximum(own, ROUNDING * np.asarray(power, dtype=float))
    with np.errstate(invalid="ignore"):
        sign = np.where(np.abs(gain) > width, np.sign(gain), Phase.NEUTRAL)
    phase = np.where(np.isnan(gain), Phase.UNKNOWN, np.where(collapsed, Phase.COLLAPSED, sign))
    return np.nan_to_num(phase).astype(np.int8)


def worst(*statuses: NDArray[np.int8]) -> NDArray[np.int8]:
    """Combine status arrays elementwise: the larger code wins (they are ordered by severity)."""
    out = statuses[0]
    for status in statuses[1:]:
        out = np.maximum(out, status)
    return np.asarray(out, dtype=np.int8)
