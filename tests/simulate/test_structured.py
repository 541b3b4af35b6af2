"""Section 6 against actual regressions: Gaussian inputs, then real images."""

import numpy as np
import pytest

from tlcli.errors import DomainError
from tlcli.linear.structured import structured_transfer
from tlcli.simulate.structured import Images, simulate_structured
from tlcli.tasks.digits import digits_spectrum
from tlcli.tasks.spectra import power_law

CASES = [
    (100, 80, 2.0, {"sigma1": 0.2, "sigma2": 0.1}),
    (150, 200, 3.0, {"sigma1": 0.3, "sigma2": 0.2, "ridge": 0.1}),
    (450, 120, 1.0, {"sigma1": 0.5, "ridge": 0.01}),
    (np.inf, 150, 5.0, {"sigma2": 0.2, "init_scale": 0.6, "ridge": 0.05}),
]


@pytest.mark.parametrize("case", CASES, ids=["few", "ridge", "many", "known source"])
def test_gaussian_inputs(case):
    p1, p2, gamma0, more = case
    s = power_law(300, 0.6, 0.7)
    target = s.target(0.8)
    theory = structured_transfer(s.eigenvalues, s.teacher1, target, p1, p2, gamma0, **more)
    simulated = simulate_structured(s.eigenvalues, s.teacher1, target, p1, p2, gamma0, trials=40, seed=2, **more)
    for name, estimate in simulated.items():
        if name == "source_loss" and np.isinf(p1):
            continue
        slack = 3e-4 * float(theory.baseline) if name == "gain" else 1e-9  # the gain's own 1/D bias
        assert abs(estimate.mean - float(getattr(theory, name))) <= 4 * estimate.se + slack, name


def test_the_spike_without_the_norm_fails():
    s = power_law(300, 0.6, 0.7)
    theory = structured_transfer(s.eigenvalues, s.teacher1, s.target(0.8), 100.0, 80.0, 2.0, sigma1=0.2)
    run = simulate_structured(s.eigenvalues, s.teacher1, s.target(0.8), 100, 80, 2.0, sigma1=0.2, trials=40, seed=2)[
        "spike"
    ]
    assert abs(run.mean - float(theory.spike)) <= 4 * run.se
    assert abs(run.mean - (np.sqrt(1 + 2.0**2) - 1)) > 6 * run.se


# Real images are neither Gaussian nor is the rest of their labels independent noise: measured differences
# of the loss are 1 % to 9 % (40 of 61 components or a ridge), so 15 % is asserted; see digits_spectrum on
# what does not work.
@pytest.mark.parametrize(
    ("p1", "p2", "gamma0", "ridge"), [(15, 15, 2.0, 0.0), (200, 30, 5.0, 0.05), (300, 300, 3.0, 0.5)]
)
@pytest.mark.parametrize("pair", ["digits:02468v13579 digits:01234v56789", "digits:3v8 digits:8v3"])
def test_real_images(pair, p1, p2, gamma0, ridge):
    s = digits_spectrum(*pair.split(), n_modes=40)
    theory = structured_transfer(
        s.eigenvalues, s.teacher1, s.teacher2, p1, p2, gamma0, sigma1=s.sigma1, sigma2=s.sigma2, ridge=ridge
    )
    run = simulate_structured(
        s.eigenvalues, s.teacher1, s.teacher2, p1, p2, gamma0, ridge=ridge, trials=150, seed=0,
        images=Images(s.x, s.y1, s.y2),
    )  # fmt: skip
    for name in ("loss", "baseline", "spike"):
        value = float(getattr(theory, name))
        assert abs(run[name].mean - value) < 0.15 * value + 3 * run[name].se, name


def test_domain():
    with pytest.raises(DomainError, match="init_scale = 0"):
        simulate_structured(np.ones(3), np.ones(3), np.ones(3), 2, 2, 1.0, init_scale=0.0, trials=1, seed=0)
