"""The zero line of a map: what is joined, and what sampled gains tell."""

from itertools import pairwise

import numpy as np

from tlcli.report.boundary import sides, signs, traced


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
