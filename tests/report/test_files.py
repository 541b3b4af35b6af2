"""No half-written file is ever seen, and a bad place is refused before any work."""

import os
import stat
from pathlib import Path

import pytest

from tlcli.errors import EXIT_WRITE, UsageError, WriteError
from tlcli.report.files import atomic, prepare_folder


def test_success_replaces_the_file(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with atomic(path) as temporary:
        assert temporary.parent == tmp_path, "a rename must not cross file systems"
        assert temporary.suffix == ".csv"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["table.csv"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError, UsageError])
def test_failure_leaves_the_old_file_and_no_temporary(tmp_path, error):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def write():
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise error("boom")

    with pytest.raises(WriteError if error is OSError else error):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_a_full_disk_is_one_sentence(tmp_path):
    with pytest.raises(WriteError) as caught, atomic(tmp_path / "a.csv"):
        raise OSError(28, "No space left on device")
    assert (
        str(caught.value)
        == f"'{tmp_path / 'a.csv'}' cannot be written: No space left on device; make room or give another -o."
    )
    assert caught.value.exit_code == EXIT_WRITE == 6


def test_a_folder_that_vanished_is_one_sentence(tmp_path):
    with pytest.raises(WriteError, match="cannot be written: No such file or directory"), atomic(tmp_path / "no/a.csv"):
        pass


def test_files_have_the_permissions_of_the_umask(tmp_path):
    mask = os.umask(0o027)
    try:
        with atomic(tmp_path / "a.csv") as temporary:
            temporary.write_text("x")
        assert os.umask(0o027) == 0o027, "the mask itself is left as it was"
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a.csv").stat().st_mode) == 0o640


def test_folders(tmp_path):
    prepare_folder(tmp_path / "a" / "b")
    prepare_folder(tmp_path / "a" / "b")
    assert os.listdir(tmp_path / "a" / "b") == []
    file = tmp_path / "file"
    file.write_text("x")
    for bad in (file, file / "below"):
        with pytest.raises(UsageError, match=f"output '{bad}' is a file or lies below one; give a folder"):
            prepare_folder(bad)
    assert file.read_text() == "x"


def test_places_that_cannot_be_written():
    with pytest.raises(WriteError, match=r"output '/proc/nowhere' cannot be written: .*; give another -o\."):
        prepare_folder(Path("/proc/nowhere"))
