"""The un-reduced infinite-width dynamics on actual data.

A population of neurons (w, a) is described by M = <w w^T> (D, D), m = <a^2> and b = <a w> (D,); on data (X,
y) with g = X^T (y - X b / gamma) / P (docs/theory.md, Section 2)

    dM/dt = gamma (b g^T + g b^T) - 2 decay M,   dm/dt = 2 gamma g.b - 2 decay m,
    db/dt = gamma (M + m I) g - 2 decay b.

`run_full` integrates these as they stand. A training history is a list of stages; the readout is carried over from one
to the next.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import DOP853

from tlcli.arrays import Floats
from tlcli.errors import ConvergenceError, DomainError
from tlcli.simulate.predictors import RegressionData, dense_predictor
from tlcli.simulate.regression import draw
from tlcli.simulate.trials import Estimate, Point, Value, complete_point, run_trials, samples_of, unit_vector

MAX_STEPS = 50_000
SETTLED = 1e-7  # |rate of change| / |state| that counts as t = inf; below it the solver rounds, not the network

DEFAULTS: dict[str, Value] = {
    "rho": 1.0,
    "gamma0": 1.0,
    "gamma2": np.nan,
    "sigma1": 0.0,
    "sigma2": 0.0,
    "weight_decay": 0.0,
    "weight_decay2": 0.0,
    "ridge": 0.0,
    "init_scale": 1.0,
    "t1": np.inf,
    "t2": np.inf,
    "mode": "joint",
}


@dataclass(frozen=True)
class DataStage:
    """One training stage on actual data, lasting `duration` (inf: until nothing moves)."""

    data: RegressionData
    gamma: float
    duration: float = np.inf
    weight_decay: float = 0.0


@dataclass(frozen=True)
class UnreducedState:
    """The population after a stage: covariance M (D, D), m = <a^2>, output weights beta = b/gamma (D,)."""

    covariance: Floats
    readout: float
    beta: Floats
    gamma: float

    @property
    def b(self) -> Floats:
        """b = <a w>, (D,)."""
        return self.gamma * self.beta


def run_full(
    stages: Sequence[DataStage], dim: int, init_scale: float = 1.0, rtol: float = 1e-9
) -> list[UnreducedState]:
    """Integrate M, m and beta = b/gamma through the stages; the states after each. gamma = 0 is the lazy limit.

    Raises ConvergenceError if a stage of infinite duration has not settled after `MAX_STEPS` steps.
    """
    k = init_scale**2
    state = np.concatenate([(k * np.eye(dim)).ravel(), [k], np.zeros(dim)])
    out: list[UnreducedState] = []
    for stage in stages:
        gradient, gamma, decay = gradient_of(stage.data, dim), stage.gamma, stage.weight_decay

        def rhs(
            t: float,
            z: Floats,
            gradient: Callable[[Floats], Floats] = gradient,
            gamma: float = gamma,
            decay: float = decay,
        ) -> Floats:
            cov, m, beta = z[: dim * dim].reshape(dim, dim), z[dim * dim], z[dim * dim + 1 :]
            g = gradient(beta)
            cross = np.outer(gamma**2 * beta, g)
            d_cov = cross + cross.T - 2 * decay * cov
            d_beta = cov @ g + m * g - 2 * decay * beta
            return np.concatenate([d_cov.ravel(), [2 * gamma**2 * (g @ beta) - 2 * decay * m], d_beta])

        state[dim * dim + 1 :] = carried(out, gamma, dim)
        state = evolve(rhs, state, stage.duration, rtol)
        cov = state[: dim * dim].reshape(dim, dim).copy()
        out.append(UnreducedState(cov, float(state[dim * dim]), state[dim * dim + 1 :].copy(), gamma))
    return out


def carried(done: Sequence[UnreducedState], gamma: float, dim: int) -> Floats:
    """Return beta at the start of a stage: the readout, so b = gamma beta, is carried over.

    Raises DomainError for gamma = 0 after a stage that left an output.
    """
    if not done:
        return np.zeros(dim)
    before = done[-1]
    if before.gamma == gamma:
        return before.beta
    if gamma == 0:
        raise DomainError("gamma = 0 after a stage with gamma > 0: the carried output b/gamma is infinite.")
    return before.b / gamma


def gradient_of(data: RegressionData, dim: int) -> Callable[[Floats], Floats]:
    """Return beta -> g = X^T (y - X beta) / P, through whichever of X (P, D) and X^T X (D, D) is smaller."""
    x, y = data.x, data.y
    if x is None:
        return lambda beta: y - beta
    p = len(x)
    if 2 * p < dim:
        return lambda beta: x.T @ (y - x @ beta) / p
    u, s = x.T @ y / p, x.T @ x / p
    return lambda beta: u - s @ beta


def simulate_unreduced(point: Point, *, dim: int, trials: int, seed: int) -> dict[str, Estimate]:
    """Source then target stage of an infinitely wide network on actual Gaussian data of dimension `dim`.

    `point` needs alpha1, alpha2 and may set the names in `DEFAULTS` (gamma2 defaults to gamma0; init_scale
    > 0). mode = "joint": both stages rich, readout carried over; "frozen": M is frozen after t1 and a new
    readout starts from zero output, with `ridge`. Returns (mean, standard error) of: loss, source_loss
    (both after stage 2), source_loss_before, overlap and norm2 (after stage 1), norm2_end, baseline (stage
    2 alone from the initial population), gain, bulk and spike (of M after stage 1).
    """
    p = complete_point(point, DEFAULTS, ("alpha1", "alpha2"))
    mode = str(p.pop("mode"))
    if mode not in ("joint", "frozen"):
        raise DomainError(f"mode = {mode!r}: allowed are 'joint' and 'frozen'.")
    q = {name: float(value) for name, value in p.items()}
    gamma2 = q["gamma0"] if np.isnan(q["gamma2"]) else q["gamma2"]
    p1, p2 = samples_of(q["alpha1"], dim), samples_of(q["alpha2"], dim)
    k = q["init_scale"] ** 2
    if k == 0:
        raise DomainError("init_scale = 0 is a fixed point of the dynamics: nothing would move; use e.g. 0.1.")

    def trial(rng: np.random.Generator) -> dict[str, float]:
        teacher1, teacher2 = teachers_with_gram(rng, np.array([[1.0, q["rho"]], [q["rho"], 1.0]]), dim)
        source = DataStage(draw(rng, teacher1, p1, q["sigma1"]), q["gamma0"], q["t1"], q["weight_decay"])
        data2 = draw(rng, teacher2, p2, q["sigma2"])
        target = DataStage(data2, gamma2, q["t2"], q["weight_decay2"])
        if mode == "joint":
            first, second = run_full([source, target], dim, q["init_scale"])
            end, fresh = second.beta, run_full([target], dim, q["init_scale"])[0].beta
        else:
            first = run_full([source], dim, q["init_scale"])[0]
            end, fresh = (
                dense_predictor(data2, cov, ridge=q["ridge"], time=q["t2"])
                for cov in (first.covariance, k * np.eye(dim))
            )
        shape = kernel_shape(first.covariance, first.beta)
        return {**transfer_losses(first.beta, end, fresh, teacher1, teacher2), **shape}

    return run_trials(trial, trials, seed)


def transfer_losses(first: Floats, end: Floats, fresh: Floats, teacher1: Floats, teacher2: Floats) -> dict[str, float]:
    """Losses of the output weights (D,) after stage 1, at the end, and at the end of a run from scratch."""

    def distance(beta: Floats, teacher: Floats) -> float:
        return float(np.sum((beta - teacher) ** 2))

    loss, baseline = distance(end, teacher2), distance(fresh, teacher2)
    before, after = distance(first, teacher1), distance(end, teacher1)
    return {
        "loss": loss,
        "baseline": baseline,
        "gain": baseline - loss,
        "source_loss": after,
        "source_loss_before": before,
        "forgetting": after - before,
        "overlap": float(first @ teacher1),
        "norm2": float(first @ first),
        "norm2_end": float(end @ end),
    }


def kernel_shape(covariance: Floats, beta: Floats) -> dict[str, float]:
    """Measure bulk and spike of M (D, D): its mean eigenvalue across the predictor, and the excess along it."""
    norm = float(np.linalg.norm(beta))
    if norm == 0.0:
        return {"bulk": float(np.trace(covariance)) / len(beta), "spike": 0.0}
    n = beta / norm
    along = float(n @ covariance @ n)
    bulk = (float(np.trace(covariance)) - along) / (len(beta) - 1)
    return {"bulk": bulk, "spike": along - bulk}


def simulate_curriculum(
    stages: Sequence[Mapping[str, float]],
    gram: ArrayLike,
    *,
    dim: int,
    trials: int,
    seed: int,
    init_scale: float = 1.0,
) -> dict[str, Estimate]:
    """Train one network through any number of stages, readout carried over.

    Each stage is a mapping: teacher (index into `gram`), alpha, gamma, and optionally time (inf), sigma
    (0), weight_decay (0). `gram` (n_teachers, n_teachers): overlaps of the teachers, ones on its diagonal.
    Returns "loss" (n_stages, n_teachers): the test loss on every teacher after every stage; and "norm2"
    (n_stages,).
    """
    gram = np.asarray(gram, dtype=float)
    defaults: dict[str, Value] = {"time": np.inf, "sigma": 0.0, "weight_decay": 0.0}
    rows = [complete_point(stage, defaults, ("teacher", "alpha", "gamma")) for stage in stages]
    plan = [{name: float(value) for name, value in row.items()} for row in rows]
    for row in plan:
        if not (row["teacher"].is_integer() and 0 <= row["teacher"] < len(gram)):
            raise DomainError(
                f"teacher = {row['teacher']:g}: with {len(gram)} teachers it must be 0 to {len(gram) - 1}."
            )

    def trial(rng: np.random.Generator) -> dict[str, Floats]:
        teachers = teachers_with_gram(rng, gram, dim)
        run = []
        for row in plan:
            data = draw(rng, teachers[int(row["teacher"])], samples_of(row["alpha"], dim), row["sigma"])
            run.append(DataStage(data, row["gamma"], row["time"], row["weight_decay"]))
        betas = np.array([state.beta for state in run_full(run, dim, init_scale)])
        loss = np.sum((betas[:, None, :] - teachers) ** 2, axis=-1)
        return {"loss": loss, "norm2": np.sum(betas**2, axis=-1)}

    return run_trials(trial, trials, seed)


def teachers_with_gram(rng: np.random.Generator, gram: Floats, dim: int) -> Floats:
    """Random unit teachers (n_teachers, D) with exactly these overlaps.

    Raises DomainError unless `gram` is symmetric positive semidefinite with a unit diagonal.
    """
    n = len(gram)
    if gram.shape != (n, n) or not np.allclose(gram, gram.T) or not np.allclose(np.diag(gram), 1.0):
        raise DomainError("The Gram matrix of the teachers must be square and symmetric with ones on its diagonal.")
    values, vectors = np.linalg.eigh(gram)
    if values[0] < -1e-10:
        raise DomainError(f"The Gram matrix of the teachers has the eigenvalue {values[0]:.3g}; none may be negative.")
    axes: list[Floats] = []
    for _ in range(n):
        axes.append(unit_vector(rng, dim, *axes))
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ np.array(axes)


def evolve(rhs: Callable[[float, Floats], Floats], state: Floats, duration: float, rtol: float) -> Floats:
    """DOP853 to `duration`, or until the state has settled."""
    if duration == 0:
        return state
    scale = float(np.max(np.abs(state)))
    solver = DOP853(rhs, 0.0, state, min(duration, 1e12), rtol=rtol, atol=1e-2 * rtol * scale)
    for _ in range(MAX_STEPS):
        if solver.status == "failed":
            break
        moved = float(np.linalg.norm(solver.f))
        if solver.status == "finished" or (np.isinf(duration) and moved < SETTLED * np.linalg.norm(solver.y)):
            return solver.y
        solver.step()
    raise ConvergenceError(
        f"Training did not settle within {MAX_STEPS} steps (|rate| = {np.linalg.norm(solver.f):.1e}): "
        "give a finite time."
    )
