import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from tlcli.dmft.regression import FrozenKernel, adaptive_predictor, kernel_alignment, kernel_regression
from tlcli.errors import DomainError, UsageError

P, N, WIDTH = 6, 4, 9


@pytest.fixture
def features():
    """Features (WIDTH,) of P training points and N others, labels, and outputs at the start."""
    rng = np.random.default_rng(3)
    train, points = rng.standard_normal((P, WIDTH)), rng.standard_normal((N, WIDTH))
    return train, points, rng.standard_normal(P), rng.standard_normal(P), rng.standard_normal(N)


def readout_flow(train, residual, s, ridge, t):
    """Change v (WIDTH,) of the readout after gradient flow on s/2 |residual - train v|^2 + ridge/2 |v|^2."""
    width = train.shape[1]
    generator = np.zeros((width + 1, width + 1))
    generator[:width, :width] = -s * train.T @ train - ridge * np.eye(width)
    generator[:width, width] = s * train.T @ residual
    return expm(generator * t)[:width, width]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("started", [False, True])
def test_it_is_gradient_flow_of_a_readout(features, reduction, ridge, started):
    train, points, y, f0, f0_points = features
    s = 1 / P if reduction == "mean" else 1.0
    start = {"f0_train": f0, "f0_points": f0_points} if started else {}
    times = [0.0, 0.05, 0.7, 3.0]
    got = kernel_regression(train @ train.T, points @ train.T, y, ridge=ridge, time=times, reduction=reduction, **start)
    assert got.shape == (4, N)
    for f, t in zip(got, times, strict=True):
        v = readout_flow(train, y - f0 if started else y, s, ridge, t)
        np.testing.assert_allclose(f, points @ v + (f0_points if started else 0), atol=1e-11)


def test_it_solves_the_equation_of_motion_in_function_space(features):
    train, points, y, f0, f0_points = features
    every = np.vstack([train, points])
    kernel, start, ridge = every @ train.T, np.concatenate([f0, f0_points]), 0.2

    def force(_, f):
        return kernel @ (y - f[:P]) / P - ridge * (f - start)

    flow = solve_ivp(force, (0, 5), start, t_eval=[1, 5], rtol=1e-11, atol=1e-12, method="DOP853")
    got = kernel_regression(kernel[:P], kernel[P:], y, ridge=ridge, time=[1, 5], f0_train=f0, f0_points=f0_points)
    np.testing.assert_allclose(got, flow.y[P:].T, atol=1e-9)
    # Twin: a ridge that pulls to zero instead of the start is seen.
    wrong = kernel_regression(kernel[:P], kernel[P:], y, ridge=ridge, time=[1, 5])
    assert np.max(np.abs(wrong - flow.y[P:].T)) > 0.1


@pytest.mark.parametrize(("reduction", "factor"), [("mean", P), ("sum", 1)])
def test_infinite_time_is_ridge_regression(features, reduction, factor):
    train, points, y, _, _ = features
    kernel, across = train @ train.T, points @ train.T
    expected = across @ np.linalg.solve(kernel + factor * 0.4 * np.eye(P), y)
    got = kernel_regression(kernel, across, y, ridge=0.4, reduction=reduction)
    assert got.shape == (1, N)
    np.testing.assert_allclose(got[0], expected, atol=1e-12)
    np.testing.assert_allclose(
        kernel_regression(kernel, across, y, ridge=0.4, time=1e4, reduction=reduction)[0], expected, atol=1e-12
    )


def test_without_ridge_it_interpolates(features):
    train, _, y, _, _ = features
    kernel = train @ train.T
    np.testing.assert_allclose(kernel_regression(kernel, kernel, y)[0], y, atol=1e-10)


def test_a_singular_kernel_gives_the_least_norm_solution(features):
    _, _, y, _, _ = features
    rng = np.random.default_rng(5)
    train, points = rng.standard_normal((P, 3)), rng.standard_normal((N, 3))
    least = points @ np.linalg.lstsq(train, y, rcond=None)[0]
    kernel, across = train @ train.T, points @ train.T
    for t in (np.inf, 1e4, 1e12, 1e300):
        np.testing.assert_allclose(kernel_regression(kernel, across, y, time=t)[0], least, atol=1e-9)
    for t in (0.3, 20.0):
        np.testing.assert_allclose(
            kernel_regression(kernel, across, y, time=t)[0], points @ readout_flow(train, y, 1 / P, 0, t), atol=1e-12
        )
    # A ridge beyond rounding tends to the same, one below rounding is none.
    for ridge in (1e-9, 1e-30):
        np.testing.assert_allclose(kernel_regression(kernel, across, y, ridge=ridge)[0], least, atol=1e-6)


def test_a_point_seen_twice_counts_as_one_with_the_mean_label():
    rng = np.random.default_rng(6)
    train = rng.standard_normal((3, 5))
    points = rng.standard_normal((2, 5))
    twice = train[[0, 1, 2, 2]]
    got = kernel_regression(twice @ twice.T, points @ twice.T, np.array([1.0, -1.0, 0.0, 3.0]))
    once = kernel_regression(train @ train.T, points @ train.T, np.array([1.0, -1.0, 1.5]))
    np.testing.assert_allclose(got, once, atol=1e-12)


def test_a_zero_kernel_learns_nothing():
    got = kernel_regression(np.zeros((2, 2)), np.zeros((3, 2)), np.ones(2), time=[0.0, 1.0, np.inf])
    np.testing.assert_array_equal(got, np.zeros((3, 3)))


def test_noise_of_single_precision_is_not_amplified():
    """A kernel of rank 3 summed in float32: the null directions carry its rounding, and are recognised by it."""
    rng = np.random.default_rng(8)
    train, points = rng.standard_normal((40, 3)), rng.standard_normal((5, 3))
    beta = np.array([1.0, -2.0, 0.5])
    single = train.astype(np.float32)
    kernel = (single @ single.T).astype(np.float64)
    frozen = FrozenKernel(kernel)
    assert frozen.cutoff > 1e-8 * frozen.eigenvalues[-1]
    got = frozen.predict(points @ train.T, train @ beta)[0]
    np.testing.assert_allclose(got, points @ beta, atol=1e-4)


def test_order_of_points_scale_of_labels_and_linearity(features):
    train, points, y, f0, _ = features
    kernel, across = train @ train.T, points @ train.T
    order = np.random.default_rng(0).permutation(P)
    options = {"ridge": 0.1, "time": [0.5, 2.0]}
    base = kernel_regression(kernel, across, y, **options)
    moved = kernel_regression(kernel[np.ix_(order, order)], across[:, order], y[order], **options)
    np.testing.assert_allclose(moved, base, atol=1e-12)
    other = kernel_regression(kernel, across, f0, **options)
    np.testing.assert_allclose(kernel_regression(kernel, across, 2 * y - f0, **options), 2 * base - other, atol=1e-12)
    # Mean and sum are the same dynamics in units of time and ridge that differ by P; so are K and 2K at half the time.
    total = kernel_regression(kernel, across, y, ridge=0.1 * P, time=np.array([0.5, 2.0]) / P, reduction="sum")
    np.testing.assert_allclose(total, base, atol=1e-12)
    double = kernel_regression(2 * kernel, 2 * across, y, ridge=0.2, time=[0.25, 1.0])
    np.testing.assert_allclose(double, base, atol=1e-12)


def test_one_decomposition_serves_all(features):
    train, points, y, _, _ = features
    frozen = FrozenKernel(train @ train.T)
    for ridge in (0.0, 0.5):
        np.testing.assert_array_equal(
            frozen.predict(points @ train.T, y, ridge=ridge, time=[1.0, np.inf]),
            kernel_regression(train @ train.T, points @ train.T, y, ridge=ridge, time=[1.0, np.inf]),
        )


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_adaptive_predictor_is_where_the_readout_stands_still(features, reduction):
    """Readouts a of a network with features phi, f = <a phi>/gamma: run da/dt of the units to its end."""
    train, points, y, _, _ = features
    gamma, decay, s = 0.7, 0.2, 1 / P if reduction == "mean" else 1.0
    phi, phi_points = train / np.sqrt(WIDTH), points / np.sqrt(WIDTH)  # <..> is then a plain sum of products

    def force(_, a):
        delta = y - phi @ a / gamma
        return gamma * s * phi.T @ delta - decay * a

    start = np.random.default_rng(1).standard_normal(WIDTH)
    end = solve_ivp(force, (0, 150), start, rtol=1e-10, atol=1e-12, method="LSODA").y[:, -1]
    got = adaptive_predictor(phi @ phi.T, phi_points @ phi.T, y, decay, reduction)
    np.testing.assert_allclose(got, phi_points @ end / gamma, atol=1e-8)


def test_alignment():
    rng = np.random.default_rng(2)
    y = rng.standard_normal(7)
    assert kernel_alignment(np.outer(y, y), y) == pytest.approx(1.0, rel=1e-14)
    assert kernel_alignment(np.eye(7), y) == pytest.approx(1 / np.sqrt(7), rel=1e-14)
    features = rng.standard_normal((7, 3))
    kernel = features @ features.T
    cosine = np.trace(kernel @ np.outer(y, y)) / np.sqrt(np.trace(kernel @ kernel) * (y @ y) ** 2)
    assert kernel_alignment(kernel, y) == pytest.approx(cosine, rel=1e-13)
    assert kernel_alignment(5 * kernel, -2 * y) == pytest.approx(cosine, rel=1e-13)
    holes = y.copy()
    holes[[1, 4]] = np.nan
    kept = [0, 2, 3, 5, 6]
    assert kernel_alignment(kernel, holes) == kernel_alignment(kernel[np.ix_(kept, kept)], y[kept])


EYE, ONE = np.eye(2), np.ones(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k_train": np.array([[1.0, 0.5], [0.2, 1.0]])}, "differ by 0.3 from the transposes"),
        ({"k_train": np.diag([1.0, -0.1])}, "eigenvalues from -0.1 to 1; it must be positive semidefinite"),
        ({"k_train": -EYE}, "must be positive semidefinite"),
        ({"k_train": np.array([[1.0, np.nan], [np.nan, 1.0]])}, "kernel: 2 values are not finite"),
        ({"k_train": np.ones((2, 3))}, r"kernel of shape \(2, 3\) must be square"),
        ({"k_points": np.ones((3, 4))}, "must have one column for each of the 2"),
        ({"k_points": np.array([[np.inf, 0.0]])}, "kernel of the points: 1 values are not finite"),
        ({"y": np.ones(3)}, r"labels of shape \(3,\) do not fit 2"),
        ({"y": np.array([np.nan, 1.0])}, "labels: 1 values are not finite"),
        ({"ridge": -0.5}, "ridge = -0.5 must be finite and at least 0"),
        ({"ridge": np.nan}, "ridge = nan must be"),
        ({"time": -1.0}, "training time -1 must be at least 0"),
        ({"time": [0.0, np.nan]}, "training time nan must be"),
        ({"f0_train": ONE}, "or on neither"),
        ({"f0_train": ONE, "f0_points": np.ones(4)}, r"initial outputs of shape \(4,\) do not fit 3 points"),
        ({"f0_train": np.ones(4), "f0_points": np.ones(3)}, r"initial outputs of shape \(4,\)"),
    ],
)
def test_bad_input(change, message):
    arguments = {"k_train": EYE, "k_points": np.ones((3, 2)), "y": ONE} | change
    with pytest.raises(DomainError, match=message):
        kernel_regression(**arguments)


def test_bad_reduction_weight_decay_and_alignment():
    with pytest.raises(UsageError, match=r"'maen' must be mean or sum \(did you mean 'mean'"):
        kernel_regression(EYE, EYE, ONE, reduction="maen")
    for decay in (0.0, -1.0, np.nan):
        with pytest.raises(DomainError, match="must be positive for the adaptive-kernel predictor"):
            adaptive_predictor(EYE, EYE, ONE, decay)
    with pytest.raises(DomainError, match="do not fit"):
        kernel_alignment(EYE, np.ones(3))
    with pytest.raises(DomainError, match="0 points have labels"):
        kernel_alignment(EYE, np.full(2, np.nan))
    with pytest.raises(DomainError, match="nonzero labels"):
        kernel_alignment(EYE, np.zeros(2))
