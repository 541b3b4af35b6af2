"""How good and how fast are averages over target samples: the equations against regression on random subsets.

`python -m benchmarks.averages` prints three tables: `accuracy` (deviation from direct averages, by the number of
samples), `choices` (zeros of the gain and best ridges against direct averages) and `speed` (a map of digits against the
single draws that it replaces, at equal error); with their names some of them. Networks are trained on data of a
seed of their own.
"""

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from tlcli.averages.grid import GridAxes, averaged
from tlcli.averages.subsets import chosen_subsets, subset_losses
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


def kernels(task: str, gamma0: float, kind: str, pool: int = POOL, neurons: int = 2048) -> Kernels:
    """Train on a source of 200 points (digits: 150) and return the kernels on a pool of the target."""
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


METHODS = ("pointwise", "homogeneous")


@dataclass(frozen=True)
class Deviation:
    """Relative deviations of averaged losses, by method, from the direct one of relative standard error `error`."""

    task: str
    size: int
    values: tuple[float, ...]
    error: float


def deviations(subsets: int = 250, neurons: int = 1024) -> Iterator[Deviation]:
    """Yield those of all tasks, kernels, richnesses, ridges and sizes."""
    for task, kind, gamma0 in itertools.product(TASKS, ("feature", "ntk"), (0.1, 1.0, 5.0)):
        k = kernels(task, gamma0, kind, neurons=neurons)
        axes = GridAxes(SIZES, (0.0, 0.1))
        rng = np.random.default_rng(0)
        found = [averaged(k.own, k.labels, axes, method, rng).losses.mean(axis=-1)[..., 0, 0] for method in METHODS]
        for i, size in enumerate(SIZES):
            chosen = chosen_subsets(len(k.labels), size, subsets, np.random.default_rng([SEED, size]))
            each = subset_losses(k.own, k.labels, chosen, ridges=axes.ridges)[..., 0, 0]
            mean, error = each.mean(axis=0), each.std(axis=0, ddof=1) / np.sqrt(subsets)
            for r in range(len(axes.ridges)):
                values = tuple(float(one[i, r] / mean[r] - 1) for one in found)
                yield Deviation(task, size, values, float(error[r] / mean[r]))


def accuracy() -> Iterator[str]:
    """Yield the rows of the accuracy table, Markdown: median / 90 % / largest deviation in percent."""
    yield f"| group | cases | {' | '.join(METHODS)} | s.e. of the direct average |"
    yield "| --- | --- | --- | --- | --- |"
    every = list(deviations())
    groups: dict[str, Callable[[Deviation], bool]] = {
        "all": lambda d: True,
        "P >= 30": lambda d: d.size >= 30,
        **{f"P = {size}": lambda d, size=size: d.size == size for size in SIZES},
        **{f"{task}, P >= 30": lambda d, task=task: d.task == task and d.size >= 30 for task in TASKS},
    }
    for name, member in groups.items():
        some = [d for d in every if member(d)]
        cells = []
        for values in 100 * np.abs(np.array([d.values for d in some])).T:
            cells.append(" / ".join(f"{x:.1f}" for x in (np.median(values), np.quantile(values, 0.9), values.max())))
        yield f"| {name} | {len(some)} | {' | '.join(cells)} | {100 * np.median([d.error for d in some]):.1f} |"


def choices(subsets: int = 1000) -> Iterator[str]:
    """Yield zeros of the gain in P, and best ridges of noisy labels, by the equations and by direct averages."""
    yield "| quantity | case | pointwise | direct | agree |"
    yield "| --- | --- | --- | --- | --- |"
    counts = [0, 0]
    for row, same in (*zeros(subsets), *ridges(subsets)):
        counts = [counts[0] + same, counts[1] + 1]
        yield row
    yield f"| all | | | | {counts[0]} of {counts[1]} |"


LINE = (5, 8, 12, 20, 30, 45, 70, 100, 150, 220)


def zeros(subsets: int) -> Iterator[tuple[str, bool]]:
    """Yield where the gain changes sign: within the sizes between which the direct gain is within two errors of 0."""
    for task, kind, gamma0 in (("He1 to He3, relu", "ntk", 1.0), ("He1 to He3, relu", "feature", 5.0)):
        k, rng = kernels(task, gamma0, kind, neurons=4096), np.random.default_rng(0)
        parts = [averaged(one, k.labels, GridAxes(LINE, (0.0,)), "pointwise", rng) for one in (k.own, k.start)]
        gain = np.subtract(*(part.losses.mean(axis=-1).ravel() for part in parts[::-1]))
        direct, errors = [], []
        for size in LINE:
            chosen = chosen_subsets(len(k.labels), size, subsets, np.random.default_rng([SEED, size]))
            each = np.subtract(*(subset_losses(one, k.labels, chosen).ravel() for one in (k.start, k.own)))
            direct.append(each.mean())
            errors.append(each.std(ddof=1) / np.sqrt(subsets))
        firm = np.abs(direct) > 2 * np.array(errors)
        same = bool(np.all(np.sign(gain[firm]) == np.sign(np.array(direct)[firm])))
        shown = [" ".join("+" if g > 0 else "-" for g in line) for line in (gain, direct)]
        yield (
            f"| sign of the gain, P = {LINE} | {task}, {kind}, {gamma0:g} | {shown[0]} | {shown[1]} | {same} |",
            same,
        )


def ridges(subsets: int) -> Iterator[tuple[str, bool]]:
    """Yield best ridges of eight, sigma = 0.5: the direct one, or one whose direct loss is within two errors of it."""
    line = (0.0, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
    for task, kind in (("linear to quadratic, relu", "feature"), ("He1 to He3, tanh", "ntk")):
        for gamma0 in (0.1, 1.0, 5.0):
            k = kernels(task, gamma0, kind)
            for size in (30, 150):
                axes = GridAxes((size,), line, noises=(0.5,))
                found = averaged(k.own, k.labels, axes, "pointwise", np.random.default_rng(0)).losses.mean(axis=-1)
                at = int(np.argmin(found.ravel()))
                rng = np.random.default_rng([SEED, size])
                chosen = chosen_subsets(len(k.labels), size, subsets, rng)
                each = subset_losses(k.own, k.labels, chosen, ridges=line, noises=0.5, rng=rng)[..., 0, 0]
                best = int(np.argmin(each.mean(axis=0)))
                worse = each[:, at] - each[:, best]
                same = at == best or bool(worse.mean() < 2 * worse.std(ddof=1) / np.sqrt(subsets))
                case = f"{task}, {kind}, gamma0 = {gamma0:g}, P = {size}"
                yield f"| best ridge | {case} | {line[at]:g} | {line[best]:g} | {same} |", same


def speed(draws: int = 16) -> Iterator[str]:
    """Yield what a map of digits takes, and the single draws of the same error of the gain.

    Their error is the spread of `draws` draws at a few points, and falls as one over the root of their number. That of
    the finite number of images is the same for both, and left out.
    """
    import tlcli

    task = {"solver": "network-frozen", "source": "digits:3v8", "target": "digits:4v9"}
    grid = {"x": "p2=4:160:40", "y": "gamma0=log:0.1:5:12", "ridge": "0,0.0001,0.001,0.01,0.1,1", "draws": 4}
    start = time.perf_counter()
    mean = tlcli.phase_diagram(**task, **grid)
    took = time.perf_counter() - start
    yield f"averages: {mean['gain'].size} points in {took:.0f} s of one core"
    start = time.perf_counter()
    few = {"x": "p2=24,60,100,160", "y": "gamma0=0.1,5", "ridge": "0.001,0.1", "draws": draws, "average": "none"}
    single = tlcli.phase_diagram(**task, **few)
    each = (time.perf_counter() - start) / (single["gain"].size * draws)
    at = np.stack(np.meshgrid(*single.axes.values(), indexing="ij"), axis=-1).reshape(-1, len(mean.axes))
    nearest = [
        [int(np.abs(line - value).argmin()) for line, value in zip(mean.axes.values(), one, strict=True)] for one in at
    ]
    error = np.array([np.hypot(mean["gain_source_se"], mean["gain_neuron_se"])[tuple(place)] for place in nearest])
    needed = float(np.median((np.ravel(single["gain_draw_se"]) * np.sqrt(draws) / error) ** 2))
    whole = mean["gain"].size * max(needed, 1.0) * each
    yield f"single draws: {each:.2f} s per point and draw, {needed:.0f} draws (median) for the same error of the gain"
    yield f"which is {whole:.0f} s: {whole / took:.0f} times as long"


def main() -> None:
    """Print the tables that are asked for."""
    for name in sys.argv[1:] or ("accuracy", "choices", "speed"):
        print(f"\n{name}\n")
        for row in {"accuracy": accuracy, "choices": choices, "speed": speed}[name]():
            print(row, flush=True)


if __name__ == "__main__":
    main()
