"""One measured line, and how it is measured."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Line:
    """`count` of `unit` took `seconds`; `against` names an alternative and its rate in the same unit."""

    name: str
    count: int
    unit: str
    seconds: float
    against: str = ""
    other_rate: float = 0.0

    @property
    def rate(self) -> float:
        return self.count / self.seconds


def seconds_of(call: Callable[[], Any], repeats: int = 3, least: float = 0.0) -> float:
    """Return the shortest of `repeats` times, after a first call that is not counted if `repeats` > 1.

    Other load on the machine only ever adds time, so the shortest is the fairest. A call shorter than `least` is
    repeated until that much has passed.
    """
    if repeats > 1:
        call()
    best = float("inf")
    for _ in range(repeats):
        calls, start = 0, time.perf_counter()
        while calls == 0 or time.perf_counter() - start < least:
            call()
            calls += 1
        best = min(best, (time.perf_counter() - start) / calls)
    return best


def in_turns(calls: Sequence[Callable[[], Any]], rounds: int = 60, each: int = 5) -> list[float]:
    """Return the least CPU time of every call, all of them being tried in turns: other load is the same for all."""
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for k, call in enumerate(calls):
            start = time.process_time()
            for _ in range(each):
                call()
            best[k] = min(best[k], (time.process_time() - start) / each)
    return best


def number(value: float) -> str:
    """Three digits, with thousands as k and millions as M."""
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{1e6 * seconds:.3g} µs"
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def table(lines: list[Line]) -> str:
    header = ["what", "size", "time", "rate", "alternative", "its rate", "faster"]
    rows = [header, ["---"] * len(header)]
    for line in lines:
        unit = line.unit.removesuffix("s")
        size = f"{number(line.count)} {line.unit if line.count != 1 else unit}"
        other = ["", "", ""]
        if line.against:
            ratio = line.rate / line.other_rate
            other = [line.against, f"{number(line.other_rate)} {unit}s/s", f"{number(ratio)} ×"]
        rows.append([line.name, size, duration(line.seconds), f"{number(line.rate)} {unit}s/s", *other])
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    out = []
    for i, row in enumerate(rows):
        pad = "-" if i == 1 else " "  # the second row is the rule below the header
        out.append("| " + " | ".join(cell.ljust(w, pad) for cell, w in zip(row, widths, strict=True)) + " |")
    return "\n".join(out) + "\n"
