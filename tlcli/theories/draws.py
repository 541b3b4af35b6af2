"""What theories on draws of the data share: records by point, and mistakes that fail everywhere alike."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tlcli.errors import UsageError
from tlcli.status import Phase, Status
from tlcli.sweep.runner import FAILED, Placed
from tlcli.theories.base import Case, Findings

Record = Mapping[str, Any]

USERS_ERRORS = ("UsageError", "DomainError", "MissingExtraError")  # classes whose failure is the user's to mend


def by_point(found: Sequence[Placed], count: int) -> list[list[Record]]:
    """Return the records of every one of `count` points, in the order of their draws.

    Every record must be there: those of other shards are none of this.
    """
    groups: list[list[Placed]] = [[] for _ in range(count)]
    for placed in found:
        groups[placed.point].append(placed)
    return [
        [placed.record for placed in sorted(group, key=lambda one: one.draw) if placed.record is not None]
        for group in groups
    ]


def refuse_if_all_failed(groups: Sequence[Sequence[Record]]) -> None:
    """Raise the one mistake in the settings that fails everywhere alike as the UsageError that it is."""
    records = [record for group in groups for record in group]
    messages = [str(record.get("message", "")) for record in records if record.get("status") == FAILED]
    if messages and len(messages) == len(records):
        kind, _, text = messages[0].partition(": ")
        if kind in USERS_ERRORS:
            raise UsageError(text)


def joined(case: Case, found: Sequence[Placed]) -> Findings:
    """Return the records of one draw per point, numbers alone, as columns; NaN and `failed` where a point broke off.

    Raises:
        UsageError: no point could be computed, for a reason that is the user's.
    """
    groups = by_point(found, case.grid.size)
    refuse_if_all_failed(groups)
    rows = [dict(group[0]) for group in groups]
    messages = [str(row.pop("message")) for row in rows if row.get("status") == FAILED]
    rows = [row if row["status"] != FAILED else {"status": Status.FAILED, "phase": Phase.UNKNOWN} for row in rows]
    out = Findings({}, messages=messages)
    for name in dict.fromkeys(name for row in rows for name in row):
        column = np.array([row.get(name, np.nan) for row in rows], np.int8 if name in ("status", "phase") else float)
        out.columns[name] = column.reshape(case.grid.shape)
    return out


def whole(found: Sequence[Placed]) -> tuple[Sequence[Record], Record | None] | None:
    """Return the draws of one point of an experiment and the first that failed; None where another shard has one."""
    records = [placed.record for placed in sorted(found, key=lambda one: one.draw)]
    if any(record is None for record in records):
        return None
    known = [record for record in records if record is not None]
    return known, next((record for record in known if record.get("status") == FAILED), None)


def seed_of(seeds: np.random.SeedSequence) -> int:
    """Return the seed of an experiment from the stream of its point."""
    return int(seeds.generate_state(1, np.uint64)[0])


def told(estimates: Mapping[str, Any]) -> dict[str, Any]:
    """Return an experiment's estimates as a record: `NAME` and `NAME_se`, numbers or lists of them."""
    out: dict[str, Any] = {}
    for name, estimate in estimates.items():
        mean, error = np.asarray(estimate.mean), np.asarray(estimate.se)
        if mean.ndim == 0:
            out[name], out[f"{name}_se"] = float(mean), float(error)
        else:
            out[name], out[f"{name}_se"] = mean.tolist(), error.tolist()
    return out
