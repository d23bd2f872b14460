"""What a person sees of a sweep: a bar while it trains, a line a round, a table at the end. Plain text elsewhere."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from fastprune.network import MLP
from fastprune.pruner import RoundRecord, Scores
from fastprune.sweep.results import Row, Spread
from fastprune.sweep.run import Candidate
from fastprune.trainer import Progress as Training

_PLAIN_WIDTH = 100  # characters of a line where there is no terminal to ask


class _Steps(ProgressColumn):
    """Steps done of all, [time taken, iterations/s, cost]: nothing until the first are done."""

    def render(self, task: Task) -> Text:
        if not task.total or not task.elapsed:
            return Text("")
        seconds = int(task.elapsed)
        clock, rate = f"{seconds // 60:02d}:{seconds % 60:02d}", task.completed / task.elapsed
        counts = f"{task.completed:.0f}/{task.total:.0f}"
        return Text(f"{counts} [{clock}, {rate:,.0f} it/s, cost={task.fields['cost']:.4g}]")


class Display:
    """Follows a sweep on standard output; see `fastprune.sweep.run.Observer`."""

    def __init__(self, quiet: bool) -> None:
        self.console = console = Console(quiet=quiet)
        if not console.is_terminal:
            console.width = _PLAIN_WIDTH
        self._plus_minus = "±" if console.encoding.startswith("utf") else "+-"
        columns = [TextColumn("{task.description}"), BarColumn(20), _Steps()]
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._steps, self._last = 0, Training(0, 0, math.nan)
        self._execution: list[str] = []

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print one line, above the bar."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def begin(self, seed: int, network: MLP) -> None:
        """Open a seed."""
        shape = "-".join(map(str, network.sizes))
        self.say(f"\nseed {seed}: {shape}, {network.total_weights:,} weights")
        self.say(f"{'':21}pruned, %    retrained, %")
        self.say("round    degree    train   test    train   test  seconds    it/s      cost")
        self._execution = []
        self._runs(network.execution)
        self._open("Train")

    def progress(self, progress: Training) -> None:
        """Move the bar."""
        again = progress.step <= self._last.step  # a second attempt
        self._steps += progress.step - (0 if again else self._last.step)
        self._last = progress
        task = self._bar.task_ids[-1]
        self._bar.update(task, completed=progress.step, total=progress.steps, cost=progress.loss)

    def dense(self, scores: Scores, seconds: float) -> None:
        """Close dense training."""
        self.say(f"dense{'':27}{_scores(scores)}{self._pace(seconds)}{'  collapsed' if scores.train.collapsed else ''}")

    def round(self, record: RoundRecord) -> None:
        """Open or close a round's retraining."""
        if not record.done:
            self._runs(list(record.execution))
            self._open(f"Retrain {record.round}")
            return
        notes = [str(event) for event in record.events]
        if any(record.dead_units):
            notes.append(f"dead units {', '.join(map(str, record.dead_units))}")
        self.say(
            f"{record.round:5d}{100 * record.prunable_sparsity:8.2f} %  {_scores(record.before)}  "
            f"{_scores(record.after)}{self._pace(record.seconds)}  {'; '.join(notes)}".rstrip()
        )

    def table(self, table: Sequence[Row], dataset: str) -> None:
        """Print the sweep's table."""
        grid = Table(box=None, padding=(0, 2, 0, 0))
        for name in ("round", "sparsity", "compression", "pruned", "retrained", "to dense", "seeds"):
            grid.add_column(name, justify="right")
        for row in table:
            grid.add_row(
                str(row.round) if row.round else "dense",
                f"{100 * row.sparsity:.2f} %",
                f"{row.compression:.1f}x",
                self._spread(row.before),
                self._spread(row.after),
                self._spread(row.difference, sign="+"),
                f"{row.seeds}" + (f" ({row.failed} failed)" if row.failed else ""),
            )
        spread = f"mean {self._plus_minus} standard deviation over seeds"
        self.say(f"\n{dataset}: test accuracy in %, {spread}\n")
        self.console.print(grid)

    def best(self, chosen: Candidate, max_drop: float) -> None:
        """Say which network is the best one."""
        network, test = chosen.network, chosen.scores.test
        assert test is not None
        assert test.accuracy is not None
        of = f"seed {chosen.seed}, " + (f"round {chosen.round}" if chosen.round else "dense")
        size = f"{network.live_weights:,} of {network.total_weights:,} weights ({network.compression:.1f}x)"
        self.say(
            f"\nBest: {of}: {size}, test accuracy {100 * test.accuracy:.2f} %; the smallest\nwithin "
            f"{100 * max_drop:.1f} percentage points of the dense networks' accuracy on held-out samples."
        )

    def _runs(self, execution: list[str]) -> None:
        """Say how the layers run, whenever that is new."""
        if execution != self._execution:
            self.say(f"{'':6}layers run {', '.join(execution)}")
            self._execution = execution

    def _open(self, description: str) -> None:
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        self._bar.add_task(description, total=None, cost=math.nan)
        self._steps, self._last = 0, Training(0, 0, math.nan)

    def _pace(self, seconds: float) -> str:
        """Seconds, iterations/s and cost, in columns."""
        return f"{seconds:9.2f}{self._steps / max(seconds, 1e-9):8,.0f}{self._last.loss:10.3g}"

    def _spread(self, spread: Spread | None, sign: str = "") -> str:
        if spread is None:
            return ""
        mean = f"{100 * spread.mean:{sign}.2f}"
        return mean if spread.deviation is None else f"{mean} {self._plus_minus} {100 * spread.deviation:.2f}"


def _scores(scores: Scores | None) -> str:
    """Training and test accuracy, in columns."""
    parts = [None, None] if scores is None else [scores.train, scores.test]
    accuracies = [None if part is None else part.accuracy for part in parts]
    return "".join("      -" if accuracy is None else f"{100 * accuracy:7.1f}" for accuracy in accuracies)
