"""What a Bayesian grid will cost, told without solving it: seconds and bytes, from the sizes of its stages.

A source belongs to all targets that share it, and a target alone to all sources, so the cost is that of different
stages. The constants are measured (docs/benchmarks.md, two cores); an estimate holds to a factor of two or three.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tlcli.bayes.bayes_transfer import route_of
from tlcli.bayes.observables import BayesProblem
from tlcli.dmft.activations import activation
from tlcli.sweep.drawn import Drawn
from tlcli.sweep.runner import Task
from tlcli.theories.network.points import data_of

_NETWORKS = ("gamma0", "gamma2", "beta", "beta2", "delta", "moves", "predictions", "keep")
# Seconds per cubed point of a linear transfer: 3.6 s for source and target of 2000 points each and 500 others.
_LINEAR = 4e-11
_LINEAR_LEAST = 0.004  # of a stage, however few its points: 7 ms to 9 ms for both of 525 points
# Seconds of a stage by quadrature, from a weak tilt to one that needs the finest rule; with kinks or without bound.
# There the first is that of gamma^2 beta up to _TILTED and grows in proportion from there on (relu, 14 points in two
# dimensions, any loss: 2.7 s up to 20, 11 s at 200).
_SMOOTH, _ROUGH, _TILTED = (0.15, 8.0), (2.7, 60.0), 50.0
# Bytes of a process at its peak, measured: the program, per squared point of all kernels, and of a quadrature as above
# (its rules) and per point. 33 to 2500 points; D = 2 by quadrature.
_PROCESS, _PER_PAIR = 135e6, 44.0
_SMOOTH_RULE, _ROUGH_RULE, _PER_POINT = 70e6, 350e6, 1.5e5
# Seconds of a move of both starts of a source: so much, and so much per point and dimension. 38 s for 100 points in 40
# dimensions and 1500 moves.
_MOVE, _MOVE_MORE = 0.012, 3e-6
_CHAINS, _KEPT = 1024, 5  # every fifth state is kept
_SOURCE_MOST, _TARGET_MOST = 8.0, 16.0  # what all doublings of a pool make of its first cost


@dataclass(frozen=True)
class Cost:
    """Seconds on one worker and bytes of the largest point, where every stage is certified at once and at most.

    `stages` counts sources, targets alone, and targets tied to a source.
    """

    seconds: float
    most: float
    size: float
    size_most: float
    route: str
    stages: tuple[int, int, int]


def cost_of(tasks: Sequence[Task]) -> Cost:
    """Return the cost of the points (at least one) of `tlcli.theories.bayes.points.tasks_of`."""
    if isinstance(tasks, Drawn):  # every draw has stages of its own
        one, count = cost_of(tasks.first), tasks.draws
        first, alone, tied = one.stages
        stages = (count * first, count * alone, count * tied)
        return replace(one, seconds=count * one.seconds, most=count * one.most, stages=stages)
    shapes: dict[Any, _Shape] = {}
    found: tuple[dict[Any, tuple[float, float]], ...] = ({}, {}, {})
    size, size_most = 0.0, 0.0
    for task in tasks:
        p = task.parameters
        data = tuple(sorted((name, str(p[name])) for name in p if name not in (*_NETWORKS, "draw")))
        shape = shapes.get(data) or shapes.setdefault(data, _Shape.of(p))
        where, moves = (data, p["draw"]), p.get("moves")
        first, alone = (p["gamma0"], p["beta"]), (p["gamma2"], p["beta2"])
        found[0][(where, first)] = shape.stage(shape.p1, moves, *first)
        found[1][(where, alone)] = shape.stage(shape.p2, moves, *alone)
        if 0 < p["delta"] < math.inf:
            found[2][(where, first, alone, p["delta"])] = shape.tied(moves, *alone)
        least, most = shape.size(moves)
        size, size_most = max(size, least), max(size_most, most)
    every = [cost for kind in found for cost in kind.values()]
    routes = dict.fromkeys(shape.route for shape in shapes.values())
    counts = (len(found[0]), len(found[1]), len(found[2]))
    return Cost(sum(c[0] for c in every), sum(c[1] for c in every), size, size_most, " and ".join(routes), counts)


@dataclass(frozen=True)
class _Shape:
    """Numbers of points, dimension, route and whether φ is smooth and bounded."""

    p1: int
    p2: int
    test: int
    dim: int
    route: str
    easy: bool

    @classmethod
    def of(cls, p: Mapping[str, Any]) -> "_Shape":
        data: Any = data_of(p)
        act, problem = activation(p["activation"]), BayesProblem.of(data)
        counts = len(data.y_source), len(data.y_target), len(data.x_test)
        easy = act.smooth and not act.homogeneous
        return cls(*counts, data.x_target.shape[1], route_of(act, problem), easy)

    @property
    def points(self) -> int:
        return self.p1 + self.p2 + self.test

    def stage(self, count: int, moves: int | None, gamma: float = 1.0, beta: float = 50.0) -> tuple[float, float]:
        """Seconds of a source or target alone on `count` points: at least, and with every doubling."""
        if self.route == "linear":
            third = _LINEAR_LEAST + _LINEAR * self.points**3 / 3
            return third, third
        if self.route == "quadrature":
            least, most = _ROUGH
            return _SMOOTH if self.easy else (min(least * max(1.0, gamma**2 * beta / _TILTED), most), most)
        seconds = self._moves(count, moves) * self._per_move(count)
        return seconds, _SOURCE_MOST * seconds

    def tied(self, moves: int | None, gamma: float = 1.0, beta: float = 50.0) -> tuple[float, float]:
        """Seconds of a target tied to a source, as `stage`."""
        if self.route != "sampling":
            return self.stage(self.p2, moves, gamma, beta)
        # Of its 8 first rounds of a quarter each, half are doubled; then come the moves of a judged pool.
        count = 4.3 * (100 if moves is None else max(5, moves // 5))
        seconds = count * self._per_move(self.p2)
        return seconds, _TARGET_MOST * seconds

    def size(self, moves: int | None) -> tuple[float, float]:
        """Bytes of a process: itself, kernels of three stages between all points, and what the route needs besides."""
        whole = _PROCESS + _PER_PAIR * self.points**2
        if self.route == "linear":
            return whole, whole
        if self.route == "quadrature":
            whole = _PROCESS + (_SMOOTH_RULE if self.easy else _ROUGH_RULE) + _PER_POINT * self.points
            return whole, whole
        count = max(self.p1, self.p2)
        states = self._moves(count, moves) / _KEPT * _CHAINS
        pool = 2 * 4.0 * states * (min(count, self.dim) + 1)
        return whole + pool, whole + _SOURCE_MOST * pool

    def _moves(self, count: int, moves: int | None) -> int:
        return max(500, 15 * count) if moves is None else moves

    def _per_move(self, count: int) -> float:
        return _MOVE + _MOVE_MORE * count * min(count, self.dim)
