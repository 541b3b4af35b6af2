"""`tlcli check`: a verdict for people on standard output, one for scripts as the exit code."""

import csv
import json
from pathlib import Path

import pytest

from tlcli.report.provenance import write_provenance

SIMULATED = "finetune-loss --alpha1 0.5 --alpha2 0.3,0.6,1.5 --gamma0 1,4 --simulate --dim 150 --trials 12 --quiet"


@pytest.fixture(scope="module")
def good(tmp_path_factory, anywhere):
    folder = tmp_path_factory.mktemp("good") / "out"
    assert anywhere(SIMULATED, "-o", folder).code == 0
    return {name: (folder / name).read_text() for name in ("table.csv", "provenance.json")}


@pytest.fixture
def result(tlcli, good):
    """Put the good result into the working folder, its rows changed by a function."""

    def change(rows=lambda rows: rows, provenance=True):
        Path("out").mkdir()
        found = list(csv.DictReader(good["table.csv"].splitlines()))
        changed = rows(found)
        with open("out/table.csv", "w", newline="") as stream:
            writer = csv.DictWriter(stream, list(found[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(changed)
        if provenance:  # as if the run itself had written this table
            about = json.loads(good["provenance.json"])
            write_provenance(Path("out/provenance.json"), about, [Path("out/table.csv")])

    return change


def scaled(column, factor, only=lambda row: True):
    def change(rows):
        return [{**row, column: repr(float(row[column]) * factor) if only(row) else row[column]} for row in rows]

    return change


def test_a_good_result(tlcli, result, good):
    result()
    assert Path("out/table.csv").read_text() == good["table.csv"], "the fixture itself changes nothing"
    done = tlcli("check out --finite-size 3")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("out: 6 rows\n  experiment agrees: ")
    assert tlcli("check out/table.csv --finite-size 3").code == 0
    result_twice = tlcli("check out out/table.csv --finite-size 3")
    assert result_twice.out.count("experiment agrees") == 2


@pytest.mark.parametrize("factor", [1.2, 0.8])
def test_a_wrong_theory_is_exit_4(tlcli, result, factor):
    result(scaled("loss", factor))
    done = tlcli("check out --finite-size 3")
    assert done.code == 4
    assert "experiment DISAGREES" in done.out
    assert "line 2 loss: theory " in done.out
    assert tlcli("check out --finite-size 3 --sigmas 1000").code == 0


def test_one_wrong_row_among_good_ones_is_found(tlcli, result):
    result(scaled("loss", 2, only=lambda row: row["gamma0"] == "4" and row["alpha2"] == "0.3"))
    done = tlcli("check out --finite-size 3")
    assert done.code == 4
    assert [line.split(":")[0] for line in done.out.splitlines() if line.startswith("    line")] == ["    line 3 loss"]


def test_missing_rows_are_exit_4(tlcli, result):
    result(lambda rows: rows[:-1])
    done = tlcli("check out --finite-size 3")
    assert done.code == 4
    assert "INCOMPLETE: its provenance counts 6 rows" in done.out


@pytest.mark.parametrize(
    ("rows", "repeated", "too_many"),
    [
        (lambda rows: rows, [], False),
        (lambda rows: [*rows[:2], rows[0], *rows[3:], rows[0]], ["line 4 is line 2", "line 8 is line 4"], True),
        (lambda rows: [*rows[:2], rows[1], *rows[3:]], ["line 4 is line 3"], False),  # as many as there should be
        (lambda rows: [*rows, {**rows[0], "gamma0": "9"}], [], True),
    ],
)
def test_rows_that_are_too_many_or_stand_twice_are_exit_4(tlcli, result, rows, repeated, too_many):
    result(rows)
    done = tlcli("check out --finite-size 3")
    found = [line for line in done.out.splitlines() if line.startswith("  REPEATED: ")]
    assert found == [f"  REPEATED: {each} once more" for each in repeated]
    assert ("TOO MANY ROWS: its provenance counts 6 rows" in done.out) == too_many
    assert "INCOMPLETE" not in done.out
    assert done.code == (4 if repeated or too_many else 0), done.out


def test_unknown_completeness_is_said(tlcli, result):
    result(lambda rows: rows[:-1], provenance=False)
    done = tlcli("check out --finite-size 3")
    assert done.code == 0
    assert "completeness unknown: no provenance.json beside the table" in done.out


def test_rows_that_are_not_converged_are_exit_3(tlcli, result):
    result(lambda rows: [{**row, "status": "not_converged"} if i == 2 else row for i, row in enumerate(rows)])
    done = tlcli("check out --finite-size 3")
    assert done.code == 3
    assert "NOT CONVERGED: 1 row of theory, 0 rows of experiment" in done.out


def test_the_worst_verdict_of_several_tables_counts(tlcli, result):
    result(scaled("loss", 1.2))
    Path("plain").mkdir()
    assert tlcli("finetune-loss --rho 0:1:3 -o plain --quiet").code == 0
    done = tlcli("check plain out --finite-size 3")
    assert done.code == 4
    assert "plain: 3 rows\n  complete and converged; no experiment in the table\n" in done.out
    assert tlcli("check plain").code == 0


def test_an_experiment_with_a_wrong_seed_still_agrees(tlcli):
    """The verdict is on the theory, not on the noise of one seed."""
    for seed in (1, 2):
        assert tlcli(SIMULATED, "--seed", seed, "-o", f"s{seed}").code == 0
    tables = {Path(f"s{seed}/table.csv").read_text() for seed in (1, 2)}
    assert len(tables) == 2
    assert tlcli("check s1 s2 --finite-size 3").code == 0


def test_networks_of_two_widths_are_extrapolated(tlcli):
    arguments = (
        "finetune-loss --solver linear-joint --alpha1 1.5 --alpha2 1.5 --gamma0 1 --t1 1 --t2 1 --simulate "
        "--experiment network --dim 12 --width 40,160 --trials 6 --quiet -o out"
    )
    assert tlcli(arguments).code == 0
    with open("out/table.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["width"] for row in rows] == ["40", "160"]
    assert json.loads(Path("out/provenance.json").read_text())["rows"] == 2
    done = tlcli("check out --finite-size 4")
    assert done.code == 0
    compared = [name for name in rows[0] if f"sim_{name}_se" in rows[0]]
    assert f"experiment agrees: {len(compared)} comparisons" in done.out, "one per column, not one per width"
    assert "one width only" not in done.out
    one = tlcli(arguments.replace("40,160", "40").replace("-o out", "-o one"))
    assert one.code == 0
    assert "one width only: the network's bias in 1/N is not removed" in tlcli("check one --finite-size 9").out


def test_inaccurate_rows_count_where_it_is_strict(tlcli, result):
    result(lambda rows: [{**row, "status": "inaccurate"} if i < 2 else row for i, row in enumerate(rows)])
    done, strict = tlcli("check out --finite-size 3"), tlcli("check out --finite-size 3 --strict")
    assert (done.code, strict.code) == (0, 3)
    assert "  INACCURATE: 2 rows of theory with a larger error than the accuracy asked for\n" in done.out
    assert strict.out == done.out


def test_a_table_that_nobody_says_is_converged_is_not_passed(tlcli):
    Path("t.csv").write_text("alpha1,alpha2,loss,baseline,gain\n0.5,0.4,0.3,0.4,0.1\n")
    done = tlcli("check t.csv")
    assert done.code == 4
    assert "CONVERGENCE UNKNOWN: the table has no column status" in done.out


def test_tables_beside_the_main_one_are_not_counted(tlcli):
    words = "phase-diagram --x alpha2=0.1:2:5 --y gamma0=0.1,1 --init-scale 0 -o map"
    assert tlcli(words, "--quiet").code == 0
    done = tlcli("check map/boundary.csv")
    assert (done.code, done.err) == (0, "")
    assert "INCOMPLETE" not in done.out
    assert "UNKNOWN" not in done.out
    assert tlcli("check map").code == 0
