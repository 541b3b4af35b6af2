"""A folder that holds another job's result: two runs of one command must not overwrite each other silently."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tlcli.errors import RecipeError, UsageError
from tlcli.options import DRAWN, OPTIONS, WRITTEN
from tlcli.report.provenance import PROVENANCE
from tlcli.run.again import facts_inside
from tlcli.run.job import Job

_SAME_NUMBERS = {"x", "y", *DRAWN, *WRITTEN}  # how a result is drawn or written makes it no other
_SHOWN = 60


def refuse_another(job: Job, folder: Path) -> None:
    """Refuse a folder whose provenance tells of another job.

    Raises:
        UsageError: with the first setting that differs, and both of its values.
    """
    try:
        there = facts_inside(folder / PROVENANCE)
    except RecipeError:  # nothing is there, or what no run wrote, which is refused as such
        return
    for name, old, new in _differences(there, job):
        raise UsageError(
            f"'{folder}' holds another result: its {name} is {_text(old)}, not {_text(new)}; give another folder with "
            "-o, or --force to replace it."
        )


def _differences(there: Mapping[str, Any], job: Job) -> Iterator[tuple[str, Any, Any]]:
    """Yield the settings that differ, with the value there and the new one."""
    if there["command"] != job.command:
        yield "command", there["command"], job.command
    old, new = there["recipe"], json.loads(json.dumps(job.resolved))
    for name in dict.fromkeys([*OPTIONS, *new, *old]):
        if name not in _SAME_NUMBERS and old.get(name) != new.get(name):
            yield name, old.get(name), new.get(name)
    if there["seed"] != job.settings["seed"]:
        yield "seed", there["seed"], job.settings["seed"]


def _text(value: Any) -> str:
    text = "not given" if value is None else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
