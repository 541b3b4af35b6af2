"""The commands as data: the options that each takes and its help; flags and functions are built from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tlcli.options import DRAWN, INVOCATION, OPTIONS, WRITTEN
from tlcli.options.bayes import BAYES
from tlcli.options.losses import network_losses, one_of
from tlcli.options.network import NETWORK
from tlcli.options.option import Option

_FIGURE = ("x", "y", *DRAWN)
_EXPERIMENT = ("simulate", "experiment", "trials", "width", "dim")
_RUN = ("seed", *WRITTEN, *INVOCATION)
_OUTPUTS = ("predictions", "kernels", "two_time", "responses", "test_kernels")
_NETWORK = (
    "source",
    "target",
    "p1",
    "p2",
    "loss",
    "flips1",
    "flips2",
    *(option.name for option in NETWORK if option.name not in _OUTPUTS),
    "nets",
)
_BEST = ("optimal_gamma0", "optimal_delta")
_BAYES = tuple(option.name for option in BAYES)
_TRANSFER = tuple(name for name in OPTIONS if name not in (*_FIGURE, *_EXPERIMENT, *_OUTPUTS, *_RUN, *_BEST, *_BAYES))
_TASKS = (
    "source",
    "target",
    "p1",
    "p2",
    "noise1",
    "noise2",
    "ptest",
    "draws",
    "raw_inputs",
    "drop_columns",
    "colour",
    "activation",
)

_LOSSES = ("loss", "loss1", "loss2", "label_smoothing", "class_weights", "flips1", "flips2", "classes", "regression")

# What --help shows of a command; the rest is in --help-all.
_COMMON = ("simulate", "x", "output", "jobs", "dry_run")
_COMMON_NETWORK = ("model", "source", "p1", "activation")
_COMMON_TRANSFER = (
    *("alpha1", "alpha2", "rho", "gamma0", "noise1", "noise2", "ridge", "weight_decay", "t1", "t2", "times"),
    *("solver", "model", "source", "target", *_COMMON),
)
_NETWORK_SIZES = {"alpha1": None, "alpha2": None, "p1": "100", "dim": "20"}
_DIM = "Input dimension D of polynomial tasks."
_SIZES = {
    "p1": "Number of source samples (or all of a file).",
    "p2": "Number of target samples (or all of a file).",
}

# In YAML a stage's `alpha` reads like the option alpha1, and so on: same grids, same ranges.
STAGE_OPTIONS = {
    "teacher": None,
    "alpha": "alpha1",
    "gamma": "gamma2",
    "duration": "t1",
    "sigma": "sigma1",
    "weight_decay": "weight_decay",
}


@dataclass(frozen=True)
class Command:
    """One subcommand that computes a table."""

    name: str
    summary: str
    examples: tuple[str, ...]
    options: tuple[str, ...]
    common: tuple[str, ...] = ()  # what --help shows; --help-all shows the rest
    defaults: Mapping[str, str | None] = field(default_factory=dict)  # where they are not those of the options
    texts: Mapping[str, str] = field(default_factory=dict)  # what an option is here, where that is less than elsewhere
    refused: tuple[str, ...] = ()  # taken by no theory of this command, and read only to say so
    duration: str | None = "t2"  # of the last stage, which `times` replaces; curves have both

    @property
    def help(self) -> str:
        """Examples first: most users look for one to change."""
        shown = "\n\n".join(f"    {line}" for line in self.examples)
        return f"{self.summary}\n\nExamples:\n\n{shown}"


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "pretrain-kernel",
            "What the source task leaves behind: spike, bulk and direction of the adaptive kernel.",
            (
                "tlcli pretrain-kernel --alpha1 0.1:3:60 --gamma0 0.5,1,2,5 -o results/kernel",
                "tlcli pretrain-kernel --alpha1 0.5 --gamma0 log:0.1:10:30 --weight-decay 0.5 --x gamma0",
                "tlcli pretrain-kernel --alpha1 0.5,2 --times log:0.1:100:40 --simulate --dim 200",
                "tlcli pretrain-kernel --model network --source digits:3v8 --p1 20,50,100,200 --gamma0 0.3,1,3",
            ),
            (
                *(
                    "alpha1",
                    "alpha2",
                    "gamma0",
                    "sigma1",
                    "sigma2",
                    "weight_decay",
                    "init_scale",
                    "kernel",
                    "t1",
                    "times",
                    "solver",
                    "rho",
                    "rho_xi",
                    "reduction",
                ),
                *(name for name in _NETWORK if name != "readout"),
                *("kernels", "test_kernels"),
                *_EXPERIMENT,
                *_FIGURE,
                *_RUN,
            ),
            (
                "alpha1",
                "gamma0",
                "noise1",
                "weight_decay",
                "init_scale",
                "t1",
                "times",
                "solver",
                *_COMMON_NETWORK,
                *_COMMON,
            ),
            {"p1": "100", "p2": "50", "alpha2": None, "rho": None, "rho_xi": "0"},
            {
                "alpha2": "Target data per dimension: adds the target's loss and gain on this kernel.",
                "rho": "Alignment of a target's teacher with the source's: adds the spike's overlap with it.",
                "p1": "Number of source samples of networks (or all of a file), instead of --alpha1.",
                "p2": "Number of target samples of networks (or all of a file).",
                "solver": "The theory of linear networks.",
            },
            ("average", "pool", "freeze", "reinit_from", "ablate"),
            duration="t1",
        ),
        Command(
            "finetune-loss",
            "The target loss after pre-training, beside the loss without it.",
            (
                "tlcli finetune-loss --alpha1 inf --alpha2 0.4 --rho 0.8 --gamma0 3 -o -",
                "tlcli finetune-loss --alpha1 0.5 --alpha2 0.05:1.5:30 --rho 0.5,0.9 --gamma0 0,5 --simulate",
                "tlcli finetune-loss --alpha1 0.5 --alpha2 0.6 --times 0:10:41 --noise2 0.3 --gamma0 0,1,5",
                "tlcli finetune-loss --solver linear-two-time --alpha2 0.5,2 --times 0:10:41",
                "tlcli finetune-loss --model network --source digits:3v8 --target digits:4v9 --p2 10,20,40 "
                "--gamma0 0.1,1",
            ),
            (*_TRANSFER, "optimal_gamma0", *_EXPERIMENT, *_FIGURE, *_RUN),
            _COMMON_TRANSFER,
        ),
        Command(
            "dmft-solve",
            "A nonlinear two-layer network through both stages in time, beside one without pre-training.",
            (
                "tlcli dmft-solve --source linear --target hermite:2 --dim 20 --p1 100 --p2 40 --gamma0 1 "
                "--gamma2 0.5,2 --activation tanh",
                "tlcli dmft-solve --source digits:3v8 --target digits:4v9 --p1 200 --p2 40 --gamma0 1 --gamma2 1 "
                "--simulate --width 1024 --nets 8",
                "tlcli dmft-solve --source file:data.npz --target file:data.npz --gamma0 1.5 --gamma2 0.5 "
                "--weight-decay 0.05 --times 0.25,0.5,1 -o out/mine",
                "tlcli dmft-solve --source hermite:3 --target hermite:1 --activation relu "
                "--times log:0.1:100:30 --predictions",
            ),
            (
                *("alpha1", "alpha2", "rho", "gamma0", "gamma2", "sigma1", "sigma2", "weight_decay", "weight_decay2"),
                *("kernel", "t1", "t2", "times", "reduction"),
                *(name for name in _NETWORK if name != "model"),
                *_OUTPUTS,
                *(name for name in _EXPERIMENT if name != "trials"),
                *_FIGURE,
                *_RUN,
            ),
            (
                *("source", "target", "dim", "p1", "p2", "rho", "gamma0", "gamma2", "activation", "depth"),
                *("readout", "t1", "t2", "times", "loss", "accuracy", "predictions"),
                *("simulate", "output", "dry_run"),
            ),
            {**_NETWORK_SIZES, "p2": "50", "loss": None, "t1": "100", "t2": "100"},
            {
                "alpha1": "Source data per dimension: P1 = round(alpha1 D); instead of --p1.",
                "alpha2": "Target data per dimension: P2 = round(alpha2 D); instead of --p2.",
                "gamma0": "Feature-learning strength (richness) on the source; 0 is lazy.",
                "gamma2": "Richness on the target (default: gamma0); 0 is lazy.",
                "weight_decay2": "Weight decay on the target (of the mean loss, unless --reduction sum).",
                "dim": _DIM,
                **_SIZES,
                "t1": "Duration of pre-training, in units of the mean loss (with --until at most 1e4).",
                "t2": "Duration of the target stage, in units of the mean loss (with --until at most 1e4).",
                "times": "Recorded times of both stages (a list or grid).",
                "loss": f"Loss that is minimised in both stages: {one_of(network_losses())}.",
            },
            ("average", "pool"),
            duration=None,
        ),
        Command(
            "bayes-saddle",
            "Bayesian networks with an elastic coupling of the target's weights to the source's: kernels and loss.",
            (
                "tlcli bayes-saddle --source linear --target linear --dim 50 --p1 200 --p2 25 --rho 0.8 --noise1 0.5 "
                "--gamma0 2 --gamma2 0.05,0.3,1,3 --delta 0,log:0.1:100:13,inf --draws 8",
                "tlcli bayes-saddle --source linear --target hermite:3 --dim 2 --activation erf --p1 20 --p2 10 "
                "--gamma0 0.5,1,2 --delta 0,0.3,1,3,10,inf",
                "tlcli bayes-saddle --source digits:3v8 --target digits:4v9 --p1 60 --p2 30 --activation linear "
                "--gamma0 0.3,3 --delta 0,1,10 --predictions",
                "tlcli bayes-saddle --whitened labels --label-overlap 0.3,0.9 --gamma0 3 --delta log:0.01:100:50",
                "tlcli bayes-saddle --source linear --target linear --dim 10 --p1 20 --p2 8 --simulate --width 64,128 "
                "--nets 8",
            ),
            (
                *("alpha1", "alpha2", "dim", "rho", "gamma0", "gamma2", "sigma1", "sigma2"),
                *_BAYES,
                *_TASKS,
                *_LOSSES,
                *("optimal_delta", "predictions"),
                *("simulate", "experiment", "width", "nets"),
                *_FIGURE,
                *_RUN,
            ),
            (
                *("source", "target", "dim", "p1", "p2", "rho", "gamma0", "gamma2", "delta", "beta", "activation"),
                *("loss", "noise1", "whitened", "optimal_delta", "predictions", "draws"),
                *("simulate", "output", "dry_run"),
            ),
            {"activation": "linear", **_NETWORK_SIZES, "p2": "50", "loss": None},
            {
                "loss": f"Loss of the likelihood in both stages: {one_of(network_losses())}.",
                "alpha1": "Source data per dimension: P1 = round(alpha1 D); instead of --p1.",
                "alpha2": "Target data per dimension: P2 = round(alpha2 D); instead of --p2.",
                "gamma0": "Feature-learning strength (richness) on the source; 0 is lazy.",
                "gamma2": "Richness on the target (default: gamma0); 0 is lazy.",
                "dim": _DIM,
                **_SIZES,
            },
        ),
        Command(
            "phase-diagram",
            "Where pre-training helps, hurts or does nothing: gain over two parameters, its boundary drawn.",
            (
                "tlcli phase-diagram --x alpha2=0.05:2:200 --y gamma0=log:0.05:50:200 --alpha1 0.3,0.8,2",
                "tlcli phase-diagram --weight-decay 0.3 --x alpha2=0.02:1:99 --y rho=0:1:101 --alpha1 0.5,inf",
                "tlcli phase-diagram --solver linear-joint --t1 5 --t2 5 --x gamma0=0.1:4:9 --y gamma2=0.1:4:9",
                "tlcli phase-diagram recipes/fig1b.yaml --jobs 2",
                "tlcli phase-diagram --solver network-frozen --source hermite:1 --target hermite:2 --dim 16 --alpha1 4 "
                "--x alpha2=0.5:6:8 --y gamma0=log:0.1:5:6 --draws 4 --jobs 2",
                "tlcli phase-diagram --solver bayes-whitened --whitened labels --label-overlap -0.5,0.5,0.9 "
                "--x delta=log:0.05:50:60 --y gamma2=log:0.1:10:60",
            ),
            (*_TRANSFER, *_BEST, *_BAYES, *_EXPERIMENT, *_FIGURE, *_RUN),
            (*(name for name in _COMMON_TRANSFER if name not in ("t2", "times")), "y", "delta"),
        ),
    )
}


def option_of(command: Command, name: str) -> Option:
    """Return an option as the command has it: with the command's default and text."""
    option = OPTIONS[name]
    default = command.defaults.get(name, option.default)
    return replace(option, default=default, help=command.texts.get(name, option.help))
