"""Run a whole sweep: the function behind the command."""

import contextlib
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastprune import check
from fastprune.files import is_file, write_text
from fastprune.network import load
from fastprune.sweep.cell import check_settings
from fastprune.sweep.config import Sweep, read_toml
from fastprune.sweep.delivery import deliver
from fastprune.sweep.engine import (
    Failure,
    Loop,
    Workers,
    check_data,
    deferred_interrupts,
    load_data,
    prepare,
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
    """Run the unfinished rounds of a sweep, and write its results and its report.

    Parameters
    ----------
    sweep : Sweep
        The sweep, from `Sweep.of`.
    executor : concurrent.futures.Executor, optional
        Executor to run the rounds, in place of the sweep's processes or cluster: that of MPI or Ray, or any other whose
        workers run one task at a time and can import fastprune. They need no shared disk.
    workers : int, optional
        Number of rounds that the executor runs at a time; required with `executor`.
    quiet : bool, default False
        Whether to print nothing.
    report : bool, default True
        Whether to write the report, whose plots take some seconds. If not, an earlier report is removed.

    Returns
    -------
    Results
        Results of all finished rounds.
    list of Failure
        Rounds that failed for good, and why.

    Raises
    ------
    ValueError
        If a setting is invalid, or another command works on the folder. Nothing is changed then.
    OSError
        If the folder cannot be written to, or the executor accepts no more tasks. As after Ctrl-C, finished rounds are
        kept, and running the same sweep again resumes it.

    Notes
    -----
    Without an executor, this spawns processes, which import the calling script: put the call under
    `if __name__ == "__main__":`.

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
    from fastprune.sweep.display import Display  # here, because workers do not need it

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
    hired = workers_of(sweep) if given is None else contextlib.nullcontext(given)
    with deferred_interrupts() as events, hired as pool, store.locked():
        done = store.load(sweep.cells)
        check_data(sweep, data, done)
        if again := store.reopen(done):
            display.say(f"Files of {again} of the cells are missing in {folder}; these cells run again.")
            done = store.load(sweep.cells)
        write_text(folder / "sweep.toml", sweep.to_toml())
        if given is None and sweep.cluster is None:
            unfinished = [cell for cell in sweep.cells if not (cell.digest in done and done[cell.digest].finished)]
            prepare(pool, len(unfinished), display, events)
        try:
            for name, about in {cell.dataset: data(cell) for cell in sweep.cells}.items():
                display.data(name, about, sweep.axis("hidden"))
            if others := store.others(sweep.cells):
                display.say(f"{folder} has {others} more finished cells; this grid and its results leave them out.")
            with display:
                display.begin(sweep, done, pool.count(), pool.threads)
                failures = Loop(data, store, done, display, pool, events).run(sweep.cells)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to report
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
    """Write the results and report of a folder again. Raises ValueError if it has no sweep with a finished round."""
    results = _results_in("report", folder)
    if not results.cells:
        raise ValueError(f"report: expected a sweep with a finished round, got {str(folder)!r} without")
    results.write(folder)
    return [folder / "results.csv", write_report(results, [], folder)]


def export_best(folder: Path, form: str, options: Mapping[str, Any]) -> list[Path]:
    """Write the best network of each data set of a sweep in another form, into the folder `exports` of its folder.

    `options` are those of `to_c`; integers are calibrated by the sweep's training samples. Returns the paths. Raises
    ValueError if the sweep has no best network or other data, or if an option or the network is of no use.
    """
    results, paths = _results_in("export", folder), []
    if not results.best:
        raise ValueError(
            f"export: expected a sweep with a best network, got {str(folder)!r} without: no cell is finished, or no "
            "samples are held out"
        )
    data = None
    if options.get("arithmetic") == "int8":
        data = load_data(results.sweep)
        check_data(results.sweep, data, results.done)
    for name, best in results.best.items():
        network = load(Store(folder).network(best.cell.settings))
        calibration = {} if data is None else {"calibration": data(best.cell.settings).train[0]}
        stem = Path(results.best_file(name)).stem
        paths.append(deliver(network, form, folder / "exports", stem, **options, **calibration))
    return paths


def _results_in(command: str, folder: Path) -> Results:
    """Read the results of a folder; raise ValueError if it has no sweep."""
    file = folder / "sweep.toml"
    if not is_file(file):
        raise ValueError(f"{command}: expected the folder of a sweep, got {str(folder)!r}, which has no sweep.toml")
    sweep = replace(Sweep.of(read_toml(file)), out=str(folder))
    return Results(sweep, Store(folder).load(sweep.cells))
