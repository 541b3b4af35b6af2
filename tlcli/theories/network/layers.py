"""What the layers of deep networks did, per point of a grid: means over draws of the data, with their errors."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tlcli.arrays import Floats
from tlcli.theories.base import Case

LAYER_COLUMNS = ("movement", "source_alignment", "target_alignment", "test_alignment")


def layers_of(
    case: Case, point: Mapping[str, float], records: Sequence[Mapping[str, Any]], keep: slice
) -> dict[str, Floats] | None:
    """Return stage and time (n_record,), and per column of `LAYER_COLUMNS` with its `_se` (n_record, L).

    `_se` is the error that the sampled neurons leave, `_draw_se` the spread of several draws over the
    root of their number.

    `records` are the draws of one point, `keep` the records that are rows of the table. None where `depth` is no
    option of the case, or a draw failed. A column that no layer has, or that has no error, is NaN.
    """
    values = {**case.words, **point}
    depth = values.get("depth", 1 if any(values.get(name) is not None for name in ("freeze", "reinit_from")) else None)
    if depth is None or any(record.get("status") == "failed" for record in records):
        return None

    def of(record: Mapping[str, Any], name: str) -> Floats:
        columns = record["columns"]
        empty = np.full(len(columns["time"]), np.nan)
        found = [columns.get(f"layer{layer}_{name}", empty) for layer in range(1, int(depth) + 1)]
        return np.array(found, dtype=float).T[keep]

    first = records[0]["columns"]
    out = {name: np.asarray(first[name], dtype=float)[keep] for name in ("stage", "time")}
    for name in LAYER_COLUMNS:
        values = np.array([of(record, name) for record in records])
        errors = np.array([of(record, f"{name}_se") for record in records])
        out[name] = values.mean(axis=0)
        out[f"{name}_se"] = np.sqrt(np.sum(errors**2, axis=0)) / len(records)
        if len(records) > 1:  # holds the error of the sampled neurons as well
            out[f"{name}_draw_se"] = values.std(axis=0, ddof=1) / math.sqrt(len(records))
    return out
