"""The two-time solver says when its time grid is too coarse for the answer."""

import numpy as np
import pytest

from tlcli.status import Status
from tlcli.theories.linear.two_time import two_time_columns


def solve(steps, last):
    times = np.array([0.0, last])
    return two_time_columns({"alpha2": np.array([0.5]), "sigma2": np.array([0.0]), "time": times, "steps": steps})


@pytest.mark.parametrize("last", [1.0, 10.0])
def test_the_default_grid_resolves_the_fastest_mode(last):
    found = solve(None, last)
    assert (found["status"] == Status.CONVERGED).all()
    np.testing.assert_allclose(found["loss"], found["spectral_loss"], atol=1e-4)


def test_a_grid_that_is_too_coarse_is_not_converged():
    found = solve(10, 200.0)
    assert abs(found["loss"][-1] - 0.5) > 1, "the point of the test: the number is nonsense"
    assert found["status"][-1] == Status.NOT_CONVERGED
