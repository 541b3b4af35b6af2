"""Classification averaged over data: a grid in one call, against one call per point and against real classifiers."""

from collections.abc import Iterator

import numpy as np

from benchmarks.timing import Line, seconds_of
from tlcli.linear.classify.readout import LOSSES, Loss, classify
from tlcli.simulate.classification import simulate_classification_ansatz

SIDE = 100


def lines() -> Iterator[Line]:
    alpha, spike = np.geomspace(0.1, 30, SIDE)[:, None], np.geomspace(0.1, 30, SIDE)
    for loss in LOSSES:
        rest = {"flips": 0.0 if loss == "margin" else 0.1}
        few = [(a, c) for a in alpha[::20, 0].tolist() for c in spike[::20].tolist()]

        def grid(loss: Loss = loss, rest: dict[str, float] = rest) -> None:
            assert np.all(classify(alpha, [spike], [0.4], loss=loss, ridge=0.1, **rest).status == 0)

        def each(loss: Loss = loss, rest: dict[str, float] = rest, few: list[tuple[float, float]] = few) -> None:
            for a, c in few:
                classify(a, [c], [0.4], loss=loss, ridge=0.1, **rest)

        rate = len(few) / seconds_of(each, 2)
        yield Line(
            f"classification, {loss}, open grid", SIDE**2, "points", seconds_of(grid, 2), "one call per point", rate
        )
    yield measured()


def measured() -> Line:
    """A standard error of 0.5 % of the error takes about 400 trials at D = 200."""
    point = {"alpha2": 1.0, "rho": 0.6, "c_signal": 4.0, "c_cross": 0.0, "c_noise": 0.0, "ridge": 0.1, "flips2": 0.1}
    seconds = seconds_of(lambda: simulate_classification_ansatz(point, dim=200, trials=10, seed=0), 1)
    one = seconds_of(lambda: classify(1.0, [4.0], [0.36], ridge=0.1, flips=0.1), 5)
    return Line("classification, one logistic point", 1, "points", one, "400 trials at D = 200", 1 / (40 * seconds))
