import re
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tlcli.errors import UsageError
from tlcli.tasks.arrays import load_file
from tlcli.tasks.transfer_tasks import check_tasks, transfer_data

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


def rows_of(x, given):
    return [int(np.flatnonzero((given == row).all(axis=1))[0]) for row in x]


def test_sizes_and_draws(tmp_path):
    task, given = npz(tmp_path), points()
    some, more = (draw(task, p1=p, p2=2, ptest=3, raw_inputs=True) for p in (3, 6))
    np.testing.assert_array_equal(some.x_source, more.x_source[:3])  # nested
    index = rows_of(more.x_source, given["x_source"])
    assert len(set(index)) == 6
    assert index != sorted(index)
    np.testing.assert_array_equal(more.y_source, given["y_source"][index])
    test = rows_of(more.x_test, given["x_test"])
    np.testing.assert_array_equal(more.y_test_target, given["y_test"][test])
    other = draw(task, p1=6, ptest=3, draw=1, raw_inputs=True)
    assert rows_of(other.x_source, given["x_source"]) != index
    assert rows_of(other.x_test, given["x_test"]) == test  # one test set for all draws
    assert rows_of(draw(task, p1=6, seed=1, raw_inputs=True).x_source, given["x_source"]) != index
    # Centring does not depend on how many points are used; the data as a whole are the same in every draw.
    whole = draw(task)
    np.testing.assert_array_equal(draw(task, p1=6).x_source, whole.x_source[index])
    np.testing.assert_array_equal(draw(task, draw=1).x_source, whole.x_source)


@pytest.mark.parametrize("p", [2, 5, 10, 37])
def test_files_sorted_by_class_give_every_class_its_share(tmp_path, p):
    rng = np.random.default_rng(3)
    y = np.repeat([-1.0, 1.0, 3.0], [40, 20, 20])
    arrays = {f"x_{s}": rng.normal(size=(80, 2)) for s in ("source", "target", "test")}
    np.savez(tmp_path / "data.npz", **arrays, y_source=y, y_target=y, y_test=y)
    task = f"file:{tmp_path / 'data.npz'}"
    counts = []
    for seed in range(40):
        labels = draw(task, p1=p, ptest=p, seed=seed)
        for got in (labels.y_source, labels.y_test_target):
            counts.append([np.sum(got == value) for value in (-1, 1, 3)])
    spread = np.array(counts) - p * np.array([0.5, 0.25, 0.25])
    assert abs(spread).max() < 1.5  # without strata 37 points are off by 8 within 80 draws
    error = spread.std(axis=0) / np.sqrt(len(spread))
    assert (abs(spread.mean(axis=0)) <= 4 * error + 1e-12).all()  # four standard errors


def test_rows_of_real_labels_are_a_fair_draw(tmp_path):
    task, given = npz(tmp_path), points()
    counts = np.zeros(8)
    for seed in range(200):
        counts[rows_of(draw(task, p1=4, seed=seed, raw_inputs=True).x_source, given["x_source"])] += 1
    assert abs(counts - 100).max() < 4 * np.sqrt(200 * 0.25)  # four standard errors; the first rows alone are at 14


def test_a_training_set_of_one_class_is_told(tmp_path):
    task = npz(tmp_path, y_source=np.ones(8), y_test_source=np.array([1, 1, -1, 1, -1, 1.0]))
    assert draw(task).description["notes"] == ["all 8 source points have the label 1: the network sees a single class."]
    assert draw(npz(tmp_path)).description.get("notes") is None
    # Rows that are drawn alike from labels that differ, whether or not test labels are known.
    mostly = npz(tmp_path, y_source=np.array([1.0] * 7 + [-1.0]))
    notes = [draw(mostly, p1=2, seed=seed).description.get("notes") for seed in range(8)]
    assert notes.count(["all 2 source points have the label 1: the network sees a single class."]) >= 4
    assert notes.count(None) == sum(-1 in draw(mostly, p1=2, seed=seed).y_source for seed in range(8))
    assert "single class" in transfer_data(
        "digits:3v8", "digits:4v9", **NOTHING | {"p1": 2, "p2": 10}, rho=0.0, noise1=0.0, noise2=0.0, seed=1
    ).description["notes"][0]  # fmt: skip


def test_columns_can_be_left_out(tmp_path):
    text = Path(to_csv(tmp_path, points()).removeprefix("file:")).read_text().splitlines()
    order = np.random.default_rng(0).permutation(len(text) - 1)
    lines = ["," + text[0].replace("set", "name,set"), *(f"{i},image_{i},{text[i + 1]}" for i in order)]
    (tmp_path / "index.csv").write_text("\n".join(lines) + "\n")
    task = f"file:{tmp_path / 'index.csv'}"
    with pytest.raises(UsageError, match="'Unnamed: 0' has no name"):
        draw(task)
    with pytest.raises(UsageError, match="name is 'image_"):
        draw(task, drop_columns="Unnamed: 0")
    with pytest.raises(UsageError, match=r"no input column 'nme' \(did you mean 'name'\?\)"):
        draw(task, drop_columns="nme")
    with pytest.raises(UsageError, match="has no input column beside"):
        draw(task, drop_columns="Unnamed: 0,name,x1,x2,x3")
    assert draw(task, drop_columns="Unnamed: 0,name").x_source.shape == (8, 3)
    archive = npz(tmp_path)
    np.testing.assert_array_equal(
        draw(archive, drop_columns="0,2", raw_inputs=True).x_source, points()["x_source"][:, [1]]
    )
    for bad in ("3", "-1", "x", "0,1,2"):
        with pytest.raises(UsageError, match="drop_columns: "):
            draw(archive, drop_columns=bad, raw_inputs=True)
    with pytest.raises(UsageError, match="drop_columns = x is for file: tasks"):
        draw("linear", drop_columns="x")


def test_an_index_is_found_in_any_order_and_can_be_kept(tmp_path):
    rng = np.random.default_rng(1)
    lines = [f"{i},{s},1,{rng.normal()}" for i, s in enumerate(["source"] * 4 + ["target"] * 4 + ["test"] * 4)]
    rng.shuffle(lines)
    (tmp_path / "index.csv").write_text("\n".join(["id,set,y,x1", *lines]) + "\n")
    task = f"file:{tmp_path / 'index.csv'}"
    with pytest.raises(UsageError, match="'id' counts the rows and would be an input"):
        draw(task)
    assert draw(task, drop_columns="none").x_source.shape == (4, 2)


@pytest.mark.parametrize(
    ("name", "index", "refused"),
    [
        ("x9", [10 * i for i in range(12)], True),  # another step
        ("x9", [100 - i for i in range(12)], True),  # backwards, from anywhere
        ("x9", [1, 4, 5, 9, 10, 13, 20, 21, 22, 30, 31, 47], True),  # rows that were selected
        ("Row_ID", [9, 4, 5, 1, 10, 13, 77, 21, 22, 30, 31, 47], True),  # and shuffled: its name tells
        ("x9", [9, 4, 5, 1, 10, 13, 77, 21, 22, 30, 31, 47], False),
        ("x9", [0.1 * i for i in range(12)], False),  # points on a line, as one may want to fit
        ("id", [0, 1, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1], False),
    ],
)
def test_other_columns_that_count_rows(tmp_path, name, index, refused):
    rng = np.random.default_rng(2)
    sets = ["source", "target", "test"] * 4
    lines = [f"{i},{s},1,{rng.normal()},{rng.normal()}" for i, s in zip(index, sets, strict=True)]
    (tmp_path / "index.csv").write_text("\n".join([f"{name},set,y,x1,x2", *lines]) + "\n")
    task = f"file:{tmp_path / 'index.csv'}"
    if refused:
        with pytest.raises(UsageError, match=f"'{name}' counts the rows .*--drop-columns {name}, or keep"):
            draw(task)
        assert draw(task, drop_columns=name).x_source.shape == (4, 2)
    else:
        assert draw(task).x_source.shape == (4, 3)


def indexed(tmp_path, columns, sizes=(4, 4, 4)):
    """Write a CSV file of two inputs and `columns` (name -> one value per row), source rows first."""
    rng = np.random.default_rng(3)
    sets = [s for s, n in zip(("source", "target", "test"), sizes, strict=True) for _ in range(n)]
    lines = [",".join([*columns, "set", "y", "x1", "x2"])]
    for i, s in enumerate(sets):
        lines.append(",".join([*(str(v[i]) for v in columns.values()), s, "1", str(rng.normal()), str(rng.normal())]))
    (tmp_path / "index.csv").write_text("\n".join(lines) + "\n")
    return f"file:{tmp_path / 'index.csv'}"


def test_a_second_index_is_found_once_the_first_is_left_out(tmp_path):
    task = indexed(tmp_path, {"id": range(12), "number": range(100, 112)})
    with pytest.raises(UsageError, match=r"'id' counts the rows .*--drop-columns id, or keep every column .* none"):
        draw(task)
    with pytest.raises(UsageError, match=r"'number' .*--drop-columns id,number, or keep every other .* id,none"):
        draw(task, drop_columns="id")
    assert draw(task, drop_columns="id,number").x_source.shape == (4, 2)
    assert draw(task, drop_columns="id,none").x_source.shape == (4, 3)
    assert draw(task, drop_columns="none").x_source.shape == (4, 4)
    given = points()
    for name in ("x_source", "x_target", "x_test"):
        given[name] = np.column_stack([np.arange(len(given[name])), 3.0 * np.arange(len(given[name])), given[name]])
    archive = npz(tmp_path, **given)
    with pytest.raises(UsageError, match=r"'1' counts the rows .*--drop-columns 0,1, or keep .* 0,none"):
        draw(archive, drop_columns="0")
    assert draw(archive, drop_columns="0,none").x_source.shape == (8, 4)


UNNAMED = "x9"
SPREAD = [3, 9, 4, 1, 12, 7, 5, 2, 30, 11, 8, 6]


@pytest.mark.parametrize(
    ("name", "values", "sizes", "refused"),
    [
        (UNNAMED, [10 * i for i in (*range(4), *range(4), *range(4))], (4, 4, 4), True),  # each set counts anew
        (UNNAMED, [*(10 * i for i in range(12)), *SPREAD[:4]], (12, 2, 2), True),  # one set out of a file of its own
        (UNNAMED, [*(10 * i for i in np.random.default_rng(0).permutation(12)), *SPREAD[:4]], (12, 2, 2), True),
        (UNNAMED, [*(0.5 * i for i in range(12)), *SPREAD[:4]], (12, 2, 2), False),  # no whole numbers
        (UNNAMED, SPREAD, (4, 4, 4), False),
        (UNNAMED, [*(10 * i for i in range(6)), *SPREAD[:6]], (6, 3, 3), False),  # too short to tell
        (UNNAMED, range(6), (2, 2, 2), True),
        (UNNAMED, [5, 7, 9, 11, 13, 15], (2, 2, 2), False),  # a real input of a tiny file may be such
        (UNNAMED, [0, 1, 2, 3], (2, 1, 1), False),
        ("Id", [7, 3, 9, 12], (2, 1, 1), True),  # its name tells
        ("Id", [7, 3, 3, 12], (2, 1, 1), False),
    ],
)
def test_an_index_of_one_set_and_those_of_short_files(tmp_path, name, values, sizes, refused):
    task = indexed(tmp_path, {name: list(values)}, sizes)
    if refused:
        with pytest.raises(UsageError, match=f"'{name}' counts the rows"):
            draw(task)
    else:
        assert draw(task).x_source.shape == (sizes[0], 3)


@pytest.mark.parametrize("seed", range(30))
def test_inputs_that_are_no_index_are_taken_whatever_they_are(tmp_path, seed):
    """Whole numbers drawn at random, of few or many values, in files of 10 to 40 points."""
    rng = np.random.default_rng(seed)
    sizes = tuple(rng.integers(3, 14, 3) + 1)
    given = {"y_test": None}
    for name, n in zip(("source", "target", "test"), sizes, strict=True):
        given[f"x_{name}"] = np.column_stack([rng.integers(0, k, n) for k in (2, 5, 256, 10**6)] + [rng.normal(size=n)])
        if name != "test":
            given[f"y_{name}"] = rng.normal(size=n)
    assert draw(npz(tmp_path, **given), raw_inputs=False).x_source.shape == (sizes[0], 5)


def test_a_column_is_told_by_its_name_in_the_file_also_where_others_are_left_out(tmp_path):
    given = points(6)
    for name in ("x_source", "x_target", "x_test"):
        given[name][:, 4] *= 1e3
    for task, shown, drop in ((npz(tmp_path, **given), "4", "0,2"), (to_csv(tmp_path, given), "'x5'", "x1,x3")):
        for more in ({}, {"drop_columns": drop}):
            with pytest.raises(UsageError, match=f"input column {shown} has an rms of"):
                check_tasks(task, task, **NOTHING, raw_inputs=True, **more)
            (note,) = draw(task, **more).description["notes"]
            assert f"input column {shown} makes up" in note


def test_raw_inputs_of_a_wild_scale_are_refused_by_column(tmp_path):
    given = points(40)
    for name in ("x_source", "x_target", "x_test"):
        given[name][:, 7] *= 1e3
    task = npz(tmp_path, **given)
    with pytest.raises(UsageError, match=r"input column 7 has an rms of .*divide that column by its rms"):
        check_tasks(task, task, **NOTHING, raw_inputs=True)
    assert check_tasks(task, task, **NOTHING) == 40  # scaled point by point, it is allowed, and told
    (note,) = draw(task).description["notes"]
    assert re.match(r"data.npz: input column 7 makes up 99\.\d+ % of \|x\|\^2, so that networks hardly see", note)
    assert "notes" not in draw(npz(tmp_path, **points(40))).description
    task = npz(tmp_path, **{k: 100 * v for k, v in points().items() if k.startswith("x")})
    with pytest.raises(UsageError, match="divide the inputs by"):
        check_tasks(task, task, **NOTHING, raw_inputs=True)


def test_files_that_would_fill_the_memory_are_not_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_source.npy", b"\0" * 1000)
    content = (tmp_path / "bomb.npz").read_bytes()
    declared = (1000).to_bytes(4, "little")
    assert content.count(declared) >= 2
    (tmp_path / "bomb.npz").write_bytes(content.replace(declared, (3 << 30).to_bytes(4, "little")))
    with pytest.raises(UsageError, match="holds 3 GiB; a task file may hold 2 GiB"):
        load_file(f"file:{tmp_path / 'bomb.npz'}")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="no regular file"):
        load_file(f"file:{tmp_path / 'zero.csv'}")


def test_many_columns_are_read_in_linear_time(tmp_path):
    names = [f"c{i}" for i in range(50_000)]
    cells = ",".join(["0.5"] * len(names))
    text = "\n".join([",".join(["set", "y", *names]), *(f"{s},1,{cells}" for s in ("source", "target", "test"))])
    (tmp_path / "wide.csv").write_text(text + "\n")
    start = time.perf_counter()
    assert load_file(f"file:{tmp_path / 'wide.csv'}").dim == 50_000
    assert time.perf_counter() - start < 20  # a quadratic check takes a minute


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
        ({"extra": np.ones(5)}, "unknown array 'extra'; it must hold x_source"),
        ({"x_test": None}, "lacks the array 'x_test'"),
        ({"x_source": np.ones(8)}, r"x_source has shape \(8,\); it must be \(points, D\)"),
        ({"x_source": np.ones((8, 2, 2))}, r"x_source has shape \(8, 2, 2\)"),
        ({"x_target": np.ones((5, 4))}, "x_target has 4 columns and x_source 3"),
        ({"y_source": np.ones(7)}, r"y_source has shape \(7,\); x_source needs \(8,\)"),
        ({"y_source": np.ones((8, 1))}, r"y_source has shape \(8, 1\); x_source needs \(8,\): save y_source.ravel\(\)"),
        ({"y_source": np.ones((8, 2)), "y_test_source": np.ones(6)}, "a task has one number of outputs"),
        ({"y_source": np.ones((7, 2))}, r"needs \(8,\) or, of several outputs, as many rows"),
        ({"y_source": np.array([True, False] * 4)}, r"y_source has type bool.*save 2.0 \* y_source - 1.0"),
        (
            {"x_source": None, "y_source": None, "X_train": np.ones((8, 3)), "y_train": np.ones(8)},
            "unknown array 'X_train': rename X_train to x_source, y_train to y_source; a file holds both tasks",
        ),
        (
            {f"{letter}_{name}": None for letter in "xy" for name in ("source", "target", "test")}
            | {"X_train": np.ones((8, 3)), "trainLabels": np.ones(8), "x_val": np.ones((6, 3)), "y": np.ones(8)},
            "rename X_train to x_source or x_target, trainLabels to y_source or y_target, x_val to x_test, "
            "y to y_source or y_target;",
        ),
        ({"x_src": np.ones(5)}, r"unknown array 'x_src'; it must hold"),  # x_source is there
        ({"y_source": np.full(8, 1e10)}, r"y_source has an rms of 1e\+10; divide all labels"),
        (
            {
                "x_source": np.c_[np.arange(8.0), np.ones((8, 2))],
                "x_target": np.c_[np.arange(5.0), np.ones((5, 2))],
                "x_test": np.c_[np.arange(6.0), np.ones((6, 2))],
            },
            "column '0' counts the rows.*--drop-columns 0",
        ),
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
        ("split,y,x1\n", r"lacks the column 'set' \(rename 'split' to 'set'\)"),
        ("set,Label,x1\n", r"lacks the column 'y' \(rename 'Label' to 'y'\)"),
        (HEAD + "train,1,2,3\n", r"line 2: set is 'train' \(write source for the points of the first task"),
        ("sett,y,x1\n", r"lacks the column 'set' \(did you mean 'sett'\?\)"),
        ("set;y;x1\n", "with commas"),
        ("set,x1,x2\n", "lacks the column 'y'"),
        ("set,y,x1,x1\n", "the column 'x1' stands twice"),
        ("set,y\n", "no input column"),
        (HEAD + "source,1,2\n", r"data\.csv, line 2: 3 values, but the header names 4 columns"),
        (HEAD + "sorce,1,2,3\n", r"line 2: set is 'sorce' \(did you mean 'source'\?\)"),
        (HEAD + GOOD + "source,1,a,3\n", "line 5: x1 is 'a'; it must be a number"),
        (HEAD + GOOD + "source,1,1_000,3\n", "line 5: x1 is '1_000'; it must be a number"),
        (HEAD + GOOD + "source,1,\u0661\u0662,3\n", "line 5: x1 is '\u0661\u0662'; it must be a number"),
        (HEAD + GOOD + "source,1,1e400,3\n", "line 5: x1 is 1e400, beyond the largest number"),
        (",set,y,x1\n0,source,1,2\n", 'the column .Unnamed: 0. has no name.*--drop-columns "Unnamed: 0"'),
        ("Unnamed: 0,set,y,x1\n0,source,1,2\n", "--drop-columns none"),
        (
            "id,set,y,x1\n" + "".join(f"{i},{s},1,{i * 0.3}\n" for i, s in enumerate(["source", "target", "test"] * 2)),
            "the column 'id' counts the rows",
        ),
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
    (tmp_path / "folder.npz").mkdir()
    np.save(tmp_path / "one.npy", np.ones(3))
    (tmp_path / "one.npz").write_bytes((tmp_path / "one.npy").read_bytes())
    for name, message in (
        ("text.npz", "Cannot read"),
        ("empty.npz", "Cannot read"),
        ("half.npz", "Cannot read"),
        ("latin.csv", "Cannot read"),
        ("none.npz", "Cannot read .*No such file"),
        ("data.txt", r"ends in '.txt'; it must be .npz or .csv"),
        ("one.npz", "single array"),
        ("", "ends in ''"),
        ("folder.npz", "no regular file"),
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


@pytest.mark.parametrize("name", ["x_source", "x_target", "x_test", "y_source", "y_target", "y_test"])
@pytest.mark.parametrize("value", [np.inf, 1e300, -1e300])
@pytest.mark.parametrize("write", [npz, lambda folder, **arrays: to_csv(folder, points() | arrays)])
def test_numbers_near_the_end_of_all_are_refused_without_a_warning(tmp_path, recwarn, name, value, write):
    array = points()[name]
    array.flat[-1] = value
    with pytest.raises(UsageError, match=r"inf|has an rms of|holds a value of 1e\+300"):
        draw(write(tmp_path, **{name: array}), raw_inputs=True)
    assert not recwarn.list
