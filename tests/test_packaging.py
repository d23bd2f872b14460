"""What is published: both archives hold what they should, the wheel is enough by itself, and extras are what we say."""

import email
import importlib
import re
import subprocess
import sys
import tarfile
import textwrap
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from sweeps import command

import fastprune

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
WORKING = {"bench", "dev", "docs", "test"}  # extras for work on fastprune
ARCHIVES = f"fastprune-{fastprune.__version__}-py3-none-any.whl", f"fastprune-{fastprune.__version__}.tar.gz"

# Trains, prunes, saves and loads, with nothing but what the wheel brings along.
SMOKE = """
    import importlib.util
    from pathlib import Path

    import numpy as np

    import fastprune as fp

    assert Path(fp.__file__).is_relative_to({environment!r}), fp.__file__
    for name in ("distributed", "matplotlib", "onnx", "pooch", "sklearn", "torch"):
        assert importlib.util.find_spec(name) is None, f"{{name}} is an extra"
    data = fp.load_dataset("digits")
    trainer = fp.Trainer(fp.MLP([64, 30, 10]))
    trainer.fit(data.x_train, data.y_train, epochs=10)
    pruner = fp.Pruner(trainer, schedule=fp.schedules.GeometricDecay(0.0, 0.8, rounds=2))
    history = pruner.run(data.x_train, data.y_train, epochs=5, test=(data.x_test, data.y_test))
    assert history[-1].sparsity == 0.8
    assert history[-1].after.test.accuracy > 0.9
    for network in (trainer.network, trainer.network.freeze()):
        network.save("net.npz")
        np.testing.assert_array_equal(fp.load("net.npz").predict(data.x_test), network.predict(data.x_test))
"""


def test_the_version_is_the_same_everywhere():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [fastprune.__version__]
    assert PROJECT["version"] == fastprune.__version__
    (released,) = re.findall(r'^date-released: "(.+)"$', citation, re.MULTILINE)
    assert f"## [{fastprune.__version__}] - {released}" in (ROOT / "CHANGELOG.md").read_text()


def test_extras_are_there_where_they_are_named():
    """Error messages, docstrings and docs say what to install."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "fastprune").rglob("*.py")]
    named = {
        name
        for page in pages
        for names in re.findall(r"fastprune\[([\w,]+)\]|\(extra `(\w+)`\)", page.read_text())
        for name in "".join(names).split(",")
    }
    assert {"dask", "download", "plots", "sklearn"} <= named <= {*EXTRAS}


def test_all_is_everything_that_users_may_want():
    (requirement,) = EXTRAS["all"]
    names = re.fullmatch(r"fastprune\[(.*)\]", requirement)[1].split(",")
    assert names == sorted(EXTRAS.keys() - WORKING - {"all"})


def test_the_console_script_is_the_command_of_sweeps():
    module, _, name = PROJECT["scripts"]["fastprune"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    script = f"import sys; from {module} import {name}; sys.exit({name}())"  # what pip writes into bin/fastprune
    for arguments in (["--help"], ["--rounds", "0"], ["report", "nowhere"], ["--dry-run", "--seeds", "0"]):
        ours, theirs = (
            subprocess.run([*line, *arguments], capture_output=True, text=True, check=False)
            for line in ([sys.executable, "-W", "error", "-c", script], command())
        )
        assert ours.stdout + ours.stderr
        assert (ours.stdout, ours.stderr, ours.returncode) == (theirs.stdout, theirs.stderr, theirs.returncode)


def run(*line, cwd):
    result = subprocess.run(list(map(str, line)), cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{line}: {result.stdout}{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The wheel and the sdist; the wheel is built from the sdist, as `python -m build` does."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(ARCHIVES)
    return [folder / name for name in ARCHIVES]


@pytest.mark.long
def test_the_wheel_holds_the_package_and_nothing_else(archives):
    package = ROOT / "fastprune"
    ours = {
        str(path.relative_to(ROOT)) for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(archives[0]) as wheel:
        names = set(wheel.namelist())
        info = f"fastprune-{fastprune.__version__}.dist-info"
        assert {name for name in names if not name.startswith(info)} == ours
        assert f"{info}/licenses/LICENSE" in names
        assert "fastprune = fastprune.sweep.__main__:main" in wheel.read(f"{info}/entry_points.txt").decode()
        metadata = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
    assert {*metadata.get_all("Provides-Extra")} == {*EXTRAS}
    needs = [need for need in metadata.get_all("Requires-Dist") if "extra ==" not in need]
    assert sorted(needs) == sorted(PROJECT["dependencies"])


@pytest.mark.long
def test_the_sdist_holds_what_tests_and_docs_need(archives):
    with tarfile.open(archives[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    ours = [path for folder in ("fastprune", "tests", "docs") for path in (ROOT / folder).rglob("*.py")]
    needed = {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "SECURITY.md", "pyproject.toml", ".ci/run"}
    assert {*needed, *(str(path.relative_to(ROOT)) for path in ours)} - names == set()
    folders = {name.partition("/")[0] for name in names if "/" in name}
    assert folders <= {"fastprune", "tests", "docs", "bench", ".ci", ".github"}
    assert not any(name.endswith(".gz") for name in names), "MNIST has a licence of its own"
    assert archives[1].stat().st_size < 2**21


@pytest.mark.long
def test_the_wheel_is_enough_by_itself(archives, tmp_path):
    """In a new environment and far from the checkout; the last sweep starts processes from the console script."""
    environment, here = tmp_path / "environment", tmp_path / "here"
    here.mkdir()
    venv.create(environment, with_pip=True)
    folder = environment / ("Scripts" if sys.platform == "win32" else "bin")
    python, script = folder / "python", folder / "fastprune"
    run(python, "-m", "pip", "install", "--quiet", archives[0], cwd=here)
    run(python, "-m", "pip", "check", cwd=here)
    smoke = textwrap.dedent(SMOKE.format(environment=str(environment)))
    run(python, "-W", "error", "-c", smoke, cwd=here)
    assert run(script, "--help", cwd=here) == run(python, "-m", "fastprune.sweep", "--help", cwd=here)
    run(
        script,
        "--hidden",
        "20",
        "--seeds",
        "0,1",
        "--rounds",
        "2",
        "--epochs",
        "3",
        "--jobs",
        "2",
        "--out",
        "out",
        cwd=here,
    )
    assert (here / "out" / "report.html").is_file()
