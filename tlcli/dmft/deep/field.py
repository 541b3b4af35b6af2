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

from tlcli.arrays import Array, Floats
from tlcli.dmft.activations import Activation
from tlcli.dmft.deep.hidden import NOTHING, Ablation, Hidden
from tlcli.dmft.deep.space import Space
from tlcli.dmft.field import Batched
from tlcli.losses.objective import Objective
from tlcli.losses.scores import margins


@dataclass(eq=False)
class Weights:
    """What one network has learnt, in the layers' own spaces.

    `inputs` (rank, size) of the first layer in row-space coordinates and `readout` (size,), or (K, size) of several
    outputs, both with their initial part; `learned` C (n_response, n_feature) per hidden matrix; `decay` per hidden
    matrix and, last, of the input weights outside the row space: what weight decay has left of the initial weights.
    """

    inputs: Array
    readout: Array
    learned: list[Floats]
    decay: Floats


@dataclass(frozen=True, eq=False)
class Training(Batched):
    """One stage: coordinates (P, rank) and labels (P,) of its points, richness, force scale s, decay, frozen layers.

    `objective` is the loss, in whose coordinates f and Delta are, (P,) or (P, K); None is half the squared distance
    from the labels. `shift(t)` is added to f; the first `frozen` layers (the input weights first) neither learn nor
    decay.
    `response` (P, P), if given, is what the sample's tangent kernel lacks: response @ J / gamma is added to f, with J
    the integral of the pull gamma s Delta. `sampled(t)` (P,), if given, are weights of the points at the step from t.
    """

    coords: Floats
    labels: Floats
    gamma: float
    scale: float
    decay: float = 0.0
    shift: Callable[[float], Floats] | None = None
    frozen: int = 0
    response: Floats | None = None
    objective: Objective | None = None
    sampled: Callable[[float], Floats] | None = None

    @property
    def readouts(self) -> int | None:
        """The number K of readouts, None for a single output."""
        return None if self.objective is None else self.objective.readouts

    def force(self, f: Floats) -> Floats:
        """Return Delta at outputs f."""
        return self.labels - f if self.objective is None else self.objective.force(f)

    def bent(self, f: Floats) -> Floats | None:
        """Return the largest eigenvalue (P,) of every point's Hessian; None where all are one."""
        return None if self.objective is None else self.objective.largest_bend(f)


@dataclass(eq=False)
class Pass:
    """One forward pass at the training points: per layer h, phi and phi' (P, size), c = <in phi> per hidden matrix.

    `output` (P,) or (P, K).
    """

    h: list[Array]
    phi: list[Array]
    slope: list[Array]
    coefficients: list[Floats]
    output: Floats


class DeepField:
    """The velocity of a state, in the interface of `tlcli.dmft.integrate`.

    Several outputs pull together: sum_c Delta_c a_c of a training point is one field, and so is what it sends back, so
    that a step costs the same for any K.
    """

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
        self.several = training.readouts is not None
        self.width = training.readouts or 1
        self._end = self._cut + self.width * spaces[-1].size
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

    def pack(self, weights: Weights) -> Floats:
        """Return the flat state."""
        self._extend()
        z = np.zeros(self._length, dtype=self.dtype)
        z[: self._cut] = weights.inputs.ravel()
        z[self._cut : self._end] = weights.readout.ravel()
        z[self._head - self.depth : self._head] = weights.decay
        for places, learned in zip(self._maps, weights.learned, strict=True):
            z[places[: learned.shape[0], : learned.shape[1]]] = learned
        return z

    def unpack(self, z: Any) -> Weights:
        """Return the weights of a state, the inputs and the readout as views."""
        padded = z if len(z) == self._length else np.concatenate([z, np.zeros(self._length - len(z), dtype=z.dtype)])
        return Weights(
            z[: self._cut].reshape(self.rank, -1),
            z[self._cut : self._end].reshape(self.width, -1) if self.several else z[self._cut : self._end],
            [padded[places].astype(np.float64) for places in self._maps],
            z[self._head - self.depth : self._head].astype(np.float64),
        )

    def pulled(self, z: Any) -> Floats:
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
        return math.sqrt(square / (self.rank + self.width))

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
        raw = (found.phi[-1] @ weights.readout.T).astype(np.float64) * self.spaces[-1].weight
        found.output = raw / self.training.gamma
        if self.training.shift is not None:
            found.output = found.output + self.training.shift(t)
        return found

    def output(self, found: Pass, z: Any) -> Floats:
        """Return f (P,) or (P, K) at the training points."""
        d = self.training
        return found.output if d.response is None else found.output + d.response @ self.pulled(z) / d.gamma

    def residual(self, t: float, z: Any) -> Floats:
        """Return Delta (P,) or (P, K) at the training points."""
        return self.training.force(self.output(self.forward(t, self.unpack(z)), z))

    def fit(self, t: float, z: Any) -> tuple[float, bool]:
        """Return the mean training loss as it is minimised, and whether all margins are positive."""
        objective = self.training.objective
        if objective is None:
            return float("inf"), False
        f = self.output(self.forward(t, self.unpack(z)), z)
        right = margins(objective.outputs(f), objective.y) > 0
        return objective.value(f) / len(f), bool(right.all())

    def backward(
        self, weights: Weights, found: Pass, lowest: int = 0, along: Floats | None = None
    ) -> tuple[list[Array], list[Floats]]:
        """Return g of the layers from `lowest` (0: the first) to the last, and d = <out g> of the matrices above it.

        Of several outputs it is that of the readout `along` . a, with `along` (P, K) or the same (K,) for all points.
        """
        readout = weights.readout if along is None else along.astype(self.dtype) @ weights.readout
        z: Array = np.broadcast_to(readout, found.slope[-1].shape)
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

    def _equal_time(self, index: int, weights: Weights, found: Pass, z: Array, above: Floats) -> Floats:
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
        force = d.gamma * d.scale * d.now(t, d.force(self.output(found, z)))
        pull, along = sizes_of(force) if self.several else (force, None)
        lowest = max(0, d.frozen - 1)  # the lowest layer whose g is needed
        gs, ds = self.backward(weights, found, lowest, along) if d.frozen < self.depth else ([], [])
        self._extend()
        out = np.zeros(self._length, dtype=self.dtype)
        if d.frozen == 0:
            moved = (self.coords.T * pull.astype(self.dtype)) @ gs[0]
            out[: self._cut] = (moved - self.dtype.type(d.decay) * weights.inputs).ravel()
        read = force.T.astype(self.dtype) @ found.phi[-1] - self.dtype.type(d.decay) * weights.readout
        out[self._cut : self._end] = read.ravel()
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

    def tangent_kernel(self, weights: Weights, found: Pass, along: Floats | None = None) -> Floats:
        """Return Theta = Phi^L + sum of G^l o Phi^{l-1} over the layers that learn (P, P).

        Of several outputs it is the form of Theta along one unit direction of them per point (P, K), or for all (K,).
        """
        frozen = self.training.frozen
        theta = self.spaces[-1].inner(found.phi[-1], found.phi[-1])
        if along is not None and along.ndim > 1:
            theta = theta * (along @ along.T)
        if frozen >= self.depth:
            return theta
        gs, _ = self.backward(weights, found, max(0, frozen - 1), along)
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
        rate, _, _ = self._feedback(t, z)
        return rate + self.training.decay * (self.depth + 1)

    def _feedback(self, t: float, z: Any) -> tuple[float, float, float]:
        """Return s lambda_max(Theta H), |Delta|, and the root of Theta's mean diagonal; H is the loss's Hessian.

        Several outputs: along the direction of most force and along each point's own, whose forms bound it from below;
        errors of steps tell the rest.
        """
        d, weights = self.training, self.unpack(z)
        found = self.forward(t, weights)
        f = self.output(found, z)
        delta = d.force(f)
        if not np.all(np.isfinite(delta)):
            return math.inf, math.inf, math.inf
        ways: list[Floats | None] = [None]
        if self.several:
            ways = [sizes_of(delta)[1], np.linalg.svd(delta, full_matrices=False)[2][0]]
        thetas = [self.tangent_kernel(weights, found, along) for along in ways]
        self._extend()
        if not all(np.all(np.isfinite(theta)) for theta in thetas):
            return math.inf, math.inf, math.inf
        bent = d.bent(f)
        root = None if bent is None else np.sqrt(bent)
        forms = thetas if root is None else [root[:, None] * theta * root for theta in thetas]
        rate = d.scale * max(float(np.linalg.eigvalsh(form)[-1]) for form in forms)
        mean = max(math.sqrt(max(float(np.trace(theta)), 0.0) / len(theta)) for theta in thetas)
        return rate, float(np.linalg.norm(delta)), mean

    def stiffness(self, t: float, z: Any, vector: Any = None, sweeps: int = 20) -> tuple[float, Any]:
        """Return the fastest rate: s lambda_max(Theta), the rates of the forces themselves, and the decay."""
        d = self.training
        rate, size, mean = self._feedback(t, z)
        return rate + d.gamma * d.scale * size * mean + d.decay * (self.depth + 1), None


def sizes_of(force: Floats) -> tuple[Floats, Floats]:
    """Return the length (P,) of every point's force (P, K) and its direction (P, K), zero where there is none."""
    sizes = np.linalg.norm(force, axis=1)
    return sizes, force / np.where(sizes > 0, sizes, 1.0)[:, None]
