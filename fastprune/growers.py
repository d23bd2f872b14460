"""Growers: functions that choose pruned weights of a layer to bring back with value 0."""

from collections.abc import Callable

import numpy as np

from fastprune.allocation import choose, lowest
from fastprune.criteria import Context
from fastprune.kernels.layout import Ints

Grower = Callable[[Context, int], Ints]
"""Returns the positions of `count` pruned weights in the layer's (fan_out, fan_in) array in C order."""


def random(context: Context, count: int) -> Ints:
    """Choose uniformly at random, as SET does (Mocanu et al. 2018)."""
    fan_out, fan_in = context.shape
    live = context.live
    ranks = choose(fan_out * fan_in - live.size, count, context.rng)
    # Rank r becomes a position by adding the number of live weights before it; the pruned ones are never listed.
    return ranks + np.searchsorted(live - np.arange(live.size), ranks, side="right")


def gradient(context: Context, count: int) -> Ints:
    """Choose the largest absolute gradients, the first among equals, as RigL does (Evci et al. 2020, section 3)."""
    size = -np.abs(context.full_gradient.reshape(-1))
    pruned = np.ones(size.size, bool)
    pruned[context.live] = False
    return lowest(size, np.flatnonzero(pruned), count)


GROWERS: dict[str, Grower] = {"random": random, "gradient": gradient}
