"""Deep networks of any loss: the reference, one hidden layer, and identities between losses."""

from dataclasses import replace

import numpy as np
import pytest

from tests.dmft import losses as zoo
from tlcli.dmft.activations import activation
from tlcli.dmft.deep.field import DeepField, Training, Weights, sizes_of
from tlcli.dmft.deep.lazy import initial_deep_kernels
from tlcli.dmft.deep.run import run_stages
from tlcli.dmft.deep.solve import DeepEnsemble
from tlcli.dmft.deep.start import exact, sampled
from tlcli.dmft.ensemble import Numerics, solve
from tlcli.dmft.geometry import reduce_inputs
from tlcli.dmft.integrate import Control
from tlcli.dmft.two_layer import Problem, Stage
from tlcli.losses import Objective
from tlcli.training import Surgery

POINTS = zoo.inputs(8, 4)
GEOMETRY = reduce_inputs(POINTS, 6)


def ensemble(act, numerics, stages, depth=2, points=POINTS):
    phi = activation(act)
    readouts = tuple(stage.readouts for stage in (stages[0], stages[-1]))
    geometry = reduce_inputs(points, 6)
    return DeepEnsemble(
        phi,
        geometry,
        depth,
        np.arange(6),
        numerics,
        lambda: initial_deep_kernels(phi, points, points[:6], depth),
        readouts=readouts,
    )


def outputs(found, stages):
    """Outputs of every stage: mean and standard error over repeats."""
    f = [stage.objective.outputs(part) for stage, part in zip(stages, found.f, strict=True)]
    count = len(f[0])
    error = [part.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else 0 * part[0] for part in f]
    return [part.mean(axis=0) for part in f], error


@pytest.mark.parametrize("case", ["D1", "D2"])
def test_linear_networks_are_exact(case):
    """Every row of the reference to 1e-10, with the old head's outputs beside a new one's."""
    act, dt, stages = zoo.deep_cases()[case]
    stages = zoo.stages_of(case, stages)
    found = ensemble(act, Numerics(integrator="euler", dt=dt), stages).solve(stages, Surgery())
    assert not found.message
    mean, _ = outputs(found, stages)
    deviations = zoo.deviations(case, stages, mean)
    assert len(deviations) > 40
    assert np.max(np.abs(deviations[:, 0])) < 1e-10
    objectives = zoo.objectives(case, stages, mean)
    assert len(objectives) == 6
    assert np.max(np.abs(objectives[:, 0])) < 1e-10


@pytest.mark.parametrize("case", ["D3", "D4"])
def test_sampled_networks(case):
    """Every row of outputs and objectives within 4 combined standard errors; another richness is not."""
    act, dt, stages = zoo.deep_cases()[case]
    stages = zoo.stages_of(case, stages)
    numerics = Numerics(integrator="euler", dt=dt, neurons=3000, repeats=8, seed=1)

    def scatter(stages):
        found = ensemble(act, numerics, stages).solve(stages, Surgery())
        mean, error = outputs(found, stages)
        each = [stage.objective.outputs(part) for stage, part in zip(stages, found.f, strict=True)]
        objectives = np.array([zoo.objectives(case, stages, [f[k] for f in each])[:, 0] for k in range(len(each[0]))])
        near = zoo.objectives(case, stages, mean)
        assert len(near) == 8
        spread = np.hypot(objectives.std(axis=0, ddof=1) / np.sqrt(len(objectives)), near[:, 1])
        of_objective = np.abs(near[:, 0] / spread)[spread > 1e-8].max()
        deviations, errors = zoo.deviations(case, stages, mean), zoo.deviations(case, stages, error)
        spread = errors[:, 0] + np.array([row["value"] for row in zoo.rows(case)])
        moved = np.abs(deviations[:, 0]) > 1e-6
        return np.abs(deviations[:, 0] / np.hypot(spread, deviations[:, 1]))[moved].max(), of_objective

    assert max(scatter(stages)) < 4
    assert min(scatter([replace(stage, gamma=1.3 * stage.gamma) for stage in stages])) > 8


def single(stages, depth, act="linear", dt=0.1):
    """Outputs of an exact network (n_time, n_point[, K]) per stage."""
    start = exact(
        activation(act), GEOMETRY, depth, np.arange(6), readouts=tuple(s.readouts for s in (stages[0], stages[-1]))
    )
    return [run.f for run in run_stages(start, stages, Control("euler", dt=dt), Surgery())]


def stage(target, rows=(0, 1, 2), gamma=1.0, decay=0.0, readout="carry", times=(0.0, 1.0, 3.0)):
    return Stage(np.array(rows), target.y, gamma, np.array(times), 1 / 3, decay, readout, target)


def test_softmax_of_two_classes_is_logistic():
    """Identity 1 at any depth: f1 - f2 with gamma sqrt(2), t/2 and 2 lambda."""
    two = zoo.objective("softmax", zoo.Y1, 2)
    one = zoo.objective("logistic", zoo.Y1, 2)
    (f,) = single([stage(two, gamma=np.sqrt(2) * 0.8, decay=0.04, times=(0.0, 0.5, 1.5))], 3, dt=0.05)
    (g,) = single([stage(one, gamma=0.8, decay=0.02)], 3)
    logits = two.outputs(f)
    assert np.allclose(logits[..., 0] - logits[..., 1], g, rtol=0, atol=1e-9)
    assert np.max(np.abs(g)) > 0.3


def test_the_centred_readouts_are_those_of_all_classes():
    """Identity 5: with all C readouts the centred outputs are those of the C - 1 coordinates."""
    reduced = zoo.objective("softmax", zoo.C1, 3)
    (f,) = single([stage(reduced, decay=0.05)], 2)
    (g,) = single([stage(Objective(reduced.loss, reduced.y), decay=0.05)], 2)
    assert np.allclose(reduced.outputs(f), g - g.mean(axis=-1, keepdims=True), rtol=0, atol=1e-9)
    assert np.allclose(g.sum(axis=-1), 0, atol=1e-9)


def test_rotated_labels_of_the_squared_error():
    """Identity 3: y R^T gives f R^T; one output in K is that of the squared error without a name."""
    rng = np.random.default_rng(0)
    y, turn = rng.standard_normal((3, 3)), np.linalg.qr(rng.standard_normal((3, 3)))[0]
    (f,) = single([stage(zoo.objective("mse", y))], 2)
    (g,) = single([stage(zoo.objective("mse", y @ turn.T))], 2)
    assert np.allclose(f @ turn.T, g, rtol=0, atol=1e-9)
    line = np.outer(zoo.Y1, [0.6, 0.0, 0.8])
    (h,) = single([stage(zoo.objective("mse", line))], 2)
    (plain,) = single([replace(stage(zoo.objective("mse", zoo.Y1)), objective=None)], 2)
    assert np.allclose(h, plain[..., None] * np.array([0.6, 0.0, 0.8]), rtol=0, atol=1e-9)


def test_one_hidden_layer_is_the_other_solver():
    """A depth of one, sampled, is the two-layer population with the same loss within its errors."""
    stages = [stage(zoo.objective("logistic", zoo.Y1, 2)), stage(zoo.objective("softmax", zoo.C2, 3), (3, 4, 5), 1.5)]
    stages[1] = replace(stages[1], readout="reset")
    numerics = Numerics(neurons=4000, repeats=6, seed=2)
    deep = ensemble("tanh", numerics, stages, depth=1).solve(stages, Surgery())
    wide = solve(Problem(activation("tanh"), GEOMETRY, stages), Numerics(population="sobol", neurons=4096, repeats=4))
    (a, b), (c, d) = outputs(deep, stages), outputs(wide, stages)
    for k in (0, 1):
        z = (a[k] - c[k])[1:] / np.hypot(b[k], d[k])[1:]
        assert np.sqrt(np.mean(z**2)) < 1.7
        assert np.max(np.abs(c[k])) > 0.2


@pytest.mark.parametrize("losses", [("softmax", "mse"), ("mse", "softmax")])
@pytest.mark.parametrize("readout", ["carry", "carry-centred"])
def test_softmax_and_the_squared_error_hand_readouts_to_each_other(losses, readout):
    """A depth of one, exact, keeps all readouts; two layers draw again what softmax leaves out."""
    targets = [zoo.objective(loss, labels, 3) for loss, labels in zip(losses, (zoo.C1, zoo.C2), strict=True)]
    two = [stage(targets[0], decay=0.05), stage(targets[1], (3, 4, 5), 1.5, readout=readout)]
    deep = [replace(one, objective=target.in_full()) for one, target in zip(two, targets, strict=True)]
    found = ensemble("linear", Numerics(tolerance=1e-6), deep, depth=1).solve(deep, Surgery())
    wide = solve(Problem(activation("linear"), GEOMETRY, two), Numerics(integrator="dop853", tolerance=1e-10))
    (_, a), (_, c) = (outputs(one, stages)[0] for one, stages in ((found, deep), (wide, two)))
    assert np.allclose(a, c, rtol=0, atol=1e-4)
    if losses[0] == "softmax":
        common = np.abs(c.sum(axis=-1))  # which softmax leaves at zero
        assert common[0].max() < 1e-9 < 0.1 < common[-1].max()


def test_the_old_head_goes_on_at_the_switch():
    """What the source's readout says starts where stage 1 ended, and moves with the features."""
    act, dt, stages = zoo.deep_cases()["D4"]
    stages = [replace(s, times=np.array([0.0, 2.0])) for s in zoo.stages_of("D4", stages)]
    found = ensemble(act, Numerics(integrator="euler", dt=dt, neurons=1024, repeats=2), stages).solve(stages, Surgery())
    old = found.observed[1]["old_outputs"]
    assert old.shape == (2, 2, 8)
    assert np.allclose(old[:, 0], found.f[0][:, -1], atol=2e-3), "the sample's tables grow in between"
    assert np.max(np.abs(old[:, 1] - old[:, 0])) > 0.01


def test_cost_does_not_depend_on_the_number_of_outputs():
    """One backward field per training point: responses along it alone are revealed, whatever C is."""
    counts = {}
    for classes in (3, 6):
        labels = np.arange(6.0) % classes
        target = zoo.objective("softmax", labels, classes)
        start = sampled(
            activation("tanh"),
            GEOMETRY,
            2,
            512,
            np.random.default_rng(0),
            np.arange(6),
            readouts=(target.readouts, None),
        )
        trained = Training(GEOMETRY.moving[:6], target.y, 1.0, 1 / 6, objective=target)
        field = DeepField(start.act, start.spaces, start.hidden, trained)
        field(0.0, field.pack(Weights(start.inputs, start.readout, [np.zeros((0, 0))], np.ones(2))))
        counts[classes] = start.hidden[0].ins.count
    assert counts[3] == counts[6] == 12


def test_directions_of_forces_that_vanish():
    sizes, along = sizes_of(np.array([[3.0, 4.0], [0.0, 0.0]]))
    assert sizes.tolist() == [5, 0]
    assert along.tolist() == [[0.6, 0.8], [0, 0]]


@pytest.mark.parametrize("loss", ["softmax", "mse", "logistic"])
def test_largest_curvature_of_every_sample(loss):
    rng = np.random.default_rng(3)
    target = zoo.objective(loss, zoo.Y1 if loss == "logistic" else zoo.C1, 2 if loss == "logistic" else 3)
    g = rng.standard_normal((3, *(() if target.readouts is None else (target.readouts,))))
    found = target.largest_bend(g)
    v = rng.standard_normal((400, *g.shape))
    v /= np.linalg.norm(v, axis=-1, keepdims=True) if g.ndim > 1 else np.abs(v)
    forms = np.array([np.sum((one * target.bend(g, one)).reshape(3, -1), axis=1) for one in v])
    assert np.all(forms <= found + 1e-12)
    assert np.allclose(forms.max(axis=0), found, rtol=0.02)
