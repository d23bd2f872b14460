"""The README is true: its example runs, its options exist, and its links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from fastprune.sweep.config import parse

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_the_example_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    command = [sys.executable, "-W", "error", "-c", example]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    rows = [[float(value) for value in line.split()] for line in result.stdout.splitlines()]
    assert len(rows) == 18
    assert rows[-1][0] > 0.98
    assert rows[-1][2] > 0.9
    assert (tmp_path / "net.npz").is_file()


def test_the_commands_parse():
    commands = re.findall(r"^    python -m fastprune\.sweep (--.*)$", TEXT, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        if command != "--help":
            parse(shlex.split(command))


def test_links_to_files_lead_somewhere():
    for name in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (ROOT / name).exists(), name


def test_ci_runs_the_two_commands():
    commands = re.findall(r"^    (python -m pip install .* && .*)$", TEXT, re.MULTILINE)[:2]
    script = (ROOT / ".ci" / "run").read_text()
    assert len(commands) == 2
    for command in commands:
        assert command in script
