"""The page of a report."""

import base64
import html
import importlib.metadata
import math
import platform
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any

from fastprune.base import Network
from fastprune.files import write_text
from fastprune.network import load
from fastprune.sweep.cell import saved_network
from fastprune.sweep.config import Reference
from fastprune.sweep.engine import Failure
from fastprune.sweep.report.figures import Figure, Subject, draw
from fastprune.sweep.results import RULE, Best, Group, Line, Results, Row, Spread, times
from fastprune.sweep.settings import KEYS, written
from fastprune.sweep.store import Store

_NEAR = 0.06  # of a compression, for a published result to stand beside it
_TABLES = 4  # lines of a section that each have a table


def write_report(results: Results, failures: Sequence[Failure], folder: Path) -> Path:
    """Write `report.html`, and with matplotlib its plots, as SVG and PNG files in the folder `plots`.

    Parameters
    ----------
    results : Results
        At least one round of them done.
    failures : sequence of Failure
        What to tell of.
    folder : path
        Of the sweep.

    Returns
    -------
    path
        Of the page.

    Raises OSError if they cannot be written.
    """
    names = list(dict.fromkeys(cell.settings.dataset for cell in results.cells))
    finished = sum(cell.finished for cell in results.cells)
    seconds = sum(record.seconds for cell in results.cells for record in cell.records)
    networks = {"-".join(map(str, cell.settings.hidden)) for cell in results.cells}
    title = f"{', '.join(Path(name).stem for name in names)}: pruned networks"
    many = f"{len(results.groups)} settings" if len(results.groups) > 1 else "one setting"
    seeds = ", ".join(map(str, results.sweep.axis("seed")))
    summary = (
        f"{finished} of {len(results.sweep.cells)} cells finished: {many}, seeds {seeds}; hidden layers of "
        f"{' or '.join(sorted(networks))} units; {seconds:,.0f} s of training."
    )
    text = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        summary=html.escape(summary),
        cards=_cards(results),
        rule=f"<p class='note'>{html.escape(RULE)} The test set chooses nothing.</p>" if results.best else "",
        failures=_failures(results, failures),
        sections="\n".join(_section(results, name, folder) for name in results.sections),
        settings=_settings(results),
        command=html.escape(
            f"python -m fastprune.sweep --config sweep.toml --out {shlex.quote(results.sweep.folder.name)}"
        ),
        toml=html.escape(results.sweep.to_toml()),
        use=_use(results),
        versions=html.escape(_versions()),
    )
    write_text(folder / "report.html", text)
    return folder / "report.html"


def _cards(results: Results) -> str:
    """What a reader wants to know first."""
    if len(results.best) != 1:
        return ""
    (best,) = results.best.values()
    kept, dense = best.group.kept, best.group.rows[0]
    cards = {
        "compression": times(kept.compression),
        "live weights": f"{kept.live:,.0f} of {dense.live:,.0f}",
        "test accuracy, %": _spread(kept.after)[1],
        "dense test accuracy, %": _spread(dense.after)[1],
        "effective sparsity": _percent(kept.effective_sparsity),
    }
    shown = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in cards.items())
    return f"<dl class='cards'>{shown}</dl>"


def _section(results: Results, name: str, folder: Path) -> str:
    """The plots and tables of a section."""
    groups, lines, references = results.sections[name], results.lines(name), results.references(name)
    best = {dataset: b for dataset, b in results.best.items() if b.group.section == name}
    of = [(b.group.grid, b.group.settings) for b in best.values()]
    winners = [next(group for group in groups if (group.grid, group.settings) == one) for one in of]
    group = next((g for g in [*winners, *groups] if g.settings.prune), groups[0])
    detail = next(line for line in lines if group in line.groups)
    first = next((b for g, b in zip(winners, best.values(), strict=True) if g is group), None)
    networks = _networks(group, detail, references, first, Store(folder))
    subject = Subject(lines, references, detail, list(best.values()), networks)
    alone = len(results.sections) == 1
    try:
        suffix = "" if alone else "-" + "-".join(re.findall(r"[\w.]+", name))
        figures = "".join(map(_figure, draw(subject, suffix, Store(folder).plots)))
    except ImportError:
        figures = '<p>Plots need an extra: <code>pip install "fastprune[plots]"</code>, then make the report again.</p>'
    parts = [f"<h2>{'Results' if alone else html.escape(name)}</h2>"]
    parts += [_told(results, dataset, found) for dataset, found in best.items()]
    parts.append(f"<div class='figures'>{figures}</div>")
    if len(groups) > 1 and any(group.rows[0].held_out for group in groups):
        title = "Settings, compared by the network that each seed keeps"
        head = ["settings", "dense test accuracy, %", "round", "sparsity, %", "compression", "test accuracy, %"]
        head += ["vs dense", "seeds", "failed"]
        without = ["dataset"] if len({g.settings.dataset for g in groups}) == 1 else []
        stars = {groups.index(winner) for winner in winners}
        parts.append(_table(title, head, [_compared(g.grid.label(g.settings, without), g) for g in groups], stars))
    for line in lines if len(lines) <= _TABLES else [detail]:
        whose = f" of {line.label}" if len(lines) > 1 else ""
        one = "Ends of stages" if line.groups[0].settings.stage else "Rounds"
        kind = "Single rounds" if len(line.groups) > 1 else one
        stars = {
            number
            for number, row in enumerate(line.rows)
            for winner, chosen in zip(winners, best.values(), strict=True)
            if row.round == chosen.record.round and row in winner.rows
        }
        parts.append(_table(f"{kind}{whose}: mean ± standard deviation over seeds", *_rounds(line, references), stars))
        parts += [_layers(whose, line, known) for known in references if known.layers]
    return "\n".join(parts)


def _networks(
    group: Group, detail: Line, references: Sequence[Reference], best: Best | None, store: Store
) -> tuple[str, Network, Network] | None:
    """What is drawn of weights: the best network, or one to compare with a reference, or the last."""
    cell = best.cell if best else next((c for c in group.cells if c.finished and not c.last.failed), None)
    if cell is None:
        return None
    end = cell.best
    if best is None and cell.settings.stage:
        wanted = next((known for known in references if known.layers), None)
        near = _nearest(detail.rows[1:], wanted) if wanted else None
        end = near.round if near else end
    parts = [detail.label, f"seed {cell.settings.seed}", times(cell.records[end].compression)]
    name = f"{'best ' if best else ''}network of {', '.join(filter(None, parts))}"
    file = store.network(cell.settings, 0 if end == cell.best else end)
    return name, saved_network(cell.settings, store.state(cell.settings, 0)), load(file)


def _nearest(rows: Sequence[Row], known: Reference) -> Row | None:
    """The row whose compression is nearest to a reference's, if it is near enough to stand beside it."""

    def off(row: Row) -> float:
        return abs(known.compression / (row.compression or math.inf) - 1)

    nearest = min(rows, key=off, default=None)
    return nearest if nearest and off(nearest) < _NEAR else None


def _told(results: Results, dataset: str, best: Best) -> str:
    """The best network of a data set, and how far it is to be trusted."""
    kept, cell, record, points = best.group.kept, best.cell.settings, best.record, 100 * best.uncertainty
    of = ", ".join(filter(None, [Path(dataset).stem, best.group.grid.label(best.group.settings, ["dataset"])]))
    text = (
        f"Best on {of}: {times(kept.compression)}, test accuracy {_spread(kept.after)[1]} %. Saved as "
        f"{results.best_file(dataset)}: seed {cell.seed}, round {record.round}, {record.live:,} weights, test accuracy "
        f"{_percent(record.after_test_accuracy)}. Its held-out accuracy has a standard error of {points:.2f} points "
        f"({record.validation_samples:,} samples)"
    )
    chance = ""
    if best.uncertainty > cell.max_drop:
        chance = f": too coarse to tell a drop of max_drop ({cell.max_drop:g}), so chance has a part in the choice"
    return f"<p>{html.escape(text + chance)}.</p>"


def _figure(figure: Figure) -> str:
    content, name = base64.b64encode(figure.svg).decode(), html.escape(figure.name)
    image = f"<img id='{name}' alt='{html.escape(figure.alt)}' src='data:image/svg+xml;base64,{content}'>"
    if figure.name.startswith("accuracy"):  # too wide for a telephone
        image = f"<div class='scroll' role='group' aria-label='Chart: {name}' tabindex='0'>{image}</div>"
    return f"<figure>{image}<figcaption>{html.escape(figure.caption)}</figcaption></figure>"


_Cell = tuple[Any, str]  # what it is sorted by, and what is shown


def _compared(label: str, group: Group) -> list[_Cell]:
    row = group.kept
    return [
        (label, label),
        _spread(group.rows[0].after),
        (row.round, row.name),
        *_size(row),
        _spread(row.after),
        _spread(row.difference, "+"),
        (row.seeds, str(row.seeds)),
        (sum(r.failed for r in group.rows), str(sum(r.failed for r in group.rows))),
    ]


def _rounds(line: Line, references: Sequence[Reference]) -> tuple[list[str], list[list[_Cell]]]:
    """The table of a line: its columns, of which some stand only where they say something, and its rows."""
    stages, fair = line.groups[0].settings.stage, any(row.fair for row in line.rows)
    coded = any(row.coded_bytes for row in line.rows)
    uneven = len({(row.seeds, row.failed) for row in line.rows}) > 1
    near = [(_nearest(line.rows, known), f"{known.name}: {100 - known.error:.2f}") for known in references]
    published = ["; ".join(text for other, text in near if other is row) for row in line.rows]
    rows: list[dict[str, _Cell]] = []
    for row, beside in zip(line.rows, published, strict=True):
        sparsity, compression = _size(row)
        cells: dict[str, _Cell] = {
            "round": (row.round, row.name),
            "sparsity, %": sparsity,
            "compression": compression,
        }
        if coded:
            cells["bits"] = row.bits, row.bits
            cells["coded bytes"] = _number(row.coded_bytes)
        cells |= {
            "effective sparsity, %": (row.effective_sparsity, f"{100 * row.effective_sparsity:.2f}"),
            "test accuracy pruned, %": _spread(row.before),
            "test accuracy retrained, %": _spread(row.after),
            "vs dense": _spread(row.difference, "+"),
        }
        if fair:
            cells["vs dense trained as long"] = _spread(row.fair, "+")
        if any(published):
            cells["published, %"] = (beside, beside)
        cells["seconds so far" if stages else "seconds"] = (
            (row.total, f"{row.total:,.0f}") if stages else (row.seconds, f"{row.seconds:.2f}")
        )
        if uneven:
            cells |= {"seeds": (row.seeds, str(row.seeds)), "failed": (row.failed, str(row.failed))}
        rows.append(cells)
    return list(rows[0]), [list(cells.values()) for cells in rows]


def _layers(whose: str, line: Line, known: Reference) -> str:
    """A table of the layers beside a reference's (Han et al. 2015, table 2); empty if no row is near it."""
    row = _nearest([row for row in line.rows if row.active_units], known)
    if row is None or len(row.layer_sparsity) != len(known.layers):
        return ""
    active = [*(row.active_units or []), 1.0]
    rows = []
    for layer, (weights, units) in enumerate(known.layers):
        density = 1 - row.layer_sparsity[layer]
        # As in the paper: a weight costs nothing where the unit that it reads is 0.
        done = density * (active[layer - 1] if layer else 1)
        theirs = weights * (known.layers[layer - 1][1] / 100 if layer else 1)
        pairs = ((weights, density), (units, active[layer]), (theirs, done))
        rows.append([(layer, f"layer {layer}"), *((100 * ours, f"{a:.0f} / {100 * ours:.1f}") for a, ours in pairs)])
    title = f"Layers{whose} at {times(row.compression)}: {known.name} / here"
    return _table(title, ("layer", "live weights, %", "active units, %", "multiplications, %"), rows, set())


def _size(row: Row) -> list[_Cell]:
    return [
        (row.sparsity, f"{100 * row.sparsity:.2f}"),
        ("Infinity" if row.compression is None else row.compression, times(row.compression)),
    ]


def _number(value: float | None) -> _Cell:
    return ("", "") if value is None else (value, f"{value:,.0f}")


def _spread(spread: Spread | None, sign: str = "") -> _Cell:
    if spread is None:
        return "", ""
    mean = f"{100 * spread.mean:{sign}.2f}"
    if spread.deviation is None:
        return spread.mean, mean
    return spread.mean, f"{mean}\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{100 * spread.deviation:.2f}"


def _table(title: str, head: Iterable[str], rows: Iterable[Sequence[_Cell]], best: set[int]) -> str:
    """A table that is sorted by a click; the rows of best networks stand out."""
    title = html.escape(title)
    heads = (html.escape(name).replace(", %", ",&nbsp;%") for name in head)
    names = "".join(f"<th scope='col'><button type='button'>{name}</button></th>" for name in heads)
    lines = []
    for number, row in enumerate(rows):
        tags = ["th scope='row'", *["td"] * (len(row) - 1)]
        cells = (
            f"<{tag} data-value='{html.escape(str(key))}'>{html.escape(shown)}</{tag[:2]}>"
            for tag, (key, shown) in zip(tags, row, strict=True)
        )
        lines.append(f"<tr{' class=best' if number in best else ''}>{''.join(cells)}</tr>")
    return (
        f"<h3>{title}</h3>\n<div class='scroll' role='group' aria-label='{title}' tabindex='0'>"
        f"<table class='sortable' aria-label='{title}'><thead><tr>{names}</tr></thead>\n<tbody>\n"
        + "\n".join(lines)
        + "\n</tbody></table></div>"
    )


def _settings(results: Results) -> str:
    cells, lines = [group.settings for group in results.groups], []
    for key, name in KEYS.items():
        used = dict.fromkeys(getattr(cell, name) for cell in cells if cell.applies(name))
        values = ", ".join(map(written, results.sweep.axis("seed") if name == "seed" else used))
        if values and name != "stage":
            lines.append(f"<tr><th scope='row'>{key}</th><td>{html.escape(values)}</td></tr>")
    return "\n".join(lines)


def _failures(results: Results, failures: Sequence[Failure]) -> str:
    if not failures:
        return ""
    lines = []
    for failure in failures:
        cells = ", ".join(f"{results.sweep.label(cell)} seed={cell.seed}".strip() for cell in failure.cells)
        where = f"round {failure.round}" if failure.round else "dense training"
        lines.append(f"<li>{html.escape(f'{cells}, {where}: {failure.message}')}</li>")
    return f"<div class='failed'><h2>Failed</h2><ul>{''.join(lines)}</ul></div>"


def _use(results: Results) -> str:
    files = [f'fastprune.load("{results.best_file(name)}").predict(x)' for name in results.best]
    code = html.escape("\n".join(["import fastprune", *files]))
    return f"<p>To use what is best:</p>\n<pre>{code}</pre>" if files else ""


def _versions() -> str:
    names = ("fastprune", "numpy", "numba", "scipy")
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"{packages}; Python {platform.python_version()} on {sys.platform}."


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}\N{NO-BREAK SPACE}%"
