"""`tlcli run`: recipes of any command, one after the other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def recipes(tmp_path):
    texts = {
        "kernel.yaml": "command: pretrain-kernel\nalpha1: 0.5,2\n",
        "loss.yaml": "command: finetune-loss\nname: renamed\nrho: 0:1:3\n",
        "bad.yaml": "command: finetune-loss\nrho: 7\n",
        "phase.yaml": "command: phase-diagram\nx: alpha2=0.1:0.9:3\ny: rho=0:1:3\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return texts


def test_every_recipe_gets_its_folder(tlcli, recipes):
    done = tlcli("run kernel.yaml loss.yaml phase.yaml")
    assert (done.code, done.out) == (0, "")
    assert sorted(os.listdir("results")) == ["kernel", "phase", "renamed"]
    assert done.err.count(" rows in ") == 3
    assert tlcli("run kernel.yaml loss.yaml --quiet -o elsewhere").err == ""
    assert sorted(os.listdir("elsewhere")) == ["kernel", "renamed"]
    for name in ("kernel", "renamed"):
        one, other = (Path(folder, name, "table.csv").read_bytes() for folder in ("results", "elsewhere"))
        assert one == other


def test_a_failing_recipe_does_not_stop_the_others(tlcli, recipes):
    done = tlcli("run kernel.yaml bad.yaml none.yaml loss.yaml --quiet")
    assert done.code == 2
    assert done.err.splitlines() == [
        "error: recipe 'bad.yaml': rho = 7 is not allowed; it must be >= -1 and <= 1.",
        "error: recipe 'none.yaml' cannot be read: No such file or directory.",
    ]
    assert sorted(os.listdir("results")) == ["kernel", "renamed"]


def test_the_first_failure_gives_the_code(tlcli, recipes):
    text = "command: finetune-loss\nsolver: linear-exact\nsimulate: true\ntrials: 2\ndim: 20\n"
    Path("sim.yaml").write_text(text)
    os.makedirs("results/sim")
    Path("results/sim/store.json").write_text('{"format": 99, "solver": "x", "solver_version": "1"}')
    done = tlcli("run sim.yaml bad.yaml --quiet")
    assert done.code == 5
    assert tlcli("run bad.yaml sim.yaml --quiet").code == 2
    assert tlcli("run sim.yaml --quiet --force").code == 0


def test_labels_have_letters_for_their_formulas(tlcli):
    text = "command: finetune-loss\nsolver: linear-exact\ncases:\n- {label: '$\\rho_1 = 0.5$', rho: 0.5}\n"
    Path("letters.yaml").write_text(text)
    assert "letters [ρ_1 = 0.5]: linear-exact on one point" in tlcli("run letters.yaml --dry-run").out
    assert tlcli("run letters.yaml -o out").err.splitlines()[-1].startswith("ρ_1 = 0.5: loss ")


def test_plot_ends_with_the_answer(tlcli):
    told = tlcli("finetune-loss --rho 0:1:3 -o out").err.splitlines()[-1]
    assert told.startswith("pre-training helps at 2, makes no difference at 1 of 3 points; it helps where rho > 0; ")
    assert tlcli("plot out").err.splitlines()[-1] == told


def test_a_recipe_is_the_same_whether_run_or_given_to_its_command(tlcli, recipes):
    one = tlcli("run loss.yaml -o -")
    assert one.code == 0
    assert one.err.count("\n") == 1, "the answer"
    assert one.out.count("\n") == 4
    assert tlcli("finetune-loss loss.yaml -o -").out == one.out


def test_two_recipes_of_one_name_do_not_replace_each_other(tlcli, recipes):
    os.mkdir("below")
    Path("below/kernel.yaml").write_text("command: pretrain-kernel\nalpha1: 3,4,5\n")
    done = tlcli("run kernel.yaml below/kernel.yaml loss.yaml --quiet")
    assert done.code == 2
    assert done.err.startswith("error: recipe 'below/kernel.yaml' has the name 'kernel' of 'kernel.yaml'")
    assert Path("results/kernel/table.csv").read_text().count("\n") == 3
    assert Path("results/renamed/table.csv").exists()


def test_seed_and_dry_run_reach_every_recipe(tlcli, recipes):
    Path("sim.yaml").write_text("command: finetune-loss\nalpha1: 0.5\nsimulate: true\ntrials: 2\ndim: 20\nseed: 4\n")
    tables = {seed: tlcli("run sim.yaml -o - --quiet", *seed).out for seed in ((), ("--seed 4",), ("--seed 5",))}
    assert tables[()] == tables[("--seed 4",)]
    assert tables[()] != tables[("--seed 5",)]
    done = tlcli("run sim.yaml kernel.yaml --dry-run")
    assert done.code == 0
    assert [line.split(": ")[-1] for line in done.out.splitlines() if line[0] != " "] == ["1 point", "2 points"]
    assert not Path("results").exists()


def test_a_recipe_cannot_write_outside_the_output_folder(tlcli):
    Path("mine.txt").write_text("mine")
    Path("up.yaml").write_text("command: finetune-loss\nname: ..\nrho: 0:1:3\n")
    for arguments in ("run up.yaml -o a/b", "run up.yaml", "finetune-loss up.yaml", "finetune-loss up.yaml -o c"):
        done = tlcli(arguments)
        assert done.code == 2
        assert "name '..' is no plain folder name" in done.err
        assert sorted(os.listdir(".")) == ["mine.txt", "up.yaml"]


CODE = "open('it-ran', 'w').close()\n\ndef f(h):\n    return 0.5 * h, 0.5 + 0 * h\n"
TRAINED = "--source linear --target linear --dim 4 --p1 6 --p2 4 --t1 0.1 --t2 0.1 --neurons 32 --repeats 2 --quiet"


@pytest.mark.parametrize("key", ["activation: stranger:f", "cases:\n  - {label: a, activation: 'stranger:f'}"])
def test_a_recipe_runs_code_only_where_it_is_allowed(tlcli, key):
    Path("stranger.py").write_text(CODE)
    Path("r.yaml").write_text(
        "command: dmft-solve\nsource: linear\ntarget: linear\ndim: 4\np1: 6\np2: 4\nt1: 0.1\nt2: 0.1\nneurons: 32\n"
        f"repeats: 2\n{key}\n"
    )
    for arguments in ("run r.yaml", "run r.yaml --dry-run", "dmft-solve r.yaml", "dmft-solve --recipe r.yaml --p1 5"):
        done = tlcli(arguments)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "would run Python code by its activation 'stranger:f'; if you trust it, add --allow-code." in done.err
        assert sorted(os.listdir(".")) == ["r.yaml", "stranger.py"]
    try:
        assert tlcli("run r.yaml --allow-code --quiet").code == 0
        assert Path("it-ran").exists()
        assert tlcli("dmft-solve r.yaml --allow-code --quiet -o -").code == 0
    finally:
        sys.modules.pop("stranger", None)


def test_a_result_of_somebody_runs_no_code_before_it_is_refused(tlcli):
    """Provenances and figures hold recipes, too: looking for words of its theory must not import what they name."""
    Path("stranger.py").write_text(CODE)
    try:
        assert tlcli("dmft-solve", TRAINED, "--activation stranger:f -o out").code == 0
    finally:
        sys.modules.pop("stranger", None)
    os.remove("it-ran")
    told = "would run Python code by its activation 'stranger:f'; if you trust it, add --allow-code."
    of_result = "from tlcli import load; load('out')"
    fresh = [  # processes that know nothing of the module
        ("-m", "tlcli", "run", "out/provenance.json"),
        ("-m", "tlcli", "dmft-solve", "out/figure.png", "--dry-run"),
        ("-m", "tlcli", "plot", "out"),
        ("-c", of_result),
    ]
    for arguments in fresh:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
        assert done.returncode == (1 if of_result in arguments else 2)
        assert told in done.stderr
        assert not Path("it-ran").exists(), arguments


def test_code_that_a_flag_names_is_allowed_and_a_recipe_cannot_allow_its_own(tlcli):
    Path("stranger.py").write_text(CODE)
    Path("r.yaml").write_text("command: dmft-solve\nactivation: tanh\n")
    try:
        assert tlcli("dmft-solve", TRAINED, "--activation stranger:f -o -").code == 0
        assert tlcli("dmft-solve r.yaml", TRAINED, "--activation stranger:f -o -").code == 0
    finally:
        sys.modules.pop("stranger", None)
    Path("r.yaml").write_text("command: dmft-solve\nactivation: stranger:f\nallow_code: true\n")
    done = tlcli("run r.yaml")
    assert done.code == 2
    assert "'allow_code' is no part of a recipe; give it as the flag --allow-code." in done.err
