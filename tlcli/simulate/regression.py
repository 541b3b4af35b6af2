"""The finite-D experiment behind linear transfer: real Gaussian data, real regressions, no large-D formula.

Stage 1 fits the source data; by the boost identity (docs/theory.md, Section 2, true for any data) the
features it leaves are M = k I + chi n n^T with n = beta1/|beta1|. `tlcli.simulate.unreduced` tests that
identity on the un-reduced dynamics; here it makes D = 1000 cheap. Stage 2 trains a readout on these frozen
features, from zero output. Losses are mean squared errors: test |beta* - beta|^2, train |y - X beta|^2 / P
on the noisy labels.
"""

from dataclasses import dataclass

import numpy as np
from scipy.integrate import solve_ivp
from scipy.linalg import cho_factor, cho_solve, eigh
from scipy.optimize import brentq

from tlcli.arrays import Floats
from tlcli.errors import ConvergenceError, DomainError, UsageError, digits
from tlcli.simulate.predictors import Features, RegressionData, fit
from tlcli.simulate.trials import Estimate, Point, Value, complete_point, run_trials, samples_of, unit_vector

DEFAULTS: dict[str, Value] = {
    "rho": 1.0,
    "rho_xi": 0.0,
    "gamma0": 1.0,
    "sigma1": 0.0,
    "sigma2": 0.0,
    "ridge": 0.0,
    "weight_decay": 0.0,
    "init_scale": 1.0,
    "kernel": "feature",
    "t1": np.inf,
    "time": np.inf,
    "teacher_scale": 1.0,
}
ANSATZ_DEFAULTS: dict[str, Value] = {
    "rho": 1.0,
    "rho_xi": 0.0,
    "sigma2": 0.0,
    "ridge": 0.0,
    "bulk": 1.0,
    "time": np.inf,
    "teacher_scale": 1.0,
}


@dataclass(frozen=True)
class SourceState:
    """What stage 1 leaves: effective weights beta (D,), bulk k and spike chi of M, mean squared readout m."""

    beta: Floats
    bulk: float
    spike: float
    readout: float


def simulate_regression(point: Point, *, dim: int, trials: int, seed: int) -> dict[str, Estimate]:
    """Pre-train on P1 = round(alpha1 D) samples, fine-tune on P2 = round(alpha2 D), `trials` times.

    `point` needs alpha1, alpha2 and may set the names in `DEFAULTS`; `teacher_scale` c multiplies teachers
    and label noise, so that L(c beta*) at gamma0/c is c^2 L. An infinite alpha is infinite data, without noise.
    Returns (mean, standard error) of: loss, baseline (same data, untrained features), gain, train_loss,
    overlap = beta1.beta*1, norm2 = |beta1|^2, source_loss, spike, bulk, c_signal, c_cross, c_noise.
    Raises UsageError (unknown names), DomainError (no samples, or an infinite gamma0 with finite times).
    """
    p = complete_point(point, DEFAULTS, ("alpha1", "alpha2"))
    kernel = str(p.pop("kernel"))
    if kernel not in ("feature", "ntk"):
        raise UsageError(f"kernel = {kernel!r}: allowed are 'feature' and 'ntk'.")
    q = {name: float(value) for name, value in p.items()}
    p1, p2 = samples_of(q["alpha1"], dim), samples_of(q["alpha2"], dim)
    scale = q["teacher_scale"]

    def trial(rng: np.random.Generator) -> dict[str, float]:
        teacher1 = unit_vector(rng, dim)
        data1 = draw(rng, scale * teacher1, p1, scale * q["sigma1"])
        source = train_source(data1, q["gamma0"], q["weight_decay"], q["init_scale"], q["t1"])
        n, (n1, n2), teacher2 = target_of(rng, source.beta, teacher1, q["rho"], q["rho_xi"])
        bulk, spike, bulk0 = source.bulk, source.spike, q["init_scale"] ** 2
        if kernel == "ntk":  # M + m I
            bulk, bulk0 = bulk + source.readout, 2 * bulk0
        if np.isinf(spike) and np.isfinite(q["time"]):
            raise DomainError("gamma0 = inf has no finite-time fine-tuning: use a finite gamma0 or time = inf.")
        out = _transfer(rng, teacher2, p2, q, Features(bulk, n[:, None], np.array([[spike]])), bulk0)
        norm = float(np.linalg.norm(source.beta))
        out |= {"overlap": float(source.beta @ teacher1) / scale, "norm2": norm**2 / scale**2}
        out["source_loss"] = float(np.sum((source.beta - scale * teacher1) ** 2))
        out |= {"spike": spike, "bulk": bulk}
        if np.isfinite(spike):
            out |= {"c_signal": spike * n1**2, "c_cross": spike * n1 * n2, "c_noise": spike * n2**2}
        return out

    return run_trials(trial, trials, seed)


def simulate_ansatz(point: Point, *, dim: int, trials: int, seed: int) -> dict[str, Estimate]:
    """Fine-tune on M = bulk I + C on span(beta*1, xi), C = [[c_signal, c_cross], [c_cross, c_noise]] given freely.

    `point` needs alpha2, c_signal, c_cross, c_noise (numbers) and may set the names in `ANSATZ_DEFAULTS`.
    Returns loss, baseline, gain, train_loss. Raises DomainError if bulk I + C has a negative eigenvalue.
    """
    p = complete_point(point, ANSATZ_DEFAULTS, ("alpha2", "c_signal", "c_cross", "c_noise"))
    q = {name: float(value) for name, value in p.items()}
    coupling = np.array([[q["c_signal"], q["c_cross"]], [q["c_cross"], q["c_noise"]]])
    lowest = q["bulk"] + np.linalg.eigvalsh(coupling)[0]
    if lowest < 0:
        raise DomainError(f"bulk + C has the eigenvalue {lowest:.6g}: a kernel needs eigenvalues >= 0.")
    p2 = samples_of(q["alpha2"], dim)

    def trial(rng: np.random.Generator) -> dict[str, float]:
        teacher1 = unit_vector(rng, dim)
        xi = unit_vector(rng, dim, teacher1)
        teacher2 = mix_teachers(rng, teacher1, xi, q["rho"], q["rho_xi"])
        features = Features(q["bulk"], np.column_stack([teacher1, xi]), coupling)
        return _transfer(rng, teacher2, p2, q, features, q["bulk"])

    return run_trials(trial, trials, seed)


def draw(rng: np.random.Generator, teacher: Floats, n_samples: int | None, sigma: float) -> RegressionData:
    """Draw x ~ N(0, I) (P, D) and y = x.teacher + sigma eps; `n_samples=None` is infinite data."""
    if n_samples is None:
        return RegressionData(None, teacher)
    x = rng.standard_normal((n_samples, len(teacher)))
    return RegressionData(x, x @ teacher + sigma * rng.standard_normal(n_samples))


def target_of(
    rng: np.random.Generator, beta: Floats, teacher1: Floats, rho: float, rho_xi: float
) -> tuple[Floats, tuple[float, float], Floats]:
    """Return the direction n of a predictor (D,), its parts along teacher and noise, and a teacher of the target."""
    norm = float(np.linalg.norm(beta))
    n = beta / norm if norm > 0 else unit_vector(rng, len(beta))
    n1 = float(n @ teacher1)
    rest = n - n1 * teacher1
    n2 = float(np.linalg.norm(rest))
    # A predictor along its teacher has no noise direction: xi is then any direction orthogonal to it.
    xi = rest / n2 if n2 > 1e-8 else unit_vector(rng, len(beta), teacher1)
    return n, (n1, n2), mix_teachers(rng, teacher1, xi, rho, rho_xi)


def mix_teachers(rng: np.random.Generator, teacher1: Floats, xi: Floats, rho: float, rho_xi: float) -> Floats:
    """Return rho teacher1 + rho_xi xi + the rest along a fresh orthogonal direction, a unit vector (D,)."""
    left = 1.0 - rho**2 - rho_xi**2
    if left < -1e-12:
        raise DomainError(f"rho = {digits(rho)}, rho_xi = {digits(rho_xi)}: rho^2 + rho_xi^2 may not exceed 1.")
    eta = unit_vector(rng, len(teacher1), teacher1, xi)
    return rho * teacher1 + rho_xi * xi + np.sqrt(max(left, 0.0)) * eta


def train_source(
    data: RegressionData, gamma0: float, weight_decay: float = 0.0, init_scale: float = 1.0, t1: float = np.inf
) -> SourceState:
    """Stage 1 on actual data, from zero output, at infinite width.

    t1 = inf without decay ends in the minimum-norm interpolator or least squares; with decay in ridge
    regression with the ridge r = weight_decay / (gamma0 |beta1|) of its own solution, or in collapse;
    finite t1 integrates Eq. (*).
    """
    k = init_scale**2
    if np.isfinite(t1):
        return _finite_time(data, gamma0, weight_decay, k, t1)
    if weight_decay > 0:
        if gamma0 == 0:  # nothing feeds the features: they decay
            return SourceState(np.zeros(data.dim), 0.0, 0.0, 0.0)
        beta = least_norm(data) if np.isinf(gamma0) else _decayed(data, weight_decay / gamma0)
        norm = float(np.linalg.norm(beta))
        s = gamma0 * norm if norm > 0 else 0.0
        return SourceState(beta, 0.0, s, s)
    beta = least_norm(data)
    s = float(np.hypot(k, gamma0 * np.linalg.norm(beta)))
    return SourceState(beta, k, s - k, s)


def least_norm(data: RegressionData) -> Floats:
    """Minimum-norm interpolator (P < D) or least squares (P >= D), by Cholesky on the smaller side."""
    x, y = data.x, data.y
    if x is None:
        return y
    if len(x) < x.shape[1]:
        return x.T @ cho_solve(cho_factor(x @ x.T, lower=True, overwrite_a=True), y)
    return cho_solve(cho_factor(x.T @ x, lower=True, overwrite_a=True), x.T @ y)


def _modes(data: RegressionData) -> tuple[Floats, Floats, Floats | None]:
    """Eigenvalues of X^T X / P, X^T y / P in their basis, and the basis (D, min(P, D)) or None: identity."""
    x, y = data.x, data.y
    if x is None:
        return np.ones(len(y)), y, None
    p, dim = x.shape
    if p < dim:
        ell, v = eigh(x @ x.T / p)
        basis = x.T @ (v / np.sqrt(p * ell))
        return ell, np.sqrt(ell / p) * (v.T @ y), basis
    ell, basis = eigh(x.T @ x / p)
    return ell, basis.T @ (x.T @ y) / p, basis


def _decayed(data: RegressionData, strength: float) -> Floats:
    """Solve r |beta(r)| = weight_decay / gamma0; the left side grows from 0 to |X^T y / P|: one root."""
    ell, u, basis = _modes(data)
    if strength >= np.linalg.norm(u):  # below the threshold: features collapse
        return np.zeros(data.dim)

    def excess(log_r: float) -> float:
        return float(np.linalg.norm(u / (1 + ell * np.exp(-log_r)))) / strength - 1.0

    low, high = np.log(strength) - 40.0, 2.0
    while excess(high) < 0:
        high += 5.0
    log_r = brentq(excess, low, high, xtol=1e-13)
    assert isinstance(log_r, float)
    r = np.exp(log_r)
    b = u / (ell + r)
    return b if basis is None else basis @ b


def _finite_time(data: RegressionData, gamma: float, decay: float, k0: float, t1: float) -> SourceState:
    """Integrate Eq. (*) for beta = b/gamma, regular at gamma = 0, mode by mode.

    dbeta/dt = (s + k) g + gamma^2 beta (beta.g) / (s + k) - 2 decay beta, since (s - k)/|b|^2 = 1/(s + k).
    """
    if not np.isfinite(gamma):
        raise DomainError("gamma0 = inf has no finite-time pre-training: use a finite gamma0 or t1 = inf.")
    ell, u, basis = _modes(data)

    def rhs(t: float, beta: Floats) -> Floats:
        k = k0 * np.exp(-2 * decay * t)
        s = np.hypot(k, gamma * np.linalg.norm(beta))
        g = u - ell * beta
        along = gamma**2 * (beta @ g) / (s + k) if s + k > 0 else 0.0
        return (s + k) * g + along * beta - 2 * decay * beta

    solution = solve_ivp(rhs, (0.0, t1), np.zeros_like(u), method="DOP853", rtol=1e-9, atol=1e-11)
    if not solution.success:
        raise ConvergenceError(f"Pre-training stopped before t1 = {t1:g}: {solution.message}")
    beta = solution.y[:, -1] if basis is None else basis @ solution.y[:, -1]
    k = k0 * float(np.exp(-min(2 * decay * t1, 600.0)))  # a finite time leaves a kernel, however small
    s = float(np.hypot(k, gamma * np.linalg.norm(beta)))
    return SourceState(beta, k, s - k, s)


def _transfer(
    rng: np.random.Generator,
    teacher2: Floats,
    p2: int | None,
    q: dict[str, float],
    features: Features,
    bulk0: float,
) -> dict[str, float]:
    """Stage 2 and its baseline, on the same fresh data."""
    scale = q["teacher_scale"]
    target = scale * teacher2
    data = draw(rng, target, p2, scale * q["sigma2"])
    if bulk0 == 0 and q["ridge"] == 0 and np.isinf(q["time"]):
        bulk0 = 1.0  # the size of an isotropic kernel then does not matter: read 0 as 0+
    beta, beta0 = fit(data, features, bulk0, ridge=q["ridge"], time=q["time"])
    loss, baseline = float(np.sum((target - beta) ** 2)), float(np.sum((target - beta0) ** 2))
    if data.x is None:
        train = loss + (scale * q["sigma2"]) ** 2
    else:
        train = float(np.mean((data.y - data.x @ beta) ** 2))
    return {"loss": loss, "baseline": baseline, "gain": baseline - loss, "train_loss": train}
