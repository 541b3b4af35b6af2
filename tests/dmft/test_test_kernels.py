"""Kernels among test points: closed form before training, and those of points that train only later, after it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tlcli
from tlcli.dmft.activations import activation
from tlcli.dmft.deep.lazy import initial_deep_kernels
from tlcli.dmft.ensemble import Numerics
from tlcli.dmft.network_transfer import solve_transfer
from tlcli.dmft.settings import Wanted
from tlcli.tasks.transfer_tasks import transfer_data
from tlcli.training import TransferSettings

DATA = transfer_data("linear", "hermite:1", dim=2, p1=5, p2=4, ptest=6, rho=0.8, seed=0, draw=0, noise1=0, noise2=0)
# The test points train, after the moment that is looked at.
LATER = replace(DATA, x_target=DATA.x_test, y_target=DATA.y_test_target)
N, M = 6, 5  # test points, and training points before them in LATER

CASES: dict[str, tuple[dict[str, Any], Numerics, float]] = {
    "linear deep": ({"activation": "linear", "depth": 2}, Numerics(), 1e-4),
    "tanh deep": ({"activation": "tanh", "depth": 2}, Numerics(neurons=2000, repeats=4, accuracy=1), 0),
    "tanh by quadrature": ({"activation": "tanh"}, Numerics(population="quadrature", accuracy=0.02), 2e-3),
    "erf": ({"activation": "erf"}, Numerics(population="mc", neurons=4000, repeats=4, accuracy=1), 0),
}


def solved(name, data, test_kernels):
    words, numerics, _ = CASES[name]
    settings = TransferSettings(**words, gamma0=1.5, times1=(0.0, 2.0), times2=(0.5,))
    wanted = Wanted(test_kernels=test_kernels)
    return solve_transfer(data, settings, numerics, kernel_times=(0.0,), wanted=wanted).arrays


def names(name):
    return ("phi", "g", *(f"{w}_layer{k}" for w in ("phi", "g") for k in (1, 2))) if "deep" in name else ("phi", "g")


def key_of(name):
    """The key of a kernel among test points."""
    word, _, layer = name.partition("_")
    return f"{word}_test_{layer}".rstrip("_")


@pytest.mark.parametrize("name", CASES)
def test_test_points_have_the_kernels_of_points_that_train_later(name):
    mine, theirs = solved(name, DATA, True), solved(name, LATER, False)
    rows = slice(M, M + N)
    for word in (*names(name), *(("ntk",) if "deep" in name else ())):
        moment, key = "stage1", key_of(word)
        value, other = mine[f"{key}_{moment}"], theirs[f"{word}_{moment}"][rows, rows]
        error = np.hypot(mine[f"{key}_se_{moment}"], theirs[f"{word}_se_{moment}"][rows, rows])
        assert value.shape == error.shape == (N, N)
        assert np.max(np.abs(value - value.T)) < 1e-5 * np.max(np.abs(value)), "a kernel"
        allowed = CASES[name][2] or 4.5 * np.sqrt(np.mean(error**2))
        assert np.max(np.abs(value - other)) < allowed
        # The twin: the kernel before training is another, beyond what is allowed.
        assert np.max(np.abs(mine[f"{key}_start"] - other)) > 2 * allowed, word


@pytest.mark.parametrize("name", CASES)
def test_before_training_they_are_the_closed_form(name):
    found, (words, _, exact) = solved(name, DATA, True), CASES[name]
    depth = words.get("depth", 1)
    kernels = initial_deep_kernels(activation(words["activation"]), DATA.x_test, DATA.x_test, depth)
    for word, value in (("phi", kernels.phi[-1]), ("g", kernels.g[-1])):
        np.testing.assert_array_equal(found[f"{word}_test_start"], value)
        error = found[f"{word}_test_se_stage1_t0"]
        allowed = exact or 4.5 * np.sqrt(np.mean(error**2))
        assert np.max(np.abs(found[f"{word}_test_stage1_t0"] - value)) < allowed


def test_the_rest_does_not_change_and_they_are_kept_aside():
    more, plain = solved("erf", DATA, True), solved("erf", DATA, False)
    new = more.keys() - plain.keys()
    assert new == {f"{w}_test{e}_{m}" for w in ("phi", "g") for e in ("", "_se") for m in MOMENTS} | {
        "phi_test_start",
        "g_test_start",
    }
    for key, value in plain.items():
        np.testing.assert_array_equal(value, more[key])


MOMENTS = ("stage1_t0", "stage1", "stage2")


def test_commands_keep_them():
    task: dict[str, Any] = {"source": "linear", "dim": 3, "p1": 6, "ptest": 4, "accuracy": 1, "test_kernels": True}
    few: dict[str, Any] = {"neurons": 128, "repeats": 2}
    a = tlcli.pretrain_kernel(**task, **few, model="network", gamma0=0.5, t1=1).arrays
    assert a["phi_test_stage1"].shape == a["g_test_se_stage1"].shape == (4, 4)
    frozen = tlcli.dmft_solve(**task, **few, target="linear", p2=3, gamma0=0.5, gamma2=0, t1=1, t2=1).arrays
    assert frozen["phi_test_stage1"].shape == (4, 4)
    lazy = tlcli.dmft_solve(**task, target="linear", p2=3, gamma0=0, gamma2=0, t1=1, t2=1).arrays
    assert lazy["phi_test_start"].shape == (4, 4)
