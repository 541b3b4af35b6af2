"""Runs in a folder of the user: nothing that is not ours is touched, whatever happens and in whatever order."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcli.errors import UsageError, WriteError
from tlcli.report import folder as module
from tlcli.report.folder import OutputFolder, strangers
from tlcli.report.provenance import PROVENANCE, read_provenance, write_provenance
from tlcli.sweep.store import HOST

NAMES = ("table.csv", "boundary.csv", "figure.png", "figure-loss.png", "kernel.npz")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", ())


class Killed(BaseException):
    """Stands for a kill: nothing catches it, and nothing is tidied up."""


def run(path, files, *, reads=(), die_at=None):
    """Write `files` (name to content) as a run does; dies at the given replacement of a file."""
    output = OutputFolder(Path(path), reads)
    output.refuse_taken([*files, PROVENANCE].__contains__)
    calls, replace = [], os.replace

    def dying(source, target):
        if Path(target).parent == Path(path):
            calls.append(target)
            if len(calls) == die_at:
                raise Killed
        replace(source, target)

    with mock.patch.object(os, "replace", dying), output.opened(), output.replacing() as hidden:
        for name, content in files.items():
            (hidden / name).write_text(content)
        write_provenance(hidden / PROVENANCE, {"rows": 1}, [hidden / name for name in files])


def content(path):
    return {p.name: p.read_text() for p in Path(path).iterdir() if p.is_file()}


def visible(path):
    return sorted(name for name in os.listdir(path) if not name.startswith(".tlcli-"))


def test_a_run_replaces_what_an_earlier_one_wrote_and_nothing_else(tmp_path):
    (tmp_path / "figure-mine.png").write_text("mine")
    run(tmp_path, {"table.csv": "1", "figure.png": "a", "kernel.npz": "k"})
    run(tmp_path, {"table.csv": "2", "boundary.csv": "b"})
    assert sorted(os.listdir(tmp_path)) == ["boundary.csv", "figure-mine.png", PROVENANCE, "table.csv"]
    assert content(tmp_path)["table.csv"] == "2"
    assert strangers(tmp_path / "table.csv") == []


def test_what_was_changed_since_is_the_users(tmp_path):
    run(tmp_path, {"table.csv": "1", "figure.png": "a", "kernel.npz": "k"})
    (tmp_path / "figure.png").write_text("retouched")
    run(tmp_path, {"table.csv": "2"})
    assert visible(tmp_path) == ["figure.png", PROVENANCE, "table.csv"]
    for name in ("table.csv", PROVENANCE):
        (tmp_path / name).write_text((tmp_path / name).read_text() + " ")
        before = content(tmp_path)
        with pytest.raises(UsageError, match=f"{name}' was not written by an earlier run, or was changed since"):
            run(tmp_path, {"table.csv": "3"})
        assert content(tmp_path) == before
        assert strangers(tmp_path / "table.csv")
        (tmp_path / name).write_text((tmp_path / name).read_text()[:-1])
        assert strangers(tmp_path / "table.csv") == []


def test_a_provenance_that_names_files_elsewhere_or_of_the_user_owns_nothing(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    run(tmp_path / "out", {"table.csv": "1"})
    about = json.loads((tmp_path / "out" / PROVENANCE).read_text())
    for name in ("../mine.txt", str(tmp_path / "mine.txt"), "mine.txt"):
        forged = {**about, "files": {name: next(iter(about["files"].values()))}}
        (tmp_path / "out" / PROVENANCE).write_text(json.dumps(forged, indent=2) + "\n")
        assert read_provenance(tmp_path / "out" / PROVENANCE).files == {}
    assert strangers(tmp_path / "out" / "table.csv") == [f"{PROVENANCE} was changed after it was written"]


@pytest.mark.parametrize("text", ["{}", "[]", "{half", "", '{"files": 3, "run": 4}', "[" * 100_000, "\0"])
def test_another_provenance_is_the_users(tmp_path, text):
    (tmp_path / PROVENANCE).write_text(text)
    with pytest.raises(UsageError, match=f"{PROVENANCE}' was not written by an earlier run"):
        run(tmp_path, {"table.csv": "1"})
    assert content(tmp_path) == {PROVENANCE: text}


def test_folders_links_and_files_that_are_read_are_refused(tmp_path):
    run(tmp_path, {"table.csv": "1", "kernel.npz": "k"})
    (tmp_path / "boundary.csv").mkdir()
    (tmp_path / "figure.png").symlink_to(tmp_path / "nowhere")
    for name, words in (("boundary.csv", "is a folder where a result must be written"), ("figure.png", "was not")):
        with pytest.raises(UsageError, match=f"{name}' {words}"):
            run(tmp_path, {name: "2"})
    link = tmp_path / "data"
    link.symlink_to("kernel.npz")
    with pytest.raises(UsageError, match=r"kernel\.npz' is read by this run and its results would replace it"):
        run(tmp_path, {"kernel.npz": "2"}, reads=[link])
    run(tmp_path, {"table.csv": "2"}, reads=[link])
    assert (tmp_path / "kernel.npz").read_text() == "k", "not even as an old file"


def test_folders_that_a_failed_run_created_vanish_and_others_stay(tmp_path):
    (tmp_path / "there").mkdir()
    for path in ("there", "a/b/c"):
        with pytest.raises(UsageError), OutputFolder(tmp_path / path).opened():
            raise UsageError("no")
    with pytest.raises(WriteError), OutputFolder(tmp_path / "d" / ("x" * 300)).opened():
        pass
    assert os.listdir(tmp_path) == ["there"]


def test_a_run_that_fails_leaves_the_earlier_result(tmp_path):
    run(tmp_path, {"table.csv": "1"})
    before = content(tmp_path)
    with pytest.raises(TypeError):
        run(tmp_path, {"figure.png": "b", "table.csv": None})
    assert content(tmp_path) == before
    assert sorted(os.listdir(tmp_path)) == sorted(before)


@pytest.mark.parametrize("die_at", [1, 2, 3])
def test_killed_between_two_files(tmp_path, die_at):
    run(tmp_path, {"table.csv": "1", "figure.png": "a"})
    with pytest.raises(Killed):
        run(tmp_path, {"table.csv": "2", "figure.png": "b"}, die_at=die_at)
    found = strangers(tmp_path / "table.csv")
    assert found[0] == "a run was killed while its files took their places; give its command again"
    assert sum("belongs to another run" in sentence for sentence in found) == die_at - 1
    run(tmp_path, {"table.csv": "3"})
    assert sorted(os.listdir(tmp_path)) == [PROVENANCE, "table.csv"]
    assert strangers(tmp_path / "table.csv") == []


def test_hidden_folders_of_the_dead_are_cleared_and_of_the_living_kept(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = {pid: tmp_path / f".tlcli-{HOST}-{pid}-abcdefgh" for pid in (dead.pid, os.getppid(), os.getpid())}
    mine = [tmp_path / ".tlcli-notes", tmp_path / ".figure-abcdefgh.png", tmp_path / f".tlcli-{HOST}-{dead.pid}"]
    for hidden in [*names.values(), *mine]:
        hidden.mkdir()
        (hidden / "table.csv").write_text("half")
    run(tmp_path, {"table.csv": "1"})
    assert [names[pid].exists() for pid in names] == [False, True, False]
    assert all((hidden / "table.csv").exists() for hidden in mine)


_files = st.dictionaries(st.sampled_from(NAMES), st.sampled_from("abc"), min_size=1)
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("user"), st.sampled_from((*NAMES, PROVENANCE, "notes.txt", "figure-of-mine.png"))),
        st.tuples(st.just("delete"), st.sampled_from((*NAMES, PROVENANCE))),
        st.tuples(st.just("run"), _files),
        st.tuples(st.just("kill"), _files, st.integers(1, 6)),
    ),
    max_size=12,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(_steps)
def test_files_of_the_user_survive_any_runs(steps):
    with TemporaryDirectory() as folder:
        users, ours, orphans = {}, {}, set()
        for number, (what, *rest) in enumerate(steps):
            if rest[0] == PROVENANCE:  # whose the files are can no longer be told
                orphans |= {*os.listdir(folder)} - {PROVENANCE}
            if what == "user":  # writes anew, or over one of ours
                users[rest[0]] = f"mine {number}"
                ours.pop(rest[0], None)
                Path(folder, rest[0]).write_text(users[rest[0]])
            elif what == "delete":
                for known in (users, ours):
                    known.pop(rest[0], None)
                Path(folder, rest[0]).unlink(missing_ok=True)
            else:
                files, *die_at = rest
                try:
                    run(folder, files, die_at=die_at[0] if die_at else None)
                except UsageError:
                    assert {*files, PROVENANCE} & (set(users) | orphans), "refused without a reason"
                except Killed:
                    pass
                else:
                    assert not {*files, PROVENANCE} & set(users)
                    ours = files
            found = content(folder)
            assert {name: found.get(name) for name in users} == users
            if what == "run" and ours is rest[0]:
                about = found.pop(PROVENANCE)
                assert about
                assert {name: found.get(name) for name in ours} == ours
                assert strangers(Path(folder, next(iter(ours)))) == []
