"""The report: what is in it, and that a browser shows it, sorts its tables and has nothing to complain of."""

import base64
import re
import shutil
import struct
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from sweeps import SMALL, outcome, read, sweep

import fastprune as fp
from fastprune.sweep.cell import Record
from fastprune.sweep.command import main
from fastprune.sweep.config import Settings, Sweep
from fastprune.sweep.engine import Failure
from fastprune.sweep.report import page, write_report
from fastprune.sweep.results import Results, Spread
from fastprune.sweep.run import make_report
from fastprune.sweep.store import Cell

GRID = [*SMALL, "--dataset", "digits,wine", "--rule", "percentile,std"]
PLOTS = ("accuracy", "density", "seconds", "weights", "mask")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A sweep of two data sets and two rules, and one of a single setting."""
    folder = tmp_path_factory.mktemp("report")
    for name, grid in {"several": GRID, "one": SMALL}.items():
        result = sweep(*grid, "--out", name, "--quiet", cwd=folder)
        assert (result.returncode, result.stderr) == (0, "")
    return folder


def text(folder):
    return (folder / "report.html").read_text()


def test_it_is_one_file_that_needs_no_other(done):
    for name in ("one", "several"):
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
    expected = {f"{plot}-{name}" for plot in PLOTS for name in ("digits", "wine")}
    assert {path.stem for path in (done / "several" / "plots").iterdir()} == expected


def test_its_numbers_are_those_of_the_results(done):
    content = text(done / "one")
    rows = read(done / "one" / "results.csv")
    for number in range(4):
        accuracies = [100 * float(row["after_test_accuracy"]) for row in rows if row["round"] == str(number)]
        spread = Spread.of(accuracies)
        assert f">{spread.mean:.2f} ± {spread.deviation:.2f}</td>" in content
    network = fp.load(done / "one" / "best.npz")
    assert f"{network.live_weights:,} of {network.total_weights:,}</dd>" in content
    assert 'fastprune.load("best.npz")' in content.replace("&quot;", '"')
    assert "<th scope='row'>retrain_epochs</th><td>4</td>" in content


def test_it_says_how_to_do_it_again(done, tmp_path):
    content = text(done / "one").replace("&quot;", '"')
    command, file, _ = re.findall(r"<pre>(.*?)</pre>", content, re.DOTALL)
    (tmp_path / "sweep.toml").write_text(file)
    assert command == "python -m fastprune.sweep --config sweep.toml --out one"
    result = sweep(*command.split()[3:], "--quiet", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert outcome(tmp_path / "one") == outcome(done / "one")


def test_it_is_made_again_from_the_folder_alone_wherever_that_is(done, tmp_path):
    shutil.copytree(done / "several", tmp_path / "moved")
    before = outcome(done / "one"), text(tmp_path / "moved")
    for path in ("report.html", "results.csv", "best-wine.npz"):
        (tmp_path / "moved" / path).unlink()
    shutil.rmtree(tmp_path / "moved" / "plots")
    assert main(["report", str(tmp_path / "moved")]) == 0
    assert text(tmp_path / "moved") == before[1].replace("--out several", "--out moved")
    results = (tmp_path / "moved" / "results.csv").read_bytes()
    assert results == (done / "several" / "results.csv").read_bytes()


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
    def missing(*_):
        raise ImportError

    shutil.copytree(done / "one", tmp_path / "copy")
    monkeypatch.setattr(page, "draw", missing)
    make_report(tmp_path / "copy")
    assert 'pip install "fastprune[plots]"' in text(tmp_path / "copy")
    assert "<td data-value='3'>3</td>" in text(tmp_path / "copy")


def test_what_failed_is_told_and_text_is_text(done, tmp_path):
    shutil.copytree(done / "one", tmp_path / "copy")
    sweep_ = Sweep.of({"hidden": "20-10", "seeds": "0,1", "epochs": 8, "retrain_epochs": 4, "rounds": 3, "q": 40})
    from fastprune.sweep.store import Store

    sweep_ = replace(sweep_, out=str(tmp_path / "copy"))
    results = Results(sweep_, Store(tmp_path / "copy").load(sweep_.cells))
    write_report(results, [Failure(sweep_.cells[:1], 2, "OSError: <no> & never")], tmp_path / "copy")
    assert "seed=0, round 2: OSError: &lt;no&gt; &amp; never" in text(tmp_path / "copy")


def cell(seed, accuracies, lives, **settings):
    """A finished cell, by its held-out accuracies and live weights."""
    values = dict.fromkeys(Record._fields, 0)
    records = tuple(
        Record(**{**values, "round": i, "after_validation_accuracy": a, "after_test_accuracy": a, "live": live})
        for i, (a, live) in enumerate(zip(accuracies, lives, strict=True))
    )
    return Cell(Settings(seed=seed, rounds=len(records) - 1, **settings), "").with_(*records)


def best(*cells):
    sweep_ = Sweep({"seed": tuple(c.settings.seed for c in cells), "rounds": (cells[0].settings.rounds,)})
    return Results(sweep_, {c.settings.digest: c for c in cells}).best.get("digits")


def test_best_is_the_smallest_that_holds_up_against_the_best_dense_network():
    """A seed that trained badly sets itself a low bar, and does not win by it; held-out accuracy breaks ties."""
    good = cell(0, [0.98, 0.98, 0.975, 0.9], [900, 90, 50, 5])
    bad = cell(1, [0.5, 0.5, 0.5, 0.5], [900, 90, 50, 5])
    better = cell(2, [0.98, 0.97, 0.98, 0.9], [900, 90, 50, 5])
    assert (best(good, bad).cell, best(good, bad).record.live) == (good, 50)
    assert best(good, bad, better).cell == better
    assert best(bad).record.live == 5


def test_a_cell_that_is_not_finished_has_no_best_network():
    unfinished = cell(0, [0.98, 0.98], [900, 90])
    unfinished = replace(unfinished, settings=replace(unfinished.settings, rounds=3))
    assert best(unfinished) is None
    assert best(unfinished, cell(1, [0.9, 0.9, 0.9, 0.9], [900, 90, 9, 3])).cell.settings.seed == 1


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
    options.add_argument("--window-size=1100,1400")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with selenium.Chrome(options, selenium.ChromeService(driver)) as running:
        yield running


@pytest.mark.parametrize(("name", "plots"), [("one", 5), ("several", 10)])
def test_a_browser_shows_it(browser, done, name, plots):
    browser.get((done / name / "report.html").as_uri())
    sizes = browser.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth, i.getBoundingClientRect().width])"
    )
    assert len(sizes) == plots
    assert all(complete and natural > 100 and shown > 200 for complete, natural, shown in sizes)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.get_log("browser") == []


def test_its_tables_are_sorted_by_a_click(browser, done):
    browser.get((done / "several" / "report.html").as_uri())
    table = browser.find_elements("css selector", "table.sortable")[1]  # the rounds
    heads = table.find_elements("css selector", "th")

    def column(number):
        rows = table.find_elements("css selector", f"tbody tr td:nth-child({number + 1})")
        return [row.get_attribute("data-value") for row in rows]

    names = [head.text for head in heads]
    for name in ("compression", "retrained, %", "round"):
        number = names.index(name)
        for order in ("ascending", "descending"):
            heads[number].find_element("css selector", "button").click()
            assert heads[number].get_attribute("aria-sort") == order
            values = [float(value) for value in column(number)]
            assert values == sorted(values, reverse=order == "descending")
            assert len(set(values)) > 1
    number = names.index("pruned, %")
    for _ in range(2):  # the dense network has no such value, and stands last either way
        heads[number].find_element("css selector", "button").click()
        assert column(number)[-1] == ""
    assert browser.get_log("browser") == []
