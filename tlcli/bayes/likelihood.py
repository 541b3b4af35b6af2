"""The likelihood exp(-βγ²N Σ ω ℓ(f, y)) of any loss, and Newton's method on the dual of its saddle point.

With v = βωΔ(f), Δ = -∂ℓ/∂f, the saddle is f = Φ(v)v and maximises (docs/bayes.md, Section 2)

    D(v)/γ² = -Σ βω ℓ*(-v/βω) - log E exp(½γ² Σ_c (v_c·φ)²)/γ²,      ∇D/γ² = f - Φ(v)v.

The unknown here is f rather than v: v(f) lies in the domain of the conjugate whatever f is, its small entries keep
their digits, and a sample of no force at all (hinge2 beyond its margin) needs no care. Outputs and v are in the
readout coordinates of `tlcli.losses.Objective`, tables (P, K).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Floats
from tlcli.errors import DomainError
from tlcli.losses.base import Loss
from tlcli.losses.objective import Objective

_STEPS = 200
_TOLERANCE = 1e-12  # of |f - Φv|, relative: below it steps are taken as long as they help
_NEAR, _PATIENCE = 1e-6, 6  # a relative |f - Φv| so small that it may be round-off, and steps that do not halve it
_STRAIGHT = 1e-2
_FIRST = 2e-3  # of the force at f = 0: a dual variable at which Newton starts, well inside its domain


@dataclass(frozen=True, eq=False)
class Likelihood:
    """The losses of P training samples at inverse temperature β, in readout coordinates (P, K)."""

    objective: Objective
    beta: float

    @property
    def samples(self) -> int:
        """P."""
        return len(self.objective.y)

    @property
    def readouts(self) -> int:
        """K, 1 for a single output."""
        return self.objective.readouts or 1

    def _given(self, f: Floats) -> Floats:
        """Return f as the objective takes it: (P,) of a single output."""
        return f if self.objective.readouts else f[:, 0]

    def dual(self, f: Floats) -> Floats:
        """Return v = βωΔ(f), (P, K)."""
        return (self.beta * self.objective.force(self._given(f))).reshape(f.shape)

    def inverse(self, v: Floats) -> Floats:
        """Return an f (P, K) whose dual variable is v (P, K); not finite outside the loss's domain."""
        return self.objective.inverse(self._given(v) / self.beta).reshape(v.shape)

    def curvature(self, f: Floats) -> Floats:
        """Return βω times the Hessian of every sample's loss, (P, K, K)."""
        units = np.eye(self.readouts)
        columns = [self.objective.bend(self._given(f), self._given(np.broadcast_to(e, f.shape))) for e in units]
        return self.beta * np.stack([c.reshape(f.shape) for c in columns], axis=2)

    def follow(self, f: Floats, v: Floats, trial: Floats, step: Floats) -> Floats:
        """Return the dual variable of `trial` = f + step, where `v` is that of f.

        Where a loss is quadratic (all but steep ones) v moves by its curvature times the step: from f, which is within
        v/β of the label, it would lose β times the rounding of f.
        """
        fresh = self.dual(trial)
        if self.objective.loss.steep:
            return fresh
        unit = np.ones_like(f)
        quadratic = (self._bent(f, unit) > 0) & (self._bent(trial, unit) > 0)
        return np.where(quadratic, v - self._bent(f, step), fresh)

    def _bent(self, f: Floats, d: Floats) -> Floats:
        return (self.beta * self.objective.bend(self._given(f), self._given(d))).reshape(f.shape)

    def fit(self, f: Floats, v: Floats) -> float:
        """Return -Σ βω ℓ*(-v/βω) at v = v(f).

        Of steep losses it is Σ βω (ℓ(f) + Δ·f), the conjugate without its cancellations; of the others the conjugate,
        which knows v where ℓ has lost it.
        """
        if self.objective.loss.steep:
            return self.energy(f) + float(np.sum(self.dual(f) * f))
        return -self.beta * self.objective.conjugate(self._given(v) / self.beta)

    def energy(self, f: Floats) -> float:
        """Return Σ βω ℓ(f)."""
        return self.beta * self.objective.value(self._given(f))

    def gap(self, f: Floats, other: Floats) -> float:
        """Return Σ [βω ℓ(f') + βω ℓ*(-v/βω) + v·f'] >= 0 at v = v(f), f' = `other`; 0 where f' has the same forces."""
        away = other - f
        if not self.objective.loss.steep and np.array_equal(self._bent(f, away), self._bent(other, away)):
            return 0.5 * float(np.sum(away * self._bent(f, away)))  # no kink between the two
        return max(self.energy(other) - self.energy(f) + float(np.sum(self.dual(f) * (other - f))), 0.0)

    def trials(self, f: Floats, step: Floats, near: bool) -> Iterator[tuple[float, Floats]]:
        """Yield shares of a step and where it leads: all of it, then ever smaller ones.

        Those of steep losses are straight in v, in which the dual is nearly self-concordant; `near` the maximum they
        are straight in f, which keeps the digits of small forces.
        """
        steep, size = self.objective.loss.steep, 1.0
        if near or not steep:
            yield size, f + step
        v = self.dual(f)
        way = -np.einsum("pkc,pc->pk", self.curvature(f), step)
        while size > 1e-12:
            if steep:
                inside = self.inverse(v + size * way)
                if np.all(np.isfinite(inside)):
                    yield size, inside
            size *= 0.5
            if not steep:
                yield size, f + size * step

    def start(self, share: float) -> Floats:
        """Return the f (P, K) whose forces are `share` of those of f = 0."""
        zero = np.zeros((self.samples, self.readouts))
        return self.inverse(share * self.dual(zero))


def check_limit(beta: float, loss: Loss, name: str = "beta") -> None:
    """Refuse β = ∞ of a loss, with its label smoothing, that is not the squared error.

    Raises:
        DomainError: it is infinite.
    """
    if math.isinf(beta) and not loss.gaussian:
        why = "that limit is solved for the squared error alone"
        if not loss.bounded:
            why = "labels that the network separates have no finite optimum, and margins grow as ln beta"
        raise DomainError(f"{name} = inf: {loss.text} has no posterior without noise ({why}); use a finite {name}.")


def check_finite(beta: float, objective: Objective) -> None:
    """Refuse β = ∞ where the general solvers are needed.

    Raises:
        DomainError: it is infinite.
    """
    check_limit(beta, objective.loss)
    if math.isinf(beta):
        raise DomainError("beta = inf: several outputs, or a source of another loss, need a finite beta; use e.g. 1e6.")


@dataclass(frozen=True, eq=False)
class DualMoments:
    """A measure at v (P, K): log Z/γ² (½vᵀΦv at γ = 0), Φv (P, K), and its derivative Φ⊗I + γ²Cov (PK, PK)."""

    log_z: float
    pull: Floats
    slope: Floats


@dataclass(frozen=True, eq=False)
class Optimum:
    """The maximum of a dual: f and v (P, K), D/γ², the relative |f - Φv|, and Newton steps."""

    f: Floats
    v: Floats
    value: float
    error: float
    steps: int


def maximise(
    moments_of: Callable[[Floats], DualMoments | None], likelihood: Likelihood, start: Floats | None = None
) -> Optimum:
    """Maximise the dual from outputs `start` (P, K), by default from small forces, which are halved until it exists.

    `moments_of` gives None outside the domain of v; steps that leave it are cut.
    """
    share = _FIRST
    f = likelihood.start(share) if start is None else start
    v = likelihood.dual(f)
    found = moments_of(v)
    while found is None:
        share *= 0.5
        f = likelihood.start(share)
        v = likelihood.dual(f)
        found = moments_of(v) if share > 1e-300 else DualMoments(0.0, 0 * v, np.zeros((v.size, v.size)))
    value, steps, best, late = likelihood.fit(f, v) - found.log_z, 0, Optimum(f, v, -math.inf, math.inf, 0), 0
    while steps < _STEPS:
        rest = f - found.pull
        error = float(np.linalg.norm(rest) / max(np.linalg.norm(f), np.linalg.norm(found.pull), 1e-300))
        # Below the tolerance, or near round-off, steps are taken only as long as they help.
        late += error < _NEAR and error >= 0.5 * best.error
        if error < best.error:
            best = Optimum(f, v, value, error, steps)
        if late > (0 if error <= _TOLERANCE else _PATIENCE) or error == 0:
            break
        step, rise = newton_step(likelihood, f, found, rest)
        slack = 1e-13 * (1e-300 + abs(value) + abs(float(np.sum(v * f))))
        for size, trial in likelihood.trials(f, step, error < _STRAIGHT):
            moved = likelihood.follow(f, v, trial, size * step)
            there = moments_of(moved)
            new = -math.inf if there is None else likelihood.fit(trial, moved) - there.log_z
            if there is not None and new >= value + 1e-4 * size * rise - slack:
                f, v, found, value, steps = trial, moved, there, new, steps + 1
                break
        else:
            return best
    return best


def newton_step(likelihood: Likelihood, f: Floats, found: DualMoments, rest: Floats) -> tuple[Floats, float]:
    """Return the step of f (P, K) that makes f - Φv zero to first order, and the rise of D/γ² that it promises."""
    weight = likelihood.curvature(f)
    points, readouts = f.shape
    bent = found.slope.reshape(-1, points, readouts)
    matrix = np.einsum("aqk,qkc->aqc", bent, weight).reshape(f.size, f.size) + np.eye(f.size)
    step = -np.linalg.solve(matrix, rest.ravel()).reshape(f.shape)
    return step, -float(np.einsum("pk,pkc,pc->", rest, weight, step))


def kernel_moments(kernel: Floats, readouts: int) -> Callable[[Floats], DualMoments]:
    """Return the moments of a kernel (P, P) that does not depend on v: kernel regression with ridge 1/β."""
    slope = np.asarray(np.kron(kernel, np.eye(readouts)), dtype=float)

    def moments_of(v: Floats) -> DualMoments:
        pull = kernel @ v
        return DualMoments(0.5 * float(np.sum(v * pull)), pull, slope)

    return moments_of


def primal_gap(likelihood: Likelihood, kernel: Floats, f: Floats, v: Floats, gamma: float) -> float:
    """Return the primal at the measure of v = v(f) minus the dual there, nats per neuron; `kernel` (P, P) is its Φ.

    The primal's best outputs are those of kernel regression with Φ, whose own dual is solved for them. It is at most
    γ² `Likelihood.gap` at Φv, and bounds the relative entropy to the saddle's measure.
    """
    of_kernel = kernel_moments(kernel, likelihood.readouts)
    best = maximise(of_kernel, likelihood, f)
    return max(gamma**2 * (best.value - likelihood.fit(f, v) + 0.5 * float(np.sum(v * (kernel @ v)))), 0.0)
