"""The point store: exact floats, atomic files, refused versions, and what happens to damage and debris."""

import errno
import json
import math
import multiprocessing
import os

import numpy as np
import pytest

import tlcli.sweep.store as store_module
from tlcli.errors import StoreError, UsageError, WriteError
from tlcli.sweep.store import PointStore

KEY_1 = {"alpha": 1.0}


@pytest.fixture
def store(tmp_path):
    return PointStore(tmp_path / "store", "regression", "1")


def files(store):
    return sorted(path.relative_to(store.directory).as_posix() for path in store.directory.rglob("*") if path.is_file())


def bits(record):
    return {name: value.hex() if isinstance(value, float) else value for name, value in record.items()}


def test_records_come_back_to_the_last_bit(store):
    record = {
        "a": 0.1 + 0.2,
        "b": math.inf,
        "c": -math.inf,
        "d": math.nan,
        "e": -0.0,
        "f": 5e-324,
        "g": "inf",
        "n": 3,
    }
    key = store.key(KEY_1, 0)
    assert store.get(key) is None
    assert not store.has(key)
    store.put(key, record)
    assert store.has(key)
    back = PointStore(store.directory, "regression", "1").get(key)
    assert back is not None
    assert bits(back) == bits(record)
    assert list(back) == list(record)
    assert list(store.keys()) == [key]


def test_numpy_values_are_stored_as_plain_numbers(store):
    key = store.key(KEY_1, 0)
    store.put(key, {"a": np.float32(0.1), "b": np.int64(3), "c": np.array([1.0, np.inf]), "d": np.bool_(True)})
    assert store.get(key) == {"a": float(np.float32(0.1)), "b": 3, "c": [1.0, math.inf], "d": True}


def test_equal_points_have_equal_keys_and_others_do_not(store):
    key = store.key({"alpha": 1.0, "rho": 0.5}, 0)
    assert key == store.key({"rho": np.float64(0.5), "alpha": 1}, 0)
    assert store.key({"alpha": -0.0}, 0) == store.key({"alpha": 0}, 0)
    others = [
        store.key({"alpha": 1.0, "rho": math.nextafter(0.5, 1)}, 0),
        store.key({"alpha": 1.0, "rho": 0.5}, 1),
        store.key({"alpha": 1.0}, 0),
        store.key({"alpha": math.inf}, 0),
        store.key({"alpha": "inf"}, 0),
        store.key({"alpha": True}, 0),
        PointStore(store.directory, "regression", "2").key({"alpha": 1.0, "rho": 0.5}, 0),
        PointStore(store.directory, "network", "1").key({"alpha": 1.0, "rho": 0.5}, 0),
    ]
    assert len({key, *others}) == 9


def test_nan_cannot_identify_a_point(store):
    with pytest.raises(ValueError, match="NaN"):
        store.key({"alpha": math.nan}, 0)


def test_nothing_is_written_before_the_first_point(store):
    assert list(store.keys()) == []
    assert not store.directory.exists()


def test_layout(store):
    key = store.key(KEY_1, 0)
    store.put(key, {"loss": 1.0})
    assert files(store) == [f"points/{key[:2]}/{key}.json", "store.json"]
    meta = json.loads((store.directory / "store.json").read_text())
    assert meta == {
        "format": 1,
        "solver": "regression",
        "solver_version": "1",
        "tlcli": store_module.__version__,
    }


@pytest.mark.parametrize(
    ("solver", "version", "message"),
    [
        (
            "regression",
            "2",
            "was written by solver regression version 1, this is version 2; use --force to discard it",
        ),
        (
            "network",
            "1",
            "was written by solver regression, this is network; use --force to discard it or another -o",
        ),
    ],
)
def test_an_incompatible_store_is_refused_and_force_discards_it(store, solver, version, message):
    store.put(store.key(KEY_1, 0), {"loss": 1.0})
    foreign = store.directory / "points" / "notes.txt"
    foreign.write_text("mine")
    with pytest.raises(StoreError, match=message) as caught:
        PointStore(store.directory, solver, version)
    assert str(store.directory) in str(caught.value)
    assert caught.value.exit_code == 5
    assert len(list(store.keys())) == 1
    before = files(store)
    new = PointStore(store.directory, solver, version, force=True)
    assert files(new) == before, "the old points stay until the new result stands"
    new.put(new.key(KEY_1, 0), {"loss": 2.0})
    assert set(before) < set(files(new))
    assert PointStore(store.directory, "regression", "1").get(store.key(KEY_1, 0)) == {"loss": 1.0}
    new.settle()
    assert list(new.keys()) == [new.key(KEY_1, 0)]
    assert foreign.read_text() == "mine"
    assert PointStore(store.directory, solver, version).get(new.key(KEY_1, 0)) == {"loss": 2.0}
    with pytest.raises(StoreError, match="use --force to discard it"):
        PointStore(store.directory, "regression", "1")


def test_force_uses_no_old_point_and_keeps_it_until_the_new_one_is_there(store):
    one, two, three = (store.key({"alpha": i}, 0) for i in range(3))
    for key in (one, two):
        store.put(key, {"loss": 1.0})
    new = PointStore(store.directory, "regression", "1", force=True)
    assert (new.get(one), new.has(one), store.get(one)) == (None, False, {"loss": 1.0})
    for key in (one, three):
        new.put(key, {"loss": 2.0})
    assert (new.get(one), new.has(one), store.get(two)) == ({"loss": 2.0}, True, {"loss": 1.0})
    new.settle(whole=False)  # one shard of several knows nothing of the others' points
    assert sorted(new.keys()) == sorted([one, two, three])
    new = PointStore(store.directory, "regression", "1", force=True)
    assert new.get(two) is None  # computed again, but this time it fails
    new.put(three, {"loss": 3.0})
    new.settle()
    assert sorted(new.keys()) == sorted([two, three])
    assert PointStore(store.directory, "regression", "1").get(three) == {"loss": 3.0}


def test_a_forced_run_of_another_version_that_was_killed_continues(store):
    old = store.key(KEY_1, 0)
    store.put(old, {"loss": 1.0})
    killed = PointStore(store.directory, "regression", "2", force=True)
    new = killed.key(KEY_1, 0)
    killed.put(new, {"loss": 2.0})
    again = PointStore(store.directory, "regression", "2", force=True)
    assert again.get(new) == {"loss": 2.0}
    again.settle()
    assert list(again.keys()) == [new]


def test_a_store_file_that_is_none_is_left_even_with_force(store):
    store.directory.mkdir()
    for text in ("mine", '{"of": "the user"}', "[]", "[" * 100_000):
        (store.directory / "store.json").write_text(text)
        for force in (False, True):
            with pytest.raises(StoreError, match=r"store\.json' is not readable as that of a store; move it away"):
                PointStore(store.directory, "regression", "1", force=force)
        assert (store.directory / "store.json").read_text() == text


def test_another_format_and_an_unreadable_meta_file_are_refused(store):
    store.prepare()
    meta = store.directory / "store.json"
    meta.write_text(meta.read_text().replace('"format":1', '"format":2'))
    with pytest.raises(StoreError, match="has format 2, this is format 1; use --force"):
        PointStore(store.directory, "regression", "1")
    meta.write_text("{")
    with pytest.raises(StoreError, match=r"store\.json' is not readable as that of a store; move it away"):
        PointStore(store.directory, "regression", "1")


def test_a_version_that_appears_between_opening_and_writing_is_refused(store):
    PointStore(store.directory, "regression", "2").prepare()
    with pytest.raises(StoreError, match="version 2, this is version 1"):
        store.put(store.key(KEY_1, 0), {"loss": 1.0})


def test_a_file_in_place_of_the_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file; move it away or choose another"):
        PointStore(tmp_path / "file", "regression", "1")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "points").write_text("")
    with pytest.raises(UsageError, match="points' is a file; move it away or choose another"):
        PointStore(tmp_path / "store", "regression", "1")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data.replace(b"0.25", b"0.75"),
        lambda data: b"[]",
        lambda data: b"null",
        lambda data: b"\xff\xfe" + data,
        lambda data: bytes(len(data)),
    ],
)
def test_a_damaged_file_counts_as_missing_and_is_reported(store, damage):
    key = store.key(KEY_1, 0)
    store.put(key, {"loss": 0.25})
    path = store.directory / "points" / key[:2] / f"{key}.json"
    path.write_bytes(damage(path.read_bytes()))
    assert store.get(key) is None
    assert len(store.warnings) == 1
    assert str(path) in store.warnings[0]
    store.put(key, {"loss": 0.25})
    assert store.get(key) == {"loss": 0.25}


def test_a_file_under_the_name_of_another_point_is_damage(store):
    one, two = store.key({"alpha": 1}, 0), store.key({"alpha": 2}, 0)
    store.put(one, {"loss": 1.0})
    store.put(two, {"loss": 2.0})
    path = {key: store.directory / "points" / key[:2] / f"{key}.json" for key in (one, two)}
    path[two].write_bytes(path[one].read_bytes())
    assert store.get(two) is None


def test_debris_of_dead_writers_is_ignored_and_cleared(store):
    key = store.key(KEY_1, 0)
    store.put(key, {"loss": 1.0})
    process = multiprocessing.get_context("spawn").Process(target=int)
    process.start()
    process.join()
    shard = store.directory / "points" / key[:2]
    host = store_module.HOST
    dead = shard / f".{key}.json.{host}.{process.pid}.tmp"
    alive = shard / f".{key}.json.{host}.{os.getppid()}.tmp"
    elsewhere = shard / f".{key}.json.elsewhere.1.tmp"
    old = store.directory / ".store.json.elsewhere.1.tmp"
    for path in (dead, alive, elsewhere, old):
        path.write_text("{")
    os.utime(old, (0, 0))
    again = PointStore(store.directory, "regression", "1")
    assert list(again.keys()) == [key]
    again.prepare()
    assert [path.exists() for path in (dead, alive, elsewhere, old)] == [False, True, True, False]


def test_a_full_disk_is_one_sentence_and_leaves_the_old_record(store, monkeypatch):
    key = store.key(KEY_1, 0)
    store.put(key, {"loss": 1.0})

    def refuse(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(
        WriteError, match=r"cannot write to the store at .*: No space left on device; make room"
    ) as full:
        store.put(key, {"loss": 2.0})
    assert full.value.exit_code == 6
    assert store.get(key) == {"loss": 1.0}
    assert len(files(store)) == 2


def test_a_record_is_never_visible_before_it_is_on_the_disk(store, monkeypatch):
    order = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (order.append(name), real(*a))[1])
    store.prepare()
    order.clear()
    store.put(key := store.key(KEY_1, 0), {"loss": 1.0})
    # The new directories, then the content, the rename, and the directory that holds the name.
    assert order[-3:] == ["fsync", "replace", "fsync"]
    order.clear()
    store.put(key, {"loss": 1.0})
    assert order == ["fsync", "replace", "fsync"]


def fill(directory, start):
    store = PointStore(directory, "regression", "1")
    for i in range(start, start + 60):
        store.put(store.key({"alpha": i}, 0), {"loss": i / 7})


def test_two_processes_may_write_one_store(store):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=fill, args=(store.directory, start)) for start in (0, 30)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [store.get(store.key({"alpha": i}, 0)) for i in range(90)] == [{"loss": i / 7} for i in range(90)]
    assert len(files(store)) == 91
    assert store.warnings == []


@pytest.mark.parametrize(
    "wrong", [{"loss": "0.5"}, {"loss": [0.5]}, {"loss": None}, {"loss_se": "x"}, {"loss_se": True}, []]
)
def test_a_valid_checksum_does_not_make_a_record_valid(store, wrong):
    """A value that is missing, a text or a list where a number belongs is computed again, with a warning."""
    key = store.key(KEY_1, 0)
    good = {"loss": 0.5, "loss_se": 0.1, "status": "ok"}
    store.put(key, good)
    assert store.get(key) == good
    store.put(key, {**good, **wrong}) if wrong else store.put(key, {"loss_se": 0.1})
    assert store.get(key) is None
    assert "is damaged; it is computed again" in store.warnings[-1]


def test_deep_json_is_damage(store):
    key = store.key(KEY_1, 0)
    store.put(key, {"a": 1})
    path = next(store.directory.glob("points/*/*.json"))
    path.write_text("[" * 100_000)
    assert store.get(key) is None
    assert "is damaged" in store.warnings[-1]
    (store.directory / "store.json").write_text("[" * 100_000)
    with pytest.raises(StoreError, match="is not readable"):
        PointStore(store.directory, "regression", "1")
