"""One start of the target solver: every chain keeps its own source neuron, and samples the tilted measure directly."""

from dataclasses import dataclass, field, replace

import numpy as np

from tlcli.arrays import Floats
from tlcli.bayes.sampling.dual import directed, newton
from tlcli.bayes.sampling.jumps import Mixture, fit, jump
from tlcli.bayes.sampling.ladder import Square
from tlcli.bayes.sampling.moves import Chains, hmc, start_chains
from tlcli.bayes.sampling.pool import Pool
from tlcli.bayes.sampling.run import KEEP, ROUNDS, Run, SourceStage, Trips, fields, refreshed, sample
from tlcli.bayes.sampling.slaved import slaved
from tlcli.bayes.sampling.start import walk
from tlcli.bayes.sampling.target_condense import Dragged, Split
from tlcli.bayes.sampling.target_far import Far, far_lobes
from tlcli.bayes.sampling.target_jumps import GroupMixture, adapt
from tlcli.bayes.sampling.target_newton import dragged_newton
from tlcli.bayes.sampling.tilt import Tilt

_STATES = 8
_NODES, _MOVES = 12, 20  # of the integration over the strength of the tilt; moves at each
STIFF = 1e6  # δ from which the base Gaussians are so narrow that no jump is needed


@dataclass(frozen=True, eq=False)
class Tied:
    """A target tied to G source neurons: its problem (the tilt has one offset per neuron), the means αw̄_i of its
    weights (G, D), and their coordinates in the row space of its inputs, `centre` (G, r).

    Of a condensed source, `dragged` has the atoms and `outside` (K, D) the part of their αẑ outside the row space.
    """

    stage: SourceStage
    means: Floats
    centre: Floats
    dragged: Dragged | None = None
    outside: Floats | None = None


@dataclass(eq=False)
class TargetRun:
    """State of one start: v (P,), v of sampling, chains (one per source neuron), proposals, pool, diagnostics.

    `lobes` are the proposals before they are adapted to source neurons, None where no jump is needed; `kernel` is Φ
    (P, P) of the last pool at v, and `split` its part that is dragged along.
    """

    tied: Tied
    precision: float
    v: Floats
    sampled: Floats
    chains: Chains
    lobes: tuple[Mixture, Floats] | None
    mixture: GroupMixture | None
    pool: Pool | None = None
    kernel: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    acceptance: tuple[float, float] = (0.0, 0.0)
    hits: float = 0.0
    split: Split | None = None
    far: Far | None = None

    @property
    def stage(self) -> SourceStage:
        """The target problem."""
        return self.tied.stage

    def replace(self, tied: Tied) -> None:
        """Start new chains on other source neurons at the best v; what was learnt about v and the lobes stays."""
        self.tied, self.pool = tied, None
        self.chains = _fresh(tied, self.v, self.chains.step, self.chains.rng)
        self.mixture = _adapted(self.lobes, tied.centre, self.precision)
        self.find_far(self.v, start=True)

    def find_far(self, v: Floats, *, strength: float = 1.0, start: bool = False) -> None:
        """Look for the lobes of long neurons at v (P,) under `strength` times the tilt, of a condensed source only;
        `start` their chains there."""
        if self.tied.dragged is None:
            return
        dragged = self.tied.dragged
        if strength < 1:
            dragged = replace(dragged, gamma=self.stage.gamma * np.sqrt(strength))
        self.far = far_lobes(dragged, self.tied.centre, v)
        if start:
            self.far.start(self.chains)
            self.chains.refresh(self.stage.tilt, self.v.astype(np.float32))


def _fresh(tied: Tied, v: Floats, step: float, rng: np.random.Generator) -> Chains:
    # From the base, not from slaved particles: the chains must find the shares of the lobes by themselves.
    size, rank = tied.centre.shape
    z = rng.standard_normal((size, rank), dtype=np.float32)
    return start_chains(tied.stage.tilt, v.astype(np.float32), z, np.arange(size), step, rng)


def _adapted(lobes: tuple[Mixture, Floats] | None, centre: Floats, precision: float) -> GroupMixture | None:
    return None if lobes is None else adapt(lobes[0], lobes[0].fields, lobes[1], centre, precision)


def first_target_run(
    tied: Tied,
    alone: SourceStage,
    precision: float,
    seed: np.random.SeedSequence,
    *,
    moves: int,
) -> TargetRun:
    """Go from nothing to a frozen v near the target's saddle.

    Args:
        tied: target problem with its source neurons.
        alone: the same without offsets and with δ = 0.
        precision: 1 + δ.
        seed: seed of this start.
        moves: moves of each of the first `ROUNDS`; doubled after half of them.

    Raises:
        ConvergenceError: the slaved particles do not settle.
    """
    rng = np.random.default_rng(seed)
    stage, size = tied.stage, len(tied.centre)
    known = 0.0 if tied.dragged is None else tied.dragged.untilted
    begun = slaved(stage.tilt, stage.fit, stage.gamma, rng, size=size, group=np.arange(size), known=known)
    run = with_lobes(tied, alone, precision, begun.v, begun.largest, rng)
    sample_target(run, moves)
    for n in range(ROUNDS):
        pool = sample_target(run, moves if n < ROUNDS // 2 else 2 * moves)
        solve_on(run, pool)
    return run


def with_lobes(
    tied: Tied, alone: SourceStage, precision: float, v: Floats, largest: float, rng: np.random.Generator
) -> TargetRun:
    """Return a start at v (P,) with fresh chains and the proposals of lobes that reach to |γs| = `largest`."""
    lobes = _lobes(alone, v, largest, rng) if precision < STIFF else None
    mixture = _adapted(lobes, tied.centre, precision)
    run = TargetRun(tied, precision, v, v, _fresh(tied, v, 0.15, rng), lobes, mixture)
    run.find_far(v, start=True)
    return run


def judged(run: TargetRun, pool: Pool) -> tuple[Tilt, Pool]:
    """Return the tilt and the states of a `pool` of the chains, sampled at `run.sampled`, that its dual is made of: of
    a homogeneous activation the directions."""
    stage = run.stage
    if not stage.tilt.act.homogeneous:
        return stage.tilt, pool
    return directed(stage.tilt, pool, run.tied.centre * np.sqrt(run.precision), run.sampled, stage.gamma)


def neurons_at(run: TargetRun, basis: Floats, moves: int) -> Floats:
    """Return the weights w (kG, D) of k <= 8 states of the chains at their v, one chain per source neuron.

    They are those of the last pool, or of `moves` more; `basis` (D, r) spans the target's inputs, and outside it w is
    N(αw̄, I/(1+δ)).
    """
    pool = sample_target(run, moves) if moves or run.pool is None else run.pool
    states = pool.z[:: max(1, len(pool.z) // _STATES)][-_STATES:]
    z = states.reshape(-1, states.shape[2]).astype(float)
    means = np.tile(run.tied.means, (len(states), 1))
    away = run.chains.rng.standard_normal(means.shape)
    return means + (away + (z - away @ basis) @ basis.T) / np.sqrt(run.precision)


def solve_on(run: TargetRun, pool: Pool) -> None:
    """Replace run.v by the maximum of the pool's dual; weights are normalised per source neuron."""
    stage = run.stage
    groups = len(run.tied.centre)
    problem = (*judged(run, pool), run.v, stage.fit, stage.gamma, groups)
    if run.tied.dragged is None:
        found = newton(*problem, allowed=stage.allowed)
        run.v, run.kernel = found.v, found.moments.kernel
    else:
        found, run.split = dragged_newton(*problem, run.tied.dragged)
        run.v, run.kernel = found.v, found.moments.kernel + run.split.kernel
        run.find_far(run.v)


def judged_pool(run: TargetRun, moves: int, burn: int) -> None:
    """Freeze v, sample a pool of `moves` at it (after `burn`), and solve on the pool."""
    run.sampled, run.hits = run.v, 0.0
    run.chains.refresh(run.stage.tilt, run.v.astype(np.float32))
    sample_target(run, burn, frozen=True)
    run.pool = sample_target(run, moves, frozen=True)
    solve_on(run, run.pool)


def sample_target(run: TargetRun, moves: int, *, frozen: bool = False, strength: float = 1.0) -> Pool:
    """Move the chains under `strength` times the tilt; return every fifth state."""
    stage, chains = run.stage, run.chains
    if not frozen:
        run.sampled = run.v
        chains.refresh(stage.tilt, run.v.astype(np.float32))
    v = run.sampled.astype(np.float32)
    tilt = Square(strength)
    states, biases, rates, hits = [], [], [], []
    for n in range(moves):
        rates.append(hmc(stage.tilt, chains, v, stage.gamma, tilt))
        if not frozen:
            chains.step = min(chains.step * float(np.exp(0.1 * (rates[-1] - 0.8))), 0.25)
        if run.mixture is not None:
            hits.append(jump(stage.tilt, chains, v, stage.gamma, tilt, run.mixture))
        if run.far is not None:
            run.far.jump(stage.tilt, chains, v, stage.gamma, tilt)
        if n % KEEP == KEEP - 1 or n == moves - 1:
            states.append(chains.z.copy())
            biases.append(tilt.bias(stage.gamma * chains.s.astype(float))[0])
    run.acceptance = float(np.mean(rates)), float(np.mean(hits)) if hits else 1.0
    run.hits += float(np.sum(hits)) if hits else float(moves)
    return Pool(np.stack(states), np.stack(biases))


def mean_log_z(run: TargetRun) -> float:
    """Return mean_i log Z(v|w̄_i) at the v of sampling by thermodynamic integration over the strength of the tilt.

    log Z = ∫₀¹ E_t ½γ²s² dt with t times the tilt; Gauss-Legendre nodes, from the full tilt down. The chains end at a
    small t.
    """
    t, w = np.polynomial.legendre.leggauss(_NODES)
    t, w = 0.5 * (1 + t), 0.5 * w
    total = 0.0
    for strength, weight in sorted(zip(t, w, strict=True), reverse=True):
        run.find_far(run.sampled, strength=strength)
        sample_target(run, _MOVES // 2, frozen=True, strength=strength)
        pool = sample_target(run, _MOVES, frozen=True, strength=strength)
        total += weight * float(np.mean(pool.bias)) / strength
    return total


def _lobes(alone: SourceStage, v: Floats, largest: float, rng) -> tuple[Mixture, Floats]:
    """Fit the lobes of a network that learns the target alone, at the target's v; return them and log Z at their
    fields."""
    umbrella, chains = walk(alone.tilt, v, alone.gamma, fields(alone.tilt, largest), 512, rng, odd=alone.odd)
    helper = Run(v, v, umbrella, Mixture.none(), chains, None, Trips(512, 1.0))
    pool, _ = sample(alone, helper, 100)
    helper.ladder = refreshed(alone, helper, pool)
    fitted = fit(alone.tilt, pool, v, alone.gamma, helper.ladder, even=alone.odd, components=9 if alone.odd else 17)
    log_z = np.interp(fitted.fields, helper.ladder.nodes, helper.ladder.log_z[0])
    return fitted, log_z
