"""What is read off a whole grid of averages: zeros of the gain, the best richness and time, and their errors."""

import numpy as np
import pytest

import tlcli
from tests.theories.network.test_theory import case_of
from tlcli.dmft.estimates import small_sample
from tlcli.theories.network.average_draws import (
    _jackknife,
    _left_out,
    _optimum,
    best_of_grid,
    drawn_boundaries,
    joined,
)


def case(**more):
    values = {"solver": "network-frozen", "average": "auto", "gamma0": "log:0.1:10:5", "p2": "4,8,16,32", "x": None}
    return case_of("phase-diagram", **{**values, "ptest": None, **more})


def test_zeros_of_a_gain_that_is_a_line_in_log_p_have_the_error_of_the_draws():
    """gain = log(P/P*) + shift of every draw: the place moves by minus the shift, whatever the interpolant."""
    grid = case()
    assert grid.grid.axes == ("p2", "gamma0")
    shifts = np.array([-0.2, 0.0, 0.1, 0.1])
    p = grid.grid.values["p2"].array[:, None]
    gain = np.log(p / 10.0) + np.zeros(5)
    alone = {"gain": gain + shifts[:, None, None]}
    found = drawn_boundaries(grid, "p2", gain, alone, "gain")
    np.testing.assert_allclose(found.values["p2"], 10.0, rtol=1e-9)
    source = small_sample(4) * shifts.std(ddof=1) / 2
    np.testing.assert_allclose(found.values["p2_se"], 10.0 * source, rtol=1e-6)
    shared = alone | {"gain_pool_se": np.full((4, 5), 0.3), "gain_neuron_se": np.full((4, 5), 0.4)}
    more = drawn_boundaries(grid, "p2", gain, shared, "gain")
    np.testing.assert_allclose(more.values["p2_se"], 10.0 * np.hypot(source, 0.5), rtol=1e-6)
    assert sorted(set(found.values["gamma0"])) == pytest.approx(grid.grid.values["gamma0"].array.tolist())


def test_a_zero_that_a_draw_decides_has_no_error_and_none_is_none():
    grid = case(gamma0="1")
    gain = np.array([-1.0, -0.5, -0.1, 0.05])
    alone = {"gain": np.array([gain - 0.3, gain + 0.3])}
    found = drawn_boundaries(grid, "p2", gain, alone, "gain")
    assert np.isnan(found.values["p2_se"]).all()
    assert drawn_boundaries(grid, "p2", np.abs(gain), {}, "gain") is None
    assert drawn_boundaries(grid, "p2", np.full(4, np.nan), {}, "gain") is None


def test_the_optimum_is_that_of_a_parabola_and_the_ends_are_themselves():
    values = np.geomspace(0.1, 10, 5)
    place, least = _optimum(values, (np.log(values) - np.log(0.7)) ** 2 + 3)
    assert (float(place), float(least)) == pytest.approx((0.7, 3.0))
    uneven = np.array([0.0, 0.3, 1.0, 5.0, np.inf])
    with np.errstate(divide="ignore"):
        logs = np.where((uneven > 0) & np.isfinite(uneven), np.log(uneven), 9.0)
    place, least = _optimum(uneven, np.where(logs == 9.0, 9.0, (logs - np.log(1.5)) ** 2))
    assert (float(place), float(least)) == pytest.approx((1.5, 0.0), abs=1e-9)
    for losses, where in (([0, 1, 2, 3, 4], 0.0), ([4, 3, 2, 1, 0], np.inf), ([np.nan] * 5, np.nan)):
        place, _ = _optimum(uneven, np.array(losses, dtype=float))
        assert float(place) == where or (np.isnan(where) and np.isnan(place))


def test_the_best_richness_and_its_error():
    grid = case(p2="8")
    values = grid.grid.values["gamma0"].array
    centres = np.log([0.8, 1.0, 1.3])
    alone = {"loss": (np.log(values)[None] - centres[:, None]) ** 2}
    columns = {"loss": alone["loss"].mean(axis=0)}
    found = best_of_grid(grid, columns, alone, ("loss", "baseline", "gain"))
    best = np.exp(centres.mean())
    assert found["gamma0_opt"].item() == pytest.approx(best)
    assert found["gamma0_opt_se"].item() == pytest.approx(best * small_sample(3) * centres.std(ddof=1) / np.sqrt(3))
    assert found["loss_opt"].item() == pytest.approx(np.mean((centres - centres.mean()) ** 2))


def test_times_have_a_best_one_with_and_without_pre_training():
    grid = case(p2="8", gamma0="1", times="1,3,10,30,100", t2=None)
    line = np.log(np.asarray(grid.theory.inner["time"]))
    alone = {"loss": ((line - np.log(8)) ** 2)[None], "baseline": ((line - np.log(20)) ** 2)[None]}
    columns = {name: values[0] for name, values in alone.items()}
    found = best_of_grid(grid, columns, alone, ("loss", "baseline", "gain"))
    assert found["best_time"].item() == pytest.approx(8)
    assert found["baseline_best_time"].item() == pytest.approx(20)
    assert "best_time_se" not in found  # a single draw


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.array([1.0, 2.0, 4.0])
    assert _jackknife(np.exp(_left_out(values))) == pytest.approx(small_sample(3) * values.std(ddof=1) / np.sqrt(3))
    assert np.isnan(_jackknife(np.array([1.0, np.inf, 2.0])))


def test_a_bias_that_is_too_large_to_be_taken_off_is_in_the_error():
    """64 neurons for 55 and 60 samples, 2 repeats: the gain was 14 errors away from that of 1024 on the same pool."""
    how = {"solver": "network-frozen", "source": "linear", "target": "hermite:2", "dim": 6, "p1": 20, "t1": 5.0}
    grid = {
        "x": "gamma0",
        "y": "p2",
        "p2": [55, 60],
        "gamma0": [1.0, 2.0],
        "activation": "relu",
        "pool": 120,
        "seed": 1,
    }
    few, many = (tlcli.phase_diagram(**how, **grid, neurons=n, repeats=r) for n, r in ((64, 2), (1024, 4)))
    far = np.abs(few["gain"] - many["gain"])
    assert np.all(far < 2 * few["gain_neuron_se"])
    assert np.all(far > 10 * many["gain_neuron_se"])  # errors of many neurons would not do
    assert set(few["status"].ravel()) == {"inaccurate"}


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_few_draws_of_the_source_hold_the_mean_of_all(count):
    """Losses of Gaussian draws, 4000 times: 95.4 % within two errors; without the t-factor surely fewer, to 70 %."""
    rng, trials = np.random.default_rng(count), 4000
    draws = 1 + 0.1 * rng.standard_normal((count, trials, 1, 1, 1))
    none = {f"{name}_{part}_se": 0 * draws[0] for name in ("loss", "baseline", "gain") for part in ("pool", "neuron")}
    rest = {"power": 1.0, "status": "converged", "direct": np.zeros(trials), "unsolved": np.zeros((trials, 1))}
    records = [{"columns": {"loss": x, "baseline": 2 + 0 * x, "gain": 2 - x, **none}, **rest} for x in draws]
    found = joined(records, ("loss",), 1.0).columns
    spread = 4 * np.sqrt(0.954 * 0.046 / trials)
    for name, truth in (("loss", 1), ("gain", 1)):
        far = np.abs(found[name] - truth) / found[f"{name}_source_se"]
        assert abs(np.mean(far < 2) - 0.954) < spread
        assert np.mean(far * small_sample(count) < 2) < 0.954 - spread
    np.testing.assert_array_equal(found["loss_draw_se"], found["loss_source_se"])
    assert not found["baseline_source_se"].any()
    places = _jackknife(np.exp(_left_out(draws[:, :, 0, 0, 0])))
    assert abs(np.mean(np.abs(draws[:, :, 0, 0, 0].mean(axis=0) - 1) < 2 * places) - 0.954) < spread
