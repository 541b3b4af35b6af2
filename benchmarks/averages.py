"""How good, fast and large are averages over target samples: the equations against regression on random subsets.

`python -m benchmarks.averages` prints four tables: `accuracy` (deviation from direct averages, by the number of
samples), `choices` (zeros of the gain, best ridges and best richnesses against direct averages), `speed` (a map of
digits against the single draws that it replaces, at equal error) and `memory` (what a process holds at its peak against
what a dry run says); with their names some of them. `--keep DIR` stores
kernels and what was found from each, so that a run that was broken off goes on. Networks are trained on data of a seed
of their own.
"""

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tlcli.averages.grid import GridAxes, averaged
from tlcli.averages.subsets import chosen_subsets
from tlcli.dmft.ensemble import Numerics
from tlcli.dmft.pool import pool_kernels
from tlcli.theories.network.pools import pools_of
from tlcli.training import TransferSettings

SIZES = (5, 10, 20, 30, 50, 100, 150)
POOL = 400
SEED = 71
# Gaussian tasks as the hard cases of the theory's measurement, and images.
TASKS = {
    "linear to quadratic, relu": ("linear", "hermite:2", "relu"),
    "He1 to He3, relu": ("linear", "hermite:3", "relu"),
    "He1 to He3, tanh": ("linear", "hermite:3", "tanh"),
    "digits 3v8 to 4v9, tanh": ("digits:3v8", "digits:4v9", "tanh"),
    "digits 3v8 to 4v9, relu": ("digits:3v8", "digits:4v9", "relu"),
}


@dataclass(frozen=True, eq=False)
class Kernels:
    """The kernel on one pool with and without pre-training, and the pool's labels of unit power."""

    own: np.ndarray
    start: np.ndarray
    labels: np.ndarray


class Bench:
    """Kernels and findings, which a folder keeps if there is one."""

    def __init__(self, keep: Path | None = None) -> None:
        self.keep = keep
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)

    def kernels(self, task: str, gamma0: float, kind: str, pool: int = POOL, neurons: int = 2048) -> Kernels:
        """Train on a source of 200 points (digits: 150) and return the kernels on a pool of the target."""
        name = f"{list(TASKS).index(task)}-{kind}-{gamma0:g}-{pool}-{neurons}.npz"
        path = None if self.keep is None else self.keep / name
        if path is not None and path.exists():
            with np.load(path) as kept:
                return Kernels(kept["own"], kept["start"], kept["labels"])
        found = trained(task, gamma0, kind, pool, neurons)
        if path is not None:
            np.savez(path, own=found.own, start=found.start, labels=found.labels)
        return found

    def piece(self, name: str, found: Callable[[], Any]) -> Any:
        """Return what `found` does, plain numbers and texts, or what the folder holds of it."""
        path = None if self.keep is None else self.keep / f"{name}.json"
        if path is not None and path.exists():
            return json.loads(path.read_text())
        value = found()
        if path is not None:
            path.write_text(json.dumps(value))
        return value


def trained(task: str, gamma0: float, kind: str, pool: int, neurons: int) -> Kernels:
    """Return the kernels of a network that is trained now."""
    source, target, act = TASKS[task]
    images = source.startswith("digits")
    size = None if images else pool
    p = {"source": source, "target": target, "dim": None if images else 20, "rho": 1.0, "p1": 150 if images else 200}
    data = pools_of({**p, "sizes": [max(SIZES)], "pool": size, "seed": SEED, "draw": 0})
    settings = TransferSettings(activation=act, gamma0=gamma0, kernel=kind, times1=(50.0,), target="frozen")
    found = pool_kernels(data, settings, Numerics(neurons=neurons, repeats=2, seed=SEED), 1)
    assert not found.message, found.message
    rows = data.rows[0]
    y = data.y_target[rows] / np.sqrt(np.mean(data.y_target[rows] ** 2))
    block = np.ix_(rows, rows)
    return Kernels(found.kernels.mean(axis=0)[block], found.start[block], y)


def direct(kernel: np.ndarray, labels: np.ndarray, p: int, ridges: tuple[float, ...], count: int, noise: float = 0.0):
    """Return the losses (count, n_ridges) on the rest of the pool of regression on random subsets of P points.

    Plain linear systems; the same subsets and noise for every kernel.
    """
    rng, out = np.random.default_rng([SEED, p]), np.empty((count, len(ridges)))
    for row, chosen in enumerate(chosen_subsets(len(labels), p, count, rng)):
        rest = np.setdiff1d(np.arange(len(labels)), chosen)
        block, cross = kernel[np.ix_(chosen, chosen)], kernel[np.ix_(rest, chosen)]
        y = labels[chosen] + noise * rng.standard_normal(p)
        for k, ridge in enumerate(ridges):
            f = cross @ np.linalg.solve(block + p * ridge * np.eye(p), y)
            out[row, k] = np.mean((f - labels[rest]) ** 2)
    return out


METHODS = ("auto", "pointwise", "homogeneous")
RICHNESSES = (0.1, 1.0, 5.0)


@dataclass(frozen=True)
class Deviation:
    """Relative deviations of averaged losses, by method, from the direct one of relative standard error `error`."""

    task: str
    size: int
    ridge: float
    values: list[float]
    error: float


def deviations(bench: Bench, subsets: int = 250, neurons: int = 1024) -> Iterator[Deviation]:
    """Yield those of all tasks, kernels, richnesses, ridges and sizes."""
    axes = GridAxes(SIZES, (0.0, 0.1))

    def of(task: str, kind: str, gamma0: float) -> list[dict[str, Any]]:
        k, rows = bench.kernels(task, gamma0, kind, neurons=neurons), []
        rng = np.random.default_rng(0)
        found = [averaged(k.own, k.labels, axes, method, rng).losses.mean(axis=-1)[..., 0, 0] for method in METHODS]
        for i, size in enumerate(SIZES):
            each = direct(k.own, k.labels, size, tuple(axes.ridges), subsets)
            mean, error = each.mean(axis=0), each.std(axis=0, ddof=1) / np.sqrt(subsets)
            for r, ridge in enumerate(axes.ridges):
                values = [float(one[i, r] / mean[r] - 1) for one in found]
                rows.append(asdict(Deviation(task, size, ridge, values, float(error[r] / mean[r]))))
        return rows

    for task, kind, gamma0 in itertools.product(TASKS, ("feature", "ntk"), RICHNESSES):
        name = f"accuracy-{list(TASKS).index(task)}-{kind}-{gamma0:g}-{subsets}-{neurons}"
        for row in bench.piece(name, lambda one=(task, kind, gamma0): of(*one)):
            yield Deviation(**row)


def accuracy(bench: Bench) -> Iterator[str]:
    """Yield the rows of the accuracy table, Markdown: median / 90 % / largest deviation in percent."""
    yield f"| group | cases | {' | '.join(METHODS)} | s.e. of the direct average |"
    yield f"| --- | --- |{' --- |' * len(METHODS)} --- |"
    every = list(deviations(bench))
    groups: dict[str, Callable[[Deviation], bool]] = {
        "all": lambda d: True,
        "P >= 30": lambda d: d.size >= 30,
        "P >= 30, ridge 0": lambda d: d.size >= 30 and d.ridge == 0,
        "P >= 30, ridge 0.1": lambda d: d.size >= 30 and d.ridge > 0,
        **{f"P = {size}": lambda d, size=size: d.size == size for size in SIZES},
        **{f"{task}, P >= 30": lambda d, task=task: d.task == task and d.size >= 30 for task in TASKS},
    }
    for name, member in groups.items():
        some = [d for d in every if member(d)]
        cells = []
        for values in 100 * np.abs(np.array([d.values for d in some])).T:
            cells.append(" / ".join(f"{x:.1f}" for x in (np.median(values), np.quantile(values, 0.9), values.max())))
        yield f"| {name} | {len(some)} | {' | '.join(cells)} | {100 * np.median([d.error for d in some]):.1f} |"


def choices(bench: Bench) -> Iterator[str]:
    """Yield zeros of the gain in P, best ridges and best richnesses, by the equations and by direct averages."""
    yield "| quantity | case | pointwise | direct | agree |"
    yield "| --- | --- | --- | --- | --- |"
    for part in (zeros, ridges):
        counts: dict[str, list[bool]] = {}
        for what, row, same in part(bench):
            counts.setdefault(what, []).append(same)
            yield row
        for what, each in counts.items():
            yield f"| all: {what} | | | | {sum(each)} of {len(each)} |"


LINE = (8, 12, 20, 30, 45, 70, 100, 150, 220)
CROSSINGS = (
    ("He1 to He3, relu", "ntk", 1.0),
    ("He1 to He3, relu", "ntk", 5.0),
    ("He1 to He3, relu", "feature", 1.0),
    ("He1 to He3, relu", "feature", 5.0),
)


def zeros(bench: Bench, subsets: int = 400) -> Iterator[tuple[str, str, bool]]:
    """Yield where the gain changes sign without ridge, pools of 500.

    Agreement: the signs are the same at every size at which the direct gain is more than two errors from zero.
    """

    def of(task: str, kind: str, gamma0: float) -> list[list[float]]:
        k, rng = bench.kernels(task, gamma0, kind, pool=500, neurons=4096), np.random.default_rng(0)
        parts = [averaged(one, k.labels, GridAxes(LINE, (0.0,)), "pointwise", rng) for one in (k.start, k.own)]
        gain = np.subtract(*(part.losses.mean(axis=-1).ravel() for part in parts))
        rows = []
        for size, theory in zip(LINE, gain.tolist(), strict=True):
            each = np.subtract(*(direct(one, k.labels, size, (0.0,), subsets)[:, 0] for one in (k.start, k.own)))
            rows.append([theory, float(each.mean()), float(each.std(ddof=1) / np.sqrt(subsets))])
        return rows

    for task, kind, gamma0 in CROSSINGS:
        name = f"zeros-{list(TASKS).index(task)}-{kind}-{gamma0:g}-{subsets}"
        gain, mean, error = np.array(bench.piece(name, lambda one=(task, kind, gamma0): of(*one))).T
        firm = np.abs(mean) > 2 * error
        same = bool(np.all(np.sign(gain[firm]) == np.sign(mean[firm])))
        shown = [" ".join("+" if g > 0 else "-" for g in gain)]
        shown += [" ".join(("+" if g > 0 else "-") if sure else "0" for g, sure in zip(mean, firm, strict=True))]
        case = f"{task}, {kind}, gamma0 = {gamma0:g}"
        yield "sign of the gain", f"| sign of the gain, P = {LINE} | {case} | {shown[0]} | {shown[1]} | {same} |", same


RIDGES = (0.0, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)


def ridges(bench: Bench, subsets: int = 400) -> Iterator[tuple[str, str, bool]]:
    """Yield best ridges of eight, and the best richness at them, sigma = 0.5, on the pools of `accuracy`.

    Agreement: the direct optimum, or one whose direct loss is within two errors of the difference from it.
    """
    line = (0.0, *RICHNESSES)

    def of(task: str, kind: str, size: int) -> list[list[list[float]]]:
        theory, losses = [], []
        for gamma0 in line:
            k = bench.kernels(task, gamma0 or RICHNESSES[0], kind, neurons=1024)
            kernel = k.own if gamma0 else k.start
            axes = GridAxes((size,), RIDGES, noises=(0.5,))
            found = averaged(kernel, k.labels, axes, "pointwise", np.random.default_rng(0))
            theory.append(found.losses.mean(axis=-1).ravel().tolist())
            losses.append(direct(kernel, k.labels, size, RIDGES, subsets, 0.5).T.tolist())
        return [theory, losses]

    def judged(each: np.ndarray, at: int) -> tuple[int, bool]:
        best = int(np.argmin(each.mean(axis=1)))
        worse = each[at] - each[best]
        return best, at == best or bool(worse.mean() < 2 * worse.std(ddof=1) / np.sqrt(subsets))

    for task, kind in (("linear to quadratic, relu", "feature"), ("He1 to He3, tanh", "ntk")):
        for size in (30, 150):
            name = f"ridges-{list(TASKS).index(task)}-{kind}-{size}-{subsets}"
            theory, losses = map(np.array, bench.piece(name, lambda one=(task, kind, size): of(*one)))
            at, tops = theory.argmin(axis=1), []
            for g, gamma0 in enumerate(line):
                best, same = judged(losses[g], int(at[g]))
                tops.append(losses[g, best])
                case = f"{task}, {kind}, gamma0 = {gamma0:g}, P = {size}"
                row = f"| best ridge | {case} | {RIDGES[at[g]]:g} | {RIDGES[best]:g} | {same} |"
                yield "best ridge", row, same
            richest = int(theory.min(axis=1).argmin())
            best, same = judged(np.array(tops), richest)
            case = f"{task}, {kind}, P = {size}"
            row = f"| best richness | {case} | {line[richest]:g} | {line[best]:g} | {same} |"
            yield "best richness", row, same


def speed(bench: Bench, draws: int = 6) -> Iterator[str]:
    """Yield what a map of digits takes, and the single draws of the same error of the gain.

    Their error is the spread of `draws` draws at eighteen points, and falls as one over the root of their number. That
    of the finite number of images is the same for both, and left out.
    """
    import tlcli

    task = {"solver": "network-frozen", "source": "digits:3v8", "target": "digits:4v9"}
    grid = {"x": "p2=4:160:40", "y": "gamma0=log:0.1:5:12", "ridge": "0,0.0001,0.001,0.01,0.1,1", "draws": 4}

    def timed(**asked: Any) -> tuple[Any, float]:
        start = time.process_time()  # of this process and its threads, whatever else the machine does
        found = tlcli.phase_diagram(**task, **asked)
        return found, time.process_time() - start

    def whole() -> dict[str, Any]:
        found, took = timed(**grid)
        error = np.hypot(found["gain_source_se"], found["gain_neuron_se"])
        axes = {name: np.asarray(line).tolist() for name, line in found.axes.items()}
        return {"took": took, "axes": axes, "error": error.tolist()}

    def some(gamma0: float) -> dict[str, Any]:
        few = {"x": "p2=24,60,160", "y": "ridge=0.001,0.1", "gamma0": gamma0}
        found, took = timed(**few, draws=draws, average="none")
        axes = {name: np.asarray(line).tolist() for name, line in found.axes.items()}
        return {"took": took, "axes": axes, "spread": (np.asarray(found["gain_draw_se"]) * np.sqrt(draws)).tolist()}

    mean = bench.piece("speed-map", whole)
    error = np.array(mean["error"])
    yield f"averages: {error.size} points in {mean['took']:.0f} s of one core"
    each, needed = [], []
    for gamma0 in RICHNESSES:
        one = bench.piece(f"speed-single-{gamma0:g}-{draws}", lambda gamma0=gamma0: some(gamma0))
        spread = np.array(one["spread"])
        each.append(one["took"] / (spread.size * draws))
        for place in np.ndindex(spread.shape):
            values = [one["axes"][name][i] for name, i in zip(one["axes"], place, strict=True)]
            known = dict(zip(one["axes"], values, strict=True), gamma0=gamma0)
            nearest = [int(np.abs(np.array(line) - known[name]).argmin()) for name, line in mean["axes"].items()]
            needed.append(float((spread[place] / error[tuple(nearest)]) ** 2))
            shown = ", ".join(f"{name} = {value:g}" for name, value in known.items())
            yield f"  {shown}: {needed[-1]:.0f} draws for the same error of the gain"
    seconds, middle = float(np.mean(each)), float(np.median(needed))
    took = error.size * max(middle, 1.0) * seconds
    yield f"single draws: {seconds:.2f} s per point and draw, {middle:.0f} draws (median of {len(needed)} points)"
    yield f"which is {took:.0f} s: {took / mean['took']:.0f} times as long"


MEASURED = """
import json, resource, sys, time, tlcli
start = time.process_time()
tlcli.finetune_loss(**json.loads(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, time.process_time() - start)
"""


def memory(bench: Bench) -> Iterator[str]:
    """Yield the memory and CPU time of a process with one kernel, and what a dry run says of them."""
    task = {"solver": "network-frozen", "source": "linear", "target": "hermite:2", "dim": 20, "p1": 200, "p2": 50}
    task |= {"gamma0": 1.0, "ridge": 0.01, "activation": "relu", "average": "auto"}

    def of(asked: dict[str, Any]) -> dict[str, Any]:
        words = [f"--{name}={value}" for name, value in asked.items()]
        command = [sys.executable, "-m", "tlcli", "finetune-loss", *words, "--dry-run"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1].strip()
        command = [sys.executable, "-c", MEASURED, json.dumps(asked)]
        size, seconds = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        return {"said": said, "size": float(size), "seconds": float(seconds)}

    yield "| points of all pools | repeats | peak | CPU time | said before |"
    yield "| --- | --- | --- | --- | --- |"
    for pool, whole, repeats in ((400, 1600, 8), (1000, 4000, 8), (2000, 4000, 16), (4000, 4000, 8)):
        asked = {**task, "pool": pool, "repeats": repeats}
        one = bench.piece(f"memory-{pool}-{repeats}", lambda asked=asked: of(asked))
        shown = f"{one['size'] / 1e9:.2f} GB | {one['seconds']:.0f} s | {one['said']}"
        yield f"| {whole} ({whole // pool} of {pool}) | {repeats} | {shown} |"


def main() -> None:
    """Print the tables that are asked for."""
    parts = {"accuracy": accuracy, "choices": choices, "speed": speed, "memory": memory}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.averages")
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help=f"{', '.join(parts)} (default: all)")
    parser.add_argument("--keep", type=Path, help="a folder for kernels and findings: a broken run goes on from them")
    given = parser.parse_args()
    with threadpool_limits(1):
        for name in given.parts or parts:
            print(f"\n{name}\n")
            for row in parts[name](Bench(given.keep)):
                print(row, flush=True)


if __name__ == "__main__":
    main()
