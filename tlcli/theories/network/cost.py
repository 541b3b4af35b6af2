"""How long networks will take: a few points of a sweep are solved with two repeats, in place of all of them.

The number of evaluations of the dynamics, which is not known before, hardly depends on the number of neurons and not on
that of repeats; so what a point takes follows from what two repeats of it take.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tlcli.dmft.field import thread_count
from tlcli.dmft.network_transfer import planned
from tlcli.dmft.plan import Plan
from tlcli.sweep.executors import make_executor
from tlcli.sweep.runner import Record, Task, evaluate
from tlcli.theories.network.points import data_of, expected_size_of, numerics_of, settings_of

_LOOKED_AT = 3  # points of a sweep
_FEW, _PAIR = 64, 2  # neurons and repeats of a first look
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
        return _limited(task, p, tell) if deep else _seconds(task, p)
    pair = {"repeats": min(_PAIR, chosen.repeats)}
    if deep:  # with all the neurons that their rank will ask for; the process of the look has one thread
        seconds = _limited(task, {**p, **pair, "neurons": expected_size_of(p).neurons}, tell)
        return seconds * _rounds(chosen, chosen.repeats) / (pair["repeats"] + _AGAIN)
    neurons = min(_FEW, chosen.neurons)
    seconds = _seconds(task, {**p, **pair, "neurons": neurons})
    fitting = int(neurons * max(1.0, _LONG / max(seconds, 1e-9)))
    more, slope = min(chosen.neurons, fitting), seconds / neurons
    if more > neurons:
        longer = _seconds(task, {**p, **pair, "neurons": more})
        # The part that grows with the neurons, where the two looks are far enough apart to tell it from noise.
        slope = max(0.0, longer - seconds) / (more - neurons) if more >= 2 * neurons else longer / more
        seconds, neurons = longer, more
    whole = seconds + slope * max(0.0, _work(chosen) - neurons)
    return whole * _rounds(chosen, chosen.repeats) / _rounds(chosen, _PAIR)


def _work(chosen: Plan) -> float:
    """Return the neurons of a repeat; those that stream through a frozen field cost as much as others."""
    return chosen.neurons + chosen.iterations * chosen.streamed


def _rounds(chosen: Plan, repeats: int) -> float:
    """Return how often the threads are filled by repeats, and once more in part."""
    return math.ceil(min(repeats, chosen.repeats) / thread_count()) + _AGAIN


def _seconds(task: Task, parameters: Mapping[str, Any]) -> float:
    return evaluate(task.function, parameters, task.seed)[1]


def _limited(task: Task, parameters: Mapping[str, Any], tell: Heard) -> float:
    """Return the same, in a process of its own that ends at the limit: then infinity."""
    try:
        with make_executor("local", 2) as pool:
            record, seconds = pool.submit(evaluate, task.function, parameters, task.seed).result(LIMIT)
        tell(task, record)
        return seconds
    except TimeoutError:
        return math.inf
