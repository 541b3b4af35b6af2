"""The lowest versions that pyproject.toml allows, as pip takes them; `--smoke` runs every command with them.

It needs no package of the development environment: `make lowest` runs it in an environment of its own, where the wheel
is installed, so that what is tried is what users get.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "--help",
    "recipes",
    "pretrain-kernel --help",
    "plot --help",
    "run fig1b -o results",
    "finetune-loss --alpha1 0.5 --alpha2 0.3,0.6 --gamma0 0,2 --simulate --dim 40 --trials 2 -o regression",
    "check regression",
    "dmft-solve --source linear --target hermite:2 --dim 3 --p1 6 --p2 4 --t1 1 --t2 1 --gamma0 1 -o network",
    "bayes-saddle --source digits:3v8 --target digits:4v9 --p1 10 --p2 5 --gamma0 1 --delta 0,1 -o posterior",
    "phase-diagram --x alpha2=0.1:0.9:5 --y rho=0:1:5 --weight-decay 0.3 --format pdf -o map",
)


def pins() -> list[str]:
    """Return every dependency at the lowest version that it allows."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [re.sub(r">=", "==", line, count=1) for line in content["project"]["dependencies"]]


def smoke() -> None:
    """Run the commands in an empty folder; the first that fails ends it."""
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            print("tlcli", command, flush=True)
            program = [sys.executable, "-W", "ignore", "-m", "tlcli", *command.split()]
            done = subprocess.run(program, cwd=folder, env={}, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"exit code {done.returncode}: {done.stderr.strip()}")


if __name__ == "__main__":
    if sys.argv[1:] == ["--smoke"]:
        smoke()
    else:
        print(*pins())
