import math
import sys
from dataclasses import replace
from pathlib import Path

import array_api_strict
import numpy as np
import pytest
from numpy.polynomial import hermite_e

from tests.dmft.problems import gaussians, outputs, teacher_problem
from tlcli.dmft import activation_table
from tlcli.dmft.activations import ACTIVATIONS, Activation, activation, probed
from tlcli.dmft.ensemble import Numerics, plan, solve
from tlcli.dmft.integrate import Control
from tlcli.dmft.lazy import initial_kernels
from tlcli.errors import UsageError
from tlcli.options.network import NETWORK

POINTS = np.array([-3.7, -1.9, -1.0, -0.31, -0.05, 0.02, 0.4, 1.0, 2.2, 4.3])


def differences(function, h, step=2e-2):
    """Central differences of order 8: for an analytic function the error is far below 1e-10."""
    weights = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
    return sum(w * (function(h + k * step) - function(h - k * step)) for k, w in enumerate(weights, 1)) / step


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_derivative_is_that_of_the_function(name):
    act = activation(name)
    phi, dphi = act.both(POINTS)
    assert phi.shape == dphi.shape == POINTS.shape
    np.testing.assert_array_equal(phi, act.phi(POINTS))
    step = 4e-3 if name == "relu" else 2e-2  # no point of the stencil may cross the kink of relu
    np.testing.assert_allclose(dphi, differences(act.phi, POINTS, step), atol=2e-11)


@pytest.mark.parametrize(
    ("name", "h", "value"),
    [
        ("linear", 1.7, 1.7),
        ("relu", -2.0, 0.0),
        ("relu", 2.5, 2.5),
        ("erf", 1.0, 0.8427007929497149),
        ("tanh", 0.5, 0.46211715726000975),
        ("gelu", 1.0, 0.8413447460685429),  # the Gaussian distribution function at 1
        ("softplus", 0.0, math.log(2.0)),
        ("he2", 2.0, 3.0 / math.sqrt(2.0)),
        ("he3", 2.0, 2.0 / math.sqrt(6.0)),
    ],
)
def test_known_values(name, h, value):
    assert float(activation(name).phi(np.array(h))) == pytest.approx(value, rel=1e-15, abs=1e-300)


def test_hermite_activations_are_orthonormal():
    z, weights = hermite_e.hermegauss(12)
    weights = weights / math.sqrt(2 * math.pi)
    values = np.array([activation(name).phi(z) for name in ("linear", "he2", "he3")])
    np.testing.assert_allclose((values * weights) @ values.T, np.eye(3), atol=1e-13)
    np.testing.assert_allclose(values @ weights, 0, atol=1e-13)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_flags_are_true(name):
    act = activation(name)
    assert act.name == name
    assert act.odd == np.allclose(act.phi(-POINTS), -act.phi(POINTS), atol=1e-12)
    assert act.homogeneous == np.allclose(act.phi(2.3 * POINTS), 2.3 * act.phi(POINTS), atol=1e-12)
    # A kink at 0 is a jump of the derivative there.
    left, right = act.both(np.array([-1e-9, 1e-9]))[1]
    assert act.smooth == (abs(right - left) < 1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_slope_that_needs_no_input_follows_from_the_value(name):
    act = activation(name)
    if act.slope_needs_input:
        return
    phi = act.phi(POINTS)
    np.testing.assert_array_equal(act.slope(None, phi, np), act.both(POINTS)[1])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_large_arguments_and_shapes(name):
    act = activation(name)
    phi, dphi = act.both(np.array([[-800.0, 800.0], [-40.0, 40.0]]))
    assert phi.shape == dphi.shape == (2, 2)
    assert np.all(np.isfinite(phi))
    assert np.all(np.isfinite(dphi))
    if name in ("relu", "gelu", "softplus"):
        np.testing.assert_allclose(phi, [[0, 800], [0, 40]], atol=1e-15)
        np.testing.assert_allclose(dphi, [[0, 1], [0, 1]], atol=1e-15)
    if name in ("erf", "tanh"):
        np.testing.assert_allclose(phi, [[-1, 1], [-1, 1]], atol=1e-15)
        np.testing.assert_allclose(dphi, 0, atol=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_single_precision_stays_single(name):
    phi, dphi = activation(name).both(POINTS.astype(np.float32))
    assert phi.dtype == dphi.dtype == np.float32
    exact = activation(name).both(POINTS)
    np.testing.assert_allclose(phi, exact[0], rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(dphi, exact[1], rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_array_api_standard_is_enough(name):
    act, xp = activation(name), array_api_strict
    phi, dphi = act.both(xp.asarray(POINTS), xp)
    expected = act.both(POINTS)
    np.testing.assert_array_equal(np.asarray(phi), expected[0])
    np.testing.assert_array_equal(np.asarray(dphi), expected[1])


def test_the_slope_of_relu_at_the_kink_is_zero():
    assert activation("relu").both(np.zeros(2))[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("name", "near"), [("relo", "relu"), ("tnh", "tanh"), ("soft-plus", "softplus")])
def test_an_unknown_name_gives_the_nearest(name, near):
    with pytest.raises(UsageError, match=f"'{name}' is unknown .did you mean '{near}'"):
        activation(name)


OWN = """
import numpy as np

def swish(h):
    s = 1 / (1 + np.exp(-h))
    return h * s, s + h * s * (1 - s)

def cubic(h):
    return h**3

def dcubic(h):
    return 3 * h**2

def leaky(h):
    return np.where(h > 0, h, 0.1 * h), np.where(h > 0, 1.0, 0.1)

def wrong(h):
    return h**3, 2 * h**2

def flat(h):
    return float(np.sum(h)), h

def pole(h):
    return np.where(h > 2, np.inf, h), np.ones_like(h)

def far_pole(h):
    return np.where(h > 7, np.nan, h), np.ones_like(h)

def in_place(h):
    np.maximum(h, 0, out=h)
    return h, (h > 0) * 1.0

def scales(h):
    h *= 0.5
    return np.sin(h), 0.5 * np.cos(h)

def single(h):
    h = h.astype(np.float32)
    return np.tanh(h), 1 - np.tanh(h) ** 2

def mixed(h):
    return np.tanh(h), (1 - np.tanh(h) ** 2).astype(np.float32)

def rotated(h):
    return h + 0j, np.ones_like(h)

def normalised(h):
    return h - np.mean(h), np.ones_like(h)

def dropout(h, rng=np.random.default_rng(0)):
    keep = rng.random(h.shape) > 0.5
    return h * keep, 1.0 * keep

def step(h):
    return np.where(h > 0.3, 1.0, 0.0), np.zeros_like(h)

def wrong_tail(h):
    return np.tanh(h), np.where(h > 2.5, 0.0, 1 - np.tanh(h) ** 2)

def shrink(h):
    return np.where(np.abs(h) > 0.37, h - 0.37 * np.sign(h), 0.0), np.abs(h) > 0.37

def steep(h):
    return np.tanh(1000 * h), 1000 * (1 - np.tanh(1000 * h) ** 2)

def square(h):
    return h * h / 2, h  # the derivative is the argument itself

def loglinear(h):
    return h * np.log1p(h * h), np.log1p(h * h) + 2 * h * h / (1 + h * h)

def exponential(h):
    return np.exp(h), np.exp(h)

def root(h):
    return np.sign(h) * np.abs(h) ** 1.5, 1.5 * np.sqrt(np.abs(h))

def root_wrong(h):
    return root(h)[0], 2 * root(h)[1]

constant = 3.0
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's in the working folder."""
    (tmp_path / "my_activations.py").write_text(OWN)
    monkeypatch.setattr("tlcli.dmft.activations.try_out", lambda *_: None)  # a process each: see test_own_code
    monkeypatch.chdir(tmp_path)
    path = sys.path.copy()
    yield "my_activations"
    assert sys.path == path
    sys.modules.pop("my_activations", None)


def test_a_function_of_the_user_gives_value_and_derivative(own):
    act = activation(f"{own}:swish")
    phi, dphi = act.both(POINTS)
    np.testing.assert_allclose(phi, POINTS / (1 + np.exp(-POINTS)), rtol=1e-14)
    np.testing.assert_allclose(dphi, differences(act.phi, POINTS), atol=1e-11)
    assert (act.name, act.odd, act.homogeneous) == (f"{own}:swish", False, False)


def test_a_curvature_without_bound_is_allowed(own):
    """The slope of |h|^1.5 is 0 at h = 0, where no difference shows it; twice the slope is as wrong as elsewhere."""
    act = activation(f"{own}:root")
    np.testing.assert_allclose(act.both(np.array([0.0, 4.0]))[1], [0.0, 3.0])
    assert act.odd
    assert act.smooth
    with pytest.raises(UsageError, match="differences of the function give"):
        activation(f"{own}:root_wrong")


def test_two_functions_of_the_user(own):
    act = activation(f"{own}:cubic,dcubic")
    phi, dphi = act.both(POINTS.reshape(2, 5))
    np.testing.assert_array_equal(phi, POINTS.reshape(2, 5) ** 3)
    np.testing.assert_array_equal(dphi, 3 * POINTS.reshape(2, 5) ** 2)
    assert act.odd


def test_a_kink_of_the_user_is_allowed(own):
    np.testing.assert_array_equal(activation(f"{own}:leaky").both(np.array([-2.0, 3.0]))[1], [0.1, 1.0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:phi", "'no_such_module:phi' cannot be imported"),
        ("my_activations:swsh", "no function 'swsh' .did you mean 'swish'"),
        ("my_activations:constant", "no function 'constant'"),
        ("my_activations:cubic", "must return the pair"),
        ("my_activations:wrong", "derivative of .* at h = .* but differences of the function give"),
        ("my_activations:flat", r"must keep the shape \(65,\)"),
        ("my_activations:pole", "is not finite between -12 and 12"),
        ("my_activations:far_pole", "is not finite between -12 and 12"),
        ("my_activations:in_place", "overwrites its argument, the network's own array; let it work on a copy"),
        ("my_activations:scales", "overwrites its argument"),
        (
            "my_activations:single",
            "returns float32 numbers for float64 ones, .* let it compute in the precision of its",
        ),
        ("my_activations:mixed", "returns float32 numbers for float64 ones"),
        ("my_activations:rotated", "must return real numbers; it returns complex128"),
        ("my_activations:normalised", "must act on every number by itself, and always in the same way"),
        ("my_activations:dropout", "must act on every number by itself, and always in the same way"),
        ("my_activations:step", r"jumps at h = 0\.3, where it has no derivative"),
        ("my_activations:wrong_tail", r"at h = 2\.6 is 0, but differences of the function give 0\.02"),
        (":swish", "must be module:function"),
        ("my_activations:", "must be module:function"),
        ("my_activations:a,b,c", "must be module:function"),
    ],
)
def test_what_a_user_can_get_wrong(own, name, message):
    with pytest.raises(UsageError, match=message):
        activation(name)


# ------------------------------------------------------------------------------------- one probe for all of them


COPIES = """
import numpy as np
from scipy.special import erf as exact_erf

def linear(h): return h, np.ones_like(h)
def relu(h): return np.where(h > 0, h, 0), h > 0
def erf(h): return exact_erf(h), 2 / np.sqrt(np.pi) * np.exp(-(h**2))
def tanh(h): return np.tanh(h), np.cosh(h) ** -2.0
def gelu(h):
    cdf = (1 + exact_erf(h / np.sqrt(2))) / 2
    return h * cdf, cdf + h * np.exp(-(h**2) / 2) / np.sqrt(2 * np.pi)
def softplus(h): return np.log(1 + np.exp(h)), 1 / (1 + np.exp(-h))
def he2(h): return (h**2 - 1) / np.sqrt(2), np.sqrt(2) * h
def he3(h): return (h**3 - 3 * h) / np.sqrt(6), (3 * h**2 - 3) / np.sqrt(6)
"""
FLAGS = ("odd", "homogeneous", "smooth", "lipschitz")


@pytest.fixture
def copies(tmp_path, monkeypatch):
    (tmp_path / "my_copies.py").write_text(COPIES)
    monkeypatch.setattr("tlcli.dmft.activations.try_out", lambda *_: None)  # a process each: see test_own_code
    monkeypatch.chdir(tmp_path)
    yield "my_copies"
    sys.modules.pop("my_copies", None)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_copy_of_an_activation_is_that_activation(copies, name):
    """The same choices and, bit for bit, the same numbers, whichever way it is written."""
    act, own = activation(name), activation(f"{copies}:{name}")
    assert (own.name, own.kind, act.kind) == (f"{copies}:{name}", name, name)
    assert (own.value, own.slope, own.slope_needs_input) == (act.value, act.slope, act.slope_needs_input)
    assert [getattr(own, flag) for flag in FLAGS] == [getattr(act, flag) for flag in FLAGS]
    problem, _ = teacher_problem(name, 3, 6, 5, [0.2, 0.5], gamma=0.5)
    theirs = replace(problem, act=own)
    for numerics in (Numerics(accuracy=0.05), Numerics(accuracy=2e-3), Numerics(population="quadrature", neurons=500)):
        assert plan(problem, numerics) == plan(theirs, numerics)
    for one, two in zip(solve(problem, Numerics(neurons=128)).f, solve(theirs, Numerics(neurons=128)).f, strict=True):
        np.testing.assert_array_equal(one, two)
    x = problem.geometry.moving
    for one, two in zip(initial_kernels(act, x, x), initial_kernels(own, x, x), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_flags_are_found_and_not_known(name):
    """Twice a function is none of the table, but odd, homogeneous, smooth and bounded where the function is."""
    act = activation(name)
    twice = probed(Activation("twice", lambda h, xp: 2 * act.phi(h, xp), lambda h, phi, xp: 2 * act.both(h, xp)[1]))
    assert twice.kind == ""
    assert [getattr(twice, flag) for flag in FLAGS] == [getattr(act, flag) for flag in FLAGS]


@pytest.mark.parametrize("name", ["linear", "relu", "tanh", "gelu"])
def test_the_general_way_gives_the_same_numbers(name):
    """Without closed forms and in-place lines: equal to rounding."""
    problem, _ = teacher_problem(name, 3, 6, 5, [0.2, 0.5])
    act = problem.act
    general = replace(problem, act=replace(act, kind="", slope=lambda h, phi, xp: act.both(h, xp)[1]))
    general = replace(general, act=replace(general.act, slope_needs_input=True))
    for one, two in zip(
        *(outputs(p, gaussians(problem, 64), Control("rkc", 1e-3)) for p in (problem, general)), strict=True
    ):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "flags"),  # odd, homogeneous, smooth, lipschitz
    [
        ("leaky", (False, True, False, True)),
        ("cubic,dcubic", (True, False, True, False)),
        ("swish", (False, False, True, True)),
        ("shrink", (True, False, False, True)),
        ("steep", (True, False, True, True)),
        ("square", (False, False, True, False)),
        ("loglinear", (True, False, True, False)),
        ("exponential", (False, False, True, False)),
    ],
)
def test_flags_of_functions_of_the_user(own, name, flags):
    act = activation(f"{own}:{name}")
    assert tuple(getattr(act, flag) for flag in FLAGS) == flags
    assert act.kind == ""


def test_what_a_function_gives_is_nobody_elses(own):
    """Engines overwrite derivatives: one that is the argument itself is copied, and truth values become numbers."""
    act, h = activation(f"{own}:square"), POINTS.copy()
    dphi = act.both(h)[1]
    dphi *= 0
    np.testing.assert_array_equal(h, POINTS)
    assert activation(f"{own}:shrink").both(POINTS.astype(np.float32))[1].dtype == np.float32


def test_an_activation_is_one_entry(monkeypatch):
    monkeypatch.setitem(
        activation_table.BUILT_IN, "cubed", activation_table.Formula(lambda h, xp: h**3, lambda h, p, xp: 3 * h * h)
    )
    act = activation("cubed")
    assert (act.odd, act.homogeneous, act.smooth, act.lipschitz, act.kind) == (True, False, True, False, "cubed")


def test_the_table_is_the_help_and_the_documentation():
    assert tuple(activation_table.BUILT_IN) == ACTIVATIONS
    option = next(option for option in NETWORK if option.name == "activation")
    assert option.help == f"{', '.join(ACTIVATIONS)}, or your own as module:function."
    text = (Path(__file__).parents[2] / "docs" / "networks.md").read_text().partition("## 6. Activations")[2]
    assert all(f"`{name}`" in text.partition("or\nyour own")[0] for name in ACTIVATIONS)
