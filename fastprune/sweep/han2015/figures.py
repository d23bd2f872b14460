"""The study's pictures; matplotlib, an extra, is imported here alone."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastprune.files import atomic_write
from fastprune.sweep.han2015.study import GRADUAL, PAPER, RANDOM, Row
from fastprune.sweep.han2015.tables import PUBLISHED, select
from fastprune.sweep.results import Spread

Arrays = dict[str, npt.NDArray[Any]]

_INK, _OURS, _OTHER, _THIRD = "#222222", "#0b6e4f", "#c8553d", "#3a6ea5"
_STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "font.size": 10,
    "legend.frameon": False,
    "savefig.dpi": 120,
    "figure.constrained_layout.use": True,
}

# Where the names of published figures go, in points from their mark, and how wide they are, in characters.
_PLACES = {12: (-20, 8, 40), 20: (-10, 8, 40), 40: (7, -18, 16), 56: (-66, -25, 16), 67: (7, 4, 40)}


def draw(folder: Path, rows: Sequence[Row], gradual: Arrays, scans: Sequence[Arrays]) -> list[Path]:
    """Draw all figures into a folder; returns their names."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figures: dict[str, Callable[[Any], None]] = {
        "error": lambda axes: _error(axes, rows),
        "figure-4": lambda axes: _bands(axes, gradual[f"weights_{PAPER:g}"]),
        "figure-5": lambda axes: _regularization(axes, rows),
        "figure-6": lambda axes: _sensitivity(axes, scans),
        "figure-7": lambda axes: _distribution(axes, gradual["weights_1"], gradual[f"weights_{PAPER:g}"]),
    }
    sizes = {"figure-4": (7.5, 3.2), "error": (7.5, 4.2)}
    paths = []
    with mpl.rc_context(_STYLE):
        for name, paint in figures.items():
            figure, axes = plt.subplots(figsize=sizes.get(name, (6.0, 3.6)))
            paint(axes)
            paths.append(folder / f"{name}.png")
            with atomic_write(paths[-1]) as file:
                figure.savefig(file, format="png", metadata={"Software": None})
            plt.close(figure)
    return paths


def _curve(axes: Any, rows: Sequence[Row], label: str, color: str) -> None:
    """Mean and standard deviation of the test error in %, over seeds, by compression."""
    targets = sorted({row.target for row in rows})
    spreads = [Spread.of([100 * row.test_error for row in rows if row.target == target]) for target in targets]
    mean, deviation = (np.array(part) for part in zip(*((s.mean, s.deviation or 0.0) for s in spreads), strict=True))
    axes.plot(targets, mean, "o-", color=color, label=label, markersize=4)
    axes.fill_between(targets, mean - deviation, mean + deviation, color=color, alpha=0.15, linewidth=0)


def _error(axes: Any, rows: Sequence[Row]) -> None:
    _curve(axes, select(rows, "mnist", GRADUAL), "fastprune, mean and deviation over seeds", _OURS)
    blind = select(rows, "mnist", RANDOM)
    if blind:
        _curve(axes, blind, "pruned at random", "#999999")
    for compression, error, name in PUBLISHED:
        axes.plot(compression, error, "D", color=_OTHER, markersize=5)
        *offset, width = _PLACES.get(compression, (7, -4, 40))
        text, where = textwrap.fill(name, width), (compression, error)
        axes.annotate(text, where, offset, textcoords="offset points", fontsize=8, color=_OTHER)
    axes.set(xscale="log", xlabel="compression: all weights by live weights", ylabel="test error, %")
    axes.set(xlim=(0.9, 220), ylim=(1.0, 3.0))
    ticks = sorted({row.target for row in select(rows, "mnist", GRADUAL)})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=8)
    axes.minorticks_off()
    axes.set_title("784-300-100-10 on MNIST; diamonds are published figures", loc="left", fontsize=10)
    axes.legend(loc="upper left")


def _bands(axes: Any, weights: npt.NDArray[Any]) -> None:
    bands = np.count_nonzero(weights.any(axis=0).reshape(28, 28).any(axis=1))  # the outermost rows hold no ink
    axes.imshow(weights == 0, cmap="gray", aspect="auto", interpolation="nearest", vmin=0, vmax=1)
    axes.grid(visible=False)
    axes.set(xlabel="pixel: 28 rows of 28, one after the other", ylabel="hidden unit")
    axes.set_xticks(range(0, 785, 112))
    axes.set_title(f"Live weights of the first layer at {PAPER:g}x: {bands} of 28 bands", loc="left", fontsize=10)


def _regularization(axes: Any, rows: Sequence[Row]) -> None:
    dense = np.mean([row.test_error for row in select(rows, "mnist", "l2", 1.0)])
    curves = [
        ("l2, not retrained", _THIRD, "--"),
        ("l1, not retrained", _OTHER, "--"),
        ("l1, retrained", _OTHER, "-"),
        ("l2, retrained", _THIRD, "-"),
        ("l2, iterative", _OURS, "-"),
    ]
    for method, color, line in curves:
        part = select(rows, "mnist", method)
        targets = sorted({row.target for row in part})
        loss = [100 * (dense - np.mean([row.test_error for row in part if row.target == t])) for t in targets]
        kept = [100 * (1 - 1 / target) for target in targets]
        axes.plot(kept, loss, line, marker="o", markersize=4, color=color, label=method.replace("l", "L", 1))
    axes.axhline(0, color=_INK, linewidth=0.8)
    axes.set(xlabel="weights pruned, %", ylabel="accuracy to dense, points", ylim=(-3.5, 0.5))
    axes.set_title("Penalties, retraining and iterations", loc="left", fontsize=10)
    axes.legend(loc="lower left", fontsize=8)


def _sensitivity(axes: Any, scans: Sequence[Arrays]) -> None:
    accuracy = np.mean([scan["accuracy"] - scan["baseline"] for scan in scans], axis=0)
    for layer, color in enumerate((_THIRD, _OTHER, _OURS)):
        axes.plot(100 * scans[0]["sparsities"], 100 * accuracy[layer], "o-", color=color, markersize=4)
        axes.lines[-1].set_label(f"fc{layer + 1}")
    axes.set(xlabel="weights of that layer alone pruned, %", ylabel="held-out accuracy to dense, points", ylim=(-20, 1))
    axes.set_title("Sensitivity of the layers, without retraining", loc="left", fontsize=10)
    axes.legend(loc="lower left")


def _distribution(axes: Any, before: npt.NDArray[Any], after: npt.NDArray[Any]) -> None:
    live = after[after != 0]
    edge = float(np.quantile(np.abs(live), 0.995))
    bins = np.linspace(-edge, edge, 101)
    axes.hist(before.ravel(), bins, color="#bbbbbb", label="before pruning")
    axes.hist(live, bins, color=_OURS, label=f"live at {PAPER:g}x, after retraining")
    axes.set(xlabel="weight of the first layer", ylabel="weights", yscale="log")
    axes.set_title("Distribution of weights", loc="left", fontsize=10)
    axes.legend()


def needed() -> None:
    """Refuse early if matplotlib is not there.

    Raises
    ------
    ValueError
        If it is not.
    """
    try:
        import matplotlib as mpl  # noqa: F401
    except ImportError:
        raise ValueError('full: the pictures need an extra: pip install "fastprune[plots]"') from None
