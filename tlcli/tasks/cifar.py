"""CIFAR-10 tasks: `cifar10:cat-dog`, groups, `cifar10:cat+deer-dog+frog`, or more classes, `cifar10:cat-dog-ship`.

The data are never fetched during a run. `python -m tlcli.tasks.cifar` downloads the archive once (extra `data`)
into the cache, `$XDG_CACHE_HOME/tlcli` or `~/.cache/tlcli`, and checks it; the environment variable
TLCLI_CIFAR10 names an archive cifar-10-python.tar.gz or a folder of batch files that is there already.
Training images come from data_batch_1 .. 5, test images from test_batch.
"""

import hashlib
import importlib
import io
import itertools
import os
import pickle
import sys
import tarfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tlcli.arrays import Flags, Floats
from tlcli.errors import MissingExtraError, TlcliError, UsageError, suggest
from tlcli.paths import expanded
from tlcli.tasks.images import ImagePool, ImageTask

PREFIX = "cifar10:"
EXAMPLE = "cifar10:cat-dog"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ENVIRONMENT = "TLCLI_CIFAR10"
ARCHIVE = "cifar-10-python.tar.gz"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
COMMAND = "pip install 'tlcli[data]' && python -m tlcli.tasks.cifar"

TEST_BATCH = "test_batch"
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), TEST_BATCH)
PIXELS = 1024  # 32 x 32; the three colours follow one another
GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601


def parse_cifar_task(text: str) -> ImageTask:
    """Read `cifar10:cat-dog` or, of more classes, `cifar10:cat-dog-ship`.

    Raises UsageError, one sentence with the bad value, for anything else.
    """
    sides = text.strip().removeprefix(PREFIX).split("-")
    if not text.strip().startswith(PREFIX) or len(sides) < 2 or not all(sides):
        raise UsageError(f"{text!r} needs classes on both sides of one '-', e.g. {EXAMPLE}.")
    names = [[name.strip() for name in side.split("+")] for side in sides]
    seen: set[str] = set()
    for name in itertools.chain(*names):
        if name not in CLASSES:
            raise UsageError(
                f"{text!r}: {name!r} is not a class of CIFAR-10{suggest(name, CLASSES)}; "
                f"the classes are {', '.join(CLASSES)}."
            )
        if name in seen:
            raise UsageError(f"{text!r}: {name} is written twice; write it once.")
        seen.add(name)
    groups = tuple(tuple(sorted(CLASSES.index(name) for name in side)) for side in names)
    return ImageTask(text.strip(), groups, tuple(side.replace(" ", "") for side in sides))


def cache_folder() -> Path:
    """Where the downloaded archive is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tlcli"


def cifar_location() -> Path:
    """Return the archive or folder of batch files to read.

    Raises UsageError, with the command that repairs it, if there is none.
    """
    named = os.environ.get(ENVIRONMENT)
    if named:
        if not (path := expanded(named)).exists():
            raise UsageError(
                f"{ENVIRONMENT} = {named!r} does not exist; it must name {ARCHIVE} or a folder of its batch files."
            )
        return path
    path = cache_folder() / ARCHIVE
    if not path.exists():
        raise UsageError(
            f"CIFAR-10 is not on this computer: download it with `{COMMAND}` (170 MB, to {path}), "
            f"or set {ENVIRONMENT} to {ARCHIVE} or a folder of its batch files."
        )
    return path


def cifar_pool(colour: bool) -> ImagePool:
    """Return the images with grey (D = 1024) or colour (D = 3072) inputs.

    The stored pixels are 0 .. 255; grey is 0.299 R + 0.587 G + 0.114 B. Test images are the official test batch.
    Raises UsageError if the data are absent or cannot be read.
    """
    location = cifar_location()
    stamp = location.stat().st_mtime_ns
    pixels, classes, held_out, source = _read(location, stamp)
    described: dict[str, Any] = {
        "data": "CIFAR-10",
        "colour": colour,
        "pixels": "colour, 3 x 32 x 32" if colour else "grey, 0.299 R + 0.587 G + 0.114 B, 32 x 32",
        **source,
    }
    if colour:
        return ImagePool(pixels, classes, held_out, 3 * PIXELS, description=described)
    return ImagePool(pixels, classes, held_out, PIXELS, inputs=grey, description=described)


def class_counts(pool: ImagePool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Numbers of training and of test images of each of the ten classes."""
    train = np.bincount(pool.classes[~pool.held_out], minlength=len(CLASSES))
    test = np.bincount(pool.classes[pool.held_out], minlength=len(CLASSES))
    return tuple(int(n) for n in train), tuple(int(n) for n in test)


def grey(pixels: Floats) -> Floats:
    """Luma (n, 1024) of colour pixels (n, 3072)."""
    return np.einsum("c,ncp->np", GREY, pixels.reshape(len(pixels), 3, PIXELS))


@lru_cache(maxsize=1)
def _read(location: Path, stamp: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], Flags, dict[str, Any]]:
    """Pixels (n, 3072), classes (n,), test flags (n,) and provenance; `stamp` renews the cache of a changed file."""
    try:
        files, digest = _folder(location) if location.is_dir() else _archive(location)
    except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
        reason = str(error).split(":\n")[0]  # tarfile lists every compression that it tried
        raise UsageError(f"Cannot read {location}: {reason}; download it again with `{COMMAND}`.") from error
    if location == cache_folder() / ARCHIVE and digest != SHA256:
        raise UsageError(f"{location} is damaged: its SHA-256 is {digest}; delete it and run `{COMMAND}`.")
    if TEST_BATCH not in files or len(files) < 2:
        raise UsageError(f"{location} lacks batch files: it needs {TEST_BATCH} and at least one of {BATCHES[0]} .. 5.")
    read = [(name == TEST_BATCH, *_batch(files[name], f"{name} of {location}")) for name in BATCHES if name in files]
    pixels = np.concatenate([batch[1] for batch in read])
    classes = np.concatenate([batch[2] for batch in read])
    held_out = np.concatenate([np.full(len(batch[2]), batch[0]) for batch in read])
    return (
        pixels,
        classes,
        held_out,
        {"files": sorted(files), "sha256": digest, "is_official_archive": digest == SHA256},
    )


def _archive(path: Path) -> tuple[dict[str, bytes], str]:
    """Batch files of a tar archive by name, and the archive's SHA-256; nothing is written to disk."""
    content = path.read_bytes()
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            if (name := member.name.rsplit("/", 1)[-1]) in BATCHES and (handle := archive.extractfile(member)):
                files[name] = handle.read()
    return files, hashlib.sha256(content).hexdigest()


def _folder(path: Path) -> tuple[dict[str, bytes], str]:
    """Batch files in a folder, or in its cifar-10-batches-py, and the SHA-256 of them one after the other."""
    inner = path / "cifar-10-batches-py"
    folder = inner if inner.is_dir() else path
    files = {name: (folder / name).read_bytes() for name in BATCHES if (folder / name).is_file()}
    return files, hashlib.sha256(b"".join(files[name] for name in sorted(files))).hexdigest()


class _StoredArray:
    """Stand-in for an array while it is unpickled: takes its state, (version, shape, type, order, bytes)."""

    def __init__(self, *_: Any):
        self.array = np.empty(0, np.uint8)

    def __setstate__(self, state: Any):
        _, shape, kind, column_major, content = state
        if not isinstance(kind, _StoredType):
            raise pickle.UnpicklingError("it holds an array without a type")
        self.array = np.frombuffer(content, np.uint8).reshape(shape, order="F" if column_major else "C")


class _StoredType:
    """Stand-in for the array's type; only bytes are accepted, and its state is of no interest."""

    def __init__(self, code: Any = None, *_: Any):
        if code not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"it holds an array of type {code!r} instead of bytes")

    def __setstate__(self, state: Any):
        pass


class _ByteArrays(pickle.Unpickler):
    """Reads plain containers, strings, numbers and arrays of bytes; a pickle can name nothing else.

    A batch is a pickle, and pickles may call anything they name: the few names that NumPy's arrays use become
    the stand-ins above, all others are refused.
    """

    KNOWN: ClassVar[dict[str, Any]] = {
        "numpy.core.multiarray._reconstruct": _StoredArray,
        "numpy._core.multiarray._reconstruct": _StoredArray,
        "numpy.ndarray": None,  # an argument of _reconstruct, never called
        "numpy.dtype": _StoredType,
        "_codecs.encode": lambda text, *_: text.encode("latin1"),  # bytes in old protocols, as Python 3 writes them
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Return the stand-in for one of the allowed names; raises UnpicklingError for all others."""
        if (name := f"{module_name}.{global_name}") not in self.KNOWN:
            raise pickle.UnpicklingError(f"it names {name}, which is not an array of bytes")
        return self.KNOWN[name]


def _batch(content: bytes, name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (n, 3072) and classes (n,) of one batch file."""
    try:
        batch = _ByteArrays(io.BytesIO(content), encoding="bytes").load()
        # Python 2 wrote the official files, whose strings are bytes here; Python 3 writes text.
        pixels, labels = (batch[key] if key in batch else batch[key.decode()] for key in (b"data", b"labels"))
    except Exception as error:  # a damaged pickle can raise almost anything
        raise UsageError(f"{name} is not a batch of CIFAR-10: {type(error).__name__}: {error}.") from error
    whole = isinstance(labels, list) and all(isinstance(label, int) and 0 <= label < len(CLASSES) for label in labels)
    if not (whole and labels and isinstance(pixels, _StoredArray) and pixels.array.shape == (len(labels), 3 * PIXELS)):
        raise UsageError(f"{name} is not a batch of CIFAR-10: it needs uint8 data (n, 3072) and n labels 0 .. 9.")
    return pixels.array, np.array(labels, dtype=np.int64)


def download() -> Path:
    """Download the archive to the cache, check its SHA-256 and return its path; a good copy is left alone.

    Raises MissingExtraError without pooch and UsageError if the download fails.
    """
    try:
        pooch = importlib.import_module("pooch")
    except ImportError as error:
        raise MissingExtraError("The download of CIFAR-10 needs pooch; pip install 'tlcli[data]'.") from error
    try:
        path = pooch.retrieve(URL, known_hash=f"sha256:{SHA256}", fname=ARCHIVE, path=cache_folder())
    except (OSError, ValueError) as error:  # no connection, no space, wrong checksum
        raise UsageError(
            f"Cannot download {URL}: {error}; fetch it by other means and set {ENVIRONMENT} to the file."
        ) from error
    return Path(path)


def main() -> int:
    """Download CIFAR-10 and say where it is; returns the exit code."""
    try:
        print(f"CIFAR-10: {download()}")
    except TlcliError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
