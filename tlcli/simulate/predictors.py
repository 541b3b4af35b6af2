"""Linear predictors trained on a data set with fixed features: exact end points of gradient flow.

Features with covariance M (D, D) give f(x) = x.M^{1/2}.theta; the loss is (1/2P) |y - f|^2 +
(ridge/2)|theta|^2 and training starts from theta = 0. The effective weights beta = M^{1/2} theta after time
t are

    beta(t) = M X^T phi(X M X^T / P) y / P,    phi(z) = (1 - e^{-(z + ridge) t}) / (z + ridge).

Everything here is linear algebra on the data; nothing uses a large-D limit.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh

from tlcli.arrays import Floats


@dataclass(frozen=True)
class RegressionData:
    """Samples x (P, D) and labels y (P,).

    `x is None` is infinite data of N(0, I): y then holds X^T y / P (D,).
    """

    x: Floats | None
    y: Floats

    @property
    def dim(self) -> int:
        """Input dimension D."""
        return len(self.y) if self.x is None else self.x.shape[1]


@dataclass(frozen=True)
class Features:
    """M = bulk I + directions C directions^T.

    Orthonormal directions (D, r) and coupling C (r, r), which may be infinite for r = 1.
    """

    bulk: float
    directions: Floats
    coupling: Floats


def flow_filter(z: Floats, ridge: float, time: float) -> Floats:
    """phi(z) of the module docstring; null modes at infinite time are never reached and get 0."""
    rate = z + ridge
    if np.isinf(time):
        live = rate > 1e-12 * max(float(np.max(rate, initial=0.0)), np.finfo(float).tiny)
        return np.where(live, 1.0 / np.where(live, rate, 1.0), 0.0)
    small = rate * time < 1e-12
    return np.where(small, time, -np.expm1(-rate * time) / np.where(small, 1.0, rate))


def dense_predictor(data: RegressionData, covariance: Floats, *, ridge: float = 0.0, time: float = np.inf) -> Floats:
    """beta (D,) for any feature covariance (D, D), by one eigendecomposition on the smaller side."""
    x, y = data.x, data.y
    if x is not None and len(x) < x.shape[1]:
        mx = covariance @ x.T
        z, v = eigh(x @ mx / len(x))
        return mx @ (v @ (flow_filter(np.clip(z, 0, None), ridge, time) * (v.T @ y))) / len(x)
    values, vectors = eigh(covariance)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    if x is None:
        z, v, u = values, vectors, y
    else:
        z, v = eigh(root @ (x.T @ x / len(x)) @ root)
        u = x.T @ y / len(x)
    return np.asarray(root @ (v @ (flow_filter(np.clip(z, 0, None), ridge, time) * (v.T @ (root @ u)))))


def fit(
    data: RegressionData, features: Features, baseline_bulk: float, *, ridge: float = 0.0, time: float = np.inf
) -> tuple[Floats, Floats]:
    """Train on `features` and, on the same data, on the isotropic features `baseline_bulk` I.

    Returns beta and beta of the baseline, (D,) each.
    """
    beta, bulk_only = _fit_pair(data, features, ridge, time)
    if baseline_bulk != features.bulk:
        plain = Features(baseline_bulk, features.directions, np.zeros_like(features.coupling))
        bulk_only = _fit_pair(data, plain, ridge, time)[0]
    return beta, bulk_only


def _fit_pair(data: RegressionData, features: Features, ridge: float, time: float) -> tuple[Floats, Floats]:
    """Weights on the features, and on their bulk alone, which shares the factorisation."""
    if data.x is None or np.isfinite(time):
        bulk_only = Features(features.bulk, features.directions, np.zeros_like(features.coupling))
        return _by_spectrum(data, features, ridge, time), _by_spectrum(data, bulk_only, ridge, time)
    if features.bulk == 0.0:
        return _low_rank(data.x, data.y, features, ridge), np.zeros(data.x.shape[1])
    if len(data.x) < data.x.shape[1]:
        return _sample_side(data.x, data.y, features, ridge)
    return _feature_side(data.x, data.y, features, ridge)


def _sample_side(x: Floats, y: Floats, features: Features, ridge: float) -> tuple[Floats, Floats]:
    """P < D: one Cholesky factor of the bulk kernel (P, P); the spike enters by Woodbury's identity."""
    p, k, u = len(x), features.bulk, features.directions
    gram = x @ x.T
    gram *= k / p
    gram.flat[:: p + 1] += ridge
    factor = cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
    z = x @ u / np.sqrt(p)
    solved = cho_solve(factor, np.column_stack([y, z]), check_finite=False)
    y0, z0 = solved[:, 0], solved[:, 1:]
    weights = y0 - z0 @ (_soft(features.coupling, z.T @ z0) @ (z.T @ y0))
    baseline = k * (x.T @ y0) / p
    # M X^T w / P; the spike part C Z^T w equals soft(C, A) Z^T y0, finite also for C = inf.
    beta = k * (x.T @ weights) / p + u @ (_soft(features.coupling, z.T @ z0) @ (z.T @ y0)) / np.sqrt(p)
    return beta, baseline


def _feature_side(x: Floats, y: Floats, features: Features, ridge: float) -> tuple[Floats, Floats]:
    """P >= D: beta = (S + ridge M^{-1})^{-1} X^T y / P, S = X^T X / P; ridgeless: least squares for any M."""
    p, dim = x.shape
    k, u = features.bulk, features.directions
    s = x.T @ x
    s /= p
    s.flat[:: dim + 1] += ridge / k
    factor = cho_factor(s, lower=True, overwrite_a=True, check_finite=False)
    solved = cho_solve(factor, np.column_stack([x.T @ y / p, u]), check_finite=False)
    b0, u0 = solved[:, 0], solved[:, 1:]
    if ridge == 0.0:
        return b0, b0
    # M^{-1} = I/k - U W U^T with W = C (k + C)^{-1} / k
    rank = len(features.coupling)
    if np.isinf(features.coupling).any():
        w = np.eye(rank) / k
    else:
        w = features.coupling @ np.linalg.inv(k * np.eye(rank) + features.coupling) / k
    inner = np.linalg.solve(np.eye(rank) - ridge * w @ (u.T @ u0), ridge * w @ (u.T @ b0))
    return b0 + u0 @ inner, b0


def _low_rank(x: Floats, y: Floats, features: Features, ridge: float) -> Floats:
    """Ultra-rich features without bulk: a regression on r numbers per sample."""
    coupling = features.coupling
    if np.isinf(coupling).any():  # an infinite coupling makes the ridge vanish
        coupling, ridge = np.eye(len(coupling)), 0.0
    values, vectors = eigh(coupling)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    f = x @ features.directions @ root
    z, v = eigh(f.T @ f / len(x))
    theta = v @ (flow_filter(np.clip(z, 0, None), ridge, np.inf) * (v.T @ (f.T @ y / len(x))))
    return features.directions @ (root @ theta)


def _by_spectrum(data: RegressionData, features: Features, ridge: float, time: float) -> Floats:
    """Finite times, or infinite data: one dense eigendecomposition, or none."""
    k, u, coupling = features.bulk, features.directions, features.coupling
    if data.x is not None:
        covariance = u @ coupling @ u.T
        covariance.flat[:: len(covariance) + 1] += k
        return dense_predictor(data, covariance, ridge=ridge, time=time)
    inside = u.T @ data.y
    outside = data.y - u @ inside
    values, vectors = eigh(np.where(np.isinf(coupling), 0.0, coupling))
    values = np.where(np.isinf(coupling).any(), np.inf, np.clip(values + k, 0, None))
    with np.errstate(invalid="ignore"):
        gain = np.where(np.isinf(values), 1.0, values * flow_filter(np.where(np.isinf(values), 0, values), ridge, time))
    bulk_gain = float(k * flow_filter(np.array([k]), ridge, time)[0])
    return bulk_gain * outside + u @ (vectors @ (gain * (vectors.T @ inside)))


def _soft(coupling: Floats, a: Floats) -> Floats:
    """(C^{-1} + A)^{-1}, also for singular C and for the 1 x 1 infinite C."""
    if np.isinf(coupling).any():
        return np.asarray(np.linalg.inv(a), dtype=float)
    return np.asarray(np.linalg.solve(np.eye(len(a)) + coupling @ a, coupling), dtype=float)
