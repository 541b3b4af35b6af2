"""Writing tables, and the whole command in a process of its own."""

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.timing import Line, seconds_of
from tlcli.linear.linear_transfer import transfer_exact
from tlcli.report.tables import Block, write_csv

SIDE = 1000
GRID = ("--x", f"alpha2=0.01:0.99:{SIDE}", "--y", f"gamma0=log:0.01:100:{SIDE}")


def lines() -> Iterator[Line]:
    yield csv_rows()
    yield command("tlcli --help", ["--help"], 1, "runs", 3)
    yield command("tlcli, one point to stdout", ["finetune-loss", "-o", "-"], 1, "runs", 3)
    yield command("tlcli, 1000 x 1000, CSV to stdout", ["phase-diagram", *GRID, "-o", "-"], SIDE**2, "rows", 1)
    yield command("tlcli, 1000 x 1000, CSV and PNG", ["phase-diagram", *GRID, "-o", "out"], SIDE**2, "rows", 1)


def csv_rows() -> Line:
    """The table of a 1000 x 1000 grid as text, in memory; np.savetxt writes the same numbers, all columns full."""
    axes = {"alpha2": np.linspace(0.01, 0.99, SIDE), "gamma0": np.geomspace(0.01, 100, SIDE)}
    result = transfer_exact(0.5, axes["alpha2"][:, None], rho=0.8, gamma0=axes["gamma0"])
    columns = {"alpha1": 0.5, "alpha2": axes["alpha2"][:, None], "rho": 0.8, "gamma0": axes["gamma0"][None, :]}
    columns |= {name: getattr(result, name) for name in ("loss", "baseline", "gain", "phase", "status")}
    ours = seconds_of(lambda: write_csv([Block(axes, columns, {})], io.StringIO()), 1)
    full = np.stack([np.broadcast_to(column, (SIDE, SIDE))[:100].ravel() for column in columns.values()], axis=1)
    theirs = len(full) / seconds_of(lambda: np.savetxt(io.StringIO(), full, fmt="%.17g", delimiter=","), 1)
    return Line("writing CSV, 9 columns", SIDE**2, "rows", ours, "np.savetxt", theirs)


def command(name: str, arguments: list[str], count: int, unit: str, repeats: int) -> Line:
    """Wall time of a fresh process, with one BLAS thread, from start to exit."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    root = str(Path(__file__).resolve().parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")])
    best = float("inf")
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "tlcli", *arguments],
                cwd=folder,
                env=environment,
                stdout=nowhere,
                stderr=nowhere,
                check=True,
            )
            best = min(best, time.perf_counter() - start)
    return Line(name, count, unit, best)
