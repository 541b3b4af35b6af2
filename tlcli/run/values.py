"""Values of Python as the options read them."""

from os import PathLike
from typing import Any

from tlcli.errors import UsageError
from tlcli.options.option import Option


def plain(option: Option, value: Any) -> Any:
    """Return a value of Python as text, number or list, which options read; arrays keep every bit.

    An array that is the grid of a text, as 0.1:2:40, becomes that text, so that the axis keeps its scale.
    """
    if isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, PathLike):
        return str(value)
    import numpy as np

    if isinstance(value, np.generic):
        return value.item()
    if not hasattr(value, "__iter__"):
        return value
    array = value if isinstance(value, np.ndarray) else None
    if array is None and hasattr(value, "__array__"):  # a column of a data frame
        array = np.asarray(value)
    if array is None:
        return [plain(option, item) for item in value]
    if array.ndim > 1:
        raise UsageError(f"{option.name}: an array of shape {array.shape} is no list of values; give one dimension.")
    if array.ndim == 0:
        return array.item()
    if array.dtype.kind not in "iuf" or option.kind not in ("grid", "expression"):
        return array.tolist()
    return _as_grid(array.astype(float))


def _as_grid(array: Any) -> Any:
    import numpy as np

    from tlcli.sweep.grids import Values, format_values

    if array.size > 2 and np.isfinite(array).all():
        for scale in ("linear", "log"):
            if scale == "log" and not (array > 0).all():
                continue
            text = format_values(Values(array, scale))
            if ":" in text:
                return text
    return array.tolist()
