"""Input spectra with a pair of linear teachers: power laws, and the user's own from an NPZ file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tlcli.arrays import Floats
from tlcli.errors import DomainError, UsageError, digits
from tlcli.paths import expanded
from tlcli.tasks.files import read_bytes, read_npz

_DECADES = 306  # losses are this small or large at most, in any unit


@dataclass(frozen=True)
class Spectrum:
    """Teachers in the eigenbasis of the inputs' covariance, all (n_modes,).

    The two teachers have unit norm and are orthogonal in Sigma: sum lambda t^2 = 1, sum lambda t1
    t_orthogonal = 0.
    """

    eigenvalues: Floats
    teacher1: Floats
    teacher_orthogonal: Floats

    def target(self, rho: float) -> Floats:
        """beta*2 = rho beta*1 + sqrt(1 - rho^2) beta_orthogonal, (n_modes,)."""
        if not abs(rho) <= 1:
            raise DomainError(f"rho = {digits(rho)}: it must lie in [-1, 1].")
        return rho * self.teacher1 + np.sqrt(1 - rho**2) * self.teacher_orthogonal


@dataclass(frozen=True)
class FileSpectrum:
    """A spectrum with two teachers as the user gave them, (n_modes,) each, neither normalised nor orthogonalised.

    `rho` is their overlap in Sigma, between -1 and 1.
    """

    eigenvalues: Floats
    teacher1: Floats
    teacher2: Floats
    rho: float


def power_law(dim: int, spectrum_exponent: float, teacher_exponent: float) -> Spectrum:
    """lambda_k = k^-a normalised to mean 1; teacher1 = k^-c cos k; orthogonal part from k^-c sin(2k + 1).

    `dim` >= 2. Both teachers are normalised in Sigma. Raises DomainError for other dimensions or infinite
    exponents.
    """
    if dim < 2 or not np.isfinite([spectrum_exponent, teacher_exponent]).all():
        raise DomainError(
            f"power law of dim = {dim}, exponents {spectrum_exponent:g} and {teacher_exponent:g}: "
            "dim must be at least 2 and the exponents finite."
        )
    k = np.arange(1, dim + 1, dtype=float)
    eigenvalues = k**-spectrum_exponent
    eigenvalues /= eigenvalues.mean()
    teacher1 = k**-teacher_exponent * np.cos(k)
    teacher1 /= np.sqrt(eigenvalues @ teacher1**2)
    other = k**-teacher_exponent * np.sin(2 * k + 1)
    other -= (eigenvalues @ (teacher1 * other)) * teacher1
    return Spectrum(eigenvalues, teacher1, other / np.sqrt(eigenvalues @ other**2))


def load_spectrum(path: str | Path) -> FileSpectrum:
    """Read the arrays eigenvalues, teacher1, teacher2, one-dimensional and of one length, from an NPZ file.

    Raises UsageError, in one sentence, for a file or an array that cannot be used.
    """
    path, names = expanded(path), ("eigenvalues", "teacher1", "teacher2")
    found = read_npz(path, read_bytes(path, (".npz",)), names, ())
    arrays = [found[name] for name in names]
    for name, array in zip(names, arrays, strict=True):
        if array.ndim != 1 or array.size == 0 or array.shape != arrays[0].shape:
            raise UsageError(f"{path}: {name} has shape {array.shape}; all three arrays must be (n_modes,).")
        if not np.isfinite(array).all():
            raise UsageError(f"{path}: {name}[{np.flatnonzero(~np.isfinite(array))[0]}] is not finite.")
    eigenvalues, teacher1, teacher2 = arrays
    if eigenvalues.min() < 0 or eigenvalues.max() == 0:
        raise UsageError(f"{path}: eigenvalues go down to {eigenvalues.min():g}; they must be >= 0, not all zero.")
    live = eigenvalues > 0
    for name, teacher in zip(names[1:], (teacher1, teacher2), strict=True):
        if not teacher[live].any():
            raise UsageError(f"{path}: {name} has no weight on modes with a positive eigenvalue.")
    # In units of the largest value each, so that no square overflows or underflows.
    first, second = (
        np.sqrt(eigenvalues / eigenvalues.max()) * (t / np.abs(t[live]).max()) for t in (teacher1, teacher2)
    )
    for name, teacher, unit in zip(names[1:], (teacher1, teacher2), (first, second), strict=True):
        size = np.log10(unit @ unit) + np.log10(eigenvalues.max()) + 2 * np.log10(np.abs(teacher[live]).max())
        if abs(size) > _DECADES:
            raise UsageError(
                f"{path}: the labels of {name} have a mean square of 1e{size:+.0f}, beyond 1e±{_DECADES}; choose other "
                f"units: multiply {name} by 1e{-size / 2:+.0f}."
            )
    rho = float(first @ second) / float(np.linalg.norm(first) * np.linalg.norm(second))
    return FileSpectrum(eigenvalues, teacher1, teacher2, float(np.clip(rho, -1, 1)))
