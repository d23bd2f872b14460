"""Who runs rounds: processes that die, a Dask cluster whose workers die, and an executor that a script brings."""

import contextlib
import multiprocessing
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import CancelledError, Executor, Future
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
from sweeps import SMALL, AtOnce, command, outcome, run_here, workers
from tasks import die, double

from fastprune.sweep import Sweep, engine, run_sweep
from fastprune.sweep.command import main
from fastprune.sweep.config import parse
from fastprune.sweep.display import Display
from fastprune.sweep.executors import Processes

GRID = [*SMALL, "--rule", "percentile,std", "--seeds", "0,1,2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "out"
    run_here(*GRID, "--out", folder)
    return folder


@contextlib.contextmanager
def processes(count):
    executor = Processes(count)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def test_a_process_that_dies_takes_only_its_own_task_along():
    with processes(2) as executor:
        slow = executor.submit(time.sleep, 1.0)
        lost = executor.submit(die)
        with pytest.raises(BrokenProcessPool):
            lost.result()
        again = [executor.submit(double, number) for number in range(5)]  # by the other one's successor, meanwhile
        assert [future.result() for future in again] == [0, 2, 4, 6, 8]
        assert slow.result() is None


def test_a_process_that_dies_idle_is_replaced_too():
    with processes(1) as executor:
        pid = executor.submit(os.getpid).result()
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.5)
        with contextlib.suppress(BrokenProcessPool):
            executor.submit(double, 1).result()
        assert executor.submit(double, 4).result() == 8


def test_processes_end_at_once_when_told_to():
    executor = Processes(2)
    pids = [executor.submit(os.getpid).result() for _ in range(2)]
    future = executor.submit(time.sleep, 60)
    began = time.monotonic()
    executor.shutdown(cancel_futures=True)
    with pytest.raises((BrokenProcessPool, CancelledError)):
        future.result()
    assert time.monotonic() - began < 20
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.long
def test_processes_of_others_are_left_alone():
    with processes(1) as executor:
        assert executor.submit(double, 1).result() == 2
        other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(2,))
        other.start()
    other.join()
    assert other.exitcode == 0


def test_workers_do_not_mind_ctrl_c():
    with processes(1) as executor:
        assert executor.submit(double, 1).result() == 2
        future = executor.submit(time.sleep, 1.0)
        time.sleep(0.3)
        (child,) = workers(os.getpid())
        child.send_signal(signal.SIGINT)
        assert future.result() is None
        assert executor.submit(os.getpid).result() == child.pid


class Unlucky(Executor):
    """Runs tasks at once; those of some cells fail, some number of times."""

    def __init__(self, failures):
        self.failures, self.calls = failures, []

    def submit(self, fn, task):
        future = Future()
        name = task.settings.seed, task.round
        if task.data is not None or name not in self.calls:
            self.calls.append(name)
        if self.failures.get(name, 0) > 0:
            self.failures[name] -= 1
            future.set_exception(RuntimeError("out of luck"))
        else:
            try:
                future.set_result(fn(task))
            except Exception as error:
                future.set_exception(error)
        return future


def small(folder, **more):
    grid = {"hidden": "20-10", "seeds": "0,1,2", "epochs": 8, "retrain_epochs": 4, "rounds": 3, "q": 40}
    return Sweep.of({**grid, "out": str(folder), **more})


def test_only_the_workers_import_numba(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; from fastprune.sweep.command import main\n"
        "if __name__ == '__main__':\n"
        f"    assert main({[*SMALL, '--quiet', '--jobs', '1', '--out', str(tmp_path / 'out')]}) == 0\n"
        "    assert 'numba' not in sys.modules\n"
    )
    subprocess.run([sys.executable, script], check=True)
    assert (tmp_path / "out" / "report.html").exists()


def test_a_round_is_retried_so_often_and_then_given_up(tmp_path):
    sweep = small(tmp_path)
    failures = {(0, 2): engine.RETRIES, (1, 1): engine.RETRIES + 1, (2, 0): 99}
    results, failed = run_sweep(sweep, executor=Unlucky(failures), workers=1, quiet=True, report=False)
    assert [(failure.cells[0].seed, failure.round, failure.message) for failure in failed] == [
        (1, 1, "RuntimeError: out of luck"),
        (2, 0, "RuntimeError: out of luck"),
    ]
    assert [(cell.settings.seed, len(cell.records)) for cell in results.cells] == [(0, 4), (1, 1)]
    assert failures == {(0, 2): 0, (1, 1): 0, (2, 0): 99 - engine.RETRIES - 1}
    results, failed = run_sweep(sweep, executor=Unlucky({}), workers=1, quiet=True, report=False)  # luckier
    assert not failed
    assert [len(cell.records) for cell in results.cells] == [4, 4, 4]


def test_a_divergence_is_not_retried(tmp_path):
    executor = Unlucky({})
    sweep = small(tmp_path, learning_rate=1e30, seeds=0)
    _, failed = run_sweep(sweep, executor=executor, workers=1, quiet=True)
    assert executor.calls in ([(0, 0)], [(0, 0)] * 2)  # once more, if it was asked for the data
    assert failed[0].message.startswith("the loss became")


def test_the_rounds_of_a_cell_come_before_the_next_cell(tmp_path):
    executor = Unlucky({})
    run_sweep(small(tmp_path), executor=executor, workers=1, quiet=True, report=False)
    assert list(dict.fromkeys(executor.calls)) == [(seed, number) for seed in range(3) for number in range(4)]


def test_an_executor_that_breaks_is_one_error_and_loses_nothing(tmp_path, whole):
    class Breaking(Unlucky):
        def submit(self, fn, task):
            if len(self.calls) > 5:
                raise BrokenProcessPool("all are gone")
            return super().submit(fn, task)

    with pytest.raises(ConnectionError, match=r"executor: it accepts no more tasks \(BrokenProcessPool: all are gone"):
        run_sweep(small(tmp_path), executor=Breaking({}), workers=1, quiet=True)
    assert (tmp_path / "results.csv").read_text().count("\n") > 4
    sweep = small(tmp_path, rule="percentile,std")
    run_sweep(sweep, executor=Unlucky({}), workers=1, quiet=True, report=False)
    assert outcome(tmp_path) == outcome(whole)


@pytest.mark.parametrize("workers", [0, None])
def test_an_executor_comes_with_the_number_of_its_workers(tmp_path, workers):
    with pytest.raises(ValueError, match="workers: expected an integer of at least 1, got"):
        run_sweep(small(tmp_path), executor=Unlucky({}), workers=workers)
    with pytest.raises(ValueError, match=r"sweep: expected a Sweep, from Sweep\.of, got dict"):
        run_sweep({"q": 30})
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_an_executor_of_a_script(tmp_path, whole):
    """As the README has it, with the one at hand."""
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from fastprune.sweep import Sweep, run_sweep\n"
        "if __name__ == '__main__':\n"
        "    grid = {'hidden': '20-10', 'seeds': '0,1,2', 'epochs': 8, 'retrain_epochs': 4, 'rounds': 3, 'q': 40,\n"
        "            'rule': ['percentile', 'std'], 'out': 'out'}\n"
        "    with ProcessPoolExecutor(2, multiprocessing.get_context('spawn')) as executor:\n"
        "        results, failures = run_sweep(\n"
        "            Sweep.of(grid), executor=executor, workers=2, quiet=True, report=False\n"
        "        )\n"
        "    print(len(results.cells), len(failures))\n"
    )
    line = [sys.executable, "-W", "error", str(script)]
    result = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("6 0\n", "")
    assert outcome(tmp_path / "out") == outcome(whole)


@pytest.mark.long
def test_a_process_that_dies_is_replaced_and_the_results_are_the_same(tmp_path, whole):
    class Killing(Processes):
        killed = 0

        def submit(self, fn, task):
            future = super().submit(fn, task)
            if self.killed < 2 and task.round in (1, 2) and (found := workers(os.getpid())):
                found[self.killed % len(found)].kill()
                self.killed += 1
            return future

    executor = Killing(2)
    try:
        _, failures = run_here(*GRID, "--out", tmp_path, executor=executor, workers=2)
    finally:
        executor.shutdown(cancel_futures=True)
    assert (executor.killed, failures) == (2, [])
    assert outcome(tmp_path) == outcome(whole)


@pytest.mark.long
def test_a_worker_that_dies_is_replaced_and_the_results_are_the_same(tmp_path, whole):
    """Workers of a running command are killed, no more often than a round is tried again: one may be hit each time."""
    line = [*command(*GRID), "--jobs", "2", "--out", str(tmp_path / "out")]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        killed, seen = 0, ""
        for text in process.stdout:
            seen += text
            if killed < engine.RETRIES and re.search(r"seed=\d +[12] ", text) and (found := workers(process.pid)):
                found[killed % len(found)].kill()
                killed += 1
        errors = process.stderr.read()
    assert killed == engine.RETRIES
    assert (process.returncode, [text for text in errors.splitlines() if "resource_tracker" not in text]) == (0, [])
    assert outcome(tmp_path / "out") == outcome(whole)


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers of one thread each, as processes on this machine, in folders of their own."""
    pytest.importorskip("distributed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path / "cluster.log").open("w")
    running = []

    def start(*arguments, name):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        line = [sys.executable, "-m", *map(str, arguments)]
        running.append(subprocess.Popen(line, cwd=folder, stdout=log, stderr=log))
        return running[-1]

    address = f"tcp://127.0.0.1:{port}"
    scheduler = start(
        "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard", name="scheduler"
    )

    def worker(name, threads=1):
        arguments = ["--nthreads", threads, "--no-nanny", "--no-dashboard", "--host", "127.0.0.1", "--name", name]
        return start("distributed.cli.dask_worker", address, *arguments, name=name)

    worker.scheduler = scheduler
    yield address, worker
    for process in running:
        process.kill()
        process.wait()
    log.close()


@pytest.mark.parametrize("compiled", [True, False])
def test_processes_say_whether_the_kernels_are_compiled_and_one_compiles_them(monkeypatch, capsys, compiled):
    asked, made = [], []
    monkeypatch.setattr(engine, "is_compiled", lambda: asked.append(1) or compiled)
    monkeypatch.setattr(engine, "compile_kernels", lambda: made.append(1))
    team = engine.Workers(AtOnce(), lambda: 4, 1)
    engine.prepare(team, 3, Display(quiet=False), queue.SimpleQueue())
    assert len(asked) == 3, "one for each unfinished cell"
    assert len(made) == (not compiled)
    assert ("Compiling, once" in capsys.readouterr().out) == (not compiled)


def test_a_process_that_dies_while_it_is_asked_does_not_stop_the_others():
    with processes(2) as executor, pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "is_compiled", die)
        patch.setattr(engine, "compile_kernels", lambda: None)  # cannot be sent: fails, too
        engine.prepare(engine.Workers(executor, lambda: 2, 1), 2, Display(quiet=True), queue.SimpleQueue())
        assert executor.submit(double, 4).result() == 8


def test_ctrl_c_while_processes_are_asked():
    events = queue.SimpleQueue()
    events.put(None)  # what deferred_interrupts puts there
    with pytest.raises(KeyboardInterrupt):
        engine.prepare(engine.Workers(AtOnce(), lambda: 1, 1), 1, Display(quiet=True), events)


def test_a_finished_sweep_starts_no_process(tmp_path, monkeypatch):
    given = parse([*SMALL, "--seeds", "0", "--out", str(tmp_path / "out")]).sweep
    run_sweep(given, executor=AtOnce(), workers=1, quiet=True, report=False)
    monkeypatch.setattr(Processes, "submit", lambda *_: pytest.fail("a task was handed out"))
    assert run_sweep(given, quiet=True, report=False)[1] == []


@pytest.mark.long
def test_a_dask_cluster_gives_the_same_results(tmp_path, whole, cluster):
    address, worker = cluster
    worker("first")
    given = parse([*GRID, "--cluster", address, "--out", str(tmp_path / "out")]).sweep
    assert run_sweep(given, quiet=True, report=False)[1] == []
    assert outcome(tmp_path / "out") == outcome(whole)


@pytest.mark.long
def test_a_dask_cluster_gives_the_same_results_also_when_a_worker_is_killed(tmp_path, monkeypatch, cluster):
    """The data, 12 MB, are a file in a folder that the workers do not know: they come to them another way."""
    address, worker = cluster
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=30_000)
    x = (rng.normal(size=(3, 100))[y] / 4 + rng.normal(size=(y.size, 100))).astype(np.float32)
    np.savez(tmp_path / "own.npz", x=x, y=y)
    grid = [*GRID, "--dataset", "own.npz", "--epochs", "2", "--retrain-epochs", "1"]
    monkeypatch.chdir(tmp_path)
    run_here(*grid, "--out", "whole")
    victim, _ = worker("first"), worker("second")
    line = [*command(*grid), "--cluster", address, "--out", "out"]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        seen = ""
        for text in process.stdout:
            seen += text
            if re.search(r"seed=0 +2 ", text) and victim.poll() is None:
                victim.kill()
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    assert victim.wait(10) == -signal.SIGKILL
    assert "6 cells, " in seen
    assert outcome(tmp_path / "out") == outcome(tmp_path / "whole")


@pytest.mark.long
def test_a_scheduler_that_dies_is_one_error_and_loses_nothing(tmp_path, whole, cluster, capsys):
    address, worker = cluster
    worker("first")
    line = [*command(*GRID), "--cluster", address, "--out", "out"]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for text in process.stdout:
            if re.search(r"seed=1 +2 ", text):
                worker.scheduler.kill()
                break
        process.stdout.read()
        error = process.stderr.read().splitlines()[-1]
    assert process.returncode == 2
    assert error.endswith("; finished rounds are kept: repeat the command to resume")
    run_here(*GRID, "--out", tmp_path / "out", quiet=False)
    assert "(2 done before)" in capsys.readouterr().out
    assert outcome(tmp_path / "out") == outcome(whole)


def test_workers_of_several_threads_are_refused(tmp_path, cluster, capfd):
    address, worker = cluster
    worker("first", threads=2)
    assert main([*GRID, "--cluster", address, "--out", str(tmp_path / "out")]) == 2
    assert capfd.readouterr().err == (
        "fastprune.sweep: cluster: expected workers of one task thread each (dask worker --nthreads 1), got 2\n"
    )
    assert not (tmp_path / "out").exists()
