"""Run all benchmarks, keep the results in bench/results.json, and write what pages show of them, and of the study.

The pages are docs/benchmarks.md and the README; docs/results.md, with the tables of bench/han2015; and docs/sweeps.md,
with the settings of the command.

python bench/update.py            # some 15 minutes; install torch, onnx, onnxruntime and sparseprop to compare with
python bench/update.py --no-run   # only the pages
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from fastprune.sweep.config import OPTIONS, Grid, meaning
from fastprune.sweep.settings import FIELDS
from fastprune.sweep.settings import written as as_text

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
README, DOCS = HERE.parent / "README.md", HERE.parent / "docs"
BEGIN, END = "<!-- {}: python bench/update.py -->\n", "<!-- end of {} -->"

# What a note is called where it is shown; other notes stay in the file.
NOTES = {
    "share of BLAS's rate": "share of BLAS's rate",
    "more": "seconds more than the other",
    "warm_start": "seconds of the command with next to nothing to do",
    "seconds": "seconds of each round",
    "two trainings side by side have this times the pace of one": "two trainings side by side, times the pace of one",
    "share of time in which rounds are written": "share of the time spent writing rounds",
}

# The README's lines: what is said, the question and the beginning of the case it is from, and the peers it names.
MASKS, SPARSEPROP = "PyTorch, torch.nn.utils.prune", "SparseProp"
SHOWN = [
    ("a training step, 90 % pruned", "training step", "784-300-100-10, density 0.1 ", [MASKS, SPARSEPROP]),
    ("a training step, 98 % pruned", "training step", "784-300-100-10, density 0.02 ", [MASKS, SPARSEPROP]),
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


def machine(results):
    cpu = results["machine_info"]["cpu"]
    vectors = "AVX-512" if "avx512f" in cpu["flags"] else "AVX2" if "avx2" in cpu["flags"] else cpu["arch"]
    return f"{cpu['brand_raw']} ({vectors}), {cpu['count']} cores"


def rows_of(results):
    """The rows of each question."""
    questions = {}
    for one in results["benchmarks"]:
        questions.setdefault(one["extra_info"]["question"], []).append(one["extra_info"])
    return questions


def ratio(peer):
    return f"{peer['ratio']:.3g}x"


def highlights(results):
    """The README's table."""
    questions = rows_of(results)
    lines = [
        f"{machine(results)}, one thread; 784-300-100-10, batches of 128. Above 1x, the other takes longer.",
        "",
        "| | fastprune | others |",
        "| --- | --- | --- |",
    ]
    for what, question, begins, peers in SHOWN:
        (row,) = (row for row in questions[question] if f"{row['case']} ".startswith(begins))
        others = ", ".join(f"{name} {ratio(row['peers'][name])}" for name in peers)
        lines.append(f"| {what} | {value(row['fastprune'], row['unit'])} | {others} |")
    return "\n".join(lines) + "\n"


def tables(results):
    """The page's tables, one a question."""
    information = results["machine_info"]
    versions = ", ".join(f"{name} {version}" for name, version in information["versions"].items())
    lines = [f"{machine(results)}, Python {information['python_version']}, {versions}."]
    for question, rows in rows_of(results).items():
        peers = list(dict.fromkeys(name for row in rows for name in row["peers"]))
        lines += ["", f"### {question[0].upper()}{question[1:]}", ""]
        lines += [f"| | {' | '.join(['threads', 'fastprune', *peers])} |", "| --- " * (3 + len(peers)) + "|"]
        for row in rows:
            layers = "/".join(f"{density:.2g}" for density in row["notes"].get("densities", []))
            case = row["case"] + (f" ({layers})" if layers else "")
            cells = [case, str(row["threads"]), value(row["fastprune"], row["unit"])]
            for name in peers:
                peer = row["peers"].get(name)
                cells.append(f"{ratio(peer)} ({value(peer['value'], row['unit'])})" if peer else "")
            lines.append(f"| {' | '.join(cells)} |")
        notes = [
            f"- {row['case']}: {NOTES[name]}: {short(note)}"
            for row in rows
            for name, note in row["notes"].items()
            if name in NOTES
        ]
        if notes:
            lines += ["", *notes]
    return "\n".join(lines) + "\n"


def study(results):
    """The tables of bench/han2015, as they are."""
    return (HERE / "han2015" / "tables.md").read_text()


def described(fields):
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
    (DOCS / "sweeps.md", "settings"): lambda _: described(SETTINGS),
    (DOCS / "sweeps.md", "options"): lambda _: described(OPTIONS),
    (README, "speed"): highlights,
    (DOCS / "benchmarks.md", "benchmarks"): tables,
    (DOCS / "results.md", "study"): study,
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
    if RESULTS.exists():
        again = {one["fullname"] for one in results["benchmarks"]}
        kept = [one for one in json.loads(RESULTS.read_text())["benchmarks"] if one["fullname"] not in again]
        results["benchmarks"] = sorted(kept + results["benchmarks"], key=lambda one: one["fullname"].split("[")[0])
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def read_results():
    return json.loads(RESULTS.read_text())


def main():
    files = sys.argv[1:] or [str(HERE)]
    if files != ["--no-run"]:
        run(files)
    results = read_results()
    for (page, name), part in PARTS.items():
        page.write_text(written(page.read_text(), name, part(results)))


if __name__ == "__main__":
    main()
