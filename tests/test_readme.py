"""The README is true: its example runs, its options exist, and its links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastprune as fp
from fastprune.sweep.config import parse

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_the_examples_run(tmp_path):
    examples = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(examples) == 4
    # See test_sweep_workers.py for the one, and below for the other.
    examples = [example for example in examples if "mpi4py" not in example and "torch" not in example]
    check = "\nassert network.sparsity == 0.98 and (network.predict(data.x_test) == data.y_test).mean() > 0.95"
    command = [sys.executable, "-W", "error", "-c", "\n".join(examples) + check]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    rows = [[float(value) for value in line.split()] for line in result.stdout.splitlines()]
    assert len(rows) == 18
    assert rows[-1][0] > 0.98
    assert rows[-1][2] > 0.9
    assert (tmp_path / "net.npz").is_file()


def test_a_network_of_pytorch_comes_in_and_goes_back_in_ten_lines():
    torch = pytest.importorskip("torch")
    data = fp.load_dataset("digits")
    x, y = torch.tensor(data.x_train, dtype=torch.float32), torch.tensor(data.y_train)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(50):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    (example,) = [text for text in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "import torch" in text]
    assert len(example.strip().splitlines()) <= 11, "with a blank one"
    names = {"fp": fp, "data": data, "model": model}
    exec(example, names)
    x_test = torch.tensor(data.x_test, dtype=torch.float32)
    logits = model(x_test).detach().numpy()
    np.testing.assert_allclose(names["network"].logits(data.x_test), logits, rtol=1e-5, atol=1e-5)
    assert [float((layer.weight == 0).float().mean()) for layer in names["linear"]] == pytest.approx([0.95, 0.95])
    assert (logits.argmax(axis=1) == data.y_test).mean() > 0.9


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
