"""Run all benchmarks, keep the results in bench/results, and write what pages show of them, and of the study.

Each processor has a file there, of pytest-benchmark's format. The pages are docs/benchmarks.md and the README;
docs/results.md, with the tables of bench/han2015; and docs/sweeps.md, with the settings of the command.

python bench/update.py            # some 30 minutes; install the peers to compare with (docs/benchmarks.md)
python bench/update.py FILE ...   # some of the benchmarks; the other figures of this processor stay
python bench/update.py --no-run   # only the pages
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import growth

from fastprune.sweep.config import OPTIONS, Grid, meaning
from fastprune.sweep.settings import FIELDS
from fastprune.sweep.settings import written as as_text

HERE = Path(__file__).parent
RESULTS = HERE / "results"
README, DOCS = HERE.parent / "README.md", HERE.parent / "docs"
BEGIN, END = "<!-- {}: python bench/update.py -->\n", "<!-- end of {} -->"

# What a note is called where it is shown; other notes stay in the file.
NOTES = {
    "share of BLAS's rate": "share of BLAS's rate",
    "more": "seconds more than the other",
    "first": "seconds with a first prediction",
    "warm_start": "seconds of the command with next to nothing to do",
    "seconds": "seconds of each round",
    "two trainings side by side have this times the pace of one": "two trainings side by side, times the pace of one",
    "share of time in which rounds are written": "share of the time spent writing rounds",
}

# The README's lines: what is said, the question and the beginning of the case it is from, and the peers it names.
MASKS, SPARSE = "PyTorch, torch.nn.utils.prune", ["SparseProp", "SparseLab"]
SHOWN = [
    ("a training step, 90 % pruned", "training step", "784-300-100-10, density 0.1 ", [MASKS, *SPARSE]),
    ("a training step, 98 % pruned", "training step", "784-300-100-10, density 0.02 ", [MASKS, *SPARSE]),
    ("a training step, dense", "training step", "784-300-100-10, density 1 ", ["PyTorch, dense", "NumPy, masks"]),
    ("a whole MNIST run to 12x", "whole MNIST run", "784-300-100-10", [MASKS]),
    ("prediction of one sample, 92 % pruned", "inference", "784-300-100-10, density 0.08, 1 s", ["onnxruntime"]),
]


def value(number, unit):
    if unit != "s":
        return f"{number:,.0f} {unit}"
    factor, name = (1, "s") if number >= 1 else (1e3, "ms") if number >= 1e-3 else (1e6, "µs")
    return f"{number * factor:.3g} {name}"


def short(note):
    return f"{note:.3g}" if isinstance(note, float) else str(note)


def short_name(results):
    """What a processor is called in tables."""
    machine = results["machine_info"]
    return f"{machine['processor']}, {machine['cpu']['count']} cores"


def file_name(results):
    """The file of a processor's results."""
    machine = results["machine_info"]
    words = machine["cpu"]["brand_raw"], machine["processor"], machine["vectors"], machine["cpu"]["count"], "cores"
    return re.sub("[^a-z0-9]+", "-", " ".join(map(str, words)).lower()) + ".json"


def measured(results):
    """With which versions of fastprune, and when."""
    rows = [one["extra_info"] for one in results["benchmarks"]]
    versions, dates = ({row[name] for row in rows} for name in ("version", "date"))
    return f"fastprune {spread(versions, str)}, {spread(dates, str)}"


def kind(results):
    machine = results["machine_info"]
    return f"{machine['cpu']['brand_raw']}, {machine['vectors']}"


def described(results):
    """All that is known of a processor."""
    machine = results["machine_info"]
    caches = ", ".join(f"{name} {size // 1024:,} KiB" for name, size in machine["caches"].items())
    library = " ".join(map(str, machine["blas"].values())) or "not recorded"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if name != "fastprune")
    return (
        f"- **{short_name(results)}**: {kind(results)}; caches that a core sees: {caches}; BLAS: {library}; "
        f"Python {machine['python_version']}, {versions}. Measured with {measured(results)}."
    )


def rows_of(results):
    """The rows of all processors by question and case: cases that two processors have stand together."""
    found = [(name, one) for name, result in results.items() for one in result["benchmarks"]]
    questions = {}
    for name, one in sorted(found, key=lambda pair: pair[1]["fullname"].split("[")[0]):
        row = one["extra_info"]
        questions.setdefault(row["question"], {}).setdefault(row["case"], []).append((name, row))
    return questions


def ratio(number):
    return f"{number:.3g}x"


def spread(values, show):
    """The least and the most."""
    least, most = show(min(values)), show(max(values))
    return least if least == most else f"{least} to {most}"


def highlights(results):
    """The README's table."""
    questions = rows_of(results)
    machines = "; ".join(f"{name} ({kind(one)}; {measured(one)})" for name, one in results.items())
    lines = [
        "784-300-100-10, batches of 128, one thread. Above 1x, the other takes longer. A range goes from the least",
        f"to the most of these processors: {machines}.",
        "",
        "| | fastprune | others |",
        "| --- | --- | --- |",
    ]
    for what, question, begins, peers in SHOWN:
        (rows,) = (rows for case, rows in questions[question].items() if f"{case} ".startswith(begins))
        ours = spread([row["fastprune"] for _, row in rows], lambda number: value(number, "s"))
        found = {peer: [row["peers"][peer]["ratio"] for _, row in rows if peer in row["peers"]] for peer in peers}
        others = [f"{peer} {spread(ratios, ratio)}" for peer, ratios in found.items() if ratios]
        lines.append(f"| {what} | {ours} | {', '.join(others)} |")
    return "\n".join(lines) + "\n"


def tables(results):
    """The page's tables, one a question."""
    lines = [described(one) for one in results.values()]
    for question, cases in rows_of(results).items():
        rows = [pair for case in cases.values() for pair in case]
        peers = list(dict.fromkeys(name for _, row in rows for name in row["peers"]))
        lines += ["", f"### {question[0].upper()}{question[1:]}", ""]
        columns = ["processor", "threads", "fastprune", *peers]
        lines += [f"| | {' | '.join(columns)} |", "| --- " * (1 + len(columns)) + "|"]
        for processor, row in rows:
            layers = "/".join(f"{density:.2g}" for density in row["notes"].get("densities", []))
            case = row["case"] + (f" ({layers})" if layers else "")
            cells = [case, processor, str(row["threads"]), value(row["fastprune"], row["unit"])]
            for name in peers:
                peer = row["peers"].get(name)
                cells.append(f"{ratio(peer['ratio'])} ({value(peer['value'], row['unit'])})" if peer else "")
            lines.append(f"| {' | '.join(cells)} |")
        notes = [
            f"- {row['case']} ({processor}): {NOTES[name]}: {short(note)}"
            for processor, row in rows
            for name, note in row["notes"].items()
            if name in NOTES
        ]
        if notes:
            lines += ["", *notes]
    return "\n".join(lines) + "\n"


def study(results):
    """The tables of bench/han2015, as they are."""
    return (HERE / "han2015" / "tables.md").read_text()


def deep_compression(results):
    """The tables of bench/han2016, as they are."""
    return (HERE / "han2016" / "tables.md").read_text()


def settings(fields):
    """A table of settings, as the command's help has them."""
    lines = ["| setting | meaning | default |", "| --- | --- | --- |"]
    for name, field in fields.items():
        about = field.metadata
        flag = f"--{(about['key'] or name).replace('_', '-')}"
        defaults = Grid({}).axis(name) if name in FIELDS else (field.default,)
        default = "" if name in OPTIONS and defaults == (None,) else f"`{','.join(map(as_text, defaults))}`"
        lines.append(f"| `{flag}` | {meaning(field)} | {default} |")
    return "\n".join(lines) + "\n"


SETTINGS = {name: field for name, field in FIELDS.items() if "help" in field.metadata}  # but not the stages
PARTS = {
    (DOCS / "sweeps.md", "settings"): lambda _: settings(SETTINGS),
    (DOCS / "sweeps.md", "options"): lambda _: settings(OPTIONS),
    (README, "speed"): highlights,
    (DOCS / "benchmarks.md", "benchmarks"): tables,
    (DOCS / "results.md", "study"): study,
    (DOCS / "microcontrollers.md", "sizes"): deep_compression,
}


def written(text, name, content):
    """A page with the part between its marks made anew."""
    begin, end = BEGIN.format(name), END.format(name)
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    text, found = pattern.subn(lambda _: f"{begin}\n{content}\n{end}", text)
    assert found == 1, name
    return text


def run(files):
    """Run the benchmarks of these files; what they give takes the place of what they gave before."""
    with tempfile.TemporaryDirectory() as folder:
        new = Path(folder, "new.json")
        command = ["pytest", *files, "-s", "-m", "not quick", f"--benchmark-json={new}"]
        subprocess.run([sys.executable, "-m", *command], check=True)
        results = json.loads(new.read_text())
    path = RESULTS / file_name(results)
    if path.exists():
        again = {one["fullname"] for one in results["benchmarks"]}
        kept = [one for one in json.loads(path.read_text())["benchmarks"] if one["fullname"] not in again]
        results["benchmarks"] = sorted(kept + results["benchmarks"], key=lambda one: one["fullname"].split("[")[0])
    path.write_text(json.dumps(results, indent=1) + "\n")


def read_results():
    """The results of all processors, by the names that tables give these."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    return {short_name(one): one for one in found}


def main():
    files = sys.argv[1:] or [str(HERE)]
    if files != ["--no-run"]:
        run(files)
    results = read_results()
    for (page, name), part in PARTS.items():
        page.write_text(written(page.read_text(), name, part(results)))
    growth.draw(results, rows_of(results))


if __name__ == "__main__":
    main()
