"""What a Bayesian transfer is asked: losses, alignments, overlaps and free energies of three saddle points."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Array, Floats, Indices
from tlcli.bayes.saddle import Saddle
from tlcli.dmft.regression import kernel_alignment
from tlcli.dmft.settings import Data

MOST_ALIGNED = 200  # test points in the alignment, as in `tlcli.dmft.settings`

# The columns of a transfer, in the order of tables, and which stages must be solved for each to be known.
SOURCE, TARGET, ALONE = "source", "target", "baseline"
OF_KERNELS: dict[str, tuple[str, ...]] = {
    "source_alignment": (SOURCE,),
    "target_alignment": (TARGET,),
    "test_alignment": (TARGET,),
    "source_overlap": (SOURCE,),
    "target_overlap": (TARGET,),
    "cross_overlap": (TARGET,),
    "retained_overlap": (TARGET,),
    "source_free_energy": (SOURCE,),
    "free_energy": (TARGET,),
    "evidence_gain": (TARGET, ALONE),
}
NEEDS: dict[str, tuple[str, ...]] = {
    "loss": (TARGET,),
    "baseline": (ALONE,),
    "gain": (TARGET, ALONE),
    "train_loss": (TARGET,),
    "source_loss": (SOURCE,),
    "source_train_loss": (SOURCE,),
    **OF_KERNELS,
}
# What the two starts of sampling have to say besides gap and gap_floor.
CERTIFICATE = ("spread_v", "spread_kernel", "round_trips", "ess")


@dataclass(frozen=True, eq=False)
class BayesProblem:
    """The points of a transfer: inputs x (n, D), rows and labels of both stages, rows of the test points."""

    x: Floats
    rows1: Indices
    rows2: Indices
    test: Indices
    y1: Floats
    y2: Floats
    key: bytes

    @classmethod
    def of(cls, data: Data) -> "BayesProblem":
        """Stack the points of `data`; `key` identifies inputs and training labels."""
        x = np.concatenate([data.x_source, data.x_target, data.x_test]).astype(float)
        y1, y2 = np.asarray(data.y_source, dtype=float), np.asarray(data.y_target, dtype=float)
        n1, n2 = len(y1), len(y2)
        digest = hashlib.sha256(repr((n1, n2, x.shape)).encode())
        for array in (x, y1, y2):
            digest.update(np.ascontiguousarray(array).tobytes())
        ends = np.arange(n1), np.arange(n1, n1 + n2), np.arange(n1 + n2, len(x))
        return cls(x, *ends, y1, y2, digest.digest())

    @property
    def rank(self) -> int:
        """Number of dimensions that the training inputs of both tasks span."""
        return int(np.linalg.matrix_rank(self.x[: len(self.y1) + len(self.y2)]))

    @property
    def outside(self) -> int:
        """Number of points with a part outside that span."""
        trained = self.x[: len(self.y1) + len(self.y2)]
        _, size, right = np.linalg.svd(trained, full_matrices=False)
        basis = right[size > 1e-10 * size.max(initial=0.0)]
        rest = self.x - (self.x @ basis.T) @ basis
        return int(np.sum(np.linalg.norm(rest, axis=1) > 1e-10 * np.linalg.norm(self.x, axis=1)))


def values_of(data: Data, problem: BayesProblem, saddles: dict[str, Saddle | None]) -> dict[str, float]:
    """All columns, NaN where the saddle is missing."""
    out = dict.fromkeys(NEEDS, math.nan)
    source, target, alone = saddles[SOURCE], saddles[TARGET], saddles[ALONE]
    p, unit1, unit2 = problem, _unit(problem.y1), _unit(problem.y2)
    if source is not None:
        out["source_loss"] = _mean_square(source.outputs[p.test], data.y_test_source)
        out["source_train_loss"] = _mean_square(source.outputs[p.rows1], p.y1)
        block = source.kernel[np.ix_(p.rows1, p.rows1)]
        out["source_alignment"] = _alignment(block, p.y1)
        out["source_overlap"] = float(unit1 @ block @ unit1)
        out["source_free_energy"] = source.free_energy
    if target is not None:
        out["loss"] = _mean_square(target.outputs[p.test], data.y_test_target)
        out["train_loss"] = _mean_square(target.outputs[p.rows2], p.y2)
        block = target.kernel[np.ix_(p.rows2, p.rows2)]
        out["target_alignment"] = _alignment(block, p.y2)
        out["target_overlap"] = float(unit2 @ block @ unit2)
        out["cross_overlap"] = float(unit1 @ target.kernel[np.ix_(p.rows1, p.rows2)] @ unit2)
        out["retained_overlap"] = float(unit1 @ target.kernel[np.ix_(p.rows1, p.rows1)] @ unit1)
        labelled = np.flatnonzero(np.isfinite(data.y_test_target))[:MOST_ALIGNED]
        at = p.test[labelled]
        out["test_alignment"] = _alignment(target.kernel[np.ix_(at, at)], data.y_test_target[labelled])
        out["free_energy"] = target.free_energy
    if alone is not None:
        out["baseline"] = _mean_square(alone.outputs[p.test], data.y_test_target)
    if target is not None and alone is not None:
        out["gain"] = out["baseline"] - out["loss"]
        out["evidence_gain"] = alone.free_energy - target.free_energy
    return out


def _unit(y: Floats) -> Floats:
    norm = float(np.linalg.norm(y))
    return y / norm if norm > 0 else y


def _mean_square(outputs: Floats, labels: Array) -> float:
    known = np.isfinite(labels)
    return float(np.mean((outputs[known] - labels[known]) ** 2)) if known.any() else math.nan


def _alignment(kernel: Floats, labels: Floats) -> float:
    return kernel_alignment(kernel, labels) if labels.size and np.any(labels) and np.any(kernel) else math.nan


def errors_of(saddles: dict[str, Saddle | None], values: dict[str, float]) -> dict[str, float]:
    """Bounds of the errors of losses and overlaps of the sampling route (see `solve_bayes`); the gain's adds two.

    NaN where a stage is missing; zero for a stage that is not sampled (a lazy network).
    """
    out: dict[str, float] = {}
    for name, stage in (("loss", TARGET), ("baseline", ALONE), ("source_loss", SOURCE)):
        saddle = saddles[stage]
        size = math.nan if saddle is None else float(np.sqrt(np.mean(saddle.outputs**2)))
        part = prediction_error(saddle)
        out[f"{name}_se"] = 2 * math.sqrt(max(values[name], 0.0)) * size * part
    same = saddles[TARGET] is saddles[ALONE]
    out["gain_se"] = 0.0 if same else math.hypot(out["loss_se"], out["baseline_se"])
    for name, stage in (("train_loss", TARGET), ("source_train_loss", SOURCE)):  # |v|²/(Pβ²)
        out[f"{name}_se"] = 2 * values[name] * relative_error(saddles[stage], "error_v")
    return out | overlap_errors(saddles, values)


def overlap_errors(saddles: Mapping[str, Saddle | None], values: Mapping[str, float]) -> dict[str, float]:
    """Bounds of the errors of the overlaps of the sampling route; NaN where a stage is missing."""
    out: dict[str, float] = {}
    # An overlap of two label vectors may be zero where its error is not: the scale is that of their own overlaps.
    cross = math.sqrt(max(values["target_overlap"] * values["retained_overlap"], 0.0))
    for name, stage, size in (
        ("source_overlap", SOURCE, values["source_overlap"]),
        ("target_overlap", TARGET, values["target_overlap"]),
        ("cross_overlap", TARGET, cross),
        ("retained_overlap", TARGET, values["retained_overlap"]),
    ):
        out[f"{name}_se"] = size * relative_error(saddles[stage], "error_kernel")
    return out


def prediction_error(saddle: Saddle | None) -> float:
    """Return a bound of |Δf|/|f| on test points, of f = K(·, train)v; NaN for no saddle."""
    return math.hypot(relative_error(saddle, "error_v"), relative_error(saddle, "error_kernel"))


def relative_error(saddle: Saddle | None, name: str) -> float:
    """Return a relative error of the two starts (`sampling.certificate.spreads`)."""
    if saddle is None:
        return math.nan
    exact = saddle.gap == 0 and saddle.gap_floor == 0
    return float(saddle.info.get(name, 0.0 if exact else math.nan))


def certificate_of(saddles: dict[str, Saddle | None]) -> dict[str, float]:
    """Return the columns `CERTIFICATE` of a transfer: each the worst of its stages, NaN where none was sampled.

    spread_v and spread_kernel are the relative differences of v and of the kernel between the two starts, round_trips
    the mean number of them per chain (sources and targets alone), ess the effective number of states of one start.
    """
    found: dict[str, list[float]] = {name: [] for name in CERTIFICATE}
    for saddle in saddles.values():
        info = {} if saddle is None else saddle.info
        for name in ("spread_v", "spread_kernel"):
            found[name] += [float(info[name])] if name in info else []
        found["round_trips"] += [float(n) for n in info.get("round_trips", ())]
        found["ess"] += [float(n) for n in info.get("ess", ())]
        # Each of the two starts of a target has half of the source neurons.
        found["ess"] += [float(n) * info["source_neurons"] / 2 for n in info.get("ess_per_neuron", ())]
    worst = {name: max if name.startswith("spread") else min for name in CERTIFICATE}
    return {name: worst[name](values) if values else math.nan for name, values in found.items()}
