"""The guides are true: their examples run, each guide's in a process of its own, and their links lead somewhere."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PRINTED = {"callbacks.md": ["True True", "True", "3 [0.536, 0.785, 0.9]"], "file-format.md": []}


def test_all_guides_are_here():
    assert sorted(PRINTED) == sorted(path.name for path in DOCS.glob("*.md"))


@pytest.mark.parametrize("name", PRINTED)
def test_the_examples_run(tmp_path, name):
    code = "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(), re.DOTALL))
    assert code
    for package in re.findall(r"^import (\w+)", code, re.MULTILINE):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == PRINTED[name]


@pytest.mark.parametrize("name", PRINTED)
def test_links_to_files_lead_somewhere(name):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", (DOCS / name).read_text()):
        assert (DOCS / target).exists(), target
