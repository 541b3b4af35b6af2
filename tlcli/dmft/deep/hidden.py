"""One hidden matrix W, looked at only along the directions that training needs ("lazily revealed W(0)").

Conditioned on the products W(0) p and W(0)^T g seen so far, the rest of a Gaussian matrix is Gaussian still. So
W(0) is kept as pairs of fields, W(0) ~ sum_k out_k <in_k .>: a *feature* pair is an orthonormal direction p of the
layer below with its Gaussian image u = W(0) p, a *response* pair an orthonormal direction g of the layer above with
v = W(0)^T g. What training learnt is a small matrix C between responses and features,

    W x = sum_k out_k [r c_k + sum_j C_kj c_j],   c = <in x>,   r = prod (1 - lambda dt) the decay of W(0),

and W^T the same from the other side. Responses then carry A = <d phi / d r> and features B = <d g / d u>, the equal
time included, without an inverse: M^-1 of the Stein formula is the orthonormalisation (docs/deep.md).
"""

from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Array, Flags, Floats, Indices
from tlcli.dmft.deep.space import Space, whitened, without


@dataclass(frozen=True)
class Ablation:
    """What is left out of the theory, to see what it does (docs/references.md, Ablations).

    `responses`: A and B at all times; `forget` this many leading pairs keep their Gaussian part but lose their
    responses, those of an earlier stage; `equal_time`: the part of B at equal times alone.
    """

    responses: bool = False
    forget: int = 0
    equal_time: bool = False


NOTHING = Ablation()


class Table:
    """Rows of fields (n, size) that grow by doubling."""

    def __init__(self, space: Space) -> None:
        self.space, self.count = space, 0
        self._rows = np.zeros((32, space.size), dtype=space.dtype)

    @property
    def rows(self) -> Array:
        """The fields so far, a view."""
        return self._rows[: self.count]

    def append(self, new: Array) -> None:
        """Add fields (m, size)."""
        need = self.count + len(new)
        if need > len(self._rows):
            more = np.zeros((max(need, 2 * len(self._rows)), self._rows.shape[1]), dtype=self._rows.dtype)
            more[: self.count] = self.rows
            self._rows = more
        self._rows[self.count : need] = new
        self.count = need

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self._rows.nbytes


class Hidden:
    """The revealed part of one hidden matrix from `source` (the layer below) to `sink` (the layer above).

    A direction whose residual has less than tol^2 of the mean square of its block is taken as known. Where a sample of
    the same matrix has a finer table, `guide`, images are those that it knows, and drawn only for what it does not.
    """

    def __init__(self, source: Space, sink: Space, tol: float, guide: "Hidden | None" = None) -> None:
        self.source, self.sink, self.tol, self.guide = source, sink, tol, guide
        self.ins, self.outs = Table(source), Table(sink)
        self.is_feature = np.zeros(0, dtype=bool)
        # Rows of the tables that are features, and those that are responses: asked for far more often than they change.
        self.features: Indices = np.zeros(0, dtype=np.intp)
        self.responses: Indices = np.zeros(0, dtype=np.intp)

    @property
    def nbytes(self) -> int:
        """Memory of both tables."""
        return self.ins.nbytes + self.outs.nbytes

    def reveal_features(self, x: Array) -> Floats:
        """Make sure that W(0) is known along x (m, size); return c = <in x> (m, rank)."""
        known = self.source.inner(x, self.ins.rows)
        new = self._novel(self.source, x, self.ins, self.is_feature, known)
        if not len(new):
            return known
        image = self.sink.fresh(self._images(new, True), self.outs.rows, self.is_feature)
        self._append(new, image, True)
        return np.concatenate([known, self.source.inner(x, new)], axis=1)

    def reveal_responses(self, g: Array) -> Floats:
        """Make sure that W(0)^T is known along g (m, size); return d = <out g> (m, rank)."""
        known = self.sink.inner(g, self.outs.rows)
        new = self._novel(self.sink, g, self.outs, ~self.is_feature, known)
        if not len(new):
            return known
        image = self.source.fresh(self._images(new, False), self.ins.rows, ~self.is_feature)
        self._append(image, new, False)
        return np.concatenate([known, self.sink.inner(g, new)], axis=1)

    def _images(self, new: Array, feature: bool) -> Array:
        """Return Gaussians (m, size) for the images of new orthonormal directions, features or responses."""
        z = (self.sink if feature else self.source).normal(len(new))
        if self.guide is None:
            return z
        known = self.guide
        space, rows, images, chosen = self.source, known.ins.rows, known.outs.rows, known.is_feature
        if not feature:
            space, rows, images, chosen = self.sink, images, rows, ~chosen
        parts = space.inner(new, rows)
        parts[:, ~chosen] = 0
        unknown = np.sqrt(np.maximum(1 - np.sum(parts**2, axis=1), 0.0))
        return parts.astype(z.dtype) @ images + unknown[:, None].astype(z.dtype) * z

    def _append(self, ins: Array, outs: Array, feature: bool) -> None:
        self.ins.append(ins)
        self.outs.append(outs)
        self.is_feature = np.concatenate([self.is_feature, np.full(len(ins), feature)])
        self.features, self.responses = np.flatnonzero(self.is_feature), np.flatnonzero(~self.is_feature)

    def _novel(self, space: Space, x: Array, table: Table, chosen: Flags, known: Floats) -> Array:
        """Return orthonormal fields that complete the `chosen` rows of a table to span x, up to the tolerance."""
        if space.exact:  # a Gram matrix does not resolve directions below the root of rounding
            scale = self.tol**2 * max(float(np.vdot(x, x)) / len(x), 1e-300)
            rest = without(space, x, table.rows, chosen, known)
            if np.vdot(rest, rest) < 0.999 * scale:  # it bounds all squares, and most looks find nothing new
                return x[:0]
            _, sizes, vectors = np.linalg.svd(rest, full_matrices=False)
            new = vectors[sizes**2 > scale]
        else:
            gram = space.inner(x, x)
            scale = self.tol**2 * max(float(np.trace(gram)) / len(x), 1e-300)
            residual = gram - known[:, chosen] @ known[:, chosen].T
            # Most looks find nothing new; the trace bounds the eigenvalues. The difference has rounding errors.
            if not np.trace(residual) > scale or np.linalg.eigvalsh(residual)[-1] <= scale:
                return x[:0]
            rest = without(space, x, table.rows, chosen, known)
            values, vectors = np.linalg.eigh(space.inner(rest, rest))
            keep = values > scale
            new = ((vectors[:, keep] / np.sqrt(values[keep])).T).astype(x.dtype) @ rest
        # What rounding left along the known directions grew with the division by the residual's size; left there, it
        # grows from one look to the next. Twice is enough.
        return whitened(space, without(space, new, table.rows, chosen)) if len(new) else new

    def forward(self, c: Floats, decay: float, learned: Floats, ablation: Ablation = NOTHING) -> Array:
        """Return W x (m, size of the sink) from c = <in x>; `learned` is C (n_response, n_feature)."""
        return _through(self.outs, c, decay, (self.features, learned.T, self.responses), ablation)

    def backward(self, d: Floats, decay: float, learned: Floats, ablation: Ablation = NOTHING) -> Array:
        """Return W^T g (m, size of the source) from d = <out g>."""
        return _through(self.ins, d, decay, (self.responses, learned, self.features), ablation)


def _through(
    side: Table, inner: Floats, decay: float, step: tuple[Indices, Floats, Indices], ablation: Ablation
) -> Array:
    """Return what `side` receives; `step`: rows that the learned part reads, itself (n_read, n_written), and writes."""
    read, learned, written = step
    weights = decay * inner
    if ablation.responses:
        weights[:, written] = 0
    elif ablation.forget:
        weights[:, written[written < ablation.forget]] = 0
    n_read, n_written = learned.shape
    weights[:, written[:n_written]] += inner[:, read[:n_read]] @ learned
    return weights.astype(side.space.dtype) @ side.rows[: weights.shape[1]]
