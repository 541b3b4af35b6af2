"""The content-addressed store of computed points: what a kill cannot take back.

    DIRECTORY/store.json              which solver, in which version, wrote the store
    DIRECTORY/points/ab/abcd….json    one point; the name is the hash of solver, version, parameters and seed

A point appears under its name only when it is complete: it is written to a temporary file beside it, fsynced
and renamed. So any number of processes may write one store at once; equal points write equal bytes.

With `force` the points are computed again, but the old ones stay until the new result stands: then `settle` removes
what this run did not write.
"""

import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tlcli.errors import StoreError, UsageError, WriteError
from tlcli.sweep.encoding import canonical_json, decode, dump, encode, plain
from tlcli.sweep.forms import WRONG, form_of
from tlcli.version import __version__

FORMAT = 1
STALE_AFTER = 86400.0  # seconds; the age at which another machine's temporary file counts as left behind

_POINT = re.compile(r"[0-9a-f]{64}\.json")
_TEMPORARY = re.compile(r"\.[0-9a-z]+\.json\.(?P<host>[0-9A-Za-z-]*)\.(?P<pid>[0-9]+)\.tmp")
HOST = re.sub(r"[^0-9A-Za-z-]", "-", socket.gethostname())


class PointStore:
    """The finished points of one solver in one version.

    Nothing is written before `prepare` or the first `put`, so a dry run leaves no trace. `warnings` collects
    one sentence per damaged file.

    Args:
        directory: where the store is or shall be.
        solver: name of the solver; part of every key.
        solver_version: its version; raise it whenever its numbers change.
        force: do not use what is there, whatever wrote it, and let `settle` discard it. Points of this version in a
            store of another one were written by a forced run that was killed, and are used.

    Raises:
        StoreError: another solver, version or format wrote the store, or its store.json is none.
        UsageError: `directory` or a folder in it is a file.
    """

    def __init__(
        self, directory: str | os.PathLike[str], solver: str, solver_version: str, *, force: bool = False
    ) -> None:
        self.directory = Path(directory)
        self.solver = solver
        self.solver_version = str(solver_version)
        self.warnings: list[str] = []
        self._points = self.directory / "points"
        self._meta = self.directory / "store.json"
        self._prepared = False
        self._force = force
        self._used: set[str] = set()  # keys that this run has read or written
        self._wanted: set[str] = set()  # keys that it computes again
        for place in (self.directory, self._points):
            there = next((path for path in (place, *place.parents) if os.path.lexists(path)), place)
            if os.path.lexists(there) and not there.is_dir():
                where = "is a file" if there == place else f"lies below the file '{there}'"
                raise UsageError(
                    f"the store '{place}' {where}; move it away or choose another directory with -o or --store."
                )
        self._blind = self._check() == "" and force

    def key(self, parameters: Mapping[str, Any], seed: int) -> str:
        """Return the key of a point: 64 hexadecimal digits that depend on its content only."""
        content = {
            "solver": self.solver,
            "version": self.solver_version,
            "parameters": parameters,
            "seed": int(seed),
        }
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()

    def empty(self) -> bool:
        """Tell whether no point can be in it, since it was never written or is not to be read."""
        return not self._used and (self._blind or not self._points.is_dir())

    def has(self, key: str) -> bool:
        """Tell whether a file for this point exists (`get` also checks what is in it)."""
        return (not self._blind or key in self._used) and self._path(key).is_file()

    def get(self, key: str, check: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any] | None:
        """Return the record of a point, floats to the last bit, or None if it is missing or damaged.

        `check` raises one of `tlcli.sweep.forms.WRONG` for a record that lacks something or has it in another form.
        """
        path = self._path(key)
        if self._blind and key not in self._used:
            self._wanted.add(key)
            return None
        try:
            content = json.loads(path.read_bytes())
            encoded = content["record"]
            if content["key"] != key or content["sha256"] != _digest(encoded):
                raise ValueError("checksum")
            record = decode(encoded)
            _check_form(record)
            if check is not None:
                check(record)
            self._used.add(key)
            return record
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(
                f"cannot read '{path}': {error.strerror}; repair its permissions or use another -o."
            ) from error
        except (*WRONG, RecursionError):  # JSON and Unicode errors are ValueErrors
            self.warnings.append(f"the stored point '{path}' is damaged; it is computed again.")
            return None

    def put(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep the record of a point; when this returns it survives a kill or a power cut.

        Raises:
            TypeError: the record holds something else than JSON data.
            WriteError: the disk refuses.
        """
        encoded = encode(plain(record))
        text = dump({"key": key, "record": encoded, "sha256": _digest(encoded)})
        self.prepare()
        self._write(self._path(key), text)
        self._used.add(key)

    def keys(self) -> Iterator[str]:
        """Yield the keys of all stored points, sorted."""
        for path in sorted(self._points.glob("[0-9a-f][0-9a-f]/*.json")):
            if _POINT.fullmatch(path.name):
                yield path.stem

    def prepare(self) -> None:
        """Create the store if it is not there and clear what killed runs left behind.

        Raises:
            StoreError: meanwhile another version created it.
            WriteError: the disk refuses.
        """
        if self._prepared:
            return
        if not self._meta.exists():
            self._sign()
        self._check()
        self._clean()
        self._prepared = True

    def settle(self, *, whole: bool = True) -> None:
        """After a forced run whose result stands, discard the old points; `whole`: it was not one shard of several.

        A point that failed this time keeps its old record.

        Raises:
            WriteError: the disk refuses.
        """
        if not self._force:
            return
        # First: a discard that is cut short leaves points that no key of this version names.
        self._sign()
        try:
            for key in list(self.keys()) if whole else []:
                if key not in self._used | self._wanted:
                    self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise WriteError(f"cannot discard old points at {self.directory}: {error.strerror}.") from error
        self._force = self._blind = False

    def _sign(self) -> None:
        meta = {
            "format": FORMAT,
            "solver": self.solver,
            "solver_version": self.solver_version,
            "tlcli": __version__,
        }
        self._write(self._meta, dump(meta))

    def _path(self, key: str) -> Path:
        return self._points / key[:2] / f"{key}.json"

    def _check(self) -> str:
        """Return what differs from this run in the store that is there, an empty text for nothing or no store."""
        try:
            meta = json.loads(self._meta.read_bytes())
            form, solver, version = meta["format"], meta["solver"], meta["solver_version"]
        except FileNotFoundError:
            return ""
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            # Even --force leaves it: it may be a file of the user.
            raise StoreError(
                f"'{self._meta}' is not readable as that of a store; move it away or use another -o."
            ) from error
        different = ""
        if form != FORMAT:
            different = f"has format {form}, this is format {FORMAT}"
        elif solver != self.solver:
            different = f"was written by solver {solver}, this is {self.solver}"
        elif version != self.solver_version:
            different = f"was written by solver {solver} version {version}, this is version {self.solver_version}"
        if different and not self._force:
            raise StoreError(f"store at {self.directory} {different}; use --force to discard it or another -o.")
        return different

    def _write(self, path: Path, text: str) -> None:
        """Write a file so that at every moment it is absent, the old one or the complete new one."""
        temporary = path.parent / f".{path.name}.{HOST}.{os.getpid()}.tmp"
        try:
            _make_directory(path.parent)
            try:
                with open(temporary, "w", encoding="utf-8", newline="\n") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:  # Ctrl-C too: leave no debris
                temporary.unlink(missing_ok=True)
                raise
            _sync_directory(path.parent)
        except OSError as error:
            raise WriteError(
                f"cannot write to the store at {self.directory}: {error.strerror}; make room or choose "
                "another -o, then give the same command again: finished points are kept."
            ) from error

    def _temporaries(self) -> Iterator[tuple[Path, re.Match[str]]]:
        for pattern in (".*.tmp", "points/[0-9a-f][0-9a-f]/.*.tmp"):
            for path in self.directory.glob(pattern):
                if match := _TEMPORARY.fullmatch(path.name):
                    yield path, match

    def _clean(self) -> None:
        for path, match in list(self._temporaries()):
            try:
                if left_behind(path, match["host"], int(match["pid"])):
                    path.unlink(missing_ok=True)
            except OSError:  # gone meanwhile, or not ours: it harms nobody
                continue


def _make_directory(directory: Path) -> None:
    """Create a directory and the entries that lead to it, durably."""
    if directory.is_dir():
        return
    _make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    if os.name == "nt":  # Windows cannot open directories
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def left_behind(path: Path, host: str, pid: int) -> bool:
    """Tell whether the process that was writing `path` is no more; of another machine's only the age is known.

    Raises:
        OSError: `path` is gone.
    """
    if host == HOST:
        return not _alive(pid)
    return time.time() - path.stat().st_mtime > STALE_AFTER


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's process
        return True
    return True


def _check_form(record: Any) -> None:
    """Raise ValueError unless a record is a mapping whose standard errors stand beside numbers of their form."""
    if not isinstance(record, dict):
        raise ValueError("no mapping")
    for name in record:
        if name.endswith("_se"):
            forms = [form_of(record.get(other)) for other in (name, name.removesuffix("_draw_se").removesuffix("_se"))]
            if None in forms or forms[0] != forms[1]:
                raise ValueError(f"{name} is no standard error")


def _digest(encoded: Any) -> str:
    return hashlib.sha256(dump(encoded).encode()).hexdigest()
