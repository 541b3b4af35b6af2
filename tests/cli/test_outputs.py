"""Output folders: what is the user's stays, what is of one run stays together, and mistakes leave nothing behind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tlcli as library
from tlcli.errors import UsageError
from tlcli.report import folder as folders
from tlcli.report.folder import OutputFolder
from tlcli.sweep import executors

LOSS = "finetune-loss --rho 0:1:3 --quiet"
SIMULATED = "finetune-loss --alpha1 0.5 --gamma0 1,2 --simulate --dim 20 --trials 2 --quiet"
NETWORK = "--source linear --target linear --dim 4 --p1 6 --p2 4 --ptest 5 --t1 0.1 --t2 0.1 --neurons 32 --repeats 2"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(folders, "_PATIENCE", ())
    monkeypatch.setattr(executors, "DASK_TIMEOUT", 0.5)


def content(folder):
    return {str(p): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def test_files_of_the_user_beside_results(tlcli):
    Path("m").mkdir()
    mine = (
        "kernel_measured.npz",
        "predictions_lab.csv",
        "layers.csv",
        "figure-loss.pdf",
        "boundary.csv",
        "two-time.npz",
    )
    for name in mine:
        Path("m", name).write_text("mine")
    for arguments in (LOSS, LOSS.replace("0:1:3", "0:1:4"), "finetune-loss --quiet"):
        assert tlcli(arguments, "--force -o m").code == (2 if "0:1" in arguments else 0), (
            "a curve over rho has a boundary"
        )
    Path("m/boundary.csv").unlink()
    assert tlcli(LOSS, "--force -o m").code == 0
    assert all(Path("m", name).read_text() == "mine" for name in mine if name != "boundary.csv")


def test_names_that_a_run_does_not_need_may_be_taken(tlcli):
    Path("figure.png").mkdir()
    Path("figure-1.png").write_text("mine")
    assert tlcli("finetune-loss --quiet -o .").code == 0, "one point has no figure"
    assert sorted(os.listdir(".")) == ["figure-1.png", "figure.png", "provenance.json", "table.csv"]
    assert tlcli("finetune-loss --rho 0:1:3 --quiet --force -o .").code == 2


def test_data_in_the_output_folder_survive(tlcli):
    np.savez("two-time.npz", eigenvalues=np.arange(1.0, 9), teacher1=np.ones(8), teacher2=np.arange(8.0))
    data = Path("two-time.npz").read_bytes()
    command = "finetune-loss --solver linear-structured --spectrum file:two-time.npz --p1 5 --p2 3,4 --quiet -o ."
    assert tlcli(command).code == 0
    assert tlcli(command).code == 0
    assert Path("two-time.npz").read_bytes() == data
    done = tlcli("finetune-loss --solver linear-two-time --alpha2 0.5,2 --times 0:1:3 --steps 10 --force -o .")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "'two-time.npz' was not written by an earlier run, or was changed since, and the results would" in done.err
    assert Path("two-time.npz").read_bytes() == data


@pytest.mark.parametrize("name", ["table.csv", "provenance.json", "figure.png"])
@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.write_text("mine"), lambda path: path.symlink_to("x")])
def test_a_taken_name_is_refused_before_the_work(tlcli, monkeypatch, name, make):
    Path("out").mkdir()
    make(Path("out", name))
    monkeypatch.setattr("tlcli.simulate.regression.simulate_regression", None)  # no work: it could not be called
    for extra in ("", *(["--dry-run"] if name != "figure.png" else [])):
        done = tlcli(SIMULATED, "-o out", extra)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert f"'out/{name}' " in done.err
        assert "move it away or give another -o." in done.err
        assert os.listdir("out") == [name]


COMMANDS = [
    LOSS,
    "finetune-loss --rho 0:1:3 --quantity loss,gain --format svg --quiet",
    "phase-diagram --x alpha2=0.1:0.9:4 --y rho=0:1:4 --weight-decay 0.3 --quiet",
    "pretrain-kernel --alpha1 0.5,2 --quiet",
    "finetune-loss --solver linear-two-time --alpha2 0.5,2 --times 0:1:3 --steps 10 --quiet",
    f"dmft-solve {NETWORK} --gamma2 0.5,1 --predictions --quiet",
    f"dmft-solve {NETWORK} --depth 2 --times 0.02,0.05,0.1 --quiet",
    f"pretrain-kernel --model network {NETWORK.replace('--t2 0.1', '')} --quiet",
    f"finetune-loss --model network {NETWORK.replace('--t2 0.1', '')} --gamma0 0.5,1 --quiet",
    "bayes-saddle --source linear --target linear --dim 4 --p1 6 --p2 4 --delta 0,1,inf --predictions --quiet",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_names_of_all_files_are_known_before_the_work(tlcli, monkeypatch, command):
    asked = []
    monkeypatch.setattr(OutputFolder, "refuse_taken", lambda self, may_write: asked.append(may_write))
    assert tlcli(command, "-o out").code in (0, 3)
    written = [path.name for path in Path("out").iterdir() if path.is_file() and path.name != "store.json"]
    assert len(written) >= 3
    assert [name for name in written if not asked[-1](name)] == []
    others = ("figure-mine.png", "figure.gif", "kernel_measured.npz", "predictions_lab.csv", "table.csv.bak", "notes")
    assert [name for name in others if asked[-1](name)] == []
    content = json.loads(Path("out/provenance.json").read_text())
    assert sorted(content["files"]) == sorted(set(written) - {"provenance.json"})


_NAMES = st.one_of(
    st.sampled_from(
        [
            *("table.csv", "provenance.json", "boundary.csv", "figure.png", "figure-1.png", "figure-gain.png"),
            *("kernel.npz", "kernels.npz", "predictions.csv", "layers-1-a.csv", ".table-abcdefgh.csv", "store.json"),
        ]
    ),
    st.from_regex(
        r"(figure|kernel|two-time|predictions|layers|table)[-_]?[a-z]{0,3}\.(png|npz|csv|svg)", fullmatch=True
    ),
)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    st.dictionaries(_NAMES, st.binary(max_size=9), min_size=1, max_size=9),
    st.lists(st.sampled_from([0, 1, 2, 3]), min_size=1, max_size=2),
)
def test_any_files_of_the_user_survive_any_run(anywhere, files, runs):
    with TemporaryDirectory() as folder:
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        for number in runs:
            done = anywhere(COMMANDS[number], "-o", folder)
            assert done.code == 0 or (done.code == 2 and any(name in done.err for name in files))
            assert {name: Path(folder, name).read_bytes() for name in files} == files


# --force


@pytest.mark.parametrize(
    "mistake",
    [
        *("--quantity los", "--shard 5/3", "--executor dask:tcp://127.0.0.1:9", "--executor nonsense", "--jobs 0"),
        *("--x foo", "--title '$\\alhpa$'", "--gamma0 -1", "--trials 1", "--experiment nonsense"),
    ],
)
def test_force_discards_nothing_before_the_command_is_valid(tlcli, mistake):
    if "dask" in mistake:
        pytest.importorskip("distributed", reason="dask.distributed is not installed")
    assert tlcli(SIMULATED, "-o out").code == 0
    before = content("out")
    assert tlcli(SIMULATED, "-o out --force", mistake).code == 2
    assert content("out") == before


def test_the_old_store_stays_until_the_new_result_stands(tlcli, monkeypatch):
    from tlcli.simulate import regression

    right, calls = regression.simulate_regression, []
    assert tlcli(SIMULATED.replace("1,2", "1,2,3"), "-o out").code == 0
    before = {path: data for path, data in content("out").items() if "points" in path}

    def interrupted(parameters, **rest):
        calls.append(parameters)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return right(parameters, **rest)

    monkeypatch.setattr(regression, "simulate_regression", interrupted)
    assert tlcli(SIMULATED, "-o out --force").code == 130
    assert {path: data for path, data in content("out").items() if "points" in path} == before
    assert len(calls) == 2, "nothing stored was used"
    assert tlcli("check out --finite-size 99").code == 0, "the old result is whole"
    monkeypatch.setattr(regression, "simulate_regression", right)
    assert tlcli(SIMULATED, "-o out --force").code == 0
    after = {path: data for path, data in content("out").items() if "points" in path}
    assert len(after) == 2
    assert after.items() < before.items(), "equal bytes, and the third point is gone"


# No folder is left behind


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (f"{SIMULATED} --executor dask:tcp://127.0.0.1:9", 2),
        (f"{SIMULATED} --executor mpi", 2),
        (f"{LOSS} --quantity los", 2),
        ("finetune-loss --alpha2 1 --sigma2 0.3", 2),
        (f"{LOSS} --shard 1/2", 2),
    ],
)
def test_a_mistake_leaves_no_folder(tlcli, monkeypatch, arguments, code):
    if "dask" in arguments:
        pytest.importorskip("distributed", reason="dask.distributed is not installed")
    monkeypatch.setitem(sys.modules, "mpi4py", None)  # as if it were not installed
    done = tlcli(arguments, "-o a/b")
    assert (done.code, done.err.count("\n")) == (code, 1)
    assert os.listdir(".") == []


def test_an_executor_is_not_needed_for_what_is_stored(tlcli):
    assert tlcli(SIMULATED, "-o out").code == 0
    assert tlcli(SIMULATED, "-o out --executor dask:tcp://127.0.0.1:9").code == 0


# One run, one identity


def test_equal_runs_have_one_identity_and_others_another(tlcli):
    for name, arguments in (("one", LOSS), ("two", LOSS), ("three", f"{LOSS} --seed 1")):
        assert tlcli(arguments, "-o", name).code == 0
    one, two, three = (json.loads(Path(n, "provenance.json").read_text()) for n in ("one", "two", "three"))
    assert {**one, "wall_time_seconds": 0} == {**two, "wall_time_seconds": 0}
    assert one["run"] != three["run"]


def test_check_tells_what_was_changed_or_is_of_another_run(tlcli):
    for name, arguments in (("one", COMMANDS[2]), ("two", COMMANDS[2].replace("0.9:4", "0.8:4"))):
        assert tlcli(arguments, "-o", name).code == 0
        assert tlcli("check", name).code == 0
    for name in ("figure.png", "table.csv", "boundary.csv"):
        right = Path("one", name).read_bytes()
        Path("one", name).write_bytes(Path("two", name).read_bytes())
        done = tlcli("check one")
        assert done.code == 4
        assert f"  ANOTHER RUN: {name} was changed after it was written, or belongs to another run than" in done.out
        assert done.out.count("ANOTHER RUN") == 1
        Path("one", name).write_bytes(right)
    Path("one/figure.png").unlink()
    assert tlcli("check one/table.csv").code == 0, "a result need not be complete to be right"
    Path("one/mine.csv").write_bytes(Path("one/table.csv").read_bytes())
    assert "mine.csv is not among the files of the run" in tlcli("check one/mine.csv").out


KILLED = """
import os, signal, sys
from pathlib import Path
from tlcli.cli.app import main
replace, left = os.replace, int(sys.argv.pop())

def dying(source, target):
    global left
    if Path(target).parent == Path("out"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = dying
main()
"""


@pytest.mark.parametrize("files", [0, 2])
def test_a_kill_between_the_files_of_a_run(tlcli, files):
    assert tlcli(LOSS, "-o out").code == 0
    other = f"{LOSS} --gamma0 3"
    died = subprocess.run(
        [sys.executable, "-c", KILLED, *other.split(), "--force", "-o", "out", str(files)], timeout=60
    )
    assert died.returncode < 0
    assert any(name.startswith(".tlcli-") for name in os.listdir("out"))
    done = tlcli("check out")
    assert done.code == 4
    assert "a run was killed while its files took their places; give its command again" in done.out
    assert done.out.count("belongs to another run") == files
    assert tlcli(other, "-o out").code == 0
    assert tlcli(other, "-o whole").code == 0
    assert sorted(os.listdir("out")) == sorted(os.listdir("whole"))
    assert Path("out/table.csv").read_bytes() == Path("whole/table.csv").read_bytes()
    assert tlcli("check out").code == 0


def test_the_home_folder_is_meant_by_a_tilde(tlcli, tmp_path, monkeypatch):
    """In every path, quoted for the shell or in Python; a user that there is not is refused, and nothing is made."""
    home, here = tmp_path / "home", tmp_path / "here"
    here.mkdir()
    matplotlib.get_cachedir()  # is kept: fonts are not looked for anew
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    assert tlcli(f"{LOSS} -o ~/a").code == 0
    for command in ("check ~/a", "plot ~/a -o ~/plots", "run ~/a/provenance.json --quiet -o ~/again"):
        assert tlcli(command).code == 0, command
    assert tlcli(f"{SIMULATED} -o - --store ~/store").code == 0
    result = library.load("~/a")
    assert result.save("~/b") == home / "b"
    assert library.check("~/b")
    assert sorted(path.name for path in home.iterdir()) == ["a", "again", "b", "plots", "store"]
    other = "~no-such-user/x"
    for command in (f"{LOSS} -o {other}", f"{SIMULATED} -o - --store {other}", f"check {other}", f"run {other}.yaml"):
        found = tlcli(command)
        assert found.code == 2
        assert "there is no home folder of ~no-such-user; write './~no-such-user/x" in found.err
    file = f"file:{other}.npz"
    assert "no home folder" in tlcli(f"dmft-solve --source {file} --target {file} -o -").err
    with pytest.raises(UsageError, match="no home folder of ~no-such-user"):
        result.save(other)
    assert list(here.iterdir()) == []
