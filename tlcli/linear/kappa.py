"""The effective ridge kappa of regression on P samples with a given spectrum (docs/theory.md, Section 6).

    kappa = ridge + (kappa/P) sum_k lambda_k/(lambda_k + kappa)

or, ridgeless with P < rank, sum_k lambda_k/(lambda_k + kappa) = P.
"""

import numpy as np
from numpy.typing import ArrayLike

from tlcli.arrays import Floats

BLOCK = 1 << 22  # numbers in the largest temporary


def solve_kappa(eigenvalues: Floats, samples: ArrayLike, ridge: ArrayLike) -> tuple[Floats, Floats]:
    """Solve for kappa on the broadcast grid of `samples` P in (0, inf] and `ridge` >= 0, in one call.

    `eigenvalues` (rank,), all positive. Returns kappa, to 1e-13 relative, and the residual of the equation
    over P. Ridgeless with P >= rank: kappa = 0. P = inf: kappa = ridge.
    """
    p, r = np.broadcast_arrays(np.asarray(samples, dtype=float), np.asarray(ridge, dtype=float))
    rank, trace = len(eigenvalues), float(np.sum(eigenvalues))
    trivial = np.isinf(p) | ((r == 0) & (p >= rank))
    kappa, residual = np.where(np.isinf(p), r, 0.0), np.zeros(p.shape)
    if not trivial.all():
        ps, rs = p[~trivial], r[~trivial]

        def excess(y: Floats, ps: Floats, rs: Floats) -> Floats:
            """Relative excess of the right-hand side at kappa = e^y: decreasing in y."""
            kap = np.exp(y)
            return rs / kap + _degrees_of_freedom(eigenvalues, kap) / ps - 1.0

        # 0 <= sum lambda/(lambda + kappa) kappa <= trace, and >= rank lambda_min/(lambda_min + kappa) kappa
        lowest = float(np.min(eigenvalues))
        low = np.log(np.where(rs > 0, rs, lowest * (rank / ps - 1))) - 1e-9
        high = np.log(rs + trace / ps) + 1e-9
        from scipy.optimize import elementwise  # a part of SciPy that costs as much as all else

        result = elementwise.find_root(
            excess,
            (low, high),
            args=(ps, rs),
            tolerances={"xatol": 1e-15, "xrtol": 1e-15, "fatol": 0.0, "frtol": 0.0},
        )
        kappa[~trivial] = np.exp(result.x)
        residual[~trivial] = np.abs(excess(result.x, ps, rs))
    return kappa, residual


def _degrees_of_freedom(eigenvalues: Floats, kappa: Floats) -> Floats:
    """sum_k lambda_k/(lambda_k + kappa), memory-bounded; shape of `kappa`."""
    flat = np.ravel(kappa)
    out = np.empty(flat.size)
    step = max(1, BLOCK // len(eigenvalues))
    for start in range(0, flat.size, step):
        block = flat[start : start + step, None]
        out[start : start + step] = np.sum(eigenvalues / (eigenvalues + block), axis=1)
    return out.reshape(kappa.shape)
