"""The README is true: its example runs, its options exist, and its links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from fastprune.sweep.config import parse

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_the_examples_run(tmp_path):
    examples = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(examples) == 3
    examples = [example for example in examples if "mpi4py" not in example]  # see test_sweep_workers.py for that one
    check = "\nassert network.sparsity == 0.98 and (network.predict(data.x_test) == data.y_test).mean() > 0.95"
    command = [sys.executable, "-W", "error", "-c", "\n".join(examples) + check]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    rows = [[float(value) for value in line.split()] for line in result.stdout.splitlines()]
    assert len(rows) == 18
    assert rows[-1][0] > 0.98
    assert rows[-1][2] > 0.9
    assert (tmp_path / "net.npz").is_file()


def test_the_commands_and_the_file_parse(tmp_path, monkeypatch):
    commands = re.findall(r"^    python -m fastprune\.sweep (--.*)$", TEXT, re.MULTILINE)
    assert len(commands) == 6
    (tmp_path / "sweep.toml").write_text(re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)[0])
    monkeypatch.chdir(tmp_path)
    for command in commands:
        if command != "--help":
            parse(shlex.split(command))
    assert len(parse(["--config", "sweep.toml"]).sweep.cells) == 80


def test_links_to_files_lead_somewhere():
    for name in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (ROOT / name).exists(), name


def test_ci_runs_the_two_commands():
    commands = re.findall(r"^    (python -m pip install .* && .*)$", TEXT, re.MULTILINE)[:2]
    script = (ROOT / ".ci" / "run").read_text()
    assert len(commands) == 2
    for command in commands:
        assert command in script
