"""A transfer of any loss, with as many outputs as its tasks have: what is computed, and what its columns say.

The parts are those of `tlcli.dmft.parts`. A stage's outputs are (n_time, n_point), or (n_time, n_point, C) with
several of them; where the readout is redrawn, or belongs to other outputs, the source's loss is that of the source's
readout on the features of the moment.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

from tlcli.arrays import Array, Floats, Indices
from tlcli.dmft.ensemble import Solution
from tlcli.dmft.estimates import Piece, averaged, estimate
from tlcli.dmft.loss_columns import Heads
from tlcli.dmft.loss_regression import loss_regression
from tlcli.dmft.loss_setup import LossSetup, Side
from tlcli.dmft.parts import Parts
from tlcli.dmft.regression import force_scale
from tlcli.dmft.stage import Stage
from tlcli.errors import DomainError


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

    def _lazy_source(self) -> Floats:
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

    def _regress(self, kernel: Floats) -> Floats:
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

    def _at_rest(self, stage: int, phi: Floats, rows: Indices, decay: float) -> Floats:
        """Return the regression with its own kernel that a network at rest obeys (general losses, identity 9)."""
        objective, reduction = self.setup.sides[stage].objective, self.setup.settings.reduction
        return loss_regression(phi[rows], phi, objective, ridge=decay, reduction=reduction)[0]

    def _unit(self) -> float:
        side = self.setup.sides[1 if self.setup.settings.times2 else 0]
        return side.objective.size**2

    def _old_head(self) -> Piece | None:
        """Return what the source's readout says in stage 2, None where it is the target's as well."""
        s = self.setup.settings
        n2 = len(s.times2)
        if s.regresses:
            last = self.outputs[0]  # features and readout of the source stay what they are

            def held(f: Floats | None, axis: int) -> Floats | None:
                return None if f is None else np.repeat(f.take([-1], axis=axis), n2, axis=axis)

            whole = held(last.whole, 0)
            assert whole is not None
            parts = (held(part, 1) for part in (last.left_out, last.halves, last.coarse))
            return Piece(whole, *parts, retimed=held(last.retimed, 0))
        if "old_outputs" not in self.observed[1]:
            return None
        objective = self.setup.sides[0].objective

        def of(observed: dict[str, Any] | None) -> Floats | None:
            if observed is None or "old_outputs" not in observed:
                return None
            found = objective.outputs(observed["old_outputs"])
            blank = np.full((found.shape[0], n2 - found.shape[1], *found.shape[2:]), np.nan)  # of a run that broke off
            return np.concatenate([found, blank], axis=1)

        samples = of(self.observed[1])
        assert samples is not None
        return averaged(samples, of(self.coarse_observed[1]), of(self.retimed[1]))

    def _measured(self) -> tuple[dict[str, Array], list[Floats]]:
        """Return the columns of losses and gains, and the part of the integration in the judged ones."""
        heads = self.heads
        columns, changes = heads.columns(), heads.time_changes()
        if not np.any(np.isfinite(columns["loss"])):  # without labels of the test points
            changes = [np.zeros(len(columns["loss"]))]
        return columns, changes

    @functools.cached_property
    def heads(self) -> Heads:
        """The outputs of all readouts that there are."""
        old = self._old_head() if self.setup.settings.times2 else None
        return Heads.of(self.setup, self.outputs, old, self.baseline)

    def _arrays(self) -> dict[str, Array]:
        """Return kernels and densities, the classes, and what the outputs say of test points."""
        counts = [side.classes for side in self.setup.sides]
        told = {
            f"classes_{word}": np.array(n)
            for word, n in zip(("source", "target"), counts, strict=True)
            if n is not None
        }
        return super()._arrays() | told | self.heads.arrays()

    def _predicted(self, pieces: Sequence[Piece]) -> dict[str, Array]:
        """Return the predictions with errors: together where the stages have the same outputs, else by stage."""
        stages = list(pieces[: len(self.outputs)])
        if len({p.whole.shape[2:] for p in stages}) == 1:
            value, error = estimate(stages, np.concatenate)
            return {"predictions": value, "predictions_se": error}
        out: dict[str, Array] = {}
        for k, piece in enumerate(stages, 1):
            value, error = estimate([piece], lambda f: f[0])
            out |= {f"predictions_stage{k}": value, f"predictions_stage{k}_se": error}
        return out


def _decaying_flow(
    kernel: Floats, rows: Indices, side: Side, times: Sequence[float], decay: float, reduction: str
) -> Floats:
    """Outputs (n_time, n) or (n_time, n, C) of a lazy network whose initial weights decay.

    Theta(t) = e^{-2 lambda t} Theta_0 and df/dt = s Theta(t) Delta - 2 lambda f, that is f = Theta_0 q with
    dq/dt = s e^{-2 lambda t} Delta - 2 lambda q (general losses, section 6).
    """
    objective, s = side.objective, force_scale(reduction, len(rows))
    shape = (len(rows),) if objective.readouts is None else (len(rows), objective.readouts)
    train = kernel[rows]

    def velocity(t: float, q: Floats) -> Floats:
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
