"""Target saddle point at any input rank, with source neurons from the chains of the source.

p(w) = mean_i p(w|w̄_i), p(w|w̄_i) ∝ N(w; αw̄_i, I/(1+δ)) exp(½γ²(v·φ)²), each normalised on its own: a chain never
leaves its source neuron. Φ needs no log Z(v|w̄_i): the chains sample the tilted measure itself, with jumps between
its lobes, so there is no bias of the order of one over the states per neuron at the v of sampling. What limits the
accuracy is the number of source neurons: a larger budget takes more of them, not more moves of each. Each of the two
starts uses neurons of one of the source's, so that their gap and their spread know this error and the source's own.

Near the edge of normalisability Z(v|w̄_i) grows without bound. The dual of a homogeneous activation knows this from
directions: the radius of every state is integrated out (see `radius`).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from tlcli.arrays import Floats, Indices
from tlcli.bayes.domain import refuse_growth, refuse_tilt
from tlcli.bayes.saddle import (
    NOT_CONVERGED,
    Saddle,
    check_delta,
    check_gamma,
    check_problem,
    label_unit,
    mean_weight,
)
from tlcli.bayes.sampling.certificate import SPREADS, Check, check, relative, verdict
from tlcli.bayes.sampling.everywhere import kernel_everywhere, outside, row_space
from tlcli.bayes.sampling.fits import SampledFit
from tlcli.bayes.sampling.run import SourceStage
from tlcli.bayes.sampling.source import (
    SampledSaddle,
    check_finite_beta,
    fit_of,
    floor_of,
    judged_saddle,
    regression,
    sampled_source,
    shared_info,
)
from tlcli.bayes.sampling.target_condense import Dragged
from tlcli.bayes.sampling.target_run import (
    TargetRun,
    Tied,
    first_target_run,
    judged,
    judged_pool,
    mean_log_z,
    neurons_at,
)
from tlcli.bayes.sampling.tilt import Tilt
from tlcli.dmft.activations import Activation
from tlcli.errors import DomainError
from tlcli.losses.objective import Objective

_LEAST = 1e-3  # richness times label size: below it a dual of the order of its square is lost to rounding
_FEWEST = 1024  # source neurons of each start, where the source has them


def sampled_target(
    act: Activation,
    x: ArrayLike,
    rows: ArrayLike,
    labels: ArrayLike,
    gamma: float,
    beta: float,
    delta: float,
    source: SampledSaddle,
    *,
    seed: int,
    moves: int = 100,
    doublings: int = 4,
    threads: int = 1,
    objective: Objective | None = None,
) -> Saddle:
    """Return the saddle point of a target network tied to a source with strength δ.

    Args (the others as in `sampled_source`; the source may have any other objective):
        delta: elastic coupling >= 0, inf allowed; 0 is a network that learns the target alone.
        source: saddle of the source; of its `neurons` (N, D) one start uses 1024 and, at most, all of the first half,
            the other as many of the second.
        moves: HMC moves of every chain in a pool that is judged.
        doublings: how often the number of neurons may be doubled, each time with new chains at the best v, before the
            answer is returned as not converged.

    Raises:
        DomainError: a bad value, several readouts, or a tilt that is not normalisable (its direction is named).
        ConvergenceError: the first particles do not settle.
    """
    check_delta(delta)
    if delta == 0:
        return sampled_source(act, x, rows, labels, gamma, beta, seed=seed, threads=threads, objective=objective)
    points, at, y = check_problem(x, rows, labels if objective is None else np.ones(len(objective.y)))
    check_gamma(gamma)
    check_finite_beta(beta)
    if np.isinf(delta):
        return _regressed(source, at, fit_of(objective, y, float(beta)), float(gamma))
    fit = fit_of(objective, y / label_unit(y), float(beta))
    problem = _Problem.of(act, points, at, fit, label_unit(y), float(gamma), float(delta), source)
    seeds = np.random.SeedSequence(seed).spawn(3)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(max(1, threads)) as pool:

        def each(work: Callable[[int], object]) -> list:
            return list(pool.map(work, range(2)))

        runs, checks, words = _certified(problem, source, seeds[:2], moves, doublings, each)
        neurons = np.concatenate(each(lambda i: neurons_at(runs[i], problem.basis, 0)))
        log_z = each(lambda i: _log_z(runs[i]))  # leaves the chains at a weak tilt
    record = (runs, points, at, problem, checks, log_z, words, moves, neurons, seeds[2])
    return _in_units(_record(*record), problem, float(gamma))


def _in_units(found: SampledSaddle, problem: "_Problem", gamma: float) -> Saddle:
    """Return the record in units of the labels, its free energy at γ: in a lazy network all of it is γ²v·y/2."""
    unit, lazy = problem.unit, min(gamma * problem.unit / problem.alone.gamma, 1.0)
    energy = found.free_energy * lazy**2
    return replace(found, v=unit * found.v, outputs=unit * found.outputs, free_energy=energy)


def _regressed(source: SampledSaddle, at: Indices, fit: SampledFit, gamma: float) -> Saddle:
    """The saddle at δ = ∞: the source's measure itself."""
    known = regression(source.kernel, at, fit, gamma)
    same = {name: source.info[name] for name in SPREADS if name in source.info}
    info = {**known["info"], **same}
    return Saddle(**{**known, "status": source.status, "message": source.message, "info": info})


@dataclass(frozen=True, eq=False)
class _Problem:
    """A target in units of its labels: scaled training inputs x/√D (P, D), a basis (D, r) of them, the same network
    `alone`, the label unit, and δ."""

    inputs: Floats
    basis: Floats
    alone: SourceStage
    unit: float
    delta: float

    @staticmethod
    def of(
        act: Activation,
        x: Floats,
        at: Indices,
        fit: SampledFit,
        unit: float,
        gamma: float,
        delta: float,
        source: SampledSaddle,
    ) -> "_Problem":
        """Return it; refuse neurons of the `source` that do not fit, and an activation without a saddle."""
        neurons = source.neurons
        if neurons.ndim != 2 or neurons.shape[1] != x.shape[1] or len(neurons) < 64:
            raise DomainError(
                f"source neurons of shape {neurons.shape}: a target in dimension {x.shape[1]} needs at least 64 of "
                "them, one row each, from sampled_source."
            )
        basis = row_space(x, at)
        inputs = (x / np.sqrt(x.shape[1]))[at]
        own = inputs @ basis
        refuse_growth(act, own, fit.outputs(fit.start()), gamma, basis)
        tilt = Tilt(act, own.astype(np.float32))
        alone = SourceStage(tilt, fit, max(gamma * unit, _LEAST), act.odd)
        return _Problem(inputs, basis, alone, unit, delta)

    @property
    def precision(self) -> float:
        """1 + δ."""
        return 1.0 + self.delta

    def tied(self, source: SampledSaddle, start: int, neurons: Floats) -> Tied:
        """Return the problem of one start around `neurons` (G, D), and what has condensed in that start of the
        source."""
        α, act = float(mean_weight(self.delta)), self.alone.tilt.act
        centres, own, basis = α * neurons, self.inputs @ self.basis, self.basis
        offset = (centres @ self.inputs.T).astype(np.float32)
        tilt = Tilt(act, (own / np.sqrt(self.precision)).astype(np.float32), offset)
        stage = replace(self.alone, tilt=tilt)
        if not source.condensates or not len(source.condensates[start][1]):
            return Tied(stage, centres, centres @ basis)
        w, mass = source.condensates[start]
        dragged = Dragged(act, own, w @ basis, mass, stage.gamma, self.precision)
        return Tied(stage, centres, centres @ basis, dragged, α * (w - w @ basis @ basis.T))

    def refuse(self, v: Floats) -> None:
        """Refuse a v (P,) whose tilt has no norm."""
        b, γ = self.inputs @ self.basis / np.sqrt(self.precision), self.alone.gamma
        refuse_tilt(self.alone.tilt.act, b, self.unit * v, γ / self.unit, self.basis)


def _certified(
    problem: _Problem, source: SampledSaddle, seeds, moves: int, doublings: int, each
) -> tuple[list[TargetRun], list[Check], tuple[str, str]]:
    """Sample both starts, and double their source neurons until they are certified, `doublings` times at most; return
    them, what the v of each is on the pool of the other, and (status, message)."""
    sets = _subsets(source.neurons, _FEWEST)

    def first(i: int) -> TargetRun:
        tied = problem.tied(source, i, sets[i])
        return first_target_run(tied, problem.alone, problem.precision, seeds[i], moves=max(20, moves // 4))

    runs: list[TargetRun] = each(first)
    words, checks = (NOT_CONVERGED, ""), []
    for level in range(doublings + 1):
        if level:
            more = _subsets(source.neurons, _FEWEST << level)
            if len(more[0]) == len(sets[0]):
                break
            sets = more
            each(lambda i, sets=sets: runs[i].replace(problem.tied(source, i, sets[i])))
        each(lambda i: judged_pool(runs[i], moves, max(10, moves // 3)))
        checks = each(lambda i: _judge(runs[1 - i], runs[i].v))
        words = _verdict(runs, checks, problem.alone.fit.points)
        if words[0] != NOT_CONVERGED:
            break
    for run in runs:
        problem.refuse(run.v)
    return runs, checks, words


def _subsets(neurons: Floats, count: int) -> list[Floats]:
    """Return `count` neurons for each of the two starts, one from each half; fewer, a multiple of 16, where there are
    not enough.

    The halves come in the order of their s, and any regular subset has the same shares of every lobe.
    """
    half = len(neurons) // 2
    size = min(count, half // 16 * 16)
    at = np.linspace(0, half, size, endpoint=False).astype(int)
    return [neurons[at], neurons[half + at]]


def _judge(run: TargetRun, v: Floats) -> Check:
    if run.pool is None:
        raise ValueError("the run has no pool yet")
    stage = run.stage
    groups = len(run.tied.centre)
    return check(*judged(run, run.pool), v, stage.fit, stage.gamma, groups, dragged=run.tied.dragged)


def _verdict(runs: list[TargetRun], checks: list[Check], points: int) -> tuple[str, str]:
    # Chains of a target have lobes of their own, so a round trip is counted as two accepted jumps per chain.
    return verdict(
        gap=max(c.gap for c in checks),
        floor=floor_of(checks),
        trips=min(r.hits for r in runs) / 2,
        tail=-np.inf,
        ess=min(c.ess * len(r.tied.centre) for c, r in zip(checks, runs, strict=True)),
        points=points,
        spread_v=relative(runs[0].v, runs[1].v),
        spread_kernel=relative(runs[0].kernel, runs[1].kernel),
    )


def _log_z(run: TargetRun) -> float:
    """Return mean log Z(v|w̄_i) at the v of sampling, and Σ m_k M_k of what is dragged along, nats."""
    dragged = run.tied.dragged
    return mean_log_z(run) + (0.0 if dragged is None else dragged.value(dragged.pieces(run.sampled)))


def _dragged_share(runs: list[TargetRun], v: Floats, saddle: float) -> dict[str, float]:
    """Return `dragged`, the share of E s² = `saddle` of what is dragged along from the source's condensate, if it has
    one."""
    kernels = [r.split.kernel for r in runs if r.split is not None]
    return {"dragged": sum(float(v @ k @ v) for k in kernels) / max(len(runs) * saddle, 1e-300)} if kernels else {}


def _record(runs, x, at, problem: _Problem, checks, log_z, words, moves, neurons, seed) -> SampledSaddle:
    basis, precision = problem.basis, problem.precision
    stage = runs[0].stage
    fit, γ = stage.fit, stage.gamma
    rng = np.random.default_rng(seed)
    rest = outside(x, basis) / np.sqrt(precision)
    everywhere = Tilt(stage.tilt.act, (x @ basis / np.sqrt(x.shape[1] * precision)).astype(np.float32))
    kernels = []
    for run in runs:
        # Outside the row space of the target's inputs the mean αw̄ counts in full, and the tilt does not act.
        centre = run.tied.means @ x.T / np.sqrt(x.shape[1])
        parts = [kernel_everywhere(everywhere, z, np.full(len(z), 1 / len(z)), rest, rng, centre) for z in run.pool.z]
        kernels.append(np.mean(parts, axis=0))
        if run.split is not None:
            kernels[-1] += run.split.everywhere(stage.tilt.act, basis, run.tied.outside, x / np.sqrt(x.shape[1]))
    kernel = 0.5 * (kernels[0] + kernels[1])
    train = kernel[np.ix_(at, at)]
    if any(r.split is not None for r in runs):  # near the edge x* moves so fast with v that a mean of Φ is no saddle's
        v = 0.5 * (runs[0].v + runs[1].v)
    else:
        v = fit.regressed(train, 0.5 * (runs[0].v + runs[1].v))
    duals = [γ**2 * fit.value(r.sampled) - z for r, z in zip(runs, log_z, strict=True)]
    pull = kernel[:, at] @ v
    saddle = fit.product(v, pull[at])
    dragged = _dragged_share(runs, v, saddle)
    v, outputs, residual = fit.predictor(pull, at, v)
    info = {
        "residual": residual,
        "gaps": [c.gap for c in checks],
        "noises": [c.noise for c in checks],
        "ess_per_neuron": [c.ess for c in checks],
        "source_neurons": sum(len(r.tied.centre) for r in runs),
        "moves": moves,
        **shared_info(runs, checks, fit, γ**2 * saddle, duals),
        **dragged,
    }
    return replace(judged_saddle(v, outputs, kernel, duals, checks, words, info), neurons=neurons)
