"""Streams as shells leave them, and Ctrl-C at any time: one sentence, the documented exit code, whole tables."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = f"{sys.executable} -m tlcli"
SWEEP = "finetune-loss --simulate --dim 20 --trials 2 --rho 0.1,0.2,0.3 -o -"


def shell(command, **environment):
    """Run a line of bash in which `tlcli` stands for the program; return code, output and messages."""
    line = command.replace("tlcli", PROGRAM, 1)
    found = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}, check=False
    )
    return found.returncode, found.stdout, found.stderr


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("tlcli finetune-loss -o - > /dev/full", "No space left on device"),
        ("tlcli --help > /dev/full", "No space left on device"),
        ("tlcli finetune-loss -o - >&-", "Bad file descriptor"),
    ],
)
def test_output_that_is_lost_is_an_error(command, reason):
    code, _, said = shell(command)
    assert code == 6
    assert said.startswith(f"error: standard output cannot be written: {reason}")
    assert said.count("\n") == 1


def test_a_reader_that_has_seen_enough_is_none():
    code, out, said = shell("tlcli finetune-loss --alpha2 0.1:2:100000 --quiet -o - | head -1; exit ${PIPESTATUS[0]}")
    assert (code, said) == (0, "")
    assert out.startswith("alpha1,")
    assert shell("tlcli --help | head -1; exit ${PIPESTATUS[0]}")[::2] == (0, "")


def test_messages_that_nobody_can_read_end_no_work():
    code, expected, _ = shell(f"tlcli {SWEEP}")
    assert code == 0
    assert expected.count("\n") == 4
    for ending in ("2> /dev/full", "--jobs 2 <&- 2>&-"):
        code, out, _ = shell(f"tlcli {SWEEP} {ending}")
        assert (code, out) == (0, expected), f"with {ending}"
    assert shell("tlcli finetune-loss --rho 2 2> /dev/full")[0] == 2


@pytest.mark.parametrize("environment", [{"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}])
def test_help_where_letters_are_ascii(environment):
    code, out, said = shell("tlcli --help", **environment)
    assert (code, said) == (0, "")
    assert out.isascii()
    assert "0 ok | 1 unexpected" in out
    assert "+- Options ---" in out


def test_tables_are_utf_8_everywhere(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("cases: [{label: ρ und ß, rho: 0.5}]\n", encoding="utf-8")
    found = subprocess.run(
        [*PROGRAM.split(), "finetune-loss", str(recipe), "-o", "-"],
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "ρ und ß," in found.stdout.decode("utf-8")


# Ctrl-C. Before the program's own first line the interpreter itself is interrupted, which nothing can change.


def interrupted(folder, after, times):
    """Send Ctrl-C to the program and its workers, as a terminal does; return exit code, messages and seconds left."""
    command = [*PROGRAM.split(), "finetune-loss", "--simulate", "--dim", "400", "--trials", "500", "--rho", "0.1:0.9:9"]
    process = subprocess.Popen(
        [*command, "--jobs", "2", "-o", "out"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=folder,
        # A runner in the background ignores Ctrl-C, and hands that on to its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    if after is None:  # workers are starting
        assert process.stderr is not None
        process.stderr.readline()
    else:
        time.sleep(after)
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.03)
        if process.poll() is not None:
            break
    start = time.monotonic()
    said = process.communicate(timeout=60)[1]
    return process.returncode, said, time.monotonic() - start


@pytest.mark.parametrize(("after", "times"), [(0.4, 1), (0.6, 12), (None, 1), (None, 12)])
def test_ctrl_c_early_and_often(tmp_path, after, times):
    code, said, left = interrupted(tmp_path, after, times)
    assert code == 130
    assert "error: interrupted" in said
    assert "Traceback" not in said
    assert "Exception" not in said
    assert left < 10
    assert not Path(tmp_path, "out", "table.csv").exists()


def test_an_error_that_a_library_made_of_ctrl_c(tlcli, monkeypatch):
    def fail(*_):
        raise ImportError("half of a library")

    monkeypatch.setattr("tlcli.run.execute.execute", fail)
    assert tlcli("finetune-loss -o -").code == 1
    monkeypatch.setattr("tlcli.cli.interrupts._seen", True)
    done = tlcli("finetune-loss -o -")
    assert (done.code, done.err[:18]) == (130, "error: interrupted")


def test_a_library_that_calls_exit(tlcli, monkeypatch):
    def fail(*_):
        raise SystemExit(7)

    monkeypatch.setattr("tlcli.run.execute.execute", fail)
    done = tlcli("finetune-loss -o -")
    assert done.code == 1
    assert done.err.startswith("error: code that the command loaded called sys.exit(7)")
