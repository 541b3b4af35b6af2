"""Whitened data with other losses: reference case B3, the general linear solver on identity inputs, refusals."""

from typing import Any

import numpy as np
import pytest

from tests.bayes.loss_problems import objective, reference
from tlcli.bayes.linear_losses import linear_loss_source, linear_loss_target
from tlcli.bayes.whitened import whitened
from tlcli.bayes.whitened_losses import whitened_losses
from tlcli.errors import DomainError, UsageError
from tlcli.losses import loss_of

B3: dict[str, Any] = {
    "gamma1": 1.5,
    "gamma2": 1.0,
    "beta1": 4.0,
    "beta2": 3.0,
    "delta": 1.5,
    "points1": 6.0,
    "points2": 6.0,
}


def test_case_b3():
    for case in ("decoupled", "same"):
        found = whitened_losses(case, loss_of("logistic"), **B3)
        assert found["status"]
        for name, quantity, stage in (
            ("source_margin", "m1", 1),
            ("lam_source", "lambda1", 1),
            ("margin", f"m2_{case}", 2),
            ("k22", f"lambda2_{case}", 2),
        ):
            assert found[name] == pytest.approx(reference("B3", stage, quantity)[0][0], rel=1e-9)


@pytest.mark.parametrize("text", ["hinge2", "huber", "mse"])
@pytest.mark.parametrize("case", ["same", "decoupled"])
def test_nearly_no_noise_is_that_of_the_squared_error(case, text):
    """Margins 1 - w/β of w/β = 1e-9: the squared error has them in closed form."""
    more = {"gamma1": 1.2, "gamma2": 0.8, "beta1": 1e9, "beta2": 1e10, "delta": 0.7}
    found = whitened_losses(case, loss_of(text), **more, points1=6.0, points2=6.0)
    exact = whitened(case, **more, norm1=6.0, norm2=6.0)
    assert found["status"]
    for name in ("lam_source", "q", "u", "k22", "k12", "k11", "free_energy"):
        assert found[name] == pytest.approx(exact[name], rel=1e-9), name
    small = whitened_losses(
        case, loss_of("huber:0.2"), **{**more, "beta1": 0.1, "beta2": 0.1}, points1=6.0, points2=6.0
    )
    assert small["status"], "the linear part of huber"
    assert 1 - small["margin"] > 0.2


@pytest.mark.parametrize(
    ("text", "smoothing", "classes"),
    [("logistic", 0.0, 2), ("logistic", 0.2, 2), ("hinge2", 0.0, 2), ("softmax", 0.0, 3), ("softmax", 0.3, 3)],
)
@pytest.mark.parametrize("delta", [0.0, 0.6, np.inf])
def test_it_is_the_general_solver_on_identity_inputs(text, smoothing, classes, delta):
    """Six points that are orthonormal, and for decoupled tasks six others beside them."""
    labels = np.tile(np.arange(3), 2) if classes == 3 else np.array([1.0, -1, 1, 1, -1, 1])
    goal = objective(text, labels, classes, smoothing)
    x = np.sqrt(12) * np.eye(12)
    more = {**B3, "delta": delta, "gamma2": 0.8, "classes": classes}
    source = linear_loss_source(x, np.arange(6), goal, more["gamma1"], more["beta1"])
    for case, rows in (("same", np.arange(6)), ("decoupled", np.arange(6, 12))):
        found = whitened_losses(case, loss_of(text, smoothing), **more)
        target = linear_loss_target(x, rows, goal, more["gamma2"], more["beta2"], delta, source)
        f = target.outputs[rows[0]]
        margin = f[0] - f[1] if classes == 3 else f
        assert found["margin"] == pytest.approx(margin, rel=1e-9)
        assert found["free_energy"] == pytest.approx(target.free_energy, rel=1e-9)
        y = labels if classes == 2 else np.eye(3)[labels] - 1 / 3
        y = y.reshape(6, -1) / np.linalg.norm(y)
        overlap = np.trace(y.T @ target.kernel[np.ix_(rows, rows)] @ y)
        assert found["k22"] == pytest.approx(overlap, rel=1e-9)
        first = np.arange(6)
        assert found["k11"] == pytest.approx(np.trace(y.T @ target.kernel[np.ix_(first, first)] @ y), rel=1e-9)


def test_the_squared_error_is_that_of_its_own_equations():
    grid = {**B3, "delta": np.array([0, 0.5, 3, np.inf])[:, None], "gamma2": np.array([0.0, 0.3, 2.0])}
    found = whitened_losses("same", loss_of("mse"), **grid)
    points = {"norm1": grid.pop("points1"), "norm2": grid.pop("points2")}
    expected = whitened("same", **grid, **points)
    for name in ("lam_source", "q", "k22", "k12", "k11", "perp", "free_energy"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(6 * found["train_loss"], expected["train_loss"], rtol=1e-8)


def test_strong_tilts_are_solved_and_bad_values_refused():
    wide = {**B3, "gamma1": [0.0, 1e-3, 1e3], "beta1": 1e6, "delta": [[0.0], [1e-6], [1e6]]}
    assert whitened_losses("same", loss_of("logistic"), **wide)["status"].all()
    with pytest.raises(DomainError, match="beta = inf: logistic has no posterior without noise"):
        whitened_losses("same", loss_of("logistic"), **{**B3, "beta1": np.inf})
    with pytest.raises(DomainError, match=r"6 and 5 points .* the same data have as many in both tasks"):
        whitened_losses("same", loss_of("logistic"), **{**B3, "points2": 5.0})
    with pytest.raises(UsageError, match="labels"):
        whitened_losses("labels", loss_of("logistic"), **B3)
