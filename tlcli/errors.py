"""The exception tree and the exit codes.

    TlcliError                     exit 1   unexpected
    ├── UsageError                 exit 2   a flag, a grid, a value or an output path
    │   ├── DomainError            exit 2   a parameter outside the range where the theory holds
    │   └── RecipeError            exit 2   a recipe file
    ├── ConvergenceError           exit 3   some points were not solved
    ├── StoreError                 exit 5   a point store of an incompatible version, or one that cannot be read
    ├── WriteError                 exit 6   a file that cannot be written: disk full, quota, read-only folder
    └── MissingExtraError          exit 2   an optional dependency is not installed

Exit 4 (a check that failed) and 130 (interrupted) are results, not errors.
Every message is one sentence that shows the bad value and says what is allowed.
"""

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_NOT_CONVERGED = 3
EXIT_CHECK_FAILED = 4
EXIT_STORE = 5
EXIT_WRITE = 6
EXIT_INTERRUPTED = 130


class TlcliError(Exception):
    """Base class; `exit_code` is what the process returns."""

    exit_code = EXIT_UNEXPECTED


class UsageError(TlcliError):
    """A flag, grid, value or output path that cannot be used."""

    exit_code = EXIT_USAGE


class DomainError(UsageError):
    """A parameter outside the range where the theory holds."""


class RecipeError(UsageError):
    """A recipe file that cannot be used."""


class MissingExtraError(UsageError):
    """An optional dependency that is not installed; the message names the extra."""


class ConvergenceError(TlcliError):
    """Some points were not solved; their rows carry the status."""

    exit_code = EXIT_NOT_CONVERGED


class StoreError(TlcliError):
    """A point store that this version cannot continue."""

    exit_code = EXIT_STORE


class WriteError(TlcliError):
    """A file or folder that the system does not let us write; what was finished before is kept."""

    exit_code = EXIT_WRITE


def digits(value: float) -> str:
    """Return a value of the user's with all its digits: 1.0000001 is not the 1 that is allowed."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))


def counted(count: int, word: str) -> str:
    """Return `1 WORD` or `N WORDs`."""
    return f"1 {word}" if count == 1 else f"{count} {word}s"


def part_of(part: int, count: int, word: str) -> str:
    """Return `N of M WORDs are`, or `is`."""
    return f"{part} of {counted(count, word)} {'is' if part == 1 else 'are'}"


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.55)
    return f" (did you mean '{near[0]}'?)" if near else ""


def check_choice(name: str, value: str, allowed: Iterable[str]) -> None:
    """Refuse a word that is not among the allowed ones.

    Raises:
        UsageError: it is not.
    """
    words = list(allowed)
    if value not in words:
        raise UsageError(f"{name}: '{value}' is unknown{suggest(str(value), words)}; use one of {', '.join(words)}.")
