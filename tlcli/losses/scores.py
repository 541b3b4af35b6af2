"""What a prediction is worth on test points: loss, error, margin, and the loss after calibration.

Predictions f are (..., n) or (..., n, C) with any leading axes (times, repeats); labels y are those of `encode`.
"""

import numpy as np

from tlcli.arrays import Floats
from tlcli.losses.base import Loss

_LARGEST = 1e8  # of the factor that calibrates: beyond, no float64 tells the loss from that of certainty
_TURNS = 60
TIE = 1e-6  # outputs that differ by less are ties: populations in single precision start from f = 0 to some 1e-7


def _each(loss: Loss, f: Floats, y: Floats) -> Floats:
    """Return the reported loss of every point (..., n), summed over outputs that are not joined."""
    found = loss.reported(f, np.broadcast_to(y, f.shape))
    return found if loss.vector or y.ndim == 1 else found.sum(axis=-1)


def point_losses(loss: Loss, f: Floats, y: Floats) -> Floats:
    """Return the reported loss of every point (..., n), unweighted and without label smoothing."""
    return _each(loss, f, y)


def margins(f: Floats, y: Floats) -> Floats:
    """Return y f of labels (n,), else the output of the class minus the largest of the others: (..., n).

    Negative is misclassified, zero a tie of the label with one other class at least.
    """
    if y.ndim == 1:
        return f * np.sign(y)
    label = np.broadcast_to(np.argmax(y, axis=-1)[..., None], (*f.shape[:-1], 1))
    own = np.take_along_axis(f, label, axis=-1)[..., 0]
    others = np.array(f, dtype=float)
    np.put_along_axis(others, label, -np.inf, axis=-1)
    return own - others.max(axis=-1)


def point_errors(f: Floats, y: Floats) -> Floats:
    """Return 1 for every misclassified point (..., n), 0 for the others; a tie of k classes counts 1 - 1/k.

    Outputs that are equal to the rounding of single precision are ties: they must not be ranked.
    """
    margin = margins(f, y)
    if y.ndim == 1:
        return np.where(margin > TIE, 0.0, np.where(margin < -TIE, 1.0, 0.5))
    ties = np.sum(f >= f.max(axis=-1, keepdims=True) - TIE, axis=-1)
    return np.where(margin < -TIE, 1.0, np.where(margin > TIE, 0.0, 1.0 - 1.0 / ties))


def calibration(loss: Loss, f: Floats, y: Floats) -> Floats:
    """Return the factor tau >= 0 (...) that minimises the mean loss of tau f; 1/tau is the temperature.

    The mean loss is convex in tau: Newton's method, kept inside a bracket. At most 1e8, where the best is none.
    """
    f = np.asarray(f, dtype=float)
    axes = (-1,) if y.ndim == 1 else (-2, -1)
    y = np.broadcast_to(y, f.shape)
    spread = (slice(None),) * (f.ndim - len(axes)) + (None,) * len(axes)
    shape = f.shape[: f.ndim - len(axes)]
    low, high, tau = np.zeros(shape), np.full(shape, _LARGEST), np.ones(shape)
    for _ in range(_TURNS):
        scaled = tau[spread] * f
        slope = -np.sum(loss.force(scaled, y) * f, axis=axes)
        curve = np.sum(loss.bend(scaled, y, f) * f, axis=axes)
        low, high = np.where(slope < 0, tau, low), np.where(slope >= 0, tau, high)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            step = tau - slope / curve
        # A line search in the logarithm where Newton leaves the bracket; 0 is reached from above.
        inside = np.isfinite(step) & (step > low) & (step < high)
        middle = np.where(low > 0, np.sqrt(low * high), np.where(high > 1e-8, high * 1e-2, 0.0))
        new = np.where(inside, step, middle)
        if np.all(np.abs(new - tau) <= 1e-9 * (1e-9 + tau)):
            break
        tau = new
    return tau


def calibrated_losses(loss: Loss, f: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return the loss of every point (..., n) after calibration on the other half of the points, and tau of all.

    Even and odd points are calibrated by each other, so that no point takes part in its own temperature.
    """
    n = f.shape[-1] if y.ndim == 1 else f.shape[-2]
    joined = y.ndim > 1
    out = np.empty(f.shape[:-1] if joined else f.shape)
    for here, there in ((slice(0, n, 2), slice(1, n, 2)), (slice(1, n, 2), slice(0, n, 2))):
        part, other = (f[..., here, :], f[..., there, :]) if joined else (f[..., here], f[..., there])
        tau = calibration(loss, other, y[there]) if n > 1 else np.ones(f.shape[: -2 if joined else -1])
        scaled = tau[..., None, None] * part if joined else tau[..., None] * part
        out[..., here] = _each(loss, scaled, y[here])
    return out, calibration(loss, f, y)
