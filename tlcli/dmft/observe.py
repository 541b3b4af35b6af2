"""What is read off a population besides its outputs: alignments, kernels, and densities of preactivations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from tlcli.arrays import Floats, Indices
from tlcli.dmft.regression import kernel_alignment
from tlcli.dmft.two_layer import View

BIN_EDGES = np.linspace(-12.0, 12.0, 242)


@dataclass(frozen=True, eq=False)
class Watch:
    """An observer of a run.

    `groups` name -> (points, labels): the alignment of the feature kernel with these labels is taken at every record.
    `points` (rows) and `trained` (columns) of the kernels Phi and G that are kept at the ends of stages and, per stage,
    at the records `moments`; `density` the points whose preactivations are counted there. With `origin`, Phi at
    initialisation between the trained points, also how far the kernel has turned from it, and both as layer 1. `plain`:
    the kept G is that of a new readout, <phi' phi'>. Of `tested` points Phi and G among themselves are kept too.
    """

    groups: Mapping[str, tuple[Indices, Floats]]
    points: Indices
    trained: Indices
    density: Indices
    moments: Sequence[frozenset[int]]
    origin: Floats | None = None
    plain: bool = False
    tested: Indices | None = None

    def __call__(self, stage: int, record: int, time: float, view: View) -> dict[str, Any]:
        """Return what this record shows."""
        out: dict[str, Any] = {}
        for name, (points, labels) in self.groups.items():
            phi = view.kernels(points, points)[0]
            out[f"{name}_alignment"] = kernel_alignment(phi, labels) if np.all(np.isfinite(phi)) else np.nan
        if self.origin is not None:
            phi = view.kernels(self.trained, self.trained)[0]
            turned = float(np.sum(phi * self.origin) / (np.linalg.norm(phi) * np.linalg.norm(self.origin)))
            out |= {f"layer1_{name}": value for name, value in out.items()} | {"layer1_movement": 1.0 - turned}
        if record in self.moments[stage]:
            out["phi"], out["g"] = view.kernels(self.points, self.trained, self.plain)
            if self.tested is not None:
                out["phi_test"], out["g_test"] = view.kernels(self.tested, self.tested, self.plain)
            out |= preactivation_density(view, self.density)
        return out


def preactivation_density(view: View, points: Indices) -> dict[str, Any]:
    """Return the density of h over neurons and points in `BIN_EDGES`, its variance and its excess kurtosis."""
    return density_of(view.preactivations(points).astype(float), view.field.neuron_weights())


def density_of(h: Floats, weights: Floats) -> dict[str, Any]:
    """Return the density, variance and excess kurtosis of preactivations h (S, n) of neurons of `weights` (S,)."""
    second = float(np.mean(weights @ h**2))
    fourth = float(np.mean(weights @ h**4))
    counts, _ = np.histogram(h, BIN_EDGES, weights=np.broadcast_to(weights[:, None], h.shape))
    density = counts / (h.shape[1] * np.diff(BIN_EDGES))
    return {"density": density, "variance": second, "excess_kurtosis": fourth / second**2 - 3.0}


def gaussian_density(variances: Floats) -> dict[str, Any]:
    """Return the same of an equal mixture of Gaussians of the given variances (n,)."""
    scale = np.sqrt(2.0 * np.maximum(variances, 1e-300))
    below = 0.5 * (1.0 + special.erf(BIN_EDGES[:, None] / scale)).mean(axis=1)
    second = float(np.mean(variances))
    kurtosis = 3.0 * float(np.mean(variances**2)) / second**2 - 3.0
    return {"density": np.diff(below) / np.diff(BIN_EDGES), "variance": second, "excess_kurtosis": kurtosis}
