"""A large population streamed through the field of a small one (docs/references.md, Frozen field).

Given Delta(t) neurons are independent, and the stiffness, which is a property of the feedback, is gone. So a coupled
run of S0 neurons finds Delta(t); M >> S0 neurons and the S0 themselves are integrated in this frozen field by the same
few steps of RK4, and the difference tau(x, t) = f_M - f_S0 is added to f in a second coupled run of the S0. Its fixed
point is f = f_M[Delta]: the small population only models the response. Never use f_M of the first field directly, the
open loop amplifies errors of the field by about lambda_max(Theta) t.

Neurons are streamed in blocks through all stages in float32, and only sums are kept. With K outputs Delta is (P, K),
and tau and f have an axis more.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline

from tlcli.arrays import Array, Floats
from tlcli.dmft.activations import Activation
from tlcli.dmft.field import Drive, Threads, apply, bend_of, free_rate, slope_of
from tlcli.dmft.population import Population
from tlcli.dmft.stage import Stage, StageRun
from tlcli.dmft.two_layer import Problem

_BLOCK = 4096
_TYPICAL = 2.0  # above its mean, about sqrt(K): |a| of the neurons that turn fastest
_COARSE = 12  # intervals that resolve tau at points that are not trained on

Outputs = list[tuple[Floats, Floats]]


@dataclass(frozen=True, eq=False)
class FrozenStage:
    """A stage's field as a function of time alone: nodes of RK4, residual Delta(t), and the stage.

    Active points need the output at every node, since it feeds back; the others at every `stride`-th.
    """

    stage: Stage
    coords: Floats
    nodes: Floats
    residual: Callable[[float], Floats]

    @property
    def stride(self) -> int:
        """How many nodes apart the output at all points is taken; it divides the number of steps."""
        steps = len(self.nodes) - 1
        return next(k for k in range(max(1, steps // _COARSE), 0, -1) if steps % k == 0) if steps else 1


def freeze(problem: Problem, runs: Sequence[StageRun], nodes: int | None = None) -> list[FrozenStage]:
    """Turn the coupled runs into frozen fields, their nodes graded by the rate of the field."""
    out = []
    for stage, run in zip(problem.stages, runs, strict=True):
        times = np.array([t for t, _ in run.path])
        delta = np.array([d for _, d in run.path])
        coords = problem.geometry.moving[stage.rows]
        end = float(stage.times[-1])
        if len(times) < 2:  # at rest from the start, or of no duration
            out.append(FrozenStage(stage, coords, np.array([0.0, end]) if end else np.zeros(1), _constant(delta[0])))
            continue
        residual = _Held(CubicSpline(times, delta), float(times[-1]))
        if times[-1] < end:  # settled early: the field stays as it is
            times, delta = np.append(times, end), np.concatenate([delta, delta[-1:]])
        drive = Drive(coords, stage.labels, stage.gamma, stage.scale, stage.decay)
        own = None if stage.objective is None else _TYPICAL + math.sqrt(stage.readouts or 1)
        rates = np.array([free_rate(drive, d, own, bend_of(problem.act)) for d in delta])
        out.append(FrozenStage(stage, coords, _graded(times, rates, nodes), residual))
    return out


@dataclass(frozen=True, eq=False)
class _Held:
    """A function of time that stays where it is after `last`."""

    function: Callable[[float], Floats]
    last: float

    def __call__(self, t: float) -> Floats:
        return self.function(min(t, self.last))


def _constant(delta: Floats) -> Callable[[float], Floats]:
    return lambda t: delta


def _graded(times: Floats, rates: Floats, nodes: int | None) -> Floats:
    """Spread the nodes evenly over the integral of rate + 0.3 <rate>; by default half a turn per step."""
    widths = np.diff(times)
    mean = float(np.sum(widths * (rates[1:] + rates[:-1]) / 2) / (times[-1] - times[0]))
    density = rates + 0.3 * mean
    total = np.concatenate([[0.0], np.cumsum(widths * (density[1:] + density[:-1]) / 2)])
    count = nodes or int(np.clip(np.ceil(total[-1] / 0.5), _COARSE, 8 * _COARSE))
    if count > _COARSE:  # a number that a stride divides
        stride = count // _COARSE
        count = stride * math.ceil(count / stride)
    return np.interp(np.linspace(0, total[-1], count + 1), total, times)


def outputs_in_field(
    act: Activation,
    stages: Sequence[FrozenStage],
    points: Floats,
    still_points: Floats,
    hidden: Array,
    readout: Array,
    still: Array,
    redrawn: Array | None,
    weights: Array | None = None,
) -> Outputs:
    """Integrate neurons (S, rank), (S,) or (S, K) in the frozen fields and return sum_i q_i a_i phi(h_i).

    Per stage at the active points and all nodes (n_node, P), and at all points and every stride-th node, each with an
    axis of the K outputs where readouts have one. `weights` None: the plain sum over neurons. Arrays are advanced in
    place, in their own precision.
    """
    out, fading, share = [], 1.0, 1.0
    for index, frozen in enumerate(stages):
        stage, dtype = frozen.stage, hidden.dtype
        if stage.readout == "reset" and index:
            assert redrawn is not None
            # Every neuron twice, with both signs of its new readout: f starts from 0.
            hidden, still = np.concatenate([hidden, hidden]), np.concatenate([still, still])
            readout = np.concatenate([redrawn, -redrawn])
            weights = None if weights is None else np.concatenate([weights, weights])
            share = 0.5
        coords = np.ascontiguousarray(frozen.coords.T, dtype=dtype)
        work = _Work(act, hidden, len(frozen.coords), coords, frozen.coords.astype(dtype), stage.decay)
        columns = points.T.astype(dtype)
        outside = still_points.T.astype(dtype) if still.shape[1] else None
        fine, coarse = np.empty((len(frozen.nodes), len(frozen.coords), *readout.shape[1:])), []
        strength = stage.scale * stage.gamma
        for k, t in enumerate(frozen.nodes):
            if k:
                before = float(frozen.nodes[k - 1])
                h = float(t) - before
                pulls = [(strength * frozen.residual(s)).astype(dtype) for s in (before, before + h / 2, before + h)]
                work.advance(hidden, readout, h, pulls)
            weighted = readout * hidden.dtype.type(share)
            if weights is not None:
                weighted *= weights if readout.ndim == 1 else weights[:, None]
            fine[k] = (weighted.T @ work.response(hidden)).T
            if k % frozen.stride == 0:
                pre = hidden @ columns
                if outside is not None:
                    pre += (still * dtype.type(fading * np.exp(-stage.decay * t))) @ outside
                phi = apply(act, pre, np.empty_like(pre) if act.slope_needs_input else pre, np)
                coarse.append((weighted.T @ phi).T.astype(float))
        out.append((fine, np.array(coarse)))
        fading *= float(np.exp(-stage.decay * frozen.nodes[-1]))
    return out


class _Work:
    """Buffers of RK4 for one block of neurons."""

    def __init__(self, act: Activation, hidden: Array, n_train: int, coords: Any, rows: Any, decay: float) -> None:
        self.act, self.coords, self.rows, self.decay = act, coords, rows, decay
        dtype = hidden.dtype
        self.h = np.empty((len(hidden), n_train), dtype)
        self.phi = np.empty_like(self.h) if act.slope_needs_input else self.h
        self.u, self.du = np.empty_like(hidden), np.empty_like(hidden)
        self.sum_u = np.empty_like(hidden)

    def response(self, u: Any) -> Any:
        """Return phi (S, P) at the active points."""
        np.matmul(u, self.coords, out=self.h)
        return apply(self.act, self.h, self.phi, np)

    def velocity(self, u: Any, a: Any, pull: Any) -> tuple[Any, Any]:
        """Return du/dt, da/dt."""
        phi = self.response(u)
        new_a = phi @ pull
        slope = slope_of(self.act, self.h, phi, np)
        if a.ndim == 1:
            np.matmul(slope, pull[:, None] * self.rows, out=self.du)
            self.du *= a[:, None]
        else:
            np.matmul(slope * (a @ pull.T), self.rows, out=self.du)
        if self.decay:
            self.du -= self.decay * u
            new_a -= self.decay * a
        return self.du, new_a

    def advance(self, u: Any, a: Any, h: float, pulls: Sequence[Any]) -> None:
        """One step of RK4, in place; `pulls` at its start, middle and end."""
        du, da = self.velocity(u, a, pulls[0])
        np.copyto(self.sum_u, du)
        sum_a = da
        for pull, factor, weight in ((pulls[1], 0.5, 2.0), (pulls[1], 0.5, 2.0), (pulls[2], 1.0, 1.0)):
            np.multiply(du, u.dtype.type(factor * h), out=self.u)
            self.u += u
            du, da = self.velocity(self.u, a + u.dtype.type(factor * h) * da, pull)
            if weight == 1.0:
                self.sum_u += du
            else:
                self.sum_u += 2 * du
            sum_a = sum_a + u.dtype.type(weight) * da
        self.sum_u *= u.dtype.type(h / 6)
        u += self.sum_u
        a += u.dtype.type(h / 6) * sum_a


def stream(
    problem: Problem,
    stages: Sequence[FrozenStage],
    neurons: int,
    seeds: np.random.SeedSequence,
    threads: Threads,
    pairs: bool = False,
) -> Outputs:
    """Return f per stage, as in `outputs_in_field`, of `neurons` fresh plain Gaussian neurons in the frozen fields.

    Block b draws from its own stream, so the result depends on the seed alone. `pairs`: each neuron with both signs of
    its readout, so that f(0) = 0.
    """
    g = problem.geometry
    count = max(1, round(neurons / _BLOCK))
    rank, n_still = g.rank, g.still.shape[1]
    first, second = problem.stages[0], next((s for s in problem.stages[1:] if s.readout == "reset"), None)
    sizes = [neurons // count + (b < neurons % count) for b in range(count)]
    sizes = [size + size % 2 for size in sizes] if pairs else sizes

    def one(b: int) -> Outputs:
        rng = np.random.default_rng(np.random.SeedSequence(seeds.entropy, spawn_key=(*seeds.spawn_key, b)))
        size = sizes[b] // 2 if pairs else sizes[b]
        u = rng.standard_normal((size, rank), dtype=np.float32)
        a = rng.standard_normal(first.shape(size), dtype=np.float32)
        v = rng.standard_normal((size, n_still), dtype=np.float32)
        if pairs:
            u, a, v = np.concatenate([u, u]), np.concatenate([a, -a]), np.concatenate([v, v])
        fresh = None if second is None else rng.standard_normal(second.shape(len(u)), dtype=np.float32)
        return outputs_in_field(problem.act, stages, g.moving, g.still, u, a, v, fresh)

    totals: Outputs | None = None
    for start in range(0, count, 16):  # sums of a few blocks at a time: memory stays small
        for part in threads.map(one, range(start, min(start + 16, count))):
            if totals is None:
                totals = part
            else:
                totals = [(f + g, c + d) for (f, c), (g, d) in zip(totals, part, strict=True)]
    assert totals is not None
    scales = [sum(sizes) * frozen.stage.gamma for frozen in stages]
    return [(fine / n, coarse / n) for (fine, coarse), n in zip(totals, scales, strict=True)]


def deviation(
    problem: Problem,
    stages: Sequence[FrozenStage],
    population: Population,
    redrawn: Floats | None,
    large: Outputs,
    dtype: str,
) -> tuple[list[Callable[[float], Floats]], float]:
    """Return tau(t) (n_point,) or (n_point, K) per stage, and the largest |tau| on any point and node."""
    g = problem.geometry
    small = outputs_in_field(
        problem.act,
        stages,
        g.moving,
        g.still,
        population.hidden.astype(dtype),
        population.readout.astype(dtype),
        population.still.astype(dtype),
        None if redrawn is None else redrawn.astype(dtype),
        np.full(population.size, 1 / population.size, dtype) if population.weights is None else population.weights,
    )
    out: list[Callable[[float], Floats]] = []
    worst = 0.0
    for frozen, f_large, f_small in zip(stages, large, small, strict=True):
        fine, coarse = (big - little / frozen.stage.gamma for big, little in zip(f_large, f_small, strict=True))
        # A field too coarse in time gives infinities here; the caller sees them in `worst`.
        finite = np.all(np.isfinite(fine)) and np.all(np.isfinite(coarse))
        worst = max(worst, float(np.max(np.abs(fine))), float(np.max(np.abs(coarse)))) if finite else np.inf
        out.append(_Tau(frozen, fine, coarse) if finite and len(fine) > 1 else _constant(coarse[0]))
    return out, worst


class _Tau:
    """tau(t) at all points: the active ones from all nodes, the others from every stride-th."""

    def __init__(self, frozen: FrozenStage, fine: Floats, coarse: Floats) -> None:
        self.rows = frozen.stage.rows
        self.active = CubicSpline(frozen.nodes, fine)
        self.everywhere = CubicSpline(frozen.nodes[:: frozen.stride], coarse)

    def __call__(self, t: float) -> Floats:
        out = self.everywhere(t)
        out[self.rows] = self.active(t)
        return out
