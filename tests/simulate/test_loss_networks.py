"""Finite networks of any loss: literal gradient descent, the theory, and formulas that must disagree with it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.dmft import losses as zoo
from tlcli.dmft.activations import activation
from tlcli.dmft.ensemble import Numerics, solve
from tlcli.dmft.loss_setup import LossSetup
from tlcli.dmft.network_transfer import solve_transfer
from tlcli.dmft.two_layer import Problem, _Way
from tlcli.errors import ConvergenceError, UsageError
from tlcli.losses import loss_of
from tlcli.losses.labels import objective_of
from tlcli.simulate.deep import experiment_of
from tlcli.simulate.loss_networks import LossNetworks, simulate_losses
from tlcli.simulate.two_layer import Pull, descend
from tlcli.simulate.vector_network import VectorDeepNetwork, VectorNetwork
from tlcli.training import TransferSettings

COLUMNS = ("loss", "error", "gain", "gain_error", "baseline", "train_loss", "source_loss", "source_error")


def data_of(classes=(2, 3), p=12, test=40, dim=4, seed=0):
    """Two tasks with classes by the largest of some projections, the first point of every class heavier to reach."""
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal((n, dim)) for n in (p, p, test)]
    teachers = rng.standard_normal((dim, 3))

    def labels(points, count):
        best = np.argmax((points @ teachers)[:, :count], axis=1).astype(float)
        return np.where(best == 0, 1.0, -1.0) if count == 2 else best

    first, second = classes
    return SimpleNamespace(
        x_source=x[0],
        y_source=labels(x[0], first),
        x_target=x[1],
        y_target=labels(x[1], second),
        x_test=x[2],
        y_test_source=labels(x[2], first),
        y_test_target=labels(x[2], second),
        classes_source=first,
        classes_target=second,
    )


def settings_of(**words):
    return TransferSettings(**{"times1": (2.0,), "times2": (0.0, 3.0), "readout": "reset", **words})


def literal(weights, readout, x, y, value, gamma, eta, steps, decay):
    """Descent of (1/P) sum l by finite differences of the loss itself, one weight at a time."""
    w, a = weights.copy(), readout.copy()
    n = len(a)

    def objective(w, a):
        f = np.tanh(x @ w.T / np.sqrt(x.shape[1])) @ a / (gamma * n)
        return np.mean(value(f, y)) * gamma**2 * n

    for _ in range(steps):
        moves = []
        for array in (w, a):
            grad = np.zeros_like(array)
            for at in np.ndindex(*array.shape):
                kept = array[at]
                ends = []
                for h in (1e-5, -1e-5):
                    array[at] = kept + h
                    ends.append(objective(w, a))
                array[at] = kept
                grad[at] = (ends[0] - ends[1]) / 2e-5
            moves.append(eta * (grad + decay * array))
        w, a = w - moves[0], a - moves[1]
    return np.tanh(x @ w.T / np.sqrt(x.shape[1])) @ a / (gamma * n)


def test_gradient_descent_of_softmax_by_finite_differences():
    rng = np.random.default_rng(1)
    x, loss = rng.standard_normal((3, 2)), loss_of("softmax")
    w, a = rng.standard_normal((4, 2)), rng.standard_normal((4, 3))
    net = VectorNetwork(w.copy(), a.copy(), activation("tanh"))
    for _ in descend(net, x, AIM, (0.6,), gamma=1.3, decay=0.1, dt=0.2):
        pass
    assert np.allclose(net.outputs(x, 1.3), literal(w, a, x, AIM.labels, loss.value, 1.3, 0.2, 3, 0.1), atol=1e-8)


AIM = Pull(np.eye(3), objective=replace(objective_of(loss_of("softmax"), zoo.C1, 3, "x"), basis=None))


def slopes(arrays, function, step=1e-6):
    """Derivatives of a function of arrays that are changed in place, by central differences."""
    out = []
    for array in arrays:
        found = np.zeros((*array.shape, *np.shape(function())))
        for at in np.ndindex(*array.shape):
            kept, ends = array[at], []
            for h in (step, -step):
                array[at] = kept + h
                ends.append(function())
            array[at] = kept
            found[at] = (ends[0] - ends[1]) / (2 * step)
        out.append(found)
    return out


@pytest.mark.parametrize("depth", [1, 3])
def test_steps_and_largest_eigenvalue_of_several_outputs(depth):
    """One step is the gradient of the loss; the power iteration finds the top of J J^T."""
    rng = np.random.default_rng(2)
    x, n, gamma = rng.standard_normal((3, 2)), 5, 1.3
    xs = x / np.sqrt(2)
    weights, readout = rng.standard_normal((n, 2)), rng.standard_normal((n, 3))
    hidden = [rng.standard_normal((n, n)) for _ in range(depth - 1)]
    act = activation("tanh")
    net = VectorNetwork(weights, readout, act) if depth == 1 else VectorDeepNetwork(weights, readout, act, hidden)
    arrays = [weights, *hidden, readout]
    jacobian = np.concatenate([s.reshape(-1, 9) for s in slopes(arrays, lambda: net.forward(xs)[1])])
    passes, f = net.forward(xs)
    found, _ = net.curvature(passes, xs, rng.standard_normal((3, 3)), 300)
    assert found == pytest.approx(np.linalg.eigvalsh(jacobian.T @ jacobian / n)[-1], rel=1e-6)
    wanted = slopes(arrays, lambda: AIM.objective.value(net.outputs(x, gamma)) / 3 * gamma**2 * n)
    before = [array.copy() for array in arrays]
    pull = gamma / 3 * AIM.force(f / (gamma * n))
    passes, _ = net.forward(xs)
    net.update(passes, xs, pull, net.force(passes, pull), 0.1, 0.2)
    for array, old, slope in zip(arrays, before, wanted, strict=True):
        assert np.allclose(array, old - 0.1 * (slope + 0.2 * old), rtol=0, atol=1e-7)


@pytest.fixture(scope="module")
def trained():
    """Networks of logistic, then softmax with a new head and weights; the theory on the same data."""
    data = data_of()
    settings = settings_of(loss1="logistic", loss2="softmax", gamma0=1.5, label_smoothing=0.1, weight_decay2=0.02)
    x = np.concatenate([data.x_source, data.x_target, data.x_test])
    setup = LossSetup(data, settings, activation("tanh"), x)
    second = replace(
        setup.sides[1], objective=replace(setup.sides[1].objective, weights=np.array([2.0] * 4 + [0.5] * 8))
    )
    setup.__dict__["sides"] = (setup.sides[0], second)
    networks = LossNetworks(experiment_of(settings, 300, None), setup, 3)
    found = networks.train(range(32), 0)
    return setup, found


def theory(setup, change=lambda objective: objective):
    """Outputs at the end of the target stage, and their errors."""
    stages = [setup.stage(1), setup.stage(2, "reset")]
    stages[1] = replace(stages[1], objective=change(stages[1].objective))
    numerics = Numerics(population="mc", neurons=2048, repeats=8, seed=5)
    found = solve(Problem(setup.act, setup.geometry, stages), numerics).f[1][:, -1]
    f = stages[1].objective.outputs(found)
    return f.mean(axis=0), f.std(axis=0, ddof=1) / np.sqrt(len(f))


def distance(trained, change=lambda objective: objective):
    """Root mean square of the deviations of f at all points in combined standard errors."""
    setup, found = trained
    nets = found["target"][:, -1]
    nets = nets - nets.mean(axis=-1, keepdims=True)
    f, se = theory(setup, change)
    return np.sqrt(np.mean((nets.mean(axis=0) - f) ** 2) / np.mean(nets.var(axis=0, ddof=1) / len(nets) + se**2))


def test_networks_have_the_outputs_of_the_theory(trained):
    assert distance(trained) < 1.8


def test_twins_that_must_fail(trained):
    """A last logit that is held at zero instead of the centred coordinates, and the unweighted mean."""
    held = np.eye(3)[:, :2]

    def gauge(objective):
        return replace(objective, basis=held)

    def centred(objective):
        found = gauge(objective)
        return _Centred(found.loss, found.y, found.weights, held)

    assert distance(trained, centred) > 4
    assert distance(trained, lambda objective: replace(objective, weights=None)) > 4


class _Centred(type(objective_of(loss_of("softmax"), zoo.C1, 3, "x"))):
    """Logits (g, 0), reported centred."""

    def outputs(self, g):
        f = g @ self.basis.T
        return f - f.mean(axis=-1, keepdims=True)


def test_losses_of_mean_outputs_and_not_mean_losses():
    """The loss of the mean output of small populations is that of a large one; the mean of their losses is larger."""
    data, settings = data_of(), settings_of(loss1="logistic", loss2="softmax", gamma0=0.3, activation="relu")
    settings = replace(settings, times2=(30.0,))
    x = np.concatenate([data.x_source, data.x_target, data.x_test])
    setup = LossSetup(data, settings, activation("relu"), x)
    side, found = setup.sides[1], {}
    for neurons, repeats in ((32, 160), (8192, 1)):
        numerics = Numerics(population="mc", neurons=neurons, repeats=repeats, seed=7)
        f = solve(Problem(setup.act, setup.geometry, [setup.stage(2)]), numerics).f[0][:, -1]
        f = side.objective.outputs(f)[:, setup.test]
        each = side.loss.value(f, np.broadcast_to(side.test, f.shape)).mean(axis=1)
        found[neurons] = side.loss.value(f.mean(axis=0), side.test).mean(), each.mean(), each.std() / repeats**0.5
    true, (mean_output, averaged, se) = found[8192][0], found[32]
    assert abs(mean_output - true) < 3 * se
    assert averaged - true > 4 * se, "the twin"


@pytest.mark.parametrize(
    "words",
    [
        {"loss1": "logistic", "loss2": "softmax"},
        {"loss1": "hinge2", "loss2": "hinge2", "readout": "carry-centred", "classes": (2, 2), "gamma2": 0.7},
        {"loss1": "softmax", "loss2": "softmax", "classes": (3, 3), "readout": "carry"},
        {"loss1": "mse", "loss2": "mse", "classes": (3, 3), "readout": "carry", "weight_decay": 0.05},
        {"loss1": "softmax", "loss2": "logistic", "classes": (3, 2), "target": "frozen", "ridge": 0.05},
        {"loss1": "softmax", "loss2": "softmax", "classes": (2, 3), "target": "frozen", "kernel": "ntk"},
        {"loss1": "softmax", "loss2": "mse", "classes": (3, 3), "readout": "carry", "weight_decay": 0.1, "gamma0": 1.5},
        {"loss1": "mse", "loss2": "softmax", "classes": (3, 3), "readout": "carry"},
        {"loss1": "logistic", "loss2": "softmax", "depth": 2, "weight_decay2": 0.05},
        {
            "loss1": "softmax",
            "loss2": "softmax",
            "classes": (3, 3),
            "depth": 2,
            "readout": "carry-centred",
            "freeze": 1,
        },
        {"loss1": "softmax", "loss2": "softmax", "classes": (2, 3), "depth": 2, "target": "frozen", "kernel": "ntk"},
    ],
)
def test_columns_agree_with_the_theory(words):
    """Every judged column within 4 combined errors and what one network more or less would change."""
    words = dict(words)
    data = data_of(words.pop("classes", (2, 3)))
    settings = settings_of(**words)
    ours = solve_transfer(data, settings, Numerics(population="mc", neurons=2048, repeats=6, seed=1)).columns
    width, nets = (300, 12) if settings.depth == 1 else (150, 12)
    found = simulate_losses(data, experiment_of(settings, width, None), nets=nets, seed=2, measured=COLUMNS)
    last = slice(-1, None)
    for name in COLUMNS:
        mean, se = (np.asarray(part)[last] for part in found[name])
        error = np.hypot(se, ours[f"{name}_se"][last])
        if np.isnan(mean).all() and np.isnan(ours[name][last]).all():
            continue
        assert np.all(np.abs(mean - ours[name][last]) < 4 * error + 1 / width)  # 1/N of order-one outputs, name
    assert 0 <= found["step_error"].mean < 0.02


def test_new_heads_leave_the_old_one_to_report():
    data, settings = data_of(), settings_of(loss1="logistic", loss2="softmax")
    x = np.concatenate([data.x_source, data.x_target, data.x_test])
    networks = LossNetworks(experiment_of(settings, 50, None), LossSetup(data, settings, activation("tanh"), x), 0)
    found = networks.train([0, 1], 0)
    assert found["target"].shape == (2, 2, 64, 3)
    assert found["old"].shape == (2, 2, 64)
    assert np.allclose(found["old"][:, 0], found["source"][:, -1], atol=1e-12), "at the switch nothing has moved"
    assert not np.allclose(found["old"][:, 1], found["source"][:, -1], atol=1e-3)
    first = networks.train([1], 0)
    assert np.array_equal(first["target"][0], found["target"][1]), "a network is its number"


def test_one_network_has_no_error_and_none_is_refused():
    data, settings = data_of(), settings_of(loss1="logistic", loss2="softmax", times1=(0.5,), times2=(0.5,))
    found = simulate_losses(data, experiment_of(settings, 20, 0.1), nets=1, seed=0, measured=("loss", "error"))
    assert np.isfinite(found["loss"].mean[-1])
    assert np.isnan(found["loss"].se[-1])
    assert np.isnan(found["error"].se[-1])
    with pytest.raises(UsageError, match="at least one network"):
        simulate_losses(data, experiment_of(settings, 20, 0.1), nets=0, seed=0, measured=("loss",))
    steep = settings_of(loss1="mse", loss2="mse", times1=(200.0,))
    with pytest.raises(ConvergenceError, match="smaller dt"):
        simulate_losses(data, experiment_of(steep, 20, 20.0), nets=1, seed=0, measured=("loss",))


def test_the_common_part_of_readouts_comes_back_after_softmax(monkeypatch):
    """Twin of the carry from softmax to mse: without what softmax left out, networks of mse move less."""
    data, words = data_of((3, 3)), {"loss1": "softmax", "loss2": "mse", "readout": "carry", "gamma0": 1.5}
    settings, numerics = settings_of(**words), Numerics(population="mc", neurons=2048, repeats=6, seed=1)
    whole = solve_transfer(data, settings, numerics).columns
    turn = _Way.turn
    monkeypatch.setattr(_Way, "turn", lambda self, index, common: turn(self, index, 0 * common))
    without = solve_transfer(data, settings, numerics).columns
    networks = simulate_losses(data, experiment_of(settings, 300, None), nets=12, seed=2, measured=("train_loss",))
    mean, se = (np.asarray(part)[-1] for part in networks["train_loss"])
    error = np.hypot(se, whole["train_loss_se"][-1])
    assert abs(mean - whole["train_loss"][-1]) < 3 * error + 1 / 300
    assert abs(mean - without["train_loss"][-1]) > 5 * error + 1 / 300
