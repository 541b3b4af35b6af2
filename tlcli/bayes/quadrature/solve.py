"""Saddle points of nonlinear networks by deterministic quadrature, for training inputs of rank at most 2.

docs/bayes.md, Section 2: the saddle is the maximum of a strictly concave function of v (P,),

    D(v) = γ²(v·y - |v|²/2β) - E log Z(v),    Z(v) = E exp(½γ²(v·φ(h))²) over the prior of h,

found by Newton's method with backtracking. Expectations are integrals over the row space of the training inputs: a
lattice for smooth activations, polar coordinates for homogeneous ones (relu). The rule is refined until two of them
agree; the gap is the primal-dual gap ½γ²rᵀ(Φ + I/β)⁻¹r of the coarse solution on the finer rule, its floor the
difference of the two free energies. Other losses (`tlcli.bayes.likelihood`) replace the first bracket by their
conjugate, and with several outputs s² is summed over them.

In two dimensions or one, log Z of a relu network diverges at the edge of its domain: a saddle exists at any γ. A smooth
activation with relu's asymptote can leave the domain (softplus does), a polynomial has none: both are refused.
"""

import numpy as np
from numpy.typing import ArrayLike

from tlcli.arrays import Floats, Indices
from tlcli.bayes.likelihood import Likelihood, check_finite
from tlcli.bayes.quadrature.lattice import REACH, Box
from tlcli.bayes.quadrature.outside import split_points
from tlcli.bayes.quadrature.refine import refined, tied
from tlcli.bayes.quadrature.rules import QuadratureStage, refuse_growth, source_rule, target_rule
from tlcli.bayes.saddle import Saddle, check_beta, check_delta, check_gamma, check_problem, mean_weight
from tlcli.dmft.activations import Activation
from tlcli.errors import DomainError
from tlcli.losses import Objective


def quadrature_source(
    act: Activation,
    x: ArrayLike,
    rows: ArrayLike,
    labels: ArrayLike,
    gamma: float,
    beta: float,
    *,
    accuracy: float | None = None,
    objective: Objective | None = None,
) -> Saddle:
    """Return the saddle point of a source network of any activation.

    Args:
        act: activation.
        x: all points (n, D).
        rows: training points, (P,) indices or a mask (n,), of rank <= 2; the other points are arbitrary.
        labels: (P,).
        gamma: richness >= 0.
        beta: inverse temperature > 0, or inf.
        accuracy: relative difference of v and Φ on two rules at which they agree; 1e-8, or 1e-4 for an activation that
            has a kink and is not homogeneous.
        objective: losses of the training points in the place of the squared error of `labels` (which then are not
            used); v and outputs are (P, C) and (n, C) of several outputs.

    Raises:
        DomainError: a rank above 2, a bad value, or a tilt that is not normalisable (its direction is named).
        ConvergenceError: the integrals need more nodes than fit in memory.
    """
    points, at, y = check_problem(x, rows, labels if objective is None else np.ones(len(objective.y)))
    check_gamma(gamma)
    likelihood = _likelihood(objective, beta)
    basis = _row_space(points, at)
    split = split_points(points, basis)
    stage = QuadratureStage(act, *split, basis, at, y, float(gamma), 1.0 / float(beta), likelihood=likelihood)
    refuse_growth(stage)
    rank = basis.shape[1]
    return refined(stage, source_rule, Box((-REACH,) * rank, (REACH,) * rank), accuracy)


def quadrature_target(
    act: Activation,
    x: ArrayLike,
    rows: ArrayLike,
    labels: ArrayLike,
    gamma: float,
    beta: float,
    delta: float,
    source: Saddle,
    *,
    source_rows: ArrayLike,
    source_gamma: float,
    accuracy: float | None = None,
    objective: Objective | None = None,
) -> Saddle:
    """Return the saddle point of a target network tied to a source with strength δ.

    Args (the others as in `quadrature_source`; the source may have any other objective):
        rows: training points of the target, (P,) indices or a mask; their rank joint with the source's is <= 2.
        delta: elastic coupling >= 0; 0 is a network that learns the target alone, inf keeps the weights of the source.
        source: saddle point of the source, from any solver; only its v is used.
        source_rows: training points of the source, in the order of source.v.
        source_gamma: richness of the source.

    Raises:
        DomainError: a joint rank above 2, a bad value, or a tilt that is not normalisable (its direction is named).
        ConvergenceError: the integrals need more nodes than fit in memory (large γ, β or P).
    """
    check_delta(delta)
    check_gamma(source_gamma, "source gamma")
    if delta == 0:
        return quadrature_source(act, x, rows, labels, gamma, beta, accuracy=accuracy, objective=objective)
    points, at, y = check_problem(x, rows, labels if objective is None else np.ones(len(objective.y)))
    at1 = check_problem(x, source_rows, source.v if source.v.ndim == 1 else source.v[:, 0])[1]
    v1 = source.v
    check_gamma(gamma)
    likelihood = _likelihood(objective, beta)
    basis = _joint_space(points, at1, at)
    b, covariance = split_points(points, basis)
    pre = QuadratureStage(act, b, covariance, basis, at1, v1, float(source_gamma), 0.0)
    # The part of a weight outside the row space is Gaussian in both stages: variance α² + 1/(1+δ) (1 at δ = inf).
    α, own = float(mean_weight(delta)), 1.0 / (1.0 + float(delta))
    stage = QuadratureStage(
        act, b, covariance * (α**2 + own), basis, at, y, float(gamma), 1.0 / float(beta), float(delta), likelihood
    )
    for each in (pre, stage):
        refuse_growth(each)
    if np.isinf(delta):
        return tied(stage, pre, accuracy)
    box = Box((0.0,) * basis.shape[1], (0.0,) * basis.shape[1])
    fineness = int(source.info.get("level", 0)) if isinstance(source.info.get("rule_difference"), float) else 0
    return refined(stage, lambda st, level: target_rule(st, pre, level, fineness), box, accuracy)


def _likelihood(objective: Objective | None, beta: float) -> Likelihood | None:
    check_beta(beta)
    if objective is None:
        return None
    check_finite(float(beta), objective)
    return Likelihood(objective, float(beta))


def _row_space(x: Floats, at: Indices, scale: float = 0.0) -> Floats:
    """Return an orthonormal basis (D, r) of the rows `at`, r <= 2; what is below 1e-10 of `scale` is round-off."""
    _, size, right = np.linalg.svd(x[at], full_matrices=False)
    rank = int(np.sum(size > 1e-10 * max(size.max(), scale, np.finfo(float).tiny)))
    _check_rank(right[:rank].T)
    return right[:rank].T


def _joint_space(x: Floats, first: Indices, second: Indices) -> Floats:
    """Return an orthonormal basis (D, r) of both sets of rows, r <= 2.

    The source's axes come first: its v belongs to the lattice on which it was found, along the axes of its own inputs.
    """
    basis = _row_space(x, first)
    rest = x[second] - x[second] @ basis @ basis.T
    if np.linalg.norm(rest) > 1e-10 * np.linalg.norm(x[second]):
        more = _row_space(rest, np.arange(len(rest)), float(np.linalg.norm(x[second])))
        basis = np.concatenate([basis, more], axis=1)
    _check_rank(basis)
    return basis


def _check_rank(basis: Floats) -> None:
    if basis.shape[1] > 2:
        raise DomainError(
            f"training inputs of rank {basis.shape[1]}: quadrature needs rank <= 2 (both tasks together); use the "
            "sampling route."
        )
