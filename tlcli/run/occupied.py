"""A folder that holds another job's result: two runs must not overwrite each other silently."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tlcli.errors import RecipeError, UsageError
from tlcli.options import DRAWN, OPTIONS, WRITTEN
from tlcli.report.folder import hidden_folders
from tlcli.report.provenance import PROVENANCE
from tlcli.run.again import facts_inside
from tlcli.run.job import Job

_SAME_NUMBERS = {"x", "y", *DRAWN, *WRITTEN}  # how a result is drawn or written makes it no other
_SHOWN = 60


def refuse_another(job: Job, folder: Path) -> None:
    """Refuse a folder whose provenance tells of another job, unless the job has all its points and more.

    Raises:
        UsageError: with the first setting that differs, and both of its values.
    """
    lost = []
    for place in (folder, *hidden_folders(folder)):  # where a run was killed, its files may stand in both
        try:
            facts = facts_inside(place / PROVENANCE)
        except RecipeError:  # nothing is there, or what no run wrote, which is refused as such
            continue
        lost.append(next(_differences(facts, job), None))
    if not lost or None in lost:
        return
    name, old, new = lost[0] or ("", None, None)
    stores = any(path.is_file() for path in (folder / "store.json", *folder.glob("*/store.json")))
    shared = f" (and --store {folder}, whose points are then used)" if stores else ""
    raise UsageError(
        f"'{folder}' holds another result: its {name} is {_text(old)}, here {_text(new)}; give another folder with -o"
        f"{shared}, or --force to replace it."
    )


def holds_this(job: Job, folder: Path) -> bool:
    """Whether the table of this very job is in the folder."""
    try:
        facts = facts_inside(folder / PROVENANCE)
    except RecipeError:
        return False
    old, new = facts["recipe"], json.loads(json.dumps(job.resolved))
    same = all(old.get(name) == new.get(name) for name in {*old, *new} - _SAME_NUMBERS)
    return same and next(_differences(facts, job), None) is None and (folder / "table.csv").is_file()


def _differences(there: Mapping[str, Any], job: Job) -> Iterator[tuple[str, Any, Any]]:
    """Yield the settings that differ, with the value there and the new one."""
    if there["command"] != job.command:
        yield "command", there["command"], job.command
    old, new = there["recipe"], json.loads(json.dumps(job.resolved))
    for name in dict.fromkeys(["solver", "simulate", *OPTIONS, *new, *old]):
        was, now = old.get(name), new.get(name)
        if name not in _SAME_NUMBERS and was != now and not _grown(name, was, now):
            yield name, was, now
    if there["seed"] != job.settings["seed"]:
        yield "seed", there["seed"], job.settings["seed"]


def _grown(name: str, old: Any, new: Any) -> bool:
    """Whether a grid has every value that it had, so that no point is lost."""
    option = OPTIONS.get(name)
    if option is None or option.kind != "grid" or any(one is None or one in option.words for one in (old, new)):
        return False
    try:
        before, after = option.parse(old), option.parse(new)
    except UsageError:  # of another version
        return False
    return bool(np.isin(before.array, after.array).all())


def _text(value: Any) -> str:
    text = "not given" if value is None else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
