"""Print the benchmark table; `--save FILE` also writes it."""

import argparse
import sys
import time
from pathlib import Path

from threadpoolctl import threadpool_limits

from benchmarks import bayes, classification, deep, experiments, losses, network, program, theory
from benchmarks.timing import table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--save", type=Path, help="write the table to this file as well")
    path = parser.parse_args().save
    start = time.perf_counter()
    lines = []
    # One BLAS thread everywhere: the numbers are per core.
    with threadpool_limits(1):
        for part in (theory, classification, network, losses, deep, bayes, program, experiments):
            for line in part.lines():
                print(f"{line.name}: {line.seconds:.3g} s", file=sys.stderr, flush=True)
                lines.append(line)
    text = table(lines)
    print(text)
    took = time.perf_counter() - start
    print(f"One BLAS thread, one core unless said otherwise, shortest of several runs; {took:.0f} s in all.")
    if path:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
