"""Any command gives a table; what provenance keeps, given back as a recipe, gives the identical one."""

import csv
import io
import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tlcli.options import LINEAR_SOLVERS, OPTIONS
from tlcli.theories.linear.classify import Classify
from tlcli.theories.linear.theory import BY_NAME, JointTheory, Pretraining, Structured


def fed_back(folder):
    """Write the recipe of a result's provenance as a recipe file (JSON is YAML)."""
    content = json.loads(Path(folder, "provenance.json").read_text())
    path = Path(f"{Path(folder).name}.yaml")
    path.write_text(json.dumps({**content["recipe"], "command": content["command"]}))
    return path, content


@pytest.mark.parametrize(
    "arguments",
    [
        "pretrain-kernel --alpha1 0.1:3:5 --times 0.5,inf --weight-decay 0.1",
        "finetune-loss --alpha2 0.1:0.9:5 --rho 0.2,0.8 --ridge 1e-3 --kernel ntk",
        "finetune-loss --alpha1 0.5 --gamma0 1,2 --simulate --dim 20 --trials 2 --seed 9 "
        "--experiment population,regression",
        "finetune-loss --solver linear-ansatz --alpha1 0.5 --c-signal alpha1*gamma0 --c-noise 0,0.5 --x c_noise",
        "finetune-loss --solver linear-structured --spectrum digits --source digits:01v23 --target digits:0v123 "
        "--p2 9,50",
        "finetune-loss --solver linear-two-time --times 0:2:3 --steps 20 --quantity train_loss",
        "phase-diagram --x alpha2=0.1:0.9:5 --y gamma0=log:0.1:10:4 --weight-decay 0.3 --title 'no, really: 1e-3'",
        "finetune-loss --solver linear-classify --alpha2 0.5,2 --flips2 0.1 --loss hinge --ridge best",
        "phase-diagram --solver linear-joint --t1 1 --t2 2 --x gamma0=1,2 --y gamma2=1,2",
    ],
)
def test_provenance_is_a_recipe(rendered, tlcli, arguments):
    assert tlcli(arguments, "-o one --quiet").code == 0
    recipe, content = fed_back("one")
    assert tlcli("run", recipe, "--seed", content["seed"], "-o again --quiet").code == 0
    assert Path("again/one/table.csv").read_bytes() == Path("one/table.csv").read_bytes()
    again = json.loads(Path("again/one/provenance.json").read_text())
    assert {**again, "wall_time_seconds": 0} == {**content, "wall_time_seconds": 0}
    assert Path("again/one/figure.png").read_bytes() == Path("one/figure.png").read_bytes()


_VALUES = {
    "alpha1": ("0.3", "1", "2.5", "inf", "0.5,1,2"),
    "alpha2": ("0.3", "1", "2.5", "inf", "0.2:1.4:4"),
    "rho": ("-1", "0", "0.6", "1", "-0.5:0.7:3"),
    "rho_xi": ("0", "0.3", "-0.3"),
    "gamma0": ("0", "1e-3", "2", "inf", "0,1,inf", "log:0.01:100:4"),
    "gamma2": ("1e-2", "3", "inf"),
    "sigma1": ("0", "0.5"),
    "sigma2": ("0", "0.5"),
    "ridge": ("0", "1e-8", "0.3"),
    "weight_decay": ("0", "0.05", "5"),
    "weight_decay2": ("0", "0.05"),
    "init_scale": ("0", "1e-3", "1", "3"),
    "kernel": ("feature", "ntk"),
    "t1": ("0", "1.5", "inf"),
    "times": ("0", "0,1,4", "inf"),
    "t2": ("0", "2", "inf"),
    "bulk": ("0", "1", "2"),
    "c_signal": ("0", "1", "gamma0*alpha1/(1+gamma0*alpha1)"),
    "c_cross": ("0", "0.2"),
    "c_noise": ("0", "1"),
    "p1": ("1", "30", "60", "inf"),
    "p2": ("1", "30", "60", "1000"),
    "spectrum_exponent": ("0", "1.2"),
    "teacher_exponent": ("-1", "0.5"),
    "reduction": ("mean", "sum"),
    "loss": ("square", "logistic", "hinge", "margin"),
    "source_labels": ("sign", "real"),
    "flips1": ("0", "0.2"),
    "flips2": ("0", "0.2", "0.5"),
}
_JOINT_SLOW = {"t1": ("0", "1.5"), "t2": ("0", "2"), "times": ("0", "0,1,2"), "gamma0": ("1e-3", "1", "0.5,2")}


_THEORIES = {
    **BY_NAME,
    "linear-classify": Classify,
    "linear-joint": JointTheory,
    "linear-structured": Structured,
    "pretraining": Pretraining,
}


@st.composite
def commands(draw):
    solver = draw(st.sampled_from([*LINEAR_SOLVERS, "pretraining"]))
    command = (
        "pretrain-kernel" if solver == "pretraining" else draw(st.sampled_from(["finetune-loss", "phase-diagram"]))
    )
    takes = set(_THEORIES[solver].parameters)
    words = [command] if solver == "pretraining" else [command, "--solver", solver]
    if "time" in takes:
        duration = "t1" if solver == "pretraining" else "t2"
        takes = (takes - {"time"}) | {draw(st.sampled_from(["times", duration]))}
    if solver == "linear-ansatz":
        words += ["--c-signal", draw(st.sampled_from(_VALUES["c_signal"]))]
        takes -= {"c_signal"}
    if solver == "linear-structured":
        words += ["--dim", "60"]
    values = _VALUES | (_JOINT_SLOW if solver == "linear-joint" else {})
    always = ["t1", "t2"] if solver == "linear-joint" else []
    chosen = draw(st.lists(st.sampled_from(sorted(takes & set(values))), max_size=5, unique=True))
    for name in dict.fromkeys([*(n for n in always if n in takes), *chosen]):
        words += [f"{OPTIONS[name].flag}={draw(st.sampled_from(values[name]))}"]
    return words


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(commands())
def test_any_command_gives_a_table_or_one_sentence(anywhere, words):
    done = anywhere(*words, "-o", "-")
    if done.code == 2:
        assert done.out == ""
        assert done.err.startswith("error: ")
        assert done.err.count("\n") == 1
        return
    assert done.code in (0, 3), done.err
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert rows
    for row in rows:
        assert None not in row.values(), "every row has every cell"
        if row["status"] in ("converged", "collapsed"):
            for name in ("loss", "baseline", "gain", "source_loss", "norm2"):
                assert math.isfinite(float(row.get(name, "0"))), name
            for name in ("loss", "baseline", "spike", "norm2", "bulk"):
                assert float(row.get(name, "0")) >= -1e-9, name
            if "gain" in row:
                loss = float(row.get("loss", row.get("error", "nan")))
                gain, scale = float(row["baseline"]) - loss, 1 + loss
                assert float(row["gain"]) == pytest.approx(gain, abs=1e-9 * scale)
