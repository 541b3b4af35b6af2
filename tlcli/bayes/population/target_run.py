"""One start of the target solver: every chain keeps its own source neuron, and samples the tilted measure directly."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcli.bayes.population.dual import Pool, newton
from tlcli.bayes.population.jumps import Mixture, fit, jump
from tlcli.bayes.population.ladder import Square
from tlcli.bayes.population.moves import Chains, hmc, start_chains
from tlcli.bayes.population.run import HIGHEST_FIELD, KEEP, Run, Stage, Trips, refreshed, sample
from tlcli.bayes.population.slaved import slaved
from tlcli.bayes.population.start import walk
from tlcli.bayes.population.target_jumps import GroupMixture, adapt
from tlcli.bayes.population.tilt import Tilt

Floats = NDArray[np.float64]

STIFF = 1e6  # δ from which the base Gaussians are so narrow that no jump is needed


@dataclass(eq=False)
class TargetRun:
    """State of one start: v (P,), v of sampling, chains (one per source neuron), proposals, pool, diagnostics."""

    stage: Stage
    centre: Floats
    v: Floats
    sampled: Floats
    chains: Chains
    mixture: GroupMixture | None
    pool: Pool | None = None
    acceptance: tuple[float, float] = (0.0, 0.0)
    hits: float = 0.0


def first_target_run(
    stage: Stage,
    alone: Stage,
    centre: Floats,
    precision: float,
    seed: np.random.SeedSequence,
    *,
    moves: int,
    rounds: int = 8,
) -> TargetRun:
    """Go from nothing to a frozen v near the target's saddle.

    Args:
        stage: target problem; its tilt has one offset per chain.
        alone: the same without offsets and with δ = 0.
        centre: αw̄_i in the row space, (G, r).
        precision: 1 + δ.
        seed: seed of this start.
        moves: moves of each of the first rounds; doubled after half of them.
        rounds: Newton steps.

    Raises:
        ConvergenceError: the slaved population does not settle.
    """
    rng = np.random.default_rng(seed)
    size, rank = len(centre), stage.tilt.b.shape[1]
    group = np.arange(size)
    begun = slaved(stage.tilt, stage.labels, stage.gamma, stage.beta, rng, size=size, group=group)
    single = begun.v.astype(np.float32)
    # From the base, not from the slaved population: the chains must find the shares of the lobes by themselves.
    z = rng.standard_normal((size, rank), dtype=np.float32)
    chains = start_chains(stage.tilt, single, z, group, 0.15, rng)
    run = TargetRun(stage, centre, begun.v, begun.v, chains, None)
    if precision < STIFF:
        run.mixture = _proposals(alone, begun.v, begun.largest, centre, precision, rng)
    sample_target(run, moves)
    for n in range(rounds):
        pool = sample_target(run, moves if n < rounds // 2 else 2 * moves)
        solve_on(run, pool)
    run.sampled = run.v
    run.chains.refresh(stage.tilt, run.v.astype(np.float32))
    return run


def solve_on(run: TargetRun, pool: Pool) -> None:
    """Replace run.v by the maximum of the pool's dual; weights are normalised per source neuron."""
    stage = run.stage
    run.v = newton(stage.tilt, pool, run.v, stage.labels, stage.gamma, stage.beta, groups=len(run.centre)).v


def extend_target(run: TargetRun, moves: int, burn: int) -> None:
    """Sample `moves` more at the frozen v (after `burn`) and solve on the whole pool."""
    if burn:
        sample_target(run, burn, frozen=True)
    pool, old = sample_target(run, moves, frozen=True), run.pool
    run.pool = pool if old is None else Pool(np.concatenate([old.z, pool.z]), np.concatenate([old.bias, pool.bias]))
    solve_on(run, run.pool)


def sample_target(run: TargetRun, moves: int, *, frozen: bool = False, strength: float = 1.0) -> Pool:
    """Move the chains under `strength` times the tilt; return every fifth state."""
    stage, chains = run.stage, run.chains
    v = (run.sampled if frozen else run.v).astype(np.float32)
    if not frozen:
        chains.refresh(stage.tilt, v)
    tilt = Square(strength)
    states, biases, rates, hits = [], [], [], []
    for n in range(moves):
        rates.append(hmc(stage.tilt, chains, v, stage.gamma, tilt))
        if not frozen:
            chains.step = min(chains.step * float(np.exp(0.1 * (rates[-1] - 0.8))), 0.25)
        if run.mixture is not None:
            hits.append(jump(stage.tilt, chains, v, stage.gamma, tilt, run.mixture))
        if n % KEEP == KEEP - 1 or n == moves - 1:
            states.append(chains.z.copy())
            biases.append(tilt.bias(stage.gamma * chains.s.astype(float))[0])
    run.acceptance = float(np.mean(rates)), float(np.mean(hits)) if hits else 1.0
    run.hits += float(np.sum(hits)) if hits else float(moves)
    return Pool(np.stack(states), np.stack(biases))


def mean_log_z(run: TargetRun, *, nodes: int = 12, moves: int = 20) -> float:
    """Return mean_i log Z(v|w̄_i) at the v of sampling by thermodynamic integration over the strength of the tilt.

    log Z = ∫₀¹ E_t ½γ²s² dt with t times the tilt; Gauss-Legendre nodes, from the full tilt down. The chains end at a
    small t.
    """
    t, w = np.polynomial.legendre.leggauss(nodes)
    t, w = 0.5 * (1 + t), 0.5 * w
    total = 0.0
    for strength, weight in sorted(zip(t, w, strict=True), reverse=True):
        sample_target(run, moves // 2, frozen=True, strength=strength)
        pool = sample_target(run, moves, frozen=True, strength=strength)
        total += weight * float(np.mean(pool.bias)) / strength
    return total


def _proposals(alone: Stage, v: Floats, largest: float, centre: Floats, precision: float, rng) -> GroupMixture:
    """Fit the lobes of a network that learns the target alone, at the target's v, and adapt them to every source
    neuron."""
    reach = int(np.clip(np.ceil(largest + 4), 6, HIGHEST_FIELD))
    umbrella, chains = walk(alone.tilt, v, alone.gamma, reach, 512, rng, odd=alone.odd)
    helper = Run(v, v, umbrella, Mixture.none(), chains, None, Trips(512, 1.0))
    pool, _ = sample(alone, helper, 100)
    helper.ladder = refreshed(alone, helper, pool)
    fitted = fit(alone.tilt, pool, v, alone.gamma, helper.ladder, even=alone.odd, components=9 if alone.odd else 17)
    log_z = np.interp(fitted.fields, helper.ladder.nodes, helper.ladder.log_z[0])
    return adapt(fitted, fitted.fields, log_z, centre, precision)


def alone_tilt(tilt: Tilt, precision: float) -> Tilt:
    """Return the tilt of the same inputs for the base N(0, I)."""
    return Tilt(tilt.act, (tilt.b.astype(float) * np.sqrt(precision)).astype(np.float32))
