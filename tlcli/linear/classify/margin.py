"""The maximum margin, and the number of samples up to which there is one (docs/averages.md, Section 2)."""

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from tlcli.arrays import Floats
from tlcli.linear.classify.channels import Channel
from tlcli.linear.classify.saddle import ClassifierProblem, ClassifierSaddle, map_of, solve, solve_map

_FIRST_RIDGE = 1e-3
_MOST = 60  # divisions by four


def separability(tau: ArrayLike, flips: ArrayLike) -> Floats:
    """Return α_c: P = αD labelled points are separable as D → ∞ iff α < α_c. Infinite without any label noise.

    α_c = 1/min_t (1+t²) F₂(0; a = ct/√(1 + t²(1−c²))), whatever kernel with a bulk is used. Broadcasts.
    """
    τ, f = np.broadcast_arrays(np.asarray(tau, dtype=float), np.asarray(flips, dtype=float))
    pairs, back = np.unique(np.stack([τ.ravel(), f.ravel()]), axis=1, return_inverse=True)
    return np.array([_separability(*pair) for pair in pairs.T])[back].reshape(τ.shape)


def _separability(tau: float, flips: float) -> float:
    from scipy.optimize import minimize_scalar

    if tau == 0 and flips == 0:
        return np.inf
    c2 = 1 / (1 + tau**2)

    def height(log_t: float) -> float:
        t2 = np.exp(2 * log_t)
        a2 = c2 * t2 / (1 + t2 * (1 - c2))
        a = np.sqrt(a2)
        wrong = np.arctan2(1.0, a) - a / (1 + a2)  # π (½ − arctan(a)/π) − …, without cancellation
        return (1 + t2) * (flips + (1 - 2 * flips) * wrong / np.pi)

    grid = np.linspace(-12, 12, 97)
    at = grid[np.argmin([height(x) for x in grid])]
    found = minimize_scalar(height, bounds=(at - 0.25, at + 0.25), method="bounded", options={"xatol": 1e-9})
    return 1 / float(found.fun)


def maximum_margin(problem: ClassifierProblem) -> ClassifierSaddle:
    """Solve for the maximum margin below the threshold: the hinge loss at a falling ridge, then its limit.

    Started elsewhere the equations of the limit lead to V = 0.
    """
    hinge, hard = Channel("hinge"), Channel("margin")
    ridge = np.full(problem.size, _FIRST_RIDGE)
    start = solve(hinge, replace(problem, ridge=ridge))
    x, calls = start.x.copy(), start.evaluations.copy()
    rows = np.arange(problem.size)
    for _ in range(_MOST):
        state = problem.state(x)
        rows = rows[(1 + 9 * np.sqrt(state.q) > state.V)[rows]]
        if rows.size == 0:
            break
        ridge[rows] /= 4
        x[rows, 0] += np.log(2)
        found = solve_map(map_of(hinge, replace(problem, ridge=ridge).take(rows), 0), x[rows], 1e-6)
        x[rows] = found.x
        calls[rows] += found.calls
    with np.errstate(divide="ignore"):  # a product below floats: no start, and the residual tells
        x[:, 0] += np.log(problem.alpha * ridge)
    last = solve_map(map_of(hard, problem, 0), x)
    return ClassifierSaddle(last.x, last.norm, calls + last.calls)
