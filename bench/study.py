"""Write bench/han2015 from the folder of the study: its tables, its pictures, and its rows at the ends of stages.

python -m fastprune.sweep --preset han2015 --data-dir bench/mnist
python bench/study.py runs/han2015
python bench/update.py --no-run
"""

import csv
import importlib.metadata
import platform
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from fastprune.files import write_text
from fastprune.sweep.config import Sweep, read_toml
from fastprune.sweep.results import Results, Spread
from fastprune.sweep.store import Store

HERE = Path(__file__).parent / "han2015"
PICTURES = {
    "accuracy-mnist": "accuracy",
    "mask-mnist": "figure-4",
    "retraining-Penalties": "figure-5",
    "sensitivity-mnist": "figure-6",
    "weights-mnist": "figure-7",
}
KEPT = (
    "grid", "cell", "dataset", "holdout", "l1", "l2", "input_dropout", "prune", "criterion", "seed", "round", "stage",
    "sparsity", "live", "effective_sparsity", "layer_sparsity", "dead_units", "active_units", "before_test_accuracy",
    "after_test_accuracy", "after_validation_accuracy", "fit_epochs", "failed",
)  # fmt: skip


def error(spread):
    """A test error in %, from an accuracy."""
    return "" if spread is None else shown(Spread(1 - spread.mean, spread.deviation))


def shown(spread, sign=""):
    if spread is None:
        return ""
    mean = f"{100 * spread.mean:{sign}.2f}"
    return mean if spread.deviation is None else f"{mean} ± {100 * spread.deviation:.2f}"


def less(spread):
    """A difference in test error, from one in accuracy."""
    return "" if spread is None else shown(Spread(-spread.mean, spread.deviation), "+")


def name(row):
    return "dense" if row.round == 0 else f"{row.compression:.3g}x"


def table(title, head, body):
    lines = [head, ["---"] * len(head), *body]
    return f"{title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def levels(title, lines, references):
    """Error against compression: the first line in full, and the error of the others at the same rounds."""
    first, *others = lines
    head = ["compression", "live weights", "of live paths", "test error, %", "to dense", "to dense, trained as long"]
    head += [f"{line.label}, error %" for line in others] + ["seconds so far"] + ["published, %"] * bool(references)
    body = []
    for row in first.rows:
        beside = [next((r for r in line.rows if r.round == row.round), None) for line in others]
        near = [f"{r.name}: {r.error:g}" for r in references if abs(r.compression / row.compression - 1) < 0.06]
        body.append(
            [
                name(row),
                f"{row.live:,.0f}",
                f"{1 / (1 - row.effective_sparsity):.1f}x",
                error(row.after),
                less(row.difference),
                less(row.fair),
                *(error(r and r.after) for r in beside),
                f"{row.total:.0f}",
                *([", ".join(near)] if references else []),
            ]
        )
    return table(title, head, body)


def layers(line, reference):
    row = min(line.rows, key=lambda r: abs(r.compression - reference.compression))
    active, body = [*row.active_units, 1.0], []
    for layer, (weights, units) in enumerate(reference.layers):
        density = 1 - row.layer_sparsity[layer]
        pairs = [(weights, density), (units, active[layer])]
        body.append([f"fc{layer + 1}", *(f"{theirs:.0f} / {100 * ours:.1f}" for theirs, ours in pairs)])
    title = f"Layer by layer at {name(row)}, {reference.name} / fastprune."
    return table(title, ["layer", "weights kept, %", "active units, %"], body)


def penalties(lines):
    body = []
    for number in range(1, len(lines[0].rows)):
        rows = [line.rows[number] for line in lines]
        once = [error(spread) for row in rows[:2] for spread in (row.before, row.after)]
        body.append([name(rows[0]), *once, error(rows[2].after)])
    head = ["compression", "L2 pruned", "L2 retrained", "L1 pruned", "L1 retrained", "L2 again and again"]
    return table("Test error in %, with one penalty and no dropout.", head, body)


def small(results):
    body = []
    for dataset, best in results.best.items():
        kept, dense = best.group.kept, best.group.rows[0]
        size = f"{dense.live:,.0f} → {kept.live:,.0f}"
        dropped = f"{best.group.settings.input_dropout:g}"
        body.append([dataset, error(dense.after), error(kept.after), size, f"{kept.compression:.0f}x", dropped])
    head = ["data", "error dense, %", "error pruned, %", "weights", "compression", "input dropout chosen"]
    return table("Small sets, at the smallest network of each seed that loses no held-out accuracy.", head, body)


def circumstances(results):
    packages = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("fastprune", "numpy", "numba", "scipy")
    )
    seconds = sum(record.seconds for cell in results.cells for record in cell.records)
    return (
        f"Mean ± standard deviation over seeds. {packages}, Python {platform.python_version()} on {sys.platform}; "
        f"{seconds / 60:.0f} minutes of training, on one thread each."
    )


def main(folder):
    sweep = replace(Sweep.of(read_toml(folder / "sweep.toml")), out=str(folder))
    results = Results(sweep, Store(folder).load(sweep.cells))
    assert all(cell.finished for cell in results.cells), "the study is not done"
    references = results.references("mnist")
    mnist, fashion = results.lines("mnist"), results.lines("Fashion-MNIST")
    (paper,) = (reference for reference in references if reference.layers)
    parts = [
        levels("MNIST, 784-300-100-10.", mnist, references),
        layers(mnist[0], paper),
        levels("Fashion-MNIST, the same recipe to 12x.", fashion, []),
        penalties(results.lines("Penalties")),
        small(results),
        circumstances(results),
    ]
    write_text(HERE / "tables.md", "\n".join(parts) + "\n")
    for plot, picture in PICTURES.items():
        shutil.copyfile(folder / "plots" / f"{plot}.png", HERE / f"{picture}.png")
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    last = {(row["grid"], row["cell"], row["stage"]): row for row in rows}
    several = {(row["grid"], row["cell"]) for row in rows if int(row["stage"]) > 1}
    kept = [
        row
        for row in rows
        if (row["grid"], row["cell"]) not in several or row is last[row["grid"], row["cell"], row["stage"]]
    ]
    with (HERE / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, KEPT, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
