"""What a stage fits on a given measure: the squared error of one output, or any loss of `tlcli.losses`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tlcli.arrays import Floats, Indices
from tlcli.bayes.likelihood import DualMoments, Likelihood, Optimum, kernel_moments, primal_gap
from tlcli.bayes.likelihood import maximise as maximise_loss
from tlcli.bayes.quadrature.lattice import QuadratureMoments
from tlcli.bayes.quadrature.newton import Maximum, gap_at, maximise, solve_spd
from tlcli.bayes.saddle import check_consistent, stationary
from tlcli.errors import ConvergenceError

MomentsOf = Callable[[Floats], QuadratureMoments | None]


class Fit(Protocol):
    """A likelihood and γ. Dual variables are (P,), or (P, K) with several readouts."""

    def solve(self, moments_of: MomentsOf, start: Maximum | None) -> Maximum:
        """Maximise the dual, from another maximum where there is one."""
        ...

    def regress(self, kernel: Floats) -> Maximum:
        """Return the maximum of a kernel (P, P) that does not depend on v, with moments of that kernel alone."""
        ...

    def gap(self, kernel: Floats, found: Maximum) -> float:
        """Return the primal minus the dual of `found` on a measure whose kernel at its v is (P, P), nats per neuron."""
        ...

    def predictor(self, pull: Floats, rows: Indices, found: Maximum) -> tuple[Floats, Floats, float]:
        """Return v, f and the relative |f - Φv| on the training rows; `pull` is Φv at all points."""
        ...


@dataclass(frozen=True, eq=False)
class SquareFit:
    """The squared error of labels (P,) at 1/β."""

    labels: Floats
    gamma: float
    inverse_beta: float

    def solve(self, moments_of: MomentsOf, start: Maximum | None) -> Maximum:
        """See `Fit`. Raises DomainError for labels that no kernel fits at β = ∞."""
        if self.inverse_beta == 0:
            base = moments_of(np.zeros_like(self.labels))
            if base is not None:
                check_consistent(base.kernel, self.labels)
        v = np.zeros_like(self.labels) if start is None else start.v
        return maximise(moments_of, self.labels, self.gamma, self.inverse_beta, v)

    def regress(self, kernel: Floats) -> Maximum:
        """See `Fit`. Raises DomainError for labels that the kernel cannot fit at β = ∞."""
        if self.inverse_beta == 0:
            check_consistent(kernel, self.labels)
        v = solve_spd(kernel + self.inverse_beta * np.eye(len(self.labels)), self.labels)
        return Maximum(v, _still(kernel), 0.5 * self.gamma**2 * float(self.labels @ v), 0.0, 1)

    def gap(self, kernel: Floats, found: Maximum) -> float:
        """See `Fit`."""
        return gap_at(_still(kernel), found.v, self.labels, self.gamma, self.inverse_beta)

    def predictor(self, pull: Floats, rows: Indices, found: Maximum) -> tuple[Floats, Floats, float]:
        """See `Fit`."""
        β = 1 / self.inverse_beta if self.inverse_beta > 0 else np.inf
        return (found.v, *stationary(pull, rows, self.labels, found.v, β))


@dataclass(frozen=True, eq=False)
class LossFit:
    """Any loss; v and f of a `Maximum` are in readout coordinates, (P,) of a single one."""

    likelihood: Likelihood
    gamma: float

    def solve(self, moments_of: MomentsOf, start: Maximum | None) -> Maximum:
        """See `Fit`."""
        likelihood, γ = self.likelihood, self.gamma
        kept: QuadratureMoments | None = None

        def dual_moments(v: Floats) -> DualMoments | None:
            nonlocal kept
            found = moments_of(self._flat(v))
            if found is None or not np.isfinite(found.log_z):
                return None
            kept = found
            pull = found.kernel @ v
            slope = np.kron(found.kernel, np.eye(v.shape[1])) + γ**2 * found.spread
            return DualMoments(found.log_z / γ**2 if γ else 0.5 * float(np.sum(v * pull)), pull, slope)

        if moments_of(self._flat(np.zeros((likelihood.samples, likelihood.readouts)))) is None:
            raise ConvergenceError("the quadrature has no moments at v = 0: lower gamma or delta.")
        best = maximise_loss(dual_moments, likelihood, None if start is None else self._table(start.f))
        moments = moments_of(self._flat(best.v))
        assert moments is not None
        return self._maximum(best, moments)

    def regress(self, kernel: Floats) -> Maximum:
        """See `Fit`."""
        return self._maximum(
            maximise_loss(kernel_moments(kernel, self.likelihood.readouts), self.likelihood), _still(kernel)
        )

    def gap(self, kernel: Floats, found: Maximum) -> float:
        """See `Fit`."""
        return primal_gap(self.likelihood, kernel, self._table(found.f), self._table(found.v), self.gamma)

    def predictor(self, pull: Floats, rows: Indices, found: Maximum) -> tuple[Floats, Floats, float]:
        """See `Fit`."""
        f, scale = found.f, float(np.linalg.norm(found.f))
        outputs = pull.copy()
        residual = float(np.linalg.norm(f - pull[rows])) / scale if scale else 0.0
        outputs[rows] = f
        objective = self.likelihood.objective
        # Two classes of softmax have one readout, which the solver takes flat, and two outputs.
        shaped = np.asarray if objective.readouts is None else self._table
        return objective.outputs(shaped(found.v)), objective.outputs(shaped(outputs)), residual

    def _maximum(self, best: Optimum, moments: QuadratureMoments) -> Maximum:
        decrement = self.gamma**2 * self.likelihood.gap(best.f, moments.kernel @ best.v)
        return Maximum(
            self._flat(best.v), moments, self.gamma**2 * best.value, decrement, best.steps, self._flat(best.f)
        )

    def _flat(self, table: Floats) -> Floats:
        return table[:, 0] if table.shape[1] == 1 else table

    def _table(self, flat: Floats) -> Floats:
        return flat.reshape(len(flat), -1)


def _still(kernel: Floats) -> QuadratureMoments:
    return QuadratureMoments(0.0, kernel, np.zeros_like(kernel))
