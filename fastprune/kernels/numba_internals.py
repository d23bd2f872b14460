"""What the kernels use of Numba beyond its documented interface, and nothing else.

A new version of Numba may change any of this. `tests/test_numba_internals.py` has a test for each part, which says what
has changed; then this file is the one to look at.
"""

from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils

# An option of `numba.njit`, missing from its type hints: make no function that Python can call.
INNER: dict[str, Any] = {"no_cpython_wrapper": True}

POINTER = cgutils.voidptr_t
SIZE = cgutils.intp_t
_LETTER = ir.IntType(8)

# The arguments of numba_xxgemm: the kind of number, whether each matrix is transposed, the shape, a factor, two
# matrices with the distance between rows, a factor, and the result with the distance between its rows.
GEMM = [_LETTER] * 3 + [SIZE] * 3 + [POINTER, POINTER, SIZE, POINTER, SIZE, POINTER, POINTER, SIZE]


def stamp(dispatcher: Any, digest: str) -> None:
    """Make the cache on disk hold a function for this digest, instead of the time stamp of the function's file."""
    _cache_file(dispatcher)._source_stamp = digest


def is_cached(dispatcher: Any) -> bool:
    """Whether the cache on disk has machine code of a function for its stamp."""
    return bool(_cache_file(dispatcher)._load_index())


def _cache_file(dispatcher: Any) -> Any:
    """Return the index of a function's cache; raise ImportError if this Numba keeps it in another way."""
    file = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if not (hasattr(file, "_source_stamp") and hasattr(file, "_load_index")):
        raise ImportError(
            f"fastprune does not know how Numba {numba.__version__} caches machine code, and could run kernels of "
            "another version: install an earlier Numba, or a later fastprune"
        )
    return file


def array_of(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """Return an array argument of an intrinsic, with the attributes `data`, `shape` and `strides`."""
    return context.make_array(kind)(context, builder, value)


def call(builder: Any, name: str, result: Any, kinds: list[Any], arguments: list[Any]) -> Any:
    """Call a function of LLVM, of the C library, or of Numba's own, by name."""
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, kinds), name)
    return builder.call(function, arguments)


def gemm(context: Any, builder: Any, kinds: Any, arguments: Any, add: Any) -> None:
    """Call the BLAS routine behind Numba's np.dot: out = left @ right, or out += left @ right if `add`.

    `kinds` and `arguments` are those of out, left and right. Rows of out are contiguous; rows or columns of the others.
    """
    dtype = kinds[0].dtype

    def matrix(kind: Any, value: Any) -> tuple[Any, Any, Any, Any]:
        """Address, shape, order (are rows or columns contiguous?), and the distance between the contiguous ones."""
        parts = array_of(context, builder, kind, value)
        shape = cgutils.unpack_tuple(builder, parts.shape)
        item = ir.Constant(SIZE, dtype.bitwidth // 8)
        strides = [builder.sdiv(stride, item) for stride in cgutils.unpack_tuple(builder, parts.strides)]
        by_rows = builder.icmp_signed("==", strides[1], ir.Constant(SIZE, 1))
        distance, least = (builder.select(by_rows, *pair) for pair in (strides, reversed(shape)))
        ample = builder.icmp_signed(">", distance, least)  # BLAS checks this even for a single row
        order = builder.select(by_rows, ir.Constant(_LETTER, ord("n")), ir.Constant(_LETTER, ord("t")))
        return builder.bitcast(parts.data, POINTER), shape, order, builder.select(ample, distance, least)

    def number(value: Any) -> Any:
        return builder.bitcast(cgutils.alloca_once_value(builder, value), POINTER)

    (c, (m, n), _, ldc), (a, (_, k), a_order, lda), (b, _, b_order, ldb) = (
        matrix(*pair) for pair in zip(kinds, arguments, strict=True)
    )
    element = context.get_value_type(dtype)
    one, zero = ir.Constant(element, 1.0), ir.Constant(element, 0.0)
    # BLAS is column-major: rows of c = a b are columns of c' = b' a'.
    kind = ir.Constant(_LETTER, ord("s" if dtype.bitwidth == 32 else "d"))
    beta = number(builder.select(add, one, zero))
    given = [kind, b_order, a_order, n, m, k, number(one), b, ldb, a, lda, beta, c, ldc]
    call(builder, "numba_xxgemm", ir.IntType(32), GEMM, given)
