"""The saddle point of a classifying readout on k I + spikes, for a whole list of points at once (Eq. 3–4).

Unknowns are x = (log αV, log m, log S), all of them logarithms of positive numbers. One map T: kernel sums of the
channel's answer; x = T(x) is solved by Newton's method with Broyden updates, from the solution of the square loss.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np

from tlcli.arrays import Flags, Floats, Indices
from tlcli.linear.classify.channels import Channel, ClassifierState, Response, signal_of
from tlcli.linear.finetuning import effective_ridge

Map = Callable[[Floats, Indices], Floats]

TOLERANCE = 1e-10  # of the undamped residual max|T(x) − x|, in logarithms
CHUNK = 2000  # points at once: temporaries stay in cache
_STEP = 1e-7  # of the forward differences
_LONGEST = 1.5  # of a Newton step
_LEAST_S = 1e-300
_WARM = 4  # damped steps of the map before Newton's
_PATIENCE = 15  # steps before a point is followed from a large ridge
_START_RIDGE = 1e-3
_LEAST_RIDGE = 1e-9
_STAGES = 25
_COARSE, _LOOSE = 1e-6, 1e-2  # residuals of what is only a start


@dataclass(frozen=True)
class ClassifierProblem:
    """Points (n,): α, λ, the kernel's bulk k and its eigenvalues s_j = k + c_j (n, spikes), c and flips.

    `weights` (n, 1 + spikes) are the squared overlaps of the teacher: of the rest, then r_j².
    """

    alpha: Floats
    ridge: Floats
    bulk: Floats
    values: Floats
    weights: Floats
    c: Floats
    flips: Floats

    @property
    def size(self) -> int:
        """Number of points."""
        return len(self.alpha)

    def take(self, at: Indices | Flags) -> "ClassifierProblem":
        """Return some of the points."""
        return ClassifierProblem(*(getattr(self, f.name)[at] for f in fields(self)))

    @property
    def eigenvalues(self) -> Floats:
        """All eigenvalues (n, 1 + spikes), the bulk's first."""
        return np.concatenate([self.bulk[:, None], self.values], axis=1)

    def state(self, x: Floats) -> ClassifierState:
        """Return the scalars of x (n, 3)."""
        V, m, S = np.exp(np.clip(x, -690, 690)).T
        with np.errstate(over="ignore"):  # V beyond floats is inf
            return ClassifierState(V / self.alpha, m, S, self.c, self.flips)


@dataclass(frozen=True)
class ClassifierSaddle:
    """A solution: x (n, 3), its residual with the finest integrals, and the evaluations of T."""

    x: Floats
    residual: Floats
    evaluations: Floats

    @property
    def solved(self) -> Flags:
        """Where the equations hold to the tolerance."""
        return self.residual <= TOLERANCE


class Sums(NamedTuple):
    """α G(k), and mean and variance over the teacher's directions of α G, G(x) = x/(V̂x + αλ)."""

    bulk: Floats
    mean: Floats
    variance: Floats


def sums(problem: ClassifierProblem, v: Floats, pull: Floats) -> Sums:
    """Return the kernel sums at v̂ (n,); `pull` is λ, or 1/α for the hard margin (αλ → 1)."""
    with np.errstate(divide="ignore"):
        g = 1 / (v[:, None] + pull[:, None] / problem.eigenvalues)
    mean = np.sum(problem.weights * g, axis=1)
    return Sums(g[:, 0], mean, np.sum(problem.weights * (g - mean[:, None]) ** 2, axis=1))


def pull_of(channel: Channel, problem: ClassifierProblem) -> Floats:
    """Return what the kernel sums have as λ."""
    return 1 / problem.alpha if channel.name == "margin" else problem.ridge


@np.errstate(over="ignore", divide="ignore", invalid="ignore")  # of a wild trial: a nan is an infinite residual
def step(channel: Channel, problem: ClassifierProblem, x: Floats, count: int) -> tuple[Floats, Response]:
    """Return T(x) (n, 3) and the channel's answer."""
    answer = channel.response(problem.state(x), count)
    g = sums(problem, answer.v, pull_of(channel, problem))
    m = answer.m * g.mean
    S = answer.m**2 * g.variance + answer.q * g.bulk**2 / problem.alpha
    return np.log(np.maximum(np.stack([g.bulk, m, S], axis=1), _LEAST_S)), answer


def square_start(problem: ClassifierProblem, ridge: Floats) -> Floats:
    """Return x of the square loss, a closed form: κ₂ of the ridge regression on the labels (n, 3)."""
    kappa, shrinkage, _ = effective_ridge(problem.alpha, problem.bulk, ridge)
    g0 = signal_of(problem.c, problem.flips)
    with np.errstate(all="ignore"):
        g = 1 / (1 + kappa[:, None] / problem.eigenvalues)  # v̂ α G
    mean = np.sum(problem.weights * g, axis=1)
    variance = np.sum(problem.weights * (g - mean[:, None]) ** 2, axis=1)
    m, d = g0 * mean, g[:, 0] ** 2 / problem.alpha
    with np.errstate(all="ignore"):
        S = (g0**2 * variance + d * (1 - 2 * g0 * m + m**2)) / (1 - d)
        return np.log(np.maximum(np.stack([g[:, 0] / shrinkage, m, S], axis=1), _LEAST_S))


class Found(NamedTuple):
    """Points x (n, 3), residuals and evaluations (n,), and Jacobians of T(x) − x to go on with."""

    x: Floats
    norm: Floats
    calls: Floats
    jacobian: Floats


def solve_map(
    evaluate: Map, x: Floats, tolerance: float = TOLERANCE, most: int = 40, jacobian: Floats | None = None
) -> Found:
    """Solve x = T(x) for many points at once: Newton with Broyden updates.

    `evaluate(x, rows)` gives T for the rows asked for. A Jacobian is computed anew where a step has not reduced the
    residual tenfold; where no step along Newton's direction helps, the map itself is followed half-way.
    """
    x = x.copy()
    n = len(x)
    F = _defect(evaluate, x, np.arange(n))
    calls = np.ones(n)
    J = np.zeros((n, 3, 3)) if jacobian is None else jacobian.copy()
    stale = np.full(n, jacobian is None)
    norm = _norm(F)
    for _ in range(most):
        live = np.flatnonzero(norm > tolerance)
        if live.size == 0:
            break
        fresh = live[stale[live]]
        if fresh.size:
            J[fresh] = _jacobian(evaluate, x, F, fresh)
            calls[fresh] += 3
            stale[fresh] = False
        was = norm[live].copy()
        full, calls_here = _advance(evaluate, x, F, J, norm, live)
        calls[live] += calls_here
        stale[live] = ~full | (norm[live] > 0.1 * was)
    return Found(x, norm, calls, J)


def _defect(evaluate: Map, x: Floats, rows: Indices) -> Floats:
    value = evaluate(x, rows)
    with np.errstate(invalid="ignore"):  # of a start beyond floats
        return value - x


def _norm(F: Floats) -> Floats:
    return np.nan_to_num(np.max(np.abs(F), axis=1), nan=np.inf, posinf=np.inf)


def _jacobian(evaluate: Map, x: Floats, F: Floats, rows: Indices) -> Floats:
    out = np.empty((rows.size, 3, 3))
    for i in range(3):
        moved = x[rows].copy()
        moved[:, i] += _STEP
        with np.errstate(invalid="ignore"):  # where the map is beyond floats: no Newton step from there
            out[:, :, i] = (_defect(evaluate, moved, rows) - F[rows]) / _STEP
    return out


def _advance(evaluate: Map, x: Floats, F: Floats, J: Floats, norm: Floats, live: Indices) -> tuple[Flags, Floats]:
    """Make one step in place; return which went the full length, and the evaluations."""
    matrix = J[live] + 1e-14 * np.eye(3)
    good = np.isfinite(matrix).all(axis=(1, 2)) & (np.abs(np.linalg.det(np.nan_to_num(matrix))) > 1e-250)
    matrix[~good] = -np.eye(3)
    direction = np.nan_to_num(-np.linalg.solve(matrix, F[live][..., None])[..., 0])
    longest = np.max(np.abs(direction), axis=1)
    direction *= np.minimum(1.0, _LONGEST / np.maximum(longest, 1e-300))[:, None]
    full = np.zeros(live.size, dtype=bool)
    calls = np.zeros(live.size)
    left = np.arange(live.size)
    for size in (1.0, 0.5, 0.2, 0.05, None):
        rows = live[left]
        step = direction[left] * size if size is not None else np.clip(0.5 * F[rows], -_LONGEST, _LONGEST)
        tried = x[rows] + step
        value = _defect(evaluate, tried, rows)
        found = _norm(value)
        calls[left] += 1
        better = (found < norm[rows]) if size is not None else np.isfinite(found)
        took = rows[better]
        change = value[better] - F[took]
        s = step[better]
        with np.errstate(all="ignore"):
            J[took] += (change - np.einsum("nij,nj->ni", J[took], s))[:, :, None] * (
                s / np.sum(s * s, axis=1, keepdims=True)
            )[:, None, :]
        x[took], F[took], norm[took] = tried[better], value[better], found[better]
        if size == 1.0:
            full[left[better]] = True
        left = left[~better]
        if left.size == 0:
            break
    return full, calls


def map_of(channel: Channel, problem: ClassifierProblem, count: int) -> Map:
    """Return T of some of the points."""
    return lambda x, rows: step(channel, problem.take(rows), x, count)[0]


def solve(channel: Channel, problem: ClassifierProblem) -> ClassifierSaddle:
    """Solve a loss with a ridge λ > 0 (λ = 0 above the threshold of separability) at every point.

    The number of nodes of logistic integrals grows until the residual with twice as many is below the tolerance too:
    that is the residual which is returned.
    """
    parts = [
        _solve(channel, problem.take(np.arange(i, min(i + CHUNK, problem.size)))) for i in range(0, problem.size, CHUNK)
    ]
    return ClassifierSaddle(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(ClassifierSaddle)))


def _solve(channel: Channel, problem: ClassifierProblem) -> ClassifierSaddle:
    coarse, *finer = channel.ladder
    tolerance = _COARSE if finer else TOLERANCE
    evaluate = map_of(channel, problem, coarse)
    x, every = square_start(problem, np.maximum(problem.ridge, _START_RIDGE)), np.arange(problem.size)
    for _ in range(_WARM):
        with np.errstate(invalid="ignore"):  # of a start beyond floats
            x += 0.7 * _defect(evaluate, x, every)
    found = solve_map(evaluate, x, tolerance, _PATIENCE)
    lost = np.flatnonzero(found.norm > tolerance)
    found.calls[:] += _WARM
    if lost.size:
        again = _continue(channel, problem.take(lost), tolerance, finer[1] if finer else coarse)
        for all_, part in zip(found, again, strict=True):
            all_[lost] = part
    if finer:
        _refine(channel, problem, found, finer)
    return ClassifierSaddle(found.x, found.norm, found.calls)


def _refine(channel: Channel, problem: ClassifierProblem, found: Found, counts: Sequence[int]) -> None:
    """Solve with more and more nodes, in place: a point is done where twice as many confirm its residual."""
    rows = np.arange(problem.size)
    for count, twice in itertools.pairwise(counts):
        some = problem.take(rows)
        better = solve_map(map_of(channel, some, count), found.x[rows], TOLERANCE, 20, found.jacobian[rows])
        T = step(channel, some, better.x, twice)[0]
        found.x[rows], found.jacobian[rows], found.norm[rows] = better.x, better.jacobian, _norm(T - better.x)
        found.calls[rows] += better.calls + 1
        rows = rows[found.norm[rows] > TOLERANCE]
        if rows.size == 0:
            return


def _continue(channel: Channel, problem: ClassifierProblem, tolerance: float, count: int) -> Found:
    """Follow the solution from λ = 1 to a small ridge, with the last two as prediction."""
    last = np.maximum(problem.ridge, _LEAST_RIDGE)
    first = np.maximum(1.0, last)
    x, before = square_start(problem, first), None
    for share in np.linspace(0, 1, _STAGES):
        here = replace(problem, ridge=first * (last / first) ** share)
        with np.errstate(invalid="ignore"):  # as above
            guess = x if before is None else x + (x - before)
        found = solve_map(map_of(channel, here, count), guess, _LOOSE, _PATIENCE)
        x, before = found.x, (x if share > 0 else None)
    return solve_map(map_of(channel, problem, count), x, tolerance)
