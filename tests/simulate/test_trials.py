import numpy as np
import pytest

from tlcli.errors import UsageError
from tlcli.simulate.trials import run_trials, samples_of, summarise, trial_rng, unit_vector


def test_streams_are_independent_of_order_and_distinct():
    a = [trial_rng(7, i).standard_normal(3) for i in range(4)]
    b = [trial_rng(7, i).standard_normal(3) for i in reversed(range(4))][::-1]
    np.testing.assert_array_equal(a, b)
    assert len({x[0] for x in a} | {trial_rng(8, 0).standard_normal()}) == 5


def test_more_trials_extend_fewer():
    few = run_trials(lambda rng: {"x": rng.random()}, 2, 0)
    many = run_trials(lambda rng: {"x": rng.random()}, 4, 0)
    draws = [trial_rng(0, i).random() for i in range(4)]
    assert few["x"].mean == pytest.approx(np.mean(draws[:2]))
    assert many["x"].se == pytest.approx(np.std(draws, ddof=1) / 2)


def test_summaries():
    mean, se = summarise(np.arange(12.0).reshape(4, 3))
    np.testing.assert_allclose(mean, [4.5, 5.5, 6.5])
    np.testing.assert_allclose(se, np.std([0, 3, 6, 9], ddof=1) / 2)
    assert np.isnan(summarise(np.ones(1)).se)
    with pytest.raises(UsageError, match="trials = 0"):
        run_trials(lambda rng: {}, 0, 0)


def test_helpers():
    rng = np.random.default_rng(0)
    e = np.eye(5)
    v = unit_vector(rng, 5, e[0], e[1])
    np.testing.assert_allclose([v[0], v[1], v @ v], [0, 0, 1], atol=1e-15)
    assert samples_of(np.inf, 10) is None
    assert samples_of(0.26, 10) == 3
