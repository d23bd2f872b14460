"""The report: its content; a browser shows it and sorts its tables; axe finds everyone can read it."""

import base64
import html
import re
import shutil
import struct
import subprocess
import tarfile
import tomllib
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from sweeps import SMALL, AtOnce, outcome, read, run_here

import fastprune as fp
from fastprune.sensitivity import SCAN
from fastprune.sweep import run_sweep
from fastprune.sweep.cell import Record
from fastprune.sweep.command import main
from fastprune.sweep.config import Sweep, parse
from fastprune.sweep.engine import Failure
from fastprune.sweep.report import figures, page, write_report
from fastprune.sweep.results import Results, Spread, _controls
from fastprune.sweep.run import make_report
from fastprune.sweep.store import Cell, Store

PLOTS = ("accuracy", "retraining", "density", "seconds", "sensitivity", "weights", "mask")
AXE = "axe-core@4.14.1"
STAGES = [{"sparsity": 0.5, "rounds": 2}, {"sparsity": 0.75, "rounds": 1}]
HAN = {"name": "Han <2015>", "compression": 2, "error": 1.59, "layers": [[8, 38], [9, 65], [26, 100]]}
GRIDS = [
    {"name": "gradual", "holdout": 0, "stage": STAGES},
    {"name": "dense, trained as long", "holdout": 0, "stage": STAGES, "prune": False},
    {"name": "once", "section": "Wine / <once>", "dataset": "wine", "rounds": 1, "sparsity": [0.8, 0.5]},
]
MANY = {"hidden": "20-10", "seeds": "0,1", "epochs": 8, "retrain_epochs": 4, "rule": "sparsity", "grid": GRIDS}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A sweep of a single setting, and one of three grids in two sections: both with reports, to be read only."""
    folder = tmp_path_factory.mktemp("report")
    one = parse([*SMALL, "--out", str(folder / "one")]).sweep
    many = Sweep.of({**MANY, "reference": [HAN], "out": str(folder / "many")})
    for sweep in (one, many):
        _, failures = run_sweep(sweep, executor=AtOnce(), workers=1, quiet=True)
        assert failures == []
    return folder


def missing(*_):
    raise ImportError


@pytest.fixture(scope="module")
def failed(done, tmp_path_factory):
    """A report of a failure, without plots."""
    folder = tmp_path_factory.mktemp("failed") / "one"
    shutil.copytree(done / "one", folder)
    asked = replace(parse(SMALL).sweep, out=str(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "draw", missing)
        write_report(
            Results(asked, Store(folder).load(asked.cells)), [Failure(asked.cells[:1], 2, "<no> & never")], folder
        )
    return folder


def text(folder):
    return (folder / "report.html").read_text()


def plain(content):
    """As a reader sees it."""
    return html.unescape(re.sub("<[^>]*>", "", content)).replace("\N{NO-BREAK SPACE}", " ")


def tables(content):
    """The rows of each table by its title: what is shown, by column, and as "" whether the row has a star."""
    found = {}
    for title, table in re.findall(r"<h3>(.*?)</h3>.*?<table class='sortable'.*?>(.*?)</table>", content, re.DOTALL):
        head = [plain(name) for name in re.findall("<button.*?>(.*?)</button>", table)]
        rows = re.findall(r"<tr( class=best)?>(<th scope='row'.*?)</tr>", table)
        cells = [[bool(star), *map(plain, re.findall("<t[hd].*?>(.*?)</t[hd]>", row))] for star, row in rows]
        found[plain(title).partition(": mean")[0]] = [dict(zip(["", *head], row, strict=True)) for row in cells]
    return found


def test_it_is_one_file_that_needs_no_other(done):
    for name in ("one", "many"):
        content = text(done / name)
        assert not re.findall(r"(?:src|href)=[\"'](?!data:)", content)
        assert "http" not in re.sub(r"http://www\.w3\.org[^\"']*", "", content)
        assert "url(" not in content


def test_its_plots_are_files_too(done):
    for path in (done / "one" / "plots").glob("*.svg"):
        assert ET.parse(path).getroot().tag.endswith("svg")
        assert base64.b64encode(path.read_bytes()).decode() in text(done / "one")
        header = path.with_suffix(".png").read_bytes()[:24]
        assert header[:8] == b"\x89PNG\r\n\x1a\n"
        assert min(struct.unpack(">II", header[16:])) > 300
    assert {path.stem for path in (done / "one" / "plots").iterdir()} == set(PLOTS)
    expected = {f"{plot}-{section}" for plot in PLOTS for section in ("digits", "Wine-once")}
    assert {path.stem for path in (done / "many" / "plots").iterdir()} == expected


def test_its_numbers_are_those_of_the_results(done):
    content = text(done / "one")
    rows = read(done / "one" / "results.csv")
    table = tables(content)["Rounds"]
    for number in range(4):
        accuracies = [100 * float(row["after_test_accuracy"]) for row in rows if row["round"] == str(number)]
        spread = Spread.of(accuracies)
        assert table[number]["test accuracy retrained, %"] == f"{spread.mean:.2f} ± {spread.deviation:.2f}"
    network = fp.load(done / "one" / "best.npz")
    assert f"seed {network_seed(done)}, round" in content
    assert f", {network.live_weights:,} weights, test accuracy" in content
    assert 'fastprune.load("best.npz")' in html.unescape(content)
    assert "<th scope='row'>retrain_epochs</th><td>4</td>" in content
    assert "<th scope='row'>quality</th>" not in content  # no cell uses it


def network_seed(done):
    """Whose network best.npz is."""
    results = Results(parse(SMALL).sweep, Store(done / "one").load(parse(SMALL).sweep.cells))
    best = results.best["digits"].cell.settings
    assert (done / "one" / "networks" / f"{best.digest}.npz").read_bytes() == (done / "one" / "best.npz").read_bytes()
    return best.seed


def test_it_says_how_to_do_it_again(done, tmp_path, monkeypatch):
    for name in ("many", "one"):
        file, command = map(html.unescape, re.findall(r"<pre>(.*?)</pre>", text(done / name), re.DOTALL)[:2])
        assert command == f"python -m fastprune.sweep --config sweep.toml --out {name}"
        asked = Sweep.of(tomllib.loads((done / name / "sweep.toml").read_text()))
        assert Sweep.of(tomllib.loads(file)) == asked
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.toml").write_text(file)
    run_here(*command.split()[3:])
    assert outcome(tmp_path / "one") == outcome(done / "one")


@pytest.mark.long  # the short twin: without plots, below
def test_it_is_made_again_from_the_folder_alone_wherever_that_is(done, tmp_path):
    shutil.copytree(done / "one", tmp_path / "moved")
    for path in ("report.html", "results.csv", "best.npz"):
        (tmp_path / "moved" / path).unlink()
    shutil.rmtree(tmp_path / "moved" / "plots")
    assert main(["report", str(tmp_path / "moved")]) == 0
    assert text(tmp_path / "moved") == text(done / "one").replace("--out one", "--out moved")
    assert outcome(tmp_path / "moved") == outcome(done / "one")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "report: expected one folder of a sweep, got nothing"),
        (["a", "b"], "report: expected one folder of a sweep, got a b"),
        (["--help"], "report: expected one folder of a sweep, got --help"),
        (["missing"], "report: expected the folder of a sweep, got 'missing'"),
    ],
)
def test_bad_folders(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_without_matplotlib_it_says_what_is_missing(done, tmp_path, monkeypatch):
    shutil.copytree(done / "one", tmp_path / "copy")
    (tmp_path / "copy" / "results.csv").unlink()
    monkeypatch.setattr(page, "draw", missing)
    make_report(tmp_path / "copy")
    assert outcome(tmp_path / "copy") == outcome(done / "one")
    assert 'pip install "fastprune[plots]"' in text(tmp_path / "copy")
    assert "<th scope='row' data-value='3'>3</th>" in text(tmp_path / "copy")


def test_what_failed_is_told_and_text_is_text(done, failed):
    assert "seed=0, round 2: &lt;no&gt; &amp; never" in text(failed)
    assert "<h2>Wine / &lt;once&gt;</h2>" in text(done / "many")
    assert "<once>" not in text(done / "many")
    assert "<2015>" not in text(done / "many")


def test_grids_stand_in_their_sections_with_tables_of_what_each_has(done):
    """Ends of stages, all rounds, or single rounds by sparsity; references stand in the first section alone."""
    content = text(done / "many")
    assert re.findall("<h2>(.*?)</h2>", content)[:2] == ["digits", "Wine / &lt;once&gt;"]
    first, second = (tables(part) for part in content.split("<h2>")[1:3])
    stages, control = first["Ends of stages of gradual"], first["Ends of stages of dense, trained as long"]
    assert [row["round"] for row in stages] == [row["round"] for row in control] == ["dense", "2", "3"]
    assert [row["published, %"] for row in stages] == ["", "Han <2015>: 98.41", ""]
    assert "Layers of gradual at 2.0x: Han <2015> / here" in first
    assert len(first) == 3  # nothing is held out: nothing is compared by what is kept
    assert "published, %" not in control[0]
    assert [row["vs dense trained as long"] != "" for row in stages] == [False, True, True]
    single = second["Single rounds"]
    assert [row["compression"] for row in single] == ["1.0x", "2.0x", "5.0x"]
    assert "published, %" not in single[0]
    assert list(second) == ["Settings, compared by the network that each seed keeps", "Single rounds"]
    for table in second.values():
        assert sum(row[""] for row in table) == 1
    assert [row["round"] for row in tables(text(done / "one"))["Rounds"]] == ["dense", "1", "2", "3"]


def test_networks_of_a_sweep_without_held_out_samples_are_drawn(done):
    """That at the end of the stage which is published, not the last."""
    content = plain(text(done / "many"))
    assert "Weights of the network of gradual, seed 0, 2.0x, before and after pruning." in content
    asked = Sweep.of(MANY)
    network = fp.load(done / "many" / "networks" / f"{asked.cells[0].digest}-2.npz")
    alt = html.unescape(re.search("<img id='mask-digits' alt='(.*?)'", text(done / "many"))[1])
    assert alt.startswith(f"{network.masks[0].sum():,} weights are live.")
    alt = html.unescape(re.search("<img id='weights-digits' alt='(.*?)'", text(done / "many"))[1])
    assert alt.endswith(f": {network.total_weights:,} dense weights and {network.live_weights:,} live ones.")


BLANK = dict.fromkeys(Record._fields, 0) | {"layer_sparsity": [0.0], "sensitivity": [[1.0] * 17]}
BLANK |= {"active_units": None, "coded_bytes": None}


def made(values, tell):
    """Results of made-up records: `tell` gives test accuracy and live weights of a cell's rounds, and what else is so.

    Held-out accuracy is test accuracy; right after a prune, it is 10 points less.
    """
    sweep, done = Sweep.of(values), {}
    for cell in sweep.cells:
        records, rounds = [], [(*told, {})[:3] for told in tell(cell)]
        for number, (accuracy, live, more) in enumerate(rounds):
            about = {"round": number, "live": live, "after_test_accuracy": accuracy, "failed": False, "fit_epochs": 2}
            about |= {"before_test_accuracy": accuracy - 0.1 if number else None}
            about |= {"sparsity": 1 - live / rounds[0][1], "compression": rounds[0][1] / live}
            about |= {"after_validation_accuracy": accuracy if cell.holdout else None}
            about |= {"validation_samples": 10_000 if cell.holdout else 0}
            records.append(Record(**BLANK | about | more))
        if records:
            done[cell.digest] = Cell(cell, "").with_(*records)
    return Results(sweep, done)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes the page of results, without plots."""
    monkeypatch.setattr(page, "draw", missing)
    monkeypatch.setattr(page, "_networks", lambda *_: None)
    return lambda results: text(write_report(results, [], tmp_path).parent)


def best_of(table, **settings):
    """The best network of made-up cells, by q and seed."""
    values = {"q": sorted({q for q, _ in table}), "seeds": sorted({seed for _, seed in table}), "rounds": 2}
    return made({**values, **settings}, lambda cell: table.get((cell.q, cell.seed), [])).best.get("digits")


GOOD = [(0.98, 900), (0.98, 90), (0.9, 9)]  # keeps 90 weights


def kept(live, accuracy=0.98):
    """A cell that keeps so many weights."""
    return [(0.98, 900), (accuracy, live), (0.9, live - 1)]


def test_best_settings_have_the_fewest_weights_on_average_and_their_best_network_is_saved():
    best = best_of({(20, 0): kept(10), (20, 1): kept(200), (40, 0): kept(100, 0.98), (40, 1): kept(102, 0.985)})
    assert (best.group.settings.q, best.cell.settings.seed, best.record.live) == (40, 1, 102)
    assert best.group.kept.live == 101


def test_settings_that_trained_badly_set_themselves_a_low_bar_and_do_not_win_by_it():
    bad = [(0.5, 900), (0.5, 5), (0.5, 4)]
    assert best_of({(20, 0): GOOD, (40, 0): bad}).group.settings.q == 20
    assert best_of({(40, 0): bad}).record.live == 4
    lower = [(0.965, 900), (0.965, 5), (0.9, 4)]  # 1.5 points below the best dense network
    assert best_of({(20, 0): GOOD, (40, 0): lower}).group.settings.q == 20
    assert best_of({(20, 0): GOOD, (40, 0): lower}, max_drop=0.02).group.settings.q == 40


def test_held_out_accuracy_breaks_ties():
    assert best_of({(20, 0): kept(90, 0.975), (40, 0): kept(90, 0.98)}).group.settings.q == 40
    assert best_of({(20, 0): kept(90, 0.98), (40, 0): kept(90, 0.975)}).group.settings.q == 20


def test_cells_that_are_not_finished_do_not_count():
    assert best_of({(20, 0): kept(90)[:2]}) is None
    assert best_of({(20, 0): kept(90), (40, 0): kept(5)[:2]}).group.settings.q == 20
    assert best_of({(20, 0): kept(90), (20, 1): kept(5)[:2]}).group.kept.live == 90


def test_without_held_out_samples_there_is_no_best_network_and_nothing_to_compare(written):
    values = {"q": [20, 40], "seeds": 0, "rounds": 2}
    for holdout in (0, 0.1):
        results = made({**values, "holdout": holdout}, lambda cell: GOOD)
        content = written(results)
        assert bool(results.best) == bool(holdout)
        for part in ("compared by the network", "Each seed keeps", "best.npz", "class=best"):
            assert (part in content) == bool(holdout)


@pytest.mark.parametrize(("samples", "points", "coarse"), [(100, "2.46", True), (600, "0.91", False)])
def test_it_says_if_too_few_samples_are_held_out_to_tell_a_drop(written, samples, points, coarse):
    told = [(0.95, 900, {"validation_samples": samples}), (0.95, 90, {"validation_samples": samples})]
    results = made({"seeds": 0, "rounds": 1}, lambda cell: told)
    share = (0.95 * samples + 2) / (samples + 4)
    assert results.best["digits"].uncertainty == pytest.approx((share * (1 - share) / (samples + 4)) ** 0.5)
    content = plain(written(results))
    assert f"standard error of {points} points ({samples} samples)" in content
    assert ("too coarse to tell a drop of max_drop (0.01)" in content) == coarse


def test_a_network_without_a_miss_is_not_certain():
    told = [(1.0, 900, {"validation_samples": 28}), (1.0, 90, {"validation_samples": 28})]
    assert made({"seeds": 0, "rounds": 1}, lambda cell: told).best["digits"].uncertainty == pytest.approx(
        0.0428, abs=1e-4
    )


def test_a_dense_control_may_have_only_the_first_stages():
    stages = [{"sparsity": "2x", "rounds": 2}, {"sparsity": "4x", "rounds": 3}]
    grids = [
        {"name": "pruned"},
        {"name": "control", "prune": False, "stage": stages[:1]},
        {"name": "other L2", "prune": False, "l2": 0},
        {"name": "no stages", "prune": False, "stage": [], "rounds": 2},
        {"name": "at random", "criterion": "random"},
    ]
    sweep_ = Sweep.of({"seeds": 0, "rule": "sparsity", "stage": stages, "grid": grids})
    pruned, control, *others, random = (grid.cells[0] for grid in sweep_.grids)
    assert [_controls(control, cell) for cell in (pruned, random)] == [True, True]
    assert not any(_controls(cell, pruned) for cell in (*others, pruned))
    assert not any(_controls(control, cell) for cell in (control, *others))


def test_a_dense_control_gives_the_difference_from_a_network_trained_as_long(written):
    """Of the same seed, after as many rounds."""
    pruned = {0: [(0.98, 900), (0.96, 90), (0.97, 9)], 1: [(0.97, 900), (0.95, 90), (0.95, 9)]}
    longer = {0: [(0.98, 900), (0.97, 900), (0.96, 900)], 1: [(0.97, 900), (0.97, 900), (0.93, 900)]}
    values = {"prune": [True, False], "seeds": [0, 1], "rounds": 2, "holdout": 0}
    results = made(values, lambda cell: (pruned if cell.prune else longer)[cell.seed])
    table = tables(written(results))["Rounds of prune=true"]
    assert [row["vs dense trained as long"] for row in table] == ["", "-1.50 ± 0.71", "+1.50 ± 0.71"]
    assert [row["vs dense"] for row in table] == ["", "-2.00 ± 0.00", "-1.50 ± 0.71"]
    assert "vs dense trained as long" not in tables(written(results))["Rounds of prune=false"][0]


def test_a_seed_that_keeps_its_dense_network_is_no_different_from_it():
    stays = [(0.98, 900), (0.9, 90), (0.9, 9)]
    cells = {0: kept(90, 0.975), 1: stays}
    (group,) = made({"seeds": [0, 1], "rounds": 2}, lambda cell: cells[cell.seed]).groups
    assert group.kept.difference.mean == pytest.approx(-0.0025)
    assert group.rows[0].difference is None


def test_layers_stand_beside_published_ones(written):
    """As Han et al. count multiplications: a weight costs nothing where the unit that it reads is 0."""
    layers = {"layer_sparsity": [0.9, 0.8, 0.5], "active_units": [0.4, 0.6]}
    told = [(0.98, 900, {"layer_sparsity": [0, 0, 0], "active_units": [0.5, 0.5]}), (0.97, 440, layers), (0.97, 400)]
    han = {**HAN, "name": "Han", "layers": HAN["layers"]}
    content = written(made({"seeds": 0, "rounds": 2, "reference": [han]}, lambda cell: told))
    assert [list(row.values())[2:] for row in tables(content)["Layers at 2.0x: Han / here"]] == [
        ["8 / 10.0", "38 / 40.0", "8 / 10.0"],
        ["9 / 20.0", "65 / 60.0", "3 / 8.0"],
        ["26 / 50.0", "100 / 100.0", "17 / 30.0"],
    ]
    assert [row["published, %"] for row in tables(content)["Rounds"]] == ["", "Han: 98.41", ""]
    assert "published" not in written(
        made({"seeds": 0, "rounds": 2, "reference": [han | {"compression": 9}]}, lambda cell: told)
    )


def once(**more):
    """Results of three sparsities pruned once, and a dense control."""
    grids = [{"name": "once", "sparsity": [0.8, 0.5, 0.9]}, {"name": "control", "prune": False}]
    values = {"rule": "sparsity", "seeds": [0, 1], "rounds": 1, "holdout": 0, "grid": grids, **more}

    def tell(cell):
        live = round(1000 * (1 - cell.final_sparsity)) if cell.prune else 1000
        accuracy = 0.9 + live / 20_000 + 0.02 * cell.seed
        curves = [[x - 0.1 * cell.seed for x in SCAN], [0.5] * 17]
        return [(0.95 + 0.02 * cell.seed, 1000, {"sensitivity": curves}), (accuracy, live)]

    return made(values, tell)


def subject(results):
    """What is drawn of its first section."""
    section = next(iter(results.sections))
    lines = results.lines(section)
    return figures.Subject(lines, results.references(section), lines[0], list(results.best.values()), None)


@pytest.fixture
def canvas():
    return pytest.importorskip("matplotlib.figure", reason="matplotlib is not installed").Figure()


def test_single_rounds_make_one_line_by_sparsity():
    line, control = once().lines("digits")
    assert (line.label, control.label) == ("once", "control")
    assert [round(row.sparsity, 6) for row in line.rows] == [0, 0.5, 0.8, 0.9]
    assert [round(row.after.mean, 6) for row in line.rows] == [0.96, 0.935, 0.92, 0.915]
    several = once(grid=[{"name": "a", "sparsity": [0.5, 0.8], "l1": [0, 1e-5]}]).lines("digits")
    assert [line.label for line in several] == ["a l1=0.0", "a l1=1e-05"]
    assert [len(line.rows) for line in several] == [3, 3]


def test_the_chart_has_published_results_and_dense_networks_as_lines(canvas):
    other = {"name": "Other", "compression": 3, "error": 5, "section": "elsewhere"}
    told = figures._accuracy(subject(once(reference=[{"name": "Han", "compression": 12, "error": 9}, other])), canvas)
    (axes,) = canvas.axes
    labels = [label.get_text() for label in axes.get_legend().get_texts()]
    assert labels == ["once", "control", "Han: 91 % at 12.0x"]
    drawn = {line.get_label(): line for line in axes.lines}
    letter = drawn["Han: 91 % at 12.0x"]
    assert (list(letter.get_xdata()), list(letter.get_ydata()), letter.get_marker()) == ([12], [91], "$A$")
    assert list(drawn["once"].get_xdata()) == pytest.approx([1, 2, 5, 10])
    assert list(drawn["control"].get_ydata()) == pytest.approx([96, 96])
    assert axes.get_xlim()[1] > 12
    assert told == "Dense networks: 96.0 %. once: 91.5 % at 10.0x. control: 96.0 %. Han: 91 % at 12.0x."


def test_the_chart_of_retraining_has_what_is_pruned_alone(canvas):
    told = figures._retraining(subject(once()), canvas)
    assert told == "once at 10.0x: 81.5 % pruned, 91.5 % retrained."
    pruned, retrained = canvas.axes[0].lines
    assert list(pruned.get_ydata()) == pytest.approx([96, 83.5, 82, 81.5])
    assert list(retrained.get_ydata()) == pytest.approx([96, 93.5, 92, 91.5])
    assert list(pruned.get_xdata()) == pytest.approx([1, 2, 5, 10])


def test_networks_that_share_weights_have_a_chart_of_their_own_and_stand_in_no_other(canvas, written):
    stages = [{"sparsity": 0.5, "rounds": 1}, {"weight_bits": 4, "rounds": 1}, {"weight_bits": "2-3", "rounds": 1}]
    stages += [{"sparsity": 0.8, "rounds": 1}, {"weight_bits": 4, "rounds": 1}]
    told = [
        (0.96, 1000, None),
        (0.95, 500, None),
        (0.94, 500, 400),
        (0.9, 500, 300),
        (0.93, 200, None),
        (0.92, 200, 150),
    ]
    told = [(accuracy, live, {"coded_bytes": size, "seconds": 1.0}) for accuracy, live, size in told]
    values = {"rule": "sparsity", "hidden": "5", "stage": stages, "seeds": [0, 1], "max_drop": 0.05}
    results = made(values, lambda cell: told)
    alt = figures._sizes(subject(results), canvas)
    assert alt == "4 bits: 92.0 % in 150 bytes. 2-3 bits: 90.0 % in 300 bytes."
    four, two = canvas.axes[0].lines
    assert list(four.get_xdata()) == [400, 150]
    assert list(four.get_ydata()) == pytest.approx([94, 92])
    assert list(two.get_xdata()) == [300]
    canvas.clear()
    figures._accuracy(subject(results), canvas)
    assert list(canvas.axes[0].lines[0].get_xdata()) == pytest.approx([1, 2, 5])
    (best,) = results.best.values()
    assert (best.record.round, best.record.coded_bytes) == (5, 150)
    assert [row.total for row in results.groups[0].rows] == [1, 2, 3, 3, 3, 4]  # seconds, without other copies
    content = written(results)
    assert "<td data-value='4'>4</td><td data-value='150.0'>150</td>" in content
    assert "<td data-value=''></td><td data-value=''></td>" in content
    assert "coded bytes" in content
    assert "coded bytes" not in written(once())


def test_settings_that_share_weights_come_first_and_the_smallest_file_wins():
    stages = {bits: [{"sparsity": 0.5, "rounds": 1}, {"weight_bits": bits, "rounds": 1}] for bits in (4, 2)}
    grids = [{"name": "pruned", "stage": [{"sparsity": 0.9, "rounds": 1}]}]
    grids += [{"name": f"{bits} bits", "stage": own} for bits, own in stages.items()]
    values = {"rule": "sparsity", "hidden": "5", "seeds": 0, "grid": grids}

    def tell(cell):
        bits = cell.plan[-1].weight_bits
        return (
            [(0.96, 1000), (0.96, 500), (0.96, 500, {"coded_bytes": 100 * bits[0]})]
            if bits
            else [(0.96, 1000), (0.96, 100)]
        )

    (best,) = made(values, tell).best.values()
    assert (best.group.grid.name, best.record.coded_bytes, best.shared) == ("2 bits", 200, True)


def test_a_chart_with_nothing_in_it_is_left_out(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    control = subject(made({"prune": False, "seeds": 0, "rounds": 2}, lambda cell: GOOD))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_accuracy", "_density", "_seconds", "_sensitivity"):
            patch.setattr(figures, name, lambda *_: "")
        assert figures.draw(control, "", tmp_path / "plots") == []


def test_the_chart_of_sensitivity_is_a_mean_over_seeds(canvas):
    told = figures._sensitivity(subject(once()), canvas)
    assert told == "Accuracy with one layer at 10.0x: layer 0 85.0 %, layer 1 50.0 %."
    curve = canvas.axes[0].lines[0]
    assert list(curve.get_xdata())[-1] == pytest.approx(1000)
    assert list(curve.get_ydata()) == pytest.approx([100 * x - 5 for x in SCAN])


def test_several_data_sets_have_a_star_each_and_no_dense_mean(canvas):
    values = {"dataset": "digits,wine", "seeds": 0, "rounds": 2}
    results = made({"grid": [{**values, "section": "both"}]}, lambda cell: GOOD if cell.dataset == "wine" else kept(50))
    told = figures._accuracy(subject(results), canvas)
    assert "Dense" not in told
    assert told.endswith("Best network: 98.0 % at 18.0x. Best network: 98.0 % at 10.0x.")
    assert [line.get_marker() for line in canvas.axes[0].lines].count("*") == 2


@pytest.mark.parametrize("many", [2, 6, 11])
def test_the_chart_ends_at_0_and_100_percent_and_its_legend_hides_no_line(canvas, many):
    cells = {0: [(1.0, 9), (1.0, 5), (0.0, 2)], 1: [(0.9, 9), (0.9, 5), (0.12, 2)]}
    values = {"q": list(range(1, many + 1)), "seeds": [0, 1], "rounds": 2, "holdout": 0}
    told = figures._accuracy(subject(made(values, lambda cell: cells[cell.seed])), canvas)
    (axes,) = canvas.axes
    low, high = axes.get_ylim()
    assert low >= 0
    assert high == 100
    for band in axes.collections:
        heights = band.get_paths()[0].vertices[:, 1]
        assert heights.min() >= 0
        assert heights.max() <= 100
    assert "Dense networks: 95.0 %. q=1.0: 6.0 % at 4.5x." in told
    beside = many > 4
    assert (axes.get_legend() is None, len(canvas.legends)) == (beside, int(beside))
    legend = canvas.legends[0] if beside else axes.get_legend()
    assert len(legend.get_texts()) == {2: 2, 6: 6, 11: 6}[many]
    assert ("6 others" in [label.get_text() for label in legend.get_texts()]) == (many == 11)


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, where it is installed."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed: the report is not opened in a browser")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    quiet = ("background-networking", "component-update", "sync", "quic", "gpu")
    for flag in ("headless=new", "no-sandbox", "no-first-run", *(f"disable-{name}" for name in quiet)):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with selenium.Chrome(options, selenium.ChromeService(driver)) as running:
        yield running


def visit(browser, folder, width=1200, scheme="light"):
    """Open a report in a window of a width; the window itself has a least one."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get((folder / "report.html").as_uri())


@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize(("name", "plots"), [pytest.param("one", 7, marks=pytest.mark.long), ("many", 14)])
def test_a_browser_shows_it(browser, done, name, plots, width):
    visit(browser, done / name, width)
    sizes = browser.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth, i.getBoundingClientRect().width])"
    )
    assert len(sizes) == plots
    assert all(complete and natural > 100 and shown / natural > 0.7 for complete, natural, shown in sizes)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    boxes = browser.execute_async_script("""
        const boxes = [...document.querySelectorAll(".scroll")], done = arguments[0];
        const more = () => boxes.map(box => box.classList.contains("more"));
        const wide = boxes.map(box => box.scrollWidth > box.clientWidth);
        requestAnimationFrame(() => requestAnimationFrame(() => {
            const before = more();
            for (const box of boxes) box.scrollLeft = box.scrollWidth;
            requestAnimationFrame(() => requestAnimationFrame(() => done([wide, before, more()])));
        }));
    """)
    assert boxes[0] == boxes[1]  # what is wider than its box fades at the right, until it is scrolled to its end
    assert any(boxes[0]) == (width == 400)
    assert not any(boxes[2])
    assert browser.get_log("browser") == []


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """axe-core from npm, the script of a checker of accessibility."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed: axe does not check the report")
    folder = tmp_path_factory.mktemp("axe")
    line = [npm, "pack", "--silent", "--prefer-offline", AXE]
    result = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"npm does not get {AXE}: {result.stderr}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        return archive.extractfile("package/axe.min.js").read().decode()


def violations(browser, axe):
    """What axe finds in the page, with all rules that it applies by default: a line for each, with the elements."""
    browser.execute_script(axe)
    found = browser.execute_async_script("axe.run().then(arguments[0])")
    assert len(found["passes"]) > 20
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes']]}" for one in found["violations"]
    ]


@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("many", "light"),
        *(pytest.param(name, "light", marks=pytest.mark.long) for name in ("one", "failed")),
        *(pytest.param(name, "dark", marks=pytest.mark.long) for name in ("many", "one", "failed")),
    ],
)
def test_axe_finds_nothing_to_complain_of(browser, axe, done, failed, name, width, scheme):
    visit(browser, failed if name == "failed" else done / name, width, scheme)
    dark = browser.execute_script("return getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    assert violations(browser, axe) == []


def test_axe_finds_what_is_broken(browser, axe, done):
    visit(browser, done / "one", 400)
    browser.execute_script("""
        document.images[0].removeAttribute("alt");
        document.querySelector("h2").outerHTML = "<h4>Results</h4>";
        document.querySelector(".scroll").removeAttribute("tabindex");
        document.querySelector("figcaption").style.color = "#bbb";
    """)
    found = {line.split(":")[0] for line in violations(browser, axe)}
    assert found >= {"image-alt", "heading-order", "color-contrast"}


def test_its_tables_are_sorted_by_a_click(browser, done):
    visit(browser, done / "one")
    table = browser.find_element("css selector", "table.sortable")
    heads = table.find_elements("css selector", "th")

    def column(number):
        rows = table.find_elements("css selector", f"tbody tr > :nth-child({number + 1})")
        return [row.get_attribute("data-value") for row in rows]

    names = [head.text for head in heads]
    for name in ("compression", "test accuracy retrained, %", "round"):
        number = names.index(name)
        for order in ("ascending", "descending"):
            heads[number].find_element("css selector", "button").click()
            assert heads[number].get_attribute("aria-sort") == order
            values = [float(value) for value in column(number)]
            assert values == sorted(values, reverse=order == "descending")
            assert len(set(values)) > 1
    number = names.index("test accuracy pruned, %")
    for _ in range(2):  # the dense network has no such value, and stands last either way
        heads[number].find_element("css selector", "button").click()
        assert column(number)[-1] == ""
    assert browser.get_log("browser") == []
