"""Activation functions and their derivatives, written against the Python array API.

Every function takes the preactivations h (any shape) and the namespace `xp` of their array library, so the same
line runs on NumPy, on array-api-strict and on a GPU. The error function is not part of the standard and is
dispatched by library.
"""

import importlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from tlcli.errors import UsageError, suggest

ACTIVATIONS = ("linear", "relu", "erf", "tanh", "gelu", "softplus", "he2", "he3")


@dataclass(frozen=True, eq=False)
class Activation:
    """A scalar nonlinearity.

    `value(h, xp)` is phi(h); `slope(h, phi, xp)` is phi'(h), from the value where that is cheaper. `odd`:
    phi(-h) = -phi(h); `homogeneous`: phi(c h) = c phi(h) for c > 0; `smooth`: no kink, so that high-order
    integrators keep their order; `slope_needs_input`: the derivative does not follow from the value; `lipschitz`:
    bounded derivative, so that no neuron runs away in a given field.
    """

    name: str
    value: Callable[[Any, Any], Any]
    slope: Callable[[Any, Any, Any], Any]
    odd: bool = False
    homogeneous: bool = False
    smooth: bool = True
    slope_needs_input: bool = True
    lipschitz: bool = True

    def phi(self, h: Any, xp: Any = np) -> Any:
        """Return phi(h), of the shape of h."""
        return self.value(h, xp)

    def both(self, h: Any, xp: Any = np) -> tuple[Any, Any]:
        """Return (phi(h), phi'(h)), each of the shape of h."""
        phi = self.value(h, xp)
        return phi, self.slope(h, phi, xp)


def _erf(h: Any, xp: Any) -> Any:
    """The error function in whatever library holds h."""
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


def _ones(h: Any, xp: Any) -> Any:
    return xp.ones_like(h)


def _relu(h: Any, xp: Any) -> Any:
    return xp.maximum(h, xp.zeros_like(h))


def _step(phi: Any, xp: Any) -> Any:
    return xp.astype(phi > 0, phi.dtype)


_BUILT_IN = {
    "linear": Activation(
        "linear",
        lambda h, xp: h,
        lambda h, phi, xp: _ones(phi, xp),
        odd=True,
        homogeneous=True,
        slope_needs_input=False,
    ),
    # phi' = 0 at the kink: a dead neuron stays dead.
    "relu": Activation(
        "relu", _relu, lambda h, phi, xp: _step(phi, xp), homogeneous=True, smooth=False, slope_needs_input=False
    ),
    "erf": Activation("erf", _erf, lambda h, phi, xp: (2.0 / math.sqrt(math.pi)) * xp.exp(-h * h), odd=True),
    "tanh": Activation(
        "tanh", lambda h, xp: xp.tanh(h), lambda h, phi, xp: 1.0 - phi * phi, odd=True, slope_needs_input=False
    ),
    "gelu": Activation(
        "gelu",
        lambda h, xp: h * _gauss_cdf(h, xp),
        lambda h, phi, xp: _gelu_slope(h, phi, xp),
    ),
    "softplus": Activation(
        "softplus",
        lambda h, xp: _relu(h, xp) + xp.log1p(xp.exp(-xp.abs(h))),
        lambda h, phi, xp: -xp.expm1(-phi),  # the logistic function of h, to rounding
        slope_needs_input=False,
    ),
    # Normalised Hermite polynomials: E[He_k(z)^2] = k! for a standard Gaussian z.
    "he2": Activation(
        "he2", lambda h, xp: (h * h - 1.0) / math.sqrt(2.0), lambda h, phi, xp: math.sqrt(2.0) * h, lipschitz=False
    ),
    "he3": Activation(
        "he3",
        lambda h, xp: h * (h * h - 3.0) / math.sqrt(6.0),
        lambda h, phi, xp: (3.0 / math.sqrt(6.0)) * (h * h - 1.0),
        odd=True,
        lipschitz=False,
    ),
}


def activation(name: str) -> Activation:
    """Return the activation called `name`, one of `ACTIVATIONS` or a user's own, `module:function`.

    A user's function takes an array h and returns the pair (phi(h), phi'(h)); `module:phi,dphi` names two
    functions instead. It is imported with the working folder on the path.

    Raises:
        UsageError: an unknown name, a function that cannot be imported or whose derivative is wrong.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    if ":" in name:
        return _own(name)
    raise UsageError(
        f"activation: '{name}' is unknown{suggest(name, ACTIVATIONS)}; use one of {', '.join(ACTIVATIONS)} or your "
        "own as module:function."
    )


def _own(name: str) -> Activation:
    module_name, _, names = name.partition(":")
    functions = [part.strip() for part in names.split(",")]
    if not module_name or not all(functions) or len(functions) > 2:
        raise UsageError(f"activation: '{name}' must be module:function or module:function,derivative.")
    here = sys.path.copy()
    sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises
        raise UsageError(f"activation: '{name}' cannot be imported ({type(error).__name__}: {error}).") from None
    finally:
        sys.path[:] = here
    for function in functions:
        if not callable(getattr(module, function, None)):
            known = [n for n in vars(module) if not n.startswith("_")]
            raise UsageError(f"activation: {module_name} has no function '{function}'{suggest(function, known)}.")
    found = [getattr(module, function) for function in functions]
    if len(found) == 2:
        value, slope = found
    else:
        pair = found[0]
        try:
            returned = pair(np.zeros(3))
        except Exception as error:
            raise UsageError(f"activation: '{name}' fails on an array ({type(error).__name__}: {error}).") from None
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise UsageError(
                f"activation: '{name}' must return the pair (phi, phi'); or name two functions, module:phi,dphi."
            )

        def value(h: Any) -> Any:
            return pair(h)[0]

        def slope(h: Any) -> Any:
            return pair(h)[1]

    try:
        odd, smooth = _check(name, value, slope)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"activation: '{name}' fails on an array ({type(error).__name__}: {error}).") from None
    return Activation(name, lambda h, xp: value(h), lambda h, phi, xp: slope(h), odd=odd, smooth=smooth)


def _check(name: str, value: Callable[[Any], Any], slope: Callable[[Any], Any]) -> tuple[bool, bool]:
    """Compare the derivative with central differences; return whether the function is odd, and whether smooth.

    Kinks are allowed: a quarter of the points may disagree. A kink is sought at the grid points, 0 among them.
    """
    h, eps = np.linspace(-3.2, 3.2, 65), 1e-5
    phi, dphi = np.asarray(value(h.copy())), np.asarray(slope(h.copy()))
    if phi.shape != h.shape or dphi.shape != h.shape:
        raise UsageError(f"activation: '{name}' must keep the shape {h.shape}; it gives {phi.shape} and {dphi.shape}.")
    if not (np.all(np.isfinite(phi)) and np.all(np.isfinite(dphi))):
        raise UsageError(f"activation: '{name}' is not finite between -3 and 3.")
    central = (np.asarray(value(h + eps)) - np.asarray(value(h - eps))) / (2 * eps)
    wrong = np.abs(central - dphi) > 1e-5 * np.maximum(1.0, np.abs(central))
    if wrong.mean() > 0.25:
        at = int(np.argmax(np.abs(central - dphi)))
        raise UsageError(
            f"activation: the derivative of '{name}' at h = {h[at]:.3g} is {dphi[at]:.6g}, but differences of the "
            f"function give {central[at]:.6g}."
        )
    ahead, behind = np.asarray(slope(h + eps)), np.asarray(slope(h - eps))
    smooth = bool(np.all(np.abs(ahead - behind) < 1e-2 * np.maximum(1.0, np.abs(dphi))))
    return bool(np.allclose(np.asarray(value(-h)), -phi, rtol=1e-12, atol=1e-12)), smooth
