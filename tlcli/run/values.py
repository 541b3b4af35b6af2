"""Values of Python as the options read them."""

import math
from collections.abc import Mapping, Set
from decimal import Decimal
from fractions import Fraction
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from tlcli.errors import UsageError
from tlcli.options.option import Option
from tlcli.paths import expanded

_SHOWN = 60


def plain(option: Option, value: Any) -> Any:
    """Return a value of Python as text, number or list, which options read; arrays of double precision keep every bit.

    Numbers of single or half precision are the decimals that they are printed as. An array that is the grid of a text,
    as 0.1:2:40, becomes that text, so that the axis keeps its scale.

    Raises:
        UsageError: what is neither a number nor a text nor values in an order.
    """
    if isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, PathLike):
        return str(value)
    import numpy as np

    if value is np.ma.masked:
        raise _no_value(option, value)
    if isinstance(value, np.generic):
        return _decimal(value) if isinstance(value, np.floating) else value.item()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Fraction):
        return float(value)
    if isinstance(value, (Mapping, Set)):
        what = "a mapping" if isinstance(value, Mapping) else "a set, which has no order,"
        raise UsageError(f"{option.name}: {what} is no list of values; give a list.")
    if value is not None and (isinstance(value, (bytes, bytearray, memoryview)) or not hasattr(value, "__iter__")):
        raise _no_value(option, value)
    array = value if isinstance(value, np.ndarray) else None
    if array is None and hasattr(value, "__array__"):  # a column of a data frame
        array = np.asarray(value)
    if array is None:
        return value if value is None else [_item(option, item) for item in value]
    if array.ndim > 1:
        raise UsageError(f"{option.name}: an array of shape {array.shape} is no list of values; give one dimension.")
    if np.ma.is_masked(array):
        raise UsageError(f"{option.name}: the array has masked values; leave them out (.compressed()).")
    if array.ndim == 0:
        return plain(option, array[()])
    if array.dtype.kind == "f" and array.dtype.itemsize < 8:
        array = np.array([_decimal(number) for number in array])
    if array.dtype.kind not in "iuf" or option.kind not in ("grid", "expression"):
        return array.tolist()
    return _as_grid(array.astype(float))


def _item(option: Option, item: Any) -> Any:
    if isinstance(item, (list, tuple)):
        raise UsageError(f"{option.name}: a list within a list is no value; give one list.")
    return plain(option, item)


def as_path(given: Any, what: str) -> Path:
    """Return a path that is given as text or path. Raises UsageError for anything else, naming `what` it should be."""
    text = fspath(given) if isinstance(given, (str, PathLike)) else b""
    if isinstance(text, bytes) or "\0" in text:
        raise UsageError(f"{given!r:.60} ({type(given).__name__}) is no path; give {what} as a text or path.")
    return expanded(text)


def _decimal(number: Any) -> float | str:
    """Return a float, as the decimal that it is printed as where it has fewer digits; beyond all floats its text."""
    found = float(str(number)) if number.dtype.itemsize < 8 else float(number)
    return str(number) if math.isinf(found) and "inf" not in str(number) else found


def _no_value(option: Option, value: Any) -> UsageError:
    shown = str(value)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
    return UsageError(f"{option.name}: '{shown}' ({type(value).__name__}) is no number, text or list of them.")


def _as_grid(array: Any) -> Any:
    import numpy as np

    from tlcli.sweep.grids import Values, spaced_text

    if array.size > 2 and np.isfinite(array).all():
        for scale in ("linear", "log"):
            if scale == "log" and not (array > 0).all():
                continue
            if text := spaced_text(Values(array, scale)):
                return text
    return array.tolist()
