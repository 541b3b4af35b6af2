"""One start of the source solver: slaved particles, field ladder, rounds of umbrella sampling and Newton."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tlcli.arrays import Floats
from tlcli.bayes.domain import normalisable
from tlcli.bayes.sampling.condense import Atoms, Cuts, more_cuts, outside_domain
from tlcli.bayes.sampling.dual import Solved, newton, project
from tlcli.bayes.sampling.fits import SampledFit
from tlcli.bayes.sampling.jumps import Mixture, fit, fit_lobes, jump
from tlcli.bayes.sampling.ladder import Ladder, ladder
from tlcli.bayes.sampling.moves import Chains, hmc
from tlcli.bayes.sampling.pool import Pool
from tlcli.bayes.sampling.slaved import slaved
from tlcli.bayes.sampling.start import walk
from tlcli.bayes.sampling.tilt import Tilt

KEEP = 5  # every fifth state enters the pool: neighbours are correlated, and the pool is what costs memory
HIGHEST_FIELD = 44
ROUNDS = 8  # Newton steps before the umbrella is frozen, each on a pool of its own
_MARGIN = 10.0  # nats below its maximum at which log p(a) may be cut: one node more than the certificate asks
_LARGEST_STEP = 0.25
_COMPONENTS = 10
_CUTS = 40
_LOBES = 1.0  # a tilt of exp(½u²) with |u| below one has no second maximum


@dataclass(frozen=True, eq=False)
class SourceStage:
    """One source problem in the row space of its inputs: measures, likelihood, γ, and whether φ is odd."""

    tilt: Tilt
    fit: SampledFit
    gamma: float
    odd: bool

    def allowed(self, v: Floats) -> bool:
        """Whether the tilt of v (P,) can be normalised."""
        return normalisable(self.tilt.act, self.tilt.b.astype(float), v, self.gamma)[0]


class Trips:
    """Counts round trips of every chain between |γs| < 1 and |γs| > top."""

    def __init__(self, chains: int, top: float) -> None:
        self.top = top
        self.side = np.zeros(chains, dtype=int)
        self.crossings = np.zeros(chains)

    def add(self, u: Floats) -> None:
        """Add one snapshot of u = γs, (M,)."""
        size = np.abs(u)
        side = np.where(size > self.top, 1, np.where(size < 1, -1, 0))
        self.crossings += side * self.side == -1
        self.side = np.where(side == 0, self.side, side)

    @property
    def mean(self) -> float:
        """Round trips per chain; inf for a measure of one lobe, whose chains never leave |γs| < 1."""
        return np.inf if self.top < _LOBES else float(self.crossings.mean()) / 2


@dataclass(eq=False)
class Run:
    """State of one start: v (P,), the v of sampling, ladder, jump proposals, chains, final pool and diagnostics.

    `kernel` (P, P) and `log_z` are Φ, the condensate included, and log Z of v on the last pool; `cuts` and `atoms` are
    those of `condense`.
    """

    v: Floats
    sampled: Floats
    ladder: Ladder
    mixture: Mixture
    chains: Chains
    pool: Pool | None
    trips: Trips
    acceptance: tuple[float, float] = (0.0, 0.0)
    newton: float = np.inf
    kernel: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    log_z: float = np.nan
    cuts: Cuts | None = None
    atoms: Atoms | None = None


def first_run(stage: SourceStage, seed: np.random.SeedSequence, *, chains: int, moves: int) -> Run:
    """Go from nothing to a frozen umbrella near the saddle.

    Args:
        stage: problem.
        seed: seed of this start.
        chains: M.
        moves: HMC moves of each of the first `ROUNDS`; doubled after half of them.

    Raises:
        ConvergenceError: the slaved particles do not settle.
    """
    tilt, gamma, odd = stage.tilt, stage.gamma, stage.odd
    rng = np.random.default_rng(seed)
    begun = slaved(tilt, stage.fit, gamma, rng, size=2 * chains)
    v = begun.v
    _, _, steepness = normalisable(tilt.act, tilt.b.astype(float), v, gamma)
    v = v / max(1.0, 1.02 * np.sqrt(steepness))
    umbrella, state = walk(tilt, v, gamma, fields(tilt, begun.largest), chains, rng, odd=odd)
    run = Run(v, v, _trimmed(tilt, umbrella), Mixture.none(), state, None, Trips(chains, 1.0))
    for n in range(ROUNDS):
        pool, trips = sample(stage, run, moves if n < ROUNDS // 2 else 2 * moves)
        improve(stage, run, pool)
        run.trips = trips
        run.ladder = refreshed(stage, run, pool)
        count = _COMPONENTS * (1 if odd or tilt.sphere else 2)
        run.mixture = fit(tilt, pool, run.v, gamma, run.ladder, even=odd, components=count)
    run.chains.refresh(tilt, run.v.astype(np.float32))
    run.sampled = run.v
    top = float(np.quantile(np.abs(gamma * run.chains.s), 0.93))
    run.trips = Trips(chains, top)
    return run


def fields(tilt: Tilt, largest: float) -> Floats:
    """Return the fields of a ladder on one side, rising from 0: beyond the outermost lobe at |u| = `largest`.

    On the sphere the measure itself has the field r, the rank; its second and fourth moments are those of r + 2 and
    r + 4.
    """
    if tilt.sphere:
        return np.linspace(0, tilt.rank + 4, min(tilt.rank + 5, HIGHEST_FIELD + 1))
    return np.arange(int(np.clip(np.ceil(largest + 4), 6, HIGHEST_FIELD)) + 1, dtype=float)


def improve(stage: SourceStage, run: Run, pool: Pool, others: Sequence[Pool] = ()) -> None:
    """Replace run.v by the maximum of the pool's dual; `others` as in `solved`."""
    found, run.cuts, run.atoms = solved(stage, pool, run.v, run.cuts, others=others)
    run.newton = float(np.linalg.norm(found.v - run.v) / max(np.linalg.norm(found.v), 1e-300))
    run.v, run.log_z = found.v, found.moments.log_z
    run.kernel = found.moments.kernel if run.atoms is None else found.moments.kernel + run.atoms.kernel


def solved(
    stage: SourceStage, pool: Pool, start: Floats, cuts: Cuts | None, groups: int = 1, others: Sequence[Pool] = ()
) -> tuple[Solved, Cuts | None, Atoms | None]:
    """Return the maximum of the pool's dual from `start` (P,), and on the sphere the cuts and the condensate.

    Directions in which v leaves the domain are added until there is none: the dual is concave and the constraints are
    linear, so each round is solved exactly. The states of the pool and of `others` tell where to look for them.
    """
    tilt, gamma = stage.tilt, stage.gamma
    more = (stage.fit, gamma, groups)
    if not tilt.sphere:
        return newton(tilt, pool, start, *more, allowed=stage.allowed), None, None
    cuts = Cuts.none(tilt) if cuts is None else cuts
    found: Solved | None = None
    for _ in range(_CUTS):
        v = start if found is None else found.v
        longer = more_cuts(tilt, v, gamma, cuts, outside_domain(tilt, (pool, *others), v, gamma))
        if longer is None and found is not None:
            break
        cuts = longer or cuts
        found = newton(tilt, pool, v, *more, cuts=cuts)
    assert found is not None
    # The last cuts have no mass yet where the search was broken off.
    mass = np.concatenate([found.mass, np.zeros(len(cuts.z) - len(found.mass))])
    kept = Atoms.of(cuts, mass)
    return found, cuts, kept if len(kept.mass) else None


def extend(stage: SourceStage, run: Run, moves: int, burn: int) -> None:
    """Sample `moves` more under the frozen umbrella (after `burn`) and solve on the whole pool."""
    if burn:
        sample(stage, run, burn, frozen=True)
    pool, _ = sample(stage, run, moves, trips=run.trips, frozen=True)
    old = run.pool
    run.pool = pool if old is None else Pool(np.concatenate([old.z, pool.z]), np.concatenate([old.bias, pool.bias]))
    improve(stage, run, run.pool)


def propose_lobes(stage: SourceStage, run: Run) -> None:
    """Let jumps go to every lobe of the outermost field on its own (sphere); the umbrella stays as it is."""
    if run.pool is None or not stage.tilt.sphere:
        return
    field = float(run.ladder.nodes.max())
    lobes = fit_lobes(stage.tilt, run.pool, run.sampled, stage.gamma, field, run.chains.rng)
    run.mixture = run.mixture.without_lobes().joined(lobes)


def share_cuts(stage: SourceStage, runs: list[Run]) -> None:
    """Solve both runs again with the directions that either has found: the search for them is no proof of absence."""
    if runs[0].cuts is None or runs[1].cuts is None:
        return
    joined = runs[0].cuts.joined(runs[1].cuts)
    for run, other in (runs, runs[::-1]):
        run.cuts = joined
        if run.pool is not None and other.pool is not None:
            improve(stage, run, run.pool, (other.pool,))


def sample(
    stage: SourceStage, run: Run, moves: int, *, trips: Trips | None = None, frozen: bool = False
) -> tuple[Pool, Trips]:
    """Move the chains under the run's umbrella; return the pool of every fifth state and the round trips.

    A frozen umbrella keeps its v and its step size; otherwise the chains follow run.v and the step adapts to 80 %.
    """
    tilt, gamma, chains = stage.tilt, stage.gamma, run.chains
    v = (run.sampled if frozen else run.v).astype(np.float32)
    if not frozen:
        chains.refresh(tilt, v)
    count = trips or Trips(len(chains.z), float(np.quantile(np.abs(gamma * chains.s), 0.93)))
    states, biases, rates, hits = [], [], [], []
    for n in range(moves):
        if stage.odd:
            chains.flip()
        rates.append(hmc(tilt, chains, v, gamma, run.ladder))
        if not frozen:
            chains.step = min(chains.step * float(np.exp(0.1 * (rates[-1] - 0.8))), _LARGEST_STEP)
        if len(run.mixture.mean):
            hits.append(jump(tilt, chains, v, gamma, run.ladder, run.mixture))
        u = gamma * chains.s.astype(float)
        count.add(u)
        if n % KEEP == KEEP - 1:
            states.append(chains.z.copy())
            biases.append(run.ladder.bias(tilt.statistic(u)[0])[0])
    run.acceptance = float(np.mean(rates)), float(np.mean(hits)) if hits else 0.0
    return Pool(np.stack(states), np.stack(biases)), count


def refreshed(stage: SourceStage, run: Run, pool: Pool) -> Ladder:
    """Return the ladder with log Z(a_k) at run.v from the pool, extended or trimmed to where p(a) matters."""
    nodes = run.ladder.nodes
    if not stage.tilt.sphere and run.ladder.tail() > -_MARGIN and np.abs(nodes).max() < HIGHEST_FIELD:
        low, high = int(nodes[0]), int(nodes[-1])
        nodes = np.arange(low - 2 if not stage.odd or low < 0 else low, high + 3, dtype=float)
    t, _ = stage.tilt.statistic(stage.gamma * project(stage.tilt, pool, run.v, 1).ravel())
    exponent = nodes[:, None] * t - pool.bias.ravel()
    top = exponent.max(axis=1)
    log_z = top + np.log(np.exp(exponent - top[:, None]).mean(axis=1))
    log_z -= log_z[nodes == 0]
    if stage.odd:
        log_z = 0.5 * (log_z + log_z[::-1])
    return _trimmed(stage.tilt, ladder(nodes, log_z[None]))


def _trimmed(tilt: Tilt, umbrella: Ladder) -> Ladder:
    """Drop the nodes beyond the one where log p(a) has fallen by the margin: every node costs the chains time."""
    if tilt.sphere:  # there the measure is a node itself
        return umbrella
    log_p = umbrella.log_z - 0.5 * umbrella.nodes**2
    needed = np.flatnonzero((log_p > log_p.max(axis=1, keepdims=True) - _MARGIN).any(axis=0))
    zero = int(np.flatnonzero(umbrella.nodes == 0)[0])
    first = max(min(needed[0] - 1, zero - 1), 0)
    last = min(max(needed[-1] + 1, zero + 1), len(umbrella.nodes) - 1)
    kept = slice(first, last + 1)
    return ladder(umbrella.nodes[kept], umbrella.log_z[:, kept], umbrella.log_c[kept])
