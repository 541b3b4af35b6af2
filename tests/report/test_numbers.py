"""Numbers in sentences and on figures, places of 0 and infinity on an axis, and where one had better stop."""

import math

import numpy as np
import pytest

from tlcli.errors import counted
from tlcli.report.ends import ends_of, ends_of_grids, ticks_of
from tlcli.report.numbers import number, rows, span, with_error
from tlcli.report.records import early_stop
from tlcli.report.style import MAX_FACETS, facet_title, finite_axis, marker_of, palette
from tlcli.report.style import number as drawn


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.123"),
        (999.4, "999"),
        (999.6, "1000"),
        (123456.7, "123457"),
        (999999.6, "1e+06"),
        (-0.00012345, "-0.000123"),
        (math.inf, "inf"),
    ],
)
def test_numbers_of_sentences(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.123456, 0.0123, "0.123 ± 0.012"),
        (12.3456, 1.2, "12.3 ± 1.2"),
        (1234.5, 120.0, "1234 ± 120"),
        (0.5, math.nan, "0.5"),
        (0.5, 0.0, "0.5"),
        (1e-9, 1.2e-10, "1e-09 ± 1.2e-10"),
        (0.0, 1e-9, "0 ± 1e-09"),
    ],
)
def test_values_are_said_to_the_second_digit_of_their_error(value, error, text):
    assert with_error(value, error) == text


def test_spans_and_counts():
    assert span([0.3, np.nan, 0.1]) == "0.1 to 0.3"
    assert span([0.3, 0.3]) == "0.3"
    assert [rows(1), rows(2), counted(1, "net"), counted(0, "net")] == ["1 row", "2 rows", "1 net", "0 nets"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.1235"), (-3, "\N{MINUS SIGN}3"), (1e-6, "$10^{-6}$"), (2.5e7, r"$2.5\times10^{7}$"), ("mse", "mse")],
)
def test_numbers_of_figures(value, text):
    assert drawn(value) == text


def test_infinity_of_figures_has_its_sign():
    assert [drawn(math.inf), drawn(-math.inf)] == [r"$\infty$", r"$-\infty$"]


def test_curves_and_points_are_told_apart():
    for count in (1, 5, 6, MAX_FACETS):
        assert len({tuple(np.atleast_1d(colour)) for colour in palette(count)}) == count
    markers = [marker_of("network", turn) for turn in range(4)]
    assert len(set(markers)) == 4
    assert marker_of("population") != marker_of("regression")


def test_headings_and_axes():
    assert facet_title("case", {}) == "case"
    assert facet_title("case", {"stage": 2}) == "case\nstage 2"
    assert facet_title(None, {"stage": 2, "task": 1}) == "stage 2, task 1"
    values = np.array([-1.0, 0.0, 2.0, np.inf, np.nan])
    assert finite_axis(values, log=False).tolist() == [True, True, True, False, False]
    assert finite_axis(values, log=True).tolist() == [False, False, True, False, False]


def test_zero_and_infinity_stand_beyond_a_gap():
    ends = ends_of(np.array([0.0, 0.1, 1.0, 10.0, np.inf]))
    assert ends is not None
    assert ends.zero is not None
    assert ends.infinity is not None
    at = ends.place([0.0, 1e-9, 0.1, 10.0, 1e9, np.inf])
    assert np.all(np.diff(at) > 0), "what is nearer to an end than its gap stays on its side"
    assert at[2] / at[0] >= 2.5
    assert at[5] / at[3] >= 2.5
    assert ends_of(np.array([1.0, 2.0, 3.0])) is None, "a linear axis will do"
    bare = ends_of(np.array([0.0, np.inf]))
    assert bare is not None
    assert bare.bare


def test_a_narrow_grid_beside_infinity_is_not_squeezed_into_one_place():
    ends = ends_of_grids([np.array([0.99, 1.0, 1.01, np.inf])])
    assert not ends.log
    places = ends.place(np.array([0.99, 1.01, np.inf]))
    assert (places[1] - places[0]) / (places[2] - places[0]) > 0.5


def test_zero_has_a_place_beside_geometric_grids_and_infinity_beside_all():
    grid = np.geomspace(0.1, 10, 5)
    assert ends_of_grids([grid]) is None
    found = ends_of_grids([np.append(grid, np.inf)])
    assert found is not None
    assert (found.zero, found.infinity is not None) == (None, True)
    linear = ends_of_grids([np.append(np.linspace(0, 4, 5), np.inf)])
    assert linear is not None
    assert not linear.log
    np.testing.assert_allclose(linear.place([0, 4, 4.9, np.inf]), [0, 4, 4.5, 5])
    assert ticks_of(linear) == {0: "0", 1: "1", 2: "2", 3: "3", 4: "4", 5: r"$\infty$"}
    assert ends_of_grids([np.linspace(0, 4, 5)]) is None


@pytest.mark.parametrize(
    ("losses", "errors", "best"),
    [
        ([1.0, 0.5, 0.8], [0.01] * 3, 1),
        ([1.0, 0.5, 0.8], [0.2] * 3, None),
        ([1.0, 0.5, 0.8], [np.nan] * 3, 1),
        ([1.0, 0.8, 0.5], [0.0] * 3, None),
        ([np.nan] * 3, [0.0] * 3, None),
        ([np.nan, 0.2, 0.8], [0.1] * 3, 1),
    ],
)
def test_stopping_early_must_be_better_by_two_errors(losses, errors, best):
    assert early_stop(np.array(losses), np.array(errors)) == best
