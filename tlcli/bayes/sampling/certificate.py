"""Certificate of a saddle point: the gap of one run's v on the other run's pool, with its noise floor.

For any v, with Φ of its measure, A = Φ + I/β and r = y - Av, the primal at that measure minus the dual at v is
½γ²rᵀA⁻¹r, in nats per neuron (of other losses `likelihood.primal_gap`). It bounds the Kullback-Leibler divergence from
the measure of the saddle. On the pool that gave v the residual vanishes by construction, so each v is judged on the
pool of the other run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Floats
from tlcli.bayes.saddle import CONVERGED, LARGEST_SPREAD_KERNEL, LARGEST_SPREAD_V, NOT_CONVERGED
from tlcli.bayes.sampling.condense import Atoms
from tlcli.bayes.sampling.dual import gram, moments
from tlcli.bayes.sampling.fits import SampledFit
from tlcli.bayes.sampling.pool import Pool
from tlcli.bayes.sampling.target_condense import Dragged, Split
from tlcli.bayes.sampling.tilt import Tilt

JACKKNIFE = 16
LARGEST_GAP = 0.02  # nats per neuron, for a problem of any size; with many points noise alone makes it P/(2·ESS)
LARGEST_SPREAD = 0.05  # always: in a lazy network the gap, of the order of γ², bounds neither v nor Φ
NEGLIGIBLE_GAP = 1e-3  # below it the floor is not asked: with few points the ratio to the floor is a χ² of few degrees
FLOORS = 3.0
LEAST_TRIPS = 1.0
LARGEST_TAIL = -9.0
LEAST_ESS = 20.0  # times the number of points
SPREADS = ("spread_v", "error_v", "spread_kernel", "error_kernel")


@dataclass(frozen=True, eq=False)
class Check:
    """One v on one pool: gap and its jackknife noise (nats), γ²Es² on the pool, ESS, log Z.

    `error_v` and `error_kernel` are the jackknife errors of v and Φ that the pool has, relative.
    """

    gap: float
    noise: float
    square: float
    ess: float
    log_z: float
    error_v: float
    error_kernel: float


def check(
    tilt: Tilt,
    pool: Pool,
    v: Floats,
    fit: SampledFit,
    gamma: float,
    groups: int = 1,
    atoms: Atoms | Split | None = None,
    dragged: Dragged | None = None,
) -> Check:
    """Judge `v` (P,) on `pool`, with its condensate, or with the atoms that a target of condensed source drags along.

    The noise is ½γ²tr(A⁻¹Cov r) by a delete-one jackknife over 16 sets of chains; the error of v is that of the step
    which the curvature of the dual makes of r.
    """
    found = moments(tilt, pool, v, gamma, groups)
    square, slack, kernel = found.square, 0.0, found.kernel
    if dragged is not None:
        bulk = found.kernel + np.diag(fit.bend(v))
        atoms = dragged.at(v, fit.rest(v, found.kernel, bulk), bulk + gamma**2 * found.spread)
    if atoms is not None:
        kernel = found.kernel + atoms.kernel
        square += float(v @ atoms.kernel @ v)
        slack = atoms.slack(v, gamma, tilt.rank)
    bend = np.diag(fit.bend(v, kernel @ v))
    A = found.kernel + (bend if atoms is None else bend + atoms.kernel)
    r = fit.rest(v, kernel, A)
    kernels, shares = [], []
    chains = pool.bias.shape[1]
    for j in range(JACKKNIFE):
        at = np.arange(j, chains, JACKKNIFE)
        those = pool.chains(at)
        owner = None if tilt.offset is None else (at * groups // chains)
        kernels.append(gram(tilt, those, np.ascontiguousarray(found.stretched[:, at]), None, groups, owner)[0])
        shares.append(found.weights[:, at].sum())
    total, share = np.sum(kernels, axis=0), np.sum(shares)
    without = np.stack([(total - k) / (share - q) for k, q in zip(kernels, shares, strict=True)])
    without -= without.mean(axis=0)
    left = -(without @ v)
    solved = np.linalg.solve(A, np.column_stack([r, left.T]))
    steps = np.linalg.solve(A + gamma**2 * found.spread, left.T)
    part = (JACKKNIFE - 1) / JACKKNIFE
    gap = fit.gap(v, kernel, gamma)
    return Check(
        gap=(0.5 * gamma**2 * float(r @ solved[:, 0]) if gap is None else gap) + slack,
        noise=0.5 * gamma**2 * part * float(np.sum(left.T * solved[:, 1:])),
        square=gamma**2 * square,
        ess=float(found.ess.mean()),
        log_z=found.log_z,
        error_v=float(np.sqrt(part) * np.linalg.norm(steps) / max(np.linalg.norm(v), 1e-300)),
        error_kernel=float(np.sqrt(part) * np.linalg.norm(without) / np.linalg.norm(A - bend)),
    )


def verdict(
    gap: float,
    floor: float,
    trips: float,
    tail: float,
    ess: float,
    points: int,
    spread_v: float,
    spread_kernel: float,
) -> tuple[str, str]:
    """Return (status, message) of the documented rule; every number is the worse of the two cross evaluations.

    Converged: a gap of at most three times its floor (or <= 0.001 nats outright) that is at most 0.02 nats, or with
    starts that agree to 1 % in v and 3 % in Φ; starts that agree to 5 % in any case; at least one round trip per chain
    between the bulk and the outermost lobe; log p(a) at the ladder's ends at least 9 below its maximum; and an
    effective number of states of at least 20 per training point.
    """
    reasons = []
    if not (gap <= LARGEST_GAP or (spread_v <= LARGEST_SPREAD_V and spread_kernel <= LARGEST_SPREAD_KERNEL)):
        reasons.append(
            f"the gap between primal and dual is {gap:.2g} nats per neuron (above {LARGEST_GAP:g} the starts must "
            f"agree to {LARGEST_SPREAD_V:.0%} in v and {LARGEST_SPREAD_KERNEL:.0%} in the kernel; they do to "
            f"{spread_v:.1%} and {spread_kernel:.1%})"
        )
    elif max(spread_v, spread_kernel) > LARGEST_SPREAD:
        reasons.append(
            f"the two starts differ by {spread_v:.1%} in v and {spread_kernel:.1%} in the kernel (at most "
            f"{LARGEST_SPREAD:.0%} is accepted)"
        )
    if not (gap <= FLOORS * floor or gap <= NEGLIGIBLE_GAP):
        reasons.append(
            f"the gap {gap:.2g} is above {FLOORS:g} times its noise floor {floor:.2g}: the two starts disagree"
        )
    if not trips >= LEAST_TRIPS:
        reasons.append(f"chains made {trips:.2g} round trips between the lobes (at least {LEAST_TRIPS:g} is needed)")
    if not tail <= LARGEST_TAIL:
        reasons.append(f"the field's density has only fallen by e^{tail:.2g} at its largest value")
    if not ess >= LEAST_ESS * points:
        reasons.append(f"{ess:.0f} effective states for {points} points (at least {LEAST_ESS * points:.0f} are needed)")
    if not reasons:
        return CONVERGED, ""
    remedy = "Raise the budget (--moves), or lower gamma or beta."
    return NOT_CONVERGED, f"Not certified: {'; '.join(reasons)}. {remedy}"


def relative(a: Floats, b: Floats) -> float:
    """Return |a - b| / |a|, how far two starts differ."""
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-300))


def spreads(v: Sequence[Floats], kernels: Sequence[Floats], checks: Sequence[Check]) -> dict[str, float]:
    """Return how far two starts differ, `spread_v` and `spread_kernel`, and the errors of their mean, `error_v` and
    `error_kernel`, all relative.

    A spread of two has one degree of freedom: two of it hold only 84 % of the errors that have a single direction. The
    jackknife has thirty, but does not know what all chains of a start share. The error holds both.
    """
    out = {}
    for name, (one, other) in (("v", v), ("kernel", kernels)):
        out[f"spread_{name}"] = relative(one, other)
        jackknife = [getattr(c, f"error_{name}") for c in checks]
        out[f"error_{name}"] = float(np.hypot(out[f"spread_{name}"], np.linalg.norm(jackknife) / len(jackknife)))
    return out
