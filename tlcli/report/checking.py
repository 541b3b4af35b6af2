"""Whether tables are complete, converged and in agreement: one verdict per table in words, and an exit code."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlcli.errors import EXIT_CHECK_FAILED, EXIT_NOT_CONVERGED, EXIT_OK, UsageError, counted, digits
from tlcli.report.agreement import Agreement, assess
from tlcli.report.folder import strangers
from tlcli.report.numbers import rows

_SHOWN = 10


@dataclass(frozen=True)
class Checked:
    """What was found: the words that `tlcli check` prints, and its exit code; true where all is good."""

    text: str
    code: int

    def __bool__(self) -> bool:
        return self.code == EXIT_OK

    def __str__(self) -> str:
        return self.text


def check_tables(
    paths: Sequence[Path], sigmas: float, finite_size: float, strict: bool, tell: Callable[[str], None]
) -> int:
    """Tell a verdict for each table, line by line; return the most serious exit code. `strict`: inaccurate rows count.

    Raises:
        UsageError: a limit that is none, or a single table that is none.
    """
    for name, value in (("sigmas", sigmas), ("finite-size", finite_size)):
        if not 0 <= value < 1e6 or (name == "sigmas" and value == 0):
            raise UsageError(
                f"--{name} = {digits(value)} is not allowed; it must be a number from 0 to 1e6, sigmas above 0."
            )
    code = EXIT_OK
    for path in paths:
        try:
            found = _check_one(path, assess(path, finite_size), sigmas, strict, tell)
            found = max(found, _check_files(path / "table.csv" if path.is_dir() else path, tell))
        except UsageError as error:
            if len(paths) == 1:
                raise
            tell(f"{path}: {error}")
            found = error.exit_code
        code = max(code, found)
    return code


def _check_files(table: Path, tell: Callable[[str], None]) -> int:
    """Say which files beside the table, itself included, are not as the run of its provenance wrote them."""
    found = strangers(table)
    for sentence in found:
        tell(f"  ANOTHER RUN: {sentence}")
    return EXIT_CHECK_FAILED if found else EXIT_OK


def _tell_rows(found: Agreement, tell: Callable[[str], None]) -> bool:
    """Say whether rows are missing, too many or stand twice; return whether one of these is so."""
    incomplete = found.expected is not None and found.rows != found.expected
    if found.expected is None:
        if not found.beside:
            tell("  completeness unknown: no provenance.json beside the table")
    elif incomplete:
        word = "INCOMPLETE" if found.rows < found.expected else "TOO MANY ROWS"
        tell(f"  {word}: its provenance counts {rows(found.expected)}")
    for line, earlier in found.repeated[:_SHOWN]:
        tell(f"  REPEATED: line {line} is line {earlier} once more")
    if found.twice > _SHOWN:
        tell(f"  and {counted(found.twice - _SHOWN, 'more line')} once more")
    return incomplete or found.twice > 0


def _sound(found: Agreement, incomplete: bool) -> str:
    """Return what the rows are that nothing was told about."""
    words = ["complete"] if found.expected is not None and not incomplete else []
    words += [] if found.beside or found.unjudged or found.unsolved or found.inaccurate else ["converged"]
    return f"{' and '.join(words)}; " if words else ""


def _check_one(path: Path, found: Agreement, sigmas: float, strict: bool, tell: Callable[[str], None]) -> int:
    tell(f"{path}: {rows(found.rows)}")
    for fault in found.faults[:_SHOWN]:
        tell(f"  MEANINGLESS: {fault}")
    if found.faulty > _SHOWN:
        tell(f"  and {counted(found.faulty - _SHOWN, 'more place')}")
    incomplete = _tell_rows(found, tell)
    if found.unjudged:
        tell(
            "  CONVERGENCE UNKNOWN: the table has no column status, and no provenance.json beside it tells what was "
            "left out; check it in the folder of its run"
        )
    if found.left_out:
        tell(f"  TRIMMED (--columns), without what cannot be checked: {', '.join(found.left_out)}")
    if found.unsolved or found.missing:
        tell(f"  NOT CONVERGED: {rows(found.unsolved)} of theory, {rows(found.missing)} of experiment")
    if found.inaccurate:
        tell(f"  INACCURATE: {rows(found.inaccurate)} of theory with a larger error than the accuracy asked for")
    if found.faults:
        return EXIT_CHECK_FAILED
    beyond = found.disagreeing(sigmas)
    columns = found.disagreeing_columns(sigmas)
    worst = found.worst()
    if found.skipped:
        tell(f"  {rows(found.skipped)} not compared: alpha D is no whole number there; choose another --dim")
    if found.blank:
        tell(f"  {counted(found.blank, 'number')} not compared: theory has no finite value there")
    if worst is None and (found.skipped or found.blank or (found.measured and not found.missing)):
        tell("  NOTHING COMPARED")
        return EXIT_CHECK_FAILED
    if worst is None:
        tell(f"  {_sound(found, incomplete)}no experiment in the table")
    else:
        limit = found.threshold(sigmas)
        verdict = "DISAGREES" if beyond or columns else "agrees"
        count = counted(len(found.comparisons), "comparison")
        tell(
            f"  experiment {verdict}: {count}, worst {worst.sigmas:.2f} standard "
            f"errors (allowed {limit:.2f}) in {worst.name} of line {worst.row}"
        )
        if found.widths_needed:
            tell("  one width only: the network's bias in 1/N is not removed; give --width two values")
    for p in columns:
        tell(f"    {p.name} as a whole ({rows(p.count)}): scatter {p.scatter:.1f}, mean {p.bias:.1f} standard errors")
    for c in beyond[:_SHOWN]:
        tell(
            f"    line {c.row} {c.name}: theory {c.theory:.6g}, experiment {c.mean:.6g} ± {c.error:.2g} "
            f"({c.sigmas:.1f} standard errors)"
        )
    if beyond or columns or incomplete or found.unjudged:
        return EXIT_CHECK_FAILED
    unsolved = found.unsolved or found.missing or (strict and found.inaccurate)
    return EXIT_NOT_CONVERGED if unsolved else EXIT_OK
