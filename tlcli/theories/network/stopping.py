"""Early stopping: when the target's test loss is least, how small it is there, and what training on costs."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tlcli.arrays import Array, Floats
from tlcli.options.columns import BEST_LOSS, BEST_TIME, OVERFITTING

_ERRORS = ("_se", "_test_se", "_draw_se")
# Columns of every table in time.
BEST = (BEST_TIME, *(f"{name}{end}" for name in (BEST_LOSS, OVERFITTING) for end in ("", "_se", "_test_se")))


def best_of(columns: Mapping[str, Any], stage: Array, time: Floats, draws: Floats | None = None) -> dict[str, Floats]:
    """Return the time and value of the least `loss` of stage 2, and how much larger the last loss is.

    `columns` holds `loss` and its errors and `overfitting_test_se`, by the test points, of what the last loss is above
    every other, `stage` and `time` its records, all (n_record,); `draws` (n_draw, n_record) are the losses of several
    draws of the data, over which the difference is paired. The errors of the least loss are those of the loss at that
    time; that of the neurons is the difference's, too, since what two times share of it is not known. What is returned
    stands in every record of stage 2, and is nan before. A loss that is nowhere known has no best time.
    """
    loss, target = np.asarray(columns["loss"], dtype=float), np.asarray(stage) == 2
    known = target & np.isfinite(loss)
    best = int(np.argmin(np.where(known, loss, np.inf))) if known.any() else None

    def repeated(values: Any) -> Floats:
        return np.where(target, np.nan if best is None else np.asarray(values, dtype=float)[best], np.nan)

    found = {BEST_TIME: repeated(time), BEST_LOSS: repeated(loss)}
    found |= {f"{BEST_LOSS}{e}": repeated(columns[f"loss{e}"]) for e in _ERRORS if f"loss{e}" in columns}
    found |= {OVERFITTING: repeated(loss[-1] - loss), f"{OVERFITTING}_se": repeated(columns["loss_se"])}
    if (by_points := f"{OVERFITTING}_test_se") in columns:
        found[by_points] = repeated(columns[by_points])
    if draws is not None and len(draws) > 1:
        spread = (draws[:, -1:] - draws).std(axis=0, ddof=1) / math.sqrt(len(draws))
        found[f"{OVERFITTING}_draw_se"] = repeated(spread)
    return found
