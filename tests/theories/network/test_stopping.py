"""The least loss of a target, when it is reached, and what training on costs."""

import numpy as np
import pytest

from tlcli.theories.network.stopping import best_of

STAGE = np.array([1, 1, 2, 2, 2, 2])
TIME = np.array([0.0, 5.0, 0.0, 1.0, 2.0, 3.0])
DRAWS = np.array([[9.0, 0.1, 0.9, 0.5, 0.3, 0.40], [9.0, 0.1, 0.9, 0.6, 0.5, 0.62], [9.0, 0.1, 0.9, 0.4, 0.1, 0.20]])


def columns(draws=DRAWS):
    errors = np.array([0.9, 0.8, 0.04, 0.03, 0.02, 0.01])
    return {"loss": draws.mean(axis=0), "loss_se": errors, "loss_test_se": 3 * errors, "loss_draw_se": 10 * errors}


def test_the_least_loss_of_the_target_stage_has_the_errors_of_that_time():
    found = best_of({**columns(), "overfitting_test_se": TIME / 10}, STAGE, TIME, DRAWS)
    errors = {"best_loss_se": 0.02, "best_loss_test_se": 0.06, "best_loss_draw_se": 0.2, "overfitting_test_se": 0.2}
    for name, value in {"best_time": 2.0, "best_loss": 0.3, **errors}.items():
        np.testing.assert_allclose(found[name], [np.nan, np.nan, *[value] * 4], err_msg=name)  # 0.1 is the source's


def test_what_training_on_costs_is_paired_over_draws():
    """Draws differ by 0.2, what is lost between two times by 0.01."""
    found = best_of(columns(), STAGE, TIME, DRAWS)
    each = DRAWS[:, 5] - DRAWS[:, 4]
    assert found["overfitting"][-1] == pytest.approx(each.mean())
    assert found["overfitting_draw_se"][-1] == pytest.approx(each.std(ddof=1) / np.sqrt(3))
    unpaired = np.hypot(*DRAWS[:, 4:].std(axis=0, ddof=1)) / np.sqrt(3)
    assert found["overfitting_draw_se"][-1] < unpaired / 5
    assert "overfitting_draw_se" not in best_of(columns(), STAGE, TIME, DRAWS[:1])


def test_a_loss_that_falls_to_the_end_costs_nothing_and_an_unknown_one_has_no_best_time():
    falling = best_of({"loss": np.arange(6.0, 0.0, -1.0), "loss_se": np.ones(6)}, STAGE, TIME)
    assert falling["best_time"][-1] == 3.0
    assert falling["overfitting"][-1] == 0.0
    unknown = best_of({"loss": np.full(6, np.nan), "loss_se": np.full(6, np.nan)}, STAGE, TIME)
    assert all(np.isnan(values).all() for values in unknown.values())
