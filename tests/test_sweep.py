"""The command, as a person runs it: in a process of its own."""

import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sweeps import SHORT, SMALL, read, run_here, sweep

import fastprune as fp
from fastprune.sweep import executors
from fastprune.sweep import run as module
from fastprune.sweep.command import main
from fastprune.sweep.config import OPTIONS
from fastprune.sweep.results import COLUMNS, SECONDS, Spread
from fastprune.sweep.settings import KEYS

MNIST = Path(__file__).parents[1] / "bench" / "mnist"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    result = sweep(*SMALL, "--out", "results", cwd=folder)
    assert (result.returncode, result.stderr) == (0, "")
    return folder / "results", result.stdout


@pytest.mark.long
def test_the_main_job_without_arguments(tmp_path):
    """The real thing, as the README has it: five seeds, to 98 % sparsity and beyond."""
    result = sweep(cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    rows = read(tmp_path / "runs" / "digits" / "results.csv")
    last = [row for row in rows if row["round"] == "22"]
    assert len(last) == 5
    assert all(float(row["sparsity"]) > 0.98 for row in last)
    difference = statistics.fmean(float(row["after_test_accuracy"]) for row in last) - statistics.fmean(
        float(row["after_test_accuracy"]) for row in rows if row["round"] == "0"
    )
    assert difference > -0.03
    assert not list((tmp_path / "runs" / "digits" / "store" / "rounds").iterdir())
    network = fp.load(tmp_path / "runs" / "digits" / "best.npz")
    data = fp.load_dataset("digits")
    assert network.compression > 20
    assert (network.predict(data.x_test) == data.y_test).mean() > 0.93


def test_results_csv(done):
    rows = read(done[0] / "results.csv")
    assert tuple(rows[0]) == COLUMNS
    assert [(row["seed"], row["round"]) for row in rows] == list(itertools.product("01", "0123"))
    for row in rows:
        assert 0.5 < float(row["after_test_accuracy"]) <= 1
        assert float(row["after_validation_loss"]) > 0
        assert row["failed"] == "False"
        assert float(row["compression"]) == pytest.approx(1 / (1 - float(row["sparsity"])))
        assert int(row["live"]) == round(1580 * (1 - float(row["sparsity"])))
        assert len(row["layer_sparsity"].split(";")) == 3
        assert len(row["dead_units"].split(";")) == 2
        assert float(row["sparsity"]) <= float(row["effective_sparsity"]) < 1
    for row in rows[1:4]:
        assert (row["rule"], row["scope"], row["q"], row["requested"]) == ("percentile", "global", "40.0", "40.0")
        assert (row["hidden"], row["ignored_layers"]) == ("20-10", "none")
        assert float(row["before_train_loss"]) > 0
    assert [round(float(row["sparsity"]), 2) for row in rows[:4]] == [0, 0.4, 0.64, 0.78]
    assert {row["cell"] for row in rows} == {path.stem for path in (done[0] / "networks").iterdir()}


def test_results_jsonl_has_the_same_rows_with_their_types(done):
    with (done[0] / "results.jsonl").open() as file:
        lines = [json.loads(line) for line in file]
    for line, row in zip(lines, read(done[0] / "results.csv"), strict=True):
        assert tuple(line) == COLUMNS
        for name, value in line.items():
            if name in ("hidden", "ignored_layers", "weight_bits"):
                text = "-".join(map(str, value)) or "none"
            elif isinstance(value, list):
                text = ";".join(" ".join(map(str, part)) if isinstance(part, list) else str(part) for part in value)
            else:
                text = "" if value is None else str(value)
            assert row[name] == text
    assert type(lines[1]["round"]) is int
    assert type(lines[1]["sparsity"]) is float
    assert lines[1]["layer_sparsity"] == sorted(lines[1]["layer_sparsity"], reverse=True)
    assert lines[1]["failed"] is False


def test_seconds_have_a_file_of_their_own(done):
    rows = read(done[0] / "seconds.csv")
    assert tuple(rows[0]) == SECONDS
    same = ("cell", "seed", "round")
    results = read(done[0] / "results.csv")
    assert [[row[name] for name in same] for row in rows] == [[row[name] for name in same] for row in results]
    assert all(0 < float(row["seconds"]) < 60 for row in rows)


def test_output_is_plain_text_with_a_line_a_round_and_a_table(done):
    folder, out = done
    assert "\x1b" not in out
    rows = read(folder / "results.csv")
    lines = {}
    for line in out.splitlines():
        if found := re.match(r" *[\d.]+ s +\d+ %  seed=(\d) +(dense|\d+) +(.*)", line):
            lines[found[1], found[2].replace("dense", "0")] = found[3].replace(" %", "").split()
    assert len(lines) == len(rows)
    for row in rows:
        shown = lines[row["seed"], row["round"]]
        accuracy = str(round(100 * float(row["after_test_accuracy"]), 1))
        if row["round"] == "0":
            assert shown[:2] == ["-", accuracy]
        else:
            before = str(round(100 * float(row["before_test_accuracy"]), 1))
            assert shown[:3] == [f"{100 * float(row['prunable_sparsity']):.2f}", before, accuracy]
            assert float(shown[3]) == float(f"{float(row['after_train_loss']):.3g}")
    table = out[out.index("mean ± standard deviation") :]
    for number in (1, 2, 3):
        after = Spread.of([float(row["after_test_accuracy"]) for row in rows if row["round"] == str(number)])
        assert f"{100 * after.mean:.2f} ± {100 * after.deviation:.2f}" in table
    assert max(map(len, table[: table.index("Best")].splitlines())) <= 80
    assert 'fastprune.load("results/best.npz")' in table


def test_the_best_network_is_the_smallest_good_enough_on_held_out_samples(done):
    def held_out(row):
        return float(row["after_validation_accuracy"])

    folder, out = done
    rows = read(folder / "results.csv")
    bars = {row["seed"]: held_out(row) - 0.01 for row in rows if row["round"] == "0"}
    # Each seed keeps one network, by its own bar: a larger one of it does not come in where that is not enough.
    own = [[row for row in rows if row["seed"] == seed and held_out(row) >= bars[seed]][-1] for seed in bars]
    chosen = max(own, key=lambda row: (held_out(row), -int(row["live"])))
    network, data = fp.load(folder / "best.npz"), fp.load_dataset("digits")
    assert network.live_weights == int(chosen["live"])
    accuracy = float((network.predict(data.x_test) == data.y_test).mean())
    assert accuracy == pytest.approx(float(chosen["after_test_accuracy"]))
    kept = Spread.of([float(row["after_test_accuracy"]) for row in own])
    assert f"test accuracy {100 * kept.mean:.2f} ± {100 * kept.deviation:.2f} %" in out
    share = (144 * held_out(chosen) + 2) / 148
    error = 100 * (share * (1 - share) / 148) ** 0.5
    assert f"Saved: seed={chosen['seed']}, round {chosen['round']}, {network.live_weights:,} of 1,580 weights" in out
    assert f"{100 * held_out(chosen):.2f} % ± {error:.2f} (one standard error, 144 samples)" in out
    assert ("too small to tell a drop of max_drop (0.01)" in out) == (error > 1)
    assert out.count("highest held-out accuracy is saved") == 1


FILES = {"results.csv", "results.jsonl", "seconds.csv", "best.npz", "sweep.toml", "networks", "store"}


def test_these_files_are_written_and_no_others(done):
    assert {path.name for path in done[0].iterdir()} == FILES | {"report.html", "plots"}


def test_a_report_can_be_left_out_and_none_of_before_is_left(tmp_path, capsys):
    run_here(*SMALL, "--out", tmp_path, quiet=False)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert f"Wrote {tmp_path / 'results.csv'}\n" in capsys.readouterr().out
    (tmp_path / "report.html").write_text("of a smaller sweep")
    run_here(*SMALL, "--seeds", "0,1,2", "--out", tmp_path)
    assert not (tmp_path / "report.html").exists()


TERMINAL = {"TERM": "xterm-256color", "COLUMNS": "120"}
SLOW = [*SMALL, "--epochs", "100", "--retrain-epochs", "600"]  # enough for the bar to move


def read_to_the_end(leader):
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # Linux's way to say that the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(leader)
    return shown


def test_a_terminal_sees_a_bar(tmp_path, monkeypatch):
    """In a pseudo-terminal: a bar with the time that is left, a line for each running cell, and colours."""
    leader, follower = pytest.importorskip("pty").openpty()
    for name, value in TERMINAL.items():
        monkeypatch.setenv(name, value)
    with ThreadPoolExecutor(1) as pool:
        shown = pool.submit(read_to_the_end, leader)
        with os.fdopen(follower, "w") as terminal, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            run_here(*SLOW, "--out", tmp_path, quiet=False)
    assert_a_bar_is_in(shown.result())


@pytest.mark.long
def test_a_terminal_sees_the_bar_of_the_command(tmp_path):
    leader, follower = pytest.importorskip("pty").openpty()
    command = [sys.executable, "-m", "fastprune.sweep", *SLOW]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=follower, stderr=follower, env={**os.environ, **TERMINAL})
    os.close(follower)
    shown = read_to_the_end(leader)
    assert process.wait() == 0
    assert_a_bar_is_in(shown)


def assert_a_bar_is_in(shown):
    assert b"\x1b[36m" in shown
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert re.search(r"running +round +sparsity +pruned +retrained +loss +seconds", text)
    assert re.search(r"seed=\d +[23]/3 +\d\d\.\d\d %", text)
    assert re.search(r"\d+ %  0 of 2 cells.* left.*\d:\d\d:\d\d", text)
    assert re.search(r"seed=0  dense 9\d\.\d\d %, \d\.\dx 9\d", text)
    assert "None" not in text
    assert "standard deviation" in text


@pytest.mark.parametrize("rule", [["--rule", "sparsity", "--sparsity", "0.9"], ["--rule", "std", "--quality", "0.7"]])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_rules_and_scopes(tmp_path, rule, scope):
    run_here(*SHORT, "--seeds", "0", *rule, "--scope", scope, "--out", tmp_path)
    sparsities = [float(row["sparsity"]) for row in read(tmp_path / "results.csv")]
    assert sparsities == sorted(set(sparsities))
    if "sparsity" in rule:
        assert sparsities[-1] == pytest.approx(0.9, abs=1e-3)


def test_mnist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--dataset", "mnist", "--data-dir", MNIST, "--hidden", "30", "--seeds", "0", "--epochs", "1"]
    more = ["--retrain-epochs", "1", "--rounds", "1", "--q", "50"]
    _, failures = run_here(*arguments, *more)
    assert not failures
    (results,) = tmp_path.glob("runs/mnist-*/results.csv")
    rows = read(results)
    assert float(rows[1]["after_test_accuracy"]) > 0.9


def test_a_failed_round_is_reported_as_failed(tmp_path, capsys):
    arguments = ["--q", "100", "--rounds", "2", "--scope", "layer"]
    _, failures = run_here(*SMALL, *arguments, "--out", tmp_path, quiet=False)
    out = capsys.readouterr().out
    assert not failures
    assert "layer emptied (layer 0)" in out
    assert "failed" in out
    rows = read(tmp_path / "results.csv")
    assert [(row["round"], row["failed"]) for row in rows] == [("0", "False"), ("1", "True")] * 2
    assert "0 (2 failed)" in out
    assert all(row["after_validation_accuracy"] == "" for row in rows if row["failed"] == "True")
    assert fp.load(tmp_path / "best.npz").sparsity == 0


@pytest.mark.long
def test_training_that_diverges_is_reported_and_the_rest_goes_on(tmp_path, capfd):
    """One dense network diverges, for both rules; those of the other learning rate are trained and pruned.

    With --quiet, that is all that is said.
    """
    folder = tmp_path / "a" / "b"
    grid = ["--learning-rate", "0.1,1e30", "--rule", "percentile,std", "--seeds", "1"]
    assert main([*SMALL, *grid, "--jobs", "1", "--quiet", "--out", str(folder)]) == 1
    names = ", ".join(rf"learning_rate=1e\+30 rule={rule} seed=1" for rule in ("percentile", "std"))
    out, error = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(rf"fastprune.sweep: {names}, dense training: the loss became (nan|inf) in .*\n", error)
    rows = read(folder / "results.csv")
    assert {row["learning_rate"] for row in rows} == {"0.1"}
    assert {row["rule"] for row in rows} == {"percentile", "std"}
    assert "the loss became" in (folder / "report.html").read_text()


def test_if_all_fails_there_is_nothing_to_report(tmp_path, capfd):
    assert main([*SMALL, "--learning-rate", "1e30", "--jobs", "1", "--out", str(tmp_path)]) == 1
    assert capfd.readouterr().err.count("\n") == 2
    assert read(tmp_path / "results.csv") == []
    assert not (tmp_path / "report.html").exists()


def test_one_dense_network_serves_all_cells_that_share_it(tmp_path, capsys):
    grid = ["--rule", "percentile,std", "--scope", "layer,global", "--seeds", "0"]
    run_here(*SMALL, *grid, "--out", tmp_path, quiet=False)
    out = capsys.readouterr().out
    assert len(list((tmp_path / "store" / "dense").iterdir())) == 1
    assert len(re.findall(r" s +\d+ % .* dense  ", out)) == 1
    dense = [row for row in read(tmp_path / "results.csv") if row["round"] == "0"]
    assert len(dense) == 4
    assert len({row["after_test_loss"] for row in dense}) == 1
    assert re.search(r"rule=std scope=layer +9\d\.\d\d +\d +\d", out)


def test_several_data_sets_have_a_best_network_each(tmp_path, capsys):
    arguments = [*SMALL, "--dataset", "wine", "--seeds", "0", "--out", tmp_path]
    run_here(*arguments)
    assert [path.name for path in tmp_path.glob("best*")] == ["best.npz"]
    run_here(*arguments, "--dataset", "digits,wine", quiet=False)
    assert fp.load(tmp_path / "best-digits.npz").sizes == [64, 20, 10, 10]
    assert fp.load(tmp_path / "best-wine.npz").sizes == [13, 20, 10, 3]
    assert "Best of wine" in capsys.readouterr().out
    assert not (tmp_path / "best.npz").exists()  # it was of the smaller sweep


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--dataset", "cifar"],
            "dataset: expected 'digits', 'mnist', 'fashion_mnist', .*, 'binary_images' or a path ending in",
        ),
        (["--dataset", "missing.csv"], "which is not a file"),
        (["--dataset", "broken.npz"], "broken.npz"),
        (["--dataset", "values.csv"], "dataset: expected one class per sample .* got numbers to predict"),
        (["--dataset", "pairs.npz"], r"dataset: expected one class per sample .* got labels of shape \(4, 2\)"),
        (["--dataset", "mnist", "--data-dir", "."], "data_dir: expected the MNIST files"),
        (["--q", "120"], r"q: expected a number in \[0, 100\], got 120.0"),
        (
            ["--rule", "sparsity", "--q", "20", "--sparsity", "1"],
            r"sparsity: expected a number in \[0, 1\), got 1.0",
        ),
        (["--rounds", "0"], "rounds: expected an integer of at least 1"),
        (["--hidden", "0"], "hidden: expected an integer of at least 1, got 0"),
        (["--learning-rate", "nan"], "learning_rate: expected a number"),
        (["--learning-rate=-1"], "learning_rate: expected a number"),
        (["--retrain-learning-rate", "0"], "retrain_learning_rate: expected a number"),
        (["--retrain-epochs", "-1"], "retrain_epochs: expected an integer"),
        (["--holdout", "1"], r"holdout: expected a number in \[0, 1\), got 1.0"),
        (["--max-drop", "-1"], "max_drop: expected a number"),
        (["--seeds", ","], "seeds: expected whole numbers or start:stop:count .*, got ''"),
        (["--seeds", "0,1,0"], "seeds: expected at least one value and no duplicates, got '0,1,0'"),
        (["--sparsity", "0.9"], "sparsity: needs --rule sparsity, got --rule percentile"),
        (["--holdout", "0.9999"], "holdout: expected to leave samples to train on"),
        (["--batch-size", "-1"], "batch_size: expected an integer of at least 0"),
        (["--hidden", "99999999999-99999999999"], "sizes: expected at most 2[*][*]60 weights"),
        (["--seeds=-1"], "seeds: expected an integer of at least 0, got -1"),
        (["--ignored-layers", "7"], "ignored_layers: expected layers in -3 .. 2, got 7"),
        (["--preset", "cifar"], "argument --preset: invalid choice: 'cifar'"),
        (["--rule", "magic"], "rule: expected one of 'sparsity', 'percentile', 'std', got 'magic'"),
        (["--hidden", "a-b"], "hidden: expected whole numbers joined by dashes .*, or none, got 'a-b'"),
        (["--rounds", "2.5"], "rounds: expected whole numbers or .*, got '2.5'"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--lerning-rate", "1"], "unrecognized arguments: --lerning-rate 1; the nearest is --learning-rate"),
        (["--config", "missing.toml"], "config: expected a TOML file of settings, got 'missing.toml'"),
        (["--jobs", "0"], "jobs: expected a number of processes, or -1 for one per core, got 0"),
        (["--threads", "0"], "threads: expected an integer of at least 1, got 0"),
        (["--cluster", "tcp://127.0.0.1:1"], "cluster: expected a Dask scheduler at tcp://HOST:PORT"),
        (["--out", "broken.npz"], "out: expected a folder, got the file 'broken.npz'"),
        (["--out", "/proc/nowhere"], "/proc/nowhere"),
        (["--out", "long" * 75], "File name too long: 'long"),
        (["--out", "new/" + "long" * 75], "File name too long: 'new/long"),
        (["--out", "nul\0"], r"out: expected text, got 'nul\\x00'"),
        (["--out", "no text: \udcff"], r"out: expected text, got 'no text: \\udcff'"),
        (["--config", "long" * 75], "config: expected a TOML file of settings, got 'long.*File name too long"),
        (["--config", "nul\0"], "config: expected a TOML file of settings, got 'nul.*null byte"),
        (["--config", "."], "config: expected a TOML file of settings, got '.': .*Not a regular file"),
        (["--config", "pipe"], "config: expected a TOML file of settings, got 'pipe': .*Not a regular file"),
        (["--config", "unreadable.csv"], "config: expected a TOML file of settings, got 'unreadable.csv': "),
        (["--config", "values.csv"], "config: expected a TOML file of settings, got 'values.csv': "),
        (["--dataset", "long" * 75 + ".csv"], "dataset: expected 'digits'.*, which is not a file"),
        (["--dataset", "nul\0.csv"], "dataset: expected text, got"),
        (["--dataset", "unreadable.csv"], "dataset: expected a data set, got 'unreadable.csv': "),
        (["--dataset", "unreadable.npz"], "dataset: expected a data set, got 'unreadable.npz': "),
        (["--dataset", "bare.npz"], "dataset: expected a data set, got 'bare.npz': expected arrays .*, got none"),
        (["--dataset", "flipped.npz"], "dataset: expected a data set, got 'flipped.npz': .*CRC"),
        (["--dataset", "mnist", "--data-dir", "long" * 75], "data_dir: expected the MNIST files, got a folder 'long"),
        (["--dataset", "mnist", "--data-dir", "nul\0"], "data_dir: expected text, got"),
        (["--seeds", "9" * 5000], "seeds: expected whole numbers"),
        (["--rounds", "9" * 4000], "rounds: expected an integer of at most 1000000, got 9999"),
        (["--rounds", "9" * 15], "rounds: expected an integer of at most 1000000, got 9999"),
        (["--q", "9" * 5000], "q: expected a number"),
        (["report", "long" * 75], "report: expected the folder of a sweep, got 'long"),
        (["report", "nul\0"], "report: expected the folder of a sweep, got 'nul"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capfd, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(executors, "_PATIENCE", 0.5)  # seconds, for a scheduler that is not there
    (tmp_path / "broken.npz").write_bytes(b"PK broken")
    (tmp_path / "values.csv").write_text("1,2,0.5\n" * 6)
    np.savez(tmp_path / "pairs.npz", x=np.ones((5, 2)), y=np.arange(10).reshape(5, 2) % 2)
    (tmp_path / "unreadable.csv").symlink_to("/proc/self/mem")  # for root, too
    (tmp_path / "unreadable.npz").symlink_to("/proc/self/mem")
    os.mkfifo("pipe")  # to which nobody writes
    with zipfile.ZipFile("bare.npz", "w") as archive:
        archive.writestr("x.txt", "no array")
    content = bytearray((tmp_path / "pairs.npz").read_bytes())
    content[200] ^= 1
    (tmp_path / "flipped.npz").write_bytes(content)
    before = sorted(path for path in tmp_path.rglob("*") if not path.is_dir())
    assert main(arguments if arguments[0] == "report" else [*SMALL, *arguments]) == 2
    out, err = capfd.readouterr()
    assert re.fullmatch(f"fastprune.sweep: .*{message}.*\n", err)
    assert out == ""
    assert sorted(path for path in tmp_path.rglob("*") if not path.is_dir()) == before


@pytest.mark.long
def test_interrupted_it_keeps_what_is_finished_and_says_how_to_go_on(tmp_path, capsys):
    arguments = [*SMALL, "--rounds", "30", "--q", "5", "--jobs", "1", "--out", str(tmp_path)]
    command = [sys.executable, "-u", "-m", "fastprune.sweep", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if " seed=0     7 " in line:
                process.send_signal(signal.SIGINT)
                break
        _, errors = process.communicate()
    assert process.returncode == 130
    again = f"python -m fastprune.sweep --config {tmp_path / 'sweep.toml'} --out {tmp_path}"
    assert errors == f"fastprune.sweep: interrupted; resume with: {again}\n"
    rows = read(tmp_path / "results.csv")
    assert [row["round"] for row in rows[:8]] == [str(number) for number in range(8)]
    run_here(*again.split()[3:], quiet=False)
    out = capsys.readouterr().out
    assert " seed=0    30 " in out
    assert " seed=0     7 " not in out
    assert [row["round"] for row in read(tmp_path / "results.csv")] == [str(number) for number in range(31)] * 2


@pytest.mark.parametrize("delay", [0.5, *(pytest.param(delay, marks=pytest.mark.long) for delay in (0.2, 0.8, 1.2))])
def test_ctrl_c_in_a_terminal_reaches_the_workers_too_and_is_one_line(tmp_path, delay):
    """Whatever they are at: the command and its workers are one process group."""
    out = tmp_path / "out"
    arguments = [*SMALL, "--epochs", "100000", "--quiet", "--out", str(out)]
    command = [sys.executable, "-m", "fastprune.sweep", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while not (out / "sweep.toml").exists():
            time.sleep(0.01)
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGINT)
        errors = process.stderr.read()
    assert process.returncode == 130
    assert re.fullmatch(r"fastprune.sweep: interrupted; resume with: .*\n", errors)


def test_a_folder_of_other_things_is_not_written_into(tmp_path, capsys):
    (tmp_path / "results.csv").write_text("mine")
    for more in ([], ["--dry-run"]):
        assert main([*SMALL, "--out", str(tmp_path), *more]) == 2
        assert "out: expected a new folder or one of a sweep, got '" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


def test_networks_that_learn_nothing_come_with_advice(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = 1000 * rng.random((60, 4)) + 1000
    np.savetxt(tmp_path / "own.csv", np.c_[x, np.arange(60) % 3], delimiter=",")
    own = tmp_path / "own.csv"
    run_here(*SMALL, "--dataset", own, "--learning-rate", "0.5", "--out", tmp_path / "out", quiet=False)
    assert "features scaled to about 1" in capsys.readouterr().out


def test_interrupted_before_it_begins(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "load_data", interrupted)
    assert main(SMALL) == 130
    assert capsys.readouterr().err == "fastprune.sweep: interrupted\n"


@pytest.mark.parametrize(
    ("module", "more"),
    [
        ("numpy", ["--help"]),
        ("rich", []),
        ("rich", ["report", "x"]),
        *(
            pytest.param(module, more, marks=pytest.mark.long)
            for module, others in {
                "numpy": [[], ["report", "x"]],
                "rich": [["--help"]],
            }.items()
            for more in others
        ),
    ],
)
def test_interrupted_while_it_is_imported(tmp_path, module, more):
    """The signal comes when a module begins, in the middle of those that import it: one of them makes no fuss of it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}:\n"
        "            try:\n"
        "                os.kill(os.getpid(), signal.SIGINT)\n"
        "            except KeyboardInterrupt:\n"
        "                raise ImportError(name) from None\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(fp.__file__).parents[1])])
    result = sweep(*more, cwd=tmp_path, PYTHONPATH=path)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "fastprune.sweep: interrupted\n")


def test_a_dry_run_shows_the_cells_and_writes_nothing(tmp_path, capsys):
    grid = ["--rule", "percentile,std", "--q", "20:40:3", "--out", str(tmp_path / "x")]
    assert main([*SHORT, *grid, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"^[0-9a-f]{12}  0 of 3 rounds", out, re.MULTILINE)) == 8
    assert "rule=percentile q=30.0 seed=1" in out
    assert not (tmp_path / "x").exists()


def test_a_dry_run_tells_how_far_the_cells_are(done, capsys):
    assert main([*SMALL, "--seeds", "0,5", "--out", str(done[0]), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"  finished +seed=0\n", out)
    assert re.search(r"  0 of 3 rounds +seed=5\n2 cells, in ", out)


def test_help_names_every_setting(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for name in (*(KEYS.keys() - {"stage"}), *OPTIONS, "preset", "config", "dry_run", "quiet"):
        assert f"--{name.replace('_', '-')} " in text
    assert "Example:" in text


def test_spread():
    assert Spread.of([0.5]) == Spread(0.5, None)
    values = [0.1, 0.4, 0.7]
    assert Spread.of(values) == Spread(pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
