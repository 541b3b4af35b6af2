"""Figures as files: formats, fonts, size, style, and what the user has configured."""

import re
import zlib

import numpy as np
import pytest
from PIL import Image

from tlcli.errors import UsageError
from tlcli.options.commands import COMMANDS
from tlcli.report.drawing import Drawing, read_drawing
from tlcli.report.plotting import check_style
from tlcli.report.style import read_style
from tlcli.report.writer import save
from tlcli.run.execute import execute


def finetune(folder, **flags):
    flags = {"rho": "0:1:3", "output": str(folder), "quiet": True, **flags}
    return execute("finetune-loss", COMMANDS["finetune-loss"].options, None, flags)


def test_several_formats_in_one_run_with_embedded_truetype_fonts(tmp_path):
    assert finetune(tmp_path, format="png, pdf,svg") == 0
    assert {path.name for path in tmp_path.glob("figure*")} == {"figure.png", "figure.pdf", "figure.svg"}
    raw = (tmp_path / "figure.pdf").read_bytes()
    parts = [raw, *(_inflated(part) for part in re.findall(rb"stream\r?\n(.*?)endstream", raw, re.DOTALL))]
    pdf = b"".join(parts)
    assert b"/CIDFontType2" in pdf, "TrueType (Type 42)"
    assert b"/FontFile2" in pdf, "embedded"
    assert b"/Type3" not in pdf


def _inflated(stream):
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_a_layout_that_is_found_once_is_that_of_matplotlib(tmp_path, monkeypatch, ending):
    """A picture is drawn once, and byte for byte what `savefig` makes of two drawings."""
    from contextlib import nullcontext

    from matplotlib.axes import Axes

    drawn, draw = [], Axes.draw
    monkeypatch.setattr(Axes, "draw", lambda self, renderer: drawn.append(self) or draw(self, renderer))
    flags = {"gamma0": "0.5,1,2", "y": "gamma0", "title": "a title", "format": ending}
    assert finetune(tmp_path / "once", **flags) == 0
    once = len(drawn)
    monkeypatch.setattr("tlcli.report.writer._laid_out_once", nullcontext)
    assert finetune(tmp_path / "twice", **flags) == 0
    assert len(drawn) - once == 2 * once
    one, two = ((tmp_path / name / f"figure.{ending}").read_bytes() for name in ("once", "twice"))
    assert one == two


def test_tick_labels_of_neighbouring_panels_do_not_touch(draw, tmp_path):
    """The axis ends on a tick that it has only in its final width."""
    flags = {"x": "alpha2=0.05:1.2:12", "y": "gamma0=log:0.1:10:3", "rho": "0.3,0.6", "sigma1": "0,0.3"}
    (figure,) = dict.values(draw("phase-diagram", **flags))
    save(figure, tmp_path / "figure.png", {}, Drawing())
    boxes = [axes.xaxis.get_tightbbox(for_layout_only=True) for axes in figure.axes[2:4]]
    assert boxes[0].x1 + 2 < boxes[1].x0


def test_size_and_dpi(tmp_path):
    assert finetune(tmp_path, size="3.4x2.6", dpi="100") == 0
    with Image.open(tmp_path / "figure.png") as image:
        assert image.size == (340, 260)


def test_a_style_file_changes_the_look_and_nothing_else_does(tmp_path, monkeypatch):
    assert finetune(tmp_path / "plain", format="png,svg") == 0
    (tmp_path / "matplotlibrc").write_text("font.size: 20\nlines.linewidth: 9\n")
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path / "matplotlibrc"))
    import matplotlib

    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 9, "svg.hashsalt": "mine"}):
        assert finetune(tmp_path / "again", format="png,svg") == 0
    for name in ("figure.png", "figure.svg"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    style = tmp_path / "paper.mplstyle"
    style.write_text("axes.prop_cycle: cycler('color', ['123456', '654321'])\nlines.linewidth: 3\n")
    assert finetune(tmp_path / "styled", format="svg", style=f"curves,{style}") == 0
    drawn = (tmp_path / "styled" / "figure.svg").read_text()
    assert "stroke: #123456; stroke-width: 3;" in drawn
    assert "#123456" not in (tmp_path / "plain" / "figure.svg").read_text()
    assert "<text" not in drawn, "outlines"
    style.write_text("svg.fonttype: none\n")
    assert finetune(tmp_path / "text", format="svg", style=str(style)) == 0
    assert "<text" in (tmp_path / "text" / "figure.svg").read_text()


def test_the_font_size_of_a_style_is_that_of_all_letters(draw, tmp_path):
    def sizes(style, text):
        style.write_text(text)
        (figure,) = draw("finetune-loss", alpha2="0.1:0.9:3", gamma0="1,2", style=str(style)).values()
        (axis,) = figure.axes
        letters = [axis.xaxis.label, axis.title, axis.get_xticklabels()[0], figure.legends[0].get_texts()[0]]
        return np.array([part.get_fontsize() for part in letters])

    path = tmp_path / "paper.mplstyle"
    usual = sizes(path, "font.size: 10")
    np.testing.assert_allclose(sizes(path, "font.size: 7"), 0.7 * usual)
    mixed = sizes(path, "font.size: 7\naxes.labelsize: 20")
    np.testing.assert_allclose(mixed, [20, *0.7 * usual[1:]])


def test_files_of_other_formats_of_an_earlier_run_go(tmp_path):
    assert finetune(tmp_path, format="png,svg") == 0
    assert finetune(tmp_path, format="pdf") == 0
    assert [path.name for path in tmp_path.glob("figure*")] == ["figure.pdf"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "png,gif"}, "format: 'gif' is unknown; use one of png, pdf, svg, html, or several as png,pdf"),
        ({"size": "3.4"}, "size: '3.4' is no size; give WIDTHxHEIGHT in inches, each from 1 to 60, as 3.4x2.6"),
        ({"size": "0x2"}, "size: '0x2' is no size"),
        ({"style": "maps"}, r"style: 'maps' is unknown; use auto, map, curves or a FILE.mplstyle \(did you mean 'map'"),
        ({"style": "map,curves"}, "style: 'map,curves' names two of a kind"),
        ({"style": "no/such.mplstyle"}, "style: 'no/such.mplstyle' is no file"),
        ({"xlim": "1,0"}, "xlim: '1,0' is no range; give two numbers, the lower first"),
        ({"ylim": "0,inf"}, "ylim: '0,inf' is no range"),
        ({"ylim": "0,1", "log_y": True}, "ylim: 0,1 is not for a logarithmic axis; begin above 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        read_drawing(settings)


@pytest.mark.parametrize("text", ["lines.width: 3\n", "font.size: huge\n", "no colon\n"])
def test_a_style_file_with_a_mistake_is_refused(tmp_path, text):
    (tmp_path / "bad.mplstyle").write_text(text)
    with pytest.raises(UsageError, match=r"bad.mplstyle' is no style of matplotlib \(.*\); correct it."):
        read_style(tmp_path / "bad.mplstyle")
    with pytest.raises(UsageError, match="is no style"):
        finetune(tmp_path / "out", style=str(tmp_path / "bad.mplstyle"))
    assert not (tmp_path / "out").exists()


def test_what_is_asked_for_is_read():
    drawing = read_drawing({"style": "map", "format": "pdf", "size": "3.4 x 2.6", "xlim": "0,2", "log_y": False})
    assert (drawing.kind, drawing.style, drawing.formats, drawing.size) == ("map", None, ("pdf",), (3.4, 2.6))
    assert drawing.limits == {"x": (0.0, 2.0)}
    assert drawing.logs == {"y": False}
    np.testing.assert_equal(drawing.dpi, 160)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("font.size: 1e6", "FT_Set_Char_Size"),
        ("axes.prop_cycle: cycler(color=[])", "ZeroDivisionError"),
        ("lines.linewidth: nan", "Can only output finite numbers in PDF"),
        ("image.cmap: nonsense", "cmap"),
    ],
)
def test_a_style_that_cannot_be_drawn_is_found_before_the_work(tmp_path, monkeypatch, text, reason):
    (tmp_path / "bad.mplstyle").write_text(text)
    monkeypatch.setattr("tlcli.run.compute.solve", lambda *_: pytest.fail("this is the work"))
    with pytest.raises(UsageError, match=rf"figures cannot be drawn with '.*bad.mplstyle' \(.*{reason}.*correct it."):
        finetune(tmp_path / "out", style=str(tmp_path / "bad.mplstyle"), format="png,pdf")
    assert not (tmp_path / "out").exists()


def test_latex_where_there_is_none_is_found_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "tex.mplstyle").write_text("text.usetex: True")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="latex could not be found"):
        finetune(tmp_path / "out", style=str(tmp_path / "tex.mplstyle"))


def test_a_font_that_is_not_installed_is_told_once(tmp_path, capfd):
    (tmp_path / "font.mplstyle").write_text("font.family: No Such Font\n")
    assert check_style(tmp_path / "font.mplstyle", ("png",)) == ["'No Such Font'"]
    assert finetune(tmp_path / "out", style=str(tmp_path / "font.mplstyle")) == 0
    assert "findfont" not in capfd.readouterr().err
