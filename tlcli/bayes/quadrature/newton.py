"""Newton's method on the concave dual of one stage, for any measure that gives its moments."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tlcli.arrays import Floats
from tlcli.bayes.quadrature.lattice import QuadratureMoments
from tlcli.errors import ConvergenceError

STEPS = 200


@dataclass(frozen=True, eq=False)
class Maximum:
    """The maximum of D(v) = γ²(v·y - |v|²/2β) - log Z(v).

    Attributes:
        v: (P,).
        moments: the measure's moments at v.
        value: D(v), nats per neuron.
        decrement: ½γ²gᵀH⁻¹g at v, the increase that a further step would bring, nats per neuron.
        steps: Newton steps taken.
        f: outputs (P,) or (P, K) whose forces v are, of other losses than the squared error.
    """

    v: Floats
    moments: QuadratureMoments
    value: float
    decrement: float
    steps: int
    f: Floats = field(default_factory=lambda: np.zeros(0))


def solve_spd(matrix: Floats, right: Floats) -> Floats:
    """Solve a symmetric positive semidefinite system (P, P), (P,); the least-squares solution if it is singular."""
    try:
        factor = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.lstsq(matrix, right, rcond=None)[0], dtype=float)
    return np.asarray(np.linalg.solve(factor.T, np.linalg.solve(factor, right)), dtype=float)


def gap_at(moments: QuadratureMoments, v: Floats, labels: Floats, gamma: float, inverse_beta: float) -> float:
    """Primal minus dual at any v (P,): ½γ²rᵀA⁻¹r with A = Φ(v) + I/β and r = y - Av, nats per neuron."""
    A = moments.kernel + inverse_beta * np.eye(len(v))
    r = labels - A @ v
    return float(0.5 * gamma**2 * max(r @ solve_spd(A, r), 0.0))


def maximise(
    moments_of: Callable[[Floats], QuadratureMoments | None],
    labels: Floats,
    gamma: float,
    inverse_beta: float,
    start: Floats,
) -> Maximum:
    """Maximise D from `start` (P,), where the moments must exist; backtrack where `moments_of` gives None.

    At γ = 0 the measure does not depend on v: v = (Φ + I/β)⁻¹y, D = 0.
    """
    identity = inverse_beta * np.eye(len(labels))
    v, moments = start, moments_of(start)
    if moments is None:
        v = np.zeros_like(labels)
        moments = moments_of(v)
    if moments is None:
        raise ConvergenceError("the quadrature has no moments at v = 0: lower gamma or delta.")
    if gamma == 0:
        return Maximum(solve_spd(moments.kernel + identity, labels), moments, 0.0, 0.0, 1)

    def value_at(at: Floats, found: QuadratureMoments) -> float:
        return float(gamma**2 * (at @ labels - 0.5 * inverse_beta * at @ at) - found.log_z)

    value, decrement, steps = value_at(v, moments), np.inf, 0
    while steps < STEPS:
        gradient = labels - inverse_beta * v - moments.kernel @ v
        step = solve_spd(moments.kernel + identity + gamma**2 * moments.spread, gradient)
        decrement = 0.5 * gamma**2 * float(gradient @ step)
        if decrement <= 1e-28 * (1.0 + abs(value)):
            break
        size = 1.0
        while size > 1e-12:
            trial = moments_of(v + size * step)
            # Round-off of D hides increases below 1e-14 of it: the last steps are judged by the gradient alone.
            if trial is not None and np.isfinite(trial.log_z):
                gain = value_at(v + size * step, trial) - value
                if gain >= 1e-4 * size * decrement or decrement < 1e-10 * (1.0 + abs(value)):
                    break
            size *= 0.5
        else:
            break
        last = decrement < 1e-18 * (1.0 + abs(value))
        v, moments, steps = v + size * step, trial, steps + 1
        value = value_at(v, moments)
        if last:
            break
    return Maximum(v, moments, value, max(decrement, 0.0), steps)
