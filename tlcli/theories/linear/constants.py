"""The free coefficients of an ansatz, as they come from options: numbers, or expressions in gamma0 and alpha1."""

from typing import Any

import numpy as np

from tlcli.arrays import Flags
from tlcli.errors import UsageError
from tlcli.linear.ansatz import parse_expression
from tlcli.theories.base import Parameters

NAMES = ("c_signal", "c_cross", "c_noise")


def constants(p: Parameters) -> dict[str, Any]:
    """Return c_signal, c_cross and c_noise as arrays: numbers as they are, expressions evaluated."""
    return {
        name: parse_expression(p[name]).evaluate(gamma0=p["gamma0"], alpha1=p["alpha1"])
        if isinstance(p[name], str)
        else np.asarray(p[name], dtype=float)
        for name in NAMES
    }


def admissible(p: Parameters) -> tuple[Flags, dict[str, Any]]:
    """Return where k I + C is a kernel, and the coefficients, zero elsewhere."""
    c1, c3, c2 = constants(p).values()
    k = np.asarray(p["bulk"], dtype=float)
    with np.errstate(all="ignore"):
        good = (k + c1 >= 0) & (k + c2 >= 0) & ((k + c1) * (k + c2) >= c3**2)
        good &= np.isfinite(c1) & np.isfinite(c2) & np.isfinite(c3)
    return good, dict(zip(NAMES, (np.where(good, c, 0.0) for c in (c1, c3, c2)), strict=True))


def numbers_of(name: str, text: Any) -> tuple[float, ...]:
    """Return the numbers of --spikes or --overlaps. Raises UsageError for another text."""
    try:
        found = tuple(float(part) for part in str(text).split(","))
    except ValueError:
        found = ()
    if not found or not np.all(np.isfinite(found)):
        raise UsageError(f"{name}: '{text}' must be finite numbers with commas, such as 0.6,-0.4,0.2.")
    return found
