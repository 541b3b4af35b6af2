"""The finite-D experiment behind linear classification: real Gaussian data, real classifiers, no large-D formula.

Stage 1 is that of `tlcli.simulate.regression`, on labels that are signs or real. Stage 2 trains a readout on the
features M^{1/2} x and another on untrained ones, on the same data. What fresh points see of a given predictor β is an
exact Gaussian integral, so no test points are drawn.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import nnls
from scipy.special import expit, log_expit, ndtr

from tlcli.arrays import Floats
from tlcli.errors import ConvergenceError, DomainError
from tlcli.simulate.predictors import RegressionData
from tlcli.simulate.regression import mix_teachers, target_of, train_source
from tlcli.simulate.trials import Estimate, Point, complete_point, run_trials, samples_of, unit_vector

_SHARED: Mapping[str, float | str] = {
    "rho": 1.0,
    "rho_xi": 0.0,
    "loss": "logistic",
    "ridge": 0.0,
    "baseline_ridge": -1.0,  # that of the baseline, where it is not the same
    "time": np.inf,  # of the squared loss
    "sigma2": 0.0,
    "flips2": 0.0,
}
DEFAULTS: Mapping[str, float | str] = {
    **_SHARED,
    "gamma0": 1.0,
    "source_labels": "sign",
    "sigma1": 0.0,
    "flips1": 0.0,
    "weight_decay": 0.0,
    "init_scale": 1.0,
    "kernel": "feature",
    "t1": np.inf,
}
ANSATZ_DEFAULTS: Mapping[str, float | str] = {**_SHARED, "bulk": 1.0}
_GRADIENT = 1e-10
_STEPS = 100


def simulate_classification(point: Point, *, dim: int, trials: int, seed: int) -> dict[str, Estimate]:
    """Pre-train on round(alpha1 D) labels, classify with round(alpha2 D), `trials` times.

    `point` needs alpha1, alpha2 and may set the names in `DEFAULTS`. Returns (mean, standard error) of every column of
    `linear-classify` that a finite experiment has; maximum margins are NaN where a trial was not separable.
    Raises UsageError (unknown names), DomainError (no samples, rho^2 + rho_xi^2 > 1).
    """
    p = complete_point(point, DEFAULTS, ("alpha1", "alpha2"))
    p1, p2 = samples_of(float(p["alpha1"]), dim), _target_samples(p, dim)
    f, σ = float(p["flips1"]), float(p["sigma1"])
    γ, λ1, κ, t1 = (float(p[name]) for name in ("gamma0", "weight_decay", "init_scale", "t1"))

    def trial(rng: np.random.Generator) -> dict[str, float]:
        teacher1 = unit_vector(rng, dim)
        data = _source(rng, teacher1, p1, σ, f, p["source_labels"] == "sign")
        state = train_source(data, γ, λ1, κ, t1)
        n, _, teacher2 = target_of(rng, state.beta, teacher1, float(p["rho"]), float(p["rho_xi"]))
        bulk, bulk0 = state.bulk, κ**2
        if p["kernel"] == "ntk":
            bulk, bulk0 = bulk + state.readout, 2 * bulk0
        out = _readouts(rng, p, teacher2, p2, (bulk, n[:, None], np.array([state.spike])), bulk0)
        return {
            **out,
            "overlap": float(state.beta @ teacher1),
            "norm2": float(np.linalg.norm(state.beta)) ** 2,
            "spike": state.spike,
            "bulk": state.bulk,
        }

    return _with_rare(run_trials(trial, trials, seed), trials * p2, str(p["loss"]))


def _with_rare(found: dict[str, Estimate], points: int, loss: str) -> dict[str, Estimate]:
    """Add to the errors of shares that one training point in all trials is the least that can be seen."""
    for name in ("train_error", *(["train_loss"] if loss == "hinge" else [])):
        mean, se = found[name]
        found[name] = Estimate(mean, float(np.hypot(se, 1 / points)))
    return found


def simulate_classification_ansatz(point: Point, *, dim: int, trials: int, seed: int) -> dict[str, Estimate]:
    """Classify on M = bulk I + [[c_signal, c_cross], [c_cross, c_noise]] on (teacher1, xi), given as numbers."""
    names = ("c_signal", "c_cross", "c_noise")
    p = complete_point(point, ANSATZ_DEFAULTS, ("alpha2", *names))
    p2, k = _target_samples(p, dim), float(p["bulk"])
    c1, c3, c2 = (float(p[name]) for name in names)
    c, w = np.linalg.eigh(np.array([[c1, c3], [c3, c2]]))
    if c[0] + k < -1e-12:
        raise DomainError(f"bulk + C has the eigenvalue {c[0] + k:g}; a kernel has none below zero.")

    def trial(rng: np.random.Generator) -> dict[str, float]:
        teacher1 = unit_vector(rng, dim)
        xi = unit_vector(rng, dim, teacher1)
        teacher2 = mix_teachers(rng, teacher1, xi, float(p["rho"]), float(p["rho_xi"]))
        return _readouts(rng, p, teacher2, p2, (k, np.stack([teacher1, xi], axis=1) @ w, c), k)

    return _with_rare(run_trials(trial, trials, seed), trials * p2, str(p["loss"]))


def simulate_classification_spikes(
    point: Point, spikes: Sequence[float], overlaps: Sequence[float], *, dim: int, trials: int, seed: int
) -> dict[str, Estimate]:
    """Classify on M = bulk I + spikes on orthonormal directions, whose `overlaps` are those with the teacher."""
    p = complete_point(point, ANSATZ_DEFAULTS, ("alpha2",))
    p2, k, r = _target_samples(p, dim), float(p["bulk"]), np.array(overlaps)
    if len(spikes) >= dim:
        raise DomainError(f"{len(spikes)} spikes need more than {len(spikes)} dimensions; use a larger --dim.")

    def trial(rng: np.random.Generator) -> dict[str, float]:
        directions = np.linalg.qr(rng.standard_normal((dim, len(spikes) + 1)))[0]
        rest = np.sqrt(max(1 - float(r @ r), 0.0))
        teacher = directions @ np.append(r, rest)
        return _readouts(rng, p, teacher, p2, (k, directions[:, :-1], np.array(spikes, dtype=float)), k)

    return _with_rare(run_trials(trial, trials, seed), trials * p2, str(p["loss"]))


def _target_samples(p: Point, dim: int) -> int:
    samples = samples_of(float(p["alpha2"]), dim)
    if samples is None:
        raise DomainError("alpha2 = inf has no classification experiment; use a finite alpha2.")
    return samples


def signs(rng: np.random.Generator, output: Floats, noise: float, flips: float) -> Floats:
    """Return sign(output + noise ε), flipped with probability `flips`, as ±1.0."""
    y = np.where(output + noise * rng.standard_normal(output.shape) >= 0, 1.0, -1.0)
    return np.where(rng.random(output.shape) < flips, -y, y)


def _source(
    rng: np.random.Generator, teacher: Floats, samples: int | None, noise: float, flips: float, sign: bool
) -> RegressionData:
    if samples is None:  # infinite data: only the covariance of labels and inputs matters
        g = (1 - 2 * flips) * np.sqrt(2 / np.pi) / np.sqrt(1 + noise**2) if sign else 1.0
        return RegressionData(None, g * teacher)
    x = rng.standard_normal((samples, len(teacher)))
    if sign:
        return RegressionData(x, signs(rng, x @ teacher, noise, flips))
    return RegressionData(x, x @ teacher + noise * rng.standard_normal(samples))


def _readouts(
    rng: np.random.Generator,
    p: Point,
    teacher: Floats,
    samples: int,
    kernel: tuple[float, Floats, Floats],
    bulk0: float,
) -> dict[str, float]:
    """Return all columns of the readout on k I + V diag(c) Vᵀ (k, V (D, spikes), c) and of that on bulk0 I."""
    loss, λ = str(p["loss"]), float(p["ridge"])
    λ0 = λ if float(p["baseline_ridge"]) < 0 else float(p["baseline_ridge"])
    t = float(p["time"])
    τ, f = float(p["sigma2"]), float(p["flips2"])
    x = rng.standard_normal((samples, len(teacher)))
    y = signs(rng, x @ teacher, τ, f)
    k, V, c = kernel
    root = np.sqrt(np.maximum(k + c, 0.0)) - np.sqrt(k)
    theta = fit_classifier(loss, np.sqrt(k) * x + (x @ V) * root @ V.T, y, λ, t)
    beta = np.sqrt(k) * theta + V @ (root * (V.T @ theta))
    before = np.sqrt(bulk0) * fit_classifier(loss, np.sqrt(bulk0) * x, y, λ0, t)
    out, other = fresh(beta, teacher, τ, f), fresh(before, teacher, τ, f)
    for found, end, ridge in ((out, beta, λ), (other, before, λ0)):
        if loss == "logistic" and ridge == 0 and np.all(y * (x @ end) > 0):  # the norm grows without end
            found |= dict.fromkeys(("log_loss", "square_loss", "readout_overlap", "readout_norm2"), np.nan)
    f_train = x @ beta
    train_loss = 0.0 if np.isnan(out["readout_norm2"]) else float(np.mean(_ELL[loss](y * f_train)))
    out |= {"train_loss": train_loss, "train_error": float(np.mean(y * f_train < 0))}
    out |= {"baseline": other["error"], "gain": other["error"] - out["error"]}
    for name, short in (("noisy_error", "noisy"), ("log_loss", "log_loss"), ("square_loss", "square_loss")):
        out |= {f"{short}_baseline": other[name], f"{short}_gain": other[name] - out[name]}
    if loss == "margin":
        out["margin"] = float(1 / np.linalg.norm(theta))
    return out


def fresh(beta: Floats, teacher: Floats, noise: float, flips: float) -> dict[str, float]:
    """Return what fresh points see of the predictor: errors and losses, exact Gaussian integrals."""
    m, q = float(beta @ teacher), float(beta @ beta)
    c = 1 / np.sqrt(1 + noise**2)
    s = np.sqrt(max(q - (c * m) ** 2, 0.0))
    angle, noisy = np.arctan2(np.sqrt(max(q - m * m, 0.0)), m) / np.pi, np.arctan2(s, c * m) / np.pi
    z = np.linspace(-9, 9, 2001)  # the standardised prediction f/√q
    right = flips + (1 - 2 * flips) * ndtr(c * m * z / max(s, 1e-300))  # label +1 given it
    density = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    u = np.sqrt(q) * z
    return {
        "error": float(angle),
        "noisy_error": float(flips + (1 - 2 * flips) * noisy),
        "log_loss": float(-density @ (right * log_expit(u) + (1 - right) * log_expit(-u))),
        "square_loss": float(1 - 2 * (1 - 2 * flips) * c * np.sqrt(2 / np.pi) * m + q),
        "readout_overlap": m,
        "readout_norm2": q,
    }


_ELL: Mapping[str, Callable[[Floats], Floats]] = {
    "square": lambda u: 0.5 * (1 - u) ** 2,
    "logistic": lambda u: -log_expit(u),
    "hinge": lambda u: np.maximum(0.0, 1 - u),
    "margin": lambda u: np.zeros_like(u),
}


def fit_classifier(loss: str, z: Floats, y: Floats, ridge: float, time: float = np.inf) -> Floats:
    """Return θ (D,) of least (1/P) Σ ℓ(y θ·z) + (ridge/2)|θ|² on features z (P, D), labels y = ±1 (P,).

    square without ridge: the least-norm solution; `time` stops its gradient flow. margin: NaN where no hyperplane
    divides the labels. logistic and hinge without ridge: the maximum margin where one does (of the logistic loss the
    direction alone has a limit). Raises ConvergenceError.
    """
    if loss in ("logistic", "hinge") and ridge == 0:
        return _unregularised(loss, z, y)
    if loss == "square" and np.isfinite(time):
        return _stopped(z, y, ridge, time)
    if loss == "square":
        if ridge == 0:
            return np.asarray(np.linalg.lstsq(z, y, rcond=None)[0], dtype=float)
        p, d = z.shape
        if p < d:
            return z.T @ np.linalg.solve(z @ z.T + p * ridge * np.eye(p), y)
        return np.linalg.solve(z.T @ z + p * ridge * np.eye(d), z.T @ y)
    if loss == "margin":
        return _margin(z * y[:, None])
    if loss == "hinge":
        return _hinge(z, y, ridge)
    if z.shape[0] < z.shape[1]:  # θ lies in the span of the points
        basis, r = np.linalg.qr(z.T)
        return np.asarray(basis @ _logistic(r.T * y[:, None], ridge), dtype=float)
    return _logistic(z * y[:, None], ridge)


def _stopped(z: Floats, y: Floats, ridge: float, time: float) -> Floats:
    """Gradient flow of the squared loss, mode by mode."""
    u, s, v = np.linalg.svd(z, full_matrices=False)
    rate = s * s / len(y) + ridge
    weight = np.where(rate > 0, -np.expm1(-rate * time) / np.where(rate > 0, rate, 1.0), time)
    return v.T @ (weight * s / len(y) * (u.T @ y))


def _unregularised(loss: str, z: Floats, y: Floats) -> Floats:
    """The maximum margin where a hyperplane divides the labels, which a linear program tells, else the optimum."""
    from scipy.optimize import linprog

    a = z * y[:, None]
    p, d = a.shape
    if linprog(np.zeros(d), A_ub=-a, b_ub=-np.ones(p), bounds=(None, None)).status == 0:
        return _margin(a)
    if loss == "logistic":
        return _logistic(a, 0.0)
    found = linprog(
        np.append(np.zeros(d), np.ones(p)),
        A_ub=-np.hstack([a, np.eye(p)]),
        b_ub=-np.ones(p),
        bounds=[(None, None)] * d + [(0, None)] * p,
    )
    if found.status != 0:
        raise ConvergenceError("the hinge readout has not converged without ridge; use a positive ridge.")
    return np.asarray(found.x[:d], dtype=float)


def _logistic(a: Floats, ridge: float) -> Floats:
    """Newton's method with backtracking on the rows a = y z."""
    p, d = a.shape
    theta = np.zeros(d)

    def height(w: Floats) -> float:
        return float(-np.mean(log_expit(a @ w)) + 0.5 * ridge * w @ w)

    here = height(theta)
    for _ in range(_STEPS):
        sigma = expit(-(a @ theta))
        gradient = ridge * theta - a.T @ sigma / p
        if np.max(np.abs(gradient)) < _GRADIENT:
            return theta
        hessian = (a.T * (sigma * (1 - sigma) / p)) @ a + ridge * np.eye(d)
        step = cho_solve(cho_factor(hessian), gradient)
        size = 1.0
        while (there := height(theta - size * step)) > here + 1e-14 * abs(here) and size > 1e-8:
            size /= 2
        theta, here = theta - size * step, there
    raise ConvergenceError(f"the logistic readout has not converged at ridge = {ridge:g}; use a larger ridge.")


def _hinge(z: Floats, y: Floats, ridge: float) -> Floats:
    """liblinear's dual coordinate descent, certified by the gap to the dual."""
    import warnings

    from sklearn.svm import LinearSVC

    cost = 1 / (ridge * len(y))
    model = LinearSVC(loss="hinge", C=cost, fit_intercept=False, tol=1e-7, max_iter=200_000, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return np.asarray(model.fit(z, y).coef_[0], dtype=float)
        except Warning:
            raise ConvergenceError(
                f"the hinge readout has not converged at ridge = {ridge:g}; use a larger ridge."
            ) from None


def _margin(a: Floats) -> Floats:
    """The hard margin, exactly: its dual is the non-negative least-squares problem |aᵀμ|² + (Σμ − 1)²."""
    target = np.zeros(a.shape[1] + 1)
    target[-1] = 1.0
    mu, _ = nnls(np.vstack([a.T, np.ones(len(a))]), target)
    slack = 1 - mu.sum()
    if slack < 1e-10:
        return np.full(a.shape[1], np.nan)
    return a.T @ mu / slack
