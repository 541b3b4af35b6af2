"""The maps of the documentation show the tree as it is."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("page", ["code-map.md", "architecture.md", "adding-a-theory.md"])
def test_every_module_that_a_page_names_exists(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+\.py)`", text))
    known = {
        p.relative_to(ROOT).as_posix()
        for folder in ("tlcli", "tests", "docs", "benchmarks")
        for p in (ROOT / folder).rglob("*.py")
    }
    # Modules are named below tlcli/, tests below tests/, or beside the one named before.
    missing = [n for n in named if not any(path == n or path.endswith(f"/{n}") for path in known)]
    assert not missing, sorted(missing)


def test_the_architecture_names_every_package():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = [p.parent for p in (ROOT / "tlcli").rglob("__init__.py")]
    names = [p.name for p in packages if p != ROOT / "tlcli"]
    assert not [name for name in names if f"{name}/" not in text]


def script(name):
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize("page", ["python.md", "api.md", "drawing.md", "adding-a-theory.md"])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, registering):
    monkeypatch.chdir(tmp_path)
    program = script("python_blocks").python_of((ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert program
    exec(compile(program, page, "exec"), {})


def test_the_blocks_of_a_page_keep_its_lines():
    text = "words\n```python\na = 1\n```\n\n```sh\nls\n```\n```python\nb = a\n```\n"
    assert script("python_blocks").python_of(text).splitlines() == ["", "", "a = 1", *[""] * 6, "b = a"]
    assert script("python_blocks").python_of("```sh\nls\n```\n") == ""


def test_the_contact_sheet_holds_every_picture_once(tmp_path):
    found = script("contact_sheet")
    paths = found.figures()
    assert len(paths) == len(set(paths))
    assert set(paths) == set((ROOT / "docs" / "figures").glob("*.png"))
    assert paths.index(ROOT / "docs" / "figures" / "fig1a.png") < paths.index(ROOT / "docs" / "figures" / "fig9.png")
    found.WIDTH = 80
    found.main([str(tmp_path / "sheet.png")])
    with found.Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 4 * found.WIDTH
        assert image.height > 10 * found.WIDTH / 2


def test_the_notebook_runs_and_shows_its_figures(tmp_path):
    notebooks = script("notebooks")
    page = notebooks.write_page(ROOT / "docs" / "notebooks" / "transfer.ipynb", tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "pre-training helps at" in text
    named = re.findall(r"\]\((transfer-\d+\.png)\)", text)
    assert len(named) == 3
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in named)


def test_the_arrays_of_the_python_page_are_there():
    import tlcli

    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`(\w+)`", text.split("## Kernels and predictions")[1].split("## The result")[0]))
    told = {name.replace("MOMENT", "stage2").replace("_layerL", "_layer1") for name in told}
    sizes = {"p1": 8, "p2": 6, "dim": 4, "ptest": 10, "predictions": True}
    times = {"times": [1, 2], "accuracy": 1.0, "neurons": 50, "repeats": 4}
    linear = {"source": "linear", "target": "hermite:1", "activation": "linear", "gamma0": 0.2}
    network = tlcli.dmft_solve(**linear, **sizes, **times, two_time=True, test_kernels=True)
    more = {"two_time": True, "responses": True, "test_kernels": True}
    deep = tlcli.dmft_solve(**linear, **sizes, times=[1, 2], depth=2, **more)
    bayes = tlcli.bayes_saddle(source="linear", target="linear", **sizes)
    assert {"phi_se_stage2", "predictions_se"} <= network.arrays.keys()
    for keys in (network.arrays.keys() | deep.arrays.keys(), bayes.arrays.keys()):
        assert len(keys & told) > 8
    plain = {name for name in told if name.startswith(("phi", "g_", "ntk", "kernel", "labels", "points", "density"))}
    every = network.arrays.keys() | deep.arrays.keys() | bayes.arrays.keys() | tlcli.pretrain_kernel().arrays.keys()
    assert plain <= every | {"points", "kernels"}, plain - every


def cited(text):
    """(page, what of it) of every place of the documentation that a text cites, line breaks undone."""
    flat = re.sub(r"\s*\n\s*#?\s*", " ", text)
    for page, rest in re.findall(
        r"docs/([\w-]+\.md)((?:, Sections? [\d, and]*\d|, [A-Z][\w -]*(?:, row by row)?)?)", flat
    ):
        yield page, rest.removeprefix(", ")


def lacking(text, pages):
    """What a text cites that the pages do not have."""
    missing = []
    for page, what in cited(text):
        titles = re.findall(r"^#+ (.*)$", pages.get(page, ""), flags=re.MULTILINE)
        if what.startswith("Section"):
            wanted = re.findall(r"\d+", what)
            found = all(any(title.startswith(f"{n}. ") for title in titles) for n in wanted)
        else:
            found = page in pages and any(what.startswith(title) for title in (*titles, ""))
            found = found and (page != "references.md" or not what or any(what.startswith(t) for t in titles))
        if not found:
            missing.append((page, what))
    return missing


PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
CODE = [path for folder in ("tlcli", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]


def test_what_code_cites_exists():
    absent = {path.name: lacking(path.read_text(encoding="utf-8"), PAGES) for path in CODE if path != Path(__file__)}
    assert not {name: found for name, found in absent.items() if found}
    note = "theory" + " note"
    assert not [path.name for path in CODE if note in path.read_text(encoding="utf-8")]


def test_a_dangling_citation_is_seen():
    assert lacking("see docs/theory.md, Sections 2 and 3; docs/references.md, Frozen field (x)", PAGES) == []
    assert lacking("docs/theory.md, Section 99", PAGES) == [("theory.md", "Section 99")]
    assert lacking("docs/nowhere.md", PAGES) == [("nowhere.md", "")]
    assert lacking("docs/references.md, Thawed field", PAGES) == [("references.md", "Thawed field")]
