"""What is read off a deep network besides its outputs: per layer kernels, alignments, movement and densities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlcli.arrays import Floats, Indices
from tlcli.dmft.deep.run import Scene, Sight
from tlcli.dmft.observe import density_of, gaussian_density
from tlcli.dmft.regression import kernel_alignment


@dataclass(frozen=True, eq=False)
class DeepWatch:
    """An observer of a run; the fields are those of `tlcli.dmft.observe.Watch`.

    Per record and layer l = 1..L: `layer{l}_{group}_alignment` of Phi^l with the labels of a group, and
    `layer{l}_movement`, 1 - <Phi^l, Phi^l(0)> / (|Phi^l| |Phi^l(0)|) over the training points. At the records `moments`
    per layer `phi_layer{l}`, `g_layer{l}` (point, trained) and the density of h, and the tangent kernel `ntk`. Names
    without a layer are those of the last one. Of several outputs G is the mean over them; `plain`: that of a readout
    drawn anew. Of `tested` points the same kernels among themselves are kept too, as `phi_test_layer{l}` and so on.
    """

    groups: Mapping[str, tuple[Indices, Floats]]
    points: Indices
    trained: Indices
    density: Indices
    moments: Sequence[frozenset[int]]
    plain: bool = False
    tested: Indices | None = None

    def __call__(self, stage: int, record: int, time: float, scene: Scene) -> dict[str, Any]:
        """Return what this record shows."""
        keep = record in self.moments[stage]
        seen = [self.trained, *(points for points, _ in self.groups.values()), *([self.points] if keep else [])]
        sight = scene.look(np.unique(np.concatenate(seen)), keep, self.plain)
        out: dict[str, Any] = {}
        depth = len(sight.phi)
        for layer in range(depth):
            inner = scene.start.spaces[layer].inner
            for name, (points, labels) in self.groups.items():
                fields = sight.phi[layer][sight.rows(points)]
                phi = inner(fields, fields)
                value = kernel_alignment(phi, labels) if np.all(np.isfinite(phi)) else np.nan
                out[f"layer{layer + 1}_{name}_alignment"] = value
                if layer == depth - 1:
                    out[f"{name}_alignment"] = value
            fields = sight.phi[layer][sight.rows(self.trained)]
            out[f"layer{layer + 1}_movement"] = _movement(scene, layer, inner(fields, fields))
        return out | self._kernels(scene, sight) if keep else out

    def _kernels(self, scene: Scene, sight: Sight) -> dict[str, Any]:
        out = _between(scene, sight, self.points, self.trained)
        if self.tested is not None:
            out |= _between(scene, sight, self.tested, self.tested, "_test")
        for layer, space in enumerate(scene.start.spaces):
            h = sight.h[layer][sight.rows(self.density)].astype(float)
            seen = (
                gaussian_density(np.einsum("ns,ns->n", h, h))
                if space.exact
                else density_of(h.T, np.full(h.shape[1], 1.0 / h.shape[1]))
            )
            out |= {f"{name}_layer{layer + 1}": value for name, value in seen.items()}
            if layer == len(scene.start.spaces) - 1:
                out |= seen
        return out


def _between(scene: Scene, sight: Sight, points: Indices, others: Indices, word: str = "") -> dict[str, Any]:
    """Return Phi and G of every layer, without a layer those of the last one, and the tangent kernel (n, n')."""
    rows, columns, geometry = sight.rows(points), sight.rows(others), scene.start.geometry
    below = geometry.moving[points] @ geometry.moving[others].T
    below = below + geometry.still[points] @ geometry.still[others].T
    out: dict[str, Any] = {}
    ntk: Any = 0.0
    for layer, space in enumerate(scene.start.spaces, 1):
        phi = space.inner(sight.phi[layer - 1][rows], sight.phi[layer - 1][columns])
        g = sum(space.inner(of[rows], of[columns]) for of in sight.g[layer - 1]) / len(sight.g[layer - 1])
        ntk, below = ntk + g * below, phi
        out |= {f"phi{word}_layer{layer}": phi, f"g{word}_layer{layer}": g, f"phi{word}": phi, f"g{word}": g}
    return out | {f"ntk{word}": ntk + below}


def _movement(scene: Scene, layer: int, phi: Floats) -> float:
    """Return how far Phi^l has turned from what it was before all training."""
    origin = scene.start.origin[layer]
    return 1.0 - float(np.sum(phi * origin)) / float(np.linalg.norm(phi) * np.linalg.norm(origin))
