"""Code of the user that ends a process does not end the program without a word."""

import sys
import time
from pathlib import Path

import pytest

from tlcli.dmft.own_code import try_out
from tlcli.errors import UsageError

NETWORK = "dmft-solve --source linear --target linear --dim 4 --p1 4 --p2 3 --ptest 5 --t1 1 --t2 1 --neurons 16 -o out"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "import sys\nsys.exit(0)\n",
            "'ends0:phi' calls sys.exit(0) (exit code 0); a module must only define functions.",
        ),
        ("raise SystemExit\n", "'ends1:phi' calls sys.exit(None)"),
        ("import os\nos._exit(7)\n", "'ends2:phi' ends the process (exit code 7)"),
        ("import os\ndef phi(h):\n    os._exit(0)\n", "'ends3:phi' ends the process (exit code 0)"),
    ],
)
def test_code_that_ends_the_process_is_refused(tlcli, text, sentence):
    number = sentence[5]
    Path(f"ends{number}.py").write_text(text)
    done = tlcli(NETWORK, f"--activation ends{number}:phi")
    assert (done.code, done.out) == (2, "")
    assert f"activation: {sentence}" in done.err
    assert done.err.count("\n") == 1
    assert not Path("out").exists()


def test_code_that_raises_or_is_not_there_is_left_to_the_import(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("raises.py").write_text("print('noise')\n1/0\n")
    try_out("raises:phi", "raises", ("phi",))
    try_out("nowhere:phi", "nowhere", ("phi",))
    Path("good.py").write_text("def phi(h):\n    print('noise')\n    return h, 1 + 0 * h\n")
    try_out("good:phi", "good", ("phi",))
    start = time.perf_counter()
    try_out("good:phi", "good", ("phi",))
    assert time.perf_counter() - start < 0.01, "once in a process"
    Path("crash.py").write_text("import ctypes\nctypes.string_at(0)\n")
    with pytest.raises(UsageError, match=r"'crash:phi' ends the process \(exit code -\d+\)"):
        try_out("crash:phi", "crash", ("phi",))
    assert "crash" not in sys.modules
