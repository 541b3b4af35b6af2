"""Neurons in a field given in advance: order of the integration, streaming, correction of a small population."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import solve_ivp

from tests.dmft.losses import objective
from tests.dmft.problems import gaussians, teacher_problem
from tlcli.dmft import ensemble
from tlcli.dmft import plan as planning
from tlcli.dmft.ensemble import Numerics, plan, solve
from tlcli.dmft.field import Threads
from tlcli.dmft.frozen_field import FrozenStage, deviation, freeze, outputs_in_field, stream
from tlcli.dmft.integrate import Control
from tlcli.dmft.two_layer import Correction, run_population

TIMES = [0.0, 0.25, 0.5, 0.75, 1.0]


def in_field(problem, stages, population, dtype="float64", redrawn=None):
    """f of a population in frozen fields, per stage at the active points and at all."""
    g = problem.geometry
    copies = (np.array(v, dtype=dtype) for v in (population.hidden, population.readout, population.still))
    found = outputs_in_field(problem.act, stages, g.moving, g.still, *copies, redrawn, population.weights)
    scale = 1 if population.weights is not None else population.size
    return [(a / (scale * s.stage.gamma), b / (scale * s.stage.gamma)) for (a, b), s in zip(found, stages, strict=True)]


def given_fields(problem, count):
    """Two smooth fields of time that no population made, on equal steps."""
    waves = [
        lambda t: np.cos(3 * t + np.arange(8)),
        lambda t: np.sin(2 * t - np.arange(8)) / (1 + t),
    ]
    return [
        FrozenStage(stage, problem.geometry.moving[stage.rows], np.linspace(0, 1, count + 1), wave)
        for stage, wave in zip(problem.stages, waves, strict=True)
    ]


def neuron_by_neuron(problem, stages, population, redrawn=None):
    """Final f at all points of both stages by scipy, every neuron on its own."""
    act, out = problem.act, []
    u, a, still, faded = population.hidden.copy(), population.readout.copy(), population.still, 1.0
    for k, frozen in enumerate(stages):
        s = frozen.stage
        if k and s.readout == "reset":
            u, still = np.concatenate([u, u]), np.concatenate([still, still])
            a = np.concatenate([redrawn, -redrawn])
        for i in range(len(a)):

            def velocity(t, z, frozen=frozen, s=s):
                phi, slope = act.both(frozen.coords @ z[:-1])
                pull = s.scale * s.gamma * frozen.residual(t)
                return np.r_[(pull * slope * z[-1]) @ frozen.coords - s.decay * z[:-1], phi @ pull - s.decay * z[-1]]

            z = solve_ivp(velocity, (0, 1), np.r_[u[i], a[i]], "DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
            u[i], a[i] = z[:-1], z[-1]
        faded *= np.exp(-s.decay)
        h = u @ problem.geometry.moving.T + faded * (still @ problem.geometry.still.T)
        out.append(a @ act.phi(h) / (len(a) * s.gamma))
    return out


@pytest.mark.parametrize("readout", ["carry", "reset"])
@pytest.mark.parametrize("name", ["tanh", "softplus"])
def test_neurons_in_a_given_field(name, readout):
    # 16 training points in 20 dimensions: some of the weights only decay.
    problem, _ = teacher_problem(name, 20, 8, 3, TIMES, gamma=0.8, gamma2=1.4, decay=0.2, scale=0.5, readout=readout)
    population, fresh = gaussians(problem, 6), np.random.default_rng(5).standard_normal(6)
    assert population.still.shape[1] > 0
    stages = given_fields(problem, 96)
    found = in_field(problem, stages, population, redrawn=fresh)
    for (active, everywhere), frozen, expected in zip(
        found, stages, neuron_by_neuron(problem, stages, population, fresh), strict=True
    ):
        assert active.shape == (97, 8)
        assert everywhere.shape == (96 // frozen.stride + 1, problem.n_points)
        np.testing.assert_allclose(everywhere[-1], expected, rtol=0, atol=1e-7)
        np.testing.assert_allclose(active[-1], expected[frozen.stage.rows], rtol=0, atol=1e-7)
        np.testing.assert_allclose(active[:: frozen.stride], everywhere[:, frozen.stage.rows], rtol=0, atol=1e-12)


def test_the_integration_is_of_fourth_order():
    problem, _ = teacher_problem("tanh", 3, 8, 3, TIMES)
    population = gaussians(problem, 32)
    exact = in_field(problem, given_fields(problem, 512), population)
    steps, errors = [8, 16, 32, 64], []
    for count in steps:
        found = in_field(problem, given_fields(problem, count), population)
        errors.append(max(np.max(np.abs(f[1][-1] - e[1][-1])) for f, e in zip(found, exact, strict=True)))
    assert stats.linregress(-np.log(steps), np.log(errors)).slope == pytest.approx(4.0, abs=0.2)


def test_single_precision_is_enough():
    problem, _ = teacher_problem("tanh", 3, 8, 3, TIMES)
    population = gaussians(problem, 512)
    stages = given_fields(problem, 24)
    for single, double in zip(
        in_field(problem, stages, population, "float32"), in_field(problem, stages, population), strict=True
    ):
        np.testing.assert_allclose(single[1], double[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 5, 12, 24, 36, 96])
def test_the_stride_divides_the_steps(count):
    problem, _ = teacher_problem("tanh", 3, 8, 0, TIMES)
    stage = replace(given_fields(problem, max(count, 1))[0], nodes=np.linspace(0, 1, count + 1))
    assert count % stage.stride == 0
    assert count <= 12 or count / stage.stride < 24


# ---------------------------------------------------------------------------------------------------- freezing


def coupled(problem, population, tolerance=1e-4, **options):
    return run_population(problem, population, Control("rkc", tolerance), **options)


def test_a_frozen_run_is_the_run():
    """In its own field a population does what it did, but for the errors in time that the open loop amplifies."""
    problem, _ = teacher_problem("tanh", 6, 20, 10, TIMES, gamma2=1.5, decay=0.1)
    population = gaussians(problem, 128)
    runs = coupled(problem, population, 1e-7)
    stages = freeze(problem, runs, 96)
    for (_, everywhere), run, frozen in zip(in_field(problem, stages, population), runs, stages, strict=True):
        assert (frozen.nodes[0], frozen.nodes[-1], len(frozen.nodes)) == (0.0, 1.0, 97)
        np.testing.assert_allclose(everywhere[[0, -1]], run.f[[0, -1]], rtol=0, atol=1e-4)
        np.testing.assert_allclose(frozen.residual(1.0), frozen.stage.labels - run.f[-1][frozen.stage.rows], atol=1e-9)


def test_nodes_are_dense_where_the_field_is_strong():
    problem, _ = teacher_problem("tanh", 6, 20, 0, [0.0, 10.0], only=1)
    frozen = freeze(problem, coupled(problem, gaussians(problem, 128)))[0]
    widths = np.diff(frozen.nodes)
    assert np.all(widths > 0)
    assert 12 <= len(widths) <= 96
    assert widths[0] < 0.3 * widths[-1]


def test_what_settled_stays_as_it_is():
    problem, _ = teacher_problem("linear", 2, 3, 0, [0.0, 1e4], only=1)
    population = gaussians(problem, 32, pairs=True, whiten=True)
    runs = run_population(problem, population, Control("rkc", 1e-6, until=1e-6))
    assert runs[0].outcome.settled
    frozen = freeze(problem, runs)[0]
    assert frozen.nodes[-1] == 1e4
    np.testing.assert_allclose(frozen.residual(5e3), runs[0].path[-1][1], atol=1e-5)


def test_no_duration():
    problem, _ = teacher_problem("tanh", 3, 8, 2, [0.0], only=1)
    population = gaussians(problem, 32)
    runs = coupled(problem, population)
    stages = freeze(problem, runs)
    assert stages[0].nodes.tolist() == [0.0]
    np.testing.assert_allclose(in_field(problem, stages, population)[0][1], runs[0].f, atol=1e-12)


# ---------------------------------------------------------------------------------------------------- correction


def corrected(problem, small, large, runs):
    """The small population, corrected by the large one in the field of `runs`."""
    stages = freeze(problem, runs)
    taus, worst = deviation(problem, stages, small, None, in_field(problem, stages, large), "float64")
    return coupled(problem, small, corrections=[Correction(shift=tau) for tau in taus]), worst


def distance(runs, target):
    return np.array([np.sqrt(np.mean((a.f - b.f) ** 2)) for a, b in zip(runs, target, strict=True)])


@pytest.mark.parametrize("options", [{}, {"readout": "carry-centred", "decay": 0.1, "gamma2": 1.5}], ids=["", "decay"])
def test_the_correction_reproduces_the_coupled_run_of_the_same_neurons(options):
    """f of 4096 coupled neurons from 256: one iteration is at their own Monte Carlo noise, two far below."""
    problem, _ = teacher_problem("tanh", 6, 20, 100, TIMES, **options)
    large = gaussians(problem, 4096)
    small = replace(large, hidden=large.hidden[:256], readout=large.readout[:256], still=large.still[:256])
    target, base = coupled(problem, large), coupled(problem, small)
    noise = distance(base, target) * np.sqrt(256 / 4096)
    once, worst = corrected(problem, small, large, base)
    assert worst < 0.5
    assert np.all(distance(once, target) < noise * np.array([0.4, 1.3]))
    twice, _ = corrected(problem, small, large, once)
    assert np.all(distance(twice, target) < 0.2 * noise)


def test_the_open_loop_alone_would_be_worse():
    """Never use f of the large population in the first field directly."""
    problem, _ = teacher_problem("tanh", 6, 20, 100, TIMES)
    large = gaussians(problem, 4096)
    small = replace(large, hidden=large.hidden[:256], readout=large.readout[:256], still=large.still[:256])
    target, base = coupled(problem, large), coupled(problem, small)
    once, _ = corrected(problem, small, large, base)
    stages = freeze(problem, base)
    for k, (_, everywhere) in enumerate(in_field(problem, stages, large)):
        gap = np.sqrt(np.mean((everywhere[-1] - target[k].f[-1]) ** 2))
        assert gap > 4 * np.sqrt(np.mean((once[k].f[-1] - target[k].f[-1]) ** 2))


def test_the_same_neurons_need_no_correction():
    problem, _ = teacher_problem("tanh", 6, 20, 10, TIMES)
    population = gaussians(problem, 128)
    stages = freeze(problem, coupled(problem, population))
    taus, worst = deviation(problem, stages, population, None, in_field(problem, stages, population), "float64")
    assert worst < 1e-12
    assert max(np.max(np.abs(tau(0.3))) for tau in taus) < 1e-12


def test_streamed_neurons_depend_on_the_seed_alone():
    problem, _ = teacher_problem("tanh", 3, 8, 3, TIMES, readout="reset")
    stages = given_fields(problem, 12)
    seeds = np.random.SeedSequence(3, spawn_key=(1,))
    pool = Threads(2)
    try:
        parts = [stream(problem, stages, 9000, seeds, threads) for threads in (Threads(1), pool)]
    finally:
        pool.close()
    for one, two in zip(*parts, strict=True):
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_array_equal(one[1], two[1])
    other = stream(problem, stages, 9000, np.random.SeedSequence(4, spawn_key=(1,)), Threads(1))
    assert np.max(np.abs(other[0][1] - parts[0][0][1])) > 1e-4


def test_streamed_neurons_are_standard_gaussians():
    """f at t = 0 and the end against many more neurons in the same field, within 4.5 standard errors (33 numbers)."""
    problem, _ = teacher_problem("softplus", 3, 8, 3, TIMES)
    stages = given_fields(problem, 12)
    population = gaussians(problem, 40_000, seed=8)
    reference = in_field(problem, stages, population, "float32")
    found = [stream(problem, stages, 4096, np.random.SeedSequence(s), Threads(1)) for s in range(12)]
    for k in (0, 1):
        values = np.array([part[k][1] for part in found])
        error = values.std(axis=0, ddof=1) / np.sqrt(12) * np.sqrt(1 + 12 * 4096 / 40_000)
        away = np.abs(values.mean(axis=0) - reference[k][1]) / error
        assert np.max(away) < stats.t.isf(stats.norm.sf(4.5), 11)


# ---------------------------------------------------------------------------------------------------- the guard

STREAMED = Numerics(accuracy=5e-3, repeats=2, seed=2)


def streamed_problem():
    problem, _ = teacher_problem("tanh", 6, 8, 20, [0.0, 0.5])
    return problem


def test_an_accurate_run_is_corrected():
    problem = streamed_problem()
    chosen = plan(problem, STREAMED)
    assert chosen.streamed > 2 * chosen.neurons
    found = solve(problem, STREAMED)
    assert found.notes == []
    alone = solve(problem, replace(STREAMED, neurons=chosen.neurons))
    assert np.max(np.abs(found.f[1] - alone.f[1])) > 1e-4


def test_the_spread_is_that_of_the_streamed_neurons():
    """Over 8 repeats: 11250 streamed neurons in the field of 2048 against these alone."""
    problem, numerics = streamed_problem(), replace(STREAMED, accuracy=2e-3, repeats=8)
    chosen = plan(problem, numerics)
    spread = [
        np.sqrt(np.mean(solve(problem, n).f[1].var(axis=0)))
        for n in (numerics, replace(numerics, neurons=chosen.neurons))
    ]
    expected = np.sqrt(chosen.neurons / chosen.streamed)
    assert expected < 0.45
    assert spread[0] / spread[1] == pytest.approx(expected, rel=0.4)


def test_an_incredible_correction_is_refused_and_told(monkeypatch):
    problem = streamed_problem()
    monkeypatch.setattr(ensemble, "_MAX_TAU", 1e-9)
    found = solve(problem, STREAMED)
    assert len(found.notes) == 2
    for repeat, note in enumerate(found.notes, 1):
        assert note.startswith(f"repeat {repeat}: the frozen-field correction is too large to be trusted (|tau| = ")
        assert note.endswith("its coupled population stands alone; use a looser --accuracy or give --neurons.")
    # The coupled populations, at the tolerance that was tried last.
    tolerance = plan(problem, STREAMED).control.tolerance / 16
    alone = solve(problem, replace(STREAMED, neurons=plan(problem, STREAMED).neurons, tolerance=tolerance))
    for a, b in zip(found.f, alone.f, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)  # a given tolerance is not that of the richness


def test_a_field_too_coarse_in_time_is_no_number():
    """Too few steps for the field: infinities are seen by the guard, and raise nothing."""
    problem, _ = teacher_problem("tanh", 3, 8, 3, [0.0, 1.0], gamma2=1.5)
    population = gaussians(problem, 32)
    stages = given_fields(problem, 12)
    large = in_field(problem, stages, population)
    large[1][0][3] = np.nan
    _, worst = deviation(problem, stages, population, None, large, "float64")
    assert worst == np.inf


def test_a_redrawn_readout_is_streamed_as_well():
    problem, _ = teacher_problem("tanh", 6, 8, 20, [0.0, 0.5], gamma2=1.5, readout="reset")
    found = solve(problem, STREAMED)
    assert found.notes == []
    # The new readouts carry nothing of stage 1: f starts near zero again.
    assert np.max(np.abs(found.f[0].mean(axis=0)[-1])) > 0.1
    assert np.max(np.abs(found.f[1].mean(axis=0)[0])) < 0.05


# ---------------------------------------------------------------------------------------------------- several outputs


def classes_problem(losses=("softmax", "softmax"), counts=(3, 4), times=TIMES, dim=6, points=12, **options):
    """Classes by the largest of the first inputs: 3, then 4 of them with a new head, unless others are asked for."""
    options = {"readout": "reset", **options}
    problem, _ = teacher_problem("tanh", dim, points, 8, times, **options)
    x = np.concatenate([problem.geometry.moving, problem.geometry.still], axis=1)
    stages = []
    for stage, loss, count in zip(problem.stages, losses, counts, strict=True):
        goal = objective(loss, np.argmax(x[stage.rows, :count], axis=1).astype(float), count)
        stages.append(replace(stage, labels=goal.y, objective=goal))
    return replace(problem, stages=stages)


def test_neurons_with_several_outputs_in_a_given_field():
    """Each neuron on its own by scipy, (a.Delta) in the force; the mean over outputs, or Delta of one, is far away."""
    problem = classes_problem(points=8, dim=20, decay=0.2, gamma2=1.4)
    act, g = problem.act, problem.geometry
    rng = np.random.default_rng(5)
    u, still = rng.standard_normal((5, g.rank)), rng.standard_normal((5, g.still.shape[1]))
    a, fresh = rng.standard_normal((5, 2)), rng.standard_normal((5, 3))
    waves = [
        lambda t: np.cos(3 * t + np.arange(16)).reshape(8, 2),
        lambda t: np.sin(2 * t - np.arange(24)).reshape(8, 3),
    ]
    stages = [
        FrozenStage(s, g.moving[s.rows], np.linspace(0, 1, 97), w) for s, w in zip(problem.stages, waves, strict=True)
    ]
    found = outputs_in_field(act, stages, g.moving, g.still, u.copy(), a.copy(), still.copy(), fresh)
    faded, wrong = 1.0, None
    for k, frozen in enumerate(stages):
        s = frozen.stage
        if k:
            u, still, a = np.concatenate([u, u]), np.concatenate([still, still]), np.concatenate([fresh, -fresh])
        width = a.shape[1]
        for i in range(len(a)):

            def velocity(t, z, frozen=frozen, s=s, width=width):
                phi, slope = act.both(frozen.coords @ z[:-width])
                pull = s.scale * s.gamma * frozen.residual(t)
                return np.r_[(pull @ z[-width:] * slope) @ frozen.coords, phi @ pull] - s.decay * z

            z = solve_ivp(velocity, (0, 1), np.r_[u[i], a[i]], "DOP853", rtol=1e-11, atol=1e-11).y[:, -1]
            u[i], a[i] = z[:-width], z[-width:]
        faded *= np.exp(-s.decay)
        h = u @ g.moving.T + faded * (still @ g.still.T)
        expected = act.phi(h).T @ a * (0.5 if k else 1.0)
        np.testing.assert_allclose(found[k][1][-1], expected, rtol=0, atol=1e-7)
        np.testing.assert_allclose(found[k][0][-1], expected[s.rows], rtol=0, atol=1e-7)
        wrong = act.phi(h).T @ a[:, [0] * width]
    assert wrong is not None
    assert np.max(np.abs(found[1][1][-1] - wrong)) > 0.1


def test_several_outputs_are_corrected_to_the_coupled_run_of_the_same_neurons():
    """f of 1024 coupled pairs from 64, in both stages and by both losses; uncorrected it is four times as far."""
    problem = classes_problem(("softmax", "mse"), (3, 3), readout="reset")
    large = gaussians(problem, 2048, pairs=True, readouts=2)
    picked = np.r_[0:64, 1024:1088]
    small = replace(large, hidden=large.hidden[picked], readout=large.readout[picked], still=large.still[picked])
    fresh = np.random.default_rng(7).standard_normal((2048, 3))
    target = coupled(problem, large, redrawn=fresh)
    base = coupled(problem, small, redrawn=fresh[picked])
    stages = freeze(problem, base)
    streamed = in_field(problem, stages, large, redrawn=fresh)
    taus, worst = deviation(problem, stages, small, fresh[picked], streamed, "float64")
    found = coupled(problem, small, redrawn=fresh[picked], corrections=[Correction(shift=tau) for tau in taus])
    assert worst < 0.5
    assert np.all(distance(found, target) < 0.25 * distance(base, target))


def test_accurate_classes_are_streamed_and_start_from_nothing(monkeypatch):
    """The spread over repeats is that of the streamed pairs; the old head goes on from where the source has ended."""
    monkeypatch.setattr(planning, "_MANY", 1000)  # the numbers of neurons that need it take minutes
    problem, numerics = classes_problem(times=[0.0, 2.0]), replace(STREAMED, accuracy=2.5e-3, repeats=8)
    chosen = plan(problem, numerics)
    assert chosen.streamed > 3 * chosen.neurons
    found, alone = (solve(problem, n) for n in (numerics, replace(numerics, neurons=chosen.neurons)))
    assert found.notes == []
    for stage in (0, 1):
        assert np.max(np.abs(found.f[stage][:, 0])) < 1e-6, "pairs"
        spread = [np.sqrt(np.mean(s.f[stage][:, -1].var(axis=0))) for s in (found, alone)]
        assert spread[0] / spread[1] == pytest.approx(np.sqrt(chosen.neurons / chosen.streamed), rel=0.5)
        apart = found.f[stage][:, -1].mean(axis=0) - alone.f[stage][:, -1].mean(axis=0)
        assert np.sqrt(np.mean(apart**2)) < 2.5 * spread[1] / np.sqrt(8)
    np.testing.assert_allclose(found.observed[1]["old_outputs"][:, 0], found.f[0][:, -1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "streamed"),
    [
        ({}, True),
        ({"accuracy": 4e-3}, False),
        ({"until": 0.01}, False),
        ({"momentum": 0.5}, False),
        ({"losses": ("softmax", "mse"), "counts": (3, 3), "readout": "carry"}, False),
        ({"losses": ("mse", "mse"), "counts": (3, 3), "readout": "carry"}, True),
    ],
)
def test_which_classes_are_streamed(change, streamed):
    """Not where few neurons do, a field is no smooth function of time, or a readout appears at the switch."""
    made = {name: value for name, value in change.items() if name in ("losses", "counts", "readout")}
    problem = classes_problem(times=[0.0, 2.0], **made)
    problem = replace(problem, stages=[replace(s, momentum=change.get("momentum", 0.0)) for s in problem.stages])
    chosen = plan(problem, replace(STREAMED, accuracy=change.get("accuracy", 2e-3), until=change.get("until")))
    assert (chosen.streamed > 0) == streamed
