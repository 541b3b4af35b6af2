"""Boundaries are roots of the gain, not contours of the table; the best richness is the best of all."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tlcli.errors import UsageError
from tlcli.options import OPTIONS
from tlcli.theories.search import best_value, boundaries, effect_ends, sought


def gain_of(case):
    return np.broadcast_to(case.theory.evaluate(case.parameters())["gain"], case.grid.shape)


def edges(case, axis):
    return boundaries(case, axis, case.grid.values[axis].scale == "log", gain_of(case))


def gain_at(case, found):
    """The solver's gain at the boundary points, evaluated anew."""
    here = {name: v.array[0] for name, v in case.grid.values.items() if name not in case.grid.axes}
    columns = case.theory.evaluate({**case.words, **here, **found.values})
    return columns["gain"]


CASES = [
    ({"weight_decay": "0.3", "sigma1": "0.2", "alpha1": "0.5,3"}, "alpha2=0.02:0.98:20", "gamma0=log:0.5:20:12"),
    ({"kernel": "ntk", "ridge": "0.3", "alpha1": "0.6", "sigma2": "0.6"}, "rho=0:1:13", "gamma0=log:0.1:20:9"),
    ({"solver": "linear-ansatz", "alpha1": "0.5", "rho_xi": "0.5", "c_signal": "alpha1*gamma0"}, "alpha2", "rho"),
    ({"init_scale": "0", "sigma1": "0.1"}, "alpha1=0.1:2:9", "alpha2=0.05:0.95:10"),
    ({"solver": "linear-structured", "dim": 80, "ridge": "0.1", "sigma1": "0.3", "rho": "0.2"}, "p1", "p2"),
]
GRIDS = {"alpha2": "0.02:0.98:20", "rho": "0.05:0.8:6", "p1": "10:150:8", "p2": "10:90:6"}


@pytest.mark.parametrize(("settings", "x", "y"), CASES, ids=range(len(CASES)))
def test_the_gain_is_zero_on_the_boundary(case, settings, x, y):
    names = [text.partition("=")[0] for text in (x, y)]
    grids = [text if "=" in text else f"{text}={GRIDS[text]}" for text in (x, y)]
    if settings.get("solver") == "linear-ansatz":
        settings = {**settings, "c_cross": "sqrt(alpha1*(1-alpha1))*gamma0", "gamma0": "3"}
    found_case = case("phase-diagram", x=grids[0], y=grids[1], **settings)
    gain = gain_of(found_case)
    for axis in names:
        found = edges(found_case, axis)
        assert found is not None
        assert found.along == axis
        assert set(found.values) == set(found_case.grid.axes)
        assert np.abs(gain_at(found_case, found)).max() < 1e-10
        # As many roots as sign changes in the table, each between its two neighbours.
        position = found_case.grid.axes.index(axis)
        sign = np.moveaxis(np.sign(gain), position, -1)
        assert len(found.values[axis]) == np.count_nonzero(sign[..., 1:] * sign[..., :-1] < 0)


def test_the_rank_one_boundary_is_its_formula(case):
    found_case = case("phase-diagram", x="alpha2=0.02:0.98:9", y="rho=0.1:1:10", init_scale="0", alpha1="0.7")
    found = edges(found_case, "alpha2")
    np.testing.assert_allclose(found.values["alpha2"], 0.7 * found.values["rho"] ** 2, rtol=1e-12)
    np.testing.assert_allclose(found.values["rho"], np.linspace(0.1, 1, 10)[1:], rtol=1e-15)


def test_no_boundary_where_transfer_always_helps(case):
    assert edges(case("phase-diagram", x="alpha2=0.1:0.9:9", y="gamma0=0.5:5:5", alpha1="inf"), "alpha2") is None


def test_infinite_values_and_zero_are_no_ends_of_a_bracket(case):
    found_case = case("phase-diagram", x="alpha1=0.1,0.5,2,inf", y="gamma0=0,0.3,1,5,inf", weight_decay="0.5")
    for axis in ("alpha1", "gamma0"):
        found = edges(found_case, axis)
        assert found is None or np.all(np.isfinite(found.values[axis]))
    only = case("phase-diagram", x="alpha1=2,inf", y="rho=0:1:5", weight_decay="0.5")
    assert edges(only, "alpha1") is None


def test_grids_may_fall(case):
    rising = case("phase-diagram", x="alpha2=0.05:0.95:9", y="rho=0.2:1:5", init_scale="0", alpha1="0.7")
    falling = case("phase-diagram", x="alpha2=0.95:0.05:9", y="rho=0.2:1:5", init_scale="0", alpha1="0.7")
    one, other = (edges(c, "alpha2") for c in (rising, falling))
    np.testing.assert_allclose(one.values["alpha2"], other.values["alpha2"], rtol=1e-12)


def test_a_gain_that_differs_at_zero_alone_jumps_there(case):
    """However small a positive init_scale is, its square must not become a zero while a root is looked for."""
    found_case = case("phase-diagram", x="alpha2=0.5:0.9:5", y="init_scale=0,0.001,0.1", alpha1="0.5")
    found = edges(found_case, "init_scale")
    np.testing.assert_array_equal(found.values["init_scale"], 0)
    assert set(found.kind) == {"jump"}
    np.testing.assert_allclose(found.values["alpha2"], [0.5, 0.6, 0.7, 0.8, 0.9])


def test_interpolation_thresholds_do_not_disturb(case):
    found_case = case(
        "phase-diagram", x="alpha2=0.2:1.8:9", y="gamma0=1,5", weight_decay="0.3", sigma2="0.5", alpha1="0.5"
    )
    assert not np.all(np.isfinite(gain_of(found_case)))
    found = edges(found_case, "alpha2")
    assert np.abs(gain_at(found_case, found)).max() < 1e-9


def test_the_best_richness_against_brute_force(case):
    settings = {"kernel": "ntk", "ridge": "3", "sigma2": "1", "rho": "0.3", "alpha1": "0.5,2"}
    found_case = case("phase-diagram", x="alpha2=0.2,0.8,1.5", y="gamma0=1,2", **settings)
    best = best_value(found_case, "gamma0", "loss")
    assert best["gamma0_opt"].shape == best["loss_opt"].shape
    gamma_axis = found_case.grid.axes.index("gamma0")
    optimum = np.moveaxis(best["gamma0_opt"], gamma_axis, -1)[..., 0]
    loss = np.moveaxis(best["loss_opt"], gamma_axis, -1)[..., 0]
    dense = np.concatenate([[0], np.geomspace(1e-4, 1e4, 40_001), [math.inf]])
    others = [name for name in found_case.grid.axes if name != "gamma0"]
    interior = 0
    for index in np.ndindex(optimum.shape):
        at = {name: found_case.grid.values[name].array[i] for name, i in zip(others, index, strict=True)}
        here = {name: v.array[0] for name, v in found_case.grid.values.items() if v.size == 1}
        losses = found_case.theory.evaluate({**found_case.words, **here, **at, "gamma0": dense})["loss"]
        best_index = int(np.argmin(losses))
        assert loss[index] <= losses[best_index] + 1e-14
        assert loss[index] == pytest.approx(losses[best_index], rel=1e-7)
        exactly = found_case.theory.evaluate({**found_case.words, **here, **at, "gamma0": optimum[index]})["loss"]
        assert loss[index] == pytest.approx(float(exactly), rel=1e-12)
        if 0 < best_index < len(dense) - 1:
            interior += 1
            assert optimum[index] == pytest.approx(dense[best_index], rel=1e-3)
        else:
            assert optimum[index] == dense[best_index]
    assert interior >= 3


def test_the_best_richness_of_the_ansatz_stays_admissible(case):
    settings = {"alpha1": "0.5", "c_signal": "0", "c_cross": "gamma0*alpha1", "rho": "0.5", "rho_xi": "0.5"}
    found_case = case("phase-diagram", solver="linear-ansatz", x="alpha2=0.1,0.9", y="gamma0=0.5,1", **settings)
    best = best_value(found_case, "gamma0", "loss")
    # More always helps here, up to c_cross^2 = (k + c_signal)(k + c_noise) = 1.
    np.testing.assert_allclose(best["gamma0_opt"], 2, rtol=1e-12)
    assert np.all(best["gamma0_opt"] <= 2)
    # Between two ends, neither of them 0.
    settings |= {"c_signal": "0.5-gamma0*alpha1", "c_cross": "1.2", "bulk": "1", "c_noise": "gamma0*gamma0"}
    found_case = case("phase-diagram", solver="linear-ansatz", x="alpha2=0.1,0.9", y="gamma0=0.9,1", **settings)
    best = best_value(found_case, "gamma0", "loss")
    gamma0 = best["gamma0_opt"]
    assert np.all((1.5 - 0.5 * gamma0) * (1 + gamma0**2) >= 1.44)
    dense = np.linspace(0, 3, 30_001)[:, None, None]
    losses = found_case.theory.search({**found_case.parameters(), "gamma0": dense})["loss"]
    assert np.all(best["loss_opt"] <= np.nanmin(losses, axis=0) + 1e-12)


def test_the_best_richness_of_the_paper_s_figure(case):
    """An optimum inside, but so near the end of the admissible richness that a coarse grid does not bracket it."""
    settings = {"alpha1": "0.5", "rho": "0.8", "rho_xi": "0.1", "c_signal": "alpha1*gamma0"}
    settings |= {"c_cross": "sqrt(alpha1*(1-alpha1))*gamma0", "gamma0": "0:3.2:801"}
    found_case = case(solver="linear-ansatz", alpha2="0.1,0.3,0.5", **settings)
    losses = found_case.theory.evaluate(found_case.parameters())["loss"]
    best = best_value(found_case, "gamma0", "loss")
    assert np.all(best["loss_opt"][:, 0] <= losses.min(axis=1) + 1e-14)
    assert best["gamma0_opt"][0, 0] == pytest.approx(1 + math.sqrt(5)), "the end"
    assert best["gamma0_opt"][1, 0] == pytest.approx(np.linspace(0, 3.2, 801)[losses[1].argmin()], abs=0.004)


def test_the_best_richness_without_a_gamma0_axis(case):
    found_case = case(alpha2="0.3,0.6", alpha1="0.5", kernel="ntk", ridge="3", sigma2="1", rho="0.3")
    best = best_value(found_case, "gamma0", "loss")
    assert best["gamma0_opt"].shape == (2,)
    assert np.all(best["loss_opt"] <= found_case.theory.evaluate(found_case.parameters())["loss"] + 1e-14)


def test_a_search_is_never_worse_than_the_grid_that_it_belongs_to(case):
    """Over grids near the threshold, with decay and noise, where the optimum is a narrow dip or an end."""
    rng = np.random.default_rng(4)
    for _ in range(12):
        alpha1, rho, decay = rng.choice([0.3, 0.6, 1.4]), rng.uniform(-1, 1), rng.choice([0.0, 0.4])
        found_case = case(
            alpha1=float(alpha1), alpha2="0.3,0.9999,1.0001,1.5", rho=float(rho), gamma0="0,0.01,0.3,1,5,inf",
            sigma1="0.3", sigma2="0.3", weight_decay=float(decay), optimal_gamma0=True,
        )  # fmt: skip
        best = best_value(found_case, "gamma0", "loss")
        losses = np.broadcast_to(found_case.theory.evaluate(found_case.parameters())["loss"], found_case.grid.shape)
        assert np.all(best["loss_opt"] <= losses)


def test_the_behaviour_of_an_axis_belongs_to_its_option(case, monkeypatch):
    """Another parameter whose ends are values like any other is searched as delta is, and no other word changes."""
    found = case(alpha1="0.5", alpha2="0.4", rho="0.5,0.9", gamma0="1", x="rho")
    unasked: dict[str, Any] = dict.fromkeys(("optimal_gamma0", "optimal_delta", "optimal_rho"))
    assert sought(False, found, unasked) == []
    monkeypatch.setitem(OPTIONS, "rho", replace(OPTIONS["rho"], best=True, ends=True))
    assert sought(False, found, unasked) == ["rho"]
    assert sought(False, found, {**unasked, "optimal_rho": False}) == []
    with pytest.raises(UsageError, match="it finds the best rho, --optimal-rho"):
        sought(False, found, {**unasked, "optimal_gamma0": True})
    with pytest.raises(UsageError, match="--optimal-delta: linear-exact has no delta"):
        sought(False, found, {**unasked, "optimal_delta": True})


def test_a_loss_that_falls_for_ever_is_best_at_infinity_although_its_constants_are_infinite_there(case):
    found = case(
        "finetune-loss", solver="linear-ansatz", c_signal="5*gamma0", c_noise="2", alpha2="0.1,0.5", gamma0="1,3"
    )
    best = best_value(found, "gamma0", "loss")
    assert np.isinf(best["gamma0_opt"]).all()
    near = case(
        "finetune-loss", solver="linear-ansatz", c_signal="5*gamma0", c_noise="2", alpha2="0.1,0.5", gamma0="1e9"
    )
    loss = np.broadcast_to(near.theory.evaluate(near.parameters())["loss"], near.grid.shape)
    np.testing.assert_allclose(best["loss_opt"].ravel(), loss.ravel(), rtol=1e-7)


def test_maps_of_closed_forms_have_the_best_richness_unasked(case):
    unasked: dict[str, Any] = dict.fromkeys(("optimal_gamma0", "optimal_delta"))
    structured = {"solver": "linear-structured", "dim": 40, "x": "p2=5,20", "y": "gamma0=1,10"}
    for settings in (structured, {"x": "alpha2=0.2,0.5", "y": "gamma0=1,10"}):
        found = case("phase-diagram", **settings)
        assert sought(True, found, unasked) == ["gamma0"]
        assert sought(False, found, unasked) == []
        assert sought(True, found, {**unasked, "optimal_gamma0": False}) == []
    assert sought(True, case("phase-diagram", **structured), {**unasked, "style": "curves"}) == []


def test_the_effect_ends_where_the_gain_becomes_zero(case):
    """With as much data as directions a ridgeless readout is fixed by them, and so is a lazy one with any."""
    one = case("finetune-loss", alpha1="0.5", alpha2="0.2:1.7:4", gamma0="0,5", rho="0.5,0.9")
    assert list(one.grid.axes) == ["alpha2", "rho", "gamma0"]
    found = effect_ends(one, "alpha2", 0.7, 1.2)
    assert found is not None
    assert found.shape == (2, 2)
    np.testing.assert_allclose(found[:, 1], 1.0, atol=1e-3)
    assert np.isnan(found[:, 0]).all(), "a lazy one has no effect that could end"
    lazy = effect_ends(one, "gamma0", 5.0, 0.0)
    assert lazy is not None
    assert lazy[:2].ravel().tolist() == [0.0] * 4, "at 0 itself, not where rounding hides it"
    assert effect_ends(one, "gamma0", 5.0, math.inf) is None
    joint = case("phase-diagram", solver="linear-joint", x="gamma0=1,2", y="rho=0.5,0.9", t1="2", t2="2")
    assert effect_ends(joint, "rho", 0.9, 0.5) is None, "too costly"
