"""The identities between losses of two-layer networks: eleven, each of which would fail with a wrong equation.

1 softmax of two classes is logistic; 2 scales of outputs and of losses; 3 rotations, duplicates and permutations of
outputs; 4 losses that are the squared error while they may be; 5 the gauge of softmax; 6 the norm of the readout; 7 the
energy; 8 what homogeneous and linear networks conserve; 9 rest with weight decay is regression with the network's own
kernel; 10 odd networks do not see the sign of a point; 11 a stage of small gamma is a flow with a frozen kernel. The
first also holds for the Bayesian saddle, see tests/bayes.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from tests.dmft import losses as zoo
from tests.dmft.losses import small, train
from tlcli.dmft.field import Drive
from tlcli.dmft.geometry import reduce_inputs
from tlcli.dmft.integrate import Control
from tlcli.dmft.loss_regression import loss_regression
from tlcli.dmft.population import Population, sample
from tlcli.dmft.two_layer import Problem, Stage, run_population
from tlcli.dmft.vector_field import VectorField
from tlcli.losses import Loss, Objective, loss_of
from tlcli.losses.labels import objective_of


def test_softmax_of_two_classes_is_logistic():
    """Identity 1: f1 - f2 with gamma sqrt(2), t/2 and 2 lambda; and to rounding in the objective itself."""
    act, geometry, u, a = small()
    two = objective_of(loss_of("softmax"), np.array([1.0, -1, 1]), 2, "x")
    one = objective_of(loss_of("logistic"), np.array([1.0, -1, 1]), 2, "x")
    f, _ = train(act, geometry, u, a[:, :1], [(two, np.sqrt(2) * 0.8, 0.04)], (0.5, 2.0))
    g, _ = train(act, geometry, u, a[:, 0], [(one, 0.8, 0.02)], (1.0, 4.0))
    logits = two.outputs(f)
    assert np.allclose(logits[..., 0] - logits[..., 1], g, rtol=0, atol=1e-10)
    assert np.max(np.abs(g)) > 0.3


def test_gauge_of_softmax():
    """Identity 5: C readouts give C - 1 coordinates' outputs; sum f = 0 and the sum of a decays alone."""
    act, geometry, u, b = small()
    reduced = objective_of(loss_of("softmax"), zoo.C1, 3, "x")
    full = Objective(reduced.loss, reduced.y)
    basis = reduced.basis
    assert basis is not None
    rng = np.random.default_rng(1)
    common = rng.standard_normal((40, 1))
    f, _ = train(act, geometry, u, b[:, :2], [(reduced, 1.2, 0.05)])
    g, state = train(act, geometry, u, b[:, :2] @ basis.T + common, [(full, 1.2, 0.05)])
    centred = g - g.mean(axis=-1, keepdims=True)
    assert np.allclose(reduced.outputs(f), centred, rtol=0, atol=1e-10)
    a = state[40 * geometry.rank :].reshape(40, 3)
    assert np.allclose(a.mean(axis=1), np.exp(-0.05 * 4) * common[:, 0], atol=1e-10)


@pytest.mark.parametrize("loss", ["mse", "logistic", "huber:0.7", "hinge2"])
def test_scales_of_outputs_and_losses(loss):
    """Identity 2: c times the loss is the loss with t c and lambda / c (weights are such a factor)."""
    act, geometry, u, a = small()
    plain = zoo.objective(loss, zoo.Y1, 2)
    double = replace(plain, weights=np.full(3, 2.0))
    f, _ = train(act, geometry, u, a[:, 0], [(plain, 1.0, 0.03)], (2.0, 8.0))
    g, _ = train(act, geometry, u, a[:, 0], [(double, 1.0, 0.06)], (1.0, 4.0))
    assert np.allclose(f, g, rtol=0, atol=1e-9)


@dataclass(frozen=True)
class Stretched(Loss):
    """l(kappa f) of a loss l."""

    inner: Loss
    kappa: float
    name, form, labels = "stretched", "stretched", "real"

    def value(self, f, y):
        return self.inner.value(self.kappa * f, y)

    def force(self, f, y):
        return self.kappa * self.inner.force(self.kappa * f, y)

    def bend(self, f, y, d):
        return self.kappa**2 * self.inner.bend(self.kappa * f, y, d)

    def conjugate(self, v, y):
        return self.inner.conjugate(v / self.kappa, y)

    def inverse(self, v, y):
        return self.inner.inverse(v / self.kappa, y) / self.kappa


@pytest.mark.parametrize("loss", ["mse", "logistic", "hinge2"])
def test_scales_of_outputs(loss):
    """Identity 2: l(kappa f) is l with gamma/kappa, t kappa^2, lambda/kappa^2 and outputs kappa f."""
    act, geometry, u, a = small()
    plain = zoo.objective(loss, zoo.Y1, 2)
    f, _ = train(act, geometry, u, a[:, 0], [(plain, 0.5, 0.03 / 4)], (2.0, 8.0))
    other = replace(plain, loss=Stretched(plain.loss, 2.0))
    g, _ = train(act, geometry, u, a[:, 0], [(other, 1.0, 0.03)], (0.5, 2.0))
    assert np.allclose(f, 2 * g, rtol=0, atol=1e-9)
    assert np.max(np.abs(g)) > 0.1


def test_permutations_of_classes_and_duplicates_of_an_output():
    """Identity 3: n equal outputs are one with labels sqrt(n) y, over sqrt(n); classes of softmax may change places."""
    act, geometry, u, b = small()
    q = np.full(3, 3**-0.5)  # a readout along q is one with labels y sqrt(3)
    f, _ = train(act, geometry, u, b[:, :1] * q, [(zoo.objective("mse", np.repeat(zoo.Y1[:, None], 3, 1)), 1.0, 0.02)])
    g, _ = train(act, geometry, u, b[:, 0], [(zoo.objective("mse", np.sqrt(3) * zoo.Y1), 1.0, 0.02)])
    assert np.allclose(f, g[..., None] * q, rtol=0, atol=1e-10)
    order = np.array([2, 0, 1])
    first = objective_of(loss_of("softmax"), zoo.C1, 3, "x")
    second = objective_of(loss_of("softmax"), order[zoo.C1.astype(int)].astype(float), 3, "x")
    logits = [first.outputs(train(act, geometry, u, b[:, :2], [(first, 1.0, 0.02)])[0])]
    moved = (b[:, :2] @ first.basis.T)[:, np.argsort(order)] @ first.basis  # the readout of class c becomes order[c]'s
    logits.append(second.outputs(train(act, geometry, u, moved, [(second, 1.0, 0.02)])[0]))
    assert np.allclose(logits[0], logits[1][..., order], rtol=0, atol=1e-10)


def test_rotations_of_outputs():
    """Identity 3: mse with y R^T gives f R^T."""
    act, geometry, u, a = small()
    rng = np.random.default_rng(2)
    y = rng.standard_normal((3, 3))
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    f, _ = train(act, geometry, u, a, [(zoo.objective("mse", y), 1.0, 0.02)])
    g, _ = train(act, geometry, u, a @ turn.T, [(zoo.objective("mse", y @ turn.T), 1.0, 0.02)])
    assert np.allclose(f @ turn.T, g, rtol=0, atol=1e-10)
    # One output: the engine without an objective, whose numbers are those of always.
    single = Stage(np.arange(3), zoo.Y1, 1.0, np.array([1.0, 4.0]), 1 / 3, 0.02)
    problem = Problem(act, geometry, [single])
    population = Population(u, a[:, 0], np.zeros((40, geometry.still.shape[1])))
    alone = run_population(problem, population, Control("dop853", 1e-12))[0].f
    named, _ = train(act, geometry, u, a[:, 0], [(zoo.objective("mse", zoo.Y1, 2), 1.0, 0.02)])
    assert np.allclose(alone, named, rtol=0, atol=1e-11)


def test_hinge2_and_huber_are_mse_while_they_may():
    """Identity 4: to the bit, until a margin reaches 1 or a residual is beyond k."""
    act, geometry, u, a = small()
    a = a - a  # f(0) = 0
    base, _ = train(act, geometry, u, a[:, 0], [(zoo.objective("mse", zoo.Y1), 1.0, 0.0)], (0.2, 0.5))
    for loss in ("hinge2", "huber:1.5"):
        other, _ = train(act, geometry, u, a[:, 0], [(zoo.objective(loss, zoo.Y1, 2), 1.0, 0.0)], (0.2, 0.5))
        assert np.allclose(base, other, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("factor", "power"), [(2.0, 4), (1.9, 1)])
def test_logistic_begins_as_the_squared_error_of_twice_the_labels(factor, power):
    """Identity 4: at a quarter of the time, up to t^4; with other labels, the twin, at first order."""
    act, geometry, u, b = small()
    u, a = np.concatenate([u, u]), np.concatenate([b[:, 0], -b[:, 0]])  # f(0) = 0
    times = np.array([0.05, 0.1, 0.2])
    f, _ = train(act, geometry, u, a, [(zoo.objective("logistic", zoo.Y1, 2), 1.0, 0.0)], times)
    g, _ = train(act, geometry, u, a, [(zoo.objective("mse", factor * zoo.Y1), 1.0, 0.0)], times / 4)
    gaps = np.max(np.abs(f - g), axis=1)
    assert np.allclose(np.log2(gaps[1:] / gaps[:-1]), power, atol=0.1)


def test_norm_of_the_readout():
    """Identity 6: d|a|^2/dt / 2 = gamma^2 s sum Delta.f - lambda |a|^2, from the field itself."""
    act, geometry, u, b = small()
    target = objective_of(loss_of("softmax", 0.1), zoo.C1, 3, "x")
    drive = Drive(geometry.moving[:3], target.y, 1.3, 1 / 3, 0.07, objective=target)
    field = VectorField(act, 40, drive)
    z = np.concatenate([u.ravel(), b[:, :2].ravel()])
    velocity = field.split(field(0.0, z))[1]
    f = field.active(0.0, z)
    a = b[:, :2]
    power = 1.3**2 / 3 * float(np.sum(target.force(f) * f)) - 0.07 * float(np.mean(np.sum(a**2, axis=1)))
    assert float(np.mean(np.sum(a * velocity, axis=1))) == pytest.approx(power, rel=1e-13)


def test_velocity_is_minus_the_gradient_of_the_energy():
    """Identity 7, component by component: finite differences of s sum l + lambda |z|^2 / 2 gamma^2."""
    act, geometry, u, b = small()
    target = objective_of(loss_of("softmax"), zoo.C1, 3, "x", "1,2,0.5")
    gamma, decay = 1.3, 0.07
    drive = Drive(geometry.moving[:3], target.y, gamma, 1 / 3, decay, objective=target)
    field = VectorField(act, 40, drive)
    z = np.concatenate([u.ravel(), b[:, :2].ravel()])

    def energy(z):
        return target.value(field.active(0.0, z)) / 3 + decay / (2 * gamma**2) * float(z @ z) / 40

    velocity = field(0.0, z)
    for i in (0, 5, 77, 40 * geometry.rank + 3, 40 * geometry.rank + 50):
        step = np.zeros_like(z)
        step[i] = 1e-5
        slope = (energy(z + step) - energy(z - step)) / 2e-5
        assert velocity[i] == pytest.approx(-(gamma**2) * 40 * slope, abs=2e-8)


def test_linear_networks_conserve_per_neuron():
    """Identity 8: |a|^2 - |u|^2 of every neuron decays as exp(-2 lambda t)."""
    act, geometry, u, b = small("linear")
    target = objective_of(loss_of("softmax"), zoo.C1, 3, "x")
    _, state = train(act, geometry, u, b[:, :2], [(target, 1.3, 0.07)])
    cut = 40 * geometry.rank
    after = np.sum(state[cut:].reshape(40, 2) ** 2, 1) - np.sum(state[:cut].reshape(40, -1) ** 2, 1)
    before = np.sum(b[:, :2] ** 2, 1) - np.sum(u**2, 1)
    assert np.allclose(after, np.exp(-2 * 0.07 * 4) * before, atol=1e-9)


def test_relu_conserves_per_neuron():
    """Identity 8 for relu, up to its kinks; not so for tanh, the twin."""
    left = []
    for kind in ("relu", "tanh"):
        act, geometry, u, b = small(kind)
        target = objective_of(loss_of("softmax"), zoo.C1, 3, "x")
        stage = Stage(np.arange(3), target.y, 1.3, np.array([2.0]), 1 / 3, 0.07, "carry", target)
        still = np.zeros((40, geometry.still.shape[1]))
        problem = Problem(act, geometry, [stage])
        (run,) = run_population(problem, Population(u, b[:, :2], still), Control("rkc", 1e-7))
        cut = 40 * geometry.rank
        state = run.outcome.state
        after = np.sum(state[cut:].reshape(40, 2) ** 2, 1) - np.sum(state[:cut].reshape(40, -1) ** 2, 1)
        before = np.sum(b[:, :2] ** 2, 1) - np.sum(u**2, 1)
        left.append(np.max(np.abs(after - np.exp(-2 * 0.07 * 2) * before)))
    assert left[0] < 1e-4
    assert left[1] > 1e-2


def test_linear_networks_conserve_a_form_of_their_second_moments():
    """Identity 8: M J M = exp(-4 lambda t) J of all second moments, J = diag(1, -1) of weights and readouts."""
    act, geometry, _, _ = small("linear")
    rank, target = geometry.rank, objective_of(loss_of("softmax"), zoo.C1, 3, "x")
    people = sample("mc", 200, rank, 0, np.random.default_rng(0), pairs=True, whiten=True, readouts=2)
    _, state = train(act, geometry, people.hidden, people.readout, [(target, 1.3, 0.07)])
    z = np.column_stack([state[: 200 * rank].reshape(200, rank), state[200 * rank :].reshape(200, 2)])
    moments, form = z.T @ z / 200, np.diag([1.0] * rank + [-1.0] * 2)
    assert np.allclose(moments @ form @ moments, np.exp(-4 * 0.07 * 4) * form, rtol=0, atol=1e-9)
    assert np.max(np.abs(moments - np.diag(np.diag(moments)))) > 0.1


@pytest.mark.parametrize("loss", ["logistic", "softmax", "hinge2"])
def test_rest_with_decay_is_regression_with_the_own_kernel(loss):
    """Identity 9: f = Phi q with q = (s/lambda) Delta(f), the regression of ridge lambda; and identity 6 at rest."""
    act, geometry, u, b = small()
    classes = 3 if loss == "softmax" else 2
    target = objective_of(loss_of(loss), zoo.C1 if classes == 3 else zoo.Y1, classes, "x")
    gamma, decay, readout = 1.5, 0.1, b[:, :2] if classes == 3 else b[:, 0]
    f, state = train(act, geometry, u, readout, [(target, gamma, decay)], (400.0,))
    hidden, a = state[: u.size].reshape(u.shape), state[u.size :].reshape(readout.shape)
    features = np.tanh(hidden @ geometry.moving.T)  # what does not move has decayed
    phi = features.T @ features / 40
    wanted = loss_regression(phi[:3, :3], phi[:, :3], target, ridge=decay)[0]
    assert np.max(np.abs(wanted)) > 0.1, "no collapse"
    assert np.allclose(target.outputs(f[0]), wanted, rtol=0, atol=1e-7)
    other = loss_regression(phi[:3, :3], phi[:, :3], target, ridge=1.1 * decay)[0]
    assert np.max(np.abs(other - wanted)) > 1e-3, "another ridge is another predictor"
    power = gamma**2 / 3 * float(np.sum(target.force(f[0, :3]) * f[0, :3]))
    assert decay * float(np.sum(a**2)) / 40 == pytest.approx(power, rel=1e-6)


@pytest.mark.parametrize("loss", ["logistic", "hinge2", "huber:0.5"])
def test_odd_networks_do_not_see_the_sign_of_a_point(loss):
    """Identity 10: (x, y) -> (-x, -y) of a training point changes nothing."""
    act, _, _, _ = small()
    x = zoo.inputs(8, 4)
    turned, labels = x.copy(), zoo.Y1.copy()
    turned[1], labels[1] = -turned[1], -labels[1]
    found = []
    for points, y in ((x, zoo.Y1), (turned, labels)):
        geometry = reduce_inputs(points, 6)
        weights = np.random.default_rng(0).standard_normal((40, 4))
        geometry = replace(geometry, moving=points / 2.0, still=np.zeros((8, 0)))  # the same axes for both
        f, _ = train(act, geometry, weights, np.ones(40), [(zoo.objective(loss, y, 2), 1.0, 0.0)])
        found.append(f[:, [0, 2, 3, 6]])
    assert np.allclose(*found, rtol=0, atol=1e-13)


def lazy_error(gamma, readout):
    """Distance of a stage of small gamma from the flow with the kernel that it starts from."""
    act, geometry, u, b = small()
    first, second = zoo.objective("logistic", zoo.Y1, 2), objective_of(loss_of("softmax"), zoo.C2, 3, "x")
    stages = [Stage(np.arange(3), first.y, 1.0, np.array([4.0]), 1 / 3, 0.0, "carry", first)]
    times, still = np.array([1.0, 4.0]), np.zeros((40, geometry.still.shape[1]))
    if readout == "reset":
        _, state = train(act, geometry, u, b[:, 0], [(first, 1.0, 0.0)], (4.0,))
        # Every neuron with both signs of two readouts, of which <b b^T> = 1 exactly: the kernel is diagonal in outputs.
        hidden = np.repeat(state[: u.size].reshape(u.shape), 4, axis=0)
        heads = np.tile(np.sqrt(2) * np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]), (40, 1))
        target, plain, people = second, np.ones(160), Population(hidden, heads, np.repeat(still, 4, axis=0))
        stages = [Stage(np.arange(3, 6), target.y, gamma, times, 1 / 3, 0.0, "carry", target)]
    else:
        target = zoo.objective("logistic", zoo.Y2, 2)
        _, state = train(act, geometry, u, b[:, 0], [(first, 1.0, 0.0)], (4.0,))
        hidden, plain = state[: u.size].reshape(u.shape), state[u.size :] ** 2
        people = Population(u, b[:, 0], still)
        stages.append(Stage(np.arange(3, 6), target.y, gamma, times, 1 / 3, 0.0, readout, target))
    found = run_population(Problem(act, geometry, stages), people, Control("dop853", 1e-11))[-1].f
    h = hidden @ geometry.moving.T + np.zeros((len(hidden), 1))
    phi, slope = np.tanh(h), 1 - np.tanh(h) ** 2
    kernel = phi.T @ phi / len(h) + (geometry.moving @ geometry.moving.T) * (slope.T @ (plain[:, None] * slope)) / len(
        h
    )
    wanted = loss_regression(kernel[3:6, 3:6], kernel[:, 3:6], target, time=times)
    return float(np.max(np.abs((target.outputs(found) - wanted)[:, :6])))


@pytest.mark.parametrize(("readout", "power"), [("reset", 2), ("carry-centred", 1)])
def test_a_stage_of_small_gamma_is_a_flow_with_the_frozen_kernel(readout, power):
    """Identity 11: up to gamma^2 with fresh readouts, up to gamma only with carried ones, which know the features."""
    gaps = np.array([lazy_error(gamma, readout) for gamma in (0.1, 0.05, 0.025)])
    assert np.allclose(np.log2(gaps[:-1] / gaps[1:]), power, atol=0.15), gaps
    assert gaps[-1] < 0.03
