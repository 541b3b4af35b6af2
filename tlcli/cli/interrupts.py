"""Ctrl-C: it stops the program however often and however early it comes, with exit code 130 and no traceback."""

import atexit
import contextlib
import os
import signal
import sys
import threading
from typing import Any, NoReturn

from tlcli.errors import EXIT_INTERRUPTED

_seen = False


def install() -> None:
    """Raise KeyboardInterrupt at every Ctrl-C, also where one came while an object was deleted and would be lost."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # in the background of a script it is ignored
        signal.signal(signal.SIGINT, _interrupted)
        sys.unraisablehook = _unraisable


def seen() -> bool:
    """Whether there was a Ctrl-C: libraries may have made another error of it."""
    return _seen


def leave() -> NoReturn:
    """End the process after a Ctrl-C, with what has been registered for its end.

    Python itself would end with the signal where the first Ctrl-C came while a module was made of text.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    atexit._run_exitfuncs()
    os._exit(EXIT_INTERRUPTED)


def _interrupted(number: int, frame: Any) -> None:
    global _seen
    _seen = True
    raise KeyboardInterrupt


def _unraisable(found: "sys.UnraisableHookArgs") -> None:
    if issubclass(found.exc_type, KeyboardInterrupt):
        again = threading.Timer(0.05, signal.raise_signal, (signal.SIGINT,))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(found)
