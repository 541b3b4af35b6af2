"""`tlcli check`: one verdict per table on standard output, and an exit code."""

from collections.abc import Sequence
from pathlib import Path

from tlcli.errors import EXIT_CHECK_FAILED, EXIT_NOT_CONVERGED, EXIT_OK
from tlcli.report.agreement import Agreement, assess

_SHOWN = 10


def check_tables(paths: Sequence[Path], sigmas: float, finite_size: float) -> int:
    """Print a verdict for each table; return the most serious exit code."""
    return max(_check_one(path, assess(path, finite_size), sigmas) for path in paths)


def _check_one(path: Path, found: Agreement, sigmas: float) -> int:
    print(f"{path}: {found.rows} rows")
    incomplete = found.expected is not None and found.rows != found.expected
    if found.expected is None:
        print("  completeness unknown: no provenance.json beside the table")
    elif incomplete:
        print(f"  INCOMPLETE: its provenance counts {found.expected} rows")
    if found.unsolved or found.missing:
        print(f"  NOT CONVERGED: {found.unsolved} rows of theory, {found.missing} rows of experiment")
    beyond = found.disagreeing(sigmas)
    worst = found.worst()
    if worst is None:
        print("  no experiment in the table")
    else:
        limit = found.threshold(sigmas)
        verdict = "DISAGREES" if beyond else "agrees"
        print(
            f"  experiment {verdict}: {len(found.comparisons)} comparisons, worst {worst.sigmas:.2f} standard "
            f"errors (allowed {limit:.2f}) in {worst.name} of line {worst.row}"
        )
        if found.widths_needed:
            print("  one width only: the network's bias in 1/N is not removed; give --width two values")
    for c in beyond[:_SHOWN]:
        print(
            f"    line {c.row} {c.name}: theory {c.theory:.6g}, experiment {c.mean:.6g} ± {c.error:.2g} "
            f"({c.sigmas:.1f} standard errors)"
        )
    if beyond or incomplete:
        return EXIT_CHECK_FAILED
    return EXIT_NOT_CONVERGED if found.unsolved or found.missing else EXIT_OK
