"""The sweep: rounds handed out to whoever runs them, and written down before the next one starts.

Only this process writes. A round that is lost, with its worker or to a fault, is handed out again; so results do not
depend on who ran what, nor on how often the sweep was stopped.
"""

import dataclasses
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fastprune.datasets import Dataset, load_dataset
from fastprune.records import DivergenceError
from fastprune.sweep.cell import Data, Record, Task, advance, work
from fastprune.sweep.config import Sweep
from fastprune.sweep.executors import Processes, cluster
from fastprune.sweep.settings import Settings
from fastprune.sweep.store import Cell, Store
from fastprune.team import count_threads

_PATIENCE = 30.0  # seconds without a round, until it is asked whether the workers are still there
RETRIES = 2  # of a round; a divergence is the same every time, and is not retried


@dataclass(frozen=True)
class Failure:
    """A round that was given up, and the cells that cannot go on for it: several, if it was their dense training."""

    cells: list[Settings]
    round: int
    message: str


class Observer(Protocol):
    """Whoever is to be told how a sweep gets on."""

    def started(self, cell: Settings, round: int) -> None:
        """A round of a cell is handed out; round 0 is dense training."""

    def finished(self, progress: Cell) -> None:
        """It is done, and written down."""

    def retried(self, cell: Settings, round: int, error: Exception) -> None:
        """It was lost, and is handed out again."""

    def failed(self, failure: Failure) -> None:
        """It was given up."""


@dataclass
class _Job:
    """The next round of a cell; without progress, the dense training of all cells that wait for it."""

    cell: Settings
    progress: Cell | None
    state: bytes | None = None  # or it is read from the store
    failures: int = 0

    @property
    def round(self) -> int:
        return 0 if self.progress is None else self.progress.count


def load_data(sweep: Sweep) -> Callable[[Settings], Data]:
    """Read the data of a sweep, and tell a cell's. Raises ValueError if a data set is not there, or not for classes."""
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
    """Who runs rounds: an executor, how many it runs at a time, and with how many threads each."""

    executor: Executor
    count: Callable[[], int]
    threads: int


_Result = tuple[bytes, Record] | None
Events = queue.SimpleQueue[Future[_Result] | None]


@contextmanager
def deferred_interrupts() -> Iterator[Events]:
    """What comes in: rounds that are done, and None for Ctrl-C, which otherwise does nothing in this context.

    An exception out of the blue could leave a lock of the executor held, for which its threads would wait for good.
    """
    events: Events = queue.SimpleQueue()
    if threading.current_thread() is not threading.main_thread():  # which alone has to do with signals
        yield events
        return
    before = signal.signal(signal.SIGINT, lambda *_: events.put(None))
    try:
        yield events
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def workers_of(sweep: Sweep) -> Iterator[Workers]:
    """The workers that a sweep names: processes of this machine, each with its share of the cores, or a cluster.

    Raises ValueError if there is no such cluster.
    """
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
        processes.shutdown(cancel_futures=True)  # at the end, too, nothing is left to do: and it takes no time


def check_data(sweep: Sweep, data: Callable[[Settings], Data], done: Mapping[str, Cell]) -> None:
    """Refuse data that are not those of what is done. Raises ValueError if a data set has changed."""
    for cell in sweep.cells:
        progress = done.get(cell.digest) or done.get(cell.dense_digest)
        if progress is not None and progress.key != data(cell).key:
            folder = str(sweep.folder)
            raise ValueError(f"dataset: expected {cell.dataset!r} as {folder!r} was begun with, got other data")


def compile_kernels() -> None:
    """Compile what a cell needs, and leave it in the cache for the workers."""
    rng = np.random.default_rng(0)
    y = np.arange(40) % 3
    x = rng.normal(size=(40, 8)).astype(np.float32)
    data = Data.of(Dataset("none", x, y, x, y), 0.5)
    cell = Settings(hidden=(40,), epochs=1, rule="sparsity", final_sparsity=0.5, rounds=1, retrain_epochs=1)
    state, _ = advance(cell, 0, None, data, 1)
    advance(cell, 1, state, data, 1)


class Loop:
    """Hands out rounds, so many at a time, and takes what comes back; `done` is kept up to date.

    `done` is as `Store.load` gives it, and the store is locked.
    """

    def __init__(
        self,
        data: Callable[[Settings], Data],
        store: Store,
        done: dict[str, Cell],
        observer: Observer,
        workers: Workers,
        events: Events,
    ) -> None:
        self._data, self._store, self._done, self._observer = data, store, done, observer
        self._workers, self._events = workers, events
        self._ready: deque[_Job] = deque()  # a cell that is under way comes before the next one
        self._waiting: dict[str, list[Settings]] = {}  # for a dense network
        self._running: dict[Future[_Result], _Job] = {}
        self._failures: list[Failure] = []

    def run(self, cells: Sequence[Settings]) -> list[Failure]:
        """Run all that is not done; return what failed.

        Raises KeyboardInterrupt if there was Ctrl-C; OSError if something cannot be written, or the executor takes no
        more tasks.
        """
        for cell in cells:
            if progress := self._done.get(cell.digest):
                if not progress.finished:
                    self._ready.append(_Job(cell, progress))
            elif dense := self._done.get(cell.dense_digest):
                self._ready.append(_Job(cell, dataclasses.replace(dense, settings=cell)))
            elif cell.dense_digest in self._waiting:
                self._waiting[cell.dense_digest].append(cell)
            else:
                self._waiting[cell.dense_digest] = [cell]
                self._ready.append(_Job(cell, None))
        while self._ready or self._running:
            # At least one: where a cluster has lost all workers, a task waits for the next one.
            while self._ready and len(self._running) < max(1, self._workers.count()):
                job = self._ready.popleft()
                self._observer.started(job.cell, job.round)
                if job.round and job.state is None:
                    job.state = self._store.state(job.cell, job.round - 1)
                self._submit(job)
            try:
                event = self._events.get(timeout=_PATIENCE)
            except queue.Empty:
                self._workers.count()  # fails if a cluster is gone, whose futures might never be done
                continue
            if event is None:
                raise KeyboardInterrupt
            self._take(event, self._running.pop(event))
        return self._failures

    def _submit(self, job: _Job, data: Data | None = None) -> None:
        task = Task(job.cell, job.round, job.state, self._workers.threads, self._data(job.cell).key, data)
        try:
            future = self._workers.executor.submit(work, task)
        except RuntimeError as error:  # broken, or shut down
            raise ConnectionError(f"executor: expected it to take tasks, got {text_of(error)}") from error
        self._running[future] = job
        future.add_done_callback(self._events.put)

    def _take(self, future: Future[_Result], job: _Job) -> None:
        try:
            result = future.result()
        except Exception as error:  # whatever befell it: the other cells go on
            self._lose(job, error)
            return
        if result is None:
            self._submit(job, self._data(job.cell))
            return
        state, record = result
        old = job.progress or Cell(job.cell, self._data(job.cell).key)
        progress = old.with_(record)
        self._store.add(progress, state)
        if job.round == 0:
            self._done[job.cell.dense_digest] = progress
            cells = self._waiting.pop(job.cell.dense_digest)
            self._ready.extendleft(
                _Job(cell, dataclasses.replace(progress, settings=cell), state) for cell in cells[::-1]
            )
        else:
            self._done[job.cell.digest] = progress
            if not progress.finished:
                self._ready.appendleft(_Job(job.cell, progress, state))
        self._observer.finished(progress)

    def _lose(self, job: _Job, error: Exception) -> None:
        job.failures += 1
        if not isinstance(error, DivergenceError) and job.failures <= RETRIES:
            self._observer.retried(job.cell, job.round, error)
            self._ready.appendleft(job)
            return
        cells = [job.cell] if job.round else self._waiting.pop(job.cell.dense_digest)
        self._failures.append(Failure(cells, job.round, text_of(error)))
        self._observer.failed(self._failures[-1])


def text_of(error: Exception) -> str:
    """What went wrong, with the kind of error where its text alone does not say."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ArithmeticError) else f"{type(error).__name__}: {text}".rstrip(": ")
