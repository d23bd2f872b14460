"""The decorators of all kernels: compile without the GIL and keep the machine code on disk."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numba.extending

from fastprune.kernels.numba_internals import INNER, is_cached, stamp

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

# Without "nnan" and "ninf": the training loop must detect NaN and infinity.
_FASTMATH = {"nsz", "contract", "reassoc"}


def _digest() -> str:
    """Digest of the source of every kernel file."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


_DIGEST = _digest()


def kernel(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Compile `function` with Numba (`nogil`), cached on disk until any kernel file changes.

    Numba checks only the file of the function itself, so after an edit to an inlined callee in another file it would
    still run the old code (numba#9304). So each cache entry is stamped with the digest of all kernel files.
    """
    dispatcher: Any = numba.njit(nogil=True, cache=True, fastmath=_FASTMATH)(function)
    if dispatcher is not function:  # they are the same with NUMBA_DISABLE_JIT
        stamp(dispatcher, _DIGEST)
    return cast(Callable[_Parameters, _Result], dispatcher)


def inner_kernel(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Compile a function that only kernels call; its machine code becomes part of theirs.

    It has no Python wrapper (slow to compile for named tuples) and no cache entry of its own.
    """
    return cast(Callable[_Parameters, _Result], numba.njit(nogil=True, fastmath=_FASTMATH, **INNER)(function))


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make `function`, which emits LLVM instructions, callable from kernels (without its first argument)."""
    return cast(Callable[..., Any], numba.extending.intrinsic(function))


def is_compiled(function: Any) -> bool:
    """Whether the cache on disk has machine code for the current version of a kernel."""
    return not hasattr(function, "py_func") or is_cached(function)
