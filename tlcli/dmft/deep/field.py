"""The velocity of a deep network's single-site laws in one stage, on lazily revealed hidden matrices.

The state is what was learnt: the input weights in the row space of the data, the readout, and per hidden matrix the
small matrix C between the responses and the features revealed so far, beside the factors by which weight decay has
shrunk what was drawn at the start. In the state W(0) is fixed, so gradient flow is an ordinary differential equation
and any integrator may ask for its velocity anywhere: an evaluation reveals what it needs. States are flat vectors whose
entries for directions revealed later come last and start at zero; a shorter vector is a longer one with zeros.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcli.dmft.activations import Activation
from tlcli.dmft.deep.hidden import NOTHING, Ablation, Hidden
from tlcli.dmft.deep.space import Fields, Space

Array = NDArray[np.float64]


@dataclass(eq=False)
class Weights:
    """What one network has learnt, in the layers' own spaces.

    `inputs` (rank, size) of the first layer in row-space coordinates and `readout` (size,), both with their initial
    part; `learned` C (n_response, n_feature) per hidden matrix; `decay` per hidden matrix and, last, of the input
    weights outside the row space: what weight decay has left of the initial weights.
    """

    inputs: Fields
    readout: Fields
    learned: list[Array]
    decay: Array


@dataclass(frozen=True, eq=False)
class Training:
    """One stage: coordinates (P, rank) and labels (P,) of its points, richness, force scale s, decay, frozen layers.

    `shift(t)` (P,) is added to f; the first `frozen` layers (the input weights first) neither learn nor decay.
    `response` (P, P), if given, is what the sample's tangent kernel lacks: response @ J / gamma is added to f, with J
    the integral of the pull gamma s Delta.
    """

    coords: Array
    labels: Array
    gamma: float
    scale: float
    decay: float = 0.0
    shift: Callable[[float], Array] | None = None
    frozen: int = 0
    response: Array | None = None


@dataclass(eq=False)
class Pass:
    """One forward pass at the training points: per layer h, phi and phi' (P, size), c = <in phi> per hidden matrix."""

    h: list[Fields]
    phi: list[Fields]
    slope: list[Fields]
    coefficients: list[Array]
    output: Array


class DeepField:
    """The velocity of a state, in the interface of `tlcli.dmft.integrate`."""

    xp: Any = np

    def __init__(
        self,
        act: Activation,
        spaces: Sequence[Space],
        hidden: Sequence[Hidden],
        training: Training,
        ablation: Ablation | Sequence[Ablation] = NOTHING,
    ) -> None:
        self.act, self.spaces, self.hidden, self.training = act, spaces, hidden, training
        self.ablations = [ablation] * len(hidden) if isinstance(ablation, Ablation) else list(ablation)
        self.rank = training.coords.shape[1]
        self.depth = len(spaces)
        self.dtype = spaces[0].dtype
        self.coords = training.coords.astype(self.dtype)
        self.evaluations = 0
        self._cut = self.rank * spaces[0].size
        self._end = self._cut + spaces[-1].size
        self._head = self._end + (0 if training.response is None else len(training.labels)) + self.depth
        self._maps = [np.zeros((0, 0), dtype=np.intp) for _ in hidden]
        self._length = self._head
        self._extend()

    # ---------------------------------------------------------------------------------------------- states

    def _extend(self) -> None:
        """Give every pair of a response and a feature revealed since the last look a place at the end."""
        for index, hidden in enumerate(self.hidden):
            shape = (len(hidden.responses), len(hidden.features))
            old = self._maps[index]
            if shape == old.shape:
                continue
            places = np.empty(shape, dtype=np.intp)
            fresh = np.ones(shape, dtype=bool)
            fresh[: old.shape[0], : old.shape[1]] = False
            places[: old.shape[0], : old.shape[1]] = old
            count = int(fresh.sum())
            places[fresh] = self._length + np.arange(count)
            self._maps[index], self._length = places, self._length + count

    def pack(self, weights: Weights) -> Array:
        """Return the flat state."""
        self._extend()
        z = np.zeros(self._length, dtype=self.dtype)
        z[: self._cut] = weights.inputs.ravel()
        z[self._cut : self._end] = weights.readout
        z[self._head - self.depth : self._head] = weights.decay
        for places, learned in zip(self._maps, weights.learned, strict=True):
            z[places[: learned.shape[0], : learned.shape[1]]] = learned
        return z

    def unpack(self, z: Any) -> Weights:
        """Return the weights of a state, the inputs and the readout as views."""
        padded = z if len(z) == self._length else np.concatenate([z, np.zeros(self._length - len(z), dtype=z.dtype)])
        return Weights(
            z[: self._cut].reshape(self.rank, -1),
            z[self._cut : self._end],
            [padded[places].astype(np.float64) for places in self._maps],
            z[self._head - self.depth : self._head].astype(np.float64),
        )

    def pulled(self, z: Any) -> Array:
        """Return J (P,), the integral of the pull, where the training has a response."""
        return z[self._end : self._head - self.depth].astype(np.float64)

    def combine(self, *terms: tuple[float, Any]) -> Any:
        """Return the sum of factor * vector as a new vector, of the length of the longest."""
        out = np.zeros(max(len(vector) for _, vector in terms), dtype=self.dtype)
        for factor, vector in terms:
            out[: len(vector)] += self.dtype.type(factor) * vector
        return out

    def _norm(self, z: Any, reference: Any = None) -> float:
        """Return the root of the mean square over neurons plus that of the learnt operators, per input direction.

        A matrix C acts on fields of unit variance: its Frobenius norm counts as the change of one neuron does. J is as
        smooth as C and does not count.
        """
        head, tail = z[: self._end], z[self._head - self.depth :]
        whole = 1.0
        if reference is not None:
            head = head / (1 + np.abs(reference[: len(head)]))
            whole += float(np.linalg.norm(reference[self._head :]))
        square = self.spaces[0].weight * float(np.dot(head, head)) + float(np.dot(tail, tail)) / whole**2
        return math.sqrt(square / (self.rank + 1))

    def rms(self, z: Any) -> float:
        """Return the size of a state or velocity per input direction."""
        return self._norm(z)

    def error(self, estimate: Any, z: Any, new: Any) -> float:
        """Return the size of `estimate` relative to 1 + |new|."""
        return self._norm(estimate, new)

    # ---------------------------------------------------------------------------------------------- dynamics

    def forward(self, t: float, weights: Weights) -> Pass:
        """Pass the training points through the network, revealing what is not known yet."""
        h = self.coords @ weights.inputs
        phi, slope = self.act.both(h)
        found = Pass([h], [phi], [slope], [], np.zeros(0))
        for index, hidden in enumerate(self.hidden):
            c = hidden.reveal_features(found.phi[-1])
            h = hidden.forward(c, weights.decay[index], weights.learned[index], self.ablations[index])
            phi, slope = self.act.both(h)
            for kept, new in zip(
                (found.h, found.phi, found.slope, found.coefficients), (h, phi, slope, c), strict=True
            ):
                kept.append(new)
        raw = (found.phi[-1] @ weights.readout).astype(np.float64) * self.spaces[-1].weight
        found.output = raw / self.training.gamma
        if self.training.shift is not None:
            found.output = found.output + self.training.shift(t)
        return found

    def output(self, found: Pass, z: Any) -> Array:
        """Return f (P,) at the training points."""
        d = self.training
        return found.output if d.response is None else found.output + d.response @ self.pulled(z) / d.gamma

    def residual(self, t: float, z: Any) -> Array:
        """Return Delta = y - f (P,) at the training points."""
        return self.training.labels - self.output(self.forward(t, self.unpack(z)), z)

    def fit(self, t: float, z: Any) -> tuple[float, bool]:
        """Return inf and False: deep networks have the square loss, whose stages never end at a training loss."""
        return float("inf"), False

    def backward(self, weights: Weights, found: Pass, lowest: int = 0) -> tuple[list[Fields], list[Array]]:
        """Return g of the layers from `lowest` (0: the first) to the last, and d = <out g> of the matrices above it."""
        z: Fields = np.broadcast_to(weights.readout, found.slope[-1].shape)
        gs, ds = [found.slope[-1] * z], []
        response = np.zeros(len(z))  # B(t, t) of the matrix above: none comes from the readout
        for index in range(len(self.hidden) - 1, lowest - 1, -1):
            hidden, ablation = self.hidden[index], self.ablations[index]
            d = hidden.reveal_responses(gs[0])
            below = hidden.backward(d, float(weights.decay[index]), weights.learned[index], ablation)
            if ablation.equal_time:
                response = self._equal_time(index, weights, found, z, response)
                below = below - (weights.decay[index] * response)[:, None].astype(self.dtype) * found.phi[index]
            z = below
            gs.insert(0, found.slope[index] * z)
            ds.insert(0, d)
        return gs, ds

    def _equal_time(self, index: int, weights: Weights, found: Pass, z: Fields, above: Array) -> Array:
        """Return B_nu,nu(t, t) = R <phi''(h) z> + R^2 B' <phi'(h)^2> (P,) of a hidden matrix.

        See docs/references.md, Single-site equations.
        h, z belong to the layer above, B' = `above` to the matrix above. phi'' is taken from differences: a control
        experiment, not the theory, needs it.
        """
        h, slope, step = found.h[index + 1].astype(float), found.slope[index + 1], 1e-4
        curvature = (self.act.both(h + step)[1] - self.act.both(h - step)[1]) / (2 * step)
        weight, factor = self.spaces[index + 1].weight, float(weights.decay[index])
        outer = float(weights.decay[index + 1]) if index + 1 < len(self.hidden) else 1.0
        own = np.einsum("ps,ps->p", curvature, z) * weight
        return factor * own + factor * outer * above * np.einsum("ps,ps->p", slope, slope).astype(float) * weight

    def __call__(self, t: float, z: Any) -> Any:
        """Return dz/dt, of the state's length or longer."""
        self.evaluations += 1
        d, weights = self.training, self.unpack(z)
        found = self.forward(t, weights)
        pull = d.gamma * d.scale * (d.labels - self.output(found, z))
        lowest = max(0, d.frozen - 1)  # the lowest layer whose g is needed
        gs, ds = self.backward(weights, found, lowest) if d.frozen < self.depth else ([], [])
        self._extend()
        out = np.zeros(self._length, dtype=self.dtype)
        if d.frozen == 0:
            force = (self.coords.T * pull.astype(self.dtype)) @ gs[0]
            out[: self._cut] = (force - self.dtype.type(d.decay) * weights.inputs).ravel()
        last = slice(self._cut, self._end)
        out[last] = pull.astype(self.dtype) @ found.phi[-1] - self.dtype.type(d.decay) * weights.readout
        factors = out[self._head - self.depth : self._head]
        if d.response is not None:  # what was learnt decays with every layer; a decayed network has less of a kernel
            part = float(np.prod(weights.decay)) ** 2
            lost = d.decay * (self.depth + 1 - d.frozen) * self.pulled(z)
            out[self._end : self._head - self.depth] = part * pull - lost
        factors[-1] = 0.0 if d.frozen else -d.decay * weights.decay[-1]
        for index in range(lowest, len(self.hidden)):
            if index + 1 < d.frozen:
                continue
            hidden = self.hidden[index]
            c, back = found.coefficients[index], ds[index - lowest]
            features, responses = hidden.features, hidden.responses
            features = features[features < c.shape[1]]
            responses = responses[responses < back.shape[1]]
            change = (back[:, responses] * pull[:, None]).T @ c[:, features]
            places = self._maps[index]
            if d.decay:
                learned = weights.learned[index]
                out[places[: learned.shape[0], : learned.shape[1]]] = -d.decay * learned
            out[places[: change.shape[0], : change.shape[1]]] += change.astype(self.dtype)
            factors[index] = -d.decay * weights.decay[index]
        return out

    def tangent_kernel(self, weights: Weights, found: Pass) -> Array:
        """Return Theta = Phi^L + sum of G^l o Phi^{l-1} over the layers that learn (P, P)."""
        frozen = self.training.frozen
        theta = self.spaces[-1].inner(found.phi[-1], found.phi[-1])
        if frozen >= self.depth:
            return theta
        gs, _ = self.backward(weights, found, max(0, frozen - 1))
        for layer in range(frozen, self.depth):
            g = gs[layer - max(0, frozen - 1)]
            below = (
                self.training.coords @ self.training.coords.T
                if layer == 0
                else self.spaces[layer - 1].inner(found.phi[layer - 1], found.phi[layer - 1])
            )
            theta = theta + self.spaces[layer].inner(g, g) * below
        return theta

    def relaxation(self, t: float, z: Any) -> float:
        """Return s lambda_max(Theta) + (L + 1) lambda, the rate at which the fastest residual relaxes."""
        weights = self.unpack(z)
        theta = self.tangent_kernel(weights, self.forward(t, weights))
        self._extend()
        if not np.all(np.isfinite(theta)):
            return math.inf
        return self.training.scale * float(np.linalg.eigvalsh(theta)[-1]) + self.training.decay * (self.depth + 1)

    def stiffness(self, t: float, z: Any, vector: Any = None, sweeps: int = 20) -> tuple[float, Any]:
        """Return the fastest rate: s lambda_max(Theta), the rates of the forces themselves, and the decay."""
        d, weights = self.training, self.unpack(z)
        found = self.forward(t, weights)
        theta = self.tangent_kernel(weights, found)
        self._extend()
        if not np.all(np.isfinite(theta)):
            return math.inf, None
        delta = d.labels - self.output(found, z)
        drift = d.gamma * d.scale * float(np.linalg.norm(delta)) * math.sqrt(float(np.trace(theta)) / len(theta))
        return d.scale * float(np.linalg.eigvalsh(theta)[-1]) + drift + d.decay * (self.depth + 1), None
