"""The types of arrays, named once for all modules. Shapes stand in the docstrings; types say what the entries are."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Complexes = NDArray[np.complex128]
Indices = NDArray[np.intp]  # numbers of points, rows or modes
Flags = NDArray[np.bool_]  # one truth value per point
Array = NDArray[Any]  # entries of several types: single or double precision as the machine has it, or columns
