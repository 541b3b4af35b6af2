"""The verdict says what the numbers of its table say, and no more."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tlcli.report.numbers import number, span, with_error
from tlcli.report.tables import Block
from tlcli.report.verdict import Beside, verdict
from tlcli.status import Phase, Status


def block(axes=None, label=None, **columns):
    columns = {name: np.asarray(values) for name, values in columns.items()}
    return Block({name: np.array(v, dtype=float) for name, v in (axes or {}).items()}, columns, {}, label)


def gains(loss, baseline, **more):
    loss, baseline = np.asarray(loss, dtype=float), np.asarray(baseline, dtype=float)
    return {"loss": loss, "baseline": baseline, "gain": baseline - loss, **more}


def test_a_point_gives_both_losses_and_what_they_mean():
    one = block(**gains(0.3264, 0.6, phase=Phase.POSITIVE, status=Status.CONVERGED))
    assert verdict([one]) == "loss 0.326 (no pre-training 0.6): pre-training helps, gain 0.274"


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        (Phase.NEGATIVE, "pre-training hurts, gain -0.1"),
        (Phase.NEUTRAL, "pre-training makes no difference, gain -0.1"),
        (Phase.COLLAPSED, "pre-training leaves no feature under this weight decay"),
        (Phase.UNKNOWN, "pre-training has an effect that is not known"),
    ],
)
def test_the_phase_decides_what_is_said(phase, words):
    one = block(**gains(0.6, 0.5, phase=phase, status=Status.CONVERGED))
    assert verdict([one]).endswith(words)


def test_errors_are_those_over_draws_where_there_are_several():
    one = block(**gains(0.4, 0.5, phase=Phase.NEUTRAL), gain_se=0.01, gain_draw_se=0.0712, loss_se=0.02, draws=4)
    assert verdict([one]) == (
        "loss 0.400 ± 0.020 (no pre-training 0.5): pre-training makes no difference, gain 0.100 ± 0.071 over 4 draws "
        "of the data"
    )


def test_errors_of_networks_are_told_by_their_origin():
    """Of 0.03 by the neurons and 0.04 by the test points the gain has the error 0.05, and is none."""
    errors = {"loss_se": 0.03, "loss_test_se": 0.4, "gain_se": 0.03, "gain_test_se": 0.04}
    said = "loss 0.41 ± 0.40 (no pre-training 0.5): pre-training makes no difference, gain 0.090 ± 0.050"
    assert verdict([block(**gains(0.41, 0.5), **errors)]) == f"{said} (0.03 by the neurons, 0.04 by the test points)"
    exact = verdict([block(**gains(0.41, 0.5), **{**errors, "gain_se": 0.0})])
    assert exact.endswith("pre-training helps, gain 0.090 ± 0.040 by the test points")
    grid = block({"p2": [1, 2]}, **gains([0.3, 0.45], 0.5), gain_se=np.full(2, 0.03), gain_test_se=np.full(2, 0.04))
    assert "; gain 0.200 ± 0.050 (p2 = 1); errors by neurons and test points" in verdict([grid])
    none = block({"p2": [1, 2]}, **gains([0.49, 0.53], 0.5), gain_se=np.full(2, 0.03), gain_test_se=np.full(2, 0.04))
    assert verdict([none]) == (
        "pre-training makes no difference at either of 2 points; the gain largest in size is -0.030 ± 0.050 (p2 = 2); "
        "errors by neurons and test points"
    )
    over = block({"p2": [1, 2]}, **gains([0.3, 0.45], 0.5), gain_draw_se=np.full(2, 0.03), draws=8)
    assert "; errors over 8 draws of the data" in verdict([over])
    source = block(source_loss=0.5, source_loss_se=0.03, source_loss_test_se=0.04)
    assert verdict([source]) == "source loss 0.500 ± 0.050 (0.03 by the neurons, 0.04 by the test points)"


def test_the_least_loss_has_the_errors_of_its_time_and_counts_by_those_of_the_difference():
    """The loss is known to 0.5 by the test points, the difference between two times, on the same points, to 0.03."""
    columns = gains([[9.0, 0.5, 0.2, 0.3]], [[1.0, 1.0, 1.0, 1.0]], stage=[1, 2, 2, 2], time=[3.0, 0.0, 2.0, 4.0])
    errors = {"loss_se": 0.0, "loss_test_se": 0.5, "overfitting": 0.1, "overfitting_se": 0.0}
    axes = {"gamma0": [1.0], "record": [0, 1, 2, 3]}
    said = [verdict([block(axes, **columns, **errors, overfitting_test_se=se)]) for se in (0.03, 0.06)]
    assert said[0].endswith("; least loss 0.20 ± 0.50 at t = 2")
    assert "least" not in said[1]


def test_a_table_in_time_decides_by_two_standard_errors():
    said = [verdict([block(**gains(0.4, 0.5), gain_se=se)]) for se in (0.04, 0.06)]
    assert "helps" in said[0]
    assert "no difference" in said[1]


def test_a_grid_in_time_says_where_stopping_early_is_better_and_when():
    loss = [[9.0, 0.5, 0.2, 0.3], [9.0, 0.5, 0.4, 0.2], [9.0, 0.1, 0.4, 0.5], [9.0, 0.3, 0.29, 0.3]]
    columns = gains(loss, np.ones((4, 4)), stage=[1, 2, 2, 2], time=[3.0, 0.0, 2.0, 4.0], loss_se=np.full((4, 4), 0.02))
    axes = {"gamma2": [1.0, 2.0, 3.0, 4.0], "record": [0, 1, 2, 3]}
    said = verdict([block(axes, **columns, gain_se=np.full((4, 4), 0.02))])
    assert "; loss in the end 0.200 ± 0.020 (gamma2 = 2) to 0.500 ± 0.020 (gamma2 = 3)" in said
    assert (
        "; loss is less before the end at 2 of 4 points: 0.100 ± 0.020 at t = 0 (gamma2 = 3) to 0.200 ± 0.020 at t = 2 "
        "(gamma2 = 1)"
    ) in said
    columns["loss"] = np.array([loss[0]] * 4)
    assert "before the end at all 4 points: 0.200 ± 0.020 at t = 2 (gamma2 = 1)" in verdict([block(axes, **columns)])
    columns["loss"] = np.array([loss[1]] * 4)
    assert "before the end" not in verdict([block(axes, **columns)])


def test_the_best_time_is_told_only_where_it_is_better_beyond_its_error():
    columns = gains([[9.0, 0.5, 0.2, 0.3]], [[1.0, 1.0, 1.0, 1.0]], stage=[1, 2, 2, 2], time=[3.0, 0.0, 2.0, 4.0])
    axes = {"gamma0": [1.0], "record": [0, 1, 2, 3]}
    said = [verdict([block(axes, **columns, loss_se=se)]) for se in (0.04, 0.06)]
    assert "loss 0.300 ± 0.040" in said[0]
    assert said[0].endswith("; least loss 0.200 ± 0.040 at t = 2")
    assert "least" not in said[1]


def test_a_grid_counts_phases_and_gives_the_ends_of_the_gain_where_it_has_a_sign():
    loss = np.array([[0.5, 0.4, 0.7], [0.5, 0.2, 0.5 - 1e-17]])
    phase = np.array([[0, 1, -1], [0, 1, 0]], dtype=np.int8)
    grid = block({"alpha2": [0.5, 2], "gamma0": [0, 1, np.inf]}, **gains(loss, 0.5, phase=phase, status=0))
    assert verdict([grid]) == (
        "pre-training helps at 2, hurts at 1, makes no difference at 3 of 6 points; it helps where gamma0 = 1, and "
        "hurts where alpha2 = 0.5 and gamma0 = inf; gain -0.2 (alpha2 = 0.5, gamma0 = inf) to 0.3 (alpha2 = 2, "
        "gamma0 = 1); best of the grid: gamma0 = 1"
    )


def test_places_are_told_by_what_varies():
    grid = block({"alpha2": [0.5, 2], "time": [60]}, **gains([[0.4], [0.7]], 0.5, phase=[[1], [-1]], status=0))
    assert "gain -0.2 (alpha2 = 2) to 0.1 (alpha2 = 0.5)" in verdict([grid])
    assert "time" not in verdict([grid])


def test_infinite_ends_are_of_the_points_that_are_told():
    loss = np.array([[0.5, np.inf, np.inf]])
    grid = block({"alpha1": [2], "alpha2": [0.5, 1, 2]}, **gains(loss, 0.5, phase=[[0, -1, -1]], status=0))
    assert "; gain -inf" in verdict([grid])
    assert " to " not in verdict([grid]).partition("gain")[2]


def test_searched_optima_count_only_where_pre_training_helps():
    loss = np.array([[0.4, 0.3], [0.6, 0.7]])
    grid = block(
        {"alpha2": [0.5, 2], "gamma0": [1, 2]},
        **gains(loss, 0.5, phase=np.sign(0.5 - loss).astype(np.int8)),
        gamma0_opt=np.array([[np.inf], [0.0]]),
        loss_opt=np.array([[0.2], [0.5]]),
    )
    assert verdict([grid]).endswith("; best gamma0 = inf where it helps")
    assert verdict([grid], [Beside(searched=False)]).endswith("; best of the grid: gamma0 = inf where it helps")


def test_boundaries_name_their_axis_and_cases_their_line():
    cases = [
        block({"alpha2": [1, 2]}, label, **gains([0.4, 0.6], 0.5, phase=np.array([1, -1], dtype=np.int8)))
        for label in ("a", "b")
    ]
    edge = {"refined": "alpha2", "alpha2": np.array([1.25, 1.75, 9]), "kind": np.array(["root", "root", "collapse"])}
    lines = verdict(cases, [Beside([edge]), Beside()]).split("\n")
    assert "changes sign" not in lines[0], "two places between two cells: one of them is noise"
    edge = {"refined": "alpha2", "alpha2": np.array([1.25, 9]), "kind": np.array(["root", "collapse"])}
    lines = verdict(cases, [Beside([edge]), Beside()]).split("\n")
    assert "; the gain changes sign at alpha2 = 1.25, below which pre-training helps; gain " in lines[0]
    assert lines[0].startswith("a: pre-training helps at 1, hurts at 1 of 2 points")
    assert lines[1].startswith("b: ")
    assert "changes sign" not in lines[1]


def test_a_boundary_within_the_noise_is_not_told():
    grid = block({"p2": [1, 2]}, **gains([0.45, 0.55], 0.5, phase=np.array([1, 0], dtype=np.int8)))
    edge = {"refined": "p2", "p2": np.array([1.5]), "kind": np.array(["interpolated"])}
    assert "changes sign" not in verdict([grid], [Beside([edge])])


def phases(*rows):
    """A map whose gain is 0.1 times its phase."""
    phase = np.array(rows, dtype=np.int8)
    return gains(0.5 - 0.1 * phase, 0.5, phase=phase)


def test_a_boundary_between_sure_cells_has_its_side_its_error_and_the_places_of_its_ends():
    grid = block({"gamma0": [1, 2, 3], "alpha2": [1, 2, 3]}, **phases([1, 1, -1], [1, 0, -1], [0, 0, -1]))
    edge = {
        "refined": "alpha2",
        "gamma0": np.array([1.0, 2.0, 3.0]),
        "alpha2": np.array([2.4, 1.5, 2.2]),
        "alpha2_se": np.array([0.13, 0.21, 0.4]),
        "kind": np.array(["interpolated"] * 3),
    }
    said = verdict([grid], [Beside([edge])])
    assert (
        "; the gain changes sign at alpha2 = 1.50 ± 0.21 (gamma0 = 2) to 2.40 ± 0.13 (gamma0 = 1), below which "
        "pre-training helps; gain "
    ) in said, "on the third line no cell is sure of a gain"
    rising = block({"gamma0": [1, 2, 3], "alpha2": [1, 2, 3]}, **phases([-1, -1, 1], [-1, 0, 1], [0, 0, 1]))
    assert "to 2.40 ± 0.13 (gamma0 = 1), above which pre-training helps" in verdict([rising], [Beside([edge])])
    both = block({"gamma0": [1, 2, 3], "alpha2": [1, 2, 3]}, **phases([-1, -1, 1], [1, 0, -1], [0, 0, 1]))
    assert ", below which pre-training helps at 1 of 2 places; it helps " in verdict([both], [Beside([edge])])


def test_where_it_helps_is_told_by_the_ends_of_the_effect_or_by_the_values_of_the_grid():
    axes = {"alpha2": [0.5, 0.9, 1.1], "gamma0": [0.0, 5.0]}
    grid = block(axes, **phases([0, 1], [0, 1], [0, 0]))
    assert "; it helps where alpha2 = 0.5 to 0.9 and gamma0 = 5; gain " in verdict([grid])
    ends: dict[str, Any] = {"alpha2": np.array([np.nan, 1.0]), "gamma0": np.array([0.0, 0.0, np.nan])}
    told = verdict([grid], [Beside(ends=lambda axis, inside, outside: ends[axis])])
    assert "; it helps where alpha2 < 1 and gamma0 > 0; gain " in told
    differing = verdict([grid], [Beside(ends=lambda axis, inside, outside: ends[axis] + np.arange(len(ends[axis])))])
    assert "alpha2 < 2 and gamma0 = 5" in differing, "no one value where the lines differ"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (([1, 1, 0], [1, 0, 0]), "it helps up to p2 = 10 (p1 = 2) to 20 (p1 = 1)"),
        (([0, 1, 1], [0, 0, 1]), "it helps from p2 = 20 (p1 = 1) to 40 (p1 = 2) on"),
        (([1, 0, 1], [1, 0, 1]), "it helps where p2 = 10, 40"),
        (([0, 1, 0], [0, 0, 0]), "it helps where p1 = 1 and p2 = 20"),
        (([1, 1, 1], [-1, -1, -1]), "it helps where p1 = 1, and hurts where p1 = 2"),
        (([1, 1, 1], [1, 1, 1]), "helps at all 6 points; gain"),
        (([1, 1, 1], [1, 0, 0]), "it helps up to p2 = 10 (p1 = 2) to 40 (p1 = 1)"),
        (([0, 1, 1], [-1, -1, 0]), "it helps where p1 = 1 and p2 = 20 to 40, and hurts where p1 = 2 and p2 = 10 to 20"),
    ],
)
def test_ranges_that_differ_from_line_to_line(rows, words):
    assert words in verdict([block({"p1": [1, 2], "p2": [10, 20, 40]}, **phases(*rows))])


def test_ranges_are_true_of_every_point():
    """A line without any point, or one that is whole, has its say: at most the box around the points is told."""
    inside = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0]])
    said = verdict([block({"p1": [1, 2, 3], "p2": [10, 20, 40]}, **phases(*inside))])
    assert "it helps within p1 = 1, 3, p2 = 10 to 20" in said


def test_what_was_never_pre_trained_compares_nothing():
    """Its gain is the difference of two samples of one network."""
    columns = gains([[0.5, 0.2, 0.4], [0.5, 0.3, 0.2]], np.full((2, 3), 0.3), time=[0.0, 1.0, 2.0], loss_se=0.01)
    axes = {"gamma2": [1.0, 2.0], "record": [0, 1, 2]}
    said = verdict([block(axes, "no pre-training", **columns, gain_se=0.01, t1=0.0)])
    assert said == (
        "no pre-training: loss in the end 0.200 ± 0.010 (gamma2 = 2) to 0.400 ± 0.010 (gamma2 = 1); loss is less "
        "before the end at 1 of 2 points: 0.200 ± 0.010 at t = 1 (gamma2 = 1); nothing was pre-trained"
    )


def test_of_several_tasks_each_has_its_last_loss_and_what_was_forgotten():
    loss = [[[0.2, 0.8], [0.9, 0.1]], [[0.3, 0.7], [0.5, 0.2]]]
    said = verdict([block({"gamma_1": [1, 3], "stage": [1, 2], "task": [1, 2]}, loss=loss, status=0)])
    assert said == (
        "task 1: loss in the end 0.5 (gamma_1 = 3) to 0.9 (gamma_1 = 1), 0.2 (gamma_1 = 3) to 0.7 (gamma_1 = 1) of it "
        "forgotten; task 2: loss in the end 0.1 (gamma_1 = 1) to 0.2 (gamma_1 = 3), nothing forgotten"
    )


def test_of_times_without_a_baseline_the_last_is_told():
    loss = [[1.0, 0.5], [1.0, 0.3], [1.0, 0.1]]
    said = verdict([block({"alpha2": [0.5, 1, 2], "time": [0, 9]}, loss=loss, status=0)])
    assert said == "loss in the end 0.5 (alpha2 = 0.5), 0.3 (alpha2 = 1), 0.1 (alpha2 = 2)"


def test_a_kernel_says_what_has_collapsed():
    status = np.array([Status.COLLAPSED, Status.CONVERGED])
    said = verdict([block({"gamma0": [0.1, 1]}, spike=np.array([0.0, 2.0]), bulk=0.0, status=status)])
    assert said.endswith("; bulk 0; no feature is left under this weight decay at 1 of 2 points")


def test_one_draw_without_an_error_is_said_to_be_one():
    words = "on this one draw of the data (the error over draws is not known)"
    one = block(**gains(0.6, 0.5, phase=Phase.NEGATIVE), draws=1)
    assert verdict([one]).endswith(f": pre-training hurts {words}, gain -0.1")
    grid = block({"p2": [1, 2]}, **gains([0.4, 0.4], 0.5, phase=Phase.POSITIVE), draws=1, gain_se=0.001)
    assert f"pre-training helps at both points {words}; gain" in verdict([grid]), "sampling knows its own error only"
    assert words not in verdict([block(**gains(0.6, 0.5, phase=Phase.NEGATIVE), draws=1, gain_test_se=0.01)])


def test_a_gain_says_in_what_it_is_unless_that_is_the_loss():
    columns = gains([0.4, 0.4], 0.5, phase=Phase.POSITIVE)
    grid = block({"delta": [1, 2]}, train_loss=columns.pop("loss"), **columns)
    assert "helps at both points; gain in train loss 0.1;" in verdict([grid])


def test_what_was_reached_is_that_of_the_told_loss():
    columns = gains([[9.0, 0.5]], [[1.0, 1.0]], stage=[1, 2], time=[0.0, 1.0], loss_se=[[0.5, 0.01]], gain_se=0.01)
    one = block({"p2": [1], "record": [0, 1]}, **columns, residual=0.12, status=Status.INACCURATE)
    assert verdict([one], [Beside(asked=1e-4)]).endswith(
        "; it is less accurate than asked: asked 0.0001, reached 0.01 in the end, 0.12 at its worst time"
    )
    end = block(**gains(0.4, 0.5, phase=1), residual=0.04, status=Status.INACCURATE)
    assert verdict([end], [Beside(asked=0.01)]).endswith("less accurate than asked: asked 0.01, reached 0.04")


def test_formulas_of_labels_are_letters():
    (line,) = verdict([block(label=r"overlap with the noise ($\rho_\xi = 0.5$)", loss=0.25)]).split("\n")
    assert line == "overlap with the noise (ρ_ξ = 0.5): loss 0.25"


def test_what_is_not_solved_is_said():
    status = np.array([Status.CONVERGED, Status.FAILED, Status.INACCURATE, Status.NOT_CONVERGED])
    grid = block(
        {"p2": [1, 2, 3, 4]}, **gains([0.4, np.nan, 0.4, 0.4], 0.5, phase=np.array([1, 3, 1, 1]), status=status)
    )
    said = verdict([grid])
    assert "has an effect that is not known at 1 of 4 points" in said
    assert said.endswith("1 of 4 points is less accurate than asked; 2 of 4 points are not converged")


def test_a_command_without_a_baseline_gives_what_it_computes():
    kernel = block({"alpha1": [0.5, 2]}, spike=np.array([1.0, 4.0]), bulk=1.0, overlap=np.array([0.5, 1]), status=0)
    assert verdict([kernel]) == (
        "spike 1 (alpha1 = 0.5) to 4 (alpha1 = 2); bulk 1; overlap 0.5 (alpha1 = 0.5) to 1 (alpha1 = 2)"
    )
    assert verdict([block(loss=0.25)]) == "loss 0.25"


def test_several_experiments_are_one_theory():
    loss = np.array([[0.4, 0.6]] * 3)
    phase = np.array([1, -1], dtype=np.int8)
    axes = {"experiment": [0, 1, 2], "alpha2": [1, 2]}
    assert "of 2 points" in verdict([block(axes, **gains(loss, 0.5, phase=phase))])


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.41962, 0.00771, "0.4196 ± 0.0077"),
        (-12.3456, 1.2, "-12.3 ± 1.2"),
        (1234.5, 140.0, "1234 ± 140"),
        (1.23e-9, 4.5e-11, "1.23e-09 ± 4.5e-11"),
        (0.5, np.nan, "0.5"),
        (np.nan, 1.0, "nan"),
        (0.0, 1e-9, "0 ± 1e-09"),
    ],
)
def test_numbers_carry_the_digits_of_their_error(value, error, text):
    assert with_error(value, error) == text


def test_spans_and_numbers():
    assert span([np.nan, 2.0, np.inf]) == "2 to inf"
    assert span([3.0, 3.0]) == "3"
    assert [number(x) for x in (0.123456, 999.0, 999.6, -12345.0, 1e6)] == ["0.123", "999", "1000", "-12345", "1e+06"]


def test_the_command_ends_with_it_and_the_provenance_holds_it(tmp_path):
    point = ["finetune-loss", "--alpha1", "inf", "--alpha2", "0.4", "--rho", "0.8", "--gamma0", "3"]
    done = subprocess.run(
        [sys.executable, "-m", "tlcli", *point, "-o", str(tmp_path)], capture_output=True, text=True, check=True
    )
    told = json.loads((tmp_path / "provenance.json").read_text())["verdict"]
    # 0.6 = 1 - alpha2 is the loss of ridgeless regression from scratch
    assert done.stderr.splitlines()[-1] == told == "loss 0.326 (no pre-training 0.6): pre-training helps, gain 0.274"
    assert done.stderr.startswith("1 row in ")


def test_of_classes_the_best_of_the_grid_is_that_of_the_error():
    errors = {"error": np.array([0.3, 0.1]), "baseline_error": 0.4, "gain_error": np.array([0.1, 0.3])}
    one = block({"gamma0": [1.0, 2.0]}, **gains([0.2, 0.5], [0.6, 0.6]), **errors, phase=np.full(2, Phase.POSITIVE))
    said = verdict([one])
    assert "gain in error 0.1 (gamma0 = 1) to 0.3 (gamma0 = 2)" in said
    assert "best of the grid: gamma0 = 2" in said


def test_of_classes_the_best_coupling_is_that_of_the_error_whatever_is_best_for_the_loss():
    """The least loss is at delta 0, where no answer is gained."""
    errors = {"error": np.array([0.4, 0.3]), "baseline_error": 0.4, "gain_error": np.array([0.0, 0.1])}
    best = {"delta_opt": np.array([0.0]), "loss_opt": np.array([0.2])}
    one = block({"delta": [0.0, 9.0]}, **gains([0.2, 0.5], 0.2), **errors, **best, phase=np.array([0, 1]))
    assert verdict([one]).endswith("best of the grid: delta = 9")
    neither = block({"delta": [0.0, 9.0]}, **gains([0.2, 0.3], 0.25, phase=np.array([0, 1], dtype=np.int8)))
    assert "best" not in verdict([neither]), "of the loss it is at a coupling that does not help"
