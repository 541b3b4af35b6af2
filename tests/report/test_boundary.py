"""The zero line of a map: what is joined, and what sampled gains tell."""

from itertools import pairwise

import numpy as np

from tlcli.report.boundary import between, sides, signs, told, traced


def crossings(gain, x, y):
    """Roots of gain(x, y) on the lines of the grid, by bisection, in random order."""
    found = []
    for lines, others, swap in ((x, y, False), (y, x, True)):
        for other in others:
            for low, high in pairwise(lines):

                def f(t, other=other, swap=swap):
                    return gain(other, t) if swap else gain(t, other)

                if f(low) * f(high) < 0:
                    for _ in range(60):
                        middle = (low + high) / 2
                        low, high = (middle, high) if f(low) * f(middle) > 0 else (low, middle)
                    found.append((other, low) if swap else (low, other))
    return np.random.default_rng(0).permutation(np.array(found))


def everywhere(x, y):
    return np.ones((len(x) - 1, len(y) - 1), dtype=bool)


def test_branches_that_come_near_each_other_stay_apart():
    x = y = np.linspace(-1, 1, 21)
    # A hyperbola: its branches are 0.2 apart, two squares.
    points = crossings(lambda a, b: a * b - 0.0123, x, y)
    found = traced(points, x, y, (False, False), everywhere(x, y))
    assert len(found) == 2
    assert sorted(len(line) for line in found) == sorted([len(points) // 2, len(points) - len(points) // 2])
    for line in found:
        assert len({*np.sign(line[:, 0])}) == 1, "one branch"
        assert np.abs(np.diff(line, axis=0)).max() <= 0.1 + 1e-9, "no longer than a square"


def test_a_closed_curve_is_a_ring_and_logarithms_are_straight():
    x, y = np.linspace(-1, 1, 18), np.geomspace(0.1, 10, 18)
    points = crossings(lambda a, b: a**2 + np.log10(b) ** 2 - 0.5, x, y)
    (ring,) = traced(points, x, y, (False, True), everywhere(x, y))
    np.testing.assert_array_equal(ring[0], ring[-1])
    assert len(ring) == len(points) + 1


def test_nothing_is_joined_across_a_closed_square():
    x = y = np.linspace(0, 1, 11)
    points = crossings(lambda a, b: b - 0.512, x, y)
    whole = everywhere(x, y)
    (line,) = traced(points, x, y, (False, False), whole)
    assert len(line) == 11
    whole[5] = False
    assert sorted(len(part) for part in traced(points, x, y, (False, False), whole)) == [5, 6]
    assert traced(np.empty((0, 2)), x, y, (False, False), whole) == []


def test_a_point_given_twice_is_one():
    x = y = np.linspace(0, 1, 6)
    points = crossings(lambda a, b: b - 0.51, x, y)
    (line,) = traced(np.concatenate([points, points + 1e-12]), x, y, (False, False), everywhere(x, y))
    assert len(line) == 6


def test_gains_within_two_errors_have_no_sign_and_no_line():
    gain, error = np.array([[0.3, 0.1, -0.3], [0.3, -0.3, np.nan]]), np.full((2, 3), 0.06)
    sign = signs(gain, error)
    assert sign.tolist() == [[1, 0, -1], [1, -1, 0]]
    edges = np.arange(3.0), np.arange(4.0)
    (side,) = sides(sign, *edges)
    np.testing.assert_array_equal(side, [[1, 1], [2, 1]])
    assert signs(gain, None).tolist() == [[1, 1, -1], [1, -1, 0]]


def zeros_of(gain, x, y):
    """Zeros of the linear interpolant along both axes of a grid."""
    found = []
    for table, lines, others, swap in ((gain, x, y, True), (gain.T, y, x, False)):
        for i, j in zip(*np.nonzero(table[:, :-1] * table[:, 1:] < 0), strict=True):
            part = table[i, j] / (table[i, j] - table[i, j + 1])
            at = others[j] + part * (others[j + 1] - others[j])
            found.append((lines[i], at) if swap else (at, lines[i]))
    return np.array(found)


def test_a_zero_between_cells_that_are_sure_is_a_line_in_its_band():
    """gain = x - y, whose error leaves a band of three cells: its line is the diagonal where both sides are sure."""
    x = y = np.linspace(1.0, 2.0, 11)
    gain = x[:, None] - y[None, :] + 0.03
    points = zeros_of(gain, x, y)
    sign = signs(gain, np.full(gain.shape, 0.08))
    sure = told(points, gain, sign, x, y)
    (line,) = (part for part in traced(points, x, y, (False, False), everywhere(x, y)) if len(part) > 2)
    (kept,) = between(line, points, sure)
    np.testing.assert_allclose(kept[:, 1] - kept[:, 0], 0.03, atol=1e-12)
    assert 10 < len(kept) < len(line), "at the corners the map ends before a side is sure"
    assert not told(points, gain, signs(gain, np.full(gain.shape, 9.0)), x, y).any(), "nothing is known"


def test_zeros_of_noise_make_no_line():
    """A gain of nothing but noise, and one with noise between its sides, where it has three zeros a line."""
    x = y = np.linspace(1.0, 2.0, 12)
    noise = np.random.default_rng(0).standard_normal((12, 12))
    points = zeros_of(noise, x, y)
    assert len(points) > 50
    assert not told(points, noise, signs(noise, np.full(noise.shape, 3.0)), x, y).any()
    gain = np.array([[1.0, 0.02, -0.02, 0.02, -1.0], [1.0, 0.02, 0.02, -0.02, -1.0], [1.0, 0.02, -0.02, 0.02, 1.0]])
    along = np.arange(1.0, 6.0)
    rows = np.arange(1.0, 4.0)
    points = zeros_of(gain, rows, along)
    sure = told(points, gain, signs(gain, np.full(gain.shape, 0.05)), rows, along)
    np.testing.assert_allclose(points[sure], [[2.0, 3.5], [2.5, 5.0]])  # the second between -1 and 1 of the last column


def test_a_line_is_cut_where_its_points_are_noise():
    points = np.column_stack([np.arange(6.0), np.arange(6.0)])
    parts = between(points[::-1], points, np.array([True, True, False, True, False, False]))
    assert [part[:, 0].tolist() for part in parts] == [[3.0], [1.0, 0.0]]
    assert between(points, points, np.zeros(6, dtype=bool)) == []
