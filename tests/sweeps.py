"""What the tests of sweeps share: short ones, run in this process or as the command, and what they wrote."""

import contextlib
import csv
import os
import subprocess
import sys
from concurrent.futures import Executor, Future

import psutil

from fastprune.sweep import run_sweep
from fastprune.sweep.config import parse

SHORT = ["--hidden", "20-10", "--seeds", "0,1", "--epochs", "8", "--retrain-epochs", "4", "--rounds", "3"]
SMALL = [*SHORT, "--q", "40"]


class AtOnce(Executor):
    """Does each task in this process, when it is handed in: to start others takes longer than a short sweep."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def run_here(*arguments, executor=None, workers=1, quiet=True):
    """The sweep of these flags in this process, without a report: the same results, and what failed."""
    given = parse([str(argument) for argument in arguments]).sweep
    return run_sweep(given, executor=executor or AtOnce(), workers=workers, quiet=quiet, report=False)


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
