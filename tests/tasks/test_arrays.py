import numpy as np
import pytest

from tlcli.errors import UsageError
from tlcli.tasks.arrays import load_file
from tlcli.tasks.transfer import check_tasks, transfer_data

NOTHING = {"dim": None, "p1": None, "p2": None, "ptest": None}


def points(dim=3):
    rng = np.random.default_rng(5)
    return {
        "x_source": rng.normal(2, 3, (8, dim)),
        "y_source": rng.normal(size=8),
        "x_target": rng.normal(-1, 1, (5, dim)),
        "y_target": rng.normal(size=5),
        "x_test": rng.normal(size=(6, dim)),
        "y_test": rng.normal(size=6),
    }


def npz(tmp_path, **changes):
    arrays = {name: array for name, array in (points() | changes).items() if array is not None}
    np.savez(tmp_path / "data.npz", **arrays)
    return f"file:{tmp_path / 'data.npz'}"


def to_csv(tmp_path, arrays, *, other=None, name="data.csv", newline="\n"):
    dim = arrays["x_source"].shape[1]
    lines = [",".join(["set", "y", *(["y_source"] if other is not None else []), *(f"x{i + 1}" for i in range(dim))])]
    for which in ("test", "source", "target"):  # the sets may stand in any order
        for i, x in enumerate(arrays[f"x_{which}"]):
            y = arrays[f"y_{which}"][i]
            label = "" if np.isnan(y) else repr(float(y))
            extra = [] if other is None else [repr(float(other[i])) if which == "test" else ""]
            lines.append(",".join([which, label, *extra, *(repr(float(v)) for v in x)]))
    (tmp_path / name).write_text(newline.join(lines) + newline, encoding="utf-8")
    return f"file:{tmp_path / name}"


def draw(task, **changes):
    arguments = NOTHING | {"rho": 0.0, "noise1": 0.0, "noise2": 0.0, "seed": 0} | changes
    return transfer_data(task, task, **arguments)


def test_raw_npz_round_trip(tmp_path):
    task, given = npz(tmp_path), points()
    data = draw(task, raw_inputs=True)
    for name in ("x_source", "y_source", "x_target", "y_target", "x_test"):
        np.testing.assert_array_equal(getattr(data, name), given[name])
    np.testing.assert_array_equal(data.y_test_target, given["y_test"])
    assert np.isnan(data.y_test_source).all()
    assert data.description["file"] == "data.npz"
    assert len(data.description["sha256"]) == 64


def test_inputs_are_centred_and_scaled_one_by_one(tmp_path):
    given, data = points(), draw(npz(tmp_path))
    mean = (given["x_source"].sum(axis=0) + given["x_target"].sum(axis=0)) / 13
    for name in ("x_source", "x_target", "x_test"):
        for row, raw in zip(getattr(data, name), given[name], strict=True):
            assert row @ row / 3 == pytest.approx(1)
            direction = (raw - mean) / np.linalg.norm(raw - mean)
            assert row @ direction == pytest.approx(np.sqrt(3))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("raw", [True, False])
def test_csv_gives_what_npz_gives(tmp_path, raw, newline):
    other = np.random.default_rng(6).normal(size=6)
    expected = draw(npz(tmp_path, y_test_source=other), raw_inputs=raw)
    data = draw(to_csv(tmp_path, points(), other=other, newline=newline), raw_inputs=raw)
    for name in ("x_source", "y_source", "x_target", "y_target", "x_test", "y_test_source", "y_test_target"):
        np.testing.assert_array_equal(getattr(data, name), getattr(expected, name))


def test_labels_of_test_points_may_be_absent(tmp_path):
    data = draw(npz(tmp_path, y_test=None))
    assert np.isnan(data.y_test_target).all()
    assert data.description["test_labels_target"] == 0
    arrays = points()
    arrays["y_test"][2] = np.nan
    data = draw(to_csv(tmp_path, arrays))
    assert np.isnan(data.y_test_target).tolist() == [False, False, True, False, False, False]
    assert data.description["test_labels_target"] == 5


def test_spreadsheet_csv_with_byte_order_mark_and_blank_lines(tmp_path):
    task = to_csv(tmp_path, points())
    path = tmp_path / "data.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")
    np.testing.assert_array_equal(draw(task).y_source, points()["y_source"])


def test_sizes_and_draws(tmp_path):
    task, given = npz(tmp_path), points()
    data = draw(task, p1=4, p2=2, ptest=3, raw_inputs=True)
    np.testing.assert_array_equal(data.x_source, given["x_source"][:4])
    np.testing.assert_array_equal(data.y_target, given["y_target"][:2])
    np.testing.assert_array_equal(data.x_test, given["x_test"][:3])
    # Centring does not depend on how many points are used.
    np.testing.assert_array_equal(draw(task, p1=4).x_source, draw(task).x_source[:4])
    # Later draws: the same data as a whole, random rows of it (nested in size) where fewer are asked for.
    np.testing.assert_array_equal(draw(task, draw=1).x_source, draw(task).x_source)
    some, more = (draw(task, p1=p, draw=1, raw_inputs=True) for p in (3, 6))
    np.testing.assert_array_equal(some.x_source, more.x_source[:3])
    index = [int(np.flatnonzero((given["x_source"] == row).all(axis=1))[0]) for row in more.x_source]
    assert len(set(index)) == 6
    assert index != list(range(6))
    np.testing.assert_array_equal(more.y_source, given["y_source"][index])


def test_check_tasks_gives_the_dimension(tmp_path):
    task = npz(tmp_path)
    assert check_tasks(task, task, **NOTHING) == 3
    assert check_tasks(task, task, **(NOTHING | {"dim": 3})) == 3
    with pytest.raises(UsageError, match=r"dim = 4: .* D = 3"):
        check_tasks(task, task, **(NOTHING | {"dim": 4}))
    for name, number, kind in (("p1", 8, "source"), ("p2", 5, "target"), ("ptest", 6, "test")):
        message = rf"{name} = {number + 1}: data.npz has {number} {kind} points; use at most {number}"
        with pytest.raises(UsageError, match=message):
            check_tasks(task, task, **(NOTHING | {name: number + 1}))


def with_value(name, index, value):
    array = points()[name]
    array[index] = value
    return {name: array}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_target": None}, "lacks the array 'y_target'"),
        ({"y_target": None, "y_traget": np.ones(5)}, r"unknown array 'y_traget' \(did you mean 'y_target'\?\)"),
        ({"extra": np.ones(5)}, "unknown array 'extra'; a task file holds x_source"),
        ({"x_test": None}, "lacks the array 'x_test'"),
        ({"x_source": np.ones(8)}, r"x_source has shape \(8,\); it must be \(points, D\)"),
        ({"x_source": np.ones((8, 2, 2))}, r"x_source has shape \(8, 2, 2\)"),
        ({"x_target": np.ones((5, 4))}, "x_target has 4 columns and x_source 3"),
        ({"y_source": np.ones(7)}, r"y_source has shape \(7,\); x_source needs \(8,\)"),
        ({"y_source": np.ones((8, 1))}, r"y_source has shape \(8, 1\)"),
        ({"y_test_source": np.ones(5)}, r"y_test_source has shape \(5,\); x_test needs \(6,\)"),
        ({"x_source": np.ones((0, 3)), "y_source": np.ones(0)}, "no source point"),
        (
            with_value("x_source", (4, 1), np.nan),
            r"x_source holds 1 NaN or infinite value, the first at x_source\[4, 1",
        ),
        (with_value("x_test", slice(2, 4), np.inf), r"x_test holds 6 NaN or infinite values.*x_test\[2, 0\]"),
        (with_value("y_target", 3, np.nan), r"y_target holds 1 NaN or infinite value, the first at y_target\[3\]"),
        (with_value("y_test", 3, -np.inf), r"y_test holds 1 infinite value, the first at y_test\[3\]"),
        ({"y_source": np.array(["a"] * 8)}, "y_source has type <U1; it must hold real numbers"),
        ({"y_source": np.ones(8, complex)}, "real numbers"),
        ({"y_source": np.array([None] * 8)}, "pickled objects are not read"),
        (
            {"x_test": np.tile(np.concatenate([points()["x_source"], points()["x_target"]]).mean(0), (6, 1))},
            "equals the",
        ),
        ({k: points()[k][:, :1] for k in ("x_source", "x_target", "x_test")}, "single input column.*--raw-inputs"),
    ],
)
def test_bad_npz(tmp_path, changes, message):
    task = npz(tmp_path, **changes)
    with pytest.raises(UsageError, match=message) as error:
        check_tasks(task, task, **NOTHING)
    assert "\n" not in str(error.value)


def test_raw_inputs_take_what_cannot_be_scaled(tmp_path):
    task = npz(tmp_path, **{k: points()[k][:, :1] for k in ("x_source", "x_target", "x_test")})
    assert check_tasks(task, task, **NOTHING, raw_inputs=True) == 1
    assert draw(task, raw_inputs=True).x_source.shape == (8, 1)


HEAD = "set,y,x1,x2\n"
GOOD = "source,1,0.5,2\ntarget,-1,2,3\ntest,,1,1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the column 'set'"),
        ("kind,y,x1\n", "lacks the column 'set'"),
        ("sett,y,x1\n", r"lacks the column 'set' \(did you mean 'sett'\?\)"),
        ("set;y;x1\n", "with commas"),
        ("set,x1,x2\n", "lacks the column 'y'"),
        ("set,y,x1,x1\n", "the column 'x1' stands twice"),
        ("set,y\n", "no input column"),
        (HEAD + "source,1,2\n", r"data\.csv, line 2: 3 values, but the header names 4 columns"),
        (HEAD + "sorce,1,2,3\n", r"line 2: set is 'sorce' \(did you mean 'source'\?\)"),
        (HEAD + GOOD + "source,1,a,3\n", "line 5: x1 is 'a'; it must be a number"),
        (HEAD + GOOD + "source,1,2,\n", "line 5: x2 is empty; it must be a number"),
        (HEAD + GOOD + "target,,2,3\n", "line 5: y is empty"),
        (HEAD + GOOD + "source,1,nan,3\n", r"x_source holds 1 NaN or infinite value, the first at x_source\[1, 0\]"),
        (HEAD + "source,1,0.5,2\ntest,,1,1\n", "there is no target point"),
        ("set,y,y_source,x1\nsource,1,1,0.5\n", "line 2: y_source is for test points"),
        (HEAD, "there is no source point"),
    ],
)
def test_bad_csv(tmp_path, text, message):
    (tmp_path / "data.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_file(f"file:{tmp_path / 'data.csv'}")


def test_unreadable_files(tmp_path):
    (tmp_path / "text.npz").write_text("not an archive")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "half.npz").write_bytes(b"PK\x03\x04 broken")
    (tmp_path / "latin.csv").write_bytes(b"set,y,x\xe9\n")
    (tmp_path / "data.txt").write_text("1 2 3")
    np.save(tmp_path / "one.npy", np.ones(3))
    (tmp_path / "one.npz").write_bytes((tmp_path / "one.npy").read_bytes())
    for name, message in (
        ("text.npz", "Cannot read"),
        ("empty.npz", "Cannot read"),
        ("half.npz", "Cannot read"),
        ("latin.csv", "Cannot read"),
        ("none.npz", "Cannot read .*No such file"),
        ("data.txt", r"ends in '.txt'; a task file is .npz or .csv"),
        ("one.npz", "single array"),
        ("", "Cannot read"),
    ):
        with pytest.raises(UsageError, match=message):
            load_file(f"file:{tmp_path / name}")


def test_both_tasks_name_one_file(tmp_path):
    task = npz(tmp_path)
    with pytest.raises(UsageError, match="must name the same file"):
        check_tasks(task, "file:other.npz", **NOTHING)


def test_a_changed_file_is_read_again(tmp_path):
    first = draw(npz(tmp_path), raw_inputs=True)
    second = draw(npz(tmp_path, y_source=np.arange(8)), raw_inputs=True)
    np.testing.assert_array_equal(second.y_source, np.arange(8))
    assert first.description["sha256"] != second.description["sha256"]
