"""Losses and classes from the command line: tables, what is refused, and that the squared error is left alone."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

FAST = "--p1 12 --p2 10 --ptest 60 --t1 2 --neurons 128 --repeats 3 --quiet"
SMALL = "--p1 6 --p2 5 --ptest 10 --t1 0.5 --neurons 32 --repeats 2 --quiet"  # where numbers do not matter
FROZEN = "finetune-loss --model network"


def table(folder="one"):
    return list(csv.DictReader(Path(folder, "table.csv").read_text(encoding="utf-8").splitlines()))


def test_digits_with_classes_and_a_new_head(tlcli):
    command = f"dmft-solve --source digits:0-2 --target digits:5-9 --readout reset {FAST} --t2 3 --times 0,3"
    assert tlcli(command, "-o one").code == 0, "converged"
    rows = table()
    assert rows[0]["loss_function1"] == rows[0]["loss_function2"] == "softmax"
    first, last = next(row for row in rows if row["stage"] == "2"), rows[-1]
    assert float(first["loss"]) == pytest.approx(np.log(5), abs=1e-7)
    assert float(first["error"]) == pytest.approx(0.8, abs=1e-12)
    assert float(first["baseline_error"]) == pytest.approx(0.8, abs=1e-12), "no noise is ranked"
    assert float(last["loss"]) < np.log(5)
    assert float(last["source_loss"]) < np.log(3), "the old head reports the source"
    heads = ("loss", "loss_se", "error", "loss_calibrated", "temperature", "margin", "train_loss", "train_error_se")
    assert {row[name] for row in rows if row["stage"] == "1" for name in heads} == {""}, "the new head is not there yet"
    assert all(row[name] not in ("", "nan") for row in rows if row["stage"] == "2" for name in heads)


@pytest.mark.parametrize("loss", ["logistic", "softmax", "hinge2", "mse", "huber:0.5"])
def test_every_loss_on_frozen_features(tlcli, loss):
    assert (
        tlcli(
            f"{FROZEN} --source sign:linear --target sign:linear --dim 5 --loss {loss} {FAST} --times 0,5 -o one"
        ).code
        == 0
    )
    (start, end) = table()
    assert float(end["train_loss"]) < float(start["train_loss"])
    assert float(start["error"]) == 0.5
    assert end["gain_error_test_se"]


def test_softmax_of_two_classes_is_logistic(tlcli):
    """The same errors; gamma0 sqrt(2) of softmax, half the time and twice the ridge."""
    tail = "--source sign:linear --target sign:he1+he3 --dim 5 --p1 12 --p2 10 --ptest 60 --neurons 512"
    tail += " --repeats 4 --quiet"
    logistic = f"{FROZEN} {tail} --loss logistic --t1 2 --gamma0 1 --times 0,6 --ridge 0.01"
    softmax = f"{FROZEN} {tail} --loss softmax --t1 1 --gamma0 1.4142135623730951 --times 0,3 --ridge 0.02"
    assert tlcli(logistic, "-o one --tolerance 1e-7").code == 0
    assert tlcli(softmax, "-o two --tolerance 1e-7").code == 0
    one, two = table("one")[-1], table("two")[-1]
    for name in ("loss", "error", "baseline", "train_loss"):
        assert float(one[name]) == pytest.approx(float(two[name]), rel=2e-4, abs=1e-4), name


@pytest.mark.parametrize(
    "command",
    [
        "dmft-solve --times 0,1 --t2 1 --weight-decay 0.1",
        "dmft-solve --times 0,1 --t2 1 --draws 2 --integrator euler --dt 0.5",
        f"{FROZEN} --times 0,1 --draws 2",
        f"{FROZEN} --times 0,1",
    ],
)
@pytest.mark.parametrize("loss", ["", "--loss logistic"])
def test_every_column_of_a_table_can_be_asked_for(tlcli, command, loss):
    """What a run may leave out is known before it starts, and is all that it writes."""
    run = f"{command} --source sign:linear --target sign:linear --dim 4 {loss} {SMALL}"
    assert tlcli(run, "-o one").code in (0, 3)
    names = list(table()[0])
    found = tlcli(run, f"--columns {','.join(names)} -o two")
    assert found.code in (0, 3), found.err
    assert list(table("two")[0]) == names


def test_phase_diagram_by_the_gain_in_error(tlcli):
    command = "phase-diagram --solver network-frozen --source digits:0-2 --target digits:3-5 --p1 20 --ptest 60 --t1 5"
    assert tlcli(command, "--x p2=6,12 --y gamma0=0.3,2 --neurons 256 --repeats 4 -o one --quiet").code in (0, 3)
    rows = table()
    for row in rows:
        gain, error = float(row["gain_error"]), np.hypot(float(row["gain_error_se"]), float(row["gain_error_test_se"]))
        assert row["phase"] == ("neutral" if abs(gain) <= 2 * error else "positive" if gain > 0 else "negative")
    assert "pre-training" in json.loads(Path("one/provenance.json").read_text())["verdict"]


def test_gains_of_squared_errors_within_two_errors_are_neutral_and_bands_hold_both(tlcli):
    """Test points are 60: of the gains that the neurons alone would call signs some are none."""
    command = "phase-diagram --solver network-frozen --source linear --target he1+0.5*he3 --dim 8 --p1 20 --ptest 60"
    assert tlcli(command, "--x p2=6,12 --y gamma0=0.3,2 --t1 5 --neurons 256 --repeats 4 -o one --quiet").code in (0, 3)
    alone = 0
    for row in table():
        gain, neurons, points = (float(row[f"gain{end}"]) for end in ("", "_se", "_test_se"))
        error = np.hypot(neurons, points)
        assert row["phase"] == ("neutral" if abs(gain) <= 2 * error else "positive" if gain > 0 else "negative")
        assert points < np.hypot(float(row["loss_test_se"]), float(row["baseline_test_se"])), "paired"
        alone += row["phase"] == "neutral" and abs(gain) > 2 * neurons
    assert alone, "the test points matter"


def test_a_file_with_numbers_of_classes(tlcli):
    rng = np.random.default_rng(0)
    arrays = {f"x_{name}": rng.standard_normal((n, 4)) for name, n in (("source", 12), ("target", 10), ("test", 8))}
    arrays |= {"y_source": rng.integers(0, 2, 12), "y_target": rng.integers(0, 3, 10), "y_test": rng.integers(0, 3, 8)}
    np.savez("data.npz", **arrays)
    end = "--t1 1 --times 0,1 --neurons 128 --repeats 2 -o one"
    found = tlcli(f"{FROZEN} --source file:data.npz --target file:data.npz --loss softmax {end}")
    assert found.code in (0, 3)
    assert "1 as +1 and 0 as -1" in found.err
    assert float(table()[0]["error"]) <= 1
    assert tlcli(f"{FROZEN} --source file:data.npz --target file:data.npz {end.replace('one', 'two')}").code in (0, 3)
    assert "error" not in table("two")[0], "without a loss the labels stay numbers"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            "--source digits:0-4 --target digits:5-9 --loss logistic",
            "is for two classes, and digits:0-4 has 5; use softmax",
        ),
        ("--source linear --target linear --loss logistic", "use sign:linear"),
        ("--source linear --target linear --loss sofmax", "did you mean 'softmax'"),
        ("--source digits:0-4 --target digits:5-9 --times inf", "no finite optimum"),
        ("--source digits:3v8 --target digits:4v9 --loss hinge2 --times inf", "flat minimum"),
        ("--source digits:0-4 --target digits:5-9 --noise2 0.1", "use --flips2"),
        ("--source digits:3v8 --target digits:4v9 --loss mse --label-smoothing 0.1", "label_smoothing = 0.1 is for"),
        ("--source linear --target linear --flips1 0.1", "flips1 = 0.1: linear has real labels"),
        ("--source linear --target linear --classes", "those of 'linear'"),
        ("--source digits:3v8 --target digits:4v9 --loss huber:x", "write for example huber:1"),
        (
            "--source digits:0-4 --target digits:5-9 --class-weights 1,2 --t1 1 --times 0,1 --p1 9 --p2 9",
            "use none, balanced or 5 positive numbers, one for each class of digits:0-4.",
        ),
        (
            "--source digits:3v8 --target digits:4v9 --class-weights balance",
            "'balance' is unknown; use none, balanced or 2",
        ),
        (
            "--source digits:3v8 --target digits:4v9 --class-weights 1,-2",
            "'1,-2' does not fit; use none, balanced or 2",
        ),
        (
            "--source digits:3v8 --target digits:0-4 --class-weights 1,2",
            "5 positive numbers, one for each class of digits:0-4",
        ),
        (
            "--source digits:3v8 --target digits:4v9 --flips2 0.5",
            "(at one half labels of two classes say nothing, above",
        ),
        ("--source digits:0-4 --target digits:5-9 --flips1 0.6", "the same range holds for more classes)"),
        (
            "--source digits:3v8 --target digits:4v9 --gamma0 1,2 --optimal-gamma0",
            "add --average auto with 3 or more --gamma0, or leave it out",
        ),
        (
            "--source digits:3v8 --target digits:5v9 --p2 5,10 --quantity gain_error",
            "'gain_error' is no column to draw here: networks have it where a task has classes and a loss is named",
        ),
    ],
)
def test_what_is_refused(tlcli, arguments, words):
    found = tlcli(f"{FROZEN} {arguments} -o one --quiet")
    assert found.code == 2, found.err
    assert words in found.err
    assert found.err.count("\n") <= 2


@pytest.mark.parametrize("more", ["", "--dry-run"])
@pytest.mark.parametrize("flag", ["--two-time", "--responses --depth 2"])
@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ("--source digits:0-4 --target digits:5-9", "and digits:0-4 has 5 classes; use a task of numbers or of two"),
        ("--source digits:3v8 --target digits:0-2", "and digits:0-2 has 3 classes; use a task of numbers or of two"),
        ("--source he1 --target he2 --loss mse", "leave out --loss mse, or --"),
        ("--source digits:3v8 --target digits:4v9 --loss2 logistic", "leave out --loss2 logistic, or --"),
        ("--source digits:3v8 --target digits:4v9 --class-weights balanced", "leave out --class-weights balanced, or"),
    ],
)
def test_why_there_is_nothing_between_two_times_is_said(tlcli, flag, given, cause, more):
    """The refusal names what was given, and no option that was not."""
    done = tlcli(f"dmft-solve {given} --p1 6 --p2 5 {flag} -o one {more}")
    assert done.code == 2
    assert cause in done.err
    assert done.err.startswith(f"error: {flag.split()[0]} is for the squared error of a single output")
    assert ("--loss" in done.err) == ("--loss" in given)


@pytest.mark.parametrize(
    ("labels", "says", "leaves"),
    [("--regression", "--regression takes the labels", "--classes"), ("", "or --classes if they are", "--regression")],
)
def test_advice_on_labels_does_not_contradict_what_was_given(tlcli, tmp_path, labels, says, leaves):
    rng = np.random.default_rng(0)
    arrays = {f"x_{name}": rng.normal(size=(6, 3)) for name in ("source", "target", "test")}
    np.savez(tmp_path / "data.npz", **arrays, y_source=rng.normal(size=6), y_target=rng.normal(size=6))
    task = f"file:{tmp_path / 'data.npz'}"
    done = tlcli(f"finetune-loss --model network --source {task} --target {task} --loss softmax {labels} -o one")
    assert done.code == 2
    assert says in done.err
    assert leaves not in done.err


def test_networks_of_finite_width_beside_the_theory(tlcli):
    """Losses and errors of networks stand beside the theory, `check` judges both, and fails a theory that is wrong."""
    command = f"dmft-solve --source digits:0-2 --target digits:5-9 --readout reset {FAST} --t2 3 --times 0,3"
    assert tlcli(command, "--simulate --width 200,100 --nets 8 -o one").code in (0, 3)
    rows = table()
    assert {row["width"] for row in rows} == {"100", "200"}
    second = [row for row in rows if row["stage"] == "2"]
    assert all(float(row[f"sim_{name}_se"]) >= 0 for row in second for name in ("loss", "error", "source_error"))
    assert all(float(row["sim_source_error_se"]) >= 0 for row in rows)
    assert {row["sim_gain_error"] for row in rows if row["stage"] == "1"} == {""}
    found = tlcli("check one")
    assert found.code == 0, found.err
    text = Path("one/table.csv").read_text(encoding="utf-8").splitlines()
    column = text[0].split(",").index("source_error")
    for number in range(1, len(text)):
        cells = text[number].split(",")
        cells[column] = str(min(float(cells[column]) + 0.3, 1.0))
        text[number] = ",".join(cells)
    Path("one/table.csv").write_text("\n".join(text) + "\n", encoding="utf-8")
    found = tlcli("check one")
    assert found.code == 4
    assert "source_error" in found.out + found.err


def test_deep_networks_of_classes(tlcli):
    """Exact linear ones: a new head starts at ln C, the old one goes on, and layers are written."""
    tasks = "--source digits:0-2 --target digits:5-9 --readout reset --depth 2 --activation linear"
    assert tlcli(f"dmft-solve {tasks} --p1 9 --p2 8 --ptest 30 --t1 2 --t2 2 --times 0,2 -o one --quiet").code == 0
    rows = table()
    first, last = next(row for row in rows if row["stage"] == "2"), rows[-1]
    assert float(first["loss"]) == pytest.approx(np.log(5), abs=1e-9)
    assert float(last["train_loss"]) < np.log(5)
    assert float(last["source_loss"]) < np.log(3)
    assert Path("one/layers.csv").exists()


def test_minibatches_are_of_gradient_descent(tlcli):
    """The networks take the theory's steps, and what is no gradient descent is refused with the remedy."""
    tasks = f"dmft-solve --source sign:linear --target sign:linear --dim 4 --loss logistic {FAST} --t2 1 --times 0,1"
    found = tlcli(f"{tasks} --batch 4 -o one")
    assert found.code == 2
    assert "batch = 4 is of gradient descent in steps; give --integrator euler and --dt" in found.err
    steps = "--integrator euler --dt 0.25 --batch 4 --momentum 0.5"
    assert tlcli(f"{tasks} {steps} --simulate --width 200 --nets 6 -o one").code in (0, 3)
    assert {row["batch"] for row in table()} == {"4"}
    assert tlcli("check one").code == 0
    found = tlcli(f"{tasks} {steps.replace('--batch 4', '--batch 40')} -o two")
    assert found.code == 2
    assert "training points; use 1 to" in found.err


def test_predictions_of_several_outputs(tlcli):
    command = f"dmft-solve --source digits:0-1 --target digits:5-7 --readout reset {FAST} --t2 1 --times 0,1"
    found = tlcli(command, "--loss1 logistic --loss2 softmax --predictions -o one")
    assert found.code in (0, 3), found.err
    rows = list(csv.DictReader(Path("one/predictions.csv").read_text(encoding="utf-8").splitlines()))
    last = [row for row in rows if (row["stage"], row["time"]) == ("2", "1")]
    assert {row["output"] for row in last} == {"0", "1", "2"}
    assert {row["output"] for row in rows if row["stage"] == "1"} == {"0"}
    sums = np.array([float(row["prediction"]) for row in last]).reshape(-1, 3).sum(axis=1)
    assert np.allclose(sums, 0, atol=1e-5), "logits are centred"


def test_another_number_of_classes_needs_a_new_head(tlcli):
    found = tlcli("dmft-solve --source digits:0-2 --target digits:5-9 -o one --quiet")
    assert found.code == 2
    assert "3 outputs of softmax and 5 outputs of softmax, whose readouts differ; use --readout reset" in found.err


def test_a_stored_result_with_a_loss_of_both_stages_is_drawn_again(tlcli):
    """Its provenance holds the loss of both stages and of each."""
    command = "dmft-solve --source sign:linear --target sign:linear --dim 4 --gamma0 0 --gamma2 0"
    assert tlcli(command, f"{SMALL} --t2 1 --loss logistic -o one").code == 0
    assert tlcli("plot one --quantity gain_error -o two").code == 0
    drawn = {path.name for path in Path("two").glob("*.png")}
    assert drawn == {"figure.png", "figure-confusion.png", "figure-reliability.png"}
    found = tlcli(command, f"{SMALL} --t2 1 --loss logistic --loss1 mse --loss2 softmax -o three")
    assert (found.code, "--loss logistic has no effect" in found.err) == (2, True)


@pytest.mark.parametrize(
    ("labels", "arguments", "words"),
    [
        ("half", "--classes", "the label 0.5 is no whole number"),
        ("half", "--loss logistic", "use --loss mse, or --classes if they are whole numbers"),
        ("rows", "--loss logistic", "has 3 outputs of a sample; use one-hot rows"),
        ("rows", "--loss softmax", r"rows of probabilities of sum 1, and the source task has ("),
        ("many", "--loss softmax", "8 classes of 6 training points"),
        ("three", "--loss hinge2", "is for two classes"),
    ],
)
def test_labels_of_a_file_that_do_not_fit(tlcli, labels, arguments, words):
    shapes = {"half": lambda n: np.arange(n) % 3 + 0.5, "rows": lambda n: np.ones((n, 3)), "many": np.arange}
    made = {**shapes, "three": lambda n: np.arange(n) % 3}[labels]
    rng, sizes = np.random.default_rng(0), (("source", 6), ("target", 6), ("test", 8))
    arrays = {f"x_{name}": rng.standard_normal((n, 4)) for name, n in sizes}
    np.savez("data.npz", **arrays, **{f"y_{name}": made(n) for name, n in sizes})
    found = tlcli(f"dmft-solve --source file:data.npz --target file:data.npz {arguments} --readout reset -o one")
    assert found.code == 2, found.err
    assert words in found.err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("--source sign:linear --target linear", "linear has real labels: both are trained with mse"),
        ("--source linear --target sign:linear --loss2 logistic", "is trained with mse, the target with logistic"),
        ("--source sign:linear --target linear --loss1 logistic --loss2 mse", None),
        ("--source sign:linear --target sign:linear --loss1 logistic", "with logistic, the target with mse"),
        ("--source sign:linear --target sign:linear --loss logistic", None),
    ],
)
def test_what_each_task_is_trained_with_is_told_where_nobody_chose_it(tlcli, command, words):
    found = tlcli(f"{FROZEN} {command} --dim 4 --p1 6 --p2 5 --ptest 9 --t1 1 --t2 1 --neurons 32 --repeats 2 -o one")
    assert found.code in (0, 3), found.err
    assert (f"{words}; --loss1 and --loss2 set other losses." in found.err) if words else ("--loss1" not in found.err)


def test_a_class_without_training_points_is_told_of_two_classes_too(tlcli):
    command = f"{FROZEN} --source digits:0-9 --target digits:3v8 --loss softmax --p1 3 --p2 1 --ptest 20 --t1 0.1"
    found = tlcli(f"{command} --times 0,1 --neurons 64 --repeats 2 -o one")
    assert found.code in (0, 3)
    assert "no source point has the classes " in found.err
    assert "no target point has the class " in found.err
