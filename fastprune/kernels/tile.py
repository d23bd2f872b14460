"""From samples to tiles."""

import math

from fastprune.kernels.jit import kernel
from fastprune.kernels.layout import Floats, Ints

LANES = 64  # of a full tile; fewer samples get the next multiple of STEP
STEP = 16


@kernel
def gather(tile: Floats, x: Floats, order: Ints, start: int, stop: int) -> None:
    """tile[:, t] = x[order[start + t]] for the samples start .. stop, and 0 in the remaining lanes.

    tile (F, T); x (N, F); order (N,).
    """
    features, lanes = tile.shape
    # Eight samples side by side: eight streams that the processor fetches ahead, and half a line written at a time.
    # Sample by sample within blocks of 16 features took four times as long.
    for t in range(0, stop - start, 8):
        last = stop - 1  # the last eight repeat the last sample, in lanes that are cleared below
        x0, x1 = x[order[start + t]], x[order[min(start + t + 1, last)]]
        x2, x3 = x[order[min(start + t + 2, last)]], x[order[min(start + t + 3, last)]]
        x4, x5 = x[order[min(start + t + 4, last)]], x[order[min(start + t + 5, last)]]
        x6, x7 = x[order[min(start + t + 6, last)]], x[order[min(start + t + 7, last)]]
        for f in range(features):
            row = tile[f, t : t + 8]
            row[0], row[1], row[2], row[3] = x0[f], x1[f], x2[f], x3[f]
            row[4], row[5], row[6], row[7] = x4[f], x5[f], x6[f], x7[f]
    for f in range(features):
        for t in range(stop - start, lanes):
            tile[f, t] = 0


@kernel
def all_finite(x: Floats) -> bool:
    """Whether `x`, a vector, holds neither NaN nor infinity; without the temporary that NumPy would need."""
    for i in range(x.size):  # noqa: SIM110 - compiled
        if not math.isfinite(x[i]):
            return False
    return True
