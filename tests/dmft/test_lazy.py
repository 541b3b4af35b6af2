import numpy as np
import pytest
from scipy import integrate, stats

from tlcli.dmft.activations import ACTIVATIONS, Activation, activation
from tlcli.dmft.lazy import initial_kernels, initial_ntk, lazy_solution
from tlcli.dmft.regression import kernel_regression
from tlcli.errors import DomainError, UsageError

# Every case that needs care: different norms, a repeated point, its opposite scaled, and zero.
RNG = np.random.default_rng(0)
GENERIC = RNG.standard_normal((4, 3))
X = np.vstack([GENERIC, GENERIC[1], -2 * GENERIC[0], np.zeros(3)])
SMOOTH = [name for name in ACTIVATIONS if name != "relu"]


def leaky(slope=0.25, at=0.0):
    """A user's own activation with a kink at `at`."""
    return Activation(
        "own:leaky",
        lambda h, xp: np.where(h > at, h - at, slope * (h - at)),
        lambda h, phi, xp: np.where(h > at, 1.0, slope),
    )


def plane_rule(act, a, b, c, spacing=0.05):
    """Both expectations by the trapezoid rule in the plane, in independent Gaussian coordinates."""
    z = spacing * np.arange(-round(9 / spacing), round(9 / spacing) + 1)
    weights = spacing * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    rho = c / np.sqrt(a * b) if a * b > 0 else 0.0
    h = np.sqrt(a) * z[:, None] + 0 * z
    g = np.sqrt(b) * (rho * z[:, None] + np.sqrt(max(0.0, 1 - rho * rho)) * z)
    return [weights @ (p * q) @ weights for p, q in zip(act.both(h), act.both(g), strict=True)]


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_activations_agree_with_a_rule_in_the_plane(name):
    act, covariance = activation(name), X @ X.T / 3
    phi, slopes = initial_kernels(act, X, X)
    assert phi.shape == slopes.shape == (7, 7)
    for i in range(7):
        for j in range(7):
            expected = plane_rule(act, covariance[i, i], covariance[j, j], covariance[i, j])
            assert [phi[i, j], slopes[i, j]] == pytest.approx(expected, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("name", ["erf", "tanh", "gelu", "softplus", "he3"])
def test_adaptive_cubature(name):
    act, x = activation(name), GENERIC[:2]
    a, b, c = (float(v) for v in (x[0] @ x[0] / 3, x[1] @ x[1] / 3, x[0] @ x[1] / 3))
    density = stats.multivariate_normal(cov=np.array([[a, c], [c, b]])).pdf

    def integrand(g, h, which):
        return float(act.both(np.float64(h))[which] * act.both(np.float64(g))[which]) * density([h, g])

    found = [k[0, 1] for k in initial_kernels(act, x, x)]
    for which in (0, 1):
        box = 8 * np.sqrt(a), 8 * np.sqrt(b)
        expected = integrate.dblquad(integrand, -box[0], box[0], -box[1], box[1], (which,), epsabs=1e-8, epsrel=1e-7)[0]
        assert found[which] == pytest.approx(expected, abs=1e-8)


def quadrant(x, y, at=0.0, slopes=False):
    """E (h - at)+ (h' - at)+ or P(h > at, h' > at) by adaptive cubature where the integrand is smooth."""
    a, b, c = (float(v) for v in (x @ x / x.size, y @ y / x.size, x @ y / x.size))
    density = stats.multivariate_normal(cov=np.array([[a, c], [c, b]])).pdf

    def integrand(g, h):
        return density([h, g]) * (1.0 if slopes else (h - at) * (g - at))

    return integrate.dblquad(integrand, at, 9 * np.sqrt(a), at, 9 * np.sqrt(b), epsabs=1e-7, epsrel=1e-7)[0]


def test_relu_is_an_integral_over_a_quadrant():
    phi, slopes = initial_kernels(activation("relu"), GENERIC[:1], GENERIC[1:2])
    assert phi[0, 0] == pytest.approx(quadrant(*GENERIC[:2]), abs=1e-7)
    assert slopes[0, 0] == pytest.approx(quadrant(*GENERIC[:2], slopes=True), abs=1e-7)


def test_relu_at_special_angles():
    x = np.array([[1.0, 0.0], [0.0, 3.0], [-2.0, 0.0], [1.0, 1e-9], [0.0, 0.0]])
    phi, slopes = initial_kernels(activation("relu"), x[:1], x)
    np.testing.assert_allclose(phi[0] * 2, [0.5, 3 / (2 * np.pi), 0, 0.5, 0], atol=1e-15)
    # A rotation by 1e-9 is resolved: the closed form from the cosine alone would lose it.
    np.testing.assert_allclose(slopes[0], [0.5, 0.25, 0, 0.5 - 1e-9 / (2 * np.pi), 0], rtol=0, atol=1e-16)


def test_unit_variance_makes_hermite_kernels_powers_of_the_correlation():
    x = GENERIC / np.linalg.norm(GENERIC, axis=1)[:, None] * np.sqrt(3)
    rho = x @ x.T / 3
    for name, degree in (("linear", 1), ("he2", 2), ("he3", 3)):
        phi, slopes = initial_kernels(activation(name), x, x)
        np.testing.assert_allclose(phi, rho**degree, atol=1e-14)
        np.testing.assert_allclose(slopes, degree * rho ** (degree - 1), atol=1e-14)


@pytest.mark.parametrize("name", ["erf", "he3"])
def test_the_sum_over_coefficients_equals_the_closed_forms(name):
    """The same function under a user's name takes the general way."""
    own = activation(name)
    general = Activation("own:" + name, own.value, own.slope)
    for scale in (1.0, 6.0):
        for found, closed in zip(
            initial_kernels(general, scale * X, X), initial_kernels(own, scale * X, X), strict=True
        ):
            np.testing.assert_allclose(found, closed, rtol=1e-10, atol=1e-11 * np.max(np.abs(closed)))


@pytest.mark.parametrize("name", ["tanh", "gelu", "softplus"])
def test_large_inputs_that_turn_the_function_into_a_step(name):
    act, x = activation(name), 10 * np.vstack([GENERIC[:2], GENERIC[0], -GENERIC[1]])
    covariance = x @ x.T / 3
    phi, slopes = initial_kernels(act, x, x)
    for i in range(2):  # equal points: one Gaussian integral
        s = np.sqrt(covariance[i, i])
        for k in (0, 1):
            expected = integrate.quad(
                lambda z, k=k, s=s: float(act.both(np.float64(s * z))[k] ** 2) * stats.norm.pdf(z),
                -9, 9, points=[0, -5 / s, 5 / s], limit=400, epsabs=1e-12,
            )[0]  # fmt: skip
            assert (phi, slopes)[k][i, i] == pytest.approx(expected, rel=1e-9)
    expected = plane_rule(act, covariance[0, 0], covariance[1, 1], covariance[0, 1], spacing=0.01)
    assert [phi[0, 1], slopes[0, 1]] == pytest.approx(expected, rel=1e-9)
    if name == "tanh":  # opposite points
        assert phi[1, 3] == pytest.approx(-phi[1, 1], rel=1e-10)


def test_a_kink_at_zero_of_a_user_is_exact():
    """leaky(h) = relu(h) - slope relu(-h), so its kernel is one of relu kernels."""
    relu = activation("relu")
    straight, crossed = initial_kernels(relu, X, X), initial_kernels(relu, X, -X)
    phi, slopes = initial_kernels(leaky(0.25), X, X)
    np.testing.assert_allclose(phi, (1 + 0.25**2) * straight[0] - 2 * 0.25 * crossed[0], atol=1e-12)
    expected = (1 + 0.25**2) * straight[1] + 2 * 0.25 * crossed[1]
    np.testing.assert_allclose(slopes[:6, :6], expected[:6, :6], atol=1e-12)
    np.testing.assert_allclose(slopes[6, :6], 0.25 * (1 + 0.25) / 2, atol=1e-12)  # slope 0.25 of a zero input


def test_a_kink_elsewhere_has_the_stated_accuracy():
    phi, slopes = initial_kernels(leaky(0.0, at=0.4), GENERIC[:1], GENERIC[1:2])
    assert phi[0, 0] == pytest.approx(quadrant(*GENERIC[:2], at=0.4), abs=1e-4)
    assert slopes[0, 0] == pytest.approx(quadrant(*GENERIC[:2], at=0.4, slopes=True), abs=5e-3)


def network_estimate(act, x, width=200_000, seed=1):
    """Mean and standard error of phi phi' and phi'phi' over random hidden units of the network itself."""
    rng = np.random.default_rng(seed)
    h = rng.standard_normal((width, x.shape[1])) @ x.T / np.sqrt(x.shape[1])
    out = []
    for values in act.both(h):
        products = values[:, :1] * values[:, 1:]
        out.append((products.mean(axis=0), products.std(axis=0, ddof=1) / np.sqrt(width)))
    return out


@pytest.mark.parametrize("act", [*map(activation, ACTIVATIONS[1:]), leaky()], ids=lambda act: act.name)
def test_random_units_have_these_kernels_on_average(act):
    """Six correlated numbers per activation, each within 4 standard errors."""
    found = initial_kernels(act, GENERIC[:1], GENERIC[1:])
    for kernel, (mean, error) in zip(found, network_estimate(act, GENERIC), strict=True):
        assert np.all(np.abs(kernel[0] - mean) <= 4 * error + 1e-12)


def test_random_units_tell_a_wrong_convention():
    """Twin: the arcsine kernel of erf(h/sqrt 2), the other convention, is many standard errors away."""
    mean, error = network_estimate(activation("erf"), GENERIC)[0]
    c = GENERIC @ GENERIC.T / 3
    wrong = (2 / np.pi) * np.arcsin(c[0] / np.sqrt((1 + c[0, 0]) * (1 + np.diag(c))))
    assert np.max(np.abs(wrong[1:] - mean) / error) > 20


@pytest.mark.parametrize("act", [*map(activation, ACTIVATIONS), leaky()], ids=lambda act: act.name)
def test_symmetries(act):
    phi, slopes = initial_kernels(act, X, X)
    theta = initial_ntk(act, X, X)
    np.testing.assert_allclose(theta, phi + X @ X.T / 3 * slopes, atol=1e-14)
    for kernel in (phi, slopes, theta):
        np.testing.assert_allclose(kernel, kernel.T, atol=1e-12)
        assert np.linalg.eigvalsh(kernel)[0] > -1e-11 * np.linalg.norm(kernel)
    np.testing.assert_allclose(theta[4], theta[1], atol=1e-12)  # the repeated point
    order = [3, 0, 6, 1, 5, 2, 4]
    np.testing.assert_allclose(initial_ntk(act, X[order], X[:2]), theta[order, :2], atol=1e-12)
    rotation = np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))[0]
    np.testing.assert_allclose(initial_ntk(act, X @ rotation, X @ rotation), theta, atol=1e-11)
    # More dimensions that carry nothing: h keeps its law if x grows as the square root of D.
    padded = np.sqrt(5 / 3) * np.hstack([X, np.zeros((7, 2))])
    np.testing.assert_allclose(initial_ntk(act, padded, padded), theta, atol=1e-11)
    if act.odd:
        mirrored = initial_kernels(act, -X, X)
        np.testing.assert_allclose(mirrored[0], -phi, atol=1e-12)
        np.testing.assert_allclose(mirrored[1], slopes, atol=1e-12)
    if act.homogeneous:
        np.testing.assert_allclose(initial_ntk(act, 2 * X, 3 * X), 6 * theta, atol=1e-11)


@pytest.mark.parametrize("act", [*map(activation, ACTIVATIONS), leaky()], ids=lambda act: act.name)
def test_one_dimension_and_empty_sets(act):
    """With D = 1 every pair has correlation -1, 0 or 1."""
    x = np.array([[1.0], [-0.5], [0.0]])
    phi, slopes = initial_kernels(act, x, x)
    sigma = x[:, 0]
    for k, kernel in enumerate((phi, slopes)):
        for i, j in ((0, 0), (0, 1), (1, 2)):
            if k == 1 and j == 2 and not act.smooth:
                continue  # the slope at the kink itself is a convention
            expected = integrate.quad(
                lambda z, k=k, i=i, j=j: (
                    float(act.both(np.float64(sigma[i] * z))[k] * act.both(np.float64(sigma[j] * z))[k])
                    * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
                ),
                -9.5, 9.5, points=[0], epsabs=1e-13, limit=200,
            )[0]  # fmt: skip
            assert kernel[i, j] == pytest.approx(expected, abs=1e-11)
    assert initial_ntk(act, x, np.zeros((0, 1))).shape == (3, 0)


# --- lazy training ---

ROWS, LABELS = [0, 2, 5], np.array([1.0, -0.5, 0.7])


@pytest.mark.parametrize("name", ["relu", "tanh", "he2"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_lazy_training_is_kernel_gradient_flow(name, reduction):
    act, times = activation(name), [0.0, 0.4, 3.0]
    theta = initial_ntk(act, X, X)[:, ROWS]
    s = 1 / 3 if reduction == "mean" else 1.0
    flow = integrate.solve_ivp(
        lambda _, f: s * theta @ (LABELS - f[ROWS]), (0, 3), np.zeros(7), t_eval=times, rtol=1e-10, atol=1e-12
    )
    found = lazy_solution(act, X, ROWS, LABELS, times, reduction=reduction)
    assert found.shape == (3, 7)
    np.testing.assert_allclose(found, flow.y.T, atol=1e-8)


def test_infinite_time_interpolates_and_any_order_of_times_is_fine():
    act = activation("tanh")
    forever, early = lazy_solution(act, X, ROWS, LABELS, [np.inf, 0.3])
    np.testing.assert_allclose(forever[ROWS], LABELS, atol=1e-10)
    np.testing.assert_allclose(early, lazy_solution(act, X, ROWS, LABELS, 0.3)[0], rtol=1e-12)


@pytest.mark.parametrize("decay", [1e-9, 0.02, 0.7])
@pytest.mark.parametrize("name", ["relu", "linear"])
def test_weight_decay_shrinks_kernel_and_output(name, decay):
    act, times = activation(name), np.array([0.0, 0.2, 1.5, 6.0])
    theta = initial_ntk(act, X, X)[:, ROWS]

    def force(t, f):
        return np.exp(-2 * decay * t) * theta @ (LABELS - f[ROWS]) / 3 - 2 * decay * f

    flow = integrate.solve_ivp(force, (0, 6), np.zeros(7), t_eval=times, rtol=1e-11, atol=1e-13, method="DOP853")
    found = lazy_solution(act, X, ROWS, LABELS, times, weight_decay=decay)
    np.testing.assert_allclose(found, flow.y.T, atol=1e-8)
    if decay == 0.7:
        np.testing.assert_array_equal(lazy_solution(act, X, ROWS, LABELS, np.inf, weight_decay=decay), np.zeros((1, 7)))
        assert np.all(np.abs(lazy_solution(act, X, ROWS, LABELS, [40.0, 1e5], weight_decay=decay)) < 1e-10)


def test_weight_decay_with_strong_and_vanishing_forces():
    """Modes with s kappa / lambda from 0 (a repeated point) to 1e6: no overflow, no loss of digits."""
    act, rows, labels = activation("linear"), [0, 1, 4], np.array([1.0, 0.3, 0.3])
    slow = lazy_solution(act, 1e3 * X, rows, labels, [2.0], weight_decay=0.1, reduction="sum")
    # A force this strong keeps f at the labels' projection, up to 2 lambda / (s kappa).
    np.testing.assert_allclose(slow[0, rows], labels, atol=1e-4)
    none = lazy_solution(act, np.zeros((3, 2)), [0, 1], np.ones(2), [0.0, 1.0], weight_decay=0.1)
    np.testing.assert_array_equal(none, np.zeros((2, 3)))


def relu_units(x, labels, rows, gamma, decay, times, step=0.05):
    """f (n_times, n) of the two-layer relu network itself, D = 2: hidden weights on a fine circle, readouts 1 and -1.

    Relu makes the units (w, a) and c (w, a) equivalent, so that the circle with |w|^2 = 2 stands for the Gaussian.
    """
    angles = 2 * np.pi * (np.arange(2000) + 0.37) / 2000
    w = np.sqrt(2) * np.concatenate([np.stack([np.cos(angles), np.sin(angles)], axis=1)] * 2)
    a = np.repeat([1.0, -1.0], angles.size)

    def force(w, a):
        h = w @ x.T / np.sqrt(2)
        phi = np.maximum(h, 0)
        f = a @ phi / (a.size * gamma)
        pull = gamma * (labels - f[rows]) / len(rows)
        dw = a[:, None] * (((h[:, rows] > 0) * pull) @ x[rows]) / np.sqrt(2) - decay * w
        return dw, phi[:, rows] @ pull - decay * a, f

    out = []
    for k in range(round(times[-1] / step) + 1):
        dw, da, f = force(w, a)
        if np.any(np.isclose(k * step, times)):
            out.append(f)
        middle = force(w + step / 2 * dw, a + step / 2 * da)
        w, a = w + step * middle[0], a + step * middle[1]
    return np.array(out)


@pytest.mark.parametrize("decay", [0.0, 0.4])
def test_a_network_of_small_richness_trains_like_this(decay):
    x = np.array([[1.0, 0.3], [-0.6, 1.1], [0.2, -0.9], [0.7, 0.8]])
    rows, labels, times = [0, 1, 2], np.array([1.0, -1.0, 0.5]), np.array([0.5, 2.0, 4.0])
    network = relu_units(x, labels, rows, 1e-3, decay, times)
    found = lazy_solution(activation("relu"), x, rows, labels, times, weight_decay=decay)
    np.testing.assert_allclose(found, network, atol=5e-4)  # step^2 and the kinks between two units
    # Twins: a richness of one is another function, and so is a ridge that leaves the kernel as it was.
    assert np.max(np.abs(relu_units(x, labels, rows, 1.0, decay, times) - found)) > 0.02
    if decay:
        theta = initial_ntk(activation("relu"), x, x[rows])
        ridge = kernel_regression(theta[rows], theta, labels, ridge=2 * decay, time=times)
        assert np.max(np.abs(ridge - network)) > 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_decay": 0.1}, "weight decay = 0.1 in the lazy limit needs a homogeneous activation"),
        ({"weight_decay": -1.0}, "weight decay = -1 must be finite"),
        ({"rows": [0, 9]}, "indices between 0 and 6"),
        ({"rows": []}, "indices between 0 and 6"),
        ({"labels": np.ones(2)}, r"labels of shape \(2,\) do not fit 3"),
        ({"times": [-1.0]}, "training time -1"),
        ({"x": np.full((7, 3), np.nan)}, "inputs contain values that are not finite"),
        ({"x": np.ones(7)}, r"inputs of shape \(7,\) must be points x dimensions"),
    ],
)
def test_bad_input(change, message):
    arguments = {"act": activation("tanh"), "x": X, "rows": ROWS, "labels": LABELS, "times": [1.0]} | change
    with pytest.raises(DomainError, match=message):
        lazy_solution(**arguments)


def test_bad_dimension_and_reduction():
    with pytest.raises(DomainError, match="dimensions 3 and 2 differ"):
        initial_kernels(activation("tanh"), X, X[:, :2])
    with pytest.raises(UsageError, match="'sums' must be mean or sum"):
        lazy_solution(activation("relu"), X, ROWS, LABELS, [1.0], weight_decay=0.1, reduction="sums")
