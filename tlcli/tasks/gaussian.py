"""Tasks on Gaussian inputs beyond one polynomial: classes by sign or argmax, and polynomials of several directions.

    sign:he1+0.5*he3    labels +1 and -1, the sign of a polynomial task (two classes)
    argmax:3            the class c of C whose direction has the largest projection beta_c . x
    he1(1)+he1(1)he1(2) a sum of products of Hermite polynomials of the projections on directions 1, 2, ...

Every direction of the target has the overlap rho with that of the source of the same number; all others are orthogonal.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlcli.arrays import Array, Floats
from tlcli.errors import DomainError, UsageError, digits
from tlcli.tasks import polynomial
from tlcli.tasks.data import Purpose, TransferData, stream

SIGN, ARGMAX = "sign:", "argmax:"
MOST_CLASSES = 100
MOST_DIRECTIONS = 9

_FACTOR = re.compile(r"he([0-9]+)\(([0-9]+)\)")
_PRODUCT = re.compile(
    rf"\s*(?P<sign>[+-])?\s*(?:(?P<number>{polynomial.NUMBER})\s*\*\s*)?(?P<product>(?:\s*he[0-9]+\([0-9]+\))+)\s*"
)


@dataclass(frozen=True)
class GaussianTask:
    """Labels as a function of the projections on `directions` axes; `classes` C, None for numbers.

    `terms` are (coefficient, ((degree, axis), ...)), axes from 0; of argmax there are none.
    """

    text: str
    terms: tuple[tuple[float, tuple[tuple[int, int], ...]], ...]
    directions: int
    classes: int | None = None

    def __call__(self, z: Floats) -> Floats:
        """Return the labels (n,) of projections z (n, directions)."""
        if not self.terms:
            return np.argmax(z, axis=1).astype(float)
        values = np.zeros(len(z))
        degree = max(k for _, factors in self.terms for k, _ in factors)
        table = polynomial.hermite_values(z, degree)
        for c, factors in self.terms:
            values += c * np.prod([table[k, :, axis] for k, axis in factors], axis=0)
        return np.where(values >= 0, 1.0, -1.0) if self.classes == 2 else values

    @property
    def odd(self) -> bool:
        """Whether the label changes its sign with x."""
        return bool(self.terms) and all(sum(k for k, _ in factors) % 2 for _, factors in self.terms)


def is_gaussian(text: str) -> bool:
    """Whether the text is a task on Gaussian inputs, so that a mistake in it is a mistake of this grammar."""
    return text.startswith((SIGN, ARGMAX)) or polynomial.is_polynomial(text)


def is_plain(text: str) -> bool:
    """Whether the text is a polynomial of one direction."""
    return not text.startswith((SIGN, ARGMAX)) and "(" not in text


def parse(text: str) -> GaussianTask:
    """Read a task of this module, or a polynomial of one direction.

    Raises UsageError, one sentence with the bad part, for anything else.
    """
    if text.startswith(ARGMAX):
        body = text.removeprefix(ARGMAX).strip()
        if not (body.isascii() and body.isdigit()) or not 2 <= int(body) <= MOST_CLASSES:
            raise UsageError(
                f"{text!r}: {body!r} is no number of classes from 2 to {MOST_CLASSES}; write e.g. argmax:3."
            )
        if int(body) == 2:  # the sign of the difference of two projections
            terms = ((1.0, ((1, 0),)), (-1.0, ((1, 1),)))
            return GaussianTask(text, terms, 2, 2)
        return GaussianTask(text, (), int(body), int(body))
    if text.startswith(SIGN):
        inner = parse(text.removeprefix(SIGN).strip())
        if inner.classes is not None:
            raise UsageError(
                f"{text!r}: the sign of classes is no task; write sign: and a polynomial, e.g. sign:linear."
            )
        return GaussianTask(text, inner.terms, inner.directions, 2)
    if "(" in text:
        return _products(text)
    terms = polynomial.parse_polynomial(text).terms
    return GaussianTask(text, tuple((c, ((k, 0),)) for k, c in terms), 1)


def _products(text: str) -> GaussianTask:
    """Read `he1(1)+0.5*he1(1)he1(2)`."""
    found: dict[tuple[tuple[int, int], ...], float] = {}
    position = 0
    while position < len(text) or not found:
        match = _PRODUCT.match(text, position)
        if match is None or (found and not match["sign"]):
            rest = text[position:].strip() or "a missing term"
            raise UsageError(
                f"{text!r}: cannot read {rest!r}; a polynomial of several directions is a sum of products such as "
                "he1(1)+0.5*he1(1)he2(2), with the number of the direction in brackets."
            )
        powers: dict[int, int] = {}
        for degree, axis in ((int(k), int(i)) for k, i in _FACTOR.findall(match["product"])):
            if not 1 <= degree <= polynomial.MAX_DEGREE:
                raise UsageError(f"{text!r}: degree {degree} is outside 1 to {polynomial.MAX_DEGREE}.")
            if not 1 <= axis <= MOST_DIRECTIONS:
                raise UsageError(f"{text!r}: direction {axis} is outside 1 to {MOST_DIRECTIONS}.")
            if axis - 1 in powers:
                raise UsageError(f"{text!r}: direction {axis} stands twice in one product; write one he of it.")
            powers[axis - 1] = degree
        key = tuple((degree, axis) for axis, degree in sorted(powers.items()))
        value = float(match["number"] or 1) * (-1 if match["sign"] == "-" else 1)
        found[key] = found.get(key, 0.0) + value
        position = match.end()
    terms = tuple((c, key) for key, c in found.items() if c != 0)
    if not terms or not all(np.isfinite(c) for c, _ in terms):
        raise UsageError(f"{text!r}: its terms cancel or are not finite; a task needs a non-zero coefficient.")
    return GaussianTask(text, terms, 1 + max(axis for _, factors in terms for _, axis in factors))


def check_directions(first: GaussianTask, second: GaussianTask, dim: int) -> None:
    """Refuse tasks of more directions than the inputs have. Raises UsageError."""
    needed = 2 * max(first.directions, second.directions)
    if max(first.directions, second.directions) > 1 and dim < needed:
        task = max(first, second, key=lambda one: one.directions)
        raise UsageError(
            f"dim = {dim}: {task.text} has {task.directions} directions, and those of source and target need dim >= "
            f"{needed}."
        )


def axes_of(dim: int, rho: float, seed: int, draw: int, count: int) -> tuple[Floats, Floats]:
    """Return orthonormal directions (count, dim) of the source and of the target; the first are those of polynomials.

    Raises DomainError as `tlcli.tasks.polynomial.directions`.
    """
    beta1, beta2 = polynomial.directions(dim, rho, seed, draw)
    if count == 1:
        return beta1[None], beta2[None]
    rng = stream(seed, draw, Purpose.DIRECTIONS)
    drawn = rng.standard_normal((2 * count, dim))  # the first two are those of `directions`
    basis: list[Floats] = []
    for vector in drawn:
        for _ in range(2):  # twice is enough for orthogonality to rounding
            for known in basis:
                vector = vector - (known @ vector) * known
        basis.append(vector / np.linalg.norm(vector))
    rows = np.array(basis)
    first, other = rows[0::2], rows[1::2]
    second = rho * first + np.sqrt(1 - rho**2) * other
    return np.concatenate([beta1[None], first[1:]]), np.concatenate([beta2[None], second[1:]])


def gaussian_classes(
    source: str, target: str, *, dim: int, rho: float, p1: int, p2: int, ptest: int, seed: int, draw: int
) -> TransferData:
    """Draw Gaussian inputs N(0, I_dim) with labels of two tasks of this module; test points carry both labels.

    Raises UsageError for tasks that cannot be read and too few dimensions, DomainError for rho.
    """
    first, second = parse(source), parse(target)
    check_directions(first, second, dim)
    axes1, axes2 = axes_of(dim, rho, seed, draw, max(first.directions, second.directions))

    def labels(task: GaussianTask, x: Floats, axes: Floats) -> Floats:
        # Row by row, not by BLAS: the same digits for a point whatever the number of points beside it.
        return task(np.sum(x[:, None, :] * axes[: task.directions], axis=2))

    x1, x2, test = polynomial.inputs(dim, (p1, p2, ptest), seed, draw)
    description: dict[str, Any] = {
        "inputs": "x ~ N(0, I_D)",
        "labels": "functions of the projections on orthonormal directions; two classes are +1 and -1",
        "directions": [first.directions, second.directions],
        "rho": float(rho),
        "test_labels": "both tasks, without noise and flips",
    }
    return TransferData(
        x1,
        labels(first, x1, axes1),
        x2,
        labels(second, x2, axes2),
        test,
        labels(first, test, axes1),
        labels(second, test, axes2),
        description,
        first.classes,
        second.classes,
    )


def flipped(labels: Floats, share: float, classes: int | None, seed: int, draw: int, purpose: Purpose) -> Floats:
    """Return labels (P,) of which a random `share` has become another class.

    Raises DomainError for a share outside [0, 1] and labels that are no classes.
    """
    if not 0 <= share <= 1:
        raise DomainError(f"flip = {digits(share)}: the share of flipped labels must lie in [0, 1].")
    if not share:
        return labels
    if classes is None:
        raise DomainError(f"flip = {digits(share)} needs classes; give Gaussian noise to real labels instead.")
    rng = stream(seed, draw, purpose)
    chosen = rng.random(len(labels)) < share
    other: Array = rng.integers(1, classes, len(labels)) if classes > 2 else np.zeros(len(labels))
    changed = -labels if classes == 2 else (labels + other) % classes
    return np.where(chosen, changed, labels)
