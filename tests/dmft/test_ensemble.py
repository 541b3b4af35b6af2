"""Several populations: what is chosen, the standard errors, lazy control variate, and finite width as a population."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tests.dmft.problems import field_of, gaussians, outputs, reference_problem, state_of, teacher_problem
from tlcli.dmft import ensemble
from tlcli.dmft.activations import activation
from tlcli.dmft.ensemble import Numerics, plan, solve, solve_by
from tlcli.dmft.estimates import time_change
from tlcli.dmft.geometry import reduce_inputs
from tlcli.dmft.integrate import Control
from tlcli.dmft.lazy import lazy_solution
from tlcli.dmft.two_layer import Problem, Stage
from tlcli.errors import UsageError
from tlcli.simulate.deep import simulate_networks
from tlcli.tasks.transfer_tasks import TransferData
from tlcli.training import TransferSettings

WIDE, _ = teacher_problem("tanh", 20, 40, 0, [0.0, 1.0])
FLAT, _ = teacher_problem("tanh", 2, 10, 0, [0.0, 1.0])


def of(problem, name=None, gamma=None):
    act = problem.act if name is None else activation(name)
    stages = problem.stages if gamma is None else [replace(stage, gamma=gamma) for stage in problem.stages]
    return Problem(act, problem.geometry, stages)


# ---------------------------------------------------------------------------------------------------- the plan


def test_low_dimensions_take_sobol_points():
    chosen = plan(FLAT, Numerics())
    assert (chosen.kind, chosen.pairs, chosen.whiten, chosen.lazy, chosen.streamed) == ("sobol", True, True, False, 0)
    assert (chosen.repeats, chosen.neurons, chosen.dtype) == (8, 1024, "float64")
    assert plan(FLAT, Numerics(accuracy=1e-3)).neurons == 4096
    assert plan(FLAT, Numerics(accuracy=1e-4)).neurons == 16384


def test_small_richness_takes_the_control_variate():
    chosen = plan(of(WIDE, gamma=0.1), Numerics())
    assert (chosen.kind, chosen.pairs, chosen.whiten, chosen.lazy, chosen.streamed) == ("mc", True, True, True, 0)
    assert chosen.neurons == 512
    assert not plan(of(WIDE, gamma=1.0), Numerics()).lazy
    # The larger richness of the two stages counts.
    mixed = Problem(WIDE.act, WIDE.geometry, [replace(WIDE.stages[0], gamma=0.1), WIDE.stages[1]])
    assert not plan(mixed, Numerics()).lazy


def test_high_dimensions_take_plain_samples():
    chosen = plan(WIDE, Numerics())
    assert (chosen.kind, chosen.pairs, chosen.whiten, chosen.lazy, chosen.streamed) == ("mc", False, False, False, 0)
    assert chosen.dtype == "float32"
    assert chosen.repeats * chosen.neurons >= (0.6 / 1e-2) ** 2


@pytest.mark.parametrize("accuracy", [5e-3, 2e-3, 1e-3])
def test_accuracy_streams_neurons(accuracy):
    chosen = plan(WIDE, Numerics(accuracy=accuracy))
    assert chosen.repeats * chosen.streamed == pytest.approx((0.6 / accuracy) ** 2, rel=0.01)
    assert chosen.neurons >= max(1024, chosen.streamed / 16)
    assert chosen.iterations == 1
    assert plan(of(WIDE, gamma=3.0), Numerics(accuracy=accuracy)).iterations == 2


def test_one_lazy_stage_takes_pairs_and_no_stream():
    lazy, rich = of(WIDE, gamma=0.1).stages[0], of(WIDE, gamma=1.0).stages[0]
    chosen = plan(replace(WIDE, stages=[lazy, rich]), Numerics(accuracy=2e-3))
    assert chosen.pairs
    assert not chosen.lazy
    assert chosen.streamed == 0
    # The noise of f(0) would be of order 1/(gamma sqrt(S)) otherwise.
    runs = solve(replace(WIDE, stages=[lazy, rich]), Numerics(neurons=256, repeats=2))
    assert np.max(np.abs(runs.f[0][:, 0])) < 1e-5


def test_what_is_never_streamed():
    fine = Numerics(accuracy=2e-3)
    assert plan(of(WIDE, "he3"), fine).streamed == 0  # its neurons run away in a given field
    assert plan(WIDE, fine, coupled=True).streamed == 0  # kernels are what is wanted
    assert plan(WIDE, replace(fine, neurons=500)).streamed == 0
    assert plan(of(WIDE, "linear"), fine).streamed == 0
    for chosen in (plan(of(WIDE, "he3"), fine), plan(WIDE, fine, coupled=True)):
        assert chosen.repeats * chosen.neurons >= (0.6 / 2e-3) ** 2


def test_linear_networks_take_few_neurons():
    chosen = plan(of(WIDE, "linear", 0.1), Numerics(accuracy=1e-4))
    assert (chosen.neurons, chosen.repeats, chosen.pairs, chosen.whiten, chosen.lazy) == (88, 2, True, True, False)
    assert chosen.dtype == "float64"
    assert chosen.control.of_stage(0.1).tolerance == pytest.approx(1e-7)


def test_tolerances():
    assert plan(WIDE, Numerics(tolerance=1e-5)).control.tolerance == 1e-5
    assert plan(WIDE, Numerics()).control.tolerance == pytest.approx(3e-4)
    assert plan(of(WIDE, gamma=3.0), Numerics()).control.tolerance == pytest.approx(1e-4)
    # In f an error of the state counts 1/gamma times: the tolerance follows each stage's richness, unless it was given.
    lazy = plan(of(WIDE, gamma=0.1), Numerics()).control
    assert lazy.of_stage(0.1).tolerance == pytest.approx(3e-5)
    assert lazy.of_stage(2.0).tolerance == pytest.approx(3e-4)
    assert plan(of(WIDE, gamma=0.1), Numerics(tolerance=1e-5)).control.of_stage(0.1).tolerance == 1e-5
    assert plan(of(WIDE, "relu"), Numerics()).control.tolerance == pytest.approx(3e-3)
    assert plan(WIDE, Numerics(integrator="dop853")).control.tolerance == pytest.approx(1e-7)
    assert plan(WIDE, Numerics(accuracy=1e-3)).control.tolerance < 3e-4


def test_what_the_user_sets_is_used():
    numerics = Numerics("mc", 300, 7, integrator="euler", dt=0.01, until=1e-5)
    chosen = plan(FLAT, numerics)
    assert (chosen.kind, chosen.neurons, chosen.repeats, chosen.pairs) == ("mc", 300, 7, False)
    assert (chosen.control.method, chosen.control.dt, chosen.control.until) == ("euler", 0.01, 1e-5)
    found = solve(of(FLAT, gamma=0.7), replace(numerics, until=None))
    assert [part.shape for part in found.f] == [(7, 2, 20)] * 2
    assert found.steps == 7 * 2 * 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"population": "sobel"}, r"population: 'sobel' is unknown \(did you mean 'sobol'\?\); use one of auto, mc"),
        ({"integrator": "rk4"}, r"integrator: 'rk4' is unknown.*use one of rkc, dop853, euler"),
        ({"device": "gpu"}, r"device: 'gpu' is unknown.*use one of cpu, cuda"),
    ],
)
def test_unknown_words(words, message):
    with pytest.raises(UsageError, match=message):
        Numerics(**words)


def test_a_learning_rate_belongs_to_gradient_descent():
    with pytest.raises(UsageError, match=r"dt = 0\.1 is the learning rate of --integrator euler; rkc has none"):
        plan(WIDE, Numerics(dt=0.1))


def test_a_learning_rate_longer_than_a_stage():
    with pytest.raises(UsageError, match=r"dt = 3 is longer than a stage, which lasts 1; use a smaller --dt"):
        plan(WIDE, Numerics(integrator="euler", dt=3.0))


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("relu", {}, "dop853 needs a smooth activation, and relu"),
        ("tanh", {"device": "cuda"}, "dop853 runs on the CPU"),
    ],
)
def test_where_high_order_has_no_place(name, more, message):
    with pytest.raises(UsageError, match=message):
        plan(of(WIDE, name), Numerics(integrator="dop853", **more))


def test_an_accuracy_out_of_reach():
    with pytest.raises(UsageError, match=r"accuracy = 1e-05 needs 3.8e\+09 neurons here.*use at least .* --neurons"):
        plan(WIDE, Numerics(accuracy=1e-5))
    assert plan(WIDE, Numerics(accuracy=1e-5, neurons=100)).neurons == 100


def test_quadrature_is_for_few_dimensions():
    with pytest.raises(UsageError, match="rank 3 or less, and these have rank 20; use sobol or mc"):
        solve(WIDE, Numerics(population="quadrature", neurons=1000))


def test_quadrature_has_no_readouts_to_redraw():
    problem = Problem(FLAT.act, FLAT.geometry, [FLAT.stages[0], replace(FLAT.stages[1], readout="reset")])
    with pytest.raises(UsageError, match="readout: reset draws new readouts, which a quadrature has not"):
        solve(problem, Numerics(population="quadrature", neurons=1000))


def test_quadrature_needs_points_in_the_span():
    x = np.random.default_rng(0).standard_normal((4, 5))
    problem = Problem(activation("tanh"), reduce_inputs(x, 2), [Stage(np.arange(2), x[:2, 0], 1.0, np.array([1.0]), 1)])
    with pytest.raises(UsageError, match="quadrature needs test inputs in the span of the training inputs"):
        solve(problem, Numerics(population="quadrature", neurons=1000))


# ---------------------------------------------------------------------------------------------------- standard errors


def test_the_loss_is_that_of_the_mean_output():
    found = solve(FLAT, Numerics(neurons=64, population="mc"))
    value, _ = found.estimate(lambda parts: np.mean(parts[1] ** 2, axis=1))
    # Of a square the jackknife takes off the variance of the mean, exactly.
    variance = found.f[1].var(axis=0, ddof=1) / len(found.f[1])
    np.testing.assert_allclose(value, np.mean(found.f[1].mean(axis=0) ** 2 - variance, axis=1), rtol=1e-10)


@pytest.mark.parametrize("kind", ["mc", "sobol"])
def test_threads_change_no_number(kind):
    one, two = (solve(FLAT, Numerics(population=kind, neurons=256, threads=n)) for n in (1, 2))
    for a, b in zip(one.f, two.f, strict=True):
        np.testing.assert_array_equal(a, b)


def test_threads_change_no_number_of_large_populations():
    problem, _ = teacher_problem("tanh", 6, 60, 10, [0.0, 0.05])
    one, two = (solve(problem, Numerics(neurons=36_000, repeats=2, threads=n)) for n in (1, 2))
    for a, b in zip(one.f, two.f, strict=True):
        np.testing.assert_array_equal(a, b)


def test_seeds_and_draws():
    base = Numerics(neurons=64, population="mc")
    same, again = solve(FLAT, base), solve(FLAT, base)
    np.testing.assert_array_equal(same.f[0], again.f[0])
    for other in (replace(base, seed=1), replace(base, draw=1)):
        assert np.max(np.abs(solve(FLAT, other).f[0] - same.f[0])) > 1e-3
    # More repeats keep the first ones.
    np.testing.assert_array_equal(solve(FLAT, replace(base, repeats=10)).f[0][:8], same.f[0])
    assert len({part[-1, 0] for part in same.f[0]}) == 8


def test_a_break_is_told_with_its_stage():
    numerics = Numerics(neurons=64, population="mc", integrator="euler", dt=5.0)
    problem = Problem(FLAT.act, FLAT.geometry, [replace(s, times=np.array([0.0, 100.0])) for s in FLAT.stages])
    found = solve(problem, numerics)
    assert found.message.startswith("stage 1: broke off at t = ")
    assert np.all(np.isfinite(found.f[0][:, 0]))
    assert np.all(np.isnan(found.f[0][:, 1]))
    value, error = found.estimate(lambda parts: parts[0])
    assert np.all(np.isfinite(value[0]) & np.isfinite(error[0]))


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_one_population_is_integrated_twice(name):
    found = solve(of(FLAT, name), Numerics(neurons=128))
    assert found.retimed is not None
    assert [part.shape for part in found.retimed] == [(2, 2, 20)] * 2
    np.testing.assert_array_equal(found.retimed[0][0], found.f[0][0])
    assert 0 < np.max(np.abs(found.retimed[1][1] - found.retimed[1][0])) < 0.05
    # Gradient descent is what it is: its learning rate is no error.
    assert solve(of(FLAT, name), Numerics(neurons=128, integrator="euler", dt=0.1)).retimed is None


@pytest.mark.parametrize(("name", "remedy"), [("tanh", "use --integrator dop853"), ("relu", "relu has kinks")])
def test_a_tolerance_that_a_second_order_method_cannot_reach_is_refused(name, remedy):
    with pytest.raises(
        UsageError, match=rf"tolerance = 1e-12: rkc, of second order, .*{remedy}.*, or use 1e-09 or more"
    ):
        plan(of(WIDE, name), Numerics(tolerance=1e-12))
    assert plan(of(WIDE, name), Numerics(tolerance=1e-9)).control.tolerance == 1e-9
    assert plan(of(WIDE, "tanh"), Numerics(tolerance=1e-12, integrator="dop853")).control.tolerance == 1e-12


def test_errors_of_kinks_in_many_dimensions_hold_the_error_in_time(monkeypatch):
    """relu of rank 5: all repeats at a 16 times lower tolerance, with the same neurons, move less than the errors say.

    The stated error in time is that of one repeat, whose neurons flip by chance: together the records show its size.
    """
    true, stated, errors = [], [], []
    for seed, gamma in enumerate((0.5, 1.0)):
        problem, labels = teacher_problem("relu", 5, 6, 30, [0.25, 0.5, 1.0], gamma=gamma, seed=seed)
        assert problem.geometry.rank == 5

        def loss(fs, labels=labels):
            return np.array([np.mean((f[:, 12:] - y[12:]) ** 2, axis=1) for f, y in zip(fs, labels, strict=True)])

        chosen = plan(problem, Numerics(neurons=128, repeats=4))
        found = solve_by(problem, Numerics(), chosen)
        finer = replace(chosen, control=replace(chosen.control, tolerance=chosen.control.tolerance / 16))
        with monkeypatch.context() as patch:
            patch.setattr(ensemble, "_again_in_time", lambda *_: None)
            better = solve_by(problem, Numerics(), finer).estimate(loss)[0]
        value, error = found.estimate(loss)
        true.append(np.abs(better - value))
        stated.append(time_change(found.pieces(), loss))
        errors.append(error)
    true, stated, errors = (np.array(part).ravel() for part in (true, stated, errors))
    assert np.all(stated > 0)
    assert np.all(true <= errors), "the time step alone fills no error"
    assert np.all(stated <= errors)
    size, told = np.sqrt(np.mean(true**2)), np.sqrt(np.mean(stated**2))
    assert told / 3 < size < 3 * told


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-4])
def test_the_error_in_time_is_at_least_the_true_one(tolerance):
    numerics = Numerics("sobol", 64, 2, tolerance=tolerance)
    found, exact = solve(FLAT, numerics), solve(FLAT, replace(numerics, integrator="dop853", tolerance=1e-10))
    assert found.retimed is not None
    for f, true, (same, other) in zip(found.f, exact.f, found.retimed, strict=True):
        assert np.max(np.abs(f[0] - true[0])) <= 2 * np.max(np.abs(other - same))
        assert np.max(np.abs(f[0] - true[0])) > 0.02 * np.max(np.abs(other - same)), "not far too large either"


def test_the_error_in_time_is_seen_where_one_step_reaches_every_record():
    """Both tolerances take the whole stage at once: no difference between them says anything."""
    stage = replace(FLAT.stages[0], times=np.array([0.0, 0.025, 0.05]))
    short = Problem(FLAT.act, FLAT.geometry, [stage])
    numerics = Numerics("sobol", 64, 2, tolerance=0.02)
    found, exact = solve(short, numerics), solve(short, replace(numerics, integrator="dop853", tolerance=1e-12))
    assert found.steps == 2, "one step of either population"
    assert found.retimed is not None
    ((same, other),) = found.retimed
    wrong = np.max(np.abs(found.f[0][0] - exact.f[0][0]), axis=1)
    stated = np.max(np.abs(other - same), axis=1)
    np.testing.assert_array_equal(same, found.f[0][0])
    assert np.all(wrong[1:] > 0)
    assert np.all(wrong[1:] <= 2 * stated[1:])
    assert stated[-1] < 5 * wrong[-1], "not far too large either"


# ---------------------------------------------------------------------------------------------------- lazy limit


@pytest.mark.parametrize("name", ["tanh", "relu", "erf", "gelu", "softplus"])
def test_small_richness_is_the_lazy_solution(name):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((15, 5))
    stage = Stage(np.arange(8), x[:8, 0], 0.01, np.array([0.0, 1.0, 5.0]), 1 / 8)
    problem = Problem(activation(name), reduce_inputs(x, 8), [stage])
    found = solve(problem, Numerics(neurons=256))
    assert found.plan.lazy
    expected = lazy_solution(problem.act, x, stage.rows, stage.labels, stage.times)
    np.testing.assert_allclose(found.f[0].mean(axis=0), expected, rtol=0, atol=2e-3 if problem.act.smooth else 2e-2)
    # Without the control variate so few neurons are far away.
    plain = np.mean([outputs(problem, gaussians(problem, 256, s), Control("rkc", 1e-4))[0] for s in range(4)], axis=0)
    assert np.max(np.abs(plain - expected)) > 0.1


def test_the_control_variate_reduces_the_variance():
    """Task 1, tanh, gamma = 0.1, 256 neurons: at least tenfold against plain samples.

    See docs/references.md, Lazy control variate.
    """
    problem, labels = teacher_problem("tanh", 15, 50, 200, np.linspace(0, 3, 7), gamma=0.1)
    found = solve(problem, Numerics(neurons=256, repeats=6))
    assert found.plan.lazy
    control = found.plan.control
    plain = [outputs(problem, gaussians(problem, 256, seed), control) for seed in range(6)]
    paired = [outputs(problem, gaussians(problem, 256, seed, pairs=True, whiten=True), control) for seed in range(6)]

    def variances(f):
        loss = np.mean((f[:, :, 100:] - labels[1, 100:]) ** 2, axis=2)
        return np.array([f.var(axis=0, ddof=1).mean(), loss.var(axis=0, ddof=1).mean()])

    for stage in (0, 1):
        with_it = variances(found.f[stage])
        assert np.all(variances(np.array([run[stage] for run in plain])) > 20 * with_it)
        assert np.all(variances(np.array([run[stage] for run in paired])) > 3 * with_it)


def test_the_control_variate_is_harmless_where_it_is_useless():
    """Forced at gamma = 0.3, it does not move the mean: within 4 standard errors of plain samples."""
    problem, _ = teacher_problem("tanh", 6, 10, 20, [1.0, 3.0], gamma=0.3)
    numerics = Numerics("mc", neurons=512, repeats=12)
    found = solve_by(problem, numerics, replace(plan(problem, numerics), lazy=True, pairs=True, whiten=True))
    sample = np.array([outputs(problem, gaussians(problem, 1024, seed), Control("rkc", 1e-4)) for seed in range(12)])
    for k in (0, 1):
        error = np.sqrt((found.f[k].var(axis=0, ddof=1) + sample[:, k].var(axis=0, ddof=1)) / 12)
        away = np.abs(found.f[k].mean(axis=0) - sample[:, k].mean(axis=0)) / error
        assert np.max(away) < stats.t.isf(stats.norm.sf(4.0), 11)


# ---------------------------------------------------------------------------------------------------- finite width

WIDTHS, NETS = (8, 32, 128), 80


@pytest.fixture(scope="module")
def widths():
    """Task 3 (tanh, D = 2, P = 20 + 20): target test losses and f of the second stage, per width, and in the limit.

    A network of width N is a plain population of N neurons.
    """
    problem, labels = teacher_problem("tanh", 2, 20, 100, [1.0, 3.0])
    y, control = labels[1, 40:], Control("rkc", 1e-3)
    limit = solve(problem, Numerics(neurons=4096, repeats=2)).f[1].mean(axis=0)[:, 40:]
    found = {}
    for width in WIDTHS:
        f = np.array([outputs(problem, gaussians(problem, width, s), control)[1][:, 40:] for s in range(NETS)])
        found[width] = np.mean((f - y) ** 2, axis=(1, 2)), f
    return found, limit, float(np.mean((limit - y) ** 2)), problem, labels


def test_the_bias_of_finite_width_falls_as_its_inverse(widths):
    found, _, exact, *_ = widths
    bias = np.array([found[n][0].mean() - exact for n in WIDTHS])
    error = np.array([found[n][0].std(ddof=1) / np.sqrt(NETS) for n in WIDTHS])
    inverse = 1 / np.array(WIDTHS)
    factor = np.sum(bias * inverse / error**2) / np.sum((inverse / error) ** 2)
    assert factor > 4 / np.sqrt(np.sum((inverse / error) ** 2))  # there is a bias
    assert np.all(np.abs(bias - factor * inverse) < 4 * error)
    # The twin: a bias that does not depend on the width is excluded.
    constant = np.sum(bias / error**2) / np.sum(1 / error**2)
    assert np.max(np.abs(bias - constant) / error) > 4


def test_the_spread_of_finite_width_falls_as_its_root(widths):
    found, limit, *_ = widths
    deviations = [np.std(found[n][0], ddof=1) for n in WIDTHS]
    variances = [np.mean(np.var(found[n][1], axis=0, ddof=1)) for n in WIDTHS]
    # The relative error of a deviation of 80 Gaussians is 8 %; between the ends log(16) lies: 0.04 in the slope.
    assert stats.linregress(np.log(WIDTHS), np.log(deviations)).slope == pytest.approx(-0.5, abs=4 * 0.04)
    assert stats.linregress(np.log(WIDTHS), np.log(variances)).slope == pytest.approx(-1.0, abs=8 * 0.04)
    # The mean output approaches that of the limit, faster than the spread falls.
    away = [np.sqrt(np.mean((np.mean(found[n][1], axis=0) - limit) ** 2)) for n in WIDTHS]
    assert away[0] > 2 * away[1] > 4 * away[2]


def test_gradient_descent_of_networks_is_a_plain_population(widths):
    """An independent program, on the full weights, with the same mean of losses within 4 standard errors."""
    found, _, _, problem, labels = widths
    x = np.sqrt(2) * problem.geometry.moving
    data = TransferData(
        x[:20], labels[0, :20], x[20:40], labels[1, 20:40], x[40:], labels[0, 40:], labels[1, 40:], description={}
    )
    training = TransferSettings(times1=(3.0,), times2=(1.0, 3.0), reduction="sum")
    nets = simulate_networks(data, training, width=32, nets=40, seed=3)
    y = labels[1, 40:]
    losses = np.mean((found[32][1] - y) ** 2, axis=2)
    error = np.hypot(losses.std(axis=0, ddof=1) / np.sqrt(NETS), nets["loss"].se[1:])
    assert np.all(np.abs(losses.mean(axis=0) - nets["loss"].mean[1:]) < 4 * error)


def test_repeats_average_the_output():
    """32 populations of 64 neurons have the output of 2048, but for the bias of 64: f(0) is the mean exactly."""
    problem = reference_problem("R3")
    found = solve(problem, Numerics(neurons=64, repeats=32, population="mc"))
    start = found.f[0].mean(axis=0)[0]
    error = found.f[0].std(axis=0, ddof=1)[0] / np.sqrt(32)
    assert np.max(np.abs(start) / error) < 4
    population = gaussians(problem, 64)
    f = field_of(problem, population).outputs(state_of(population), problem.geometry.moving)
    assert np.std(f) == pytest.approx(np.sqrt(np.mean(error**2) * 32), rel=0.8)
