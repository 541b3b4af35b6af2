"""The data of networks averaged over target samples: sources that differ from draw to draw, and pools that do not.

Gains and losses along a grid, and from draw to draw, are compared on the very same target points (common random
numbers); their number limits all of them alike.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tlcli.arrays import Floats, Indices
from tlcli.errors import UsageError, counted
from tlcli.tasks.gaussian import is_gaussian, is_plain
from tlcli.tasks.polynomial import parse_polynomial
from tlcli.theories.memory import refuse_large
from tlcli.theories.network import points

POOLS = 4  # of tasks that are drawn; several small pools cost less than a large one, and tell their error
LEAST_POOL = 400
_MOST_POOL = 4000  # points of all pools together
_EVERY = 10**6  # test points asked for: all that there are
_SHUFFLE = 0x9001  # keeps the order of the points apart from other streams of a seed


@dataclass(frozen=True, eq=False)
class PoolData:
    """A source and all pools of the target in place of its training points; `rows` are those of every pool.

    `x_test` holds no points. `classes_*` as in `tlcli.tasks.data.TransferData`; `notes` are what there is to tell.
    """

    x_source: Floats
    y_source: Floats
    x_target: Floats
    y_target: Floats
    description: dict[str, Any]
    classes_source: int | None
    classes_target: int | None
    rows: list[Indices]
    notes: list[str] = field(default_factory=list)

    @property
    def x_test(self) -> Floats:
        """No points (0, D)."""
        return self.x_target[:0]

    @property
    def y_test_source(self) -> Floats:
        """No labels."""
        return self.y_source[:0]

    @property
    def y_test_target(self) -> Floats:
        """No labels."""
        return self.y_target[:0]


def pools_of(p: Mapping[str, Any]) -> PoolData:
    """Return the data of one draw of the source.

    Raises:
        UsageError: a pool of less than twice the samples taken of it.
    """
    return _drawn(p) if is_gaussian(str(p["source"]).strip()) else _given(p)


def _drawn(p: Mapping[str, Any]) -> PoolData:
    """Return tasks on Gaussian inputs: a draw is the next p1 source points of the same two teachers."""
    most = max(p["sizes"])
    size = max(LEAST_POOL, 2 * most) if p.get("pool") is None else int(p["pool"])
    _refuse_small(size, most, math.inf)
    refuse_large({**p, "pool": size})
    count = max(1, min(POOLS, _MOST_POOL // size))
    p1, draw = int(p["p1"]), int(p["draw"])
    asked = {**p, "noise2": 0.0, "flips2": 0.0, "p1": p1 * (draw + 1), "p2": size * count, "ptest": 1, "draw": 0}
    data = points.data_of(asked)
    rows = [np.arange(i * size, (i + 1) * size) for i in range(count)]
    y = data.y_target
    target = str(p.get("target") or p["source"]).strip()
    if is_plain(target):  # labels whose power varies from pool to pool, by 30 % where they are cubic
        power = sum(c * c for _, c in parse_polynomial(target).terms)
        y = np.concatenate([y[part] * np.sqrt(power / np.mean(y[part] ** 2)) for part in rows])
    described = {**data.description, "p1": p1, "draw": draw}
    return PoolData(
        *(data.x_source[-p1:], data.y_source[-p1:], data.x_target, y, described),
        *(data.classes_source, data.classes_target, rows),
    )


def _given(p: Mapping[str, Any]) -> PoolData:
    """Return images or a file: all target points that are no source points, in an order that every draw shares."""
    most = max(p["sizes"])
    sizes = {"p2": None, "ptest": None} if str(p["source"]).strip().startswith("file:") else {"p2": 1, "ptest": _EVERY}
    data = points.data_of({**p, "noise2": 0.0, "flips2": 0.0, **sizes})
    known = np.isfinite(data.y_test_target if data.y_test_target.ndim == 1 else data.y_test_target.sum(axis=1))
    x = np.concatenate([data.x_target, data.x_test[known]])
    y = np.concatenate([data.y_target, data.y_test_target[known]])
    keep, lost = _distinct(x, data.x_source)
    size = min(len(keep), _MOST_POOL) if p.get("pool") is None else int(p["pool"])
    _refuse_small(size, most, len(keep))
    count = max(1, min(POOLS, len(keep) // size))
    keep = np.random.default_rng([_SHUFFLE, int(p["seed"])]).permutation(keep)[: size * count]
    rows = [np.arange(i * size, (i + 1) * size) for i in range(count)]
    notes = [f"left out of the pool: {counted(lost, 'target point')} that copy others or the source's."] if lost else []
    return PoolData(
        *(data.x_source, data.y_source, x[keep], y[keep], data.description),
        *(data.classes_source, data.classes_target, rows, notes),
    )


def _refuse_small(size: int, most: int, there: float) -> None:
    """Refuse pools of less than twice the samples, and of more points than there are (inf where they are drawn)."""
    if size <= there and size >= 2 * most:
        return
    needed = f"averages need at least twice as many points as samples (p2 = {most})"
    if 2 * most > there:
        at_most = f"lower --p2 to at most {there // 2:.0f}" if there >= 2 else "give more target points"
        raise UsageError(
            f"a pool of {there:.0f} target points is too small for p2 = {most}: {needed}, and there are no more; "
            f"{at_most}, or use --average none."
        )
    if size > there:
        raise UsageError(
            f"--pool {size} is more than the {there:.0f} target points there are; lower it, to at least {2 * most}, "
            "or leave it out."
        )
    raise UsageError(
        f"a pool of {size} target points is too small for p2 = {most}: {needed}; raise --pool to at least {2 * most}, "
        "lower --p2, or use --average none."
    )


def _distinct(x: Floats, source: Floats) -> tuple[Indices, int]:
    """Return the points without copies, which would leak what they are to know, and how many were left out.

    Their order is that of their coordinates, the same for all draws of the source.
    """
    _, first = np.unique(np.concatenate([source, x]), axis=0, return_index=True)
    keep = first[first >= len(source)] - len(source)
    return keep, len(x) - len(keep)
