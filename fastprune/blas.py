"""Hold BLAS at one thread inside our calls: its threads would compete with ours and change the last bits of results."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_users: set[object] = set()
_before: list[tuple[Any, int]] = []  # while there are users: each BLAS library and its original number of threads


@cache
def _libraries() -> list[Any]:
    # The controller sees only loaded libraries, and Numba uses SciPy's BLAS.
    import scipy.linalg.cython_blas  # noqa: F401

    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS at one thread until the last concurrent user has left."""
    user = object()
    try:
        _enter(user)
        yield
    finally:
        try:
            _leave(user)
        except BaseException:  # Ctrl-C can interrupt `_leave` itself
            _leave(user)
            raise


# Ctrl-C may interrupt both functions anywhere; `_leave` can then still undo what was done.


def _enter(user: object) -> None:
    global _before
    libraries = _libraries()
    with _lock:
        if not _users:
            _before = _before or [(library, library.get_num_threads()) for library in libraries]
            for library in libraries:
                _set_threads(library, 1)
        _users.add(user)


def _leave(user: object) -> None:
    global _before
    with _lock:
        _users.discard(user)
        if not _users:
            for library, threads in _before:
                _set_threads(library, threads)
            _before = []


def _set_threads(library: Any, threads: int) -> None:
    # Since threadpoolctl 3.8, the Python thread that sets OpenBLAS's thread count silently keeps others from setting
    # it. But the last user to leave may be in another thread than the first.
    release = getattr(library, "clear_controlling_thread", lambda force: None)
    release(force=True)
    library.set_num_threads(threads)
    release(force=True)
