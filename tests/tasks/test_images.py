import subprocess
import sys

import numpy as np
import pytest

from tlcli.errors import UsageError
from tlcli.tasks.digits import digits_arrays
from tlcli.tasks.images import DIGIT_COUNTS, check_image_sizes, digits_pool, digits_task, image_data

THREE, FOUR, EVEN, LOW = "digits:3v8", "digits:4v9", "digits:02468v13579", "digits:01234v56789"


def draw(source, target, p1=60, p2=30, ptest=1000, seed=0, number=0):
    first, second = digits_task(source), digits_task(target)
    return image_data(digits_pool(), first, second, p1=p1, p2=p2, ptest=ptest, seed=seed, draw=number)


def rows(x):
    return {row.tobytes() for row in np.round(x, 9) + 0.0}


def test_counts_are_those_of_the_data():
    np.testing.assert_array_equal(np.bincount(digits_pool().classes), DIGIT_COUNTS)


def test_inputs_and_labels():
    data = draw(THREE, FOUR)
    assert data.x_source.shape == (60, 64)
    assert data.x_target.shape == (30, 64)
    for x in (data.x_source, data.x_target, data.x_test):
        np.testing.assert_allclose(np.sum(x**2, axis=1) / 64, 1, rtol=1e-12)
    assert set(data.y_source) == set(data.y_target) == {-1.0, 1.0}
    # Different digits: every test image has exactly one label, and all images that are left are test images.
    assert (np.isnan(data.y_test_source) ^ np.isnan(data.y_test_target)).all()
    assert data.description["test_images_source"] == 357 - 60
    assert data.description["test_images_target"] == 361 - 30
    assert data.description["source_positive"] == (data.y_source == 1).sum()


def test_images_are_those_of_scikit_learn():
    """Every row, from an independent reading: the pixels of the union, centred and scaled one by one."""
    from sklearn.datasets import load_digits

    pixels, digit = load_digits(return_X_y=True)
    used = np.isin(digit, (3, 8, 4, 9))
    x = pixels[used] - pixels[used].mean(axis=0)
    x /= np.linalg.norm(x, axis=1, keepdims=True) / 8
    data = draw(THREE, FOUR)
    points = np.concatenate([data.x_source, data.x_target, data.x_test])
    distance = (points**2).sum(1)[:, None] + (x**2).sum(1) - 2 * points @ x.T
    assert np.abs(distance.min(axis=1)).max() < 1e-9
    labels = np.concatenate([data.y_source, data.y_target, np.nan_to_num(data.y_test_source + 0.0)])
    nearest = digit[used][distance.argmin(axis=1)]
    np.testing.assert_array_equal(labels[:60], np.where(nearest[:60] == 3, 1, -1))
    np.testing.assert_array_equal(labels[60:90], np.where(nearest[60:90] == 4, 1, -1))
    np.testing.assert_array_equal(labels[90:], np.select([nearest[90:] == 3, nearest[90:] == 8], [1, -1], 0))


@pytest.mark.parametrize(("source", "target"), [(THREE, FOUR), (EVEN, LOW), (THREE, "digits:3v9"), (THREE, THREE)])
def test_no_test_image_was_trained_on(source, target):
    data = draw(source, target, p1=100, p2=80)
    assert not rows(data.x_test) & (rows(data.x_source) | rows(data.x_target))
    assert len(rows(data.x_test)) == len(data.x_test)
    assert len(rows(data.x_source)) == 100


def test_shared_images_have_both_labels():
    data = draw(EVEN, LOW, ptest=200)
    assert len(data.x_test) == 200
    assert np.isfinite(data.y_test_source).all()
    assert np.isfinite(data.y_test_target).all()
    assert data.description["images_in_both_training_sets"] == len(rows(data.x_source) & rows(data.x_target))
    partial = draw(THREE, "digits:3v9")
    assert (partial.y_test_target[np.isfinite(partial.y_test_source) & np.isfinite(partial.y_test_target)] == 1).all()


def test_smaller_sets_are_prefixes():
    small, large = draw(THREE, FOUR, p1=20, p2=10), draw(THREE, FOUR, p1=200, p2=90, ptest=40)
    np.testing.assert_array_equal(small.x_source, large.x_source[:20])
    np.testing.assert_array_equal(small.x_target, large.x_target[:10])
    # The order of test images is fixed: those of the larger training sets are missing, nothing else changes.
    again = draw(THREE, FOUR, p1=20, p2=10, ptest=7)
    np.testing.assert_array_equal(again.x_test[:7], small.x_test[:7])
    assert not np.array_equal(small.x_source, draw(THREE, FOUR, p1=20, number=1).x_source)


def test_opposite_labels():
    first, second = draw(THREE, FOUR), draw("digits:8v3", FOUR)
    np.testing.assert_array_equal(first.x_source, second.x_source)
    np.testing.assert_array_equal(first.y_source, -second.y_source)


def test_classes_are_linearly_learnable():
    """A wiring test: ridge regression on the drawn points classifies the test images, shuffled labels do not."""
    data = draw(THREE, FOUR, p1=200, p2=100)
    x, y, known = data.x_source, data.y_source, np.isfinite(data.y_test_source)
    for labels, lowest, highest in ((y, 0.93, 1.0), (np.random.default_rng(0).permutation(y), 0.0, 0.8)):
        w = np.linalg.solve(x.T @ x + 5 * np.eye(64), x.T @ labels)
        accuracy = np.mean(np.sign(data.x_test[known] @ w) == data.y_test_source[known])
        assert lowest <= accuracy <= highest


@pytest.mark.parametrize(
    ("source", "target", "p1", "p2", "message"),
    [
        (THREE, FOUR, 338, 10, r"p1 = 338: digits:3v8 has 357 images, of which 20 are kept.*at most 337"),
        (THREE, FOUR, 10, 400, r"p2 = 400: digits:4v9 has 361 images.*at most 341"),
        (THREE, THREE, 200, 200, r"p1 = 200, p2 = 200: the two tasks share 357 images"),
    ],
)
def test_sizes(source, target, p1, p2, message):
    with pytest.raises(UsageError, match=message):
        check_image_sizes(digits_task(source), digits_task(target), p1, p2, DIGIT_COUNTS)


@pytest.mark.parametrize(("source", "target", "p1", "p2"), [(THREE, FOUR, 337, 341), (THREE, THREE, 200, 137)])
def test_largest_sizes_leave_twenty_test_images(source, target, p1, p2):
    check_image_sizes(digits_task(source), digits_task(target), p1, p2, DIGIT_COUNTS)
    description = draw(source, target, p1, p2).description
    assert min(description["test_images_source"], description["test_images_target"]) >= 20


def test_old_digits_arrays_are_unchanged():
    x, _ = digits_arrays(THREE)
    assert np.sum(x**2, axis=1).mean() / 64 == pytest.approx(1)
    assert np.ptp(np.sum(x**2, axis=1)) > 1  # scaled on average there, one by one here


def test_sizes_are_checked_without_scikit_learn():
    code = (
        "import sys; from tlcli.tasks.transfer_tasks import check_tasks as c;"
        "c('digits:3v8', 'digits:4v9', dim=None, p1=10, p2=10, ptest=None); sys.exit('sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
