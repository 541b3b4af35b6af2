"""The command as a whole against kills, workers and shards: the final CSV is always the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tlcli.sweep.store import PointStore

# 12 points of about 0.03 s each.
COMMAND = (
    "finetune-loss --alpha1 0.5 --alpha2 0.3,0.6,0.9 --gamma0 1,2,3,4 --simulate --dim 150 --trials 10 --seed 3 --quiet"
)
N_POINTS = 12


def points(folder):
    return sorted(p.name for p in Path(folder).glob("points/*/*.json"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, anywhere):
    """The results of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    assert anywhere(COMMAND, "-o", folder).code == 0
    assert len(points(folder)) == N_POINTS
    return folder


def same(folder, whole):
    assert Path(folder, "table.csv").read_bytes() == (whole / "table.csv").read_bytes()
    assert points(folder) == points(whole)
    return True


def test_killed_and_continued(tlcli, whole):
    program = subprocess.Popen([sys.executable, "-m", "tlcli", *COMMAND.split(), "-o", "out"])
    try:
        deadline = time.monotonic() + 60
        while len(points("out")) < 3:
            assert time.monotonic() < deadline
            assert program.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
    finally:
        program.send_signal(signal.SIGKILL)
        program.wait()
    left = len(points("out"))
    assert 3 <= left < N_POINTS
    assert not Path("out/table.csv").exists()
    plan = tlcli(COMMAND, "-o out --dry-run")
    assert f"{N_POINTS} points, {left} already stored, {N_POINTS - left} to compute" in plan.out + plan.err
    assert tlcli(COMMAND, "-o out").code == 0
    assert same("out", whole)
    assert not [name for _, _, names in os.walk("out") for name in names if name.endswith(".tmp")]


def test_two_workers(tlcli, whole):
    assert tlcli(COMMAND, "-o out --jobs 2").code == 0
    assert same("out", whole)


def test_shards_and_assembly(tlcli, whole):
    for shard in ("1/2", "2/2"):
        done = tlcli(COMMAND.replace("--quiet", ""), "-o out --shard", shard)
        assert done.code == 0
        assert not Path("out/table.csv").exists() or shard == "2/2"
        if shard == "1/2":
            assert "shard 1/2 is done; once all shares are, run the same command without --shard to write" in done.err
        else:
            assert "shard 2/2 is done; all others are too: run the same command without --shard to write" in done.err
    assert points("out") == points(whole)
    stamps = {path: path.stat().st_mtime_ns for path in Path("out/points").glob("*/*.json")}
    assert tlcli(COMMAND, "-o out").code == 0
    assert same("out", whole)
    assert stamps == {path: path.stat().st_mtime_ns for path in Path("out/points").glob("*/*.json")}, "nothing again"


def test_a_share_of_a_finished_job_says_that_the_table_is_there(tlcli):
    """Of a single point one of two shares is empty, before the job is finished and after it."""
    one = "finetune-loss --alpha2 0.4 --gamma0 1 --simulate --trials 2 --dim 20"
    assert all(tlcli(one, "-o out --shard", shard).code == 0 for shard in ("1/2", "2/2"))
    assert Path("out/table.csv").exists(), "the share that has the point writes the table"
    told = [
        text for text in (tlcli(one, "-o out --shard", shard).err for shard in ("1/2", "2/2")) if " is done" in text
    ]
    assert len(told) == 1
    assert told[0].endswith(" is done; all others are too, and the table is there: out/table.csv.\n")
    fewer = tlcli(one.replace("--alpha2 0.4", "--alpha2 0.3,0.4"), "-o out --shard 1/2")
    assert "the table is there" not in fewer.err


def test_a_larger_grid_reuses_the_points(tlcli, whole):
    assert tlcli(COMMAND.replace("1,2,3,4", "1,2"), "-o out").code == 0
    assert len(points("out")) == 6
    assert tlcli(COMMAND, "-o out").code == 0
    assert same("out", whole)


def test_a_damaged_point_is_told_and_computed_again(tlcli, whole):
    shutil.copytree(whole, "out")
    path = next(Path("out/points").glob("*/*.json"))
    path.write_text(path.read_text()[:-20])
    done = tlcli(COMMAND, "-o out")
    assert done.code == 0
    assert done.err.startswith("warning: the stored point '")
    assert same("out", whole)


def test_a_point_that_lacks_a_value_and_its_error_is_told_and_computed_again(tlcli, whole):
    shutil.copytree(whole, "out")
    store = PointStore("out", "experiments", json.loads(Path("out/store.json").read_text())["solver_version"])
    key = next(store.keys())
    record = store.get(key)
    store.put(key, {name: value for name, value in record.items() if name not in ("loss", "loss_se")})
    done = tlcli(COMMAND, "-o out")
    assert (done.code, done.err.count("is damaged; it is computed again")) == (0, 1)
    assert same("out", whole)


def test_another_seed_is_other_points(tlcli, whole):
    assert tlcli(COMMAND.replace("--seed 3", "--seed 4"), "-o out").code == 0
    assert not set(points("out")) & set(points(whole))


def test_an_incompatible_store_is_exit_5_and_stays_as_it_is(tlcli):
    Path("out").mkdir()
    meta = '{"format": 1, "solver": "experiments", "solver_version": "0", "tlcli": "0.0.1"}'
    Path("out/store.json").write_text(meta)
    short = COMMAND.replace("--dim 150 --trials 10", "--dim 20 --trials 2")
    for extra in ("", "--dry-run", "--jobs 2"):
        done = tlcli(short, "-o out", extra)
        assert (done.code, done.out) == (5, "")
        assert done.err.count("\n") == 1
        assert "use --force to discard it or another -o" in done.err
        assert "version 0" in done.err
    assert os.listdir("out") == ["store.json"]
    assert Path("out/store.json").read_text() == meta
    assert tlcli(short, "-o other --store out").code == 5
    assert tlcli(short, "-o out --force").code == 0


def test_force_computes_again(tlcli):
    short = COMMAND.replace("--dim 150 --trials 10", "--dim 20 --trials 2")
    assert tlcli(short, "-o out").code == 0
    before = {path: path.stat().st_mtime_ns for path in Path("out/points").glob("*/*.json")}
    table = Path("out/table.csv").read_bytes()
    assert tlcli(short, "-o out --force").code == 0
    after = {path: path.stat().st_mtime_ns for path in Path("out/points").glob("*/*.json")}
    assert before.keys() == after.keys()
    assert all(after[path] > before[path] for path in before)
    assert Path("out/table.csv").read_bytes() == table


def test_a_store_of_its_own_serves_several_results(tlcli, whole):
    assert tlcli(COMMAND, "-o one --store shared").code == 0
    assert not Path("one/points").exists()
    assert points("shared") == points(whole)
    assert tlcli(COMMAND, "-o two --store shared").code == 0
    assert Path("two/table.csv").read_bytes() == (whole / "table.csv").read_bytes()


def test_a_changed_file_is_another_point(tlcli):
    import numpy as np

    from tlcli.theories.linear.structured import spectrum_of

    command = (
        "finetune-loss --solver linear-structured --spectrum file:mine.npz --p1 5 --p2 4 --simulate --trials 2 --quiet"
    )
    for scale in (1.0, 2.0):
        spectrum_of.cache_clear()  # a new process each time
        np.savez("mine.npz", eigenvalues=np.arange(1.0, 9) * scale, teacher1=np.ones(8), teacher2=np.arange(8.0))
        assert tlcli(command, "-o out").code == 0
    assert len(points("out")) == 2


def test_interrupted_in_the_middle_is_130_and_keeps_what_is_done(tlcli, whole, monkeypatch):
    from tlcli.simulate import regression

    right, calls = regression.simulate_regression, []

    def interrupted(parameters, **rest):
        calls.append(parameters)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return right(parameters, **rest)

    monkeypatch.setattr(regression, "simulate_regression", interrupted)
    done = tlcli(COMMAND, "-o out")
    assert done.code == 130
    assert done.err == "error: interrupted; finished points are stored, the same command continues.\n"
    assert len(points("out")) == 4
    assert not Path("out/table.csv").exists()
    monkeypatch.setattr(regression, "simulate_regression", right)
    assert tlcli(COMMAND, "-o out").code == 0
    assert same("out", whole)
