"""Outputs and kernels of an ensemble of deep networks at every step of plain gradient descent.

What the discrete-time equations of the deep theory are compared with: the same steps, without a step control or
losses. Parameterisation and notation are those of `tlcli.simulate.deep_network`. States are k = 0..K, updates
k = 0..K-1. The state at which a stage begins has the weights that the last stage left (after a redraw, if there is
one) and the output scale gamma of the new stage.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from tlcli.arrays import Floats, Indices
from tlcli.dmft.activations import Activation
from tlcli.dmft.activations import activation as activation_of
from tlcli.errors import ConvergenceError, DomainError, UsageError, check_choice
from tlcli.simulate.deep_network import DeepNetwork, draw_deep, redraw
from tlcli.training import READOUTS, Surgery


@dataclass(frozen=True, eq=False, kw_only=True)
class DeepStage:
    """One stage of gradient descent on the points `rows` (P,) of the problem with `labels` (P,).

    `omega` is the weight of each point in the loss (omega/2) sum Delta^2: 1 for the sum, 1/P for the mean. `readout`
    "carry", "carry-centred" or "reset", `freeze` and `reinit_from` say what happens before it, as in `simulate_deep`;
    the first stage takes none but `freeze`.
    """

    rows: ArrayLike
    labels: ArrayLike
    gamma: float
    steps: int
    omega: float = 1.0
    decay: float = 0.0
    readout: str = "carry"
    freeze: int = 0
    reinit_from: int | None = None


@dataclass(frozen=True, eq=False)
class DeepEnsemble:
    """What an ensemble did.

    `f`: outputs (nets, K + 1, n) of each network at all states and points. `states` (m,): where the kernels are
    taken. `phi`, `g`: Phi^l = phi(h^l).phi(h^l)/N and G^l = g^l.g^l/N, (m, L, n, n), means over networks, and their
    standard errors (NaN for one network).
    """

    f: Floats
    states: Indices
    phi: Floats
    g: Floats
    phi_se: Floats
    g_se: Floats


def deep_ensemble(
    x: ArrayLike,
    stages: Sequence[DeepStage],
    *,
    activation: str | Activation,
    depth: int,
    width: int,
    nets: int,
    seed: int,
    dt: float,
    states: Sequence[int] = (),
    centred: bool = False,
) -> DeepEnsemble:
    """Train `nets` networks on the inputs x (n, D) through `stages`, with all steps of length dt.

    Networks are those of `simulate_deep` with the same seed; `dt` is a time of the loss that omega makes.
    `centred`: the model is the network less its own output before the training, which stays constant in a.phi / N
    (the offset is taken anew where a readout is redrawn), so that f starts at exactly zero as the theory's does.
    `states`: the k in 0..K at which kernels are kept.

    Raises:
        UsageError: nets or width < 1, no stage, or an unknown activation or readout.
        DomainError: layers that the depth does not have, a scale, step or decay outside its range, labels that do not
            fit the rows, a state beyond the last.
        ConvergenceError: the outputs overflow.
    """
    act = activation_of(activation) if isinstance(activation, str) else activation
    points = np.asarray(x, dtype=float)
    last = _check(points, stages, depth, width, nets, dt, states)
    n, kept = len(points), np.asarray(states, dtype=np.intp)
    f = np.empty((nets, last + 1, n))
    phi, g = (np.empty((nets, len(kept), depth, n, n)) for _ in range(2))
    with threadpool_limits(1), np.errstate(over="ignore", invalid="ignore"):
        for number in range(nets):
            net, _ = draw_deep(seed, number, width, points.shape[1], depth, act)
            _train(net, points, stages, dt, (seed, number), centred, f[number], kept, phi[number], g[number])
    return DeepEnsemble(f, kept, phi.mean(axis=0), g.mean(axis=0), _error(phi), _error(g))


def _train(
    net: DeepNetwork,
    x: Floats,
    stages: Sequence[DeepStage],
    dt: float,
    key: tuple[int, int],
    centred: bool,
    f: Floats,
    states: Indices,
    phi: Floats,
    g: Floats,
) -> None:
    """Train one network; fills f (K + 1, n) and, at `states`, phi and g (m, L, n, n)."""
    xs, width, k, offset = x / np.sqrt(x.shape[1]), len(net.readout), 0, np.zeros(len(x))
    for index, stage in enumerate(stages):
        redrawn = index > 0 and (stage.readout == "reset" or stage.reinit_from is not None)
        if redrawn:
            level = len(net.layers) if stage.reinit_from is None else stage.reinit_from
            redraw(net, level, *key, stage=index)
        net.frozen = stage.freeze
        rows, labels = np.asarray(stage.rows), np.asarray(stage.labels, dtype=float)
        final = index == len(stages) - 1
        for step in range(stage.steps + final):
            passes = net.ahead(xs)
            raw = net.readout @ passes.last / width
            if step == 0:
                if index > 0 and stage.readout == "carry-centred":
                    offset = raw
                elif redrawn or index == 0:
                    offset = raw if centred else np.zeros(len(x))
            f[k] = (raw - offset) / stage.gamma
            if not np.isfinite(f[k]).all():
                raise ConvergenceError(f"Gradient descent diverged at step {k} of length {dt:.4g}; use a smaller dt.")
            for at in np.flatnonzero(states == k):
                everywhere = net.backward(passes)
                for layer, back in enumerate(everywhere.back):
                    assert back is not None  # all layers were asked for
                    out = passes.last if layer + 1 == len(passes.inputs) else passes.inputs[layer + 1] * np.sqrt(width)
                    phi[at, layer], g[at, layer] = out.T @ out / width, back.T @ back / width
            if step < stage.steps:
                train = net.backward(passes.at(rows), stage.freeze + 1)
                pull = stage.gamma * stage.omega * (labels - f[k, rows])
                net.update(train, xs[rows], pull, net.force(train, pull), dt, stage.decay)
                k += 1


def _error(samples: Floats) -> Floats:
    """Standard error over axis 0; NaN for one sample."""
    if len(samples) < 2:
        return np.full(samples.shape[1:], np.nan)
    return samples.std(axis=0, ddof=1) / np.sqrt(len(samples))


def _check(
    x: Floats, stages: Sequence[DeepStage], depth: int, width: int, nets: int, dt: float, states: Sequence[int]
) -> int:
    """Refuse what cannot be trained; return the number K of the last state."""
    for name, value in (("width", width), ("nets", nets), ("stages", len(stages))):
        if value < 1:
            raise UsageError(f"{name} = {value}: an ensemble needs at least one.")
    for stage in stages:
        Surgery(stage.freeze, stage.reinit_from).check(depth)
        check_choice("readout", stage.readout, READOUTS)
        for name, value in (("dt", dt), ("gamma", stage.gamma), ("omega", stage.omega)):
            if not (np.isfinite(value) and value > 0):
                raise DomainError(f"{name} = {value:g} must be positive and finite.")
        if not (np.isfinite(stage.decay) and stage.decay >= 0):
            raise DomainError(f"decay = {stage.decay:g} must be finite and at least 0.")
        if stage.steps < 1:
            raise DomainError(f"steps = {stage.steps}: a stage needs at least one step.")
        rows = np.asarray(stage.rows)
        if rows.ndim != 1 or rows.shape != np.shape(stage.labels):
            raise DomainError(f"labels of shape {np.shape(stage.labels)} do not fit rows of shape {rows.shape}.")
        if rows.size and not (rows.min() >= 0 and rows.max() < len(x)):
            raise DomainError(f"rows up to {rows.max()} must lie between 0 and {len(x) - 1}, the points of x.")
    last = sum(stage.steps for stage in stages)
    for k in states:
        if not 0 <= k <= last:
            raise DomainError(f"state {k} must lie between 0 and {last}, the states of all stages.")
    return last
