"""One deep network through all stages of training, recorded at every point (paper, Appendix B; docs/deep.md)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcli.dmft.deep.aside import Aside, backward_aside, forward_alone, forward_aside
from tlcli.dmft.deep.field import DeepField, Training, Weights
from tlcli.dmft.deep.hidden import NOTHING, Ablation
from tlcli.dmft.deep.space import Axes, Fields
from tlcli.dmft.deep.start import Start
from tlcli.dmft.integrate import Control, Outcome, Step, integrate
from tlcli.dmft.two_layer import Stage, StageRun
from tlcli.errors import DomainError, UsageError, check_choice

Array = NDArray[np.float64]
Index = NDArray[np.int_]

_UNSTABLE = 2.0  # step times rate: the linearised descent grows beyond, though the dynamics may bend it back,
_HOPELESS = 4.0  # which it hardly does from here on
BLOCK = 1024  # points looked at at once for their outputs
ABLATIONS = ("none", "responses", "stage-responses", "memory", "cross-stage", "equal-time")


@dataclass(frozen=True)
class Surgery:
    """What happens to a deep network between the stages.

    `freeze`: the first K layers keep their weights after stage 1; `reinit_from`: the weights above layer K are drawn
    anew before stage 2 (None: none); `ablate`, a study of the theory: see `ABLATIONS` and section 4 of the theory note.
    """

    freeze: int = 0
    reinit_from: int | None = None
    ablate: str = "none"

    def check(self, depth: int) -> None:
        """Refuse what a network of `depth` hidden layers does not have.

        Raises:
            DomainError: more layers than there are. UsageError: an unknown ablation.
        """
        check_choice("ablate", self.ablate, ABLATIONS)
        if self.ablate != "none" and depth == 1:
            raise UsageError(f"ablate = {self.ablate}: one hidden layer has no hidden matrix; give --depth 2 or more.")
        for name, value in (("freeze", self.freeze), ("reinit_from", self.reinit_from)):
            if value is not None and not 0 <= value <= depth:
                raise DomainError(
                    f"{name} = {value}: the network has {depth} hidden layer{'s' * (depth > 1)}; use 0 to {depth}."
                )


@dataclass(eq=False)
class Sight:
    """All layers of a network at some points at one instant: per layer (n_point, size)."""

    points: Index
    h: list[Fields]
    phi: list[Fields]
    g: list[Fields] = field(default_factory=list)

    def rows(self, points: Index) -> Index:
        """Return where `points` stand."""
        place = {int(p): i for i, p in enumerate(self.points)}
        return np.array([place[int(p)] for p in points], dtype=int)


@dataclass(eq=False)
class Scene:
    """A network at one instant, for observers."""

    start: Start
    field: DeepField
    active: Index
    weights: Weights
    time: float

    def look(self, points: Index, backward: bool = False) -> Sight:
        """Return the fields at the active training points and at `points`, of which the others get their joint law."""
        found = self.field.forward(self.time, self.weights)
        others = np.setdiff1d(points, self.active)
        h, phi, slope, asides = self._forward(others)
        active = Sight(self.active, found.h, found.phi)
        if backward:
            active.g, _ = self.field.backward(self.weights, found)
        both = [
            [np.concatenate([a, b]) for a, b in zip(first, second, strict=True)]
            for first, second in ((active.h, h), (active.phi, phi))
        ]
        sight = Sight(np.concatenate([self.active, others]), *both)
        if backward:
            g = self._backward(others, slope, asides)
            sight.g = [np.concatenate([a, b]) for a, b in zip(active.g, g, strict=True)]
        return sight

    def outputs(self, points: Index) -> Array:
        """Return the network's own <a phi> (n,) at points that are not trained on now, in blocks."""
        out, start, w = [np.zeros(0)], self.start, self.weights
        for first in range(0, len(points), BLOCK):
            block = points[first : first + BLOCK]
            phi = start.act.phi(self._first(block))
            for index, hidden in enumerate(start.hidden):
                if isinstance(hidden.sink, Axes):  # what no axis knows has no part in the output
                    c, rest = hidden.source.inner(phi, hidden.ins.rows), 0.0
                else:
                    c, rest = forward_alone(hidden, phi, start.noise(index, block))
                phi = start.act.phi(self._above(index, c, rest))
            out.append((phi @ w.readout).astype(np.float64) * start.spaces[-1].weight)
        return np.concatenate(out)

    def _first(self, points: Index) -> Fields:
        start, geometry = self.start, self.start.geometry
        dtype = start.spaces[0].dtype
        first = geometry.moving[points].astype(dtype) @ self.weights.inputs
        if not geometry.still.shape[1]:
            return first
        return first + dtype.type(self.weights.decay[-1]) * (geometry.still[points].astype(dtype) @ start.still)

    def _above(self, index: int, c: Array, rest: Any) -> Fields:
        """Return h of the layer above a hidden matrix from c = <in phi> and the image of the rest."""
        hidden, w = self.start.hidden[index], self.weights
        known = hidden.forward(c, w.decay[index], w.learned[index], self.field.ablations[index])
        return known + hidden.outs.space.dtype.type(w.decay[index]) * rest

    def _forward(self, points: Index) -> tuple[list[Fields], list[Fields], list[Fields], list[Aside]]:
        start, first = self.start, self._first(points)
        h, (phi, slope) = [first], ([part] for part in start.act.both(first))
        asides = []
        for index, hidden in enumerate(start.hidden):
            c, rest, aside = forward_aside(hidden, phi[-1], start.noise(index, points))
            new = self._above(index, c, rest)
            value, derivative = start.act.both(new)
            for kept, item in zip((h, phi, slope), (new, value, derivative), strict=True):
                kept.append(item)
            asides.append(aside)
        return h, phi, slope, asides

    def _backward(self, points: Index, slope: list[Fields], asides: list[Aside]) -> list[Fields]:
        start, w = self.start, self.weights
        gs = [slope[-1] * w.readout]
        for index in range(len(start.hidden) - 1, -1, -1):
            hidden = start.hidden[index]
            d, rest = backward_aside(hidden, gs[0], start.noise(index, points, backward=True), asides[index])
            known = hidden.backward(d, float(w.decay[index]), w.learned[index], self.field.ablations[index])
            gs.insert(0, slope[index] * (known + hidden.ins.space.dtype.type(w.decay[index]) * rest))
        return gs


Observer = Callable[[int, int, float, Scene], Mapping[str, Any]]


def run_stages(
    start: Start, stages: Sequence[Stage], control: Control, surgery: Surgery, observe: Observer | None = None
) -> list[StageRun]:
    """Train one network through all stages; a stage that breaks off leaves NaN from there on, in later stages too.

    f(0) of a sample is noise of order 1/(gamma sqrt(S)): what the initial network would give is taken away at all
    times, and anew where the readout is redrawn.
    """
    start = start.fork()
    learned = [np.zeros((0, 0)) for _ in start.hidden]
    weights = Weights(start.inputs, start.readout, learned, np.ones(start.depth))
    runs: list[StageRun] = []
    offset: Array | None = None
    for index, stage in enumerate(stages):
        ablations: Ablation | list[Ablation] = NOTHING
        if surgery.ablate in ("responses", "equal-time"):
            ablations = Ablation(responses=surgery.ablate == "responses", equal_time=surgery.ablate == "equal-time")
        frozen = surgery.freeze if index else 0
        if index:
            weights, renewed = _switch(start, stage, weights, surgery)
            offset = None if renewed else offset
            if surgery.ablate in ("stage-responses", "cross-stage"):
                # Another step size has looked at other directions of the first stage: all forget the same ones.
                counts = start.counts.setdefault(index, [hidden.ins.count for hidden in start.hidden])
                ablations = [Ablation(forget=count) for count in counts]
        trained = Training(
            start.geometry.moving[stage.rows], stage.labels, stage.gamma, stage.scale, stage.decay, None, frozen
        )
        field_ = DeepField(start.act, start.spaces, start.hidden, trained, ablations)
        if offset is None:
            _reveal(start, weights)
            offset = _raw(start, field_, stage.rows, weights, 0.0)
        faded = _fading(offset, weights, frozen, stage.decay)
        centre = np.zeros(len(offset))
        if stage.readout == "carry-centred" and index:
            centre = _raw(start, field_, stage.rows, weights, 0.0) - faded(0.0)
        shift = _shift(faded, centre, stage.gamma)
        trained = Training(**{**vars(trained), "shift": lambda t, shift=shift, rows=stage.rows: shift(t)[rows]})
        field_ = DeepField(start.act, start.spaces, start.hidden, trained, ablations)
        dt = control.dt if control.method == "euler" else None
        recorder = _Recorder(start, field_, index, stage, shift, observe, dt)
        z = field_.pack(weights)
        recorder.record(0.0, lambda t, z=z: z)
        outcome = _unstable(field_, z, control) or integrate(
            field_, z, float(stage.times[-1]), control.of_stage(stage.gamma), recorder.on_step
        )
        if not outcome.message and outcome.settled:
            recorder.finish(outcome)
        runs.append(StageRun(recorder.f, recorder.observed, [], outcome, field_.evaluations, outcome.steps))
        runs[-1].note = recorder.note
        if outcome.message:
            break
        weights = field_.unpack(outcome.state)
        offset = faded(outcome.time)
    for stage in stages[len(runs) :]:
        nothing = np.full((len(stage.times), len(start.geometry.moving)), np.nan)
        runs.append(StageRun(nothing, {}, [], runs[-1].outcome, 0))
    return runs


def _unstable(field_: DeepField, z: Any, control: Control) -> Outcome | None:
    """Refuse a step of gradient descent that can only oscillate: bounded activations hide it."""
    if control.method != "euler" or control.dt is None:
        return None
    rate = field_.relaxation(0.0, z)
    if control.dt * rate <= _HOPELESS:
        return None
    return Outcome(
        z,
        0.0,
        False,
        0,
        f"broke off at t = 0 of the stage: the step {control.dt:.3g} of gradient descent is unstable (fastest rate "
        f"{rate:.3g}); use --dt {1 / rate:.1g} or less",
    )


def _switch(start: Start, stage: Stage, weights: Weights, surgery: Surgery) -> tuple[Weights, bool]:
    """Return the weights that a later stage starts from, and whether the readout is a new one."""
    learned, decay = list(weights.learned), weights.decay.copy()
    inputs, readout, above = weights.inputs, weights.readout, surgery.reinit_from
    renewed = above is not None or stage.readout == "reset"
    if above is not None:
        start.redraw(above)
        if above == 0:
            inputs, decay[-1] = start.inputs, 1.0
        for index in range(max(0, above - 1), len(learned)):
            learned[index], decay[index] = np.zeros((0, 0)), 1.0
    if renewed:
        readout = start.redrawn
    if surgery.ablate in ("memory", "cross-stage"):
        learned = [np.zeros((0, 0)) for _ in learned]
    return Weights(inputs, readout, learned, decay), renewed


def _reveal(start: Start, weights: Weights) -> None:
    """Look along all points that are ever trained on, so that their initial outputs are those of one matrix."""
    rows = start.trained
    everything = Training(start.geometry.moving[rows], np.zeros(len(rows)), 1.0, 1.0)
    field_ = DeepField(start.act, start.spaces, start.hidden, everything)
    found = field_.forward(0.0, field_.unpack(field_.pack(weights)))
    if not start.origin:
        start.origin.extend(space.inner(phi, phi) for space, phi in zip(start.spaces, found.phi, strict=True))


def _raw(start: Start, field_: DeepField, rows: Index, weights: Weights, time: float) -> Array:
    """Return <a phi> (n_point,) at all points; field_ trains on `rows` and has no shift yet."""
    out = np.zeros(len(start.geometry.moving))
    full = field_.unpack(field_.pack(weights))
    out[rows] = field_.forward(time, full).output * field_.training.gamma
    others = np.setdiff1d(np.arange(len(out)), rows)
    out[others] = Scene(start, field_, rows, field_.unpack(field_.pack(weights)), time).outputs(others)
    return out


def _fading(offset: Array, weights: Weights, frozen: int, decay: float) -> Callable[[float], Array]:
    """What is left of the initial output after t: weight decay shrinks every layer that is not frozen."""
    layers = len(weights.decay) + 1 - frozen
    return lambda t: offset * np.exp(-decay * layers * t)


def _shift(faded: Callable[[float], Array], centre: Array, gamma: float) -> Callable[[float], Array]:
    return lambda t: -(faded(t) + centre) / gamma


@dataclass(eq=False)
class _Recorder:
    start: Start
    field: DeepField
    index: int
    stage: Stage
    shift: Callable[[float], Array]
    observe: Observer | None
    dt: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        self.f = np.full((len(self.stage.times), len(self.start.geometry.moving)), np.nan)
        self.others = np.setdiff1d(np.arange(self.f.shape[1]), self.stage.rows)
        self.observed: dict[str, list[Any]] = {}
        self.next = 0

    def on_step(self, step: Step) -> None:
        self.record(step.t1, step.at)

    def record(self, until: float, at: Callable[[float], Any]) -> None:
        while self.next < len(self.stage.times) and self.stage.times[self.next] <= until:
            t = float(self.stage.times[self.next])
            self._keep(t, at(t))

    def _keep(self, t: float, z: Any) -> None:
        weights = self.field.unpack(z)
        row = self.f[self.next]
        row[self.stage.rows] = self.field.forward(t, weights).output
        scene = Scene(self.start, self.field, self.stage.rows, weights, t)
        row[self.others] = scene.outputs(self.others) / self.stage.gamma + self.shift(t)[self.others]
        if self.observe is not None:
            for name, value in self.observe(self.index, self.next, t, scene).items():
                self.observed.setdefault(name, []).append(value)
        self.next += 1
        self._warn(t, z)

    def _warn(self, t: float, z: Any) -> None:
        """Say once when a step of gradient descent has become too long: bounded activations only oscillate."""
        if self.dt is None or self.note:
            return
        rate = self.field.relaxation(t, z)
        if self.dt * rate > _UNSTABLE:
            self.note = (
                f"the step {self.dt:.3g} of gradient descent is unstable at t = {t:.3g} (fastest rate {rate:.3g}): it "
                f"oscillates; use --dt {1 / rate:.1g} or less."
            )

    def finish(self, outcome: Outcome) -> None:
        """Nothing moves any more: later records are the state at rest."""
        while self.next < len(self.stage.times):
            self._keep(outcome.time, outcome.state)
