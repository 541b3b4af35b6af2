"""`bayes-saddle` and the Bayesian phase diagrams from the command line: files, streams, the store, refusals."""

import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest

from tlcli.bayes import bayes_transfer
from tlcli.bayes.saddle import CONVERGED, NOT_CONVERGED
from tlcli.bayes.sampling import source, target
from tlcli.errors import ConvergenceError

SIZES = "--dim 6 --p1 9 --p2 4 --ptest 30 --quiet"
TASK = f"bayes-saddle --source linear --target linear {SIZES}"
LOSSES = ["loss", "baseline", "gain", "train_loss", "source_loss", "source_train_loss"]


def read(path):
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(autouse=True)
def forgotten():
    bayes_transfer._MEMORY.clear()


def test_a_grid_has_a_row_per_point_and_its_files(tlcli):
    assert tlcli(TASK, "--gamma0 0.5,2 --delta 0,1,inf --draws 2 -o out").code == 0
    rows = read("out/table.csv")
    assert [(r["gamma0"], r["gamma2"], r["delta"]) for r in rows] == [
        (g, g, d) for g in ("0.5", "2") for d in ("0", "1", "inf")
    ]
    for row in rows:
        number = {name: float(row[name]) for name in LOSSES}
        assert number["gain"] == pytest.approx(number["baseline"] - number["loss"], abs=1e-12)
        assert (row["beta"], row["beta2"], row["status"]) == ("50", "50", "converged")
        assert float(row["residual"]) < 1e-9
        assert row["delta_opt"] in ("0", "1", "inf")
        assert row["phase"] == "neutral" or row["delta"] != "0"
    assert sorted(path.name for path in Path("out").iterdir()) == [
        *("bayes", "figure-densities.png", "figure-kernels.png", "figure.png", "kernels.npz"),
        *("provenance.json", "table.csv"),
    ]
    with np.load("out/kernels.npz") as archive:
        assert archive["axis_order"].tolist() == ["gamma0", "delta"]
        assert archive["kernel_target"].shape == (2, 3, 13, 13)
        assert archive["kernel_target_test"].shape == (2, 3, 30, 43)
        assert archive["points_test"][0, 0].tolist() == list(range(30))
        assert np.all(np.diff(archive["labels_source"][0, 0]) >= 0)
    (described,) = json.loads(Path("out/provenance.json").read_text())["networks"]
    assert described["engine"]["route"] == "linear"


def test_jobs_shards_and_interruptions_change_nothing(rendered, tlcli):
    grid = "--gamma0 0.5,2 --delta 0,1 --draws 2"
    assert tlcli(TASK, grid, "-o one").code == 0
    assert tlcli(TASK, grid, "-o many --jobs 2").code == 0
    for shard in ("1/2", "2/2"):
        assert tlcli(TASK, grid, f"-o parts --shard {shard}").code == 0
        assert not Path("parts/table.csv").exists()
    done = tlcli(TASK, grid, "-o parts --dry-run")
    assert "8 points and draws of the data, 8 already stored, 0 to compute" in done.out
    assert tlcli(TASK, grid, "-o parts").code == 0
    for name in ("table.csv", "kernels.npz", "figure.png"):
        assert Path("many", name).read_bytes() == Path("one", name).read_bytes()
        assert Path("parts", name).read_bytes() == Path("one", name).read_bytes()
    assert len(list(Path("one/bayes/points").rglob("*.json"))) == 8
    assert tlcli(TASK, "--gamma0 0.5,2 --delta 0,1,3 --draws 2 -o one").code == 0
    assert len(list(Path("one/bayes/points").rglob("*.json"))) == 12
    assert tlcli(TASK, grid, "-o -").out == Path("many/table.csv").read_text()


def test_provenance_is_a_recipe_that_gives_the_same_bytes(tlcli):
    assert tlcli(TASK, "--gamma0 0.5,2 --delta 0,1 --noise1 0.2 --no-optimal-delta -o one").code == 0
    kept = json.loads(Path("one/provenance.json").read_text())
    Path("again.yaml").write_text(json.dumps(kept["recipe"]))
    assert tlcli("bayes-saddle again.yaml --quiet -o two").code == 0
    assert Path("one/table.csv").read_bytes() == Path("two/table.csv").read_bytes()
    assert "delta_opt" not in read("one/table.csv")[0]


def test_predictions_are_a_table_of_both_networks(tlcli):
    assert tlcli(TASK, "--delta 0,2 --predictions -o out").code == 0
    rows = read("out/predictions.csv")
    assert len(rows) == 2 * 2 * (9 + 4 + 30)
    assert {row["time"] for row in rows} == {""}
    table = {r["delta"]: r for r in read("out/table.csv")}
    for delta in ("0", "2"):
        for stage, column, name in (("2", "label", "loss"), ("1", "label_source", "source_loss")):
            one = [r for r in rows if (r["delta"], r["stage"], r["set"]) == (delta, stage, "test")]
            loss = np.mean([(float(r["prediction"]) - float(r[column])) ** 2 for r in one])
            assert loss == pytest.approx(float(table[delta][name]))


def test_whitened_data_are_a_closed_form(tlcli):
    norms = "--label-overlap 0.5 --label-norm1 4 --label-norm2 2"
    networks = "--gamma0 2 --beta 10 --gamma2 1.5 --beta2 5 --delta 0,1.5"
    done = tlcli(f"bayes-saddle --whitened labels {norms} {networks} --quiet -o -")
    alone, row = csv.DictReader(io.StringIO(done.out))
    # The note's values of "diff labels".
    for name, value in (
        ("source_overlap", 4.443791579),
        ("target_overlap", 2.132630497),
        ("cross_overlap", 1.476181879),
        ("retained_overlap", 2.182749128),
        ("perpendicular", 0.76),
    ):
        assert float(row[name]) == pytest.approx(value, rel=1e-9)
    assert float(alone["gain"]) == float(alone["evidence_gain"]) == 0
    assert row["delta_opt"] == "0"
    assert tlcli("bayes-saddle --whitened same --gamma0 1,3 --delta log:0.01:100:9 --quiet -o out").code == 0
    written = ["figure.png", "order-parameters.npz", "provenance.json", "table.csv"]
    assert sorted(p.name for p in Path("out").iterdir()) == written


@pytest.mark.parametrize(
    "arguments",
    [
        "--solver bayes-whitened --whitened labels --x delta=log:0.1:10:7 --y gamma2=log:0.1:10:6",
        f"--solver bayes-linear --source linear --target linear {SIZES} --x delta=log:0.1:10:4 --y gamma2=0.3,1,3",
        "--solver bayes-network --source linear --target linear --dim 2 --p1 4 --p2 3 --ptest 10 --activation tanh "
        "--x gamma0=0.5,1 --y delta=0.5,2 --quiet",
    ],
)
def test_phase_diagrams(tlcli, arguments):
    done = tlcli("phase-diagram", arguments, "-o out")
    assert done.code == 0, done.err
    rows = read("out/table.csv")
    assert {row["status"] for row in rows} == {"converged"}
    assert all("gain" in row and "delta_opt" in row for row in rows)
    assert Path("out/figure.png").exists()
    assert not Path("out/kernels.npz").exists()


def test_cases_of_one_recipe_may_mix_theories(tlcli):
    Path("mix.yaml").write_text(
        "command: phase-diagram\nsource: linear\ntarget: linear\ndim: 4\np1: 6\np2: 4\nptest: 20\ngamma0: [0.5, 1]\n"
        "quantity: gain\nstyle: curves\nx: gamma0\ncases:\n  - {label: Bayes, solver: bayes-linear, delta: 1}\n"
        "  - {label: gradient flow, solver: network-rich, activation: linear, neurons: 32, repeats: 2, t1: 1, t2: 1}\n"
    )
    done = tlcli("phase-diagram mix.yaml --quiet -o out")
    assert done.code == 0, done.err
    assert {"bayes", "theory"} <= {path.name for path in Path("out").iterdir()}
    assert [row["case"] for row in read("out/table.csv")] == ["Bayes"] * 2 + ["gradient flow"] * 2


def test_the_posterior_beside_the_theory_agrees(tlcli):
    simulate = "--gamma0 1 --beta 4 --delta 0,1 --simulate --width 40,80 --nets 8"
    assert tlcli(TASK, simulate, "-o out").code == 0
    rows = read("out/table.csv")
    assert [row["width"] for row in rows] == ["40", "40", "80", "80"]
    assert all(float(row["sim_loss_se"]) > 0 for row in rows)
    done = tlcli("check out")
    assert done.code == 0, done.out
    assert "agrees" in done.out
    # The twin: theory of another coupling in the same table.
    text = Path("out/table.csv").read_text().splitlines()
    other = read("out/table.csv")
    at = text[0].split(",").index("target_overlap")
    lines = [line.split(",") for line in text]
    for line, row in zip(lines[1:], other, strict=True):
        line[at] = str(1.1 * float(row["target_overlap"]))
    Path("out/table.csv").write_text("\n".join(",".join(line) for line in lines) + "\n")
    assert tlcli("check out").code == 4


def test_the_same_inputs_are_told_once(tlcli):
    rng = np.random.default_rng(0)
    x, test = rng.standard_normal((5, 8)), rng.standard_normal((10, 8))
    t = rng.standard_normal((2, 8))
    np.savez("same.npz", x_source=x, y_source=x @ t[0], x_target=x, y_target=x @ t[1], x_test=test, y_test=test @ t[1])
    run = "bayes-saddle --source file:same.npz --target file:same.npz --raw-inputs --delta 0.1,1,10 --gamma0 1,2"
    done = tlcli(run, "--beta2 inf -o out")
    assert done.code == 0, done.err
    assert done.err.count("cannot depend on delta") == 1
    rows = read("out/table.csv")
    assert len({f"{float(row['loss']):.9f}" for row in rows}) == 1
    assert {row["delta_opt"] for row in rows} == {"nan"}, "none is the best"
    assert "the loss is the same for every delta on 2 of 2 lines of the grid" in " ".join(done.err.split())
    assert "cannot depend on delta" in Path("out/provenance.json").read_text()
    assert "cannot depend" not in tlcli(run, "--beta2 20 -o other").err


def test_a_point_that_is_not_certified_is_a_row_without_numbers(tlcli, monkeypatch):
    original = bayes_transfer.linear_target

    def uncertain(x, rows, y, gamma, beta, delta, source):
        found = original(x, rows, y, gamma, beta, delta, source)
        return found if delta < 5 else dataclasses.replace(found, status=NOT_CONVERGED, message="raise the budget.")

    monkeypatch.setattr(bayes_transfer, "linear_target", uncertain)
    done = tlcli(TASK.replace("--quiet", ""), "--delta 0,1,10 -o out")
    assert done.code == 3
    assert "delta = 10: target: raise the budget." in done.err
    rows = read("out/table.csv")
    assert [row["status"] for row in rows] == ["converged", "converged", "not_converged"]
    assert rows[2]["loss"] == rows[2]["gain"] == rows[2]["free_energy"] == "nan"
    assert float(rows[2]["baseline"]) == float(rows[0]["baseline"])
    assert {row["delta_opt"] for row in rows} == {"nan"}, "the best may be the one that is not known"
    with np.load("out/kernels.npz") as archive:
        assert np.isnan(archive["kernel_target"][2]).all()
        assert np.isfinite(archive["kernel_source"]).all()
    assert tlcli("check out").code == 3


def test_a_refused_stage_is_the_same_row_alone_and_in_a_grid(tlcli):
    """Labels with noise have no target at beta2 = inf: exit 3 with one sentence, and what the source found."""
    noisy = f"{TASK.replace('--dim 6', '--dim 2')} --noise2 1"
    alone = tlcli(noisy, "--beta2 inf --delta 1 -o alone")
    grid = tlcli(noisy, "--beta2 10,inf --delta 0,1 -o grid")
    sentence = "target alone: beta = inf needs labels that the kernel can fit"
    for done in (alone, grid):
        assert done.code == 3
        assert sentence in " ".join(done.err.split())
        assert "Error" not in done.err
    (one,) = read("alone/table.csv")
    rows = {(row["beta2"], row["delta"]): row for row in read("grid/table.csv")}
    for name in (*LOSSES, "source_overlap", "free_energy", "status"):
        assert rows["inf", "1"][name] == one[name], name
    assert one["status"] == "not_converged"
    assert one["loss"] == "nan"
    assert float(one["source_loss"]) > 0
    assert {rows["10", delta]["status"] for delta in ("0", "1")} == {"converged"}
    # At delta = 0 the target is the target alone: one sentence for it, one for delta = 1 with both stages.
    assert grid.err.count("beta = inf needs labels") == 2


def test_a_loss_that_no_coupling_changes_has_no_best_one(tlcli):
    done = tlcli("bayes-saddle --whitened same --delta 0,1,inf --beta inf --quiet -o -")
    assert {row["delta_opt"] for row in csv.DictReader(io.StringIO(done.out))} == {"nan"}


def test_a_dry_run_says_how_long_and_how_large(tlcli):
    grid = "--gamma0 1,2 --delta 0,1 --simulate --width 16 --nets 4"
    done = tlcli(TASK, grid, "--dry-run -o out")
    lines = [line.strip() for line in done.out.splitlines()]
    assert lines[1] == "theory: 4 points and draws of the data, 0 already stored, 4 to compute"
    assert lines[2] == "less than 1 s on 1 worker, 135 MB: 2 sources, 2 targets alone, 2 tied targets by linear"
    assert lines[3] == "experiments: 4 points, 0 already stored, 4 to compute"
    assert lines[4].endswith("MB")
    assert "on 1 worker" in lines[4]
    assert tlcli(TASK, "--gamma0 1 --delta 0,1 -o out").code == 0
    done = tlcli(TASK, "--gamma0 1,2 --delta 0,1 -o out --dry-run")
    assert "1 source, 1 target alone, 1 tied target by linear" in done.out, "the rest is stored"
    done = tlcli(TASK, "--activation erf --dry-run -o other")
    assert "if all is certified at once, at most about" in done.out
    assert "by sampling" in done.out
    assert not Path("other").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (f"{TASK} --beta 0", "beta = 0 is not allowed; it must be > 0, or inf."),
        (f"{TASK} --delta 1,-0.5", "delta = -0.5 is not allowed; it must be >= 0, or inf."),
        (f"{TASK} --gamma0 inf", "gamma0 = inf is outside its range: use a number from 0 to 1e100."),
        (f"{TASK} --gamma0 -1", "gamma0 = -1 is not allowed; it must be >= 0 and finite for Bayesian networks."),
        ("bayes-saddle --whitened same --gamma2=-2,1", "gamma2 = -2 is not allowed; it must be >= 0 and finite"),
        (f"{TASK} --beta inf --dim 2 --noise1 1 --noise2 1", "source: beta = inf needs labels that the kernel can fit"),
        (f"{TASK} --activation he2 --dim 2", "he2 grows faster than linearly"),
        ("bayes-saddle --whitened labels --label-overlap 1.2", "label_overlap = 1.2 is not allowed"),
        ("bayes-saddle --whitened sam", "'sam' is unknown; use one of decoupled, same, labels (did you mean 'same'?)"),
        (f"{TASK} --optimal-delta", "needs several --delta"),
        ("finetune-loss --optimal-delta", "finetune-loss does not take 'optimal_delta'"),
        ("phase-diagram --optimal-delta --x alpha2=0.1,1 --y rho=0,1", "linear-exact has no delta"),
        (f"{TASK} --simulate --experiment network", "experiment: 'network' is not available for bayes-linear"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(tlcli, arguments, message):
    done = tlcli(arguments, "-o out")
    assert done.code == 2, done.err
    text = " ".join(done.err.split())
    assert message in text or "No such option" in text
    assert not Path("out/table.csv").exists()


def test_lazy_and_rigid_networks_of_any_rank_are_solved(tlcli):
    """At δ = 0 and ∞ nothing is sampled for γ = 0; a nearly lazy network has a single lobe, and no round trips."""
    assert tlcli(TASK, "--activation erf --gamma0 0,0.05 --delta 0,inf --moves 100 --quiet -o out").code == 0
    rows = {(r["gamma0"], r["delta"]): r for r in read("out/table.csv")}
    assert {row["status"] for row in rows.values()} == {"converged"}
    assert float(rows["0", "0"]["loss"]) == pytest.approx(float(rows["0", "inf"]["loss"]), rel=1e-9), "no memory"
    for delta in ("0", "inf"):
        lazy, near = (float(rows[gamma, delta]["loss"]) for gamma in ("0", "0.05"))
        assert near == pytest.approx(lazy, rel=0.05)
    assert rows["0.05", "0"]["round_trips"] in ("inf", "nan")


@pytest.fixture
def condensed(monkeypatch):
    """Sources of few chains, called certified, of which two atoms are said to have condensed."""
    solve = source.sampled_source

    def short(*problem, **how):
        found = solve(*problem, **{**how, "chains": 64, "moves": 60, "doublings": 0})
        atoms = (np.array([[1.0, -0.5, 1.0], [-1.0, 0.5, -1.0]]), np.array([0.05, 0.05]))
        return dataclasses.replace(found, status=CONVERGED, message="", condensates=(atoms, atoms))

    monkeypatch.setattr(source, "sampled_source", short)
    monkeypatch.setattr(target, "_FEWEST", 512)


RELU = f"{TASK.replace(SIZES, '--dim 3 --p1 5 --p2 4 --ptest 10')} --activation relu --beta 20 --moves 150"
OF_SOURCE = ["source_loss", "source_train_loss", "source_overlap", "source_free_energy", "baseline"]


def test_a_target_around_a_condensed_source_is_a_row(tlcli, condensed):
    done = tlcli(RELU, "--delta 1 --quiet -o out")
    assert done.code == 0, done.err
    (row,) = read("out/table.csv")
    assert row["status"] == "converged"
    assert all(np.isfinite(float(row[name])) for name in [*OF_SOURCE, "loss", "free_energy", "loss_se"])
    (described,) = json.loads(Path("out/provenance.json").read_text())["networks"]
    assert 0 < described["engine"]["target"]["dragged"] < 0.5


@pytest.mark.parametrize("raises", [False, True])
def test_a_target_that_is_not_solved_leaves_its_condensed_source(tlcli, condensed, monkeypatch, raises):
    """Whether it gave up or was not certified: one sentence, the columns of the source, and exit code 3."""
    sentence = "the chains do not settle: raise --moves."

    def uncertain(*problem, seed, **how):
        if raises:
            raise ConvergenceError(sentence)
        found = source.sampled_source(*problem[:6], seed=seed)
        return dataclasses.replace(found, status=NOT_CONVERGED, message=sentence)

    monkeypatch.setattr(target, "sampled_target", uncertain)
    done = tlcli(RELU, "--delta 0,1 -o out")
    assert done.code == 3
    assert f"delta = 1: target: {sentence}" in " ".join(done.err.split())
    alone, row = read("out/table.csv")
    assert (alone["status"], row["status"]) == ("converged", "not_converged")
    for name in OF_SOURCE:
        assert row[name] == alone[name] != "nan"
    assert row["loss"] == row["gain"] == row["free_energy"] == row["target_overlap"] == "nan"
