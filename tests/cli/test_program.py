"""The program is built with what its arguments name, and says of all else what the whole would say."""

import sys

import pytest
import typer

from tlcli.cli import app
from tlcli.options.commands import COMMANDS


def parameters(program, name):
    return {p.name: (p.opts, p.secondary_opts) for p in typer.main.get_command(program).commands[name].params}


@pytest.mark.parametrize("name", COMMANDS)
def test_any_flag_of_a_command_can_be_built_alone(name):
    whole = parameters(app._with_commands(), name)
    assert len(whole) > 20
    always = {key: whole[key] for key in ("recipe_file", "recipe", "help_all")}
    assert parameters(app._with_one(name, []), name) == always
    for key in whole.keys() - always.keys():
        for flag in (*whole[key][0], *whole[key][1]):
            for word in (flag, f"{flag}=value"):
                assert parameters(app._with_one(name, [word]), name) == {**always, key: whole[key]}, flag


def test_an_option_is_built_only_where_it_is_given(tlcli, monkeypatch):
    built = []
    monkeypatch.setattr(app, "_with_commands", lambda: built.append(None) or whole())
    for words, code in (("-o - --rho 0.5", 0), ("-o - --rho=-0.5", 0), ("--help", 0), ("-o - --rho 3", 2)):
        assert tlcli("finetune-loss", words).code == code, words
        assert built == []


@pytest.mark.parametrize(
    "words",
    [
        *("finetune-loss --alhpa2 0.5", "finetune-loss --rho", "finetune-loss --rho 0.5 -1", "finetune-loss a b"),
        *("finetune-los", "--rho 0.5", "", "check", "check . --sigma 3", "run --nothing", "recipes a b c"),
    ],
)
def test_what_is_wrong_is_told_as_by_the_whole_program(tlcli, monkeypatch, words):
    part = tlcli(words)
    monkeypatch.setattr(app, "_with_one", lambda *_: whole())
    assert tlcli(words) == part
    assert part.code == 2 or not words


whole = app._with_commands


def test_completion_knows_all_flags(tlcli, monkeypatch):
    monkeypatch.setattr(app, "_with_one", None)  # it could not be called
    monkeypatch.setenv("_TLCLI_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "tlcli finetune-loss --alp")
    monkeypatch.setenv("COMP_CWORD", "2")
    monkeypatch.setattr(sys, "argv", ["tlcli"])
    assert "--alpha1" in tlcli("").out.split()
