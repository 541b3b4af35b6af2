"""The problems of tests/reference/general_loss.csv: inputs cos(mu i + i^2), tasks of three points each."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from tlcli.dmft.activations import activation
from tlcli.dmft.field import to_numpy
from tlcli.dmft.geometry import reduce_inputs
from tlcli.dmft.integrate import Control
from tlcli.dmft.population import Population
from tlcli.dmft.two_layer import Problem, Stage, run_population
from tlcli.losses import loss_of
from tlcli.losses.labels import objective_of

TABLE = Path(__file__).parents[1] / "reference" / "general_loss.csv"
Y1, Y2 = np.array([1.0, -1, 1]), np.array([-1.0, 1, 1])
C1, C2 = np.array([0.0, 1, 2]), np.array([2.0, 0, 1])


def rows(case, quantity="f"):
    """Rows of the table as (stage, time, index, output, value, error)."""
    with TABLE.open() as table:
        found = [row for row in csv.DictReader(table) if row["case"] == case and row["quantity"] == quantity]
    numbers = ("time", "value", "error")
    return [
        {
            **{name: float(row[name]) for name in numbers if row[name]},
            "stage": int(row["stage"]),
            "index": int(row["index"].rpartition(":")[2] or 0)
            - 1,  # of a kernel the point beside the first of the stage
            "output": row["output"] if ":" in row["output"] else int(row["output"] or 0),
        }
        for row in found
    ]


def inputs(count, dim):
    """Points (count, dim)."""
    return np.cos(np.arange(1, count + 1)[:, None] * np.arange(1, dim + 1) + np.arange(1, dim + 1) ** 2)


def objective(loss, labels, classes=None, smoothing=0.0, weights=None):
    """An objective, with weights per sample."""
    found = objective_of(loss_of(loss, smoothing), labels, classes, "the task")
    return found if weights is None else replace(found, weights=np.array(weights))


def cases():
    """Case -> activation, dimension, and stages (objective, gamma, weight decay, readout)."""
    vectors = np.array([[1, 0.5], [-1, 0], [0.5, -1]]), np.array([[0.0, 1], [1, 1], [-0.5, 0]])
    one, two = objective("logistic", Y1, 2), objective("logistic", Y2, 2)
    first, second = objective("softmax", C1, 3), objective("softmax", C2, 3)
    softened = objective("logistic", Y1, 2, 0.2, (1.5, 0.75, 0.75))
    return {
        "L1": ("linear", 6, [(one, 1, 0, "carry"), (two, 2, 0, "carry")]),
        "L2": ("linear", 6, [(one, 1, 0, "carry"), (two, 2, 0, "carry-centred")]),
        "L3": ("linear", 6, [(first, 0.5, 0.05, "carry"), (two, 1.5, 0.02, "reset")]),
        "L4": ("linear", 6, [(softened, 1, 0, "carry"), (objective("hinge2", Y2, 2), 1, 0, "reset")]),
        "L5": (
            "linear",
            6,
            [(objective("huber:0.5", np.array([2, -1, 0.5])), 1, 0, "carry"), (second, 1, 0.02, "reset")],
        ),
        "L6": (
            "linear",
            6,
            [(objective("mse", vectors[0]), 1, 0, "carry"), (objective("mse", vectors[1]), 0.5, 0.05, "carry")],
        ),
        "Q1": ("tanh", 2, [(one, 1, 0, "carry"), (two, 2, 0, "carry")]),
        "Q2": ("tanh", 2, [(first, 1.5, 0.05, "carry")]),
        "Q3": ("tanh", 2, [(one, 1, 0, "carry"), (second, 2, 0.05, "reset")]),
        "Q4": ("tanh", 2, [(first, 2, 0, "carry"), (objective("logistic", Y2, 2, 0.1), 0.5, 0.05, "reset")]),
        "M1": ("relu", 2, [(first, 1, 0, "carry"), (second, 1, 0, "carry")]),
    }


def problem(case):
    """The case as a problem of the engine; its times are those of the table."""
    act, dim, stages = cases()[case]
    found = []
    for k, (target, gamma, decay, readout) in enumerate(stages, 1):
        times = sorted({row["time"] for row in rows(case) if row["stage"] == k})
        times = times or [16.0]  # of the stage that L2 shares with L1
        points = np.arange(3) + 3 * (k - 1)
        found.append(Stage(points, target.y, gamma, np.array(times), 1 / 3, decay, readout, target))
    return Problem(activation(act), reduce_inputs(inputs(8, dim), 6), found)


def deviations(case, stages, outputs):
    """Return (deviation, error) of every row: outputs per stage (n_time, n_point[, C])."""
    out = []
    for row in rows(case):
        stage = stages[row["stage"] - 1]
        record = stage.times.tolist().index(row["time"])
        value = outputs[row["stage"] - 1][record, row["index"]]
        out.append((float(value if np.ndim(value) == 0 else value[row["output"]]) - row["value"], row["error"]))
    return np.array(out)


def objectives(case, stages, outputs):
    """Return (deviation, error) of every row of the objective: outputs per stage (n_time, n_point[, C])."""
    out = []
    for row in rows(case, "objective"):
        stage = stages[row["stage"] - 1]
        f = outputs[row["stage"] - 1][stage.times.tolist().index(row["time"]), stage.rows]
        g = f if stage.objective.basis is None else f @ stage.objective.basis
        out.append((stage.objective.value(g) * stage.scale - row["value"], row["error"]))
    return np.array(out)


def look(problem):
    """Return an observer of <a a^T> in the space of outputs, <|u|^2> and the kernel of the stage's points with all."""

    def observe(which, record, time, view):
        stage = problem.stages[which]
        u, a = (to_numpy(part) for part in view.field.split(view.state))
        a = a[:, None] if a.ndim == 1 else a if stage.objective.basis is None else a @ stage.objective.basis.T
        weights = view.field.neuron_weights()
        return {
            "aa": (a.T * weights) @ a,
            "u2": weights @ np.square(u).sum(axis=1),
            "Phi": view.kernels(stage.rows, slice(None))[0],
        }

    return observe


def moments(case, stages, found):
    """Return (deviation, standard error, error) of every row of what neurons end with, of a solution with `look`."""
    out = []
    for quantity in ("a2", "u2", "aa", "Phi", "f_old_head"):
        for row in rows(case, quantity):
            which = row["stage"] - 1
            at = stages[which].times.tolist().index(row["time"])
            if quantity == "f_old_head":
                values = stages[which - 1].objective.outputs(found.observed[which]["old_outputs"][:, at])
                values = values[:, row["index"]] if values.ndim == 2 else values[:, row["index"], row["output"]]
            elif quantity == "Phi":
                values = found.observed[which]["Phi"][:, at, 0, row["index"]]
            elif quantity == "u2":
                values = found.observed[which]["u2"][:, at]
            else:
                each = found.observed[which]["aa"][:, at]
                i, j = map(int, row["output"].split(":")) if quantity == "aa" else (0, 0)
                values = each[:, i, j] if quantity == "aa" else np.trace(each, axis1=1, axis2=2)
                if quantity == "a2" and stages[which].objective.basis is not None:  # the table has all C readouts,
                    values = values + np.exp(-2 * stages[which].decay * row["time"])  # whose common part only decays
            count = len(values)
            error = values.std(ddof=1) / np.sqrt(count) if count > 1 else 0.0
            out.append((values.mean() - row["value"], error, row["error"]))
    return np.array(out)


def deep_cases():
    """Case -> activation, step of gradient descent, and stages, of networks with two hidden layers and four inputs."""
    one, two = objective("logistic", Y1, 2), objective("logistic", Y2, 2)
    first, second = objective("softmax", C1, 3), objective("softmax", C2, 3)
    return {
        "D1": ("linear", 0.2, [(one, 1, 0, "carry"), (two, 2, 0, "carry")]),
        "D2": ("linear", 0.2, [(first, 1.5, 0.05, "carry"), (two, 1, 0.05, "reset")]),
        "D3": ("tanh", 0.4, [(one, 1, 0, "carry"), (two, 2, 0, "carry")]),
        "D4": ("tanh", 0.4, [(one, 1, 0.05, "carry"), (second, 1, 0.05, "reset")]),
    }


def stages_of(case, stages):
    """Stages of three points each, with the times of the table."""
    found = []
    for k, (target, gamma, decay, readout) in enumerate(stages, 1):
        times = sorted({row["time"] for row in rows(case) if row["stage"] == k})
        points = np.arange(3) + 3 * (k - 1)
        found.append(Stage(points, target.y, gamma, np.array(times), 1 / 3, decay, readout, target))
    return found


def small(act="tanh", seed=0):
    """Geometry of 8 points and one population of 40 neurons (u, a) with a (40, 3)."""
    rng = np.random.default_rng(seed)
    geometry = reduce_inputs(inputs(8, 4), 6)
    return activation(act), geometry, rng.standard_normal((40, geometry.rank)), rng.standard_normal((40, 3))


def train(act, geometry, hidden, readout, stages, times=(1.0, 4.0)):
    """Outputs of the last stage (n_time, n_point[, K]) and the final state, of one population."""
    still = np.zeros((len(hidden), geometry.still.shape[1]))
    made = []
    for k, (target, gamma, decay) in enumerate(stages):
        points = np.arange(3) + 3 * k
        made.append(Stage(points, target.y, gamma, np.array(times), 1 / 3, decay, "carry", target))
    runs = run_population(Problem(act, geometry, made), Population(hidden, readout, still), Control("dop853", 1e-12))
    return runs[-1].f, runs[-1].outcome.state
