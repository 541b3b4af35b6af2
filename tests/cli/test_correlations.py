"""--correlations, and what pretrain-kernel says of a target."""

import csv

import numpy as np
import pytest


def test_from_the_command_line(tlcli):
    done = tlcli("finetune-loss --alpha1 0.5 --alpha2 0.4 --times 0,1,5 --correlations -o out")
    assert done.code == 0
    with np.load("out/correlations.npz") as found:
        assert found["corr_delta"].shape == (3, 3)
    assert "--correlations has no effect with -o -" in tlcli("finetune-loss --alpha2 0.4 --correlations -o -").err


def test_pretrain_kernel_says_what_is_left_for_a_target(tlcli):
    assert tlcli("pretrain-kernel --alpha1 0.5,2 --rho 0.3,0.9 --rho-xi 0.2 --sigma1 0.3 -o out").code == 0
    with open("out/table.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        expected = float(row["rho"]) * float(row["n_signal"]) + 0.2 * float(row["n_noise"])
        assert float(row["spike_alignment"]) == pytest.approx(expected, abs=1e-12)
        assert "loss" not in row
    done = tlcli("pretrain-kernel --alpha1 0.5 --alpha2 0.3,0.8 --rho 0.9 -o -")
    rows = list(csv.DictReader(done.out.splitlines()))
    tuned = list(csv.DictReader(tlcli("finetune-loss --alpha1 0.5 --alpha2 0.3,0.8 --rho 0.9 -o -").out.splitlines()))
    for name in ("loss", "baseline", "gain", "phase"):
        assert [row[name] for row in rows] == [row[name] for row in tuned]
    assert "alpha2" not in tlcli("pretrain-kernel --alpha1 0.5 -o -").out
    assert "rho^2 + rho_xi^2 <= 1" in tlcli("pretrain-kernel --rho 0.9 --rho-xi 0.9 -o -").err
    small = "--dim 4 --p1 6 --t1 1 --neurons 32 --repeats 2 --accuracy 1"
    done = tlcli(f"pretrain-kernel --model network --source he1 --alpha2 0.5,1 {small} -o -")
    assert done.code == 0
    assert [row["alpha2"] for row in csv.DictReader(done.out.splitlines())] == ["0.5", "1"]
