"""Points that nothing is trained on: they look at the hidden matrices and leave no trace.

W(0) along what such a point adds to the known directions is Gaussian, so its image is drawn when it is asked for and
forgotten. The same noise at every time makes smooth curves.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcli.dmft.deep.hidden import Hidden
from tlcli.dmft.deep.space import Fields, Space, without

Array = NDArray[np.float64]


@dataclass(eq=False)
class Aside:
    """What the way there leaves for the way back: the residuals (m, size), their factor (m, m) and their images."""

    rest: Fields
    factor: Array
    images: Fields

    def back(self, space: Space, g: Fields) -> tuple[Fields, Fields]:
        """Return W(0)^T g along the residuals' directions, and these directions, which are orthonormal."""
        directions = np.linalg.solve(self.factor, self.rest.astype(np.float64)).astype(g.dtype)
        return space.inner(g, self.images).astype(g.dtype) @ directions, directions


def forward_alone(hidden: Hidden, x: Fields, noise: Fields) -> tuple[Array, Fields]:
    """Return c = <in x> (m, rank) and the image of what x (m, size) adds to the features: each point's own law.

    `noise` (m, size of the sink) are standard Gaussians off the known responses. Enough for outputs, which are averages
    of one point.
    """
    c = hidden.source.inner(x, hidden.ins.rows)
    square = np.einsum("ms,ms->m", x, x).astype(np.float64) * hidden.source.weight
    rest = np.sqrt(np.maximum(square - np.sum(c[:, hidden.is_feature] ** 2, axis=1), 0.0))
    return c, rest[:, None].astype(x.dtype) * noise


def forward_aside(hidden: Hidden, x: Fields, noise: Fields) -> tuple[Array, Fields, Aside]:
    """Return the same with the joint law of all points of the call at one time, and the `Aside`."""
    c = hidden.source.inner(x, hidden.ins.rows)
    rest = without(hidden.source, x, hidden.ins.rows, hidden.is_feature)
    factor = _cholesky(hidden.source.inner(rest, rest), _mean_square(hidden.source, x))
    return c, factor.astype(x.dtype) @ noise, Aside(rest, factor, noise)


def backward_aside(hidden: Hidden, g: Fields, noise: Fields, aside: Aside) -> tuple[Array, Fields]:
    """Return d = <out g> (m, rank) and what of W(0)^T g comes back outside the tables (m, size of the source)."""
    d = hidden.sink.inner(g, hidden.outs.rows)
    rest = without(hidden.sink, g, hidden.outs.rows, ~hidden.is_feature)
    factor = _cholesky(hidden.sink.inner(rest, rest), _mean_square(hidden.sink, g))
    seen, directions = aside.back(hidden.sink, g)
    if not hidden.source.exact:  # unused axes have no part in what is known
        noise = without(hidden.source, noise, directions, np.ones(len(directions), dtype=bool))
    return d, seen + factor.astype(g.dtype) @ noise


def _mean_square(space: Space, x: Fields) -> float:
    return float(np.mean(np.einsum("ms,ms->m", x, x))) * space.weight


def _cholesky(gram: Array, scale: float) -> Array:
    """Return a lower factor of a residual Gram matrix, which may be singular up to rounding."""
    jitter = 1e-6 * max(scale, 1e-30)
    while True:
        try:
            return np.asarray(np.linalg.cholesky(gram + jitter * np.eye(len(gram))), dtype=np.float64)
        except np.linalg.LinAlgError:
            jitter *= 10
