"""Memory: what is announced is what is used, and what cannot fit is refused before the work."""

import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import call
from tlcli.options.commands import COMMANDS
from tlcli.run import compute, cost
from tlcli.run.job import prepare
from tlcli.sweep.runner import Task, evaluate, left_of, plan
from tlcli.theories import memory
from tlcli.theories.network import cost as network_cost

_MAP = "phase-diagram --x alpha2=0.105:2.005:1000 --y gamma0=0.1:20:500"
# The peak of this program alone: of a child, getrusage knows also what its parent held when it was made.
_MEASURED = """
import sys
from tlcli.cli import app
try:
    app.main()
finally:
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
"""


needs_peak = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the system does not tell a process's peak"
)


def used_by(command, output):
    """Return the bytes that a process of its own held at its peak."""
    program = [sys.executable, "-c", _MEASURED, *command.split(), "-o", output]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", done.stderr)[1])


def announced(text):
    number, unit = re.search(r"theory: .*, ([0-9.]+) (MB|GB)", text).groups()
    return float(number) * {"MB": 1e6, "GB": 1e9}[unit]


@needs_peak
@pytest.mark.parametrize("output", ["maps", "-"])
def test_what_is_announced_is_what_is_used(output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    used = used_by(_MAP, output)
    size = announced(call(_MAP, "-o", output, "--dry-run").out)
    assert used / 1.5 < size < used * 1.5


@needs_peak
@pytest.mark.parametrize(
    "words",
    [
        "--alpha1 10 --dim 1000 --trials 2",
        "--alpha1 2 --gamma0 1 --t1 0.1 --times 0.1 --dim 400 --trials 2 --experiment population",
        "--alpha1 2 --gamma0 1 --t1 0.1 --times 0.1 --dim 100 --trials 2 --experiment network --width 8000",
    ],
)
def test_the_announced_memory_of_an_experiment_is_what_it_uses(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = f"finetune-loss --alpha2 0.5 --simulate {words}"
    used = used_by(command, "-")
    number, unit = re.search(r"workers?, ([0-9.]+) (MB|GB)", call(command, "-o out --dry-run").out).groups()
    assert used / 1.5 < float(number) * {"MB": 1e6, "GB": 1e9}[unit] < used * 1.5


@needs_peak
@pytest.mark.parametrize("sizes", ["--p1 100 --p2 50 --ptest 100", "--p1 800 --p2 400 --ptest 600"])
def test_the_announced_memory_of_a_bayesian_network_is_what_it_uses(sizes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = f"bayes-saddle --source linear --target linear --dim 30 --delta 1 {sizes}"
    used = used_by(command, "-")
    number, unit = re.search(r"workers?, ([0-9.]+) (MB|GB)", call(command, "-o out --dry-run").out).groups()
    assert used / 1.5 < float(number) * {"MB": 1e6, "GB": 1e9}[unit] < used * 1.5


@needs_peak
@pytest.mark.parametrize(
    "words", ["--activation tanh --p1 3 --p2 3 --ptest 900 --accuracy 0.1", "--activation linear --p1 20 --p2 20"]
)
def test_the_announced_memory_of_a_deep_network_is_what_it_uses(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tail = "--dim 3 --depth 2 --t1 0.3 --t2 0.3 --times 0.3"
    command = f"dmft-solve --source linear --target hermite:3 {words} {tail}"
    used = used_by(command, "-")
    number, unit = re.search(r"workers?, ([0-9.]+) (MB|GB)", call(command, "-o out --dry-run").out).groups()
    assert used / 1.25 < float(number) * {"MB": 1e6, "GB": 1e9}[unit] < used * 1.25


@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_a_bayesian_network_that_cannot_fit_is_refused_before_the_work(activation, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cost, "available_memory", lambda: 2e8)
    words = f"bayes-saddle --source linear --target linear --dim 30 --activation {activation} --delta 1"
    done = call(words, "--p1 500 --p2 500 --ptest 500", "-o out")
    assert done.code == 2
    assert "the largest network needs about" in done.err
    assert "200 MB are available; use fewer samples (--p1, --p2)" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        "phase-diagram --x alpha2=0.105:2.005:40 --y gamma0=0.1:20:30",
        "pretrain-kernel --alpha1 0.3:2:21 --gamma0 1:20:17 --sigma1 0.1,0.2",
        "finetune-loss --alpha1 0.5 --times 0:5:30 --rho 0.5,0.9 --gamma0 3",
        "finetune-loss --solver linear-joint --alpha1 2 --alpha2 0.5 --t1 1 --t2 1 --gamma0 0.5:2:8 --rho 0.3,0.9",
    ],
)
def test_the_size_of_columns_is_known_from_a_part_of_the_grid(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = []

    def look(job, *rest):
        for case in job.cases:
            whole = sum(np.asarray(column).nbytes for column in case.theory.columns(case).values())
            sizes.append((cost.theory_cost(case)[1], whole))

    monkeypatch.setattr(compute, "refuse_what_cannot_fit", look)
    assert call(words, "-o -", "--quiet").code == 0
    assert sizes
    for size, whole in sizes:
        assert size == pytest.approx(whole, rel=0.01)


@pytest.mark.parametrize(("once", "each"), [(0.6, 1e-3), (0.6, 0.0), (0.0, 1e-3), (0.0, 0.1), (0.3, 1e-4)])
def test_a_search_whose_cost_is_mostly_the_same_for_few_points_is_known_to_a_factor_of_two(
    once, each, tmp_path, monkeypatch
):
    """Seconds of a call of n points are once + n each: scaling up the thinnest sample would say 20 times too much."""
    monkeypatch.chdir(tmp_path)
    command = "phase-diagram --solver linear-classify --loss square --ridge best --alpha1 2 --rho 0.7"
    asked, sample = [], []

    def timed(case):
        sample.append(case.grid.size)
        return solved(case)[0], once + each * case.grid.size

    solved = cost._solved
    monkeypatch.setattr(cost, "_solved", timed)
    monkeypatch.setattr(compute, "refuse_what_cannot_fit", lambda job, *rest: asked.extend(job.cases))
    assert call(command, "--x alpha2=0.3:8:9 --y gamma0=log:0.1:10:8 -o - --quiet").code == 0
    (case,) = asked
    whole = once + each * case.grid.size
    assert whole / 2 < cost.theory_cost(case)[0] < 2 * whole
    assert sample[0] < case.grid.size
    if (once, each) == (0.3, 1e-4):
        assert not (whole / 2 < (once + each * sample[0]) * case.grid.size / sample[0] < 2 * whole)


@pytest.mark.parametrize("more", ["", "--dry-run"])
def test_a_table_that_cannot_fit_is_refused_before_the_work(more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cost, "available_memory", lambda: 200e6)
    done = call(_MAP.replace(":500", ":1000"), more)
    assert done.code == 2
    last = done.err.splitlines()[-1]
    assert re.search(
        r"table of 1000000 rows needs about \d+ MB of memory, and 200 MB are available; use a smaller", last
    )
    assert not (tmp_path / "results").exists()


def test_a_deep_network_that_cannot_fit_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = "dmft-solve --source linear --target hermite:2 --depth 3 --p1 5000 --p2 50 --dim 10"
    monkeypatch.setattr(cost, "available_memory", lambda: 23e9)
    done = call(words)
    assert done.code == 2
    assert "the largest network needs about" in done.err
    assert "23.0 GB are available; use fewer samples" in done.err
    assert not (tmp_path / "results").exists()
    monkeypatch.setattr(cost, "available_memory", lambda: 1e15)
    monkeypatch.setattr(network_cost, "LIMIT", 1.0)
    assert call(words, "--dry-run").code == 0


@pytest.mark.parametrize(
    ("files", "size"),
    [
        ({"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   4000 kB"}, 4096e3),
        ({"/proc/meminfo": "MemAvailable: 4000 kB", "/proc/self/cgroup": "0::/a/b"}, 4096e3),
        (
            {
                "/proc/meminfo": "MemAvailable: 4000 kB",
                "/proc/self/cgroup": "0::/a/b",
                "/sys/fs/cgroup/a/b/memory.max": "max",
                "/sys/fs/cgroup/a/memory.max": "5000",
            },
            5000,
        ),
        (
            {
                "/proc/meminfo": "MemAvailable: 4000 kB",
                "/proc/self/cgroup": "5:cpu:/z\n4:memory:/a",
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes": "7000",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "/sys/fs/cgroup/z/memory.max": "1",
            },
            7000,
        ),
    ],
)
def test_what_is_available_is_the_least_that_the_system_grants(files, size, monkeypatch):
    monkeypatch.setattr(memory, "_lines", lambda path: files.get(str(path), "").splitlines())
    assert memory.available_memory() == size


def test_a_system_that_says_nothing_of_what_is_free_has_what_it_has(monkeypatch):
    monkeypatch.setattr(memory, "_lines", lambda path: [])
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert memory.available_memory() == 4096e3


def test_shards_share_the_tasks_that_are_left():
    tasks = [Task("math:sqrt", {"x": x % 7}) for x in range(12)]
    parts = [left_of(tasks, None, (i, 3)) for i in (1, 2, 3)]
    assert sorted(task.parameters["x"] for part in parts for task in part) == list(range(7))
    assert [len(part) for part in parts] == [plan(tasks, None, (i, 3))[0] for i in (1, 2, 3)]
    assert len(left_of(tasks, None)) == 7


@pytest.mark.parametrize("repeats", [1, 2])
def test_a_network_of_two_layers_needs_what_is_refused_and_not_much_more(repeats):
    options = {
        "model": "network",
        "source": "he1",
        "target": "he1",
        "dim": "4",
        "ptest": "20",
        "neurons": "32",
        "t1": "0.02",
    }
    options |= {"p1": "5", "p2": "800", "repeats": str(repeats), "population": "mc", "accuracy": "1"}
    job = prepare("finetune-loss", COMMANDS["finetune-loss"].options, None, options)
    (case,) = job.cases
    (task,) = case.theory.tasks(case, 0)
    evaluate(task.function, {**task.parameters, "p2": 10}, 0)  # the first call loads libraries
    tracemalloc.start()
    evaluate(task.function, task.parameters, 0)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.25 * used < case.theory.memory([task]) < used
