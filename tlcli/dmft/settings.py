"""What a transfer is: its data, its network, its training, and its points in reduced coordinates."""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tlcli.dmft.activations import Activation
from tlcli.dmft.deep.lazy import InitialKernels, initial_deep_kernels
from tlcli.dmft.deep.observe import DeepWatch
from tlcli.dmft.deep.run import Surgery
from tlcli.dmft.geometry import reduce_inputs
from tlcli.dmft.observe import Watch
from tlcli.dmft.regression import force_scale, kernel_alignment
from tlcli.dmft.two_layer import READOUTS, Stage
from tlcli.errors import UsageError, check_choice, digits

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
    the same regression with the ridge weight_decay2. `depth` is the number of hidden layers; `freeze`, `reinit_from`
    and `ablate` are those of `tlcli.dmft.deep.run.Surgery`, between the stages. `layers` asks for what every layer does
    of a network with one hidden layer too.
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
    depth: int = 1
    freeze: int = 0
    reinit_from: int | None = None
    ablate: str = "none"
    layers: bool = False

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
        if self.depth < 1:
            raise UsageError(f"depth = {self.depth} must be a whole number from 1, the number of hidden layers.")
        self.surgery.check(self.depth)
        if self.surgery != Surgery() and (self.regresses or self.gamma0 == 0 or not self.times2):
            raise UsageError(
                "freeze, reinit_from and ablate change a network between two stages that both train it; use positive "
                "gamma0 and gamma2, and no frozen target."
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
    def surgery(self) -> Surgery:
        """What happens to a deep network between the stages."""
        return Surgery(self.freeze, self.reinit_from, self.ablate)

    @property
    def deep(self) -> bool:
        """Whether the solver of deep networks is asked."""
        return self.depth > 1 or self.surgery != Surgery()

    @property
    def regresses(self) -> bool:
        """Whether the target stage is kernel regression."""
        return self.target == "frozen" or self.second_gamma == 0


def check_steps(settings: TransferSettings, dt: float) -> None:
    """Refuse recorded times, and ends of stages, that lie between the steps `dt` of gradient descent.

    Raises:
        UsageError: with the first such time and its neighbours on the grid of steps.
    """
    trained = [settings.times1] if settings.gamma0 > 0 else []
    if not settings.regresses:
        trained.append(settings.times2)
    for t in itertools.chain(*trained):
        steps = t / dt
        if math.isfinite(steps) and abs(steps - round(steps)) > 1e-9 * max(1.0, steps):
            low, high = (digits(float(f"{k * dt:.12g}")) for k in (math.floor(steps), math.ceil(steps)))
            raise UsageError(
                f"time = {digits(t)} lies between two steps of gradient descent with dt = {digits(dt)}; the nearest "
                f"times that it has are {low} and {high} (--times, --t1, --t2), or use a dt that divides it."
            )


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

    def watch(self, moments: Sequence[frozenset[int]], whole: bool) -> Watch | DeepWatch:
        """Return the observer of alignments at all records and of kernels at `moments`; `whole`: at every point."""
        points = np.arange(len(self.x)) if whole else self.kept
        if self.settings.deep:
            return DeepWatch(self.groups, points, self.trained, self.target, moments)
        origin = self.initial.phi[-1][self.trained] if self.settings.layers else None
        return Watch(self.groups, points, self.trained, self.target, moments, origin)

    @property
    def kept(self) -> NDArray[np.int_]:
        """The points whose kernels are written: all that are trained on, and the first test points."""
        return np.concatenate([self.trained, self.test[:_MOST_KEPT]])

    @functools.cached_property
    def groups(self) -> dict[str, tuple[NDArray[np.int_], Array]]:
        """Points and labels whose alignment with the kernel is taken."""
        labelled = self.test[np.isfinite(self.data.y_test_target)][:_MOST_ALIGNED]
        groups = {
            "source": (self.source, self.data.y_source),
            "target": (self.target, self.data.y_target),
            "test": (labelled, self.data.y_test_target[labelled - self.test[0]] if len(self.test) else np.zeros(0)),
        }
        return {name: g for name, g in groups.items() if len(g[0]) and np.any(g[1] != 0)}

    @functools.cached_property
    def initial(self) -> InitialKernels:
        """The exact kernels at initialisation, all points x training points."""
        return initial_deep_kernels(self.act, self.x, self.x[self.trained], self.settings.depth)

    @functools.cached_property
    def start_alignments(self) -> dict[str, float]:
        """The alignments of the exact kernels at initialisation, and that nothing has moved."""
        depth, out = self.settings.depth, {}
        for name, (points, labels) in self.groups.items():
            found = initial_deep_kernels(self.act, self.x[points], self.x[points], depth).phi
            values = [kernel_alignment(phi, labels) for phi in found]
            out[f"{name}_alignment"] = values[-1]
            out |= {f"layer{layer}_{name}_alignment": value for layer, value in enumerate(values, 1)}
        return out | {f"layer{layer}_movement": 0.0 for layer in range(1, depth + 1)}
