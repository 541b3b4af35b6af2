"""The reference cases of the deep theory: inputs, labels and both stages of R0 to R5, all with the summed loss.

Points are ordered source training, target training, test. Losses of the reference tables are half the mean square.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tlcli.dmft.activations import Activation, activation

# The references use sqrt(2) max(h, 0), which keeps E[phi^2] = E[h^2]; the package's relu has no such factor.
RELU2 = Activation(
    "sqrt2-relu",
    lambda h, xp: np.sqrt(2.0) * xp.maximum(h, xp.zeros_like(h)),
    lambda h, phi, xp: np.sqrt(2.0) * xp.astype(phi > 0, phi.dtype),
    homogeneous=True,
    smooth=False,
    slope_needs_input=False,
)


@dataclass(frozen=True, eq=False)
class Case:
    """One reference case; L hidden layers, gammas g1 and g2, n1 + n2 steps of length dt, decays lam1 and lam2.

    D inputs, P1 + P2 training points and Pt test points; teachers of overlap rho, the target's with a quadratic part
    if nl. `x` (P1 + P2 + Pt, D); `y` (P1 + P2 + Pt,): the source's labels on its own points, else the target's.
    """

    L: int
    act: str
    g1: float
    g2: float
    dt: float
    n1: int
    n2: int
    lam1: float
    lam2: float
    D: int
    P1: int
    P2: int
    Pt: int
    rho: float
    nl: bool

    @property
    def activation(self):
        """The activation, normalised as the references have it."""
        return RELU2 if self.act == "relu" else activation(self.act)

    @property
    def x(self):
        m, i = np.arange(self.P1 + self.P2 + self.Pt)[:, None], np.arange(self.D)
        return np.sqrt(2) * np.cos(3 * (m + 1) * (i + 1) + i**2)

    @property
    def y(self):
        i = np.arange(self.D)
        b1 = np.sqrt(2) * np.cos(i)
        b2 = self.rho * b1 + np.sqrt(1 - self.rho**2) * np.sqrt(2) * np.sin(i)
        s1, s2 = self.x @ b1 / np.sqrt(self.D), self.x @ b2 / np.sqrt(self.D)
        target = s2 + 0.3 * (s2**2 - 1) if self.nl else s2
        return np.concatenate([s1[: self.P1], target[self.P1 :]])

    @property
    def rows(self):
        """Indices of the source's training points, the target's, and the test points."""
        n = np.cumsum([0, self.P1, self.P2, self.Pt])
        return tuple(np.arange(n[k], n[k + 1]) for k in range(3))

    @property
    def firsts(self):
        """The points of which the tables give f: the first of each set."""
        return [0, self.P1, self.P1 + self.P2]

    def stages(self, make):
        """Both stages as `make(rows=, labels=, gamma=, steps=, decay=)` of whatever record a solver takes."""
        return [
            make(rows=rows, labels=self.y[rows], gamma=gamma, steps=steps, decay=decay)
            for rows, gamma, steps, decay in zip(
                self.rows, (self.g1, self.g2), (self.n1, self.n2), (self.lam1, self.lam2), strict=False
            )
        ]

    def losses(self, f):
        """Half the mean squared error (..., 3) of f (..., n) on the source's points, the target's and the test's."""
        return np.stack([np.mean((self.y[r] - f[..., r]) ** 2, axis=-1) / 2 for r in self.rows], axis=-1)


_CASES: dict[str, tuple[Any, ...]] = {
    # L, act, g1, g2, dt, n1, n2, lam1, lam2, D, P1, P2, Pt, rho, nl
    "R0": (2, "linear", 1.0, 0.5, 0.1, 2, 2, 0.0, 0.0, 2, 1, 1, 1, 0.6, False),
    "R1": (2, "linear", 1.0, 1.0, 0.05, 20, 20, 0.0, 0.0, 8, 6, 5, 4, 0.6, False),
    "R2": (3, "linear", 2.0, 0.5, 0.05, 15, 15, 0.2, 0.1, 8, 6, 5, 4, 0.6, False),
    "R3": (2, "tanh", 1.0, 1.0, 0.05, 20, 20, 0.0, 0.0, 8, 6, 5, 4, 0.6, True),
    "R4": (3, "tanh", 2.0, 1.0, 0.05, 15, 15, 0.1, 0.1, 8, 6, 5, 4, 0.6, True),
    "R5": (2, "relu", 1.0, 2.0, 0.03, 15, 15, 0.0, 0.0, 8, 6, 5, 4, 0.6, True),
}


def reference_case(name):
    """The reference case called R0 ... R5."""
    return Case(*_CASES[name])
