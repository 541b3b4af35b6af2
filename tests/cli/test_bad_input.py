"""Bad input: one sentence that shows the bad value, the documented exit code, no half-written file."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

CASES = [
    # Out of the range where the theory holds
    ("finetune-loss --alpha1 0", "alpha1 = 0 is not allowed; it must be > 0, or inf."),
    ("finetune-loss --alpha2 -0.5", "alpha2 = -0.5 is not allowed"),
    ("pretrain-kernel --alpha1 0.5,-1", "alpha1 = -1 is not allowed"),
    ("phase-diagram --x alpha2=0:1:5", "alpha2 = 0 is not allowed"),
    ("finetune-loss --rho 1.2", "rho = 1.2 is not allowed; it must be >= -1 and <= 1."),
    ("finetune-loss --rho 0.9 --rho-xi 0.9", "rho = 0.9 and rho_xi = 0.9 give |v| = 1.27279"),
    ("finetune-loss --rho 0.1,0.8 --rho-xi -0.7", "rho = 0.8 and rho_xi = -0.7 give |v| = 1.06301"),
    ("finetune-loss --solver linear-ansatz --c-signal 0 --rho 0.9 --rho-xi 0.9", "|v| = 1.27279"),
    ("finetune-loss --gamma0 -1", "gamma0 = -1 is not allowed"),
    ("finetune-loss --sigma1 -0.1", "sigma1 = -0.1 is not allowed"),
    ("finetune-loss --ridge inf", "ridge = inf is not allowed; it must be >= 0 and <= 1e+12 and finite."),
    ("finetune-loss --init-scale -1", "init_scale = -1 is not allowed"),
    ("finetune-loss --t1 -1", "t1 = -1 is not allowed"),
    ("finetune-loss --solver linear-joint --gamma2 0", "gamma2 = 0 is not allowed"),
    ("pretrain-kernel --alpha1 1 --sigma1 0.3", "alpha1 = 1 with sigma1 = 0.3 is the interpolation threshold"),
    ("finetune-loss --alpha2 1 --sigma2 0.3", "alpha2 = 1 with sigma2 = 0.3 is the interpolation threshold"),
    # Ansätze that are no kernel
    (
        "finetune-loss --solver linear-ansatz --c-signal 0 --c-cross 2",
        "needs (k + c_signal)(k + c_noise) >= c_cross^2, but k = 1, c_signal = 0, c_noise = 0, c_cross = 2",
    ),
    ("finetune-loss --solver linear-ansatz --c-signal -3", "c_signal = -3"),
    ("finetune-loss --solver linear-ansatz --c-signal 0 --c-noise=-2*gamma0", "c_noise = -2"),
    ("finetune-loss --solver linear-ansatz", "linear-ansatz needs --c-signal, a number or an expression"),
    ("finetune-loss --solver linear-ansatz --c-signal alpha1*beta", "expression 'alpha1*beta': 'beta' is not known"),
    ("finetune-loss --solver linear-ansatz --c-signal '__import__(1)'", "'__import__' is not a known function"),
    ("finetune-loss --solver linear-ansatz --c-signal '1+'", "'1+'"),
    # Grids
    ("finetune-loss --alpha1 1:2", "alpha1: '1:2' is not a grid; use a number, a list 0.1,0.5,inf"),
    ("finetune-loss --alpha1 log:0:2:5", "alpha1: 'log:0:2:5' needs both ends above 0"),
    ("finetune-loss --alpha1 0.1:2:0", "alpha1: the count in '0.1:2:0' must be a whole number from 1"),
    ("finetune-loss --alpha1 0.1:2:2.5", "alpha1: the count in '0.1:2:2.5'"),
    ("finetune-loss --alpha1 1,1", "alpha1: '1,1' holds 1 twice"),
    ("finetune-loss --alpha1 ''", "alpha1: '' is not a grid"),
    ("finetune-loss --alpha1 abc", "alpha1: 'abc' is not a grid"),
    ("finetune-loss --alpha2 nan", "alpha2: 'nan' is not a number"),
    ("finetune-loss --times 0:inf:3", "times: '0:inf:3' needs finite ends"),
    ("phase-diagram --x alpha2=", "alpha2: '' is not a grid"),
    ("finetune-loss --alpha2 0.1:1:10000000 --rho 0:1:100", "10000000 x 100 = 1000000000 points"),
    ("finetune-loss --gamma0 0.5 1", "'1' stands by itself; write several values of one option with commas"),
    ("finetune-loss --gamma0 0.5, 1e-3", "'1e-3' stands by itself"),
    ("finetune-loss --gamma0 0.5 1 2", "'2' stands by itself; write several values of one option with commas"),
    # Options
    ("finetune-loss --alfa1 3", "No such option: --alfa1"),
    ("pretrain-kernel --alpha3 3", "No such option: --alpha3"),
    ("finetune-loss --kernel nkt", "kernel: 'nkt' is unknown; use one of feature, ntk (did you mean 'ntk'?)."),
    ("finetune-loss --solver linear-exakt", "solver: 'linear-exakt' is unknown"),
    ("finetune-loss --gamma2 2", "linear-exact does not use 'gamma2'; finetune-loss with it takes alpha1"),
    ("finetune-loss --times 1,2 --t2 3", "times and t2 are both given"),
    ("finetune-loss --x foo", "--x: 'foo' is no parameter"),
    ("finetune-loss --alpha2 0.1,0.2 --x rho", "--x: 'rho' has one value only"),
    ("finetune-loss --alpha2 0.1,0.2 --quantity los", "quantity: 'los' is no column to draw (did you mean 'loss'?)"),
    ("finetune-loss --alpha2 0.1,0.2 --style map", "a map needs two axes of several values"),
    ("finetune-loss --format gif", "format: 'gif' is unknown; use one of png, pdf, svg, html, or several as png,pdf."),
    ("finetune-loss --jobs 0", "jobs = 0 is not allowed"),
    ("finetune-loss --jobs x", "jobs: 'x' is not a number."),
    ("finetune-loss --seed -1", "seed = -1 is not allowed"),
    ("finetune-loss --output", "Option '--output' requires an argument"),
    ("nonsense", "No such command 'nonsense'"),
    # Solvers
    ("finetune-loss --solver linear-two-time", "linear-two-time needs finite times"),
    ("finetune-loss --solver linear-two-time --times 1,2 --steps 1", "steps = 1 is not allowed"),
    ("finetune-loss --solver linear-two-time --times 1,2 --steps 1", "steps = 1 is not allowed"),
    ("finetune-loss --sigma2 1e200", "sigma2 = 1e+200 is not allowed"),
    ("finetune-loss --solver linear-structured --p2 inf --simulate", "needs a finite p2"),
    ("finetune-loss --simulate --gamma0 inf --t1 3", "no gamma0 = inf at finite times"),
    ("finetune-loss --simulate --experiment network --width 33", "must be even"),
    ("finetune-loss --simulate --alpha2 0.001 --dim 40", "no sample at D = 40"),
    ("finetune-loss --solver linear-structured --p1 2.5", "p1 = 2.5 is not allowed; it must be a whole number"),
    ("finetune-loss --solver linear-structured --spectrum foo", "spectrum: 'foo' is unknown; use power, digits"),
    ("finetune-loss --solver linear-structured --spectrum digits", "spectrum digits needs --source and --target"),
    (
        "finetune-loss --solver linear-structured --spectrum digits --source digits:01v1 --target digits:0v1",
        "'digits:01v1': digit 1 stands on both sides",
    ),
    ("finetune-loss --solver linear-structured --spectrum file:nope.npz", "nope.npz"),
    ("finetune-loss --solver linear-structured --spectrum file:text.txt", "text.txt"),
    # Experiments
    ("finetune-loss --experiment regression", "--experiment has an effect with --simulate only; add it."),
    ("finetune-loss --simulate --experiment regresion", "experiment: 'regresion' is not available for linear-exact"),
    ("finetune-loss --simulate --experiment network --kernel ntk", "freezes the feature kernel"),
    ("finetune-loss --simulate --experiment population --rho 0.1 --rho-xi 0.1", "has rho_xi = 0"),
    ("finetune-loss --simulate --experiment network --gamma0 0", "has no gamma0 = 0"),
    ("finetune-loss --simulate --trials 1", "trials = 1 is not allowed"),
    ("finetune-loss --simulate --dim 0", "dim = 0 is not allowed"),
    ("finetune-loss --simulate --width 1.5", "width = 1.5 is not allowed"),
    ("finetune-loss --simulate --shard 3/2", "shard: '3/2' is not a shard; use i/n"),
    ("finetune-loss --shard 1/2", "--shard divides experiments; it needs --simulate."),
    ("finetune-loss --simulate --executor foo", "executor: 'foo' is unknown; use local, dask:ADDRESS"),
    ("finetune-loss --simulate --store text.txt", "the store 'text.txt' is a file"),
    # Recipes
    ("finetune-loss none.yaml", "recipe 'none.yaml' cannot be read: No such file or directory."),
    ("finetune-loss --recipe none.yaml", "recipe 'none.yaml' cannot be read"),
    ("finetune-loss text.txt", "recipe 'text.txt' must be a mapping of keys to values."),
    ("finetune-loss unknown.yaml", "recipe 'unknown.yaml': unknown key 'gamma_0' (did you mean 'gamma0'?)."),
    ("phase-diagram twice.yaml", "recipe 'twice.yaml': the key 'rho' stands twice; give it once."),
    ("phase-diagram broken.yaml", "recipe 'broken.yaml' is not YAML at line 2"),
    ("finetune-loss other.yaml", "recipe 'other' is for phase-diagram, not finetune-loss"),
    ("run none.yaml", "recipe 'none.yaml' cannot be read"),
    ("run bare.yaml", "recipe 'bare.yaml' names no command; add one of pretrain-kernel"),
    ("run", "Missing argument"),
    ("run other.yaml bare.yaml -o -", "-o - takes one recipe"),
    # Tables
    ("check none.csv", "table 'none.csv' cannot be read: No such file or directory."),
    ("check .", "table 'table.csv' cannot be read"),
    ("check empty.csv", "table 'empty.csv' is empty"),
    ("check", "Missing argument"),
]


@pytest.fixture
def files(tmp_path):
    texts = {
        "text.txt": "just words\n",
        "unknown.yaml": "gamma_0: 3\n",
        "twice.yaml": "rho: 0.1\nrho: 0.2\n",
        "broken.yaml": "rho: 0.1\n alpha1: [1\n",
        "other.yaml": "command: phase-diagram\nrho: 0.1\n",
        "bare.yaml": "rho: 0.1\n",
        "empty.csv": "",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return sorted(texts)


@pytest.mark.parametrize(("arguments", "message"), CASES, ids=[a for a, _ in CASES])
def test_one_sentence_exit_2_and_nothing_written(tlcli, files, arguments, message):
    takes_output = "-o" not in arguments.split() and "--output" not in arguments and not arguments.startswith("check")
    done = tlcli(arguments, *(["-o", "out"] if takes_output and arguments != "nonsense" else []))
    assert done.code == 2
    assert done.out == ""
    assert message in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1, "one line"
    assert done.err.endswith("\n")
    left = sorted(os.listdir("."))
    assert left == files


@pytest.mark.parametrize("output", ["text.txt", "text.txt/below", "/proc/nowhere"])
def test_places_that_cannot_be_written(tlcli, files, output):
    done = tlcli("finetune-loss --rho 0:1:3 -o", output)
    assert done.code == (6 if output.startswith("/proc") else 2)
    assert done.err.startswith(f"error: output '{output}' ")
    assert done.err.count("\n") == 1
    assert sorted(os.listdir(".")) == files
    assert Path("text.txt").read_text() == "just words\n"


def test_a_bad_run_leaves_the_results_of_a_good_one(tlcli):
    assert tlcli("phase-diagram --x alpha2=0.1:0.9:4 --y rho=0:1:4 --weight-decay 0.3 -o out").code == 0
    before = {name: Path("out", name).read_bytes() for name in os.listdir("out")}
    for bad in ("--rho 2", "--quantity nothing", "--solver linear-ansatz --c-signal 0 --c-cross 2", "--x foo"):
        assert tlcli("phase-diagram --alpha2 0.1,0.2", bad, "-o out").code == 2
    assert {name: Path("out", name).read_bytes() for name in os.listdir("out")} == before


@pytest.mark.parametrize("broken", ["tlcli.report.writer.Figure.savefig", "tlcli.report.tables.write_csv"])
def test_a_full_disk_leaves_the_old_file(tlcli, monkeypatch, broken):
    assert tlcli("finetune-loss --rho 0:1:3 -o out").code == 0
    before = {name: Path("out", name).read_bytes() for name in os.listdir("out")}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    module, _, name = broken.rpartition(".")
    if module.endswith("Figure"):
        from matplotlib.figure import Figure

        monkeypatch.setattr(Figure, name, full)
    else:
        monkeypatch.setattr(broken, full)
    done = tlcli("finetune-loss --rho 0:1:3 -o out")
    assert done.code == 6
    assert "cannot be written: No space left on device; make room or give another -o." in done.err
    after = {name: Path("out", name).read_bytes() for name in os.listdir("out")}
    if module.endswith("Figure"):
        assert done.err.endswith("The files table.csv and provenance.json are written and whole.\n")
        assert after["table.csv"] == before["table.csv"]
        assert sorted(after) == ["provenance.json", "table.csv"], "no temporary file, and no figure of an older table"
    else:
        assert after == before, "no temporary file is left, and the old ones are whole"


def test_an_npz_that_lacks_an_array(tlcli):
    np.savez("half.npz", eigenvalues=np.ones(3), teacher1=np.ones(3))
    done = tlcli("finetune-loss --solver linear-structured --spectrum file:half.npz -o out")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "half.npz lacks the array 'teacher2'" in done.err


# Exit codes that are no mistake of the user


@pytest.fixture
def broken(monkeypatch):
    """Let the next command end with an exception."""

    def by(error):
        def fail(*_):
            raise error

        monkeypatch.setattr("tlcli.run.execute.execute", fail)

    return by


def test_an_unexpected_error_is_exit_1_in_one_line(tlcli, broken, monkeypatch):
    broken(ZeroDivisionError("something odd"))
    done = tlcli("finetune-loss -o -")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(
        "error: unexpected ZeroDivisionError: something odd (set TLCLI_DEBUG=1 for the traceback"
    )
    assert done.err.count("\n") == 1
    monkeypatch.setenv("TLCLI_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        tlcli("finetune-loss -o -")


def test_ctrl_c_is_130(tlcli, broken):
    broken(KeyboardInterrupt())
    done = tlcli("finetune-loss -o -")
    assert (done.code, done.out) == (130, "")
    assert done.err == "error: interrupted; finished points are stored, the same command continues.\n"


def test_too_little_memory_is_exit_1(tlcli, broken):
    broken(MemoryError())
    done = tlcli("finetune-loss -o -")
    assert done.code == 1
    assert done.err == "error: not enough memory; use a smaller grid or --dim.\n"


def test_the_process_returns_the_code(tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "tlcli", "finetune-loss", "--alpha1", "0"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr == "error: alpha1 = 0 is not allowed; it must be > 0, or inf.\n"
    assert os.listdir(tmp_path) == []


def test_a_spectrum_with_its_own_dimension_takes_no_dim(tlcli, tmp_path):
    np.savez(tmp_path / "s.npz", eigenvalues=[1.0, 0.5], teacher1=[1.0, 0.0], teacher2=[0.5, 0.5])
    done = tlcli("finetune-loss --solver linear-structured --spectrum file:s.npz --p1 1 --p2 1 --dim 30 -o -")
    assert done.code == 2
    assert "dim = 30 has no effect: spectrum file:s.npz has a dimension of its own" in done.err
