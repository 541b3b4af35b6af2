"""The types of arrays, named once for all modules. Shapes stand in the docstrings; types say what the entries are."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Complexes = NDArray[np.complex128]
Indices = NDArray[np.intp]  # numbers of points, rows or modes
Flags = NDArray[np.bool_]  # one truth value per point
Array = NDArray[Any]  # entries of several types: single or double precision as the machine has it, or columns


def in_quadrature(errors: Sequence[Floats]) -> Floats:
    """Return the root of the sum of squares of errors of one shape; what is not known, nan, adds nothing to others."""
    found = functools.reduce(np.hypot, [np.where(np.isnan(error), 0.0, error) for error in errors])
    return np.where(np.all(np.isnan(errors), axis=0), np.nan, found)
