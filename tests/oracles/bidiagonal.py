"""Deep linear networks of two hidden layers as a small network with fixed initial weights.

See docs/references.md, Two hidden layers as a small network.

The products of a Gaussian matrix W(0) with the initial input weights and readout, and with whatever it made of them,
span chains on which W(0) is bidiagonal (Householder), and whose entries chi_n / sqrt(n) tend to 1 with the width n. One
chain starts from the weights of every input direction i and one from the readout,

    W e_j = b_{j-1} + b_j,  w_i = e_0;        W^T b_j = e_{j-1} + e_j,  a = b_0        (e_{-1} = b_{-1} = 0),

so that f = a^T W w x~ / gamma, trained by ordinary gradient descent, is the network of infinite width. A readout that
is redrawn starts one more chain. T steps of gradient descent reach T + 2 cells of a chain, and the weights of far cells
fall so fast that a few cells are exact to rounding.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tlcli.arrays import Floats
from tlcli.dmft.arithmetic import Arithmetic
from tlcli.dmft.integrate import Control, Step, integrate
from tlcli.dmft.stage import Stage, StageRun
from tlcli.errors import DomainError

CELLS = 6


class BidiagonalField(Arithmetic):
    """The velocity of (w (N, rank), W (N, N), a (N,)), flat, in one stage; N cells in all.

    `coords` (n, rank) are all points in the row space of the training inputs. The first `frozen` layers neither learn
    nor decay. `shift` (n,) is added to f.
    """

    def __init__(self, coords: Floats, stage: Stage, cells: int, frozen: int, shift: Floats) -> None:
        self.coords, self.stage, self.frozen, self.shift = coords, stage, frozen, shift
        self.cells, self.rank = cells, coords.shape[1]
        self.rows = coords[stage.rows]
        self.evaluations = 0

    def unpack(self, z: Floats) -> tuple[Floats, Floats, Floats]:
        """Return w, W and a as views."""
        n, k = self.cells, self.rank
        return z[: n * k].reshape(n, k), z[n * k : n * (k + n)].reshape(n, n), z[n * (k + n) :]

    def raw(self, z: Floats) -> Floats:
        """Return a^T W w x~ (n,) at all points."""
        w, matrix, a = self.unpack(z)
        return self.coords @ (w.T @ (matrix.T @ a))

    def outputs(self, z: Floats) -> Floats:
        """Return f (n,) at all points."""
        return self.raw(z) / self.stage.gamma + self.shift

    def kernels(self, z: Floats) -> dict[str, Any]:
        """Return `phi_layer1`, `phi_layer2` (n, n) and `g_layer1`, `g_layer2` of a state."""
        w, matrix, a = self.unpack(z)
        below = self.coords @ w.T
        above, back = below @ matrix.T, matrix.T @ a
        return {
            "phi_layer1": below @ below.T,
            "phi_layer2": above @ above.T,
            "g_layer1": float(back @ back),
            "g_layer2": float(a @ a),
        }

    def _residual(self, z: Floats) -> Floats:
        return self.stage.labels - self.outputs(z)[self.stage.rows]

    def __call__(self, t: float, z: Floats) -> Floats:
        """Return dz/dt: q a (w d)^T for W, q (W^T a) d^T for w, q W w d for a, with d = sum Delta x~, less decay."""
        self.evaluations += 1
        s, (w, matrix, a) = self.stage, self.unpack(z)
        d = s.gamma * s.scale * (self._residual(z) @ self.rows)
        wd = w @ d
        out = -s.decay * z
        to_w, to_matrix, to_a = self.unpack(out)
        to_w += np.outer(matrix.T @ a, d)
        to_matrix += np.outer(a, wd)
        to_a += matrix @ wd
        for part in (to_w, to_matrix)[: self.frozen]:
            part[:] = 0.0
        return out

    def stiffness(self, t: float, z: Floats, vector: Any = None, sweeps: int = 20) -> tuple[float, Any]:
        """Return s lambda_max(Theta) plus the rates of the forces themselves and of the decay."""
        s, k = self.stage, self.kernels(z)
        pick = np.ix_(s.rows, s.rows)
        parts = [k["phi_layer2"][pick], k["g_layer2"] * k["phi_layer1"][pick], k["g_layer1"] * self.rows @ self.rows.T]
        theta = np.sum(parts[: 3 - self.frozen], axis=0)
        if not np.all(np.isfinite(theta)):
            return np.inf, None
        drift = s.gamma * s.scale * np.linalg.norm(self._residual(z)) * np.sqrt(np.trace(theta) / len(theta))
        return float(s.scale * np.linalg.eigvalsh(theta)[-1] + drift + 3 * s.decay), None


def run_bidiagonal(
    coords: Floats, stages: Sequence[Stage], control: Control, *, cells: int = CELLS, freeze: int = 0
) -> list[StageRun]:
    """Train the linear network of two hidden layers and infinite width; one `StageRun` per stage.

    `coords` (n, rank): x/sqrt(D) of all points along the training inputs (`tlcli.dmft.geometry`); what is orthogonal to
    these has no part in f. `control`: gradient descent with step dt ("euler") or gradient flow (the other integrators).
    `cells` per chain: with the time total 3 of the reference cases 2 give f to about 1e-4, 3 to 1e-7, 4 to 1e-11 and 5
    to 1e-14. `freeze`: the first layers that neither learn nor decay after stage 1. Beside f (n_time, n), NaN after
    a break, a record has the kernels of `BidiagonalField.kernels`; Phi is that of the part along the training inputs.

    Raises:
        DomainError: less than one cell, or layers that are not there.
    """
    coords = np.asarray(coords, dtype=float)
    if cells < 1:
        raise DomainError(f"cells = {cells}: a chain has at least 1 cell.")
    if not 0 <= freeze <= 2:
        raise DomainError(f"freeze = {freeze}: the network has 2 hidden layers; use 0 to 2.")
    redraws = sum(stage.readout == "reset" for stage in stages[1:])
    size = (coords.shape[1] + 1 + redraws) * cells
    z, readouts = _initial(coords.shape[1], cells, redraws)
    runs: list[StageRun] = []
    for index, stage in enumerate(stages):
        if index and stage.readout == "reset":
            z = np.concatenate([z[:-size], next(readouts)])
        centre = np.zeros(len(coords))
        if index and stage.readout == "carry-centred":
            centre = BidiagonalField(coords, stage, size, 0, centre).raw(z)
        field = BidiagonalField(coords, stage, size, freeze if index else 0, -centre / stage.gamma)
        record = _Record(field, stage, np.full((len(stage.times), len(coords)), np.nan), {})
        record.keep(0.0, lambda t, z=z: z)
        outcome = integrate(field, z, float(stage.times[-1]), control.of_stage(stage.gamma), record.on_step)
        if not outcome.message:  # at rest, later records are the last state
            record.keep(np.inf, lambda t, z=outcome.state: z)
        runs.append(StageRun(record.f, record.observed, [], outcome, field.evaluations, outcome.steps))
        if outcome.message:
            break
        z = outcome.state
    for stage in stages[len(runs) :]:
        nothing = np.full((len(stage.times), len(coords)), np.nan)
        runs.append(StageRun(nothing, {}, [], runs[-1].outcome, 0))
    return runs


def _initial(rank: int, cells: int, redraws: int) -> tuple[Floats, Iterator[Floats]]:
    """Return the state before training, and the readouts (N,) that are drawn later."""
    upper = np.eye(cells) + np.eye(cells, k=1)  # W e_j = b_{j-1} + b_j
    from_input = np.arange(rank + 1 + redraws) < rank
    matrix = np.kron(np.diag(from_input), upper) + np.kron(np.diag(~from_input), upper.T)
    first = np.eye(len(matrix))[::cells]  # the first cell of every chain
    return np.concatenate([first[:rank].T.ravel(), matrix.ravel(), first[rank]]), iter(first[rank + 1 :])


class _Record:
    """f and kernels at the times of a stage."""

    def __init__(self, field: BidiagonalField, stage: Stage, f: Floats, observed: dict[str, list[Any]]) -> None:
        self.field, self.times, self.f, self.observed, self.next = field, stage.times, f, observed, 0

    def on_step(self, step: Step) -> None:
        """Take the records that lie in a step."""
        self.keep(step.t1, step.at)

    def keep(self, until: float, at: Any) -> None:
        """Take the records up to a time from a function of time."""
        while self.next < len(self.times) and self.times[self.next] <= until:
            z = at(float(self.times[self.next]))
            self.f[self.next] = self.field.outputs(z)
            for name, value in self.field.kernels(z).items():
                self.observed.setdefault(name, []).append(value)
            self.next += 1
