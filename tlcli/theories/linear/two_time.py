"""The two-time DMFT of linear regression as a solver."""

import math
from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline

from tlcli.errors import UsageError
from tlcli.linear.two_time import spectral_two_time, two_time_extrapolated
from tlcli.status import Status
from tlcli.theories.base import Columns, Parameters

_ACCURACY = 1e-4  # largest distance from the spectral answer that counts as converged
_FASTEST_PHASE = 0.25  # rate of the fastest mode times two steps
_MOST_STEPS = 1000


def two_time_columns(p: Parameters) -> Columns:
    """Losses on the diagonal of the two-time correlations, and the same from the spectrum."""
    alphas, sigmas, times = (np.asarray(p[name], dtype=float) for name in ("alpha2", "sigma2", "time"))
    if not np.all(np.isfinite(times)) or times.max() <= 0:
        raise UsageError("linear-two-time needs finite times, for example --times 0:10:21.")
    line = np.unique(times)
    alphas, sigmas = np.broadcast_arrays(alphas, sigmas)
    rows: dict[str, list[Any]] = {"loss": [], "train_loss": [], "spectral_loss": [], "response": [], "residual": []}
    for alpha, sigma in zip(alphas.ravel().tolist(), sigmas.ravel().tolist(), strict=True):
        grid = two_time_extrapolated(alpha, float(line[-1]), _steps(p, float(alphas.min())), sigma=sigma)
        exact = spectral_two_time(alpha, line, sigma=sigma)
        worst = np.zeros(line.size)
        for name, (ours, theirs) in {
            "loss": (np.diagonal(grid.corr_v), np.diagonal(exact.corr_v)),
            "train_loss": (np.diagonal(grid.corr_delta), np.diagonal(exact.corr_delta)),
            "response": (grid.response_v, exact.response_v),
        }.items():
            rows[name].append(CubicSpline(grid.t, ours)(line))
            worst = np.maximum(worst, np.abs(rows[name][-1] - theirs))
        rows["spectral_loss"].append(np.diagonal(exact.corr_v))
        rows["residual"].append(worst)
    shape = np.broadcast_shapes(alphas.shape, times.shape)
    at = np.broadcast_to(np.searchsorted(line, times), shape)
    row = np.broadcast_to(np.arange(alphas.size).reshape(alphas.shape), shape)
    out = {name: np.array(values)[row, at] for name, values in rows.items()}
    # The spectrum knows the answer: a time grid too coarse for it is no result.
    solved = out["residual"] <= _ACCURACY * np.maximum(1.0, out["spectral_loss"])
    return {**out, "status": np.where(solved, Status.CONVERGED, Status.NOT_CONVERGED).astype(np.int8)}


def _steps(p: Parameters, alpha: float) -> int:
    """Return the steps asked for (an even number), or as many as the fastest mode needs up to `_MOST_STEPS`."""
    if p["steps"] is not None:
        return p["steps"] + p["steps"] % 2
    fastest = (1 + 1 / np.sqrt(alpha)) ** 2
    needed = math.ceil(float(np.max(p["time"])) * fastest / _FASTEST_PHASE)
    return 2 * min(max(needed, 100), _MOST_STEPS // 2)


def two_time_arrays(p: Parameters) -> Columns:
    """Correlation and response functions on the solver's time grid, first axis alpha2 x sigma2 in C order."""
    alphas, sigmas = (a.ravel() for a in np.broadcast_arrays(p["alpha2"], p["sigma2"]))
    last = float(np.max(p["time"]))
    grids = [
        two_time_extrapolated(alpha, last, _steps(p, float(alphas.min())), sigma=sigma)
        for alpha, sigma in zip(alphas.tolist(), sigmas.tolist(), strict=True)
    ]
    names = ("response_v", "response_delta", "corr_v", "corr_delta")
    return {"t": grids[0].t, **{name: np.stack([getattr(grid, name) for grid in grids]) for name in names}}
