"""Bayesian networks with named losses: which options they take, what their tables hold, what is refused."""

import numpy as np
import pytest

from tests.theories.bayes.test_theory import solved
from tlcli.errors import DomainError, UsageError
from tlcli.status import Status
from tlcli.theories.bayes import points as bayes
from tlcli.theories.bayes.results import combine, placeholder

TASK = {"source": "sign:linear", "target": "sign:linear", "dim": 6, "p1": "12", "p2": "6", "ptest": "40", "beta": "4"}


def table(case, **flags):
    found = case("bayes-saddle", **{**TASK, **flags})
    bayes.check_points(found)
    records = solved(found)
    return found, records, combine(found, records)


def test_a_named_loss_has_columns_of_classes(case):
    found, records, findings = table(case, loss="logistic", delta="0,1,inf")
    columns = findings.columns
    assert found.theory.quantity == "error"
    assert found.words["loss1"] == found.words["loss2"] == "logistic"
    assert np.all(columns["status"] == Status.CONVERGED)
    for name, parts in (("gain", ("baseline", "loss")), ("gain_error", ("baseline_error", "error"))):
        np.testing.assert_allclose(columns[name], columns[parts[0]] - columns[parts[1]], atol=1e-14)
        assert columns[name][0] == 0, "no coupling is the target alone"
    # The loss of a table is that of its own predictions, recomputed here from the outputs of the solver.
    task = bayes.tasks_of(found, 0)[1]
    data = bayes.data_of(task.parameters)
    solution = bayes.solve_bayes(data, bayes.settings_of(task.parameters))
    assert solution.target is not None
    f, y = solution.target.outputs[-len(data.y_test_target) :], data.y_test_target
    assert columns["loss"][1] == pytest.approx(np.mean(np.log1p(np.exp(-y * f))), rel=1e-12)
    assert columns["error"][1] == pytest.approx(np.mean(y * f < 0), abs=1e-14)
    assert columns["margin"][1] == pytest.approx(np.min(data.y_target * solution.target.outputs[12:18]), rel=1e-12)
    assert columns["gain_test_se"][1] > 0
    assert set(placeholder(found)) <= set(columns) | {"phase"}
    for record, each in zip(records, bayes.tasks_of(found, 0), strict=True):
        assert record.record is not None
        bayes.check_record(each.parameters, record.record)


def test_numbers_keep_the_squared_error_and_classes_of_the_source_alone_have_no_error_of_the_target(case):
    _, _, findings = table(case, target="linear", loss1="logistic", delta="1")
    assert "source_error" in findings.columns
    assert "error" not in findings.columns
    _, _, plain = table(case, source="linear", target="linear", delta="1")
    assert "source_error" not in plain.columns


def test_several_classes_need_no_option(case):
    found, records, findings = table(case, source="argmax:3", target="argmax:3", delta="1", predictions=True, draws="2")
    assert found.words["loss2"] == "softmax"
    assert 0 <= float(findings.columns["error"]) < 2 / 3
    assert "error_draw_se" in findings.columns
    arrays = findings.arrays[0]
    assert arrays is not None
    assert arrays["dual_target"].shape == (6, 3)
    np.testing.assert_allclose(arrays["dual_target"].sum(axis=1), 0, atol=1e-12)
    assert arrays["predictions_stage2"].shape == (1, 12 + 6 + 40, 3)
    assert records[0].record is not None
    assert records[0].record["status"] == "converged"


def test_smoothing_and_weights_are_of_training_alone(case):
    _, _, findings = table(case, loss="logistic", label_smoothing="0,0.3", class_weights="2,1", delta="1")
    margin = findings.columns["margin"]
    assert margin[1] < margin[0] < np.inf, "smooth labels have a finite margin"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"loss": "logistic", "beta": "inf"}, "beta = inf: logistic has no posterior without noise"),
        ({"loss": "logistic", "beta": "1", "beta2": "inf"}, "beta2 = inf: logistic has no posterior"),
        ({"loss": "logistic", "beta": "inf"}, "no posterior without noise (labels that the network separates"),
        (
            {"loss": "logistic", "label_smoothing": "0.1", "beta": "inf"},
            "no posterior without noise (that limit is solved for the squared error alone)",
        ),
        ({"loss": "hinge2", "label_smoothing": "0.1"}, "label_smoothing = 0.1 is for the losses logistic or softmax"),
        ({"loss": "logistic", "noise2": "0.1"}, "use --flips2"),
        ({"loss": "logistic", "target": "linear"}, "use sign:linear"),
        ({"loss": "logistik"}, "did you mean 'logistic'"),
        ({"loss": "logistic", "source": "argmax:3"}, "logistic is for two classes, and argmax:3 has 3"),
        ({"loss": "logistic", "loss1": "mse", "loss2": "mse"}, "--loss logistic has no effect beside"),
        (
            {"target": "linear", "source": "linear", "class_weights": "balanced"},
            "--class-weights balanced has no effect",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(case, flags, message):
    with pytest.raises((UsageError, DomainError)) as caught:
        bayes.check_points(case("bayes-saddle", **{**TASK, **flags}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_networks_of_rank_two_are_solved_by_quadrature_and_others_by_sampling(case):
    task = {"source": "sign:linear", "target": "sign:hermite:3", "dim": 2, "p1": "5", "p2": "4", "activation": "erf"}
    _, records, findings = table(case, **task, loss="logistic", delta="1")
    assert records[0].record is not None
    assert records[0].record["info"]["route"] == "quadrature"
    assert float(findings.columns["gap"]) < 1e-8
    task |= {"dim": 3, "p1": "3", "p2": "2"}
    _, records, findings = table(case, **task, loss1="logistic", loss2="hinge2", delta="inf", moves="20")
    assert records[0].record is not None
    assert records[0].record["info"]["route"] == "sampling"
    for name in (
        "loss",
        "gain",
        "error",
        "baseline_error",
        "gain_error",
        "source_loss",
        "train_loss",
        "target_overlap",
    ):
        assert 0 < float(findings.columns[f"{name}_se"]) < 0.2, name
    with pytest.raises(
        UsageError, match="softmax of 2 readouts: sampling nonlinear networks on inputs of rank above 2"
    ):
        table(case, source="argmax:3", target="argmax:3", activation="erf", loss="softmax", delta="1")


def test_whitened_data_take_a_loss(case):
    found = case(
        "bayes-saddle", whitened="same", loss="logistic", label_norm1="6", label_norm2="6", gamma0="1.5", gamma2="1",
        beta="4", beta2="3", delta="0,1.5", label_smoothing="0,0.2",
    )  # fmt: skip
    columns = found.theory.evaluate(found.parameters())
    assert columns["margin"].shape == found.grid.shape
    at = {name: found.grid.axes.index(name) for name in ("label_smoothing", "delta")}
    sure = np.moveaxis(columns["margin"], [at["label_smoothing"], at["delta"]], [0, 1]).squeeze()
    assert sure[0, 1] == pytest.approx(2.1505841403, rel=1e-9), "case B3"
    assert sure[1, 1] < sure[0, 1]
    gain = np.moveaxis(columns["gain"], [at["label_smoothing"], at["delta"]], [0, 1]).squeeze()
    assert np.all(gain[:, 0] == 0)
    assert gain[0, 1] > 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"whitened": "labels", "loss": "logistic"}, "points whose two labels agree and others have different margins"),
        ({"whitened": "same", "loss": "softmax"}, "they have two classes here"),
        ({"whitened": "same", "label_smoothing": "0.1"}, "--label-smoothing is not for whitened data"),
        ({"whitened": "same", "loss": "logistic", "loss2": "mse"}, "--loss2 is not for whitened data"),
    ],
)
def test_whitened_data_refuse_other_losses(case, flags, message):
    with pytest.raises(UsageError) as caught:
        case("bayes-saddle", **flags)
    assert message in str(caught.value)
