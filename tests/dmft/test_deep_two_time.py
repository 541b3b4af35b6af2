"""Kernels and responses of deep networks between two times: against the rows, and against networks of finite width."""

import functools
from typing import Any

import numpy as np
import pytest

import tlcli
from tests.dmft.deep_runs import by_axes, by_rows, by_samples, stages_of, varied
from tlcli.dmft.deep.responses import ResponseWatch
from tlcli.dmft.deep.space import without
from tlcli.dmft.deep.two_time import DeepTwoTimeWatch
from tlcli.dmft.integrate import Control
from tlcli.errors import UsageError

WIDTH, NETWORKS = 512, 8
SMALL = {"P1": 3, "P2": 2, "Pt": 1, "D": 3}


def short(name, **more):
    return varied(name, **{"n1": 4, "n2": 4, **more})


def trained(case):
    return np.arange(case.P1 + case.P2)


def moments(case):
    return [frozenset(range(case.n1 + 1)), frozenset(range(case.n2 + 1))]


def watch(case):
    return DeepTwoTimeWatch({}, trained(case), trained(case), trained(case), moments(case))


def states(case):
    """The states of the record at every moment; that of the switch is there twice."""
    return [*range(case.n1 + 1), *range(case.n1, case.n1 + case.n2 + 1)]


def seen(runs, name):
    return np.concatenate([run.observed[name] for run in runs])


# ------------------------------------------------------------------------------------------------ linear networks


@pytest.mark.parametrize(("name", "readout"), [("R1", "carry"), ("R2", "carry"), ("R2", "reset")])
def test_kernels_between_two_times_are_those_of_the_rows(name, readout):
    case = short(name)
    rows, runs = by_rows(case, readout=readout), by_axes(case, readout=readout, observe=watch(case))
    n, at = len(trained(case)), states(case)
    for layer in range(case.L):
        phi, g = (seen(runs, f"{word}_layer{layer + 1}_two_time") for word in ("phi", "g"))
        for i, j in zip(*np.tril_indices(len(at)), strict=True):
            np.testing.assert_allclose(phi[i, j], rows.phi[layer][at[i], :n, at[j], :n], rtol=0, atol=1e-10)
            if readout == "carry" or case.n1 not in (i, j):  # the last state of stage 1 has the old readout
                np.testing.assert_allclose(g[i, j], rows.g[layer][at[i], at[j]], rtol=0, atol=1e-10)
        # The twin: the kernel at the later time is another.
        assert np.max(np.abs(phi[-1, 0] - rows.phi[layer][at[-1], :n, at[-1], :n])) > 1e-2


def test_points_that_are_not_trained_on_leave_what_they_show():
    """What is drawn for them anew at every time, and would have another law at two times, is below the tolerance."""
    case, target, rest = short("R3", g1=2.0, dt=0.2), trained(short("R3"))[6:], []

    def look(stage, record, time, scene):
        if (stage, record) == (0, case.n1):
            hidden, space = scene.start.hidden[0], scene.start.spaces[0]
            fields = scene.look(target).phi[0][scene.look(target).rows(target)]
            for _ in range(2):
                left = without(space, fields, hidden.ins.rows, hidden.is_feature)
                rest.append(np.mean(left**2) / np.mean(fields**2))
                scene.reveal(target)
        return {}

    by_samples(case, 1000, 0, observe=look, tol=0.02)
    assert rest[1] < 0.02**2 < rest[0]


@pytest.mark.parametrize(("name", "readout"), [("R0", "carry"), ("R1", "carry"), ("R2", "carry"), ("R2", "reset")])
def test_responses_are_those_of_the_rows(name, readout):
    case = short(name, n1=3, n2=3) if name != "R0" else varied(name)
    rows = by_rows(case, readout=readout)
    runs = by_axes(case, readout=readout, observe=ResponseWatch(trained(case), moments(case), readout), size=4000)
    n, at, dt = len(trained(case)), states(case), case.dt
    for layer in range(case.L - 1):
        a, b = (seen(runs, f"{word}_layer{layer + 1}_two_time") for word in "ab")
        largest = 0.0
        for i, j in zip(*np.tril_indices(len(at), -1), strict=True):
            if j == case.n1:  # descent of stage 1 has ended, and no step begins there
                assert not np.any(a[i, j])
                assert not np.any(b[i, j])
                continue
            if i == case.n1 and readout == "reset":
                continue
            exact = rows.forward[layer][at[i], :n, at[j]]
            np.testing.assert_allclose(dt * a[i, j].sum(axis=1), exact, rtol=0, atol=1e-11)
            back = np.broadcast_to(rows.backward[layer][at[i], at[j], :n], (n, n))
            np.testing.assert_allclose(dt * b[i, j], back, rtol=0, atol=1e-11)
            largest = max(largest, np.max(np.abs(exact)))
        assert largest > 0.01
        idle = trained(case)[case.P1 :]
        assert not np.any(np.nan_to_num(a[:, : case.n1, :, idle])), "points that are not trained on have no response"
        assert not np.any(seen(runs, f"b_layer{layer + 1}_now")), "phi'' vanishes"


def test_the_responses_of_gradient_flow_are_the_limit_of_small_steps():
    small = {"L": 2, "g1": 1.5, "P1": 2, "P2": 2, "Pt": 1, "D": 2}
    case = short("R2", n1=2, n2=2, **small)
    flow, ends = Control("rkc", tolerance=1e-8), [frozenset((0, 1, 2))] * 2
    runs = by_axes(case, control=flow, observe=ResponseWatch(trained(case), ends), size=1000, tol=1e-7)
    n, at = len(trained(case)), [0, 1, 2, 2, 3, 4]
    a, b = (seen(runs, f"{word}_layer1_two_time") for word in "ab")

    found = []
    for parts in (4, 8, 16):
        rows = by_rows(short("R2", dt=case.dt / parts, n1=2 * parts, n2=2 * parts, **small))
        every = slice(None, None, parts)
        found.append(
            [
                (parts / case.dt) * part
                for part in (rows.forward[0][every, :n, every], rows.backward[0][every, every, :n])
            ]
        )
    forward, backward = ((8 * fine - 6 * half + coarse) / 3 for coarse, half, fine in zip(*found, strict=True))
    for i, j in zip(*np.tril_indices(6, -1), strict=True):
        if at[i] == at[j] or j == 2:  # the end of stage 1 is of both stages
            continue
        np.testing.assert_allclose(a[i, j].sum(axis=1), forward[at[i], :, at[j]], rtol=2e-3, atol=2e-3)
        back = np.broadcast_to(backward[at[i], at[j]], (n, n))
        np.testing.assert_allclose(b[i, j], back, rtol=2e-3, atol=2e-3)
    assert np.max(np.abs(forward[:, :, 0])) > 0.5
    # The twin: descent with these steps is something else.
    assert np.max(np.abs(found[0][0] - forward)) > 0.02


# --------------------------------------------------------------------------------------- networks of finite width


class Network:
    """Two hidden layers of finite width, tanh; gradient descent on the summed loss, with kicks of r or u at a step."""

    def __init__(self, case, seed):
        rng = np.random.default_rng(seed)
        self.case, self.x = case, case.x[: case.P1 + case.P2] / np.sqrt(case.D)
        self.start = [rng.standard_normal(shape) for shape in ((WIDTH, case.D), (WIDTH, WIDTH), (WIDTH,))]
        self.signs = rng.choice([-1.0, 1.0], (len(self.x), WIDTH))

    def fields(self, w, u=0.0, r=0.0):
        h1 = self.x @ w[0].T
        h2 = np.tanh(h1) @ w[1].T / np.sqrt(WIDTH) + u
        p1, p2 = np.tanh(h1), np.tanh(h2)
        g2 = (1 - p2**2) * w[2]
        return p1, p2, (1 - p1**2) * (g2 @ w[1] / np.sqrt(WIDTH) + r), g2

    def run(self, errors=None, step=None, u=0.0, r=0.0):
        """Fields at all states, and the errors that trained; kicks of u and r (n, WIDTH) at one step."""
        case, w, shown, used = self.case, [one.copy() for one in self.start], [], []
        first = self.fields(w)[1] @ w[2] / WIDTH
        for k in range(case.n1 + case.n2 + 1):
            stage = stages_of(case)[int(k >= case.n1)]
            p1, p2, g1, g2 = self.fields(w)
            shown.append((p1, p2, g1, g2))
            f = (p2 @ w[2] / WIDTH - first) / stage.gamma
            pull = np.zeros(len(self.x))
            pull[stage.rows] = stage.labels - f[stage.rows]
            pull = pull if errors is None else errors[k]
            used.append(pull)
            if k == step:
                p1, p2, g1, g2 = self.fields(w, u, r)
            move = case.dt * stage.gamma * pull[:, None]
            steps = (g1 * move).T @ self.x, (g2 * move).T @ p1 / np.sqrt(WIDTH), (p2 * move).sum(axis=0)
            w = [one + by for one, by in zip(w, steps, strict=True)]
        return shown, used

    def responses(self, step):
        """A^1 and B^1 (state, n, n) of a kick at one step, by differences of two runs with the same errors."""
        size, (_, used) = 1e-3, self.run()
        found = []
        for word, part in (("r", 0), ("u", 3)):
            up, down = (self.run(used, step, **{word: sign * size * self.signs})[0] for sign in (1, -1))
            change = [(a[part] - b[part]) / (2 * size) for a, b in zip(up, down, strict=True)]
            found.append(np.array([c @ self.signs.T / WIDTH for c in change]) / self.case.dt)
        return found


CASE = short("R3", g1=1.5, dt=0.1, **SMALL)
KICKS = (0, 2, 5)


@functools.cache
def networks():
    """Kernels (net, layer and part, state, state, n, n) and responses (net, A or B, kick, state, n, n)."""
    kernels, responses = [], []
    for seed in range(NETWORKS):
        network = Network(CASE, seed)
        fields = [np.array(part) for part in zip(*network.run()[0], strict=True)]
        kernels.append([np.einsum("iaw,jbw->ijab", part, part) / WIDTH for part in fields])
        responses.append(np.stack([network.responses(step) for step in KICKS], axis=1))
    return np.array(kernels), np.array(responses)


@functools.cache
def samples():
    """What four samples of the sweep show: name -> (sample, moment, ...)."""
    found: list[dict[str, Any]] = []
    for seed in range(4):
        mine = by_samples(CASE, 2000, seed, observe=watch(CASE), tol=0.02)
        more = by_samples(CASE, 2000, seed, observe=ResponseWatch(trained(CASE), moments(CASE)), tol=0.02)
        found.append({name: seen(mine, name) for name in mine[0].observed if name.endswith("_two_time")})
        found[-1] |= {name: seen(more, name) for name in more[0].observed}
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def away(theory, measured):
    """The distance of two sets of samples in standard errors, root mean square and largest."""
    both = [(part.mean(axis=0), part.std(axis=0, ddof=1) / np.sqrt(len(part))) for part in (theory, measured)]
    (value, se), (other, more) = both
    # Few samples know the error of one number badly, not that of all numbers of two times together.
    scale = np.sqrt(np.mean(se**2 + more**2, axis=(-2, -1), keepdims=True))
    far = (value - other) / scale
    return np.sqrt(np.mean(far**2)), np.max(np.abs(far))


def slope(theory, measured):
    """How many times the theory what is measured is, by least squares."""
    value, other = theory.mean(axis=0), measured.mean(axis=0)
    return np.sum(value * other) / np.sum(value**2)


def at_moments(measured):
    """Measured at states, (..., state, state, n, n), as it is at moments."""
    at = states(CASE)
    return measured[:, at][:, :, at]


@pytest.mark.parametrize(("name", "part"), [("phi_layer1", 0), ("phi_layer2", 1), ("g_layer1", 2), ("g_layer2", 3)])
def test_kernels_between_two_times_are_those_of_wide_networks(name, part):
    kernels = at_moments(networks()[0][:, part])
    theory = samples()[f"{name}_two_time"]
    known = np.tril(np.ones(theory.shape[1:3], dtype=bool))
    mean, largest = away(theory[:, known], kernels[:, known])
    assert mean < 1.6
    assert largest < 6
    mean, _ = away(theory[:, known], np.swapaxes(kernels, 1, 2)[:, known])
    assert mean > 3, "the twin: the times exchanged"


@pytest.mark.parametrize(("word", "part"), [("a", 0), ("b", 1)])
def test_responses_are_those_of_kicked_networks(word, part):
    measured = networks()[1][:, part]
    theory = samples()[f"{word}_layer1_two_time"]
    at = states(CASE)
    for place, step in enumerate(KICKS):
        then = step if step < CASE.n1 else step + 1  # the switch is two moments
        late = [i for i, state in enumerate(at) if state > step and i > then]
        active = slice(0, CASE.P1) if step < CASE.n1 else slice(CASE.P1, None)
        found = theory[:, late, then][:, :, :, active]
        exact = measured[:, place, [at[i] for i in late]][:, :, :, active]
        assert away(found, exact)[0] < 2.2  # the numbers of one kick are correlated
        assert slope(found, exact) == pytest.approx(1, abs=0.06)
        # The twins: no response, and that to another point.
        assert away(0 * found, exact)[0] > 6
        assert slope(np.roll(found, 1, axis=-1), exact) < 0.8


def test_the_part_of_b_at_equal_times_is_the_mean_curvature():
    """B(t, t) = <phi''(h) a> of the last layer, here of wide networks: phi'' a = -2 phi g."""
    found = samples()["b_layer1_now"]
    curved = []
    for seed in range(NETWORKS):
        shown, _ = Network(CASE, seed).run()
        curved.append([-2 * np.mean(p2 * g2, axis=1) for _, p2, _, g2 in shown])
    exact = np.array(curved)[:, states(CASE)]
    mean, largest = away(found[..., None], exact[..., None])
    assert mean < 1.6
    assert largest < 5
    assert away(0.7 * found[..., None], exact[..., None])[0] > 3


# ------------------------------------------------------------------------------------------------- as a command

TASK: dict[str, Any] = {"source": "linear", "target": "hermite:1", "dim": 3, "p1": 4, "p2": 3, "ptest": 3}
FEW: dict[str, Any] = {"times": [0, 1], "kernels": [0], "depth": 2}


def test_a_command_keeps_them_with_their_errors():
    few = {"accuracy": 1, "neurons": 400, "repeats": 2}
    a = tlcli.dmft_solve(**TASK, **FEW, **few, two_time=True, responses=True).arrays
    plain = tlcli.dmft_solve(**TASK, **FEW, **few, two_time=True).arrays
    np.testing.assert_array_equal(a["two_time_stage"], [1, 1, 2, 2])
    np.testing.assert_array_equal(a["two_time_t"], [0, 1, 0, 1])
    for layer in (1, 2):
        for word in ("phi", "g"):
            name = f"{word}_layer{layer}"
            for at, moment in ((0, "stage1_t0"), (1, "stage1"), (2, "stage2_t0"), (3, "stage2")):
                np.testing.assert_allclose(a[f"{name}_two_time"][at, at], a[f"{name}_{moment}"][:7], atol=1e-12)
            np.testing.assert_array_equal(a[f"{name}_two_time"][0, 3], a[f"{name}_two_time"][3, 0].T)
            assert np.all(a[f"{name}_two_time_se"] > 0)
            np.testing.assert_array_equal(a[f"{name}_two_time"], plain[f"{name}_two_time"])
    np.testing.assert_array_equal(a["phi_two_time"], a["phi_layer2_two_time"])
    for word in "ab":
        found = a[f"{word}_layer1_two_time"]
        assert found.shape == a[f"{word}_layer1_two_time_se"].shape == (4, 4, 7, 7)
        assert np.all(np.isfinite(found))
        assert not np.any(np.triu(np.abs(found).max(axis=(2, 3)))), "nothing answers before it is asked"
        assert np.all(np.abs(found).max(axis=(2, 3))[np.tril_indices(4, -1)] > 0.01)
    assert a["b_layer1_now"].shape == (4, 7)


def test_responses_of_steps_show_the_switch_by_default():
    """Steps begin at a moment: between the ends of the stages alone there would be nothing but zeros."""
    step: dict[str, Any] = {
        "accuracy": 1,
        "neurons": 64,
        "repeats": 2,
        "integrator": "euler",
        "dt": 0.5,
        "t1": 1,
        "t2": 1,
    }
    a = tlcli.dmft_solve(**TASK, **step, depth=2, responses=True).arrays
    np.testing.assert_array_equal(a["two_time_stage"], [1, 1, 2, 2])
    np.testing.assert_array_equal(a["two_time_t"], [0, 1, 0, 1])
    for word in "ab":
        assert np.abs(a[f"{word}_layer1_two_time"][3, 2]).max() > 0.01
    b = tlcli.dmft_solve(
        **TASK, **step, depth=2, responses=True, kernels=1
    ).arrays  # as asked for, zeros though they are
    np.testing.assert_array_equal(b["two_time_t"], [1, 1])
    assert not np.any(b["a_layer1_two_time"])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            {"responses": True, "integrator": "euler", "dt": 0.5, "kernels": None, "times": [0.5, 1]},
            "--responses of the steps of euler .* at t = 0 of stage 2, which is not recorded; add 0 to --times",
        ),
        ({"responses": True, "depth": 1}, "--responses at depth 1: A and B belong to hidden matrices"),
        ({"responses": True, "activation": "relu"}, "needs a second derivative, which relu with its kinks"),
        ({"responses": True, "freeze": 1}, "not been worked out with --freeze"),
        ({"responses": True, "momentum": 0.5, "integrator": "euler", "dt": 0.5}, "out with --momentum 0.5"),
        ({"responses": True, "loss": "huber:1"}, "--responses is for the squared error"),
        ({"two_time": True, "loss": "huber:1"}, "--two-time is for the squared error"),
        ({"responses": True, "p1": 3000}, "--responses at 4 times .* more than 4e"),
    ],
)
def test_what_has_none_is_refused(words, text):
    with pytest.raises(UsageError, match=text):
        tlcli.dmft_solve(**(TASK | FEW | words))
