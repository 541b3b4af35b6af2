"""Where the fields of one layer live: a sample of neurons, or the exact Gaussian Hilbert space of a linear network.

A field h_mu of a layer is one random variable of its single-site law. Two representations have the same algebra: the
values of the variable on S sampled neurons, with <x y> the mean over them, and, where the activation is linear and the
fields are Gaussian, its coefficients on orthonormal Gaussian axes, with <x y> their dot product. The causal sweep is
written once and is exact in the second. Rows are fields: (n_field, size).
"""

import numpy as np

from tlcli.arrays import Array, Flags, Floats


class Samples:
    """S neurons. Fresh Gaussians are drawn `independent`, `projected` off the known responses, or `matched`.

    Projected draws have the law of a dense network of width S whose weights are looked at as needed; matched draws are
    orthonormal besides and lie off all known fields, which removes their share of the sampling noise. Independent
    ones leave a bias of rank/S.
    """

    exact = False

    def __init__(self, size: int, rng: np.random.Generator, dtype: str = "float32", draws: str = "matched") -> None:
        self.size, self.rng, self.dtype, self.draws = size, rng, np.dtype(dtype), draws
        self.weight = 1.0 / size

    def inner(self, x: Array, y: Array) -> Floats:
        """Return <x y> (n, m), the mean over the neurons."""
        return (x @ y.T).astype(np.float64) * self.weight

    def normal(self, count: int) -> Array:
        """Return (count, S) standard Gaussians."""
        return self.rng.standard_normal((count, self.size), dtype=np.float64).astype(self.dtype)

    def start(self, count: int) -> Array:
        """Return `count` Gaussian fields of exact unit covariance over the sample, where there are neurons enough."""
        z = self.normal(count)
        return whitened(self, z) if self.size > 2 * count else z

    def fresh(self, z: Array, known: Array, image: Flags) -> Array:
        """Return Gaussian fields z (m, S) beside the `known` ones (n, S): images of W(0), where `image`, and others.

        The images are orthonormal among each other and so are the others.
        """
        if self.draws == "independent" or not len(known):
            return z
        if self.draws == "matched" and len(known) + len(z) < self.size // 2:
            return whitened(self, without(self, without(self, z, known, image), known, ~image))
        return without(self, z, known, ~image)


class Axes:
    """Coefficients on orthonormal Gaussian axes; a fresh Gaussian is the next unused axis.

    Raises:
        OverflowError: more than `size` axes are needed.
    """

    exact = True
    dtype = np.dtype("float64")
    weight = 1.0

    def __init__(self, size: int) -> None:
        self.size, self.used = size, 0

    def inner(self, x: Array, y: Array) -> Floats:
        """Return <x y> (n, m) of Gaussian fields."""
        return x @ y.T

    def start(self, count: int) -> Array:
        """Return the next `count` axes (count, size)."""
        if self.used + count > self.size:
            raise OverflowError(f"{self.used + count} axes are more than {self.size}")
        out = np.zeros((count, self.size))
        out[np.arange(count), self.used + np.arange(count)] = 1.0
        self.used += count
        return out

    def normal(self, count: int) -> Array:
        """Return the next `count` axes."""
        return self.start(count)

    def fresh(self, z: Array, known: Array, image: Flags) -> Array:
        """Return z: new axes are independent of all that is known."""
        return z


Space = Samples | Axes


def without(space: Space, z: Array, rows: Array, chosen: Flags, known: Floats | None = None) -> Array:
    """Return the fields z less their projection on the `chosen` rows (n, size), which are orthonormal.

    `known` is <z rows> (m, n), where the caller has it.
    """
    if not chosen.any():
        return z
    parts = space.inner(z, rows) if known is None else known.copy()
    parts[:, ~chosen] = 0  # cheaper than a copy of the chosen rows
    return z - parts.astype(z.dtype) @ rows


def whitened(space: Space, z: Array) -> Array:
    """Return the fields with <z z^T> = 1 over the sample."""
    values, vectors = np.linalg.eigh(space.inner(z, z))
    return ((vectors / np.sqrt(values)) @ vectors.T).astype(z.dtype) @ z
