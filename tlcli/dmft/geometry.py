"""Inputs in the coordinates of the training data's row space, where alone neurons move."""

from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Floats
from tlcli.errors import DomainError


@dataclass(frozen=True, eq=False)
class Geometry:
    """Points as linear forms on a neuron's weights.

    `moving` (n_point, rank): h_mu = moving_mu . u with u = Q^T w for an orthonormal basis Q (D, rank) of the
    training inputs. `still` (n_point, n_still): what of a point lies outside; these coordinates of the weights feel
    no force and only decay. <u u^T> = 1 and <v v^T> = 1 at t = 0, so that h h^T has mean x.x'/D.
    """

    moving: Floats
    still: Floats

    @property
    def rank(self) -> int:
        """Number of coordinates that move."""
        return self.moving.shape[1]


def reduce_inputs(x: Floats, n_train: int) -> Geometry:
    """Return the coordinates of the points x (n_point, D), of which the first `n_train` are ever trained on.

    Raises:
        DomainError: no training point has a nonzero input.
    """
    x = np.asarray(x, dtype=float) / np.sqrt(x.shape[1])
    _, singular, basis = np.linalg.svd(x[:n_train], full_matrices=False)
    live = singular > max(x.shape) * np.finfo(float).eps * max(float(singular[0]), np.finfo(float).tiny)
    basis = _signed(basis[live])
    if not len(basis):
        raise DomainError("all training inputs are zero; there is nothing to learn from.")
    moving = x @ basis.T
    rest = x[n_train:] - moving[n_train:] @ basis
    still = np.zeros((len(x), 0))
    if rest.size and np.linalg.norm(rest) > 1e-10 * np.linalg.norm(x):
        _, singular, outside = np.linalg.svd(rest, full_matrices=False)
        outside = _signed(outside[singular > 1e-12 * singular[0]])
        still = np.concatenate([np.zeros((n_train, len(outside))), rest @ outside.T])
    return Geometry(moving, still)


def _signed(basis: Floats) -> Floats:
    """Make the largest component of every row positive: which sign the decomposition gives depends on the library.

    Neurons are drawn in these coordinates, so that sign would change them.
    """
    largest = np.take_along_axis(basis, np.argmax(np.abs(basis), axis=1)[:, None], axis=1)
    return basis * np.where(largest < 0, -1.0, 1.0)
