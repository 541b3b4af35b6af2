"""The infinite-width dynamics reduced to one vector by the boost identity: what the un-reduced dynamics must equal."""

from collections.abc import Callable, Sequence

import numpy as np

from tlcli.arrays import Floats
from tlcli.simulate.unreduced import DataStage, UnreducedState, carried, evolve, gradient_of


def run_boost(
    stages: Sequence[DataStage], dim: int, init_scale: float = 1.0, rtol: float = 1e-9
) -> list[UnreducedState]:
    """Integrate (*) alone, for beta = b/gamma; M and m follow from the boost.

    dbeta/dt = (s + k) g + gamma^2 beta (beta.g)/(s + k) - 2 decay beta, since (s - k)/|b|^2 = 1/(s + k).
    """
    state = np.append(np.zeros(dim), init_scale**2)
    out: list[UnreducedState] = []
    for stage in stages:
        gradient, gamma, decay = gradient_of(stage.data, dim), stage.gamma, stage.weight_decay

        def rhs(
            t: float,
            z: Floats,
            gradient: Callable[[Floats], Floats] = gradient,
            gamma: float = gamma,
            decay: float = decay,
        ) -> Floats:
            beta, k = z[:-1], z[-1]
            s = np.hypot(k, gamma * np.linalg.norm(beta))
            g = gradient(beta)
            along = gamma**2 * (beta @ g) / (s + k)
            return np.append((s + k) * g + along * beta - 2 * decay * beta, -2 * decay * k)

        state[:-1] = carried(out, gamma, dim)
        state = evolve(rhs, state, stage.duration, rtol)
        beta, k = state[:-1].copy(), float(state[-1])
        b = gamma * beta
        s = float(np.hypot(k, np.linalg.norm(b)))
        out.append(UnreducedState(k * np.eye(dim) + np.outer(b, b) / (s + k), s, beta, gamma))
    return out
