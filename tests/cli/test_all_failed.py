"""Grids of which no point could be computed: rows that say so, one sentence, exit 3, and no figure."""

import csv
import math
from pathlib import Path

import pytest

TINY = "--source linear --target linear --dim 4 --p1 6 --p2 4"
NETWORK = f"{TINY} --neurons 64 --repeats 2"


@pytest.mark.parametrize(
    ("command", "rows"),
    [
        (f"dmft-solve {NETWORK} --times 0,1 --gamma0 0.5,1", 8),
        (f"dmft-solve {NETWORK} --times 0,1 --gamma0 0.5 --draws 2 --predictions", 4),
        (f"dmft-solve {NETWORK} --times 0,1 --depth 2 --gamma0 0.5,1 --quantity loss,gain", 8),
        (f"finetune-loss --model network {NETWORK} --t1 1 --gamma0 0.5,1", 2),
        (f"phase-diagram --solver network-rich {NETWORK} --t1 1 --t2 1 --x gamma0=0.5,1 --y rho=0,1", 4),
        (f"pretrain-kernel --model network {NETWORK} --times 0,1 --gamma0 0.5,1", 4),
        (f"bayes-saddle {TINY} --delta 0,1 --gamma0 0.5,1", 4),
        (f"phase-diagram --solver bayes-linear {TINY} --x delta=0,1 --y gamma0=0.5,1", 4),
    ],
)
def test_a_grid_without_any_answer(tlcli, monkeypatch, command, rows):
    def broken(*arguments, **options):
        raise MemoryError("no room.")

    monkeypatch.setattr("tlcli.theories.network.points.solve_transfer", broken)
    monkeypatch.setattr("tlcli.theories.bayes.points.solve_bayes", broken)
    done = tlcli(command, "-o out")
    assert done.code == 3, done.err
    said = [line for line in done.err.splitlines() if "MemoryError" in line]
    assert len(said) == 1, done.err
    assert "Error:" not in done.err.replace("MemoryError:", "")
    with open("out/table.csv", newline="") as stream:
        found = list(csv.DictReader(stream))
    assert len(found) == rows
    assert {row["status"] for row in found} == {"failed"}
    quantity = "loss" if "loss" in found[0] else "source_loss"
    assert all(math.isnan(float(row[quantity] or "nan")) for row in found)
    assert not list(Path("out").glob("figure*"))
    assert Path("out/provenance.json").exists()
    assert tlcli("check out").code == 3
    done = tlcli(command.partition(" --predictions")[0].partition(" --quantity")[0], "-o -")
    assert done.code == 3
    assert "failed" in done.out
