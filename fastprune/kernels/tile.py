"""From samples to tiles."""

from fastprune.kernels.jit import inner_kernel, kernel
from fastprune.kernels.layout import Floats, Indices, Ints
from fastprune.kernels.simd import BYTES, prefetch, transpose

LANES = 64  # of a full tile; fewer samples get the next multiple of STEP
STEP = 16


@kernel
def lanes_for(count: int) -> int:
    """Lanes of a tile of `count` samples, 1 to 64."""
    return (count + STEP - 1) // STEP * STEP


@inner_kernel
def as_tile(row: Floats, features: int, lanes: int) -> Floats:
    """View of the beginning of `row`, a vector, as (features, lanes)."""
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

    tile (F, T); x (N, F); order (N,). Of the lanes, those from `first` to `last` are filled, multiples of 16; of the
    features, those in `blocks`, where block b is the 16 from 16 b on, as far as there are so many. offsets (4, 32) is
    overwritten.
    """
    count, features = x.shape
    flat = x.reshape(x.size)
    lanes = tile.shape[1]
    side = BYTES // x.itemsize
    for t in range(first, last, STEP):
        table = offsets[t // STEP]
        for r in range(STEP):
            # Lanes without a sample repeat the last one until they are cleared. The second half is read soon.
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
def all_finite(x: Floats) -> bool:
    """Whether `x`, a vector, holds neither NaN nor infinity; without the temporary that NumPy would need."""
    # No early return, so that the loop is vectorized: 0 times a finite number is 0, times NaN or infinity it is NaN.
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i] * x.dtype.type(0)
    return bool(total == 0)
