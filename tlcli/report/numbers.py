"""Numbers in sentences: as many digits as they deserve."""

import math
from typing import Any

import numpy as np

from tlcli.errors import counted

_DIGITS = 3


def number(x: Any) -> str:
    """Return a number with three significant digits, below a million never as a power; infinity is `inf`."""
    value = float(x)
    return f"{value:.0f}" if 999.5 <= abs(value) < 999999.5 else f"{value:.{_DIGITS}g}"


def with_error(x: Any, error: Any) -> str:
    """Return `x ± error`, both to the second digit of the error; without a finite error above zero `x` alone."""
    value, width = float(x), float(error)
    if not (math.isfinite(value) and math.isfinite(width) and width > 0):
        return number(value)
    places = max(0, 1 - math.floor(math.log10(width)))
    if places > 6:  # else a row of zeros
        return f"{value:.{max(_DIGITS, _figures(value, width))}g} ± {width:.2g}"
    return f"{value:.{places}f} ± {width:.{places}f}"


def _figures(value: float, width: float) -> int:
    """Return how many significant digits of the value reach the second digit of its error."""
    if value == 0:
        return 1
    return max(1, min(15, 2 + math.floor(math.log10(abs(value))) - math.floor(math.log10(width))))


def span(values: Any) -> str:
    """Return the one value, or `low to high`; NaN does not count."""
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    low, high = number(known.min()), number(known.max())
    return low if low == high else f"{low} to {high}"


def points(count: int, none: bool = False) -> str:
    """Return `all N points` or `both points`; `none`: what stands after a negation, `any of N points`."""
    if none:
        return "either of 2 points" if count == 2 else f"any of {count} points"
    return "both points" if count == 2 else f"all {count} points"


def rows(count: int) -> str:
    """Return `1 row` or `N rows`."""
    return counted(count, "row")
