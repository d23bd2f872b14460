"""Does a sweep use all cores, and what does it cost that nothing is lost?"""

import statistics
import subprocess
import sys
import time

from harness import MNIST, ROUNDS, record

from fastprune.sweep import Sweep, run_sweep
from fastprune.sweep.store import Cell, Store

# A cell takes some 15 seconds on one thread.
CELL = {
    "dataset": "mnist",
    "data_dir": str(MNIST),
    "epochs": 8,
    "retrain_epochs": 4,
    "rounds": 8,
    "q": 30,
    "threads": 1,
}


def outcome(folder):
    paths = [folder / "results.csv", *sorted((folder / "networks").iterdir())]
    return [path.read_bytes() for path in paths]


def test_two_workers(benchmark, tmp_path):
    """Eight cells of eight seeds, by one process and by two, of one thread each: whole commands, start-up included."""
    flags = [text for key, value in CELL.items() for text in (f"--{key.replace('_', '-')}", str(value))]

    def seconds(jobs, name):
        line = ["-m", "fastprune.sweep", *flags, "--seeds", "0:7:8", "--jobs", str(jobs), "--out", tmp_path / name]
        started = time.perf_counter()
        subprocess.run([sys.executable, *map(str, line)], check=True, capture_output=True)
        return time.perf_counter() - started

    pairs = [[seconds(jobs, f"{turn}-{jobs}") for jobs in (2, 1)] for turn in range(max(1, ROUNDS // 3))]
    assert outcome(tmp_path / "0-1") == outcome(tmp_path / "0-2")
    two, one = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(alone / together for together, alone in pairs)
    benchmark.pedantic(lambda: None, rounds=1)
    record(benchmark, "sweep", "eight cells, two processes", two, {"one process": (one, ratio)}, a_cell=one / 8)
    assert one / 8 > 10
    assert ratio >= 1.8


def test_store(benchmark, tmp_path, monkeypatch):
    """The part of a cell's time in which rounds are written down: what a sweep that cannot go on would save."""
    spent, add = [], Store.add

    def timed(*arguments):
        started = time.perf_counter()
        add(*arguments)
        spent.append(time.perf_counter() - started)

    monkeypatch.setattr(Store, "add", timed)
    sweep = Sweep.of(CELL | {"seeds": 0, "jobs": 1, "out": str(tmp_path / "out")})
    started = time.perf_counter()
    benchmark.pedantic(run_sweep, args=(sweep,), kwargs={"quiet": True}, rounds=1)
    seconds = time.perf_counter() - started
    share = sum(spent) / seconds
    record(benchmark, "sweep", "one cell", seconds, {}, **{"share of time in which rounds are written": share})
    assert len(spent) == CELL["rounds"] + 1
    assert share < 0.01


def test_load(benchmark, tmp_path):
    """Ten thousand finished cells of 22 rounds each."""
    grid = {"epochs": 1, "retrain_epochs": 1, "out": str(tmp_path / "out")}
    results, _ = run_sweep(Sweep.of(grid | {"seeds": 0}), quiet=True)
    cells = Sweep.of(grid | {"seeds": "0:9999:10000"}).cells
    store = Store(tmp_path / "out")
    records = results.cells[0].records
    for cell in cells:
        path = tmp_path / "out" / "store" / "cells" / f"{cell.digest}.jsonl"
        path.write_text(Cell(cell, results.cells[0].key).with_(*records).to_text())

    def load():
        done = store.load(cells)
        assert len(done) == 10_000
        assert all(progress.finished for progress in done.values())

    benchmark.pedantic(load, rounds=ROUNDS)
    seconds = statistics.median(benchmark.stats.stats.data)
    record(benchmark, "sweep", "loading 10,000 finished cells", seconds, {})
    assert seconds < 5
