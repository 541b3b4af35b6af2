"""Acceptance: real regressions at D = 700 agree with the closed forms within 4 standard errors, at 60 points."""

import numpy as np
import pytest

from tlcli.linear.linear_transfer import transfer_ansatz, transfer_exact
from tlcli.simulate.regression import simulate_regression

DIM, TRIALS = 700, 16


def random_points(n=60, seed=20240):
    rng = np.random.default_rng(seed)
    points = []
    while len(points) < n:
        alpha1, alpha2 = np.exp(rng.uniform(np.log(0.2), np.log(2.5), 2))
        ridge = 0.0 if rng.random() < 0.5 else 10 ** rng.uniform(-2, 0)
        # Stage 1 is always ridgeless: stay away from its interpolation threshold, and from stage 2's.
        if abs(alpha1 - 1) < 0.15 or (ridge == 0 and abs(alpha2 - 1) < 0.15):
            continue
        sigma1, sigma2 = rng.uniform(0, 0.6, 2) * (rng.random(2) < 0.6)
        # theory and experiment must use the same P/D
        alpha1, alpha2 = round(alpha1 * DIM) / DIM, round(alpha2 * DIM) / DIM
        points.append(
            {
                "alpha1": alpha1, "alpha2": alpha2, "rho": rng.uniform(-1, 1),
                "gamma0": float(np.exp(rng.uniform(np.log(0.2), np.log(8)))),
                "sigma1": sigma1, "sigma2": sigma2, "ridge": ridge,
            }
        )  # fmt: skip
    return points


def deviation(estimate, theory):
    """Distance in standard errors; rounding does not count."""
    return abs(estimate.mean - float(theory)) / max(estimate.se, 1e-9)


@pytest.mark.parametrize("index", range(60))
def test_random_point(index):
    point = random_points()[index]
    simulated = simulate_regression(point, dim=DIM, trials=TRIALS, seed=1000 + index)
    theory = transfer_exact(**point)
    assert theory.pretrained is not None
    for name in ("loss", "baseline", "train_loss"):
        assert deviation(simulated[name], getattr(theory, name)) <= 4, name
    # Paired on the same data, the gain is known so well that its own 1/D bias shows where rho is nearly 0.
    assert abs(simulated["gain"].mean - float(theory.gain)) <= 4 * simulated["gain"].se + 0.1 / DIM
    for name in ("overlap", "norm2", "spike", "bulk"):
        assert deviation(simulated[name], getattr(theory.pretrained, name)) <= 4, name


FEW = {"alpha1": 0.25, "alpha2": 0.5, "rho": 0.95, "gamma0": 1.0}
NOISY = {"alpha1": 0.5, "alpha2": 0.5, "rho": 0.9, "gamma0": 2.0, "sigma1": 0.6}


def twin(point, *, spike=None, crosstalk=1.0):
    """Theory's gain with parts replaced."""
    p = transfer_exact(**point).pretrained
    assert p is not None
    chi, n1, n2 = float(p.spike) if spike is None else spike, float(p.n_signal), float(p.n_noise)
    return transfer_ansatz(
        point["alpha1"], point["alpha2"], rho=point["rho"], gamma0=point["gamma0"],
        c_signal=chi * n1**2, c_cross=crosstalk * chi * n1 * n2, c_noise=chi * n2**2,
    ).gain  # fmt: skip


def test_a_spike_that_forgets_the_norm_of_the_predictor_fails():
    simulated = simulate_regression(FEW, dim=DIM, trials=TRIALS, seed=5)["gain"]
    assert deviation(simulated, twin(FEW)) <= 4
    assert deviation(simulated, twin(FEW, spike=np.sqrt(1 + FEW["gamma0"] ** 2) - 1)) > 6


def test_a_kernel_without_crosstalk_fails():
    simulated = simulate_regression(NOISY, dim=DIM, trials=TRIALS, seed=5)["gain"]
    assert deviation(simulated, twin(NOISY)) <= 4
    assert deviation(simulated, twin(NOISY, crosstalk=0.0)) > 6
