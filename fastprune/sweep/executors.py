"""Who runs the tasks: processes of this machine, or a Dask cluster. Both are `concurrent.futures` executors."""

import importlib.metadata
import multiprocessing
import os
import platform
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_PATIENCE = 10  # seconds, with a cluster


class Processes(Executor):
    """Spawned processes, each in a pool of its own: one that dies takes no task with it but its own, and is replaced.

    `submit` waits while all `count` of them are busy.
    """

    def __init__(self, count: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        # Workers live as long as this end of the pipe is open: until it is closed, or this process ends, even killed.
        self._life, self._held = self._context.Pipe(duplex=False)
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
            with _no_interrupts():
                future = pool.submit(fn, *args, **kwargs)
        except BrokenProcessPool as error:  # its process died while it was idle
            future = Future()
            future.set_exception(error)
        future.add_done_callback(lambda done: self._give_back(pool, done))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End all processes: with `cancel_futures` at once, whatever they do, and else when they have done it."""
        if cancel_futures:
            self._held.close()
        for pool in list(self._pools):
            pool.shutdown(wait, cancel_futures=cancel_futures)
        self._held.close()
        self._life.close()

    def _give_back(self, pool: ProcessPoolExecutor, done: Future[Any]) -> None:
        """Take back a pool whose task is done, or a new one if its process died: a broken pool ends by itself."""
        if not done.cancelled() and isinstance(done.exception(), BrokenProcessPool):
            self._pools.discard(pool)
            pool = self._pool()
            self._pools.add(pool)
        self._idle.put(pool)

    def _pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, self._context, _begin, (self._life,))


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Put Ctrl-C off, also in processes that are started meanwhile, until `_begin` in these."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(life: Connection) -> None:
    """Make a worker leave Ctrl-C to the process that it works for, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def follow() -> None:
        life.poll(None)  # nothing is ever sent: it returns when the other end is gone
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextmanager
def cluster(address: str) -> Iterator[tuple[Executor, Callable[[], int]]]:
    """The executor of a Dask cluster, and how many workers it has just then.

    Raises ValueError if `dask.distributed` is not installed, no scheduler is there, or its workers are not as they must
    be.
    """
    try:
        import dask
        from distributed import Client
    except ImportError:
        raise ValueError('cluster: Dask needs an extra: pip install "fastprune[dask]"') from None
    try:
        client = Client(address, timeout=_PATIENCE)
    except (OSError, ValueError) as error:
        raise ValueError(f"cluster: expected a Dask scheduler at tcp://HOST:PORT, got {address!r}: {error}") from None
    try:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError:
            raise ValueError(f"cluster: expected workers at {address!r}, got none within {_PATIENCE} s") from None
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
    finally:
        client.close()


def versions() -> str:
    """What results can depend on, besides settings and the processor."""
    packages = (f"{name} {importlib.metadata.version(name)}" for name in ("fastprune", "numpy", "numba", "scipy"))
    return f"Python {platform.python_version()}, {', '.join(packages)}"
