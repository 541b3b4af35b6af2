"""What averages will take, from a small piece of a pool: what a machine takes is replaced by a rule."""

import numpy as np
import pytest

from tests.cli.conftest import call
from tests.theories.network.test_theory import case_of
from tlcli.sweep.executors import make_executor
from tlcli.theories.network import average_cost as cost
from tlcli.theories.network.average_point import Readout
from tlcli.theories.network.pools import pools_of


def tasks_of(**more):
    given = {"solver": "network-frozen", "average": "auto", "ptest": None, "neurons": 64, "activation": "relu", **more}
    case = case_of("phase-diagram", x=None, **given)
    return case.theory.tasks(case, 0)


@pytest.fixture
def clock(monkeypatch):
    """Let kernels of n points take 1 + 1e-4 n² seconds and a readout 0.5 + 1e-7 n³; return the points seen."""
    seen = []

    def timed(call, clock=None):
        found = call()
        n = len(found.start) if hasattr(found, "start") else len(found.pools[0][0].losses[0, 0, 0, 0])
        seen.append(n)
        return found, 1 + 1e-4 * n**2 if hasattr(found, "start") else 0.5 + 1e-7 * n**3

    monkeypatch.setattr(cost, "_timed", timed)
    monkeypatch.setattr(cost, "thread_count", lambda: 1)
    return seen


@pytest.mark.parametrize("pool", [100, 900])
@pytest.mark.parametrize("repeats", [2, 6])
def test_kernels_grow_with_the_square_of_all_points_and_readouts_with_the_cube_of_a_pool(clock, pool, repeats):
    tasks = tasks_of(gamma0="1,2", p2="5,30", pool=pool, repeats=repeats)
    found = cost.expected_seconds(tasks)
    read = 4 * (0.5 + 1e-7 * pool**3)
    kernels = (1 + 1e-4 * (4 * pool) ** 2) * (repeats + 0.6) / 2.6
    assert found == pytest.approx((2 * (kernels + read), read))
    assert max(clock) <= 720
    assert 720 not in clock, "what took long is not looked at again with more points"
    assert len(tasks) == 2


def test_nothing_is_trained_without_richness_and_mistakes_take_no_time(clock):
    (task,) = tasks_of(gamma0="0", p2="5", pool=60)
    assert cost.expected_seconds([task])[0] == pytest.approx(1 + 1e-4 * 240**2 + 4 * (0.5 + 1e-7 * 60**3))
    (task,) = tasks_of(gamma0="1", p2="5", pool=60, activation="tanh", neurons=2, repeats=2)
    assert cost.expected_seconds([task]) == (0.0, 0.0)
    assert cost.expected_seconds([]) == (0.0, 0.0)


@pytest.mark.parametrize(("sizes", "pool"), [([5, 30, 60], 120), ([50], 4000), ([8, 1000, 2000], 4000), ([100], 200)])
def test_a_piece_has_the_same_kinds_of_averages(sizes, pool):
    for count in (120, 360):
        few = cost._sizes(sizes, min(count, pool), pool)
        assert len(few) == len(sizes)
        assert sum(p <= 20 for p in few) == sum(p <= 20 for p in sizes)
        assert 2 * max(few) <= min(count, pool)
    assert cost._sizes(list(range(1, 400)), 120, 800)[-1] <= 60


def test_a_piece_of_a_pool_has_its_first_points():
    (task,) = tasks_of(gamma0="1", p2="5", pool=60)
    data = pools_of(task.parameters)
    part = cost._piece(data, 10)
    np.testing.assert_array_equal(part.x_target, data.x_target[:10])
    assert len(Readout(task.parameters, part).rows) == 1


def test_workers_of_large_pools_keep_within_4_gb(monkeypatch, tmp_path):
    """Of 4000 points one at a time, which is said before and at the work; small pools have all that are asked for."""
    large, small = (tasks_of(gamma0="1,2,3", p2="5", pool=n) for n in (4000, 400))
    size = cost.memory(large)
    assert 2e9 < size < 4e9 < 2 * size
    count, why = cost.workers_within(size, 3)
    assert count == 1
    assert "1 worker instead of 3: each holds 2.2 GB, and averages keep within 4.0 GB together" in why
    assert cost.workers_within(cost.memory(small), 3) == (3, "")
    assert cost.workers_within(1.3e9, 8)[0] == 3
    monkeypatch.chdir(tmp_path)
    command = (
        "finetune-loss --solver network-frozen --source linear --target linear --dim 4 --p1 10 --t1 1 --average auto"
    )
    command += " --pool 40 --p2 5 --gamma0 1,2 --neurons 64 --repeats 2 --accuracy 9 --jobs 2"
    monkeypatch.setattr(cost, "_TOGETHER", 4e8)
    done = call(command, "--dry-run")
    assert "on 1 worker, 253 MB\n  1 worker instead of 2: each holds 253 MB" in done.out
    monkeypatch.setattr("tlcli.sweep.runner.make_executor", _refused_processes)
    done = call(command, "-o out")
    assert done.code == 0
    assert "1 worker instead of 2: each holds 253 MB" in done.err


def _refused_processes(spec, jobs):
    assert jobs == 1
    return make_executor(spec, jobs)


def test_memory_grows_with_kernels_and_repeats():
    at = {n: cost.memory(tasks_of(gamma0="0,1", p2="5", pool=n, repeats=8)) for n in (50, 100)}
    assert at[100] - at[50] == pytest.approx(21 * 8 * (400**2 - 200**2))
    more = cost.memory(tasks_of(gamma0="0,1", p2="5", pool=100, repeats=16))
    assert more - at[100] == pytest.approx(16 * 8 * 400**2)
    assert cost.memory(tasks_of(gamma0="0", p2="5", pool=100)) < at[100]
    deep = cost.memory(tasks_of(gamma0="0,1", p2="5", pool=100, repeats=8, depth=2))
    assert deep - at[100] == pytest.approx((5 * 3 * 8 + 20 - 21) * 8 * 400**2)
    assert cost.memory([]) == 0


def test_quick_looks_have_another_at_more_points(monkeypatch):
    """Small pieces are too quick to tell what grows: 0.1 s, as long as nothing does, and 1e-9 n³ from 720 points on."""
    seen = []

    def timed(call, clock=None):
        found = call()
        n = len(found.start) if hasattr(found, "start") else len(found.pools[0][0].losses[0, 0, 0, 0])
        seen.append(n)
        return found, 0.1 + (1e-9 * (n**3 - 360**3) if n > 360 else 0.0)

    monkeypatch.setattr(cost, "_timed", timed)
    (task,) = tasks_of(gamma0="0", p2="30", pool=900)
    found = cost.expected_seconds([task])[1]
    assert max(seen) == 720
    assert found == pytest.approx(4 * (0.1 + 1e-9 * (900**3 - 360**3)))
