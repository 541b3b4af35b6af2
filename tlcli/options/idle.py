"""Parameters without influence on any answer of a table, which no subtitle needs to say."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def idle(name: str, columns: Mapping[str, Any]) -> bool:
    """Whether no answer depends on the richness or size of a source: of a given kernel, or of one learned from zero.

    A given kernel holds them in formulas alone (a learned one has a norm, which the table tells). From zero scale and
    without weight decay one feature is left, whatever the richness.
    """
    given = [columns[name] for name in ("c_signal", "c_cross", "c_noise") if name in columns]
    if name in ("gamma0", "alpha1") and given and "norm2" not in columns:
        return not any(_names(formula, name) for formula in given)
    from_zero = all(_is_zero(columns.get(other)) for other in ("init_scale", "weight_decay"))
    return name == "gamma0" and from_zero


def _names(column: Any, name: str) -> bool:
    """Whether a column is a formula that holds the name, alone or in every row."""
    cells = np.asarray(column)
    return cells.dtype.kind in "UO" and any(name in str(cell) for cell in cells.flat)


def _is_zero(column: Any) -> bool:
    return column is not None and bool(np.all(np.asarray(column) == 0))
