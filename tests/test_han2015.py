"""The study of the paper's network: its recipes followed, its tables computed, its pictures drawn, its results kept."""

import dataclasses
import math
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastprune as fp
from fastprune.sweep.command import main
from fastprune.sweep.han2015 import figures, preset, study
from fastprune.sweep.han2015.recipes import HAN2015, Level, Recipe, Study, chain
from fastprune.sweep.han2015.study import Row, split
from fastprune.sweep.han2015.tables import no_loss, read_rows, spread, tables, write_rows

ROOT = Path(__file__).parents[1]
MNIST = ROOT / "bench" / "mnist"
KEPT = ROOT / "bench" / "han2015"

SHORT = Recipe(epochs=1, levels=(Level(12, 2, 0, 0.1), Level(80, 1, 0)), input_dropout=0.1)
ONCE = Recipe(epochs=1, levels=(Level(2, 0, 1),))
TINY = Study(
    SHORT, {"l1": dataclasses.replace(ONCE, l1=1e-5, l2=0.0), "l2": ONCE}, dataclasses.replace(SHORT, epochs=5)
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The whole study, in short: all its tasks on the real data."""
    out, said = tmp_path_factory.mktemp("study"), []
    preset.run(TINY, (0, 1), str(MNIST), True, out, said.append)
    return out, said


def test_all_tasks_give_their_rows(done):
    rows = read_rows(done[0] / "results.csv")
    methods = {
        "gradual": (1, 12, 80),
        "random": (1, 12, 80),
        "l1": (1,),
        "l2": (1,),
        "l1, not retrained": (2,),
        "l2, not retrained": (2,),
        "l1, retrained": (2,),
        "l2, retrained": (2,),
        "l2, iterative": (2,),
    }
    mnist = {("mnist", method, seed, target) for method, s in methods.items() for target in s for seed in (0, 1)}
    small = {(name, "gradual", seed, t) for name in study.SMALL_SETS for seed in (0, 1) for t in (1, 12, 80)}
    assert {(row.dataset, row.method, row.seed, row.target) for row in rows} == mnist | small
    assert len(rows) == len(mnist | small)
    for row in rows:
        assert row.compression == pytest.approx(row.target, rel=0.05)
        assert row.effective_compression >= row.compression * (1 - 1e-5)
        assert row.seconds > 0
        assert row.layer_active[-1] == 1
        assert all(0 < part <= 1 for part in (*row.layer_density, *row.layer_active))
        assert math.isnan(row.held_out_error) == (row.dataset == "mnist")
        if row.dataset == "mnist":
            assert row.test_error < {"random": 0.9, "gradual": 0.5}.get(row.method, 0.1)
    assert len({row.test_error for row in rows}) > len(rows) / 2


def test_what_it_says_and_writes(done):
    out, said = done
    names = {"results.csv", "tables.md", *(f"{name}.png" for name in ("error", "figure-4", "figure-5"))}
    assert {path.name for path in out.iterdir()} == names | {"figure-6.png", "figure-7.png"}
    for path in out.glob("*.png"):
        assert path.read_bytes()[:4] == b"\x89PNG"
        assert path.stat().st_size > 5000
    text = (out / "tables.md").read_text()
    assert text.startswith(tables(read_rows(out / "results.csv")))
    assert "Seeds 0, 1, and 0, 1 for what --full adds; mean ± standard deviation over seeds. fastprune 0.2" in text
    assert f"\n{text}" in said
    assert sum(bool(re.match(r" +\d+ s  gradual seed [01]  gradual 1x", line)) for line in said) == 2


def test_a_chain_reaches_its_levels_one_from_the_other():
    data = fp.load_dataset("digits")
    recipe = Recipe(epochs=5, levels=(Level(4, 3, 1, 0.2), Level(8, 2, 0)), input_dropout=0.3)
    seen, masks = [], []
    for stage in chain(recipe, data, 0):
        network = stage.trainer.network
        seen.append((stage.compression, network.execution[0], stage.trainer.input_dropout))
        masks.append(network.masks)
        assert network.compression == pytest.approx(stage.compression, rel=1e-3)
    assert seen == [(1.0, "dense", 0.3), (4, "sparse", 0.2), (8, "sparse", 0.0)]
    for old, new in zip(masks[1], masks[2], strict=True):
        assert (new <= old).all()
    assert not stage.trainer.restore_best


def test_split_takes_out_what_it_holds_out():
    data = fp.load_dataset("digits")
    less, (x, y) = split(data, 100, 3)
    assert (len(less.x_train), len(x), len(y)) == (1337, 100, 100)
    whole = np.sort(np.concatenate([less.x_train, x]).sum(axis=1))
    np.testing.assert_array_equal(whole, np.sort(data.x_train.sum(axis=1)))
    assert less.x_test is data.x_test
    np.testing.assert_array_equal(split(data, 100, 3)[1][0], x)
    assert (split(data, 100, 4)[1][1] != y).any()


def row(**fields):
    usual = Row(
        "mnist", "gradual", 0, 1.0, 1.0, 1.0, 266200, (1.0, 1.0, 1.0), (0.4, 0.6, 1.0), (0, 0), 0.016, 0.02, 9.0
    )
    return dataclasses.replace(usual, **fields)


def pruned(**fields):
    density = {"layer_density": (0.07, 0.15, 0.8), "layer_active": (0.5, 0.25, 1.0), "live": 22183}
    return row(
        **{"target": 12.0, "compression": 12.0, "effective_compression": 12.5, "test_error": 0.015, **density, **fields}
    )


SMALL_ROWS = [
    row(dataset=name, target=t, compression=t, live=round(1000 / t), held_out_error=held, test_error=err)
    for name in study.SMALL_SETS
    for t, held, err in ((1.0, 0.1, 0.01), (2.0, 0.05, 0.005), (4.0, 0.1, 0.01), (8.0, 0.11, 0.02))
]


def test_tables_of_known_rows():
    rows = [row(), row(seed=1, test_error=0.018), pruned(), pruned(seed=1, test_error=0.013, seconds=19.0), *SMALL_ROWS]
    text = tables(rows)
    assert "| MNIST, the paper | 1.64 | 1.59 | 267K → 22K | 12x |" in text
    assert "| MNIST, fastprune | 1.70 ± 0.14 | 1.40 ± 0.14 | 266,200 → 22,183 | 12x |" in text
    assert "| wine, fastprune | 1.00 | 1.00 | 1,000 → 250 | 4x |" in text
    assert "| fc1 | 8 / 7.0 | 38 / 50.0 | 8 / 7.0 |" in text
    assert "| fc2 | 9 / 15.0 | 65 / 25.0 | 4 / 7.5 |" in text
    assert "| fc3 | 26 / 80.0 | 100 / 100.0 | 17 / 20.0 |" in text
    assert "| dense | 266,200 | 1.0x | 1.70 ± 0.14 |  | 9 |  |" in text
    assert "| 12x | 22,183 | 12.5x | 1.40 ± 0.14 | -0.30 ± 0.28 | 14 | Han 2015: 1.59 |" in text
    assert "random" not in text
    text = tables([*rows, row(method="random", test_error=0.02), pruned(method="random", test_error=0.05)])
    assert "| 12x | 22,183 | 12.5x | 1.40 ± 0.14 | -0.30 ± 0.28 | 14 | 5.00 | Han 2015: 1.59 |" in text


def test_no_loss_is_on_average_over_seeds():
    assert no_loss(SMALL_ROWS[:4]) == 4.0
    assert no_loss(SMALL_ROWS[:1]) == 1.0
    worse = dataclasses.replace(SMALL_ROWS[2], seed=1, held_out_error=0.11)
    other = [dataclasses.replace(SMALL_ROWS[0], seed=1), worse]
    assert no_loss([*SMALL_ROWS[:4], *other]) == 1.0, "the other seed has not reached 2"
    assert no_loss([*SMALL_ROWS[:4], *other, dataclasses.replace(SMALL_ROWS[1], seed=1)]) == 2.0


def test_spreads():
    assert spread([0.015, 0.017]) == "1.60 ± 0.14"
    assert spread([0.015]) == "1.50"
    assert spread([0.001, 0.001], "+") == "+0.10 ± 0.00"


def test_rows_come_back_from_their_file(tmp_path):
    rows = [row(), pruned(held_out_error=float("nan")), *SMALL_ROWS]
    write_rows(tmp_path / "rows.csv", rows)
    again = read_rows(tmp_path / "rows.csv")
    assert repr(again) == repr(rows)  # NaN is not equal to itself


# What is kept of the whole study


def test_the_kept_tables_are_those_of_the_kept_rows():
    rows = read_rows(KEPT / "results.csv")
    text = (KEPT / "tables.md").read_text()
    assert text.startswith(tables(rows))
    mnist = [row for row in rows if (row.dataset, row.method) == ("mnist", "gradual")]
    assert {row.seed for row in mnist} == {0, 1, 2, 3, 4}
    assert {row.target for row in mnist} == {1, *(level.compression for level in HAN2015.mnist.levels)}
    assert {row.seed for row in rows if row.method == "random"} == {0, 1, 2}
    readme = (ROOT / "README.md").read_text()
    for line in text.splitlines():
        if line.startswith("|"):
            assert line in readme


@pytest.mark.parametrize(
    ("compression", "most"), [(1, 1.64), (12, 1.50), (20, 1.60), (56, 1.80), (68, 1.85), (80, 1.95)]
)
def test_the_kept_rows_are_as_good_as_the_readme_says(compression, most):
    rows = read_rows(KEPT / "results.csv")
    errors = [
        row.test_error for row in rows if (row.dataset, row.method, row.target) == ("mnist", "gradual", compression)
    ]
    assert len(errors) == 5
    assert 100 * np.mean(errors) <= most


# The command


def test_the_command_runs_the_study_of_the_paper(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(preset, "run", lambda *arguments: calls.append(arguments))
    arguments = [
        "--preset",
        "han2015",
        "--seeds",
        "3,4",
        "--data-dir",
        "there",
        "--full",
        "--out",
        str(tmp_path / "new"),
    ]
    assert main(arguments) == 0
    assert calls[0][:5] == (HAN2015, (3, 4), "there", True, tmp_path / "new")
    assert (tmp_path / "new").is_dir()


def test_what_is_missing_is_said_before_anything_is_done(monkeypatch, tmp_path, capsys):
    arguments = ["--preset", "han2015", "--out", str(tmp_path)]
    assert main([*arguments, "--data-dir", str(tmp_path)]) == 2
    assert "data_dir: expected the MNIST files" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([*arguments, "--full"]) == 2
    assert 'full: the pictures need an extra: pip install "fastprune[plots]"' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_chain_ends_where_retraining_collapses():
    """Where no weight is left but one, all samples are one class: the level is not reported as reached."""
    data = fp.load_dataset("digits")
    recipe = Recipe(epochs=2, levels=(Level(2, 1, 0), Level(50_200, 1, 0), Level(60_000, 1, 0)))
    assert [stage.compression for stage in chain(recipe, data, 0)] == [1.0, 2]


def test_what_fails_is_said_and_the_rest_is_kept(monkeypatch, tmp_path, capsys):
    wild = dataclasses.replace(SHORT, learning_rate=1e30)
    of = Study(dataclasses.replace(SHORT, levels=()), {}, wild)
    failures = preset.run(of, (0,), str(MNIST), False, tmp_path, lambda _: None)
    assert len(failures) == 3
    assert all(re.match(r"small \w+ seed 0: the loss became ", failure) for failure in failures)
    assert [row.method for row in read_rows(tmp_path / "results.csv")] == ["gradual"]
    assert not (tmp_path / "tables.md").exists()
    monkeypatch.setattr(preset, "run", lambda *_: ["small wine seed 0: lost"])
    assert main(["--preset", "han2015", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "fastprune.sweep: failed: small wine seed 0: lost\n"


def test_pictures_of_one_seed(tmp_path):
    weights = np.zeros((300, 784)), np.random.default_rng(0).normal(size=(300, 784))
    arrays = {"weights_1": weights[1], "weights_12": np.where(weights[1] > 1, weights[1], 0)}
    scan = {"sparsities": np.array([0.5, 0.9]), "accuracy": np.ones((3, 2)), "baseline": np.array(1.0)}
    penalties = [row(method=name, target=t) for name in ("l1, retrained", "l2, retrained") for t in (2.0, 4.0)]
    rows = [row(), pruned(), row(method="random"), pruned(method="random"), row(method="l2"), *penalties]
    assert len(figures.draw(tmp_path, rows, arrays, [scan])) == 5


def test_interrupted_it_keeps_the_rows_it_has_and_leaves_no_process(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_han2015 as t\n"
        "from pathlib import Path; from fastprune.sweep.han2015 import preset\n"
        "if __name__ == '__main__':\n"
        "    preset.run(t.SLOW, (0, 1, 2), sys.argv[2], False, Path(sys.argv[3]), lambda s: print(s, flush=True))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    command = [sys.executable, str(script), str(Path(__file__).parent), str(MNIST), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if "gradual seed" in line:
                listed = ["pgrep", "-P", str(process.pid)]
                children = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
                process.send_signal(signal.SIGINT)
                break
        process.communicate(timeout=60)
    assert process.returncode != 0
    assert {row.method for row in read_rows(tmp_path / "results.csv")} == {"gradual"}
    assert len(children) >= 2
    for _ in range(100):
        alive = [pid for pid in children if Path("/proc", pid).exists()]
        if not alive:
            break
        time.sleep(0.1)
    assert alive == []


SLOW = Study(
    dataclasses.replace(SHORT, levels=(Level(12, 1, 0),)), {}, dataclasses.replace(SHORT, epochs=100_000, batch_size=1)
)
