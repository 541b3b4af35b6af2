"""Progress and messages: on standard error, plain lines where there is no terminal."""

import io
import sys

import pytest

from tlcli.cli.console import Console


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def stream(monkeypatch):
    def install(found):
        monkeypatch.setattr(sys, "stderr", found)
        return found

    return install


def test_one_line_per_ten_percent(stream):
    found = stream(io.StringIO())
    with Console().progress("sweep") as progress:
        for done in range(251):
            progress.update(done, 250)
    lines = found.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [f"sweep: {25 * i}/250 ({10 * i} %)" for i in range(11)]
    assert lines[-1].endswith(" s")


def test_a_resumed_sweep_starts_where_it_is(stream):
    found = stream(io.StringIO())
    with Console().progress("sweep") as progress:
        progress.update(7, 10)
        progress.update(7, 10)
        progress.update(10, 10)
    assert [line.split(",")[0] for line in found.getvalue().splitlines()] == [
        "sweep: 7/10 (70 %)",
        "sweep: 10/10 (100 %)",
    ]


def test_few_points_and_none(stream):
    found = stream(io.StringIO())
    with Console().progress("sweep") as progress:
        progress.update(0, 0)
        progress.update(1, 3)
    assert len(found.getvalue().splitlines()) == 2


@pytest.mark.parametrize("colour", [True, False])
def test_a_bar_on_a_terminal(stream, monkeypatch, colour):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    found = stream(Terminal())
    with Console().progress("sweep") as progress:
        for done in range(4):
            progress.update(done, 3)
    text = found.getvalue()
    assert "sweep" in text
    assert "3/3" in text
    assert "%), " not in text, "no plain lines beside the bar"
    assert ("\x1b[38;5;" in text or "\x1b[3" in text) == colour


def test_a_dumb_terminal_gets_lines(stream, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    found = stream(Terminal())
    with Console().progress("sweep") as progress:
        progress.update(3, 3)
    assert found.getvalue().startswith("sweep: 3/3 (100 %)")
    assert "\x1b" not in found.getvalue()


def test_quiet_keeps_warnings_and_errors(stream):
    found = stream(Terminal())
    console = Console(quiet=True)
    console.note("a note")
    with console.progress("sweep") as progress:
        progress.update(1, 2)
    assert found.getvalue() == ""
    console.warn("a warning")
    console.error("an error")
    assert found.getvalue() == "warning: a warning\nerror: an error\n"
    loud = Console()
    loud.note("a note")
    assert found.getvalue().endswith("a note\n")


def test_the_bar_goes_away_when_the_work_fails(stream, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    found = stream(Terminal())
    with pytest.raises(RuntimeError), Console().progress("sweep"):
        raise RuntimeError
    assert found.getvalue().endswith("\x1b[?25h"), "the cursor is shown again"
