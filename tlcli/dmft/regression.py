"""Regression with a kernel that does not move: a linear readout on fixed features, trained by gradient flow.

This is stage 2 in the limit γ₂ → 0 (features frozen after stage 1, or the tangent kernel at the switch) and, with
the kernel of a converged run, the adaptive-kernel predictor of weight decay. For features ψ with kernel K = ψ·ψ, the
readout change v from its start minimises

    (s/2) Σ_μ Δ_μ² + (ridge/2) |v|²,   Δ = y − f(X),   s = 1/P (reduction "mean") or 1 ("sum"),

so that f − f₀ obeys df/dt = s K(·, X) Δ − ridge (f − f₀) and, with the eigenpairs κ, v of K(X, X),

    f(x, t) = f₀(x) + K(x, X) Σ_κ v [s (1 − e^{−(sκ + ridge) t}) / (sκ + ridge)] v·(y − f₀(X)).

The ridge pulls back to f₀, the function at the start, not to zero. t = ∞ is ridge regression with ridge/s on the
kernel, or, at ridge 0, the interpolator of least norm.
"""

import numpy as np
from numpy.typing import ArrayLike

from tlcli.arrays import Floats
from tlcli.errors import DomainError, UsageError, suggest

_REDUCTIONS = ("mean", "sum")
# A kernel summed in single precision is symmetric and positive to this, relative to its largest entry or eigenvalue.
_ROUNDING = 1e-5


def force_scale(reduction: str, samples: int) -> float:
    """The factor s of the force: 1/P for the mean loss (1/2P) Σ Δ², 1 for the sum ½ Σ Δ². Raises UsageError."""
    if reduction not in _REDUCTIONS:
        raise UsageError(f"reduction: '{reduction}' must be mean or sum{suggest(str(reduction), _REDUCTIONS)}.")
    return 1.0 / samples if reduction == "mean" else 1.0


def time_grid(time: ArrayLike) -> Floats:
    """`time` as a float array (n_times,), infinity allowed. Raises DomainError for negative times or NaN."""
    times = np.atleast_1d(np.asarray(time, dtype=np.float64))
    bad = times[~(times >= 0)]
    if times.ndim != 1 or bad.size:
        shown = f"{bad[0]:g}" if bad.size else f"of shape {times.shape}"
        raise DomainError(f"training time {shown} must be at least 0, a number or a list of numbers.")
    return times


class FrozenKernel:
    """The eigendecomposition of one training kernel, for any number of labels, ridges, times and points.

    `eigenvalues` κ (P,) ascending and not negative, `eigenvectors` (P, P) in columns. Directions with κ <= `cutoff`
    are null: they are left out at infinite time without ridge. The cutoff is P times the rounding of float64 times the
    largest κ or, if that is more, twice the most negative eigenvalue found, which shows the rounding in the kernel.

    Raises DomainError: a kernel that is not finite, square, symmetric or, beyond single-precision rounding, positive
    semidefinite.
    """

    def __init__(self, k_train: Floats) -> None:
        """Decompose k_train (P, P)."""
        kernel = _finite("kernel", k_train)
        if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or not kernel.size:
            raise DomainError(f"kernel of shape {kernel.shape} must be square, training points x training points.")
        largest = float(np.max(np.abs(kernel)))
        gap = float(np.max(np.abs(kernel - kernel.T)))
        if gap > _ROUNDING * largest:
            raise DomainError(
                f"kernel: entries up to {largest:.3g} differ by {gap:.3g} from the transposes; it must be symmetric."
            )
        values, self.eigenvectors = np.linalg.eigh((kernel + kernel.T) / 2)
        if values[0] < -_ROUNDING * max(values[-1], 0.0) - 1e-300:
            raise DomainError(
                f"kernel: eigenvalues from {values[0]:.3g} to {values[-1]:.3g}; it must be positive semidefinite."
            )
        self.cutoff = float(max(len(values) * np.finfo(np.float64).eps * values[-1], -2 * values[0], 0.0))
        self.eigenvalues: Floats = np.maximum(values, 0.0)

    @property
    def samples(self) -> int:
        """Number of training points P."""
        return self.eigenvalues.size

    def labels(self, y: Floats, what: str = "labels") -> Floats:
        """`y` as a float array (P,), or DomainError if it has another shape or is not finite."""
        y = _finite(what, y)
        if y.shape != (self.samples,):
            raise DomainError(f"{what} of shape {y.shape} do not fit {self.samples} training points.")
        return y

    def weights(self, *, ridge: float = 0.0, time: ArrayLike = np.inf, reduction: str = "mean") -> Floats:
        """Weight of the residual along each eigenvector, s(1 − e^{−(sκ + ridge)t})/(sκ + ridge): (n_times, P).

        Without ridge, null directions (see the class) get 0 once s·cutoff·t >= 1e-6, where rounding would start to
        show; before that, and with ridge, they are treated as any other. Raises DomainError, UsageError.
        """
        ridge = float(ridge)
        if not (np.isfinite(ridge) and ridge >= 0):
            raise DomainError(f"ridge = {ridge:g} must be finite and at least 0.")
        s, times = force_scale(reduction, self.samples), time_grid(time)[:, None]
        rate = s * self.eigenvalues + ridge
        with np.errstate(invalid="ignore", over="ignore"):  # ∞·0 in directions that nothing moves
            z = np.where((rate > 0) & (times > 0), rate * times, 0.0)
            late = ~np.isfinite(times) | (times * s * self.cutoff >= 1e-6)
        decided = np.divide(-np.expm1(-z), rate, out=np.zeros_like(z), where=rate > 0)
        linear = np.where(np.isfinite(times), times, 0.0)
        # 1 − e^{−z} over the rate is the time itself where the rate is zero.
        out = s * np.where(rate > 0, decided, linear)
        null = (self.eigenvalues <= self.cutoff) & (ridge <= s * self.cutoff)
        return np.where(null & late, 0.0, out)

    def predict(
        self,
        k_points: Floats,
        y: Floats,
        *,
        ridge: float = 0.0,
        time: ArrayLike = np.inf,
        reduction: str = "mean",
        f0_train: Floats | None = None,
        f0_points: Floats | None = None,
    ) -> Floats:
        """Predictions (n_times, n) at the points of k_points (n, P); see `kernel_regression`."""
        points = _finite("kernel of the points", k_points)
        if points.ndim != 2 or points.shape[1] != self.samples:
            raise DomainError(
                f"kernel of the points, of shape {points.shape}, must have one column for each of the {self.samples} "
                "training points."
            )
        if (f0_train is None) != (f0_points is None):
            raise DomainError(
                "the function at the start must be given on the training points and on the points, or on neither."
            )
        residual = self.labels(y)
        if f0_train is not None:
            residual = residual - self.labels(f0_train, "initial outputs")
        weights = self.weights(ridge=ridge, time=time, reduction=reduction)
        out = (weights * (residual @ self.eigenvectors)) @ (points @ self.eigenvectors).T
        if f0_points is None:
            return out
        start = _finite("initial outputs of the points", f0_points)
        if start.shape != (len(points),):
            raise DomainError(f"initial outputs of shape {start.shape} do not fit {len(points)} points.")
        return out + start


def kernel_regression(
    k_train: Floats,
    k_points: Floats,
    y: Floats,
    *,
    ridge: float = 0.0,
    time: ArrayLike = np.inf,
    reduction: str = "mean",
    f0_train: Floats | None = None,
    f0_points: Floats | None = None,
) -> Floats:
    """Predictions (n_times, n) of a readout trained by gradient flow on features of kernel K (module docstring).

    k_train (P, P) is K among the training points, k_points (n, P) K between the points and the training points, y (P,)
    the labels; `time` a number or a list (infinity: the ridge or least-norm solution), in units of the mean loss
    (1/2P) Σ Δ² or of ½ Σ Δ² (reduction "sum"), like `ridge`: the solution is K(x, X)(K + P·ridge)⁻¹ y for the mean,
    K(x, X)(K + ridge)⁻¹ y for the sum. f0_train (P,) and f0_points (n,) are the outputs at the start (default 0), to
    which the ridge pulls back. Directions of a singular kernel that carry no features are left out (`FrozenKernel`).

    Raises DomainError (shapes, values that are not finite, a kernel not symmetric or not positive, a negative ridge or
    time), UsageError (reduction).
    """
    return FrozenKernel(k_train).predict(
        k_points, y, ridge=ridge, time=time, reduction=reduction, f0_train=f0_train, f0_points=f0_points
    )


def adaptive_predictor(
    phi_train: Floats, phi_points: Floats, y: Floats, weight_decay: float, reduction: str = "mean"
) -> Floats:
    """The predictor (n,) that a network trained with weight decay λ obeys once it stands still.

    da/dt = 0 gives a = (γ s/λ) Σ Δ φ(h), hence f(x) = Φ(x, X) [Φ(X, X) + (λ/s) I]⁻¹ y with the adapted feature kernel
    Φ = E φ(h) φ(h'); λ/s = λP for the mean loss, λ for the sum. phi_train (P, P), phi_points (n, P), y (P,).
    Raises DomainError for λ <= 0, where a may keep what it was born with, and as `kernel_regression`.
    """
    if not weight_decay > 0:
        raise DomainError(f"weight decay = {weight_decay:g} must be positive for the adaptive-kernel predictor.")
    return kernel_regression(phi_train, phi_points, y, ridge=weight_decay, reduction=reduction)[0]


def kernel_alignment(kernel: Floats, y: Floats) -> float:
    """Alignment yᵀKy / (|y|² ‖K‖_F), in [0, 1] for a positive kernel (n, n), of its labelled points y (n,).

    Of several outputs or classes y (n, C), classes as centred one-hot rows, it is tr yᵀKy / (‖yyᵀ‖_F ‖K‖_F). Points
    with a NaN label are dropped. 1 means K ∝ y yᵀ; independent of the scales of K and y (Cristianini et al. 2001).
    Raises DomainError for shapes that do not fit, or where no nonzero label or a zero kernel is left.
    """
    kernel, y = _finite("kernel", kernel), np.asarray(y, dtype=np.float64)
    if y.ndim not in (1, 2) or kernel.shape != (len(y), len(y)):
        raise DomainError(f"kernel of shape {kernel.shape} and labels of shape {y.shape} do not fit.")
    known = ~(np.isnan(y) if y.ndim == 1 else np.isnan(y).any(axis=1))
    kernel, y = kernel[np.ix_(known, known)], _finite("labels", y[known])
    square = float(y @ y) if y.ndim == 1 else float(np.linalg.norm(y.T @ y))
    norm = square * float(np.linalg.norm(kernel))
    if not norm > 0:
        raise DomainError(
            f"alignment needs nonzero labels and a nonzero kernel; {int(known.sum())} points have labels."
        )
    return float(y @ kernel @ y if y.ndim == 1 else np.sum(y * (kernel @ y))) / norm


def _finite(what: str, values: Floats) -> Floats:
    values = np.asarray(values, dtype=np.float64)
    if not np.all(np.isfinite(values)):
        raise DomainError(f"{what}: {int(np.sum(~np.isfinite(values)))} values are not finite; all must be numbers.")
    return values
