"""Is a change faster? The working tree against another commit, timed in turn.

    python bench/compare.py HEAD~1                  # some two minutes, a part of them to compile
    python bench/compare.py HEAD~1 1024-1024-10     # the cases whose names have this

Each side is a process with its own package and its own cache of compiled code. Both set up the same cases, and take
turns (A B, B A, ...), so that whatever else the machine does meets both. Ratios are of neighbours in time.

Steps are those of each side's own bench/harness.py, which knows what is private there: `fit` evaluates as well, up to
half of the time. All else is public. A case that the other commit cannot run says why, and the rest goes on.
"""

import argparse
import functools
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SERVE = "--serve"
A_CALL, A_CASE, FEWEST = 0.1, 4.0, 6  # seconds of a call, and of a case; pairs
LENET, WIDE, FEATURES, IMAGES = "784-300-100-10", "784-1024-1024-10", "4096-4096-1000", "10800-5-4-3-2-1"

# What is timed, network, density, and threads or samples.
CASES = {
    f"{what}, {network}, density {density:g}, {count} {'sample' if what == 'inference' else 'thread'}"
    f"{'s' if count > 1 else ''}": (what, network, density, count)
    for what, network, densities, count in [
        ("step", LENET, [1, 0.5, 0.1, 0.02], 1),
        ("step", WIDE, [1, 0.5, 0.2, 0.1, 0.02], 1),
        ("step", FEATURES, [0.1], 1),
        ("full batch", IMAGES, [1, 0.14], 1),
        ("inference", LENET, [0.08], 1),
        ("inference", LENET, [0.08], 1024),
        ("step", WIDE, [0.1], 2),
        ("step", LENET, [0.05], 2),
    ]
    for density in densities
}


@functools.cache
def data_of(network):
    import fastprune as fp

    if network == IMAGES:
        data = fp.make_binary_images(seed=0)
        return data.x_train[:181].astype(np.float32), data.y_train[:181]
    if network == FEATURES:
        rng = np.random.default_rng(0)
        return rng.random((512, 4096), np.float32), rng.integers(1000, size=512)
    data = fp.load_dataset("mnist", data_dir=HERE / "mnist")
    return data.x_train[:1024], data.y_train[:1024]


def set_up(what, network, density, count):
    """A call for the case's work, how many steps or predictions it is, and a call for what came out."""
    import fastprune as fp

    x, y = data_of(network)
    made = fp.MLP([int(size) for size in network.split("-")])
    trainer = fp.Trainer(made, learning_rate=0.01, batch_size=None if what == "full batch" else 128)
    if density < 1:
        fp.Pruner(trainer, schedule=[1 - density], scope="global").step()
    if what == "inference":
        frozen = made.freeze()
        batches = [x[low : low + count] for low in range(0, len(x), count)]

        def predict():
            for batch in batches:
                frozen.logits(batch)

        return predict, len(batches), lambda: [frozen.logits(x)]
    from harness import stepper

    made.loss = "sigmoid_cross_entropy" if network == IMAGES else "softmax_cross_entropy"
    call = stepper(trainer, x, y, threads=count)
    return call, call.steps, lambda: [*made.weights, *made.biases]


def serve():
    """One side: reads commands, answers each with a line."""
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        try:
            if command == "set up":
                call, steps, outcome = set_up(*arguments)
                call()
                answer = steps
            elif command == "time":
                started = time.perf_counter()
                for _ in range(*arguments):
                    call()
                answer = time.perf_counter() - started
            else:
                answer = hashlib.sha256(b"".join(array.tobytes() for array in outcome())).hexdigest()
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


class Side:
    """A process that runs a package."""

    def __init__(self, package, cache):
        environment = os.environ | {
            "PYTHONPATH": f"{package}{os.pathsep}{package / 'bench'}",
            "NUMBA_CACHE_DIR": str(cache),
        }
        # -P: or the working tree's harness would come first on both sides.
        line = [sys.executable, "-P", "-W", "ignore", __file__, SERVE]
        self.process = subprocess.Popen(line, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, *command):
        print(json.dumps(command), file=self.process.stdin, flush=True)

    def answer(self):
        if not (line := self.process.stdout.readline()):
            raise SystemExit("A side has ended; its error stands above.")
        return json.loads(line)

    def ask(self, *command):
        self.send(*command)
        return checked(self.answer())


def checked(answer):
    if isinstance(answer, dict):
        raise RuntimeError(answer["error"])
    return answer


def compare(other, ours, case):
    """The row of a case."""
    for side in (other, ours):
        side.send("set up", *case)  # both at once: the first time, they compile
    answers = [side.answer() for side in (other, ours)]  # of both, before one is an error
    steps, _ = map(checked, answers)
    once = [side.ask("time", 1) for side in (other, ours)]
    times = math.ceil(A_CALL / max(once))  # the same on both sides, or results would differ
    pairs = max(FEWEST, min(40, round(A_CASE / times / sum(once))))
    seconds = np.empty((pairs, 2))
    for pair in range(pairs):
        for side in (0, 1) if pair % 2 == 0 else (1, 0):
            seconds[pair, side] = (other, ours)[side].ask("time", times) / times / steps
    low, middle, high = np.quantile(seconds[:, 0] / seconds[:, 1], [0.25, 0.5, 0.75])
    before, now = np.median(seconds, axis=0) * 1e6
    same = "same" if other.ask("digest") == ours.ask("digest") else "DIFFER"
    return f"{before:12,.1f} {now:12,.1f} {middle:8.3f} {low:8.3f} {high:8.3f}  {same}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="what the working tree is compared with")
    parser.add_argument("part", nargs="?", default="", help="part of the names of the cases to time; default: all")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # Unlike a worktree, an archive leaves nothing behind in the repository, however this ends.
        package = Path(folder, "other")
        package.mkdir()
        archive = subprocess.run(
            ["git", "archive", arguments.commit, "fastprune", "bench/harness.py"],
            cwd=HERE.parent,
            check=True,
            capture_output=True,
        )
        subprocess.run(["tar", "-x", "-C", package], input=archive.stdout, check=True)
        sides = Side(package, Path(folder, "cache")), Side(HERE.parent, Path(folder, "own cache"))
        print(
            f"Microseconds of a step or prediction; ratio {arguments.commit} : working tree, above 1 is faster now.\n"
        )
        print(f"{'':52} {'then':>12} {'now':>12} {'ratio':>8} {'quartiles':>17}  bits")
        for name, case in CASES.items():
            if arguments.part in name:
                try:
                    row = compare(*sides, case)
                except RuntimeError as error:
                    row = str(error)
                print(f"{name:52} {row}", flush=True)
        for side in sides:
            side.process.communicate()


if __name__ == "__main__":
    serve() if sys.argv[1:] == [SERVE] else main()
