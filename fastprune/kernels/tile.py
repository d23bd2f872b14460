"""From samples to tiles."""

import math

from fastprune.kernels.jit import kernel
from fastprune.kernels.layout import Floats, Indices, Ints
from fastprune.kernels.simd import prefetch

LANES = 64  # of a full tile; fewer samples get the next multiple of STEP
STEP = 16


@kernel
def lanes_for(count: int) -> int:
    """Lanes of a tile of `count` samples, 1 to 64."""
    return (count + STEP - 1) // STEP * STEP


@kernel
def as_tile(row: Floats, features: int, lanes: int) -> Floats:
    """View of the beginning of `row`, a vector, as (features, lanes)."""
    return row[: features * lanes].reshape(features, lanes)


@kernel
def gather(tile: Floats, x: Floats, order: Ints, units: Indices, start: int, stop: int, first: int, last: int) -> None:
    """tile[f, t] = x[order[start + t], f] for the samples start .. stop, 0 in the remaining lanes; f of `units` only.

    tile (F, T); x (N, F); order (N,). Of the lanes, those from `first` to `last`, multiples of 8, are filled.
    """
    features = x.shape[1]
    final = stop - 1  # the last eight repeat the last sample, in lanes that are cleared below
    line = 64 // x.itemsize
    # Eight samples side by side: eight streams that the processor fetches ahead, and half a line written at a time.
    # Sample by sample within blocks of 16 features took four times as long, doing without prefetch half as long again.
    for t in range(first, min(last, stop - start), 8):
        x0, x1 = x[order[start + t]], x[order[min(start + t + 1, final)]]
        x2, x3 = x[order[min(start + t + 2, final)]], x[order[min(start + t + 3, final)]]
        x4, x5 = x[order[min(start + t + 4, final)]], x[order[min(start + t + 5, final)]]
        x6, x7 = x[order[min(start + t + 6, final)]], x[order[min(start + t + 7, final)]]
        fetched = -1
        for f in units:
            if f // line != fetched:
                fetched = f // line
                for ahead in range(start + t + 8, start + t + 16):
                    prefetch(x, order[min(ahead, order.size - 1)] * features + f)
            row = tile[f, t : t + 8]
            row[0], row[1], row[2], row[3] = x0[f], x1[f], x2[f], x3[f]
            row[4], row[5], row[6], row[7] = x4[f], x5[f], x6[f], x7[f]
    for f in units:
        for t in range(max(first, stop - start), last):
            tile[f, t] = 0


@kernel
def all_finite(x: Floats) -> bool:
    """Whether `x`, a vector, holds neither NaN nor infinity; without the temporary that NumPy would need."""
    for i in range(x.size):  # noqa: SIM110 - compiled
        if not math.isfinite(x[i]):
            return False
    return True
