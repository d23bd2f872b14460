"""What goes into the JSON file besides the figures: processor, BLAS and versions, but not whose machine it was."""

import importlib.metadata
from pathlib import Path

import llvmlite.binding
import scipy.linalg.cython_blas  # noqa: F401  (loads the BLAS that kernels use)
from threadpoolctl import threadpool_info

import fastprune

PACKAGES = ("numba", "numpy", "scipy", "torch", "onnxruntime", "scikit-learn", "sparseprop", "sparselab")


def pytest_benchmark_update_machine_info(config, machine_info):
    for name in ("node", "release", "system"):
        machine_info.pop(name, None)
    features = llvmlite.binding.get_host_cpu_features()
    vectors = [name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if features.get(flag)]
    versions = {name: version for name in PACKAGES if (version := version_of(name))}
    machine_info |= {
        # Brand strings can be as short as "AMD EPYC"; LLVM tells generations apart.
        "processor": llvmlite.binding.get_host_cpu_name(),
        "vectors": vectors[0] if vectors else machine_info["machine"],
        "caches": caches(),
        "blas": blas(),
        "versions": {"fastprune": fastprune.__version__} | versions,
    }


def pytest_benchmark_update_commit_info(config, commit_info):
    commit_info.pop("project", None)
    commit_info.pop("branch", None)


def version_of(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def caches():
    """Bytes of the caches that the first core sees, where Linux tells them."""
    sizes = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            sizes["L1d" if level == "1" else f"L{level}"] = int(size.removesuffix("K")) * 1024
    return sizes


def blas():
    """The BLAS that SciPy uses, and so the kernels; NumPy and PyTorch may have others."""
    found = [one for one in threadpool_info() if one["user_api"] == "blas"]
    found = [one for one in found if "scipy" in str(Path(one["filepath"]).parent)] or found
    return {name: found[0].get(name) for name in ("internal_api", "version", "architecture")} if found else {}
