"""Ordinary inputs need no silenced floating-point error: what is silenced is for numbers beyond the range of floats."""

import warnings
from fractions import Fraction

import numpy as np
import pytest

from tlcli.linear import linear_transfer
from tlcli.linear.finetuning import finetune
from tlcli.linear.pretraining import pretrain
from tlcli.status import Status

CALLS = {
    "transfer_exact": {"rho": 0.5, "gamma0": 1.0},
    "transfer_ansatz": {"rho": 0.5, "gamma0": 1.0, "c_signal": 1.0, "c_cross": 0.0, "c_noise": 0.0},
}


@pytest.mark.parametrize("kernel", ["feature", "ntk"])
def test_nothing_is_silenced_at_ordinary_parameters(kernel, monkeypatch):
    bare = {function.__name__: function.__wrapped__ for function in (pretrain, finetune)}  # without their errstate
    for name, function in bare.items():
        monkeypatch.setattr(linear_transfer, name, function)
    axes = {
        "alpha1": [0.05, 0.5, 1.0, 3.0, np.inf],
        "alpha2": [0.05, 0.5, 1.0, 3.0, np.inf],
        "gamma0": [0.0, 0.3, 5.0, np.inf],
        "sigma1": [0.0, 0.4],
        "sigma2": [0.0, 0.4],
        "ridge": [0.0, 0.2],
        "weight_decay": [0.0, 0.2],
        "init_scale": [0.0, 1.0],
        "t1": [0.0, 2.0, np.inf],
        "time": [0.0, 2.0, np.inf],
    }
    rng = np.random.default_rng(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(80):
            point = {name: values[rng.integers(len(values))] for name, values in axes.items()}
            linear_transfer.transfer_exact.__wrapped__(**point, rho=0.6, kernel=kernel)


def test_a_nan_is_silenced_only_where_numbers_are_beyond_floats(monkeypatch):
    """Whole functions ignore overflow, which makes infinity; a nan that is born where none is expected must warn."""
    for function in (pretrain, finetune, linear_transfer.transfer_exact, linear_transfer.transfer_ansatz):
        with np.errstate(all="raise", under="ignore"):
            monkeypatch.setattr(linear_transfer, "check_alignment", lambda *_: np.float64(np.inf) - np.inf)
            monkeypatch.setattr("tlcli.linear.pretraining.check_domain", lambda *_, **__: np.float64(np.inf) - np.inf)
            monkeypatch.setattr("tlcli.linear.finetuning.require", lambda *_, **__: np.float64(np.inf) - np.inf)
            with pytest.raises(FloatingPointError, match="invalid value"):
                function(0.5, 0.5, **({} if function in (pretrain, finetune) else CALLS[function.__name__]))


def test_inputs_at_the_ends_of_the_floats_do_not_warn():
    ends = [5e-324, 1e-300, 1e-160, 1e-8, 1.0, 1e8, 1e160, 1e300, 1.7e308]
    many = {
        **{name: [*ends, np.inf] for name in ("alpha1", "alpha2", "gamma0")},
        "init_scale": [0.0, 0.0, 1e-150, *ends[3:6]],
        "ridge": [0.0, *ends],
    }
    many |= {name: [0.0, 0.0, *ends] for name in ("sigma1", "sigma2", "weight_decay")}
    rng = np.random.default_rng(5)
    for _ in range(300):
        point = {name: values[rng.integers(len(values))] for name, values in many.items()}
        found = linear_transfer.transfer_exact(**point, rho=0.6, time=[np.inf, 1.0, 1e300][rng.integers(3)])
        solved = found.status in (Status.CONVERGED, Status.COLLAPSED)
        assert np.isfinite([found.loss, found.baseline, found.gain]).all() or not solved, point


@pytest.mark.parametrize("away", [2e-12, -2e-12, 5e-12, -5e-12, 1e-11, -1e-11, 1e-6])
def test_losses_close_to_the_threshold_keep_their_digits(away):
    """Noisy regression, ridgeless: 1/(α − 1) above the threshold, 1 − α + α/(1 − α) below, in exact arithmetic."""
    alpha = 1.0 + away
    a = Fraction(alpha)
    expected = 1 / (a - 1) if a > 1 else 1 - a + a / (1 - a)
    found = linear_transfer.transfer_exact(np.inf, alpha, rho=0.5, gamma0=0.0, sigma2=1.0)
    assert float(found.baseline) == pytest.approx(float(expected), rel=1e-14)
    assert float(found.loss) == pytest.approx(float(expected), rel=1e-14)
