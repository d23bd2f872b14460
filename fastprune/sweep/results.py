"""What a sweep comes to: its files of rows, its tables, and the best network of each data set."""

import csv
import dataclasses
import functools
import io
import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastprune.files import atomic_write
from fastprune.sweep.cell import Record
from fastprune.sweep.config import FIELDS, Settings, Sweep, written
from fastprune.sweep.store import Cell, held_out_accuracy

# The columns of results.csv and the keys of results.jsonl: which cell, its settings, what became of the round.
COLUMNS = ("cell", *FIELDS, *(name for name in Record._fields if name != "seconds"))
SECONDS = ("cell", "seed", "round", "seconds")


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds, as fractions; a single seed has no deviation."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one value a seed."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class Row:
    """One round over the seeds that came through it, in test accuracies; round 0 is the dense network.

    `before` is None for the dense network, and all are None if no seed came through. `difference` is `after`
    less the same seed's dense network; `held_out` is the mean held-out accuracy after retraining.
    """

    round: int
    seeds: int
    failed: int
    sparsity: float
    before: Spread | None
    after: Spread | None
    difference: Spread | None
    held_out: float | None
    seconds: float

    @property
    def compression(self) -> float | None:
        """All weights by live weights; None if there are no live ones."""
        return 1 / (1 - self.sparsity) if self.sparsity < 1 else None


@dataclass(frozen=True)
class Group:
    """The cells that differ in their seeds only, in the order of these."""

    settings: Settings  # of the first seed
    cells: list[Cell]

    @functools.cached_property
    def rows(self) -> list[Row]:
        """One a round. Failed rounds are counted, and left out of the means."""
        rows = []
        for number in range(max(len(cell.records) for cell in self.cells)):
            reached = [(cell.records[0], cell.records[number]) for cell in self.cells if len(cell.records) > number]
            good = [(dense, record) for dense, record in reached if not record.failed]
            shown = [record for _, record in good or reached]
            row = Row(
                round=number,
                seeds=len(good),
                failed=len(reached) - len(good),
                sparsity=statistics.fmean(record.sparsity for record in shown),
                before=_spread([r.before_test_accuracy for _, r in good if r.before_test_accuracy is not None]),
                after=_spread([_test(record) for _, record in good]),
                difference=_spread([_test(record) - _test(dense) for dense, record in good] if number else []),
                held_out=statistics.fmean(held_out_accuracy(record) for _, record in good) if good else None,
                seconds=statistics.fmean(record.seconds for record in shown),
            )
            rows.append(row)
        return rows

    @property
    def best(self) -> Row:
        """The last round whose mean held-out accuracy is within `max_drop` of the dense networks', no seed missing."""
        first = self.rows[0]
        assert first.held_out is not None
        bar = first.held_out - self.settings.max_drop
        good = [r for r in self.rows if r.held_out is not None and r.held_out >= bar and r.seeds == first.seeds]
        return good[-1]


@dataclass(frozen=True)
class Best:
    """The best network of a data set: the cell it is from, and the record of its round."""

    cell: Cell
    record: Record


@dataclass(frozen=True)
class Results:
    """A sweep, and what is done of it."""

    sweep: Sweep
    done: Mapping[str, Cell]

    @functools.cached_property
    def cells(self) -> list[Cell]:
        """What is done of each cell that is begun, in the order of the grid; if no round is, its dense network."""
        found = ((cell, self.done.get(cell.digest) or self.done.get(cell.dense_digest)) for cell in self.sweep.cells)
        return [dataclasses.replace(progress, settings=cell) for cell, progress in found if progress]

    @functools.cached_property
    def groups(self) -> list[Group]:
        """The cells by all settings but the seed."""
        groups: dict[Settings, list[Cell]] = {}
        for cell in self.cells:
            groups.setdefault(dataclasses.replace(cell.settings, seed=0), []).append(cell)
        return [Group(cells[0].settings, cells) for cells in groups.values()]

    @functools.cached_property
    def best(self) -> dict[str, Best]:
        """The best network of each data set that has a finished cell.

        Each cell's own is the smallest that is no more than `max_drop` below its dense network, in held-out accuracy;
        of these, the smallest is chosen that is no more than `max_drop` below the best of all dense networks: a seed
        that trained badly has a low bar of its own. Of equally small ones, that of the highest held-out accuracy.
        """
        best = {}
        for name in dict.fromkeys(cell.settings.dataset for cell in self.cells):
            cells = [cell for cell in self.cells if cell.settings.dataset == name and cell.finished]
            bar = max((held_out_accuracy(cell.records[0]) for cell in cells), default=0.0)
            candidates = [Best(cell, cell.records[cell.best]) for cell in cells]
            good = [c for c in candidates if held_out_accuracy(c.record) >= bar - c.cell.settings.max_drop]
            if good:
                best[name] = min(good, key=lambda c: (c.record.live, -held_out_accuracy(c.record)))
        return best

    def best_file(self, name: str) -> str:
        """The file name of the best network of a data set: with its name, if the sweep has several."""
        return "best.npz" if len({cell.dataset for cell in self.sweep.cells}) == 1 else f"best-{Path(name).stem}.npz"

    def write(self, folder: Path) -> None:
        """Write `results.csv`, `results.jsonl`, `seconds.csv` and the best networks.

        Raises
        ------
        OSError
            If that cannot be done.
        """
        _write_csv(folder / "results.csv", COLUMNS, (map(_field, row.values()) for row in self._rows()))
        with atomic_write(folder / "results.jsonl") as file:
            for row in self._rows():
                file.write(json.dumps(row).encode() + b"\n")
        seconds = (
            (cell.settings.digest, cell.settings.seed, record.round, record.seconds)
            for cell in self.cells
            for record in cell.records
        )
        _write_csv(folder / "seconds.csv", SECONDS, seconds)
        for stale in {"report.html", "best.npz"} - set(map(self.best_file, self.best)):
            (folder / stale).unlink(missing_ok=True)  # of a sweep that was smaller, or of another data set
        for name, best in self.best.items():
            with atomic_write(folder / self.best_file(name)) as file:
                file.write((folder / "networks" / f"{best.cell.settings.digest}.npz").read_bytes())

    def _rows(self) -> Iterator[dict[str, Any]]:
        for cell in self.cells:
            settings = {"cell": cell.settings.digest} | cell.settings.values
            for record in cell.records:
                values = settings | record._asdict()
                yield {name: values[name] for name in COLUMNS}


def times(compression: float | None) -> str:
    """A compression as people read it; None stands for no weights at all."""
    return "infinite" if compression is None else f"{compression:,.1f}x"


def _spread(values: Sequence[float]) -> Spread | None:
    return Spread.of(values) if values else None


def _field(value: Any) -> Any:
    """A value as a field of a CSV file."""
    if isinstance(value, tuple):
        return written(value)
    return ";".join("" if one is None else str(one) for one in value) if isinstance(value, list) else value


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    with atomic_write(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
        text.detach()


def _test(record: Record) -> float:
    assert record.after_test_accuracy is not None
    return record.after_test_accuracy
