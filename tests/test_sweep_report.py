"""The report: its content; a browser shows it and sorts its tables; axe finds everyone can read it."""

import base64
import re
import shutil
import struct
import subprocess
import tarfile
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from sweeps import SMALL, outcome, read, sweep

import fastprune as fp
from fastprune.sweep.cell import Record
from fastprune.sweep.command import main
from fastprune.sweep.config import Settings, Sweep
from fastprune.sweep.engine import Failure
from fastprune.sweep.report import figures, page, write_report
from fastprune.sweep.results import Group, Results, Spread
from fastprune.sweep.run import make_report
from fastprune.sweep.store import Cell, Store

GRID = [*SMALL, "--dataset", "digits,wine", "--rule", "percentile,std"]
PLOTS = ("accuracy", "density", "seconds", "weights", "mask")
AXE = "axe-core@4.14.1"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A sweep of two data sets and two rules, one of a single setting, and a copy of that with a failure."""
    folder = tmp_path_factory.mktemp("report")
    for name, grid in {"several": GRID, "one": SMALL}.items():
        result = sweep(*grid, "--out", name, "--quiet", cwd=folder)
        assert (result.returncode, result.stderr) == (0, "")
    shutil.copytree(folder / "one", folder / "failed")
    asked = {"hidden": "20-10", "seeds": "0,1", "epochs": 8, "retrain_epochs": 4, "rounds": 3, "q": 40}
    asked = replace(Sweep.of(asked), out=str(folder / "failed"))
    results = Results(asked, Store(folder / "failed").load(asked.cells))
    write_report(results, [Failure(asked.cells[:1], 2, "OSError: <no> & never")], folder / "failed")
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
    file, command, _ = re.findall(r"<pre>(.*?)</pre>", content, re.DOTALL)
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
    assert "<th scope='row' data-value='3'>3</th>" in text(tmp_path / "copy")


def test_what_failed_is_told_and_text_is_text(done):
    assert "seed=0, round 2: OSError: &lt;no&gt; &amp; never" in text(done / "failed")


def cell(seed, accuracies, lives, **settings):
    """A finished cell, by its held-out accuracies and live weights."""
    values = dict.fromkeys(Record._fields, 0)
    records = []
    for number, (accuracy, live) in enumerate(zip(accuracies, lives, strict=True)):
        values |= {"round": number, "after_validation_accuracy": accuracy, "after_test_accuracy": accuracy}
        records.append(Record(**values | {"live": live, "sparsity": 1 - live / lives[0]}))
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


@pytest.mark.parametrize("many", [2, 6, 11])
def test_the_chart_ends_at_0_and_100_percent_and_its_legend_hides_no_line(many):
    canvas_class = pytest.importorskip("matplotlib.figure", reason="matplotlib is not installed").Figure
    groups = []
    for number in range(many):
        cells = [cell(seed, (a, a, b), (9, 5, 2), q=number) for seed, a, b in ((0, 1.0, 0.0), (1, 0.9, 0.12))]
        groups.append(Group(cells[0].settings, cells))
    canvas = canvas_class()
    told = figures._accuracy(figures.Subject(groups, lambda g: f"q={g.settings.q}", groups[0], None, None), canvas)
    (axes,) = canvas.axes
    low, high = axes.get_ylim()
    assert low >= 0
    assert high == 100
    for band in axes.collections:
        heights = band.get_paths()[0].vertices[:, 1]
        assert heights.min() >= 0
        assert heights.max() <= 100
    assert "Dense networks: 95.0 %. q=0: 95.0 % at 1.8x." in told
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
@pytest.mark.parametrize(("name", "plots"), [("one", 5), ("several", 10)])
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("name", ["one", "several", "failed"])
def test_axe_finds_nothing_to_complain_of(browser, axe, done, name, width, scheme):
    visit(browser, done / name, width, scheme)
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
    visit(browser, done / "several")
    table = browser.find_elements("css selector", "table.sortable")[1]  # the rounds
    heads = table.find_elements("css selector", "th")

    def column(number):
        rows = table.find_elements("css selector", f"tbody tr > :nth-child({number + 1})")
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
