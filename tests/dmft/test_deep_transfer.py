"""Deep networks through both stages of a transfer: against finite-width networks, limits, and what is refused."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from tlcli.dmft.activations import activation
from tlcli.dmft.deep.lazy import initial_deep_kernels
from tlcli.dmft.deep.size import expected_rank
from tlcli.dmft.deep.solve import DeepEnsemble, deep_plan
from tlcli.dmft.ensemble import Numerics
from tlcli.dmft.network_transfer import solve_transfer
from tlcli.dmft.settings import Setup, Wanted
from tlcli.errors import DomainError, UsageError
from tlcli.simulate.deep import simulate_networks
from tlcli.tasks.transfer_tasks import transfer_data
from tlcli.training import TransferSettings

TIMES = (0.0, 2.0, 5.0)
WIDTH, NETS = 256, 12


@pytest.fixture(scope="module")
def data():
    return transfer_data("linear", "he1+0.5*he3", dim=6, rho=0.6, noise1=0, noise2=0, p1=8, p2=6, ptest=60, seed=1)


def settings_of(**more) -> TransferSettings:
    return TransferSettings(**{"times1": TIMES, "times2": TIMES, "gamma0": 1.0, "gamma2": 0.7, "depth": 2, **more})


class Swept(TransferSettings):
    """A network that goes through the sweep of deep networks whatever its depth."""

    deep = property(lambda self: True)  # type: ignore[assignment]


CASES = {
    "two layers": {},
    "frozen": {"depth": 3, "freeze": 1},
    "redrawn": {"depth": 3, "reinit_from": 2},
    "decay": {"activation": "relu", "weight_decay": 0.05, "weight_decay2": 0.1},
    "tangent": {"target": "frozen", "kernel": "ntk"},
}


@pytest.mark.parametrize("name", CASES)
def test_networks_of_finite_width_agree(data, name):
    more = CASES[name]
    theory = solve_transfer(data, settings_of(**more), Numerics(neurons=800, repeats=4, basis_tolerance=0.1))
    found = simulate_networks(data, settings_of(**more), width=WIDTH, nets=NETS, seed=5)
    for column in ("loss", "source_loss", "train_loss", "baseline"):
        value, error = theory.columns[column], theory.columns[f"{column}_se"]
        mean, spread = np.asarray(found[column].mean), np.asarray(found[column].se)
        known = np.isfinite(value)
        # Four standard errors, and the bias of a finite width.
        allowed = 4 * np.hypot(error, spread) + 4 * np.abs(mean) / WIDTH + 1e-3
        assert np.all((np.abs(value - mean) <= allowed)[known]), column


def test_the_comparison_would_see_layers_that_are_not_frozen(data):
    numerics = Numerics(neurons=800, repeats=4, basis_tolerance=0.1)
    free = solve_transfer(data, settings_of(depth=3), numerics).columns
    kept = solve_transfer(data, settings_of(depth=3, freeze=3), numerics).columns
    change = np.abs(free["train_loss"] - kept["train_loss"])[-2:]
    assert np.any(change > 4 * np.hypot(free["train_loss_se"], kept["train_loss_se"])[-2:] + 1e-2)


def test_one_hidden_layer_is_the_two_layer_solver(data):
    settings = {"times1": TIMES, "times2": TIMES, "activation": "tanh"}
    two = solve_transfer(data, TransferSettings(**settings), Numerics(neurons=4096, repeats=4))
    swept = solve_transfer(data, Swept(**settings), Numerics(neurons=4096, repeats=4))
    for name in ("loss", "source_loss", "train_loss", "baseline", "source_alignment", "predictor_distance"):
        known = np.isfinite(two.columns[name])
        error = 0.0
        if f"{name}_se" in two.columns:
            error = np.hypot(two.columns[f"{name}_se"], swept.columns[f"{name}_se"])[known]
        np.testing.assert_array_less(
            np.abs(two.columns[name] - swept.columns[name])[known], 4 * np.asarray(error) + 2e-3
        )


def test_a_linear_network_of_one_layer_is_exact_in_both_solvers(data):
    settings = {"times1": TIMES, "times2": TIMES, "activation": "linear", "weight_decay2": 0.1, "readout": "reset"}
    two = solve_transfer(data, TransferSettings(**settings), Numerics(tolerance=1e-8))
    swept = solve_transfer(data, Swept(**settings), Numerics(tolerance=1e-7))
    for name in ("loss", "source_loss", "train_loss", "baseline", "target_alignment"):
        np.testing.assert_allclose(swept.columns[name], two.columns[name], atol=3e-5, equal_nan=True)


def test_a_small_richness_is_the_tangent_kernel(data):
    lazy = solve_transfer(data, settings_of(gamma0=0.0, gamma2=0.0, kernel="ntk"), Numerics())
    small = solve_transfer(data, settings_of(gamma0=0.05, gamma2=0.05), Numerics(neurons=4000, repeats=4))
    difference = np.abs(lazy.columns["source_loss"] - small.columns["source_loss"])[:3]
    assert np.all(difference <= 4 * small.columns["source_loss_se"][:3] + 2e-3)
    assert small.columns["layer2_movement"][2] < 0.01
    # The twin: the kernel of the readout alone is another limit.
    readout = solve_transfer(data, settings_of(gamma0=0.0, gamma2=0.0, depth=1, kernel="ntk"), Numerics())
    assert abs(lazy.columns["source_loss"][2] - readout.columns["source_loss"][2]) > 0.01


@pytest.mark.parametrize("name", ["tanh", "relu", "erf", "gelu"])
def test_kernels_at_initialisation_are_those_of_wide_networks(name):
    act, rng = activation(name), np.random.default_rng(0)
    x = rng.standard_normal((5, 4))
    found = initial_deep_kernels(act, x, x, 3)
    width, nets = 1500, 12
    samples: dict[str, list] = {"phi": [], "g": []}
    for _ in range(nets):
        h = rng.standard_normal((width, 4)) @ x.T / 2.0
        weights = [rng.standard_normal((width, width)) / math.sqrt(width) for _ in range(2)]
        values, slopes = [], []
        for w in (*weights, None):
            phi, slope = act.both(h)
            values.append(phi)
            slopes.append(slope)
            h = h if w is None else w @ phi
        g = [slopes[-1] * rng.standard_normal(width)[:, None]]
        for w, slope in zip(weights[::-1], slopes[-2::-1], strict=True):
            g.insert(0, slope * (w.T @ g[0]))
        samples["phi"].append([v.T @ v / width for v in values])
        samples["g"].append([v.T @ v / width for v in g])
    for word, exact in (("phi", found.phi), ("g", found.g)):
        mean, error = np.mean(samples[word], axis=0), np.std(samples[word], axis=0, ddof=1) / math.sqrt(nets)
        assert np.all(np.abs(mean - np.array(exact)) < 5 * error + 3.0 / width), word
    below = [x @ x.T / 4, *found.phi[:-1]]
    np.testing.assert_allclose(found.ntk, found.phi[-1] + sum(a * b for a, b in zip(found.g, below, strict=True)))


def test_the_sample_starts_with_the_exact_kernels(data):
    result = solve_transfer(data, settings_of(times1=(0.0,), times2=(0.0,)), Numerics(neurons=4000, repeats=4))
    for layer in (1, 2):
        for word in ("phi", "g"):
            found, exact = (result.arrays[f"{word}_layer{layer}_{moment}"] for moment in ("stage1", "start"))
            assert np.max(np.abs(found - exact)) < 6 * np.max(np.abs(exact)) / math.sqrt(16000)
    assert np.max(np.abs(result.arrays["ntk_stage1"] - result.arrays["ntk_start"])) < 0.2


def test_exact_linear_networks_report_the_error_of_their_integration(data):
    found = solve_transfer(data, settings_of(activation="linear", depth=3), Numerics())
    assert found.info["population"] == "exact"
    assert found.info["reached"] < 1e-3
    finer = solve_transfer(data, settings_of(activation="linear", depth=3), Numerics(tolerance=1e-7))
    assert np.nanmax(np.abs(found.columns["loss"] - finer.columns["loss"])) < 2e-4


def test_richardson_is_gradient_flow(data):
    settings = settings_of(activation="linear", times1=(0.0, 2.0), times2=(0.0, 2.0))
    flow = solve_transfer(data, settings, Numerics(tolerance=1e-7))
    errors = []
    for dt in (0.1, 0.05):
        found = solve_transfer(data, settings, Numerics(integrator="richardson", dt=dt))
        errors.append(np.nanmax(np.abs(found.columns["loss"] - flow.columns["loss"])))
    plain = solve_transfer(data, settings, Numerics(integrator="euler", dt=0.05))
    assert errors[1] < 0.35 * errors[0]
    assert errors[1] < 0.2 * np.nanmax(np.abs(plain.columns["loss"] - flow.columns["loss"]))


def test_few_neurons_are_told(data):
    found = solve_transfer(data, settings_of(), Numerics(neurons=200, repeats=2))
    note = next(n for n in found.info["notes"] if "revealed directions" in n)
    assert re.search(r"use --neurons \d+0 or a larger --basis-tolerance", note)
    assert not any("revealed" in n for n in solve_transfer(data, settings_of(), Numerics(repeats=2)).info["notes"])


def test_too_large_a_step_says_when_and_what_to_use(data):
    settings = settings_of(activation="tanh", times1=(58.8,), times2=(4.9,))
    found = solve_transfer(data, settings, Numerics(neurons=1024, repeats=2, integrator="euler", dt=4.9))
    assert found.status == "not_converged"
    assert re.search(r"stage \d: broke off at t = .* use --dt [\d.e-]+ or less", found.message)
    assert "use --dt" in found.message


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"depth": 0}, "depth = 0 must be a whole number from 1"),
        ({"freeze": 3}, "freeze = 3: the network has 2 hidden layers; use 0 to 2"),
        ({"reinit_from": 3}, "reinit_from = 3: the network has 2 hidden layers"),
        ({"freeze": 1, "target": "frozen"}, "freeze, reinit_from and ablate change a network between two stages"),
        ({"ablate": "respones"}, "did you mean 'responses'"),
    ],
)
def test_what_no_deep_network_has_is_refused(more, text):
    with pytest.raises((DomainError, UsageError), match=text):
        settings_of(**more)


@pytest.mark.parametrize(
    ("numerics", "text"),
    [
        ({"population": "sobol"}, "population: sobol is for one hidden layer"),
        ({"device": "cuda"}, "deep networks run on the CPU"),
        ({"integrator": "dop853"}, "dop853 cannot follow"),
        ({"integrator": "richardson"}, "give the step as --dt"),
        ({"integrator": "euler", "dt": 50.0}, "dt = 50 is longer than a stage, which lasts 5"),
    ],
)
def test_numerics_of_two_layers_are_refused(data, numerics, text):
    setup = Setup(data, settings_of(), activation("tanh"), np.concatenate([data.x_source, data.x_target, data.x_test]))
    with pytest.raises(UsageError, match=text):
        deep_plan(activation("tanh"), [setup.stage(1)], Numerics(**numerics))


def test_the_directions_of_hidden_matrices_are_expected(data):
    """A guess before anything is solved: within a factor of 1.6, from lazy to rich and from short to long."""
    act = activation("tanh")
    for gamma, t in ((0.1, 1.0), (1.0, 1.0), (1.0, 8.0)):
        settings = settings_of(gamma0=gamma, gamma2=gamma, times1=(t,), times2=(t,))
        found = solve_transfer(data, settings, Numerics(neurons=1024, repeats=2)).info["revealed"]
        expected = expected_rank(act, len(data.y_source) + len(data.y_target), gamma, t)
        assert found / 1.6 < expected < found * 1.6, (gamma, t)


@pytest.mark.parametrize(("samples", "gamma", "t"), [(8, 0.1, 1.0), (16, 0.1, 1.0), (8, 0.3, 1.0), (8, 1.0, 1.0)])
def test_directions_that_kinks_reveal_are_expected(samples, gamma, t):
    """Within 1.5; it was off by 3.6 at small gamma, where few neurons cross a kink, and by 1.5 after t = 20."""
    half = samples // 2
    given = transfer_data("linear", "hermite:2", dim=6, rho=0.7, noise1=0, noise2=0, p1=half, p2=half, ptest=10, seed=0)
    settings = settings_of(activation="relu", gamma0=gamma, gamma2=gamma, times1=(t,), times2=(t,))
    found = solve_transfer(given, settings, Numerics(repeats=2)).info["revealed"]
    expected = expected_rank(activation("relu"), samples, gamma, t)
    assert found / 1.5 < expected < 1.5 * found


def test_the_directions_of_a_long_run_with_kinks():
    """Eight points after t = 20 reveal 649 (a minute of one core); 446 were expected."""
    assert 649 / 1.5 < expected_rank(activation("relu"), 8, 1.0, 20.0) < 1.5 * 649


# Fewer training points than dimensions: test inputs have a part that no training point has.
@pytest.fixture(scope="module")
def wide():
    return transfer_data("linear", "linear", dim=40, rho=0.6, noise1=0, noise2=0, p1=5, p2=4, ptest=60, seed=2)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_linear_networks_align_with_test_points_outside_the_span(wide, depth):
    settings = settings_of(activation="linear", depth=depth, times1=(0.0, 1.0), times2=(0.0, 1.0))
    exact = Setup(
        wide, settings, activation("linear"), np.concatenate([wide.x_source, wide.x_target, wide.x_test])
    ).start_alignments
    found = solve_transfer(wide, settings, Numerics(tolerance=1e-7), wanted=Wanted(layers=True)).columns
    for layer in range(1, depth + 1):
        for group in ("source", "target", "test"):
            name = f"layer{layer}_{group}_alignment"
            assert found[name][0] == pytest.approx(exact[name], abs=1e-6), name


def test_a_step_that_becomes_too_long_is_told(data):
    settings = settings_of(times1=(0.0, 21.0, 60.0), times2=())
    found = solve_transfer(data, settings, Numerics(neurons=1024, repeats=2, integrator="euler", dt=3.0))
    assert any(re.search(r"unstable at t = .*use --dt [\d.e-]+ or less", note) for note in found.info["notes"])
    fine = solve_transfer(data, settings, Numerics(neurons=1024, repeats=2, integrator="euler", dt=0.2))
    assert not any("unstable" in note for note in fine.info["notes"])


@pytest.mark.parametrize("name", ["loss", "target_alignment", "layer1_movement"])
def test_all_that_richardson_gives_is_of_second_order(data, name):
    settings = settings_of(activation="linear", times1=(0.0, 2.0), times2=(0.0, 2.0))
    exact = solve_transfer(data, settings, Numerics(tolerance=1e-8))
    assert not any("dop853" in note for note in exact.info["notes"]), "which deep networks do not have"
    flow = exact.columns[name]
    found = [solve_transfer(data, settings, Numerics(integrator="richardson", dt=dt)).columns for dt in (0.2, 0.1)]
    errors = [np.abs(columns[name] - flow)[-1] for columns in found]
    assert errors[1] < 0.35 * errors[0]
    assert errors[1] < 2 * found[1][f"{name}_se"][-1] < 40 * errors[1] + 1e-6


def test_redrawn_layers_are_the_same_for_both_steps_of_richardson(data):
    settings = settings_of(reinit_from=1, times1=(0.0, 2.0), times2=(0.0, 2.0))
    numerics = {"neurons": 600, "repeats": 4, "dt": 0.1}
    errors = [
        solve_transfer(data, settings, Numerics(integrator=method, **numerics)).columns["train_loss_se"][-1]
        for method in ("euler", "richardson")
    ]
    assert errors[1] < 2.5 * errors[0]  # independent draws would give sqrt(4 + 1) and more


def test_layers_that_are_kept_and_redrawn_under_decay_are_those_of_networks(data):
    more = {"depth": 3, "freeze": 1, "reinit_from": 2, "weight_decay": 0.05, "weight_decay2": 0.1}
    theory = solve_transfer(data, settings_of(**more), Numerics(neurons=1500, repeats=4)).columns
    found = simulate_networks(data, settings_of(**more), width=WIDTH, nets=NETS, seed=5)
    for column in ("loss", "train_loss"):
        mean, spread = np.asarray(found[column].mean), np.asarray(found[column].se)
        allowed = 4 * np.hypot(theory[f"{column}_se"], spread) + 4 * np.abs(mean) / WIDTH + 1e-3
        assert np.all(np.abs(theory[column] - mean) <= allowed), column


def test_one_hidden_layer_has_no_memory_to_leave_out():
    with pytest.raises(UsageError, match="one hidden layer has no hidden matrix"):
        settings_of(depth=1, ablate="memory")


def test_a_run_that_cannot_end_is_told_at_once(data):
    settings = settings_of(activation="he3", depth=3, times1=(0.0, 100.0), times2=())
    tiny = transfer_data("linear", "linear", dim=6, rho=0.6, noise1=0, noise2=0, p1=3, p2=3, ptest=10, seed=0)
    found = solve_transfer(tiny, settings, Numerics())
    assert found.status == "not_converged"
    assert re.search(r"fastest rate of .*, what is left would take .* evaluations, .* lower gamma", found.message)
    assert found.info["evaluations"] < 3000
    # The same network for as long as its features can be followed, and another for long, are solved.
    short = solve_transfer(tiny, settings_of(activation="he3", times1=(0.0, 0.02), times2=()), Numerics())
    assert short.message == ""
    assert solve_transfer(data, settings_of(times1=(0.0, 300.0), times2=()), Numerics(repeats=2)).message == ""


def test_a_run_that_missed_the_accuracy_is_inaccurate(data):
    found = solve_transfer(data, settings_of(times1=(0.0, 2.0), times2=()), Numerics(accuracy=1e-4, neurons=64))
    assert found.info["reached"] > 1.25 * found.info["accuracy"]
    assert found.status == "inaccurate"
    assert solve_transfer(data, settings_of(times1=(0.0, 2.0), times2=()), Numerics()).status == "converged"


def test_no_repeat_is_begun_after_one_that_broke_off(data, monkeypatch):
    begun = []
    run = DeepEnsemble._run

    def second_breaks(self, start, *args, **kwargs):
        found = run(self, start, *args, **kwargs)
        begun.append(start)
        if len(begun) == 2:
            found[-1].outcome = replace(found[-1].outcome, message="broke off")
        return found

    monkeypatch.setattr(DeepEnsemble, "_run", second_breaks)
    settings = settings_of(times1=(1.0,), times2=(1.0,))
    found = solve_transfer(data, settings, Numerics(neurons=256, repeats=6, threads=1))
    assert found.message == "stage 2: broke off"
    assert len(begun) == 2 + 2 + 1, "two with and two without pre-training, and a second look at these"
    assert found.info["repeats"] == 2


def test_a_slope_without_bound_is_told(data):
    settings = settings_of(activation="he2", times1=(0.1,), times2=(0.1,), gamma0=0.1, gamma2=0.1)
    notes = solve_transfer(data, settings, Numerics(neurons=256, repeats=2)).info["notes"]
    assert any("the slope of he2 has no bound" in note for note in notes)
    notes = solve_transfer(data, replace(settings, activation="gelu"), Numerics(neurons=256, repeats=2)).info["notes"]
    assert not any("has no bound" in note for note in notes)
