"""The README and the docs are true: examples run, settings files and commands are read, links lead somewhere.

Sybil finds the examples. A document's Python blocks share one namespace, from the first to the last. A `text` block
after one is what it prints: numbers with decimals may differ a little, because processors round differently.
"""

import contextlib
import csv
import functools
import importlib
import importlib.util
import io
import json
import math
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import update
from sybil import Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser

import fastprune.sweep
from fastprune.datasets import load_dataset
from fastprune.sweep.command import main
from fastprune.sweep.config import Sweep, parse, parse_export
from fastprune.sweep.results import COLUMNS
from fastprune.sweep.settings import FIELDS

ROOT = Path(__file__).parents[1]
README, DOCS = ROOT / "README.md", ROOT / "docs"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md"))]
TOLERANCE = 0.05  # of numbers with decimals: both absolute and relative
EXTRAS = {
    "torch",
    "optuna",
    "matplotlib",
    "scipy",
    "sklearn",
    "mlflow",
    "tensorboardX",
    "onnx",
    "onnxruntime",
    "safetensors",
}
OTHERS = (
    r"python -m (pip install|pytest|venv)\b.*",
    r"python bench/(?P<file>\w+\.py)( .*)?",
    r"(\. \.venv/bin/activate|pre-commit install|ruff|mypy|zizmor|sphinx-build|dask (scheduler|worker))\b.*",
)


def python(example):
    """Run the block; what it prints has to stand in the next one."""
    finished(example)
    for package in re.findall(r"^(?:import|from) (\w+)", example.parsed, re.MULTILINE):
        if package in EXTRAS and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    if '"gcc"' in example.parsed and shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        PythonEvaluator()(example)
    example.namespace["printed"] = printed.getvalue()


def finished(example):
    assert not example.namespace.pop("printed", ""), f"no text block before line {example.line} has what is printed"


def text(example):
    """What the Python block before it prints; or, after a command, what is not run here."""
    printed = example.namespace.pop("printed", "")
    if printed:
        words, shown = printed.split(), example.parsed.split()
        assert len(words) == len(shown), printed
        assert all(map(same, words, shown)), printed


def same(word, shown):
    if word == shown:
        return True
    parts = [re.split(r"(-?\d+\.\d+)", one) for one in (word, shown)]
    return len(parts[0]) == len(parts[1]) and all(
        math.isclose(float(a), float(b), abs_tol=TOLERANCE, rel_tol=TOLERANCE) if index % 2 else a == b
        for index, (a, b) in enumerate(zip(*parts, strict=True))
    )


def toml(example):
    """A settings file: it is read, has cells, and is there as sweep.toml for the commands after it."""
    finished(example)
    assert Sweep.of(tomllib.loads(example.parsed)).cells
    Path("sweep.toml").write_text(example.parsed)


def bash(example):
    """Commands: sweeps show what they would do, and whatever else there is at least exists."""
    finished(example)
    for line in example.parsed.replace("\\\n", " ").splitlines():
        commands = line.split("  #")[0].strip()
        for command in commands.split(" && ") if commands else []:
            if command.startswith("python -m fastprune.sweep"):
                show(*shlex.split(command)[3:])
            else:
                found = next(filter(None, (re.fullmatch(pattern, command) for pattern in OTHERS)), None)
                assert found, command
                name = found.groupdict().get("file")
                assert name is None or (ROOT / "bench" / name).is_file(), command


@functools.cache  # several pages have the same ones
def show(*arguments):
    if arguments[:1] == ("report",):
        return
    if arguments[:1] == ("export",):
        parse_export(arguments[1:])
        return
    if "--help" in arguments:
        with pytest.raises(SystemExit, match=r"^0$"):
            parse([*arguments])
    elif "--preset" in arguments:
        assert parse([*arguments]).sweep.cells  # their data need not be here
    else:
        dry = [] if "--dry-run" in arguments else ["--dry-run"]
        assert main([*arguments, *dry]) == 0


SYBIL = Sybil(
    [
        CodeBlockParser("python", python),
        CodeBlockParser("text", text),
        CodeBlockParser("toml", toml),
        CodeBlockParser("bash", bash),
        SkipParser(),
    ]
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with what the examples take for granted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    (tmp_path / "bench").symlink_to(ROOT / "bench")
    (tmp_path / "sweep.toml").write_text('rule = ["percentile", "std"]\n')
    data = load_dataset("digits")
    with (tmp_path / "own.csv").open("w", newline="") as file:
        csv.writer(file).writerows([*x, y] for x, y in zip(data.x_test.tolist(), data.y_test.tolist(), strict=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")  # of what it uses of SQLAlchemy
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_the_examples_hold(path):
    document = SYBIL.parse(path)
    for example in document.examples():
        example.evaluate()
    assert not document.namespace.get("printed"), "the last block prints something that no text block has"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    content = path.read_text()
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", content):
        file = path.parent / target if target else path
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text()), f"{target}#{anchor}"


def anchors(content):
    prose = re.sub(r"^```.*?^```", "", content, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_index():
    index = (DOCS / "index.md").read_text()
    (tree,) = re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)
    pages = re.findall(r"<(.+)>", tree)
    assert sorted(pages) == sorted(path.stem for path in DOCS.glob("*.md") if path.stem != "index")


def test_the_api_page_names_all_that_is_public():
    content = (DOCS / "api.md").read_text()
    assert set(re.findall(r"^   (\w+)$", content, re.MULTILINE)) == {*fastprune.__all__, *fastprune.sweep.__all__}


def test_the_columns_of_a_sweep_are_all_described():
    """The formats are stable: whoever changes them changes what is written about them."""
    content = (DOCS / "sweeps.md").read_text()
    section = content[content.index("### Columns") :]
    documented = re.findall(r"^\| (`[^|]+`) \|", section[: section.index("\n## ")], re.MULTILINE)
    names = [name for cell in documented for name in re.findall(r"`(\w+)`", cell)]
    assert [*names[:2], *(name for name in FIELDS if name != "stage"), *names[2:]] == list(COLUMNS)


def test_the_constants_are_those_of_the_code():
    content = (DOCS / "inside.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)\.(\w+)` \| ([^|]+) \|", content, re.MULTILINE)
    assert len(rows) > 10
    for module, name, value in rows:
        found = getattr(importlib.import_module(f"fastprune.{module}"), name)
        assert found == eval(value, {"math": math}), f"{module}.{name}"


def test_the_pages_have_the_figures_of_the_last_run():
    """They are generated: python bench/update.py --no-run."""
    results = update.read_results()
    for (page, name), part in update.PARTS.items():
        content = page.read_text()
        assert update.written(content, name, part(results)) == content, page


def test_the_results_of_a_processor_are_in_its_own_file():
    paths = {path.name: path for path in update.RESULTS.glob("*.json")}
    assert paths
    assert len(update.read_results()) == len(paths), "two processors have the same name"
    for name, path in paths.items():
        assert update.file_name(json.loads(path.read_text())) == name
