"""Classifiers: fields of any loss beside the squared error's, cross-entropy beside PyTorch, deep networks."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.deep import Task, cpu_of
from benchmarks.network import DIM, TEST, TIME, TIME_ERROR, TRAIN, steps_of_euler, torch_descent
from benchmarks.network import NEURONS as DESCENDING
from benchmarks.timing import Line, in_turns
from tlcli.dmft.activations import activation
from tlcli.dmft.deep.run import Surgery, run_stages
from tlcli.dmft.deep.start import sampled
from tlcli.dmft.field import Drive, Field
from tlcli.dmft.geometry import reduce_inputs
from tlcli.dmft.integrate import Control
from tlcli.dmft.population import Population
from tlcli.dmft.two_layer import Machine, Problem, Stage, run_population
from tlcli.dmft.vector_field import VectorField
from tlcli.losses import loss_of
from tlcli.losses.labels import objective_of

NEURONS, SAMPLES, RANK = 2048, 50, 15
TOLERANCE = 1e-3  # of RKC2, for a time error of 1e-3
CASES = (("logistic", 2), ("softmax", 3), ("softmax", 10))


def evaluation(loss: str, classes: int, plain: bool = False) -> tuple[Field, Any]:
    """Return a field in single precision and a state; `plain`: the squared error as it is without a named loss."""
    rng = np.random.default_rng(0)
    coords = rng.standard_normal((SAMPLES, RANK)) / np.sqrt(RANK)
    labels = rng.choice([-1.0, 1.0], SAMPLES) if classes == 2 else rng.integers(0, classes, SAMPLES).astype(float)
    objective = None if plain else objective_of(loss_of(loss), labels, classes, "the benchmark")
    drive = Drive(coords, labels, 1.0, 1 / SAMPLES, objective=objective)
    readouts = None if objective is None else objective.readouts
    kind = Field if readouts is None else VectorField
    field = kind(activation("tanh"), NEURONS, drive, dtype="float32")
    return field, field.asarray(rng.standard_normal(NEURONS * (RANK + (readouts or 1))))


def lines() -> Iterator[Line]:
    yield from _fields()
    yield _gradient_descent()
    yield from _deep()


def _fields() -> Iterator[Line]:
    """A line per loss, against the squared error of one output: CPU time, in turns, so that load falls on all alike."""
    made = [evaluation("mse", 2, plain=True), *(evaluation(*case) for case in CASES)]
    base, *others = in_turns([lambda field=field, z=z: field(0.0, z) for field, z in made])
    for (loss, classes), seconds in zip(CASES, others, strict=True):
        name = f"field of {loss}, {classes} classes, {NEURONS} neurons, {SAMPLES} samples"
        yield Line(name, 1, "evaluations", seconds, "squared error, one output", 1 / base)


def _gradient_descent() -> Line:
    """Ten classes: the same neurons to the same time error, 1e-3 of ln 10, test and train, at each of 101 records."""
    rng, count = np.random.default_rng(1), TRAIN.stop
    x = rng.standard_normal((count + TEST, DIM))
    classes = np.argmax(x @ rng.standard_normal((DIM, 10)), axis=1)
    target = objective_of(loss_of("softmax"), classes[TRAIN].astype(float), 10, "the benchmark")
    stage = Stage(np.arange(TRAIN.start, count), target.y, 1.0, np.linspace(0, TIME, 101), 1.0, objective=target)
    problem = Problem(activation("tanh"), reduce_inputs(x, count), [stage])
    basis = np.linalg.lstsq(x / np.sqrt(DIM), problem.geometry.moving, rcond=None)[0]
    weights, readout = rng.standard_normal((DESCENDING, DIM)), rng.standard_normal((DESCENDING, 9))
    population = Population(weights @ basis, readout, np.zeros((DESCENDING, 0)))

    def losses(f: np.ndarray) -> np.ndarray:
        y = np.eye(10)[classes]
        parts = (slice(count, None), TRAIN)
        return np.array([target.loss.value(target.outputs(f[:, p]), y[p]).mean(axis=1) for p in parts]) / np.log(10)

    exact = losses(run_population(problem, population, Control("dop853", 1e-8))[0].f)
    runs: list[Any] = []

    def ours() -> None:
        runs.append(run_population(problem, population, Control(tolerance=TOLERANCE), Machine("float32"))[0])

    seconds = cpu_of(ours, 3)
    error = np.max(np.abs(losses(runs[-1].f) - exact))
    if error > TIME_ERROR:
        raise AssertionError(f"RKC2 has a time error of {error:.2g}, more than {TIME_ERROR}.")
    steps = steps_of_euler(problem, population, losses, exact)
    y = classes[TRAIN]

    def cross_entropy(torch: Any, f: Any) -> Any:
        return torch.nn.functional.cross_entropy(f, torch.as_tensor(y), reduction="sum")

    name = f"stage of cross-entropy, 10 classes, S = {DESCENDING}, time error 1e-3 (RKC2)"
    return Line(
        f"{name}, {runs[-1].evaluations} evaluations", 1, "runs", seconds, *torch_descent(x, steps, 10, cross_entropy)
    )


def _deep() -> Iterator[Line]:
    """Two hidden layers: a step of the sweep costs the same for any number of classes."""
    task = Task("tanh", 10, 0, 30, 0.05)
    geometry, train = reduce_inputs(task.inputs, 2 * task.points), np.arange(2 * task.points)

    def seconds(classes: int | None) -> float:
        stages, made = task.stages(1), []
        for stage in stages:
            if classes is not None:
                labels = np.arange(float(task.points)) % classes
                target = objective_of(loss_of("softmax"), labels, classes, "the benchmark")
                made.append(replace(stage, labels=target.y, objective=target))
        readouts = (made[0].readouts, made[1].readouts) if made else (None, None)

        def run() -> None:
            rng = np.random.default_rng(0)
            start = sampled(activation("tanh"), geometry, 2, 4000, rng, train, tol=0.05, readouts=readouts)
            run_stages(start, made or stages, Control("euler", dt=task.dt), Surgery())

        return cpu_of(run, 2)

    base = seconds(None)
    for classes in (3, 10):
        name = f"sweep of softmax, {classes} classes, S = 4000, P = 10 + 10"
        yield Line(name, 2 * task.steps, "steps", seconds(classes), "squared error, one output", 2 * task.steps / base)
