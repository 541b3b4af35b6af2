"""Recipes that come with the program are found by name; files and mistakes are what they are."""

from pathlib import Path

import pytest

from tlcli.errors import UsageError
from tlcli.run.shipped import find_recipe, shipped, title_of


def test_names_files_and_mistakes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe(Path("fig1b")) == shipped()["fig1b"]
    assert find_recipe(Path("other.yaml")) == Path("other.yaml"), "a file is refused where it is read"
    assert find_recipe(Path("folder/fig1b")) == Path("folder/fig1b")
    with pytest.raises(UsageError, match=r"'fig1d' is no file and no recipe .*did you mean 'fig1[abc]'"):
        find_recipe(Path("fig1d"))
    Path("fig1b").write_text("rho: 0.1\n")
    assert find_recipe(Path("fig1b")) == Path("fig1b"), "a file of the user's is nearer"


def test_every_recipe_says_what_it_is():
    assert len(shipped()) > 40
    assert [name for name, path in shipped().items() if not title_of(path)] == []


def test_a_recipe_without_a_comment_has_no_title(tmp_path):
    path = tmp_path / "one.yaml"
    for text, title in (("# Mine.\nrho: 0.1\n", "Mine."), ("rho: 0.1\n", ""), ("", "")):
        path.write_text(text)
        assert title_of(path) == title
