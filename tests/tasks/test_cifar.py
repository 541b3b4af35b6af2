"""CIFAR-10 on small files of the same format: the pickles that Python 2 wrote, and those of Python 3."""

import hashlib
import io
import pickle
import struct
import sys
import tarfile
import types
import warnings

import numpy as np
import pytest

from tlcli.errors import MissingExtraError, UsageError
from tlcli.tasks import cifar
from tlcli.tasks.images import image_data
from tlcli.tasks.transfer_tasks import check_tasks, transfer_data

CAT, DEER, DOG, FROG = 3, 4, 5, 6


def text(value: bytes) -> bytes:
    """A Python 2 string: SHORT_BINSTRING, or BINSTRING beyond 255 bytes."""
    return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value


def python2_batch(pixels, labels) -> bytes:
    """The opcodes of the official files: protocol 2, strings of Python 2, an array through numpy.core."""
    n, width = pixels.shape
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
        b"(K\x01" + b"M" + struct.pack("<H", n) + b"M" + struct.pack("<H", width) + b"\x86"
        b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
        b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89" + text(pixels.tobytes()) + b"tb"
    )
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"labels") + numbers + text(b"data") + array + b"u."


def python3_batch(pixels, labels, protocol=4) -> bytes:
    return pickle.dumps({b"data": pixels, b"labels": [int(k) for k in labels]}, protocol=protocol)


def batches(n=40, write=python2_batch):
    """Two small training batches and a test batch, with the images they hold."""
    rng = np.random.default_rng(0)
    files, pixels, classes = {}, [], []
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        labels = np.arange(n) % 10
        images = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
        files[name] = write(images, labels)
        pixels.append(images)
        classes.append(labels)
    return files, np.concatenate(pixels), np.concatenate(classes)


def archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def small(tmp_path, monkeypatch):
    """TLCLI_CIFAR10 on a folder of small files; returns (pixels, classes)."""
    files, pixels, classes = batches()
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    monkeypatch.setenv("TLCLI_CIFAR10", str(tmp_path))
    return pixels, classes


def test_grammar():
    task = cifar.parse_cifar_task("cifar10:dog+cat-frog")
    assert (task.groups, task.classes) == (((CAT, DOG), (FROG,)), (CAT, DOG, FROG))
    three = cifar.parse_cifar_task("cifar10:cat-dog-frog")
    assert three.names == ("cat", "dog", "frog")
    assert three.labels(np.array([CAT, FROG, DOG, 0])).tolist()[:3] == [0, 2, 1]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("cifar10:cat", "both sides of one '-'"),
        ("cifar10:cat-", "both sides"),
        ("cifar10:cat-dog-", "both sides"),
        ("cifar10:cat-dgo", r"'dgo' is not a class of CIFAR-10 \(did you mean 'dog'\?\)"),
        ("cifar10:cat+-dog", "'' is not a class"),
        ("cifar10:cat+dog-cat", "cat is written twice"),
        ("cat-dog", "both sides"),
    ],
)
def test_bad_tasks(task, message):
    with pytest.raises(UsageError, match=message):
        cifar.parse_cifar_task(task)


def test_python2_pickles():
    """The hand-written opcodes mean the same to the standard library's unpickler as to the restricted one."""
    pixels = np.random.default_rng(2).integers(0, 256, (2, 3072), dtype=np.uint8)
    content = python2_batch(pixels, [1, 9])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy deprecates the old names that such files use
        trusted = pickle.loads(content, encoding="bytes")
    read, classes = cifar._batch(content, "x")
    np.testing.assert_array_equal(read, trusted[b"data"])
    np.testing.assert_array_equal(read, pixels)
    np.testing.assert_array_equal(classes, trusted[b"labels"])


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_python3_pickles(protocol, order):
    pixels = np.random.default_rng(1).integers(0, 256, (3, 3072), dtype=np.uint8)
    read, _ = cifar._batch(python3_batch(np.asarray(pixels, order=order), [0, 1, 2], protocol), "x")
    np.testing.assert_array_equal(read, pixels)


@pytest.mark.parametrize("colour", [False, True])
def test_pool(small, colour):
    pixels, classes = small
    pool = cifar.cifar_pool(colour)
    np.testing.assert_array_equal(pool.pixels, pixels)
    np.testing.assert_array_equal(pool.classes, classes)
    np.testing.assert_array_equal(pool.held_out, np.arange(120) >= 80)
    assert pool.dim == (3072 if colour else 1024)
    assert cifar.class_counts(pool) == ((8,) * 10, (4,) * 10)
    assert pool.description["is_official_archive"] is False
    x = pool.inputs(pixels[:2].astype(float))
    red, green, blue = pixels[1].astype(float).reshape(3, 32, 32)
    expected = pixels[1] if colour else (0.299 * red + 0.587 * green + 0.114 * blue).ravel()
    np.testing.assert_allclose(x[1], expected, rtol=1e-12)


def test_archive_and_folder_agree(small, tmp_path, monkeypatch):
    folder = cifar.cifar_pool(False)
    archive(tmp_path / "mine.tar.gz", batches()[0])
    monkeypatch.setenv("TLCLI_CIFAR10", str(tmp_path / "mine.tar.gz"))
    packed = cifar.cifar_pool(False)
    np.testing.assert_array_equal(packed.pixels, folder.pixels)
    np.testing.assert_array_equal(packed.classes, folder.classes)
    assert len(packed.description["sha256"]) == 64


@pytest.mark.parametrize("colour", [False, True])
def test_data(small, colour):
    pixels, classes = small
    arguments = {"dim": None, "p1": 12, "p2": 9, "ptest": None}
    assert check_tasks("cifar10:cat-dog", "cifar10:deer-frog", colour=colour, **arguments) == 1024 * (1 + 2 * colour)
    data = transfer_data(
        "cifar10:cat-dog", "cifar10:deer-frog", rho=0, noise1=0, noise2=0, seed=0, colour=colour, **arguments
    )
    # The official split: test images are all 4 + 4 of each task in the test batch, training images never.
    assert data.x_test.shape == (16, 1024 * (1 + 2 * colour))
    assert np.isfinite(data.y_test_source).sum() == np.isfinite(data.y_test_target).sum() == 8
    raw = pixels.astype(float)
    if not colour:
        raw = np.tensordot(raw.reshape(-1, 3, 1024), [0.299, 0.587, 0.114], axes=(1, 0))
    trainable = np.isin(classes, (CAT, DOG, DEER, FROG)) & (np.arange(120) < 80)
    x = raw - raw[trainable].mean(axis=0)
    x *= np.sqrt(x.shape[1]) / np.linalg.norm(x, axis=1, keepdims=True)
    for points, labels, left, right, held in (
        (data.x_source, data.y_source, CAT, DOG, False),
        (data.x_target, data.y_target, DEER, FROG, False),
        (data.x_test, np.nan_to_num(data.y_test_source), CAT, DOG, True),
        (data.x_test, np.nan_to_num(data.y_test_target), DEER, FROG, True),
    ):
        index = ((points[:, None] - x) ** 2).sum(axis=2).argmin(axis=1)
        np.testing.assert_allclose(points, x[index], atol=1e-9)
        np.testing.assert_array_equal(labels, np.select([classes[index] == left, classes[index] == right], [1, -1], 0))
        assert ((index >= 80) == held).all()
    assert data.description["colour"] is colour
    assert data.description["files"] == ["data_batch_1", "data_batch_2", "test_batch"]


def test_sizes(small):
    with pytest.raises(UsageError, match=r"p1 = 17: cifar10:cat-dog has 16 images for training; use at most 16"):
        check_tasks("cifar10:cat-dog", "cifar10:deer-frog", dim=None, p1=17, p2=2, ptest=None)
    with pytest.raises(UsageError, match=r"dim = 20: .* D = 1024"):
        check_tasks("cifar10:cat-dog", "cifar10:deer-frog", dim=20, p1=7, p2=2, ptest=None)


def test_shared_classes_may_use_all_training_images(small):
    pool, task = cifar.cifar_pool(False), cifar.parse_cifar_task("cifar10:cat-dog")
    data = image_data(pool, task, task, p1=16, p2=16, ptest=100, seed=0, draw=0)
    assert data.description["images_in_both_training_sets"] == 16
    assert len(data.x_test) == 8


def test_absent_data(tmp_path, monkeypatch):
    monkeypatch.delenv("TLCLI_CIFAR10", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"pip install 'tlcli\[data\]' && python -m tlcli.tasks.cifar.*TLCLI_CIFAR10"):
        check_tasks("cifar10:cat-dog", "cifar10:deer-frog", dim=None, p1=7, p2=2, ptest=None)
    monkeypatch.setenv("TLCLI_CIFAR10", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"TLCLI_CIFAR10 = '.*nowhere' does not exist"):
        check_tasks("cifar10:cat-dog", "cifar10:deer-frog", dim=None, p1=7, p2=2, ptest=None)


def test_damaged_cache_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("TLCLI_CIFAR10", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "tlcli").mkdir()
    archive(tmp_path / "tlcli" / cifar.ARCHIVE, batches()[0])  # well formed, but not the official archive
    with pytest.raises(UsageError, match=r"is damaged: its SHA-256 is .* delete it"):
        cifar.cifar_pool(False)


class Dangerous:
    """Unpickled without restriction, it would call a function."""

    def __reduce__(self):
        return (print, ("called",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({b"data": Dangerous(), b"labels": [1]}), r"it names builtins\.print"),
        (pickle.dumps({b"data": np.zeros((1, 3072)), b"labels": [1]}, protocol=4), "of type 'f8' instead of bytes"),
        (pickle.dumps({b"data": np.array([None]), b"labels": [1]}, protocol=4), "of type 'O8' instead of bytes"),
        (pickle.dumps({b"labels": [1]}), "KeyError"),
        (pickle.dumps([1]), "not a batch"),
        (b"", "EOFError"),
        (b"not a pickle", "not a batch"),
        (python2_batch(np.zeros((2, 3072), np.uint8), [1, 2])[:900], "not a batch"),
        (python2_batch(np.zeros((2, 3072), np.uint8), [1]), r"uint8 data \(n, 3072\) and n labels"),
        (python2_batch(np.zeros((2, 300), np.uint8), [1, 2]), r"uint8 data \(n, 3072\)"),
        (python2_batch(np.zeros((2, 3072), np.uint8), [1, 10]), "labels 0 .. 9"),
        (pickle.dumps({b"data": b"x", b"labels": [1]}), "uint8 data"),
    ],
)
def test_bad_batches(small, tmp_path, capsys, content, message):
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        cifar._batch(content, "data_batch_2")
    assert str(error.value).startswith("data_batch_2")
    assert capsys.readouterr().out == ""


def test_unreadable_archives(tmp_path, monkeypatch):
    path = tmp_path / "x.tar.gz"
    monkeypatch.setenv("TLCLI_CIFAR10", str(path))
    path.write_bytes(b"no archive")
    with pytest.raises(UsageError, match=r"Cannot read .*x\.tar\.gz.*download it again"):
        cifar.cifar_pool(False)
    archive(tmp_path / "y.tar.gz", batches()[0])
    monkeypatch.setenv("TLCLI_CIFAR10", str(tmp_path / "y.tar.gz"))
    whole = (tmp_path / "y.tar.gz").read_bytes()
    (tmp_path / "y.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="Cannot read"):
        cifar.cifar_pool(False)
    archive(tmp_path / "z.tar.gz", {"test_batch": batches()[0]["test_batch"]})
    monkeypatch.setenv("TLCLI_CIFAR10", str(tmp_path / "z.tar.gz"))
    with pytest.raises(UsageError, match=r"lacks batch files: it needs test_batch and at least one of data_batch_1"):
        cifar.cifar_pool(False)


def test_download_asks_for_the_checked_archive(tmp_path, monkeypatch, capsys):
    asked = {}

    def retrieve(url, known_hash, fname, path):
        asked.update(url=url, known_hash=known_hash, fname=fname, path=path)
        return str(path / fname)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pooch", types.SimpleNamespace(retrieve=retrieve))
    assert cifar.main() == 0
    assert str(tmp_path / "tlcli" / "cifar-10-python.tar.gz") in capsys.readouterr().out
    assert asked["url"] == "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    assert asked["known_hash"] == "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"


def test_download_failures(tmp_path, monkeypatch, capsys):
    def offline(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pooch", types.SimpleNamespace(retrieve=offline))
    assert cifar.main() == 2
    assert "no route; fetch it by other means and set TLCLI_CIFAR10" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "pooch", None)  # as if it were not installed
    with pytest.raises(MissingExtraError, match=r"pip install 'tlcli\[data\]'"):
        cifar.download()


def test_pooch_has_the_interface_used(tmp_path, monkeypatch):
    """With the extra installed: a file that is there and has the right checksum is not fetched again."""
    pytest.importorskip("pooch")
    content = b"small"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cifar, "SHA256", hashlib.sha256(content).hexdigest())
    (tmp_path / "tlcli").mkdir()
    (tmp_path / "tlcli" / cifar.ARCHIVE).write_bytes(content)
    assert cifar.download().read_bytes() == content
