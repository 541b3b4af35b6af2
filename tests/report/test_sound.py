"""Tables that are none, and cells that make a table meaningless."""

import csv
import io
import math
import tracemalloc

import numpy as np
import pytest

from tlcli.errors import EXIT_CHECK_FAILED, EXIT_NOT_CONVERGED, EXIT_USAGE, UsageError
from tlcli.report.agreement import assess
from tlcli.report.checking import check_tables
from tlcli.report.provenance import read_provenance
from tlcli.report.sound import read_content

HEADER = "case,alpha1,alpha2,loss,loss_se,sim_loss,sim_loss_se,trials,phase,residual,status"
ROWS = [
    'one,0.5,0.4,0.25,0.001,0.26,0.01,8,positive,0,converged',
    'one,inf,0.8,0.125,0.001,0.126,0.01,8,neutral,1e-12,converged',
    '"two, quoted",0.5,0.4,0.5,0.001,0.49,0.02,8,negative,0,collapsed',
    '"two, quoted",0.5,0.8,1.5,0.002,1.51,0.02,8,positive,0,converged',
]  # fmt: skip
GOOD = "\n".join([HEADER, *ROWS]) + "\n"


@pytest.fixture
def faults(tmp_path):
    def found(content):
        path = tmp_path / "table.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return [str(fault) for fault in read_content(path).faults]

    return found


def test_a_good_table_has_no_fault(faults, tmp_path):
    assert faults(GOOD) == []
    assert faults(GOOD.replace("\n", "\r\n")) == []
    assert len(assess(tmp_path / "table.csv").comparisons) == 4


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("neutral,1e-12,converged", "neutral,1e-12", "line 3, column 'status': the line ends before it, after 10 of"),
        ("1e-12,converged", "1e-12,converged,7", "line 3: 12 cells where the header has 11; the first too many is '7'"),
        ("0.126", "0.1\x0026", "line 3, column 'sim_loss': '0.1?26' holds the control character U+0000"),
        ("1.51", '"1.51', "line 5: a quotation mark is opened and not closed"),
        ("one,inf", '"one"x,inf', "line 3: the line cannot be split into cells"),
        ("0.126", "1" * 200_000, "line 3: a cell is longer than 131072 characters"),
        ("0.126,0.01", "0.126,-0.01", "line 3, column 'sim_loss_se': a standard error of -0.01 is below 0"),
        ("0.126,0.01", "0.126,nan", "line 3, column 'sim_loss_se': a standard error of nan beside the number 0.126"),
        ("0.125,0.001", "0.125,nan", "line 3, column 'loss_se': a standard error of nan, and other rows"),
        ("0.125,0.001", "0.125,inf", "line 3, column 'loss_se': a standard error of inf beside the number 0.125"),
        ("1e-12,converged", "1e-12,banana", "line 3, column 'status': 'banana' is unknown; use one of converged,"),
        ("1e-12,converged", "1e-12,", "line 3, column 'status': '' is unknown"),
        ("1e-12,converged", "1e-12,converge", "'converge' is unknown; use one of converged, collapsed, diverged, "),
        ("neutral", "neutrl", "line 3, column 'phase': 'neutrl' is unknown"),
        ("0.125", "nan", "line 3, column 'loss': nan in a row whose status is converged"),
        ("0.125", "inf", "line 3, column 'loss': inf in a row whose status is converged"),
        ("0.126", "nan", "line 3, column 'sim_loss': nan beside a standard error"),
        ("0.125", "", "line 3, column 'loss': the cell is empty, and other rows of its kind have a number"),
        ("0.125", "0.1_25", "line 3, column 'loss': '0.1_25' is no number"),
        ("0.125", "٣", "line 3, column 'loss': '٣' is no number"),
        ("inf,0.8", "-3,0.8", "line 3, column 'alpha1': alpha1 = -3 is not allowed; it must be > 0"),
        ("inf,0.8", "nan,0.8", "line 3, column 'alpha1': nan is no value of a parameter"),
        ("0.01,8,neutral", "0.01,0.5,neutral", "line 3, column 'trials': trials = 0.5 is not allowed; it must be"),
        ("1e-12", "nan", "line 3, column 'residual': nan in a row whose status is converged"),
        ("1e-12", "-2", "line 3, column 'residual': -2 is below 0, which a square is not"),
        (GOOD[GOOD.index("one,inf") :], "", None),
        (",loss,", ",loss,", None),
        (",loss,", ",lozs,", "line 1, column 'lozs': tlcli has no such column (did you mean 'loss'?)"),
        (",loss,", ",loss_se,", "line 1, column 'loss_se': the column stands twice"),
        (",loss,", ",baseline,", "line 1, column 'loss_se': the column 'loss', whose error it is, is missing"),
        (GOOD[len(HEADER) + 1 :], "", "line 1: the header stands alone"),
        ("one,inf", "\none,inf", "line 3, column 'case': the line ends before it, after 0 of 11 cells"),
    ],
)  # fmt: skip
def test_what_makes_a_table_meaningless(faults, old, new, words):
    found = faults(GOOD.replace(old, new, 1))
    assert found == [] if words is None else any(words in fault for fault in found), found


def test_a_last_line_that_is_cut_off(faults):
    for kept in (len(GOOD) - 1, len(GOOD) - 3, len(GOOD) - 20, len(HEADER) + 10):
        assert any(f"line {GOOD[:kept].count(chr(10)) + 1}" in fault for fault in faults(GOOD[:kept]))


def test_bytes_that_are_no_text(faults):
    assert any(
        "bytes that are no UTF-8 text" in fault for fault in faults(GOOD.encode().replace(b"0.126", b"\xff\xfe"))
    )


def test_rows_without_an_answer_may_hold_anything_that_can_be_read(faults):
    lost = "one,inf,0.8,nan,nan,nan,nan,8,neutral,nan,not_converged"
    assert faults(GOOD.replace(ROWS[1], lost)) == []
    infinite = "one,inf,0.8,inf,0.001,3,0.1,8,neutral,0,diverged"
    assert faults(GOOD.replace(ROWS[1], infinite)) == []


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"<!DOCTYPE html>\n<html><body>404</body></html>\n", b"\xff\xfe\x00", b"a,b\n1,2\n"]
)
def test_files_that_are_no_table_are_usage_errors(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"table '.*' is (empty|no table of tlcli)"):
        read_content(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_content(tmp_path / "none.csv")


def test_coefficients_of_diverged_rows_are_not_compared(tmp_path):
    """Where the spike is infinite, its share along the signal is a limit: 0, or an infinity times zero."""
    path = tmp_path / "table.csv"
    header = "alpha1,c_signal,loss,sim_c_signal,sim_c_signal_se,sim_loss,sim_loss_se,status\n"
    path.write_text(header + "1,0,0.5,0.4,0.01,0.5,0.1,diverged\n2,0.4,0.5,0.4,0.01,0.5,0.1,converged\n")
    found = assess(path)
    assert [(c.row, c.name) for c in found.comparisons] == [(2, "loss"), (3, "c_signal"), (3, "loss")]
    assert found.disagreeing(4) == []
    assert found.blank == 1
    path.write_text(path.read_text().replace("diverged", "converged"))
    assert [c.name for c in assess(path).disagreeing(4)] == ["c_signal"], "the twin: it would have failed"


def test_an_experiment_that_measured_nothing_is_no_agreement(tmp_path, capsys):
    path = tmp_path / "table.csv"
    path.write_text("alpha1,loss,sim_loss,sim_loss_se,status\n1,0.5,nan,nan,converged\n")
    assert check_tables([path], 4, 1, False, print) == EXIT_CHECK_FAILED
    assert "NOTHING COMPARED" in capsys.readouterr().out


def _mutated(rng, text):
    """Cut, flip or replace: bytes, cells or lines."""
    kind = rng.integers(6)
    if kind == 0:
        return text[: rng.integers(len(text))]
    at = int(rng.integers(len(text)))
    if kind == 1:
        return text[:at] + chr(int(rng.integers(0, 300))) + text[at + 1 :]
    if kind == 2:
        return text[:at] + text[at + int(rng.integers(1, 30)) :]
    rows = [list(row) for row in csv.reader(io.StringIO(text))]
    row = rows[int(rng.integers(len(rows)))]
    cell = int(rng.integers(len(row)))
    if kind == 3:
        row[cell] = str(
            rng.choice(["", "nan", "inf", "-1", "1e999", "x", "\0", '"', "1_0", "-inf", "٣", "1e-400", "a" * 200_000])
        )
    elif kind == 4:
        row.insert(cell, row[cell])
    else:
        del row[cell]
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def test_damaged_tables_never_break_the_check_and_never_pass_meaninglessly(tmp_path, capsys):
    """Random damage: an exit code of the documented ones, and 0 only where all that counts is still a number."""
    rng = np.random.default_rng(12)
    path = tmp_path / "table.csv"
    found = 0
    for _ in range(1500):
        text = _mutated(rng, GOOD)
        path.write_text(text, encoding="utf-8", newline="")
        try:
            code = check_tables([path], 4, 1, False, print)
        except UsageError as error:
            code = error.exit_code
        assert code in (0, EXIT_USAGE, EXIT_NOT_CONVERGED, EXIT_CHECK_FAILED)
        found += code != 0
        if code == 0:
            _demand_meaning(text)
    assert found > 900
    assert "Traceback" not in capsys.readouterr().out


def _demand_meaning(text):
    header, *rows = csv.reader(io.StringIO(text))
    assert set(header) <= set(HEADER.split(",")) | {"case"}
    assert rows
    for row in rows:
        cells = dict(zip(header, row, strict=True))
        assert cells["status"] in ("converged", "collapsed", "diverged")
        for name in ("loss", "residual"):
            assert cells["status"] == "diverged" or math.isfinite(float(cells.get(name, 0)))
        for name in ("loss_se", "sim_loss_se"):  # a lone row of a case may lack them
            assert 0 <= float(cells.get(name, 0)) < math.inf


def test_what_has_no_end_is_not_read(tmp_path):
    (tmp_path / "table.csv").symlink_to("/dev/zero")
    (tmp_path / "provenance.json").symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="cannot be read: it is a device and no file"):
        read_content(tmp_path / "table.csv")
    assert read_provenance(tmp_path / "provenance.json").files == {}


# ------------------------------------------------------------------------------------------------ large tables


def long_table(path, count, row=ROWS[0]):
    with path.open("w") as stream:
        stream.write(HEADER.replace("sim_loss,sim_loss_se,", "") + "\n")
        for _ in range(count):
            stream.write(row.replace("0.26,0.01,", "") + "\n")
    return path


def peak(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_table(tmp_path):
    """Ten million rows took 17 GB."""
    short, long = (long_table(tmp_path / f"{count}.csv", count) for count in (400, 4000))
    assess(short)  # fills caches
    grown = peak(lambda: assess(long)) - peak(lambda: assess(short))
    kept = []
    twin = peak(lambda: read_content(long, lambda line, row: kept.append(row))) - peak(lambda: assess(short))
    assert assess(long).rows == len(kept) == 4000
    # 16 bytes a row for what it says and its line, and what sorting takes: half a gigabyte for ten million rows.
    assert grown < 64 * 3600 < 1_000_000 < twin


def test_of_many_faults_the_first_are_shown_and_all_are_counted(tmp_path, capsys):
    broken = ROWS[0].replace("0.25,0.001", "nan,-1")  # two faults in a row
    path = long_table(tmp_path / "table.csv", 3000, broken)
    with path.open("a") as stream:
        stream.write("one,0.5\n")
    assert check_tables([path], 4, 1, False, print) == EXIT_CHECK_FAILED
    out = capsys.readouterr().out
    shown = [line for line in out.splitlines() if "MEANINGLESS" in line]
    assert [line.split(",")[0].strip() for line in shown] == [
        f"MEANINGLESS: line {k}" for k in range(2, 7) for _ in "12"
    ]
    assert "and 5991 more places" in out
    found = read_content(path)
    assert len(found.faults) < found.count == 6001


def test_blank_lines_inside_are_rows_and_at_the_end_none(faults):
    assert faults(GOOD + "\n\r\n\n") == []
    assert len(faults(GOOD.replace(ROWS[2], f"\n\n{ROWS[2]}"))) == 2
