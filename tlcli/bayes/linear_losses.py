"""Linear networks with any loss and any number of outputs: source and elastically coupled target.

With V (P, K) in readout coordinates, Ct = C/(1+δ), α = δ/(1+δ), T = VᵀCtV, U = VᵀΦ̄V, Q = (I - γ²T)⁻¹ and
S = Q + α²γ²QUQ the measure of a neuron is Gaussian (docs/bayes.md, Section 2):

    log Z = -½ log det(I - γ²T) + ½γ²α² tr QU,      f = Φ(*, train)V = CtVS + α²Φ̄VQ,
    Φ(A, B) = Ct + γ²aQaᵀ + α²[Φ̄ + γ²(aQpᵀ + pQaᵀ) + γ⁴aQUQaᵀ],   a = Ct(*, train)V, p = Φ̄(*, train)V.

The source is α = 0, δ = 0. `tlcli.bayes.linear` is faster for the squared error of one output.
"""

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from tlcli.arrays import Floats, Indices
from tlcli.bayes.likelihood import DualMoments, Likelihood, Optimum, check_finite, kernel_moments, maximise
from tlcli.bayes.saddle import (
    LARGEST_GAP,
    LARGEST_RESIDUAL,
    Saddle,
    check_beta,
    check_delta,
    check_gamma,
    check_problem,
    check_same_points,
    mean_weight,
    verdict_of,
)
from tlcli.errors import DomainError
from tlcli.losses.objective import Objective

_LARGEST_LOG_Q = 40.0
LARGEST = 6000  # unknowns P·K of a dense Newton step


@dataclass(frozen=True, eq=False)
class _Measure:
    """The measure of one stage on its training points: Ct (P, P), Φ̄ (P, P) or None, γ², α²."""

    ct: Floats
    source: Floats | None
    g: float
    α2: float

    def order_parameters(self, v: Floats) -> tuple[Floats, Floats, Floats] | None:
        """Return T, Q and U (K, K) at v (P, K); None where the measure does not exist."""
        T = v.T @ self.ct @ v
        U = np.zeros_like(T) if self.source is None else v.T @ self.source @ v
        rest = np.eye(len(T)) - self.g * 0.5 * (T + T.T)
        if np.linalg.eigvalsh(rest)[0] <= 0:
            return None
        return T, np.asarray(np.linalg.inv(rest), dtype=float), U

    def moments(self, v: Floats) -> DualMoments | None:
        """Return the moments at v (P, K)."""
        found = self.order_parameters(v)
        if found is None:
            return None
        T, Q, U = found
        g, α2 = self.g, self.α2
        τ = np.maximum(np.linalg.eigvalsh(0.5 * (T + T.T)), 0.0)
        log_z = -0.5 * float(np.sum(np.log1p(-g * τ))) / g if g else 0.5 * float(τ.sum())
        S = Q + α2 * g * Q @ U @ Q
        a = self.ct @ v
        b, e = a @ Q, a @ S
        d = e - b
        slope = np.kron(self.ct + g * b @ a.T, S) + g * (_swap(b, e) + _swap(d, b))
        pull, inner = e, g * d @ a.T
        if self.source is not None:
            p = self.source @ v
            r = p @ Q
            log_z += 0.5 * α2 * float(np.sum(Q * U))
            pull = pull + α2 * r
            inner = inner + α2 * (self.source + g * (r @ a.T + b @ p.T))
            slope += g * α2 * (_swap(r, b) + _swap(b, r))
        if self.source is not None or np.any(inner):
            slope += np.kron(inner, Q)
        return DualMoments(log_z, pull, slope)


def _swap(one: Floats, other: Floats) -> Floats:
    """Return the matrix (PK, PK) of dV -> one dVᵀ other, for tables (P, K)."""
    points, readouts = one.shape
    return np.einsum("pk,qc->pcqk", one, other).reshape(points * readouts, points * readouts)


def linear_loss_source(x: ArrayLike, rows: ArrayLike, objective: Objective, gamma: float, beta: float) -> Saddle:
    """Solve the source of a linear network with any loss.

    Args (the others as in `tlcli.bayes.linear.linear_source`):
        objective: its loss and labels (P,) or (P, C).
        beta: inverse temperature, finite.

    Returns:
        The saddle point; v is (P,) or (P, C), outputs (n,) or (n, C); `info` has residual, iterations and, of one
        output, q = 1/(1 − γ²vᵀCv) and u = vᵀCv.

    Raises:
        DomainError: gamma < 0, beta ≤ 0 or infinite, values that are not finite, or more than 6000 unknowns.
    """
    return _stage(x, rows, objective, gamma, beta, 0.0, None)


def linear_loss_target(
    x: ArrayLike, rows: ArrayLike, objective: Objective, gamma: float, beta: float, delta: float, source: Saddle
) -> Saddle:
    """Solve the target of a linear network with any loss; its source may have any other loss and number of outputs.

    Arguments as in `linear_loss_source` and `tlcli.bayes.linear.linear_target`; `source` is what `linear_loss_source`
    or `tlcli.bayes.linear.linear_source` returned on the same points.

    Raises:
        DomainError: as `linear_loss_source`, delta < 0, or a source of other points.
    """
    check_delta(delta)
    return _stage(x, rows, objective, gamma, beta, float(delta), source)


def _stage(
    x: ArrayLike,
    rows: ArrayLike,
    objective: Objective,
    gamma: float,
    beta: float,
    delta: float,
    source: Saddle | None,
) -> Saddle:
    check_gamma(gamma)
    check_beta(beta)
    check_finite(float(beta), objective)
    y = objective.y
    points, train, _ = check_problem(x, rows, y if y.ndim == 1 else y[:, 0])
    check_same_points(source, points)
    likelihood = Likelihood(objective, float(beta))
    if (unknowns := likelihood.samples * likelihood.readouts) > LARGEST:
        raise DomainError(
            f"{likelihood.samples} points with {likelihood.readouts} readouts are {unknowns} unknowns: at most "
            f"{LARGEST} are solved; use fewer points or classes."
        )
    ct, α2 = 1.0 / (1.0 + delta), float(mean_weight(delta)) ** 2
    gram = ct * (points @ points.T) / points.shape[1]
    before = None if source is None else source.kernel
    at = np.ix_(train, train)
    measure = _Measure(gram[at], None if before is None else before[at], gamma**2, α2)
    found = maximise(measure.moments, likelihood)
    if not found.error <= LARGEST_RESIDUAL and source is None and likelihood.readouts == 1 and gamma > 0:
        found = bracketed(measure, likelihood, found)
    kernel, outputs = _everywhere(measure, gram, before, train, found.v)
    return saddle_of(likelihood, found, gamma, kernel, outputs, train, _info(measure, found), source)


def bracketed(measure: _Measure, likelihood: Likelihood, other: Optimum) -> Optimum:
    """Solve a source of one output by its scalar q, at which f is regression with the kernel qC; the better of both.

    γ²vᵀCv falls with q along that path (the regularisation path), so that 1/q + γ²vᵀCv = 1 has one root q >= 1.
    """
    g, steps = measure.g, 0

    def at(log_q: float) -> Optimum:
        nonlocal steps
        found = maximise(kernel_moments(math.exp(log_q) * measure.ct, 1), likelihood)
        steps += found.steps
        return found

    def mismatch(log_q: float) -> float:
        v = at(log_q).v
        return math.exp(-log_q) + g * float(np.sum(v * (measure.ct @ v))) - 1.0

    high = 1.0
    while mismatch(high) > 0:
        high *= 2.0
        if high > _LARGEST_LOG_Q:  # γ²vᵀCv is all rounding
            return other
    root = cast(float, brentq(mismatch, 0.0, high, xtol=1e-300, rtol=4 * np.finfo(float).eps, maxiter=200))
    found = at(root)
    moments = measure.moments(found.v)
    if moments is None:
        return other
    error = float(np.linalg.norm(found.f - moments.pull) / max(np.linalg.norm(found.f), 1e-300))
    value = likelihood.fit(found.f, found.v) - moments.log_z
    return Optimum(found.f, found.v, value, error, steps) if error < other.error else other


def _info(measure: _Measure, found: Optimum) -> dict[str, float | int | str]:
    info: dict[str, float | int | str] = {"iterations": found.steps, "method": "newton"}
    parameters = measure.order_parameters(found.v)
    if found.v.shape[1] == 1 and parameters is not None:
        T, Q, U = parameters
        info |= {"q": float(Q[0, 0]), "u": float((T if measure.source is None else U)[0, 0])}
    return info


def _everywhere(
    measure: _Measure, gram: Floats, before: Floats | None, train: Indices, v: Floats
) -> tuple[Floats, Floats]:
    """Return Φ (n, n) and f (n, K) at all points; `gram` is Ct and `before` Φ̄ there."""
    parameters = measure.order_parameters(v)
    assert parameters is not None
    _, Q, U = parameters
    g, α2 = measure.g, measure.α2
    a = gram[:, train] @ v
    inner = Q + α2 * g * Q @ U @ Q
    kernel, outputs = gram + g * a @ inner @ a.T, a @ inner
    if before is not None:
        p = before[:, train] @ v
        cross = g * a @ Q @ p.T
        kernel += α2 * (before + cross + cross.T)
        outputs = outputs + α2 * p @ Q
    return kernel, outputs


def saddle_of(
    likelihood: Likelihood,
    found: Optimum,
    gamma: float,
    kernel: Floats,
    outputs: Floats,
    train: Indices,
    info: dict,
    source: Saddle | None = None,
) -> Saddle:
    """Return the record of a stage that is solved exactly, from its kernel (n, n) and outputs (n, K) at all points."""
    objective = likelihood.objective
    pull = outputs[train]
    scale = float(np.linalg.norm(found.f))
    residual = float(np.linalg.norm(pull - found.f)) / scale if scale else 0.0
    gap = gamma**2 * likelihood.gap(found.f, pull)
    free_energy = gamma**2 * found.value
    predicted = outputs.copy()
    predicted[train] = found.f
    single = objective.readouts is None
    v, f = (table[:, 0] if single else objective.outputs(table) for table in (found.v, predicted))
    fine = residual <= LARGEST_RESIDUAL and gap <= LARGEST_GAP * (1 + abs(free_energy)) and math.isfinite(free_energy)
    advice = "the tilt is nearly infinite; use a smaller beta or gamma."
    status, message = verdict_of(fine, residual, gap, source, advice)
    return Saddle(v, f, kernel, free_energy, gap, 0.0, status, message, {**info, "residual": residual})
