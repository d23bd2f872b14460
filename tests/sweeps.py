"""What the tests of sweeps share: short ones, the command in a process of its own, and what it wrote."""

import csv
import os
import subprocess
import sys

SHORT = ["--hidden", "20-10", "--seeds", "0,1", "--epochs", "8", "--retrain-epochs", "4", "--rounds", "3"]
SMALL = [*SHORT, "--q", "40"]


def command(*arguments):
    return [sys.executable, "-W", "error", "-m", "fastprune.sweep", *map(str, arguments)]


def sweep(*arguments, cwd, **environment):
    line, env = command(*arguments), {**os.environ, **environment}
    return subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def outcome(folder):
    """What a sweep came to, by file: all that has to be the same however it was run."""
    paths = [folder / "results.csv", folder / "results.jsonl", folder / "best.npz", *(folder / "networks").iterdir()]
    return {path.name: path.read_bytes() for path in paths}
