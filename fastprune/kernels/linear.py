"""One layer on one tile: through BLAS if it is stored dense, weight by weight if it is sparse.

Each function does part of its pass, so that threads can share the work. A part is a range of whole rows of the output;
how a row is computed does not depend on where the parts begin.
"""

from typing import Any

from numba import types

from fastprune.kernels.constants import BYTES, STEP, WIDE
from fastprune.kernels.jit import inner_kernel, intrinsic, kernel
from fastprune.kernels.layout import Floats, Indices, Ints
from fastprune.kernels.numba_internals import gemm
from fastprune.kernels.simd import (
    dot,
    dot_four,
    fill,
    item,
    load,
    load_four,
    load_half,
    load_like,
    load_wide,
    multiply_add,
    plus,
    store,
)


@intrinsic
def _gemm(typing_context: Any, out: Any, left: Any, right: Any, add: Any) -> Any:
    """Multiply by BLAS. Numba's np.dot can neither add to `out` nor work on parts of matrices."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        gemm(context, builder, signature.args[:3], arguments[:3], arguments[3])
        return context.get_dummy_value()

    return types.void(out, left, right, types.boolean), codegen


@kernel
def matrix_product(out: Floats, left: Floats, right: Floats, add: bool) -> None:
    """out = left @ right, or out += left @ right if `add`.

    out (m, n) has contiguous rows; left (m, k) and right (k, n) have contiguous rows or columns.
    """
    if out.size > 0:
        _gemm(out, left, right, add)


@kernel
def fill_row(out: Floats, unit: int, value: float) -> None:
    """Row `unit` of out (O, T) = value. T is a multiple of STEP."""
    row = unit * out.shape[1]
    for t in range(row, row + out.shape[1], STEP):
        fill(out, t, out.dtype.type(value))


@kernel
def dense_forward(out: Floats, tile: Floats, weights: Floats, bias: Floats, first: int, last: int) -> None:
    """out = weights @ tile + bias, for outputs `first` to `last`.

    out (O, T), tile (I, T), weights (O, I), bias (O,).
    """
    for o in range(first, last):
        fill_row(out, o, bias[o])
    matrix_product(out[first:last], weights[first:last], tile, True)


@kernel
def dense_weight_gradient(dweights: Floats, dout: Floats, tile: Floats, first: int, last: int, add: bool) -> None:
    """dweights = dout @ tile.T (or += if `add`), for inputs `first` to `last`.

    dweights (O, I), dout (O, T), tile (I, T).
    """
    matrix_product(dweights[:, first:last], dout, tile[first:last].T, add)


@kernel
def dense_input_gradient(dtile: Floats, dout: Floats, weights: Floats, first: int, last: int) -> None:
    """dtile = weights.T @ dout, for inputs `first` to `last`. dtile (I, T), dout (O, T), weights (O, I)."""
    matrix_product(dtile[first:last], weights[:, first:last].T, dout, False)


@kernel
def bias_gradient(dbias: Floats, dout: Floats, units: Indices, first: int, last: int, add: bool) -> None:
    """dbias = row sums of dout (or += if `add`), for units[first:last].

    dbias (O,), dout (O, T).
    """
    for unit in units[first:last]:
        total = dbias[unit] if add else dbias.dtype.type(0)
        for t in range(dout.shape[1]):
            total += dout[unit, t]
        dbias[unit] = total


@kernel
def sparse_product(
    out: Floats, tile: Floats, values: Floats, others: Indices, starts: Ints, units: Indices, first: int, last: int
) -> None:
    """Add weighted rows of `tile` to row units[line] of `out`, for each line from `first` to `last`.

    out (rows, T), tile (rows, T). A line has the weights starts[b, line] to starts[b + 1, line] of each block b.
    Weight k multiplies row others[k] of `tile` by values[k].
    """
    lane = 0
    while lane < tile.shape[1]:
        parts = parts_from(tile, lane)
        if parts == WIDE:
            product_of_lanes(out, tile, values, others, starts, units, first, last, lane, load_wide(tile, 0))
        elif parts == WIDE // 2:
            product_of_lanes(out, tile, values, others, starts, units, first, last, lane, load_half(tile, 0))
        else:
            product_of_lanes(out, tile, values, others, starts, units, first, last, lane, load(tile, 0))
        lane += parts * (BYTES // tile.itemsize)


@inner_kernel
def parts_from(tile: Floats, lane: int) -> int:
    """How many 64-byte parts of a tile's lanes, from `lane` on, are visited together: 4, 2 or 1.

    Each number has loops of its own: with a choice for each line, steps at low densities take 1.05 times as long.
    """
    left = (tile.shape[1] - lane) // (BYTES // tile.itemsize)
    return WIDE if left >= WIDE else WIDE // 2 if left >= WIDE // 2 else 1


@inner_kernel
def product_of_lanes(
    out: Floats,
    tile: Floats,
    values: Floats,
    others: Indices,
    starts: Ints,
    units: Indices,
    first: int,
    last: int,
    lane: int,
    like: Any,
) -> None:
    """`sparse_product` for the lanes from `lane` on, as many as the vector `like` has."""
    lines, lanes = starts.shape[1], tile.shape[1]
    for block in range(starts.shape[0] - 1):
        for line in range(block * lines + first, block * lines + last):
            row = item(units, line - block * lines) * lanes + lane
            total = load_like(out, row, like)  # stays in registers while the line's weights are visited
            for k in range(item(starts, line), item(starts, line + lines)):
                total = multiply_add(item(values, k), load_like(tile, item(others, k) * lanes + lane, like), total)
            store(out, row, total)


@kernel
def line_of(starts: Ints, weight: int) -> int:
    """The last line that begins at or before a weight, or line 0 if none does. starts (B + 1, lines)."""
    low, high = 0, starts.shape[1]
    while low < high:
        middle = (low + high) // 2
        if starts[0, middle] <= weight:
            low = middle + 1
        else:
            high = middle
    return max(low - 1, 0)


@kernel
def sparse_weight_gradient(
    dvalues: Floats,
    dout: Floats,
    tile: Floats,
    others: Indices,
    starts: Ints,
    units: Indices,
    low: int,
    high: int,
    add: bool,
) -> None:
    """dvalues[k] = dout[units[line of k]] . tile[others[k]] (or += if `add`), for weights `low` to `high`.

    dvalues, others (weights,), dout (O, T), tile (I, T); starts (B + 1, lines) and units (lines,) as for
    sparse_product. Weights of units that are not in `units` are skipped.
    """
    part = low, high
    lane = 0
    while lane < tile.shape[1]:
        parts, more = parts_from(tile, lane), lane > 0 or add
        if parts == WIDE:
            gradient_of_lanes(dvalues, dout, tile, others, starts, units, part, more, lane, load_wide(tile, 0))
        elif parts == WIDE // 2:
            gradient_of_lanes(dvalues, dout, tile, others, starts, units, part, more, lane, load_half(tile, 0))
        else:
            gradient_of_lanes(dvalues, dout, tile, others, starts, units, part, more, lane, load(tile, 0))
        lane += parts * (BYTES // tile.itemsize)


@inner_kernel
def gradient_of_lanes(
    dvalues: Floats,
    dout: Floats,
    tile: Floats,
    others: Indices,
    starts: Ints,
    units: Indices,
    part: tuple[int, int],
    add: bool,
    lane: int,
    like: Any,
) -> None:
    """`sparse_weight_gradient` over the lanes from `lane` on, as many as the vector `like` has; `part` is low, high."""
    low, high = part
    first, last = line_of(starts, low), min(line_of(starts, high) + 1, starts.shape[1])
    lines, lanes = starts.shape[1], tile.shape[1]
    for block in range(starts.shape[0] - 1):
        for line in range(block * lines + first, block * lines + last):
            start, stop = max(item(starts, line), low), min(item(starts, line + lines), high)
            held = load_like(dout, item(units, line - block * lines) * lanes + lane, like)
            fours = start + max(stop - start, 0) // 4 * 4
            for k in range(start, fours, 4):
                four = dot_four(
                    held,
                    load_like(tile, item(others, k) * lanes + lane, like),
                    load_like(tile, item(others, k + 1) * lanes + lane, like),
                    load_like(tile, item(others, k + 2) * lanes + lane, like),
                    load_like(tile, item(others, k + 3) * lanes + lane, like),
                )
                store(dvalues, k, plus(four, load_four(dvalues, k)) if add else four)
            for k in range(fours, stop):
                gradient = dot(held, load_like(tile, item(others, k) * lanes + lane, like))
                dvalues[k] = dvalues[k] + gradient if add else gradient
