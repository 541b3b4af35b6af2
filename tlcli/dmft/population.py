"""Neurons at initialisation: Gaussian samples, scrambled Sobol points, or a deterministic quadrature.

A neuron is (u, a): its weights in the row space of the data, and its readout, all standard Gaussians at t = 0.
Pairs (u, +-a) make f(0) = 0 exactly; whitening (moment matching) makes the sample's <u u^T> and <a^2> exact, and
with them every linear network.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from tlcli.arrays import Floats
from tlcli.dmft.activations import Activation
from tlcli.errors import UsageError

KINDS = ("mc", "sobol", "quadrature")
MAX_QUADRATURE_RANK = 3
_CUT = 6.5  # beyond, a standard Gaussian carries 1e-10
_COARSE_CUT = (
    6.25  # a rule with the same cut would not see what it leaves out; this one leaves out 3 to 4 times as much
)
_KINK_PARTS = (2.3, 3.3, 4.7)  # incommensurate: three rules that agree by chance only


@dataclass(frozen=True, eq=False)
class Population:
    """`hidden` (S, rank), `readout` (S,) or of several outputs (S, K), `still` (S, n_still) and `weights` (S,).

    Weights sum to 1 (None: all 1/S).
    """

    hidden: Floats
    readout: Floats
    still: Floats
    weights: Floats | None = None

    @property
    def size(self) -> int:
        """Number of neurons."""
        return len(self.readout)


def sample(
    kind: str,
    neurons: int,
    rank: int,
    n_still: int,
    rng: np.random.Generator,
    *,
    pairs: bool = False,
    whiten: bool = False,
    whiten_still: bool = False,
    readouts: int | None = None,
) -> Population:
    """Draw `neurons` neurons (rounded up to an even number with pairs, to a power of two for sobol).

    `whiten_still`: the still coordinates too get exact moments and no correlation with the moving ones, if there are
    neurons enough: kernels between test points of linear networks are then exact. `readouts` is the number of outputs
    of a readout (S, K); None is a single one, (S,).

    Raises:
        UsageError: too few neurons to whiten `rank` coordinates.
    """
    half = (neurons + 1) // 2 if pairs else neurons
    width = readouts or 1
    if kind == "sobol":
        half = 2 ** max(1, math.ceil(math.log2(half)))
        # The readout comes last: the leading coordinates of a Sobol sequence are its best ones.
        points = _sobol(rank + width, rng=rng).random(half)
        z = special.ndtri(np.clip(points, 1e-16, 1 - 1e-16))
        v = rng.standard_normal((half, n_still))
    else:
        z = rng.standard_normal((half, rank + width))
        v = rng.standard_normal((half, n_still))
    if whiten:
        z = _whitened(z, rank, pairs)
    if whiten_still and n_still and half >= 2 * (rank + n_still):
        u = z[:, :rank]
        v = scaled(v - u @ (u.T @ v / half))
    if pairs:
        z, v = np.concatenate([z, z * np.r_[np.ones(rank), -np.ones(width)]]), np.concatenate([v, v])
    return Population(z[:, :rank], z[:, rank] if readouts is None else z[:, rank:], v)


def _whitened(z: Floats, rank: int, pairs: bool) -> Floats:
    """Make <u u^T> = 1 and <a a^T> = 1 over the sample; without pairs the means and <u a> vanish as well."""
    needed = max(rank, z.shape[1] - rank) if pairs else z.shape[1] + 1
    if len(z) < needed:
        raise UsageError(
            f"{len(z) * (2 if pairs else 1)} neurons cannot match the moments of {rank} coordinates; use at least "
            f"{2 * needed} neurons."
        )
    if pairs:
        u, a = z[:, :rank], z[:, rank:]
        if a.shape[1] > 1:
            return np.column_stack([scaled(u), scaled(a)])
        a = a[:, 0]
        return np.column_stack([scaled(u), a / np.sqrt(np.mean(a**2))])
    return scaled(z - z.mean(axis=0))


def scaled(u: Floats) -> Floats:
    """Return points (n, rank) turned and stretched so that <u u^T> = 1 over them."""
    values, vectors = np.linalg.eigh(u.T @ u / len(u))
    return u @ (vectors / np.sqrt(values)) @ vectors.T


def coarser(act: Activation, rank: int, neurons: int, readouts: int | None = None) -> list[Population]:
    """Return the rules whose largest distance from `quadrature` of the same arguments is its error.

    Without kinks a single rule, of exponentially lower accuracy and with an earlier cut. With them, the error of a rule
    is where its nodes happen to lie beside the kinks and beside the neurons that die: rules of related numbers of nodes
    can share it (two midpoint rules, one of half the nodes, at any two cuts), three unrelated ones do not.
    """
    parts = (2.0,) if act.smooth else _KINK_PARTS
    power = rank + (readouts or 1) - 1
    sizes = [max(64, int(neurons / part**power)) for part in parts]
    return [quadrature(act, rank, size, cut=_COARSE_CUT, readouts=readouts) for size in sizes]


def quadrature(
    act: Activation, rank: int, neurons: int, *, cut: float = _CUT, readouts: int | None = None
) -> Population:
    """Return a deterministic rule of about `neurons` nodes for `rank` + readouts <= 4; `readouts` as in `sample`.

    See docs/references.md, Quadrature of smooth populations.

    Smooth activations: the product trapezoid rule in (u, a) within |(u, a)| < `cut`, of exponential accuracy; for odd
    ones on a > 0 alone, since (u, a) and (-u, -a) are the same neuron. Homogeneous activations with a kink: points
    on the sphere |(u, a)|^2 = rank + 1, because only the direction of (u, a) matters.

    Raises:
        UsageError: more coordinates of a neuron than 4.
    """
    width = readouts or 1
    if rank + width > MAX_QUADRATURE_RANK + 1:
        needed, found = f"inputs of rank {MAX_QUADRATURE_RANK} or less", f"these have rank {rank}"
        if readouts is not None:
            needed = f"at most {MAX_QUADRATURE_RANK + 1} coordinates of a neuron"
            found = f"inputs of rank {rank} and {width} readout coordinates are {rank + width}"
        raise UsageError(f"population: quadrature needs {needed}, and {found}; use sobol or mc.")
    if act.homogeneous:
        directions, weights = _sphere(rank + width - 1, neurons)
        z = np.sqrt(rank + float(width)) * directions
        return _split(z, rank, readouts, weights)
    size = rank + width
    volume = math.pi ** (size / 2) / math.gamma((size + 2) / 2) * cut**size
    spacing = (volume / (2 if act.odd else 1) / neurons) ** (1 / size)
    count = math.floor(cut / spacing)
    # Half-way nodes in a: none lies on a = 0, which the two halves would share.
    u = spacing * np.arange(-count, count + 1)
    a = spacing * (np.arange(-count - 1, count + 1) + 0.5)
    grid = np.meshgrid(*[u] * rank, a[a > 0] if act.odd else a, *[a] * (width - 1), indexing="ij")
    z = np.stack([g.ravel() for g in grid], axis=1)
    radius2 = np.sum(z**2, axis=1)
    z, radius2 = z[radius2 < cut**2], radius2[radius2 < cut**2]
    weights = np.exp(-radius2 / 2)
    return _split(z, rank, readouts, weights / weights.sum())


def _split(z: Floats, rank: int, readouts: int | None, weights: Floats) -> Population:
    return Population(z[:, :rank], z[:, rank] if readouts is None else z[:, rank:], np.zeros((len(z), 0)), weights)


def _sphere(rank: int, neurons: int) -> tuple[Floats, Floats]:
    """Return unit vectors (n, rank + 1) and weights: circle, Gauss-Legendre x trapezoid, or Sobol (rank 3)."""
    if rank == 1:
        angle = 2 * math.pi * (np.arange(neurons) + 0.5) / neurons
        return np.stack([np.cos(angle), np.sin(angle)], axis=1), np.full(neurons, 1 / neurons)
    if rank == 2:
        n_polar = max(2, round(math.sqrt(neurons / 2)))
        height, weight = np.polynomial.legendre.leggauss(n_polar)
        n_angle = 2 * n_polar
        shift = (np.arange(n_polar) * (math.sqrt(5) - 1) / 2) % 1  # golden: no two circles share an angle
        angle = 2 * math.pi * (np.arange(n_angle)[None, :] + shift[:, None]) / n_angle
        radius = np.sqrt(1 - height**2)[:, None]
        z = np.stack(
            [radius * np.cos(angle), radius * np.sin(angle), np.broadcast_to(height[:, None], angle.shape)], -1
        )
        return z.reshape(-1, 3), np.repeat(weight / 2 / n_angle, n_angle)
    points = special.ndtri(_sobol(rank + 1, rng=0).random(2 ** round(math.log2(neurons))))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points, np.full(len(points), 1 / len(points))


def _sobol(dim: int, rng: Any) -> Any:
    """Return a scrambled Sobol sequence; `scipy.stats`, half a second to load, is loaded where it is needed alone."""
    from scipy.stats import qmc

    return qmc.Sobol(dim, rng=rng)
