"""Who runs the tasks: processes of this machine, or a Dask cluster. Both are `concurrent.futures` executors."""

import importlib.metadata
import multiprocessing
import multiprocessing.connection
import os
import platform
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class Processes(Executor):
    """Spawned processes, each in a pool of its own: one that dies takes no task with it but its own, and is replaced.

    Parameters
    ----------
    count : int
        How many; `submit` waits while all are busy.
    begin : callable
        Called in each process before its first task.
    """

    def __init__(self, count: int, begin: Callable[[], None]) -> None:
        self._begin = begin
        self._others = set(multiprocessing.active_children())
        self._idle: queue.SimpleQueue[ProcessPoolExecutor] = queue.SimpleQueue()
        self._pools = {self._pool() for _ in range(count)}
        for pool in self._pools:
            self._idle.put(pool)

    def submit(
        self, fn: Callable[_Parameters, _Result], /, *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> Future[_Result]:
        """Let an idle process call a function."""
        pool = self._idle.get()
        try:
            future = pool.submit(fn, *args, **kwargs)
        except BrokenProcessPool as error:  # its process died while it was idle
            future = Future()
            future.set_exception(error)
        future.add_done_callback(lambda done: self._give_back(pool, done))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End all processes: with `cancel_futures` at once, whatever they do, and else when they have done it."""
        if cancel_futures:
            for process in set(multiprocessing.active_children()) - self._others:
                process.kill()
        for pool in list(self._pools):
            pool.shutdown(wait, cancel_futures=cancel_futures)

    def _give_back(self, pool: ProcessPoolExecutor, done: Future[Any]) -> None:
        if not done.cancelled() and isinstance(done.exception(), BrokenProcessPool):
            self._pools.discard(pool)
            pool.shutdown(wait=False)
            pool = self._pool()
            self._pools.add(pool)
        self._idle.put(pool)

    def _pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, (self._begin,))


def _begin(begin: Callable[[], None]) -> None:
    """Make a worker outlive neither Ctrl-C by a traceback, nor the process that it works for, even killed, at all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    begin()


@contextmanager
def cluster(address: str) -> Iterator[tuple[Executor, Callable[[], int]]]:
    """The executor of a Dask cluster, and how many workers it has just then.

    Raises
    ------
    ValueError
        If `dask.distributed` is not installed, no scheduler is there, or its workers are not as they must be.
    """
    try:
        import dask
        from distributed import Client
    except ImportError:
        raise ValueError('cluster: Dask needs an extra: pip install "fastprune[dask]"') from None
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise ValueError(f"cluster: expected a Dask scheduler at tcp://HOST:PORT, got {address!r}: {error}") from None
    try:
        client.wait_for_workers(1, timeout=30)
        threads = client.nthreads()
        if (most := max(threads.values())) > 1:
            raise ValueError(
                f"cluster: expected workers of one task thread each (dask worker --nthreads 1), got {most}"
            )
        here = versions()
        for worker, there in client.run(versions).items():
            if there != here:
                raise ValueError(f"cluster: expected workers with {here}, got {worker} with {there}")
        executor = client.get_executor(pure=False)
        try:
            # Data go to each worker once, and with them no warning that they are large.
            with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
                yield executor, lambda: len(client.nthreads())
        finally:
            executor.shutdown(wait=False)
    except TimeoutError:
        raise ValueError(f"cluster: expected workers at {address!r}, got none within 30 s") from None
    finally:
        client.close()


def versions() -> str:
    """What results can depend on, besides settings and the processor."""
    packages = (f"{name} {importlib.metadata.version(name)}" for name in ("fastprune", "numpy", "numba", "scipy"))
    return f"Python {platform.python_version()}, {', '.join(packages)}"
