"""One BLAS thread inside our calls: its own threads would fight ours, and change the last bits of a result."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_users: set[object] = set()
_before: list[tuple[Any, int]] = []  # each BLAS and its own number of threads, while there are users


@cache
def _libraries() -> list[Any]:
    # The controller sees only what is loaded, and Numba's BLAS is the one that SciPy brings.
    import scipy.linalg.cython_blas  # noqa: F401

    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS at one thread until the last of all concurrent users has left."""
    user = object()
    try:
        _enter(user)
        yield
    finally:
        try:
            _leave(user)
        except BaseException:  # Ctrl-C can fall into `_leave` itself
            _leave(user)
            raise


# Both may be cut short anywhere by Ctrl-C: `_leave` then finds what there is to undo.


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
    # Since threadpoolctl 3.8, a Python thread that has set OpenBLAS's number keeps the others from setting it, without
    # a word. But the last one to leave need not be the one that came first.
    release = getattr(library, "clear_controlling_thread", lambda force: None)
    release(force=True)
    library.set_num_threads(threads)
    release(force=True)
