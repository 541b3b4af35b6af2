"""A stage of training, and what a network shows while it lasts: outputs and observations at its records."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from tlcli.arrays import Floats, Indices
from tlcli.batches import Batches
from tlcli.dmft.integrate import Outcome, Step
from tlcli.losses.objective import Objective


@dataclass(frozen=True, eq=False)
class Stage:
    """One stage of training.

    `rows` (P,) index the points it trains on, `labels` (P,); `gamma` > 0; `times` (n_time,) ascending records from
    the start of the stage, the last its duration; `scale` s = 1/P (mean loss) or 1 (summed); `decay` lambda of that
    loss. `readout`: carry, carry-centred (the output minus what it was at the start) or reset (redrawn). `objective` is
    the loss, None the squared error of one output; then `labels` are what it trains on and f has its coordinates.
    `batches` and `momentum` are those of stochastic gradient descent.
    """

    rows: Indices
    labels: Floats
    gamma: float
    times: Floats
    scale: float
    decay: float = 0.0
    readout: str = "carry"
    objective: Objective | None = None
    batches: Batches | None = None
    momentum: float = 0.0

    def sampled(self, dt: float | None) -> Callable[[float], Floats] | None:
        """Return the weights (P,) of the points at the step of length `dt` from a time; None where all are trained."""
        batches = self.batches
        if batches is None or dt is None:
            return None
        return lambda t: batches.weights(round(t / dt))

    @property
    def readouts(self) -> int | None:
        """The number of readout coordinates, None for a single output."""
        return None if self.objective is None else self.objective.readouts

    def shape(self, n_points: int) -> tuple[int, ...]:
        """Return the shape of the outputs at so many points."""
        return (n_points,) if self.readouts is None else (n_points, self.readouts)

    @property
    def rests(self) -> bool:
        """Whether training comes to rest: separable data of a loss without a minimum never do."""
        loss = None if self.objective is None else self.objective.loss
        return loss is None or self.decay > 0 or (loss.bounded and not loss.flat)

    @property
    def richness(self) -> float:
        """gamma times the rms label: labels c y at gamma are labels y at c gamma, so nothing else may be compared."""
        if self.objective is not None:
            return self.gamma * self.objective.size
        return self.gamma * (float(np.sqrt(np.mean(self.labels**2))) or 1.0)


@dataclass(eq=False)
class StageRun:
    """A stage as one population saw it.

    `f` (n_time, n_point) or with an axis of readout coordinates, NaN after a break; `observed` name -> one value per
    record; `path` the times and residuals Delta of the accepted steps; `outcome` how it ended. Where the readout has
    been redrawn `observed` holds "old_outputs", what the source's readout makes of the features that the target moves.
    """

    f: Floats
    observed: dict[str, list[Any]]
    path: list[tuple[float, Floats]]
    outcome: Outcome
    evaluations: int
    steps: int = 0
    states: dict[str, Any] = field(default_factory=dict)
    note: str = ""


def unreached(stage: Stage, n_points: int, outcome: Outcome) -> StageRun:
    """Return a stage after one that broke off with `outcome`."""
    return StageRun(np.full((len(stage.times), *stage.shape(n_points)), np.nan), {}, [], outcome, 0)


@runtime_checkable
class Remembering(Protocol):
    """An observer that compares the records of one network."""

    def begin(self) -> Callable[[int, int, float, Any], Mapping[str, Any]]:
        """Return one that has seen nothing yet."""
        ...


def begun(observe: Any) -> Any:
    """Return an observer as it is of a network that it has not seen yet; None where there is none."""
    return observe.begin() if isinstance(observe, Remembering) else observe


@dataclass(eq=False)
class Recorder(ABC):
    """Keeps the outputs f (n_time, n_point) of a stage, or with an axis of readout coordinates, and what is observed.

    `observe(index, record, time, view)` is called at every record.
    """

    index: int
    stage: Stage
    n_points: int
    observe: Callable[[int, int, float, Any], Mapping[str, Any]] | None

    def __post_init__(self) -> None:
        self.f = np.full((len(self.stage.times), *self.stage.shape(self.n_points)), np.nan)
        self.observed: dict[str, list[Any]] = {}
        self.next = 0

    @abstractmethod
    def look(self, t: float, z: Any) -> tuple[Floats, dict[str, Any]]:
        """Return the outputs (n_point,) or (n_point, K) of the state z at a time t, and what else is kept."""

    def observed_by(self, t: float, view: Callable[[], Any]) -> Mapping[str, Any]:
        """Return what the observer, if there is one, says of a view at this record."""
        return {} if self.observe is None else self.observe(self.index, self.next, t, view())

    def on_step(self, step: Step) -> None:
        """Keep the records within a step."""
        self.record(step.t1, step.at)

    def record(self, until: float, at: Callable[[float], Any]) -> None:
        """Keep the records up to a time, of the states `at` them."""
        while self.next < len(self.stage.times) and self.stage.times[self.next] <= until:
            t = float(self.stage.times[self.next])
            self._keep(t, at(t))

    def finish(self, outcome: Outcome) -> None:
        """Nothing moves any more: later records are the state at rest."""
        while self.next < len(self.stage.times):
            self._keep(outcome.time, outcome.state)

    def _keep(self, t: float, z: Any) -> None:
        self.f[self.next], seen = self.look(t, z)
        for name, value in seen.items():
            self.observed.setdefault(name, []).append(value)
        self.next += 1


def ended(stages: Sequence[Stage], found: Sequence[Sequence[StageRun]], until: float | None) -> tuple[bool, list[str]]:
    """Return whether all stages that can rest did so, and a note where another one's time was over before `until`.

    What has no minimum ends at the time it is given, and its numbers are those of then (general losses, section 5).
    """
    early = [stage for k, stage in enumerate(stages) if not all(runs[k].outcome.settled for runs in found)]
    note = f"a stage's time was over before its mean training loss came to --until {until:g}" if until else ""
    return not any(stage.rests for stage in early), [note] if until and not all(stage.rests for stage in early) else []
