"""Gradient flow of a readout on a frozen kernel, mode by mode (docs/theory.md, Section 3, time-resolved).

A direction with kernel k I + c n nᵀ sees the Marchenko–Pastur modes (ℓ, w), u = √w. With β = M Λ^{1/2} y:

    dy/dt = v − (A + λ₂) y,   A = k Λ + c v vᵀ,   v = Λ^{1/2} u,   |v| = 1,

so y = φ(A+λ₂, t) v with φ(x, t) = (1 − e^{−xt})/x. The residual u − β is Λ^{−1/2} ψ(A) v on the modes with
ℓ > 0, where ψ(a) = 1 − aφ = (λ₂ + a e^{−(a+λ₂)t})/(a+λ₂), and u₀(1 − c v·y) on the atom at ℓ = 0. One
symmetric eigendecomposition of A, which has no zero mode, serves all times, ridges and overlaps; without a
spike A is diagonal.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tlcli.arrays import Floats
from tlcli.linear.spectrum import marchenko_pastur, nodes_needed

TOLERANCE = 1e-9
MAX_MODES = 1024
_RANK_ONE = 1e-12  # below this k/c, v is an eigenvector of A to rounding


class ModeLoss(NamedTuple):
    """Losses per unit squared norm (or noise variance) and their change at the last doubling of the modes."""

    test: Floats
    train: Floats
    change: Floats


def direction_loss(alpha2: ArrayLike, bulk: ArrayLike, spike: ArrayLike, ridge: ArrayLike, time: ArrayLike) -> ModeLoss:
    """Loss F_c(t) = |u − β|² and train part (u − β)ᵀΛ(u − β) of one direction; all arguments broadcast.

    The fields have the broadcast shape of the arguments; a problem (alpha2, bulk, spike) is diagonalised
    once.
    """
    return _solve(_direction, alpha2, bulk, spike, ridge, time)


def noise_loss(alpha2: ArrayLike, bulk: ArrayLike, ridge: ArrayLike, time: ArrayLike) -> ModeLoss:
    """(1/α)∫ ℓk²φ² (test) and (1/α)∫_{ℓ>0} ψ² + max(0, 1 − 1/α) (train), for unit label noise."""
    return _solve(_noise, alpha2, bulk, 0.0, ridge, time)


def direction_part(alpha2: ArrayLike, bulk: ArrayLike, spike: ArrayLike, ridge: ArrayLike, time: ArrayLike) -> Floats:
    """Part u·(u − β) of one direction that is not learned, averaged over the data; all arguments broadcast."""
    return _solve(_part, alpha2, bulk, spike, ridge, time).test


def _decay(a: Floats, ridge: Floats, time: Floats) -> tuple[Floats, Floats]:
    """φ(a+λ, t) and ψ = 1 − aφ for eigenvalues (n,) against (λ, t) pairs (m, 1), without cancellation."""
    x = a + ridge
    safe = np.where(x > 0, x, 1.0)
    with np.errstate(over="ignore", invalid="ignore"):  # times and rates whose product is beyond floats
        phi = np.where(x > 0, -np.expm1(-x * time) / safe, time)
        psi = np.where(x > 0, (ridge + a * np.exp(-x * time)) / safe, 1.0)
    return phi, psi


class Remaining(NamedTuple):
    """What is left of a direction u at (λ, t) pairs (m, 1): u − β on the modes (m, n) and on the atom (m,), and
    Λ^{1/2}(u − β) (m, n); w and `atom` are the weights |u|² of modes (n,) and atom.
    """

    on_modes: Floats
    on_atom: Floats
    on_train: Floats
    weights: Floats
    atom: float

    @property
    def along(self) -> Floats:
        """u·(u − β), (m,): the part of the direction that is not learned, on average over the data."""
        return self.on_modes @ np.sqrt(self.weights) + self.atom * self.on_atom


def remaining(α: float, k: float, c: float, n: int, ridge: Floats, time: Floats) -> Remaining:
    """What is left of the direction of a spike c on a bulk k, with n modes."""
    if k <= _RANK_ONE * c or k == 0:  # a single mode of rate c (v·Λ-average of ℓ is 1)
        psi = _decay(np.array([c]), ridge, time)[1]
        return Remaining(psi, np.zeros(len(time)), psi, np.ones(1), 0.0)
    nodes, weights = marchenko_pastur(α, n)
    with np.errstate(invalid="ignore"):  # 0·∞ where 1/α is beyond floats
        ell, v, atom = nodes[:-1], np.sqrt(weights[:-1] * nodes[:-1]), weights[-1]
    if c == 0:
        psi = _decay(k * ell, ridge, time)[1]
        return Remaining(psi * np.sqrt(weights[:-1]), np.ones(len(time)), psi * v, weights[:-1], atom)
    with np.errstate(over="ignore", invalid="ignore"):
        matrix = np.diag(k * ell) + c * np.outer(v, v)
    if not np.isfinite(matrix).all():  # 1/α or the kernel is beyond floats
        unknown = np.full((len(time), n), np.nan)
        return Remaining(unknown, unknown[:, 0], unknown, weights[:-1], atom)
    a, q_matrix = np.linalg.eigh(matrix)
    q = v @ q_matrix
    phi, psi = _decay(np.maximum(a, 0.0), ridge, time)
    psi *= q
    on_modes = (psi @ q_matrix.T) / np.sqrt(ell)
    # Λ^{1/2}(u − β) is ψ in the eigenbasis of A, another for every spike; norms do not mind.
    return Remaining(on_modes, 1.0 - c * (phi @ (q * q)), psi, weights[:-1], atom)


def _direction(α: float, k: float, c: float, n: int, ridge: Floats, time: Floats) -> tuple[Floats, Floats]:
    """Test and train part at the (λ, t) pairs (m, 1) with n modes; each (m,)."""
    if c == 0 and k > 0:  # diagonal: the weights need no root
        nodes, weights = marchenko_pastur(α, n)
        ψ2 = np.square(_decay(k * nodes[:-1], ridge, time)[1])
        with np.errstate(invalid="ignore"):  # as above
            v = np.sqrt(weights[:-1] * nodes[:-1])
        return ψ2 @ weights[:-1] + weights[-1], ψ2 @ (v * v)
    left = remaining(α, k, c, n, ridge, time)
    return np.square(left.on_modes).sum(axis=1) + left.atom * left.on_atom**2, np.square(left.on_train).sum(axis=1)


def _part(α: float, k: float, c: float, n: int, ridge: Floats, time: Floats) -> tuple[Floats, Floats]:
    """Part that is not learned, twice, at the (λ, t) pairs (m, 1) with n modes; each (m,)."""
    along = remaining(α, k, c, n, ridge, time).along
    return along, along


class NoiseLeft(NamedTuple):
    """What unit label noise leaves: kφ on test (m, n) and ψ on train (m, n), with their weights (n,), and the part of
    it that no mode touches.
    """

    on_test: Floats
    test_weights: Floats
    on_train: Floats
    train_weights: Floats
    untouched: float


def noise_left(α: float, k: float, n: int, ridge: Floats, time: Floats) -> NoiseLeft:
    """What unit label noise leaves at the (λ, t) pairs (m, 1); spikes do not matter as D → ∞."""
    if k == 0:
        return NoiseLeft(np.zeros((len(time), 0)), np.zeros(0), np.zeros((len(time), 0)), np.zeros(0), 1.0)
    nodes, weights = marchenko_pastur(α, n)
    ell, w = nodes[:-1], weights[:-1]
    phi, psi = _decay(k * ell, ridge, time)
    with np.errstate(invalid="ignore"):  # as above
        power = w * ell
    # Train: P − (number of positive modes) directions of the noise are never touched.
    return NoiseLeft(k * phi, power, psi, w, 1.0 - w.sum() / α)


def _noise(α: float, k: float, c: float, n: int, ridge: Floats, time: Floats) -> tuple[Floats, Floats]:
    """Test and train part of unit label noise at the (λ, t) pairs (m, 1)."""
    left = noise_left(α, k, n, ridge, time)
    with np.errstate(over="ignore", invalid="ignore"):  # where 1/α is beyond floats
        test = np.square(left.on_test) @ left.test_weights / α
        return test, np.square(left.on_train) @ left.train_weights / α + left.untouched


def _modes_needed(α: float, k: float, longest: float) -> int:
    """Modes for 1e-9: the Gaussian e^{−2ktℓ} at the lower edge must be resolved, or the law itself."""
    with np.errstate(over="ignore", invalid="ignore"):
        of_time = 7.0 * np.sqrt(k * longest / np.sqrt(α)) + 16.0
    return int(np.clip(np.fmin(of_time, float(nodes_needed(α, 1e-10)) + 16.0), 16, MAX_MODES))


def _solve(
    solver: Callable[..., tuple[Floats, Floats]],
    alpha2: ArrayLike,
    bulk: ArrayLike,
    spike: ArrayLike,
    ridge: ArrayLike,
    time: ArrayLike,
) -> ModeLoss:
    """Run `solver` once per distinct (α, k, c) on all its (λ, t), doubling the modes."""
    kernel = np.broadcast_arrays(*(np.asarray(x, dtype=float) for x in (alpha2, bulk, spike)))
    ridge, time = np.asarray(ridge, dtype=float), np.asarray(time, dtype=float)
    shape = np.broadcast_shapes(kernel[0].shape, ridge.shape, time.shape)
    rows, inverse = np.unique(np.stack([x.ravel() for x in kernel], axis=1), axis=0, return_inverse=True)
    member = np.broadcast_to(inverse.reshape(kernel[0].shape), shape).ravel()
    order = np.argsort(member, kind="stable")
    ends = np.cumsum(np.bincount(member, minlength=len(rows)))
    λ, t = (np.broadcast_to(x, shape).ravel() for x in (ridge, time))
    out = [np.empty(member.size) for _ in range(3)]
    for row, points in zip(rows, np.split(order, ends[:-1]), strict=True):
        for part in np.array_split(points, max(1, points.size // 4096)):  # bounds memory at 4096 × modes
            for target, values in zip(out, _doubled(solver, row, λ[part, None], t[part, None]), strict=True):
                target[part] = values
    return ModeLoss(*(x.reshape(shape) for x in out))


def _doubled(
    solver: Callable[..., tuple[Floats, Floats]], row: Floats, ridge: Floats, time: Floats
) -> tuple[Floats, Floats, Floats]:
    """Test, train and the change at the last doubling, for one kernel and its (λ, t) pairs."""
    α, k, c = (float(x) for x in row)
    n = max(8, _modes_needed(α, k, float(time.max(initial=0.0))) // 2)
    old = solver(α, k, c, n, ridge, time)
    while True:
        n = min(2 * n, MAX_MODES)
        new = solver(α, k, c, n, ridge, time)
        with np.errstate(invalid="ignore"):  # both may be infinite
            change = np.maximum(np.abs(new[0] - old[0]), np.abs(new[1] - old[1]))
        if n == MAX_MODES or np.all(change <= TOLERANCE * np.maximum(1.0, new[0])):
            return new[0], new[1], change
        old = new
