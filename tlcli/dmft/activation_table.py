"""The table of activations, the one place that lists them: options, help, messages and engines derive from it.

Every function takes the preactivations h (any shape) and the namespace `xp` of their array library, so the same
line runs on NumPy, on array-api-strict and on a GPU. The error function is not part of the standard and is
dispatched by library. Nothing here imports NumPy before it is called, so `--help` is instant.
"""

import importlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple


class Formula(NamedTuple):
    """phi(h) = `value(h, xp)` and phi'(h) = `slope(h, phi, xp)`, which may need no h (None) but phi alone."""

    value: Callable[[Any, Any], Any]
    slope: Callable[[Any, Any, Any], Any]
    slope_needs_input: bool = True


def _erf(h: Any, xp: Any) -> Any:
    """The error function in whatever library holds h."""
    import numpy as np
    from scipy import special

    if xp is np or isinstance(h, np.ndarray):
        return erf_and_slope(h)[0] if h.dtype == np.float32 else special.erf(h)
    for attempt in (
        lambda: xp.special.erf(h),  # torch
        lambda: importlib.import_module("cupyx.scipy.special").erf(h),  # cupy
    ):
        try:
            return attempt()
        except (AttributeError, ImportError):
            continue
    return xp.asarray(special.erf(np.asarray(h)))  # a library of the CPU, for example array-api-strict


def erf_and_slope(h: Any) -> tuple[Any, Any]:
    """The error function of float32 numbers to 6e-7, and its derivative: they share exp(-h^2).

    Near single precision at a third of the cost of the exact one (Abramowitz-Stegun 7.1.26).
    """
    import numpy as np

    t = np.abs(h)
    t *= np.float32(0.3275911)
    t += np.float32(1)
    np.reciprocal(t, out=t)
    tail = t * np.float32(1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail += np.float32(coefficient)
        tail *= t
    np.multiply(h, h, out=t)
    np.negative(t, out=t)
    np.exp(t, out=t)
    tail *= t
    np.subtract(np.float32(1), tail, out=tail)
    np.copysign(tail, h, out=tail)
    t *= np.float32(2.0 / math.sqrt(math.pi))
    return tail, t


def _gauss_cdf(h: Any, xp: Any) -> Any:
    return 0.5 * (1.0 + _erf(h / math.sqrt(2.0), xp))


def _gelu_slope(h: Any, phi: Any, xp: Any) -> Any:
    """Return Phi(h) + h p(h) with the Gaussian's Phi = phi / h and density p."""
    zero = h == 0
    cdf = xp.where(zero, xp.full_like(h, 0.5), phi / xp.where(zero, xp.ones_like(h), h))
    return cdf + h * xp.exp(-0.5 * h * h) / math.sqrt(2.0 * math.pi)


def _relu(h: Any, xp: Any) -> Any:
    return xp.maximum(h, xp.zeros_like(h))


BUILT_IN = {
    "linear": Formula(lambda h, xp: h, lambda h, phi, xp: xp.ones_like(phi), slope_needs_input=False),
    # phi' = 0 at the kink: a dead neuron stays dead.
    "relu": Formula(_relu, lambda h, phi, xp: xp.astype(phi > 0, phi.dtype), slope_needs_input=False),
    "erf": Formula(_erf, lambda h, phi, xp: (2.0 / math.sqrt(math.pi)) * xp.exp(-h * h)),
    "tanh": Formula(lambda h, xp: xp.tanh(h), lambda h, phi, xp: 1.0 - phi * phi, slope_needs_input=False),
    "gelu": Formula(lambda h, xp: h * _gauss_cdf(h, xp), _gelu_slope),
    "softplus": Formula(
        lambda h, xp: _relu(h, xp) + xp.log1p(xp.exp(-xp.abs(h))),
        lambda h, phi, xp: -xp.expm1(-phi),  # the logistic function of h, to rounding
        slope_needs_input=False,
    ),
    # Normalised Hermite polynomials: E[He_k(z)^2] = k! for a standard Gaussian z.
    "he2": Formula(lambda h, xp: (h * h - 1.0) / math.sqrt(2.0), lambda h, phi, xp: math.sqrt(2.0) * h),
    "he3": Formula(
        lambda h, xp: h * (h * h - 3.0) / math.sqrt(6.0), lambda h, phi, xp: (3.0 / math.sqrt(6.0)) * (h * h - 1.0)
    ),
}
ACTIVATIONS = tuple(BUILT_IN)
