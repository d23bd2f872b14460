"""Settings of all tests."""

import importlib.util
import signal

import pytest
from hypothesis import settings

# The first example of a test compiles a kernel: no deadline. The same examples each time: a failure can be repeated.
settings.register_profile("fastprune", deadline=None, derandomize=True)
settings.register_profile("short", settings.get_profile("fastprune"), max_examples=25)

# In the background of a script, SIGINT is ignored, also by the processes that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def is_short(config):
    """Whether what is long is left out, as it is by pyproject.toml."""
    return config.option.markexpr == "not long"


def pytest_configure(config):
    settings.load_profile("short" if is_short(config) else "fastprune")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Tests of many examples run in the short call, with few of them, and in the long one, with all.

    The docstrings of a format need its library, after which their file is named.
    """
    for item in items:
        if isinstance(item, pytest.DoctestItem) and item.path.parent.name == "export":
            library = item.path.stem
            if importlib.util.find_spec(library) is None:
                item.add_marker(pytest.mark.skip(reason=f"{library} is not installed"))
    if not is_short(config):
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker("long")
