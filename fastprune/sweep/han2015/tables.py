"""The study's rows as a CSV file, and as tables beside the paper's."""

import csv
import dataclasses
import io
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from fastprune.files import atomic_write
from fastprune.sweep.han2015.study import GRADUAL, PAPER, RANDOM, SMALL_SETS, Row
from fastprune.sweep.results import Spread

# Han et al. 2015, tables 1 and 2.
PAPER_DENSE, PAPER_PRUNED = 1.64, 1.59
PAPER_LAYERS = [("fc1", 0.08, 0.38, 0.08), ("fc2", 0.09, 0.65, 0.04), ("fc3", 0.26, 1.00, 0.17)]

# What other methods came to with the same network, as published: compression, test error in %, name.
PUBLISHED = [
    (12, 1.59, "Han 2015"),
    (20, 1.6, "SNIP 2019"),
    (40, 2.31, "Dynamic sparse training 2020"),
    (50, 2.4, "SNIP 2019"),
    (56, 1.99, "Dynamic Network Surgery 2016"),
    (67, 2.0, "L-OBS 2017"),
    (68, 1.92, "Sparse variational dropout 2017"),
    (80, 1.78, "AutoPrune 2019"),
]
_ROUNDING = 1e-6  # of the errors in the file
_FIELDS = dataclasses.fields(Row)


def write_rows(path: str | os.PathLike[str], rows: Iterable[Row]) -> None:
    """Write one line a row; tuples with semicolons between, what is not known left empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in _FIELDS)
    for row in rows:
        writer.writerow(_cell(getattr(row, field.name)) for field in _FIELDS)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return ";".join(map(_cell, value))
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """Read what `write_rows` wrote."""
    with Path(path).open(newline="") as file:
        return [
            Row(
                dataset=line["dataset"],
                method=line["method"],
                seed=int(line["seed"]),
                target=float(line["target"]),
                compression=float(line["compression"]),
                effective_compression=float(line["effective_compression"]),
                live=int(line["live"]),
                layer_density=_floats(line["layer_density"]),
                layer_active=_floats(line["layer_active"]),
                dead_units=tuple(int(part) for part in line["dead_units"].split(";")),
                test_error=float(line["test_error"]),
                held_out_error=float(line["held_out_error"] or "nan"),
                seconds=float(line["seconds"]),
            )
            for line in csv.DictReader(file)
        ]


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(";"))


def tables(rows: Sequence[Row]) -> str:
    """All tables, in Markdown."""
    parts = [_table_1(rows), _table_2(rows), _table_3(rows)]
    return "\n".join(parts)


def select(rows: Iterable[Row], dataset: str, method: str, target: float | None = None) -> list[Row]:
    """The rows of a data set and method, and of one target if it is given."""
    return [
        row
        for row in rows
        if (row.dataset, row.method) == (dataset, method) and (target is None or row.target == target)
    ]


def spread(values: Sequence[float], sign: str = "") -> str:
    """Mean and standard deviation of fractions, in %; empty for none."""
    if not values:
        return ""
    of = Spread.of(values)
    mean = f"{100 * of.mean:{sign}.2f}"
    return mean if of.deviation is None else f"{mean} ± {100 * of.deviation:.2f}"


def _table_1(rows: Sequence[Row]) -> str:
    body = [["MNIST, the paper", f"{PAPER_DENSE}", f"{PAPER_PRUNED}", "267K → 22K", "12x"]]
    dense, pruned = (select(rows, "mnist", GRADUAL, target) for target in (1.0, PAPER))
    body.append(_line("MNIST, fastprune", dense, pruned))
    for name in SMALL_SETS:
        part = select(rows, name, GRADUAL)
        target = no_loss(part)
        body.append(_line(f"{name}, fastprune", *(select(part, name, GRADUAL, end) for end in (1.0, target))))
    head = ["network, data", "error dense, %", "error pruned, %", "weights", "compression"]
    title = (
        f"Table 1: networks of 300 and 100 hidden units: MNIST at {PAPER:g}x, other sets at the highest compression "
        "that loses no held-out accuracy."
    )
    return "\n".join([title, "", _markdown(head, body), ""])


def no_loss(rows: Sequence[Row]) -> float:
    """The highest compression at which the mean held-out error over seeds is no more than that of dense networks.

    All seeds have to have reached it.
    """
    seeds = {row.seed for row in rows}
    targets = {t for t in {row.target for row in rows} if len([row for row in rows if row.target == t]) == len(seeds)}
    mean = {t: statistics.fmean(row.held_out_error for row in rows if row.target == t) for t in targets}
    return max(target for target in targets if mean[target] <= mean[1.0] + _ROUNDING)


def _line(name: str, dense: Sequence[Row], pruned: Sequence[Row]) -> list[str]:
    live = sum(row.live for row in pruned) / len(pruned)
    errors = [spread([row.test_error for row in part]) for part in (dense, pruned)]
    return [name, *errors, f"{dense[0].live:,} → {live:,.0f}", f"{pruned[0].target:.0f}x"]


def _table_2(rows: Sequence[Row]) -> str:
    pruned = select(rows, "mnist", GRADUAL, PAPER)
    count = len(pruned)
    body = []
    for layer, (name, weights, active, flop) in enumerate(PAPER_LAYERS):
        density = sum(row.layer_density[layer] for row in pruned) / count
        on = sum(row.layer_active[layer] for row in pruned) / count
        # As in the paper: a weight costs nothing where the unit it reads is 0.
        read = sum(row.layer_active[layer - 1] * row.layer_density[layer] for row in pruned) / count
        done = density if layer == 0 else read
        pairs = ((weights, density), (active, on), (flop, done))
        body.append([name, *(f"{100 * paper:.0f} / {100 * ours:.1f}" for paper, ours in pairs)])
    head = ["layer", "weights kept, %", "active units, %", "FLOP kept, %"]
    title = f"Table 2: layer by layer at {PAPER:g}x, the paper / fastprune."
    return "\n".join([title, "", _markdown(head, body), ""])


def _table_3(rows: Sequence[Row]) -> str:
    dense = {row.seed: row.test_error for row in select(rows, "mnist", GRADUAL, 1.0)}
    blind = bool(select(rows, "mnist", RANDOM))
    body = []
    for target in sorted({row.target for row in select(rows, "mnist", GRADUAL)}):
        part = select(rows, "mnist", GRADUAL, target)
        mean = [sum(getattr(row, name) for row in part) / len(part) for name in ("live", "effective_compression")]
        cells = [
            "dense" if target == 1 else f"{target:g}x",
            f"{mean[0]:,.0f}",
            f"{mean[1]:.1f}x",
            spread([row.test_error for row in part]),
            "" if target == 1 else spread([row.test_error - dense[row.seed] for row in part], "+"),
            f"{sum(row.seconds for row in part) / len(part):.0f}",
        ]
        if blind:
            cells.append(spread([row.test_error for row in select(rows, "mnist", RANDOM, target)]))
        others = [f"{name}: {error}" for compression, error, name in PUBLISHED if compression == target]
        body.append([*cells, ", ".join(others)])
    head = ["compression", "live weights", "of live paths", "test error, %", "to dense", "seconds so far"]
    head += [*(["pruned at random, %"] if blind else []), "others"]
    return "\n".join(["Error against compression on MNIST.", "", _markdown(head, body), ""])


def _markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
