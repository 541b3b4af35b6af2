"""Which columns of a table are written: those asked for, or those that vary; what is left out is told beside it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlcli.errors import UsageError, suggest
from tlcli.report.files import content_of
from tlcli.report.tables import Block, cells_of, column_names

KEY = "table"  # of the provenance
_ALWAYS = ("case", "status")
_WHICH = ("stage", "time", "task")  # tell rows apart where they vary
_VARIANTS = ("experiment", "width", "nets", "trials")


@dataclass(frozen=True)
class Trim:
    """What a file holds of a table: its whole header, the names that are written, and the cells of constant columns."""

    header: Sequence[str]
    written: Sequence[str]
    constant: Mapping[str, str] = field(default_factory=dict)

    @property
    def left_out(self) -> list[str]:
        """The columns whose numbers are nowhere in the files."""
        return [name for name in self.header if name not in self.written and name not in self.constant]

    def told(self) -> dict[str, Any]:
        """Return what the provenance says, from which `read_trim` makes the same again."""
        return {"header": list(self.header), "written": list(self.written), "constant": dict(self.constant)}

    def whole(self, rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        """Return rows of the file with the constant columns in their places."""
        names = [name for name in self.header if name in self.written or name in self.constant]
        return [
            {name: self.constant[name] if name in self.constant else row.get(name, "") for name in names}
            for row in rows
        ]


def names_of(text: str) -> list[str]:
    """Return the columns that --columns names.

    Raises:
        UsageError: an empty name.
    """
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise UsageError(f"columns: '{text}' names no column beside a comma; use loss or loss,gain.")
    return list(dict.fromkeys(names))


def check_columns(asked: Sequence[str], known: Sequence[str]) -> None:
    """Refuse columns that the table will not have.

    Raises:
        UsageError: with the nearest one that it has.
    """
    for name in asked:
        if name not in known:
            raise UsageError(
                f"columns: '{name}' is no column of this table{suggest(name, known)}; they are {', '.join(known)}."
            )


def trimmed(blocks: Sequence[Block], asked: Sequence[str], tidy: bool) -> Trim:
    """Return what is written of a table: without `asked` all, `tidy` without the columns that are constant in it.

    What tells its rows apart is always written, and so is the status where it varies. A single row, of which nothing
    varies, is whole without `asked`.
    """
    header = column_names(blocks)
    axes = {name for block in blocks for name in block.axes}
    kept = {*asked, *_ALWAYS, *_WHICH, *axes, *(_VARIANTS if "experiment" in axes else ())}
    wanted = [name for name in header if name in kept] if asked else header
    cut = bool(asked) or sum(block.size for block in blocks) > 1
    constant = {}
    for name in header if cut else ():
        dropped = name not in wanted or (name not in asked and name != "case" and (tidy or name in _WHICH))
        cell = _constant(blocks, name) if dropped else None
        if cell is not None:
            constant[name] = cell
    return Trim(header, [name for name in wanted if name not in constant], constant)


def _constant(blocks: Sequence[Block], name: str) -> str | None:
    """Return the one cell of a column, None where there are several."""
    found: set[str] = set()
    for block in blocks:
        found |= set(cells_of(block, name).ravel().tolist())
        if len(found) > 1:
            return None
    return found.pop() if found else None


def read_trim(provenance: Path) -> Trim | None:
    """Return what a provenance says that is not in its table; None where the table is whole, or nothing is known."""
    try:
        told = json.loads(content_of(provenance))[KEY]
        return Trim(list(told["header"]), list(told["written"]), dict(told["constant"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
