"""Is the time that `--dry-run` says true? `python -m benchmarks.estimates [RECIPE...]`, with + for its full size.

For the networks of every case it prints estimate and truth in seconds of processor time, which a busy machine does not
change, on at most twelve points spread over the grid.
"""

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

os.environ["TLCLI_THREADS"] = "1"
time.perf_counter = time.process_time

from tests.recipe_regression import CI_FLAGS, NETWORKS  # noqa: E402
from tlcli.options.commands import COMMANDS  # noqa: E402
from tlcli.run.again import any_recipe  # noqa: E402
from tlcli.run.job import prepare  # noqa: E402
from tlcli.sweep.runner import Task, evaluate  # noqa: E402
from tlcli.theories.network import cost  # noqa: E402

_MOST = 12


def _here(task: Task, parameters: Mapping[str, Any], tell: cost.Heard) -> float:
    """Look at a deep network in this process, whose time is counted."""
    record, seconds = evaluate(task.function, parameters, task.seed)
    tell(task, record)
    return seconds


def main(names: list[str]) -> None:
    cost._limited = _here  # pyright: ignore[reportPrivateUsage]
    for name in names or [name for name in NETWORKS if "cifar10" not in name]:
        recipe = any_recipe(name.rstrip("+"))
        flags = {} if name.endswith("+") else CI_FLAGS.get(name, {})
        job = prepare(str(recipe.command), COMMANDS[str(recipe.command)].options, recipe, flags)
        for case in job.cases:
            tasks = list(case.theory.tasks(case, 0))
            tasks = tasks[:: -(-len(tasks) // _MOST)]
            start = time.process_time()
            expected = cost.expected_seconds(tasks)
            looked = time.process_time()
            for task in tasks:
                evaluate(task.function, task.parameters, task.seed)
            took = time.process_time() - looked
            words = f"{expected:.1f} s expected after {looked - start:.1f} s, {took:.1f} s taken: {expected / took:.2f}"
            print(f"{name} {case.label or ''}: {words}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
