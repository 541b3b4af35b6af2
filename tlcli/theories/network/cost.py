"""How long networks will take: a few points of a sweep are solved with two repeats, in place of all of them.

The number of evaluations of the dynamics, which is not known before, hardly depends on the number of neurons and not on
that of repeats; so what a point takes follows from what two repeats of it take. The repeats of a deep network have as
many neurons as the directions that its first one finds ask for: one repeat of few neurons finds about as many.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from tlcli.dmft.deep.size import neurons_for
from tlcli.dmft.estimates import small_sample
from tlcli.dmft.field import thread_count
from tlcli.dmft.network_transfer import finer, planned
from tlcli.dmft.plan import Plan
from tlcli.errors import UsageError
from tlcli.sweep.executors import make_executor
from tlcli.sweep.runner import Record, Task, evaluate
from tlcli.theories.network.points import data_of, numerics_of, settings_of

_LOOKED_AT = 3  # points of a sweep
_FEW, _PAIR = 64, 2  # neurons and repeats of a first look
_FEW_DEEP, _LEAST_SLOPE = 512, 0.5  # neurons of a first look at a deep network; the least part that grows with them
_LONG = 15.0  # seconds, which a look shall not take by much
LIMIT = 60.0  # seconds, at which a look at a deep network is given up
_AGAIN = 0.6  # of a repeat: the look at the error of the integration


Heard = Callable[[Task, Record], object]  # of a look at a deep network, its record


def expected_seconds(tasks: Sequence[Task], tell: Heard = lambda *_: None) -> float:
    """Return the seconds that all tasks take one after the other, from a few spread over them; 0 where none is left.

    Infinity where a look at a deep network did not end within `LIMIT`.
    """
    return _from_some(tasks, lambda task: _of_point(task, tell))


def _from_some(tasks: Sequence[Task], seconds: Callable[[Task], float]) -> float:
    """Return the seconds of all tasks from those of up to three at equal steps; fewer, where these take long."""
    count = min(_LOOKED_AT, len(tasks))
    start, found = time.perf_counter(), list[float]()
    for i in range(count):
        found.append(seconds(tasks[(2 * i + 1) * len(tasks) // (2 * count)]))
        if time.perf_counter() - start > _LONG:
            break
    return len(tasks) * sum(found) / len(found) if found else 0.0


def _of_point(task: Task, tell: Heard) -> float:
    """Return the seconds of one point."""
    p = {**task.parameters, "keep": False}
    chosen = planned(data_of(p), settings_of(p), numerics_of(p))
    deep = settings_of(p).depth > 1
    if chosen is None or chosen.kind in ("exact", "quadrature"):  # no sample, no repeats: as it is
        return _limited(task, p, tell) if deep else _look(task, p)[1]
    pair = {"repeats": min(_PAIR, chosen.repeats)}
    if deep:
        return _of_deep(task, p, chosen, tell)
    neurons = min(_FEW, chosen.neurons)
    record, seconds = _look(task, {**p, **pair, "neurons": neurons})
    fitting = int(neurons * max(1.0, _LONG / max(seconds, 1e-9)))
    more, slope = min(chosen.neurons, fitting), seconds / neurons
    if more > neurons:
        record, longer = _look(task, {**p, **pair, "neurons": more})
        # The part that grows with the neurons, where the two looks are far enough apart to tell it from noise.
        slope = max(0.0, longer - seconds) / (more - neurons) if more >= 2 * neurons else longer / more
        seconds, neurons = longer, more
    again = _again(p, record, neurons * pair["repeats"], chosen)
    whole = sum(seconds + slope * max(0.0, work - neurons) for work in (_work(chosen), again) if work)
    return whole * _rounds(chosen, chosen.repeats) / _rounds(chosen, _PAIR)


def _again(p: Mapping[str, Any], record: Record, looked: int, chosen: Plan) -> int:
    """Return the neurons with which a point will be solved once more, 0 if not, by the error of a look.

    `looked` are the neurons of all repeats of it; errors fall with the root of their number.
    """
    reached = float(record.get("info", {}).get("reached", math.nan))
    if chosen.repeats < _PAIR or not reached > 0:
        return 0
    reached *= small_sample(chosen.repeats) / small_sample(_PAIR)
    second = finer(numerics_of(p), reached * math.sqrt(looked / (_work(chosen) * chosen.repeats)))
    with suppress(UsageError):  # more neurons than allowed
        plan = planned(data_of(p), settings_of(p), second) if second is not None else None
        return _work(plan) if plan is not None else 0
    return 0


def _of_deep(task: Task, p: Mapping[str, Any], chosen: Plan, tell: Heard) -> float:
    """Return the seconds of a deep network that is sampled, from looks at a repeat of few neurons and of twice as many.

    More looks follow where the directions are nearly as many as the neurons that could show them.
    """
    looks, rank, spent = list[tuple[int, float]](), 0, 0.0

    def heard(looked: Task, record: Record) -> None:
        nonlocal rank
        rank = max(rank, int(record.get("info", {}).get("revealed") or 0))
        tell(looked, record)

    whole, few = chosen.neurons, min(_FEW_DEEP, chosen.neurons)
    while True:
        seconds = _limited(task, {**p, "repeats": 1, "neurons": few}, heard)
        if seconds == math.inf and not looks:
            return seconds
        if seconds == math.inf:
            break
        looks.append((few, seconds / (1 + _AGAIN)))
        whole, spent = neurons_for(numerics_of(p), chosen.neurons, rank), spent + seconds
        if few >= whole or spent > _LONG or (len(looks) > 1 and rank < few / 2):
            break
        few = min(2 * few, whole)
    last, seconds = looks[-1]
    slope = seconds / last
    if len(looks) > 1:
        before, less = looks[-2]
        slope = max(_LEAST_SLOPE * slope, (seconds - less) / (last - before))

    def of(neurons: int) -> float:
        return seconds + slope * (neurons - last)  # of one repeat

    again = of(chosen.neurons) if whole > chosen.neurons else 0.0  # the first repeat was one of too few neurons
    return again + of(whole) * _rounds(chosen, chosen.repeats)


def _work(chosen: Plan) -> int:
    """Return the neurons of a repeat; those that stream through a frozen field cost as much as others."""
    return chosen.neurons + chosen.iterations * chosen.streamed


def _rounds(chosen: Plan, repeats: int) -> float:
    """Return how often the threads are filled by repeats, and once more in part."""
    return math.ceil(min(repeats, chosen.repeats) / thread_count()) + _AGAIN


def _look(task: Task, parameters: Mapping[str, Any]) -> tuple[Record, float]:
    return evaluate(task.function, parameters, task.seed)


def _limited(task: Task, parameters: Mapping[str, Any], tell: Heard) -> float:
    """Return the same, in a process of its own that ends at the limit: then infinity."""
    try:
        with make_executor("local", 2) as pool:
            record, seconds = pool.submit(evaluate, task.function, parameters, task.seed).result(LIMIT)
        tell(task, record)
        return seconds
    except TimeoutError:
        return math.inf
