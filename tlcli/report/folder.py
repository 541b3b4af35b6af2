"""The output folder: which of its files are ours, and how those of one run replace those of an earlier one.

A file is ours if the provenance of an earlier run names it and it still has the content that this run wrote (SHA-256).
Nothing else is ever removed or overwritten, and no file that the run reads.

A run writes its files, the provenance last, into a hidden folder beside their places. When all are there they take
their places one after the other, the provenance last. So a failure or a kill before that leaves the earlier result
whole; a kill in between leaves the hidden folder, whose provenance tells the next run, and `check`, what is whose.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tlcli.errors import UsageError, WriteError
from tlcli.report.files import HIDDEN, prepare_folder, refuse_file
from tlcli.report.provenance import PROVENANCE, checksum, read_provenance
from tlcli.sweep.store import HOST, left_behind

_HIDDEN = re.compile(re.escape(HIDDEN) + r"(?P<host>[0-9A-Za-z-]*)-(?P<pid>[0-9]+)-[a-z0-9_]{8}")
_PATIENCE = (0.05, 0.2)  # seconds; another run may be just replacing its files
_current: set[Path] = set()  # hidden folders of this process

Owned = set[tuple[str, str]]  # (name, SHA-256)


class OutputFolder:
    """The folder of one run's results.

    Args:
        path: where it is or shall be.
        reads: files that the run reads; they are never replaced, whoever wrote them.
    """

    def __init__(self, path: Path, reads: Iterable[Path] = ()) -> None:
        self.path = path
        self._reads = {key for key in map(_identity, reads) if key is not None}
        self._checksums: dict[tuple[Path, int, int, int], str] = {}

    def refuse_taken(self, may_write: Callable[[str], bool]) -> None:
        """Refuse names that a run may need and that something else has.

        Raises:
            UsageError: a folder, a file that the run reads, or one that no earlier run wrote or that has changed since;
                a file in place of the folder.
            WriteError: the folder cannot be read.
        """
        refuse_file(self.path)
        try:
            names = sorted(os.listdir(self.path)) if self.path.is_dir() else []
        except OSError as error:
            raise WriteError(f"output '{self.path}' cannot be read: {error.strerror}; give another -o.") from None
        self._refuse([name for name in names if may_write(name)], {})

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Create the folder; what was created for it and is empty in the end vanishes again.

        Raises:
            UsageError: it is a file or lies below one.
            WriteError: it cannot be created or written.
        """
        created = [p for p in (self.path, *self.path.parents) if not os.path.lexists(p)]
        try:
            prepare_folder(self.path)
            self._clear(lambda hidden: not (hidden / PROVENANCE).exists())
            yield
        finally:
            for folder in created:
                with suppress(OSError, ValueError):  # it could not be made, or holds something
                    folder.rmdir()

    @contextmanager
    def replacing(self) -> Iterator[Path]:
        """Yield a folder for all files of a run, provenance included; at the end they take their places.

        On an exception the earlier files stay as they are.

        Raises:
            UsageError: meanwhile a name was taken, see `refuse_taken`.
            WriteError: the disk refuses.
        """
        try:
            hidden = Path(tempfile.mkdtemp(prefix=f"{HIDDEN}{HOST}-{os.getpid()}-", dir=self.path))
        except OSError as error:
            raise WriteError(f"output '{self.path}' cannot be written: {error.strerror}; give another -o.") from None
        _current.add(hidden)
        try:
            yield hidden
            new = dict(read_provenance(hidden / PROVENANCE).files)
            self._refuse(sorted(new), new)
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True)
            raise
        finally:
            _current.discard(hidden)
        # Cut short, this leaves the hidden folder: it tells the next run which of the files are ours.
        self._replace(hidden, new)
        shutil.rmtree(hidden, ignore_errors=True)
        self._clear(lambda _: True)

    def _replace(self, hidden: Path, new: dict[str, str]) -> None:
        owned = self._owned()
        try:
            for name in sorted(new, key=lambda name: (name == PROVENANCE, name)):
                if name == PROVENANCE:  # last: what it names is in its place, and what an earlier one named is gone
                    for old in {name for name, _ in owned} - set(new):
                        if self._is_ours(self.path / old, owned):
                            (self.path / old).unlink()
                os.replace(hidden / name, self.path / name)
        except OSError as error:
            reason = error.strerror or error
            raise WriteError(f"'{error.filename2 or error.filename}' cannot be replaced: {reason}.") from None

    def _refuse(self, names: Iterable[str], new: dict[str, str]) -> None:
        """Refuse names whose files are neither ours nor equal to the new ones."""
        for patience in (*_PATIENCE, None):
            owned = self._owned() | set(new.items())
            taken = [self.path / name for name in names if os.path.lexists(self.path / name)]
            taken = [path for path in taken if not self._is_ours(path, owned)]
            if not taken:
                return
            if patience is None:
                raise UsageError(self._sentence(taken[0]))
            time.sleep(patience)

    def _sentence(self, path: Path) -> str:
        if path.is_dir():
            return f"'{path}' is a folder where a result must be written; move it away or give another -o."
        if _identity(path) in self._reads:
            return f"'{path}' is read by this run and its results would replace it; give another -o."
        return (
            f"'{path}' was not written by an earlier run, or was changed since, and the results would replace it; move "
            "it away or give another -o."
        )

    def _is_ours(self, path: Path, owned: Owned) -> bool:
        if path.is_symlink() or not path.is_file() or _identity(path) in self._reads:
            return False
        if not any(name == path.name for name, _ in owned):
            return False
        try:
            state = path.stat()
            key = (path, state.st_ino, state.st_size, state.st_mtime_ns)
            if key not in self._checksums:
                self._checksums[key] = checksum(path)
            return (path.name, self._checksums[key]) in owned
        except OSError:  # gone meanwhile, or not to be read
            return False

    def _owned(self) -> Owned:
        """Return what runs have written here, the one in place and those that were cut short while replacing files."""
        return {
            pair for place in (self.path, *self._hidden()) for pair in read_provenance(place / PROVENANCE).files.items()
        }

    def _hidden(self) -> list[Path]:
        return hidden_folders(self.path)

    def _clear(self, wanted: Callable[[Path], bool]) -> None:
        """Remove hidden folders of runs that are no more."""
        for hidden in self._hidden():
            match = _HIDDEN.fullmatch(hidden.name)
            pid = int(match["pid"]) if match else 0
            mine = match is not None and match["host"] == HOST and pid == os.getpid()
            try:
                dead = hidden not in _current if mine else match and left_behind(hidden, match["host"], pid)
                if dead and wanted(hidden):
                    shutil.rmtree(hidden, ignore_errors=True)
            except OSError:  # gone meanwhile
                continue


def hidden_folders(path: Path) -> list[Path]:
    """Return the folders in which runs are writing, or were when they were killed."""
    try:
        names = os.listdir(path)
    except (OSError, ValueError):  # not there, or no path at all
        return []
    found = [path / name for name in sorted(names) if _HIDDEN.fullmatch(name)]
    return [hidden for hidden in found if hidden.is_dir() and not hidden.is_symlink()]


def strangers(table: Path) -> list[str]:
    """Return a sentence per file that is not of the run that the provenance beside `table` tells of."""
    folder = table.parent
    found = []
    if any((hidden / PROVENANCE).exists() for hidden in hidden_folders(folder)):
        found.append("a run was killed while its files took their places; give its command again")
    about = read_provenance(folder / PROVENANCE)
    if about.changed:
        found.append(f"{PROVENANCE} was changed after it was written")
    elif about.files and table.name not in about.files:
        found.append(f"{table.name} is not among the files of the run that {PROVENANCE} tells of")
    for name, digest in about.files.items():
        path = folder / name
        if name != PROVENANCE and path.is_file() and _checksum(path) != digest:
            found.append(f"{name} was changed after it was written, or belongs to another run than {PROVENANCE}")
    return found


def _checksum(path: Path) -> str | None:
    try:
        return checksum(path)
    except OSError:  # not to be read
        return None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except (OSError, ValueError):  # not there, or no path at all
        return None
    return state.st_dev, state.st_ino
