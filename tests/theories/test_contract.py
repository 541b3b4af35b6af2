"""A theory that is only registered gets flags, help, tables, figures, boundaries, and a sweep that resumes."""

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import call
from tests.theories import toy
from tlcli.options import OPTIONS
from tlcli.theories.registry import register

KINDS = pytest.mark.parametrize("kind", [toy.Toy, toy.SlowToy])


@pytest.fixture
def bring(monkeypatch, tmp_path, registering):
    """Return a function that registers a toy for the length of a test, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda kind: register(toy.ENTRIES[kind], [toy.SWING])


def rows(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


@KINDS
def test_a_flag_a_table_a_figure_and_a_boundary(bring, kind):
    bring(kind)
    done = call("phase-diagram --solver toy --x alpha2=0.1:2:20 --y swing=0.05:2:14 -o out")
    assert (done.code, done.err.count("warning")) == (0, 0), done.err
    assert {p.name for p in Path("out").iterdir()} >= {"table.csv", "boundary.csv", "figure.png", "provenance.json"}
    table = rows("out/table.csv")
    assert len(table) == 280
    assert {row["phase"] for row in table} >= {"positive", "negative"}
    edge = [(float(row["alpha2"]), float(row["swing"])) for row in rows("out/boundary.csv")]
    assert edge
    np.testing.assert_allclose(*zip(*edge, strict=True), atol=1e-9 if kind is toy.Toy else 2e-2)
    assert call("check out").code == 0


@KINDS
def test_help_bad_values_and_suggestions(bring, kind):
    bring(kind)
    assert "Swing of the toy." in call("finetune-loss --help").out
    assert "swing = -1 is not allowed; it must be >= 0" in call("finetune-loss --solver toy --swing=-1 -o -").err
    assert "toy does not use 'gamma0'" in call("finetune-loss --solver toy --gamma0 2 -o -").err
    assert "linear-exact does not use 'swing'" in call("finetune-loss --swing 2 -o -").err
    assert "toy has no experiment" in call("finetune-loss --solver toy --simulate -o -").err
    assert "did you mean 'toy'" in call("finetune-loss --solver tyo -o -").err


def test_a_sweep_that_resumes_and_divides(bring):
    bring(toy.SlowToy)
    command = "finetune-loss --solver toy --alpha2 0.1:1:10 --swing 0.5 -o out"
    assert "10 points" in call(f"{command} --dry-run").out
    assert call(f"{command} --shard 1/3").code == 0
    part = len(Path("computed.txt").read_text().split())
    assert 0 < part < 10
    assert call(command).code == 0
    assert len(Path("computed.txt").read_text().split()) == 10, "what is stored is not computed again"
    first = Path("out/table.csv").read_bytes()
    assert call(f"{command} --force").code == 0
    assert Path("out/table.csv").read_bytes() == first
    assert len(Path("computed.txt").read_text().split()) == 20


def test_a_point_that_breaks_off_is_a_row(bring):
    bring(toy.SlowToy)
    done = call("finetune-loss --solver toy --alpha2 0.5 --swing 0.2,13,0.8 -o out")
    assert (done.code, "13 is no swing" in done.err) == (3, True), done.err
    table = rows("out/table.csv")
    assert [row["status"] for row in table] == ["converged", "failed", "converged"]
    assert [row["phase"] for row in table] == ["negative", "unknown", "positive"]
    assert [row["gain"] == "nan" for row in table] == [False, True, False]
    assert float(table[2]["loss"]) == pytest.approx(np.exp(-0.8))


def test_names_are_taken_once(bring):
    bring(toy.Toy)
    with pytest.raises(ValueError, match="finetune-loss has a theory 'toy' already"):
        register(toy.ENTRIES[toy.Toy])


def test_without_it_nothing_is_left():
    assert "swing" not in OPTIONS
    assert "toy" not in OPTIONS["solver"].choices
    assert "swing" not in call("finetune-loss --help").out
