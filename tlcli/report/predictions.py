"""Predictions point by point as a CSV table."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlcli.arrays import Array
from tlcli.report.files import atomic


def write_predictions(
    path: Path,
    points: Sequence[Mapping[str, float]],
    stages: Array,
    times: Array,
    arrays: Sequence[Mapping[str, Array] | None],
) -> None:
    """Write one row per point of the grid, recorded time and input.

    `points` are the values of the grid's axes, `stages` and `times` (n_points, n_record), `arrays` per point those of
    the engine with `predictions` (n_record, n_input). Inputs are the source's training points, the target's, then
    the test points; `label` is that of the set (of test points the target's), `label_source` the test points' label of
    the source; a cell is empty where there is none. Several outputs, (n_record, n_input, C) or by stage, have a row
    each, with its number in the column `output`.
    """
    several = any(_several(found) for found in arrays if found is not None)
    begin = ["stage", "time", "set", "index", "label", "label_source", *(["output"] if several else [])]
    header = [*points[0], *begin, "prediction", "prediction_se"]
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        for point, stage, time, found in zip(points, stages.tolist(), times.tolist(), arrays, strict=True):
            if found is None or not any(name.startswith("predictions") for name in found):
                continue
            if several:
                ahead = [text_of(value) for value in point.values()]
                writer.writerows([*ahead, *cells] for cells in _each_output(found, stage, time))
                continue
            inputs = list(_inputs(found))
            ahead = [text_of(value) for value in point.values()]
            for record, (one, at) in enumerate(zip(stage, time, strict=True)):
                pairs = zip(
                    found["predictions"][record].tolist(), found["predictions_se"][record].tolist(), strict=True
                )
                begin = [*ahead, str(int(one)), text_of(at)]
                writer.writerows(
                    [*begin, *cells, text_of(f), text_of(e)] for cells, (f, e) in zip(inputs, pairs, strict=True)
                )


def _several(found: Mapping[str, Array]) -> bool:
    return "predictions_stage1" in found or ("predictions" in found and found["predictions"].ndim > 2)


def _each_output(found: Mapping[str, Array], stages: Sequence[float], times: Sequence[float]) -> Iterator[Any]:
    """Yield the cells of every recorded time, input and output."""
    names = ("predictions",) if "predictions" in found else ("predictions_stage1", "predictions_stage2")
    records = [
        (values, errors)
        for name in names
        if name in found
        for values, errors in zip(found[name], found[f"{name}_se"], strict=True)
    ]
    inputs = list(_inputs(found))
    for one, at, (values, errors) in zip(stages, times, records, strict=True):
        f, e = (np.reshape(x, (len(inputs), -1)) for x in (values, errors))
        for cells, row, row_errors in zip(inputs, f.tolist(), e.tolist(), strict=True):
            for output, (value, error) in enumerate(zip(row, row_errors, strict=True)):
                yield [str(int(one)), text_of(at), *cells, str(output), text_of(value), text_of(error)]


def _inputs(found: Mapping[str, Array]) -> Iterator[list[str]]:
    """Yield set, index and labels of every input."""
    blank = np.full(len(found["y_test_target"]), np.nan)
    for word, labels, others in (
        ("source", found["y_source"], None),
        ("target", found["y_target"], None),
        ("test", found["y_test_target"], found.get("y_test_source", blank)),
    ):
        if labels.ndim > 1 or (others is not None and others.ndim > 1):  # vectors stand in the archive of kernels
            yield from ([word, str(index), "", ""] for index in range(len(labels)))
            continue
        for index, label in enumerate(labels.tolist()):
            other = "" if others is None else text_of(float(others[index]))
            yield [word, str(index), text_of(label), other]


def text_of(value: float) -> str:
    """Return the shortest text that reads back as the number; nothing for NaN."""
    return "" if value != value else repr(float(value)).removesuffix(".0")
