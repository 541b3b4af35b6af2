"""Flags that would have no effect beside the others are refused: whoever gives one expects something of it.

What a theory does not use is refused in `tlcli.run.job`. Flags of how to run (`HOW`) may always be given, and a recipe
may hold what this run leaves out.
"""

from collections.abc import Mapping
from typing import Any

from tlcli.errors import UsageError
from tlcli.options import DRAWN, OPTIONS, WRITTEN
from tlcli.run.job import Job
from tlcli.run.messages import Messages

HOW = (*WRITTEN, "seed", "jobs", "executor", "store", "force", "dry_run", "quiet", "strict", "allow_code", "output")
_FILES = ("predictions", "kernels", "two_time", "responses", "test_kernels", "correlations")
_WIDE = {"network", "posterior"}  # experiments whose networks have a width


def check_flags(job: Job, flags: Mapping[str, Any], console: Messages) -> None:
    """Refuse flags without effect, and tell what a recipe asks for that standard output does not take.

    Raises:
        UsageError: a flag that has no effect with -o -, without --simulate or with another experiment.
    """
    given = [name for name, value in flags.items() if value is not None and value is not False]
    if flags.get("output") == "-":
        _check_stdout(job, given, flags, console)
    running = {experiment.name for case in job.cases for experiment in case.experiments}
    repeated = {case.theory.repeated for case in job.cases if case.experiments}
    for name, effective, needed in (
        ("trials", "trials" in repeated, "trials are of linear solvers"),
        ("nets", "nets" in repeated, "nets are of networks; linear solvers have --trials"),
        ("width", bool(running & _WIDE), "only --experiment network has a width"),
        ("dim", True, ""),
    ):
        if name not in given or (
            name == "dim" and any("dim" in case.words or "dim" in case.grid.values for case in job.cases)
        ):
            continue
        if not running:
            raise UsageError(f"{OPTIONS[name].flag} has an effect with --simulate only; add it.")
        if not effective:
            raise UsageError(f"{OPTIONS[name].flag} has no effect here: {needed}; leave it out.")


def _check_stdout(job: Job, given: list[str], flags: Mapping[str, Any], console: Messages) -> None:
    roles = tuple(role for role in ("x", "y") if "=" not in str(flags.get(role)))
    for names, reason in (
        (_FILES, "writes the table alone"),
        ((*DRAWN, *roles), "draws no figure"),
        (("shard",), "stays empty, for a shard writes no table"),
    ):
        for name in given:
            if name in names:
                raise UsageError(
                    f"{OPTIONS[name].flag} has no effect with -o -, which {reason}; give a folder, -o DIR."
                )
    for name in _FILES:
        if name not in given and any(case.words.get(name) for case in job.cases):
            console.note(f"-o - writes the table alone, not the {name} that the recipe asks for.")


def tell_undrawn(job: Job, console: Messages) -> None:
    """Tell settings of a figure where nothing is drawn."""
    for name in DRAWN:
        if job.settings[name] not in (None, OPTIONS[name].default):
            console.note(f"{OPTIONS[name].flag} has no effect: nothing is drawn where no parameter has several values.")
