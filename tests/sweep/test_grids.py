"""Grids: every spelling, every refusal, and the order of the points."""

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcli.errors import UsageError
from tlcli.sweep.grids import Grid, Values, format_values, parse_values

finite = st.floats(-1e6, 1e6)
positive = st.floats(1e-6, 1e6)


@pytest.mark.parametrize(
    ("value", "expected", "scale"),
    [
        ("0.5", [0.5], "list"),
        (0.5, [0.5], "list"),
        (3, [3.0], "list"),
        (np.float64(2), [2.0], "list"),
        ("inf", [math.inf], "list"),
        (math.inf, [math.inf], "list"),
        (" -1e-3 , 1e3,.5 , +2., .inf", [-1e-3, 1e3, 0.5, 2.0, math.inf], "list"),
        ("0.1,0.5,inf", [0.1, 0.5, math.inf], "list"),
        ("0:1:3", [0, 0.5, 1], "linear"),
        ("1:0:3", [1, 0.5, 0], "linear"),
        ("-1:1:3", [-1, 0, 1], "linear"),
        ("log:1:100:3", [1, 10, 100], "log"),
        ("LOG: 100 : 1 : 3", [100, 10, 1], "log"),
        ("2:3:1", [2], "list"),
        ("2:2:1", [2], "list"),
        ("0,log:1:100:3,inf", [0, 1, 10, 100, math.inf], "list"),
        ([1, "2.5", "log:10:1000:3"], [1, 2.5, 10, 100, 1000], "list"),
        (["0:1:3"], [0, 0.5, 1], "linear"),
        ((1, 2), [1, 2], "list"),
    ],
)
def test_spellings(value, expected, scale):
    values = parse_values(value)
    np.testing.assert_allclose(values.array, expected, rtol=1e-14)
    assert values.array.dtype == np.float64
    assert values.scale == scale


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (
            "0.1:2",
            "is not a grid; use a number, a list 0.1,0.5,inf, START:STOP:COUNT or log:START:STOP:COUNT.",
        ),
        ("0.1:2:3:4", "is not a grid"),
        ("lin:0.1:2:3", "is not a grid"),
        ("log:1:2", "is not a grid"),
        ("", "is not a grid"),
        ("1,,2", "is not a grid"),
        ("a", "is not a grid"),
        ("1_0", "is not a grid"),
        ("٣", "is not a grid"),
        (True, "is not a grid"),
        (None, "is not a grid"),
        ([[1]], "is not a grid"),
        ({"a": 1}, "is not a grid"),
        ([], "holds no value"),
        ("nan", "is not a number"),
        (math.nan, "is not a number"),
        ([1, math.nan], "is not a number"),
        ("nan:1:3", "is not a number"),
        ("1e999", "too large"),
        (10**400, "too large"),
        ("0:1:0", "whole number from 1"),
        ("0:1:-3", "whole number from 1"),
        ("0:1:2.5", "whole number from 1"),
        ("0:1:1e3", "whole number from 1"),
        ("0:1:10000001", "whole number from 1"),
        ("0:1:" + "9" * 5000, "whole number from 1"),
        ("0:inf:3", "finite ends"),
        ("-1e308:1e308:3", "finite ends"),
        ("log:0:1:3", "both ends above 0"),
        ("log:-2:-1:3", "both ends above 0"),
        ("1:1:2", "equal ends"),
        ("0.1,0.5,0.1", "holds 0.1 twice"),
        ("0,-0.0", "holds 0 twice"),
        ("0:1:3,1", "holds 1 twice"),
        ([1, 1.0], "holds 1 twice"),
        ("inf,inf", "holds inf twice"),
    ],
)
def test_refusals_name_the_parameter_and_show_the_value(value, part):
    with pytest.raises(UsageError) as caught:
        parse_values(value, "rho")
    message = str(caught.value)
    assert message.startswith("rho: ")
    assert part in message
    assert "\n" not in message
    assert len(message) < 250


def test_the_message_shows_the_bad_value():
    with pytest.raises(UsageError, match=r"^alpha1: '0\.1:2' is not a grid; use "):
        parse_values("0.1:2")


@given(first=st.integers(-999, 999), step=st.integers(1, 999), count=st.integers(2, 60), places=st.integers(0, 4))
def test_linear_grids_are_the_decimals_that_one_would_write(first, step, count, places):
    def text(number):
        return str(Decimal(number).scaleb(-places))

    values = parse_values(f"{text(first)}:{text(first + step * (count - 1))}:{count}")
    assert values.array.tolist() == [float(text(first + step * i)) for i in range(count)]


@given(low=st.integers(-6, 3), decades=st.integers(1, 6), per=st.integers(1, 9))
def test_log_grids_hold_their_round_values(low, decades, per):
    values = parse_values(f"log:1e{low}:1e{low + decades}:{decades * per + 1}")
    assert values.array[::per].tolist() == [float(f"1e{low + i}") for i in range(decades + 1)]


def test_log_grids_of_whole_ratios_are_the_decimals_that_one_would_write():
    rng = np.random.default_rng(1)
    for _ in range(1000):
        first = Decimal(int(rng.integers(1, 50))).scaleb(int(rng.integers(-12, 6)))
        ratio, count = int(rng.integers(2, 11)), int(rng.integers(2, 8))
        values = parse_values(f"log:{first}:{first * ratio ** (count - 1)}:{count}")
        assert values.array.tolist() == [float(first * ratio**i) for i in range(count)]
        assert parse_values(format_values(values)).array.tolist() == values.array.tolist()


def test_grids_hold_what_a_person_looks_for():
    for text, wanted in (("0.1:2:20", (0.8, 1.0)), ("0.05:2:40", (0.15, 1.0)), ("log:10:640:4", (40.0, 160.0))):
        array = parse_values(text).array
        assert set(wanted) <= set(array.tolist())
    # numpy's own grid has 0.7999999999999999 and 0.9999999999999999
    assert 1.0 not in np.linspace(0.1, 2, 20)


@given(start=finite, stop=finite, count=st.integers(2, 50))
def test_linear_grids_hold_both_ends_exactly(start, stop, count):
    if abs(stop - start) < 1e-3:
        return
    values = parse_values(f"{start!r}:{stop!r}:{count}")
    assert values.size == count
    assert (values.array[0], values.array[-1]) == (start, stop)
    np.testing.assert_allclose(np.diff(values.array), (stop - start) / (count - 1), rtol=1e-6)
    assert not np.signbit(values.array[values.array == 0]).any()


@given(start=positive, stop=positive, count=st.integers(2, 50))
def test_log_grids_hold_both_ends_exactly(start, stop, count):
    if abs(math.log(stop / start)) < 1e-3:
        return
    values = parse_values(f"log:{start!r}:{stop!r}:{count}")
    assert (values.array[0], values.array[-1]) == (start, stop)
    np.testing.assert_allclose(np.diff(np.log(values.array)), math.log(stop / start) / (count - 1), rtol=1e-6)


any_values = st.one_of(
    st.lists(st.floats(allow_nan=False), min_size=1, max_size=8, unique=True),
    st.builds("{}:{}:{}".format, st.integers(-9, 0), st.floats(0.1, 9), st.integers(2, 30)),
    st.builds("log:{}:{}:{}".format, st.floats(1e-9, 0.5), st.floats(1, 1e9), st.integers(2, 30)),
)


@given(any_values)
def test_format_round_trips(value):
    values = parse_values(value)
    again = parse_values(format_values(values))
    assert again.array.tobytes() == values.array.tobytes()
    assert again.scale == values.scale


@pytest.mark.parametrize("text", ["0.1:2:40", "log:0.1:10:20", "0.1,0.5,inf", "3"])
def test_format_is_short(text):
    assert format_values(parse_values(text)) == text


def test_values_made_by_hand_are_not_taken_for_a_grid():
    values = Values(np.array([0.0, 0.1, 1.0]), "linear")
    assert parse_values(format_values(values)).array.tolist() == [0.0, 0.1, 1.0]


def test_values_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        parse_values("0:1:3").array[0] = 7


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_grid_sizes_order_and_open_arrays_agree(counts):
    grid = Grid.from_mapping({f"p{i}": parse_values(list(range(n))) for i, n in enumerate(counts)})
    assert grid.shape == tuple(n for n in counts if n > 1)
    assert grid.size == math.prod(counts)
    assert grid.axes == tuple(f"p{i}" for i, n in enumerate(counts) if n > 1)
    points = list(grid.points())
    assert len(points) == grid.size
    opened = grid.open()
    assert all(array.ndim == len(grid.shape) for array in opened.values())
    for name, array in opened.items():
        assert np.broadcast_to(array, grid.shape).ravel().tolist() == [point[name] for point in points]


def test_first_axis_is_slowest_and_scalars_are_in_every_point():
    grid = Grid.from_mapping({"a": parse_values("1,2"), "s": 5, "b": parse_values("3,4")})
    assert [tuple(point.values()) for point in grid.points()] == [(1, 5, 3), (1, 5, 4), (2, 5, 3), (2, 5, 4)]
    assert grid.open()["s"].shape == (1, 1)
    assert all(type(number) is float for point in grid.points() for number in point.values())


def test_too_many_points_are_refused_before_they_are_made():
    values = parse_values("0:1:10000")
    with pytest.raises(UsageError, match=r"10000 x 10000 = 100000000 points; at most 50000000"):
        Grid.from_mapping({"a": values, "b": values})


def test_long_lists_are_read_as_short_ones_are():
    numbers = np.random.default_rng(0).random(1000).tolist()
    found = parse_values(numbers)
    assert found.array.tolist() == numbers
    assert found.scale == "list"
    assert parse_values([float(n) + 1e-12 for n in range(1, 300)], "p2", whole=True).array.tolist() == [*range(1, 300)]
    for bad, words in (
        ([*numbers, math.nan], "is not a number"),
        ([*numbers, numbers[7]], "twice"),
        ([*numbers, "a"], "grid"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            parse_values(bad)
        assert len(str(caught.value)) < 250
