"""Points that nothing is trained on: they look at the hidden matrices and leave no trace.

W(0) along what such a point adds to the known directions is Gaussian, so its image is drawn when it is asked for and
forgotten. The same noise at every time makes smooth curves.
"""

from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Array, Floats
from tlcli.dmft.deep.hidden import Hidden
from tlcli.dmft.deep.space import Space, without

_ROUNDING = 1e-13  # of a field: smaller residuals are none


@dataclass(eq=False)
class Aside:
    """What the way there leaves for the way back: orthonormal directions (k, size) of the residuals, their images."""

    directions: Array
    images: Array

    def back(self, space: Space, g: Array) -> Array:
        """Return W(0)^T g along the directions."""
        return space.inner(g, self.images).astype(g.dtype) @ self.directions


def forward_alone(hidden: Hidden, x: Array, noise: Array) -> tuple[Floats, Array]:
    """Return c = <in x> (m, rank) and the image of what x (m, size) adds to the features: each point's own law.

    `noise` (m, size of the sink) are standard Gaussians off the known responses. Enough for outputs, which are averages
    of one point.
    """
    c = hidden.source.inner(x, hidden.ins.rows)
    square = np.einsum("ms,ms->m", x, x).astype(np.float64) * hidden.source.weight
    rest = np.sqrt(np.maximum(square - np.sum(c[:, hidden.is_feature] ** 2, axis=1), 0.0))
    return c, rest[:, None].astype(x.dtype) * noise


def forward_aside(hidden: Hidden, x: Array, noise: Array) -> tuple[Floats, Array, Aside]:
    """Return the same with the joint law of all points of the call at one time, and the `Aside`."""
    c = hidden.source.inner(x, hidden.ins.rows)
    rest = without(hidden.source, x, hidden.ins.rows, hidden.is_feature)
    turn, sizes, directions = _root(hidden.source, rest, x)
    images = turn.T.astype(x.dtype) @ noise
    return c, (turn * sizes).astype(x.dtype) @ images, Aside(directions, images)


def backward_aside(hidden: Hidden, g: Array, noise: Array, aside: Aside) -> tuple[Floats, Array]:
    """Return d = <out g> (m, rank) and what of W(0)^T g comes back outside the tables (m, size of the source)."""
    d = hidden.sink.inner(g, hidden.outs.rows)
    rest = without(hidden.sink, g, hidden.outs.rows, ~hidden.is_feature)
    turn, sizes, _ = _root(hidden.sink, rest, g)
    if not hidden.source.exact:  # unused axes have no part in what is known
        noise = without(hidden.source, noise, aside.directions, np.ones(len(aside.directions), dtype=bool))
    return d, aside.back(hidden.sink, g) + (turn * sizes).astype(g.dtype) @ (turn.T.astype(g.dtype) @ noise)


def _root(space: Space, rest: Array, x: Array) -> tuple[Floats, Floats, Array]:
    """Return U (m, k), sizes (k,) and orthonormal V (k, size) with rest = U sizes V, less what rounding made of x.

    U sizes U^T is the symmetric root of the residuals' Gram matrix, so their images follow it smoothly. Where fields
    are coefficients, no Gram matrix is formed: it does not resolve residuals below the root of rounding.
    """
    scale = float(np.max(np.einsum("ms,ms->m", x, x), initial=0.0)) * space.weight
    if space.exact:
        turn, sizes, directions = np.linalg.svd(rest, full_matrices=False)
        keep = sizes > _ROUNDING * np.sqrt(scale)
        return turn[:, keep], sizes[keep], directions[keep]
    values, turn = np.linalg.eigh(space.inner(rest, rest))
    keep = values > 1e2 * np.finfo(rest.dtype).eps * scale
    turn, sizes = turn[:, keep], np.sqrt(values[keep])
    return turn, sizes, (turn / sizes).T.astype(rest.dtype) @ rest
