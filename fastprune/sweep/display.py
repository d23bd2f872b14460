"""The output of a sweep: a bar and the running cells in a terminal, or else one line per round; then tables."""

import textwrap
import time
from collections.abc import Iterable, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from fastprune import check
from fastprune.inference import features_of
from fastprune.records import HELP
from fastprune.sweep.cell import Data, Record
from fastprune.sweep.config import Sweep
from fastprune.sweep.engine import Failure, text_of
from fastprune.sweep.results import RULE, Best, Results, Spread, times
from fastprune.sweep.settings import Settings
from fastprune.sweep.store import Cell, held_out_accuracy

_PLAIN_WIDTH = 120  # characters per line without a terminal
_TEXT_WIDTH = 100  # characters per line of prose
_DAY = 24 * 3600.0  # seconds
_NUMBERS = 56  # characters after the name in a running cell's line
_NAMED = 5  # most cells to name in a list
_LOOKED_AT = 2048  # samples to judge the scale of the features by
_LABEL = 40  # most characters of a cell's name in a line


class Display:
    """Prints the progress and the results of a sweep to standard output."""

    def __init__(self, quiet: bool) -> None:
        self.console = console = Console(quiet=quiet)
        if not console.is_terminal:
            console.width = _PLAIN_WIDTH
        self._plus_minus = "±" if console.encoding.startswith("utf") else "+-"
        columns = [BarColumn(30), TextColumn("{task.percentage:3.0f} %  {task.fields[cells]}")]
        clocks = [TextColumn(" left"), TimeRemainingColumn(), TimeElapsedColumn()]
        self._overall = Progress(*columns, *clocks, speed_estimate_period=_DAY)  # rounds may take long
        self._running: dict[Settings, tuple[int, float]] = {}  # the round, and when it started
        self._last: dict[Settings, Record] = {}
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Print lines, above the bar."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def data(self, name: str, data: Data, hidden: Iterable[tuple[int, ...]]) -> None:
        """Print the sizes of a data set and of its networks."""
        train, held_out, test = (f"{len(part[0]) if part else 0:,}" for part in (data.train, data.held_out, data.test))
        networks = ", ".join("-".join(map(str, (data.features, *units, data.outputs))) for units in hidden)
        self.say(f"{name}: {train} training, {held_out} held-out and {test} test samples; {networks}")
        x = data.train[0]
        if fault := check.scale(features_of(x[:: -(-len(x) // _LOOKED_AT)])):
            self.say(f"{name}: {fault}.")

    def begin(self, sweep: Sweep, done: dict[str, Cell], workers: int, threads: int) -> None:
        """Start the bar, or print the head of the lines."""
        cells = sweep.cells
        self._sweep, self._cells, self._finished = sweep, len(cells), 0
        # Progress is counted in epochs, which all take about the same time.
        dense = {cell.dense_digest: _cost(cell, 0, 1) for cell in cells}
        begun = {cell.dense_digest for cell in cells if cell.digest in done or cell.dense_digest in done}
        total, before = sum(dense.values()), sum(dense[digest] for digest in begun)
        for cell in cells:
            total += _cost(cell, 1, cell.last + 1)
            if progress := done.get(cell.digest):
                before += _cost(cell, 1, cell.last + 1 if progress.finished else progress.count)
                if progress.finished:
                    self._finished += 1
                else:
                    self._last[cell] = progress.last
        self._width = min(_LABEL, max(len(self._label(cell)) for cell in cells))
        self._task = self._overall.add_task("", total=total, completed=before, cells=self._count())
        self._began = time.monotonic()
        kept = f" ({self._finished} done before)" if self._finished else ""
        each = f" of {threads} threads" if threads > 1 else ""
        self.say(f"{_count(self._cells, 'cell')}{kept}, {_count(workers, 'worker')}{each}, in {sweep.folder}")
        if self._finished == self._cells:
            return
        if self.console.is_terminal and not self.console.quiet:
            self._live.start()
        else:
            self.say(
                f"\n{'':{self._width + 30}}test accuracy, %\n    time  done  {'cell':{self._width}} round"
                "  sparsity  pruned  retrained     loss  seconds"
            )

    def started(self, cell: Settings, round: int) -> None:
        """Show a cell as running; round 0 is dense training."""
        self._running[cell] = round, time.monotonic()

    def finished(self, progress: Cell) -> None:
        """Print the last round of a cell, or in a terminal the finished cell."""
        cell, record = progress.settings, progress.last
        del self._running[cell]
        self._last[cell] = record
        self._finished += progress.finished
        cost = _cost(cell, record.round, cell.last + 1 if progress.finished else progress.count)
        self._overall.update(self._task, advance=cost, cells=self._count())
        if not self._live.is_started:
            self._log(cell, record)
        elif progress.finished:
            best, dense = progress.records[progress.best], progress.records[0]
            self.say(
                f"{self._label(cell):{self._width}}  dense {_percent(dense.after_test_accuracy)}, "
                f"{times(best.compression)} {_percent(best.after_test_accuracy)} (best, round {best.round}), "
                f"{times(record.compression)} {_percent(record.after_test_accuracy)} (last)"
            )

    def retried(self, cell: Settings, round: int, error: Exception) -> None:
        """Print the error after which a round runs again."""
        self._running.pop(cell, None)
        where = f"{self._label(cell)}, {f'round {round}' if round else 'dense training'}"
        self.say(f"{where}: trying again after {text_of(error)}")

    def failed(self, failure: Failure) -> None:
        """Drop the cells that cannot go on."""
        for cell in failure.cells:
            self._running.pop(cell, None)
            self._overall.update(self._task, advance=_cost(cell, max(1, failure.round), cell.last + 1))
        if failure.round == 0:
            self._overall.update(self._task, advance=_cost(failure.cells[0], 0, 1))

    def results(self, results: Results) -> None:
        """Print the table of the sweep, its best networks, and advice on cells that went wrong."""
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        one = len(results.groups) == 1
        coded = any(row.coded_bytes for group in results.groups for row in group.rows)
        names = ("round", "sparsity", "compression", "pruned") if one else ("cells", "dense", "round", "compression")
        sizes = ["bits", "coded bytes"] * coded
        for name in (*names, "retrained", "to dense", *sizes, "seeds"):
            table.add_column(name, justify="left" if name == "cells" else "right")
        for group in results.groups:
            for row in group.ends if one else [group.kept]:
                before = [f"{100 * row.sparsity:.2f} %", times(row.compression), self._spread(row.before)]
                first = [group.grid.label(group.settings), self._spread(group.rows[0].after)]
                columns = [row.name, *before] if one else [*first, row.name, times(row.compression)]
                seeds = f"{row.seeds} ({row.failed} failed)" if row.failed else f"{row.seeds}"
                columns += [self._spread(row.after), self._spread(row.difference, sign="+")]
                if coded:
                    columns += [row.bits, "" if row.coded_bytes is None else f"{row.coded_bytes:,.0f}"]
                table.add_row(*columns, seeds)
        kept = "The network that each seed keeps, and its test accuracy in %"
        title = f"{results.groups[0].settings.dataset}: test accuracy in %" if one else kept
        self.say(f"\n{title}, mean {self._plus_minus} standard deviation over seeds\n")
        self.console.print(table)
        for name, best in results.best.items():
            self._best(results, name, best)
        if results.best:
            self.say(f"\n{textwrap.fill(RULE, _TEXT_WIDTH, break_on_hyphens=False)}")
        collapsed, failed = [], []
        for cell in results.cells:
            if "collapsed" in cell.records[0].events:
                collapsed.append(self._label(cell.settings))
            elif cell.last.failed and not cell.settings.shares(cell.last.round):
                failed.append(f"{self._label(cell.settings)} (round {cell.last.round})")
        if collapsed:
            self.say(f"\nDense training collapsed to one answer for all samples: {_listed(collapsed)}. {HELP}.")
        if failed:
            self.say(
                f"\nThese cells ended early because a round failed: {_listed(failed)}. Try a smaller retraining rate, "
                "or prune less per round."
            )

    def _best(self, results: Results, name: str, best: Best) -> None:
        """Print the best settings of a data set, which network is saved, and how to use it."""
        cell, record, kept = best.cell.settings, best.record, best.group.kept
        of = "" if len(results.best) == 1 else f" of {name}"
        label = best.group.grid.label(best.group.settings)
        self.say(
            f"\nBest{of}: {f'{label}: ' if label else ''}{times(kept.compression)}, test accuracy "
            f"{self._spread(kept.after)} %, dense {self._spread(best.group.rows[0].after)} %.\n"
            f"Saved: seed={cell.seed}, round {record.round}, {record.live:,} of {best.cell.records[0].live:,} weights; "
            f"held-out accuracy {_percent(held_out_accuracy(record))} {self._plus_minus} {100 * best.uncertainty:.2f} "
            f"(one standard error, {record.validation_samples:,} samples).\n"
            f'Use it: fastprune.load("{results.sweep.folder / results.best_file(name)}").predict(x)'
        )
        if best.shared:
            file = results.sweep.folder / results.best_file(name)
            self.say(f"Also: {file.with_suffix('.fpc')} ({record.coded_bytes:,} bytes) and {file.with_suffix('.c')}")
        if best.uncertainty > cell.max_drop:
            self.say(
                f"The held-out set is too small to tell a drop of max_drop ({cell.max_drop:g}), so this choice is "
                "partly chance. Use a larger holdout or more seeds."
            )

    def _label(self, cell: Settings) -> str:
        return f"{self._sweep.label(cell)} seed={cell.seed}".strip()

    def _count(self) -> str:
        return f"{self._finished} of {_count(self._cells, 'cell')}"

    def _log(self, cell: Settings, record: Record) -> None:
        """Print one line about a round."""
        notes = list(record.events)
        if any(record.dead_units):
            notes.append(f"dead units {', '.join(map(str, record.dead_units))}")
        if record.coded_bytes is not None:
            notes.append(f"{record.coded_bytes:,} bytes coded")
        clock = f"{time.monotonic() - self._began:6.1f} s {self._overall.tasks[self._task].percentage:3.0f} %"
        line = f"{clock}  {self._label(cell):{self._width}} {' '.join(_numbers(record))}{record.seconds:9.2f}"
        self.say(f"{line}  {'; '.join(notes)}".rstrip())

    def _render(self) -> Group:
        """Draw the bar, and a line for each running cell: its round, and the results of its last one."""
        grid = Table(box=None, padding=(0, 1, 0, 0), show_header=bool(self._running))
        grid.add_column("running", style="cyan", no_wrap=True, max_width=max(8, self.console.width - _NUMBERS))
        for name in ("round", "sparsity", "pruned", "retrained", "loss", "seconds"):
            grid.add_column(name, justify="right", no_wrap=True)
        for cell, (number, since) in list(self._running.items()):
            last = self._last.get(cell)
            numbers = _numbers(last)[1:] if last else [""] * 4
            where = f"{number}/{cell.last}" if number else "dense"
            grid.add_row(self._label(cell), where, *numbers, f"{time.monotonic() - since:.0f}")
        return Group(grid, self._overall)

    def _spread(self, spread: Spread | None, sign: str = "") -> str:
        if spread is None:
            return ""
        mean = f"{100 * spread.mean:{sign}.2f}"
        return mean if spread.deviation is None else f"{mean} {self._plus_minus} {100 * spread.deviation:.2f}"


def _cost(cell: Settings, first: int, end: int) -> int:
    """Estimate the time of some rounds, in epochs; a round takes one more than it trains."""
    return sum(1 + cell.epochs_of(number) for number in range(first, end))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    """Join names, or the first few of many."""
    return "; ".join(names[:_NAMED]) + (f"; and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _percent(accuracy: float | None) -> str:
    return "-" if accuracy is None else f"{100 * accuracy:.2f} %"


def _numbers(record: Record) -> Sequence[str]:
    """Format the round, its sparsity, accuracies and loss as columns."""
    pruned, retrained = (
        "-" if value is None else f"{100 * value:.1f}"
        for value in (record.before_test_accuracy, record.after_test_accuracy)
    )
    loss = "-" if record.after_train_loss is None else f"{record.after_train_loss:.3g}"
    number, sparsity = (str(record.round), f"{100 * record.prunable_sparsity:.2f} %") if record.round else ("dense", "")
    return [f"{number:>5}", f"{sparsity:>9}", f"{pruned:>7}", f"{retrained:>10}", f"{loss:>8}"]
