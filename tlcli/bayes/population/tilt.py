"""The one-neuron measures of the population: base Gaussian, feature s(z) = v·φ(h) and its gradient, in blocks.

A neuron's weights in the row space of the training inputs are w = m + z/√(1+δ), z standard Gaussian (r,), so that its
preactivations on the P training points are h = Bz + c with B = X·basis/√(D(1+δ)), c = Xm/√D. All densities of this
package depend on z through |z|² and s(z) alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcli.dmft.activations import Activation, erf_and_slope

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

# Chains per block: three (block, P) arrays in single precision should stay in the second-level cache.
_CACHED = 120_000


@dataclass(frozen=True, eq=False)
class Tilt:
    """Preactivations of a population.

    Attributes:
        act: activation.
        b: B, (P, r), single precision, over √(1+δ).
        offset: c per group of chains, (G, P), or None for the source (c = 0, one group).
    """

    act: Activation
    b: Singles
    offset: Singles | None = None

    @property
    def groups(self) -> int:
        """Number of groups G: source neurons of a target, 1 for a source."""
        return 1 if self.offset is None else len(self.offset)

    def blocks(self, chains: int) -> Iterator[slice]:
        """Slices of the chains, (chains,) in all."""
        size = max(16, _CACHED // len(self.b))
        for start in range(0, chains, size):
            yield slice(start, min(start + size, chains))

    def preactivations(self, z: Singles, group: NDArray[np.intp] | None) -> Singles:
        """Return h (m, P) of z (m, r); `group` (m,) says whose offset to add."""
        h = z @ self.b.T
        if self.offset is not None:
            h += self.offset[group]
        return h

    def features(self, z: Singles, group: NDArray[np.intp] | None = None) -> Singles:
        """Return φ(h), (m, P), of z (m, r)."""
        return np.asarray(self.act.phi(self.preactivations(z, group)), dtype=np.float32)

    def project(self, z: Singles, v: Singles, group: NDArray[np.intp] | None = None) -> Singles:
        """Return s = v·φ(h), (m,), of z (m, r) and v (P,)."""
        s = np.empty(len(z), dtype=np.float32)
        for at in self.blocks(len(z)):
            s[at] = self.features(z[at], None if group is None else group[at]) @ v
        return s

    def slope(self, z: Singles, v: Singles, group: NDArray[np.intp] | None = None) -> tuple[Singles, Singles]:
        """Return s (m,) and ∂s/∂z (m, r)."""
        s, gradient = np.empty(len(z), dtype=np.float32), np.empty_like(z)
        for at in self.blocks(len(z)):
            φ, dφ = self.both(self.preactivations(z[at], None if group is None else group[at]))
            s[at] = φ @ v
            dφ *= v
            np.matmul(dφ, self.b, out=gradient[at])
        return s, gradient

    def both(self, h: Singles) -> tuple[Singles, Singles]:
        """Return φ(h) and φ'(h), which the caller may overwrite; h is overwritten."""
        if self.act.name == "erf":
            return erf_and_slope(h)
        φ, dφ = self.act.both(h)
        return np.asarray(φ, dtype=np.float32), np.array(dφ, dtype=np.float32)
