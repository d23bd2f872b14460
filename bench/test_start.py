"""How long until work begins: the import, the command with nothing to do, the first run that compiles?"""

import os
import statistics
import subprocess
import sys
import time

from harness import ROUNDS, record

NOTHING = ["--rounds", "1", "--epochs", "0", "--retrain-epochs", "0", "--seeds", "0"]


def seconds(*command, cache):
    # With bytecode, which pip writes for what it installs; some environments tell Python not to.
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONDONTWRITEBYTECODE": ""}
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], env=environment, check=True, capture_output=True)
    return time.perf_counter() - started


def test_import(benchmark, tmp_path):
    """All public names: `import fastprune` alone imports nothing. And a first prediction, which imports Numba."""
    names = "from fastprune import *"
    lines = (names, "import numpy, numba", f"{names}; MLP([2, 1], loss='mean_squared_error').predict([[0, 0]])")
    seconds("-c", lines[-1], cache=tmp_path)  # writes bytecode and machine code
    rounds = [[seconds("-c", line, cache=tmp_path) for line in lines] for _ in range(ROUNDS)]
    benchmark.pedantic(seconds, args=("-c", names), kwargs={"cache": tmp_path}, rounds=1)
    more = statistics.median(ours - theirs for ours, theirs, _ in rounds)
    ours, theirs, first = (statistics.median(times) for times in zip(*rounds, strict=True))
    peers = {"import numpy, numba": (theirs, theirs / ours)}
    record(benchmark, "start", "import of all names", ours, peers, more=more, first=first)
    assert more < 0.08


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
