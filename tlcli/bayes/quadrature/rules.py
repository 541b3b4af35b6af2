"""Quadrature rules of one stage at increasing fineness, and the refusal of tilts that they cannot hold."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tlcli.arrays import Floats, Indices
from tlcli.bayes.likelihood import Likelihood
from tlcli.bayes.quadrature.condense import condensed
from tlcli.bayes.quadrature.fits import Fit, LossFit, SquareFit
from tlcli.bayes.quadrature.lattice import REACH, WIDEST, Box, SourceLattice, TargetLattice, TooLarge
from tlcli.bayes.quadrature.local import TargetLocal, curvature
from tlcli.bayes.quadrature.outside import all_points_kernel
from tlcli.bayes.quadrature.polar import SourcePolar, TargetPolar, unit_vectors
from tlcli.bayes.quadrature.tilt import direction_words, steepest_ray
from tlcli.bayes.saddle import mean_weight
from tlcli.dmft.activations import Activation
from tlcli.errors import DomainError

Measure = SourceLattice | TargetLattice | TargetLocal | SourcePolar | TargetPolar

# Gauss-Hermite nodes around each source neuron: where 1 + δ exceeds STIFF times the curvature of the log tilt, and
# NARROW times the squared slope of the features' arguments.
STIFF, NARROW = 3.0, 20.0
MOST_PAIRS = 4e7  # of a source neuron and a direction of the target: about ten seconds per Newton step
CRITICAL = 1.0 - (REACH / WIDEST) ** 2  # γ²s∞²/(1+δ) at which the density outgrows the widest lattice


@dataclass(frozen=True, eq=False)
class QuadratureStage:
    """One stage: directions B (P, r) of its training points in the basis (D, r), labels (P,), γ, 1/β and δ.

    `likelihood` is that of another loss than the squared error, whose labels are not those in `labels`. `b` (n, r) and
    `covariance` (n, n) are the two parts of all points (`split_points`), `at` the training rows.
    """

    act: Activation
    b: Floats
    covariance: Floats
    basis: Floats
    at: Indices
    labels: Floats
    gamma: float
    inverse_beta: float
    delta: float = 0.0
    likelihood: Likelihood | None = None

    @property
    def fit(self) -> Fit:
        """What is maximised on a measure."""
        if self.likelihood is not None:
            return LossFit(self.likelihood, self.gamma)
        return SquareFit(self.labels, self.gamma, self.inverse_beta)

    @property
    def readouts(self) -> int:
        """Number of columns of v."""
        return 1 if self.likelihood is None else self.likelihood.readouts

    @property
    def directions(self) -> Floats:
        """Training points, (P, r)."""
        return self.b[self.at]

    @property
    def polar(self) -> bool:
        """Whether the activation is homogeneous, so that polar coordinates integrate it."""
        return self.basis.shape[1] > 0 and self.act.homogeneous

    def sphere(self, order: int) -> tuple[Floats, Floats]:
        """Directions with the kinks of all points; fewer nodes on each arc where there are many arcs."""
        return unit_vectors(self.b, max(6, int(order * min(1.0, 20 / len(self.b)))))


# A rule: level -> (measure in a box for v, kernel between all points under the measure at v).
Rule = tuple[Callable[[Box, Floats], Measure], Callable[[Measure, Floats], Floats]]


def refuse_growth(stage: QuadratureStage) -> None:
    """Refuse activations whose tilt has no normalisation at any richness."""
    if stage.gamma > 0 and np.any(stage.labels) and not stage.act.lipschitz:
        u, _ = steepest_ray(stage.act, stage.directions, stage.labels)
        raise DomainError(
            f"gamma = {stage.gamma:.6g}: {stage.act.name} grows faster than linearly, so the posterior of the weights "
            f"along the input direction {direction_words(stage.basis, u)} is not normalisable; the largest gamma for "
            "which it is, is 0."
        )


def lattice_step(directions: Floats, level: int) -> float:
    """Spacing of a lattice that resolves φ(b·z) for all directions (P, r)."""
    return 0.3 / 1.4**level / max(1.0, float(np.linalg.norm(directions, axis=1).max(initial=0.0)))


def _kernel(stage: QuadratureStage, z: Floats, p: Floats, level: int) -> Floats:
    largest = float(np.diagonal(stage.covariance).max())
    if stage.act.smooth and not stage.polar:
        z, p = condensed(z, p, float(np.linalg.norm(stage.b, axis=1).max(initial=0.0)))
    order = 24 * (2 + level) if stage.polar else int(min(40 + 16 * level + 24 * largest, 160))
    return all_points_kernel(stage.act, stage.b, stage.covariance, z, p, order=order, kinked=stage.polar)


def _polar_kernel(stage: QuadratureStage, measure: SourcePolar | TargetPolar, v: Floats, level: int) -> Floats:
    if np.any(stage.covariance):
        return _kernel(stage, *measure.layered_nodes(v, 0.2 / 1.4**level), level)
    return _kernel(stage, *measure.quadratic_nodes(v), level)


def source_rule(stage: QuadratureStage, level: int) -> Rule:
    """Return the rule of a source at a level 0, 1, ... of fineness."""
    if stage.polar:
        measure = SourcePolar(stage.act, stage.directions, stage.gamma, stage.sphere(10 * 2**level))
        return lambda _box, _v: measure, lambda _m, v: _polar_kernel(stage, measure, v, level)
    step = lattice_step(stage.directions, level)
    return (
        lambda box, _v: SourceLattice(stage.act, stage.directions, stage.gamma, box, step),
        lambda m, v: _kernel(stage, m.z, m.probabilities(v), level),  # type: ignore[union-attr]
    )


def target_rule(stage: QuadratureStage, pre: QuadratureStage, level: int, source_level: int = 0) -> Rule:
    """Return the rule of a target; `pre` is its source, with v in the place of the labels.

    The source's lattice is at least as fine as `source_level`, on which its v was found: at another v the weights of
    its lobes differ by γ²s δs, which is large for large tilts.

    Raises:
        DomainError: the source's tilt is not normalisable.
        TooLarge: the source does not fit on a lattice.
    """
    boundary = np.concatenate([pre.directions, stage.directions])
    if stage.polar:
        # The angle of the source limits the accuracy: far neurons of the target switch lobes within a small angle of z̄.
        before = SourcePolar(stage.act, pre.directions, pre.gamma, unit_vectors(boundary, int(12 * 1.5**level)))
        refuse_source(before, pre)
        order = int(np.ceil((10 + 3 * level) * (1.0 + 0.1 * np.sqrt(stage.delta))))
        inner = before.nodes(pre.labels, 18 + 3 * level)
        args = (stage.act, stage.directions, stage.gamma, stage.delta, inner)
        measure = TargetPolar(*args, unit_vectors(boundary, order))
        if len(inner[1]) * len(measure.u) > MOST_PAIRS:
            raise TooLarge
        return (
            lambda _box, _v: measure,
            lambda _m, v: _polar_kernel(stage, TargetPolar(*args, stage.sphere(order)), v, level),
        )
    step = lattice_step(boundary, max(level, source_level))
    rank = stage.basis.shape[1]
    before = settled(pre, step, Box((-REACH,) * rank, (REACH,) * rank))
    p = before.probabilities(pre.labels)
    neurons = before.z[p > 1e-15 * p.max()], p[p > 1e-15 * p.max()] / p[p > 1e-15 * p.max()].sum()
    step, α = lattice_step(boundary, level), float(mean_weight(stage.delta))
    fine = min(step, 1.0 / 1.4**level / np.sqrt(1.0 + stage.delta))
    margin = REACH / np.sqrt(1.0 + stage.delta)
    steepest = float(np.linalg.norm(boundary, axis=1).max(initial=0.0))

    def build(box: Box, v: Floats) -> TargetLattice | TargetLocal:
        if stage.act.smooth and 1.0 + stage.delta > NARROW * max(steepest, 1.0) ** 2:
            near = v if np.any(v) else _frozen(stage, neurons)
            bent = curvature(stage.act, stage.directions, stage.gamma, α * neurons[0], near)[1]
            if 1.0 + stage.delta > STIFF * np.linalg.norm(bent, axis=(1, 2)).max():
                more = (stage.act, stage.directions, stage.gamma, stage.delta, neurons, near)
                return TargetLocal(*more, 5 + 2 * level)
        source = _trimmed(before.axes, p)
        # Every source neuron needs the bulk of its own prior inside the box.
        low = tuple(min(a, α * axis[0] - margin) for a, axis in zip(box.low, source[0], strict=True))
        high = tuple(max(a, α * axis[-1] + margin) for a, axis in zip(box.high, source[0], strict=True))
        box = Box(low, high)
        return TargetLattice(stage.act, stage.directions, stage.gamma, stage.delta, source, box, fine)

    return build, lambda m, v: _kernel(stage, m.z, m.probabilities(v), level)  # type: ignore[union-attr]


def _frozen(stage: QuadratureStage, neurons: tuple[Floats, Floats]) -> Floats:
    """v (P,) of the target at δ = ∞, where it keeps the source's neurons: z (S, r) with probabilities (S,)."""
    φ = np.asarray(stage.act.phi(neurons[0] @ stage.directions.T), dtype=float)
    held = stage if stage.inverse_beta else replace(stage, inverse_beta=1e-10)
    return held.fit.regress((φ * neurons[1][:, None]).T @ φ).v


def _trimmed(axes: list[Floats], p: Floats) -> tuple[list[Floats], Floats]:
    """Axes and probabilities of a source without the nodes below 1e-20 of the largest, nor the planes of them alone."""
    table = np.where(p < 1e-20 * p.max(), 0.0, p).reshape([len(a) for a in axes])
    kept = list(axes)
    for k in range(len(axes)):
        used = np.flatnonzero(table.max(axis=tuple(j for j in range(len(axes)) if j != k)))
        kept[k] = axes[k][used[0] : used[-1] + 1]
        table = np.take(table, np.arange(used[0], used[-1] + 1), axis=k)
    return kept, table / table.sum()


def settled(pre: QuadratureStage, step: float, box: Box) -> SourceLattice:
    """The measure of a source with known v (kept in `labels`) on a box outside which it has decayed."""
    while True:
        measure = SourceLattice(pre.act, pre.directions, pre.gamma, box, step)
        try:
            wider = measure.grown(pre.labels)
        except TooLarge:
            refuse_tilt(pre, pre.labels, None)
            raise
        if wider is None:
            return measure
        box = wider


def refuse_source(measure: SourcePolar, pre: QuadratureStage) -> None:
    """Refuse a source whose v (in `labels`) leaves the domain on a polar rule."""
    if measure.curvature(pre.labels).min() <= 0:
        refuse_tilt(pre, pre.labels, None)


def refuse_tilt(stage: QuadratureStage, v: Floats, largest: float | None) -> None:
    """Refuse a v (P,) at which the exponent of the tilt is not bounded, or so nearly that no lattice holds it."""
    u, steep = steepest_ray(stage.act, stage.directions, v)
    reached = stage.gamma**2 * steep / (1.0 + stage.delta)
    if reached < CRITICAL:
        return
    limit = "" if largest is None else f"; the largest gamma that is normalisable is about {largest:.3g}"
    raise DomainError(
        f"gamma = {stage.gamma:.6g}: the posterior of the weights along the input direction "
        f"{direction_words(stage.basis, u)} is not normalisable (gamma^2 s^2/(1 + delta) = {reached:.4g} reaches 1)"
        f"{limit}."
    )
