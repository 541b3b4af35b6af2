"""What a loss is: its value, its force on the outputs, its curvature, its conjugate, and how it is reported.

A loss is a function l(f, y) of the outputs f of one sample and what it should be, y. Scalar losses act on each number
of arrays of any shape; `vector` ones take outputs (..., C) and join them. Everything is pure, keeps the precision of
the outputs (float32 or float64) and neither overflows nor cancels at margins of any size.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from tlcli.arrays import Array


class Loss(ABC):
    """A per-sample loss l(f, y) that is convex in the outputs f.

    `name` is what the command line calls it, `form` how it is written with its number, if it `takes_number`. `labels`
    is what its y is: real (numbers), binary (-1 and +1) or classes (probabilities of C classes). `vector`: the outputs
    of a sample are joined, the last axis holds them. `invariant`, of a `vector` loss: one number added to all outputs
    of a sample changes nothing, and networks have C - 1 readouts, of the centred outputs. `gaussian`: the squared error
    of every output, whose posterior has closed forms and a limit without noise. `factor` times the value is what is
    reported. `bounded`: a minimum
    exists whatever the labels; without it separable data have none. `flat`: the minimum is no single point of the
    outputs. `smooths`: the loss has label smoothing. `steep`: every force inside the conjugate's domain belongs to one
    f, which diverges at its edge.
    """

    name: ClassVar[str]
    form: ClassVar[str]
    labels: ClassVar[str]
    vector: ClassVar[bool] = False
    invariant: ClassVar[bool] = False
    gaussian: ClassVar[bool] = False
    factor: ClassVar[float] = 1.0
    takes_number: ClassVar[bool] = False
    smooths: ClassVar[bool] = False
    flat: ClassVar[bool] = False
    steep: ClassVar[bool] = False
    smoothness: ClassVar[float] = 1.0  # sup of the largest eigenvalue of the Hessian
    smoothing: float = 0.0

    @property
    def bounded(self) -> bool:
        """Whether there is a finite minimum of the outputs whatever the labels."""
        return True

    @property
    def text(self) -> str:
        """How the command line writes it."""
        return self.name

    def soften(self, y: Array) -> Array:
        """Return what training sees of the labels y: the labels, or with label smoothing less sure ones."""
        return y

    @abstractmethod
    def value(self, f: Array, y: Array) -> Array:
        """Return l(f, y) >= 0 or bounded below, of the shape of f (without the last axis of a `vector` loss)."""

    @abstractmethod
    def force(self, f: Array, y: Array) -> Array:
        """Return Delta = -dl/df, of the shape of f."""

    @abstractmethod
    def bend(self, f: Array, y: Array, d: Array) -> Array:
        """Return the Hessian times d, of the shape of f."""

    @abstractmethod
    def conjugate(self, v: Array, y: Array) -> Array:
        """Return sup_f [-v.f - l(f, y)], infinite outside its domain, of the shape of the value."""

    def domain(self, y: Array) -> tuple[Array, Array]:
        """Return the smallest and the largest force on each output, of the shape of y."""
        infinite = np.full_like(y, np.inf)
        return -infinite, infinite

    @abstractmethod
    def inverse(self, v: Array, y: Array) -> Array:
        """Return an f whose force is v, -d/dv of the conjugate at -v, for v inside the conjugate's domain."""

    def probabilities(self, f: Array) -> Array | None:
        """Return the probabilities (..., C) that the loss gives the classes, None where it is no likelihood of classes.

        Of a single output f (...) the classes are +1 and -1, (..., 2) in this order.
        """
        return None

    def hessian(self, f: Array, y: Array) -> Array:
        """Return the Hessian (..., C, C) of a `vector` loss, or its one number per output (...)."""
        if not self.vector:
            return self.bend(f, y, np.ones_like(f))
        unit = np.eye(f.shape[-1], dtype=f.dtype)
        return np.stack([self.bend(f, y, np.broadcast_to(e, f.shape)) for e in unit], axis=-1)

    def reported(self, f: Array, y: Array) -> Array:
        """Return what tables hold of a sample: the value, without the factor 1/2 where there is one."""
        return self.factor * self.value(f, y)


def xlogx(x: Array) -> Array:
    """Return x ln x, 0 at 0 and infinite below."""
    positive = np.where(x > 0, x, 1.0)
    return np.where(x >= 0, x * np.log(positive), np.inf)
