"""What depends on two times: kernels Φ(t, t′), G(t, t′) [4] of one hidden layer, and how those of any depth are joined.

They need the same neurons at both times, so an observer that keeps them begins anew with every population.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from tlcli.arrays import Array, Floats
from tlcli.dmft.estimates import seen_at
from tlcli.dmft.field import to_numpy
from tlcli.dmft.observe import Watch
from tlcli.dmft.two_layer import View
from tlcli.errors import UsageError

MOST = 4e6  # numbers of Φ at all pairs of times
NAMES = ("phi_two_time", "g_two_time")
_TWO, _NOW = "_two_time", "_now"  # how names of functions of two moments end, and of one


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


def check_size(moments: Sequence[frozenset[int]], n_trained: int, depth: int, flag: str) -> None:
    """Refuse more numbers than memory should hold, of all layers together. Raises UsageError."""
    count = sum(len(keep) for keep in moments)
    if depth * (count * n_trained) ** 2 > MOST:
        raise UsageError(
            f"{flag} at {count} times (--kernels and the ends of the stages) between {n_trained} points are more "
            f"than {MOST:.0e} numbers; take fewer --kernels or a smaller --p1 or --p2."
        )


def two_time_arrays(
    observed: Sequence[Mapping[str, Any]],
    coarse: Sequence[Mapping[str, Any] | None],
    retimed: Sequence[Mapping[str, Any]],
    moments: Sequence[frozenset[int]],
    times: Sequence[Sequence[float]],
) -> dict[str, Array]:
    """Return what depends on two observed moments, (n_moment, n_moment, n, n), with errors, and the moments.

    Kernels are symmetric, responses to what is yet to come vanish; that at equal times is (n_moment, n). `observed`,
    `coarse` and `retimed` are those of both stages (`tlcli.dmft.ensemble.Solution`).
    """
    out: dict[str, Array] = {}
    names = (name for seen in observed for name in seen if name.endswith((_TWO, _NOW)))
    for name in dict.fromkeys(names):
        rows, errors, told = [], [], []
        for stage, seen in enumerate(observed):
            if name not in seen:
                continue
            for position, record in enumerate(sorted(moments[stage])[: seen[name].shape[1]]):
                value, error = seen_at(name, position, seen, coarse[stage], retimed[stage])
                rows.append(value)
                errors.append(error)
                told.append((stage + 1, times[stage][record]))
        if not rows:  # broken off before
            continue
        found = tuple(np.array(part) for part in (rows, errors))
        if name.endswith(_TWO):
            whole = _symmetric if name.startswith(("phi", "g_")) else _causal
            found = tuple(whole(part[:, : len(rows)]) for part in found)
        out[name], out[f"{name}_se"] = found
        out["two_time_stage"], out["two_time_t"] = (np.array(part, dtype=float) for part in zip(*told, strict=True))
    return out


def _causal(lower: Floats) -> Floats:
    """Return R(t, t′) with zeros for t′ > t from its part t′ <= t."""
    out = lower.copy()
    for i in range(len(lower)):
        out[i, i + 1 :] = 0.0
    return out


def _symmetric(lower: Floats) -> Floats:
    """Return K(t, t′) = K(t′, t)ᵀ from its part t′ <= t."""
    out = lower.copy()
    for i in range(len(lower)):
        for j in range(i):
            out[j, i] = lower[i, j].T
    return out
