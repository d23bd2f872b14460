"""The README is short, its commands are those that are checked, and its figures those that are kept."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
TABLES = (ROOT / "bench" / "han2015" / "tables.md").read_text()


def test_it_is_short():
    assert len(TEXT.splitlines()) <= 150


def test_ci_runs_the_two_commands():
    commands = re.findall(r"^(python -m pip install .* && .*)$", TEXT, re.MULTILINE)
    script = (ROOT / ".ci" / "run").read_text()
    assert commands == [
        "python -m pip install . && python -m fastprune.sweep",
        'python -m pip install -e ".[test]" && python -m pytest',
    ]
    assert f"({commands[0]}" in script
    assert commands[1] in script


def test_the_example_is_ten_lines_of_code():
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len([line for line in example.splitlines() if line]) == 10


def test_the_errors_are_those_of_the_study():
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("|")]
    (levels,) = (row[1:] for row in rows if row[1] == "dense")
    (errors,) = (row[1:] for row in rows if row[0] == "fastprune" and "±" in row[1])
    for level, error in zip(levels, errors, strict=True):
        row = re.findall(rf"^\| {level} \|.*$", TABLES, re.MULTILINE)[0]  # of the first table, which is MNIST's
        assert f"| {error} |" in row
