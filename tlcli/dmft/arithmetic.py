"""What an integrator does with states: sums, sizes and errors of flat vectors in any array library."""

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from scipy.linalg import get_blas_funcs


class Dynamics(Protocol):
    """What an integrator needs of a field: its velocity, its fastest rate, and arithmetic of its states."""

    xp: Any
    evaluations: int

    def __call__(self, t: float, z: Any) -> Any:
        """Return dz/dt."""
        ...

    def stiffness(self, t: float, z: Any, vector: Any = None, sweeps: int = ..., /) -> tuple[float, Any]:
        """Return the fastest rate of relaxation, and a vector that makes the next estimate cheaper."""
        ...

    def fit(self, t: float, z: Any) -> tuple[float, bool]:
        """Return the mean loss of the training points, and whether all are classified as their labels say."""
        ...

    def combine(self, *terms: tuple[float, Any]) -> Any:
        """Return the sum of factor * vector as a new vector."""
        ...

    def rms(self, z: Any) -> float:
        """Return the size of a state or a velocity."""
        ...

    def error(self, estimate: Any, z: Any, new: Any) -> float:
        """Return the size of `estimate` relative to 1 + the size of the states z and new."""
        ...


class Arithmetic:
    """States as flat vectors of `xp`, every component of the same weight; a field inherits from it."""

    xp: Any = np

    def fit(self, t: float, z: Any) -> tuple[float, bool]:
        """Return infinity and False: only fields with a loss of their own know it."""
        return math.inf, False

    def combine(self, *terms: tuple[float, Any]) -> Any:
        """Return the sum of factor * vector as a new vector."""
        (factor, vector), *rest = terms
        if self.xp is not np:
            out = factor * vector
            for factor, vector in rest:
                out = out + factor * vector
            return out
        out = np.multiply(vector, factor, dtype=vector.dtype)
        add: Callable[..., Any] = get_blas_funcs("axpy", (out,))  # pyright: ignore[reportAssignmentType]
        for factor, vector in rest:
            out = add(vector, out, a=factor)
        return out

    def rms(self, z: Any) -> float:
        """Return the root mean square of a state or a velocity."""
        if self.xp is np:
            return math.sqrt(float(np.dot(z, z)) / max(len(z), 1))
        return float(self.xp.mean(z * z)) ** 0.5

    def error(self, estimate: Any, z: Any, new: Any) -> float:
        """Return the rms of `estimate` relative to 1 + the larger of |z| and |new|, component by component."""
        xp = self.xp
        if xp is np:
            weight = np.abs(z)
            np.maximum(weight, np.abs(new), out=weight)
            weight += 1
            scaled = estimate / weight
            return math.sqrt(float(np.dot(scaled, scaled)) / len(scaled))
        scaled = estimate / (1 + xp.maximum(xp.abs(z), xp.abs(new)))
        return float(xp.mean(scaled * scaled)) ** 0.5
