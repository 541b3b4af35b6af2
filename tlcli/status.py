"""The status of one computed point: small integers inside solvers, words in tables."""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Status(IntEnum):
    """How a solve ended; everything but `FAILED` and `NOT_CONVERGED` is an answer."""

    CONVERGED = 0
    COLLAPSED = 1  # weight decay removed the features: the kernel is zero
    DIVERGED = 2  # the exact answer is infinite (interpolation threshold with noise)
    INACCURATE = 3  # solved, but the stated error is beyond the accuracy that was asked for
    NOT_CONVERGED = 4
    FAILED = 5


class Phase(IntEnum):
    """Sign of the gain, baseline − loss; `COLLAPSED` where no feature survived pre-training."""

    NEGATIVE = -1
    NEUTRAL = 0
    POSITIVE = 1
    COLLAPSED = 2


def worst(*statuses: NDArray[np.int8]) -> NDArray[np.int8]:
    """Combine status arrays elementwise: the larger code wins (they are ordered by severity)."""
    out = statuses[0]
    for status in statuses[1:]:
        out = np.maximum(out, status)
    return np.asarray(out, dtype=np.int8)
