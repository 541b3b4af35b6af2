"""Correlations of the error of fine-tuning with signal and noise, and at two times (docs/theory.md, Section 3).

v(t) = β*₂ − β(t) is the error of a readout on the frozen kernel M = k I + C, Δ = Xv + σ₂ε its residual on the
training set. Averaged over the target's data, v is (β*₁·v, ξ·v) on span(β*₁, ξ) [147]–[150]; converged it is

    κ₂ (κ₂ I + k I + C)⁻¹ (ρ, ρ_ξ)                                              [91]–[92], [154]–[155],

and at finite times each eigenvector n of C evolves alone, on the Marchenko–Pastur modes of
`tlcli.linear.frozen_dynamics`. The same modes give the two-time functions [58]–[61], [70]–[74], [143]–[144]:

    C_v(t, s) = v(t)·v(s),   C_Δ(t, s) = Δ(t)·Δ(s)/P,   R_n(t) = ∂(n·v(t))/∂(n·β*₂).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tlcli.arrays import Floats
from tlcli.linear.domain import FINITE_NON_NEGATIVE, NON_NEGATIVE, POSITIVE, require
from tlcli.linear.finetuning import effective_ridge
from tlcli.linear.frozen_dynamics import MAX_MODES, TOLERANCE, noise_left, remaining

_LARGEST = 1e100  # an infinite spike is learned at once, and so is this one


@dataclass(frozen=True)
class TwoTimeError:
    """Functions of one time (n_times,) and of two (n_times, n_times) on a kernel with spikes.

    corr_v C_v and corr_delta C_Δ, on the noisy labels; `remaining` (n_spikes, n_times) the part R_n(t) of the teacher
    along each spike that is not learned, `remaining_bulk` (n_times,) that of every other direction; `change` of the
    correlations at the last doubling of the modes.
    """

    corr_v: Floats
    corr_delta: Floats
    remaining: Floats
    remaining_bulk: Floats
    change: float


def two_time_error(
    alpha2: float,
    times: ArrayLike,
    spikes: ArrayLike = (),
    overlaps: ArrayLike = (),
    *,
    bulk: float = 1.0,
    sigma2: float = 0.0,
    ridge: float = 0.0,
) -> TwoTimeError:
    """Return the two-time functions of one point, at `times` (n_times,) ≥ 0.

    spikes c_j (n_spikes,) ≥ −bulk along orthonormal directions, with which a target teacher of unit norm has the
    overlaps r_j (n_spikes,). Other parameters and units as in `tlcli.linear.finetuning.finetune`. Raises `DomainError`.
    """
    t, c, r = (np.atleast_1d(np.asarray(x, dtype=float)) for x in (times, spikes, overlaps))
    require(POSITIVE, alpha2=alpha2)
    require(NON_NEGATIVE, times=t)
    require(FINITE_NON_NEGATIVE, bulk=bulk, sigma2=sigma2, ridge=ridge)
    if c.shape != r.shape:
        raise ValueError(f"{c.size} spikes but {r.size} overlaps: give one overlap for each spike.")
    problem = (float(alpha2), np.minimum(c, _LARGEST), r, float(bulk), float(sigma2), float(ridge), t[:, None])
    n = 64
    old, new = _on_modes(n, *problem), _on_modes(2 * n, *problem)
    while 2 * n < MAX_MODES and _distance(old, new) > TOLERANCE:
        n *= 2
        old, new = new, _on_modes(2 * n, *problem)
    return TwoTimeError(*new, _distance(old, new))


def _distance(old: tuple[Floats, ...], new: tuple[Floats, ...]) -> float:
    return max(float(np.max(np.abs(a - b), initial=0.0)) for a, b in zip(old, new, strict=True))


def _on_modes(
    n: int, α: float, c: Floats, r: Floats, k: float, σ: float, λ: float, t: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """The functions with n modes; t (n_times, 1)."""
    ridge = np.full_like(t, λ)
    along_spikes = [remaining(α, k, c_j, n, ridge, t) for c_j in c.tolist()]
    bulk = remaining(α, k, 0.0, n, ridge, t)
    rest = max(0.0, 1.0 - float(np.sum(r**2)))
    corr_v, corr_delta = np.zeros((t.size, t.size)), np.zeros((t.size, t.size))
    for weight, part in zip((*np.square(r).tolist(), rest), (*along_spikes, bulk), strict=True):
        corr_v += weight * (part.on_modes @ part.on_modes.T + part.atom * np.outer(part.on_atom, part.on_atom))
        corr_delta += weight * (part.on_train @ part.on_train.T)
    if σ > 0:
        noise = noise_left(α, k, n, ridge, t)
        corr_v += σ**2 / α * (noise.on_test * noise.test_weights) @ noise.on_test.T
        corr_delta += σ**2 * ((noise.on_train * noise.train_weights) @ noise.on_train.T / α + noise.untouched)
    left = np.array([part.along for part in along_spikes]).reshape(c.size, t.size)
    return corr_v, corr_delta, left, bulk.along


def error_overlaps(
    alpha2: ArrayLike,
    spikes: ArrayLike,
    directions: ArrayLike,
    *,
    rho: ArrayLike,
    rho_xi: ArrayLike = 0.0,
    bulk: ArrayLike = 1.0,
    ridge: ArrayLike = 0.0,
) -> tuple[Floats, Floats]:
    """Converged error along signal and noise, κ₂(κ₂ + k + C)⁻¹(ρ, ρ_ξ), for arrays that broadcast.

    spikes (…, 2), up to inf, and directions (…, 2, 2): eigenvalues and eigenvectors (in columns) of C, see `spectral`.
    Where κ₂ and an eigenvalue of k + C both vanish, nothing is learned along it.
    """
    c, vectors = np.minimum(np.asarray(spikes, dtype=float), _LARGEST), np.asarray(directions, dtype=float)
    k = np.asarray(bulk, dtype=float)[..., None]
    kappa = effective_ridge(alpha2, bulk, ridge).kappa[..., None]
    total = np.maximum(c + k, 0.0) + kappa
    left = np.where(total > 0, kappa / np.where(total > 0, total, 1.0), 1.0)
    v = np.stack(np.broadcast_arrays(np.asarray(rho, dtype=float), np.asarray(rho_xi, dtype=float)), axis=-1)
    error = np.einsum("...ij,...j->...i", vectors, left * np.einsum("...ij,...i->...j", vectors, v))
    return error[..., 0], error[..., 1]


def spectral(c_signal: ArrayLike, c_cross: ArrayLike, c_noise: ArrayLike) -> tuple[Floats, Floats]:
    """Eigenvalues (…, 2) and orthonormal eigenvectors (…, 2, 2), in columns, of C on span(β*₁, ξ)."""
    c1, c3, c2 = np.broadcast_arrays(c_signal, c_cross, c_noise)
    values, vectors = np.linalg.eigh(np.stack([np.stack([c1, c3], -1), np.stack([c3, c2], -1)], -2))
    return np.asarray(values), np.asarray(vectors)
