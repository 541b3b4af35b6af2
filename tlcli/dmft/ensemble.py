"""Independent populations, how many and of what size, and the standard errors that they give.

Every repeat is a population of its own; f is averaged over repeats and a loss is the loss of the average (averaging
losses would add the variance of f). Standard errors are jackknife errors over repeats; a quadrature is compared with
coarser rules instead. Cost grows like 1/error^2 where the rank is large and gamma of order one: nothing but more
neurons helps there (section H of the theory note).
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tlcli.dmft.activations import Activation
from tlcli.dmft.field import Drive, Field, Threads, thread_count
from tlcli.dmft.frozen_field import deviation, freeze, stream
from tlcli.dmft.geometry import Geometry
from tlcli.dmft.integrate import INTEGRATORS, Control
from tlcli.dmft.lazy import initial_ntk
from tlcli.dmft.population import KINDS, MAX_QUADRATURE_RANK, Population, coarser, quadrature, sample
from tlcli.dmft.two_layer import Correction, Machine, Observer, Problem, StageRun, View, run_population
from tlcli.errors import UsageError, check_choice

Array = NDArray[np.float64]

_LAZY_GAMMA = 0.3
_STREAMED_ACCURACY = 5e-3  # from here on a frozen-field correction is cheaper than coupled neurons
_MOST_NEURONS = 4_000_000
_MAX_TAU = 0.5  # of the largest label
_ATTEMPTS = 3


@dataclass(frozen=True)
class Numerics:
    """What the user may set; None leaves the choice to `plan`.

    `accuracy` is the standard error wanted for losses of order one. `tolerance` is that of the integrator, `dt` the
    learning rate of euler; `until` the relative speed that counts as rest. `seed` and `draw` fix the neurons. For deep
    networks only: `basis_tolerance`, the part of a direction that counts as known, and the integrator richardson.
    """

    population: str = "auto"
    neurons: int | None = None
    repeats: int | None = None
    accuracy: float = 1e-2
    integrator: str = "rkc"
    tolerance: float | None = None
    dt: float | None = None
    until: float | None = None
    seed: int = 0
    draw: int = 0
    device: str = "cpu"
    basis_tolerance: float | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("population", self.population, ("auto", *KINDS)),
            ("integrator", self.integrator, (*INTEGRATORS, "richardson")),
            ("device", self.device, ("cpu", "cuda")),
        ):
            check_choice(name, value, allowed)


@dataclass(frozen=True)
class Plan:
    """How a problem is solved: kind, size and number of populations, and what corrects them.

    `neurons` per population in the coupled run; `streamed` neurons per population through the frozen field (0: none);
    `lazy` whether the lazy control variate is added; `iterations` of the frozen-field correction.
    """

    kind: str
    neurons: int
    repeats: int
    pairs: bool
    whiten: bool
    lazy: bool
    streamed: int
    dtype: str
    control: Control
    iterations: int = 1


@dataclass(eq=False)
class Solution:
    """Outputs of all repeats, and of the coarser rules where the population is a quadrature.

    `f` per stage (repeat, n_time, n_point); `coarse` the same of the coarser rules (rule, n_time, n_point) or None;
    `observed` (and `coarse_observed`) per stage name -> (repeat, record, ...) arrays; `message` why and when the
    worst repeat broke off; `finer`, for activations with kinks, repeat 1 as it was and with a tighter time step,
    (2, n_time, n_point) per stage; `populations` the repeats' neurons at initialisation; `rank`, of deep networks, the
    directions revealed of a hidden matrix.
    """

    plan: Plan
    f: list[Array]
    coarse: list[Array] | None
    observed: list[dict[str, Any]]
    coarse_observed: list[dict[str, Any]] | None
    message: str
    evaluations: int
    steps: int
    settled: bool
    notes: list[str] = field(default_factory=list)
    finer: list[Array] | None = None
    populations: list[Population] = field(default_factory=list)
    rank: int | None = None

    def estimate(self, statistic: Callable[[list[Array]], Array]) -> tuple[Array, Array]:
        """Return a statistic of the mean f (stages -> (n_time, n_point)) and its standard error."""
        return estimate(self.f, self.coarse, statistic)


def estimate(
    samples: Sequence[Array], coarse: Sequence[Array] | None, statistic: Callable[[list[Array]], Array]
) -> tuple[Array, Array]:
    """Return a statistic of the means of `samples`, each (repeat, ...), and its standard error.

    The error is the jackknife's over repeats; with `coarse`, the same of coarser rules (rule, ...), it is the largest
    distance from their statistics; NaN for a single repeat of anything random.
    """
    mean = [f.mean(axis=0) for f in samples]
    value = np.asarray(statistic(mean), dtype=float)
    if coarse is not None:
        # What is exact comes with one rule, which all others share.
        rules = [[f[min(k, len(f) - 1)] for f in coarse] for k in range(max(map(len, coarse)))]
        return value, np.max([np.abs(value - np.asarray(statistic(rule))) for rule in rules], axis=0)
    count = len(samples[0])
    if count < 2:
        return value, np.full(value.shape, np.nan)
    left_out = [
        np.asarray(statistic([(m * count - f[r]) / (count - 1) for m, f in zip(mean, samples, strict=True)]))
        for r in range(count)
    ]
    return value, jackknife(np.array(left_out, dtype=float))


def jackknife(left_out: Array) -> Array:
    """Return the jackknife standard error from statistics (repeat, ...) that each leave one repeat out."""
    count = len(left_out)
    return np.sqrt((count - 1) / count * np.sum((left_out - left_out.mean(axis=0)) ** 2, axis=0))


def plan(problem: Problem, numerics: Numerics, coupled: int = 0) -> Plan:
    """Choose the population, its size and the corrections (section H8 of the theory note).

    `coupled`: kernels are what is wanted, so the neurons themselves must be many, and this number at least, not those
    of a correction of f; 0 where f is wanted.

    Raises:
        UsageError: a quadrature of rank > 3, or a request that no population can meet.
    """
    act, rank, error = problem.act, problem.geometry.rank, numerics.accuracy
    gamma, least = (choose(stage.gamma for stage in problem.stages) for choose in (max, min))
    low = rank + problem.geometry.still.shape[1] <= 3
    exact = act.kind == "linear"
    kind = numerics.population
    if kind == "auto":
        kind = "sobol" if low or (exact and rank <= 1000) else "mc"
    if kind == "quadrature" and rank > MAX_QUADRATURE_RANK:
        quadrature(act, rank, 1)  # refuses
    lazy = gamma <= _LAZY_GAMMA and kind != "quadrature" and not exact
    # Without pairs f(0) is of order 1/(gamma sqrt(S)), and a small gamma starts from noise.
    pairs = least <= _LAZY_GAMMA or exact or kind == "sobol"
    repeats = numerics.repeats or (1 if kind == "quadrature" else 2 if exact else 4)
    streamed = 0
    if exact:
        neurons = max(64, 4 * (rank + problem.geometry.still.shape[1] + 2))
    elif kind == "quadrature":
        neurons = 4096 * 8 ** (rank - 1)
    elif kind == "sobol" and low:
        neurons = 1024 if error >= 2e-3 else 4096 if error >= 3e-4 else 16384
    elif lazy:
        neurons = 1024 if error >= 5e-3 else 4096
    elif coupled or error > _STREAMED_ACCURACY or not act.lipschitz or pairs:
        neurons = max(1024, math.ceil((0.6 / error) ** 2 / repeats))
    else:
        streamed = math.ceil((0.6 / error) ** 2 / repeats)
        # The small population only models the response, but once: at 1/16 what it leaves is below the noise.
        neurons = max(2048, math.ceil(streamed / 16))
        if streamed <= neurons:
            streamed = 0
    neurons = max(neurons, coupled)
    if numerics.neurons is not None:
        neurons, streamed = numerics.neurons, 0
    if neurons + streamed > _MOST_NEURONS:
        raise UsageError(
            f"accuracy = {error:g} needs {repeats * (neurons + streamed):.2g} neurons here, the cost grows as "
            f"1/accuracy^2; use at least {0.6 / math.sqrt(_MOST_NEURONS * repeats):.1g} or give --neurons."
        )
    double = exact or kind == "quadrature" or numerics.integrator == "dop853" or low
    tolerance, scaled = _tolerance(problem, numerics, kind, gamma), numerics.tolerance is None
    control = Control(numerics.integrator, tolerance, numerics.dt, numerics.until, scaled=scaled)
    if numerics.integrator == "richardson":
        raise UsageError("integrator: richardson is for deep networks (--depth 2 or more); use rkc for gradient flow.")
    if numerics.basis_tolerance is not None:
        raise UsageError(
            f"basis_tolerance = {numerics.basis_tolerance:g} is for deep networks (--depth 2 or more); leave it out."
        )
    if numerics.integrator == "dop853" and not act.smooth:
        raise UsageError(
            f"integrator: dop853 needs a smooth activation, and {act.name} has kinks, which would stop it; use rkc."
        )
    if numerics.integrator == "dop853" and numerics.device != "cpu":
        raise UsageError(f"integrator: dop853 runs on the CPU only, not on {numerics.device}; use rkc.")
    if numerics.dt is not None and numerics.integrator != "euler":
        raise UsageError(
            f"dt = {numerics.dt:g} is the learning rate of --integrator euler; {numerics.integrator} has none."
        )
    shortest = min((float(s.times[-1]) for s in problem.stages if s.times[-1] > 0), default=math.inf)
    if numerics.dt is not None and numerics.dt > shortest:
        raise UsageError(f"dt = {numerics.dt:g} is longer than a stage, which lasts {shortest:g}; use a smaller --dt.")
    dtype = "float64" if double else "float32"
    whiten = pairs and kind != "quadrature"
    iterations = 2 if gamma >= 2 else 1
    return Plan(kind, neurons, repeats, pairs, whiten, lazy, streamed, dtype, control, iterations)


def _tolerance(problem: Problem, numerics: Numerics, kind: str, gamma: float) -> float:
    if numerics.tolerance is not None:
        return numerics.tolerance
    if numerics.integrator == "dop853":
        return 1e-9 if kind == "quadrature" else 1e-7
    if problem.act.kind == "linear":
        return 1e-6
    if not problem.act.smooth:
        return 3e-3  # kinks: below, single neurons flip branches and nothing is gained (section B)
    base = 3e-4 if gamma < 2 else 1e-4
    return min(base, numerics.accuracy / (8 if gamma < 2 else 20))


def solve(problem: Problem, numerics: Numerics, observe: Observer | None = None, coupled: int = 0) -> Solution:
    """Solve a problem by its plan; the standard errors are in the solution. `coupled` as in `plan`.

    Raises:
        UsageError: see `plan`; a readout that is redrawn with a quadrature.
    """
    chosen = plan(problem, numerics, coupled)
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
        finer = None
        if not problem.act.smooth and chosen.control.method != "euler":
            tighter = replace(chosen, control=replace(chosen.control, tolerance=chosen.control.tolerance / 4))
            again = _run_repeat(problem, numerics, tighter, 0, None, inner, theta).runs
            finer = [np.array([run.f, new.f]) for run, new in zip(found[0].runs, again, strict=True)]
        notes: list[str] = []
        if chosen.streamed and not any(f.message for f in found):
            corrector = _Corrector(problem, numerics, chosen, observe, shared)
            found = [corrector(r, base) for r, base in enumerate(found)]
            notes = corrector.notes
        rough: list[list[StageRun]] = []
        if chosen.kind == "quadrature":
            machine = _machine(numerics, chosen, inner)
            for rule in coarser(problem.act, problem.geometry.rank, chosen.neurons):
                rough.append(run_population(problem, rule, chosen.control, machine, observe=observe))
    finally:
        inner.close()
        shared.close()
    n_stages = len(problem.stages)
    size = found[0].population.size
    return Solution(
        replace(chosen, neurons=size),
        [np.array([f.runs[k].f for f in found]) for k in range(n_stages)],
        [np.array([runs[k].f for runs in rough]) for k in range(n_stages)] if rough else None,
        [stacked([f.runs[k].observed for f in found]) for k in range(n_stages)],
        [stacked([runs[k].observed for runs in rough]) for k in range(n_stages)] if rough else None,
        next((f.message for f in found if f.message), ""),
        sum(run.evaluations for f in found for run in f.runs),
        sum(run.steps for f in found for run in f.runs),
        all(run.outcome.settled for f in found for run in f.runs),
        notes,
        finer,
        [f.population for f in found],
    )


def stacked(parts: Sequence[dict[str, list[Any]]]) -> dict[str, Any]:
    """Return name -> (repeat, record, ...), records that lack the name left out (all repeats alike)."""
    names = [name for name in parts[0] if all(name in part for part in parts)]
    counts = {name: min(len(part[name]) for part in parts) for name in names}
    return {name: np.array([part[name][: counts[name]] for part in parts]) for name in names}


@dataclass(eq=False)
class _Repeat:
    population: Population
    redrawn: Array | None
    runs: list[StageRun]
    corrections: list[Correction] | None

    @property
    def message(self) -> str:
        return next((f"stage {k}: {r.outcome.message}" for k, r in enumerate(self.runs, 1) if r.outcome.message), "")


def _seeds(numerics: Numerics, purpose: int, repeat: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(numerics.seed, spawn_key=(numerics.draw, purpose, repeat))


def _population(problem: Problem, numerics: Numerics, chosen: Plan, repeat: int) -> tuple[Population, Array | None]:
    g = problem.geometry
    reset = any(stage.readout == "reset" for stage in problem.stages[1:])
    if chosen.kind == "quadrature":
        if reset:
            raise UsageError("readout: reset draws new readouts, which a quadrature has not; use sobol or mc.")
        if g.still.shape[1]:
            raise UsageError(
                "population: quadrature needs test inputs in the span of the training inputs; use sobol or mc."
            )
        return quadrature(problem.act, g.rank, chosen.neurons), None
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
    )
    if not reset:
        return found, None
    fresh = rng.standard_normal(found.size)
    return found, fresh / np.sqrt(np.mean(fresh**2))


def _ntk(problem: Problem) -> list[Array]:
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
    theta: list[Array] | None,
) -> _Repeat:
    population, redrawn = _population(problem, numerics, chosen, repeat)
    machine = _machine(numerics, chosen, threads)
    corrections = None
    if theta is not None:
        corrections = [Correction(response=r) for r in _responses(problem, population, redrawn, theta)]
    seen = observe if not chosen.streamed else None
    runs = run_population(problem, population, chosen.control, machine, corrections, seen, redrawn)
    return _Repeat(population, redrawn, runs, corrections)


def _responses(problem: Problem, population: Population, redrawn: Array | None, theta: list[Array]) -> list[Array]:
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
) -> tuple[Array, Array]:
    """Return Phi and G of a population at initialisation between two index sets of points, in double precision."""
    z = np.concatenate([population.hidden.ravel(), population.readout])
    # Labels and richness do not matter to the kernels.
    drive = Drive(geometry.moving[:1], np.zeros(1), 1.0, 1.0)
    view = View(Field(act, population.size, drive, population.weights), z, geometry, population.still, 1.0)
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
                large = stream(self.problem, frozen, self.chosen.streamed, seeds, self.threads)
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
