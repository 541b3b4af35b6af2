"""The contract of a theory, of the experiment that tests it, and of what both have found.

A theory is asked for a grid of parameters (a `Case`). A `ClosedForm` answers with one function of arrays that
broadcast; a `PointByPoint` theory divides the grid into tasks, one for each point and draw of the data, whose records
the sweep computes, stores and hands back with the place that each belongs to. `docs/adding-a-theory.md` walks through
both; `tlcli.theories.registry` says which command offers which.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tlcli.arrays import Array, Floats
from tlcli.sweep.grids import Grid
from tlcli.sweep.runner import Placed, Task

Parameters = Mapping[str, Any]
Columns = dict[str, Array]


@dataclass(frozen=True, eq=False)
class Case:
    """One grid for one theory: `grid` holds the several-valued and single numbers, `words` the choices and texts."""

    label: str | None
    theory: "Theory"
    grid: Grid
    words: Mapping[str, Any]
    experiments: tuple["Experiment", ...] = ()

    def parameters(self) -> dict[str, Any]:
        """Return what a closed form takes: open arrays and words."""
        return {**self.grid.open(), **self.words}


@dataclass(eq=False)
class Findings:
    """What a theory has found on a case.

    `columns` broadcast to the grid's shape and the theory's inner axes. `arrays` of the first draw per point (None:
    not kept). `info` and `data` describe the first point and draw; `messages` say what broke off and where, `notes`
    what there is to tell besides, `reached` the largest standard error of a loss, relative to losses above 1, and
    `asked` the one that was wanted. `layers`
    per point what every layer of a deep network did. `draws` holds columns of every draw alone (n_draws, ...), and the
    errors that these share, where boundaries have errors.
    """

    columns: Columns
    arrays: list[dict[str, Array] | None] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reached: float = np.nan
    asked: float = np.nan
    layers: list[dict[str, Floats] | None] = field(default_factory=list)
    draws: Columns = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Theory(ABC):
    """What every theory is: the options that it takes, and what its table holds.

    `parameters` are option names in the order of the table's columns; `time` stands for the recorded times of the last
    stage. `hidden` are options that it takes besides, which are no columns; `defaults` replace those of the options, as
    a recipe would write them. `own` holds the values of parameters that are no options (the stages of a curriculum).
    `choices` narrow an option of words to those that the theory has, and name the words that a grid may be instead of
    numbers. `inner` are axes that columns have beyond those of the grid, last. `words` are choices that options imply.
    `quantity` is drawn unless another is asked for; `archive` names the NPZ file of its matrices. `experiments` are
    those that can test it, the first by default. `cheap`: evaluating the grid again costs next to nothing.
    """

    name: str
    parameters: tuple[str, ...]
    hidden: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    inner: Mapping[str, Array] = field(default_factory=dict)
    words: Mapping[str, Any] = field(default_factory=dict)
    quantity: str = "loss"
    archive: str = "arrays"
    experiments: tuple["Experiment", ...] = ()
    cheap: bool = False

    # Names of the store of its points, None where nothing is stored, and the version of the numbers in it.
    store: ClassVar[str | None] = None
    version: ClassVar[str] = "1"
    searchable: ClassVar[bool] = False  # its answer is known at any parameters, not only on the grid
    # It is drawn as if it were cheap: curves on a fine grid, maps with the best richness.
    smooth: ClassVar[bool] = False
    chosen: ClassVar[frozenset[str]] = frozenset()  # parameters of which it tells the best of the grid's itself

    # Options of experiments and searches that provenance names even where they have no part in the result.
    always_told: ClassVar[frozenset[str]] = frozenset({"solver", "trials", "dim"})
    # What is varied to measure an experiment's error, and how one asks for more of it.
    repeated: ClassVar[str] = "trials"

    def check(self, case: Case) -> None:  # noqa: B027 (a theory may have nothing to refuse)
        """Refuse what cannot be computed, before anything is. Raises UsageError or DomainError."""

    def refuse(self, given: Mapping[str, Any]) -> None:  # noqa: B027
        """Refuse options, as they are written, that have no effect on this theory. Raises UsageError."""

    def missing(self, name: str) -> Any:
        """Return what an option without default is, where it was not given. Raises UsageError where it must be."""
        return None

    def told(self) -> str:
        """Return what figures say is fixed besides parameters: nothing, unless a recipe gives more than these."""
        return ""

    def judge(self, case: Case, columns: Columns) -> None:  # noqa: B027
        """Refuse an answer that only a mistake can have asked for, as a single infinite one. Raises DomainError."""

    def tasks(self, case: Case, seed: int) -> Sequence[Task]:
        """Return what a sweep has to compute: nothing, unless the theory is `PointByPoint`."""
        return []

    def workers(self, tasks: Sequence[Task], jobs: int) -> tuple[int, str]:
        """Return how many of `jobs` processes may hold one of the tasks each at the same time, and why not all."""
        return jobs, ""

    def complete(self, case: Case, found: Findings, sweep: Callable[[], Sequence[Placed]]) -> Findings:
        """Return what is known after the sweep of `tasks`; `found` holds the columns that were known before."""
        return found

    @abstractmethod
    def columns(self, case: Case) -> Columns:
        """Return the columns as they are known before the work: a closed form's, or names without numbers (NaN)."""

    def arrays(self, case: Case, found: Findings) -> dict[str, Array] | None:
        """Return matrices that fit no table, for the NPZ file; None where there are none."""
        return None

    def archives(self, case: Case) -> dict[str, str]:
        """Return the names of files beside table and figures that a run may write, and their endings."""
        return {}

    def pictures(self, case: Case) -> set[str]:
        """Return the names of figures that a run may draw besides those of its quantities."""
        return set()

    @abstractmethod
    def boundaries(self, case: Case, axis: str, log: bool, gain: Floats, draws: Columns | None = None) -> Any:
        """Return where the gain changes sign along an axis, as `tlcli.theories.search.BoundaryPoints`, or None.

        `draws` are those of `Findings`, for an error of the place.
        """


@dataclass(frozen=True, eq=False)
class ClosedForm(Theory):
    """A theory that is one vectorised function of a whole grid. It is never stored.

    `cheap` theories are searched for the best richness unasked. `partial` says that `search` has no answer (NaN) where
    parameters are not admissible, `collapses` that features may not survive: see `margin`.
    """

    cheap: bool = True

    searchable: ClassVar[bool] = True
    partial: ClassVar[bool] = False
    collapses: ClassVar[bool] = False

    @abstractmethod
    def evaluate(self, p: Parameters) -> Columns:
        """Map arrays that broadcast (and words, for choices) to columns that broadcast with them.

        `status` and `residual` are among the columns. Raises DomainError for parameters outside the theory.
        """

    def search(self, p: Parameters) -> Columns:
        """Return the same for root finding, with NaN instead of an error where a point is not admissible."""
        return self.evaluate(p)

    def margin(self, p: Parameters) -> Floats:
        """Return what is positive where features survive weight decay and negative where they do not."""
        return np.ones(())

    def columns(self, case: Case) -> Columns:
        """Return the answer itself."""
        return self.evaluate(case.parameters())

    def boundaries(self, case: Case, axis: str, log: bool, gain: Floats, draws: Columns | None = None) -> Any:
        """Return the roots of the gain along the axis, by root finding on the function itself."""
        from tlcli.theories.search import boundaries

        return boundaries(case, axis, log, gain)


@dataclass(frozen=True, eq=False)
class PointByPoint(Theory):
    """A theory whose points cost seconds: they are tasks of a sweep, and stored.

    Raise `version` whenever the numbers of a record change.
    """

    store: ClassVar[str] = "theory"

    always_told: ClassVar[frozenset[str]] = frozenset()
    repeated: ClassVar[str] = "nets"

    @abstractmethod
    def tasks(self, case: Case, seed: int) -> Sequence[Task]:
        """Return a task per point of the grid and draw of the data, each with its place, in any order."""

    @abstractmethod
    def combine(self, case: Case, found: Sequence[Placed]) -> Findings:
        """Join the records of all tasks into columns. Raises UsageError where all failed for a reason of the user's."""

    def workers(self, tasks: Sequence[Task], jobs: int) -> tuple[int, str]:
        """Return how many of `jobs` processes may hold one of the tasks each at the same time, and why not all."""
        return jobs, ""

    def complete(self, case: Case, found: Findings, sweep: Callable[[], Sequence[Placed]]) -> Findings:
        """Return the records of the sweep, joined."""
        return self.combine(case, sweep())

    def estimate(self, case: Case, tasks: Sequence[Task], left: Sequence[Task], workers: int) -> list[str]:
        """Return lines for `--dry-run` on what the tasks that are left will cost."""
        return []

    def memory(self, tasks: Sequence[Task]) -> float:
        """Return the bytes that the largest of the tasks is known to need, 0 where its size is not known before."""
        return 0.0

    def arrays(self, case: Case, found: Findings) -> dict[str, Array] | None:
        """Return the arrays of all points: stacked to the grid's shape where all have one shape, else one by one."""
        if not any(found.arrays):
            return None
        out: dict[str, Any] = {}
        for name in dict.fromkeys(name for part in found.arrays for name in part or {}):
            parts = [(part or {}).get(name) for part in found.arrays]
            shapes = {None if array is None else array.shape for array in parts}
            if len(shapes) == 1:
                stacked = np.array(parts)
                out[name] = stacked.reshape((*case.grid.shape, *stacked.shape[1:]))
            else:
                out |= {f"{name}_point{i}": array for i, array in enumerate(parts) if array is not None}
        return out

    def archives(self, case: Case) -> dict[str, str]:
        """Return the arrays of points that are kept, and their predictions."""
        if case.words.get("layout") == "end":
            return {}
        return {self.archive: "npz", **({"predictions": "csv"} if case.words.get("predictions") else {})}

    def pictures(self, case: Case) -> set[str]:
        """Return what is drawn of the points that are kept."""
        return set() if case.words.get("layout") == "end" else {"kernels", "densities"}

    def boundaries(self, case: Case, axis: str, log: bool, gain: Floats, draws: Columns | None = None) -> Any:
        """Return where the gain is zero between two points of the grid."""
        from tlcli.theories.search import grid_boundaries

        return grid_boundaries(case, axis, log, gain)


class Experiment(ABC):
    """A finite-size experiment beside a theory: `NAME` and `NAME_se` of columns that the theory has too.

    `name` is what `--experiment` calls it, `store` and `version` say where its points are kept and which numbers they
    are.
    """

    name: str
    store: str = "experiments"
    version: str = "1"

    def check(self, case: Case, settings: Mapping[str, Any]) -> None:  # noqa: B027
        """Refuse what the experiment cannot represent, before anything is computed. Raises UsageError."""

    @abstractmethod
    def variants(self, case: Case, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return what is run at every point, one dict of columns each (a width, a number of trials)."""

    @abstractmethod
    def tasks(self, case: Case, variant: Mapping[str, Any], settings: Mapping[str, Any], seed: int) -> Sequence[Task]:
        """Return the tasks of one variant, each with the point and draw that it belongs to."""

    def memory(self, parameters: Mapping[str, Any]) -> float:
        """Return the bytes of a worker at the parameters of a task, 0 where they are not known before."""
        return 0.0

    def merge(self, case: Case, found: Sequence[Placed]) -> Mapping[str, Any] | None:
        """Join the records of one variant and point, one per draw; None where a draw belongs to another shard."""
        (one,) = found
        return one.record
