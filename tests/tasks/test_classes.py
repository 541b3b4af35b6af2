"""Tasks with classes and with several directions: labels, directions, flips, and files whose labels are classes."""

import numpy as np
import pytest

from tlcli.errors import UsageError
from tlcli.tasks.gaussian import axes_of, parse
from tlcli.tasks.labels import read_labels
from tlcli.tasks.transfer_tasks import check_tasks, label_kinds, transfer_data

SIZES = {"dim": None, "p1": 60, "p2": 50, "ptest": 100}


def draw(source, target, **changes):
    settings = {"rho": 0.6, "noise1": 0.0, "noise2": 0.0, "seed": 3, **SIZES} | changes
    return transfer_data(source, target, **settings)


def test_each_digit_is_a_class():
    data = draw("digits:0-4", "digits:5,7-9")
    assert (data.classes_source, data.classes_target) == (5, 4)
    assert set(data.y_source) == {0.0, 1, 2, 3, 4}
    assert set(data.y_target) == {0.0, 1, 2, 3}
    assert np.isnan(data.y_test_source[np.isfinite(data.y_test_target)]).all()
    assert data.description["target_classes"] == ["5", "7", "8", "9"]
    # Two classes by a range are the two groups of always.
    pair, groups = draw("digits:3,8", "digits:4,9"), draw("digits:3v8", "digits:4v9")
    assert np.array_equal(pair.y_source, groups.y_source)
    assert np.array_equal(pair.x_source, groups.x_source)


def test_signs_are_those_of_the_polynomial():
    """The same inputs and directions as the polynomial itself; rho is the overlap of the directions."""
    real, signs = draw("linear", "he1+0.5*he3"), draw("sign:linear", "sign:he1+0.5*he3")
    assert np.array_equal(real.x_source, signs.x_source)
    assert np.array_equal(np.sign(real.y_source), signs.y_source)
    assert np.array_equal(np.sign(real.y_test_target), signs.y_test_target)
    assert signs.classes_source == signs.classes_target == 2


def test_flips_change_a_share_of_the_training_labels_alone():
    plain, noisy = draw("sign:linear", "argmax:3"), draw("sign:linear", "argmax:3", flips=(0.3, 0.5), p1=4000, p2=4000)
    assert np.array_equal(plain.y_test_source, noisy.y_test_source)
    clean = draw("sign:linear", "argmax:3", p1=4000, p2=4000)
    for word, share in (("source", 0.3), ("target", 0.5)):
        changed = getattr(noisy, f"y_{word}") != getattr(clean, f"y_{word}")
        assert abs(changed.mean() - share) < 4 * np.sqrt(share * (1 - share) / 4000)
    assert set(noisy.y_target) == {0.0, 1, 2}


def test_directions_of_several():
    """Orthonormal in each task, overlap rho with the direction of the same number, none with others; the first two
    are those of polynomials.
    """
    first, second = axes_of(12, 0.6, 3, 0, 4)
    assert np.allclose(first @ first.T, np.eye(4), atol=1e-12)
    assert np.allclose(second @ second.T, np.eye(4), atol=1e-12)
    assert np.allclose(first @ second.T, 0.6 * np.eye(4), atol=1e-12)
    alone = axes_of(12, 0.6, 3, 0, 1)
    assert np.array_equal(alone[0][0], first[0])
    assert np.array_equal(alone[1][0], second[0])


def test_argmax_and_products():
    z = np.random.default_rng(0).standard_normal((50, 3))
    assert np.array_equal(parse("argmax:3")(z), np.argmax(z, axis=1))
    assert np.allclose(parse("he1(1)-0.5*he1(1)he2(3)")(z), z[:, 0] - 0.5 * z[:, 0] * (z[:, 2] ** 2 - 1) / np.sqrt(2))
    assert parse("sign:he1(1)he1(2)").classes == 2
    assert parse("he1(1)he2(2)").odd
    assert not parse("he1(1)he1(2)").odd
    big = draw("he1(1)+he1(1)he1(2)", "he1(1)he1(2)", ptest=40000)
    assert abs(np.mean(big.y_test_source**2) - 2) < 0.2  # orthonormal terms
    assert abs(np.mean(big.y_test_source * big.y_test_target) - 0.36) < 0.1  # rho^2


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("digits:0-", "'0-' is no digit and no range"),
        ("digits:4-0", "write 0-4"),
        ("digits:0-3,2", "digit 2 is written twice"),
        ("digits:3,", "'' is no digit"),
        ("argmax:1", "'1' is no number of classes"),
        ("argmax:x", "'x' is no number of classes"),
        ("sign:argmax:3", "the sign of classes is no task"),
        ("sign:", "cannot read"),
        ("he1(1)+", "cannot read"),
        ("he1(0)", "direction 0 is outside"),
        ("he1(1)he2(1)", "direction 1 stands twice"),
        ("he1(1)-he1(1)", "cancel"),
        ("argmax:30", "need dim >= 60"),
    ],
)
def test_bad_tasks_are_refused_in_one_sentence(task, words):
    with pytest.raises(UsageError) as error:
        check_tasks(task, task, **SIZES)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_flips_need_classes():
    with pytest.raises(UsageError, match=r"flips1 = 0\.1: linear has real labels.*sign:linear"):
        check_tasks("linear", "sign:linear", **SIZES, flips=(0.1, 0.1))


def test_labels_of_files():
    """One-hot rows and whole numbers are classes; {0, 1} become -1 and +1, and that is said."""
    hot = read_labels(np.eye(3)[[0, 1, 2, 2]], np.full((2, 3), np.nan), None, "f")
    assert hot.classes == 3
    assert hot.train.tolist() == [0, 1, 2, 2]
    assert np.isnan(hot.test).all()
    numbers = read_labels(np.array([0.0, 1, 1]), np.array([1.0, np.nan]), "auto", "f")
    assert numbers.classes == 2
    assert numbers.train.tolist() == [-1, 1, 1]
    assert "1 as +1 and 0 as -1" in numbers.note
    absent = read_labels(np.array([3.0, 5, 3, 5, 3]), np.array([9.0, 3]), "auto", "f")
    assert absent.names == ("3", "5", "9")
    assert absent.train.tolist() == [0, 1, 0, 1, 0]
    signs = read_labels(np.array([-1.0, 1]), np.array([1.0]), "auto", "f")
    assert (signs.classes, signs.note, signs.train.tolist()) == (2, "", [-1, 1])
    for meaning, labels in (("regression", [0.0, 1, 1]), ("auto", [0.5, 1, 1]), (None, [0.0, 1, 1])):
        assert read_labels(np.array(labels), np.array([1.0]), meaning, "f").classes is None
    for labels, told in (
        ([0, 1, 1], "0, 1"),
        ([2, 0, 1, 1], "0, 1, 2"),
        ([-1, 1, 1], ""),
        ([0.5, 1, 1], ""),
        ([3, 1, 4], ""),
    ):
        note = read_labels(np.array(labels, dtype=float), np.array([1.0]), None, "f").note
        assert note == (f"f: labels {told} are taken as numbers; --classes makes them classes." if told else ""), labels
    with pytest.raises(UsageError, match=r"the label 0\.5 is no whole number"):
        read_labels(np.array([0.5, 1]), np.array([1.0]), "classes", "f")
    with pytest.raises(UsageError, match=r"labels 0, 2, 10, 11 are classes: 4 classes of 3 training points"):
        read_labels(np.array([10.0, 2, 0]), np.array([11.0]), "auto", "f")
    with pytest.raises(UsageError, match="4 classes of 3 training points"):
        read_labels(np.array([0.0, 1, 2]), np.array([3.0]), "auto", "f")
    with pytest.raises(UsageError, match="a single class"):
        read_labels(np.array([1.0, 1]), np.array([1.0]), "classes", "f")


def test_files_with_vectors_and_classes(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {f"x_{name}": rng.standard_normal((n, 3)) for name, n in (("source", 8), ("target", 6), ("test", 4))}
    arrays |= {"y_source": rng.standard_normal((8, 2)), "y_target": np.eye(3)[[0, 1, 2, 0, 1, 1]]}
    np.savez(tmp_path / "data.npz", **arrays)
    task = f"file:{tmp_path / 'data.npz'}"
    first, second = label_kinds(task, task)
    assert (first.outputs, first.classes, second.outputs, second.classes) == (2, None, None, 3)
    data = draw(task, task, p1=None, p2=None, ptest=None)
    assert data.y_source.shape == (8, 2)
    assert data.y_target.tolist() == [0, 1, 2, 0, 1, 1]
    assert data.y_test_source.shape == (4, 2)
    half = draw(task, task, p1=4, p2=3, ptest=None)
    assert half.y_source.shape == (4, 2)


def test_classes_without_a_training_point_are_told():
    data = draw("digits:0-4", "digits:5-9", p2=3)
    assert any("no target point has the class" in note for note in data.description["notes"])
