"""Grids of parameter values, the same on flags and in recipes.

A value is one of, or a list of, these pieces:

    0.5                one number (inf, 1e3 and -1e-3 are numbers; NaN is not)
    0.1:2:40           40 equally spaced values, both ends included
    log:0.1:10:20      20 geometrically spaced values, both ends included

Of what has to be whole (numbers of samples) the ends are whole, values between them are rounded, and each is taken
once; a value within rounding (1e-9 of it) of a whole number, as in spaced arrays of NumPy, is that number.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import numpy as np

from tlcli.arrays import Floats
from tlcli.errors import UsageError

Scale = Literal["linear", "log", "list"]

MAX_COUNT = 10_000_000
MAX_POINTS = 50_000_000
_LISTS = (
    "0.1,0.5,inf",
    "0.1,0.5",
    "0.1,0.2",
    "1,2,inf",
    "1,2",
    "2,4",
)  # examples, from which the first that is allowed is shown
_MANY = 100  # numbers in a list
NEAR_WHOLE = 1e-9  # of a value, which then is the whole number

# Stricter than float(): no underscores, no digits of other scripts, no NaN.
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_INFINITY = re.compile(r"[+-]?(inf|infinity|\.inf)", re.IGNORECASE)  # .inf is YAML's spelling
_COUNT = re.compile(r"\+?[0-9]{1,18}")


@dataclass(frozen=True, eq=False)
class Values:
    """The values of one parameter, in the order given, each of them once.

    `array` is float64 of shape (n_value,), read-only, n_value >= 1. `scale` says how to draw the axis:
    "linear" or "log" when the whole is one equally or geometrically spaced piece of several values,
    else "list".
    """

    array: Floats
    scale: Scale

    @property
    def size(self) -> int:
        """The number of values."""
        return self.array.size


def near_whole(array: Floats) -> Floats:
    """Return values with those within `NEAR_WHOLE` of a whole number, of their size, replaced by it."""
    rounded = np.rint(array)
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(array - rounded) <= NEAR_WHOLE * np.abs(rounded), rounded, array)


@dataclass(frozen=True)
class _Asked:
    """What is read: a parameter's name, its text for messages, whether it is whole, and which values it may have."""

    name: str
    shown: str
    whole: bool
    holds: Callable[[float], bool]

    def refuse(self, reason: str) -> UsageError:
        """Return the refusal of what is no grid, with what is allowed."""
        lists = (text for text in _LISTS if all(map(self.allowed, map(float, text.split(",")))))
        example = next(lists, "with commas")
        return UsageError(
            f"{self.name}: '{self.shown}' {reason}; use a number, a list {example}, START:STOP:COUNT or "
            "log:START:STOP:COUNT."
        )

    def allowed(self, value: float) -> bool:
        """Whether a value may stand in the grid."""
        return self.holds(value) and (not self.whole or not math.isfinite(value) or value.is_integer())

    def refuse_ends(self, ends: tuple[float, float], count: str, log: bool) -> UsageError:
        """Return the refusal of ends that are infinite, or on a logarithmic scale not above 0, with a remedy."""
        special, needs = (0.0, "both ends above 0") if log else (math.inf, "finite ends")
        known = next((end for end in ends if 0 < end < math.inf), 1.0)
        pairs = [(known / 100, known), (1.0, known), (known, 10 * known), (known, 2 * known), (1.0, 2.0), (0.1, 0.5)]
        pairs = [pair for pair in pairs if pair[0] < pair[1] < math.inf and all(map(self.allowed, pair))]
        remedy = ""
        if pairs:
            low, high = map(_number_text, pairs[0])
            remedy, further = f", as in {'log:' if log else ''}{low}:{high}:{count}", special in ends
            if further and self.allowed(special):
                said = _number_text(special)
                remedy = f"{remedy.replace('in ', 'in 0,')}" if log else f"{remedy},inf"
                remedy = f"; give {said} as a further value{remedy}"
        return UsageError(f"{self.name}: '{self.shown}' needs {needs}{remedy}.")


def parse_values(
    value: Any, name: str = "alpha1", whole: bool = False, holds: Callable[[float], bool] = lambda value: True
) -> Values:
    """Read a number, a text or a list of both as the values of the parameter `name`.

    `whole`: what has to be whole, see above. `holds` tells which values are allowed, for the advice in messages alone.

    Raises:
        UsageError: the value is no grid, holds NaN, or holds a value twice.
    """
    asked = _Asked(name, _show(value), whole, holds)
    pieces = _listed(value, asked)
    if not pieces:
        raise asked.refuse("holds no value")
    array = np.concatenate([numbers for numbers, _ in pieces]) + 0.0  # -0.0 and 0.0 are one value
    ordered = np.sort(array)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if twice.size:
        raise UsageError(f"{name}: '{asked.shown}' holds {_number_text(twice[0])} twice; give every value once.")
    array.flags.writeable = False
    scale = pieces[0][1] if len(pieces) == 1 and array.size > 1 else "list"
    return Values(array, scale)


def format_values(values: Values) -> str:
    """Return a short text that `parse_values` reads back as the identical floats and scale."""
    return spaced_text(values) or ",".join(_number_text(number) for number in values.array)


def spaced_text(values: Values) -> str:
    """Return the text of one piece that `parse_values` reads back as the identical floats, empty if there is none."""
    array = values.array
    if values.scale != "list" and array.size > 1:
        prefix = "log:" if values.scale == "log" else ""
        text = f"{prefix}{_number_text(array[0])}:{_number_text(array[-1])}:{array.size}"
        # Values may also be built by hand: only a text that gives the same bits is a description of them.
        with_ends = _spaced(array[0], array[-1], array.size, values.scale)
        if np.array_equal(with_ends, array):
            return text
    return ""


@dataclass(frozen=True, eq=False)
class Grid:
    """The outer product of the values of all parameters; the first parameter varies slowest.

    Parameters with one value are scalars: they are part of every point, but no axis.
    """

    values: dict[str, Values]

    def __post_init__(self) -> None:
        if self.size > MAX_POINTS:
            counts = " x ".join(str(self.values[name].size) for name in self.axes)
            raise UsageError(f"the grid has {counts} = {self.size} points; at most {MAX_POINTS} are allowed.")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Values | float | int]) -> "Grid":
        """Build a grid from parameter name → values (or one number), in this order.

        Raises:
            UsageError: more than 50 million points.
        """
        return cls({k: v if isinstance(v, Values) else parse_values(v, k) for k, v in values.items()})

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the parameters with several values."""
        return tuple(name for name, values in self.values.items() if values.size > 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values on each of `axes`."""
        return tuple(self.values[name].size for name in self.axes)

    @property
    def size(self) -> int:
        """Number of points."""
        return math.prod(self.shape)

    def open(self) -> dict[str, Floats]:
        """Return name → array of `len(axes)` dimensions; together they broadcast to `shape`.

        An axis has its values along its own dimension and length 1 on the others (as `np.ix_`), a scalar has
        length 1 on all.
        """
        axes = self.axes
        arrays = {}
        for name, values in self.values.items():
            shape = [1] * len(axes)
            if name in axes:
                shape[axes.index(name)] = values.size
            arrays[name] = values.array.reshape(shape)
        return arrays

    def point(self, index: int) -> dict[str, float]:
        """Return the point of that number in C order of `shape`."""
        at = iter(np.unravel_index(index, self.shape)) if self.shape else iter(())
        return {n: float(v.array[next(at) if v.size > 1 else 0]) for n, v in self.values.items()}

    def points(self) -> Iterator[dict[str, float]]:
        """Yield every point as name → float, scalars included, in C order of `shape`."""
        columns = [values.array.tolist() for values in self.values.values()]
        for row in itertools.product(*columns):
            yield dict(zip(self.values, row, strict=True))


def _listed(value: Any, asked: _Asked) -> list[tuple[Floats, Scale]]:
    items = list(value) if isinstance(value, (list, tuple, np.ndarray)) else [value]
    if len(items) > _MANY and all(type(item) is float for item in items):  # at once: one by one a million takes seconds
        numbers = np.array(items)
        if not np.isnan(numbers).any():
            return [(near_whole(numbers) if asked.whole else numbers, "list")]
    return [piece for item in items for piece in _pieces(item, asked)]


def _pieces(item: Any, asked: _Asked) -> Iterable[tuple[Floats, Scale]]:
    if isinstance(item, str):
        return [_piece(text.strip(), asked) for text in item.split(",")]
    if isinstance(item, (int, float, np.integer, np.floating)) and not isinstance(item, bool):
        return [(_single(item, asked), "list")]
    raise asked.refuse("is not a grid")


def _single(item: Any, asked: _Asked) -> Floats:
    number = np.array([_as_float(item, asked)])
    return near_whole(number) if asked.whole else number


def _piece(text: str, asked: _Asked) -> tuple[Floats, Scale]:
    name, shown = asked.name, asked.shown
    parts = [part.strip() for part in text.split(":")]
    if len(parts) == 1:
        return _single(text, asked), "list"
    scale: Scale = "linear"
    if parts[0].lower() == "log":
        scale, parts = "log", parts[1:]
    if len(parts) != 3:
        raise asked.refuse("is not a grid")
    start, stop = (_as_float(part, asked) for part in parts[:2])
    if not _COUNT.fullmatch(parts[2]) or not 1 <= int(parts[2]) <= MAX_COUNT:
        raise UsageError(f"{name}: the count in '{shown}' must be a whole number from 1 to {MAX_COUNT}.")
    count = int(parts[2])
    # stop - start must be finite too, or linspace gives NaN.
    if not math.isfinite(stop - start) or (scale == "log" and not (start > 0 and stop > 0)):
        raise asked.refuse_ends((start, stop), parts[2], math.isfinite(stop - start))
    if start == stop and count > 1:
        raise UsageError(f"{name}: '{shown}' has equal ends but {count} values; give {_number_text(start)} once.")
    if asked.whole:
        start, stop = near_whole(np.array([start, stop])).tolist()
        for end in (start, stop):
            if not end.is_integer():
                raise UsageError(
                    f"{name}: the end {_number_text(end)} in '{shown}' is no whole number; give whole ends, between "
                    f"which values are rounded, as {_number_text(round(end))}."
                )
        return _whole(_spaced(start, stop, count, scale)), scale
    return _spaced(start, stop, count, scale), scale


def _spaced(start: float, stop: float, count: int, scale: Scale) -> Floats:
    """Return `count` values from `start` to `stop`, both exact (a count of 1 gives `start`).

    Values that are decimals to a person are the same floats as if they were written one by one: 0.1:2:20 holds 0.8 and
    1, log:10:640:4 holds 40 and 160.
    """
    if scale == "log":
        array = _round_ones(np.asarray(np.geomspace(start, stop, count), dtype=np.float64))
    else:
        array = _decimals(start, stop, count)
    array[-1], array[0] = stop, start
    return array


_EXACT = 2.0**53  # whole numbers up to here are floats


def _decimals(start: float, stop: float, count: int) -> Floats:
    """Return the floats nearest to equally spaced decimals, as far as these have some 15 digits together."""
    first, last = Decimal(repr(float(start))), Decimal(repr(float(stop)))
    exponents = [e for e in (first.as_tuple().exponent, last.as_tuple().exponent) if isinstance(e, int)]
    steps, places = max(count - 1, 1), max(0, -min(exponents))
    if places <= 15:
        a, b = int(first.scaleb(places)), int(last.scaleb(places))
        if max(abs(a), abs(b)) * steps < _EXACT and steps * 10**places < _EXACT:
            # A quotient of two exact whole numbers is rounded once, to the nearest float.
            numerators = np.arange(count, dtype=np.float64) * (b - a) + a * steps
            return np.asarray(numerators / (steps * 10.0**places), dtype=np.float64)
    return np.asarray(np.linspace(start, stop, count), dtype=np.float64)


def _round_ones(array: Floats) -> Floats:
    """Replace values within rounding of a decimal of ten digits by that decimal."""
    with np.errstate(all="ignore"):  # numbers too small for a mantissa stay as they are
        mantissa = array / 10.0 ** np.floor(np.log10(array)) * 1e9
        near = np.abs(mantissa - np.rint(mantissa)) <= 1e-14 * mantissa
    for index in np.flatnonzero(near):
        array[index] = float(f"{array[index]:.10g}")
    return array


def _whole(piece: Floats) -> Floats:
    """Return values between whole ends as whole numbers, each once, in their order."""
    rounded = np.unique(np.rint(piece))
    return rounded if piece[-1] >= piece[0] else rounded[::-1]


def _as_float(value: Any, asked: _Asked) -> float:
    if isinstance(value, str):
        if _INFINITY.fullmatch(value):
            return -math.inf if value.startswith("-") else math.inf
        if not _NUMBER.fullmatch(value):
            raise asked.refuse("is not a number" if value.lower() in ("nan", ".nan") else "is not a grid")
    try:
        number = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        number = math.inf if isinstance(value, int) else math.nan
    if math.isnan(number):
        raise asked.refuse("is not a number")
    if math.isinf(number) and not isinstance(value, (float, np.floating)):
        raise asked.refuse(
            f"is too large for a number{' (write inf if it is meant)' if asked.allowed(math.inf) else ''}"
        )
    return number


def _number_text(number: float) -> str:
    return repr(float(number)).removesuffix(".0")


def _show(value: Any) -> str:
    if isinstance(value, (list, tuple, np.ndarray)):
        value = ",".join(str(item) for item in value[:60])  # of which so many characters are shown
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
