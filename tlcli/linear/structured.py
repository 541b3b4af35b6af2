"""Transfer with inputs x ~ N(0, diag(lambda)), by deterministic equivalents (docs/theory.md, Section 6).

Stage 1 is the minimum-norm fit of P1 samples; its features are M = k I + chi n n^T, n = beta1/|beta1|.
Stage 2 is ridge(less) regression on P2 samples with these features. Every sum over modes depends on the
pair (kappa1, kappa2) alone, so a P1 x P2 grid costs a handful of matrix products, whatever the other axes
are.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcli.arrays import Floats, Indices
from tlcli.errors import DomainError, digits
from tlcli.linear.domain import INIT_SCALE, at_threshold, require
from tlcli.linear.kappa import solve_kappa
from tlcli.status import Status

BLOCK = 1 << 23  # numbers in the largest temporary (grid points held at once x modes)


@dataclass(frozen=True)
class StructuredTransfer:
    """Section 6 on a grid; every array has the broadcast shape of the parameters.

    norm2 = E|beta1|^2, spike = chi, source_loss and loss = (beta - beta*)^T Sigma (beta - beta*), baseline
    = the loss on untrained features, gain = baseline - loss, kappa1 and kappa2 the effective ridges (kappa2
    for M/k), `status` a `Status`, `residual` the larger relative residual of the two kappa equations.
    """

    norm2: Floats
    spike: Floats
    kappa1: Floats
    kappa2: Floats
    source_loss: Floats
    loss: Floats
    baseline: Floats
    gain: Floats
    status: NDArray[np.int8]
    residual: Floats


def structured_transfer(
    eigenvalues: ArrayLike,
    teacher1: ArrayLike,
    teacher2: ArrayLike,
    p1: ArrayLike,
    p2: ArrayLike,
    gamma0: ArrayLike,
    *,
    rho: ArrayLike | None = None,
    sigma1: ArrayLike = 0.0,
    sigma2: ArrayLike = 0.0,
    ridge: ArrayLike = 0.0,
    init_scale: ArrayLike = 1.0,
) -> StructuredTransfer:
    """Evaluate Section 6 on the broadcast grid of its parameters; p1, p2 are sample numbers.

    `eigenvalues`, `teacher1`, `teacher2`: (n_modes,), the input spectrum and the teachers in its basis.
    Without `rho` teacher2 is the target; with it the target is rho teacher1 + sqrt(1 - rho^2) teacher2,
    where teacher2 should be orthogonal to teacher1 in Sigma. Modes of zero eigenvalue carry no data and are
    dropped, no others, however small: interpolation sets in at P = rank. The units of the inputs and of the labels
    are free, up to the range of floating-point numbers. p1, p2 and gamma0 may be inf. init_scale = 0 is the
    ultra-rich limit: M = gamma0 |beta1| n n^T, a one-parameter fit whose O(1/P2) noise is neglected. Where
    stage 1 diverges (P1 = rank with noise) norm2, spike and source_loss are inf, the features point along
    noise, and loss is the exact limit: nothing is transferred.

    Raises DomainError for parameters outside the theory.
    """
    given = (p1, p2, gamma0, 0.0 if rho is None else rho, sigma1, sigma2, ridge, init_scale)
    arrays = [np.asarray(value, dtype=float) for value in given]
    names = ("p1", "p2", "gamma0", "rho", "sigma1", "sigma2", "ridge", "init_scale")
    _check(dict(zip(names, arrays, strict=True)))
    (lam, t1, t2), units = _in_units(*_modes(eigenvalues, teacher1, teacher2), rho is not None)
    arrays = [np.ldexp(a, units.exponent(name)) for name, a in zip(names, arrays, strict=True)]
    for which in (0, 1):  # as many samples as modes, up to rounding, is the threshold
        arrays[which] = np.where(at_threshold(arrays[which] / len(lam)) == 1, len(lam), arrays[which])
    grid = np.broadcast_arrays(*arrays)
    shape = grid[0].shape
    columns = [np.ravel(a) for a in grid]
    kappa_columns = _kappas(lam, columns[0], columns[1], columns[6], columns[7])
    rows: Floats = np.empty((9, columns[0].size))
    step = max(1, BLOCK // len(lam))
    for start in range(0, columns[0].size, step):
        part = slice(start, start + step)
        at = _Points(*(c[part] for c in (*columns, *kappa_columns)))
        with np.errstate(all="ignore"):  # of points that are lost
            rows[:, part] = _chunk((lam, t1, t2), rho is not None, at)
    lost = np.minimum(kappa_columns[0], kappa_columns[1]) + lam.min() < _SMALLEST
    lost |= ~(kappa_columns[1] < 1 / _SMALLEST)  # a ridge that a tiny bulk is divided into
    rows[:-1, lost] = np.nan
    columns = dict(zip(_COLUMNS, (r.reshape(shape) for r in rows), strict=True))
    norm2, loss, residual = (columns[name] for name in ("norm2", "loss", "residual"))
    infinite = np.isinf(norm2) | np.isinf(loss)
    status = np.where(infinite, Status.DIVERGED, Status.CONVERGED)
    lost = lost.reshape(shape)
    status = np.where(lost | (~infinite & (residual > 1e-9)), Status.NOT_CONVERGED, status).astype(np.int8)
    with np.errstate(over="ignore", under="ignore"):
        return StructuredTransfer(
            status=status, **{name: np.ldexp(c, -units.exponent(name)) for name, c in columns.items()}
        )


_COLUMNS = ("norm2", "spike", "kappa1", "kappa2", "source_loss", "loss", "baseline", "gain", "residual")


_SMALLEST = 1e-140  # of what is divided by, in units of the largest mode: its square is a number, and its inverse
_STEP = 64  # of exponents: ordinary units are left as they are


@dataclass(frozen=True)
class _Units:
    """Exponents of two, so that nothing is rounded, by which inputs and the labels of both tasks are multiplied."""

    inputs: int
    source: int
    target: int

    def exponent(self, name: str) -> int:
        """Return the exponent of what a quantity is multiplied by to be in these units."""
        return {
            "gamma0": self.inputs - self.source,  # gamma0 |beta1| is a number
            "norm2": 2 * (self.source - self.inputs),
            "sigma1": self.source,
            "sigma2": self.target,
            "source_loss": 2 * self.source,
            **dict.fromkeys(("loss", "baseline", "gain"), 2 * self.target),
            **dict.fromkeys(("ridge", "kappa1", "kappa2"), 2 * self.inputs),
        }.get(name, 0)


def _in_units(lam: Floats, t1: Floats, t2: Floats, mixed: bool) -> tuple[tuple[Floats, Floats, Floats], _Units]:
    """Scale the modes such that neither eigenvalues nor powers of tasks overflow or underflow when squared.

    Results then do not depend on the user's units. Teachers that are mixed share theirs.
    """
    inputs = _STEP * round(-int(np.frexp(lam.max())[1]) / (2 * _STEP))
    lam = np.ldexp(lam, 2 * inputs)

    def exponent(t: Floats) -> int:
        largest = float(np.abs(t).max())
        if largest == 0:
            return 0
        top = int(np.frexp(largest)[1])  # the power itself may overflow
        power = float(lam @ np.ldexp(t, -top) ** 2)
        return _STEP * round((-top - (int(np.frexp(power)[1]) / 2 if power > 0 else 0)) / _STEP)

    one = exponent(t1)
    two = one if mixed else exponent(t2)
    return (lam, np.ldexp(t1, one), np.ldexp(t2, two)), _Units(inputs, inputs + one, inputs + two)


def _kappas(lam: Floats, p1: Floats, p2: Floats, ridge: Floats, init_scale: Floats) -> tuple[Floats, Floats, Floats]:
    """kappa1, kappa2 and the larger residual at every point; one call solves each distinct (P, ridge) once."""
    k = init_scale**2
    with np.errstate(divide="ignore", invalid="ignore"):
        # M/k = I + (chi/k) n n^T with ridge/k is the same problem; k = 0 only needs the ridgeless baseline.
        scaled = np.where(k > 0, ridge / k, 0.0)
    both = np.stack([np.concatenate([p1, p2]), np.concatenate([np.zeros_like(p1), scaled])])
    distinct, back = np.unique(both, axis=1, return_inverse=True)
    kappa, residual = solve_kappa(lam, distinct[0], distinct[1])
    back1, back2 = np.split(np.ravel(back), 2)
    return kappa[back1], kappa[back2], np.maximum(residual[back1], residual[back2])


class _Points(NamedTuple):
    """The parameters of a part of the grid, and the effective ridges there; all (n_points,)."""

    p1: Floats
    p2: Floats
    gamma0: Floats
    rho: Floats
    sigma1: Floats
    sigma2: Floats
    ridge: Floats
    init_scale: Floats
    kappa1: Floats
    kappa2: Floats
    residual: Floats


@dataclass(frozen=True, eq=False)
class _Source:
    """Stage 1: factors (n_p1, n_modes) of the mean and the spread of beta1, the row of each point, numbers (n_points,).

    Quadratic forms are over T/P1, which may be infinite: then `keep` is 0 and n is pure noise.
    """

    row: Indices
    mean: Floats
    spread: Floats
    keep: Floats
    scale: Floats
    norm2_n: Floats
    norm2: Floats
    loss: Floats


def _stage1(lam: Floats, t1: Floats, at: _Points) -> _Source:
    one, first, i = np.unique(at.p1, return_index=True, return_inverse=True)
    kappa1 = at.kappa1[first]
    f1 = 1 / (lam + kappa1[:, None])
    mean1 = lam * t1 * f1
    spread1 = lam * f1**2
    left1 = _one_minus_d(lam, spread1, kappa1, one, np.zeros_like(one))[i]
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = (kappa1**2 * ((lam * t1**2) @ (f1**2).T))[i] + at.sigma1**2
        t_source = np.where(excess > 0, excess / left1, 0.0)  # P1 = rank without noise: exact recovery
        per_sample = np.where(np.isinf(at.p1), 0.0, t_source / at.p1)
        scale = np.where(np.isinf(per_sample), 1.0, per_sample)
        keep = np.where(np.isinf(per_sample), 0.0, 1.0)
    norm2_n = keep * np.sum(mean1**2, axis=1)[i] + scale * np.sum(spread1, axis=1)[i]
    norm2 = np.where(keep > 0, norm2_n, np.inf)
    return _Source(i, mean1, spread1, keep, scale, norm2_n, norm2, t_source - at.sigma1**2)


def _chunk(modes: tuple[Floats, Floats, Floats], mixed: bool, at: _Points) -> Floats:
    """Rows of `StructuredTransfer` but status, (9, n_points)."""
    lam, t1, t2 = modes
    k = at.init_scale**2
    c1, c2 = (at.rho, np.sqrt(1 - at.rho**2)) if mixed else (np.zeros_like(at.rho), np.ones_like(at.rho))
    source = _stage1(lam, t1, at)
    keep, scale, norm2_n, norm2 = source.keep, source.scale, source.norm2_n, source.norm2
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(k > 0, at.ridge / k, 0.0)
    two, first, j = np.unique(np.stack([at.p2, scaled]), axis=1, return_index=True, return_inverse=True)
    kappa2, j = at.kappa2[first], np.ravel(j)

    # stage 2 over pairs (kappa1, kappa2); for k = 0 the factors kappa2 G tend to 1
    g = 1 / (lam + kappa2[:, None])
    pairs = _Pairs(source.row, j)
    mean1, spread1, lg, lg2 = source.mean, source.spread, lam * g, lam * g**2
    n_g = (keep * pairs(mean1**2, lg) + scale * pairs(spread1, lg)) / _positive(norm2_n)
    n_g2 = (keep * pairs(mean1**2, lg2) + scale * pairs(spread1, lg2)) / _positive(norm2_n)
    root = np.sqrt(_positive(norm2_n))
    v_g = keep * (c1 * pairs(mean1 * t1, lg) + c2 * pairs(mean1 * t2, lg)) / root
    v_g2 = keep * (c1 * pairs(mean1 * t1, lg2) + c2 * pairs(mean1 * t2, lg2)) / root
    u0 = c1**2 * (lg2 @ t1**2)[j] + 2 * c1 * c2 * (lg2 @ (t1 * t2))[j] + c2**2 * (lg2 @ t2**2)[j]

    with np.errstate(divide="ignore", invalid="ignore"):
        gamma_norm = np.where(norm2 > 0, at.gamma0 * np.sqrt(norm2), 0.0)
        gamma_norm = np.where(at.gamma0 == 0, 0.0, gamma_norm)
        spike = np.where(np.isinf(gamma_norm), np.inf, np.hypot(k, gamma_norm) - k)
        a = v_g / (np.where(spike > 0, k / spike, np.inf) + n_g)
        left2 = _one_minus_d(lam, lg2, kappa2, two[0], two[1])[j]
        noise2 = at.sigma2**2 * (1 - left2)
        kap2 = kappa2[j]
        loss = _risk(kap2**2 * (u0 - 2 * a * v_g2 + a**2 * n_g2) + noise2, left2)
        baseline = _risk(kap2**2 * u0 + noise2, left2)
    if np.any(k == 0):
        flat, power = _without_bulk(modes, at.ridge, spike, source, c1, c2)
        # Ridgeless, the baseline does not depend on the size of the bulk: k = 0 is read as k -> 0+.
        loss = np.where(k > 0, loss, flat)
        baseline = np.where((k > 0) | (at.ridge == 0), baseline, power)
    kap2 = np.where((k > 0) | (at.ridge == 0), kap2, np.inf)
    gain = np.where(np.isinf(baseline) & np.isinf(loss), np.nan, 0.0)
    finite = np.isfinite(gain)
    gain[finite] = baseline[finite] - loss[finite]
    return np.stack([norm2, spike, at.kappa1, kap2, source.loss, loss, baseline, gain, at.residual])


def _without_bulk(
    modes: tuple[Floats, Floats, Floats], ridge: Floats, spike: Floats, source: _Source, c1: Floats, c2: Floats
) -> tuple[Floats, Floats]:
    """Return the loss at k = 0 and the power of the target, (n_points,).

    One feature n.x is left, with the coefficient <n Sigma beta*2> / (<n Sigma n> + ridge/chi).
    """
    lam, t1, t2 = modes
    i, keep, mean1 = source.row, source.keep, source.mean
    norm2_n = _positive(source.norm2_n)
    n_n = (keep * (mean1**2 @ lam)[i] + source.scale * (source.spread @ lam)[i]) / norm2_n
    v = keep * (c1 * (mean1 @ (lam * t1))[i] + c2 * (mean1 @ (lam * t2))[i]) / np.sqrt(norm2_n)
    with np.errstate(divide="ignore", invalid="ignore"):
        slack = np.where(spike > 0, ridge / spike, np.inf)
        a = np.where(n_n + slack > 0, v / (n_n + slack), 0.0)
    power = c1**2 * (lam @ t1**2) + 2 * c1 * c2 * (lam @ (t1 * t2)) + c2**2 * (lam @ t2**2)
    return power - 2 * a * v + a**2 * n_n, power


class _Pairs:
    """sum_m left[i, m] right[j, m] at the points; one matrix product where the pairs fill a rectangle."""

    def __init__(self, i: Indices, j: Indices) -> None:
        self.i, self.j = i, j
        code, self.back = np.unique(i.astype(np.int64) * (int(j.max()) + 1) + j, return_inverse=True)
        self.iu, self.ju = np.divmod(code, int(j.max()) + 1)

    def __call__(self, left: Floats, right: Floats) -> Floats:
        if len(left) * len(right) <= 16 * len(self.iu):
            return (left @ right.T)[self.i, self.j]
        out = np.empty(len(self.iu))
        for start in range(0, len(out), 2048):
            part = slice(start, start + 2048)
            out[part] = np.einsum("pm,pm->p", left[self.iu[part]], right[self.ju[part]])
        return out[self.back]


def _one_minus_d(lam: Floats, spread: Floats, kappa: Floats, samples: Floats, ridge: Floats) -> Floats:
    """1 - (1/P) sum lambda^2/(lambda + kappa)^2 = ridge/kappa + (kappa/P) sum lambda/(lambda + kappa)^2.

    The right-hand side, by the equation for kappa, does not cancel near P = rank, where it is exactly 0.
    `spread` = lambda/(lambda + kappa)^2 (n, n_modes), the other arrays (n,).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        regular = ridge / kappa + kappa * np.sum(spread, axis=1) / samples
    return np.where(kappa > 0, regular, 1 - len(lam) / samples)


def _risk(bias: Floats, left: Floats) -> Floats:
    """bias / (1 - d); noiseless interpolation at P = rank is exact recovery, 0 / 0 = 0."""
    return np.where(bias > 0, bias / left, 0.0)


def _positive(x: Floats) -> Floats:
    return np.where(x > 0, x, 1.0)


def _modes(eigenvalues: ArrayLike, teacher1: ArrayLike, teacher2: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """The modes that carry data."""
    lam, t1, t2 = (np.asarray(a, dtype=float) for a in (eigenvalues, teacher1, teacher2))
    if lam.ndim != 1 or t1.shape != lam.shape or t2.shape != lam.shape:
        raise DomainError(
            f"eigenvalues {lam.shape}, teacher1 {t1.shape} and teacher2 {t2.shape} must be equal vectors."
        )
    if not (np.isfinite(lam).all() and np.isfinite(t1).all() and np.isfinite(t2).all()):
        raise DomainError("eigenvalues, teacher1 and teacher2 must be finite.")
    if lam.size == 0 or lam.min() < -1e-12 * lam.max() or lam.max() <= 0:
        raise DomainError("eigenvalues must be non-negative and not all zero.")
    live = lam > 0
    return lam[live], t1[live], t2[live]


def _check(parameters: dict[str, Floats]) -> None:
    for name, values in parameters.items():
        if np.isnan(values).any():
            raise DomainError(f"{name} = nan: give a number.")
        positive = name in ("p1", "p2")
        bad = values <= 0 if positive else np.abs(values) > 1 if name == "rho" else values < 0
        if name not in ("p1", "p2", "gamma0"):
            bad |= np.isinf(values)
        if bad.any():
            allowed = {"p1": "> 0", "p2": "> 0", "rho": "in [-1, 1]", "gamma0": "in [0, inf]"}.get(
                name, "finite and >= 0"
            )
            raise DomainError(f"{name} = {digits(values[bad].flat[0])}: it must be {allowed}.")
    require(INIT_SCALE, init_scale=parameters["init_scale"])
