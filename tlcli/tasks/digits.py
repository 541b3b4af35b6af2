"""Transfer tasks on real images: scikit-learn's bundled 8 x 8 digits, no download.

Grammar: `digits:3v8`, or groups, `digits:02468v13579`: label +1 for a digit left of the v, -1 right of it.
Inputs are centred over the images of the task and scaled to mean |x|^2 / 64 = 1. Labels are centred as well
and scaled to unit variance, so unequal groups need no bias: for equal groups they stay +1 and -1.
"""

from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Floats
from tlcli.errors import UsageError

PREFIX = "digits:"
EXAMPLE = "digits:02468v13579"
DIM = 64


@dataclass(frozen=True)
class DigitsTask:
    """The digits labelled +1 (`left`) and -1 (`right`), sorted."""

    left: tuple[int, ...]
    right: tuple[int, ...]

    @property
    def digits(self) -> tuple[int, ...]:
        """All digits of the task, sorted."""
        return tuple(sorted(self.left + self.right))


@dataclass(frozen=True)
class DigitsSpectrum:
    """Two labellings of the same n images, in the basis of principal components, largest first.

    `eigenvalues` (n_modes,) of Sigma = x^T x / n, zeros kept; `teacher1`, `teacher2` (n_modes,)
    least-squares weights on all images, zero on modes without variance; `sigma1`, `sigma2` root mean square of what is
    left of the labels, which acts as label noise; `rho` the overlap of the teachers in Sigma; `x` (n,
    n_modes) inputs in that basis; `y1`, `y2` (n,) labels of zero mean and unit variance; `basis` (64,
    n_modes) with pixels = x basis^T.
    """

    eigenvalues: Floats
    teacher1: Floats
    teacher2: Floats
    sigma1: float
    sigma2: float
    rho: float
    x: Floats
    y1: Floats
    y2: Floats
    basis: Floats


def parse_digits_task(text: str) -> DigitsTask:
    """Read `digits:3v8`. Raises UsageError, one sentence with the bad value, for anything else."""
    body = text.strip().removeprefix(PREFIX)
    if body == text.strip():
        raise UsageError(f"{text!r} is not a digits task: write e.g. {EXAMPLE} or digits:3v8.")
    sides = body.split("v")
    if len(sides) != 2 or not all(sides):
        raise UsageError(f"{text!r} needs digits on both sides of one 'v', e.g. digits:3v8.")
    if "10" in sides[0] or "10" in sides[1]:  # more likely the number ten than the digits 1 and 0
        raise UsageError(f"{text!r}: there is no digit 10; write 01 for the digits 0 and 1.")
    for character in sides[0] + sides[1]:
        if character not in "0123456789":
            raise UsageError(f"{text!r}: {character!r} is not a digit; write e.g. {EXAMPLE}.")
    for digit in "0123456789":
        if digit in sides[0] and digit in sides[1]:
            raise UsageError(f"{text!r}: digit {digit} stands on both sides of the 'v'; keep it on one.")
        if (sides[0] + sides[1]).count(digit) > 1:
            raise UsageError(f"{text!r}: digit {digit} is written twice; write it once.")
    left, right = (tuple(sorted(int(c) for c in side)) for side in sides)
    return DigitsTask(left, right)


def digits_arrays(task: str | DigitsTask) -> tuple[Floats, Floats]:
    """Inputs x (n, 64), centred, mean |x|^2/64 = 1, and labels y (n,) = +1 or -1 (not yet centred)."""
    task = parse_digits_task(task) if isinstance(task, str) else task
    from sklearn.datasets import load_digits  # lazy: importing scikit-learn takes longer than most commands

    data, labels = load_digits(return_X_y=True)
    images, target = np.asarray(data, dtype=float), np.asarray(labels)
    chosen = np.isin(target, task.digits)
    x = images[chosen] - images[chosen].mean(axis=0)
    x /= np.sqrt(np.mean(x**2))
    return x, np.where(np.isin(target[chosen], task.left), 1.0, -1.0)


def digits_spectrum(source: str | DigitsTask, target: str | DigitsTask, n_modes: int | None = None) -> DigitsSpectrum:
    """Spectrum and teachers of two tasks that label the same images differently.

    `n_modes` keeps that many leading principal components. Pixels that are inked in a handful of images
    make the smallest components far from Gaussian, and a ridgeless fit near or beyond P = rank divides by
    them: theory and experiment then differ by large factors on all 64 components.

    Raises UsageError if the tasks use different sets of digits: Section 6 has one input distribution.
    """
    first = parse_digits_task(source) if isinstance(source, str) else source
    second = parse_digits_task(target) if isinstance(target, str) else target
    if first.digits != second.digits:
        raise UsageError(
            f"Source digits {_join(first.digits)} and target digits {_join(second.digits)} differ: both tasks must "
            "label the same images, e.g. digits:02468v13579 with digits:01234v56789."
        )
    x, y1 = digits_arrays(first)
    y1, y2 = _standardise(y1), _standardise(digits_arrays(second)[1])
    eigenvalues, basis = np.linalg.eigh(x.T @ x / len(x))
    order = np.argsort(eigenvalues)[::-1]
    eigenvalues, basis = eigenvalues[order], basis[:, order]
    live = eigenvalues > DIM * np.finfo(float).eps * eigenvalues[0]
    eigenvalues = np.where(live, eigenvalues, 0.0)
    x = np.where(live, x @ basis, 0.0)
    if n_modes is not None:
        if not 1 <= n_modes <= DIM:
            raise UsageError(f"n_modes = {n_modes}: the digits have 1 to {DIM} principal components.")
        eigenvalues, basis, x = eigenvalues[:n_modes], basis[:, :n_modes], x[:, :n_modes]
    teacher1, sigma1 = _least_squares(x, y1, eigenvalues)
    teacher2, sigma2 = _least_squares(x, y2, eigenvalues)
    power1, power2 = eigenvalues @ teacher1**2, eigenvalues @ teacher2**2
    rho = float(eigenvalues @ (teacher1 * teacher2) / np.sqrt(power1 * power2))
    return DigitsSpectrum(eigenvalues, teacher1, teacher2, sigma1, sigma2, rho, x, y1, y2, basis)


def _standardise(y: Floats) -> Floats:
    return (y - y.mean()) / y.std()


def _least_squares(x: Floats, y: Floats, eigenvalues: Floats) -> tuple[Floats, float]:
    """Weights (n_modes,) of the regression on all images in the principal basis and the rms of the residual labels."""
    live = eigenvalues > 0
    teacher = np.where(live, x.T @ y / len(x), 0.0) / np.where(live, eigenvalues, 1.0)
    return teacher, float(np.sqrt(np.mean((y - x @ teacher) ** 2)))


def _join(digits: tuple[int, ...]) -> str:
    return "".join(str(d) for d in digits)
