"""Training histories: a list of stages on correlated teachers (docs/theory.md, Section 4, "K stages").

Between stages only three things survive: |b|, the bulk k and the overlaps o_i = n·β*_i of the predictor's direction
with the teachers (Gram matrix R). A stage on teacher j runs the modes of `tlcli.linear.dynamics` with r = o_j; then

    β·β*_i = R_ji ∫C + o_i ∫E,   o_i ← β·β*_i/|β|,   loss_i = 1 − 2 β·β*_i + |β|².

The readout is carried over: b is continuous, so β = b/γ is rescaled by γ_old/γ_new at the switch. Source and target
are the list of length two (`joint`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcli.arrays import Flags, Floats
from tlcli.errors import DomainError
from tlcli.linear.domain import INIT_SCALE, at_threshold, require
from tlcli.linear.dynamics import OUTPUTS, StageSolution, integrate_stage
from tlcli.linear.pretraining import pretrain
from tlcli.status import Status, worst


@dataclass(frozen=True)
class LinearStage:
    """One stage: which teacher, P/D, richness, how long, label noise, weight decay. Numbers or arrays."""

    teacher: int
    alpha: ArrayLike
    gamma: ArrayLike
    duration: ArrayLike = np.inf
    sigma: ArrayLike = 0.0
    weight_decay: ArrayLike = 0.0


@dataclass(frozen=True)
class StageResult:
    """One stage of a history on the grid (…); trailing axis n_times: the recorded times, then the end.

    loss, overlap (…, n_teachers, n_times): |β − β*_i|² and β·β*_i on every teacher; norm2, train_loss, bulk
    (…, n_times); direction (…, n_teachers): o_i at the end (0 where β = 0); status, residual (…), the worst of this
    and all earlier stages. DIVERGED points have infinite loss and norm2.
    """

    loss: Floats
    overlap: Floats
    norm2: Floats
    train_loss: Floats
    bulk: Floats
    direction: Floats
    status: NDArray[np.int8]
    residual: Floats


@dataclass(frozen=True)
class Joint:
    """Source, then target, features and readout carried over; all fields (…), losses without ½."""

    loss: Floats
    source_loss: Floats  # at the end
    source_loss_before: Floats  # at the switch
    forgetting: Floats  # source_loss − source_loss_before
    overlap: Floats  # β₁·β*₁ at the switch
    norm2: Floats  # |β₁|² at the switch
    norm2_end: Floats
    baseline: Floats  # stage 2 alone, from b = 0
    gain: Floats  # baseline − loss
    status: NDArray[np.int8]
    residual: Floats


def check_gram(gram: ArrayLike) -> Floats:
    """The Gram matrix of unit teachers, (…, n, n); `DomainError` unless symmetric, unit diagonal, positive."""
    gram = np.asarray(gram, dtype=float)
    if gram.ndim < 2 or gram.shape[-1] != gram.shape[-2] or not np.all(np.isfinite(gram)):
        raise DomainError(f"The gram matrix of the teachers has shape {gram.shape}: it must be square and finite.")
    skew, diagonal = gram - np.swapaxes(gram, -1, -2), np.diagonal(gram, axis1=-2, axis2=-1)
    if max(np.max(np.abs(skew)), np.max(np.abs(diagonal - 1.0))) > 1e-12:
        raise DomainError("The gram matrix of the teachers must be symmetric with a unit diagonal: norms are 1.")
    smallest = float(np.min(np.linalg.eigvalsh(gram)))
    if smallest < -1e-9:
        raise DomainError(
            f"No unit teachers have these overlaps: their gram matrix has the eigenvalue {smallest:.3g}, "
            "and none may be negative."
        )
    return gram


def run_stages(
    stages: Sequence[LinearStage],
    gram: ArrayLike,
    *,
    init_scale: ArrayLike = 1.0,
    times: ArrayLike | Sequence[ArrayLike] | None = None,
) -> list[StageResult]:
    """Run a training history from zero output; one `StageResult` per stage.

    gram: (…, n_teachers, n_teachers), its leading axes broadcast with the stages' arrays. init_scale: κ. times: what
    to record besides the ends, counted from the start of each stage: None, one array for all stages, or a list
    with one array per stage; each within its stage's duration. A stage sees only the axes of its own and earlier
    parameters (and of gram from stage 2 on), so put independent parameters on separate axes.

    Where a stage of infinite duration has a closed form (the first; least squares), it ends in that, without a train
    loss. Raises `DomainError`, also for gamma = 0 after a stage that left an output: b/gamma would be infinite.
    """
    gram = check_gram(gram)
    require(INIT_SCALE, init_scale=init_scale)
    n_teachers = gram.shape[-1]
    recorded = _times_per_stage(times, len(stages))
    bulk: Floats = np.square(np.asarray(init_scale, dtype=float))
    direction = np.zeros(n_teachers)
    spread: Floats | None = None  # |β| of the last stage, None before the first
    gamma_before: ArrayLike = 0.0
    status, residual = np.zeros((), dtype=np.int8), np.zeros(())
    results: list[StageResult] = []
    for number, (stage, at) in enumerate(zip(stages, recorded, strict=True), start=1):
        if not 0 <= stage.teacher < n_teachers:
            raise DomainError(
                f"teacher = {stage.teacher} in stage {number}: the gram matrix knows 0 to {n_teachers - 1}."
            )
        lost = status == Status.DIVERGED
        if spread is None:
            run = _first(stage, bulk, init_scale, at)
        else:
            unknown = ~(lost | np.isfinite(spread) & np.isfinite(bulk) & np.isfinite(direction).all(axis=-1))
            start = _rescaled(np.where(lost | unknown, 0.0, spread), gamma_before, stage.gamma, number)
            unknown = unknown | ~np.isfinite(start)
            start = np.where(unknown, 0.0, start)
            along = np.clip(np.where(unknown, 0.0, direction[..., stage.teacher]), -1.0, 1.0)
            run = _later(stage, start, np.where(unknown, 1.0, bulk), along, at)
            run = _without(run, unknown)
        lost = np.broadcast_to(lost | (run.status == Status.DIVERGED), run.status.shape)
        here = np.where(lost, np.int8(Status.DIVERGED), run.status).astype(np.int8)
        status, residual = worst(status, here), np.maximum(residual, run.residual)
        result = _on_all_teachers(run, gram, stage.teacher, direction, lost, status, residual)
        results.append(result)
        bulk, direction, gamma_before = result.bulk[..., -1], result.direction, stage.gamma
        spread = np.sqrt(result.norm2[..., -1])
    return results


def _times_per_stage(times: ArrayLike | Sequence[ArrayLike] | None, n_stages: int) -> list[Floats]:
    """One array of recorded times per stage."""
    if times is None:
        return [np.empty(0)] * n_stages
    if isinstance(times, (list, tuple)) and any(np.ndim(x) > 0 for x in times):
        if len(times) != n_stages:
            raise DomainError(f"times has {len(times)} lists for {n_stages} stages: give one list per stage.")
        return [np.asarray(x, dtype=float) for x in times]
    return [np.atleast_1d(np.asarray(times, dtype=float))] * n_stages


def _rescaled(spread: Floats, before: ArrayLike, after: ArrayLike, number: int) -> Floats:
    """|β| at the start of a stage: b = γβ is continuous. Two lazy stages are the limit of equal γ → 0."""
    before, after = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    if np.any((after == 0) & (before * spread > 0)):
        raise DomainError(
            f"gamma = 0 in stage {number} after a stage with gamma > 0: the carried output b/gamma is infinite; "
            "use a small positive gamma."
        )
    with np.errstate(over="ignore", invalid="ignore"):  # beyond floats it is unknown, and so is what follows
        ratio = np.divide(before, after, out=np.ones(np.broadcast_shapes(before.shape, after.shape)), where=after > 0)
        return ratio * spread


def _first(stage: LinearStage, bulk: Floats, init_scale: ArrayLike, times: Floats) -> StageSolution:
    """Stage 1: integrated while it lasts, closed form where it never ends."""
    duration = np.asarray(stage.duration, dtype=float)
    forever = np.isinf(duration)
    finite = duration if times.size else np.where(forever, 0.0, duration)
    # With recorded times an endless stage is integrated up to the last of them only.
    finite = np.where(forever & (times.size > 0), np.max(times, initial=0.0), finite)
    run = integrate_stage(
        stage.alpha,
        stage.gamma,
        finite,
        bulk=bulk,
        sigma=stage.sigma,
        weight_decay=stage.weight_decay,
        times=times,
    )
    if not forever.any():
        return run
    end = pretrain(
        stage.alpha,
        stage.gamma,
        sigma1=stage.sigma,
        init_scale=init_scale,
        weight_decay=stage.weight_decay,
    )
    run = run.ending_in(forever, signal=end.overlap, norm2=end.norm2, bulk=end.bulk)
    return replace(
        run,
        status=np.where(forever, end.status, run.status).astype(np.int8),
        residual=np.where(forever, end.residual, run.residual),
    )


def _later(stage: LinearStage, start: Floats, bulk: Floats, alignment: Floats, times: Floats) -> StageSolution:
    """Any later stage; endless training on P ≥ D samples without decay ends in least squares, exactly."""
    run = integrate_stage(
        stage.alpha,
        stage.gamma,
        stage.duration,
        start=start,
        bulk=bulk,
        alignment=alignment,
        sigma=stage.sigma,
        weight_decay=stage.weight_decay,
        times=times,
    )
    alpha = at_threshold(stage.alpha)
    endless = np.isinf(np.asarray(stage.duration)) & (np.asarray(stage.weight_decay) == 0)
    exact = endless & (alpha >= 1) & ((start > 0) | (bulk > 0))
    if not exact.any():
        return run
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = np.where(np.asarray(stage.sigma) > 0, np.square(stage.sigma) / (alpha - 1.0), 0.0)
    status = np.where(np.isinf(noise), Status.DIVERGED, Status.CONVERGED)
    run = run.ending_in(exact, signal=1.0, carried=0.0, norm2=1.0 + noise, loss=noise)
    return replace(
        run,
        status=np.where(exact, status, run.status).astype(np.int8),
        residual=np.where(exact, 0.0, run.residual),
    )


def _without(run: StageSolution, unknown: Flags) -> StageSolution:
    """Return a stage that is known nowhere where its start is not: after a stage that did not converge."""
    if not unknown.any():
        return run
    shape = np.broadcast_shapes(run.status.shape, unknown.shape)
    columns = {name: np.where(unknown[..., None], np.nan, getattr(run, name)) for name in OUTPUTS}
    status = np.where(unknown, np.int8(Status.NOT_CONVERGED), np.broadcast_to(run.status, shape))
    return replace(run, status=status, **columns)


def _on_all_teachers(
    run: StageSolution,
    gram: Floats,
    teacher: int,
    before: Floats,
    lost: Flags,
    status: NDArray[np.int8],
    residual: Floats,
) -> StageResult:
    """What the stage means for every teacher; `before` (…, n_teachers) are the overlaps o_i at its start."""
    overlap = gram[..., teacher, :, None] * run.signal[..., None, :] + before[..., :, None] * run.carried[..., None, :]
    norm2 = np.where(lost[..., None], np.inf, run.norm2)
    loss = 1.0 - 2.0 * overlap + norm2[..., None, :]
    # The stage's own loss has no cancellation.
    loss[..., teacher, :] = np.where(lost[..., None], np.inf, run.loss)
    size = np.sqrt(norm2[..., None, -1])
    with np.errstate(invalid="ignore"):
        direction = np.divide(overlap[..., -1], size, out=np.zeros(overlap.shape[:-1]), where=size > 0)
    return StageResult(
        loss=loss,
        overlap=overlap,
        norm2=norm2,
        train_loss=run.train_loss,
        bulk=run.bulk,
        direction=direction,
        status=status,
        residual=residual,
    )


def joint(
    alpha1: ArrayLike,
    alpha2: ArrayLike,
    *,
    rho: ArrayLike,
    gamma1: ArrayLike,
    gamma2: ArrayLike,
    sigma1: ArrayLike = 0.0,
    sigma2: ArrayLike = 0.0,
    weight_decay1: ArrayLike = 0.0,
    weight_decay2: ArrayLike = 0.0,
    t1: ArrayLike = np.inf,
    t2: ArrayLike = np.inf,
    init_scale: ArrayLike = 1.0,
) -> Joint:
    """Source then target, both feature-learning ("jointly rich"), with the from-scratch baseline; arrays broadcast.

    rho = β*₁·β*₂ in [-1, 1]; the others as in `LinearStage`, 1 for the source and 2 for the target. Equal stages are
    solved once, so only stage 2 pays for a grid over both. Raises `DomainError`.
    """
    rho = np.asarray(rho, dtype=float)
    require((lambda x: np.abs(x) <= 1, "between -1 and 1"), rho=rho)
    gram = np.eye(2) + rho[..., None, None] * (1.0 - np.eye(2))
    source = LinearStage(0, alpha1, gamma1, t1, sigma1, weight_decay1)
    target = LinearStage(1, alpha2, gamma2, t2, sigma2, weight_decay2)
    first, second = run_stages([source, target], gram, init_scale=init_scale)
    (alone,) = run_stages([LinearStage(0, alpha2, gamma2, t2, sigma2, weight_decay2)], np.eye(1), init_scale=init_scale)
    before, after = first.loss[..., 0, -1], second.loss[..., 0, -1]
    loss, baseline = second.loss[..., 1, -1], alone.loss[..., 0, -1]
    with np.errstate(invalid="ignore"):  # inf − inf where both diverge
        fields = {
            "loss": loss,
            "source_loss": after,
            "source_loss_before": before,
            "forgetting": after - before,
            "overlap": first.overlap[..., 0, -1],
            "norm2": first.norm2[..., -1],
            "norm2_end": second.norm2[..., -1],
            "baseline": baseline,
            "gain": baseline - loss,
            "residual": np.maximum(second.residual, alone.residual),
        }
    status = worst(second.status, alone.status)
    shape = np.broadcast_shapes(status.shape, *(x.shape for x in fields.values()))
    full = {name: np.broadcast_to(x, shape).copy() for name, x in fields.items()}
    return Joint(status=np.broadcast_to(status, shape).copy(), **full)
