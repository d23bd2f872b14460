"""The Python side of `kernels.team`: threads that enter one kernel together."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self, TypeVar

import numpy as np

from fastprune import check
from fastprune.kernels.constants import ABANDONED, LENGTH
from fastprune.kernels.layout import Team

_Result = TypeVar("_Result")


def count_threads(name: str, n_jobs: Any) -> int:
    """Number of threads for `n_jobs`: the number itself, or for -1 the number of cores this process may use."""
    if isinstance(n_jobs, int) and n_jobs == -1:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(n_jobs, int) and n_jobs < 1:
        raise ValueError(f"{name}: expected a number of threads, or -1 for all cores, got {n_jobs}")
    return check.integer(name, n_jobs, 1)


@contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Delay Ctrl-C until the block ends: KeyboardInterrupt inside Python's own locks could leave one held forever."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came and callable(before):
            before(*came[0])


class Threads:
    """The calling thread and `count - 1` more, until the context ends."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count - 1) if count > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            with deferred_interrupt():
                self._pool.shutdown()

    def run(self, call: Callable[[Team], _Result], most: int | None = None) -> _Result:
        """Let every thread, or `most` of them, call `call` with its place in the team; return the caller's result."""
        count = self.count if most is None else min(most, self.count)
        if self._pool is None or count == 1:
            return call(Team(0, 1, np.zeros(LENGTH, np.int64)))
        barrier = np.zeros(LENGTH, np.int64)

        def enter(thread: int) -> _Result:
            try:
                return call(Team(thread, count, barrier))
            except BaseException:
                barrier[ABANDONED] = 1  # or the others would wait for this thread
                raise

        others: list[Future[_Result]] = []
        with deferred_interrupt():
            try:
                for thread in range(1, count):
                    others.append(self._pool.submit(enter, thread))  # noqa: PERF401 - kept if a later one fails
                return enter(0)
            except BaseException:
                barrier[ABANDONED] = 1  # some threads may not have been submitted
                raise
            finally:
                for other in others:
                    other.result()
