"""The proportional-limit theory as solvers: thin adapters from grids of options to `tlcli.linear`."""

from dataclasses import replace
from typing import Any

import numpy as np

from tlcli.errors import DomainError
from tlcli.linear.ansatz import parse_expression
from tlcli.linear.pretraining import collapse_ratio, pretrain
from tlcli.linear.transfer import Transfer, transfer_ansatz, transfer_exact
from tlcli.status import SOLVED, Status, phase_of
from tlcli.theories.base import Columns, Parameters, Solver
from tlcli.theories.linear.structured import structured_columns
from tlcli.theories.linear.two_time import two_time_arrays, two_time_columns

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


def _collapse_margin(p: Parameters) -> Any:
    """Positive where features survive endless pre-training with weight decay (docs/theory.md, Section 2)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        margin = np.log(collapse_ratio(p["alpha1"], p["gamma0"], p["weight_decay"], p["sigma1"]))
    endless = np.isinf(np.asarray(p["t1"], dtype=float)) & (np.asarray(p["weight_decay"], dtype=float) > 0)
    return np.where(endless & ~np.isnan(margin), margin, 1.0)


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


def _joint(p: Parameters) -> Columns:
    from tlcli.linear.stages import joint

    gamma2 = p["gamma0"] if p["gamma2"] is None else p["gamma2"]
    for name, values in (("gamma0", p["gamma0"]), ("gamma2", gamma2)):
        if np.any(np.isinf(values)):
            raise DomainError(f"{name} = inf is no limit of joint training; use a large finite {name}.")
    if p["gamma2"] is not None and np.any(np.asarray(gamma2) == 0):
        raise DomainError("gamma2 = 0 is not allowed in linear-joint; it must be > 0.")
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
    columns["phase"] = phase_of(
        result.gain, result.loss, result.baseline, relative=SOLVED, collapsed=result.status == Status.COLLAPSED
    )
    return {**columns, "residual": result.residual, "status": result.status}


def _joint_relaxed(p: Parameters) -> Columns:
    """Joint training where it can be integrated: an infinite richness gives NaN."""
    names = ("gamma0",) if p["gamma2"] is None else ("gamma0", "gamma2")
    infinite = np.isinf(np.asarray(p[names[0]], dtype=float))
    safe = {name: np.where(np.isinf(p[name]), 1.0, p[name]) for name in names}
    for name in names[1:]:
        infinite = infinite | np.isinf(p[name])
    columns = _joint({**p, **safe})
    return {name: np.where(infinite, np.nan, columns[name]) for name in ("loss", "gain")}


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
        collapse=_collapse_margin,
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
        relaxed=_joint_relaxed,
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
        structured_columns,
        ("regression",),
        closed_form=False,
    ),
    "linear-two-time": Solver(
        "linear-two-time",
        ("alpha2", "sigma2", "steps", "time"),
        two_time_columns,
        ("regression",),
        closed_form=False,
        arrays=two_time_arrays,
        archive="two-time",
    ),
}
