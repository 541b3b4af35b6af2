import math
import sys

import array_api_strict
import numpy as np
import pytest
from numpy.polynomial import hermite_e

from tlcli.dmft.activations import ACTIVATIONS, activation
from tlcli.errors import UsageError

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

constant = 3.0
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's in the working folder."""
    (tmp_path / "my_activations.py").write_text(OWN)
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
        ("my_activations:pole", "is not finite between -3 and 3"),
        (":swish", "must be module:function"),
        ("my_activations:", "must be module:function"),
        ("my_activations:a,b,c", "must be module:function"),
    ],
)
def test_what_a_user_can_get_wrong(own, name, message):
    with pytest.raises(UsageError, match=message):
        activation(name)
