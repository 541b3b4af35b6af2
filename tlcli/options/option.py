"""What an option is: a key, how its text is read, the range allowed, and how a bad value is refused."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from tlcli.errors import DomainError, UsageError, digits, suggest

Kind = Literal["grid", "number", "integer", "text", "choice", "flag", "expression", "numbers"]

INF = math.inf


@dataclass(frozen=True)
class Domain:
    """An interval of allowed values; `open_low` and `open_high` exclude its ends; `note` says why, and the remedy."""

    low: float = -INF
    high: float = INF
    open_low: bool = False
    finite: bool = False
    whole: bool = False
    open_high: bool = False
    note: str = ""

    def check(self, name: str, value: float) -> None:
        """Raise DomainError unless `value` is inside; the sentence shows both."""
        if not self.holds(value):
            note = f" ({self.note})" if self.note else ""
            raise DomainError(f"{name} = {digits(value)} is not allowed; it must be {self.describe()}{note}.")

    def holds(self, value: float) -> bool:
        """Whether `value` is inside."""
        inside = value > self.low if self.open_low else value >= self.low
        whole = not self.whole or math.isinf(value) or float(value).is_integer()
        below = value < self.high if self.open_high else value <= self.high
        return inside and whole and below and not (self.finite and math.isinf(value))

    def describe(self) -> str:
        """Return the range in words, for messages and help."""
        kind = "a whole number " if self.whole else ""
        low = f"{'>' if self.open_low else '>='} {self.low:g}" if self.low > -INF else ""
        high = f"{'<' if self.open_high else '<='} {self.high:g}" if self.high < INF else ""
        parts = " and ".join(part for part in (low, high) if part) or "a number"
        return kind + parts + (" and finite" if self.finite else "" if self.high < INF else ", or inf")


def _short(raw: Any) -> str:
    text = str(raw)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _all_digits(raw: Any) -> bool:
    """Whether a value is a whole number to all its digits."""
    return isinstance(raw, int) or (isinstance(raw, str) and raw.strip().isascii() and raw.strip().isdigit())


@dataclass(frozen=True)
class Option:
    """One option: its key, how its text is read, its default, and how it is shown.

    `words` are what a grid may be besides numbers, where the theory offers it (`Theory.choices`). `column` names the
    table's column, where a computed one has the option's own name.

    As an axis: `ends`: 0 and infinity are values like any other and have places of their own; `neutral`: the value at
    which there is no transfer, so that every gain is zero by definition; `best`: a best value is sought, with the flag
    --optimal-NAME; `late`: training on the source does not depend on it; `stepped`: there is nothing between two of its
    values; `lasts`: the stage whose duration it is, 1 or 2 (0: it is none).

    `follows` is the option whose value is the default, `instead` one that says the same otherwise. `counted`: figures
    say it as a number of things (3 draws); `unsaid`: they do not say its default. `code`: its text may name Python code
    of the user's, `files`: a file of theirs (file:PATH).
    """

    name: str
    kind: Kind
    default: Any
    help: str
    panel: str = "Model"
    symbol: str = ""
    choices: tuple[str, ...] = ()
    domain: Domain | None = None
    metavar: str | None = None
    words: tuple[str, ...] = ()
    column: str = ""
    ends: bool = False
    neutral: float | None = None
    best: bool = False
    late: bool = False
    stepped: bool = False
    lasts: int = 0
    follows: str = ""
    instead: str = ""
    synonym: str = ""
    counted: bool = False
    unsaid: bool = False
    code: bool = False
    files: bool = False

    @property
    def flag(self) -> str:
        """The command-line spelling."""
        return "--" + self.name.replace("_", "-")

    @property
    def numeric(self) -> bool:
        """Whether its values are numbers, but for `words`."""
        return self.kind in ("grid", "number", "integer")

    def parse(self, raw: Any) -> Any:
        """Read a flag's text or a recipe's value; UsageError shows the value and what is allowed."""
        if self.kind == "grid":
            if raw in self.words:
                return raw
            self._refuse_mixed(raw)
            from tlcli.sweep.grids import parse_values

            domain = self.domain or Domain()
            values = parse_values(raw, self.name, domain.whole, domain.holds)
            if self.domain is not None:
                low, high = float(values.array.min()), float(values.array.max())
                for value in (low, high) if not self.domain.whole else values.array.tolist():
                    self.domain.check(self.name, value)
            return values
        if self.kind in ("number", "integer"):
            return self._parse_number(raw)
        if self.kind == "choice":
            if raw not in self.choices:
                hint = suggest(_short(raw), self.choices)
                raise UsageError(
                    f"{self.name}: '{_short(raw)}' is unknown; use one of {', '.join(self.choices)}{hint}."
                )
            return raw
        if self.kind == "flag":
            if not isinstance(raw, bool):
                raise UsageError(f"{self.name}: '{_short(raw)}' is not true or false.")
            return raw
        if self.kind == "expression" and isinstance(raw, list):
            from tlcli.sweep.grids import format_values, parse_values

            return format_values(parse_values(raw, self.name))
        if self.kind == "numbers" and isinstance(raw, (list, tuple)):
            numbers = [float(self._parse_number(each)) for each in raw]
            return ",".join(short if float(short := f"{x:g}") == x else repr(x) for x in numbers)
        if not isinstance(raw, (str, int, float)) or isinstance(raw, bool):
            raise UsageError(f"{self.name}: {raw!r:.60} is not a text.")
        return str(raw)

    def _refuse_mixed(self, raw: Any) -> None:
        """Refuse a word among numbers: it is no value of the grid, but in place of it."""
        parts = [part.strip() for part in raw.split(",")] if isinstance(raw, str) else raw
        word = next((word for word in self.words if isinstance(parts, (list, tuple)) and word in parts), None)
        if word is not None:
            shown = _short(raw if isinstance(raw, str) else ",".join(map(str, raw)))
            raise UsageError(f"{self.name}: '{shown}' holds {word} among others; use {word} alone, or numbers.")

    def _parse_number(self, raw: Any) -> float | int:
        try:
            if isinstance(raw, bool):
                raise ValueError
            number = float(raw)
        except (TypeError, ValueError, OverflowError):  # a whole number of 400 digits
            raise UsageError(f"{self.name}: '{_short(raw)}' is not a number.") from None
        if math.isnan(number):
            raise UsageError(f"{self.name}: '{_short(raw)}' is not a number.")
        if self.kind == "integer" and math.isfinite(number) and abs(number - round(number)) <= 1e-9 * abs(number):
            number = float(round(number))  # as of grids (tlcli.sweep.grids)
        if self.domain is not None:
            self.domain.check(self.name, number)
        if self.kind == "integer":
            if not number.is_integer():
                raise UsageError(f"{self.name}: '{_short(raw)}' is not a whole number.")
            return int(raw) if _all_digits(raw) else int(number)  # a seed may have more than a float
        return number


POSITIVE = Domain(0, open_low=True)
NOT_NEGATIVE = Domain(0)
FINITE = Domain(0, 1e12, finite=True)
TOLERANCE = Domain(1e-15, 1e15, finite=True)  # what is below the rounding of numbers has no effect, or no end
OVERLAP = Domain(-1, 1)
SHARE = Domain(  # of flipped labels
    0,
    0.5,
    open_high=True,
    note="at one half labels of two classes say nothing, above it the opposite: exchange the classes for that; the "
    "same range holds for more classes",
)
COUNT = Domain(1, whole=True)
COUNT_FINITE = Domain(1, 1e12, whole=True, finite=True)  # more would fit no memory
REPEATED = Domain(1, 1e6, whole=True)  # of what is done one after the other: more would never end
PROCESSES = Domain(1, 1024, whole=True)
WHOLE = Domain(0, whole=True, finite=True)
