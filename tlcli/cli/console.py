"""Messages to people: all on standard error, so that standard output belongs to tables."""

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType


class Console:
    """Prints notes and progress to standard error; `quiet` keeps everything but warnings and errors."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def note(self, text: str) -> None:
        """Say what was done."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Say what the reader must know."""
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def error(self, text: str) -> None:
        """Say what failed where work goes on."""
        print(f"error: {text}", file=sys.stderr, flush=True)

    def progress(self, label: str) -> "ProgressBar":
        """Return a progress display: a bar on a terminal, else a line per ten percent."""
        return ProgressBar(label, self.quiet)


class ProgressBar:
    """Context manager whose `update(done, total)` shows how far a sweep is."""

    def __init__(self, label: str, quiet: bool) -> None:
        self.label = label
        self.quiet = quiet
        self._show: Callable[[int, int], None] = self._lines
        self._close: Callable[[], None] = lambda: None
        self._tenth = -1
        self._stored: int | None = None
        self._start = time.monotonic()

    def __enter__(self) -> "ProgressBar":
        if not self.quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._open_bar()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def update(self, done: int, total: int) -> None:
        """Show that `done` of `total` points are there."""
        if not self.quiet:
            self._show(done, total)

    def _open_bar(self) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=RichConsole(stderr=True),
        )
        bar.start()
        task = bar.add_task(self.label)
        self._show = lambda done, total: bar.update(task, completed=done, total=total)
        self._close = bar.stop

    def _lines(self, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth > self._tenth:
            self._tenth = tenth
            from tlcli.theories.amounts import shown_time

            spent = time.monotonic() - self._start
            self._stored = done if self._stored is None else self._stored
            new = done - self._stored  # what was stored took no time
            left = f", {shown_time(spent * (total - done) / new)} left" if new and done < total else ""
            print(
                f"{self.label}: {done}/{total} ({100 * done // max(total, 1)} %), {spent:.0f} s{left}",
                file=sys.stderr,
                flush=True,
            )
