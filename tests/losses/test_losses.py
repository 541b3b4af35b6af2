"""Every loss that is registered against finite differences, a numerical conjugate and exact arithmetic."""

import ast
import inspect
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import minimize

from tests.dmft import losses as zoo
from tlcli import losses
from tlcli.bayes.whitened_losses import whitened_losses
from tlcli.errors import DomainError, UsageError
from tlcli.losses import Objective, known, loss_of
from tlcli.losses.base import Loss
from tlcli.losses.labels import encode, objective_of, outputs_of
from tlcli.losses.objective import centred_basis

SPECS = [("mse", 0.0), ("logistic", 0.0), ("logistic", 0.3), ("softmax", 0.0), ("softmax", 0.2), ("hinge2", 0.0)]
SPECS += [("huber", 0.0), ("huber:0.4", 0.0)]


def problem(loss: Loss, dtype: str = "float64", samples: int = 40):
    """Outputs and softened labels of the kind that the loss has, none on a kink."""
    rng = np.random.default_rng(3)
    if loss.vector:
        y = np.eye(4)[rng.integers(0, 4, samples)]
        f = 2.5 * rng.standard_normal((samples, 4))
    else:
        y = rng.choice([-1.0, 1.0], samples) if loss.labels == "binary" else rng.standard_normal(samples)
        f = 2.5 * rng.standard_normal(samples)
    return f.astype(dtype), loss.soften(y).astype(dtype)


def test_every_registered_loss_is_tested():
    """A new file of the package comes into this battery by its name."""
    assert {spec.partition(":")[0] for spec, _ in SPECS} == set(known())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("spec", "smoothing"), SPECS)
def test_force_and_hessian_are_the_derivatives(spec, smoothing, dtype):
    loss = loss_of(spec, smoothing)
    f, y = problem(loss, dtype)
    step, tolerance = (1e-5, 1e-8) if dtype == "float64" else (2e-2, 4e-4)
    direction = np.random.default_rng(4).standard_normal(f.shape).astype(dtype)
    force, bend = loss.force(f, y), loss.bend(f, y, direction)
    assert force.dtype == bend.dtype == loss.value(f, y).dtype == np.dtype(dtype)
    ahead, behind = f + step * direction, f - step * direction
    slope = (loss.value(ahead, y) - loss.value(behind, y)) / (2 * step)
    along = -force * direction
    smooth = np.abs(f - y) > -1  # kinks of the force between the two points leave the second difference undefined
    if spec.startswith("huber"):
        smooth = np.abs(np.abs(y - f) - loss.k) > 2 * step * np.abs(direction)  # pyright: ignore[reportAttributeAccessIssue]
    if spec == "hinge2":
        smooth = np.abs(1 - y * f) > 2 * step * np.abs(direction)
    expected = along.sum(axis=-1) if loss.vector else along
    keep = smooth.all(axis=-1) if loss.vector else smooth
    assert np.allclose(slope[keep], expected[keep], atol=tolerance * 10)
    second = -(loss.force(ahead, y) - loss.force(behind, y)) / (2 * step)
    assert np.allclose(second[keep], bend[keep], atol=tolerance * 10)
    assert not np.allclose(second[keep], bend[keep] + 0.05 * direction[keep], atol=tolerance * 10)


@pytest.mark.parametrize(("spec", "smoothing"), SPECS)
def test_hessian_is_within_the_smoothness(spec, smoothing):
    loss = loss_of(spec, smoothing)
    f, y = problem(loss)
    h = loss.hessian(f, y)
    if not loss.vector:
        assert np.all((h >= 0) & (h <= loss.smoothness))
        return
    values = np.linalg.eigvalsh(h)
    assert np.all(values > -1e-15)
    assert values.max() <= loss.smoothness
    assert np.allclose(loss.bend(f, y, np.full_like(f, 0.7)), 0, atol=1e-15)  # the gauge


@pytest.mark.parametrize(("spec", "smoothing"), SPECS)
def test_conjugate_is_the_supremum_and_force_its_argument(spec, smoothing):
    """(l)*(-v) = sup_f [-v.f - l] by minimisation, with equality of Fenchel and Young at v = Delta(f)."""
    loss = loss_of(spec, smoothing)
    f, y = problem(loss, samples=6)
    v = loss.force(f, y)
    inner = np.sum(v * f, axis=-1) if loss.vector else v * f
    assert np.allclose(loss.value(f, y) + loss.conjugate(v, y) + inner, 0, atol=1e-12)
    for i in range(3):
        v_i, y_i = 0.7 * v[i], y[i]

        def minus(x, v_i=v_i, y_i=y_i):
            x = x if loss.vector else x[0]
            return float(np.sum(v_i * x) + loss.value(np.asarray(x), y_i))

        found = minimize(minus, np.zeros(np.size(v_i)), method="BFGS", options={"gtol": 1e-9})
        assert loss.conjugate(v_i, y_i) == pytest.approx(-found.fun, abs=1e-8)


def test_huge_margins_neither_overflow_nor_cancel():
    """The force at margin 30 is exp(-30) to rounding, where 1 - expit(30) has no digit left in float32."""
    logistic, softmax = loss_of("logistic"), loss_of("softmax")
    for dtype, precise in (("float32", 1e-6), ("float64", 1e-14)):
        m = np.array([30.0, -30.0, 80.0, 1e4, -1e4], dtype)
        y = np.ones_like(m)
        force = logistic.force(m, y)
        assert force[0] == pytest.approx(np.exp(-30.0) / (1 + np.exp(-30.0)), rel=precise)
        assert force[3] == 0
        assert force[4] == 1
        assert logistic.value(m, y)[4] == 1e4
        assert np.isfinite(logistic.value(m, y)).all()
        f = np.stack([m, np.zeros_like(m), np.zeros_like(m)], axis=1)
        pi = np.zeros_like(f)
        pi[:, 0] = 1
        delta = softmax.force(f, pi)
        assert delta[0, 0] == pytest.approx(2 * np.exp(-30.0) / (1 + 2 * np.exp(-30.0)), rel=precise)
        assert np.isfinite(softmax.value(f, pi)).all()
    naive = 1 - softmax_of(np.array([30.0, 0, 0], np.float32))[0]
    assert naive == 0  # what the stable form is for


def softmax_of(f):
    """The plain formula."""
    return np.exp(f - f.max()) / np.exp(f - f.max()).sum()


def test_logistic_is_softmax_of_two_classes():
    """Force, value and curvature of the difference of two logits, with label smoothing too."""
    for smoothing in (0.0, 0.2):
        one, two = loss_of("logistic", smoothing), loss_of("softmax", smoothing)
        rng = np.random.default_rng(0)
        f = rng.standard_normal((30, 2)) * 3
        label = rng.integers(0, 2, 30)
        y, pi = one.soften(1.0 - 2.0 * label), two.soften(np.eye(2)[label])
        d = f[:, 0] - f[:, 1]
        assert np.allclose(one.value(d, y), two.value(f, pi), rtol=0, atol=1e-14)
        assert np.allclose(one.force(d, y), two.force(f, pi)[:, 0], rtol=0, atol=1e-15)
        assert np.allclose(one.bend(d, y, np.ones(30)), two.hessian(f, pi)[:, 0, 0], rtol=0, atol=1e-15)


def test_reported_losses_have_no_half():
    f, y = np.array([0.5]), np.array([1.0])
    assert loss_of("mse").reported(f, y)[0] == pytest.approx(float(Fraction(1, 4)))
    assert loss_of("hinge2").reported(f, y)[0] == 0.25
    assert loss_of("huber:0.1").reported(f, y)[0] == pytest.approx(2 * 0.1 * (0.5 - 0.05))
    assert loss_of("logistic").reported(np.zeros(1), y)[0] == pytest.approx(np.log(2))
    assert loss_of("softmax").reported(np.zeros((1, 5)), np.eye(5)[:1])[0] == pytest.approx(np.log(5))


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_reduced_coordinates_are_the_full_ones_without_the_gauge(classes):
    """Force and curvature in C - 1 coordinates are those of C logits; the basis is orthonormal and centred."""
    basis = centred_basis(classes)
    assert np.allclose(basis.T @ basis, np.eye(classes - 1), atol=1e-15)
    assert np.allclose(basis.sum(axis=0), 0, atol=1e-15)
    rng, loss = np.random.default_rng(1), loss_of("softmax", 0.1)
    y = loss.soften(np.eye(classes)[rng.integers(0, classes, 20)])
    weights = rng.uniform(0.5, 1.5, 20)
    full, reduced = Objective(loss, y, weights), Objective(loss, y, weights, basis)
    g, d = rng.standard_normal((2, 20, classes - 1))
    assert np.allclose(reduced.force(g) @ basis.T, full.force(g @ basis.T), atol=1e-14)
    assert np.allclose(reduced.bend(g, d) @ basis.T, full.bend(g @ basis.T, d @ basis.T), atol=1e-14)
    assert reduced.value(g) == pytest.approx(full.value(g @ basis.T), abs=1e-12)
    assert full.force(g @ basis.T).sum(axis=1) == pytest.approx(np.zeros(20), abs=1e-15)
    v = full.force(g @ basis.T)
    joined = full.value(g @ basis.T) + full.conjugate(v) + float(np.sum(v * (g @ basis.T)))
    assert joined == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "smoothing", "words"),
    [
        ("hinge", 0.0, "'hinge' is unknown"),
        ("logstic", 0.0, "logistic"),
        ("mse:2", 0.0, "takes none"),
        ("huber:x", 0.0, "'x' is not a number"),
        ("huber:0", 0.0, "positive"),
        ("huber:nan", 0.0, "positive"),
        ("mse", 0.1, "label_smoothing = 0.1 is for the losses logistic or softmax"),
        ("logistic", 1.0, "below 1"),
    ],
)
def test_bad_losses_are_refused_in_one_sentence(text, smoothing, words):
    with pytest.raises(UsageError) as error:
        loss_of(text, smoothing)
    assert words in str(error.value)
    assert str(error.value).count("\n") == 0


def test_losses_are_pure():
    """No loss writes into its arguments, and none imports what is not a loss."""
    for spec, smoothing in SPECS:
        loss = loss_of(spec, smoothing)
        f, y = problem(loss)
        f.flags.writeable = y.flags.writeable = False
        for found in (loss.value(f, y), loss.force(f, y), loss.bend(f, y, f), loss.conjugate(loss.force(f, y), y)):
            assert found is not f
            assert found is not y
        tree = ast.parse(inspect.getsource(inspect.getmodule(type(loss))))  # pyright: ignore[reportArgumentType]
        modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
        allowed = ("tlcli.arrays", "tlcli.errors", "tlcli.losses.base")  # the first has types alone
        assert all(m.split(".")[0] != "tlcli" or m in allowed for m in modules)
    assert losses.DEFAULT in known()


@pytest.mark.parametrize(("spec", "smoothing"), SPECS)
def test_inverse_gives_the_outputs_of_a_force(spec, smoothing):
    loss = loss_of(spec, smoothing)
    f, y = problem(loss)
    v = 0.7 * loss.force(f, y)
    found = loss.inverse(v, y)
    assert np.allclose(loss.force(found, y), v, rtol=1e-9, atol=1e-12)
    # It is the slope of the conjugate, too: sup -v.f - l(f) is attained there.
    assert np.allclose(loss.conjugate(v, y), -_dot(loss, v, found) - loss.value(found, y), rtol=1e-9, atol=1e-9)
    assert not np.allclose(loss.force(found + 0.01 * (1 + np.arange(found.shape[-1])), y), v, rtol=1e-4)


def _dot(loss, v, f):
    return np.sum(v * f, axis=-1) if loss.vector else v * f


@dataclass(frozen=True)
class Joined(losses.Loss):
    """Half the squared error of all outputs of a sample together, which sees what is common to them."""

    name = "joined"
    form = "joined"
    labels = "real"
    vector = True
    factor = 2.0

    def value(self, f, y):
        return 0.5 * np.square(y - f).sum(axis=-1)

    def force(self, f, y):
        return y - f

    def bend(self, f, y, d):
        return np.array(np.broadcast_to(d, f.shape))

    def conjugate(self, v, y):
        return (-v * y + 0.5 * v * v).sum(axis=-1)

    def inverse(self, v, y):
        return y - v


class Centred(Joined):
    """The same, wrongly said not to see it."""

    invariant = True


def trained(loss, classes=3):
    act, geometry, u, a = zoo.small()
    target = objective_of(loss, zoo.C1 if classes == 3 else zoo.Y1, classes, "x")
    f, _ = zoo.train(act, geometry, u, a[:, : target.readouts], [(target, 1.0, 0.01)])
    return target.outputs(f)


def test_a_loss_that_joins_its_outputs_keeps_all_of_them():
    """Joined squared errors train as those of every output do; said to be `invariant`, they do not."""
    assert [name for name, kind in known().items() if kind.invariant] == ["softmax"]
    mse, joined = trained(loss_of("mse")), trained(Joined())
    assert np.allclose(joined, mse, rtol=0, atol=1e-10)
    assert np.abs(joined.sum(axis=-1)).max() > 0.1, "the common part is learned"
    wrong = trained(Centred())
    assert np.abs(wrong.sum(axis=-1)).max() < 1e-12
    assert np.abs(wrong - mse).max() > 0.1
    assert outputs_of(Joined(), zoo.Y1, 2) == 2
    assert encode(Joined(), zoo.Y1, 2, "x").tolist() == [[1, 0], [0, 1], [1, 0]]
    assert objective_of(Joined(), zoo.Y1, 2, "x").readouts == 2
    with pytest.raises(UsageError, match="loss: joined joins several outputs, and x has a single one"):
        objective_of(Joined(), zoo.Y1, None, "x")
    numbers = {"gamma1": 1, "gamma2": 1, "beta1": 9, "beta2": 9, "delta": 1, "points1": 6, "points2": 6}
    with pytest.raises(DomainError, match="joined of several outputs is no function of a margin"):
        whitened_losses("same", Joined(), **numbers)


@pytest.mark.parametrize(("spec", "smoothing"), SPECS)
def test_invariant_losses_and_no_others_are_those_that_do_not_see_a_common_number(spec, smoothing):
    loss = loss_of(spec, smoothing)
    f, y = problem(loss)
    moved = loss.value(f + 0.7, y)
    assert np.allclose(moved, loss.value(f, y), rtol=0, atol=1e-12) == loss.invariant
