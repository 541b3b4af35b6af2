"""Stated against true errors of deep networks: time steps and truncation of the basis are part of every error."""

from unittest.mock import patch

import numpy as np
import pytest

from benchmarks.deep_errors import LOSSES, cases, coverage, truth_of
from tests.dmft.deep_problems import reference_case
from tests.dmft.deep_runs import geometry_of, rms, stages_of
from tlcli.dmft import integrate
from tlcli.dmft.deep import run, solve
from tlcli.dmft.deep.observe import DeepWatch
from tlcli.dmft.deep.run import Surgery, run_stages
from tlcli.dmft.deep.start import sampled
from tlcli.dmft.ensemble import Numerics
from tlcli.dmft.integrate import Control
from tlcli.dmft.network_transfer import solve_transfer
from tlcli.dmft.settings import TransferSettings
from tlcli.tasks.transfer_tasks import transfer_data

PROBLEMS = 9
GROUPS = ("alignments", "layers.csv", "kernels", "predictions")


@pytest.fixture(scope="module")
def family():
    """Linear networks, whose truth is exact, with neurons so many that steps and directions are part of the error."""
    problems = cases(PROBLEMS, ("linear",), Numerics(neurons=2000, basis_tolerance=0.5), longest=4.0)
    return problems, [truth_of(c) for c in problems]


def within(found, names, limit=2.0):
    return np.mean(np.concatenate([found[name] for name in names]) <= limit)


def test_twice_the_stated_error_covers_nine_of_ten(family):
    """Losses, predictions, alignments and movements of layers, kernels; the errors are not too large either."""
    found = coverage(*family)
    assert within(found, LOSSES) >= 0.9
    for name in GROUPS:
        assert within(found, [name]) >= 0.9, name
    assert np.median(np.concatenate([found[name] for name in LOSSES])) > 0.1


def _same_steps(field, state, outcome, method, on_step):
    return integrate._along(field, state, outcome, method, outcome.taken, on_step)


def test_the_coverage_would_see_errors_without_time_steps(family):
    with patch.object(run, "doubled", _same_steps):
        found = coverage(*family)
    assert within(found, LOSSES) < 0.8
    assert within(found, ["predictions"]) < 0.8


def test_the_coverage_would_see_errors_without_truncation(family):
    with patch.object(solve, "_COARSER", (1.0, 0.5)):
        found = coverage(*family)
    assert within(found, ["kernels"]) < 0.8
    assert within(found, ["layers.csv"]) < 0.85


# ------------------------------------------------------------------------------------------------ one sample


def _kernels(start, case):
    """G of both layers at the training points, at the end of the second stage of descent."""
    trained, steps = np.arange(case.P1 + case.P2), stages_of(case)
    watch = DeepWatch({}, trained, trained, trained, [frozenset({len(s.times) - 1}) for s in steps])
    runs = run_stages(start, steps, Control("euler", dt=case.dt), Surgery(), watch)
    return np.concatenate([np.ravel(runs[1].observed[f"g_layer{layer}"][-1]) for layer in (1, 2)])


def _sample(case, seed, tol):
    trained = np.arange(case.P1 + case.P2)
    rng = np.random.default_rng(seed)
    return sampled(case.activation, geometry_of(case), case.L, 1000, rng, trained, tol=tol)


def test_a_coarser_look_at_one_sample_shows_the_truncation():
    """Against the same sample looked at four times as finely; the noise of samples is far larger than either."""
    case = reference_case("R3")
    finest = _sample(case, 0, 0.025)
    best = _kernels(finest, case)
    fine = finest.coarser(4, np.random.default_rng(1))
    value = _kernels(fine, case)
    rough = _kernels(fine.coarser(3, np.random.default_rng(2)), case)
    error, change = rms(value - best), rms(rough - value)
    assert 0.5 * error < 0.5 * change < 4 * error
    assert rms(_kernels(_sample(case, 5, 0.1), case) - best) > 4 * error
    # Images drawn anew, as without the finer tables, would show the noise.
    alone = fine.coarser(3, np.random.default_rng(2))
    for hidden in alone.hidden:
        hidden.guide = None
    assert rms(_kernels(alone, case) - value) > 2 * change


def test_a_look_with_the_same_tolerance_is_the_same():
    case = reference_case("R3")
    start = _sample(case, 0, 0.05)
    value = _kernels(start, case)
    again = _kernels(start.coarser(1, np.random.default_rng(1)), case)
    assert rms(again - value) < 0.01 * rms(_kernels(_sample(case, 5, 0.05), case) - value)
    assert all(hidden.guide is None for hidden in start.hidden)


# ------------------------------------------------------------------------------------------------ transfers


@pytest.fixture(scope="module")
def data():
    return transfer_data("linear", "he1+0.5*he3", dim=4, rho=0.6, noise1=0, noise2=0, p1=4, p2=4, ptest=20, seed=1)


def settings_of(**more):
    return TransferSettings(**{"times1": (1.0, 3.0), "times2": (1.0, 3.0), "gamma0": 0.7, "depth": 2, **more})


@pytest.mark.parametrize(
    ("more", "numerics"),
    [
        ({}, {}),
        ({"activation": "relu", "depth": 3, "freeze": 1, "reinit_from": 2}, {}),
        ({"target": "frozen", "kernel": "ntk"}, {}),
        ({"gamma0": 0.1, "target": "frozen"}, {}),  # the control variate of two-layer kernels is not for these
        ({"ablate": "stage-responses"}, {"integrator": "euler", "dt": 0.1}),
        ({"weight_decay": 0.1}, {"integrator": "richardson", "dt": 0.1}),
    ],
)
def test_all_errors_grow_with_what_the_second_look_changes(data, more, numerics):
    """The spread between repeats is the same with and without; the rest is added in quadrature."""
    numerics = Numerics(neurons=300, repeats=2, basis_tolerance=0.2, **numerics)
    whole = solve_transfer(data, settings_of(**more), numerics, predictions=True)
    with patch.object(solve.DeepEnsemble, "_again", lambda *_: None):
        bare = solve_transfer(data, settings_of(**more), numerics, predictions=True)
    assert whole.info["time_error"] > 0
    assert "time_error" not in bare.info
    errors = [name for name in whole.columns if name.endswith("_se") and not name.endswith("_test_se")]
    arrays = [name for name in whole.arrays if "_se" in name]
    assert {"loss_se", "layer1_movement_se", "layer2_test_alignment_se"} < set(errors)
    assert {"ntk_se_stage1", "phi_layer1_se_stage1", "g_layer2_se_stage1", "density_se_stage1"} < set(arrays)
    for place, other, names in ((whole.columns, bare.columns, errors), (whole.arrays, bare.arrays, arrays)):
        for name in names:
            known = np.isfinite(other[name])
            np.testing.assert_array_less(other[name][known], place[name][known] * (1 + 1e-12) + 1e-300, err_msg=name)
            value = name.replace("_se", "")
            np.testing.assert_array_equal(place[value], other[value], err_msg=value)
    assert np.any(whole.arrays["predictions_se"] > bare.arrays["predictions_se"])


def test_errors_fall_with_the_tolerances(data):
    """Of a task where neurons are many: twice as fine a basis and shorter steps leave less of an error."""
    found = [
        solve_transfer(data, settings_of(times2=()), Numerics(neurons=500, basis_tolerance=basis, tolerance=tol))
        for basis, tol in ((0.3, 1e-2), (0.03, 1e-4))
    ]
    changes = [np.nanmax(result.info["time_error"]) for result in found]
    assert changes[1] < 0.3 * changes[0]


def test_kernels_at_more_times_change_nothing_else(data):
    numerics = Numerics(neurons=300, repeats=2)
    few, many = (solve_transfer(data, settings_of(), numerics, kernel_times=times) for times in (None, (1.0, 3.0)))
    for name, values in few.columns.items():
        np.testing.assert_array_equal(values, many.columns[name], err_msg=name)
