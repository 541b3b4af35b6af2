"""Source saddle point at any input rank by umbrella sampling (sections 4 and 4c of the theory).

Two independent starts (slaved particles, field ladder, rounds of umbrella sampling and Newton on the pool's dual) are
sampled under frozen umbrellas, and each one's v is judged on the other one's pool. The budget is doubled until the
rule of `certificate.verdict` is met.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from tlcli.arrays import Floats, Indices
from tlcli.bayes.domain import refuse_growth, refuse_tilt
from tlcli.bayes.saddle import (
    CONVERGED,
    NOT_CONVERGED,
    Saddle,
    check_beta,
    check_gamma,
    check_problem,
    label_unit,
)
from tlcli.bayes.sampling.certificate import LEAST_TRIPS, Check, check, relative, spreads, verdict
from tlcli.bayes.sampling.condense import Atoms
from tlcli.bayes.sampling.everywhere import kernel_everywhere, neurons_of, outside, row_space
from tlcli.bayes.sampling.fits import SampledFit, SampledLoss, SampledSquares
from tlcli.bayes.sampling.pool import Pool
from tlcli.bayes.sampling.run import Run, SourceStage, extend, first_run, propose_lobes, share_cuts, solved
from tlcli.bayes.sampling.tilt import Tilt
from tlcli.dmft.activations import Activation
from tlcli.dmft.lazy import initial_kernels
from tlcli.errors import DomainError
from tlcli.losses.objective import Objective

NEURONS = 32768  # each target start uses up to half of them
_NEURON_NUMBERS = 12_000_000  # fewer neurons in high dimension: at most 50 MB


@dataclass(frozen=True, eq=False)
class SampledSaddle(Saddle):
    """A saddle point with `neurons` (N, D): equally weighted draws of w from its measure, for a target.

    Where two starts were sampled, each half of the neurons is from the measure of one of them, and `condensates` has
    what has condensed in either: directions w (K, D), and masses (K,).
    """

    neurons: Floats = field(default_factory=lambda: np.zeros((0, 0)), repr=False)
    condensates: tuple[tuple[Floats, Floats], ...] = field(default=(), repr=False)


def sampled_source(
    act: Activation,
    x: ArrayLike,
    rows: ArrayLike,
    labels: ArrayLike,
    gamma: float,
    beta: float,
    *,
    seed: int,
    chains: int = 1024,
    moves: int | None = None,
    doublings: int = 3,
    threads: int = 1,
    objective: Objective | None = None,
) -> SampledSaddle:
    """Return the saddle point of a source network of any activation and input rank.

    Args:
        act: activation.
        x: all points (n, D).
        rows: training points, (P,) indices or a mask (n,).
        labels: (P,).
        gamma: richness >= 0.
        beta: inverse temperature, finite and > 0.
        seed: seed of both starts.
        chains: chains of each start, a multiple of 16.
        moves: HMC moves of the first certified pool; each doubling doubles the pool. None: 15 per training
            point, between 500 and 3000, with which two starts agree to 1 % in v and 3 % in Φ for 100 points.
        doublings: how often the pool may be doubled before the answer is returned as not converged.
        threads: 2 runs the two starts side by side.
        objective: losses of the training points, of one readout, in the place of the squared error of `labels` (which
            then are not used); v and outputs of two classes of softmax are (P, 2) and (n, 2).

    Raises:
        DomainError: a bad value, several readouts, or a tilt that is not normalisable (its direction is named).
        ConvergenceError: the first particles do not settle.
    """
    points, at, y = check_problem(x, rows, labels if objective is None else np.ones(len(objective.y)))
    check_gamma(gamma)
    check_finite_beta(beta)
    unit = label_unit(y)
    fit = fit_of(objective, y / unit, float(beta))
    if gamma == 0:  # the base measure itself, and regression with its kernel
        plain = fit_of(objective, y, float(beta))
        return _lazy(act, points, at, plain, np.random.default_rng(seed))
    basis = row_space(points, at)
    b = points @ basis / np.sqrt(points.shape[1])
    refuse_growth(act, b[at], y, float(gamma), basis)
    tilt = Tilt(act, b[at].astype(np.float32), sphere=act.homogeneous)
    stage = SourceStage(tilt, fit, float(gamma) * unit, act.odd)
    seeds = np.random.SeedSequence(seed).spawn(3)
    sampled = _certified(stage, seeds[:2], chains, _moves(moves, chains, len(y)), doublings, threads)
    if not tilt.sphere:
        refuse_tilt(act, b[at], unit * sampled.runs[0].v, float(gamma), basis)
    found = _record(stage, points, at, basis, sampled, np.random.default_rng(seeds[2]))
    return replace(found, v=unit * found.v, outputs=unit * found.outputs)


def _moves(moves: int | None, chains: int, points: int) -> int:
    moves = int(np.clip(15 * points, 500, 3000)) if moves is None else moves
    if chains < 64 or chains % 16 or moves < 20:
        raise DomainError(f"chains = {chains}, moves = {moves}: use a multiple of 16 from 64, and 20 moves or more.")
    return moves


class _Sampled(NamedTuple):
    """Both starts, what each one's v is on the pool of the other, (status, message), and the moves of a pool."""

    runs: list[Run]
    checks: list[Check]
    verdict: tuple[str, str]
    moves: int


def _certified(stage: SourceStage, seeds, chains: int, moves: int, doublings: int, threads: int) -> _Sampled:
    """Sample both starts, and double their pools until they are certified, `doublings` times at most."""
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(max(1, threads)) as pool:

        def each(work: Callable[[int], object]) -> list:
            return list(pool.map(work, range(2)))

        runs: list[Run] = each(lambda i: first_run(stage, seeds[i], chains=chains, moves=max(10, moves // 8)))
        done, found = 0, (NOT_CONVERGED, "")
        checks: list[Check] = []
        for level in range(doublings + 1):
            more, burn = (moves, moves // 4) if level == 0 else (done, 0)
            each(lambda i, more=more, burn=burn: extend(stage, runs[i], more, burn))
            share_cuts(stage, runs)
            done += more
            checks = each(lambda i: _judge(stage, runs[1 - i], runs[i]))
            found = _verdict(stage.tilt, runs, checks, stage.fit.points)
            if found[0] != NOT_CONVERGED:
                break
            if _trips(runs) < LEAST_TRIPS:
                each(lambda i: propose_lobes(stage, runs[i]))
    return _Sampled(runs, checks, found, done)


def _judge(stage: SourceStage, other: Run, run: Run) -> Check:
    """Judge the v of a run on the pool of the other."""
    return check(stage.tilt, _pool(other), run.v, stage.fit, stage.gamma, atoms=run.atoms)


def _lazy(act: Activation, x: Floats, at, fit: SampledFit, rng) -> SampledSaddle:
    """The saddle at γ = 0: the base measure itself, and regression with its kernel."""
    known = regression(initial_kernels(act, x, x)[0], at, fit, 0.0)
    return SampledSaddle(
        **{**known, "info": {**known["info"], "condensed": 0.0}},
        neurons=rng.standard_normal((_count(x), x.shape[1])),
    )


def fit_of(objective: Objective | None, labels: Floats, beta: float) -> SampledFit:
    """Return what is fitted: the squared error of the labels (P,), or the losses of an objective."""
    return SampledSquares(labels, beta) if objective is None else SampledLoss.of(objective, beta)


def regression(kernel: Floats, at: Indices, fit: SampledFit, gamma: float) -> dict[str, Any]:
    """Return the fields of a saddle whose kernel (n, n) is known: of the squared error v = (Φ + I/β)⁻¹y, F = ½γ²v·y."""
    train = kernel[np.ix_(at, at)]
    v = fit.regressed(train, fit.start())
    energy = gamma**2 * fit.regression_energy(v, train)
    v, outputs, residual = fit.predictor(kernel[:, at] @ v, at, v)
    return {
        "v": v,
        "outputs": outputs,
        "kernel": kernel,
        "free_energy": energy,
        "gap": 0.0,
        "gap_floor": 0.0,
        "status": CONVERGED,
        "info": {"residual": residual},
    }


def check_finite_beta(beta: float) -> None:
    """Refuse a β that is not positive and finite: the sampled kernel has noise, and only 1/β keeps it from being
    inverted.

    Raises:
        DomainError: it is not.
    """
    check_beta(beta)
    if not np.isfinite(beta):
        raise DomainError(f"beta = {beta}: the sampling route needs a finite beta, for example 1e3.")


def _pool(run: Run) -> Pool:
    if run.pool is None:
        raise ValueError("the run has no pool yet")
    return run.pool


def _verdict(tilt: Tilt, runs: list[Run], checks: list[Check], points: int) -> tuple[str, str]:
    return verdict(
        gap=max(c.gap for c in checks),
        floor=floor_of(checks),
        trips=_trips(runs),
        tail=_tail(tilt, runs),
        ess=min(c.ess for c in checks),
        points=points,
        spread_v=relative(runs[0].v, runs[1].v),
        spread_kernel=relative(runs[0].kernel, runs[1].kernel),
    )


def _trips(runs: list[Run]) -> float:
    return min(r.trips.mean for r in runs)


def _tail(tilt: Tilt, runs: list[Run]) -> float:
    # On the sphere the field of the measure itself is a node, and the ladder goes beyond it.
    return -np.inf if tilt.sphere else max(r.ladder.tail() for r in runs)


def _count(x: Floats) -> int:
    return int(np.clip(_NEURON_NUMBERS // x.shape[1], 4096, NEURONS))


def floor_of(checks: list[Check]) -> float:
    """Noise floor of a cross gap: r is the difference of the two pools' Φv, so both noises contribute."""
    return float(sum(c.noise for c in checks))


def shared_info(
    runs: Sequence[Any], checks: list[Check], fit: SampledFit, square: float, duals: Sequence[float]
) -> dict:
    """Return the diagnostics that both stages have: of the two starts, and E s² = `square` at the saddle."""
    return {
        "square": [c.square for c in checks],
        "square_saddle": square,
        **spreads([r.v for r in runs], [r.kernel for r in runs], checks),
        "spread_outputs": relative(*(fit.outputs(r.v, r.kernel @ r.v) for r in runs)),
        "free_energies": [float(d) for d in duals],
        "acceptance": [list(r.acceptance) for r in runs],
    }


def judged_saddle(
    v: Floats,
    outputs: Floats,
    kernel: Floats,
    duals: Sequence[float],
    checks: list[Check],
    words: tuple[str, str],
    info: dict[str, Any],
) -> SampledSaddle:
    """Return the record of two starts that were judged on each other's pools; `words` are (status, message)."""
    gap, floor = max(c.gap for c in checks), floor_of(checks)
    return SampledSaddle(v, outputs, kernel, float(np.mean(duals)), gap, floor, *words, info)


def _record(stage: SourceStage, x: Floats, at, basis: Floats, sampled: _Sampled, rng) -> SampledSaddle:
    runs, checks, _, moves = sampled
    fit, γ = stage.fit, stage.gamma
    pools = [_pool(r) for r in runs]
    both = Pool(*(np.concatenate([getattr(p, name) for p in pools], axis=1) for name in ("z", "bias")))
    cuts = None if runs[0].cuts is None or runs[1].cuts is None else runs[0].cuts.joined(runs[1].cuts)
    solution, _, atoms = solved(stage, both, 0.5 * (runs[0].v + runs[1].v), cuts, groups=2)
    v, weights = solution.v, solution.moments.weights.ravel()
    z = both.z.reshape(-1, basis.shape[1])
    tilt = stage.tilt
    everywhere = Tilt(tilt.act, (x @ basis / np.sqrt(x.shape[1])).astype(np.float32), sphere=tilt.sphere)
    s = tilt.project(z, v.astype(np.float32)).astype(float)
    rho = tilt.stretch(γ * s)[0] if tilt.sphere else None
    kernel = kernel_everywhere(everywhere, z, weights, outside(x, basis), rng, stretch=rho)
    if atoms is not None:
        kernel += atoms.everywhere(everywhere.features)
    # The dual at its maximum on a pool is too high by what the other pool's is too low.
    duals = [γ**2 * fit.value(r.v) - 0.5 * (r.log_z + c.log_z) for r, c in zip(runs, checks, strict=True)]
    pull = kernel[:, at] @ v
    saddle = γ**2 * fit.product(v, pull[at])
    condensed = 0.0 if atoms is None else γ**2 * float(v @ atoms.kernel @ v) / saddle
    v, outputs, residual = fit.predictor(pull, at, v)
    info = {
        "residual": residual,
        "gaps": [c.gap for c in checks],
        "noises": [c.noise for c in checks],
        "round_trips": [r.trips.mean for r in runs],
        "ess": [c.ess for c in checks],
        "states": both.states,
        "moves": moves,
        "tail": _tail(tilt, runs),
        **shared_info(runs, checks, fit, saddle, duals),
        "largest_field": float(max(np.abs(r.ladder.nodes).max() for r in runs)),
        "condensed": condensed,
    }
    found = judged_saddle(v, outputs, kernel, duals, checks, sampled.verdict, info)
    return replace(
        found,
        condensates=tuple(_condensate(r.atoms, basis) for r in runs) if atoms is not None else (),
        # The starts of a target take those of one start of the source each: their spread knows the source's error too.
        neurons=np.concatenate([neurons_of(tilt, _pool(r), r.v, γ, basis, _count(x) // 2, rng) for r in runs]),
    )


def _condensate(atoms: Atoms | None, basis: Floats) -> tuple[Floats, Floats]:
    """Return directions (K, D) and masses (K,) of one start's condensate; the same direction, found twice, is one."""
    if atoms is None:
        return np.zeros((0, len(basis))), np.zeros(0)
    merged = atoms.merged()
    return merged.z @ basis.T, merged.mass
