"""What goes into the JSON file besides the figures: the processor and the versions, but not whose machine it was."""

import numba
import numpy as np
import scipy


def pytest_benchmark_update_machine_info(config, machine_info):
    for name in ("node", "release", "system"):
        machine_info.pop(name, None)
    machine_info["versions"] = {module.__name__: module.__version__ for module in (numba, np, scipy)}


def pytest_benchmark_update_commit_info(config, commit_info):
    commit_info.pop("project", None)
    commit_info.pop("branch", None)
