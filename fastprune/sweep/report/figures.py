"""The plots of a report; matplotlib, an extra, is imported here alone."""

import io
import math
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastprune.base import Network
from fastprune.files import atomic_write
from fastprune.kernels.layout import Floats
from fastprune.sensitivity import SCAN
from fastprune.sweep.config import Reference
from fastprune.sweep.results import Best, Line, Row, times

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
    "savefig.dpi": 120,
    "svg.hashsalt": "fastprune",
}
_LEAST = 15.0  # percentage points: what falls further below the dense network is not worth the room


@dataclass(frozen=True)
class Subject:
    """What is drawn of a section: its lines and references, one line in detail, and a network before and after pruning.

    `networks` also says which network that is.
    """

    lines: Sequence[Line]
    references: Sequence[Reference]
    detail: Line
    best: Sequence[Best]
    networks: tuple[str, Network, Network] | None


@dataclass(frozen=True)
class Figure:
    """A plot: the name of its file, what it shows, what a reader sees in it (in numbers), and the SVG file."""

    name: str
    caption: str
    alt: str
    svg: bytes


def draw(subject: Subject, suffix: str, folder: Path) -> list[Figure]:
    """Draw the plots of a section, as SVG and PNG files in a folder; an ImportError without matplotlib."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    star = f" The star is the best network{' of each data set' * (len(subject.best) > 1)}." if subject.best else ""
    dashed = " Dashed: dense networks." if len({line.groups[0].settings.dataset for line in subject.lines}) == 1 else ""
    letters = " Letters are published results." if subject.references else ""
    plots: list[tuple[str, str, Callable[[Subject, Any], str]]] = [
        (
            "accuracy",
            f"Test accuracy against compression: mean and standard deviation over seeds.{dashed}{star}{letters}",
            _accuracy,
        ),
        ("sizes", "Test accuracy against the bytes of coded files, by bits: mean over seeds.", _sizes),
        ("retraining", "Test accuracy right after pruning (dashed) and after retraining (solid).", _retraining),
        ("density", "Live weights of each layer: mean over seeds.", _density),
        ("seconds", "Seconds of an epoch. Dashed: dense training.", _seconds),
        (
            "sensitivity",
            "Accuracy of the dense network with one layer pruned, on held-out samples (else on training samples).",
            _sensitivity,
        ),
    ]
    if subject.networks is not None:
        name = subject.networks[0]
        plots += [
            ("weights", f"Weights of the {name}, before and after pruning.", _weights),
            ("mask", f"Mask of the first layer of the {name}. Each mark is a live weight.", _mask),
        ]
    figures = []
    folder.mkdir(exist_ok=True)
    with mpl.rc_context(_STYLE):
        for name, caption, paint in plots:
            canvas: Any = Canvas(figsize=(9.6, 4.4) if paint is _accuracy else (4.8, 3.4), layout="constrained")
            if not (alt := paint(subject, canvas)):
                continue
            # One layout for both files: with one for each, matplotlib draws everything twice, in twice the time.
            canvas.get_layout_engine().execute(canvas)
            canvas.set_layout_engine(None)
            contents = {}
            for form, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
                content = io.BytesIO()
                canvas.savefig(content, format=form, metadata=metadata)
                contents[form] = content.getvalue()
                with atomic_write(folder / f"{name}{suffix}.{form}") as file:
                    file.write(contents[form])
            figures.append(Figure(f"{name}{suffix}", caption, alt, contents["svg"]))
    return figures


def _points(line: Line) -> tuple[Floats, Floats, Floats]:
    """Compression, and mean and deviation of the test accuracy in percent."""
    known = [(row.compression, row.after) for row in line.pruned if row.after and row.compression]
    deviation = [100 * (after.deviation or 0.0) for _, after in known]
    return np.array([x for x, _ in known]), np.array([100 * after.mean for _, after in known]), np.array(deviation)


def _accuracy(subject: Subject, canvas: Any) -> str:
    axes, lines = canvas.subplots(), subject.lines
    ranked = sorted(lines, key=lambda line: line is subject.detail or line.pruned[-1].sparsity, reverse=True)
    coloured = lines if len(lines) <= len(_COLORS) else ranked[: len(_COLORS) - 3]
    dense, most, told = _dense(lines), 2.0, []
    lowest, highest = dense.min(), dense.max()
    for line in sorted(lines, key=lambda line: line in coloured):  # on top
        x, mean, deviation = _points(line)
        lower, upper = np.clip([mean - deviation, mean + deviation], 0, 100)
        if line in coloured:
            number = coloured.index(line)
            seeds = len(line.groups[0].cells)
            label = line.label or (f"mean over {seeds} seeds" if seeds > 1 else "one seed")
            if not line.groups[0].settings.prune:
                axes.axhline(mean[-1], color=_COLORS[number], linewidth=1.6, linestyle=":", label=label)
                told.append(f"{label}: {mean[-1]:.1f} %.")
                highest = max(highest, mean[-1])
                continue
            style: Any = {"marker": _MARKERS[number], "markersize": 4, "linewidth": 1.6, "label": label}
            axes.plot(x, mean, color=_COLORS[number], **style)
            alpha = 0.14 if len(coloured) < 4 else 0.05
            axes.fill_between(x, lower, upper, color=_COLORS[number], alpha=alpha, linewidth=0)
            told.append(f"{label}: {mean[-1]:.1f} % at {times(x[-1])}.")
        else:
            label = "" if axes.lines else f"{len(lines) - len(coloured)} others"
            axes.plot(x, mean, color=_GREY, linewidth=0.7, label=label)
        if line is subject.detail or not subject.references:  # what is compared with them is worth the room
            lowest = min(lowest, lower.min())
        highest = max(highest, upper.max())
        most = max(most, x[upper >= dense.min() - _LEAST].max(initial=2))
    if len({line.groups[0].settings.dataset for line in lines}) == 1:  # the mean over data sets says nothing
        axes.axhline(dense.mean(), color=_INK, linewidth=0.9, linestyle="--")
        told.insert(0, f"Dense networks: {dense.mean():.1f} %.")
    for letter, known in zip(string.ascii_uppercase + string.ascii_lowercase, subject.references, strict=False):
        accuracy = 100 - known.error
        label = f"{known.name}: {accuracy:g} % at {times(known.compression)}"
        axes.plot(
            known.compression, accuracy, marker=f"${letter}$", color=_INK, markersize=7, linestyle="", label=label
        )
        told.append(f"{label}.")
        lowest, highest, most = min(lowest, accuracy), max(highest, accuracy), max(most, known.compression)
    for best in subject.best:
        compression, accuracy = best.record.compression or 1.0, 100 * (best.record.after_test_accuracy or 0.0)
        lowest, highest, most = min(lowest, accuracy), max(highest, accuracy), max(most, compression)
        axes.plot(compression, accuracy, "*", color=_INK, markersize=13, markeredgecolor="white", zorder=5)
        told.append(f"Best network: {accuracy:.1f} % at {times(compression)}.")
    axes.set(xlabel="compression: all weights by live weights", ylabel="test accuracy, %")
    lowest = max(lowest, dense.min() - _LEAST)
    edge = 0.05 * (highest - lowest) or 1.0
    axes.set_ylim(max(0, lowest - edge), min(100, highest + edge))
    _compressions(axes, most)
    if len(coloured) + len(subject.references) < 5:
        axes.legend(loc="lower left")
    else:
        canvas.legend(loc="outside right upper")
    return " ".join(told)


def _dense(lines: Sequence[Line]) -> Floats:
    """Test accuracy of each line's dense network, in percent."""
    return np.array([100 * line.pruned[0].after.mean for line in lines if line.pruned[0].after])


def _compressions(axes: Any, most: float) -> None:
    """Mark powers of two on a logarithmic axis, or of four, if they are many."""
    axes.set_xscale("log")
    count = math.ceil(math.log2(most)) + 1
    ticks = [2**power for power in range(0, count, 1 + count // 10)]
    axes.set_xticks(ticks, [f"{tick}x" for tick in ticks])
    axes.set_xlim(0.93, most * 1.15)
    axes.minorticks_off()


def _sizes(subject: Subject, canvas: Any) -> str:
    shared: dict[str, list[Row]] = {}
    for row in subject.detail.rows:
        if row.coded_bytes and row.after:
            shared.setdefault(row.bits, []).append(row)
    if not shared:
        return ""
    axes, told = canvas.subplots(), []
    for number, (bits, rows) in enumerate(shared.items()):
        x, y = zip(*((row.coded_bytes, 100 * row.after.mean) for row in rows if row.after), strict=True)
        style: Any = {"marker": _MARKERS[number % len(_MARKERS)], "color": _COLORS[number % len(_COLORS)]}
        axes.plot(x, y, markersize=4, linewidth=1.6, label=bits, **style)
        told.append(f"{bits} bits: {y[-1]:.1f} % in {x[-1]:,.0f} bytes.")
    axes.set(xscale="log", xlabel="bytes", ylabel="test accuracy, %")
    axes.set_ylim(max(axes.get_ylim()[0], _dense([subject.detail]).min() - _LEAST), None)
    low, high = (math.floor(math.log2(edge / 125)) for edge in axes.get_xlim())
    ticks = [125 * 2.0**power for power in range(low + 1, high + 1)]
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axes.minorticks_off()
    axes.legend(loc="lower right", title="bits")
    return " ".join(told)


def _retraining(subject: Subject, canvas: Any) -> str:
    axes, told, most = canvas.subplots(), [], 2.0
    lines = [line for line in subject.lines if line.groups[0].settings.prune and len(_points(line)[0]) > 1]
    for line, color in zip(lines if len(lines) <= 4 else [subject.detail], _COLORS, strict=False):
        rows = [(row.compression, row.before or row.after, row.after) for row in line.pruned]
        x, pruned, retrained = np.array([(x, 100 * a.mean, 100 * b.mean) for x, a, b in rows if x and a and b]).T
        axes.plot(x, pruned, "--", color=color, linewidth=1.2, label=None if line.label else "pruned")
        axes.plot(x, retrained, "-", color=color, linewidth=1.6, label=line.label or "retrained")
        most = max(most, x[-1])
        told.append(f"{line.label} at {times(x[-1])}: {pruned[-1]:.1f} % pruned, {retrained[-1]:.1f} % retrained.")
    if lines:
        axes.set(xlabel="compression", ylabel="test accuracy, %")
        axes.set_ylim(max(0, _dense(lines).min() - _LEAST, axes.get_ylim()[0]), min(100, axes.get_ylim()[1]))
        _compressions(axes, most)
        axes.legend(loc="lower left")
    return " ".join(told).strip()


def _density(subject: Subject, canvas: Any) -> str:
    axes, rows = canvas.subplots(), [row for row in subject.detail.pruned if row.compression]
    density = 100 * (1 - np.array([row.layer_sparsity for row in rows]))
    x = np.array([row.compression for row in rows])
    for layer in range(density.shape[1]):
        shown = np.where(density[:, layer] > 0, density[:, layer], np.nan)  # an emptied layer is not on the scale
        axes.plot(x, shown, "o-", color=_COLORS[layer % len(_COLORS)], markersize=3.5, label=f"layer {layer}")
    axes.set(yscale="log", xlabel="compression", ylabel="live weights, %")
    low = np.nanmin(np.where(density > 0, density, np.nan))
    ticks = [tick for tick in (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01) if tick >= low / 2.5]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    _compressions(axes, max(2.0, x.max()))
    axes.legend(loc="lower left")
    shares = ", ".join(f"layer {layer} {share:.2g} %" for layer, share in enumerate(density[-1]))
    return f"Live weights at {times(x[-1])}: {shares}."


def _seconds(subject: Subject, canvas: Any) -> str:
    axes, rows = canvas.subplots(), [row for row in subject.detail.pruned if row.compression and row.epochs]
    x, y = np.array([row.compression for row in rows]), np.array([row.seconds / row.epochs for row in rows])
    axes.plot(x, y, "o-", color=_ACCENT, markersize=4)
    if rows and not rows[0].round:
        axes.axhline(y[0], color=_INK, linewidth=0.9, linestyle="--")
    axes.set(xlabel="compression", ylabel="seconds of an epoch")
    axes.set_ylim(bottom=0)
    _compressions(axes, x.max(initial=2.0))
    return f"Seconds of an epoch: {', '.join(f'{b:.2g} at {times(a)}' for a, b in zip(x, y, strict=True))}."


def _sensitivity(subject: Subject, canvas: Any) -> str:
    axes = canvas.subplots()
    curves = 100 * np.mean([cell.records[0].sensitivity or [] for cell in subject.detail.groups[0].cells], axis=0)
    for layer, curve in enumerate(curves):
        color = _COLORS[layer % len(_COLORS)]
        axes.plot(1 / (1 - np.array(SCAN)), curve, "o-", color=color, markersize=3.5, label=f"layer {layer}")
    axes.set(xlabel="compression of that layer alone", ylabel="accuracy, %")
    axes.set_ylim(0, 102)
    _compressions(axes, 1 / (1 - SCAN[-1]))
    axes.legend(loc="lower left")
    at = SCAN.index(0.9)
    shares = ", ".join(f"layer {layer} {curve[at]:.1f} %" for layer, curve in enumerate(curves))
    return f"Accuracy with one layer at 10.0x: {shares}."


def _weights(subject: Subject, canvas: Any) -> str:
    assert subject.networks is not None
    _, dense, pruned = subject.networks
    before, after = (np.concatenate([w.ravel() for w in network.weights]) for network in (dense, pruned))
    live = after[np.concatenate([mask.ravel() for mask in pruned.masks])]
    edge = float(np.quantile(np.abs(np.concatenate([before, live])), 0.9995))
    bins = np.linspace(-edge, edge, 121)
    axes = canvas.subplots()
    for weights, color, name in ((before, _GREY, "dense"), (live, _ACCENT, "live")):  # each one shape, not 120 bars
        axes.hist(weights, bins, color=color, label=f"{name}: {weights.size:,}", histtype="stepfilled")
    axes.set(xlabel="weight", ylabel="number of weights", yscale="log")
    axes.yaxis.set_major_formatter("{x:,.0f}")  # powers as 10^3 would take 0.2 s, to set up matplotlib's typesetting
    axes.legend(loc="upper right")
    return f"Two histograms from {-edge:.2g} to {edge:.2g}: {before.size:,} dense weights and {live.size:,} live ones."


def _mask(subject: Subject, canvas: Any) -> str:
    assert subject.networks is not None
    mask = subject.networks[2].masks[0]
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
