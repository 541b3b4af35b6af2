"""The velocity of a population against the equations neuron by neuron, on NumPy and on a strict array library."""

import array_api_strict
import numpy as np
import pytest

from tests.dmft.problems import advance, field_of, gaussians, state_of, teacher_problem
from tlcli.dmft import field as field_module
from tlcli.dmft.activations import ACTIVATIONS, activation
from tlcli.dmft.field import Drive, Field, Threads, blocks_of, free_rate, thread_count
from tlcli.dmft.integrate import Control, integrate
from tlcli.dmft.population import Population
from tlcli.losses import Objective, loss_of

SIZE, RANK, P = 12, 3, 5
RNG = np.random.default_rng(7)
HIDDEN, READOUT = RNG.standard_normal((SIZE, RANK)), RNG.standard_normal(SIZE)
COORDS, LABELS = RNG.standard_normal((P, RANK)), RNG.standard_normal(P)
WEIGHTS = (lambda q: q / q.sum())(RNG.uniform(0.5, 2, SIZE))
STATE = np.concatenate([HIDDEN.ravel(), READOUT])
RESPONSE, TAIL = 0.1 * RNG.standard_normal((P, P)), RNG.standard_normal(P)


def by_hand(act, drive, q, state, t=0.0):
    """dz/dt by loops over neurons and points, in the order in which the equations are written."""
    u, a = state[: SIZE * RANK].reshape(SIZE, RANK), state[SIZE * RANK : SIZE * (RANK + 1)]
    unit = np.sqrt(np.mean(LABELS**2))
    integral = state[SIZE * (RANK + 1) :] * unit
    f = np.zeros(P)
    for mu in range(P):
        for i in range(SIZE):
            f[mu] += q[i] * a[i] * float(act.phi(np.float64(drive.coords[mu] @ u[i]))) / drive.gamma
    if drive.shift is not None:
        f = f + drive.shift(t)
    if drive.response is not None:
        f = f + drive.response @ integral
    delta = drive.labels - f
    du, da = np.zeros_like(u), np.zeros_like(a)
    for i in range(SIZE):
        for mu in range(P):
            phi, slope = (float(v) for v in act.both(np.float64(drive.coords[mu] @ u[i])))
            du[i] += drive.scale * drive.gamma * delta[mu] * a[i] * slope * drive.coords[mu]
            da[i] += drive.scale * drive.gamma * delta[mu] * phi
        du[i] -= drive.decay * u[i]
        da[i] -= drive.decay * a[i]
    tail = [] if drive.response is None else (drive.scale * delta - 2 * drive.decay * integral) / unit
    return np.concatenate([du.ravel(), da, tail])


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighted"])
@pytest.mark.parametrize("extras", ["plain", "decay", "shift", "response"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_velocity_by_hand(name, extras, weights):
    act = activation(name)
    drive = Drive(COORDS, LABELS, 1.7, 0.3, 0.0 if extras == "plain" else 0.2)
    state = STATE
    if extras == "shift":
        drive = Drive(COORDS, LABELS, 1.7, 0.3, shift=lambda t: (t + 1) * np.arange(P))
    if extras == "response":
        drive = Drive(COORDS, LABELS, 1.7, 0.3, 0.2, response=RESPONSE)
        state = np.concatenate([STATE, TAIL])
    q = np.full(SIZE, 1 / SIZE) if weights is None else weights
    found = Field(act, SIZE, drive, weights)(0.5, state)
    np.testing.assert_allclose(found, by_hand(act, drive, q, state, 0.5), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_strict_array_library(name):
    act, xp = activation(name), array_api_strict
    drive = Drive(COORDS, LABELS, 1.7, 0.3, 0.2, lambda t: 0.1 * np.arange(P), RESPONSE)
    state = np.concatenate([STATE, TAIL])
    plain = Field(act, SIZE, drive, WEIGHTS)
    strict = Field(act, SIZE, drive, WEIGHTS, xp=xp)
    z = strict.asarray(state)
    np.testing.assert_allclose(np.asarray(strict(0.5, z)), plain(0.5, state), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(strict.outputs(z, COORDS[:2]), plain.outputs(state, COORDS[:2]), rtol=1e-12, atol=1e-12)
    for mine, other in zip(strict.kernels(z, COORDS, COORDS), plain.kernels(state, COORDS, COORDS), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-12, atol=1e-12)
    assert strict.stiffness(0.5, z)[0] == pytest.approx(plain.stiffness(0.5, state)[0], rel=1e-12)


@pytest.mark.parametrize("method", ["rkc", "euler"])
def test_integration_on_a_strict_array_library(method):
    drive = Drive(COORDS, LABELS, 1.0, 0.2)
    control = Control(method, 1e-5, 0.05 if method == "euler" else None)
    plain, strict = (Field(activation("tanh"), SIZE, drive, xp=xp) for xp in (np, array_api_strict))
    expected = integrate(plain, STATE, 2.0, control)
    found = integrate(strict, strict.asarray(STATE), 2.0, control)
    assert found.steps == expected.steps
    np.testing.assert_allclose(np.asarray(found.state), expected.state, rtol=1e-10, atol=1e-10)


def test_states_are_not_changed_in_place():
    state = STATE.copy()
    field = Field(activation("tanh"), SIZE, Drive(COORDS, LABELS, 1.0, 1.0))
    field(0.0, state)
    field.stiffness(0.0, state)
    field.kernels(state, COORDS, COORDS)
    np.testing.assert_array_equal(state, STATE)


# ------------------------------------------------------------------------------------------ blocks and threads


def big():
    problem, _ = teacher_problem("tanh", 6, 40, 0, [1.0])
    return problem, gaussians(problem, 20_000)


def test_threads_change_no_number():
    problem, population = big()
    z = state_of(population)
    one = field_of(problem, population, threads=Threads(1))
    pool = Threads(3)
    assert len(one.blocks) > 3
    try:
        three = field_of(problem, population, threads=pool)
        np.testing.assert_array_equal(three(0.0, z), one(0.0, z))
        np.testing.assert_array_equal(three.stiffness(0.0, z)[1], one.stiffness(0.0, z)[1])
        moving = problem.geometry.moving
        np.testing.assert_array_equal(three.outputs(z, moving), one.outputs(z, moving))
        np.testing.assert_array_equal(three.kernels(z, moving, moving)[1], one.kernels(z, moving, moving)[1])
    finally:
        pool.close()


def test_the_number_of_threads_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("TLCLI_THREADS", "3")
    assert thread_count() == 3
    for useless in ("", "0", "many"):
        monkeypatch.setenv("TLCLI_THREADS", useless)
        assert thread_count() >= 1


def test_blocks_change_rounding_only(monkeypatch):
    problem, population = big()
    z = state_of(population)
    field = field_of(problem, population)
    monkeypatch.setattr(field_module, "_BLOCK_BYTES", 2**40)
    whole = field_of(problem, population)
    assert len(whole.blocks) == 1 < len(field.blocks)
    np.testing.assert_allclose(field(0.0, z), whole(0.0, z), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [1, 63, 64, 1000, 100_000])
@pytest.mark.parametrize("itemsize", [0, 4, 8])
def test_blocks_cover_every_neuron_once(size, itemsize):
    blocks = blocks_of(size, 50, itemsize)
    assert [i for block in blocks for i in range(size)[block]] == list(range(size))
    assert len(blocks) == 1 if itemsize == 0 else max(b.stop - b.start for b in blocks) <= max(size, 64)


def test_single_precision():
    problem, population = big()
    z = state_of(population)
    double, single = field_of(problem, population), field_of(problem, population, dtype="float32")
    found = single(0.0, single.asarray(z))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, double(0.0, z), rtol=0, atol=3e-5)


# ------------------------------------------------------------------------------------------ kernels and their meaning


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_kernels_by_hand(name):
    act = activation(name)
    field = Field(act, SIZE, Drive(COORDS, LABELS, 1.0, 1.0), WEIGHTS)
    phi, g = field.kernels(STATE, COORDS, COORDS[:2])
    for mu in range(P):
        for nu in range(2):
            (p, s), (p2, s2) = act.both(HIDDEN @ COORDS[mu]), act.both(HIDDEN @ COORDS[nu])
            assert phi[mu, nu] == pytest.approx(np.sum(WEIGHTS * p * p2), rel=1e-12, abs=1e-14)
            assert g[mu, nu] == pytest.approx(np.sum(WEIGHTS * READOUT**2 * s * s2), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("name", ["linear", "relu"])
@pytest.mark.parametrize("g_without_readout", [False, True])
def test_the_kernel_drives_the_output(name, g_without_readout):
    """df/dt = s Theta Delta - 2 lambda f for homogeneous activations, which a G without a^2 would break."""
    act, drive = activation(name), Drive(COORDS, LABELS, 1.3, 0.4, 0.25)
    field = Field(act, SIZE, drive, WEIGHTS)
    f, eps = field.outputs(STATE, COORDS), 1e-6
    velocity = field(0.0, STATE)
    slope = (field.outputs(STATE + eps * velocity, COORDS) - field.outputs(STATE - eps * velocity, COORDS)) / (2 * eps)
    phi, g = field.kernels(STATE, COORDS, COORDS)
    if g_without_readout:
        g = (act.both(HIDDEN @ COORDS.T)[1].T * WEIGHTS) @ act.both(HIDDEN @ COORDS.T)[1]
    theta = phi + (COORDS @ COORDS.T) * g
    gap = np.max(np.abs(slope - (drive.scale * theta @ (LABELS - f) - 2 * drive.decay * f)))
    assert gap > 1e-2 if g_without_readout else gap < 1e-7


def test_points_outside_the_span_of_the_data():
    still = RNG.standard_normal((SIZE, 2))
    act = activation("tanh")
    field = Field(act, SIZE, Drive(COORDS, LABELS, 1.3, 1.0))
    expected = READOUT @ np.tanh(HIDDEN @ COORDS[:2].T + still) / SIZE / 1.3
    np.testing.assert_allclose(field.outputs(STATE, COORDS[:2], still), expected, rtol=1e-12)
    phi = field.kernels(STATE, COORDS[:2], COORDS, still)[0]
    np.testing.assert_allclose(
        phi, np.tanh(HIDDEN @ COORDS[:2].T + still).T @ np.tanh(HIDDEN @ COORDS.T) / SIZE, rtol=1e-12
    )


# ------------------------------------------------------------------------------------------ stiffness


def jacobian(field, z, eps=1e-6):
    columns = [(field(0.0, z + eps * e) - field(0.0, z - eps * e)) / (2 * eps) for e in np.eye(len(z))]
    return np.array(columns).T


@pytest.mark.parametrize("gamma", [0.1, 1.0])
@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if activation(name).lipschitz])
def test_stiffness_bounds_the_decay_rates(name, gamma):
    """To the quarter that the stability interval of RKC2 leaves; the forces alone are far from enough."""
    problem, _ = teacher_problem(name, 3, 20, 0, [1.0], gamma=gamma, only=2)
    population = gaussians(problem, 100)
    field, z = field_of(problem, population), state_of(population)
    # At rest neurons of relu sit on their kinks, where differences mean nothing.
    for time in (0.0, 0.3) if field.act.smooth else (0.0,):
        if time:
            z = advance(field, z, time, tolerance=1e-6)
        rate, vector = field.stiffness(0.0, z)
        fastest = float(np.max(-np.linalg.eigvals(jacobian(field, z)).real))
        assert 0.75 * fastest < rate < 3 * fastest
        assert np.linalg.norm(vector) == pytest.approx(1.0)
        if gamma == 0.1:
            assert free_rate(field.drive, field.residual(0.0, z)) < 0.5 * fastest


def test_stiffness_is_the_top_of_theta_when_nothing_is_left_to_learn():
    field = Field(activation("tanh"), SIZE, Drive(COORDS, np.zeros(P), 0.7, 0.4))
    # With pairs the output is zero, and so are the forces: only the feedback is left.
    population = Population(np.concatenate([HIDDEN[:6]] * 2), np.r_[READOUT[:6], -READOUT[:6]], np.zeros((SIZE, 0)))
    z = state_of(population)
    phi, g = field.kernels(z, COORDS, COORDS)
    top = np.linalg.eigvalsh(phi + (COORDS @ COORDS.T) * g)[-1]
    assert field.stiffness(0.0, z, sweeps=200)[0] == pytest.approx(0.4 * top, rel=0.03)


def test_evaluations_are_counted():
    field = Field(activation("tanh"), SIZE, Drive(COORDS, LABELS, 1.0, 1.0))
    field(0.0, STATE)
    field(0.0, STATE)
    assert field.evaluations == 2
    field.stiffness(0.0, STATE)
    assert field.evaluations > 2


@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_the_squared_error_named_is_one_output_without_a_loss_to_the_last_bit(name):
    """No loss is between labels and forces: the flow written out, in single precision, and the same bits by name."""
    act = activation(name)
    drive = Drive(COORDS, LABELS, 1.7, 0.3, 0.2)
    found = Field(act, SIZE, drive, dtype="float32")(0.0, STATE.astype(np.float32))
    u, a, c = (v.astype(np.float32) for v in (HIDDEN, READOUT, COORDS))
    h = u @ c.T
    phi = np.tanh(h) if name == "tanh" else np.maximum(h, 0)
    slope = 1 - phi * phi if name == "tanh" else (h > 0).astype(np.float32)
    pull = (0.3 * 1.7 * (LABELS - ((a / SIZE) @ phi).astype(float) / 1.7)).astype(np.float32)
    du = slope @ (pull[:, None] * c) * a[:, None] - 0.2 * u
    da = phi @ pull - 0.2 * a
    # BLAS may add in another order for another layout, on another processor.
    np.testing.assert_allclose(found, np.concatenate([du.ravel(), da]), rtol=2e-6, atol=2e-6)
    named = Drive(COORDS, LABELS, 1.7, 0.3, 0.2, objective=Objective(loss_of("mse"), LABELS))
    same = Field(act, SIZE, named, dtype="float32")(0.0, STATE.astype(np.float32))
    np.testing.assert_array_equal(same, found)
