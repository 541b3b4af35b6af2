"""Values without bias and errors that cover: jackknife, few repeats, half of the repeats, time."""

import numpy as np
import pytest

from tlcli.dmft.estimates import Piece, averaged, estimate, jackknife, pieces_of, small_sample, spread_of, time_change


def first(parts):
    return parts[0]


def test_the_error_of_a_mean_is_the_spread_widened_for_few_repeats():
    samples = np.random.default_rng(0).standard_normal((9, 5))
    value, error = estimate([averaged(samples)], first)
    np.testing.assert_allclose(value, samples.mean(axis=0))
    np.testing.assert_allclose(error, small_sample(9) * samples.std(axis=0, ddof=1) / 3)
    np.testing.assert_allclose(spread_of(samples, None, None), error)


def test_jackknife_of_a_square():
    """Delta method: the error of the squared mean is 2 |mean| times that of the mean."""
    samples = 5 + 0.01 * np.random.default_rng(0).standard_normal((50, 1))
    _, error = estimate([averaged(samples)], lambda parts: parts[0] ** 2)
    wanted = 2 * samples.mean() * samples.std(ddof=1) / np.sqrt(50)
    assert error[0] == pytest.approx(small_sample(50) * wanted, rel=1e-3)
    assert jackknife(np.full((4, 2), 3.0)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("repeats", [2, 4, 8])
def test_twice_the_error_covers_as_often_as_two_sigma(repeats):
    """95.4 % of 20000 means of few Gaussians; without the factor for few repeats far fewer."""
    samples = np.random.default_rng(repeats).standard_normal((repeats, 20_000))
    value, error = estimate([averaged(samples)], first)
    assert np.mean(np.abs(value) <= 2 * error) == pytest.approx(0.9545, abs=0.006)  # 4 standard errors
    assert np.mean(np.abs(value) <= 2 * error / small_sample(repeats)) < 0.93


def test_a_loss_is_without_the_variance_of_the_mean_output():
    """E (mean f)^2 = mean^2 + var/n: the jackknife takes var/n off exactly, in the mean over many trials."""
    rng = np.random.default_rng(1)
    trials = 0.5 + rng.standard_normal((4, 4000))
    value, _ = estimate([averaged(trials)], lambda parts: parts[0] ** 2)
    plain = trials.mean(axis=0) ** 2
    error = value.std() / np.sqrt(4000)
    assert abs(value.mean() - 0.25) < 4 * error
    assert abs(plain.mean() - 0.25) > 10 * error


@pytest.mark.parametrize("repeats", [2, 3, 4, 5, 8])
def test_what_the_jackknife_leaves_of_a_bias_is_in_the_error(repeats):
    """Repeats that agree, and a function with a bias in the number N of those that are averaged: 1 + b/N + c/N^2."""
    counts = iter([repeats, *[repeats - 1] * repeats, repeats // 2, repeats - repeats // 2])

    def biased(mean):
        n = next(counts)
        return mean + 0.3 / n + 0.1 / n**2

    value, error = estimate([pieces_of(np.ones((repeats, 1)), biased)], first)
    assert abs(value[0] - 1) < 0.3 / repeats / 2
    assert abs(value[0] - 1) <= 1.001 * error[0]


def test_one_random_repeat_has_no_error():
    value, error = estimate([averaged(np.ones((1, 3)))], first)
    assert value.tolist() == [1.0, 1.0, 1.0]
    assert np.all(np.isnan(error))


def test_a_rule_is_compared_with_coarser_ones():
    exact = Piece(np.ones(2))
    piece = averaged(np.full((1, 2), 3.0), np.array([[2.5, 3.25], [2.75, 2.0]]))
    value, error = estimate([piece, exact], lambda parts: parts[0] * parts[1])
    assert value.tolist() == [3.0, 3.0]
    assert error.tolist() == [0.5, 1.0], "the worst of the rules"


def test_what_is_exact_has_no_error_beside_what_is_sampled():
    sampled = averaged(np.random.default_rng(0).standard_normal((4, 3)))
    exact = Piece(np.zeros(3))
    assert np.all(estimate([exact, sampled], first)[1] == 0)
    np.testing.assert_allclose(
        estimate([exact, sampled], lambda f: f[1] - f[0])[1], estimate([sampled], first)[1], rtol=1e-12
    )
    assert np.all(estimate([exact], first)[1] == 0)


def test_the_error_in_time_is_part_of_the_error():
    samples, retimed = np.ones((4, 2)), np.array([[1.0, 1.0], [1.1, 0.7]])
    piece = averaged(samples, retimed=retimed)
    np.testing.assert_allclose(estimate([piece], first)[1], [0.1, 0.3])
    np.testing.assert_allclose(time_change([piece], lambda parts: parts[0] ** 2), [0.21, 0.51])
    assert np.all(time_change([averaged(samples)], first) == 0)
    np.testing.assert_allclose(spread_of(samples, None, retimed), [0.1, 0.3])
