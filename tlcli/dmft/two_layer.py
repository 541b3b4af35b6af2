"""One population of neurons through several stages of training (paper, Result 1).

Stages share the neurons: (u, a) are carried over, so f jumps by gamma1/gamma2 where the richness changes. Points that
are not trained on cost nothing during the integration; they are evaluated where a record is asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tlcli.arrays import Array, Floats, Indices
from tlcli.dmft.activations import Activation
from tlcli.dmft.field import Drive, Field, Threads, to_numpy
from tlcli.dmft.geometry import Geometry
from tlcli.dmft.integrate import Control, Outcome, Step, halved, integrate
from tlcli.dmft.population import Population
from tlcli.dmft.stage import Recorder, Stage, StageRun, begun, unreached
from tlcli.dmft.vector_field import VectorField


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
    observe = begun(observe)
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
    return [*runs, *(unreached(stage, problem.n_points, runs[-1].outcome) for stage in problem.stages[len(runs) :])]


class _Way:
    """A population on its way through the stages: its state z, and what a stage leaves to the next ones."""

    def __init__(self, problem: Problem, machine: Machine, population: Population, dt: float | None) -> None:
        self.problem, self.machine, self.population, self.dt = problem, machine, population, dt
        self.z: Any = np.concatenate([population.hidden.ravel(), population.readout.ravel()])
        self.still, self.fading = None, 1.0
        # What the lazy control variate has added, times gamma.
        self.carried = np.zeros(problem.stages[0].shape(problem.n_points))
        self.old: _OldHead | None = None
        self.left: Any = 0.0

    def reset(self, index: int, redrawn: Floats) -> None:
        """Draw the readout anew before stage `index`."""
        z, n_hidden = to_numpy(self.z), self.population.hidden.size
        if self.problem.stages[index].objective is not None:
            kept = z[n_hidden:].reshape(self.population.readout.shape)
            self.old = _OldHead(np.concatenate([kept, kept]), self.problem.stages[index - 1].gamma, self.left)
        # Every neuron twice, with the readouts +a and -a, starts from f = 0 exactly.
        self.population = _twice(self.population, np.concatenate([redrawn, -redrawn]))
        self.z = np.concatenate([z[:n_hidden], z[:n_hidden], redrawn.ravel(), -redrawn.ravel()])
        self.carried = np.zeros(self.problem.stages[index].shape(self.problem.n_points))

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
        self.population = _twice(people, readout)
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
        recorder = _Recorder(index, stage, problem.n_points, observe, field_, own, shift, extra.response, self.old)
        recorder.record(0.0, lambda t: z)
        recorder.follow(0.0, z)
        return recorder

    def leave(self, recorder: "_Recorder", outcome: Outcome) -> None:
        """Take z and what the lazy control variate has added out of a stage that has ended."""
        stage, response = recorder.stage, recorder.response
        self.fading *= float(np.exp(-stage.decay * outcome.time))
        self.z = to_numpy(outcome.state)
        self.left = recorder.shift(outcome.time)
        if response is not None:
            lazy = response @ recorder.field.tail(outcome.state)
            self.left = self.left + lazy
            self.carried = self.carried + stage.gamma * lazy
            size, rank = self.population.hidden.shape
            self.z = self.z[: size * (rank + (stage.readouts or 1))]

    def _field(self, drive: Drive) -> Field:
        m, people = self.machine, self.population
        kind = VectorField if people.readout.ndim > 1 else Field
        return kind(self.problem.act, people.size, drive, people.weights, m.dtype, m.xp, m.device, m.threads)


def centred(stage: Stage) -> bool:
    """Whether a stage has the C - 1 readout coordinates of softmax."""
    return stage.objective is not None and stage.objective.basis is not None


def _twice(people: Population, readout: Floats) -> Population:
    """Return every neuron twice, with readouts of its own."""
    return Population(
        np.concatenate([people.hidden] * 2),
        readout,
        np.concatenate([people.still] * 2),
        None if people.weights is None else np.concatenate([people.weights] * 2) / 2,
    )


@dataclass(frozen=True, eq=False)
class _OldHead:
    """The readout (S,) or (S, K) that the source has left, its gamma, and what corrections had added to its f."""

    readout: Array
    gamma: float
    added: Any


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
class _Recorder(Recorder):
    field: Field
    own: _Own
    shift: Callable[[float], Floats]
    response: Floats | None
    old: _OldHead | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.path: list[tuple[float, Floats]] = []

    def on_step(self, step: Step) -> None:
        super().on_step(step)
        self.follow(step.t1, step.at(step.t1))

    def follow(self, t: float, z: Any) -> None:
        self.path.append((t, self.field.residual(t, z)))

    def look(self, t: float, z: Any) -> tuple[Floats, dict[str, Any]]:
        f = self.own(self.field, z, t) + self.shift(t)
        if self.response is not None:
            f = f + self.response @ self.field.tail(z)
        seen: dict[str, Any] = {}
        if self.old is not None:
            found = self.own.view(self.field, z, t).outputs(self.old.readout)
            seen["old_outputs"] = found * (self.stage.gamma / self.old.gamma) + self.old.added
        return f, {**seen, **self.observed_by(t, lambda: self.own.view(self.field, z, t))}

    def run(self, outcome: Outcome) -> StageRun:
        return StageRun(self.f, self.observed, self.path, outcome, self.field.evaluations, outcome.steps)
