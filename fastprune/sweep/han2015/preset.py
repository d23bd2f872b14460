"""The study as a command: its tasks on all cores, and what is written of them. Only this process writes."""

import importlib.metadata
import multiprocessing
import platform
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fastprune.datasets import load_dataset
from fastprune.files import write_text
from fastprune.kernels.jit import is_compiled
from fastprune.kernels.steps import train_steps
from fastprune.network import MLP
from fastprune.sweep.han2015 import figures, study
from fastprune.sweep.han2015.recipes import Recipe, Study
from fastprune.sweep.han2015.study import PAPER, SMALL_SETS, Result, Row
from fastprune.sweep.han2015.tables import read_rows, tables, write_rows
from fastprune.team import count_threads
from fastprune.trainer import Trainer

FULL_SEEDS = 3  # for what `--full` adds


@dataclass(frozen=True)
class Job:
    """One part of the study, for one seed: a function of the module `study` and its arguments."""

    function: Callable[..., Result]
    recipe: Recipe
    seed: int
    data_dir: str | None
    more: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For the progress lines."""
        return " ".join([self.function.__name__, *self.more.values(), f"seed {self.seed}"])

    def __call__(self) -> Result:
        """Do it."""
        return self.function(self.recipe, self.seed, self.data_dir, **self.more)


def jobs(of: Study, seeds: Sequence[int], data_dir: str | None, full: bool) -> list[Job]:
    """What there is to do, the longest first."""
    first = seeds[:FULL_SEEDS] if full else []
    return [
        *(Job(study.gradual, of.mnist, seed, data_dir) for seed in seeds),
        *(Job(study.random, of.mnist, seed, data_dir) for seed in first),
        *(
            Job(study.regularization, recipe, seed, data_dir, {"penalty": name})
            for seed in first
            for name, recipe in of.penalties.items()
        ),
        *(Job(study.sensitivity, of.penalties["l2"], seed, data_dir) for seed in first),
        *(Job(study.small, of.small, seed, data_dir, {"name": name}) for seed in seeds for name in SMALL_SETS),
    ]


def run(
    of: Study, seeds: Sequence[int], data_dir: str | None, full: bool, out: Path, say: Callable[[str], None]
) -> list[str]:
    """Do the study, and write `results.csv`, `tables.md` and, with `full`, the pictures to the folder `out`.

    Returns
    -------
    list of str
        What failed. There are then no tables and no pictures; the rows of what did not fail are written. So they are
        after Ctrl-C.

    Raises
    ------
    ValueError
        If the data, or with `full` matplotlib, are not there; before anything is done.
    """
    if full:
        figures.needed()
    for name in ("mnist", *SMALL_SETS):
        load_dataset(name, data_dir)
    todo = jobs(of, seeds, data_dir, full)
    workers = min(count_threads("n_jobs", -1), len(todo))
    if not is_compiled(train_steps):
        say("Compiling, once: this takes 15 to 30 seconds.")
        Trainer(MLP([2, 2])).fit(np.eye(2), [0, 1], 1)
    say(f"{len(todo)} tasks, {workers} at a time; seeds {', '.join(map(str, seeds))}")
    started = time.perf_counter()
    results: dict[int, Result] = {}
    failures: list[str] = []
    others = multiprocessing.active_children()
    try:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            futures = {pool.submit(task.__call__): i for i, task in enumerate(todo)}
            try:
                for future in as_completed(futures):
                    number = futures[future]
                    try:
                        results[number] = future.result()
                    except (ArithmeticError, MemoryError, BrokenProcessPool) as error:
                        failures.append(f"{todo[number].name}: {error or type(error).__name__}")
                        continue
                    say(f"{time.perf_counter() - started:5.0f} s  {todo[number].name}{_brief(results[number].rows)}")
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in set(multiprocessing.active_children()) - set(others):
                    process.terminate()
                raise
    finally:
        rows = [row for number in sorted(results) for row in results[number].rows]
        if rows:
            (out / "tables.md").unlink(missing_ok=True)  # of other rows
            write_rows(out / "results.csv", rows)
    if failures:
        return failures
    rows = read_rows(out / "results.csv")  # rounded: tables and pictures are those of the file
    text = f"{tables(rows)}\n{_circumstances(seeds, full, workers, time.perf_counter() - started)}\n"
    write_text(out / "tables.md", text)
    say(f"\n{text}")
    if full:
        scans = [results[i].arrays for i, task in enumerate(todo) if task.function is study.sensitivity]
        for path in figures.draw(out, rows, results[0].arrays, scans):
            say(f"Wrote {path}")
    say(f"Wrote {out / 'results.csv'} and {out / 'tables.md'}")
    return []


def _brief(rows: Sequence[Row]) -> str:
    """What a reader of the progress wants to know first."""
    points = [row for row in rows if row.target in (1.0, PAPER, 80.0)]
    return "".join(f"  {row.method} {row.target:g}x {100 * row.test_error:.2f} %" for row in points)


def _circumstances(seeds: Sequence[int], full: bool, workers: int, seconds: float) -> str:
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "numba", "scipy"))
    more = f", and {', '.join(map(str, seeds[:FULL_SEEDS]))} for what --full adds" if full else ""
    return (
        f"Seeds {', '.join(map(str, seeds))}{more}; mean ± standard deviation over seeds. fastprune "
        f"{importlib.metadata.version('fastprune')}, Python {platform.python_version()} on {sys.platform}, {packages}; "
        f"{seconds:.0f} s in {workers} processes, of one thread each."
    )
