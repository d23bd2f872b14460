"""The command, as a person runs it: in a process of its own."""

import csv
import itertools
import os
import re
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastprune as fp
from fastprune.pruner import Scores
from fastprune.sweep import __main__ as command
from fastprune.sweep.__main__ import main
from fastprune.sweep.config import Config, parse
from fastprune.sweep.results import COLUMNS, Spread
from fastprune.sweep.run import Candidate, SeedResult, best

MNIST = Path(__file__).parents[1] / "bench" / "mnist"
SHORT = ["--hidden", "20,10", "--seeds", "0,1", "--epochs", "8", "--retrain-epochs", "4", "--rounds", "3"]
SMALL = [*SHORT, "--q", "40"]


def sweep(*arguments, cwd, **environment):
    line = [sys.executable, "-W", "error", "-m", "fastprune.sweep", *map(str, arguments)]
    return subprocess.run(line, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    result = sweep(*SMALL, "--out", "results", cwd=folder)
    assert (result.returncode, result.stderr) == (0, "")
    return folder / "results", result.stdout


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
    network = fp.load(tmp_path / "runs" / "digits" / "best.npz")
    data = fp.load_dataset("digits")
    assert network.compression > 20
    assert (network.predict(data.x_test) == data.y_test).mean() > 0.93


def test_results_csv(done):
    rows = read(done[0] / "results.csv")
    assert list(rows[0]) == COLUMNS
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
        assert (row["rule"], row["scope"], row["requested"]) == ("percentile", "global", "40.0")
        assert float(row["before_train_loss"]) > 0
        assert float(row["seconds"]) > 0
    assert [round(float(row["sparsity"]), 2) for row in rows[:4]] == [0, 0.4, 0.64, 0.78]


def test_output_is_plain_text_with_a_line_a_round_and_a_table(done):
    folder, out = done
    assert "\x1b" not in out
    rows = read(folder / "results.csv")
    lines = [line.split() for line in out.splitlines() if re.match(r" +\d+ +\d+\.\d\d % ", line)]
    for line, row in zip(lines[:6], [row for row in rows if row["round"] != "0"], strict=True):
        assert line[0] == row["round"]
        assert float(line[1]) == round(100 * float(row["prunable_sparsity"]), 2)
        shown = [float(value) for value in line[3:7]]
        named = ("before_train", "before_test", "after_train", "after_test")
        assert shown == [round(100 * float(row[f"{name}_accuracy"]), 1) for name in named]
    table = out[out.index("mean ± standard deviation") :]
    for number in (1, 2, 3):
        after = Spread.of([float(row["after_test_accuracy"]) for row in rows if row["round"] == str(number)])
        assert f"{100 * after.mean:.2f} ± {100 * after.deviation:.2f}" in table
    assert max(map(len, table[: table.index("Best")].splitlines())) <= 80
    assert 'fastprune.load("results/best.npz")' in table


def test_the_best_network_is_the_smallest_good_enough_on_held_out_samples(done):
    folder, out = done
    rows = read(folder / "results.csv")
    enough = max(float(row["after_validation_accuracy"]) for row in rows if row["round"] == "0") - 0.01
    good = [row for row in rows if float(row["after_validation_accuracy"]) >= enough]
    chosen = min(good, key=lambda row: (int(row["live"]), -float(row["after_validation_accuracy"])))
    network, data = fp.load(folder / "best.npz"), fp.load_dataset("digits")
    assert network.live_weights == int(chosen["live"])
    accuracy = float((network.predict(data.x_test) == data.y_test).mean())
    assert accuracy == pytest.approx(float(chosen["after_test_accuracy"]))
    assert f"Best: seed {chosen['seed']}, round {chosen['round']}:" in out
    assert f"test accuracy {100 * accuracy:.2f} %" in out


def test_the_same_command_gives_the_same_results(done, tmp_path):
    sweep(*SMALL, "--out", tmp_path, cwd=tmp_path)
    strip = [{k: v for k, v in row.items() if k != "seconds"} for row in read(tmp_path / "results.csv")]
    assert strip == [{k: v for k, v in row.items() if k != "seconds"} for row in read(done[0] / "results.csv")]
    assert (tmp_path / "best.npz").read_bytes() == (done[0] / "best.npz").read_bytes()


def test_quiet_says_nothing(tmp_path):
    result = sweep(*SMALL, "--quiet", "--out", tmp_path / "a" / "b", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == {"results.csv", "best.npz"}


def test_a_terminal_sees_a_bar(tmp_path):
    """In a pseudo-terminal: the bar with its iterations/s and cost, and colours."""
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "fastprune.sweep", *SMALL, "--epochs", "600", "--seeds", "0"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen(command, cwd=tmp_path, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
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
    assert process.wait() == 0
    text = shown.decode()
    assert "\x1b[" in text
    assert re.search(r"Train .*/12600 \[00:\d\d, [\d,]+ it/s, cost=0\.\d+\]", text)
    assert "None" not in text
    assert "standard deviation" in text


@pytest.mark.parametrize("rule", [["--rule", "sparsity", "--sparsity", "0.9"], ["--rule", "std", "--quality", "0.7"]])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_rules_and_scopes(tmp_path, rule, scope):
    assert main([*SHORT, "--quiet", "--seeds", "0", *rule, "--scope", scope, "--out", str(tmp_path)]) == 0
    sparsities = [float(row["sparsity"]) for row in read(tmp_path / "results.csv")]
    assert sparsities == sorted(set(sparsities))
    if "sparsity" in rule:
        assert sparsities[-1] == pytest.approx(0.9, abs=1e-3)


def test_mnist(tmp_path):
    arguments = ["--dataset", "mnist", "--data-dir", MNIST, "--hidden", "30", "--seeds", "0", "--epochs", "1"]
    more = ["--retrain-epochs", "1", "--rounds", "1", "--q", "50"]
    result = sweep(*arguments, *more, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    (results,) = tmp_path.glob("runs/mnist-*/results.csv")
    rows = read(results)
    assert float(rows[1]["after_test_accuracy"]) > 0.9


def test_a_failed_round_is_reported_as_failed(tmp_path):
    arguments = ["--q", "100", "--rounds", "2", "--scope", "layer"]
    result = sweep(*SMALL, *arguments, "--out", tmp_path, cwd=tmp_path)
    assert result.returncode == 0
    assert "layer emptied (layer 0)" in result.stdout
    assert "failed" in result.stdout
    rows = read(tmp_path / "results.csv")
    assert [(row["round"], row["failed"]) for row in rows] == [("0", "False"), ("1", "True")] * 2
    assert "0 (2 failed)" in result.stdout
    assert all(row["after_validation_accuracy"] == "" for row in rows if row["failed"] == "True")
    assert fp.load(tmp_path / "best.npz").sparsity == 0


def test_training_that_diverges_is_one_line(tmp_path):
    result = sweep(*SMALL, "--learning-rate", "1e30", "--out", tmp_path, cwd=tmp_path)
    assert result.returncode == 1
    lines = [rf"fastprune.sweep: seed {seed}, dense training: the loss became (nan|inf) in .*\n" for seed in (0, 1)]
    assert re.fullmatch("".join(lines), result.stderr)
    assert list(tmp_path.iterdir()) == []


def test_a_seed_that_diverges_leaves_the_others(tmp_path, monkeypatch, capsys):
    def one_diverges(config, job, *arguments):
        if job.seed == 0:
            raise fp.DivergenceError(np.inf, 3, 8)
        real(config, job, *arguments)

    real = command.run
    monkeypatch.setattr(command, "run", one_diverges)
    assert main([*SMALL, "--quiet", "--out", str(tmp_path)]) == 1
    assert "seed 0, dense training: the loss became inf in epoch 3 of 8" in capsys.readouterr().err
    assert {row["seed"] for row in read(tmp_path / "results.csv")} == {"1"}


def test_best_is_measured_by_the_best_dense_network():
    """A seed that trained badly sets itself a low bar, and does not win by it."""

    def result(seed, dense, round_, accuracy, weights):
        network = fp.MLP([weights, 1])
        scores = [Scores(None, fp.Evaluation(0.0, value, False), None) for value in (dense, accuracy)]
        return SeedResult(seed, scores[0], 0.0, Candidate(seed, round_, scores[1], network))

    good, bad, better = result(0, 0.98, 3, 0.975, 50), result(1, 0.5, 9, 0.5, 5), result(2, 0.98, 3, 0.98, 50)
    assert best([good, bad], 0.01).seed == 0
    assert best([good, bad, better], 0.01).seed == 2
    assert best([bad], 0.01).seed == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--dataset", "cifar"],
            "name: expected 'digits', 'mnist', 'breast_cancer', 'wine', 'binary_images' or a path ending in",
        ),
        (["--dataset", "missing.csv"], "which is no file"),
        (["--dataset", "broken.npz"], "broken.npz"),
        (["--dataset", "values.csv"], "dataset: expected one class a sample .* got values to meet"),
        (["--dataset", "pairs.npz"], r"dataset: expected one class a sample .* got labels of shape \(4, 2\)"),
        (["--dataset", "mnist", "--data-dir", "."], "data_dir: expected the MNIST files"),
        (["--q", "120"], r"q: expected a number in \[0, 100\], got 120.0"),
        (
            ["--rule", "sparsity", "--q", "20", "--sparsity", "1"],
            r"final_sparsity: expected a number in \[0.0, 1\), got 1.0",
        ),
        (["--rounds", "0"], "rounds: expected an integer of at least 1"),
        (["--hidden", "0"], r"sizes\[1\]: expected an integer of at least 1, got 0"),
        (["--learning-rate", "nan"], "learning_rate: expected a number"),
        (["--retrain-learning-rate", "0"], "retrain_learning_rate: expected a number"),
        (["--retrain-epochs", "-1"], "retrain_epochs: expected an integer"),
        (["--holdout", "1"], r"holdout: expected a number in \(0, 1\), got 1.0"),
        (["--max-drop", "-1"], "max_drop: expected a number"),
        (["--seeds", ","], r"seeds: expected at least one, none of them twice, got \(\)"),
        (["--seeds", "0,1,0"], r"seeds: expected at least one, none of them twice, got \(0, 1, 0\)"),
        (["--sparsity", "0.9"], "sparsity: expected --rule sparsity with it, got --rule percentile"),
        (["--holdout", "0.9999"], "holdout: expected to leave samples to train on"),
        (["--batch-size", "-1"], "batch_size: expected an integer of at least 0"),
        (["--hidden", "99999999999,99999999999"], "sizes: expected weights that can be counted"),
        (["--seeds=-1"], "seeds: expected an integer of at least 0, got -1"),
        (["--ignored-layers", "7"], "ignored_layers: expected layers in -3 .. 2, got 7"),
        (["--full"], "full: expected a preset with it, got none"),
        (["--preset", "han2015"], "preset: expected its own settings to stand, got --hidden"),
        (["--out", "broken.npz"], "out: expected a folder, got the file 'broken.npz'"),
        (["--out", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capfd, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.npz").write_bytes(b"PK broken")
    (tmp_path / "values.csv").write_text("1,2,0.5\n" * 6)
    np.savez(tmp_path / "pairs.npz", x=np.ones((5, 2)), y=np.arange(10).reshape(5, 2) % 2)
    assert main([*SMALL, *arguments]) == 2
    out, err = capfd.readouterr()
    assert re.fullmatch(f"fastprune.sweep: .*{message}.*\n", err)
    assert out == ""
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"broken.npz", "values.csv", "pairs.npz"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rule", "magic"], "argument --rule: invalid choice: 'magic'"),
        (["--hidden", "a,b"], "argument --hidden: invalid integers value: 'a,b'"),
        (["--rounds", "2.5"], "argument --rounds: invalid int value: '2.5'"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_a_bad_command_line_is_exit_code_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_interrupted_it_keeps_what_is_finished(tmp_path):
    arguments = [*SMALL, "--rounds", "500", "--q", "1", "--out", str(tmp_path)]
    command = [sys.executable, "-u", "-m", "fastprune.sweep", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.split()[:1] == ["7"]:
                process.send_signal(signal.SIGINT)
                break
        _, errors = process.communicate()
    assert process.returncode == 130
    assert errors == f"fastprune.sweep: interrupted; finished rounds of 1 seeds are in {tmp_path}\n"
    rows = read(tmp_path / "results.csv")
    assert [row["round"] for row in rows[:8]] == [str(number) for number in range(8)]
    assert {row["seed"] for row in rows} == {"0"}
    fp.load(tmp_path / "best.npz")


def test_interrupted_before_it_begins(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "load_dataset", interrupted)
    assert main(SMALL) == 130
    assert capsys.readouterr().err == "fastprune.sweep: interrupted\n"


def test_help_names_every_setting(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for name in (*Config.__dataclass_fields__, "preset", "full", "out", "quiet"):
        assert f"--{name.replace('_', '-')}" in text
    assert "Example:" in text


def test_names_tell_what_differs_from_the_defaults():
    assert parse([]).out == Path("runs/digits")
    assert parse(["--q", "30", "--hidden", "5,4"]).out == Path("runs/digits-hidden=5,4-q=30.0")
    assert parse(["--dataset", "/some/own.csv"]).out == Path("runs/some_own.csv")
    assert parse(["--dataset", "../own.csv"]).out == Path("runs/own.csv")
    assert parse(["--out", "x"]).out == Path("x")
    assert parse(["--preset", "han2015"]).out == Path("runs/han2015")


def test_spread():
    assert Spread.of([0.5]) == Spread(0.5, None)
    values = [0.1, 0.4, 0.7]
    assert Spread.of(values) == Spread(pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
