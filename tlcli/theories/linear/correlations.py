"""Correlations of the target's error, as the arrays of linear-exact and linear-ansatz (--correlations)."""

import math
from typing import Any

import numpy as np

from tlcli.arrays import Flags, Floats
from tlcli.errors import UsageError
from tlcli.linear.error_correlations import error_overlaps, spectral, two_time_error
from tlcli.theories.base import Case, Columns, Parameters
from tlcli.theories.linear.constants import constants

_MOST = 5e7  # numbers of one array of correlations
_TWO_TIME = ("corr_v", "corr_delta", "remaining", "remaining_bulk")


def exact_kernel(columns: Columns) -> tuple[Floats, Floats]:
    """Return eigenvalues (…, 2) and eigenvectors (…, 2, 2) of what pre-training adds to the bulk."""
    norm = np.sqrt(columns["norm2"])
    with np.errstate(divide="ignore", invalid="ignore"):
        n1 = np.where((norm > 0) & np.isfinite(norm), np.asarray(columns["overlap"]) / norm, 0.0)
    n2 = np.sqrt(np.maximum(0.0, 1.0 - n1**2))
    spikes = np.stack(np.broadcast_arrays(columns["spike"], 0.0), axis=-1)
    return spikes, np.stack([np.stack([n1, n2], -1), np.stack([-n2, n1], -1)], axis=-1)


def ansatz_kernel(p: Parameters) -> tuple[Floats, Floats]:
    """Return the same of free coefficients."""
    c = constants(p)
    return spectral(c["c_signal"], c["c_cross"], c["c_noise"])


def check_size(case: Case) -> None:
    """Refuse more numbers than memory should hold. Raises UsageError."""
    if not case.words.get("correlations") or "time" not in case.grid.axes:
        return
    points, times = math.prod(case.grid.shape[:-1]), case.grid.shape[-1]
    if points * times**2 > _MOST:
        raise UsageError(
            f"--correlations of {points} points at {times} x {times} times are more than {_MOST:.0e} numbers; take "
            "fewer --times or points."
        )


def correlation_arrays(case: Case, spikes: Floats, directions: Floats, bulk: Any) -> Columns:
    """Return error_signal and error_noise of the grid's shape; with several times, the two-time functions besides.

    These have the finite times `t` as their last axes: corr_v, corr_delta (…, n_t, n_t), remaining (…, 2, n_t) along
    the two eigenvectors of C, remaining_bulk (…, n_t); NaN where the kernel is infinite.
    """
    p, shape = case.parameters(), case.grid.shape
    timed = "time" in case.grid.axes
    outer = shape[:-1] if timed else shape
    time = np.ravel(p["time"])
    numbers = {name: _outer(p[name], outer, timed) for name in ("alpha2", "rho", "rho_xi", "sigma2", "ridge")}
    numbers["bulk"] = _outer(bulk, outer, timed)
    c, n = _outer(spikes, outer, timed, 1), _outer(directions, outer, timed, 2)
    endless = _outer(_scale_free(p), outer, timed) > 0
    numbers["ridge"] = np.where(endless, 0.0, numbers["ridge"])  # such a kernel is larger than any ridge
    late = error_overlaps(
        numbers["alpha2"], c, n, **{name: numbers[name] for name in ("rho", "rho_xi", "bulk", "ridge")}
    )
    error = np.repeat(np.stack(late)[..., None], time.size, axis=-1)  # (2, point, time)
    out: dict[str, Any] = {}
    finite = np.isfinite(time)
    for i in np.flatnonzero(~endless) if finite.any() else ():
        r = n[i].T @ (numbers["rho"][i], numbers["rho_xi"][i])
        one = {name: float(numbers[name][i]) for name in ("sigma2", "ridge", "bulk")}
        found = two_time_error(float(numbers["alpha2"][i]), time[finite], c[i], r, **one)
        error[:, i, finite] = n[i] @ (r[:, None] * found.remaining)
        for name in _TWO_TIME if timed else ():
            part = getattr(found, name)
            out.setdefault(name, np.full((c.shape[0], *part.shape), np.nan))[i] = part
    two_time = {name: part.reshape(*outer, *part.shape[1:]) for name, part in out.items()}
    two_time |= {"t": time[finite]} if two_time else {}
    return {"error_signal": error[0].reshape(shape), "error_noise": error[1].reshape(shape), **two_time}


def _outer(x: Any, outer: tuple[int, ...], timed: bool, inner: int = 0) -> Floats:
    """Return x at every point without its times, (n_point, ...); its last `inner` axes are its own."""
    x = np.asarray(x, dtype=float)
    grid, own = x.shape[: x.ndim - inner], x.shape[x.ndim - inner :]
    if timed and grid:
        x = np.take(x, 0, axis=len(grid) - 1)
    return np.broadcast_to(x, (*outer, *own)).reshape(-1, *own)


def _scale_free(p: Parameters) -> Flags:
    """Return where the kernel is infinite and only its shape has a meaning."""
    return np.isinf(p["gamma0"]) & (p.get("kernel") == "ntk")
