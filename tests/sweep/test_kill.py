"""After any kill the same command continues and the table is byte for byte that of an uninterrupted run.

The same holds on every executor, number of jobs, shard count and order of the tasks.
"""

import contextlib
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

HERE = Path(__file__).parent
DRIVER = HERE / "sweep_driver.py"
N_POINTS = 24
MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_ALLOW_RUN_AS_ROOT": "1",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
ENVIRONMENT = os.environ | MPI | {"PYTHONPATH": str(HERE)}


def command(directory, *options, prefix=()):
    files = ["--store", directory / "store", "--csv", directory / "table.csv"]
    return [str(part) for part in (sys.executable, *prefix, DRIVER, *files, *options)]


def run(directory, *options, prefix=(), launcher=()):
    done = subprocess.run(
        [*launcher, *command(directory, *options, prefix=prefix)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def stored(directory):
    return len(list(directory.glob("store/points/*/*.json")))


def start_and_wait(directory, moment, *options):
    """Start the driver; return it and its children as soon as `moment` points are stored.

    Four points later it gets stuck, so that it never ends before it is killed, however busy the machine is.
    """
    process = subprocess.Popen(
        command(directory, *options),
        env=ENVIRONMENT | {"DRIVER_SLEEP": "0.01", "DRIVER_STUCK_FROM": str(moment + 4)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal gives it
        # Tests that run in the background of a shell inherit an ignored Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 30
    while stored(directory) < moment:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.002)
    return process, psutil.Process(process.pid).children(recursive=True)


def table(directory):
    return (directory / "table.csv").read_bytes()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    directory = tmp_path_factory.mktemp("uninterrupted")
    assert run(directory) == f"computed={N_POINTS} reused=0 failed=0"
    assert table(directory).count(b"\n") == N_POINTS + 1
    return table(directory)


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("moment", [1, 5, 12, "random"])
def test_sigkill_and_rerun(tmp_path, expected, moment, jobs):
    if moment == "random":
        moment = random.randrange(2, N_POINTS - 6)
    process, children = start_and_wait(tmp_path, moment, "--jobs", jobs)
    time.sleep(random.uniform(0, 0.02))  # not always just after a write
    process.kill()
    process.communicate()
    kept = stored(tmp_path)
    assert moment <= kept < N_POINTS
    assert not (tmp_path / "table.csv").exists()
    # Orphaned workers would burn the user's processors for ever.
    assert psutil.wait_procs(children, timeout=10)[1] == []
    output = run(tmp_path, "--jobs", 3 - jobs)
    assert output == f"computed={N_POINTS - kept} reused={kept} failed=0"
    assert table(tmp_path) == expected
    assert list((tmp_path / "store").rglob("*.tmp")) == []


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["process", "terminal"])
def test_sigint_stops_soon_and_keeps_the_results(tmp_path, expected, jobs, send):
    process, children = start_and_wait(tmp_path, 3, "--jobs", jobs)
    kept = stored(tmp_path)
    send(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    # A terminal's Ctrl-C also reaches a worker that is just starting, whose interpreter then prints its own words.
    assert errors == "" or (send is os.killpg and jobs > 1)
    assert kept <= stored(tmp_path) < N_POINTS
    assert psutil.wait_procs(children, timeout=10)[1] == []
    kept = stored(tmp_path)
    assert run(tmp_path) == f"computed={N_POINTS - kept} reused={kept} failed=0"
    assert table(tmp_path) == expected


@pytest.mark.parametrize(
    ("call", "count"),
    [("fsync", 1), ("fsync", 2), ("fsync", 5), ("fsync", 7), ("replace", 1), ("replace", 6), ("mkdir", 4)],
)
def test_sigkill_within_a_write(tmp_path, expected, call, count):
    died = subprocess.run(command(tmp_path, "--die-in", call, count), env=ENVIRONMENT, timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert call != "replace" or len(list((tmp_path / "store").rglob("*.tmp"))) == 1
    kept = stored(tmp_path)
    assert run(tmp_path) == f"computed={N_POINTS - kept} reused={kept} failed=0"
    assert table(tmp_path) == expected
    assert list((tmp_path / "store").rglob("*.tmp")) == []


def test_two_kills_in_a_row(tmp_path, expected):
    for moment in (4, 10):
        process, _ = start_and_wait(tmp_path, moment, "--jobs", 2)
        process.kill()
        process.communicate()
    run(tmp_path)
    assert table(tmp_path) == expected


@pytest.mark.parametrize("options", [("--jobs", 2), ("--reverse",), ("--jobs", 2, "--reverse")])
def test_jobs_and_order_do_not_change_the_table(tmp_path, expected, options):
    run(tmp_path, *options)
    assert table(tmp_path) == expected


def test_shards_and_assembly(tmp_path, expected):
    shards = [
        subprocess.Popen(command(tmp_path, "--shard", f"{i}/3"), env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        for i in (1, 2, 3)
    ]
    assert [shard.wait(timeout=60) for shard in shards] == [0, 0, 0]
    assert run(tmp_path) == f"computed=0 reused={N_POINTS} failed=0"
    assert table(tmp_path) == expected


def test_two_runs_on_one_store_at_once(tmp_path, expected):
    other = subprocess.Popen(command(tmp_path, "--reverse"), env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    run(tmp_path)
    assert other.wait(timeout=60) == 0
    assert table(tmp_path) == expected


@pytest.fixture
def dask_address():
    pytest.importorskip("distributed", reason="dask.distributed is not installed")
    cluster = subprocess.Popen(
        [sys.executable, str(HERE / "dask_cluster.py")],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert cluster.stdout is not None
    address = cluster.stdout.readline().strip()
    assert address, cluster.communicate()
    yield address
    cluster.communicate(timeout=30)


def test_dask(tmp_path, expected, dask_address):
    assert run(tmp_path, "--executor", f"dask:{dask_address}") == f"computed={N_POINTS} reused=0 failed=0"
    assert table(tmp_path) == expected
    # The cluster outlives a killed client; two of its four threads are still stuck in the client's points.
    killed = tmp_path / "killed"
    process, _ = start_and_wait(killed, 5, "--executor", f"dask:{dask_address}")
    process.kill()
    process.communicate()
    kept = stored(killed)
    assert run(killed, "--executor", f"dask:{dask_address}") == f"computed={N_POINTS - kept} reused={kept} failed=0"
    assert table(killed) == expected


KNOCK = """
import sys
from tlcli.sweep import executors
executors.DASK_TIMEOUT = 1
try:
    executors.make_executor("dask:" + sys.argv[1]).__enter__()
except executors.UsageError as error:
    print(error)
"""


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{port}", "tcp://127.0.0.1:9", "localhost", "foo://x:1"])
def test_an_address_without_scheduler_is_a_usage_error_and_nothing_hangs(address):
    pytest.importorskip("distributed", reason="dask.distributed is not installed")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 9)

        threading.Thread(target=answer, daemon=True).start()
        address = address.format(port=server.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-c", KNOCK, address], capture_output=True, text=True, timeout=15, check=True
        )
        server.shutdown(socket.SHUT_RDWR)
    assert done.stdout.startswith(f"executor: no dask scheduler answers at '{address}'; start one with")
    assert done.stderr == ""


needs_mpi = pytest.mark.skipif(
    shutil.which("mpiexec") is None or importlib.util.find_spec("mpi4py") is None,
    reason="no mpiexec on the path, or mpi4py is not installed",
)


@needs_mpi
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_mpi(tmp_path, expected, ranks):
    launcher = ("mpiexec", "-n", str(ranks))
    output = run(tmp_path, "--executor", "mpi", prefix=("-m", "mpi4py.futures"), launcher=launcher)
    assert output == f"computed={N_POINTS} reused=0 failed=0"
    assert table(tmp_path) == expected


@needs_mpi
def test_mpi_spawns_its_ranks_when_started_without_mpiexec(tmp_path, expected):
    run(tmp_path, "--executor", "mpi", "--jobs", 2)
    assert table(tmp_path) == expected


@needs_mpi
def test_mpi_started_without_its_module_says_how(tmp_path):
    done = subprocess.run(
        ["mpiexec", "-n", "2", *command(tmp_path, "--executor", "mpi")],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "mpiexec -n 2 python -m mpi4py.futures -m tlcli" in done.stderr
