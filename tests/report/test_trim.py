"""Tables of which some columns are written: what is kept, what is told, and what still works with them."""

import csv
import json

import numpy as np
import pytest

import tlcli
from tests.report.conftest import TINY
from tlcli.errors import UsageError
from tlcli.options.commands import COMMANDS
from tlcli.run.execute import execute

LINEAR = {"alpha1": "0.5", "alpha2": "0.1:0.9:4", "gamma0": "0.5,2", "sigma2": "0.2", "ridge": "0.1"}
MEASURED = {**LINEAR, "simulate": True, "dim": "40", "trials": "3"}
NETWORK = {**TINY, "neurons": "16", "gamma2": "0.5,1", "times": "0,0.5,1"}


def run(folder, command="finetune-loss", **flags):
    assert execute(command, COMMANDS[command].options, None, {"output": str(folder), "quiet": True, **flags}) == 0
    return folder


def rows(folder):
    with (folder / "table.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_columns_are_those_asked_for_beside_what_tells_rows_apart(tmp_path):
    whole, some = (run(tmp_path / n, **LINEAR, **f) for n, f in (("a", {}), ("b", {"columns": "gain, loss"})))
    assert list(rows(some)[0]) == ["alpha2", "gamma0", "loss", "gain", "status"], "in the order of the table"
    assert rows(some) == [{name: row[name] for name in rows(some)[0]} for row in rows(whole)]
    assert (whole / "figure.png").stat().st_size
    provenances = [json.loads((folder / "provenance.json").read_text()) for folder in (whole, some)]
    assert provenances[0]["verdict"] == provenances[1]["verdict"], "the answer knows the whole table"
    assert "table" not in provenances[0]


def test_a_tidy_table_is_read_back_whole(tmp_path):
    whole, tidy = (run(tmp_path / n, **MEASURED, **f) for n, f in (("a", {}), ("b", {"tidy": True})))
    kept, full = rows(tidy), rows(whole)
    varied = [name for name in full[0] if len({row[name] for row in full}) > 1]
    assert list(kept[0]) == varied
    assert len(varied) < len(full[0]) - 8
    first, second = tlcli.load(whole), tlcli.load(tidy)
    assert first.columns == second.columns
    for name in first.columns:
        np.testing.assert_array_equal(first[name], second[name])
    assert first.verdict == second.verdict
    said = [str(tlcli.check(folder)) for folder in (whole, tidy)]
    assert said[0].replace(str(whole), "") == said[1].replace(str(tidy), ""), "the same allowances"
    assert "comparisons" in said[1]


def test_a_named_column_stays_in_a_tidy_table_and_a_single_row_is_whole(tmp_path):
    tidy = run(tmp_path / "a", **LINEAR, tidy=True, columns="loss,alpha1")
    assert list(rows(tidy)[0]) == ["alpha1", "alpha2", "gamma0", "loss"]
    assert tlcli.load(tidy).status == {"converged": 8}
    assert tlcli.check(tidy)
    alone = run(tmp_path / "b", tidy=True)
    assert len(rows(alone)[0]) > 20
    assert list(rows(run(tmp_path / "c", columns="gain"))[0]) == ["gain", "status"], (
        "as of several rows: no constant time"
    )


def test_check_says_which_columns_it_could_not_see(tmp_path):
    folder = run(tmp_path, **MEASURED, columns="loss,sim_loss,sim_loss_se,gain")
    found = tlcli.check(folder)
    assert found
    assert "TRIMMED (--columns), without what cannot be checked: spike" in str(found)
    assert "sim_gain" in str(found)
    assert "8 comparisons" in str(found), "the loss, with the dimension and the trials that were constant"
    (folder / "provenance.json").unlink()
    assert not tlcli.check(folder / "table.csv") or "completeness unknown" in str(tlcli.check(folder / "table.csv"))
    half = run(tmp_path / "half", **MEASURED, columns="sim_loss")
    assert "4 comparisons" in str(tlcli.check(half)), "of the bulk alone, which is constant"


def test_a_changed_number_of_a_trimmed_table_is_still_found(tmp_path):
    folder = run(tmp_path, **MEASURED, columns="loss,sim_loss,sim_loss_se")
    text = (folder / "table.csv").read_text().splitlines()
    cells = text[2].split(",")
    cells[text[0].split(",").index("sim_loss")] = "5"
    text[2] = ",".join(cells)
    (folder / "table.csv").write_text("\n".join(text) + "\n")
    found = tlcli.check(folder)
    assert found.code == 4
    assert "DISAGREES" in str(found)


def test_what_is_left_can_be_drawn_and_what_is_not_is_told(tmp_path):
    folder = run(tmp_path, **LINEAR, columns="gain")
    result = tlcli.load(folder)
    np.testing.assert_array_equal(result["gain"], tlcli.finetune_loss(**LINEAR)["gain"])
    assert result.verdict == tlcli.finetune_loss(**LINEAR).verdict
    line = result.plot(quantity="gain", x="alpha2").axes[0].lines[0]
    at = np.isin(line.get_xdata(), result.axes["alpha2"])
    np.testing.assert_array_equal(line.get_ydata()[at], result["gain"][:, 0])
    with pytest.raises(UsageError, match="the table has no column 'loss'; give a --quantity that it has"):
        result.plot()
    with pytest.raises(UsageError, match="'spike' is no column to draw"):
        result.plot(quantity="spike")


def test_time_courses_keep_stage_and_time_and_stored_points_are_used_again(tmp_path):
    folder = run(tmp_path, "dmft-solve", **NETWORK, columns="loss")
    assert list(rows(folder)[0]) == ["gamma2", "stage", "time", "loss", "status"]
    stored = sorted((folder / "theory").rglob("*.json"))
    before = [path.stat().st_mtime_ns for path in stored]
    run(tmp_path, "dmft-solve", **NETWORK)  # the same points: what is written makes no other result
    assert [path.stat().st_mtime_ns for path in stored] == before
    assert len(rows(folder)[0]) > 30
    run(tmp_path, "dmft-solve", **NETWORK, columns="train_loss")
    assert tlcli.load(folder).plot().axes
    run(tmp_path, "dmft-solve", **NETWORK, columns="test_alignment")
    with pytest.raises(UsageError, match="the table has no loss to draw"):
        tlcli.load(folder).plot()


def test_cases_have_their_label_and_their_part_of_the_answer(tmp_path):
    recipe = {"command": "finetune-loss", "alpha2": [0.4, 0.8], "tidy": True, "columns": "loss"}
    recipe["cases"] = [{"label": "lazy", "gamma0": 0}, {"label": "rich", "gamma0": 5}]
    folder = tlcli.run(recipe).save(tmp_path / "r")
    assert list(rows(folder)[0]) == ["case", "alpha2", "loss"]
    result = tlcli.load(folder)
    assert result["loss"].shape == (2, 2)
    assert result.case("rich").verdict == tlcli.run(recipe).case("rich").verdict
    assert list(tlcli.run(folder / "provenance.json").columns) == list(tlcli.run(recipe).columns), "memory has all"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss,gan", r"columns: 'gan' is no column of this table \(did you mean 'gain'\?\); they are alpha1, "),
        ("loss,", "columns: 'loss,' names no column beside a comma"),
        ("sim_loss", "columns: 'sim_loss' is no column of this table"),
    ],
)
@pytest.mark.parametrize("output", ["-", "results"])
def test_columns_that_are_none_are_refused_before_the_work(text, message, output, tmp_path):
    place = output if output == "-" else str(tmp_path / output)
    with pytest.raises(UsageError, match=message):
        execute("finetune-loss", COMMANDS["finetune-loss"].options, None, {**LINEAR, "columns": text, "output": place})
    assert not list(tmp_path.iterdir())


def test_standard_output_takes_the_same_columns(capfd):
    execute("finetune-loss", COMMANDS["finetune-loss"].options, None, {**LINEAR, "columns": "loss", "output": "-"})
    assert capfd.readouterr().out.splitlines()[0] == "alpha2,gamma0,loss,status"


def test_the_status_of_networks_may_be_asked_for_and_parameters_are_not_measured():
    words = {"source": "linear", "target": "linear", "dim": "3", "p1": "4", "p2": "3", "ptest": "5", "t1": "0.1"}
    words |= {"t2": "0.1", "times": "0.1", "neurons": "16", "repeats": "2", "simulate": True, "width": "8", "nets": 2}
    with pytest.raises(UsageError, match="'los' is no column") as refused:
        tlcli.dmft_solve(**words, columns="los")
    known = str(refused.value).partition("they are ")[2].rstrip(".").split(", ")
    assert {"status", "sim_loss", "sim_loss_se", "sim_status"} <= set(known)
    assert not {"sim_dim", "sim_p1", "sim_loss_se_se", "sim_status_se", "sim_residual"} & set(known)
    tlcli.dmft_solve(**words, columns="loss,status")
