"""Polynomial tasks on Gaussian inputs: `linear`, `hermite:K` and mixtures such as `he1+0.5*he3`.

With x ~ N(0, I_D) and a unit direction beta, the projection z = beta.x is a standard normal variable and the
label is y = sum_k c_k He_k(z) / sqrt(k!), with He_k the probabilists' Hermite polynomials. The terms are
orthonormal, E[he_j he_k] = delta_jk, and two directions with overlap rho give E[he_j(z1) he_k(z2)] =
rho^k delta_jk. A mixture is not normalised further: its variance is sum_k c_k^2.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlcli.arrays import Floats
from tlcli.errors import DomainError, UsageError, digits, suggest
from tlcli.tasks.data import Purpose, TransferData, stream

MAX_DEGREE = 12
EXAMPLE = "he1+0.5*he3"

NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_TERM = re.compile(rf"\s*(?P<sign>[+-])?\s*(?:(?P<number>{NUMBER})\s*\*\s*)?(?:linear|he(?:rmite:)?(?P<k>[0-9]+))\s*")
_LOOKS_LIKE = re.compile(r"(?<![a-z])(?:linear|hermite|he[0-9])")
_TERMS = ("linear", *(f"he{k}" for k in range(1, MAX_DEGREE + 1)))


@dataclass(frozen=True)
class PolynomialTask:
    """A sum of normalised Hermite polynomials: `terms` are (k, c_k), sorted by degree, without zeros."""

    terms: tuple[tuple[int, float], ...]

    def __call__(self, z: Floats) -> Floats:
        """Labels sum_k c_k He_k(z) / sqrt(k!) of the projections z, of the shape of z."""
        values = hermite_values(z, self.terms[-1][0])
        return sum((c * values[k] for k, c in self.terms), np.zeros_like(z, dtype=float))

    @property
    def coefficients(self) -> dict[str, float]:
        """The coefficients by name, e.g. {'he1': 1.0, 'he3': 0.5}."""
        return {f"he{k}": c for k, c in self.terms}


def is_polynomial(text: str) -> bool:
    """Whether the text names a Hermite polynomial, so that a mistake in it is a mistake of this grammar."""
    return bool(_LOOKS_LIKE.search(text))


def parse_polynomial(text: str) -> PolynomialTask:
    """Read `linear`, `hermite:K`, `heK` or a sum such as `he1+0.5*he3`, `2*linear - he2`; nothing is evaluated.

    Raises UsageError, one sentence with the bad part, for anything else, for degrees outside 1 .. 12 and for
    a sum that vanishes.
    """
    coefficients: dict[int, float] = {}
    position = 0
    while position < len(text) or not coefficients:
        match = _TERM.match(text, position)
        rest = text[position:].strip()
        if match is None or (coefficients and not match["sign"]):
            word = re.sub(rf"^[+-]?\s*(?:{NUMBER}\s*\*\s*)?", "", rest)
            found = repr(rest) if rest else "a missing term"
            raise UsageError(
                f"{text!r}: cannot read {found}{suggest(word, _TERMS)}; a polynomial task is linear, hermite:K or "
                f"a sum of heK with numbers in front, e.g. {EXAMPLE}."
            )
        degree = int(match["k"]) if match["k"] else 1
        if not 1 <= degree <= MAX_DEGREE:
            raise UsageError(f"{text!r}: degree {degree} is outside 1 to {MAX_DEGREE}.")
        value = float(match["number"] or 1) * (-1 if match["sign"] == "-" else 1)
        if not np.isfinite(value):
            raise UsageError(f"{text!r}: the coefficient {match['number']} of he{degree} is not finite.")
        coefficients[degree] = coefficients.get(degree, 0.0) + value
        position = match.end()
    terms = tuple((k, c) for k, c in sorted(coefficients.items()) if c != 0)
    if not terms:
        raise UsageError(f"{text!r}: its terms cancel; a task needs at least one non-zero coefficient.")
    return PolynomialTask(terms)


def hermite_values(z: Floats, degree: int) -> Floats:
    """Normalised Hermite polynomials He_k(z) / sqrt(k!) for k = 0 .. degree, of shape (degree + 1, *z.shape).

    From the recursion sqrt(k + 1) he_{k+1} = z he_k - sqrt(k) he_{k-1}, which never forms a factorial.
    """
    z = np.asarray(z, dtype=float)
    values = np.ones((degree + 1, *z.shape))
    if degree >= 1:
        values[1] = z
    for k in range(1, degree):
        values[k + 1] = (z * values[k] - np.sqrt(k) * values[k - 1]) / np.sqrt(k + 1)
    return values


def directions(dim: int, rho: float, seed: int, draw: int) -> tuple[Floats, Floats]:
    """Unit directions beta1, beta2 = rho beta1 + sqrt(1 - rho^2) beta_perp, (dim,) each.

    beta1 and beta_perp do not depend on rho. Raises DomainError unless |rho| <= 1, and |rho| = 1 in one
    dimension, where there is no orthogonal direction.
    """
    if not abs(rho) <= 1:
        raise DomainError(f"rho = {digits(rho)}: the overlap of the two directions must lie in [-1, 1].")
    if dim == 1 and abs(rho) != 1:
        raise DomainError(f"rho = {rho:g}: in dim = 1 the only overlaps are 1 and -1; use dim >= 2.")
    rng = stream(seed, draw, Purpose.DIRECTIONS)
    first, other = rng.standard_normal(dim), rng.standard_normal(dim)
    first /= np.linalg.norm(first)
    if dim == 1:
        return first, rho * first
    for _ in range(2):  # twice is enough for orthogonality to rounding
        other -= (first @ other) * first
    return first, rho * first + np.sqrt(1 - rho**2) * other / np.linalg.norm(other)


def inputs(dim: int, points: tuple[int, int, int], seed: int, draw: int) -> list[Floats]:
    """Draw N(0, I_dim) inputs (points, dim) of the source, of the target and to test on, each from its own stream."""
    purposes = (Purpose.SOURCE_INPUTS, Purpose.TARGET_INPUTS, Purpose.TEST_INPUTS)
    return [stream(seed, draw, one).standard_normal((n, dim)) for one, n in zip(purposes, points, strict=True)]


def gaussian_data(
    source: str, target: str, *, dim: int, rho: float, p1: int, p2: int, ptest: int, seed: int, draw: int
) -> TransferData:
    """Draw Gaussian inputs with noiseless labels of two polynomial tasks; test points carry both labels.

    Inputs are N(0, I_dim). Raises UsageError for tasks that cannot be read, DomainError for rho.
    """
    first, second = parse_polynomial(source), parse_polynomial(target)
    beta1, beta2 = directions(dim, rho, seed, draw)

    def project(x: Floats, beta: Floats) -> Floats:
        # Row by row, not by BLAS: the same digits for a point whatever the number of points beside it.
        return np.sum(x * beta, axis=1)

    x1, x2, test = inputs(dim, (p1, p2, ptest), seed, draw)
    description: dict[str, Any] = {
        "inputs": "x ~ N(0, I_D)",
        "labels": "y = sum_k c_k He_k(beta.x)/sqrt(k!), |beta| = 1; a mixture is not normalised further",
        "source_coefficients": first.coefficients,
        "target_coefficients": second.coefficients,
        "rho": float(rho),
        "test_labels": "both tasks, without noise",
    }
    return TransferData(
        x_source=x1,
        y_source=first(project(x1, beta1)),
        x_target=x2,
        y_target=second(project(x2, beta2)),
        x_test=test,
        y_test_source=first(project(test, beta1)),
        y_test_target=second(project(test, beta2)),
        description=description,
    )
