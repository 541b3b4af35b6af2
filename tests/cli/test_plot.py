"""`tlcli plot`: stored results drawn anew, equal bytes where nothing is changed, nothing computed."""

import json
import shutil
from pathlib import Path
from unittest import mock

import pytest
from PIL import Image

from tests.cli.conftest import call

pytestmark = pytest.mark.usefixtures("rendered")
GRID = "--alpha1 0.5 --alpha2 0.3,0.6,0.8 --gamma0 0.5,1,5"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored") / "mine"
    assert call(f"finetune-loss {GRID} --quiet -o", folder).code == 0
    return folder


def test_unchanged_it_is_the_figure_of_the_run(stored, tmp_path):
    with mock.patch("tlcli.linear.linear_transfer.transfer_exact", side_effect=AssertionError("nothing is computed")):
        done = call("plot", stored, "-o", tmp_path / "new")
    assert done.code == 0, done.err
    assert "holds figure.png" in done.err
    assert (tmp_path / "new" / "figure.png").read_bytes() == (stored / "figure.png").read_bytes()


def test_size_formats_axes_and_the_recipe_that_makes_it_again(stored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = "--x gamma0 --quantity gain --size 3.4x2.6 --dpi 100 --format png,pdf --log-x --xlim 0.4,6"
    before = (stored / "provenance.json").read_bytes()
    done = call("plot", stored, command)
    assert done.code == 0, done.err
    plots = stored / "plots"
    assert {p.name for p in plots.iterdir()} == {"figure.png", "figure.pdf", "provenance.json"}
    with Image.open(plots / "figure.png") as image:
        assert image.size == (340, 260)
        recipe = json.loads(image.text["Recipe"])
    assert (recipe["x"], recipe["quantity"], recipe["log_x"]) == ("gamma0", "gain", True)
    assert (stored / "provenance.json").read_bytes() == before
    assert call("check", stored).code == 0
    assert call("run", plots / "figure.pdf", "-o again --quiet").code == 0
    (again,) = Path("again").iterdir()
    assert (again / "figure.png").read_bytes() == (plots / "figure.png").read_bytes()
    assert call("plot", stored, "--format svg").code == 0
    assert {p.name for p in plots.iterdir()} == {"figure.svg", "provenance.json"}, "its own earlier ones are replaced"


def test_an_axis_that_is_asked_for_where_the_other_stands_changes_places_with_it(tmp_path):
    assert call("phase-diagram --x alpha2=0.2,0.6 --y rho=0.5,0.9 --quiet -o", tmp_path / "m").code == 0
    for words in ("--x rho", "--y alpha2", "--x rho --style curves", "--x rho --y alpha2"):
        done = call("plot", tmp_path / "m", words, "-o", tmp_path / "new")
        assert done.code == 0, done.err
        facts = json.loads((tmp_path / "new" / "provenance.json").read_text())
        assert (facts["recipe"]["x"], facts["recipe"]["y"]) == ("rho", "alpha2"), words
    done = call("plot", tmp_path / "m", "--x rho --y rho -o", tmp_path / "new")
    assert (done.code, done.err) == (2, "error: --x and --y are both 'rho'; name two different parameters.\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--x alpha2=0:1:3", "--x alpha2=0:1:3: what is stored has its grid already"),
        ("--x rho", "'rho' has one value only"),
        ("--quantity los", "'los' is no column to draw"),
        ("--size big", "size: 'big' is no size"),
        ("--size 1x1", "size: 1x1 inches have no room for the panels, titles and legend of figure"),
        ("--format gif", "format: 'gif' is unknown"),
        ("--alpha1 2", "No such option"),
        ("-o -", "-o - takes no figure"),
    ],
)
def test_mistakes_are_refused(stored, words, said):
    done = call("plot", stored, words)
    assert (done.code, said in done.err) == (2, True), done.err


def test_several_folders_one_of_which_is_none(stored, tmp_path):
    done = call("plot", stored, tmp_path, "-o", tmp_path / "out")
    assert done.code == 2
    assert "holds no result" in done.err
    assert (tmp_path / "out" / "mine" / "figure.png").exists()


def test_a_file_of_the_user_is_not_replaced(stored, tmp_path):
    (tmp_path / "figure.png").write_bytes(b"mine")
    done = call("plot", stored, "-o", tmp_path)
    assert (done.code, "was not written by an earlier run" in done.err) == (2, True)
    assert (tmp_path / "figure.png").read_bytes() == b"mine"


def test_figures_never_replace_the_table_of_a_result(stored):
    before = {path.name: path.read_bytes() for path in stored.iterdir() if path.is_file()}
    done = call("plot", stored, "-o", stored)
    assert (done.code, "holds a result, whose table its figures would replace" in done.err) == (2, True), done.err
    assert {path.name: path.read_bytes() for path in stored.iterdir() if path.is_file()} == before


def test_two_results_of_one_name_have_no_figures_in_one_place(stored, tmp_path):
    shutil.copytree(stored, tmp_path / "other" / stored.name)
    done = call("plot", stored, tmp_path / "other" / stored.name, "-o", tmp_path / "out")
    assert (done.code, "have one name" in done.err, (tmp_path / "out").exists()) == (2, True, False), done.err
    assert call("plot", stored, tmp_path / "other" / stored.name).code == 0, "in folders of their own they have"
