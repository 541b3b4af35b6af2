"""What a run tells while it works: whoever runs it says where that goes."""

from types import TracebackType
from typing import Protocol


class Progress(Protocol):
    """A context in which `update` is told how far a sweep is."""

    def __enter__(self) -> "Progress": ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, done: int, total: int) -> None:
        """Hear that `done` of `total` points are there."""


class Messages(Protocol):
    """Notes (what was done), warnings (what one must know) and progress."""

    def note(self, text: str) -> None:
        """Hear what was done."""

    def warn(self, text: str) -> None:
        """Hear what the reader must know."""

    def progress(self, label: str) -> Progress:
        """Return where the progress of a sweep is told."""
        ...


class Silent:
    """Hears everything and says nothing."""

    def __enter__(self) -> "Silent":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, done: int, total: int) -> None:
        """See `Progress`."""

    def note(self, text: str) -> None:
        """See `Messages`."""

    def warn(self, text: str) -> None:
        """See `Messages`."""

    def progress(self, label: str) -> "Silent":
        """See `Messages`."""
        return self


class Kept(Silent):
    """Keeps notes and warnings for whoever asks later."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        """Keep it."""
        self.notes.append(text)

    def warn(self, text: str) -> None:
        """Keep it."""
        self.warnings.append(text)
