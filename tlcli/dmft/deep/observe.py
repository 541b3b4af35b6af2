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
    drawn anew.
    """

    groups: Mapping[str, tuple[Indices, Floats]]
    points: Indices
    trained: Indices
    density: Indices
    moments: Sequence[frozenset[int]]
    plain: bool = False

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
        rows, columns = sight.rows(self.points), sight.rows(self.trained)
        geometry = scene.start.geometry
        below = geometry.moving[self.points] @ geometry.moving[self.trained].T
        below = below + geometry.still[self.points] @ geometry.still[self.trained].T
        out: dict[str, Any] = {"ntk": 0.0}
        for layer, space in enumerate(scene.start.spaces):
            phi = space.inner(sight.phi[layer][rows], sight.phi[layer][columns])
            g = sum(space.inner(of[rows], of[columns]) for of in sight.g[layer]) / len(sight.g[layer])
            h = sight.h[layer][sight.rows(self.density)].astype(float)
            out["ntk"] = out["ntk"] + g * below
            below = phi
            seen = (
                gaussian_density(np.einsum("ns,ns->n", h, h))
                if space.exact
                else density_of(h.T, np.full(h.shape[1], 1.0 / h.shape[1]))
            )
            found = {"phi": phi, "g": g, **seen}
            out |= {f"{name}_layer{layer + 1}": value for name, value in found.items()}
            if layer == len(scene.start.spaces) - 1:
                out |= found
        out["ntk"] = out["ntk"] + below
        return out


def _movement(scene: Scene, layer: int, phi: Floats) -> float:
    """Return how far Phi^l has turned from what it was before all training."""
    origin = scene.start.origin[layer]
    return 1.0 - float(np.sum(phi * origin)) / float(np.linalg.norm(phi) * np.linalg.norm(origin))
