"""The experiment behind structured transfer: actual regressions on Gaussian inputs or on real images.

Stage 1 is the minimum-norm fit of P1 samples, stage 2 ridge(less) regression on P2 fresh samples with the
features M = k I + chi n n^T that it leaves. Test loss = (beta - beta*)^T Sigma (beta - beta*) with the
true covariance Sigma.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from tlcli.arrays import Floats
from tlcli.errors import DomainError
from tlcli.simulate.predictors import Features, RegressionData, fit, flow_filter
from tlcli.simulate.regression import least_norm
from tlcli.simulate.trials import Estimate, run_trials


@dataclass(frozen=True)
class Images:
    """A finite pool of samples: inputs x (n, n_modes) in the basis of the spectrum, labels y1 and y2 (n,)."""

    x: Floats
    y1: Floats
    y2: Floats


def simulate_structured(
    eigenvalues: Floats,
    teacher1: Floats,
    teacher2: Floats,
    p1: float,
    p2: float,
    gamma0: float,
    *,
    sigma1: float = 0.0,
    sigma2: float = 0.0,
    ridge: float = 0.0,
    init_scale: float = 1.0,
    trials: int,
    seed: int,
    images: Images | None = None,
) -> dict[str, Estimate]:
    """Run the two stages `trials` times; (mean, standard error) of norm2, spike, source_loss, loss, baseline, gain.

    `eigenvalues`, `teacher1`, `teacher2`: (n_modes,). Without `images` inputs are Gaussian and labels carry
    noise of rms sigma1, sigma2. With `images` both samples are drawn with replacement from the real ones,
    with their real labels: sigma1, sigma2 then play no part. p1 = inf gives beta1 = teacher1. Raises
    DomainError for init_scale <= 0.
    """
    if init_scale <= 0 or p2 < 1 or p1 < 1 or np.isinf(p2):
        raise DomainError(
            f"p1 = {p1:g}, p2 = {p2:g}, init_scale = {init_scale:g}: the experiment needs p1 >= 1, 1 <= p2 < inf "
            "and init_scale > 0."
        )
    live = eigenvalues > 0  # modes without variance carry no data
    if images is not None:
        images = Images(images.x[:, live], images.y1, images.y2)
    draws = _Draws(eigenvalues[live], (teacher1[live], teacher2[live]), (sigma1, sigma2), images)

    def trial(rng: np.random.Generator) -> dict[str, float]:
        return _trial(draws, rng, p1, p2, gamma0, ridge, init_scale**2)

    return run_trials(trial, trials, seed)


@dataclass(frozen=True, eq=False)
class _Draws:
    """Where samples come from: inputs of variances `eigenvalues` with the teachers of both stages, or images."""

    eigenvalues: Floats
    teachers: tuple[Floats, Floats]
    sigmas: tuple[float, float]
    images: Images | None

    def sample(self, rng: np.random.Generator, p: float, stage: int) -> RegressionData:
        """Draw p samples of stage 0 or 1."""
        if self.images is not None:
            rows = rng.integers(len(self.images.x), size=int(p))
            return RegressionData(self.images.x[rows], (self.images.y1, self.images.y2)[stage][rows])
        x = rng.standard_normal((int(p), len(self.eigenvalues))) * np.sqrt(self.eigenvalues)
        return RegressionData(x, x @ self.teachers[stage] + self.sigmas[stage] * rng.standard_normal(int(p)))


def _trial(
    draws: _Draws, rng: np.random.Generator, p1: float, p2: float, gamma0: float, ridge: float, k: float
) -> dict[str, float]:
    """Run the two stages once; `k` is the bulk of the features."""
    eigenvalues, (teacher1, teacher2) = draws.eigenvalues, draws.teachers
    beta1, dim = teacher1, len(eigenvalues)
    if np.isfinite(p1):
        source = draws.sample(rng, p1, 0)
        beta1 = least_norm(source) if draws.images is None else regress(source, np.eye(dim))
    norm = float(np.linalg.norm(beta1))
    spike = float(np.hypot(k, gamma0 * norm)) - k
    n = beta1 / norm
    data = draws.sample(rng, p2, 1)
    if draws.images is None:
        betas = fit(data, Features(k, n[:, None], np.array([[spike]])), k, ridge=ridge)
    else:
        # M^{1/2} = sqrt(k) I + (sqrt(k + chi) - sqrt(k)) n n^T
        root = np.sqrt(k) * np.eye(dim) + (np.sqrt(k + spike) - np.sqrt(k)) * np.outer(n, n)
        betas = regress(data, root, ridge), regress(data, np.sqrt(k) * np.eye(dim), ridge)
    loss, baseline = (float(eigenvalues @ (beta - teacher2) ** 2) for beta in betas)
    return {
        "norm2": norm**2,
        "spike": spike,
        "source_loss": float(eigenvalues @ (beta1 - teacher1) ** 2),
        "loss": loss,
        "baseline": baseline,
        "gain": baseline - loss,
    }


def regress(data: RegressionData, root: Floats, ridge: float = 0.0) -> Floats:
    """Ridge or minimum-norm regression on features x M^{1/2}; `root` = M^{1/2} (D, D), returns beta (D,).

    Repeated images make the kernel singular: null modes are left alone, as gradient flow leaves them.
    """
    assert data.x is not None
    f = data.x @ root
    p, dim = f.shape
    if p < dim:
        z, v = eigh(f @ f.T / p)
        return root @ (f.T @ (v @ (flow_filter(np.clip(z, 0, None), ridge, np.inf) * (v.T @ data.y)))) / p
    z, v = eigh(f.T @ f / p)
    return root @ (v @ (flow_filter(np.clip(z, 0, None), ridge, np.inf) * (v.T @ (f.T @ data.y)))) / p
