"""Sample-average dual: on a pool of states the dual of the saddle point is strictly concave and Newton solves it.

D(v) = γ²·value(v) - mean_i log Σ_{j in i} exp(½γ²s_j² - B_j),  s_j = v·φ_j,  value(v) = v·y - |v|²/2β or, of other
losses, as in `fits`.

The groups i are source neurons of a target, or independent pools of a source. Within a group the weights of the
states are normalised; states of one group never replace those of another.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from tlcli.arrays import Floats, Indices
from tlcli.bayes.sampling.condense import Cuts, shortened
from tlcli.bayes.sampling.fits import SampledFit
from tlcli.bayes.sampling.pool import Pool
from tlcli.bayes.sampling.tilt import Tilt

_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of a pool at one v.

    Attributes:
        log_z: mean over groups of log E exp(½γ²s²) relative to the base Gaussian, nats.
        kernel: Φ (P, P). spread: mean over groups of Cov((v·φ)φ) within the group, (P, P).
        square: E s². ess: effective number of states, (G,).
        weights: of the states, (T, M), summing to 1/G in each group.
        stretched: the same times ρ², (T, M), which weigh φφᵀ.
    """

    log_z: float
    kernel: Floats
    spread: Floats
    square: float
    ess: Floats
    weights: Floats = field(repr=False)
    stretched: Floats = field(repr=False)


def weights_of(tilt: Tilt, u: Floats, pool: Pool, groups: int) -> tuple[Floats, Floats, Floats]:
    """Return weights (T, M), log Z (G,) relative to the base and ESS (G,) of the states of a pool with u = γs (T, M).

    The ESS is that of Φ: states count with their ρ². A state outside the domain (sphere) makes log Z infinite.
    """
    snapshots, chains = u.shape
    exponent = (tilt.exponent(u, pool.pull) - pool.bias).reshape(snapshots, groups, -1)
    if not np.all(np.isfinite(exponent)):
        return np.full_like(u, np.nan), np.full(groups, np.inf), np.zeros(groups)
    top = exponent.max(axis=(0, 2), keepdims=True)
    weight = np.exp(exponent - top)
    total = weight.sum(axis=(0, 2))
    # The umbrella contains the base itself (a = 0), so exp(-B) reweights to it: no reference run is needed.
    base = -pool.bias.reshape(snapshots, groups, -1)
    base_top = base.max(axis=(0, 2), keepdims=True)
    log_base = base_top[0, :, 0] + np.log(np.exp(base - base_top).sum(axis=(0, 2)))
    log_z = top[0, :, 0] + np.log(total) - log_base
    counted = weight * tilt.stretch(u, pool.pull)[0].reshape(snapshots, groups, -1)
    ess = counted.sum(axis=(0, 2)) ** 2 / (counted**2).sum(axis=(0, 2))
    return (weight / (groups * total[:, None])).reshape(snapshots, chains), log_z, ess


def project(tilt: Tilt, pool: Pool, v: Floats, groups: int) -> Floats:
    """Return s (T, M) of the pool at v (P,)."""
    group = _group_of(tilt, pool, groups)
    single = v.astype(np.float32)
    return np.stack([tilt.project(z, single, group) for z in pool.z]).astype(float)


def directed(tilt: Tilt, pool: Pool, mean: Floats, v: Floats, gamma: float) -> tuple[Tilt, Pool]:
    """Return the directions of the states of a target's pool, sampled at v (P,), and their tilt, which has no offset.

    `mean` (M, r), one row per chain, are the μ of `radius`: w in units in which the base is N(μ, I) is z + μ. The
    radius is integrated out, at v and at any other v where the pool is used.
    """
    sphere = Tilt(tilt.act, tilt.b, sphere=True)
    w = pool.z + mean.astype(np.float32)
    z = sphere.directions(w.reshape(-1, tilt.rank)).reshape(w.shape)
    pull = np.einsum("tmr,mr->tm", z, mean) / np.sqrt(tilt.rank)
    bare = Pool(z, np.zeros_like(pull), pull)
    return sphere, bare._replace(bias=sphere.exponent(gamma * project(sphere, bare, v, 1), pull))


def moments(tilt: Tilt, pool: Pool, v: Floats, gamma: float, groups: int = 1) -> Moments:
    """Return the moments of the measure of v (P,) from the pool."""
    s = project(tilt, pool, v, groups)
    weights, log_z, ess = weights_of(tilt, gamma * s, pool, groups)
    rho, fourth = tilt.stretch(gamma * s, pool.pull)
    stretched = weights * rho
    kernel, covariance = gram(tilt, pool, stretched, s * np.sqrt(fourth * rho), groups)
    if groups > 1:
        covariance -= _between(tilt, pool, stretched, s, groups)
    else:
        mean = kernel @ v
        covariance -= np.outer(mean, mean)
    return Moments(float(log_z.mean()), kernel, covariance, float(np.sum(stretched * s**2)), ess, weights, stretched)


def gram(
    tilt: Tilt, pool: Pool, weights: Floats, s: Floats | None, groups: int, owner: Indices | None = None
) -> tuple[Floats, Floats]:
    """Return Σ w φφᵀ and Σ w s²φφᵀ (zero if s is None), (P, P), over all states; negligible weights are skipped.

    `owner` (M,) are the groups of the chains, if they do not lie side by side.
    """
    points = len(tilt.b)
    kernel, second = np.zeros((points, points)), np.zeros((points, points))
    group = _group_of(tilt, pool, groups) if owner is None else owner
    flat, at = weights.ravel(), pool.z.reshape(-1, pool.z.shape[-1])
    used = np.flatnonzero(flat > 1e-9 * flat.max() / np.sqrt(flat.size))
    owners = None if group is None else np.tile(group, len(pool.z))
    for start in range(0, len(used), _BLOCK):
        rows = used[start : start + _BLOCK]
        φ = tilt.features(at[rows], None if owners is None else owners[rows])
        φ *= np.sqrt(flat[rows] * flat.size).astype(np.float32)[:, None]
        kernel += φ.T @ φ
        if s is not None:
            φ *= s.ravel()[rows].astype(np.float32)[:, None]
            second += φ.T @ φ
    return kernel / flat.size, second / flat.size


def _between(tilt: Tilt, pool: Pool, weights: Floats, s: Floats, groups: int) -> Floats:
    """Return mean over groups of m mᵀ with m = E(sφ) in the group, (P, P)."""
    points = len(tilt.b)
    mean = np.zeros((groups, points))
    group = _group_of(tilt, pool, groups)
    for z, w, at in zip(pool.z, weights, s, strict=True):
        φ = tilt.features(z, group) * (w * at * groups).astype(np.float32)[:, None]
        mean += φ.reshape(groups, -1, points).sum(axis=1)
    return mean.T @ mean / groups


def _group_of(tilt: Tilt, pool: Pool, groups: int) -> Indices | None:
    if tilt.offset is None:
        return None
    return np.repeat(np.arange(groups), pool.z.shape[1] // groups)


def value_at(tilt: Tilt, pool: Pool, v: Floats, fit: SampledFit, gamma: float, groups: int) -> tuple[float, float]:
    """Return the pool's dual at v (P,), nats, and the mean log ESS of its groups; -inf outside the domain."""
    s = project(tilt, pool, v, groups)
    _, log_z, ess = weights_of(tilt, gamma * s, pool, groups)
    if not np.all(np.isfinite(log_z)):
        return -np.inf, -np.inf
    return gamma**2 * fit.value(v) - float(log_z.mean()), float(np.log(ess).mean())


class Solved(NamedTuple):
    """Result of `newton`: v (P,), the moments there, D(v), the size of the last full step in nats, whether the ESS
    guard cut it, and the masses of the cuts (K,)."""

    v: Floats
    moments: Moments
    value: float
    decrement: float
    guarded: bool
    mass: Floats


def newton(
    tilt: Tilt,
    pool: Pool,
    start: Floats,
    fit: SampledFit,
    gamma: float,
    groups: int = 1,
    *,
    guard: float = 0.3,
    steps: int = 12,
    allowed: Callable[[Floats], bool] = lambda v: True,
    cuts: Cuts | None = None,
) -> Solved:
    """Maximise the dual of the pool from `start` (P,), keeping the ESS above `guard` times its starting value.

    `allowed` says whether the measure of a v exists: steps that leave its domain are cut. On the sphere the domain is
    that of the `cuts`, and a maximum on its edge has masses. The pool knows the measure only near the v it was sampled
    at: beyond the guard its weights say nothing.
    """
    cuts = Cuts.none(tilt) if cuts is None else cuts

    def value_of(v: Floats) -> tuple[float, float]:
        return value_at(tilt, pool, v, fit, gamma, groups)

    v = cuts.inside(start, gamma, tilt.rank)
    if tilt.sphere:
        v = shortened(v, gamma * float(np.abs(project(tilt, pool, v, groups)).max()), tilt.rank)
    found = moments(tilt, pool, v, gamma, groups)
    value = gamma**2 * fit.value(v) - found.log_z
    floor = float(np.log(found.ess).mean()) + np.log(guard)
    guarded, decrement, mass = False, np.inf, np.zeros(len(cuts.z))
    for _ in range(steps):
        gradient = fit.outputs(v) - found.kernel @ v
        curvature = np.diag(fit.bend(v)) + found.kernel + gamma**2 * found.spread
        step, mass, _ = fit.within(v, gradient, curvature, partial(cuts.step, v, gamma=gamma, rank=tilt.rank))
        decrement = gamma**2 * float(gradient @ step - 0.5 * step @ curvature @ step)
        # Single-precision features leave 1e-6 of the dual, so that smaller steps cannot be judged by it. The residual,
        # of the order of the decrement's root, can: the last step is taken whole.
        if decrement < 1e-7 * (gamma**2 + abs(value)):
            whole = fit.moved(v, step)
            if value_of(whole)[1] > floor and allowed(whole):
                v, found = whole, moments(tilt, pool, whole, gamma, groups)
            break
        size, there = 1.0, v
        while size > 1e-3:
            there = fit.moved(v, size * step)
            trial, ess = value_of(there) if allowed(there) else (-np.inf, -np.inf)
            if trial > value + 1e-4 * size * decrement and ess > floor:
                break
            guarded |= ess <= floor
            size *= 0.5
        else:
            break
        v = there
        found = moments(tilt, pool, v, gamma, groups)
        value = gamma**2 * fit.value(v) - found.log_z
        if guarded:
            break
    return Solved(v, found, value, decrement, guarded, mass)
