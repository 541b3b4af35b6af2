"""How options behave as axes follows from their declarations."""

import pytest

from tlcli.options import OPTIONS
from tlcli.options.axes import BEST, best_columns, has_ends, stepped, summarised_axis, time_unit
from tlcli.options.commands import COMMANDS, option_of


def test_what_axes_are_told_by_their_options():
    assert [name for name in OPTIONS if has_ends(name)] == ["delta"]
    assert set(BEST) == {"gamma0", "delta"}
    assert [name for name in ("depth", "freeze", "reinit_from", "stage", "task") if not stepped(name)] == []
    assert [name for name in ("alpha2", "p1", "time", "gamma0", "nothing", None) if stepped(name)] == []


@pytest.mark.parametrize(
    ("quantity", "axis"),
    [("gamma0_opt", "gamma0"), ("delta_low", "delta"), ("loss_opt", "delta"), ("loss", None), (None, None)],
)
def test_a_best_value_belongs_to_its_whole_axis(quantity, axis):
    assert summarised_axis(quantity) == axis


def test_best_columns_and_units():
    assert best_columns("delta") == ("delta_opt", "delta_low", "delta_high")
    assert [time_unit(words) for words in ({"reduction": "sum"}, {"reduction": "mean"}, {})] == [
        "summed-loss",
        "mean-loss",
        "mean-loss",
    ]


def test_durations_are_those_of_two_stages_and_times_replace_that_of_the_last():
    assert {name: option.lasts for name, option in OPTIONS.items() if option.lasts} == {"t1": 1, "t2": 2}
    assert {name: command.duration for name, command in COMMANDS.items()} == {
        "pretrain-kernel": "t1",
        "finetune-loss": "t2",
        "dmft-solve": None,
        "bayes-saddle": "t2",
        "phase-diagram": "t2",
    }


def test_options_that_follow_others_name_one_that_exists():
    for option in OPTIONS.values():
        for other in (option.follows, option.instead, option.synonym):
            assert not other or other in OPTIONS, option.name


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_an_option_of_a_command_has_the_command_s_default_and_text(command):
    for name in command.options:
        found = option_of(command, name)
        assert found.default == command.defaults.get(name, OPTIONS[name].default)
        assert found.help == command.texts.get(name, OPTIONS[name].help)
        if found.default is not None and found.kind != "text":
            found.parse(found.default)
