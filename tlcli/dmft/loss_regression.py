"""Regression with a kernel that does not move, for any loss (general losses, section 6).

With features psi of the kernel K and the readout's change w from its start, f = f0 + psi.w minimises

    s sum_mu omega_mu l(f_mu, y_mu) + (ridge/2) |w|^2,   s = 1/P (reduction "mean") or 1 ("sum"),

by the gradient flow dw/dt = s psi^T Delta - ridge w. In the eigenbasis of K(X, X), where psi = V sqrt(kappa), all
points are reached by K(x, X) V / sqrt(kappa). t = infinity is the minimum, unique where there is a ridge or the loss
has one itself: Newton's method with conjugate gradients. Several outputs share the kernel.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp

from tlcli.arrays import Floats
from tlcli.dmft.arithmetic import Arithmetic
from tlcli.dmft.field import power_iteration
from tlcli.dmft.integrate import Control, Step, integrate
from tlcli.dmft.regression import FrozenKernel, force_scale, time_grid
from tlcli.errors import ConvergenceError, DomainError
from tlcli.losses.objective import Objective

_DENSE = 300  # unknowns up to which an implicit method with the dense Jacobian is cheaper than an explicit one
_NEWTON = 200
_TOLERANCE = 1e-12  # of the gradient, relative to that at the start
_STEP = 1e-7  # of the explicit method


def loss_regression(
    k_train: Floats,
    k_points: Floats,
    objective: Objective,
    *,
    ridge: float = 0.0,
    time: ArrayLike = np.inf,
    reduction: str = "mean",
    f0_train: Floats | None = None,
    f0_points: Floats | None = None,
) -> Floats:
    """Outputs (n_times, n) or (n_times, n, C) at the points of k_points (n, P) of a readout on frozen features.

    k_train (P, P) is K among the training points; `time` and `ridge` are in units of the loss of `reduction`; f0_train
    and f0_points, (P,) and (n,) or with an axis of readout coordinates, are what the output is at the start (zero).
    Softmax: the logits are centred.

    Raises:
        DomainError: as `tlcli.dmft.regression.FrozenKernel`; t = infinity where there is no unique finite minimum.
        ConvergenceError: Newton's method or the flow did not end.
    """
    kernel, times = FrozenKernel(k_train), time_grid(time)
    if not (np.isfinite(ridge) and ridge >= 0):
        raise DomainError(f"ridge = {ridge:g} must be finite and at least 0.")
    check_limit(objective, ridge, times)
    features = _Features.of(kernel, k_points)
    width = objective.readouts or 1
    start = np.zeros((len(k_train), width)) if f0_train is None else f0_train.reshape(len(k_train), width)
    problem = _Flow(objective, features.train, start, force_scale(reduction, len(k_train)), ridge)
    w = problem.solve(times)
    found = np.einsum("nr,trk->tnk", features.points, w)
    if f0_points is not None:
        found = found + f0_points.reshape(len(k_points), width)
    return objective.outputs(found if objective.readouts else found[..., 0])


def check_limit(objective: Objective, ridge: float, times: Floats) -> None:
    """Refuse t = infinity where the loss has no finite minimum, or no unique one. Raises DomainError."""
    if ridge > 0 or np.all(np.isfinite(times)):
        return
    loss = objective.loss
    if not loss.bounded:
        raise DomainError(
            f"time = inf: {loss.text} without ridge has no finite optimum of data that features separate; give "
            "--times, --ridge or --label-smoothing."
        )
    if loss.flat:
        raise DomainError(
            f"time = inf: {loss.text} without ridge has a flat minimum, and where training ends depends on its path; "
            "give --times or --ridge."
        )


def learned(kernel: FrozenKernel, objective: Objective, time: float, scale: float) -> Floats:
    """Return q = int s Delta dt (P, K) of training from zero output for a finite time, roughly (1e-3)."""
    features = _Features.of(kernel, np.zeros((0, kernel.samples)))
    width = objective.readouts or 1
    flow = _Flow(objective, features.train, np.zeros((kernel.samples, width)), scale, 0.0)
    w = flow.stabilised(np.array([time]), 1e-3)[0]
    return features.back @ w


@dataclass(frozen=True, eq=False)
class _Features:
    """psi at the training points (P, r) and at all points (n, r), and `back` (P, r) with q = back w."""

    train: Floats
    points: Floats
    back: Floats

    @classmethod
    def of(cls, kernel: FrozenKernel, k_points: Floats) -> "_Features":
        """Leave out the directions in which the kernel is zero to rounding."""
        live = kernel.eigenvalues > kernel.cutoff
        root, vectors = np.sqrt(kernel.eigenvalues[live]), kernel.eigenvectors[:, live]
        back = vectors / root
        return cls(vectors * root, k_points @ back, back)


class _Flow(Arithmetic):
    """dw/dt = s psi^T Delta(f0 + psi w) - ridge w, for w (r, K) as a flat vector, and its rest."""

    def __init__(self, objective: Objective, psi: Floats, start: Floats, scale: float, ridge: float) -> None:
        self.objective, self.psi, self.start, self.scale, self.ridge = objective, psi, start, scale, ridge
        self.shape = (psi.shape[1], start.shape[1])
        self.evaluations = 0
        self.xp: Any = np

    def _objective(self, f: Floats) -> Floats:
        return f if self.objective.readouts else f[:, 0]

    def outputs(self, w: Floats) -> Floats:
        """Return g (P, K) of w (r, K)."""
        return self.start + self.psi @ w

    def force(self, g: Floats) -> Floats:
        """Return omega Delta (P, K)."""
        return self.objective.force(self._objective(g)).reshape(g.shape)

    def bend(self, g: Floats, d: Floats) -> Floats:
        """Return the Hessian of the loss at g times d (P, K)."""
        return self.objective.bend(self._objective(g), self._objective(d)).reshape(g.shape)

    def __call__(self, t: float, z: Floats) -> Floats:
        """Return dw/dt, flat."""
        self.evaluations += 1
        w = z.reshape(self.shape)
        return (self.scale * (self.psi.T @ self.force(self.outputs(w))) - self.ridge * w).ravel()

    def stiffness(self, t: float, z: Floats, vector: Any = None, sweeps: int = 20) -> tuple[float, Any]:
        """Return s lambda_max(psi^T H psi) + ridge by power iteration."""
        g = self.outputs(z.reshape(self.shape))
        v = np.random.default_rng(0).standard_normal(self.shape) if vector is None else vector
        top, v = power_iteration(lambda v: self.psi.T @ self.bend(g, self.psi @ v), v, sweeps)
        return self.scale * top + self.ridge, v

    def jacobian(self, t: float, z: Floats) -> Floats:
        """Return d(dw/dt)/dw, dense."""
        g = self.outputs(z.reshape(self.shape))
        rank, width = self.shape
        out = np.empty((rank, width, rank, width))
        for k in range(width):
            unit = np.zeros_like(g)
            unit[:, k] = 1.0
            column = self.bend(g, unit)  # (P, K): the k-th column of every sample's Hessian
            for c in range(width):
                out[:, c, :, k] = -self.scale * (self.psi.T * column[:, c]) @ self.psi
        out = out.reshape(z.size, z.size)
        out.flat[:: z.size + 1] -= self.ridge
        return out

    def solve(self, times: Floats) -> Floats:
        """Return w (n_times, r, K)."""
        out = np.zeros((times.size, *self.shape))
        if not self.shape[0]:
            return out
        finite = np.isfinite(times)
        if np.any(finite & (times > 0)):
            line = np.unique(times[finite])
            found = self._implicit(line) if out[0].size <= _DENSE else self.stabilised(line, _STEP)
            out[finite] = found[np.searchsorted(line, times[finite])]
        if not finite.all():
            out[~finite] = self.rest()
        return out

    def _implicit(self, line: Floats) -> Floats:
        end, start = float(line[-1]), np.zeros(self.shape).ravel()
        found = solve_ivp(
            self, (0.0, end), start, method="LSODA", t_eval=line, jac=self.jacobian, rtol=1e-10, atol=1e-12
        )
        if not found.success:
            raise ConvergenceError(f"the flow of the frozen features broke off before t = {end:g}: {found.message}")
        return found.y.T.reshape(line.size, *self.shape)

    def stabilised(self, line: Floats, tolerance: float) -> Floats:
        """Return w at ascending times by the stabilised explicit method, whose cost grows as the root of a rate."""
        out, position, zero = np.zeros((line.size, *self.shape)), 0, np.zeros(self.shape).ravel()

        def keep(step: Step) -> None:
            nonlocal position
            while position < line.size and line[position] <= step.t1:
                out[position] = step.at(float(line[position])).reshape(self.shape)
                position += 1

        while position < line.size and line[position] == 0:
            position += 1
        found = integrate(self, zero, float(line[-1]), Control(tolerance=tolerance, max_evaluations=10**6), keep)
        if found.message:
            raise ConvergenceError(f"the flow of the frozen features {found.message}.")
        return out

    def _merit(self, w: Floats, kappa: float) -> float:
        return self.objective.value(self._objective(self.outputs(w))) + 0.5 * kappa * float(np.sum(w * w))

    def rest(self) -> Floats:
        """Return the minimum (r, K): Newton's method, its equations solved by preconditioned conjugate gradients.

        Raises:
            ConvergenceError: the gradient did not vanish.
        """
        kappa, w = self.ridge / self.scale, np.zeros(self.shape)
        spectrum = np.sum(self.psi**2, axis=0)
        merit, first, size = self._merit(w, kappa), 0.0, math.inf
        for turn in range(_NEWTON):
            g = self.outputs(w)
            gradient = kappa * w - self.psi.T @ self.force(g)
            size = float(np.linalg.norm(gradient))
            first = first or size
            if size <= _TOLERANCE * first or size <= 1e-300:
                return w
            mean = max(self.objective.bend_trace(self._objective(g)), 1e-8)
            step = self._newton_step(g, gradient, kappa, 1 / (mean * spectrum[:, None] + kappa), min(0.1, size / first))
            slope, length = float(np.sum(gradient * step)), 1.0
            while True:
                new = w + length * step
                found = self._merit(new, kappa)
                if found <= merit + 1e-4 * length * slope or length < 1e-10:
                    break
                length /= 2
            if length < 1e-10 or (abs(slope) < 1e-15 * (1 + abs(merit)) and turn > 2):
                # Rounding of the objective hides the descent: the last full step is as good as can be known.
                after = kappa * (w + step) - self.psi.T @ self.force(self.outputs(w + step))
                if np.linalg.norm(after) < size:
                    w = w + step
                    merit = self._merit(w, kappa)
                    continue
                if size <= 1e-8 * first:
                    return w
                break
            w, merit = new, found
        raise ConvergenceError(
            f"Newton's method of the frozen features left a gradient of {size / max(first, 1e-300):.2g} of that at the "
            "start; use a larger --ridge."
        )

    def _newton_step(
        self, g: Floats, gradient: Floats, kappa: float, preconditioner: Floats, tolerance: float
    ) -> Floats:
        """Return -(psi^T H psi + kappa)^-1 gradient by conjugate gradients, to `tolerance` of the gradient."""
        step, left = np.zeros_like(gradient), -gradient
        applied = preconditioner * left
        direction, product = applied, float(np.sum(left * applied))
        wanted = tolerance * float(np.linalg.norm(gradient))
        floor = max(kappa, 1e-12 * float(np.sum(self.psi**2, axis=0).max()))  # curvature where the loss has none
        for _ in range(20 * int(math.sqrt(gradient.size)) + 200):
            image = self.psi.T @ self.bend(g, self.psi @ direction) + floor * direction
            length = product / float(np.sum(direction * image))
            step, left = step + length * direction, left - length * image
            if float(np.linalg.norm(left)) <= wanted:
                break
            applied = preconditioner * left
            new = float(np.sum(left * applied))
            direction, product = applied + new / product * direction, new
        return step
