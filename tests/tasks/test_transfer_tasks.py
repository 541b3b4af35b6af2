import json

import numpy as np
import pytest

from tlcli.errors import DomainError, UsageError
from tlcli.tasks.data import Purpose, stream
from tlcli.tasks.transfer_tasks import TransferData, check_tasks, transfer_data

ARRAYS = ("x_source", "y_source", "x_target", "y_target", "x_test", "y_test_source", "y_test_target")
NOTHING = {"dim": None, "p1": None, "p2": None, "ptest": None}


def draw(source="linear", target="hermite:2", **changes) -> TransferData:
    arguments = NOTHING | {"rho": 0.5, "noise1": 0.0, "noise2": 0.0, "seed": 0} | changes
    return transfer_data(source, target, **arguments)


def same(first, second, names=ARRAYS):
    return all(np.array_equal(getattr(first, n), getattr(second, n), equal_nan=True) for n in names)


def test_default_sizes():
    assert check_tasks("linear", "he2", **NOTHING) == 20
    assert check_tasks("linear", "he2", **(NOTHING | {"dim": 7})) == 7
    data = draw()
    assert (data.x_source.shape, data.x_target.shape, data.x_test.shape) == ((100, 20), (50, 20), (1000, 20))
    assert np.isfinite(data.y_test_source).all()
    assert np.isfinite(data.y_test_target).all()


def test_inputs_are_standard_normal():
    x = draw(dim=10, ptest=20_000).x_test
    n = x.size
    assert abs(x.mean()) < 4 / np.sqrt(n)
    assert abs((x**2).mean() - 1) < 4 * np.sqrt(2 / n)
    covariance = x.T @ x / len(x)
    assert np.abs(covariance - np.eye(10)).max() < 5 * np.sqrt(2 / len(x))


@pytest.mark.parametrize(("source", "target"), [("linear", "he2"), ("digits:3v8", "digits:4v9")])
def test_draws_are_repeated_and_differ(source, target):
    first = draw(source, target, noise1=0.1, noise2=0.2)
    assert same(first, draw(source, target, noise1=0.1, noise2=0.2))
    assert first.description == draw(source, target, noise1=0.1, noise2=0.2).description
    for other in (draw(source, target, seed=1), draw(source, target, draw=1)):
        for name in ("x_source", "x_target", "x_test"):
            assert not np.array_equal(getattr(first, name)[:40], getattr(other, name)[:40])


@pytest.mark.parametrize(("source", "target"), [("he1+he3", "he2"), ("digits:3v8", "digits:4v9")])
def test_smaller_sizes_are_prefixes_and_nothing_else_changes(source, target):
    large = draw(source, target, p1=80, p2=60, ptest=50, noise1=0.3, noise2=0.3)
    small = draw(source, target, p1=15, p2=9, ptest=50, noise1=0.3, noise2=0.3)
    for name, size in (("x_source", 15), ("y_source", 15), ("x_target", 9), ("y_target", 9)):
        np.testing.assert_array_equal(getattr(small, name), getattr(large, name)[:size])
    if source.startswith("he"):
        assert same(small, large, ("x_test", "y_test_source", "y_test_target"))
        fewer = draw(source, target, p1=80, p2=60, ptest=20, noise1=0.3, noise2=0.3)
        assert same(fewer, large, ARRAYS[:4])
        np.testing.assert_array_equal(fewer.x_test, large.x_test[:20])


def test_a_sweep_of_rho_or_task_keeps_all_other_numbers():
    first, second = draw(rho=0.1), draw(rho=0.9)
    assert same(first, second, ("x_source", "y_source", "x_target", "x_test", "y_test_source"))
    assert not np.array_equal(first.y_target, second.y_target)
    assert same(draw(target="he3"), first, ("x_source", "y_source", "x_target", "x_test", "y_test_source"))


@pytest.mark.parametrize(("source", "target"), [("linear", "he2"), ("digits:02468v13579", "digits:01234v56789")])
def test_noise_on_training_labels_only(source, target):
    sizes = {"p1": 800, "p2": 500}
    clean = draw(source, target, **sizes)
    noisy, twice = draw(source, target, noise1=0.5, noise2=2.0, **sizes), draw(source, target, noise1=1.0, **sizes)
    assert same(clean, noisy, ("x_source", "x_target", "x_test", "y_test_source", "y_test_target"))
    for name, noise in (("y_source", 0.5), ("y_target", 2.0)):
        added = (getattr(noisy, name) - getattr(clean, name)) / noise
        n = len(added)
        assert abs(added.mean()) < 4 / np.sqrt(n)
        assert abs((added**2).mean() - 1) < 4 * np.sqrt(2 / n)
        assert abs((added**2).mean() - 0.5) > 4 * np.sqrt(2 / n)  # the twin: another variance is found out
    np.testing.assert_allclose(twice.y_source - clean.y_source, 2 * (noisy.y_source - clean.y_source), atol=1e-12)
    added = noisy.y_source[:500] - clean.y_source[:500], noisy.y_target - clean.y_target
    assert abs(np.corrcoef(*added)[0, 1]) < 4 / np.sqrt(500)  # the two stages' noise is independent


def test_streams_are_distinct():
    keys = [(seed, number, purpose) for seed in (0, 1) for number in (0, 1) for purpose in Purpose]
    assert len({stream(*key).standard_normal() for key in keys}) == len(keys)
    np.testing.assert_array_equal(
        stream(3, 1, Purpose.TEST_INPUTS).random(4), stream(3, 1, Purpose.TEST_INPUTS).random(4)
    )


@pytest.mark.parametrize(("source", "target"), [("linear", "he1-0.5*he3"), ("digits:3v8", "digits:4v9")])
def test_description_is_plain_json(source, target):
    description = draw(source, target, noise1=0.1).description
    assert json.loads(json.dumps(description, allow_nan=False)) == description
    expected = {"source": source, "target": target, "p1": 100, "p2": 50, "noise1": 0.1, "seed": 0, "draw": 0}
    assert expected.items() <= description.items()
    assert set(description["array_sha256"]) == set(ARRAYS[:5])
    assert description["array_sha256"] != draw(source, target, seed=1).description["array_sha256"]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("linaer", r"Unknown task 'linaer' \(did you mean 'linear'\?\); a task is one of linear, hermite:K"),
        ("hermit:2", "did you mean 'hermite:K'"),
        ("digit:3v8", "did you mean 'digits:3v8'"),
        ("cifar-10:cat-dog", "did you mean 'cifar10:cat-dog'"),
        ("flie:data.npz", "did you mean 'file:PATH'"),
        ("qqq", "Unknown task 'qqq'; a task is one of"),
        ("", "Unknown task ''"),
        ("hermite:0", "degree 0"),
        ("hermite:13", "degree 13 is outside 1 to 12"),
        ("he1+", "cannot read"),
        ("digits:38", "both sides"),
        ("cifar10:cat", "both sides"),
        ("file:none.npz", "Cannot read none.npz"),
    ],
)
def test_bad_tasks(task, message):
    with pytest.raises(UsageError, match=message) as error:
        check_tasks(task, task, **NOTHING)
    assert "\n" not in str(error.value)
    other = "digits:3v8" if task.startswith("digits:") else "linear"
    with pytest.raises(UsageError):
        check_tasks(other, task, **NOTHING)


@pytest.mark.parametrize(("source", "target"), [("linear", "digits:3v8"), ("digits:3v8", "file:x.npz")])
def test_kinds_must_agree(source, target):
    with pytest.raises(UsageError, match=f"{source!r} and target {target!r} have different kinds of inputs"):
        check_tasks(source, target, **NOTHING)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"p1": 0}, UsageError, r"p1 = 0: it must be an integer from 1 to 1e\+12"),
        ({"p1": 10**30}, UsageError, r"p1 = 1e\+30"),
        ({"p1": -(10**400)}, UsageError, "p1 is a whole number beyond 1e308"),
        ({"p2": 2.5}, UsageError, r"p2 = 2\.5"),
        ({"ptest": -1}, UsageError, "ptest = -1"),
        ({"p1": np.inf}, UsageError, "p1 = inf"),
        ({"dim": 0}, UsageError, "dim = 0"),
        ({"rho": 1.5}, DomainError, r"rho = 1\.5"),
        ({"rho": np.nan}, DomainError, "rho = nan"),
        ({"noise1": -0.1}, DomainError, r"noise1 = -0\.1"),
        ({"noise2": np.inf}, DomainError, "noise2 = inf"),
        ({"seed": -1}, UsageError, "seed = -1"),
        ({"draw": -2}, UsageError, "draw = -2"),
        ({"colour": True}, UsageError, "colour is for cifar10"),
        ({"raw_inputs": True}, UsageError, "raw inputs are for file"),
    ],
)
def test_bad_values(changes, error, message):
    with pytest.raises(error, match=message):
        draw(**changes)


def test_digits_sizes():
    arguments = NOTHING | {"p1": 400}
    with pytest.raises(UsageError, match="p1 = 400: digits:3v8 has 357 images"):
        check_tasks("digits:3v8", "digits:4v9", **arguments)
    assert check_tasks("digits:3v8", "digits:4v9", **NOTHING) == 64
    with pytest.raises(UsageError, match="dim = 20: the inputs of digits:3v8 have D = 64"):
        check_tasks("digits:3v8", "digits:4v9", **(NOTHING | {"dim": 20}))
