"""Labels that are signs in both stages, gains, the best ridge, and where pre-training hurts."""

import numpy as np
import pytest
from scipy.optimize import brentq

from tlcli.errors import DomainError
from tlcli.linear.classify.label_transfer import best_ridge, transfer_labels, transfer_labels_ansatz
from tlcli.linear.classify.readout import classify
from tlcli.linear.classify.source import pretrain_labels
from tlcli.linear.pretraining import pretrain
from tlcli.status import Phase, Status


def test_signs_are_noisy_real_labels():
    """Closed form of docs/averages.md, Section 4, for both sides of the threshold."""
    α, γ, f = np.array([0.5, 3.0]), 2.0, 0.1
    g = 0.8 * np.sqrt(2 / np.pi) / np.sqrt(1 + 0.3**2)
    ν = np.where(α < 1, g**2 * α + (1 - g**2) * α / (1 - α), g**2 + (1 - g**2) / (α - 1))
    x = pretrain_labels(α, γ, sigma1=0.3, flips1=f)
    np.testing.assert_allclose(x.norm2, ν, rtol=1e-13)
    np.testing.assert_allclose(x.overlap, g * np.minimum(1, α), rtol=1e-13)
    np.testing.assert_allclose(x.spike, np.sqrt(1 + γ**2 * ν) - 1, rtol=1e-13)
    np.testing.assert_allclose(x.n_signal, g * np.minimum(1, α) / np.sqrt(ν), rtol=1e-13)
    clean = pretrain_labels(np.inf, γ)
    assert clean.norm2 == pytest.approx(2 / np.pi)
    assert clean.n_signal == pytest.approx(1)


def test_real_labels_are_those_of_regression():
    ours, theirs = pretrain_labels(0.5, 2.0, labels="real", sigma1=0.3), pretrain(0.5, 2.0, sigma1=0.3)
    assert (ours.spike, ours.n_signal) == (theirs.spike, theirs.n_signal)
    with pytest.raises(DomainError, match=r"flips1 = 0\.1 needs labels that are signs"):
        pretrain_labels(0.5, 2.0, labels="real", flips1=0.1)


@pytest.mark.parametrize("rest", [{"weight_decay": 0.1}, {"t1": 2.0}])
def test_a_teacher_of_another_length_is_another_richness(rest):
    """The limit of nearly real labels: large noise before the sign makes them g β·x plus noise of variance near 1."""
    found = pretrain_labels(0.7, 3.0, sigma1=0.5, **rest)
    g = np.sqrt(2 / np.pi) / np.sqrt(1.25)
    same = pretrain(0.7, 3.0 * g, sigma1=np.sqrt(1 - g**2) / g, **rest)
    assert found.norm2 == pytest.approx(g**2 * same.norm2, rel=1e-12)
    assert found.spike == pytest.approx(same.spike, rel=1e-12)


@pytest.mark.parametrize(
    ("α1", "γ", "ρ", "f1", "α2", "λ", "loss", "f2", "n1", "spike", "gain"),
    [
        (0.5, 3, 0.8, 0, 1, 0.01, "logistic", 0, 0.4832, 1.671, 0.01143),
        (3, 2, 0.7, 0.1, 0.7, 0.05, "logistic", 0.1, 0.7609, 0.953, 0.01690),
        (0.8, 5, 0.9, 0, 0.5, 0.02, "square", 0, 0.4556, 6.08, 0.01885),
        (2, 1, 1, 0, 1.5, 0.001, "logistic", 0.05, 0.7979, 0.4142, 0.01129),
    ],
)
def test_the_whole_way(α1, γ, ρ, f1, α2, λ, loss, f2, n1, spike, gain):
    x = transfer_labels(α1, α2, rho=ρ, gamma0=γ, flips1=f1, flips2=f2, ridge=λ, loss=loss)
    assert x.pretrained is not None
    assert x.pretrained.n_signal == pytest.approx(n1, abs=6e-5)
    assert x.pretrained.spike == pytest.approx(spike, rel=2e-3)
    assert x.gain == pytest.approx(gain, abs=6e-6)
    assert x.phase == Phase.POSITIVE


CRITICAL = [
    ("logistic", 0.1, 10, 10, 0.505556),
    ("logistic", 0.1, 1, 30, 0.645886),
    ("logistic", 1, 1, 1000, 0.995640),
    ("logistic", 1, 10, 3, 0.539083),
    ("square", 1, 10, 10, 0.691587),
    ("square", 1, 1, 30, 0.764283),
    ("hinge", 1, 10, 3, 0.261956),
    ("hinge", 1, 1, 10, 0.383836),
]


@pytest.mark.parametrize(("loss", "λ", "χ", "α2", "expected"), CRITICAL)
def test_critical_alignment(loss, λ, χ, α2, expected):
    baseline = classify(α2, loss=loss, ridge=λ, flips=0.1).error

    def gain(r):
        return float(baseline - classify(α2, [χ], [r * r], loss=loss, ridge=λ, flips=0.1).error)

    assert brentq(gain, 0.05, 0.999) == pytest.approx(expected, abs=1e-6)


def test_without_ridge_or_with_the_margin_pre_training_never_hurts():
    α, r2 = np.geomspace(0.05, 50, 12)[:, None], np.linspace(0.02, 0.98, 7) ** 2
    for kwargs in ({"loss": "margin"}, {"ridge": 0.01}, {"loss": "square", "ridge": 0.0}):
        baseline, found = classify(α, flips=0.1, **kwargs), classify(α, [10.0], [r2], flips=0.1, **kwargs)
        gain = baseline.error - found.error
        assert not np.any(gain < -1e-9)
        assert np.any(gain > 1e-3)
    hurt = classify(α, ridge=0.5, flips=0.1).error - classify(α, [10.0], [r2], ridge=0.5, flips=0.1).error
    assert hurt.min() < -0.01


BEST = {
    "logistic": (1.88, 0.24909, 0.305, 0.30929),
    "square": (7.9, 0.24909, 1.45, 0.30898),
    "hinge": (3.6, 0.25119, 0.99, 0.31210),
}


@pytest.mark.parametrize("loss", BEST)
def test_the_best_ridge_is_each_kernels_own(loss):
    x = transfer_labels_ansatz(
        1.0, 1.0, rho=0.6, gamma0=1.0, c_signal=4.0, c_cross=0.0, c_noise=0.0, flips2=0.1, loss=loss, ridge=None
    )
    ridge, error, ridge0, error0 = BEST[loss]
    assert x.ridge == pytest.approx(ridge, rel=2e-2)  # the minimum is flat
    assert x.baseline_ridge == pytest.approx(ridge0, rel=2e-2)
    assert x.target.error == pytest.approx(error, abs=6e-6)
    assert x.baseline.error == pytest.approx(error0, abs=6e-6)
    near = [classify(1.0, [4.0], [0.36], loss=loss, ridge=x.ridge * y, flips=0.1).error for y in (0.97, 1.03)]
    assert min(near) > x.target.error


def test_best_ridge_of_a_grid_is_that_of_its_points():
    α = np.array([0.5, 2.0])
    both = best_ridge("logistic", α[:, None], [4.0], [np.array([0.1, 0.5])], bulk=1.0, flips=0.1)
    assert both.shape == (2, 2)
    one = best_ridge("logistic", 2.0, [4.0], [0.5], bulk=1.0, flips=0.1)
    assert both[1, 1] == pytest.approx(float(one), rel=1e-4)


def test_source_size_away_from_the_threshold_is_best():
    α1 = np.array([0.7, 0.99, 1.0, 1.01, 4.0])
    x = transfer_labels(α1, 0.5, rho=0.8, gamma0=3.0, ridge=0.1)
    assert x.gain[2] == pytest.approx(0, abs=1e-3)  # features are noise: no alignment at all
    assert x.gain[1] < x.gain[0]
    assert x.gain[3] < x.gain[4]
    assert x.status[2] == Status.DIVERGED
    assert np.isfinite(x.target.error).all()


def test_nothing_changes_without_features_and_under_reflection():
    lazy = transfer_labels(0.5, 1.0, rho=0.8, gamma0=0.0, ridge=0.1)
    assert lazy.gain == pytest.approx(0, abs=1e-10)
    assert lazy.phase == Phase.NEUTRAL
    plus, minus = (transfer_labels(0.5, 1.0, rho=r, gamma0=2.0, ridge=0.1).gain for r in (0.8, -0.8))
    assert plus == pytest.approx(float(minus), abs=1e-10)


def test_collapse_and_vanishing_kernels():
    x = transfer_labels(1.0, 0.5, rho=0.8, gamma0=0.1, weight_decay=5.0, ridge=0.1)
    assert (x.status, x.phase, x.target.error) == (Status.COLLAPSED, Phase.COLLAPSED, 0.5)
    rich = transfer_labels(2.0, 0.5, rho=0.8, gamma0=np.inf, ridge=0.1)
    assert np.isfinite(rich.gain)
    ultra = transfer_labels(2.0, 0.5, rho=0.8, gamma0=1.0, init_scale=0.0, ridge=0.1)
    assert ultra.target.error == pytest.approx(np.arccos(0.8 * float(ultra.pretrained.n_signal)) / np.pi)
    assert ultra.baseline.error == 0.5


def test_flips_of_both_stages_have_their_names():
    for name in ("flips1", "flips2"):
        with pytest.raises(DomainError, match=rf"{name} = 0\.5 is not allowed"):
            transfer_labels(1.0, 1.0, rho=0.5, gamma0=1.0, **{name: 0.5})
