"""The columns of a transfer with the squared error of one output: losses and the gain in them, with their errors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Array, Floats, Indices
from tlcli.dmft.estimates import Piece, Statistic, error_by_points, estimate, mean_over_points, overfitting_by_points
from tlcli.dmft.settings import Setup

GAIN = "gain"


@dataclass(frozen=True, eq=False)
class Squares:
    """Squared errors of outputs [stage 1, (stage 2, (baseline))], each (n_time, n_point), over all their records.

    `stages` is how many of the outputs are of the network with pre-training; `scratch` whether there is a baseline.
    """

    setup: Setup
    stages: int
    scratch: bool

    def each(self) -> dict[str, Statistic]:
        """Return by column the squared error at every point (n_record, n) that has a label; NaN without an output."""
        setup, data = self.setup, self.setup.data
        target = self._over(setup.test, data.y_test_target)

        def baseline(f: list[Floats]) -> Floats:
            alone = [np.full_like(f[0], np.nan), f[-1]]
            return target(alone) if self.scratch else np.full_like(target(f), np.nan)

        return {
            "loss": target,
            "source_loss": self._over(setup.test, data.y_test_source),
            "train_loss": self._over(setup.target, data.y_target),
            "source_train_loss": self._over(setup.source, data.y_source),
            "baseline": baseline,
        }

    def _over(self, points: Indices, labels: Floats) -> Statistic:
        keep = np.isfinite(labels)
        chosen, y = points[keep], labels[keep]
        return lambda f: (np.concatenate(f[: self.stages])[:, chosen] - y) ** 2

    def statistics(self) -> dict[str, Statistic]:
        """Return by column the mean (n_record,) of given outputs, and the gain."""
        found = {name: _mean_of(each) for name, each in self.each().items()}
        return {**found, GAIN: lambda f: found["baseline"](f) - found["loss"](f)}

    def columns(self, pieces: Sequence[Piece]) -> dict[str, Array]:
        """Return every column with its error by the neurons, and those of test points with that by their number."""
        columns: dict[str, Array] = {}
        whole = [p.whole for p in pieces]
        for name, statistic in self.statistics().items():
            value, error = estimate(pieces, statistic)
            if name != GAIN:
                # Without its bias a loss that nearly vanishes may be below zero: then it stays as it is.
                biased = statistic(whole)
                value, error = np.where(value < 0, biased, value), np.hypot(error, np.where(value < 0, biased, 0.0))
            columns[name], columns[f"{name}_se"] = value, error
        columns[GAIN] = columns["baseline"] - columns["loss"]
        at_points = {name: each(whole) for name, each in self.each().items() if "train" not in name}
        at_points[GAIN] = at_points["baseline"] - at_points["loss"]
        columns |= {f"{name}_test_se": error_by_points(each) for name, each in at_points.items()}
        return columns | {"overfitting_test_se": overfitting_by_points(at_points["loss"])}


def _mean_of(each: Statistic) -> Callable[[list[Floats]], Floats]:
    return lambda f: mean_over_points(each(f))
