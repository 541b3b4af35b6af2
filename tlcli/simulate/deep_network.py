"""A network with several hidden layers of finite width: forward and backward pass, tangent kernel, one step.

With L hidden layers of width N, inputs x (D,) and all weights N(0, 1) at t = 0,

    h^1 = w x / sqrt(D),   h^{l+1} = W^l phi(h^l) / sqrt(N),   f(x) = (1/(gamma N)) sum_i a_i phi(h^L_i).

Backwards z^L = a, z^l = W^l^T g^{l+1} / sqrt(N), g^l = phi'(h^l) z^l. With Delta = y - f on the training points, one
step eta of gradient descent of (1/2P) sum Delta^2 with the learning rate eta gamma^2 N and weight decay lambda is

    w   += eta ((gamma/P) sum_mu Delta_mu g^1_mu x_mu^T / sqrt(D) - lambda w),
    W^l += eta ((gamma/P) sum_mu Delta_mu g^{l+1}_mu phi(h^l_mu)^T / sqrt(N) - lambda W^l),
    a   += eta ((gamma/P) sum_mu Delta_mu phi(h^L_mu) - lambda a).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from tlcli.arrays import Floats
from tlcli.dmft.activations import Activation
from tlcli.simulate.trials import trial_rng
from tlcli.simulate.two_layer import Network

HELD = 1 << 20  # preactivations of a layer held at once where inputs can be taken in turns


@dataclass
class Passes:
    """Both passes of a network at P points.

    `inputs`: what each layer multiplies, divided by the root of its size: x / sqrt(D) (D, P), then
    phi(h^l) / sqrt(N) (N, P), l < L. `last`: phi(h^L) (N, P). `slopes`: phi'(h^l) (N, P), l = 1..L. `back`: g^l
    (N, P), or None for a frozen layer that no gradient is needed of. `moves`: the velocities of the weights, once
    they are known.
    """

    inputs: list[Floats]
    last: Floats
    slopes: list[Floats]
    back: list[Floats | None] = field(default_factory=list)
    moves: list[Floats | None] = field(default_factory=list)

    def at(self, points: ArrayLike) -> "Passes":
        """Return the forward pass at some of its points."""
        rows = np.asarray(points)
        return Passes([i[:, rows] for i in self.inputs], self.last[:, rows], [s[:, rows] for s in self.slopes])


@dataclass
class DeepNetwork(Network):
    """A network with L hidden layers: `hidden` holds W^1 .. W^{L-1}, each (N, N); the first `frozen` layers stay.

    Layer 1 is w, layer l + 1 is W^l. A frozen layer gets neither a gradient nor weight decay.
    """

    hidden: list[Floats] = field(default_factory=list)
    frozen: int = 0

    @property
    def layers(self) -> list[Floats]:
        """The weights of layers 1 .. L: w, W^1, .., W^{L-1}."""
        return [self.weights, *self.hidden]

    @property
    def arrays(self) -> list[Floats]:
        """All weights."""
        return [*self.layers, self.readout]

    def ahead(self, xs: Floats) -> Passes:
        """Return the forward pass at inputs xs (P, D), already over sqrt(D)."""
        inputs, slopes, last, signal = [], [], xs.T, xs.T
        for w in self.layers:
            inputs.append(signal)
            last, slope = self.phi.both(w @ signal)
            slopes.append(slope)
            signal = last / np.sqrt(len(w))
        return Passes(inputs, last, slopes)

    def backward(self, passes: Passes, down_to: int = 1, top: Floats | None = None) -> Passes:
        """Add g^l of layers `down_to` .. L to `passes` and return it; `top` z^L (N, P) is the readout by default."""
        back: list[Floats | None] = [None] * len(passes.slopes)
        z = self.readout[:, None] if top is None else top
        for layer in range(len(back), down_to - 1, -1):
            g = passes.slopes[layer - 1] * z
            back[layer - 1] = g
            if layer > down_to:
                z = self.hidden[layer - 2].T @ (g / np.sqrt(len(g)))
        passes.back = back
        return passes

    def forward(self, xs: Floats) -> tuple[Passes, Floats]:
        """Return both passes at inputs xs (P, D), already over sqrt(D), and sum_i a_i phi(h^L_i) (P,)."""
        passes = self.backward(self.ahead(xs), self.frozen + 1)
        return passes, self.readout @ passes.last

    def outputs(self, x: Floats, gamma: float) -> Floats:
        """Return f (n,) at the inputs x (n, D), on the output scale gamma."""
        xs, width = x / np.sqrt(x.shape[1]), len(self.readout)
        parts = [self.readout @ self.ahead(xs[points]).last for points in self._turns(len(x))]
        return np.concatenate([*parts, np.zeros(0)]) / (gamma * width)

    def force(self, passes: Passes, pull: Floats) -> Floats:
        """Velocity (N,) of the readout, for pull = gamma Delta / P (P,)."""
        return passes.last @ pull

    def growth(self, passes: Passes, pull: Floats, force: Floats) -> float:
        """Relative rate at which the weights grow behind the input layer; the largest of all layers.

        A matrix W^l multiplies a typical vector by |W^l|/sqrt(N) (Frobenius norm), an aligned one by its norm: its
        rate is that of a norm which is wholly aligned, against the typical gain.
        """
        rates = [super().growth(passes, pull, force)]
        for w, move in zip(self.hidden, self._moves(passes, pull)[1:], strict=True):
            if move is not None:
                gain = max(float(np.linalg.norm(w)) / np.sqrt(len(w)), 1e-300)
                rates.append(float(np.linalg.norm(move)) / gain)
        return max(rates)

    def curvature(self, passes: Passes, xs: Floats, v: Floats, turns: int) -> tuple[float, Floats]:
        """Largest eigenvalue of the tangent kernel (P, P) of all that trains and its vector, from `turns` products."""
        k, top = self.tangent(passes, passes), 0.0
        for _ in range(turns):
            v = k @ (v / max(float(np.linalg.norm(v)), 1e-300))
            top = float(np.linalg.norm(v))
        return top, v

    def update(self, passes: Passes, xs: Floats, pull: Floats, force: Floats, step: float, decay: float) -> None:
        """Make one step of gradient descent, of length `step`, in place."""
        kept = 1.0 - step * decay
        for w, move in zip(self.layers, self._moves(passes, pull), strict=True):
            if move is None:
                continue
            if decay:
                w *= kept
            move *= step
            w += move
        self.readout *= kept
        self.readout += step * force

    def tangent(self, one: Passes, other: Passes, kind: str = "ntk") -> Floats:
        """Kernel (n, P) between the points of two passes, Phi^L + sum_l G^l Phi^{l-1} over the layers that train.

        `kind = "feature"` leaves Phi^L alone.
        """
        width = len(self.readout)
        k = one.last.T @ other.last / width
        if kind == "ntk":
            for g, g_other, phi, phi_other in zip(one.back, other.back, one.inputs, other.inputs, strict=True):
                if g is not None and g_other is not None:
                    k += (g.T @ g_other / width) * (phi.T @ phi_other)
        return k

    def kernel(self, x: Floats, train: slice, kind: str) -> Floats:
        """Kernel (n, P) between the inputs x (n, D) and those of x[train], "feature" or "ntk" as in `tangent`."""
        xs = x / np.sqrt(x.shape[1])
        columns, _ = self.forward(xs[train])
        return np.concatenate([self.tangent(self.forward(xs[rows])[0], columns, kind) for rows in self._turns(len(x))])

    def _turns(self, points: int) -> Iterator[slice]:
        size = max(16, HELD // len(self.readout))
        for start in range(0, points, size):
            yield slice(start, start + size)

    def _moves(self, passes: Passes, pull: Floats) -> list[Floats | None]:
        """Velocity of each layer's weights, None for a frozen one; kept, since the step is chosen from it."""
        if not passes.moves:
            passes.moves = [
                None if g is None else (g * pull) @ signal.T
                for g, signal in zip(passes.back, passes.inputs, strict=True)
            ]
        return passes.moves


def draw_deep(seed: int, number: int, width: int, dim: int, depth: int, phi: Activation) -> tuple[DeepNetwork, Floats]:
    """Draw network `number`: N(0, 1) weights, and a second readout (N,) for a readout that is reset.

    The draw depends on (seed, number) alone; with depth 1 it is that of the two-layer experiment.
    """
    rng = trial_rng(seed, number)
    weights, readout, second = (rng.standard_normal(shape) for shape in ((width, dim), width, width))
    hidden = [rng.standard_normal((width, width)) for _ in range(depth - 1)]
    return DeepNetwork(weights, readout, phi, hidden), second


def redraw(net: DeepNetwork, level: int, seed: int, number: int, stage: int = 1) -> None:
    """Draw all weights above layer `level` afresh, in place: W^level, .., W^{L-1} and a; with level 0 also w.

    The draw depends on (seed, number, stage) and shares nothing with the initial weights.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number, stage)))
    if level == 0:
        net.weights = rng.standard_normal(net.weights.shape)
    for index in range(max(level - 1, 0), len(net.hidden)):
        net.hidden[index] = rng.standard_normal(net.hidden[index].shape)
    net.readout = rng.standard_normal(net.readout.shape)
