"""A command-line sweep that the tests kill: `python sweep_driver.py --store DIR --csv FILE …`.

Its functions are also the tasks of the in-process tests, by the name "sweep_driver:…".
"""

import argparse
import csv
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from tlcli.sweep.runner import Task, parse_shard, run_sweep
from tlcli.sweep.store import PointStore

N_POINTS = 24


def draw(parameters, seed):
    """A few milliseconds, random numbers of its own, and a BLAS sum whose bits depend on the thread count."""
    rng = np.random.default_rng(seed)
    stuck = parameters["alpha"] >= float(os.environ.get("DRIVER_STUCK_FROM", "inf"))
    time.sleep(60 if stuck else float(os.environ.get("DRIVER_SLEEP", "0.005")))
    matrix = rng.standard_normal((160, 160))
    product = matrix @ matrix.T
    return {
        "mean": rng.standard_normal(),
        "trace": np.trace(product @ product),
        "edge": float("inf") if parameters["alpha"] == 0 else 1 / parameters["alpha"],
        "status": "converged",
    }


def fail_at_two(parameters, seed):
    if parameters["alpha"] == 2 and not Path(parameters["repaired"]).exists():
        raise ArithmeticError("no root\nin the bracket")
    return {"loss": np.float32(parameters["alpha"])}


def exit_once(parameters, seed):
    """Kill the worker at one point, unless `marker` says that it was killed before."""
    marker = Path(parameters["marker"])
    if parameters["alpha"] == 3 and not marker.exists():
        if not parameters.get("always"):
            marker.write_text("")
        os._exit(9)
    return {"loss": parameters["alpha"]}


def leave(parameters, seed):
    raise SystemExit("bye")


def no_dict(parameters, seed):
    return [1.0]


def threads(parameters, seed):
    import scipy.linalg  # noqa: F401  (a second BLAS, loaded by the task itself)
    from threadpoolctl import threadpool_info

    return {"threads": max(pool["num_threads"] for pool in threadpool_info())}


def interrupt(parameters, seed):
    if parameters["alpha"] == 3:
        raise KeyboardInterrupt
    return {"loss": parameters["alpha"]}


def tasks(function="draw", n=N_POINTS, seed=7, **more):
    return [Task(f"sweep_driver:{function}", {"alpha": float(i), **more}, seed) for i in range(n)]


def die_in(name, count):
    """Let the `count`-th call of `os.name` be a SIGKILL: the worst moments, in the middle of a write."""
    real = getattr(os, name)

    def call(*arguments):
        nonlocal count
        count -= 1
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    setattr(os, name, call)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", required=True)
    parser.add_argument("--csv", required=True)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--executor", default="local")
    parser.add_argument("--shard", type=parse_shard)
    parser.add_argument("--reverse", action="store_true")
    parser.add_argument("--die-in", nargs=2)
    arguments = parser.parse_args()
    if arguments.die_in:
        die_in(arguments.die_in[0], int(arguments.die_in[1]))
    points = tasks()
    order = -1 if arguments.reverse else 1
    store = PointStore(arguments.store, "draw", "1")
    result = run_sweep(
        points[::order],
        store=store,
        executor_spec=arguments.executor,
        jobs=arguments.jobs,
        shard=arguments.shard,
    )
    with open(arguments.csv, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["alpha", "mean", "trace", "edge", "status"])
        for task, record in zip(points, result.records[::order], strict=True):
            if record is not None:
                table.writerow([task.parameters["alpha"], *record.values()])
    print(f"computed={result.n_computed} reused={result.n_reused} failed={result.n_failed}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
