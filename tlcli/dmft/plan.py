"""How a problem is solved: kind, size and number of populations, what corrects them, and how they are integrated.

Every choice depends on gamma times the labels, never on either alone: labels c y at gamma are labels y at c gamma.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from tlcli.dmft.integrate import INTEGRATORS, Control
from tlcli.dmft.lazy import initial_kernels
from tlcli.dmft.loss_regression import learned
from tlcli.dmft.population import KINDS, MAX_QUADRATURE_RANK, quadrature
from tlcli.dmft.regression import FrozenKernel
from tlcli.dmft.two_layer import Problem, centred
from tlcli.errors import UsageError, check_choice, digits

_SMALL = 0.4  # richness times rms label, below which f(0) of unpaired neurons matters
_RICH = 1.6  # from here on the field moves fast
# How far preactivations move in lazy training, for which the control variate still lowers the error of a loss
# (`python -m benchmarks.populations`): where samples compete for directions, and where there are more directions.
_NEAR, _NEAR_ALONE = 0.35, 1.0
_LAZY = 0.1  # richness of a network that is lazy at any time
_MOST_LOOKED_AT = 1000  # samples, beyond which the kernel is too costly for such a question
_SOBOL_RANK = 16  # up to here Sobol points are 1.3 to 3 times as sharp
_STREAMED_ACCURACY = 5e-3  # from here on a frozen-field correction is cheaper than coupled neurons
# Neurons of a population of pairs or of several outputs from which the correction is used: it takes as much time there,
# but a third of the memory and less.
_MANY = 20_000
_MOST_NEURONS = 4_000_000
_FINEST = 1e-9  # tolerance of rkc


@dataclass(frozen=True)
class Numerics:
    """What the user may set; None leaves the choice to `plan`.

    `accuracy` is the standard error wanted for losses of order one. `tolerance` is that of the integrator, `dt` the
    learning rate of euler; `until` the relative speed that counts as rest. `seed` and `draw` fix the neurons. For deep
    networks only: `basis_tolerance`, the part of a direction that counts as known, and the integrator richardson.
    """

    population: str = "auto"
    neurons: int | None = None
    repeats: int | None = None
    accuracy: float = 1e-2
    integrator: str = "rkc"
    tolerance: float | None = None
    dt: float | None = None
    until: float | None = None
    seed: int = 0
    draw: int = 0
    device: str = "cpu"
    basis_tolerance: float | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("population", self.population, ("auto", *KINDS)),
            ("integrator", self.integrator, (*INTEGRATORS, "richardson")),
            ("device", self.device, ("cpu", "cuda")),
        ):
            check_choice(name, value, allowed)
        if self.neurons is not None and self.neurons > _MOST_NEURONS:
            raise UsageError(
                f"neurons = {digits(self.neurons)} are more than the {_MOST_NEURONS:g} of one population that are "
                "allowed; use fewer and more --repeats."
            )


@dataclass(frozen=True)
class Plan:
    """How a problem is solved: kind, size and number of populations, and what corrects them.

    `neurons` per population in the coupled run; `streamed` neurons per population through the frozen field (0: none);
    `lazy` whether the lazy control variate is added; `iterations` of the frozen-field correction.
    """

    kind: str
    neurons: int
    repeats: int
    pairs: bool
    whiten: bool
    lazy: bool
    streamed: int
    dtype: str
    control: Control
    iterations: int = 1


def plan(problem: Problem, numerics: Numerics, coupled: int = 0) -> Plan:
    """Choose the population, its size and the corrections (docs/references.md, Choice of the population).

    `coupled`: kernels are what is wanted, so the neurons themselves must be many, and this number at least, not those
    of a correction of f; 0 where f is wanted.

    Raises:
        UsageError: a quadrature of rank > 3, or a request that no population can meet.
    """
    act, rank = problem.act, problem.geometry.rank
    rich, least = (choose(stage.richness for stage in problem.stages) for choose in (max, min))
    exact, kind = act.kind == "linear", _kind(problem, numerics)
    movement = math.inf if exact or kind == "quadrature" else feature_movement(problem)
    alone = rank >= sum(len(stage.rows) for stage in problem.stages)
    lazy = movement <= (_NEAR_ALONE if alone else _NEAR) or (rich <= _LAZY and movement < math.inf)
    # Without pairs f(0) is of order 1/(gamma sqrt(S)), and a small gamma starts from noise.
    # Of classes, f(0) must not be ranked.
    ranked = any(stage.objective is not None and stage.objective.loss.labels != "real" for stage in problem.stages)
    pairs = lazy or least <= _SMALL or exact or kind == "sobol" or ranked
    # Few repeats do not know their own spread: eight widen an error by a fifth, four by two thirds.
    repeats = numerics.repeats or (1 if kind == "quadrature" else 2 if exact else 8)
    plain = not pairs and all(stage.readouts is None for stage in problem.stages)
    many = (0.6 / numerics.accuracy) ** 2 / repeats > _MANY and kind == "mc" and least > _SMALL
    streams = not coupled and (plain or many) and _streams(problem, numerics)
    neurons, streamed = _size(
        problem, numerics.accuracy, kind, repeats, movement if lazy else None, pairs, streams, coupled
    )
    if numerics.neurons is not None:
        neurons, streamed = numerics.neurons, 0
    if neurons + streamed > _MOST_NEURONS:
        raise UsageError(
            f"accuracy = {numerics.accuracy:g} needs {repeats * (neurons + streamed):.2g} neurons here, the cost grows "
            f"as 1/accuracy^2; use at least {0.6 / math.sqrt(_MOST_NEURONS * repeats):.1g} or give --neurons."
        )
    tolerance, scaled = _tolerance(problem, numerics, kind, rich), numerics.tolerance is None
    control = Control(numerics.integrator, tolerance, numerics.dt, numerics.until, scaled=scaled)
    _check_integrator(problem, numerics)
    # Rounding in single precision is above a tolerance of 1e-6: every step would be rejected.
    tight = control.method != "euler" and control.of_stage(least).tolerance < 1e-6
    double = exact or kind == "quadrature" or numerics.integrator == "dop853" or few_coordinates(problem) or tight
    dtype = "float64" if double else "float32"
    whiten = pairs and kind != "quadrature"
    iterations = 2 if rich >= _RICH else 1
    return Plan(kind, neurons, repeats, pairs, whiten, lazy, streamed, dtype, control, iterations)


def few_coordinates(problem: Problem) -> bool:
    """Whether few coordinates of a neuron are random: Sobol points then converge fast."""
    return problem.geometry.rank + problem.geometry.still.shape[1] <= 3


def _kind(problem: Problem, numerics: Numerics) -> str:
    """Return the kind of the populations. Raises UsageError: a quadrature of more than 4 coordinates."""
    act, rank, kind = problem.act, problem.geometry.rank, numerics.population
    if kind == "auto":
        few = rank <= _SOBOL_RANK and (numerics.accuracy > _STREAMED_ACCURACY or not act.lipschitz)
        kind = "sobol" if few_coordinates(problem) or few or (act.kind == "linear" and rank <= 1000) else "mc"
    readouts = problem.stages[0].readouts
    if kind == "quadrature" and rank + (readouts or 1) > MAX_QUADRATURE_RANK + 1:
        quadrature(act, rank, 1, readouts=readouts)  # refuses
    return kind


def _size(
    problem: Problem,
    error: float,
    kind: str,
    repeats: int,
    movement: float | None,
    pairs: bool,
    streams: bool,
    coupled: int,
) -> tuple[int, int]:
    """Return the neurons of a population in the coupled run, and those through the frozen field.

    `streams`: whether there may be any of these; `movement`: how far preactivations move where the lazy control variate
    is added, else None.
    """
    act, rank, streamed = problem.act, problem.geometry.rank, 0
    exact = act.kind == "linear"
    # A neuron with several readouts has as many coordinates more.
    width = max(stage.readouts or 1 for stage in problem.stages)
    if exact:
        neurons = max(64, 4 * (rank + problem.geometry.still.shape[1] + 1 + width))
    elif kind == "quadrature":
        neurons = 4096 * 8 ** (rank + (problem.stages[0].readouts or 1) - 2)
    elif kind == "sobol" and few_coordinates(problem):
        neurons = 1024 if error >= 2e-3 else 4096 if error >= 3e-4 else 16384
    elif movement is not None:
        neurons = max(512, math.ceil((0.6 * min(1.0, 2 * movement) / error) ** 2 / repeats))
    elif not streams:
        neurons = max(512, math.ceil((0.6 / error) ** 2 / repeats))
    else:
        streamed = math.ceil((0.6 / error) ** 2 / repeats)
        # The small population only models the response, but once: at 1/16 what it leaves is below the noise.
        neurons = max(1024, math.ceil(streamed / 16))
        if streamed <= neurons:
            streamed = 0
    return max(neurons, coupled, 4 * rank if pairs and not exact else 0), streamed  # enough to match moments


def _streams(problem: Problem, numerics: Numerics) -> bool:
    """Whether a correction by neurons in a frozen field is cheaper than coupled neurons, and is one.

    The field is a smooth function of time for all of a stage: none of minibatches, of momentum, or of a stage that ends
    where a loss is reached; and all readouts are there from the start of a stage, what softmax leaves out is not.
    """
    stages = problem.stages
    if numerics.accuracy > _STREAMED_ACCURACY or not problem.act.lipschitz:
        return False
    if any(stage.batches is not None or stage.momentum for stage in stages):
        return False
    if numerics.until is not None and not all(stage.rests for stage in stages):
        return False
    carried = [(a, b) for a, b in itertools.pairwise(stages) if b.readout != "reset"]
    return all((a.readouts, centred(a)) == (b.readouts, centred(b)) for a, b in carried)


def _check_integrator(problem: Problem, numerics: Numerics) -> None:
    act = problem.act
    if numerics.integrator == "richardson":
        raise UsageError("integrator: richardson is for deep networks (--depth 2 or more); use rkc for gradient flow.")
    if numerics.basis_tolerance is not None:
        raise UsageError(
            f"basis_tolerance = {numerics.basis_tolerance:g} is for deep networks (--depth 2 or more); leave it out."
        )
    if numerics.integrator == "dop853" and not act.smooth:
        raise UsageError(
            f"integrator: dop853 needs a smooth activation, and {act.name} has kinks, which would stop it; use rkc."
        )
    if numerics.integrator == "dop853" and numerics.device != "cpu":
        raise UsageError(f"integrator: dop853 runs on the CPU only, not on {numerics.device}; use rkc.")
    if numerics.tolerance is not None and numerics.tolerance < _FINEST and numerics.integrator == "rkc":
        other = (
            "use --integrator dop853" if act.smooth else f"{act.name} has kinks, from which 1e-5 gains nothing any more"
        )
        raise UsageError(
            f"tolerance = {numerics.tolerance:g}: rkc, of second order, would take minutes and more below {_FINEST:g}; "
            f"{other}, or use {_FINEST:g} or more."
        )
    if numerics.dt is not None and numerics.integrator != "euler":
        raise UsageError(
            f"dt = {numerics.dt:g} is the learning rate of --integrator euler; {numerics.integrator} has none."
        )
    shortest = min((float(s.times[-1]) for s in problem.stages if s.times[-1] > 0), default=math.inf)
    if numerics.dt is not None and numerics.dt > shortest:
        raise UsageError(f"dt = {numerics.dt:g} is longer than a stage, which lasts {shortest:g}; use a smaller --dt.")


def feature_movement(problem: Problem) -> float:
    """Return how far preactivations move in lazy training, the rms over neurons and samples in the stage of most.

    With I = int s Delta dt of training with the exact kernel at initialisation, h_mu moves by gamma a sum_nu K_mu,nu
    phi'_nu I_nu. It depends on gamma times the labels only, and infinity is the answer for too many samples to ask.
    """
    found, g = 0.0, problem.geometry
    for stage in problem.stages:
        if len(stage.rows) > _MOST_LOOKED_AT:
            return math.inf
        x = np.concatenate([g.moving, g.still], axis=1)[stage.rows]
        overlap = x @ x.T
        phi, slopes = initial_kernels(problem.act, x * math.sqrt(x.shape[1]), x * math.sqrt(x.shape[1]))
        frozen = FrozenKernel(phi + overlap * slopes)
        if stage.objective is not None:
            total = learned(frozen, stage.objective, float(stage.times[-1]), stage.scale)
        else:
            reduction = "mean" if stage.scale < 1 else "sum"
            weights = frozen.weights(time=stage.times[-1], reduction=reduction)[0]
            total = frozen.eigenvectors @ (weights * (stage.labels @ frozen.eigenvectors))
        outer = np.outer(total, total) if total.ndim == 1 else total @ total.T
        square = np.einsum("mi,ij,mj->m", overlap, slopes * outer, overlap, optimize=True)
        found = max(found, stage.gamma * math.sqrt(max(float(np.mean(square)), 0.0)))
    return found


def _tolerance(problem: Problem, numerics: Numerics, kind: str, rich: float) -> float:
    if numerics.tolerance is not None:
        return numerics.tolerance
    if numerics.integrator == "dop853":
        return 1e-9 if kind == "quadrature" else 1e-7
    if problem.act.kind == "linear":
        return 1e-6
    if not problem.act.smooth:
        return 3e-3  # kinks: below, single neurons flip branches and nothing is gained (section B)
    base = 3e-4 if rich < _RICH else 1e-4
    return min(base, numerics.accuracy / (8 if rich < _RICH else 20))
