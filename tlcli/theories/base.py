"""The one shape that every solver has, whatever theory is behind it, and the grid it is asked to fill."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from numpy.typing import NDArray

from tlcli.sweep.grids import Grid

Parameters = Mapping[str, Any]
Columns = dict[str, NDArray[Any]]


def _point_by_point(parameters: Parameters) -> NoReturn:
    raise TypeError("this solver is computed point by point, by the function that its `point` names")


@dataclass(frozen=True)
class Solver:
    """A theory evaluated on a grid.

    `parameters` are the option keys it takes, in the order of the table's columns; `time` stands for the
    recorded times of the last stage. `evaluate` maps arrays that broadcast (and words, for choices) to
    columns that broadcast with them. `relaxed` is the same for searches: where a point is not admissible it
    gives NaN instead of an error. `closed_form` says that searching over the grid again costs next to nothing.
    `collapse` is positive where features survive weight decay and negative where they do not.
    `arrays` are matrices that fit no table; they go into the NPZ file that `archive` names.
    `own` holds the values of parameters that are no options (the stages of a curriculum); `inner` the axes
    that columns have beyond those of the grid, last; `words` what its experiments must know besides parameters.
    A costly theory has no `evaluate` but a `point`, "module:function", the function of its tasks in a sweep: see
    `tlcli.theories.network.theory`. `hidden` are options that it takes besides its parameters, no columns;
    `defaults` replace those of the options, as a recipe would write them.
    """

    name: str
    parameters: tuple[str, ...]
    evaluate: Callable[[Parameters], Columns] = _point_by_point
    experiments: tuple[str, ...] = ()
    closed_form: bool = True
    relaxed: Callable[[Parameters], Columns] | None = None
    quantity: str = "loss"
    collapse: Callable[[Parameters], NDArray[Any]] | None = None
    arrays: Callable[[Parameters, Columns], dict[str, NDArray[Any]]] | None = None
    archive: str = "arrays"
    own: Mapping[str, Any] = field(default_factory=dict)
    inner: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    words: Mapping[str, Any] = field(default_factory=dict)
    point: str | None = None
    hidden: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def engine(self, part: str = "") -> Any:
        """Return the module of a costly theory: its tasks, or with a `part` what is named after it (`_results`)."""
        return importlib.import_module(f"{(self.point or '').partition(':')[0]}{part}")

    @property
    def search(self) -> Callable[[Parameters], Columns]:
        """The function that searches call."""
        return self.relaxed or self.evaluate


@dataclass(frozen=True, eq=False)
class Case:
    """One grid for one solver: `grid` holds the several-valued and single numbers, `words` the rest."""

    label: str | None
    solver: Solver
    grid: Grid
    words: Mapping[str, Any]
    experiments: tuple[str, ...]

    def parameters(self) -> dict[str, Any]:
        """Return what the solver's `evaluate` takes: open arrays and words."""
        return {**self.grid.open(), **self.words}
