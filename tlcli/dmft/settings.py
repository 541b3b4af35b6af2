"""What a transfer is: its data, and its points in reduced coordinates."""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tlcli.arrays import Floats, Indices
from tlcli.dmft.activations import Activation
from tlcli.dmft.deep.lazy import InitialKernels, initial_deep_kernels
from tlcli.dmft.deep.observe import DeepWatch
from tlcli.dmft.deep.responses import ResponseWatch
from tlcli.dmft.deep.two_time import DeepTwoTimeWatch
from tlcli.dmft.geometry import reduce_inputs
from tlcli.dmft.observe import Watch
from tlcli.dmft.regression import force_scale, kernel_alignment
from tlcli.dmft.stage import Stage
from tlcli.dmft.two_time_kernels import TwoTimeWatch
from tlcli.errors import UsageError, digits
from tlcli.training import TransferSettings

_MOST_ALIGNED = 200  # test points in the alignment
_MOST_KEPT = 300  # test points in the kernels that are kept


class Data(Protocol):
    """Inputs and labels of a transfer, see `tlcli.tasks.transfer_tasks.TransferData`."""

    @property
    def x_source(self) -> Floats:
        """Inputs (P1, D)."""
        ...

    @property
    def y_source(self) -> Floats:
        """Labels (P1,)."""
        ...

    @property
    def x_target(self) -> Floats:
        """Inputs (P2, D)."""
        ...

    @property
    def y_target(self) -> Floats:
        """Labels (P2,)."""
        ...

    @property
    def x_test(self) -> Floats:
        """Inputs (n, D)."""
        ...

    @property
    def y_test_source(self) -> Floats:
        """Labels (n,), NaN where there is none."""
        ...

    @property
    def y_test_target(self) -> Floats:
        """Labels (n,), NaN where there is none."""
        ...


MOST_STEPS = 1e10  # of one stage: more take days of the smallest network


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
        if steps > MOST_STEPS and math.isfinite(t):
            raise UsageError(
                f"dt = {digits(dt)} takes {steps:.2g} steps of gradient descent to t = {digits(t)}, and at most "
                f"{MOST_STEPS:g} are allowed; use a larger --dt or a shorter stage."
            )
        if math.isfinite(steps) and abs(steps - round(steps)) > 1e-9 * max(1.0, steps):
            low, high = (digits(float(f"{k * dt:.12g}")) for k in (math.floor(steps), math.ceil(steps)))
            raise UsageError(
                f"time = {digits(t)} lies between two steps of gradient descent with dt = {digits(dt)}; the nearest "
                f"times that it has are {low} and {high} (--times, --t1, --t2), or use a dt that divides it."
            )


def check_descent(settings: TransferSettings, integrator: str, dt: float | None, until: float | None) -> None:
    """Refuse minibatches and momentum without the steps that they are made of.

    Raises:
        UsageError: another integrator than euler, no step, or an end at rest, which a minibatch does not know.
    """
    if not settings.stochastic:
        return
    name = f"batch = {settings.batch}" if settings.batch is not None else f"momentum = {settings.momentum:g}"
    if integrator != "euler" or dt is None:
        raise UsageError(f"{name} is of gradient descent in steps; give --integrator euler and --dt, their length.")
    if until is not None:
        raise UsageError(f"{name}: steps of stochastic descent know no rest (--until {until:g}); give --t1 and --t2.")


@dataclass(frozen=True)
class Wanted:
    """What is asked for besides: what every layer does of a network with one hidden layer too; at the moments at which
    kernels are kept, kernels between two of them, response functions between two of them, kernels between test points.
    """

    layers: bool = False
    two_time: bool = False
    responses: bool = False
    test_kernels: bool = False


PLAIN = Wanted()


@dataclass(eq=False)
class Setup:
    """The points of a transfer in one array: source training, target training, test."""

    data: Data
    settings: TransferSettings
    act: Activation
    x: Floats
    wanted: Wanted = PLAIN
    source: Indices = field(init=False)
    target: Indices = field(init=False)
    test: Indices = field(init=False)

    def __post_init__(self) -> None:
        p1, p2 = len(self.data.y_source), len(self.data.y_target)
        self.source, self.target = np.arange(p1), np.arange(p1, p1 + p2)
        self.test = np.arange(p1 + p2, len(self.x))
        self.geometry = reduce_inputs(self.x, p1 + p2)

    @property
    def readouts(self) -> tuple[int | None, int | None]:
        """The number of readout coordinates of source and target, None for a single output."""
        return None, None

    @property
    def trained(self) -> Indices:
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

    def watch(self, moments: Sequence[frozenset[int]], whole: bool) -> Watch | DeepWatch | TwoTimeWatch:
        """Return the observer of alignments at all records and of kernels at `moments`; `whole`: at every point."""
        points = np.arange(len(self.x)) if whole else self.kept
        tested = self.tested if self.wanted.test_kernels else None
        if self.settings.deep:
            deep = DeepTwoTimeWatch if self.wanted.two_time else DeepWatch
            return deep(self.groups, points, self.trained, self.target, moments, tested=tested)
        origin = self.initial.phi[-1][self.trained] if self.wanted.layers else None
        found = Watch(self.groups, points, self.trained, self.target, moments, origin, tested=tested)
        return TwoTimeWatch(found) if self.wanted.two_time else found

    def responding(self, watch: DeepWatch) -> ResponseWatch:
        """Return the observer of the response functions at the moments of another one."""
        return ResponseWatch(self.trained, watch.moments, self.settings.readout)

    @property
    def tested(self) -> Indices:
        """The test points whose kernels are written, the first ones."""
        return self.test[:_MOST_KEPT]

    @property
    def kept(self) -> Indices:
        """The points whose kernels are written: all that are trained on, and the first test points."""
        return np.concatenate([self.trained, self.tested])

    @functools.cached_property
    def groups(self) -> dict[str, tuple[Indices, Floats]]:
        """Points and labels whose alignment with the kernel is taken."""
        labelled = self.test[np.isfinite(self.data.y_test_target)][:_MOST_ALIGNED]
        groups = {
            "source": (self.source, self.data.y_source),
            "target": (self.target, self.data.y_target),
            "test": (labelled, self.data.y_test_target[labelled - self.test[0]] if len(self.test) else np.zeros(0)),
        }
        return in_order(groups)

    @functools.cached_property
    def initial(self) -> InitialKernels:
        """The exact kernels at initialisation, all points x training points."""
        return initial_deep_kernels(self.act, self.x, self.x[self.trained], self.settings.depth)

    @functools.cached_property
    def tested_start(self) -> dict[str, Floats]:
        """The exact kernels at initialisation between the test points that are written, where they are wanted."""
        if not self.wanted.test_kernels:
            return {}
        found = initial_deep_kernels(self.act, self.x[self.tested], self.x[self.tested], self.settings.depth)
        out = {"phi_test_start": found.phi[-1], "g_test_start": found.g[-1]}
        if self.settings.deep:
            for layer, phi, g in zip(range(1, len(found.phi) + 1), found.phi, found.g, strict=True):
                out |= {f"phi_test_layer{layer}_start": phi, f"g_test_layer{layer}_start": g}
            out["ntk_test_start"] = found.ntk
        return out

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


def in_order(groups: dict[str, tuple[Indices, Floats]]) -> dict[str, tuple[Indices, Floats]]:
    """Return the groups that have an alignment, at most `_MOST_ALIGNED` test points among them."""
    groups = {name: (g[0][:_MOST_ALIGNED], g[1][:_MOST_ALIGNED]) if name == "test" else g for name, g in groups.items()}
    return {name: g for name, g in groups.items() if len(g[0]) and np.any(g[1] != 0)}
