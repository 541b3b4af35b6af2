"""What a transfer is: its data, its network, its training, and its points in reduced coordinates."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tlcli.dmft.activations import Activation
from tlcli.dmft.geometry import reduce_inputs
from tlcli.dmft.observe import Watch
from tlcli.dmft.regression import force_scale
from tlcli.dmft.two_layer import READOUTS, Stage
from tlcli.errors import UsageError, check_choice

Array = NDArray[np.float64]

_MOST_ALIGNED = 200  # test points in the alignment
_MOST_KEPT = 300  # test points in the kernels that are kept


class Data(Protocol):
    """Inputs and labels of a transfer, see `tlcli.tasks.transfer.TransferData`."""

    @property
    def x_source(self) -> Array:
        """Inputs (P1, D)."""
        ...

    @property
    def y_source(self) -> Array:
        """Labels (P1,)."""
        ...

    @property
    def x_target(self) -> Array:
        """Inputs (P2, D)."""
        ...

    @property
    def y_target(self) -> Array:
        """Labels (P2,)."""
        ...

    @property
    def x_test(self) -> Array:
        """Inputs (n, D)."""
        ...

    @property
    def y_test_source(self) -> Array:
        """Labels (n,), NaN where there is none."""
        ...

    @property
    def y_test_target(self) -> Array:
        """Labels (n,), NaN where there is none."""
        ...


@dataclass(frozen=True)
class TransferSettings:
    """The network and its training.

    `times1`, `times2` are the recorded times from the start of each stage, ascending, the last one its duration;
    empty `times2`: pre-training only. `weight_decay`, `weight_decay2`, `ridge` and the times belong to the loss of
    `reduction`. `target`: rich trains both layers on the target; frozen only a readout, by regression with the
    kernel that pre-training left (`kernel`), from zero output and with `ridge`. gamma2 None means gamma0; gamma2 = 0 is
    the same regression with the ridge weight_decay2.
    """

    activation: str = "tanh"
    gamma0: float = 1.0
    gamma2: float | None = None
    weight_decay: float = 0.0
    weight_decay2: float = 0.0
    times1: tuple[float, ...] = (100.0,)
    times2: tuple[float, ...] = (100.0,)
    readout: str = "carry"
    target: str = "rich"
    kernel: str = "feature"
    ridge: float = 0.0
    reduction: str = "mean"
    baseline: bool = True

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("readout", self.readout, READOUTS),
            ("target", self.target, ("rich", "frozen")),
            ("kernel", self.kernel, ("feature", "ntk")),
            ("reduction", self.reduction, ("mean", "sum")),
        ):
            check_choice(name, value, allowed)
        for name, number in (("gamma0", self.gamma0), ("gamma2", self.second_gamma)):
            if not (0 <= number < math.inf):
                raise UsageError(f"{name} = {number:g} must be a finite number from 0 for a network.")
        for name, times in (("times1", self.times1), ("times2", self.times2)):
            if any(not late >= early for early, late in itertools.pairwise((0.0, *times))):
                shown = ", ".join(f"{t:g}" for t in times)
                raise UsageError(f"{name} = {shown} must be ascending numbers from 0.")
        if self.gamma0 == 0 and self.weight_decay > 0 and self.times2:
            raise UsageError(
                f"gamma0 = 0 with weight_decay = {self.weight_decay:g}: a lazy network's features only decay; use a "
                "positive gamma0 or no weight decay on the source."
            )
        ends = [self.times1[-1] if self.times1 else math.nan]
        if self.times2 and not self.regresses:
            ends.append(self.times2[-1])
        if not all(math.isfinite(end) for end in ends):
            raise UsageError("a network is trained for a finite time; give --t1 and --t2, or --times.")

    @property
    def second_gamma(self) -> float:
        """The richness of the target stage."""
        return self.gamma0 if self.gamma2 is None else self.gamma2

    @property
    def regresses(self) -> bool:
        """Whether the target stage is kernel regression."""
        return self.target == "frozen" or self.second_gamma == 0


@dataclass(eq=False)
class Setup:
    """The points of a transfer in one array: source training, target training, test."""

    data: Data
    settings: TransferSettings
    act: Activation
    x: Array
    source: NDArray[np.int_] = field(init=False)
    target: NDArray[np.int_] = field(init=False)
    test: NDArray[np.int_] = field(init=False)

    def __post_init__(self) -> None:
        p1, p2 = len(self.data.y_source), len(self.data.y_target)
        self.source, self.target = np.arange(p1), np.arange(p1, p1 + p2)
        self.test = np.arange(p1 + p2, len(self.x))
        self.geometry = reduce_inputs(self.x, p1 + p2)

    @property
    def trained(self) -> NDArray[np.int_]:
        """Indices of all training points, the source's first."""
        return np.concatenate([self.source, self.target])

    def stage(self, which: int, readout: str = "carry") -> Stage:
        """Return stage 1 (source) or 2 (target)."""
        s = self.settings
        rows, labels = (self.source, self.data.y_source) if which == 1 else (self.target, self.data.y_target)
        gamma, decay, times = (
            (s.gamma0, s.weight_decay, s.times1) if which == 1 else (s.second_gamma, s.weight_decay2, s.times2)
        )
        return Stage(rows, labels, gamma, np.asarray(times), force_scale(s.reduction, len(rows)), decay, readout)

    def watch(self, moments: Sequence[frozenset[int]], whole: bool) -> Watch:
        """Return the observer of alignments at all records and of kernels at `moments`; `whole`: at every point."""
        labelled = self.test[np.isfinite(self.data.y_test_target)][:_MOST_ALIGNED]
        groups = {
            "source": (self.source, self.data.y_source),
            "target": (self.target, self.data.y_target),
            "test": (labelled, self.data.y_test_target[labelled - self.test[0]] if len(self.test) else np.zeros(0)),
        }
        groups = {name: g for name, g in groups.items() if len(g[0]) and np.any(g[1] != 0)}
        points = np.arange(len(self.x)) if whole else np.concatenate([self.trained, self.test[:_MOST_KEPT]])
        return Watch(groups, points, self.trained, self.target, moments)
