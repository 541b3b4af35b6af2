"""The record that every Bayesian solver returns, and the checks of its arguments (docs/bayes.md, Section 2).

Conventions of all solvers: f(x) = (γN)⁻¹ Σᵢ aᵢ φ(wᵢ·x/√D) with N(0, 1) priors, likelihood exp(−½βγ²N Σ(y − f)²),
target prior w ~ N(αw̄, I/(1+δ)) with α = δ/(1+δ). The points of a problem are the rows of one array x (n, D),
ordered [source train, target train, test]; a stage trains on `rows` of it, and the two stages may share rows.
Free energies and gaps are in nats per hidden neuron.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tlcli.arrays import Floats, Indices
from tlcli.errors import DomainError

CONVERGED = "converged"
NOT_CONVERGED = "not_converged"
LARGEST_RESIDUAL = 1e-9  # accepted of an exact solution, relative, computed from the inputs
LARGEST_GAP = 1e-9  # accepted of it, relative to 1 + free energy
LARGEST_SPREAD_V, LARGEST_SPREAD_KERNEL = (
    0.01,
    0.03,
)  # between the two starts of sampling, unless its gap is small


@dataclass(frozen=True, eq=False)
class Saddle:
    """The saddle point of one stage.

    Attributes:
        v: dual variable on the training points of the stage, (P,): v = (Φ + I/β)⁻¹y.
        outputs: predictor f = K(·, train)v at all points, y - v/β at training points, (n,), in units of the labels.
        kernel: Φ = E φ(h)φ(h)ᵀ between all points under the posterior of the stage, (n, n).
        free_energy: maximum of the dual, nats per neuron.
        gap: certified gap between primal and dual, nats per neuron.
        gap_floor: noise floor of the gap; 0 for deterministic routes.
        status: "converged" or "not_converged".
        message: empty, or one sentence with a remedy.
        info: diagnostics that JSON can hold: `residual`, |y - v/β - Kv|/|y|, and others (iterations, q, u, ...).
    """

    v: Floats
    outputs: Floats
    kernel: Floats
    free_energy: float
    gap: float
    gap_floor: float
    status: str
    message: str = ""
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def converged(self) -> bool:
        """Whether the saddle point is certified."""
        return self.status == CONVERGED


def mean_weight(delta: ArrayLike) -> Floats:
    """α = δ/(1+δ), the weight of the source in the prior mean of the target; 1 at δ = ∞; same shape as `delta`."""
    # 1 − 1/(1+δ), without cancellation at small δ and without ∞/∞.
    return np.asarray(-np.expm1(-np.log1p(np.asarray(delta, dtype=float))))


def check_gamma(gamma: ArrayLike, name: str = "gamma") -> None:
    """Refuse a richness, or a squared length, that is negative or above 1e100 (scalar or array).

    Raises:
        DomainError: it is, or it is NaN; the message shows the first bad value.
    """
    _refuse(gamma, lambda g: (g >= 0) & (g <= 1e100), name, "use a number from 0 to 1e100")


def check_beta(beta: ArrayLike, name: str = "beta") -> None:
    """Refuse an inverse temperature that is not positive (scalar or array); inf is the noiseless limit.

    Raises:
        DomainError: it is zero, negative or NaN.
    """
    _refuse(beta, lambda b: b > 0, name, "use a number > 0, or inf for labels without noise")


def check_delta(delta: ArrayLike) -> None:
    """Refuse an elastic coupling that is negative (scalar or array); 0 decouples, inf ties the weights.

    Raises:
        DomainError: it is negative or NaN.
    """
    _refuse(delta, lambda d: d >= 0, "delta", "use a number >= 0, or inf to tie the target's weights to the source's")


def check_problem(x: ArrayLike, rows: ArrayLike, labels: ArrayLike) -> tuple[Floats, Indices, Floats]:
    """Return (x (n, D), rows (P,), labels (P,)) as arrays of floats, integers and floats.

    `rows` may be indices, negative ones too, or a mask (n,). A row may be repeated: it then counts as two observations.

    Raises:
        DomainError: a shape does not fit, a row does not exist, or a value is not finite.
    """
    points, at, y = np.asarray(x, dtype=float), np.asarray(rows), np.asarray(labels, dtype=float)
    if points.ndim != 2 or points.shape[1] == 0:
        raise DomainError(f"inputs of shape {points.shape}: one row per point and one column per dimension are needed.")
    if at.dtype == bool:
        if at.shape != (len(points),):
            raise DomainError(f"a mask of shape {at.shape} for {len(points)} points: it needs one entry per point.")
        at = np.flatnonzero(at)
    if at.ndim != 1 or at.size == 0 or not np.issubdtype(at.dtype, np.integer):
        raise DomainError(f"rows of shape {at.shape} and type {at.dtype}: give the indices of one or more points.")
    bad = at[(at < -len(points)) | (at >= len(points))]
    if bad.size:
        raise DomainError(f"row {bad[0]} is not one of the {len(points)} points: use 0 to {len(points) - 1}.")
    if y.shape != at.shape:
        raise DomainError(f"labels of shape {y.shape} for {at.size} training points: give one label per point.")
    _refuse(points, np.isfinite, "inputs", "use finite numbers")
    _refuse(y, np.isfinite, "labels", "use finite numbers")
    return points, at.astype(np.intp) % len(points), y


def check_same_points(source: Saddle | None, points: Floats) -> None:
    """Refuse a source (None: there is none) of other points (n, D) than the target's. Raises DomainError."""
    if source is not None and len(source.outputs) != len(points):
        raise DomainError(f"source has {len(source.outputs)} points, the target {len(points)}: use the same inputs.")


def verdict_of(fine: bool, residual: float, gap: float, source: Saddle | None, advice: str) -> tuple[str, str]:
    """Return (status, message) of an exact solution, and so of one on the `source`, from whether it is `fine`."""
    if not fine:
        return NOT_CONVERGED, f"relative residual {residual:.2g} and gap {gap:.2g} are above round-off: {advice}"
    if source is not None and not source.converged:
        return NOT_CONVERGED, "the source is not solved, so neither is its target: repair the source first."
    return CONVERGED, ""


def check_consistent(gram: Floats, labels: Floats) -> None:
    """Refuse labels that a kernel cannot fit, needed at β = ∞ only.

    Args:
        gram: kernel between the training points, (P, P), symmetric and positive semidefinite.
        labels: (P,).

    Raises:
        DomainError: the labels are outside; the message shows the share.
    """
    λ, basis = np.linalg.eigh(gram)
    outside = basis[:, λ <= rank_cutoff(λ)].T @ labels
    refuse_outside(float(np.linalg.norm(outside)), float(np.linalg.norm(labels)))


def stationary(outputs: Floats, rows: Indices, labels: Floats, v: Floats, beta: float) -> tuple[Floats, float]:
    """Return the predictor (n,) with f = y - v/β on the training `rows`, and |y - v/β - f|/|y| of the one given.

    The two are the same at the saddle point. Of a v that is a little off, Kv carries the whole residual, beside a y - f
    of v/β that may be much smaller; y - v/β carries its error over β, and the train loss is |v|²/(Pβ²) to all digits.
    """
    fitted, scale = labels - v / beta, float(np.linalg.norm(labels))
    residual = float(np.linalg.norm(fitted - outputs[rows])) / scale if scale else 0.0
    predicted = outputs.copy()
    predicted[rows] = fitted
    return predicted, residual


def label_unit(labels: Floats) -> float:
    """Return the power of two nearest to the root mean square of the labels, 1 if they are all zero.

    Labels y/c at richness cγ are those of y at γ. A solver that works in this unit makes no choice that sees γ alone,
    and the powers of two keep every digit.
    """
    size = float(np.sqrt(np.mean(labels**2)))
    return float(2.0 ** np.round(np.log2(size))) if size > 0 else 1.0


def rank_cutoff(eigenvalues: Floats) -> float:
    """Eigenvalues (P,) of a Gram matrix up to this value are round-off: max(P, 10)·eps times the largest."""
    return max(10, len(eigenvalues)) * np.finfo(float).eps * max(float(np.max(eigenvalues, initial=0.0)), 0.0)


def refuse_outside(outside: float, norm: float) -> None:
    """Refuse labels of length `norm` whose part `outside` the range of the kernel is not negligible, at β = ∞.

    Raises:
        DomainError: outside > 1e-8·norm.
    """
    if outside > 1e-8 * norm:
        raise DomainError(
            f"beta = inf needs labels that the kernel can fit, but {outside / norm:.3g} of their norm lies outside its "
            "range: use a finite beta, fewer training points than dimensions, or labels of a teacher without noise."
        )


def _refuse(values: ArrayLike, allowed: Any, name: str, advice: str) -> None:
    """Raise `DomainError` with the first value for which `allowed` is false."""
    array = np.asarray(values, dtype=float)
    with np.errstate(invalid="ignore"):
        bad = array[~np.asarray(allowed(array), dtype=bool)]
    if bad.size:
        raise DomainError(f"{name} = {bad.flat[0]:.6g} is outside its range: {advice}.")
