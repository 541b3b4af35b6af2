"""Deep networks: the causal sweep against the damped fixed point, its cost, and gradient flow by two integrators."""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.damped_fixed_point import fixed_point
from benchmarks.timing import Line, number, table
from tests.oracles.bidiagonal import run_bidiagonal
from tests.oracles.deep_ensemble import DeepStage
from tests.oracles.deep_rows import kernel_rows
from tlcli.dmft.activations import activation
from tlcli.dmft.deep.run import Surgery, run_stages
from tlcli.dmft.deep.start import Start, sampled
from tlcli.dmft.geometry import reduce_inputs
from tlcli.dmft.integrate import Control
from tlcli.dmft.stage import Stage

PROTOTYPE = 0.44  # seconds of a prototype for the same problem on one core
BUDGET = 16  # flops per rank, point and neuron that a step needs at least
ERRORS = (5e-3, 2e-3)  # of f in time; below 1e-3 the revealed bases of two runs are told apart


@dataclass(frozen=True, eq=False)
class Task:
    """Two tasks on points of fixed phases, as in the reference values of the theory; summed loss, two equal stages."""

    act: str
    points: int
    test: int
    steps: int
    dt: float
    gamma: float = 1.0
    dim: int = 8

    @property
    def inputs(self) -> np.ndarray:
        m, i = np.arange(2 * self.points + self.test)[:, None], np.arange(self.dim)
        return np.sqrt(2) * np.cos(3 * (m + 1) * (i + 1) + i**2)

    @property
    def labels(self) -> np.ndarray:
        i, x = np.arange(self.dim), self.inputs / np.sqrt(self.dim)
        s1, s2 = x @ np.cos(i) * np.sqrt(2), x @ (0.6 * np.cos(i) + 0.8 * np.sin(i)) * np.sqrt(2)
        s2 = s2 if self.act == "linear" else s2 + 0.3 * (s2**2 - 1)
        return np.where(np.arange(len(x)) < self.points, s1, s2)

    @property
    def rows(self) -> list[np.ndarray]:
        return [np.arange(self.points), self.points + np.arange(self.points)]

    def stages(self, records: int | None = None) -> list[Stage]:
        times = np.linspace(0, self.steps * self.dt, (self.steps if records is None else records) + 1)
        return [Stage(r, self.labels[r], self.gamma, times, 1.0) for r in self.rows]

    def deep_stages(self) -> list[DeepStage]:
        return [DeepStage(rows=r, labels=self.labels[r], gamma=self.gamma, steps=self.steps) for r in self.rows]

    def start(self, neurons: int, seed: int, tol: float, depth: int = 2) -> Start:
        rng, geometry = np.random.default_rng(seed), reduce_inputs(self.inputs, 2 * self.points)
        return sampled(activation(self.act), geometry, depth, neurons, rng, np.arange(2 * self.points), tol=tol)

    def swept(self, neurons: int, seed: int, tol: float, records: int | None = None) -> tuple[np.ndarray, Start]:
        start = self.start(neurons, seed, tol)
        return joined(run_stages(start, self.stages(records), Control("euler", dt=self.dt), Surgery())), start


def joined(runs: list[Any]) -> np.ndarray:
    return np.concatenate([*(run.f[:-1] for run in runs[:-1]), runs[-1].f])


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))


def cpu_of(call: Callable[[], Any], repeats: int = 3) -> float:
    """The least CPU time of several calls, which other load on the machine disturbs less than wall time."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


def lines() -> Iterator[Line]:
    yield from _fixed_point()
    yield from _steps()
    yield from _large()
    yield from _flow()


def _fixed_point() -> Iterator[Line]:
    """The smallest sample of the sweep that is at least as near to the theory as the fixed point, run for run."""
    for act, steps, settings in (
        ("linear", 15, ((2000, 25, 1e-3), (8000, 15, 1e-3))),
        ("tanh", 30, ((2000, 12, 3e-3), (4000, 12, 1e-3))),
    ):
        task = Task(act, 6, 4, steps, 0.05)
        exact = _exact(task)
        for samples, iterations, jitter in settings:

            def solve(
                seed: int = 0, task: Task = task, options: tuple[int, int, float] = (samples, iterations, jitter)
            ):
                n, i, j = options
                stages = task.deep_stages()
                return fixed_point(
                    task.inputs, stages, activation(task.act), task.dt, samples=n, iterations=i, jitter=j, seed=seed
                )

            other = rms(solve() - exact)
            for neurons in (250, 500, 1000, 2000, 4000, 8000):
                error = rms(np.array([task.swept(neurons, seed, 0.03)[0] - exact for seed in range(4)]))
                if error <= other:
                    break
            seconds, theirs = cpu_of(lambda n=neurons, t=task: t.swept(n, 0, 0.03)), cpu_of(solve, 1)
            name = f"sweep, {act}, {2 * steps} steps, S = {neurons}, rms error {error:.2g}"
            against = f"fixed point, S = {samples}, {iterations} iterations, error {other:.2g}"
            yield Line(name, 1, "runs", seconds, against, 1 / theirs)


def _exact(task: Task) -> np.ndarray:
    if task.act == "linear":
        return kernel_rows(task.inputs @ task.inputs.T / task.dim, task.stages(), 2, task.dt).f
    return np.mean([task.swept(8000, 100 + seed, 3e-3)[0] for seed in range(12)], axis=0)


def _steps() -> Iterator[Line]:
    """At fixed total time the rank saturates, and the cost is linear in the number of steps."""
    first = 0.0
    for steps in (30, 60, 120):
        task = Task("tanh", 8, 0, steps, 1.5 / steps)
        seconds, (_, start) = cpu_of(lambda t=task: t.swept(4000, 0, 0.05, 1)), task.swept(4000, 0, 0.05, 1)
        per_step = seconds / (2 * steps)
        first = first or per_step
        name = f"sweep, S = 4000, P = 8 + 8, time 3, ranks {_ranks(start)}"
        yield Line(name, 2 * steps, "steps", seconds, "at 60 steps", 1 / first)


def _ranks(start: Start) -> str:
    return ", ".join(f"({len(h.responses)}, {len(h.features)})" for h in start.hidden)


def _large() -> Iterator[Line]:
    task = Task("tanh", 8, 0, 30, 0.05)
    _, start = task.swept(8000, 0, 0.05, 1)
    seconds = cpu_of(lambda: task.swept(8000, 0, 0.05, 1), 5)
    rank = start.hidden[0].ins.count / 2
    flops = BUDGET * rank * task.points * 8000 * 2 * task.steps
    name = f"sweep, S = 8000, P = 8 + 8, 60 steps, ranks {_ranks(start)}: {number(flops / seconds / 1e9)} Gflop/s"
    yield Line(f"{name} of {BUDGET} r P S", 1, "runs", seconds, "prototype", 1 / PROTOTYPE)


def _flow() -> Iterator[Line]:
    """Evaluations of the field for an error of f of gradient flow, the largest over records and trained points."""
    for task in (Task("linear", 6, 4, 10, 0.1), Task("tanh", 6, 4, 10, 0.1), Task("tanh", 6, 4, 20, 0.1, 2.0)):
        run = _flows(task)
        descents = [run(Control("euler", dt=task.dt / 2**k)) for k in range(1, 6)]
        pairs = [(2 * fine - coarse, n + m) for (coarse, n), (fine, m) in itertools.pairwise(descents)]
        exact = pairs[-1][0]
        found = [run(Control("rkc", tolerance=1e-2 / 2**k)) for k in range(12)]
        span = 2 * task.steps * task.dt
        for error in ERRORS:
            rkc, pair = (_least(runs, exact, error) for runs in (found, pairs[:-1]))
            name = f"evaluations of RKC2, {task.act}, gamma {task.gamma:g}, time {span:g}, error {error:g}"
            yield Line(
                f"{name} (one per unit)", rkc, "evaluations", 1.0, f"Euler and half steps: {pair}", rkc**2 / pair
            )


def _least(runs: list[tuple[np.ndarray, int]], exact: np.ndarray, error: float) -> int:
    counts = [count for f, count in runs if np.max(np.abs(f - exact)) < error]
    if not counts:
        raise AssertionError(f"No run has an error below {error:g}.")
    return min(counts)


def _flows(task: Task) -> Callable[[Control], tuple[np.ndarray, int]]:
    """Return a function of the integrator: f (record, trained point) and evaluations, always of the same draw."""
    geometry, train = reduce_inputs(task.inputs, 2 * task.points), np.arange(2 * task.points)
    start, stages = task.start(1000, 0, 3e-3), task.stages(10)

    def run(control: Control) -> tuple[np.ndarray, int]:
        if task.act == "linear":
            runs = run_bidiagonal(geometry.moving, stages, control)
        else:
            runs = run_stages(start, stages, control, Surgery())
        return np.concatenate([run.f[:, train] for run in runs]), sum(run.evaluations for run in runs)

    return run


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(prog="python -m benchmarks.deep", description=__doc__).parse_args()
    with threadpool_limits(1), np.errstate(over="ignore", invalid="ignore"):
        found = []
        for line in lines():
            print(f"{line.name}: {line.seconds:.3g} s", file=sys.stderr, flush=True)
            found.append(line)
        print(table(found))


if __name__ == "__main__":
    main()
