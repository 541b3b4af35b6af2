from itertools import pairwise

import numpy as np
import pytest

from tests.simulate.nets import Data, Unchecked, deep_experiment, simulate, two_layer_experiment
from tlcli.dmft.activations import activation
from tlcli.errors import ConvergenceError, DomainError, UsageError
from tlcli.simulate import deep_network
from tlcli.simulate.deep_network import DeepNetwork, draw_deep, redraw
from tlcli.simulate.two_layer import (
    descend,
    draw_network,
    frozen_outputs,
    train_networks,
    transfer_losses,
)


def plane(seed=0, p=8, dim=2):
    """Two related tasks on Gaussian inputs, `p` points each and 10 test points."""
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal((n, dim)) for n in (p, p, 10)]
    y1, y2 = (lambda x: 1.5 * np.sin(x[:, 0])), (lambda x: np.sin(x[:, 0]) + 0.8 * x[:, 1])
    return Data(x[0], y1(x[0]), x[1], y2(x[1]), x[2], y1(x[2]), y2(x[2]))


SETTINGS = {"activation": "tanh", "gamma0": 1.0, "gamma2": None, "times1": [1.0, 2.0], "times2": [0.0, 2.0]}


def experiment(**changes):
    return deep_experiment(**{**SETTINGS, "width": 20, "depth": 2, **changes})


def all_points(data):
    return np.concatenate([data.x_source, data.x_target, data.x_test])


def plain_output(layers, readout, x, phi, gamma):
    """f at inputs x (n, D) from the definition of the network, without anything of the package."""
    signal, size = x.T, x.shape[1]
    for w in layers:
        signal, size = phi(w @ signal / np.sqrt(size)), len(w)
    return readout @ signal / (gamma * size)


def finite_jacobian(net, x, frozen=0):
    """gamma df/dtheta (n, parameters) by central differences, without the parameters of the first layers."""
    columns = []
    for weights in [*net.layers[frozen:], net.readout]:
        for index in np.ndindex(weights.shape):
            keep, pair = weights[index], []
            for bump in (1e-5, -1e-5):
                weights[index] = keep + bump
                pair.append(plain_output(net.layers, net.readout, x, net.phi.phi, 1.0))
            weights[index] = keep
            columns.append((pair[0] - pair[1]) / 2e-5)
    return np.array(columns).T


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(("phi", "reduction"), [("tanh", "mean"), ("softplus", "sum"), ("erf", "sum")])
def test_a_step_follows_the_gradient_of_the_loss(depth, phi, reduction):
    data, act, gamma, decay, eta, width = plane(p=3, dim=4), activation(phi), 1.7, 0.3, 1e-6, 5
    x, y = data.x_source, data.y_source
    net, _ = draw_deep(0, 0, width, 4, depth, act)
    before = [w.copy() for w in (*net.layers, net.readout)]

    def loss(weights):
        f = plain_output(weights[:-1], weights[-1], x, act.phi, gamma)
        error = np.sum((y - f) ** 2) / (2 * (3 if reduction == "mean" else 1))
        return error + decay * sum(np.sum(w**2) for w in weights) / (2 * gamma**2 * width)

    assert list(descend(net, x, y, [eta], gamma=gamma, decay=decay, reduction=reduction, dt=eta)) == [eta]
    for which, weights in enumerate((*net.layers, net.readout)):
        slope = np.empty(weights.shape)
        for index in np.ndindex(weights.shape):
            values = []
            for bump in (1e-6, -1e-6):
                trial = [w.copy() for w in before]
                trial[which][index] += bump
                values.append(loss(trial))
            slope[index] = (values[0] - values[1]) / 2e-6
        change = (weights - before[which]) / eta
        np.testing.assert_allclose(change, -(gamma**2) * width * slope, rtol=1e-3, atol=1e-5)
        assert abs(change).max() > 0.1


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_tangent_kernel_is_that_of_the_finite_differences(depth):
    data = plane(p=4, dim=3)
    x = all_points(data)
    net, _ = draw_deep(2, 0, 5, 3, depth, activation("tanh"))
    np.testing.assert_allclose(net.outputs(x, 2.0), plain_output(net.layers, net.readout, x, np.tanh, 2.0), rtol=1e-12)
    kernels = []
    for frozen in range(depth + 1):
        net.frozen = frozen
        jacobian = finite_jacobian(net, x, frozen)
        expected = 5 * jacobian @ jacobian[4:8].T
        kernels.append(net.kernel(x, slice(4, 8), "ntk"))
        np.testing.assert_allclose(kernels[-1], expected, rtol=1e-6, atol=1e-8)
        top, _ = net.curvature(net.forward(x / np.sqrt(3))[0], x, np.ones(len(x)), 200)
        assert top == pytest.approx(np.linalg.eigvalsh(5 * jacobian @ jacobian.T)[-1], rel=1e-6)
    np.testing.assert_allclose(net.kernel(x, slice(4, 8), "feature"), kernels[-1], rtol=1e-12)  # only the readout
    assert all(abs(a - b).max() > 0.02 for a, b in pairwise(kernels))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"readout": "carry-centred", "gamma2": 0.5, "weight_decay": 0.1, "weight_decay2": 0.2},
        {"readout": "reset", "reduction": "sum", "dt": 0.05},
        {"target": "frozen", "kernel": "ntk", "ridge": 0.1, "activation": "relu"},
    ],
)
def test_one_hidden_layer_is_the_two_layer_network(changes):
    data, settings = plane(), {**SETTINGS, "width": 30, **changes}
    one = train_networks(two_layer_experiment(**settings), data, [0, 3], seed=4)
    deep = train_networks(deep_experiment(depth=1, **settings), data, [0, 3], seed=4)
    for a, b in zip(one, deep, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-10)
    other, _ = train_networks(deep_experiment(depth=2, **settings), data, [0, 3], seed=4)
    assert abs(other - one[0]).max() > 0.01


@pytest.mark.parametrize("freeze", [0, 1, 2, 3])
def test_frozen_layers_stay_bit_for_bit_and_the_others_move(freeze):
    data, e = plane(), experiment(depth=3, freeze=freeze)
    net, second = e.draw(1, 0, 2)
    list(descend(net, data.x_source, data.y_source, [1.0], gamma=1.0))
    e.switch(net, second, 1, 0)
    before = [w.copy() for w in net.layers]
    readout = net.readout.copy()
    list(descend(net, data.x_target, data.y_target, [1.0], gamma=1.0, decay=0.1))
    for layer, (old, new) in enumerate(zip(before, net.layers, strict=True), start=1):
        if layer <= freeze:
            np.testing.assert_array_equal(new, old)
        else:
            assert abs(new - old).max() > 1e-3
    assert abs(net.readout - readout).max() > 1e-3


def test_freezing_all_layers_is_regression_with_the_features_after_the_source():
    data, common = plane(p=6), {"times2": [1.0, 8.0], "times1": [3.0], "gamma2": 0.7}
    rich, _ = train_networks(experiment(freeze=2, readout="carry-centred", dt=2e-3, **common), data, [0], seed=3)
    exact, scratch = train_networks(experiment(target="frozen", dt=2e-3, **common), data, [0], seed=3)
    np.testing.assert_allclose(rich[:, 1:], exact[:, 1:], atol=2e-3)
    partly, _ = train_networks(experiment(freeze=1, readout="carry-centred", dt=2e-3, **common), data, [0], seed=3)
    assert abs(partly - exact)[:, 1:].max() > 0.1
    assert abs(scratch - exact[:, 1:]).max() > 0.1


@pytest.mark.parametrize("freeze", [0, 1, 2])
def test_small_gamma_is_regression_with_the_tangent_kernel_of_what_trains(freeze):
    # The kernel moves by O(gamma / sqrt(N)) at fixed outputs; both errors are below 0.02 here.
    data, common = plane(p=5), {"times1": [2.0], "times2": [3.0], "gamma2": 0.02, "width": 200, "dt": 5e-3}
    kernel = {"settings": Unchecked, "target": "frozen", "kernel": "ntk"}
    rich, _ = train_networks(experiment(freeze=freeze, readout="carry-centred", **common), data, [0], seed=1)
    linear, _ = train_networks(experiment(freeze=freeze, **kernel, **common), data, [0], seed=1)
    np.testing.assert_allclose(rich[:, 1], linear[:, 1], atol=0.02)
    wrong = experiment(freeze=(freeze + 1) % 3, **kernel, **common)
    assert abs(train_networks(wrong, data, [0], seed=1)[0][:, 1] - rich[:, 1]).max() > 0.04


def test_redrawn_layers_are_those_above():
    for level in range(4):
        net, _ = draw_deep(0, 1, 30, 3, 3, activation("tanh"))
        before = [*[w.copy() for w in net.layers], net.readout.copy()]
        redraw(net, level, 0, 1)
        after = [*net.layers, net.readout]
        for layer, (old, new) in enumerate(zip(before, after, strict=True), start=1):
            if layer <= level:
                np.testing.assert_array_equal(new, old)
            else:
                assert abs(np.corrcoef(old.ravel(), new.ravel())[0, 1]) < 5 / np.sqrt(old.size)
                assert new.std() == pytest.approx(1, abs=5 / np.sqrt(2 * old.size))
    again, _ = draw_deep(0, 1, 30, 3, 3, activation("tanh"))
    redraw(again, 0, 0, 1, stage=2)
    assert abs(again.readout - net.readout).max() > 0.1


def test_redrawing_everything_is_training_from_scratch_in_law():
    # 150 networks against as many with other weights: each mean within 4.5 standard errors of the difference.
    data, common = plane(p=4), {"times1": [6.0], "times2": [3.0], "gamma0": 2.0, "dt": 0.1}
    f, scratch = train_networks(experiment(reinit_from=0, **common), data, range(150), seed=0)

    def distance(a, b):
        error = np.sqrt(a.var(axis=0, ddof=1) / len(a) + b.var(axis=0, ddof=1) / len(b))
        return (abs(a.mean(axis=0) - b.mean(axis=0)) / error).max()

    assert distance(f[:, 1], scratch[:, 0]) < 4.5
    assert distance(f[:, 1] ** 2, scratch[:, 0] ** 2) < 4.5
    kept, _ = train_networks(experiment(reinit_from=1, **common), data, range(150), seed=0)
    assert distance(kept[:, 1], scratch[:, 0]) > 6


def balance(net, neuron_layer):
    """|incoming weights|^2 - |outgoing weights|^2 of each neuron of one layer, (N,)."""
    layers = [*net.layers, net.readout[None]]
    return np.sum(layers[neuron_layer] ** 2, axis=1) - np.sum(layers[neuron_layer + 1] ** 2, axis=0)


@pytest.mark.parametrize(("phi", "depth"), [("linear", 2), ("relu", 2), ("linear", 3), ("relu", 3)])
def test_balance_of_the_layers_is_conserved_up_to_the_step(phi, depth):
    data = plane(p=5, dim=3)

    def drifts(name):
        out = []
        for dt in (0.02, 0.01):
            net, _ = draw_deep(0, 0, 16, 3, depth, activation(name))
            before = [balance(net, layer) for layer in range(depth)]
            moved = np.sum(net.weights**2, axis=1)
            for rows in (data.x_source, data.x_target):
                list(descend(net, rows, data.y_source, [1.5], gamma=1.5, dt=dt))
            out.append([abs(balance(net, layer) - before[layer]).max() for layer in range(depth)])
            assert abs(np.sum(net.weights**2, axis=1) - moved).max() > 0.3
        return np.array(out)

    drift = drifts(phi)
    assert drift[0].max() < 0.1
    np.testing.assert_allclose(drift[0] / drift[1], 2, rtol=0.3)
    wrong = drifts("tanh")  # not homogeneous: the balance changes however small the step
    assert np.all(wrong[1] > 3 * drift[0])
    np.testing.assert_allclose(wrong[0] / wrong[1], 1, rtol=0.1)


def test_networks_differ_by_one_over_root_width():
    spread = []
    for width in (16, 256):
        e = experiment(depth=3, width=width, times1=[2.0], times2=[2.0], dt=0.1)
        f, _ = train_networks(e, plane(), range(24), 1)
        spread.append(np.sqrt(f[:, -1].var(axis=0, ddof=1).mean()))
    # 16 times the width: a factor 4; a spread over 24 networks is known to about 15%
    assert 2.7 < spread[0] / spread[1] < 6


def test_networks_do_not_depend_on_which_others_are_trained_nor_on_how_points_are_held(monkeypatch):
    data, e = plane(), experiment(settings=Unchecked, reinit_from=1, target="frozen", kernel="ntk")
    together, scratch = train_networks(e, data, [0, 1, 2], seed=4)
    alone, _ = train_networks(e, data, [2], seed=4)
    np.testing.assert_array_equal(together[2], alone[0])
    assert abs(together[0] - together[2]).max() > 0.01
    monkeypatch.setattr(deep_network, "HELD", 16 * 20)  # points in two turns
    np.testing.assert_allclose(train_networks(e, data, [2], seed=4)[0], alone, rtol=1e-9, atol=1e-12)
    assert abs(scratch[0] - scratch[2]).max() > 0.01


def test_readout_at_the_switch():
    data, common = plane(), {"gamma2": 0.5, "times2": [0.0, 3.0]}
    runs = {
        name: train_networks(experiment(**common, **changes), data, [0, 1], seed=2)
        for name, changes in {
            "carry": {},
            "centred": {"readout": "carry-centred"},
            "reset": {"readout": "reset"},
            "redrawn": {"reinit_from": 2},
            "redrawn-centred": {"reinit_from": 1, "readout": "carry-centred"},
        }.items()
    }
    f = {name: run[0] for name, run in runs.items()}
    np.testing.assert_allclose(f["carry"][:, 2], 2 * f["carry"][:, 1], rtol=1e-12)  # jumps by gamma0/gamma2
    for name in ("centred", "redrawn-centred"):
        np.testing.assert_allclose(f[name][:, 2], 0, atol=1e-14)
    for i in range(2):
        net, second = draw_deep(2, i, 20, 2, 2, activation("tanh"))
        list(descend(net, data.x_source, data.y_source, SETTINGS["times1"], gamma=1.0))
        net.readout = second
        np.testing.assert_allclose(f["reset"][i, 2], net.outputs(all_points(data), 0.5), rtol=1e-12)
        redraw(net, 2, 2, i)
        np.testing.assert_allclose(f["redrawn"][i, 2], net.outputs(all_points(data), 0.5), rtol=1e-12)
    for name, run in runs.items():
        np.testing.assert_array_equal(f[name][:, :2], f["carry"][:, :2])
        losses = transfer_losses(*run, data)["train_loss"]
        assert np.all(losses[:, -1] < losses[:, -2])


def test_sum_and_mean_loss_are_one_flow():
    data, p = plane(), 8
    mean = experiment(weight_decay=0.02, weight_decay2=0.01, times1=[2.0], times2=[4.0], gamma2=1.5, freeze=1)
    changes = {"weight_decay": 0.02 * p, "weight_decay2": 0.01 * p, "times1": [2.0 / p], "times2": [4.0 / p]}
    summed = experiment(**{**vars(mean.training), **changes, "reduction": "sum"})
    for a, b in zip(train_networks(mean, data, [0], 0), train_networks(summed, data, [0], 0), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("phi", "gamma"), [("tanh", 0.3), ("tanh", 4.0), ("relu", 4.0), ("linear", 4.0)])
def test_the_chosen_step_is_stable_and_small_enough(phi, gamma):
    data, sizes = plane(p=6), {"depth": 3, "width": 20, "nets": 3, "seed": 0}
    settings = {**SETTINGS, "activation": phi, "gamma0": gamma, "times1": [4.0], "times2": [4.0], **sizes}
    chosen, fine = simulate(data, **settings), simulate(data, dt=1e-2, **settings)
    for name in ("loss", "train_loss", "source_loss", "source_train_loss"):
        # What the step may change: half of a standard error or 1% of the loss at its largest, for network 0.
        allowed = np.maximum(chosen[name].se / 2, 0.01 * np.max(chosen[name].mean))
        assert np.all(abs(chosen[name].mean - fine[name].mean) < 2 * allowed + 2 * fine["step_error"].mean)
    assert fine["step_error"].mean < 0.02
    assert chosen["train_loss"].mean[1] < chosen["train_loss"].mean[0]


def test_columns_and_gain():
    data = plane()
    out = simulate(data, **SETTINGS, depth=2, width=16, nets=3, seed=1, dt=0.1, freeze=1, reinit_from=1)
    assert set(out) == {
        *("loss", "source_loss", "train_loss", "source_train_loss", "baseline", "gain", "step_error"),
    }
    run = train_networks(experiment(width=16, dt=0.1, freeze=1, reinit_from=1), data, range(3), seed=1)
    np.testing.assert_allclose(out["loss"].mean, np.mean((run[0][:, :, 16:] - data.y_test_target) ** 2, axis=(0, 2)))
    errors = [(f[:, :, 16:] - data.y_test_target) ** 2 for f in (run[1], run[0][:, 2:])]
    gain = np.mean(errors[0] - errors[1], axis=2)
    np.testing.assert_allclose(out["gain"].mean[2:], gain.mean(axis=0))
    np.testing.assert_allclose(out["gain"].se[2:], gain.std(axis=0, ddof=1) / np.sqrt(3))
    assert np.isnan(out["gain"].mean[:2]).all()
    # the baseline trains all layers, from the weights of the first stage
    free = train_networks(experiment(width=16, dt=0.1), data, range(3), seed=1)
    np.testing.assert_array_equal(run[1], free[1])
    assert abs(run[0] - free[0]).max() > 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 0}, "depth = 0"),
        ({"freeze": 3}, "freeze = 3: the network has 2 hidden layers; use 0 to 2"),
        ({"freeze": -1}, "freeze = -1"),
        ({"reinit_from": 3}, "reinit_from = 3"),
        ({"depth": 1, "reinit_from": 2}, "reinit_from = 2"),
        ({"gamma0": 0.0}, "gamma0 = 0"),
    ],
)
def test_what_no_network_has_is_refused(changes, message):
    with pytest.raises(DomainError, match=message):
        simulate(plane(), **{**SETTINGS, "depth": 2, "width": 8, "nets": 1, "seed": 0, **changes})


def test_other_bad_input():
    sizes = {"depth": 2, "width": 8, "seed": 0}
    with pytest.raises(UsageError, match="nets = 0"):
        simulate(plane(), **SETTINGS, **sizes, nets=0)
    with pytest.raises(UsageError, match="did you mean 'tanh'"):
        simulate(plane(), **{**SETTINGS, "activation": "tahn"}, **sizes, nets=1)
    with pytest.raises(ConvergenceError, match="smaller dt"):
        simulate(plane(), **{**SETTINGS, "activation": "linear", "times1": [2000.0]}, **sizes, nets=1, dt=20.0)


def test_two_layer_network_is_the_deep_one_with_no_hidden_matrix():
    one, second = draw_network(3, 1, 12, 4, activation("erf"))
    deep, second_deep = draw_deep(3, 1, 12, 4, 1, activation("erf"))
    assert isinstance(deep, DeepNetwork)
    assert deep.hidden == []
    for a, b in ((one.weights, deep.weights), (one.readout, deep.readout), (second, second_deep)):
        np.testing.assert_array_equal(a, b)
    x, y = plane(p=5, dim=4).x_source, np.arange(5.0)
    for kind in ("feature", "ntk"):
        frozen = [frozen_outputs(net, x, slice(0, 5), y, [0.5, np.inf], kind, 0.1, "mean") for net in (one, deep)]
        np.testing.assert_allclose(frozen[0], frozen[1], rtol=1e-10)
