"""PEP-3148 executors by name: `local`, `dask:ADDRESS`, `mpi`.

Every executor computes the same bits: whoever evaluates a point first calls `limit_threads`, because the
number of BLAS threads changes the order of summation.
"""

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any

from tlcli.errors import MissingExtraError, UsageError

DASK_TIMEOUT = 10.0  # seconds until a scheduler counts as unreachable

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_limited = threading.local()


class SerialExecutor(Executor):
    """Evaluates in `submit` itself; Ctrl-C inside a task reaches the caller."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call `fn` now and return its finished future."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def make_executor(spec: str, jobs: int = 1) -> AbstractContextManager[Executor]:
    """Return a context manager that yields the executor `spec`.

    `local` is a pool of `jobs` processes, or this process if `jobs` is 1. `dask:ADDRESS` is a running
    scheduler. `mpi` is the ranks 1, 2, … of `mpiexec -n K python -m mpi4py.futures -m tlcli …`, or `jobs`
    spawned ranks when started without mpiexec. Leaving the context by an exception abandons what is running.

    Raises:
        UsageError: an unknown name, `jobs` below 1, or a scheduler that does not answer.
        MissingExtraError: the package behind the executor is not installed.
    """
    if jobs < 1:
        raise UsageError(f"jobs: '{jobs}' is not a number of processes; use a whole number from 1.")
    kind, colon, address = spec.partition(":")
    if kind == "dask" and address:
        return _dask(address)
    if kind == "mpi" and not colon:
        return _mpi(jobs)
    if kind == "local" and not colon:
        return _serial() if jobs == 1 else _processes(jobs)
    raise UsageError(f"executor: '{spec}' is unknown; use local, dask:ADDRESS (as dask:tcp://host:8786) or mpi.")


def check_executor(spec: str, jobs: int = 1) -> None:
    """Refuse an executor that cannot be used before anything depends on it; arguments and errors as `make_executor`."""
    make_executor(spec, jobs)  # not entered
    kind, _, address = spec.partition(":")
    if kind == "dask":
        _reach(address)
    elif kind == "mpi":
        _import_mpi()


def limit_threads() -> None:
    """Let BLAS and OpenMP run one thread in this process, also in libraries still to be loaded."""
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    # Limits are per library, and OpenMP's also per calling thread; looking for libraries costs milliseconds,
    # so it is done again only when modules were imported since.
    if getattr(_limited, "modules", 0) != len(sys.modules):
        from threadpoolctl import threadpool_limits

        threadpool_limits(limits=1)
        _limited.modules = len(sys.modules)


@contextmanager
def _serial() -> Iterator[Executor]:
    from threadpoolctl import threadpool_limits

    saved = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    with threadpool_limits(limits=1):
        try:
            yield SerialExecutor()
        finally:
            _limited.modules = 0
            for name, value in saved.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


class _Worker(SpawnProcess):
    """A process that Ctrl-C does not reach, not even while it starts: the parent decides."""

    def start(self) -> None:
        """Start it with the signal blocked, which it inherits."""
        resource_tracker.ensure_running()  # or starting it would unblock the signal
        with _no_interrupt(), _without_main():
            super().start()


class _Spawn(SpawnContext):
    """Spawned processes: a fork would copy BLAS and OpenMP threads in an undefined state."""

    Process = _Worker


@contextmanager
def _processes(jobs: int) -> Iterator[Executor]:
    before = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(jobs, mp_context=_Spawn(), initializer=_start_worker)
    try:
        yield executor
    except BaseException:
        with _no_interrupt():
            executor.shutdown(wait=False, cancel_futures=True)
            # A point may take hours: do not wait for those that are running.
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
        raise
    executor.shutdown(wait=True)


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the script that runs: a worker would run it once more, and tasks name functions of modules."""
    before = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = before


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Let Ctrl-C wait until the block is done; processes that are started in it never see one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # also in what it starts, whatever that does to blocked signals
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _one_core()
    limit_threads()


def _one_core() -> None:
    """Let solvers with threads of their own use one core in a worker, unless the user wants more."""
    os.environ.setdefault("TLCLI_THREADS", "1")


def _exit_with_parent() -> None:
    """End this worker when its parent is killed; ProcessPoolExecutor alone would leave it waiting."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _reach(address: str) -> None:
    """Try a bare connection: a Client that fails to connect blocks for 20 s when collected."""
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("executor: 'dask' needs dask.distributed; pip install 'tlcli[dask]'.") from error
    try:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, _knock(address)).result()
    except Exception as error:  # whatever another kind of server sends back: MemoryError has been seen
        raise _unreachable(address) from error


def _unreachable(address: str) -> UsageError:
    return UsageError(
        f"executor: no dask scheduler answers at '{address}'; start one with 'dask scheduler' or correct "
        "the address (as dask:tcp://host:8786)."
    )


@contextmanager
def _dask(address: str) -> Iterator[Executor]:
    _reach(address)
    from distributed import Client

    try:
        client = Client(address, timeout=DASK_TIMEOUT, set_as_default=False)
    except Exception as error:  # it left meanwhile, or is no scheduler
        raise _unreachable(address) from error
    with client:
        executor = client.get_executor(pure=False)
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=False)
            raise
        executor.shutdown(wait=True)


async def _knock(address: str) -> None:
    from distributed.comm.core import connect

    comm = await connect(address, timeout=DASK_TIMEOUT)
    await comm.close()


def _import_mpi() -> tuple[Any, bool]:
    """Return the class of MPI's executors, and whether their ranks are there already."""
    try:
        from mpi4py import MPI  # pyright: ignore[reportMissingImports]
        from mpi4py.futures import MPIPoolExecutor, _core  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py is there, but no MPI library
        raise MissingExtraError(
            "executor: 'mpi' needs mpi4py and an MPI library such as OpenMPI; pip install 'tlcli[mpi]'."
        ) from error
    size = MPI.COMM_WORLD.Get_size()
    shared = getattr(_core, "SharedPool", None) is not None
    if size > 1 and not shared:
        # Every rank would run the whole command.
        raise UsageError(
            f"executor: 'mpi' with {size} ranks must be started by "
            f"mpiexec -n {size} python -m mpi4py.futures -m tlcli …"
        )
    return MPIPoolExecutor, shared


@contextmanager
def _mpi(jobs: int) -> Iterator[Executor]:
    pool, shared = _import_mpi()
    # main=False: tasks are imported by name, so workers need not run the main script again.
    executor = pool(max_workers=None if shared else jobs, main=False, initializer=_one_core)
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown(wait=True)
