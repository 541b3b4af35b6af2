"""Errors by the finite number of test points: how often they cover, and that those of differences are paired."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tlcli.arrays import in_quadrature
from tlcli.dmft.activations import activation
from tlcli.dmft.ensemble import Numerics
from tlcli.dmft.estimates import Piece, error_by_points, mean_over_points, overfitting_by_points
from tlcli.dmft.network_transfer import _parts, solve_transfer
from tlcli.dmft.settings import PLAIN
from tlcli.dmft.square_columns import Squares
from tlcli.tasks.transfer_tasks import transfer_data
from tlcli.training import TransferSettings

SETS, EACH, MORE = 200, 100, 20_000  # independent test sets, their points, and those of a huge one
SETTINGS = TransferSettings(activation="tanh", gamma0=1.0, gamma2=1.0, times1=(3.0,), times2=(0.0, 1.0, 4.0))
NUMERICS = Numerics(neurons=128, repeats=4, seed=1, accuracy=1.0)
NAMES = ("loss", "baseline", "gain", "source_loss", "overfitting")
# What is right for 2 standard errors of 100 skewed numbers; of 200 sets a share of 0.954 is known to 0.015.
LOW, HIGH = 0.89, 0.985


@pytest.fixture(scope="module")
def data():
    """A transfer with as many test points as all test sets have."""
    sizes = {"dim": 3, "p1": 20, "p2": 8, "ptest": SETS * EACH + MORE}
    return transfer_data("linear", "linear", rho=0.8, noise1=0.3, noise2=0.3, seed=1, **sizes)


@pytest.fixture(scope="module")
def columns(data):
    """Return by the rows of the test points the columns of the same two networks."""
    x = np.concatenate([data.x_source, data.x_target, data.x_test])
    parts = _parts(data, SETTINGS, activation("tanh"), x, PLAIN)(NUMERICS, [frozenset({0}), frozenset({2})])
    stages = parts._stages()
    # Without what is observed of the kernel, which is between all test points.
    pieces = [*parts._solve(stages, None).pieces(), *parts._solve([parts.setup.stage(2)], None).pieces()]
    trained = np.arange(len(x) - len(data.x_test))

    def found(rows):
        kept = np.concatenate([trained, len(trained) + rows])
        setup = SimpleNamespace(data=with_tests(data, rows), source=parts.setup.source, target=parts.setup.target)
        setup.test = np.arange(len(trained), len(kept))
        own = [Piece(p.whole[:, kept], None if p.left_out is None else p.left_out[:, :, kept]) for p in pieces]
        own = [replace(one, halves=p.halves[:, :, kept]) for one, p in zip(own, pieces, strict=True)]
        out = Squares(setup, 2, True).columns(own)
        out["overfitting"] = out["loss"][-1:] - out["loss"]
        return out

    return found


def with_tests(data, rows):
    """Return the data with some of the test points."""
    names = ("x_test", "y_test_source", "y_test_target")
    return replace(data, **{name: getattr(data, name)[rows] for name in names})


@pytest.fixture(scope="module")
def sampled(columns):
    """Return by name the distances from a huge test set (set, record), and all columns of every set."""
    true = columns(np.arange(SETS * EACH, SETS * EACH + MORE))
    every = [columns(np.arange(k * EACH, (k + 1) * EACH)) for k in range(SETS)]
    joined = {name: np.array([one[name] for one in every]) for name in every[0]}
    return {name: joined[name] - true[name] for name in NAMES}, joined


def share(distance, error):
    return np.mean(np.abs(distance) < 2 * error)


@pytest.mark.parametrize("name", NAMES)
def test_twice_the_error_covers_as_often_as_two_standard_errors(sampled, name):
    distance, found = sampled
    record = 2 if name == "overfitting" else 3  # what the end is above itself is certain
    off, error = distance[name][:, record], found[f"{name}_test_se"][:, record]
    assert LOW <= share(off, error) <= HIGH
    assert share(off, error / 2) < LOW, "half of it is too small"
    if name != "overfitting":
        neurons = found[f"{name}_se"][:, record]
        assert share(off, neurons) < 0.7, "the neurons alone, which all sets have in common, say nothing of it"


def test_errors_of_differences_that_are_not_paired_are_too_large(sampled):
    distance, found = sampled
    gain, paired = distance["gain"][:, 3], found["gain_test_se"][:, 3]
    unpaired = np.hypot(found["loss_test_se"][:, 3], found["baseline_test_se"][:, 3])
    assert np.sqrt(np.mean((gain / paired) ** 2)) == pytest.approx(1, abs=0.15)
    assert np.sqrt(np.mean((gain / unpaired) ** 2)) < 0.75
    over, paired = distance["overfitting"][:, 2], found["overfitting_test_se"][:, 2]
    unpaired = np.hypot(found["loss_test_se"][:, 2], found["loss_test_se"][:, 3])
    assert np.sqrt(np.mean((over / paired) ** 2)) == pytest.approx(1, abs=0.15)
    assert np.sqrt(np.mean((over / unpaired) ** 2)) < 0.75


def test_a_squared_error_that_is_named_has_the_same_errors(data, columns):
    """Both ways to the squared error of one output, on the same test points."""
    rows = np.arange(EACH)
    plain = solve_transfer(with_tests(data, rows), SETTINGS, NUMERICS).columns
    named = solve_transfer(with_tests(data, rows), replace(SETTINGS, loss1="mse", loss2="mse"), NUMERICS).columns
    own = columns(rows)
    for name in NAMES:
        np.testing.assert_allclose(plain[f"{name}_test_se"], own[f"{name}_test_se"], rtol=1e-6)
        np.testing.assert_allclose(plain[f"{name}_test_se"], named[f"{name}_test_se"], rtol=1e-3)
    assert "train_loss_test_se" not in plain, "training points are no sample of others"


def test_a_single_point_has_no_error_and_a_mean_of_two_that_of_their_distance():
    assert np.isnan(error_by_points(np.ones((2, 1)))).all()
    assert np.isnan(error_by_points(np.ones((2, 0)))).all()
    np.testing.assert_allclose(error_by_points(np.array([[1.0, 4.0]])), 1.5)
    np.testing.assert_allclose(overfitting_by_points(np.array([[1.0, 4.0], [2.0, 5.0]])), 0.0)


def test_an_error_that_is_not_known_does_not_hide_the_others():
    nan = np.nan
    found = in_quadrature([np.array([3.0, nan, 3.0, nan]), np.array([4.0, 4.0, nan, nan])])
    np.testing.assert_array_equal(found, [5.0, 4.0, 3.0, nan])


@pytest.mark.parametrize(("degree", "few", "many"), [(1, 0.94, 0.95), (2, 0.85, 0.93), (3, 0.59, 0.84)])
def test_heavy_tails_of_hermite_labels_cover_as_the_page_on_columns_says(degree, few, many):
    """A network that has learned nothing: the loss at a point is the squared label, of mean one."""
    rng = np.random.default_rng(0)
    for points, covered in ((100, few), (1000, many)):
        x = rng.standard_normal((2000, points))
        losses = {1: x, 2: (x**2 - 1) / np.sqrt(2), 3: (x**3 - 3 * x) / np.sqrt(6)}[degree] ** 2
        found = np.abs(mean_over_points(losses) - 1) < 2 * error_by_points(losses)
        # Of 2000 sets a share is known to 0.011; the page has two digits.
        assert np.mean(found) == pytest.approx(covered, abs=4 * np.sqrt(covered * (1 - covered) / 2000))
