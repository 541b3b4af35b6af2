"""Cost of one evaluation of the field, for any loss and number of outputs, beside the squared error of one output."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.timing import Line, seconds_of
from tlcli.dmft.activations import activation
from tlcli.dmft.field import Drive, Field
from tlcli.dmft.vector_field import VectorField
from tlcli.losses import loss_of
from tlcli.losses.labels import objective_of

NEURONS, SAMPLES, RANK = 2048, 50, 15
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
    """Yield a line per loss, against the squared error of one output."""
    field, state = evaluation("mse", 2, plain=True)
    base = seconds_of(lambda: field(0.0, state), repeats=20, least=0.02)
    for loss, classes in CASES:
        other, z = evaluation(loss, classes)
        seconds = seconds_of(lambda other=other, z=z: other(0.0, z), repeats=20, least=0.02)
        name = f"field of {loss}, {classes} classes, {NEURONS} neurons, {SAMPLES} samples"
        yield Line(name, 1, "evaluations", seconds, "squared error, one output", 1 / base)
