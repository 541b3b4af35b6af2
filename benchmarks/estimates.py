"""Is the time that `--dry-run` says true? `python -m benchmarks.estimates [--budget SECONDS] [RECIPE...]`

For every part of a recipe (a case's theory, a group of its experiments) it prints estimate and truth in seconds of
processor time, which a busy machine does not change. Tasks are taken at equal steps through the grid, as many as the
budget allows (60 s by default); what a single task exceeds is announced only. A recipe with + stands at the size of
the tests.
"""

import argparse
import importlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["TLCLI_THREADS"] = "1"
time.perf_counter = time.process_time

from tests.recipe_regression import CI_FLAGS, RECIPES  # noqa: E402
from tlcli.options.commands import COMMANDS  # noqa: E402
from tlcli.run.again import any_recipe  # noqa: E402
from tlcli.run.cost import theory_cost  # noqa: E402
from tlcli.run.dry_run import one_trial, spread  # noqa: E402
from tlcli.run.execute import execute  # noqa: E402
from tlcli.run.job import Job, prepare  # noqa: E402
from tlcli.run.solve import planned  # noqa: E402
from tlcli.sweep.runner import Task, evaluate, left_of  # noqa: E402
from tlcli.theories.base import Case, PointByPoint  # noqa: E402
from tlcli.theories.bayes.cost import cost_of  # noqa: E402
from tlcli.theories.network import average_cost, cost  # noqa: E402

_MOST = 12  # tasks of a part

Expected = Callable[[Sequence[Task]], float]


def main(names: Sequence[str], budget: float) -> None:
    cost._limited = _here  # pyright: ignore[reportPrivateUsage]
    for name in names or [path.stem for path in RECIPES if "cifar10" not in path.stem]:
        recipe = any_recipe(name.rstrip("+"))
        flags = CI_FLAGS.get(name.rstrip("+"), {}) if name.endswith("+") else {}
        command = str(recipe.command)
        options = COMMANDS[command].options
        job = prepare(command, options, recipe, flags)
        for part, expected, tasks in _parts(job):
            print(f"{name} {part}: {_compared(expected, left_of(tasks, None), budget)}", flush=True)
        if not any(isinstance(case.theory, PointByPoint) or case.experiments for case in job.cases):
            announced = sum(theory_cost(case)[0] for case in job.cases)
            with tempfile.TemporaryDirectory() as folder:
                start = time.process_time()
                for case in job.cases:
                    case.theory.columns(case)
                alone = time.process_time() - start
                execute(command, options, recipe, {**flags, "output": str(Path(folder, "out")), "quiet": True})
                whole = time.process_time() - start - alone
            print(f"{name}: {announced:.2f} s expected, {whole:.2f} s taken, {alone:.2f} s by the theory", flush=True)


def _parts(job: Job) -> Iterator[tuple[str, Expected, Sequence[Task]]]:
    """Return what takes time point by point, with what `--dry-run` expects of its tasks."""
    for case in job.cases:
        if isinstance(case.theory, PointByPoint) and (tasks := case.theory.tasks(case, job.settings["seed"])):
            yield case.label or "theory", _expected(case), tasks
    for case in job.cases:
        for variant, _, tasks in planned(case, job.settings):
            trials = int(job.settings["trials"]) if "trials" in tasks[0].parameters else None
            yield f"{case.label or ''} experiment {variant.get('width', '')}", _of_experiment(trials), tasks


def _expected(case: Case) -> Expected:
    if case.theory.name.startswith("bayes"):
        return lambda tasks: cost_of(tasks).seconds
    if tasks_of_average(case):
        return lambda tasks: sum(average_cost.expected_seconds(tasks))
    return cost.expected_seconds


def tasks_of_average(case: Case) -> bool:
    return hasattr(importlib.import_module(type(case.theory).__module__), "pools_of")


def _of_experiment(trials: int | None) -> Expected:
    def expected(tasks: Sequence[Task]) -> float:
        if trials is not None:
            return one_trial(tasks[0]) * trials * len(tasks)
        function = importlib.import_module(tasks[0].function.partition(":")[0]).expected_cost
        each = [function(task.parameters)[0] for task in spread(tasks)]
        return sum(each) / len(each) * len(tasks)

    return expected


def _compared(expected: Expected, tasks: Sequence[Task], budget: float) -> str:
    """Return what is expected of some of the tasks, and what they take."""
    count, told = len(tasks), f"of {len(tasks)} tasks"
    some, start = tasks[:: -(-count // _MOST)], time.process_time()
    seconds = expected(some)
    looked = time.process_time() - start
    if seconds > budget and len(some) > 1:
        some = some[:: -(-len(some) // max(1, int(len(some) * budget / min(seconds, 1e9))))]
        seconds = expected(some)
    words = f"{len(some)} {told}: {seconds:.1f} s expected after {looked:.1f} s"
    if seconds > 2 * budget:
        return f"{words}, announced only"
    start = time.process_time()
    for task in some:
        evaluate(task.function, task.parameters, task.seed)
    took = time.process_time() - start
    return f"{words}, {took:.1f} s taken: {seconds / took:.2f}"


def _here(task: Task, parameters: Mapping[str, Any], tell: cost.Heard) -> float:
    """Look at a deep network in this process, whose time is counted."""
    record, seconds = evaluate(task.function, parameters, task.seed)
    tell(task, record)
    return seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimates", description=__doc__)
    parser.add_argument("--budget", type=float, default=60.0)
    parser.add_argument("names", nargs="*", metavar="RECIPE")
    given = parser.parse_args()
    main(given.names, given.budget)
