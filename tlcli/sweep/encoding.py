"""Parameters and records as text: plain data, strict JSON, and the one canonical form that is hashed."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

_TAG = "__float__"  # strict JSON has no inf and nan: they are written {"__float__": "inf"}


def plain(value: Any) -> Any:
    """Return `value`, NumPy scalars and arrays included, as dict, list, str, bool, int, float, None.

    Raises:
        TypeError: something else than JSON data.
    """
    if value is None or isinstance(value, (bool, np.bool_)):
        return None if value is None else bool(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping) and _TAG not in value and all(isinstance(key, str) for key in value):
        return {str(key): plain(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} is not a number, a text, a list or a dict of these")


def canonical_json(value: Any) -> str:
    """Return the one text of `value`: keys sorted, floats by repr, 1.0 as 1, -0.0 as 0, inf tagged.

    Raises:
        TypeError: not JSON data.
        ValueError: a NaN, which is equal to nothing and so cannot identify a point.
    """
    return dump(_canonical(plain(value)), sort_keys=True)


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, float):
        if math.isnan(value):
            raise ValueError("a parameter is NaN")
        if value.is_integer() and abs(value) <= 2**53:
            return int(value)
    return encode(value)


def encode(value: Any) -> Any:
    """Return plain data with inf and nan tagged, so that `dump` accepts it."""
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {_TAG: repr(value)}
    return value


def decode(value: Any) -> Any:
    """Undo `encode`."""
    if isinstance(value, dict):
        return float(value[_TAG]) if _TAG in value else {key: decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode(item) for item in value]
    return value


def dump(value: Any, *, sort_keys: bool = False) -> str:
    """Return compact strict JSON; floats read back to the last bit."""
    return json.dumps(value, sort_keys=sort_keys, separators=(",", ":"), allow_nan=False)
