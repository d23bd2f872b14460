"""Copy samples into tiles."""

from fastprune.kernels.constants import BYTES, STEP
from fastprune.kernels.jit import inner_kernel, kernel
from fastprune.kernels.layout import Features, Floats, Indices, Ints
from fastprune.kernels.simd import prefetch, transpose


@kernel
def lanes_for(count: int) -> int:
    """Number of lanes of a tile for `count` samples, 1 to 64."""
    return (count + STEP - 1) // STEP * STEP


@inner_kernel
def as_tile(row: Floats, features: int, lanes: int) -> Floats:
    """View of the start of the vector `row` as (features, lanes)."""
    return row[: features * lanes].reshape(features, lanes)


@kernel
def gather(
    tile: Floats,
    offsets: Ints,
    x: Floats,
    order: Ints,
    blocks: Indices,
    start: int,
    stop: int,
    first: int,
    last: int,
) -> None:
    """tile[f, t] = x[order[start + t], f] for the samples start .. stop, and 0 in the remaining lanes.

    tile (F, T); x (N, F); order (N,). Fills only lanes `first` to `last` (multiples of 16) and only the features in
    `blocks`; block b is the features 16 b to 16 b + 15, as far as they exist. offsets (4, 32) is overwritten.
    """
    count, features = x.shape
    flat = x.reshape(x.size)
    lanes = tile.shape[1]
    side = BYTES // x.itemsize
    for t in range(first, last, STEP):
        table = offsets[t // STEP]
        for r in range(STEP):
            # Lanes without a sample repeat the last one until they are cleared. The second half is for prefetching.
            table[r] = order[min(start + t + r, stop - 1)] * features
            table[STEP + r] = order[min(start + t + STEP + r, count - 1)] * features
        for block in blocks:
            f = block * STEP
            if f + STEP <= features:
                for g in range(f, f + STEP, side):
                    for r in range(STEP):
                        prefetch(flat, table[STEP + r] + g)
                    for r in range(0, STEP, side):
                        transpose(tile, g * lanes + t + r, lanes, flat, table, r, g)
            else:
                for g in range(f, features):
                    for r in range(STEP):
                        tile[g, t + r] = flat[table[r] + g]
            for g in range(f, min(f + STEP, features)):
                for spare in range(max(t, stop - start), t + STEP):
                    tile[g, spare] = 0


@kernel
def gather_sparse(
    tile: Floats, features: Features, order: Ints, blocks: Indices, start: int, stop: int, first: int, last: int
) -> None:
    """Do what `gather` does for features in compressed sparse rows; features outside `blocks` may be written, too."""
    for block in blocks:
        for f in range(block * STEP, min(block * STEP + STEP, tile.shape[0])):
            tile[f, first:last] = 0
    for t in range(first, min(last, stop - start)):
        sample = order[start + t]
        for k in range(features.starts[sample], features.starts[sample + 1]):
            tile[features.columns[k], t] = features.values[k]


@kernel
def all_finite(x: Floats) -> bool:
    """Whether the vector `x` holds neither NaN nor infinity; unlike NumPy, this needs no temporary."""
    # Without an early return, so that the loop is vectorized: 0 * x is 0 if x is finite, else NaN.
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i] * x.dtype.type(0)
    return bool(total == 0)
