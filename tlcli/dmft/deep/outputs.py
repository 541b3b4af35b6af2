"""What a network gives at any point, how it answers training, and what of it counts as zero.

The hidden matrices are shared by all states of a network, so that differences between states on the same matrices are
free of most of the noise of the sample. Two of them are taken. f(0) of a sample is noise of order 1/(gamma sqrt(S));
its state at the start is looked at with the matrices as they are known now, not as they were (`Centre`). And the
tangent kernel of the sample is compared with the exact one of an infinite network (`lacking`): where training is lazy,
what is missing there is all that is missing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tlcli.arrays import Array, Floats, Indices
from tlcli.dmft.deep.aside import forward_alone
from tlcli.dmft.deep.field import DeepField, Training, Weights
from tlcli.dmft.deep.hidden import NOTHING, Ablation, Hidden
from tlcli.dmft.deep.lazy import InitialKernels
from tlcli.dmft.deep.space import Axes, without
from tlcli.dmft.deep.start import Start

BLOCK = 1024  # points looked at at once


def first_layer(start: Start, weights: Weights, points: Indices) -> Array:
    """Return h^1 (n, size) at any points."""
    geometry, dtype = start.geometry, start.spaces[0].dtype
    first = geometry.moving[points].astype(dtype) @ weights.inputs
    if not geometry.still.shape[1]:
        return first
    return first + dtype.type(weights.decay[-1]) * (geometry.still[points].astype(dtype) @ start.still)


def layer_above(
    start: Start, weights: Weights, index: int, c: Floats, rest: Array | float, ablation: Ablation
) -> Array:
    """Return h (n, size) above a hidden matrix from c = <in phi> and the image of the rest."""
    hidden = start.hidden[index]
    known = hidden.forward(c, weights.decay[index], weights.learned[index], ablation)
    return known + hidden.outs.space.dtype.type(weights.decay[index]) * rest


def outputs(
    start: Start, weights: Weights, points: Indices, ablations: Sequence[Ablation], known: bool = False
) -> Floats:
    """Return <a phi> (n,) or (n, K) at points; `known`: nothing of them lies outside what was revealed."""
    out = [np.zeros((0, *weights.readout.shape[:-1]))]
    for first in range(0, len(points), BLOCK):
        block = points[first : first + BLOCK]
        phi = start.act.phi(first_layer(start, weights, block))
        for index in range(len(start.hidden)):
            c, rest = _beyond(start, index, phi, block, known)
            phi = start.act.phi(layer_above(start, weights, index, c, rest, ablations[index]))
        out.append((phi @ weights.readout.T).astype(np.float64) * start.spaces[-1].weight)
    return np.concatenate(out)


def _beyond(start: Start, index: int, phi: Array, points: Indices, known: bool) -> tuple[Floats, Array | float]:
    """Return c = <in phi> and the image of what phi adds to the features."""
    hidden = start.hidden[index]
    if known or isinstance(hidden.sink, Axes):  # what no axis knows has no part in the output
        return hidden.source.inner(phi, hidden.ins.rows), 0.0
    return forward_alone(hidden, phi, start.noise(index, points))


def shrunk(weights: Weights, part: float, frozen: int = 0) -> Weights:
    """Return weights of which decay has left `part` in every layer above the first `frozen` ones."""
    keep, decay = [index + 1 < frozen for index in range(len(weights.learned))], weights.decay.copy()
    decay[:-1] = [value if still else value * part for value, still in zip(decay[:-1], keep, strict=True)]
    learned = [matrix if still else matrix * part for matrix, still in zip(weights.learned, keep, strict=True)]
    dtype = weights.inputs.dtype.type
    if frozen:
        return Weights(weights.inputs, weights.readout * dtype(part), learned, decay)
    decay[-1] *= part
    return Weights(weights.inputs * dtype(part), weights.readout * dtype(part), learned, decay)


@dataclass(eq=False)
class Centre:
    """What is added to <a phi> / gamma of a stage: minus outputs of earlier states, and `carried` (n_point,) / gamma.

    `origin` is the state whose output counts as zero; weight decay shrinks it as it does the network, at the rate
    `decay` in the layers above the first `frozen` ones. With `begin`, the state at the start of the stage, f starts
    from zero. `rows` are the points that the stage trains on, `others` the rest. Outputs are taken anew whenever
    something was revealed.
    """

    start: Start
    rows: Indices
    others: Indices
    gamma: float
    ablations: Sequence[Ablation]
    decay: float
    frozen: int
    origin: Weights
    begin: Weights | None
    carried: Floats
    _seen: dict[tuple[bool, bool], tuple[tuple[int, ...], Floats]] = field(default_factory=dict)

    def at_rows(self, t: float) -> Floats:
        """Return the shift of f (P,) at the training points."""
        return self._shift(t, True)

    def at_others(self, t: float) -> Floats:
        """Return the shift of f at the other points."""
        return self._shift(t, False)

    def _shift(self, t: float, known: bool) -> Floats:
        points = self.rows if known else self.others
        fading = math.exp(-self.decay * (self.start.depth + 1 - self.frozen) * t)
        zero = self._kept(False, self.origin, known)
        carried, total = self.carried[points], zero * fading
        if self.decay and not self.start.act.homogeneous:
            faded = shrunk(self.origin, math.exp(-self.decay * t), self.frozen)
            total = outputs(self.start, faded, points, self.ablations, known)
        if self.begin is None:
            return (carried * fading - total) / self.gamma
        return (carried * (fading - 1) - total + zero - self._kept(True, self.begin, known)) / self.gamma

    def _kept(self, begin: bool, state: Weights, known: bool) -> Floats:
        """Return the outputs of a state, kept until something more is revealed."""
        # What an exact network's tables do not know has no part in its outputs.
        sampled = not isinstance(self.start.spaces[0], Axes)
        counts = tuple(hidden.ins.count for hidden in self.start.hidden) if sampled else ()
        if (begin, known) not in self._seen or self._seen[begin, known][0] != counts:
            points = self.rows if known else self.others
            self._seen[begin, known] = counts, outputs(self.start, state, points, self.ablations, known)
        return self._seen[begin, known][1]


def lacking(start: Start, weights: Weights, coords_rows: Indices, exact: InitialKernels, frozen: int) -> Floats:
    """Return what the sample's tangent kernel (n_point, P) between all points and `coords_rows` lacks at `weights`.

    The sample's is the derivative of its own `outputs` along the training of a stage whose first `frozen` layers are
    fixed; `exact` are the kernels of an infinite network between all points and the trained ones.
    """
    return _exact_kernel(start, coords_rows, exact, frozen) - tangent(start, weights, coords_rows, frozen)


def _exact_kernel(start: Start, rows: Indices, exact: InitialKernels, frozen: int) -> Floats:
    g = start.geometry
    columns = np.searchsorted(start.trained, rows)
    below = [g.moving @ g.moving[rows].T + g.still @ g.still[rows].T, *(phi[:, columns] for phi in exact.phi)]
    return below[-1] + sum(
        (exact.g[layer][:, columns] * below[layer] for layer in range(frozen, start.depth)), np.zeros(below[0].shape)
    )


def tangent(start: Start, weights: Weights, rows: Indices, frozen: int = 0) -> Floats:
    """Return d<a phi>(x) / dJ_nu (n_point, P) under the velocity of a pull J_nu at the training points `rows`."""
    training = Training(start.geometry.moving[rows], np.zeros(len(rows)), 1.0, 1.0, frozen=frozen)
    field_ = DeepField(start.act, start.spaces, start.hidden, training)
    weights = field_.unpack(field_.pack(weights))
    lowest = max(0, frozen - 1)
    seen = field_.forward(0.0, weights)
    gs, ds = field_.backward(weights, seen, lowest)
    weights = field_.unpack(field_.pack(weights))
    trained = _Answer(seen.phi[-1], seen.coefficients, [None] * lowest + ds, gs[0])
    out = np.zeros((len(start.geometry.moving), len(rows)))
    others = np.setdiff1d(np.arange(len(out)), rows)
    groups = [(rows, True), *((others[i : i + BLOCK], False) for i in range(0, len(others), BLOCK))]
    for points, known in groups:
        out[points] = _overlap(start, points, rows, _answer(start, weights, points, known, lowest), trained, frozen)
    return out


@dataclass(eq=False)
class _Answer:
    """phi of the last layer, c = <in phi> and d = <out g> per hidden matrix, g of the lowest layer asked for."""

    phi: Array
    c: list[Floats]
    d: list[Floats | None]
    g: Array


def _answer(start: Start, weights: Weights, points: Indices, known: bool, lowest: int) -> _Answer:
    """Return how `outputs` at some points depend on all weights: its own chain rule, which reveals nothing."""
    h = first_layer(start, weights, points)
    phi, slope = start.act.both(h)
    phis, slopes, cs = [phi], [slope], []
    for index in range(len(start.hidden)):
        c, rest = _beyond(start, index, phi, points, known)
        phi, slope = start.act.both(layer_above(start, weights, index, c, rest, NOTHING))
        phis.append(phi)
        slopes.append(slope)
        cs.append(c)
    g = slope * weights.readout
    ds: list[Floats | None] = [None] * len(start.hidden)
    for index in range(len(start.hidden) - 1, lowest - 1, -1):
        hidden = start.hidden[index]
        d = hidden.sink.inner(g, hidden.outs.rows)
        below = hidden.backward(d, float(weights.decay[index]), weights.learned[index])
        if not known:
            below = below + weights.decay[index] * _through_rest(start, index, hidden, phis[index], g, points)
        g, ds[index] = slopes[index] * below.astype(g.dtype), d
    return _Answer(phis[-1], cs, ds, g)


def _through_rest(start: Start, index: int, hidden: Hidden, phi: Array, g: Array, points: Indices) -> Array:
    """Return the part of W(0)^T g along what phi adds to the features, whose length times noise is its image."""
    rest = without(hidden.source, phi, hidden.ins.rows, hidden.is_feature)
    size = np.sqrt(np.einsum("ms,ms->m", rest, rest).astype(float) * hidden.source.weight)
    along = np.einsum("ms,ms->m", g, start.noise(index, points)).astype(float) * hidden.sink.weight
    return (along / np.maximum(size, math.sqrt(np.finfo(float).tiny)))[:, None].astype(g.dtype) * rest


def _overlap(start: Start, points: Indices, rows: Indices, at: _Answer, trained: _Answer, frozen: int) -> Floats:
    theta = start.spaces[-1].inner(at.phi, trained.phi)
    for index, hidden in enumerate(start.hidden):
        back, other = at.d[index], trained.d[index]
        if index + 1 < frozen or back is None or other is None:
            continue
        features = hidden.features[hidden.features < trained.c[index].shape[1]]
        responses = hidden.responses[hidden.responses < other.shape[1]]
        theta = theta + (back[:, responses] @ other[:, responses].T) * (
            at.c[index][:, features] @ trained.c[index][:, features].T
        )
    if not frozen:
        moving = start.geometry.moving
        theta = theta + start.spaces[0].inner(at.g, trained.g) * (moving[points] @ moving[rows].T)
    return theta
