"""The response functions A^l(t, s) and B^l(t, s) of a deep network; docs/deep.md, Two times.

A site's field r (or u) is moved by a probe, another one for every neuron, at one instant s: the kick is a jump of the
weights, which the linearised dynamics carries on. Averages do not move to first order, for probes have none, so the
errors Delta stay as they are, and the mean of the change times the probe is the response of one site.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from tlcli.arrays import Array, Floats, Indices
from tlcli.dmft.deep.field import DeepField, Pass, Weights
from tlcli.dmft.deep.run import Scene
from tlcli.dmft.deep.space import Space

_CURVED = 1e-4  # step of the differences that give phi''
_STEP = 0.5  # step of Runge-Kutta, times the fastest rate


@dataclass(frozen=True, eq=False)
class Probes:
    """Per hidden matrix fields of unit variance (n_point, size): on r, of the layer below, and on u, of that above."""

    below: list[Array]
    above: list[Array]

    def of(self, rows: Indices) -> "Probes":
        """Return those of some of the points."""
        return Probes([one[rows] for one in self.below], [one[rows] for one in self.above])


@dataclass(eq=False)
class _Change:
    """What a change of the weights, or a kick, does at the points of a field: per layer phi, g and their parts."""

    phi: list[Array]
    g: list[Array]
    c: list[Floats]
    d: list[Floats]


class _Look:
    """The points of a field at one instant, around which changes are linear."""

    def __init__(self, at: DeepField, t: float, weights: Weights) -> None:
        self.field, self.weights, self.found = at, weights, at.forward(t, weights)
        self.g, self.d = at.backward(weights, self.found)
        self.z: list[Array] = [
            hidden.backward(d, float(weights.decay[index]), weights.learned[index], at.ablations[index])
            for index, (hidden, d) in enumerate(zip(at.hidden, self.d, strict=True))
        ]
        self.z.append(np.broadcast_to(weights.readout, self.found.h[-1].shape))

    def _curvature(self, layer: int) -> Array:
        h, both = self.found.h[layer].astype(float), self.field.act.both
        if self.field.act.kind == "linear":
            return np.zeros_like(self.found.h[layer])
        bent = (both(h + _CURVED)[1] - both(h - _CURVED)[1]) / (2 * _CURVED)
        return bent.astype(self.field.dtype)

    def change(self, by: Weights | None, kick: Probes | None = None) -> _Change:
        """Return the first-order change of all fields by a change of the weights, or by a kick of r and u."""
        at, w, found = self.field, self.weights, self.found
        dh = at.coords @ by.inputs if by is not None else np.zeros_like(found.h[0])
        out, dhs = _Change([], [], [], []), [dh]
        for index, hidden in enumerate(at.hidden):
            dphi = found.slope[index] * dh
            c = hidden.reveal_features(dphi) if np.any(dphi) else np.zeros((len(dphi), hidden.ins.count))
            dh = hidden.forward(c, float(w.decay[index]), w.learned[index], at.ablations[index])
            if by is not None:
                dh = dh + hidden.forward(found.coefficients[index], 0.0, by.learned[index])
            if kick is not None:
                dh = dh + at.dtype.type(w.decay[index]) * kick.above[index]
            out.phi.append(dphi)
            out.c.append(c)
            dhs.append(dh)
        out.phi.append(found.slope[-1] * dh)
        dz = np.zeros_like(dh) if by is None else np.broadcast_to(by.readout, dh.shape)
        for layer in range(len(dhs) - 1, -1, -1):
            if layer < len(at.hidden):
                hidden, dg = at.hidden[layer], out.g[0]
                d = hidden.reveal_responses(dg) if np.any(dg) else np.zeros((len(dg), hidden.outs.count))
                dz = hidden.backward(d, float(w.decay[layer]), w.learned[layer], at.ablations[layer])
                if by is not None:
                    dz = dz + hidden.backward(self.d[layer], 0.0, by.learned[layer])
                if kick is not None:
                    dz = dz + at.dtype.type(w.decay[layer]) * kick.below[layer]
                out.d.insert(0, d)
            out.g.insert(0, self._curvature(layer) * dhs[layer] * self.z[layer] + found.slope[layer] * dz)
        return out

    def velocity(self, pull: Floats, change: _Change, by: Weights | None = None) -> Any:
        """Return how the velocity of the weights changes, as a state of the field, at the same errors."""
        at, learned = self.field, []
        decay = at.dtype.type(at.training.decay)
        for index, hidden in enumerate(at.hidden):
            parts = np.zeros((len(hidden.responses), len(hidden.features)))
            for d, c in ((change.d[index], self.found.coefficients[index]), (self.d[index], change.c[index])):
                rows = hidden.responses[hidden.responses < d.shape[1]]
                columns = hidden.features[hidden.features < c.shape[1]]
                parts[: len(rows), : len(columns)] += (d[:, rows] * pull[:, None]).T @ c[:, columns]
            if by is not None:
                old = by.learned[index]
                parts[: old.shape[0], : old.shape[1]] -= at.training.decay * old
            learned.append(parts)
        inputs = (at.coords.T * pull.astype(at.dtype)) @ change.g[0]
        readout = pull.astype(at.dtype) @ change.phi[-1]
        if by is not None:
            inputs, readout = inputs - decay * by.inputs, readout - decay * by.readout
        return at.pack(Weights(inputs, readout, learned, np.zeros(at.depth)))


def _pull(at: DeepField, t: float, found: Pass, z: Any) -> Floats:
    d = at.training
    return d.gamma * d.scale * d.now(t, d.force(at.output(found, z)))


@dataclass(eq=False)
class _Live:
    """One kick: its place among the moments, the points it was at, the probes, and the change of the weights since.

    `fresh`: gradient descent has not made its step with it yet.
    """

    place: int
    points: Indices
    probes: Probes
    state: Any
    fresh: bool


@dataclass(eq=False)
class _Memory:
    """What an observer knows of one network: the moment before and the kicks so far."""

    stage: int = -1
    time: float = 0.0
    at: DeepField | None = None
    state: Any = None
    count: int = 0
    live: list[_Live] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class ResponseWatch:
    """An observer that shows, at its moments, the responses to all moments before.

    Per hidden matrix l a_layer{l}_two_time (n_moment, n_trained, n_trained), row mu now and column nu at the earlier
    moment s: A^l = <d phi(h^l_mu(t)) / d r^l_nu(s)> per unit of time s; b_layer{l}_two_time, row nu now and column mu
    then: B^l = <d g^{l+1}_nu(t) / d u^{l+1}_mu(s)>; b_layer{l}_now (n_trained,), the part of B at equal times, which
    is a weight and no density. Points that are not trained on at s have no response; moments yet to come are NaN.
    `readout` is what the second stage does with it.
    """

    trained: Indices
    moments: Sequence[frozenset[int]]
    readout: str = "carry"
    memory: _Memory = field(default_factory=_Memory)

    def begin(self) -> Self:
        """Return an observer of a network that has seen nothing yet."""
        return replace(self, memory=_Memory())

    def __call__(self, stage: int, record: int, time: float, scene: Scene) -> dict[str, Any]:
        """Return what this record shows."""
        if record not in self.moments[stage]:
            return {}
        memory = self.memory
        self._advance(stage, time, scene)
        out = self._measured(scene)
        memory.stage, memory.time, memory.at, memory.state = stage, time, scene.field, scene.state
        out |= self._kick(scene)
        memory.count += 1
        return out

    def _advance(self, stage: int, time: float, scene: Scene) -> None:
        """Carry all changes from the moment before to this one."""
        memory = self.memory
        if memory.at is None:
            return
        at, z, t = scene.field, memory.state, memory.time
        if memory.stage != stage:
            weights, t = memory.at.unpack(z), 0.0
            if self.readout == "reset":
                weights = replace(weights, readout=scene.start.redrawn)
            for one in memory.live:
                change = memory.at.unpack(one.state)
                if self.readout == "reset":
                    change.readout = np.zeros_like(change.readout)
                one.state = at.pack(change) * (0 if one.fresh else 1)
                one.fresh = False
            z = at.pack(weights)
        while t < time - 1e-9 * max(1.0, time):
            step = scene.dt or min(time - t, _STEP / max(at.stiffness(t, z)[0], 1e-12))
            z = self._step(at, t, step, z, scene.dt is not None)
            t += step

    def _step(self, at: DeepField, t: float, step: float, z: Any, descent: bool) -> Any:
        live = self.memory.live

        def speed(t: float, z: Any, states: list[Any]) -> tuple[Any, list[Any]]:
            # What is known before this look is all that changes can have learnt.
            weights, changes = at.unpack(z), [at.unpack(state) for state in states]
            look = _Look(at, t, weights)
            pull = _pull(at, t, look.found, z)
            out = [look.velocity(pull, look.change(by), by) for by in changes]
            return at(t, z), out

        states = [one.state for one in live]
        if descent:
            old = [state * 0 if one.fresh else state for one, state in zip(live, states, strict=True)]
            first, firsts = speed(t, z, old)
            for one, state, rate in zip(live, states, firsts, strict=True):
                # The kick itself is what the step of its instant adds.
                one.state, one.fresh = state if one.fresh else at.combine((1.0, state), (step, rate)), False
            return at.combine((1.0, z), (step, first))
        slopes: list[tuple[Any, list[Any]]] = []
        for part in (0.0, 0.5, 0.5, 1.0):
            if not slopes:
                slopes.append(speed(t, z, states))
                continue
            first, firsts = slopes[-1]
            there = [at.combine((1.0, s), (part * step, k)) for s, k in zip(states, firsts, strict=True)]
            slopes.append(speed(t + part * step, at.combine((1.0, z), (part * step, first)), there))
        weights = [step / 6, step / 3, step / 3, step / 6]
        for index, one in enumerate(live):
            terms = [(w, rates[index]) for w, (_, rates) in zip(weights, slopes, strict=True)]
            one.state = at.combine((1.0, one.state), *terms)
        return at.combine((1.0, z), *((w, rate) for w, (rate, _) in zip(weights, slopes, strict=True)))

    def _measured(self, scene: Scene) -> dict[str, Any]:
        """Return A and B at this moment for all kicks so far."""
        n, count = len(self.trained), sum(len(keep) for keep in self.moments)
        spaces, matrices = scene.start.spaces, range(len(scene.start.hidden))
        found = np.full((2, len(matrices), count, n, n), np.nan)
        found[:, :, : self.memory.count + 1] = 0.0
        changes = [scene.field.unpack(one.state) for one in self.memory.live]
        look = _Look(scene.beside(self.trained), scene.time, scene.weights)
        for one, by in zip(self.memory.live, changes, strict=True):
            change = look.change(by)
            columns = np.searchsorted(self.trained, one.points)
            for index in matrices:
                probes = one.probes
                found[0, index, one.place][:, columns] = spaces[index].inner(change.phi[index], probes.below[index])
                found[1, index, one.place][:, columns] = spaces[index + 1].inner(
                    change.g[index + 1], probes.above[index]
                )
        names = [(part, name, index) for part, name in enumerate("ab") for index in matrices]
        return {f"{name}_layer{index + 1}_two_time": found[part, index] for part, name, index in names}

    def _kick(self, scene: Scene) -> dict[str, Any]:
        """Begin with a kick at this moment; return the part of B at equal times."""
        memory, spaces = self.memory, scene.start.spaces
        probes = _probes(scene, len(self.trained), memory.count)
        look = _Look(scene.beside(self.trained), scene.time, scene.weights)
        change, out = look.change(None, probes), {}
        for index, above in enumerate(probes.above):
            own = np.einsum("ns,ns->n", change.g[index + 1], above).astype(float) * spaces[index + 1].weight
            out[f"b_layer{index + 1}_now"] = own
        mine = probes.of(np.searchsorted(self.trained, scene.active))
        weights = scene.field.unpack(scene.state)
        look = _Look(scene.field, scene.time, weights)
        pull = _pull(scene.field, scene.time, look.found, scene.state)
        jump = look.velocity(pull, look.change(None, mine))
        memory.live.append(_Live(memory.count, scene.active, mine, jump, scene.dt is not None))
        return out


def _probes(scene: Scene, count: int, place: int) -> Probes:
    """Return signs for every neuron and point, the same at any tolerance; new axes where fields are exact."""
    rng = np.random.default_rng((scene.start.seed, 104, place))

    def draw(space: Space) -> Array:
        if space.exact:
            return space.start(count)
        return (2.0 * rng.integers(0, 2, (count, space.size)) - 1).astype(space.dtype)

    spaces = scene.start.spaces
    return Probes([draw(space) for space in spaces[:-1]], [draw(space) for space in spaces[1:]])
