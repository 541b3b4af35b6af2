"""One stage of feature-learning training for a whole grid of parameters (docs/theory.md, Section 4).

`integrate_stage` is the one place where a stage is solved: the source task (start = 0), a target task, or any
later stage of a curriculum. The equations are in `tlcli.linear.modes`, the method in `tlcli.linear.integrate`.
Units: time of the mean loss (1/2P)Σ(y − f)² at learning rate γ²N; losses are mean squared errors without ½.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcli.arrays import Flags, Floats
from tlcli.linear.domain import FINITE_NON_NEGATIVE, INIT_SCALE, NON_NEGATIVE, POSITIVE, require
from tlcli.linear.integrate import march
from tlcli.linear.modes import N_OUTPUTS, Modes
from tlcli.linear.spectrum import nodes_needed
from tlcli.status import Status

TOLERANCE = 1e-8  # of what a step neglects; the end values are then good to about 1e-10
_CHUNK = 64  # points per batch: the arrays of one step stay in cache
_NODE_LADDER = (48, 64, 96, 128, 192, 256, 384, 600, 1200)
_QUADRATURE_ERROR = 1e-11
OUTPUTS = ("signal", "carried", "norm2", "loss", "train_loss", "bulk", "tau", "phi")  # recorded in this order


@dataclass(frozen=True)
class StageSolution:
    """The end of one stage, or its recorded times; fields (…) + (n_times,), the last one the end.

    signal ∫C and carried ∫E (so that β·β*_teacher = signal + r·carried), norm2 = |β|², loss and train_loss (mean
    squared errors, the latter on the noisy labels), bulk k, tau = ∫S dt, phi. Without n_times: `status`;
    `residual`, relative violation of s² = k² + γ²|β|² at the end, and for infinite durations at least the last
    relative change |dβ/dτ|/|β| × min(max(1, τ), 1/slowest rate); `steps` accepted.
    """

    signal: Floats
    carried: Floats
    norm2: Floats
    loss: Floats
    train_loss: Floats
    bulk: Floats
    tau: Floats
    phi: Floats
    status: NDArray[np.int8]
    residual: Floats
    steps: NDArray[np.int64]

    def ending_in(self, where: Flags, **closed: ArrayLike) -> Self:
        """Put closed forms in the last time of the points `where`; what they do not give becomes NaN.

        `closed` needs signal and norm2; carried defaults to 0, loss to what these three mean, bulk stays.
        """
        loss = 1.0 - 2.0 * np.asarray(closed["signal"]) + np.asarray(closed["norm2"])
        values = {"carried": 0.0, "loss": loss, "bulk": self.bulk[..., -1], **closed}
        columns = {}
        for name in OUTPUTS:
            columns[name] = getattr(self, name).copy()
            columns[name][..., -1] = np.where(where, values.get(name, np.nan), columns[name][..., -1])
        return replace(self, **columns)


def integrate_stage(
    alpha: ArrayLike,
    gamma: ArrayLike,
    duration: ArrayLike,
    *,
    start: ArrayLike = 0.0,
    bulk: ArrayLike = 1.0,
    alignment: ArrayLike = 0.0,
    sigma: ArrayLike = 0.0,
    weight_decay: ArrayLike = 0.0,
    times: ArrayLike = (),
    tolerance: float = TOLERANCE,
    stages: int = 7,
    max_steps: int = 600,
) -> StageSolution:
    """Train one stage from (|β|, k, n·β*) for a whole grid; all parameters broadcast to one shape (…).

    alpha in (0, inf]; gamma ≥ 0; duration in [0, inf], inf means until β stops moving; start = |β(0)| = |b|/γ in
    the units of *this* stage; bulk = k(0) ≥ 0; alignment r = n·β*; sigma, weight_decay ≥ 0. times (n_times,):
    recorded besides the end, in [0, duration], in any order. tolerance bounds the neglected part of each step;
    `stages` is odd, the order is 2·stages − 1. Equal points are integrated once. Raises `DomainError`.
    """
    require(POSITIVE, alpha=alpha)
    require(NON_NEGATIVE, duration=duration)
    require(FINITE_NON_NEGATIVE, gamma=gamma, start=start, bulk=bulk, sigma=sigma, weight_decay=weight_decay)
    times = np.atleast_1d(np.asarray(times, dtype=float))
    require(NON_NEGATIVE, times=times)
    require((lambda x: x <= np.min(duration), "within the duration of the stage"), times=times)
    require((lambda x: np.abs(x) <= 1 + 1e-9, "between -1 and 1"), alignment=alignment)
    grid = np.broadcast_arrays(alpha, gamma, duration, sigma, weight_decay, start, bulk, alignment)
    shape = grid[0].shape
    flat = np.stack([np.ravel(x).astype(float) for x in grid], axis=1)
    unique, back = np.unique(flat, axis=0, return_inverse=True)
    back = back.reshape(-1)
    values, status, residual, steps = _integrate_points(unique, times, tolerance, stages, max_steps)
    columns = np.moveaxis(values[back].reshape(*shape, times.size + 1, N_OUTPUTS), -1, 0)
    return StageSolution(
        **dict(zip(OUTPUTS, columns, strict=True)),
        status=status[back].reshape(shape),
        residual=residual[back].reshape(shape),
        steps=steps[back].reshape(shape),
    )


def _integrate_points(
    points: Floats, times: Floats, tolerance: float, stages: int, max_steps: int
) -> tuple[Floats, NDArray[np.int8], Floats, NDArray[np.int64]]:
    """Integrate different points (n, 8); return values (n, n_times + 1, N_OUTPUTS), status, residual and steps."""
    values = np.empty((len(points), times.size + 1, N_OUTPUTS))
    status, residual = np.empty(len(points), dtype=np.int8), np.empty(len(points))
    steps = np.empty(len(points), dtype=np.int64)
    # K depends on α alone, so a point's answer does not depend on its neighbours in the grid.
    ladder = np.searchsorted(_NODE_LADDER, np.clip(nodes_needed(points[:, 0], _QUADRATURE_ERROR), 1, _NODE_LADDER[-1]))
    for rung in np.unique(ladder):
        members = np.flatnonzero(ladder == rung)
        for first in range(0, members.size, _CHUNK):
            at = members[first : first + _CHUNK]
            recorded = np.broadcast_to(times, (at.size, times.size))
            modes = Modes(points[at], recorded, _NODE_LADDER[rung], stages, tolerance)
            still = modes.frozen | (modes.times[:, -1] == 0)
            walk = march(modes, modes.first_step(), active=~still, order=stages, max_steps=max_steps)
            values[at], residual[at], steps[at] = modes.out, modes.residual, walk.steps
            status[at] = np.where(modes.collapsed, Status.COLLAPSED, walk.status)
    return values, status, residual, steps


@dataclass(frozen=True)
class EarlyStopped:
    """The source task at time t1; every field has the broadcast shape of the parameters.

    overlap q = β₁·β*₁, norm2 = |β₁|², loss = |β₁ − β*₁|², train_loss on the noisy labels, bulk k.
    """

    overlap: Floats
    norm2: Floats
    loss: Floats
    train_loss: Floats
    bulk: Floats
    status: NDArray[np.int8]
    residual: Floats


def integrate_pretraining(
    alpha1: ArrayLike,
    gamma0: ArrayLike,
    t1: ArrayLike,
    *,
    sigma1: ArrayLike = 0.0,
    init_scale: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
    tolerance: float = TOLERANCE,
) -> EarlyStopped:
    """Train the source task from zero for a time t1 in [0, inf]; arrays broadcast.

    init_scale is κ (bulk k(0) = κ²); the other parameters as in `integrate_stage`. t1 = inf integrates until
    nothing moves; the closed forms of `tlcli.linear.pretraining` are faster. Raises `DomainError`.
    """
    require(INIT_SCALE, init_scale=init_scale)
    run = integrate_stage(
        alpha1,
        gamma0,
        t1,
        bulk=np.square(np.asarray(init_scale, dtype=float)),
        sigma=sigma1,
        weight_decay=weight_decay,
        tolerance=tolerance,
    )
    end = {name: getattr(run, name)[..., -1] for name in ("norm2", "loss", "train_loss", "bulk")}
    return EarlyStopped(overlap=run.signal[..., -1], status=run.status, residual=run.residual, **end)
