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
    inner = y.ndim
    flat = f.reshape(-1, *f.shape[f.ndim - inner :])
    tau, low, high = np.ones(len(flat)), np.zeros(len(flat)), np.full(len(flat), _LARGEST)
    left = np.arange(len(flat))
    for _ in range(_TURNS):
        here = tau[left]
        slope, curve = _slope(loss, flat[left], y, here)
        lower, upper = np.where(slope < 0, here, low[left]), np.where(slope >= 0, here, high[left])
        low[left], high[left] = lower, upper
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            step = here - slope / curve
        # A line search in the logarithm where Newton leaves the bracket; 0 is reached from above.
        inside = np.isfinite(step) & (step > lower) & (step < upper)
        middle = np.where(lower > 0, np.sqrt(lower * upper), np.where(upper > 1e-8, upper * 1e-2, 0.0))
        new = np.where(inside, step, middle)
        tau[left] = new
        left = left[np.abs(new - here) > 1e-9 * (1e-9 + here)]
        if not left.size:
            break
    return tau.reshape(f.shape[: f.ndim - inner])


def _slope(loss: Loss, f: Floats, y: Floats, tau: Floats) -> tuple[Floats, Floats]:
    """Return the first and second derivative by tau (m,) of the summed loss of tau f, f (m, n) or (m, n, C)."""
    scaled, y, axes = tau.reshape(-1, *[1] * y.ndim) * f, np.broadcast_to(y, f.shape), tuple(range(1, f.ndim))
    return -np.sum(loss.force(scaled, y) * f, axis=axes), np.sum(loss.bend(scaled, y, f) * f, axis=axes)


def cross_calibrated(loss: Loss, f: Floats, y: Floats) -> Floats:
    """Return f times the factor that calibrates the other half of the points.

    Even and odd points calibrate each other, so that no point takes part in its own temperature. The factor of a
    cross-entropy is cut, see `_surest`.
    """
    joined = y.ndim > 1
    n = f.shape[-2] if joined else f.shape[-1]
    out = np.empty(f.shape)
    for here, there in ((slice(0, n, 2), slice(1, n, 2)), (slice(1, n, 2), slice(0, n, 2))):
        part, other = (f[..., here, :], f[..., there, :]) if joined else (f[..., here], f[..., there])
        if n == 1:
            return f.astype(float)
        tau = np.minimum(calibration(loss, other, y[there]), _surest(loss, other, y[there]))
        if joined:
            out[..., here, :] = tau[..., None, None] * part
        else:
            out[..., here] = tau[..., None] * part
    return out


def _surest(loss: Loss, f: Floats, y: Floats) -> Floats:
    """Return the largest factor (...) that n points can tell from others, infinite for losses with a finite minimum.

    A half that is all right, or nearly so, would ask for any certainty, and one error in the other half would cost as
    much. One more observation, of a random class of the C, leaves n right ones the odds nC + 1: the mean |margin| stays
    below their logarithm, but no factor below 1 is asked for, so that calibration never raises the loss of the half.
    """
    if not loss.steep:
        return np.full(f.shape[: f.ndim - y.ndim], np.inf)
    classes = 2 if y.ndim == 1 else y.shape[-1]
    with np.errstate(divide="ignore"):
        factor = np.log(len(y) * classes + 1) / np.abs(margins(f, y)).mean(axis=-1)
    return np.maximum(factor, 1.0)


def confusion(f: Floats, y: Floats) -> Floats:
    """Return how many points of each class (row) are taken for each (column), (C, C), of f (n,) or (n, C).

    A point whose k likeliest classes tie counts 1/k for each of them. Of a single output the classes are +1 and -1.
    """
    if y.ndim == 1:
        f, y = np.stack([f / 2, -f / 2], axis=-1), np.stack([y > 0, y <= 0], axis=-1).astype(float)
    likeliest = np.asarray(f >= f.max(axis=-1, keepdims=True) - TIE, dtype=float)
    told = likeliest / likeliest.sum(axis=-1, keepdims=True)
    return np.eye(y.shape[-1])[np.argmax(y, axis=-1)].T @ told


def confidences(loss: Loss, f: Floats) -> Floats | None:
    """Return the probability (n,) that a loss gives its likeliest class; None where it is no likelihood of classes."""
    found = loss.probabilities(f)
    return None if found is None else np.asarray(found.max(axis=-1))
