"""The two-time DMFT of linear regression as a solver."""

from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline

from tlcli.errors import UsageError
from tlcli.linear.two_time import spectral_two_time, two_time_extrapolated
from tlcli.solvers.base import Columns, Parameters
from tlcli.status import Status


def two_time_columns(p: Parameters) -> Columns:
    """Losses on the diagonal of the two-time correlations, and the same from the spectrum."""
    alphas, sigmas, times = (np.asarray(p[name], dtype=float) for name in ("alpha2", "sigma2", "time"))
    if not np.all(np.isfinite(times)) or times.max() <= 0:
        raise UsageError("linear-two-time needs finite times, for example --times 0:10:21.")
    line = np.unique(times)
    alphas, sigmas = np.broadcast_arrays(alphas, sigmas)
    rows: dict[str, list[Any]] = {"loss": [], "train_loss": [], "spectral_loss": [], "response": []}
    for alpha, sigma in zip(alphas.ravel().tolist(), sigmas.ravel().tolist(), strict=True):
        grid = two_time_extrapolated(alpha, float(line[-1]), p["steps"], sigma=sigma)
        curves = (np.diagonal(grid.corr_v), np.diagonal(grid.corr_delta), grid.response_v)
        for name, curve in zip(("loss", "train_loss", "response"), curves, strict=True):
            rows[name].append(CubicSpline(grid.t, curve)(line))
        rows["spectral_loss"].append(np.diagonal(spectral_two_time(alpha, line, sigma=sigma).corr_v))
    shape = np.broadcast_shapes(alphas.shape, times.shape)
    at = np.broadcast_to(np.searchsorted(line, times), shape)
    row = np.broadcast_to(np.arange(alphas.size).reshape(alphas.shape), shape)
    out = {name: np.array(values)[row, at] for name, values in rows.items()}
    residual = np.abs(out["loss"] - out["spectral_loss"])
    return {**out, "residual": residual, "status": np.full(shape, Status.CONVERGED, dtype=np.int8)}


def two_time_arrays(p: Parameters, columns: Columns) -> Columns:
    """Correlation and response functions on the solver's time grid, first axis alpha2 x sigma2 in C order."""
    alphas, sigmas = (a.ravel() for a in np.broadcast_arrays(p["alpha2"], p["sigma2"]))
    last = float(np.max(p["time"]))
    grids = [
        two_time_extrapolated(alpha, last, p["steps"], sigma=sigma)
        for alpha, sigma in zip(alphas.tolist(), sigmas.tolist(), strict=True)
    ]
    names = ("response_v", "response_delta", "corr_v", "corr_delta")
    return {"t": grids[0].t, **{name: np.stack([getattr(grid, name) for grid in grids]) for name in names}}
