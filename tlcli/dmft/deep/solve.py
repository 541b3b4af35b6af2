"""How many samples a deep network needs, independent repeats of them, and their standard errors.

A linear network is solved in its Gaussian Hilbert space, without samples. Otherwise every repeat is a sample of its
own; f is averaged over repeats, and errors are those of the jackknife, as for two layers (`tlcli.dmft.ensemble`). One
repeat is looked at and integrated more coarsely too: what that changes is the part of time steps and truncation in
every error. All solutions of one `DeepEnsemble` share their initial weights.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tlcli.arrays import Floats, Indices
from tlcli.dmft.activations import Activation
from tlcli.dmft.deep.lazy import InitialKernels
from tlcli.dmft.deep.run import Lazy, Observer, run_stages
from tlcli.dmft.deep.start import Readouts, Start, exact, sampled
from tlcli.dmft.ensemble import Numerics, Plan, Solution, moved, stacked
from tlcli.dmft.field import thread_count
from tlcli.dmft.geometry import Geometry
from tlcli.dmft.integrate import Control
from tlcli.dmft.stage import Stage, StageRun, ended
from tlcli.errors import UsageError
from tlcli.training import Surgery

PER_RANK = 10  # samples per revealed direction: below, the bias r/S of the responses shows
MOST = 20_000  # samples per layer and repeat that are taken unasked
LEAST = 1024
_TOL = 0.1
_DENSITIES = ("density", "variance", "excess_kurtosis")
_MOST_EVALUATIONS = 20_000  # of a stage, ten times what ordinary ones take
SINGLE = 3e-3  # smallest tolerance that single precision resolves
# A repeat is looked at with so many times the basis tolerance, and integrated with two steps at a time; the error is
# about this share of what changes, or less (measured: `python -m benchmarks.deep_errors`). Across kinks any method is
# of first order, and most directions are those of neurons that cross one.
_COARSER, _COARSER_KINKS = (3.0, 0.5), (2.0, 1.0)
_EXACT_TOL = 1e-6  # of the basis of exact networks, where the integrator errs by more; gradient descent does not:
_DESCENT_TOL = 1e-9
_LAZY = 0.3  # richness, in units of the labels, up to which exact kernels at initialisation correct the sample
_DOUBLE = 0.03  # and below which rounding in single precision would show
_SMALLEST = 1e-7  # and in double precision


def deep_plan(act: Activation, stages: Sequence[Stage], numerics: Numerics) -> Plan:
    """Choose samples, repeats, precision and integration of a deep network.

    One repeat of S samples has an error of f of about 0.5 max(1, gamma) / sqrt(S) (measured), gamma in units of the
    labels.

    Raises:
        UsageError: see `check_numerics`; a dt longer than a stage; a positive richness that rounding does not resolve.
    """
    check_numerics(numerics)
    for stage in stages:
        if stage.richness < _SMALLEST:
            size = stage.richness / stage.gamma
            raise UsageError(
                f"gamma = {stage.gamma:g} with labels of size {size:.2g} is too lazy for rounding; use "
                f"{1.1 * _SMALLEST / size:.1g} or more, where nothing depends on gamma any more, or 0."
            )
    shortest = min((float(s.times[-1]) for s in stages if s.times[-1] > 0), default=math.inf)
    if numerics.dt is not None and numerics.dt > shortest:
        raise UsageError(f"dt = {numerics.dt:g} is longer than a stage, which lasts {shortest:g}; use a smaller --dt.")
    linear = act.kind == "linear"
    tolerance = numerics.tolerance
    if tolerance is None:
        tolerance = 1e-6 if linear else 3e-3 if not act.smooth else min(1e-3, numerics.accuracy / 8)
    method = "euler" if numerics.integrator == "richardson" else numerics.integrator
    control = Control(method, tolerance, numerics.dt, numerics.until, scaled=numerics.tolerance is None, idle=0.1)
    if linear:
        return Plan("exact", 0, 1, False, False, False, 0, "float64", control)
    if numerics.until is None:
        control = replace(control, max_evaluations=_MOST_EVALUATIONS)
    repeats = numerics.repeats or 4
    richness = [stage.richness for stage in stages]
    wanted = math.ceil((0.5 * max(1.0, *richness) / numerics.accuracy) ** 2 / repeats)
    lazy = richness[0] <= _LAZY and all(stage.readouts is None for stage in stages)
    neurons = numerics.neurons or max(LEAST, min(wanted, MOST))
    # Rates grow without bound where the activation does: times the rounding of single precision they are speeds.
    double = basis_tolerance(act, numerics) < SINGLE or min(richness) < _DOUBLE or not act.lipschitz
    return Plan("revealed", neurons, repeats, False, True, lazy, 0, "float64" if double else "float32", control)


def check_numerics(numerics: Numerics) -> None:
    """Refuse what the solver of deep networks does not have.

    Raises:
        UsageError: a population, a device or an integrator of two-layer networks, or richardson without a step.
    """
    if numerics.population not in ("auto", "mc"):
        raise UsageError(
            f"population: {numerics.population} is for one hidden layer; deep networks draw Gaussians as they need "
            "them; leave --population out."
        )
    if numerics.device != "cpu":
        raise UsageError(f"device: deep networks run on the CPU, not on {numerics.device}; leave --device out.")
    if numerics.integrator == "dop853":
        raise UsageError("integrator: dop853 cannot follow directions that appear on the way; use rkc or richardson.")
    if numerics.integrator == "richardson" and numerics.dt is None:
        raise UsageError("integrator: richardson extrapolates from a step and its half; give the step as --dt.")


def without_effect(act: Activation, numerics: Numerics) -> str | None:
    """Return a sentence on an option that was set and that deep networks of this activation do not use, if any."""
    if act.name != "linear":
        return None
    usual = Numerics()
    for name in ("population", "neurons", "repeats", "basis_tolerance", "accuracy"):
        if getattr(numerics, name) != getattr(usual, name):
            descent = numerics.integrator in ("euler", "richardson")
            error = "of the step, --dt" if descent else "of the integration, --tolerance"
            return (
                f"{name} = {getattr(numerics, name)} has no effect: deep linear networks are solved exactly, without "
                f"samples, and their only error is that {error}; leave --{name.replace('_', '-')} out."
            )
    return None


def basis_tolerance(act: Activation, numerics: Numerics) -> float:
    """Return what part of a direction counts as known; the error of f is about its square.

    With kinks, every neuron that crosses one adds a direction of its own, of no consequence.
    """
    if numerics.basis_tolerance is not None:
        return numerics.basis_tolerance
    return max(1e-3, (0.5 if act.smooth else 1.0) * min(_TOL, math.sqrt(numerics.accuracy)))


@dataclass(eq=False)
class DeepEnsemble:
    """Repeats of one deep network; `solve` trains all of them from the same initial weights every time.

    `initial` gives the exact kernels at initialisation between all points and `trained`; `readouts` are the numbers of
    outputs of source and target, None for a single one.

    Raises:
        UsageError: from `solve`, see `deep_plan`; DomainError: layers that are not there.
    """

    act: Activation
    geometry: Geometry
    depth: int
    trained: Indices
    numerics: Numerics
    initial: Callable[[], InitialKernels]
    starts: list[Start] = field(default_factory=list)
    neurons: int | None = None
    solved: bool = False
    readouts: Readouts = (None, None)

    def again(self) -> "DeepEnsemble":
        """Return the same networks, whose matrices nothing has looked at yet."""
        return replace(self, starts=[], neurons=None, solved=False)

    def solve(self, stages: Sequence[Stage], surgery: Surgery, observe: Observer | None = None) -> Solution:
        """Train all repeats through `stages`; `observe` sees the records of every repeat."""
        surgery.check(self.depth)
        chosen = deep_plan(self.act, stages, self.numerics)
        with threadpool_limits(1), np.errstate(over="ignore", invalid="ignore"):
            if chosen.kind == "exact":
                return self._exact(stages, surgery, chosen, observe)
            return self._sampled(stages, surgery, chosen, observe)

    def _exact(self, stages: Sequence[Stage], surgery: Surgery, chosen: Plan, observe: Observer | None) -> Solution:
        """Solve once, and once with coarser tolerances, whose distance is the error."""
        richardson = self.numerics.integrator == "richardson"
        tol = _EXACT_TOL if chosen.control.method == "rkc" else _DESCENT_TOL
        fine = self._growing(stages, surgery, chosen.control, tol, observe, richardson)
        loose = _looser(chosen.control, richardson)
        if loose.method == "rkc":
            loose = replace(loose, tolerance=8 * loose.tolerance)
        rough = self._growing(stages, surgery, loose, 1e2 * tol, observe, richardson)
        return _solution(chosen, stages, [fine], [rough], [])

    def _growing(
        self,
        stages: Sequence[Stage],
        surgery: Surgery,
        control: Control,
        tol: float,
        observe: Observer | None,
        richardson: bool,
    ) -> list[StageRun]:
        size: int | None = None
        while True:
            start = exact(self.act, self.geometry, self.depth, self.trained, tol=tol, size=size, readouts=self.readouts)
            try:
                return self._run(start, stages, surgery, control, observe, richardson)
            except OverflowError:
                size = 2 * start.spaces[0].size

    def _sampled(self, stages: Sequence[Stage], surgery: Surgery, chosen: Plan, observe: Observer | None) -> Solution:
        workers = self.numerics.threads or thread_count()
        notes: list[str] = []
        richardson = self.numerics.integrator == "richardson"

        lazy = self._lazy(stages, surgery) if chosen.lazy else None

        def one(start: Start) -> list[StageRun]:
            return self._run(start, stages, surgery, chosen.control, observe, richardson, lazy)

        runs: list[list[StageRun]] = []
        if not self.starts:
            self.neurons = chosen.neurons
            first = self._start(0, chosen)
            found = one(first)
            rank = max((hidden.ins.count for hidden in first.hidden), default=0)
            needed = math.ceil(1.3 * PER_RANK * rank)  # the baseline will look at more directions
            if any(run.outcome.message for run in found):  # so would the other repeats
                self.starts = [first]
                return _solution(replace(chosen, repeats=1), stages, [found], None, notes)
            if self.numerics.neurons is None and chosen.neurons < min(PER_RANK * rank, MOST):
                self.neurons = min(needed, MOST)
                first = self._start(0, chosen)
            else:
                runs = [found]
            self.starts = [first, *(self._start(r, chosen) for r in range(1, chosen.repeats))]
        first_look = not self.solved
        runs += _each(one, self.starts[len(runs) :], workers, to_the_end=not first_look)
        self.starts = self.starts[: len(runs)]  # other solutions have as many repeats
        rank = max((hidden.ins.count for start in self.starts for hidden in start.hidden), default=0)
        self.solved = True
        if first_look and rank * PER_RANK > 1.2 * (self.neurons or 0):
            notes.append(
                f"{self.neurons} neurons are few for {rank} revealed directions, and responses are biased by about "
                f"their ratio; use --neurons {PER_RANK * rank} or a larger --basis-tolerance."
            )
        if first_look and not self.act.lipschitz:
            notes.append(
                f"the slope of {self.act.name} has no bound: in several layers a few neurons far out dominate means, "
                "whose errors fall slowly with --neurons; use an activation of bounded slope, as gelu."
            )
        told = replace(chosen, neurons=self.neurons or 0, repeats=len(runs))
        solution = _solution(told, stages, runs, None, notes)
        solution.rank = rank
        if solution.message:
            return solution
        found = self._again(runs[0], stages, surgery, chosen, observe, lazy)
        if found is None:
            notes.append(
                "errors lack those of steps and directions: twice the steps diverge; use a smaller --tolerance."
            )
            return solution
        solution.retimed, solution.retimed_observed = [f for f, _ in found], [seen for _, seen in found]
        return solution

    def _again(
        self,
        runs: list[StageRun],
        stages: Sequence[Stage],
        surgery: Surgery,
        chosen: Plan,
        observe: Observer | None,
        lazy: Lazy | None,
    ) -> list[tuple[Floats, dict[str, Any]]] | None:
        """Look at the first repeat, and integrate it, more coarsely; return `moved`, None where that breaks off.

        Both runs have the same weights, hidden matrices and noise: what changes is time steps and truncation alone.
        """
        factor, share = _COARSER if self.act.smooth else _COARSER_KINKS
        seeds = np.random.SeedSequence(self.numerics.seed, spawn_key=(self.numerics.draw, 103))
        start = self.starts[0].coarser(factor, np.random.default_rng(seeds))
        richardson = self.numerics.integrator == "richardson"
        control = _looser(chosen.control, richardson)
        double = runs if control.method == "rkc" else None
        again = self._run(start, stages, surgery, control, observe, richardson, lazy, double)
        return None if any(run.outcome.message for run in again) else moved(runs, again, share)

    def _start(self, repeat: int, chosen: Plan) -> Start:
        seeds = np.random.SeedSequence(self.numerics.seed, spawn_key=(self.numerics.draw, 102, repeat))
        return sampled(
            self.act,
            self.geometry,
            self.depth,
            self.neurons or chosen.neurons,
            np.random.default_rng(seeds),
            self.trained,
            tol=basis_tolerance(self.act, self.numerics),
            dtype=chosen.dtype,
            readouts=self.readouts,
        )

    def _run(
        self,
        start: Start,
        stages: Sequence[Stage],
        surgery: Surgery,
        control: Control,
        observe: Observer | None,
        richardson: bool,
        lazy: Lazy | None = None,
        double: list[StageRun] | None = None,
    ) -> list[StageRun]:
        if not richardson:
            return run_stages(start, stages, control, surgery, observe, lazy, double)
        return _extrapolated(lambda c, o: run_stages(start, stages, c, surgery, o, lazy), control, observe)

    def _lazy(self, stages: Sequence[Stage], surgery: Surgery) -> Lazy | None:
        """Return the control variate of the stages that all before them leave near initialisation."""
        if surgery.ablate != "none":  # the exact kernels are those of the whole theory
            return None
        richest = np.maximum.accumulate([stage.richness for stage in stages])
        return Lazy(self.initial(), [bool(rich <= _LAZY) for rich in richest])


def _looser(control: Control, richardson: bool) -> Control:
    """Return twice the step where it is extrapolated from; that of gradient descent was asked for, and stays."""
    return replace(control, dt=2 * control.dt) if richardson and control.dt is not None else control


def _quiet() -> None:
    np.seterr(over="ignore", invalid="ignore")


def _extrapolated(
    run: Callable[[Control, Observer | None], list[StageRun]],
    control: Control,
    observe: Observer | None,
) -> list[StageRun]:
    """Return 2 f(dt/2) - f(dt) of gradient descent: gradient flow to second order in dt.

    Both steps look at the same hidden matrices, so that the noise of their difference is small. Kernels and alignments
    are extrapolated as f is; densities are those of the half step.
    """
    dt = control.dt
    assert dt is not None
    halves = run(replace(control, dt=dt / 2), observe)
    for half, whole in zip(halves, run(replace(control, dt=dt), observe), strict=True):
        half.f = 2 * half.f - whole.f
        for name, values in half.observed.items():
            if not name.startswith(_DENSITIES):
                half.observed[name] = [2 * a - b for a, b in zip(values, whole.observed.get(name, []), strict=False)]
        half.evaluations += whole.evaluations
        if whole.outcome.message and not half.outcome.message:
            half.outcome = whole.outcome
    return halves


def _each(
    one: Callable[[Start], list[StageRun]], starts: Sequence[Start], workers: int, to_the_end: bool
) -> list[list[StageRun]]:
    """Run the repeats, or those up to the first that breaks off: with it the mean has no number any more."""
    found: list[list[StageRun]] = []
    with ThreadPoolExecutor(max(1, min(workers, len(starts))), initializer=_quiet) as pool:
        for runs in (map if min(workers, len(starts)) < 2 else pool.map)(one, starts):
            found.append(runs)
            if not to_the_end and any(run.outcome.message for run in runs):
                pool.shutdown(wait=False, cancel_futures=True)
                break
    return found


def _solution(
    plan: Plan,
    stages: Sequence[Stage],
    runs: Sequence[list[StageRun]],
    rough: Sequence[list[StageRun]] | None,
    notes: list[str],
) -> Solution:
    count = len(runs[0])
    settled, told = ended(stages, runs, plan.control.until)
    broken = (
        f"stage {k}: {run.outcome.message}" for found in runs for k, run in enumerate(found, 1) if run.outcome.message
    )
    notes += list(
        dict.fromkeys(f"stage {k}: {run.note}" for found in runs for k, run in enumerate(found, 1) if run.note)
    )
    notes += told
    return Solution(
        plan,
        [np.array([found[k].f for found in runs]) for k in range(count)],
        None if rough is None else [np.array([found[k].f for found in rough]) for k in range(count)],
        [stacked([found[k].observed for found in runs]) for k in range(count)],
        None if rough is None else [stacked([found[k].observed for found in rough]) for k in range(count)],
        next(broken, ""),
        sum(run.evaluations for found in runs for run in found),
        sum(run.steps for found in runs for run in found),
        settled,
        notes,
    )
