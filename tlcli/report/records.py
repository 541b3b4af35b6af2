"""Tables whose rows are the recorded times of two stages: drawn against time, or at their last record."""

from collections.abc import Sequence

import numpy as np

from tlcli.arrays import Floats
from tlcli.errors import UsageError
from tlcli.options.columns import BEST_LOSS, BEST_TIME, OVERFITTING
from tlcli.report.drawing import Drawing
from tlcli.report.plan import quantities_of
from tlcli.report.tables import Block

RECORD = "record"
_WHOLE_CURVE = (BEST_TIME, BEST_LOSS, OVERFITTING)


def drawn_by_time(blocks: Sequence[Block], drawing: Drawing) -> bool:
    """Whether the figure shows curves in time; with another --x it shows the end of training.

    So it does for columns that a whole curve has one of, its best time, where other axes are left to draw them against.
    """
    recorded = all(RECORD in block.axes for block in blocks)
    names = [name.strip() for name in (drawing.quantity or "").split(",")]
    if all(name in _WHOLE_CURVE for name in names) and any(_others(block) for block in blocks):
        return drawing.roles.get("x") == "time" and recorded
    return recorded and drawing.roles.get("x") in (None, "time") and drawing.kind != "map"


def plan_records(blocks: Sequence[Block], drawing: Drawing) -> tuple[list[str], str | None]:
    """Return the columns asked for (none: the standard set of losses) and the axis that colours stand for.

    Raises:
        UsageError: a quantity or an axis that the table does not have.
    """
    first = max(blocks, key=lambda block: len(block.axes))
    axes = _others(first)
    wanted = drawing.roles.get("y")
    if wanted is not None and wanted not in axes:
        raise UsageError(f"--y: '{wanted}' has one value only; the axes with several are {', '.join(axes) or 'none'}.")
    largest = max(axes, key=lambda name: len(first.axes[name]), default=None)
    return quantities_of(blocks, drawing), wanted or largest


def _others(block: Block) -> list[str]:
    return [name for name in block.axes if name not in (RECORD, "experiment")]


def final(block: Block) -> Block:
    """Return the block at its last record; a block without records as it is."""
    if RECORD not in block.axes:
        return block
    axes = {name: values for name, values in block.axes.items() if name != RECORD}
    columns = {name: np.asarray(c)[..., -1] if np.ndim(c) else c for name, c in block.columns.items()}
    return Block(axes, columns, block.scales, block.label)


def early_stop(losses: Floats, errors: Floats) -> int | None:
    """Return the record of the least loss where it is below the last by more than two of its errors, both (n_record,).

    An error that is nan counts as 0. None where the end is as good, and where no loss is known.
    """
    if not np.isfinite(losses).any():
        return None
    best = int(np.nanargmin(losses))
    return best if losses[-1] - losses[best] > 2.0 * np.nan_to_num(errors[best]) else None
