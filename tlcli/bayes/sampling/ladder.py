"""The field ladder: an umbrella in s = v·φ that is flat from the free prior to beyond the outermost lobe.

exp(½γ²s²) is the mixture over a ~ N(0, 1) of exp(γas), so the tilted measure is a mixture of measures with a linear
tilt.
p(a) is a convolution with a unit Gaussian: the trapezoid rule with spacing 1 has a relative error of 2exp(-2π²) = 5e-9.
The umbrella density is prior times exp(B(u)), u = γs, B(u) = log Σ_k c_k exp(a_k u - g_k), with g_k near log Z(a_k).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcli.arrays import Floats, Indices

_CELLS = 2048


@dataclass(frozen=True, eq=False)
class Ladder:
    """Umbrella of G groups of chains.

    Attributes:
        nodes: fields a_k, (K,), one unit apart, 0 among them.
        log_z: g_k, (G, K), log E exp(a_k u) under the base Gaussian of the group.
        log_c: log weights of the nodes, (K,).
        span: the table reaches |u| <= span; B continues linearly beyond.
        value: B on the cells' edges, (G, cells + 1).
    """

    nodes: Floats
    log_z: Floats
    log_c: Floats
    span: float
    value: Floats

    def bias(self, u: NDArray, group: Indices | None = None) -> tuple[Floats, Floats]:
        """Return B and dB/du, (m,), at u (m,) of groups `group` (m,) (None: the only group).

        The table between its nodes is the definition of B: sampling and weights use the same numbers.
        """
        width = 2 * self.span / _CELLS
        at = (np.asarray(u, dtype=float) + self.span) / width
        cell = np.clip(at.astype(np.intp), 0, _CELLS - 1)
        flat = cell if group is None else cell + group * (_CELLS + 1)
        table = self.value.ravel()
        low, high = table[flat], table[flat + 1]
        return low + (at - cell) * (high - low), (high - low) / width

    def shares(self, u: NDArray, group: Indices | None = None) -> Floats:
        """Return the probability of each node given u, (m, K)."""
        log_z = self.log_z[0] if group is None else self.log_z[group]
        exponent = np.asarray(u, dtype=float)[:, None] * self.nodes + (self.log_c - log_z)
        exponent -= exponent.max(axis=1, keepdims=True)
        np.exp(exponent, out=exponent)
        return exponent / exponent.sum(axis=1, keepdims=True)

    def tail(self) -> float:
        """Return the largest log p(a) at the two ends minus the largest inside, p(a) ∝ exp(-½a²) Z(a), all groups."""
        log_p = self.log_z - 0.5 * self.nodes**2
        return float(np.max(log_p[:, [0, -1]].max(axis=1) - log_p.max(axis=1)))


@dataclass(frozen=True)
class Square:
    """The tilt itself, or a share of it: B(u) = ½·strength·u²."""

    strength: float = 1.0

    def bias(self, u: NDArray, group: Indices | None = None) -> tuple[Floats, Floats]:
        """Return B and dB/du, (m,), at u (m,); the same for all groups."""
        at = self.strength * np.asarray(u, dtype=float)
        return 0.5 * at * u, at


def ladder(nodes: Floats, log_z: Floats, log_c: Floats | None = None) -> Ladder:
    """Return the umbrella with fields `nodes` (K,), log Z (G, K) and log weights (K,) (None: equal)."""
    weights = np.zeros(len(nodes)) if log_c is None else log_c
    # u at the outermost node is about d log Z/da there; twice the last field is beyond every u that is visited.
    span = 2.0 * float(np.abs(nodes).max()) + 10.0
    u = np.linspace(-span, span, _CELLS + 1)
    exponent = nodes * u[:, None]
    value = np.stack([_log_sum(exponent + (weights - g)) for g in log_z])
    return Ladder(nodes, log_z, weights, span, value)


def _log_sum(exponent: Floats) -> Floats:
    top = exponent.max(axis=1)
    return top + np.log(np.exp(exponent - top[:, None]).sum(axis=1))
