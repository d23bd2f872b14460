"""The plots of a report; matplotlib, an extra, is imported here alone."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastprune.base import Network
from fastprune.files import atomic_write
from fastprune.sweep.cell import Record
from fastprune.sweep.results import Group, times

_INK, _ACCENT, _OTHER, _THIRD, _GREY = "#1d2521", "#0b6e4f", "#c8553d", "#3a6ea5", "#b4bdb8"
_COLORS = (_ACCENT, _OTHER, _THIRD, "#b8860b", "#7a4e9e", "#3f8f8c", "#8a5a44", "#555f9a")
_MARKERS = "osD^vP<>"  # one a colour: colour alone does not tell lines apart
_STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": "#8a968f",
    "grid.color": "#e3e8e5",
    "font.size": 10,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 120,
    "svg.hashsalt": "fastprune",
}
_LEAST = 15.0  # percentage points: what falls further below the dense network is not worth the room


@dataclass(frozen=True)
class Subject:
    """What is drawn of one data set: its groups, and of the best cell its group, records and networks.

    `networks` are the dense and the best one; None while no cell is finished.
    """

    groups: Sequence[Group]
    label: Callable[[Group], str]
    best: Group
    record: Record | None
    networks: tuple[Network, Network] | None


@dataclass(frozen=True)
class Figure:
    """A plot: the name of its file, what it shows, what a reader sees in it (in numbers), and the SVG file."""

    name: str
    caption: str
    alt: str
    svg: bytes


def draw(subject: Subject, suffix: str, folder: Path) -> list[Figure]:
    """Draw the plots of a data set, as SVG and PNG files in a folder.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    plots: list[tuple[str, str, Callable[[Subject, Any], str]]] = [
        (
            "accuracy",
            "Test accuracy against compression: mean and standard deviation over seeds, round by round. Dashed: the "
            "dense networks. The star is the best network.",
            _accuracy,
        ),
        ("density", "Live weights of each layer, round by round; the mean over seeds.", _density),
        (
            "seconds",
            "Seconds of retraining, round by round. Dashed: what a dense network takes for as many epochs.",
            _seconds,
        ),
    ]
    if subject.networks is not None:
        plots += [
            ("weights", "The weights of the best network, before and after pruning.", _weights),
            ("mask", "The mask of the best network's first layer. Each mark is a live weight.", _mask),
        ]
    figures = []
    folder.mkdir(exist_ok=True)
    with mpl.rc_context(_STYLE):
        for name, caption, paint in plots:
            canvas = Canvas(figsize=(9.6, 4.4) if paint is _accuracy else (4.8, 3.4))
            alt = paint(subject, canvas)
            contents = {}
            for form, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
                content = io.BytesIO()
                canvas.savefig(content, format=form, metadata=metadata)
                contents[form] = content.getvalue()
                with atomic_write(folder / f"{name}{suffix}.{form}") as file:
                    file.write(contents[form])
            figures.append(Figure(f"{name}{suffix}", caption, alt, contents["svg"]))
    return figures


def _accuracy(subject: Subject, canvas: Any) -> str:
    axes = canvas.subplots()
    few = len(subject.groups) <= len(_COLORS)
    ranked = sorted(subject.groups, key=lambda group: group.kept.sparsity, reverse=True)
    coloured = list(subject.groups) if few else ranked[: len(_COLORS) - 3]
    dense = 100 * np.mean([group.rows[0].after.mean for group in subject.groups if group.rows[0].after])
    lowest, most, told = dense, 2.0, [f"Dense networks: {dense:.1f} %."]
    for group in sorted(subject.groups, key=coloured.__contains__):  # on top
        rows = [row for row in group.rows if row.after is not None and row.compression is not None]
        x = np.array([row.compression for row in rows])
        spreads = [row.after for row in rows if row.after is not None]
        mean = np.array([100 * spread.mean for spread in spreads])
        deviation = np.array([100 * (spread.deviation or 0.0) for spread in spreads])
        lower, upper = np.clip([mean - deviation, mean + deviation], 0, 100)
        if group in coloured:
            number = coloured.index(group)
            label = subject.label(group) or f"{len(group.cells)} seeds"
            style: Any = {"marker": _MARKERS[number], "markersize": 4, "linewidth": 1.6, "label": label}
            axes.plot(x, mean, color=_COLORS[number], **style)
            alpha = 0.14 if len(coloured) < 4 else 0.05
            axes.fill_between(x, lower, upper, color=_COLORS[number], alpha=alpha, linewidth=0)
            if group.kept.after is not None:
                told.append(f"{label}: {100 * group.kept.after.mean:.1f} % at {times(group.kept.compression)}.")
        else:
            label = "" if axes.lines else f"{len(subject.groups) - len(coloured)} others"
            axes.plot(x, mean, color=_GREY, linewidth=0.7, label=label)
        lowest = min(lowest, lower.min())
        most = max(most, x[upper >= dense - _LEAST].max(initial=2))
    axes.axhline(dense, color=_INK, linewidth=0.9, linestyle="--")
    if subject.record is not None and subject.record.compression and subject.record.after_test_accuracy is not None:
        place = subject.record.compression, 100 * subject.record.after_test_accuracy
        most = max(most, place[0])
        axes.plot(*place, "*", color=_INK, markersize=13, markeredgecolor="white", zorder=5)
        told.append(f"Best network: {place[1]:.1f} % at {times(place[0])}.")
    axes.set(xscale="log", xlabel="compression: all weights by live weights", ylabel="test accuracy, %")
    low, high = max(lowest, dense - _LEAST), axes.get_ylim()[1]
    axes.set_ylim(max(0, low - 0.05 * (high - low)), min(100, high))
    ticks = [2**power for power in range(math.ceil(math.log2(most)) + 1)]
    axes.set_xticks(ticks, [f"{tick}x" for tick in ticks])
    axes.set_xlim(0.93, most * 1.15)
    axes.minorticks_off()
    if len(coloured) < 5:
        axes.legend(loc="lower left")
    else:
        canvas.legend(loc="outside right upper")
    return " ".join(told)


def _by_round(group: Group, value: Callable[[Record], Any]) -> tuple[list[int], np.ndarray[Any, Any]]:
    """Rounds, and the mean of a value over the seeds that came through each."""
    rounds, means = [], []
    for row in group.rows:
        records = [cell.records[row.round] for cell in group.cells if len(cell.records) > row.round]
        if good := [record for record in records if not record.failed]:
            rounds.append(row.round)
            means.append(np.mean([value(record) for record in good], axis=0))
    return rounds, np.array(means)


def _density(subject: Subject, canvas: Any) -> str:
    axes = canvas.subplots()
    rounds, density = _by_round(subject.best, lambda record: 1 - np.array(record.layer_sparsity))
    for layer in range(density.shape[1]):
        shown = np.where(density[:, layer] > 0, 100 * density[:, layer], np.nan)  # an emptied layer is not on the scale
        axes.plot(rounds, shown, "o-", color=_COLORS[layer % len(_COLORS)], markersize=3.5, label=f"layer {layer}")
    axes.locator_params("x", integer=True)
    axes.set(yscale="log", xlabel="round", ylabel="live weights, %")
    low = np.nanmin(np.where(density > 0, 100 * density, np.nan))
    ticks = [tick for tick in (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01) if tick >= low / 2.5]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.legend(loc="lower left")
    shares = ", ".join(f"layer {layer} {100 * share:.2g} %" for layer, share in enumerate(density[-1]))
    return f"Live weights after round {rounds[-1]}: {shares}."


def _seconds(subject: Subject, canvas: Any) -> str:
    axes = canvas.subplots()
    rounds, seconds = _by_round(subject.best, lambda record: record.seconds)
    axes.bar(rounds[1:], seconds[1:], color=_ACCENT, width=0.7)
    settings = subject.best.settings
    if settings.epochs:
        dense = seconds[0] * settings.retrain_epochs / settings.epochs
        axes.axhline(dense, color=_INK, linewidth=0.9, linestyle="--")
    axes.set(xlabel="round", ylabel="seconds")
    axes.set_ylim(bottom=0)
    axes.grid(visible=False, axis="x")
    axes.locator_params("x", integer=True)
    return f"Retraining takes {', '.join(f'{second:.2g}' for second in seconds[1:])} seconds."


def _weights(subject: Subject, canvas: Any) -> str:
    assert subject.networks is not None
    before, after = (np.concatenate([w.ravel() for w in network.weights]) for network in subject.networks)
    live = after[np.concatenate([mask.ravel() for mask in subject.networks[1].masks])]
    edge = float(np.quantile(np.abs(np.concatenate([before, live])), 0.9995))
    bins = np.linspace(-edge, edge, 121)
    axes = canvas.subplots()
    axes.hist(before, bins, color=_GREY, label=f"dense: {before.size:,}")
    axes.hist(live, bins, color=_ACCENT, label=f"live: {live.size:,}")
    axes.set(xlabel="weight", ylabel="how many", yscale="log")
    axes.legend(loc="upper right")
    return f"Two histograms from {-edge:.2g} to {edge:.2g}: {before.size:,} dense weights and {live.size:,} live ones."


def _mask(subject: Subject, canvas: Any) -> str:
    assert subject.networks is not None
    mask = subject.networks[1].masks[0]
    side = math.isqrt(mask.shape[1])
    image = side * side == mask.shape[1] and side > 2
    parts = canvas.subplots(1, 2, width_ratios=(3, 2)) if image else [canvas.subplots()]
    parts[0].imshow(~mask, cmap="gray", aspect="auto", interpolation="nearest", vmin=0, vmax=1)
    parts[0].set(xlabel="input", ylabel="hidden unit")
    parts[0].locator_params(integer=True)
    if image:
        parts[1].imshow(mask.sum(axis=0).reshape(side, side), cmap="Greens", interpolation="nearest")
        parts[1].set_title("live weights by pixel", fontsize=10)
        parts[1].set_axis_off()
    for axes in parts:
        axes.grid(visible=False)
    units, inputs = (int(mask.any(axis=axis).sum()) for axis in (1, 0))
    return f"{mask.sum():,} weights are live. They connect {inputs:,} inputs to {units:,} hidden units."
