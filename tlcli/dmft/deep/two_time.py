"""Kernels of every layer between two times, Phi^l(t, t') and G^l(t, t') [4]; docs/deep.md, Two times.

All training points are looked at there and back at every moment, and what they show of the hidden matrices is kept:
points that are not trained on at the time have a joint law with themselves at other times too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from tlcli.arrays import Array
from tlcli.dmft.deep.observe import DeepWatch
from tlcli.dmft.deep.run import Scene, Sight


@dataclass(frozen=True, eq=False)
class DeepTwoTimeWatch(DeepWatch):
    """An observer that shows what `DeepWatch` does and, at its moments, kernels with all moments before.

    phi_layer{l}_two_time and g_layer{l}_two_time (n_moment, n_trained, n_trained), without a layer those of the last
    one: row mu now, column nu at the earlier moment; those yet to come are NaN.
    """

    seen: list[Sequence[tuple[Array, Array]]] = field(default_factory=list)

    def begin(self) -> Self:
        """Return an observer of a network that has seen nothing yet."""
        return replace(self, seen=[])

    def __call__(self, stage: int, record: int, time: float, scene: Scene) -> dict[str, Any]:
        """Return what this record shows."""
        if record in self.moments[stage]:
            scene.reveal(self.trained)
        return super().__call__(stage, record, time, scene)

    def _kernels(self, scene: Scene, sight: Sight) -> dict[str, Any]:
        rows, count = sight.rows(self.trained), sum(len(keep) for keep in self.moments)
        now = [(phi[rows], g[0][rows]) for phi, g in zip(sight.phi, sight.g, strict=True)]
        self.seen.append(now)
        out = super()._kernels(scene, sight)
        for layer, (space, fields) in enumerate(zip(scene.start.spaces, now, strict=True)):
            for part, name in enumerate(("phi", "g")):
                found = np.full((count, len(rows), len(rows)), np.nan)
                for at, earlier in enumerate(self.seen[:-1]):
                    found[at] = space.inner(fields[part], earlier[layer][part])
                found[len(self.seen) - 1] = out[f"{name}_layer{layer + 1}"][: len(rows)]  # of the points kept the first
                out[f"{name}_layer{layer + 1}_two_time"] = found
                if layer == len(now) - 1:
                    out[f"{name}_two_time"] = found
        return out
