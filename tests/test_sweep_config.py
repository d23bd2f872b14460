"""The settings of a sweep: what flags and files may say, which cells they make, and how these are called."""

import math
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprune.sweep.config import Sweep, parse, presets
from fastprune.sweep.settings import Settings


def cells(**values):
    return Sweep.of(values).cells


def test_without_anything_it_is_five_seeds_of_the_defaults():
    assert cells() == [Settings(seed=seed) for seed in range(5)]


def test_the_grid_is_the_product_of_the_values_given():
    made = cells(hidden="20,300-100,none", l2=[0.0, 1e-4], seeds="7,8")
    expected = [
        Settings(hidden=hidden, l2=l2, seed=seed)
        for hidden in ((20,), (300, 100), ())
        for l2 in (0.0, 1e-4)
        for seed in (7, 8)
    ]
    assert made == expected


@pytest.mark.parametrize(
    ("key", "text", "values"),
    [
        ("seeds", "0:9:4", [0, 3, 6, 9]),
        ("seeds", "3:3:1", [3]),
        ("seeds", "5,0:2:3", [5, 0, 1, 2]),
        ("rounds", "9:3:3", [9, 6, 3]),
        ("seeds", f"{2**63}:{2**63 + 2}:3", [2**63, 2**63 + 1, 2**63 + 2]),
        ("momentum", "-0.0", [0.0]),
        ("momentum", "0:0.9:4", [0.0, 0.3, 0.6, 0.9]),
        ("learning_rate", "0.1:0.3:3", [0.1, 0.2, 0.3]),
        ("ignored_layers", "none,-1,0-1,0--1", [(), (-1,), (0, 1), (0, -1)]),
    ],
)
def test_ranges_and_lists(key, text, values):
    sweep = Sweep.of({"hidden": "5-5", key: text})
    assert str(list(sweep.axis("seed" if key == "seeds" else key))) == str(values)  # -0.0 is not 0.0


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(2, 40))
def test_a_range_has_its_ends_and_equal_distances(start, stop, count):
    if start == stop:
        return
    values = Sweep.of({"l1": f"{start}:{stop}:{count}"}).axis("l1")
    assert len(values) == count
    assert values[0] == start
    assert values[-1] == stop
    np.testing.assert_allclose(np.diff(values), (stop - start) / (count - 1), rtol=1e-8)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lerning_rate": 0.1}, "lerning_rate: expected the name of a setting; the nearest is learning_rate"),
        ({"seed": [1]}, "seed: expected the name of a setting; the nearest is seeds"),
        ({"xyzzy": 1}, "xyzzy: expected the name of a setting$"),
        (
            {"seeds": "0:1:3"},
            r"seeds: expected whole numbers or start:stop:count .*, got '0:1:3'",
        ),
        (
            {"seeds": "0:1:0"},
            r"seeds: expected whole numbers or start:stop:count .*, got '0:1:0'",
        ),
        ({"seeds": "0:1"}, r"seeds: expected whole numbers or start:stop:count \(equal steps, both ends\), got '0:1'"),
        ({"seeds": 0.5}, r"seeds: expected whole numbers or start:stop:count \(equal steps, both ends\), got 0.5"),
        ({"rounds": True}, r"rounds: expected whole numbers or start:stop:count \(equal steps, both ends\), got True"),
        ({"q": "many"}, r"q: expected numbers or start:stop:count \(equal steps, both ends\), got 'many'"),
        ({"q": [[20]]}, r"q: expected numbers or start:stop:count \(equal steps, both ends\), got \[20\]"),
        ({"q": math.nan}, "q: expected a number"),
        ({"hidden": [300, 100]}, r"hidden: expected whole numbers joined by dashes \(.*\), or none, got 300"),
        ({"hidden": "3--"}, r"hidden: expected whole numbers joined by dashes \(.*\), or none, got '3--'"),
        ({"scope": "here"}, "scope: expected one of 'layer', 'global', got 'here'"),
        ({"schedule": "cubic", "rule": "sparsity"}, "schedule: expected one of 'polynomial'"),
        ({"seeds": []}, r"seeds: expected at least one value and no duplicates, got \[\]"),
        ({"quality": 1.0}, "quality: needs --rule std, got --rule percentile"),
        ({"sparsity": 0.9}, "sparsity: needs --rule sparsity, got --rule percentile"),
        (
            {"rule": "sparsity", "layer_rates": "lamp"},
            "layer_rates: needs --scope layer, got --scope global",
        ),
        (
            {"rule": "std", "criterion": "random"},
            "criterion: needs --rule percentile or sparsity, got --rule",
        ),
        ({"dataset": "a/own.csv,b/own.csv"}, "dataset: expected different names, got a/own.csv, b/own.csv"),
        ({"jobs": 2, "cluster": "tcp://127.0.0.1:1"}, "jobs: has no effect with a cluster; leave it out"),
        ({"seeds": "0:1:99999999999999"}, "seeds: expected whole numbers"),
        ({"q": "0:inf:3"}, "q: expected numbers"),
        ({"q": 10**400}, "q: expected numbers"),
        ({"jobs": "1,2"}, "jobs: expected one value, got '1,2'"),
        ({"out": 3}, "out: expected text, got 3"),
        ({"jobs": -2}, "jobs: expected a number of processes, or -1 for one per core, got -2"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Sweep.of(values)


def test_a_setting_makes_cells_only_where_it_does_anything():
    made = cells(rule="percentile,std", q="20,40", quality="0.5,1", seeds=0)
    assert [(cell.rule, cell.q, cell.quality) for cell in made] == [
        ("percentile", 20.0, 0.5),
        ("percentile", 40.0, 0.5),
        ("std", 20.0, 0.5),
        ("std", 20.0, 1.0),
    ]
    made = cells(rule="sparsity", scope="global,layer", layer_rates="uniform,lamp", seeds=0)
    assert [(cell.scope, cell.layer_rates) for cell in made] == [
        ("global", "uniform"),
        ("layer", "uniform"),
        ("layer", "lamp"),
    ]


def test_a_setting_of_dense_training_makes_cells_only_where_it_does_anything_also_with_stages():
    made = cells(optimizer="sgd,adam", nesterov="false,true", stage=[{"rounds": 2}], seeds=0)
    assert [(cell.optimizer, cell.nesterov) for cell in made] == [("sgd", False), ("sgd", True), ("adam", False)]


def test_a_cell_is_named_by_what_differs_from_the_defaults():
    """The names are written down: they are those of files that may be years old, and must not change."""
    assert Settings().digest == "44136fa355b3"
    assert Settings(seed=1).digest == "a4bbadc1c789"
    assert Settings(rule="std", quality=0.5).digest == "4cd4f8850a40"
    assert Settings(hidden=(300, 100)).digest == Settings().digest
    names = [cell.digest for cell in cells(q="10:50:9", hidden="20,30", seeds="0:99:100")]
    assert len(set(names)) == len(names) == 1800


def test_the_dense_network_is_that_of_what_it_depends_on():
    cell = Settings(seed=3, l2=0.01)
    assert Settings().dense_digest != Settings().digest  # a cell of defaults is not its dense network
    for same in ({"rule": "std"}, {"q": 1.0}, {"rounds": 2}, {"retrain_epochs": 1}, {"max_drop": 0.5}, {"min_keep": 1}):
        assert replace(cell, **same).dense_digest == cell.dense_digest
        assert replace(cell, **same).digest != cell.digest
    for other in ({"seed": 4}, {"l2": 0.1}, {"epochs": 2}, {"dataset": "wine"}, {"hidden": (3,)}, {"dropout": 0.1}):
        assert replace(cell, **other).dense_digest != cell.dense_digest


STAGES = {
    "rule": "sparsity",
    "seeds": 0,
    "stage": [
        {"sparsity": "2x", "rounds": 2, "input_dropout": 0.1, "ignored_layers": "0-1"},
        {"sparsity": 0.9, "rounds": 3, "grower": "none"},
    ],
    "reference": [{"name": "Han 2015", "compression": 12, "error": 1.59, "layers": [[8, 38], [9, 65.5]]}],
    "grid": [
        {"name": "gradual", "l2": "0,1e-4"},
        {"name": "dense", "prune": False, "section": "Dense"},
        {"name": "once", "stage": [], "sparsity": ["2x", 0.75], "rounds": 1, "tolerance": "none,0.1"},
    ],
}


@pytest.mark.parametrize(
    "values",
    [
        {},
        STAGES,
        {"prune": "true,false", "nesterov": True, "max_drop": 0, "retrain_learning_rate": "adaptive,0.1"},
        {"q": [20, 30.5], "hidden": [[300, 100], [50], []], "dataset": 'a "quoted" name.csv', "jobs": 3},
        {"rule": "std", "quality": "0.1:1:10", "ignored_layers": "-1", "cluster": "tcp://127.0.0.1:8786"},
        {"l2": 1e-7, "seeds": [2**63], "out": "some/where"},
        {"dataset": "\N{GRINNING FACE} \u00e4.csv", "data_dir": "back\\slash"},
    ],
)
def test_a_sweep_as_a_file_is_the_same_sweep(values):
    sweep = Sweep.of(values)
    again = Sweep.of(tomllib.loads(sweep.to_toml()))
    assert again == replace(sweep, out=None)
    assert again.cells == sweep.cells


def test_grids_take_what_is_shared_and_change_some_of_it():
    sweep = Sweep.of(STAGES)
    gradual, dense, once = sweep.grids
    assert len(sweep.cells) == len(gradual.cells) + len(dense.cells) + len(once.cells) == 2 + 1 + 4
    assert [cell.last for cell in gradual.cells] == [5, 5]
    assert [cell.plan[0].final_sparsity for cell in gradual.cells] == [0.5, 0.5]
    assert [cell.plan[1].input_dropout for cell in gradual.cells] == [0.0, 0.0]
    assert gradual.cells[0].plan[0].ignored_layers == (0, 1)
    assert [cell.at(number).rounds for cell in dense.cells for number in (1, 2, 3, 5)] == [2, 2, 3, 3]
    assert {(cell.final_sparsity, cell.tolerance) for cell in once.cells} == {
        (0.5, None), (0.5, 0.1), (0.75, None), (0.75, 0.1)
    }  # fmt: skip
    assert gradual.label(gradual.cells[1]) == sweep.label(gradual.cells[1]) == "gradual l2=0.0001"
    assert once.label(once.cells[3], without=["tolerance"]) == "once sparsity=0.75"
    assert sweep.references[0].layers == ((8.0, 38.0), (9.0, 65.5))
    same = Sweep.of({**STAGES, "grid": [{"name": "a"}, {"name": "b"}]})
    assert len(same.cells) == 1  # a cell of two grids is run once
    assert same.label(same.cells[0]) == "a"


def test_flags_override_what_a_grid_says(tmp_path):
    file = tmp_path / "sweep.toml"
    file.write_text('seeds = [0, 1]\n[[grid]]\nname = "a"\nseeds = [2, 3]\n[[grid]]\nname = "b"\nq = 30\n')
    sweep = parse(["--config", str(file), "--seeds", "7", "--jobs", "1"]).sweep
    assert {cell.seed for cell in sweep.cells} == {7}
    assert sweep.jobs == 1
    assert [grid.axis("q") for grid in sweep.grids] == [(20.0,), (30.0,)]


def test_a_compression_is_a_sparsity():
    assert cells(rule="sparsity", sparsity="12x,1x", seeds=0)[0].final_sparsity == 1 - 1 / 12
    for text in ("0.5x", "x", "infx", "nanx"):
        if text != "infx":
            with pytest.raises(ValueError, match=r"^sparsity: expected numbers \(or compressions: 12x\)"):
                cells(rule="sparsity", sparsity=text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stage": {"rounds": 1}}, "stage: expected a list of tables, got {'rounds': 1}"),
        ({"stage": [3]}, "stage: expected a table, got 3"),
        ({"stage": [{"round": 3}]}, "stage.round: expected a setting that a stage has; the nearest is rounds"),
        ({"stage": [{"epochs": 3}]}, "stage.epochs: expected a setting that a stage has"),
        ({"stage": [{"seeds": 3}]}, "stage.seeds: expected a setting that a stage has"),
        ({"stage": [{"rounds": [3, 4]}]}, r"stage.rounds: expected whole numbers .*, got \[3, 4\]"),
        ({"stage": [{"rounds": "3,4"}]}, "stage.rounds: expected one value, got '3,4'"),
        ({"stage": [{"rounds": 3}], "rounds": 4}, "rounds: no stage uses it"),
        ({"stage": [{"rule": "std"}], "q": 30}, "q: no stage uses it"),
        ({"grid": []}, r"grid: expected a list of tables, got \[\]"),
        ({"grid": [3]}, "grid: expected a table, got 3"),
        ({"grid": [{}, {}]}, "grid.name: expected a different name for each grid, got '', ''"),
        ({"grid": [{"name": "a"}, {"name": "a"}]}, "grid.name: expected a different name for each grid, got 'a', 'a'"),
        ({"grid": [{"name": 3}]}, "grid.name: expected text, got 3"),
        ({"grid": [{"name": "a", "jobs": 1}]}, "jobs: expected the name of a setting"),
        ({"reference": [{"name": "x"}]}, "reference: expected compression and error, got name"),
        ({"reference": [{"name": "x", "compression": 0.5, "error": 1}]}, "reference.compression: expected a number"),
        ({"reference": [{"name": "x", "compression": 5, "error": 1, "eror": 1}]}, "reference.eror: expected a setting"),
        (
            {"reference": [{"name": "x", "compression": 5, "error": 1, "layers": [3]}]},
            r"reference.layers: expected \[weights, active units\] of each layer, got \[3\]",
        ),
        (
            {"prune": False, "sparsity": 0.5, "rule": "sparsity"},
            "sparsity: needs --prune true, got --prune false",
        ),
        ({"nesterov": "yes"}, "nesterov: expected true or false, got 'yes'"),
        ({"nesterov": 1}, "nesterov: expected true or false, got 1"),
        ({"nesterov": True, "optimizer": "adam"}, "nesterov: needs --optimizer sgd, got --optimizer adam"),
        (
            {"drop_fraction": 0.5, "rule": "sparsity", "scope": "layer"},
            "drop_fraction: needs --grower random or gradient, got --grower none",
        ),
        ({"tolerance": "none:1:3"}, "tolerance: expected numbers or none or start:stop:count"),
        ({"grower": "moss"}, "grower: expected one of 'random', 'gradient', got 'moss'"),
    ],
)
def test_bad_stages_grids_and_references(values, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Sweep.of(values)


@pytest.mark.parametrize("name", presets())
def test_presets_are_sweeps_that_go_to_a_folder_of_their_own(name):
    sweep = parse(["--preset", name, "--seeds", "3", "--jobs", "2"]).sweep
    assert sweep.folder == Path("runs", name)
    assert {cell.seed for cell in sweep.cells} == {3}
    assert all(cell.holdout or not cell.max_drop or cell.stage or cell.rounds == 1 for cell in sweep.cells)
    again = Sweep.of(tomllib.loads(sweep.to_toml()))
    assert again.cells == sweep.cells


def test_a_preset_and_a_file_exclude_one_another(tmp_path):
    with pytest.raises(ValueError, match="not allowed with argument"):
        parse(["--preset", "han2015", "--config", str(tmp_path / "none.toml")])


def test_flags_and_files_say_the_same_and_flags_go_first(tmp_path):
    file = tmp_path / "sweep.toml"
    file.write_text(
        'rule = ["percentile", "std"]\nq = 30\nquality = "0.5:1:2"\nhidden = ["20-10", [40]]\nseeds = [0, 1]\n'
    )
    flags = ["--rule", "percentile,std", "--q", "30", "--quality", "0.5:1:2", "--hidden", "20-10,40"]
    assert parse(["--config", str(file)]).sweep == parse([*flags, "--seeds", "0,1"]).sweep
    assert parse(["--config", str(file), "--seeds", "5"]).sweep == parse([*flags, "--seeds", "5"]).sweep


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q = ", "config: expected a TOML file of settings, got .*Invalid value"),
        ("qu = 3", "qu: expected the name of a setting; the nearest is q"),
        ("[data]\nq = 3", "data: expected the name of a setting; the nearest is dataset"),
        (f"q = {'[' * 3000}", "config: expected a TOML file of settings, got .*recursion"),
        (f"q{'.a' * 3000} = 1", "q: expected numbers .*, got one dict too long to show"),
        (f"q = {'9' * 5000}", "config: expected a TOML file of settings, got .*4300 digits"),
        (f"q = 0x{'f' * 9000}", "q: expected numbers .*, got one int too long to show"),
        (f"seeds = 0x{'f' * 9000}", "seeds: expected whole numbers .*, got one int too long to show"),
        (f"batch_size = 0x{'f' * 9000}", "batch_size: expected whole numbers .*, got one int too long to show"),
        (f"hidden = [[0x{'f' * 9000}]]", "hidden: expected whole numbers .*, got one list too long to show"),
        ("q = 2020-01-01", r"q: expected numbers .*, got datetime.date\(2020, 1, 1\)"),
        ("rule = 07:30:00", "rule: expected text, got datetime.time"),
        ("[q]\na.b = 1", "q: expected numbers .*, got {'a': {'b': 1}}"),
        ("[[dataset]]\na = 1", "dataset: expected text, got {'a': 1}"),
        ('dataset = "nul\\u0000.csv"', r"dataset: expected text, got 'nul\\x00.csv'"),
    ],
)
def test_bad_files(tmp_path, text, message):
    file = tmp_path / "sweep.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        parse(["--config", str(file)])


def test_folders():
    def folder(flags):
        return parse(flags).sweep.folder

    assert folder([]) == Path("runs/digits")
    assert re.fullmatch("runs/digits-[0-9a-f]{12}", str(folder(["--q", "30"])))
    assert folder(["--q", "30"]) != folder(["--q", "31"])
    assert folder(["--q", "30"]) == folder(["--q", "30.0"])
    assert folder(["--dataset", "/some/own.csv"]) == Path("runs/some_own.csv")
    assert folder(["--dataset", "../own.csv,wine"]) == Path("runs/own.csv-wine")
    long = "folder/" * 36 + "own.csv"  # a name of 259 bytes, where 255 may be
    assert re.fullmatch(f"runs/{'folder_' * 8}fold-[0-9a-f]{{12}}", str(folder(["--dataset", long])))
    assert folder(["--dataset", long[7:]]) == Path("runs", "folder_" * 35 + "own.csv")
    assert folder(["--out", "x"]) == Path("x")
    assert folder(["--preset", "han2015"]) == Path("runs/han2015")


@pytest.mark.parametrize(
    ("schedule", "numbers"),
    [
        ("linear", [0.3, 0.6, 0.9]),
        ("constant", [0.9, 0.9, 0.9]),
        ("geometric", [1 - 0.1 ** (1 / 3), 1 - 0.1 ** (2 / 3), 0.9]),
        ("polynomial", [0.9 - 0.9 * (2 / 3) ** 3, 0.9 - 0.9 * (1 / 3) ** 3, 0.9]),
    ],
)
def test_schedules(schedule, numbers):
    settings = Settings(rule="sparsity", final_sparsity=0.9, rounds=3, schedule=schedule)
    assert list(settings.amounts(0)[1]) == pytest.approx(numbers)
