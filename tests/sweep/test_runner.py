"""The runner: reuse, shards, failures, dead workers, executors that cannot be used."""

import itertools
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

from tlcli.errors import MissingExtraError, TlcliError, UsageError
from tlcli.sweep.executors import SerialExecutor, make_executor
from tlcli.sweep.runner import Task, parse_shard, plan, run_sweep
from tlcli.sweep.store import PointStore


@pytest.fixture
def driver(monkeypatch):
    """The module of task functions, importable by its name here and in spawned workers."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("DRIVER_SLEEP", "0")
    import sweep_driver

    return sweep_driver


@pytest.fixture
def store(tmp_path):
    return PointStore(tmp_path / "store", "test", "1")


def test_records_are_in_task_order_and_reused(driver, store):
    tasks = driver.tasks(n=6)
    calls = []
    assert plan(tasks, store) == (6, 0)
    assert not store.directory.exists()
    first = run_sweep(tasks[:4], store=store, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 4) for i in range(5)]
    assert (first.n_computed, first.n_reused, first.n_failed, first.warnings) == (4, 0, 0, [])
    assert first.wall_seconds >= first.mean_seconds > 0
    assert plan(tasks, store) == (6, 4)
    calls.clear()
    second = run_sweep(tasks, store=store, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(4, 6), (5, 6), (6, 6)]
    assert (second.n_computed, second.n_reused) == (2, 4)
    assert second.records[:4] == first.records
    assert [record["edge"] for record in second.records if record][1:] == [1 / i for i in range(1, 6)]
    assert run_sweep(tasks).records == second.records
    third = run_sweep(tasks, store=store)
    assert (third.n_computed, third.n_reused, third.mean_seconds) == (0, 6, 0.0)
    assert third.records == second.records


def test_seeds_belong_to_points(driver):
    tasks = driver.tasks(n=4)
    records = run_sweep(tasks).records
    assert run_sweep(tasks[::-1]).records == records[::-1]
    assert run_sweep(tasks[2:3]).records == records[2:3]
    assert run_sweep([Task(tasks[0].function, tasks[0].parameters, 8)]).records[0] != records[0]
    assert len({record["mean"] for record in records if record}) == 4


def test_equal_tasks_are_computed_once(driver, store):
    tasks = [Task("sweep_driver:draw", {"alpha": alpha}, 7) for alpha in (1.0, 2.0, 1, 1.0)]
    result = run_sweep(tasks, store=store)
    assert (result.n_computed, len(list(store.keys()))) == (2, 2)
    assert result.records[0] == result.records[2] == result.records[3] != result.records[1]


def test_no_tasks(store):
    assert run_sweep([], store=store).records == []
    assert plan([], store) == (0, 0)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failing_point_is_a_row_and_is_tried_again(driver, store, tmp_path, jobs):
    tasks = driver.tasks("fail_at_two", n=5, repaired=str(tmp_path / "repaired"))
    result = run_sweep(tasks, store=store, jobs=jobs)
    assert (result.n_computed, result.n_failed) == (4, 1)
    assert result.records[2] == {"status": "failed", "message": "ArithmeticError: no root in the bracket"}
    assert result.records[3] == {"loss": 3.0}
    assert plan(tasks, store) == (5, 4)
    (tmp_path / "repaired").write_text("")
    again = run_sweep(tasks, store=store, jobs=jobs)
    assert (again.n_computed, again.n_reused, again.n_failed) == (1, 4, 0)
    assert again.records[2] == {"loss": 2.0}


def test_a_task_that_leaves_or_returns_no_dict_fails_alone(driver):
    assert run_sweep(driver.tasks("leave", n=1)).records == [{"status": "failed", "message": "SystemExit: bye"}]
    (record,) = run_sweep(driver.tasks("no_dict", n=1)).records
    assert record == {
        "status": "failed",
        "message": "TypeError: sweep_driver:no_dict returned list, not a dict",
    }


@pytest.mark.parametrize("name", ["sweep_driver:nothing", "no_such_module:f", "plain"])
def test_a_function_that_does_not_exist_is_one_error(driver, name):
    with pytest.raises(UsageError, match=f"task function '{name}' cannot be imported"):
        run_sweep([Task(name, {"alpha": 1.0})])


def test_one_store_holds_one_function(driver, store):
    with pytest.raises(ValueError, match="must name one function"):
        run_sweep([*driver.tasks(n=1), *driver.tasks("leave", n=1)], store=store)


def test_ctrl_c_keeps_what_is_finished(driver, store):
    with pytest.raises(KeyboardInterrupt):
        run_sweep(driver.tasks("interrupt", n=6), store=store)
    assert len(list(store.keys())) == 3


@pytest.mark.parametrize("limit", [None, 1, 3])
def test_a_killed_worker_does_not_end_the_sweep(driver, store, tmp_path, limit):
    tasks = driver.tasks("exit_once", n=12, marker=str(tmp_path / "marker"))
    result = run_sweep(tasks, store=store, jobs=2, max_in_flight=limit)
    assert (tmp_path / "marker").exists()
    assert result.records == [{"loss": float(i)} for i in range(12)]
    assert (result.n_computed, result.n_failed) == (12, 0)


def test_a_worker_that_dies_again_is_one_clear_error(driver, store, tmp_path):
    tasks = driver.tasks("exit_once", n=4, marker=str(tmp_path / "marker"), always=True)
    with pytest.raises(TlcliError, match=r"workers of executor 'local' died twice \(BrokenProcessPool.* of 4 points"):
        run_sweep(tasks, store=store, jobs=2)
    (tmp_path / "marker").write_text("")
    assert run_sweep(tasks, store=store, jobs=2).n_failed == 0


def test_few_points_are_in_flight(driver, monkeypatch):
    most = 0
    waiting = set()
    submit = ProcessPoolExecutor.submit

    def count(self, *args):
        nonlocal most
        future = submit(self, *args)
        waiting.add(future)
        future.add_done_callback(waiting.discard)
        most = max(most, len(waiting))
        return future

    monkeypatch.setattr(ProcessPoolExecutor, "submit", count)
    run_sweep(driver.tasks(n=30), jobs=2, max_in_flight=5)
    assert 2 <= most <= 5


@pytest.mark.parametrize("jobs", [1, 2])
def test_tasks_run_with_one_blas_thread(driver, monkeypatch, jobs):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "2")
    before = dict(os.environ)
    driver.threads({}, 0)  # limits hold for libraries that are loaded
    with threadpool_limits(2):
        assert driver.threads({}, 0) == {"threads": 2}
        assert run_sweep(driver.tasks("threads", n=3), jobs=jobs).records == [{"threads": 1}] * 3
        assert driver.threads({}, 0) == {"threads": 2}
    assert dict(os.environ) == before


def test_shards_are_disjoint_complete_and_stable(driver, store):
    tasks = driver.tasks(n=40)
    found = [run_sweep(tasks, store=store, shard=(i, 3)).records for i in (1, 2, 3)]
    for one, two, three in zip(*found, strict=True):
        assert sum(record is not None for record in (one, two, three)) == 1
    assert all(sum(record is not None for record in records) >= 5 for records in found)
    assert plan(tasks, store) == (40, 40)
    assert sum(plan(tasks, store, (i, 3))[0] for i in (1, 2, 3)) == 40
    # Another order and further points leave a point where it was.
    permuted = run_sweep(driver.tasks(n=50)[::-1], shard=(1, 3), store=store).records[::-1]
    assert permuted[:40] == found[0]


@pytest.mark.parametrize(("text", "shard"), [("1/1", (1, 1)), ("2/5", (2, 5)), (" 3 / 3 ", (3, 3))])
def test_parse_shard(text, shard):
    assert parse_shard(text) == shard


@pytest.mark.parametrize("text", ["", "2", "0/5", "6/5", "-1/5", "1/0", "a/b", "1/2/3", "1.0/2"])
def test_parse_shard_refuses(text):
    with pytest.raises(UsageError, match=f"shard: '{text}' is not a shard; use i/n"):
        parse_shard(text)


@pytest.mark.parametrize("spec", ["slurm", "dask", "dask:", "mpi:4", "local:2", ""])
def test_unknown_executors_are_refused(spec):
    with pytest.raises(UsageError, match=f"executor: '{spec}' is unknown; use local, dask:ADDRESS"):
        make_executor(spec, 1)


def test_jobs_must_be_positive():
    with pytest.raises(UsageError, match="jobs: '0' is not a number of processes"):
        make_executor("local", 0)


@pytest.mark.parametrize(("spec", "module"), [("dask:tcp://127.0.0.1:1", "distributed"), ("mpi", "mpi4py")])
def test_a_missing_extra_is_named(monkeypatch, spec, module):
    monkeypatch.setitem(sys.modules, module, None)
    with (
        pytest.raises(MissingExtraError, match=rf"pip install 'tlcli\[{spec[:4].rstrip(':')}\]'"),
        make_executor(spec),
    ):
        pass


def test_the_serial_executor_is_an_executor():
    with SerialExecutor() as executor:
        assert executor.submit(divmod, 7, 2).result() == (3, 1)
        assert isinstance(executor.submit(divmod, 7, 0).exception(), ZeroDivisionError)
        assert list(executor.map(abs, itertools.repeat(-1, 3))) == [1, 1, 1]


def test_an_abandoned_pool_leaves_no_process():
    def abandon():
        with make_executor("local", 2) as executor:
            for _ in range(4):
                executor.submit(time.sleep, 60)
            assert len(multiprocessing.active_children()) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        abandon()
    # Polled, not joined: the pool's own thread reaps the workers too, and whoever comes second learns nothing.
    deadline = time.monotonic() + 10
    while multiprocessing.active_children():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_max_in_flight_must_be_positive(driver):
    with pytest.raises(ValueError, match="max_in_flight is 0"):
        run_sweep(driver.tasks(n=1), max_in_flight=0)


def test_an_executor_that_cannot_be_used_leaves_no_store(driver, store, monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(MissingExtraError):
        run_sweep(driver.tasks(n=2), store=store, executor_spec="mpi")
    assert not store.directory.exists()
