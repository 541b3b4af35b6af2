"""A kernel given by hand: expressions for its constants, and their 2×2 matrix (docs/theory.md, Section 3).

The ansatz is C = [[c₁, c₃], [c₃, c₂]] on span(β*₁, ξ): c₁ signal, c₂ noise, c₃ crosstalk, numbers or
expressions in gamma0 and alpha1 (the paper's Figs. 1(b), 2(a), 6). Expressions are read through a whitelist
of syntax, never evaluated by Python.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tlcli.arrays import Flags, Floats
from tlcli.errors import DomainError, UsageError, digits, suggest

VARIABLES = ("gamma0", "alpha1")
CONSTANTS = {"pi": np.pi}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "abs": np.abs,
    "min": lambda *x: reduce(np.minimum, x),
    "max": lambda *x: reduce(np.maximum, x),
}
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_ALLOWED = "numbers, + - * / **, parentheses, gamma0, alpha1, pi and sqrt, exp, log, tanh, min, max, abs are allowed"
_MAX_LENGTH = 500
_HUGE = 1e100  # stands for an infinite constant: squares and products stay finite


@dataclass(frozen=True)
class Expression:
    """A parsed expression; `names` are the variables it uses."""

    text: str
    names: frozenset[str]
    _tree: ast.expr

    def evaluate(self, *, gamma0: ArrayLike = np.nan, alpha1: ArrayLike = np.nan) -> Floats:
        """Value at broadcastable gamma0 and alpha1, in floats; it has only the axes of the variables it uses.

        Overflow and division by zero give inf, undefined operations NaN; `check_psd` refuses NaN.
        """
        values = {"gamma0": np.asarray(gamma0, dtype=float), "alpha1": np.asarray(alpha1, dtype=float)}
        with np.errstate(all="ignore"):
            return np.asarray(_value(self._tree, values), dtype=float)


def parse_expression(text: str | float) -> Expression:
    """Read arithmetic over numbers, gamma0, alpha1 and pi; raise `UsageError` naming what is not allowed."""
    text = text.strip() if isinstance(text, str) else repr(float(text))
    shown = text if len(text) <= 60 else text[:57] + "…"
    if len(text) > _MAX_LENGTH:
        raise UsageError(f"expression '{shown}' has {len(text)} characters: at most {_MAX_LENGTH} are allowed.")
    if text.lower() in ("inf", "nan", "-inf"):
        raise UsageError(f"expression '{shown}' is not a finite number: {_ALLOWED}.")
    try:
        tree = ast.parse(text, mode="eval").body
        names: set[str] = set()
        _check(tree, text, shown, names)
        _check_constants(tree, text, shown)
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"expression '{shown}' is not arithmetic: {_ALLOWED}.") from error
    except (RecursionError, MemoryError) as error:
        raise UsageError(f"expression '{shown}' is nested too deeply: write it with fewer parentheses.") from error
    return Expression(text, frozenset(names), tree)


def _check(node: ast.expr, text: str, shown: str, names: set[str]) -> None:
    """Walk the tree once; whatever is not on the whitelist is an error that shows it."""

    def refuse(reason: str) -> UsageError:
        return UsageError(f"expression '{shown}': {reason}; {_ALLOWED}.")

    piece = ast.get_source_segment(text, node) or text
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
            raise refuse(f"'{piece}' is not a number")
        try:
            float(node.value)
        except OverflowError:
            raise refuse(f"'{piece[:20]}…' is too large") from None
    elif isinstance(node, ast.Name):
        if node.id in VARIABLES:
            names.add(node.id)
        elif node.id not in CONSTANTS:
            known = (*VARIABLES, *CONSTANTS, *FUNCTIONS)
            raise refuse(f"'{node.id}' is not known{suggest(node.id, known)}")
    elif isinstance(node, ast.BinOp):
        if type(node.op) not in _BINARY:
            hint = ", write a power as **" if isinstance(node.op, ast.BitXor) else ""
            raise refuse(f"the operator in '{piece}' is not allowed{hint}")
        _check(node.left, text, shown, names)
        _check(node.right, text, shown, names)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        _check(node.operand, text, shown, names)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        name = node.func.id
        if name not in FUNCTIONS:
            raise refuse(f"'{name}' is not a known function{suggest(name, FUNCTIONS)}")
        if node.keywords or any(isinstance(a, ast.Starred) for a in node.args):
            raise refuse(f"'{piece}' has arguments that are not plain values")
        if (len(node.args) < 2) if name in ("min", "max") else (len(node.args) != 1):
            needed = "two or more arguments" if name in ("min", "max") else "one argument"
            raise refuse(f"'{piece}' must have {needed}")
        for argument in node.args:
            _check(argument, text, shown, names)
    else:
        raise refuse(f"'{piece}' is not allowed")


def _check_constants(tree: ast.expr, text: str, shown: str) -> None:
    """Refuse 1/0 and 9**9**9**9: what holds no variable has no limit to stand for, as gamma0 = inf has."""
    for node in reversed(list(ast.walk(tree))):  # parts before what is made of them
        if not isinstance(node, (ast.Constant, ast.BinOp, ast.UnaryOp, ast.Call)):
            continue
        if any(isinstance(part, ast.Name) and part.id in VARIABLES for part in ast.walk(node)):
            continue
        with np.errstate(all="ignore"):
            value = _value(node, {})
        if not np.isfinite(value):
            piece = ast.get_source_segment(text, node) or text
            raise UsageError(f"expression '{shown}': '{piece}' is no finite number: {_ALLOWED}.")


def _value(node: ast.expr, values: Mapping[str, Floats]) -> Any:
    """Evaluate a checked tree in numpy floats (so 9**9**9 is inf, not a long computation)."""
    if isinstance(node, ast.Constant):
        return np.float64(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.Name):
        return values[node.id] if node.id in values else np.float64(CONSTANTS[node.id])
    if isinstance(node, ast.BinOp):
        return _BINARY[type(node.op)](_value(node.left, values), _value(node.right, values))
    if isinstance(node, ast.UnaryOp):
        operand = _value(node.operand, values)
        return -operand if isinstance(node.op, ast.USub) else operand
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    return FUNCTIONS[node.func.id](*(_value(a, values) for a in node.args))


def diagonalise(
    c_signal: ArrayLike, c_cross: ArrayLike, c_noise: ArrayLike, rho: ArrayLike, rho_xi: ArrayLike
) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Eigenvalues of C and the squared overlaps of (rho, rho_xi) with its eigenvectors.

    All arguments broadcast. Returns (spikes, overlaps2), what `finetuning.finetune` takes; the spike of
    larger modulus comes first. Entries of modulus above 1e100 count as 1e100.
    """
    c1, c3, c2 = (np.clip(np.asarray(x, dtype=float), -_HUGE, _HUGE) for x in (c_signal, c_cross, c_noise))
    ρ, ρξ = np.asarray(rho, dtype=float), np.asarray(rho_xi, dtype=float)
    mean, δ = (c1 + c2) / 2, (c1 - c2) / 2
    h = np.hypot(δ, c3)
    # The eigenvalue of larger modulus, then the other from the determinant: neither is a difference of large
    # numbers.
    sign = np.where(mean >= 0, 1.0, -1.0)
    first = mean + sign * h
    second = np.where(first == 0, 0.0, (c1 * c2 - c3 * c3) / np.where(first == 0, 1.0, first))
    # Unit eigenvector (a, b) of mean + h, from the row of C that does not cancel.
    a = np.where(δ >= 0, h + δ, c3)
    b = np.where(δ >= 0, c3, h - δ)
    # Equal eigenvalues to rounding: any basis will do (and denormal h would spoil this one).
    degenerate = h <= np.maximum(1e-17 * np.abs(mean), 1e-290)
    norm = np.where(degenerate, 1.0, np.hypot(a, b))
    a, b = np.where(degenerate, 1.0, a / norm), np.where(degenerate, 0.0, b / norm)
    along, across = np.square(a * ρ + b * ρξ), np.square(b * ρ - a * ρξ)
    upper = sign > 0
    return (first, second), (np.where(upper, along, across), np.where(upper, across, along))


def check_psd(
    bulk: ArrayLike,
    c_signal: ArrayLike,
    c_cross: ArrayLike,
    c_noise: ArrayLike,
    where: Mapping[str, ArrayLike] | None = None,
) -> None:
    """Raise `DomainError` at the first point where k I + C is not positive semidefinite (1e-12 relative).

    where: parameters (say gamma0, alpha1) that broadcast with the constants; their values complete the
    message.
    """
    arrays = {"k": bulk, "c_signal": c_signal, "c_cross": c_cross, "c_noise": c_noise, **(where or {})}
    full = {
        name: np.asarray(x, dtype=float) for name, x in zip(arrays, np.broadcast_arrays(*arrays.values()), strict=True)
    }
    k, c1, c3, c2 = (np.clip(full[name], -_HUGE, _HUGE) for name in ("k", "c_signal", "c_cross", "c_noise"))
    tolerance = 1e-12

    def refuse(bad: Flags, condition: str, shown: tuple[str, ...]) -> None:
        if not np.any(bad):
            return
        values = {name: x[bad].flat[0] for name, x in full.items()}
        numbers = ", ".join(f"{name} = {values[name]:g}" for name in ("k", *shown))
        at = ", ".join(f"{name} = {values[name]:g}" for name in (where or {}))
        place = f" at {at}" if at else ""
        raise DomainError(f"The kernel k I + C needs {condition}, but {numbers}{place}.")

    for name, c in (("c_signal", c1), ("c_noise", c2), ("c_cross", c3)):
        refuse(np.isnan(c), f"a defined {name}", (name,))
    for name, c in (("c_signal", c1), ("c_noise", c2)):
        refuse(k + c < -tolerance * np.maximum(k, np.abs(c)), f"k + {name} >= 0", (name,))
    left, right = (k + c1) * (k + c2), c3 * c3
    scale = np.maximum(right, (k + np.abs(c1)) * (k + np.abs(c2)))
    refuse(
        left - right < -tolerance * scale,
        "(k + c_signal)(k + c_noise) >= c_cross^2",
        ("c_signal", "c_noise", "c_cross"),
    )


def check_alignment(rho: ArrayLike, rho_xi: ArrayLike = 0.0) -> None:
    """Raise `DomainError` unless rho² + rho_xi² <= 1, as for the overlaps of a unit teacher."""
    ρ, ρξ = np.broadcast_arrays(np.asarray(rho, dtype=float), np.asarray(rho_xi, dtype=float))
    length = np.hypot(ρ, ρξ)
    bad = ~(length <= 1.0 + 1e-12)
    if np.any(bad):
        worst = float(length[bad].flat[0])
        shown = f"{worst:.6g}" if worst > 1.00001 else digits(worst)
        raise DomainError(
            f"rho = {digits(ρ[bad].flat[0])} and rho_xi = {digits(ρξ[bad].flat[0])} give |v| = {shown}: "
            "the overlaps of a unit teacher with two orthogonal directions need rho^2 + rho_xi^2 <= 1."
        )
