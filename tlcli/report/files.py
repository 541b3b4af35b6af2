"""Writing files so that no half-written one is ever seen, and refusing bad places before any work is done."""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tlcli.errors import UsageError, WriteError

HIDDEN = ".tlcli-"  # starts the name of the folder in which a run's files wait for one another


def prepare_folder(folder: Path) -> None:
    """Create `folder` and prove that files can be written into it.

    Raises:
        UsageError: it is a file or lies below one.
        WriteError: it cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileExistsError, NotADirectoryError):
        raise _is_file(folder) from None
    except ValueError as error:  # a NUL byte, which only Python can give
        raise UsageError(f"output {str(folder)!r} is no path ({error}); give a folder.") from None
    except OSError as error:
        raise WriteError(f"output '{folder}' cannot be written: {error.strerror}; give another -o.") from None


def refuse_file(folder: Path) -> None:
    """Refuse a folder that is a file or lies below one; nothing is created. Raises UsageError."""
    with suppress(OSError, ValueError):  # what else is wrong with it is found when it is made
        there = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), None)
        if there is not None and not there.is_dir():
            raise _is_file(folder)


def _is_file(folder: Path) -> UsageError:
    return UsageError(f"output '{folder}' is a file or lies below one; give a folder.")


def content_of(path: Path) -> bytes:
    """Return what a file or a pipe holds. Raises OSError: see `stream_of`."""
    with stream_of(path) as stream:
        return stream.read()


def stream_of(path: Path) -> BinaryIO:
    """Open a file or a pipe for reading.

    Raises:
        OSError: it cannot be read, or is a device, which may have no end.
    """
    mode = path.stat().st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise OSError(errno.EINVAL, "it is a device and no file")
    return path.open("rb")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on failure it vanishes.

    Raises:
        WriteError: the file cannot be written (disk or quota full, no permission).
    """
    temporary = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        shown = path.parent.parent / path.name if path.parent.name.startswith(HIDDEN) else path
        raise WriteError(
            f"'{shown}' cannot be written: {error.strerror or error}; make room or give another -o."
        ) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
