"""Evaluate many points: reuse what is stored, compute the rest, keep every result as soon as it is there."""

import hashlib
import importlib
import queue
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

from tlcli.errors import TlcliError, UsageError
from tlcli.sweep.drawn import Drawn, of_points
from tlcli.sweep.encoding import canonical_json, plain
from tlcli.sweep.executors import SerialExecutor, limit_threads, make_executor
from tlcli.sweep.forms import check_of
from tlcli.sweep.seeds import point_seed
from tlcli.sweep.store import PointStore

Record = dict[str, Any]
Shard = tuple[int, int]  # (i, n), 1 <= i <= n
FAILED = "failed"  # the `status` of a point that has no answer: it is not stored, the next run tries again


@dataclass(frozen=True)
class Task:
    """One point to compute.

    `function` is "package.module:function", called as `function(parameters, seed_sequence)` in a worker;
    it returns a dict of numbers, texts and lists of these; a `check_record` in its module judges those that are read
    from a store (`tlcli.sweep.forms`). `parameters` are JSON data, inf allowed; 1 and 1.0 are the same point. `seed` is
    the sweep's; the point's own stream is made of it and of the parameters. `point` (in C order of a grid) and `draw`
    say where its record belongs; they are no part of what it is.
    """

    function: str
    parameters: Mapping[str, Any]
    seed: int = 0
    point: int = 0
    draw: int = 0


@dataclass(frozen=True)
class Placed:
    """A record with the point of the grid and the draw of the data that it belongs to; None: of another shard."""

    point: int
    draw: int
    record: Record | None


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found.

    `records` has one entry per task, in task order: None where the task belongs to another shard, and
    `{"status": "failed", "message": …}` where the function raised. Counts are of different points.
    `wall_seconds` is the time of the whole sweep, `mean_seconds` that of one computed point (0 if none was).
    """

    records: list[Record | None]
    n_computed: int
    n_reused: int
    n_failed: int
    warnings: list[str] = field(default_factory=list)
    wall_seconds: float = 0.0
    mean_seconds: float = 0.0

    def placed(self, tasks: Sequence[Task]) -> list[Placed]:
        """Return the records with the places of the tasks that they answer."""
        return [Placed(task.point, task.draw, record) for task, record in zip(tasks, self.records, strict=True)]


def parse_shard(text: str) -> Shard:
    """Read "2/5", the second of five shards.

    Raises:
        UsageError: not i/n with 1 <= i <= n.
    """
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"shard: '{text}' is not a shard; use i/n with 1 <= i <= n, as in 2/5.")
    return int(match[1]), int(match[2])


def plan(tasks: Sequence[Task], store: PointStore | None, shard: Shard | None = None) -> tuple[int, int]:
    """Return (number of different points, how many of them are stored); compute and write nothing."""
    if _all_new(tasks, store, shard):
        return len(left_of(tasks, store)), 0
    keys = [key for key in dict.fromkeys(_keys(tasks, store)) if _mine(key, shard)]
    return len(keys), sum(store.has(key) for key in keys) if store else 0


def left_of(tasks: Sequence[Task], store: PointStore | None, shard: Shard | None = None) -> Sequence[Task]:
    """Return the different tasks that are not stored, of a shard; compute and write nothing."""
    if isinstance(tasks, Drawn) and _all_new(tasks, store, shard):
        return of_points(tasks, left_of(tasks.first, None))  # draws of a point are different, whatever else they are
    unique = {key: task for key, task in zip(_keys(tasks, store), tasks, strict=True) if _mine(key, shard)}
    return [task for key, task in unique.items() if store is None or not store.has(key)]


def run_sweep(
    tasks: Sequence[Task],
    *,
    store: PointStore | None = None,
    executor_spec: str = "local",
    jobs: int = 1,
    shard: Shard | None = None,
    progress: Callable[[int, int], None] | None = None,
    max_in_flight: int | None = None,
) -> SweepResult:
    """Evaluate `tasks`, each different point once, and return their records in task order.

    The result depends on the tasks only, not on executor, jobs, shards, order or interruptions. `shard`
    (i, n), counted from 1, takes the points whose key is i-1 modulo n. `progress(done, total)` is called once
    after the store was read and then after each point. At most `max_in_flight` points are in flight.

    Raises:
        UsageError: an executor that cannot be used, or a task function that cannot be imported.
        WriteError: the store cannot be written.
        TlcliError: workers died in two pools one after the other; finished points are stored.
        KeyboardInterrupt: as it came; finished points are stored, running ones are abandoned.
    """
    if max_in_flight is not None and max_in_flight < 1:
        raise ValueError(f"max_in_flight is {max_in_flight}; use a whole number from 1")
    start = time.perf_counter()
    keys = _keys(tasks, store)
    unique = {key: task for key, task in zip(keys, tasks, strict=True) if _mine(key, shard)}
    n_old_warnings = len(store.warnings) if store else 0
    found: dict[str, Record] = _stored(unique, store) if store else {}
    n_reused, n_failed, seconds, total = len(found), 0, [], len(unique)
    if progress:
        progress(n_reused, total)

    def finish(key: str, record: Record, spent: float) -> None:
        nonlocal n_failed
        if record.get("status") == FAILED:
            n_failed += 1
        elif store:
            store.put(key, record)
        found[key] = record
        seconds.append(spent)
        if progress:
            progress(len(found), total)

    if todo := [(key, task) for key, task in unique.items() if key not in found]:
        for function in {task.function for _, task in todo}:
            _resolve(function)  # a mistyped function is one error here, not a failure of every point
        begin = store.prepare if store else lambda: None
        _compute(iter(todo), executor_spec, jobs, max_in_flight, begin, finish, lambda: f"{len(found)} of {total}")

    return SweepResult(
        records=[found.get(key) for key in keys],
        n_computed=len(seconds) - n_failed,
        n_reused=n_reused,
        n_failed=n_failed,
        warnings=store.warnings[n_old_warnings:] if store else [],
        wall_seconds=time.perf_counter() - start,
        mean_seconds=sum(seconds) / len(seconds) if seconds else 0.0,
    )


def evaluate(function: str, parameters: Mapping[str, Any], seed: int) -> tuple[Record, float]:
    """Compute one point in a worker; return its record, as the store would return it, and its seconds.

    An exception is a record with status "failed". Only KeyboardInterrupt ends the sweep.
    """
    start = time.perf_counter()
    try:
        limit_threads()
        call = _resolve(function)
        limit_threads()  # again: the import may have loaded another BLAS
        record = plain(call(dict(parameters), point_seed(seed, canonical_json(parameters))))
        if not isinstance(record, dict):
            raise TypeError(f"{function} returned {type(record).__name__}, not a dict")
    except (Exception, SystemExit) as error:  # SystemExit would end the worker, or the sweep itself
        text = " ".join(f"{type(error).__name__}: {error}".split())
        record = {"status": FAILED, "message": text.removesuffix(":")}
    return record, time.perf_counter() - start


_Job = tuple[str, Task]


def _compute(
    todo: Iterator[_Job],
    spec: str,
    jobs: int,
    limit: int | None,
    begin: Callable[[], None],
    finish: Callable[[str, Record, float], None],
    count: Callable[[], str],
) -> None:
    """Compute all of `todo`; if workers die, give what they left to one fresh pool."""
    error: Exception | None = None
    for _ in range(2):
        with make_executor(spec, jobs) as executor:
            begin()  # not before: an executor that cannot be used leaves no store behind
            if isinstance(executor, SerialExecutor):
                limit = 1  # each result is stored before the next point starts
            # No worker may wait; the size of a cluster is not known.
            in_flight = limit or (4 * jobs if spec == "local" else 1024)
            lost, error = _drive(executor, todo, in_flight, finish)
        if error is None:
            return
        todo = chain(lost, todo)
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    raise TlcliError(
        f"workers of executor '{spec}' died twice ({reason}); {count()} points are finished, those in a "
        "store are kept; give the same command again, with fewer --jobs if memory was short."
    ) from error


def _drive(
    executor: Executor, todo: Iterator[_Job], limit: int, finish: Callable[[str, Record, float], None]
) -> tuple[list[_Job], Exception | None]:
    """Feed `todo` to one executor; return the points it lost and the first error of the executor itself."""
    done: queue.SimpleQueue[Future[tuple[Record, float]]] = queue.SimpleQueue()
    pending: dict[Future[tuple[Record, float]], _Job] = {}
    lost: list[_Job] = []
    failure: Exception | None = None

    def take(future: Future[tuple[Record, float]]) -> None:
        nonlocal failure
        key, task = pending.pop(future)
        try:
            record, spent = future.result()
        except Exception as error:  # `evaluate` raises none: this is a dead worker or a lost connection
            failure = failure or error
            lost.append((key, task))
        else:
            finish(key, record, spent)

    try:
        while True:
            while failure is None and len(pending) < limit and (job := next(todo, None)):
                task = job[1]
                try:
                    future = executor.submit(evaluate, task.function, dict(task.parameters), task.seed)
                except Exception as error:
                    failure = error
                    lost.append(job)
                else:
                    pending[future] = job
                    future.add_done_callback(done.put)
            if not pending:
                return lost, failure
            take(done.get())
    except KeyboardInterrupt:
        while not done.empty():  # what is finished is kept
            take(done.get())
        raise


def _stored(unique: Mapping[str, Task], store: PointStore) -> dict[str, Record]:
    """Return the records that are stored and whole."""
    read = ((key, store.get(key, partial(_judge, task))) for key, task in unique.items())
    return {key: record for key, record in read if record is not None}


def _judge(task: Task, record: Record) -> None:
    _resolve(task.function)
    if check := check_of(task.function):
        check(task.parameters, record)


def _keys(tasks: Sequence[Task], store: PointStore | None) -> list[str]:
    if store is None:
        texts = (canonical_json([task.function, task.parameters, task.seed]) for task in tasks)
        return [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    if len({task.function for task in tasks}) > 1:
        raise ValueError("the tasks of one store must name one function: keys hold only the solver")
    return [store.key(task.parameters, task.seed) for task in tasks]


def _all_new(tasks: Sequence[Task], store: PointStore | None, shard: Shard | None) -> bool:
    """Whether the points of draws tell all: nothing is stored or left to others."""
    return isinstance(tasks, Drawn) and shard is None and (store is None or store.empty())


def _mine(key: str, shard: Shard | None) -> bool:
    return shard is None or int(key, 16) % shard[1] == shard[0] - 1


def _resolve(function: str) -> Callable[..., Any]:
    module, _, name = function.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"the task function '{function}' cannot be imported ({error}).") from error
