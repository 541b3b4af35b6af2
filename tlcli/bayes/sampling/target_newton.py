"""Newton's method on a pool's dual from which the atoms of a condensed source subtract Σ m_k M_k(v), `target_condense`.

The dual is concave, but M_k has kinks where maximisers tie, and maximisers that nobody knows before they are the
largest. Every step maximises a model with all that are known. Where the dual does not rise as the model says, the
tangents found on the way join the model and the step is made again from the same v: a bundle method.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tlcli.arrays import Floats
from tlcli.bayes.sampling.dual import Solved, moments, value_at
from tlcli.bayes.sampling.fits import SampledFit
from tlcli.bayes.sampling.pool import Pool
from tlcli.bayes.sampling.target_condense import Cut, Dragged, NewtonStep, Pieces, Split
from tlcli.bayes.sampling.tilt import Tilt

_SHORTEST = 1e-3  # of a step
_TRIED = 3  # lengths of one step before its model is made again
_NULL = 12  # models from one v before the search is given up
_RISE = 1e-7  # of the dual's size: single-precision features know no smaller one


def dragged_newton(
    tilt: Tilt,
    pool: Pool,
    start: Floats,
    fit: SampledFit,
    gamma: float,
    groups: int,
    dragged: Dragged,
    *,
    guard: float = 0.3,
    steps: int = 30,
) -> tuple[Solved, Split]:
    """Maximise the pool's dual less Σ m_k M_k from `start` (P,); return it as `dual.newton` does, and the split masses.

    `Solved.decrement` is the rise that the last model promised, nats: the dual is at most of that order below its
    maximum. Steps are cut where the pool has less than `guard` of its effective states.
    """

    def bulk(v: Floats) -> tuple[float, float]:
        return value_at(tilt, pool, v, fit, gamma, groups) if dragged.inside(v) else (-np.inf, -np.inf)

    def model(cuts: Cut | None) -> NewtonStep:
        gradient = fit.outputs(v) - found.kernel @ v
        curvature = np.diag(fit.bend(v)) + found.kernel + gamma**2 * found.spread

        def solve(gradient: Floats, curvature: Floats) -> tuple[Floats, NewtonStep]:
            one = dragged.step(pieces, v, gradient, curvature, cuts)
            return one.step, one

        step, found_step, excess = fit.within(v, gradient, curvature, solve)
        return NewtonStep(step, found_step.mass, found_step.rise - gamma**2 * excess)

    v, found, pieces = start, moments(tilt, pool, start, gamma, groups), dragged.pieces(start)
    value = bulk(v)[0] - dragged.value(pieces)
    floor = float(np.log(found.ess).mean()) + np.log(guard)
    guarded, made, null = False, model(None), 0
    cuts: Cut | None = None
    for _ in range(steps):
        if made.rise < _RISE * (gamma**2 + abs(value)):  # smaller than what the dual can tell: taken whole
            if bulk(fit.moved(v, made.step))[1] > floor:
                v = fit.moved(v, made.step)
                found, pieces = moments(tilt, pool, v, gamma, groups), dragged.pieces(v, [pieces])
            break
        if guarded or null > _NULL:
            break
        at, cuts = _along(bulk, fit, dragged, v, value, pieces, made, floor, cuts)
        if at.size:
            v, value, null, cuts, guarded = fit.moved(v, at.size * made.step), at.value, 0, None, at.short
            found, pieces = moments(tilt, pool, v, gamma, groups), at.pieces
        else:
            null += 1
            pieces = dragged.pieces(v, [pieces, at.pieces])
            value = min(value, bulk(v)[0] - dragged.value(pieces))
        made = model(cuts)
    mass = model(None).mass
    return Solved(v, found, value, made.rise, guarded, np.zeros(0)), dragged.split(pieces, mass)


class _Point(NamedTuple):
    """Where the search along a step ended: the part of it that was taken, 0 if none, the dual and the maximisers there,
    and whether the pool's ESS has shortened it."""

    size: float
    value: float
    pieces: Pieces
    short: bool


def _along(
    bulk: Callable[[Floats], tuple[float, float]],
    fit: SampledFit,
    dragged: Dragged,
    v: Floats,
    value: float,
    pieces: Pieces,
    made: NewtonStep,
    floor: float,
    cuts: Cut | None,
) -> tuple[_Point, Cut | None]:
    """Halve a step until the dual rises; return where, and `cuts` with the tangents found where it does not."""
    size, tried, short, near = 1.0, 0, False, pieces
    while tried < _TRIED and size > _SHORTEST:
        trial = fit.moved(v, size * made.step)
        now, ess = bulk(trial)
        if ess > floor:
            least = value + 1e-4 * size * made.rise
            near = dragged.pieces(trial, [pieces], search=False)
            if now - dragged.value(near) > least:
                near = dragged.pieces(trial, [near])
            if now - dragged.value(near) > least:
                return _Point(size, now - dragged.value(near), near, short), cuts
            cuts = Cut.of(near, trial, dragged.gamma).joined(cuts)
            tried += 1
        short |= -np.inf < ess <= floor
        size *= 0.5
    return _Point(0.0, value, near, short), cuts
