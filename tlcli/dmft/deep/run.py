"""One deep network through all stages of training, recorded at every point (paper, Appendix B; docs/deep.md)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tlcli.arrays import Array, Floats, Indices
from tlcli.dmft.deep.aside import Aside, backward_aside, forward_aside
from tlcli.dmft.deep.field import DeepField, Pass, Training, Weights
from tlcli.dmft.deep.hidden import Ablation
from tlcli.dmft.deep.lazy import InitialKernels
from tlcli.dmft.deep.outputs import Centre, first_layer, lacking, layer_above, outputs, shrunk
from tlcli.dmft.deep.start import Start
from tlcli.dmft.integrate import Control, Outcome, doubled, integrate
from tlcli.dmft.stage import Recorder, Stage, StageRun, begun, unreached
from tlcli.training import Surgery

_UNSTABLE = 2.0  # step times rate: the linearised descent grows beyond, though the dynamics may bend it back,
_HOPELESS = 4.0  # which it hardly does from here on
_FINEST = 1e-13  # tolerance that rounding allows


@dataclass(eq=False)
class Sight:
    """All layers of a network at some points at one instant: per layer (n_point, size), g of every output."""

    points: Indices
    h: list[Array]
    phi: list[Array]
    g: list[list[Array]] = field(default_factory=list)

    def rows(self, points: Indices) -> Indices:
        """Return where `points` stand."""
        place = {int(p): i for i, p in enumerate(self.points)}
        return np.array([place[int(p)] for p in points], dtype=int)


@dataclass(eq=False)
class Scene:
    """A network at one instant, for observers; `state`: the weights as the field has them, `dt` of gradient descent."""

    start: Start
    field: DeepField
    active: Indices
    weights: Weights
    time: float
    state: Any = None
    dt: float | None = None

    def beside(self, points: Indices) -> DeepField:
        """Return a field of the same matrices in which `points` are looked at as those are that are trained on."""
        rows = self.start.geometry.moving[points]
        alone = Training(rows, np.zeros(len(points)), self.field.training.gamma, self.field.training.scale)
        return DeepField(self.start.act, self.start.spaces, self.start.hidden, alone, self.field.ablations)

    def reveal(self, points: Indices) -> None:
        """Look at the matrices along `points`, there and back, and remember it: their law at later times is joint."""
        beside = self.beside(points)
        beside.backward(self.weights, beside.forward(self.time, self.weights))

    def look(self, points: Indices, backward: bool = False, plain: bool = False) -> Sight:
        """Return the fields at the active training points and at `points`, of which the others get their joint law.

        `plain`: what is sent back is that of a readout drawn anew.
        """
        found = self.field.forward(self.time, self.weights)
        others = np.setdiff1d(points, self.active)
        h, phi, slope, asides = self._forward(others)
        active = Sight(self.active, found.h, found.phi)
        h, phi = (
            [np.concatenate([a, b]) for a, b in zip(first, second, strict=True)]
            for first, second in ((active.h, h), (active.phi, phi))
        )
        sight = Sight(np.concatenate([self.active, others]), h, phi)
        if backward:
            readout = self.start.redrawn if plain else self.weights.readout
            parts = [self._sent_back(row, found, others, slope, asides) for row in np.atleast_2d(readout)]
            sight.g = [list(of_outputs) for of_outputs in zip(*parts, strict=True)]
        return sight

    def _sent_back(
        self, readout: Array, found: Pass, others: Indices, slope: list[Array], asides: list[Aside]
    ) -> list[Array]:
        """Return g of one readout (size,) per layer, at the active points and at `others`."""
        active, _ = self.field.backward(replace(self.weights, readout=readout), found)
        g = self._backward(others, readout, slope, asides)
        return [np.concatenate([a, b]) for a, b in zip(active, g, strict=True)]

    def outputs(self, points: Indices) -> Floats:
        """Return the network's own <a phi> (n,) at points that are not trained on now."""
        return outputs(self.start, self.weights, points, self.field.ablations)

    def _above(self, index: int, c: Floats, rest: Array) -> Array:
        return layer_above(self.start, self.weights, index, c, rest, self.field.ablations[index])

    def _forward(self, points: Indices) -> tuple[list[Array], list[Array], list[Array], list[Aside]]:
        start, first = self.start, first_layer(self.start, self.weights, points)
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

    def _backward(self, points: Indices, readout: Array, slope: list[Array], asides: list[Aside]) -> list[Array]:
        start, w = self.start, self.weights
        gs = [slope[-1] * readout]
        for index in range(len(start.hidden) - 1, -1, -1):
            hidden = start.hidden[index]
            d, rest = backward_aside(hidden, gs[0], start.noise(index, points, backward=True), asides[index])
            known = hidden.backward(d, float(w.decay[index]), w.learned[index], self.field.ablations[index])
            gs.insert(0, slope[index] * (known + hidden.ins.space.dtype.type(w.decay[index]) * rest))
        return gs


Observer = Callable[[int, int, float, Scene], Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Lazy:
    """The lazy control variate: exact `kernels` at initialisation, and the `stages` that they correct."""

    kernels: InitialKernels
    stages: Sequence[bool]


@dataclass(eq=False)
class _Past:
    """What a stage inherits.

    `weights` as they are; `origin` those whose output counts as zero, and what weight decay left of them, `faded`;
    `carried` (n_point,) or (n_point, K) the control variate's part of <a phi>; `old` the readout that a new one has
    replaced.
    """

    weights: Weights
    origin: Weights
    faded: Weights
    carried: Floats
    old: "_OldHead | None" = None

    def old_head(self, stage: Stage, weights: Weights) -> "_OldHead | None":
        """Return the readout of `weights`, which `stage` has left, to go on reporting its loss."""
        if stage.objective is None:
            return None
        return _OldHead(weights.readout, self.faded, self.carried, stage.gamma)


@dataclass(frozen=True, eq=False)
class _OldHead:
    """A readout whose output (n_point,) or (n_point, K) is followed: less that of `zero`, plus `carried`."""

    readout: Array
    zero: Weights
    carried: Floats
    gamma: float

    def outputs(self, start: Start, weights: Weights, ablations: Sequence[Ablation]) -> Floats:
        """Return f of this readout on the features of `weights`, at all points."""
        points = np.arange(len(self.carried))
        now = outputs(start, replace(weights, readout=self.readout), points, ablations)
        return (now - outputs(start, self.zero, points, ablations) + self.carried) / self.gamma


def run_stages(
    start: Start,
    stages: Sequence[Stage],
    control: Control,
    surgery: Surgery,
    observe: Observer | None = None,
    lazy: Lazy | None = None,
    double: Sequence[StageRun] | None = None,
) -> list[StageRun]:
    """Train one network through all stages; a stage that breaks off leaves NaN from there on, in later stages too.

    What the initial network would give is taken away at all times, and anew where the readout is redrawn. `double`, an
    earlier run, is repeated with two of its steps at a time.
    """
    start = start.fork()
    observe, n_points = begun(observe), len(start.geometry.moving)
    # A network from scratch has the target's outputs.
    readout = start.readout if stages[0].shape(n_points)[1:] == start.readout.shape[:-1] else start.redrawn
    weights = Weights(start.inputs, readout, [np.zeros((0, 0)) for _ in start.hidden], np.ones(start.depth))
    past = _Past(weights, weights, weights, np.zeros((n_points, *readout.shape[:-1])))
    _reveal(start, weights)
    course, runs = _Course(start, control, surgery, observe, lazy), list[StageRun]()
    for index, stage in enumerate(stages):
        if index:
            before = past.weights
            past.weights, renewed = _switch(start, stage, past.weights, surgery)
            if renewed:
                blank = np.zeros((len(past.carried), *past.weights.readout.shape[:-1]))
                old = None if surgery.reinit_from is not None else past.old_head(stages[index - 1], before)
                past = _Past(past.weights, past.weights, past.weights, blank, old)
                _reveal(start, past.weights)
        runs.append(course.train(index, stage, past, None if double is None else double[index].outcome))
        if runs[-1].outcome.message:
            break
    return [*runs, *(unreached(stage, n_points, runs[-1].outcome) for stage in stages[len(runs) :])]


@dataclass(eq=False)
class _Course:
    """What all stages of one network share."""

    start: Start
    control: Control
    surgery: Surgery
    observe: Observer | None
    lazy: Lazy | None

    def train(self, index: int, stage: Stage, past: _Past, double: Outcome | None) -> StageRun:
        """Train one stage and leave in `past` what the next one inherits."""
        start, frozen = self.start, self.surgery.freeze if index else 0
        ablations = self._ablations(index)
        response = self._response(index, stage, past, frozen)
        begin = past.weights if index and stage.readout == "carry-centred" else None
        others = np.setdiff1d(np.arange(len(past.carried)), stage.rows)
        centre = Centre(
            start,
            stage.rows,
            others,
            stage.gamma,
            ablations,
            stage.decay,
            frozen,
            past.faded,
            begin,
            past.carried,
        )
        trained = Training(
            start.geometry.moving[stage.rows],
            stage.labels,
            stage.gamma,
            stage.scale,
            stage.decay,
            centre.at_rows,
            frozen,
            None if response is None else response[stage.rows],
            stage.objective,
            stage.sampled(self.control.dt),
        )
        field_ = DeepField(start.act, start.spaces, start.hidden, trained, ablations)
        control = self._control(stage)
        dt = control.dt if control.method == "euler" else None
        n_points = len(past.carried)
        recorder = _Recorder(index, stage, n_points, self.observe, start, field_, centre, response, dt, past.old)
        z = field_.pack(past.weights)
        recorder.record(0.0, lambda t: z)
        if double is None:
            outcome = _unstable(field_, z, control) or integrate(
                field_, z, float(stage.times[-1]), control, recorder.on_step
            )
        else:
            outcome = doubled(field_, z, double, control.method, recorder.on_step)
        if not outcome.message and outcome.settled:
            recorder.finish(outcome)
        past.weights, left = field_.unpack(outcome.state), math.exp(-stage.decay * outcome.time)
        past.faded = shrunk(past.faded, left, frozen)
        past.carried = past.carried * left ** (start.depth + 1 - frozen)
        if response is not None:
            past.carried = past.carried + response @ field_.pulled(outcome.state)
        run = StageRun(recorder.f, recorder.observed, [], outcome, field_.evaluations, outcome.steps)
        run.note = recorder.note
        return run

    def _ablations(self, index: int) -> list[Ablation]:
        word, hidden = self.surgery.ablate, self.start.hidden
        if index and word in ("stage-responses", "cross-stage"):
            # Another step size has looked at other directions of the first stage: all forget the same ones.
            counts = self.start.counts.setdefault(index, [matrix.ins.count for matrix in hidden])
            return [Ablation(forget=count) for count in counts]
        return [Ablation(responses=word == "responses", equal_time=word == "equal-time")] * len(hidden)

    def _response(self, index: int, stage: Stage, past: _Past, frozen: int) -> Floats | None:
        """Return what the sample's tangent kernel lacks (n_point, P), None where it is no lazy network's."""
        if self.lazy is None or not self.lazy.stages[index] or np.any(past.origin.decay < 1):
            return None
        return lacking(self.start, past.origin, stage.rows, self.lazy.kernels, frozen)

    def _control(self, stage: Stage) -> Control:
        control = self.control.of_stage(stage.richness, stage.momentum)
        size = self.control.tolerance * min(1.0, stage.richness)
        control = replace(control, reached=None if stage.rests else control.until)
        return replace(control, tolerance=max(_FINEST, size)) if control.scaled else control


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
    single = replace(weights, readout=np.atleast_2d(weights.readout)[0])  # what is looked along knows no readout
    found = field_.forward(0.0, field_.unpack(field_.pack(single)))
    if not start.origin:
        start.origin.extend(space.inner(phi, phi) for space, phi in zip(start.spaces, found.phi, strict=True))


@dataclass(eq=False)
class _Recorder(Recorder):
    start: Start
    field: DeepField
    centre: Centre
    response: Floats | None
    dt: float | None = None
    old: _OldHead | None = None
    note: str = ""

    def look(self, t: float, z: Any) -> tuple[Floats, dict[str, Any]]:
        weights = self.field.unpack(z)
        f, others = np.empty(self.f.shape[1:]), self.centre.others
        f[self.stage.rows] = self.field.forward(t, weights).output
        scene = Scene(self.start, self.field, self.stage.rows, weights, t, z, self.dt)
        f[others] = scene.outputs(others) / self.stage.gamma + self.centre.at_others(t)
        if self.response is not None:
            f += self.response @ self.field.pulled(z) / self.stage.gamma
        seen: dict[str, Any] = {}
        if self.old is not None:
            seen["old_outputs"] = self.old.outputs(self.start, weights, self.field.ablations)
        seen |= self.observed_by(t, lambda: scene)
        self._warn(t, z)
        return f, seen

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
