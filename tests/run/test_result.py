"""Commands as functions: the same numbers and files as on the command line, read back without computing."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray

import tlcli
from tests.cli.conftest import call
from tlcli.errors import MissingExtraError, TlcliError, UsageError
from tlcli.options.commands import COMMANDS
from tlcli.run.functions import WITHOUT, stub

RICH = [0.0, 1.0, 5.0]
NETWORK = {
    "source": "linear",
    "target": "hermite:1",
    "dim": 4,
    "p1": 8,
    "p2": 6,
    "gamma0": 0,
    "gamma2": [0, 0.2],
    "activation": "linear",
    "times": [0.5, 1.0],
    "ptest": 10,
    "predictions": True,
    "neurons": 50,
    "repeats": 4,
}
BAYES = {"source": "linear", "target": "linear", "dim": 6, "p1": 12, "p2": 6, "delta": "0,log:0.1:10:3,inf"}
# Command, options of Python, and the same on the command line.
RUNS = {
    "closed form": (
        "finetune-loss",
        {"alpha1": 0.5, "alpha2": np.array([0.3, 0.6, 0.8]), "rho": (0.5, 0.9), "gamma0": RICH},
        "--alpha1 0.5 --alpha2 0.3,0.6,0.8 --rho 0.5,0.9 --gamma0 0,1,5",
    ),
    "experiment": (
        "finetune-loss",
        {"alpha1": 0.5, "alpha2": [0.5, 1.5], "simulate": True, "trials": 2, "dim": 20, "title": "$\\alpha$"},
        "--alpha1 0.5 --alpha2 0.5,1.5 --simulate --trials 2 --dim 20 --title '$\\alpha$'",
    ),
    "boundary": (
        "phase-diagram",
        {"x": "alpha2=0.05:2:12", "y": "gamma0=log:0.1:20:10", "alpha1": 0.5, "weight_decay": 0.2},
        "--x alpha2=0.05:2:12 --y gamma0=log:0.1:20:10 --alpha1 0.5 --weight-decay 0.2",
    ),
    "matrices": (
        "pretrain-kernel",
        {"alpha1": [0.5, 1], "gamma0": np.array([0.5, 1.0])},
        "--alpha1 0.5,1 --gamma0 0.5,1",
    ),
    "network": (
        "dmft-solve",
        NETWORK,
        "--source linear --target hermite:1 --dim 4 --p1 8 --p2 6 --gamma0 0 --gamma2 0,0.2 --activation linear "
        "--times 0.5,1 --ptest 10 --predictions --neurons 50 --repeats 4",
    ),
    "bayes": (
        "bayes-saddle",
        {**BAYES, "predictions": True},
        "--source linear --target linear --dim 6 --p1 12 --p2 6 --delta 0,log:0.1:10:3,inf --predictions",
    ),
}
STORES = ("theory", "bayes", "points", "store.json")


def function(command):
    return getattr(tlcli, command.replace("-", "_"))


@pytest.fixture(scope="module", params=RUNS)
def both(request, tmp_path_factory):
    """Return a result of Python, and the folder that the command has written."""
    command, options, flags = RUNS[request.param]
    folder = tmp_path_factory.mktemp("command")
    done = call(f"{command} {flags} --quiet -o", folder)
    assert done.code == 0, done.err
    return function(command)(**options), folder


def files(folder, *, but=()):
    """Return the files of a result with their bytes; of the provenance all but the wall time and the seal over it."""
    found = {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in (*STORES, *but)}
    about = json.loads(found.pop("provenance.json"))
    about.pop("wall_time_seconds")
    return found, about


def test_saved_are_the_files_of_the_command_byte_for_byte(both, tmp_path):
    result, folder = both
    before = set(tmp_path.iterdir())
    assert not before, "nothing is written unasked"
    result.save(tmp_path / "mine")
    assert files(tmp_path / "mine") == files(folder)


def test_read_back_is_what_was_computed(both, tmp_path):
    result, folder = both
    again = tlcli.load(folder)
    assert (again.columns, again.status, again.verdict) == (result.columns, result.status, result.verdict)
    assert again.axes.keys() == result.axes.keys()
    for name in result.columns:
        numeric = result[name].dtype.kind in "fiu" and again[name].dtype.kind in "fiu"
        if name.startswith(("gain", "baseline")) and "stage" in result:
            continue  # the table is empty in stage 1
        (np.testing.assert_array_equal if numeric else assert_texts)(again[name], result[name])
    assert again.arrays.keys() == result.arrays.keys()
    for name, array in result.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)
    again.save(tmp_path / "copy")
    assert files(tmp_path / "copy") == files(folder)


def assert_texts(one, other):
    assert [str(v).removesuffix(".0") for v in np.ravel(one)] == [str(v).removesuffix(".0") for v in np.ravel(other)]


def test_figures_of_what_was_read_are_those_of_the_run(both, tmp_path):
    from tlcli.report.writer import write_figures
    from tlcli.run.outputs import drawing_of, figures_of

    result, folder = both
    again = tlcli.load(folder)
    drawn = list(write_figures(figures_of(again), drawing_of(again.job, again.boundaries), tmp_path, again.about))
    assert drawn
    for path in drawn:
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name
    assert list(result.figures()) == [path.stem for path in drawn]


def test_check_says_the_same_in_memory_and_of_the_folder(both):
    result, folder = both
    kept, said = tlcli.check(result), tlcli.check(folder)
    assert (kept.code, bool(kept)) == (said.code, said.code == 0)
    assert kept.text.splitlines()[1:] == said.text.splitlines()[1:]
    assert said.text == call("check", folder).out.rstrip()


def test_a_check_in_memory_draws_nothing(monkeypatch):
    r = tlcli.finetune_loss(alpha1=0.5, alpha2=[0.3, 0.6, 0.8], gamma0=RICH)
    monkeypatch.setattr("tlcli.report.writer.save", None)  # it could not be called
    assert tlcli.check(r)
    with pytest.raises(UsageError, match="saved with all others"):
        tlcli.check(tlcli.run({"command": "finetune-loss", "cases": [{"label": "a"}]}).case("a"))


def test_shapes_words_and_what_is_not_there():
    r = tlcli.finetune_loss(alpha1=0.5, alpha2=[0.3, 0.6, 0.8], gamma0=RICH)
    assert r["loss"].shape == r["alpha1"].shape == r.shape == (3, 3)
    np.testing.assert_array_equal(r.axes["gamma0"], RICH)
    assert r["gamma0"][1].tolist() == RICH
    assert set(r["phase"].ravel()) == {"neutral", "positive"}
    assert r.status == {"converged": 9}
    assert r.unsolved == []
    assert "pre-training helps" in r.verdict
    assert r.arrays == {}
    assert "loss" in r
    with pytest.raises(UsageError, match=r"'los' is no column \(did you mean 'loss'\?\)"):
        r["los"]
    with pytest.raises(UsageError, match="the result has no cases"):
        r.case("a")


def test_one_point_is_a_number_and_has_no_figure():
    r = tlcli.finetune_loss(alpha1="inf", alpha2=0.4, rho=0.8, gamma0=3)
    assert r["loss"].shape == ()
    assert r.figures() == {}
    assert r._repr_png_() is None
    with pytest.raises(UsageError, match="nothing to draw"):
        r.plot()


def test_a_result_shows_itself_in_a_notebook_and_is_drawn_otherwise():
    r = tlcli.finetune_loss(alpha1=0.5, alpha2=[0.3, 0.6, 0.8], gamma0=RICH)
    assert r._repr_png_().startswith(b"\x89PNG")
    assert "<td>converged</td>" in r._repr_html_()
    assert "1 more rows" in r._repr_html_()
    figure = r.plot(x="gamma0", quantity="gain", size="3.4x2.6")
    assert "gamma_0" in figure.axes[0].get_xlabel()
    assert not hasattr(figure, "number"), "pyplot does not know it"
    for wrong, words in (
        ({"x": "rho"}, "'rho' has one value only"),
        ({"alpha1": 2}, "'alpha1' is no setting of a fig"),
    ):
        with pytest.raises(UsageError, match=words):
            r.plot(**wrong)


def test_what_is_not_solved_is_told(monkeypatch):
    r = tlcli.dmft_solve(**{**NETWORK, "predictions": None, "gamma0": 0.5, "gamma2": 0.5, "accuracy": 1e-6})
    assert set(r.status) == {"inaccurate"}
    assert any("inaccurate" in text for text in r.warnings)
    codes = r.blocks[0].columns["status"]
    codes[-1] = 4
    assert r.unsolved == [{"record": 3.0, "status": "not_converged", "residual": r["residual"][-1]}]


def test_cases_of_a_recipe_are_an_axis():
    raw = {"command": "finetune-loss", "alpha1": 0.5, "alpha2": np.array([0.4, 0.8])}
    r = tlcli.run({**raw, "cases": [{"label": "lazy", "gamma0": 0}, {"label": "rich", "gamma0": 5}]})
    assert list(r.axes) == ["case", "alpha2"]
    assert r["loss"].shape == (2, 2)
    np.testing.assert_array_equal(r["loss"][1], r.case("rich")["loss"])
    assert r["case"][:, 0].tolist() == ["lazy", "rich"]
    with pytest.raises(UsageError, match="saved with all others"):
        r.case("rich").save("nowhere")
    r = tlcli.run({**raw, "cases": [{"label": "a", "alpha2": [0.4, 0.5]}, {"label": "b", "rho": "0.2,0.4"}]})
    with pytest.raises(UsageError, match="have different grids"):
        r["loss"]
    assert r.case("b")["loss"].shape == (2, 2)


def test_recipes_by_name_with_other_values_and_jobs():
    r = tlcli.run("fig1b", alpha2=[0.3, 0.6], jobs=2)
    assert r["gain"].shape[1] == 2
    with pytest.raises(UsageError, match="no recipe that comes with tlcli"):
        tlcli.run("fig1z")
    with pytest.raises(UsageError, match="names no command"):
        tlcli.run({"alpha1": 1})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha3": 1}, r"finetune_loss does not take 'alpha3' \(did you mean 'alpha2'\?\)"),
        ({"output": "x"}, "call .save"),
        ({"alpha2": "abc"}, "alpha2: 'abc' is not a grid"),
        ({"rho": np.array([0.5, 2.0])}, "rho = 2 is not allowed"),
        ({"gamma0": np.eye(2)}, r"an array of shape \(2, 2\)"),
        ({"gamma0": [1, np.nan]}, "is not a number"),
        ({"x": "rho"}, "'rho' has one value only"),
        ({"trials": 3}, "--trials has an effect with --simulate only"),
        ({"kernel": 3}, "kernel: '3' is unknown"),
    ],
)
def test_mistakes_are_one_clear_sentence(options, words):
    with pytest.raises(UsageError, match=words):
        tlcli.finetune_loss(**options)


def test_arrays_keep_every_bit_and_become_grids_where_they_are_one():
    odd = np.array([0.1, 0.2 + 1e-16, 0.35])
    assert tlcli.finetune_loss(alpha2=odd).axes["alpha2"].tobytes() == odd.tobytes()
    r = tlcli.finetune_loss(alpha2=np.array([0.1, 1.0, 10.0]))
    assert (r.job.resolved["alpha2"], r.blocks[0].scales["alpha2"]) == ("log:0.1:10:3", "log")


@pytest.mark.parametrize("name", COMMANDS)
def test_signatures_docstrings_and_types_come_from_the_declarations(name):
    command, made = COMMANDS[name], function(name)
    names = [n for n in dict.fromkeys(command.options) if n not in WITHOUT]
    assert list(inspect.signature(made).parameters) == ["recipe", *names]
    assert command.summary in made.__doc__
    assert all(f"    {n}: " in made.__doc__ for n in names)
    assert made.__name__ in dir(tlcli)


def test_the_stub_is_what_the_declarations_say():
    assert Path(tlcli.__file__).with_suffix(".pyi").read_text(encoding="utf-8") == stub()


def test_importing_costs_nothing_and_optional_packages_are_asked_for_in_one_sentence(monkeypatch):
    code = "import sys, tlcli; dir(tlcli); tlcli.finetune_loss; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "matplotlib", "scipy", "typer"} & set(loaded)
    r = tlcli.finetune_loss()
    for package in ("pandas", "xarray"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtraError, match=f"needs the package {package}"):
            getattr(r, f"to_{package}")()


def test_pandas_and_xarray():
    r = tlcli.finetune_loss(alpha1=0.5, alpha2=[0.3, 0.6, 0.8], gamma0=RICH)
    frame = r.to_pandas()
    assert tuple(frame.columns) == r.columns
    np.testing.assert_array_equal(frame["loss"], r["loss"].ravel())
    data = r.to_xarray()
    assert isinstance(data, xarray.Dataset)
    assert dict(data.sizes) == {"alpha2": 3, "gamma0": 3}
    assert float(data.loss.sel(alpha2=0.6, gamma0=5)) == r["loss"][1, 2]
    assert data.alpha1.ndim == 0
    assert data.gamma0.attrs == {"symbol": r"richness $\gamma_0$", "units": "1"}


@pytest.mark.parametrize("name", ["provenance.json", "figure.png", "figure.pdf", "figure.svg"])
def test_a_result_is_run_again_from_its_own_files(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    ending = name.partition(".")[2].replace("json", "png")
    done = call(
        f"finetune-loss --alpha1 0.5 --alpha2 0.3,0.6 --title 'a (b) \\\\ c' --seed 3 --format {ending} -o one/x"
    )
    assert done.code == 0, done.err
    assert call(f"run one/x/{name} -o two --quiet").code == 0
    assert files(tmp_path / "two" / "x") == files(tmp_path / "one" / "x")


def test_files_without_a_recipe_are_refused(tmp_path):
    for name, content in (("a.json", b"{}"), ("a.png", b"\x89PNG"), ("a.svg", b"<svg/>"), ("a.pdf", b"%PDF \xff")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TlcliError, match="holds no recipe of tlcli"):
            tlcli.run(tmp_path / name)
    with pytest.raises(UsageError, match="cannot be read"):
        tlcli.run(tmp_path / "none.png")
    with pytest.raises(UsageError, match="holds no result"):
        tlcli.load(tmp_path)


def test_a_changed_table_is_not_read(tmp_path):
    tlcli.finetune_loss(alpha2=[0.3, 0.6]).save(tmp_path)
    with (tmp_path / "table.csv").open("a") as stream:
        stream.write("\n")
    with pytest.raises(UsageError, match="was changed after it was written"):
        tlcli.load(tmp_path)


def test_a_folder_that_is_no_path_is_refused():
    with pytest.raises(UsageError, match=r"'a\\x00b' \(str\) is no path; give a folder as a text or path."):
        tlcli.finetune_loss(alpha2=[0.3, 0.6]).save("a\0b")


def test_kernels_of_bayesian_networks_are_in_the_order_of_the_data():
    r = tlcli.bayes_saddle(**{**BAYES, "delta": [0.5, 2.0], "predictions": True})
    stored, shown = r.matrices[0], r.arrays
    assert stored is not None
    assert (np.diff(stored["labels_source"]) >= 0).all()
    np.testing.assert_array_equal(shown["labels_source"], shown["y_source"])
    np.testing.assert_array_equal(shown["points_target"], np.tile(np.arange(6), (2, 1)))
    places = np.concatenate([stored["points_source"][1], 12 + stored["points_target"][1]])
    for i in range(18):
        for j in range(18):
            assert shown["kernel_target"][1, places[i], places[j]] == stored["kernel_target"][1, i, j]
        np.testing.assert_array_equal(
            shown["kernel_source_test"][1, :, places[i]], stored["kernel_source_test"][1, :, i]
        )
    np.testing.assert_array_equal(shown["kernel_source_test"][..., 18:], stored["kernel_source_test"][..., 18:])


def test_experiments_are_named():
    r = tlcli.finetune_loss(alpha2=0.5, simulate=True, experiment="regression,population", trials=2, dim=10)
    assert r.axes["experiment"].tolist() == ["regression", "population"]


def test_workers_do_not_run_the_script_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import tlcli\n"
        "r = tlcli.finetune_loss(alpha2=[0.5, 0.8], simulate=True, trials=2, dim=10, jobs=2)\n"
        "print(r['sim_loss'].shape)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "(2,)\n"), done.stderr
