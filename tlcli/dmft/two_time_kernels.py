"""Feature and gradient kernels between two times, Φ(t, t′) and G(t, t′) [4], of networks with one hidden layer.

They need the same neurons at both times, so an observer that keeps them begins anew with every population.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from tlcli.arrays import Array, Floats
from tlcli.dmft.estimates import spread_of
from tlcli.dmft.field import to_numpy
from tlcli.dmft.observe import Watch
from tlcli.dmft.two_layer import View
from tlcli.errors import UsageError

MOST = 4e6  # numbers of Φ at all pairs of times
NAMES = ("phi_two_time", "g_two_time")


@dataclass(frozen=True, eq=False)
class TwoTimeWatch:
    """An observer that shows what `watch` does and, at its moments, Φ and G with all moments before.

    phi_two_time and g_two_time (n_moment, n_trained, n_trained): row μ now, column ν at the earlier moment; those yet
    to come are NaN. G with a readout that was redrawn in between starts from zero.
    """

    watch: Watch
    seen: list[tuple[Floats, Floats]] = field(default_factory=list)

    def begin(self) -> Self:
        """Return an observer of a population that has seen nothing yet."""
        return replace(self, seen=[])

    def __call__(self, stage: int, record: int, time: float, view: View) -> dict[str, Any]:
        """Return what this record shows."""
        out = self.watch(stage, record, time, view)
        if record not in self.watch.moments[stage]:
            return out
        h, (_, a) = view.preactivations(self.watch.trained).astype(float), view.field.split(view.state)
        phi, slope = (np.array(part, dtype=float) for part in view.field.act.both(h, np))
        now = phi, slope * to_numpy(a).astype(float)[:, None]
        self.seen.append(now)
        weights, count = view.field.neuron_weights()[:, None], sum(len(keep) for keep in self.watch.moments)
        for name, mine, earlier in zip(NAMES, now, zip(*self.seen, strict=True), strict=True):
            found = np.full((count, h.shape[1], h.shape[1]), np.nan)
            for at, other in enumerate(earlier):
                # A readout that is drawn anew stands with both signs on two copies of every neuron.
                copies = len(mine) // len(other)
                found[at] = (weights * mine).T @ np.concatenate([other] * copies)
            out[name] = found
        return out


def check_size(moments: Sequence[frozenset[int]], n_trained: int) -> None:
    """Refuse more numbers than memory should hold. Raises UsageError."""
    count = sum(len(keep) for keep in moments)
    if (count * n_trained) ** 2 > MOST:
        raise UsageError(
            f"--two-time at {count} times (--kernels and the ends of the stages) between {n_trained} points are more "
            f"than {MOST:.0e} numbers; take fewer --kernels or a smaller --p1 or --p2."
        )


def two_time_arrays(
    observed: Sequence[Mapping[str, Any]],
    coarse: Sequence[Mapping[str, Any] | None],
    retimed: Sequence[Mapping[str, Any]],
    moments: Sequence[frozenset[int]],
    times: Sequence[Sequence[float]],
) -> dict[str, Array]:
    """Return Φ and G at all pairs of observed moments, (n_moment, n_moment, n, n), their errors and the moments.

    `observed`, `coarse` and `retimed` are those of both stages (`tlcli.dmft.ensemble.Solution`).
    """
    out: dict[str, Array] = {}
    for name in NAMES:
        rows, errors, told = [], [], []
        for stage, seen in enumerate(observed):
            if name not in seen:
                continue
            rough, late = coarse[stage], retimed[stage].get(name)
            for position, record in enumerate(sorted(moments[stage])[: seen[name].shape[1]]):
                samples = seen[name][:, position]
                rows.append(samples.mean(axis=0))
                parts = (
                    None if rough is None else rough[name][:, position],
                    None if late is None else late[:, position],
                )
                errors.append(spread_of(samples, *parts))
                told.append((stage + 1, times[stage][record]))
        if not rows:
            return {}
        out[name], out[f"{name}_se"] = (_symmetric(np.array(part)[:, : len(rows)]) for part in (rows, errors))
        out["two_time_stage"], out["two_time_t"] = (np.array(part, dtype=float) for part in zip(*told, strict=True))
    return out


def _symmetric(lower: Floats) -> Floats:
    """Return K(t, t′) = K(t′, t)ᵀ from its part t′ <= t."""
    out = lower.copy()
    for i in range(len(lower)):
        for j in range(i):
            out[j, i] = lower[i, j].T
    return out
