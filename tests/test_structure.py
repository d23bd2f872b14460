"""The house: who may import whom, what kernels may do, and that an edited kernel never runs as it was."""

import ast
import importlib
import inspect
import os
import pickle
import pydoc
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference

import fastprune
import fastprune.export
import fastprune.kernels
import fastprune.sweep

PACKAGE = Path(__file__).parents[1] / "fastprune"
FILES = sorted(PACKAGE.rglob("*.py"))
PACKAGES = [fastprune, fastprune.export, fastprune.sweep]

# What each room may import of the others, the lower ones first. `files`, `check`, `blas`, `team` and `lazy` are tools.
TOOLS = {"files", "check", "blas", "team"}
PARAMETERS = {"kernels", *TOOLS, "processor", "allocation", "storage", "state", "inference", "coded"}
NETWORKS = {*PARAMETERS, "base", "frozen", "network"}
LEARNING = {*NETWORKS, "records", "schedules", "progress", "evaluation", "gradients"}
PRUNING = {*LEARNING, "criteria", "growers", "rules", "selection", "sensitivity"}
ALLOWED = {
    "kernels": {"lazy"},
    "files": set(),
    "check": {"kernels"},
    "blas": set(),
    "processor": set(),
    "team": {"kernels", "check"},
    "lazy": set(),
    "records": set(),
    "progress": {"records"},
    "schedules": {"kernels", "check", "records"},
    "datasets": {"kernels", "check", "files"},
    "allocation": {"kernels"},
    "storage": {"kernels", "processor"},
    "inference": {"kernels", *TOOLS, "storage"},
    "state": {"kernels", *TOOLS, "storage"},
    "coded": {"kernels", *TOOLS, "storage", "state"},
    "base": PARAMETERS,
    "frozen": {*PARAMETERS, "base"},
    "network": NETWORKS,
    "sizes": NETWORKS,
    "evaluation": {*NETWORKS, "records"},
    "sharing": {*NETWORKS, "evaluation", "rules"},
    "gradients": {*NETWORKS, "evaluation"},
    "spans": {*NETWORKS, "evaluation"},
    "training": {*LEARNING, "spans"},
    "trainer": {*LEARNING, "spans", "training"},
    "criteria": LEARNING,
    "growers": {*LEARNING, "criteria"},
    "rules": {"kernels"},
    "selection": PRUNING,
    "sensitivity": PRUNING,
    "rounds": {*PRUNING, "training"},
    "pruner": {*PRUNING, "rounds", "trainer"},
    "sweep": {*PRUNING, "sharing", "export", "lazy", "rounds", "spans", "trainer", "pruner", "datasets"},
    "sklearn": {*PRUNING, "spans", "training", "trainer", "pruner"},
    "export": {*NETWORKS, "lazy"},
    "__init__": {*PRUNING, "lazy", "sharing", "sizes", "trainer", "pruner", "datasets", "export"},
}


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


class Runtime(ast.NodeTransformer):
    """Leaves out what only type checkers read: a loop may name the type of the class that runs it."""

    def visit_If(self, node):
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else node


def imports(path, types=True):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree if types else Runtime().visit(tree)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    rooms = {name.split(".")[1] for name in imports(path, types=False) if name.startswith("fastprune.")}
    assert rooms - {room(path)} <= ALLOWED[room(path)]


def test_kernels_import_numba_and_numpy_and_little_else():
    outside = {name.split(".")[0] for path in (PACKAGE / "kernels").glob("*.py") for name in imports(path)}
    assert outside <= {
        "numpy",
        "numba",
        "llvmlite",
        "math",
        "typing",
        "collections",
        "hashlib",
        "pathlib",
        "sys",
        "fastprune",
    }


def test_nothing_but_kernels_is_compiled():
    for path in FILES:
        if room(path) not in ("kernels", "processor"):  # which only asks LLVM what the processor is
            assert not any(name.split(".")[0] in ("numba", "llvmlite") for name in imports(path)), path


def test_numbas_internals_stand_in_one_file():
    """A new Numba that changes them then breaks one file, and `test_numba_internals.py` says what."""
    for path in FILES:
        if path.name != "numba_internals.py":
            assert not any(name.startswith(("numba.core", "numba.np", "numba._")) for name in imports(path)), path
            internal = re.findall(r"\b(make_array|_cache_file|numba_xxgemm|no_cpython_wrapper)\b", path.read_text())
            assert not internal, f"{path}: {internal}"


def test_kernels_are_kernels():
    """Every function is compiled, takes ten arguments at the most, and allocates nothing.

    Around intrinsics, which write instructions, stand plain helpers; they are private. Classes are named tuples, or
    Numba's types.
    """
    makers = {"empty", "zeros", "ones", "full", "arange", "array", "copy", "concatenate", "empty_like", "zeros_like"}
    for path in (PACKAGE / "kernels").glob("*.py"):
        if path.name in ("jit.py", "numba_internals.py"):
            continue
        tree = ast.parse(path.read_text())
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        decorators = [[ast.unparse(decorator) for decorator in node.decorator_list] for node in functions]
        for node, names in zip(functions, decorators, strict=True):
            if names == ["intrinsic"]:
                assert node.args.args[0].arg == "typing_context", node.name
            elif names:
                assert names in (["kernel"], ["inner_kernel"]), node.name
                assert len(node.args.args) <= 10, node.name
                assert not any(isinstance(inner, ast.FunctionDef) for part in node.body for inner in ast.walk(part))
            else:
                assert node.name.startswith("_"), f"{path.name}: {node.name}"
                assert ["intrinsic"] in decorators, f"{path.name}: {node.name}"
            assert ast.get_docstring(node) or not names, node.name
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base) for base in node.bases}
                assert bases <= {"NamedTuple", "types.Type", "models.PrimitiveModel"}, node.name
                numba_type = "NamedTuple" not in bases
                assert numba_type or not any(isinstance(part, ast.FunctionDef) for part in node.body), node.name
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr not in makers, f"{path.name}: {ast.unparse(node)}"


def test_optional_libraries_are_not_imported_with_the_package():
    formats = {"torch", "onnx", "onnxruntime", "google", "scipy", "safetensors"}
    optional = {"pooch", "tqdm", "requests", "sklearn", "matplotlib", "pytest", "rich", *formats}
    assert not optional & modules("from fastprune import *; from fastprune.export import *")


def test_numba_is_imported_with_the_first_kernel_that_runs():
    make = "import fastprune as fp; from fastprune import *; network = fp.MLP([2, 2], loss='mean_squared_error')"
    assert "numba" not in modules(make)
    assert "numba" in modules(f"{make}; network.predict([[0, 0]])")


def modules(code):
    code += "; import sys; print(*{name.split('.')[0] for name in sys.modules})"
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize("package", [*PACKAGES, fastprune.kernels], ids=lambda one: one.__name__)
def test_packages_are_imported_at_once_and_their_names_when_used(package):
    """What type checkers are told is what there is."""
    name = package.__name__
    assert not {"numpy", "numba", "scipy"} & modules(f"import {name}")
    told = [
        one for one in imports(Path(package.__file__)) if one.startswith(name) and not one.startswith("fastprune.lazy")
    ]
    assert sorted(one.rpartition(".")[2] for one in told) == sorted(package.__all__)
    for one in told:
        home, _, own = one.rpartition(".")
        value = getattr(package, own)
        assert value is (importlib.import_module(one) if home == name else getattr(importlib.import_module(home), own))
        if isinstance(value, type):
            assert pickle.loads(pickle.dumps(value)) is value
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nonsense'"):
        package.nonsense  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES, ids=lambda one: one.__name__)
def test_help_shows_what_a_package_offers(package):
    assert all(one in pydoc.render_doc(package) for one in package.__all__)


def test_signatures_are_readable():
    """Types stand there by name: what an array_like can be takes NumPy five lines."""
    public = [(home, name) for home in (fastprune, fastprune.export) for name in home.__all__]
    for home, name in public:
        one = getattr(home, name)
        methods = [value for value in vars(one).values() if inspect.isfunction(value)] if inspect.isclass(one) else []
        for function in [*methods, *([one] if inspect.isfunction(one) else [])]:
            for parameter in inspect.signature(function).parameters.values():
                assert len(str(parameter)) < 160, f"{name}.{function.__name__}: {parameter}"


@pytest.mark.long
def test_an_edited_kernel_never_runs_as_it_was(tmp_path):
    """A changed callee in another file than its compiled, cached caller: Numba alone would run the old code."""
    copy = tmp_path / "fastprune"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import numpy as np, fastprune as fp; from fastprune.kernels.activation import dropout\n"
        "tile = np.ones((1, 64)); dropout(tile, 0, np.uint64(9), 0, 0, 64, 0.5)\n"
        "print(fp.__file__, np.count_nonzero(tile), *dropout.stats.cache_hits.values())"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_")}

    def run():
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        where, value, *hits = result.stdout.split()
        assert Path(where).parent == copy
        return int(value), [int(hit) for hit in hits]

    kept = np.count_nonzero(reference.dropout(np.ones((1, 64)), 9, 0, 0.5))
    assert 0 < kept < 64
    assert run() == (kept, [])
    assert run() == (kept, [1]), "the second time from the cache"
    random = copy / "kernels" / "random.py"
    whole = random.read_text()
    assert whole.count("return z ^ (z >> np.uint64(31))") == 1
    random.write_text(whole.replace("return z ^ (z >> np.uint64(31))", "return z * np.uint64(0)"))
    assert run() == (64, [])
