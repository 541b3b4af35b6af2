"""Code of the user in a process of its own first: what ends that one would end the program without a word."""

import functools
import multiprocessing
import subprocess
import sys

from tlcli.errors import UsageError

_TRIAL = """
import importlib, sys
sys.path.insert(0, "")
try:
    import numpy
    module = importlib.import_module(sys.argv[1])
    for function in sys.argv[2:]:
        getattr(module, function)(numpy.zeros(3))
except Exception:
    pass  # told by the program itself
except SystemExit as leave:
    print(f"\\ntlcli: calls sys.exit({leave.code!r})")
    raise
print("\\ntlcli: lives")
"""


@functools.cache
def try_out(name: str, module: str, functions: tuple[str, ...]) -> None:
    """Import `module` and call its functions of an array in another process; workers trust the one that started them.

    Raises:
        UsageError: it ended that process, by sys.exit, os._exit or a crash.
    """
    if multiprocessing.parent_process() is not None or not sys.executable:
        return
    command = [sys.executable, "-c", _TRIAL, module, *functions]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    found = [line.removeprefix("tlcli: ") for line in done.stdout.splitlines() if line.startswith("tlcli: ")]
    if "lives" in found:
        return
    how = found[-1] if found else "ends the process"
    raise UsageError(f"activation: '{name}' {how} (exit code {done.returncode}); a module must only define functions.")
