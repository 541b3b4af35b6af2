"""Every option of every command, declared once: flags, recipe keys, columns and provenance derive from it.

An option is named by its recipe key (`weight_decay`); its flag is the same word with dashes.
Nothing here imports NumPy, so `--help` is instant.
"""

from tlcli.options.bayes import BAYES
from tlcli.options.classify import CLASSIFY
from tlcli.options.losses import network_losses, one_of
from tlcli.options.network import NETWORK
from tlcli.options.option import (
    COUNT,
    COUNT_FINITE,
    FINITE,
    NOT_NEGATIVE,
    OVERLAP,
    POSITIVE,
    PROCESSES,
    SHARE,
    Domain,
    Option,
)

LINEAR_SOLVERS = ("linear-exact", "linear-ansatz", "linear-classify", "linear-joint", "linear-structured")
NETWORK_SOLVERS = ("network-frozen", "network-rich")
BAYES_SOLVERS = ("bayes-linear", "bayes-whitened", "bayes-network")
SOLVERS = (*LINEAR_SOLVERS, "linear-two-time", *NETWORK_SOLVERS, *BAYES_SOLVERS)
# All losses of all theories; each theory names its own (`Theory.choices`).
LOSSES = ("square", "logistic", "hinge", "margin")

_MODEL = [
    Option(
        "alpha1",
        "grid",
        "inf",
        "Source data per dimension, P1/D; inf is infinite data (networks: P1 = round(alpha1 D), or give --p1).",
        symbol=r"$\alpha_1=P_1/D$",
        domain=POSITIVE,
    ),
    Option(
        "alpha2",
        "grid",
        "0.5",
        "Target data per dimension, P2/D (networks: P2 = round(alpha2 D), or give --p2).",
        symbol=r"$\alpha_2=P_2/D$",
        domain=POSITIVE,
    ),
    Option(
        "rho",
        "grid",
        "0.8",
        "Alignment of the target's direction (teacher) with the source's.",
        symbol=r"alignment $\rho$",
        domain=OVERLAP,
    ),
    Option(
        "rho_xi",
        "grid",
        "0",
        "Alignment of the target teacher with the source's noise direction.",
        symbol=r"$\rho_\xi$",
        domain=OVERLAP,
    ),
    Option(
        "gamma0",
        "grid",
        "1",
        "Feature-learning strength (richness) on the source; 0 is lazy, inf ultra-rich (not for networks).",
        symbol=r"richness $\gamma_0$",
        domain=NOT_NEGATIVE,
        best=True,
    ),
    Option(
        "gamma2",
        "grid",
        None,
        "Richness on the target in joint training (default: gamma0); 0 is the lazy limit of networks.",
        symbol=r"target richness $\gamma_2$",
        domain=NOT_NEGATIVE,
        follows="gamma0",
        late=True,
        unsaid=True,
    ),
    Option(
        "sigma1",
        "grid",
        "0",
        "The noise on the source's labels as linear networks call it; the same as --noise1.",
        symbol=r"source noise $\sigma_1$",
        domain=FINITE,
        synonym="noise1",
    ),
    Option(
        "sigma2",
        "grid",
        "0",
        "The noise on the target's labels as linear networks call it; the same as --noise2.",
        symbol=r"target noise $\sigma_2$",
        domain=FINITE,
        synonym="noise2",
    ),
    Option(
        "ridge",
        "grid",
        "0",
        "Ridge on the readout in fine-tuning (of the loss of --reduction, by default the mean).",
        symbol=r"ridge $\lambda_2$",
        domain=FINITE,
        words=("best",),
    ),
    Option(
        "source_labels",
        "choice",
        "sign",
        "linear-classify: labels of the source, signs (classes) or real numbers.",
        choices=("sign", "real"),
    ),
    Option(
        "flips1",
        "grid",
        "0",
        "Share of the source's labels that become another class at random.",
        symbol=r"source flips $f_1$",
        domain=SHARE,
    ),
    Option(
        "flips2",
        "grid",
        "0",
        "Share of the target's labels that become another class at random.",
        symbol=r"target flips $f_2$",
        domain=SHARE,
    ),
    Option(
        "loss",
        "text",
        None,
        f"Loss that is minimised: {', '.join(LOSSES)} of linear readouts (default: logistic); of networks (both "
        f"stages) {one_of(network_losses())} (default: mse; of more than two classes softmax).",
        column="loss_function",
    ),
    Option(
        "weight_decay",
        "grid",
        "0",
        "Weight decay on the source (of the mean loss).",
        symbol=r"weight decay $\lambda_1$",
        domain=FINITE,
    ),
    Option(
        "weight_decay2",
        "grid",
        "0",
        "Weight decay on the target (of the mean loss, unless --reduction sum); linear-joint and network-rich.",
        symbol=r"target weight decay $\lambda_2$",
        domain=FINITE,
        late=True,
    ),
    Option(
        "init_scale",
        "grid",
        "1",
        "Scale kappa of the initial weights; 0 is the ultra-rich limit.",
        symbol=r"init scale $\kappa$",
        domain=FINITE,
        unsaid=True,
    ),
    Option(
        "kernel",
        "choice",
        "feature",
        "Which kernel of the pre-trained network is frozen.",
        choices=("feature", "ntk"),
    ),
    Option(
        "t1",
        "grid",
        "inf",
        "Duration of pre-training, in units of the mean loss (networks: 100 unless given; with --until at most 1e4).",
        symbol=r"pre-training time $t_1$",
        domain=NOT_NEGATIVE,
        lasts=1,
    ),
    Option(
        "t2",
        "grid",
        "inf",
        "Duration of the target stage (networks: as t1; inf is the regression of network-frozen).",
        symbol=r"time $t_2$",
        domain=NOT_NEGATIVE,
        late=True,
        lasts=2,
    ),
    Option(
        "times",
        "grid",
        None,
        "Recorded times of the last stage (a list or grid); replaces its duration (dmft-solve: times of both stages).",
        symbol=r"time $t$",
        domain=NOT_NEGATIVE,
    ),
    Option(
        "c_signal",
        "expression",
        None,
        "Ansatz: signal spike c1, a number or an expression in gamma0, alpha1.",
        symbol=r"signal $c_1$",
    ),
    Option(
        "c_cross",
        "expression",
        "0",
        "Ansatz: crosstalk c3, a number or an expression in gamma0, alpha1.",
        symbol=r"crosstalk $c_3$",
    ),
    Option(
        "c_noise",
        "expression",
        "0",
        "Ansatz: noise spike c2, a number or an expression in gamma0, alpha1.",
        symbol=r"noise $c_2$",
    ),
    Option("bulk", "grid", "1", "Ansatz: bulk k of the kernel; 0 is ultra-rich.", symbol=r"bulk $k$", domain=FINITE),
]

_STRUCTURED = [
    Option(
        "p1",
        "grid",
        "200",
        "Number of source samples (networks: 100, or all of a file, unless given).",
        symbol=r"source samples $P_1$",
        domain=COUNT,
        instead="alpha1",
    ),
    Option(
        "p2",
        "grid",
        "100",
        "Number of target samples (networks: 50, or all of a file, unless given).",
        symbol=r"target samples $P_2$",
        domain=COUNT,
        instead="alpha2",
    ),
    Option(
        "spectrum",
        "text",
        "power",
        "Input spectrum: power, digits, or file:PATH (NPZ with eigenvalues, teacher1, teacher2).",
        panel="Structured inputs",
        files=True,
    ),
    Option(
        "dim",
        "integer",
        None,
        "Input dimension D (default: 400; population experiment 100, network 40; polynomial tasks 20).",
        symbol="$D$",
        domain=COUNT_FINITE,
        panel="Inputs and experiment",
    ),
    Option(
        "spectrum_exponent",
        "grid",
        "1.2",
        "Exponent a of the eigenvalues, lambda_k ~ k^-a.",
        symbol=r"spectrum exponent $a$",
        domain=FINITE,
        panel="Structured inputs",
    ),
    Option(
        "teacher_exponent",
        "grid",
        "0.5",
        "Exponent c of the teacher's coefficients, k^-c.",
        symbol=r"teacher exponent $c$",
        domain=Domain(finite=True),
        panel="Structured inputs",
    ),
    Option(
        "source",
        "text",
        None,
        "Source task: linear, hermite:K, he1+0.5*he3, sign:TASK, argmax:C, digits:3v8, digits:0-4, "
        "cifar10:cat-dog, file:PATH.",
        panel="Tasks",
        files=True,
    ),
    Option(
        "target",
        "text",
        None,
        "Target task on inputs of the same kind, written like the source.",
        panel="Tasks",
        files=True,
    ),
    Option(
        "modes",
        "integer",
        None,
        "Keep that many leading principal components of the digits (default: all 64).",
        domain=Domain(1, 64, whole=True),
        panel="Structured inputs",
        counted=True,
    ),
    Option(
        "reduction",
        "choice",
        "mean",
        "Whether times, ridge and weight decay belong to the mean or the summed loss (sum = P x mean).",
        choices=("mean", "sum"),
        panel="Model",
    ),
]

_TWO_TIME = [
    Option(
        "steps",
        "integer",
        None,
        "Steps of the time grid (default: what the fastest mode needs, 200 to 1000).",
        domain=Domain(2, 20_000, whole=True),
        panel="Two-time DMFT",
        counted=True,
    ),
    Option(
        "correlations",
        "flag",
        False,
        "Keep correlations of the target's error with signal and noise, and with several --times at two of them "
        "(linear-exact, linear-ansatz: correlations.npz).",
        panel="Outputs",
    ),
]

_EXPERIMENT = [
    Option("simulate", "flag", False, "Run the finite-size experiment beside the theory.", panel="Experiment"),
    Option(
        "experiment",
        "text",
        None,
        "Which: regression, classification, population, network, posterior, or a list of them.",
        panel="Experiment",
    ),
    Option(
        "trials",
        "integer",
        8,
        "Independent draws of data and weights per point (linear solvers).",
        domain=Domain(2, 1e6, whole=True),
        panel="Experiment",
        counted=True,
    ),
    Option(
        "nets",
        "integer",
        8,
        "Independent networks per width and draw of the data (network solvers).",
        domain=Domain(2, 1e6, whole=True),
        panel="Experiment",
        counted=True,
    ),
    Option(
        "width",
        "grid",
        "512,1024",
        "Widths N of the network experiment; two or more are extrapolated in 1/N.",
        symbol=r"width $N$",
        domain=Domain(2, 1e12, whole=True, finite=True),
        panel="Experiment",
    ),
]

_SOLVER = Option(
    "solver",
    "choice",
    "linear-exact",
    "The theory to evaluate (default with --model network: network-frozen).",
    choices=SOLVERS,
    panel="Model",
)

_FIGURE = [
    Option("x", "text", None, "Horizontal axis: a parameter, or parameter=GRID.", panel="Figure"),
    Option("y", "text", None, "Vertical axis of a map: a parameter, or parameter=GRID.", panel="Figure"),
    Option(
        "style",
        "text",
        "auto",
        "auto (a map when two axes have several values), map or curves, a FILE.mplstyle, or both as map,FILE.mplstyle.",
        panel="Figure",
    ),
    Option("quantity", "text", None, "Column to draw (default: loss; maps: gain, classes gain_error).", panel="Figure"),
    Option(
        "optimal_gamma0",
        "flag",
        None,
        "Add the best gamma0 at every point (default: when gamma0 is an axis of a map).",
        panel="Figure",
    ),
    Option(
        "optimal_delta",
        "flag",
        None,
        "Add the best delta at every point (default: when delta is an axis); of tasks the best of the grid's.",
        panel="Figure",
    ),
    Option(
        "format",
        "text",
        "png",
        "png, pdf, svg or html (to zoom, point and slide); several as png,html.",
        panel="Figure",
        metavar="FORMAT",
    ),
    Option("size", "text", None, "Width and height of a figure in inches, as 3.4x2.6.", panel="Figure", metavar="WxH"),
    Option("dpi", "number", None, "Pixels per inch of PNGs (default: 160).", domain=Domain(10, 2400), panel="Figure"),
    Option("xlim", "numbers", None, "Range of the horizontal axis, as 0,1.5.", panel="Figure", metavar="LOW,HIGH"),
    Option("ylim", "numbers", None, "Range of the vertical axis.", panel="Figure", metavar="LOW,HIGH"),
    Option("log_x", "flag", None, "Make the horizontal axis logarithmic (default: as the values ask).", panel="Figure"),
    Option("log_y", "flag", None, "Make the vertical axis logarithmic (default: as the values ask).", panel="Figure"),
    Option("title", "text", None, "Title of the figure.", panel="Figure"),
]

_RUN = [
    Option(
        "output",
        "text",
        None,
        "Output folder (default: results/NAME); - sends the CSV to stdout and writes no file.",
        panel="Run",
        metavar="DIR",
    ),
    Option(
        "seed",
        "integer",
        0,
        "Seed of the experiments; every point derives its own.",
        domain=Domain(0, whole=True, finite=True),
        panel="Run",
    ),
    Option("jobs", "integer", 1, "Worker processes for experiments and networks.", domain=PROCESSES, panel="Run"),
    Option("executor", "text", "local", "local, dask:ADDRESS or mpi.", panel="Run"),
    Option(
        "shard",
        "text",
        None,
        "Compute only share i of n (i/n) of the experiments and networks into the store.",
        panel="Run",
        metavar="I/N",
    ),
    Option(
        "store",
        "text",
        None,
        "Folder of the point stores (default: the output folder).",
        panel="Run",
        metavar="DIR",
    ),
    Option("force", "flag", False, "Replace another result, and stored points once all are new.", panel="Run"),
    Option("dry_run", "flag", False, "Say what would be computed, at what cost, or refused; and stop.", panel="Run"),
    Option(
        "allow_code",
        "flag",
        False,
        "Let a recipe name Python code of your own to run (activation: module:function).",
        panel="Run",
    ),
    Option("quiet", "flag", False, "No progress and no messages but errors.", panel="Run"),
    Option("strict", "flag", False, "Exit with 3 where a row missed the accuracy (status inaccurate).", panel="Run"),
]

_TABLE = [
    Option(
        "columns",
        "text",
        None,
        "Columns that are written, as loss,gain, beside what tells the rows apart and their status (default: all).",
        panel="Outputs",
        metavar="NAMES",
    ),
    Option("tidy", "flag", None, "Write no column that is constant in a whole table of several rows.", panel="Outputs"),
]

_LINEAR = (*_MODEL, *CLASSIFY, *_STRUCTURED, *_TWO_TIME)
OPTIONS: dict[str, Option] = {
    o.name: o for o in (_SOLVER, *_LINEAR, *NETWORK, *BAYES, *_EXPERIMENT, *_FIGURE, *_TABLE, *_RUN)
}

# How a figure looks, whatever it shows.
DRAWN = ("style", "quantity", "format", "title", "size", "dpi", "xlim", "ylim", "log_x", "log_y")

# What of a table is written: figures, the answer and stored points know all of it.
WRITTEN = ("columns", "tidy")

# Settings of one invocation, not of the result: neither a recipe's hash nor a figure holds them.
INVOCATION = ("output", "jobs", "executor", "shard", "store", "force", "dry_run", "quiet", "strict", "allow_code")
