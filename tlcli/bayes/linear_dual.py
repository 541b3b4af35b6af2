"""The dual of a linear stage in the eigenbasis of its Gram matrix, and its two solvers.

There C = diag(λ) and Φ̄ = diag(λ) + ccᵀ, so that v(σ, q) = [σC/(1+δ) + α²qΦ̄ + I/β]⁻¹y costs O(P). A stationary point
has q = 1/(1 − γ²τ) and σ = q(1 + α²γ²qu).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy.optimize import brentq

from tlcli.arrays import Floats

TOLERANCE = 1e-10  # relative gradient; 1e-14 would stall at round-off
_NEWTON_STEPS = 60  # 99 % of the problems need at most 24; the rest, two competing barriers, are left to the brackets
_TINY, _EPS = 1e-300, 4 * np.finfo(float).eps


@dataclass(frozen=True, eq=False)
class Reduced:
    """One stage in its eigenbasis.

    Attributes:
        λ: positive eigenvalues of C, (r,).
        c: spike of the source kernel, Φ̄ = diag(λ) + ccᵀ, (r,).
        y: labels, (r,).
        b: 1/β.
        g: γ².
        ct: 1/(1+δ).
        α2: α².
    """

    λ: Floats
    c: Floats
    y: Floats
    b: float
    g: float
    ct: float
    α2: float

    def v_of(self, σ: float, q: float) -> Floats:
        """v(σ, q), (r,)."""
        diagonal, t = self.diagonal(σ, q), self.α2 * q
        side = self.c / diagonal
        shrink = t / (1.0 + t * (self.c @ side))
        v = self.y / diagonal - side * (shrink * (side @ self.y))
        # Sherman-Morrison cancels where y is along a strong spike: one step of refinement restores the digits.
        rest = self.y - diagonal * v - t * self.c * (self.c @ v)
        return v + rest / diagonal - side * (shrink * (side @ rest))

    def diagonal(self, σ: float, q: float) -> Floats:
        """Diagonal of the matrix that v(σ, q) inverts, without the spike."""
        return (σ * self.ct + self.α2 * q) * self.λ + self.b

    def overlaps(self, v: Floats) -> tuple[float, float]:
        """(τ, u)."""
        flat = float(v @ (self.λ * v))
        return self.ct * flat, flat + float(self.c @ v) ** 2

    def scalars(self, v: Floats) -> tuple[float, float]:
        """(q, u); q is inf outside the domain γ²τ < 1."""
        τ, u = self.overlaps(v)
        return (1.0 / (1.0 - self.g * τ) if self.g * τ < 1.0 else math.inf), u

    def gradient(self, v: Floats) -> Floats:
        """∇D/γ² = y − (Φ(v) + I/β)v, (r,)."""
        q, u = self.scalars(v)
        σ = q * (1.0 + self.α2 * self.g * q * u)
        return self.y - self.diagonal(σ, q) * v - self.α2 * q * self.c * (self.c @ v)

    def error(self, v: Floats) -> float:
        """|∇D|/(γ²|y|), 0 without labels."""
        scale = float(np.linalg.norm(self.y))
        return float(np.linalg.norm(self.gradient(v))) / scale if scale else 0.0

    def value(self, v: Floats) -> float:
        """D/γ²; −inf outside the domain."""
        τ, u = self.overlaps(v)
        gτ = self.g * τ
        if not gτ < 1.0:
            return -math.inf
        barrier = math.log1p(-gτ) / self.g if self.g else -τ
        return float(v @ self.y) - 0.5 * self.b * float(v @ v) + 0.5 * barrier - 0.5 * self.α2 * u / (1.0 - gτ)

    def newton_step(self, v: Floats, gradient: Floats) -> Floats:
        """−H⁻¹∇D, by the Woodbury identity on span(λv, c), (r,)."""
        q, u = self.scalars(v)
        g, ct, α2, cv = self.g, self.ct, self.α2, float(self.c @ v)
        diagonal = self.diagonal(q * (1.0 + α2 * g * q * u), q)
        core = np.array(
            [
                [2 * g * q**2 * ct * ((1 + 2 * α2 * g * q * u) * ct + 2 * α2), 2 * α2 * g * q**2 * ct * cv],
                [2 * α2 * g * q**2 * ct * cv, α2 * q],
            ]
        )
        side = np.stack([self.λ * v, self.c])
        scaled = side / diagonal
        weights = np.linalg.solve(np.eye(2) + core @ (scaled @ side.T), core @ (scaled @ gradient))
        return gradient / diagonal - weights @ scaled


def newton(problem: Reduced) -> tuple[Floats, int, str]:
    """Maximise the dual by Newton with backtracking; return (v (r,), steps, "newton").

    It gives up after 60 steps: the caller looks at `Reduced.error`.
    """
    v = problem.v_of(1.0, 1.0)  # the answer of a lazy network
    gτ = problem.g * problem.overlaps(v)[0]
    v = v if gτ <= 0.5 else v * math.sqrt(0.5 / gτ)
    value, polish = problem.value(v), 2
    for step in range(_NEWTON_STEPS):
        gradient, error = problem.gradient(v), problem.error(v)
        direction = problem.newton_step(v, gradient)
        if error <= TOLERANCE:
            # Digits beyond the tolerance cost O(P): take them while they come.
            if polish and problem.error(v + direction) < error:
                v, polish = v + direction, polish - 1
                continue
            return v, step, "newton"
        slope, length = float(gradient @ direction), 1.0
        slack = 1e-14 * (abs(value) + abs(float(v @ problem.y)))  # near the top the value is flat to round-off
        while (new := problem.value(v + length * direction)) < value + 1e-4 * length * slope - slack:
            length *= 0.5
            if length < 1e-12:
                return v, step, "newton"
        v, value = v + length * direction, new
    return v, _NEWTON_STEPS, "newton"


def bracketed(problem: Reduced) -> tuple[Floats, int, str]:
    """Solve for σ inside, for q outside, both bracketed; return (v (r,), solves of the linear system, "bracket").

    Given q, σ − q(1 + α²γ²qu(σ)) increases in σ. Every root q of 1 − 1/q = γ²τ is a stationary point of a strictly
    concave function, so there is one only, and the bracket below contains it. For the source (α = 0), σ = q.
    """
    calls = 0

    def v_of(excess: float) -> Floats:
        nonlocal calls
        q = 1.0 + excess
        push = problem.α2 * problem.g * q

        def mismatch(excess_σ: float) -> float:
            nonlocal calls
            calls += 1
            return excess_σ - push * problem.overlaps(problem.v_of(q * (1.0 + excess_σ), q))[1]

        high = push * problem.overlaps(problem.v_of(q, q))[1] if problem.ct else 0.0
        return problem.v_of(q * (1.0 + _root(mismatch, 2.0 * high)), q)

    def outer(excess: float) -> float:
        nonlocal calls
        calls += 1
        return excess / (1.0 + excess) - problem.g * problem.overlaps(v_of(excess))[0]

    floor = problem.ct + problem.α2  # Φ >= floor·q·C
    high = problem.g * problem.ct / floor * float(problem.y @ (problem.y / (floor * problem.λ + problem.b)))
    return v_of(_root(outer, 2.0 * high)), calls, "bracket"


def _root(function: Callable[[float], float], high: float) -> float:
    """Root on [0, high], to the relative accuracy of floats; 0 for an empty interval."""
    return cast(float, brentq(function, 0.0, high, xtol=_TINY, rtol=_EPS, maxiter=500)) if high else 0.0
