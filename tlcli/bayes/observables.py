"""What a Bayesian transfer is asked: losses, alignments, overlaps and free energies of three saddle points."""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcli.bayes.saddle import Floats, Rows, Saddle
from tlcli.dmft.regression import kernel_alignment
from tlcli.dmft.settings import Data

_MOST_ALIGNED = 200  # test points in the alignment, as in `tlcli.dmft.settings`

# The columns of a transfer, in the order of tables, and which stages must be solved for each to be known.
SOURCE, TARGET, ALONE = "source", "target", "baseline"
NEEDS: dict[str, tuple[str, ...]] = {
    "loss": (TARGET,),
    "baseline": (ALONE,),
    "gain": (TARGET, ALONE),
    "train_loss": (TARGET,),
    "source_loss": (SOURCE,),
    "source_train_loss": (SOURCE,),
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


@dataclass(frozen=True, eq=False)
class Problem:
    """The points of a transfer: inputs x (n, D), rows and labels of both stages, rows of the test points."""

    x: Floats
    rows1: Rows
    rows2: Rows
    test: Rows
    y1: Floats
    y2: Floats
    key: bytes

    @classmethod
    def of(cls, data: Data) -> "Problem":
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


def values_of(data: Data, problem: Problem, saddles: dict[str, Saddle | None]) -> dict[str, float]:
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
        labelled = np.flatnonzero(np.isfinite(data.y_test_target))[:_MOST_ALIGNED]
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


def _mean_square(outputs: Floats, labels: NDArray[Any]) -> float:
    known = np.isfinite(labels)
    return float(np.mean((outputs[known] - labels[known]) ** 2)) if known.any() else math.nan


def _alignment(kernel: Floats, labels: Floats) -> float:
    return kernel_alignment(kernel, labels) if labels.size and np.any(labels) and np.any(kernel) else math.nan


def residual_of(saddle: Saddle, y: Floats, rows: Rows, beta: float) -> float:
    """Return |y - v/β - f|/|y| on the training points of a stage, 0 for labels that are all zero."""
    norm = float(np.linalg.norm(y))
    return float(np.linalg.norm(y - saddle.v / beta - saddle.outputs[rows])) / norm if norm > 0 else 0.0


def errors_of(saddles: dict[str, Saddle | None], values: dict[str, float]) -> dict[str, float]:
    """Bounds of the losses' errors in the population route, see `solve_bayes`; that of the gain adds them."""
    out: dict[str, float] = {}
    for name, stage in (("loss", TARGET), ("baseline", ALONE), ("source_loss", SOURCE)):
        saddle = saddles[stage]
        spread = math.nan if saddle is None else float(saddle.info.get("spread_v", math.nan))
        size = math.nan if saddle is None else float(np.sqrt(np.mean(saddle.outputs**2)))
        out[f"{name}_se"] = 2 * math.sqrt(max(values[name], 0.0)) * size * spread / 2
    same = saddles[TARGET] is saddles[ALONE]
    out["gain_se"] = 0.0 if same else math.hypot(out["loss_se"], out["baseline_se"])
    return out
