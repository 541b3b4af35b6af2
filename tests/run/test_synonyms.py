"""sigma1 and noise1 are one option: either word gives the same result under every theory."""

import pytest

import tlcli
from tlcli.errors import UsageError
from tlcli.options.commands import COMMANDS
from tlcli.run.job import prepare
from tlcli.run.recipe import load_recipe

NETWORK = {"source": "linear", "target": "hermite:2"}


def job(command, **settings):
    return prepare(command, COMMANDS[command].options, None, settings)


@pytest.mark.parametrize(
    ("command", "settings", "own", "other"),
    [
        ("finetune-loss", {}, "sigma", "noise"),
        ("finetune-loss", {"solver": "linear-structured"}, "sigma", "noise"),
        ("phase-diagram", {"solver": "linear-joint"}, "sigma", "noise"),
        ("finetune-loss", {"model": "network", **NETWORK}, "noise", "sigma"),
        ("dmft-solve", NETWORK, "noise", "sigma"),
        ("bayes-saddle", {"source": "linear", "target": "linear"}, "noise", "sigma"),
    ],
)
def test_either_word_is_the_same_job(command, settings, own, other):
    mine = job(command, **settings, **{f"{own}1": "0.3", f"{own}2": "0.1,0.2"})
    theirs = job(command, **settings, **{f"{other}1": "0.3", f"{other}2": "0.1,0.2"})
    assert theirs.resolved == mine.resolved
    assert list(theirs.cases[0].grid.values) == list(mine.cases[0].grid.values)
    assert f"{own}2" in theirs.cases[0].grid.values
    assert f"{other}2" not in theirs.cases[0].grid.values
    assert mine.notes == ()
    (note,) = theirs.notes
    assert f"{other}1 is {own}1, {other}2 is {own}2 in " in note


def test_an_axis_by_the_other_word():
    mine, theirs = job("finetune-loss", x="sigma2=0:1:5"), job("finetune-loss", x="noise2=0:1:5")
    assert theirs.roles == mine.roles == {"x": "sigma2"}
    assert theirs.resolved == mine.resolved


def test_a_flag_replaces_the_other_word_of_a_recipe(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("command: finetune-loss\nsigma1: 0.3\ncases:\n- {label: a, noise2: 0.5}\n- {label: b, gamma0: 2}\n")
    recipe = load_recipe(path)
    made = prepare("finetune-loss", COMMANDS["finetune-loss"].options, recipe, {"noise1": "0.7"})
    assert made.resolved["sigma1"] in ("0.7", 0.7, [0.7])
    assert float(made.cases[0].grid.values["sigma2"].array[0]) == 0.5
    assert float(made.cases[1].grid.values["sigma2"].array[0]) == 0
    assert float(made.cases[1].grid.values["sigma1"].array[0]) == 0.7


def test_both_words_are_refused():
    with pytest.raises(UsageError, match=r"noise1 = 0\.2 and sigma1 = 0.3 are two words for one thing; give one"):
        job("finetune-loss", sigma1="0.3", noise1="0.2")


def test_a_theory_without_noise_refuses_either_word():
    for word in ("sigma1", "noise1"):
        with pytest.raises(UsageError, match=f"linear-ansatz does not use '{word}'"):
            job("finetune-loss", solver="linear-ansatz", c_signal="1", **{word: "0.3"})


def test_the_function_takes_either_word():
    mine, theirs = tlcli.finetune_loss(alpha1=0.5, sigma1=0.3), tlcli.finetune_loss(alpha1=0.5, noise1=0.3)
    assert theirs.columns == mine.columns
    assert (theirs["loss"] == mine["loss"]).all()
    assert not (mine["loss"] == tlcli.finetune_loss(alpha1=0.5)["loss"]).any()
