"""The columns of a transfer of any loss: losses, errors, calibrated losses, margins and gains, with their errors.

A stage's outputs are (n_time, n_point), or (n_time, n_point, C) with several of them. Every column is that of one
head: the source's readout, the target's, or that of the network from scratch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr

from tlcli.arrays import Array, Flags, Floats
from tlcli.dmft.estimates import (
    Piece,
    Statistic,
    error_by_points,
    estimate,
    mean_over_points,
    overfitting_by_points,
    time_change,
)
from tlcli.dmft.loss_setup import LossSetup, Side
from tlcli.losses.scores import (
    TIE,
    calibration,
    confidences,
    confusion,
    cross_calibrated,
    margins,
    point_errors,
    point_losses,
)

Estimator = Callable[[Sequence[Piece], Statistic], tuple[Floats, Floats]]

_SURE = 8.0  # standard errors of a margin, beyond which no number tells its sign from a certain one
GAINS = ("gain", "gain_error", "gain_calibrated")


@dataclass(frozen=True, eq=False)
class Heads:
    """What a transfer found: `pieces`, and per head which of them it is in stage 1 and in stage 2, None for none.

    `estimated` gives a statistic of the pieces and its standard error.
    """

    setup: LossSetup
    pieces: list[Piece]
    source: list[int | None]
    target: list[int | None]
    scratch: list[int | None]
    estimated: Estimator = estimate

    @classmethod
    def of(
        cls,
        setup: LossSetup,
        outputs: Sequence[Piece],
        old: Piece | None,
        baseline: Piece | None,
        estimated: Estimator = estimate,
    ) -> "Heads":
        """Sort the outputs of the stages, those of the source's readout in stage 2, and those from scratch."""
        s, (first, second) = setup.settings, setup.sides
        pieces = list(outputs)
        same = first.outputs == second.outputs
        # In stage 1 the target's loss is that of the source's outputs, where they are to be carried over.
        carried = same and s.readout != "reset" and not s.regresses
        found = cls(setup, pieces, [0, None], [0 if carried else None, None], [None, None], estimated)
        if not s.times2:
            return found
        found.target[1] = 1
        if old is not None:
            pieces.append(old)
            found.source[1] = len(pieces) - 1
        elif same:
            found.source[1] = 1
        if baseline is not None:
            pieces.append(baseline)
            found.scratch[1] = len(pieces) - 1
        return found

    def columns(self) -> dict[str, Array]:
        """Return every column and its error, over the records of both stages."""
        columns = dict[str, Array]()
        for name, scored in self._groups().items():
            columns |= scored.loss(name)
            columns |= scored.errors(_error_of(name))
            of_test = {"gain": name, "gain_error": _error_of(name)}
            if name in ("loss", "baseline"):
                of_test["gain_calibrated"] = "baseline_calibrated" if name == "baseline" else "loss_calibrated"
                columns |= scored.calibrated(of_test["gain_calibrated"])
            if "train" not in name:
                columns |= {f"{column}_test_se": scored.by_points(gain) for gain, column in of_test.items()}
            if name == "train_loss":
                columns |= scored.margin()
        each = self._judged()[0].per_point("gain")([p.whole for p in self.pieces])
        return columns | self._gains() | {"overfitting_test_se": overfitting_by_points(each)}

    def losses(self) -> dict[str, Array]:
        """Return the columns of losses and the gain in them alone, and their errors."""
        columns = dict[str, Array]()
        for name, scored in self._groups().items():
            columns |= scored.loss(name)
        with_, without = self._judged()
        gain, error = self.estimated(self.pieces, lambda f: without.mean_loss(f) - with_.mean_loss(f))
        return {**columns, "gain": gain, "gain_se": error}

    def shares(self) -> dict[str, Statistic]:
        """Return by column the share of misclassified points of given outputs, as it is, and the gain in it."""
        found = {_error_of(name): scored.share for name, scored in self._groups().items()}
        with_, without = self._judged()
        return {**found, "gain_error": lambda f: without.share(f) - with_.share(f)}

    def _groups(self) -> dict[str, "_Scored"]:
        """Return by the name of its loss every head with points and labels."""
        setup, (first, second) = self.setup, self.setup.sides
        with_, without = self._judged()
        return {
            "loss": with_,
            "baseline": without,
            "source_loss": _Scored(self, self.source, first, setup.test[first.known], first.test[first.known]),
            "train_loss": _Scored(self, self.target, second, setup.target, second.train),
            "source_train_loss": _Scored(self, self.source, first, setup.source, first.train),
        }

    def _judged(self) -> list["_Scored"]:
        """Return the target with and without pre-training on its labelled test points."""
        _, second = self.setup.sides
        points, labels = self.setup.test[second.known], second.test[second.known]
        return [_Scored(self, head, second, points, labels) for head in (self.target, self.scratch)]

    def _gains(self) -> dict[str, Array]:
        """Return the gains, their errors by the neurons, and those by the test points, paired over both networks."""
        with_, without = self._judged()
        columns: dict[str, Array] = {}
        for name in GAINS:
            a, b = with_.per_point(name), without.per_point(name)

            def gain(f: list[Floats], a: Statistic = a, b: Statistic = b) -> Floats:
                return mean_over_points(b(f) - a(f))

            columns[name], error = self.estimated(self.pieces, gain)
            if name == "gain_error":
                error = np.sqrt(error**2 + with_.doubt() + without.doubt())
            columns[f"{name}_se"] = error
            each = b([p.whole for p in self.pieces]) - a([p.whole for p in self.pieces])
            columns[f"{name}_test_se"] = error_by_points(each)
        return columns

    def arrays(self) -> dict[str, Array]:
        """Return what the outputs say of test points at the ends of the stages: confusion and confidence.

        `confusion_NAME` (C, C) of the source's head after stage 1 and stage 2, of the target and of the baseline;
        `confidence_NAME` (2, n) of the target and the baseline, as it is and calibrated, and `right_NAME` (n,), whether
        the likeliest class is the label. Heads without outputs, points or classes have none.
        """
        with_, without = self._judged()
        source, found = self._groups()["source_loss"], dict[str, Array]()
        middle = len(self.setup.settings.times1) - 1
        heads = {"source_stage1": (source, middle)}
        if self.setup.settings.times2:
            heads |= {"source_stage2": (source, -1), "baseline": (without, -1), "target": (with_, -1)}
        for name, (scored, record) in heads.items():
            table = scored.confusion(record)
            if table is not None:
                found[f"confusion_{name}"] = table
                pair = scored.confidence(record) if scored is not source else None
                found |= {} if pair is None else {f"confidence_{name}": pair[0], f"right_{name}": pair[1]}
        return found

    def time_changes(self) -> list[Floats]:
        """Return how much the losses with and without pre-training change with the tolerance of the integration."""
        return [time_change(self.pieces, scored.mean_loss) for scored in self._judged()]


class _Scored:
    """Statistics of one head on some points, over the records of both stages."""

    def __init__(self, heads: Heads, head: list[int | None], side: Side, points: Any, labels: Floats) -> None:
        s = heads.setup.settings
        self.pieces, self.estimated, self.head, self.side = heads.pieces, heads.estimated, head, side
        self.points, self.labels, self.counts = points, labels, (len(s.times1), len(s.times2))

    def outputs(self, f: list[Floats]) -> Floats:
        """Return the head's outputs at the points, (n_record, n) or (n_record, n, C); NaN where it has none."""
        parts = []
        for which, count in zip(self.head, self.counts, strict=True):
            if which is None:
                parts.append(np.full((count, len(self.points), *self.side.outputs), np.nan))
            else:
                parts.append(f[which][:, self.points])
        return np.concatenate(parts)

    def _live(self, found: Floats) -> Flags:
        return np.asarray(np.isfinite(found).all(axis=tuple(range(1, found.ndim))))

    def _over(self, function: Callable[[Floats], Floats]) -> Statistic:
        """Return per point (n_record, n) what `function` makes of outputs, NaN where there are none."""

        def statistic(f: list[Floats]) -> Floats:
            found = self.outputs(f)
            out, live = np.full(found.shape[:2], np.nan), self._live(found)
            if live.any() and found.shape[1]:
                out[live] = function(found[live])
            return out

        return statistic

    def per_point(self, gain: str) -> Statistic:
        """Return what a gain of this name is a difference of, per point."""
        if gain == "gain":
            return self._over(lambda f: point_losses(self.side.loss, f, self.labels))
        if self.side.classes is None:
            return lambda f: np.full(self.outputs(f).shape[:2], np.nan)
        if gain == "gain_calibrated":
            loss, labels = self.side.loss, self.labels
            return self._over(lambda f: point_losses(loss, cross_calibrated(loss, f, labels), labels))
        return self._smooth_errors()

    def _spread(self) -> Floats:
        """Return the error that the neurons leave in every margin, 0 for what is exact."""
        _, se = self.estimated(self.pieces, self._over(lambda f: margins(f, self.labels)))
        return np.where(np.nan_to_num(se) > TIE, se, 0.0)

    def _smooth_errors(self) -> Statistic:
        """Return how likely every point is misclassified, its margin being known to the error that neurons leave."""
        se = self._spread()
        tied = self._over(lambda f: point_errors(f, self.labels))
        margin = self._over(lambda f: margins(f, self.labels))

        def statistic(f: list[Floats]) -> Floats:
            sure, m = tied(f), margin(f)
            z = np.where(se > 0, m / np.where(se > 0, se, 1.0), np.inf)
            return np.where(np.abs(z) < _SURE, ndtr(-z), sure)

        return statistic

    def share(self, f: list[Floats]) -> Floats:
        """Return the share of misclassified points (n_record,) of outputs that are taken as they are."""
        if self.side.classes is None:
            return np.full(sum(self.counts), np.nan)
        return mean_over_points(self._over(lambda found: point_errors(found, self.labels))(f))

    def doubt(self) -> Floats:
        """Return the variance (n_record,) that margins of unknown sign add to that of the mean of their probabilities.

        A point is right or wrong: of probability p its variance is p (1 - p), and the jackknife sees n(z)^2 of it, with
        the normal density n at z = margin/error.
        """
        if self.side.classes is None:
            return np.zeros(sum(self.counts))
        se = self._spread()
        if not se.shape[1]:
            return np.zeros(len(se))
        z = np.nan_to_num(self._over(lambda f: margins(f, self.labels))([p.whole for p in self.pieces]))
        z = np.where(se > 0, z / np.where(se > 0, se, 1.0), np.inf)
        each = np.where(np.abs(z) < _SURE, ndtr(z) * ndtr(-z) - np.exp(-(z**2)) / (2 * np.pi), 0.0)
        return np.sum(each, axis=1) / se.shape[1] ** 2

    def confusion(self, record: int) -> Floats | None:
        """Return the table of classes and what they are taken for at a record, None where there is none."""
        f = self.outputs([p.whole for p in self.pieces])[record]
        if self.side.classes is None or not f.size or not np.isfinite(f).all():
            return None
        return confusion(f, self.labels)

    def confidence(self, record: int) -> tuple[Floats, Floats] | None:
        """Return confidences (2, n) of all points, as they are and calibrated, and whether these are right (n,)."""
        f, loss = self.outputs([p.whole for p in self.pieces])[record], self.side.loss
        plain, better = confidences(loss, f), confidences(loss, cross_calibrated(loss, f, self.labels))
        if plain is None or better is None:
            return None
        return np.stack([plain, better]), 1.0 - point_errors(f, self.labels)

    def mean_loss(self, f: list[Floats]) -> Floats:
        """Return the mean loss of every record."""
        return mean_over_points(self.per_point("gain")(f))

    def loss(self, name: str) -> dict[str, Array]:
        """Return the column of a loss and its error."""
        value, error = self.estimated(self.pieces, self.mean_loss)
        # Without its bias a loss that nearly vanishes may be below zero: then it stays as it is.
        biased = self.mean_loss([p.whole for p in self.pieces])
        low = value < 0
        return {name: np.where(low, biased, value), f"{name}_se": np.hypot(error, np.where(low, biased, 0.0))}

    def errors(self, name: str) -> dict[str, Array]:
        """Return the share of points that are misclassified and its error."""
        each = self.per_point("gain_error")
        value, error = self.estimated(self.pieces, lambda f: mean_over_points(each(f)))
        return {name: np.clip(value, 0.0, 1.0), f"{name}_se": np.sqrt(error**2 + self.doubt())}

    def calibrated(self, name: str) -> dict[str, Array]:
        """Return the loss after calibration, its error, and the temperature (of the target's head)."""
        each = self.per_point("gain_calibrated")
        value, error = self.estimated(self.pieces, lambda f: mean_over_points(each(f)))
        columns: dict[str, Array] = {name: np.maximum(value, 0.0), f"{name}_se": error}
        if name == "loss_calibrated":
            columns["temperature"] = self._temperature()
        return columns

    def _temperature(self) -> Floats:
        f = self.outputs([p.whole for p in self.pieces])
        out, live = np.full(len(f), np.nan), self._live(f)
        if live.any() and f.shape[1] and self.side.classes is not None:
            tau = calibration(self.side.loss, f[live], self.labels)
            with np.errstate(divide="ignore"):
                out[live] = 1 / tau
        return out

    def by_points(self, gain: str) -> Floats:
        """Return the error (n_record,) that the finite number of points leaves in a mean over them."""
        return error_by_points(self.per_point(gain)([p.whole for p in self.pieces]))

    def margin(self) -> dict[str, Array]:
        """Return the smallest margin of the points."""
        if self.side.classes is None:
            return {"margin": np.full(sum(self.counts), np.nan), "margin_se": np.full(sum(self.counts), np.nan)}
        each = self._over(lambda f: margins(f, self.labels))
        value, error = self.estimated(self.pieces, lambda f: each(f).min(axis=1, initial=np.inf))
        return {"margin": value, "margin_se": error}


def _error_of(loss: str) -> str:
    return "baseline_error" if loss == "baseline" else loss.replace("loss", "error")
