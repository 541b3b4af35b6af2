"""What a browser shows under the pointer: the whole row of the table."""

from typing import Any

import numpy as np

from tlcli.arrays import Indices
from tlcli.report.markup import page_text
from tlcli.report.tables import Block
from tlcli.status import Phase, Status

_WORDS = {"status": Status, "phase": Phase}
_ACROSS = 3  # constant columns to a line


def hover(table: Block, rows: Indices) -> dict[str, Any]:
    """Return the parts of a trace that show all columns; `rows` of any shape are those of the table.

    What is the same in the whole table is written once, below what differs from point to point.
    """
    numbers, words, constant = [], [], [] if table.label is None else [page_text(table.label)]
    for name, column in table.columns.items():
        values = np.asarray(column)
        first = values.flat[0] if values.size else ""
        if values.ndim == 0 or bool(np.all(values == first)):
            constant.append(f"{name} = {_text(name, first)}")
        elif name in _WORDS or values.dtype.kind in "UO":
            words.append((name, table.full(name).ravel()[rows]))
        else:
            numbers.append((name, table.full(name).ravel()[rows]))
    told = [f"{name} = %{{customdata[{i}]:.6g}}" for i, (name, _) in enumerate(numbers)]
    out: dict[str, Any] = {}
    if numbers:
        out["customdata"] = np.stack([np.asarray(column, dtype=float) for _, column in numbers], axis=-1)
    if words:
        told.append("%{text}")
        cells = [[f"{name} = {_text(name, cell)}" for cell in column.ravel().tolist()] for name, column in words]
        joined = ["<br>".join(parts) for parts in zip(*cells, strict=True)]
        out["text"] = np.array(joined, dtype=object).reshape(rows.shape)
    told += [", ".join(constant[i : i + _ACROSS]) for i in range(0, len(constant), _ACROSS)]
    return {**out, "hovertemplate": "<br>".join(told) + "<extra></extra>"}


def _text(name: str, value: Any) -> str:
    if name in _WORDS and not isinstance(value, str):
        return _WORDS[name](int(value)).name.lower()
    if isinstance(value, (bool, str, np.bool_, np.str_)):
        return page_text(str(value))
    return f"{float(value):.6g}"
