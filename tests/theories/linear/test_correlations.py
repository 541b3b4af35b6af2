"""Correlations of the error, as arrays of a result."""

from typing import Any

import numpy as np
import pytest

import tlcli
from tlcli.errors import UsageError

POINT: dict[str, Any] = {"alpha1": 0.5, "alpha2": [0.4, 0.7], "rho": 0.8, "rho_xi": 0.1}


def test_the_error_at_the_end_and_in_time():
    end = tlcli.finetune_loss(**POINT, gamma0=[3, np.inf], sigma2=0.2, correlations=True)
    assert end.arrays["error_signal"].shape == end.shape == (2, 2)
    assert "corr_v" not in end.arrays
    timed = tlcli.finetune_loss(**POINT, gamma0=[3, 10], sigma2=0.2, times=[0, 2, 2000], correlations=True)
    arrays = timed.arrays
    assert arrays["corr_v"].shape == (2, 2, 3, 3)
    assert arrays["remaining"].shape == (2, 2, 2, 3)
    np.testing.assert_array_equal(arrays["t"], [0, 2, 2000])
    np.testing.assert_allclose(np.diagonal(arrays["corr_v"], axis1=-2, axis2=-1), timed["loss"], atol=1e-7)
    np.testing.assert_allclose(np.diagonal(arrays["corr_delta"], axis1=-2, axis2=-1), timed["train_loss"], atol=1e-7)
    np.testing.assert_allclose(arrays["error_signal"][..., 0], 0.8)
    np.testing.assert_allclose(arrays["error_noise"][..., 0], 0.1)
    np.testing.assert_allclose(arrays["error_signal"][:, 0, 2], end.arrays["error_signal"][:, 0], atol=1e-6)


def test_the_ansatz_with_the_exact_constants_says_the_same():
    exact = tlcli.finetune_loss(**POINT, gamma0=3, ridge=0.1, correlations=True)
    c: dict[str, Any] = {name: float(exact[name][0]) for name in ("c_signal", "c_cross", "c_noise")}
    ansatz = tlcli.finetune_loss(solver="linear-ansatz", **POINT, gamma0=3, ridge=0.1, correlations=True, **c)
    for name in ("error_signal", "error_noise"):
        np.testing.assert_allclose(ansatz.arrays[name], exact.arrays[name], rtol=1e-9)
        assert np.all(np.abs(exact.arrays[name]) > 0.01)


def test_a_scale_free_kernel_needs_no_time():
    r = tlcli.finetune_loss(**POINT, gamma0=np.inf, kernel="ntk", times=[1, 2], ridge=0.3, correlations=True)
    end = tlcli.finetune_loss(**POINT, gamma0=np.inf, kernel="ntk", correlations=True)
    np.testing.assert_allclose(r.arrays["error_signal"][:, 1], end.arrays["error_signal"], rtol=1e-12)


def test_what_is_not_asked_for_is_not_written():
    assert tlcli.finetune_loss(**POINT).arrays == {}
    with pytest.raises(UsageError, match="linear-joint does not use 'correlations'"):
        tlcli.finetune_loss(solver="linear-joint", correlations=True, t1=1, t2=1)
    with pytest.raises(UsageError, match="numbers; take fewer --times or points"):
        tlcli.finetune_loss(alpha2=np.linspace(0.1, 0.9, 200), times=np.linspace(0, 1, 600), correlations=True)
