"""Counter-based random numbers: a value depends only on its keys, not on earlier draws.

`derive` is SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators") with the counter
passed in by the caller. Keys form a tree: seed, purpose, step or epoch, layer, position.
"""

import numpy as np

from fastprune.kernels.jit import kernel
from fastprune.kernels.layout import Ints


@kernel
def derive(key: np.uint64, index: int) -> np.uint64:
    """Return the 64 random bits of child number `index` (>= 0) of `key`; they can serve as a key themselves."""
    z = key + np.uint64(index + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@kernel
def shuffle(order: Ints, key: np.uint64) -> None:
    """Fill `order` (N,) with a random permutation of 0 .. N-1 (Fisher-Yates)."""
    for i in range(order.size):
        order[i] = i
    for i in range(order.size - 1, 0, -1):
        # Scale the upper 32 bits to 0 .. i: no division, and a bias below 2^-32 * N.
        j = np.int64(((derive(key, i) >> np.uint64(32)) * np.uint64(i + 1)) >> np.uint64(32))
        order[i], order[j] = order[j], order[i]
