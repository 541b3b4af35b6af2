"""A transfer of any loss, with as many outputs as its tasks have: what is computed, and what its columns say.

The parts are those of `tlcli.dmft.parts`. A stage's outputs are (n_time, n_point), or (n_time, n_point, C) with
several of them; where the readout is redrawn, or belongs to other outputs, the source's loss is that of the source's
readout on the features of the moment.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.special import ndtr

from tlcli.dmft.ensemble import Solution
from tlcli.dmft.estimates import Piece, averaged, estimate, time_change
from tlcli.dmft.loss_regression import loss_regression
from tlcli.dmft.loss_setup import LossSetup, Side
from tlcli.dmft.parts import Parts
from tlcli.dmft.regression import force_scale
from tlcli.dmft.two_layer import Stage
from tlcli.errors import DomainError
from tlcli.losses.scores import TIE, calibrated_losses, margins, point_errors, point_losses

Array = NDArray[np.float64]
Statistic = Callable[[list[Array]], Array]

# Of the gains: what is subtracted from what.
GAINS = {"gain": ("baseline", "loss"), "gain_error": ("baseline_error", "error")}
GAINS["gain_calibrated"] = ("baseline_calibrated", "loss_calibrated")


class LossParts(Parts):
    """Runs the pieces of a transfer of any loss and joins them."""

    setup: LossSetup

    def run(self) -> None:
        """Train both stages and the baseline."""
        self.setup.check()
        super().run()

    def _solve(self, stages: list[Stage], watch: Any) -> Solution:
        """Return the solution with outputs instead of readout coordinates."""
        found = super()._solve(stages, watch)
        for k, stage in enumerate(stages):
            objective = stage.objective
            assert objective is not None
            found.f[k] = objective.outputs(found.f[k])
            for more in (found.coarse, found.retimed):
                if more is not None:
                    more[k] = objective.outputs(more[k])
        return found

    def _lazy_source(self) -> Array:
        """Train with the kernel at initialisation, by the flow in time."""
        setup, s = self.setup, self.setup.settings
        side, kernel = setup.sides[0], setup.initial.ntk[:, setup.source]
        if s.weight_decay == 0:
            return loss_regression(kernel[setup.source], kernel, side.objective, time=s.times1, reduction=s.reduction)
        if not setup.act.homogeneous:
            raise DomainError(
                f"weight decay = {s.weight_decay:g} in the lazy limit needs a homogeneous activation (relu or linear): "
                f"the kernel of '{setup.act.name}' changes its shape as the initial weights decay; use weight decay 0."
            )
        return _decaying_flow(kernel, setup.source, side, s.times1, s.weight_decay, s.reduction)

    def _regress(self, kernel: Array) -> Array:
        s, setup = self.setup.settings, self.setup
        return loss_regression(
            kernel[setup.target],
            kernel,
            setup.sides[1].objective,
            ridge=s.second_ridge,
            time=s.times2,
            reduction=s.reduction,
        )

    def _frozen_shape(self) -> tuple[int, ...]:
        return (*super()._frozen_shape(), *self.setup.sides[1].outputs)

    def _at_rest(self, stage: int, phi: Array, rows: NDArray[np.int_], decay: float) -> Array:
        """Return the regression with its own kernel that a network at rest obeys (general losses, identity 9)."""
        objective, reduction = self.setup.sides[stage].objective, self.setup.settings.reduction
        return loss_regression(phi[rows], phi, objective, ridge=decay, reduction=reduction)[0]

    def _unit(self) -> float:
        side = self.setup.sides[1 if self.setup.settings.times2 else 0]
        return side.objective.size**2

    # ------------------------------------------------------------------------------------------- columns

    def _heads(self) -> tuple[list[Piece], dict[str, list[int | None]]]:
        """Return all pieces, and per head (source, target, scratch) which of them it is in stage 1 and in stage 2.

        None: it has no outputs there.
        """
        s, (first, second) = self.setup.settings, self.setup.sides
        pieces = list(self.outputs)
        same = first.outputs == second.outputs
        # In stage 1 the target's loss is that of the source's outputs, where they are to be carried over.
        carried = same and s.readout != "reset" and not s.regresses
        heads: dict[str, list[int | None]] = {"source": [0, None], "target": [0 if carried else None, None]}
        heads["scratch"] = [None, None]
        if not s.times2:
            return pieces, heads
        heads["target"][1] = 1
        old = self._old_head()
        if old is not None:
            pieces.append(old)
            heads["source"][1] = len(pieces) - 1
        elif same:
            heads["source"][1] = 1
        if self.baseline is not None:
            pieces.append(self.baseline)
            heads["scratch"][1] = len(pieces) - 1
        return pieces, heads

    def _old_head(self) -> Piece | None:
        """Return what the source's readout says in stage 2, None where it is the target's as well."""
        s = self.setup.settings
        n2 = len(s.times2)
        if s.regresses:
            last = self.outputs[0]  # features and readout of the source stay what they are

            def held(f: Array | None, axis: int) -> Array | None:
                return None if f is None else np.repeat(f.take([-1], axis=axis), n2, axis=axis)

            whole = held(last.whole, 0)
            assert whole is not None
            parts = (held(part, 1) for part in (last.left_out, last.halves, last.coarse))
            return Piece(whole, *parts, retimed=held(last.retimed, 0))
        if "old_outputs" not in self.observed[1]:
            return None
        objective = self.setup.sides[0].objective

        def of(observed: dict[str, Any] | None) -> Array | None:
            if observed is None or "old_outputs" not in observed:
                return None
            found = objective.outputs(observed["old_outputs"])
            blank = np.full((found.shape[0], n2 - found.shape[1], *found.shape[2:]), np.nan)  # of a run that broke off
            return np.concatenate([found, blank], axis=1)

        samples = of(self.observed[1])
        assert samples is not None
        return averaged(samples, of(self.coarse_observed[1]), of(self.retimed[1]))

    def _columns(self) -> dict[str, NDArray[Any]]:
        pieces, heads = self._heads()
        setup = self.setup
        first, second = setup.sides
        columns: dict[str, NDArray[Any]] = {}
        # Name of the loss, the head, its side, its points and labels.
        groups = [
            ("loss", "target", second, setup.test[second.known], second.test[second.known]),
            ("baseline", "scratch", second, setup.test[second.known], second.test[second.known]),
            ("source_loss", "source", first, setup.test[first.known], first.test[first.known]),
            ("train_loss", "target", second, setup.target, second.train),
            ("source_train_loss", "source", first, setup.source, first.train),
        ]
        for name, head, side, points, labels in groups:
            scored = _Scored(self, pieces, heads[head], side, points, labels)
            columns |= scored.loss(name)
            error = "baseline_error" if name == "baseline" else name.replace("loss", "error")
            columns |= scored.errors(error)
            if name in ("loss", "baseline"):
                columns |= scored.calibrated("baseline_calibrated" if name == "baseline" else "loss_calibrated")
            if name == "train_loss":
                columns |= scored.margin()
        return columns | self._gains(pieces, heads)

    def _gains(self, pieces: list[Piece], heads: dict[str, list[int | None]]) -> dict[str, NDArray[Any]]:
        """Return the gains, their errors by the neurons, and those by the test points, paired over both networks."""
        _, second = self.setup.sides
        points, labels = self.setup.test[second.known], second.test[second.known]
        with_, without = (_Scored(self, pieces, heads[head], second, points, labels) for head in ("target", "scratch"))
        columns: dict[str, NDArray[Any]] = {}
        for name in GAINS:
            a, b = with_.per_point(name), without.per_point(name)

            def gain(f: list[Array], a: Statistic = a, b: Statistic = b) -> Array:
                return _mean(b(f) - a(f))

            columns[name], columns[f"{name}_se"] = self._estimated(pieces, gain)
            each = b([p.whole for p in pieces]) - a([p.whole for p in pieces])
            n = each.shape[1]
            spread = each.std(axis=1, ddof=1) / np.sqrt(n) if n > 1 else np.full(len(each), np.nan)
            columns[f"{name}_test_se"] = spread
        return columns

    def _estimated(self, pieces: list[Piece], statistic: Statistic) -> tuple[Array, Array]:
        return estimate(pieces, statistic)

    def _losses_of_time(self, pieces: list[Piece]) -> list[Array]:
        """Return how much the judged losses change with the tolerance of the integration."""
        found, heads = self._heads()
        _, second = self.setup.sides
        points, labels = self.setup.test[second.known], second.test[second.known]
        out = []
        for head in ("target", "scratch"):
            scored = _Scored(self, found, heads[head], second, points, labels)
            out.append(time_change(found, scored.mean_loss))
        return out

    def _measured(self) -> tuple[dict[str, NDArray[Any]], list[Array]]:
        """Return the columns of losses and gains, and the part of the integration in the judged ones."""
        columns = self._columns()
        changes = self._losses_of_time(list(self.outputs))
        if not np.any(np.isfinite(columns["loss"])):  # without labels of the test points
            changes = [np.zeros(len(columns["loss"]))]
        return columns, changes

    def _predicted(self, pieces: Sequence[Piece]) -> dict[str, NDArray[Any]]:
        """Return the predictions with errors: together where the stages have the same outputs, else by stage."""
        stages = list(pieces[: len(self.outputs)])
        if len({p.whole.shape[2:] for p in stages}) == 1:
            value, error = estimate(stages, np.concatenate)
            return {"predictions": value, "predictions_se": error}
        out: dict[str, NDArray[Any]] = {}
        for k, piece in enumerate(stages, 1):
            value, error = estimate([piece], lambda f: f[0])
            out |= {f"predictions_stage{k}": value, f"predictions_stage{k}_se": error}
        return out


class _Scored:
    """Statistics of one head on some points, over the records of both stages."""

    def __init__(
        self, parts: LossParts, pieces: list[Piece], head: list[int | None], side: Side, points: Any, labels: Array
    ) -> None:
        s = parts.setup.settings
        self.parts, self.pieces, self.head, self.side = parts, pieces, head, side
        self.points, self.labels, self.counts = points, labels, (len(s.times1), len(s.times2))

    def outputs(self, f: list[Array]) -> Array:
        """Return the head's outputs at the points, (n_record, n) or (n_record, n, C); NaN where it has none."""
        parts = []
        for which, count in zip(self.head, self.counts, strict=True):
            if which is None:
                parts.append(np.full((count, len(self.points), *self.side.outputs), np.nan))
            else:
                parts.append(f[which][:, self.points])
        return np.concatenate(parts)

    def _live(self, found: Array) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(found).all(axis=tuple(range(1, found.ndim))))

    def _over(self, function: Callable[[Array], Array]) -> Statistic:
        """Return per point (n_record, n) what `function` makes of outputs, NaN where there are none."""

        def statistic(f: list[Array]) -> Array:
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
            return self._over(lambda f: calibrated_losses(self.side.loss, f, self.labels)[0])
        return self._smooth_errors()

    def _smooth_errors(self) -> Statistic:
        """Return how likely every point is misclassified, its margin being known to the error that neurons leave."""
        _, se = estimate(self.pieces, self._over(lambda f: margins(f, self.labels)))
        se = np.where(np.nan_to_num(se) > TIE, se, 0.0)
        tied = self._over(lambda f: point_errors(f, self.labels))
        margin = self._over(lambda f: margins(f, self.labels))

        def statistic(f: list[Array]) -> Array:
            sure, m = tied(f), margin(f)
            return np.where(se > 0, ndtr(-m / np.where(se > 0, se, 1.0)), sure)

        return statistic

    def mean_loss(self, f: list[Array]) -> Array:
        """Return the mean loss of every record."""
        return _mean(self.per_point("gain")(f))

    def loss(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the column of a loss and its error."""
        value, error = self.parts._estimated(self.pieces, self.mean_loss)
        # Without its bias a loss that nearly vanishes may be below zero: then it stays as it is.
        biased = self.mean_loss([p.whole for p in self.pieces])
        low = value < 0
        return {name: np.where(low, biased, value), f"{name}_se": np.hypot(error, np.where(low, biased, 0.0))}

    def errors(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the share of points that are misclassified and its error."""
        each = self.per_point("gain_error")
        value, error = self.parts._estimated(self.pieces, lambda f: _mean(each(f)))
        return {name: np.clip(value, 0.0, 1.0), f"{name}_se": error}

    def calibrated(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the loss after calibration, its error, and the temperature (of the target's head)."""
        each = self.per_point("gain_calibrated")
        value, error = self.parts._estimated(self.pieces, lambda f: _mean(each(f)))
        columns: dict[str, NDArray[Any]] = {name: np.maximum(value, 0.0), f"{name}_se": error}
        if name == "loss_calibrated":
            columns["temperature"] = self._temperature()
        return columns

    def _temperature(self) -> Array:
        f = self.outputs([p.whole for p in self.pieces])
        out, live = np.full(len(f), np.nan), self._live(f)
        if live.any() and f.shape[1] and self.side.classes is not None:
            tau = calibrated_losses(self.side.loss, f[live], self.labels)[1]
            with np.errstate(divide="ignore"):
                out[live] = 1 / tau
        return out

    def margin(self) -> dict[str, NDArray[Any]]:
        """Return the smallest margin of the points."""
        if self.side.classes is None:
            return {"margin": np.full(sum(self.counts), np.nan), "margin_se": np.full(sum(self.counts), np.nan)}
        each = self._over(lambda f: margins(f, self.labels))
        value, error = self.parts._estimated(self.pieces, lambda f: each(f).min(axis=1, initial=np.inf))
        return {"margin": value, "margin_se": error}


def _mean(each: Array) -> Array:
    return each.mean(axis=1) if each.shape[1] else np.full(len(each), np.nan)


def _decaying_flow(
    kernel: Array, rows: NDArray[np.int_], side: Side, times: Sequence[float], decay: float, reduction: str
) -> Array:
    """Outputs (n_time, n) or (n_time, n, C) of a lazy network whose initial weights decay.

    Theta(t) = e^{-2 lambda t} Theta_0 and df/dt = s Theta(t) Delta - 2 lambda f, that is f = Theta_0 q with
    dq/dt = s e^{-2 lambda t} Delta - 2 lambda q (general losses, section 6).
    """
    objective, s = side.objective, force_scale(reduction, len(rows))
    shape = (len(rows),) if objective.readouts is None else (len(rows), objective.readouts)
    train = kernel[rows]

    def velocity(t: float, q: Array) -> Array:
        q = q.reshape(shape)
        return (s * np.exp(-2 * decay * t) * objective.force(train @ q) - 2 * decay * q).ravel()

    line = np.unique(times)
    start = np.zeros(shape).ravel()
    if line[-1] > 0:
        found = solve_ivp(velocity, (0, line[-1]), start, method="LSODA", t_eval=line, rtol=1e-9, atol=1e-12).y.T
    else:
        found = np.zeros((1, start.size))
    q = found[np.searchsorted(line, times)].reshape(len(times), *shape)
    return objective.outputs(np.einsum("np,tp...->tn...", kernel, q))
