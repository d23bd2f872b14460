"""What comes back: functions that choose weights of a layer that were pruned, to be live again from 0."""

from collections.abc import Callable

import numpy as np

from fastprune.allocation import choose, lowest
from fastprune.criteria import Context
from fastprune.kernels.layout import Ints

Grower = Callable[[Context, int], Ints]
"""Chooses so many of a layer's pruned weights: positions in its (fan_out, fan_in) array, counted in C order."""


def random(context: Context, count: int) -> Ints:
    """Any of them, each set as likely as any other: SET (Mocanu et al. 2018)."""
    fan_out, fan_in = context.shape
    live = context.live
    ranks = choose(fan_out * fan_in - live.size, count, context.rng)
    # A pruned weight stands after as many live ones as have fewer pruned ones before them: no list of all is made.
    return ranks + np.searchsorted(live - np.arange(live.size), ranks, side="right")


def gradient(context: Context, count: int) -> Ints:
    """Those by which the loss has the largest gradients, the first of equals: RigL (Evci et al. 2020, section 3)."""
    size = -np.abs(context.full_gradient.reshape(-1))
    pruned = np.ones(size.size, bool)
    pruned[context.live] = False
    return lowest(size, np.flatnonzero(pruned), count)


GROWERS: dict[str, Grower] = {"random": random, "gradient": gradient}
