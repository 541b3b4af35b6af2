"""Memory: what the machine has, what sizes need at the least, and the refusal of what cannot fit."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlcli.errors import UsageError
from tlcli.theories.amounts import shown_size

# Measured of two-layer networks from 33 to 6000 points: several copies of the inputs, and 29 to 55 numbers per pair of
# training points. The least that any theory has of them, so that nothing is refused that could run.
_COPIES, _PAIRS = 4.0, 6.0
_ENDLESS = 1e100  # of anything: squares of it are numbers still


def least_size(parameters: Mapping[str, Any]) -> float:
    """Return the bytes that a task needs at least for inputs, weights and the kernel of its training points.

    `parameters` are those of a task (p1, p2, ptest, dim, pool, sizes, width), of which any may be absent, None or
    infinite: these count nothing.
    """

    def number(name: str) -> float:
        value = float(parameters.get(name) or 0)
        return min(value, _ENDLESS) if math.isfinite(value) else 0.0

    samples = [number("p1"), max([number("p2"), *map(float, parameters.get("sizes") or ())])]
    points, dim = sum(samples) + number("ptest") + number("pool"), number("dim")
    pairs = max(*samples, number("pool")) ** 2
    weights = number("width") * min(dim, points)
    return 8.0 * (_COPIES * points * dim + _PAIRS * pairs + weights)


def least_of_spectrum(words: Mapping[str, Any]) -> float:
    """Return the bytes of a spectrum's eigenvalues, teachers and the work on them, at the least; 0 where there is none.

    `words` are those of a closed form's case, which hold a dimension where it has one.
    """
    return 8.0 * 6 * float(words.get("dim") or 0)


def shown_sizes(parameters: Mapping[str, Any]) -> str:
    """Return what `least_size` depends on, as a person wrote it: p2 = 1e+09, D = 20."""
    names = {"p1": "p1", "p2": "p2", "ptest": "ptest", "pool": "pool", "width": "width", "dim": "D"}
    given = {shown: parameters.get(name) for name, shown in names.items()}
    return ", ".join(f"{shown} = {value:g}" for shown, value in given.items() if value)


def refuse_large(parameters: Mapping[str, Any]) -> None:
    """Refuse sizes of a task that cannot fit, before anything is drawn. Raises UsageError."""
    size, have = least_size(parameters), available_memory()
    if size > have:
        raise too_large(f"a point of {shown_sizes(parameters)}", size, have, "use less", " at least")


def too_large(what: str, needed: float, have: float, remedy: str, about: str = " about") -> UsageError:
    """Return the refusal of something that needs more bytes than there are."""
    return UsageError(
        f"{what} needs{about} {shown_size(needed)} of memory, and {shown_size(have)} are available; {remedy}."
    )


def available_memory() -> float:
    """Return the bytes that a new process could use: what is free or can be freed, within the limit of its group."""
    return min([_free(), *_group_limits()])


def _free() -> float:
    """Return what the system says is available, all that it has where it does not say, inf where it tells nothing."""
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            return 1024.0 * int(line.split()[1])
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def _group_limits() -> list[float]:
    """Return the limits of the control groups of this process, in both versions of them."""
    found = []
    for line in _lines(Path("/proc/self/cgroup")):
        _, kinds, group = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        root = Path("/sys/fs/cgroup/memory" if kinds else "/sys/fs/cgroup")
        folder = root / group.lstrip("/")
        for one in (folder, *(parent for parent in folder.parents if parent.is_relative_to(root))):
            words = _lines(one / ("memory.limit_in_bytes" if kinds else "memory.max"))
            found += [float(word) for word in words if word.isdigit()]
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
