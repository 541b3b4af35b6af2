"""A deep network before training: one draw of everything that is random, shared by all that is done with it.

Runs that start from the same draw (with and without pre-training, with two time steps) look at the same hidden
matrices, so that their difference is free of most of the sampling noise.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tlcli.arrays import Array, Floats, Indices
from tlcli.dmft.activations import Activation
from tlcli.dmft.deep.hidden import Hidden
from tlcli.dmft.deep.space import Axes, Samples, Space, without
from tlcli.dmft.geometry import Geometry

Readouts = tuple[int | None, int | None]  # of the first stage and of a new head; None: a single output

AXES = 24  # axes per input direction and layer that an exact linear network is given at first


@dataclass(eq=False)
class Start:
    """Initial weights and hidden matrices of one repeat.

    `inputs` (rank, size) and `still` (n_still, size) of the first layer, `readout` and `redrawn` of the last, (size,)
    or (K, size) of several outputs, of which the redrawn one may have others; `hidden` grow as they are looked at.
    `trained` are all points that any stage trains on, `origin` Phi^l there before training, `counts` per stage how many
    directions each matrix had when the stage was first entered. The noise (n_point, size) per hidden matrix is drawn
    when first needed, that of the way back from `seed` whenever it is.
    """

    act: Activation
    geometry: Geometry
    spaces: Sequence[Space]
    hidden: list[Hidden]
    inputs: Array
    still: Array
    readout: Array
    redrawn: Array
    tol: float
    trained: Indices
    seed: int = 0
    origin: list[Floats] = field(default_factory=list)
    counts: dict[int, list[int]] = field(default_factory=dict)
    _noise: dict[int, tuple[Array, int]] = field(default_factory=dict)
    _renewed: dict[int, "Start"] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        """Number of hidden layers."""
        return len(self.spaces)

    def fork(self) -> "Start":
        """Return the same draw for one run, which may exchange parts of it; matrices and noise stay shared."""
        return replace(self, hidden=list(self.hidden))

    def coarser(self, factor: float, rng: np.random.Generator) -> "Start":
        """Return a sample of the same weights and noise that is looked at with `factor` times the tolerance.

        Images of its hidden matrices are those that this one knows by now: what runs differ by is the truncation alone.
        """
        tol, twins = factor * self.tol, dict[int, Hidden]()
        spaces = [
            Samples(space.size, child, space.dtype.name, "projected")  # images that are known stay as they are
            for space, child in zip(self.spaces, rng.spawn(self.depth), strict=True)
        ]

        def twin(start: "Start") -> "Start":
            for index, fine in enumerate(start.hidden):
                twins.setdefault(id(fine), Hidden(spaces[index], spaces[index + 1], tol, fine))
            return replace(
                start,
                spaces=spaces,
                hidden=[twins[id(fine)] for fine in start.hidden],
                tol=tol,
                origin=[],
                counts={},
                _noise={index: (z.copy(), 0) for index, (z, _) in start._noise.items()},
                _renewed={},
            )

        out = twin(self)
        out._renewed = {above: twin(start) for above, start in self._renewed.items()}
        return out

    def noise(self, index: int, points: Indices, backward: bool = False) -> Array:
        """Return the Gaussians of `points` that stand in for a hidden matrix where nothing was revealed.

        They lie off the known responses (on the way back: off the known features).
        """
        space = self.spaces[index if backward else index + 1]
        if isinstance(space, Axes):
            out = np.zeros((len(points), space.size))
            # The last axes are kept free; those of the way back lie before those of the way there.
            first = space.size - (2 if backward else 1) * len(points)
            if first < space.used:
                raise OverflowError(f"{space.used + 2 * len(points)} axes are more than {space.size}")
            out[np.arange(len(points)), first + np.arange(len(points))] = 1.0
            return out
        hidden = self.hidden[index]
        if backward:  # at the few moments when kernels are kept: not worth its memory
            z = np.random.default_rng((self.seed, index)).standard_normal((len(points), space.size)).astype(space.dtype)
            return without(space, z, hidden.ins.rows, hidden.is_feature)
        if index not in self._noise:
            self._noise[index] = (space.normal(len(self.geometry.moving)), 0)
        z, seen = self._noise[index]
        # What W does along a response is known: the noise has no part there. Only new ones cost anything.
        new = hidden.outs.rows[seen:][~hidden.is_feature[seen:]]
        if len(new):
            z -= space.inner(z, new).astype(z.dtype) @ new
        self._noise[index] = (z, hidden.outs.count)
        return z[points]

    def redraw(self, above: int) -> None:
        """Draw the weights above layer `above` (0: all layers) anew, for what is trained from here on.

        All forks of one draw get the same new weights.
        """
        if above not in self._renewed:
            new = replace(self, hidden=list(self.hidden), _noise=dict(self._noise))
            if above == 0:
                new.inputs, new.still = self.spaces[0].start(len(self.inputs)), self._outside(len(self.still))
            for index in range(max(0, above - 1), len(self.hidden)):
                new.hidden[index] = Hidden(self.spaces[index], self.spaces[index + 1], self.tol)
                new._noise.pop(index, None)
            self._renewed[above] = new
        new = self._renewed[above]
        self.inputs, self.still, self.hidden, self._noise = new.inputs, new.still, list(new.hidden), new._noise

    def _outside(self, count: int) -> Array:
        """Return the input weights outside the row space of the training data, which nothing moves."""
        space = self.spaces[0]
        return space.normal(count) if isinstance(space, Samples) else space.start(count)


def sampled(
    act: Activation,
    geometry: Geometry,
    depth: int,
    neurons: int,
    rng: np.random.Generator,
    trained: Indices,
    *,
    tol: float = 0.03,
    dtype: str = "float32",
    draws: str = "matched",
    readouts: Readouts = (None, None),
) -> Start:
    """Draw a network whose single-site laws are represented by `neurons` samples per layer."""
    *children, aside = rng.spawn(depth + 1)
    spaces = [Samples(neurons, child, dtype, draws) for child in children]
    start = _begin(act, geometry, spaces, tol, trained, readouts)
    start.seed = int(aside.integers(2**63))
    return start


def exact(
    act: Activation,
    geometry: Geometry,
    depth: int,
    trained: Indices,
    *,
    tol: float = 1e-12,
    size: int | None = None,
    readouts: Readouts = (None, None),
) -> Start:
    """Return a linear network in its Gaussian Hilbert space; `size` axes per layer.

    Raises:
        OverflowError: from any later look, where the axes do not suffice; take more.
    """
    given = geometry.rank + sum(count or 1 for count in readouts)
    axes = AXES * given + geometry.still.shape[1] if size is None else size
    return _begin(act, geometry, [Axes(axes) for _ in range(depth)], tol, trained, readouts)


def _begin(
    act: Activation,
    geometry: Geometry,
    spaces: Sequence[Space],
    tol: float,
    trained: Indices,
    readouts: Readouts,
) -> Start:
    hidden = [Hidden(below, above, tol) for below, above in itertools.pairwise(spaces)]
    first, last = spaces[0], spaces[-1]
    inputs = first.start(geometry.rank)
    readout, redrawn = (last.start(1)[0] if count is None else last.start(count) for count in readouts)
    empty = np.zeros((0, first.size), dtype=first.dtype)
    start = Start(act, geometry, spaces, hidden, inputs, empty, readout, redrawn, tol, np.unique(trained))
    if geometry.still.shape[1]:
        start.still = start._outside(geometry.still.shape[1])
    return start
