"""The loop of a sweep: it gives rounds to the workers, and writes each result to disk before the cell's next round.

Only this process writes. If a worker dies or a round fails, the round runs again. So the results depend neither on
which worker ran a round nor on how often the sweep was stopped.
"""

import dataclasses
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fastprune.datasets import Dataset, load_dataset
from fastprune.records import DivergenceError
from fastprune.sweep.cell import Data, Record, Task, advance, is_compiled, work
from fastprune.sweep.config import Sweep
from fastprune.sweep.executors import Processes, cluster
from fastprune.sweep.settings import Settings
from fastprune.sweep.store import Cell, Store
from fastprune.team import count_threads

if TYPE_CHECKING:
    from fastprune.sweep.display import Display

_PATIENCE = 30.0  # seconds without a result before the loop checks that the workers are still there
RETRIES = 2  # of a round; divergence is deterministic, and is not retried


@dataclass(frozen=True)
class Failure:
    """A round that failed for good, and the cells that stop there: several if it was their dense training."""

    cells: list[Settings]
    round: int
    message: str


@dataclass
class _Job:
    """The next round of a cell; without progress, the dense training that one or more cells wait for."""

    cell: Settings
    progress: Cell | None
    state: bytes | None = None  # None: read it from the store
    failures: int = 0

    @property
    def round(self) -> int:
        return 0 if self.progress is None else self.progress.count


def load_data(sweep: Sweep) -> Callable[[Settings], Data]:
    """Read the data sets of a sweep; return a function that gives a cell's. Raises ValueError if one is unusable."""
    found: dict[tuple[str, float], Data] = {}
    for cell in sweep.cells:
        if (cell.dataset, cell.holdout) not in found:
            try:
                dataset = load_dataset(cell.dataset, sweep.data_dir)
            except ValueError as error:
                message = str(error)
                raise ValueError(f"dataset{message[4:]}" if message.startswith("name:") else message) from None
            found[cell.dataset, cell.holdout] = Data.of(dataset, cell.holdout)
    return lambda cell: found[cell.dataset, cell.holdout]


@dataclass(frozen=True)
class Workers:
    """An executor, the number of rounds it can run at a time, and the threads of each."""

    executor: Executor
    count: Callable[[], int]
    threads: int


_Result = tuple[bytes, Record] | None
Events = queue.SimpleQueue[Future[Any] | None]


@contextmanager
def deferred_interrupts() -> Iterator[Events]:
    """Make a queue for finished rounds; within this context Ctrl-C only puts None into it.

    KeyboardInterrupt inside the executor could leave its lock held and deadlock.
    """
    events: Events = queue.SimpleQueue()
    if threading.current_thread() is not threading.main_thread():  # only the main thread handles signals
        yield events
        return
    before = signal.signal(signal.SIGINT, lambda *_: events.put(None))
    try:
        yield events
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def workers_of(sweep: Sweep) -> Iterator[Workers]:
    """Start processes that share this machine's cores, or connect to the cluster; raise ValueError if that fails."""
    if sweep.cluster is not None:
        with cluster(sweep.cluster) as (executor, count):
            yield Workers(executor, count, sweep.threads or 1)
        return
    cores = count_threads("jobs", -1)
    jobs = min(cores if sweep.jobs == -1 else sweep.jobs, len(sweep.cells))
    processes = Processes(jobs)
    try:
        yield Workers(processes, lambda: jobs, sweep.threads or max(1, cores // jobs))
    finally:
        processes.shutdown(cancel_futures=True)  # even after success: nothing is left to run, and this returns at once


def check_data(sweep: Sweep, data: Callable[[Settings], Data], done: Mapping[str, Cell]) -> None:
    """Raise ValueError if a data set differs from the one that finished rounds were trained on."""
    for cell in sweep.cells:
        progress = done.get(cell.digest) or done.get(cell.dense_digest)
        if progress is not None and progress.key != data(cell).key:
            folder = str(sweep.folder)
            raise ValueError(f"dataset: expected the same {cell.dataset!r} as {folder!r} began with, got other data")


def prepare(workers: Workers, cells: int, display: "Display", events: Events) -> None:
    """Start a process for each of `cells`, or all, and compile the kernels in one if they are not in the cache.

    Processes import Numba side by side then, and this one never does. What fails here fails again in a round, which is
    reported. Raises KeyboardInterrupt after Ctrl-C.
    """

    def of_each(call: Callable[[], Any], count: int) -> list[Any]:
        futures = [workers.executor.submit(call) for _ in range(count)]
        for future in futures:
            future.add_done_callback(events.put)
        for _ in futures:
            if events.get() is None:
                raise KeyboardInterrupt
        return [future.result() for future in futures if future.exception() is None]

    if not all(of_each(is_compiled, min(cells, workers.count()))):
        display.say("Compiling, once: this takes 15 to 30 seconds.")
        of_each(compile_kernels, 1)


def compile_kernels() -> None:
    """Compile the kernels that a cell needs, so that all processes find them in the cache."""
    rng = np.random.default_rng(0)
    y = np.arange(40) % 3
    x = rng.normal(size=(40, 8)).astype(np.float32)
    data = Data.of(Dataset("none", x, y, x, y), 0.5)
    cell = Settings(hidden=(40,), epochs=1, rule="sparsity", final_sparsity=0.5, rounds=1, retrain_epochs=1)
    state, _ = advance(cell, 0, None, data, 1)
    advance(cell, 1, state, data, 1)


@dataclass
class Loop:
    """Runs the rounds of a sweep, and updates `done`, which comes from `Store.load`; the store must be locked."""

    data: Callable[[Settings], Data]
    store: Store
    done: dict[str, Cell]
    display: "Display"
    workers: Workers
    events: Events
    _ready: deque[_Job] = field(default_factory=deque, init=False)  # cells that have begun come first
    _waiting: dict[str, list[Settings]] = field(default_factory=dict, init=False)  # by the dense network they need
    _running: dict[Future[_Result], _Job] = field(default_factory=dict, init=False)
    _failures: list[Failure] = field(default_factory=list, init=False)

    def run(self, cells: Sequence[Settings]) -> list[Failure]:
        """Run all unfinished rounds; return those that failed.

        Raises KeyboardInterrupt after Ctrl-C, and OSError if a file cannot be written or the executor accepts no more
        tasks.
        """
        for cell in cells:
            if progress := self.done.get(cell.digest):
                if not progress.finished:
                    self._ready.append(_Job(cell, progress))
            elif dense := self.done.get(cell.dense_digest):
                self._ready.append(_Job(cell, dataclasses.replace(dense, settings=cell)))
            elif cell.dense_digest in self._waiting:
                self._waiting[cell.dense_digest].append(cell)
            else:
                self._waiting[cell.dense_digest] = [cell]
                self._ready.append(_Job(cell, None))
        while self._ready or self._running:
            # At least one: if a cluster has lost all its workers, the task waits for a new one.
            while self._ready and len(self._running) < max(1, self.workers.count()):
                job = self._ready.popleft()
                self.display.started(job.cell, job.round)
                if job.round and job.state is None:
                    job.state = self.store.state(job.cell, job.round - 1)
                self._submit(job)
            try:
                event = self.events.get(timeout=_PATIENCE)
            except queue.Empty:
                self.workers.count()  # raises an error if the cluster is gone: its futures might never finish
                continue
            if event is None:
                raise KeyboardInterrupt
            self._take(event, self._running.pop(event))
        return self._failures

    def _submit(self, job: _Job, data: Data | None = None) -> None:
        task = Task(job.cell, job.round, job.state, self.workers.threads, self.data(job.cell).key, data)
        try:
            future = self.workers.executor.submit(work, task)
        except RuntimeError as error:  # broken, or shut down
            raise ConnectionError(f"executor: it accepts no more tasks ({text_of(error)})") from error
        self._running[future] = job
        future.add_done_callback(self.events.put)

    def _take(self, future: Future[_Result], job: _Job) -> None:
        try:
            result = future.result()
        except Exception as error:  # of any kind: the other cells go on
            self._retry(job, error)
            return
        if result is None:  # the worker does not have the data yet
            self._submit(job, self.data(job.cell))
            return
        state, record = result
        progress = (job.progress or Cell(job.cell, self.data(job.cell).key)).with_(record)
        self.store.add(progress, state)
        if job.round == 0:
            self.done[job.cell.dense_digest] = progress
            cells = self._waiting.pop(job.cell.dense_digest)
            self._ready.extendleft(
                _Job(cell, dataclasses.replace(progress, settings=cell), state) for cell in cells[::-1]
            )
        else:
            self.done[job.cell.digest] = progress
            if not progress.finished:
                self._ready.appendleft(_Job(job.cell, progress, state))
        self.display.finished(progress)

    def _retry(self, job: _Job, error: Exception) -> None:
        job.failures += 1
        if not isinstance(error, DivergenceError) and job.failures <= RETRIES:
            self.display.retried(job.cell, job.round, error)
            self._ready.appendleft(job)
            return
        cells = [job.cell] if job.round else self._waiting.pop(job.cell.dense_digest)
        self._failures.append(Failure(cells, job.round, text_of(error)))
        self.display.failed(self._failures[-1])


def text_of(error: Exception) -> str:
    """Return the error's message, after the name of its type unless it is an ArithmeticError, which needs none."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ArithmeticError) else f"{type(error).__name__}: {text}".rstrip(": ")
