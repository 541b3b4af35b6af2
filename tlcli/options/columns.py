"""The computed columns of tables, and the words that stand on axes, legends and colour bars."""

from collections.abc import Container
from dataclasses import dataclass

from tlcli.options import OPTIONS


@dataclass(frozen=True)
class Column:
    """A computed column of a table: what it is, and how an axis or colour bar calls it."""

    name: str
    label: str
    help: str


COLUMNS: dict[str, Column] = {
    c.name: c
    for c in (
        Column(
            "loss",
            r"target test loss $\mathcal{L}$",
            "Mean squared test error on the target, noiseless labels.",
        ),
        Column(
            "baseline",
            r"baseline loss $\mathcal{L}_0$",
            "The same without pre-training (linear-classify: the error without it).",
        ),
        Column(
            "gain",
            r"gain $\mathcal{L}_0-\mathcal{L}$",
            "Baseline minus loss (bayes-whitened: train loss; linear-classify: error); negative: pre-training hurts.",
        ),
        Column(
            "relative_gain",
            r"relative gain $1-\mathcal{L}/\mathcal{L}_0$",
            "Gain over baseline.",
        ),
        Column(
            "train_loss",
            r"target train loss $\hat{\mathcal{L}}$",
            "Mean squared error on the noisy training labels of the target (linear-classify: mean of its loss there).",
        ),
        Column("baseline_error", "baseline error", "The same without pre-training."),
        Column(
            "gain_error", "gain in error", "Baseline error minus error; negative: pre-training costs correct answers."
        ),
        Column(
            "loss_calibrated",
            "calibrated loss",
            "Test loss of the outputs times the best factor, found on one half of the test points for the other.",
        ),
        Column("baseline_calibrated", "calibrated baseline", "The same without pre-training."),
        Column("gain_calibrated", "gain in calibrated loss", "Calibrated baseline minus calibrated loss."),
        Column("temperature", "temperature", "One over the factor that calibrates the target's outputs."),
        Column("margin", "least train margin", "Least margin of the target's training points; negative: not all fit."),
        Column("train_error", "target train error", "Share of the target's training points that are misclassified."),
        Column("source_error", "source test error", "Share of the source's test points that are misclassified."),
        Column("source_train_error", "source train error", "The same of the source's training points."),
        Column("best_loss", r"least loss $\mathcal{L}(t_*)$", "The target's test loss at that time."),
        Column(
            "overfitting",
            r"overfitting $\mathcal{L}(t_2)-\mathcal{L}(t_*)$",
            "What the loss at the end of stage 2 is above its least; paired over draws of the data.",
        ),
        Column("phase", "phase", "positive, neutral, negative or collapsed."),
        Column(
            "overlap",
            r"overlap $\beta_1\cdot\beta^*_1$",
            "Overlap of the pre-trained predictor with its teacher.",
        ),
        Column("norm2", r"norm$^2$ $|\beta_1|^2$", "Squared norm of the pre-trained predictor."),
        Column("bulk", r"bulk $k$", "Isotropic part of the kernel."),
        Column("spike", r"spike $\chi$", "Strength of the kernel's spike along the predictor."),
        Column("n_signal", r"spike direction $n_1$", "Overlap of the spike's direction with the source teacher."),
        Column("n_noise", r"spike direction $n_2$", "Overlap of the spike's direction with the noise."),
        Column("c_signal", r"signal $c_1$", "Signal part of the spike, chi n1^2."),
        Column("c_cross", r"crosstalk $c_3$", "Crosstalk of the spike, chi n1 n2."),
        Column("c_noise", r"noise $c_2$", "Noise part of the spike, chi n2^2."),
        Column("c_signal_value", r"signal $c_1$", "Value of the expression for c_signal."),
        Column("c_cross_value", r"crosstalk $c_3$", "Value of the expression for c_cross."),
        Column("c_noise_value", r"noise $c_2$", "Value of the expression for c_noise."),
        Column("source_loss", r"source test loss $\mathcal{L}_1$", "Mean squared test error on the source."),
        Column(
            "source_loss_before", r"source test loss $\mathcal{L}_1$ after stage 1", "The same before the target stage."
        ),
        Column("forgetting", r"forgetting $\Delta\mathcal{L}_1$", "Source loss after the target stage minus before."),
        Column("norm2_end", r"norm$^2$ after stage 2", "Squared norm of the predictor at the end."),
        Column("kappa1", r"$\kappa_1$", "Effective regularisation of the source stage."),
        Column("kappa2", r"$\kappa_2$", "Effective regularisation of the target stage."),
        Column("gamma0_opt", r"best $\gamma_0$", "The richness with the least loss, everything else equal."),
        Column("loss_opt", r"loss at the best $\gamma_0$", "The loss there."),
        Column("delta_opt", r"best $\delta$", "The coupling with the least loss, everything else equal."),
        Column("train_loss_opt", r"train loss at the best $\delta$", "bayes-whitened: the train loss there."),
        Column(
            "delta_low", r"least good $\delta$", "Least delta whose loss is within two standard errors of the best."
        ),
        Column("delta_high", r"largest good $\delta$", "Largest delta whose loss is within two standard errors of it."),
        Column(
            "source_overlap",
            r"source overlap $\hat y_1^\top\bar\Phi\hat y_1$",
            "Source kernel between the unit label vectors of the source.",
        ),
        Column(
            "target_overlap",
            r"target overlap $\hat y_2^\top\Phi\hat y_2$",
            "Target kernel between the unit label vectors of the target.",
        ),
        Column(
            "cross_overlap",
            r"cross overlap $\hat y_1^\top\Phi\hat y_2$",
            "Target kernel between the unit label vectors of source and target.",
        ),
        Column(
            "retained_overlap",
            r"retained overlap $\hat y_1^\top\Phi\hat y_1$",
            "Target kernel between the unit label vectors of the source.",
        ),
        Column("perpendicular", r"$\Phi$ elsewhere", "Whitened data: target kernel in all other directions."),
        Column("source_free_energy", r"free energy $F_1$", "Of the source, -log Z per hidden neuron (nats)."),
        Column("free_energy", r"free energy $F_2$", "Of the target given the source, -log Z per hidden neuron (nats)."),
        Column(
            "evidence_gain",
            r"evidence gain $F_2(\delta=0)-F_2$",
            "Free energy of the target alone minus that of the target (nats per neuron); positive: the source helps.",
        ),
        Column("gap", "primal-dual gap", "Certified distance from the saddle point, nats per neuron."),
        Column("gap_floor", "floor of the gap", "What the gap of an exact saddle point would be: its noise."),
        Column("spread_v", "spread of $v$", "Sampling: relative difference of v between its two starts, worst stage."),
        Column(
            "spread_kernel",
            r"spread of $\Phi$",
            "Sampling: relative difference of the kernel between its two starts, worst stage.",
        ),
        Column("round_trips", "round trips", "Sampling: round trips per chain between the lobes, worst stage."),
        Column("ess", "effective states", "Sampling: effective number of states of one start, worst stage."),
        Column("spectral_loss", r"spectral test loss", "The same loss from the Marchenko-Pastur integral."),
        Column("response", r"response $R_v(t)$", "Response of the error to a kick at time zero."),
        Column(
            "error",
            r"classification error",
            "Share of wrong classes on the target, clean labels; a tie of k counts 1 - 1/k.",
        ),
        Column(
            "noisy_error", r"error on noisy labels", "Share of wrong classes on target labels with noise and flips."
        ),
        Column("log_loss", r"test log-loss", "Mean of log(1 + exp(-y f)) on fresh target points with noisy labels."),
        Column("square_loss", r"square test loss", "Mean of (y - f)^2 on fresh target points with noisy labels."),
        *(
            Column(f"{name}_{what}", f"{label} {words}", text)
            for name, label in (("noisy", "noisy error"), ("log_loss", "log-loss"), ("square_loss", "square loss"))
            for what, words, text in (
                ("baseline", "without pre-training", f"The {label} without pre-training."),
                ("gain", "gain", f"The {label} without pre-training minus that with it."),
            )
        ),
        Column("train_error", r"train error", "Share of wrong classes among the training points."),
        Column("margin", r"margin $1/|\theta|$", "Maximum margin: the least distance of a training point from it."),
        Column(
            "readout_overlap", r"readout $m=\beta\cdot\beta^*_2$", "Overlap of the readout's predictor and teacher."
        ),
        Column("readout_norm2", r"readout $q=|\beta|^2$", "Squared norm of the readout's predictor."),
        Column("spike_alignment", r"spike alignment $r$", "Overlap of the spike's direction with the target teacher."),
        Column(
            "separability",
            r"$\alpha_c$",
            "Largest alpha2 at which noisy labels are separable; no kernel with all directions moves it.",
        ),
        Column("ridge_opt", r"best ridge $\lambda_2$", "The ridge of least error with pre-training."),
        Column("baseline_ridge_opt", r"best ridge, baseline", "The ridge of least error without pre-training."),
        Column("error_opt", r"error at the best $\gamma_0$", "The error there."),
        Column("task", "task", "Index of the teacher whose loss is given, from 1."),
        Column("stage", "stage", "Index of the training stage, from 1."),
        Column("residual", "residual", "How far the solver's equations are from being satisfied."),
        Column("status", "status", "converged, collapsed, diverged, inseparable, inaccurate, not_converged or failed."),
        Column("time", r"time $t$", "Recorded time, from the start of its stage."),
        Column(
            "source_train_loss",
            r"source train loss $\hat{\mathcal{L}}_1$",
            "Mean squared error on the noisy training labels of the source.",
        ),
        *(
            Column(
                f"{name}_alignment",
                f"alignment with {words} {symbol}",
                f"Alignment of the feature kernel with the {words}, y'Ky/(|y|^2 |K|).",
            )
            for name, words, symbol in (
                ("source", "source labels", "$A_1$"),
                ("target", "target labels", "$A_2$"),
                ("test", "target labels of test points", r"$A_2^{\mathrm{test}}$"),
            )
        ),
        Column(
            "predictor_distance",
            "distance from the adaptive-kernel predictor",
            "Root-mean-square distance from K(x,X)[K + P lambda]^-1 y at the end of a stage with weight decay.",
        ),
        Column(
            "time_error",
            "error of the integration",
            "Error of the test losses by the integration in time (deep networks: and the truncation of the basis), "
            "relative to losses above the labels' mean square.",
        ),
    )
}

# Numbers of sampled networks: their standard errors, and their spread over draws of the data, are columns too.
SAMPLED = (
    "loss",
    "baseline",
    "gain",
    "train_loss",
    "source_loss",
    "source_train_loss",
    "source_alignment",
    "target_alignment",
    "test_alignment",
)
# Columns of networks whose loss is named, in the order of their table.
CLASSIFIED = (
    *("loss", "baseline", "gain", "error", "baseline_error", "gain_error"),
    *("loss_calibrated", "baseline_calibrated", "gain_calibrated", "train_loss", "train_error", "margin"),
    *("source_loss", "source_error", "source_train_loss", "source_train_error"),
    *("source_alignment", "target_alignment", "test_alignment"),
)
# Those of them that need classes, too.
OF_CLASSES = (*CLASSIFIED[3:9], "train_error", "source_error", "source_train_error")
OVERLAPS = ("source_overlap", "target_overlap", "cross_overlap", "retained_overlap")
SPREAD = ("loss", "baseline", "gain", "source_loss")
SPREAD_CLASSIFIED = (*SPREAD, *CLASSIFIED[3:9], "source_error")
DIFFERENCES = ("gain", "gain_error", "gain_calibrated")
# Means over test points, with an error by their finite number, too; of differences a paired one.
TESTED = (*CLASSIFIED[:9], "source_loss", "source_error")
BEST_TIME, BEST_LOSS, OVERFITTING = "best_time", "best_loss", "overfitting"  # of early stopping
# What a column is without pre-training.
BASELINES = {"loss": "baseline", "error": "baseline_error", "loss_calibrated": "baseline_calibrated"}
COLUMNS |= {
    f"{name}_se": Column(
        f"{name}_se", f"error of {COLUMNS[name].label}", f"Standard error of {name} from the sampled neurons."
    )
    for name in dict.fromkeys((*SAMPLED, *CLASSIFIED, *OVERLAPS, BEST_LOSS, OVERFITTING))
}
COLUMNS |= {
    f"{name}_draw_se": Column(
        f"{name}_draw_se",
        f"error over draws of {COLUMNS[name].label}",
        f"Standard error of {name} over draws of the data.",
    )
    for name in (*SPREAD_CLASSIFIED, BEST_LOSS, OVERFITTING)
}
COLUMNS |= {
    f"{name}_test_se": Column(
        f"{name}_test_se",
        f"error by test points of {COLUMNS[name].label}",
        f"Standard error of {name} from the finite number of test points"
        + (", paired: both networks see the same ones." if name in DIFFERENCES else ".")
        + (" Paired: both times see the same ones." if name == OVERFITTING else ""),
    )
    for name in (*TESTED, BEST_LOSS, OVERFITTING)
}
COLUMNS |= {
    f"{name}_{part}_se": Column(
        f"{name}_{part}_se", f"error from {words} of {COLUMNS[name].label}", f"Part of {name}_se: {words}."
    )
    for name in ("loss", "baseline", "gain", "error", "baseline_error", "gain_error")
    for part, words in (("pool", "the pool of target points"), ("neuron", "the sampled neurons"))
}
COLUMNS |= {
    f"{name}_source_se": Column(
        f"{name}_source_se",
        f"error of the {name} from the source",
        f"Part of {name}_draw_se: the draws of the source, on common pools and neurons.",
    )
    for name in ("loss", "baseline", "gain", "error", "baseline_error", "gain_error")
}
COLUMNS |= {
    column.name: column
    for where, name, words in (
        ("best_time", "loss", "loss"),
        ("baseline_best_time", "baseline", "loss without pre-training"),
        ("best_time", "error", "error"),
        ("baseline_best_time", "baseline_error", "error without pre-training"),
    )
    for column in (
        Column(
            where,
            where.replace("_", " ") + (" $t_*$" if where == "best_time" else ""),
            "The recorded times' best one; of averages over samples between them, by a parabola in log t.",
        ),
        Column(f"{where}_se", f"error of the {where.replace('_', ' ')}", "Standard error, a jackknife over draws."),
        Column(f"{name}_stopped", f"{words}, stopped", f"The averaged {words} at its best time."),
    )
}
COLUMNS["gamma0_opt_se"] = Column(
    "gamma0_opt_se", r"error of the best $\gamma_0$", "Standard error of the best richness, a jackknife over draws."
)
COLUMNS["direct"] = Column("direct", "direct average", "1 where the mean is one over subsets of the pool, else 0.")


_STAGED = {
    "alpha": r"\alpha",
    "gamma": r"\gamma",
    "duration": "t",
    "sigma": r"\sigma",
    "weight_decay": r"\lambda",
}


def errors_of(name: str, columns: Container[str], same_points: bool = False) -> tuple[str, ...]:
    """Return the columns that make up the standard error of a column, in quadrature; none where there is none.

    That is the spread over draws of the data, which holds all others, or the errors by the sampled neurons and by the
    test points; without the latter where what is compared sees the `same_points`.
    """
    if f"{name}_draw_se" in columns:
        return (f"{name}_draw_se",)
    endings = ("_se",) if same_points else ("_se", "_test_se")
    return tuple(f"{name}{ending}" for ending in endings if f"{name}{ending}" in columns)


def judged(columns: Container[str]) -> str:
    """Return the column that baseline and gain of a table belong to: the loss, else the error, else the train loss."""
    return next((name for name in ("loss", "error") if name in columns), "train_loss")


def stage_of(name: str) -> tuple[str, int] | None:
    """Return field and number of the stage of a curriculum that a parameter belongs to, None where it is no such."""
    field, _, number = name.rpartition("_")
    return (field, int(number)) if field in _STAGED and number.isdigit() else None


def label_of(name: str) -> str:
    """Return the text that names a column or parameter on an axis."""
    if name == "time":
        return OPTIONS["times"].symbol
    staged = stage_of(name)
    if staged:
        return f"${_STAGED[staged[0]]}_{{{staged[1]}}}$"
    if name in OPTIONS and OPTIONS[name].symbol:
        return OPTIONS[name].symbol
    return COLUMNS[name].label if name in COLUMNS else name


def short_symbol(name: str) -> str:
    """Return the bare symbol of a parameter, for legends and facet titles."""
    text = label_of(name)
    inner = text[text.find("$") + 1 : text.rfind("$")] if text.count("$") >= 2 else ""
    return f"${inner.split('=')[0]}$" if inner else name
