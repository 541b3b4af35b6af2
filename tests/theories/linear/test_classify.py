"""linear-classify from the command line: columns, words, boundaries, statuses, and every refusal."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import call
from tlcli.linear.classify.readout import classify
from tlcli.options.columns import judged
from tlcli.report.plan import FigureSpec


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


def run(arguments, err=""):
    done = call(f"finetune-loss --solver linear-classify {arguments} -o -")
    *told, answer = done.err.splitlines(keepends=True)
    assert (done.code, "".join(told), "pre-training" in answer) == (0, err, True), done.err
    return table(done.out)


def test_a_row_of_the_reference_table():
    (row,) = run("--c-signal gamma0 --gamma0 5 --rho 0.6 --alpha2 0.5 --ridge 0.01")
    assert float(row["error"]) == pytest.approx(0.2634354851, abs=1e-9)
    assert float(row["readout_norm2"]) == pytest.approx(10.5633107244, abs=1e-8)
    assert float(row["log_loss"]) == pytest.approx(0.6037320060, abs=1e-9)
    assert float(row["baseline"]) == pytest.approx(float(classify(0.5, ridge=0.01).error), abs=1e-10)
    assert (row["loss_function"], row["phase"], row["status"]) == ("logistic", "positive", "converged")
    assert float(row["gain"]) == pytest.approx(float(row["baseline"]) - float(row["error"]), abs=1e-12)
    for name, short in (("noisy_error", "noisy"), ("log_loss", "log_loss"), ("square_loss", "square_loss")):
        assert float(row[f"{short}_gain"]) == pytest.approx(float(row[f"{short}_baseline"]) - float(row[name]))


def test_margins_have_a_status_above_the_threshold():
    rows = run(
        "--loss margin --alpha2 1,4 --flips2 0.1",
        err="1 row without a hyperplane that divides the labels (status inseparable): "
        "there is no largest margin; another --loss has an answer there.\n",
    )
    assert [row["status"] for row in rows] == ["converged", "inseparable"]
    assert [row["phase"] for row in rows] == ["positive", "unknown"]
    assert float(rows[0]["margin"]) > 0
    assert rows[1]["margin"] == rows[1]["error"] == "nan"
    assert "ridge" not in rows[0]


def test_the_best_ridge_is_a_word_of_the_column():
    rows = run("--alpha2 1 --gamma0 0.5,1 --flips2 0.1 --ridge best")
    assert {row["ridge"] for row in rows} == {"best"}
    for row in rows:
        fixed = run(f"--alpha2 1 --gamma0 {row['gamma0']} --flips2 0.1 --ridge {row['ridge_opt']}")[0]
        assert float(fixed["error"]) == pytest.approx(float(row["error"]), abs=1e-9)
        assert float(row["error"]) < float(fixed["baseline"])


def test_a_map_has_exact_boundaries_and_checks(tmp_path):
    out = tmp_path / "map"
    done = call(
        f"phase-diagram --solver linear-classify --ridge 1 --flips2 0.1 --alpha1 inf --x alpha2=log:1:100:7 "
        f"--y rho=0.05:0.95:7 --gamma0 5 -o {out}"
    )
    assert (done.code, "warning" in done.err) == (0, False), done.err
    edges = table(Path(out / "boundary.csv").read_text())
    assert len(edges) >= 5
    for edge in edges[:3]:
        χ = np.sqrt(1 + 25 * 2 / np.pi) - 1
        α, r = float(edge["alpha2"]), float(edge["rho"])
        both = [classify(α, c, [r * r] * len(c), ridge=1.0, flips=0.1).error for c in ([], [χ])]
        assert both[0] == pytest.approx(both[1], abs=1e-9)
    assert call(f"check {out}").code == 0
    assert {row["phase"] for row in table(Path(out / "table.csv").read_text())} == {"positive", "negative"}


def test_the_best_richness_of_the_error():
    done = call(
        "phase-diagram --solver linear-classify --ridge 1 --flips2 0.1 --alpha1 2 "
        "--x alpha2=1,30 --y gamma0=0.3,1,3 -o -"
    )
    assert done.code == 0, done.err
    rows = table(done.out)
    for row in rows:
        assert float(row["error_opt"]) <= float(row["error"]) + 1e-12
    one = next(row for row in rows if 0 < float(row["gamma0_opt"]) < np.inf)
    best, near = (
        run(f"--ridge 1 --flips2 0.1 --alpha1 2 --alpha2 {one['alpha2']} --gamma0 {float(one['gamma0_opt']) * x}")[0]
        for x in (1, 1.2)
    )
    assert float(best["error"]) == pytest.approx(float(one["error_opt"]), abs=1e-10)
    assert float(near["error"]) > float(best["error"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--flips2 0.5", "flips2 = 0.5 is not allowed; it must be >= 0 and < 0.5"),
        ("--flips1=-0.1", "flips1 = -0.1 is not allowed; it must be >= 0 and < 0.5"),
        ("--source-labels real --flips1 0.1", "flips1 = 0.1 needs labels that are signs"),
        ("--loss margin --ridge 1", "loss margin has no ridge"),
        ("--loss margin --ridge best", "loss margin has no ridge"),
        ("--loss hige", "did you mean 'hinge'"),
        ("--ridge bestt", "ridge: 'bestt' is not a grid"),
        ("--alpha2 inf", "alpha2 = inf has no classification theory"),
        ("--t2 3", "times for the squared loss alone, not for logistic"),
        ("--loss square --t2 3 --ridge best", "--ridge best is that of training to its end"),
        ("--spikes 3", "--spikes 3 needs --overlaps as well"),
        ("--spikes 3,1 --overlaps 0.5", "2 spikes (3,1) but 1 overlaps (0.5)"),
        ("--spikes 3,x --overlaps 0.5,0", "spikes: '3,x' must be finite numbers with commas"),
        ("--spikes 3,1 --overlaps 0.9,0.9", "the squares of the overlaps add up to 1.62"),
        ("--spikes=-3 --overlaps 0.9", "a spike of -3 on a bulk of 1 is not a kernel"),
        ("--spikes 3,1 --overlaps 0.5,0.2 --bulk 0", "a bulk of 0 with several spikes"),
        ("--c-signal=-2", "needs k + c_signal >= 0, but k = 1, c_signal = -2"),
        ("--c-signal 1 --c-noise 2 --bulk 0 --rho 0.5 --rho-xi 0.5", "a bulk of 0 with several spikes"),
        ("--rho 0.9 --rho-xi 0.9", "need rho^2 + rho_xi^2 <= 1"),
    ],
)
def test_refusals(arguments, sentence):
    done = call(f"finetune-loss --solver linear-classify {arguments} -o -")
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err
    assert done.err.count("\n") == 1


def test_any_number_of_spikes():
    """Three are those of `classify`, two those of the ansatz with the same eigenvalues, whatever the signs."""
    (row,) = run("--alpha2 0.7 --spikes 5,2,1 --overlaps 0.6,-0.4,0.2 --ridge 0.1 --flips2 0.1")
    wanted = classify(0.7, [5.0, 2.0, 1.0], [0.36, 0.16, 0.04], ridge=0.1, flips=0.1)
    assert float(row["error"]) == pytest.approx(float(wanted.error), abs=1e-10)
    (two,) = run("--alpha2 0.7 --spikes 5,2 --overlaps 0.6,-0.4 --ridge 0.1")
    (same,) = run("--alpha2 0.7 --c-signal 5 --c-noise 2 --rho 0.6 --rho-xi 0.4 --ridge 0.1")
    assert float(two["error"]) == pytest.approx(float(same["error"]), abs=1e-10)
    (best,) = run("--alpha2 0.7 --spikes 5,2 --overlaps 0.6,-0.4 --ridge best")
    assert float(best["error"]) <= float(two["error"])


def test_times_of_the_squared_loss():
    found = run("--alpha1 2 --alpha2 0.6 --loss square --flips2 0.2 --times 0,1,10,inf --ridge 0")
    errors = [float(row["error"]) for row in found]
    assert errors[0] == 0.5
    assert {row["best_time"] for row in found} == {found[0]["best_time"]}
    assert float(found[0]["error_stopped"]) <= min(errors)
    (end,) = run("--alpha1 2 --alpha2 0.6 --loss square --flips2 0.2 --ridge 0")
    assert errors[-1] == float(end["error"])
    assert "best_time" not in end


def test_figures_and_verdict_speak_of_the_error(tmp_path):
    assert judged(("train_loss", "error")) == "error"
    assert judged(("train_loss", "error", "loss")) == "loss"
    assert judged(("train_loss",)) == "train_loss"
    assert FigureSpec("map", "x", "gain", judged="error").value_label == "gain in classification error"
    done = call(f"finetune-loss --solver linear-classify --ridge 0.1 -o {tmp_path / 'one'}")
    assert "error 0." in done.err
    assert "train loss" not in done.err
