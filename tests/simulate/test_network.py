import numpy as np
import pytest

from tlcli.errors import ConvergenceError, DomainError
from tlcli.linear.linear_transfer import transfer_exact
from tlcli.simulate.network import descend, initialise, simulate_network
from tlcli.simulate.regression import draw
from tlcli.simulate.unreduced import DataStage, run_full, simulate_unreduced

POINT = {"alpha1": 0.5, "alpha2": 0.6, "rho": 0.9, "gamma0": 1.5, "t1": 3.0}
DIM, TRIALS = 60, 12


def test_mirrored_start_and_loss_descent():
    rng = np.random.default_rng(0)
    net = initialise(rng, 100, 10, 0.7, 2.0)
    np.testing.assert_allclose(net.beta, 0, atol=1e-15)
    data = draw(rng, np.eye(10)[0], 30, 0.0)
    errors = [
        np.sum((descend(net, DataStage(data, 2.0, t)).beta - np.eye(10)[0]) ** 2) for t in (0.0, 0.3, 1.0, np.inf)
    ]
    assert errors[0] == 1
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert errors[3] < 1e-8


def test_gradient_is_the_gradient_of_the_loss():
    rng = np.random.default_rng(1)
    net = initialise(rng, 8, 4, 1.0, 1.3)
    data, eta, decay = draw(rng, np.eye(4)[0], 6, 0.1), 1e-7, 0.2
    stepped = descend(net, DataStage(data, 1.3, eta, decay))
    n, gamma = 8, 1.3

    def loss(w, a):
        fit = data.x @ (w.T @ a) / (gamma * n)
        return np.mean((data.y - fit) ** 2) / 2 + decay / 2 * (np.sum(w**2) + np.sum(a**2)) / (gamma**2 * n)

    for index in ((0, 1), (5, 2)):
        bump = np.zeros((8, 4))
        bump[index] = 1e-6
        slope = (loss(net.weights + bump, net.readout) - loss(net.weights - bump, net.readout)) / 2e-6
        change = (stepped.weights - net.weights)[index] / eta
        assert change == pytest.approx(-(gamma**2) * n * slope, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("mode", ["frozen", "joint"])
def test_width_extrapolates_to_theory(mode):
    point = POINT | ({"t2": 3.0} if mode == "joint" else {"ridge": 0.1})
    small, large = (simulate_network(point, dim=DIM, width=n, trials=TRIALS, seed=3, mode=mode) for n in (300, 600))
    infinite = simulate_unreduced(point | {"mode": mode}, dim=DIM, trials=TRIALS, seed=3)
    for name in ("loss", "baseline"):
        # the same data at every width: the error is that of the width alone, and it halves
        far, near = (run[name].mean - infinite[name].mean for run in (small, large))
        assert abs(near) < 0.8 * abs(far) + infinite[name].se / 2
        limit = 2 * large[name].mean - small[name].mean
        se = np.hypot(2 * large[name].se, small[name].se)
        assert abs(limit - infinite[name].mean) <= 4 * se
        if mode == "frozen":
            assert abs(limit - float(getattr(transfer_exact(**point), name))) <= 4 * se
    assert large["step_error"].mean < 1e-2 * large["loss"].mean


def test_decay_collapses_the_network_as_it_does_the_population():
    rng = np.random.default_rng(2)
    data = draw(rng, np.eye(10)[0], 20, 0.0)
    stage = DataStage(data, 1.0, 4.0, 0.3)
    end = descend(initialise(rng, 4000, 10, 1.0, 1.0), stage)
    np.testing.assert_allclose(end.beta, run_full([stage], 10)[0].beta, atol=0.05)


def test_errors(monkeypatch):
    with pytest.raises(DomainError, match="width = 7"):
        simulate_network(POINT, dim=10, width=7, trials=1, seed=0)
    with pytest.raises(DomainError, match="mode = 'lazy'"):
        simulate_network(POINT, dim=10, width=8, trials=1, seed=0, mode="lazy")
    monkeypatch.setattr("tlcli.simulate.network.MAX_STEPS", 5)
    for t1 in (5.0, np.inf):
        with pytest.raises(ConvergenceError):
            simulate_network(POINT | {"t1": t1}, dim=10, width=8, trials=1, seed=0)
