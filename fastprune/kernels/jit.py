"""The decorators of all kernels: compile without the GIL and keep the machine code on disk."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numba.extending

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

# No "nnan" and no "ninf": the training loop relies on finding NaN and infinity.
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

    Numba looks only at the file of the function itself: an edit of an inlined callee in another file would go on
    running old code (numba#9304). So the stamp of each cache entry is replaced by the digest of all kernel files.
    """
    dispatcher: Any = numba.njit(nogil=True, cache=True, fastmath=_FASTMATH)(function)
    if dispatcher is not function:  # as it is with NUMBA_DISABLE_JIT
        dispatcher._cache._cache_file._source_stamp = _DIGEST
    return cast(Callable[_Parameters, _Result], dispatcher)


def inner_kernel(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Compile a function that only kernels call, whose machine code is part of theirs.

    It is neither callable from Python, which takes long to compile for named tuples, nor kept on disk by itself.
    """
    options: dict[str, Any] = {"no_cpython_wrapper": True}  # which Numba's type hints do not know
    return cast(Callable[_Parameters, _Result], numba.njit(nogil=True, fastmath=_FASTMATH, **options)(function))


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make `function`, which writes LLVM instructions, callable from kernels: without its first argument."""
    return cast(Callable[..., Any], numba.extending.intrinsic(function))


def is_compiled(function: Any) -> bool:
    """Whether the cache on disk has machine code for a kernel as it now is."""
    return not hasattr(function, "_cache") or bool(function._cache._cache_file._load_index())
