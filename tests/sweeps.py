"""What the tests of sweeps share: short ones, the command in a process of its own, and what it wrote."""

import contextlib
import csv
import os
import subprocess
import sys

import psutil

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


def workers(pid):
    """The spawned processes of a process."""
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if any("spawn_main" in part for part in child.cmdline()):
                found.append(child)
    return found


def outcome(folder):
    """What a sweep came to, by file: all that has to be the same however it was run."""
    paths = [folder / "results.csv", folder / "results.jsonl", folder / "best.npz", *(folder / "networks").iterdir()]
    return {path.name: path.read_bytes() for path in paths}
