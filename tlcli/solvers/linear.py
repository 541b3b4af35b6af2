"""The proportional-limit theory as solvers: thin adapters from grids of options to `tlcli.linear`."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from tlcli.errors import UsageError
from tlcli.linear.ansatz import parse_expression
from tlcli.linear.pretraining import pretrain
from tlcli.linear.structured import structured_transfer
from tlcli.linear.transfer import Transfer, classify, transfer_ansatz, transfer_exact
from tlcli.solvers.base import Columns, Parameters, Solver
from tlcli.status import Status
from tlcli.tasks.digits import digits_spectrum
from tlcli.tasks.spectra import load_spectrum, power_law

_SOURCE = ("alpha1", "gamma0", "sigma1", "weight_decay", "init_scale", "kernel")


def _exact(p: Parameters) -> Columns:
    result = transfer_exact(
        p["alpha1"],
        p["alpha2"],
        rho=p["rho"],
        gamma0=p["gamma0"],
        rho_xi=p["rho_xi"],
        sigma1=p["sigma1"],
        sigma2=p["sigma2"],
        ridge=p["ridge"],
        weight_decay=p["weight_decay"],
        init_scale=p["init_scale"],
        kernel=p["kernel"],
        t1=p["t1"],
        time=p["time"],
    )
    source = result.pretrained
    assert source is not None
    names = ("overlap", "norm2", "bulk", "spike", "c_signal", "c_cross", "c_noise")
    return {**{name: getattr(source, name) for name in names}, **_transfer_columns(result)}


def _ansatz(p: Parameters) -> Columns:
    c = _constants(p)
    result = transfer_ansatz(p["alpha1"], p["alpha2"], **_ansatz_rest(p), **c)
    given = {f"{name}_value": value for name, value in c.items() if isinstance(p[name], str)}
    return {**given, **_transfer_columns(result)}


def _constants(p: Parameters) -> dict[str, Any]:
    """Return c_signal, c_cross and c_noise as arrays: numbers as they are, expressions evaluated."""
    return {
        name: parse_expression(p[name]).evaluate(gamma0=p["gamma0"], alpha1=p["alpha1"])
        if isinstance(p[name], str)
        else np.asarray(p[name], dtype=float)
        for name in ("c_signal", "c_cross", "c_noise")
    }


def _ansatz_relaxed(p: Parameters) -> Columns:
    """The ansatz where it is admissible, NaN elsewhere."""
    c1, c3, c2 = _constants(p).values()
    k = np.asarray(p["bulk"], dtype=float)
    with np.errstate(all="ignore"):
        good = (k + c1 >= 0) & (k + c2 >= 0) & ((k + c1) * (k + c2) >= c3**2)
        good &= np.isfinite(c1) & np.isfinite(c2) & np.isfinite(c3)
    c1, c2, c3 = (np.where(good, c, 0.0) for c in (c1, c2, c3))
    result = transfer_ansatz(p["alpha1"], p["alpha2"], **_ansatz_rest(p), c_signal=c1, c_cross=c3, c_noise=c2)
    columns = _transfer_columns(result)
    return {name: np.where(good, columns[name], np.nan) for name in ("loss", "gain")}


def _ansatz_rest(p: Parameters) -> dict[str, Any]:
    names = ("rho", "gamma0", "rho_xi", "sigma2", "ridge", "bulk", "time")
    return {name: p[name] for name in names}


def _transfer_columns(result: Transfer) -> Columns:
    names = ("loss", "baseline", "gain", "train_loss", "phase", "residual", "status")
    return {name: getattr(result, name) for name in names}


def _pretrain(p: Parameters) -> Columns:
    source = pretrain(
        p["alpha1"],
        p["gamma0"],
        sigma1=p["sigma1"],
        init_scale=p["init_scale"],
        weight_decay=p["weight_decay"],
        t1=p["time"],
        kernel=p["kernel"],
    )
    names = ("overlap", "norm2", "bulk", "spike", "n_signal", "n_noise", "c_signal", "c_cross", "c_noise")
    columns = {name: getattr(source, name) for name in names}
    columns["source_loss"] = 1 - 2 * source.overlap + source.norm2
    return {**columns, "residual": source.residual, "status": source.status}


# What each kind of input spectrum brings along, or has no use for: no options then, and no columns.
_FIXED_BY = {
    "power": ("source", "target", "modes"),
    "digits": ("dim", "spectrum_exponent", "teacher_exponent", "rho", "sigma1", "sigma2"),
    "file": ("dim", "spectrum_exponent", "teacher_exponent", "rho", "source", "target", "modes"),
}


def structured_solver(spectrum: str) -> Solver:
    """Return linear-structured with the parameters that this input spectrum leaves open."""
    solver = TRANSFER["linear-structured"]
    fixed = _FIXED_BY.get(spectrum.partition(":")[0], ())
    return replace(solver, parameters=tuple(name for name in solver.parameters if name not in fixed))


def _kernel_arrays(p: Parameters, columns: Columns) -> Columns:
    """The kernel's 2 x 2 block on (source teacher, noise direction), k I + C, last two axes of the grid's shape."""
    c1, c3, c2, k = np.broadcast_arrays(*(columns[n] for n in ("c_signal", "c_cross", "c_noise", "bulk")))
    block = np.stack([np.stack([k + c1, c3], -1), np.stack([c3, k + c2], -1)], -2)
    return {"kernel": block, "bulk": k, "spike": np.broadcast_to(columns["spike"], k.shape)}


@cache
def spectrum_of(
    kind: str, dim: int, a: float, c: float, source: str | None, target: str | None, modes: int | None
) -> Any:
    """Return the spectrum that the options describe (kept, since a grid asks for it many times).

    Raises:
        UsageError: an unknown kind, or a digits spectrum without its two tasks.
    """
    if kind == "power":
        return power_law(dim, a, c)
    if kind == "digits":
        if source is None or target is None:
            raise UsageError(
                "spectrum digits needs --source and --target, for example --source digits:02468v13579 "
                "--target digits:01234v56789."
            )
        return digits_spectrum(source, target, modes)
    if kind.startswith("file:"):
        return load_spectrum(kind.removeprefix("file:"))
    raise UsageError(f"spectrum: '{kind}' is unknown; use power, digits or file:PATH.")


def _structured(p: Parameters) -> Columns:
    if p["spectrum"] != "power":
        found = spectrum_of(p["spectrum"], 0, 0.0, 0.0, p.get("source"), p.get("target"), p.get("modes"))
        noise = (found.sigma1, found.sigma2) if p["spectrum"] == "digits" else (p["sigma1"], p["sigma2"])
        return _structured_columns(p, found.eigenvalues, found.teacher1, found.teacher2, None, noise)
    a, c = np.broadcast_arrays(p["spectrum_exponent"], p["teacher_exponent"])
    pairs = {(float(x), float(y)) for x, y in zip(a.ravel(), c.ravel(), strict=True)}
    out: Columns = {}
    for pair in sorted(pairs):
        found = spectrum_of("power", p["dim"], *pair, None, None, None)
        teachers = (found.teacher1, found.teacher_orthogonal)
        columns = _structured_columns(p, found.eigenvalues, *teachers, p["rho"], (p["sigma1"], p["sigma2"]))
        if len(pairs) == 1:
            return columns
        here = (a == pair[0]) & (c == pair[1])
        out = {name: np.where(here, column, out.get(name, 0)) for name, column in columns.items()}
    return out


def _structured_columns(p: Parameters, eigenvalues: Any, teacher1: Any, teacher2: Any, rho: Any, noise: Any) -> Columns:
    p2 = np.asarray(p["p2"], dtype=float)
    ridge = np.asarray(p["ridge"], dtype=float)
    if p["reduction"] == "sum":  # the summed loss is P times the mean loss, so its ridge is too
        ridge = np.where(ridge > 0, ridge / p2, 0.0)
    result = structured_transfer(
        eigenvalues,
        teacher1,
        teacher2,
        p["p1"],
        p2,
        p["gamma0"],
        rho=rho,
        sigma1=noise[0],
        sigma2=noise[1],
        ridge=ridge,
        init_scale=p["init_scale"],
    )
    names = ("norm2", "spike", "kappa1", "kappa2", "source_loss", "loss", "baseline", "gain")
    columns = {name: getattr(result, name) for name in names}
    with np.errstate(divide="ignore", invalid="ignore"):
        columns["relative_gain"] = np.where(result.baseline > 0, result.gain / result.baseline, 0.0)
    columns["phase"] = classify(result.gain, result.baseline)
    return {**columns, "residual": result.residual, "status": result.status}


def _two_time(p: Parameters) -> Columns:
    """Losses on the diagonal of the two-time correlations, and the same from the spectrum."""
    from scipy.interpolate import CubicSpline

    from tlcli.linear.two_time import spectral_two_time, two_time_extrapolated

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


def _two_time_arrays(p: Parameters, columns: Columns) -> Columns:
    """Correlation and response functions on the solver's time grid, first axis alpha2 x sigma2 in C order."""
    from tlcli.linear.two_time import two_time_extrapolated

    alphas, sigmas = (a.ravel() for a in np.broadcast_arrays(p["alpha2"], p["sigma2"]))
    last = float(np.max(p["time"]))
    grids = [
        two_time_extrapolated(alpha, last, p["steps"], sigma=sigma)
        for alpha, sigma in zip(alphas.tolist(), sigmas.tolist(), strict=True)
    ]
    names = ("response_v", "response_delta", "corr_v", "corr_delta")
    return {"t": grids[0].t, **{name: np.stack([getattr(grid, name) for grid in grids]) for name in names}}


def _joint(p: Parameters) -> Columns:
    from tlcli.linear.stages import joint

    gamma2 = p["gamma0"] if p["gamma2"] is None else p["gamma2"]
    result = joint(
        p["alpha1"],
        p["alpha2"],
        rho=p["rho"],
        gamma1=p["gamma0"],
        gamma2=gamma2,
        sigma1=p["sigma1"],
        sigma2=p["sigma2"],
        weight_decay1=p["weight_decay"],
        weight_decay2=p["weight_decay2"],
        t1=p["t1"],
        t2=p["time"],
        init_scale=p["init_scale"],
    )
    names = (
        "overlap",
        "norm2",
        "source_loss_before",
        "loss",
        "baseline",
        "gain",
        "source_loss",
        "forgetting",
        "norm2_end",
    )
    columns = {name: getattr(result, name) for name in names}
    columns["phase"] = classify(result.gain, result.baseline, result.status == Status.COLLAPSED)
    return {**columns, "residual": result.residual, "status": result.status}


PRETRAINING = {
    "linear-exact": Solver(
        "linear-exact",
        (*_SOURCE, "time"),
        _pretrain,
        ("regression", "population", "network"),
        quantity="spike",
        arrays=_kernel_arrays,
        archive="kernel",
    ),
}

TRANSFER = {
    "linear-exact": Solver(
        "linear-exact",
        (
            "alpha1",
            "alpha2",
            "rho",
            "rho_xi",
            "gamma0",
            "sigma1",
            "sigma2",
            "weight_decay",
            "init_scale",
            "kernel",
            "ridge",
            "t1",
            "time",
        ),
        _exact,
        ("regression", "population", "network"),
    ),
    "linear-ansatz": Solver(
        "linear-ansatz",
        (
            "alpha1",
            "alpha2",
            "rho",
            "rho_xi",
            "gamma0",
            "sigma2",
            "ridge",
            "bulk",
            "c_signal",
            "c_cross",
            "c_noise",
            "time",
        ),
        _ansatz,
        ("regression",),
        relaxed=_ansatz_relaxed,
    ),
    "linear-joint": Solver(
        "linear-joint",
        (
            "alpha1",
            "alpha2",
            "rho",
            "gamma0",
            "gamma2",
            "sigma1",
            "sigma2",
            "weight_decay",
            "weight_decay2",
            "init_scale",
            "t1",
            "time",
        ),
        _joint,
        ("population", "network"),
        closed_form=False,
    ),
    "linear-structured": Solver(
        "linear-structured",
        (
            "spectrum",
            "dim",
            "spectrum_exponent",
            "teacher_exponent",
            "source",
            "target",
            "modes",
            "p1",
            "p2",
            "rho",
            "gamma0",
            "sigma1",
            "sigma2",
            "init_scale",
            "ridge",
            "reduction",
        ),
        _structured,
        ("regression",),
        closed_form=False,
    ),
    "linear-two-time": Solver(
        "linear-two-time",
        ("alpha2", "sigma2", "steps", "time"),
        _two_time,
        ("regression",),
        closed_form=False,
        arrays=_two_time_arrays,
        archive="two-time",
    ),
}
