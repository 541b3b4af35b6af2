"""Networks of finite width with C outputs, of one hidden layer or more.

    f_c(x) = (1/(gamma N)) sum_i a_ic phi(h_i(x)),   Delta = -dl/df (P, C),
    W += eta ((gamma/P) sum_mu (a.Delta_mu) phi'(h_mu) x_mu / sqrt(D) - lambda W),
    a += eta ((gamma/P) sum_mu Delta_mu phi(h_mu) - lambda a)

All C readouts are trained, also those of softmax, whose common part the theory leaves out. In deep networks what a
point sends back is that of all its outputs together, z^L_mu = a.Delta_mu.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tlcli.arrays import Floats
from tlcli.simulate.deep_network import DeepNetwork, Passes
from tlcli.simulate.two_layer import Network


@dataclass
class VectorNetwork(Network):
    """First-layer weights (N, D) and readouts (N, C), changed in place by training."""

    def outputs(self, x: Floats, gamma: float) -> Floats:
        """Return f (n, C) at the inputs x (n, D), on the output scale gamma."""
        xs, out = x.T / np.sqrt(x.shape[1]), np.zeros((len(x), self.readout.shape[1]))
        for rows in self.blocks(len(x)):
            out += self.phi.phi(self.weights[rows] @ xs).T @ self.readout[rows]
        return out / (gamma * len(self.readout))

    def forward(self, xs: Floats) -> tuple[Any, Floats]:
        """Return the passes, (rows, phi, phi') of each block, and sum_i a_i phi_i (P, C)."""
        passes, f = [], np.zeros((len(xs), self.readout.shape[1]))
        for rows in self.blocks(len(xs)):
            phi, slope = self.phi.both(self.weights[rows] @ xs.T)
            f += phi.T @ self.readout[rows]
            passes.append((rows, phi, slope))
        return passes, f

    def curvature(self, passes: Any, xs: Floats, v: Floats, turns: int) -> tuple[float, Floats]:
        """Largest eigenvalue of the tangent kernel (P C, P C) and its vector (P, C), from `turns` products."""
        top = 0.0
        for _ in range(turns):
            v = v / max(float(np.linalg.norm(v)), 1e-300)
            image = np.zeros_like(v)
            for rows, phi, slope in passes:
                a = self.readout[rows]
                image += phi.T @ (phi @ v)
                tangent = (slope * (a @ v.T)) @ xs
                image += ((tangent @ xs.T) * slope).T @ a
            v = image / len(self.readout)
            top = float(np.linalg.norm(v))
        return top, v

    def update(self, passes: Any, xs: Floats, pull: Floats, force: Floats, step: float, decay: float) -> None:
        """Make one step of gradient descent, of length `step`, in place; pull = gamma Delta / P (P, C)."""
        w, a = self.weights, self.readout
        kept = 1.0 - step * decay
        for rows, _, slope in passes:
            move = (slope * (a[rows] @ (step * pull).T)) @ xs
            if decay:
                w[rows] *= kept
            w[rows] += move
        a *= kept
        a += step * force


@dataclass
class VectorDeepNetwork(DeepNetwork):
    """A deep network with readouts (N, C)."""

    def forward(self, xs: Floats) -> tuple[Passes, Floats]:
        """Return the forward pass at inputs xs (P, D), already over sqrt(D), and sum_i a_i phi(h^L_i) (P, C)."""
        passes = self.ahead(xs)
        return passes, passes.last.T @ self.readout

    def outputs(self, x: Floats, gamma: float) -> Floats:
        """Return f (n, C) at the inputs x (n, D), on the output scale gamma."""
        xs, width = x / np.sqrt(x.shape[1]), len(self.readout)
        parts = [self.ahead(xs[points]).last.T @ self.readout for points in self._turns(len(x))]
        return np.concatenate([*parts, np.zeros((0, self.readout.shape[1]))]) / (gamma * width)

    def curvature(self, passes: Passes, xs: Floats, v: Floats, turns: int) -> tuple[float, Floats]:
        """Largest eigenvalue of the tangent kernel (P C, P C) of all that trains and its vector (P, C)."""
        back = [self.backward(passes, self.frozen + 1, column[:, None]).back for column in self.readout.T]
        top = 0.0
        for _ in range(turns):
            v = v / max(float(np.linalg.norm(v)), 1e-300)
            image = passes.last.T @ (passes.last @ v)
            for layer, signal in enumerate(passes.inputs):
                gs = [one[layer] for one in back]
                if any(g is None for g in gs):
                    continue
                move = sum(g * v[:, c] for c, g in enumerate(gs) if g is not None) @ signal.T
                seen = move @ signal
                image += np.stack([np.einsum("ip,ip->p", g, seen) for g in gs if g is not None], axis=1)
            v = image / len(self.readout)
            top = float(np.linalg.norm(v))
        return top, v

    def _moves(self, passes: Passes, pull: Floats) -> list[Floats | None]:
        """Velocity of each layer's weights, None for a frozen one, for pull = gamma Delta / P (P, C)."""
        if not passes.moves:
            back = self.backward(passes, self.frozen + 1, self.readout @ pull.T).back
            passes.moves = [None if g is None else g @ signal.T for g, signal in zip(back, passes.inputs, strict=True)]
        return passes.moves
