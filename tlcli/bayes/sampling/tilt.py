"""The one-neuron measures that are sampled: base Gaussian, feature s(z) = v·φ(h) and its gradient, in blocks.

A neuron's weights in the row space of the training inputs are w = m + z/√(1+δ), z standard Gaussian (r,), so that its
preactivations on the P training points are h = Bz + c with B = X·basis/√(D(1+δ)), c = Xm/√D. All densities of this
package depend on z through |z|² and s(z) alone.

Homogeneous activations on the sphere. With φ(ch) = cφ(h) and c = 0 the radius of z integrates out: along the direction
ẑ, |ẑ|² = r, and with u = γs(ẑ), the squared radius is χ²_r/(1 - u²/r) and the direction has the density
(1 - u²/r)^(-r/2), which tends to exp(½u²) as r grows. Near the edge of normalisability, u² → r, the radius has a range
that no chain would cross; its moments are exact here:

    E|z|²/r = ρ²,  E|z|⁴/r² = (1 + 2/r)ρ⁴,  ρ² = 1/(1 - u²/r)

Around the source neuron of a target the same holds for the direction of z about the point where w = 0, see `radius`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Floats, Indices, Singles
from tlcli.bayes.sampling.radius import radial
from tlcli.dmft.activations import Activation, erf_and_slope

# Chains per block: three (block, P) arrays in single precision should stay in the second-level cache.
_CACHED = 120_000
# 1 - u²/r in single precision knows seven digits of one: below this it is round-off.
_EDGE = 1e-6


@dataclass(frozen=True, eq=False)
class Tilt:
    """Preactivations of chains.

    Attributes:
        act: activation.
        b: B, (P, r), single precision, over √(1+δ).
        offset: c per group of chains, (G, P), or None for the source (c = 0, one group).
        sphere: the radius is integrated out; φ must be homogeneous and there must be no offset. Features, s and its
            gradient are then those of ẑ = z√r/|z|, whatever the radius of z.
    """

    act: Activation
    b: Singles
    offset: Singles | None = None
    sphere: bool = False

    @property
    def rank(self) -> int:
        """r, the number of coordinates of z."""
        return self.b.shape[1]

    @property
    def groups(self) -> int:
        """Number of groups G: source neurons of a target, 1 for a source."""
        return 1 if self.offset is None else len(self.offset)

    def blocks(self, chains: int) -> Iterator[slice]:
        """Slices of the chains, (chains,) in all."""
        size = max(16, _CACHED // len(self.b))
        for start in range(0, chains, size):
            yield slice(start, min(start + size, chains))

    def preactivations(self, z: Singles, group: Indices | None) -> Singles:
        """Return h (m, P) of z (m, r), of ẑ on the sphere; `group` (m,) says whose offset to add."""
        h = (self.directions(z) if self.sphere else z) @ self.b.T
        if self.offset is not None:
            h += self.offset[group]
        return h

    def features(self, z: Singles, group: Indices | None = None) -> Singles:
        """Return φ(h), (m, P), of z (m, r)."""
        return np.asarray(self.act.phi(self.preactivations(z, group)), dtype=np.float32)

    def project(self, z: Singles, v: Singles, group: Indices | None = None) -> Singles:
        """Return s = v·φ(h), (m,), of z (m, r) and v (P,)."""
        s = np.empty(len(z), dtype=np.float32)
        for at in self.blocks(len(z)):
            s[at] = self.features(z[at], None if group is None else group[at]) @ v
        return s

    def slope(self, z: Singles, v: Singles, group: Indices | None = None) -> tuple[Singles, Singles]:
        """Return s (m,) and ∂s/∂z (m, r)."""
        s, gradient = np.empty(len(z), dtype=np.float32), np.empty_like(z)
        for at in self.blocks(len(z)):
            φ, dφ = self.both(self.preactivations(z[at], None if group is None else group[at]))
            s[at] = φ @ v
            dφ *= v
            np.matmul(dφ, self.b, out=gradient[at])
        return s, self.tangential(z, s, gradient) if self.sphere else gradient

    def tangential(self, z: Singles, s: Singles, slope: Singles) -> Singles:
        """Return ∂s(ẑ)/∂z, (m, r), from ∂s/∂ẑ: its radial part is s/√r for a homogeneous φ, and does not move ẑ."""
        stretch = _single(np.sqrt(self.rank) / _norm(z))
        return _single(stretch * (slope - s[:, None] / self.rank * stretch * z))

    def directions(self, z: Singles) -> Singles:
        """Return ẑ = z√r/|z|, (m, r)."""
        return z * _single(np.sqrt(self.rank) / _norm(z))

    def with_radius(self, z: Singles, stretch: Floats, rng: np.random.Generator) -> Singles:
        """Return states (m, r) along ẑ with radii drawn given the direction: |z|² = χ²_r ρ², ρ² = `stretch` (m,)."""
        radius = np.sqrt(rng.chisquare(self.rank, len(z)) * stretch / self.rank)
        return self.directions(z) * _single(radius[:, None])

    def statistic(self, u: Floats) -> tuple[Floats, Floats]:
        """Return the t that a field of the ladder multiplies, and dt/du, at u = γs: u itself, -½log(1 - u²/r) on the
        sphere."""
        if not self.sphere:
            return u, np.ones_like(u)
        rest = np.maximum(1 - u**2 / self.rank, _EDGE)
        return -0.5 * np.log(rest), u / (self.rank * rest)

    def exponent(self, u: Floats, pull: Floats | None = None) -> Floats:
        """Return the log of the tilt at u = γs: ½u², or -½r·log(1 - u²/r) on the sphere (inf outside the domain).

        `pull` is p of `radius`, with which the integral over the radius is that around a source neuron.
        """
        if not self.sphere:
            return 0.5 * u**2
        rest = 1 - u**2 / self.rank
        inside = np.maximum(rest, _EDGE)
        log = -0.5 * self.rank * np.log(inside) if pull is None else radial(self.rank, inside, pull)[0]
        return np.where(rest > _EDGE, log, np.inf)

    def holds(self, u: Floats) -> bool:
        """Whether every u = γs is inside the domain, where the log of the tilt is finite."""
        return not self.sphere or bool((1 - u**2 / self.rank).min() > _EDGE)

    def stretch(self, u: Floats, pull: Floats | None = None) -> tuple[Floats, Floats | float]:
        """Return ρ² = E|z|²/r given the direction, and E|z|⁴/(E|z|²)², at u = γs; 1 where the radius is not
        integrated out."""
        if not self.sphere:
            return np.ones_like(u), 1.0
        rest = np.maximum(1 - u**2 / self.rank, _EDGE)
        if pull is None:
            return 1 / rest, 1 + 2 / self.rank
        _, square, fourth = radial(self.rank, rest, pull)
        return square / self.rank, fourth / square**2

    def both(self, h: Singles) -> tuple[Singles, Singles]:
        """Return φ(h) and φ'(h), which the caller may overwrite; h is overwritten."""
        if self.act.kind == "erf":
            return erf_and_slope(h)
        φ, dφ = self.act.both(h)
        return np.asarray(φ, dtype=np.float32), np.array(dφ, dtype=np.float32)


def _norm(z: Singles) -> Floats:
    return np.sqrt(np.einsum("ij,ij->i", z, z)).astype(float)[:, None]


def _single(values: Floats) -> Singles:
    return np.asarray(values, dtype=np.float32)
