"""The tasks of many draws of the data: made when asked for, so that a plan of a million takes no time."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from tlcli.sweep.runner import Task


@dataclass(frozen=True, eq=False)
class Drawn(Sequence["Task"]):
    """A task for each of several points on each of several draws of the data.

    `first` holds those of draw 0, which differ from point to point; the others have another `draw`, and what is in
    `later`. The draws of a point follow each other or, `slowest`, the points of a draw.
    """

    first: "Sequence[Task]"
    draws: int
    later: Mapping[str, Any] = field(default_factory=dict)
    slowest: bool = False

    def __len__(self) -> int:
        return len(self.first) * self.draws

    @overload
    def __getitem__(self, index: int) -> "Task": ...
    @overload
    def __getitem__(self, index: slice) -> "list[Task]": ...
    def __getitem__(self, index: int | slice) -> "Task | list[Task]":
        places = range(len(self))
        if isinstance(index, slice):
            return [self[i] for i in places[index]]
        at = places[operator.index(index)]
        draw, point = divmod(at, len(self.first)) if self.slowest else divmod(at, self.draws)[::-1]
        one = self.first[point]
        return replace(one, parameters={**one.parameters, **self.later, "draw": draw}, draw=draw) if draw else one


def per_point(tasks: "Sequence[Task]") -> "Sequence[Task]":
    """Return a task of every point: the first of its draws, where they are alike but for the data."""
    return tasks.first if isinstance(tasks, Drawn) else tasks


def of_points(tasks: "Sequence[Task]", first: "Sequence[Task]") -> "Sequence[Task]":
    """Return the tasks of some of the points that `per_point` returned."""
    return replace(tasks, first=first) if isinstance(tasks, Drawn) else first


def together(parts: "Sequence[Sequence[Task]]") -> "Sequence[Task]":
    """Return the tasks of all parts, still unmade where all have as many draws of the same kind."""
    drawn = [part for part in parts if isinstance(part, Drawn)]
    if drawn and len(drawn) == len(parts) and len({(p.draws, p.slowest, str(p.later)) for p in drawn}) == 1:
        return replace(drawn[0], first=[task for part in drawn for task in part.first])
    return [task for part in parts for task in part]
