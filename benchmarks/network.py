"""Two-layer networks: the field against its hardware limits, the solver against gradient descent in PyTorch."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.timing import Line, seconds_of
from tlcli.dmft.activations import activation
from tlcli.dmft.ensemble import Numerics, solve
from tlcli.dmft.field import Drive, Field, Threads, apply, blocks_of
from tlcli.dmft.geometry import reduce_inputs
from tlcli.dmft.integrate import Control
from tlcli.dmft.population import Population
from tlcli.dmft.two_layer import Machine, Problem, Stage, run_population

DIM, SAMPLES, TEST, TIME, NEURONS = 15, 50, 100, 20.0, 512
TRAIN = slice(SAMPLES, 2 * SAMPLES)  # of the quadratic task
TIME_ERROR = 1e-3
# The task of the measurements: linear, then quadratic; tanh, summed loss.


def lines() -> Iterator[Line]:
    yield from _field()
    yield from _memory()
    yield from _gradient_descent()
    yield _accuracy()


def _problem(time: float, stages: int) -> tuple[Problem, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2 * SAMPLES + TEST, DIM))
    linear, quadratic = x[:, 0], (x[:, 0] ** 2 - 1) / np.sqrt(2)
    times, rows = np.linspace(0, time, 101), np.arange(SAMPLES)
    first = Stage(rows, linear[:SAMPLES], 1.0, times, 1.0)
    second = Stage(rows + SAMPLES, quadratic[SAMPLES : 2 * SAMPLES], 1.0, times, 1.0)
    both = [first, second] if stages == 2 else [second]
    return Problem(activation("tanh"), reduce_inputs(x, 2 * SAMPLES), both), x, quadratic


# ---------------------------------------------------------------------------------------------- the field


def _velocity(neurons: int, samples: int, dim: int, threads: int, name: str = "tanh") -> tuple[Field, Any]:
    rng = np.random.default_rng(0)
    rank = min(samples, dim)
    coords = rng.standard_normal((samples, rank)) / np.sqrt(rank)
    drive = Drive(coords, rng.standard_normal(samples), 1.0, 1 / samples)
    return Field(activation(name), neurons, drive, threads=Threads(threads)), rng.standard_normal(neurons * (rank + 1))


def _gemms(field: Field, z: Any) -> Callable[[], Any]:
    """The two matrix products of the field and nothing else."""
    u, _ = field.split(z)
    h, c = np.empty((field.size, field.n_train)), field.drive.coords
    out = np.empty_like(u)

    def both() -> None:
        np.matmul(u, c.T, out=h)
        np.matmul(h, c, out=out)

    return both


def _activation_pass(name: str, neurons: int, samples: int) -> Callable[[], Any]:
    h = np.random.default_rng(1).standard_normal((neurons, samples))
    act, out, blocks = activation(name), np.empty_like(h), blocks_of(neurons, samples, h.itemsize)
    return lambda: [apply(act, h[b], out[b], np) for b in blocks]


def _field() -> Iterator[Line]:
    for neurons, samples, dim in ((4096, 400, 784), (16384, 1000, 64)):
        what = f"field of {neurons} neurons, P = {samples}, D = {dim}"
        (one, z), (two, _) = (_velocity(neurons, samples, dim, n) for n in (1, 2))
        t_one = seconds_of(lambda one=one, z=z: one(0.0, z), 5)
        t_two = seconds_of(lambda two=two, z=z: two(0.0, z), 5)
        products = _gemms(one, z)
        bare = seconds_of(products, 5)
        yield Line(what, 1, "evaluations", t_one, "its two matrix products alone", 1 / bare)
        if dim < samples:
            for name in ("tanh", "erf"):
                field, z = _velocity(neurons, samples, dim, 1, name)
                t = seconds_of(lambda field=field, z=z: field(0.0, z), 3)
                once = seconds_of(_activation_pass(name, neurons, samples), 3)
                yield Line(f"{what}, {name}", 1, "evaluations", t, "one pass of the activation", 1 / once)
                both = 1 / (once + bare)
                yield Line(f"{what}, {name}", 1, "evaluations", t, "that pass and the matrix products", both)
        yield Line(f"{what}, two threads", 1, "evaluations", t_two, "one thread", 1 / t_one)


_PEAK = """
import resource
from threadpoolctl import threadpool_limits
from benchmarks.network import _velocity
from tlcli.dmft.integrate import rkc_step
threadpool_limits(1)
field, z = _velocity(16384, 1000, 64, 2)
v = field(0.0, z)
field.stiffness(0.0, z)
rkc_step(field, 0.0, z, v, 1e-3, 5)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def _memory() -> Iterator[Line]:
    found: list[int] = []

    def run() -> None:
        done = subprocess.run([sys.executable, "-c", _PEAK], check=True, capture_output=True, text=True)
        found.append(int(done.stdout))

    seconds = seconds_of(run, 1)
    peak = found[0] / 1e6 if sys.platform != "darwin" else found[0] / 1e9
    yield Line(f"step of RKC2, S = 16384, P = 1000, D = 64: {peak:.2f} GB at the peak", 1, "runs", seconds)


# ---------------------------------------------------------------------------------------------- gradient descent


def _gradient_descent() -> Iterator[Line]:
    """The same neurons to the same time error: 1e-3 of the initial loss, test and train, at each of 101 records."""
    problem, x, labels = _problem(TIME, 1)
    rng = np.random.default_rng(5)
    weights, readout = rng.standard_normal((NEURONS, DIM)), rng.standard_normal(NEURONS)
    basis = np.linalg.lstsq(x / np.sqrt(DIM), problem.geometry.moving, rcond=None)[0]
    population = Population(weights @ basis, readout, np.zeros((NEURONS, 0)))

    def losses(f: np.ndarray) -> np.ndarray:
        out = [np.mean((f[:, rows] - labels[rows]) ** 2, axis=1) for rows in (slice(2 * SAMPLES, None), TRAIN)]
        return np.array([loss / loss[0] for loss in out])

    exact = losses(run_population(problem, population, Control("dop853", 1e-8))[0].f)
    runs: list[Any] = []

    def ours() -> None:
        runs.append(run_population(problem, population, Control(tolerance=1e-3), Machine("float32"))[0])

    seconds = seconds_of(ours, 3)
    error = np.max(np.abs(losses(runs[-1].f) - exact))
    if error > TIME_ERROR:
        raise AssertionError(f"RKC2 has a time error of {error:.2g}, more than {TIME_ERROR}.")
    steps = steps_of_euler(problem, population, losses, exact)
    name, y = f"stage of gradient flow, S = {NEURONS}, time error 1e-3 (RKC2)", labels[TRAIN].astype(np.float32)
    yield Line(
        f"{name}, {runs[-1].evaluations} evaluations",
        1,
        "runs",
        seconds,
        *torch_descent(x, steps, 1, lambda torch, f: 0.5 * torch.sum((torch.as_tensor(y) - f[:, 0]) ** 2)),
    )
    few = runs[-1].evaluations
    yield Line("evaluations of RKC2 (one per unit)", few, "evaluations", 1.0, f"Euler needs {steps}", few**2 / steps)


def steps_of_euler(problem: Problem, population: Population, losses: Callable[..., Any], exact: np.ndarray) -> int:
    """Steps of Euler for the time error; its error is of first order, so one run fixes it and a second checks."""
    count = 8000
    for _ in range(3):
        run = run_population(problem, population, Control("euler", dt=TIME / count))[0]
        error = float(np.max(np.abs(losses(run.f) - exact)))
        if 0.7 * TIME_ERROR < error <= TIME_ERROR:
            break
        count = int(np.ceil(count * (min(error / TIME_ERROR, 4.0) if np.isfinite(error) else 2.0) * 1.1))
    return count


def torch_descent(x: np.ndarray, steps: int, outputs: int, objective: Callable[[Any, Any], Any]) -> tuple[str, float]:
    """The usual way: a module's parameters, autograd, full-batch gradient descent, in single precision.

    `objective(torch, f)` is what is minimised of the outputs f (P, `outputs`) at the points TRAIN of x.
    """
    try:
        import torch
    except ImportError:
        return "PyTorch is not installed", float("nan")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    inputs = torch.tensor(x[TRAIN] / np.sqrt(DIM), dtype=torch.float32)
    w = torch.randn(DIM, NEURONS, requires_grad=True)
    a = torch.randn(NEURONS, outputs, requires_grad=True)
    rate = TIME / steps * NEURONS
    timed = min(steps, 4000)  # the steps are alike

    def descend() -> None:
        for _ in range(timed):
            loss = objective(torch, torch.tanh(inputs @ w) @ a / NEURONS)
            loss.backward()
            with torch.no_grad():
                w.sub_(rate * w.grad)
                a.sub_(rate * a.grad)
                w.grad = a.grad = None

    start = time.process_time()  # of one thread: other load on the machine is no cost of it
    descend()
    seconds = (time.process_time() - start) * steps / timed
    return f"PyTorch, {steps} steps of full-batch descent", 1 / seconds


def _accuracy() -> Line:
    """Both stages to a standard error of 1e-3, two cores."""
    problem, _, labels = _problem(3.0, 2)
    found: list[float] = []

    def run() -> None:
        with threadpool_limits(1):
            solution = solve(problem, Numerics(accuracy=1e-3, seed=1, threads=2))

        def loss(f: list[np.ndarray]) -> np.ndarray:
            return np.mean((f[1][:, 2 * SAMPLES :] - labels[2 * SAMPLES :]) ** 2, axis=1)

        value, error = solution.estimate(loss)
        found.append(float(np.sqrt(np.mean((error / value[0]) ** 2))))

    seconds = seconds_of(run, 1)
    return Line(f"two stages to a standard error of {found[0]:.2g}, two threads", 1, "runs", seconds)
