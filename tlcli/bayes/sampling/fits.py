"""What a sampled stage fits: the squared error of one output, or any loss with one readout.

The dual of a stage on a measure is γ²·value(v) - log E exp(½γ²(v·φ)²) with v = βωΔ(f), Δ = -∂ℓ/∂f (docs/bayes.md,
Section 2). Of the squared error value(v) = v·y - |v|²/2β, with gradient f = y - v/β and curvature 1/β; of other losses
it is -Σ βω ℓ*(-v/βω), with gradient f(v), the outputs whose forces are v/β, and curvature 1/(βωℓ''). The dual of a
steep loss (logistic) diverges at the edge of its domain; that of the others (hinge2, huber) lives in a closed box.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tlcli.arrays import Flags, Floats, Indices
from tlcli.bayes.likelihood import Likelihood, check_finite, kernel_moments, maximise, primal_gap
from tlcli.bayes.saddle import stationary
from tlcli.errors import DomainError
from tlcli.losses.objective import Objective

_SMALL = 2e-3  # of the forces at f = 0, where a steep loss starts
_STIFF = 1e12  # in the place of an infinite curvature, of samples that a box holds at its edge
_HELD = 1e8  # the same in a Newton step, relative to its largest curvature
_TURNS = 30  # of the active set of a step
_NEAR_EDGE = 0.1  # of the way to the edge of the domain: steps of steep losses that come nearer are straight in f

Solve = Callable[[Floats, Floats], tuple[Floats, Any]]  # of gradient and curvature: the step, and what comes with it


class SampledFit(Protocol):
    """A likelihood of P training points with one readout; v and f are (P,), `pull` is Φv."""

    @property
    def points(self) -> int:
        """P."""
        ...

    def start(self) -> Floats:
        """Return a v from which nothing is far: zero, or small forces where zero is the edge of the domain."""
        ...

    def value(self, v: Floats) -> float:
        """Return the part of the dual without the measure, over γ²; -inf outside the domain."""
        ...

    def outputs(self, v: Floats, pull: Floats | None = None) -> Floats:
        """Return f(v); where several f have one force, at the edge of a box, the nearest to `pull`."""
        ...

    def bend(self, v: Floats, pull: Floats | None = None) -> Floats:
        """Return the curvature (P,) at v; with `pull` of samples held at the edge of a box a very large one."""
        ...

    def rest(self, v: Floats, kernel: Floats, whole: Floats) -> Floats:
        """Return f(v) - Φv of a kernel (P, P) at v; `whole` is the kernel with `bend` added to its diagonal."""
        ...

    def moved(self, v: Floats, step: Floats) -> Floats:
        """Return where a step leads: v + step to first order, inside the domain."""
        ...

    def within(self, v: Floats, gradient: Floats, curvature: Floats, solve: Solve) -> tuple[Floats, Any, float]:
        """Return the step of `solve` that stays in the box, what came with it, and by how much its rise is too high."""
        ...

    def regressed(self, kernel: Floats, near: Floats, known: float | Floats = 0.0) -> Floats:
        """Return the v of regression with a kernel (P, P) that does not follow, and `known` added; `near` is close."""
        ...

    def regression_energy(self, v: Floats, kernel: Floats) -> float:
        """Return the free energy over γ² of regression with a kernel, at its v."""
        ...

    def product(self, v: Floats, pull: Floats) -> float:
        """Return v·f(v): at the saddle E s²."""
        ...

    def gap(self, v: Floats, kernel: Floats, gamma: float) -> float | None:
        """Return primal minus dual at v, of a measure with this kernel there, nats per neuron; None: quadratic."""
        ...

    def predictor(self, pull: Floats, rows: Indices, v: Floats) -> tuple[Floats, Floats, float]:
        """Return v, f at all points and the relative |f - Φv| of the training rows; `pull` is Φv at all points."""
        ...


@dataclass(frozen=True, eq=False)
class SampledSquares:
    """The squared error of labels (P,) at inverse temperature β."""

    labels: Floats
    beta: float

    @property
    def points(self) -> int:
        """See `SampledFit`."""
        return len(self.labels)

    def start(self) -> Floats:
        """See `SampledFit`."""
        return np.zeros(len(self.labels))

    def value(self, v: Floats) -> float:
        """See `SampledFit`."""
        return float(v @ self.labels - v @ v / (2 * self.beta))

    def outputs(self, v: Floats, pull: Floats | None = None) -> Floats:
        """See `SampledFit`."""
        return self.labels - v / self.beta

    def bend(self, v: Floats, pull: Floats | None = None) -> Floats:
        """See `SampledFit`."""
        return np.full(len(v), 1 / self.beta)

    def rest(self, v: Floats, kernel: Floats, whole: Floats) -> Floats:
        """See `SampledFit`."""
        return self.labels - whole @ v

    def moved(self, v: Floats, step: Floats) -> Floats:
        """See `SampledFit`."""
        return v + step

    def within(self, v: Floats, gradient: Floats, curvature: Floats, solve: Solve) -> tuple[Floats, Any, float]:
        """See `SampledFit`."""
        return *solve(gradient, curvature), 0.0

    def regressed(self, kernel: Floats, near: Floats, known: float | Floats = 0.0) -> Floats:
        """See `SampledFit`."""
        ridge = np.eye(len(self.labels)) / self.beta + known
        return np.asarray(np.linalg.solve(kernel + ridge, self.labels), dtype=float)

    def regression_energy(self, v: Floats, kernel: Floats) -> float:
        """See `SampledFit`."""
        return 0.5 * float(v @ self.labels)

    def product(self, v: Floats, pull: Floats) -> float:
        """See `SampledFit`."""
        return float(v @ self.labels - v @ v / self.beta)

    def gap(self, v: Floats, kernel: Floats, gamma: float) -> float | None:
        """See `SampledFit`: ½γ²rᵀ(Φ + I/β)⁻¹r, which `certificate.check` takes with the noise."""
        return None

    def predictor(self, pull: Floats, rows: Indices, v: Floats) -> tuple[Floats, Floats, float]:
        """See `SampledFit`."""
        return (v, *stationary(pull, rows, self.labels, v, self.beta))


@dataclass(frozen=True, eq=False)
class SampledLoss:
    """Any loss with one readout, two classes of softmax among them; `low` and `high` (P,) bound v."""

    likelihood: Likelihood
    low: Floats
    high: Floats

    @staticmethod
    def of(objective: Objective, beta: float) -> "SampledLoss":
        """Return it.

        Raises:
            DomainError: several readouts, or an infinite β.
        """
        check_finite(beta, objective)
        if (objective.readouts or 1) > 1:
            raise DomainError(
                f"{objective.loss.text} of {objective.readouts} readouts: sampling nonlinear networks on inputs of "
                "rank above 2 is for one readout (its fields and jumps between lobes are those of one number v·phi; "
                "several have lobes in many directions); use two classes, --activation linear, or tasks of dimension 2."
            )
        ends = objective.loss.domain(objective.y)
        if objective.basis is not None:  # two classes of softmax: the difference of their forces over √2
            ends = (ends[0][:, 0] * np.sqrt(2), ends[1][:, 0] * np.sqrt(2))
        size = beta * (1.0 if objective.weights is None else objective.weights)
        return SampledLoss(Likelihood(objective, beta), size * ends[0], size * ends[1])

    @property
    def points(self) -> int:
        """See `SampledFit`."""
        return self.likelihood.samples

    @property
    def _steep(self) -> bool:
        return self.likelihood.objective.loss.steep

    def start(self) -> Floats:
        """See `SampledFit`."""
        return self._dual(self.likelihood.start(_SMALL)[:, 0]) if self._steep else np.zeros(self.points)

    def value(self, v: Floats) -> float:
        """See `SampledFit`."""
        objective, beta = self.likelihood.objective, self.likelihood.beta
        full = v / beta if objective.basis is None else (v / beta)[:, None] @ objective.basis.T
        return -beta * objective.conjugate(full)

    def outputs(self, v: Floats, pull: Floats | None = None) -> Floats:
        """See `SampledFit`."""
        f = self.likelihood.inverse(v[:, None])[:, 0]
        if pull is None or self._steep:
            return f
        f = np.where(v >= self.high, np.minimum(f, pull), f)
        return np.where(v <= self.low, np.maximum(f, pull), f)

    def _dual(self, f: Floats) -> Floats:
        return self.likelihood.dual(f[:, None])[:, 0]

    def _held(self, v: Floats, pull: Floats) -> Flags:
        """Return which samples (P,) have the force of the edge of a box, whatever a small change of f."""
        f = self.outputs(v)
        return np.asarray(((v >= self.high) & (pull < f)) | ((v <= self.low) & (pull > f)))

    def bend(self, v: Floats, pull: Floats | None = None) -> Floats:
        """See `SampledFit`."""
        loss, weights = self.likelihood.objective.loss, self.likelihood.objective.weights
        curved = self.likelihood.curvature(self.outputs(v)[:, None])[:, 0, 0]
        # At the edge of a box the loss has no curvature on one side; that of the other is the dual's.
        most = self.likelihood.beta * loss.smoothness * (1.0 if weights is None else weights)
        found = 1 / np.where(curved > 0, curved, most)
        if pull is None or self._steep:
            return found
        return np.where(self._held(v, pull), _STIFF / self.likelihood.beta, found)

    def rest(self, v: Floats, kernel: Floats, whole: Floats) -> Floats:
        """See `SampledFit`."""
        pull = kernel @ v
        return self.outputs(v, pull) - pull

    def moved(self, v: Floats, step: Floats) -> Floats:
        """See `SampledFit`."""
        if not self._steep:
            return np.clip(v + step, self.low, self.high)
        straight = v + step
        far = straight - self.low > _NEAR_EDGE * (v - self.low)
        far &= self.high - straight > _NEAR_EDGE * (self.high - v)
        return np.where(far, straight, self._dual(self.outputs(v) - self.bend(v) * step))

    def within(self, v: Floats, gradient: Floats, curvature: Floats, solve: Solve) -> tuple[Floats, Any, float]:
        """See `SampledFit`; a primal-dual active set of the samples that end at the edge of their box."""
        if self._steep or not np.any(np.isfinite(self.low) | np.isfinite(self.high)):
            return *solve(gradient, curvature), 0.0
        size, side = _HELD * float(np.abs(np.diagonal(curvature)).max()), np.zeros(len(v), dtype=int)
        penalty = way = np.zeros(len(v))
        step, more = solve(gradient, curvature)
        for _ in range(_TURNS):
            small = 1e-12 * (np.abs(v) + np.abs(step))
            over = (v + step > self.high + small).astype(int) - (v + step < self.low - small)
            # The penalty leaves a held sample beyond its edge where it still pulls outwards.
            after = np.where(side == 0, over, np.where(side * (step - way) >= 0, side, 0))
            if np.array_equal(after, side):
                break
            side, penalty = after, np.where(after != 0, size, 0.0)
            way = np.where(side > 0, self.high - v, np.where(side < 0, self.low - v, 0.0))
            step, more = solve(gradient + penalty * way, curvature + np.diag(penalty))
        step = np.where(side != 0, way, np.clip(v + step, self.low, self.high) - v)
        return step, more, 0.5 * float(penalty @ way**2)

    def regressed(self, kernel: Floats, near: Floats, known: float | Floats = 0.0) -> Floats:
        """See `SampledFit`."""
        whole = kernel + known
        f = self.outputs(near, whole @ near)
        return maximise(kernel_moments(whole, 1), self.likelihood, f[:, None]).v[:, 0]

    def regression_energy(self, v: Floats, kernel: Floats) -> float:
        """See `SampledFit`."""
        return self.value(v) - 0.5 * float(v @ kernel @ v)

    def product(self, v: Floats, pull: Floats) -> float:
        """See `SampledFit`."""
        return float(v @ self.outputs(v, pull))

    def gap(self, v: Floats, kernel: Floats, gamma: float) -> float | None:
        """See `SampledFit`."""
        return primal_gap(self.likelihood, kernel, self.outputs(v, kernel @ v)[:, None], v[:, None], gamma)

    def predictor(self, pull: Floats, rows: Indices, v: Floats) -> tuple[Floats, Floats, float]:
        """See `SampledFit`; of two classes of softmax v and f have two columns."""
        f, objective = self.outputs(v, pull[rows]), self.likelihood.objective
        scale = float(np.linalg.norm(f))
        residual = float(np.linalg.norm(f - pull[rows])) / scale if scale else 0.0
        outputs = pull.copy()
        outputs[rows] = f
        if objective.readouts is None:
            return v, outputs, residual
        return objective.outputs(v[:, None]), objective.outputs(outputs[:, None]), residual
