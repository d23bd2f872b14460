"""Sweeps whose networks share weights: stages of their own, coded files, C, and exports."""

import re
import shutil

import boards
import numpy as np
import pytest
import sweeps

import fastprune as fp
import fastprune.export
from fastprune.sweep.cell import Data, advance, saved_network
from fastprune.sweep.command import main
from fastprune.sweep.config import Sweep
from fastprune.sweep.results import COLUMNS

SHARED = {"retrain_learning_rate": 0.003, "retrain_epochs": 3}
VALUES = {
    "hidden": "20-10",
    "epochs": 8,
    "seeds": [0, 1],
    "rule": "sparsity",
    "max_drop": 0.5,
    "stage": [
        {"sparsity": 0.8, "rounds": 1, "retrain_epochs": 6},
        {"weight_bits": "2-3-4", "bias_bits": 3, "rounds": 1, **SHARED},
        {"weight_bits": 2, "rounds": 1, **SHARED},
        {"sparsity": 0.9, "rounds": 2, "retrain_epochs": 2},
    ],
}


@pytest.fixture(scope="module")
def data():
    return Data.of(fp.load_dataset("digits"), 0.1)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "out"
    sweep = Sweep.of(VALUES | {"out": str(folder)})
    file = folder.with_suffix(".toml")
    file.write_text(sweep.to_toml())
    sweeps.run_here("--config", file, "--out", folder)
    return folder


def distinct(network):
    return [np.unique(weights[mask]).size for weights, mask in zip(network.weights, network.masks, strict=True)]


def test_shared_weights_are_trained_apart_and_pruning_goes_on_without_them(data):
    """Bit for bit what the library does: two copies share weights, and the original is pruned further."""
    (cell,) = Sweep.of(VALUES | {"seeds": 0}).cells
    assert cell.ends == [1, 2, 3, 5]
    states, records = [None], []
    for number in range(cell.last + 1):
        state, record = advance(cell, number, states[-1], data, 1)
        states.append(state)
        records.append(record)
    networks = [saved_network(cell, state) for state in states[1:]]

    trainer = fp.Trainer(fp.MLP([64, 20, 10, 10]), learning_rate_schedule="cosine", l2=1e-4, batch_size=64)
    trainer.fit(*data.train, 8)
    fp.Pruner(trainer, schedule=[0.8], scope="global").run(*data.train, 6)
    before = trainer.snapshot()
    for number, bits, bias_bits in ((2, [2, 3, 4], 3), (3, 2, None)):
        trainer.restore(before)
        fp.share_weights(trainer.network, bits, bias_bits=bias_bits)
        trainer.fit(*data.train, 3, learning_rate=0.003)
        for ours, theirs in zip(networks[number].weights, trainer.network.weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    trainer.restore(before)
    schedule = fp.schedules.PolynomialDecay(0.8, 0.9, rounds=2)
    fp.Pruner(trainer, schedule=schedule, scope="global").run(*data.train, 2)
    for ours, theirs in zip(networks[5].weights, trainer.network.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)

    for values, most in zip(distinct(networks[2]), (4, 8, 16), strict=True):
        assert most / 2 < values <= most
    assert 4 < np.unique(networks[2].biases[0]).size <= 8
    assert max(distinct(networks[3])) <= 4
    assert np.unique(networks[3].biases[0]).size == 20
    assert [record.coded_bytes is None for record in records] == [True, True, False, False, True, True]
    assert not records[2].events
    assert records[2].removed == 0
    assert records[2].sparsity == records[1].sparsity


@pytest.mark.parametrize("given", [{"rewind_to": 2}, {"grower": "random", "scope": "layer"}, {"restarts": False}])
def test_sharing_neither_rewinds_nor_grows(data, given):
    (cell,) = Sweep.of(VALUES | given | {"seeds": 0}).cells
    state, networks = None, []
    for number in range(4):
        state, _ = advance(cell, number, state, data, 1)
        networks.append(saved_network(cell, state))
    _, pruned, *shared = networks
    for network, most in zip(shared, (16, 4), strict=True):
        assert max(distinct(network)) <= most
        for layer in range(3):
            np.testing.assert_array_equal(network.masks[layer], pruned.masks[layer])
            off = abs(network.weights[layer] - pruned.weights[layer])[pruned.masks[layer]]
            assert np.median(off) < abs(pruned.weights[layer]).max() / 4  # nearest values, trained a little


def test_sizes_are_those_of_files(done, tmp_path):
    rows = sweeps.read(done / "results.csv")
    assert list(rows[0]) == list(COLUMNS)
    assert {row["weight_bits"] for row in rows if row["coded_bytes"]} == {"2-3-4", "2"}
    for row in rows:
        if row["coded_bytes"]:
            network = fp.load(done / "networks" / f"{row['cell']}-{row['round']}.npz")
            network.save(tmp_path / "net.fpc", coded=True)
            assert (tmp_path / "net.fpc").stat().st_size == int(row["coded_bytes"])


def test_the_best_network_is_the_smallest_file_and_is_there_coded_and_as_c(done):
    rows = [row for row in sweeps.read(done / "results.csv") if row["coded_bytes"]]
    sizes = {}
    for row in rows:
        sizes.setdefault(row["cell"], []).append(int(row["coded_bytes"]))
    coded = done / "best.fpc"
    assert coded.stat().st_size in map(min, sizes.values())
    x = fp.load_dataset("digits").x_test
    np.testing.assert_array_equal(fp.load(coded).logits(x), fp.load(done / "best.npz").freeze().logits(x))
    assert "int best_predict(const float x[BEST_INPUTS]);" in (done / "best.h").read_text()
    assert (done / "best.c").read_text().startswith('#include "best.h"')


def test_best_files_of_an_earlier_sweep_do_not_stay(tmp_path, done):
    short = VALUES | {"out": str(tmp_path / "out"), "seeds": 0, "epochs": 1}
    for stages in (VALUES["stage"][:2], VALUES["stage"][:1]):
        file = tmp_path / "sweep.toml"
        file.write_text(Sweep.of(short | {"stage": stages}).to_toml())
        sweeps.run_here("--config", file, "--out", short["out"])
        written = {path.name for path in (tmp_path / "out").iterdir()}
        assert {"best.npz", "results.csv"} <= written
        assert ({"best.fpc", "best.c", "best.h"} <= written) == (len(stages) == 2)
        assert len({"best.fpc", "best.c", "best.h"} & written) in (0, 3)


def test_the_terminal_has_bits_and_bytes(tmp_path, capsys):
    file = tmp_path / "sweep.toml"
    file.write_text(Sweep.of(VALUES).to_toml())
    sweeps.run_here("--config", file, "--out", tmp_path / "out", quiet=False)
    shown = capsys.readouterr().out
    assert re.search(r"to dense +bits +coded bytes +seeds\n", shown)
    rows = sweeps.read(tmp_path / "out" / "results.csv")
    for number, bits in ((2, "2-3-4, biases 3"), (3, "2")):
        mean = np.mean([int(row["coded_bytes"]) for row in rows if row["round"] == str(number)])
        assert re.search(rf"^ +{number} +80.00 %.* {bits} +{mean:,.0f} +2$", shown, re.MULTILINE)
    assert re.search(r"^Also: .*best.fpc \([\d,]+ bytes\) and .*best.c$", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weight_bits": 9, "rounds": 1}, "stage 2, weight_bits: expected an integer of at most 8, got 9"),
        ({"weight_bits": 0, "rounds": 1}, "stage 2, weight_bits: expected an integer of at least 1, got 0"),
        ({"weight_bits": "2-2", "rounds": 1}, "stage 2, weight_bits: expected one number for each of 3 layers, got 2"),
        ({"weight_bits": 2, "bias_bits": 9, "rounds": 1}, "stage 2, bias_bits: expected an integer of at most 8"),
        ({"weight_bits": 2, "rounds": 2}, "stage 2, rounds: expected 1 with weight_bits, got 2"),
        ({"weight_bits": 2, "rounds": 1, "sparsity": 0.9}, "stage 2, sparsity: has no effect beside weight_bits"),
        ({"bias_bits": 2, "rounds": 1}, "bias_bits: needs weight_bits"),
        ({"weight_bits": 2, "rounds": 1, "prune": False}, "stage 2, prune: has no effect beside weight_bits"),
        ({"weight_bits": "2.5"}, "stage.weight_bits: expected whole numbers joined by dashes, or none, got '2.5'"),
        ({"weight_bits": True}, "stage.weight_bits: expected whole numbers joined by dashes, or none, got True"),
    ],
)
def test_bad_stages(tmp_path, capsys, given, message):
    file = tmp_path / "sweep.toml"
    stages = ["{ sparsity = 0.5, rounds = 1 }"]
    own = ", ".join(f"{name} = {repr(value).lower()}" for name, value in given.items())
    stages += [f"{{ {own} }}"]
    file.write_text(f'hidden = "20-10"\nrule = "sparsity"\nstage = [{", ".join(stages)}]\n')
    assert main(["--config", str(file), "--out", str(tmp_path / "out")]) == 2
    assert re.fullmatch(f"fastprune.sweep: {message}.*\n", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_exports_are_of_the_best_network_and_stay(done, tmp_path, capsys):
    expected = fp.load(done / "best.npz").freeze()
    x = fp.load_dataset("digits").x_test
    for form, suffix in (("coded", "fpc"), ("c", "c"), ("onnx", "onnx"), ("safetensors", "safetensors")):
        assert main(["export", str(done), "--to", form]) == 0
        target = done / "exports" / f"best.{suffix}"
        assert capsys.readouterr().out == f"Wrote {target}\n"
        if suffix in ("fpc", "c"):
            assert target.read_bytes() == (done / f"best.{suffix}").read_bytes()
    exported = fastprune.export.from_onnx(done / "exports" / "best.onnx")
    np.testing.assert_allclose(exported.logits(x), expected.logits(x), rtol=1e-5, atol=1e-5)
    assert main(["export", str(done), "--to", "c", "--arithmetic", "int8", "--byte-scale", "1/16"]) == 0
    header = (done / "exports" / "best.h").read_text()
    assert "int best_predict(const uint8_t x[BEST_INPUTS]);" in header
    assert "8-bit integers" in header
    settings = {
        "arithmetic": "int8",
        "byte_scale": 1 / 16,
        "calibration": Data.of(fp.load_dataset("digits"), 0.1).train[0],
    }
    fastprune.export.to_c(expected, tmp_path / "best.c", **settings)
    written = (done / "exports" / "best.c").read_bytes()
    assert written == (tmp_path / "best.c").read_bytes()
    assert main(["report", str(done)]) == 0
    assert (done / "exports" / "best.c").read_bytes() == written


def test_an_export_is_of_what_the_store_has_not_of_an_earlier_best_file(done, tmp_path):
    """Which a command that was killed has not written again."""
    folder = tmp_path / "out"
    shutil.copytree(done, folder)
    (folder / "best.npz").unlink()
    assert main(["export", str(folder), "--to", "coded"]) == 0
    assert (folder / "exports" / "best.fpc").read_bytes() == (done / "best.fpc").read_bytes()


def test_integers_are_not_calibrated_by_other_data(tmp_path, capsys):
    data = fp.load_dataset("digits")
    table = np.column_stack([data.x_train, data.y_train])
    np.savetxt(tmp_path / "own.csv", table, delimiter=",")
    file = tmp_path / "sweep.toml"
    given = {"dataset": str(tmp_path / "own.csv"), "stage": VALUES["stage"][:2], "seeds": 0}
    file.write_text(Sweep.of(VALUES | given).to_toml())
    sweeps.run_here("--config", file, "--out", tmp_path / "out")
    table[:, :-1] *= 2
    np.savetxt(tmp_path / "own.csv", table, delimiter=",")
    assert main(["export", str(tmp_path / "out"), "--to", "c", "--arithmetic", "int8"]) == 2
    assert "got other data" in capsys.readouterr().err
    assert not (tmp_path / "out" / "exports").exists()


def test_a_sharing_that_fails_ends_nothing(tmp_path):
    """Only that copy of the network is lost; levels below it do not depend on it."""
    stages = [dict(stage) for stage in VALUES["stage"]]
    stages[1]["retrain_learning_rate"] = 1e30
    file = tmp_path / "sweep.toml"
    file.write_text(Sweep.of(VALUES | {"stage": stages, "seeds": 0}).to_toml())
    results, failures = sweeps.run_here("--config", file, "--out", tmp_path / "out")
    (cell,) = results.cells
    assert not failures
    assert [record.failed for record in cell.records] == [False, False, True, False, False, False]
    assert "nothing removed" not in cell.records[2].events
    assert cell.finished
    assert cell.best == 3
    assert cell.records[4].sparsity > cell.records[3].sparsity == 0.8
    names = {path.name.partition("-")[2] for path in (tmp_path / "out" / "networks").iterdir()}
    assert names == {"", "1.npz", "3.npz", "5.npz"}
    again, _ = sweeps.run_here("--config", file, "--out", tmp_path / "out")  # nothing is thought to be missing
    assert again.cells[0].lines == cell.lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: folder, --to"),
        (["done", "--to", "pickle"], "argument --to: invalid choice: 'pickle'"),
        (["missing", "--to", "c"], "export: expected the folder of a sweep, got 'missing'"),
        (["done", "--to", "coded", "--byte-scale", "1"], "byte-scale: needs --to c, got --to coded"),
        (["done", "--to", "c", "--byte-scale", "1/0"], "argument --byte-scale: expected a number, or a .* got '1/0'"),
        (
            ["done", "--to", "c", "--byte-scale", "-1"],
            r"byte_scale: expected a number in \[1e-9, 1e9\], got -1.0",
        ),
        (["done", "--to", "c", "--byte-scale", "1e999999999"], r"byte_scale: expected a number in .*, got inf"),
        (["unchosen", "--to", "c"], "export: expected a sweep with a best network, got 'unchosen' without"),
    ],
)
def test_bad_exports(done, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "done").symlink_to(done)
    if "unchosen" in arguments:
        (tmp_path / "unchosen").mkdir()
        (tmp_path / "unchosen" / "sweep.toml").write_text("holdout = 0\n")
    assert main(["export", *arguments]) == 2
    out, err = capsys.readouterr()
    assert re.fullmatch(f"fastprune.sweep: .*{message}.*\n", err)
    assert not out


@pytest.mark.long
@pytest.mark.skipif(not boards.has("gcc"), reason="gcc is not installed")
def test_two_commands_go_from_a_csv_file_to_c(tmp_path, monkeypatch, capsys):
    """What docs/microcontrollers.md begins with."""
    monkeypatch.chdir(tmp_path)
    data = fp.load_dataset("digits")
    x, y = np.vstack([data.x_train, data.x_test]), np.hstack([data.y_train, data.y_test])
    np.savetxt("digits.csv", np.column_stack([x, y]), fmt="%g", delimiter=",")
    assert main(["--preset", "tiny", "--dataset", "digits.csv"]) == 0
    assert main(["export", "runs/tiny", "--to", "c", "--arithmetic", "int8", "--byte-scale", "1/16"]) == 0
    out = capsys.readouterr().out
    assert "Also: runs/tiny/best.fpc" in out
    assert out.endswith("Wrote runs/tiny/exports/best.c\n")
    network = fp.load("runs/tiny/best.npz")
    assert network.sparsity > 0.9
    assert max(distinct(network)) <= 16
    assert (fp.load("runs/tiny/best.fpc").predict(x) == y).mean() > 0.9
    library = boards.Library(tmp_path / "runs/tiny/exports/best.c", options=("-O2", *boards.STRICT))
    assert (library("predict", np.rint(x * 16)) == network.predict(x)).mean() > 0.97
