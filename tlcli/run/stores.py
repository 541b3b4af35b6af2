"""Where finished points are kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tlcli.errors import UsageError
from tlcli.run.invocation import Invocation
from tlcli.run.job import Job
from tlcli.sweep.store import PointStore
from tlcli.theories.base import Case, Experiment


@dataclass(frozen=True, eq=False)
class Stores:
    """Where finished points are kept: those of costly theories, and experiments."""

    theory: Mapping[str, PointStore]  # by name
    experiments: PointStore | None

    def of(self, case: Case) -> PointStore | None:
        """The store of a case's theory."""
        return self.theory.get(case.theory.store or "")

    def settle(self, *, whole: bool) -> None:
        """Discard what --force replaces, now that the result stands."""
        for store in (*self.theory.values(), *([self.experiments] if self.experiments else [])):
            store.settle(whole=whole)


def stores_of(job: Job, how: Invocation) -> Stores:
    """Return where costly points and experiments are kept; None where there are none or nothing is to be written."""
    costly = any(case.theory.store for case in job.cases)
    experiments = any(case.experiments for case in job.cases)
    if not (costly or experiments) and how.shard is not None:
        raise UsageError("--shard divides experiments; it needs --simulate.")
    if how.store is None and how.to_stdout:
        return Stores({}, None)
    folder = Path(how.store) if how.store else how.folder(job.name)
    force = how.force and not how.dry_run
    theory: dict[str, PointStore] = {}
    for case in job.cases:
        name = case.theory.store
        if name is not None and name not in theory:
            theory[name] = PointStore(folder / name, name, case.theory.version, force=force)
    return Stores(theory, PointStore(folder, "experiments", Experiment.version, force=force) if experiments else None)
