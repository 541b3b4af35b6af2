"""Frozen networks averaged over target samples: one kernel on a pool of target points serves all sizes and ridges."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from tlcli.arrays import Floats
from tlcli.errors import UsageError, counted, part_of
from tlcli.options.columns import DIFFERENCES
from tlcli.status import SOLVED, Status, phase_of
from tlcli.sweep.drawn import Drawn
from tlcli.sweep.runner import Placed, Task
from tlcli.theories.amounts import shown_size, shown_time
from tlcli.theories.base import Case, Columns, Findings, PointByPoint
from tlcli.theories.draws import by_point, refuse_if_all_failed
from tlcli.theories.network import points
from tlcli.theories.network.average_cost import expected_seconds, memory, workers_within
from tlcli.theories.network.average_draws import FEWEST, best_names, best_of_grid, drawn_boundaries, joined
from tlcli.theories.network.average_point import BEST, NAMES, PARTS, RIDGES
from tlcli.theories.network.pools import pools_of

FUNCTION = "tlcli.theories.network.average_point:point"
_INNER = ("p2", "alpha2", "ridge", "noise2", "flips2", "time")
_DROPPED = ("p2", "ridge", "noise2", "flips2", "ptest", "times2")


@dataclass(frozen=True, eq=False)
class AveragedNetwork(PointByPoint):
    """The readout of a frozen network, averaged over the target's samples (`tlcli.averages`).

    A task is one kernel: everything but P2, ridge, label noise and time of the target. Its record holds the means over
    target samples at all of these.
    """

    choices: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"ridge": (BEST,)})
    version: ClassVar[str] = f"{points.ENGINE}.7"
    chosen: ClassVar[frozenset[str]] = frozenset({"gamma0"})

    def check(self, case: Case) -> None:
        """Refuse what no network has, label noise of two kinds, and pools that are too small for the samples."""
        plain = _plain(case)
        points.check_points(plain)
        if any(points.parameters_of(plain, point).get("p2") is None for point in plain.grid.points()):
            raise UsageError(
                "--average needs the number of target samples, --p2: a file taken as a whole has a single sample; give "
                "it, or use --average none."
            )
        given = case.grid.values
        if case.words.get("optimal_gamma0") and given["gamma0"].size < FEWEST:
            raise UsageError(
                f"--optimal-gamma0 chooses among the grid's; {case.theory.name} needs {FEWEST} or more --gamma0 for it."
            )
        loud = [name for name in ("noise2", "flips2") if name in given and given[name].array.any()]
        if len(loud) > 1:
            largest = [f"{name} = {given[name].array.max():g}" for name in loud]
            raise UsageError(f"{' and '.join(largest)}: an average has label noise of one kind; give one.")
        for parameters in _kernels(case, 0)[0]:
            if parameters.get("repeats") == 1 and parameters["gamma0"] > 0:
                raise UsageError(
                    "--repeats 1 has no error of the neurons, which an average needs; use --repeats 2 or more, or "
                    "--average none."
                )
            pools_of({**parameters, "draw": 0})

    def columns(self, case: Case) -> Columns:
        """Return the names of the columns, those of the best of the grid among them."""
        names = {name: np.full(_shape(case), np.nan) for name in [*_columns(case), "phase"]}
        return names | best_names(case, NAMES[_measures(case)[-1]])

    def tasks(self, case: Case, seed: int) -> Drawn:
        """Return a task per kernel and draw of the source; its place is that of the kernel."""
        kernels, _ = _kernels(case, seed)
        first = [Task(FUNCTION, {**parameters, "draw": 0}, seed, index) for index, parameters in enumerate(kernels)]
        return Drawn(first, int(case.words["draws"]))

    def combine(self, case: Case, found: Sequence[Placed]) -> Findings:
        """Return means over draws of the source, with their errors."""
        kernels, places = _kernels(case, 0)
        groups = by_point(found, len(kernels))
        refuse_if_all_failed(groups)
        measures = _measures(case)
        every = [joined(group, measures, _accuracy(case)) for group in groups]
        count = int(case.words["draws"])
        columns = {name: np.full(_shape(case), np.nan) for name in _columns(case)}
        columns["status"] = np.full(_shape(case), Status.FAILED, dtype=np.int8)
        judged = NAMES[measures[-1]]
        alone = {name: np.full((count, *_shape(case)), np.nan) for name in judged}
        for at, (kernel, inside) in enumerate(places):
            place = np.unravel_index(at, case.grid.shape)
            for name, values in every[kernel].columns.items():
                columns[name][place] = values[inside]
            for name, values in every[kernel].alone.items():
                if name in alone:
                    alone[name][(slice(None), *place)] = values[(slice(None), *inside)]
        loss, baseline, gain = judged
        error = columns[f"{gain}_draw_se" if count > 1 else f"{gain}_se"]
        phase = phase_of(columns[gain], columns[loss], columns[baseline], relative=SOLVED, error=error)
        columns |= best_of_grid(case, columns, alone, judged)
        out = Findings({**columns, "phase": phase}, draws=alone | {name: columns[name] for name in _shared(gain)})
        done = [record for group in groups for record in group if record.get("status") != "failed"]
        if done:
            out.info, out.data = dict(done[0]["info"]), dict(done[0]["data"])
        out.asked = _accuracy(case)
        out.notes = _direct(kernels, groups)
        out.notes += dict.fromkeys(note for record in done for note in record["notes"])
        out.messages = list(dict.fromkeys(r["message"] for group in groups for r in group if r.get("message")))
        out.messages += [*_unsolved(kernels, groups), *_inaccurate(columns, _accuracy(case))]
        return out

    def estimate(self, case: Case, tasks: Sequence[Task], left: Sequence[Task], workers: int) -> list[str]:
        """Return the time of the networks that are left."""
        if not left:
            return []
        workers, why = self.workers(left, min(workers, len(left)))
        seconds, baseline = expected_seconds(left)
        about = shown_time(seconds / workers + baseline)
        return [
            f"{about} on {counted(workers, 'worker')}, {shown_size(memory(left) * workers)}",
            *([why] if why else []),
        ]

    def memory(self, tasks: Sequence[Task]) -> float:
        """Return the bytes of a process, most of which are kernels between the points of all pools."""
        return memory(tasks)

    def workers(self, tasks: Sequence[Task], jobs: int) -> tuple[int, str]:
        """Return as many as hold their kernels in 4 GB together: of 4000 points one, whose repeats have threads."""
        return workers_within(memory(tasks), jobs)

    def archives(self, case: Case) -> dict[str, str]:
        """Return none: kernels on pools are large, and the mean over samples has no predictions."""
        return {}

    def pictures(self, case: Case) -> set[str]:
        """Return none."""
        return set()

    def boundaries(self, case: Case, axis: str, log: bool, gain: Floats, draws: Columns | None = None) -> Any:
        """Return where a monotone interpolant of the gain is zero, with the error of the place."""
        name = next((name for name in DIFFERENCES if draws and name in draws), "gain")
        return drawn_boundaries(case, axis, gain, draws or {}, name)


def _plain(case: Case) -> Case:
    """Return the case with a number in place of the best ridge."""
    return replace(case, words={**case.words, "ridge": 1.0}) if case.words.get("ridge") == BEST else case


def _accuracy(case: Case) -> float:
    return float(points.numerics_of({**case.words, "seed": 0, "draw": 0}).accuracy)


def _inaccurate(columns: Columns, wanted: float) -> list[str]:
    late = columns["status"] == Status.INACCURATE
    if not late.any():
        return []
    return [
        f"{part_of(late.sum(), late.size, 'average')} inaccurate: asked {wanted:g}, reached "
        f"{np.max(columns['residual'][late]):.2g} (errors of losses, in units of the labels' mean square, or of the "
        "loss where that is larger); use a larger --pool where the pool's error leads (of files and images all points "
        "are in it), more --neurons where theirs does, or accept it with a larger --accuracy."
    ]


def _unsolved(kernels: Sequence[Mapping[str, Any]], groups: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return why averages are not converged that the equations do not know, and at which sizes."""
    sizes = set[int]()
    for kernel, group in zip(kernels, groups, strict=True):
        for record in (one for one in group if one.get("status") != "failed"):
            sizes |= {size for size, flags in zip(kernel["sizes"], record["unsolved"], strict=True) if any(flags)}
    if not sizes:
        return []
    return [
        f"the pointwise equations have no solution at p2 = {', '.join(map(str, sorted(sizes)))}: the pool is too small "
        "for its heavy points (the spectral radius of (N/P - 1) T reaches 1), or the samples almost reach the rank of "
        "the kernel; use a larger --pool, a --ridge, more --neurons, or --average auto, which takes subsets there."
    ]


def _direct(kernels: Sequence[Mapping[str, Any]], groups: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return in one note at which sizes direct averages stand, always and for some kernels only."""
    flags = dict[int, list[int]]()
    for kernel, group in zip(kernels, groups, strict=True):
        for record in (one for one in group if one.get("status") != "failed"):
            for size, flag in zip(kernel["sizes"], record["direct"], strict=True):
                flags.setdefault(size, []).append(flag)
    always = ", ".join(str(size) for size in sorted(flags) if all(flags[size]))
    some = ", ".join(str(size) for size in sorted(flags) if any(flags[size]) and not all(flags[size]))
    if not always and not some:
        return []
    places = [*([f"at p2 = {always}"] if always else []), *([f"for some kernels at p2 = {some}"] if some else [])]
    return [f"direct averages over subsets of the pool stand {', '.join(places)}."]


def _shape(case: Case) -> tuple[int, ...]:
    return (*case.grid.shape, *(len(v) for v in case.theory.inner.values()))


def _measures(case: Case) -> tuple[str, ...]:
    kinds = case.words.get("kinds")
    return ("loss", "error") if case.words.get("losses") and kinds and kinds[1] else ("loss",)


def _shared(gain: str) -> tuple[str, ...]:
    """Return the columns of what all draws of the source share in the error of a gain."""
    return tuple(f"{gain}_{part}_se" for part in PARTS)


def _columns(case: Case) -> list[str]:
    names = [name for measure in _measures(case) for name in NAMES[measure]]
    drawn = int(case.words["draws"]) > 1
    return [
        *(RIDGES if case.words.get("ridge") == BEST else ()),
        *names,
        *(f"{name}_se" for name in names),
        *(f"{name}_{part}_se" for name in names for part in PARTS),
        *(f"{name}_{part}_se" for name in names for part in ("source", "draw") if drawn),
        "direct",
        "residual",
        "status",
    ]


def _kernels(case: Case, seed: int) -> tuple[list[dict[str, Any]], list[tuple[int, tuple[Any, ...]]]]:
    """Return the parameters of every different kernel, and for every point its kernel and its place in the record."""
    axes, words = case.grid.axes, case.words
    plain = _plain(case)
    more = {name: words[name] for name in points.NUMERICS if words.get(name) is not None}
    lines = _lines(plain)
    asked = {**lines, "times2": [math.inf], "seed": seed, "method": words["average"], "pool": words.get("pool")}
    asked |= {"ridges": BEST} if plain is not case else {}
    if case.words.get("losses") or lines["noise_name"] == "flips2":
        asked["measures"] = list(_measures(case))
    asked |= points.identity_of(case)
    kernels: dict[tuple[Any, ...], int] = {}
    out, places = [], []
    for point in case.grid.points():
        here = points.parameters_of(plain, point)
        key = tuple(point[name] for name in axes if name not in _INNER)
        if key not in kernels:
            kernels[key] = len(out)
            out.append({**{name: v for name, v in here.items() if name not in _DROPPED}, **more, **asked})
        inside = (
            lines["sizes"].index(here["p2"]),
            lines["ridges"].index(float(here["ridge"])),
            lines["noises"].index(float(here[lines["noise_name"]])),
            slice(None) if case.theory.inner else lines["times"].index(float(here["times2"][-1])),
        )
        places.append((kernels[key], inside))
    return out, places


def _lines(case: Case) -> dict[str, Any]:
    """Return the different values of what one kernel serves, in ascending order."""
    every = [points.parameters_of(case, point) for point in case.grid.points()]
    times = {float(t) for p in every for t in (p["times2"] if case.theory.inner else p["times2"][-1:])}
    noise = "flips2" if any(p.get("flips2") for p in every) else "noise2"
    return {
        "sizes": sorted({int(p["p2"]) for p in every}),
        "ridges": sorted({float(p["ridge"]) for p in every}),
        "noises": sorted({float(p[noise]) for p in every}),
        "times": sorted(times),
        "noise_name": noise,
    }
