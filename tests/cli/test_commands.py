"""The commands as users give them: files, columns, streams, help."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tlcli as package
from tlcli.options import OPTIONS, SOLVERS
from tlcli.options.commands import COMMANDS
from tlcli.run.job import prepare

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "tlcli"]


def read(path):
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def names(folder):
    return sorted(os.listdir(folder))


def quiet_subprocess(*arguments, **environment):
    found = subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )
    assert found.returncode == 0, found.stderr
    return found


# The examples of the issue, on smaller grids


def test_pretrain_kernel(tlcli):
    done = tlcli("pretrain-kernel", "--alpha1", "0.1:3:12", "--gamma0", "0.5,1,2,5", "-o", "results/kernel")
    assert done.code == 0
    assert done.out == ""
    assert "48 rows" in done.err
    assert names("results/kernel") == ["figure.png", "kernel.npz", "provenance.json", "table.csv"]
    rows = read("results/kernel/table.csv")
    assert len(rows) == 48
    for row in rows:
        expected = np.sqrt(1 + float(row["gamma0"]) ** 2 * min(float(row["alpha1"]), 1)) - 1
        assert float(row["spike"]) == pytest.approx(expected, rel=1e-9)
    with np.load("results/kernel/kernel.npz") as kernel:
        assert kernel["axis_order"].tolist() == ["alpha1", "gamma0"]
        assert kernel["kernel"].shape == (12, 4, 2, 2)
        # The spike is of rank one: the 2 x 2 block has the eigenvalues k and k + chi.
        eigenvalues = np.linalg.eigvalsh(kernel["kernel"]).reshape(-1, 2)
    spikes = [float(row["spike"]) for row in rows]
    np.testing.assert_allclose(eigenvalues, [[1, 1 + spike] for spike in spikes], rtol=1e-12)


def test_pretrain_kernel_with_cases_whose_labels_are_no_file_names(tlcli):
    text = (
        "command: pretrain-kernel\nalpha1: [0.5, 2]\ncases:\n  - {label: a/b}\n  - {label: '../$\\gamma$', gamma0: 3}\n"
    )
    Path("r.yaml").write_text(text)
    done = tlcli("run", "r.yaml", "-o", "out")
    assert (done.code, names(".")) == (0, ["out", "r.yaml"])
    archives = [name for name in names("out/r") if name.endswith(".npz")]
    assert len(archives) == 2
    assert all(name in done.err for name in archives)


def test_finetune_loss_with_experiment(tlcli):
    done = tlcli(
        "finetune-loss --alpha1 0.5 --alpha2 0.05:1.5:4 --rho 0.5,0.9 --gamma0 0,1,5",
        "--simulate --dim 60 --trials 4",
    )
    assert done.code == 0
    folder = "results/finetune-loss"
    assert names(folder) == ["figure.png", "points", "provenance.json", "store.json", "table.csv"]
    rows = read(f"{folder}/table.csv")
    assert len(rows) == 24
    assert {(row["experiment"], row["dim"], row["trials"]) for row in rows} == {("regression", "60", "4")}
    distances = [
        abs(float(row["sim_loss"]) - float(row["loss"])) / (float(row["sim_loss_se"]) + 0.02)
        for row in rows
        if abs(float(row["alpha2"]) - 1) > 0.1
    ]
    assert np.median(distances) < 3
    header = list(rows[0])
    assert header[-2:] == ["residual", "status"]
    assert header.index("sim_loss") < header.index("sim_loss_se") < header.index("residual")
    assert tlcli("check", folder, "--finite-size", "3").code == 0


def test_one_row_on_standard_output_and_nothing_else(tlcli):
    point = "finetune-loss --alpha1 inf --alpha2 0.4 --rho 0.8 --gamma0 3 -o -"
    done = tlcli(point)
    assert done.code == 0
    assert done.err == "loss 0.326 (no pre-training 0.6): pre-training helps, gain 0.274\n", "the answer is no table"
    assert tlcli(point, "--quiet").err == ""
    (row,) = csv.DictReader(io.StringIO(done.out))
    chi = np.sqrt(10) - 1
    loss = 0.6 * (1 - 0.64 * 0.4 * chi * (2 + 0.4 * chi) / (1 + 0.4 * chi) ** 2)
    assert float(row["loss"]) == pytest.approx(loss, rel=1e-12)
    assert float(row["baseline"]) == pytest.approx(0.6)
    assert float(row["gain"]) == pytest.approx(0.6 - loss)
    assert (row["phase"], row["status"], row["alpha1"]) == ("positive", "converged", "inf")
    assert names(".") == []


def test_an_experiment_on_standard_output_keeps_messages_apart_and_leaves_no_file(tlcli):
    arguments = "finetune-loss --alpha1 0.5 --gamma0 1,2 --simulate --dim 20 --trials 2 -o -"
    done = tlcli(arguments)
    assert done.code == 0
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["gamma0"] for row in rows] == ["1", "2"]
    assert "finetune-loss: 2/2 (100 %)" in done.err
    assert names(".") == []
    assert tlcli(arguments, "--quiet").err == ""
    # With a store of its own the points stay.
    assert tlcli(arguments, "--store", "kept").out == done.out
    assert names("kept") == ["points", "store.json"]


def test_phase_diagram(tlcli):
    done = tlcli(
        "phase-diagram --x alpha2=0.05:2:9 --y gamma0=log:0.05:50:8 --alpha1 0.3,0.8,2",
        "--rho 0.8 --sigma2 0.3 --ridge 0.1 --kernel ntk",
    )
    assert done.code == 0
    folder = "results/phase-diagram"
    assert names(folder) == ["boundary.csv", "figure.png", "provenance.json", "table.csv"]
    rows = read(f"{folder}/table.csv")
    assert len(rows) == 3 * 9 * 8
    assert {"gamma0_opt", "loss_opt", "phase"} < set(rows[0])
    assert {row["phase"] for row in rows} == {"positive", "negative"}
    for row in rows:
        assert (row["phase"] == "negative") == (float(row["gain"]) < 0)
        assert float(row["loss_opt"]) <= float(row["loss"]) * (1 + 1e-9)


def test_a_recipe_as_argument_and_as_flag(tlcli):
    recipe = ROOT / "recipes" / "fig1b.yaml"
    one = tlcli("phase-diagram", recipe, "--jobs", "2", "-o", "-", "--alpha2", "0.1:0.9:5")
    assert one.code == 0
    assert one.out.count("\n") == 2 * 4 * 5 + 1
    assert tlcli("phase-diagram", "--recipe", recipe, "-o", "-", "--alpha2", "0.1:0.9:5").out == one.out
    done = tlcli("phase-diagram", recipe, "--alpha2", "0.1:0.9:5")
    assert done.code == 0
    assert names("results/fig1b") == ["boundary.csv", "figure.png", "provenance.json", "table.csv"]


def test_two_time_dynamics(tlcli):
    done = tlcli("finetune-loss --solver linear-two-time --alpha2 0.5,2 --times 0:4:5 --steps 100 -o out")
    assert done.code == 0
    rows = read("out/table.csv")
    assert [float(row["loss"]) for row in rows if row["time"] == "0"] == [1, 1]
    for row in rows:
        assert float(row["loss"]) == pytest.approx(float(row["spectral_loss"]), abs=1e-4)
    with np.load("out/two-time.npz") as found:
        assert found["corr_v"].shape == (2, len(found["t"]), len(found["t"]))


def test_joint_training_in_time(tlcli):
    done = tlcli("finetune-loss --solver linear-joint --gamma0 0.5,2 --t1 3 --times 0:4:5 --y gamma0 -o out")
    assert done.code == 0
    rows = read("out/table.csv")
    assert {row["t1"] for row in rows} == {"3"}
    assert [row["gamma2"] for row in rows] == [row["gamma0"] for row in rows]
    by_hand = tlcli("finetune-loss --solver linear-joint --gamma0 2 --t1 3 --t2 4 -o -")
    (row,) = csv.DictReader(io.StringIO(by_hand.out))
    assert float(rows[-1]["loss"]) == pytest.approx(float(row["loss"]), rel=1e-6)


# What stands beside the table


def test_provenance_and_figure_hold_the_same_facts(rendered, tlcli):
    assert tlcli("finetune-loss --rho 0:1:3 --title Words -o out --seed 5").code == 0
    content = json.loads(Path("out/provenance.json").read_text())
    assert content["command"] == "finetune-loss"
    assert content["rows"] == 3
    assert content["seed"] == 5
    assert content["recipe"]["rho"] == "0:1:3"
    with Image.open("out/figure.png") as image:
        inside = json.loads(image.text["Description"])
    assert inside == {
        k: v for k, v in content.items() if k not in ("verdict", "rows", "wall_time_seconds", "files", "run")
    }


def test_equal_runs_are_equal_bytes(rendered, tlcli):
    arguments = "phase-diagram --x alpha2=0.1:0.9:5 --y rho=0:1:5 --weight-decay 0.3"
    for folder in ("one", "two"):
        assert tlcli(arguments, "-o", folder).code == 0
    for name in ("table.csv", "boundary.csv", "figure.png"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()
    # In a process of its own, too: nothing may depend on the order in which libraries were loaded.
    quiet_subprocess(*arguments.split(), "-o", "three", "--quiet")
    for name in ("table.csv", "boundary.csv"):
        assert Path("one", name).read_bytes() == Path("three", name).read_bytes()


def test_a_second_run_leaves_nothing_of_the_first(tlcli):
    assert tlcli("phase-diagram --x alpha2=0.1:0.9:5 --y rho=0:1:5 --weight-decay 0.3 -o out").code == 0
    assert "boundary.csv" in names("out")
    Path("out/notes.txt").write_text("mine")
    Path("out/figure-of-mine.png").write_text("mine")
    assert tlcli("finetune-loss --rho 0.1:0.9:5 --format svg --force -o out").code == 0
    assert names("out") == ["figure-of-mine.png", "figure.svg", "notes.txt", "provenance.json", "table.csv"]


def test_formats(rendered, tlcli):
    for ending, start in (("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")):
        assert tlcli(*f"finetune-loss --rho 0:1:3 --format {ending} -o {ending}".split()).code == 0
        assert Path(ending, f"figure.{ending}").read_bytes().startswith(start)


# Statuses


def test_a_diverging_point_in_a_grid_is_a_row(tlcli):
    done = tlcli("finetune-loss --alpha1 0.5,1,2 --sigma1 0.3 -o -")
    assert done.code == 0
    assert [row["status"] for row in csv.DictReader(io.StringIO(done.out))] == ["converged", "diverged", "converged"]
    told = "1 row with an infinite answer (status diverged) in norm2, spike, c_noise; every other column holds.\n"
    assert done.err.startswith(told)
    assert "it helps where alpha1 = 0.5, 2;" in done.err
    # The loss is finite there, so that the point alone is an answer too.
    alone = tlcli("finetune-loss --alpha1 1 --sigma1 0.3 -o -")
    assert alone.code == 0
    assert next(csv.DictReader(io.StringIO(alone.out)))["loss"] == "0.5"


def test_only_infinite_columns_are_called_infinite(tlcli):
    """A gain of inf - inf is undefined; a threshold of separability is infinite wherever labels have no noise."""
    done = tlcli("finetune-loss --alpha2 0.5,1,1.5 --sigma2 0,0.1 -o -")
    table = list(csv.DictReader(io.StringIO(done.out)))
    (bad,) = (row for row in table if row["status"] == "diverged")
    assert (bad["loss"], bad["baseline"], bad["gain"]) == ("inf", "inf", "nan")
    assert "(status diverged) in loss, baseline, undefined in gain; every other column holds." in done.err
    done = tlcli("finetune-loss --solver linear-classify --loss square --alpha2 0.5,1 --sigma1 0.3 --alpha1 1 -o -")
    table = list(csv.DictReader(io.StringIO(done.out)))
    assert "separability" in table[0]
    assert "separability" not in done.err


def test_rows_without_a_hyperplane_say_what_has_an_answer(tlcli):
    command = "finetune-loss --solver linear-classify --alpha1 2 --gamma0 1 --alpha2 2,4 --flips2 0.1 -o -"
    none = tlcli(f"{command} --loss margin")
    assert none.code == 0
    assert "1 row without a hyperplane that divides the labels (status inseparable)" in none.err
    assert "hyperplane" not in tlcli(f"{command} --loss hinge --ridge 0.1").err


def test_an_unsolved_kernel_is_a_row_without_numbers(tlcli):
    done = tlcli("finetune-loss --gamma0 1,30 --t1 1e8 --alpha1 0.01,0.5 -o -")
    assert done.code == 3
    assert done.err.count("not converged") == 2, "a warning, and the answer"
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["status"] for row in rows] == ["converged", "not_converged", "converged", "converged"]
    assert {rows[1][name] for name in ("spike", "c_signal", "c_noise", "loss", "gain")} == {"nan"}
    assert rows[1]["phase"] == "unknown"


def test_a_grid_of_points_that_all_failed_is_a_table(tlcli, monkeypatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    import_module("tlcli.theories.network.theory")  # first: nothing of it must take its data from here for ever
    monkeypatch.setattr("tlcli.theories.network.points.data_of", broken)
    task = "--source he1 --target he1 --dim 4 --p1 5 --p2 5 --t1 1 --t2 1"
    for command in ("dmft-solve", "finetune-loss --model network", "pretrain-kernel --model network"):
        sizes = task if "pretrain" not in command else "--source he1 --dim 4 --p1 5 --t1 1"
        done = tlcli(f"{command} {sizes} --gamma0 1,2 --jobs 1 -o -")
        assert done.code == 3, done.err
        rows = list(csv.DictReader(io.StringIO(done.out)))
        assert {row["status"] for row in rows} == {"failed"}
        assert {row["source_loss"] for row in rows} == {"nan"}


def test_points_that_are_not_converged_are_rows_and_exit_3(tlcli, monkeypatch):
    from tlcli.status import Status
    from tlcli.theories.linear.theory import Exact

    known = Exact.evaluate

    def evaluate(self, p):
        columns = known(self, p)
        full = np.broadcast_to(columns["status"], np.broadcast_shapes(*(np.shape(c) for c in columns.values()))).copy()
        full.flat[-1] = Status.NOT_CONVERGED
        return {**columns, "status": full}

    monkeypatch.setattr(Exact, "evaluate", evaluate)
    done = tlcli("finetune-loss --rho 0:1:3 -o out")
    assert done.code == 3
    assert "warning: 1 row not converged; see the columns status and residual." in done.err
    assert [row["status"] for row in read("out/table.csv")] == ["converged", "converged", "not_converged"]
    assert tlcli("check", "out").code == 3


def test_a_failing_experiment_is_a_row_and_exits_3(tlcli, monkeypatch):
    from tlcli.simulate import regression

    right = regression.simulate_regression

    def broken(parameters, **rest):
        if parameters["gamma0"] == 2:
            raise ValueError("no luck\nat all")
        return right(parameters, **rest)

    monkeypatch.setattr(regression, "simulate_regression", broken)
    done = tlcli("finetune-loss --gamma0 1,2,3 --simulate --dim 20 --trials 2 -o out")
    assert done.code == 3
    assert "warning: 1 experiment failed, the first with ValueError: no luck at all" in done.err
    rows = read("out/table.csv")
    assert [row["sim_status"] for row in rows] == ["ok", "failed", "ok"]
    assert [row["sim_loss"] == "nan" for row in rows] == [False, True, False]
    assert tlcli("check", "out", "--finite-size", "20").code == 3
    # Nothing of it was stored: the same command tries again.
    monkeypatch.setattr(regression, "simulate_regression", right)
    assert tlcli("finetune-loss --gamma0 1,2,3 --simulate --dim 20 --trials 2 -o out").code == 0
    assert "sim_status" not in read("out/table.csv")[0]


# Dry runs


def test_a_dry_run_says_what_it_would_do_and_does_nothing(tlcli):
    arguments = "finetune-loss --alpha1 0.5 --gamma0 0,1,5 --rho 0.1,0.9 --simulate --dim 20 --trials 3"
    done = tlcli(arguments, "-o", "out", "--dry-run")
    assert done.code == 0
    said = done.out + done.err
    assert "finetune-loss: linear-exact on rho (2) x gamma0 (3): 6 points" in said
    assert "experiments: 6 points, 0 already stored, 6 to compute" in said
    assert "D = 20" in said
    assert names(".") == []
    assert tlcli(arguments, "-o", "out").code == 0
    before = names("out")
    again = tlcli(arguments, "-o", "out", "--dry-run", "--force")
    assert "6 points, 6 already stored, 0 to compute" in again.out + again.err
    assert names("out") == before
    more = tlcli(arguments, "--rho", "0.1,0.5,0.9", "-o", "out", "--dry-run")
    assert "9 points, 6 already stored, 3 to compute" in more.out + more.err


def test_a_dry_run_of_a_large_grid_is_not_computed(tlcli):
    done = tlcli("phase-diagram --x alpha2=0.1:2:1000 --y gamma0=0.1:9:1000 --alpha1 0.3,0.5,2 --dry-run")
    assert done.code == 0
    assert "3000000 points" in done.out + done.err
    assert "MB" in done.out + done.err


# Help, version, completion, imports


@pytest.mark.parametrize("command", [*COMMANDS, "run", "check", "plot", "recipes"])
def test_help_opens_with_examples(tlcli, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = tlcli(command, "--help")
    assert done.code == 0
    assert done.err == ""
    text = " ".join(done.out.split())
    assert f"Usage: tlcli {command}" in text
    assert text.index("Examples") < text.index("Options")
    examples, options = done.out[done.out.index("Examples:") :].split("\nOptions:")
    assert all(line.startswith("  tlcli ") for line in examples.splitlines()[1:] if line), "each is a command as it is"
    assert f"  tlcli {command} " in examples
    assert max(map(len, options.splitlines())) <= 80
    assert tlcli(command, "-h").out == done.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_a_flag(tlcli, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    known = COMMANDS[command]
    everything = tlcli(command, "--help-all").out
    short = tlcli(command, "--help").out
    assert max(len(line) for line in everything.splitlines() if not line.startswith("  tlcli")) <= 80
    for shown, names in ((everything, known.options), (short, known.common)):
        for example in known.examples:
            assert f"  {example}" in shown.splitlines()
        written = re.findall(r"^  (?:-o, )?(--[\w-]+)", shown, re.MULTILINE)
        hidden = {name for name in names if name in known.refused or OPTIONS[name].synonym}
        assert {OPTIONS[name].flag for name in names} - {OPTIONS[name].flag for name in hidden} <= set(written)
        assert not {OPTIONS[name].flag for name in hidden} & set(written)
    assert not [name for name in known.refused if f"  {OPTIONS[name].flag} " in everything]
    assert 15 <= len(known.common) <= 20
    assert set(known.common) <= set(known.options) - set(known.refused)


@pytest.mark.parametrize(
    ("base", "taken", "refused"),
    [
        ("finetune-loss --solver linear-classify", "--flips2", "--t2"),
        ("finetune-loss --solver network-rich", "--readout", "--rho-xi"),
        ("finetune-loss --model network", "--average", "--rho-xi"),
        ("phase-diagram --solver bayes-whitened", "--delta", "--trials"),
        ("phase-diagram --solver linear-exact", "--trials", "--nets"),
    ],
)
def test_all_options_beside_a_solver_are_those_that_it_takes(tlcli, base, taken, refused):
    done = tlcli(*base.split(), "--help-all")
    assert done.code == 0, done.err
    written = re.findall(r"^  (?:-o, )?(--[\w-]+)", done.out, re.MULTILINE)
    assert taken in written
    assert refused not in written
    value = "" if OPTIONS[refused[2:].replace("-", "_")].kind == "flag" else "1"
    assert tlcli(*base.split(), refused, *value.split(), "-o", "-", "--dry-run").code == 2


@pytest.mark.parametrize(
    ("base", "solvers"),
    [
        ("finetune-loss --model network", ["network-frozen", "network-rich"]),
        ("phase-diagram --model linear", [word for word in SOLVERS if word.startswith("linear")]),
        ("pretrain-kernel --model network", None),
    ],
)
def test_a_model_is_offered_its_own_solvers_and_a_solver_no_model(anywhere, base, solvers):
    def one_of(flag, base):
        found = re.search(rf"^  {flag} WORD(.*?)^  --", anywhere(f"{base} --help-all").out, re.MULTILINE | re.DOTALL)
        return found and " ".join(found[1].split()).partition("One of: ")[2].partition(".")[0].split(", ")

    assert one_of("--solver", base) == solvers
    command, _, model = base.partition(" --model ")
    for solver in solvers or ():
        assert "has no solver" not in anywhere(f"{command} --model {model} --solver {solver} -o - --dry-run").err
    assert one_of("--model", base) == ["linear", "network"]
    assert one_of("--model", f"{command} --solver linear-exact") is None


@pytest.mark.parametrize(
    ("solver", "option", "value"),
    [
        ("linear-classify", "loss", "logistic"),
        ("network-frozen", "p2", "50"),
        ("network-frozen", "t1", "100"),
        ("linear-structured", "p2", "100"),
        ("linear-classify", "t1", "inf"),
    ],
)
def test_the_default_beside_a_solver_is_that_of_its_runs(anywhere, solver, option, value):
    shown = anywhere(f"finetune-loss --solver {solver} --help-all").out
    (text,) = re.findall(rf"^  --{option} [A-Z]+ (.*?)(?=^  --|^$)", shown, re.MULTILINE | re.DOTALL)
    told = re.findall(r"\(default: ([^;)]*)", " ".join(text.split()))
    assert told[0] == value
    tasks = {"source": "linear", "target": "linear"} if solver.startswith("network") else {}
    known = COMMANDS["finetune-loss"]
    (case,) = prepare("finetune-loss", known.options, None, {"solver": solver, **tasks}).cases
    ran = case.words[option] if option in case.words else f"{case.grid.values[option].array.item():g}"
    assert ran == value


def test_options_of_an_unknown_solver_are_refused(tlcli):
    done = tlcli("finetune-loss", "--solver", "linear-exat", "--help-all")
    assert done.code == 2
    assert "linear-exat" in done.err


@pytest.mark.parametrize(
    ("command", "base"),
    [
        ("pretrain-kernel", "--model network --source linear"),
        ("pretrain-kernel", "--model network --source linear --target linear --depth 2"),
        ("pretrain-kernel", ""),
        ("dmft-solve", "--source linear --target hermite:2"),
    ],
)
def test_what_the_help_leaves_out_is_refused(anywhere, command, base):
    for name in COMMANDS[command].refused:
        option = OPTIONS[name]
        value = option.choices[0] if option.choices else "1"
        done = anywhere(f"{command} {base} {option.flag} {value} -o - --dry-run")
        assert done.code == 2, (name, done.out)


def test_the_help_has_the_solvers_and_the_defaults_of_the_command(anywhere):
    kernel = " ".join(anywhere("pretrain-kernel --help").out.split())
    assert "One of: linear-exact. " in kernel
    assert "bayes" not in " ".join(anywhere("finetune-loss --help").out.split())
    assert "bayes-whitened" in anywhere("phase-diagram --help").out


@pytest.mark.parametrize("command", ["dmft-solve", "bayes-saddle"])
def test_the_defaults_in_the_help_are_those_of_the_theory(command):
    from tlcli.cli.help import offered
    from tlcli.run.job import prepare

    job = prepare(command, COMMANDS[command].options, None, {"source": "linear", "target": "hermite:2"})
    (case,) = job.cases
    for name in ("p1", "p2", "dim", "t1", "t2"):
        if name in case.theory.parameters:
            found = case.theory.defaults[name]
            assert float(offered(COMMANDS[command], name).default) == found, name
    assert offered(COMMANDS[command], "alpha1").default is None


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_in_the_help_are_accepted(tlcli, command, monkeypatch):
    for name, less in (("_LOOKED_AT", 1), ("_LONG", 0.2)):  # how long they take is not asked here
        monkeypatch.setattr(f"tlcli.theories.network.cost.{name}", less)
    for name in ("fig1b.yaml",):
        Path("recipes").mkdir(exist_ok=True)
        Path("recipes", name).write_bytes((ROOT / "recipes" / name).read_bytes())
    for example in COMMANDS[command].examples:
        program, *arguments = example.split()
        assert program == "tlcli"
        if "file:data.npz" in arguments:
            x = np.random.default_rng(0).standard_normal((12, 5))
            points = {name: x[i::3] for i, name in enumerate(("x_source", "x_target", "x_test"))}
            np.savez("data.npz", **points, **{f"y_{n[2:]}": v[:, 0] for n, v in points.items()})
        if "--simulate" in arguments and "--nets" not in arguments:
            arguments += ["--trials", "2", "--dim", "20"]
        done = tlcli(*arguments, "--dry-run")
        assert done.code == 0, (example, done.err)


def test_help_of_the_program(tlcli):
    done = tlcli("--help")
    assert done.code == 0
    for command in (*COMMANDS, "run", "check"):
        assert command in done.out
    assert "130 interrupted" in " ".join(done.out.split())
    bare = tlcli()
    assert bare.code == 2
    assert "Usage: tlcli" in bare.out + bare.err
    assert tlcli("--version").out == f"tlcli {package.__version__}\n"


@pytest.mark.parametrize("arguments", ["--help", "phase-diagram --help", "check --help", "--version"])
def test_help_imports_nothing_heavy(arguments):
    heavy = {"numpy", "scipy", "matplotlib", "yaml", "sklearn", "distributed"}
    code = (
        "import sys; from tlcli.cli.app import main\n"
        f"sys.argv = ['tlcli', *{arguments.split()!r}]\n"
        "try:\n    main()\n"
        "except SystemExit as leave:\n    assert not leave.code\n"
        "print('HEAVY', *sorted(name for name in sys.modules if '.' not in name))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(found.stdout.split("HEAVY")[1].split())
    assert "typer" in loaded
    assert not loaded & heavy


def test_completion_is_installed_without_a_complaint(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tlcli", "--install-completion", "bash"],
        # The shell is named: what runs the tests may be no shell that Typer knows.
        env={**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / ".bash_completions" / "tlcli.sh").exists()


def test_a_table_on_standard_output_needs_no_plotting_library():
    code = (
        "import sys; from tlcli.cli.app import main\n"
        "sys.argv = ['tlcli', 'finetune-loss', '-o', '-']\n"
        "try:\n    main()\n"
        "except SystemExit as leave:\n    assert not leave.code\n"
        "assert 'numpy' in sys.modules\n"
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("tlcli fin", {"finetune-loss"}),
        ("tlcli finetune-loss --solver network-", {"network-frozen", "network-rich"}),
        ("tlcli pretrain-kernel --solver l", {"linear-exact"}),
        ("tlcli run fig1", {"fig1a", "fig1b"}),
        ("tlcli finetune-loss fig1", {"fig1a", "fig1b"}),
        ("tlcli recipes show fig1", {"fig1a", "fig1b"}),
        ("tlcli dmft-solve --activation so", {"softplus"}),
        ("tlcli dmft-solve --source he", {"hermite:", "he1+0.5*he3"}),
        ("tlcli phase-diagram --x gam", {"gamma0", "gamma2"}),
        ("tlcli phase-diagram --y del", {"delta"}),
        ("tlcli dmft-solve --y delt", set()),
        ("tlcli plot results --y gam", {"gamma0", "gamma2"}),
        ("tlcli bayes-saddle --whit", {"--whitened"}),
    ],
)
def test_shell_completion(tlcli, monkeypatch, line, offered):
    monkeypatch.setenv("_TLCLI_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    done = tlcli()
    assert (done.code, done.err) == (0, "")
    words = set(done.out.split())
    assert words == offered if "fig1" not in line else words >= offered
    assert all(word.startswith(line.split()[-1]) for word in words)


def test_completion_finds_files_and_folders_of_recipes(tlcli):
    from tlcli.cli.completion import recipes

    Path("mine").mkdir()
    for name in ("mine/a.yaml", "mine/b.txt", "my.yaml"):
        Path(name).write_text("")
    assert recipes("m") == ["mine/", "my.yaml"]
    assert recipes("mine/") == ["mine/a.yaml"]


def test_a_reader_that_has_seen_enough_is_no_error(tlcli):
    command = f"{sys.executable} -m tlcli phase-diagram --x alpha2=0.1:2:400 --y rho=0:1:100 --quiet -o - | head -n 2"
    found = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith("alpha1,alpha2,")
    assert found.stdout.count("\n") == 2
