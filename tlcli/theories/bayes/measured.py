"""What sampled posteriors of named losses measure: losses and errors of the mean predictor, and overlaps.

The mean over replicas is that of the posterior's mean predictor. Losses are corrected by the jackknife for the noise of
finitely many replicas. Errors are means, and their errors spreads, over replicas that are drawn again from those that
there are: a point whose margin is within the noise counts as wrong in part.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tlcli.arrays import Floats
from tlcli.bayes.loss_columns import directions, overlap
from tlcli.bayes.observables import BayesProblem
from tlcli.dmft.loss_setup import Side
from tlcli.losses.scores import point_errors, point_losses

_AGAIN = 200  # times that replicas are drawn again

Means = Mapping[str, Floats]  # mean predictors at all points, by stage
Statistic = Callable[[Means], float]


def measured_losses(
    problem: BayesProblem, sides: tuple[Side, Side], stages: Mapping[str, Any]
) -> dict[str, tuple[float, float]]:
    """Return value and standard error of every measured column.

    `stages` are the posteriors `source`, `target` and `alone` of `tlcli.simulate.posterior`, of as many replicas each.
    """
    outputs = {name: stage.replica_outputs for name, stage in stages.items()}
    found: dict[str, tuple[float, float]] = {}
    for name, statistic in _statistics(problem, sides, point_losses_of).items():
        found[name] = _jackknife(statistic, outputs)
    shares = _statistics(problem, sides, point_errors_of)
    drawn = _drawn_again(shares, outputs)
    for name in shares:
        classes = sides[0 if name.startswith("source") else 1].classes
        column = "baseline_error" if name == "baseline" else f"{name}_error" if name == "gain" else name
        if classes is not None:
            found[column.replace("loss", "error")] = drawn[name]
    return found | _overlaps(problem, sides, stages)


def point_losses_of(side: Side, f: Floats, y: Floats) -> float:
    """Return the mean reported loss."""
    return float(point_losses(side.loss, f, y).mean()) if len(f) else math.nan


def point_errors_of(side: Side, f: Floats, y: Floats) -> float:
    """Return the share of misclassified points."""
    return float(point_errors(f, y).mean()) if len(f) else math.nan


def _statistics(
    p: BayesProblem, sides: tuple[Side, Side], score: Callable[[Side, Floats, Floats], float]
) -> dict[str, Statistic]:
    """Return, by the names of losses, what a score makes of mean predictors."""
    first, second = sides
    rows1, rows2 = p.test[first.known], p.test[second.known]
    y1, y2 = first.test[first.known], second.test[second.known]

    def target(f: Means) -> float:
        return score(second, f["target"][rows2], y2)

    def alone(f: Means) -> float:
        return score(second, f["alone"][rows2], y2)

    return {
        "loss": target,
        "baseline": alone,
        "gain": lambda f: alone(f) - target(f),
        "source_loss": lambda f: score(first, f["source"][rows1], y1),
        "train_loss": lambda f: score(second, f["target"][p.rows2], second.train),
        "source_train_loss": lambda f: score(first, f["source"][p.rows1], first.train),
    }


def _jackknife(statistic: Statistic, outputs: Means) -> tuple[float, float]:
    """Return a statistic of the means over replicas without its bias, and its standard error."""
    count = len(outputs["source"])
    whole = statistic({name: f.mean(axis=0) for name, f in outputs.items()})
    totals = {name: f.sum(axis=0) for name, f in outputs.items()}
    left_out = np.array(
        [statistic({name: (totals[name] - f[r]) / (count - 1) for name, f in outputs.items()}) for r in range(count)]
    )
    spread = float(np.sqrt((count - 1) * np.var(left_out)))
    return whole + (count - 1) * (whole - float(left_out.mean())), spread


def _drawn_again(statistics: Mapping[str, Statistic], outputs: Means) -> dict[str, tuple[float, float]]:
    count, rng = len(outputs["source"]), np.random.default_rng(0)
    drawn: dict[str, list[float]] = {name: [] for name in statistics}
    for _ in range(_AGAIN):
        weights = rng.multinomial(count, np.full(count, 1 / count)) / count
        means = {name: np.tensordot(weights, f, axes=1) for name, f in outputs.items()}
        for name, statistic in statistics.items():
            drawn[name].append(statistic(means))
    return {name: (float(np.mean(values)), float(np.std(values, ddof=1))) for name, values in drawn.items()}


def _overlaps(p: BayesProblem, sides: tuple[Side, Side], stages: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    one, two = (directions(side.train, side) for side in sides)
    found: dict[str, tuple[float, float]] = {}
    for name, stage, rows, columns, left, right in (
        ("source_overlap", "source", p.rows1, p.rows1, one, one),
        ("target_overlap", "target", p.rows2, p.rows2, two, two),
        ("cross_overlap", "target", p.rows1, p.rows2, one, two),
        ("retained_overlap", "target", p.rows1, p.rows1, one, one),
    ):
        kernels = stages[stage].replica_kernels
        values = np.array([overlap(kernel[np.ix_(rows, columns)], left, right) for kernel in kernels])
        found[name] = float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))
    return found
