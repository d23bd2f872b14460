"""One BLAS thread inside our calls: its own threads would fight ours, and change the last bits of a result."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_held = ExitStack()
_users = 0


@cache
def _controller() -> ThreadpoolController:
    # The controller sees only what is loaded, and Numba's BLAS is the one that SciPy brings.
    import scipy.linalg.cython_blas  # noqa: F401

    return ThreadpoolController()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS at one thread until the last of all concurrent users has left."""
    global _users
    with _lock:
        if _users == 0:
            _held.enter_context(_controller().limit(limits=1, user_api="blas"))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _held.close()
