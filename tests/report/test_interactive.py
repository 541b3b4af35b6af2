"""Figures for a browser: what they hold, their file, and what they do in a browser that is there."""

import base64
import html
import importlib.util
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

import tlcli
from tlcli.cli.console import Console
from tlcli.errors import MissingExtraError
from tlcli.options import OPTIONS
from tlcli.options.columns import COLUMNS, label_of
from tlcli.options.commands import COMMANDS
from tlcli.report.interactive import _broken, _near
from tlcli.report.maps import colour_scale
from tlcli.report.markup import page_text
from tlcli.run.again import recipe_inside
from tlcli.run.execute import execute

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
MAP = {"x": "alpha2=0.05:1.5:8", "y": "gamma0=log:0.1:10:6", "alpha1": "0.5,2", "sigma1": 0.3, "weight_decay": 0.3}


def run(command, folder, **flags):
    flags = {"output": str(folder), "quiet": True, **flags}
    assert execute(command, COMMANDS[command].options, None, flags) == 0
    return folder


def parts(path):
    """Return data and layout of a page."""
    text = path.read_text(encoding="utf-8")
    call = text[text.rindex("Plotly.newPlot(") :]
    decoder, at, found = json.JSONDecoder(), call.index("[{"), []
    for _ in range(2):
        value, at = decoder.raw_decode(call, at)
        found.append(value)
        at += 2
    return found


def array(value):
    if not isinstance(value, dict):
        return np.array(value, dtype=float)
    shape = [int(n) for n in str(value["shape"]).split(",")] if "shape" in value else -1
    return np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"]).reshape(shape)


def of_kind(data, kind, **more):
    return [t for t in data if t["type"] == kind and all(t.get(key) == value for key, value in more.items())]


def test_a_map_has_its_gains_boundary_and_every_column_under_the_pointer(tmp_path):
    run("phase-diagram", tmp_path, format="html,png", **MAP)
    assert {path.name for path in tmp_path.glob("figure*")} == {"figure.html", "figure.png"}
    data, layout = parts(tmp_path / "figure.html")
    result = tlcli.load(tmp_path)
    first, second = (t for t in of_kind(data, "heatmap") if "customdata" in t)
    varied = re.findall(r"(\w+) = %\{customdata\[(\d+)\]", first["hovertemplate"])
    constant = re.findall(r"(\w+) = [^%{<,]+", first["hovertemplate"])
    words = {"status", "phase"}
    assert {name for name, _ in varied} | set(constant) | words >= set(result.columns)
    for trace, at in ((first, 0), (second, 1)):
        told = array(trace["customdata"])
        for name, column in varied:
            np.testing.assert_array_equal(told[..., int(column)], result[name][at].T)
        phases = np.array(trace["text"])
        assert phases.shape == (6, 8)
        assert phases[2, 3].startswith(f"phase = {result['phase'][at, 3, 2]}")
    assert len(layout["sliders"][0]["steps"]) == 2
    assert layout["yaxis"]["type"] == "log"
    # The line stands where the boundary of the table is, and the slider shows that of its own panel.
    lines = of_kind(data, "scatter", name="gain = 0 (exact)")
    edges = np.concatenate([np.column_stack([e["alpha2"], e["gamma0"]]) for e in result.boundaries[0]])
    drawn = np.concatenate([np.column_stack([array(t["x"]), array(t["y"])]) for t in lines])
    assert len(drawn) > 4
    assert all(np.abs(edges / point - 1).max(axis=1).min() < 1e-12 for point in drawn)
    for number, step in enumerate(layout["sliders"][0]["steps"]):
        seen = step["args"][0]["visible"]
        heats = [t for t, on in zip(data, seen, strict=True) if on and "customdata" in t]
        assert len(seen) == len(data)
        assert heats == [(first, second)[number]]
    # The colour at gain 0 is the middle of the scale.
    z, gain = array(first["z"]), result["gain"][0].T
    np.testing.assert_allclose(np.sign(np.round(z - 0.5, 12)), np.sign(np.round(gain, 12)))


def test_a_map_has_colours_beyond_its_scale_and_best_values_beyond_its_axis(tmp_path):
    flags = {"x": "alpha2=0.05:1.5:30", "y": "gamma0=log:0.1:10:30", "kernel": "ntk", "ridge": "0.05", "rho": "0.5"}
    flags |= {"noise1": "0.3", "noise2": "0.3", "optimal_gamma0": True, "alpha1": "0.3,0.8,2"}
    run("phase-diagram", tmp_path, format="html", **flags)
    data, layout = parts(tmp_path / "figure.html")
    result = tlcli.load(tmp_path)
    gain, norm = result["gain"], colour_scale([result["gain"]], signed=True)[0]
    beyond = gain <= norm.vmin
    assert 5 < beyond.sum() < 0.05 * gain.size
    z = np.array([array(t["z"]).T for t in of_kind(data, "heatmap") if "customdata" in t])
    np.testing.assert_array_equal(z == 0, beyond)
    assert np.all(z <= 1), "every gain has a colour"
    ticks = dict(zip(layout["yaxis"]["tickvals"], layout["yaxis"]["ticktext"], strict=True))
    assert ticks[0.5] == "0.5", "not a 5 below the 1"
    arrows, *_ = (t for t in of_kind(data, "scatter") if t["name"].endswith("at or beyond the edge"))
    infinite = np.isposinf(result["gamma0_opt"]) & (result["loss_opt"] < result["baseline"])
    np.testing.assert_allclose(array(arrows["x"]), result["alpha2"][0, :, 0][infinite[0, :, 0]])
    assert arrows["marker"]["symbol"] == "triangle-up"


def test_curves_have_the_points_of_the_table_on_smooth_lines_and_the_experiments(tmp_path):
    flags = {"alpha1": "2", "alpha2": "0.1:0.9:5", "gamma0": "0,2", "simulate": True, "dim": "20", "trials": "3"}
    run("finetune-loss", tmp_path, format="html", x="alpha2", title="mine </script> <b>", **flags)
    data, layout = parts(tmp_path / "figure.html")
    result = tlcli.load(tmp_path)
    at = list(result.axes).index("alpha2")
    loss, sim = (np.moveaxis(result[name], at, -1) for name in ("loss", "sim_loss"))
    points = [t for t in of_kind(data, "scatter", mode="markers") if "customdata" in t]
    curves = [t for t in points if not t["name"].startswith("regression")]
    measured = [t for t in points if t["name"].startswith("regression")]
    for row in range(2):
        np.testing.assert_array_equal(array(curves[row]["y"]), loss[row])
        np.testing.assert_array_equal(array(measured[row]["y"]), sim[row])
    lines = of_kind(data, "scatter", mode="lines")
    assert max(len(array(t["x"])) for t in lines) > 100, "smooth"
    assert [t["name"] for t in lines] == ["γ<sub>0</sub> = 0", "no pre-training", "γ<sub>0</sub> = 2"]
    assert "sliders" not in layout
    assert layout["title"]["text"].startswith("mine &lt;/script&gt; &lt;b&gt;")


def test_infinity_has_its_place_on_a_linear_axis(tmp_path):
    run("finetune-loss", tmp_path, format="html", x="gamma0=0,1,2,3,inf")
    data, layout = parts(tmp_path / "figure.html")
    axis = layout["xaxis"]
    assert "type" not in axis
    assert (axis["tickvals"][0], axis["ticktext"][-1]) == (0, "∞")
    (points,) = of_kind(data, "scatter", mode="markers")
    np.testing.assert_array_equal(array(points["x"]), [0, 1, 2, 3, axis["tickvals"][-1]])


def test_zero_and_infinity_have_places_and_whole_numbers_nothing_between(tmp_path):
    flags = {"whitened": "labels", "label_overlap": "0.9", "gamma0": "3", "delta": "0,log:0.1:10:5,inf"}
    run("bayes-saddle", tmp_path / "a", format="html", **flags)
    data, layout = parts(tmp_path / "a" / "figure.html")
    axis = layout["xaxis"]
    assert {axis["ticktext"][0], axis["ticktext"][-1]} | set(axis["ticktext"]) >= {"0", "∞"}
    (points,) = [t for t in data if "customdata" in t]
    assert np.isfinite(array(points["x"])).all(), "places on the axis"
    column = re.findall(r"delta = %\{customdata\[(\d+)\]", points["hovertemplate"])[0]
    np.testing.assert_array_equal(array(points["customdata"])[:, int(column)], tlcli.load(tmp_path / "a").axes["delta"])
    recipe = {
        "command": "finetune-loss",
        "stages": [{"teacher": i, "alpha": 1, "gamma": 1, "duration": 2} for i in (1, 2)],
    }
    recipe |= {"gram": [[1, 0.5], [0.5, 1]], "format": "html", "solver": "linear-joint", "x": "stage"}
    tlcli.run(recipe).save(tmp_path / "b")
    assert parts(tmp_path / "b" / "figure.html")[1]["xaxis"]["dtick"] == 1


def test_a_time_course_has_both_stages_and_the_networks(tmp_path):
    flags = {"source": "linear", "target": "linear", "dim": "4", "p1": "6", "p2": "4", "ptest": "20", "t1": "1"}
    flags |= {"t2": "1", "neurons": "16", "repeats": "2", "gamma2": "0.5,1", "simulate": True, "width": "16"}
    run("dmft-solve", tmp_path, format="html", nets="2", accuracy="1", activation="linear", **flags)
    assert [path.name for path in tmp_path.glob("figure*")] == ["figure.html"]
    data, layout = parts(tmp_path / "figure.html")
    result = tlcli.load(tmp_path)
    losses = [t for t in data if t["name"].endswith(": target, test") and "customdata" in t]
    first = result["loss"][0]
    stage = result["stage"][0]
    np.testing.assert_array_equal(array(losses[0]["y"]), first[stage == 1])
    assert sorted({t.get("xaxis", "x") for t in losses}) == ["x", "x2"]
    assert [a["text"] for a in layout["annotations"]] == ["stage 1: source", "stage 2: target"]
    assert any(t["name"].startswith("networks, N = 16") for t in data)


def test_equal_runs_are_equal_bytes_and_the_file_is_one_of_the_results(tmp_path):
    for name in ("a", "b"):
        run("finetune-loss", tmp_path / name, rho="0:1:3", format="html")
    pages = [(tmp_path / name / "figure.html").read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]
    text = pages[0].decode()
    assert not re.search(r"<(script|link|img)[^>]*\b(src|href)=", text[:2000] + text[text.rindex("<script>") :])
    assert "default-src 'none'" in text
    assert recipe_inside(tmp_path / "a" / "figure.html").command == "finetune-loss"
    said = json.loads(html.unescape(re.search(r'name="tlcli-provenance" content="([^"]*)"', text)[1]))
    kept = json.loads((tmp_path / "a" / "provenance.json").read_text())
    assert said["recipe_sha256"] == kept["recipe_sha256"]
    assert "figure.html" in kept["files"]
    assert tlcli.check(tmp_path / "a")
    (tmp_path / "a" / "figure.html").write_text("changed")
    assert not tlcli.check(tmp_path / "a")
    run("finetune-loss", tmp_path / "b", rho="0:1:3", format="png")
    assert [path.name for path in (tmp_path / "b").glob("figure*")] == ["figure.png"]


def test_python_has_the_figure_as_an_object_and_saves_it(tmp_path):
    result = tlcli.finetune_loss(rho="0:1:3", gamma0="0.5,2")
    figure = result.plot(format="html", quantity="gain", size="5x4")
    assert type(figure).__module__.startswith("plotly")
    assert (figure.layout.width, figure.layout.height) == (480, 384)
    assert type(result.plot()).__module__.startswith("matplotlib")
    folder = tlcli.finetune_loss(rho="0:1:3", format="html,svg").save(tmp_path / "r")
    assert {path.name for path in folder.glob("figure*")} == {"figure.html", "figure.svg"}


def test_without_plotly_one_sentence_says_what_to_install(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "plotly" else found(name, *more)
    )
    with pytest.raises(MissingExtraError, match=r"format: html needs plotly.*pip install 'tlcli\[html\]'") as raised:
        tlcli.finetune_loss(rho="0:1:3", format="png,html")
    assert raised.value.exit_code == 2


def test_kernels_have_no_page_and_a_note_says_so(tmp_path, capsys):
    flags = {"source": "linear", "target": "linear", "dim": "4", "p1": "6", "p2": "4", "ptest": "20", "t1": "1"}
    flags |= {"t2": "1", "neurons": "16", "repeats": "2", "accuracy": "1", "format": "html", "output": str(tmp_path)}
    assert execute("dmft-solve", COMMANDS["dmft-solve"].options, None, flags, Console()) == 0
    assert "there are images: --format png,html" in capsys.readouterr().err


def test_every_symbol_is_readable_without_a_program_for_formulas():
    for name in (*OPTIONS, *COLUMNS):
        if "$" in label_of(name):
            assert not set("\\${}^_") & set(page_text(label_of(name))), name
    assert page_text(r"overlap $\hat y_1^\top\bar\Phi\hat y_1$") == "overlap ŷ<sub>1</sub><sup>⊤</sup>Φ̄ŷ<sub>1</sub>"
    assert page_text("50 $ & <i>") == "50 $ &amp; &lt;i&gt;"
    assert _broken("gain in classification error") == "gain in<br>classification<br>error"


# A browser without a screen draws no frames.
FRAMES = "<head><script>window.requestAnimationFrame = todo => setTimeout(todo, 16);</script>"
PROBE = """<script>
const gd = document.getElementById("tlcli-figure"), out = {};
const words = () => [...document.querySelectorAll(".hoverlayer text")].map(t => t.textContent).join(" | ");
const wait = time => new Promise(done => setTimeout(done, time));
setTimeout(async () => {
  try {
    out.version = Plotly.version;
    out.seen = gd.data.map(t => t.visible);
    const {xaxis, yaxis} = gd._fullLayout, cell = gd.data[0];
    const middle = (axis, edges, i) => (axis.d2p(edges[i]) + axis.d2p(edges[i + 1])) / 2;
    Plotly.Fx.hover(gd, {xpx: middle(xaxis, cell.x, 3), ypx: middle(yaxis, cell.y, 2)}, "xy");
    await wait(300);
    out.hover = words();
    const rail = document.querySelector(".slider-rail-touch-rect"), box = rail.getBoundingClientRect();
    const at = {clientX: box.right - 2, clientY: box.top + 3, bubbles: true, view: window};
    rail.dispatchEvent(new MouseEvent("mousedown", at));
    rail.dispatchEvent(new MouseEvent("mouseup", at));
    await wait(300);
    out.slid = gd.data.map(t => t.visible);
    await Plotly.relayout(gd, {"xaxis.range": [0.1, 0.4]});
    out.zoomed = gd.layout.xaxis.range;
    out.cells = document.querySelectorAll(".heatmaplayer image").length;
    out.lines = document.querySelectorAll(".scatterlayer path.js-line").length;
    out.loaded = performance.getEntriesByType("resource").map(e => e.name);
  } catch (error) { out.error = String(error); }
  const told = document.createElement("pre");
  told.id = "told"; told.textContent = JSON.stringify(out); document.body.append(told);
}, 500);
</script></body>"""


@pytest.mark.skipif(not CHROMIUM, reason="no chromium is installed (apt-get install chromium)")
def test_in_a_browser_it_zooms_slides_tells_and_loads_nothing(tmp_path):
    run("phase-diagram", tmp_path / "r", format="html", **MAP)
    page = (tmp_path / "r" / "figure.html").read_text(encoding="utf-8")
    probed = tmp_path / "probed.html"
    probed.write_text(page.replace("<head>", FRAMES, 1).replace("</body>", PROBE), encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --virtual-time-budget=6000 --window-size=1000,750"
    place = f"--user-data-dir={tmp_path / 'browser'}"
    call = [CHROMIUM, *flags.split(), place, "--dump-dom", probed.as_uri()]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=True)
    told = json.loads(html.unescape(re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)[1]))
    assert "error" not in told, told
    _, layout = parts(tmp_path / "r" / "figure.html")
    steps = [step["args"][0]["visible"] for step in layout["sliders"][0]["steps"]]
    assert (told["seen"], told["slid"]) == (steps[0], steps[1])
    result = tlcli.load(tmp_path / "r")
    for name in ("gain", "loss", "alpha2", "gamma0"):
        assert f"{name} = {result[name][0, 3, 2]:.6g}"[:12].replace("-", "−") in told["hover"].replace("-", "−")
    assert f"phase = {result['phase'][0, 3, 2]}" in told["hover"]
    assert told["zoomed"] == [0.1, 0.4]
    assert told["cells"] >= 1
    assert told["lines"] >= 1, "the boundary"
    assert told["loaded"] == [], "nothing was asked of any network"


def test_marks_of_best_values_beyond_an_edge_stand_inside_it():
    edges = np.array([0.1, 0.5, 2.0, 10.0])
    for log in (False, True):
        low, high = (_near(edges, at, log) for at in (0, -1))
        assert 0.1 < low < 0.3, log
        assert 9 < high < 10
