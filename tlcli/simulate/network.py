"""Finite-width linear networks trained by plain gradient descent: what infinite width is the limit of.

f(x) = (1/(gamma N)) sum_i a_i w_i.x with w_i ~ N(0, init_scale^2 I), a_i ~ N(0, init_scale^2), in mirrored
pairs (a, w), (-a, w), so that the output starts at exactly zero. Loss (1/2P)|y - f|^2 + (decay/2)(|a|^2 +
|w|^2)/(gamma^2 N), learning rate eta gamma^2 N: with beta = W^T a / (gamma N) and g = X^T (y - X beta) / P
one step of "time" eta is

    W += eta (gamma a g^T - decay W),   a += eta (gamma W g - decay a),

at a cost of O(N D) beside the gradient. eta = `SAFETY` / curvature, with the curvature of the loss at its
largest.
"""

from dataclasses import dataclass, replace

import numpy as np

from tlcli.arrays import Floats
from tlcli.errors import ConvergenceError, DomainError
from tlcli.simulate.predictors import RegressionData, dense_predictor
from tlcli.simulate.regression import draw
from tlcli.simulate.trials import Estimate, Point, complete_point, run_trials, samples_of, trial_rng
from tlcli.simulate.unreduced import DEFAULTS, DataStage, gradient_of, kernel_shape, teachers_with_gram, transfer_losses

SAFETY = 0.3
SETTLED = 1e-7
MAX_STEPS = 400_000


@dataclass(frozen=True)
class LinearNetwork:
    """First-layer weights (N, D) and readout (N,) of the network."""

    weights: Floats
    readout: Floats
    gamma: float

    @property
    def beta(self) -> Floats:
        """Effective weights of the output, (D,)."""
        return self.weights.T @ self.readout / (self.gamma * len(self.readout))

    @property
    def covariance(self) -> Floats:
        """Feature covariance (1/N) W^T W, (D, D)."""
        return self.weights.T @ self.weights / len(self.readout)


def initialise(rng: np.random.Generator, width: int, dim: int, init_scale: float, gamma: float) -> LinearNetwork:
    """Draw a mirrored network: zero output, every w twice. Raises DomainError for an odd width."""
    if width < 2 or width % 2:
        raise DomainError(f"width = {width}: neurons come in mirrored pairs, so it must be even and positive.")
    w = init_scale * rng.standard_normal((width // 2, dim))
    a = init_scale * rng.standard_normal(width // 2)
    return LinearNetwork(np.concatenate([w, w]), np.concatenate([a, -a]), gamma)


def descend(network: LinearNetwork, stage: DataStage, safety: float = SAFETY) -> LinearNetwork:
    """Gradient descent for `stage.duration` units of time (inf: until nothing moves); the output scale is the stage's.

    Raises ConvergenceError after `MAX_STEPS` steps.
    """
    w, a = network.weights.copy(), network.readout.copy()
    width, dim = w.shape
    gradient, gamma, decay = gradient_of(stage.data, dim), stage.gamma, stage.weight_decay
    eta = safety / _curvature(replace(network, gamma=gamma), stage, gradient(np.zeros(dim)))
    steps = MAX_STEPS
    if np.isfinite(stage.duration):
        steps = int(np.ceil(stage.duration / eta))
        eta = stage.duration / max(steps, 1)
        if steps > MAX_STEPS:
            raise ConvergenceError(f"{steps} gradient steps are needed; the most is {MAX_STEPS}: shorten the stage.")
    for step in range(steps):
        g = gradient(w.T @ a / (gamma * width))
        force_w, force_a = gamma * np.outer(a, g), gamma * (w @ g)
        if decay:
            force_w -= decay * w
            force_a -= decay * a
        if np.isinf(stage.duration) and step % 16 == 0:
            moved = np.sqrt(np.sum(force_w**2) + np.sum(force_a**2))
            if moved < SETTLED * np.sqrt(np.sum(w**2) + np.sum(a**2)):
                return LinearNetwork(w, a, gamma)
        w += eta * force_w
        a += eta * force_a
    if np.isinf(stage.duration):
        raise ConvergenceError(f"Gradient descent did not settle within {MAX_STEPS} steps; give a finite time.")
    return LinearNetwork(w, a, gamma)


def descend_readout(
    covariance: Floats, data: RegressionData, ridge: float, duration: float, safety: float = SAFETY
) -> Floats:
    """Gradient descent of a new readout on frozen features, from zero output; the output weights (D,) it ends with.

    A step of the readout moves the output weights by eta (M g - ridge beta), M = (1/N) W^T W. This is a linear
    problem: at duration = inf its limit is solved for, however slow the last modes are.
    """
    if np.isinf(duration):
        return dense_predictor(data, covariance, ridge=ridge)
    dim = len(covariance)
    gradient = gradient_of(data, dim)
    top = 1.0
    if data.x is not None:
        p = len(data.x)
        top = float(np.linalg.eigvalsh(data.x @ data.x.T / p if p < dim else data.x.T @ data.x / p)[-1])
    eta = safety / (float(np.linalg.eigvalsh(covariance)[-1]) * top + ridge)
    steps = int(np.ceil(duration / eta))
    if steps > MAX_STEPS:
        raise ConvergenceError(f"{steps} gradient steps are needed; the most is {MAX_STEPS}: shorten the stage.")
    eta = duration / max(steps, 1)
    beta = np.zeros(dim)
    for _ in range(steps):
        beta += eta * (covariance @ gradient(beta) - ridge * beta)
    return beta


def _curvature(network: LinearNetwork, stage: DataStage, u: Floats) -> float:
    """Bound on the Gauss-Newton curvature: largest eigenvalue of X^T X / P times (|M| + <a^2>), along the whole path.

    Training raises |M| and <a^2> to about sqrt(k^2 + |b|^2), with b = gamma beta at the fit of least norm
    at most; a readout carried over counts with what it already holds.
    """
    x = stage.data.x
    top, fit = 1.0, u
    if x is not None:
        p, dim = x.shape
        s = x @ x.T / p if p < dim else x.T @ x / p
        top = float(np.linalg.eigvalsh(s)[-1])
        fit = np.linalg.pinv(x, rcond=1e-6) @ stage.data.y
    m = float(np.mean(network.readout**2))
    largest = float(np.linalg.norm(network.covariance, 2))
    growth = stage.gamma * float(np.linalg.norm(fit))
    return top * (largest + m + 2 * growth) + 2 * stage.weight_decay


def simulate_network(
    point: Point, *, dim: int, width: int, trials: int, seed: int, mode: str = "frozen"
) -> dict[str, Estimate]:
    """Train networks of `width` neurons on source, then target.

    `point` as in `simulate_unreduced` (its "mode" is replaced by `mode`). "joint": both layers in both
    stages, the readout carried over; baseline = stage 2 alone. "frozen": the features (1/N) W^T W after
    stage 1 are frozen and only a readout is trained from zero output with `ridge` for t2; baseline = the same
    on the initial features. Returns (mean, standard error) of loss, baseline, gain, source_loss,
    source_loss_before, overlap, norm2, bulk and spike of the features after stage 1, and step_error: the
    largest change of the losses when the step is halved (trial 0, no error bar).
    """
    if mode not in ("frozen", "joint"):
        raise DomainError(f"mode = {mode!r}: allowed are 'joint' and 'frozen'.")
    p = complete_point(point, DEFAULTS, ("alpha1", "alpha2"))
    p.pop("mode")
    q = {name: float(value) for name, value in p.items()}
    gamma2 = q["gamma0"] if np.isnan(q["gamma2"]) else q["gamma2"]
    p1, p2 = samples_of(q["alpha1"], dim), samples_of(q["alpha2"], dim)

    def trial(rng: np.random.Generator, safety: float = SAFETY) -> dict[str, float]:
        teacher1, teacher2 = teachers_with_gram(rng, np.array([[1.0, q["rho"]], [q["rho"], 1.0]]), dim)
        source = DataStage(draw(rng, teacher1, p1, q["sigma1"]), q["gamma0"], q["t1"], q["weight_decay"])
        target = DataStage(draw(rng, teacher2, p2, q["sigma2"]), gamma2, q["t2"], q["weight_decay2"])
        start = initialise(rng, width, dim, q["init_scale"], q["gamma0"])
        first = descend(start, source, safety)
        if mode == "joint":
            end, fresh = descend(first, target, safety).beta, descend(start, target, safety).beta
        else:
            end, fresh = (
                descend_readout(net.covariance, target.data, q["ridge"], q["t2"], safety) for net in (first, start)
            )
        shape = kernel_shape(first.covariance, first.beta)
        return {**transfer_losses(first.beta, end, fresh, teacher1, teacher2), **shape}

    out = run_trials(trial, trials, seed)
    whole, half = trial(trial_rng(seed, 0)), trial(trial_rng(seed, 0), SAFETY / 2)
    out["step_error"] = Estimate(max(abs(whole[name] - half[name]) for name in ("loss", "source_loss_before")), 0.0)
    return out
