"""Kernels of a deep network at initialisation, layer by layer, and its tangent kernel (the limit gamma -> 0)."""

from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Floats
from tlcli.dmft.activations import Activation
from tlcli.dmft.lazy import gaussian_kernels, initial_kernels


@dataclass(frozen=True, eq=False)
class InitialKernels:
    """Phi^l and G^l (n, m) of the layers l = 1..L at initialisation, and Theta_0 (n, m)."""

    phi: list[Floats]
    g: list[Floats]
    ntk: Floats


def initial_deep_kernels(act: Activation, x: Floats, y: Floats, depth: int) -> InitialKernels:
    """Return the kernels between inputs x (n, D) and y (m, D) of a network of `depth` hidden layers.

    h^1 has covariance x.y/D and h^{l+1} has Phi^l; G^l = G^{l+1} o <phi'(h^l) phi'(h^l)> with G^{L+1} = 1, and
    Theta_0 = Phi^L + sum_l G^l o Phi^{l-1}. Raises DomainError as `initial_kernels`.
    """
    below = x @ y.T / x.shape[1]
    value, slope = initial_kernels(act, x, y)
    phi, slopes, lower = [value], [slope], [below]
    var_x, var_y = (_own(act, z) for z in (x, y))
    for _ in range(1, depth):
        lower.append(phi[-1])
        value, slope = gaussian_kernels(act, var_x, var_y, phi[-1])
        phi.append(value)
        slopes.append(slope)
        var_x, var_y = (_next(act, v) for v in (var_x, var_y))
    g = [slopes[-1]]
    for slope in slopes[-2::-1]:
        g.insert(0, slope * g[0])
    ntk = phi[-1] + sum(a * b for a, b in zip(g, lower, strict=True))
    return InitialKernels(phi, g, ntk)


def _own(act: Activation, x: Floats) -> Floats:
    """Return E phi(h)^2 (n,) of the first layer."""
    return _next(act, np.einsum("nd,nd->n", x, x) / x.shape[1])


def _next(act: Activation, variances: Floats) -> Floats:
    """Return E phi(h)^2 (n,) of Gaussians h of these variances."""
    distinct, back = np.unique(variances, return_inverse=True)
    out = np.empty(len(distinct))
    for start in range(0, len(distinct), 64):  # only the diagonal is wanted
        part = distinct[start : start + 64]
        out[start : start + 64] = np.diagonal(gaussian_kernels(act, part, part, np.sqrt(np.outer(part, part)))[0])
    return out[back]
