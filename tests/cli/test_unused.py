"""Every option either has an effect, or is refused or told: a table over all of them."""

from pathlib import Path

import pytest

from tlcli.errors import UsageError
from tlcli.options import OPTIONS
from tlcli.options.commands import COMMANDS
from tlcli.run.job import _NOT_PHYSICAL, prepare
from tlcli.run.unused import HOW

LINEAR = "finetune-loss --rho 0.1,0.2"
TASKS = "--source linear --target linear --dim 4 --p1 4 --p2 3 --ptest 5 --activation linear"
NETWORK = f"dmft-solve {TASKS} --t1 1 --t2 1 --neurons 16 --repeats 2"
BAYES = f"bayes-saddle {TASKS}"

# What stands before the flag, the flag, and the sentence.
REFUSED = [
    (f"{NETWORK} -o -", "--predictions", "--predictions has no effect with -o -, which writes the table alone"),
    (f"{BAYES} -o -", "--predictions", "--predictions has no effect with -o -"),
    (f"{NETWORK} -o -", "--kernels 1", "--kernels has no effect with -o -, which writes the table alone"),
    (
        f"{LINEAR} -o -",
        "--title Words",
        "--title has no effect with -o -, which draws no figure; give a folder, -o DIR",
    ),
    (f"{LINEAR} -o -", "--format pdf", "--format has no effect with -o -"),
    (f"{LINEAR} -o -", "--style curves", "--style has no effect with -o -"),
    *(
        (f"{LINEAR} -o -", flag, f"{flag.split()[0]} has no effect with -o -")
        for flag in ("--size 3x2", "--dpi 100", "--xlim 0,1", "--ylim 0,1", "--log-x", "--log-y")
    ),
    (f"{LINEAR} -o -", "--quantity gain", "--quantity has no effect with -o -"),
    (f"{LINEAR} -o -", "--x rho", "--x has no effect with -o -"),
    (f"{LINEAR} --alpha2 0.1,0.2 -o -", "--y rho", "--y has no effect with -o -"),
    (f"{LINEAR} --simulate -o -", "--shard 1/2", "--shard has no effect with -o -, which stays empty"),
    (f"{LINEAR} --simulate --store s -o -", "--shard 1/2", "--shard has no effect with -o -"),
    (f"{NETWORK} -o -", "--shard 1/2", "--shard has no effect with -o -"),
    (LINEAR, "--shard 1/2", "--shard divides experiments; it needs --simulate"),
    (LINEAR, "--experiment network", "--experiment has an effect with --simulate only; add it"),
    (LINEAR, "--trials 3", "--trials has an effect with --simulate only; add it"),
    (LINEAR, "--width 64", "--width has an effect with --simulate only"),
    (LINEAR, "--dim 30", "--dim has an effect with --simulate only"),
    (NETWORK, "--nets 3", "--nets has an effect with --simulate only"),
    (BAYES, "--nets 3", "--nets has an effect with --simulate only"),
    (f"{LINEAR} --simulate", "--width 64", "--width has no effect here: only --experiment network has a width"),
    (f"{NETWORK} --simulate", "--trials 3", "No such option: --trials"),
    (f"finetune-loss --model network {TASKS} --simulate", "--trials 3", "has no trials"),
    (LINEAR, "--optimal-gamma0", None),
    (
        f"finetune-loss --model network {TASKS}",
        "--optimal-gamma0",
        "--optimal-gamma0 chooses among the values of averages",
    ),
    (NETWORK, "--kernel ntk", "--kernel ntk has no effect at gamma2 above 0, where no kernel is frozen"),
    (f"{NETWORK} --gamma2 0", "--readout reset", "--readout reset has no effect on frozen features"),
    (
        NETWORK,
        "--class-weights balanced",
        "--class-weights balanced has no effect: the labels of linear are no classes",
    ),
    (
        f"{NETWORK} --loss1 mse --loss2 huber:1",
        "--loss huber:2",
        "--loss huber:2 has no effect beside --loss1 and --loss2",
    ),
    (NETWORK, "--population quadrature", "--repeats 2 has no effect with --population quadrature"),
    (f"{NETWORK} --gamma2 0,1", "--kernel ntk", None),
    (f"{NETWORK} --gamma2 0,1", "--readout reset", None),
    (f"phase-diagram {LINEAR.partition(' ')[2]}", "--optimal-delta", "--optimal-delta: linear-exact has no delta"),
]
# A note tells: nothing is drawn where there is one point.
TOLD = [("--title Words", "--title"), ("--format pdf", "--format"), ("--style curves", "--style")]


@pytest.mark.parametrize(("before", "flag", "sentence"), REFUSED, ids=[f"{b.split()[0]} {f}" for b, f, _ in REFUSED])
def test_a_flag_without_effect_is_refused(tlcli, before, flag, sentence):
    output = [] if "-o -" in before else ["-o", "out"]
    done = tlcli(before, flag, *output)
    if sentence is None:
        assert done.code == 0
        return
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err
    assert done.err.count("\n") == 1
    assert not Path("out").exists()
    assert not Path("s").exists()


@pytest.mark.parametrize(("flag", "named"), TOLD)
def test_what_concerns_a_figure_is_told_where_there_is_none(tlcli, flag, named):
    done = tlcli("finetune-loss -o out", flag)
    assert done.code == 0
    assert f"{named} has no effect: nothing is drawn where no parameter has several values." in done.err
    assert "has no effect" not in tlcli(LINEAR, flag, "-o out").err
    assert "has no effect" not in tlcli("finetune-loss -o out").err


def test_grids_of_axes_have_an_effect_without_a_figure(anywhere):
    done = anywhere("finetune-loss --x rho=0.1,0.2 --y alpha2=0.1,0.2 --quiet -o -")
    assert (done.code, done.out.count("\n"), done.err) == (0, 5, "")


def test_what_a_recipe_asks_for_is_told(tlcli):
    Path("r.yaml").write_text("predictions: true\nkernels: [1]\ntitle: Words\n")
    done = tlcli(NETWORK, "r.yaml -o - --times 1")
    assert done.code == 0, done.err
    assert "-o - writes the table alone, not the predictions that the recipe asks for." in done.err
    assert "not the kernels that" in done.err


def test_the_tables_are_whole():
    """Every option is of the physics, of the run, or one of those above."""
    shown = {flag.split()[0][2:].replace("-", "_") for _, flag, _ in REFUSED}
    assert set(OPTIONS) - set(HOW) - shown - {"solver", "model", "simulate"} <= set(OPTIONS) - _NOT_PHYSICAL


GOOD = {
    "flag": True,
    "grid": "0.37",
    "number": 0.37,
    "integer": 2,
    "expression": "0.37",
    "numbers": "0.37",
    "text": "erf",
}


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("finetune-loss", {}),
        ("finetune-loss", {"solver": "linear-ansatz", "c_signal": "1"}),
        ("finetune-loss", {"solver": "linear-joint"}),
        ("finetune-loss", {"solver": "linear-structured"}),
        ("finetune-loss", {"solver": "linear-classify"}),
        ("finetune-loss", {"solver": "linear-two-time", "times": "1,2"}),
        ("finetune-loss", {"model": "network", "source": "linear", "target": "linear"}),
        ("phase-diagram", {"solver": "network-rich", "source": "linear", "target": "linear"}),
        ("finetune-loss", {"solver": "network-frozen", "source": "linear", "target": "linear"}),
        ("finetune-loss", {"solver": "network-frozen", "source": "linear", "target": "linear", "average": "auto"}),
        ("dmft-solve", {"source": "sign:linear", "target": "sign:linear", "loss": "logistic"}),
        ("dmft-solve", {"source": "linear", "target": "linear", "depth": "3"}),
        ("phase-diagram", {"solver": "bayes-linear", "source": "linear", "target": "linear"}),
        ("phase-diagram", {"solver": "bayes-network", "source": "linear", "target": "linear"}),
        ("phase-diagram", {"solver": "bayes-whitened", "whitened": "same"}),
        ("pretrain-kernel", {}),
        ("dmft-solve", {"source": "linear", "target": "linear"}),
        ("bayes-saddle", {"source": "linear", "target": "linear"}),
    ],
)
def test_physics_that_a_solver_does_not_use_is_refused(command, flags):
    """For each solver and option: a value changes what is computed, or is refused."""
    allowed = COMMANDS[command].options

    def made(**more):
        (case,) = prepare(command, allowed, None, {**flags, **more}).cases
        grid = {name: values.array.tolist() for name, values in case.grid.values.items()}
        return case.theory.name, grid, case.words

    plain = made()
    for name, option in OPTIONS.items():
        if name in _NOT_PHYSICAL or name in flags or name not in allowed:
            continue
        value = GOOD[option.kind] if option.kind != "choice" else next(c for c in option.choices if c != option.default)
        value = {"depth": "2", "spectrum": "file:x.npz", "whitened": "decoupled"}.get(name, value)
        if option.domain is not None and option.domain.whole:
            value = max(3, int(option.domain.low))
        try:
            found = made(**{name: value})
        except UsageError:
            continue
        assert found != plain, f"{command} {flags} takes {name} = {value} and computes the same"
