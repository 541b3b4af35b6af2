"""Frozen networks averaged over target samples, as a user asks for them."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import call
from tlcli.averages.homogeneous import Homogeneous
from tlcli.averages.pointwise import Pointwise
from tlcli.dmft.ensemble import Numerics
from tlcli.dmft.network_transfer import solve_transfer
from tlcli.dmft.pool import pool_kernels
from tlcli.dmft.regression import kernel_regression
from tlcli.sweep.forms import WRONG
from tlcli.theories.network.average_point import check_record
from tlcli.theories.network.points import data_of
from tlcli.theories.network.pools import pools_of
from tlcli.training import TransferSettings

SMALL = (
    "finetune-loss --solver network-frozen --source linear --target hermite:2 --dim 5 --p1 30 --t1 5 --activation relu"
)


def rows(folder):
    with Path(folder, "table.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def tlcli(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return call


def test_the_kernel_of_a_pool_is_that_of_a_transfer():
    """The frozen kernel between all target points reproduces the losses of an ordinary transfer to them."""
    asked = {"source": "linear", "target": "hermite:2", "dim": 5, "rho": 0.8, "p1": 30, "p2": 12, "ptest": 40}
    data = data_of({**asked, "seed": 0, "draw": 0})
    trained = {"activation": "relu", "gamma0": 1.0, "times1": (5.0,), "times2": (np.inf,), "ridge": 0.1}
    settings = TransferSettings(**trained, target="frozen")
    numerics = Numerics(neurons=256, repeats=2)
    whole = solve_transfer(data, settings, numerics)
    found = pool_kernels(data, settings, numerics, 12)
    assert found.message == ""
    f = kernel_regression(found.kernels.mean(axis=0), found.kernels.mean(axis=0), data.y_target, ridge=0.1)[0]
    biased = np.mean((f - data.y_target) ** 2)
    assert biased == pytest.approx(whole.columns["train_loss"][-1], abs=4 * whole.columns["train_loss_se"][-1])
    start = kernel_regression(found.start, found.start, data.y_target, ridge=0.1)[0]
    assert not np.allclose(start, f, rtol=0.05)


def test_a_grid_of_sizes_ridges_noises_and_times_is_one_kernel(tlcli):
    grid = "--gamma0 0,1 --p2 5,30 --ridge 0.01,0.1 --noise2 0,0.3 --t2 3,inf --average auto --pool 80 --accuracy 1"
    done = tlcli(SMALL, *grid.split(), "--dry-run")
    assert "2 points and draws of the data" in done.out
    done = tlcli(SMALL, *grid.split(), "-o", "out")
    assert done.code == 0
    found = rows("out")
    assert len(found) == 32
    assert {row["direct"] for row in found if row["p2"] == "5"} == {"1"}
    assert {row["direct"] for row in found if row["p2"] == "30"} == {"0"}
    for row in found:
        assert row["status"] == "converged"
        assert float(row["gain"]) == pytest.approx(float(row["baseline"]) - float(row["loss"]), abs=1e-12)
        parts = np.hypot(float(row["loss_pool_se"]), float(row["loss_neuron_se"]))
        assert float(row["loss_se"]) == pytest.approx(parts)
        if row["gamma0"] == "0":  # nothing was learnt, on whatever points
            assert float(row["gain"]) == float(row["gain_se"]) == 0
            assert row["phase"] == "neutral"
    assert "direct averages over subsets of the pool stand at p2 = 5." in done.err


def test_the_average_is_that_of_draws(tlcli):
    """12 draws of the target, source and neurons, within four of their standard errors; other sizes are not."""
    both = [SMALL.replace("hermite:2", "linear"), "--gamma0 1 --ridge 0.05 --neurons 256 --repeats 2"]
    average = [*both, "--draws 4 --average pointwise --pool 200"]
    assert tlcli(*both, "--ptest 200 --p2 20 --draws 12 -o draws").code == 0
    assert tlcli(*average, "--p2 20 -o mean").code == 0
    assert tlcli(*average, "--p2 5 -o more").code == 0
    (direct,), (mean,), (other,) = rows("draws"), rows("mean"), rows("more")
    for name in ("loss", "baseline"):
        error = np.hypot(float(direct[f"{name}_draw_se"]), float(mean[f"{name}_draw_se"]))
        assert abs(float(direct[name]) - float(mean[name])) < 4 * error
        assert abs(float(direct[name]) - float(other[name])) > 4 * error


def test_before_any_training_there_is_no_gain_and_no_noise_of_neurons(tlcli):
    assert tlcli(SMALL, "--p2 10 --gamma0 1 --t2 0 --average pointwise --pool 60 -o out").code == 0
    (row,) = rows("out")
    assert abs(float(row["gain"])) < 1e-12
    assert float(row["loss"]) > 0
    assert float(row["loss_neuron_se"]) < 1e-12


def test_what_missed_the_accuracy_or_never_rested_is_told(tlcli):
    command = [SMALL, "--p2 10 --gamma0 1 --ridge 0.1 --neurons 64 --repeats 2 --average pointwise --pool 40"]
    assert tlcli(*command, "-o out").code == 0
    (row,) = rows("out")
    unit = max(1.0, float(row["loss"]), float(row["baseline"]))
    worst = max(float(row["loss_se"]), float(row["baseline_se"]))
    assert worst / 1.25 > 0.02
    assert row["status"] == "inaccurate"
    assert float(row["residual"]) == pytest.approx(worst / unit, rel=0.2)  # the labels' power is near 1
    done = tlcli(*command, "--strict -o strict")
    assert done.code == 3
    assert "1 of 1 average is inaccurate: asked 0.01, reached" in done.err
    assert "in units of the labels' mean square, or of the loss where that is larger" in done.err
    assert tlcli(*command, "--accuracy 1 -o loose").code == 0
    assert rows("loose")[0]["status"] == "converged"
    done = tlcli(*command, "--accuracy 1 --until 1e-3 -o restless")
    assert done.code == 3
    assert rows("restless")[0]["status"] == "not_converged"
    assert "not at rest to --until 0.001" in done.err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("--average auto --ptest 30", "--ptest 30 has no effect with --average auto"),
        ("--pool 100", "--pool 100 is the pool of --average"),
        ("--average none --pool 100", "--pool 100 has no effect with --average none"),
        ("--average auto --ridge 0.01,best", "ridge: '0.01,best' holds best among others; use best alone"),
        (
            "--average auto --gamma0 1,2 --optimal-gamma0",
            "--optimal-gamma0 chooses among the grid's; network-frozen needs 3",
        ),
        ("--gamma0 1,2,3 --optimal-gamma0", "add --average auto with 3 or more --gamma0, or leave it out and compare"),
        (
            "--average auto --pool 50 --p2 30",
            "(p2 = 30); raise --pool to at least 60, lower --p2",
        ),
        ("--average mean", "average: 'mean' is unknown"),
        ("--average auto --simulate", "network-frozen has no experiment"),
        (
            "--average pointwise --loss huber:1",
            "--average pointwise is for the squared error of one output, and has no equations for the loss huber",
        ),
        ("--average auto --solver network-rich", "--average auto is for frozen features"),
        ("--average none --solver network-rich", "--average none has no effect"),
        ("--ridge best", "--ridge best is that of averages over target samples; add --average auto"),
        ("--average auto --ridge worst", "ridge"),
        (
            "--average auto --source sign:linear --target sign:linear --noise2 0.3 --flips2 0.1",
            "noise2 = 0.3 and flips2 = 0.1: an average has label noise of one kind",
        ),
        (
            "--average homogeneous --source sign:linear --target sign:linear --flips2 0.1",
            "--average homogeneous is for the squared error of one output, and has no equations for flipped labels",
        ),
    ],
)
def test_bad_input_is_one_sentence(tlcli, more, words):
    done = tlcli(SMALL, *more.split(), "-o", "out")
    assert done.code == 2
    assert words in done.err
    assert done.err.count("\n") == 1


FAST = "--neurons 256 --repeats 2 --pool 60 --accuracy 1"


def test_the_best_ridge_is_no_worse_than_any_given_one(tlcli):
    """Each kernel has its own: of the baseline too, and in units of the loss that is asked for."""
    command = [SMALL, FAST, "--gamma0 2 --p2 20 --average homogeneous"]
    assert tlcli(*command, "--ridge best -o best").code == 0
    assert tlcli(*command, "--ridge 0,log:0.0001:10:12 -o given").code == 0
    assert tlcli(*command, "--ridge best --reduction sum -o sum").code == 0
    (best,), given, (summed,) = rows("best"), rows("given"), rows("sum")
    assert best["ridge"] == "best"
    for name, ridge in (("loss", "ridge_opt"), ("baseline", "baseline_ridge_opt")):
        least = min(float(row[name]) for row in given)
        assert 0.97 * least < float(best[name]) < least * (1 + 1e-6)
        assert float(best[ridge]) > 0
    ridge = float(best["baseline_ridge_opt"])  # the sources differ: time is that of the summed loss too
    assert float(summed["baseline_ridge_opt"]) == pytest.approx(20 * ridge, rel=1e-6)
    assert best["ridge_opt"] != best["baseline_ridge_opt"]
    assert float(best["gain"]) == pytest.approx(float(best["baseline"]) - float(best["loss"]))


def test_maps_are_averages_unless_single_draws_are_asked_for(tlcli):
    """`none`, and what single draws alone have, give the table that it always was."""
    command = [SMALL.replace("finetune-loss", "phase-diagram"), "--neurons 64 --repeats 2 --accuracy 1 --ridge 0.1"]
    grid = "--x p2=8,30 --y gamma0=0.5,1,2"
    done = tlcli(*command, grid, "--pool 60 -o mean")
    assert done.code == 0
    assert {row["average"] for row in rows("mean")} == {"auto"}
    assert {"gamma0_opt", "loss_opt", "gain_pool_se"} <= set(rows("mean")[0])
    assert done.err.count("direct averages") == 1
    assert tlcli(*command, grid, "--pool 60 --no-optimal-gamma0 -o plain").code == 0
    assert not {"gamma0_opt", "loss_opt"} & set(rows("plain")[0])
    kept = [name for name in rows("mean")[0] if name not in ("gamma0_opt", "loss_opt")]
    assert kept == list(rows("plain")[0])
    assert '"average": "auto"' in Path("mean/provenance.json").read_text()
    tables = []
    for name, more in (("none", "--average none --ptest 30"), ("ptest", "--ptest 30")):
        assert tlcli(*command, grid, more, "-o", name).code == 0
        tables.append(Path(name, "table.csv").read_bytes())
    assert tables[0] == tables[1]
    assert "average" not in rows("none")[0]
    assert tlcli(SMALL, "--neurons 64 --repeats 2 --p2 8 --accuracy 1 -o one").code == 0
    assert "average" not in rows("one")[0]  # other commands solve single draws


def test_zeros_of_the_gain_have_errors_and_draws_a_part_of_their_own(tlcli):
    command = [SMALL.replace("finetune-loss", "phase-diagram"), FAST, "--draws 3 --average homogeneous --ridge 0.01"]
    assert tlcli(*command, "--x p2=3,6,12,25 --y gamma0=1,3 -o out").code == 0
    for row in rows("out"):
        parts = np.hypot(float(row["gain_source_se"]), float(row["gain_se"]))
        assert float(row["gain_draw_se"]) == pytest.approx(parts)
    checked = tlcli("check out")
    assert checked.code == 0, checked.err
    with Path("out", "boundary.csv").open(newline="") as stream:
        found = [row for row in csv.DictReader(stream) if row["refined"] == "p2"]
    assert found
    assert all(float(row["p2_se"] or "nan") > 0 for row in found if row["p2_se"])


@pytest.mark.parametrize(
    ("command", "more", "best"),
    [
        ("phase-diagram", "--x p2=5,10 --y gamma0=0.5,1,2", "gamma0_opt,loss_opt"),
        ("finetune-loss", "--p2 8 --times 0.1,1,10 --draws 2", "best_time,baseline_best_time_se,baseline_stopped"),
    ],
)
def test_all_columns_are_known_before_the_work(tlcli, command, more, best):
    """What can be asked for with --columns is what the table has: names, and the lengths of their axes."""
    base = [SMALL.replace("finetune-loss", command), "--neurons 64 --repeats 2 --accuracy 1 --ridge 0.01 --pool 60"]
    base += [more, "--average subsets"]
    assert tlcli(*base, "--columns", f"loss,gain,phase,{best}", "-o out").code == 0
    (row, *_) = rows("out")
    assert {"loss", "gain", "phase", *best.split(",")} <= set(row)
    assert row[best.split(",")[0]] != ""
    refused = tlcli(*base, "--columns ridge_opt -o no")
    assert refused.code == 2
    assert "'ridge_opt' is no column of this table" in refused.err
    assert tlcli(*base, "-o all").code == 0
    told = refused.err.partition("they are ")[2].split(".\n")[0].split(", ")
    assert sorted(told) == sorted(rows("all")[0])


def test_times_have_a_best_one(tlcli):
    """With much label noise stopping early is better than not: the best time lies inside, and is no worse."""
    command = f"{SMALL} {FAST} --gamma0 1 --p2 25 --noise2 1 --average homogeneous --draws 2"
    assert tlcli(command, "--times 1,3,10,30,100,300,1000 -o out").code == 0
    found = rows("out")
    losses = [float(row["loss"]) for row in found]
    assert {float(row["loss_stopped"]) <= min(losses) for row in found} == {True}
    assert 1 < float(found[0]["best_time"]) < 1000
    assert float(found[0]["best_time_se"]) > 0
    assert float(found[0]["baseline_stopped"]) <= min(float(row["baseline"]) for row in found)


def test_deep_networks_have_averages(tlcli):
    """The last layer's kernel of two hidden layers, as the homogeneous theory of its own pool has it."""
    command = f"{SMALL} --dim 4 --p1 10 --depth 2 --neurons 300 --repeats 2 --pool 40 --accuracy 1 --gamma0 0,1 --p2 10"
    assert tlcli(command, "--ridge 0.1 --average homogeneous -o out").code == 0
    lazy, rich = rows("out")
    assert float(lazy["gain"]) == 0
    assert float(rich["loss"]) != float(lazy["loss"])
    asked = {"source": "linear", "target": "hermite:2", "dim": 4, "rho": 0.8, "p1": 10, "p2": 40 * 4, "ptest": 1}
    data = data_of({**asked, "seed": 0, "draw": 0})
    settings = TransferSettings(
        activation="relu", gamma0=1.0, depth=2, times1=(5.0,), times2=(np.inf,), target="frozen"
    )
    found = pool_kernels(data, settings, Numerics(neurons=300, repeats=2, accuracy=1.0), 10)
    y = data.y_target.reshape(4, 40)
    y = (y / np.sqrt(np.mean(y**2, axis=1, keepdims=True))).ravel()
    parts = [np.arange(i * 40, (i + 1) * 40) for i in range(4)]
    of = [Homogeneous(found.kernels.mean(axis=0)[np.ix_(r, r)], y[r]).loss(10, 0.1).loss for r in parts]
    assert float(rich["loss"]) == pytest.approx(np.mean(of), rel=0.02)  # up to the jackknife's factor
    base = [Homogeneous(found.start[np.ix_(r, r)], y[r]).loss(10, 0.1).loss for r in parts]
    assert float(rich["baseline"]) == pytest.approx(np.mean(base), rel=1e-6)


def test_classes_are_averaged_over_subsets_by_any_loss(tlcli):
    command = "finetune-loss --solver network-frozen --source digits:3v8 --target digits:4v9 --p1 20 --t1 2 --gamma0 1"
    command += " --neurons 200 --repeats 2 --accuracy 1 --pool 60 --average auto"
    assert tlcli(command, "--loss logistic --p2 5,20 --ridge 0.05 -o out").code == 0
    few, many = rows("out")
    assert few["direct"] == many["direct"] == "1"
    assert float(few["error"]) > float(many["error"]) > 0
    for row in (few, many):
        difference = float(row["baseline_error"]) - float(row["error"])
        assert float(row["gain_error"]) == pytest.approx(difference, abs=1e-12)
        assert float(row["gain_error_pool_se"]) > 0
    assert tlcli(command, "--p2 10 --flips2 0,0.2 --ridge 0.05 -o flips").code == 0
    quiet, loud = rows("flips")
    assert float(loud["loss"]) > float(quiet["loss"])
    assert "error" not in quiet


def test_a_file_taken_as_a_whole_has_no_average(tlcli):
    x = np.random.default_rng(0).standard_normal((30, 4))
    np.savez("d.npz", x_source=x, y_source=x[:, 0], x_target=x + 1, y_target=x[:, 1], x_test=x - 1, y_test=x[:, 1])
    command = "phase-diagram --solver network-frozen --source file:d.npz --target file:d.npz --t1 1 --neurons 64 "
    command += "--repeats 2 --accuracy 1 --x gamma0=0.5,1 --y ridge=0.1,1"
    done = tlcli(command, "--average auto -o out")
    assert done.code == 2
    assert "--average needs the number of target samples, --p2" in done.err
    assert tlcli(command, "--p2 5 -o some").code == 0
    assert {row["average"] for row in rows("some")} == {"auto"}


def test_draws_of_the_source_share_pools_and_teachers():
    p = {"source": "linear", "target": "hermite:3", "dim": 5, "rho": 0.8, "p1": 30, "sizes": [10], "seed": 0}
    first, second = (pools_of({**p, "draw": draw}) for draw in (0, 1))
    np.testing.assert_array_equal(first.x_target, second.x_target)
    np.testing.assert_array_equal(first.y_target, second.y_target)
    teachers = [np.linalg.lstsq(one.x_source, one.y_source, rcond=None)[0] for one in (first, second)]
    np.testing.assert_allclose(*teachers, atol=1e-10)
    assert not np.any(np.isin(first.x_source, second.x_source))
    assert [np.mean(first.y_target[rows] ** 2) for rows in first.rows] == pytest.approx([1.0] * 4)  # of every pool


def test_images_have_one_pool_of_all_of_them(tlcli):
    command = "finetune-loss --solver network-frozen --source digits:3v8 --target digits:4v9 --p1 20 --t1 2 --gamma0 1"
    assert tlcli(command, "--p2", "40,100", "--ridge", "0.01", "--average", "homogeneous", "-o", "out").code == 0
    found = rows("out")
    assert [float(row["loss"]) > 0 for row in found] == [True, True]
    assert float(found[0]["loss"]) > float(found[1]["loss"])
    done = tlcli(command, "--p2", "200", "--average", "auto", "-o", "big")
    assert done.code == 2
    assert "a pool of 361 target points is too small for p2 = 200" in done.err
    assert "and there are no more; lower --p2 to at most 180, or use --average none." in done.err
    done = tlcli(command, "--p2", "30", "--average", "auto", "--pool", "900", "-o", "big")
    assert "--pool 900 is more than the 361 target points there are; lower it, to at least 60, or" in done.err


def test_records_are_read_only_whole():
    """Leaving out or reshaping any value of a record is noticed."""
    parameters = {"sizes": [5], "ridges": [0.1, 1.0], "noises": [0.0], "times": [np.inf]}
    cell = [[[[1.0]], [[1.0]]]]
    names = [f"{name}{part}" for name in ("loss", "baseline", "gain") for part in ("", "_pool_se", "_neuron_se")]
    whole = {
        "columns": dict.fromkeys(names, cell),
        "power": 1.0,
        "direct": [0],
        "unsolved": [[0, 0]],
        "status": "converged",
    }
    whole |= {"message": "", "info": {}, "data": {}, "notes": []}
    check_record(parameters, whole)
    best = {**parameters, "ridges": "best"}
    with pytest.raises(WRONG):
        check_record(best, whole)  # its axis of ridges has length one, and the ridges are columns
    short = {name: [cell[0][:1]] for name in (*names, "ridge_opt", "baseline_ridge_opt")}
    check_record(best, {**whole, "columns": short, "unsolved": [[0]]})
    broken = [{**whole, "columns": {**whole["columns"], name: bad}} for name in names for bad in ([1.0], "x", None)]
    broken += [{k: v for k, v in whole.items() if k != name} for name in whole]
    for record in broken:
        with pytest.raises(WRONG):
            check_record(parameters, record)


def test_an_average_needs_two_populations(tlcli):
    done = tlcli(SMALL, "--p2 10 --gamma0 1 --neurons 64 --repeats 1 --average pointwise --pool 40 -o out")
    assert (done.code, done.out) == (2, "")
    assert "--repeats 1 has no error of the neurons" in done.err
    assert "--average none" in done.err
    exact = "--p2 10 --gamma0 0 --neurons 64 --repeats 1 --average pointwise --pool 40 --accuracy 9 -o out"
    assert tlcli(SMALL, exact).code == 0


def test_averages_that_the_equations_do_not_know_say_why(tlcli, monkeypatch):
    honest = Pointwise.solve

    def heavy(self, p, *arguments, **more):
        return replace(honest(self, p, *arguments, **more), solved=p < 12)

    monkeypatch.setattr(Pointwise, "solve", heavy)
    command = [SMALL, FAST, "--gamma0 1 --p2 5,12,25 --ridge 0"]
    done = tlcli(*command, "--average pointwise -o out")
    assert done.code == 3
    assert [row["status"] for row in rows("out")] == ["converged", "not_converged", "not_converged"]
    assert "the pointwise equations have no solution at p2 = 12, 25: the pool is too small" in done.err
    assert "use a larger --pool, a --ridge" in done.err
    done = tlcli(*command, "--average auto -o auto")
    assert done.code == 0
    assert [row["direct"] for row in rows("auto")] == ["1", "1", "1"]
    assert "no solution" not in done.err


def test_samples_near_the_number_of_neurons_are_named(tlcli):
    """Weight decay leaves the kernel as it was sampled, of rank 128; it matters without ridge."""
    few = (
        f"{SMALL} --neurons 64 --repeats 2 --gamma0 1 --pool 260 --average homogeneous --accuracy 9 --weight-decay 0.01"
    )
    done = tlcli(few, "--p2 20,70,100 --ridge 0 -o out")
    assert "p2 = 70, 100 without ridge comes near the 128 neurons of all repeats" in done.err
    for fine in ("--p2 20,70 --ridge 0.1", "--p2 20,50 --ridge 0", "--p2 20,70 --ridge 0 --kernel ntk"):
        assert "neurons of all repeats" not in tlcli(few, fine, "-o fine --force").err
