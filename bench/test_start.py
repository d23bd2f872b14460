"""How long until work begins: the import, the command with nothing to do, the first run that compiles?"""

import os
import statistics
import subprocess
import sys
import time

from harness import ROUNDS, record

NOTHING = ["--rounds", "1", "--epochs", "0", "--retrain-epochs", "0", "--seeds", "0"]


def seconds(*command, cache):
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, *command], env=os.environ | {"NUMBA_CACHE_DIR": str(cache)}, check=True, capture_output=True
    )
    return time.perf_counter() - started


def test_import(benchmark, tmp_path):
    pairs = [
        [seconds("-c", f"import {names}", cache=tmp_path) for names in ("fastprune", "numpy, numba")]
        for _ in range(ROUNDS)
    ]
    benchmark.pedantic(seconds, args=("-c", "import fastprune"), kwargs={"cache": tmp_path}, rounds=1)
    more = statistics.median(ours - theirs for ours, theirs in pairs)
    ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    record(benchmark, "start", "import", ours, {"import numpy, numba": (theirs, theirs / ours)}, more=more)
    assert more < 0.2


def test_command(benchmark, tmp_path):
    """Both are the whole command: its default job from an empty compile cache, and next to nothing from a full one."""
    cache = tmp_path / "cache"

    def command(name, *more):  # a folder for each: what is done in one is not done again
        return ["-m", "fastprune.sweep", *more, "--out", str(tmp_path / name)]

    cold = benchmark.pedantic(seconds, args=command("cold"), kwargs={"cache": cache}, rounds=1)
    again = seconds(*command("again"), cache=cache)
    warm = statistics.median(seconds(*command(f"warm {i}", *NOTHING), cache=cache) for i in range(ROUNDS))
    record(
        benchmark,
        "start",
        "the command's main job, first run",
        cold,
        {"the second run": (again, again / cold)},
        warm_start=warm,
    )
