"""Nonlinear networks as theories: which options they take, what their tables hold."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tlcli.dmft.activations import activation
from tlcli.errors import UsageError, counted
from tlcli.sweep.drawn import per_point
from tlcli.sweep.runner import Placed, Record, Task
from tlcli.tasks.data import DEFAULT_P1, DEFAULT_P2
from tlcli.tasks.gaussian import is_gaussian
from tlcli.tasks.transfer_tasks import check_tasks
from tlcli.theories.amounts import shown_size, shown_time
from tlcli.theories.base import Case, Columns, Findings, PointByPoint
from tlcli.theories.network import points, results
from tlcli.theories.network.average import AveragedNetwork
from tlcli.theories.network.average_draws import FEWEST
from tlcli.theories.network.cost import LIMIT, expected_seconds
from tlcli.theories.network.experiment import WideNetworks
from tlcli.theories.network.losses import Losses, losses_of
from tlcli.theories.network.points import DURATION, LONGEST, NUMERICS, recorded, samples, step_of
from tlcli.training import parameters as training_parameters

_OUTPUTS = {"curve": ("kernels", "predictions"), "pretrain": ("kernels",), "end": ()}
_OF_TARGETS = ("rho", "p2", "alpha2", "noise2")
_HIDDEN = ("pool", "ptest", "raw_inputs", "drop_columns", "colour", *NUMERICS, "nets")


@dataclass(frozen=True, eq=False)
class NetworkTheory(PointByPoint):
    """Nonlinear networks on actual data, as `network_theory` makes them."""

    version: ClassVar[str] = points.VERSION

    def check(self, case: Case) -> None:
        """Refuse settings that no network has, at any point of the grid."""
        points.check_points(case)

    def columns(self, case: Case) -> Columns:
        """Return the names of the columns."""
        return results.placeholder(case)

    def tasks(self, case: Case, seed: int) -> Sequence[Task]:
        """Return a task per point of the grid and draw of the data."""
        return points.tasks_of(case, seed)

    def combine(self, case: Case, found: Sequence[Placed]) -> Findings:
        """Return means over the draws, with their errors."""
        return results.combine(case, found)

    def archives(self, case: Case) -> dict[str, str]:
        """Return what every network has, and what the layers of deep ones did."""
        return super().archives(case) | ({"layers": "csv"} if _by_layer(case) else {})

    def pictures(self, case: Case) -> set[str]:
        """Return the same of the figures."""
        layers = {"layers", "layer-kernels", "layer-densities"} if _by_layer(case) else set()
        kept, classes = super().pictures(case), {"confusion", "reliability"} if case.words.get("losses") else set()
        return kept | layers | (classes if kept else set())

    def memory(self, tasks: Sequence[Task]) -> float:
        """Return the bytes of the process of the largest network: of two layers, what its kernels need at the least."""
        shallow = [_kernels_of(task.parameters) for task in per_point(tasks) if task.parameters.get("depth", 1) == 1]
        return max((*(points.expected_size_of(p).bytes for p in _deep(tasks)), *shallow), default=0.0)

    def estimate(self, case: Case, tasks: Sequence[Task], left: Sequence[Task], workers: int) -> list[str]:
        """Return the time of the points that are left, and what the largest deep network needs."""
        if not left:
            return []
        workers, ratios = max(1, min(workers, len(left))), list[float]()

        def look(task: Task, record: Record) -> None:
            revealed = record.get("info", {}).get("revealed")
            if revealed:
                ratios.append(revealed / points.expected_size_of(task.parameters).rank)

        seconds = expected_seconds(left, look)
        about = shown_time(min(seconds, LIMIT * len(left)) / workers)
        if seconds == math.inf:
            about = f"more than {about.removeprefix('about ')}"
        sizes = [points.expected_size_of(p, max(ratios, default=1.0)) for p in _deep(left)]
        if not sizes:
            return [f"{about} on {counted(workers, 'worker')}"]
        largest = max(sizes, key=lambda size: size.bytes)
        word = "seen in a look" if ratios else "expected"
        return [
            f"{about} on {counted(workers, 'worker')}, {shown_size(largest.bytes * workers)}: {largest.neurons} "
            f"neurons or axes and {largest.rank} directions per hidden matrix ({word})"
        ]


def _deep(tasks: Sequence[Task]) -> list[Mapping[str, Any]]:
    return [task.parameters for task in per_point(tasks) if task.parameters.get("depth", 1) > 1]


# Numbers per pair of training points, measured at 1000 points: 13, 22, 29 and 46 with 1, 2, 4 and 8 populations of
# frozen networks, up to 82 of rich ones; 10 where all is lazy.
_PAIRS, _PER_REPEAT = 10.0, 4.0


def _kernels_of(p: Mapping[str, Any]) -> float:
    """Return the bytes of the kernels of two layers with the work on them, 0 where a file says the number of points."""
    counts = [int(p.get(name) or 0) for name in ("p1", "p2")]
    few = p.get("population") == "quadrature" or p["dim"] <= 3 or activation(p["activation"]).kind == "linear"
    repeats = 0 if p["gamma0"] == 0 else p.get("repeats") or (1 if few else 8)
    return 8.0 * (_PAIRS + _PER_REPEAT * repeats) * max(counts) ** 2


def _by_layer(case: Case) -> bool:
    given = {**case.words, **case.grid.values}
    return any(given.get(name) is not None for name in ("depth", "freeze", "reinit_from"))


def network_theory(command: str, name: str, get: Callable[[str], Any]) -> PointByPoint:
    """Return the theory `name` with the parameters that the given options leave open.

    `name`: network-pretrain (stage 1 alone), network-frozen (a readout on frozen features) or network-rich (both
    layers in both stages). `get` returns the parsed value of an option, None where it is not given. The theory's
    `words` hold its layout, which records make rows: `curve` (dmft-solve) all of both stages, `pretrain` those of
    stage 1, `end` those of stage 2, by default its end.

    Raises:
        UsageError: an unknown task or activation (with the nearest name), a missing or impossible one, sizes that
            the data do not have or that are given twice. Nothing is computed before.
    """
    layout = "curve" if command == "dmft-solve" else "pretrain" if name == "network-pretrain" else "end"
    source, target = get("source"), get("target")
    if source is None or (target is None and layout != "pretrain"):
        missing = "--source" if source is None else "--target"
        raise UsageError(
            f"{command} with a network needs {missing}, for example --source linear --target hermite:2 or "
            "--source digits:3v8 --target digits:4v9."
        )
    activation(get("activation") or "tanh")
    from_file = source.strip().startswith("file:")
    # A source alone is its own target: the same direction, on other points. What only a target has makes it one.
    alone = target is None and not from_file and not any(get(option) is not None for option in _OF_TARGETS)
    sizes = [_size(stage, get, from_file) for stage in ("1", "2")[: 1 if alone else 2]]
    chosen = losses_of(name, get, source, target or source)
    get = chosen.answered(get)
    dim = _check(source, target or source, sizes, get)
    if from_file and (get("draws") or 1) > 1 and all(get(size) is None for size, _ in sizes):
        raise UsageError(
            f"draws = {get('draws')}: a file taken as a whole is one draw of the data; give --p1 and --p2 smaller "
            "than it, or leave out --draws."
        )
    parameters = _parameters(name, alone, is_gaussian(source.strip()), [size for size, _ in sizes], get)
    inner, stages = _records(layout, name, get, chosen.limit)
    scale = "list" if get("times") is None else get("times").scale
    words = {"layout": layout, "alone": alone, "time_scale": scale, **({"target": source} if alone else {})}
    words |= chosen.words
    made, more, usual = _averaged(command, name, layout, chosen, get)
    return made(
        name,
        (*parameters, *stages, *more),
        experiments=() if more else (WideNetworks(),),
        quantity="source_alignment" if layout == "pretrain" else "error" if chosen.errors else "loss",
        archive="kernels",
        inner=inner,
        words=words,
        hidden=(
            *_HIDDEN,
            *(option for option in ("loss", "classes", "regression") if get(option)),
            "times",
            *_OUTPUTS[layout],
            *(name for name in points.EXTRA if get(name)),
            *(("average",) if get("average") == "none" else ()),
            *(("optimal_gamma0",) if more else ()),
        ),
        defaults={"dim": dim, "target": source, **dict(sizes), **stages, **chosen.defaults, **usual},
    )


def _parameters(name: str, alone: bool, polynomial: bool, sizes: Sequence[str], get: Callable[[str], Any]) -> list[str]:
    """Return the parameters of tasks and training; `alone`: of a source without a target."""
    parameters = ["source", *(["target"] if not alone else []), "dim", *sizes]
    parameters += ["rho"] if polynomial and not alone else []
    parameters += ["noise1", *(["noise2"] if not alone else [])]
    parameters += [flip for flip in ("flips1", "flips2")[: 1 if alone else 2] if get(flip) is not None]
    # Some only where they are asked for: other tables have no column for them.
    kind = name.removeprefix("network-")
    unasked = [option for option in training_parameters(kind, asked=True) if get(option) is None]
    return [*parameters, *(option for option in training_parameters(kind) if option not in unasked), "draws"]


def _averaged(
    command: str, name: str, layout: str, chosen: Losses, get: Callable[[str], Any]
) -> tuple[type[PointByPoint], tuple[str, ...], dict[str, Any]]:
    """Return which theory computes the points, the parameters that it has more, and its default of `average`.

    Raises UsageError.
    """
    frozen = name == "network-frozen" and layout == "end"
    default = _usual_average(command, chosen, get) if frozen else None
    method = get("average") or default
    if method in (None, "none"):
        if get("pool") is not None and method == "none":
            raise UsageError(
                f"--pool {get('pool')} has no effect with --average none, which solves single draws; leave out one."
            )
        if get("pool") is not None:
            raise UsageError(f"--pool {get('pool')} is the pool of --average; give that, or leave it out.")
        if frozen and isinstance(get("ridge"), str):
            raise UsageError(f"--ridge {get('ridge')} is that of averages over target samples; add --average auto.")
        if frozen and get("optimal_gamma0"):
            raise UsageError(
                f"--optimal-gamma0 chooses among the values of averages over target samples; add --average auto with "
                f"{FEWEST} or more --gamma0, or leave it out and compare losses at given values (--gamma0 0.1,1,10)."
            )
        if get("average") is not None and not frozen:
            raise UsageError(f"--average none has no effect: {command} with {name} has no averages; leave it out.")
        return NetworkTheory, (), {}
    if not frozen:
        raise UsageError(
            f"--average {method} is for frozen features (finetune-loss or phase-diagram with --solver network-frozen); "
            "leave it out."
        )
    flips = get("flips2")
    if method in ("pointwise", "homogeneous") and (
        chosen.words.get("losses") or (flips is not None and np.any(flips.array > 0))
    ):
        what = f"the loss {chosen.defaults['loss2']}" if chosen.words.get("losses") else "flipped labels"
        raise UsageError(
            f"--average {method} is for the squared error of one output, and has no equations for {what}; use "
            "--average subsets."
        )
    if get("ptest") is not None:
        raise UsageError(
            f"--ptest {get('ptest')} has no effect with --average {method}, which tests on the pool; leave it out "
            "(--pool sets its points)."
        )
    return AveragedNetwork, ("average",), {} if default is None else {"average": default}


def _usual_average(command: str, chosen: Losses, get: Callable[[str], Any]) -> str | None:
    """Return what `average` is unless it is given: maps of the squared error are averages, all else single draws.

    What single draws alone have asks for them: an experiment, test points of their own, a file taken as a whole.
    """
    if command != "phase-diagram" or chosen.words.get("losses") or get("flips2") is not None:
        return None
    whole = str(get("source")).strip().startswith("file:") and get("p2") is None and get("alpha2") is None
    single = whole or get("ptest") is not None or bool(get("simulate"))
    return None if single else "auto"


def _size(stage: str, get: Callable[[str], Any], from_file: bool) -> tuple[str, Any]:
    """Return the option that sets the number of samples of a stage, and its default."""
    word = {"1": "source", "2": "target"}[stage]
    if get(f"alpha{stage}") is not None:
        if get(f"p{stage}") is not None:
            raise UsageError(
                f"--p{stage} and --alpha{stage} are both given, but each sets the number of {word} samples "
                f"(P{stage} = round(alpha{stage} D)); give one."
            )
        return f"alpha{stage}", None
    return f"p{stage}", None if from_file else {"1": DEFAULT_P1, "2": DEFAULT_P2}[stage]


def _check(source: str, target: str, sizes: list[tuple[str, Any]], get: Callable[[str], Any]) -> int:
    """Check tasks and the largest sizes; return the dimension of the inputs."""
    rest: dict[str, Any] = {name: get(name) for name in ("ptest", "drop_columns", "meaning")} | {
        name: bool(get(name)) for name in ("colour", "raw_inputs")
    }
    rest["flips"] = tuple(0.0 if get(f"flips{k}") is None else float(get(f"flips{k}").array.max()) for k in (1, 2))
    dim = check_tasks(source, target, dim=get("dim"), p1=1, p2=1, **rest)
    largest: dict[str, int | None] = {"p1": None, "p2": None}  # the default of a source alone
    for size, default in sizes:
        values = get(size)
        counts = [default] if values is None else [samples(size, v, dim) for v in values.array.tolist()]
        largest[f"p{size[-1]}"] = max(counts)
    return check_tasks(source, target, dim=get("dim"), p1=largest["p1"], p2=largest["p2"], **rest)


def _records(layout: str, name: str, get: Callable[[str], Any], limit: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the axes of records, and the durations of the stages with their defaults; `limit`: t = inf has a limit."""
    duration = LONGEST if get("until") is not None else DURATION
    last = math.inf if name == "network-frozen" and limit else duration
    times = get("times")
    line = None if times is None else np.sort(times.array)
    if layout == "curve":
        default, step = duration if line is None else float(line[-1]), step_of(get("integrator"), get("dt"))
        stages = {"t1": default, "t2": default}
        lengths = [
            {len(recorded(line, t, duration, step)) for t in ([default] if get(k) is None else get(k).array.tolist())}
            for k in stages
        ]
        counts = {sum(pair) for pair in itertools.product(*lengths)}
        if len(counts) > 1:
            raise UsageError("several t1 or t2 would record different numbers of --times; give one t1 and one t2.")
        return {"record": np.arange(float(counts.pop()))}, stages
    before = {} if layout == "pretrain" else {"t1": duration}
    if line is not None:
        return {"time": line}, before
    return {}, {**before, "time": duration if layout == "pretrain" else last}
