"""Independent populations, how many and of what size, and the standard errors that they give.

Every repeat is a population of its own; f is averaged over repeats, and `tlcli.dmft.estimates` takes values and errors
from them; a quadrature is compared with coarser rules instead. Cost grows like 1/error^2 where the rank is large and
gamma of order one: nothing but more neurons helps there (docs/references.md, Choice of the population).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tlcli.arrays import Flags, Floats
from tlcli.dmft.activations import Activation
from tlcli.dmft.estimates import Piece, averaged, estimate
from tlcli.dmft.field import Drive, Field, Threads, thread_count
from tlcli.dmft.frozen_field import deviation, freeze, stream
from tlcli.dmft.geometry import Geometry
from tlcli.dmft.integrate import Control, error_factor
from tlcli.dmft.lazy import initial_ntk
from tlcli.dmft.plan import Numerics, Plan, few_coordinates, plan
from tlcli.dmft.population import Population, coarser, quadrature, sample, scaled
from tlcli.dmft.stage import StageRun, ended
from tlcli.dmft.two_layer import Correction, Machine, Observer, Problem, View, centred, run_population
from tlcli.dmft.vector_field import VectorField
from tlcli.errors import UsageError
from tlcli.losses.mse import Mse
from tlcli.losses.objective import Objective

_MAX_TAU = 0.5  # of the largest label
_ATTEMPTS = 3


@dataclass(eq=False)
class Solution:
    """Outputs of all repeats, and of the coarser rules where the population is a quadrature.

    `f` per stage (repeat, n_time, n_point); `coarse` the same of the coarser rules (rule, n_time, n_point) or None;
    `observed` (and `coarse_observed`) per stage name -> (repeat, record, ...) arrays; `message` why and when the
    worst repeat broke off; `retimed` a population as it was and with the error of its integration (and, of deep
    networks, of the truncation of the basis) once more,
    (2, n_time, n_point) per stage, `retimed_observed` the same of what was observed, (2, record, ...), None where
    nothing was integrated twice; `populations` the repeats' neurons at initialisation; `rank`, of deep networks, the
    directions revealed of a hidden matrix.
    """

    plan: Plan
    f: list[Floats]
    coarse: list[Floats] | None
    observed: list[dict[str, Any]]
    coarse_observed: list[dict[str, Any]] | None
    message: str
    evaluations: int
    steps: int
    settled: bool
    notes: list[str] = field(default_factory=list)
    retimed: list[Floats] | None = None
    retimed_observed: list[dict[str, Any]] | None = None
    populations: list[Population] = field(default_factory=list)
    rank: int | None = None

    def pieces(self) -> list[Piece]:
        """Return the output of every stage, (n_time, n_point), with what its error is taken from."""
        return [
            averaged(
                f, None if self.coarse is None else self.coarse[k], None if self.retimed is None else self.retimed[k]
            )
            for k, f in enumerate(self.f)
        ]

    def join(self, other: "Solution", what: str) -> None:
        """Take over what was observed of another solution of the same stages; `what` it is, where that is told."""
        for mine, others in (
            (self.observed, other.observed),
            (self.coarse_observed, other.coarse_observed),
            (self.retimed_observed, other.retimed_observed),
        ):
            for seen, more in zip(mine or (), others or (), strict=False):
                seen |= more
        self.message = self.message or other.message
        self.notes += [f"{what}: {note}" for note in other.notes]

    def estimate(self, statistic: Callable[[list[Floats]], Floats]) -> tuple[Floats, Floats]:
        """Return a statistic of the mean f (stages -> (n_time, n_point)) and its standard error."""
        return estimate(self.pieces(), statistic)


def solve(problem: Problem, numerics: Numerics, observe: Observer | None = None, coupled: int = 0) -> Solution:
    """Solve a problem by its plan; the standard errors are in the solution. `coupled` as in `plan`.

    Raises:
        UsageError: see `plan`; a readout that is redrawn with a quadrature.
    """
    return solve_by(problem, numerics, plan(problem, numerics, coupled), observe)


def solve_by(problem: Problem, numerics: Numerics, chosen: Plan, observe: Observer | None = None) -> Solution:
    """Solve a problem by any plan."""
    workers = numerics.threads or thread_count()
    with threadpool_limits(1), np.errstate(over="ignore", invalid="ignore"):
        return _solve(problem, numerics, chosen, observe, workers)


def _solve(problem: Problem, numerics: Numerics, chosen: Plan, observe: Observer | None, workers: int) -> Solution:
    work = chosen.neurons * max(len(stage.rows) for stage in problem.stages)
    # Many small populations share the threads by repeats, one large population by its blocks.
    by_repeat = chosen.repeats > 1 and work < 2**21 and numerics.device == "cpu"
    inner = Threads(1 if by_repeat else workers)
    shared = Threads(workers)
    theta = None
    if chosen.lazy:
        theta = _ntk(problem)

    def one(repeat: int) -> "_Repeat":
        return _run_repeat(problem, numerics, chosen, repeat, observe, inner, theta)

    try:
        if by_repeat and workers > 1:
            with ThreadPoolExecutor(min(workers, chosen.repeats)) as pool:
                found = list(pool.map(one, range(chosen.repeats)))
        else:
            found = [one(r) for r in range(chosen.repeats)]
        rough: list[list[StageRun]] = []
        timed = found[0]  # the run that is repeated at another tolerance
        if chosen.kind == "quadrature":
            for rule in coarser(problem.act, problem.geometry.rank, chosen.neurons, problem.stages[0].readouts):
                timed = _train(problem, numerics, chosen, _Repeat(rule, None, [], None), observe, inner)
                rough.append(timed.runs)
        other = None
        if chosen.control.method != "euler" and not any(f.message for f in found):
            other = _again_in_time(problem, numerics, chosen, timed, observe, inner)
        notes: list[str] = []
        if chosen.streamed and not any(f.message for f in found):
            corrector = _Corrector(problem, numerics, chosen, observe, shared)
            found = [corrector(r, base) for r, base in enumerate(found)]
            notes = corrector.notes
    finally:
        inner.close()
        shared.close()
    n_stages = len(problem.stages)
    size = found[0].population.size
    settled, told = ended(problem.stages, [f.runs for f in found], chosen.control.until)
    return Solution(
        replace(chosen, neurons=size),
        [np.array([f.runs[k].f for f in found]) for k in range(n_stages)],
        [np.array([runs[k].f for runs in rough]) for k in range(n_stages)] if rough else None,
        [stacked([f.runs[k].observed for f in found]) for k in range(n_stages)],
        [stacked([runs[k].observed for runs in rough]) for k in range(n_stages)] if rough else None,
        next((f.message for f in found if f.message), ""),
        sum(run.evaluations for f in found for run in f.runs),
        sum(run.steps for f in found for run in f.runs),
        settled,
        notes + told,
        None if other is None else [f for f, _ in other],
        None if other is None else [observed for _, observed in other],
        [f.population for f in found],
    )


def _again_in_time(
    problem: Problem, numerics: Numerics, chosen: Plan, timed: "_Repeat", observe: Observer | None, threads: Threads
) -> list[tuple[Floats, dict[str, Any]]] | None:
    """Integrate a repeat at another tolerance; return per stage f and what was observed, (2, record, ...) each.

    The second is the first plus the error of the integration. A smooth dynamics is integrated more loosely: the error,
    which grows at least with the cube root of the tolerance, is less than what changes, and twice the half of it is
    stated. With kinks a tighter run says how much the flips of single neurons matter. Records within steps that both
    tolerances take alike are compared with those of halved steps instead. None where the run breaks off.
    """
    for factor, share in _retimings(problem, chosen.kind):
        control = replace(chosen.control, tolerance=chosen.control.tolerance * factor)
        runs = _train(problem, numerics, replace(chosen, control=control), timed, observe, threads).runs
        if not any(run.outcome.message for run in runs):
            found = moved(timed.runs, runs, share)
            break
    else:
        return None
    if not _blind(problem, found):
        return found
    runs = _train(problem, numerics, chosen, timed, observe, threads, timed.runs).runs
    if any(run.outcome.message for run in runs):
        return found
    finer = moved(timed.runs, runs, error_factor(chosen.control.method, problem.act.smooth))
    return [_filled(*pair) for pair in zip(found, finer, strict=True)]


def _retimings(problem: Problem, kind: str) -> tuple[tuple[float, float], ...]:
    """Return by which factors the tolerance changes, the first that ends, and which share of the change is the error.

    With kinks the error falls with the root of the tolerance at least, but irregularly: a factor of 4 may change
    nothing. Beside the spread of random neurons of many coordinates that is little; where few are random it is the
    largest error of all, and the factor is 16.
    """
    if problem.act.smooth:
        return ((8.0, 0.5),)
    if kind == "quadrature" or few_coordinates(problem):
        return tuple((factor, 1 / (1 - math.sqrt(factor))) for factor in (1 / 16, 1 / 4))
    return ((0.25, 1.0),)


_Looks = tuple[Floats, dict[str, Any]]  # f and what was observed, (2, record, ...) each


def _blind(problem: Problem, looks: Sequence[_Looks]) -> bool:
    """Whether a record after the start is the same in both looks."""
    return any(
        bool(np.any(_same(f)[np.asarray(stage.times) > 0])) for stage, (f, _) in zip(problem.stages, looks, strict=True)
    )


def _same(pair: Any) -> Flags:
    """Return which records (n,) of two looks (2, n, ...) are the same."""
    return np.asarray((pair[0] == pair[1]).reshape(len(pair[0]), -1).all(axis=1))


def _filled(looks: _Looks, others: _Looks) -> _Looks:
    """Return the looks, the records that are the same in both from the `others`."""

    def fill(pair: Any, other: Any) -> Any:
        same = _same(pair)
        return np.where(same.reshape(1, -1, *(1,) * (pair.ndim - 2)), other, pair)

    seen = {name: fill(pair, others[1][name]) if name in others[1] else pair for name, pair in looks[1].items()}
    return fill(looks[0], others[0]), seen


def moved(
    first: Sequence[StageRun], second: Sequence[StageRun], share: float = 1.0
) -> list[tuple[Floats, dict[str, Any]]]:
    """Return per stage f and what was observed, (2, record, ...): of the first runs, and `share` towards the second."""

    def pair(old: Any, new: Any) -> Any:
        return np.array([old, old + share * (np.asarray(new) - old)])

    found = []
    for before, after in zip(first, second, strict=True):
        seen = {
            name: pair(np.array(before.observed[name]), after.observed[name])
            for name in before.observed
            if len(before.observed[name]) == len(after.observed.get(name, ()))
        }
        found.append((pair(before.f, after.f), seen))
    return found


def stacked(parts: Sequence[dict[str, list[Any]]]) -> dict[str, Any]:
    """Return name -> (repeat, record, ...), records that lack the name left out (all repeats alike)."""
    names = [name for name in parts[0] if all(name in part for part in parts)]
    counts = {name: min(len(part[name]) for part in parts) for name in names}
    return {name: np.array([part[name][: counts[name]] for part in parts]) for name in names}


@dataclass(eq=False)
class _Repeat:
    population: Population
    redrawn: Floats | None
    runs: list[StageRun]
    corrections: list[Correction] | None

    @property
    def message(self) -> str:
        return next((f"stage {k}: {r.outcome.message}" for k, r in enumerate(self.runs, 1) if r.outcome.message), "")


def _seeds(numerics: Numerics, purpose: int, repeat: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(numerics.seed, spawn_key=(numerics.draw, purpose, repeat))


def _population(problem: Problem, numerics: Numerics, chosen: Plan, repeat: int) -> tuple[Population, Floats | None]:
    g = problem.geometry
    reset = any(stage.readout == "reset" for stage in problem.stages[1:])
    turned = any(centred(a) and not centred(b) for a, b in itertools.pairwise(problem.stages))
    readouts = problem.stages[0].readouts
    if chosen.kind == "quadrature":
        if reset or turned:
            what = "reset draws new readouts" if reset else "what softmax leaves out is drawn at the switch"
            raise UsageError(f"readout: {what}, which a quadrature has not; use sobol or mc.")
        if g.still.shape[1]:
            raise UsageError(
                "population: quadrature needs test inputs in the span of the training inputs; use sobol or mc."
            )
        return quadrature(problem.act, g.rank, chosen.neurons, readouts=readouts), None
    rng = np.random.default_rng(_seeds(numerics, 100, repeat))
    found = sample(
        chosen.kind,
        chosen.neurons,
        g.rank,
        g.still.shape[1],
        rng,
        pairs=chosen.pairs,
        whiten=chosen.whiten,
        whiten_still=problem.act.kind == "linear",
        readouts=readouts,
    )
    if not reset and not turned:
        return found, None
    width = next((stage.readouts for stage in problem.stages[1:] if stage.readout == "reset"), None)
    if width is not None:
        return found, scaled(rng.standard_normal((found.size, width)))
    fresh = rng.standard_normal(found.size)
    return found, fresh / np.sqrt(np.mean(fresh**2))


def _ntk(problem: Problem) -> list[Floats]:
    """Return the exact kernel at initialisation between all points and the trained ones, per stage."""
    g = problem.geometry
    x = np.concatenate([g.moving, g.still], axis=1)
    x = x * np.sqrt(x.shape[1])
    return [initial_ntk(problem.act, x, x[stage.rows]) for stage in problem.stages]


def _run_repeat(
    problem: Problem,
    numerics: Numerics,
    chosen: Plan,
    repeat: int,
    observe: Observer | None,
    threads: Threads,
    theta: list[Floats] | None,
) -> _Repeat:
    population, redrawn = _population(problem, numerics, chosen, repeat)
    corrections = None
    if theta is not None:
        corrections = [Correction(response=r) for r in _responses(problem, population, redrawn, theta)]
    seen = observe if not chosen.streamed or repeat == 0 else None
    return _train(problem, numerics, chosen, _Repeat(population, redrawn, [], corrections), seen, threads)


def _train(
    problem: Problem,
    numerics: Numerics,
    chosen: Plan,
    start: _Repeat,
    observe: Observer | None,
    threads: Threads,
    halve: Sequence[StageRun] | None = None,
) -> _Repeat:
    """Return a repeat with the runs of its population and corrections; `halve` as in `run_population`."""
    machine = _machine(numerics, chosen, threads)
    p, more = start.population, start.corrections
    runs = run_population(problem, p, chosen.control, machine, more, observe, start.redrawn, halve)
    return _Repeat(p, start.redrawn, runs, more)


def _responses(problem: Problem, population: Population, redrawn: Floats | None, theta: list[Floats]) -> list[Floats]:
    """Return Theta_0 - Theta_0 of the sample, between all points and those of each stage (section H3)."""
    g, out = problem.geometry, []
    for index, (stage, exact) in enumerate(zip(problem.stages, theta, strict=True)):
        if index and stage.readout == "reset" and redrawn is not None:
            population = replace(population, readout=redrawn)
        phi, slope = sample_kernels(problem.act, g, population, np.arange(problem.n_points), stage.rows)
        overlap = g.moving @ g.moving[stage.rows].T + g.still @ g.still[stage.rows].T
        out.append(exact - (phi + overlap * slope))
    return out


def sample_kernels(
    act: Activation, geometry: Geometry, population: Population, points: Any, others: Any
) -> tuple[Floats, Floats]:
    """Return Phi and G of a population at initialisation between two index sets of points, in double precision."""
    z = np.concatenate([population.hidden.ravel(), population.readout.ravel()])
    # Labels, loss and richness do not matter to the kernels.
    several = population.readout.ndim > 1
    objective = Objective(Mse(), np.zeros((1, population.readout.shape[1]))) if several else None
    drive = Drive(geometry.moving[:1], np.zeros(1), 1.0, 1.0, objective=objective)
    kind = VectorField if several else Field
    view = View(kind(act, population.size, drive, population.weights), z, geometry, population.still, 1.0)
    return view.kernels(points, others)


def _machine(numerics: Numerics, chosen: Plan, threads: Threads) -> Machine:
    if numerics.device == "cpu":
        return Machine(chosen.dtype, threads=threads)
    from tlcli.dmft.devices import cuda

    xp, device = cuda()
    return Machine(chosen.dtype, xp, device, threads=threads)


class _Corrector:
    """Corrects a repeat by neurons streamed through its frozen field; the guard of section H4."""

    def __init__(
        self, problem: Problem, numerics: Numerics, chosen: Plan, observe: Observer | None, threads: Threads
    ) -> None:
        self.problem, self.numerics, self.chosen, self.observe, self.threads = (
            problem,
            numerics,
            chosen,
            observe,
            threads,
        )
        self.machine = _machine(numerics, chosen, threads)
        self.limit = _MAX_TAU * max(float(np.max(np.abs(stage.labels))) for stage in problem.stages)
        self.notes: list[str] = []

    def __call__(self, repeat: int, base: _Repeat) -> _Repeat:
        """Return the corrected repeat, or the coupled population alone where the correction cannot be trusted."""
        current, control = base, self.chosen.control
        for iteration in range(self.chosen.iterations):
            corrections = None
            for attempt in range(_ATTEMPTS):
                frozen = freeze(self.problem, current.runs)
                seeds = _seeds(self.numerics, 101, repeat)
                large = stream(self.problem, frozen, self.chosen.streamed, seeds, self.threads, self.chosen.pairs)
                taus, worst = deviation(self.problem, frozen, base.population, base.redrawn, large, "float32")
                if worst <= self.limit:
                    corrections = [Correction(shift=tau) for tau in taus]
                    break
                self._tell(repeat, worst, attempt)
                if attempt < _ATTEMPTS - 1:
                    # The open loop amplified the time error of this run: a finer one.
                    control = replace(control, tolerance=control.tolerance / 4)
                    current = self._again(base, control, current.corrections, None)
            last = iteration == self.chosen.iterations - 1 or corrections is None
            current = self._again(base, control, corrections, self.observe if last else None)
            if last:
                break
        return current

    def _again(
        self, base: _Repeat, control: Control, corrections: list[Correction] | None, observe: Observer | None
    ) -> _Repeat:
        runs = run_population(self.problem, base.population, control, self.machine, corrections, observe, base.redrawn)
        return _Repeat(base.population, base.redrawn, runs, corrections)

    def _tell(self, repeat: int, worst: float, attempt: int) -> None:
        if attempt == _ATTEMPTS - 1:
            self.notes.append(
                f"repeat {repeat + 1}: the frozen-field correction is too large to be trusted (|tau| = {worst:.2g}), "
                "its coupled population stands alone; use a looser --accuracy or give --neurons."
            )
