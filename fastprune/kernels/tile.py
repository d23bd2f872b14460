"""From samples to tiles."""

import math

from fastprune.kernels.jit import kernel
from fastprune.kernels.layout import Floats, Ints

LANES = 64  # of a full tile; fewer samples get the next multiple of STEP
STEP = 16
_BLOCK = 16  # features a block: its rows of the tile stay in the first-level cache while the samples go by


@kernel
def gather(tile: Floats, x: Floats, order: Ints, start: int, stop: int) -> None:
    """tile[:, t] = x[order[start + t]] for the samples start .. stop, and 0 in the remaining lanes.

    tile (F, T); x (N, F); order (N,).
    """
    features, lanes = tile.shape
    count = stop - start
    for first in range(0, features, _BLOCK):
        last = min(first + _BLOCK, features)
        for t in range(count):
            sample = order[start + t]
            for f in range(first, last):
                tile[f, t] = x[sample, f]
        for f in range(first, last):
            for t in range(count, lanes):
                tile[f, t] = 0


@kernel
def all_finite(x: Floats) -> bool:
    """Whether `x`, a vector, holds neither NaN nor infinity; without the temporary that NumPy would need."""
    for i in range(x.size):
        if not math.isfinite(x[i]):
            return False
    return True
