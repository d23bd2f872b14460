"""How cost grows, drawn from the results of all processors: docs/images/growth.svg, by bench/update.py."""

from pathlib import Path

PATH = Path(__file__).parents[1] / "docs" / "images" / "growth.svg"
TILE = 64 * 4  # bytes that a unit's activations take in a tile of 64 samples


def microseconds(row):
    return row["fastprune"] * 1e6


def nanoseconds_a_weight(row):
    return row["fastprune"] * 1e9 / row["notes"]["live"]


def speedup(row):
    return row["peers"]["one thread"]["ratio"]


def mebibytes(row):
    return row["fastprune"]


# Question, the entry of its rows that is the x-axis, the axes' labels and scales, and what is shown of a row.
PANELS = [
    ("live weights", "live", "live weights", "log", "step, µs", "log", microseconds),
    ("batch", "batch", "samples in a batch", "log", "step, µs", "log", microseconds),
    ("layers", "layers", "hidden layers of 256", "linear", "step, µs", "linear", microseconds),
    ("width", "width", "units in a layer", "log", "step, ns per live weight", "linear", nanoseconds_a_weight),
    ("threads", "threads", "threads", "linear", "times as fast as one", "linear", speedup),
    ("memory", "live", "live weights", "log", "peak, MiB", "log", mebibytes),
]


def curves(cases, entry, shown):
    """The points of each processor, of those rows that have the entry; no curve without two."""
    found = {}
    for rows in cases.values():
        for processor, row in rows:
            place = (row | row["notes"]).get(entry)
            if place is not None:
                found.setdefault(processor, []).append((place, shown(row)))
    if entry == "threads":
        found = {processor: [(1, 1.0), *points] for processor, points in found.items()}
    return {processor: points for processor, points in found.items() if len(points) > 1}


def draw(results, questions):
    """One panel a question, one colour a processor; `questions` has the rows as bench/update.py groups them."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    style = {"svg.hashsalt": "growth", "font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
    style |= {"lines.marker": "o", "lines.markersize": 3, "lines.linewidth": 1}
    colours = dict(zip(results, mpl.color_sequences["tab10"], strict=False))
    panels = [(panel, curves(questions.get(panel[0], {}), panel[1], panel[-1])) for panel in PANELS]
    panels = [(panel, found) for panel, found in panels if found]
    height = -(-len(panels) // 3)
    with mpl.rc_context(style):
        figure = Figure((9, 2.5 * height + 0.3), layout="constrained")
        for place, ((question, entry, across, across_scale, up, up_scale, _), found) in enumerate(panels, 1):
            axes = figure.add_subplot(height, 3, place)
            for processor, points in found.items():
                axes.plot(*zip(*sorted(points), strict=True), color=colours[processor])
            axes.set(xlabel=across, ylabel=up, xscale=across_scale, yscale=up_scale)
            if up_scale == "linear":
                axes.set_ylim(bottom=0)
            if entry != "live":  # powers of two
                places = sorted({x for points in found.values() for x, _ in points if x & (x - 1) == 0})
                axes.set_xticks(places, [f"{x // 1024}k" if x >= 1024 else str(x) for x in places])
                axes.set_xticks([], minor=True)
            if question == "width":
                for line, processor in enumerate(found):
                    mark_caches(axes, results[processor]["machine_info"]["caches"], colours[processor], line)
        lines = [Line2D([], [], color=colour) for colour in colours.values()]
        figure.legend(lines, list(colours), loc="outside upper center", ncols=len(colours), frameon=False)
        figure.savefig(PATH, metadata={"Date": None})


def mark_caches(axes, caches, colour, line):
    """Where a tile of a layer's activations fills each cache."""
    for name, size in caches.items():
        axes.axvline(size / TILE, color=colour, linewidth=0.8, linestyle=":", marker="")
        where = {"xycoords": ("data", "axes fraction"), "xytext": (0, 8 * line), "textcoords": "offset points"}
        axes.annotate(name, (size / TILE, 1), color=colour, ha="center", va="bottom", **where)
