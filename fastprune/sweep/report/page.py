"""The page of a report."""

import base64
import html
import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any

from fastprune.files import write_text
from fastprune.network import load
from fastprune.sweep.cell import saved_network
from fastprune.sweep.engine import Failure
from fastprune.sweep.report.figures import Figure, Subject, draw
from fastprune.sweep.results import Group, Results, Row, Spread, times
from fastprune.sweep.settings import KEYS, written
from fastprune.sweep.store import Store


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

    Raises
    ------
    OSError
        If they cannot be written.
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
        cards=_cards(results) if len(names) == 1 else "",
        failures=_failures(results, failures),
        sections="\n".join(_section(results, name, folder, alone=len(names) == 1) for name in names),
        settings=_settings(results),
        command=html.escape(
            f"python -m fastprune.sweep --config sweep.toml --out {shlex.quote(results.sweep.folder.name)}"
        ),
        toml=html.escape(results.sweep.to_toml()),
        use=html.escape(_use(results)),
        versions=html.escape(_versions()),
    )
    write_text(folder / "report.html", text)
    return folder / "report.html"


def _cards(results: Results) -> str:
    """What a reader wants to know first."""
    if not results.best:
        return ""
    (best,) = results.best.values()
    dense, record = best.cell.records[0], best.record
    cards = {
        "compression": times(record.compression),
        "live weights": f"{record.live:,} of {dense.live:,}",
        "test accuracy": _percent(record.after_test_accuracy),
        "before pruning": _percent(dense.after_test_accuracy),
        "effective sparsity": _percent(record.effective_sparsity),
    }
    shown = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in cards.items())
    return f"<dl class='cards'>{shown}</dl>"


def _section(results: Results, name: str, folder: Path, alone: bool) -> str:
    """The plots and tables of a data set."""
    groups = [group for group in results.groups if group.settings.dataset == name]
    best = results.best.get(name)
    group = next((g for g in groups if best and any(c.settings == best.cell.settings for c in g.cells)), groups[0])
    networks = None
    if best is not None:
        store, cell = Store(folder), best.cell.settings
        networks = saved_network(cell, store.state(cell, 0)), load(store.network(cell))

    def label(of: Group) -> str:
        return of.grid.label(of.settings, without=["dataset"])

    subject = Subject(groups, label, group, best.record if best else None, networks)
    try:
        figures = "".join(map(_figure, draw(subject, "" if alone else f"-{Path(name).stem}", Store(folder).plots)))
    except ImportError:
        figures = '<p>Plots need an extra: <code>pip install "fastprune[plots]"</code>, then make the report again.</p>'
    parts = [f"<h2>{'Results' if alone else html.escape(Path(name).stem)}</h2>"]
    if best is not None:
        drop = f"{100 * best.cell.settings.max_drop:g}"
        where = " ".join(f"{label(group)} seed={best.cell.settings.seed}, round {best.record.round}".split())
        parts.append(
            f"<p>Best network: {html.escape(where)}; "
            f"{best.record.live:,} weights ({times(best.record.compression)}), test accuracy "
            f"{_percent(best.record.after_test_accuracy)}, dense {_percent(best.cell.records[0].after_test_accuracy)}. "
            f"It is the smallest network that loses at most {drop} percentage point{'s'[: drop != '1']} to the dense "
            "networks, on held-out samples. The test set chooses nothing.</p>"
        )
    parts.append(f"<div class='figures'>{figures}</div>")
    if len(groups) > 1:
        title = "Settings, compared at the last round that holds up on held-out samples"
        rows = [_compared(label(g), g) for g in groups]
        head = ("settings", "dense, %", "round", "sparsity, %", "compression", "test, %", "vs dense", "seeds", "failed")
        parts.append(_table(title, head, rows, groups.index(group) if best else None))
    of = f" of {label(group)}" if len(groups) > 1 else ""
    title = f"Rounds{of}: mean ± standard deviation over seeds"
    head = (
        *("round", "sparsity, %", "compression", "pruned, %", "retrained, %", "vs dense"),
        *("seconds", "seeds", "failed"),
    )
    parts.append(_table(title, head, [_round(row) for row in group.rows], best.record.round if best else None))
    return "\n".join(parts)


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
        (row.round, str(row.round) if row.round else "dense"),
        *_size(row),
        _spread(row.after),
        _spread(row.difference, "+"),
        (row.seeds, str(row.seeds)),
        (sum(r.failed for r in group.rows), str(sum(r.failed for r in group.rows))),
    ]


def _round(row: Row) -> list[_Cell]:
    return [
        (row.round, str(row.round) if row.round else "dense"),
        *_size(row),
        _spread(row.before),
        _spread(row.after),
        _spread(row.difference, "+"),
        (row.seconds, f"{row.seconds:.2f}"),
        (row.seeds, str(row.seeds)),
        (row.failed, str(row.failed)),
    ]


def _size(row: Row) -> list[_Cell]:
    return [
        (row.sparsity, f"{100 * row.sparsity:.2f}"),
        ("Infinity" if row.compression is None else row.compression, times(row.compression)),
    ]


def _spread(spread: Spread | None, sign: str = "") -> _Cell:
    if spread is None:
        return "", ""
    mean = f"{100 * spread.mean:{sign}.2f}"
    return spread.mean, mean if spread.deviation is None else f"{mean} ± {100 * spread.deviation:.2f}"


def _table(title: str, head: Iterable[str], rows: Iterable[Sequence[_Cell]], best: int | None) -> str:
    """A table that is sorted by a click; the row of the best network stands out."""
    title = html.escape(title)
    names = "".join(f"<th scope='col'><button type='button'>{html.escape(name)}</button></th>" for name in head)
    lines = []
    for number, row in enumerate(rows):
        tags = ["th scope='row'", *["td"] * (len(row) - 1)]
        cells = (
            f"<{tag} data-value='{html.escape(str(key))}'>{html.escape(shown)}</{tag[:2]}>"
            for tag, (key, shown) in zip(tags, row, strict=True)
        )
        lines.append(f"<tr{' class=best' if number == best else ''}>{''.join(cells)}</tr>")
    return (
        f"<h3>{title}</h3>\n<div class='scroll' role='group' aria-label='{title}' tabindex='0'>"
        f"<table class='sortable' aria-label='{title}'><thead><tr>{names}</tr></thead>\n<tbody>\n"
        + "\n".join(lines)
        + "\n</tbody></table></div>"
    )


def _settings(results: Results) -> str:
    lines = []
    for key, name in KEYS.items():
        values = ", ".join(map(written, results.sweep.axis(name)))
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
    files = [results.best_file(name) for name in results.best]
    return "import fastprune\n" + "\n".join(f'fastprune.load("{file}").predict(x)' for file in files)


def _versions() -> str:
    names = ("fastprune", "numpy", "numba", "scipy")
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"{packages}; Python {platform.python_version()} on {sys.platform}."


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}\N{NO-BREAK SPACE}%"
