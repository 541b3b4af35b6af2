import numpy as np
import pytest

from tests.simulate.nets import Data, simulate, two_layer_experiment
from tlcli.dmft.activations import Activation, activation
from tlcli.errors import ConvergenceError, DomainError, UsageError
from tlcli.simulate import steps, two_layer
from tlcli.simulate.two_layer import (
    Network,
    descend,
    draw_network,
    frozen_outputs,
    train_networks,
    transfer_losses,
)


def cosines(dim):
    """The data of the reference solutions: x_{mu,i} = cos(mu i + i^2), three points a task, two test points."""
    i, mu = np.arange(1, dim + 1), np.arange(1, 9)[:, None]
    x = np.cos(mu * i + i**2)
    y1, y2 = np.array([1.0, -1.0, 0.5]), np.array([-0.5, 1.0, 1.0])
    return Data(x[:3], y1, x[3:6], y2, x[6:], np.array([0.3, np.nan]), np.array([-0.2, 0.4]))


def plane(seed=0, p=20, dim=2):
    """Two related quadratic tasks on Gaussian inputs."""
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal((n, dim)) for n in (p, p, 50)]
    y1, y2 = (lambda x: x[:, 0] * x[:, 1]), (lambda x: x[:, 0] * x[:, 1] + 0.5 * x[:, 0])
    return Data(x[0], y1(x[0]), x[1], y2(x[1]), x[2], y1(x[2]), y2(x[2]))


SETTINGS = {
    "activation": "tanh",
    "gamma0": 1.0,
    "gamma2": None,
    "times1": [1.0, 2.0],
    "times2": [0.0, 2.0],
    "weight_decay": 0.0,
    "weight_decay2": 0.0,
    "readout": "carry",
    "reduction": "mean",
}
SIZES = {"width": 30, "nets": 3, "seed": 5}


def experiment(**changes):
    return two_layer_experiment(**{**SETTINGS, "width": 30, **changes})


def literal(weights, readout, x, y, x_out, gamma, eta, steps, decay, *, force=1.0, power=1.0):
    """Gradient descent of the sum loss, one neuron and one point at a time.

    `force` and `power` make the wrong formulas: forces without gamma, an output divided by a wrong power of N.
    """
    w, a = weights.copy(), readout.copy()
    (n, dim), scale = w.shape, gamma * len(a) ** power

    def outputs(points):
        return [sum(a[i] * np.tanh(w[i] @ p / dim**0.5) for i in range(n)) / scale for p in points]

    for _ in range(steps):
        delta = [y[m] - f for m, f in enumerate(outputs(x))]
        dw, da = -decay * w, -decay * a
        for i in range(n):
            for m, point in enumerate(x):
                t = np.tanh(w[i] @ point / dim**0.5)
                da[i] += gamma * force * delta[m] * t
                dw[i] += gamma * force * delta[m] * a[i] * (1 - t**2) * point / dim**0.5
        w, a = w + eta * dw, a + eta * da
    return np.array(outputs(x_out))


def test_networks_equal_the_loop_over_neurons_and_the_wrong_loops_differ():
    data, eta = cosines(4), 0.05
    e = experiment(width=7, gamma0=1.3, times1=[10 * eta], times2=[], weight_decay=0.2, reduction="sum", dt=eta)
    f, _ = train_networks(e, data, [2], seed=1)
    net, _ = draw_network(1, 2, 7, 4, activation("tanh"))
    x = np.concatenate([data.x_source, data.x_target, data.x_test])
    start = (net.weights, net.readout, data.x_source, data.y_source, x, 1.3, eta, 10, 0.2)
    np.testing.assert_allclose(f[0, 0], literal(*start), rtol=1e-12)
    for wrong in ({"force": 1 / 1.3}, {"power": 0.5}):
        assert abs(f[0, 0] - literal(*start, **wrong)).max() > 0.01


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("phi", ["tanh", "erf", "softplus"])
def test_a_step_follows_the_gradient_of_the_loss(phi, reduction):
    data, act, gamma, decay, eta = cosines(4), activation(phi), 1.7, 0.3, 1e-7
    net, _ = draw_network(0, 0, 6, 4, act)
    before = net.weights.copy(), net.readout.copy()

    def loss(w, a):
        f = act.phi(data.x_source @ w.T / 2) @ a / (gamma * 6)
        return np.sum((data.y_source - f) ** 2) / (2 * (3 if reduction == "mean" else 1)) + decay * (
            np.sum(w**2) + np.sum(a**2)
        ) / (2 * gamma**2 * 6)

    path = descend(net, data.x_source, data.y_source, [eta], gamma=gamma, decay=decay, reduction=reduction, dt=eta)
    assert list(path) == [eta]
    for which, index in ((0, (0, 1)), (0, (5, 3)), (1, (2,))):
        bump = [np.zeros((6, 4)), np.zeros(6)]
        bump[which][index] = 1e-6
        w, a = before
        slope = (loss(w + bump[0], a + bump[1]) - loss(w - bump[0], a - bump[1])) / 2e-6
        change = ((net.weights, net.readout)[which] - before[which])[index] / eta
        assert change == pytest.approx(-(gamma**2) * 6 * slope, rel=1e-4, abs=1e-6)


# Outputs at the eight points at infinite width (sum loss): at t = 1 of stage 1 and of stage 2. The linear
# ones solve the closed equations of the moments, the others are integrals over (w, a) by quadrature.
REFERENCES = {
    "linear": (
        {"gamma0": 1.0, "gamma2": 2.0, "times1": [1.0, 4.0], "times2": [0.5, 1.0]},
        6,
        [0.616695236, -0.670223167, 0.265203622, -0.0953457359, 0.569111765, -0.126754195, -0.0623288459, 0.0691140236],
        [0.0760028581, -0.851599449, 1.04343, -0.477002577, 1.03398996, 0.937953807, -0.505520324, 0.0728207055],
    ),
    "erf": (
        {"gamma0": 0.5, "gamma2": 2.0, "times1": [1.0], "times2": [0.5, 1.0], "weight_decay": 0.1},
        2,
        [0.233059885, -0.147616461, -0.227253232, 0.227583425, 0.143025929, -0.198591015, 0.181413346, 0.0131552739],
        [-0.692982462, -0.624909569, -0.0136000007, -0.289906545, 0.616553598, 0.763907072, -0.503333807, -0.733803754],
    ),
}


@pytest.mark.parametrize("phi", list(REFERENCES))
def test_wide_networks_follow_the_infinite_width_references(phi):
    # Tolerance: 5 standard errors over 8 networks and 0.003 for the step (its change on halving is below 0.0015)
    # and for the 1/N of the mean.
    settings, dim, first, last = REFERENCES[phi]
    decay = settings.get("weight_decay", 0.0)
    e = experiment(**{**settings, "activation": phi, "weight_decay2": decay, "reduction": "sum"}, width=3000, dt=0.004)
    f, _ = train_networks(e, cosines(dim), range(8), seed=3)
    mean, se = f.mean(axis=0), f.std(axis=0, ddof=1) / np.sqrt(8)
    assert np.all(abs(mean[0] - first) < 5 * se[0] + 3e-3)
    assert np.all(abs(mean[-1] - last) < 5 * se[-1] + 3e-3)
    # The same bounds reject half of the time, and the output scale of the first stage in the second.
    assert not np.all(abs(mean[-2] - last) < 5 * se[-2] + 3e-3)
    gamma1 = mean[-1] * e.training.gamma2 / e.training.gamma0
    assert not np.all(abs(gamma1 - last) < 5 * se[-1] + 3e-3)


def test_wide_relu_networks_follow_the_exact_solution_in_one_dimension():
    # f(x) = c(t) x for x > 0, with c in closed form (sum loss); neurons with w < 0 never move, and those that reach
    # w = 0 stay there. Tolerance: 5 standard errors over 8 networks and 0.002 for the step.
    x, nan = np.array([[0.5], [1.0], [2.0], [1.0], [1.5], [-1.0]]), np.array([np.nan])
    data = Data(x[:3], np.array([1.0, 1.5, 1.0]), x[3:5], np.array([-0.5, 0.3]), x[5:], nan, nan)
    e = experiment(activation="relu", times1=[0.1, 1.0, 3.0], times2=[0.25, 1.0], width=4000, dt=0.004, reduction="sum")
    f, _ = train_networks(e, data, range(8), seed=0)
    mean, se = f.mean(axis=0), f.std(axis=0, ddof=1) / np.sqrt(8)
    exact = np.array([0.3164964974, 0.7617019013, 0.7619047619, 0.2679048213, 0.01894577693])
    for point, size in enumerate(x[:5, 0]):
        assert np.all(abs(mean[:, point] - size * exact) < size * (5 * se[:, 1] + 2e-3))
    assert np.all(abs(mean[:, 5]) < 5 * se[:, 5])
    # The same bound rejects a derivative that is 1 everywhere: w < 0 then moves too.
    leaky = Activation("leaky", lambda h, xp: np.maximum(h, 0), lambda h, phi, xp: np.ones_like(h))
    wrong, _ = draw_network(0, 0, 4000, 1, leaky)
    list(descend(wrong, data.x_source, data.y_source, [0.1], gamma=1.0, reduction="sum", dt=0.004))
    assert abs(wrong.outputs(x[1:2], 1.0)[0] - exact[0]) > 5 * se[0, 1] + 2e-3


@pytest.mark.parametrize("phi", ["linear", "relu"])
def test_balance_of_the_layers_is_conserved_up_to_the_step(phi):
    data, drift = cosines(3), []
    for dt in (0.02, 0.01):
        net, _ = draw_network(0, 0, 40, 3, activation(phi))
        before = net.readout**2 - np.sum(net.weights**2, axis=1)
        for times in ([2.0], [3.0]):
            list(descend(net, data.x_source, data.y_source, times, gamma=1.5, dt=dt))
        drift.append(abs(net.readout**2 - np.sum(net.weights**2, axis=1) - before).max())
        assert abs(net.readout**2 - before).max() > 0.5  # while each of the two moves
    assert drift[0] < 0.1
    assert drift[0] / drift[1] == pytest.approx(2, rel=0.2)


def test_small_gamma_is_regression_with_the_networks_own_tangent_kernel():
    data, gamma, time = cosines(3), 0.05, 6.0
    net, _ = draw_network(0, 0, 20_000, 3, activation("tanh"))
    points = np.concatenate([data.x_source, data.x_test])
    h, inputs = net.weights @ points.T / np.sqrt(3), points @ data.x_source.T / 3
    phi, slope = np.tanh(h), net.readout[:, None] / np.cosh(h) ** 2
    kernel = (phi.T @ phi[:, :3] + (slope.T @ slope[:, :3]) * inputs) / 20_000
    start = phi.T @ net.readout / (gamma * 20_000)
    values, vectors = np.linalg.eigh(kernel[:3])
    learned = (1 - np.exp(-time * values / 3)) / values
    expected = start + kernel @ vectors @ (learned * (vectors.T @ (data.y_source - start[:3])))
    list(descend(net, data.x_source, data.y_source, [time], gamma=gamma, dt=0.01))
    np.testing.assert_allclose(net.outputs(points, gamma), expected, atol=0.01)
    assert abs(expected - start).max() > 0.3


def test_networks_differ_by_one_over_root_width():
    spread = []
    for width in (24, 384):
        e = experiment(width=width, times1=[4.0], times2=[4.0], dt=0.1)
        f, _ = train_networks(e, plane(), range(24), seed=1)
        spread.append(np.sqrt(f[:, -1].var(axis=0, ddof=1).mean()))
    # 16 times the width: a factor 4; a spread over 24 networks is known to about 15%
    assert 2.8 < spread[0] / spread[1] < 5.7


def test_networks_do_not_depend_on_which_others_are_trained(monkeypatch):
    data, e = plane(), experiment()
    together, _ = train_networks(e, data, [0, 1, 2], seed=4)
    alone, _ = train_networks(e, data, [2], seed=4)
    np.testing.assert_array_equal(together[2], alone[0])
    assert abs(together[0] - together[2]).max() > 0.01
    monkeypatch.setattr(two_layer, "BLOCK", 16 * 20)  # neurons in two blocks
    np.testing.assert_allclose(train_networks(e, data, [2], seed=4)[0], alone, rtol=1e-9, atol=1e-12)
    wide, _ = train_networks(experiment(width=31), data, [2], seed=4)
    assert abs(wide - alone).max() > 0.01


def test_readout_at_the_switch():
    data, p = plane(), 20
    runs = {
        name: train_networks(experiment(readout=name, gamma2=0.5, times2=[0.0, 3.0]), data, [0, 1], seed=2)
        for name in ("carry", "carry-centred", "reset")
    }
    f = {name: run[0] for name, run in runs.items()}
    np.testing.assert_allclose(f["carry"][:, 2], 2 * f["carry"][:, 1], rtol=1e-12)  # jumps by gamma0/gamma2
    np.testing.assert_allclose(f["carry-centred"][:, 2], 0, atol=1e-14)
    losses = {name: transfer_losses(*run, data)["train_loss"] for name, run in runs.items()}
    for name in runs:
        np.testing.assert_array_equal(f[name][:, :2], f["carry"][:, :2])
        assert np.all(losses[name][:, -1] < losses[name][:, -2])  # each learns the target from where it starts
    e = experiment()
    for i in range(2):
        net, second = draw_network(2, i, 30, 2, activation("tanh"))
        assert abs(second - net.readout).min() > 0
        list(descend(net, data.x_source, data.y_source, e.training.times1, gamma=1.0))
        net.readout = second
        np.testing.assert_allclose(f["reset"][i, 2, p : 2 * p], net.outputs(data.x_target, 0.5), rtol=1e-12)


def test_centred_stage_has_the_same_first_step_as_labels_shifted_by_the_output():
    data, eta = plane(), 0.01
    common = {"times1": [1.0], "times2": [eta], "dt": eta}
    centred, _ = train_networks(experiment(readout="carry-centred", **common), data, [0], seed=2)
    carried, _ = train_networks(experiment(times1=[1.0], times2=[0.0], dt=eta), data, [0], seed=2)
    shifted = plane()
    shifted.y_target = data.y_target + carried[0, 1, 20:40]
    expected, _ = train_networks(experiment(**common), shifted, [0], seed=2)
    np.testing.assert_allclose(centred[0, 1], expected[0, 1] - carried[0, 1], atol=1e-12)


def test_sum_and_mean_loss_are_one_flow():
    data, p = plane(), 20
    mean = experiment(weight_decay=0.02, weight_decay2=0.01, times1=[2.0], times2=[4.0], gamma2=1.5)
    summed = experiment(
        weight_decay=0.02 * p,
        weight_decay2=0.01 * p,
        times1=[2.0 / p],
        times2=[4.0 / p],
        gamma2=1.5,
        reduction="sum",
    )
    for a, b in zip(train_networks(mean, data, [0], 0), train_networks(summed, data, [0], 0), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)
    wrong = experiment(**{**vars(summed.training), "weight_decay": 0.02})
    assert abs(train_networks(wrong, data, [0], 0)[0] - train_networks(mean, data, [0], 0)[0]).max() > 1e-3


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kernel", ["feature", "ntk"])
def test_frozen_stage_is_kernel_ridge_regression_and_its_flow(kernel, reduction):
    data, ridge, p = plane(p=6, dim=3), 0.05, 6
    e = experiment(
        width=400, target="frozen", kernel=kernel, ridge=ridge, reduction=reduction, times1=[2.0], times2=[1.0, np.inf]
    )
    f, scratch = train_networks(e, data, [1], seed=6)
    x = np.concatenate([data.x_source, data.x_target, data.x_test])
    net, _ = draw_network(6, 1, 400, 3, activation("tanh"))
    for outputs in (scratch[0], f[0, 1:]):
        h = x @ net.weights.T / np.sqrt(3)
        features = np.tanh(h) / 20
        if kernel == "ntk":  # the gradient of the output, one column a weight
            slope = net.readout / np.cosh(h) ** 2 / 20
            jacobian = slope[:, :, None] * x[:, None, :] / np.sqrt(3)
            features = np.concatenate([features, jacobian.reshape(len(x), -1)], axis=1)
        train = features[p : 2 * p]
        penalty = ridge * (p if reduction == "mean" else 1)
        normal = train.T @ train + penalty * np.eye(train.shape[1])
        np.testing.assert_allclose(outputs[1], features @ np.linalg.solve(normal, train.T @ data.y_target), atol=1e-9)
        readout, steps = np.zeros(train.shape[1]), 20_000
        share = 1 / p if reduction == "mean" else 1.0
        for _ in range(steps // 10):
            readout += (10 / steps) * (share * train.T @ (data.y_target - train @ readout) - ridge * readout)
        np.testing.assert_allclose(outputs[0], features @ readout, atol=2e-3)
        list(descend(net, data.x_source, data.y_source, [2.0], gamma=1.0, reduction=reduction))
    assert abs(f[0, -1] - scratch[0, -1]).max() > 0.01


def test_frozen_directions_without_data_do_not_learn():
    net = Network(np.array([[1.0], [2.0]]), np.array([1.0, 1.0]), activation("linear"))
    x = np.array([[1.0], [2.0], [3.0]])  # rank 1: the second training point adds nothing
    f = frozen_outputs(net, x, slice(0, 2), np.array([1.0, 2.0]), [np.inf, 1e9], "feature", 0.0, "mean")
    np.testing.assert_allclose(f, [[1, 2, 3], [1, 2, 3]], rtol=1e-10)


def test_losses_and_the_error_of_the_gain():
    data = plane()
    data.y_test_source = np.full(50, np.nan)
    data.y_test_target[::2] = np.nan
    out = simulate(data, **{**SETTINGS, "times2": [1.0, 3.0]}, **SIZES)
    assert set(out) == {*two_layer.LOSSES, "gain", "step_error"}
    e = experiment(times2=[1.0, 3.0])
    for halvings in range(steps.HALVINGS + 1):
        f, scratch = train_networks(e, data, range(3), 5, halvings)
        if np.allclose(np.mean((f[:, :, :20] - data.y_source) ** 2, axis=(0, 2)), out["source_train_loss"].mean):
            break
    else:
        pytest.fail("the losses belong to none of the steps")
    loss = np.array([[np.mean((row[41::2] - data.y_test_target[1::2]) ** 2) for row in net] for net in f])
    base = np.array([[np.mean((row[41::2] - data.y_test_target[1::2]) ** 2) for row in net] for net in scratch])
    np.testing.assert_allclose(out["loss"].mean, loss.mean(axis=0))
    np.testing.assert_allclose(out["loss"].se, loss.std(axis=0, ddof=1) / np.sqrt(3))
    np.testing.assert_allclose(out["train_loss"].mean, np.mean((f[:, :, 20:40] - data.y_target) ** 2, axis=(0, 2)))
    gain = base - loss[:, 2:]
    np.testing.assert_allclose(out["gain"].mean[2:], gain.mean(axis=0))
    np.testing.assert_allclose(out["gain"].se[2:], gain.std(axis=0, ddof=1) / np.sqrt(3))
    for name in ("gain", "baseline"):
        assert np.isnan(out[name].mean[:2]).all()
    assert np.isnan(out["source_loss"].mean).all()
    # from scratch on the target is what a network without a source stage does
    same, _ = train_networks(experiment(times1=[0.0], times2=[1.0, 3.0]), data, range(3), 5, halvings)
    np.testing.assert_array_equal(same[:, 1:], scratch)


def test_step_is_halved_until_its_error_hides_in_the_spread(monkeypatch):
    data, used = plane(), []

    def spy(e, data, nets, seed, halvings=0):
        used.append((len(nets), halvings))
        return train_networks(e, data, nets, seed, halvings)

    monkeypatch.setattr(two_layer, "train_networks", spy)
    monkeypatch.setattr(two_layer, "SAFETY", 1.0)
    settings = {**SETTINGS, "gamma0": 2.0, "times1": [5.0], "times2": [5.0]}
    out = simulate(data, **settings, width=200, nets=6, seed=0)
    chosen = max(h for n, h in used if n > 1)
    assert 0 < chosen <= steps.HALVINGS
    assert used[-1] == (5, chosen)
    # the error that is left is about twice the change: compare network 0 with a much smaller step
    fine = transfer_losses(*train_networks(experiment(**settings, width=200), data, [0], 0, chosen + 5), data)
    run = transfer_losses(*train_networks(experiment(**settings, width=200), data, [0], 0, chosen), data)
    left = max(np.nanmax(abs(fine[name] - run[name])) for name in two_layer.LOSSES)
    assert 0.7 * out["step_error"].mean < left < 4 * out["step_error"].mean
    # a stated learning rate is used as it is, and its error is told
    used.clear()
    stated = simulate(data, **settings, width=200, nets=6, seed=0, dt=0.5)
    assert used == [(4, 0), (1, 1), (2, 0)]
    assert stated["step_error"].mean > 3 * out["step_error"].mean


def test_one_network_and_no_target_stage():
    out = simulate(plane(), **{**SETTINGS, "times2": []}, width=20, nets=1, seed=0)
    assert out["loss"].mean.shape == (2,)
    assert np.isnan(out["loss"].se).all()
    assert np.isnan(out["gain"].mean).all()
    assert np.isfinite(out["step_error"].mean)
    out = simulate(plane(), **{**SETTINGS, "times1": [0.0], "times2": [np.inf]}, **SIZES, target="frozen")
    np.testing.assert_allclose(out["gain"].mean[1:], 0, atol=1e-12)  # nothing was learned in stage 1


def test_adaptive_step_follows_the_growing_curvature():
    data = plane()
    data.y_source = 3 * data.y_source
    net, _ = draw_network(0, 0, 200, 2, activation("relu"))

    def curvature():
        h = net.weights @ data.x_source.T / np.sqrt(2)
        slope = net.readout[:, None] * (h > 0)
        phi = np.maximum(h, 0)
        kernel = (phi.T @ phi + (slope.T @ slope) * (data.x_source @ data.x_source.T / 2)) / 200
        return np.linalg.eigvalsh(kernel)[-1] / 20

    before = curvature()
    losses = []
    for _ in descend(net, data.x_source, data.y_source, np.linspace(0.5, 30, 60), gamma=3.0):
        losses.append(np.mean((data.y_source - net.outputs(data.x_source, 3.0)) ** 2))
    assert curvature() > 5 * before
    assert np.all(np.diff(losses) < 1e-12)
    fixed, _ = draw_network(0, 0, 200, 2, activation("relu"))
    with np.errstate(all="ignore"), pytest.raises(ConvergenceError):  # stable at the start, not later
        list(descend(fixed, data.x_source, data.y_source, [200.0], gamma=3.0, dt=1.9 / before))


def test_divergence_says_when_and_what_to_change(monkeypatch):
    with pytest.raises(
        ConvergenceError, match=r"^stage 1: gradient descent diverged at t = \d+, step 20; use a smaller dt\.$"
    ):
        simulate(plane(), **{**SETTINGS, "activation": "he2", "times1": [1e4]}, **SIZES, dt=20.0)
    with pytest.raises(
        ConvergenceError, match=r"^stage 1: gradient descent diverged at t = 1e\+200; use a smaller dt or gamma"
    ):
        simulate(plane(), **{**SETTINGS, "activation": "he2", "times1": [1e200]}, **SIZES, dt=1e200)
    monkeypatch.setattr(two_layer, "MAX_STEPS", 100)
    with pytest.raises(ConvergenceError, match=r"^stage 1: more than 100 steps .* time 10000\)"):
        simulate(plane(), **{**SETTINGS, "times1": [1e4]}, **SIZES)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"readout": "cary"}, UsageError, "did you mean 'carry'"),
        ({"reduction": "max"}, UsageError, "use one of mean, sum"),
        ({"target": "lazy"}, UsageError, "use one of rich, frozen"),
        ({"kernel": "nkt"}, UsageError, "did you mean 'ntk'"),
        ({"activation": "rleu"}, UsageError, "did you mean 'relu'"),
        ({"width": 0}, DomainError, "width = 0"),
        ({"nets": 0}, UsageError, "nets = 0"),
        ({"gamma0": 0.0}, DomainError, "gamma0 = 0"),
        ({"gamma2": -1.0}, DomainError, "gamma2 = -1"),
        ({"dt": 0.0}, DomainError, "dt = 0"),
        ({"ridge": -0.1}, DomainError, "ridge = -0.1"),
        ({"weight_decay2": np.nan}, DomainError, "weight_decay2 = nan"),
        ({"times1": [1.0, 0.5]}, DomainError, "ascending"),
        ({"times2": [1.0, np.inf]}, DomainError, "trained for a finite time"),
        ({"times1": [np.inf], "target": "frozen"}, DomainError, "trained for a finite time"),
    ],
)
def test_bad_values_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        simulate(plane(), **{**SETTINGS, **SIZES, **changes})


def test_a_stage_needs_training_points():
    data = plane()
    data.x_target, data.y_target = data.x_target[:0], data.y_target[:0]
    with pytest.raises(DomainError, match="target task has 0 training points"):
        simulate(data, **SETTINGS, **SIZES)
    out = simulate(data, **{**SETTINGS, "times2": []}, **SIZES)
    assert np.isnan(out["train_loss"].mean).all()
