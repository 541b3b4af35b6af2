"""The verdict on a table: statistics of many comparisons, finite size, widths extrapolated."""

import json

import numpy as np
import pytest
from scipy import stats

from tlcli.errors import UsageError
from tlcli.report.agreement import assess


@pytest.fixture
def table(tmp_path):
    """Write a table from columns (scalars are repeated) and return its path."""

    def write(rows=None, **columns):
        count = max(np.size(c) for c in columns.values())
        full = {name: np.broadcast_to(np.asarray(c, dtype=object), count) for name, c in columns.items()}
        lines = [",".join(full), *(",".join(str(c[i]) for c in full.values()) for i in range(count))]
        path = tmp_path / "table.csv"
        path.write_text("\n".join(lines) + "\n")
        if rows is not None:
            (tmp_path / "provenance.json").write_text(json.dumps({"rows": rows}))
        return path

    return write


def test_rows_and_statuses(table):
    path = table(
        rows=5, loss=[1, 2, 3], status=["converged", "not_converged", "failed"], sim_status=["ok", "failed", ""]
    )
    found = assess(path)
    assert (found.rows, found.expected, found.unsolved, found.missing) == (3, 5, 2, 1)
    assert found.comparisons == []
    assert found.worst() is None
    assert assess(path.parent) == found, "the folder will do"


def test_diverged_and_collapsed_are_answers(table):
    found = assess(table(loss=["inf", 1], status=["diverged", "collapsed"], sim_loss=[3, 1], sim_loss_se=[1, 0.1]))
    assert found.unsolved == 0
    assert found.expected is None
    assert [c.row for c in found.comparisons] == [3], "an infinite loss is not compared"


def test_a_comparison_is_in_students_standard_errors(table):
    found = assess(table(loss=1.0, sim_loss=1.3, sim_loss_se=0.1, trials=8, dim=1e12))
    (one,) = found.comparisons
    assert (one.name, one.row, one.theory, one.mean, one.error) == ("loss", 2, 1.0, 1.3, 0.1)
    assert one.probability == pytest.approx(2 * stats.t.sf(3, 7), rel=1e-6)
    assert one.sigmas == pytest.approx(stats.norm.isf(stats.t.sf(3, 7)), rel=1e-6)
    assert one.sigmas < 3, "few trials make a large distance likelier"
    gauss = assess(table(loss=1.0, sim_loss=1.3, sim_loss_se=0.1)).worst()
    assert gauss.sigmas == pytest.approx(3, rel=1e-6)


def test_gains_of_classifiers_may_be_off_by_the_bias_of_the_errors(table):
    """By the error over D; by twice that not, and gains of other tables not by more than themselves over D."""
    rest = {"gain": 0.01, "sim_gain_se": 1e-5, "trials": 1000, "dim": 100}
    classes = {"error": 0.3, "separability": "inf", **rest}
    assert assess(table(**classes, sim_gain=0.0129)).worst().sigmas == 0
    assert assess(table(**classes, sim_gain=0.0160)).worst().sigmas > 10
    assert assess(table(**rest, error=0.3, sim_gain=0.0129)).worst().sigmas > 10


def test_finite_size_allows_a_systematic_difference(table):
    path = table(loss=2.0, sim_loss=2.2, sim_loss_se=0.01, trials=1000, dim=100)
    assert assess(path, finite_size=10.0).worst().sigmas < 1e-6
    assert assess(path, finite_size=8.0).worst().sigmas == pytest.approx(4, rel=0.01)
    assert assess(path, finite_size=0.0).worst().sigmas > 15


def test_exact_experiments_agree_only_with_the_same_number(table):
    assert assess(table(loss=1.0, sim_loss=1 + 1e-12, sim_loss_se=0)).worst().probability == 1
    assert assess(table(loss=1.0, sim_loss=1 + 1e-6, sim_loss_se=0)).worst().probability == 0
    assert assess(table(loss=0.0, sim_loss=1e-30, sim_loss_se=0)).disagreeing(4) == []


@pytest.mark.parametrize("count", [1, 30, 3000])
def test_a_correct_table_fails_as_rarely_whatever_its_size(table, count):
    """The chance that the worst of `count` correct comparisons is beyond the limit is that of one Gaussian."""
    found = assess(table(loss=np.ones(count), sim_loss=1.0, sim_loss_se=0.1))
    for sigmas in (2, 4):
        one = 2 * stats.norm.sf(found.threshold(sigmas))
        assert 1 - (1 - one) ** count == pytest.approx(2 * stats.norm.sf(sigmas), rel=0.03)


def test_correct_tables_pass_and_wrong_ones_do_not(table):
    rng = np.random.default_rng(5)
    trials, count = 8, 400
    draws = 1 + 0.3 * rng.standard_normal((count, trials))
    means, errors = draws.mean(axis=1), draws.std(axis=1, ddof=1) / np.sqrt(trials)
    good = assess(table(loss=1.0, sim_loss=means, sim_loss_se=errors, trials=trials))
    assert good.disagreeing(4) == []
    assert good.worst().sigmas > 2.5, "400 comparisons reach that far by chance"
    bad = assess(table(loss=3.0, sim_loss=means, sim_loss_se=errors, trials=trials))
    wrong = bad.disagreeing(4)
    assert len(wrong) > 100
    assert [c.probability for c in wrong] == sorted(c.probability for c in wrong)


def test_widths_are_extrapolated(table):
    widths = np.array([100, 200, 400])
    network = {"experiment": "network", "width": widths, "gamma0": 1, "loss": 1.0, "trials": 20}
    means = 1.0 + 30 / widths
    found = assess(table(**network, sim_loss=means, sim_loss_se=0.01))
    (one,) = found.comparisons
    assert one.mean == pytest.approx(1.0, abs=1e-12)
    assert one.error > 0.01, "extrapolation is dearer than a mean"
    assert not found.widths_needed
    assert found.disagreeing(4) == []
    # Without the other widths the bias of the network is a disagreement.
    found = assess(table(**{**network, "width": 100}, sim_loss=1.3, sim_loss_se=0.01))
    assert found.widths_needed
    assert len(found.disagreeing(4)) == 1


def test_the_error_of_the_extrapolation_is_that_of_least_squares(table):
    widths, errors = np.array([100.0, 300.0]), np.array([0.01, 0.03])
    found = assess(
        table(experiment="network", width=[100, 300], loss=1.0, sim_loss=[1.5, 1.2], sim_loss_se=errors, trials=9)
    )
    (one,) = found.comparisons
    # Two widths: a straight line through both points.
    weights = np.array([-1 / widths[1], 1 / widths[0]]) / (1 / widths[0] - 1 / widths[1])
    assert one.mean == pytest.approx(weights @ [1.5, 1.2])
    assert one.error == pytest.approx(np.hypot(*(weights * errors)))


def test_widths_of_different_points_are_not_mixed(table):
    found = assess(
        table(
            experiment="network",
            width=[100, 100, 200, 200],
            gamma0=[1, 2, 1, 2],
            loss=[1, 5, 1, 5],
            sim_loss=[1.2, 5.2, 1.1, 5.1],
            sim_loss_se=0.01,
        )
    )
    assert [round(c.mean, 9) for c in found.comparisons] == [1, 5]
    assert [c.row for c in found.comparisons] == [2, 3]


def test_a_width_without_scatter_is_extrapolated_with_the_error_of_the_other(table):
    """Errors of classifiers: all redrawings of the wider networks agree, of the narrow ones not; 2 m_64 - m_32."""
    network = {"nets": 4, "width": [32, 64], "sim_loss": [0.051375, 0.05], "sim_loss_se": [0.0057, 0.0]}
    found = assess(table(**network, loss=0.05))
    (one,) = found.comparisons
    assert one.mean == pytest.approx(0.048625, abs=1e-8)
    assert one.error == pytest.approx(0.0057, rel=1e-6)
    assert found.disagreeing(4) == []
    assert len(assess(table(**network, loss=0.25)).disagreeing(4)) == 1


def test_exact_widths_take_the_widest(table):
    found = assess(table(width=[100, 200], loss=0.0, sim_loss=[0, 0], sim_loss_se=[0, 0]))
    assert found.worst().probability == 1


def test_missing_measurements_are_skipped(table):
    statuses = ["failed", "not_converged", "ok"]
    found = assess(table(loss=1, sim_loss=["nan", "nan", 1.0], sim_loss_se=["nan", "nan", 0.1], sim_status=statuses))
    assert [c.row for c in found.comparisons] == [4]
    assert found.missing == 2


def test_tables_that_are_none(table, tmp_path):
    path = table(loss=1)
    (tmp_path / "provenance.json").write_text("{half")
    with pytest.raises(UsageError, match=r"provenance\.json' is not the JSON file that belongs beside a table"):
        assess(path)
    (tmp_path / "provenance.json").write_text("[1]")
    with pytest.raises(UsageError, match="is not the JSON file"):
        assess(path)
    with pytest.raises(UsageError, match="cannot be read"):
        assess(tmp_path / "none.csv")


def test_a_small_error_of_a_whole_column_is_found(table):
    """Eight trials make 5 % invisible in any single row, but not in two hundred of them."""
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((200, 8))
    means, errors = 1 + 0.05 * noise.mean(axis=1), 0.05 * noise.std(axis=1, ddof=1) / np.sqrt(8)
    good = assess(table(loss=1.0, sim_loss=means, sim_loss_se=errors, trials=8, dim=1e6))
    assert good.disagreeing(4) == []
    assert good.disagreeing_columns(4) == []
    wrong = assess(table(loss=1.02, sim_loss=means, sim_loss_se=errors, trials=8, dim=1e6))
    assert wrong.disagreeing(4) == []
    assert [column.name for column in wrong.disagreeing_columns(4)] == ["loss"]


def test_rows_with_another_number_of_samples_are_not_compared(table):
    found = assess(table(alpha2=[0.5, 0.99], dim=40, loss=1.0, sim_loss=[1.0, 9.0], sim_loss_se=0.1, trials=8))
    assert (len(found.comparisons), found.skipped) == (1, 1)
