"""Readouts on frozen features with any loss: the reference's rows, optimality, and limits that do not exist."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from tests.dmft import losses as zoo
from tlcli.dmft.loss_regression import loss_regression
from tlcli.dmft.regression import kernel_regression
from tlcli.errors import DomainError

Y = np.array([1.0, 1, -1, 1, -1, -1, 1, -1])
C = np.array([0.0, 1, 2, 0, 1, 2, 0, 1])
X = zoo.inputs(11, 5)
Z = X @ X.T / 5
KERNEL = Z + Z**2 / 2
START = np.cos(np.arange(11.0))
CASES = {"K1": ("logistic", Y, 2, 0.0, None), "K2": ("logistic", Y, 2, 0.01, None)}
CASES |= {"K3": ("softmax", C, 3, 0.01, None), "K4": ("logistic", Y, 2, 0.01, START)}


@pytest.mark.parametrize("case", CASES)
def test_rows_of_the_reference(case):
    loss, labels, classes, ridge, start = CASES[case]
    rows = zoo.rows(case)
    times = sorted({row["time"] for row in rows})
    f = loss_regression(
        KERNEL[:8, :8],
        KERNEL[:, :8],
        zoo.objective(loss, labels, classes),
        ridge=ridge,
        time=times,
        f0_train=None if start is None else start[:8],
        f0_points=start,
    )
    assert len(rows) > 8
    for row in zoo.rows(case, "objective"):
        target, train = zoo.objective(loss, labels, classes), f[times.index(row["time"]), :8]
        train = train if target.basis is None else train @ target.basis
        assert target.value(train) / 8 == pytest.approx(row["value"], abs=1e-8)
    for row in rows:
        value = f[times.index(row["time"]), row["index"]]
        assert (value if np.ndim(value) == 0 else value[row["output"]]) == pytest.approx(row["value"], abs=1e-8)


@pytest.mark.parametrize("loss", ["logistic", "softmax", "hinge2", "huber:0.5"])
def test_the_minimum_obeys_its_equation(loss):
    """kappa q = Delta with f = K q (identity 9), for a ridge of each size; weights and smoothing included."""
    classes = 3 if loss == "softmax" else 2
    labels = C if classes == 3 else Y
    target = zoo.objective(
        loss, labels, classes, 0.1 if loss in ("logistic", "softmax") else 0.0, np.linspace(0.5, 1.5, 8)
    )
    for ridge in (1.0, 1e-2, 1e-5):
        f = loss_regression(KERNEL[:8, :8], KERNEL[:, :8], target, ridge=ridge)[0]
        delta = target.force(f[:8] @ target.basis if target.basis is not None else f[:8])
        delta = target.outputs(delta)
        assert np.allclose(KERNEL[:, :8] @ delta / (8 * ridge), f, atol=1e-6 * np.abs(f).max())


def test_the_explicit_flow_of_many_unknowns_is_the_implicit_one():
    """Above 300 unknowns another integrator is used: against an independent solution of the equation for q."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, 30))
    kernel = x @ x.T / 30 + (x @ x.T / 30) ** 2
    target = zoo.objective("softmax", rng.integers(0, 4, 120).astype(float), 4)
    f = loss_regression(kernel, kernel, target, ridge=0.001, time=[0.0, 3.0, 30.0])

    def velocity(t, q):
        q = q.reshape(120, 3)
        return (target.force(kernel @ q) / 120 - 0.001 * q).ravel()

    found = solve_ivp(velocity, (0, 30), np.zeros(360), t_eval=[3.0, 30.0], rtol=1e-9, atol=1e-12, method="DOP853")
    for k in (0, 1):
        assert np.allclose(f[k + 1], target.outputs(kernel @ found.y[:, k].reshape(120, 3)), atol=1e-5)
    assert np.all(f[0] == 0)


def test_squared_error_is_kernel_regression():
    """mse of vectors is every output by itself, at any time."""
    y = np.random.default_rng(1).standard_normal((8, 2))
    times = [1.0, 10.0, np.inf]
    f = loss_regression(KERNEL[:8, :8], KERNEL[:, :8], zoo.objective("mse", y), ridge=0.1, time=times)
    for k in range(2):
        wanted = kernel_regression(KERNEL[:8, :8], KERNEL[:, :8], y[:, k], ridge=0.1, time=times)
        assert np.allclose(f[:, :, k], wanted, atol=1e-8)


def test_limits_that_do_not_exist_are_refused():
    for loss, words in (("logistic", "no finite optimum"), ("hinge2", "depends on its path")):
        with pytest.raises(DomainError, match=words):
            loss_regression(KERNEL[:8, :8], KERNEL[:, :8], zoo.objective(loss, Y, 2))
    smooth = loss_regression(KERNEL[:8, :8], KERNEL[:, :8], zoo.objective("logistic", Y, 2, 0.2))[0]
    assert np.allclose(Y * smooth[:8], np.log(0.9 / 0.1), atol=1e-6)  # the margin of a sure label
