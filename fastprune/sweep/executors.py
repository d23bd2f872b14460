"""The two `concurrent.futures` executors that a sweep can start: processes of this machine, and a Dask cluster."""

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
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from fastprune.processor import this_favors_blas

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_PATIENCE = 10  # seconds to wait for a cluster


class Processes(Executor):
    """Spawned processes, each in its own pool: a process that dies loses only its own task, and is replaced.

    `submit` waits while all of them are busy.
    """

    def __init__(self, count: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        # Workers live until this end of the pipe closes, which also happens if this process is killed.
        self._life, self._held = self._context.Pipe(duplex=False)
        self._idle: queue.SimpleQueue[ProcessPoolExecutor] = queue.SimpleQueue()
        self._pools = {self._pool() for _ in range(count)}
        for pool in self._pools:
            self._idle.put(pool)

    def submit(
        self, fn: Callable[_Parameters, _Result], /, *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> Future[_Result]:
        """Call a function in an idle process."""
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
        """End all processes: at once with `cancel_futures`, and otherwise after their current tasks."""
        if cancel_futures:
            self._held.close()
        for pool in list(self._pools):
            pool.shutdown(wait, cancel_futures=cancel_futures)
        self._held.close()
        self._life.close()

    def _give_back(self, pool: ProcessPoolExecutor, done: Future[Any]) -> None:
        """Mark a pool as idle after its task, or replace it if its process died; a broken pool ends by itself."""
        if not done.cancelled() and isinstance(done.exception(), BrokenProcessPool):
            self._pools.discard(pool)
            pool = self._pool()
            self._pools.add(pool)
        self._idle.put(pool)

    def _pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, self._context, _begin, (self._life,))


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Block Ctrl-C within the context; processes started in it keep it blocked until `_begin`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(life: Connection) -> None:
    """Set up a worker: it ignores Ctrl-C, and ends when its parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def follow() -> None:
        life.poll(None)  # nothing is ever sent: this returns when the other end closes
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextmanager
def cluster(address: str) -> Iterator[tuple[Executor, Callable[[], int]]]:
    """Connect to a Dask cluster: yield its executor, and a function that counts its workers.

    Raises ValueError if `dask.distributed` is not installed, if no scheduler answers, or if the workers do not fit.
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
    with closing(client):
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError:
            raise ValueError(f"cluster: expected workers at {address!r}, got none within {_PATIENCE} s") from None
        if (most := max(client.nthreads().values())) > 1:
            raise ValueError(
                f"cluster: expected workers of one task thread each (dask worker --nthreads 1), got {most}"
            )
        here = versions()
        for worker, there in client.run(versions).items():
            if there != here:
                raise ValueError(f"cluster: expected workers with {here}, got {worker} with {there}")
        executor = client.get_executor(pure=False)
        # The data are sent to each worker once: no warning about large tasks is needed.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
            try:
                yield executor, lambda: len(client.nthreads())
            finally:
                executor.shutdown(wait=False)


def versions() -> str:
    """Name the versions and the kind of processor that results can depend on."""
    packages = (f"{name} {importlib.metadata.version(name)}" for name in ("fastprune", "numpy", "numba", "scipy"))
    favored = "BLAS" if this_favors_blas() else "sparse kernels"  # decides what is stored sparse
    return f"Python {platform.python_version()}, {', '.join(packages)}, a processor that favors {favored}"
