"""Φ(t, t′) and G(t, t′) against many neurons followed by plain gradient descent, and against kernels at one time."""

from typing import Any

import numpy as np
import pytest

import tlcli
from tlcli.errors import UsageError

TASK: dict[str, Any] = {
    "source": "linear",
    "target": "hermite:1",
    "dim": 3,
    "p1": 5,
    "p2": 4,
    "ptest": 5,
    "gamma0": 1.5,
}


def neurons(arrays, size=12_000, dt=0.05):
    """φ and φ'a of `size` neurons at t = 0, 1, 2 of both stages, trained by Euler steps on the same points."""
    x1, y1, x2, y2 = arrays
    rng = np.random.default_rng(5)
    w, a = rng.standard_normal((size, 3)), rng.standard_normal(size)
    x, shown = np.concatenate([x1, x2]) / np.sqrt(3), []
    for at, y in ((slice(0, 5), y1), (slice(5, 9), y2)):
        for step in range(int(2 / dt) + 1):
            phi = np.tanh(w @ x.T)
            slope = 1 - phi**2
            if step % int(1 / dt) == 0:
                shown.append((phi, slope * a[:, None]))
            error = (y - phi[:, at].T @ a / (1.5 * size)) / len(y)
            step_a = 1.5 * phi[:, at] @ error
            w += dt * 1.5 * (a[:, None] * slope[:, at] * error) @ x[at]
            a += dt * step_a
    return shown


@pytest.fixture(scope="module")
def result():
    return tlcli.dmft_solve(
        **TASK, times=[0, 1, 2], kernels=[0, 1], two_time=True, accuracy=0.5, neurons=2048, repeats=4
    )


def test_kernels_between_two_times_are_those_of_the_neurons(result):
    from tlcli.tasks.transfer_tasks import transfer_data

    a = result.arrays
    data = transfer_data("linear", "hermite:1", dim=3, p1=5, p2=4, ptest=5, rho=0.8, seed=0, draw=0, noise1=0, noise2=0)
    np.testing.assert_array_equal(data.y_source, a["y_source"])
    shown = neurons((data.x_source, data.y_source, data.x_target, data.y_target))
    np.testing.assert_array_equal(a["two_time_stage"], [1, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(a["two_time_t"], [0, 1, 2, 0, 1, 2])
    for part, name in enumerate(("phi_two_time", "g_two_time")):
        for i in range(6):
            for j in range(6):
                product = shown[i][part][:, :, None] * shown[j][part][:, None, :]
                se = np.hypot(product.std(axis=0) / np.sqrt(len(product)), a[f"{name}_se"][i, j])
                away = np.abs(a[name][i, j] - product.mean(axis=0))
                assert np.all(away < 5 * se + 0.02), "five standard errors, and Euler steps of 0.05"
    # The twin: the kernel at one of the two times is another.
    late = shown[5][0][:, :, None] * shown[5][0][:, None, :]
    assert np.max(np.abs(a["phi_two_time"][5, 0] - late.mean(axis=0))) > 0.1


def test_one_time_twice_is_the_kernel_there(result):
    a = result.arrays
    for at, word in ((1, "stage1_t1"), (2, "stage1"), (5, "stage2")):
        for name in ("phi", "g"):
            np.testing.assert_allclose(a[f"{name}_two_time"][at, at], a[f"{name}_{word}"][:9], atol=1e-5)
    np.testing.assert_array_equal(a["phi_two_time"][1, 4], a["phi_two_time"][4, 1].T)
    for name in ("phi", "g"):  # nothing moves at the switch
        np.testing.assert_allclose(a[f"{name}_two_time"][2, 3], a[f"{name}_two_time"][2, 2], atol=1e-5)


def test_a_redrawn_readout_knows_nothing_of_the_old_one():
    words: dict[str, Any] = {"times": [0, 1], "kernels": [0], "readout": "reset", "two_time": True, "accuracy": 1}
    a = tlcli.dmft_solve(**TASK, **words, neurons=256, repeats=2).arrays
    assert a["phi_two_time"].shape == (4, 4, 9, 9)
    np.testing.assert_allclose(a["g_two_time"][2, 1], 0, atol=1e-6)
    np.testing.assert_allclose(a["phi_two_time"][2, 1], a["phi_two_time"][1, 1], atol=1e-6)
    assert np.abs(a["g_two_time"][3, 1]).max() > 0.1, "later it is trained on what the old one has made"


def test_without_a_rich_stage_there_is_less():
    a = tlcli.dmft_solve(**{**TASK, "gamma0": 0}, gamma2=1, t1=1, t2=1, two_time=True, accuracy=1, neurons=256).arrays
    np.testing.assert_array_equal(a["two_time_stage"], [2])
    assert np.isfinite(a["phi_two_time"]).all()


def test_what_has_none_is_refused():
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"loss": "huber:1"}, "leave out --loss huber:1, or --two-time"),
        ({"p1": 3000}, "more than 4e"),
    )
    for words, text in refused:
        with pytest.raises(UsageError, match=text):
            tlcli.dmft_solve(**(TASK | words), t1=1, t2=1, two_time=True)
