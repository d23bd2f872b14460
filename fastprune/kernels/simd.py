"""Vectors held in registers: the few operations that all sparse kernels use, as LLVM instructions.

`load` reads 64 bytes (16 float32 or 8 float64), `load_wide` four times as much. LLVM splits these into the processor's
registers: 64 bytes are one register with AVX-512 and two with AVX2. Offsets count elements of an array in C order and
are not checked. `item` reads one element: Numba's own indexing tests each index for a negative one, and these tests
took a third of the sparse kernels' time (AMD EPYC, Zen 3).
"""

from collections.abc import Iterable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import models, register_model

from fastprune.kernels.constants import BYTES, STEP, WIDE
from fastprune.kernels.jit import intrinsic
from fastprune.kernels.numba_internals import POINTER, array_of, call

_INDEX = ir.IntType(32)

# Numba would give additions without flags those of the kernels, and LLVM could then change the order of a sum in one
# place and not in another. Which of the two a weight is in depends on the threads.
_EXACT = ("nsz",)


class Vector(types.Type):
    """Numba's type of `lanes` numbers of type `dtype`."""

    def __init__(self, dtype: Any, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        self.element = ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()
        self.llvm = ir.VectorType(self.element, lanes)
        super().__init__(name=f"Vector({dtype}, {lanes})")

    @property
    def suffix(self) -> str:
        """Suffix of LLVM function names for this type."""
        return f"v{self.lanes}f{self.dtype.bitwidth}"


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm)  # type: ignore[no-untyped-call]


@intrinsic
def item(typing_context: Any, array: Any, offset: Any) -> Any:
    """Return one element of `array`."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.gep(array_of(context, builder, array, arguments[0]).data, [arguments[1]]))

    return array.dtype(array, types.int64), codegen


@intrinsic
def load(typing_context: Any, array: Any, offset: Any) -> Any:
    """Return 64 bytes of `array`, starting at `offset`."""
    return _load(array, BYTES)


@intrinsic
def load_four(typing_context: Any, array: Any, offset: Any) -> Any:
    """Return four elements of `array`, starting at `offset`."""
    return _load(array, 4 * array.dtype.bitwidth // 8)


@intrinsic
def load_step(typing_context: Any, array: Any, offset: Any) -> Any:
    """Return STEP elements of `array`, starting at `offset`: a tile's lanes are a multiple of STEP for any dtype."""
    return _load(array, STEP * array.dtype.bitwidth // 8)


@intrinsic
def load_like(typing_context: Any, array: Any, offset: Any, vector: Any) -> Any:
    """Return as many elements of `array` as `vector` has, starting at `offset`."""
    return _load(array, vector.lanes * array.dtype.bitwidth // 8, vector)


@intrinsic
def load_half(typing_context: Any, array: Any, offset: Any) -> Any:
    """Return half as many bytes of `array` as `load_wide`, starting at `offset`."""
    return _load(array, WIDE * BYTES // 2)


@intrinsic
def load_wide(typing_context: Any, array: Any, offset: Any) -> Any:
    """Return 256 bytes of `array`, starting at `offset`."""
    return _load(array, WIDE * BYTES)


def _load(array: Any, size: int, *others: Any) -> Any:
    vector = Vector(array.dtype, size * 8 // array.dtype.bitwidth)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, array, arguments[0], arguments[1], vector)
        return builder.load(address, align=array.dtype.bitwidth // 8)

    return vector(array, types.int64, *others), codegen


@intrinsic
def store(typing_context: Any, array: Any, offset: Any, vector: Any) -> Any:
    """Write `vector` to `array`, starting at `offset`."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, array, arguments[0], arguments[1], vector)
        builder.store(arguments[2], address, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), codegen


@intrinsic
def fill(typing_context: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write a number to STEP elements of `array`, starting at `offset`."""
    vector = Vector(array.dtype, STEP)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, array, arguments[0], arguments[1], vector)
        builder.store(_repeat(builder, vector, arguments[2]), address, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, array.dtype), codegen


@intrinsic
def gate(typing_context: Any, vector: Any, sign: Any) -> Any:
    """Return `vector` where `sign` is above 0 or NaN; elsewhere 0 times it, which is NaN for NaN and infinity.

    Without the product, LLVM makes a masked store of it, which takes an AMD EPYC (Zen 3) eight times as long.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zeros, ones = (ir.Constant(vector.llvm, [value] * vector.lanes) for value in (0.0, 1.0))
        above = builder.fcmp_unordered(">", arguments[1], zeros)
        return builder.fmul(arguments[0], builder.select(above, ones, zeros))

    return vector(vector, vector), codegen


@intrinsic
def multiply_add(typing_context: Any, factor: Any, vector: Any, total: Any) -> Any:
    """Return factor * vector + total, rounded once. `factor` is a number; `vector` and `total` are vectors."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _fma(builder, vector, _repeat(builder, vector, arguments[0]), *arguments[1:])

    return vector(vector.dtype, vector, vector), codegen


@intrinsic
def plus(typing_context: Any, left: Any, right: Any) -> Any:
    """Return left + right, both vectors."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments, flags=_EXACT)

    return left(left, left), codegen


@intrinsic
def dot(typing_context: Any, left: Any, right: Any) -> Any:
    """Return the sum of left * right over all lanes, bit for bit as `dot_four` does."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        four = _dot_four(builder, left, arguments[0], arguments[1:] * 4)
        return builder.extract_element(four, ir.Constant(_INDEX, 0))

    return left.dtype(left, left), codegen


@intrinsic
def dot_four(typing_context: Any, left: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Return the vector (left . a, left . b, left . c, left . d).

    Sums go first across 64-byte parts, then across lanes, which takes a third of the instructions of four sums apart.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _dot_four(builder, left, arguments[0], arguments[1:])

    return Vector(left.dtype, 4)(left, a, b, c, d), codegen


def _dot_four(builder: Any, vector: Vector, left: Any, others: Any) -> Any:
    part = Vector(vector.dtype, BYTES * 8 // vector.dtype.bitwidth)
    undefined = ir.Constant(vector.llvm, ir.Undefined)

    def products(right: Any) -> Any:
        total = ir.Constant(part.llvm, [0.0] * part.lanes)
        for first in range(0, vector.lanes, part.lanes):
            lanes = range(first, first + part.lanes)
            a, b = (_shuffle(builder, x, undefined, lanes) for x in (left, right))
            total = _fma(builder, part, a, b, total)
        return total

    def halves(x: Any, y: Any, lanes: list[int]) -> Any:
        """Add two lanes of each quarter of x and y: `lanes` names those of the first, the second ones are 2 higher."""
        first = [group + lane for group in range(0, part.lanes, 4) for lane in lanes]
        return builder.fadd(
            *(_shuffle(builder, x, y, [lane + high for lane in first]) for high in (0, 2)), flags=_EXACT
        )

    a, b, c, d = (products(right) for right in others)
    interleaved, side_by_side = [0, part.lanes, 1, part.lanes + 1], [0, 1, part.lanes, part.lanes + 1]
    total = halves(halves(a, b, interleaved), halves(c, d, interleaved), side_by_side)
    lanes = part.lanes
    while lanes > 4:
        lanes //= 2
        parts = (_shuffle(builder, total, total, range(low, low + lanes)) for low in (0, lanes))
        total = builder.fadd(*parts, flags=_EXACT)
    return total


@intrinsic
def transpose(
    typing_context: Any, out: Any, start: Any, stride: Any, x: Any, rows: Any, first: Any, offset: Any
) -> Any:
    """Transpose a square block, with as many rows and columns as there are numbers in 64 bytes.

    Row r begins at x[rows[first + r] + offset]; column c is written to `out` from start + c * stride on.
    """
    vector = Vector(x.dtype, BYTES * 8 // x.dtype.bitwidth)
    kinds = [types.int64] * 2

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out_, start_, stride_, x_, rows_, first_, offset_ = arguments
        table = builder.gep(array_of(context, builder, rows, rows_).data, [first_])
        align = x.dtype.bitwidth // 8
        block = []
        for r in range(vector.lanes):
            begin = builder.add(builder.load(builder.gep(table, [ir.Constant(ir.IntType(64), r)])), offset_)
            block.append(builder.load(_address(context, builder, x, x_, begin, vector), align=align))
        # Swap quarters of ever larger blocks (Eklundh 1972).
        size = 1
        while size < vector.lanes:
            for r in range(vector.lanes):
                if not r & size:
                    upper, lower = block[r], block[r + size]
                    lanes = range(vector.lanes)
                    left = [lane if not lane & size else vector.lanes + lane - size for lane in lanes]
                    right = [lane + size if not lane & size else vector.lanes + lane for lane in lanes]
                    block[r], block[r + size] = (_shuffle(builder, upper, lower, part) for part in (left, right))
            size *= 2
        for c, column in enumerate(block):
            begin = builder.add(start_, builder.mul(stride_, ir.Constant(ir.IntType(64), c)))
            builder.store(column, _address(context, builder, out, out_, begin, vector), align=align)
        return context.get_dummy_value()

    return types.void(out, *kinds, x, rows, *kinds), codegen


@intrinsic
def prefetch(typing_context: Any, array: Any, offset: Any) -> Any:
    """Prefetch the cache line of an element that will be read soon."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = array_of(context, builder, array, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), POINTER)
        read, soon, data_cache = (ir.Constant(_INDEX, value) for value in (0, 3, 1))
        kinds = [POINTER, _INDEX, _INDEX, _INDEX]
        call(builder, "llvm.prefetch.p0", ir.VoidType(), kinds, [address, read, soon, data_cache])
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


def _address(context: Any, builder: Any, array_type: Any, array: Any, offset: Any, vector: Vector) -> Any:
    data = array_of(context, builder, array_type, array).data
    return builder.bitcast(builder.gep(data, [offset]), vector.llvm.as_pointer())


def _repeat(builder: Any, vector: Vector, value: Any) -> Any:
    undefined = ir.Constant(vector.llvm, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_INDEX, 0))
    return _shuffle(builder, first, undefined, [0] * vector.lanes)


def _fma(builder: Any, vector: Vector, a: Any, b: Any, c: Any) -> Any:
    return call(builder, f"llvm.fma.{vector.suffix}", vector.llvm, [vector.llvm] * 3, [a, b, c])


def _shuffle(builder: Any, first: Any, second: Any, lanes: Iterable[int]) -> Any:
    """Return a vector of these lanes; numbering continues from `first` into `second`."""
    mask = list(lanes)
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(_INDEX, len(mask)), mask))
