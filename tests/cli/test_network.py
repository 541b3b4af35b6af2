"""Networks from the command line: files, streams, the store, refusals, and the way back from provenance."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

TINY = "--dim 3 --p1 8 --p2 6 --ptest 20 --neurons 64 --repeats 2 --accuracy 1 --quiet"
TASK = f"--source linear --target hermite:2 {TINY}"
CURVE = f"dmft-solve {TASK} --times 0,0.5,1"
LOSSES = ["loss", "baseline", "gain", "train_loss", "source_loss", "source_train_loss"]


def read(path):
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_curve_has_a_row_per_record_and_the_baseline_beside_it(tlcli):
    assert tlcli(CURVE, "--gamma2 0.5,2 --draws 2 -o out").code == 0
    rows = read("out/table.csv")
    assert [(r["gamma2"], r["stage"], r["time"]) for r in rows[:7]] == [
        *[("0.5", "1", t) for t in ("0", "0.5", "1")],
        *[("0.5", "2", t) for t in ("0", "0.5", "1")],
        ("2", "1", "0"),
    ]
    assert "record" not in rows[0]
    for row in rows:
        empty = {name for name, cell in row.items() if cell == ""}
        sampled = ("baseline", "gain", "best_loss", "overfitting")
        of_target = {f"{name}{end}" for name in sampled for end in ("", "_se", "_test_se", "_draw_se")} | {"best_time"}
        assert empty == (of_target if row["stage"] == "1" else set()), "stage 1 has no baseline"
        number = {name: float(row[name] or "nan") for name in LOSSES}
        if row["stage"] == "2":
            assert number["gain"] == pytest.approx(number["baseline"] - number["loss"], abs=1e-9)
        assert float(row["loss_se"]) >= 0
        assert (row["t1"], row["t2"], row["draws"], row["status"]) == ("1", "1", "2", "converged")
        assert float(row["loss_draw_se"]) >= 0
    names = sorted(path.name for path in Path("out").iterdir())
    assert names == [
        *("figure-densities.png", "figure-kernels.png", "figure.png", "kernels.npz"),
        *("provenance.json", "table.csv", "theory"),
    ]
    kept = json.loads(Path("out/provenance.json").read_text())
    assert kept["rows"] == 12
    (described,) = kept["networks"]
    assert described["data"]["p1"] == 8
    assert described["engine"]["neurons"] == 64
    with np.load("out/kernels.npz") as archive:
        assert archive["axis_order"].tolist() == ["gamma2"]
        assert archive["phi_stage1"].shape == (2, 34, 14)
        assert archive["n_source"].tolist() == [8, 8]


def test_the_output_jumps_at_the_switch_unless_it_is_centred_or_drawn_anew(tlcli):
    def losses(readout):
        done = tlcli(f"dmft-solve {TASK} --times 0,1 --gamma0 1 --gamma2 0.5 --readout {readout} -o -")
        rows = list(csv.DictReader(io.StringIO(done.out)))
        return {(r["stage"], r["time"]): float(r["source_train_loss"]) for r in rows}

    carried, centred = losses("carry"), losses("carry-centred")
    assert carried["1", "1"] == centred["1", "1"]
    assert carried["2", "0"] != pytest.approx(carried["1", "1"], rel=0.1)
    assert centred["2", "0"] == pytest.approx(centred["1", "0"], rel=0.05), "from zero output"


def test_predictions_are_a_table_of_every_point_and_record(tlcli):
    assert tlcli(CURVE, "--gamma2 0.5,2 --predictions --kernels 0.5 -o out").code == 0
    rows = read("out/predictions.csv")
    assert len(rows) == 2 * 6 * (8 + 6 + 20)
    table = read("out/table.csv")
    one = [r for r in rows if (r["gamma2"], r["stage"], r["time"], r["set"]) == ("2", "2", "1", "test")]
    assert [r["index"] for r in one] == [str(i) for i in range(20)]
    loss = np.mean([(float(r["prediction"]) - float(r["label"])) ** 2 for r in one])
    source = np.mean([(float(r["prediction"]) - float(r["label_source"])) ** 2 for r in one])
    # The table's losses are without the variance of predictions.
    assert loss == pytest.approx(float(table[-1]["loss"]), abs=float(table[-1]["loss_se"]))
    assert source == pytest.approx(float(table[-1]["source_loss"]), abs=float(table[-1]["source_loss_se"]))
    train = [r for r in rows if (r["gamma2"], r["stage"], r["time"], r["set"]) == ("0.5", "1", "1", "source")]
    loss = np.mean([(float(r["prediction"]) - float(r["label"])) ** 2 for r in train])
    assert loss == pytest.approx(float(table[2]["source_train_loss"]), abs=float(table[2]["source_train_loss_se"]))
    assert {r["label_source"] for r in train} == {""}
    with np.load("out/kernels.npz") as archive:
        assert {"phi_stage1_t0.5", "phi_stage2_t0.5", "predictions"} <= set(archive.files)
        assert {"phi_se_stage1_t0.5", "g_se_stage2", "density_se_stage2"} <= set(archive.files)
        assert np.all(archive["phi_se_stage2"] > 0)
    assert tlcli(CURVE, "-o out --force").code == 0
    assert not Path("out/predictions.csv").exists(), "those of another run"


def test_jobs_shards_and_interruptions_change_nothing(rendered, tlcli):
    grid = "--gamma2 0.5,2 --draws 2"
    assert tlcli(CURVE, grid, "-o one").code == 0
    assert tlcli(CURVE, grid, "-o many --jobs 2").code == 0
    for shard in ("1/2", "2/2"):
        done = tlcli(CURVE, grid, f"-o parts --shard {shard}")
        assert done.code == 0
        assert not Path("parts/table.csv").exists()
    done = tlcli(CURVE, grid, "-o parts --dry-run")
    assert "4 points and draws of the data, 4 already stored, 0 to compute" in done.out
    assert tlcli(CURVE, grid, "-o parts").code == 0
    for name in ("table.csv", "kernels.npz", "figure.png"):
        assert Path("many", name).read_bytes() == Path("one", name).read_bytes()
        assert Path("parts", name).read_bytes() == Path("one", name).read_bytes()
    stored = {path: path.stat().st_mtime_ns for path in Path("one/theory/points").rglob("*.json")}
    assert len(stored) == 4
    assert tlcli(CURVE, "--gamma2 0.5,2,3 --draws 2 -o one").code == 0
    assert all(path.stat().st_mtime_ns == time for path, time in stored.items()), "kept, not computed again"
    assert len(list(Path("one/theory/points").rglob("*.json"))) == 6
    printed = tlcli(CURVE, grid, "-o -").out
    assert printed == Path("many/table.csv").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        f"{CURVE} --gamma2 0.5,2 --noise1 0.1 --y gamma2 --title Curves",
        f"dmft-solve {TASK} --t1 1 --t2 2 --until 0.5 --weight-decay 0.1 --reduction sum --quantity source_loss",
        f"finetune-loss --model network {TASK} --t1 1 --gamma0 0.5,1 --simulate --width 8 --nets 2",
        f"finetune-loss --solver network-rich {TASK} --t1 1 --times 0,1 --gamma0 1",
        f"pretrain-kernel --model network --source hermite:2 {TINY.replace('--p2 6', '')} --times 0,1 --gamma0 1,2",
        "phase-diagram --solver network-frozen --source linear --target hermite:2 --dim 4 --ptest 20 --neurons 64 "
        "--repeats 2 --t1 1 --alpha1 2 --x alpha2=1,2 --y gamma0=1,2 --quiet",
    ],
)
def test_provenance_is_a_recipe(rendered, tlcli, arguments):
    assert tlcli(arguments, "-o one").code in (0, 3)
    content = json.loads(Path("one/provenance.json").read_text())
    Path("one.yaml").write_text(json.dumps({**content["recipe"], "command": content["command"]}))
    assert tlcli("run one.yaml -o again --quiet").code in (0, 3)
    assert Path("again/one/table.csv").read_bytes() == Path("one/table.csv").read_bytes()
    again = json.loads(Path("again/one/provenance.json").read_text())
    assert {**again, "wall_time_seconds": 0} == {**content, "wall_time_seconds": 0}
    assert Path("again/one/figure.png").read_bytes() == Path("one/figure.png").read_bytes()


def test_a_recipe_with_cases_of_different_solvers(tlcli):
    recipe = {
        "command": "finetune-loss",
        "source": "linear",
        "target": "linear",
        "dim": 3,
        "p1": 8,
        "ptest": 20,
        "neurons": 64,
        "repeats": 2,
        "t1": 1,
        "p2": "2,4",
        "activation": "linear",
        "cases": [
            {"label": "frozen", "model": "network"},
            {"label": "rich", "solver": "network-rich", "t2": 1},
        ],
    }
    Path("two.yaml").write_text(json.dumps(recipe))
    assert tlcli("run two.yaml -o out --quiet").code == 0
    rows = read("out/two/table.csv")
    assert [(r["case"], r["p2"], r["time"]) for r in rows] == [
        *[("frozen", p, "inf") for p in ("2", "4")],
        *[("rich", p, "1") for p in ("2", "4")],
    ]


def test_the_users_own_files(tlcli):
    rng = np.random.default_rng(0)
    arrays = {f"x_{name}": rng.standard_normal((n, 5)) for name, n in (("source", 9), ("target", 7), ("test", 4))}
    labels = {f"y_{name}": arrays[f"x_{name}"][:, 0] for name in ("source", "target")}
    np.savez("data.npz", **arrays, **labels)
    task = "--source file:data.npz --target file:data.npz --neurons 64 --repeats 2 --quiet"
    assert tlcli(f"dmft-solve {task} --times 0.25,1 --predictions -o out").code == 0
    rows = read("out/table.csv")
    assert {(r["p1"], r["p2"], r["dim"]) for r in rows} == {("9", "7", "5")}
    assert {r["loss"] for r in rows} == {"nan"}, "no labels, no test loss"
    assert {r["label"] for r in read("out/predictions.csv") if r["set"] == "test"} == {""}
    arrays["x_test"][2, 3] = np.nan
    np.savez("data.npz", **arrays, **labels)
    done = tlcli(f"dmft-solve {task} --times 0.25,1 -o other")
    assert done.code == 2
    assert "x_test holds 1 NaN or infinite value" in done.err


def test_divergence_keeps_what_was_computed(tlcli):
    done = tlcli(
        CURVE.replace("0,0.5,1", "0,20,100"), "--activation relu --integrator euler --dt 20 --gamma0 1,10 -o out"
    )
    assert done.code == 3
    assert "warning: gamma0 = 1: stage 1: broke off at t = " in done.err
    assert "use --dt" in done.err
    rows = read("out/table.csv")
    assert len(rows) == 12
    assert [(r["status"], r["loss"] == "nan") for r in rows[:2]] == [("converged", False)] * 2
    assert rows[5]["status"] == "not_converged"
    assert rows[5]["loss"] == "nan"
    assert tlcli("check out").code == 3


def test_a_network_agrees_with_the_experiment(tlcli):
    run = f"dmft-solve {TASK} --p1 12 --neurons 4096 --times 0,0.5,2 --gamma0 1 --gamma2 0.5"
    assert tlcli(run, "--simulate --width 64,256 --nets 12 -o out").code == 0
    done = tlcli("check out")
    assert done.code == 0, done.out
    assert "experiment agrees: 30 comparisons" in done.out
    rows = read("out/table.csv")
    assert {(r["experiment"], r["width"], r["nets"]) for r in rows} == {("network", n, "12") for n in ("64", "256")}
    assert all(float(r["sim_step_error"]) < 0.05 for r in rows)
    measured = [n for n in rows[0] if n.removesuffix("_se") in ("sim_baseline", "sim_gain")]
    assert len(measured) == 4
    assert all((r[name] == "") == (r["stage"] == "1") for r in rows for name in measured)
    # Twin: a theory without the jump at the switch.
    changed = [{**r, "loss": str(1.3 * float(r["loss"]))} if r["stage"] == "2" else r for r in rows]
    with open("out/table.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(changed)
    assert tlcli("check out").code == 4


def test_frozen_features_against_p2(tlcli):
    run = f"finetune-loss --model network {TASK.replace('--p2 6', '')} --p2 2,6 --gamma0 1 --t1 2"
    assert tlcli(run, "-o out --draws 3").code == 0
    rows = read("out/table.csv")
    assert [(r["p2"], r["time"]) for r in rows] == [("2", "inf"), ("6", "inf")]
    for row in rows:
        gain, error = float(row["gain"]), float(row["gain_draw_se"])
        assert row["phase"] == ("neutral" if abs(gain) <= 2 * error else "positive" if gain > 0 else "negative")
        assert float(row["train_loss"]) < 1e-9, "interpolation"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("dmft-solve --source liner --target linear", "Unknown task 'liner' (did you mean 'linear'?)"),
        ("dmft-solve --source linear", "needs --target"),
        ("dmft-solve --target linear", "needs --source"),
        (f"{CURVE} --activation tnah", "'tnah' is unknown (did you mean 'tanh'?)"),
        (f"{CURVE} --readout cary", "did you mean 'carry'?"),
        (f"{CURVE} --gamma0 inf", "gamma0 = inf must be a finite number"),
        (f"{CURVE} --alpha1 2", "--p1 and --alpha1 are both given"),
        (f"{CURVE} --kernels 0.7", "kernels: 0.7 is no recorded time"),
        (
            f"{CURVE.replace('--repeats 2', '')} --population quadrature --dim 9",
            "quadrature needs inputs of rank 3 or less",
        ),
        (f"{CURVE} --accuracy 0", "accuracy = 0 is not allowed"),
        (f"{CURVE} --dt 0.1", "dt = 0.1 is the learning rate of --integrator euler"),
        (f"{CURVE} --quantity los", "'los' is no column to draw (did you mean 'loss'?)"),
        (f"{CURVE} --y gamma2", "--y: 'gamma2' has one value only"),
        (f"{CURVE} --gamma0 0 --simulate", "no gamma0 = 0"),
        (f"{CURVE} --simulate --experiment population", "'population' is not available for network-rich"),
        (f"{CURVE} --colour", "colour is for cifar10 tasks"),
        ("dmft-solve --source digits:3v8 --target digits:4v9 --p1 2000", "p1 = 2000"),
        (f"finetune-loss --model network {TASK} --trials 3", "network-frozen has no trials"),
        (f"finetune-loss --model network {TASK} --c-cross 3", "network-frozen does not use 'c_cross'"),
        (f"finetune-loss --model network --solver linear-joint {TASK}", "--model network has no solver 'linear-joint'"),
        (f"finetune-loss --model linear --solver network-rich {TASK}", "--model linear has no solver 'network-rich'"),
        (f"finetune-loss --model network {TASK} --gamma0 1,2 --optimal-gamma0", "add --average auto"),
        (f"finetune-loss --model network {TASK} --times 0,1 --t2 1", "times and t2 are both given"),
        (f"pretrain-kernel --model network --solver network-rich {TASK}", "give --model network alone"),
        ("finetune-loss --nets 3", "linear-exact does not use 'nets'"),
        ("finetune-loss --activation relu", "linear-exact does not use 'activation'"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_computed(tlcli, arguments, words):
    done = tlcli(arguments, "-o out")
    assert done.code == 2
    assert words in done.err
    assert done.err.count("\n") == 1
    assert not Path("out/table.csv").exists()


def test_a_missed_accuracy_is_told_and_ends_with_3_where_it_is_strict(tlcli):
    hasty = CURVE.replace("--accuracy 1", "")
    done = tlcli(f"{hasty} --accuracy 1e-6 -o out")
    assert done.code == 0
    assert "1 of 1 solution is inaccurate: asked 1e-06, reached 0.0" in done.err
    assert {row["status"] for row in read("out/table.csv")} == {"inaccurate"}
    assert tlcli(f"{hasty} --accuracy 1e-6 --strict -o out").code == 3
    assert tlcli("check out").code == 0
    assert tlcli("check out --strict").code == 3
    assert tlcli(f"{CURVE} --strict -o good").code == 0
