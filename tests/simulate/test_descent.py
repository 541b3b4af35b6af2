"""Stochastic gradient descent: the same minibatches in theory and networks, and gradient flow as its limit."""

import numpy as np
import pytest

from tests.simulate.test_loss_networks import data_of, settings_of
from tlcli.batches import Batches
from tlcli.dmft.activations import activation
from tlcli.dmft.ensemble import Numerics
from tlcli.dmft.network_transfer import solve_transfer
from tlcli.errors import DomainError, UsageError
from tlcli.simulate.deep import experiment_of, simulate_networks
from tlcli.simulate.loss_networks import simulate_losses
from tlcli.simulate.two_layer import Network, descend

COLUMNS = ("loss", "baseline", "train_loss", "source_loss")


def numerics(dt, **words):
    return Numerics(population="mc", integrator="euler", dt=dt, **{"neurons": 2048, "repeats": 6, "seed": 1, **words})


@pytest.mark.parametrize(("loss", "depth", "momentum"), [("softmax", 1, 0.0), (None, 1, 0.6), ("softmax", 2, 0.5)])
def test_networks_take_the_steps_of_the_theory(loss, depth, momentum):
    """Every loss within 4 errors and what a network more or less would change; other minibatches do not fit."""
    data = data_of((3, 3) if loss else (2, 2))
    settings = settings_of(
        loss1=loss, loss2=loss, depth=depth, batch=4 if loss else 1, momentum=momentum, readout="carry", gamma0=1.5
    )
    ours = solve_transfer(data, settings, numerics(0.5, neurons=2048 if depth == 1 else 1024)).columns
    width, nets = (400, 10) if depth == 1 else (150, 10)

    def worst(sampled):
        how = {"nets": nets, "seed": 2}
        if loss:
            made = experiment_of(settings, width, 0.5, sampled)
            found = simulate_losses(data, made, measured=COLUMNS, **how)
        else:
            found = simulate_networks(data, settings, width=width, dt=0.5, sampled=sampled, **how)
        z = []
        for name in ("train_loss", "source_train_loss") if loss is None else ("train_loss",):
            mean, se = (np.asarray(part)[-1] for part in found[name])
            z.append(abs(mean - ours[name][-1]) / (np.hypot(se, ours[f"{name}_se"][-1]) + 0.3 / width))
        return max(z)

    assert worst((1, 0)) < 4
    if depth == 1 and loss is None:
        assert worst((77, 0)) > 8, "the twin: other minibatches"


def test_gradient_flow_is_the_limit_of_small_steps():
    """Errors fall with the step, with minibatches and momentum, and times keep their meaning."""
    data = data_of((2, 2), p=8)
    words = {"loss1": "logistic", "loss2": "logistic", "readout": "carry"}
    flow = solve_transfer(data, settings_of(**words), Numerics(population="mc", neurons=512, repeats=2, tolerance=1e-6))
    words |= {"batch": 2, "momentum": 0.5}
    gaps = []
    for dt in (0.1, 0.0125):
        found = solve_transfer(data, settings_of(**words), numerics(dt, neurons=512, repeats=2, seed=0))
        gaps.append(abs(found.columns["train_loss"][-1] - flow.columns["train_loss"][-1]))
    assert gaps[1] < 0.3 * gaps[0]
    assert gaps[1] < 2e-3


def test_steps_of_a_minibatch_by_hand():
    """Two steps of two minibatches with momentum, against the formula with explicit sums."""
    rng = np.random.default_rng(3)
    x, y, gamma, eta, m = rng.standard_normal((4, 2)), rng.standard_normal(4), 1.2, 0.3, 0.4
    w, a = rng.standard_normal((3, 2)), rng.standard_normal(3)
    batches = Batches(4, 2, 0, 0, 1)
    net = Network(w.copy(), a.copy(), activation("tanh"))
    for _ in descend(net, x, y, (0.6,), gamma=gamma, dt=eta, batches=batches, momentum=m):
        pass
    vw, va = 0.0, 0.0
    for step in range(2):
        dw, da = np.zeros_like(w), np.zeros_like(a)
        for k in batches.rows(step):
            h = w @ x[k] / np.sqrt(2)
            delta = y[k] - a @ np.tanh(h) / (gamma * 3)
            dw += gamma / 2 * delta * np.outer(a * (1 - np.tanh(h) ** 2), x[k] / np.sqrt(2))
            da += gamma / 2 * delta * np.tanh(h)
        vw, va = m * vw + (1 - m) * dw, m * va + (1 - m) * da
        w, a = w + eta * vw, a + eta * va
    assert np.allclose(net.weights, w, rtol=0, atol=1e-13)
    assert np.allclose(net.readout, a, rtol=0, atol=1e-13)


def test_what_is_refused():
    data = data_of((2, 2))
    with pytest.raises(UsageError, match="batch = 4 is of gradient descent in steps; give --integrator euler and --dt"):
        solve_transfer(data, settings_of(batch=4, readout="carry"), Numerics())
    with pytest.raises(UsageError, match="know no rest"):
        solve_transfer(data, settings_of(momentum=0.5, readout="carry"), numerics(0.5, until=1e-3))
    with pytest.raises(UsageError, match="lazy networks are solved exactly"):
        settings_of(batch=4, gamma0=0.0, gamma2=1.0)
    with pytest.raises(DomainError, match="momentum = 1"):
        settings_of(momentum=1.0)
