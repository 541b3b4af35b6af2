"""Problems with classes that the tests of Bayesian losses share (cases B of tests/reference/bayes_losses.csv)."""

import csv
from functools import lru_cache

import numpy as np

from tests.bayes.problems import REFERENCE, points, problem_a, problem_b, ring
from tlcli.losses import Objective, loss_of
from tlcli.losses.labels import objective_of

PARAMETERS = {
    "B1": {"gamma1": 1.5, "beta1": 4, "gamma2": 1, "beta2": 3, "delta": 1.5},
    "B2": {"gamma1": 3, "beta1": 10, "gamma2": 2, "beta2": 10, "delta": 0.5},
    "B4": {"gamma1": 1.5, "beta1": 5, "gamma2": 1, "beta2": 3, "delta": 1.5},
}
PARAMETERS |= {"B2s": PARAMETERS["B1"], "B2m": PARAMETERS["B1"], "B5": PARAMETERS["B1"], "B6": PARAMETERS["B4"]}


def objective(text, labels, classes: int | None = 2, smoothing=0.0, weights=None) -> Objective:
    """The loss of a training set."""
    return objective_of(loss_of(text, smoothing), np.asarray(labels, dtype=float), classes, "the task", weights)


@lru_cache
def _reference():
    found: dict = {}
    with (REFERENCE / "bayes_losses.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            entry = (row["stage"], row["quantity"])
            found.setdefault(row["case"], {}).setdefault(entry, []).append((float(row["value"]), float(row["error"])))
    return found


def reference(case, stage, quantity):
    """(values, errors) of one quantity of a case, rows of several outputs one after the other."""
    values, errors = zip(*_reference()[case][str(stage), quantity], strict=True)
    return np.array(values), np.array(errors)


def signs_of_a():
    """Problem A and the signs of its two teachers: (points, y1, y2)."""
    p, d = problem_a(), np.arange(1, 9)
    return p, np.sign(p.x[p.source] @ np.cos(d)), np.sign(p.x[p.target] @ np.cos(d + 0.5))


def case_of(name):
    """(points, objective of the source, of the target) of a case of the reference file."""
    if name in ("B4", "B6"):
        p = problem_b()
        if name == "B4":
            return p, objective("logistic", p.y1), objective("logistic", p.y2)
        p = points(ring(4, 0.1, 0.7), ring(3, 0.3, 0.7), ring(2, 1.0, 1.3), (0, 1, 2, 2), (1, 0, 2), (np.nan, np.nan))
        return p, objective("softmax", p.y1, 3), objective("softmax", p.y2, 3)
    p, y1, y2 = signs_of_a()
    if name == "B5":
        return p, objective("softmax", (0, 1, 2, 0, 1, 2), 3), None
    if name == "B2m":
        return p, objective("logistic", y1), objective("mse", p.y2, None)
    return p, objective("logistic", y1), objective("logistic", y2, 2, 0.2 if name == "B2s" else 0.0)


def agrees(case, stage, saddle, p, rows):
    """Assert that a saddle has every number of the reference file, within its error."""
    measured = {
        "F": saddle.free_energy,
        "v": saddle.v,
        "f_train": saddle.outputs[rows],
        "f_test": saddle.outputs[p.test],
    }
    measured |= {"q": saddle.info.get("q"), "u": saddle.info.get("u")}
    if case in ("B4", "B6"):
        measured["Phi"] = saddle.kernel[rows[0], rows]
    names = {quantity for at, quantity in _reference()[case] if at == str(stage)}
    assert {"v", f"F{stage}", "f_train", "f_test"} <= names
    for name in names:
        values, errors = reference(case, stage, name)
        found = np.ravel(measured[name.rstrip("12")])
        scale = np.maximum(np.abs(values), 1.0)
        assert np.all(np.abs(found - values) <= np.maximum(errors, 1e-8) * scale), (case, stage, name)
