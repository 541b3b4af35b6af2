"""Activation functions: those of the table and the user's own, and what the engines need to know of them.

What an engine branches on (odd, homogeneous, smooth, bounded slope, which closed forms hold) is found by one probe,
for the table and for the user alike: `probed`. A function of the user's that is one of the table computes by its lines.
"""

import functools
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tlcli.arrays import Array, Floats
from tlcli.dmft.activation_table import ACTIVATIONS, BUILT_IN, erf_and_slope
from tlcli.dmft.own_code import try_out
from tlcli.errors import UsageError, suggest

__all__ = ["ACTIVATIONS", "Activation", "activation", "erf_and_slope", "probed"]


_REACH = 12.0  # |h| within which a function must be finite, and kinks are sought
_FAR = np.array([20.0, 50.0, 100.0, 300.0])  # beyond, functions that are written naively overflow
_HALVINGS = 40  # of intervals of 1/256, down to rounding


@dataclass(frozen=True, eq=False)
class Activation:
    """A scalar nonlinearity.

    `value(h, xp)` is phi(h); `slope(h, phi, xp)` is phi'(h), from the value where that is cheaper. `odd`:
    phi(-h) = -phi(h); `homogeneous`: phi(c h) = c phi(h) for c > 0; `smooth`: no kink, so that high-order
    integrators keep their order; `slope_needs_input`: the derivative does not follow from the value; `lipschitz`:
    bounded derivative, so that no neuron runs away in a given field; `kind`: the entry of the table that it is, whose
    closed forms hold, or nothing.
    """

    name: str
    value: Callable[[Any, Any], Any]
    slope: Callable[[Any, Any, Any], Any]
    odd: bool = False
    homogeneous: bool = False
    smooth: bool = True
    slope_needs_input: bool = True
    lipschitz: bool = True
    kind: str = ""

    def phi(self, h: Any, xp: Any = np) -> Any:
        """Return phi(h), of the shape of h."""
        return self.value(h, xp)

    def both(self, h: Any, xp: Any = np) -> tuple[Any, Any]:
        """Return (phi(h), phi'(h)), each of the shape of h."""
        phi = self.value(h, xp)
        return phi, self.slope(h, phi, xp)


def activation(name: str) -> Activation:
    """Return the activation called `name`, one of `ACTIVATIONS` or a user's own, `module:function`.

    A user's function takes an array h, which it may not overwrite, and returns the pair (phi(h), phi'(h));
    `module:phi,dphi` names two functions instead. It is imported with the working folder on the path. If it agrees with
    one of `ACTIVATIONS` to rounding, it is that one, under the user's name.

    Raises:
        UsageError: an unknown name, a function that cannot be imported, that is no function of single numbers, jumps,
            is not finite or not of double precision, or whose derivative is wrong.
    """
    if name in BUILT_IN:
        return _built_in(name)
    if ":" in name:
        return _own(name)
    raise UsageError(
        f"activation: '{name}' is unknown{suggest(name, ACTIVATIONS)}; use one of {', '.join(ACTIVATIONS)} or your "
        "own as module:function."
    )


@functools.cache
def _built_in(name: str) -> Activation:
    formula = BUILT_IN[name]
    return replace(probed(Activation(name, formula.value, formula.slope)), **_by_the_table(name))


def _by_the_table(name: str) -> dict[str, Any]:
    formula = BUILT_IN[name]
    return {
        "value": formula.value,
        "slope": formula.slope,
        "slope_needs_input": formula.slope_needs_input,
        "kind": name,
    }


def probed(act: Activation) -> Activation:
    """Return `act` with the properties that the engines branch on, found from its values and derivatives."""
    with np.errstate(all="ignore"):
        near = np.linspace(-_REACH, _REACH, 97)
        line = np.concatenate([-_FAR, near, _FAR])
        phi, dphi = act.both(line)
        within = np.max(np.abs(dphi[len(_FAR) : -len(_FAR)]))
        scaled = [np.allclose(act.phi(c * line), c * phi, rtol=1e-12, atol=1e-14) for c in (0.3, 6.0)]
        return replace(
            act,
            odd=bool(np.allclose(act.phi(-near), -act.phi(near), rtol=1e-12, atol=1e-12)),
            homogeneous=all(scaled),
            smooth=not len(_breaks(lambda h: act.both(h)[1])),
            # A slope that overflows or still grows far outside has no bound.
            lipschitz=bool(np.max(np.abs(dphi)) <= 1.5 * within),
        )


def _breaks(function: Callable[[Floats], Floats]) -> Floats:
    """Return the points between -12 and 12 at which a function jumps, from intervals that are halved to rounding."""
    low = np.linspace(-_REACH, _REACH, int(512 * _REACH) + 1)
    low, high = low[:-1], low[1:]
    at_low, at_high = function(low), function(high)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        there = function(middle)
        left = np.abs(there - at_low) > np.abs(at_high - there)
        high, at_high = np.where(left, middle, high), np.where(left, there, at_high)
        low, at_low = np.where(left, low, middle), np.where(left, at_low, there)
    jumps = np.abs(at_high - at_low) > 1e-3 * np.maximum(1.0, np.maximum(np.abs(at_low), np.abs(at_high)))
    return (low[jumps] + high[jumps]) / 2


# ------------------------------------------------------------------------------------------------ the user's own


def _own(name: str) -> Activation:
    value, slope = _guarded(name, _imported(name))
    found = Activation(name, lambda h, xp: value(h), lambda h, phi, xp: slope(h))
    try:
        with np.errstate(all="ignore"):
            _check(name, value, slope)
        return replace(probed(found), **_twin(found))
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"activation: '{name}' fails on an array ({type(error).__name__}: {error}).") from None


def _twin(act: Activation) -> dict[str, Any]:
    """Return the lines of the table for a function that is one of it, to rounding."""
    # No round numbers but 0: an interpolation of some function may be exact at those.
    h = np.concatenate([[0.0], np.sinh(np.linspace(-6.3, 6.3, 202))])
    mine = act.both(h)
    for name in ACTIVATIONS:
        theirs = _built_in(name).both(h)
        if all(np.all(np.abs(a - b) <= 1e-12 * np.maximum(1, np.abs(b))) for a, b in zip(mine, theirs, strict=True)):
            return _by_the_table(name)
    return {}


def _imported(name: str) -> list[Callable[[Any], Any]]:
    """Return the one or two functions that `name` names."""
    module_name, _, names = name.partition(":")
    functions = [part.strip() for part in names.split(",")]
    if not module_name or not all(functions) or len(functions) > 2:
        raise UsageError(f"activation: '{name}' must be module:function or module:function,derivative.")
    try_out(name, module_name, tuple(functions))
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
    return [getattr(module, function) for function in functions]


def _guarded(name: str, functions: list[Callable[[Any], Any]]) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return value and derivative, which get read-only arrays and give arrays of their own in the same precision."""

    def called(function: Callable[[Any], Any], h: Any, part: int | None) -> Any:
        if not isinstance(h, np.ndarray):  # another library
            found = function(h)
            return found if part is None else found[part]
        shown = h.view()
        shown.flags.writeable = False
        try:
            found = function(shown)
        except ValueError as error:
            if "read-only" not in str(error):
                raise
            raise UsageError(
                f"activation: '{name}' overwrites its argument, the network's own array; let it work on a copy."
            ) from None
        if part is not None:
            if not isinstance(found, tuple) or len(found) != 2:
                raise UsageError(
                    f"activation: '{name}' must return the pair (phi, phi'); or name two functions, module:phi,dphi."
                )
            found = found[part]
        return _numbers(name, found, h.dtype)

    if len(functions) == 2:
        return lambda h: called(functions[0], h, None), lambda h: called(functions[1], h, None)
    return lambda h: called(functions[0], h, 0), lambda h: called(functions[0], h, 1)


def _numbers(name: str, found: Any, dtype: Any) -> Array:
    """Return what a user's function gave as numbers of `dtype`.

    A copy: engines overwrite what they get, and it may be the argument itself or an array that the function keeps.
    """
    given = np.asarray(found)
    if given.dtype.kind not in "biuf":
        raise UsageError(f"activation: '{name}' must return real numbers; it returns {given.dtype}.")
    if given.dtype.kind == "f" and given.dtype.itemsize < np.dtype(dtype).itemsize:
        raise UsageError(
            f"activation: '{name}' returns {given.dtype} numbers for {np.dtype(dtype)} ones, too few digits for "
            "kernels; let it compute in the precision of its argument (in JAX: jax_enable_x64)."
        )
    return np.array(given, dtype=dtype)


def _check(name: str, value: Callable[[Any], Any], slope: Callable[[Any], Any]) -> None:
    """Refuse what is no continuous function of single numbers, and a derivative that differences contradict."""
    h, eps = np.linspace(-3.2, 3.2, 65), 1e-5
    phi, dphi = value(h), slope(h)
    if phi.shape != h.shape or dphi.shape != h.shape:
        raise UsageError(f"activation: '{name}' must keep the shape {h.shape}; it gives {phi.shape} and {dphi.shape}.")
    wide = np.linspace(-_REACH, _REACH, 97)
    if not (np.all(np.isfinite(value(wide))) and np.all(np.isfinite(slope(wide)))):
        raise UsageError(f"activation: '{name}' is not finite between -{_REACH:g} and {_REACH:g}.")
    for function, seen in ((value, phi), (slope, dphi)):
        again = np.concatenate([function(h[:40].reshape(4, 10)).ravel(), function(h[:39:-1])[::-1]])
        if not np.allclose(again, seen, rtol=1e-12, atol=1e-12):
            raise UsageError(f"activation: '{name}' must act on every number by itself, and always in the same way.")
    jumps = _breaks(value)
    if len(jumps):
        raise UsageError(
            f"activation: '{name}' jumps at h = {jumps[0]:.3g}, where it has no derivative; use a continuous function."
        )
    central = (value(h + eps) - value(h - eps)) / (2 * eps)
    scale = np.maximum(1.0, np.abs(central))
    sides = np.array([slope(h - eps), dphi, slope(h + eps)])
    # Where the slope changes within the difference there is a kink, or a curvature without bound (|h|^1.5): the
    # difference is some slope in between.
    plain = np.abs(sides[2] - sides[0]) < 1e-2 * scale
    between = np.abs(central - np.clip(central, sides.min(axis=0), sides.max(axis=0)))
    off = np.where(plain, np.minimum(np.abs(central - dphi), between) / scale, 0.0)
    if np.max(off) > 1e-3 or np.mean(off > 1e-5) > 0.25:
        at = int(np.argmax(off))
        raise UsageError(
            f"activation: the derivative of '{name}' at h = {h[at]:.3g} is {dphi[at]:.6g}, but differences of the "
            f"function give {central[at]:.6g}."
        )
