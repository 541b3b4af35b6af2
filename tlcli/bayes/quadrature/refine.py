"""Solution of one stage on finer and finer rules until two agree, and its record."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tlcli.arrays import Floats
from tlcli.bayes.quadrature.lattice import REACH, Box, TooLarge
from tlcli.bayes.quadrature.local import TargetLocal
from tlcli.bayes.quadrature.newton import Maximum
from tlcli.bayes.quadrature.polar import SourcePolar, TargetPolar
from tlcli.bayes.quadrature.rules import (
    CRITICAL,
    Measure,
    QuadratureStage,
    Rule,
    lattice_step,
    refuse_source,
    refuse_tilt,
    settled,
    source_rule,
)
from tlcli.bayes.quadrature.tilt import steepest_ray
from tlcli.bayes.saddle import CONVERGED, NOT_CONVERGED, Saddle
from tlcli.errors import ConvergenceError, DomainError

LEVELS = 7
# v adapts itself to a coarse rule, so that v and Φ can agree on two rules while the measures differ: the gap, which
# bounds the relative entropy of the two, must be below this share of the relative accuracy, in nats.
GAP_SHARE = 1e-3
# Polar rules of a target cost more by half at each level and gain a digit in two: from here they would take minutes.
HOPELESS = 300.0


class _Escaped(Exception):
    """The lattice grew beyond its limit; the v (P,) reached is kept."""

    def __init__(self, v: Floats):
        super().__init__()
        self.v = v


def refined(
    stage: QuadratureStage, rule_of: Callable[[QuadratureStage, int], Rule], box: Box, accuracy: float | None
) -> Saddle:
    """Solve on finer and finer rules until two agree.

    `rule_of` gives the rule of a stage at a level, `box` is where a lattice starts and `accuracy` the largest relative
    difference of v and Φ between two rules (None: 1e-8, or 1e-4 with a kink on a lattice).

    Raises:
        DomainError: the tilt is not normalisable.
        ConvergenceError: not even the coarsest rule fits in memory.
    """
    smooth = stage.act.smooth or stage.polar
    wanted = accuracy if accuracy is not None else (1e-8 if smooth else 1e-4)
    previous, difference, gap, floor, steps = 0, np.inf, np.inf, np.inf, 0
    found, kernel = None, None
    for level in range(LEVELS):
        try:
            rule = rule_of(stage, level)
            result, measure, box = _solved(stage, rule, box, found)
        except _Escaped as escaped:
            if level == 0:
                u_steep = stage.gamma**2 * steepest_ray(stage.act, stage.directions, escaped.v)[1] / (1.0 + stage.delta)
                refuse_tilt(stage, escaped.v, _largest_gamma(stage, rule_of, box) if u_steep >= CRITICAL else None)
            break
        except TooLarge:
            break
        table = rule[1](measure, result.v)
        steps += result.steps
        if found is not None and kernel is not None:
            moments = measure.moments(found.v)
            gap = np.inf if moments is None else stage.fit.gap(moments.kernel, found)
            floor = abs(result.value - found.value)
            difference = max(_relative(result.v, found.v), _relative(table, kernel))
        found, kernel, previous = result, table, level
        if _agree(difference, gap, wanted, result.value) or not _at_rest(result):
            break
        if isinstance(measure, TargetPolar) and level >= 2 and difference > HOPELESS * wanted:
            break
    if found is None or kernel is None:
        where = f"gamma = {stage.gamma:.6g}" + (f", delta = {stage.delta:.6g}" if stage.delta > 0 else "")
        raise ConvergenceError(f"quadrature at {where} needs more nodes than fit in memory: {_remedy(stage)}.")
    return _record(stage, found, kernel, (difference, wanted), (gap, floor), {"newton_steps": steps, "level": previous})


def tied(stage: QuadratureStage, pre: QuadratureStage, accuracy: float | None) -> Saddle:
    """δ = ∞: the hidden weights are the source's, v = (Φ̄ + I/β)⁻¹y and F = ½γ²y·v.

    `pre` is the source, with v in the place of the labels. Raises as `refined`.
    """
    smooth = stage.act.smooth or stage.polar
    wanted = accuracy if accuracy is not None else (1e-8 if smooth else 1e-4)
    rank = stage.basis.shape[1]
    box = Box((-REACH,) * rank, (REACH,) * rank)
    kernel, difference, found, floor, gap, level = None, np.inf, None, np.inf, np.inf, 0
    for level in range(LEVELS):
        build, table_of = source_rule(pre, level)
        try:
            measure = build(box, pre.labels)
            if isinstance(measure, SourcePolar):
                refuse_source(measure, pre)
            else:
                measure = settled(pre, lattice_step(np.concatenate([pre.directions, stage.directions]), level), box)
        except TooLarge:
            break
        table = table_of(measure, pre.labels)
        block = table[np.ix_(stage.at, stage.at)]
        fitted = stage.fit.regress(block)
        moments = measure.moments(pre.labels)
        if moments is None:
            raise DomainError("the source's v has a tilt that is not normalisable: solve the source first.")
        if found is not None and kernel is not None:
            difference = max(_relative(fitted.v, found.v), _relative(table, kernel))
            floor, gap = abs(fitted.value - found.value), stage.fit.gap(block, found)
        found, kernel = replace(fitted, moments=moments), table
        if _agree(difference, gap, wanted, fitted.value):
            break
    if found is None or kernel is None:
        raise ConvergenceError(
            f"quadrature at delta = inf, source gamma = {pre.gamma:.6g} needs more nodes than fit in memory: lower it."
        )
    return _record(stage, found, kernel, (difference, wanted), (gap, floor), {"newton_steps": 1, "level": level})


def _solved(stage: QuadratureStage, rule: Rule, box: Box, found: Maximum | None) -> tuple[Maximum, Measure, Box]:
    """Maximise the dual on one rule; a lattice grows until its density has decayed at the faces."""
    steps = 0
    while True:
        start = np.zeros(len(stage.labels)) if found is None else found.v
        measure = rule[0](box, start)
        if stage.inverse_beta == 0 and measure.moments(np.zeros_like(start)) is None:
            raise TooLarge
        found = stage.fit.solve(measure.moments, found)
        steps += found.steps
        found = replace(found, steps=steps)
        if isinstance(measure, SourcePolar | TargetPolar | TargetLocal):
            return found, measure, box
        try:
            wider = measure.grown(found.v)
        except TooLarge:
            raise _Escaped(found.v) from None
        if wider is None:
            return found, measure, box
        box = wider


def _largest_gamma(stage: QuadratureStage, rule_of: Callable[[QuadratureStage, int], Rule], box: Box) -> float:
    """Bisect for the largest γ whose saddle is normalisable, to 5 % of it (0 if it is below 1/64 of this γ)."""
    low, high = 0.0, stage.gamma
    while high - low > 0.05 * high and high > stage.gamma / 64:
        middle = 0.5 * (low + high)
        trial = replace(stage, gamma=middle)
        try:
            _solved(trial, rule_of(trial, 0), box, None)
            low = middle
        except (_Escaped, TooLarge):
            high = middle
    return low


def _record(
    stage: QuadratureStage,
    found: Maximum,
    kernel: Floats,
    difference: tuple[float, float],
    gaps: tuple[float, float],
    info: dict[str, int],
) -> Saddle:
    """Write the record; converged if two rules agree and the Newton decrement is round-off."""
    agree, at_rest = _agree(difference[0], gaps[0], difference[1], found.value), _at_rest(found)
    good = agree and at_rest
    if not at_rest:
        what = "the tilt spans more orders of magnitude than double precision holds"
    elif not np.isfinite(difference[0]):
        what = "a second, finer quadrature rule does not fit in memory"
    else:
        what = (
            f"two quadrature rules differ by {difference[0]:.1e} in v or the kernel and by {gaps[0]:.1e} nats (wanted "
            f"{difference[1]:.0e} and {GAP_SHARE * difference[1]:.0e})"
        )
    message = "" if good else f"{what}: {_remedy(stage)}."
    steep = steepest_ray(stage.act, stage.directions, found.v)[1] if stage.gamma > 0 else 0.0
    v, outputs, residual = stage.fit.predictor(kernel[:, stage.at] @ found.v, stage.at, found)
    return Saddle(
        v=v,
        outputs=outputs,
        kernel=kernel,
        free_energy=found.value,
        gap=gaps[0],
        gap_floor=gaps[1],
        status=CONVERGED if good else NOT_CONVERGED,
        message=message,
        info={
            **info,
            "rule_difference": difference[0] if np.isfinite(difference[0]) else None,
            "residual": residual,
            "decrement": found.decrement,
            "rank": stage.basis.shape[1],
            "tilt": stage.gamma**2 * steep / (1.0 + stage.delta) if np.isfinite(stage.delta) else 0.0,
        },
    )


def _agree(difference: float, gap: float, wanted: float, value: float) -> bool:
    """Whether two rules agree: v and Φ relatively, and the measures in relative entropy (but for round-off of D)."""
    return difference <= wanted and gap <= GAP_SHARE * wanted + 1e-13 * (1.0 + abs(value))


def _at_rest(found: Maximum) -> bool:
    """Whether the Newton decrement is round-off."""
    return found.decrement <= 1e-12 * (1.0 + abs(found.value))


def _remedy(stage: QuadratureStage) -> str:
    """What lowers the number of nodes: a smaller tilt or, at β = ∞, noise in the labels."""
    noise = ", or use a finite beta" if stage.inverse_beta == 0 else " or beta"
    if stage.delta == 0:
        return "lower gamma" + noise
    return "lower gamma or delta, or use a finite beta" if stage.inverse_beta == 0 else "lower gamma, beta or delta"


def _relative(new: Floats, old: Floats) -> float:
    scale = float(np.linalg.norm(new))
    return float(np.linalg.norm(new - old)) / scale if scale > 0 else float(np.linalg.norm(old))
