from dataclasses import replace

import numpy as np
import pytest

from tests.dmft.deep_problems import reference_case
from tests.oracles.deep_ensemble import DeepStage, deep_ensemble
from tests.simulate.nets import deep_experiment
from tlcli.errors import ConvergenceError, DomainError, UsageError
from tlcli.simulate.deep_network import DeepNetwork
from tlcli.simulate.two_layer import train_networks

# At infinite width, f of the first point of each set and half the mean squared errors, by state: exact for linear
# networks, Monte Carlo for tanh and relu with its standard errors.
EXACT = {
    ("R1", 1): ([-0.15051942, -0.02270742, -0.00695880], [0.13573419, 0.70969307, 0.91035267]),
    ("R1", 20): ([-0.50057869, -0.11977288, 0.02583166], [0.00487038, 0.93623034, 0.87328343]),
    ("R1", 40): ([-0.62392191, -1.04040147, 0.32997294], [0.19119932, 0.00028262, 0.41074944]),
    ("R2", 14): ([-0.47701098, -0.10020680, 0.00679281], [0.00385783, 0.95487069, 0.86282007]),
    ("R2", 15): ([-1.89722733, -0.38464035, 0.00730029], [1.94531257, 3.71591624, 0.85696502]),
    ("R2", 30): ([-1.18696981, -1.06212498, 0.14223906], [0.06588507, 0.00330653, 0.43299003]),
}
SAMPLED = {
    ("R3", 19): ([-0.44226, -0.11051, 0.02808], [0.00027, 0.00114, 0.00081]),
    ("R3", 20): ([-0.45203, -0.11610, 0.03344], [0.00025, 0.00119, 0.00081]),
    ("R3", 40): ([-0.93832, -1.29279, 0.71366], [0.00194, 0.00050, 0.00179]),
    ("R4", 14): ([-0.49138, -0.19288, 0.08407], [0.00032, 0.00089, 0.00081]),
    ("R4", 15): ([-1.01211, -0.41620, 0.21361], [0.00058, 0.00172, 0.00164]),
    ("R4", 30): ([-1.28082, -1.21471, 0.92070], [0.00149, 0.00055, 0.00213]),
}
# Networks of width 1000 of an independent program: f and its standard errors, for the same states.
WIDE = {
    19: ([-0.4422, -0.1076, 0.0236], [0.0012, 0.0026, 0.0029]),
    20: ([-0.4521, -0.1132, 0.0290], [0.0011, 0.0026, 0.0030]),
    40: ([-0.9428, -1.2919, 0.7007], [0.0083, 0.0026, 0.0080]),
}


def run(name, *, width, nets, change=lambda stage, index: stage, **options):
    case = reference_case(name)
    stages = [change(stage, index) for index, stage in enumerate(case.stages(DeepStage))]
    settings = {"activation": case.activation, "depth": case.L, "dt": case.dt, "centred": True, "seed": 0, **options}
    return case, deep_ensemble(case.x, stages, width=width, nets=nets, **settings)


def scores(case, ensemble, state, f, se=0.0):
    """Deviation of the mean f at the first points in standard errors, less 1/N, the order of the mean's shift."""
    mean = ensemble.f[:, state, case.firsts].mean(axis=0)
    own = ensemble.f[:, state, case.firsts].std(axis=0, ddof=1) / np.sqrt(len(ensemble.f))
    return np.maximum(abs(mean - f) - 1 / 300, 0) / np.hypot(own, se)


def test_linear_networks_follow_the_exact_theory():
    # 4 standard errors over 40 networks of width 300, beside 1/N; R2 has weight decay and jumps by g1/g2 = 4.
    for name in ("R1", "R2"):
        case, ensemble = run(name, width=300, nets=40)
        for (which, state), (f, losses) in EXACT.items():
            if which == name:
                assert np.all(scores(case, ensemble, state, np.array(f)) < 4)
                np.testing.assert_allclose(case.losses(ensemble.f.mean(axis=0)[state]), losses, rtol=0.05, atol=0.005)
    # The same bounds reject a weight decay that is absent.
    case, wrong = run("R2", width=300, nets=40, change=lambda stage, index: replace(stage, decay=0.0))
    assert scores(case, wrong, 30, np.array(EXACT["R2", 30][0])).max() > 5


@pytest.mark.parametrize("name", ["R3", "R4"])
def test_tanh_networks_follow_the_theory_and_a_wrong_backward_pass_does_not(name, monkeypatch):
    # 4 combined standard errors over 60 networks of width 300, beside 1/N.
    case, ensemble = run(name, width=300, nets=60)
    for (which, state), (f, se) in SAMPLED.items():
        if which == name:
            assert np.all(scores(case, ensemble, state, np.array(f), np.array(se)) < 4)
    if name == "R3":
        for state, (f, se) in WIDE.items():
            assert np.all(scores(case, ensemble, state, np.array(f), np.array(se)) < 4)
    right = DeepNetwork.backward

    def without_slope(self, passes, down_to=1):
        passes.slopes = [np.ones_like(slope) for slope in passes.slopes]
        return right(self, passes, down_to)

    monkeypatch.setattr(DeepNetwork, "backward", without_slope)
    _, wrong = run(name, width=300, nets=20)
    last = case.n1 + case.n2
    f, se = SAMPLED[name, last]
    assert scores(case, wrong, last, np.array(f), np.array(se)).max() > 8


def test_kernels_of_tanh_networks():
    # Gaussian integrals at k = 0, Monte Carlo of the infinite-width theory after training; 4 standard errors and 2/N.
    case, ensemble = run("R3", width=300, nets=60, states=[0, 20, 40])
    expected = {
        ("phi", 0): ([0.44108635, 0.4596, 0.4636], [0.19596982, 0.2004, 0.2533]),
        ("phi", 1): ([0.25368620, 0.3071, 0.3330], [0.11413826, 0.1271, 0.2613]),
        ("g", 0): ([0.25848847, 0.6733, 4.5806], [0.22104248, 0.7246, 3.6839]),
        ("g", 1): ([0.61580612, 0.9073, 3.0910], [0.59006046, 0.9731, 2.5390]),
    }
    sampled = {"phi": 0.0005, "g": 0.013}
    for (kind, layer), pair in expected.items():
        for values, other in zip(pair, (0, case.P1), strict=True):
            found = getattr(ensemble, kind)[:, layer, other, 0]
            error = getattr(ensemble, f"{kind}_se")[:, layer, other, 0]
            # the theory's error matters after training alone
            bound = 4 * np.hypot(error, sampled[kind] * np.array([0, 1, 1])) + 2 / 300
            assert np.all(abs(found - values) < bound)
    assert ensemble.states.tolist() == [0, 20, 40]
    np.testing.assert_allclose(ensemble.phi, ensemble.phi.swapaxes(-1, -2), rtol=1e-12)
    # The layers are told apart, and the kernels of the end from those of the switch.
    assert abs(ensemble.phi[2, 0, 0, 0] - 0.3330) > 10 * ensemble.phi_se[2, 0, 0, 0]
    assert abs(ensemble.g[2, 0, 0, 0] - 0.6733) > 10 * ensemble.g_se[2, 0, 0, 0]


def test_relu_networks_start_from_their_gaussian_kernels():
    # E[2 max(h, 0)^2] is the input kernel and E[2 theta(h)] is 1 in every layer; 4 standard errors and 2/N.
    _, ensemble = run("R5", width=300, nets=40, states=[0])
    for layer in range(2):
        assert abs(ensemble.phi[0, layer, 0, 0] - 1.29214128) < 4 * ensemble.phi_se[0, layer, 0, 0] + 2 / 300
        assert abs(ensemble.g[0, layer, 0, 0] - 1) < 4 * ensemble.g_se[0, layer, 0, 0] + 2 / 300
        assert abs(ensemble.phi[0, layer, 0, 0] / 2 - 1.29214128) > 10 * ensemble.phi_se[0, layer, 0, 0]


def test_deviation_of_a_network_is_one_over_root_width():
    # The rms deviation times sqrt(N) is 0.73 for linear networks with L = 2 and g = 1, known here to about 15%.
    exact = {state: np.array(f) for (name, state), (f, _) in EXACT.items() if name == "R1" and state >= 20}
    found = []
    for width in (64, 256):
        case, ensemble = run("R1", width=width, nets=40)
        errors = [ensemble.f[:, state, case.firsts] - f for state, f in exact.items()]
        found.append(np.sqrt(np.mean(np.square(errors)) * width))
    assert found[0] / found[1] == pytest.approx(1, rel=0.3)
    assert found[1] == pytest.approx(0.75, rel=0.35)


@pytest.mark.parametrize(
    "switch",
    [{}, {"freeze": 1}, {"reinit_from": 1}, {"freeze": 2, "readout": "carry-centred"}, {"reinit_from": 0, "freeze": 1}],
)
def test_states_are_those_of_the_experiment_with_the_same_steps(switch):
    case = reference_case("R4")
    source, target, test = case.rows

    class Data:
        x_source, x_target, x_test = (case.x[rows] for rows in (source, target, test))
        y_source, y_target = case.y[source], case.y[target]

    experiment = deep_experiment(
        activation="tanh",
        gamma0=2.0,
        gamma2=1.0,
        times1=[5 * 0.05],
        times2=[0.0, 0.05, 7 * 0.05],
        weight_decay=0.1,
        weight_decay2=0.1,
        reduction="sum",
        width=12,
        depth=3,
        dt=0.05,
        **switch,
    )
    f, _ = train_networks(experiment, Data, [0, 1], seed=9)
    stages = [replace(s, steps=n) for s, n in zip(case.stages(DeepStage), (5, 7), strict=True)]
    stages[1] = replace(stages[1], **switch)
    settings = {"activation": "tanh", "depth": 3, "width": 12, "nets": 2, "seed": 9, "dt": 0.05}
    ensemble = deep_ensemble(case.x, stages, **settings)
    np.testing.assert_allclose(ensemble.f[:, [5, 6, 12]], f[:, 1:], rtol=1e-9, atol=1e-12)
    if not switch:
        np.testing.assert_allclose(2 * f[:, 0], ensemble.f[:, 5], rtol=1e-9)  # jumps by g1/g2
    mean = [replace(s, omega=1 / len(np.asarray(s.rows))) for s in stages]
    assert abs(deep_ensemble(case.x, mean, **settings).f - ensemble.f).max() > 0.01


def test_centring_takes_the_offset_anew_with_a_new_readout():
    _, carried = run("R3", width=20, nets=3)
    np.testing.assert_array_equal(carried.f[:, 0], 0)
    assert abs(carried.f[:, 20]).max() > 0.1
    for change in ({"readout": "reset"}, {"reinit_from": 1}, {"readout": "carry-centred"}):
        _, fresh = run("R3", width=20, nets=3, change=lambda s, i, c=change: replace(s, **c) if i else s)
        np.testing.assert_allclose(fresh.f[:, [0, 20]], 0, atol=1e-14)
        np.testing.assert_array_equal(fresh.f[:, :20], carried.f[:, :20])
    _, plain = run("R3", width=20, nets=3, centred=False)
    assert abs(plain.f[:, 0]).max() > 0.05
    _, plain_reset = run("R3", width=20, nets=3, centred=False, change=lambda s, i: replace(s, readout="reset"))
    assert abs(plain_reset.f[:, 20]).max() > 0.05


def test_errors():
    with pytest.raises(DomainError, match="freeze = 3: the network has 2 hidden layers"):
        run("R3", width=4, nets=1, change=lambda s, i: replace(s, freeze=3))
    with pytest.raises(DomainError, match="depth = 0"):
        run("R3", width=4, nets=1, depth=0)
    with pytest.raises(DomainError, match=r"state 41 .* 0 and 40"):
        run("R3", width=4, nets=1, states=[41])
    with pytest.raises(DomainError, match="labels of shape"):
        run("R3", width=4, nets=1, change=lambda s, i: replace(s, labels=[0.0]))
    with pytest.raises(DomainError, match="rows up to 20 must lie between 0 and 14"):
        run("R3", width=4, nets=1, change=lambda s, i: replace(s, rows=[20], labels=[0.0]))
    for bad in ({"gamma": 0.0}, {"omega": -1.0}, {"decay": -0.1}, {"steps": 0}):
        with pytest.raises(DomainError, match=next(iter(bad))):
            run("R3", width=4, nets=1, change=lambda s, i, b=bad: replace(s, **b))
    with pytest.raises(UsageError, match="did you mean 'reset'"):
        run("R3", width=4, nets=1, change=lambda s, i: replace(s, readout="rest"))
    with pytest.raises(UsageError, match="nets = 0"):
        run("R3", width=4, nets=0)
    with pytest.raises(ConvergenceError, match=r"diverged at step .* smaller dt"):
        run("R1", width=20, nets=1, dt=20.0)
    _, one = run("R3", width=8, nets=1, states=[0])
    assert np.isnan(one.phi_se).all()
