"""Run all benchmarks, keep what came out in bench/results.json, and write its table into the README.

python bench/update.py            # some 15 minutes; install torch, onnx, onnxruntime and sparseprop to compare with
python bench/update.py --no-run   # only the table
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
README, RESULTS = HERE.parent / "README.md", HERE / "results.json"
BEGIN, END = "<!-- benchmarks: python bench/update.py -->\n", "<!-- end of benchmarks -->"


def value(number, unit):
    if unit != "s":
        return f"{number:,.0f} {unit}"
    factor, name = (1, "s") if number >= 1 else (1e3, "ms") if number >= 1e-3 else (1e6, "µs")
    return f"{number * factor:.3g} {name}"


def table(results):
    machine = results["machine_info"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    cpu = machine["cpu"]
    lines = [
        f"{cpu['brand_raw']}, {cpu['count']} cores, Python {machine['python_version']}, {versions}.",
        "Medians; each ratio is peer / fastprune, of seconds taken in turn, or of MiB: above 1, fastprune needs less. "
        "In brackets behind a density: those of the layers.",
    ]
    questions = {}
    for one in results["benchmarks"]:
        questions.setdefault(one["extra_info"]["question"], []).append(one["extra_info"])
    for question, rows in questions.items():
        peers = list(dict.fromkeys(name for row in rows for name in row["peers"]))
        lines += ["", f"| {question} | threads | fastprune | {' | '.join(peers)} |", "| --- " * (3 + len(peers)) + "|"]
        for row in rows:
            layers = "/".join(f"{density:.2g}" for density in row["notes"].get("densities", []))
            case = row["case"] + (f" ({layers})" if layers else "")
            cells = [case, str(row["threads"]), value(row["fastprune"], row["unit"])]
            for name in peers:
                peer = row["peers"].get(name)
                cells.append(f"{peer['ratio']:.3g}x ({value(peer['value'], row['unit'])})" if peer else "")
            lines.append(f"| {' | '.join(cells)} |")
        notes = {
            row["case"]: ", ".join(f"{name} {note}" for name, note in row["notes"].items() if name in SHOWN)
            for row in rows
        }
        lines += [f"\n{case}: {note}." for case, note in notes.items() if note]
    return "\n".join(lines) + "\n"


SHOWN = {
    "share of BLAS's rate",
    "more",
    "warm_start",
    "seconds",
    "two trainings side by side have this times the pace of one",
    "share of time in which rounds are written",
}


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


def main():
    files = sys.argv[1:] or [str(HERE)]
    if files != ["--no-run"]:
        run(files)
    readme = README.read_text()
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    text = BEGIN + "\n" + table(json.loads(RESULTS.read_text())) + "\n" + END
    README.write_text(pattern.sub(lambda _: text, readme))


if __name__ == "__main__":
    main()
