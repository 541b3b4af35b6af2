"""One population of neurons through several stages of training (paper, Result 1).

Stages share the neurons: (u, a) are carried over, so f jumps by gamma1/gamma2 where the richness changes. Points that
are not trained on cost nothing during the integration; they are evaluated where a record is asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from tlcli.arrays import Array, Floats, Indices
from tlcli.batches import Batches
from tlcli.dmft.activations import Activation
from tlcli.dmft.field import Drive, Field, Threads, to_numpy
from tlcli.dmft.geometry import Geometry
from tlcli.dmft.integrate import Control, Outcome, Step, halved, integrate
from tlcli.dmft.population import Population
from tlcli.dmft.vector_field import VectorField
from tlcli.losses.objective import Objective


@dataclass(frozen=True, eq=False)
class Stage:
    """One stage of training.

    `rows` (P,) index the points it trains on, `labels` (P,); `gamma` > 0; `times` (n_time,) ascending records from
    the start of the stage, the last its duration; `scale` s = 1/P (mean loss) or 1 (summed); `decay` lambda of that
    loss. `readout`: carry, carry-centred (the output minus what it was at the start) or reset (redrawn). `objective` is
    the loss, None the squared error of one output; then `labels` are what it trains on and f has its coordinates.
    `batches` and `momentum` are those of stochastic gradient descent.
    """

    rows: Indices
    labels: Floats
    gamma: float
    times: Floats
    scale: float
    decay: float = 0.0
    readout: str = "carry"
    objective: Objective | None = None
    batches: Batches | None = None
    momentum: float = 0.0

    def sampled(self, dt: float | None) -> Callable[[float], Floats] | None:
        """Return the weights (P,) of the points at the step of length `dt` from a time; None where all are trained."""
        batches = self.batches
        if batches is None or dt is None:
            return None
        return lambda t: batches.weights(round(t / dt))

    @property
    def readouts(self) -> int | None:
        """The number of readout coordinates, None for a single output."""
        return None if self.objective is None else self.objective.readouts

    @property
    def rests(self) -> bool:
        """Whether training comes to rest: separable data of a loss without a minimum never do."""
        loss = None if self.objective is None else self.objective.loss
        return loss is None or self.decay > 0 or (loss.bounded and not loss.flat)

    @property
    def richness(self) -> float:
        """gamma times the rms label: labels c y at gamma are labels y at c gamma, so nothing else may be compared."""
        if self.objective is not None:
            return self.gamma * self.objective.size
        return self.gamma * (float(np.sqrt(np.mean(self.labels**2))) or 1.0)


@dataclass(frozen=True, eq=False)
class Problem:
    """An activation, points in reduced coordinates, and the stages."""

    act: Activation
    geometry: Geometry
    stages: Sequence[Stage]

    @property
    def n_points(self) -> int:
        """Number of points, trained on or not."""
        return len(self.geometry.moving)


@dataclass(frozen=True, eq=False)
class Correction:
    """What is added to a population's own output in one stage.

    `shift(t)` (n_point,) or None; `response` (n_point, P) of the lazy control variate or None.
    """

    shift: Callable[[float], Floats] | None = None
    response: Floats | None = None


@dataclass(eq=False)
class StageRun:
    """A stage as one population saw it.

    `f` (n_time, n_point) or with an axis of readout coordinates, NaN after a break; `observed` name -> one value per
    record; `path` the times and residuals Delta of the accepted steps; `outcome` how it ended. Where the readout has
    been redrawn `observed` holds "old_outputs", what the source's readout makes of the features that the target moves.
    """

    f: Floats
    observed: dict[str, list[Any]]
    path: list[tuple[float, Floats]]
    outcome: Outcome
    evaluations: int
    steps: int = 0
    states: dict[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, eq=False)
class View:
    """A population at one instant, for observers: kernels and preactivations at any of the problem's points."""

    field: Field
    state: Any
    geometry: Geometry
    still: Any
    fading: float

    def _still(self, points: Any) -> Any:
        if self.still is None or not self.geometry.still.shape[1]:
            return None
        return self.fading * (self.still @ self.field.asarray(self.geometry.still[points]).T)

    def outputs(self, readout: Array | None = None) -> Floats:
        """Return the population's own f (n_point,) at all points, or what another readout makes of its features."""
        return self.field.outputs(self.state, self.geometry.moving, self._still(slice(None)), readout)

    def kernels(self, points: Any, others: Any, plain: bool = False) -> tuple[Floats, Floats]:
        """Return Phi and G between two index sets of points; `plain`: the G of a readout drawn anew."""
        c, still = self.geometry.moving, (self._still(points), self._still(others))
        return self.field.kernels(self.state, c[points], c[others], *still, plain)

    def preactivations(self, points: Any) -> Floats:
        """Return h (S, n_point)."""
        u, _ = self.field.split(self.state)
        h = u @ self.field.asarray(self.geometry.moving[points]).T
        still = self._still(points)
        return to_numpy(h if still is None else h + still)


Observer = Callable[[int, int, float, View], Mapping[str, Any]]


@runtime_checkable
class Remembering(Protocol):
    """An observer that compares the records of one population."""

    def begin(self) -> Observer:
        """Return one that has seen nothing yet."""
        ...


@dataclass(frozen=True)
class Machine:
    """Where and how precisely a population runs."""

    dtype: str = "float64"
    xp: Any = np
    device: Any = None
    threads: Threads | None = None


def run_population(
    problem: Problem,
    population: Population,
    control: Control,
    machine: Machine | None = None,
    corrections: Sequence[Correction] | None = None,
    observe: Observer | None = None,
    redrawn: Floats | None = None,
    halve: Sequence[StageRun] | None = None,
) -> list[StageRun]:
    """Train one population through all stages.

    `redrawn` (S,) are the readouts of a stage that resets, or the common part of those that softmax hands over.
    `observe(stage, record, time, view)` is called at every record. A stage that breaks off leaves NaN from there on, in
    the stages after it as well. `halve`, an earlier run of the same population, is repeated with each of its steps cut
    in two: the difference of any result times `tlcli.dmft.integrate.error_factor` is the time-integration error of that
    run.
    """
    if isinstance(observe, Remembering):
        observe = observe.begin()
    way = _Way(problem, machine or Machine(), population, control.dt)
    runs: list[StageRun] = []
    for index, stage in enumerate(problem.stages):
        if stage.readout == "reset" and index:
            assert redrawn is not None
            way.reset(index, redrawn)
        elif index and centred(problem.stages[index - 1]) != centred(stage):
            way.turn(index, redrawn)
        recorder = way.enter(index, corrections[index] if corrections else Correction(), observe)
        if halve is None:
            how = control.of_stage(stage.richness, stage.momentum)
            how = replace(how, reached=None if stage.rests else control.until)
            outcome = integrate(recorder.field, way.z, float(stage.times[-1]), how, recorder.on_step)
        else:
            outcome = halved(recorder.field, way.z, halve[index].outcome, control.method, recorder.on_step)
        if not outcome.message and outcome.settled:
            recorder.finish(outcome)
        runs.append(recorder.run(outcome))
        if outcome.message:
            break
        way.leave(recorder, outcome)
    for index, stage in enumerate(problem.stages[len(runs) :], len(runs)):
        nothing = np.full((len(stage.times), *_shape(problem, index)), np.nan)
        runs.append(StageRun(nothing, {}, [], runs[-1].outcome, 0))
    return runs


class _Way:
    """A population on its way through the stages: its state z, and what a stage leaves to the next ones."""

    def __init__(self, problem: Problem, machine: Machine, population: Population, dt: float | None) -> None:
        self.problem, self.machine, self.population, self.dt = problem, machine, population, dt
        self.z: Any = np.concatenate([population.hidden.ravel(), population.readout.ravel()])
        self.still, self.fading = None, 1.0
        self.carried = np.zeros(_shape(problem, 0))  # what the lazy control variate has added, times gamma
        self.old: _OldHead | None = None

    def reset(self, index: int, redrawn: Floats) -> None:
        """Draw the readout anew before stage `index`."""
        z, n_hidden = to_numpy(self.z), self.population.hidden.size
        if self.problem.stages[index].objective is not None:
            kept = z[n_hidden:].reshape(self.population.readout.shape)
            self.old = _OldHead(np.concatenate([kept, kept]), self.problem.stages[index - 1].gamma)
        self.population, self.z = _mirrored(self.population, z[:n_hidden], redrawn)
        self.carried = np.zeros(_shape(self.problem, index))

    def turn(self, index: int, common: Array | None) -> None:
        """Carry readouts into stage `index`, of softmax, which has C - 1 coordinates, or from it.

        What softmax left out is the common part of the C readouts, independent of all else and only decaying: it comes
        back as `common` (S,) with both signs, so that it adds nothing to the output.
        """
        before, after = self.problem.stages[index - 1].objective, self.problem.stages[index].objective
        assert before is not None
        assert after is not None
        z, people = to_numpy(self.z), self.population
        hidden, a = z[: people.hidden.size], z[people.hidden.size :].reshape(people.readout.shape)
        if after.basis is not None:
            self.carried = self.carried @ after.basis
            readout = a @ after.basis
            self.population = replace(people, readout=readout)
            self.z = np.concatenate([hidden, readout.ravel().astype(z.dtype)])
            return
        assert before.basis is not None
        assert common is not None
        self.carried = self.carried @ before.basis.T
        kept, part = a @ before.basis.T, self.fading * common[:, None] / np.sqrt(len(before.basis))
        readout = np.concatenate([kept + part, kept - part])
        self.population = Population(
            np.concatenate([people.hidden] * 2),
            readout,
            np.concatenate([people.still] * 2),
            None if people.weights is None else np.concatenate([people.weights] * 2) / 2,
        )
        self.z = np.concatenate([hidden, hidden, readout.ravel().astype(z.dtype)])

    def enter(self, index: int, extra: Correction, observe: Observer | None) -> "_Recorder":
        """Begin stage `index`: bring z into its form; return the recorder, which has kept the start."""
        problem, stage = self.problem, self.problem.stages[index]
        shift = _shift(extra.shift, self.carried / stage.gamma)
        moving, loss, sampled = problem.geometry.moving[stage.rows], stage.objective, stage.sampled(self.dt)
        drive = Drive(moving, stage.labels, stage.gamma, stage.scale, stage.decay, objective=loss, sampled=sampled)
        field_ = self._field(drive)
        self.z = field_.asarray(self.z)
        if self.population.still.shape[1]:
            self.still = field_.asarray(self.population.still)
        own = _Own(problem.geometry, self.still, self.fading, stage.decay)
        if stage.readout == "carry-centred" and index:
            shift = _minus(shift, own(field_, self.z, 0.0) + shift(0.0))
        response = extra.response
        if response is not None:
            self.z = np.concatenate([to_numpy(self.z), np.zeros(len(stage.rows) * (stage.readouts or 1))])
            response = response[stage.rows]
        field_ = self._field(replace(drive, shift=_at(shift, stage.rows), response=response))
        z = self.z = field_.asarray(self.z)
        recorder = _Recorder(problem, index, stage, field_, own, shift, extra.response, observe, self.old)
        recorder.record(0.0, lambda t: z)
        recorder.follow(0.0, z)
        return recorder

    def leave(self, recorder: "_Recorder", outcome: Outcome) -> None:
        """Take z and what the lazy control variate has added out of a stage that has ended."""
        stage, response = recorder.stage, recorder.response
        self.fading *= float(np.exp(-stage.decay * outcome.time))
        self.z = to_numpy(outcome.state)
        if response is not None:
            self.carried = self.carried + stage.gamma * (response @ recorder.field.tail(outcome.state))
            size, rank = self.population.hidden.shape
            self.z = self.z[: size * (rank + (stage.readouts or 1))]

    def _field(self, drive: Drive) -> Field:
        m, people = self.machine, self.population
        kind = VectorField if people.readout.ndim > 1 else Field
        return kind(self.problem.act, people.size, drive, people.weights, m.dtype, m.xp, m.device, m.threads)


def centred(stage: Stage) -> bool:
    """Whether a stage has the C - 1 readout coordinates of softmax."""
    return stage.objective is not None and stage.objective.basis is not None


def _mirrored(population: Population, hidden: Array, redrawn: Floats) -> tuple[Population, Array]:
    """Return every neuron twice, with the readouts +a and -a: a redrawn readout starts from f = 0 exactly."""
    twice = Population(
        np.concatenate([population.hidden] * 2),
        np.concatenate([redrawn, -redrawn]),
        np.concatenate([population.still] * 2),
        None if population.weights is None else np.concatenate([population.weights] * 2) / 2,
    )
    return twice, np.concatenate([hidden, hidden, redrawn.ravel(), -redrawn.ravel()])


def _shape(problem: Problem, index: int) -> tuple[int, ...]:
    """Return the shape of the outputs at all points in a stage."""
    readouts = problem.stages[index].readouts
    return (problem.n_points,) if readouts is None else (problem.n_points, readouts)


@dataclass(frozen=True, eq=False)
class _OldHead:
    """The readout (S,) or (S, K) that the source has left, and its gamma."""

    readout: Array
    gamma: float


@dataclass(frozen=True, eq=False)
class _Own:
    """The population's own output at all points, a time t into a stage."""

    geometry: Geometry
    still: Any
    fading: float
    decay: float

    def view(self, field_: Field, state: Any, t: float) -> View:
        return View(field_, state, self.geometry, self.still, self.fading * float(np.exp(-self.decay * t)))

    def __call__(self, field_: Field, state: Any, t: float) -> Floats:
        return self.view(field_, state, t).outputs()


def _shift(tau: Callable[[float], Floats] | None, offset: Floats) -> Callable[[float], Floats]:
    return (lambda t: offset) if tau is None else (lambda t: offset + tau(t))


def _minus(shift: Callable[[float], Floats], start: Floats) -> Callable[[float], Floats]:
    return lambda t: shift(t) - start


def _at(shift: Callable[[float], Floats], rows: Indices) -> Callable[[float], Floats]:
    return lambda t: shift(t)[rows]


@dataclass(eq=False)
class _Recorder:
    problem: Problem
    index: int
    stage: Stage
    field: Field
    own: _Own
    shift: Callable[[float], Floats]
    response: Floats | None
    observe: Observer | None
    old: _OldHead | None = None

    def __post_init__(self) -> None:
        self.f = np.full((len(self.stage.times), *_shape(self.problem, self.index)), np.nan)
        self.observed: dict[str, list[Any]] = {}
        self.path: list[tuple[float, Floats]] = []
        self.next = 0

    def on_step(self, step: Step) -> None:
        self.record(step.t1, step.at)
        self.follow(step.t1, step.at(step.t1))

    def follow(self, t: float, z: Any) -> None:
        self.path.append((t, self.field.residual(t, z)))

    def record(self, until: float, at: Callable[[float], Any]) -> None:
        while self.next < len(self.stage.times) and self.stage.times[self.next] <= until:
            t = float(self.stage.times[self.next])
            self._keep(t, at(t))

    def _keep(self, t: float, z: Any) -> None:
        f = self.own(self.field, z, t) + self.shift(t)
        if self.response is not None:
            f = f + self.response @ self.field.tail(z)
        self.f[self.next] = f
        if self.old is not None:
            found = self.own.view(self.field, z, t).outputs(self.old.readout) * (self.stage.gamma / self.old.gamma)
            self.observed.setdefault("old_outputs", []).append(found)
        if self.observe is not None:
            for name, value in self.observe(self.index, self.next, t, self.own.view(self.field, z, t)).items():
                self.observed.setdefault(name, []).append(value)
        self.next += 1

    def finish(self, outcome: Outcome) -> None:
        """Nothing moves any more: later records are the state at rest."""
        while self.next < len(self.stage.times):
            self._keep(outcome.time, outcome.state)

    def run(self, outcome: Outcome) -> StageRun:
        return StageRun(self.f, self.observed, self.path, outcome, self.field.evaluations, outcome.steps)
