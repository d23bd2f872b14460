"""Lazy packages: names are imported when they are first used, so importing the package itself takes no time."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def attach(package: str, names: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package, given its modules and the names in each, as in SPEC 1."""
    homes = {name: module for module, theirs in names.items() for name in theirs}

    def get(name: str) -> Any:
        if name not in homes and name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{homes.get(name, name)}")
        value = getattr(module, name) if name in homes else module
        setattr(sys.modules[package], name, value)  # found without `get` the next time
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *homes, *names})
