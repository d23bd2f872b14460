"""The results of a sweep: files of rows, tables, and the best network of each data set."""

import csv
import dataclasses
import functools
import io
import json
import math
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastprune.files import atomic_write
from fastprune.frozen import freeze
from fastprune.network import load
from fastprune.sweep.cell import Record
from fastprune.sweep.config import Grid, Reference, Sweep
from fastprune.sweep.delivery import deliver
from fastprune.sweep.settings import DEFAULTS, FIELDS, Settings, written
from fastprune.sweep.store import Cell, held_out_accuracy

# The columns of results.csv and the keys of results.jsonl: the cell, the settings of the round, its record.
COLUMNS = (
    "grid",
    "cell",
    *(name for name in FIELDS if name != "stage"),
    *(name for name in Record._fields if name != "seconds"),
)
SECONDS = ("cell", "seed", "round", "seconds")
_NUMBERS = ("final_sparsity", "quality", "q")  # one-round cells that differ only in these share a line of the chart


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds, as fractions; a single seed has no deviation."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """Compute both from one value per seed; None without values."""
        if not values:
            return None
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class Row:
    """One network per seed, averaged over the seeds.

    The spreads are test accuracies: `before` and `after` retraining, and two differences per seed. `difference` is
    `after` minus the dense network's accuracy, `fair` is `after` minus that of a dense network trained for as many
    epochs, if the sweep has one. `before` is None for the dense network, and all spreads are None if every seed failed.
    `bits` names the bits of shared weights and biases, and `coded_bytes` is the mean size of coded files; where none
    are shared, they are empty and None. `held_out` is the mean held-out accuracy after retraining. `epochs` and
    `seconds` are those of the round; `total` is the seconds of all training that led to it.
    """

    name: str
    round: int
    seeds: int
    failed: int
    sparsity: float
    live: float
    effective_sparsity: float
    layer_sparsity: list[float]
    active_units: list[float] | None
    bits: str
    coded_bytes: float | None
    before: Spread | None
    after: Spread | None
    difference: Spread | None
    fair: Spread | None
    held_out: float | None
    epochs: float
    seconds: float
    total: float

    @classmethod
    def of(cls, reached: Sequence[tuple[Cell, int]], dense: Mapping[int, Cell]) -> "Row":
        """Average one round of each cell, without failed ones; `dense` has the unpruned cells by seed."""
        good = [(cell, number) for cell, number in reached if not cell.records[number].failed]
        shown = [cell.records[number] for cell, number in good or reached]
        sizes = [record.coded_bytes for record in shown if record.coded_bytes is not None]
        rounds = sorted({number for _, number in reached})
        name = "-".join(map(str, dict.fromkeys((rounds[0], rounds[-1]))))

        def less(other: Mapping[int, Cell], same: bool) -> Spread | None:
            pairs = [(c.records[n], o.records) for c, n in good if rounds[-1] and (o := other.get(c.settings.seed))]
            values = [
                _test(record) - _test(records[record.round if same else 0])
                for record, records in pairs
                if not same or len(records) > record.round
            ]
            return Spread.of(values)

        return cls(
            name="dense" if rounds == [0] else name,
            round=rounds[-1],
            seeds=len(good),
            failed=len(reached) - len(good),
            sparsity=statistics.fmean(record.sparsity for record in shown),
            live=statistics.fmean(record.live for record in shown),
            effective_sparsity=statistics.fmean(record.effective_sparsity for record in shown),
            layer_sparsity=_means([record.layer_sparsity for record in shown]),
            active_units=_means([record.active_units for record in shown if record.active_units]) or None,
            bits=" or ".join(sorted(filter(None, {_bits(cell, number) for cell, number in good or reached}))),
            coded_bytes=statistics.fmean(sizes) if len(sizes) == len(shown) else None,
            before=Spread.of([r.before_test_accuracy for r in shown if good and r.before_test_accuracy is not None]),
            after=Spread.of([_test(record) for record in shown] if good else []),
            difference=less({cell.settings.seed: cell for cell, _ in good}, same=False),
            fair=less(dense, same=True),
            held_out=statistics.fmean(map(held_out_accuracy, shown)) if good else None,
            epochs=statistics.fmean(record.fit_epochs for record in shown),
            seconds=statistics.fmean(record.seconds for record in shown),
            total=statistics.fmean(_seconds_to(cell, number) for cell, number in good or reached),
        )

    @property
    def size(self) -> tuple[bool, float]:
        """What the smallest network has the least of: networks with shared weights come first, by bytes."""
        return (True, self.live) if self.coded_bytes is None else (False, self.coded_bytes)

    @property
    def compression(self) -> float | None:
        """All weights divided by live weights; None if no weight is live."""
        return 1 / (1 - self.sparsity) if self.sparsity < 1 else None


@dataclass(frozen=True)
class Group:
    """The cells of a grid that differ only in their seeds, in that order, and the matching unpruned cells by seed."""

    grid: Grid
    settings: Settings  # of the first seed
    cells: list[Cell]
    dense: Mapping[int, Cell]

    @functools.cached_property
    def rows(self) -> list[Row]:
        """One row per round."""
        count = max(len(cell.records) for cell in self.cells)
        return [
            Row.of([(cell, number) for cell in self.cells if len(cell.records) > number], self.dense)
            for number in range(count)
        ]

    @property
    def ends(self) -> list[Row]:
        """The rows of the dense network and of the ends of stages; with one stage, of all rounds."""
        return [row for row in self.rows if row.round in (0, *self.settings.ends)]

    @functools.cached_property
    def kept(self) -> Row:
        """The row of the networks that the seeds keep (see `Cell.best`)."""
        return Row.of([(cell, cell.best) for cell in self.cells], self.dense)

    @property
    def section(self) -> str:
        """Its heading in the report."""
        return self.grid.section or Path(self.settings.dataset).stem


@dataclass(frozen=True)
class Line:
    """A line of a chart: the rounds or stages of one group, or several one-round groups by sparsity."""

    label: str
    groups: Sequence[Group]
    rows: Sequence[Row]

    @property
    def pruned(self) -> list[Row]:
        """The rows of networks that share no weights."""
        return [row for row in self.rows if not row.bits]


@dataclass(frozen=True)
class Best:
    """The best network of a data set: its group, its cell, and the record of its round."""

    group: Group
    cell: Cell
    record: Record

    @property
    def shared(self) -> bool:
        """Whether its weights share few values; then it is also written as a coded file and as C."""
        return self.record.coded_bytes is not None

    @property
    def uncertainty(self) -> float:
        """One standard error of its held-out accuracy.

        Two more hits and misses (Agresti and Coull 1998): else a network without a miss would seem to be certain.
        """
        count = self.record.validation_samples + 4
        accuracy = (held_out_accuracy(self.record) * (count - 4) + 2) / count
        return math.sqrt(accuracy * (1 - accuracy) / count)


RULE = (
    "Each seed keeps its smallest network whose held-out accuracy is within max_drop of its dense network. The best "
    "settings are those whose kept networks are smallest on average, if their mean held-out accuracy is within "
    "max_drop of the best dense mean. Of their networks, the one with the highest held-out accuracy is saved. The "
    "smallest network has the fewest weights; but if any share weights, it is the one with the smallest coded file."
)


@dataclass(frozen=True)
class Results:
    """A sweep, and the progress of its cells."""

    sweep: Sweep
    done: Mapping[str, Cell]

    def _begun(self, cells: Iterable[Settings]) -> list[Cell]:
        found = ((cell, self.done.get(cell.digest) or self.done.get(cell.dense_digest)) for cell in cells)
        return [dataclasses.replace(progress, settings=cell) for cell, progress in found if progress]

    @functools.cached_property
    def cells(self) -> list[Cell]:
        """The progress of each cell that has begun (at least its dense network), in the order of the grids."""
        return self._begun(self.sweep.cells)

    @functools.cached_property
    def groups(self) -> list[Group]:
        """The cells of each grid, grouped by all settings but the seed."""
        found: dict[tuple[int, Settings], list[Cell]] = {}
        unpruned: dict[Settings, dict[int, Cell]] = {}
        for number, grid in enumerate(self.sweep.grids):
            for cell in self._begun(grid.cells):
                same = dataclasses.replace(cell.settings, seed=0)
                found.setdefault((number, same), []).append(cell)
                if not same.prune:
                    unpruned.setdefault(same, {})[cell.settings.seed] = cell
        groups = []
        for (number, same), cells in found.items():
            dense = {
                seed: cell
                for other, controls in unpruned.items()
                if _controls(other, same)
                for seed, cell in controls.items()
            }
            groups.append(Group(self.sweep.grids[number], cells[0].settings, cells, dense))
        return groups

    @functools.cached_property
    def sections(self) -> dict[str, list[Group]]:
        """The groups by their heading in the report."""
        sections: dict[str, list[Group]] = {}
        for group in self.groups:
            sections.setdefault(group.section, []).append(group)
        return sections

    def references(self, section: str) -> list[Reference]:
        """Return the references of a section."""
        first = next(iter(self.sections), "")
        return [reference for reference in self.sweep.references if (reference.section or first) == section]

    def lines(self, section: str) -> list[Line]:
        """Return the lines of a section's charts."""
        lines: dict[Any, list[Group]] = {}
        for group in self.sections[section]:
            short = group.settings.last == 1
            same = {name: DEFAULTS[name] for name in (*_NUMBERS, "seed")} if short else {}
            lines.setdefault((group.grid.name, dataclasses.replace(group.settings, **same)), []).append(group)
        made, several = [], len({group.settings.dataset for group in self.sections[section]}) > 1
        for groups in lines.values():
            first, many = groups[0], len(groups) > 1
            without = (*(_NUMBERS if many else ()), *(() if several else ("dataset",)))
            label = first.grid.label(first.settings, without)
            by_number = sorted((group.rows[-1] for group in groups if len(group.rows) > 1), key=lambda r: r.sparsity)
            made.append(Line(label, groups, [first.rows[0], *by_number] if many else first.ends))
        return made

    @functools.cached_property
    def best(self) -> dict[str, Best]:
        """The best network, by `RULE`, of each data set that has a finished cell and held-out samples."""
        best = {}
        for name in self.sweep.axis("dataset"):
            groups = [
                dataclasses.replace(group, cells=cells)
                for group in self.groups
                if group.settings.dataset == name
                and (cells := [c for c in group.cells if c.finished and c.records[0].validation_samples])
            ]
            bar = max((group.rows[0].held_out or 0.0 for group in groups), default=0.0)
            good = [g for g in groups if g.kept.held_out is not None and g.kept.held_out >= bar - g.settings.max_drop]
            if good:
                group = min(good, key=lambda g: (*g.kept.size, -(g.kept.held_out or 0.0)))
                cell = max(group.cells, key=_worth)
                best[name] = Best(group, cell, cell.records[cell.best])
        return best

    def best_file(self, name: str) -> str:
        """Return the file name for the best network of a data set; it has the data set's name if there are several."""
        plain = re.sub(r"[^\w .-]", "_", Path(name).stem)  # C does not take all others for the name of a file
        return "best.npz" if len(self.sweep.axis("dataset")) == 1 else f"best-{plain}.npz"

    def write(self, folder: Path) -> None:
        """Write `results.csv`, `results.jsonl`, `seconds.csv` and the best networks."""
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
        for stale in ("report.html", "best.npz", "best.fpc", "best.c", "best.h"):
            if stale != "best.npz" or "best.npz" not in map(self.best_file, self.best):
                (folder / stale).unlink(missing_ok=True)  # from an earlier sweep with other cells or data sets
        for name, best in self.best.items():
            target = folder / self.best_file(name)
            with atomic_write(target) as file:
                file.write((folder / "networks" / f"{best.cell.settings.digest}.npz").read_bytes())
            if best.shared:
                network = load(target)
                deliver(network, "coded", folder, target.stem)
                if freeze(network).live_weights:
                    deliver(network, "c", folder, target.stem)

    def _rows(self) -> Iterator[dict[str, Any]]:
        for grid in self.sweep.grids:
            for cell in self._begun(grid.cells):
                for record in cell.records:
                    values = {"grid": grid.name, "cell": cell.settings.digest}
                    values |= cell.settings.at(record.round).values | record._asdict()

                    yield {name: values[name] for name in COLUMNS}


def _controls(dense: Settings, pruned: Settings) -> bool:
    """Whether a cell differs from a pruned one in that it is not pruned; it may have only the first stages."""
    if not pruned.prune or bool(dense.stage) != bool(pruned.stage):
        return False
    like = dataclasses.replace(pruned, prune=False).plain()
    same = dataclasses.replace(like, stage=()) == dataclasses.replace(dense, stage=())
    return same and dense.stage == like.stage[: len(dense.stage)]


def times(compression: float | None) -> str:
    """Format a compression; None means that no weights are left."""
    return "infinite" if compression is None else f"{compression:,.1f}x"


def _worth(cell: Cell) -> tuple[float, bool, float]:
    """What decides which of a group's kept networks is saved: held-out accuracy, then size."""
    kept = cell.records[cell.best]
    size = kept.live if kept.coded_bytes is None else kept.coded_bytes
    return held_out_accuracy(kept), kept.coded_bytes is not None, -size


def _bits(cell: Cell, number: int) -> str:
    """Format the bits of a round's shared weights and biases; empty if it shares none."""
    now = cell.settings.at(number)
    biases = "" if now.bias_bits is None else f", biases {now.bias_bits}"
    return f"{written(now.weight_bits)}{biases}" if cell.settings.shares(number) else ""


def _seconds_to(cell: Cell, number: int) -> float:
    """Return the seconds of the training that led to a round: not of earlier networks with shared weights."""
    led = (record for record in cell.records[: number + 1] if not cell.settings.shares(record.round))
    return sum(record.seconds for record in led) + cell.records[number].seconds * cell.settings.shares(number)


def _means(lists: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.fmean(values) for values in zip(*lists, strict=True)]


def _field(value: Any) -> Any:
    """Format a value for CSV: semicolons separate the values of a list, and spaces those of a list inside it."""
    if isinstance(value, tuple):
        return written(value)
    if isinstance(value, list):
        return ";".join(" ".join(map(str, v)) if isinstance(v, list) else "" if v is None else str(v) for v in value)
    return value


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
