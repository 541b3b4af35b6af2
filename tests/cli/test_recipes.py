"""Recipes that come with the program are found by name, wherever one is."""

from pathlib import Path

import yaml

RECIPES = sorted(path.stem for path in (Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def test_they_are_listed_and_shown(tlcli):
    listed = tlcli("recipes")
    assert [line.split()[0] for line in listed.out.splitlines()] == RECIPES
    assert yaml.safe_load(tlcli("recipes show fig1b").out)["command"] == "phase-diagram"


def test_they_run_by_name_from_any_folder(tlcli):
    by_name = tlcli("run fig1c -o - --quiet")
    by_path = tlcli("run", Path(__file__).parents[2] / "recipes" / "fig1c.yaml", "-o - --quiet")
    assert by_name.code == 0
    assert by_name.out == by_path.out
    assert tlcli("phase-diagram fig1b --dry-run").code == 0


def test_a_file_of_that_name_comes_first_and_mistakes_are_told(tlcli):
    Path("fig1c").write_text("command: finetune-loss\nalpha2: 0.25\n")
    assert ",0.25," in tlcli("run fig1c -o - --quiet").out
    assert "'fig1d' is no file and no recipe that comes with tlcli (did you mean 'fig1" in tlcli("run fig1d").err
    assert tlcli("run fig1d").code == 2
    assert "recipes: 'list' is unknown here" in tlcli("recipes list").err
