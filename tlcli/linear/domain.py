"""One sentence for a parameter outside the range where the linear theory holds."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from tlcli.arrays import Flags, Floats
from tlcli.errors import DomainError, digits

Test = Callable[[Floats], Flags]

POSITIVE: tuple[Test, str] = (lambda x: x > 0, "positive (inf is allowed)")
NON_NEGATIVE: tuple[Test, str] = (lambda x: x >= 0, "zero or positive (inf is allowed)")
FINITE_NON_NEGATIVE: tuple[Test, str] = (lambda x: (x >= 0) & np.isfinite(x), "zero or positive, and finite")
# Of κ, whose square is a bulk: below, rounding would make it none, which is another theory (κ = 0 is no small κ).
INIT_SCALE: tuple[Test, str] = (
    lambda x: (x == 0) | ((x >= 1e-150) & (x <= 1e150)),
    "zero, or between 1e-150 and 1e150",
)
BULK: tuple[Test, str] = (lambda x: (x == 0) | ((x >= 1e-300) & np.isfinite(x)), "zero, or finite and at least 1e-300")
SQUARED: tuple[Test, str] = (lambda x: (x >= 0) & (x <= 1e150), "zero or positive, and at most 1e150")


_AT_THRESHOLD = 1e-12  # nearer to 1 than this, alpha cannot be told from 1: losses of noise would have four digits


def at_threshold(alpha: ArrayLike) -> Floats:
    """Return alpha as an array, 1 where it is the interpolation threshold up to rounding."""
    alpha = np.asarray(alpha, dtype=float)
    near = np.abs(alpha - 1.0) <= _AT_THRESHOLD
    return np.where(near, 1.0, alpha) if near.any() else alpha


def require(rule: tuple[Test, str], **parameters: ArrayLike) -> None:
    """Raise `DomainError` for the first value that breaks `rule`; NaN breaks every rule."""
    test, allowed = rule
    for name, values in parameters.items():
        array = np.asarray(values, dtype=float)
        bad = ~test(array)
        if np.any(bad):
            raise DomainError(f"{name} = {digits(array[bad].flat[0])} is outside the theory: it must be {allowed}.")
