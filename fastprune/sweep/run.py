"""A sweep from beginning to end: what the command does, as a function."""

import contextlib
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

from fastprune import check
from fastprune.files import is_file, write_text
from fastprune.kernels.jit import is_compiled
from fastprune.kernels.steps import train_steps
from fastprune.sweep.cell import check_settings
from fastprune.sweep.config import Sweep, read_toml
from fastprune.sweep.engine import (
    Failure,
    Loop,
    Workers,
    check_data,
    compile_kernels,
    deferred_interrupts,
    load_data,
    workers_of,
)
from fastprune.sweep.report import write_report
from fastprune.sweep.results import Results
from fastprune.sweep.store import Store


def run_sweep(
    sweep: Sweep,
    *,
    executor: Executor | None = None,
    workers: int | None = None,
    quiet: bool = False,
    report: bool = True,
) -> tuple[Results, list[Failure]]:
    """Run what is not done of a sweep, and write its results and its report.

    Parameters
    ----------
    sweep : Sweep
        From `Sweep.of`, which takes the settings of the command line by name.
    executor : concurrent.futures.Executor, optional
        Who runs the rounds, instead of the processes or the cluster that the sweep names: MPI's, Ray's, or any other
        whose workers run one task at a time and can import fastprune. They need no disk in common.
    workers : int, optional
        How many rounds that executor runs at a time; to be given with one.
    quiet : bool, default False
        Whether to print nothing.
    report : bool, default True
        Whether to write the report. Its plots take seconds, and one that is there from before is removed.

    Returns
    -------
    Results
        Of all that is done.
    list of Failure
        What is not, and why.

    Raises
    ------
    ValueError
        If a setting is not as described, or another command works on the folder. Nothing is then changed.
    OSError
        If the folder cannot be written to, or the executor takes no more tasks. What was finished is kept: the same
        sweep goes on from there. So it is after Ctrl-C.

    Notes
    -----
    Without an executor, processes are spawned, which import the script that calls this: the call has to stand under
    `if __name__ == "__main__":` there.

    Examples
    --------
    >>> import tempfile
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from fastprune.sweep import Sweep, run_sweep
    >>> with tempfile.TemporaryDirectory() as path, ThreadPoolExecutor(1) as executor:
    ...     sweep = Sweep.of({"hidden": "20", "seeds": 0, "rule": "std", "quality": "0.5,1", "rounds": 2, "out": path})
    ...     results, failures = run_sweep(sweep, executor=executor, workers=1, quiet=True, report=False)
    >>> [round(cell.records[-1].sparsity, 1) for cell in results.cells], failures
    ([0.7, 0.9], [])
    """
    from fastprune.sweep.display import Display  # here, because a worker has nothing to display

    if not isinstance(sweep, Sweep):
        raise ValueError(f"sweep: expected a Sweep, from Sweep.of, got {type(sweep).__name__}")
    given = None
    if executor is not None:
        count = check.integer("workers", workers, 1)
        given = Workers(executor, lambda: count, sweep.threads or 1)
    display = Display(quiet)
    data = load_data(sweep)
    check_settings(sweep.cells, data)
    folder, store = sweep.folder, Store(sweep.folder)
    store.check()
    if given is None and sweep.cluster is None and not is_compiled(train_steps):
        display.compiling()
        compile_kernels()
    hired = workers_of(sweep) if given is None else contextlib.nullcontext(given)
    with deferred_interrupts() as events, hired as pool, store.locked():
        done = store.load(sweep.cells)
        check_data(sweep, data, done)
        if again := store.reopen(done):
            display.say(f"Files of {again} of the cells are missing in {folder}; they run again.")
            done = store.load(sweep.cells)
        write_text(folder / "sweep.toml", sweep.to_toml())
        try:
            for name, about in {cell.dataset: data(cell) for cell in sweep.cells}.items():
                display.data(name, about, sweep.axis("hidden"))
            if others := store.others(sweep.cells):
                display.say(
                    f"{folder} has {others} more finished cells, which this grid, and so its results, leave out."
                )
            with display:
                display.begin(sweep, done, pool.count(), pool.threads)
                failures = Loop(data, store, done, display, pool, events).run(sweep.cells)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                Results(sweep, done).write(folder)
            raise
        results = Results(sweep, done)
        results.write(folder)
        if results.cells:
            display.results(results)
            page = f" and {write_report(results, failures, folder)}" if report else ""
            display.say(f"Wrote {folder / 'results.csv'}{page}")
    return results, failures


def make_report(folder: Path) -> list[Path]:
    """Make the results and the report of a sweep's folder again, from what is done so far.

    Raises ValueError if it is no folder of a sweep, or no cell is begun.
    """
    file = folder / "sweep.toml"
    if not is_file(file):
        raise ValueError(f"report: expected the folder of a sweep, got {str(folder)!r}, which has no sweep.toml")
    sweep = replace(Sweep.of(read_toml(file)), out=str(folder))
    results = Results(sweep, Store(folder).load(sweep.cells))
    if not results.cells:
        raise ValueError(f"report: expected a sweep with a finished round, got {str(folder)!r} without")
    results.write(folder)
    return [folder / "results.csv", write_report(results, [], folder)]
