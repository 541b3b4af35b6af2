"""One sentence for a parameter outside the range where the linear theory holds."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcli.errors import DomainError, digits

Test = Callable[[NDArray[np.float64]], NDArray[np.bool_]]

POSITIVE: tuple[Test, str] = (lambda x: x > 0, "positive (inf is allowed)")
NON_NEGATIVE: tuple[Test, str] = (lambda x: x >= 0, "zero or positive (inf is allowed)")
FINITE_NON_NEGATIVE: tuple[Test, str] = (lambda x: (x >= 0) & np.isfinite(x), "zero or positive, and finite")


def require(rule: tuple[Test, str], **parameters: ArrayLike) -> None:
    """Raise `DomainError` for the first value that breaks `rule`; NaN breaks every rule."""
    test, allowed = rule
    for name, values in parameters.items():
        array = np.asarray(values, dtype=float)
        bad = ~test(array)
        if np.any(bad):
            raise DomainError(f"{name} = {digits(array[bad].flat[0])} is outside the theory: it must be {allowed}.")
