"""Where results go and how points are computed: what changes no number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlcli.options import INVOCATION, OPTIONS
from tlcli.paths import expanded
from tlcli.run.messages import Messages
from tlcli.sweep.runner import Shard, SweepResult, Task, parse_shard, run_sweep
from tlcli.sweep.store import PointStore


@dataclass(frozen=True)
class Invocation:
    """Where results go and how experiments run: settings that do not change any number."""

    output: str | None
    jobs: int
    executor: str
    shard: str | None
    store: str | None
    force: bool
    dry_run: bool
    quiet: bool
    strict: bool
    allow_code: bool

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Invocation":
        """Return what settings say of it, with the defaults for the rest."""
        found: dict[str, Any] = {
            n: OPTIONS[n].parse(settings[n]) if n in settings else OPTIONS[n].default for n in INVOCATION
        }
        found |= {n: str(expanded(found[n])) for n in ("output", "store") if found[n]}
        return cls(**found)

    @property
    def to_stdout(self) -> bool:
        """Whether the table goes to standard output and no file is written."""
        return self.output == "-"

    @property
    def share(self) -> Shard | None:
        """The shard as numbers, None where all is computed. Raises UsageError."""
        return parse_shard(self.shard) if self.shard is not None else None

    def folder(self, name: str) -> Path:
        """The folder that receives the results."""
        return Path(self.output) if self.output else Path("results") / name

    def sweep(
        self, label: str, tasks: Sequence[Task], store: PointStore | None, messages: Messages, most: int | None = None
    ) -> SweepResult:
        """Run tasks as the invocation says, with progress; tell warnings of the store. `most` limits --jobs."""
        with messages.progress(label) as progress:
            result = run_sweep(
                tasks,
                store=store,
                executor_spec=self.executor,
                jobs=self.jobs if most is None else min(self.jobs, most),
                shard=self.share,
                progress=progress.update,
            )
        for warning in result.warnings:
            messages.warn(warning)
        return result
