"""That nothing is lost: killed, stopped or out of room, a sweep goes on, and ends as if nothing had been."""

import contextlib
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import psutil
import pytest
from sweeps import SMALL, AtOnce, command, outcome, read, run_here, sweep, workers

import fastprune as fp
from fastprune.sweep.cell import Record
from fastprune.sweep.command import main
from fastprune.sweep.config import Settings, Sweep
from fastprune.sweep.store import Cell, Store

# Two cells of one dense network, two of another; the last rounds do not hold up, so that an earlier network is kept.
GRID = [*SMALL, "--rule", "percentile,std", "--rounds", "5", "--q", "60", "--jobs", "2"]
DEFAULTS = ["--hidden", "10", "--epochs", "2", "--seeds", "0"]  # all that is of pruning is as without flags


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the grid comes to if nothing happens."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    run_here(*GRID, "--out", folder)
    return folder


class Stopping(AtOnce):
    """Takes no more tasks from a round on: the sweep stops there, and keeps what it has."""

    def __init__(self, number):
        self.number = number

    def submit(self, fn, task):
        if task.round == self.number:
            raise RuntimeError("stopped")
        return super().submit(fn, task)


def stop_before(number, *arguments):
    with pytest.raises(OSError, match="stopped"):
        run_here(*arguments, executor=Stopping(number), quiet=False)


def test_the_grid_is_one_worth_stopping(whole):
    rows = read(whole / "results.csv")
    assert len(rows) == 4 * 6
    for path in (whole / "networks").iterdir():
        last = [row for row in rows if row["cell"] == path.stem][-1]
        assert fp.load(path).live_weights >= int(last["live"])
    lives = {path.stem: fp.load(path).live_weights for path in (whole / "networks").iterdir()}
    assert any(lives[row["cell"]] > int(row["live"]) for row in rows if row["round"] == "5")


def in_a_child(begin, *arguments):
    """The process of a sweep that forks from this one, where all is imported and compiled: twenty take no time."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    signal.alarm(120)  # should it wait for something that was not forked with it, it ends, and the test fails
    try:
        begin()
        run_here(*arguments)
        code = 0
    finally:
        os._exit(code)


FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked there")


def assert_it_ends_the_same(whole, folder):
    run_here(*GRID, "--out", folder)
    assert outcome(folder) == outcome(whole)
    assert not list((folder / "store" / "rounds").iterdir())
    assert not [path for path in folder.rglob("*") if path.name.endswith(".part")]


@pytest.mark.long
@FORKS
def test_killed_twenty_times_at_random_it_ends_the_same(whole, tmp_path):
    """Each time, what is on disk is whole."""
    chance, folder = random.Random(5), tmp_path / "out"
    kills, longest = 0, 0.4
    while kills < 20:
        pid = in_a_child(lambda: None, *GRID, "--out", folder)
        time.sleep(chance.uniform(0.01, longest))
        os.kill(pid, signal.SIGKILL)  # a process that has ended can be sent one, too
        if os.waitpid(pid, 0)[1]:
            kills += 1
            continue
        assert outcome(folder) == outcome(whole)
        shutil.rmtree(folder)
        longest *= 0.7
    assert_it_ends_the_same(whole, folder)


@FORKS
def test_killed_in_each_of_its_writes_it_ends_the_same(whole, tmp_path):
    """Not at random: the process kills itself before, in the middle of, and after each of the writes in turn."""
    folder, kills = tmp_path / "out", 0
    while True:
        at = 6 + kills  # further each time: before a file is synced, or after it got its name

        def begin(at=at, sync=os.fsync):
            calls = itertools.count(1)

            def sync_or_die(handle):
                if next(calls) == at:
                    with contextlib.suppress(OSError):  # it is a folder's
                        os.ftruncate(handle, os.fstat(handle).st_size // 2)  # the disk has not seen the rest
                    os.kill(os.getpid(), signal.SIGKILL)
                sync(handle)

            os.fsync = sync_or_die

        pid = in_a_child(begin, *GRID, "--out", folder)
        status = os.waitpid(pid, 0)[1]
        if status == 0:
            break
        assert status == signal.SIGKILL
        kills += 1
    assert 5 <= kills < 40
    assert_it_ends_the_same(whole, folder)


@pytest.mark.long
def test_killed_with_its_workers_twenty_times_at_random_it_ends_the_same(whole, tmp_path):
    """SIGKILL to the command, which takes its workers along. Each time, what is on disk is whole."""
    chance = random.Random(5)
    folder = tmp_path / "out"
    kills, hurry = 0, 1.0
    while kills < 20:
        process = subprocess.Popen([*command(*GRID), "--out", str(folder), "--quiet"], cwd=tmp_path)
        try:
            process.wait(chance.uniform(0.4, 2.0 + hurry))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        else:
            assert process.returncode == 0
            assert outcome(folder) == outcome(whole)
            shutil.rmtree(folder)
            hurry *= 0.7
    result = sweep(*GRID, "--out", folder, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert outcome(folder) == outcome(whole)
    assert not list((folder / "store" / "rounds").iterdir())
    assert not [path for path in folder.rglob("*") if path.name.endswith(".part")]


@pytest.mark.long
def test_killed_with_its_workers_in_each_of_its_writes_it_ends_the_same(whole, tmp_path):
    code = """
import os, sys
import fastprune.files as files
from fastprune.sweep.command import main
sync, at, count = os.fsync, int(sys.argv[1]), 0
def kill(handle):
    global count
    count += 1
    if count == at:
        os.kill(os.getpid(), 9)
    sync(handle)
if __name__ == "__main__":
    os.fsync = kill
    sys.exit(main(sys.argv[2:]))
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    folder = tmp_path / "out"
    line = [sys.executable, str(script), "{}", *GRID, "--out", str(folder), "--quiet"]
    kills = 0
    while True:
        at = 6 + 3 * kills  # further each time: before a file is synced, or after it got its name
        line[2] = str(at)
        code = subprocess.run(line, cwd=tmp_path, check=False).returncode
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert 5 <= kills < 40
    result = sweep(*GRID, "--out", folder, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert outcome(folder) == outcome(whole)


def test_what_is_finished_is_not_done_again(whole, tmp_path, capsys):
    folder = tmp_path / "out"
    shutil.copytree(whole, folder)
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "networks").iterdir()}
    run_here(*GRID, "--out", folder, quiet=False)
    out = capsys.readouterr().out
    assert "4 cells (4 done before)" in out
    assert " s  100 %" not in out
    assert stamps == {path: path.stat().st_mtime_ns for path in (folder / "networks").iterdir()}
    assert outcome(folder) == outcome(whole)


def test_a_larger_grid_takes_over_what_a_smaller_one_has_done(whole, tmp_path, capsys):
    folder = tmp_path / "out"
    shutil.copytree(whole, folder)
    run_here(*GRID, "--seeds", "0,1,2", "--out", folder, quiet=False)
    out = capsys.readouterr().out
    assert "6 cells (4 done before)" in out
    assert re.search(r"%  rule=\w+ seed=2 ", out)
    assert not re.search(r"%  rule=\w+ seed=[01] ", out)
    assert {row["seed"] for row in read(folder / "results.csv")} == {"0", "1", "2"}


@pytest.mark.long
def test_a_cell_whose_pruning_is_all_defaults_is_not_taken_for_its_dense_network(tmp_path):
    """Alone, in a larger grid of the same folder, and with only the dense network done."""
    grid = [*DEFAULTS, "--q", "30,20", "--jobs", "1"]
    run_here(*grid, "--out", tmp_path / "whole")
    rows = read(tmp_path / "whole" / "results.csv")
    assert len({(row["cell"], row["q"]) for row in rows}) == 2
    run_here(*DEFAULTS, "--out", tmp_path / "grown")
    run_here(*grid, "--out", tmp_path / "grown")
    assert outcome(tmp_path / "grown") == outcome(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole" / "store" / "dense", tmp_path / "begun" / "store" / "dense")
    run_here(*grid, "--out", tmp_path / "begun")
    assert outcome(tmp_path / "begun") == outcome(tmp_path / "whole")


def test_a_smaller_grid_says_what_it_leaves_out(whole, tmp_path, capsys):
    folder = tmp_path / "out"
    shutil.copytree(whole, folder)
    (folder / "best-mine.npz").write_bytes(b"mine")
    run_here(*GRID, "--seeds", "1", "--out", folder, quiet=False)
    left_out = "has 2 more finished cells; this grid and its results leave them out"
    assert left_out in capsys.readouterr().out
    assert {row["seed"] for row in read(folder / "results.csv")} == {"1"}
    assert (folder / "best-mine.npz").read_bytes() == b"mine"
    run_here(*GRID, "--out", folder)
    assert outcome(folder) == outcome(whole)


@pytest.fixture
def hasty():
    """Let threads take turns so often that one sees what another has only half done."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.long
@pytest.mark.usefixtures("hasty")
def test_it_can_be_looked_at_while_it_runs(tmp_path):
    """Files come and go under the reader's hands."""
    cells = Sweep.of({"hidden": "20-10", "epochs": 8, "retrain_epochs": 4, "rounds": 40, "q": 5}).cells
    line = [*SMALL, "--rounds", "40", "--q", "5", "--seeds", "0,1", "--out", tmp_path / "out"]
    with ThreadPoolExecutor(1) as pool:
        running, seen = pool.submit(run_here, *line), set()
        while not running.done():
            seen.add(sum(progress.count for progress in Store(tmp_path / "out").load(cells).values()))
    assert not running.result()[1]
    assert len(seen) > 20


@pytest.mark.long
def test_it_can_be_looked_at_while_a_command_runs(tmp_path):
    cells = Sweep.of({"hidden": "20-10", "epochs": 8, "retrain_epochs": 4, "rounds": 40, "q": 5}).cells
    line = [*SMALL, "--rounds", "40", "--q", "5", "--seeds", "0:4:5", "--quiet", "--out", tmp_path / "out"]
    with subprocess.Popen(command(*line), cwd=tmp_path) as process:
        seen = set()
        while process.poll() is None:
            seen.add(sum(progress.count for progress in Store(tmp_path / "out").load(cells).values()))
    assert process.returncode == 0
    assert len(seen) > 20


def test_what_a_killed_command_left_behind_is_cleared_away(whole, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(whole, folder)
    (folder / "plots").mkdir()  # of a report
    cell = next((folder / "store" / "cells").iterdir()).stem
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    assert len(folders) == 7
    left = [path / ".0123456789abcdef.part" for path in folders]
    left.append(folder / "store" / "rounds" / f"{cell}-4.npz")
    mine = folder / "plots" / ".mine.part"
    for path in (*left, mine):
        path.write_bytes(b"left")
    run_here(*GRID, "--out", folder)
    assert not [path for path in left if path.exists()]
    assert mine.exists()


@pytest.mark.parametrize("gone", ["networks/*", "store/dense/*"])
def test_cells_of_which_files_are_gone_are_begun_again(whole, tmp_path, capsys, gone):
    """To the same end, also if they are stopped on the way; other cells are left alone."""
    folder = tmp_path / "out"
    shutil.copytree(whole, folder)
    for path in sorted(folder.glob(gone))[: 1 if "dense" in gone else 2]:
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in (folder / "networks").iterdir()}
    cells = Sweep.of({"out": str(folder)} | tomllib.loads((folder / "sweep.toml").read_text())).cells
    stop_before(3, *GRID, "--out", folder)
    out = capsys.readouterr().out
    assert f"Files of 2 of the cells are missing in {folder}; these cells run again.\n" in out
    assert "4 cells (2 done before)" in out
    assert sorted(progress.finished for progress in Store(folder).load(cells).values())[1:] == [False, True, True]
    run_here(*GRID, "--out", folder, quiet=False)
    assert "are missing" not in capsys.readouterr().out
    assert outcome(folder) == outcome(whole)
    if "networks" in gone:
        assert kept == {path: path.stat().st_mtime_ns for path in kept}


def test_a_cell_under_way_of_which_the_best_round_is_gone_is_begun_again(whole, tmp_path, capsys):
    folder = tmp_path / "out"
    stop_before(5, *GRID, "--out", folder)
    kept = sorted((folder / "store" / "rounds").iterdir())
    assert len(kept) == 2, "the last round, and the best one"
    kept[0].unlink()
    run_here(*GRID, "--out", folder, quiet=False)
    assert "Files of 1 of the cells are missing" in capsys.readouterr().out
    assert outcome(folder) == outcome(whole)


def test_a_lock_that_is_none_is_an_error_of_its_own(tmp_path, capsys):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "lock.db").write_text("no database, but a text that is long enough to be looked at" * 20)
    assert main([*SMALL, "--out", str(tmp_path)]) == 2
    assert "lock.db': the file cannot be locked: file is not a database" in capsys.readouterr().err


def test_a_setting_that_came_later_had_its_default_before(tmp_path):
    progress = Cell(Settings(q=3.0), "abc").with_(record(0, 0.9), record(1, 0.9))
    text = progress.to_text().replace('"min_keep": 0, ', "")
    assert Cell.from_text(text, progress.settings) == progress
    with pytest.raises(ValueError, match="min_keep = 0, not 1"):
        Cell.from_text(text, replace(progress.settings, min_keep=1))


@pytest.mark.parametrize(("workers", "threads"), [(1, 2), (3, 1)])
def test_the_number_of_workers_and_threads_makes_no_difference(whole, tmp_path, workers, threads):
    with ThreadPoolExecutor(workers) as executor:
        run_here(*GRID, "--threads", threads, "--out", tmp_path, executor=executor, workers=workers)
    assert outcome(tmp_path) == outcome(whole)


@pytest.mark.long
@pytest.mark.parametrize(("jobs", "threads"), [(1, 1), (1, 2), (3, 1)])
def test_the_number_of_processes_and_threads_makes_no_difference(whole, tmp_path, jobs, threads):
    folder = tmp_path / "out"
    arguments = [*GRID, "--jobs", jobs, "--threads", threads, "--out", folder, "--quiet"]
    assert sweep(*arguments, cwd=tmp_path).returncode == 0
    assert outcome(folder) == outcome(whole)


def test_a_second_command_on_a_folder_refuses_and_says_who_holds_it(tmp_path, capfd):
    long = [*SMALL, "--epochs", "100000", "--jobs", "1", "--out", str(tmp_path / "out")]
    with subprocess.Popen(command(*long), cwd=tmp_path, stdout=subprocess.PIPE) as first:
        try:
            while not (tmp_path / "out" / "store" / "holder.json").exists():
                time.sleep(0.05)
            assert main(long) == 2
            second = capfd.readouterr()
            assert main(["report", str(tmp_path / "out")]) == 2
            third = capfd.readouterr()
        finally:
            first.send_signal(signal.SIGINT)
    assert second.out == ""
    message = (
        rf"out: expected a folder that no other command works on, got '.*out', which is held by process {first.pid}"
    )
    assert re.fullmatch(rf"fastprune.sweep: {message} on \S+, since [-\d]+ [:\d]+\n", second.err)
    assert "report: expected a sweep with a finished round" in third.err  # reading is no conflict
    results, _ = run_here(*SMALL, "--out", tmp_path / "out")  # and the lock went with its holder
    assert all(cell.finished for cell in results.cells)


@pytest.mark.long
def test_a_file_too_large_is_one_error_and_loses_nothing(whole, tmp_path):
    """A limit on file sizes makes real writes fail, as a quota does."""
    resource = pytest.importorskip("resource")
    folder = tmp_path / "out"

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))

    line = [*command(*GRID), "--jobs", "1", "--out", str(folder), "--quiet"]
    result = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert result.returncode == 2
    assert re.fullmatch(
        r"fastprune.sweep: \[Errno 27\] File too large: '.*\.npz'; finished rounds are kept: repeat the command to "
        r"resume\n",
        result.stderr,
    )
    run_here(*GRID, "--out", folder)
    assert outcome(folder) == outcome(whole)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB, where the tests may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if mount is None or subprocess.run([mount, *options], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_error_and_loses_nothing(small_disk, tmp_path, capfd):
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 200_000)
    arguments = [*GRID, "--jobs", "1", "--hidden", "100", "--out", str(small_disk / "out")]
    assert main(arguments) == 2
    error = capfd.readouterr().err
    assert re.fullmatch(r"fastprune.sweep: \[Errno 28\] No space left on device: '.*'; finished .*\n", error)

    done = Store(small_disk / "out").load(Sweep.of({"hidden": "100"}).cells)  # whatever is there can be read
    assert len(done) <= 4
    ballast.unlink()
    shutil.copytree(small_disk / "out", tmp_path / "out", ignore=shutil.ignore_patterns("lock.db"))
    arguments[-1] = tmp_path / "out"
    run_here(*arguments)
    run_here(*arguments[:-1], tmp_path / "other")
    assert outcome(tmp_path / "out") == outcome(tmp_path / "other")


def test_a_folder_that_cannot_be_written_to_is_one_error(whole, small_disk, capfd):
    shutil.copytree(whole / "store", small_disk / "out" / "store")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert main([*GRID, "--out", str(small_disk / "out")]) == 2
    error = capfd.readouterr().err
    assert re.fullmatch(r"fastprune.sweep: \[Errno 30\] Read-only file system: '.*'\n", error)


def test_other_data_under_the_same_name_are_refused(tmp_path, capsys):
    rng = np.random.default_rng(0)
    before = {}
    for number in range(2):
        np.savetxt(tmp_path / "own.csv", np.c_[rng.normal(size=(60, 3)), np.arange(60) % 3], delimiter=",")
        line = [*SMALL, "--dataset", str(tmp_path / "own.csv"), "--out", str(tmp_path / "out")]
        if number:
            assert main(line) == 2
        else:
            run_here(*line)
        files = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.*")}
        assert number == 0 or files == before
        before = files
    assert "own.csv' as '" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("store/cells/*.jsonl", b""),
        ("store/cells/*.jsonl", b"{}"),
        ("store/cells/*.jsonl", b"[1]"),
        ("store/cells/*.jsonl", b"[" * 100_000),
        ("store/cells/*.jsonl", "cut"),
        ("store/dense/*.npz", b"PK"),
    ],
)
def test_a_damaged_file_is_named(whole, tmp_path, name, content, capsys):
    folder = tmp_path / "out"
    shutil.copytree(whole, folder)
    if "dense" in name:
        shutil.rmtree(folder / "store" / "cells")
    path = sorted(folder.glob(name))[0]
    path.write_bytes(path.read_bytes()[:-9] if content == "cut" else content)
    assert main([*GRID, "--out", str(folder)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert "if you delete it, its rounds run again" in error
    path.unlink()
    run_here(*GRID, "--out", folder)
    assert outcome(folder) == outcome(whole)


def test_a_cell_of_other_defaults_is_not_taken_for_this_one(whole, tmp_path, capfd):
    """A digest leaves defaults out: should they change one day, what was made with the old ones is told apart."""
    folder = tmp_path / "out"
    shutil.copytree(whole, folder)
    path = sorted((folder / "store" / "cells").iterdir())[0]
    head, _, lines = path.read_text().partition("\n")
    path.write_text(head.replace('"momentum": 0.9', '"momentum": 0.5') + "\n" + lines)
    assert main([*GRID, "--out", str(folder)]) == 2
    assert "the record of a cell with momentum = 0.5, not 0.9" in capfd.readouterr().err


def record(number, accuracy, failed=False):
    values = dict.fromkeys(Record._fields, 0) | {"coded_bytes": None}
    values |= {"round": number, "after_validation_accuracy": None if failed else accuracy, "failed": failed}
    return Record(**values)


def test_the_best_round_is_the_last_that_holds_up():
    cell = Settings(rounds=4, max_drop=0.01)
    progress = Cell(cell, "").with_(record(0, 0.90), record(1, 0.88), record(2, 0.895), record(3, 0.85))
    assert (progress.best, progress.finished) == (2, False)
    assert progress.with_(record(4, 0.89)).best == 4  # 0.89 is 0.01 less than 0.90
    assert progress.with_(record(4, 0.95, failed=True)).best == 2
    assert progress.with_(record(4, 0.95, failed=True)).finished
    assert replace(progress, settings=replace(cell, max_drop=0.05)).best == 3
    assert replace(progress, settings=replace(cell, rounds=3)).finished


def test_progress_as_text_is_the_same_progress():
    cell = Settings(hidden=(3, 2), seed=4)
    progress = Cell(cell, "abc").with_(record(0, 0.9)._replace(layer_sparsity=[0.1, 0.2], events=["failed"]))
    assert Cell.from_text(progress.to_text(), cell) == progress
    assert progress.records == [progress.last]
    assert progress.last.layer_sparsity == [0.1, 0.2]
    other = replace(cell, q=3.0)  # shares the dense network
    assert Cell.from_text(progress.to_text(), other) == replace(progress, settings=other)
    with pytest.raises(ValueError, match=r"the record of a cell with hidden = \[3, 2\], not \[3\]"):
        Cell.from_text(progress.to_text(), replace(cell, hidden=(3,)))


@pytest.mark.long
def test_no_process_outlives_a_killed_command(tmp_path):
    script = "import sys; from fastprune.sweep.command import main\nif __name__ == '__main__': main(sys.argv[1:])"
    (tmp_path / "script.py").write_text(script)
    arguments = [*SMALL, "--epochs", "100000", "--jobs", "2", "--quiet", "--out", str(tmp_path / "out")]
    process = subprocess.Popen([sys.executable, str(tmp_path / "script.py"), *arguments], cwd=tmp_path)

    while len(working := workers(process.pid)) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(1.5)  # they are at work
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(working, timeout=10)
    assert not alive
    assert not list((tmp_path / "out" / "store" / "cells").iterdir())
