"""Structured inputs as a solver: power laws, the digits, or a spectrum from a file."""

from functools import cache
from typing import Any

import numpy as np

from tlcli.errors import UsageError
from tlcli.linear.structured import structured_transfer
from tlcli.status import EXACT, phase_of
from tlcli.tasks.digits import digits_spectrum
from tlcli.tasks.spectra import load_spectrum, power_law
from tlcli.theories.base import Columns, Parameters


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


def structured_columns(p: Parameters) -> Columns:
    """Evaluate Section 6 on the grid, for whichever spectrum the options name."""
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
    with np.errstate(over="ignore"):
        power = np.asarray(eigenvalues @ np.square(teacher1 if rho is not None else teacher2))
    names = ("norm2", "spike", "kappa1", "kappa2", "source_loss", "loss", "baseline", "gain")
    columns = {name: getattr(result, name) for name in names}
    with np.errstate(divide="ignore", invalid="ignore"):
        columns["relative_gain"] = np.where(result.baseline == 0, 0.0, result.gain / result.baseline)
    columns["phase"] = phase_of(result.gain, result.loss, result.baseline, relative=EXACT, power=power)
    return {**columns, "residual": result.residual, "status": result.status}
