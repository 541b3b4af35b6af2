"""Frozen networks averaged over target samples, as a user asks for them."""

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import call
from tlcli.dmft.ensemble import Numerics
from tlcli.dmft.network_transfer import solve_transfer
from tlcli.dmft.pool import pool_kernels
from tlcli.dmft.regression import kernel_regression
from tlcli.sweep.forms import WRONG
from tlcli.theories.network.average import check_record
from tlcli.theories.network.points import data_of
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
    assert "1 of 1 average(s) are inaccurate: asked 0.01, reached" in done.err
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
        ("--average auto --pool 50 --p2 30", "a pool of 50 target points is too small for p2 = 30"),
        ("--average mean", "average: 'mean' is unknown"),
        ("--average auto --simulate", "network-frozen has no experiment"),
        (
            "--average auto --loss huber:1",
            "--average auto is for the squared error of one output, not for the losses huber",
        ),
        ("--average auto --solver network-rich", "--average auto is for frozen features"),
    ],
)
def test_bad_input_is_one_sentence(tlcli, more, words):
    done = tlcli(SMALL, *more.split(), "-o", "out")
    assert done.code == 2
    assert words in done.err
    assert done.err.count("\n") == 1


def test_images_have_one_pool_of_all_of_them(tlcli):
    command = "finetune-loss --solver network-frozen --source digits:3v8 --target digits:4v9 --p1 20 --t1 2 --gamma0 1"
    assert tlcli(command, "--p2", "40,100", "--ridge", "0.01", "--average", "homogeneous", "-o", "out").code == 0
    found = rows("out")
    assert [float(row["loss"]) > 0 for row in found] == [True, True]
    assert float(found[0]["loss"]) > float(found[1]["loss"])
    done = tlcli(command, "--p2", "200", "--average", "auto", "-o", "big")
    assert done.code == 2
    assert "a pool of 361 target points is too small for p2 = 200" in done.err


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
    broken = [{**whole, "columns": {**whole["columns"], name: bad}} for name in names for bad in ([1.0], "x", None)]
    broken += [{k: v for k, v in whole.items() if k != name} for name in whole]
    for record in broken:
        with pytest.raises(WRONG):
            check_record(parameters, record)
