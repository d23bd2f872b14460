"""What a person sees of a sweep: a bar while it trains, a line a round, a table at the end. Plain text elsewhere."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from fastprune.network import MLP
from fastprune.pruner import RoundRecord, Scores
from fastprune.sweep.results import Row, Spread
from fastprune.trainer import Progress as Training

_PLAIN_WIDTH = 100  # characters of a line where there is no terminal to ask


class _Rate(ProgressColumn):
    """[time taken, iterations/s, cost], as the bar of the seed program ends."""

    def render(self, task: Task) -> Text:
        seconds = task.elapsed or 0.0
        rate = f"{task.completed / seconds:,.0f}" if seconds > 0 else "?"
        cost = task.fields["cost"]
        clock = f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
        return Text(f"[{clock}, {rate} it/s, cost={'?' if cost is None else format(cost, '.4f')}]")


class Display:
    """Follows a sweep on standard output; see `fastprune.sweep.run.Observer`."""

    def __init__(self, quiet: bool) -> None:
        self.console = console = Console(quiet=quiet)
        if not console.is_terminal:
            console.width = _PLAIN_WIDTH
        columns = [
            TextColumn("{task.description}"),
            BarColumn(30),
            TextColumn("{task.completed}/{task.total}"),
            _Rate(),
        ]
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._last: Training | None = None

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
        self.say(f"\nseed {seed}: {shape}, {network.total_weights:,} weights; accuracies in %")
        self.say("round    degree   pruned: train   test   retrained: train   test   seconds     it/s    cost")
        self._open("Train")

    def progress(self, progress: Training) -> None:
        """Move the bar."""
        self._last = progress
        task = self._bar.task_ids[-1]
        self._bar.update(task, completed=progress.step, total=progress.steps, cost=progress.loss)

    def dense(self, scores: Scores, seconds: float) -> None:
        """Close dense training."""
        events = "  collapsed" if scores.train.collapsed else ""
        self.say(f"dense {'':32}{_scores(scores):>26}{self._pace(seconds)}{events}")

    def round(self, record: RoundRecord) -> None:
        """Open or close a round's retraining."""
        if record.after is None and not record.failed:
            self._open(f"Retrain {record.round}")
            return
        self.say(
            f"{record.round:5d}  {100 * record.prunable_sparsity:6.2f} %{_scores(record.before):>24}"
            f"{_scores(record.after):>26}{self._pace(record.seconds)}  {'; '.join(map(str, record.events))}".rstrip()
        )

    def table(self, table: Sequence[Row], dataset: str) -> None:
        """Print the sweep's table."""
        grid = Table(
            title=f"{dataset}: test accuracy in %, mean ± standard deviation over seeds",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            title_justify="left",
            title_style="bold",
        )
        for name in ("round", "sparsity", "compression", "pruned", "retrained", "to dense", "seeds"):
            grid.add_column(name, justify="right")
        for row in table:
            grid.add_row(
                str(row.round) if row.round else "dense",
                f"{100 * row.sparsity:.2f} %",
                f"{row.compression:.1f}x",
                _spread(row.before),
                _spread(row.after),
                _spread(row.difference, sign="+"),
                f"{row.seeds}" + (f" ({row.failed} failed)" if row.failed else ""),
            )
        self.say("")
        self.console.print(grid)

    def _open(self, description: str) -> None:
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        self._bar.add_task(description, total=None, cost=None)
        self._last = None

    def _pace(self, seconds: float) -> str:
        """Seconds, iterations/s and cost, in columns."""
        if self._last is None:
            return f"{seconds:10.2f}"
        return f"{seconds:10.2f}{self._last.steps / max(seconds, 1e-9):9,.0f}{self._last.loss:8.4f}"


def _scores(scores: Scores | None) -> str:
    """Training and test accuracy, in columns."""
    parts = [None, None] if scores is None else [scores.train, scores.test]
    accuracies = [None if part is None else part.accuracy for part in parts]
    return "".join("      -" if accuracy is None else f"{100 * accuracy:7.1f}" for accuracy in accuracies)


def _spread(spread: Spread | None, sign: str = "") -> str:
    if spread is None:
        return ""
    mean = f"{100 * spread.mean:{sign}.2f}"
    return mean if spread.deviation is None else f"{mean} ± {100 * spread.deviation:.2f}"
