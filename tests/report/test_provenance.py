"""What stands beside a table and inside a figure: the same facts, no date, equal runs equal bytes."""

import json
import re
import subprocess
import sys

import pytest
import threadpoolctl
from matplotlib.figure import Figure
from PIL import Image

import tlcli
from tlcli.report.drawing import Drawing
from tlcli.report.provenance import facts, png_chunks, recipe_hash, write_provenance
from tlcli.report.style import look
from tlcli.report.writer import save

RECIPE = {"alpha1": "0.5", "title": "Größe, $\\gamma_0$", "cases": [{"label": "a"}]}


@pytest.fixture
def saved(tmp_path):
    def write(name, about=None):
        with look():
            figure = Figure()
            figure.subplots().plot([1, 2], [3, 4])
        save(figure, tmp_path / name, about or facts("finetune-loss", RECIPE, 7), Drawing())
        return tmp_path / name

    return write


def test_the_hash_is_that_of_the_content():
    assert recipe_hash({"a": 1, "b": [1, 2]}) == recipe_hash({"b": [1, 2], "a": 1})
    assert recipe_hash({"a": 1}) != recipe_hash({"a": 2})
    # Pinned: a hash that changes between versions identifies nothing.
    assert recipe_hash({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


def test_facts():
    about = facts("finetune-loss", RECIPE, 7)
    assert about["command"] == "finetune-loss"
    assert about["recipe"] == RECIPE
    assert about["recipe_sha256"] == recipe_hash(RECIPE)
    assert about["seed"] == 7
    assert about["versions"]["tlcli"] == tlcli.__version__
    assert {"python", "numpy", "scipy", "matplotlib"} < set(about["versions"])
    assert about["blas"]
    assert all(pool["threads"] >= 1 for pool in about["blas"])
    assert not re.search(r"date|time|20\d\d-", json.dumps({**about, "versions": {}}).lower())


def test_libraries_are_in_one_order_however_they_were_found(monkeypatch):
    found = threadpoolctl.threadpool_info()
    found += [{"user_api": "blas", "internal_api": "other", "version": str(i), "num_threads": i} for i in (2, 1)]
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: found)
    one = facts("run", {}, 0)
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: found[::-1])
    assert facts("run", {}, 0) == one
    assert len(one["blas"]) >= 2


def test_the_file_beside_the_table(tmp_path):
    path = tmp_path / "provenance.json"
    write_provenance(path, {**facts("run", RECIPE, 0), "rows": 3})
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["rows"] == 3
    assert content["recipe"] == RECIPE
    assert "Größe" in path.read_text(encoding="utf-8"), "readable by people"
    assert path.read_bytes().endswith(b"}\n")


def test_png_chunks_hold_the_facts(saved):
    about = facts("finetune-loss", RECIPE, 7)
    with Image.open(saved("a.png", about)) as image:
        chunks = dict(image.text)
    assert json.loads(chunks["Description"]) == about
    assert json.loads(chunks["Recipe"]) == RECIPE
    assert chunks["Software"] == f"tlcli {tlcli.__version__}" == png_chunks(about)["Software"]
    assert not {"Creation Time", "date"} & set(chunks)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_equal_figures_are_equal_bytes_and_hold_the_facts(saved, ending):
    one = saved(f"a.{ending}").read_bytes()
    assert saved(f"b.{ending}").read_bytes() == one
    assert saved(f"c.{ending}", facts("finetune-loss", RECIPE, 8)).read_bytes() != one
    assert b"CreationDate" not in one
    assert b"<dc:date>" not in one
    if ending != "pdf":  # whose strings are escaped
        assert b"recipe_sha256" in one


def test_figures_leave_no_temporary_and_do_without_pyplot(saved):
    path = saved("a.png")
    code = "import sys, tlcli.report.figures, tlcli.report.writer; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "matplotlib.figure" in loaded
    assert "matplotlib.pyplot" not in loaded, "its backend and its figures are the user's"
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]
