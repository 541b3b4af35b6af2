"""Figures on other people's accounts: their settings of matplotlib have no influence, and failures cost no table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

ARGUMENTS = "finetune-loss --rho 0:1:3 -o"  # and no text to check, for which matplotlib is loaded before


def run(folder, cwd, **environment):
    command = [sys.executable, "-m", "tlcli", *ARGUMENTS.split(), folder]
    found = subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, timeout=60, env={**os.environ, **environment}, check=False
    )
    assert found.returncode == 0, found.stderr
    assert found.stderr.count("\n") == 2, "the note on what was written, the verdict, and nothing else"
    return (Path(cwd, folder) / "figure.png").read_bytes()


def test_settings_of_matplotlib_have_no_influence(rendered, tlcli, tmp_path):
    here, broken = tmp_path / "here", tmp_path / "broken"
    for folder in (here, broken):
        folder.mkdir()
    assert tlcli(ARGUMENTS, "plain").code == 0
    expected = Path("plain/figure.png").read_bytes()
    settings = "text.usetex: True\nfont.size: 30\nlines.linewidth: 9\nsavefig.bbox: tight\nno such: key\n"
    (here / "matplotlibrc").write_text(settings)
    (broken / "matplotlibrc").write_bytes(b"\xff\xfe broken")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "matplotlibrc").write_text(settings)
    assert run("out", here) == expected
    assert run("out", broken, MPLBACKEND="nonsense", MATPLOTLIBRC=str(tmp_path / "config")) == expected


def test_settings_of_a_library_that_is_loaded_already_have_none_either(rendered, tlcli):
    import matplotlib

    assert tlcli(ARGUMENTS, "one").code == 0
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30, "axes.grid": True, "savefig.dpi": 10}):
        assert tlcli(ARGUMENTS, "two").code == 0
    assert Path("one/figure.png").read_bytes() == Path("two/figure.png").read_bytes()


def test_characters_that_the_font_lacks_are_told_once(rendered, tlcli):
    done = tlcli("finetune-loss --rho 0:1:3 --title '日本 ρ' -o out")
    assert done.code == 0
    assert done.err.splitlines()[0] == "warning: the font of the figures lacks '日本'; boxes stand in their place."
    assert done.err.count("\n") == 3


@pytest.mark.parametrize("error", [ZeroDivisionError("odd"), MemoryError()])
def test_a_figure_that_fails_costs_no_table(rendered, tlcli, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Figure, "savefig", fail)
    done = tlcli(ARGUMENTS, "out")
    assert done.code == 1
    assert "error: the figure cannot be drawn (" in done.err
    assert "table.csv and provenance.json are written and whole" in done.err
    assert sorted(os.listdir("out")) == ["provenance.json", "table.csv"]
    assert json.loads(Path("out/provenance.json").read_text())["rows"] == 3
    assert tlcli("check out").code == 0


def test_figures_before_one_that_fails_are_named_in_the_provenance(tlcli, monkeypatch):
    whole, written = Figure.savefig, []

    def fail(self, *arguments, **options):
        written.append(None)
        if len(written) == 2:
            raise ZeroDivisionError("odd")
        return whole(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", fail)
    done = tlcli("finetune-loss --rho 0:1:3 --quantity loss,gain -o out")
    assert (done.code, "error: the figure cannot be drawn (" in done.err) == (1, True)
    (drawn,) = (name for name in os.listdir("out") if name.startswith("figure"))
    assert drawn in json.dumps(json.loads(Path("out/provenance.json").read_text())["files"])
    assert tlcli("check out").code == 0
    monkeypatch.setattr(Figure, "savefig", whole)
    assert tlcli("finetune-loss --rho 0:1:3 --quantity loss -o out").code == 0
    assert sorted(os.listdir("out")) == ["figure.png", "provenance.json", "table.csv"], "it is ours to remove"


def test_a_label_of_many_letters_is_a_short_name(tlcli):
    Path("r.yaml").write_text(f"alpha1: [0.5, 2]\ncases: [{{label: {'ii' * 60}}}, {{label: {'éé' * 30}, gamma0: 3}}]\n")
    assert tlcli("pretrain-kernel r.yaml -o out").code == 0
    archives = sorted(name for name in os.listdir("out") if name.endswith(".npz"))
    assert [len(name) for name in archives] == [len("kernel-1-.npz") + 50] * 2
