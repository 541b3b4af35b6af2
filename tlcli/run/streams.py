"""Standard output and standard error as they are found: closed, full, broken, or of another alphabet.

What cannot be written to standard output is lost, and an error. What nobody can read on standard error ends no work.
"""

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tlcli.errors import WriteError

# What help and verdicts hold beyond ASCII, for terminals that know no more.
_PLAIN = {
    "─": "-",
    "│": "|",
    "╭": "+",
    "╮": "+",
    "╰": "+",
    "╯": "+",
    "·": "|",
    "…": "...",
    "–": "-",
    "—": "-",
    "∞": "inf",
}


def open_missing() -> None:
    """Open the standard streams that the caller has closed, or the next files would take their numbers.

    Reading gives nothing, writing to standard output is an error, and standard error is lost.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)  # the lowest number that is free
            os.set_inheritable(number, True)  # workers would find it closed again
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


@contextmanager
def guarded() -> Iterator[None]:
    """Let writes to both streams fail as this module says, and letters that they cannot show be replaced."""
    codecs.register_error("tlcli", _replace)
    before = sys.stdout, sys.stderr
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="tlcli")
    sys.stdout, sys.stderr = _Output(before[0]), _Messages(before[1])  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def table_stream() -> Any:
    """Return the stream that takes a table, the same bytes everywhere; its errors are those of the system.

    Raises:
        WriteError: standard output is closed.
    """
    stream = getattr(sys.stdout, "stream", sys.stdout)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")
        try:
            os.write(stream.fileno(), b"")
        except OSError as error:
            raise _cannot(error) from None
    return stream


def silence(stream: Any) -> None:
    """Let a stream that is broken lead nowhere: Python would complain once more when it flushes at exit."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):
        pass


class _Guarded:
    """A text stream with a will of its own when writing fails."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self._try(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(lambda: self.stream.flush())

    def _try(self, action: Any) -> None:
        try:
            action()
        except (OSError, ValueError) as error:  # ValueError: it was closed
            silence(self.stream)
            self.failed(error)

    def failed(self, error: Exception) -> None:
        """Nobody misses it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Messages(_Guarded):
    pass


class _Output(_Guarded):
    def failed(self, error: Exception) -> None:
        """Tell what is lost, but for a reader that has seen enough (`| head`).

        Raises:
            WriteError: anything else.
        """
        if not isinstance(error, BrokenPipeError):
            raise _cannot(error) from None


def _cannot(error: Exception) -> WriteError:
    reason = getattr(error, "strerror", None) or str(error)
    return WriteError(f"standard output cannot be written: {reason}; give it another file or a pipe.")


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(c, "?") for c in error.object[error.start : error.end]), error.end
